//! Which positions exist, how they are numbered, and which machine serves which.
//!
//! One aisle, its rack and one robot cell; everything is arithmetic on two numbers, so there is no table to
//! go wrong. The PLCs number their load positions the same way ("location number").
//!
//! ```text
//!        bays, side 0   [ ][ ][ ][ ] ..          one shuttle a tier runs between the sides
//!  tier  shuttle        ==[S]==========  out ->  |   |
//!        bays, side 1   [ ][ ][ ][ ] ..  <- in   | L |   one lift serves the transfer points
//!                                                | i |   and the four conveyors at the bottom
//!            infeed   entry ──> exit ──────────> | f |
//!            outfeed  exit  <── entry <───────── | t |
//!            feed     exit  <── entry <───────── |   |
//!              └─> robot cell ─┐                 |   |
//!            return   entry <──┘  ──> exit ────> |   |
//! ```

use crate::limits::{BAYS_PER_SIDE_MAX, TIERS_MAX};
use crate::units::{MachineId, PosId, Tier};

/// The four conveyors at the foot of the lift. Each holds at most one load at its entry and one at its exit,
/// and moves a load on by itself as soon as its exit is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conveyor {
    /// From the outside to the lift.
    Infeed,
    /// From the lift to the outside.
    Outfeed,
    /// From the lift to the cell's in port.
    Feed,
    /// From the cell's out port to the lift.
    Return,
}

impl Conveyor {
    /// All of them, in the order in which their ends are numbered.
    pub const ALL: [Conveyor; 4] = [Conveyor::Infeed, Conveyor::Outfeed, Conveyor::Feed, Conveyor::Return];
}

/// An end of a conveyor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Where loads are put on.
    Entry,
    /// Where loads are taken off.
    Exit,
}

/// What a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A bay; `index` counts side 0 first, then side 1.
    Bay {
        /// The tier it is on.
        tier: Tier,
        /// 0 .. 2 x bays per side.
        index: u8,
    },
    /// Transfer point from the shuttle of a tier to the lift.
    TransferOut(Tier),
    /// Transfer point from the lift to the shuttle of a tier.
    TransferIn(Tier),
    /// An end of a conveyor.
    Belt(Conveyor, End),
    /// The deck of a machine.
    Deck(MachineId),
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// Tier-captive shuttle.
    Shuttle(Tier),
    /// The lift of the aisle.
    Lift,
    /// The robot cell.
    Cell,
}

/// The shape of the aisle. Copy, two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    tiers: u8,
    bays_per_side: u8,
}

impl Layout {
    /// `None` when a number is zero or over its limit ([`TIERS_MAX`], [`BAYS_PER_SIDE_MAX`]).
    pub const fn new(tiers: u8, bays_per_side: u8) -> Option<Layout> {
        if tiers == 0 || tiers as usize > TIERS_MAX || bays_per_side == 0 || bays_per_side as usize > BAYS_PER_SIDE_MAX
        {
            return None;
        }
        Some(Layout { tiers, bays_per_side })
    }

    /// Number of tiers.
    pub const fn tiers(&self) -> u8 {
        self.tiers
    }

    /// Bays on one side of a tier.
    pub const fn bays_per_side(&self) -> u8 {
        self.bays_per_side
    }

    /// Bays of one tier, both sides.
    pub const fn bays_per_tier(&self) -> u16 {
        2 * self.bays_per_side as u16
    }

    const fn transfers_at(&self) -> u16 {
        self.tiers as u16 * self.bays_per_tier()
    }

    const fn belts_at(&self) -> u16 {
        self.transfers_at() + 2 * self.tiers as u16
    }

    const fn decks_at(&self) -> u16 {
        self.belts_at() + 8
    }

    /// Positions with a sensor of their own: all but the decks, which report through their machine.
    pub const fn sensed(&self) -> u16 {
        self.decks_at()
    }

    /// All positions.
    pub const fn positions(&self) -> u16 {
        self.decks_at() + self.machines() as u16
    }

    /// All machines: a shuttle a tier, the lift, the cell.
    pub const fn machines(&self) -> u8 {
        self.tiers + 2
    }

    /// The shuttle of a tier.
    pub const fn shuttle(&self, tier: Tier) -> MachineId {
        MachineId(tier.0)
    }

    /// The lift.
    pub const fn lift(&self) -> MachineId {
        MachineId(self.tiers)
    }

    /// The robot cell.
    pub const fn cell(&self) -> MachineId {
        MachineId(self.tiers + 1)
    }

    /// What a machine is; `None` for a number this layout does not have.
    pub const fn kind(&self, machine: MachineId) -> Option<MachineKind> {
        if machine.0 < self.tiers {
            Some(MachineKind::Shuttle(Tier(machine.0)))
        } else if machine.0 == self.tiers {
            Some(MachineKind::Lift)
        } else if machine.0 == self.tiers + 1 {
            Some(MachineKind::Cell)
        } else {
            None
        }
    }

    /// Every machine.
    pub fn machine_ids(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.machines()).map(MachineId)
    }

    /// The number of a position. A tier or bay beyond the layout gives a number that [`Layout::place`] refuses
    /// or that names another place: ask only for what exists.
    pub const fn pos(&self, place: Place) -> PosId {
        PosId(match place {
            Place::Bay { tier, index } => tier.0 as u16 * self.bays_per_tier() + index as u16,
            Place::TransferOut(tier) => self.transfers_at() + 2 * tier.0 as u16,
            Place::TransferIn(tier) => self.transfers_at() + 2 * tier.0 as u16 + 1,
            Place::Belt(conveyor, end) => self.belts_at() + 2 * conveyor as u16 + end as u16,
            Place::Deck(machine) => self.decks_at() + machine.0 as u16,
        })
    }

    /// What a position is; `None` for a number this layout does not have.
    pub fn place(&self, pos: PosId) -> Option<Place> {
        let n = pos.0;
        if n < self.transfers_at() {
            let (tier, index) = (n / self.bays_per_tier(), n % self.bays_per_tier());
            Some(Place::Bay { tier: Tier(tier as u8), index: index as u8 })
        } else if n < self.belts_at() {
            let k = n - self.transfers_at();
            let tier = Tier((k / 2) as u8);
            Some(if k.is_multiple_of(2) { Place::TransferOut(tier) } else { Place::TransferIn(tier) })
        } else if n < self.decks_at() {
            let k = n - self.belts_at();
            let conveyor = *Conveyor::ALL.get(usize::from(k / 2))?;
            Some(Place::Belt(conveyor, if k.is_multiple_of(2) { End::Entry } else { End::Exit }))
        } else if n < self.positions() {
            Some(Place::Deck(MachineId((n - self.decks_at()) as u8)))
        } else {
            None
        }
    }

    /// A load's tier: bays and transfer points have one.
    pub fn tier(&self, pos: PosId) -> Option<Tier> {
        match self.place(pos)? {
            Place::Bay { tier, .. } | Place::TransferOut(tier) | Place::TransferIn(tier) => Some(tier),
            Place::Belt(..) => None,
            Place::Deck(m) => match self.kind(m)? {
                MachineKind::Shuttle(t) => Some(t),
                _ => None,
            },
        }
    }

    /// How far a machine standing at `from` has to go to reach `to`, in bays for a shuttle and in tiers for the lift.
    /// Good enough to compare two candidates; nothing is timed by it.
    pub fn steps(&self, machine: MachineId, from: PosId, to: PosId) -> u16 {
        let coordinate = |pos| match (self.kind(machine), self.place(pos)) {
            (Some(MachineKind::Shuttle(_)), Some(Place::Bay { index, .. })) => {
                1 + u16::from(index) % u16::from(self.bays_per_side)
            }
            (Some(MachineKind::Lift), Some(Place::TransferIn(t) | Place::TransferOut(t))) => u16::from(t.0),
            _ => 0,
        };
        coordinate(from).abs_diff(coordinate(to))
    }

    /// Every bay of a tier, side 0 first.
    pub fn bays(&self, tier: Tier) -> impl Iterator<Item = PosId> + use<> {
        let first = tier.0 as u16 * self.bays_per_tier();
        (first..first + self.bays_per_tier()).map(PosId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_has_one_number_and_every_number_one_position() {
        for (tiers, bays) in [(1, 1), (4, 20), (12, 24)] {
            let l = Layout::new(tiers, bays).unwrap();
            for n in 0..l.positions() {
                let place = l.place(PosId(n)).unwrap();
                assert_eq!(l.pos(place), PosId(n), "{place:?}");
            }
            assert_eq!(l.place(PosId(l.positions())), None);
            assert!(usize::from(l.positions()) <= crate::limits::POSITIONS_MAX);
        }
    }

    #[test]
    fn the_demo_aisle_is_numbered_as_the_register_map_says() {
        let l = Layout::new(4, 20).unwrap();
        assert_eq!(l.pos(Place::Bay { tier: Tier(1), index: 20 }), PosId(60));
        assert_eq!(l.pos(Place::TransferOut(Tier(0))), PosId(160));
        assert_eq!(l.pos(Place::TransferIn(Tier(3))), PosId(167));
        assert_eq!(l.pos(Place::Belt(Conveyor::Infeed, End::Entry)), PosId(168));
        assert_eq!(l.pos(Place::Belt(Conveyor::Return, End::Exit)), PosId(175));
        assert_eq!(l.pos(Place::Deck(l.cell())), PosId(181));
    }

    #[test]
    fn a_rack_of_no_tiers_or_too_many_is_refused() {
        for (tiers, bays) in [(0, 1), (1, 0), (13, 1), (1, 25)] {
            assert_eq!(Layout::new(tiers, bays), None);
        }
    }
}
