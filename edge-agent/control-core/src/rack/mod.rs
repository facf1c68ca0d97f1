//! Racks: what a lift and a shuttle do next, and on which tier a load is put.
//!
//! ```text
//!   tier 3  [bays]==S==[ out | out ]──┐          the lift is the bottleneck: every second it travels empty is lost
//!   tier 2  [bays]==S==[ out | out ]──┤ lift     to all tiers; a shuttle has time to spare
//!   tier 1  [bays]==S==[ in  | in  ]──┘
//! ```
//!
//! **Lift.** From where it stands it takes, among the [`choose::WINDOW`] oldest of the best class, what costs it the least empty
//! travel beyond what has to be travelled anyway. So after putting a load into a tier it takes the next one out of a tier
//! nearby, and from its foot, where all are equal, the oldest.
//!
//! **Tier.** A load that comes in goes to a tier from which one waits to go out, so that the lift does both at one stop.
//!
//! **Sequence rule.** When loads must leave in order, each shuttle brings the loads of its tier in that order, and the buffer at
//! the lift is first in, first out. Then the load that has to leave next is always the first of its tier, and nothing waits
//! for it that it waits for: nothing can lock. Nearest-first shuttles did, in eleven of twelve settings.

pub mod axis;
pub mod choose;
pub mod tier;

pub use axis::Axis;
