//! A floor plan as a drawing: where each position, road, aisle, belt and station stands on the map.
//!
//! The plan says where things are; where it puts several into one point (a belt at a place of the roads, a station between its
//! ports), they are drawn side by side, away from the roads.

use super::{AreaKind, AreaView, PlaceKind, PlaceView, RoadView, STATES, Scene, TierView, VehicleKind, VehicleView};
use control_core::floor::{MachineKind, ZoneKind};
use control_core::traffic::roads::{Place, Roads};
use control_core::units::{MachineId, PosId, ZoneId};
use floor_plan::FloorPlan;
use floor_plan::plan::{AislePlan, Spot};

/// From the lane's middle to the outer edge of the front bays, and what every further row adds, metres.
const HALF_M: (f64, f64) = (1.2, 0.7);
/// The middle of a lift's shaft, along its aisle, and its width and depth, metres.
pub(super) const SHAFT_M: (f64, f64, f64) = (-0.1, 0.6, 1.6);
/// From belt to belt beside each other at a lift, and from place to place on them, metres.
const BELTS_M: (f64, f64) = (0.8, 0.9);
/// A station's side, metres.
const STATION_M: f64 = 1.6;

/// A point of the map.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) tier: u16,
}

impl From<Spot> for Point {
    fn from(spot: Spot) -> Point {
        Point { x: spot.x, y: spot.y, tier: spot.tier }
    }
}

/// Where everything is drawn.
pub(super) struct Drawing {
    /// Every position, decks included.
    pub(super) positions: Vec<Point>,
    /// The scene.
    pub(super) scene: Scene,
}

impl Drawing {
    pub(super) fn of(plan: &FloorPlan) -> Drawing {
        let positions = spread(plan);
        let scene = scene(plan, &positions);
        Drawing { positions, scene }
    }

    pub(super) fn at(&self, pos: PosId) -> Point {
        self.positions.get(usize::from(pos.0)).copied().unwrap_or_default()
    }
}

/// A point in an aisle: so far from the lift, so far beside the lane.
pub(super) fn in_aisle(aisle: &AislePlan, along: f64, side: f64, tier: u16) -> Point {
    let (dx, dy) = aisle.towards;
    Point { x: aisle.at.x + dx * along - dy * side, y: aisle.at.y + dy * along + dx * side, tier }
}

/// Metres between places beside each other: the shortest road.
fn pitch(plan: &FloorPlan, roads: &Roads<'_>) -> f64 {
    let mut shortest = f64::MAX;
    for (place, a) in (0u16..).zip(&plan.place_spots) {
        for b in roads.beside(place).iter().filter_map(|p| plan.place_spots.get(usize::from(*p))) {
            let length = (a.x - b.x).hypot(a.y - b.y);
            if length > 0.01 && length < shortest {
                shortest = length;
            }
        }
    }
    if shortest == f64::MAX { 1.0 } else { shortest }
}

/// The direction in which there is no road beside a place.
fn away(plan: &FloorPlan, place: Place, pitch: f64) -> (f64, f64) {
    let Some(at) = plan.place_spots.get(usize::from(place)) else { return (1.0, 0.0) };
    let is_free = |(dx, dy): (f64, f64)| {
        let (x, y) = (at.x + dx * pitch, at.y + dy * pitch);
        plan.place_spots.iter().all(|s| (s.x - x).hypot(s.y - y) > 0.6 * pitch)
    };
    [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0)].into_iter().find(|d| is_free(*d)).unwrap_or((0.0, 0.0))
}

fn add(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0 + b.0, a.1 + b.1)
}

/// A direction of length one, or none.
fn unit(dx: f64, dy: f64) -> (f64, f64) {
    let length = dx.hypot(dy);
    if length > 0.01 { (dx / length, dy / length) } else { (0.0, 0.0) }
}

fn spread(plan: &FloorPlan) -> Vec<Point> {
    let (floor, all) = (plan.view(), 0..plan.position_count() as u16);
    let mut positions: Vec<Point> = all.map(|n| plan.spot(PosId(n)).into()).collect();
    let pitch = pitch(plan, floor.roads());
    for (_, zone) in floor.zone_ids().filter(|(_, z)| z.kind == ZoneKind::Lane) {
        let place = floor.position(zone.first).map_or(u16::MAX, |p| p.place);
        let Some(spot) = plan.place_spots.get(usize::from(place)) else { continue };
        let here = |p: &Point| (p.x - spot.x).hypot(p.y - spot.y) < 0.01;
        let (dx, dy) = away(plan, place, pitch);
        for (k, pos) in zone.positions().enumerate() {
            if let Some(p) = positions.get_mut(usize::from(pos.0)).filter(|p| here(p)) {
                let out = 0.75 * pitch + 0.6 * k as f64;
                (p.x, p.y) = (spot.x + dx * out, spot.y + dy * out);
            }
        }
    }
    for aisle in &plan.aisles {
        beside_each_other(plan, aisle, &mut positions);
    }
    // A station stands beyond the ends of its lanes, or between them.
    for (_, station) in floor.stations() {
        let (Some(input), Some(output)) = (floor.zone(station.input), floor.zone(station.output)) else { continue };
        let point = |pos: PosId| positions.get(usize::from(pos.0)).copied().unwrap_or_default();
        // The end at the station, and the end or the stop away from it.
        let (a, b) = (point(input.exit()), point(output.entry()));
        let far = |near: PosId, end: PosId| {
            let place = floor.position(near).map_or(u16::MAX, |p| p.place);
            plan.place_spots.get(usize::from(place)).map_or(point(end), |s| Point::from(*s))
        };
        let from = [(a, far(input.exit(), input.entry())), (b, far(output.entry(), output.exit()))];
        let (dx, dy) = from.iter().map(|(near, far)| unit(near.x - far.x, near.y - far.y)).fold((0.0, 0.0), add);
        let (dx, dy) = unit(dx, dy);
        let out = 0.5 + STATION_M / 2.0;
        let spot = Point { x: (a.x + b.x) / 2.0 + dx * out, y: (a.y + b.y) / 2.0 + dy * out, tier: 0 };
        if let Some(deck) = floor.machine(station.machine)
            && let Some(slot) = positions.get_mut(usize::from(deck.deck.0))
        {
            *slot = spot;
        }
    }
    positions
}

/// Belts that run from a lift to where robots stop for them all begin at its foot: they are drawn side by side, in the order of their
/// other ends, with those to the outside between them.
fn beside_each_other(plan: &FloorPlan, aisle: &AislePlan, positions: &mut [Point]) {
    let floor = plan.view();
    let Some(domain) = aisle.zones.first().and_then(|z| floor.zone(z[0])).map(|z| z.domain) else { return };
    let zones = plan.belts.iter().filter_map(|b| floor.zone(b.zone)).filter(|z| z.domain == domain);
    let has_stop =
        |pos: PosId| floor.position(pos).is_some_and(|p| plan.place_spots.get(usize::from(p.place)).is_some());
    let (dx, dy) = aisle.towards;
    let away = |p: &Point| (p.x - aisle.at.x).hypot(p.y - aisle.at.y);
    let mut belts: Vec<(f64, Vec<PosId>)> = Vec::new();
    let mut any_stop = false;
    for zone in zones {
        let at = |pos: &PosId| positions.get(usize::from(pos.0)).copied().unwrap_or_default();
        let mut places: Vec<PosId> = zone.positions().collect();
        places.sort_by(|a, b| away(&at(a)).total_cmp(&away(&at(b))));
        any_stop |= places.iter().any(|p| has_stop(*p));
        if let Some(last) = places.last().map(at) {
            belts.push((-dy * (last.x - aisle.at.x) + dx * (last.y - aisle.at.y), places));
        }
    }
    if !any_stop {
        return;
    }
    belts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let middle = belts.len().saturating_sub(1) as f64 / 2.0;
    for (n, (_, places)) in belts.iter().enumerate() {
        for (k, pos) in places.iter().enumerate() {
            if let Some(p) = positions.get_mut(usize::from(pos.0)) {
                *p = in_aisle(aisle, -BELTS_M.1 * (k + 1) as f64, (n as f64 - middle) * BELTS_M.0, 0);
            }
        }
    }
}

/// A rectangle around two corners.
fn area(name: &str, kind: AreaKind, (a, b): (Point, Point), to_tier: u16) -> AreaView {
    AreaView {
        name: name.into(),
        kind,
        x_m: a.x.min(b.x) as f32,
        y_m: a.y.min(b.y) as f32,
        width_m: (a.x - b.x).abs() as f32,
        depth_m: (a.y - b.y).abs() as f32,
        tier: a.tier,
        to_tier,
        zones: Vec::new(),
    }
}

fn around(at: Point, half: f64) -> (Point, Point) {
    (Point { x: at.x - half, y: at.y - half, ..at }, Point { x: at.x + half, y: at.y + half, ..at })
}

fn scene(plan: &FloorPlan, positions: &[Point]) -> Scene {
    let floor = plan.view();
    let tiers = plan.aisles.iter().map(|a| a.tiers).max().unwrap_or(1).max(1);
    let tier = |t: u16| {
        let heights = plan.aisles.iter().filter(|a| a.tiers > t).map(|a| f64::from(t) * a.tier_heights[1]);
        let elevation_m = heights.fold(0.0, f64::max) as f32;
        TierView { name: format!("Tier {}", t + 1), elevation_m }
    };
    let mut places: Vec<PlaceView> = (0..plan.sensed())
        .map(PosId)
        .map(|pos| {
            let at = positions.get(usize::from(pos.0)).copied().unwrap_or_default();
            let (zone, kind) = floor.zone_of(pos).map_or((ZoneId(u16::MAX), ZoneKind::Lane), |(id, z)| (id, z.kind));
            let is_transfer = plan.aisles.iter().any(|a| a.zones.iter().any(|z| z[1] == zone || z[2] == zone));
            let kind = match kind {
                ZoneKind::Bays => PlaceKind::Bay,
                _ if is_transfer => PlaceKind::Transfer,
                _ if plan.belts.iter().any(|b| b.zone == zone) => PlaceKind::Belt,
                _ => PlaceKind::Port,
            };
            PlaceView { name: plan.position_name(pos).into(), x_m: at.x as f32, y_m: at.y as f32, tier: at.tier, kind }
        })
        .collect();
    let first_road = places.len() as u32;
    let parked: std::collections::HashSet<Place> = plan.parking.iter().copied().collect();
    let charged: std::collections::HashSet<Place> = plan.charging.iter().copied().collect();
    places.extend((0u16..).zip(&plan.place_spots).map(|(place, spot)| PlaceView {
        name: plan.place_name(place),
        x_m: spot.x as f32,
        y_m: spot.y as f32,
        tier: 0,
        kind: match () {
            () if charged.contains(&place) => PlaceKind::Charge,
            () if parked.contains(&place) => PlaceKind::Park,
            () => PlaceKind::Road,
        },
    }));
    let (mut roads, net) = (Vec::new(), floor.roads());
    for from in 0..plan.place_spots.len() as u16 {
        for to in net.beside(from) {
            let both = net.beside(*to).contains(&from);
            if !both || from < *to {
                roads.push(RoadView { from: first_road + u32::from(from), to: first_road + u32::from(*to), both });
            }
        }
    }
    let bay_m = plan.aisles.iter().map(|a| a.bay_distances[1]).fold(f64::MAX, f64::min);
    let bay_m = if plan.aisles.is_empty() { 0.0 } else { (bay_m * 0.88).clamp(0.1, 0.52) as f32 };
    Scene {
        tiers: (0..tiers).map(tier).collect(),
        places,
        roads,
        areas: areas(plan, positions),
        vehicles: floor.machine_ids().map(|id| vehicle(plan, id)).collect(),
        states: STATES.to_vec(),
        bay_m,
    }
}

fn areas(plan: &FloorPlan, positions: &[Point]) -> Vec<AreaView> {
    let floor = plan.view();
    let point = |pos: PosId| positions.get(usize::from(pos.0)).copied().unwrap_or_default();
    let mut areas = Vec::new();
    for aisle in &plan.aisles {
        let last = aisle.tiers.saturating_sub(1);
        let [first, each] = aisle.bay_distances;
        let (far, half) = (first + f64::from(aisle.bays) * each, HALF_M.0 + HALF_M.1 * f64::from(aisle.depth - 1));
        let name = if aisle.name.is_empty() { "aisle" } else { &aisle.name };
        let corners = (in_aisle(aisle, 0.25, -half, 0), in_aisle(aisle, far, half, 0));
        let zones = aisle.zones.iter().map(|z| plan.zone_name(z[0]).to_string()).collect();
        areas.push(AreaView { zones, ..area(name, AreaKind::Aisle, corners, last) });
        let (middle, width, depth) = SHAFT_M;
        let corners = (middle - width / 2.0, middle + width / 2.0);
        let corners = (in_aisle(aisle, corners.0, -depth / 2.0, 0), in_aisle(aisle, corners.1, depth / 2.0, 0));
        let lift = aisle.lifts.first().map_or("lift", |id| plan.machine_name(*id));
        areas.push(area(lift, AreaKind::Lift, corners, last));
    }
    for belt in &plan.belts {
        let Some(zone) = floor.zone(belt.zone) else { continue };
        let (a, b) = (point(zone.entry()), point(zone.exit()));
        let low = Point { x: a.x.min(b.x) - 0.4, y: a.y.min(b.y) - 0.3, tier: 0 };
        let high = Point { x: a.x.max(b.x) + 0.4, y: a.y.max(b.y) + 0.3, tier: 0 };
        let zones = vec![plan.zone_name(belt.zone).to_string()];
        areas.push(AreaView { zones, ..area(&belt.name, AreaKind::Belt, (low, high), 0) });
    }
    for (id, station) in floor.stations() {
        let Some(machine) = floor.machine(station.machine) else { continue };
        areas.push(area(plan.station_name(id), AreaKind::Station, around(point(machine.deck), STATION_M / 2.0), 0));
    }
    areas
}

fn vehicle(plan: &FloorPlan, id: MachineId) -> VehicleView {
    let (kind, length_m, width_m) = match plan.view().machine(id).map(|m| m.kind) {
        Some(MachineKind::Shuttle { .. }) => (VehicleKind::Shuttle, 0.7, 0.6),
        Some(MachineKind::Lift { .. }) => (VehicleKind::Lift, 0.5, 1.2),
        Some(MachineKind::Robot { vehicle, .. }) => {
            let [length, width] = plan.robots.get(usize::from(vehicle)).map_or([0.9, 0.6], |r| r.size);
            (VehicleKind::Robot, length as f32, width as f32)
        }
        _ => (VehicleKind::Cell, 1.2, 1.2),
    };
    // A machine that travels north or south is as long as others are wide.
    let turned =
        plan.aisles.iter().any(|a| a.towards.0.abs() < 0.5 && (a.shuttles.contains(&id) || a.lifts.contains(&id)));
    let (length_m, width_m) = if turned { (width_m, length_m) } else { (length_m, width_m) };
    VehicleView { name: plan.machine_name(id).into(), kind, length_m, width_m }
}
