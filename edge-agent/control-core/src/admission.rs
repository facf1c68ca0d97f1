//! Orders at the door and at the end: which are taken, which bay each is promised, when each has ended.
//!
//! An order that ends in the rack leaves the door with its bay promised; without a free bay it is refused. The promise is
//! what keeps the floor from locking (see [`crate::dispatch`]).

use crate::cycle::{Controller, Request};
use crate::dispatch::{self, Leg};
use crate::event::{EventKind, Events, OrderFault, RunState};
use crate::image::InputImage;
use crate::layout::{Conveyor, MachineKind, Place};
use crate::limits::{MACHINES_MAX, REQUESTS_PER_CYCLE};
use crate::order::{ADOPTED, Order, OrderKind, OrderRequest};
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId};

impl Controller {
    pub(crate) fn intake(&mut self, now: Millis, image: &InputImage, requests: &[Request], events: &mut Events) {
        for request in requests.iter().take(REQUESTS_PER_CYCLE) {
            match request {
                Request::Order(request) => self.accept(now, *request, events),
                Request::Withdraw(id) => self.with_order(*id, |o| o.withdrawn = true),
                Request::Reclass(id, class) => self.with_order(*id, |o| o.request.class = (*class).min(3)),
                Request::Acknowledge => self.acknowledge(now, image),
                Request::Drain => self.draining = true,
            }
        }
    }

    fn with_order(&mut self, id: OrderId, change: impl FnOnce(&mut Order)) {
        if let Some(order) = self.orders.iter_mut().find(|o| o.request.id == id) {
            change(order);
        }
    }

    /// Only for machines that are seen to be back in AUTO.
    fn acknowledge(&mut self, now: Millis, image: &InputImage) {
        for (n, machine) in (0u8..).zip(&mut self.machines) {
            let seen = image.machine(MachineId(n));
            if let Some(status) = seen.fresh(now, self.settings.stale_ms)
                && machine.was_auto
            {
                machine.needs_acknowledge = false;
                machine.acknowledged = status.auto_exits;
            }
        }
    }

    fn accept(&mut self, now: Millis, request: OrderRequest, events: &mut Events) {
        match self.admit(now, request) {
            Ok(order) => {
                self.counters.orders_accepted += 1;
                let load = order.request.load;
                events.push(now, EventKind::OrderAccepted(order.request.id, load));
            }
            Err(why) => {
                self.counters.orders_rejected += 1;
                events.push(now, EventKind::OrderRejected(request.id, why));
            }
        }
    }

    /// Checks an order and enters it.
    fn admit(&mut self, now: Millis, request: OrderRequest) -> Result<Order, OrderFault> {
        if self.draining {
            return Err(OrderFault::Draining);
        }
        if !matches!(self.run, RunState::Running | RunState::Degraded) {
            return Err(OrderFault::NotReady);
        }
        if self.orders.by_id(request.id).is_some() {
            return Err(OrderFault::DuplicateId);
        }
        if let Some(other) = self.orders.by_load(request.load) {
            // A load that was adopted because nobody had asked for it follows the one who asks now, where it fits.
            let adopted = other.request.id.0 & ADOPTED != 0;
            if !(adopted && request.kind == OrderKind::Store && !other.started) {
                return Err(OrderFault::LoadBusy);
            }
            let old = other.request.id;
            self.drop_order(old);
        }
        let at = self.stock.find(request.load);
        let in_bay = at.is_some_and(|p| matches!(self.layout.place(p), Some(Place::Bay { .. })));
        match request.kind {
            OrderKind::Store => {}
            _ if at.is_none() => return Err(OrderFault::UnknownLoad),
            _ if !in_bay => return Err(OrderFault::NotInBay),
            _ => {}
        }
        self.enter_order(now, request, at)
    }

    /// Enters an order. One that ends in the rack has a bay promised then.
    fn enter_order(&mut self, now: Millis, request: OrderRequest, at: Option<PosId>) -> Result<Order, OrderFault> {
        if self.orders.is_full() {
            return Err(OrderFault::TableFull);
        }
        let mut order = Order::new(request, now);
        order.at = at;
        if order.needs_home() {
            order.home = Some(self.promise_bay(request.load, order.at).ok_or(OrderFault::RackFull)?);
        }
        self.orders.add(order).map_err(|_| OrderFault::TableFull)?;
        Ok(order)
    }

    /// Makes an order for a load that stands in the way without one: into a bay, or out of the plant when none is free.
    pub(crate) fn adopt(&mut self, now: Millis, load: LoadId, pos: PosId, events: &mut Events) {
        let id = OrderId(ADOPTED | self.adopted);
        let mut request = OrderRequest { id, kind: OrderKind::Store, load, class: 1, wait_ms: 0 };
        let mut entered = self.enter_order(now, request, Some(pos));
        if entered.is_err_and(|why| why == OrderFault::RackFull) {
            request.kind = OrderKind::Retrieve;
            entered = self.enter_order(now, request, Some(pos));
        }
        if entered.is_ok() {
            self.adopted = self.adopted.wrapping_add(1) & !ADOPTED;
            self.counters.orders_accepted += 1;
            events.push(now, EventKind::OrderAdopted(id, load, request.kind));
        }
    }

    /// One order a cycle that has lost its bay, to a person or to a restart, is promised another. If there is none for long,
    /// and its load stands in the way, the order is given up; the load is then adopted, and leaves the plant.
    pub(crate) fn rehome_one(&mut self, now: Millis, events: &mut Events) {
        let homeless = |o: &&mut Order| o.needs_home() && o.home.is_none() && o.at.is_some();
        let Some(order) = self.orders.iter_mut().filter(homeless).min_by_key(|o| o.retry_at) else { return };
        let (id, load, at) = (order.request.id, order.request.load, order.at);
        let since = *order.homeless_since.get_or_insert(now);
        order.retry_at = now.plus(1); // the others have their turn first
        let found = self.promise_bay(load, at);
        let in_bay = at.is_some_and(|p| matches!(self.layout.place(p), Some(Place::Bay { .. })));
        if let (Some(bay), Some(order)) = (found, self.orders.by_load(load)) {
            (order.home, order.homeless_since) = (Some(bay), None);
        } else if !in_bay && now.since(since) > self.settings.missing_ms {
            self.fail(now, id, OrderFault::RackFull, events);
        }
    }

    /// Promises a bay to a load: its own if it stands in one, else the nearest free bay of the tier with the fewest
    /// promises among the tiers whose shuttle may be commanded (any tier if none may).
    pub(crate) fn promise_bay(&mut self, load: LoadId, at: Option<PosId>) -> Option<PosId> {
        if let Some(here) = at
            && matches!(self.layout.place(here), Some(Place::Bay { .. }))
            && self.stock.free_for(here, load)
        {
            self.stock.reserve(here, load);
            return Some(here);
        }
        // What stands on a transfer-in point or a shuttle belongs to that tier, if there is any bay for it.
        let own_tier = at.and_then(|p| match self.layout.place(p)? {
            Place::TransferIn(tier) => Some(tier),
            Place::Deck(machine) => match self.layout.kind(machine)? {
                MachineKind::Shuttle(tier) => Some(tier),
                _ => None,
            },
            _ => None,
        });
        let tier_of = |o: &Order| o.home.and_then(|h| self.layout.tier(h));
        let held = |m: MachineId| self.hold(m).is_some();
        let bay = (0..self.layout.tiers())
            .map(crate::units::Tier)
            .filter_map(|tier| {
                let busy = self.orders.iter().filter(|o| tier_of(o) == Some(tier)).count();
                let door = self.layout.pos(Place::TransferIn(tier));
                let nearest = self
                    .layout
                    .bays(tier)
                    .filter(|bay| self.stock.free_for(*bay, load) && self.stock.at(*bay).is_none())
                    .min_by_key(|bay| (self.layout.steps(self.layout.shuttle(tier), door, *bay), *bay))?;
                let elsewhere = own_tier.is_some_and(|own| own != tier);
                Some((elsewhere, held(self.layout.shuttle(tier)), busy, tier, nearest))
            })
            .min_by_key(|(elsewhere, held, busy, tier, _)| (*elsewhere, *held, *busy, *tier))
            .map(|(.., nearest)| nearest)?;
        self.stock.reserve(bay, load);
        Some(bay)
    }

    /// Takes an order out of the tables. What a machine is doing for it is brought to its end.
    fn drop_order(&mut self, id: OrderId) {
        if let Some(order) = self.orders.remove(id)
            && let Some(home) = order.home
        {
            self.stock.release(home, order.request.load);
        }
    }

    pub(crate) fn complete(&mut self, now: Millis, id: OrderId, events: &mut Events) {
        self.counters.orders_completed += 1;
        events.push(now, EventKind::OrderCompleted(id));
        self.drop_order(id);
    }

    pub(crate) fn fail(&mut self, now: Millis, id: OrderId, why: OrderFault, events: &mut Events) {
        self.counters.orders_failed += u64::from(why != OrderFault::Withdrawn);
        events.push(now, EventKind::OrderFailed(id, why));
        self.drop_order(id);
    }

    /// Ends the orders whose load has arrived, or cannot be brought to its goal any more.
    pub(crate) fn settle(&mut self, now: Millis, events: &mut Events) {
        let mut ended: heapless::Vec<(OrderId, Option<OrderFault>), { MACHINES_MAX * 2 }> = heapless::Vec::new();
        for order in self.orders.iter_mut() {
            let carried = || self.machines.iter().any(|m| m.task.is_some_and(|t| t.load == order.request.load));
            let verdict = match order.at {
                _ if order.withdrawn && !carried() => Some(OrderFault::Withdrawn),
                Some(here) => {
                    order.missing_since = None;
                    // What stands on the return conveyor has been through the cell, whether or not we heard the cell say so;
                    // sent there again, it would wait for a place that waits for it.
                    order.processed |= matches!(self.layout.place(here), Some(Place::Belt(Conveyor::Return, _)));
                    match dispatch::next_leg(&self.layout, here, order.goal()) {
                        Leg::Arrived => None,
                        Leg::Gone => Some(OrderFault::LeftPlant),
                        Leg::Carry { .. } | Leg::Wait => continue,
                    }
                }
                None if order.request.kind == OrderKind::Store && !order.started => {
                    if now.since(order.accepted_at) < u64::from(order.request.wait_ms) {
                        continue;
                    }
                    Some(OrderFault::NeverArrived)
                }
                None => {
                    let since = *order.missing_since.get_or_insert(now);
                    if now.since(since) < self.settings.missing_ms {
                        continue;
                    }
                    Some(OrderFault::LoadMissing)
                }
            };
            if ended.push((order.request.id, verdict)).is_err() {
                break; // the rest is looked at in the next cycle
            }
        }
        for (id, verdict) in ended {
            match verdict {
                None => self.complete(now, id, events),
                Some(why) => self.fail(now, id, why, events),
            }
        }
    }
}
