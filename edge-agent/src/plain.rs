//! Text from outside, made harmless: a tag's name, a broker's reason or a server's certificate may say anything, and must neither begin a line of
//! its own in the log nor steer a terminal.
//!
//! ```text
//!   "pump\n2026-11-30 INFO admin signed in"  ──>  pump\n2026-11-30 INFO admin signed in      on one line, and seen for what it is
//!   "\u{1b}]0;..\u{7}"                       ──>  \u{1b}]0;..\u{7}                           (ECMA-48: control functions)
//! ```

mod json_line;

pub use json_line::JsonLine;

use anstyle::Style;
use std::fmt::{self, Debug, Display, Write};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Longest line of a log, bytes: what a peer says may be megabytes.
const LINE_MAX: usize = 4096;

/// Whether a character is one to be seen: no control, no line end of Unicode's own, nothing that turns the direction of what follows.
fn is_seen(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Passes text on, with what is not to be seen written out.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some((at, c)) = text.char_indices().find(|(_, c)| !is_seen(*c)) {
            let (seen, rest) = text.split_at(at);
            write!(self.0, "{seen}{}", c.escape_default())?;
            text = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(text)
    }
}

/// A text on one line, and nothing in it that a terminal obeys.
pub fn line(text: &str) -> String {
    let mut plain = Escaping(String::with_capacity(text.len()));
    let _ = plain.write_str(text); // into a String: cannot fail
    plain.0
}

/// A text of several lines for a terminal: line ends, tabs and colours of our own pass, no other control does.
pub fn terminal(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| !is_seen(*c)) {
        let (seen, from) = rest.split_at(at);
        plain.push_str(seen);
        let passes = match c {
            '\n' | '\t' => c.len_utf8(),
            _ => colour(from),
        };
        let (passed, written_out) = from.split_at(if passes > 0 { passes } else { c.len_utf8() });
        match passes {
            0 => plain.extend(c.escape_default()),
            _ => plain.push_str(passed),
        }
        rest = written_out;
    }
    plain + rest
}

/// A document for programs, that a terminal may get to see: controls beyond those that JSON itself escapes (RFC 8259, 7) are escaped too.
pub fn json(value: &serde_json::Value) -> String {
    escape_unseen(format!("{value:#}"))
}

/// The same text of a JSON document, with what is not to be seen as escapes; line ends stay.
fn escape_unseen(text: String) -> String {
    if text.chars().all(|c| is_seen(c) || c == '\n') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push(c),
            c if is_seen(c) => plain.push(c),
            c => plain += &format!("\\u{:04x}", u32::from(c)), // all of them have four digits
        }
    }
    plain
}

/// The length of a colour sequence (`ESC [ 1 ; 31 m`) at the beginning of a text; 0 if there is none.
fn colour(text: &str) -> usize {
    let Some(inner) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';');
    end.filter(|end| inner.get(*end..).is_some_and(|rest| rest.starts_with('m'))).map_or(0, |end| end + 3)
}

/// What a person's log says of an event: message and fields, each on the one line whatever is in it. See [`JsonLine`] for that of programs.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut said = Said { writer, is_first: true, left: Some(LINE_MAX), result: Ok(()) };
        fields.record(&mut said);
        said.result
    }
}

struct Said<'w> {
    writer: Writer<'w>,
    is_first: bool,
    /// Bytes that the line may still take; `None` once something was cut off.
    left: Option<usize>,
    result: fmt::Result,
}

/// Passes on what there is room for; an ellipsis stands for the rest.
struct Cut<'a, W> {
    writer: W,
    left: &'a mut Option<usize>,
    /// What a character takes.
    bytes: fn(char) -> usize,
}

impl<W: Write> Write for Cut<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(room) = self.left.take() else { return Ok(()) };
        let mut left = Some(room);
        let end = text.char_indices().find(|(_, c)| {
            left = left.and_then(|left| left.checked_sub((self.bytes)(*c)));
            left.is_none()
        });
        *self.left = left;
        let Some((end, _)) = end else { return self.writer.write_str(text) };
        self.writer.write_str(text.get(..end).unwrap_or_default())?;
        self.writer.write_str("…")
    }
}

impl Said<'_> {
    fn put(&mut self, field: &Field, value: &dyn Debug) -> fmt::Result {
        if self.left.is_none() {
            return Ok(());
        }
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        if field.name() == "message" {
            write!(self.writer, "{gap}")?;
        } else {
            let style = if self.writer.has_ansi_escapes() { Style::new().italic() } else { Style::new() };
            write!(self.writer, "{gap}{style}{}{style:#}=", field.name())?;
        }
        write!(Escaping(Cut { writer: &mut self.writer, left: &mut self.left, bytes: char::len_utf8 }), "{value:?}")
    }

    fn take(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.put(field, value);
        }
    }
}

/// Shows itself as it is displayed.
struct Shown<T>(T);

impl<T: Display> Debug for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl Visit for Said<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.take(field, &Shown(value)) } else { self.take(field, &value) }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, &Shown(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, value);
    }
}

/// A log that tests look at.
#[cfg(test)]
pub(crate) mod kept {
    use super::OneLine;
    use std::sync::{Arc, Mutex, Once};

    #[derive(Clone, Default)]
    pub(crate) struct Kept(pub(crate) Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// Keeps what this thread says for as long as the guard lives.
        pub(crate) fn listen() -> (Kept, tracing::subscriber::DefaultGuard) {
            // Somebody listens everywhere: a line that another thread says for the first time while nobody does may be taken for one
            // that nobody will ever want.
            static EVERYWHERE: Once = Once::new();
            EVERYWHERE.call_once(|| {
                let nowhere = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
                let _ = tracing::subscriber::set_global_default(nowhere);
            });
            let kept = Kept::default();
            let writer = kept.clone();
            let log =
                tracing_subscriber::fmt().with_ansi(false).fmt_fields(OneLine).with_writer(move || writer.clone());
            (kept, tracing::subscriber::set_default(log.finish()))
        }

        /// Its lines.
        pub(crate) fn lines(&self) -> Vec<String> {
            String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(String::from).collect()
        }
    }

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kept::Kept;
    use super::*;

    #[test]
    fn nothing_from_outside_begins_a_line_of_the_log_or_steers_a_terminal() {
        let evil = "pump\n2026-11-30T00:00:00Z  INFO audit: admin signed in\r\u{1b}[2J\u{9b}31m\u{2028}\u{202e}x";
        for (ansi, forms) in [(false, 0), (true, 1)] {
            let kept = Kept::default();
            let (writer, log) = (kept.clone(), kept);
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(ansi)
                .fmt_fields(OneLine)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("{evil}");
                tracing::warn!(tag = evil, shown = %evil, debug = ?evil, "of a device");
                tracing::error!(error = &std::io::Error::other(evil) as &dyn std::error::Error, n = 7, "{}", evil);
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.contains("of a device") && text.contains("n"), "{text}");
            let ours = |c: char| c == '\n' || (c == '\u{1b}' && forms == 1);
            assert!(text.chars().all(|c| is_seen(c) || ours(c)), "{text:?}");
            assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        }
    }

    #[test]
    fn a_line_of_the_log_has_an_end_however_much_a_peer_says() {
        let kept = Kept::default();
        let (writer, log) = (kept.clone(), kept);
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).fmt_fields(OneLine).with_writer(move || writer.clone()).finish();
        let much = "ä\n".repeat(1 << 20);
        tracing::subscriber::with_default(subscriber, || tracing::warn!(line = "press", peer = %much, "{much}"));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.len() < LINE_MAX + 200 && text.trim_end().ends_with('…'), "{} bytes", text.len());
    }

    #[test]
    fn a_terminal_gets_lines_tabs_and_colours_and_no_other_control() {
        let rows = [
            ("a\n\tb", "a\n\tb"),
            ("\u{1b}[1;31mred\u{1b}[0m", "\u{1b}[1;31mred\u{1b}[0m"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("a\rb\u{9b}1m\u{1b}", "a\\rb\\u{9b}1m\\u{1b}"),
            ("\u{202e}Grüße", "\\u{202e}Grüße"),
            ("\u{1b}[31", "\\u{1b}[31"),
        ];
        for (text, want) in rows {
            assert_eq!(terminal(text), want);
        }
        let value = serde_json::json!({ "name": "a\n\u{9b}31m\u{7f}\u{202e}" });
        assert!(json(&value).chars().all(|c| is_seen(c) || c == '\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(&value)).unwrap(), value);
        assert_eq!(line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
    }
}
