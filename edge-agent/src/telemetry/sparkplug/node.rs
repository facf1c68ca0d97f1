//! The edge node: what is said over a connection, and when (Sparkplug 3.0.0, chapters 5 and 6).
//!
//! ```text
//!   CONNECT (will: NDEATH, bdSeq + 1) ──> Waiting ──STATE online, or no primary host──> Born ──> NDATA, DDATA
//!                                           ^                                            │ STATE offline: NDEATH, DISCONNECT,
//!                                           └───────────── next broker <─────────────────┘ the next broker
//!   Born:  NBIRTH (seq 0, with the alarms and the templates), a DBIRTH for every device that answers, then data;
//!          a device comes: DBIRTH; goes: DDEATH; a host asks for a rebirth: all births again, bdSeq stays
//! ```
//!
//! Data of the spool that was promised before the birth is historical. Data goes out at QoS 0, as the specification wants it, and is done
//! when the broker has answered a ping that followed it.

use super::alarms::Standing;
use super::hub::{Hub, Known, readings};
use super::payload::{DataType, Metric, MetricValue, Payload, metric_value, quality, quality_property, wanted};
use crate::alarms::AlarmDesk;
use crate::commands::Commands;
use crate::telemetry::Spool;
use crate::telemetry::mqtt::Out;
use crate::telemetry::mqtt::face::{Face, Sending};
use crate::telemetry::mqtt::wire::{Message, Received, Version};
use crate::telemetry::spool::record::Record;
use crate::telemetry::spool::{Kind, Reason, STREAMS, Stream};
use crate::trouble::Shared;
use device_drivers::value::wall_clock_ms;
use prost::Message as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Aliases below this are the node's own.
pub const FIRST_DEVICE_ALIAS: u64 = 16;
/// Births at the wish of hosts: one in so long. A host that has lost its memory asks again and again.
const REBIRTH_EVERY: Duration = Duration::from_secs(2);
/// A device that does not answer, and that was born for the sake of what waited, is dead again after this long without any.
const LINGER: Duration = Duration::from_secs(5);
const REBIRTH: &str = "Node Control/Rebirth";

/// Who an edge node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Group id.
    pub group: String,
    /// Edge node id.
    pub node: String,
    /// Primary host: without its word nothing is published.
    pub primary_host: Option<String>,
    /// There are other brokers, at one of which the primary host may be.
    pub has_others: bool,
    /// Whether the alarms that stand are told, as a DataSet.
    pub alarms: bool,
    /// Whether devices are instances of templates, one for each profile.
    pub templates: bool,
    /// Where bdSeq is remembered; `None`: it begins at 0 each time.
    pub memory: Option<PathBuf>,
}

/// What a node is doing on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Born,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    is_born: bool,
    /// Its birth is larger than the broker takes: nothing of it can be sent, as nobody would know what it is.
    is_barred: bool,
    /// Data wants to be sent although the device is not born.
    wants_birth: bool,
    last_data: Option<Instant>,
    /// Sequences below were promised before its birth, stream by stream.
    historical: [u64; 3],
}

/// The edge node.
pub struct Node {
    plan: NodePlan,
    version: Version,
    hub: Arc<Hub>,
    spool: Arc<Spool>,
    commands: Option<Arc<Commands>>,
    alarms: Option<Standing>,
    state: State,
    /// That of the present connection.
    bd_seq: u64,
    next_bd_seq: u64,
    seq: u8,
    told: Vec<Told>,
    /// What NDATA said last: devices that are born, values lost.
    figures: Option<(u64, u64)>,
    /// Newest time of a STATE.
    host_time: Option<u64>,
    last_birth: Option<Instant>,
    rebirth: bool,
}

impl Node {
    /// A node that is not connected.
    pub fn new(
        plan: NodePlan,
        version: Version,
        hub: Arc<Hub>,
        spool: Arc<Spool>,
        commands: Option<Arc<Commands>>,
        alarms: &Arc<AlarmDesk>,
    ) -> Node {
        let read = |path: &PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let last = plan.memory.as_ref().and_then(read);
        let told = vec![Told::default(); hub.known().devices.len()];
        let alarms = plan.alarms.then(|| Standing::new(alarms.clone()));
        Node {
            plan,
            version,
            hub,
            spool,
            commands,
            alarms,
            state: State::Waiting,
            bd_seq: 0,
            next_bd_seq: last.map_or(0, |n| (n + 1) % 256),
            seq: 0,
            told,
            figures: None,
            host_time: None,
            last_birth: None,
            rebirth: false,
        }
    }

    fn topic(&self, kind: &str, device: Option<&str>) -> String {
        let NodePlan { group, node, .. } = &self.plan;
        match device {
            Some(device) => format!("spBv1.0/{group}/{kind}/{node}/{device}"),
            None => format!("spBv1.0/{group}/{kind}/{node}"),
        }
    }

    fn message(&mut self, kind: &str, device: Option<&str>, metrics: Vec<Metric>) -> Message {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let timestamp = Some(wall_clock_ms());
        let payload = Payload { timestamp, metrics, seq: Some(u64::from(seq)), ..Payload::default() };
        Message { topic: self.topic(kind, device), payload: payload.encode_to_vec(), ..Message::default() }
    }

    fn bd_seq_metric(&self, alias: Option<u64>) -> Metric {
        Metric {
            name: Some("bdSeq".into()),
            alias,
            timestamp: Some(wall_clock_ms()),
            datatype: Some(DataType::Int64 as u32),
            value: Some(MetricValue::Long(self.bd_seq)),
            ..Metric::default()
        }
    }

    /// NDEATH; `at_ms` when it is said now. A will is said by the broker, nobody here knows when: with the time of its making it would be
    /// older than the birth, and who orders by time would keep the node alive. It belongs to the birth with the same bdSeq.
    fn death(&self, at_ms: Option<u64>) -> Message {
        let metrics = vec![Metric { timestamp: at_ms, ..self.bd_seq_metric(None) }];
        let payload = Payload { timestamp: at_ms, metrics, ..Payload::default() };
        Message { topic: self.topic("NDEATH", None), payload: payload.encode_to_vec(), ..Message::default() }
    }

    /// The node's own figures: devices online, values lost.
    fn own(&self) -> (u64, u64) {
        let online = self.told.iter().filter(|t| t.is_born).count() as u64;
        (online, self.spool.stats.lost.values())
    }

    /// Those figures as metrics: all of them, or those that have changed.
    fn own_metrics((online, lost): (u64, u64), before: Option<(u64, u64)>) -> Vec<Metric> {
        let in_birth = before.is_none();
        let metric = |name: &str, alias, value| Metric {
            name: in_birth.then(|| name.into()),
            alias: Some(alias),
            timestamp: Some(wall_clock_ms()),
            datatype: in_birth.then_some(DataType::UInt64 as u32),
            value: Some(MetricValue::Long(value)),
            ..Metric::default()
        };
        let changed = |now, then: fn((u64, u64)) -> u64| before.is_none_or(|before| now != then(before));
        let online = changed(online, |b| b.0).then(|| metric("Devices/Online", 1, online));
        let lost = changed(lost, |b| b.1).then(|| metric("Spool/Values Lost", 2, lost));
        online.into_iter().chain(lost).collect()
    }

    /// NBIRTH, and a DBIRTH for every device that answers.
    fn give_birth(&mut self, out: &mut Out<'_>) {
        (self.seq, self.rebirth, self.last_birth) = (0, false, Some(Instant::now()));
        self.told.iter_mut().for_each(|t| *t = Told::default());
        let figures = self.own();
        self.figures = Some(figures);
        let now = wall_clock_ms();
        let mut metrics = vec![
            self.bd_seq_metric(Some(0)),
            Metric {
                name: Some(REBIRTH.into()),
                timestamp: Some(now),
                datatype: Some(DataType::Boolean as u32),
                value: Some(MetricValue::Boolean(false)),
                ..Metric::default()
            },
            Metric {
                name: Some("Properties/Version".into()),
                alias: Some(3),
                timestamp: Some(now),
                datatype: Some(DataType::Text as u32),
                value: Some(MetricValue::Text(env!("CARGO_PKG_VERSION").into())),
                ..Metric::default()
            },
        ];
        metrics.extend(Node::own_metrics(figures, None));
        metrics.extend(self.alarms.as_mut().map_or_else(Vec::new, Standing::birth));
        for profile in &mut self.hub.known().profiles {
            profile.has_changed = false;
            metrics.push(profile.definition(now));
        }
        let birth = self.message("NBIRTH", None, metrics);
        if let Err(why) = out.mention(birth) {
            return tracing::error!(
                "the birth of this edge node has {} bytes, and the broker takes {}: nothing is published and all waits; are `templates` and \
                 `alarms` of [mqtt.sparkplug] wanted?",
                why.size,
                why.max
            );
        }
        self.state = State::Born;
        self.tend_devices(out);
    }

    /// Births and deaths of devices that are due.
    fn tend_devices(&mut self, out: &mut Out<'_>) {
        let now = Instant::now();
        let mut due: Vec<(usize, Arc<str>, Option<Vec<Metric>>)> = Vec::new();
        let hub = self.hub.clone();
        let mut known = hub.known();
        if known.profiles.iter().any(|p| p.has_changed) {
            self.rebirth = true; // definitions are told in the NBIRTH alone
            return;
        }
        let Known { devices, profiles } = &mut *known;
        for (n, device) in devices.iter_mut().enumerate() {
            let Some(told) = self.told.get_mut(n) else { continue };
            let recent = told.last_data.is_some_and(|at| now < at + LINGER);
            let is_due = !told.is_born && !told.is_barred && (device.is_ready(now) || told.wants_birth);
            if is_due || (told.is_born || told.is_barred) && std::mem::take(&mut device.has_changed) {
                device.has_changed = false;
                let historical = STREAMS.map(|stream| self.spool.next_sequence(stream));
                let last_data = told.wants_birth.then_some(now);
                *told = Told { is_born: true, last_data, historical, ..Told::default() };
                due.push((n, device.name.clone(), Some(device.birth(profiles))));
            } else if told.is_born && !device.is_alive() && !recent {
                *told = Told::default();
                due.push((n, device.name.clone(), None));
            }
        }
        drop(known);
        for (n, name, birth) in due {
            let message = match birth {
                Some(metrics) => self.message("DBIRTH", Some(&name), metrics),
                None => self.message("DDEATH", Some(&name), Vec::new()),
            };
            let Err(why) = out.mention(message) else { continue };
            // Nobody has heard of it: its number is that of the next, and what it would have made known stays unknown.
            self.seq = self.seq.wrapping_sub(1);
            self.told.get_mut(n).into_iter().for_each(|told| *told = Told { is_barred: true, ..Told::default() });
            static BARRED: Shared<String> = Shared::new();
            if let Some(lasting) = BARRED.is(format!("{name}: {}", why.size)) {
                tracing::error!(
                    "the birth of {name} has {} bytes, and the broker takes {}: its values cannot be sent, and are lost{lasting}; allow larger \
                     packets at the broker, or make several devices of it",
                    why.size,
                    why.max
                );
            }
        }
    }

    /// A record of the spool as DDATA.
    fn data(&mut self, stream: Stream, record: &Record<'_>) -> Option<Sending> {
        let hub = self.hub.clone();
        let known = hub.known();
        let Some((n, device)) = known.devices.iter().enumerate().find(|(_, d)| &*d.name == record.topic) else {
            return Some(Sending::Nothing); // no longer part of this gateway
        };
        let told = self.told.get_mut(n)?;
        if told.is_barred {
            return Some(Sending::Lost(Reason::TooLarge));
        }
        if !told.is_born {
            // What only says that the device has gone is said by its death.
            if !device.is_alive() && readings(record.payload).all(|r| r.quality == quality::BAD) {
                return Some(Sending::Nothing);
            }
            // A device that has come up is born when its values are together; for one that is away, now.
            if !device.is_alive() && !std::mem::replace(&mut told.wants_birth, true) {
                hub.nudge.notify_one();
            }
            return None;
        }
        let is_historical = told.historical.get(stream as usize).is_some_and(|split| record.sequence < *split);
        if !device.is_alive() {
            told.last_data = Some(Instant::now());
        }
        if device.has_changed {
            return None; // born again first
        }
        let mut metrics = Vec::new();
        for reading in readings(record.payload) {
            let Some((tag, alias)) = device.tag(reading.tag) else { continue };
            if !is_historical && tag.was_born_with(&reading) {
                continue;
            }
            let is_member = alias.is_none();
            let value = reading.value.as_ref().and_then(|value| metric_value(value, tag.datatype));
            metrics.push(Metric {
                name: is_member.then(|| reading.tag.into()),
                alias,
                timestamp: Some(reading.source_ms),
                datatype: is_member.then_some(tag.datatype as u32),
                is_historical: is_historical.then_some(true),
                is_null: value.is_none().then_some(true),
                properties: (reading.quality != quality::GOOD).then(|| quality_property(reading.quality)),
                value,
                ..Metric::default()
            });
        }
        let (name, metrics) = (device.name.clone(), device.gather(metrics, false));
        drop(known);
        if metrics.is_empty() {
            return Some(Sending::Nothing);
        }
        Some(Sending::Pinged(self.message("DDATA", Some(&name), metrics)))
    }

    /// Remembers bdSeq before anybody hears of it.
    fn remember(&self) {
        let Some(path) = &self.plan.memory else { return };
        if let Err(e) = crate::state::replace(
            path,
            format!(
                "{}
",
                self.bd_seq
            )
            .as_bytes(),
        ) {
            tracing::warn!("bdSeq cannot be kept in {}: {e}; after a restart it begins anew", path.display());
        }
    }

    /// The word of the primary host: online or offline, and when; `None` when it is not that.
    fn host_state(&mut self, message: &Received) -> Option<bool> {
        let host = self.plan.primary_host.as_ref()?;
        if message.topic == format!("spBv1.0/STATE/{host}") {
            let json: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
            let (online, time) = (json["online"].as_bool()?, json["timestamp"].as_u64()?);
            if self.host_time.is_some_and(|last| time < last) {
                return None; // said before what we know already
            }
            self.host_time = Some(time);
            return Some(online);
        }
        // The older form has no time: whoever speaks the newer one is not listened to in the older.
        if message.topic == format!("STATE/{host}") && self.host_time.is_none() {
            return match &*message.payload {
                b"ONLINE" => Some(true),
                b"OFFLINE" => Some(false),
                _ => None,
            };
        }
        None
    }

    fn command(&mut self, message: &Received, out: &mut Out<'_>) {
        if message.retain {
            return;
        }
        let Ok(payload) = Payload::decode(&message.payload[..]) else {
            static ALIEN: Shared<String> = Shared::new();
            if let Some(lasting) = ALIEN.is(message.topic.to_string()) {
                tracing::warn!("a command on {} is no Sparkplug payload{lasting}", message.topic);
            }
            return;
        };
        if message.topic == self.topic("NCMD", None) {
            let wants = |m: &Metric| m.name.as_deref() == Some(REBIRTH) && m.value == Some(MetricValue::Boolean(true));
            if payload.metrics.iter().any(wants) && self.state == State::Born {
                self.rebirth = true;
                self.look(out);
            }
            return;
        }
        let prefix = self.topic("DCMD", Some(""));
        let Some(name) = message.topic.strip_prefix(&prefix) else { return };
        let Some(commands) = &self.commands else {
            static UNWANTED: Shared<String> = Shared::new();
            if let Some(lasting) = UNWANTED.is(name.to_string()) {
                tracing::warn!("a host wants to write to {name}: [mqtt.commands] allows nothing{lasting}");
            }
            return;
        };
        let known = self.hub.known();
        let Some(device) = known.devices.iter().find(|d| &*d.name == name) else { return };
        for (tag, value) in payload.metrics.iter().flat_map(|metric| device.asked(metric)) {
            if let Some(value) = wanted(value, tag.datatype) {
                commands.sparkplug_write(format!("{name}/{}", tag.name), value, message.topic.clone());
            }
        }
    }
}

impl Face for Node {
    fn will(&mut self) -> Message {
        self.bd_seq = self.next_bd_seq;
        self.next_bd_seq = (self.bd_seq + 1) % 256;
        self.remember();
        (self.state, self.host_time, self.rebirth) = (State::Waiting, None, false);
        self.death(None)
    }

    fn subscriptions(&self) -> (Vec<String>, bool) {
        let mut filters = vec![self.topic("NCMD", None)];
        let known = self.hub.known();
        let writable = known.devices.iter().filter(|d| d.tags.iter().any(|t| t.writable));
        filters.extend(writable.map(|d| self.topic("DCMD", Some(&d.name))));
        if let Some(host) = &self.plan.primary_host {
            filters.extend([format!("spBv1.0/STATE/{host}"), format!("STATE/{host}")]);
        }
        (filters, self.plan.primary_host.is_some())
    }

    fn connected(&mut self, out: &mut Out<'_>) {
        if self.plan.primary_host.is_none() {
            self.give_birth(out);
        }
    }

    fn sending(&mut self, stream: Stream, record: &Record<'_>) -> Option<Sending> {
        match record.kind {
            _ if self.state == State::Waiting || self.rebirth => None,
            Kind::Sparkplug => self.data(stream, record),
            // A loss shows in the node's own figure; messages of a run without Sparkplug have no place here.
            _ => Some(Sending::Nothing),
        }
    }

    fn received(&mut self, message: Received, out: &mut Out<'_>) {
        match self.host_state(&message) {
            Some(true) if self.state == State::Waiting => self.give_birth(out),
            Some(false) if self.state == State::Born => out.leave = Some("the primary host is offline".into()),
            Some(false) if self.plan.has_others => out.leave = Some("the primary host is offline here".into()),
            // It will say so here when it comes back: there is nothing to be had from going and coming.
            Some(_) => {}
            None => self.command(&message, out),
        }
    }

    fn look(&mut self, out: &mut Out<'_>) {
        if self.state != State::Born {
            return;
        }
        if self.rebirth {
            if self.last_birth.is_none_or(|at| at.elapsed() >= REBIRTH_EVERY) {
                self.give_birth(out);
            }
            return;
        }
        self.tend_devices(out);
        let figures = self.own();
        let mut metrics = Node::own_metrics(figures, Some(self.figures.replace(figures).unwrap_or_default()));
        metrics.extend(self.alarms.as_mut().map_or_else(Vec::new, Standing::news));
        if !metrics.is_empty() {
            let message = self.message("NDATA", None, metrics);
            if out.mention(message).is_err() {
                self.seq = self.seq.wrapping_sub(1); // a list of alarms that is too long; the next change says it again
            }
        }
    }

    /// A number of `seq` is missing now: a host would ask for a rebirth anyway.
    fn dropped(&mut self) {
        self.rebirth |= self.state == State::Born;
    }

    fn nudge(&self) -> Arc<Notify> {
        self.hub.nudge.clone()
    }

    fn look_every(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn farewell(&mut self) -> (Option<Message>, bool) {
        let death = (self.state == State::Born).then(|| self.death(Some(wall_clock_ms())));
        self.state = State::Waiting;
        // Who was not born does not die.
        let with_will = death.is_some() && self.version == Version::V5;
        (death, with_will)
    }
}
