//! From what a floor file says to what it means, step by step: aisles, stations, belts, roads, robots. What is wrong is told with
//! the place in the file, what was found, and what was expected; all of it at once.

mod aisles;
mod links;
mod roads;
pub(crate) mod sizes;

use crate::file::{Belt, Drive, Fault, FloorFile, Station};
use crate::plan::{BeltPlan, FloorPlan, Spot};
use control_core::floor::{Beyond, DomainInfo, MachineInfo, MachineKind, Position, StationInfo, Zone, ZoneKind};
use control_core::rack::Axis;
use control_core::traffic::roads::{NO_PLACE, Place};
use control_core::units::{DomainId, MachineId, PosId, StationId, ZoneId};
use std::collections::BTreeMap;
use toml::Spanned;

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
        let too_large = sizes::faults(file);
        if !too_large.is_empty() {
            return Err(too_large);
        }
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

/// Whether a cell of the map is road.
fn is_road(cell: u8) -> bool {
    cell.is_ascii_alphanumeric() || b".<>^v".contains(&cell)
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
        if self.plan.zone_names.contains(&name) {
            self.fault(belt.name.span(), "there are two belts of this name", format!("\"{name}\" again"));
        }
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
