//! The client: one line, several units behind it, one task.
//!
//! ```text
//!   due groups ──> next request ─┐                       ┌─ transaction id known ──> its poll, its write
//!   command blocks ──────────────┼─> window ──> wire ──> reply ─┤
//!   tag writes (they go first) ──┘   1, or more           └─ unknown, late, foreign ──> dropped and counted
//!                                    if opted in
//! ```
//!
//! What ends the link: the stream, a frame that cannot be one, or a peer that says nothing at all for two time limits. What one unit does
//! or does not do never ends it: see [`super::health`]. On a serial line there are no transaction ids: one request at a
//! time, silence before it, and whatever came after a time-out is thrown away.

use super::frame::{Inbox, put_mbap, put_rtu};
use super::group::{Group, Step};
use super::health::Unit;
use super::pdu::{Answer, Ask, Expected};
use super::plan::Request;
use super::spec::{LineSpec, PointSpec};
use super::transport::{Endpoint, Stream};
use super::writes::{Pending, Target, Writes, compare, read_back};
use crate::driver::{BlockWrite, Driver, Health, LinkError, PollReport, TagWrite, WriteOutcome};
use crate::line::{LineCounters, LineSink, WRITE_TICK, stopped};
use crate::value::{Cause, PointId, wall_clock_ms};
use control_core::units::MachineId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Replies in a row that are no answers, after which the link is made anew.
const STRIKES: u32 = 8;
/// Bytes taken from the stream at once.
const CHUNK: usize = 8 * 1024;
/// Groups of one interval are spread over at most this long: first values come soon.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// What a request on its way is for.
enum What {
    Poll(usize, Step),
    Blocks(Vec<BlockWrite>),
    Tags(Vec<Pending>),
    ReadBack(Vec<Pending>),
}

struct Flight {
    transaction: u16,
    unit: usize,
    ask: Ask,
    expected: Expected,
    what: What,
    sent: Instant,
    turn_until: Instant,
    deadline: Instant,
}

/// Modbus client of one line.
pub struct Modbus {
    endpoint: Endpoint,
    connect_timeout: Duration,
    timeout: Duration,
    window: usize,
    pause: Duration,
    silence: Duration,
    groups: Vec<Group>,
    units: Vec<Unit>,
    devices: Vec<usize>,
    commands: Vec<(MachineId, usize, u16)>,
    targets: HashMap<PointId, Target>,
    epoch: Instant,
    stream: Option<Box<dyn Stream>>,
    // of one link:
    timer: BinaryHeap<Reverse<(Instant, usize)>>,
    active: Vec<usize>,
    flights: Vec<Flight>,
    reads_back: Vec<(usize, Ask, Vec<Pending>)>,
    writes: Writes,
    inbox: Inbox,
    transaction: u16,
    may_send_at: Instant,
    last_heard: Instant,
    silent: u32,
    strikes: u32,
    counters: LineCounters,
}

impl Modbus {
    /// Plans all requests of the line; connects nothing.
    pub fn new(spec: LineSpec) -> Modbus {
        let mut units: Vec<Unit> = Vec::new();
        let (mut devices, mut commands, mut targets) = (Vec::new(), Vec::new(), HashMap::new());
        let mut groups = Vec::new();
        for (n, device) in spec.devices.iter().enumerate() {
            let unit = units.iter().position(|u| u.id == device.unit).unwrap_or(units.len());
            if unit == units.len() {
                units.push(Unit::new(device.unit, fastrand::u64(..)));
            }
            devices.push(unit);
            commands.extend(device.commands.iter().map(|(m, at)| (*m, unit, *at)));
            let mut intervals: Vec<Duration> = device.points.iter().map(|p| p.interval).collect();
            intervals.sort();
            intervals.dedup();
            for interval in intervals {
                let points: Vec<&PointSpec> = device.points.iter().filter(|p| p.interval == interval).collect();
                groups.push(Group::new(n, unit, interval, &points, &device.limits));
            }
            for point in device.points.iter().filter(|p| p.writable) {
                let (address, format, single) = (point.address, point.format.clone(), device.single_writes);
                targets.insert(point.id, Target { unit, address, format, single });
            }
        }
        let transactions = spec.endpoint.has_transactions();
        let now = Instant::now();
        Modbus {
            connect_timeout: spec.connect_timeout,
            timeout: spec.timeout,
            window: if transactions { usize::from(spec.pipeline.max(1)) } else { 1 },
            pause: spec.pause,
            silence: spec.endpoint.silence(),
            endpoint: spec.endpoint,
            groups,
            units,
            devices,
            commands,
            targets,
            epoch: now,
            stream: None,
            timer: BinaryHeap::new(),
            active: Vec::new(),
            flights: Vec::new(),
            reads_back: Vec::new(),
            writes: Writes::default(),
            inbox: Inbox::default(),
            transaction: fastrand::u16(..),
            may_send_at: now,
            last_heard: now,
            silent: 0,
            strikes: 0,
            counters: LineCounters::default(),
        }
    }

    /// The requests of one poll of everything, for those who want to see the plan: unit, interval, request, wasted registers.
    pub fn requests(&self) -> impl Iterator<Item = (u8, usize, Duration, &Request, u16)> {
        self.groups.iter().flat_map(|g| {
            let unit = self.units.get(g.unit).map_or(0, |u| u.id);
            g.reads().iter().map(move |r| (unit, g.device, g.period, r, g.wasted(r)))
        })
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// A new link: the first polls spread over their interval, everybody gets another chance.
    fn link_is_new(&mut self) {
        let now = Instant::now();
        let since_start = self.since_start(now);
        let mut same: HashMap<Duration, (u32, u32)> = HashMap::new();
        for group in &self.groups {
            same.entry(group.period).or_default().1 += 1;
        }
        self.timer.clear();
        for (n, group) in self.groups.iter_mut().enumerate() {
            group.link_is_new(since_start);
            let (nth, of) = same.entry(group.period).or_default();
            group.due = now + group.period.min(SPREAD_MAX) * *nth / (*of).max(1);
            *nth += 1;
            self.timer.push(Reverse((group.due, n)));
        }
        self.units.iter_mut().for_each(|u| u.link_is_new(now));
        self.active.clear();
        self.flights.clear();
        self.inbox.clear();
        (self.may_send_at, self.last_heard, self.silent, self.strikes) = (now, now, 0, 0);
    }

    fn lost(&self, why: impl ToString) -> LinkError {
        LinkError::Lost { peer: self.endpoint.to_string(), why: why.to_string() }
    }

    // --- schedule

    /// Begins the polls whose time has come.
    fn begin_due(&mut self, now: Instant, sink: &mut impl LineSink) {
        let since_start = self.since_start(now);
        while let Some(&Reverse((at, n))) = self.timer.peek() {
            if at > now {
                break;
            }
            self.timer.pop();
            let Some(group) = self.groups.get_mut(n) else { continue };
            let unit = self.units.get(group.unit);
            let probing = unit.is_some_and(Unit::is_demoted)
                && self.flights.iter().any(|f| f.unit == group.unit && matches!(f.what, What::Poll(..)));
            if probing || unit.is_some_and(|u| !u.may_be_asked(now)) {
                group.skip(now);
                self.timer.push(Reverse((group.due, n)));
            } else {
                // Its next due time goes into the timer when it has ended: until then it cannot begin.
                let missed = group.begin(now, since_start);
                if missed > 0 {
                    sink.missed(group.device, missed);
                }
                self.active.push(n);
            }
        }
    }

    /// The next request and its purpose, writes before reads.
    fn next_request(&mut self, now: Instant) -> Option<(usize, Ask, What)> {
        if let Some(run) = self.writes.blocks.pop_front() {
            let ask = Ask::WriteRegisters { start: run.start, words: run.words, single: false };
            return Some((run.unit, ask, What::Blocks(run.blocks)));
        }
        if let Some((unit, ask, run)) = self.reads_back.pop() {
            return Some((unit, ask, What::ReadBack(run)));
        }
        if let Some((unit, ask, run)) = self.writes.next_tags() {
            return Some((unit, ask, What::Tags(run)));
        }
        // A unit that is overdue is not asked again before it has answered or its time is over.
        let overdue = |unit: usize| self.flights.iter().any(|f| f.unit == unit && f.turn_until <= now);
        let at = self.active.iter().position(|n| {
            self.groups.get(*n).is_some_and(|g| g.has_next() && !overdue(g.unit) && self.may_probe(g.unit))
        })?;
        let n = *self.active.get(at)?;
        let group = self.groups.get_mut(n)?;
        let (ask, step) = group.next()?;
        Some((group.unit, ask, What::Poll(n, step)))
    }

    /// A demoted unit gets one request at a time.
    fn may_probe(&self, unit: usize) -> bool {
        let demoted = self.units.get(unit).is_some_and(Unit::is_demoted);
        !demoted || !self.flights.iter().any(|f| f.unit == unit)
    }

    fn has_room(&self, now: Instant) -> bool {
        now >= self.may_send_at && self.flights.iter().filter(|f| f.turn_until > now).count() < self.window
    }

    /// Puts requests into `out` while there is room for them on the line.
    fn send(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.writes.expire(now);
        let mut pdu = Vec::new();
        while self.has_room(now) {
            let Some((unit, ask, what)) = self.next_request(now) else { break };
            pdu.clear();
            let expected = ask.encode(&mut pdu);
            let Some(u) = self.units.get(unit) else { continue };
            let limit = u.limit(self.timeout);
            let (id, transactions) = (u.id, self.endpoint.has_transactions());
            let turn = if transactions { u.turn(self.timeout).min(limit) } else { limit };
            self.transaction = self.transaction.wrapping_add(1);
            if transactions {
                put_mbap(self.transaction, id, &pdu, out);
            } else {
                self.inbox.clear(); // whatever is left is late
                put_rtu(id, &pdu, out);
            }
            self.may_send_at = now + self.pause;
            let transaction = self.transaction;
            let (turn_until, deadline) = (now + turn, now + limit);
            self.flights.push(Flight { transaction, unit, ask, expected, what, sent: now, turn_until, deadline });
        }
    }

    /// When something is to be done although nothing comes.
    fn next_instant(&self, now: Instant) -> Option<Instant> {
        let flights = self.flights.iter().flat_map(|f| [f.turn_until, f.deadline]).filter(|at| *at > now);
        let due = self.timer.peek().map(|Reverse((at, _))| *at);
        let send = (self.may_send_at > now).then_some(self.may_send_at);
        flights.chain(due).chain(send).chain(self.writes.next_deadline()).min()
    }

    // --- replies

    fn received(&mut self, bytes: &[u8], now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.push(bytes);
        let result = if self.endpoint.has_transactions() {
            self.take_mbap(&mut inbox, now, sink)
        } else {
            self.take_rtu(&mut inbox, now, sink)
        };
        self.inbox = inbox;
        result
    }

    fn take_mbap(&mut self, inbox: &mut Inbox, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        loop {
            let frame = inbox.mbap().map_err(|what| LinkError::Protocol { peer: self.endpoint.to_string(), what })?;
            let Some(frame) = frame else { return Ok(()) };
            let units = &self.units;
            let meant = |f: &Flight| {
                f.transaction == frame.transaction && units.get(f.unit).is_some_and(|u| u.id == frame.unit)
            };
            // Whatever it is an answer to: somebody is there.
            (self.last_heard, self.silent) = (now, 0);
            match self.flights.iter().position(meant) {
                Some(at) => {
                    let flight = self.flights.swap_remove(at);
                    self.may_send_at = self.may_send_at.max(now + self.pause);
                    self.answered(flight, inbox.get(frame.pdu), now, sink)?;
                }
                None => self.counters.dropped += 1,
            }
        }
    }

    fn take_rtu(&mut self, inbox: &mut Inbox, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        self.may_send_at = self.may_send_at.max(now + self.silence.max(self.pause));
        let Some(flight) = self.flights.first() else {
            self.counters.dropped += 1;
            inbox.clear();
            return Ok(());
        };
        let id = self.units.get(flight.unit).map_or(0, |u| u.id);
        let Some(pdu) = inbox.rtu(id, flight.expected) else { return Ok(()) };
        let flight = self.flights.remove(0);
        self.answered(flight, inbox.get(pdu), now, sink)
    }

    fn answered(
        &mut self,
        flight: Flight,
        pdu: &[u8],
        now: Instant,
        sink: &mut impl LineSink,
    ) -> Result<(), LinkError> {
        (self.last_heard, self.silent) = (now, 0);
        let answer = flight.expected.check(pdu);
        // A gateway that says "no path" or "no answer" speaks for a unit that did not.
        let absent = matches!(answer, Ok(Answer::Exception(10 | 11)));
        let took = now.saturating_duration_since(flight.sent);
        let since_start = self.since_start(now);
        match &answer {
            Ok(_) => self.strikes = 0,
            Err(what) => {
                self.counters.bad_replies += 1;
                self.strikes += 1;
                if self.strikes >= STRIKES {
                    let what = format!("reply to {}: {what}", flight.ask);
                    return Err(LinkError::Protocol { peer: self.endpoint.to_string(), what });
                }
            }
        }
        let cause = match &answer {
            Ok(Answer::Exception(code)) => Some(Cause::Exception(*code)),
            Err(_) => Some(Cause::BadReply),
            Ok(_) => None,
        };
        match flight.what {
            What::Poll(n, step) => {
                if let Some(group) = self.groups.get_mut(n) {
                    group.answered(step, answer.map_err(|_| Cause::BadReply), since_start, wall_clock_ms());
                    if absent {
                        group.drop_rest();
                    }
                }
            }
            What::Blocks(blocks) => match cause {
                None => sink.written(&blocks),
                Some(cause) => sink.not_written(&blocks, cause),
            },
            What::Tags(run) => match cause {
                None => self.acknowledged(flight.unit, run),
                Some(Cause::BadReply) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown)),
                Some(cause) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Refused(cause))),
            },
            What::ReadBack(run) => match answer {
                Ok(Answer::Data(data)) => compare(run, data),
                _ => run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown)),
            },
        }
        self.finish_polls(now, sink);
        if absent {
            self.unit_missed(flight.unit, flight.sent, now, cause.unwrap_or(Cause::NoAnswer), sink);
        } else if self.units.get_mut(flight.unit).is_some_and(|u| u.answered(took)) {
            self.tell_health(flight.unit, Health::Healthy, Cause::None, sink);
        }
        Ok(())
    }

    /// A write was acknowledged: read it back where that is wanted.
    fn acknowledged(&mut self, unit: usize, run: Vec<Pending>) {
        if run.iter().any(|p| p.wish.verify)
            && let Some(ask) = read_back(&run)
        {
            self.reads_back.push((unit, ask, run));
        } else {
            run.into_iter().for_each(|p| p.answer(WriteOutcome::Done));
        }
    }

    fn finish_polls(&mut self, now: Instant, sink: &mut impl LineSink) {
        let (groups, timer) = (&mut self.groups, &mut self.timer);
        self.active.retain(|n| {
            let Some(group) = groups.get_mut(*n) else { return false };
            let due = group.due;
            match group.finish(now) {
                Some((report, readings)) => {
                    sink.readings(report, readings);
                    timer.push(Reverse((due, *n)));
                    false
                }
                None => true,
            }
        });
    }

    // --- silence

    /// Requests whose time is over.
    fn expire(&mut self, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        while let Some(at) = self.flights.iter().position(|f| f.deadline <= now) {
            let flight = self.flights.swap_remove(at);
            self.counters.timeouts += 1;
            self.inbox_after_time_out(now);
            match flight.what {
                What::Poll(n, _) => {
                    if let Some(group) = self.groups.get_mut(n) {
                        group.abandoned();
                    }
                }
                What::Blocks(blocks) => sink.not_written(&blocks, Cause::NoAnswer),
                What::Tags(run) | What::ReadBack(run) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown)),
            }
            // A connection on which nobody says anything is half open; a serial port is not.
            self.silent = if self.last_heard < flight.sent { self.silent + 1 } else { 0 };
            if self.silent >= 2 && self.endpoint.host_port().is_some() {
                let unit = self.units.get(flight.unit).map_or(0, |u| u.id);
                let (peer, what) = (self.endpoint.to_string(), format!("{} at unit {unit}", flight.ask));
                return Err(LinkError::Timeout { peer, what, limit: self.timeout });
            }
            self.finish_polls(now, sink);
            self.unit_missed(flight.unit, flight.sent, now, Cause::NoAnswer, sink);
        }
        Ok(())
    }

    fn inbox_after_time_out(&mut self, now: Instant) {
        if !self.endpoint.has_transactions() {
            self.inbox.clear();
            self.may_send_at = self.may_send_at.max(now + self.silence.max(self.pause));
        }
    }

    fn unit_missed(&mut self, unit: usize, sent: Instant, now: Instant, cause: Cause, sink: &mut impl LineSink) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let newly = u.missed(sent, now);
        if !u.is_demoted() {
            return;
        }
        // What was about to be asked of it is not asked before its probe.
        self.groups.iter_mut().filter(|g| g.unit == unit).for_each(Group::drop_rest);
        self.finish_polls(now, sink);
        if newly {
            self.tell_health(unit, Health::Demoted, cause, sink);
            let wall_ms = wall_clock_ms();
            for group in self.groups.iter().filter(|g| g.unit == unit) {
                let report = PollReport { device: group.device, ..PollReport::default() };
                sink.readings(report, &mut group.all_bad(cause, wall_ms));
            }
        }
    }

    fn tell_health(&mut self, unit: usize, health: Health, cause: Cause, sink: &mut impl LineSink) {
        for device in self.devices.iter().enumerate().filter(|(_, u)| **u == unit).map(|(d, _)| d) {
            sink.health(device, health, cause);
        }
    }
}

impl Modbus {
    async fn work<S: LineSink>(
        &mut self,
        stream: &mut dyn Stream,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let (mut chunk, mut out, mut blocks) = (vec![0u8; CHUNK], Vec::with_capacity(512), Vec::new());
        let (machines, sweep_every) = (sink.carries_machines(), sink.sweep_every());
        let (mut tick, mut sweep) = (Instant::now(), Instant::now() + sweep_every);
        let (mut stopping, mut last_words, mut open) = (false, false, true);
        loop {
            let now = Instant::now();
            self.expire(now, sink)?;
            let blocks_wait =
                !self.writes.blocks.is_empty() || self.flights.iter().any(|f| matches!(f.what, What::Blocks(_)));
            if machines && !blocks_wait && (now >= tick || stopping) {
                if stopping && last_words {
                    return Ok(());
                }
                (tick, last_words) = (now + WRITE_TICK, stopping);
                blocks.clear();
                sink.due_writes(&mut blocks);
                self.writes.push_blocks(&blocks, &self.commands);
            }
            if stopping && !machines {
                return Ok(());
            }
            if now >= sweep {
                sweep = now + sweep_every;
                self.counters.quarantined = self.groups.iter().map(|g| g.quarantined() as u64).sum();
                sink.counters(self.counters);
                sink.sweep();
            }
            if !stopping {
                self.begin_due(now, sink);
            }
            self.send(now, &mut out);
            self.finish_polls(now, sink); // those that had nothing to ask
            if !out.is_empty() {
                match timeout(self.timeout, async {
                    stream.write_all(&out).await?;
                    stream.flush().await
                })
                .await
                {
                    Ok(Ok(())) => out.clear(),
                    Ok(Err(e)) => return Err(self.lost(e)),
                    Err(_) => return Err(self.lost("the device takes no bytes any more")),
                }
            }
            if stopping && self.flights.is_empty() && self.writes.blocks.is_empty() {
                continue; // the last words have been acknowledged
            }
            let mut until = self.next_instant(now).map_or(sweep, |at| at.min(sweep));
            if machines && !blocks_wait {
                until = until.min(tick);
            }
            tokio::select! {
                biased;
                read = stream.read(&mut chunk) => match read {
                    Ok(0) => return Err(self.lost("closed by the device")),
                    Ok(n) => self.received(chunk.get(..n).unwrap_or_default(), Instant::now(), sink)?,
                    Err(e) => return Err(self.lost(e)),
                },
                wish = wishes.recv(), if open && !stopping => match wish {
                    Some(wish) => {
                        let target = self.targets.get(&wish.point);
                        self.writes.push_tag(wish, target);
                    }
                    None => open = false,
                },
                () = stopped(stop), if !stopping => stopping = true,
                () = sleep_until(until) => {}
            }
        }
    }
}

impl Driver for Modbus {
    fn peer(&self) -> String {
        self.endpoint.to_string()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        let opened = self.endpoint.open(self.connect_timeout).await;
        let stream = opened.map_err(|why| LinkError::Connect { peer: self.endpoint.to_string(), why })?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn serve<S: LineSink>(
        &mut self,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let Some(mut stream) = self.stream.take() else { return Err(self.lost("not connected")) };
        self.link_is_new();
        let ended = self.work(&mut *stream, sink, wishes, stop).await;
        self.writes.give_up(&WriteOutcome::LinkDown);
        for (_, _, run) in self.reads_back.drain(..) {
            run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown));
        }
        for flight in self.flights.drain(..) {
            if let What::Tags(run) | What::ReadBack(run) = flight.what {
                run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown));
            }
        }
        ended
    }

    fn close(&mut self) {
        self.stream = None;
    }
}
