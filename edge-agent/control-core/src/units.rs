//! Ids and quantities, each its own type, so that a tier cannot be handed over where a bay is meant.

use core::num::NonZeroU32;

/// Milliseconds on the caller's monotonic clock. The core has no clock of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Time from `earlier` to `self`, zero when `earlier` lies ahead.
    pub const fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant, `ms` milliseconds on.
    pub const fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

/// When an order was taken, on the clock of this run; below zero before the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taken(i64);

impl Taken {
    /// So many milliseconds before `now`.
    pub fn before(now: Millis, age_ms: u64) -> Taken {
        let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
        Taken(signed(now.0).saturating_sub(signed(age_ms)))
    }

    /// How long ago that is.
    pub fn age(self, now: Millis) -> u64 {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        u64::try_from(now.saturating_sub(self.0)).unwrap_or(0)
    }

    /// So much later.
    pub(crate) fn plus(self, ms: u64) -> Taken {
        Taken(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// The earlier, the smaller, among what was taken within some weeks of each other.
    pub(crate) fn rank(self) -> u32 {
        (self.0.wrapping_add(1 << 31) & 0xFFFF_FFFF) as u32
    }
}

/// The number on a load unit's label. Zero is "no load", and is therefore no load id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub NonZeroU32);

impl LoadId {
    pub(crate) const ONE: LoadId = LoadId(NonZeroU32::MIN);

    /// `None` for 0, which is how a register says "empty".
    pub const fn new(raw: u32) -> Option<LoadId> {
        match NonZeroU32::new(raw) {
            Some(n) => Some(LoadId(n)),
            None => None,
        }
    }

    /// The number as a register holds it.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The register value of a position: the load's number, or 0 for empty.
    pub const fn raw(load: Option<LoadId>) -> u32 {
        match load {
            Some(l) => l.get(),
            None => 0,
        }
    }
}

/// A load position, numbered by the [`crate::floor::Floor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PosId(pub u16);

/// A machine with a command block, numbered by the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u16);

/// Positions that stand for each other: the bays of a tier, a lane, a deck. Numbered by the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u16);

/// Machines and positions that are read together: an aisle, a robot cell, a mobile robot. Numbered by the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// A robot cell or another station, numbered by the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationId(pub u16);

/// A transport order, numbered by whoever hands it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u32);

/// A rack whose shuttles change tier, numbered by the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RackId(pub u16);
