//! Tag tables as spreadsheets write them: one tag a row, the first row names the columns.
//!
//! ```text
//!   name,address,type,order,factor,offset,interval
//!   flow,holding:0,f32,CDAB,,,1s
//!   total,40011,u32,,0.1,,
//! ```
//!
//! A table with semicolons or tabs is read as well; with semicolons numbers may have a decimal comma, as spreadsheets in half of
//! Europe write them. Columns are the keys of a `[[tag]]`; an empty cell is a key that is not there. Errors name the file, the line and the cell.

use super::raw;
use super::report::{Problem, Report, Source};
use super::tags::PROBLEMS_MAX;
use super::values::{Exact, Spanned, Time};
use device_drivers::Number;
use std::ops::Range;
use std::time::Duration;

const COLUMNS: [&str; 28] = [
    "name",
    "address",
    "type",
    "order",
    "factor",
    "offset",
    "min",
    "max",
    "interval",
    "node",
    "sampling",
    "deadband",
    "deadband_percent",
    "queue",
    "priority",
    "write",
    "write_min",
    "write_max",
    "write_every",
    "write_priority",
    "write_verify",
    "write_read_modify_write",
    "unit",
    "description",
    "low",
    "high",
    "absent",
    "scale_from",
];

/// More columns than this are no table of tags: each of ours may stand in it once.
const COLUMNS_MAX: usize = 100;

/// Reads all rows; every problem of the table is in the report.
pub(super) fn tags(source: &Source) -> Result<Vec<raw::Tag>, Report> {
    let mut problems = Vec::new();
    let delimiter = delimiter(&source.text);
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .delimiter(delimiter as u8) // one of three, all ASCII
        .from_reader(source.text.as_bytes());
    let columns = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(e) => return Err(Report(vec![broken(source, &e)])),
    };
    if columns.len() > COLUMNS_MAX {
        let label = format!("found {} columns; there are {}", columns.len(), COLUMNS.len());
        let problem = source.problem(0..0, "the table has too many columns", label);
        return Err(Report(vec![problem.help(format!("the columns are: {}", COLUMNS.join(", ")))]));
    }
    let head = cells(source, delimiter, 0, &columns);
    for (column, at) in columns.iter().zip(&head) {
        if !COLUMNS.contains(&column) {
            let near =
                super::report::closest(column, &COLUMNS).map_or(String::new(), |n| format!("did you mean `{n}`? "));
            let problem = source.problem(at.clone(), format!("there is no column `{column}`"), "unknown column");
            problems.push(problem.help(format!("{near}The columns are: {}", COLUMNS.join(", "))));
        }
    }
    for (n, column) in columns.iter().enumerate() {
        if columns.iter().take(n).any(|c| c == column) {
            let at = head.get(n).cloned().unwrap_or(0..0);
            problems.push(source.problem(at, format!("the column `{column}` stands twice"), "which of them is meant?"));
        }
    }
    if !columns.iter().any(|c| c == "name") {
        let at = head.first().cloned().unwrap_or(0..0);
        problems.push(source.problem(at, "the table has no column `name`", "the first row names the columns"));
    }
    if !problems.is_empty() {
        return Err(Report(problems));
    }
    let mut tags = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let start = record.position().map_or(0, |p| p.byte() as usize);
                let at = cells(source, delimiter, start, &record);
                tags.push(
                    Row { source, delimiter, columns: &columns, record: &record, at: &at, problems: &mut problems }
                        .tag(),
                );
            }
            Err(e) => problems.push(broken(source, &e)),
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if problems.is_empty() { Ok(tags) } else { Err(Report(problems)) }
}

/// What stands between the cells of the first row.
fn delimiter(text: &str) -> char {
    let head = text.lines().find(|l| !l.starts_with('#') && !l.trim().is_empty()).unwrap_or_default();
    [',', ';', '\t'].into_iter().max_by_key(|d| (head.matches(*d).count(), *d == ',')).unwrap_or(',')
}

fn broken(source: &Source, error: &csv::Error) -> Problem {
    let at = error.position().map_or(0, |p| p.byte() as usize);
    let end = source.text.get(at..).and_then(|t| t.find('\n')).map_or(source.text.len(), |n| at + n);
    let label = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} cells, and the first row has {expected_len}")
        }
        _ => error.to_string(),
    };
    source.problem(at..end, "this row cannot be read", label)
}

/// Where each cell lies in the file; of a row with quotation marks, the whole row.
fn cells(source: &Source, delimiter: char, start: usize, record: &csv::StringRecord) -> Vec<Range<usize>> {
    let rest = source.text.get(start..).unwrap_or_default();
    // Comments and empty lines may stand before the row.
    let skipped: usize =
        rest.split_inclusive('\n').take_while(|l| l.starts_with('#') || l.trim().is_empty()).map(str::len).sum();
    let start = start + skipped;
    let row = source.text.get(start..).and_then(|t| t.split(['\n', '\r']).next()).unwrap_or_default();
    if row.contains('"') {
        return vec![start..start + row.len(); record.len()];
    }
    let mut at = start;
    row.split(delimiter)
        .map(|cell| {
            let from = at + (cell.len() - cell.trim_start().len());
            at += cell.len() + 1;
            from..from + cell.trim().len()
        })
        .collect()
}

struct Row<'a> {
    source: &'a Source,
    delimiter: char,
    columns: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
    at: &'a [Range<usize>],
    problems: &'a mut Vec<Problem>,
}

impl Row<'_> {
    fn text(&self, column: &str) -> Option<Spanned<String>> {
        let i = self.columns.iter().position(|c| c == column)?;
        let cell = self.record.get(i).filter(|c| !c.is_empty())?;
        Some(Spanned::new(self.at.get(i).cloned().unwrap_or(0..0), cell.to_string()))
    }

    /// Words with blanks between them.
    fn words(&self, column: &str) -> Option<Spanned<Vec<String>>> {
        let text = self.text(column)?;
        Some(Spanned::new(text.span(), text.get_ref().split_whitespace().map(String::from).collect()))
    }

    fn parsed<T>(&mut self, column: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Spanned<T>> {
        let text = self.text(column)?;
        match parse(text.get_ref()) {
            Some(value) => Some(Spanned::new(text.span(), value)),
            None => {
                let label = format!("found \"{}\", expected {what}", text.get_ref());
                self.problems.push(self.source.problem(text.span(), format!("this is no {column}"), label));
                None
            }
        }
    }

    fn number(&mut self, column: &str) -> Option<Spanned<f64>> {
        let comma = self.delimiter == ';';
        self.parsed(column, "a number with a decimal point, as in 0.1", move |t| {
            let text = if comma { t.replace(',', ".") } else { t.to_string() };
            text.parse().ok().filter(|n: &f64| n.is_finite())
        })
    }

    fn exact(&mut self, column: &str) -> Option<Spanned<Exact>> {
        let whole = self.text(column).and_then(|t| Some(Spanned::new(t.span(), t.get_ref().parse::<i128>().ok()?)));
        match whole {
            Some(n) => Some(Spanned::new(n.span(), Exact(Number::Whole(*n.get_ref())))),
            None => self.number(column).map(|n| Spanned::new(n.span(), Exact(Number::Real(*n.get_ref())))),
        }
    }

    fn yes_or_no(&mut self, column: &str) -> Option<Spanned<bool>> {
        self.parsed(column, "yes or no", |t| match t.to_ascii_lowercase().as_str() {
            "yes" | "true" | "1" => Some(true),
            "no" | "false" | "0" => Some(false),
            _ => None,
        })
    }

    fn time(&mut self, column: &str) -> Option<Spanned<Time>> {
        let parse = |t: &str| humantime::parse_duration(t).ok().map(|d: Duration| Time(d));
        self.parsed(column, "a duration with its unit, as in 250ms", parse)
    }

    /// How a tag is written says nothing while nobody has said that it may be.
    fn rules_are_wanted(&mut self, is_said: bool) {
        let rules =
            ["write_min", "write_max", "write_every", "write_priority", "write_verify", "write_read_modify_write"];
        let Some((column, cell)) = rules.iter().find_map(|c| Some((c, self.text(c)?))).filter(|_| !is_said) else {
            return;
        };
        let title = format!("`{column}` has no effect here");
        let problem =
            self.source.problem(cell.span(), title, "the cell of `write` is empty: nobody may write this tag");
        self.problems.push(problem.help("write yes or no into the column `write`"));
    }

    fn tag(mut self) -> raw::Tag {
        let whole = self.at.first().cloned().unwrap_or(0..0);
        let write = self.yes_or_no("write");
        self.rules_are_wanted(write.is_some());
        let rule = raw::Write {
            min: self.exact("write_min").map(Spanned::into_inner),
            max: self.exact("write_max").map(Spanned::into_inner),
            every: self.time("write_every").map(Spanned::into_inner),
            priority: self.parsed("write_priority", "0 to 255", |t| t.parse().ok()).map_or(0, Spanned::into_inner),
            verify: self.yes_or_no("write_verify").map(Spanned::into_inner),
            read_modify_write: self.yes_or_no("write_read_modify_write").is_some_and(Spanned::into_inner),
        };
        raw::Tag {
            name: self.text("name").unwrap_or_else(|| Spanned::new(whole, String::new())),
            address: self.text("address"),
            kind: self.text("type"),
            order: self.text("order"),
            factor: self.number("factor"),
            offset: self.number("offset"),
            min: self.exact("min"),
            max: self.exact("max"),
            write: write.filter(|w| *w.get_ref()).map(|w| Spanned::new(w.span(), rule)),
            node: self.text("node"),
            interval: self.time("interval"),
            sampling: self.time("sampling"),
            deadband: self.number("deadband"),
            deadband_percent: self.number("deadband_percent"),
            queue: self.parsed("queue", "a whole number", |t| t.parse().ok()),
            poll: None,
            priority: self.text("priority"),
            unit: self.text("unit"),
            description: self.text("description"),
            low: self.number("low"),
            absent: self.words("absent"),
            scale_from: self.text("scale_from"),
            high: self.number("high"),
        }
    }
}
