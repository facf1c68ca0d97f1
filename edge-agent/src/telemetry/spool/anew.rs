//! A segment written anew with some of its records left out. As long as the whole one is there, it is the one that counts.

use super::disk::Disk;
use super::record::{self, Kind, Record};
use super::segment::{self, Segment};
use std::io;

/// What is kept so far.
pub(super) struct Anew {
    out: Vec<u8>,
    /// Since the last that was kept numbers were left out, from this on.
    hole: Option<u64>,
    pub(super) segment: Segment,
}

impl Anew {
    pub(super) fn of(segment: &Segment) -> Anew {
        let anew = Segment { level: segment.level + 1, ..Segment::empty(segment.id) };
        Anew { out: segment::header(segment.id), hole: None, segment: anew }
    }

    pub(super) fn leave_out(&mut self, record: &Record<'_>) {
        let from = if record.kind == Kind::Skip { record.skips_from() } else { None };
        self.hole.get_or_insert(from.unwrap_or(record.sequence));
    }

    pub(super) fn keep(&mut self, record: &Record<'_>, bytes: &[u8]) {
        self.skip_to(record.sequence);
        self.out.extend_from_slice(bytes);
        self.segment.note(record);
    }

    fn skip_to(&mut self, sequence: u64) {
        if let Some(from) = self.hole.take() {
            record::push_skip(&mut self.out, (from, sequence - 1));
        }
    }

    /// Nothing was kept.
    pub(super) fn is_empty(&self) -> bool {
        self.segment.last == 0
    }

    /// Puts it on disk, up to and with the last number of the whole one. Blocks.
    pub(super) fn write(mut self, disk: &dyn Disk, last: u64) -> io::Result<Segment> {
        self.skip_to(last + 1);
        self.segment.length = self.out.len() as u64;
        let name = self.segment.name();
        let written = disk.create(&name).and_then(|file| {
            file.write_at(0, &self.out)?;
            file.sync()?;
            disk.sync()
        });
        written.inspect_err(|_| drop(disk.remove(&name)))?;
        Ok(self.segment)
    }
}
