//! One sample: value, quality, source time, sequence; and how it looks on the wire.

use crate::config::DevicePlan;
use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Where a sample goes: put together when it is sent, so that a hundred thousand tags need no texts of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// The devices of its line.
    pub devices: Arc<[DevicePlan]>,
    /// Which of them.
    pub device: u32,
    /// The tag; `None` when the message is about the whole device.
    pub tag: Option<Arc<str>>,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(device) = self.devices.get(self.device as usize) else { return Ok(()) };
        let (before, after) = &device.topic;
        write!(f, "{before}{}{after}", self.tag.as_deref().unwrap_or_default())
    }
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// One value.
    One {
        /// The value, or the last one known; `None` when there never was one.
        value: Option<Value>,
        /// How far it can be trusted.
        quality: Quality,
        /// Why not further.
        cause: Cause,
        /// When the value was true at its source, milliseconds since 1970 UTC. Never the time of sending.
        source_ms: u64,
    },
    /// What changed in one poll of a device: JSON from `"readings":` to the last brace.
    Device {
        /// The text.
        text: Arc<str>,
        /// Values in it.
        count: u32,
    },
}

/// A sample that has been promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it goes.
    pub topic: Topic,
    /// What it says.
    pub body: Body,
}

/// RFC 3339 in UTC, with milliseconds, whatever the host's time zone.
pub fn rfc3339(ms: u64) -> String {
    // The library refuses years beyond 9999: a device with such a clock gets the last instant it can show.
    let ms = ms.min(253_402_300_799_999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// The name of a quality on the wire.
pub fn quality_name(quality: Quality) -> &'static str {
    match quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Bad => "bad",
    }
}

/// Appends a value as JSON.
pub fn push_value(text: &mut String, value: Option<&Value>) {
    let _ = match value {
        None => write!(text, "null"),
        Some(Value::Bool(b)) => write!(text, "{b}"),
        Some(Value::Int(i)) => write!(text, "{i}"),
        Some(Value::Uint(u)) => write!(text, "{u}"),
        // JSON has no number for what is not finite; the quality says what it is worth.
        Some(Value::Float(f)) if !f.is_finite() => write!(text, "\"{f}\""),
        Some(Value::Single(f)) if !f.is_finite() => write!(text, "\"{f}\""),
        Some(Value::Float(f)) if f.abs() < 1e16 => write!(text, "{f}"),
        Some(Value::Float(f)) => write!(text, "{f:e}"),
        Some(Value::Single(f)) if f.abs() < 1e16 => write!(text, "{f}"),
        Some(Value::Single(f)) => write!(text, "{f:e}"),
        Some(Value::Words(words)) => write!(text, "{words:?}"),
        Some(Value::Text(t)) => write!(text, "{}", serde_json::Value::from(&**t)),
    };
}

impl Sample {
    /// The JSON payload of one value:
    /// `{"value":21.5,"quality":"good","source_time":"2026-11-22T22:00:00.000Z","sequence":7}`, with `"cause"` when the quality is
    /// not good; of a device: `{"sequence":7,"readings":[{"source_time":"..","values":{"force":21.5}}]}`.
    pub fn json(&self, sequence: u64) -> String {
        match &self.body {
            Body::Device { text, .. } => format!("{{\"sequence\":{sequence},{text}"),
            Body::One { value, quality, cause, source_ms } => {
                let mut text = String::with_capacity(128);
                text.push_str("{\"value\":");
                push_value(&mut text, value.as_ref());
                let (name, time) = (quality_name(*quality), rfc3339(*source_ms));
                let _ = write!(text, ",\"quality\":\"{name}\",\"source_time\":\"{time}\",\"sequence\":{sequence}");
                if *quality != Quality::Good {
                    let _ = write!(text, ",\"cause\":\"{cause}\"");
                }
                text.push('}');
                text
            }
        }
    }

    /// Values in it.
    pub fn count(&self) -> u64 {
        match &self.body {
            Body::One { .. } => 1,
            Body::Device { count, .. } => u64::from(*count),
        }
    }

    /// Memory it takes in the spool, bytes: itself, and what it holds.
    pub fn bytes(&self) -> usize {
        SAMPLE_BYTES
            + match &self.body {
                Body::Device { text, .. } => text.len(),
                Body::One { value: Some(Value::Text(t)), .. } => t.len(),
                Body::One { value: Some(Value::Words(w)), .. } => w.len() * 2,
                Body::One { .. } => 0,
            }
    }
}

/// A sample without what it shares or holds, with its share of the queue.
pub const SAMPLE_BYTES: usize = 2 * size_of::<Sample>();

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: Option<Value>, quality: Quality, cause: Cause) -> Sample {
        let topic = Topic { devices: Arc::new([]), device: 0, tag: None };
        Sample { topic, body: Body::One { value, quality, cause, source_ms: 1_795_386_896_123 } }
    }

    #[test]
    fn payloads_are_json_whatever_the_value() {
        let rows = [
            (Some(Value::Bool(true)), "true"),
            (Some(Value::Int(-7)), "-7"),
            (Some(Value::Uint(u64::MAX)), "18446744073709551615"),
            (Some(Value::Float(21.5)), "21.5"),
            (Some(Value::Single(0.1)), "0.1"),
            (Some(Value::Float(1e300)), "1e+300"),
            (Some(Value::Text("a\"b".into())), "\"a\\\"b\""),
            (Some(Value::Float(f64::NAN)), "\"NaN\""),
            (Some(Value::Float(f64::INFINITY)), "\"inf\""),
            (None, "null"),
        ];
        for (value, want) in rows {
            let text = sample(value, Quality::Good, Cause::None).json(7);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["value"].to_string(), want);
            assert_eq!(json["sequence"], 7);
            assert_eq!(json["quality"], "good");
            assert_eq!(json["source_time"], "2026-11-22T22:34:56.123Z");
            assert!(json.get("cause").is_none());
        }
    }

    #[test]
    fn what_is_not_good_says_why() {
        let text = sample(None, Quality::Bad, Cause::Exception(2)).json(1);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["cause"], "Modbus exception 2 (illegal data address)");
    }

    #[test]
    fn a_device_with_an_absurd_clock_does_not_stop_anything() {
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
