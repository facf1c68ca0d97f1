//! From points to samples: one value a message, or what changed in one poll of a device.
//!
//! ```text
//!   payload "tag"      topic ../press-1/force     {"value":21.5,"quality":"good","source_time":"..","sequence":7}
//!   payload "device"   topic ../press-1           {"sequence":7,"readings":[
//!                                                   {"source_time":"..","values":{"force":21.5,"stroke":3}},
//!                                                   {"source_time":"..","quality":"bad","cause":"..","values":{"oil":null}}]}
//! ```
//!
//! In a device's message, readings with one source time, quality and cause stand together. The text is written once, when the readings
//! come; no value is allocated on its own.

use crate::config::{DevicePlan, Payload, PointPlan};
use crate::telemetry::Sample;
use crate::telemetry::sample::{Body, Topic, push_value, quality_name, rfc3339};
use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use std::fmt::Write;
use std::sync::Arc;

/// Longest text of one message, bytes; more goes into the next one. Brokers take a quarter of a megabyte and more.
const MESSAGE_MAX: usize = 128 * 1024;

/// What is said of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) value: Option<&'a Value>,
    pub(super) quality: Quality,
    pub(super) cause: Cause,
    pub(super) source_ms: u64,
}

/// Puts samples together for one line.
#[derive(Debug)]
pub(super) struct Reporter {
    /// `None`: nothing is published.
    payload: Option<Payload>,
    devices: Arc<[DevicePlan]>,
    samples: Vec<Sample>,
    text: String,
    open: Option<(u32, Quality, Cause, u64)>,
    count: u32,
}

impl Reporter {
    pub(super) fn new(payload: Option<Payload>, devices: Arc<[DevicePlan]>) -> Reporter {
        Reporter { payload, devices, samples: Vec::new(), text: String::new(), open: None, count: 0 }
    }

    /// Says something of a point.
    pub(super) fn report(&mut self, point: &PointPlan, said: Said<'_>) {
        if !point.publish {
            return;
        }
        match self.payload {
            None => {}
            Some(Payload::Tag) => {
                let topic = Topic { devices: self.devices.clone(), device: point.device, tag: Some(point.tag.clone()) };
                let Said { value, quality, cause, source_ms } = said;
                self.samples
                    .push(Sample { topic, body: Body::One { value: value.cloned(), quality, cause, source_ms } });
            }
            Some(Payload::Device) => self.device_report(point, said),
        }
    }

    fn device_report(&mut self, point: &PointPlan, said: Said<'_>) {
        let key = (point.device, said.quality, said.cause, said.source_ms);
        if self.open.is_some_and(|(device, ..)| device != point.device) || self.text.len() > MESSAGE_MAX {
            self.close();
        }
        if self.open == Some(key) {
            self.text.push(',');
        } else {
            self.text.push_str(if self.open.is_some() { "}},{" } else { "\"readings\":[{" });
            let _ = write!(self.text, "\"source_time\":\"{}\"", rfc3339(said.source_ms));
            if said.quality != Quality::Good {
                let _ =
                    write!(self.text, ",\"quality\":\"{}\",\"cause\":\"{}\"", quality_name(said.quality), said.cause);
            }
            self.text.push_str(",\"values\":{");
            self.open = Some(key);
        }
        // A tag's name is a level of a topic: nothing in it needs escaping but what JSON itself wants.
        push_value(&mut self.text, Some(&Value::Text(point.tag.clone())));
        self.text.push(':');
        push_value(&mut self.text, said.value);
        self.count += 1;
    }

    /// Ends the message that is being written.
    fn close(&mut self) {
        let Some((device, ..)) = self.open.take() else { return };
        self.text.push_str("}}]}");
        let topic = Topic { devices: self.devices.clone(), device, tag: None };
        let body = Body::Device { text: self.text.as_str().into(), count: self.count };
        self.samples.push(Sample { topic, body });
        self.text.clear();
        self.count = 0;
    }

    /// Everything that has been said since the last time.
    pub(super) fn take(&mut self) -> &mut Vec<Sample> {
        self.close();
        &mut self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use std::time::Duration;

    fn point(device: u32, tag: &str) -> PointPlan {
        let stale_after = Duration::from_secs(1);
        PointPlan { device, tag: tag.into(), publish: true, role: Role::Telemetry, stale_after, write: None }
    }

    #[test]
    fn what_changed_in_a_poll_is_one_message_a_device_and_nothing_is_lost_in_it() {
        let device =
            |name: &str| DevicePlan { name: name.into(), unit: 1, topic: (format!("plant/{name}").into(), "".into()) };
        let mut reporter = Reporter::new(Some(Payload::Device), vec![device("a"), device("b")].into());
        let (one, text) = (Value::Single(21.5), Value::Text("\"x\"\n".into()));
        let good = |value| Said { value: Some(value), quality: Quality::Good, cause: Cause::None, source_ms: 1000 };
        reporter.report(&point(0, "t-1"), good(&one));
        reporter.report(&point(0, "t-2"), good(&text));
        let bad = Said { value: None, quality: Quality::Bad, cause: Cause::Exception(2), source_ms: 2000 };
        reporter.report(&point(0, "t-3"), bad);
        reporter.report(&point(1, "t-1"), good(&one));
        let mut hidden = point(1, "t-2");
        hidden.publish = false;
        reporter.report(&hidden, good(&one));
        let samples = std::mem::take(reporter.take());
        assert_eq!(
            samples.iter().map(|s| (s.topic.to_string(), s.count())).collect::<Vec<_>>(),
            [("plant/a".to_string(), 3), ("plant/b".to_string(), 1)]
        );
        let json: serde_json::Value = serde_json::from_str(&samples[0].json(7)).unwrap();
        let want = serde_json::json!({"sequence": 7, "readings": [
            {"source_time": "1970-01-01T00:00:01.000Z", "values": {"t-1": 21.5, "t-2": "\"x\"\n"}},
            {"source_time": "1970-01-01T00:00:02.000Z", "quality": "bad",
             "cause": "Modbus exception 2 (illegal data address)", "values": {"t-3": null}},
        ]});
        assert_eq!(json, want);
    }
}
