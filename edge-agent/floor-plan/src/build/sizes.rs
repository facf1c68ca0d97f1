//! How large a floor may be: everything on it is numbered with 16 bits. Counted in the file, before anything is built of it.

use super::is_road;
use crate::file::{Aisle, Fault, FloorFile};
use std::collections::BTreeSet;
use std::ops::Range;

/// Places of the roads. The last number of 16 bits means none, and who counts places ends with the one before it.
pub const PLACES_MAX: usize = 65_534;
/// Load positions, decks of machines included.
const POSITIONS_MAX: usize = 65_534;
/// Machines with a command block.
const MACHINES_MAX: usize = 65_534;
/// Zones of load positions: a tier has three, a belt, a port and a machine's deck one each.
const ZONES_MAX: usize = 65_534;
/// Mobile robots, of all kinds together.
const ROBOTS_MAX: usize = 10_000;
/// Groups of stations: they are numbered with 8 bits.
const GROUPS_MAX: usize = 255;

/// A sum that remembers with what it became too large.
struct Sum {
    what: &'static str,
    max: usize,
    help: &'static str,
    found: usize,
    at: Option<Range<usize>>,
}

impl Sum {
    fn new(what: &'static str, max: usize, help: &'static str) -> Sum {
        Sum { what, max, help, found: 0, at: None }
    }

    fn add(&mut self, count: usize, span: Range<usize>) {
        self.found = self.found.saturating_add(count);
        if self.found > self.max && self.at.is_none() {
            self.at = Some(span);
        }
    }

    fn fault(self) -> Option<Fault> {
        let Sum { what, max, help, found, at } = self;
        let label = format!("found {found}, expected at most {max}");
        Some(Fault::new(at?, format!("this floor has too many {what}"), label).help(help))
    }
}

const SPLIT: &str = "split the floor between several gateways";

/// What there is too much of.
pub(super) fn faults(file: &FloorFile) -> Vec<Fault> {
    let mut places = Sum::new(
        "places on its roads",
        PLACES_MAX,
        "draw the map with larger cells (pitch), leave out cells on which no robot drives, or split the floor between several gateways",
    );
    let mut positions = Sum::new("load positions", POSITIONS_MAX, SPLIT);
    let mut machines = Sum::new("machines", MACHINES_MAX, SPLIT);
    let mut zones = Sum::new("zones of load positions", ZONES_MAX, SPLIT);
    let mut robots = Sum::new("mobile robots", ROBOTS_MAX, SPLIT);
    let mut groups =
        Sum::new("groups of stations", GROUPS_MAX, "give stations that can stand for each other one group");

    if let Some(roads) = &file.roads {
        if let Some(map) = &roads.map {
            places.add(map.get_ref().bytes().filter(|b| is_road(*b)).count(), map.span());
        }
        for place in &roads.places {
            places.add(1, place.name.span());
        }
    }
    for aisle in &file.aisles {
        let (span, count) = (aisle.name.span(), Counts::of(aisle));
        positions.add(count.positions, span.clone());
        zones.add(count.zones, span.clone());
        machines.add(count.machines, span);
    }
    for belt in &file.belts {
        positions.add(belt.places.as_ref().map_or(2, |p| usize::from(*p.get_ref())), belt.name.span());
        zones.add(1, belt.name.span());
    }
    let mut names = BTreeSet::new();
    for station in &file.stations {
        let (span, ports) = (station.name.span(), 2);
        positions.add(ports + 1, span.clone());
        zones.add(ports + 1, span.clone());
        machines.add(1, span.clone());
        let is_new = names.insert(station.group.as_ref().map_or("station", |g| g.get_ref()));
        groups.add(usize::from(is_new), span);
    }
    for count in file.robots.iter().flat_map(|r| std::iter::once(&r.count).chain(r.kinds.iter().map(|k| &k.count))) {
        let (n, span) = (usize::from(*count.get_ref()), count.span());
        positions.add(n, span.clone());
        zones.add(n, span.clone());
        machines.add(n, span.clone());
        robots.add(n, span);
    }
    [places, positions, machines, zones, robots, groups].into_iter().filter_map(Sum::fault).collect()
}

/// What an aisle has at most.
struct Counts {
    positions: usize,
    zones: usize,
    machines: usize,
}

impl Counts {
    fn of(aisle: &Aisle) -> Counts {
        let number =
            |n: &Option<toml::Spanned<u16>>, else_: usize| n.as_ref().map_or(else_, |n| usize::from(*n.get_ref()));
        let (tiers, bays) = (usize::from(*aisle.tiers.get_ref()), usize::from(*aisle.bays.get_ref()));
        let (depth, lane) = (number(&aisle.depth, 1), number(&aisle.lane, 1));
        let machines = number(&aisle.shuttles, tiers) + number(&aisle.lifts, 1);
        let of_a_tier = bays.saturating_mul(2).saturating_mul(depth).saturating_add(2 * lane);
        Counts {
            positions: tiers.saturating_mul(of_a_tier).saturating_add(machines),
            zones: 3 * tiers + machines,
            machines,
        }
    }
}
