//! What tags are to people, for who listens to our own messages: one retained message a device, `{base}/meta/{device}`.
//!
//! ```text
//!   lightsout/hall/a/gw/meta/meter-1
//!   {"device":"meter-1","cell":"supply","topic":"lightsout/hall/a/supply/meter-1/{tag}","part":1,"parts":1,
//!    "tags":{"power":{"unit":"kW","description":"..","low":0,"high":16.5,"writable":true}}}
//! ```
//!
//! Only tags that say something of themselves are in it, and only devices that have such tags are told; a long message goes on at `../2`.
//! When a device has gone, or says nothing any more, its message is taken back by an empty one (MQTT 5, 3.3.1.3).

use crate::config::{DevicePlan, PointPlan};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Longest text of one message, bytes; more goes into the next. The smallest limit of a large broker is 128 KiB.
const MESSAGE_MAX: usize = 64 * 1024;
/// Messages that one look of the face may send.
const AT_ONCE: usize = 8;

/// The messages of the configuration in force; replaced whole when that is.
#[derive(Debug, Default)]
pub struct Meanings(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    version: u64,
    /// Payload by the rest of the topic.
    messages: BTreeMap<String, Vec<u8>>,
    /// Topics of devices that have gone.
    gone: Vec<String>,
}

impl Meanings {
    /// Shows these devices and no others.
    pub fn show<'a>(&self, lines: impl Iterator<Item = (&'a [DevicePlan], &'a [PointPlan])>) {
        let mut messages = BTreeMap::new();
        for (devices, points) in lines {
            for (n, device) in devices.iter().enumerate() {
                let mine = points.iter().filter(|p| p.device as usize == n && p.publish && p.meaning.is_some());
                messages.extend(parts_of(device, &mine.collect::<Vec<_>>()));
            }
        }
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.messages == messages {
            return;
        }
        let before = std::mem::take(&mut shown.messages);
        let gone = before.into_keys().filter(|topic| !messages.contains_key(topic));
        shown.gone.extend(gone);
        shown.gone.retain(|topic| !messages.contains_key(topic));
        (shown.version, shown.messages) = (shown.version + 1, messages);
    }
}

/// What one connection has still to say of them.
#[derive(Debug, Default)]
pub struct Telling {
    told: u64,
    /// Topics that are not told yet.
    rest: VecDeque<String>,
}

impl Telling {
    /// A new connection: all is to be said.
    pub fn begin(&mut self) {
        *self = Telling::default();
    }

    /// The next messages, topic and payload; few at once, so that they never stand in the way of values.
    pub fn next(&mut self, meanings: &Meanings) -> Vec<(String, Vec<u8>)> {
        let shown = meanings.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.told != shown.version {
            self.told = shown.version;
            self.rest = shown.gone.iter().chain(shown.messages.keys()).cloned().collect();
        }
        let payload = |topic: &str| shown.messages.get(topic).cloned().unwrap_or_default();
        let next = self.rest.drain(..AT_ONCE.min(self.rest.len()));
        next.map(|topic| (payload(&topic), topic)).map(|(payload, topic)| (topic, payload)).collect()
    }
}

/// The messages of one device, and the rest of their topics.
fn parts_of(device: &DevicePlan, points: &[&PointPlan]) -> Vec<(String, Vec<u8>)> {
    let mut parts: Vec<Map<String, Value>> = Vec::new();
    let mut room = 0;
    for point in points {
        let Some(meaning) = &point.meaning else { continue };
        let mut said = Map::new();
        let texts = [("unit", &meaning.unit), ("description", &meaning.description)];
        said.extend(texts.into_iter().filter_map(|(key, text)| Some((key.into(), text.clone()?.into()))));
        let ends = [("low", meaning.low), ("high", meaning.high)];
        said.extend(ends.into_iter().filter_map(|(key, end)| Some((key.into(), end?.into()))));
        said.insert("writable".into(), point.write.is_some().into());
        let said = Value::Object(said);
        let length = said.to_string().len() + point.tag.len() + 8;
        if parts.is_empty() || length > room {
            parts.push(Map::new());
            room = MESSAGE_MAX;
        }
        room = room.saturating_sub(length);
        parts.last_mut().into_iter().for_each(|part| drop(part.insert(point.tag.to_string(), said.clone())));
    }
    let (count, (before, after)) = (parts.len(), &device.topic);
    // Where a message holds a whole device there is no place for the tag's name.
    let topic =
        if after.is_empty() && !before.ends_with('/') { before.to_string() } else { format!("{before}{{tag}}{after}") };
    let message = |(n, tags): (usize, Map<String, Value>)| {
        let (name, cell) = (&*device.name, &*device.cell);
        let text = json!({ "device": name, "cell": cell, "topic": topic, "part": n + 1, "parts": count, "tags": tags });
        (if n == 0 { name.to_string() } else { format!("{name}/{}", n + 1) }, text.to_string().into_bytes())
    };
    parts.into_iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Meaning, Role};
    use crate::telemetry::spool::Stream;
    use std::time::Duration;

    fn device(name: &str) -> DevicePlan {
        let topic = (format!("plant/{name}/").into(), "".into());
        DevicePlan { name: name.into(), unit: 1, cell: "c".into(), profile: "p".into(), topic }
    }

    fn point(device: u32, tag: &str, description: Option<&str>) -> PointPlan {
        let meaning = |text: &str| Meaning { description: Some(text.into()), low: Some(0.0), ..Meaning::default() };
        PointPlan {
            device,
            tag: tag.into(),
            publish: true,
            role: Role::Telemetry,
            stale_after: Duration::from_secs(1),
            write: None,
            stream: Stream::Normal,
            deadband: 0.0,
            meaning: description.map(|text| meaning(text).into()),
        }
    }

    fn topics(messages: &[(String, Vec<u8>)]) -> Vec<(&str, bool)> {
        messages.iter().map(|(topic, payload)| (topic.as_str(), payload.is_empty())).collect()
    }

    #[test]
    fn each_device_that_says_something_of_itself_is_told_once_a_connection_and_taken_back_when_it_has_gone() {
        let (devices, points) = (
            [device("a"), device("b"), device("c")],
            [point(0, "t", Some("Öl")), point(0, "plain", None), point(1, "t", None), point(2, "t", Some("x"))],
        );
        let (meanings, mut telling) = (Meanings::default(), Telling::default());
        meanings.show([(&devices[..], &points[..])].into_iter());
        let told = telling.next(&meanings);
        assert_eq!(topics(&told), [("a", false), ("c", false)]);
        let json: Value = serde_json::from_slice(&told[0].1).unwrap();
        let tags = json!({"t": {"description": "Öl", "low": 0.0, "writable": false}});
        let want = json!({"device": "a", "cell": "c", "topic": "plant/a/{tag}", "part": 1, "parts": 1, "tags": tags});
        assert_eq!(json, want);
        meanings.show([(&devices[..], &points[..])].into_iter());
        assert!(telling.next(&meanings).is_empty(), "it is the same as before");
        meanings.show([(&devices[..1], &points[..2])].into_iter());
        assert_eq!(topics(&telling.next(&meanings)), [("c", true), ("a", false)]);
        telling.begin();
        assert_eq!(topics(&telling.next(&meanings)), [("c", true), ("a", false)], "a broker may have been away");
    }

    #[test]
    fn a_device_with_much_to_say_says_it_in_parts_that_every_broker_takes() {
        let text = "ä".repeat(crate::config::DESCRIPTION_MAX);
        let points: Vec<PointPlan> = (0..500).map(|n| point(0, &format!("tag-{n}"), Some(&text))).collect();
        let meanings = Meanings::default();
        meanings.show([(&[device("d")][..], &points[..])].into_iter());
        let (mut telling, mut told) = (Telling::default(), Vec::new());
        loop {
            let next = telling.next(&meanings);
            if next.is_empty() {
                break;
            }
            assert!(next.len() <= AT_ONCE);
            told.extend(next);
        }
        assert!(told.len() > 1 && told.iter().all(|(_, payload)| payload.len() < MESSAGE_MAX + 1024));
        let tags =
            |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap()["tags"].as_object().unwrap().len();
        assert_eq!(told.iter().map(|(_, payload)| tags(payload)).sum::<usize>(), 500);
        assert!(told.iter().any(|(topic, _)| topic == "d/2"));
    }
}
