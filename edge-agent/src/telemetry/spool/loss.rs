//! What was lost and why, and how it is told: a loss is a record of the stream `high`, and a counter.
//!
//! ```text
//!   retention, damage, a disk that takes nothing, a broker that does not want it ──lose──> done, counted ──tell──> a record in `high`
//! ```
//!
//! | a notice says | of |
//! |---|---|
//! | `lost`, `values`, `lost_stream`, `from_sequence`, `to_sequence`, `reason` | a stretch of a stream of which so many messages are lost |
//! | `lost` 0, `lost_stream`, `promised_to`, `continues_at`, `reason` "restart" | the numbers of a stream after a run that was not stopped: what did not come of those between was never promised |
//! | `stream`, `sequence` | itself: it is a record of the stream `high` |

use super::lane::{Jump, Waiting};
use super::record::{self, Kind};
use super::{Spool, State, Stream, retention};
use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Room for one notice, bytes: most are shorter.
const NOTICE: usize = 320;

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
    /// The broker takes no messages of this size.
    TooLarge,
    /// The broker does not take this message, and says so with this reason code (MQTT 5, 2.4).
    Refused(u8),
}

impl Reason {
    /// Names in notices and as the label of figures, by [`Reason::index`].
    pub const NAMES: [&'static str; 7] = ["full", "age", "thinned", "damaged", "disk", "too large", "refused"];

    pub(super) const fn index(self) -> usize {
        match self {
            Reason::Full => 0,
            Reason::Age => 1,
            Reason::Thinned(_) => 2,
            Reason::Damaged => 3,
            Reason::Disk => 4,
            Reason::TooLarge => 5,
            Reason::Refused(_) => 6,
        }
    }

    /// What the log says.
    pub(super) fn words(self) -> String {
        match self {
            Reason::TooLarge => "the broker takes no message of this size".into(),
            Reason::Refused(code) => format!("the broker refuses it with reason {code:#04x}"),
            Reason::Thinned(kept) => format!("the spool is full; one in {kept} of each series was kept"),
            other => other.name().into(),
        }
    }

    /// Its name in notices, and as the label of figures.
    pub fn name(self) -> &'static str {
        Reason::NAMES.get(self.index()).copied().unwrap_or_default()
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
    /// It is a notice about a loss: counted, and not told again. Else a broker that takes no notices would be sent nothing else.
    pub is_notice: bool,
}

impl Loss {
    /// Damage took these, and their values with them.
    pub(super) fn of_damage(stream: Stream, from: u64, to: u64) -> Loss {
        let (records, reason) = ((to + 1).saturating_sub(from), Reason::Damaged);
        Loss { stream, from, to, records, values: 0, bytes: 0, reason, is_notice: false }
    }
}

impl Spool {
    /// The disk takes nothing, and memory is full: the oldest blocks of the least important stream go, until the rest has room. What is on
    /// its way stays.
    pub(super) fn overflow(&self, state: &mut State, memory: usize) {
        let (low, normal, high) = (Stream::Low, Stream::Normal, Stream::High);
        // Notices of losses go when nothing else is left.
        for (stream, spares_notices) in [(low, false), (normal, false), (high, true), (high, false)] {
            state.lane_mut(stream).close_block();
            let mut from = 0;
            // What is told of it comes into the open block of `high`, and stays.
            while state.volatile() > memory
                && let Some(block) = state.lane(stream).volatile_from(from)
            {
                from = block.last + 1;
                state.lane_mut(stream).pare_block(block.first);
                if spares_notices {
                    self.move_notices(state, stream, &block.bytes);
                }
                let lane = state.lane(stream);
                let losses = retention::losses_of(&block.bytes, stream, lane.spared(), Reason::Disk);
                self.lose(state, &losses);
            }
        }
    }

    /// Notices among these records of a stream go to the end of `high`: they are not lost with what they lie beside.
    pub(super) fn move_notices(&self, state: &mut State, stream: Stream, records: &[u8]) {
        for (range, record) in record::walk(records).filter(|(_, r)| r.kind == Kind::Loss) {
            let lane = state.lane_mut(stream);
            if !lane.done.has(record.sequence) && !lane.flying.has(record.sequence) {
                let went = Waiting { records: 1, bytes: range.len() as u64, values: u64::from(record.values) };
                let unknown = lane.finish((record.sequence, record.sequence), went);
                self.stats.lost.damaged_values(unknown);
                state.lane_mut(Stream::High).append(records.get(range).unwrap_or_default());
            }
        }
    }

    /// Marks losses as done, counts and tells them.
    pub(super) fn lose(&self, state: &mut State, losses: &[Loss]) {
        for loss in losses {
            let went = Waiting { records: loss.records, bytes: loss.bytes, values: loss.values };
            let unknown = state.lane_mut(loss.stream).finish((loss.from, loss.to), went);
            self.stats.lost.damaged_values(unknown);
            self.stats.drained.fetch_add(loss.records, Relaxed);
            self.note(state, loss);
        }
    }

    /// Counts and tells a loss.
    pub(super) fn note(&self, state: &mut State, loss: &Loss) {
        self.stats.lost.add(loss);
        self.tell(state, loss);
    }

    /// Says what was lost: in the stream `high`, and in the log.
    fn tell(&self, state: &mut State, loss: &Loss) {
        let now = Instant::now();
        state.saying.say(loss, now);
        if loss.is_notice {
            return;
        }
        let Loss { stream, from, to, records, values, reason, .. } = loss;
        self.notice(state, |out| {
            let (stream, reason) = (stream.name(), reason.name());
            let _ = write!(
                out,
                "{{\"lost\":{records},\"values\":{values},\"lost_stream\":\"{stream}\",\"from_sequence\":{from},\"to_sequence\":{to},\
                 \"reason\":\"{reason}\""
            );
            let _ = match loss.reason {
                Reason::Thinned(kept) => write!(out, ",\"kept_one_in\":{kept}"),
                Reason::Refused(code) => write!(out, ",\"reason_code\":{code}"),
                _ => Ok(()),
            };
        });
    }

    /// Says, beside the first new record of a stream, where its numbers go on after a run that was not stopped: between what that run had
    /// promised and the next number some may have been sent, and nobody knows which. That is no loss: nothing of it was promised.
    pub(super) fn tell_jump(&self, state: &mut State, stream: Stream) {
        let Some(Jump { promised_to, continues_at, told_at: None }) = state.lane(stream).jump else { return };
        let (name, told_at) = (stream.name(), Some(state.lane(Stream::High).next));
        state.lane_mut(stream).jump = Some(Jump { promised_to, continues_at, told_at });
        self.notice(state, |out| {
            let _ = write!(
                out,
                "{{\"lost\":0,\"values\":0,\"lost_stream\":\"{name}\",\"promised_to\":{promised_to},\"continues_at\":{continues_at},\
                 \"reason\":\"restart\""
            );
        });
    }

    /// A record of the loss topic in the stream `high`. `sequence` is its own number there; what it speaks of is named apart.
    fn notice(&self, state: &mut State, say: impl FnOnce(&mut Vec<u8>)) {
        let now = (self.wall)();
        let mut out = Vec::with_capacity(NOTICE);
        record::push(&mut out, Kind::Loss, &[&self.options.loss_topic], (now, 0), |out| {
            let start = out.len();
            say(out);
            let time = crate::telemetry::payload::rfc3339(device_drivers::value::wall_clock_ms());
            let _ = write!(out, ",\"time\":\"{time}\",\"stream\":\"{}\",\"sequence\":", Stream::High.name());
            let hole = out.len() - start;
            out.push(b'}');
            hole
        });
        state.lane_mut(Stream::High).append(&out);
        state.urgent = true;
        state.due.get_or_insert_with(Instant::now);
        self.tell_jump(state, Stream::High); // the notice may be the first of its stream
    }
}
