//! `edge-agent audit verify|export`: the record of what was promised and who did what, checked and printed without the gateway, whether it runs or not.

use super::{Done, Failure};
use crate::config;
use crate::plain;
use crate::store::{self, FOLDER, Verdict};
use crate::telemetry::payload::rfc3339;
use crate::telemetry::spool::Folder;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// What to do with the record.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check that each event is what was written, and follows the one before
    Verify(Where),
    /// Print every event as a line of JSON, the oldest first
    Export {
        #[command(flatten)]
        at: Where,
        /// Only who did what: sign-ins, commands, changes
        #[arg(long)]
        people: bool,
    },
}

/// Whose record.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// Configuration of the gateway
    #[arg(long, default_value = "/etc/lightsout/agent.toml")]
    config: PathBuf,
    /// State folder, of a copy or of a gateway without its configuration
    #[arg(long, conflicts_with = "config")]
    state_dir: Option<PathBuf>,
}

impl Where {
    fn open(&self) -> Result<(Folder, PathBuf), Failure> {
        let state_dir = match &self.state_dir {
            Some(dir) => dir.clone(),
            None => config::load(&self.config).map_err(|report| Failure::config(&report))?.state_dir,
        };
        let folder = state_dir.join(FOLDER);
        if !folder.is_dir() {
            let text = format!("there is no record in {}: no gateway has run with this state_dir", folder.display());
            return Err(Failure::new(1, text));
        }
        Ok((Folder::to_read(&folder), folder))
    }
}

pub(super) fn run(command: &Command) -> Result<Done, Failure> {
    match command {
        Command::Verify(at) => {
            let (disk, folder) = at.open()?;
            let verdict = store::verify(&disk).map_err(|e| unread(&folder, &e))?;
            let code = u8::from(!verdict.is_good());
            Ok(Done { text: told(&verdict, &folder.display().to_string()), json: as_json(&verdict), code })
        }
        Command::Export { at, people } => {
            let (disk, folder) = at.open()?;
            let (mut out, mut broken) = (std::io::stdout().lock(), false);
            let shown = store::export(&disk, |event| {
                if broken || *people && event.kind != "did" {
                    return;
                }
                let said: Value = serde_json::from_slice(event.body)
                    .unwrap_or_else(|_| String::from_utf8_lossy(event.body).into_owned().into());
                let line = json!({ "number": event.number, "time": rfc3339(event.at_ms).to_string(), "kind": event.kind,
                    "said": said, "hash": store::event::hex(&event.hash) });
                broken = writeln!(out, "{}", plain::json(&line)).is_err(); // whoever closes the pipe has seen enough
            });
            shown.map_err(|e| unread(&folder, &e))?;
            Ok(Done::new(String::new(), Value::Null))
        }
    }
}

fn unread(folder: &std::path::Path, why: &std::io::Error) -> Failure {
    Failure::new(1, format!("{}: {why}", folder.display()))
}

fn told(verdict: &Verdict, folder: &str) -> String {
    let mut text = String::new();
    let span = verdict.span.map_or_else(String::new, |(first, last)| format!(", numbers {first} to {last}"));
    let _ = writeln!(text, "{} events in {folder}{span}", verdict.events);
    for missing in &verdict.missing {
        let _ = writeln!(text, "MISSING  {} to {} (before {})", missing.from, missing.to, missing.file);
    }
    for (number, file) in &verdict.changed {
        let _ = writeln!(
            text,
            "CHANGED  {number} in {file}: it is not what was written, or does not follow the one before"
        );
    }
    for (file, why) in &verdict.damaged {
        let _ = writeln!(text, "DAMAGED  {file}: {why}");
    }
    if verdict.is_good() {
        let _ = writeln!(text, "all of them are as they were written");
    }
    if verdict.events > 0 {
        let _ =
            writeln!(text, "newest hash {}: keep it elsewhere, and whoever writes all anew is found out", verdict.hash);
    }
    text
}

fn as_json(verdict: &Verdict) -> Value {
    let missing: Vec<Value> =
        verdict.missing.iter().map(|m| json!({ "from": m.from, "to": m.to, "file": m.file })).collect();
    let changed: Vec<Value> =
        verdict.changed.iter().map(|(number, file)| json!({ "number": number, "file": file })).collect();
    let damaged: Vec<Value> = verdict.damaged.iter().map(|(file, why)| json!({ "file": file, "why": why })).collect();
    let (first, last) = verdict.span.unzip();
    json!({ "good": verdict.is_good(), "events": verdict.events, "first": first, "last": last, "hash": verdict.hash,
        "missing": missing, "changed": changed, "damaged": damaged })
}
