//! Where every load is believed to be, and which places are promised to which load.
//!
//! Belief changes on evidence only: a command that ended, a sensor that has been saying otherwise for a while.
//! A promise is made before a load is picked up, so whoever carries a load can always put it down: that is
//! why the floor cannot lock (see [`crate::dispatch`]). A bay is promised to one load; of a lane so many places are promised as
//! loads are on their way into it.

use crate::floor::{Floor, Mover, Tier, Zone, ZoneKind};
use crate::image::Stand;
use crate::limits::Capacity;
use crate::loads::Loads;
use crate::storage::{Storage, at, put};
use crate::units::{LoadId, MachineId, Millis, PosId, ZoneId};

/// One position.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    load: Option<LoadId>,
    promised: Option<LoadId>,
    since: Millis,
    odd_since: Option<Millis>,
    /// Legs under way that begin or end here.
    touched: u8,
}

/// One zone.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Positions with a load.
    taken: u16,
    /// Places promised; in a lane none in particular.
    promised: u16,
}

/// One machine, as far as it decides where a load goes.
#[derive(Clone, Copy, Debug, Default)]
struct MachineAt {
    /// Where it was seen to stand, if it changes tier.
    stand: Stand,
    /// It cannot be commanded.
    is_out: bool,
}

/// The belief about every position.
#[derive(Debug)]
pub struct Stock<'m> {
    slots: &'m mut [Slot],
    counts: &'m mut [Count],
    machines: &'m mut [MachineAt],
    pub(crate) loads: Loads<'m>,
}

impl<'m> Stock<'m> {
    /// Nothing is believed yet.
    pub fn new(storage: &impl Storage<'m>, capacity: &Capacity) -> Stock<'m> {
        Stock {
            slots: storage.slice(capacity.positions, Slot::default()),
            counts: storage.slice(capacity.zones, Count::default()),
            machines: storage.slice(capacity.machines, MachineAt::default()),
            loads: Loads::new(storage, capacity.positions + capacity.orders),
        }
    }

    fn slot(&self, pos: PosId) -> Slot {
        at(self.slots, usize::from(pos.0))
    }

    fn with(&mut self, pos: PosId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(usize::from(pos.0)) {
            change(slot);
        }
    }

    fn count(&mut self, zone: ZoneId, change: impl FnOnce(&mut Count)) {
        if let Some(count) = self.counts.get_mut(usize::from(zone.0)) {
            change(count);
        }
    }

    /// Forgets what is believed of the positions of some zones, promises included.
    pub fn forget(&mut self, floor: &Floor<'_>, which: impl Fn(ZoneId, &Zone) -> bool) {
        for (id, zone) in floor.zone_ids().filter(|(id, zone)| which(*id, zone)) {
            for pos in zone.positions() {
                let touched = self.slot(pos).touched;
                put(self.slots, usize::from(pos.0), Slot { touched, ..Slot::default() });
            }
            self.count(id, |c| *c = Count::default());
        }
        self.loads.forget_positions(|pos| floor.zone_of(pos).is_some_and(|(id, zone)| which(id, zone)));
    }

    /// Where a shuttle that changes tier was seen to stand.
    pub fn stand(&self, shuttle: MachineId) -> Stand {
        at(self.machines, usize::from(shuttle.0)).stand
    }

    /// The tier on which it stands, or half stands.
    pub fn tier<'f>(&self, floor: &Floor<'f>, shuttle: MachineId) -> Option<&'f Tier> {
        let (Stand::Tier(n) | Stand::Between(n, _)) = self.stand(shuttle) else { return None };
        floor.tiers(floor.rack_of(shuttle)?).get(usize::from(n).checked_sub(1)?)
    }

    /// It is seen to stand there now.
    pub(crate) fn set_stand(&mut self, shuttle: MachineId, stand: Stand) {
        if let Some(machine) = self.machines.get_mut(usize::from(shuttle.0)) {
            machine.stand = stand;
        }
    }

    /// Whether a machine cannot be counted on at present: another one that could do the same is asked.
    pub fn is_mover_out(&self, by: Mover) -> bool {
        matches!(by, Mover::Machine(machine) if at(self.machines, usize::from(machine.0)).is_out)
    }

    pub(crate) fn set_out(&mut self, machine: MachineId, is_out: bool) {
        if let Some(machine) = self.machines.get_mut(usize::from(machine.0)) {
            machine.is_out = is_out;
        }
    }

    /// The load at a position.
    pub fn at(&self, pos: PosId) -> Option<LoadId> {
        self.slot(pos).load
    }

    /// Since when the belief about a position stands.
    pub fn since(&self, pos: PosId) -> Millis {
        self.slot(pos).since
    }

    /// Where a load is.
    pub fn find(&self, load: LoadId) -> Option<PosId> {
        self.loads.pos(load)
    }

    /// Believes from `now` on that the position holds `load`, or nothing. A load that was elsewhere is there no more.
    pub(crate) fn set(&mut self, floor: &Floor<'_>, pos: PosId, load: Option<LoadId>, now: Millis) {
        if let Some(load) = load
            && let Some(before) = self.find(load)
            && before != pos
        {
            self.set(floor, before, None, now);
        }
        let old = self.at(pos);
        if let Some(old) = old
            && Some(old) != load
        {
            self.loads.set_pos(old, None);
        }
        self.with(pos, |s| {
            s.load = load;
            s.since = now;
            s.odd_since = None;
        });
        if let Some((zone, _)) = floor.zone_of(pos) {
            let (was, is) = (u16::from(old.is_some()), u16::from(load.is_some()));
            self.count(zone, |c| c.taken = (c.taken + is).saturating_sub(was));
        }
        if let Some(load) = load {
            self.loads.set_pos(load, Some(pos));
        }
    }

    /// Whether `load` may be promised a place: a bay that is empty and not promised to another, and, where bays are double-deep,
    /// whose way is free; a lane that has a place for one more.
    pub fn free_for(&self, floor: &Floor<'_>, pos: PosId, load: LoadId) -> bool {
        let Some((id, zone)) = floor.zone_of(pos) else { return false };
        let s = self.slot(pos);
        match zone.kind {
            ZoneKind::Lane => {
                let count = at(self.counts, usize::from(id.0));
                s.load.is_none_or(|l| l == load) && count.taken + count.promised < zone.count
            }
            _ => s.load.is_none_or(|l| l == load) && s.promised.is_none_or(|l| l == load),
        }
    }

    /// Positions of a zone that are neither taken nor promised.
    pub fn free(&self, zone: ZoneId, info: &Zone) -> u16 {
        let count = at(self.counts, usize::from(zone.0));
        info.count.saturating_sub(count.taken).saturating_sub(count.promised)
    }

    /// Places of a zone promised at present.
    pub fn promised(&self, zone: ZoneId) -> u16 {
        at(self.counts, usize::from(zone.0)).promised
    }

    /// Promises a place to a load.
    pub(crate) fn promise(&mut self, floor: &Floor<'_>, pos: PosId, load: LoadId) {
        let Some((id, zone)) = floor.zone_of(pos) else { return };
        if zone.kind == ZoneKind::Lane {
            return self.count(id, |c| c.promised = c.promised.saturating_add(1));
        }
        if self.slot(pos).promised.is_none() {
            self.count(id, |c| c.promised = c.promised.saturating_add(1));
        }
        self.with(pos, |s| s.promised = Some(load));
    }

    /// Takes a promise back, if it was made to this load.
    pub(crate) fn release(&mut self, floor: &Floor<'_>, pos: PosId, load: LoadId) {
        let Some((id, zone)) = floor.zone_of(pos) else { return };
        if zone.kind != ZoneKind::Lane && self.slot(pos).promised != Some(load) {
            return;
        }
        self.count(id, |c| c.promised = c.promised.saturating_sub(1));
        self.with(pos, |s| s.promised = None);
    }

    /// Notes that a leg under way begins or ends here, or no more.
    pub(crate) fn touch(&mut self, pos: PosId, under_way: bool) {
        self.with(pos, |s| {
            s.touched = if under_way { s.touched.saturating_add(1) } else { s.touched.saturating_sub(1) };
        });
    }

    /// Whether a machine is about to change what stands here.
    pub(crate) fn touched(&self, pos: PosId) -> bool {
        self.slot(pos).touched > 0
    }

    /// Notes that a sensor disagrees (`true`) or agrees; returns for how long it has been disagreeing, milliseconds.
    pub(crate) fn odd_for(&mut self, pos: PosId, odd: bool, now: Millis) -> u64 {
        let mut lasted = 0;
        self.with(pos, |s| {
            s.odd_since = if odd { s.odd_since.or(Some(now)) } else { None };
            lasted = s.odd_since.map_or(0, |t| now.since(t));
        });
        lasted
    }
}
