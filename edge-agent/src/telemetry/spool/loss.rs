//! What was lost and why, and how it is told: a loss is a record of the stream `high`, and a counter.
//!
//! ```text
//!   retention, damage, a disk that takes nothing, a message too large ──lose──> done, counted ──tell──> a record in `high`
//! ```

use super::record::{self, Kind};
use super::{Spool, State, Stream, VOLATILE_MAX, retention};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Why records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The spool was full.
    Full,
    /// They were too old.
    Age,
    /// One in so many of each series was kept.
    Thinned(u32),
    /// The disk gave back something else than was written.
    Damaged,
    /// The disk took nothing for too long.
    Disk,
    /// The gateway was not stopped: these numbers were never promised.
    Restart,
    /// The broker takes no messages of this size.
    TooLarge,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Age => "age",
            Reason::Thinned(_) => "thinned",
            Reason::Damaged => "damaged",
            Reason::Disk => "disk",
            Reason::Restart => "restart",
            Reason::TooLarge => "too large",
        }
    }
}

/// A stretch of one stream of which records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose numbers they are.
    pub stream: Stream,
    /// First sequence.
    pub from: u64,
    /// Last sequence.
    pub to: u64,
    /// Records lost.
    pub records: u64,
    /// Values in them, as far as that is known.
    pub values: u64,
    /// Bytes of them, as far as that is known.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

impl Spool {
    /// The disk takes nothing, and memory is full: the oldest block of the least important stream goes.
    pub(super) fn overflow(&self, state: &mut State) {
        for stream in [Stream::Low, Stream::Normal, Stream::High] {
            let lane = state.lane_mut(stream);
            lane.take_batch(); // closes the open block
            let Some(block) = lane.oldest_volatile() else { continue };
            if stream == Stream::High && block.bytes.len() < VOLATILE_MAX / 2 {
                continue;
            }
            let done = lane.done.clone();
            let losses = retention::losses_of(&block.bytes, stream, &done, Reason::Disk);
            lane.blocks.retain(|b| b.first != block.first);
            self.lose(state, &losses);
            return;
        }
    }

    /// Marks losses as done, counts and tells them.
    pub(super) fn lose(&self, state: &mut State, losses: &[Loss]) {
        for loss in losses {
            state.lane_mut(loss.stream).finish((loss.from, loss.to), loss.records, loss.bytes);
            match loss.reason {
                Reason::TooLarge => self.stats.refused.fetch_add(loss.values, Relaxed),
                Reason::Damaged => self.stats.damaged.fetch_add(loss.records, Relaxed),
                _ => self.stats.lost.fetch_add(loss.values, Relaxed),
            };
            self.tell(state, loss);
        }
    }

    /// Says in the stream what was lost.
    pub(super) fn tell(&self, state: &mut State, loss: &Loss) {
        use std::io::Write;
        let Loss { stream, from, to, records, values, reason, .. } = loss;
        let now = (self.wall)();
        let mut out = Vec::with_capacity(256);
        record::push(&mut out, Kind::Loss, &[&self.options.loss_topic], (now, 0), |out| {
            let start = out.len();
            let _ = write!(
                out,
                "{{\"lost\":{records},\"values\":{values},\"stream\":\"{}\",\"from_sequence\":{from},\"to_sequence\":{to},\
                 \"reason\":\"{}\"",
                stream.name(),
                reason.name()
            );
            if let Reason::Thinned(kept) = reason {
                let _ = write!(out, ",\"kept_one_in\":{kept}");
            }
            let time = crate::telemetry::payload::rfc3339(device_drivers::value::wall_clock_ms());
            let _ = write!(out, ",\"time\":\"{time}\",\"sequence\":");
            let hole = out.len() - start;
            out.push(b'}');
            hole
        });
        state.lane_mut(Stream::High).append(&out);
        state.urgent = true;
        state.due.get_or_insert_with(Instant::now);
        tracing::warn!(
            "{records} messages of the stream {} are lost, sequences {from} to {to}: {}",
            stream.name(),
            reason.name()
        );
    }
}
