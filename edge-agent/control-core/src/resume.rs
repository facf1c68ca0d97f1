//! Orders that were open when the run before this one ended go on: where each load is, the plant says; what was left to do, the journal.
//!
//! ```text
//!   journal ──Resume──> taken back ──> its load is seen ──┬─ where a leg of it leads ────────> goes on from there
//!                       (in doubt)                        └─ anywhere else, or at two places ──┐
//!                           └──> it is nowhere, though all is read ──┬─ it was leaving ──> done │
//!                                                                    └────────────────────────>├──> held; a person decides
//!                                                   the journal names what is not there ───────┘
//! ```
//!
//! What a journal has to note, so that it can say so:
//!
//! | event | then |
//! |---|---|
//! | `OrderStarted` | `started` |
//! | `LegBegun` | `at` and `to` |
//! | `StopMade` | `stop`; its load is where it was taken: `at` is what `to` was, `to` is nothing |
//! | `LoadFound`, of its load | `at`; `to` is nothing |
//! | `OrderHeld` | `held` |
//! | `OrderReleased` | `at`, not `held`; `to` is nothing |
//!
//! To an order in doubt no machine is put. Its load counts as asked for, so nobody puts it away, and a bay is promised to it. What had not
//! begun has left no trail: it begins wherever its load is seen.

use crate::cycle::Controller;
use crate::event::{EventKind, Events, OrderFault};
use crate::floor::{Beyond, Floor, ZoneKind};
use crate::image::InputImage;
use crate::order::{FOUND, Order, OrderRequest, Stop};
use crate::recover::Domain;
use crate::units::{DomainId, LoadId, MachineId, Millis, OrderId, PosId, Taken, ZoneId};

/// An order as the journal leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// As it was handed in.
    pub request: OrderRequest,
    /// It was taken so long ago, milliseconds: due time and wait count from then.
    pub age_ms: u64,
    /// Stops made.
    pub stop: u8,
    /// A machine had been put to it.
    pub started: bool,
    /// It had been taken back.
    pub withdrawn: bool,
    /// It waited for a person's word; also when the journal names a place that is not there any more.
    pub held: Option<Doubt>,
    /// Where its load was last known to be.
    pub at: Option<PosId>,
    /// Where a machine was taking it when the journal ends.
    pub to: Option<PosId>,
}

/// Why an order is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Its load is where no leg of it leads.
    Elsewhere,
    /// Its load is nowhere.
    Gone,
    /// Its load is seen at two places.
    Twice,
    /// The journal names a place that is not there any more.
    NoSuchPlace,
}

/// What a person says of an order that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It goes on from where its load is seen now.
    GoOn,
    /// It is done.
    Done,
    /// It is given up.
    GiveUp,
}

/// Where the journal leaves the load of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Where it was last known to be.
    pub at: Option<PosId>,
    /// Where a machine was taking it.
    pub to: Option<PosId>,
}

impl Trail {
    fn places(self) -> impl Iterator<Item = PosId> {
        [self.at, self.to].into_iter().flatten()
    }

    fn leads_to(self, floor: &Floor<'_>, here: PosId) -> bool {
        self.places().any(|place| follows(floor, place, here))
    }

    fn leads_out(self, floor: &Floor<'_>) -> bool {
        self.places().any(|p| floor.zone_of(p).is_some_and(|(_, z)| z.beyond == Beyond::Departures))
    }
}

/// Whether a load that was at `place` may be `here` now: there, further along its lane, or with who takes loads from there. More cannot
/// have happened while nobody gave commands.
fn follows(floor: &Floor<'_>, place: PosId, here: PosId) -> bool {
    let (Some((zone, from)), Some((_, to))) = (floor.zone_of(place), floor.zone_of(here)) else { return false };
    match to.kind {
        _ if place == here => true,
        ZoneKind::Lane => from.contains(here) && here.0 > place.0,
        ZoneKind::Deck(machine) => takes_from(floor, machine, zone),
        ZoneKind::Bays => false,
    }
}

fn takes_from(floor: &Floor<'_>, machine: MachineId, zone: ZoneId) -> bool {
    let by = floor.mover(machine);
    floor.links(zone).iter().any(|link| link.by == by) || floor.sources(machine).contains(&zone)
}

impl Controller<'_> {
    /// Takes an order back. Before the first cycle, any number of times; what is said of it follows in `events`, which is not cleared.
    pub fn resume(&mut self, now: Millis, floor: &Floor<'_>, resume: &Resume, events: &mut Events) {
        let OrderRequest { id, load, .. } = resume.request;
        match self.take_back(now, floor, resume) {
            Err(why) => {
                self.counters.orders_failed += 1;
                events.push(now, EventKind::OrderFailed(id, why));
            }
            Ok(slot) => {
                self.counters.orders_accepted += 1;
                events.push(now, EventKind::OrderAdopted(id, load));
                if self.orders.slot(slot).is_some_and(|o| o.next_stop().is_none()) {
                    self.complete(now, floor, slot, events);
                } else if let Some(doubt) = resume.held {
                    self.hold_order(now, slot, doubt, events);
                }
            }
        }
    }

    fn take_back(&mut self, now: Millis, floor: &Floor<'_>, resume: &Resume) -> Result<u16, OrderFault> {
        let request = resume.request;
        if request.id.0 & FOUND != 0 || self.orders.by_id(request.id).is_some() {
            return Err(OrderFault::DuplicateId);
        }
        if self.stock.loads.order(request.load).is_some() {
            return Err(OrderFault::LoadBusy);
        }
        let has_station = |group| floor.stations().any(|(_, s)| s.group == group);
        let mut left = request.stops.iter().skip(usize::from(resume.stop));
        if left.any(|s| matches!(s, Stop::Station { group, .. } if !has_station(group))) {
            return Err(OrderFault::NoStation);
        }
        let order = Order {
            accepted_at: Taken::before(now, resume.age_ms),
            stop: resume.stop,
            started: resume.started,
            withdrawn: resume.withdrawn,
            trail: Some(Trail { at: resume.at, to: resume.to }),
            ..Order::new(request, now)
        };
        self.sequence.look_again();
        self.orders.add(floor, &mut self.stock.loads, order).ok_or(OrderFault::TableFull)
    }

    /// Whether an order in doubt may go on: the plant and the journal agree where its load is.
    pub(crate) fn is_resolved(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, events: &mut Events) -> bool {
        let Some(order) = self.orders.slot(slot).copied() else { return false };
        if order.withdrawn {
            return true;
        }
        let (Some(trail), None) = (order.trail, order.held) else { return false };
        match order.at {
            Some(here) if !order.started || trail.leads_to(floor, here) => self.go_on(floor, slot, here, trail),
            Some(_) => return self.hold_order(now, slot, Doubt::Elsewhere, events),
            None if self.may_yet_be_seen(floor, trail) => return false,
            None if !order.started && order.waits() => {
                if let Some(order) = self.orders.slot_mut(slot) {
                    order.trail = None;
                }
            }
            None => return self.nowhere(now, floor, slot, trail, events),
        }
        true
    }

    /// Its load has been seen: on from there. What stands at a station, or comes from it, is that station's.
    fn go_on(&mut self, floor: &Floor<'_>, slot: u16, here: PosId, trail: Trail) {
        let Some((_, zone)) = floor.zone_of(here) else { return };
        let goes_to = trail.to.and_then(|p| floor.zone_of(p)).map(|(id, _)| id);
        let in_rack = match zone.kind {
            ZoneKind::Bays => true,
            ZoneKind::Lane => zone.tier.is_some() || self.leads_out_of_a_tier(floor, here),
            ZoneKind::Deck(machine) => self.is_shuttle(floor, machine),
        };
        let Some(order) = self.orders.slot_mut(slot) else { return };
        (order.trail, order.missing_since) = (None, None);
        if let Some(Stop::Station { group, .. }) = order.next_stop() {
            let mut stations = floor.stations().filter(|(_, s)| s.group == group);
            let its = stations.find(|(id, s)| zone.feeds == Some(*id) || goes_to == Some(s.output));
            order.station = its.map(|(id, _)| id);
        }
        if order.stop > 0 || !in_rack {
            order.request.sequence = None; // it has left the rack
        }
        self.sequence.look_again();
    }

    fn is_shuttle(&self, floor: &Floor<'_>, machine: MachineId) -> bool {
        matches!(Self::kind(floor, machine), Some(crate::floor::MachineKind::Shuttle { .. }))
    }

    /// Whether a lane is one that shuttles fill.
    fn leads_out_of_a_tier(&self, floor: &Floor<'_>, here: PosId) -> bool {
        let Some((lane, _)) = floor.zone_of(here) else { return false };
        let bays = |(id, z): &(ZoneId, &crate::floor::Zone)| {
            z.kind == ZoneKind::Bays && floor.links(*id).iter().any(|link| link.to == lane)
        };
        floor.zone_ids().any(|zone| bays(&zone))
    }

    /// Whether something where its load may be has not been read yet.
    fn may_yet_be_seen(&self, floor: &Floor<'_>, trail: Trail) -> bool {
        let unread = |domain: DomainId| !self.is_known(domain);
        if trail == Trail::default() {
            return floor.domains().any(|(id, info)| info.sensed.1 > 0 && unread(id));
        }
        trail.places().filter_map(|p| floor.zone_of(p)).any(|(zone, info)| {
            let takes =
                |m: &MachineId| floor.machine(*m).is_some_and(|i| unread(i.domain)) && takes_from(floor, *m, zone);
            unread(info.domain) || floor.machine_ids().any(|m| takes(&m))
        })
    }

    /// Its load is nowhere. For long: it has left, if that is where it was going.
    fn nowhere(&mut self, now: Millis, floor: &Floor<'_>, slot: u16, trail: Trail, events: &mut Events) -> bool {
        let Some(order) = self.orders.slot_mut(slot) else { return false };
        let since = *order.missing_since.get_or_insert(now);
        let leaves = order.next_stop() == Some(Stop::Outside) && trail.leads_out(floor);
        if now.since(since) < self.settings.missing_ms {
            return false;
        }
        if !leaves {
            return self.hold_order(now, slot, Doubt::Gone, events);
        }
        self.complete(now, floor, slot, events);
        false
    }

    /// Holds an order until a person decides. `false`, for it does not go on.
    fn hold_order(&mut self, now: Millis, slot: u16, why: Doubt, events: &mut Events) -> bool {
        if let Some(order) = self.orders.slot_mut(slot)
            && order.held.is_none()
        {
            order.held = Some(why);
            events.push(now, EventKind::OrderHeld(order.request.id, why));
        }
        false
    }

    /// An order in doubt whose load is seen `here`, while its other place shows it too, is held.
    pub(crate) fn doubt_if_twice(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        load: LoadId,
        here: PosId,
        events: &mut Events,
    ) {
        let Some(slot) = self.stock.loads.order(load) else { return };
        let in_doubt = self.orders.slot(slot).is_some_and(Order::is_in_doubt);
        let Some(other) = self.stock.find(load).filter(|p| in_doubt && *p != here) else { return };
        let domain = floor.zone_of(here).map(|(_, z)| usize::from(z.domain.0));
        let Some(Domain::Claimed { since }) = domain.and_then(|d| self.domains.get(d)).copied() else { return };
        let (seen, at) = match floor.deck_of(other) {
            Some(machine) => (image.machine(machine).value.load, image.machine(machine).at),
            None => (image.position(other).value, image.position(other).at),
        };
        // Only what was read after everything here had come to rest says where it is now.
        if seen == Some(load) && at >= since {
            self.hold_order(now, slot, Doubt::Twice, events);
        }
    }

    /// A person decides on an order that is held; for any other it means nothing.
    pub(crate) fn decide(&mut self, now: Millis, floor: &Floor<'_>, id: OrderId, what: Decision, events: &mut Events) {
        let held = |(_, o): &(u16, &Order)| o.request.id == id && o.held.is_some();
        let Some((slot, _)) = self.orders.iter().find(held) else { return };
        match what {
            Decision::Done => self.complete(now, floor, slot, events),
            Decision::GiveUp => self.fail(now, floor, slot, OrderFault::GivenUp, events),
            Decision::GoOn => {
                let Some(order) = self.orders.slot_mut(slot) else { return };
                let at = order.at;
                (order.held, order.missing_since, order.retry_at) = (None, None, now);
                events.push(now, EventKind::OrderReleased(id, at));
                match at {
                    Some(here) => self.go_on(floor, slot, here, Trail::default()),
                    None => order.trail = None, // it looks for its load as any other does
                }
            }
        }
    }

    /// Who is promised a bay first after a restart: what stands on a lane into a tier, then what a machine has.
    pub(crate) fn bay_rank(floor: &Floor<'_>, order: &Order) -> u8 {
        let zone = order.at.filter(|_| order.is_in_doubt()).and_then(|p| floor.zone_of(p));
        match zone.map(|(_, z)| (z.kind, z.tier)) {
            Some((ZoneKind::Lane, Some(_))) => 0,
            Some((ZoneKind::Deck(_), _)) => 1,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests;
