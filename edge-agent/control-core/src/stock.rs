//! Where every load is believed to be, and which positions are promised to which load.
//!
//! Belief changes on evidence only: a command that ended, a sensor that has been saying otherwise for a while.
//! A reservation is made before a load is picked up, so whoever carries a load can always put it down: that is
//! why the floor cannot lock (see [`crate::dispatch`]).

use crate::limits::POSITIONS_MAX;
use crate::units::{LoadId, Millis, PosId};

/// One position.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    load: Option<LoadId>,
    reserved: Option<LoadId>,
    since: Millis,
    odd_since: Option<Millis>,
}

/// The belief about every position.
#[derive(Clone, Debug)]
pub struct Stock {
    slots: [Slot; POSITIONS_MAX],
}

impl Default for Stock {
    fn default() -> Self {
        Stock { slots: [Slot::default(); POSITIONS_MAX] }
    }
}

impl Stock {
    fn slot(&self, pos: PosId) -> Slot {
        self.slots.get(usize::from(pos.0)).copied().unwrap_or_default()
    }

    fn with(&mut self, pos: PosId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(usize::from(pos.0)) {
            change(slot);
        }
    }

    /// Forgets everything, reservations included.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::default());
    }

    /// The load at a position.
    pub fn at(&self, pos: PosId) -> Option<LoadId> {
        self.slot(pos).load
    }

    /// Since when the belief about a position stands.
    pub fn since(&self, pos: PosId) -> Millis {
        self.slot(pos).since
    }

    /// Where a load is. Looks at every position: for events, not for every cycle.
    pub fn find(&self, load: LoadId) -> Option<PosId> {
        let n = self.slots.iter().position(|s| s.load == Some(load))?;
        u16::try_from(n).ok().map(PosId)
    }

    /// Believes from `now` on that the position holds `load`, or nothing.
    pub fn set(&mut self, pos: PosId, load: Option<LoadId>, now: Millis) {
        self.with(pos, |s| {
            s.load = load;
            s.since = now;
            s.odd_since = None;
        });
    }

    /// Whether `load` may be promised this position: empty, and not promised to another.
    pub fn free_for(&self, pos: PosId, load: LoadId) -> bool {
        let s = self.slot(pos);
        s.load.is_none_or(|l| l == load) && s.reserved.is_none_or(|l| l == load)
    }

    /// Promises a position to a load.
    pub fn reserve(&mut self, pos: PosId, load: LoadId) {
        self.with(pos, |s| s.reserved = Some(load));
    }

    /// Takes a promise back, if it was made to this load.
    pub fn release(&mut self, pos: PosId, load: LoadId) {
        self.with(pos, |s| {
            if s.reserved == Some(load) {
                s.reserved = None;
            }
        });
    }

    /// Notes that a sensor disagrees (`true`) or agrees; returns for how long it has been disagreeing, milliseconds.
    pub fn odd_for(&mut self, pos: PosId, odd: bool, now: Millis) -> u64 {
        let mut lasted = 0;
        self.with(pos, |s| {
            s.odd_since = if odd { s.odd_since.or(Some(now)) } else { None };
            lasted = s.odd_since.map_or(0, |t| now.since(t));
        });
        lasted
    }
}
