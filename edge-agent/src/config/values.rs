//! Values that carry their unit in the file: `"250ms"`, `"64MiB"`; and the questions asked of many: is a time in its range, is this an
//! address.

use super::report::{Problem, Source};
use device_drivers::Number;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// A value with its place in the file. `toml`'s own, with a schema: that of the value.
#[derive(Clone, Debug)]
pub struct Spanned<T>(toml::Spanned<T>);

impl<T> Spanned<T> {
    /// A value at a place.
    pub fn new(span: Range<usize>, value: T) -> Spanned<T> {
        Spanned(toml::Spanned::new(span, value))
    }

    /// Where it stands.
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }

    /// The value.
    pub fn get_ref(&self) -> &T {
        self.0.get_ref()
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Spanned<T>, D::Error> {
        toml::Spanned::deserialize(d).map(Spanned)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["250ms", "5s"], "pattern": "^[0-9]+ ?(ns|us|ms|s|m|min|h|d|w|[a-z]+)" })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["64MiB"], "pattern": "^[0-9]+ *(KiB|MiB|GiB|kB|MB|GB|B)$" })
    }
}

/// A duration with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A number that nothing is rounded of: a limit of a tag of 64 bits has more digits than a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exact(pub Number);

impl JsonSchema for Exact {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        f64::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        f64::json_schema(generator)
    }
}

struct ExactVisitor;

impl Visitor<'_> for ExactVisitor {
    type Value = Exact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Exact, E> {
        Ok(Exact(Number::Whole(n.into())))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Exact, E> {
        Ok(Exact(Number::Whole(n.into())))
    }

    fn visit_i128<E: Error>(self, n: i128) -> Result<Exact, E> {
        Ok(Exact(Number::Whole(n)))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Exact, E> {
        Ok(Exact(Number::Real(n)))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Exact, D::Error> {
        d.deserialize_any(ExactVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, as in \"250ms\" or \"5s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        humantime::parse_duration(text)
            .map(Time)
            .map_err(|_| E::custom(format!("\"{text}\" is not a duration with its unit, as in \"250ms\" or \"5s\"")))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        d.deserialize_str(TimeVisitor)
    }
}

struct SizeVisitor;

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size with its unit, as in \"64MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        let parsed = UNITS.iter().find_map(|(unit, factor)| {
            let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
            number.checked_mul(*factor)
        });
        parsed.map(Size).ok_or_else(|| E::custom(format!("\"{text}\" is not a size with its unit, as in \"64MiB\"")))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        d.deserialize_str(SizeVisitor)
    }
}

/// A time that is given or not, and its range.
pub(super) fn within(
    source: &Source,
    given: &Option<Spanned<Time>>,
    default: Duration,
    range: RangeInclusive<Duration>,
    problems: &mut Vec<Problem>,
) -> Duration {
    let Some(given) = given else { return default };
    let time = given.get_ref().0;
    if !range.contains(&time) {
        let [from, to] = [range.start(), range.end()].map(|t| humantime::format_duration(*t));
        let label = format!("must be {from} to {to}");
        problems.push(source.problem(given.span(), "this time is out of range", label));
    }
    time
}

/// Whether this can be a host's name or address.
pub(super) fn is_host(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._:[]%".contains(c))
}

/// What helps where somebody has hoped that something is filled in.
pub(super) fn not_filled_in(text: &str) -> Option<&'static str> {
    let hoped = text.contains("${") || text.contains("{{") || text.contains("$(");
    hoped.then_some("nothing is filled in here: write the address out, or make the file with a tool that fills it in")
}

/// A folder beside the file that names it; `~` would be one of that name.
pub(super) fn no_home(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) {
    if text.get_ref() == "~" || text.get_ref().starts_with("~/") {
        let problem = source.problem(text.span(), "`~` means no folder here", "a folder of that name would be made");
        problems.push(problem.help("write the path out, as in \"/home/ada/state\""));
    }
}

/// `host:port`, neither empty.
pub(super) fn host_port(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) -> (String, u16) {
    let parsed = text.get_ref().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if port > 0 && is_host(host) => (host.to_string(), port),
        _ => {
            let label = format!("found \"{}\", expected host:port, as in \"192.168.1.10:502\"", text.get_ref());
            let problem = source.problem(text.span(), "this is not a network address", label);
            problems.push(match not_filled_in(text.get_ref()) {
                Some(help) => problem.help(help),
                None => problem,
            });
            (String::new(), 0)
        }
    }
}
