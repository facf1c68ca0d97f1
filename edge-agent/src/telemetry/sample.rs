//! One sample: value, quality, source time, sequence; and how it looks on the wire.

use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// A sample that has been promised. Its topic is shared, so it allocates nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it goes.
    pub topic: Arc<str>,
    /// The value, or the last one known; `None` when there never was one.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// Why not further.
    pub cause: Cause,
    /// When the value was true at its source, milliseconds since 1970 UTC. Never the time of sending.
    pub source_ms: u64,
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

impl Sample {
    /// The JSON payload: `{"value":21.5,"quality":"good","source_time":"2026-11-22T22:00:00.000Z","sequence":7}`,
    /// with `"cause"` when the quality is not good.
    pub fn json(&self, sequence: u64) -> String {
        let mut text = String::with_capacity(128);
        text.push_str("{\"value\":");
        match &self.value {
            None => text.push_str("null"),
            Some(Value::Bool(b)) => text.push_str(if *b { "true" } else { "false" }),
            Some(Value::Int(i)) => drop(write!(text, "{i}")),
            Some(Value::Uint(u)) => drop(write!(text, "{u}")),
            Some(Value::Float(f)) if f.is_finite() => drop(write!(text, "{f}")),
            // JSON has no number for these; the quality says what they are worth.
            Some(Value::Float(f)) => drop(write!(text, "\"{f}\"")),
            Some(Value::Words(words)) => drop(write!(text, "{words:?}")),
            Some(Value::Text(t)) => text.push_str(&serde_json::Value::from(&**t).to_string()),
        }
        let (quality, time) = (quality_name(self.quality), rfc3339(self.source_ms));
        let _ = write!(text, ",\"quality\":\"{quality}\",\"source_time\":\"{time}\",\"sequence\":{sequence}");
        if self.quality != Quality::Good {
            let _ = write!(text, ",\"cause\":\"{}\"", self.cause);
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: Option<Value>, quality: Quality, cause: Cause) -> Sample {
        Sample { topic: "t".into(), value, quality, cause, source_ms: 1_795_386_896_123 }
    }

    #[test]
    fn payloads_are_json_whatever_the_value() {
        let rows = [
            (Some(Value::Bool(true)), "true"),
            (Some(Value::Int(-7)), "-7"),
            (Some(Value::Uint(u64::MAX)), "18446744073709551615"),
            (Some(Value::Float(21.5)), "21.5"),
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
