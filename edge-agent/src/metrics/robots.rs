//! Mobile robots, counted: from what the control thread shows and what they report.

use crate::control::{ROBOT_STATES, RobotShown, RobotState, ShownDesk};
use crate::desk::stray_text;
use crate::field::ImageStage;
use control_core::image::Quality;
use control_core::units::MachineId;
use floor_plan::FloorPlan;
use std::sync::Arc;

/// A mobile robot, for who looks after it.
#[derive(Clone, Debug, PartialEq)]
pub struct RobotSeen {
    /// Its name.
    pub name: String,
    /// It does not come nearer, and no way out was found.
    pub jammed: bool,
    /// Why it cannot be where it says it is, in words.
    pub astray: Option<String>,
    /// Charge of its battery, 0 to 1; `None` while it cannot be seen.
    pub charge: Option<f64>,
}

/// Looks at the mobile robots of a floor.
pub struct RobotWatch {
    plan: Option<Arc<FloorPlan>>,
    robots: Vec<MachineId>,
    stage: ImageStage,
    shown: Arc<ShownDesk>,
}

impl RobotWatch {
    /// Of this floor; without one there are none.
    pub fn new(plan: Option<Arc<FloorPlan>>, stage: ImageStage, shown: Arc<ShownDesk>) -> RobotWatch {
        let robots = plan.as_ref().map_or_else(Vec::new, |p| p.view().robots().map(|(id, ..)| id).collect());
        RobotWatch { plan, robots, stage, shown }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.robots.is_empty()
    }

    /// A robot by its name, or by its place in the scene's list.
    pub fn find(&self, said: &str) -> Option<MachineId> {
        let plan = self.plan.as_ref()?;
        let is_meant = |id: &&MachineId| plan.machine_name(**id) == said || said.parse() == Ok(id.0);
        self.robots.iter().find(is_meant).copied()
    }

    /// The name of one.
    pub fn name(&self, id: MachineId) -> String {
        self.plan.as_ref().map_or("?", |p| p.machine_name(id)).to_string()
    }

    /// Whether it can be seen.
    pub fn is_seen(&self, id: MachineId) -> bool {
        self.stage.look(|image, _| image.machine(id).quality == Quality::Good)
    }

    /// How many are in each state.
    pub fn counts(&self) -> [u64; ROBOT_STATES.len()] {
        self.shown.look(|s| s.count(self.robots.iter().copied()))
    }

    /// Gates there are.
    pub fn gates(&self) -> u64 {
        self.plan.as_ref().map_or(0, |p| p.proof.regions.len() as u64)
    }

    /// Gates for which a robot holds a pass.
    pub fn gates_occupied(&self) -> u64 {
        self.shown.look(|s| s.gates_occupied())
    }

    fn charge(&self) -> Vec<Option<f64>> {
        self.stage.look(|image, _| {
            let of = |id: &MachineId| {
                let seen = image.machine(*id);
                (seen.quality == Quality::Good).then(|| f64::from(seen.value.charge.min(1000)) / 1000.0)
            };
            self.robots.iter().map(of).collect()
        })
    }

    fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.robots.iter().map(|id| self.name(*id))
    }

    /// Charge of each battery, 0 to 1, by name; those that cannot be seen are left out.
    pub fn charges(&self) -> Vec<(String, f64)> {
        self.names().zip(self.charge()).filter_map(|(name, charge)| Some((name, charge?))).collect()
    }

    /// Every robot.
    pub fn seen(&self) -> Vec<RobotSeen> {
        if !self.any() {
            return Vec::new();
        }
        let shown: Vec<RobotShown> = self.shown.look(|s| self.robots.iter().map(|id| s.machine(*id).robot).collect());
        let place = |p| self.plan.as_ref().map_or_else(String::new, |plan| plan.place_name(p));
        let all = self.names().zip(shown).zip(self.charge());
        let seen = all.map(|((name, shown), charge)| {
            let counts_as = shown.path().first().map(|p| place(*p));
            let astray = shown.stray.map(|(why, says)| stray_text(why, &place(says), counts_as.as_deref()));
            RobotSeen { name, jammed: shown.state == RobotState::Jammed, astray, charge }
        });
        seen.collect()
    }

    /// Names of load positions at which something waits to which no robot can come.
    pub fn nobody_comes(&self) -> Vec<String> {
        let Some(plan) = &self.plan else { return Vec::new() };
        self.shown.look(|s| s.nobody_comes().iter().map(|pos| plan.position_name(*pos).to_string()).collect())
    }
}
