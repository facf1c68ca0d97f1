//! Roads and the robots on them: places from a map or by name, and what has to be proven before anybody drives.

use super::{Build, is_road};
use crate::file::{Drive, Fault, Roads, Robots};
use crate::map::Grid;
use crate::near;
use crate::plan::{AreaPlan, RobotPlan, Spot};
use crate::proof::{Kind, Proof};
use crate::tables::RoadTables;
use control_core::floor::MachineKind;
use control_core::traffic::roads::{NO_GOAL, NO_PLACE, Place};
use toml::Spanned;

const ROBOT: Drive = Drive { speed: 1.5, acceleration: 0.8 };
/// Metres, along and across.
const ROBOT_SIZE: [f64; 2] = [0.9, 0.6];

impl Build {
    pub(super) fn roads(&mut self, roads: &Roads) {
        match (&roads.map, roads.places.is_empty()) {
            (Some(map), true) => self.map(roads, map),
            (None, false) => self.road_map(roads),
            (Some(map), false) => self.fault(map.span(), "roads are given twice", "either a map, or places and roads"),
            (None, true) => self.fault(0..0, "there are no roads", "[roads] needs a map, or places and roads"),
        }
        self.plan.proof = Proof::of(&self.plan.roads);
    }

    fn map(&mut self, roads: &Roads, map: &Spanned<String>) {
        let rows: Vec<&str> = map.get_ref().lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let width = rows.first().map_or(0, |r| r.len());
        if let Some((n, row)) = rows.iter().enumerate().find(|(_, r)| r.len() != width || !r.is_ascii()) {
            return self.fault(
                map.span(),
                "the rows of the map are not of one length",
                format!("row {} has {} cells, the first {width}", n + 1, row.len()),
            );
        }
        let at = |r: usize, c: usize| rows[r].as_bytes()[c];
        let grid = Grid::from_fn(rows.len(), width, |r, c| is_road(at(r, c)));
        let one_way = |b: u8| match b {
            b'>' => Some(0usize),
            b'v' => Some(1),
            b'<' => Some(2),
            b'^' => Some(3),
            _ => None,
        };
        let (tables, _) = RoadTables::of_grid_with(&grid, true, |r, c| one_way(at(r, c)));
        let pitch = roads.pitch.unwrap_or(1.0);
        for (place, (r, c)) in (0u16..).zip(grid.cells()) {
            let (x, y) = (roads.at[0] + c as f64 * pitch, roads.at[1] + r as f64 * pitch);
            self.plan.place_spots.push(Spot { x, y, z: 0.0, tier: 0 });
            match at(r, c) {
                b'P' => self.plan.parking.push(place),
                b'E' => self.plan.charging.push(place),
                b'v' => {}
                label if label.is_ascii_alphanumeric() => {
                    let label = (label as char).to_string();
                    self.plan.place_names.insert(place, label.clone());
                    if self.labels.insert(label.clone(), place).is_some() {
                        self.fault(
                            map.span(),
                            "a label stands twice in the map",
                            format!("\"{label}\" again in row {}", r + 1),
                        );
                    }
                }
                _ => {}
            }
        }
        self.plan.roads = tables;
    }

    fn road_map(&mut self, roads: &Roads) {
        let mut spots = Vec::new();
        for (n, place) in (0u16..).zip(&roads.places) {
            let name = place.name.get_ref().clone();
            spots.push((place.x, place.y));
            self.plan.place_spots.push(Spot { x: place.x, y: place.y, z: 0.0, tier: 0 });
            match place.kind.as_ref().map(|k| k.get_ref().as_str()) {
                None | Some("road") => {}
                Some("parking") => self.plan.parking.push(n),
                Some("charger") => self.plan.charging.push(n),
                Some(other) => {
                    let span = place.kind.as_ref().map_or(0..0, |k| k.span());
                    self.fault(
                        span,
                        "there is no such kind of place",
                        format!("found \"{other}\", expected road, parking or charger"),
                    );
                }
            }
            self.plan.place_names.insert(n, name.clone());
            if self.labels.insert(name.clone(), n).is_some() {
                self.fault(place.name.span(), "there are two places of this name", format!("\"{name}\" again"));
            }
        }
        let mut pairs = Vec::new();
        for road in &roads.roads {
            let (from, to) = (self.label(&road.from), self.label(&road.to));
            if from == NO_PLACE || to == NO_PLACE {
                continue;
            }
            pairs.push((from, to));
            if !road.one_way {
                pairs.push((to, from));
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        self.plan.roads = RoadTables::of_roads(&spots, &pairs, true);
    }

    /// What has to hold of the roads before robots drive on them.
    pub(super) fn prove(&mut self, roads: Option<&Roads>) {
        let (Some(roads), true) = (roads, !self.plan.robots.is_empty()) else { return };
        let span = roads.map.as_ref().map(|m| m.span()).or(roads.places.first().map(|p| p.name.span())).unwrap_or(0..0);
        let mut wanted: Vec<(Place, String)> = Vec::new();
        for (position, name) in self.plan.positions.iter().zip(&self.plan.position_names) {
            if usize::from(position.place) < self.plan.roads.places {
                wanted.push((position.place, format!("the stop for {name}")));
            }
        }
        let robots = self.plan.machines.iter().filter(|m| matches!(m.kind, MachineKind::Robot { .. })).count();
        wanted.extend(
            self.plan
                .parking
                .iter()
                .take(robots)
                .enumerate()
                .map(|(n, p)| (*p, format!("the parking place of robot-{}", n + 1))),
        );
        wanted.extend(self.plan.charging.iter().map(|p| (*p, "a charger".to_string())));
        let apart = self.keep_apart();
        let part = |p: Place| self.plan.proof.part.get(usize::from(p)).copied();
        let Some((first, _)) = wanted.first().cloned() else { return };
        let cut: Vec<String> =
            wanted.iter().filter(|(p, _)| part(*p) != part(first)).map(|(_, name)| name.clone()).collect();
        let where_is = |p: Place| {
            let spot = self.plan.place_spots.get(usize::from(p)).copied().unwrap_or_default();
            format!("x {:.1} y {:.1}", spot.x, spot.y)
        };
        let touching = apart.map(|(a, b)| {
            let wide = self.plan.clearance_m();
            format!("robots would touch at {} and {}: they need {wide:.2} m", where_is(a), where_is(b))
        });
        let closed: Vec<String> = self
            .plan
            .proof
            .regions
            .iter()
            .filter(|r| r.kind == Kind::Closed && r.places.iter().any(|p| part(*p) == part(first)))
            .filter_map(|r| r.places.first().map(|p| where_is(*p)))
            .collect();
        let places = self.plan.proof.blocks.iter().map(Vec::len).sum::<usize>();
        if let Some(name) = cut.first() {
            self.fault(
                span.clone(),
                "not every place can be reached from every other and left again",
                format!(
                    "{name} is cut off{}",
                    if cut.len() > 1 { format!(", and {} more", cut.len() - 1) } else { String::new() }
                ),
            );
        }
        let ends: Vec<Place> = self.plan.parking.iter().take(robots).copied().collect();
        let both = |n: usize| ends.iter().skip(n + 1).position(|q| self.plan.roads.view().near(ends[n]).contains(q));
        if let Some((a, b)) = (0..ends.len()).find_map(|n| both(n).map(|k| (n + 1, n + k + 2))) {
            let label =
                format!("those of robot-{a} and robot-{b} are less than {:.2} m apart", self.plan.clearance_m());
            self.fault(span.clone(), "parking places are in each other's way", label);
        }
        if roads.unproven {
            return;
        }
        if let Some(label) = touching {
            self.faults.push(
                Fault::new(
                    span.clone(),
                    "it cannot be proven that robots never lock where they are in each other's way",
                    label,
                )
                .help("move these places or the roads to them apart, or say unproven = true and watch the alarm: then only one goes there at a time"),
            );
        }
        if let Some(at) = closed.first() {
            self.faults.push(
                Fault::new(
                    span.clone(),
                    "it cannot be proven that robots on these roads never lock",
                    format!("at {at} there is no loop on which one could give way to another"),
                )
                .help("add a loop of at least three places beside it, or say unproven = true and watch the alarm"),
            );
        } else if robots > 0 && places > 0 && robots >= places {
            self.fault(
                span,
                "there are too many robots for these roads",
                format!("{robots} robots, {places} places on which they can give way"),
            );
        }
    }

    /// Notes which places cannot be used at once. Returns the first pair, if there is any.
    fn keep_apart(&mut self) -> Option<(Place, Place)> {
        let beside = |p: Place| self.plan.roads.view().beside(p).to_vec();
        let pairs = near::pairs(&self.plan.place_spots, beside, self.plan.clearance_m());
        self.plan.roads.keep_apart(&pairs);
        pairs.first().copied()
    }

    /// Areas with a cap. A place belongs to one at most.
    pub(super) fn areas(&mut self, roads: &Roads) {
        if let Some(area) = roads.areas.get(control_core::limits::AREAS_MAX) {
            let label = format!("expected at most {}", control_core::limits::AREAS_MAX);
            self.fault(area.name.span(), "there are too many areas", label);
        }
        for area in &roads.areas {
            let robots = self.within("robots in an area", &area.robots, 1, 10_000);
            let name = area.name.get_ref().clone();
            let within = |a: f64, b: f64, v: f64| (a.min(b)..=a.max(b)).contains(&v);
            let inside = (0u16..)
                .zip(&self.plan.place_spots)
                .filter(|(_, s)| within(area.from[0], area.to[0], s.x) && within(area.from[1], area.to[1], s.y));
            let places: Vec<Place> = inside.map(|(p, _)| p).collect();
            if places.is_empty() {
                self.fault(
                    area.name.span(),
                    "there is no place in this area",
                    format!("found none from {:?} to {:?}", area.from, area.to),
                );
            }
            let other = self.plan.areas.iter().find(|a| a.name == name || a.places.iter().any(|p| places.contains(p)));
            if let Some(other) = other.map(|a| a.name.clone()) {
                self.fault(
                    area.name.span(),
                    "two areas overlap",
                    format!("\"{name}\" and \"{other}\" have a place or their name in common"),
                );
            }
            self.plan.areas.push(AreaPlan { name, places, robots });
        }
    }

    pub(super) fn robots(&mut self, robots: &Robots, roads: Option<&Roads>) {
        let count = *robots.count.get_ref();
        let kinds: Vec<u16> = robots.kinds.iter().map(|k| *k.count.get_ref()).collect();
        let all = kinds.iter().map(|n| usize::from(*n)).sum::<usize>() + usize::from(count);
        if roads.is_none() {
            return self.fault(robots.count.span(), "mobile robots need roads", "there is no [roads]");
        }
        let parking = self.plan.parking.len();
        if parking < all {
            self.faults.push(
                Fault::new(
                    robots.count.span(),
                    "every robot needs a parking place of its own",
                    format!("found {all} robots and {parking} parking places"),
                )
                .help("mark more cells of the map with P, or places with kind = \"parking\""),
            );
        }
        let first = (count, robots.drive, robots.size);
        let kinds = kinds.into_iter().zip(&robots.kinds).map(|(count, kind)| (count, kind.drive, kind.size));
        for (count, drive, size) in std::iter::once(first).chain(kinds) {
            let size = size.unwrap_or(ROBOT_SIZE);
            if !size.iter().all(|m| (0.05..=20.0).contains(m)) {
                self.fault(
                    robots.count.span(),
                    "robots cannot be of this size",
                    format!("found {size:?}, expected 0.05 to 20 m each way"),
                );
            }
            let body = RobotPlan { drive: drive.unwrap_or(ROBOT), size };
            self.plan.robots.extend(std::iter::repeat_n(body, usize::from(count)));
        }
        for (vehicle, drive) in (0..).zip(self.plan.robots.iter().map(|r| r.drive).collect::<Vec<_>>()) {
            let domain = self.domain();
            let kind = MachineKind::Robot { vehicle, home: NO_GOAL };
            self.machine(format!("robot-{}", vehicle + 1), kind, drive, domain);
            self.close(domain);
        }
    }
}
