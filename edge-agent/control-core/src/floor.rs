//! The floor: where loads can be, who moves them from where to where, and on which roads vehicles drive.
//!
//! ```text
//!   zone   bays of a tier   ──shuttle──>  lane out  ──lift──>  lane at the foot  ──robot──>  lane of a port  ──station──> ..
//!          (any place)                    (first in, first out; loads move on by themselves)
//! ```
//!
//! A **zone** is a set of load positions that stand for each other: the bays of a tier, which can be reached each, or a **lane**,
//! into which loads are put at one end and from which they are taken at the other, or a **deck**. A **link** says who moves
//! loads from one zone to another. How many legs it is from each zone to each other is in a table. So where a load goes next
//! follows from where it is: to a zone from which its goal is one leg nearer.
//!
//! The tables are made outside from a floor file, checked once, and handed in with every cycle; they never change while one runs.

use crate::rack::Axis;
use crate::traffic::roads::{Goal, NO_GOAL, Place, Roads};
use crate::units::{DomainId, MachineId, PosId, RackId, StationId, ZoneId};

/// No zone can be reached in so many legs.
pub const NEVER: u8 = u8::MAX;

/// How far two lifts on one mast keep apart, millimetres.
pub const MAST_GAP_MM: u32 = 400;

/// A load position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The zone it belongs to.
    pub zone: ZoneId,
    /// Where a shuttle stops for it, millimetres along its tier.
    pub along_mm: u32,
    /// Where a lift stops for it, millimetres over its foot.
    pub height_mm: u32,
    /// The place at which a mobile robot stops for it, or none.
    pub place: Place,
    /// In a double-deep rack, the bay that has to be empty to reach it.
    pub front: Option<PosId>,
    /// The bay that cannot be reached while there is something here.
    pub behind: Option<PosId>,
}

/// What a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// Bays of one tier, each of which can be reached.
    Bays,
    /// First in at its first position, first out at its last; loads move on by themselves.
    Lane,
    /// The deck of a machine.
    Deck(MachineId),
}

/// What lies beyond the end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Nothing: somebody takes loads off or puts them on.
    Nothing,
    /// Loads come in from outside at its first position.
    Arrivals,
    /// Loads leave for the outside at its last position.
    Departures,
}

/// A zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// What it is.
    pub kind: ZoneKind,
    /// Its positions are numbered from here.
    pub first: PosId,
    /// How many there are.
    pub count: u16,
    /// What lies beyond.
    pub beyond: Beyond,
    /// The station that takes loads from it.
    pub feeds: Option<StationId>,
    /// Its bays stand one behind another: one is kept free.
    pub deep: bool,
    /// The bays that are behind it, for a lane from a lift to a tier: who stands on it belongs there.
    pub tier: Option<ZoneId>,
    /// Somebody is at work there, or it must not be used: no leg begins or ends in it.
    pub closed: bool,
    /// Machines and positions it is read with.
    pub domain: DomainId,
}

impl Zone {
    /// Where loads are put on.
    pub fn entry(&self) -> PosId {
        self.first
    }

    /// Where loads are taken off.
    pub fn exit(&self) -> PosId {
        PosId(self.first.0.saturating_add(self.count.saturating_sub(1)))
    }

    /// Its positions.
    pub fn positions(&self) -> impl DoubleEndedIterator<Item = PosId> + use<> {
        (self.first.0..self.first.0.saturating_add(self.count)).map(PosId)
    }

    /// Whether a position belongs to it.
    pub fn contains(&self, pos: PosId) -> bool {
        (self.first.0..self.first.0.saturating_add(self.count)).contains(&pos.0)
    }
}

/// Who moves loads along a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// This machine.
    Machine(MachineId),
    /// Any mobile robot.
    Robots,
    /// Whichever shuttle of this rack stands on the tier.
    Shuttles(RackId),
}

/// From one zone to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where to.
    pub to: ZoneId,
    /// By whom.
    pub by: Mover,
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// Shuttle.
    Shuttle {
        /// The rack in which it changes tier; a tier-captive one has none.
        rack: Option<RackId>,
    },
    /// Lift. Of two on one mast the lower one has the smaller number.
    Lift {
        /// Its mast.
        mast: u16,
        /// The rack whose shuttles change tier on it, if they do.
        rack: Option<RackId>,
    },
    /// Robot cell.
    Station(StationId),
    /// Mobile robot: vehicle of the road map.
    Robot {
        /// Its number there.
        vehicle: u16,
        /// Where it waits: a row of distances.
        home: Goal,
    },
}

/// A machine with a command block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineInfo {
    /// What it is.
    pub kind: MachineKind,
    /// Its deck.
    pub deck: PosId,
    /// Machines and positions it is read with.
    pub domain: DomainId,
    /// How fast it is.
    pub axis: Axis,
}

/// A rack with fewer shuttles than tiers: they change tier on its lifts. Shuttles, lifts and tiers are numbered in one piece each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rack {
    /// Its first shuttle, and how many.
    pub shuttles: (MachineId, u16),
    /// Its first lift, and how many.
    pub lifts: (MachineId, u16),
    /// Its first tier in [`Tables::tiers`], the lowest one, and how many.
    pub tiers: (u16, u16),
}

impl Rack {
    /// Its shuttles.
    pub fn shuttles(&self) -> impl Iterator<Item = MachineId> + use<> {
        let (first, count) = self.shuttles;
        (first.0..first.0.saturating_add(count)).map(MachineId)
    }

    /// Its lifts, the lower one first.
    pub fn lifts(&self) -> impl Iterator<Item = MachineId> + use<> {
        let (first, count) = self.lifts;
        (first.0..first.0.saturating_add(count)).map(MachineId)
    }
}

/// A tier of such a rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its bays.
    pub bays: ZoneId,
    /// Its lane to the lifts.
    pub lane_out: ZoneId,
    /// Its lane from the lifts.
    pub lane_in: ZoneId,
    /// Where a lift stops for it.
    pub gate: PosId,
    /// Where a shuttle stops that has left a lift.
    pub stop: PosId,
}

impl Tier {
    /// Whether a zone lies on it.
    pub fn has(&self, zone: ZoneId) -> bool {
        [self.bays, self.lane_out, self.lane_in].contains(&zone)
    }
}

/// Machines and positions that are read together. Both are numbered in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its first machine, and how many.
    pub machines: (MachineId, u16),
    /// Its first position with a sensor, and how many.
    pub sensed: (PosId, u16),
}

impl DomainInfo {
    /// Its machines.
    pub fn machines(&self) -> impl Iterator<Item = MachineId> + use<> {
        let (first, count) = self.machines;
        (first.0..first.0.saturating_add(count)).map(MachineId)
    }

    /// Its positions with sensors.
    pub fn sensed(&self) -> impl Iterator<Item = PosId> + use<> {
        let (first, count) = self.sensed;
        (first.0..first.0.saturating_add(count)).map(PosId)
    }
}

/// A station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationInfo {
    /// The machine that works there.
    pub machine: MachineId,
    /// Stations of a group stand for each other.
    pub group: u8,
    /// From where it takes loads.
    pub input: ZoneId,
    /// Onto which it puts them.
    pub output: ZoneId,
}

/// The tables of a floor, borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables<'f> {
    /// All load positions.
    pub positions: &'f [Position],
    /// All zones.
    pub zones: &'f [Zone],
    /// Links, from `link_start[zone]` to `link_start[zone + 1]`.
    pub links: &'f [Link],
    /// One more than there are zones.
    pub link_start: &'f [u32],
    /// Legs from each zone to each goal, a row a zone.
    pub hops: &'f [u8],
    /// The column of each zone in `hops`, or `u16::MAX`: loads are brought to bays, to stations and out, and nowhere else.
    pub columns: &'f [u16],
    /// How many columns there are.
    pub goals: usize,
    /// All machines.
    pub machines: &'f [MachineInfo],
    /// Zones from which each machine takes loads, its deck left out; from `source_start[machine]` on.
    pub sources: &'f [ZoneId],
    /// One more than there are machines.
    pub source_start: &'f [u32],
    /// All stations.
    pub stations: &'f [StationInfo],
    /// The row of distances of each place, or [`NO_GOAL`].
    pub goal_of: &'f [Goal],
    /// The rows of distances of the chargers, one each.
    pub chargers: &'f [Goal],
    /// Zones from which mobile robots take loads.
    pub robot_sources: &'f [ZoneId],
    /// The area each place is in, `u16::MAX` for none.
    pub areas: &'f [u16],
    /// How many mobile robots may have work in each area at once.
    pub area_caps: &'f [u16],
    /// All domains.
    pub domains: &'f [DomainInfo],
    /// Zones from which loads leave for the outside, those that can be reached from each zone, nearest first; from
    /// `exit_start[zone]` on.
    pub exits: &'f [ZoneId],
    /// One more than there are zones.
    pub exit_start: &'f [u32],
    /// Legs from each zone to the nearest bays, or [`NEVER`].
    pub inwards: &'f [u8],
    /// Racks whose shuttles change tier.
    pub racks: &'f [Rack],
    /// The tiers of these racks.
    pub tiers: &'f [Tier],
}

/// A floor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor<'f> {
    tables: Tables<'f>,
    roads: Roads<'f>,
    /// Counts changes: places or zones closed, distances measured anew.
    generation: u32,
}

fn slice<'f, T>(list: &'f [T], start: &[u32], n: u16) -> &'f [T] {
    let n = usize::from(n);
    let (Some(from), Some(to)) = (start.get(n), start.get(n + 1)) else { return &[] };
    list.get(*from as usize..*to as usize).unwrap_or_default()
}

impl<'f> Floor<'f> {
    /// Tables that belong together, and the roads vehicles drive on. `generation` counts what was closed and opened since.
    pub fn new(tables: Tables<'f>, roads: Roads<'f>, generation: u32) -> Floor<'f> {
        Floor { tables, roads, generation }
    }

    /// Its tables.
    pub fn tables(&self) -> &Tables<'f> {
        &self.tables
    }

    /// The road map.
    pub fn roads(&self) -> &Roads<'f> {
        &self.roads
    }

    /// Counts what was closed and opened since the start.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Number of machines.
    pub fn machines(&self) -> u16 {
        self.tables.machines.len() as u16
    }

    /// Every machine.
    pub fn machine_ids(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.machines()).map(MachineId)
    }

    /// A machine.
    pub fn machine(&self, id: MachineId) -> Option<&'f MachineInfo> {
        self.tables.machines.get(usize::from(id.0))
    }

    /// Number of positions, decks included.
    pub fn positions(&self) -> u16 {
        self.tables.positions.len() as u16
    }

    /// A position.
    pub fn position(&self, pos: PosId) -> Option<&'f Position> {
        self.tables.positions.get(usize::from(pos.0))
    }

    /// Number of zones.
    pub fn zones(&self) -> u16 {
        self.tables.zones.len() as u16
    }

    /// A zone.
    pub fn zone(&self, id: ZoneId) -> Option<&'f Zone> {
        self.tables.zones.get(usize::from(id.0))
    }

    /// The zone of a position.
    pub fn zone_of(&self, pos: PosId) -> Option<(ZoneId, &'f Zone)> {
        let id = self.position(pos)?.zone;
        Some((id, self.zone(id)?))
    }

    /// Every zone.
    pub fn zone_ids(&self) -> impl Iterator<Item = (ZoneId, &'f Zone)> + use<'f> {
        (0u16..).map(ZoneId).zip(self.tables.zones)
    }

    /// Whether a zone is closed, or leads to a tier that is.
    pub fn is_closed(&self, id: ZoneId) -> bool {
        let closed = |id: ZoneId| self.zone(id).is_some_and(|z| z.closed);
        closed(id) || self.zone(id).and_then(|z| z.tier).is_some_and(closed)
    }

    /// The links from a zone.
    pub fn links(&self, zone: ZoneId) -> &'f [Link] {
        slice(self.tables.links, self.tables.link_start, zone.0)
    }

    /// The zones a machine takes loads from.
    pub fn sources(&self, machine: MachineId) -> &'f [ZoneId] {
        slice(self.tables.sources, self.tables.source_start, machine.0)
    }

    /// Legs from one zone to a goal, or [`NEVER`].
    pub fn hops(&self, from: ZoneId, to: ZoneId) -> u8 {
        let column = self.tables.columns.get(usize::from(to.0)).copied().map_or(usize::MAX, usize::from);
        if column >= self.tables.goals {
            return NEVER;
        }
        self.tables.hops.get(usize::from(from.0) * self.tables.goals + column).copied().unwrap_or(NEVER)
    }

    /// Zones from which loads leave for the outside, seen from one: the nearest first, and none that cannot be reached.
    pub fn exits(&self, from: ZoneId) -> &'f [ZoneId] {
        slice(self.tables.exits, self.tables.exit_start, from.0)
    }

    /// Legs from one zone to the nearest bays, or [`NEVER`].
    pub fn legs_to_bays(&self, from: ZoneId) -> u8 {
        self.tables.inwards.get(usize::from(from.0)).copied().unwrap_or(NEVER)
    }

    /// Every domain.
    pub fn domains(&self) -> impl Iterator<Item = (DomainId, &'f DomainInfo)> + use<'f> {
        (0u16..).map(DomainId).zip(self.tables.domains)
    }

    /// A station.
    pub fn station(&self, id: StationId) -> Option<&'f StationInfo> {
        self.tables.stations.get(usize::from(id.0))
    }

    /// Every station.
    pub fn stations(&self) -> impl Iterator<Item = (StationId, &'f StationInfo)> + use<'f> {
        (0u16..).map(StationId).zip(self.tables.stations)
    }

    /// Whether a position is a bay.
    pub fn is_bay(&self, pos: PosId) -> bool {
        self.zone_of(pos).is_some_and(|(_, z)| z.kind == ZoneKind::Bays)
    }

    /// The machine whose deck a position is.
    pub fn deck_of(&self, pos: PosId) -> Option<MachineId> {
        match self.zone_of(pos)?.1.kind {
            ZoneKind::Deck(machine) => Some(machine),
            _ => None,
        }
    }

    /// The rack in which a shuttle changes tier.
    pub fn rack_of(&self, shuttle: MachineId) -> Option<&'f Rack> {
        match self.machine(shuttle)?.kind {
            MachineKind::Shuttle { rack } => self.rack(rack?),
            _ => None,
        }
    }

    /// The rack whose shuttles change tier on a lift.
    pub fn rack_of_lift(&self, lift: MachineId) -> Option<&'f Rack> {
        match self.machine(lift)?.kind {
            MachineKind::Lift { rack, .. } => self.rack(rack?),
            _ => None,
        }
    }

    /// A rack whose shuttles change tier.
    pub fn rack(&self, id: RackId) -> Option<&'f Rack> {
        self.tables.racks.get(usize::from(id.0))
    }

    /// The tiers of a rack, the lowest one first.
    pub fn tiers(&self, rack: &Rack) -> &'f [Tier] {
        let (first, count) = (usize::from(rack.tiers.0), usize::from(rack.tiers.1));
        self.tables.tiers.get(first..first + count).unwrap_or_default()
    }

    /// The tier of a rack that has these bays.
    pub fn tier(&self, rack: &Rack, bays: ZoneId) -> Option<&'f Tier> {
        self.tiers(rack).iter().find(|tier| tier.bays == bays)
    }

    /// As whom a machine moves loads along links, on whichever tier it stands.
    pub fn mover(&self, id: MachineId) -> Mover {
        match self.machine(id).map(|m| m.kind) {
            Some(MachineKind::Robot { .. }) => Mover::Robots,
            Some(MachineKind::Shuttle { rack: Some(rack) }) => Mover::Shuttles(rack),
            _ => Mover::Machine(id),
        }
    }

    /// The row of distances to the place at which a robot stops for a position.
    pub fn goal_of(&self, pos: PosId) -> Goal {
        let place = self.position(pos).map_or(crate::traffic::roads::NO_PLACE, |p| p.place);
        self.tables.goal_of.get(usize::from(place)).copied().unwrap_or(NO_GOAL)
    }

    /// The area in which a robot stops for a position.
    pub fn area_of(&self, pos: PosId) -> Option<usize> {
        let place = self.position(pos)?.place;
        self.tables.areas.get(usize::from(place)).copied().filter(|a| *a != u16::MAX).map(usize::from)
    }

    /// Where a machine stops for a position, millimetres on its axis.
    pub fn stop_mm(&self, machine: MachineId, pos: PosId) -> u32 {
        let Some((info, position)) = self.machine(machine).zip(self.position(pos)) else { return 0 };
        match info.kind {
            MachineKind::Lift { .. } => position.height_mm,
            _ => position.along_mm,
        }
    }

    /// Every vehicle of the road map with its machine.
    pub fn robots(&self) -> impl Iterator<Item = (MachineId, u16, Goal)> + use<'f> {
        (0u16..).zip(self.tables.machines).filter_map(|(n, m)| match m.kind {
            MachineKind::Robot { vehicle, home } => Some((MachineId(n), vehicle, home)),
            _ => None,
        })
    }
}
