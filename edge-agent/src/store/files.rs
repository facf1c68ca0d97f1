//! The files of a store: their names, and what each is found to hold.

use super::BEGIN;
use super::event::{Event, Hash, from_hex, hex};
use crate::telemetry::spool::disk::{Disk, DiskFile, read_up_to};
use crate::telemetry::spool::record::{self, Found, Kind};
use crate::telemetry::spool::segment;
use serde::{Deserialize, Serialize};
use std::io;

/// The newest number that was promised.
pub(super) const HEAD: &str = "head";
/// Room on the disk.
pub(super) const RESERVE: &str = "reserve";
/// The first event of a snapshot.
const SNAPSHOT: &str = "store.snapshot";
/// As much of a log as its first event takes at most.
const FIRST_MAX: usize = 4096;

/// Name of a log.
pub(super) fn log(id: u64) -> String {
    format!("{id:016x}.log")
}

/// Name of the snapshot that stands for all logs before the one with this number.
pub(super) fn snapshot(id: u64) -> String {
    format!("{id:016x}.snap")
}

/// Numbers of the files with this ending and their lengths, in order.
pub(super) fn ids(disk: &dyn Disk, ending: &str) -> io::Result<Vec<(u64, u64)>> {
    let files = disk.list()?;
    let id = |name: &str| u64::from_str_radix(name.strip_suffix(ending)?, 16).ok();
    let mut ids: Vec<_> = files.iter().filter_map(|(name, length)| Some((id(name)?, *length))).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// What the first event of a log says: the hash of the one before it.
#[derive(Serialize, Deserialize)]
pub(super) struct Begins {
    after: String,
}

impl Begins {
    pub(super) fn body(after: &Hash) -> Vec<u8> {
        serde_json::to_vec(&Begins { after: hex(after) }).unwrap_or_default()
    }

    /// The hash that a log's first event names; `None` for any other event.
    pub(super) fn after(event: &Event<'_>) -> Option<Hash> {
        let begins: Begins = serde_json::from_slice(event.body).ok().filter(|_| event.kind == BEGIN)?;
        from_hex(&begins.after)
    }
}

/// What the first event of a snapshot says: how far it reaches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reach {
    /// The newest event it stands for.
    pub(super) through: u64,
    /// The hash of that.
    pub(super) hash: String,
}

/// What a file was found to hold beside its events.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Of a snapshot: how far it reaches.
    pub(super) reach: Option<Reach>,
    /// Of a snapshot: its end mark is there.
    pub(super) whole: bool,
    /// Something in it, before its last event, is no event.
    pub(super) damaged: bool,
    /// What stands behind its last event is not what a crash leaves.
    pub(super) torn_wrongly: bool,
    /// Where the last event ends.
    pub(super) end: u64,
}

/// Reads a file and shows its events.
pub(super) fn scan(file: &dyn DiskFile, mut show: impl FnMut(&Event<'_>)) -> io::Result<Scanned> {
    let mut found = Scanned::default();
    let scan = segment::scan(file, (0, u64::MAX), |record, bytes, gap| {
        found.damaged |= gap;
        match Event::of(&record, bytes) {
            _ if record.kind == Kind::Skip => found.whole = true,
            Some(event) if event.kind == SNAPSHOT => found.reach = serde_json::from_slice(event.body).ok(),
            Some(event) => show(&event),
            None => found.damaged = true,
        }
    })?;
    found.end = scan.end;
    found.torn_wrongly = !segment::is_torn(file, scan.end)?;
    Ok(found)
}

/// Shows the event in these bytes, which were read before.
pub(super) fn with_event(bytes: &[u8], show: impl FnOnce(&Event<'_>)) {
    if let Some(event) = record::peek(bytes).as_ref().and_then(|record| Event::of(record, bytes)) {
        show(&event);
    }
}

/// The number of a log's first event, if that can be read.
pub(super) fn first_number(disk: &dyn Disk, id: u64) -> Option<u64> {
    let (file, mut bytes) = (disk.open(&log(id)).ok()?, Vec::new());
    read_up_to(&*file, segment::SEGMENT_HEADER, FIRST_MAX, &mut bytes).ok()?;
    match record::read(&bytes) {
        Found::Record(record, _) if record.topic == BEGIN => Some(record.sequence),
        _ => None,
    }
}

/// The bytes a snapshot begins with.
pub(super) fn snapshot_head(id: u64, reach: &Reach) -> Vec<u8> {
    let mut bytes = segment::header(id);
    let body = serde_json::to_vec(reach).unwrap_or_default();
    super::event::push(&mut bytes, &super::event::NONE, (reach.through, 0), SNAPSHOT, &body);
    bytes
}

/// A number and its checksum, bytes; they stand there twice.
const HEAD_HALF: usize = 12;

/// Writes the newest number beside. It need not be durable: it is there to be compared.
pub(super) fn write_head(file: &dyn DiskFile, number: u64) -> io::Result<()> {
    let mut half = number.to_le_bytes().to_vec();
    half.extend_from_slice(&crc32c::crc32c(&half).to_le_bytes());
    file.write_at(0, &half.repeat(2))
}

/// What is known of the newest number that was promised.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Promised {
    /// Nothing was written of it.
    Nothing,
    /// All up to this.
    Upto(u64),
    /// It was written, and cannot be read any more.
    Unreadable,
}

/// Reads what was written beside.
pub(super) fn read_head(disk: &dyn Disk) -> Promised {
    let mut bytes = Vec::new();
    let read = disk.open(HEAD).and_then(|file| read_up_to(&*file, 0, 2 * HEAD_HALF, &mut bytes));
    if read.is_err() || bytes.len() < 2 * HEAD_HALF {
        return Promised::Nothing; // or the very first write, torn
    }
    let number = |half: &[u8]| {
        let (said, sum) = half.split_last_chunk::<4>()?;
        let number = said.first_chunk::<8>()?;
        (crc32c::crc32c(said) == u32::from_le_bytes(*sum)).then(|| u64::from_le_bytes(*number))
    };
    bytes.chunks(HEAD_HALF).filter_map(number).max().map_or(Promised::Unreadable, Promised::Upto)
}
