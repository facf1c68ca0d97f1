//! Loads by their number: where each is believed to be, and which order it has. A table with open addresses; looking one up
//! takes a few steps, however many there are.

use crate::storage::{Storage, at, put};
use crate::units::{LoadId, PosId};

/// No position, no order.
const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0 for a free slot.
    load: u32,
    pos: u16,
    order: u16,
}

/// All loads that are somewhere or have an order.
#[derive(Debug)]
pub(crate) struct Loads<'m> {
    entries: &'m mut [Entry],
}

impl<'m> Loads<'m> {
    /// Room for so many. Twice as many slots, so that chains stay short.
    pub(crate) fn new(storage: &impl Storage<'m>, capacity: usize) -> Loads<'m> {
        Loads { entries: storage.slice((capacity * 2).max(16), Entry { load: 0, pos: NONE, order: NONE }) }
    }

    fn home(&self, load: u32) -> usize {
        let slots = self.entries.len().max(1);
        ((u64::from(load.wrapping_mul(0x9E37_79B9)) * slots as u64) >> 32) as usize
    }

    /// The slot of a load, or the free one in which it would be.
    fn slot(&self, load: u32) -> Option<usize> {
        let slots = self.entries.len();
        let home = self.home(load);
        (0..slots).map(|k| (home + k) % slots).find(|n| {
            let found = at(self.entries, *n).load;
            found == load || found == 0
        })
    }

    fn get(&self, load: LoadId) -> Entry {
        let found = self.slot(load.get()).map(|n| at(self.entries, n));
        found.filter(|e| e.load == load.get()).unwrap_or(Entry { load: 0, pos: NONE, order: NONE })
    }

    pub(crate) fn pos(&self, load: LoadId) -> Option<PosId> {
        Some(self.get(load).pos).filter(|p| *p != NONE).map(PosId)
    }

    pub(crate) fn order(&self, load: LoadId) -> Option<u16> {
        Some(self.get(load).order).filter(|o| *o != NONE)
    }

    pub(crate) fn set_pos(&mut self, load: LoadId, pos: Option<PosId>) {
        self.change(load, |e| e.pos = pos.map_or(NONE, |p| p.0));
    }

    pub(crate) fn set_order(&mut self, load: LoadId, order: Option<u16>) {
        self.change(load, |e| e.order = order.unwrap_or(NONE));
    }

    fn change(&mut self, load: LoadId, change: impl FnOnce(&mut Entry)) {
        let Some(slot) = self.slot(load.get()) else { return };
        let mut entry = at(self.entries, slot);
        if entry.load == 0 {
            entry = Entry { load: load.get(), pos: NONE, order: NONE };
        }
        change(&mut entry);
        if (entry.pos, entry.order) == (NONE, NONE) {
            self.remove(slot);
        } else {
            put(self.entries, slot, entry);
        }
    }

    /// Frees a slot; those behind it that would not be found any more move up.
    fn remove(&mut self, slot: usize) {
        let slots = self.entries.len();
        let free = Entry { load: 0, pos: NONE, order: NONE };
        put(self.entries, slot, free);
        let mut gap = slot;
        for k in 1..slots {
            let here = (slot + k) % slots;
            let entry = at(self.entries, here);
            if entry.load == 0 {
                return;
            }
            // Whether its home lies behind the gap, round the end: then it may stay.
            let home = self.home(entry.load);
            let behind = if gap <= here { gap < home && home <= here } else { gap < home || home <= here };
            if !behind {
                put(self.entries, gap, entry);
                put(self.entries, here, free);
                gap = here;
            }
        }
    }

    /// Forgets where every load is.
    pub(crate) fn forget_positions(&mut self, which: impl Fn(PosId) -> bool) {
        // From the end of a chain on, so that moving up does not pass any by: simply again until nothing is left.
        let mut n = 0;
        while let Some(entry) = self.entries.get(n).copied() {
            if entry.load != 0 && entry.pos != NONE && which(PosId(entry.pos)) {
                if entry.order == NONE {
                    self.remove(n);
                    continue;
                }
                put(self.entries, n, Entry { pos: NONE, ..entry });
            }
            n += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use crate::storage::tests::Leak;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_knows_what_a_map_knows(steps in proptest::collection::vec((1u32..40, 0u8..4, 0u16..9), 0..300)) {
            let mut loads = Loads::new(&Leak, 40);
            let mut map: BTreeMap<u32, (Option<u16>, Option<u16>)> = BTreeMap::new();
            for (load, what, value) in steps {
                let id = LoadId::new(load).unwrap();
                let entry = map.entry(load).or_default();
                match what {
                    0 => { loads.set_pos(id, Some(PosId(value))); entry.0 = Some(value); }
                    1 => { loads.set_pos(id, None); entry.0 = None; }
                    2 => { loads.set_order(id, Some(value)); entry.1 = Some(value); }
                    _ => { loads.set_order(id, None); entry.1 = None; }
                }
                if value == 0 && what == 1 {
                    loads.forget_positions(|p| p.0 % 2 == 0);
                    map.values_mut().for_each(|e| e.0 = e.0.filter(|p| p % 2 == 1));
                }
                for n in 1..40 {
                    let (pos, order) = map.get(&n).copied().unwrap_or_default();
                    let id = LoadId::new(n).unwrap();
                    prop_assert_eq!((loads.pos(id).map(|p| p.0), loads.order(id)), (pos, order));
                }
            }
        }
    }
}
