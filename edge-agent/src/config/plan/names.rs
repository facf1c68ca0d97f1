//! Names: what people call the numbers the core works with. Numbers where there is no floor.

use control_core::units::{DomainId, MachineId, PosId};
use floor_plan::FloorPlan;
use std::sync::Arc;

/// What machines and positions of a floor are called.
#[derive(Clone, Debug, Default)]
pub struct FloorNames(Option<Arc<FloorPlan>>);

impl FloorNames {
    /// The names of a floor; without one, numbers.
    pub fn of(plan: Option<Arc<FloorPlan>>) -> FloorNames {
        FloorNames(plan)
    }

    /// Every machine of the floor.
    pub fn machine_ids(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.0.as_ref().map_or(0, |p| p.machine_count() as u16)).map(MachineId)
    }

    /// The name of a machine.
    pub fn machine(&self, id: MachineId) -> String {
        let known = self.0.as_ref().filter(|p| usize::from(id.0) < p.machine_count());
        known.map_or_else(|| format!("machine-{}", id.0), |p| p.machine_name(id).to_string())
    }

    /// A machine by its name.
    pub fn find(&self, name: &str) -> Option<MachineId> {
        self.0.as_ref()?.machine(name)
    }

    /// The name of a position.
    pub fn position(&self, pos: PosId) -> String {
        let known = self.0.as_ref().filter(|p| usize::from(pos.0) < p.position_count());
        known.map_or_else(|| format!("position-{}", pos.0), |p| p.position_name(pos).to_string())
    }

    /// Every position with its name.
    pub fn positions(&self) -> impl Iterator<Item = (PosId, String)> + '_ {
        let count = self.0.as_ref().map_or(0, |p| p.position_count());
        (0..count).filter_map(|n| u16::try_from(n).ok()).map(|n| (PosId(n), self.position(PosId(n))))
    }

    /// The name of a place on the roads; one without a name is told by where it is.
    pub fn place(&self, place: u16) -> String {
        let Some(plan) = &self.0 else { return format!("place-{place}") };
        match (plan.place_names.get(&place), plan.place_spots.get(usize::from(place))) {
            (Some(name), _) => name.clone(),
            (None, Some(spot)) => format!("x {:.1} y {:.1}", spot.x, spot.y),
            (None, None) => format!("place-{place}"),
        }
    }

    /// The domain of a machine.
    pub fn domain_of(&self, id: MachineId) -> Option<DomainId> {
        self.0.as_ref()?.view().machine(id).map(|m| m.domain)
    }

    /// Every domain with its name: that of its aisle, station, robot or belt.
    pub fn domains(&self) -> Vec<(DomainId, String)> {
        let Some(plan) = &self.0 else { return Vec::new() };
        let floor = plan.view();
        let name = |id: DomainId| {
            let info = floor.tables().domains.get(usize::from(id.0))?;
            let aisle =
                plan.aisles.iter().find(|a| a.shuttles.first().is_some_and(|s| info.machines().any(|m| m == *s)));
            match (aisle, info.machines().next(), info.sensed().next()) {
                (Some(aisle), ..) if aisle.name.is_empty() => Some("aisle".to_string()),
                (Some(aisle), ..) => Some(aisle.name.clone()),
                (None, Some(machine), _) => Some(plan.machine_name(machine).to_string()),
                (None, None, Some(pos)) => floor.zone_of(pos).map(|(zone, _)| plan.zone_name(zone).to_string()),
                _ => None,
            }
        };
        floor.domains().map(|(id, _)| (id, name(id).unwrap_or_else(|| format!("domain-{}", id.0)))).collect()
    }

    /// The groups of stations; their numbers are their places here.
    pub fn groups(&self) -> Vec<String> {
        self.0.as_ref().map_or_else(Vec::new, |p| p.groups().to_vec())
    }
}
