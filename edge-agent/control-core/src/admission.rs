//! Orders at the door and at the end: which are taken, which bay each is promised, when each has ended.
//!
//! An order that ends in the rack leaves the door with its bay promised; without a free bay it is refused. The promise is
//! what keeps the floor from locking (see [`crate::dispatch`]).

use crate::cycle::{Controller, Request};
use crate::dispatch::{self, Leg};
use crate::event::{EventKind, Events, OrderFault, RunState};
use crate::layout::Place;
use crate::limits::{MACHINES_MAX, REQUESTS_PER_CYCLE};
use crate::order::{Order, OrderKind, OrderRequest};
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId};

impl Controller {
    pub(crate) fn intake(&mut self, now: Millis, requests: &[Request], events: &mut Events) {
        for request in requests.iter().take(REQUESTS_PER_CYCLE) {
            match request {
                Request::Order(request) => self.accept(now, *request, events),
                Request::Acknowledge => {
                    for machine in &mut self.machines {
                        machine.needs_acknowledge &= !machine.was_auto;
                    }
                }
                Request::Drain => self.draining = true,
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

    /// Checks an order and enters it. An order that ends in the rack leaves here with a bay promised.
    pub(crate) fn admit(&mut self, now: Millis, request: OrderRequest) -> Result<Order, OrderFault> {
        if self.draining {
            return Err(OrderFault::Draining);
        }
        if !matches!(self.run, RunState::Running | RunState::Degraded) {
            return Err(OrderFault::NotReady);
        }
        if self.orders.by_id(request.id).is_some() {
            return Err(OrderFault::DuplicateId);
        }
        if self.orders.is_full() {
            return Err(OrderFault::TableFull);
        }
        if let Some(other) = self.orders.by_load(request.load) {
            // A load that was adopted because nobody had asked for it follows the one who asks now, where it fits.
            let adopted = other.request.id.0 & crate::order::ADOPTED != 0;
            if !(adopted && request.kind == OrderKind::Store && !other.started) {
                return Err(OrderFault::LoadBusy);
            }
            let old = other.request.id;
            self.drop_order(old);
        }
        let mut order = Order::new(request, now);
        order.at = self.stock.find(request.load);
        if order.at.is_none() && request.kind != OrderKind::Store {
            return Err(OrderFault::UnknownLoad);
        }
        if order.needs_home() {
            order.home = Some(self.promise_bay(request.load, order.at).ok_or(OrderFault::RackFull)?);
        }
        self.orders.add(order).map_err(|_| OrderFault::TableFull)?;
        Ok(order)
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
                Some((held(self.layout.shuttle(tier)), busy, tier, nearest))
            })
            .min_by_key(|(held, busy, tier, _)| (*held, *busy, *tier))
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
        self.counters.orders_failed += 1;
        events.push(now, EventKind::OrderFailed(id, why));
        self.drop_order(id);
    }

    /// Ends the orders whose load has arrived, or cannot be brought to its goal any more.
    pub(crate) fn settle(&mut self, now: Millis, events: &mut Events) {
        let mut ended: heapless::Vec<(OrderId, Option<OrderFault>), { MACHINES_MAX * 2 }> = heapless::Vec::new();
        for order in self.orders.iter_mut() {
            let verdict = match order.at {
                Some(here) => {
                    order.missing_since = None;
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
