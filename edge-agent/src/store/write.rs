//! Writing: who hands in an event waits until it is on the disk; those that come together share one fsync.

use super::event::{self, Hash};
use super::files::{self, Begins, RESERVE};
use super::{BEGIN, LOG_MAX, TAIL_MAX};
use crate::telemetry::spool::disk::{Disk, DiskFile};
use crate::telemetry::spool::segment;
use crate::trouble::Shared;
use device_drivers::value::wall_clock_ms;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The reserve gives way by so much at a time.
const STEP: u64 = 64 << 10;
/// Outcomes of failed writes are remembered for so many events: whoever handed one in asks at once.
const FAILED_KEPT: u64 = 1024;
/// Events that nobody waits for and that wait for a disk that takes nothing: beyond, they are counted as refused.
const NOTED_MAX: usize = 50_000;

/// An event that nobody has written yet.
struct Waiting {
    at_ms: u64,
    kind: &'static str,
    body: Vec<u8>,
    /// Somebody waits for it, and is told if it could not be written; else it is tried again.
    awaited: bool,
}

#[derive(Default)]
struct Pending {
    events: Vec<Waiting>,
    /// Events handed in so far.
    count: u64,
}

/// Who writes has this.
pub(super) struct Writer {
    /// The log that is written; `None` after one that failed.
    pub(super) file: Option<Box<dyn DiskFile>>,
    pub(super) head: Option<Box<dyn DiskFile>>,
    /// Its number, and how long it is.
    pub(super) log: u64,
    pub(super) length: u64,
    /// The newest event.
    pub(super) number: u64,
    pub(super) hash: Hash,
    /// Events written, and those that could not be: both in the order of handing in.
    settled: u64,
    failed: Vec<(u64, u64, io::ErrorKind)>,
    reserve: u64,
}

/// The store. See the module.
pub struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pending: Mutex<Pending>,
    pub(super) writer: Mutex<Writer>,
    reserve_wanted: u64,
    /// Bytes of the logs behind the newest snapshot.
    pub(super) tail: AtomicU64,
    /// Bytes of the reserve.
    pub reserve: AtomicU64,
    /// Events written by this process.
    pub written: AtomicU64,
    /// Events that could not be written.
    pub refused: AtomicU64,
    /// The last write has failed.
    pub is_failing: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a store goes on.
pub(super) struct GoesOn {
    pub(super) file: Option<Box<dyn DiskFile>>,
    pub(super) log: u64,
    pub(super) length: u64,
    pub(super) number: u64,
    pub(super) hash: Hash,
    pub(super) tail: u64,
}

impl Store {
    pub(super) fn new(disk: Arc<dyn Disk>, reserve_wanted: u64, from: GoesOn) -> Store {
        let GoesOn { file, log, length, number, hash, tail } = from;
        let head = disk.open(files::HEAD).or_else(|_| disk.create(files::HEAD)).ok();
        let writer = Writer { file, head, log, length, number, hash, settled: 0, failed: Vec::new(), reserve: 0 };
        let store = Store {
            disk,
            pending: Mutex::default(),
            writer: Mutex::new(writer),
            reserve_wanted,
            tail: AtomicU64::new(tail),
            reserve: AtomicU64::new(0),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        };
        store.grow_reserve(&mut lock(&store.writer));
        store
    }

    /// The newest event: its number and its hash.
    pub fn newest(&self) -> (u64, Hash) {
        let writer = lock(&self.writer);
        (writer.number, writer.hash)
    }

    /// Whether so much lies behind the newest snapshot that there should be a new one.
    pub fn wants_snapshot(&self) -> bool {
        self.tail.load(Relaxed) >= TAIL_MAX
    }

    /// The same of something that happened then, milliseconds since 1970 UTC; 0 for now.
    pub fn note_at(&self, at_ms: u64, kind: &'static str, body: Vec<u8>) {
        self.hand_in(Waiting { at_ms, kind, body, awaited: false });
    }

    fn hand_in(&self, mut event: Waiting) -> u64 {
        if event.at_ms == 0 {
            event.at_ms = wall_clock_ms();
        }
        let mut pending = lock(&self.pending);
        if !event.awaited && pending.events.len() >= NOTED_MAX {
            self.refused.fetch_add(1, Relaxed);
            return pending.count;
        }
        pending.events.push(event);
        pending.count += 1;
        pending.count
    }

    /// Makes an event durable. Blocks until it is, or until it is sure that it is not.
    pub fn append(&self, kind: &'static str, body: Vec<u8>) -> io::Result<()> {
        self.settle_upto(self.hand_in(Waiting { at_ms: 0, kind, body, awaited: true }))
    }

    /// Hands in an event that nobody waits for: it is written with the next ones, or when somebody asks for that. What the disk does not take is
    /// tried again.
    pub fn note(&self, kind: &'static str, body: Vec<u8>) {
        self.note_at(0, kind, body);
    }

    /// Makes all that was handed in so far durable. Blocks until it is, or until it is sure that some of it is not.
    pub fn settle(&self) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        self.write_pending(&mut writer)
    }

    /// Whether something waits to be written, or a snapshot to be made.
    pub fn has_work(&self) -> bool {
        self.wants_snapshot() || !lock(&self.pending).events.is_empty()
    }

    /// Whoever comes first writes for all that wait behind it.
    fn settle_upto(&self, mine: u64) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        if writer.settled < mine {
            let _ = self.write_pending(&mut writer); // it may have been another's event
        }
        let failed = writer.failed.iter().find(|(from, to, _)| (*from..=*to).contains(&mine));
        failed.map_or(Ok(()), |(_, _, kind)| Err((*kind).into()))
    }

    fn write_pending(&self, writer: &mut Writer) -> io::Result<()> {
        let (events, upto) = {
            let mut pending = lock(&self.pending);
            (std::mem::take(&mut pending.events), pending.count)
        };
        if events.is_empty() {
            return Ok(());
        }
        let from = writer.settled + 1;
        let written = self.write(writer, &events);
        self.is_failing.store(written.is_err(), Relaxed);
        match &written {
            Ok(()) => drop(self.written.fetch_add(events.len() as u64, Relaxed)),
            Err(e) => {
                writer.failed.push((from, upto, e.kind()));
                static UNWRITTEN: Shared<io::ErrorKind> = Shared::new();
                if let Some(lasting) = UNWRITTEN.is(e.kind()) {
                    tracing::error!("the store cannot be written: {e}{lasting}");
                }
                self.put_back(events);
            }
        }
        writer.settled = upto;
        writer.failed.retain(|(_, to, _)| to + FAILED_KEPT > upto);
        written
    }

    /// What nobody waited for is tried again, before what has come meanwhile.
    fn put_back(&self, events: Vec<Waiting>) {
        let (awaited, noted): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.awaited);
        self.refused.fetch_add(awaited.len() as u64, Relaxed);
        lock(&self.pending).events.splice(0..0, noted);
    }

    /// Writes events, in a new log where there is none, where it is long, and where it fails: a file that has failed is never trusted again.
    fn write(&self, writer: &mut Writer, events: &[Waiting]) -> io::Result<()> {
        let mut again = true;
        loop {
            if writer.file.is_none() || writer.length >= LOG_MAX {
                self.with_room(writer, 0, |store, writer| store.begin_log(writer))?;
            }
            let (mut bytes, mut last) = (Vec::new(), (writer.number, writer.hash));
            for Waiting { at_ms, kind, body, .. } in events {
                let number = last.0 + 1;
                last = (number, event::push(&mut bytes, &last.1, (number, *at_ms), kind, body));
            }
            let done = self.with_room(writer, bytes.len() as u64, |_, writer| {
                let file = writer.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
                let written = file.write_at(writer.length, &bytes).and_then(|()| file.sync());
                written.inspect_err(|_| drop(file.set_len(writer.length)))
            });
            match done {
                Ok(()) => {
                    self.wrote(writer, bytes.len() as u64, last);
                    return Ok(());
                }
                Err(e) if e.kind() != io::ErrorKind::StorageFull && std::mem::take(&mut again) => writer.file = None,
                Err(e) => {
                    writer.file = writer.file.take().filter(|_| e.kind() == io::ErrorKind::StorageFull);
                    return Err(e);
                }
            }
        }
    }

    fn wrote(&self, writer: &mut Writer, bytes: u64, (number, hash): (u64, Hash)) {
        writer.length += bytes;
        (writer.number, writer.hash) = (number, hash);
        self.tail.fetch_add(bytes, Relaxed);
        if let Some(head) = &writer.head {
            let _ = files::write_head(&**head, number);
        }
    }

    /// Begins a log. Its first event says what it follows, so that each can be checked without the one before.
    pub(super) fn begin_log(&self, writer: &mut Writer) -> io::Result<()> {
        let (id, number) = (writer.log + 1, writer.number + 1);
        let mut bytes = segment::header(id);
        let hash = event::push(&mut bytes, &writer.hash, (number, wall_clock_ms()), BEGIN, &Begins::body(&writer.hash));
        let made = self.disk.create(&files::log(id)).and_then(|file| {
            file.write_at(0, &bytes)?;
            file.sync()?;
            self.disk.sync()?;
            Ok(file)
        });
        let file = made.inspect_err(|_| drop(self.disk.remove(&files::log(id))))?;
        (writer.file, writer.log, writer.length) = (Some(file), id, 0);
        self.wrote(writer, bytes.len() as u64, (number, hash));
        Ok(())
    }

    /// Does something that needs the disk, again and again while it is full and the reserve gives way.
    pub(super) fn with_room<T>(
        &self,
        writer: &mut Writer,
        need: u64,
        mut act: impl FnMut(&Store, &mut Writer) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match act(self, writer) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull && self.shrink_reserve(writer, need) => {}
                done => return done,
            }
        }
    }

    /// Takes room on the disk, as much as there is.
    pub(super) fn grow_reserve(&self, writer: &mut Writer) {
        let file = self.disk.open(RESERVE).or_else(|_| self.disk.create(RESERVE));
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
        tracing::warn!("the disk is full: the store lives on its reserve, {left} bytes are left");
        shrunk.is_ok()
    }
}
