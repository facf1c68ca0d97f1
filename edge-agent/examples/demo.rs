//! The whole floor on this machine, nothing to install:
//!
//! ```text
//!   cargo run --release --example demo                       until Ctrl-C
//!   cargo run --release --example demo -- --for 30s --json   ends by itself, prints one JSON object
//!   cargo run --release --example demo -- --for 40s --outage 10s   cuts the broker off on the way, and loses nothing
//! ```
//!
//! An MQTT broker, the plant and the real agent in one process, joined by real sockets: Modbus TCP, OPC UA, MQTT, HTTP.
//! A feeder posts orders over HTTP, a subscriber of its own counts what arrives at the broker, and at the end the plant
//! is asked what really happened. Exit 1 when a load is in two places or lost, or a command was executed twice.

#[path = "../tests/support/mod.rs"]
mod support;

use clap::Parser;
use edge_agent::Agent;
use edge_agent::desk::OrderState;
use plc_sim::{Sim, Truth};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::Received;

/// The whole floor on this machine: an MQTT broker, the plant and the real agent
#[derive(Parser)]
struct Options {
    /// End after this long, as in 30s
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
    /// Print one JSON object at the end and nothing else
    #[arg(long)]
    json: bool,
    /// Cut the broker off after a third of the time (10 s without --for) for this long, as in 10s, and lose nothing
    #[arg(long, value_parser = humantime::parse_duration)]
    outage: Option<Duration>,
    /// Decides where the first loads are and which orders come
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Orders the feeder keeps going at once.
const ORDERS_AT_ONCE: usize = 40;

fn main() -> ExitCode {
    edge_agent::cli::abort_at_panics();
    let options = Options::parse();
    let level = if options.json { "error" } else { "warn" };
    let quiet = "opcua_client=off,opcua_core=off,opcua_server=off,opcua_crypto=off,rumqttd=off,rumqttc=off";
    tracing_subscriber::fmt().with_env_filter(format!("{level},{quiet}")).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(|e| e.to_string()).and_then(|r| r.block_on(run(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool, String> {
    let broker = support::start_broker().await;
    let received = support::subscribe(broker).await;
    let sim = support::start(support::hall_plant(), options.seed).await;
    let (gate, open) = support::gate(broker).await;
    let mut plan = support::hall_plan(sim.addresses, gate);
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    if let Some(mqtt) = &mut plan.mqtt {
        mqtt.spool.directory = Some(folder.path().join("spool"));
    }
    plan.control.realtime.wanted = true;
    let preferred = std::net::SocketAddr::from(([127, 0, 0, 1], 9464));
    if std::net::TcpListener::bind(preferred).is_ok() {
        plan.listen = preferred;
    }
    let agent = Agent::start(plan).await?;
    if !options.json {
        println!("Lightsout demo: {}. Ctrl-C ends it.", what_there_is(&sim));
        println!("  page       http://{}/   floor, orders, field, beat and alarms, in the browser", agent.http);
        println!(
            "  PLCs       modbus-tcp://{}   aisles are units 1 and 2, the hall 90, robots 100",
            sim.addresses.modbus
        );
        println!("  cells      opc.tcp://{}/", sim.addresses.opcua);
        println!("  broker     mqtt://127.0.0.1:{broker}   mosquitto_sub -p {broker} -t 'lightsout/#' -v");
        println!("  metrics    http://{}/metrics", agent.http);
        println!("  orders     http://{}/api/v1/orders\n", agent.http);
    }
    let start = Instant::now();
    let mut feeder = Feeder::new(options.seed);
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut line = StatusLine::default();
    let over = async {
        match options.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    let outage = cut(options, open);
    let mut outage = std::pin::pin!(outage);
    loop {
        tokio::select! {
            () = &mut over => break,
            () = &mut outage => {}
            _ = tokio::signal::ctrl_c() => break,
            _ = ticks.tick() => {
                feeder.feed(&agent, &sim).await;
                if !options.json {
                    line.show(&agent, &sim, start.elapsed());
                }
            }
        }
    }
    if !options.json {
        println!("\nstopping: machines finish what they are doing ..");
    }
    finish(options, agent, &sim, &received).await
}

/// Cuts the broker off once, if that is wanted; never ends.
async fn cut(options: &Options, open: tokio::sync::watch::Sender<bool>) {
    if let Some(length) = options.outage {
        tokio::time::sleep(options.limit.map_or(Duration::from_secs(10), |l| l / 3)).await;
        if !options.json {
            println!("\nthe broker is cut off for {length:?}: samples wait in the spool ..\n");
        }
        let _ = open.send(false);
        tokio::time::sleep(length).await;
        if !options.json {
            println!("\nthe broker is back\n");
        }
        let _ = open.send(true);
    }
    std::future::pending::<()>().await;
    drop(open);
}

/// Stops the agent, waits for the last samples, asks the plant, and prints the result.
async fn finish(options: &Options, agent: Agent, sim: &Sim, received: &Mutex<Received>) -> Result<bool, String> {
    let stages = agent.stages.clone();
    agent.stop().await;
    let produced = stages.spool.stats.produced.load(Relaxed);
    let arrived = || received.lock().map_or(0, |r| r.sequences.len() as u64);
    support::eventually(Duration::from_secs(3), async || arrived() >= produced).await;

    let truth = sim.truth();
    let control = &stages.control;
    let counter = |n: usize| control.counters[n].load(Relaxed);
    let us = |ns: u64| ns / 1000;
    let polled: u64 = stages.lines.all().iter().map(|(_, l)| l.readings.load(Relaxed)).sum();
    let result = serde_json::json!({
        "orders_completed": counter(2),
        "orders_failed": counter(3),
        "cycles": control.cycles.load(Relaxed),
        "cycles_missed": control.missed.load(Relaxed),
        "cycle_exec_us_p50": us(control.exec.quantile_ns(0.5)),
        "cycle_exec_us_p99": us(control.exec.quantile_ns(0.99)),
        "cycle_exec_us_max": us(control.exec.max_ns()),
        "tags_polled": polled,
        "samples_produced": produced,
        "samples_delivered": arrived(),
        "samples_lost": produced - arrived().min(produced),
        "commands_sent": counter(4),
        "commands_done": counter(5),
        "double_commands": truth.double_commands,
        "loads_in_two_places": truth.in_two_places.len(),
        "loads_lost": truth.lost.len(),
    });
    if options.json {
        println!("{result}");
    } else {
        println!("{result:#}");
        println!("{}", verdict(&truth));
    }
    Ok(truth.is_clean())
}

fn verdict(truth: &Truth) -> String {
    if truth.is_clean() {
        let (executed, inside) = (truth.commands_executed, truth.loads_inside);
        return format!("The plant says: {executed} commands executed, none twice; {inside} loads inside, none lost.");
    }
    format!("The plant says that something went wrong: {truth:?}")
}

/// Keeps the floor busy with orders of all kinds, posted over HTTP like anybody's.
struct Feeder {
    rng: fastrand::Rng,
    next_load: u32,
    busy: BTreeSet<u32>,
}

impl Feeder {
    fn new(seed: u64) -> Feeder {
        Feeder { rng: fastrand::Rng::with_seed(seed), next_load: 5000, busy: BTreeSet::new() }
    }

    async fn feed(&mut self, agent: &Agent, sim: &Sim) {
        if !agent.ready() {
            return;
        }
        let ended = |s| matches!(s, OrderState::Completed | OrderState::Failed | OrderState::Rejected);
        self.busy = agent.desk.newest(200, None).iter().filter(|o| !ended(o.state)).map(|o| o.load).collect();
        if self.busy.len() >= ORDERS_AT_ONCE {
            return;
        }
        let (kind, load) = match self.rng.u8(0..6) {
            0 | 1 => {
                self.next_load += 1;
                if let Some(load) = control_core::units::LoadId::new(self.next_load) {
                    sim.plant.lock().deliver(load); // the lorry has come
                }
                ("store", self.next_load)
            }
            2 | 3 => ("retrieve", self.pick(sim)),
            _ => ("process", self.pick(sim)),
        };
        let class = self.rng.u8(0..4);
        let mut order = serde_json::json!({ "kind": kind, "load": load, "class": class });
        if kind == "process" {
            order["station"] = self.rng.choice(["mill", "weld"]).into();
        }
        let order = order.to_string();
        let _ = support::http(agent.http, "POST", "/api/v1/orders", &order).await;
    }

    /// A load in a bay that no order has.
    fn pick(&mut self, sim: &Sim) -> u32 {
        let plant = sim.plant.lock();
        let free: Vec<u32> = plant
            .plan()
            .bays()
            .filter_map(|b| plant.loads().at(b))
            .map(|l| l.get())
            .filter(|l| !self.busy.contains(l))
            .collect();
        self.rng.choice(free).unwrap_or(1)
    }
}

/// The live line.
#[derive(Default)]
struct StatusLine {
    last: Option<(Instant, u64, u64)>,
    rates: (f64, f64),
    drawn: bool,
}

impl StatusLine {
    fn show(&mut self, agent: &Agent, sim: &Sim, running: Duration) {
        let stages: &Arc<edge_agent::metrics::Stages> = &agent.stages;
        let polled: u64 = stages.lines.all().iter().map(|(_, l)| l.readings.load(Relaxed)).sum();
        let delivered = stages.spool.stats.delivered.load(Relaxed);
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        let (then, polled_then, delivered_then) = *self.last.get_or_insert((now, polled, delivered));
        let seconds = (now - then).as_secs_f64();
        if seconds >= 1.0 {
            self.rates = ((polled - polled_then) as f64 / seconds, (delivered - delivered_then) as f64 / seconds);
            self.last = Some((now, polled, delivered));
        } else if !terminal {
            return; // a line a second is enough for a file
        }
        let control = &stages.control;
        let floor = format!("{:>4}s  {}", running.as_secs(), machines(sim));
        let figures = format!(
            "{} orders done, {} under way; cycle {} us (p99 {}), {} missed; {:.0} tags/s; {:.0} messages/s, {} delivered",
            control.counters[2].load(Relaxed),
            control.orders_active.load(Relaxed),
            control.exec.quantile_ns(0.5) / 1000,
            control.exec.quantile_ns(0.99) / 1000,
            control.missed.load(Relaxed),
            self.rates.0,
            self.rates.1,
            delivered,
        );
        if terminal {
            let up = if std::mem::replace(&mut self.drawn, true) { "\x1b[2A" } else { "" };
            print!("{up}{floor}\x1b[K\n       {figures}\x1b[K\n");
            let _ = std::io::stdout().flush();
        } else {
            println!("{floor}  {figures}");
        }
    }
}

/// Every machine with what it carries: `shuttle-1 [    ]` without, `lift [1042]` with a load. Of many, how many carry something.
fn machines(sim: &Sim) -> String {
    const SHOWN: u16 = 8;
    let plant = sim.plant.lock();
    let plan = plant.plan();
    let floor = plan.view();
    let carried = |id| plant.machine(id).and_then(|m| plant.loads().at(m.deck()));
    if floor.machines() > SHOWN {
        let loaded = floor.machine_ids().filter(|id| carried(*id).is_some()).count();
        return format!("{loaded} of {} machines carry a load", floor.machines());
    }
    let shown = floor.machine_ids().map(|id| {
        let load = carried(id).map_or(String::new(), |load| load.get().to_string());
        format!("{} [{load:>4}]", plan.machine_name(id))
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// What the floor consists of.
fn what_there_is(sim: &Sim) -> String {
    let plant = sim.plant.lock();
    let (plan, floor) = (plant.plan(), plant.plan().view());
    let count = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let tiers: u16 = plan.aisles.iter().map(|a| a.tiers).sum();
    let parts = [
        (plan.aisles.len(), "aisle"),
        (usize::from(tiers), "tier"),
        (plan.aisles.iter().map(|a| a.shuttles.len()).sum(), "shuttle"),
        (plan.aisles.iter().map(|a| a.lifts.len()).sum(), "lift"),
        (floor.stations().count(), "robot cell"),
        (floor.robots().count(), "mobile robot"),
    ];
    parts.iter().filter(|p| p.0 > 0).map(|p| count(p.0, p.1)).collect::<Vec<_>>().join(", ")
}
