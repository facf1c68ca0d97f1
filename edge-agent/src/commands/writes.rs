//! Tag writes: what is not allowed by name, range and rate does not reach the wire.
//!
//! ```text
//!   form ──> allowed? in range? not too often? known key? ──> line's queue ──> driver ──> device ──read back──> outcome
//!              └── no: refused, counted, written down
//! ```
//!
//! A key makes a write idempotent: the same key again is answered with what came of it, and nothing is sent. A write whose
//! answer was lost is `unknown`: whoever asked reads the tag and decides.

use crate::audit::Audit;
use crate::config::{LinePlan, PointPlan, WriteRule};
use crate::metrics::histogram::Histogram;
use crate::store::facts::Did;
use crate::store::{Fact, Stands};
use arc_swap::ArcSwap;
use device_drivers::{Number, PointId, TagWrite, Value, WriteOutcome};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait between here and one line.
pub const QUEUE: usize = 64;
/// Keys that are remembered, the oldest go first.
const KEYS: usize = 10_000;
/// Values in one row, and rows within rows, at most.
const ROW_MAX: (usize, usize) = (1024, 8);
/// Longest key.
const KEY_MAX: usize = 64;
/// How long a write may wait when nothing is said, and at most.
const WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time for the answer after the write was begun, on top.
const ANSWER: Duration = Duration::from_secs(10);

/// What the record says of a write that goes on its way, and what comes of it if the gateway ends before that is known.
const BEGUN: &str = "begun";
const ENDED: &str = "the gateway ended while it was on its way: read the tag before you send it again";
/// Why a tag of a line that has ended cannot be written for the moment.
const ON_TRIAL: &str = "a new configuration is being tried; nothing was sent, try again when it is settled";

/// Where a command came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `http`, `mqtt` or `sparkplug`.
    pub via: &'static str,
    /// Who says to have sent it, or where it came in.
    pub by: String,
    /// The address it came from, or the topic.
    pub from: String,
}

impl Origin {
    /// What the audit record says of something from there.
    pub(super) fn did(self, action: &str, target: &str) -> Did {
        let Origin { via, by: who, from } = self;
        Did { who, from, via: via.into(), action: action.into(), target: target.into(), ..Did::default() }
    }
}

/// A write as it is handed in.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteForm {
    /// `device/tag`.
    pub tag: String,
    /// A number, true or false, or a text; or a row of these, and a table as rows of rows.
    pub value: serde_json::Value,
    /// Not begun later than this, milliseconds; 1000 when nothing is said.
    #[serde(default)]
    pub within_ms: Option<u64>,
    /// The same key again is the same write.
    #[serde(default)]
    pub key: Option<String>,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct WriteView {
    /// `device/tag`.
    pub tag: String,
    /// `done`, `differs`, `refused`, `invalid`, `expired`, `link_down`, `unknown`, `too_often`, `not_allowed`, `busy`.
    pub outcome: &'static str,
    /// Why, when it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Outcomes that are counted, in the order of `WriteStats::outcomes`.
pub const OUTCOMES: [&str; 10] =
    ["done", "differs", "refused", "invalid", "expired", "link_down", "unknown", "too_often", "not_allowed", "busy"];

/// What the door counts.
#[derive(Debug, Default)]
pub struct WriteStats {
    /// Writes by outcome.
    pub outcomes: [AtomicU64; OUTCOMES.len()],
    /// From the door to the outcome, of those that were sent.
    pub took: Histogram,
}

/// Where a write of a tag goes.
#[derive(Clone)]
pub struct Target {
    queue: mpsc::Sender<TagWrite>,
    point: PointId,
    rule: Arc<WriteRule>,
}

/// The tags of a line that may be written, by name; `queue` is the line's.
pub fn targets(line: &LinePlan, queue: &mpsc::Sender<TagWrite>) -> Vec<(String, Target)> {
    let target = |(i, point): (usize, &PointPlan)| {
        let rule = point.write.clone()?;
        Some((line.point_name(point), Target { queue: queue.clone(), point: PointId(i as u32), rule }))
    };
    line.points.iter().enumerate().filter_map(target).collect()
}

#[derive(Default)]
struct Book {
    last: HashMap<String, Instant>,
    keys: HashMap<String, Known>,
    order: VecDeque<String>,
}

impl Book {
    /// The keys of an earlier run: what was sent is not sent again, nor is what may have been.
    fn recall(writes: &[Did]) -> Book {
        let mut book = Book::default();
        for did in writes {
            let Some(key) = &did.key else { continue };
            let (outcome, reason) = match &*did.outcome {
                BEGUN => ("unknown", Some(ENDED.to_string())),
                other => (OUTCOMES.iter().find(|o| **o == other).copied().unwrap_or("unknown"), did.reason.clone()),
            };
            if !was_sent(outcome) {
                book.keys.remove(key);
                continue;
            }
            let tag = did.target.clone();
            let view = WriteView { tag: tag.clone(), outcome, reason };
            // Of a value too long to be kept nobody knows any more what it was: its key is used up all the same.
            let value = did.value.clone().unwrap_or_default();
            if book.keys.insert(key.clone(), Known { tag, value, view: Some(view) }).is_none() {
                book.order.push_back(key.clone());
            }
        }
        book.forget_the_oldest();
        book
    }

    fn forget_the_oldest(&mut self) {
        while self.order.len() > KEYS {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }
}

/// Whether a device has heard of a write with this outcome.
fn was_sent(outcome: &str) -> bool {
    matches!(outcome, "done" | "differs" | "refused" | "unknown")
}

/// A write that came with a key: what it was, and what came of it.
struct Known {
    tag: String,
    value: serde_json::Value,
    view: Option<WriteView>,
}

/// The door.
pub struct WriteDesk {
    targets: ArcSwap<HashMap<String, Target>>,
    /// Tags whose line was ended for another configuration, of which it is not known yet whether it comes up.
    on_trial: ArcSwap<HashSet<String>>,
    audit: Arc<Audit>,
    book: Mutex<Book>,
    /// Counters.
    pub stats: WriteStats,
}

impl WriteDesk {
    /// A door to nothing yet. Keys of `known` are not used again.
    pub fn new(audit: Arc<Audit>, known: &[Did]) -> WriteDesk {
        let book = Mutex::new(Book::recall(known));
        WriteDesk {
            targets: ArcSwap::default(),
            on_trial: ArcSwap::default(),
            audit,
            book,
            stats: WriteStats::default(),
        }
    }

    /// Opens the door to these tags, and to no others.
    pub fn open(&self, targets: impl Iterator<Item = (String, Target)>) {
        self.targets.store(Arc::new(targets.collect()));
    }

    /// These tags lose their line to a configuration that is being tried, beside those that have lost it already.
    pub fn begin_trial(&self, tags: impl Iterator<Item = String>) {
        self.on_trial.store(Arc::new(self.on_trial.load().iter().cloned().chain(tags).collect()));
    }

    /// It is settled which lines there are.
    pub fn end_trial(&self) {
        self.on_trial.store(Arc::default());
    }

    fn is_on_trial(&self, tag: &str) -> bool {
        self.on_trial.load().contains(tag)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a tag and waits for what comes of it. It is brought to its end whether or not whoever asked goes on waiting.
    pub async fn write(self: &Arc<Self>, form: WriteForm, origin: Origin) -> WriteView {
        if let Some(view) = self.known(&form) {
            return view;
        }
        let (desk, lost) = (self.clone(), say(&form, "unknown", "the gateway is stopping".into()));
        tokio::spawn(async move { desk.to_its_end(form, origin).await }).await.unwrap_or(lost)
    }

    async fn to_its_end(&self, form: WriteForm, origin: Origin) -> WriteView {
        let started = Instant::now();
        let did = origin.did("tag.write", &form.tag);
        let did = Did { value: Some(form.value.clone()), key: form.key.clone(), ..did };
        let view = self.decided(&form, &did).await;
        if let Some(key) = &form.key {
            self.remember(key, &view);
        }
        let n = OUTCOMES.iter().position(|o| *o == view.outcome);
        if let Some(counter) = n.and_then(|n| self.stats.outcomes.get(n)) {
            counter.fetch_add(1, Relaxed);
        }
        if was_sent(view.outcome) {
            self.stats.took.record_ns(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        let did = Did { outcome: view.outcome.into(), reason: view.reason.clone(), ..did };
        self.audit.command(did, was_sent(view.outcome)).await;
        view
    }

    /// A key that has been used: its outcome, or that it is still on its way.
    fn known(&self, form: &WriteForm) -> Option<WriteView> {
        let key = form.key.as_ref().filter(|k| k.len() <= KEY_MAX)?;
        let mut book = self.book();
        match book.keys.get(key) {
            Some(known) if known.tag != form.tag || known.value != form.value => {
                Some(say(form, "invalid", format!("the key stands for {} = {}", known.tag, known.value)))
            }
            Some(Known { view: Some(view), .. }) => Some(view.clone()),
            Some(_) => Some(say(form, "busy", "a write with this key is on its way".into())),
            None => {
                let (tag, value) = (form.tag.clone(), form.value.clone());
                book.keys.insert(key.clone(), Known { tag, value, view: None });
                None
            }
        }
    }

    fn remember(&self, key: &str, view: &WriteView) {
        let mut book = self.book();
        // Where nothing was sent, the same write may be tried again under its key.
        if !was_sent(view.outcome) {
            book.keys.remove(key);
            return;
        }
        if let Some(known) = book.keys.get_mut(key) {
            known.view = Some(view.clone());
            book.order.push_back(key.to_string());
        }
        book.forget_the_oldest();
    }

    async fn decided(&self, form: &WriteForm, did: &Did) -> WriteView {
        if form.key.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_MAX || k.chars().any(char::is_control)) {
            return say(form, "invalid", format!("a key has 1 to {KEY_MAX} bytes, and no control characters"));
        }
        let Some(target) = self.targets.load().get(&form.tag).cloned() else {
            if self.is_on_trial(&form.tag) {
                return say(form, "link_down", ON_TRIAL.into());
            }
            let why = "either there is no such tag (names are DEVICE/TAG), or it has no `write` table in its profile";
            return say(form, "not_allowed", why.into());
        };
        let value = match value_of(&form.value) {
            Ok(value) => value,
            Err(why) => return say(form, "invalid", why),
        };
        if let Err((outcome, why)) = in_range(&value, &target.rule) {
            return say(form, outcome, why);
        }
        if let Err(why) = self.not_too_often(&form.tag, &target) {
            return say(form, "too_often", why);
        }
        if let Err(e) = self.audit.begin(did.clone()).await {
            return say(form, "busy", format!("the audit record is required, and cannot be written: {e}"));
        }
        let within = form.within_ms.map_or(WITHIN.0, Duration::from_millis).min(WITHIN.1);
        let (reply, answer) = oneshot::channel();
        let deadline = tokio::time::Instant::now() + within;
        let (priority, verify) = (target.rule.priority, target.rule.verify);
        let wish = TagWrite { point: target.point, value, deadline, priority, verify, reply };
        let on_trial = || self.is_on_trial(&form.tag).then(|| say(form, "link_down", ON_TRIAL.into()));
        match target.queue.try_send(wish) {
            Ok(()) => {}
            // Its line has just ended.
            Err(TrySendError::Closed(_)) => return on_trial().unwrap_or_else(|| view(form, WriteOutcome::LinkDown)),
            Err(TrySendError::Full(_)) => {
                return say(form, "busy", format!("{QUEUE} writes wait for this line already"));
            }
        }
        match tokio::time::timeout(within + ANSWER, answer).await {
            Ok(Ok(WriteOutcome::LinkDown)) => on_trial().unwrap_or_else(|| view(form, WriteOutcome::LinkDown)),
            Ok(Ok(outcome)) => view(form, outcome),
            // The line was taken down with it, or hangs: what became of it nobody knows.
            Ok(Err(_)) | Err(_) => view(form, WriteOutcome::Unknown),
        }
    }

    fn not_too_often(&self, tag: &str, target: &Target) -> Result<(), String> {
        if target.rule.every.is_zero() {
            return Ok(());
        }
        let mut book = self.book();
        let now = Instant::now();
        match book.last.get(tag).map(|last| target.rule.every.saturating_sub(now - *last)) {
            Some(wait) if !wait.is_zero() => Err(format!("one write in {:?}; the next in {wait:?}", target.rule.every)),
            _ => {
                book.last.insert(tag.into(), now);
                Ok(())
            }
        }
    }
}

impl Stands for WriteDesk {
    fn stands(&self, _: u64, fact: &Fact) -> bool {
        let key = match fact {
            Fact::Did(did) if did.is_keyed_write() => did.key.as_ref(),
            _ => None,
        };
        key.is_some_and(|key| self.book().keys.contains_key(key))
    }
}

fn value_of(json: &serde_json::Value) -> Result<Value, String> {
    value_within(json, ROW_MAX.1)
}

fn value_within(json: &serde_json::Value, depth: usize) -> Result<Value, String> {
    use serde_json::Value as Json;
    match json {
        Json::Array(values) if depth == 0 || values.len() > ROW_MAX.0 => {
            let (long, deep) = ROW_MAX;
            Err(format!("a row has at most {long} values, and at most {deep} rows stand one in the other"))
        }
        Json::Array(values) => {
            let values = values.iter().map(|v| value_within(v, depth - 1)).collect::<Result<Vec<_>, _>>()?;
            Ok(Value::List(values.into()))
        }
        Json::Bool(b) => Ok(Value::Bool(*b)),
        Json::String(text) => Ok(Value::Text(text.as_str().into())),
        Json::Number(n) => n
            .as_i64()
            .map(Value::Int)
            .or_else(|| n.as_u64().map(Value::Uint))
            .or_else(|| n.as_f64().map(Value::Float))
            .ok_or_else(|| format!("{n} is no number that can be written")),
        other => Err(format!("{other} is neither a number nor true, false, a text or a row of these")),
    }
}

fn in_range(value: &Value, rule: &WriteRule) -> Result<(), (&'static str, String)> {
    if rule.min.is_none() && rule.max.is_none() {
        return Ok(());
    }
    if let Value::List(values) = value {
        return values.iter().try_for_each(|value| in_range(value, rule));
    }
    let (min, max) = (rule.min.unwrap_or(Number::LEAST), rule.max.unwrap_or(Number::MOST));
    match value.number() {
        Some(number) if number >= min && number <= max => Ok(()),
        Some(number) => Err(("not_allowed", format!("{number} is not within {min} and {max}"))),
        None => Err(("invalid", format!("{value} is no number; this tag takes those from {min} to {max}"))),
    }
}

fn say(form: &WriteForm, outcome: &'static str, reason: String) -> WriteView {
    WriteView { tag: form.tag.clone(), outcome, reason: Some(reason) }
}

fn view(form: &WriteForm, outcome: WriteOutcome) -> WriteView {
    match outcome {
        WriteOutcome::Done => WriteView { tag: form.tag.clone(), outcome: "done", reason: None },
        WriteOutcome::Differs(value) => say(form, "differs", format!("the tag was read back, and holds {value}")),
        WriteOutcome::Invalid(why) => say(form, "invalid", why),
        WriteOutcome::Refused(cause) => say(form, "refused", cause.to_string()),
        WriteOutcome::Expired => say(form, "expired", "it waited too long and was not sent".into()),
        WriteOutcome::LinkDown => say(form, "link_down", "the line is down; nothing was sent".into()),
        WriteOutcome::Unknown => {
            say(form, "unknown", "it was sent, and no answer came: read the tag before you send it again".into())
        }
    }
}
