//! What is known of one stream, under the spool's lock: records in memory, segments on disk, and what is done.
//!
//! ```text
//!        segments (disk)              blocks (memory)            open
//!   [ 1..900 ][ 901..1800 ]   [ 1801..1840 durable ][ ..1880 ]  1881 ..
//!                                └ kept while the reader is near     └ a commit closes it
//! ```

use super::done::Done;
use super::flying::Flying;
use super::record::{self, Record};
use super::segment::Segment;
use super::spared::Spared;
use super::ticket::Ticket;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Memory for records that are on disk already and that the reader has not passed: it need not read them back. Bytes.
const HOT: usize = 1 << 20;

/// A buffer up to this size is kept to be used again.
const SPARE: usize = 8 << 20;

/// Records in memory that are numbered.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) durable: bool,
    /// Some of it has gone: it is walked through from its beginning.
    is_pared: bool,
}

/// A block, and what of it has to be written.
pub(super) type Part = (Arc<Vec<u8>>, Vec<Range<usize>>);

/// What a commit takes: blocks that are not durable, and which parts of each have to be written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) parts: Vec<Part>,
    /// Last sequence of the blocks.
    pub(super) last: u64,
}

impl Batch {
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().flat_map(|(_, ranges)| ranges).map(ExactSizeIterator::len).sum()
    }
}

/// Records that are not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) values: u64,
}

impl Waiting {
    pub(super) fn add(&mut self, more: Waiting) {
        self.records += more.records;
        self.bytes += more.bytes;
        self.values += more.values;
    }

    /// What is left of it without these.
    pub(super) fn without(self, less: Waiting) -> Waiting {
        Waiting {
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
            values: self.values.saturating_sub(less.values),
        }
    }

    /// Some are done. Gives the values that nobody will ever account for: what damage took told nobody its length and its values, and at the
    /// latest when nothing waits this is right again.
    pub(super) fn take(&mut self, went: Waiting) -> u64 {
        *self = self.without(went);
        if self.records > 0 {
            return 0;
        }
        self.bytes = 0;
        std::mem::take(&mut self.values)
    }
}

/// Numbers that a run that was not stopped had reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// Up to here all was promised or done.
    pub(super) promised_to: u64,
    /// The first number after them.
    pub(super) continues_at: u64,
    /// The notice about it, in the stream `high`.
    pub(super) told_at: Option<u64>,
}

/// What a stream owes to whoever reads its disk next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Up to here every number is done or on disk.
    pub(super) promised_to: u64,
    /// Of these: records that are not done.
    pub(super) waiting: Waiting,
}

/// What the cursor of a stream is to say.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) done: Done,
    pub(super) next: u64,
    pub(super) kept: Kept,
    /// See [`super::cursor::Cursor::untold`].
    pub(super) untold: u64,
}

/// Where a reader stands in memory: block and offset, to go on from there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hint {
    block: u64,
    sequence: u64,
    offset: usize,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Lane {
    /// The next sequence.
    pub(super) next: u64,
    pub(super) done: Done,
    /// Below this, sequences are on disk or done.
    pub(super) durable_next: u64,
    open: Vec<u8>,
    open_first: u64,
    pub(super) blocks: VecDeque<Block>,
    pub(super) segments: VecDeque<Segment>,
    pub(super) waiting: Waiting,
    /// A buffer to be used again.
    spare: Vec<u8>,
    /// Where the reader of what is new stands: blocks before it need not be kept.
    pub(super) read_to: u64,
    pub(super) flying: Flying,
    /// What the outlet has handed out of each of its two tracks on this connection: from, and up to but without.
    pub(super) handed: [(u64, u64); 2],
    /// Numbers were left out, which has to be told before the next record.
    pub(super) jump: Option<Jump>,
}

impl Lane {
    pub(super) fn new(next: u64, done: Done, segments: VecDeque<Segment>, waiting: Waiting) -> Lane {
        Lane {
            next,
            done,
            durable_next: next,
            open: Vec::new(),
            open_first: next,
            blocks: VecDeque::new(),
            segments,
            waiting,
            spare: Vec::new(),
            read_to: next,
            flying: Flying::default(),
            handed: Default::default(),
            jump: None,
        }
    }

    /// Takes encoded records over and numbers them; how many there were.
    pub(super) fn append(&mut self, records: &[u8]) -> u64 {
        let (start, before) = (self.open.len(), self.next);
        self.open.extend_from_slice(records);
        let (mut at, mut values) = (start, 0);
        while let Some(record) = self.open.get_mut(at..).filter(|r| !r.is_empty()) {
            record::number(record, self.next);
            let length = record::length(record);
            if length == 0 {
                break;
            }
            values += u64::from(record::values(record));
            at += length;
            self.next += 1;
        }
        self.waiting.add(Waiting { records: self.next - before, bytes: (at - start) as u64, values });
        self.next - before
    }

    /// Bytes that no disk holds yet.
    pub(super) fn volatile(&self) -> usize {
        self.open.len() + self.blocks.iter().filter(|b| !b.durable).map(|b| b.bytes.len()).sum::<usize>()
    }

    /// What waits and is on no disk.
    pub(super) fn waiting_volatile(&self) -> Waiting {
        let blocks = self.blocks.iter().filter(|b| !b.durable).map(|b| b.bytes.as_slice());
        let mut waiting = Waiting::default();
        for (range, record) in blocks.chain([self.open.as_slice()]).flat_map(record::walk) {
            if !self.done.has(record.sequence) {
                let (bytes, values) = (range.len() as u64, u64::from(record.values));
                waiting.add(Waiting { records: 1, bytes, values });
            }
        }
        waiting
    }

    /// What a reader of the disk has to find there.
    pub(super) fn kept(&self) -> Kept {
        let is_some = self.waiting.records > 0;
        let waiting = if is_some { self.waiting.without(self.waiting_volatile()) } else { Waiting::default() };
        Kept { promised_to: self.durable_next - 1, waiting }
    }

    pub(super) fn open_bytes(&self) -> usize {
        self.open.len()
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.length).sum()
    }

    /// The first sequence in memory.
    fn memory_first(&self) -> u64 {
        self.blocks.front().map_or(self.open_first, |b| b.first)
    }

    /// Closes the open block: what comes now is for the next.
    pub(super) fn close_block(&mut self) {
        if !self.open.is_empty() {
            let spare = std::mem::take(&mut self.spare);
            let bytes = Arc::new(std::mem::replace(&mut self.open, spare));
            self.blocks.push_back(Block {
                first: self.open_first,
                last: self.next - 1,
                bytes,
                durable: false,
                is_pared: false,
            });
            self.open_first = self.next;
        }
    }

    /// What has to be written of the closed blocks: what is not done yet. About so many bytes, and a block at least: after a disk that took
    /// nothing for a while there may be many, and each that is written is one less to be lost.
    pub(super) fn take_batch(&self, most: u64) -> Batch {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        for block in self.blocks.iter().filter(|b| !b.durable) {
            bytes += block.bytes.len() as u64;
            if bytes > most && !batch.parts.is_empty() {
                break;
            }
            let mut ranges: Vec<Range<usize>> = Vec::new();
            // Nothing of it is done, or all of it: then it need not be walked through.
            let is_open = self.done.is_open(block.first, block.last);
            if is_open {
                ranges.push(0..block.bytes.len());
            } else if self.done.open_from(block.first) <= block.last {
                for (range, _) in record::walk(&block.bytes).filter(|(_, r)| !self.done.has(r.sequence)) {
                    match ranges.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => ranges.push(range),
                    }
                }
            }
            batch.last = block.last;
            batch.parts.push((block.bytes.clone(), ranges));
        }
        batch
    }

    /// Everything up to and with `last` is on disk, or was done before.
    pub(super) fn committed(&mut self, last: u64) {
        self.blocks.iter_mut().filter(|b| b.last <= last).for_each(|b| b.durable = true);
        self.durable_next = self.durable_next.max(last + 1);
        self.tidy();
    }

    /// Lets go of blocks that nobody needs in memory.
    pub(super) fn tidy(&mut self) {
        let hot = |lane: &Lane| lane.blocks.iter().map(|b| b.bytes.len()).sum::<usize>() > HOT;
        while let Some(block) = self.blocks.front() {
            let passed = self.read_to > block.last || self.done.open_from(block.first) > block.last;
            if !(block.durable && (passed || hot(self))) {
                break;
            }
            if let Some(block) = self.blocks.pop_front()
                && let Ok(mut bytes) = Arc::try_unwrap(block.bytes)
                && (self.spare.capacity()..=SPARE).contains(&bytes.capacity())
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }

    /// The record with this sequence, or the next one after it in memory; `None` when it is not in memory.
    pub(super) fn in_memory(&self, sequence: u64, hint: &mut Hint) -> Option<(Record<'_>, usize)> {
        if sequence < self.memory_first() || sequence >= self.next {
            return None;
        }
        let (first, bytes, is_pared): (u64, &[u8], bool) = if sequence >= self.open_first {
            (self.open_first, &self.open, false)
        } else {
            let n = self.blocks.partition_point(|b| b.last < sequence);
            let block = self.blocks.get(n)?;
            (block.first, &block.bytes, block.is_pared)
        };
        let is_near = hint.block == first && hint.sequence <= sequence && !is_pared;
        let mut at = if is_near { hint.offset } else { 0 };
        loop {
            let rest = bytes.get(at..)?;
            let record = record::peek(rest)?;
            let length = record::length(rest);
            if record.sequence >= sequence {
                *hint = Hint { block: first, sequence: record.sequence + 1, offset: at + length };
                return Some((record, length));
            }
            at += length;
        }
    }

    /// The lowest sequence in memory that is `at` or above, and whether anything is on disk before it.
    pub(super) fn memory_from(&self, at: u64) -> u64 {
        self.memory_first().max(at)
    }

    /// The segment in which a sequence is, or the next one after it.
    pub(super) fn segment_for(&self, sequence: u64) -> Option<Segment> {
        self.segments.iter().find(|s| s.last >= sequence && s.last > 0).copied()
    }

    /// The numbers that go when a segment goes: its own, and those between it and its neighbours, of which there is none anywhere.
    pub(super) fn around(&self, segment: &Segment) -> (u64, u64) {
        let before = self.segments.iter().map(|s| s.last).filter(|last| *last < segment.first).max();
        let behind = self.segments.iter().map(|s| s.first).filter(|first| *first > segment.last).min();
        (before.map_or(1, |last| last + 1), behind.map_or(segment.last, |first| first - 1))
    }

    /// A track has come to this record: it is on its way.
    pub(super) fn hand_out(&mut self, track: usize, ticket: &Ticket) {
        self.handed.get_mut(track).into_iter().for_each(|handed| handed.1 = ticket.sequence + 1);
        self.flying.add(ticket.sequence, ticket.bytes);
    }

    /// Whether some of a segment has been handed out and may be acknowledged at any time.
    pub(super) fn is_handed_out(&self, segment: &Segment) -> bool {
        self.flying.is_any(segment.first, segment.last)
            || self.handed.iter().any(|(from, to)| segment.first < *to && segment.last >= *from)
    }

    /// Segments of which something can be lost, the oldest first: it is neither done nor on its way.
    pub(super) fn can_go(&self) -> impl Iterator<Item = Segment> + '_ {
        self.segments.iter().filter(|s| self.spared().gaps(s.first, s.last).next().is_some()).copied()
    }

    /// What is done or on its way.
    pub(super) fn spared(&self) -> Spared<'_> {
        Spared { done: &self.done, flying: &self.flying }
    }

    /// What is on disk up to and with this sequence is not what is in memory any more: it is read from there.
    pub(super) fn forget(&mut self, last: u64) {
        while self.blocks.front().is_some_and(|b| b.durable && b.first <= last) {
            self.blocks.pop_front();
        }
    }

    /// Marks a stretch as done, of which so much was waiting; gives the values that damage took, if that is known now.
    #[must_use = "they are lost, and have to be counted"]
    pub(super) fn finish(&mut self, (from, to): (u64, u64), went: Waiting) -> u64 {
        self.done.add(from, to);
        self.flying.remove((from, to));
        self.waiting.take(went)
    }

    /// The oldest block that is not durable, from this sequence on.
    pub(super) fn volatile_from(&self, sequence: u64) -> Option<Block> {
        self.blocks.iter().find(|b| !b.durable && b.first >= sequence).cloned()
    }

    /// Of the block that begins so, only what is on its way stays in memory.
    pub(super) fn pare_block(&mut self, first: u64) {
        let Some(at) = self.blocks.iter().position(|b| b.first == first) else { return };
        let Some(block) = self.blocks.get_mut(at) else { return };
        let kept = record::walk(&block.bytes).filter(|(_, r)| self.flying.has(r.sequence));
        let kept: Vec<u8> = kept.filter_map(|(range, _)| block.bytes.get(range)).flatten().copied().collect();
        if kept.is_empty() {
            self.blocks.remove(at);
        } else {
            (block.bytes, block.is_pared) = (Arc::new(kept), true);
        }
    }
}
