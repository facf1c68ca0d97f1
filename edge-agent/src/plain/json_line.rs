//! The log for programs: one JSON object a line, no longer than a person's line, and nothing in it that a terminal obeys.

use super::{Cut, LINE_MAX, Shown, escape_unseen, is_seen};
use serde::Serialize;
use serde_json::Value;
use std::fmt::{self, Debug, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// An event as a JSON object. Texts of all its fields together are as long as a person's line, at most; numbers are never left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLine;

#[derive(Serialize)]
struct Row<'a> {
    timestamp: &'a str,
    level: &'a str,
    #[serde(serialize_with = "as_map")]
    fields: Vec<(&'static str, Value)>,
    target: &'a str,
}

fn as_map<S: serde::Serializer>(fields: &[(&'static str, Value)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(fields.iter().map(|(name, value)| (name, value)))
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut told = Told { fields: Vec::new(), left: Some(LINE_MAX) };
        event.record(&mut told);
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        let row = serde_json::to_string(&Row { timestamp: &timestamp, level, fields: told.fields, target });
        writeln!(writer, "{}", escape_unseen(row.map_err(|_| fmt::Error)?))
    }
}

/// Bytes that a character takes in a line (RFC 8259, 7).
fn bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if !is_seen(c) => 6,
        c => c.len_utf8(),
    }
}

struct Told {
    fields: Vec<(&'static str, Value)>,
    /// Bytes that its texts may still take; `None` once something was cut off.
    left: Option<usize>,
}

impl Told {
    fn text(&mut self, field: &Field, value: &dyn Debug) {
        if self.left.is_none() {
            return;
        }
        let mut cut = Cut { writer: String::new(), left: &mut self.left, bytes };
        let _ = write!(cut, "{value:?}"); // into a String; what cannot show itself shows what it could
        let text = cut.writer;
        self.fields.push((field.name(), text.into()));
    }
}

impl Visit for Told {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, &Shown(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &Shown(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::Kept;
    use super::*;

    /// Lines of the log that something brings about.
    fn lines(what: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).event_format(JsonLine).with_writer(move || writer.clone());
        tracing::subscriber::with_default(log.finish(), what);
        kept.lines()
    }

    #[test]
    fn a_line_is_one_object_with_time_level_fields_in_their_order_and_target() {
        let error = std::io::Error::other("\"no\"");
        let lines = lines(|| {
            tracing::warn!(target: "audit", who = "ada", n = -7, is = true, share = 0.5, big = u64::MAX, debug = ?Some("x"),
                error = &error as &dyn std::error::Error, "of a {}", "device");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let rest = "\"level\":\"WARN\",\"fields\":{\"message\":\"of a device\",\"who\":\"ada\",\"n\":-7,\"is\":true,\"share\":0.5,\
                    \"big\":18446744073709551615,\"debug\":\"Some(\\\"x\\\")\",\"error\":\"\\\"no\\\"\"},\"target\":\"audit\"}";
        assert!(line.ends_with(rest), "{line}");
    }

    #[test]
    fn a_line_has_an_end_however_much_a_peer_says_and_is_an_object_all_the_same() {
        for much in ["ä\n", "\"", "\u{1b}[2J", "\u{9b}", "\u{202e}", "\\", "x", "\u{1f600}"] {
            let much = much.repeat(1 << 18);
            let lines = lines(|| {
                tracing::warn!(line = "press", peer = %much, n = 7, "{much}");
                tracing::warn!(line = "press", peer = much, debug = ?much, n = 7, "said");
            });
            assert_eq!(lines.len(), 2);
            for line in &lines {
                let value: Value = serde_json::from_str(line).unwrap();
                assert!((LINE_MAX - 20..LINE_MAX + 300).contains(&line.len()), "{} bytes", line.len());
                assert!(line.chars().all(is_seen), "{line}");
                assert_eq!(value["fields"]["n"], 7, "numbers are always there");
                let cut = value["fields"].as_object().unwrap().values().filter_map(Value::as_str);
                assert_eq!(cut.filter(|text| text.ends_with('…')).count(), 1, "{line}");
            }
            assert!(lines[1].contains("\"message\":\"said\",\"line\":\"press\""), "{}", lines[1]);
        }
    }
}
