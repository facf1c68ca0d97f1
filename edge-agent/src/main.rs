//! `edge-agent run FILE`, `check FILE`, `plan FILE`, `browse ENDPOINT`, `pki list|trust|reject`.

use clap::{Parser, Subcommand, ValueEnum};
use device_drivers::modbus::{Endpoint, LineSpec, Modbus, probe};
use edge_agent::Agent;
use edge_agent::config::{self, DriverPlan, LinePlan, Plan};
use edge_agent::forecast::forecast;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The edge control runtime for unmanned factories.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C
    Run {
        /// Configuration, e.g. configs/demo/agent.toml
        file: PathBuf,
        /// How logs look
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log: LogFormat,
    },
    /// Read a configuration and say what is wrong with it, in the files; starts nothing
    Check {
        /// Configuration
        file: PathBuf,
        /// Also see whether the port of every PLC and of the broker is open
        #[arg(long)]
        connect: bool,
    },
    /// Show each request, how busy the lines will be, and how long a write waits; refuse what cannot work
    Plan {
        /// Configuration
        file: PathBuf,
        /// What a device needs for a reply
        #[arg(long, default_value = "5ms", value_parser = humantime::parse_duration)]
        reply: Duration,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write a table of what an OPC UA server has
    Browse(edge_agent::browse::Options),
    /// Say which OPC UA servers are trusted
    #[command(subcommand)]
    Pki(edge_agent::pki::Command),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One line a message, for people
    Text,
    /// One JSON object a line
    Json,
}

/// A configuration that is wrong.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check { file, connect } => check(&file, connect),
        Command::Run { file, log } => run(&file, log),
        Command::Plan { file, reply, json } => show_plan(&file, reply, json),
        Command::Pki(command) => say(edge_agent::pki::run(&command), |text| println!("{text}")),
        Command::Browse(options) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let done = runtime.map_err(|e| e.to_string()).and_then(|r| r.block_on(edge_agent::browse::run(&options)));
            say(done, |text| eprintln!("{text}"))
        }
    }
}

fn say(done: Result<String, String>, say: impl Fn(&str)) -> ExitCode {
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: &std::path::Path) -> Result<Plan, ExitCode> {
    config::load(file).map_err(|report| {
        eprintln!("{}", report.render(std::io::stderr().is_terminal()));
        ExitCode::from(EXIT_CONFIG)
    })
}

fn check(file: &std::path::Path, connect: bool) -> ExitCode {
    let plan = match load(file) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    println!("{} is valid", file.display());
    match &plan.layout {
        Some(layout) => println!(
            "  floor    {} tiers x 2 x {} bays, {} machines",
            layout.tiers(),
            layout.bays_per_side(),
            layout.machines()
        ),
        None => println!("  floor    none: this gateway gathers and forwards, and moves nothing"),
    }
    for line in &plan.lines {
        let (kind, requests) = match &line.driver {
            DriverPlan::Modbus(spec) => {
                let driver = Modbus::new(spec.clone());
                let mut every = std::collections::BTreeMap::<Duration, usize>::new();
                driver.requests().for_each(|(_, _, period, ..)| *every.entry(period).or_default() += 1);
                let text: Vec<String> = every.iter().map(|(period, n)| format!("{n} every {period:?}")).collect();
                ("Modbus", format!("requests: {}", text.join(", ")))
            }
            DriverPlan::OpcUa(spec) => ("OPC UA", format!("subscription, published every {:?}", spec.publishing)),
        };
        println!("  line     {}: {kind} {}, {} points, {requests}", line.name, line.driver.peer(), line.points.len());
        if let DriverPlan::Modbus(_) = &line.driver {
            let units: Vec<String> = line.devices.iter().map(|d| format!("{} is unit {}", d.name, d.unit)).collect();
            println!("           {}", shortened(&units, 8));
        }
        if let Some(advice) = line.advice() {
            println!("           {advice}");
        }
    }
    for note in plan.notes.iter().take(NOTES_MAX) {
        println!("  address  {note}");
    }
    if plan.notes.len() > NOTES_MAX {
        println!("  address  and {} more that were typed in another form", plan.notes.len() - NOTES_MAX);
    }
    match &plan.mqtt {
        Some(mqtt) => {
            let brokers: Vec<String> = mqtt.brokers.iter().map(ToString::to_string).collect();
            println!("  broker   {}, status at {}", brokers.join(", then "), mqtt.status_topic);
            match &mqtt.spool.directory {
                Some(folder) => println!("  spool    {}, {} MiB", folder.display(), mqtt.spool.capacity >> 20),
                None => println!(
                    "  spool    in memory, {} MiB: it does not outlive this process",
                    mqtt.spool.capacity >> 20
                ),
            }
        }
        None => println!("  broker   none: nothing is published"),
    }
    if !connect {
        return ExitCode::SUCCESS;
    }
    let reached: Vec<bool> = plan.lines.iter().map(reach_line).collect();
    let reach_broker = |b: &config::plan::Broker| reach("broker", &format!("{}:{}", b.host, b.port));
    let brokers: Vec<bool> = plan.mqtt.iter().flat_map(|m| &m.brokers).map(reach_broker).collect();
    if brokers.iter().all(|b| *b) && reached.iter().all(|r| *r) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show_plan(file: &std::path::Path, reply: Duration, json: bool) -> ExitCode {
    let plan = match load(file) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    let forecast = forecast(&plan, reply);
    if json {
        match serde_json::to_string_pretty(&forecast) {
            Ok(text) => println!("{text}"),
            Err(e) => return fail(&e.to_string()),
        }
    } else {
        println!("{forecast}");
    }
    if forecast.feasible { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Addresses that `check` shows.
const NOTES_MAX: usize = 50;

fn shortened(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown}, and {} more", names.len() - most) } else { shown }
}

/// Tries the port, and on Modbus TCP one question to every unit.
fn reach_line(line: &LinePlan) -> bool {
    let name = format!("line {}", line.name);
    match &line.driver {
        DriverPlan::Modbus(LineSpec { endpoint: Endpoint::Rtu(serial), .. }) => match std::fs::metadata(&serial.path) {
            Ok(_) => {
                println!("  reached  {name} at {} (the port is there; the devices were not asked)", serial.path);
                true
            }
            Err(e) => {
                println!("  NOT reached  {name}: {}: {e}; is the adapter plugged in?", serial.path);
                false
            }
        },
        DriverPlan::Modbus(LineSpec { endpoint: Endpoint::Tcp(at), .. }) => {
            reach(&name, at) && {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                    return true;
                };
                let ask = |unit| runtime.block_on(probe(at, unit, Duration::from_secs(2)));
                let silent = line.devices.iter().filter(|device| match ask(device.unit) {
                    Ok(what) => {
                        println!("  asked    {}: {what}", device.name);
                        false
                    }
                    Err(why) => {
                        println!("  NO ANSWER  {}: {why}", device.name);
                        true
                    }
                });
                silent.count() == 0
            }
        }
        other => reach(&name, &other.peer()),
    }
}

/// Tries to connect, and says what came of it.
fn reach(name: &str, peer: &str) -> bool {
    let limit = Duration::from_secs(2);
    let result = config::plan::resolves(peer).and_then(|found| {
        let address = found.first().ok_or_else(|| format!("{peer} has no address"))?;
        std::net::TcpStream::connect_timeout(address, limit).map_err(|e| match e.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("{peer} answers, but nothing listens on this port; is the server switched on there?")
            }
            std::io::ErrorKind::TimedOut => {
                format!("{peer} does not answer within {limit:?}; is it powered, and on this network?")
            }
            _ => format!("{peer}: {e}; check the address, the cable and the switch"),
        })
    });
    match &result {
        Ok(_) => println!("  reached  {name} at {peer} (the port is open)"),
        Err(why) => println!("  NOT reached  {name}: {why}"),
    }
    result.is_ok()
}

fn run(file: &std::path::Path, log: LogFormat) -> ExitCode {
    // A dead session's own complaints come to us as errors of the line; the library's are for those who ask.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,opcua_client=off,opcua_core=off,opcua_crypto=off,rumqttc=off")
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    let plan = match load(file) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    config::opcua::warn_insecure(&plan);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e.to_string()),
    };
    match runtime.block_on(serve(plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

async fn serve(plan: Plan) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let agent = Agent::start(plan).await?;
    // Without systemd these do nothing. The watchdog is fed by completed control cycles, not by this task.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {
                if agent.alive() {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                }
            }
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    agent.stop().await;
    Ok(())
}
