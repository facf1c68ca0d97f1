//! How things look on a terminal: colour only there (and not with NO_COLOR), columns that stand under each other.

use anstyle::{AnsiColor, Style};

/// Fine.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Wants attention.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Less important.
pub(super) const FAINT: Style = Style::new().dimmed();
/// A heading.
pub(super) const HEAD: Style = Style::new().bold();

/// A text in a style. What strangers have written cannot steer the terminal.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{}{style:#}", plain(text))
}

/// Without control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Rows under each other; a column is as wide as its widest cell. Styles are applied after the padding.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|h| (h.to_uppercase(), FAINT)).collect()] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<(String, Style)>) {
        self.rows.push(cells.into_iter().map(|(text, style)| (plain(&text), style)).collect());
    }

    /// The table, each line indented.
    pub(super) fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|(t, _)| t.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            let last = row.iter().rposition(|(text, _)| !text.is_empty()).unwrap_or(0);
            for (n, ((text, style), width)) in row.iter().zip(&widths).enumerate().take(last + 1) {
                let pad = if n == last { 0 } else { width.saturating_sub(text.chars().count()) + 2 };
                line += &format!("{style}{text}{style:#}{}", " ".repeat(pad));
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

/// A stretch of time, as people say it.
pub(super) fn span(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Microseconds, as people say them.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// Bytes, as people say them.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_whatever_is_in_them() {
        let mut table = Table::new(&["name", "state"]);
        table.row(vec![("rack".into(), Style::new()), ("up".into(), GOOD)]);
        table.row(vec![("Größe\u{1b}[31m".into(), Style::new()), ("down".into(), BAD)]);
        let text = anstream::adapter::strip_str(&table.render(2)).to_string();
        assert_eq!(
            text,
            "  NAME       STATE\n  rack       up\n  Größe?[31m  down\n"
                .replace("NAME       ", "NAME        ")
                .replace("rack       ", "rack        ")
        );
    }

    #[test]
    fn figures_are_said_as_people_say_them() {
        assert_eq!(
            [span(61.0), span(7199.0), span(90_000.0), span(277_000.0)],
            ["61 s", "119 min", "25 h 0 min", "3 d 4 h"]
        );
        assert_eq!([bytes(1023), bytes(1536), bytes(64 << 20)], ["1023 B", "1.5 KiB", "64.0 MiB"]);
        assert_eq!([micros(999), micros(1500), micros(2_000_000)], ["999 us", "1.5 ms", "2.0 s"]);
    }
}
