//! A folder that comes late: not writable at the start, its disk full or not mounted, damaged beyond what can be set aside.
//!
//! ```text
//!   start ──cannot be opened──> all waits in memory ──tried again──> opened: what was there waits too, and memory is committed
//!                               numbers from `base`                  numbers go on from there
//! ```
//!
//! Nobody knows which numbers are used in a folder that cannot be read, and none is used twice. So the streams of such a run begin far above
//! all that records could have counted up to: with the time, in microseconds. Where nothing was promised before the folder is opened they
//! go on as if it had been there. Else the numbers between are told as left out, as after a run that was not stopped.

use super::disk::Disk;
use super::done::Done;
use super::lane::{Jump, Lane};
use super::writer::{Found, LaneWriter};
use super::{Loss, STREAMS, Spool, SpoolOptions, State, lock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// A clock that nobody has set shows less than this, microseconds since 1970: then chance takes its part. Twice as much is still a number that
/// JSON keeps exactly.
const LEAST: u64 = 1 << 50;

fn base() -> u64 {
    let now = device_drivers::value::wall_clock_ms().saturating_mul(1000);
    if (LEAST..4 * LEAST).contains(&now) { now } else { LEAST + fastrand::u64(0..LEAST / 2) }
}

impl Spool {
    /// A spool whose folder cannot be opened, for this reason. All that is promised waits in memory until [`Spool::attach`] is called.
    pub fn unopened(options: SpoolOptions, why: String) -> Arc<Spool> {
        let spool = Spool::new(options, base());
        spool.stats.is_failing.store(true, Relaxed);
        *lock(&spool.unopened) = Some(why);
        Arc::new(spool)
    }

    /// Why its folder is not open; `None`: it is, or there is none.
    pub fn why_unopened(&self) -> Option<String> {
        lock(&self.unopened).clone()
    }

    /// It is not yet, for this reason.
    pub(super) fn stays_unopened(&self, why: String) {
        *lock(&self.unopened) = Some(why);
    }

    /// Gives a spool its disks, the important stream first. What is on them waits beside what was promised meanwhile. Blocks for as
    /// long as it takes to read them.
    pub fn attach(&self, disks: [Arc<dyn Disk>; 3]) -> io::Result<()> {
        let mut writers = lock(&self.writers);
        let mut opened = Vec::with_capacity(3);
        for disk in &disks {
            opened.push(LaneWriter::open(disk.clone(), self.options.segment_bytes())?);
        }
        let Ok([high, normal, low]) = <[_; 3]>::try_from(opened) else { return Err(io::ErrorKind::NotFound.into()) };
        let mut state = lock(&self.state);
        let is_taken = |found: &Found, lane: &Lane| found.next > self.base && lane.next > self.base;
        if STREAMS.iter().zip([&high.1, &normal.1, &low.1]).any(|(s, found)| is_taken(found, state.lane(*s))) {
            let why = "its numbers are those of this run: it is opened at the next start";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let mut losses = Vec::new();
        for (stream, found) in STREAMS.into_iter().zip([high.1, normal.1, low.1]) {
            self.stats.produced.fetch_add(found.waiting.values, Relaxed);
            let mut damaged = Vec::new();
            for (from, to, values) in &found.damaged {
                self.stats.produced.fetch_add(*values, Relaxed);
                damaged.push(Loss { values: *values, ..Loss::of_damage(stream, *from, *to) });
            }
            state.lane_mut(stream).join(found, self.base);
            losses.append(&mut damaged);
        }
        *writers = Some([high.0, normal.0, low.0]);
        let _ = self.disks.set(disks);
        *lock(&self.unopened) = None;
        // None of them is among those that wait.
        losses.iter().for_each(|loss| self.note(&mut state, loss));
        self.begin_anew(&mut state);
        Ok(())
    }

    fn begin_anew(&self, state: &mut State) {
        state.is_renewed = true;
        if state.volatile() > 0 {
            state.due.get_or_insert_with(Instant::now);
        }
        self.show(state);
        self.bell.notify_one();
    }
}

impl Lane {
    /// Puts what was found on a disk before what was promised since, from the number `base` on.
    fn join(&mut self, found: Found, base: u64) {
        let Found { mut done, next, segments, waiting, jump, damaged, .. } = found;
        damaged.iter().for_each(|(from, to, _)| done.add(*from, *to));
        if self.next == base {
            *self = Lane::new(next, done, segments, waiting);
            self.jump = jump;
            return;
        }
        // A folder in which nothing was ever kept has nothing to go on from.
        let left_out = (next > 1).then_some(Jump { promised_to: next - 1, continues_at: base, told_at: None });
        self.jump = jump.map(|jump| Jump { continues_at: base, ..jump }).or(left_out);
        let since: Done = std::mem::replace(&mut self.done, done);
        self.done.add(next, since.first - 1);
        since.islands.iter().for_each(|(from, to)| self.done.add(*from, *to));
        self.segments = segments;
        self.waiting.add(waiting);
    }
}
