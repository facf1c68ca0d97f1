//! `plc-sim run plant.toml --seed 7`: the plant as a program. `plc-sim bank`: many devices that only measure.

mod bank_command;
mod report;

use bank_command::BankArgs;
use clap::{Parser, Subcommand};
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// Pretends to be the plant, from a seed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a plant until Ctrl-C, and print what really happened.
    Run {
        /// The plant, e.g. configs/demo/plant.toml
        plant: PathBuf,
        /// Decides where the first loads are, and every chance after that
        #[arg(long, default_value_t = 7)]
        seed: u64,
        /// Keep the loads here, as a controller's retentive memory does, and go on from there after a restart
        #[arg(long)]
        state: Option<PathBuf>,
        /// OPC UA: endpoints with security beside the one without
        #[arg(long)]
        secure: bool,
        /// OPC UA: trust any client certificate
        #[arg(long, requires = "secure")]
        trust_all: bool,
        /// OPC UA: keys and certificates, made once if they are not there
        #[arg(long)]
        pki_dir: Option<PathBuf>,
        /// Print the report at the end as one JSON object
        #[arg(long)]
        report_json: bool,
    },
    /// Run many devices that only measure until Ctrl-C: the load server of benchmarks
    Bank(BankArgs),
}

fn main() -> ExitCode {
    // A plant of which a part has died without a word would be a strange one.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    // The server's complaint that it has no certificate is true and meant: by itself this simulation offers no security.
    // And whoever only looks whether the port is open (`check --connect`) is nobody to complain of.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,opcua_server=error,opcua_server::session::controller=off,opcua_core=off,opcua_crypto=off,opcua_types=off")
    });
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    let command = Cli::parse().command;
    // A Modbus bank is a load server beside what is measured: it keeps to one thread.
    let mut builder = match &command {
        Command::Bank(args) if !args.is_opcua() => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("cannot start: {e}")),
    };
    let ended = runtime.block_on(async {
        match command {
            Command::Run { plant, seed, state, secure, trust_all, pki_dir, report_json } => {
                run(plant, seed, Keep { state, pki_dir, secure, trust_all }, report_json).await
            }
            Command::Bank(args) => bank_command::run(args).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("plc-sim: {why}");
    ExitCode::FAILURE
}

async fn run(path: PathBuf, seed: u64, keep: Keep, report_json: bool) -> Result<(), String> {
    let config = PlantConfig::load(&path)?;
    // A controller's boot counter is retentive; the clock does as well, as long as two starts lie a second apart.
    let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| (d.as_secs() & 0xFFFF) as u16);
    let sim = Sim::start(config, seed, boot, keep).await?;
    let end = told_to_end()?;
    println!("aisles, hall, robots  modbus-tcp://{}", sim.addresses.modbus);
    println!(
        "robot cells           opc.tcp://{}/  namespace {}",
        sim.addresses.opcua,
        plc_sim::faces::opcua::NAMESPACE
    );
    println!("seed {seed}; Ctrl-C ends");
    end.await;
    let truth = sim.truth();
    report::print(report_json, &report::of_the_plant(&truth));
    if truth.is_clean() {
        Ok(())
    } else {
        Err("loads were lost or doubled, a command was executed twice, or vehicles met".into())
    }
}

/// Listens for Ctrl-C and SIGTERM from now on; the future completes at the first of them.
fn told_to_end() -> Result<impl Future<Output = ()>, String> {
    let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
