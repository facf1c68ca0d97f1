//! The floor: a file of its own, or the small one of two numbers; and what of it could not be proven.

use super::lines::beside;
use super::raw;
use super::report::{Files, Problem, Source};
use super::values::Spanned;
use control_core::traffic::roads::Place;
use floor_plan::FloorPlan;
use floor_plan::file::{Fault, FloorFile};
use floor_plan::proof::Kind;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Orders that are not ended, when nothing is said: what a floor of some hundred machines does in an hour.
const ORDERS: u32 = 1_000;
/// The most there can be: a slot is numbered in 16 bits.
const ORDERS_MAX: u32 = 60_000;

/// The floor, and where it comes from.
#[derive(Clone)]
pub struct FloorSetup {
    /// What it means.
    pub plan: Arc<FloorPlan>,
    /// Its file; none for the small floor.
    pub file: Option<PathBuf>,
    /// Orders there may be at once.
    pub orders: usize,
    /// What could not be proven of it; not empty only where the configuration takes it all the same.
    pub unproven: Vec<String>,
    /// What it says, for whoever wants to know whether it is another one.
    text: Arc<str>,
}

impl fmt::Debug for FloorSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tables of a large floor are millions of numbers; the text they were made from says it all.
        let FloorSetup { file, orders, unproven, text, .. } = self;
        f.debug_struct("FloorSetup")
            .field("file", file)
            .field("orders", orders)
            .field("unproven", unproven)
            .field("text", text)
            .finish()
    }
}

/// Reads `[floor]`.
pub(super) fn floor(
    source: &Source,
    raw: &raw::Floor,
    files: &mut Files,
    problems: &mut Vec<Problem>,
) -> Option<FloorSetup> {
    let orders = match &raw.orders {
        None => ORDERS,
        Some(n) if (1..=ORDERS_MAX).contains(n.get_ref()) => *n.get_ref(),
        Some(n) => {
            problems.push(source.problem(n.span(), "so many orders do not fit", format!("must be 1 to {ORDERS_MAX}")));
            ORDERS
        }
    };
    let orders = orders as usize;
    match (&raw.file, &raw.tiers, &raw.bays_per_side) {
        (Some(file), None, None) => from_file(source, raw, file, orders, files, problems),
        (None, Some(tiers), Some(bays)) => {
            if let Some(unproven) = &raw.unproven {
                let label = "of the small floor there is nothing to be proven";
                problems.push(source.problem(unproven.span(), "this key belongs to a floor file", label));
            }
            small(source, tiers, bays, orders, problems)
        }
        (file, tiers, bays) => {
            let at =
                [file.as_ref().map(Spanned::span), tiers.as_ref().map(Spanned::span), bays.as_ref().map(Spanned::span)];
            let at = at.into_iter().flatten().last().unwrap_or(0..0);
            let label = "give it either `file = \"floor.toml\"`, or `tiers` and `bays_per_side`";
            problems.push(source.problem(at, "this floor has no shape, or two", label));
            None
        }
    }
}

fn small(
    source: &Source,
    tiers: &Spanned<u16>,
    bays: &Spanned<u16>,
    orders: usize,
    problems: &mut Vec<Problem>,
) -> Option<FloorSetup> {
    let mut within = |value: &Spanned<u16>, most: u16| {
        if !(1..=most).contains(value.get_ref()) {
            problems.push(source.problem(value.span(), "the floor does not fit", format!("must be 1 to {most}")));
        }
    };
    within(tiers, 60);
    within(bays, 400);
    let (tiers, bays) = (*tiers.get_ref(), *bays.get_ref());
    let plan = Arc::new(FloorPlan::small(tiers, bays)?);
    Some(FloorSetup { plan, file: None, orders, unproven: Vec::new(), text: format!("{tiers} x {bays}").into() })
}

fn from_file(
    source: &Source,
    raw: &raw::Floor,
    file: &Spanned<String>,
    orders: usize,
    files: &mut Files,
    problems: &mut Vec<Problem>,
) -> Option<FloorSetup> {
    let path = beside(source, file.get_ref());
    let floor = match files.read(&path) {
        Ok(floor) => floor,
        Err(why) => {
            problems.push(source.unread(
                file.span(),
                "the floor file cannot be read",
                &why,
                "floor files are looked for beside this file",
            ));
            return None;
        }
    };
    let mut parsed: FloorFile = match super::report::parse(&floor) {
        Ok(parsed) => parsed,
        Err(report) => {
            problems.extend(report.0);
            return None;
        }
    };
    let here = parsed.roads.as_ref().is_some_and(|r| r.unproven);
    let taken = here || raw.unproven.as_ref().is_some_and(|u| *u.get_ref());
    let mut strict = |unproven: bool| {
        if let Some(roads) = &mut parsed.roads {
            roads.unproven = unproven;
        }
        FloorPlan::of(&parsed)
    };
    let (plan, mut unproven) = match strict(false) {
        Ok(plan) => (plan, Vec::new()),
        Err(faults) if taken => match strict(true) {
            Ok(plan) => (plan, faults.iter().map(|f| format!("{}: {}", f.message, f.label)).collect()),
            Err(faults) => return refused(&floor, faults, problems),
        },
        Err(faults) => return refused(&floor, faults, problems),
    };
    let blocking = resting_in_the_way(&plan);
    if let (Some(first), false) = (blocking.first(), taken) {
        let map = parsed.roads.as_ref().and_then(|r| r.map.as_ref().map(toml::Spanned::span));
        let places = parsed.roads.as_ref().and_then(|r| r.places.first().map(|p| p.name.span()));
        let at = shown(&floor.text, map.or(places).unwrap_or(0..0));
        let problem = floor.problem(at, "a robot that rests would be in the way of others for ever", first.clone());
        problems.push(problem.help("put its parking place where there are loops, or into a dead end of its own"));
        return None;
    }
    unproven.extend(blocking);
    Some(FloorSetup { plan: Arc::new(plan), file: Some(path), orders, unproven, text: floor.text.clone() })
}

/// A robot at rest keeps its pass. So the private end places behind a gate may be as many as may be in there at once, and nobody else may
/// have to go in, or through.
fn resting_in_the_way(plan: &FloorPlan) -> Vec<String> {
    let floor = plan.view();
    let stops: BTreeSet<Place> =
        floor.tables().positions.iter().map(|p| p.place).chain(plan.charging.iter().copied()).collect();
    let ends: Vec<(&str, Place)> = floor
        .robots()
        .filter_map(|(id, vehicle, _)| Some((plan.machine_name(id), *plan.parking.get(usize::from(vehicle))?)))
        .collect();
    let mut found = Vec::new();
    for (n, region) in plan.proof.regions.iter().enumerate() {
        let resting: Vec<&str> =
            ends.iter().filter(|(_, p)| region.places.contains(p)).map(|(name, _)| *name).collect();
        let Some(first) = resting.first() else { continue };
        let is_wanted = region.places.iter().any(|p| stops.contains(p));
        let why = match region.kind {
            Kind::Tunnel => "which others have to go through",
            _ if is_wanted => "where others have to stop",
            _ if resting.len() > usize::from(region.capacity) => "where not so many can be at once",
            _ => continue,
        };
        found.push(format!("{first} ends behind gate {}, {why}", n + 1));
    }
    found
}

fn refused(floor: &Source, faults: Vec<Fault>, problems: &mut Vec<Problem>) -> Option<FloorSetup> {
    problems.extend(faults.into_iter().map(|fault| {
        let Fault { span, message, label, help } = fault;
        // The core's own words name the key in the floor file; ours is the one a person finds first.
        let help = help.map(|h| h.replace("say unproven = true", "say unproven = true in [floor]"));
        let problem = floor.problem(shown(&floor.text, span), message, label);
        match help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }));
    None
}

/// The first line of a place that goes over many, such as a map.
fn shown(text: &str, span: Range<usize>) -> Range<usize> {
    let Some(inside) = text.get(span.clone()) else { return 0..0 };
    let start = if inside.starts_with("\"\"\"\n") { 4 } else { 0 };
    let rest = inside.get(start..).unwrap_or_default();
    let end = start + rest.find('\n').unwrap_or(rest.len());
    span.start + start..span.start + end.max(start + 1).min(inside.len())
}
