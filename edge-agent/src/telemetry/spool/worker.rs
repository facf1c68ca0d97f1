//! Who commits and tends: the spool's thread, from the first look at its folder to the last commit.
//!
//! ```text
//!   start: lock the folder, read it ──> work: commit when it is due, tend once a second ──> close: last commit, cursor says "stopped"
//! ```

use super::lane::Lane;
use super::writer::LaneWriter;
use super::{COMMIT_AFTER, COMMIT_BYTES, Disk, Folder, Memory, STREAMS, Spool, SpoolOptions, Stream, lock, segment};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A disk that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// Why a spool is not opened.
#[derive(Debug, thiserror::Error)]
pub enum CannotOpen {
    /// Two gateways must not count in one stream.
    #[error("the spool in {0} cannot be opened: another gateway uses it")]
    InUse(String),
    /// Whatever the machine says.
    #[error("the spool in {0} cannot be opened: {1}; may this user write there, and is the disk mounted?")]
    Disk(String, io::Error),
    /// It has no thread that commits.
    #[error("the spool's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// How often cursor, age and rates are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// Where a spool lives.
enum Place {
    Memory,
    /// In a folder that nobody else may use meanwhile.
    Folder {
        _held: File,
    },
    /// In a folder that could not be opened: it is tried again then.
    Later {
        folder: PathBuf,
        at: Instant,
    },
}

impl Place {
    /// Takes hold of a folder, and does something with its disks. Blocks.
    fn open<T>(folder: &Path, with: impl FnOnce([Arc<dyn Disk>; 3]) -> io::Result<T>) -> Result<(T, File), CannotOpen> {
        let place = folder.display().to_string();
        let opened = crate::state::hold(folder).and_then(|held| {
            let disk = |s: Stream| Folder::new(&folder.join(s.name())).map(|f| Arc::new(f) as Arc<dyn Disk>);
            let [high, normal, low] = STREAMS.map(disk);
            Ok((with([high?, normal?, low?])?, held))
        });
        opened.map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => CannotOpen::InUse(place),
            _ => CannotOpen::Disk(place, e),
        })
    }

    /// Opens a folder that could not be opened, when it is time to, or for the last time.
    fn try_again(&mut self, spool: &Spool, is_last: bool) {
        let Place::Later { folder, at } = self else { return };
        if Instant::now() < *at && !is_last {
            return;
        }
        match Place::open(folder, |disks| spool.attach(disks)) {
            Ok(((), held)) => {
                tracing::info!("the spool in {} is open: what waited in memory goes there", folder.display());
                *self = Place::Folder { _held: held };
            }
            Err(why) => {
                *at = Instant::now() + spool.options.reopen_after;
                spool.stays_unopened(why.to_string());
            }
        }
    }
}

impl Spool {
    /// A spool in a folder, or in memory when there is none; with a thread that commits. Nobody else may use the folder meanwhile. One that
    /// cannot be opened is tried again: telemetry keeps nobody from starting.
    pub fn start(folder: Option<&Path>, options: SpoolOptions) -> Result<SpoolHandle, CannotOpen> {
        let (spool, place) = match folder {
            None => {
                let memory = || Arc::new(Memory::default()) as Arc<dyn Disk>;
                let spool = Spool::open([memory(), memory(), memory()], options);
                (spool.map_err(|e| CannotOpen::Disk("memory".into(), e))?, Place::Memory)
            }
            Some(folder) => match Place::open(folder, |disks| Spool::open(disks, options.clone())) {
                Ok((spool, held)) => (spool, Place::Folder { _held: held }),
                Err(why @ CannotOpen::InUse(_)) => return Err(why),
                Err(why) => {
                    tracing::error!("{why} What waits for the broker is in memory, and it is tried again");
                    let at = Instant::now() + options.reopen_after;
                    (Spool::unopened(options, why.to_string()), Place::Later { folder: folder.into(), at })
                }
            },
        };
        let worker = spool.clone();
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || worker.work(place));
        let thread = thread.map_err(CannotOpen::Thread)?;
        Ok(SpoolHandle { spool, thread: Some(thread), has_folder: folder.is_some() })
    }

    /// Everything that is done now and then: segments that are done or too many go, the cursor is written. Blocks.
    pub fn tend(&self) {
        let mut writers = lock(&self.writers);
        if let Some(writers) = writers.as_mut() {
            self.remove_done(writers);
            self.keep_to_limits(writers);
            for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
                let mark = lock(&self.state).mark(stream);
                let _ = writer.save_cursor(mark, false, false);
            }
        }
        drop(writers);
        self.look_at_room();
        let mut state = lock(&self.state);
        state.saying.look(Instant::now());
        self.show(&state);
        drop(state);
        self.stats.rates.look(Instant::now());
    }

    /// Removes segments of which every record is done. The cursor says so first, durably.
    fn remove_done(&self, writers: &mut [LaneWriter; 3]) {
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            let (gone, mark) = {
                let mut state = lock(&self.state);
                let lane = state.lane_mut(stream);
                lane.tidy();
                let active = writer.active_id();
                let is_gone = |s: &segment::Segment| Some(s.id) != active && lane.done.open_from(s.first) > s.last;
                let gone: Vec<_> = lane.segments.iter().filter(|s| is_gone(s)).copied().collect();
                for segment in &gone {
                    let (from, to) = lane.around(segment);
                    lane.done.add(from, to);
                }
                (gone, state.mark(stream))
            };
            if gone.is_empty() || writer.save_cursor(mark, true, false).is_err() {
                continue;
            }
            lock(&self.state).lane_mut(stream).segments.retain(|s| !gone.iter().any(|g| g.id == s.id));
            for segment in gone {
                let _ = writer.disk.remove(&segment.name());
            }
        }
    }

    /// Room on the disk, or in memory when that takes nothing. Asks the disk, and does not wait for it to write.
    fn look_at_room(&self) {
        let state = lock(&self.state);
        let free = match self.stats.is_failing.load(Relaxed) {
            true => Some(self.memory(&state).saturating_sub(state.volatile()) as u64),
            false => {
                let volatile = state.volatile() as u64;
                drop(state);
                let disk = self.disks.get().and_then(|[_, normal, _]| normal.free());
                disk.map(|free| free.saturating_sub(volatile))
            }
        };
        self.stats.disk_free.store(free.unwrap_or(u64::MAX), Relaxed);
    }

    /// The thread: commits when it is due, and tends. Holds the folder, or tries to open it.
    fn work(&self, mut place: Place) {
        let (mut tended, mut retry): (Instant, Option<Instant>) = (Instant::now(), None);
        loop {
            let stop = {
                let mut state = lock(&self.state);
                loop {
                    let now = Instant::now();
                    let big = state.lanes.iter().any(|l| l.open_bytes() >= COMMIT_BYTES);
                    let due = match (state.due, retry) {
                        (_, Some(retry)) => Some(retry),
                        (Some(_), None) if big || state.urgent => Some(now),
                        (Some(first), None) => Some(first + COMMIT_AFTER),
                        (None, None) => None,
                    };
                    let until = due.map_or(tended + TEND_EVERY, |due| due.min(tended + TEND_EVERY));
                    if state.stop || until <= now {
                        break;
                    }
                    state = self.wake.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
                }
                (state.due, state.urgent) = (None, false);
                state.stop
            };
            place.try_again(self, stop);
            retry = self.commit().is_err().then(|| Instant::now() + RETRY);
            if tended.elapsed() >= TEND_EVERY || self.over() {
                tended = Instant::now();
                self.tend();
            }
            if stop {
                self.close();
                return;
            }
        }
    }

    /// Whether more is used than may be.
    fn over(&self) -> bool {
        lock(&self.state).lanes.iter().map(Lane::disk_bytes).sum::<u64>() > self.options.capacity
    }

    /// The last commit, and a cursor that says that this was a stop.
    pub fn close(&self) {
        let committed = self.commit().is_ok();
        let mut writers = lock(&self.writers);
        let Some(writers) = writers.as_mut() else { return };
        self.remove_done(writers);
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            let mark = lock(&self.state).mark(stream);
            let _ = writer.save_cursor(mark, true, committed);
        }
    }
}

/// A spool with its thread.
#[derive(Debug)]
pub struct SpoolHandle {
    /// The spool.
    pub spool: Arc<Spool>,
    thread: Option<std::thread::JoinHandle<()>>,
    has_folder: bool,
}

impl SpoolHandle {
    /// Commits what is left, and ends the thread. Blocks. Says what is given up: what waits in memory, if there is no disk or it takes
    /// nothing.
    pub fn stop(mut self) -> Option<String> {
        self.end();
        let is_kept = self.has_folder;
        let rows = self.spool.waiting_in_memory(is_kept);
        let rows = rows.into_iter().filter(|(_, messages, _)| *messages > 0);
        let said: Vec<String> = rows
            .map(|(stream, messages, values)| format!("{} {messages} messages ({values} values)", stream.name()))
            .collect();
        let why =
            if is_kept { "given up, for the disk takes nothing" } else { "given up with the memory they waited in" };
        (!said.is_empty()).then(|| format!("{why}: {}", said.join(", ")))
    }

    fn end(&mut self) {
        lock(&self.spool.state).stop = true;
        self.spool.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for SpoolHandle {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::kept::Kept;

    #[test]
    fn a_folder_that_opens_late_is_told_once_and_the_tries_before_are_not() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("spool");
        std::fs::write(&folder, "a file where the folder should be").unwrap();
        let (kept, _listening) = Kept::listen();
        let spool = Spool::unopened(SpoolOptions::new(1 << 20, "lost"), "it is not there".into());
        spool.stays_unopened(String::new());
        let mut place = Place::Later { folder: folder.clone(), at: Instant::now() };
        let try_often = |place: &mut Place| (0..5).for_each(|_| place.try_again(&spool, true));
        try_often(&mut place);
        assert!(spool.why_unopened().unwrap().contains("is the disk mounted"));
        std::fs::remove_file(&folder).unwrap();
        let other = crate::state::hold(&folder).unwrap();
        try_often(&mut place);
        assert!(spool.why_unopened().unwrap().contains("another gateway uses it"));
        drop(other);
        assert_eq!(kept.lines(), [""; 0]);
        try_often(&mut place);
        let said = kept.lines();
        assert!(said.len() == 1 && said[0].contains("is open"), "{said:?}");
        assert!(spool.why_unopened().is_none() && spool.commit().is_ok());
        crate::state::hold(&folder).unwrap_err();
    }

    #[test]
    fn what_waits_in_memory_at_the_stop_goes_to_a_folder_that_can_be_opened_by_then() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("spool");
        std::fs::write(&folder, "a file where the folder should be").unwrap();
        let options = SpoolOptions { reopen_after: Duration::from_secs(1 << 20), ..SpoolOptions::new(1 << 20, "lost") };
        let handle = Spool::start(Some(&folder), options.clone()).unwrap();
        let mut records = crate::telemetry::spool::Records::default();
        records.push((Stream::Normal, crate::telemetry::spool::Kind::Json), &["t"], (1, 1), |out| {
            out.extend_from_slice(b"{\"sequence\":}");
            12
        });
        handle.spool.append(&mut records);
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(handle.stop(), None);
        assert_eq!(Spool::start(Some(&folder), options).unwrap().spool.accounts().waiting, 1);
    }
}
