//! `edge-agent run FILE`, `edge-agent check FILE`, `edge-agent browse ENDPOINT`, `edge-agent pki list|trust|reject`.

use clap::{Parser, Subcommand, ValueEnum};
use edge_agent::Agent;
use edge_agent::config::{self, DriverPlan, Plan};
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
    let layout = plan.layout;
    println!("{} is valid", file.display());
    println!(
        "  floor    {} tiers x 2 x {} bays, {} machines",
        layout.tiers(),
        layout.bays_per_side(),
        layout.machines()
    );
    for line in &plan.lines {
        let (kind, requests) = match &line.driver {
            DriverPlan::Modbus(spec) => {
                let driver = device_drivers::modbus::ModbusTcp::new(spec.clone());
                let groups = driver.groups();
                let text: Vec<String> = groups
                    .iter()
                    .enumerate()
                    .map(|(n, every)| format!("{} every {every:?}", driver.requests(n)))
                    .collect();
                ("Modbus TCP", format!("requests: {}", text.join(", ")))
            }
            DriverPlan::OpcUa(spec) => ("OPC UA", format!("subscription, published every {:?}", spec.publishing)),
        };
        println!("  line     {}: {kind} {}, {} points, {requests}", line.name, line.driver.peer(), line.points.len());
    }
    println!("  broker   {}:{}, status at {}", plan.mqtt.host, plan.mqtt.port, plan.mqtt.status_topic);
    if !connect {
        return ExitCode::SUCCESS;
    }
    let mut peers: Vec<(String, String)> =
        plan.lines.iter().map(|l| (format!("line {}", l.name), l.driver.peer().to_string())).collect();
    peers.push(("broker".into(), format!("{}:{}", plan.mqtt.host, plan.mqtt.port)));
    let failed = peers.iter().filter(|(name, peer)| !reach(name, peer)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
        Ok(_) => println!("  reached  {name} at {peer} (the port is open; the protocol was not tried)"),
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
