//! Who commits and tends: the spool's thread, from the first look at its folder to the last commit.
//!
//! ```text
//!   start: lock the folder, read it ──> work: commit when it is due, tend once a second ──> close: last commit, cursor says "stopped"
//! ```

use super::lane::Lane;
use super::writer::LaneWriter;
use super::{
    COMMIT_AFTER, COMMIT_BYTES, Disk, Folder, Memory, STREAMS, Spool, SpoolOptions, Stream, VOLATILE_MAX, lock, segment,
};
use std::io;
use std::path::Path;
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
    /// Whatever the disk says.
    #[error("the spool in {0} cannot be opened: {1}; may this user write there, and is the disk mounted?")]
    Disk(String, io::Error),
}

/// How often cursor, age and rates are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);

impl Spool {
    /// A spool in a folder, or in memory when there is none; with a thread that commits. Nobody else may use the folder meanwhile.
    pub fn start(folder: Option<&Path>, options: SpoolOptions) -> Result<SpoolHandle, CannotOpen> {
        let memory = || Arc::new(Memory::default()) as Arc<dyn Disk>;
        let place = folder.map_or_else(|| "memory".to_string(), |f| f.display().to_string());
        let why = |e: io::Error| match e.kind() {
            io::ErrorKind::ResourceBusy => CannotOpen::InUse(place.clone()),
            _ => CannotOpen::Disk(place.clone(), e),
        };
        let mut held = None;
        let disks = match folder {
            None => [memory(), memory(), memory()],
            Some(folder) => {
                held = Some(crate::state::hold(folder).map_err(&why)?);
                let disk = |s: Stream| Folder::new(&folder.join(s.name())).map(|f| Arc::new(f) as Arc<dyn Disk>);
                let [high, normal, low] = STREAMS.map(disk);
                [high.map_err(&why)?, normal.map_err(&why)?, low.map_err(&why)?]
            }
        };
        let spool = Spool::open(disks, options).map_err(&why)?;
        let worker = spool.clone();
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || worker.work());
        Ok(SpoolHandle { spool, thread: Some(thread.map_err(&why)?), _held: held })
    }

    /// The same, but in memory when the disk does not take it, and why: telemetry never keeps control from starting.
    pub fn start_anyhow(
        folder: Option<&Path>,
        options: SpoolOptions,
    ) -> Result<(SpoolHandle, Option<CannotOpen>), CannotOpen> {
        let in_memory = SpoolOptions { capacity: options.capacity.min(VOLATILE_MAX as u64), ..options.clone() };
        match Spool::start(folder, options) {
            Err(why @ CannotOpen::Disk(..)) => Ok((Spool::start(None, in_memory)?, Some(why))),
            other => Ok((other?, None)),
        }
    }

    /// Everything that is done now and then: segments that are done or too many go, the cursor is written. Blocks.
    pub fn tend(&self) {
        let mut writers = lock(&self.writers);
        self.remove_done(&mut writers);
        self.keep_to_limits(&mut writers);
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            let mark = lock(&self.state).mark(stream);
            let _ = writer.save_cursor(mark, false, false);
        }
        drop(writers);
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

    /// The thread: commits when it is due, and tends.
    fn work(&self) {
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
        self.remove_done(&mut writers);
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
    _held: Option<std::fs::File>,
}

impl SpoolHandle {
    /// Commits what is left, and ends the thread. Blocks. Says what is given up: what waits in memory, if there is no disk or it takes
    /// nothing.
    pub fn stop(mut self) -> Option<String> {
        self.end();
        let is_kept = self._held.is_some();
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
