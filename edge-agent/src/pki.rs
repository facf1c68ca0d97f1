//! `edge-agent pki list|trust|reject`: whom the OPC UA lines trust.
//!
//! ```text
//!   a server nobody knows ──> quarantine ── pki trust ──> trusted
//!                                  ^─────── pki reject ──────┘
//! ```

use crate::config;
use clap::{Args, Subcommand};
use device_drivers::opcua::pki::{Certificate, Pki, Place};
use std::fmt::Write;
use std::path::PathBuf;

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show our own certificate, those that are trusted, and those in quarantine
    List(Where),
    /// Trust a server's certificate
    Trust {
        /// The beginning of its thumbprint, or a certificate file
        which: String,
        /// Which folder
        #[command(flatten)]
        at: Where,
    },
    /// Trust a server's certificate no longer
    Reject {
        /// The beginning of its thumbprint
        which: String,
        /// Which folder
        #[command(flatten)]
        at: Where,
    },
}

/// Which folder.
#[derive(Debug, Args)]
pub struct Where {
    /// The folder with keys and certificates
    #[arg(long, conflicts_with = "config")]
    dir: Option<PathBuf>,
    /// Configuration of the gateway whose folder it is, e.g. configs/demo/agent.toml
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Where {
    fn open(&self) -> Result<Pki, String> {
        let dir = match (&self.dir, &self.config) {
            (Some(dir), _) => dir.clone(),
            (None, Some(file)) => config::load(file).map_err(|report| report.to_string())?.state_dir.join("pki"),
            (None, None) => return Err("say which folder: --config FILE, or --dir DIR".into()),
        };
        if !dir.is_dir() {
            let here = dir.display();
            return Err(format!("there is no folder {here}; it is made when a line with security first connects"));
        }
        Pki::open(&dir)
    }
}

/// Does it, and says what was done.
pub fn run(command: &Command) -> Result<String, String> {
    match command {
        Command::List(at) => Ok(table(&at.open()?.list())),
        Command::Trust { which, at } => at.open()?.trust(which).map(|c| format!("trusted {}", line(&c))),
        Command::Reject { which, at } => at.open()?.reject(which).map(|c| format!("no longer trusted {}", line(&c))),
    }
}

fn line(certificate: &Certificate) -> String {
    let uri = certificate.application_uri.as_deref().unwrap_or("no application URI");
    let (from, until) = &certificate.valid;
    plain(&format!("{}  {}  {uri}  valid {from} to {until}", certificate.thumbprint, certificate.subject))
}

fn table(all: &[(Place, Certificate)]) -> String {
    let mut text = String::new();
    for (place, certificate) in all {
        let place = match place {
            Place::Own => "own",
            Place::Trusted => "trusted",
            Place::Rejected => "rejected",
        };
        let _ = writeln!(text, "{place:9} {}", line(certificate)); // into a String: cannot fail
    }
    if text.is_empty() {
        text.push_str("no certificates here yet\n");
    }
    text.pop();
    text
}

/// What a stranger has written into a certificate shall not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
