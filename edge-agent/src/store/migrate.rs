//! What versions before the store have left in the state folder: their order journal, the record of commands, and the audit record. They are read
//! once, by the first start that finds no store, and are left as they are: an older version that is put back finds what it had.
//!
//! ```text
//!   orders/*.jnl      ──> order.taken, order.state
//!   commands.jsonl    ──> did (with keys)
//!   audit.jsonl       ──> did
//! ```

use super::facts::{Did, Fact, Taken, Turned, Wanted};
use crate::telemetry::spool::disk::{Disk, Folder};
use crate::telemetry::spool::record::Kind;
use crate::telemetry::spool::segment;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Why an order that was under way has failed: those versions did not write down where its load was.
const UPDATED: &str = "the gateway was updated while it was under way; see where the load is, then order again";
/// Closed files of the records, the oldest first.
const FILES: [&str; 7] = [
    "commands.4.jsonl",
    "commands.3.jsonl",
    "commands.2.jsonl",
    "commands.1.jsonl",
    "commands.jsonl",
    "audit.1.jsonl",
    "audit.jsonl",
];

/// An order of the journal. What was asked for stands beside it, or is what it is.
#[derive(Deserialize)]
struct OldOrder {
    id: u32,
    kind: String,
    load: u32,
    #[serde(default)]
    stops: Vec<OldStop>,
    class: u8,
    #[serde(default)]
    due: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    number: Option<u16>,
    #[serde(default)]
    after: Option<u32>,
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    adopted: bool,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    asked: Option<OldForm>,
}

#[derive(Deserialize)]
struct OldStop {
    at: String,
    #[serde(default)]
    program: Option<u16>,
}

#[derive(Deserialize)]
struct OldForm {
    #[serde(default)]
    program: Option<u16>,
    #[serde(default)]
    station: Option<String>,
    #[serde(default)]
    class: Option<u8>,
    #[serde(default)]
    wait_s: Option<u32>,
    #[serde(default)]
    due: Option<String>,
}

impl OldOrder {
    fn facts(self) -> [Fact; 2] {
        let due_ms = self.due.as_deref().and_then(|due| humantime::parse_rfc3339(due).ok());
        let due_ms = due_ms.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let stops: Vec<_> = self.stops.into_iter().map(|s| (s.at, s.program)).collect();
        let asked = self.asked;
        let of = |get: fn(&OldForm) -> Option<u16>| asked.as_ref().and_then(get);
        let wanted = Wanted {
            kind: self.kind,
            load: self.load,
            program: of(|a| a.program),
            station: asked.as_ref().and_then(|a| a.station.clone()),
            stops: (!stops.is_empty()).then_some(stops),
            class: asked.as_ref().map_or(Some(self.class), |a| a.class),
            wait_s: asked.as_ref().and_then(|a| a.wait_s),
            due: asked.as_ref().map_or(self.due, |a| a.due.clone()),
            tenant: self.tenant,
            group: self.group,
            number: self.number,
            after: self.after,
            key: self.key,
        };
        let digest = wanted.digest();
        let due_ms = due_ms.and_then(|since| u64::try_from(since.as_millis()).ok());
        let ended = matches!(&*self.state, "completed" | "failed" | "rejected");
        let (state, reason) = if ended { (self.state, self.reason) } else { ("failed".into(), Some(UPDATED.into())) };
        let id = self.id;
        [Taken { id, wanted, digest, due_ms }.into(), Turned { id, state, reason, doubt: None }.into()]
    }
}

/// A line of the record of commands, or of the audit record.
#[derive(Deserialize)]
struct OldLine {
    #[serde(default)]
    time: String,
    #[serde(default)]
    via: Option<String>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    what: Option<String>,
    #[serde(default)]
    who: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    reason: Option<String>,
}

impl OldLine {
    fn did(self) -> Did {
        let write = self.what.as_deref().and_then(|what| what.strip_prefix("write ")?.split_once(" = "));
        let (action, target, value) = match (write, &self.what, self.action) {
            (Some((tag, value)), ..) => ("tag.write".into(), tag.into(), serde_json::from_str(value).ok()),
            (None, Some(what), _) => ("order.submit".into(), what.clone(), None),
            (None, None, action) => (action.unwrap_or_default(), self.target.unwrap_or_default(), None),
        };
        Did {
            who: self.by.or(self.who).unwrap_or_default(),
            from: self.from.unwrap_or_default(),
            via: self.via.unwrap_or_else(|| "http".into()),
            action,
            target,
            outcome: self.outcome,
            reason: self.reason,
            key: self.key,
            value,
        }
    }
}

fn orders(folder: &Path) -> Vec<Fact> {
    let mut latest: BTreeMap<u32, OldOrder> = BTreeMap::new();
    let Some(disk) = folder.is_dir().then(|| Folder::new(folder).ok()).flatten() else { return Vec::new() };
    let mut names: Vec<String> = disk.list().unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name.ends_with(".jnl"));
    names.sort_unstable();
    for name in names {
        let Ok(file) = disk.open(&name) else { continue };
        let read = segment::scan(&*file, (0, u64::MAX), |record, _, _| {
            if record.kind == Kind::Json
                && let Ok(order) = serde_json::from_slice::<OldOrder>(record.payload)
            {
                latest.insert(order.id, order);
            }
        });
        if let Err(e) = read {
            tracing::error!("{name} of the order journal of an earlier version cannot be read: {e}");
        }
    }
    let kept = latest.into_values().filter(|o| o.state != "rejected" && !o.adopted);
    kept.flat_map(OldOrder::facts).collect()
}

fn lines(path: &Path) -> Vec<(u64, Did)> {
    let text = device_drivers::files::read(path, FILE_MAX).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        if let Ok(line) = serde_json::from_slice::<OldLine>(line) {
            let at = humantime::parse_rfc3339(&line.time).ok();
            let ms = at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |d| d.as_millis());
            found.push((u64::try_from(ms).unwrap_or(0), line.did()));
        }
    }
    found
}

/// Lines that are taken over, the newest.
const KEPT: usize = 30_000;
/// Longest file of a record, bytes.
const FILE_MAX: u64 = 64 << 20;

/// All that earlier versions have left in a state folder, the oldest first: when, and what.
pub(super) fn left(state: &Path) -> Vec<(u64, Fact)> {
    let _ = std::fs::remove_file(state.join("orders/reserve")); // the store has its own
    let mut found: Vec<(u64, Fact)> = orders(&state.join("orders")).into_iter().map(|fact| (0, fact)).collect();
    let mut did: Vec<(u64, Did)> = FILES.iter().flat_map(|name| lines(&state.join(name))).collect();
    did.sort_by_key(|(at, _)| *at); // stable: lines of one millisecond keep their order
    did.drain(..did.len().saturating_sub(KEPT));
    found.extend(did.into_iter().map(|(at, did)| (at, Fact::Did(did))));
    found
}
