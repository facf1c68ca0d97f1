//! What the spool counts, and what follows from it: how full it is, how long it lasts, when it will be empty. For metrics and
//! `edge-agent status`.

use super::Reason;
use super::tally::Lost;
use crate::metrics::histogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How much of a new measurement a rate takes over each second: a tenth, so it follows within some ten seconds.
const SHARE: f64 = 0.1;

/// What the spool counts.
#[derive(Debug, Default)]
pub struct SpoolStats {
    /// Values appended.
    pub produced: AtomicU64,
    /// Values acknowledged by the broker.
    pub delivered: AtomicU64,
    /// What was lost, by reason.
    pub lost: Lost,
    /// Values waiting.
    pub waiting_values: AtomicU64,
    /// Messages delivered or lost since the start: while something waits for a broker that is there, this rises.
    pub drained: AtomicU64,
    /// Messages waiting.
    pub waiting: AtomicU64,
    /// Bytes of them.
    pub waiting_bytes: AtomicU64,
    /// Bytes on disk, of what is done too: a segment goes when all in it is.
    pub disk_bytes: AtomicU64,
    /// Bytes that the disk has left, or memory when it takes nothing; all ones: nobody knows.
    pub disk_free: AtomicU64,
    /// Bytes that no disk holds yet.
    pub volatile_bytes: AtomicU64,
    /// Commits made.
    pub commits: AtomicU64,
    /// Bytes written by them.
    pub written_bytes: AtomicU64,
    /// Writes and fsyncs that failed.
    pub disk_faults: AtomicU64,
    /// The disk takes nothing right now.
    pub is_failing: AtomicBool,
    /// Time of a commit.
    pub commit: Histogram,
    pub(super) rates: Rates,
}

/// Rates, smoothed.
#[derive(Debug, Default)]
pub(super) struct Rates {
    came_bytes: AtomicU64,
    came_values: AtomicU64,
    went_bytes: AtomicU64,
    last: std::sync::Mutex<Option<(Instant, [u64; 3])>>,
    /// Bytes in, values in, bytes out a second: bits of f64.
    smooth: [AtomicU64; 3],
}

impl Rates {
    pub(super) fn came(&self, bytes: u64, values: u64) {
        self.came_bytes.fetch_add(bytes, Relaxed);
        self.came_values.fetch_add(values, Relaxed);
    }

    pub(super) fn went(&self, bytes: u64) {
        self.went_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn look(&self, now: Instant) {
        let counts = [&self.came_bytes, &self.came_values, &self.went_bytes].map(|c| c.load(Relaxed));
        let Ok(mut last) = self.last.lock() else { return };
        if let Some((then, before)) = *last {
            let seconds = (now - then).as_secs_f64();
            if seconds < 0.5 {
                return;
            }
            for ((smooth, now), before) in self.smooth.iter().zip(counts).zip(before) {
                let (rate, old) = ((now - before) as f64 / seconds, f64::from_bits(smooth.load(Relaxed)));
                let new = if old == 0.0 { rate } else { old + (rate - old) * SHARE };
                smooth.store(new.to_bits(), Relaxed);
            }
        }
        *last = Some((now, counts));
    }

    fn rate(&self, n: usize) -> f64 {
        self.smooth.get(n).map_or(0.0, |r| f64::from_bits(r.load(Relaxed)))
    }
}

/// What the spool looks like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpoolStatus {
    /// Messages waiting for the broker.
    pub waiting: u64,
    /// Bytes of these messages.
    pub waiting_bytes: u64,
    /// Bytes that the spool takes, on disk and in memory: a segment of it goes when all in it is acknowledged.
    pub used_bytes: u64,
    /// Bytes there are.
    pub capacity_bytes: u64,
    /// Bytes that it has room for: of these, and on its disk.
    pub room_bytes: u64,
    /// Bytes that come in a second.
    pub in_bytes_per_s: f64,
    /// Bytes that the broker acknowledges a second.
    pub out_bytes_per_s: f64,
    /// At this rate it is full after so long; `None`: never.
    pub full_in_s: Option<f64>,
    /// At this rate nothing waits any more after so long; 0: nothing waits; `None`: never.
    pub drained_in_s: Option<f64>,
    /// Without a broker it would last so long.
    pub lasts_s: Option<f64>,
    /// Values lost.
    pub lost: u64,
    /// Records that damage took.
    pub damaged: u64,
    /// The disk takes nothing.
    pub is_failing: bool,
}

/// Waiting messages that are no backlog: they are on their way.
const AFLOAT: u64 = 100;

impl SpoolStatus {
    pub(super) fn of(stats: &SpoolStats, capacity_bytes: u64) -> SpoolStatus {
        let rates = &stats.rates;
        let (waiting, waiting_bytes) = (stats.waiting.load(Relaxed), stats.waiting_bytes.load(Relaxed));
        let used_bytes = stats.disk_bytes.load(Relaxed) + stats.volatile_bytes.load(Relaxed);
        let (in_bytes_per_s, out_bytes_per_s) = (rates.rate(0), rates.rate(2));
        // The spool may be smaller than what the disk has left, or the other way round.
        let room_bytes = capacity_bytes.saturating_sub(used_bytes).min(stats.disk_free.load(Relaxed));
        let room = room_bytes as f64;
        let after = |bytes: f64, rate: f64| (rate > 0.0).then(|| bytes / rate);
        let drained = if waiting <= AFLOAT { Some(0.0) } else { None };
        SpoolStatus {
            waiting,
            waiting_bytes,
            used_bytes,
            capacity_bytes,
            room_bytes,
            in_bytes_per_s,
            out_bytes_per_s,
            full_in_s: if waiting <= AFLOAT { None } else { after(room, in_bytes_per_s - out_bytes_per_s) },
            drained_in_s: drained.or_else(|| after(waiting_bytes as f64, out_bytes_per_s - in_bytes_per_s)),
            lasts_s: after(room, in_bytes_per_s),
            lost: stats.lost.values(),
            damaged: stats.lost.of(Reason::Damaged).0,
            is_failing: stats.is_failing.load(Relaxed),
        }
    }
}
