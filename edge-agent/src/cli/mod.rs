//! The command line.
//!
//! | command | does |
//! |---|---|
//! | `run`, `check`, `plan` | starts a configuration, says what is wrong with it, says what it will cost |
//! | `status`, `order` | how a running agent is doing; orders, over the API |
//! | `acknowledge` | that machines may go on |
//! | `traffic` | what mobile robots did, from the log |
//! | `browse`, `pki` | what an OPC UA server has; whether it is trusted |
//! | `user` | who may sign in |
//! | `audit` | the record of what was promised and who did what, checked and printed |
//! | `doctor` | whether the host is fit, and safe |
//! | `schema`, `openapi`, `completions` | documents and scripts made from the code |
//!
//! People read the text, with colour on a terminal only; programs take `--json`. Exit codes, the same for all commands:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done, and all is well |
//! | 1 | not done, or something is not well: a peer is not reached, an order refused, a doctor's warning, an urgent alarm |
//! | 2 | the configuration or the command line is wrong; nothing was started |
//! | 3 | no agent answers there |
//! | 4 | not allowed: a token is missing, or its role does not allow this |

mod audit;
mod check;
mod client;
mod doctor;
mod look;
mod named;
mod order;
mod plant;
mod proof;
mod reach;
mod run;
mod status;
mod traffic;
mod user;

use crate::config::Report;
use crate::plain;
use clap::{CommandFactory, Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The configuration or the command line is wrong.
const EXIT_CONFIG: u8 = 2;
/// No agent answers.
const EXIT_NO_AGENT: u8 = 3;
/// Not allowed.
const EXIT_NOT_ALLOWED: u8 = 4;

/// The edge control runtime for unmanned factories.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// One JSON value on standard output, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, all is well; 1 not done, or something is not well; 2 wrong configuration or command line; \
3 no agent answers; 4 not allowed";

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C
    Run(run::Options),
    /// Read a configuration and say what is wrong with it, in the files; starts nothing
    Check {
        /// Configuration
        file: PathBuf,
        /// Also speak with every PLC and broker: handshake, sign-in, one value of each unit
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
    },
    /// Show how a running agent is doing
    Status(status::Options),
    /// Give, show, raise and withdraw orders
    #[command(subcommand)]
    Order(order::Command),
    /// Say that machines that left AUTO may go on, or show which wait for that
    Acknowledge(plant::Acknowledge),
    /// Show what mobile robots did, from a file of the traffic log
    Traffic(traffic::Options),
    /// Write a table of what an OPC UA server has
    Browse(crate::browse::Options),
    /// Say which OPC UA servers are trusted
    #[command(subcommand)]
    Pki(crate::pki::Command),
    /// Say who may sign in
    #[command(subcommand)]
    User(user::Command),
    /// Check and print the record of what was promised and who did what
    #[command(subcommand)]
    Audit(audit::Command),
    /// See whether the host is fit for the beat, or (--security) safe; each warning with the command that mends it
    Doctor(doctor::Options),
    /// Print the JSON Schema of the configuration, or (--payloads) of all messages that are published
    Schema {
        /// Of the messages that are published on topics of our own
        #[arg(long)]
        payloads: bool,
    },
    /// Print the OpenAPI document of the API
    Openapi,
    /// Print a script that completes commands in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What a command has to say.
struct Done {
    /// For people.
    text: String,
    /// For programs.
    json: serde_json::Value,
    /// Exit code.
    code: u8,
}

impl Done {
    fn new(text: String, json: serde_json::Value) -> Done {
        Done { text, json, code: 0 }
    }
}

/// Why a command was not done.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
    json: Option<serde_json::Value>,
}

impl Failure {
    fn new(code: u8, text: String) -> Failure {
        Failure { code, text, json: None }
    }

    fn usage(text: String) -> Failure {
        Failure::new(EXIT_CONFIG, text)
    }

    fn config(report: &Report) -> Failure {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let json = serde_json::json!({ "valid": false, "problems": report.problems() });
        Failure { code: EXIT_CONFIG, text: report.render(colour), json: Some(json) }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::new(1, text)
    }
}

/// A panic anywhere ends the process, so that the plant's own watchdog takes over and the supervisor starts it anew. Half a gateway is worse
/// than none.
pub fn abort_at_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// The program.
pub fn main() -> ExitCode {
    abort_at_panics();
    let Cli { json, command } = Cli::parse();
    let done = match command {
        Command::Run(options) => run::run(&options),
        Command::Check { file, connect } => check::check(&file, connect, json),
        Command::Plan { file, reply } => check::plan(&file, reply),
        Command::Status(options) => status::run(&options),
        Command::Order(command) => order::run(&command),
        Command::Acknowledge(options) => plant::acknowledge(&options),
        Command::Traffic(options) => traffic::run(&options),
        Command::Browse(options) => browse(&options),
        Command::Pki(command) => crate::pki::run(&command).map_err(Failure::from).map(|text| {
            let json = serde_json::json!({ "said": text });
            Done::new(text + "\n", json)
        }),
        Command::User(command) => user::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Doctor(options) => doctor::run(&options),
        Command::Schema { payloads: true } => document(Ok(crate::telemetry::schema::payloads())),
        Command::Schema { payloads: false } => document(serde_json::to_value(crate::config::schema())),
        Command::Openapi => document(serde_json::to_value(crate::http::openapi())),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "edge-agent", &mut script);
            let text = String::from_utf8_lossy(&script).into_owned();
            Ok(Done::new(text.clone(), text.into()))
        }
    };
    say(done, json)
}

/// Writes what came of it; nothing in it that a peer has said steers the terminal. Whoever closes the pipe early has seen enough.
fn say(done: Result<Done, Failure>, json: bool) -> ExitCode {
    match done {
        Ok(Done { text, json: value, code }) => {
            let written = if json {
                writeln!(std::io::stdout(), "{}", plain::json(&value))
            } else {
                anstream::stdout().write_all(plain::terminal(&text).as_bytes())
            };
            let _ = written;
            ExitCode::from(code)
        }
        Err(Failure { code, text, json: value }) => {
            if json {
                let value = value.unwrap_or_else(|| serde_json::json!({ "error": text }));
                let _ = writeln!(std::io::stdout(), "{}", plain::json(&value));
            }
            let _ = writeln!(anstream::stderr(), "{}", plain::terminal(&text));
            ExitCode::from(code)
        }
    }
}

fn document(value: Result<serde_json::Value, serde_json::Error>) -> Result<Done, Failure> {
    let value = value.map_err(|e| e.to_string())?;
    Ok(Done::new(format!("{value:#}\n"), value))
}

fn browse(options: &crate::browse::Options) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let said = runtime.block_on(crate::browse::run(options))?;
    // The table may have gone to standard output: what is said about it goes beside.
    let _ = writeln!(std::io::stderr(), "{}", plain::terminal(&said));
    Ok(Done::new(String::new(), serde_json::json!({ "said": said })))
}

/// A bar or a spinner on a terminal, nothing elsewhere.
pub(crate) fn progress(length: Option<u64>, template: &str) -> indicatif::ProgressBar {
    let bar = match length {
        _ if !std::io::stderr().is_terminal() => indicatif::ProgressBar::hidden(),
        Some(length) => indicatif::ProgressBar::new(length),
        None => indicatif::ProgressBar::new_spinner(),
    };
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
