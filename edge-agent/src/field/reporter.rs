//! From points to records: one value a message, or what changed in one poll of a device. The text is written once, when the readings
//! come; no value is allocated on its own.

use crate::clock::run_ms;
use crate::config::{DevicePlan, Payload, PointPlan};
use crate::telemetry::Spool;
use crate::telemetry::payload::{self, DeviceMessage, Encoding, Said};
use crate::telemetry::sparkplug::Hub;
use crate::telemetry::sparkplug::hub::push_reading;
use crate::telemetry::sparkplug::types::DataType;
use crate::telemetry::spool::{Kind, Records, STREAMS};
use device_drivers::opcua::NodeType;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Longest text of one message, bytes, where the broker has no say; more goes into the next one. Many brokers take a quarter of a megabyte.
const MESSAGE_MAX: usize = 128 * 1024;
/// A reading of a Sparkplug record becomes at most so much larger as a metric.
const METRIC_GROWTH: usize = 2;

/// Where records go, and what a message holds.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The spool.
    pub spool: Arc<Spool>,
    /// What one message holds.
    pub payload: Payload,
    /// How it is written.
    pub encoding: Encoding,
    /// A Sparkplug edge node is told instead.
    pub hub: Option<Arc<Hub>>,
    /// Topic and payload that the broker takes, bytes; 0: as much as one likes.
    pub message_max: Arc<AtomicU64>,
}

impl Publish {
    /// The longest topic and text together that are worth making.
    fn room(&self) -> usize {
        match usize::try_from(self.message_max.load(Relaxed)) {
            Ok(0) | Err(_) => MESSAGE_MAX,
            Ok(most) => MESSAGE_MAX.min(most),
        }
    }
}

/// Puts records together for one line.
#[derive(Debug)]
pub(super) struct Reporter {
    /// `None`: nothing is published.
    publish: Option<Publish>,
    devices: Arc<[DevicePlan]>,
    records: Records,
    /// Messages being written, by stream.
    messages: [DeviceMessage; 3],
    device: u32,
    /// Numbers of the devices in the hub.
    in_hub: Vec<usize>,
    /// Readings of a Sparkplug record being written, by stream, and how many.
    readings: [(Vec<u8>, u32); 3],
}

impl Reporter {
    pub(super) fn new(publish: Option<Publish>, devices: Arc<[DevicePlan]>) -> Reporter {
        let hub = publish.as_ref().and_then(|p| p.hub.as_ref());
        let number = |hub: &Arc<Hub>| devices.iter().map(|d| hub.number(&d.name).unwrap_or(usize::MAX)).collect();
        let in_hub = hub.map_or_else(Vec::new, number);
        let (records, messages, readings) = Default::default();
        Reporter { publish, devices, records, messages, device: 0, in_hub, readings }
    }

    /// Says something of a point.
    pub(super) fn report(&mut self, point: &PointPlan, said: Said<'_>) {
        let Some(publish) = self.publish.as_ref().filter(|_| point.publish) else { return };
        let (encoding, stream, room) = (publish.encoding, point.stream, publish.room());
        if let Some(hub) = publish.hub.clone() {
            return self.tell_hub(&hub, point, &said);
        }
        match publish.payload {
            Payload::Tag => {
                let Some(device) = self.devices.get(point.device as usize) else { return };
                let topic = [&*device.topic.0, &*point.tag, &*device.topic.1];
                self.records.push((stream, encoding.kind()), &topic, (run_ms(), 1), |out| {
                    payload::one(out, encoding, stream, &said)
                });
            }
            Payload::Device => {
                if self.device != point.device {
                    self.close();
                    self.device = point.device;
                }
                let Some(device) = self.devices.get(point.device as usize) else { return };
                let room = room.saturating_sub(device.topic.0.len() + device.topic.1.len());
                let Some(message) = self.messages.get_mut(stream as usize) else { return };
                if !message.say_within(encoding, stream, &point.tag, &said, room) {
                    self.close();
                    let Some(message) = self.messages.get_mut(stream as usize) else { return };
                    message.say(encoding, stream, &point.tag, &said);
                }
            }
        }
    }

    fn tell_hub(&mut self, hub: &Hub, point: &PointPlan, said: &Said<'_>) {
        if self.device != point.device {
            self.close();
            self.device = point.device;
        }
        let number = self.in_hub.get(point.device as usize).copied().unwrap_or(usize::MAX);
        hub.say(number, &point.tag, said);
        let room = self.publish.as_ref().map_or(MESSAGE_MAX, |p| p.room() / METRIC_GROWTH);
        let Some((readings, count)) = self.readings.get_mut(point.stream as usize) else { return };
        let before = readings.len();
        push_reading(readings, &point.tag, said);
        if readings.len() <= room || before == 0 {
            *count += 1;
            return;
        }
        readings.truncate(before);
        self.close();
        if let Some((readings, count)) = self.readings.get_mut(point.stream as usize) {
            push_reading(readings, &point.tag, said);
            *count += 1;
        }
    }

    /// Whether it is of use to know what servers declare tags to be.
    pub(super) fn wants_types(&self) -> bool {
        self.publish.as_ref().is_some_and(|p| p.hub.is_some())
    }

    /// A server declares what a point is.
    pub(super) fn declare(&self, point: &PointPlan, node: NodeType) {
        let hub = self.publish.as_ref().and_then(|p| p.hub.as_ref());
        if let Some((hub, number)) = hub.zip(self.in_hub.get(point.device as usize)) {
            hub.declare(*number, &point.tag, DataType::of_node(node));
        }
    }

    /// A device does not answer any more.
    pub(super) fn gone(&self, device: usize) {
        if let (Some(hub), Some(number)) = (self.publish.as_ref().and_then(|p| p.hub.as_ref()), self.in_hub.get(device))
        {
            hub.gone(*number);
        }
    }

    /// Ends the messages that are being written.
    fn close(&mut self) {
        let Some(publish) = &self.publish else { return };
        let Some(device) = self.devices.get(self.device as usize) else { return };
        let (encoding, topic) = (publish.encoding, [&*device.topic.0, &*device.topic.1]);
        for (stream, (readings, count)) in STREAMS.into_iter().zip(&mut self.readings).filter(|(_, r)| r.1 > 0) {
            let stamp = (run_ms(), std::mem::take(count));
            self.records.push((stream, Kind::Sparkplug), &[&*device.name], stamp, |out| {
                out.extend_from_slice(readings);
                0
            });
            readings.clear();
        }
        for (stream, message) in STREAMS.into_iter().zip(&mut self.messages).filter(|(_, m)| !m.is_empty()) {
            let stamp = (run_ms(), message.count);
            self.records.push((stream, encoding.kind()), &topic, stamp, |out| message.close(encoding, out));
        }
    }

    /// Promises everything that has been said since the last time.
    pub(super) fn deliver(&mut self) {
        self.close();
        if let Some(publish) = &self.publish {
            publish.spool.append(&mut self.records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::telemetry::spool::{Next, Outlet, Replay, Stream, Ticket};
    use control_core::image::Quality;
    use device_drivers::value::{Cause, Value};
    use std::time::{Duration, Instant};

    fn point(device: u32, tag: &str) -> PointPlan {
        let (stale_after, stream) = (Duration::from_secs(1), Stream::Normal);
        PointPlan {
            device,
            tag: tag.into(),
            publish: true,
            role: Role::Telemetry,
            stale_after,
            write: None,
            stream,
            deadband: 0.0,
            meaning: None,
        }
    }

    fn device(name: &str) -> DevicePlan {
        DevicePlan {
            name: name.into(),
            unit: 1,
            cell: "c".into(),
            profile: "p".into(),
            topic: (format!("plant/{name}").into(), "".into()),
        }
    }

    /// A broker with a limit of 2 KB and a device of 200 tags (zigbee2mqtt#13030): no message is larger, and no value is missing.
    #[test]
    fn messages_of_a_device_are_cut_to_what_the_broker_takes() {
        for (encoding, most) in
            [(Encoding::Json, 300), (Encoding::Cbor, 300), (Encoding::Json, 2048), (Encoding::Json, 1)]
        {
            let spool = Spool::in_memory(1 << 20);
            let message_max = Arc::new(AtomicU64::new(most));
            let publish = Publish { spool: spool.clone(), payload: Payload::Device, encoding, hub: None, message_max };
            let mut reporter = Reporter::new(Some(publish), vec![device("a")].into());
            for n in 0..200u32 {
                let value = Value::Uint(n.into());
                let (quality, cause) =
                    if n % 7 == 0 { (Quality::Bad, Cause::Stale) } else { (Quality::Good, Cause::None) };
                let said = Said {
                    value: Some(&value),
                    quality,
                    cause,
                    source_ms: 1000 + u64::from(n % 3),
                    confirmed_ms: None,
                    is_timed: true,
                };
                reporter.report(&point(0, &format!("a-tag-of-some-length-{n}")), said);
            }
            reporter.deliver();
            let mut outlet = Outlet::new(spool, Replay::InOrder, None);
            let (mut tags, mut messages) = (0, 0);
            let take = |_: &Ticket, r: &crate::telemetry::spool::record::Record<'_>| {
                let mut whole = Vec::new();
                payload::with_sequence(&mut whole, r.kind, r.payload, r.hole, u64::MAX);
                Some((r.topic.len(), whole, r.values))
            };
            while let Next::Record(_, (topic, whole, values)) = outlet.next(Instant::now(), take) {
                let fits = topic + whole.len() <= most as usize;
                assert!(fits || values == 1, "{} bytes of {most}, {values} values", topic + whole.len());
                if encoding == Encoding::Json {
                    let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
                    let readings = json["readings"].as_array().unwrap();
                    let said: usize = readings.iter().map(|r| r["values"].as_object().unwrap().len()).sum();
                    assert_eq!(said, values as usize);
                }
                (tags, messages) = (tags + values, messages + 1);
            }
            assert_eq!(tags, 200, "no value is missing");
            assert!(messages > 1 && (most > 1 || messages == 200), "{messages}");
        }
    }

    #[test]
    fn what_changed_in_a_poll_is_one_message_a_device_and_stream() {
        let spool = Spool::in_memory(1 << 20);
        let publish = Publish {
            spool: spool.clone(),
            payload: Payload::Device,
            encoding: Encoding::Json,
            hub: None,
            message_max: Arc::default(),
        };
        let mut reporter = Reporter::new(Some(publish), vec![device("a"), device("b")].into());
        let one = Value::Single(21.5);
        let (quality, cause, source_ms, confirmed_ms) = (Quality::Good, Cause::None, 1000, None);
        let good = Said { value: Some(&one), quality, cause, source_ms, confirmed_ms, is_timed: true };
        reporter.report(&point(0, "t-1"), good);
        reporter.report(&point(0, "t-2"), good);
        reporter.report(&PointPlan { stream: Stream::High, ..point(0, "alarm") }, good);
        reporter.report(&point(1, "t-1"), good);
        reporter.report(&PointPlan { publish: false, ..point(1, "t-2") }, good);
        reporter.deliver();
        let mut outlet = Outlet::new(spool, Replay::InOrder, None);
        let mut seen = Vec::new();
        while let Next::Record(ticket, topic) = outlet.next(Instant::now(), |_, r| Some(r.topic.to_string())) {
            seen.push((topic, ticket.stream, ticket.values));
        }
        let want = [("plant/a", Stream::High, 1), ("plant/a", Stream::Normal, 2), ("plant/b", Stream::Normal, 1)];
        assert_eq!(seen, want.map(|(topic, stream, count)| (topic.to_string(), stream, count)));
    }
}
