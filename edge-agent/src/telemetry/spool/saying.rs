//! What the log is told of losses: the first of a kind at once, and what follows once a minute, summed up. The stream has each of them.

use super::loss::Loss;
use super::{Reason, Stream};
use std::time::{Duration, Instant};

/// How often the log hears of the same stream and reason.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    said: Option<Instant>,
    /// Since then.
    messages: u64,
    values: u64,
    losses: u64,
}

/// What was said, by stream and reason.
#[derive(Debug, Default)]
pub(super) struct Saying([[Kept; Reason::NAMES.len()]; 3]);

impl Saying {
    /// Says what was lost, or keeps it for later.
    pub(super) fn say(&mut self, loss: &Loss, now: Instant) {
        let kept = self.0.get_mut(loss.stream.index()).and_then(|row| row.get_mut(loss.reason.index()));
        let Some(kept) = kept else { return };
        if kept.said.is_some_and(|at| now < at + EVERY) {
            (kept.messages, kept.values) = (kept.messages + loss.records, kept.values + loss.values);
            kept.losses += 1;
            return;
        }
        kept.said = Some(now);
        let Loss { stream, from, to, records, values, reason, .. } = loss;
        let (stream, reason) = (stream.name(), reason.words());
        let sequences = if from == to { format!("sequence {from}") } else { format!("sequences {from} to {to}") };
        tracing::warn!("{records} messages ({values} values) of the stream {stream} are lost, {sequences}: {reason}");
    }

    /// Says what was kept for long enough.
    pub(super) fn look(&mut self, now: Instant) {
        for (stream, row) in super::STREAMS.into_iter().zip(&mut self.0) {
            for (name, kept) in Reason::NAMES.into_iter().zip(row) {
                if kept.losses > 0 && kept.said.is_none_or(|at| now >= at + EVERY) {
                    let Kept { messages, values, losses, .. } = *kept;
                    *kept = Kept { said: Some(now), ..Kept::default() };
                    let (stream, s) = (Stream::name(stream), EVERY.as_secs());
                    tracing::warn!(
                        "{messages} more messages ({values} values) of the stream {stream} were lost within {s} s, in {losses} stretches: {name}"
                    );
                }
            }
        }
    }
}
