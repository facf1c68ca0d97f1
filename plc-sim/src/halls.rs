//! Whole floors drawn from a seed, as floor files: racks with one lift or two, single and double-deep, robot cells, docks, and mobile
//! robots on road maps of all the kinds of [`crate::floors`]. What cannot be proven is drawn again.

use crate::floors::{self, KINDS, Kind};
use control_core::traffic::roads::{OPEN, Place};
use floor_plan::{FloorPlan, Proof, RoadTables};
use std::fmt::Write;

/// Letters for stops: those that mean nothing else in a map.
const LETTERS: [char; 12] = ['A', 'B', 'C', 'D', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M'];

/// Draws a floor: its file, and what it means.
pub fn draw(seed: u64) -> (String, FloorPlan) {
    // In a third of the racks there are fewer shuttles than tiers.
    let change = seed / 6 % 3 == 1;
    for again in 0..u64::MAX {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000).wrapping_add(again));
        let text = match seed % 6 {
            5 => rack_alone(&mut rng, change),
            n => with_robots(&mut rng, KINDS[n as usize], change),
        };
        if let Some((text, Ok(plan))) = text.map(|t| (t.clone(), FloorPlan::parse(&t))) {
            return (text, plan);
        }
    }
    unreachable!("some floor can be proven")
}

fn aisle(rng: &mut fastrand::Rng, name: &str, text: &mut String, change: bool) -> u16 {
    let (tiers, bays, depth, lane) = (rng.u16(1..5), rng.u16(2..9), rng.u16(1..3), rng.u16(1..4));
    let lifts = if tiers > 1 { rng.u16(1..3) } else { 1 };
    let _ = writeln!(
        text,
        "[[aisle]]\nname = \"{name}\"\ntiers = {tiers}\nbays = {bays}\ndepth = {depth}\nlane = {lane}\nlifts = {lifts}\n\
         at = [-3.0, {}.0]\ntowards = \"west\"",
        rng.u8(0..12)
    );
    if change && tiers > 1 {
        let _ = writeln!(text, "shuttles = {}", rng.u16(1..tiers));
    }
    lifts
}

fn belt(text: &mut String, name: &str, from: &str, to: &str, places: u16, stop: Option<char>) {
    let _ = writeln!(text, "[[belt]]\nname = \"{name}\"\nfrom = \"{from}\"\nto = \"{to}\"\nplaces = {places}");
    if let Some(stop) = stop {
        let _ = writeln!(text, "stop = \"{stop}\"");
    }
}

fn rack_alone(rng: &mut fastrand::Rng, change: bool) -> Option<String> {
    let mut text = String::new();
    let lifts = aisle(rng, "r", &mut text, change);
    for n in 1..=lifts {
        let lift = if lifts == 1 { "r.lift".to_string() } else { format!("r.lift-{n}") };
        belt(&mut text, &format!("in-{n}"), "outside", &lift, rng.u16(2..5), None);
        belt(&mut text, &format!("out-{n}"), &lift, "outside", rng.u16(2..5), None);
    }
    let lift = if lifts == 1 { "r.lift" } else { "r.lift-1" };
    belt(&mut text, "feed", lift, "cell", 2, None);
    belt(&mut text, "return", "cell", lift, 2, None);
    text.push_str("[[station]]\nname = \"cell\"\ngroup = \"work\"\n");
    Some(text)
}

fn with_robots(rng: &mut fastrand::Rng, kind: Kind, change: bool) -> Option<String> {
    let mut text = String::new();
    let lifts = aisle(rng, "r", &mut text, change);
    let mut letters = LETTERS.into_iter();
    let mut stop = || letters.next().unwrap_or('N');
    for n in 1..=lifts {
        let lift = if lifts == 1 { "r.lift".to_string() } else { format!("r.lift-{n}") };
        belt(&mut text, &format!("r.out-{n}"), &lift, "robots", rng.u16(1..4), Some(stop()));
        belt(&mut text, &format!("r.in-{n}"), "robots", &lift, rng.u16(1..4), Some(stop()));
    }
    belt(&mut text, "dock-in", "outside", "robots", rng.u16(1..4), Some(stop()));
    belt(&mut text, "dock-out", "robots", "outside", rng.u16(1..4), Some(stop()));
    for n in 1..=rng.u8(1..3) {
        let (input, output) = (stop(), stop());
        let _ =
            writeln!(text, "[[station]]\nname = \"cell-{n}\"\ngroup = \"work\"\nin = \"{input}\"\nout = \"{output}\"");
    }
    let stops: Vec<char> = LETTERS.into_iter().take(LETTERS.len() - letters.count()).collect();
    let (roads, robots) = match kind {
        Kind::Ring => ring(rng, &stops)?,
        _ => grid(rng, kind, &stops)?,
    };
    text.push_str(&roads);
    let slow = rng.usize(0..robots.max(1));
    let _ = writeln!(text, "[robots]\ncount = {}\ndrive = {{ speed = 1.5, acceleration = 0.8 }}", robots - slow);
    if slow > 0 {
        let _ = writeln!(
            text,
            "[[robots.kind]]\ncount = {slow}\nsize = [0.7, 0.5]\ndrive = {{ speed = 0.6, acceleration = 0.4 }}"
        );
    }
    Some(text)
}

/// Shuffled places for stops, chargers and parking; robots park where nobody needs a pass.
fn places(rng: &mut fastrand::Rng, tables: &RoadTables, stops: usize) -> Option<(Vec<Place>, Vec<Place>, Vec<Place>)> {
    let proof = Proof::of(tables);
    let (mut open, mut any): (Vec<Place>, Vec<Place>) =
        ((0..tables.places as Place).collect(), (0..tables.places as Place).collect());
    open.retain(|p| proof.region[usize::from(*p)] == OPEN);
    rng.shuffle(&mut open);
    rng.shuffle(&mut any);
    let robots = rng.usize(1..=(open.len() / 5).clamp(1, 9));
    let parking: Vec<Place> = open.into_iter().take(robots).collect();
    any.retain(|p| !parking.contains(p));
    if parking.is_empty() || any.len() < stops + 2 {
        return None;
    }
    let chargers = any.split_off(any.len() - 1);
    any.truncate(stops);
    Some((any, chargers, parking))
}

fn grid(rng: &mut fastrand::Rng, kind: Kind, stops: &[char]) -> Option<(String, usize)> {
    let grid = floors::largest_part(&floors::cells(kind, rng));
    let (tables, place_of) = RoadTables::of_grid(&grid, true);
    let (at, chargers, parking) = places(rng, &tables, stops.len())?;
    let mut text = String::from("[roads]\npitch = 1.2\nguidance = false\nmap = \"\"\"\n");
    for row in 0..grid.height {
        for column in 0..grid.width {
            let place = place_of[row * grid.width + column];
            let stop = at.iter().position(|p| Some(*p) == place);
            text.push(match (place, stop) {
                (None, _) => '@',
                (_, Some(n)) => stops[n],
                (Some(p), _) if parking.contains(&p) => 'P',
                (Some(p), _) if chargers.contains(&p) => 'E',
                _ => '.',
            });
        }
        text.push('\n');
    }
    text.push_str("\"\"\"\n");
    Some((text, parking.len()))
}

fn ring(rng: &mut fastrand::Rng, stops: &[char]) -> Option<(String, usize)> {
    let (spots, roads, _) = floors::ring(rng);
    let tables = RoadTables::of_roads(&spots, &roads, true);
    let (at, chargers, parking) = places(rng, &tables, stops.len())?;
    let name = |p: Place| at.iter().position(|q| *q == p).map_or(format!("p{p}"), |n| stops[n].to_string());
    let mut text = String::from("[roads]\nguidance = false\n");
    for (n, (x, y)) in (0..).zip(&spots) {
        let kind = if parking.contains(&n) {
            "parking"
        } else if chargers.contains(&n) {
            "charger"
        } else {
            "road"
        };
        let _ = writeln!(
            text,
            "[[roads.place]]\nname = \"{}\"\nx = {:.3}\ny = {:.3}\nkind = \"{kind}\"",
            name(n),
            x * 1.2,
            y * 1.2
        );
    }
    for (from, to) in &roads {
        let _ = writeln!(text, "[[roads.road]]\nfrom = \"{}\"\nto = \"{}\"\none_way = true", name(*from), name(*to));
    }
    Some((text, parking.len()))
}
