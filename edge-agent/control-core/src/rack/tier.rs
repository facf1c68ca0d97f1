//! On which tier a load is put that comes in.

/// A tier that could take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its shuttle can be commanded.
    pub served: bool,
    /// There is room for it at the lift right now.
    pub room: bool,
    /// Loads on their way into it already.
    pub coming: u16,
    /// The rank of the oldest load that waits at its lift to go out, if any.
    pub waiting: Option<u64>,
    /// Bays taken, in thousandths.
    pub full: u16,
}

/// The tier for a load: one with a shuttle and room; among those one from which a load waits to go out, the oldest first, so
/// that the lift does both at one stop; else the one that expects and holds least.
pub fn choose(tiers: impl Iterator<Item = Tier>) -> Option<usize> {
    tiers
        .enumerate()
        .min_by_key(|(n, t)| (!t.served, !t.room, t.waiting.is_none(), t.waiting, t.coming, t.full, *n))
        .map(|(n, _)| n)
}
