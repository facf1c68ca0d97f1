//! The door for commands from outside: tag writes and orders, from HTTP, MQTT and Sparkplug hosts. Nothing passes that is not allowed, and
//! everything that tries is written down.
//!
//! ```text
//!   HTTP ───────────────┐
//!   MQTT cmd/write ──> gate ──> [writes]  allowed? in range? not too often? known key? ──> line ──> device ──read back──┐
//!   MQTT cmd/order ──> gate ──> [desk]                                                                                  │
//!   Sparkplug DCMD ──> gate ──> [writes]                                      answer <── audit (on disk) <── outcome <──┘
//!
//!   gate: not retained, allowed by name, not too many at once or a second, not expired, has a key
//! ```
//!
//! Over MQTT 5 the answer goes to the response topic, with the correlation data; else to `../cmd/write/reply` and `../cmd/order/reply`, where
//! the key says what is answered. A command over MQTT needs a key, or correlation data that stands for one: QoS 1 may bring it twice.

mod writes;

pub use writes::{OUTCOMES, Origin, QUEUE, Target, WriteDesk, WriteForm, WriteView, targets};

use crate::audit::Audit;
use crate::desk::{Desk, OrderForm, Submitted};
use crate::store::facts::Did;
use crate::telemetry::mqtt::wire::{Message, Properties, Received};
use crate::trouble::Shared;
use device_drivers::said::said;
use serde::Deserialize;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use wildmatch::WildMatch;

/// Commands that may be on their way at once.
const AT_ONCE: usize = 64;
/// Longest key and tag that a refusal repeats, bytes.
const ECHO_MAX: usize = 256;
/// What the audit record calls commands.
const WRITE: &str = "tag.write";
const ORDER: &str = "order.submit";
/// How long an order waits for the control thread's word.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Longest name of a sender that is written down.
const BY_MAX: usize = 64;

/// What is let in over MQTT and Sparkplug.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandPlan {
    /// Topic before `/write` and `/order`.
    pub topic: String,
    /// Tags that may be written, as `device/tag` with `*`; each needs a `write` table in its profile besides.
    pub allow: Vec<String>,
    /// Whether orders are taken.
    pub orders: bool,
    /// Commands a second.
    pub rate: f64,
    /// Answers never go to topics that begin with one of these: they are ours.
    pub own: Vec<String>,
}

/// What the door counts.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Commands over MQTT and Sparkplug.
    pub received: AtomicU64,
    /// Those that were retained by the broker.
    pub retained: AtomicU64,
    /// Those turned away at the gate.
    pub refused: AtomicU64,
}

struct Bucket {
    credit: f64,
    at: Instant,
}

/// The door for MQTT and Sparkplug.
pub struct Commands {
    plan: CommandPlan,
    allow: Vec<WildMatch>,
    writes: Arc<WriteDesk>,
    /// `None`: this gateway moves nothing.
    desk: Option<Arc<Desk>>,
    audit: Arc<Audit>,
    answering: mpsc::Sender<Message>,
    seats: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
    /// Counters.
    pub stats: Arc<CommandStats>,
}

/// Keys beside those of the form.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    by: Option<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// What is wanted, and by whom.
struct Asked {
    origin: Origin,
    key: String,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Commands {
    /// A door to these desks.
    pub fn new(
        plan: CommandPlan,
        writes: Arc<WriteDesk>,
        desk: Option<Arc<Desk>>,
        audit: Arc<Audit>,
        answering: mpsc::Sender<Message>,
    ) -> Arc<Commands> {
        let allow = plan.allow.iter().map(|pattern| WildMatch::new(pattern)).collect();
        let bucket = Mutex::new(Bucket { credit: plan.rate.max(1.0), at: Instant::now() });
        let (seats, stats) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::default());
        Arc::new(Commands { plan, allow, writes, desk, audit, answering, seats, bucket, stats })
    }

    /// What is to be subscribed to.
    pub fn topics(&self) -> Vec<String> {
        let base = &self.plan.topic;
        let mut topics = vec![format!("{base}/write")];
        if self.plan.orders && self.desk.is_some() {
            topics.push(format!("{base}/order"));
        }
        topics
    }

    /// Where changes of an order's state are told, if orders are taken.
    pub fn order_topic(&self) -> Option<String> {
        (self.plan.orders && self.desk.is_some()).then(|| format!("{}/order/state", self.plan.topic))
    }

    /// Takes a message that came in. Does not wait for what comes of it.
    pub fn take(self: &Arc<Self>, message: Received) {
        let Some(kind) = message.topic.strip_prefix(self.plan.topic.as_str()) else { return };
        let is_order = match kind {
            "/write" => false,
            "/order" if self.plan.orders => true,
            _ => return,
        };
        self.stats.received.fetch_add(1, Relaxed);
        if message.retain {
            // It was said some time ago, to nobody in particular: a gateway that restarts must not obey it.
            self.stats.retained.fetch_add(1, Relaxed);
            static RETAINED: Shared<String> = Shared::new();
            if let Some(lasting) = RETAINED.is(message.topic.to_string()) {
                tracing::warn!("a retained command on {} is ignored{lasting}", message.topic);
            }
            return;
        }
        if message.payload.is_empty() {
            return; // how a retained message is taken back: nobody asks for anything
        }
        let commands = self.clone();
        match self.seats.clone().try_acquire_owned() {
            Ok(seat) => drop(tokio::spawn(async move {
                let answer = commands.obey(&message, is_order).await;
                commands.answer(&message, answer);
                drop(seat);
            })),
            Err(_) => {
                self.stats.refused.fetch_add(1, Relaxed);
                let text = outcome(None, "busy", Some(&format!("{AT_ONCE} commands are on their way already")));
                self.answer(&message, text);
            }
        }
    }

    /// Carries a command out and writes it down; what to answer.
    async fn obey(&self, message: &Received, is_order: bool) -> serde_json::Value {
        let asked = self.asked(message);
        let what = if is_order { ORDER } else { WRITE };
        let asked = match asked.and_then(|asked| self.not_too_many().map(|()| asked)) {
            Ok(asked) => asked,
            Err((verdict, why)) => {
                let (by, from) = (named(message, None), message.topic.to_string());
                let (key, tag) = readable(message);
                let did = Origin { via: "mqtt", by, from }.did(what, tag.as_deref().unwrap_or_default());
                self.refused(Did { key: key.clone(), ..did }, verdict, &why).await;
                let mut json = outcome(key.as_deref(), verdict, Some(&why));
                if let Some(tag) = tag {
                    json["tag"] = tag.into();
                }
                return json;
            }
        };
        let Asked { origin, key, mut rest } = asked;
        rest.insert("key".into(), key.as_str().into());
        let form = serde_json::Value::Object(rest);
        if is_order { self.order(origin, &key, form).await } else { self.write(origin, &key, form).await }
    }

    /// What a message asks for, if it asks properly and in time.
    fn asked(&self, message: &Received) -> Result<Asked, (&'static str, String)> {
        let envelope: Envelope = serde_json::from_slice(&message.payload)
            .map_err(|e| ("invalid", format!("this is no JSON object, as {{\"key\":\"..\", ..}}: {e}")))?;
        if message.expiry_s == Some(0) {
            return Err(("expired", "the message had expired when it came".into()));
        }
        if let Some(text) = &envelope.expires {
            let at = crate::clock::time_of(text)
                .ok_or_else(|| ("invalid", format!("expires: \"{text}\" is no time, as in 2026-11-24T22:00:00Z")))?;
            if at < std::time::SystemTime::now() {
                return Err(("expired", format!("it was to be begun before {text}")));
            }
        }
        let mut rest = envelope.rest;
        if let Some(s) = message.expiry_s {
            let most = u64::from(s).saturating_mul(1000);
            let given = rest.get("within_ms").and_then(serde_json::Value::as_u64).unwrap_or(1000);
            rest.insert("within_ms".into(), given.min(most).into());
        }
        let correlation = || {
            message.correlation.as_ref().map(|c| {
                c.iter().fold(String::new(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            })
        };
        let key = rest.get("key").and_then(|k| k.as_str().map(String::from)).or_else(correlation);
        let Some(key) = key.filter(|k| !k.is_empty()) else {
            let why = match rest.get("key") {
                Some(key) if !key.is_string() => "`key` has to be a text",
                _ => "a command over MQTT needs a `key`, or correlation data: it may come twice",
            };
            return Err(("invalid", why.into()));
        };
        let (by, from) = (named(message, envelope.by.as_deref()), message.topic.to_string());
        let origin = Origin { via: "mqtt", by, from };
        Ok(Asked { origin, key, rest })
    }

    fn not_too_many(&self) -> Result<(), (&'static str, String)> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rate = self.plan.rate;
        bucket.credit = (bucket.credit + (now - bucket.at).as_secs_f64() * rate).min(rate.max(1.0));
        bucket.at = now;
        if bucket.credit < 1.0 {
            self.stats.refused.fetch_add(1, Relaxed);
            return Err(("too_often", format!("this gateway takes {rate} commands a second")));
        }
        bucket.credit -= 1.0;
        Ok(())
    }

    fn allowed(&self, tag: &str) -> bool {
        self.allow.iter().any(|pattern| pattern.matches(tag))
    }

    async fn refused(&self, did: Did, outcome: &str, why: &str) {
        self.stats.refused.fetch_add(1, Relaxed);
        let did = Did { outcome: outcome.into(), reason: Some(said(why).to_string()), ..did };
        self.audit.command(did, false).await;
    }

    async fn write(&self, origin: Origin, key: &str, form: serde_json::Value) -> serde_json::Value {
        let form: WriteForm = match serde_json::from_value(form) {
            Ok(form) => form,
            Err(e) => {
                let why = e.to_string();
                let did = Did { key: Some(key.into()), ..origin.did(WRITE, "") };
                self.refused(did, "invalid", &why).await;
                return outcome(Some(key), "invalid", Some(&why));
            }
        };
        let view = self.write_form(origin, form).await;
        let mut json = serde_json::to_value(view).unwrap_or_default();
        json["key"] = key.into();
        json
    }

    /// A write that has passed the gate but for the list of allowed tags.
    async fn write_form(&self, origin: Origin, form: WriteForm) -> WriteView {
        if self.allowed(&form.tag) {
            return self.writes.write(form, origin).await;
        }
        let why = "`allow` of [mqtt.commands] does not name this tag";
        let did = Did { key: form.key, value: Some(form.value), ..origin.did(WRITE, &form.tag) };
        self.refused(did, "not_allowed", why).await;
        WriteView { tag: form.tag, outcome: "not_allowed", reason: Some(why.into()) }
    }

    /// A write that a Sparkplug host asks for: no answer but the value itself, when it is read back.
    pub fn sparkplug_write(self: &Arc<Self>, tag: String, value: serde_json::Value, by: String) {
        self.stats.received.fetch_add(1, Relaxed);
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            self.stats.refused.fetch_add(1, Relaxed);
            return;
        };
        let commands = self.clone();
        drop(tokio::spawn(async move {
            let origin = Origin { via: "sparkplug", from: by.clone(), by };
            let form = WriteForm { tag, value, within_ms: None, key: None };
            match commands.not_too_many() {
                Ok(()) => drop(commands.write_form(origin, form).await),
                Err((verdict, why)) => {
                    let did = Did { value: Some(form.value), ..origin.did(WRITE, &form.tag) };
                    commands.refused(did, verdict, &why).await;
                }
            }
            drop(seat);
        }));
    }

    async fn order(&self, origin: Origin, key: &str, form: serde_json::Value) -> serde_json::Value {
        let text = |name: &str| form.get(name).map(|v| v.to_string().replace('"', "")).unwrap_or_default();
        let target = format!("{} load {}", text("kind"), text("load"));
        let did = Did { key: Some(key.into()), value: Some(form.clone()), ..origin.did(ORDER, &target) };
        let form: Result<OrderForm, _> = serde_json::from_value(form);
        let (verdict, reason, view) = match (form, &self.desk) {
            (_, None) => ("not_allowed", Some("this gateway moves nothing".to_string()), None),
            (Err(e), _) => ("invalid", Some(e.to_string()), None),
            (Ok(_), Some(_)) if self.audit.may_command(did.clone()).await.is_err() => {
                ("busy", Some("the audit record is required, and cannot be written".into()), None)
            }
            (Ok(form), Some(desk)) => match desk.submit(form, ANSWER_LIMIT).await {
                Submitted::Order(view) => ("accepted", None, Some(view)),
                Submitted::Known(view) => ("known", None, Some(view)),
                Submitted::KeyTaken(clash) => ("invalid", Some(clash.to_string()), Some(clash.order)),
                Submitted::Refused(view) => ("refused", view.reason.as_deref().map(String::from), Some(view)),
                Submitted::Invalid(why) => ("invalid", Some(why), None),
                Submitted::Busy => ("busy", Some("too many orders at once; try again in a second".into()), None),
            },
        };
        let did = Did { outcome: verdict.into(), reason: reason.clone(), ..did };
        self.audit.command(did, matches!(verdict, "accepted" | "known")).await;
        let mut json = outcome(Some(key), verdict, reason.as_deref());
        if let Some(view) = view {
            json["order"] = serde_json::to_value(view).unwrap_or_default();
        }
        json
    }

    /// Where an answer may go: anywhere but into what is ours.
    fn reply_topic(&self, message: &Received) -> String {
        let usual = || format!("{}/reply", message.topic);
        let Some(topic) = &message.response_topic else { return usual() };
        let is_topic = !topic.is_empty() && !topic.contains(['+', '#', '\0']) && !topic.starts_with('$');
        let is_ours = |own: &String| topic.starts_with(own.as_str());
        if is_topic && !self.plan.own.iter().any(is_ours) { topic.clone() } else { usual() }
    }

    fn answer(&self, message: &Received, answer: serde_json::Value) {
        let properties = Properties {
            content_type: Some("application/json"),
            correlation: message.correlation.clone(),
            ..Properties::default()
        };
        let (topic, payload) = (self.reply_topic(message), answer.to_string().into_bytes());
        // Without a connection nobody waits for the answer: who asks again with the key hears it then.
        let _ = self.answering.try_send(Message { topic, payload, retain: false, properties });
    }
}

/// Who says to have sent it: a user property, or a key of the payload. Nobody has checked that.
fn named(message: &Received, by: Option<&str>) -> String {
    let property = message.user.iter().find(|(name, _)| name == "by").map(|(_, value)| value.as_str());
    let name = property.or(by).unwrap_or(&message.topic);
    name.chars().filter(|c| !c.is_control()).take(BY_MAX).collect()
}

/// Key and tag of a command that is refused, as far as they can be read: whoever waits for the answer knows it by them.
fn readable(message: &Received) -> (Option<String>, Option<String>) {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(|v| v.as_str()).filter(|t| t.len() <= ECHO_MAX).map(String::from);
    (text("key"), text("tag"))
}

fn outcome(key: Option<&str>, outcome: &str, reason: Option<&str>) -> serde_json::Value {
    let mut json = serde_json::json!({ "outcome": outcome });
    if let Some(key) = key {
        json["key"] = key.into();
    }
    if let Some(reason) = reason {
        json["reason"] = said(reason).to_string().into();
    }
    json
}
