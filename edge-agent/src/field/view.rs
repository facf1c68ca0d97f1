//! Looking at values: whoever wants to see points asks the line's own task, which answers when it sweeps. Nothing is copied, locked or
//! counted for those that nobody looks at.

use super::FieldLine;
use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for one line; a page asks once a second.
pub const LOOKS: usize = 16;
/// Points one answer holds at most.
pub const POINTS_MAX: usize = 1000;

/// A question.
#[derive(Debug)]
pub struct Look {
    /// Which points; ignored with `bad`.
    pub points: Vec<u32>,
    /// Instead: the first so many that are not Good.
    pub bad: Option<usize>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Vec<PointSeen>>,
}

/// A point as the line knows it.
#[derive(Clone, Debug)]
pub struct PointSeen {
    /// Its number on the line.
    pub point: u32,
    /// The last value known.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// Why not further.
    pub cause: Cause,
    /// Since when it has been so at its source, milliseconds since 1970.
    pub source_ms: u64,
    /// When its source last said so, milliseconds since 1970.
    pub confirmed_ms: u64,
    /// Whether the clock of the source time is one to go by.
    pub is_timed: bool,
    /// How long ago it became what it is, and how long ago its source said so last, by no clock that is ever set.
    pub ages: [Duration; 2],
    /// Its deadband is configured, and not in force.
    pub is_unfiltered: bool,
}

impl FieldLine {
    /// Answers who is waiting.
    pub(super) fn answer_looks(&mut self) {
        while let Ok(look) = self.wires.looks.try_recv() {
            let seen = match look.bad {
                Some(most) => {
                    let bad = self.last.iter().enumerate().filter(|(_, last)| last.quality != Quality::Good);
                    bad.take(most.min(POINTS_MAX)).filter_map(|(n, _)| self.seen(n as u32)).collect()
                }
                None => look.points.iter().take(POINTS_MAX).filter_map(|n| self.seen(*n)).collect(),
            };
            let _ = look.reply.send(seen); // who has gone away is not told
        }
    }

    fn seen(&self, point: u32) -> Option<PointSeen> {
        let last = self.last.get(point as usize)?;
        let now = self.now_ms();
        let age = |since: u32| Duration::from_millis(now.wrapping_sub(since).into());
        let (value, cause, quality, source_ms) = (last.value.clone(), last.cause, last.quality, last.source_ms);
        let (confirmed_ms, is_timed, ages) =
            (last.confirmed_ms, last.is_timed, [last.changed, last.confirmed].map(age));
        let is_unfiltered = self.is_unfiltered(point);
        Some(PointSeen { point, value, quality, cause, source_ms, confirmed_ms, is_timed, ages, is_unfiltered })
    }
}

/// The asking end of a line.
pub type LookSender = mpsc::Sender<Look>;
