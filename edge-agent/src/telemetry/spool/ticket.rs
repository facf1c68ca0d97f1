//! What the way out hands out with a record, and gets back with its acknowledgement.

use super::Stream;
use super::lane::Lane;
use super::record::{Kind, Record};

/// Which record an acknowledgement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its stream.
    pub stream: Stream,
    /// Sequences from here on are done with it: those before its own are nowhere, and not owed.
    pub from: u64,
    /// Its sequence.
    pub sequence: u64,
    /// Values in it.
    pub values: u32,
    /// Its bytes.
    pub bytes: u32,
    /// Whether it waited.
    pub is_backlog: bool,
    /// It is a notice about a loss.
    pub is_notice: bool,
    /// It was on its way already.
    pub is_again: bool,
}

impl Ticket {
    /// Of a record that is so many bytes long, behind those up to `from`.
    pub(super) fn of(
        (lane, stream): (&Lane, Stream),
        from: u64,
        record: &Record<'_>,
        (length, is_backlog): (usize, bool),
    ) -> Ticket {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        let (sequence, is_notice) = (record.sequence, record.kind == Kind::Loss);
        let is_again = lane.flying.has(sequence);
        Ticket { stream, from, sequence, values: record.values, bytes, is_backlog, is_notice, is_again }
    }

    /// Whether it may be on its way beside what is; there is room for so many bytes.
    pub(super) fn may_leave(&self, room: u64) -> bool {
        self.is_again || u64::from(self.bytes) <= room
    }
}
