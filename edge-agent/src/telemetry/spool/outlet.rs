//! The way out: which record is sent next, and what its acknowledgement moves.
//!
//! ```text
//!   done ...........|  what waited           | what is new            next
//!                   first                    split (at the connection)
//!                   └─ track Backlog ──>     └─ track Live ──>
//!
//!   order:  live of high, normal, low; then the backlog of high, normal, low, no faster than its rate
//! ```
//!
//! While a track is read from disk, less important ones of its kind wait for it, for [`PATIENCE`]: alarms are before what waited beside them
//! in memory. With replay in order there is one track: it begins at the first record that is not done. The outlet holds no lock between calls, and
//! reads no disk itself: it asks for a [`Load`], which blocks and can be run elsewhere.
//!
//! What has been handed out is on its way until it is acknowledged, given up or kept back, over the end of a connection too: a spool that is
//! full loses other things. So that there are other things, no more than half of what it holds is on its way, of whichever connection; but one
//! message always.

use super::disk::{Disk, read_up_to};
use super::lane::{Hint, Waiting};
use super::record::{self, Found, Kind, Record};
use super::segment::{SEGMENT_HEADER, Segment};
use super::ticket::Ticket;
use super::{Loss, Reason, STREAMS, Spool, Stream, lock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Read from a segment at once.
const CHUNK: usize = 256 << 10;
/// The rate of a backlog may run ahead by so much of a second.
const BURST: f64 = 0.1;

/// So long less important streams wait for a piece that is being read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How what waited is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    /// What is new goes first.
    #[default]
    LiveFirst,
    /// What is old goes first.
    InOrder,
}

/// What comes next.
#[derive(Debug)]
pub enum Next<T> {
    /// A record, as the caller's closure made it.
    Record(Ticket, T),
    /// Nothing waits: the bell rings.
    Empty,
    /// The backlog goes on then.
    Wait(Instant),
    /// A piece has to be read from disk first.
    Load(Load),
}

/// A piece of a segment to be read.
#[derive(Debug)]
pub struct Load {
    stream: usize,
    track: usize,
    /// Of which connection: what comes too late is thrown away.
    turn: u64,
    disk: DiskOf,
    segment: Segment,
    at: u64,
    bytes: Vec<u8>,
    /// The file ends here, whatever was expected.
    at_end: bool,
    result: Option<io::Result<()>>,
}

#[derive(Clone)]
struct DiskOf(Option<Arc<dyn Disk>>);

impl std::fmt::Debug for DiskOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Load {
    /// Reads it. Blocks.
    pub fn run(mut self) -> Load {
        self.result = Some(self.read());
        self
    }

    fn read(&mut self) -> io::Result<()> {
        let disk = self.disk.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = disk.open(&self.segment.name())?;
        let rest = usize::try_from(self.segment.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut most = rest.min(CHUNK);
        read_up_to(&*file, self.at, most, &mut self.bytes)?;
        if let Found::Part(length) = record::read(&self.bytes)
            && length > most
        {
            most = rest.min(length);
            read_up_to(&*file, self.at, most, &mut self.bytes)?;
        }
        self.at_end = self.bytes.len() < most || most == rest;
        Ok(())
    }
}

/// What was read of a segment.
#[derive(Debug, Default)]
struct Chunk {
    /// Number and level of the segment: a thinned one is another file.
    segment: (u64, u32),
    /// Where `bytes` begins in the file.
    at: u64,
    bytes: Vec<u8>,
    used: usize,
    at_end: bool,
}

#[derive(Debug, Default)]
struct Track {
    /// Behind the last that was handed out.
    next: u64,
    /// Numbers from there to below this are nowhere, and not owed: they are done with the record that follows.
    owed: u64,
    /// Not beyond; `None`: to the end.
    end: Option<u64>,
    hint: Hint,
    chunk: Option<Chunk>,
    /// A piece is being read, since then.
    loading: Option<Instant>,
    /// Something between `next` and what comes is damaged.
    is_damaged: bool,
}

const LIVE: usize = 0;
const BACKLOG: usize = 1;

/// The way out.
#[derive(Debug)]
pub struct Outlet {
    spool: Arc<Spool>,
    replay: Replay,
    tracks: [[Track; 2]; 3],
    /// Connections so far.
    turn: u64,
    /// Records of the backlog a second.
    rate: Option<f64>,
    credit: f64,
    refilled: Instant,
}

impl Outlet {
    /// The one way out of a spool; `rate` limits the backlog, in records a second.
    pub fn new(spool: Arc<Spool>, replay: Replay, rate: Option<f64>) -> Outlet {
        let mut outlet =
            Outlet { spool, replay, tracks: Default::default(), turn: 0, rate, credit: 0.0, refilled: Instant::now() };
        outlet.restart();
        outlet
    }

    /// A new connection: everything that is not done has to be sent, and waited.
    pub fn restart(&mut self) {
        let mut state = lock(&self.spool.state);
        for (stream, [live, backlog]) in STREAMS.into_iter().zip(&mut self.tracks) {
            let lane = state.lane_mut(stream);
            let in_order = self.replay == Replay::InOrder || lane.done.is_ragged();
            let split = if in_order { lane.done.first } else { lane.next };
            *live = Track { next: split, ..Track::default() };
            *backlog = Track { next: lane.done.first, end: Some(split), ..Track::default() };
            lane.read_to = split;
            lane.flying.begin_turn();
            lane.handed = [(split, split), (lane.done.first, lane.done.first)];
        }
        state.is_renewed = false;
        drop(state);
        self.turn += 1;
        self.credit = 0.0;
        self.refilled = Instant::now();
    }

    /// Disks have come since, with records of their own: it has to be restarted to see them.
    pub fn is_outdated(&self) -> bool {
        lock(&self.spool.state).is_renewed
    }

    /// Below these sequences records were promised before the last [`Outlet::restart`], stream by stream.
    pub fn splits(&self) -> [u64; 3] {
        let [high, normal, low] = &self.tracks;
        [high, normal, low].map(|[_, backlog]| backlog.end.unwrap_or(0))
    }

    /// The next record, given to `make` under the spool's lock; what `make` does not take yet stays next in its stream. Does not
    /// block on a disk.
    pub fn next<T>(&mut self, now: Instant, mut make: impl FnMut(&Ticket, &Record<'_>) -> Option<T>) -> Next<T> {
        let (mut waits, mut reads) = (None, None);
        for track in [LIVE, BACKLOG] {
            for stream in STREAMS {
                let limited = track == BACKLOG && self.rate.is_some();
                if limited && let Some(until) = self.limit(now) {
                    waits = Some(until);
                    continue;
                }
                match self.fetch((stream, track), now, &mut make) {
                    Next::Empty => {}
                    Next::Wait(until) if now < until => {
                        reads = Some(reads.map_or(until, |other: Instant| other.min(until)));
                        break;
                    }
                    Next::Wait(_) => {}
                    found => {
                        if limited && matches!(found, Next::Record(..)) {
                            self.credit -= 1.0;
                        }
                        return found;
                    }
                }
            }
        }
        let waits = waits.filter(|_| self.has_backlog());
        waits.into_iter().chain(reads).min().map_or(Next::Empty, Next::Wait)
    }

    fn has_backlog(&self) -> bool {
        self.tracks.iter().any(|[_, b]| b.end.is_some_and(|end| b.next < end))
    }

    /// When the next record of the backlog may go; `None`: now.
    fn limit(&mut self, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        self.credit += now.saturating_duration_since(self.refilled).as_secs_f64() * rate;
        self.credit = self.credit.min((rate * BURST).max(1.0));
        self.refilled = now;
        (self.credit < 1.0).then(|| now + Duration::from_secs_f64((1.0 - self.credit) / rate.max(0.001)))
    }

    /// What comes next of one track; it waits while a piece of it is being read.
    fn fetch<T>(
        &mut self,
        (stream, track): (Stream, usize),
        now: Instant,
        make: &mut impl FnMut(&Ticket, &Record<'_>) -> Option<T>,
    ) -> Next<T> {
        let (spool, turn) = (self.spool.clone(), self.turn);
        let Some(own) = self.tracks.get_mut(stream.index()).and_then(|t| t.get_mut(track)) else { return Next::Empty };
        loop {
            let mut state = lock(&spool.state);
            let room = state.room_to_fly(spool.options.capacity / 2);
            let lane = state.lane_mut(stream);
            let want = lane.done.open_from(own.next.max(own.owed));
            if want >= own.end.unwrap_or(u64::MAX).min(lane.next) {
                let to = want.min(own.end.unwrap_or(u64::MAX));
                lane.done.add(own.next, to.saturating_sub(1));
                own.next = to;
                own.chunk = None;
                return Next::Empty;
            }
            // Memory first: the newest is there.
            let (before, mut hint) = (own.next, own.hint);
            if let Some((record, length)) = lane.in_memory(want, &mut hint) {
                if let Some(end) = own.end.filter(|end| record.sequence >= *end) {
                    lane.done.add(own.next, end - 1);
                    own.next = end;
                    return Next::Empty;
                }
                if lane.done.has(record.sequence) {
                    own.owed = record.sequence + 1;
                    continue;
                }
                let ticket = Ticket::of((lane, stream), before, &record, (length, track == BACKLOG));
                let made = if ticket.may_leave(room) { make(&ticket, &record) } else { None };
                let Some(made) = made else { return Next::Empty };
                own.next = record.sequence + 1;
                (own.chunk, own.hint) = (None, hint);
                if track == LIVE {
                    lane.read_to = own.next;
                }
                lane.hand_out(track, &ticket);
                return Next::Record(ticket, made);
            }
            let segment = lane.segment_for(want);
            let Some(segment) = segment.filter(|s| s.first < own.end.unwrap_or(u64::MAX)) else {
                // Not on disk, not in memory: it was thinned out or lost, and told then, or never was.
                let to = lane.memory_from(want + 1).min(own.end.unwrap_or(u64::MAX));
                lane.done.add(own.next, to - 1);
                own.next = to;
                continue;
            };
            let done = &lane.done;
            let Some(chunk) = own.chunk.as_mut().filter(|c| c.segment == (segment.id, segment.level)) else {
                if let Some(since) = own.loading {
                    return Next::Wait(since + PATIENCE);
                }
                own.loading = Some(now);
                return Next::Load(load(&spool, (stream, track, turn), segment, SEGMENT_HEADER, Vec::new()));
            };
            let rest = chunk.bytes.get(chunk.used..).unwrap_or_default();
            // The segment may have grown since it was read.
            let end = chunk.at + chunk.bytes.len() as u64;
            let more_on_disk = !chunk.at_end || end < segment.length && rest.is_empty() && chunk.used > 0;
            match record::read(rest) {
                Found::Record(record, length) => {
                    let is_skip = record.kind == Kind::Skip;
                    // An older version did not say where a skip begins.
                    let from = if is_skip { record.skips_from().unwrap_or(want) } else { record.sequence };
                    if record.sequence < want || !is_skip && done.has(record.sequence) {
                        chunk.used += length;
                        continue;
                    }
                    let from = from.min(own.end.unwrap_or(u64::MAX));
                    if std::mem::take(&mut own.is_damaged) && from > want {
                        // It is looked at again.
                        let gaps = done.gaps(want, from - 1);
                        let losses: Vec<Loss> = gaps.map(|(from, to)| Loss::of_damage(stream, from, to)).collect();
                        spool.lose(&mut state, &losses);
                        continue;
                    }
                    chunk.used += length;
                    if is_skip {
                        own.owed = record.sequence + 1;
                        continue;
                    }
                    if let Some(end) = own.end.filter(|end| record.sequence >= *end) {
                        lane.done.add(own.next, end - 1);
                        own.next = end;
                        return Next::Empty;
                    }
                    let ticket = Ticket::of((lane, stream), before, &record, (length, track == BACKLOG));
                    let made = if ticket.may_leave(room) { make(&ticket, &record) } else { None };
                    let Some(made) = made else {
                        chunk.used -= length;
                        return Next::Empty;
                    };
                    own.next = record.sequence + 1;
                    lane.hand_out(track, &ticket);
                    return Next::Record(ticket, made);
                }
                _ if own.loading.is_some() => {
                    return own.loading.map_or(Next::Empty, |since| Next::Wait(since + PATIENCE));
                }
                Found::Part(_) if more_on_disk => return more(&spool, (stream, track, turn), segment, own, now),
                // The last bytes of what was read may be the beginning of a record.
                Found::Damage if more_on_disk && rest.len() < record::HEAD => {
                    return more(&spool, (stream, track, turn), segment, own, now);
                }
                Found::Damage if !rest.is_empty() => {
                    own.is_damaged = true;
                    let skipped = record::damage(rest);
                    let keep = if more_on_disk && skipped == rest.len() { record::HEAD - 1 } else { 0 };
                    chunk.used += skipped.saturating_sub(keep).max(1);
                }
                Found::Part(_) if !rest.is_empty() => {
                    own.is_damaged = true; // cut off
                    chunk.used = chunk.bytes.len();
                }
                _ => {
                    // The segment is at its end, and what was wanted is not in it.
                    let (from, to) = (want, segment.last.min(own.end.map_or(u64::MAX, |end| end - 1)));
                    own.chunk = None;
                    own.next = to + 1;
                    if std::mem::take(&mut own.is_damaged) {
                        let gaps = done.gaps(from, to);
                        let losses: Vec<Loss> = gaps.map(|(from, to)| Loss::of_damage(stream, from, to)).collect();
                        spool.lose(&mut state, &losses);
                    }
                }
            }
        }
    }

    /// Takes back what was read.
    pub fn loaded(&mut self, load: Load) {
        if load.turn != self.turn {
            return;
        }
        let Some(track) = self.tracks.get_mut(load.stream).and_then(|t| t.get_mut(load.track)) else { return };
        track.loading = None;
        match load.result {
            Some(Ok(())) => {
                let segment = (load.segment.id, load.segment.level);
                track.is_damaged |= load.bytes.is_empty() && load.at < load.segment.length;
                track.chunk = Some(Chunk { segment, at: load.at, bytes: load.bytes, used: 0, at_end: load.at_end });
            }
            // Gone meanwhile, or not to be read: then it is damage, found at the end of the segment.
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => {
                track.is_damaged = true;
                let segment = (load.segment.id, load.segment.level);
                track.chunk = Some(Chunk { segment, at_end: true, ..Chunk::default() });
            }
            _ => track.chunk = None,
        }
    }

    /// Like [`Outlet::next`], and reads the disk itself. Blocks.
    pub fn next_blocking<T>(
        &mut self,
        now: Instant,
        mut make: impl FnMut(&Ticket, &Record<'_>) -> Option<T>,
    ) -> Next<T> {
        loop {
            match self.next(now, &mut make) {
                Next::Load(load) => self.loaded(load.run()),
                other => return other,
            }
        }
    }

    /// The broker has acknowledged it.
    pub fn acknowledge(&self, ticket: &Ticket) {
        let (spool, stats) = (&self.spool, &self.spool.stats);
        let mut state = lock(&spool.state);
        let lane = state.lane_mut(ticket.stream);
        // What damage took while it was on its way is told as lost, and stays so.
        if !lane.done.has(ticket.sequence) {
            let went = Waiting { records: 1, bytes: u64::from(ticket.bytes), values: u64::from(ticket.values) };
            let unknown = lane.finish((ticket.from, ticket.sequence), went);
            stats.lost.damaged_values(unknown);
            stats.delivered.fetch_add(u64::from(ticket.values), Relaxed);
            stats.drained.fetch_add(1, Relaxed);
        }
        stats.rates.went(u64::from(ticket.bytes));
        spool.show_waiting(&state);
    }

    /// It was not sent after all, or the broker has said that it did not take it: it may be lost like any other that waits.
    pub fn keep_back(&self, ticket: &Ticket) {
        let mut state = lock(&self.spool.state);
        let flying = &mut state.lane_mut(ticket.stream).flying;
        match ticket.is_again {
            true => flying.stays_earlier(ticket.sequence),
            false => flying.remove((ticket.sequence, ticket.sequence)),
        }
    }

    /// The broker does not take it, now or ever: it is lost, and told.
    pub fn give_up(&self, ticket: &Ticket, reason: Reason) {
        let Ticket { stream, sequence, is_notice, .. } = *ticket;
        let mut state = lock(&self.spool.state);
        if !state.lane(stream).done.has(sequence) {
            let (values, bytes) = (u64::from(ticket.values), u64::from(ticket.bytes));
            let (from, to) = (sequence, sequence);
            state.lane_mut(stream).done.add(ticket.from, sequence.saturating_sub(1));
            self.spool.lose(&mut state, &[Loss { stream, from, to, records: 1, values, bytes, reason, is_notice }]);
        }
        self.spool.show_waiting(&state);
        drop(state);
        self.spool.wake.notify_one();
    }
}

fn load(spool: &Spool, (stream, track, turn): (Stream, usize, u64), segment: Segment, at: u64, bytes: Vec<u8>) -> Load {
    let disk = DiskOf(spool.disk(stream));
    Load { stream: stream.index(), track, turn, disk, segment, at, bytes, at_end: false, result: None }
}

/// The piece that follows what was read.
fn more<T>(spool: &Spool, whose: (Stream, usize, u64), segment: Segment, own: &mut Track, now: Instant) -> Next<T> {
    let Some(chunk) = &mut own.chunk else { return Next::Empty };
    own.loading = Some(now);
    Next::Load(load(spool, whose, segment, chunk.at + chunk.used as u64, std::mem::take(&mut chunk.bytes)))
}
