//! Who hits whom. A mobile robot is in the way at the place it has reached last and, while it drives, at the next; two lifts on one
//! mast may not come nearer than [`MAST_GAP_M`].

use super::machine::Machine;
use control_core::floor::MachineKind;
use control_core::traffic::roads::Place;
use control_core::units::MachineId;
use floor_plan::FloorPlan;
use std::collections::BTreeSet;

/// Two lifts on one mast touch below this, metres.
const MAST_GAP_M: f64 = 0.3;

const NOBODY: u16 = u16::MAX;

/// Notices collisions.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Who is at each place.
    who: Vec<u16>,
    robots: Vec<MachineId>,
    masts: Vec<(MachineId, MachineId)>,
    /// Pairs that touch now: a meeting counts once.
    touching: BTreeSet<(u16, u16)>,
    count: u64,
    first: Option<String>,
}

impl Watch {
    pub(super) fn new(plan: &FloorPlan) -> Watch {
        let floor = plan.view();
        let mast = |id: MachineId| match floor.machine(id)?.kind {
            MachineKind::Lift { mast } => Some(mast),
            _ => None,
        };
        let next = |id: MachineId| MachineId(id.0 + 1);
        let masts = floor.machine_ids().filter(|id| mast(*id).is_some() && mast(*id) == mast(next(*id)));
        Watch {
            who: vec![NOBODY; floor.roads().places()],
            robots: floor.robots().map(|(id, ..)| id).collect(),
            masts: masts.map(|id| (id, next(id))).collect(),
            touching: BTreeSet::new(),
            count: 0,
            first: None,
        }
    }

    /// Meetings so far.
    pub(super) fn collisions(&self) -> u64 {
        self.count
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Looks at everybody.
    pub(super) fn look(&mut self, plan: &FloorPlan, machines: &[Machine], time_s: f64) {
        let mut found = Vec::new();
        let places = |id: MachineId| {
            let robot = machines.get(usize::from(id.0)).and_then(Machine::robot);
            robot.into_iter().flat_map(|r| [Some(r.at()), r.towards()].into_iter().flatten())
        };
        for id in &self.robots {
            for place in places(*id) {
                let Some(slot) = self.who.get_mut(usize::from(place)) else { continue };
                if *slot != NOBODY && *slot != id.0 {
                    found.push((*slot, id.0, place));
                }
                *slot = id.0;
            }
        }
        let floor = plan.view();
        let roads = floor.roads();
        for id in &self.robots {
            for place in places(*id) {
                for near in roads.near(place) {
                    let other = self.who.get(usize::from(*near)).copied().unwrap_or(NOBODY);
                    if other != NOBODY && other > id.0 {
                        found.push((id.0, other, place));
                    }
                }
            }
        }
        for id in &self.robots {
            for place in places(*id) {
                if let Some(slot) = self.who.get_mut(usize::from(place)) {
                    *slot = NOBODY;
                }
            }
        }
        let height = |id: MachineId| machines.get(usize::from(id.0)).map_or(0.0, Machine::position);
        for (lower, upper) in &self.masts {
            if height(*lower) + MAST_GAP_M > height(*upper) {
                found.push((lower.0, upper.0, Place::MAX));
            }
        }
        if found.is_empty() && self.touching.is_empty() {
            return;
        }
        let now: BTreeSet<(u16, u16)> = found.iter().map(|(a, b, _)| (*a.min(b), *a.max(b))).collect();
        for pair in now.difference(&self.touching) {
            self.count += 1;
            let place = found.iter().find(|(a, b, _)| (*a.min(b), *a.max(b)) == *pair).map(|(.., p)| *p);
            let name = |n: u16| plan.machine_name(MachineId(n));
            let text = || format!("{} and {} at place {place:?} after {time_s:.2} s", name(pair.0), name(pair.1));
            self.first.get_or_insert_with(text);
        }
        self.touching = now;
    }
}
