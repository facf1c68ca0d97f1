//! The disk's side of one stream: appends batches to a segment, begins new ones, and never trusts a file again that has failed once.
//!
//! After a failed fsync the kernel may have forgotten which pages were not written, and a second fsync may say that all is well (the
//! PostgreSQL project's "fsync errors", 2018). So the file is left, and what is not done in it is written anew into another.

use super::cursor::{Cursor, CursorFile};
use super::disk::{Disk, DiskFile};
use super::done::Done;
use super::lane::{Batch, Jump, Kept, Mark, Waiting};
use super::record;
use super::segment::{self, Scan, Segment};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Sequences reserved ahead: so many may be sent before the next cursor says so.
pub(super) const RESERVE: u64 = 1 << 20;

/// Segments of this size or more take their room on the disk at once: the file system then has less to write down at each commit.
const AHEAD_FROM: u64 = 4 << 20;

/// Left free on a disk that was full a moment ago: room that the store has just made for itself is not ours. Bytes.
pub(super) const SPARE: u64 = 256 << 10;
/// With so much room it is full no more.
const AMPLE: u64 = 4 * SPARE;

struct Active {
    segment: Segment,
    file: Box<dyn DiskFile>,
    is_new: bool,
}

impl Active {
    /// Whether there is room for so many bytes more; a disk that cannot say is asked by writing.
    fn has_room(&self, bytes: u64) -> bool {
        let full =
            self.file.set_len(self.segment.length + bytes).is_err_and(|e| e.kind() == io::ErrorKind::StorageFull);
        let _ = self.file.set_len(self.segment.length);
        !full
    }
}

/// The writer of one stream.
pub(super) struct LaneWriter {
    pub(super) disk: Arc<dyn Disk>,
    active: Option<Active>,
    /// Segments left after an error, whose records have to be written anew.
    left: Vec<Segment>,
    pub(super) cursor: CursorFile,
    last_cursor: Cursor,
    pub(super) reserved: u64,
    next_id: u64,
    /// The sequence that follows the last one on disk.
    expected: u64,
    segment_bytes: u64,
    /// The disk was full, and has not been seen with ample room since.
    is_short: bool,
    /// Of segments that were thinned so often: records of each series since the last one that was kept.
    pub(super) thinning: BTreeMap<u32, HashMap<String, u32>>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The segment as it is now; `None` when nothing had to be written.
    pub(super) segment: Option<Segment>,
    /// Segments whose records are in that one now.
    pub(super) replaced: Vec<Segment>,
}

/// What is found when a stream is opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) segments: VecDeque<Segment>,
    pub(super) done: Done,
    pub(super) next: u64,
    /// Records that are not done, and the values in them.
    pub(super) waiting: Waiting,
    /// Of these: what the cursor speaks of.
    kept: Waiting,
    /// Stretches that damage has taken, both ends included, and the values in them.
    pub(super) damaged: Vec<(u64, u64, u64)>,
    /// Stretches that were left out when the records around them were written.
    skipped: Vec<(u64, u64)>,
    /// The numbers go on above those that a run that was not stopped had reserved.
    pub(super) jump: Option<Jump>,
}

impl LaneWriter {
    /// Opens a stream: reads every byte of it, cuts a torn tail, and counts what is damaged.
    pub(super) fn open(disk: Arc<dyn Disk>, segment_bytes: u64) -> io::Result<(LaneWriter, Found)> {
        let names = segment::names(&*disk)?;
        let (mut cursor_file, cursor) = CursorFile::open(&*disk)?;
        let known = cursor.clone().unwrap_or_default();
        let mut found = Found {
            segments: VecDeque::new(),
            done: known.done.clone(),
            next: known.next.max(1),
            waiting: Waiting::default(),
            kept: Waiting::default(),
            damaged: Vec::new(),
            skipped: Vec::new(),
            jump: None,
        };
        let promised_to = known.kept.map_or(0, |kept| kept.promised_to);
        let mut last = 0;
        for (n, (id, level)) in names.iter().enumerate() {
            let segment = Segment { level: *level, ..Segment::empty(*id) };
            // Before the first record on disk nothing is missing that the cursor does not know of.
            let base = if cursor.is_some() { known.done.first - 1 } else { u64::MAX };
            let is_newest = n + 1 == names.len();
            if let Err(why) = read_segment(&*disk, segment, is_newest, (&mut last, base, promised_to), &mut found) {
                // What was in it is missing from the numbers, and told as damage with the next that is there.
                tracing::error!("{} of the spool cannot be read: {why}", segment.name());
                disk.set_aside(&segment.name())?;
            }
        }
        // Without a cursor nobody knows which sequences were used after the last one on disk.
        let lost_cursor = cursor.is_none() && last > 0;
        let clean = known.clean || cursor.is_none() && last == 0;
        let known_reserved = if lost_cursor { last + 1 + RESERVE } else { known.reserved };
        found.next = found.next.max(last + 1);
        // Up to here each number was done or on disk: what is neither now, damage took from the end.
        let owed_to = last.max(if clean { found.next - 1 } else { promised_to });
        missing(&found.done.clone(), last.max(found.done.first.saturating_sub(1)) + 1, owed_to, &mut found);
        let mut jump_from = 0;
        if !clean && known_reserved > owed_to + 1 {
            let from = found.done.open_from(owed_to + 1).min(known_reserved);
            jump_from = if from < known_reserved { from } else { 0 };
            found.next = found.next.max(known_reserved);
            found.done.add(owed_to + 1, known_reserved - 1);
        }
        found.forgive(&known);
        let lost = found.count(&known);
        for (from, to) in std::mem::take(&mut found.skipped) {
            found.done.join(from, to);
        }
        // Nobody has been told of an earlier one: it begins there.
        let untold = if known.untold > 0 { known.untold } else { jump_from };
        let jump = Jump { promised_to: untold.saturating_sub(1), continues_at: found.next, told_at: None };
        found.jump = (untold > 0).then_some(jump);
        let reserved = found.next + RESERVE;
        // What damage took is not done before it is told: it is owed until then.
        let waiting = Waiting { values: found.waiting.values + lost, ..found.waiting };
        let kept = Some(Kept { promised_to: found.next - 1, waiting });
        let cursor = Cursor { done: found.done.clone(), next: found.next, reserved, clean: false, untold, kept };
        cursor_file.write(&cursor, true)?;
        let next_id = names.last().map_or(1, |(id, _)| id + 1);
        let writer = LaneWriter {
            disk,
            active: None,
            left: Vec::new(),
            cursor: cursor_file,
            last_cursor: cursor,
            reserved,
            next_id,
            expected: last + 1,
            segment_bytes,
            is_short: false,
            thinning: BTreeMap::new(),
        };
        Ok((writer, found))
    }

    /// Writes a batch and waits for the disk. An error leaves the segment for good; the batch is then tried in a new one, once.
    pub(super) fn write(&mut self, batch: &Batch, done: &Done) -> (io::Result<Written>, Option<io::Error>) {
        let first = match self.try_write(batch, done) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                // What was written of it is no use to us, and the room is to others.
                self.active.iter().for_each(|active| drop(active.file.set_len(active.segment.length)));
                self.is_short = true;
                return (Err(e), None);
            }
            Err(e) => e,
            result => return (result, None),
        };
        self.leave();
        (self.try_write(batch, done), Some(first))
    }

    /// Never writes to the segment again.
    fn leave(&mut self) {
        match self.active.take() {
            Some(active) if active.segment.last > 0 => self.left.push(active.segment),
            Some(active) => drop(self.disk.remove(&active.segment.name())), // nothing in it was ever promised
            None => {}
        }
    }

    /// Ends the segment that is being written: the next batch begins a new one.
    pub(super) fn rotate(&mut self) {
        self.active = None;
    }

    pub(super) fn active_id(&self) -> Option<u64> {
        self.active.as_ref().map(|a| a.segment.id)
    }

    fn try_write(&mut self, batch: &Batch, done: &Done) -> io::Result<Written> {
        let (mut expected, mut note) = (self.expected, Segment::empty(0));
        let mut pieces = Pieces::default();
        if !self.left.is_empty() {
            expected = self.salvage(done, &mut pieces.own, &mut note);
        }
        let parts = batch.parts.iter().flat_map(|(bytes, ranges)| ranges.iter().filter_map(|r| bytes.get(r.clone())));
        parts.for_each(|part| pieces.add(part, &mut expected, &mut note));
        let pieces = pieces.end();
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 {
            return Ok(Written::default());
        }
        let full = |a: &Active| a.segment.last > 0 && a.segment.length + total as u64 > self.segment_bytes;
        if self.active.as_ref().is_none_or(full) {
            self.begin()?;
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        if self.is_short {
            self.is_short = !active.has_room(total as u64 + AMPLE);
            if self.is_short && !active.has_room(total as u64 + SPARE) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut at = active.segment.length;
        for piece in &pieces {
            active.file.write_at(at, piece)?;
            at += piece.len() as u64;
        }
        active.file.sync()?;
        // The records are in memory for as long as the reader is near; a second copy would take room from all others.
        active.file.let_go(active.segment.length..at);
        if std::mem::take(&mut active.is_new) {
            self.disk.sync().inspect_err(|_| active.is_new = true)?;
        }
        let segment = &mut active.segment;
        segment.length = at;
        segment.first = if segment.first == 0 { note.first } else { segment.first.min(note.first) };
        segment.last = segment.last.max(note.last);
        segment.span_ms = (segment.span_ms.0.min(note.span_ms.0), segment.span_ms.1.max(note.span_ms.1));
        self.expected = expected;
        Ok(Written { segment: Some(*segment), replaced: std::mem::take(&mut self.left) })
    }

    fn begin(&mut self) -> io::Result<()> {
        self.active = None;
        let segment = Segment::empty(self.next_id);
        let file = self.disk.create(&segment.name())?;
        self.next_id += 1;
        let begun = file.write_at(0, &segment::header(segment.id));
        begun.inspect_err(|_| drop(self.disk.remove(&segment.name())))?;
        if self.segment_bytes >= AHEAD_FROM && !self.is_short {
            file.reserve(self.segment_bytes);
        }
        self.active = Some(Active { segment, file, is_new: true });
        Ok(())
    }

    /// Reads back what is not done of the segments that were left. What cannot be read back is damage, and found as such later.
    fn salvage(&self, done: &Done, buffer: &mut Vec<u8>, note: &mut Segment) -> u64 {
        let (mut expected, mut hole) = (0, None);
        for segment in &self.left {
            let Ok(file) = self.disk.open(&segment.name()) else { continue };
            let _ = segment::scan(&*file, (0, segment.length), |record, bytes, _| {
                expected = expected.max(record.sequence + 1);
                let is_skip = record.kind == record::Kind::Skip;
                if is_skip || done.has(record.sequence) {
                    let from = if is_skip { record.skips_from() } else { None };
                    hole.get_or_insert(from.unwrap_or(record.sequence));
                    return;
                }
                if let Some(from) = hole.take() {
                    record::push_skip(buffer, (from, record.sequence - 1));
                }
                buffer.extend_from_slice(bytes);
                note.note(&record);
            });
        }
        if let Some(from) = hole {
            record::push_skip(buffer, (from, expected - 1));
        }
        // Everything before was in files that are whole.
        if expected == 0 { self.expected } else { expected }
    }

    /// Writes the cursor if it has changed. Waits for the disk when sequences have to be reserved, or when it is asked to.
    pub(super) fn save_cursor(&mut self, mark: Mark, durably: bool, clean: bool) -> io::Result<()> {
        let Mark { done, next, kept, untold } = mark;
        let reserve = self.reserved < next.saturating_add(RESERVE / 2);
        let reserved = if reserve { next + RESERVE } else { self.reserved };
        let cursor = Cursor { done, next, reserved, clean, untold, kept: Some(kept) };
        // A cursor without news but the next sequence need not be written.
        let (old, new) = (&self.last_cursor, &cursor);
        if !durably && !reserve && (&new.done, untold, new.kept) == (&old.done, old.untold, old.kept) {
            return Ok(());
        }
        self.cursor.write(&cursor, durably || reserve || clean)?;
        self.reserved = reserved;
        self.last_cursor = cursor;
        Ok(())
    }
}

/// A run of records of this length or more is written from where it is, shorter ones are put together first.
const LONG: usize = 64 << 10;

/// What has to be written, in order.
#[derive(Default)]
struct Pieces<'a> {
    done: Vec<Cow<'a, [u8]>>,
    /// What is being put together.
    own: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// Adds records that follow each other; those that are there already are left out.
    fn add(&mut self, mut part: &'a [u8], expected: &mut u64, note: &mut Segment) {
        while !part.is_empty() && record::sequence(part) < *expected {
            let length = record::length(part).max(1); // salvaged before
            part = part.get(length..).unwrap_or_default();
        }
        if part.is_empty() {
            return;
        }
        if record::sequence(part) > *expected {
            record::push_skip(&mut self.own, (*expected, record::sequence(part) - 1));
        }
        let mut rest = part;
        while !rest.is_empty() {
            note.note_at(record::sequence(rest), record::at_ms(rest));
            *expected = record::sequence(rest) + 1;
            rest = rest.get(record::length(rest).max(1)..).unwrap_or_default();
        }
        if part.len() < LONG {
            self.own.extend_from_slice(part);
        } else {
            self.flush();
            self.done.push(Cow::Borrowed(part));
        }
    }

    fn flush(&mut self) {
        if !self.own.is_empty() {
            self.done.push(Cow::Owned(std::mem::take(&mut self.own)));
        }
    }

    fn end(mut self) -> Vec<Cow<'a, [u8]>> {
        self.flush();
        self.done
    }
}

/// Sequences from..=to of which nothing was found.
fn missing(done: &Done, from: u64, to: u64, found: &mut Found) {
    found.damaged.extend(done.gaps(from, to).map(|(from, to)| (from, to, 0)));
}

impl Found {
    /// A cursor of an earlier version kept [`OLD_ISLANDS`] and forgot what was done above them: what is missing there is no loss.
    fn forgive(&mut self, known: &Cursor) {
        let islands = &known.done.islands;
        let Some((_, end)) = islands.last().filter(|_| known.kept.is_none() && islands.len() >= OLD_ISLANDS) else {
            return;
        };
        let (kept, forgotten) = std::mem::take(&mut self.damaged).into_iter().partition(|(from, ..)| from <= end);
        self.damaged = kept;
        forgotten.iter().for_each(|(from, to, _): &(u64, u64, u64)| self.done.add(*from, *to));
    }

    /// Counts the values that damage took: what the cursor knew of and nobody found. Of each stretch its share, for only their sum is known.
    fn count(&mut self, known: &Cursor) -> u64 {
        let Some(kept) = known.kept.filter(|_| !self.damaged.is_empty()) else { return 0 };
        let length = |(from, to, _): &(u64, u64, u64)| (to + 1).saturating_sub(*from);
        let (lost, mut records) =
            (kept.waiting.without(self.kept).values, self.damaged.iter().map(length).sum::<u64>());
        let mut left = lost;
        for stretch in &mut self.damaged {
            let share = u128::from(left) * u128::from(length(stretch)) / u128::from(records.max(1));
            stretch.2 = u64::try_from(share).unwrap_or(left);
            (left, records) = (left - stretch.2, records - length(stretch));
        }
        lost
    }
}

/// Islands that a cursor of an earlier version kept.
const OLD_ISLANDS: usize = 64;

fn read_segment(
    disk: &dyn Disk,
    mut segment: Segment,
    is_newest: bool,
    (last, base, promised_to): (&mut u64, u64, u64),
    found: &mut Found,
) -> io::Result<()> {
    let file = disk.open(&segment.name())?;
    let done = found.done.clone();
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    let mut skipped: Vec<(u64, u64)> = Vec::new();
    let (mut waiting, mut kept, mut end, mut behind) = (found.waiting, found.kept, 0, *last);
    let Scan { damaged, end: good } = segment::scan(&*file, (0, u64::MAX), |record, bytes, _| {
        if record.sequence <= behind {
            return; // written anew after an error, and both are there
        }
        let is_skip = record.kind == record::Kind::Skip;
        let before = if behind > 0 { behind } else { base };
        // An older version did not say where a skip begins.
        let from = if is_skip { record.skips_from() } else { Some(record.sequence) };
        let from = from.unwrap_or(0).max(before.saturating_add(1));
        if from > before.saturating_add(1) {
            gaps.push((before + 1, from - 1));
        }
        behind = record.sequence;
        if is_skip {
            if from <= behind {
                skipped.push((from, behind));
            }
            return;
        }
        end = record.sequence;
        segment.note(&record);
        if !done.has(record.sequence) {
            let more = Waiting { records: 1, bytes: bytes.len() as u64, values: u64::from(record.values) };
            waiting.add(more);
            if record.sequence <= promised_to {
                kept.add(more);
            }
        }
    })?;
    file.let_go(0..good);
    *last = behind;
    found.skipped.append(&mut skipped);
    gaps.iter().for_each(|(from, to)| missing(&done, *from, *to, found));
    (found.waiting, found.kept) = (waiting, kept);
    segment.length = good;
    if end == 0 && damaged > 0 && !segment::is_torn(&*file, good)? {
        return disk.set_aside(&segment.name()); // nothing in it can be read, and no crash leaves that
    }
    if is_newest && damaged > 0 {
        // A tail that was torn by a crash is cut, so that nothing is taken for a record later.
        file.set_len(good)?;
        file.sync()?;
    }
    if end > 0 {
        found.segments.push_back(segment);
    } else {
        disk.remove(&segment.name())?;
    }
    Ok(())
}
