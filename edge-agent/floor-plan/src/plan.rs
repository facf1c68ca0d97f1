//! What a floor file means: the tables of the core, with names and geometry.
//!
//! Machines and positions are numbered domain by domain: first the aisles, each with its shuttles from the bottom up and its lifts;
//! then stations, then mobile robots. Positions of an aisle: bays tier by tier, then for each tier the lane out and the lane in,
//! then its belts in the order of the file. Decks come last of all.

use crate::file::Fault;
use crate::proof::Proof;
use crate::tables::RoadTables;
use control_core::floor::{
    DomainInfo, Floor, Link, MachineInfo, MachineKind, Mover, NEVER, Position, Rack, StationInfo, Tables, Tier, Zone,
};
use control_core::traffic::roads::{Goal, Place};
use control_core::units::{MachineId, PosId, RackId, StationId, ZoneId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A point of the hall.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spot {
    /// Metres.
    pub x: f64,
    /// Metres.
    pub y: f64,
    /// Height, metres.
    pub z: f64,
    /// Tier, 0 for the floor of the hall and the lowest of a rack.
    pub tier: u16,
}

/// An aisle, for those who draw it or live in it.
#[derive(Clone, Debug)]
pub struct AislePlan {
    /// Its name.
    pub name: String,
    /// Tiers.
    pub tiers: u16,
    /// Bays on each side of a tier.
    pub bays: u16,
    /// Bays one behind another.
    pub depth: u16,
    /// The foot of its lift.
    pub at: Spot,
    /// Unit vector towards its bays.
    pub towards: (f64, f64),
    /// Metres to the first bay, from bay to bay.
    pub bay_distances: [f64; 2],
    /// Metres to the lowest tier, from tier to tier.
    pub tier_heights: [f64; 2],
    /// Zone of the bays, of the lane out and of the lane in of each tier.
    pub zones: Vec<[ZoneId; 3]>,
    /// Shuttles, lowest tier first; those that change tier stand there at first.
    pub shuttles: Vec<MachineId>,
    /// Lifts, the lower one first.
    pub lifts: Vec<MachineId>,
    /// The rack in which its shuttles change tier, if they do.
    pub rack: Option<RackId>,
}

/// What is closed while a floor runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Places, to mobile robots.
    pub places: BTreeSet<Place>,
    /// Roads between two places, in both directions, to mobile robots; the place with the lower number first.
    pub roads: BTreeSet<(Place, Place)>,
    /// Zones, to loads.
    pub zones: BTreeSet<ZoneId>,
}

/// A belt, for those who draw it or live in it.
#[derive(Clone, Debug)]
pub struct BeltPlan {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: ZoneId,
}

/// A mobile robot's body.
#[derive(Clone, Copy, Debug)]
pub struct RobotPlan {
    /// Metres per second, metres per second squared.
    pub drive: crate::file::Drive,
    /// Metres, along and across.
    pub size: [f64; 2],
}

/// An area with a cap.
#[derive(Clone, Debug)]
pub struct AreaPlan {
    /// Its name.
    pub name: String,
    /// Its places.
    pub places: Vec<Place>,
    /// Robots that may have work there at once.
    pub robots: u16,
}

/// A floor with everything that belongs to it.
#[derive(Clone, Debug, Default)]
pub struct FloorPlan {
    pub(crate) positions: Vec<Position>,
    pub(crate) spots: Vec<Spot>,
    pub(crate) position_names: Vec<String>,
    pub(crate) zones: Vec<Zone>,
    pub(crate) zone_names: Vec<String>,
    pub(crate) links: Vec<Vec<Link>>,
    flat_links: Vec<Link>,
    link_start: Vec<u32>,
    hops: Vec<u8>,
    columns: Vec<u16>,
    goals: usize,
    pub(crate) machines: Vec<MachineInfo>,
    pub(crate) machine_names: Vec<String>,
    sources: Vec<ZoneId>,
    source_start: Vec<u32>,
    pub(crate) stations: Vec<StationInfo>,
    pub(crate) station_names: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) domains: Vec<DomainInfo>,
    pub(crate) racks: Vec<Rack>,
    pub(crate) tiers: Vec<Tier>,
    departures: Vec<ZoneId>,
    exits: Vec<ZoneId>,
    exit_start: Vec<u32>,
    inwards: Vec<u8>,
    robot_sources: Vec<ZoneId>,
    pub(crate) goal_of: Vec<Goal>,
    pub(crate) chargers: Vec<Goal>,
    /// The roads.
    pub roads: RoadTables,
    /// Where each place is.
    pub place_spots: Vec<Spot>,
    /// Names of places that have one.
    pub place_names: BTreeMap<Place, String>,
    /// Where each robot parks.
    pub parking: Vec<Place>,
    /// Where robots charge.
    pub charging: Vec<Place>,
    /// What is proven of the roads.
    pub proof: Proof,
    capacities: Vec<u16>,
    unit: u16,
    shortest_ms: u16,
    /// Aisles.
    pub aisles: Vec<AislePlan>,
    /// Belts.
    pub belts: Vec<BeltPlan>,
    /// The bodies of the robots, in the order of their numbers.
    pub robots: Vec<RobotPlan>,
    /// Areas with a cap: name, places, robots that may have work there at once.
    pub areas: Vec<AreaPlan>,
    area_of: Vec<u16>,
    area_caps: Vec<u16>,
    generation: u32,
}

impl FloorPlan {
    /// The tables as the core wants them.
    pub fn view(&self) -> Floor<'_> {
        let tables = Tables {
            positions: &self.positions,
            zones: &self.zones,
            links: &self.flat_links,
            link_start: &self.link_start,
            hops: &self.hops,
            columns: &self.columns,
            goals: self.goals,
            machines: &self.machines,
            sources: &self.sources,
            source_start: &self.source_start,
            stations: &self.stations,
            domains: &self.domains,
            exits: &self.exits,
            exit_start: &self.exit_start,
            inwards: &self.inwards,
            racks: &self.racks,
            tiers: &self.tiers,
            robot_sources: &self.robot_sources,
            chargers: &self.chargers,
            goal_of: &self.goal_of,
            areas: &self.area_of,
            area_caps: &self.area_caps,
        };
        let roads = self.roads.view().with_regions(&self.proof.region, &self.capacities);
        let roads = roads.with_unit(self.unit).with_shortest(self.shortest_ms);
        Floor::new(tables, roads, self.generation)
    }

    /// This floor with some places, roads and zones closed, whatever was closed before; `generation` tells the core that it is another one.
    /// Regions and their capacities stay as they were proven for the open floor.
    pub fn with_closed(&self, closed: &Closed, generation: u32) -> FloorPlan {
        let mut plan = FloorPlan { generation, ..self.clone() };
        for (id, zone) in (0..).map(ZoneId).zip(&mut plan.zones) {
            zone.closed = closed.zones.contains(&id);
        }
        plan.roads.close(&closed.places, &closed.roads);
        let count = plan.goal_of.iter().filter(|g| **g != control_core::traffic::roads::NO_GOAL).count();
        let mut rows = vec![Vec::new(); count];
        for (place, goal) in (0..).zip(&plan.goal_of) {
            if let Some(row) = rows.get_mut(usize::from(*goal)) {
                row.push(place);
            }
        }
        plan.roads.measure(&rows);
        plan
    }

    /// A road by the names or numbers of its ends, as `A..B`: the end with the lower number first.
    pub fn road(&self, name: &str) -> Option<(Place, Place)> {
        let (a, b) = name.split_once("..")?;
        let (a, b) = (self.place(a)?, self.place(b)?);
        let view = self.roads.view();
        let is_road = |a: Place, b: Place| view.beside(a).contains(&b);
        (is_road(a, b) || is_road(b, a)).then_some((a.min(b), a.max(b)))
    }

    /// The name of a road.
    pub fn road_name(&self, (a, b): (Place, Place)) -> String {
        format!("{}..{}", self.place_name(a), self.place_name(b))
    }

    /// A place by its name, or by its number.
    pub fn place(&self, name: &str) -> Option<Place> {
        let named = self.place_names.iter().find(|(_, n)| *n == name).map(|(p, _)| *p);
        let number = name.strip_prefix("place-").unwrap_or(name);
        named.or_else(|| number.parse().ok().filter(|p| usize::from(*p) < self.roads.places))
    }

    /// The name of a place of the roads: that of the floor file, else `place-` and its number. [`Self::place`] finds both.
    pub fn place_name(&self, place: Place) -> String {
        self.place_names.get(&place).cloned().unwrap_or_else(|| format!("place-{place}"))
    }

    /// What a step on the roads takes a robot that nobody is in the way of, milliseconds: the mean road at full speed.
    pub fn step_ms(&self) -> u64 {
        let Some(fastest) = self.fastest() else { return 1_000 };
        let (metres, count) = self.road_lengths().fold((0.0, 0u32), |(sum, n), m| (sum + m, n + 1));
        let seconds = metres / f64::from(count.max(1)) / fastest;
        (seconds * 1000.0).clamp(100.0, 10_000.0) as u64
    }

    /// What the fastest robot takes along the shortest road, milliseconds.
    fn shortest_ms(&self) -> u16 {
        let Some((shortest, fastest)) = self.road_lengths().min_by(f64::total_cmp).zip(self.fastest()) else {
            return 0;
        };
        (shortest / fastest * 1000.0).clamp(1.0, 60_000.0) as u16
    }

    /// Metres per second.
    fn fastest(&self) -> Option<f64> {
        self.robots.iter().map(|r| r.drive.speed).max_by(f64::total_cmp).map(|v| v.max(0.01))
    }

    /// Metres of every road, in each direction it may be driven in.
    fn road_lengths(&self) -> impl Iterator<Item = f64> + '_ {
        let roads = self.roads.view();
        (0..).zip(&self.place_spots).flat_map(move |(from, here)| {
            roads.beside(from).iter().map(move |to| {
                let there = self.place_spots.get(usize::from(*to)).copied().unwrap_or_default();
                (there.x - here.x).hypot(there.y - here.y)
            })
        })
    }

    /// The clearance the two largest robots need, centre to centre, metres: they turn on the spot.
    pub fn clearance_m(&self) -> f64 {
        let mut radii: Vec<f64> = self.robots.iter().map(|r| r.size[0].hypot(r.size[1]) / 2.0).collect();
        radii.sort_by(|a, b| b.total_cmp(a));
        radii.iter().take(2).sum()
    }

    /// Number of machines.
    pub fn machine_count(&self) -> usize {
        self.machines.len()
    }

    /// Number of positions, decks included.
    pub fn position_count(&self) -> usize {
        self.positions.len()
    }

    /// The name of a machine.
    pub fn machine_name(&self, id: MachineId) -> &str {
        self.machine_names.get(usize::from(id.0)).map_or("?", String::as_str)
    }

    /// All names of machines, in the order of their numbers.
    pub fn machine_names(&self) -> &[String] {
        &self.machine_names
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Option<MachineId> {
        self.machine_names.iter().position(|n| n == name).map(|n| MachineId(n as u16))
    }

    /// The name of a position.
    pub fn position_name(&self, pos: PosId) -> &str {
        self.position_names.get(usize::from(pos.0)).map_or("?", String::as_str)
    }

    /// Where a position is; a deck is where its machine is at rest.
    pub fn spot(&self, pos: PosId) -> Spot {
        self.spots.get(usize::from(pos.0)).copied().unwrap_or_default()
    }

    /// The name of a zone.
    pub fn zone_name(&self, id: ZoneId) -> &str {
        self.zone_names.get(usize::from(id.0)).map_or("?", String::as_str)
    }

    /// A zone by its name: a belt's, or `cell-1.in`.
    pub fn zone(&self, name: &str) -> Option<(ZoneId, Zone)> {
        let n = self.zone_names.iter().position(|z| z == name)?;
        Some((ZoneId(n as u16), self.zones[n]))
    }

    /// The name of a station.
    pub fn station_name(&self, id: StationId) -> &str {
        self.station_names.get(usize::from(id.0)).map_or("?", String::as_str)
    }

    /// The groups of stations; their numbers are their places here.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// A bay of an aisle; sides one after the other, and where bays are double-deep the front ones first.
    pub fn bay(&self, aisle: usize, tier: u16, index: u16) -> Option<PosId> {
        let zone = self.aisles.get(aisle)?.zones.get(usize::from(tier))?[0];
        let zone = self.zones.get(usize::from(zone.0))?;
        (index < zone.count).then(|| PosId(zone.first.0 + index))
    }

    /// All bays.
    pub fn bays(&self) -> impl Iterator<Item = PosId> + '_ {
        let bays = self.zones.iter().filter(|z| z.kind == control_core::floor::ZoneKind::Bays);
        bays.flat_map(|z| z.positions())
    }

    /// Positions with a sensor: all but the decks.
    pub fn sensed(&self) -> u16 {
        self.zones.iter().filter(|z| !matches!(z.kind, control_core::floor::ZoneKind::Deck(_))).map(|z| z.count).sum()
    }

    /// Derives what follows from zones, links and machines.
    pub(crate) fn finish(&mut self, guidance: bool) -> Vec<Fault> {
        self.make_decks();
        self.flatten();
        self.count_hops();
        self.sort_exits();
        self.measure(guidance);
        self.shortest_ms = self.shortest_ms();
        self.out_of_reach()
    }

    /// Tiers from which a load cannot be brought to a station, or out of the plant if anything leads out.
    fn out_of_reach(&self) -> Vec<Fault> {
        let floor = self.view();
        let never = |from: ZoneId, to: ZoneId| floor.hops(from, to) == NEVER;
        let tiers = || self.aisles.iter().flat_map(|a| a.zones.iter().map(|z| z[0]));
        let mut faults = Vec::new();
        let mut tell =
            |tier: ZoneId, what: String| {
                let label = format!("loads of {} cannot be brought {what}", self.zone_name(tier));
                faults.push(Fault::new(0..0, "not every load can be brought wherever it may have to go", label).help(
                    "of two lifts on a mast the lower one does not reach the top: lead belts to the upper one too",
                ));
            };
        for tier in tiers() {
            for (station, name) in self.stations.iter().zip(&self.station_names) {
                if never(tier, station.input) {
                    tell(tier, format!("to {name}"));
                }
            }
            if !self.departures.is_empty() && self.departures.iter().all(|d| never(tier, *d)) {
                tell(tier, "out of the plant".into());
            }
        }
        faults
    }

    /// Decks: from each a machine can put a load wherever it takes loads to.
    fn make_decks(&mut self) {
        for n in 0..self.machines.len() {
            let id = MachineId(n as u16);
            let mover = self.view().mover(id);
            let mut to: Vec<ZoneId> =
                self.links.iter().flatten().filter(|link| link.by == mover).map(|link| link.to).collect();
            to.sort_unstable();
            to.dedup();
            let zone = self.positions[usize::from(self.machines[n].deck.0)].zone;
            self.links[usize::from(zone.0)] = to.into_iter().map(|to| Link { to, by: mover }).collect();
        }
    }

    fn flatten(&mut self) {
        self.link_start = vec![0];
        self.flat_links.clear();
        for links in &self.links {
            self.flat_links.extend(links);
            self.link_start.push(self.flat_links.len() as u32);
        }
        self.source_start = vec![0];
        for n in 0..self.machines.len() as u16 {
            let by = self.view().mover(MachineId(n));
            for (zone, links) in self.links.iter().enumerate() {
                let is_deck = matches!(self.zones[zone].kind, control_core::floor::ZoneKind::Deck(_));
                // Those of the robots are one list for all of them.
                if !is_deck && by != Mover::Robots && links.iter().any(|l| l.by == by) {
                    self.sources.push(ZoneId(zone as u16));
                }
            }
            self.source_start.push(self.sources.len() as u32);
        }
        let by_robots = |links: &Vec<Link>| links.iter().any(|l| l.by == Mover::Robots);
        self.robot_sources = (0..self.zones.len())
            .filter(|z| !matches!(self.zones[*z].kind, control_core::floor::ZoneKind::Deck(_)))
            .filter(|z| by_robots(&self.links[*z]))
            .map(|z| ZoneId(z as u16))
            .collect();
        self.departures = (0..self.zones.len())
            .filter(|z| self.zones[*z].beyond == control_core::floor::Beyond::Departures)
            .map(|z| ZoneId(z as u16))
            .collect();
    }

    /// Legs from each zone to each goal: breadth first, backwards from each.
    fn count_hops(&mut self) {
        use control_core::floor::{Beyond, ZoneKind};
        let n = self.zones.len();
        let mut back: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (from, links) in self.links.iter().enumerate() {
            for link in links.iter().filter(|l| usize::from(l.to.0) != from) {
                back[usize::from(link.to.0)].push(from);
            }
        }
        let is_goal = |z: &Zone| z.kind == ZoneKind::Bays || z.feeds.is_some() || z.beyond == Beyond::Departures;
        let goals: Vec<usize> = (0..n).filter(|z| is_goal(&self.zones[*z])).collect();
        self.goals = goals.len();
        self.columns = vec![u16::MAX; n];
        self.hops = vec![NEVER; n * goals.len()];
        for (column, goal) in goals.iter().copied().enumerate() {
            self.columns[goal] = column as u16;
            self.hops[goal * self.goals + column] = 0;
            let mut queue = VecDeque::from([(goal, 0u8)]);
            while let Some((zone, hops)) = queue.pop_front() {
                // A lane into a tier is no passage: what stands there waits for a bay of that tier and for nothing else.
                let leads_to = self.zones[zone].tier;
                if zone != goal && leads_to.is_some_and(|tier| usize::from(tier.0) != goal) {
                    continue;
                }
                for before in &back[zone] {
                    let slot = &mut self.hops[before * self.goals + column];
                    if *slot == NEVER && hops + 1 < NEVER {
                        *slot = hops + 1;
                        queue.push_back((*before, hops + 1));
                    }
                }
            }
        }
    }

    /// From each zone the ways out, nearest first, and how far it is to a bay.
    fn sort_exits(&mut self) {
        let hops = |from: usize, to: usize| self.hops[from * self.goals + usize::from(self.columns[to])];
        let bays: Vec<usize> =
            (0..self.zones.len()).filter(|z| self.zones[*z].kind == control_core::floor::ZoneKind::Bays).collect();
        let (mut exits, mut exit_start, mut inwards) = (Vec::new(), vec![0], Vec::new());
        for zone in 0..self.zones.len() {
            let reached = self.departures.iter().map(|d| (hops(zone, usize::from(d.0)), *d));
            let mut near: Vec<(u8, ZoneId)> = reached.filter(|(hops, _)| *hops < NEVER).collect();
            near.sort_unstable();
            exits.extend(near.iter().map(|(_, id)| *id));
            exit_start.push(exits.len() as u32);
            inwards.push(bays.iter().map(|bay| hops(zone, *bay)).min().unwrap_or(NEVER));
        }
        (self.exits, self.exit_start, self.inwards) = (exits, exit_start, inwards);
    }

    /// Distances to every place a robot can be sent to.
    fn measure(&mut self, guidance: bool) {
        let mut goals: Vec<Place> =
            self.positions.iter().map(|p| p.place).filter(|p| usize::from(*p) < self.roads.places).collect();
        goals.extend(&self.parking);
        goals.extend(&self.charging);
        goals.sort_unstable();
        goals.dedup();
        self.goal_of = vec![control_core::traffic::roads::NO_GOAL; self.roads.places];
        for (n, place) in goals.iter().enumerate() {
            self.goal_of[usize::from(*place)] = n as Goal;
        }
        let rows: Vec<Vec<Place>> = goals.iter().map(|p| vec![*p]).collect();
        if guidance && !rows.is_empty() {
            crate::guidance::learn(&mut self.roads, &rows, crate::guidance::Guidance::default());
            self.unit = crate::guidance::UNIT;
        } else {
            self.roads.measure(&rows);
            self.unit = 1;
        }
        self.chargers = self.charging.iter().map(|p| self.goal_of[usize::from(*p)]).collect();
        self.capacities = self.proof.capacities();
        self.area_of = vec![u16::MAX; self.roads.places];
        for (n, area) in (0u16..).zip(&self.areas) {
            area.places.iter().for_each(|p| self.area_of[usize::from(*p)] = n);
        }
        self.area_caps = self.areas.iter().map(|a| a.robots).collect();
        for machine in &mut self.machines {
            if let MachineKind::Robot { vehicle, home } = &mut machine.kind
                && let Some(place) = self.parking.get(usize::from(*vehicle))
            {
                *home = self.goal_of[usize::from(*place)];
            }
        }
    }
}
