//! What a configuration may say, and hardly anybody means: `check` tells it with its place. No reason not to start.

use super::plan::LinePlan;
use super::raw;
use super::report::Source;
use super::tags::{DeviceReader, line_of};
use super::values::Spanned;
use device_drivers::Number;
use device_drivers::modbus::{DataType, Format, PointSpec, Table};
use std::collections::HashSet;
use wildmatch::WildMatch;

/// Notes, each once: a hundred devices have one profile.
#[derive(Default)]
pub(super) struct Advice {
    told: HashSet<String>,
    notes: Vec<String>,
}

impl Advice {
    /// Of this place.
    pub(super) fn add(&mut self, file: &std::path::Path, line: usize, what: &str) {
        self.push(format!("{}:{line}: {what}", file.display()));
    }

    /// Those of others, as far as they are new.
    pub(super) fn append(&mut self, others: &mut Advice) {
        others.take().into_iter().for_each(|note| self.push(note));
    }

    fn push(&mut self, note: String) {
        if self.told.insert(note.clone()) {
            self.notes.push(note);
        }
    }

    /// All of them, in the order in which they were found.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Units of a line: one that is not said, one that two devices have.
    pub(super) fn of_units(&mut self, source: &Source, line: &raw::Line) {
        let mut known: Vec<(u8, &str)> = Vec::new();
        for device in &line.devices {
            let (name, at) = (device.name.get_ref(), line_of(&source.text, device.name.span().start));
            let unit = device.unit.as_ref().map_or(1, |u| *u.get_ref());
            if device.unit.is_none() {
                self.add(&source.path, at, &format!("{name} has no `unit`: it is asked as unit 1"));
            }
            if let Some((_, other)) = known.iter().find(|(u, _)| *u == unit) {
                let what = format!("{name} is unit {unit} of line {}, as {other} is", line.name.get_ref());
                self.add(&source.path, at, &what);
            }
            known.push((unit, name));
        }
    }
}

/// Patterns of `allow` that let nothing in: misspelt, or of a tag that nobody may write.
pub(super) fn of_allowed(source: &Source, allow: &[Spanned<String>], lines: &[LinePlan]) -> Vec<String> {
    let writable = |line: &LinePlan| {
        let points = line.points.iter().filter(|p| p.write.is_some());
        let named = points.filter_map(|p| Some(format!("{}/{}", line.devices.get(p.device as usize)?.name, p.tag)));
        named.collect::<Vec<String>>()
    };
    let names: Vec<String> = lines.iter().flat_map(writable).collect();
    let mut advice = Advice::default();
    for given in allow {
        let pattern = WildMatch::new(given.get_ref());
        if !names.iter().any(|name| pattern.matches(name)) {
            let what = format!("`allow` has \"{}\", and no tag of that name may be written", given.get_ref());
            advice.add(&source.path, line_of(&source.text, given.span().start), &what);
        }
    }
    advice.take()
}

/// A value's registers or bits on the wire.
fn span(point: &PointSpec) -> (Table, u32, u32) {
    let start = u32::from(point.address.number);
    (point.address.table, start, start + u32::from(point.format.kind.registers()))
}

impl DeviceReader<'_> {
    fn note(&mut self, tag: &str, what: &str) {
        if let Some((file, line)) = self.seen.get(tag) {
            self.out.advice.add(file, *line, what);
        }
    }

    /// A number that may be written without limits, or with limits that its registers cannot hold.
    pub(super) fn write_is_wide(&mut self, raw: &raw::Tag, format: &Format, is_bit: bool) {
        let Some(write) = raw.write.as_ref().map(Spanned::get_ref) else { return };
        if is_bit || !format.kind.is_number() {
            return;
        }
        let (name, kind) = (raw.name.get_ref(), format.kind);
        let (min, max) = (write.min.map(|n| n.0), write.max.map(|n| n.0));
        if min.is_none() && max.is_none() {
            self.note(name, &format!("{name} may be written without limits: `write` has neither min nor max"));
        }
        let Some((least, most)) = format.range() else { return };
        let what = |end: &str, given: Number, holds: Number| {
            format!("{end} of `write` is {given}, and {name} ({kind}) holds {holds}: what lies beyond is refused")
        };
        if let Some(given) = max.filter(|n| *n > most && *n < Number::MOST) {
            self.note(name, &what("max", given, most));
        }
        if let Some(given) = min.filter(|n| *n < least && *n > Number::LEAST) {
            self.note(name, &what("min", given, least));
        }
    }

    /// Tags of this device that share some of their registers and not all of them, parts of registers apart.
    pub(super) fn overlaps(&mut self) {
        let whole = |p: &&PointSpec| p.address.bits.is_none() && !p.format.kind.is_part();
        let no_block = |p: &&PointSpec| !matches!(p.format.kind, DataType::Words(_));
        let mut points: Vec<&PointSpec> = self.out.modbus.iter().filter(whole).filter(no_block).collect();
        points.sort_by_key(|p| span(p));
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut widest: Option<&PointSpec> = None;
        for point in points {
            let (table, start, end) = span(point);
            if let Some(other) = widest.filter(|w| span(w).0 == table && span(w).2 > start) {
                if (span(other).1, span(other).2) != (start, end) {
                    found.push((other.id.0, point.id.0));
                }
                if span(other).2 >= end {
                    continue;
                }
            }
            widest = Some(point);
        }
        for (a, b) in found {
            let name = |n: u32| self.out.points.get(n as usize).map_or("?".into(), |p| p.tag.clone());
            let (a, b) = (name(a), name(b));
            self.note(&b, &format!("{b} and {a} share registers: is the address or the type of one of them wrong?"));
        }
    }
}
