//! Working a link: what is done when.
//!
//! ```text
//!   a batch of changes ──────────────> readings, one call a device
//!   sink has blocks, every 5 ms ─────> a write    ┐
//!   points read in turn, when due ───> a read     ├ in the background: nothing waits for an answer,
//!   refused points, ever less often ─> asked again│ and at most one of each is on its way
//!   wishes ──────────────────────────> a write    ┘
//!   subscribed, and silent ──────────> read once; a value there, and none of the subscription ──> the link ends
//!   told, and silent for long ───────> read and compared, so many at once; another value, twice ──> its item is made again
//!   no PublishResponse ──────────────> the link ends
//! ```
//!
//! Without machines on the line it sleeps until something comes; the only clock is the sweep.

mod orders;
mod tend;

use super::decode::{Sight, reading_of};
use super::rooms::Placed;
use super::session::Link;
use super::types::NodeType;
use super::watch::{Batch, State};
use super::write::Kinds;
use super::{Live, OpcUaSpec};
use crate::driver::{BlockWrite, LinkError, PollReport, TagWrite};
use crate::line::{LineSink, WRITE_TICK, stopped};
use crate::value::{PointId, Quality, Reading};
use opcua::types::{DataValue, ReadValueId, StatusCode};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch as stop_watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often refused points and silent ones are looked after.
const LOOK: Duration = Duration::from_millis(250);
/// How often a device that has nothing new is said to be alive.
const ALIVE_EVERY: Duration = Duration::from_millis(250);
/// Subscribed points have so long for their first value, counted from the last one that came, and at least three publishings.
const FIRST_VALUE: Duration = Duration::from_secs(3);
/// Writes taken over at once.
const WISHES_MAX: usize = 256;

/// Points read in turn at the same interval.
struct Turn {
    interval: Duration,
    due: Instant,
    busy: bool,
    members: Vec<usize>,
}

/// What has been done in the background.
enum Done {
    Blocks { blocks: Vec<BlockWrite>, result: Result<Vec<StatusCode>, LinkError> },
    Turn { turn: usize, members: Vec<usize>, report: PollReport, result: Result<Vec<DataValue>, LinkError> },
    Retried(Result<Placed, LinkError>),
    Names(Result<super::session::Namespaces, LinkError>),
    Silent { members: Vec<usize>, result: Result<Vec<DataValue>, LinkError> },
    Compared { members: Vec<usize>, asked: Instant, result: Result<Vec<DataValue>, LinkError> },
    Wishes(Kinds),
    Types(Result<Vec<(PointId, NodeType)>, LinkError>),
}

struct Work<'a, S> {
    spec: &'a OpcUaSpec,
    live: &'a mut Live,
    sink: &'a mut S,
    jobs: JoinSet<Done>,
    turns: Vec<Turn>,
    index_of: HashMap<PointId, usize>,
    /// Readings, by device.
    out: Vec<Vec<Reading>>,
    told_alive: Vec<Instant>,
    /// How far the server's clock is ahead of ours, in ticks.
    skew: i64,
    publishes: u64,
    last_life: Instant,
    /// Whether the subscription has ever sent a value.
    heard: bool,
    first_values_until: Option<Instant>,
    writing_blocks: bool,
    writing_wishes: bool,
    retrying: bool,
    comparing: bool,
}

/// Works the link until it fails or is to stop.
pub(super) async fn work<S: LineSink>(
    spec: &OpcUaSpec,
    live: &mut Live,
    sink: &mut S,
    wishes: &mut mpsc::Receiver<TagWrite>,
    stop: &mut stop_watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let now = Instant::now();
    let devices = spec.points.iter().map(|p| p.device + 1).max().unwrap_or(1);
    let refused = std::mem::take(&mut live.refused);
    let mut work = Work {
        spec,
        live,
        sink,
        jobs: JoinSet::new(),
        turns: Vec::new(),
        index_of: spec.points.iter().enumerate().map(|(n, p)| (p.id, n)).collect(),
        out: vec![Vec::new(); devices],
        told_alive: vec![now; devices],
        skew: 0,
        publishes: 0,
        last_life: now,
        heard: false,
        first_values_until: None,
        writing_blocks: false,
        writing_wishes: false,
        retrying: false,
        comparing: false,
    };
    for notice in std::mem::take(&mut work.live.watch.notices) {
        work.sink.notice(&notice);
    }
    for index in 0..spec.points.len() {
        work.take_turns(index, now);
    }
    work.expect_first_values(now);
    for reading in refused {
        work.put(reading);
    }
    work.flush(PollReport::default());
    work.ask_types((0..spec.points.len()).collect());
    work.run(wishes, stop).await
}

impl<S: LineSink> Work<'_, S> {
    fn link(&self) -> Link {
        self.live.opened.link.clone()
    }

    async fn run(
        &mut self,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut stop_watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let machines = self.sink.carries_machines();
        let sweep_every = self.sink.sweep_every();
        let (mut next_blocks, mut next_sweep, mut next_look) = (Instant::now(), Instant::now(), Instant::now());
        let mut asked = true;
        let signs = self.live.opened.link.signs.clone();
        loop {
            let now = Instant::now();
            self.check(now)?;
            if machines && now >= next_blocks && !self.writing_blocks {
                next_blocks = now + WRITE_TICK;
                self.write_blocks();
            }
            self.begin_due(now);
            if now >= next_sweep {
                next_sweep = now + sweep_every;
                self.sink.sweep();
            }
            if now >= next_look {
                next_look = now + LOOK;
                self.look_after(now);
            }
            let mut next = next_sweep.min(next_look);
            next = if machines && !self.writing_blocks { next.min(next_blocks) } else { next };
            next = self.turns.iter().filter(|t| !t.busy).map(|t| t.due).fold(next, Instant::min);
            tokio::select! {
                () = stopped(stop) => return self.last_blocks().await,
                Some(batch) = self.live.batches.recv() => self.changes(batch),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.finish(done)?,
                    Err(e) => return Err(self.link().lost(format!("a task of this line failed: {e}"))),
                },
                wish = wishes.recv(), if asked && !self.writing_wishes => match wish {
                    Some(wish) => self.write_wishes(wish, wishes),
                    None => asked = false,
                },
                () = signs.news.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Signs of life, and of the end.
    fn check(&mut self, now: Instant) -> Result<(), LinkError> {
        let link = self.link();
        if let Some((_, why)) = link.signs.ended.get() {
            return Err(link.lost(why.clone()));
        }
        if link.signs.overflow.load(Relaxed) {
            return Err(link.broken(
                "changes come faster than they can be taken; choose a longer sampling interval or a deadband",
            ));
        }
        let publishes = link.signs.publishes.load(Relaxed);
        if publishes != self.publishes {
            self.publishes = publishes;
            self.last_life = now;
            self.say_alive(now);
        } else if now.duration_since(self.last_life) > self.live.watch.limit {
            return Err(link.late_by("its subscription", self.live.watch.limit));
        }
        Ok(())
    }

    /// Devices that have had nothing new for a while are alive all the same.
    fn say_alive(&mut self, now: Instant) {
        let mut none = Vec::new();
        for (device, told) in self.told_alive.iter_mut().enumerate() {
            if now.duration_since(*told) >= ALIVE_EVERY {
                *told = now;
                self.sink.readings(PollReport { device, alive: true, ..PollReport::default() }, &mut none);
                none.clear();
            }
        }
    }

    fn put(&mut self, reading: Reading) {
        let device = self.index_of.get(&reading.point).and_then(|n| self.spec.points.get(*n)).map_or(0, |p| p.device);
        if let Some(of_device) = self.out.get_mut(device) {
            of_device.push(reading);
        }
    }

    /// Hands over what has been put, one call a device.
    fn flush(&mut self, report: PollReport) {
        let now = Instant::now();
        let mut requests = report.requests;
        for ((device, readings), told) in self.out.iter_mut().enumerate().zip(&mut self.told_alive) {
            if readings.is_empty() {
                continue;
            }
            *told = now;
            self.sink.readings(PollReport { device, requests, ..report }, readings);
            readings.clear();
            requests = 0; // each request is counted once
        }
    }

    /// Takes over changes: this batch, and all that have come meanwhile.
    fn changes(&mut self, first: Batch) {
        self.heard = true;
        let mut next = Some(first);
        let (mut new, now) = (false, Instant::now());
        self.skew = self.live.opened.link.skew();
        while let Some(batch) = next {
            for (handle, data) in batch {
                let Some(index) = (handle as usize).checked_sub(1) else { continue };
                let (first, worth_telling) = self.live.watch.heard(index, data.status, now);
                new |= first;
                if worth_telling {
                    let reading = self.take(index, data);
                    if let (Some(reading), Some(item)) = (reading, self.live.watch.items.get_mut(index)) {
                        item.said(&reading, now);
                    }
                }
            }
            next = self.live.batches.try_recv().ok();
        }
        if new {
            self.expect_first_values(now);
        }
        self.flush(PollReport { alive: true, ..PollReport::default() });
    }

    /// A value of a point, which is passed on unless it differs too little from the last.
    fn take(&mut self, index: usize, data: DataValue) -> Option<Reading> {
        let (point, item) = (self.spec.points.get(index)?, self.live.watch.items.get_mut(index)?);
        let reading = reading_of(point.id, data, Sight { skew: self.skew, names: &self.live.names });
        if let Some(width) = item.deadband {
            let new = reading.value.as_ref().filter(|_| reading.quality == Quality::Good).and_then(|v| v.as_f64());
            if let (Some(old), Some(new)) = (item.last, new)
                && (new - old).abs() <= width
            {
                return Some(reading);
            }
            item.last = new;
        }
        self.put(reading.clone());
        Some(reading)
    }

    fn take_turns(&mut self, index: usize, now: Instant) {
        let (Some(item), Some(point)) = (self.live.watch.items.get(index), self.spec.points.get(index)) else { return };
        if item.state != State::Polled || item.node.is_none() {
            return;
        }
        let interval = self.live.watch.interval(point);
        match self.turns.iter_mut().find(|t| t.interval == interval) {
            Some(turn) => turn.members.push(index),
            None => self.turns.push(Turn { interval, due: now, busy: false, members: vec![index] }),
        }
    }

    fn expect_first_values(&mut self, now: Instant) {
        let waits = self.live.watch.items.iter().any(|i| i.state == State::Waiting);
        self.first_values_until = waits.then(|| now + FIRST_VALUE.max(self.live.watch.publishing * 3));
    }

    /// Begins the reads that are due.
    fn begin_due(&mut self, now: Instant) {
        let link = self.link();
        for number in 0..self.turns.len() {
            let Some(turn) = self.turns.get_mut(number) else { continue };
            if now < turn.due {
                continue;
            }
            let late = now.duration_since(turn.due);
            if turn.busy {
                let mut missed = 0;
                while turn.due <= now {
                    turn.due += turn.interval;
                    missed += 1;
                }
                let members = turn.members.clone();
                self.say_missed(&members, missed);
                continue;
            }
            turn.due = if late > turn.interval { now + turn.interval } else { turn.due + turn.interval };
            turn.busy = true;
            let members = turn.members.clone();
            let nodes = self.nodes(&members);
            let link = link.clone();
            self.jobs.spawn(async move {
                let read = link.read(&nodes).await;
                let (requests, result) = match read {
                    Ok((values, requests)) => (requests, Ok(values)),
                    Err(e) => (1, Err(e)),
                };
                let report = PollReport { requests, alive: true, took: now.elapsed(), late, ..PollReport::default() };
                Done::Turn { turn: number, members, report, result }
            });
        }
    }

    fn say_missed(&mut self, members: &[usize], missed: u64) {
        let mut devices: Vec<usize> =
            members.iter().filter_map(|i| self.spec.points.get(*i)).map(|p| p.device).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            self.sink.missed(device, missed);
        }
    }

    fn nodes(&self, members: &[usize]) -> Vec<ReadValueId> {
        members.iter().filter_map(|i| self.live.watch.items.get(*i)?.node.clone()).collect()
    }

    fn finish(&mut self, done: Done) -> Result<(), LinkError> {
        let now = Instant::now();
        self.skew = self.live.opened.link.skew();
        match done {
            Done::Blocks { blocks, result } => {
                self.writing_blocks = false;
                self.blocks_written(&blocks, result)?;
            }
            Done::Turn { turn, members, report, result } => {
                if let Some(turn) = self.turns.get_mut(turn) {
                    turn.busy = false;
                }
                for (index, data) in members.into_iter().zip(result?) {
                    self.take(index, data);
                }
                self.flush(report);
            }
            Done::Names(result) => {
                self.live.names = result?;
                self.named(now);
            }
            Done::Retried(result) => {
                self.retrying = false;
                let mut refused = Vec::new();
                let placed = result?;
                self.live.watch.rooms = placed.rooms;
                let retried = placed.made.iter().map(|(index, _)| *index).collect();
                for (index, made) in placed.made {
                    self.live.watch.take(self.spec, index, made, now, &mut refused);
                    self.take_turns(index, now);
                }
                self.ask_types(retried);
                // Still refused is nothing new: the sink has been told.
                self.expect_first_values(now);
            }
            Done::Silent { members, result } => self.silent(members, result?, now)?,
            Done::Compared { members, asked, result } => {
                self.comparing = false;
                self.compared(members, result?, (asked, now));
            }
            Done::Types(result) => self.sink.types(&result?),
            Done::Wishes(kinds) => {
                self.writing_wishes = false;
                self.live.kinds = kinds;
            }
        }
        Ok(())
    }
}
