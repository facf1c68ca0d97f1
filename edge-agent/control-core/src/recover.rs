//! Reading the plant before acting on it, and noticing when it is not as believed.
//!
//! ```text
//!   start ──> READ: nothing executes, every machine and sensor of the rack seen ──> CLAIM: a token above all tokens seen
//!                                                                                      │ (no authority yet)
//!   a rack controller started anew ──────────────────────────────────────────────┐     │
//!                                                                                v     v
//!                          READ again: every machine shows our token, nothing executes, every sensor seen since
//!                                                    │
//!                                                    v
//!                               belief := what the plant says; orders: next leg derived anew
//! ```
//!
//! The claim is read back before anything is believed: a command of the owner before us may be on its way, and once a
//! machine shows our token it takes no other's any more.
//!
//! The cell is not waited for: it is spoken to when it answers. What the plant says always wins over what was believed;
//! a contradiction has to last ([`crate::Settings::odd_ms`]) so that a sensor that is one poll behind does not count.

use crate::cycle::Controller;
use crate::event::{EventKind, Events};
use crate::image::{InputImage, Quality};
use crate::layout::{Conveyor, End, Place};
use crate::units::{LoadId, MachineId, Millis, PosId, Tier};

/// Positions whose belief is compared with their sensor in one cycle. At 10 ms a full demo aisle takes 110 ms.
const AUDIT_PER_CYCLE: u16 = 16;

/// A conveyor's sensor must be read this much after the belief was formed before it may contradict it, milliseconds:
/// a status and the sensors come from different requests of one poll.
const SETTLE_MS: u64 = 250;

impl Controller {
    /// Whether the plant has been read and belief can be acted upon. Speaks to machines that have not been spoken to.
    pub(crate) fn recover(&mut self, now: Millis, image: &InputImage, events: &mut Events) -> bool {
        let cell = self.layout.cell();
        if self.claimed && self.machines_known() {
            self.handshake_late_cell(now, cell, image);
            return true;
        }
        let rack = || self.layout.machine_ids().filter(|id| *id != cell);
        if rack().any(|id| image.machine(id).fresh(now, self.settings.stale_ms).is_some_and(|s| s.executing())) {
            self.recover_since = Some(now); // what moves is brought to its end, and everything is read after that
            return false;
        }
        let since = *self.recover_since.get_or_insert(now);
        let seen_since = |at: Millis, quality| quality == Quality::Good && at >= since;
        let machines_ready = rack().all(|id| {
            let seen = image.machine(id);
            let ours = !self.claimed || seen.value.token == self.token;
            ours && seen_since(seen.at, seen.quality) && seen.fresh(now, self.settings.stale_ms).is_some()
        });
        let sensors_ready = (0..self.layout.sensed()).all(|n| {
            let seen = image.position(PosId(n));
            seen_since(seen.at, seen.quality)
        });
        if !(machines_ready && sensors_ready) {
            return false;
        }
        if !self.claimed {
            let highest = self.layout.machine_ids().map(|id| image.machine(id).value.token).max().unwrap_or(0);
            self.token = highest.saturating_add(1);
            self.claimed = true;
            self.recover_since = Some(now); // until every machine shows our token another owner's command may still arrive
            return false;
        }
        self.rebuild(now, image, events);
        true
    }

    fn machines_known(&self) -> bool {
        let cell = self.layout.cell();
        self.layout
            .machine_ids()
            .filter(|id| *id != cell)
            .all(|id| self.machines.get(usize::from(id.0)).is_some_and(|m| m.handshaken))
    }

    /// Starts the conversation with a machine anew: sequence above all it has seen, no task, deck as it says.
    fn handshake(&mut self, now: Millis, id: MachineId, image: &InputImage) {
        let status = image.machine(id).value;
        let deck = self.layout.pos(Place::Deck(id));
        self.end_task(id);
        if let Some(machine) = self.machines.get_mut(usize::from(id.0)) {
            machine.link.handshake(&status);
            machine.handshaken = true;
            machine.boot = status.boot;
        }
        self.stock.set(deck, status.load, now);
    }

    fn handshake_late_cell(&mut self, now: Millis, id: MachineId, image: &InputImage) {
        let known = self.machines.get(usize::from(id.0)).is_some_and(|m| m.handshaken);
        let seen = image.machine(id);
        let Some(status) = seen.fresh(now, self.settings.stale_ms) else { return };
        if known || status.executing() || status.token != self.token {
            return;
        }
        let carried = self.stock.at(self.layout.pos(Place::Deck(id)));
        self.handshake(now, id, image);
        for load in [carried, status.load].into_iter().flatten() {
            let at = self.stock.find(load);
            self.move_load(load, None, at, now);
        }
    }

    /// Takes over what the plant says, all at once. P positions, and O orders looked up in them.
    fn rebuild(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        let cell = self.layout.cell();
        let cell_deck = self.layout.pos(Place::Deck(cell));
        let in_cell = self.stock.at(cell_deck);
        let cell_task = self.machines.get(usize::from(cell.0)).and_then(|m| m.task);

        self.stock.clear();
        for n in 0..self.layout.sensed() {
            let Some(load) = image.position(PosId(n)).value else { continue };
            if self.stock.find(load).is_some() {
                events.push(now, EventKind::LoadTwice(load, PosId(n)));
                continue;
            }
            self.stock.set(PosId(n), Some(load), now);
        }
        for id in self.layout.machine_ids().filter(|id| *id != cell) {
            self.handshake(now, id, image);
        }
        // The cell goes on by itself: what it was doing stays as it was.
        if let Some(load) = in_cell
            && self.stock.find(load).is_none()
        {
            self.stock.set(cell_deck, Some(load), now);
        }
        if let Some(task) = cell_task {
            self.stock.reserve(task.target, task.load);
        }
        self.readopt_orders(now);
        // What stands on a transfer-in point has the first word on its tier's bays, then what is on the shuttles.
        for tier in (0..self.layout.tiers()).map(Tier) {
            for place in [Place::TransferIn(tier), Place::Deck(self.layout.shuttle(tier))] {
                let pos = self.layout.pos(place);
                if let Some(load) = self.stock.at(pos)
                    && self.orders.by_load(load).is_none()
                {
                    self.adopt(now, load, pos, events);
                }
            }
        }
    }

    fn readopt_orders(&mut self, now: Millis) {
        let (mut orders, layout) = (core::mem::take(&mut self.orders), self.layout);
        for order in orders.iter_mut() {
            order.at = self.stock.find(order.request.load);
            order.retry_at = now;
            let load = order.request.load;
            match order.home {
                Some(home) if self.stock.free_for(home, load) => self.stock.reserve(home, load),
                _ => order.home = None,
            }
        }
        for order in orders.iter_mut().filter(|o| o.needs_home() && o.home.is_none()) {
            let here = order.at.filter(|p| matches!(layout.place(*p), Some(Place::Bay { .. })));
            order.home = self.promise_bay(order.request.load, here);
        }
        self.orders = orders;
    }

    /// Follows the conveyors, compares belief with sensors, and looks after loads that nobody has asked for.
    pub(crate) fn sense(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        for conveyor in Conveyor::ALL {
            self.follow_belt(now, conveyor, image, events);
        }
        self.audit_some(now, image, events);
        self.adopt_one(now, events);
    }

    fn follow_belt(&mut self, now: Millis, conveyor: Conveyor, image: &InputImage, events: &mut Events) {
        let limit = self.settings.position_stale_ms;
        let (entry, exit) =
            (self.layout.pos(Place::Belt(conveyor, End::Entry)), self.layout.pos(Place::Belt(conveyor, End::Exit)));
        let (seen_entry, seen_exit) = (image.position(entry), image.position(exit));
        let (Some(&at_entry), Some(&at_exit)) = (seen_entry.fresh(now, limit), seen_exit.fresh(now, limit)) else {
            return;
        };

        // A load that has left by the outfeed: it was there, and a reading that is surely younger shows it gone.
        let settled = |pos, at: Millis, stock: &crate::stock::Stock| at >= stock.since(pos).plus(SETTLE_MS);
        if let Some(load) = self.stock.at(exit)
            && conveyor == Conveyor::Outfeed
            && at_exit != Some(load)
            && settled(exit, seen_exit.at, &self.stock)
        {
            self.move_load(load, Some(exit), None, now);
            events.push(now, EventKind::LoadLeft(load));
        }
        // Belt motion. On the outfeed a load may pass the exit between two polls; gone from the entry is gone.
        if let Some(load) = self.stock.at(entry)
            && self.stock.at(exit).is_none()
        {
            let passed = conveyor == Conveyor::Outfeed
                && at_entry != Some(load)
                && at_exit.is_none()
                && settled(entry, seen_entry.at, &self.stock);
            if at_exit == Some(load) || passed {
                self.move_load(load, Some(entry), Some(exit), now);
            }
        }
        // Arrivals.
        if conveyor == Conveyor::Infeed {
            for (pos, seen) in [(exit, at_exit), (entry, at_entry)] {
                if let Some(load) = seen
                    && self.stock.at(pos).is_none()
                    && self.stock.find(load).is_none()
                {
                    self.move_load(load, None, Some(pos), now);
                    events.push(now, EventKind::LoadArrived(load, pos));
                }
            }
        }
    }

    /// Whether a machine is about to change what stands here.
    fn touched(&self, pos: PosId) -> bool {
        self.machines.iter().any(|m| m.task.is_some_and(|t| t.source == pos || t.target == pos))
    }

    fn audit_some(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        for _ in 0..AUDIT_PER_CYCLE.min(self.layout.positions()) {
            self.audit = (self.audit + 1) % self.layout.positions();
            let pos = PosId(self.audit);
            let Some((says, at)) = self.says(now, pos, image) else { continue };
            let believed = self.stock.at(pos);
            let odd = says != believed && !self.touched(pos) && at > self.stock.since(pos);
            if self.stock.odd_for(pos, odd, now) <= self.settings.odd_ms || !odd {
                continue;
            }
            self.believe_sensor(now, pos, believed, says, events);
        }
    }

    /// What the plant says of a position: its sensor, or for a deck its machine while it is at rest.
    fn says(&self, now: Millis, pos: PosId, image: &InputImage) -> Option<(Option<LoadId>, Millis)> {
        let Some(Place::Deck(id)) = self.layout.place(pos) else {
            let seen = image.position(pos);
            return seen.fresh(now, self.settings.position_stale_ms).map(|load| (*load, seen.at));
        };
        let machine = self.machines.get(usize::from(id.0))?;
        let seen = image.machine(id);
        let status = seen.fresh(now, self.settings.stale_ms)?;
        let at_rest = machine.handshaken && machine.task.is_none() && !machine.link.busy() && !status.executing();
        at_rest.then_some((status.load, seen.at))
    }

    fn believe_sensor(
        &mut self,
        now: Millis,
        pos: PosId,
        believed: Option<LoadId>,
        says: Option<LoadId>,
        events: &mut Events,
    ) {
        if let Some(load) = believed {
            self.move_load(load, Some(pos), None, now);
            events.push(now, EventKind::LoadMissing(load, pos));
        }
        if let Some(load) = says {
            let before = self.stock.find(load);
            self.move_load(load, before, Some(pos), now);
            events.push(now, EventKind::LoadFound(load, pos));
            // Whoever was promised this place needs another.
            for order in self.orders.iter_mut().filter(|o| o.home == Some(pos) && o.request.load != load) {
                order.home = None;
                self.stock.release(pos, order.request.load);
            }
        }
    }

    /// One position a cycle: a load on a transfer point, a conveyor's exit or a deck that has no order is put away,
    /// because where it stands others have to pass.
    fn adopt_one(&mut self, now: Millis, events: &mut Events) {
        let first = self.layout.pos(Place::TransferOut(Tier(0))).0;
        let span = self.layout.positions() - first;
        self.sweep = (self.sweep + 1) % span;
        let pos = PosId(first + self.sweep);
        let Some(load) = self.stock.at(pos) else { return };
        let leaving =
            matches!(self.layout.place(pos), Some(Place::Belt(Conveyor::Outfeed, _) | Place::Belt(_, End::Entry)));
        let young = now.since(self.stock.since(pos)) < self.settings.adopt_ms;
        if leaving || young || self.draining || self.orders.by_load(load).is_some() {
            return;
        }
        self.adopt(now, load, pos, events);
    }
}
