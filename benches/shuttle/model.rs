//! What is simulated: the rack and the order in which loads have to leave.

use control_core::rack::Axis;
use floor_plan::bounds::{Aisle, EXAMPLE, Machine};

/// The order in which loads leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any.
    Free,
    /// One after the other.
    Strict,
    /// Group after group, in any order within.
    Groups(u64),
}

/// One aisle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) tiers: usize,
    pub(crate) columns: usize,
    pub(crate) lifts: usize,
    pub(crate) depth: usize,
    pub(crate) buffer: usize,
    pub(crate) order: Order,
    /// Requests the rack knows of, for the sequence rule.
    pub(crate) look_ahead: usize,
    /// Percent of the tiers without a shuttle of their own.
    pub(crate) four_way: usize,
}

/// A machine in whole numbers, as the core reckons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    pub(crate) axis: Axis,
    pub(crate) handling_ms: u64,
}

impl Drive {
    fn of(machine: Machine) -> Drive {
        Drive {
            axis: Axis {
                speed_mm_s: (machine.speed * 1000.0) as u32,
                acceleration_mm_s2: (machine.acceleration * 1000.0) as u32,
            },
            handling_ms: (machine.handling * 1000.0) as u64,
        }
    }

    pub(crate) fn time(&self, from_mm: u32, to_mm: u32) -> u64 {
        u64::from(self.axis.time_ms(from_mm.abs_diff(to_mm)))
    }
}

impl Setting {
    /// Says what is wrong with the numbers.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rows = [
            ("--tiers", self.tiers, 1, 100),
            ("--bays", self.columns, 1, 1000),
            ("--lifts", self.lifts, 1, 2),
            ("--depth", self.depth, 1, 2),
            ("--buffer", self.buffer, 1, 64),
            ("--four-way", self.four_way, 0, 100),
            ("--look-ahead", self.look_ahead, 1, 10_000),
        ];
        match rows.into_iter().find(|(_, n, from, to)| !(from..=to).contains(&n)) {
            Some((name, n, from, to)) => Err(format!("{name} {n}: expected {from} to {to}")),
            None => Ok(()),
        }
    }

    fn aisle(&self) -> Aisle {
        Aisle { tiers: self.tiers, columns: self.columns, lifts: self.lifts, ..EXAMPLE }
    }

    /// Loads per hour at most.
    pub(crate) fn bound(&self) -> f64 {
        let aisle = self.aisle();
        let shuttles = self.shuttles() as f64 * 3600.0 / aisle.shuttle.single(&aisle.bays());
        aisle.out_per_hour().min(shuttles)
    }

    pub(crate) fn lift(&self) -> Drive {
        Drive::of(EXAMPLE.lift)
    }

    pub(crate) fn shuttle(&self) -> Drive {
        Drive::of(EXAMPLE.shuttle)
    }

    /// Height of a tier.
    pub(crate) fn height_mm(&self, tier: usize) -> u32 {
        ((EXAMPLE.heights.0 + tier as f64 * EXAMPLE.heights.1) * 1000.0).round() as u32
    }

    /// Distance of a bay.
    pub(crate) fn distance_mm(&self, column: usize) -> u32 {
        ((EXAMPLE.distances.0 + column as f64 * EXAMPLE.distances.1) * 1000.0).round() as u32
    }

    /// Shuttles there are.
    pub(crate) fn shuttles(&self) -> usize {
        (self.tiers * (100 - self.four_way) / 100).max(1)
    }
}
