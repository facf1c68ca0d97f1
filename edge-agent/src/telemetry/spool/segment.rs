//! Segments: files of records, each begun once, appended to, and removed whole; read back with every byte checked.
//!
//! ```text
//!   0000000000000007.seg    "LSPOOL" version id | record | record | skip | record ..
//!   0000000000000007-1.seg  the same, thinned once; if both are there the first one is the whole one
//! ```

use super::disk::{Disk, DiskFile, read_up_to};
use super::record::{self, Found, Record};
use std::io;

/// Bytes before the first record.
pub(crate) const SEGMENT_HEADER: u64 = 16;
const MAGIC: &[u8; 6] = b"LSPOOL";
/// Version of the format: a file of a newer one is set aside as it is.
const VERSION: u16 = 1;
/// Read at once.
const CHUNK: usize = 256 * 1024;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its number: the order of segments is the order of their records.
    pub id: u64,
    /// How often it was thinned.
    pub level: u32,
    /// First and last sequence in it.
    pub first: u64,
    /// Last sequence in it.
    pub last: u64,
    /// Bytes that count: behind them nothing is believed.
    pub length: u64,
    /// When its oldest and newest record were promised, milliseconds since 1970.
    pub span_ms: (u64, u64),
}

impl Segment {
    /// A segment without records.
    pub(super) fn empty(id: u64) -> Segment {
        Segment { id, level: 0, first: 0, last: 0, length: SEGMENT_HEADER, span_ms: (u64::MAX, 0) }
    }

    /// Takes a record into account.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        self.note_at(record.sequence, record.at_ms);
    }

    /// Takes a record with this sequence, promised then, into account.
    pub(super) fn note_at(&mut self, sequence: u64, at_ms: u64) {
        self.first = if self.first == 0 { sequence } else { self.first.min(sequence) };
        self.last = self.last.max(sequence);
        self.span_ms = (self.span_ms.0.min(at_ms), self.span_ms.1.max(at_ms));
    }

    /// Its file.
    pub(super) fn name(&self) -> String {
        match self.level {
            0 => format!("{:016x}.seg", self.id),
            level => format!("{:016x}-{level}.seg", self.id),
        }
    }
}

/// Number and level in a file's name.
fn parse(name: &str) -> Option<(u64, u32)> {
    let stem = name.strip_suffix(".seg")?;
    let (id, level) = stem.split_once('-').unwrap_or((stem, "0"));
    Some((u64::from_str_radix(id, 16).ok()?, level.parse().ok()?))
}

/// The first bytes of a segment.
pub(crate) fn header(id: u64) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &id.to_le_bytes()].concat()
}

/// Names of the segments of a folder, in order. A thinned one beside its original is what a crash left, and is removed.
pub(super) fn names(disk: &dyn Disk) -> io::Result<Vec<(u64, u32)>> {
    let mut all: Vec<(u64, u32)> = disk.list()?.iter().filter_map(|(name, _)| parse(name)).collect();
    all.sort_unstable();
    let mut kept: Vec<(u64, u32)> = Vec::with_capacity(all.len());
    for (id, level) in all {
        if kept.last().is_some_and(|(other, _)| *other == id) {
            disk.remove(&Segment { level, ..Segment::empty(id) }.name())?;
        } else {
            kept.push((id, level));
        }
    }
    Ok(kept)
}

/// A newer format, which this version leaves alone.
fn too_new(head: &[u8]) -> Option<u16> {
    let version = head.strip_prefix(&MAGIC[..])?.get(..2)?.try_into().ok().map(u16::from_le_bytes)?;
    (version > VERSION).then_some(version)
}

/// What a segment was found to hold.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Stretches of bytes that are no records.
    pub(crate) damaged: u64,
    /// Where the last good record ends.
    pub(crate) end: u64,
}

/// Whether what stands behind the last good record is what a crash leaves of a write: the beginning of a record, or room that was never filled.
pub(crate) fn is_torn(file: &dyn DiskFile, end: u64) -> io::Result<bool> {
    let mut tail = Vec::new();
    read_up_to(file, end, record::RECORD_MAX, &mut tail)?;
    Ok(tail.iter().all(|b| *b == 0) || matches!(record::read(&tail), Found::Part(_)))
}

/// Reads a segment from `from` to `to` and shows every good record with the offset of its end, and whether damage lies between it
/// and the record before. Nothing is shown that its checksums do not vouch for.
pub(crate) fn scan(
    file: &dyn DiskFile,
    (from, to): (u64, u64),
    mut show: impl FnMut(Record<'_>, &[u8], bool),
) -> io::Result<Scan> {
    let mut scan = Scan { damaged: 0, end: from };
    let (mut at, mut want, mut gap) = (from, CHUNK, false);
    let mut bytes = Vec::new();
    if from <= SEGMENT_HEADER {
        read_up_to(file, 0, SEGMENT_HEADER as usize, &mut bytes)?;
        if let Some(version) = too_new(&bytes) {
            let why = format!("it was written by a newer version (format {version}, this one knows {VERSION})");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        at = SEGMENT_HEADER;
        scan.end = at;
    }
    while at < to {
        let most = usize::try_from(to - at).unwrap_or(usize::MAX).min(want);
        read_up_to(file, at, most, &mut bytes)?;
        if bytes.is_empty() {
            break;
        }
        let is_last = at + bytes.len() as u64 >= to || bytes.len() < most;
        let mut used = 0;
        want = CHUNK;
        while let Some(rest) = bytes.get(used..).filter(|r| !r.is_empty()) {
            match record::read(rest) {
                Found::Record(record, length) => {
                    show(record, rest.get(..length).unwrap_or_default(), std::mem::take(&mut gap));
                    used += length;
                    scan.end = at + used as u64;
                }
                Found::Part(length) if !is_last => {
                    want = CHUNK.max(length);
                    break;
                }
                Found::Part(_) | Found::Damage => {
                    let skipped = record::damage(rest);
                    // The end of what was read may be the beginning of a record: it is looked at again with what follows.
                    if skipped == rest.len() && !is_last && rest.len() >= record::HEAD {
                        used += skipped - (record::HEAD - 1);
                    } else if skipped == rest.len() && !is_last {
                        break;
                    } else {
                        used += skipped;
                    }
                    scan.damaged += u64::from(!std::mem::replace(&mut gap, true));
                }
            }
        }
        if used == 0 && (is_last || bytes.len() < most) {
            break;
        }
        at += used as u64;
    }
    Ok(scan)
}
