//! What tests of the closed loop share.
#![allow(dead_code)] // not every test needs all of it

use control_core::floor::ZoneKind;
use control_core::order::{OrderRequest, Stops};
use control_core::units::{LoadId, MachineId, OrderId, PosId};
use floor_plan::{Arena, FloorPlan};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};

/// The plant of the demo's small floor.
pub(crate) fn demo() -> PlantConfig {
    PlantConfig::from_toml(include_str!("../small.toml")).unwrap()
}

/// Memory for controllers; a test ends soon enough.
pub(crate) fn arena() -> &'static Arena {
    Box::leak(Box::default())
}

pub(crate) fn closed_loop(config: PlantConfig, seed: u64, faults: LinkFaults) -> ClosedLoop<'static> {
    ClosedLoop::new(arena(), config, seed, faults).unwrap()
}

pub(crate) fn order(id: u32, load: LoadId, stops: Stops, class: u8, wait_ms: u32) -> OrderRequest {
    OrderRequest { class, wait_ms, ..OrderRequest::new(OrderId(id), load, stops) }
}

pub(crate) fn machine(plan: &FloorPlan, name: &str) -> MachineId {
    plan.machine(name).unwrap_or_else(|| panic!("no machine {name}"))
}

pub(crate) fn deck(plan: &FloorPlan, id: MachineId) -> PosId {
    plan.view().machine(id).unwrap().deck
}

/// Positions that are no bays and where nothing may be left standing, decks too.
pub(crate) fn passages(plan: &FloorPlan) -> Vec<PosId> {
    plan.view().zone_ids().filter(|(_, z)| z.kind != ZoneKind::Bays).flat_map(|(_, z)| z.positions()).collect()
}

/// `LIGHTSOUT_SEED` alone, or so many.
pub(crate) fn seeds(default: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("LIGHTSOUT_SEED") {
        Ok(seed) => vec![seed.parse().expect("LIGHTSOUT_SEED is a number")],
        Err(_) => default.collect(),
    }
}
