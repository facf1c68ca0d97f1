//! The rules that judge the assertions: each looks at everything that was on the wire.

#[path = "complex.rs"]
mod complex;
#[path = "stories.rs"]
mod stories;

use crate::wire_broker::{Entry, Event, Said};
use edge_agent::telemetry::sparkplug::payload::{Metric, MetricValue, Payload};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Pass,
    Fail(String),
    NotExercised(String),
}
use Verdict::{Fail, NotExercised, Pass};

/// What one agent lived through.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) version: u8,
    pub(crate) primary_host: Option<&'static str>,
    pub(crate) entries: Vec<Entry>,
}

/// A Sparkplug message of a scene.
#[derive(Clone)]
struct Msg {
    at: usize,
    at_ms: u64,
    session: (usize, usize),
    kind: String,
    node: String,
    device: Option<String>,
    said: Said,
    payload: Payload,
}

pub(crate) struct World {
    scenes: Vec<(Scene, Vec<Msg>)>,
    undecoded: Vec<String>,
}

fn text(topic: &[u8]) -> String {
    String::from_utf8_lossy(topic).into_owned()
}

impl World {
    pub(crate) fn new(scenes: Vec<Scene>) -> World {
        let mut undecoded = Vec::new();
        let mut parse = |scene: &Scene| {
            let mut all = Vec::new();
            for (at, entry) in scene.entries.iter().enumerate() {
                let Event::Publish(said) = &entry.event else { continue };
                let topic = text(&said.topic);
                let levels: Vec<&str> = topic.split('/').collect();
                let Ok(payload) = Payload::decode(&said.payload[..]) else {
                    undecoded.push(topic.clone());
                    continue;
                };
                all.push(Msg {
                    at,
                    at_ms: entry.at_ms,
                    session: (entry.broker, entry.connection),
                    kind: levels.get(2).unwrap_or(&"").to_string(),
                    node: levels.get(3).unwrap_or(&"").to_string(),
                    device: levels.get(4).map(|d| d.to_string()),
                    said: said.clone(),
                    payload,
                });
            }
            all
        };
        let scenes = scenes
            .into_iter()
            .map(|scene| {
                let all = parse(&scene);
                (scene, all)
            })
            .collect();
        World { scenes, undecoded }
    }

    fn msgs(&self) -> impl Iterator<Item = &Msg> {
        self.scenes.iter().flat_map(|(_, msgs)| msgs)
    }

    /// Whether something holds for all messages of a kind, of which there have to be some.
    fn each(&self, kinds: &[&str], holds: impl Fn(&Msg) -> bool) -> Verdict {
        let mut some = false;
        for msg in self.msgs().filter(|m| kinds.is_empty() || kinds.contains(&m.kind.as_str())) {
            some = true;
            if !holds(msg) {
                return Fail(format!("{} at {}: {:?}", msg.kind, msg.at, msg.payload));
            }
        }
        if some { Pass } else { NotExercised(format!("no {kinds:?}")) }
    }

    fn metrics(&self, kinds: &[&str], holds: impl Fn(&Metric) -> bool) -> Verdict {
        self.each(kinds, |msg| msg.payload.metrics.iter().all(&holds))
    }

    fn connects(&self, holds: impl Fn(u8, bool, Option<u32>, Option<&Said>) -> bool) -> Verdict {
        let mut some = false;
        for entry in self.scenes.iter().flat_map(|(s, _)| &s.entries) {
            let Event::Connect { version, clean, expiry, will, .. } = &entry.event else { continue };
            some = true;
            if !holds(*version, *clean, *expiry, will.as_ref()) {
                return Fail(format!("{:?}", entry.event));
            }
        }
        if some { Pass } else { NotExercised("no CONNECT".into()) }
    }

    /// Messages of one session after another.
    fn sessions(&self) -> Vec<(&Scene, Vec<&Msg>)> {
        let mut all = Vec::new();
        for (scene, msgs) in &self.scenes {
            let mut by: BTreeMap<(usize, usize), Vec<&Msg>> = BTreeMap::new();
            msgs.iter().for_each(|m| by.entry(m.session).or_default().push(m));
            all.extend(by.into_values().map(|m| (scene, m)));
        }
        all
    }

    fn each_session(&self, holds: impl Fn(&[&Msg]) -> Result<(), String>) -> Verdict {
        let sessions = self.sessions();
        for (scene, msgs) in &sessions {
            if let Err(why) = holds(msgs) {
                return Fail(format!("{}, session {:?}: {why}", scene.name, msgs[0].session));
            }
        }
        if sessions.is_empty() { NotExercised("no session".into()) } else { Pass }
    }

    fn will_of(&self, scene: &Scene, session: (usize, usize)) -> Option<Payload> {
        scene.entries.iter().find_map(|e| match &e.event {
            Event::Connect { will: Some(will), .. } if (e.broker, e.connection) == session => {
                Payload::decode(&will.payload[..]).ok()
            }
            _ => None,
        })
    }

    fn with_host(&self) -> &Scene {
        &self.scenes.iter().find(|(s, _)| s.primary_host.is_some()).unwrap().0
    }

    pub(crate) fn judge(&self, rule: &str) -> Verdict {
        let (rule, kind) = rule.split_once(':').unwrap_or((rule, ""));
        match rule {
            "data-set" => self.data_sets(kind),
            "template" => self.template(kind),
            "group-level" => self.each(&[], |m| level_is_good(&m.said.topic, 1)),
            "node-level" => self.each(&[], |m| level_is_good(&m.said.topic, 3)),
            "device-level" => self.each(&["DBIRTH", "DDATA", "DDEATH"], |m| level_is_good(&m.said.topic, 4)),
            "namespace" => self.each(&[], |m| m.said.topic.starts_with(b"spBv1.0/")),
            "topic-shape" | "five-levels" | "four-levels" => self.each(&[], |m| {
                let levels = text(&m.said.topic).split('/').count();
                levels == if m.kind.starts_with('D') { 5 } else { 4 }
            }),
            "topic" => self.each(&[kind], |m| {
                let device = if kind.starts_with('D') { m.device.is_some() } else { m.device.is_none() };
                device && m.node.starts_with("gw") && text(&m.said.topic).starts_with("spBv1.0/plant/")
            }),
            "one-client" => self.one_client(),
            "device-once" => self.device_once(),
            "device-elsewhere" => {
                let nodes: BTreeSet<_> =
                    self.msgs().filter(|m| m.kind == "DBIRTH").map(|m| (m.device.clone(), m.node.clone())).collect();
                let both = |n: &str| nodes.contains(&(Some("m1".into()), n.into()));
                if both("gw") && both("gw2") { Pass } else { NotExercised("one node only".into()) }
            }
            "ids-by-case" => {
                let ids: BTreeSet<String> = self.msgs().filter_map(|m| m.device.clone()).collect();
                let lower: BTreeSet<String> = ids.iter().map(|i| i.to_lowercase()).collect();
                if ids.len() == lower.len() { Pass } else { Fail(format!("{ids:?}")) }
            }
            "names-by-case" => self.each(&["NBIRTH", "DBIRTH"], |m| {
                let names: Vec<String> = m.payload.metrics.iter().filter_map(|m| m.name.clone()).collect();
                let lower: BTreeSet<String> = names.iter().map(|n| n.to_lowercase()).collect();
                lower.len() == names.len()
            }),
            "qos-0" => self.each(&[kind], |m| m.said.qos == 0 && !m.said.retain),
            "timestamp" => self.each(&[kind], |m| m.payload.timestamp.is_some()),
            "utc" if kind == "payload" => self.each(&[], |m| m.payload.timestamp.unwrap_or(0).abs_diff(m.at_ms) < 5000),
            "utc" => self.metrics(&["DDATA"], |m| m.timestamp.is_some_and(|t| t > 1_600_000_000_000)),
            "decodes" => match self.undecoded.first() {
                Some(topic) => Fail(format!("{topic} does not decode")),
                None => self.each(&[kind], |m| !m.payload.metrics.is_empty()),
            },
            _ => self.judge_sessions(rule, kind),
        }
    }

    fn judge_sessions(&self, rule: &str, kind: &str) -> Verdict {
        match rule {
            "birth-first" | "inside-session" => self.each_session(|msgs| match msgs.first() {
                Some(first) if first.kind == "NBIRTH" => Ok(()),
                other => Err(format!("first is {:?}", other.map(|m| &m.kind))),
            }),
            "nbirth-seq-0" => self.each(&["NBIRTH"], |m| m.payload.seq == Some(0)),
            "seq-counts" | "seq-always" => self.each_session(seq_counts).and(self.each(
                if kind.is_empty() {
                    &["NBIRTH", "DBIRTH", "DDATA", "NDATA", "DDEATH"]
                } else {
                    std::slice::from_ref(&kind)
                },
                |m| m.payload.seq.is_some_and(|s| s <= 255),
            )),
            "seq-wraps" => {
                let longest = self.sessions().iter().map(|(_, m)| m.len()).max().unwrap_or(0);
                if longest < 300 {
                    return NotExercised(format!("{longest} messages in a session"));
                }
                self.each_session(seq_counts)
            }
            "ndeath-no-seq" => self.each(&["NDEATH"], |m| m.payload.seq.is_none()).and(self.wills(|p| p.seq.is_none())),
            "ndeath-one-metric" => {
                let one = |p: &Payload| p.metrics.len() == 1 && p.metrics[0].name.as_deref() == Some("bdSeq");
                self.each(&["NDEATH"], |m| one(&m.payload)).and(self.wills(one))
            }
            "will-there" => self.connects(|_, _, _, will| will.is_some()),
            "will-topic" => {
                self.connects(|_, _, _, w| w.is_some_and(|w| text(&w.topic).starts_with("spBv1.0/plant/NDEATH/gw")))
            }
            "will-qos" => self.connects(|_, _, _, will| will.is_some_and(|w| w.qos == 1)),
            "will-retain" => self.connects(|_, _, _, will| will.is_some_and(|w| !w.retain)),
            // Without a time: who orders by it would take a will, made before its birth, for older than that.
            "will-payload" => self.wills(|p| p.timestamp.is_none() && bd_seq(p).is_some()),
            "clean-311" => self.connects(|version, clean, _, _| version == 5 || clean),
            "clean-5" => self.connects(|version, clean, expiry, _| version == 4 || clean && expiry.unwrap_or(0) == 0),
            "bdseq-there" => self.each(&["NBIRTH"], |m| bd_seq(&m.payload).is_some()),
            "bdseq-matches" => self.bdseq_matches(),
            "bdseq-counts" => self.bdseq_counts(),
            "ncmd-subscribed" => self.subscribed("NCMD/gw"),
            "dcmd-subscribed" => self.subscribed("DCMD/gw/m1"),
            "state-subscribed" => self.subscribed("STATE/scada"),
            "dbirth-after-nbirth" | "births-before-data" => self.each_session(births_before_data),
            "dbirth-same-node" => self.each_session(|msgs| {
                let nodes: BTreeSet<_> = msgs.iter().map(|m| &m.node).collect();
                if nodes.len() == 1 { Ok(()) } else { Err(format!("{nodes:?}")) }
            }),
            "nbirth-lists-all" => self.each_session(|msgs| lists_all(msgs, "NBIRTH", "NDATA")),
            "dbirth-lists-all" => self.each_session(|msgs| lists_all(msgs, "DBIRTH", "DDATA")),
            "only-changes" => self.each(&[kind], |_| true).and(self.each_session(|msgs| only_changes(msgs, kind))),
            "by-exception" => self.each_session(by_exception),
            _ => self.judge_metrics(rule),
        }
    }

    fn judge_metrics(&self, rule: &str) -> Verdict {
        let births = ["NBIRTH", "DBIRTH"];
        let data = ["NDATA", "DDATA"];
        let all = ["NBIRTH", "DBIRTH", "NDATA", "DDATA"];
        let rebirth = |m: &&Metric| m.name.as_deref() == Some("Node Control/Rebirth");
        match rule {
            "birth-metrics" => self.metrics(&births, |m| m.name.is_some() && m.datatype.is_some() && value_or_null(m)),
            "value-or-null" => self.metrics(&births, value_or_null),
            "in-time-order" => self.each(&all, |msg| {
                let mut last: BTreeMap<u64, u64> = BTreeMap::new();
                msg.payload.metrics.iter().filter(|m| m.is_historical != Some(true)).all(|m| {
                    let (alias, time) = (m.alias.unwrap_or(u64::MAX), m.timestamp.unwrap_or(0));
                    last.insert(alias, time).is_none_or(|before| before <= time)
                })
            }),
            "rebirth-metric" => self.each(&["NBIRTH"], |m| {
                m.payload
                    .metrics
                    .iter()
                    .find(rebirth)
                    .is_some_and(|m| m.datatype == Some(11) && m.value == Some(MetricValue::Boolean(false)))
            }),
            "rebirth-no-alias" => {
                self.each(&["NBIRTH"], |m| m.payload.metrics.iter().find(rebirth).is_some_and(|m| m.alias.is_none()))
            }
            "alias-once" => self.each_session(|msgs| {
                let mut known: BTreeMap<u64, (Option<String>, String)> = BTreeMap::new();
                for msg in msgs.iter().filter(|m| m.kind.ends_with("BIRTH")) {
                    for metric in &msg.payload.metrics {
                        let (Some(alias), Some(name)) = (metric.alias, metric.name.clone()) else { continue };
                        let this = (msg.device.clone(), name);
                        if known.insert(alias, this.clone()).is_some_and(|other| other != this) {
                            return Err(format!("alias {alias} twice"));
                        }
                    }
                }
                Ok(())
            }),
            "alias-in-births" => self.metrics(&births, |m| m.name.is_some() && (m.alias.is_some() || rebirth(&m))),
            "alias-in-data" => self.metrics(&data, |m| m.name.is_none() && m.alias.is_some()),
            "name-or-alias" => self.metrics(&all, |m| m.name.is_some() || m.alias.is_some()),
            "metric-timestamp" => self.metrics(&all, |m| m.timestamp.is_some()),
            "datatype-known" => self.metrics(&all, |m| m.datatype.is_none_or(|d| (1..=34).contains(&d))),
            "datatype-in-births" => self.metrics(&births, |m| m.datatype.is_some()),
            "no-datatype-in-data" => self.metrics(&data, |m| m.datatype.is_none()),
            "properties" | "quality" => {
                let seen = self.msgs().flat_map(|m| &m.payload.metrics).any(|m| m.properties.is_some());
                if !seen {
                    return NotExercised("no properties".into());
                }
                self.metrics(&all, |m| {
                    m.properties.as_ref().is_none_or(|set| {
                        let good =
                            |(key, value): (&String, &edge_agent::telemetry::sparkplug::payload::PropertyValue)| {
                                key != "Quality"
                                    || value.kind == Some(3) && matches!(value.int_value, Some(0 | 192 | 500))
                            };
                        set.keys.len() == set.values.len()
                            && set.values.iter().all(|v| v.kind.is_some_and(|k| (1..=34).contains(&k)))
                            && set.keys.iter().zip(&set.values).all(good)
                    })
                })
            }
            _ => self.judge_stories(rule),
        }
    }
}

impl Verdict {
    fn and(self, other: Verdict) -> Verdict {
        if self == Pass { other } else { self }
    }
}

fn level_is_good(topic: &[u8], n: usize) -> bool {
    let level = topic.split(|b| *b == b'/').nth(n).unwrap_or_default();
    std::str::from_utf8(level).is_ok_and(|l| !l.is_empty() && !l.contains(['+', '#', '\0']))
}

fn bd_seq(payload: &Payload) -> Option<u64> {
    let metric = payload.metrics.iter().find(|m| m.name.as_deref() == Some("bdSeq"))?;
    match metric.value {
        Some(MetricValue::Long(n)) if metric.datatype == Some(4) => Some(n),
        _ => None,
    }
}

fn value_or_null(m: &Metric) -> bool {
    m.value.is_some() != (m.is_null == Some(true))
}

fn seq_counts(msgs: &[&Msg]) -> Result<(), String> {
    let mut last: Option<u64> = None;
    for msg in msgs.iter().filter(|m| m.kind != "NDEATH") {
        let seq = msg.payload.seq.ok_or_else(|| format!("{} without seq", msg.kind))?;
        let expected = if msg.kind == "NBIRTH" { Some(0) } else { last.map(|l| (l + 1) % 256) };
        if expected.is_some_and(|e| e != seq) {
            return Err(format!("{} has {seq}, expected {expected:?}", msg.kind));
        }
        last = Some(seq);
    }
    Ok(())
}

fn births_before_data(msgs: &[&Msg]) -> Result<(), String> {
    let mut born: BTreeSet<Option<String>> = BTreeSet::new();
    for msg in msgs {
        match msg.kind.as_str() {
            "NBIRTH" => born = [None].into(),
            "DBIRTH" if !born.contains(&None) => return Err("DBIRTH before NBIRTH".into()),
            "DBIRTH" => drop(born.insert(msg.device.clone())),
            "DDEATH" => drop(born.remove(&msg.device)),
            "NDATA" | "DDATA" if !born.contains(&msg.device) => {
                return Err(format!("{} of {:?} before its birth", msg.kind, msg.device));
            }
            _ => {}
        }
    }
    Ok(())
}

fn lists_all(msgs: &[&Msg], birth: &str, data: &str) -> Result<(), String> {
    let mut known: BTreeMap<Option<String>, BTreeSet<u64>> = BTreeMap::new();
    for msg in msgs {
        if msg.kind == birth {
            known.insert(msg.device.clone(), msg.payload.metrics.iter().filter_map(|m| m.alias).collect());
        } else if msg.kind == data {
            for metric in &msg.payload.metrics {
                if !known.get(&msg.device).is_some_and(|k| metric.alias.is_some_and(|a| k.contains(&a))) {
                    return Err(format!("{:?} of {:?} is not in the birth", metric.alias, msg.device));
                }
            }
        }
    }
    Ok(())
}

/// What a message says, value by value: a tag's is a metric, or a member of an instance.
fn values(msg: &Msg) -> Vec<((u64, &str), &Metric)> {
    let of = |metric: &'_ Metric| metric.alias.unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for metric in &msg.payload.metrics {
        match &metric.value {
            Some(MetricValue::Template(t)) if t.is_definition == Some(false) => {
                all.extend(t.metrics.iter().map(|member| ((of(metric), member.name.as_deref().unwrap_or("")), member)));
            }
            _ => all.push(((of(metric), ""), metric)),
        }
    }
    all
}

/// No value is said twice in a row, unless its quality has changed or it is historical. A value said at a birth may come once more.
fn only_changes(msgs: &[&Msg], kind: &str) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for msg in msgs {
        if msg.kind.ends_with("BIRTH") {
            values(msg).iter().for_each(|(which, _)| drop(last.remove(which)));
        }
        if msg.kind != kind {
            continue;
        }
        for (which, metric) in values(msg).into_iter().filter(|(_, m)| m.is_historical != Some(true)) {
            let quality = metric.properties.as_ref().and_then(|p| p.values.first()).and_then(|v| v.int_value);
            let said = (metric.value.clone(), quality);
            if let Some(before) = last.insert(which, said.clone())
                && before == said
            {
                return Err(format!("{which:?} said twice: {said:?}"));
            }
        }
    }
    Ok(())
}

/// The value of `still` never changes: whatever is said of it live tells another quality than what was said before. A busy machine that polls
/// late makes a value uncertain, and that is a change.
fn by_exception(msgs: &[&Msg]) -> Result<(), String> {
    let quality = |m: &Metric| {
        let set = m.properties.as_ref();
        set.and_then(|set| set.values.first()).and_then(|v| v.int_value).unwrap_or(192)
    };
    let mut told: BTreeMap<(u64, &str), u32> = BTreeMap::new();
    for msg in msgs.iter().filter(|m| m.device.as_deref() == Some("still")) {
        for (which, metric) in values(msg).into_iter().filter(|(_, m)| m.is_historical != Some(true)) {
            let now = quality(metric);
            if told.insert(which, now) == Some(now) && msg.kind == "DDATA" {
                return Err(format!("DDATA of what did not change: {metric:?}"));
            }
        }
    }
    Ok(())
}
