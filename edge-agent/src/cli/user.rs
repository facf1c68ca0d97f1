//! `edge-agent user add|list|remove|token`: on the gateway itself, on the file a running agent reads again by itself.

use super::look::Table;
use super::{Done, Failure};
use crate::access::{Access, Role};
use crate::audit;
use crate::config;
use crate::state;
use crate::store::{Fact, Keep};
use anstyle::Style;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a user; the password is asked for, or read from standard input
    Add {
        /// Name
        name: String,
        /// What they may do
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        at: Where,
    },
    /// Show users and tokens
    List(Where),
    /// Remove a user or token
    Remove {
        /// Name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Make an API token; it is shown this once
    Token {
        /// Name of the program that will have it
        name: String,
        /// What it may do
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        at: Where,
    },
}

/// Whose users.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// Configuration of the gateway
    #[arg(long, default_value = "/etc/lightsout/agent.toml")]
    config: PathBuf,
}

impl Where {
    fn open(&self) -> Result<std::sync::Arc<Access>, Failure> {
        let plan = config::load(&self.config).map_err(|report| Failure::config(&report))?;
        if plan.access.dir.is_none() {
            let text = format!(
                "{} has no state_dir: users would be forgotten at once; add `state_dir = \"/var/lib/lightsout\"` to [gateway]",
                self.config.display()
            );
            return Err(Failure::new(1, text));
        }
        ours_to_write(plan.access.dir.as_deref().unwrap_or(Path::new("")))?;
        Access::open(plan.access).map(|(access, _)| access).map_err(|why| Failure::new(1, why))
    }
}

/// What somebody else makes in the gateway's folder the gateway could not read; what root makes is given to the folder's owner.
fn ours_to_write(dir: &Path) -> Result<(), Failure> {
    let (me, Ok(owner)) = (rustix::process::geteuid(), std::fs::metadata(dir).map(|m| m.uid())) else { return Ok(()) };
    if me.is_root() || me.as_raw() == owner {
        return Ok(());
    }
    let dir = dir.display();
    let text = format!(
        "{dir} belongs to the user with number {owner}, and you are {}: run this as that user, or with sudo",
        me.as_raw()
    );
    Err(Failure::new(1, text))
}

/// Into the record of the gateway; one that runs has the folder, sees the change, and writes it down itself.
fn write_down(access: &Access, action: &str, target: &str) {
    let Some(dir) = access.plan().dir.as_deref() else { return };
    let Ok(_held) = state::hold(dir) else { return };
    let fact = Fact::from(audit::beside(action, target));
    let written = Keep::open(dir, 0).map(|(keep, ..)| keep.store().map(|store| store.append(fact.kind(), fact.body())));
    if let Err(why) = written.and_then(|done| done.transpose().map_err(|e| e.to_string())) {
        let _ = writeln!(anstream::stderr(), "done, and not in the record: {why}");
    }
}

fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::new(1, why.to_string())
}

pub(super) fn run(command: &Command) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(failed)?;
    match command {
        Command::Add { name, role, at } => {
            let access = at.open()?;
            runtime.block_on(access.add_user(name, *role, password()?)).map_err(failed)?;
            write_down(&access, "user.add", &format!("{name}, {}", role.name()));
            Ok(Done::new(format!("{name} may sign in as {}\n", role.name()), json!({ "name": name, "role": role })))
        }
        Command::List(at) => {
            let all = at.open()?.list();
            let mut table = Table::new(&["name", "role", "kind", "since"]);
            for (name, role, token, since) in &all {
                let kind = if *token { "token" } else { "user" };
                table
                    .row([name.as_str(), role.name(), kind, since.as_str()].map(|c| (c.into(), Style::new())).to_vec());
            }
            let rows = all.iter().map(
                |(name, role, token, since)| json!({ "name": name, "role": role, "token": token, "since": since }),
            );
            Ok(Done::new(table.render(0), rows.collect()))
        }
        Command::Remove { name, at } => {
            let access = at.open()?;
            access.remove_user(name).map_err(failed)?;
            write_down(&access, "user.remove", name);
            Ok(Done::new(format!("{name} is removed\n"), json!({ "name": name })))
        }
        Command::Token { name, role, at } => {
            let access = at.open()?;
            let token = access.add_token(name, *role).map_err(failed)?;
            write_down(&access, "token.add", &format!("{name}, {}", role.name()));
            Ok(Done::new(format!("{token}\n"), json!({ "name": name, "role": role, "token": token })))
        }
    }
}

/// From the terminal, unseen, twice; else a line of standard input.
fn password() -> Result<String, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        let mut line = String::new();
        input.lock().read_line(&mut line).map_err(failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_string());
    }
    let once = |prompt: &str| -> Result<String, Failure> {
        eprint!("{prompt}");
        let _ = std::io::stderr().flush();
        let shown = rustix::termios::tcgetattr(&input).map_err(failed)?;
        let mut hidden = shown.clone();
        hidden.local_modes &= !rustix::termios::LocalModes::ECHO;
        rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Now, &hidden).map_err(failed)?;
        let mut line = String::new();
        let read = input.lock().read_line(&mut line);
        let _ = rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Now, &shown);
        eprintln!();
        read.map_err(failed)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_string())
    };
    let first = once("Password: ")?;
    if once("Again: ")? != first {
        return Err(failed("the two are not the same"));
    }
    Ok(first)
}
