//! Whether the logs are what was written: each event is numbered and hashed with the one before.

use super::event::{Event, Hash, hex};
use super::files::{self, Begins, Scanned};
use super::open::Missing;
use crate::telemetry::spool::disk::Disk;
use std::io;

/// What the logs were found to be.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Events that were looked at.
    pub events: u64,
    /// The first and the newest of them.
    pub span: Option<(u64, u64)>,
    /// The newest event's hash: who has kept it elsewhere sees whether all was written anew.
    pub hash: String,
    /// Numbers that are not there.
    pub missing: Vec<Missing>,
    /// Events that are not what was written, or do not follow the one before: their numbers, and where they stand.
    pub changed: Vec<(u64, String)>,
    /// Files that are damaged or cannot be read, and why.
    pub damaged: Vec<(String, String)>,
}

impl Verdict {
    /// Everything is there, and as it was written.
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.changed.is_empty() && self.damaged.is_empty()
    }
}

/// Shows every event of all logs, the oldest first, with its file. What a failed write has left at the end of a log is void. Returns what each file
/// was found to be, in their order. Nothing is written.
fn through(disk: &dyn Disk, mut show: impl FnMut(&Event<'_>, &str)) -> io::Result<Vec<(String, io::Result<Scanned>)>> {
    let mut found = Vec::new();
    let logs: Vec<u64> = files::ids(disk, ".log")?.into_iter().map(|(id, _)| id).collect();
    for (n, id) in logs.iter().enumerate() {
        let (name, next) = (files::log(*id), logs.get(n + 1));
        let void = next.and_then(|next| files::first_number(disk, *next)).unwrap_or(u64::MAX);
        let scanned = disk.open(&name).and_then(|file| {
            files::scan(&*file, |event| {
                if event.number < void {
                    show(event, &name);
                }
            })
        });
        found.push((name, scanned));
    }
    Ok(found)
}

/// Shows every event of all logs, the oldest first. Nothing is written.
pub fn export(disk: &dyn Disk, mut show: impl FnMut(&Event<'_>)) -> io::Result<()> {
    through(disk, |event, _| show(event)).map(drop)
}

/// Checks all logs of a store, the oldest first. Nothing is written.
pub fn verify(disk: &dyn Disk) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let (mut last, mut file): (Option<(u64, Hash)>, String) = (None, String::new());
    let found = through(disk, |event, name| {
        let mut is_first = file != name;
        if is_first {
            file = name.to_string();
        }
        verdict.events += 1;
        let (expected, before) = last.map_or((event.number, None), |(number, hash)| (number + 1, Some(hash)));
        if event.number > expected {
            verdict.missing.push(Missing { from: expected, to: event.number - 1, file: name.to_string() });
        }
        // The first event of a log says itself what it follows: it can be checked where the one before has gone.
        let named = Begins::after(event).filter(|_| std::mem::take(&mut is_first));
        let agrees = before.is_none_or(|before| event.number != expected || named.is_none_or(|n| n == before));
        let follows = named.or(before.filter(|_| event.number == expected)).is_none_or(|b| event.follows(&b));
        if !agrees || !follows || event.number < expected {
            verdict.changed.push((event.number, name.to_string()));
        }
        last = Some((event.number, event.hash));
        verdict.span = Some((verdict.span.map_or(event.number, |(first, _)| first), event.number));
    })?;
    let newest = found.len();
    for (n, (name, found)) in found.into_iter().enumerate() {
        match found {
            Ok(found) if found.damaged => verdict.damaged.push((name, "holds what is no event".into())),
            Ok(found) if n + 1 == newest && found.torn_wrongly => {
                verdict.damaged.push((name, "ends in what is no event".into()));
            }
            Ok(_) => {}
            Err(e) => verdict.damaged.push((name, e.to_string())),
        }
    }
    verdict.hash = last.map_or_else(String::new, |(_, hash)| hex(&hash));
    Ok(verdict)
}
