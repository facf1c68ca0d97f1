//! How values look on the wire: JSON or CBOR, one value a message or what changed in one poll of a device.
//!
//! ```text
//!   {"value":21.5,"quality":"good","source_time":"2026-11-22T22:00:00.000Z","sequence":7}          with "cause" when it is not good, or not just good
//!   {"sequence":7,"readings":[{"source_time":"..","values":{"force":21.5,"stroke":3}},
//!                             {"source_time":"..","quality":"bad","cause":"..","values":{"oil":null}}]}
//! ```
//!
//! A value that is said again although it has not changed has `confirmed_time`, when its source last said so; `"clock":"untrusted"` says
//! that the source time is that of a clock nobody has set. NaN and infinity are no value: null.
//!
//! CBOR (RFC 8949) has the same names; times are milliseconds since 1970, `source_time_ms`. The sequence is left open: each function gives
//! the place where it goes. A record of another stream than `normal` names its stream, since streams count apart.

use super::spool::{Kind, Stream};
use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use minicbor::Encoder;
use serde::Serialize;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// What is said of a point.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The value, or the last one known; `None` when there never was one.
    pub value: Option<&'a Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// Why not further; for a Good value, what its server says beyond that (`GoodLocalOverride`).
    pub cause: Cause,
    /// When the value was true at its source, or a server's bad status began to be, milliseconds since 1970 UTC. Never the time of sending.
    pub source_ms: u64,
    /// When its source said so again, if it has: what does not change and what nobody reads any more are two things.
    pub confirmed_ms: Option<u64>,
    /// Whether the clock of the source time is one to go by.
    pub is_timed: bool,
}

/// Whether there is more to say of a value than that it is good.
fn has_cause(quality: Quality, cause: Cause) -> bool {
    quality != Quality::Good || cause != Cause::None
}

/// What a message says of the clock of its source time when nobody has set it yet, or it has gone back.
pub const UNTRUSTED: &str = "untrusted";

/// How payloads are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON (RFC 8259).
    #[default]
    Json,
    /// CBOR (RFC 8949).
    Cbor,
}

impl Encoding {
    /// The kind of record it makes.
    pub fn kind(self) -> Kind {
        match self {
            Encoding::Json => Kind::Json,
            Encoding::Cbor => Kind::Cbor,
        }
    }
}

/// RFC 3339 in UTC, with milliseconds, whatever the host's time zone.
pub fn rfc3339(ms: u64) -> impl std::fmt::Display {
    // The library refuses years beyond 9999: a device with such a clock gets the last instant it can show.
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999)))
}

/// The name of a quality on the wire.
pub fn quality_name(quality: Quality) -> &'static str {
    match quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Bad => "bad",
    }
}

/// Appends a text as JSON.
pub fn json_text(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

/// Appends a value as JSON.
pub fn json_value(out: &mut Vec<u8>, value: Option<&Value>) {
    let _ = match value {
        None => out.write_all(b"null"),
        Some(Value::Bool(b)) => write!(out, "{b}"),
        Some(Value::Int(i)) => json_number(out, i),
        Some(Value::Uint(u)) => json_number(out, u),
        // What is not finite becomes null: JSON has no number for it, and a tag has one type.
        Some(Value::Float(f)) => json_number(out, f),
        Some(Value::Single(f)) => json_number(out, f),
        Some(Value::Words(words)) => write!(out, "{words:?}"),
        Some(Value::List(values)) => {
            out.push(b'[');
            for (n, value) in values.iter().enumerate() {
                out.extend_from_slice(if n > 0 { b"," } else { b"" });
                json_value(out, Some(value));
            }
            out.push(b']');
            Ok(())
        }
        Some(Value::Text(text)) => {
            json_text(out, text);
            Ok(())
        }
    };
}

/// Appends a number in the fewest digits that give the same bits again (several times as fast as `Display`). One with a fraction has it also
/// where it is `.0`: a tag has one type, and minus zero its sign.
fn json_number(out: &mut Vec<u8>, number: &impl Serialize) -> io::Result<()> {
    Ok(serde_json::to_writer(out, number)?)
}

/// A value as a text of JSON.
pub fn json_of(value: &Value) -> String {
    let mut out = Vec::new();
    json_value(&mut out, Some(value));
    String::from_utf8_lossy(&out).into_owned()
}

type Cbor<'a> = Encoder<&'a mut Vec<u8>>;

fn cbor_value(cbor: &mut Cbor<'_>, value: Option<&Value>) {
    let _ = match value {
        None => cbor.null(),
        Some(Value::Bool(b)) => cbor.bool(*b),
        Some(Value::Int(i)) => cbor.i64(*i),
        Some(Value::Uint(u)) => cbor.u64(*u),
        Some(Value::Float(_) | Value::Single(_)) if !value.is_some_and(Value::is_finite) => cbor.null(),
        Some(Value::Float(f)) => cbor.f64(*f),
        Some(Value::Single(f)) => cbor.f32(*f),
        Some(Value::Text(text)) => cbor.str(text),
        Some(Value::Words(words)) => {
            let _ = cbor.array(words.len() as u64);
            words.iter().for_each(|word| drop(cbor.u16(*word)));
            Ok(cbor)
        }
        Some(Value::List(values)) => {
            let _ = cbor.array(values.len() as u64);
            values.iter().for_each(|value| cbor_value(cbor, Some(value)));
            Ok(cbor)
        }
    };
}

/// One value; where the sequence goes.
pub fn one(out: &mut Vec<u8>, encoding: Encoding, stream: Stream, said: &Said<'_>) -> usize {
    let start = out.len();
    let quality = quality_name(said.quality);
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b"{\"value\":");
            json_value(out, said.value);
            let time = rfc3339(said.source_ms);
            let _ = write!(out, ",\"quality\":\"{quality}\",\"source_time\":\"{time}\",\"sequence\":");
            let hole = out.len() - start;
            json_stream(out, stream);
            json_times(out, said);
            if has_cause(said.quality, said.cause) {
                let _ = write!(out, ",\"cause\":\"{}\"", said.cause);
            }
            out.push(b'}');
            hole
        }
        Encoding::Cbor => {
            let bad = has_cause(said.quality, said.cause);
            let mut cbor = Encoder::new(&mut *out);
            let more = u64::from(bad) + u64::from(stream != Stream::Normal) + times(said);
            let _ = cbor.map(4 + more).and_then(|c| c.str("value"));
            cbor_value(&mut cbor, said.value);
            let _ = cbor.str("quality").and_then(|c| c.str(quality));
            let _ = cbor.str("source_time_ms").and_then(|c| c.u64(said.source_ms));
            cbor_times(&mut cbor, said);
            cbor_stream(&mut cbor, stream);
            if bad {
                let _ = cbor.str("cause");
                cbor_display(&mut cbor, &said.cause);
            }
            let _ = cbor.str("sequence");
            out.len() - start
        }
    }
}

fn cbor_display(cbor: &mut Cbor<'_>, shown: &impl std::fmt::Display) {
    let _ = cbor.str(&shown.to_string());
}

/// What there is to say of times beside the source time.
fn json_times(out: &mut Vec<u8>, said: &Said<'_>) {
    if let Some(confirmed) = said.confirmed_ms {
        let _ = write!(out, ",\"confirmed_time\":\"{}\"", rfc3339(confirmed));
    }
    if !said.is_timed {
        let _ = write!(out, ",\"clock\":\"{UNTRUSTED}\"");
    }
}

/// How many entries that is.
fn times(said: &Said<'_>) -> u64 {
    u64::from(said.confirmed_ms.is_some()) + u64::from(!said.is_timed)
}

fn cbor_times(cbor: &mut Cbor<'_>, said: &Said<'_>) {
    if let Some(confirmed) = said.confirmed_ms {
        let _ = cbor.str("confirmed_time_ms").and_then(|c| c.u64(confirmed));
    }
    if !said.is_timed {
        let _ = cbor.str("clock").and_then(|c| c.str(UNTRUSTED));
    }
}

fn json_stream(out: &mut Vec<u8>, stream: Stream) {
    if stream != Stream::Normal {
        let _ = write!(out, ",\"stream\":\"{}\"", stream.name());
    }
}

fn cbor_stream(cbor: &mut Cbor<'_>, stream: Stream) {
    if stream != Stream::Normal {
        let _ = cbor.str("stream").and_then(|c| c.str(stream.name()));
    }
}

/// What closing a message of a device adds at most, its sequence included, bytes.
const CLOSING: usize = 32;

/// What tags have in common that stand together in the message of a device.
type Key = (Quality, Cause, u64, Option<u64>, bool);

/// The message of a device while it is being written: readings with the same times, quality and cause stand together.
#[derive(Debug, Default)]
pub struct DeviceMessage {
    text: Vec<u8>,
    open: Option<Key>,
    hole: usize,
    /// Values in it.
    pub count: u32,
}

impl DeviceMessage {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Says something of a tag, if the message is no longer than `most` bytes with it; false: it is as it was. A first word is always said.
    pub fn say_within(&mut self, encoding: Encoding, stream: Stream, tag: &str, said: &Said<'_>, most: usize) -> bool {
        let before = (self.text.len(), self.open, self.hole, self.count);
        self.say(encoding, stream, tag, said);
        let fits = self.text.len() + CLOSING <= most || before.3 == 0;
        if !fits {
            self.text.truncate(before.0);
            (self.open, self.hole, self.count) = (before.1, before.2, before.3);
        }
        fits
    }

    /// Says something of a tag.
    pub fn say(&mut self, encoding: Encoding, stream: Stream, tag: &str, said: &Said<'_>) {
        let key = (said.quality, said.cause, said.source_ms, said.confirmed_ms, said.is_timed);
        match encoding {
            Encoding::Json => self.say_json(stream, tag, said, key),
            Encoding::Cbor => self.say_cbor(stream, tag, said, key),
        }
        self.open = Some(key);
        self.count += 1;
    }

    fn say_json(&mut self, stream: Stream, tag: &str, said: &Said<'_>, key: Key) {
        let out = &mut self.text;
        if self.count == 0 {
            out.extend_from_slice(b"{\"sequence\":");
            self.hole = out.len();
            json_stream(out, stream);
            out.extend_from_slice(b",\"readings\":[{");
        } else if self.open != Some(key) {
            out.extend_from_slice(b"}},{");
        }
        if self.open == Some(key) {
            out.push(b',');
        } else {
            let _ = write!(out, "\"source_time\":\"{}\"", rfc3339(said.source_ms));
            json_times(out, said);
            if has_cause(said.quality, said.cause) {
                let _ = write!(out, ",\"quality\":\"{}\",\"cause\":\"{}\"", quality_name(said.quality), said.cause);
            }
            out.extend_from_slice(b",\"values\":{");
        }
        json_text(out, tag);
        out.push(b':');
        json_value(out, said.value);
    }

    fn say_cbor(&mut self, stream: Stream, tag: &str, said: &Said<'_>, key: Key) {
        let (is_first, is_same) = (self.count == 0, self.open == Some(key));
        let mut cbor = Encoder::new(&mut self.text);
        if is_first {
            // Indefinite lengths: how many there will be is not known yet.
            let _ = cbor.begin_map();
            cbor_stream(&mut cbor, stream);
            let _ = cbor.str("readings").and_then(Encoder::begin_array);
        } else if !is_same {
            let _ = cbor.end(); // of its values: the reading itself has a definite length
        }
        if !is_same {
            let bad = has_cause(said.quality, said.cause);
            let _ = cbor.map(if bad { 4 } else { 2 } + times(said));
            let _ = cbor.str("source_time_ms").and_then(|c| c.u64(said.source_ms));
            cbor_times(&mut cbor, said);
            if bad {
                let _ =
                    cbor.str("quality").and_then(|c| c.str(quality_name(said.quality))).and_then(|c| c.str("cause"));
                cbor_display(&mut cbor, &said.cause);
            }
            let _ = cbor.str("values").and_then(Encoder::begin_map);
        }
        let _ = cbor.str(tag);
        cbor_value(&mut cbor, said.value);
    }

    /// Ends it: writes the payload to `out`, gives the place where the sequence goes, and is empty again.
    pub fn close(&mut self, encoding: Encoding, out: &mut Vec<u8>) -> usize {
        match encoding {
            Encoding::Json => self.text.extend_from_slice(b"}}]}"),
            Encoding::Cbor => {
                let mut cbor = Encoder::new(&mut self.text);
                let _ = cbor.end().and_then(Encoder::end).and_then(|c| c.str("sequence"));
                self.hole = self.text.len();
                self.text.push(0xFF); // ends the outer map, behind the sequence
            }
        }
        out.extend_from_slice(&self.text);
        self.text.clear();
        self.text.shrink_to(256 << 10);
        (self.open, self.count) = (None, 0);
        self.hole
    }
}

/// Bytes of a sequence in a payload at most: the digits of the highest.
pub const SEQUENCE_MAX: usize = 20;

/// A sequence as it stands in a payload of this kind.
pub fn sequence_bytes(kind: Kind, sequence: u64, buffer: &mut [u8; SEQUENCE_MAX]) -> &[u8] {
    match kind {
        Kind::Json | Kind::Loss => {
            let (mut at, mut rest) = (buffer.len(), sequence);
            while let Some(place) = at.checked_sub(1).and_then(|n| buffer.get_mut(n)) {
                *place = b'0' + (rest % 10) as u8;
                (at, rest) = (at - 1, rest / 10);
                if rest == 0 {
                    break;
                }
            }
            buffer.get(at..).unwrap_or_default()
        }
        Kind::Cbor => {
            let bytes = buffer.split_first_chunk_mut::<9>().map(|(bytes, _)| bytes);
            let Some(bytes) = bytes else { return &[] };
            bytes[0] = 0x1B; // unsigned, eight bytes
            bytes[1..].copy_from_slice(&sequence.to_be_bytes());
            bytes
        }
        Kind::Sparkplug | Kind::Skip => &[],
    }
}

/// The payload with its sequence in it.
pub fn with_sequence(out: &mut Vec<u8>, kind: Kind, payload: &[u8], hole: usize, sequence: u64) {
    let (before, after) = payload.split_at_checked(hole).unwrap_or((payload, &[]));
    out.extend_from_slice(before);
    out.extend_from_slice(sequence_bytes(kind, sequence, &mut [0; SEQUENCE_MAX]));
    out.extend_from_slice(after);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: Option<&Value>) -> Said<'_> {
        let (quality, source_ms, confirmed_ms) = (Quality::Good, 1_795_386_896_123, None);
        Said { value, quality, cause: Cause::None, source_ms, confirmed_ms, is_timed: true }
    }

    fn json(stream: Stream, said: &Said<'_>) -> serde_json::Value {
        let (mut body, mut whole) = (Vec::new(), Vec::new());
        let hole = one(&mut body, Encoding::Json, stream, said);
        with_sequence(&mut whole, Kind::Json, &body, hole, 7);
        serde_json::from_slice(&whole).unwrap()
    }

    #[test]
    fn payloads_are_json_whatever_the_value() {
        let rows = [
            (Some(Value::Bool(true)), "true"),
            (Some(Value::Int(-7)), "-7"),
            (Some(Value::Uint(u64::MAX)), "18446744073709551615"),
            (Some(Value::Float(21.5)), "21.5"),
            (Some(Value::Single(0.1)), "0.1"),
            (Some(Value::Float(5.0)), "5.0"),
            (Some(Value::Single(0.0)), "0.0"),
            (Some(Value::Single(-0.0)), "-0.0"),
            (Some(Value::Float(-0.0)), "-0.0"),
            (Some(Value::Float(1e300)), "1e+300"),
            (Some(Value::Text("a\"b".into())), "\"a\\\"b\""),
            (Some(Value::Float(f64::NAN)), "null"),
            (Some(Value::Float(f64::INFINITY)), "null"),
            (Some(Value::Single(f32::NEG_INFINITY)), "null"),
            (Some(Value::List([Value::Single(f32::NAN), Value::Single(0.5)].into())), "[null,0.5]"),
            (Some(Value::Words([1, 2].into())), "[1,2]"),
            (
                Some(Value::List(
                    [Value::Text("a\"b".into()), Value::Bool(true), Value::List([Value::Single(0.5)].into())].into(),
                )),
                "[\"a\\\"b\",true,[0.5]]",
            ),
            (None, "null"),
        ];
        for (value, want) in rows {
            let json = json(Stream::Normal, &said(value.as_ref()));
            assert_eq!(json["value"].to_string(), want);
            assert_eq!(json["sequence"], 7);
            assert_eq!(json["quality"], "good");
            assert_eq!(json["source_time"], "2026-11-22T22:34:56.123Z");
            assert!(json.get("cause").is_none() && json.get("stream").is_none());
        }
    }

    #[test]
    fn what_is_not_good_says_why_and_other_streams_say_their_name() {
        let bad = Said { quality: Quality::Bad, cause: Cause::Exception(2), ..said(None) };
        let json = json(Stream::High, &bad);
        assert_eq!(json["cause"], "Modbus exception 2 (illegal data address)");
        assert_eq!(json["stream"], "high");
    }

    #[test]
    fn what_a_server_says_beyond_good_is_said() {
        let value = Value::Bool(true);
        let overridden = Said { cause: Cause::Status(0x0096_0000), ..said(Some(&value)) };
        let json = json(Stream::Normal, &overridden);
        assert_eq!((&json["quality"], &json["cause"]), (&"good".into(), &"OPC UA GoodLocalOverride".into()));
    }

    #[test]
    fn what_is_said_again_says_when_it_was_confirmed_and_a_clock_nobody_has_set_is_named() {
        let value = Value::Bool(true);
        let again = Said { confirmed_ms: Some(1_795_386_897_000), is_timed: false, ..said(Some(&value)) };
        let json = json(Stream::Normal, &again);
        assert_eq!(
            (&json["source_time"], &json["confirmed_time"]),
            (&"2026-11-22T22:34:56.123Z".into(), &"2026-11-22T22:34:57.000Z".into())
        );
        assert_eq!(json["clock"], "untrusted");
        let mut body = Vec::new();
        let _ = one(&mut body, Encoding::Cbor, Stream::Normal, &again);
        body.push(7);
        assert_eq!(
            minicbor::display(&body).to_string(),
            "{\"value\": true, \"quality\": \"good\", \"source_time_ms\": 1795386896123, \"confirmed_time_ms\": 1795386897000, \
             \"clock\": \"untrusted\", \"sequence\": 7}"
        );
        let mut message = DeviceMessage::default();
        message.say(Encoding::Json, Stream::Normal, "a", &said(Some(&value)));
        message.say(Encoding::Json, Stream::Normal, "b", &again);
        message.say(Encoding::Json, Stream::Normal, "c", &again);
        let (mut body, mut whole) = (Vec::new(), Vec::new());
        let hole = message.close(Encoding::Json, &mut body);
        with_sequence(&mut whole, Kind::Json, &body, hole, 7);
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let readings = json["readings"].as_array().unwrap();
        assert_eq!((readings.len(), &readings[1]["clock"]), (2, &"untrusted".into()), "{json}");
        assert_eq!(readings[1]["values"], serde_json::json!({"b": true, "c": true}));
    }

    #[test]
    fn a_device_with_an_absurd_clock_does_not_stop_anything() {
        assert_eq!(rfc3339(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    fn device(encoding: Encoding) -> Vec<u8> {
        let (one, text) = (Value::Single(21.5), Value::Text("\"x\"\n".into()));
        let mut message = DeviceMessage::default();
        let at = |value, source_ms| Said { source_ms, ..said(value) };
        message.say(encoding, Stream::Normal, "t-1", &at(Some(&one), 1000));
        message.say(encoding, Stream::Normal, "t-2", &at(Some(&text), 1000));
        let bad = Said { quality: Quality::Bad, cause: Cause::Exception(2), ..at(None, 2000) };
        message.say(encoding, Stream::Normal, "t-3", &bad);
        assert_eq!(message.count, 3);
        let (mut body, mut whole) = (Vec::new(), Vec::new());
        let hole = message.close(encoding, &mut body);
        assert!(message.is_empty());
        with_sequence(&mut whole, encoding.kind(), &body, hole, 7);
        whole
    }

    #[test]
    fn a_sequence_stands_in_a_payload_as_it_is_written_by_hand() {
        for sequence in [0, 1, 9, 10, 99, 1_048_577, u64::MAX - 1, u64::MAX] {
            let mut buffer = [0xAA; SEQUENCE_MAX];
            assert_eq!(sequence_bytes(Kind::Json, sequence, &mut buffer), sequence.to_string().as_bytes());
            let want = [&[0x1B][..], &sequence.to_be_bytes()].concat();
            assert_eq!(sequence_bytes(Kind::Cbor, sequence, &mut buffer), want);
        }
    }

    #[test]
    fn what_changed_in_a_poll_is_one_message_and_nothing_is_lost_in_it() {
        let json: serde_json::Value = serde_json::from_slice(&device(Encoding::Json)).unwrap();
        let want = serde_json::json!({"sequence": 7, "readings": [
            {"source_time": "1970-01-01T00:00:01.000Z", "values": {"t-1": 21.5, "t-2": "\"x\"\n"}},
            {"source_time": "1970-01-01T00:00:02.000Z", "quality": "bad",
             "cause": "Modbus exception 2 (illegal data address)", "values": {"t-3": null}},
        ]});
        assert_eq!(json, want);
    }

    /// RFC 8949's diagnostic notation says what the bytes are.
    #[test]
    fn cbor_says_the_same() {
        let shown = minicbor::display(&device(Encoding::Cbor)).to_string();
        let want = "{_ \"readings\": [_ {\"source_time_ms\": 1000, \"values\": {_ \"t-1\": 2.15e1, \"t-2\": \"\"x\"\n\"}}, \
                    {\"source_time_ms\": 2000, \"quality\": \"bad\", \"cause\": \"Modbus exception 2 (illegal data address)\", \
                    \"values\": {_ \"t-3\": null}}], \"sequence\": 7}";
        assert_eq!(shown, want);
        let (mut body, mut whole) = (Vec::new(), Vec::new());
        let value = Value::Uint(9);
        let hole = one(&mut body, Encoding::Cbor, Stream::Low, &said(Some(&value)));
        with_sequence(&mut whole, Kind::Cbor, &body, hole, u64::MAX);
        let shown = minicbor::display(&whole).to_string();
        let want = "{\"value\": 9, \"quality\": \"good\", \"source_time_ms\": 1795386896123, \"stream\": \"low\", \
                    \"sequence\": 18446744073709551615}";
        assert_eq!(shown, want);
        let (nan, infinity) = (Value::Float(f64::NAN), Value::Single(f32::INFINITY));
        let row = Value::List([Value::Float(1.5), Value::Float(f64::NEG_INFINITY)].into());
        for (value, want) in [(nan, "null"), (infinity, "null"), (row, "[1.5, null]")] {
            let mut bytes = Vec::new();
            cbor_value(&mut Encoder::new(&mut bytes), Some(&value));
            let shown = minicbor::display(&bytes).to_string();
            assert_eq!(shown.replace("1.5e0", "1.5"), want, "a tag has one type: no number is no float");
        }
    }
}
