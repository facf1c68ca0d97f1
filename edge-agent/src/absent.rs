//! Mobile robots of which a person says that they are not on the floor: that outlives the process.

use crate::store::{Fact, Keep, Recalled, Stands, facts};
use control_core::cycle::Request;
use control_core::units::MachineId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The absent ones by name, and whether each could be seen when that was said: then it comes back by a person's word alone.
#[derive(Default)]
pub struct Absent {
    keep: Keep,
    robots: Mutex<BTreeMap<String, bool>>,
}

impl Absent {
    /// Those of an earlier run; what is said from now on is written down.
    pub fn new(keep: Keep, left: &Recalled) -> Absent {
        Absent { keep, robots: Mutex::new(left.absent.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.robots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the control thread is to be told of those of an earlier run; `find` knows their numbers.
    pub fn requests(&self, find: impl Fn(&str) -> Option<MachineId>) -> Vec<Request> {
        let request = |(name, seen): (&String, &bool)| {
            let id = find(name)?;
            Some(if *seen { Request::TakenOff(id) } else { Request::Absent(id) })
        };
        self.lock().iter().filter_map(request).collect()
    }

    /// A person says that a robot is not on the floor; it could be `seen` or not.
    pub fn leaves(&self, robot: &str, seen: bool) {
        self.lock().insert(robot.into(), seen);
        self.keep.note(facts::Robot { robot: robot.into(), absent: true, seen });
    }

    /// A person says that it is where it says.
    pub fn comes_back(&self, robot: &str) {
        if self.lock().remove(robot).is_some() {
            self.keep.note(facts::Robot { robot: robot.into(), absent: false, seen: true });
        }
    }
}

impl Stands for Absent {
    fn stands(&self, _: u64, fact: &Fact) -> bool {
        matches!(fact, Fact::Robot(said) if said.absent && self.lock().contains_key(&said.robot))
    }
}
