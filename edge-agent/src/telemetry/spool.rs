//! The spool: samples that have been promised and not been acknowledged, numbered without gaps. A sample is a message: one
//! value, or what changed in one poll of a device.
//!
//! ```text
//!   append ──>  [ 7 | 8 | 9 | 10 | 11 | 12 ]          next = 13
//!                 ^           ^
//!                 first       in flight up to here (the sender's own mark)
//!   acknowledge(9) drops 7, 8, 9.     full: the oldest is dropped, counted, and told in the stream as a loss record
//! ```
//!
//! One lock, held for a push or a pop, never across an await. The sequence of a dropped sample is never used again, so a
//! subscriber can see the gap that the loss record names.

use super::Sample;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A stretch of samples that had to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// First sequence lost.
    pub from: u64,
    /// Last sequence lost.
    pub to: u64,
}

impl Loss {
    /// How many.
    pub fn count(&self) -> u64 {
        self.to - self.from + 1
    }
}

/// What the spool counts.
#[derive(Debug, Default)]
pub struct SpoolStats {
    /// Values appended.
    pub produced: AtomicU64,
    /// Values acknowledged by the broker.
    pub delivered: AtomicU64,
    /// Values dropped because the spool was full.
    pub lost: AtomicU64,
    /// Values the broker refused.
    pub refused: AtomicU64,
    /// Messages waiting.
    pub waiting: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Sample>,
    bytes: usize,
    first: u64,
    loss: Option<Loss>,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    inner: Mutex<Inner>,
    capacity: usize,
    /// Rings when something was appended.
    pub bell: Notify,
    /// Counters.
    pub stats: SpoolStats,
}

impl Spool {
    /// A spool for so many bytes.
    pub fn new(capacity: usize) -> Spool {
        let inner = Inner { waiting: VecDeque::new(), bytes: 0, first: 1, loss: None };
        Spool { inner: Mutex::new(inner), capacity, bell: Notify::new(), stats: SpoolStats::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises samples: takes them all out of `samples`.
    pub fn append(&self, samples: &mut Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let mut produced = 0;
        let mut inner = self.lock();
        for sample in samples.drain(..) {
            inner.bytes += sample.bytes();
            produced += sample.count();
            inner.waiting.push_back(sample);
            // The newest always fits: a sample larger than the spool would be lost for ever otherwise.
            while inner.bytes > self.capacity && inner.waiting.len() > 1 {
                let Some(dropped) = inner.waiting.pop_front() else { break };
                inner.bytes -= dropped.bytes();
                let lost = inner.first;
                inner.first += 1;
                inner.loss = Some(match inner.loss {
                    Some(loss) => Loss { to: lost, ..loss },
                    None => Loss { from: lost, to: lost },
                });
                self.stats.lost.fetch_add(dropped.count(), Relaxed);
            }
        }
        self.stats.produced.fetch_add(produced, Relaxed);
        self.stats.waiting.store(inner.waiting.len() as u64, Relaxed);
        drop(inner);
        self.bell.notify_one();
    }

    /// The oldest sample whose sequence is `from` or above, with its sequence.
    pub fn next_from(&self, from: u64) -> Option<(u64, Sample)> {
        let inner = self.lock();
        let sequence = from.max(inner.first);
        let index = usize::try_from(sequence - inner.first).ok()?;
        inner.waiting.get(index).map(|sample| (sequence, sample.clone()))
    }

    /// The sequence of the oldest sample, or of the next one when none waits.
    pub fn first(&self) -> u64 {
        self.lock().first
    }

    /// Everything up to and with `sequence` has been acknowledged.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = self.lock();
        let count = (sequence + 1).saturating_sub(inner.first).min(inner.waiting.len() as u64);
        for _ in 0..count {
            let freed = inner.waiting.pop_front().map_or(0, |s| s.bytes());
            inner.bytes -= freed;
        }
        inner.first += count;
        self.stats.waiting.store(inner.waiting.len() as u64, Relaxed);
    }

    /// The stretch that was dropped since this was last asked.
    pub fn take_loss(&self) -> Option<Loss> {
        self.lock().loss.take()
    }

    /// Puts a stretch back that could not be told.
    pub fn put_loss_back(&self, told: Loss) {
        let mut inner = self.lock();
        inner.loss = Some(match inner.loss {
            Some(since) => Loss { from: told.from, to: since.to },
            None => told,
        });
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Body, SAMPLE_BYTES, Topic};
    use super::*;
    use control_core::image::Quality;
    use device_drivers::value::{Cause, Value};
    use proptest::prelude::*;

    fn sample(n: u64) -> Sample {
        let (value, quality, cause) = (Some(Value::Uint(n)), Quality::Good, Cause::None);
        let topic = Topic { devices: std::sync::Arc::new([]), device: 0, tag: None };
        Sample { topic, body: Body::One { value, quality, cause, source_ms: 0 } }
    }

    fn number(sample: &Sample) -> Option<u64> {
        match &sample.body {
            Body::One { value: Some(Value::Uint(n)), .. } => Some(*n),
            _ => None,
        }
    }

    #[test]
    fn a_full_spool_drops_the_oldest_and_says_which() {
        let spool = Spool::new(3 * SAMPLE_BYTES);
        spool.append(&mut (1..=5).map(sample).collect());
        assert_eq!(spool.take_loss(), Some(Loss { from: 1, to: 2 }));
        assert_eq!(spool.take_loss(), None);
        assert_eq!(spool.next_from(0).map(|(n, s)| (n, number(&s))), Some((3, Some(3))));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u8),
        Acknowledge(u8),
        Reset,
        Send,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u8..20).prop_map(Step::Append),
            (0u8..10).prop_map(Step::Acknowledge),
            Just(Step::Reset),
            Just(Step::Send),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_sample_is_acknowledged_lost_or_waiting_and_sequences_name_their_sample(steps in steps()) {
            let spool = Spool::new(32 * SAMPLE_BYTES);
            let (mut produced, mut acknowledged, mut cursor) = (0u64, 0u64, 1u64);
            let mut lost = 0u64;
            for step in steps {
                match step {
                    Step::Append(n) => {
                        spool.append(&mut (1..=u64::from(n)).map(|k| sample(produced + k)).collect());
                        produced += u64::from(n);
                    }
                    Step::Send => {
                        if let Some((sequence, s)) = spool.next_from(cursor) {
                            prop_assert_eq!(number(&s), Some(sequence));
                            prop_assert!(sequence >= cursor);
                            cursor = sequence + 1;
                        }
                    }
                    Step::Acknowledge(n) => {
                        let first = spool.first();
                        let upto = (first + u64::from(n)).min(cursor.saturating_sub(1));
                        if upto >= first {
                            spool.acknowledge(upto);
                            acknowledged += upto + 1 - first;
                        }
                    }
                    Step::Reset => cursor = spool.first(),
                }
                lost += spool.take_loss().map_or(0, |l| l.count());
                let waiting = spool.stats.waiting.load(Relaxed);
                prop_assert_eq!(produced, acknowledged + lost + waiting);
                prop_assert_eq!(lost, spool.stats.lost.load(Relaxed));
            }
        }
    }
}
