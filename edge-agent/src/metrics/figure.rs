//! What a figure is, and how the rows of the table read theirs.

use super::Stages;
use super::histogram::{Edges, Histogram};
use crate::field::{DeviceStats, LineStats};
use std::sync::atomic::Ordering::Relaxed;

/// How a figure behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution, seconds.
    Histogram,
}

/// Takes one sample of a figure: label and value.
pub(super) type Put<'a> = &'a mut dyn FnMut(Option<(&'static str, &str)>, Reading<'_>);

/// A value, or a distribution.
pub enum Reading<'a> {
    /// A number.
    Number(f64),
    /// A number with more labels than one.
    Labelled(&'a [(&'static str, &'a str)], f64),
    /// A distribution.
    Distribution(&'a Histogram, Edges),
}

/// One figure.
pub struct Figure {
    /// Its name, with unit.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    pub(super) read: fn(&Stages, Put<'_>),
}

pub(super) const fn figure(name: &'static str, help: &'static str, kind: Kind, read: fn(&Stages, Put<'_>)) -> Figure {
    Figure { name, help, kind, read }
}

pub(super) fn number(put: Put<'_>, value: u64) {
    put(None, Reading::Number(value as f64));
}

pub(super) fn flag(put: Put<'_>, value: bool) {
    put(None, Reading::Number(f64::from(u8::from(value))));
}

pub(super) fn per_line(s: &Stages, put: Put<'_>, read: impl Fn(&LineStats) -> u64) {
    for (name, stats) in s.lines.all().iter() {
        put(Some(("line", name)), Reading::Number(read(stats) as f64));
    }
}

pub(super) fn per_device(s: &Stages, put: Put<'_>, read: impl Fn(&DeviceStats) -> f64) {
    for (line, stats) in s.lines.all().iter() {
        let line: &str = line;
        for device in &stats.devices {
            put(Some(("device", &device.name)), Reading::Labelled(&[("line", line)], read(device)));
        }
    }
}

/// A figure of the process itself; left out where the host does not say.
pub(super) fn of_process(put: Put<'_>, value: Option<f64>) {
    if let Some(value) = value {
        put(None, Reading::Number(value));
    }
}

pub(super) fn counter(s: &Stages, put: Put<'_>, n: usize) {
    number(put, s.control.counters.get(n).map_or(0, |c| c.load(Relaxed)));
}
