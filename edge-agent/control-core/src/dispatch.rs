//! Which leg comes next for a load.
//!
//! ```text
//!   bay ──shuttle──> lane out ──lift──> belt ══> ──robot──> port ══> ──station──> port ══> ──robot──> belt ══> ──lift──> lane in ─┐
//!    ^                          └──> belt ══> outside                                                                            │
//!    └──shuttle──────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Why this cannot lock.** A leg is started only when its target has been promised, so a machine that carries a load
//! can always put it down. A load going back into the rack has its bay promised from the start, on the tier whose
//! lane it takes, so a lane into a tier always empties; hence the lift can always clear the belts that come in; hence robots can
//! always clear the ports of stations; hence stations can always clear what they are fed with; hence robots can always clear
//! the belts that go out; hence the lift can always clear the lanes out of the tiers. Every chain of waits ends at a machine that
//! can move. What threatens this is what comes from outside, after a restart or a person's hand: a load on a lane into a tier is
//! therefore promised a bay of that tier before anybody else, an order begins with its load in a bay, and a load on its way for
//! which there is no bay leaves the plant. Where shuttles change tier, one comes to every tier that has work (`ride`).

use crate::floor::{Beyond, Floor, Mover, NEVER, ZoneKind};
use crate::image::InputImage;
use crate::order::{Goal, Order, Orders};
use crate::stock::Stock;
use crate::units::{LoadId, Millis, OrderId, PosId};

/// What has to happen next to a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Somebody takes it there.
    Carry {
        /// Who.
        by: Mover,
        /// Where to.
        target: PosId,
    },
    /// A lane has it; it will appear at the lane's end by itself. Or nothing can be done at present.
    Wait,
    /// It is where it should be.
    Arrived,
    /// It has left the plant and cannot be brought to its goal.
    Gone,
}

/// The next leg of a load that is at `here` and has to go to `goal`. Looks at the links of its zone.
pub fn next_leg(floor: &Floor<'_>, stock: &Stock<'_>, load: LoadId, here: PosId, goal: Goal) -> Leg {
    if goal == Goal::Home(here) {
        return Leg::Arrived;
    }
    let Some((id, zone)) = floor.zone_of(here) else { return Leg::Wait };
    if zone.kind == ZoneKind::Lane {
        if here != zone.exit() {
            return Leg::Wait;
        }
        if zone.beyond == Beyond::Departures {
            return if goal == Goal::Outside { Leg::Arrived } else { Leg::Gone };
        }
        if let (Goal::Station(wanted), Some(station)) = (goal, zone.feeds)
            && wanted == station
        {
            let Some(info) = floor.station(station) else { return Leg::Wait };
            let target = floor.zone(info.output).map_or(here, |z| z.entry());
            return Leg::Carry { by: Mover::Machine(info.machine), target };
        }
    }
    let Some(goal_zone) = Orders::goal_zone(floor, stock, id, goal) else { return Leg::Wait };
    let from_here = floor.hops(id, goal_zone);
    // A shuttle that changes tier does so without a load: what is on it goes on from the tier it stands on.
    let tier = match zone.kind {
        ZoneKind::Deck(machine) => floor.rack_of(machine).map(|_| stock.tier(floor, machine)),
        _ => None,
    };
    let on_tier = |to| tier.is_none_or(|tier| tier.is_some_and(|t| t.has(to)));
    let entry = |to| match (floor.zone(to), goal) {
        (Some(z), Goal::Home(bay)) if z.contains(bay) => Some(bay),
        (Some(z), _) if z.kind == ZoneKind::Lane => Some(z.entry()),
        _ => None,
    };
    floor
        .links(id)
        .iter()
        .filter_map(|link| {
            let hops = floor.hops(link.to, goal_zone);
            let nearer =
                hops < from_here || (id == goal_zone && link.to == goal_zone) || (tier.is_some() && hops < NEVER);
            let target = entry(link.to).filter(|_| nearer && on_tier(link.to) && !floor.is_closed(link.to))?;
            let full = !stock.free_for(floor, target, load);
            // Of two lifts the one that can be commanded.
            let out = stock.is_mover_out(link.by);
            Some(((out, hops, full, stock.promised(link.to), target), target, link.by))
        })
        .min_by_key(|(key, ..)| *key)
        .map_or(Leg::Wait, |(_, target, by)| Leg::Carry { by, target })
}

/// A leg that a machine has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// For which order.
    pub order: OrderId,
    /// Its slot in the table of orders.
    pub(crate) slot: u16,
    /// Which load.
    pub load: LoadId,
    /// Where it stands.
    pub source: PosId,
    /// Where it goes; promised.
    pub target: PosId,
    /// Program, for a station.
    pub program: u16,
}

/// A leg that could be started now.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// By whom.
    pub by: Mover,
    /// What it would be.
    pub task: Task,
    /// Class of its order, aged.
    pub class: u8,
    /// The smaller, the sooner.
    pub urgency: u64,
}

/// What the sensors have to say before a leg is started: the load stands at the source, the target is empty.
/// A deck is vouched for by its machine's status; a position that cannot be seen permits nothing.
pub fn sensors_agree(floor: &Floor<'_>, image: &InputImage<'_>, now: Millis, limit_ms: u64, task: &Task) -> bool {
    stands_there(floor, image, now, limit_ms, task.source, task.load) && is_empty(image, now, limit_ms, task.target)
}

/// Whether a load is seen where it is believed to be.
pub fn stands_there(
    floor: &Floor<'_>,
    image: &InputImage<'_>,
    now: Millis,
    limit_ms: u64,
    source: PosId,
    load: LoadId,
) -> bool {
    match floor.deck_of(source) {
        Some(machine) => image.machine(machine).value.load == Some(load),
        None => image.position(source).fresh(now, limit_ms) == Some(&Some(load)),
    }
}

/// Whether a position is seen to be empty.
pub fn is_empty(image: &InputImage<'_>, now: Millis, limit_ms: u64, target: PosId) -> bool {
    image.position(target).fresh(now, limit_ms) == Some(&None)
}

/// The leg an order could start now, if any: not waiting, not on its way, target free, nothing before it.
pub fn candidate(floor: &Floor<'_>, stock: &Stock<'_>, slot: u16, order: &Order, now: Millis) -> Option<Candidate> {
    let source = order.at?;
    if order.under_way
        || order.withdrawn
        || order.is_in_doubt()
        || now < order.retry_at
        || is_blocked(floor, stock, source)
    {
        return None;
    }
    let load = order.request.load;
    if floor.zone_of(source).is_some_and(|(id, _)| floor.is_closed(id)) {
        return None;
    }
    let Leg::Carry { by, target } = next_leg(floor, stock, load, source, order.goal()) else { return None };
    if !stock.free_for(floor, target, load) || is_blocked(floor, stock, target) {
        return None;
    }
    let station = floor.zone_of(source).and_then(|(_, z)| z.feeds);
    let program = station.map_or(0, |s| order.program(s));
    Some(Candidate {
        by,
        task: Task { order: order.request.id, slot, load, source, target, program },
        class: order.effective_class(now),
        urgency: order.urgency(now),
    })
}

/// Whether a bay cannot be reached because something stands before it.
pub fn is_blocked(floor: &Floor<'_>, stock: &Stock<'_>, pos: PosId) -> bool {
    floor.position(pos).and_then(|p| p.front).is_some_and(|front| stock.at(front).is_some())
}
