//! The lift: moves loads between the transfer points of the tiers and the conveyors at its foot.

use crate::layout::{Conveyor, End, Layout, Place};
use crate::order::Goal;
use crate::units::PosId;

/// Where the lift puts a load that it can reach and that has to go to `goal`.
pub fn target(layout: &Layout, goal: Goal) -> Option<PosId> {
    let place = match goal {
        Goal::Home(bay) => Place::TransferIn(layout.tier(bay)?),
        Goal::Outside => Place::Belt(Conveyor::Outfeed, End::Entry),
        Goal::Cell => Place::Belt(Conveyor::Feed, End::Entry),
        Goal::Nowhere => return None,
    };
    Some(layout.pos(place))
}
