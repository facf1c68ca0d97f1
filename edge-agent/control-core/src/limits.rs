//! How much there may be, and how much is done in one cycle. Capacities follow from the floor and are chosen when the core is
//! made ([`Capacity`]); what a cycle may do at most stands here, each with its reason.

use crate::floor::Floor;
use crate::traffic;

/// Requests read from outside in one cycle. At a period of 10 ms that is 400 a second, far above what a floor can move, and keeps
/// the work of a cycle bounded.
pub const REQUESTS_PER_CYCLE: usize = 4;

/// Machines looked at in one cycle for a word that all may go on: a thousand take a sixth of a second, and their events fit.
pub const ACKNOWLEDGED_PER_CYCLE: u16 = 64;

/// Events of one cycle. What comes beyond is counted as lost.
pub const EVENTS_PER_CYCLE: usize = 256;

/// Tries at one order before it is given up and told so.
pub const ATTEMPTS_MAX: u8 = 5;

/// Orders of one zone that are looked at for one choice: the oldest, classes apart. What lies behind them has to wait anyway.
pub const SCAN: usize = 64;

/// Places of a drive command: what fits into the words of a command block that a drive does not need otherwise.
pub const PATH_PLACES: usize = 5;

/// Stops of one order.
pub const STOPS_MAX: usize = 4;

/// Positions whose belief is compared with their sensor in one cycle. At 10 ms an aisle of a thousand takes half a second.
pub const AUDIT_PER_CYCLE: u16 = 16;

/// Orders that are looked at in one cycle whether they have ended: at 10 ms four thousand take half a second.
pub const SETTLE_PER_CYCLE: usize = 64;

/// Robots and loads that are matched at once; beyond that the most urgent loads are, with the robots nearest to them.
pub const ASSIGN_MAX: usize = 64;

/// Places at which robots show up unexpectedly and that are looked at in one cycle: each may cost a look at every place of the roads.
/// Who comes later is in the way where it was till the next cycle.
pub const LOOKS_PER_CYCLE: u8 = 4;

/// Load positions to which no robot can come, of which that is told at once. They are shown to people; more help nobody.
pub const NOBODY_COMES_MAX: usize = 32;

/// Areas with a cap.
pub const AREAS_MAX: usize = 64;

/// How large a core is.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Machines.
    pub machines: usize,
    /// Load positions.
    pub positions: usize,
    /// Zones.
    pub zones: usize,
    /// Domains.
    pub domains: usize,
    /// Orders that are not ended. What comes beyond is refused with a reason: a queue that would take an hour to drain belongs
    /// to the system that plans, not to the one that moves.
    pub orders: usize,
    /// The road map.
    pub traffic: traffic::Size,
}

impl Capacity {
    /// What a floor needs, with so many orders.
    pub fn of(floor: &Floor<'_>, orders: usize) -> Capacity {
        let vehicles = floor.robots().count();
        Capacity {
            machines: usize::from(floor.machines()),
            positions: usize::from(floor.positions()),
            zones: usize::from(floor.zones()),
            domains: floor.tables().domains.len(),
            orders,
            traffic: traffic::Size {
                vehicles,
                places: floor.roads().places(),
                regions: floor.roads().capacities().len(),
                search_vehicles: vehicles.min(24),
                search_nodes: if vehicles == 0 { 0 } else { 2_000 },
            },
        }
    }
}

const _: () =
    assert!(EVENTS_PER_CYCLE >= 2 * REQUESTS_PER_CYCLE + 2 * SETTLE_PER_CYCLE + ACKNOWLEDGED_PER_CYCLE as usize);
