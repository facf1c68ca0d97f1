//! Reading the plant before acting on it, and noticing when it is not as believed.
//!
//! ```text
//!   start ──> READ: nothing executes, every machine and sensor of the domain seen ──> CLAIM: a token above all tokens seen
//!                                                                                       │ (no authority yet)
//!   a controller of the domain started anew ────────────────────────────────────┐       │
//!                                                                                v       v
//!                          READ again: every machine shows our token, nothing executes, every sensor seen since
//!                                                    │
//!                                                    v
//!                               belief := what the plant says; orders: next leg derived anew
//! ```
//!
//! Each domain (an aisle, a station, a mobile robot) goes this way for itself: what can go on goes on. The claim is read back
//! before anything is believed: a command of the owner before us may be on its way, and once a machine shows our token it takes no
//! other's any more.
//!
//! What the plant says always wins over what was believed; a contradiction has to last ([`crate::Settings::odd_ms`]) so that a
//! sensor that is one poll behind does not count.

use crate::cycle::Controller;
use crate::event::{EventKind, Events};
use crate::floor::{Beyond, DomainInfo, Floor, Zone, ZoneKind};
use crate::image::{InputImage, Quality};
use crate::limits::AUDIT_PER_CYCLE;
use crate::units::{DomainId, LoadId, MachineId, Millis, PosId};

/// A lane's sensor must be read this much after the belief was formed before it may contradict it, milliseconds:
/// a status and the sensors come from different requests of one poll.
const SETTLE_MS: u64 = 250;

/// How far a domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Nothing is known; everything has to be seen from here on.
    #[default]
    Unread,
    /// Being read since then.
    Reading { since: Millis },
    /// Our token stands above all that were seen; read again since then.
    Claimed { since: Millis },
    /// Read and acted upon.
    Known,
}

impl Domain {
    pub(crate) fn is_known(self) -> bool {
        self == Domain::Known
    }
}

impl Controller<'_> {
    /// Whether a domain is acted upon.
    pub(crate) fn is_known(&self, domain: DomainId) -> bool {
        self.domains.get(usize::from(domain.0)).is_some_and(|d| d.is_known())
    }

    /// Reads the domains that are not known.
    pub(crate) fn recover(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        for (id, info) in floor.domains() {
            let Some(state) = self.domains.get(usize::from(id.0)).copied() else { continue };
            if state.is_known() {
                continue;
            }
            let next = self.read_domain(now, floor, image, id, info, state, events);
            crate::storage::put(self.domains, usize::from(id.0), next);
        }
    }

    #[allow(clippy::too_many_arguments)] // a domain with its state, and where it is read
    fn read_domain(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: DomainId,
        info: &DomainInfo,
        state: Domain,
        events: &mut Events,
    ) -> Domain {
        let stale_ms = self.settings.stale_ms;
        // A command of ours that is on its way counts: it may be begun when everything has been read.
        let executing = |id| {
            let ours = self.machine(id);
            (ours.handshaken && ours.link.busy())
                || image.machine(id).fresh(now, stale_ms).is_some_and(|s| s.executing())
        };
        let claimed = matches!(state, Domain::Claimed { .. });
        if info.machines().any(executing) {
            // What moves is brought to its end, and everything is read after that.
            return if claimed { Domain::Claimed { since: now } } else { Domain::Reading { since: now } };
        }
        let since = match state {
            Domain::Unread | Domain::Known => return Domain::Reading { since: now },
            Domain::Reading { since } | Domain::Claimed { since } => since,
        };
        let seen_since = |at: Millis, quality| quality == Quality::Good && at >= since;
        let machines_ready = info.machines().all(|m| {
            let seen = image.machine(m);
            let ours = !claimed || seen.value.token == self.token;
            ours && seen_since(seen.at, seen.quality) && seen.fresh(now, stale_ms).is_some()
        });
        let sensors_ready = info.sensed().all(|pos| {
            let seen = image.position(pos);
            seen_since(seen.at, seen.quality)
        });
        if !(machines_ready && sensors_ready) {
            return state;
        }
        if !claimed {
            let highest = info.machines().map(|m| image.machine(m).value.token).max().unwrap_or(0);
            if !self.claimed || highest > self.token {
                self.token = self.token.max(highest.saturating_add(1));
                self.claimed = true;
            }
            // Until every machine shows our token another owner's command may still arrive.
            return Domain::Claimed { since: now };
        }
        self.rebuild(now, floor, image, id, info, events);
        events.push(now, EventKind::DomainKnown(id));
        Domain::Known
    }

    /// Starts the conversation with a machine anew: sequence above all it has seen, no task, deck as it says.
    fn handshake(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        image: &InputImage<'_>,
        events: &mut Events,
    ) {
        let status = image.machine(id).value;
        self.end_task(floor, id);
        self.with(id, |m| {
            m.link.handshake(&status);
            m.handshaken = true;
            m.boot = status.boot;
        });
        if let Some(load) = status.load {
            let deck = Self::deck(floor, id);
            self.doubt_if_twice(now, floor, image, load, deck, events);
            self.move_load(floor, load, Some(deck), now);
        }
    }

    /// Takes over what a domain says, all at once: its positions, and the orders of its loads looked up in them.
    fn rebuild(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: DomainId,
        info: &DomainInfo,
        events: &mut Events,
    ) {
        for m in info.machines() {
            self.end_task(floor, m);
            self.with(m, |m| m.ride = None);
        }
        self.stock.forget(floor, |_, zone| zone.domain == id);
        for pos in info.sensed() {
            let Some(load) = image.position(pos).value else { continue };
            if self.stock.find(load).is_some_and(|p| floor.zone_of(p).is_some_and(|(_, z)| z.domain == id)) {
                self.doubt_if_twice(now, floor, image, load, pos, events);
                events.push(now, EventKind::LoadTwice(load, pos));
                continue;
            }
            self.doubt_if_twice(now, floor, image, load, pos, events);
            self.move_load(floor, load, Some(pos), now);
        }
        for m in info.machines() {
            self.handshake(now, floor, m, image, events);
        }
        self.promise_again(now, floor, id);
        // What stands on a lane into a tier has the first word on its tier's bays, then what is on the shuttles.
        for lane in [true, false] {
            for (_, z) in floor.zone_ids().filter(|(_, z)| z.domain == id) {
                let first = z.kind == ZoneKind::Lane && z.tier.is_some();
                let deck = matches!(z.kind, ZoneKind::Deck(_));
                if if lane { !first } else { !deck } {
                    continue;
                }
                self.put_away_all(now, floor, z, events);
            }
        }
    }

    fn put_away_all(&mut self, now: Millis, floor: &Floor<'_>, zone: &Zone, events: &mut Events) {
        for pos in zone.positions() {
            if let Some(load) = self.stock.at(pos)
                && self.stock.loads.order(load).is_none()
                && zone.beyond != Beyond::Departures
            {
                self.put_away(now, floor, load, pos, events);
            }
        }
    }

    /// After a domain was read again: orders know where their loads are, and have their promises again; so have the legs of other
    /// machines that lead into it.
    fn promise_again(&mut self, now: Millis, floor: &Floor<'_>, id: DomainId) {
        for n in 0..self.machines.len() as u16 {
            let Some(task) = self.machine(MachineId(n)).task else { continue };
            if floor.zone_of(task.target).is_some_and(|(_, z)| z.domain == id) {
                self.stock.promise(floor, task.target, task.load);
            }
        }
        let in_domain = |pos: Option<PosId>| pos.and_then(|p| floor.zone_of(p)).is_some_and(|(_, z)| z.domain == id);
        for slot in 0..self.orders.capacity() as u16 {
            let Some(order) = self.orders.slot(slot).copied() else { continue };
            let load = order.request.load;
            let found = self.stock.find(load);
            if found != order.at {
                self.orders.set_at(floor, slot, found);
            }
            let keeps = order.home.filter(|h| !in_domain(Some(*h)) || self.stock.free_for(floor, *h, load));
            if let Some(home) = keeps.filter(|h| in_domain(Some(*h))) {
                self.stock.promise(floor, home, load);
            }
            if let Some(order) = self.orders.slot_mut(slot) {
                (order.home, order.retry_at) = (keeps, now);
            }
        }
        for rank in 0..3 {
            for slot in 0..self.orders.capacity() as u16 {
                let Some(order) = self.orders.slot(slot).copied() else { continue };
                if order.needs_home() && order.home.is_none() && Self::bay_rank(floor, &order) == rank {
                    let here = order.at.filter(|p| rank < 2 || floor.is_bay(*p));
                    let home = self.promise_bay(floor, order.request.load, here);
                    if let Some(order) = self.orders.slot_mut(slot) {
                        order.home = home;
                    }
                }
            }
        }
    }

    /// Follows the lanes, compares belief with sensors, and looks after loads that nobody has asked for.
    pub(crate) fn sense(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        for (_, zone) in floor.zone_ids() {
            let moves = zone.kind == ZoneKind::Lane && (zone.count > 1 || zone.beyond != Beyond::Nothing);
            if moves && self.is_known(zone.domain) {
                self.follow_lane(now, floor, zone, image, events);
            }
        }
        self.audit_some(now, floor, image, events);
        self.put_away_one(now, floor, events);
    }

    fn follow_lane(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        zone: &Zone,
        image: &InputImage<'_>,
        events: &mut Events,
    ) {
        let limit = self.settings.position_stale_ms;
        let says = |pos: PosId| {
            let seen = image.position(pos);
            seen.fresh(now, limit).map(|load| (*load, seen.at))
        };
        let settled = |pos, at: Millis, c: &Self| at >= c.stock.since(pos).plus(SETTLE_MS);

        // A load that has left at the end: it was there, and a reading that is surely younger shows it gone.
        let exit = zone.exit();
        if zone.beyond == Beyond::Departures
            && let Some(load) = self.stock.at(exit)
            && let Some((seen, at)) = says(exit)
            && seen != Some(load)
            && settled(exit, at, self)
        {
            // Who waits for it to leave hears of it first.
            self.settle_load(now, floor, load, events);
            self.move_load(floor, load, None, now);
            events.push(now, EventKind::LoadLeft(load));
        }
        // Motion, from the end on. On the way out a load may pass the last place between two polls; gone is gone.
        for pos in zone.positions().rev() {
            let Some(load) = self.stock.at(pos) else { continue };
            if pos == exit || self.stock.touched(pos) && pos != zone.entry() {
                continue;
            }
            let ahead = (pos.0 + 1..=exit.0).map(PosId);
            let mut seen_at = None;
            for next in ahead {
                if self.stock.at(next).is_some() {
                    break;
                }
                match says(next) {
                    Some((Some(found), _)) if found == load => seen_at = Some(next),
                    Some(_) => {}
                    None => break,
                }
            }
            let passed = zone.beyond == Beyond::Departures
                && self.stock.at(exit).is_none()
                && says(pos).is_some_and(|(seen, at)| seen != Some(load) && settled(pos, at, self))
                && says(exit).is_some_and(|(seen, _)| seen.is_none())
                && zone.count == 2;
            if let Some(next) = seen_at.or(if passed { Some(exit) } else { None }) {
                self.move_load(floor, load, Some(next), now);
                self.settle_load(now, floor, load, events);
            }
        }
        // Arrivals.
        if zone.beyond == Beyond::Arrivals {
            for pos in zone.positions().rev() {
                if let Some((Some(load), _)) = says(pos)
                    && self.stock.at(pos).is_none()
                    && self.stock.find(load).is_none()
                {
                    self.move_load(floor, load, Some(pos), now);
                    events.push(now, EventKind::LoadArrived(load, pos));
                }
            }
        }
    }

    fn audit_some(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        let count = floor.positions();
        for _ in 0..AUDIT_PER_CYCLE.min(count) {
            self.audit = (self.audit + 1) % count.max(1);
            let pos = PosId(self.audit);
            let Some((says, at)) = self.says(now, floor, pos, image) else { continue };
            let believed = self.stock.at(pos);
            let odd = says != believed && !self.stock.touched(pos) && at > self.stock.since(pos);
            if self.stock.odd_for(pos, odd, now) <= self.settings.odd_ms || !odd {
                continue;
            }
            self.believe_sensor(now, floor, pos, believed, says, events);
        }
    }

    /// What the plant says of a position: its sensor, or for a deck its machine while it is at rest.
    fn says(
        &self,
        now: Millis,
        floor: &Floor<'_>,
        pos: PosId,
        image: &InputImage<'_>,
    ) -> Option<(Option<LoadId>, Millis)> {
        let (_, zone) = floor.zone_of(pos)?;
        if !self.is_known(zone.domain) {
            return None;
        }
        let ZoneKind::Deck(id) = zone.kind else {
            let seen = image.position(pos);
            return seen.fresh(now, self.settings.position_stale_ms).map(|load| (*load, seen.at));
        };
        let machine = self.machine(id);
        let seen = image.machine(id);
        let status = seen.fresh(now, self.settings.stale_ms)?;
        let at_rest = machine.handshaken && machine.task.is_none() && !machine.link.busy() && !status.executing();
        at_rest.then_some((status.load, seen.at))
    }

    fn believe_sensor(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        pos: PosId,
        believed: Option<LoadId>,
        says: Option<LoadId>,
        events: &mut Events,
    ) {
        if let Some(load) = believed {
            self.move_load(floor, load, None, now);
            events.push(now, EventKind::LoadMissing(load, pos));
        }
        let Some(load) = says else { return };
        self.move_load(floor, load, Some(pos), now);
        events.push(now, EventKind::LoadFound(load, pos));
        // Whoever was promised this place needs another.
        for slot in 0..self.orders.capacity() as u16 {
            let Some(order) = self.orders.slot_mut(slot) else { continue };
            if order.home == Some(pos) && order.request.load != load {
                let loser = order.request.load;
                order.home = None;
                self.stock.release(floor, pos, loser);
            }
        }
    }

    /// One position a cycle: a load on a lane's end or a deck that has no order is put away, because where it stands others have
    /// to pass.
    fn put_away_one(&mut self, now: Millis, floor: &Floor<'_>, events: &mut Events) {
        self.sweep = (self.sweep + 1) % floor.positions().max(1);
        let pos = PosId(self.sweep);
        let Some(load) = self.stock.at(pos) else { return };
        let Some((_, zone)) = floor.zone_of(pos) else { return };
        let leaving = zone.beyond == Beyond::Departures
            || zone.kind == ZoneKind::Bays
            || (zone.kind == ZoneKind::Lane && pos != zone.exit());
        let young = now.since(self.stock.since(pos)) < self.settings.found_ms;
        if leaving || young || self.draining || self.stock.loads.order(load).is_some() {
            return;
        }
        self.put_away(now, floor, load, pos, events);
    }
}
