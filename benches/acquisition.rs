//! What gathering costs: the real agent between a bank of devices and a broker, each in a process of its own.
//!
//! ```text
//!   cargo bench --bench acquisition [-- s1 .. s7 | dead-units | defaults | outage | ceiling | small | tags | opcua | opcua-idle]
//!                                              [--for 20s] [--json] [--no-publish] [--broker mosquitto]
//!
//!   bank ──Modbus──> edge-agent ──MQTT QoS 1──> broker ──> subscriber       then, at the same bank:  floor
//!                        │  /metrics: values, missed polls, lateness         a bare tokio-modbus loop, the same reads
//!                        └─ /proc:    CPU time over the window, peak memory
//! ```
//!
//! s1 to s7 are the scenarios on which gateways are compared: 1000 contiguous f32 a device, one connection for ten devices.
//!
//! | name | devices | every | besides |
//! |---|---|---|---|
//! | s1, s2, s3 | 10, 50, 100 | 1 s | |
//! | s4, s5, s6 | 1, 5, 10 | 100 ms | |
//! | s7 | 100 | 1 s | 100 writes a second through the API, to one device after the other |
//! | dead-units | 100 | 1 s | 30 of them fall silent in the window: the figures are those of the others |
//! | defaults | 100 | 1 s | nothing set: each of the 100,000 values a message of its own |
//! | outage | 10 | 1 s | the broker is killed for 10 s |
//! | ceiling | as many as it takes | 100 ms to 10 ms | 100 u16 a device, nothing published: the highest rate that is kept |
//! | small | 10 | 100 ms | 100 registers a device; how long a change takes to the subscriber |
//! | tags-10k, -30k, -100k | 10, 30, 100 | 100 ms | one message a value; after it the same messages from a bare loop |
//! | opcua | 5 | 1 s | 5,000 variables of one OPC UA server, signed and encrypted |
//! | opcua-idle | 5 | never | the same, and nothing changes |
//!
//! Figures are those of the window alone: warm-up is left out, except from the memory, which is the highest ever held.

#[path = "acquisition/broker.rs"]
mod broker;
#[path = "acquisition/floor.rs"]
mod floor;
#[path = "acquisition/load.rs"]
mod load;
#[path = "acquisition/opcua.rs"]
mod opcua;
#[path = "acquisition/plant.rs"]
mod plant;
#[path = "acquisition/report.rs"]
mod report;
#[path = "acquisition/scrape.rs"]
mod scrape;
#[path = "acquisition/tags.rs"]
mod tags;

use load::{Load, Shape, device_name};
use plant::{Agent, Bank, Broker, Subscriber};
use report::Outcome;
use scrape::{Http, Page};
use std::path::Path;
use std::time::{Duration, Instant};

/// From the bank's start to the window: connections are made, every value has been read.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long the broker is away in `outage`.
const OUTAGE: Duration = Duration::from_secs(10);
/// How long `outage` waits for the backlog.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// So seldom that it does not happen in a window.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Share of polls that may be missed at the ceiling.
const CEILING_MISSES: f64 = 0.001;
/// Steps to the ceiling: devices, interval in milliseconds. 100 registers each.
const STEPS: [(usize, u64); 9] =
    [(100, 100), (200, 100), (250, 50), (500, 50), (300, 20), (400, 20), (250, 10), (300, 10), (400, 10)];
/// Lines, and requests on their way on each, at the ceiling.
const CEILING: (usize, u8) = (4, 8);

const SCENARIOS: [&str; 17] = [
    "s1",
    "s2",
    "s3",
    "s4",
    "s5",
    "s6",
    "s7",
    "dead-units",
    "defaults",
    "outage",
    "ceiling",
    "small",
    "tags-10k",
    "tags-30k",
    "tags-100k",
    "opcua",
    "opcua-idle",
];

/// What was asked for.
struct Options {
    window: Duration,
    publish: bool,
    mosquitto: bool,
    json: bool,
}

fn main() {
    // `cargo bench` adds a word of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let port = || args.get(1).and_then(|p| p.parse().ok()).expect("a port");
    match args.first().map(String::as_str) {
        Some("__broker") => return broker::serve(port()),
        Some("__subscriber") => return broker::subscribe(port(), args.get(2).map_or("", String::as_str)),
        Some("__publisher") => return tags::publish(args.get(1..).unwrap_or_default()),
        Some("__floor") => return floor::run(args.get(1..).unwrap_or_default()),
        _ => {}
    }
    let value = |name: &str| args.iter().skip_while(|a| *a != name).nth(1);
    let window = value("--for").map_or("20s", String::as_str);
    let options = Options {
        window: humantime::parse_duration(window).expect("--for takes a time, as in 20s"),
        publish: !args.iter().any(|a| a == "--no-publish"),
        mosquitto: value("--broker").is_some_and(|b| b == "mosquitto"),
        json: args.iter().any(|a| a == "--json"),
    };
    let is_wanted = |s: &&str| args.iter().any(|a| a == s || a == "tags" && s.starts_with("tags-"));
    let wanted: Vec<&str> = SCENARIOS.into_iter().filter(is_wanted).collect();
    plant::build();
    for scenario in if wanted.is_empty() { SCENARIOS.to_vec() } else { wanted } {
        let outcome = run(scenario, &options);
        if options.json {
            println!("{}", outcome.json());
        } else {
            println!("{}", outcome.table());
        }
    }
}

fn run(scenario: &str, options: &Options) -> Outcome {
    let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
    match scenario {
        "s1" => steady(scenario, Load::floats(10, second), options),
        "s2" => steady(scenario, Load::floats(50, second), options),
        "s3" => steady(scenario, Load::floats(100, second), options),
        "s4" => steady(scenario, Load::floats(1, tenth), options),
        "s5" => steady(scenario, Load::floats(5, tenth), options),
        "s6" => steady(scenario, Load::floats(10, tenth), options),
        "s7" => writes(Load::floats(100, second), options),
        "dead-units" => dead_units(Load::floats(100, second), options),
        "defaults" => steady(scenario, Load { payload: "tag", ..Load::floats(100, second) }, options),
        "outage" => outage(Load::floats(10, second), options),
        "ceiling" => ceiling(options),
        _ if let Some((_, rate)) = tags::RATES.iter().find(|(name, _)| *name == scenario) => {
            tags::run(scenario, *rate, options)
        }
        "opcua" => opcua::run(scenario, second, options),
        "opcua-idle" => opcua::run(scenario, NEVER, options),
        _ => {
            // Changes come a little faster than polls, so that every delay between the two is met.
            let changes = Duration::from_millis(97);
            let load = Load {
                shape: Shape::Stamped,
                lines: 1,
                devices: 10,
                interval: tenth,
                pipeline: 1,
                changes,
                payload: "device",
            };
            steady("small", load, options)
        }
    }
}

/// Everything around one measurement.
struct Setup {
    load: Load,
    bank: Bank,
    broker: Option<Broker>,
    subscriber: Option<Subscriber>,
    agent: Agent,
    http: Http,
    dir: tempfile::TempDir,
}

impl Setup {
    fn new(load: Load, publish: bool, options: &Options, silent: Option<(Duration, &[u8])>) -> Setup {
        Setup::around(load, publish, options, |load, dir, broker| {
            let bank = Bank::start(load, dir, silent);
            let agent = Agent::start(load, bank.at, broker, dir);
            (bank, agent)
        })
    }

    /// With whatever bank and agent these make, in a directory, for a broker at a port.
    fn around(
        load: Load,
        publish: bool,
        options: &Options,
        make: impl FnOnce(&Load, &Path, Option<u16>) -> (Bank, Agent),
    ) -> Setup {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = publish.then(|| Broker::start(options.mosquitto, dir.path()));
        let subscriber = broker.as_ref().map(|b| Subscriber::start(b.port, load.watched()));
        let (bank, agent) = make(&load, dir.path(), broker.as_ref().map(|b| b.port));
        let http = Http::new(agent.http);
        Setup { load, bank, broker, subscriber, agent, http, dir }
    }

    /// Measures while `during` runs, which is given the end of the window.
    fn window<T>(
        &mut self,
        scenario: &str,
        length: Duration,
        during: impl FnOnce(&mut Setup, Instant) -> T,
    ) -> (Outcome, T) {
        std::thread::sleep((self.bank.started + WARM_UP).saturating_duration_since(Instant::now()));
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.reset();
        }
        let before = self.http.page();
        let (cpu, start) = (self.agent.process.cpu_s(), Instant::now());
        let done = during(self, start + length);
        std::thread::sleep((start + length).saturating_duration_since(Instant::now()));
        let (cpu_s, seconds) = (self.agent.process.cpu_s() - cpu, start.elapsed().as_secs_f64());
        let rss_mib = self.agent.process.peak_rss_mib();
        let after = self.http.page();
        let mut outcome = figures(&self.load, &before, &after, seconds, |_| true);
        outcome.scenario = if self.broker.is_some() { scenario.into() } else { format!("{scenario}-no-publish") };
        (outcome.rss_mib, outcome.cpu_percent) = (rss_mib, cpu_s / seconds * 100.0);
        outcome.cpu_s_per_million = cpu_s / (outcome.achieved * seconds).max(1.0) * 1e6;
        if let Some(subscriber) = &mut self.subscriber {
            let seen = subscriber.report();
            let pair = |name: &str| Some([seen[name]["p50"].as_f64()?, seen[name]["p99"].as_f64()?]);
            (outcome.change_ms, outcome.reply_ms) = (pair("change_ms"), pair("reply_ms"));
            outcome.delivered = seen["messages"].as_u64();
            outcome.gap_ms = seen["gap_ms"].as_f64();
            let dropped = after.total("lightsout_samples_lost_total") - before.total("lightsout_samples_lost_total");
            outcome.lost = seen["missing"].as_u64().map(|missing| missing + dropped as u64);
        }
        (outcome, done)
    }

    /// The floor at the same bank, when the agent has gone: of a loop that reads, and of one that publishes too.
    fn floors(self, options: &Options) -> (Option<f64>, Option<f64>) {
        let window = (options.window / 2).max(Duration::from_secs(2));
        drop(self.agent);
        let publishing = self.broker.as_ref().map(|b| floor::measure(&self.load, self.bank.at, window, Some(b.port)));
        drop((self.subscriber, self.broker));
        (Some(floor::measure(&self.load, self.bank.at, window, None)), publishing)
    }
}

/// Figures of the devices that are wanted, between two pages.
fn figures(load: &Load, before: &Page, after: &Page, seconds: f64, wanted: impl Fn(&str) -> bool) -> Outcome {
    const LATE: &str = "lightsout_poll_start_jitter_seconds";
    let since = |name: &str| after.sum(name, &wanted) - before.sum(name, &wanted);
    let all = |name: &str| after.total(name) - before.total(name);
    let (polls, missed) = (since(&format!("{LATE}_count")), since("lightsout_polls_missed_total"));
    let (connections, every) = (load.lines, humantime::format_duration(load.interval));
    Outcome {
        what: format!(
            "{} devices x {} values every {every}, {connections} connection{}",
            load.devices,
            load.values(),
            if connections == 1 { "" } else { "s" }
        ),
        configured: load.values_per_s(),
        achieved: all("lightsout_readings_total") / seconds,
        missed: missed as u64,
        on_time: if polls + missed > 0.0 { polls / (polls + missed) } else { 0.0 },
        jitter_us: after.spread_us(before, LATE, &wanted),
        grain: load.values() as f64 / seconds,
        seconds,
        ..Outcome::default()
    }
}

/// The value below which a share of all lies.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    sorted.get((share * sorted.len() as f64).ceil().max(1.0) as usize - 1).copied()
}

/// Nothing happens but the load.
fn steady(scenario: &str, load: Load, options: &Options) -> Outcome {
    let mut setup = Setup::new(load, options.publish, options, None);
    let (mut outcome, ()) = setup.window(scenario, options.window, |_, _| ());
    (outcome.floor_cpu_s_per_million, outcome.publishing_floor) = setup.floors(options);
    outcome
}

/// A hundred writes a second, one after the other, each to another device.
fn writes(load: Load, options: &Options) -> Outcome {
    let mut setup = Setup::new(load, options.publish, options, None);
    let (mut outcome, mut took) = setup.window("s7", options.window, |setup, end| {
        let mut took = Vec::new();
        while Instant::now() + Duration::from_secs(1) < end {
            let batch = Instant::now();
            for device in 0..setup.load.devices {
                let start = Instant::now();
                let outcome = setup.http.write(&format!("{}/t0", device_name(device)), took.len() as f64);
                took.push(start.elapsed().as_secs_f64() * 1000.0);
                assert_eq!(outcome, "done", "write {} to device {device}", took.len());
            }
            std::thread::sleep((batch + Duration::from_secs(1)).saturating_duration_since(Instant::now()));
        }
        took
    });
    took.sort_by(f64::total_cmp);
    let average = took.iter().sum::<f64>() / took.len().max(1) as f64;
    outcome.write_ms =
        quantile(&took, 0.99).and_then(|p99| Some([took.first().copied()?, average, p99, took.last().copied()?]));
    outcome.what = format!("{}, {} writes", outcome.what, took.len());
    (outcome.floor_cpu_s_per_million, outcome.publishing_floor) = setup.floors(options);
    outcome
}

/// Three units of each line fall silent in the middle of the window.
fn dead_units(load: Load, options: &Options) -> Outcome {
    let is_dead = |device: usize| device % 10 < 3;
    let units: Vec<u8> = (0..load.devices).filter(|d| is_dead(*d)).map(|d| load.unit(d)).collect();
    let silent = (WARM_UP + options.window / 5, &units[..]);
    let mut setup = Setup::new(load, options.publish, options, Some(silent));
    let before = {
        std::thread::sleep((setup.bank.started + WARM_UP).saturating_duration_since(Instant::now()));
        setup.http.page()
    };
    let start = Instant::now();
    let (all, ()) = setup.window("dead-units", options.window, |_, _| ());
    let after = setup.http.page();
    let healthy = |name: &str| name.strip_prefix('d').and_then(|n| n.parse().ok()).is_some_and(|d: usize| !is_dead(d));
    let own = figures(&setup.load, &before, &after, start.elapsed().as_secs_f64(), healthy);
    Outcome {
        what: format!("{}, {} of them silent from a fifth of the window on", all.what, units.len()),
        missed: own.missed,
        on_time: own.on_time,
        jitter_us: own.jitter_us,
        ..all
    }
}

/// The broker is killed, and comes back empty.
fn outage(load: Load, options: &Options) -> Outcome {
    let mut setup = Setup::new(load, true, options, None);
    let length = options.window.max(OUTAGE + Duration::from_secs(5));
    let (mut outcome, drained) = setup.window("outage", length, |setup, _| {
        let dir = setup.dir.path().to_path_buf();
        std::thread::sleep((length - OUTAGE) / 3);
        away(setup, &dir);
        let back = Instant::now();
        while setup.http.page().total("lightsout_spool_samples") > 0.0 {
            assert!(back.elapsed() < DRAIN_LIMIT, "the backlog is not drained after {DRAIN_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        back.elapsed().as_secs_f64()
    });
    outcome.drained_s = Some(drained);
    outcome.what = format!("{}, the broker away for {OUTAGE:?}", outcome.what);
    outcome
}

fn away(setup: &mut Setup, dir: &Path) {
    let Some(broker) = &mut setup.broker else { return };
    broker.kill();
    std::thread::sleep(OUTAGE);
    broker.restart(dir);
}

/// More and more, until polls are missed.
fn ceiling(options: &Options) -> Outcome {
    let window = (options.window / 4).max(Duration::from_secs(3));
    let mut best = None;
    for (devices, ms) in STEPS {
        let ((lines, pipeline), interval) = (CEILING, Duration::from_millis(ms));
        let load =
            Load { shape: Shape::Words, lines, devices, interval, pipeline, changes: interval, payload: "device" };
        let mut setup = Setup::new(load, false, options, None);
        let (outcome, ()) = setup.window("ceiling", window, |_, _| ());
        if !options.json {
            let (rate, late) = (outcome.achieved, (1.0 - outcome.on_time) * 100.0);
            println!("  ceiling: {devices} devices every {ms} ms: {rate:.0} values/s, {late:.3} % missed");
        }
        if 1.0 - outcome.on_time > CEILING_MISSES {
            break;
        }
        best = Some((outcome, setup));
    }
    let (mut outcome, setup) = best.expect("10,000 values/s are kept");
    outcome.scenario = "ceiling".into();
    (outcome.floor_cpu_s_per_million, outcome.publishing_floor) = setup.floors(options);
    outcome
}
