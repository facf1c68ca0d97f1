//! The audit record: who, from where, through which door, did what to what, and what came of it. One schema for all of it.
//!
//! ```text
//!   who was let in, and every command ──> the store: durable before its outcome is heard, chained, never changed
//!   refused ──> the first ten a minute of an origin, 200 an hour in all ──> the store
//!               all beyond ──counted──> "412 more from 10.0.0.7, 37 more from other origins"
//! ```
//!
//! Nobody who is refused can push out what others have done: not from the disk, not from memory. The store keeps the newest
//! [`KEPT`] entries whatever else it drops. With `audit = "require"` nothing is changed that cannot be written down first.

use crate::access::Who;
use crate::board::stamp;
use crate::store::facts::Did;
use crate::store::{Fact, Keep, Stands};
use crate::trouble::{Often, and_more};
use device_drivers::value::wall_clock_ms;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Entries that the store keeps, whatever its logs have room for: some 30 MB.
pub const KEPT: usize = 100_000;
/// Entries in memory.
const NEWEST: usize = 1000;
/// Longest name, action, and what else is said, characters.
const NAME_MAX: usize = 64;
const ACTION_MAX: usize = 100;
const TEXT_MAX: usize = 256;
/// Longest value of a write that is kept whole, bytes of JSON: a longer one is used up with its key all the same.
const VALUE_MAX: usize = 4096;
/// Refusals of one origin that are written down one by one in a [`SPELL`].
const ONE_BY_ONE: u64 = 10;
/// How long refusals are counted before the sum is written.
const SPELL: Duration = Duration::from_secs(60);
/// Origins that are told apart in a spell.
const ORIGINS: usize = 64;
/// And named in its sum.
const NAMED: usize = 8;
/// Refusals of all together that are written down one by one, at once and an hour.
const BUCKET: f64 = 200.0;

/// One thing somebody did, or tried to.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// User or token; `anonymous` when nobody had signed in; of a refused login the name that was tried; of a command who it says it is from.
    pub who: String,
    /// Where from: an address, or a topic.
    pub from: String,
    /// The door: `http`, `mqtt`, `sparkplug`, `cli`, `gateway`.
    pub via: String,
    /// What: `order.submit`, `tag.write`, `alarm.acknowledge` ..
    pub action: String,
    /// To what.
    pub target: String,
    /// What came of it: `done`, `denied`, or why not.
    pub outcome: String,
    /// Why, when it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The key of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

impl Entry {
    fn of(at_ms: u64, did: Did) -> Entry {
        let Did { who, from, via, action, target, outcome, reason, key, value } = did;
        Entry { time: stamp(at_ms), who, from, via, action, target, outcome, reason, key, value }
    }
}

/// Refusals since the last sum was written.
#[derive(Default)]
struct Refusals {
    since: Option<Instant>,
    /// By origin: all of them, and those that were not written down.
    by: HashMap<String, (u64, u64)>,
    /// From more origins than are told apart.
    others: u64,
    /// Those that were written down one by one: credit for more, and as of when.
    credit: Option<(f64, Instant)>,
}

/// The record.
pub struct Audit {
    keep: Keep,
    is_required: bool,
    newest: Mutex<VecDeque<Entry>>,
    /// When the entries were made that the store keeps, milliseconds since 1970 UTC, the oldest first.
    kept: Mutex<VecDeque<u64>>,
    refusals: Mutex<Refusals>,
    /// What did not succeed and the log has heard of lately, by action and outcome.
    in_vain: Often<String>,
    /// Entries made.
    pub entries: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Audit {
    fn default() -> Audit {
        Audit::new(Keep::default(), VecDeque::new(), false)
    }
}

impl Audit {
    /// The record in a store, with what earlier runs have left in it. Where it `is_required` nothing is changed that cannot be written down.
    pub fn new(keep: Keep, did: VecDeque<(u64, Did)>, is_required: bool) -> Audit {
        let kept = did.iter().map(|(at, _)| *at).collect();
        let newest = did.into_iter().map(|(at, did)| Entry::of(at, did)).collect();
        Audit {
            keep,
            is_required,
            newest: Mutex::new(newest),
            kept: Mutex::new(kept),
            refusals: Mutex::default(),
            in_vain: Often::default(),
            entries: AtomicU64::new(0),
        }
    }

    /// Notes something that somebody did who may do something here; durable when this returns, or in the log that it could not be.
    pub async fn note(&self, who: &Who, action: &str, target: &str, outcome: &str) {
        self.remark(who, action, target, outcome);
        self.settle().await;
    }

    /// The same without waiting for the disk.
    pub fn remark(&self, who: &Who, action: &str, target: &str, outcome: &str) {
        self.enter(did(who, action, target, outcome), Some(0));
    }

    /// The same of what may not have succeeded. The record has every try; the log hears of those in vain once a minute for each action.
    pub fn note_try(&self, who: &Who, action: &str, target: &str, outcome: Result<&str, &str>) {
        let unsaid = outcome.map_or_else(|_| self.in_vain.comes(action.to_string(), Instant::now()), |_| Some(0));
        let (Ok(said) | Err(said)) = outcome;
        self.enter(did(who, action, target, said), unsaid);
    }

    /// Notes what was done beside the gateway, by whoever may write to its folder.
    pub fn note_outside(&self, action: &str, target: &str) {
        self.enter(beside(action, target), Some(0));
    }

    /// Notes that somebody was refused. Who has not signed in is a stranger.
    pub fn refuse(&self, who: &Who, action: &str, target: &str, why: &str) {
        if who.signed_in {
            return self.note_try(who, action, target, Err(why));
        }
        if self.is_one_of_few(&who.from.to_string(), Instant::now()) {
            self.enter(did(who, action, target, why), Some(0));
        }
    }

    /// Notes a command and what came of it; durable when this returns, or in the log that it could not be. What was sent to a device, or taken,
    /// is always written down; what was not is counted from some on.
    pub async fn command(&self, did: Did, was_taken: bool) {
        let unsaid = if was_taken { Some(0) } else { self.in_vain.comes(did.outcome.clone(), Instant::now()) };
        // Over HTTP nobody comes as far as this who may do nothing here.
        if was_taken || did.via == "http" || self.is_one_of_few(&did.from, Instant::now()) {
            self.enter(did, unsaid);
            self.settle().await;
        }
    }

    /// Whether something may be changed now: where the record is required, `Ok` says that this is written down.
    pub async fn may_begin(&self, who: &Who, action: &str) -> io::Result<()> {
        if !self.is_required {
            return Ok(());
        }
        let did = did(who, action, "", "begun");
        self.keep.write(did).await
    }

    /// The same of a command.
    pub async fn may_command(&self, did: Did) -> io::Result<()> {
        if !self.is_required {
            return Ok(());
        }
        self.keep.write(Did { outcome: "begun".into(), key: None, ..did }).await
    }

    /// Writes down that a write goes on its way: its key is used up from here on, whatever ends this process. A disk that does not take it keeps
    /// it from going where the record is required, and is told by an alarm where it is not.
    pub async fn begin(&self, did: Did) -> io::Result<()> {
        if did.key.is_none() {
            return self.may_command(did).await;
        }
        self.enter(Did { outcome: "begun".into(), ..did }, None);
        let written = self.keep.settle().await;
        if self.is_required { written } else { Ok(()) }
    }

    /// Waits until all that was noted is durable, as far as the disk takes it: an alarm tells where it does not.
    pub async fn settle(&self) {
        let _ = self.keep.settle().await;
    }

    /// Counts a refusal; whether it is one of the first from there, and of the few of all that are written down.
    fn is_one_of_few(&self, from: &str, now: Instant) -> bool {
        let from = &*short(from, NAME_MAX);
        self.tend(now);
        let mut refusals = lock(&self.refusals);
        refusals.since.get_or_insert(now);
        if refusals.by.len() >= ORIGINS && !refusals.by.contains_key(from) {
            refusals.others += 1;
            return false;
        }
        let (credit, at) = refusals.credit.unwrap_or((BUCKET, now));
        let credit = (credit + (now - at).as_secs_f64() * BUCKET / 3600.0).min(BUCKET);
        let (count, unsaid) = refusals.by.entry(from.into()).or_default();
        *count += 1;
        let is_one = *count <= ONE_BY_ONE && credit >= 1.0;
        *unsaid += u64::from(!is_one);
        refusals.credit = Some((if is_one { credit - 1.0 } else { credit }, now));
        is_one
    }

    /// Writes what was counted, when a spell is over. To be called now and then: who knocks no more is summed up all the same.
    pub fn tend(&self, now: Instant) {
        let over = {
            let mut refusals = lock(&self.refusals);
            if refusals.since.is_none_or(|since| now.duration_since(since) < SPELL) {
                return;
            }
            let credit = refusals.credit;
            std::mem::replace(&mut *refusals, Refusals { credit, ..Refusals::default() })
        };
        let mut more: Vec<(u64, String)> = over.by.into_iter().map(|(from, (_, unsaid))| (unsaid, from)).collect();
        more.retain(|(count, _)| *count > 0);
        more.sort_by(|a, b| b.cmp(a));
        let rest = more.iter().skip(NAMED).map(|(count, _)| count).sum::<u64>() + over.others;
        let mut said: Vec<String> = more.iter().take(NAMED).map(|(n, from)| format!("{n} more from {from}")).collect();
        if rest > 0 {
            said.push(format!("{rest} more from other addresses"));
        }
        if !said.is_empty() {
            let (who, action) = ("strangers".into(), "refused".into());
            let target = String::new();
            self.enter(
                Did { who, via: "gateway".into(), action, target, outcome: said.join(", "), ..Did::default() },
                Some(0),
            );
        }
    }

    /// The disk does not take it.
    pub fn is_failing(&self) -> bool {
        self.keep.is_failing()
    }

    /// The newest entries, newest first.
    pub fn newest(&self, limit: usize) -> Vec<Entry> {
        lock(&self.newest).iter().rev().take(limit).cloned().collect()
    }

    /// Takes an entry. The log hears of it unless `unsaid` is none; else it stands for so many more.
    fn enter(&self, did: Did, unsaid: Option<u64>) {
        let did = shortened(did);
        if let Some(unsaid) = unsaid {
            let (Did { who, from, via, action, target, outcome, reason, .. }, more) = (&did, and_more(unsaid));
            let reason = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            tracing::info!(target: "audit", who, from, via, action, target, "{outcome}{reason}{more}");
        }
        self.entries.fetch_add(1, Relaxed);
        let now_ms = wall_clock_ms();
        keep_newest(&mut lock(&self.kept), now_ms, KEPT);
        keep_newest(&mut lock(&self.newest), Entry::of(now_ms, did.clone()), NEWEST);
        self.keep.note(did);
    }
}

impl Stands for Audit {
    fn stands(&self, at_ms: u64, fact: &Fact) -> bool {
        matches!(fact, Fact::Did(_)) && lock(&self.kept).front().is_none_or(|oldest| at_ms >= *oldest)
    }
}

fn keep_newest<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(item);
}

fn did(who: &Who, action: &str, target: &str, outcome: &str) -> Did {
    Did {
        who: who.name.to_string(),
        from: who.from.to_string(),
        via: "http".into(),
        action: action.into(),
        target: target.into(),
        outcome: outcome.into(),
        ..Did::default()
    }
}

/// Something that was done on the command line, by whoever may write to the state folder.
pub fn beside(action: &str, target: &str) -> Did {
    Did {
        who: "the command line".into(),
        via: "cli".into(),
        action: action.into(),
        target: target.into(),
        outcome: "done".into(),
        ..Did::default()
    }
}

/// The beginning of a text.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// What somebody says at length is not written down at length.
fn shortened(did: Did) -> Did {
    let is_short = |value: &serde_json::Value| value.to_string().len() <= VALUE_MAX;
    Did {
        who: short(&did.who, NAME_MAX),
        from: short(&did.from, TEXT_MAX),
        action: short(&did.action, ACTION_MAX),
        target: short(&did.target, TEXT_MAX),
        outcome: short(&did.outcome, TEXT_MAX),
        reason: did.reason.map(|why| short(&why, TEXT_MAX)),
        key: did.key.map(|key| short(&key, TEXT_MAX)),
        value: did.value.filter(is_short),
        ..did
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    fn stranger(name: &str, from: [u8; 4]) -> Who {
        Who { name: name.into(), role: None, signed_in: false, from: from.into() }
    }

    #[tokio::test]
    async fn strangers_with_long_names_push_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let (keep, left, _) = Keep::open(dir.path(), 0).unwrap();
        let audit = Audit::new(keep, left.did, false);
        let ada = Who { name: "ada".into(), role: Some(Role::Admin), signed_in: true, from: [10, 0, 0, 1].into() };
        audit.note(&ada, "user.add", "bob", "done").await;
        let long = "x".repeat(60_000);
        for n in 0..2000 {
            audit.refuse(&stranger(&long, [10, 0, 0, 7]), &long, &long, &long);
            audit.refuse(&stranger(&long, [10, 1, (n / 256) as u8, n as u8]), "login", "", "wrong");
        }
        let first = audit.newest(10_000);
        assert!(first.len() < 100 && first.iter().any(|e| e.action == "user.add"), "{}", first.len());
        // Quiet afterwards: the sums come all the same, once.
        audit.tend(Instant::now() + SPELL);
        let told = audit.newest(1).remove(0).outcome;
        assert!(told.starts_with("1990 more from 10.0.0.7"), "{told}");
        assert!(told.ends_with("1937 more from other addresses"), "{told}");
        audit.tend(Instant::now() + 2 * SPELL);
        assert_eq!(audit.newest(10_000).len(), first.len() + 1, "a sum is told once");
        // And all of it is there after a restart.
        audit.keep.store().unwrap().settle().unwrap();
        let before = audit.newest(10_000);
        drop(audit);
        let (keep, left, _) = Keep::open(dir.path(), 0).unwrap();
        let times: Vec<_> = before.iter().map(|e| (&e.who, &e.outcome)).collect();
        let again = Audit::new(keep, left.did, false).newest(10_000);
        assert_eq!(again.iter().map(|e| (&e.who, &e.outcome)).collect::<Vec<_>>(), times);
        let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 100_000, "{bytes} bytes");
    }

    #[test]
    fn refusals_from_ever_new_origins_are_some_hundred_an_hour() {
        let (audit, start) = (Audit::default(), Instant::now());
        let mut written = 0;
        for minute in 0..600u32 {
            let now = start + SPELL * minute;
            written += (0..100u32).filter(|n| audit.is_one_of_few(&format!("{minute} {n}"), now)).count();
        }
        assert!((2000..2300).contains(&written), "{written} of 60,000 in ten hours");
        assert!(audit.newest(10_000).len() <= 600, "and a sum a minute");
    }

    #[tokio::test]
    async fn where_the_record_is_required_nothing_begins_that_cannot_be_written_down() {
        let ada = Who { name: "ada".into(), role: Some(Role::Admin), signed_in: true, from: [10, 0, 0, 1].into() };
        for (keep, is_required, may) in
            [(Keep::closed(), false, true), (Keep::closed(), true, false), (Keep::default(), true, true)]
        {
            let audit = Audit::new(keep, VecDeque::new(), is_required);
            assert_eq!(audit.may_begin(&ada, "user.add").await.is_ok(), may);
            assert_eq!(audit.may_command(Did::default()).await.is_ok(), may);
        }
    }

    #[tokio::test]
    async fn four_hundred_refused_commands_are_one_line_of_the_log_and_what_was_done_is_told_each_time() {
        let audit = Audit::default();
        let (log, _guard) = crate::plain::kept::Kept::listen();
        for n in 0..400 {
            let did = Did { action: "tag.write".into(), from: "cmd/write".into(), ..Did::default() };
            let refused = Did { outcome: "invalid".into(), reason: Some(format!("no number: {n}")), ..did.clone() };
            audit.command(refused, false).await;
            audit.command(Did { outcome: "done".into(), ..did }, true).await;
        }
        let said = |what: &str| log.lines().iter().filter(|l| l.contains(what)).count();
        assert_eq!((said("invalid: no number"), said(" done")), (1, 400));
    }
}
