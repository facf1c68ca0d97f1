//! The spool: messages that have been promised and are not acknowledged, on disk.
//!
//! ```text
//!   field lines ──append──> [ memory ] ──commit──> [ segments on disk ]
//!                               │  100 ms, 256 KiB, or now        │
//!                               └──────────┬──────────────────────┘
//!                                       outlet ──> sender ──PUBACK──> done: the cursor moves, segments go
//!
//!   three streams, each with segments, numbers and a cursor of its own:    high   alarms, events, what was lost
//!                                                                          normal process values
//!                                                                          low    what can be missed first
//! ```
//!
//! **What is promised.** A record is promised when a commit has put it on disk: then it is delivered at least once, in the order of its
//! stream, whatever is killed. Sending does not wait for that: a record goes out as soon as it is there, and what the broker has
//! acknowledged before its commit is due is never written at all. A gateway with a broker that answers wears no flash.
//!
//! **Numbers.** A stream counts its records 1, 2, 3 .. without gaps. A number is never used twice, not even for what was sent and then
//! lost with the power: blocks of numbers are reserved in the cursor, and a run that was not stopped jumps to the end of its block
//! and says so in the stream.
//!
//! **Commit.** One thread writes for all streams: one write and one fsync each, 100 ms after the first record, at 256 KiB, or at once
//! for the stream `high`. Nobody who appends waits for a disk. A new file is made durable together with its folder.
//!
//! **Damage.** Length and content of each record have checksums ([`record`]). A torn tail is cut at the start; damage in the middle costs
//! the records it hit, which are counted and told; nothing damaged is delivered. After the first failed fsync a segment is left for good,
//! and what is not done in it is written anew (`writer`).
//!
//! **Full.** Bytes and age are limited. What goes first is configured: the oldest, the less important, or every record but each n-th of
//! the less important (`retention`). Each stretch that is lost is told in the stream `high`, apart from others.
//!
//! **Back again.** Live-first: what is new goes out at once, and what waited follows beside it, at a limited rate. In-order: first what
//! waited (`outlet`).

mod cursor;
pub mod disk;
pub mod done;
pub mod journal;
mod lane;
mod outlet;
pub mod record;
mod retention;
mod segment;
mod status;
mod writer;

pub use disk::{Disk, DiskFile, Folder, Memory};
pub use journal::Journal;
pub use outlet::{Load, Next, Outlet, Replay, Ticket};
pub use record::Kind;
pub use retention::Retention;
pub use status::SpoolStatus;

use crate::metrics::histogram::Histogram;
use lane::{Batch, Lane};
use status::Rates;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use writer::LaneWriter;

/// A commit is due this long after the first record.
pub const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// Or when so many bytes wait for one.
pub const COMMIT_BYTES: usize = 256 << 10;
/// Memory for records that no disk takes, bytes; beyond, the oldest are lost and told.
pub const VOLATILE_MAX: usize = 16 << 20;
/// A disk that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// How often cursor, age and rates are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Segments: so many make a full spool, none smaller or larger than this.
const SEGMENTS: u64 = 64;
const SEGMENT_RANGE: (u64, u64) = (16 << 10, 16 << 20);

/// A stream: more important ones are sent first and dropped last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Alarms and events: committed at once.
    High,
    /// Process values.
    #[default]
    Normal,
    /// What can be missed first.
    Low,
}

/// All streams, the important first.
pub const STREAMS: [Stream; 3] = [Stream::High, Stream::Normal, Stream::Low];

impl Stream {
    /// Its name in configuration, messages and folders.
    pub fn name(self) -> &'static str {
        match self {
            Stream::High => "high",
            Stream::Normal => "normal",
            Stream::Low => "low",
        }
    }

    const fn index(self) -> usize {
        match self {
            Stream::High => 0,
            Stream::Normal => 1,
            Stream::Low => 2,
        }
    }
}

/// What a spool is told.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Bytes for all streams.
    pub capacity: u64,
    /// Older records are dropped.
    pub age_max: Duration,
    /// What goes first when it is full.
    pub retention: Retention,
    /// Topic of loss records.
    pub loss_topic: String,
}

impl SpoolOptions {
    /// A spool of so many bytes that keeps everything for as long as it fits.
    pub fn new(capacity: u64, loss_topic: &str) -> SpoolOptions {
        let retention = Retention::Oldest;
        SpoolOptions { capacity, age_max: Duration::MAX, retention, loss_topic: loss_topic.into() }
    }

    fn segment_bytes(&self) -> u64 {
        (self.capacity / SEGMENTS).clamp(SEGMENT_RANGE.0, SEGMENT_RANGE.1)
    }
}

/// Why records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The spool was full.
    Full,
    /// They were too old.
    Age,
    /// One in so many of each series was kept.
    Thinned(u32),
    /// The disk gave back something else than was written.
    Damaged,
    /// The disk took nothing for too long.
    Disk,
    /// The gateway was not stopped: these numbers were never promised.
    Restart,
    /// The broker takes no messages of this size.
    TooLarge,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Age => "age",
            Reason::Thinned(_) => "thinned",
            Reason::Damaged => "damaged",
            Reason::Disk => "disk",
            Reason::Restart => "restart",
            Reason::TooLarge => "too large",
        }
    }
}

/// A stretch of one stream of which records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose numbers they are.
    pub stream: Stream,
    /// First sequence.
    pub from: u64,
    /// Last sequence.
    pub to: u64,
    /// Records lost.
    pub records: u64,
    /// Values in them, as far as that is known.
    pub values: u64,
    /// Bytes of them, as far as that is known.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// What the spool counts.
#[derive(Debug, Default)]
pub struct SpoolStats {
    /// Values appended.
    pub produced: AtomicU64,
    /// Values acknowledged by the broker.
    pub delivered: AtomicU64,
    /// Values dropped: the spool was full or they were too old.
    pub lost: AtomicU64,
    /// Values the broker refused.
    pub refused: AtomicU64,
    /// Messages waiting.
    pub waiting: AtomicU64,
    /// Bytes of them.
    pub waiting_bytes: AtomicU64,
    /// Records that damage took.
    pub damaged: AtomicU64,
    /// Bytes on disk, of what is done too: a segment goes when all in it is.
    pub disk_bytes: AtomicU64,
    /// Bytes that no disk holds yet.
    pub volatile_bytes: AtomicU64,
    /// Commits made.
    pub commits: AtomicU64,
    /// Bytes written by them.
    pub written_bytes: AtomicU64,
    /// Writes and fsyncs that failed.
    pub disk_faults: AtomicU64,
    /// The disk takes nothing right now.
    pub is_failing: AtomicBool,
    /// Time of a commit.
    pub commit: Histogram,
    rates: Rates,
}

/// Encoded records on their way into the spool, by stream. Kept and used again: appending allocates nothing once it has grown.
#[derive(Debug, Default)]
pub struct Records {
    bytes: [Vec<u8>; 3],
    values: u64,
}

impl Records {
    /// Adds one; `fill` writes the payload and gives the place in it where the sequence goes.
    pub fn push(
        &mut self,
        (stream, kind): (Stream, Kind),
        topic: &[&str],
        (at_ms, values): (u64, u32),
        fill: impl FnOnce(&mut Vec<u8>) -> usize,
    ) {
        if let Some(out) = self.bytes.get_mut(stream.index()) {
            record::push(out, kind, topic, (at_ms, values), fill);
            self.values += u64::from(values);
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(Vec::is_empty)
    }

    fn clear(&mut self) {
        self.bytes.iter_mut().for_each(|b| {
            b.clear();
            b.shrink_to(1 << 20);
        });
        self.values = 0;
    }
}

struct State {
    lanes: [Lane; 3],
    /// When the first record since the last commit came.
    due: Option<Instant>,
    urgent: bool,
    stop: bool,
}

impl State {
    fn lane(&self, stream: Stream) -> &Lane {
        let [high, normal, low] = &self.lanes;
        match stream {
            Stream::High => high,
            Stream::Normal => normal,
            Stream::Low => low,
        }
    }

    fn lane_mut(&mut self, stream: Stream) -> &mut Lane {
        let [high, normal, low] = &mut self.lanes;
        match stream {
            Stream::High => high,
            Stream::Normal => normal,
            Stream::Low => low,
        }
    }
}

/// The spool. Shared by those who append, the sender and the thread that commits.
pub struct Spool {
    state: Mutex<State>,
    writers: Mutex<[LaneWriter; 3]>,
    disks: [Arc<dyn Disk>; 3],
    options: SpoolOptions,
    wake: Condvar,
    /// Rings when something was appended.
    pub bell: Notify,
    /// Counters.
    pub stats: SpoolStats,
    wall: fn() -> u64,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("options", &self.options).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens a spool on these disks, the important stream first. Reads all that is there. Commits only when [`Spool::commit`] is called.
    pub fn open(disks: [Arc<dyn Disk>; 3], options: SpoolOptions) -> io::Result<Arc<Spool>> {
        let segment_bytes = options.segment_bytes();
        let mut opened = Vec::with_capacity(3);
        for disk in &disks {
            opened.push(LaneWriter::open(disk.clone(), segment_bytes)?);
        }
        let Ok([high, normal, low]) = <[_; 3]>::try_from(opened) else { return Err(io::ErrorKind::NotFound.into()) };
        let stats = SpoolStats::default();
        let mut losses = Vec::new();
        let mut found = |(writer, found): (LaneWriter, writer::Found), stream: Stream| {
            stats.produced.fetch_add(found.values, Relaxed);
            stats.damaged.fetch_add(found.torn, Relaxed);
            let mut done = found.done;
            for (from, to) in found.damaged {
                let records = to + 1 - from;
                stats.damaged.fetch_add(records, Relaxed);
                done.add(from, to);
                losses.push(Loss { stream, from, to, records, values: 0, bytes: 0, reason: Reason::Damaged });
            }
            if let Some((from, to)) = found.unused {
                losses.push(Loss { stream, from, to, records: 0, values: 0, bytes: 0, reason: Reason::Restart });
            }
            (writer, Lane::new(found.next, done, found.segments, found.waiting))
        };
        let (high, normal, low) = (found(high, Stream::High), found(normal, Stream::Normal), found(low, Stream::Low));
        let state = State { lanes: [high.1, normal.1, low.1], due: None, urgent: false, stop: false };
        let spool = Spool {
            state: Mutex::new(state),
            writers: Mutex::new([high.0, normal.0, low.0]),
            disks,
            options,
            wake: Condvar::new(),
            bell: Notify::new(),
            stats,
            wall: device_drivers::value::wall_clock_ms,
        };
        {
            let mut state = lock(&spool.state);
            losses.iter().for_each(|loss| spool.tell(&mut state, loss));
            spool.show(&state);
        }
        Ok(Arc::new(spool))
    }

    /// A spool in a folder, or in memory when there is none; with a thread that commits. Nobody else may use the folder meanwhile.
    pub fn start(folder: Option<&Path>, options: SpoolOptions) -> Result<SpoolHandle, String> {
        let memory = || Arc::new(Memory::default()) as Arc<dyn Disk>;
        let mut held = None;
        let disks = match folder {
            None => [memory(), memory(), memory()],
            Some(folder) => {
                let why = |e: io::Error| {
                    let user = "may this user write there, and is the disk mounted?";
                    format!("the spool in {} cannot be opened: {e}; {user}", folder.display())
                };
                held = Some(hold(folder).map_err(why)?);
                let disk = |s: Stream| Folder::new(&folder.join(s.name())).map(|f| Arc::new(f) as Arc<dyn Disk>);
                let [high, normal, low] = STREAMS.map(disk);
                [high.map_err(why)?, normal.map_err(why)?, low.map_err(why)?]
            }
        };
        let place = folder.map_or_else(|| "memory".to_string(), |f| f.display().to_string());
        let spool = Spool::open(disks, options).map_err(|e| format!("the spool in {place} cannot be opened: {e}"))?;
        let worker = spool.clone();
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || worker.work());
        Ok(SpoolHandle { spool, thread: Some(thread.map_err(|e| e.to_string())?), _held: held })
    }

    /// A spool in memory that commits when it is told to: for tests of what is around it.
    pub fn in_memory(capacity: u64) -> Arc<Spool> {
        let disk = || Arc::new(Memory::default()) as Arc<dyn Disk>;
        let options = SpoolOptions::new(capacity, "lost");
        Spool::open([disk(), disk(), disk()], options).unwrap_or_else(|e| unreachable!("memory does not fail: {e}"))
    }

    /// Promises records: takes them all. Blocks for a copy, never for a disk.
    pub fn append(&self, records: &mut Records) {
        if records.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        let mut appended = 0;
        for stream in STREAMS {
            let Some(bytes) = records.bytes.get(stream.index()).filter(|b| !b.is_empty()) else { continue };
            appended += bytes.len();
            state.lane_mut(stream).append(bytes);
            state.urgent |= stream == Stream::High;
        }
        self.stats.produced.fetch_add(records.values, Relaxed);
        self.stats.rates.came(appended as u64, records.values);
        let was_due = state.due.is_some();
        state.due.get_or_insert_with(Instant::now);
        let big = state.lanes.iter().any(|l| l.open_bytes() >= COMMIT_BYTES);
        if state.lanes.iter().map(Lane::volatile).sum::<usize>() > VOLATILE_MAX {
            self.overflow(&mut state);
        }
        self.show(&state);
        let wake = !was_due || big || state.urgent;
        drop(state);
        records.clear();
        if wake {
            self.wake.notify_one();
        }
        self.bell.notify_one();
    }

    /// The disk takes nothing, and memory is full: the oldest block of the least important stream goes.
    fn overflow(&self, state: &mut State) {
        for stream in [Stream::Low, Stream::Normal, Stream::High] {
            let lane = state.lane_mut(stream);
            lane.take_batch(); // closes the open block
            let Some(block) = lane.oldest_volatile() else { continue };
            if stream == Stream::High && block.bytes.len() < VOLATILE_MAX / 2 {
                continue;
            }
            let done = lane.done.clone();
            let losses = retention::losses_of(&block.bytes, stream, &done, Reason::Disk);
            lane.blocks.retain(|b| b.first != block.first);
            self.lose(state, &losses);
            return;
        }
    }

    /// Marks losses as done, counts and tells them.
    fn lose(&self, state: &mut State, losses: &[Loss]) {
        for loss in losses {
            state.lane_mut(loss.stream).finish((loss.from, loss.to), loss.records, loss.bytes);
            match loss.reason {
                Reason::TooLarge => self.stats.refused.fetch_add(loss.values, Relaxed),
                Reason::Damaged => self.stats.damaged.fetch_add(loss.records, Relaxed),
                _ => self.stats.lost.fetch_add(loss.values, Relaxed),
            };
            self.tell(state, loss);
        }
    }

    /// Says in the stream what was lost.
    fn tell(&self, state: &mut State, loss: &Loss) {
        use std::io::Write;
        let Loss { stream, from, to, records, values, reason, .. } = loss;
        let now = (self.wall)();
        let mut out = Vec::with_capacity(256);
        record::push(&mut out, Kind::Loss, &[&self.options.loss_topic], (now, 0), |out| {
            let start = out.len();
            let _ = write!(
                out,
                "{{\"lost\":{records},\"values\":{values},\"stream\":\"{}\",\"from_sequence\":{from},\"to_sequence\":{to},\
                 \"reason\":\"{}\"",
                stream.name(),
                reason.name()
            );
            if let Reason::Thinned(kept) = reason {
                let _ = write!(out, ",\"kept_one_in\":{kept}");
            }
            let _ = write!(out, ",\"time\":\"{}\",\"sequence\":", super::payload::rfc3339(now));
            let hole = out.len() - start;
            out.push(b'}');
            hole
        });
        state.lane_mut(Stream::High).append(&out);
        state.urgent = true;
        state.due.get_or_insert_with(Instant::now);
        tracing::warn!(
            "{records} messages of the stream {} are lost, sequences {from} to {to}: {}",
            stream.name(),
            reason.name()
        );
    }

    fn show_waiting(&self, state: &State) {
        self.stats.waiting.store(state.lanes.iter().map(|l| l.waiting.records).sum(), Relaxed);
        self.stats.waiting_bytes.store(state.lanes.iter().map(|l| l.waiting.bytes).sum(), Relaxed);
    }

    fn show(&self, state: &State) {
        self.show_waiting(state);
        self.stats.disk_bytes.store(state.lanes.iter().map(Lane::disk_bytes).sum(), Relaxed);
        self.stats.volatile_bytes.store(state.lanes.iter().map(Lane::volatile).sum::<usize>() as u64, Relaxed);
    }

    fn disk(&self, stream: Stream) -> Arc<dyn Disk> {
        let [high, normal, low] = &self.disks;
        match stream {
            Stream::High => high.clone(),
            Stream::Normal => normal.clone(),
            Stream::Low => low.clone(),
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        lock(&self.state).lanes.iter().all(|l| l.waiting.records == 0)
    }

    /// Records of a stream below this sequence are on disk, or done.
    pub fn durable(&self, stream: Stream) -> u64 {
        lock(&self.state).lane(stream).durable_next
    }

    /// The sequence the next record of a stream gets.
    pub fn next_sequence(&self, stream: Stream) -> u64 {
        lock(&self.state).lane(stream).next
    }

    /// Puts everything that waits for a commit on disk. Blocks. An error says that it is still in memory only.
    pub fn commit(&self) -> io::Result<()> {
        let mut writers = lock(&self.writers);
        let mut result = Ok(());
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            if let Err(e) = self.commit_stream(stream, writer) {
                result = Err(e);
            }
        }
        self.stats.is_failing.store(result.is_err(), Relaxed);
        drop(writers);
        self.show(&lock(&self.state));
        result
    }

    fn commit_stream(&self, stream: Stream, writer: &mut LaneWriter) -> io::Result<()> {
        loop {
            let (batch, done, next) = {
                let mut state = lock(&self.state);
                let lane = state.lane_mut(stream);
                (lane.take_batch(), lane.done.clone(), lane.next)
            };
            // Sequences that somebody may see are reserved before long.
            if writer.reserved < next.saturating_add(writer::RESERVE / 2) {
                let _ = writer.save_cursor(done.clone(), next, false, false);
            }
            if batch.parts.is_empty() {
                return Ok(());
            }
            match self.write_batch(stream, writer, batch, &done) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull && self.make_room(writer, stream) => {}
                result => return result,
            }
        }
    }

    fn write_batch(&self, stream: Stream, writer: &mut LaneWriter, batch: Batch, done: &done::Done) -> io::Result<()> {
        let (start, bytes, last) = (Instant::now(), batch.bytes(), batch.last);
        let (result, first_error) = writer.write(&batch, done);
        drop(batch); // its blocks are used again
        if let Some(e) = first_error {
            self.stats.disk_faults.fetch_add(1, Relaxed);
            tracing::error!(
                "the spool's disk failed: {e}; the segment is left, what is not acknowledged is written anew"
            );
        }
        let written = result.inspect_err(|e| {
            self.stats.disk_faults.fetch_add(1, Relaxed);
            if !self.stats.is_failing.load(Relaxed) && e.kind() != io::ErrorKind::StorageFull {
                tracing::error!("the spool's disk takes nothing: {e}; records wait in memory, it is tried again");
            }
        })?;
        let mut state = lock(&self.state);
        let lane = state.lane_mut(stream);
        if let Some(segment) = written.segment {
            lane.segments.retain(|s| !written.replaced.iter().any(|r| r.id == s.id) && s.id != segment.id);
            lane.segments.push_back(segment);
            self.stats.commits.fetch_add(1, Relaxed);
            self.stats.written_bytes.fetch_add(bytes as u64, Relaxed);
            self.stats.commit.record_ns(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        lane.committed(last);
        drop(state);
        for segment in &written.replaced {
            let _ = writer.disk.remove(&segment.name());
        }
        Ok(())
    }

    /// Everything that is done now and then: segments that are done or too many go, the cursor is written. Blocks.
    pub fn tend(&self) {
        let mut writers = lock(&self.writers);
        self.remove_done(&mut writers);
        self.keep_to_limits(&mut writers);
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            let (done, next) = {
                let state = lock(&self.state);
                (state.lane(stream).done.clone(), state.lane(stream).next)
            };
            let _ = writer.save_cursor(done, next, false, false);
        }
        drop(writers);
        self.show(&lock(&self.state));
        self.stats.rates.look(Instant::now());
    }

    /// Removes segments of which every record is done. The cursor says so first, durably.
    fn remove_done(&self, writers: &mut [LaneWriter; 3]) {
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            let (gone, done, next) = {
                let mut state = lock(&self.state);
                let lane = state.lane_mut(stream);
                lane.tidy();
                let active = writer.active_id();
                let is_gone = |s: &segment::Segment| Some(s.id) != active && lane.done.open_from(s.first) > s.last;
                let gone: Vec<_> = lane.segments.iter().filter(|s| is_gone(s)).copied().collect();
                (gone, lane.done.clone(), lane.next)
            };
            if gone.is_empty() || writer.save_cursor(done, next, true, false).is_err() {
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
            let (done, next) = {
                let state = lock(&self.state);
                (state.lane(stream).done.clone(), state.lane(stream).next)
            };
            let _ = writer.save_cursor(done, next, true, committed);
        }
    }

    /// What it looks like now.
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus::of(&self.stats, self.options.capacity)
    }
}

/// One process uses a spool at a time.
fn hold(folder: &Path) -> io::Result<std::fs::File> {
    std::fs::create_dir_all(folder)?;
    let file = std::fs::File::create(folder.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::other("another gateway uses it")),
        Err(e) => Err(e.into()),
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
    /// Commits what is left, and ends the thread. Blocks.
    pub fn stop(mut self) {
        self.end();
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
