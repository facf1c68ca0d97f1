//! `edge-agent pki list|trust|reject|crl`: whom the OPC UA lines trust.
//!
//! ```text
//!   a server nobody knows ──> quarantine ── pki trust ──> trusted          pki trust authority.der ──> all that it has signed,
//!                                  ^─────── pki reject ──────┘             pki crl list.crl        ──> but not what is on this list
//! ```

use crate::config;
use crate::plain;
use clap::{Args, Subcommand};
use device_drivers::opcua::pki::{Certificate, Pki, Place, RevocationList};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show our own certificate, those that are trusted, and those in quarantine
    List(Where),
    /// Trust a server's certificate; or that of an authority, and with it all servers whose certificates it has signed
    Trust {
        /// The beginning of its thumbprint, or a certificate file (DER or PEM)
        which: String,
        /// Which folder
        #[command(flatten)]
        at: Where,
    },
    /// Keep a list of what an authority has revoked; it takes the place of the one before
    Crl {
        /// The list, DER or PEM
        file: PathBuf,
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

/// Where `browse` keeps keys and certificates when nothing is said.
pub const DEFAULT_DIR: &str = "state/pki";

/// Which folder.
#[derive(Debug, Args)]
pub struct Where {
    /// The folder with keys and certificates; without this and --config: state/pki, if it is there
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
            (None, Some(file)) => match config::load(file) {
                Ok(plan) => plan.state_dir.join("pki"),
                // What is missing may be what a server has to be trusted for: the profile that browse is to write.
                Err(report) => config::state_dir_of(file).ok_or_else(|| report.to_string())?.join("pki"),
            },
            (None, None) if Path::new(DEFAULT_DIR).is_dir() => DEFAULT_DIR.into(),
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
        Command::List(at) => at.open().map(|pki| table(&pki.list(), pki.lists())),
        Command::Crl { file, at } => at.open()?.revoke(file).map(|l| format!("kept: {}", list_line(&l))),
        Command::Trust { which, at } => at.open()?.trust(which).map(|c| format!("trusted {}", line(&c))),
        Command::Reject { which, at } => at.open()?.reject(which).map(|c| format!("no longer trusted {}", line(&c))),
    }
}

fn line(certificate: &Certificate) -> String {
    let uri = match &certificate.application_uri {
        Some(uri) => uri,
        None if certificate.is_authority => "signs others",
        None => "no application URI",
    };
    let (from, until) = &certificate.valid;
    plain::line(&format!("{}  {}  {uri}  valid {from} to {until}", certificate.thumbprint, certificate.subject))
}

/// The last second that can be shown: that of the year 9999.
const LAST_S: u64 = 253_402_300_799;

fn list_line(list: &RevocationList) -> String {
    let count = match list.count {
        1 => "1 certificate".to_string(),
        n => format!("{n} certificates"),
    };
    let due = list.next_s.and_then(|s| u64::try_from(s).ok()).filter(|s| *s <= LAST_S);
    let next = match due.map(|s| UNIX_EPOCH + Duration::from_secs(s)) {
        Some(due) if due < SystemTime::now() => "; there should be a newer list".to_string(),
        Some(due) => format!("; the next is due {:.10}", humantime::format_rfc3339_seconds(due).to_string()),
        None => String::new(),
    };
    plain::line(&format!("{} has revoked {count}{next}", list.issuer))
}

fn table(all: &[(Place, Certificate)], (lists, unreadable): (Vec<RevocationList>, Option<String>)) -> String {
    let mut text = String::new();
    for (place, certificate) in all {
        let place = match place {
            Place::Own => "own",
            Place::Trusted if certificate.is_authority => "authority",
            Place::Trusted => "trusted",
            Place::Rejected => "quarantine",
        };
        let _ = writeln!(text, "{place:10} {}", line(certificate)); // into a String: cannot fail
    }
    for list in &lists {
        let _ = writeln!(text, "list       {}", list_line(list));
    }
    if let Some(why) = unreadable {
        let _ = writeln!(text, "{why}");
    }
    if text.is_empty() {
        text.push_str("no certificates here yet\n");
    }
    text.pop();
    text
}
