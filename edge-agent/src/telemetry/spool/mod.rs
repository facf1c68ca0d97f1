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
//! lost with the power: blocks of numbers are reserved in the cursor, and after a run that was not stopped a stream jumps to the end of its
//! block, and says so before its next record.
//!
//! **Commit.** One thread writes for all streams: one write and one fsync each, 100 ms after the first record, at 256 KiB, or at once
//! for the stream `high`. Nobody who appends waits for a disk. A new file is made durable together with its folder (`commit`,
//! `worker`).
//!
//! **Damage.** Length and content of each record have checksums ([`record`]). A torn tail is cut at the start; damage in the middle costs
//! the records it hit, which are counted and told; nothing damaged is delivered. A file of which nothing can be read is set aside. After the first failed fsync a segment is left for good,
//! and what is not done in it is written anew (`writer`).
//!
//! **Not there.** A folder that cannot be opened is tried again. Until then all is in memory, under numbers of its own (`late`).
//!
//! **Disk full, or broken.** What it does not take waits in memory, up to the size of the spool and [`VOLATILE_MAX`]: that shows at once.
//! Then something goes, the least important first (`retention`, `loss`).
//!
//! **Full.** Bytes and age are limited. What goes first is configured: the oldest, the less important, or every record but each n-th of
//! the less important (`retention`). Each stretch that is lost is told in the stream `high`, apart from others (`loss`). What is on its way to
//! the broker may have arrived: it does not go (`flying`).
//!
//! **Back again.** Live-first: what is new goes out at once, and what waited follows beside it, at a limited rate. In-order: first what
//! waited (`outlet`).

mod anew;
mod commit;
mod cursor;
pub mod disk;
pub mod done;
mod flying;
mod lane;
mod late;
mod loss;
mod options;
mod outlet;
pub mod record;
mod retention;
mod saying;
pub(crate) mod segment;
mod spared;
mod status;
mod stream;
mod tally;
mod ticket;
mod worker;
mod writer;

pub use disk::{Disk, DiskFile, Folder, Memory};
pub use loss::{Loss, Reason};
pub use options::SpoolOptions;
pub use outlet::{Load, Next, Outlet, Replay};
pub use record::Kind;
pub use retention::Retention;
pub use status::{SpoolStats, SpoolStatus};
pub use stream::{Records, STREAMS, Stream};
pub use tally::{Accounts, Lost};
pub use ticket::Ticket;
pub use worker::{CannotOpen, SpoolHandle};

use done::Done;
use flying::Flying;
use lane::{Jump, Lane, Mark, Waiting};
use saying::Saying;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use writer::LaneWriter;

/// A commit is due this long after the first record.
pub const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// Or when so many bytes wait for one.
pub const COMMIT_BYTES: usize = 256 << 10;
/// Memory for records that no disk takes, bytes, if the spool is not smaller; beyond, the oldest are lost and told.
pub const VOLATILE_MAX: usize = 16 << 20;

struct State {
    lanes: [Lane; 3],
    /// When the first record since the last commit came.
    due: Option<Instant>,
    urgent: bool,
    stop: bool,
    /// Something on a full disk gave way, and no write has succeeded since.
    gave_way: bool,
    saying: Saying,
    /// Disks have come with records of their own: who reads has to begin anew.
    is_renewed: bool,
}

impl State {
    /// What the cursor of a stream is to say now. A jump is told when the notice about it is on disk, or done.
    fn mark(&self, stream: Stream) -> Mark {
        let (lane, high) = (self.lane(stream), self.lane(Stream::High));
        let is_told = |jump: &Jump| jump.told_at.is_some_and(|at| at < high.durable_next || high.done.has(at));
        let untold = lane.jump.filter(|jump| !is_told(jump)).map_or(0, |jump| jump.promised_to + 1);
        Mark { done: lane.done.clone(), next: lane.next, kept: lane.kept(), untold }
    }

    /// Bytes that no disk holds yet.
    fn volatile(&self) -> usize {
        self.lanes.iter().map(Lane::volatile).sum()
    }

    /// Bytes that may be on their way beside those that are; as many as one likes where nothing is of this connection.
    fn room_to_fly(&self, most: u64) -> u64 {
        let flying = || self.lanes.iter().map(|l| &l.flying);
        let is_none = flying().all(|f| f.fresh() == 0);
        if is_none { u64::MAX } else { most.saturating_sub(flying().map(Flying::bytes).sum()) }
    }

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
    /// `None`: its folder cannot be opened yet.
    writers: Mutex<Option<[LaneWriter; 3]>>,
    disks: OnceLock<[Arc<dyn Disk>; 3]>,
    /// Why its folder is not open.
    unopened: Mutex<Option<String>>,
    /// The first number of each stream, while nothing else is known.
    base: u64,
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
        let spool = Spool::new(options, 1);
        spool.attach(disks)?;
        Ok(Arc::new(spool))
    }

    /// A spool without disks, whose streams begin with this number.
    fn new(options: SpoolOptions, base: u64) -> Spool {
        let lane = || Lane::new(base, Done { first: base, ..Done::default() }, Default::default(), Waiting::default());
        let (lanes, saying) = ([lane(), lane(), lane()], Saying::default());
        let stats = SpoolStats::default();
        stats.disk_free.store(u64::MAX, Relaxed);
        Spool {
            state: Mutex::new(State {
                lanes,
                due: None,
                urgent: false,
                stop: false,
                gave_way: false,
                saying,
                is_renewed: false,
            }),
            writers: Mutex::default(),
            disks: OnceLock::new(),
            unopened: Mutex::default(),
            base,
            options,
            wake: Condvar::new(),
            bell: Notify::new(),
            stats,
            wall: crate::clock::run_ms,
        }
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
            self.tell_jump(&mut state, stream);
            state.urgent |= stream == Stream::High;
        }
        self.stats.produced.fetch_add(records.values, Relaxed);
        self.stats.rates.came(appended as u64, records.values);
        let was_due = state.due.is_some();
        state.due.get_or_insert_with(Instant::now);
        let big = state.lanes.iter().any(|l| l.open_bytes() >= COMMIT_BYTES);
        let memory = self.memory(&state);
        if state.volatile() > memory {
            self.overflow(&mut state, memory);
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

    /// Memory for records that no disk has taken yet, bytes. When the disk takes nothing they may use what is left of the spool.
    fn memory(&self, state: &State) -> usize {
        if !self.stats.is_failing.load(Relaxed) {
            return VOLATILE_MAX;
        }
        let used: u64 = state.lanes.iter().map(Lane::disk_bytes).sum();
        let left = usize::try_from(self.options.capacity.saturating_sub(used)).unwrap_or(usize::MAX);
        left.clamp(COMMIT_BYTES, VOLATILE_MAX)
    }

    /// Whether that is nearly used up: then it is time to make room, before something has to go where it stands.
    fn is_crowded(&self, state: &State) -> bool {
        let memory = self.memory(state);
        state.volatile() > memory - memory / 16
    }

    fn show_waiting(&self, state: &State) {
        self.stats.waiting.store(state.lanes.iter().map(|l| l.waiting.records).sum(), Relaxed);
        self.stats.waiting_bytes.store(state.lanes.iter().map(|l| l.waiting.bytes).sum(), Relaxed);
        self.stats.waiting_values.store(state.lanes.iter().map(|l| l.waiting.values).sum(), Relaxed);
    }

    fn show(&self, state: &State) {
        self.show_waiting(state);
        self.stats.disk_bytes.store(state.lanes.iter().map(Lane::disk_bytes).sum(), Relaxed);
        self.stats.volatile_bytes.store(state.volatile() as u64, Relaxed);
    }

    /// The disk of a stream, if it is there.
    fn disk(&self, stream: Stream) -> Option<Arc<dyn Disk>> {
        self.disks.get()?.get(stream.index()).cloned()
    }

    /// Where all values are at this instant.
    pub fn accounts(&self) -> Accounts {
        let state = lock(&self.state); // whoever counts holds it
        let waiting = state.lanes.iter().map(|l| l.waiting.values).sum();
        let (produced, delivered) = (self.stats.produced.load(Relaxed), self.stats.delivered.load(Relaxed));
        Accounts { produced, delivered, waiting, lost: self.stats.lost.values() }
    }

    /// Messages and values that wait, stream by stream.
    pub fn waiting(&self) -> [(Stream, u64, u64); 3] {
        let state = lock(&self.state);
        STREAMS.map(|stream| (stream, state.lane(stream).waiting.records, state.lane(stream).waiting.values))
    }

    /// Messages and values that wait and are not on a disk, stream by stream; without one (`is_kept` is false) that is all.
    fn waiting_in_memory(&self, is_kept: bool) -> [(Stream, u64, u64); 3] {
        let all = self.waiting();
        let state = lock(&self.state);
        all.map(|(stream, messages, values)| match is_kept {
            true => {
                let waiting = state.lane(stream).waiting_volatile();
                (stream, waiting.records, waiting.values)
            }
            false => (stream, messages, values),
        })
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

    /// What it looks like now.
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus::of(&self.stats, self.options.capacity)
    }
}
