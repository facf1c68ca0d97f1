//! Who changed what, and what came of it: one line of JSON each, appended, and the newest in memory for the page.
//!
//! ```text
//!   who was let in ──> audit.jsonl
//!   a stranger who was refused ──> the first ten a minute of an address ──> strangers.jsonl, a small file of its own
//!                                  all beyond ──counted──> "412 more from 10.0.0.7"
//! ```
//!
//! Nobody who is refused at the door can push out what those inside have done: not from the file, not from memory.

use super::lock;
use crate::state::rolling::{Limits, Rolling};
use crate::trouble::{Often, and_more};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Entries in memory: of those who were let in, and of strangers.
const KEPT: (usize, usize) = (1000, 200);
/// The files, in the state folder.
const FILES: (&str, &str) = ("audit.jsonl", "strangers.jsonl");
/// Years of what people do.
const LIMITS: Limits = Limits { length: 16 << 20, closed: 1 };
/// What knocks at the door is of interest for days.
const STRANGERS: Limits = Limits { length: 1 << 20, closed: 1 };
/// Longest name, action, and what else is said, characters.
const NAME_MAX: usize = 64;
const ACTION_MAX: usize = 100;
const TEXT_MAX: usize = 200;
/// Refusals of one address that are written down one by one in a [`SPELL`].
const ONE_BY_ONE: u64 = 10;
/// How long refusals are counted before the sum is written.
const SPELL: Duration = Duration::from_secs(60);
/// Addresses that are told apart in a spell.
const ADDRESSES: usize = 64;

/// One thing somebody did, or tried to.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// User or token; `anonymous` when nobody had signed in; of a refused login the name that was tried.
    pub who: String,
    /// Where from.
    pub from: String,
    /// What: `order.submit`, `alarm.acknowledge` ..
    pub action: String,
    /// To what.
    pub target: String,
    /// What came of it: `done`, `denied`, or why not.
    pub outcome: String,
}

/// A record: its newest entries, and its file.
struct Record {
    newest: VecDeque<Entry>,
    kept: usize,
    file: Option<Rolling>,
    broken: bool,
}

/// Refusals since the last sum was written.
#[derive(Default)]
struct Refusals {
    since: Option<Instant>,
    by: HashMap<IpAddr, u64>,
    /// From more addresses than are told apart.
    others: u64,
}

/// The record.
pub struct Audit {
    known: Mutex<Record>,
    strangers: Mutex<Record>,
    refusals: Mutex<Refusals>,
    /// What did not succeed and the log has heard of lately, by action.
    in_vain: Often<String>,
}

impl Audit {
    /// Opens the record of a state folder, or one in memory.
    pub fn open(dir: Option<&Path>) -> Audit {
        let record = |name: &str, limits, kept| {
            let file = dir.map(|d| Rolling::new(d.join(name), limits));
            Mutex::new(Record { newest: VecDeque::new(), kept, file, broken: false })
        };
        Audit {
            known: record(FILES.0, LIMITS, KEPT.0),
            strangers: record(FILES.1, STRANGERS, KEPT.1),
            refusals: Mutex::default(),
            in_vain: Often::default(),
        }
    }

    /// Notes something that somebody did who may do something here. A disk that does not take it is told once, and the log has it all the same.
    pub fn note(&self, who: &super::Who, action: &str, target: &str, outcome: &str) {
        lock(&self.known).note(entry(&who.name, who.from, action, target, outcome), Some(0));
    }

    /// The same of what may not have succeeded. The record has every try; the log hears of those in vain once a minute for each action.
    pub fn note_try(&self, who: &super::Who, action: &str, target: &str, outcome: Result<&str, &str>) {
        let unsaid = outcome.map_or_else(|_| self.in_vain.comes(action.to_string(), Instant::now()), |_| Some(0));
        let (Ok(said) | Err(said)) = outcome;
        lock(&self.known).note(entry(&who.name, who.from, action, target, said), unsaid);
    }

    /// Notes that somebody was refused. Who has not signed in is a stranger.
    pub fn refuse(&self, who: &super::Who, action: &str, target: &str, why: &str) {
        if who.signed_in {
            return self.note_try(who, action, target, Err(why));
        }
        if self.is_one_of_few(who.from, Instant::now()) {
            lock(&self.strangers).note(entry(&who.name, who.from, action, target, why), Some(0));
        }
    }

    /// Counts a refusal; whether it is one of the first from there.
    fn is_one_of_few(&self, from: IpAddr, now: Instant) -> bool {
        self.tend(now);
        let mut refusals = lock(&self.refusals);
        refusals.since.get_or_insert(now);
        if refusals.by.len() >= ADDRESSES && !refusals.by.contains_key(&from) {
            refusals.others += 1;
            return false;
        }
        let count = refusals.by.entry(from).or_default();
        *count += 1;
        *count <= ONE_BY_ONE
    }

    /// Writes what was counted, when a spell is over. To be called now and then: who knocks no more is summed up all the same.
    pub fn tend(&self, now: Instant) {
        let over = {
            let mut refusals = lock(&self.refusals);
            if refusals.since.is_none_or(|since| now.duration_since(since) < SPELL) {
                return;
            }
            std::mem::take(&mut *refusals)
        };
        let more = |from: &str, count: u64| {
            let outcome = format!("{count} more from {from}");
            lock(&self.strangers).note(entry("strangers", from, "refused", "", &outcome), Some(0));
        };
        for (from, count) in over.by.iter().filter(|(_, count)| **count > ONE_BY_ONE) {
            more(&from.to_string(), count - ONE_BY_ONE);
        }
        if over.others > 0 {
            more("other addresses", over.others);
        }
    }

    /// The disk does not take it.
    pub fn is_failing(&self) -> bool {
        lock(&self.known).broken || lock(&self.strangers).broken
    }

    /// The newest entries, newest first.
    pub fn newest(&self, limit: usize) -> Vec<Entry> {
        let newest = |record: &Mutex<Record>| lock(record).newest.iter().rev().take(limit).cloned().collect::<Vec<_>>();
        let mut all = newest(&self.known);
        all.extend(newest(&self.strangers));
        all.sort_by(|a, b| b.time.cmp(&a.time)); // stable: what came in one millisecond stays in its order
        all.truncate(limit);
        all
    }
}

/// The beginning of a text.
fn short(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn entry(who: &str, from: impl ToString, action: &str, target: &str, outcome: &str) -> Entry {
    Entry {
        time: humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
        who: short(who, NAME_MAX),
        from: from.to_string(),
        action: short(action, ACTION_MAX),
        target: short(target, TEXT_MAX),
        outcome: short(outcome, TEXT_MAX),
    }
}

impl Record {
    /// Takes an entry. The log hears of it unless `unsaid` is none; else it stands for so many more.
    fn note(&mut self, entry: Entry, unsaid: Option<u64>) {
        if let Some(unsaid) = unsaid {
            let (Entry { who, from, action, target, outcome, .. }, more) = (&entry, and_more(unsaid));
            tracing::info!(target: "audit", who, from, action, target, "{outcome}{more}");
        }
        if let Err(why) = self.append(&entry) {
            if !self.broken {
                tracing::error!("the audit record cannot be written: {why}; it goes on in the log");
            }
            self.broken = true;
        }
        if self.newest.len() >= self.kept {
            self.newest.pop_front();
        }
        self.newest.push_back(entry);
    }

    fn append(&mut self, entry: &Entry) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        file.append(&line)?;
        self.broken = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, Who};
    use super::*;
    use crate::plain::kept::Kept;

    fn stranger(name: &str, from: [u8; 4]) -> Who {
        Who { name: name.into(), role: None, signed_in: false, from: from.into() }
    }

    fn lines(dir: &Path, name: &str) -> Vec<String> {
        std::fs::read_to_string(dir.join(name)).unwrap_or_default().lines().map(String::from).collect()
    }

    /// A client in a loop, with a key that may do little: the record has every try, the log one line a minute of each kind.
    #[test]
    fn four_hundred_tries_in_vain_are_one_line_of_the_log_for_each_action_and_all_of_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(dir.path()));
        let mes = Who { name: "mes".into(), role: Some(Role::Viewer), signed_in: true, from: [10, 0, 0, 2].into() };
        let (log, listening) = Kept::listen();
        for n in 0..400 {
            audit.refuse(&mes, "order.submit", &format!("load {n}"), "may not");
            audit.note_try(&mes, "tag.write", &format!("tag {n}"), Err("out of its limits"));
        }
        audit.note_try(&mes, "tag.write", "tag 1", Ok("done"));
        drop(listening);
        let said = log.lines();
        for (action, lines) in [("order.submit", 1), ("tag.write", 2)] {
            assert_eq!(said.iter().filter(|l| l.contains(action)).count(), lines, "{action}: {said:#?}");
        }
        assert!(said.last().is_some_and(|l| l.contains("done")), "what was done is said each time: {said:#?}");
        assert_eq!(lines(dir.path(), "audit.jsonl").len(), 801);
    }

    #[test]
    fn strangers_with_long_names_push_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(dir.path()));
        let ada = Who { name: "ada".into(), role: Some(Role::Admin), signed_in: true, from: [10, 0, 0, 1].into() };
        audit.note(&ada, "user.add", "bob", "done");
        let long = "x".repeat(60_000);
        for n in 0..2000 {
            audit.refuse(&stranger(&long, [10, 0, 0, 7]), &long, &long, &long);
            audit.refuse(&stranger(&long, [10, 1, (n / 256) as u8, n as u8]), "login", "", "wrong");
        }
        assert_eq!(lines(dir.path(), "audit.jsonl").len(), 1);
        let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 100_000, "{bytes} bytes");
        let newest = audit.newest(10_000);
        assert!(newest.len() <= 1 + KEPT.1 && newest.iter().any(|e| e.action == "user.add"));
        // Quiet afterwards: the sums come all the same.
        audit.tend(Instant::now() + SPELL);
        let told = lines(dir.path(), "strangers.jsonl");
        assert!(told.iter().any(|l| l.contains("1990 more from 10.0.0.7")), "{told:#?}");
        assert!(told.iter().any(|l| l.contains("1937 more from other addresses")), "{told:#?}");
        audit.tend(Instant::now() + 2 * SPELL);
        assert_eq!(lines(dir.path(), "strangers.jsonl").len(), told.len(), "a sum is told once");
    }
}
