//! The order journal: what has to be known after a restart. Few bytes, each durable before anybody acts on it.
//!
//! ```text
//!   append(entry) ──> written, fsynced ──> Ok        several callers at once share one fsync
//!   start         ──> every entry, in order          a torn tail was never Ok
//!   compact(live) ──> a new file with these, then the old one goes
//!
//!   0000000000000003.jnl    header | entry .. | whole | entry | entry ..       without "whole" it is what a crash left of a compaction
//!   reserve                 room on the disk that telemetry cannot take: it shrinks when the disk is full, and grows again later
//! ```
//!
//! **Damage.** A tail that a crash has torn is cut: nobody was told that it is there. A file with any other damage, or one that cannot be
//! read, is set aside as it is; what is sound in it goes on in a new one.

use super::disk::{Disk, DiskFile, Folder};
use super::record::{self, Kind};
use super::segment::{self, SEGMENT_HEADER};
use crate::trouble::Shared;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const RESERVE: &str = "reserve";
/// The reserve gives way by so much at a time.
const STEP: u64 = 64 << 10;

/// What callers have handed in and nobody has written yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Entries handed in so far.
    count: u64,
}

struct Writer {
    id: u64,
    file: Box<dyn DiskFile>,
    length: u64,
    /// Entries written, and entries that could not be: both in the order of handing in.
    settled: u64,
    failed: Vec<(u64, u64, io::ErrorKind)>,
    reserve: u64,
}

/// The journal.
pub struct Journal {
    disk: Arc<dyn Disk>,
    pending: Mutex<Pending>,
    writer: Mutex<Writer>,
    reserve_wanted: u64,
    /// Bytes of the file.
    pub bytes: AtomicU64,
    /// Bytes of the reserve.
    pub reserve: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(id: u64) -> String {
    format!("{id:016x}.jnl")
}

fn push(out: &mut Vec<u8>, entry: &[u8]) {
    let at = out.len();
    record::push(out, Kind::Json, &[], (0, 0), |out| {
        out.extend_from_slice(entry);
        0
    });
    out.get_mut(at..).into_iter().for_each(|record| record::number(record, 1));
}

/// What a file was found to hold.
struct Found {
    entries: Vec<Vec<u8>>,
    /// It was begun to its end.
    whole: bool,
    /// There is more in it than a crash can explain.
    damaged: bool,
    /// Where its last good record ends.
    end: u64,
}

fn read(file: &dyn DiskFile) -> io::Result<Found> {
    let (mut entries, mut whole, mut damaged) = (Vec::new(), false, false);
    let scan = segment::scan(file, (0, u64::MAX), |record, _, gap| {
        damaged |= gap;
        match record.kind {
            Kind::Skip => whole = true,
            _ => entries.push(record.payload.to_vec()),
        }
    })?;
    damaged |= !segment::is_torn(file, scan.end)?;
    Ok(Found { entries, whole, damaged, end: scan.end })
}

/// The files as they were found, the newest first.
#[derive(Default)]
struct Opened {
    /// The newest that is whole and sound.
    current: Option<(u64, Box<dyn DiskFile>, Found)>,
    /// Newer ones that are damaged, and what is sound in them.
    damaged: Vec<(u64, Vec<Vec<u8>>)>,
    /// Newer ones that are not whole: what a crash left of a compaction, if the one before it is there.
    begun: Vec<(u64, Vec<Vec<u8>>)>,
    /// Older ones: the newest whole one stands for them.
    gone: Vec<u64>,
}

impl Opened {
    fn look(&mut self, disk: &dyn Disk, id: u64) {
        if self.current.is_some() {
            return self.gone.push(id);
        }
        match disk.open(&name(id)).and_then(|file| read(&*file).map(|found| (file, found))) {
            Ok((_, found)) if found.damaged => self.damaged.push((id, found.entries)),
            Ok((_, found)) if !found.whole => self.begun.push((id, found.entries)),
            Ok((file, found)) => self.current = Some((id, file, found)),
            Err(why) => {
                tracing::error!("{} of the order journal cannot be read: {why}", name(id));
                self.damaged.push((id, Vec::new()));
            }
        }
    }
}

impl Journal {
    /// Opens the journal in a folder, with what was written before.
    pub fn start(folder: &Path, reserve: u64) -> Result<(Journal, Vec<Vec<u8>>), String> {
        let why = |e: io::Error| format!("the order journal in {} cannot be opened: {e}", folder.display());
        let disk = Folder::new(folder).map_err(why)?;
        Journal::open(Arc::new(disk), reserve).map_err(why)
    }

    /// Opens the journal on a disk, with what was written before.
    pub fn open(disk: Arc<dyn Disk>, reserve_wanted: u64) -> io::Result<(Journal, Vec<Vec<u8>>)> {
        let mut ids: Vec<u64> = disk
            .list()?
            .iter()
            .filter_map(|(name, _)| u64::from_str_radix(name.strip_suffix(".jnl")?, 16).ok())
            .collect();
        ids.sort_unstable();
        let (id, file, length, entries) = recover(&*disk, &ids)?;
        let writer = Writer { id, file, length, settled: 0, failed: Vec::new(), reserve: 0 };
        let (pending, writer) = (Mutex::default(), Mutex::new(writer));
        let (bytes, reserve) = (AtomicU64::new(length), AtomicU64::new(0));
        let journal = Journal { disk, pending, writer, reserve_wanted, bytes, reserve };
        journal.grow_reserve(&mut lock(&journal.writer));
        Ok((journal, entries))
    }

    /// Takes room on the disk, as much as there is.
    fn grow_reserve(&self, writer: &mut Writer) {
        let there = self.disk.list().is_ok_and(|files| files.iter().any(|(n, _)| n == RESERVE));
        let file = if there { self.disk.open(RESERVE) } else { self.disk.create(RESERVE) };
        let grown = file.and_then(|file| file.set_len(self.reserve_wanted));
        writer.reserve = if grown.is_ok() { self.reserve_wanted } else { writer.reserve };
        self.reserve.store(writer.reserve, Relaxed);
    }

    /// Gives some of the reserve back to the disk; false when there is none.
    fn shrink_reserve(&self, writer: &mut Writer, need: u64) -> bool {
        let left = writer.reserve.saturating_sub(need.max(STEP));
        if writer.reserve == 0 {
            return false;
        }
        let shrunk = self.disk.open(RESERVE).and_then(|file| file.set_len(left).and_then(|()| file.sync()));
        writer.reserve = left;
        self.reserve.store(left, Relaxed);
        tracing::warn!("the disk is full: the order journal lives on its reserve, {left} bytes are left");
        shrunk.is_ok()
    }

    /// Makes an entry durable. Blocks until it is, or until it is sure that it is not.
    pub fn append(&self, entry: &[u8]) -> io::Result<()> {
        let mine = {
            let mut pending = lock(&self.pending);
            push(&mut pending.bytes, entry);
            pending.count += 1;
            pending.count
        };
        let mut writer = lock(&self.writer);
        if writer.settled < mine {
            // Whoever comes first writes for all that wait behind it.
            let (bytes, upto) = {
                let mut pending = lock(&self.pending);
                (std::mem::take(&mut pending.bytes), pending.count)
            };
            let from = writer.settled + 1;
            if let Err(e) = self.write(&mut writer, &bytes) {
                writer.failed.push((from, upto, e.kind()));
                static UNWRITTEN: Shared<io::ErrorKind> = Shared::new();
                if let Some(lasting) = UNWRITTEN.is(e.kind()) {
                    tracing::error!("the order journal cannot be written: {e}{lasting}");
                }
            }
            writer.settled = upto;
            writer.failed.retain(|(_, to, _)| to + 1024 > upto);
        }
        let failed = writer.failed.iter().find(|(from, to, _)| (*from..=*to).contains(&mine));
        failed.map_or(Ok(()), |(_, _, kind)| Err((*kind).into()))
    }

    /// [`Journal::append`] for those who must not block.
    pub async fn record(self: &Arc<Self>, entry: Vec<u8>) -> io::Result<()> {
        let journal = self.clone();
        let done = tokio::task::spawn_blocking(move || journal.append(&entry)).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    fn write(&self, writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
        loop {
            let written = writer.file.write_at(writer.length, bytes).and_then(|()| writer.file.sync());
            let why = match written {
                Ok(()) => break,
                Err(why) => why,
            };
            let _ = writer.file.set_len(writer.length);
            if why.kind() == io::ErrorKind::StorageFull {
                if self.shrink_reserve(writer, bytes.len() as u64) {
                    continue;
                }
                return Err(why);
            }
            // A file that failed is never trusted again: what is in it goes into another, with what is new.
            return self.rewrite(writer, bytes);
        }
        writer.length += bytes.len() as u64;
        self.bytes.store(writer.length, Relaxed);
        Ok(())
    }

    fn rewrite(&self, writer: &mut Writer, more: &[u8]) -> io::Result<()> {
        let entries = read(&*writer.file)?.entries;
        let mut all = Vec::new();
        entries.iter().for_each(|entry| push(&mut all, entry));
        all.extend_from_slice(more);
        self.replace(writer, &all)
    }

    fn replace(&self, writer: &mut Writer, entries: &[u8]) -> io::Result<()> {
        let (id, file, length) = begin(&*self.disk, writer.id + 1, entries)?;
        let old = std::mem::replace(&mut writer.id, id);
        (writer.file, writer.length) = (file, length);
        self.bytes.store(length, Relaxed);
        let _ = self.disk.remove(&name(old));
        Ok(())
    }

    /// Begins anew with what `live` gives, and nothing else that is in the file. Blocks until that is durable. `live` is called when nobody can
    /// write: what has been written by then has to be in it, as far as it is still wanted; what is appended later comes after it.
    pub fn compact(&self, live: impl FnOnce() -> Vec<Vec<u8>>) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        let mut bytes = Vec::new();
        live().iter().for_each(|entry| push(&mut bytes, entry));
        loop {
            match self.replace(&mut writer, &bytes) {
                Err(e)
                    if e.kind() == io::ErrorKind::StorageFull
                        && self.shrink_reserve(&mut writer, bytes.len() as u64) => {}
                other => {
                    self.grow_reserve(&mut writer);
                    return other;
                }
            }
        }
    }
}

/// A journal as it is after it was opened: the number and the file that goes on, its length, and what is in force.
type Recovered = (u64, Box<dyn DiskFile>, u64, Vec<Vec<u8>>);

/// What is in force of these files, the oldest first. Where something was damaged a new file has all that is sound, before anything is moved.
fn recover(disk: &dyn Disk, ids: &[u64]) -> io::Result<Recovered> {
    let mut opened = Opened::default();
    ids.iter().rev().for_each(|id| opened.look(disk, *id));
    let Opened { mut current, mut damaged, begun, mut gone } = opened;
    if let Some((id, file, found)) = current.take_if(|_| damaged.is_empty()) {
        file.set_len(found.end)?; // a torn tail was never promised
        file.sync()?;
        gone.extend(begun.iter().map(|(id, _)| *id));
        gone.iter().try_for_each(|id| disk.remove(&name(*id)))?;
        return Ok((id, file, found.end, found.entries));
    }
    let mut entries = Vec::new();
    if let Some((id, _, found)) = current {
        entries.extend(found.entries);
        gone.push(id);
        gone.extend(begun.iter().map(|(id, _)| *id));
    } else {
        damaged.extend(begun); // there is nothing it could be left of
        damaged.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
    }
    entries.extend(damaged.iter_mut().rev().flat_map(|(_, sound)| sound.drain(..)));
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| push(&mut bytes, entry));
    let (id, file, length) = begin(disk, ids.last().map_or(1, |last| last + 1), &bytes)?;
    damaged.iter().try_for_each(|(id, _)| disk.set_aside(&name(*id)))?;
    gone.iter().try_for_each(|id| disk.remove(&name(*id)))?;
    Ok((id, file, length, entries))
}

/// A new file that holds these records and is whole.
fn begin(disk: &dyn Disk, id: u64, records: &[u8]) -> io::Result<(u64, Box<dyn DiskFile>, u64)> {
    let made = || {
        let file = disk.create(&name(id))?;
        let mut bytes = segment::header(id);
        bytes.extend_from_slice(records);
        record::push_skip(&mut bytes, (0, 0));
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.sync()?;
        Ok((id, file, bytes.len() as u64))
    };
    made().inspect_err(|_: &io::Error| drop(disk.remove(&name(id))))
}

const _: () = assert!(SEGMENT_HEADER == 16, "a journal's file begins like a segment");
