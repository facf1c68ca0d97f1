//! The tier-captive shuttle: moves loads between the bays of its tier and the tier's two transfer points.

use crate::layout::{Layout, Place};
use crate::order::Goal;
use crate::units::{PosId, Tier};

/// Where the shuttle of `tier` puts a load that it can reach and that has to go to `goal`.
pub fn target(layout: &Layout, tier: Tier, goal: Goal) -> Option<PosId> {
    match goal {
        Goal::Home(bay) if layout.tier(bay) == Some(tier) => Some(bay),
        Goal::Home(_) | Goal::Outside | Goal::Cell => Some(layout.pos(Place::TransferOut(tier))),
        Goal::Nowhere => None,
    }
}
