//! The client: one line, several units behind it, one task.
//!
//! ```text
//!   command blocks ┐                                   ┌─ transaction id known ──> its poll, its write
//!   tag writes     ├─ in turn ─> window ──> wire ──> reply ─┤
//!   due groups     ┘             1, or more            └─ unknown, late, foreign ──> dropped and counted
//!                                if opted in
//! ```
//!
//! What ends the link: a stream that fails, a frame that cannot be one, a flood of replies that nobody has asked for, or a peer that says nothing at all for two time limits (four while
//! some of its units may be waiting behind others). What one unit does or does not do never ends it: see [`crate::modbus::health`]; nor
//! does a peer that hangs up behind its replies: see [`resting`]. On a serial line there are no transaction ids: one request at a time,
//! silence before it, and whatever came after a time-out is thrown away.

mod hearing;
mod resting;
mod sending;
mod unasked;

use crate::driver::{BlockWrite, Driver, LinkError, TagWrite, WriteOutcome};
use crate::line::{LineCounters, LineSink, WRITE_TICK, stopped};
use crate::modbus::bus::Bus;
use crate::modbus::frame::Inbox;
use crate::modbus::group::{Group, Step};
use crate::modbus::health::Unit;
use crate::modbus::pdu::{Ask, Expected};
use crate::modbus::plan::Request;
use crate::modbus::spec::{LineSpec, PointSpec};
use crate::modbus::transport::{Endpoint, Stream};
use crate::modbus::writes::{Look, Pending, Target, Way, Writes};
use crate::value::{Cause, PointId, Reading};
use control_core::units::MachineId;
use resting::{closed, hang_up, read_some};
use sending::Turn;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use unasked::Unasked;

/// Bytes taken from the stream at once.
const CHUNK: usize = 8 * 1024;
/// Time limits without a sound on a connection that is spoken to, after which it is half open. A gateway may wait longer than one for a
/// dead unit behind it, and says nothing meanwhile.
const SILENCE_LIMITS: u32 = 4;
/// A connection on which nobody has answered is made anew once; and again only after this long.
const FRUITLESS: Duration = Duration::from_secs(300);
/// Groups of one interval are spread over at most this long: first values come soon.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// What a request on its way is for.
enum What {
    Poll(usize, Step),
    Blocks(Vec<BlockWrite>),
    Tags(Vec<Pending>),
    ReadBack(Look),
    /// The register of a part that is to be changed: read now, written next.
    Modify(Vec<Pending>),
    /// A read that tells whether the adapter echoes.
    Listen,
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
    /// Sent while another unit kept the line waiting.
    behind: bool,
    /// Something came meanwhile that may have been meant for it: how it was not what was asked for.
    stranger: Option<Cause>,
}

/// Modbus client of one line.
pub struct Modbus {
    endpoint: Endpoint,
    connect_timeout: Duration,
    timeout: Duration,
    window: usize,
    pause: Duration,
    silence: Duration,
    close_after_poll: bool,
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
    /// Memory for readings that no group needs at present.
    spare: Vec<Vec<Reading>>,
    /// Writes that are to be read back.
    looks: Vec<Look>,
    writes: Writes,
    /// Registers that were read to be changed: written before anything else.
    modified: Vec<(usize, Ask, Vec<Pending>)>,
    inbox: Inbox,
    bus: Bus,
    transaction: u16,
    may_send_at: Instant,
    last_heard: Instant,
    /// When a unit that has always answered was first asked without anything being heard after it.
    unheard: Option<Instant>,
    /// A connection on which nobody had answered was ended then.
    fruitless: Option<Instant>,
    silent: u32,
    turn: Turn,
    stopping: bool,
    /// Replies over the connection of now.
    replies: usize,
    /// So many the peer gave over one connection before it hung up on a request.
    replies_a_connection: Option<usize>,
    /// When refused values were last asked for because the peer had hung up.
    asked_anew: Option<Instant>,
    unasked: Unasked,
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
            if let Some(unit) = units.get_mut(unit) {
                unit.takes_foreign_replies |= device.foreign_replies;
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
                let (address, format, single) =
                    (point.address, point.format.within(&point.address), device.single_writes);
                let most = if device.limits.single { 1 } else { device.limits.most(address.table) };
                let way = match () {
                    () if !format.kind.is_part() => Way::Whole,
                    () if device.mask_write => Way::Mask,
                    () if point.read_modify_write => Way::Modify,
                    () => continue, // its neighbours would be overwritten
                };
                targets.insert(point.id, Target { unit, address, format, way, single, most });
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
            close_after_poll: spec.close_after_poll,
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
            spare: Vec::new(),
            looks: Vec::new(),
            writes: Writes::default(),
            modified: Vec::new(),
            inbox: Inbox::default(),
            bus: Bus::default(),
            transaction: fastrand::u16(..),
            may_send_at: now,
            last_heard: now,
            unheard: None,
            fruitless: None,
            silent: 0,
            turn: Turn::default(),
            stopping: false,
            replies: 0,
            replies_a_connection: None,
            asked_anew: None,
            unasked: Unasked::default(),
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
        self.bus = Bus::default();
        (self.may_send_at, self.last_heard, self.unheard, self.silent) = (now, now, None, 0);
        (self.turn, self.stopping) = (Turn::default(), false);
        (self.replies, self.replies_a_connection, self.asked_anew) = (0, None, None);
        self.unasked = Unasked::default();
    }

    fn lost(&self, why: impl ToString) -> LinkError {
        LinkError::Lost { peer: self.endpoint.to_string(), why: why.to_string() }
    }
}

impl Modbus {
    async fn work<S: LineSink>(
        &mut self,
        stream: Box<dyn Stream>,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let (mut chunk, mut out, mut blocks) = (vec![0u8; CHUNK], Vec::with_capacity(512), Vec::new());
        let (machines, sweep_every) = (sink.carries_machines(), sink.sweep_every());
        let (mut tick, mut sweep) = (Instant::now(), Instant::now() + sweep_every);
        let (mut last_words, mut open) = (false, true);
        let mut stream = Some(stream);
        loop {
            let now = Instant::now();
            self.expire(now, sink)?;
            if machines && !last_words && (now >= tick || self.stopping) {
                (tick, last_words) = (now + WRITE_TICK, self.stopping);
                blocks.clear();
                sink.due_writes(&mut blocks);
                self.writes.push_blocks(&blocks, &self.commands);
            }
            // The last words have been acknowledged, or their time is over.
            let under_way = |f: &Flight| matches!(f.what, What::Blocks(_));
            if self.stopping && !self.writes.has_blocks(|_| true) && !self.flights.iter().any(under_way) {
                return Ok(());
            }
            if now >= sweep {
                sweep = now + sweep_every;
                self.counters.quarantined = self.groups.iter().map(|g| g.quarantined() as u64).sum();
                sink.counters(self.counters);
                sink.sweep();
            }
            if !self.stopping {
                self.begin_due(now, sink);
            }
            self.send(now, &mut out);
            self.finish_polls(now, sink); // those that had nothing to ask
            if !out.is_empty() && stream.is_none() {
                stream = self.open_again(now, stop).await?;
                if stream.is_none() {
                    return Ok(());
                }
            }
            if let Some(said_to) = stream.as_mut().filter(|_| !out.is_empty()) {
                let said = timeout(self.timeout, async {
                    said_to.write_all(&out).await?;
                    said_to.flush().await
                });
                match said.await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => {
                        self.hung_up(e, sink)?;
                        stream = None;
                    }
                    Err(_) => return Err(self.lost("the device takes no bytes any more")),
                }
                out.clear();
            }
            if self.is_done_with_the_connection() {
                hang_up(&mut stream).await;
                self.replies = 0;
                continue; // what is to be asked still goes over the next one, at once
            }
            let mut until = self.next_instant(now).map_or(sweep, |at| at.min(sweep));
            if machines && !self.stopping {
                until = until.min(tick);
            }
            tokio::select! {
                biased;
                read = read_some(&mut stream, &mut chunk) => match read {
                    Ok(n @ 1..) => self.received(chunk.get(..n).unwrap_or_default(), Instant::now(), sink)?,
                    ended => {
                        self.hung_up(ended.err().unwrap_or_else(closed), sink)?;
                        stream = None;
                    }
                },
                wish = wishes.recv(), if open && !self.stopping => match wish {
                    Some(wish) => {
                        let target = self.targets.get(&wish.point);
                        self.writes.push_tag(wish, target);
                    }
                    None => open = false,
                },
                () = stopped(stop), if !self.stopping => self.stopping = true,
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
        let Some(stream) = self.stream.take() else { return Err(self.lost("not connected")) };
        self.link_is_new();
        let ended = self.work(stream, sink, wishes, stop).await;
        sink.counters(self.counters); // a link may end before they are told the next time
        self.writes.give_up(&WriteOutcome::LinkDown);
        for (_, _, run) in self.modified.drain(..) {
            run.into_iter().for_each(|p| p.answer(WriteOutcome::LinkDown));
        }
        self.looks.drain(..).for_each(Look::give_up);
        for flight in self.flights.drain(..) {
            match flight.what {
                What::Modify(run) => run.into_iter().for_each(|p| p.answer(WriteOutcome::LinkDown)),
                What::Tags(run) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown)),
                What::ReadBack(look) => look.give_up(),
                What::Poll(..) | What::Blocks(_) | What::Listen => {}
            }
        }
        ended
    }

    fn close(&mut self) {
        self.stream = None;
    }
}
