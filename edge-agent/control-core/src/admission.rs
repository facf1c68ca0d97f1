//! Orders at the door and at the end: which are taken, which bay each is promised, when each has ended.
//!
//! An order that ends in the rack leaves the door with its bay promised; without a free bay it is refused. The promise is
//! what keeps the floor from locking (see [`crate::dispatch`]).

use crate::cycle::{Controller, Request};
use crate::dispatch::{self, Leg};
use crate::event::{EventKind, Events, OrderFault, RunState};
use crate::fleet::locate::Word;
use crate::floor::{Beyond, Floor, MachineKind, Mover, NEVER, ZoneKind};
use crate::image::InputImage;
use crate::limits::{REQUESTS_PER_CYCLE, SETTLE_PER_CYCLE};
use crate::order::{FOUND, Goal, Order, OrderRequest, Stop, Stops};
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId, StationId, ZoneId};

impl Controller<'_> {
    pub(crate) fn intake(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        requests: &[Request],
        events: &mut Events,
    ) {
        for request in requests.iter().take(REQUESTS_PER_CYCLE) {
            match *request {
                Request::Order(request) => self.accept(now, floor, request, events),
                Request::Withdraw(id) => {
                    self.with_order(id, |o| o.withdrawn = true);
                    self.sequence.look_again();
                }
                Request::WithdrawNow(id) => {
                    if let Some(slot) = self.with_order(id, |o| o.withdrawn = true) {
                        self.fail(now, floor, slot, OrderFault::Withdrawn, events);
                    }
                }
                Request::Reclass(id, class) => {
                    self.with_order(id, |o| o.request.class = class.min(3));
                }
                Request::Decide(id, what) => self.decide(now, floor, id, what, events),
                Request::Acknowledge(id) => self.acknowledge(now, image, id, events),
                Request::AcknowledgeAll => self.acknowledge_all(),
                Request::Absent(id) => self.fleet.set_word(id, Word::Absent),
                Request::TakenOff(id) => self.fleet.set_word(id, Word::TakenOff),
                Request::Located(id) => self.fleet.set_word(id, Word::Located),
                Request::Drain => self.draining = true,
            }
        }
        self.acknowledge_some(now, image, events);
    }

    fn accept(&mut self, now: Millis, floor: &Floor<'_>, request: OrderRequest, events: &mut Events) {
        match self.admit(now, floor, request) {
            Ok(()) => {
                self.counters.orders_accepted += 1;
                events.push(now, EventKind::OrderAccepted(request.id, request.load));
            }
            Err(why) => {
                self.counters.orders_rejected += 1;
                events.push(now, EventKind::OrderRejected(request.id, why));
            }
        }
    }

    /// Checks an order and enters it.
    fn admit(&mut self, now: Millis, floor: &Floor<'_>, request: OrderRequest) -> Result<(), OrderFault> {
        if self.draining {
            return Err(OrderFault::Draining);
        }
        if !matches!(self.run, RunState::Running | RunState::Degraded) {
            return Err(OrderFault::NotReady);
        }
        let (mut same_id, mut of_tenant) = (false, 0usize);
        for (_, other) in self.orders.iter() {
            same_id |= other.request.id == request.id;
            of_tenant += usize::from(other.request.tenant == request.tenant);
        }
        if same_id {
            return Err(OrderFault::DuplicateId);
        }
        if of_tenant * 100 >= self.orders.capacity() * usize::from(self.settings.tenant_percent) {
            return Err(OrderFault::TenantFull);
        }
        let has_station = |group| floor.stations().any(|(_, s)| s.group == group);
        if request.stops.iter().any(|s| matches!(s, Stop::Station { group, .. } if !has_station(group))) {
            return Err(OrderFault::NoStation);
        }
        let only_stored = request.stops == Stops::STORE;
        if let Some(slot) = self.stock.loads.order(request.load) {
            // A load that was found, nobody having asked for it, follows the one who asks now, where it fits.
            let other = self.orders.slot(slot).copied();
            let gives_way = other.is_some_and(|o| o.request.id.0 & FOUND != 0 && !o.started);
            if !(gives_way && only_stored) {
                return Err(OrderFault::LoadBusy);
            }
            self.counters.orders_withdrawn += 1;
            self.drop_order(floor, slot);
        }
        let at = self.stock.find(request.load);
        match at {
            _ if only_stored => {}
            // What is announced and still to come may be sent anywhere; what is inside has to stand in a bay.
            None if request.wait_ms > 0 => {}
            None => return Err(OrderFault::UnknownLoad),
            Some(pos) if !floor.is_bay(pos) => return Err(OrderFault::NotInBay),
            Some(_) => {}
        }
        self.enter_order(now, floor, request, at)
    }

    /// Enters an order. One that ends in the rack has a bay promised then.
    fn enter_order(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        request: OrderRequest,
        at: Option<PosId>,
    ) -> Result<(), OrderFault> {
        if self.orders.is_full() {
            return Err(OrderFault::TableFull);
        }
        let mut order = Order::new(request, now);
        order.at = at;
        if order.needs_home() {
            order.home = Some(self.promise_bay(floor, request.load, at).ok_or(OrderFault::RackFull)?);
        }
        self.orders.add(floor, &mut self.stock.loads, order).ok_or(OrderFault::TableFull)?;
        self.sequence.look_again();
        Ok(())
    }

    /// Makes an order for a load that stands in the way without one: into a bay, or out of the plant when none is free.
    pub(crate) fn put_away(&mut self, now: Millis, floor: &Floor<'_>, load: LoadId, pos: PosId, events: &mut Events) {
        let id = OrderId(FOUND | self.found);
        let store = OrderRequest::new(id, load, Stops::STORE);
        let mut entered = self.enter_order(now, floor, store, Some(pos));
        if entered == Err(OrderFault::RackFull) && self.takes_over_a_bay(now, floor, pos, events) {
            entered = self.enter_order(now, floor, store, Some(pos));
        }
        let leaves = entered == Err(OrderFault::RackFull);
        if leaves {
            let retrieve = OrderRequest { stops: Stops::RETRIEVE, ..store };
            entered = self.enter_order(now, floor, retrieve, Some(pos));
        }
        if entered.is_ok() {
            self.found = self.found.wrapping_add(1) & !FOUND;
            self.counters.orders_accepted += 1;
            events.push(now, EventKind::OrderFound { id, load, leaves });
        }
    }

    /// Whether a load on a belt is nearer to the outside than to the rack; `None` where it is on none.
    fn goes_out(floor: &Floor<'_>, pos: PosId) -> Option<bool> {
        let (zone, info) = floor.zone_of(pos)?;
        if floor.tables().exits.is_empty() {
            return None;
        }
        let out = floor.exits(zone).first().map_or(NEVER, |exit| floor.hops(zone, *exit));
        let shorter = out < floor.legs_to_bays(zone);
        (info.kind == ZoneKind::Lane && info.tier.is_none()).then_some(shorter)
    }

    /// A load on its way in that nobody has asked for, and for which no bay is left, gets that of one on its way out. They could wait for
    /// each other at the foot of a lift. Rather one that nobody has asked for either, which leaves instead; else an order is given up.
    fn takes_over_a_bay(&mut self, now: Millis, floor: &Floor<'_>, pos: PosId, events: &mut Events) -> bool {
        if Self::goes_out(floor, pos) != Some(false) {
            return false;
        }
        let goes_out = |o: &Order| o.at.and_then(|p| Self::goes_out(floor, p)) == Some(true);
        let stands = |o: &Order| !o.under_way && !o.is_in_doubt();
        let may_give = self.orders.iter().filter(|(_, o)| o.home.is_some() && stands(o) && goes_out(o));
        let is_asked_for = |o: &Order| o.request.id.0 & FOUND == 0;
        let Some((slot, asked)) = may_give.map(|(s, o)| (s, is_asked_for(o))).min_by_key(|(s, asked)| (*asked, *s))
        else {
            return false;
        };
        if asked {
            self.fail(now, floor, slot, OrderFault::RackFull, events);
        } else if let Some(order) = self.orders.slot(slot).copied() {
            if let Some(home) = order.home {
                self.stock.release(floor, home, order.request.load);
            }
            if let Some(order) = self.orders.slot_mut(slot) {
                (order.home, order.request.stops) = (None, Stops::RETRIEVE);
            }
        }
        true
    }

    /// One load a cycle that shall leave because there was no bay for it, and has not got away from the foot of a lift for long, is put
    /// away after all: into a bay that is free now, or that of one on its way out.
    fn turn_back_one(&mut self, now: Millis, floor: &Floor<'_>, events: &mut Events) {
        let waits = |o: &Order| {
            let leaves = o.request.id.0 & FOUND != 0 && o.request.stops == Stops::RETRIEVE && !o.under_way;
            leaves && o.at.and_then(|p| Self::goes_out(floor, p)) == Some(false)
        };
        let found = self.orders.iter().filter(|(_, o)| waits(o)).min_by_key(|(_, o)| o.homeless_since);
        let Some((slot, order)) = found.map(|(s, o)| (s, *o)) else { return };
        let since = order.homeless_since.unwrap_or(now);
        let load = order.request.load;
        let (mut bay, tried) = (None, now.since(since) > self.settings.missing_ms);
        if tried {
            bay = self.promise_bay(floor, load, order.at);
            if bay.is_none() && order.at.is_some_and(|pos| self.takes_over_a_bay(now, floor, pos, events)) {
                bay = self.promise_bay(floor, load, order.at);
            }
        }
        if let Some(order) = self.orders.slot_mut(slot) {
            order.homeless_since = (bay.is_none()).then_some(if tried { now } else { since });
            if bay.is_some() {
                (order.home, order.request.stops) = (bay, Stops::STORE);
            }
        }
    }

    fn with_order(&mut self, id: OrderId, change: impl FnOnce(&mut Order)) -> Option<u16> {
        let (slot, _) = self.orders.iter().find(|(_, o)| o.request.id == id)?;
        self.orders.slot_mut(slot).map(change);
        Some(slot)
    }

    /// One order a cycle that has lost its bay, to a person or to a restart, is promised another. If there is none for long,
    /// and its load stands in the way, the order is given up; the load is then found, and leaves the plant.
    pub(crate) fn rehome_one(&mut self, now: Millis, floor: &Floor<'_>, events: &mut Events) {
        let homeless = |o: &Order| o.needs_home() && o.home.is_none() && o.at.is_some();
        let found = self.orders.iter().filter(|(_, o)| homeless(o)).min_by_key(|(_, o)| o.retry_at);
        let Some((slot, order)) = found.map(|(s, o)| (s, *o)) else {
            return self.turn_back_one(now, floor, events);
        };
        let since = order.homeless_since.unwrap_or(now);
        let bay = self.promise_bay(floor, order.request.load, order.at);
        let in_bay = order.at.is_some_and(|p| floor.is_bay(p));
        if let Some(order) = self.orders.slot_mut(slot) {
            (order.home, order.homeless_since) = (bay, if bay.is_some() { None } else { Some(since) });
            order.retry_at = now.plus(1); // the others have their turn first
        }
        if bay.is_none() && !in_bay && !order.is_in_doubt() && now.since(since) > self.settings.missing_ms {
            self.fail(now, floor, slot, OrderFault::RackFull, events);
        }
    }

    /// Zones have been closed or opened: bays promised in those that are closed are promised elsewhere, stations chosen anew.
    pub(crate) fn look_at_closings(&mut self, floor: &Floor<'_>) {
        for slot in 0..self.orders.capacity() as u16 {
            let Some(order) = self.orders.slot(slot).copied() else { continue };
            let closed = |pos: PosId| floor.zone_of(pos).is_some_and(|(id, _)| floor.is_closed(id));
            // What stands in a closed tier, on its shuttle or before it stays with it; all else goes elsewhere.
            let home = order.home.filter(|h| closed(*h));
            let own = order.at.and_then(|p| self.own_tier(floor, p));
            if let Some(home) = home
                && own != floor.zone_of(home).map(|(id, _)| id)
            {
                self.stock.release(floor, home, order.request.load);
                if let Some(order) = self.orders.slot_mut(slot) {
                    order.home = None;
                }
            }
            let shut = order.station.and_then(|s| floor.station(s)).is_some_and(|s| floor.is_closed(s.input));
            if shut && let Some(order) = self.orders.slot_mut(slot) {
                order.station = None;
            }
        }
    }

    /// Promises a bay to a load: its own if it stands in one, else the nearest free bay of the tier with the fewest
    /// promises among the tiers whose shuttle may be commanded (any tier if none may).
    pub(crate) fn promise_bay(&mut self, floor: &Floor<'_>, load: LoadId, at: Option<PosId>) -> Option<PosId> {
        if let Some(here) = at
            && floor.is_bay(here)
            && self.stock.free_for(floor, here, load)
        {
            self.stock.promise(floor, here, load);
            return Some(here);
        }
        // What stands on a lane into a tier or on a shuttle belongs to that tier, if there is any bay for it.
        let own = at.and_then(|p| self.own_tier(floor, p));
        let from = at.and_then(|p| floor.zone_of(p)).map(|(id, _)| id);
        let tier = floor
            .zone_ids()
            .filter(|(id, zone)| zone.kind == ZoneKind::Bays && self.has_room(*id, zone))
            .filter(|(id, _)| from.is_none_or(|f| floor.hops(f, *id) < crate::floor::NEVER))
            .min_by_key(|(id, zone)| {
                let elsewhere = own.is_some_and(|o| o != *id);
                let legs = from.map_or(0, |f| floor.hops(f, *id));
                let held = self.keeper(floor, *id).is_none_or(|m| self.hold(m).is_some());
                // Where nobody is, what comes has to find room on the lane.
                let shut = held && self.lane_is_full(floor, *id, load);
                let unknown = !self.is_known(zone.domain);
                (elsewhere, unknown, shut, held, legs, self.stock.promised(*id), *id)
            })
            .map(|(id, _)| id)?;
        let bay = self.nearest_bay(floor, tier, load)?;
        self.stock.promise(floor, bay, load);
        Some(bay)
    }

    /// Whether shuttles come to a tier and its lane from the lifts has no place for one more.
    fn lane_is_full(&self, floor: &Floor<'_>, tier: ZoneId, load: LoadId) -> bool {
        let rack = Controller::rack_of_tier(floor, tier);
        let lane = rack.and_then(|rack| floor.tier(rack, tier)).and_then(|t| floor.zone(t.lane_in));
        lane.is_some_and(|lane| !self.stock.free_for(floor, lane.entry(), load))
    }

    /// Whether a tier is open and has a bay for one more. Where bays are double-deep one is kept, to put things that stand in the way.
    fn has_room(&self, id: ZoneId, zone: &crate::floor::Zone) -> bool {
        !zone.closed && self.stock.free(id, zone) > u16::from(zone.deep)
    }

    /// The machine that takes loads from the bays of a tier; where shuttles change tier the one that is there.
    pub(crate) fn keeper(&self, floor: &Floor<'_>, tier: ZoneId) -> Option<MachineId> {
        floor.links(tier).iter().find_map(|link| match link.by {
            Mover::Machine(m) => Some(m),
            Mover::Shuttles(rack) => {
                let there = |s: &MachineId| self.stock.tier(floor, *s).is_some_and(|t| t.bays == tier);
                floor.rack(rack)?.shuttles().find(there)
            }
            Mover::Robots => None,
        })
    }

    /// The tier a load belongs to that stands here: before its bays, or on its shuttle.
    fn own_tier(&self, floor: &Floor<'_>, pos: PosId) -> Option<ZoneId> {
        let (id, zone) = floor.zone_of(pos)?;
        match zone.kind {
            ZoneKind::Deck(machine) => match Controller::kind(floor, machine)? {
                MachineKind::Shuttle { rack: Some(_) } => self.stock.tier(floor, machine).map(|t| t.bays),
                MachineKind::Shuttle { rack: None } => {
                    let is_tier = |z: &ZoneId| floor.zone(*z).is_some_and(|z| z.kind == ZoneKind::Bays);
                    floor.sources(machine).iter().copied().find(is_tier)
                }
                _ => None,
            },
            ZoneKind::Bays => Some(id),
            ZoneKind::Lane => zone.tier,
        }
    }

    /// The free bay of a tier that is nearest to the lift. In a double-deep rack none behind something, and none before an empty one.
    pub(crate) fn nearest_bay(&self, floor: &Floor<'_>, tier: ZoneId, load: LoadId) -> Option<PosId> {
        let zone = floor.zone(tier)?;
        let free = |pos: PosId| self.stock.at(pos).is_none() && self.stock.free_for(floor, pos, load);
        zone.positions()
            .filter(|bay| free(*bay))
            .filter(|bay| {
                let Some(p) = floor.position(*bay) else { return false };
                p.front.is_none_or(free) && p.behind.is_none_or(|b| self.stock.at(b).is_some())
            })
            .min_by_key(|bay| (floor.position(*bay).map_or(u32::MAX, |p| p.along_mm), *bay))
    }

    /// The station of a group with the fewest loads on their way to it, among those that can be commanded.
    pub(crate) fn choose_station(&self, floor: &Floor<'_>, from: ZoneId, group: u8) -> Option<StationId> {
        floor
            .stations()
            .filter(|(_, s)| s.group == group && floor.hops(from, s.input) < crate::floor::NEVER)
            .filter(|(_, s)| !floor.is_closed(s.input))
            .min_by_key(|(id, s)| {
                let coming = self.orders.iter().filter(|(_, o)| o.station == Some(*id)).count();
                (self.hold(s.machine).is_some(), coming, *id)
            })
            .map(|(id, _)| id)
    }

    /// Takes an order out of the tables. What a machine is doing for it is brought to its end.
    pub(crate) fn drop_order(&mut self, floor: &Floor<'_>, slot: u16) {
        if let Some(order) = self.orders.remove(&mut self.stock.loads, slot)
            && let Some(home) = order.home
        {
            self.stock.release(floor, home, order.request.load);
        }
        self.sequence.look_again();
    }

    pub(crate) fn complete(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, events: &mut Events) {
        let Some(id) = self.orders.slot(slot).map(|o| o.request.id) else { return };
        self.counters.orders_completed += 1;
        events.push(now, EventKind::OrderCompleted(id));
        self.drop_order(floor, slot);
    }

    pub(crate) fn fail(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, why: OrderFault, events: &mut Events) {
        let Some(id) = self.orders.slot(slot).map(|o| o.request.id) else { return };
        match why {
            OrderFault::Withdrawn => self.counters.orders_withdrawn += 1,
            _ => self.counters.orders_failed += 1,
        }
        events.push(now, EventKind::OrderFailed(id, why));
        self.drop_order(floor, slot);
    }

    /// Ends the orders whose load has arrived, or cannot be brought to its goal any more; chooses stations. Some orders a cycle,
    /// all in turn.
    pub(crate) fn settle(&mut self, now: Millis, floor: &Floor<'_>, events: &mut Events) {
        let count = self.orders.capacity();
        for _ in 0..SETTLE_PER_CYCLE.min(count) {
            self.settled = if usize::from(self.settled) + 1 < count { self.settled + 1 } else { 0 };
            self.settle_one(now, floor, self.settled, events);
        }
    }

    /// Looks whether an order has made its stop, or has ended.
    pub(crate) fn settle_one(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, events: &mut Events) {
        let in_doubt = self.orders.slot(slot).is_some_and(Order::is_in_doubt);
        if in_doubt && !self.is_resolved(now, floor, slot, events) {
            return;
        }
        let Some(order) = self.orders.slot(slot).copied() else { return };
        match self.verdict(now, floor, slot, &order) {
            Verdict::Goes => self.dig(now, floor, &order, events),
            Verdict::Stopped => self.next_stop(now, floor, slot, events),
            Verdict::Failed(why) => self.fail(now, floor, slot, why, events),
        }
    }

    /// The same for the order of a load that has just been moved.
    pub(crate) fn settle_load(&mut self, now: Millis, floor: &Floor<'_>, load: LoadId, events: &mut Events) {
        if let Some(slot) = self.stock.loads.order(load) {
            self.settle_one(now, floor, slot, events);
        }
    }

    /// A stop has been made: the next one, or the end.
    pub(crate) fn next_stop(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, events: &mut Events) {
        let Some(order) = self.orders.slot_mut(slot) else { return };
        if order.aside.take().is_some() {
            return; // only out of the way
        }
        order.stop += 1;
        order.station = None;
        if order.next_stop().is_none() {
            return self.complete(now, floor, slot, events);
        }
        events.push(now, EventKind::StopMade(order.request.id, order.stop));
    }

    /// What stands before a bay where something has to come out is put aside, if it does not go by itself; a bay behind something
    /// is no home any more.
    fn dig(&mut self, now: Millis, floor: &Floor<'_>, order: &Order, events: &mut Events) {
        if order.under_way || order.withdrawn {
            return;
        }
        let load = order.request.load;
        // It may have come in where its bay cannot be reached from.
        let zone_of = |pos: PosId| floor.zone_of(pos).map(|(id, _)| id);
        let here = order.at.and_then(zone_of);
        let is_away =
            |home: PosId| here.zip(zone_of(home)).is_some_and(|(from, to)| floor.hops(from, to) == crate::floor::NEVER);
        if order.at != order.home
            && let Some(home) = order.home.filter(|h| dispatch::is_blocked(floor, &self.stock, *h) || is_away(*h))
        {
            self.stock.release(floor, home, load);
            if let Some(order) = self.orders.by_load(&self.stock.loads, load) {
                (order.home, order.retry_at) = (None, now);
            }
        }
        let Some((zone, info)) = order.at.and_then(|p| floor.zone_of(p)) else { return };
        let front = order.at.and_then(|p| floor.position(p)).and_then(|p| p.front);
        let Some((front, stands)) = front.and_then(|f| Some((f, self.stock.at(f)?))) else { return };
        let comes = || Controller::rack_of_tier(floor, zone).and_then(|rack| rack.shuttles().next());
        let Some(keeper) = self.keeper(floor, zone).or_else(comes) else { return };
        if self.draining || !self.in_turn(floor, keeper, info.kind, zone, order) {
            return;
        }
        let other = self.stock.loads.order(stands).and_then(|s| self.orders.slot(s)).copied();
        match other {
            None => self.put_aside(now, floor, stands, front, events),
            Some(o) if o.under_way => {}
            Some(o) => {
                // It goes by itself, unless its turn comes later than this one's.
                let goes = self.in_turn(floor, keeper, info.kind, zone, &o) && o.goal() != Goal::Home(front);
                let bay = self.nearest_bay(floor, zone, stands);
                let blocked = o.aside.is_some_and(|a| !self.stock.free_for(floor, a, stands));
                if let Some(order) = self.orders.by_load(&self.stock.loads, stands)
                    && (blocked || (!goes && order.aside.is_none()))
                {
                    order.aside = bay;
                }
            }
        }
    }

    /// An order for a load that stands before another: into another bay, of its tier if there is one.
    fn put_aside(&mut self, now: Millis, floor: &Floor<'_>, load: LoadId, at: PosId, events: &mut Events) {
        let Some((tier, _)) = floor.zone_of(at) else { return };
        let bay = self.nearest_bay(floor, tier, load);
        let id = OrderId(FOUND | self.found);
        let leaves = bay.is_none();
        let stops = if leaves { Stops::RETRIEVE } else { Stops::STORE };
        let mut order = Order::new(OrderRequest::new(id, load, stops), now);
        (order.at, order.home) = (Some(at), bay);
        if self.orders.add(floor, &mut self.stock.loads, order).is_none() {
            return;
        }
        if let Some(bay) = bay {
            self.stock.promise(floor, bay, load);
        }
        self.found = self.found.wrapping_add(1) & !FOUND;
        self.counters.orders_accepted += 1;
        events.push(now, EventKind::OrderFound { id, load, leaves });
    }

    fn verdict(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, order: &Order) -> Verdict {
        if order.withdrawn && !order.under_way {
            return Verdict::Failed(OrderFault::Withdrawn);
        }
        let Some(here) = order.at else {
            if order.waits() {
                let over = order.accepted_at.age(now) >= u64::from(order.request.wait_ms);
                return if over { Verdict::Failed(OrderFault::NeverArrived) } else { Verdict::Goes };
            }
            let since = order.missing_since.unwrap_or(now);
            if let Some(order) = self.orders.slot_mut(slot) {
                order.missing_since = Some(since);
            }
            let over = now.since(since) >= self.settings.missing_ms;
            return if over { Verdict::Failed(OrderFault::LoadMissing) } else { Verdict::Goes };
        };
        let Some((zone, info)) = floor.zone_of(here) else { return Verdict::Goes };
        if let Some(Stop::Station { group, .. }) = order.next_stop() {
            // What stands on the lane behind its station has been through it, whether or not we heard the station say so;
            // sent there again, it would wait for a place that waits for it.
            let behind = order.station.and_then(|s| floor.station(s)).is_some_and(|s| s.output == zone);
            if behind && !order.under_way {
                return Verdict::Stopped;
            }
            if order.station.is_none() {
                let chosen = self.choose_station(floor, zone, group);
                if let Some(order) = self.orders.slot_mut(slot) {
                    order.station = chosen;
                }
            }
        }
        if let Some(order) = self.orders.slot_mut(slot) {
            order.missing_since = None;
        }
        let leaving = info.beyond == Beyond::Departures;
        match dispatch::next_leg(floor, &self.stock, order.request.load, here, order.goal()) {
            Leg::Arrived if leaving && order.under_way => Verdict::Goes,
            Leg::Arrived => Verdict::Stopped,
            Leg::Gone => Verdict::Failed(OrderFault::LeftPlant),
            Leg::Carry { .. } | Leg::Wait => Verdict::Goes,
        }
    }
}

/// What is to be done with an order.
enum Verdict {
    Goes,
    Stopped,
    Failed(OrderFault),
}
