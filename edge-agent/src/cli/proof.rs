//! What `edge-agent check` says of a floor: what there is, what is proven of its roads, and what is not.

use super::look::{BAD, GOOD, WARN, styled};
use crate::config::FloorSetup;
use control_core::floor::{Beyond, MachineKind, NEVER, ZoneKind};
use control_core::traffic::roads::Place;
use control_core::units::{MachineId, ZoneId};
use floor_plan::FloorPlan;
use floor_plan::proof::{Kind, RegionInfo};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Rows of one list.
const ROWS: usize = 24;
/// Robots that are listed one by one.
const ROBOTS: usize = 6;

macro_rules! say {
    ($out:expr, $($text:tt)*) => {{
        let _ = writeln!($out, $($text)*);
    }};
}

fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// The name of a place, if it has one, and where it is.
fn place_name(plan: &FloorPlan, place: Place) -> String {
    let spot = plan.place_spots.get(usize::from(place)).copied().unwrap_or_default();
    let at = format!("x {:.1} y {:.1}", spot.x, spot.y);
    plan.place_names.get(&place).map_or(at.clone(), |name| format!("{name} ({at})"))
}

fn robots(plan: &FloorPlan) -> Vec<(MachineId, Option<Place>)> {
    let of = |(id, vehicle, _): (MachineId, u16, _)| (id, plan.parking.get(usize::from(vehicle)).copied());
    plan.view().robots().map(of).collect()
}

/// The strongly connected part robots drive in: that of the first one's parking place, or else the largest.
fn main_part(plan: &FloorPlan) -> Option<u32> {
    let of = |p: &Place| plan.proof.part.get(usize::from(*p)).copied();
    plan.parking.iter().chain(&plan.charging).find_map(of).or_else(|| {
        let mut sizes = BTreeMap::<u32, usize>::new();
        plan.proof.part.iter().for_each(|p| *sizes.entry(*p).or_default() += 1);
        sizes.into_iter().max_by_key(|(_, n)| *n).map(|(part, _)| part)
    })
}

/// Places from which the rest of the floor cannot be reached, or that cannot be reached from it.
fn cut_off(plan: &FloorPlan) -> Vec<Place> {
    let main = main_part(plan);
    (0u16..).zip(&plan.proof.part).filter(|(_, part)| Some(**part) != main).map(|(place, _)| place).collect()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::DeadEnd => "dead end",
        Kind::Tunnel => "tunnel",
        Kind::Closed => "closed part",
    }
}

/// Where loads can come from and cannot get to, by aisle, belt and station.
fn unreachable(plan: &FloorPlan) -> Vec<(String, String)> {
    let floor = plan.view();
    let name = |id: ZoneId| {
        let aisle = plan.aisles.iter().find(|a| a.zones.iter().any(|z| z[0] == id));
        match aisle {
            Some(aisle) if aisle.name.is_empty() => "the aisle".to_string(),
            Some(aisle) => aisle.name.clone(),
            None => plan.zone_name(id).to_string(),
        }
    };
    let is_bays = |z: &control_core::floor::Zone| z.kind == ZoneKind::Bays;
    let from = floor.zone_ids().filter(|(_, z)| is_bays(z) || z.beyond == Beyond::Arrivals);
    let mut found = BTreeSet::new();
    for (a, _) in from {
        let to = floor.zone_ids().filter(|(_, z)| is_bays(z) || z.feeds.is_some() || z.beyond == Beyond::Departures);
        found.extend(to.filter(|(b, _)| floor.hops(a, *b) == NEVER).map(|(b, _)| (name(a), name(b))));
    }
    found.into_iter().collect()
}

/// The floor in words.
pub(super) fn shown(floor: &FloorSetup) -> String {
    let plan = &*floor.plan;
    let mut out = String::new();
    let file = floor.file.as_ref().and_then(|f| f.file_name()).map_or(String::new(), |f| format!("{}: ", f.display()));
    let machines = count(plan.machine_count(), "machine", "machines");
    match (&floor.file, plan.aisles.first()) {
        (None, Some(aisle)) => say!(out, "  floor    {} tiers x 2 x {} bays, {machines}", aisle.tiers, aisle.bays),
        _ => {
            let (stations, robots) = (plan.view().stations().count(), robots(plan).len());
            let parts = [
                (plan.aisles.len(), "aisle", "aisles"),
                (plan.belts.len(), "belt", "belts"),
                (stations, "station", "stations"),
                (robots, "mobile robot", "mobile robots"),
            ];
            let parts: Vec<String> = parts.iter().filter(|p| p.0 > 0).map(|p| count(p.0, p.1, p.2)).collect();
            say!(
                out,
                "  floor    {file}{}; {machines}, {} load positions, {} orders at once",
                parts.join(", "),
                plan.sensed(),
                floor.orders
            );
            for aisle in &plan.aisles {
                let (deep, lifts) =
                    (if aisle.depth == 2 { ", double-deep" } else { "" }, count(aisle.lifts.len(), "lift", "lifts"));
                let change = match (aisle.rack, aisle.shuttles.len()) {
                    (None, _) => String::new(),
                    (Some(_), 1) => ", 1 shuttle that changes tier".into(),
                    (Some(_), n) => format!(", {n} shuttles that change tier"),
                };
                let (name, tiers, bays) = (&aisle.name, aisle.tiers, aisle.bays);
                say!(out, "  aisle    {name}: {tiers} tiers x 2 x {bays} bays{deep}, {lifts}{change}");
            }
        }
    }
    let lost = unreachable(plan);
    for (from, to) in lost.iter().take(ROWS) {
        say!(out, "  loads    {}: from {from} no load can get to {to}", styled(WARN, "unreachable"));
    }
    if lost.len() > ROWS {
        say!(out, "  loads    and {} more", lost.len() - ROWS);
    }
    if !plan.place_spots.is_empty() {
        roads(&mut out, floor);
    }
    out
}

fn roads(out: &mut String, floor: &FloorSetup) {
    let (plan, proof) = (&*floor.plan, &floor.plan.proof);
    let cut = cut_off(plan);
    let connected = if cut.is_empty() {
        "strongly connected: every place can be reached from every other".to_string()
    } else {
        let first = cut.first().map_or(String::new(), |p| place_name(plan, *p));
        format!("{} cut off from the others, the first at {first}", count(cut.len(), "place is", "places are"))
    };
    say!(out, "  roads    {}, {connected}", count(plan.place_spots.len(), "place", "places"));
    let live: BTreeSet<Place> = proof.blocks.iter().flatten().copied().collect();
    let sizes: Vec<String> = proof.blocks.iter().take(ROWS).map(|b| b.len().to_string()).collect();
    let more =
        if proof.blocks.len() > ROWS { format!(", and {} more", proof.blocks.len() - ROWS) } else { String::new() };
    let live_places = count(live.len(), "place", "places");
    match proof.blocks.len() {
        0 => say!(out, "  live     no part of three places and more in which robots can give way to each other"),
        1 => {
            say!(out, "  live     1 biconnected part of {live_places}: there every robot can be pushed out of the way")
        }
        n => say!(
            out,
            "  live     {n} biconnected parts of {}{more} places, {live_places} in all: there every robot can be pushed out of the way",
            sizes.join(", ")
        ),
    }
    for (n, region) in proof.regions.iter().enumerate().take(ROWS) {
        say!(out, "  gate     {}", gate(plan, n, region));
    }
    if proof.regions.len() > ROWS {
        say!(out, "  gate     and {} more", proof.regions.len() - ROWS);
    }
    for area in &plan.areas {
        let places = count(area.places.len(), "place", "places");
        let robots = count(usize::from(area.robots), "robot", "robots");
        say!(out, "  area     {}: {places}; {robots} with work there at once", area.name);
    }
    let apart = plan.roads.near.len() / 2;
    if apart > 0 {
        let pairs = count(apart, "pair", "pairs");
        say!(out, "  apart    {pairs} of places cannot be used at once: robots need {:.2} m", plan.clearance_m());
    }
    let robots = robots(plan);
    let ends = |(id, park): &(MachineId, Option<Place>)| {
        let park = park.map_or("none".to_string(), |p| place_name(plan, p));
        format!("{} ends at {park}", plan.machine_name(*id))
    };
    match robots.as_slice() {
        [first, .., last] if robots.len() > ROBOTS => {
            let all = robots.len();
            say!(out, "  private  a place for each of {all} robots: {}, .., {}", ends(first), ends(last));
        }
        few => few.iter().for_each(|robot| say!(out, "  private  {}", ends(robot))),
    }
    if floor.unproven.is_empty() {
        let spare = live.len().saturating_sub(robots.len());
        let robots = count(robots.len(), "robot", "robots");
        say!(
            out,
            "  {}   {robots} on {live_places}, {spare} of them free: nobody locks, everybody arrives",
            styled(GOOD, "proven")
        );
    }
    for what in &floor.unproven {
        say!(out, "  {} {what}; taken because of unproven = true", styled(BAD, "UNPROVEN"));
    }
}

fn gate(plan: &FloorPlan, n: usize, region: &RegionInfo) -> String {
    let named = region.places.iter().find(|p| plan.place_names.contains_key(p));
    let at = named.or(region.places.first()).map_or(String::new(), |p| place_name(plan, *p));
    let mouths: Vec<String> = region.mouths.iter().take(4).map(|p| place_name(plan, *p)).collect();
    let entered = if mouths.is_empty() {
        "touches no live part".into()
    } else {
        format!("entered from {}", mouths.join(" and "))
    };
    let robots = count(usize::from(region.capacity), "robot", "robots");
    let places = count(region.places.len(), "place", "places");
    format!("{}: {} of {places} at {at}, {entered}; {robots} at once", n + 1, kind_name(region.kind))
}

/// The same for programs.
pub(super) fn json(floor: &FloorSetup) -> Value {
    let (plan, proof) = (&*floor.plan, &floor.plan.proof);
    let at = |place: Place| {
        let spot = plan.place_spots.get(usize::from(place)).copied().unwrap_or_default();
        json!({ "place": place, "name": plan.place_names.get(&place), "x_m": spot.x, "y_m": spot.y })
    };
    let aisles = plan.aisles.iter().map(|a| {
        let (shuttles, lifts) = (a.shuttles.len(), a.lifts.len());
        let sizes = [("tiers", a.tiers), ("bays_per_side", a.bays), ("depth", a.depth)];
        let mut aisle =
            json!({ "name": a.name, "lifts": lifts, "shuttles": shuttles, "change_tier": a.rack.is_some() });
        sizes.into_iter().for_each(|(name, n)| aisle[name] = n.into());
        aisle
    });
    let gates = proof.regions.iter().map(|r| {
        json!({
            "kind": kind_name(r.kind),
            "places": r.places.len(),
            "at": r.places.first().map(|p| at(*p)),
            "mouths": r.mouths.iter().map(|p| at(*p)).collect::<Vec<_>>(),
            "capacity": r.capacity,
        })
    });
    let areas = plan.areas.iter().map(|a| json!({ "name": a.name, "places": a.places.len(), "robots": a.robots }));
    let private = robots(plan);
    let private = private.iter().map(|(id, park)| json!({ "robot": plan.machine_name(*id), "ends": park.map(at) }));
    let machines: BTreeMap<&str, usize> = plan.view().machine_ids().fold(BTreeMap::new(), |mut sum, id| {
        let kind = match plan.view().machine(id).map(|m| m.kind) {
            Some(MachineKind::Shuttle { .. }) => "shuttles",
            Some(MachineKind::Lift { .. }) => "lifts",
            Some(MachineKind::Station(_)) => "stations",
            Some(MachineKind::Robot { .. }) => "robots",
            None => return sum,
        };
        *sum.entry(kind).or_default() += 1;
        sum
    });
    let unreachable = unreachable(plan);
    json!({
        "machines": machines,
        "positions": plan.sensed(),
        "orders": floor.orders,
        "aisles": aisles.collect::<Vec<_>>(),
        "unreachable": unreachable.iter().map(|(from, to)| json!({ "from": from, "to": to })).collect::<Vec<_>>(),
        "places": plan.place_spots.len(),
        "strongly_connected": cut_off(plan).is_empty(),
        "cut_off": cut_off(plan).into_iter().take(ROWS).map(at).collect::<Vec<_>>(),
        "live_parts": proof.blocks.iter().map(Vec::len).collect::<Vec<_>>(),
        "gates": gates.collect::<Vec<_>>(),
        "areas": areas.collect::<Vec<_>>(),
        "pairs_apart": plan.roads.near.len() / 2,
        "private": private.collect::<Vec<_>>(),
        "proven": floor.unproven.is_empty(),
        "unproven": floor.unproven,
    })
}
