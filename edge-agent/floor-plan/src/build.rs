//! From what a floor file says to what it means, step by step: aisles, stations, belts, roads, robots. What is wrong is told with
//! the place in the file, what was found, and what was expected; all of it at once.

mod links;
mod roads;

use crate::file::{Aisle, Belt, Drive, Fault, FloorFile, Station};
use crate::plan::{AislePlan, BeltPlan, FloorPlan, Spot};
use control_core::floor::{
    Beyond, DomainInfo, MachineInfo, MachineKind, Position, Rack, StationInfo, Tier, Zone, ZoneKind,
};
use control_core::rack::Axis;
use control_core::traffic::roads::{NO_PLACE, Place};
use control_core::units::{DomainId, MachineId, PosId, RackId, StationId, ZoneId};
use std::collections::BTreeMap;
use toml::Spanned;

/// A fast shuttle and a fast lift of a small-parts store.
const SHUTTLE: Drive = Drive { speed: 4.0, acceleration: 2.0 };
const LIFT: Drive = Drive { speed: 5.0, acceleration: 7.0 };
const BAY_DISTANCES: [f64; 2] = [1.0, 0.5];
const TIER_HEIGHTS: [f64; 2] = [0.5, 0.5];
/// From the middle of the lane to the middle of a bay.
const SIDE_M: f64 = 0.85;
/// The foot of the upper of two lifts over that of the lower one.
const SECOND_FOOT_M: f64 = 1.0;

impl FloorPlan {
    /// Reads a floor file.
    pub fn parse(text: &str) -> Result<FloorPlan, Vec<Fault>> {
        let file: FloorFile = toml::from_str(text).map_err(|e| {
            let span = e.span().unwrap_or(0..0);
            vec![Fault::new(span, "this is not a floor file", e.message().to_string())]
        })?;
        FloorPlan::of(&file)
    }

    /// Makes sense of a floor file.
    pub fn of(file: &FloorFile) -> Result<FloorPlan, Vec<Fault>> {
        let mut build = Build::default();
        if let Some(roads) = &file.roads {
            build.roads(roads);
            build.areas(roads);
        }
        for station in &file.stations {
            build.name_station(station);
        }
        for aisle in &file.aisles {
            build.aisle(aisle, &file.belts);
        }
        for (n, station) in file.stations.iter().enumerate() {
            build.station(n, station, &file.belts);
        }
        if let Some(robots) = &file.robots {
            build.robots(robots, file.roads.as_ref());
        }
        build.belts_nobody_has(&file.belts);
        build.join();
        build.prove(file.roads.as_ref());
        if !build.faults.is_empty() {
            return Err(build.faults);
        }
        let guidance = file.roads.as_ref().and_then(|r| r.guidance).unwrap_or(true);
        let faults = build.plan.finish(guidance);
        if faults.is_empty() { Ok(build.plan) } else { Err(faults) }
    }

    /// One aisle with a shuttle a tier, one lift, a belt in, a belt out, and a robot cell on a loop of two belts.
    pub fn small(tiers: u16, bays: u16) -> Option<FloorPlan> {
        if !(1..=60).contains(&tiers) || !(1..=400).contains(&bays) {
            return None;
        }
        let text = format!(
            "[[aisle]]\nname = \"\"\ntiers = {tiers}\nbays = {bays}\n\
             [[belt]]\nname = \"infeed\"\nfrom = \"outside\"\nto = \"lift\"\n\
             [[belt]]\nname = \"outfeed\"\nfrom = \"lift\"\nto = \"outside\"\n\
             [[belt]]\nname = \"cell-feed\"\nfrom = \"lift\"\nto = \"cell\"\n\
             [[belt]]\nname = \"cell-return\"\nfrom = \"cell\"\nto = \"lift\"\n\
             [[station]]\nname = \"cell\"\n"
        );
        FloorPlan::parse(&text).ok()
    }
}

/// Where a belt begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Outside,
    Robots,
    Lift(MachineId),
    Station(usize),
}

#[derive(Default)]
struct Build {
    plan: FloorPlan,
    faults: Vec<Fault>,
    labels: BTreeMap<String, Place>,
    stations: Vec<StationDraft>,
    lifts: BTreeMap<String, MachineId>,
    done_belts: Vec<usize>,
    /// Lanes with where they begin and end, to be joined by links at the end.
    lanes: Vec<(ZoneId, Option<End>, Option<End>)>,
}

#[derive(Default)]
struct StationDraft {
    name: String,
    group: u8,
    input: Option<ZoneId>,
    output: Option<ZoneId>,
}

impl Build {
    fn fault(&mut self, span: std::ops::Range<usize>, message: &str, label: impl Into<String>) {
        self.faults.push(Fault::new(span, message, label));
    }

    fn within(&mut self, what: &str, value: &Spanned<u16>, from: u16, to: u16) -> u16 {
        let n = *value.get_ref();
        if !(from..=to).contains(&n) {
            self.fault(value.span(), &format!("there cannot be {n} {what}"), format!("expected {from} to {to}"));
        }
        n.clamp(from, to)
    }

    fn zone(&mut self, name: String, zone: Zone, positions: Vec<(Position, Spot, String)>) -> ZoneId {
        let id = ZoneId(self.plan.zones.len() as u16);
        self.plan.zones.push(zone);
        self.plan.zone_names.push(name);
        self.plan.links.push(Vec::new());
        for (position, spot, name) in positions {
            self.plan.positions.push(Position { zone: id, ..position });
            self.plan.spots.push(spot);
            self.plan.position_names.push(name);
        }
        id
    }

    fn next_pos(&self) -> PosId {
        PosId(self.plan.positions.len() as u16)
    }

    fn machine(&mut self, name: String, kind: MachineKind, drive: Drive, domain: DomainId) -> MachineId {
        let id = MachineId(self.plan.machines.len() as u16);
        let axis = Axis {
            speed_mm_s: (drive.speed * 1000.0).round().clamp(0.0, 1e6) as u32,
            acceleration_mm_s2: (drive.acceleration * 1000.0).round().clamp(0.0, 1e6) as u32,
        };
        self.plan.machines.push(MachineInfo { kind, deck: PosId(0), domain, axis });
        self.plan.machine_names.push(name);
        id
    }

    fn domain(&mut self) -> DomainId {
        let id = DomainId(self.plan.domains.len() as u16);
        let machines = (MachineId(self.plan.machines.len() as u16), 0);
        self.plan.domains.push(DomainInfo { machines, sensed: (self.next_pos(), 0) });
        id
    }

    /// A domain has all its machines and positions now.
    fn close(&mut self, id: DomainId) {
        let (machines, positions) = (self.plan.machines.len() as u16, self.plan.positions.len() as u16);
        let domain = &mut self.plan.domains[usize::from(id.0)];
        domain.machines.1 = machines - domain.machines.0.0;
        domain.sensed.1 = positions - domain.sensed.0.0;
    }

    fn aisle(&mut self, aisle: &Aisle, belts: &[Belt]) {
        let tiers = self.within("tiers in an aisle", &aisle.tiers, 1, 60);
        let bays = self.within("bays on a side of a tier", &aisle.bays, 1, 400);
        let depth = aisle.depth.as_ref().map_or(1, |d| self.within("bays one behind another", d, 1, 2));
        let lane = aisle.lane.as_ref().map_or(1, |l| self.within("places in a lane", l, 1, 8));
        let lifts =
            aisle.lifts.as_ref().map_or(1, |l| self.within("lifts on a mast", l, 1, if tiers > 1 { 2 } else { 1 }));
        let towards = match aisle.towards.as_ref().map(|t| t.get_ref().as_str()) {
            None | Some("east") => (1.0, 0.0),
            Some("west") => (-1.0, 0.0),
            Some("north") => (0.0, -1.0),
            Some("south") => (0.0, 1.0),
            Some(other) => {
                let span = aisle.towards.as_ref().map_or(0..0, |t| t.span());
                self.fault(
                    span,
                    "this is no direction",
                    format!("found \"{other}\", expected east, west, north or south"),
                );
                (1.0, 0.0)
            }
        };
        let name = aisle.name.get_ref().clone();
        let dotted = |what: &str| if name.is_empty() { what.to_string() } else { format!("{name}.{what}") };
        if self.plan.aisles.iter().any(|a| a.name == name) {
            self.fault(aisle.name.span(), "there are two aisles of this name", format!("\"{name}\" again"));
        }
        let domain = self.domain();
        let shuttle = aisle.shuttle.unwrap_or(SHUTTLE);
        let count = aisle.shuttles.as_ref().map_or(tiers, |s| self.within("shuttles in an aisle", s, 1, tiers));
        let rack = (count < tiers).then_some(RackId(self.plan.racks.len() as u16));
        let shuttles: Vec<MachineId> = (1..=count)
            .map(|n| self.machine(dotted(&format!("shuttle-{n}")), MachineKind::Shuttle { rack }, shuttle, domain))
            .collect();
        let mast = self.plan.aisles.len() as u16;
        let lift_ids: Vec<MachineId> = (1..=lifts)
            .map(|n| {
                let name = dotted(&if lifts == 1 { "lift".to_string() } else { format!("lift-{n}") });
                let id =
                    self.machine(name.clone(), MachineKind::Lift { mast, rack }, aisle.lift.unwrap_or(LIFT), domain);
                self.lifts.insert(name, id);
                id
            })
            .collect();
        let mut plan = AislePlan {
            name: name.clone(),
            tiers,
            bays,
            depth,
            at: Spot { x: aisle.at[0], y: aisle.at[1], z: 0.0, tier: 0 },
            towards,
            bay_distances: aisle.bay_distances.unwrap_or(BAY_DISTANCES),
            tier_heights: aisle.tier_heights.unwrap_or(TIER_HEIGHTS),
            zones: Vec::new(),
            shuttles,
            lifts: lift_ids,
            rack,
        };
        let tiers_of_bays: Vec<ZoneId> = (0..tiers).map(|t| self.bays(&plan, &dotted, t, domain)).collect();
        for (t, tier) in (0..tiers).zip(tiers_of_bays) {
            let lanes = [("out", 0.35), ("in", -0.35)].map(|(way, side)| {
                let name = dotted(&format!("transfer-{way}-{}", t + 1));
                self.lane(&plan, name, lane, t, side, if way == "in" { Some(tier) } else { None }, domain)
            });
            plan.zones.push([tier, lanes[0], lanes[1]]);
        }
        if rack.is_some() {
            self.change_of_tiers(&plan);
        }
        for (n, belt) in belts.iter().enumerate() {
            self.aisle_belt(n, belt, &plan, domain);
        }
        self.close(domain);
        self.plan.aisles.push(plan);
    }

    /// What the shuttles of an aisle have to know that change tier.
    fn change_of_tiers(&mut self, plan: &AislePlan) {
        let all = |ids: &[MachineId]| (ids.first().copied().unwrap_or_default(), ids.len() as u16);
        let tiers = (self.plan.tiers.len() as u16, plan.tiers);
        self.plan.racks.push(Rack { shuttles: all(&plan.shuttles), lifts: all(&plan.lifts), tiers });
        for [bays, lane_out, lane_in] in plan.zones.iter().copied() {
            let lane = &self.plan.zones[usize::from(lane_out.0)];
            let (gate, stop) = (lane.exit(), lane.entry());
            self.plan.tiers.push(Tier { bays, lane_out, lane_in, gate, stop });
        }
    }

    /// Where something at a distance from the lift and beside the lane is.
    fn spot(plan: &AislePlan, along: f64, side: f64, tier: u16) -> Spot {
        let (dx, dy) = plan.towards;
        Spot {
            x: plan.at.x + dx * along - dy * side,
            y: plan.at.y + dy * along + dx * side,
            z: plan.tier_heights[0] + f64::from(tier) * plan.tier_heights[1],
            tier,
        }
    }

    fn bays(&mut self, plan: &AislePlan, dotted: &dyn Fn(&str) -> String, tier: u16, domain: DomainId) -> ZoneId {
        let first = self.next_pos();
        let [start, pitch] = plan.bay_distances;
        let count = plan.bays * 2 * plan.depth;
        let mut positions = Vec::new();
        for index in 0..count {
            // Front bays of both sides first, then those behind them.
            let (row, column) = (index / plan.bays, index % plan.bays);
            let (deep, side) = (row / 2, if row % 2 == 0 { 1.0 } else { -1.0 });
            let along = start + f64::from(column) * pitch;
            let offset = side * (SIDE_M + f64::from(deep) * 0.7);
            let ahead = if deep == 1 { Some(PosId(first.0 + index - 2 * plan.bays)) } else { None };
            let behind = if deep == 0 && plan.depth == 2 { Some(PosId(first.0 + index + 2 * plan.bays)) } else { None };
            let side_name = if row % 2 == 0 { "left" } else { "right" };
            let rear = if deep == 1 { "-rear" } else { "" };
            let name = dotted(&format!("bay-{}-{side_name}{rear}-{:02}", tier + 1, column + 1));
            let position = Position {
                zone: ZoneId(0),
                along_mm: (along * 1000.0).round() as u32,
                height_mm: 0,
                place: NO_PLACE,
                front: ahead,
                behind,
            };
            positions.push((position, Build::spot(plan, along, offset, tier), name));
        }
        let zone = Zone {
            kind: ZoneKind::Bays,
            first,
            count,
            beyond: Beyond::Nothing,
            feeds: None,
            deep: plan.depth == 2,
            tier: None,
            closed: false,
            domain,
        };
        self.zone(dotted(&format!("tier-{}", tier + 1)), zone, positions)
    }

    #[allow(clippy::too_many_arguments)] // a lane: where, how long, to which tier
    fn lane(
        &mut self,
        plan: &AislePlan,
        name: String,
        count: u16,
        tier: u16,
        side: f64,
        into: Option<ZoneId>,
        domain: DomainId,
    ) -> ZoneId {
        let first = self.next_pos();
        let height = plan.tier_heights[0] + f64::from(tier) * plan.tier_heights[1];
        let positions = (0..count)
            .map(|n| {
                let position = Position {
                    zone: ZoneId(0),
                    along_mm: 0,
                    height_mm: (height * 1000.0).round() as u32,
                    place: NO_PLACE,
                    front: None,
                    behind: None,
                };
                let name = if count == 1 { name.clone() } else { format!("{name}-{}", n + 1) };
                (position, Build::spot(plan, 0.4 + 0.1 * f64::from(n), side, tier), name)
            })
            .collect();
        let zone = Zone {
            kind: ZoneKind::Lane,
            first,
            count,
            beyond: Beyond::Nothing,
            feeds: None,
            deep: false,
            tier: into,
            closed: false,
            domain,
        };
        self.zone(name, zone, positions)
    }

    /// A belt at the foot of this aisle's lifts.
    fn aisle_belt(&mut self, n: usize, belt: &Belt, plan: &AislePlan, domain: DomainId) {
        let of_aisle = |text: &str| self.lifts.get(text).is_some_and(|id| plan.lifts.contains(id));
        if !of_aisle(belt.from.get_ref()) && !of_aisle(belt.to.get_ref()) {
            return;
        }
        self.done_belts.push(n);
        let lift = [&belt.from, &belt.to].into_iter().find_map(|e| self.lifts.get(e.get_ref())).copied();
        let upper = plan.lifts.len() == 2 && lift == plan.lifts.get(1).copied();
        let foot = if upper { SECOND_FOOT_M } else { 0.0 };
        let side = 1.2
            * f64::from(
                self.lanes.iter().filter(|(z, ..)| self.plan.zones[usize::from(z.0)].domain == domain).count() as u16
            );
        let end = belt.stop.as_ref().map(|_| self.near_label(belt.stop.as_ref()));
        let spot = move |k: u16, count: u16, towards_lift: bool| {
            let out = f64::from(if towards_lift { count - k } else { k + 1 });
            // From the foot to where robots stop for it, or straight out.
            let straight = Build::spot(plan, -0.9 * out, side - 1.8, 0);
            let part = out / f64::from(count + 1);
            let (from, to) = (plan.at, end.unwrap_or(straight));
            let between = Spot { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part, ..from };
            Spot { z: foot, ..if end.is_some() { between } else { straight } }
        };
        let towards_lift = self.lifts.contains_key(belt.to.get_ref());
        self.belt(belt, domain, (foot * 1000.0) as u32, |k, count| spot(k, count, towards_lift));
    }

    /// A belt: its ends, its zone, its positions.
    fn belt(&mut self, belt: &Belt, domain: DomainId, height_mm: u32, spot: impl Fn(u16, u16) -> Spot) {
        let count = belt.places.as_ref().map_or(2, |p| self.within("places on a belt", p, 1, 20));
        let (from, to) = (self.end(&belt.from), self.end(&belt.to));
        if (from, to) == (Some(End::Outside), Some(End::Outside)) {
            self.fault(belt.to.span(), "this belt leads nowhere", "from outside to outside");
        }
        let stop = self.stop(belt, from, to);
        let beyond = match (from, to) {
            (Some(End::Outside), _) => Beyond::Arrivals,
            (_, Some(End::Outside)) => Beyond::Departures,
            _ => Beyond::Nothing,
        };
        let feeds = if let Some(End::Station(n)) = to { Some(StationId(n as u16)) } else { None };
        let name = belt.name.get_ref().clone();
        let first = self.next_pos();
        let positions = (0..count)
            .map(|k| {
                let position =
                    Position { zone: ZoneId(0), along_mm: 0, height_mm, place: stop, front: None, behind: None };
                let end = match k {
                    0 => "entry".to_string(),
                    k if k + 1 == count => "exit".to_string(),
                    k => (k + 1).to_string(),
                };
                (position, spot(k, count), format!("{name}-{end}"))
            })
            .collect();
        let zone =
            Zone { kind: ZoneKind::Lane, first, count, beyond, feeds, deep: false, tier: None, closed: false, domain };
        let id = self.zone(name.clone(), zone, positions);
        self.plan.belts.push(BeltPlan { name, zone: id });
        for (end, is_input) in [(from, false), (to, true)] {
            if let Some(End::Station(n)) = end {
                let draft = &mut self.stations[n];
                let slot = if is_input { &mut draft.input } else { &mut draft.output };
                if slot.replace(id).is_some() {
                    let span = if is_input { belt.to.span() } else { belt.from.span() };
                    self.fault(
                        span,
                        "a second belt for the same side of a station",
                        "a station has one in and one out",
                    );
                }
            }
        }
        self.lanes.push((id, from, to));
    }

    fn end(&mut self, text: &Spanned<String>) -> Option<End> {
        let name = text.get_ref();
        let end = match name.as_str() {
            "outside" => Some(End::Outside),
            "robots" => Some(End::Robots),
            _ => self
                .lifts
                .get(name)
                .map(|id| End::Lift(*id))
                .or_else(|| self.stations.iter().position(|s| s.name == *name).map(End::Station)),
        };
        if end.is_none() {
            let lifts: Vec<&str> = self.lifts.keys().map(String::as_str).collect();
            let stations: Vec<&str> = self.stations.iter().map(|s| s.name.as_str()).collect();
            let known = [&["outside", "robots"][..], &lifts, &stations].concat().join(", ");
            self.fault(
                text.span(),
                "there is nothing of this name at the end of a belt",
                format!("found \"{name}\", expected one of: {known}"),
            );
        }
        end
    }

    /// Where robots stop for a belt.
    fn stop(&mut self, belt: &Belt, from: Option<End>, to: Option<End>) -> Place {
        let robots = from == Some(End::Robots) || to == Some(End::Robots);
        match (&belt.stop, robots) {
            (Some(label), true) => self.label(label),
            (None, false) => NO_PLACE,
            (None, true) => {
                let name = belt.name.get_ref();
                self.faults.push(
                    Fault::new(
                        belt.name.span(),
                        "robots do not know where to stop for this belt",
                        format!("\"{name}\" has no stop"),
                    )
                    .help("say stop = \"..\" with a label of the map or the name of a place"),
                );
                NO_PLACE
            }
            (Some(label), false) => {
                self.fault(label.span(), "no robot stops for this belt", "neither from nor to is \"robots\"");
                NO_PLACE
            }
        }
    }

    fn label(&mut self, label: &Spanned<String>) -> Place {
        if let Some(place) = self.labels.get(label.get_ref()) {
            return *place;
        }
        let known: Vec<&str> = self.labels.keys().map(String::as_str).collect();
        let expected = if known.is_empty() {
            "there are no roads".into()
        } else {
            format!("expected one of: {}", known.join(", "))
        };
        self.fault(
            label.span(),
            "there is no place of this name",
            format!("found \"{}\", {expected}", label.get_ref()),
        );
        NO_PLACE
    }

    fn name_station(&mut self, station: &Station) {
        let name = station.name.get_ref().clone();
        if self.stations.iter().any(|s| s.name == name) {
            self.fault(station.name.span(), "there are two stations of this name", format!("\"{name}\" again"));
        }
        let group = station.group.as_ref().map_or("station", |g| g.get_ref()).to_string();
        let number = self.plan.groups.iter().position(|g| *g == group).unwrap_or_else(|| {
            self.plan.groups.push(group);
            self.plan.groups.len() - 1
        });
        self.stations.push(StationDraft { name, group: number as u8, ..StationDraft::default() });
    }

    fn station(&mut self, n: usize, station: &Station, belts: &[Belt]) {
        let domain = self.domain();
        let name = station.name.get_ref().clone();
        let id = StationId(n as u16);
        let machine =
            self.machine(name.clone(), MachineKind::Station(id), Drive { speed: 1.0, acceleration: 1.0 }, domain);
        for (k, belt) in belts.iter().enumerate() {
            let mine = [&belt.from, &belt.to].into_iter().any(|e| *e.get_ref() == name);
            if mine && !self.done_belts.contains(&k) {
                self.done_belts.push(k);
                let spots = self.outwards(belt);
                self.belt(belt, domain, 0, spots);
            }
        }
        for (port, is_input) in [(&station.input, true), (&station.output, false)] {
            let has_belt = if is_input { self.stations[n].input } else { self.stations[n].output }.is_some();
            match (port, has_belt) {
                (Some(label), false) => {
                    let place = self.label(label);
                    let spot = self.plan.place_spots.get(usize::from(place)).copied().unwrap_or_default();
                    let way = if is_input { "in" } else { "out" };
                    let first = self.next_pos();
                    let position =
                        Position { zone: ZoneId(0), along_mm: 0, height_mm: 0, place, front: None, behind: None };
                    let zone = Zone {
                        kind: ZoneKind::Lane,
                        first,
                        count: 1,
                        beyond: Beyond::Nothing,
                        feeds: is_input.then_some(id),
                        deep: false,
                        tier: None,
                        closed: false,
                        domain,
                    };
                    let name = format!("{name}.{way}");
                    let zone = self.zone(name.clone(), zone, vec![(position, spot, name)]);
                    let (from, to) = if is_input {
                        (Some(End::Robots), Some(End::Station(n)))
                    } else {
                        (Some(End::Station(n)), Some(End::Robots))
                    };
                    self.lanes.push((zone, from, to));
                    let draft = &mut self.stations[n];
                    *(if is_input { &mut draft.input } else { &mut draft.output }) = Some(zone);
                }
                (Some(label), true) => self.fault(
                    label.span(),
                    "this side of the station has a belt already",
                    "leave this out, or the belt",
                ),
                (None, true) => {}
                (None, false) => {
                    let (what, key) = if is_input { ("brings loads to", "in") } else { ("takes loads from", "out") };
                    self.faults.push(
                        Fault::new(
                            station.name.span(),
                            "this station is not joined to anything",
                            format!("nothing {what} \"{name}\""),
                        )
                        .help(format!("say {key} = \"..\" with the label of a place, or give it a belt")),
                    );
                }
            }
        }
        self.close(domain);
        let draft = &self.stations[n];
        if let (Some(input), Some(output)) = (draft.input, draft.output) {
            self.plan.zones[usize::from(input.0)].feeds = Some(id);
            self.plan.stations.push(StationInfo { machine, group: draft.group, input, output });
            self.plan.station_names.push(name);
        }
    }

    /// The places of a belt at which robots stop, in a row away from the middle of the roads.
    fn outwards(&self, belt: &Belt) -> impl Fn(u16, u16) -> Spot + use<> {
        let at = self.near_label(belt.stop.as_ref());
        let count = self.plan.place_spots.len().max(1) as f64;
        let middle = |of: fn(&Spot) -> f64| self.plan.place_spots.iter().map(of).sum::<f64>() / count;
        let (dx, dy) = (at.x - middle(|s| s.x), at.y - middle(|s| s.y));
        let (dx, dy) = if dx.abs() >= dy.abs() { (dx.signum(), 0.0) } else { (0.0, dy.signum()) };
        let to_robots = *belt.to.get_ref() == "robots";
        move |k, count| {
            let out = 0.9 * f64::from(if to_robots { count - k } else { k + 1 });
            Spot { x: at.x + dx * out, y: at.y + dy * out, ..at }
        }
    }

    fn near_label(&self, label: Option<&Spanned<String>>) -> Spot {
        let place = label.and_then(|l| self.labels.get(l.get_ref()));
        place.and_then(|p| self.plan.place_spots.get(usize::from(*p))).copied().unwrap_or_default()
    }

    fn belts_nobody_has(&mut self, belts: &[Belt]) {
        for (n, belt) in belts.iter().enumerate() {
            if self.done_belts.contains(&n) {
                continue;
            }
            // From or to neither a lift nor a station: a belt between robots and the outside, which nobody's controller has.
            let domain = self.domain();
            let spots = self.outwards(belt);
            self.belt(belt, domain, 0, spots);
            self.close(domain);
            self.done_belts.push(n);
        }
    }
}
