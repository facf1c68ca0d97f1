//! Which point comes how: subscribed to, read in turn, or refused for now.
//!
//! ```text
//!            ┌── made ───────────> Waiting ── first value ──> Live ── a read says otherwise, twice ──> Wanted
//!   Wanted ──┤                        └── silent, though it can be read ──> Polled
//!            ├── no room ─────────────────────────────────────> Polled
//!            └── refused, or the node has gone ──> Refused ── later, ever less often ──> Wanted
//! ```
//!
//! One bad node never fails the others: each has a state of its own.
//!
//! A subscription that lives says nothing of an item that has died: where a program is loaded anew, its nodes are deleted and made again
//! under the same names, and their items stay silent for ever, the last value Good. So what has been silent for a while is read, and
//! what is read is compared with what was told.

use super::rooms::Rooms;
use super::session::{Link, Namespaces, value_of};
use super::{Deadband, Mode, OpcUaSpec, UaPoint, property};
use crate::driver::LinkError;
use crate::line::Notice;
use crate::value::{Cause, PointId, Reading, Value, wall_clock_ms};
use opcua::types::{DataValue, NodeId, ReadValueId, StatusCode};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A refused node is asked for again after this, and ever less often.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest queue that is asked for.
const QUEUE_MAX: f64 = 1000.0;
/// What has been silent for this long is read and compared.
pub(super) const COMPARE_AFTER: Duration = Duration::from_secs(20);
/// A value that differs has at least this long to come by itself before its item is taken for dead.
const DOUBT: Duration = Duration::from_secs(1);
/// Items that are made again so often without a word between are of no use: the point is read in turn.
const REMADE_MAX: u8 = 3;

/// How a point comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Its item is being made.
    Wanted,
    /// Subscribed to; nothing has come yet.
    Waiting,
    /// Subscribed to.
    Live,
    /// Read in turn.
    Polled,
    /// Refused, to be asked for again at this time.
    Refused { again: Instant },
}

/// One point.
#[derive(Debug)]
pub(super) struct Item {
    /// Its node; `None` while the server does not have its namespace.
    pub(super) node: Option<ReadValueId>,
    pub(super) state: State,
    /// The server's numbers of its subscription and its item.
    id: Option<(u32, u32)>,
    /// How long it is left alone when it is refused the next time.
    wait: Duration,
    /// Changes smaller than this are dropped by us, because the server does not.
    pub(super) deadband: Option<f64>,
    /// What was last passed on, where we drop.
    pub(super) last: Option<f64>,
    /// The width of its range, where a deadband is a part of that; and whether it is the server that knows it.
    range: Option<f64>,
    is_servers_range: bool,
    /// How often the server looks.
    sampling: Duration,
    /// What its subscription has said last.
    told: Option<(Option<Value>, Cause)>,
    /// When that was, or when a read last agreed with it.
    sure: Instant,
    /// Since when a read has said otherwise.
    doubt: Option<Instant>,
    /// How often its item was made again without a word between.
    remade: u8,
}

/// An item to be made.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) index: usize,
    pub(super) node: ReadValueId,
    pub(super) sampling: Duration,
    pub(super) queue: u32,
    pub(super) filter: Option<Deadband>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Made {
    /// It is there; its numbers, whether the server filters, and how often it looks.
    Item { id: (u32, u32), filters: bool, sampling: Duration },
    /// There is no room for it.
    NoRoom,
    /// It was refused.
    Refused(StatusCode),
}

/// What a read says of a point that is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Nothing new, or nothing that is sure yet.
    Well,
    /// Its item is dead: what was read is to be told, and the item to be made again.
    Dead,
    /// Its node has gone: what was read is to be told.
    Gone,
    /// The same, once too often: it is read in turn from now on.
    Deaf,
}

/// The subscriptions of a line, and the state of all its points.
pub(super) struct Watch {
    pub(super) items: Vec<Item>,
    pub(super) rooms: Rooms,
    /// As the server has revised it.
    pub(super) publishing: Duration,
    /// Without any PublishResponse for this long the subscription is dead.
    pub(super) limit: Duration,
    /// What a person should know.
    pub(super) notices: Vec<Notice>,
}

/// Notifications as they come: the number of the point, from 1, and its value.
pub(super) type Batch = Vec<(u32, DataValue)>;

/// Makes the subscription and its items. Readings of what was refused come back with it.
pub(super) async fn begin(
    link: &Link,
    spec: &OpcUaSpec,
    names: &Namespaces,
) -> Result<(Watch, mpsc::Receiver<Batch>, Vec<Reading>), LinkError> {
    let (rooms, batches, (publishing, limit)) = Rooms::first(link, spec).await?;
    let now = Instant::now();
    let items = spec.points.iter().map(|point| Item::new(point, names, now)).collect();
    let mut watch = Watch { items, rooms, publishing, limit, notices: Vec::new() };
    watch.learn_ranges(link, spec).await?;
    let mut wants: Vec<Want> = (0..spec.points.len()).filter_map(|i| watch.want(spec, link, i)).collect();
    // If there is not room for all, the fastest have it.
    wants.sort_by_key(|w| w.sampling);
    let beyond = wants.split_off(wants.len().min(link.limits.items));
    let mut readings = Vec::new();
    for want in beyond {
        watch.take(spec, want.index, Made::NoRoom, now, &mut readings);
    }
    let placed = watch.rooms.clone().place(link.clone(), wants).await?;
    watch.rooms = placed.rooms;
    for (index, made) in placed.made {
        watch.take(spec, index, made, now, &mut readings);
    }
    for index in 0..spec.points.len() {
        if watch.items.get(index).is_some_and(|i| i.node.is_none()) {
            watch.take(spec, index, Made::Refused(StatusCode::BadNodeIdUnknown), now, &mut readings);
        }
    }
    watch.note_room(spec);
    Ok((watch, batches, readings))
}

impl Item {
    fn new(point: &UaPoint, names: &Namespaces, now: Instant) -> Item {
        let (state, sampling) = match point.mode {
            Mode::Subscribe { sampling, .. } => (State::Wanted, sampling),
            Mode::Poll { interval } => (State::Polled, interval),
        };
        Item {
            node: names.resolve(&point.node).map(value_of),
            state,
            id: None,
            wait: RETRY_FIRST,
            deadband: None,
            last: None,
            range: None,
            is_servers_range: false,
            sampling,
            told: None,
            sure: now,
            doubt: None,
            remade: 0,
        }
    }

    fn refuse(&mut self, now: Instant) {
        self.state = State::Refused { again: now + self.wait };
        self.wait = (self.wait * 2).min(RETRY_MAX);
    }

    /// How wide its deadband is, in its own unit; nothing is known of a part of an unknown range.
    fn width(&self, point: &UaPoint) -> Option<f64> {
        match point.mode {
            Mode::Subscribe { deadband: Some(Deadband::Absolute(width)), .. } => Some(width),
            Mode::Subscribe { deadband: Some(Deadband::Percent(part)), .. } => Some(self.range? * part / 100.0),
            _ => None,
        }
    }

    /// Its subscription says this.
    pub(super) fn said(&mut self, reading: &Reading, now: Instant) {
        self.told = Some((reading.value.clone(), reading.cause));
        (self.sure, self.doubt) = (now, None);
    }

    /// Whether a read says something else than the subscription has.
    fn differs(&self, point: &UaPoint, reading: &Reading) -> bool {
        let Some((value, cause)) = &self.told else { return false };
        if *cause != reading.cause {
            return true;
        }
        let numbers = |v: &Option<Value>| v.as_ref().and_then(Value::as_f64);
        let slack = match point.mode {
            Mode::Subscribe { deadband: Some(_), .. } => self.width(point).unwrap_or(f64::INFINITY),
            _ => 0.0,
        };
        match (value, &reading.value) {
            (Some(then), Some(now)) if then.same(now) => false,
            (None, None) => false,
            _ => match (numbers(value), numbers(&reading.value)) {
                (Some(then), Some(now)) if slack > 0.0 => (then - now).abs() > slack,
                _ => true,
            },
        }
    }
}

impl Watch {
    /// Asks for the ranges that deadbands are parts of.
    async fn learn_ranges(&mut self, link: &Link, spec: &OpcUaSpec) -> Result<(), LinkError> {
        let is_part = |p: &UaPoint| matches!(p.mode, Mode::Subscribe { deadband: Some(Deadband::Percent(_)), .. });
        let node = |index: usize| Some(self.items.get(index)?.node.as_ref()?.node_id.clone());
        let wanted = spec.points.iter().enumerate().filter(|(_, p)| is_part(p));
        let (indexes, nodes): (Vec<usize>, Vec<(NodeId, &str)>) =
            wanted.filter_map(|(index, _)| Some((index, (node(index)?, "EURange")))).unzip();
        if nodes.is_empty() {
            return Ok(());
        }
        let found = property::read(link, &nodes).await?;
        let mut without = Vec::new();
        for (index, found) in indexes.into_iter().zip(found) {
            let range = found.as_ref().and_then(property::range).map(|(low, high)| high - low);
            let (Some(item), Some(point)) = (self.items.get_mut(index), spec.points.get(index)) else { continue };
            (item.range, item.is_servers_range) = (range.or(point.range), range.is_some());
            if item.range.is_none() {
                without.push(point.id);
            }
        }
        if !without.is_empty() {
            self.notices.push(Notice::NoRange { points: without });
        }
        Ok(())
    }

    /// Says how many subscriptions there are if it is more than one, and what has no room in any of them.
    fn note_room(&mut self, spec: &OpcUaSpec) {
        let subscriptions = self.rooms.count();
        let crowd = self
            .items
            .iter()
            .zip(&spec.points)
            .filter(|(item, point)| matches!(point.mode, Mode::Subscribe { .. }) && item.state == State::Polled);
        let points: Vec<PointId> = crowd.map(|(_, point)| point.id).collect();
        if subscriptions > 1 || !points.is_empty() {
            self.notices.push(Notice::Room { subscriptions, points });
        }
    }

    /// A subscribed point has said something. Whether that is its first word, and whether it is worth telling.
    ///
    /// A node that has gone says so once and never again, even if it comes back (OPC 10000-4, 5.13.1): it counts as refused.
    pub(super) fn heard(&mut self, index: usize, status: Option<StatusCode>, now: Instant) -> (bool, bool) {
        let Some(item) = self.items.get_mut(index) else { return (false, false) };
        let first = matches!(item.state, State::Wanted | State::Waiting);
        let refused_before = item.wait > RETRY_FIRST;
        if !first {
            item.remade = 0;
        }
        match (item.state, status) {
            (State::Polled | State::Refused { .. }, _) => {}
            (_, Some(StatusCode::BadNodeIdUnknown)) => {
                item.refuse(now);
                return (first, !refused_before);
            }
            _ => (item.state, item.wait) = (State::Live, RETRY_FIRST),
        }
        (first, true)
    }

    /// Points that have been silent for long, and those that are in doubt for long enough: at most so many.
    pub(super) fn to_compare(&self, now: Instant, most: usize) -> Vec<usize> {
        let is_due = |item: &Item| {
            item.state == State::Live
                && match item.doubt {
                    None => now.duration_since(item.sure) >= COMPARE_AFTER,
                    // So long a change may take: two samples, and two publishings behind them.
                    Some(since) => now.duration_since(since) >= DOUBT + 2 * (item.sampling + self.publishing),
                }
        };
        self.items.iter().enumerate().filter(|(_, i)| is_due(i)).map(|(n, _)| n).take(most).collect()
    }

    /// What a read, asked for at `asked`, says of a point that is subscribed to.
    pub(super) fn compare(
        &mut self,
        index: usize,
        point: &UaPoint,
        reading: &Reading,
        (asked, now): (Instant, Instant),
    ) -> Compared {
        let Some(item) = self.items.get_mut(index) else { return Compared::Well };
        if item.state != State::Live || item.sure > asked {
            return Compared::Well; // it has spoken meanwhile
        }
        if !item.differs(point, reading) {
            (item.sure, item.doubt) = (now, None);
            return Compared::Well;
        }
        if item.doubt.is_none() {
            item.doubt = Some(now);
            return Compared::Well;
        }
        item.doubt = None;
        if reading.cause == Cause::Status(StatusCode::BadNodeIdUnknown.bits()) {
            item.refuse(now);
            return Compared::Gone;
        }
        item.remade = item.remade.saturating_add(1);
        if item.remade > REMADE_MAX {
            item.state = State::Polled;
            return Compared::Deaf;
        }
        Compared::Dead
    }

    /// These are asked for again as soon as those are done that are being asked for.
    pub(super) fn postpone(&mut self, dead: &[usize], now: Instant) {
        for index in dead {
            if let Some(item) = self.items.get_mut(*index) {
                item.state = State::Refused { again: now };
            }
        }
    }

    /// Points that are to be asked for again are wanted now; the items they had are given back, to be deleted.
    pub(super) fn give_up(&mut self, due: &[usize]) -> Vec<(u32, u32)> {
        let mut old = Vec::new();
        for index in due {
            if let Some(item) = self.items.get_mut(*index) {
                old.extend(item.id.take());
                item.state = State::Wanted;
            }
        }
        self.rooms.air(old.iter().map(|(subscription, _)| *subscription));
        old
    }

    /// The item a point wants, if it wants one.
    pub(super) fn want(&mut self, spec: &OpcUaSpec, link: &Link, index: usize) -> Option<Want> {
        let (item, point) = (self.items.get_mut(index)?, spec.points.get(index)?);
        let Mode::Subscribe { sampling, queue, deadband } = point.mode else { return None };
        // Fewer than are sampled between two publishings, and changes are lost.
        let sampled = (2.0 * self.publishing.as_secs_f64() / sampling.as_secs_f64().max(0.001)).ceil();
        let queue = queue.max(sampled.clamp(2.0, QUEUE_MAX) as u32);
        // A part of a range that the server does not know it refuses, or takes and does nothing.
        let knows = |deadband: &Deadband| matches!(deadband, Deadband::Absolute(_)) || item.is_servers_range;
        let filter = deadband.filter(|deadband| link.limits.filters && knows(deadband));
        item.deadband = item.width(point);
        Some(Want { index, node: item.node.clone()?, sampling, queue, filter })
    }

    /// Takes over what came of an item.
    pub(super) fn take(&mut self, spec: &OpcUaSpec, index: usize, made: Made, now: Instant, out: &mut Vec<Reading>) {
        let (Some(item), Some(point)) = (self.items.get_mut(index), spec.points.get(index)) else { return };
        match made {
            Made::Item { id, filters, sampling } => {
                (item.id, item.sampling) = (Some(id), sampling);
                if filters {
                    item.deadband = None;
                }
                // Its first value may have been faster than the answer.
                if item.state == State::Wanted {
                    item.state = State::Waiting;
                }
            }
            Made::NoRoom => item.state = State::Polled,
            Made::Refused(status) => {
                item.refuse(now);
                out.push(Reading::bad(point.id, Cause::Status(status.bits()), wall_clock_ms()));
            }
        }
    }

    /// How often a point is read when it is read in turn.
    pub(super) fn interval(&self, point: &UaPoint) -> Duration {
        match point.mode {
            Mode::Poll { interval } => interval,
            // As fresh as the subscription would have had it.
            Mode::Subscribe { sampling, .. } => sampling.max(self.publishing),
        }
    }

    /// Points that are refused and to be asked for again.
    pub(super) fn refused_until(&self, now: Instant) -> Vec<usize> {
        let due = |i: &Item| matches!(i.state, State::Refused { again } if again <= now);
        self.items.iter().enumerate().filter(|(_, i)| due(i)).map(|(n, _)| n).collect()
    }

    /// Points that are subscribed to and have said nothing yet.
    pub(super) fn waiting(&self) -> Vec<usize> {
        self.items.iter().enumerate().filter(|(_, i)| i.state == State::Waiting).map(|(n, _)| n).collect()
    }
}
