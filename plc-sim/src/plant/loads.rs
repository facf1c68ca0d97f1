//! Where the loads really are. This is the truth; nobody but the plant writes it.

use control_core::image::Reason;
use control_core::units::{LoadId, PosId};
use floor_plan::FloorPlan;
use std::collections::BTreeSet;

/// Every position of the plant, and who has come and gone.
#[derive(Clone, Debug)]
pub struct Loads {
    at: Vec<Option<LoadId>>,
    entered: BTreeSet<LoadId>,
    left: BTreeSet<LoadId>,
    changes: u64,
}

impl Loads {
    /// An empty plant.
    pub fn new(plan: &FloorPlan) -> Loads {
        let at = vec![None; plan.position_count()];
        Loads { at, entered: BTreeSet::new(), left: BTreeSet::new(), changes: 0 }
    }

    /// The load at a position.
    pub fn at(&self, pos: PosId) -> Option<LoadId> {
        self.at.get(usize::from(pos.0)).copied().flatten()
    }

    fn set(&mut self, pos: PosId, load: Option<LoadId>) {
        if let Some(slot) = self.at.get_mut(usize::from(pos.0)) {
            *slot = load;
            self.changes += 1;
        }
    }

    /// A load comes into the plant; false when the position is taken or the load has been here before.
    pub fn enter(&mut self, pos: PosId, load: LoadId) -> bool {
        if self.at(pos).is_some() || !self.entered.insert(load) {
            return false;
        }
        self.set(pos, Some(load));
        true
    }

    /// The load at a position leaves the plant.
    pub fn leave(&mut self, pos: PosId) {
        if let Some(load) = self.at(pos) {
            self.left.insert(load);
            self.set(pos, None);
        }
    }

    /// A person carries a load elsewhere, unannounced.
    pub fn carry_off(&mut self, from: PosId, to: PosId) -> bool {
        self.pass(from, to, None).is_ok()
    }

    /// A load goes from one position to another, as sensors at the spot would allow it.
    pub fn pass(&mut self, from: PosId, to: PosId, named: Option<LoadId>) -> Result<(), Reason> {
        let load = self.at(from).ok_or(Reason::SourceEmpty)?;
        if named.is_some_and(|n| n != load) {
            return Err(Reason::WrongLoad);
        }
        if self.at(to).is_some() {
            return Err(Reason::TargetOccupied);
        }
        self.set(from, None);
        self.set(to, Some(load));
        Ok(())
    }

    /// How often anything has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Loads in two places.
    pub fn in_two_places(&self) -> Vec<LoadId> {
        let mut seen = BTreeSet::new();
        self.at.iter().flatten().filter(|l| !seen.insert(**l)).copied().collect()
    }

    /// Loads that came in, did not leave, and are nowhere.
    pub fn lost(&self) -> Vec<LoadId> {
        let here: BTreeSet<LoadId> = self.at.iter().flatten().copied().collect();
        self.entered.iter().filter(|l| !here.contains(l) && !self.left.contains(l)).copied().collect()
    }

    /// Every position's load id, 0 for empty: the retentive memory.
    pub fn snapshot(&self) -> Vec<u32> {
        self.at.iter().map(|l| LoadId::raw(*l)).collect()
    }

    /// Every load of the plant.
    pub fn all(&self) -> impl Iterator<Item = LoadId> {
        self.at.iter().flatten().copied()
    }

    /// How many loads have left.
    pub fn left(&self) -> usize {
        self.left.len()
    }
}
