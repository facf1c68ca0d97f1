//! Two lifts on one mast: the lower one stays below the upper one.
//!
//! ```text
//!      ┆ [upper]  at 6 m, going to 9 m     will be in 6 .. 9
//!      ┆
//!      ┆ [lower]  wants to go to 5 m       allowed: below 6 by the gap; to 7 m: not yet
//! ```
//!
//! A lift goes only where it stays out of all that the other will still be in: from where it was last seen to where it is told to
//! go. What was seen a poll ago lies behind it, so this errs on the careful side. A lift with nothing to do makes way before it
//! looks for something to do; where both have something to do and are in each other's way, the upper one makes way.

use crate::command::Progress;
use crate::floor::{Floor, MAST_GAP_MM as GAP_MM, MachineKind};
use crate::image::{Command, InputImage, Quality};
use crate::units::{MachineId, PosId};

fn mast_of(floor: &Floor<'_>, id: MachineId) -> Option<u16> {
    match floor.machine(id)?.kind {
        MachineKind::Lift { mast, .. } => Some(mast),
        _ => None,
    }
}

/// The other lift on its mast.
fn neighbour(floor: &Floor<'_>, id: MachineId) -> Option<MachineId> {
    let mast = mast_of(floor, id)?;
    [id.0.checked_sub(1), id.0.checked_add(1)]
        .into_iter()
        .flatten()
        .map(MachineId)
        .find(|other| mast_of(floor, *other) == Some(mast))
}

/// Where a lift still will be: from where it was seen to where it is told to go. One that cannot be seen may be anywhere.
fn span(
    floor: &Floor<'_>,
    image: &InputImage<'_>,
    id: MachineId,
    flight: Option<(Command, Progress)>,
) -> Option<(u32, u32)> {
    let seen = image.machine(id);
    if seen.quality != Quality::Good {
        return None;
    }
    let at = u32::from(seen.value.at);
    let to = flight.map_or(at, |(command, _)| floor.stop_mm(id, command.pos));
    Some((at.min(to), at.max(to)))
}

/// Whether a machine may go to this height. A machine that shares no mast may always.
pub(crate) fn allows(
    floor: &Floor<'_>,
    image: &InputImage<'_>,
    id: MachineId,
    to_mm: u32,
    flight: impl Fn(MachineId) -> Option<(Command, Progress)>,
) -> bool {
    let Some(other) = neighbour(floor, id) else { return true };
    let Some((low, high)) = span(floor, image, other, flight(other)) else { return false };
    let at = u32::from(image.machine(id).value.at);
    if id < other { at.max(to_mm) + GAP_MM <= low } else { at.min(to_mm) >= high + GAP_MM }
}

/// Whether a lift is the upper one of two.
pub(crate) fn is_upper(floor: &Floor<'_>, id: MachineId) -> bool {
    neighbour(floor, id).is_some_and(|other| other < id)
}

/// Where a lift goes so that the other one can go where it wants to; `None` when it need not.
pub(crate) fn make_way(
    floor: &Floor<'_>,
    image: &InputImage<'_>,
    id: MachineId,
    wanted: impl Fn(MachineId) -> Option<PosId>,
) -> Option<PosId> {
    let other = neighbour(floor, id)?;
    let own = u32::from(image.machine(id).value.at);
    let wanted = floor.stop_mm(other, wanted(other)?);
    let lower = id < other;
    let in_the_way = if lower { own + GAP_MM > wanted } else { own < wanted + GAP_MM };
    if !in_the_way {
        return None;
    }
    // The nearest stop of its own that is out of the way.
    let stops = floor.sources(id).iter().filter_map(|z| floor.zone(*z)).map(|z| z.exit());
    let height = |pos: &PosId| floor.stop_mm(id, *pos);
    let clear = |pos: &PosId| if lower { height(pos) + GAP_MM <= wanted } else { height(pos) >= wanted + GAP_MM };
    stops.filter(clear).min_by_key(|pos| height(pos).abs_diff(own))
}
