//! Gates: narrow parts of the floor, each with a number of passes.
//!
//! ```text
//!      ====o====o====o====        o open road, any vehicle may be pushed along it
//!               │
//!              [r]  station       r a region with one pass: only who holds it comes in, nobody is pushed in
//! ```
//!
//! In a dead end or a tunnel nobody can be pushed out of the way. So one vehicle at a time is in it, or as many as fit that all
//! come in at the same end. Who is inside goes before those outside, so the mouth is always cleared for it.

use super::Traffic;
use super::planner::PASSES;
use super::roads::{FAR, Goal, NO_GOAL, NO_POSE, OPEN, Place, Pose, Region, Roads};
use crate::storage::{Storage, put};

/// Poses that are looked along to find the next region.
const LOOK_AHEAD: usize = 24;
/// Steps from the mouth at which those without a pass wait.
const WAIT_AT: u16 = 3;

#[derive(Clone, Copy, Debug)]
struct Gate {
    holders: u16,
    /// Whose turn it is: by when, and who.
    best: (u32, u16),
    /// Where the last one came in.
    entry: Place,
    best_entry: Place,
    /// How many have come in there in a row.
    row: u16,
    asked_elsewhere: bool,
}

const NOBODY: (u32, u16) = (u32::MAX, u16::MAX);

/// All gates of a floor.
#[derive(Debug)]
pub(super) struct Gates<'m> {
    gates: &'m mut [Gate],
}

impl<'m> Gates<'m> {
    pub(super) fn new(storage: &impl Storage<'m>, regions: usize) -> Gates<'m> {
        let gate = Gate { holders: 0, best: NOBODY, entry: 0, best_entry: 0, row: 0, asked_elsewhere: false };
        Gates { gates: storage.slice(regions, gate) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    /// A vehicle is found inside.
    pub(super) fn admit(&mut self, region: Region) {
        if let Some(gate) = self.gates.get_mut(usize::from(region)) {
            gate.holders = gate.holders.saturating_add(1);
        }
    }

    /// A pass comes back.
    pub(super) fn release(&mut self, region: Region) {
        if let Some(gate) = self.gates.get_mut(usize::from(region)) {
            gate.holders = gate.holders.saturating_sub(1);
        }
    }

    /// Whether more are in a region, or may go in, than there are passes: a search has moved somebody in. Who is outside still has to
    /// wait its turn again.
    pub(super) fn is_overfull(&self, roads: &Roads<'_>, region: Region) -> bool {
        let capacity = roads.capacities().get(usize::from(region)).copied().unwrap_or(1);
        self.gates.get(usize::from(region)).is_some_and(|gate| gate.holders > capacity)
    }

    pub(super) fn begin(&mut self) {
        for gate in self.gates.iter_mut() {
            (gate.best, gate.asked_elsewhere) = (NOBODY, false);
        }
    }

    /// A vehicle needs a pass; it would come in from `entry`.
    pub(super) fn ask(&mut self, vehicle: u16, region: Region, entry: Place, turn: u32) {
        let Some(gate) = self.gates.get_mut(usize::from(region)) else { return };
        gate.asked_elsewhere |= entry != gate.entry;
        if (turn, vehicle) < gate.best {
            (gate.best, gate.best_entry) = ((turn, vehicle), entry);
        }
    }

    /// Gives one pass, if there is one to give. Each region gives at most one a step.
    pub(super) fn grant(&mut self, roads: &Roads<'_>) -> Option<(u16, Region)> {
        for (region, gate) in (0..).zip(self.gates.iter_mut()) {
            if gate.best == NOBODY {
                continue;
            }
            let (vehicle, entry) = (gate.best.1, gate.best_entry);
            gate.best = NOBODY;
            let capacity = roads.capacities().get(usize::from(region)).copied().unwrap_or(1);
            // In a row only from one end, and not for ever while somebody waits at the other.
            let joins =
                entry == gate.entry && gate.holders < capacity && !(gate.asked_elsewhere && gate.row >= capacity);
            if gate.holders > 0 && !joins {
                continue;
            }
            gate.row = if entry == gate.entry { gate.row.saturating_add(1) } else { 1 };
            (gate.entry, gate.holders) = (entry, gate.holders + 1);
            return Some((vehicle, region));
        }
        None
    }

    /// How far a vehicle keeps from its goal, because it has no pass for what lies before it: as far as the mouth, and a little
    /// more. 0 when it may go on.
    pub(super) fn keep_off(&self, roads: &Roads<'_>, passes: &[Region; PASSES], goal: Goal, frontier: Pose) -> u16 {
        // Who is inside a region does not wait there: others wait for it.
        let inside = roads.region(roads.place(frontier)) != OPEN;
        if self.is_empty() || goal == NO_GOAL || frontier == NO_POSE || inside {
            return 0;
        }
        match next_regions(roads, goal, frontier).first() {
            Some((region, mouth)) if !passes.contains(region) => {
                roads.from_place(goal, *mouth).saturating_add(WAIT_AT * roads.unit()).min(FAR - 1)
            }
            _ => 0,
        }
    }
}

impl Traffic<'_> {
    /// Whether any of a vehicle's path, or of what it does next, is in a region.
    fn is_in(&self, roads: &Roads<'_>, vehicle: u16, region: Region) -> bool {
        let track = self.planner.track(vehicle);
        self.path(vehicle).chain(track).any(|p| roads.region(p) == region)
    }

    /// Whoever a search has moved into a region has a pass for it from then on.
    fn admit_whom_a_search_has_moved(&mut self, roads: &Roads<'_>) {
        for vehicle in 0..self.vehicles() as u16 {
            let mut d = self.driver(vehicle);
            let here = roads.region(roads.place(self.planner.pose(vehicle)));
            if here != OPEN && !d.passes.contains(&here) {
                let free = d.passes.iter().position(|p| *p == OPEN);
                let spare = || d.passes.iter().position(|p| !self.is_in(roads, vehicle, *p));
                let slot = free.or_else(spare).unwrap_or(0);
                if let Some(pass) = d.passes.get_mut(slot) {
                    self.gates.release(*pass);
                    *pass = here;
                    self.gates.admit(here);
                }
                put(self.drivers, usize::from(vehicle), d);
            }
        }
    }

    /// Passes that are not needed any more are given back; who needs one most gets it.
    pub(super) fn give_passes(&mut self, roads: &Roads<'_>) {
        if self.gates.is_empty() {
            return;
        }
        self.gates.begin();
        self.admit_whom_a_search_has_moved(roads);
        for vehicle in 0..self.vehicles() as u16 {
            let mut d = self.driver(vehicle);
            let pose = self.planner.pose(vehicle);
            if pose == NO_POSE {
                continue;
            }
            let ahead = next_regions(roads, d.goal, pose);
            for pass in d.passes.iter_mut().filter(|p| **p != OPEN) {
                let inside = self.is_in(roads, vehicle, *pass);
                let goes_in = ahead.iter().any(|(region, _)| region == pass) && !self.gates.is_overfull(roads, *pass);
                if !inside && !goes_in {
                    self.gates.release(*pass);
                    *pass = OPEN;
                }
            }
            put(self.drivers, usize::from(vehicle), d);
            if let Some((region, entry)) = ahead.first().copied()
                && !d.passes.contains(&region)
            {
                self.gates.ask(vehicle, region, entry, d.turn);
            }
        }
        while let Some((vehicle, region)) = self.gates.grant(roads) {
            let mut d = self.driver(vehicle);
            match d.passes.iter_mut().find(|p| **p == OPEN) {
                Some(slot) => *slot = region,
                None => self.gates.release(region),
            }
            put(self.drivers, usize::from(vehicle), d);
        }
    }
}

/// The regions that a vehicle comes to next on its way, with the last place before each. Its own is left out.
fn next_regions(roads: &Roads<'_>, goal: Goal, pose: Pose) -> heapless::Vec<(Region, Place), PASSES> {
    let mut found = heapless::Vec::new();
    let distances = roads.distances(goal);
    let far = |p: Pose| distances.get(p as usize).copied().unwrap_or(FAR);
    let (mut here, mut place) = (pose, roads.place(pose));
    let mut region = roads.region(place);
    for _ in 0..LOOK_AHEAD {
        let next = (0..super::roads::WAYS)
            .map(|way| roads.after(here, way))
            .filter(|p| *p != NO_POSE)
            .min_by_key(|p| far(*p))
            .filter(|p| far(*p) < far(here));
        let Some(next) = next else { break };
        let (to, to_region) = (roads.place(next), roads.region(roads.place(next)));
        if to_region != OPEN && to_region != region && found.push((to_region, place)).is_err() {
            break;
        }
        (here, place, region) = (next, to, to_region);
    }
    found
}
