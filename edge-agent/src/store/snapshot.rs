//! Snapshots: what still stands of all events so far, in one file. The logs before it are then only for the audit.

use super::LOGS_MAX;
use super::event::{Event, hex};
use super::files::{self, Promised, Reach};
use super::open::Walk;
use super::write::{Store, lock};
use crate::telemetry::spool::disk::{Disk, DiskFile};
use crate::telemetry::spool::record;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

/// A snapshot is written in pieces of this length, bytes.
const PIECE: usize = 256 << 10;

impl Store {
    /// Writes a snapshot of the events that `stands` says something still stands on. Blocks. Others may append meanwhile: what they write comes
    /// behind it.
    pub fn snapshot(&self, mut stands: impl FnMut(&Event<'_>) -> bool) -> io::Result<()> {
        let (id, reach) = {
            let mut writer = lock(&self.writer);
            let (through, hash) = (writer.number, writer.hash);
            self.with_room(&mut writer, 0, |store, writer| store.begin_log(writer))?;
            self.tail.store(writer.length, Relaxed);
            (writer.log, Reach { through, hash: hex(&hash) })
        };
        let mut writing = |store: &Store| write(&*store.disk, id, &reach, &mut stands);
        if let Err(e) = writing(self) {
            if e.kind() != io::ErrorKind::StorageFull {
                return Err(e);
            }
            // Once more with what the reserve gives.
            let mut first = true;
            let full = |_: &Store, _: &mut _| if std::mem::take(&mut first) { Err(e.kind().into()) } else { Ok(()) };
            self.with_room(&mut lock(&self.writer), reach.through, full)?;
            writing(self)?;
        }
        self.forget(id)?;
        self.grow_reserve(&mut lock(&self.writer));
        Ok(())
    }

    /// Removes what a snapshot stands for: older snapshots, and the oldest logs, as far as there are too many.
    fn forget(&self, id: u64) -> io::Result<()> {
        let old = files::ids(&*self.disk, ".snap")?.into_iter().filter(|(snap, _)| *snap < id);
        old.map(|(snap, _)| files::snapshot(snap)).try_for_each(|name| self.disk.remove(&name))?;
        let logs = files::ids(&*self.disk, ".log")?;
        let mut bytes: u64 = logs.iter().map(|(_, length)| length).sum();
        for (log, length) in logs.into_iter().filter(|(log, _)| *log < id) {
            if bytes <= LOGS_MAX {
                break;
            }
            self.disk.remove(&files::log(log))?;
            bytes -= length;
        }
        Ok(())
    }
}

/// Writes the file: it is whole, or it is not there.
fn write(disk: &dyn Disk, id: u64, reach: &Reach, stands: &mut impl FnMut(&Event<'_>) -> bool) -> io::Result<()> {
    let name = files::snapshot(id);
    let mut out = Out { file: disk.create(&name)?, at: 0, bytes: files::snapshot_head(id, reach), failed: None };
    let done = Walk::through(disk, (id, Promised::Upto(reach.through)), |event| {
        if stands(event) {
            out.bytes.extend_from_slice(event.bytes);
            out.pass_on(PIECE);
        }
    });
    let done = done.and_then(|_| {
        record::push_skip(&mut out.bytes, (0, 0));
        out.pass_on(0);
        out.failed.take().map_or(Ok(()), Err)?;
        out.file.sync()?;
        disk.sync()
    });
    done.inspect_err(|_| drop(disk.remove(&name)))
}

struct Out {
    file: Box<dyn DiskFile>,
    at: u64,
    bytes: Vec<u8>,
    failed: Option<io::Error>,
}

impl Out {
    /// Writes what has come together, once it is longer than `most`.
    fn pass_on(&mut self, most: usize) {
        if self.bytes.len() > most && self.failed.is_none() {
            self.failed = self.file.write_at(self.at, &self.bytes).err();
            self.at += self.bytes.len() as u64;
            self.bytes.clear();
        }
    }
}
