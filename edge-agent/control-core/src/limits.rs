//! How much of everything there may be. Every capacity of the core stands here, with its reason;
//! the relations between them are checked when the crate is compiled.

/// Tiers of one aisle. A multi-tier rack of 12 m with 1 m tiers.
pub const TIERS_MAX: usize = 12;

/// Bays on one side of one tier. With two sides and twelve tiers: 576 bays, a full aisle of a small-parts store.
pub const BAYS_PER_SIDE_MAX: usize = 24;

/// Machines with a command block: a shuttle a tier, one lift, one robot cell.
pub const MACHINES_MAX: usize = TIERS_MAX + 2;

/// Load positions: bays, two transfer points a tier, eight conveyor ends, a deck for each machine.
pub const POSITIONS_MAX: usize = TIERS_MAX * (2 * BAYS_PER_SIDE_MAX + 2) + 8 + MACHINES_MAX;

/// Transport orders that are not ended. What comes beyond is refused with a reason: a queue that
/// would take an hour to drain belongs to the system that plans, not to the one that moves.
pub const ORDERS_MAX: usize = 128;

/// Requests read from outside in one cycle. At a period of 10 ms that is 400 orders a second,
/// far above what an aisle can move, and keeps the work of a cycle bounded.
pub const REQUESTS_PER_CYCLE: usize = 4;

/// Events of one cycle. Each machine can end one command and start one, each request is answered,
/// and the sweep of stranded loads adds one; the rest is room. What comes beyond is counted as lost.
pub const EVENTS_PER_CYCLE: usize = 96;

/// How many orders, oldest first within a class, compete for a machine by travel (FLEET: K = 8 retrievals).
pub const PAIRING_WINDOW: usize = 8;

/// Tries at one order before it is given up and told so.
pub const ATTEMPTS_MAX: u8 = 5;

const _: () = assert!(POSITIONS_MAX <= u16::MAX as usize, "a position is numbered in 16 bits");
const _: () = assert!(MACHINES_MAX <= u8::MAX as usize, "a machine is numbered in 8 bits");
const _: () = assert!(EVENTS_PER_CYCLE >= 4 * MACHINES_MAX + 2 * REQUESTS_PER_CYCLE + 8);
