//! What a spool is told: how much, how long, what goes first.

use super::Retention;
use std::time::Duration;

/// Segments: so many make a full spool, none smaller or larger than this.
const SEGMENTS: u64 = 64;
const SEGMENT_RANGE: (u64, u64) = (16 << 10, 16 << 20);

/// See [`SpoolOptions::reopen_after`].
const REOPEN_AFTER: Duration = Duration::from_secs(30);

/// What a spool is told.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Bytes for all streams.
    pub capacity: u64,
    /// Older records are dropped.
    pub age_max: Duration,
    /// What goes first when it is full.
    pub retention: Retention,
    /// Topic of loss records.
    pub loss_topic: String,
    /// A folder that cannot be opened is tried again after so long.
    pub reopen_after: Duration,
}

impl SpoolOptions {
    /// A spool of so many bytes that keeps everything for as long as it fits.
    pub fn new(capacity: u64, loss_topic: &str) -> SpoolOptions {
        let retention = Retention::Oldest;
        let (age_max, loss_topic) = (Duration::MAX, loss_topic.into());
        SpoolOptions { capacity, age_max, retention, loss_topic, reopen_after: REOPEN_AFTER }
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        (self.capacity / SEGMENTS).clamp(SEGMENT_RANGE.0, SEGMENT_RANGE.1)
    }
}
