//! `edge-agent run FILE`: the daemon.

use super::{Done, Failure, progress};
use crate::Agent;
use crate::config::{self, Files, Plan};
use crate::lines::{self, HEALTHY_WITHIN};
use crate::plain::{JsonLine, OneLine};
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long threads that are still at work are waited for at the end.
const LINGER: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Configuration, e.g. configs/demo/agent.toml
    file: PathBuf,
    /// How logs look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One line a message, for people
    Text,
    /// One JSON object a line
    Json,
}

pub(super) fn run(options: &Options) -> Result<Done, Failure> {
    // A dead session's own complaints come to us as errors of the line; the library's are for those who ask.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(
            "info,opcua_client=off,opcua_core=off,opcua_crypto=off,opcua_types=off,rumqttc=off",
        )
    });
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log {
        LogFormat::Text => subscriber.fmt_fields(OneLine).with_ansi(colour).init(),
        LogFormat::Json => subscriber.event_format(JsonLine).init(),
    }
    let (plan, refused) = match config::load_from(&options.file, Files::default()) {
        Ok(plan) => (plan, None),
        Err(report) => (fall_back(&options.file, &report)?, Some(lines::first_line(&report.to_string()))),
    };
    config::opcua::warn_insecure(&plan);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        let served = runtime.block_on(serve(plan, refused));
        runtime.shutdown_timeout(LINGER); // a disk or peer that does not answer keeps nobody here
        served
    });
    let done = |given_up: Option<String>| {
        let json = serde_json::json!({ "given_up": given_up });
        Done::new(given_up.map_or_else(String::new, |said| format!("stopped; {said}\n")), json)
    };
    served.map(done).map_err(|why| {
        tracing::error!("{why}");
        Failure::new(1, String::new())
    })
}

/// A gateway that starts in the night with a file that somebody has left half-way goes on with the last good one, and says so. Where the
/// state folder is, systemd can tell, or what is left of the file; where neither does, it may lie where folders of state usually lie. What is
/// found there has to be of this very file.
fn fall_back(file: &std::path::Path, report: &config::Report) -> Result<Plan, Failure> {
    let told = std::env::var_os("STATE_DIRECTORY").map(std::path::PathBuf::from).into_iter();
    let usual = [file.with_file_name("state"), "/var/lib/lightsout".into()];
    let good = told.chain(config::state_dir_of(file)).chain(usual).find_map(|dir| lines::last_good(file, &dir));
    let Some(plan) = good else { return Err(Failure::config(report)) };
    tracing::error!("the configuration is wrong; the last good one is in force:");
    report.to_string().lines().for_each(|line| tracing::error!("{line}"));
    Ok(plan)
}

/// Serves until it is told to end; what of telemetry is given up then.
async fn serve(plan: Plan, refused: Option<String>) -> Result<Option<String>, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let agent = Agent::start(plan).await?;
    agent.stages.alarms.configuration_refused(refused);
    // Without systemd these do nothing. The watchdog is fed by completed control cycles, not by this task.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let reloader = agent.reloader(); // beside: the watchdog goes on being fed
                tokio::spawn(async move { reloader.reload(HEALTHY_WITHIN).await });
            }
            _ = ticks.tick() => {
                if agent.alive() {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                }
            }
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let stages = agent.stages.clone();
    let shown = tokio::spawn(async move { show_drain(&stages).await });
    let given_up = agent.stop().await;
    shown.abort();
    Ok(given_up)
}

/// What still waits for the broker, while a person at a terminal waits for the end.
async fn show_drain(stages: &crate::metrics::Stages) {
    let waiting = || stages.spool.stats.waiting.load(Relaxed);
    let bar = progress(Some(waiting()), "{bar:30} {pos} of {len} messages delivered, {elapsed}");
    loop {
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(waiting()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
