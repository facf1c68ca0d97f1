//! A log as PlanViz shows it: every robot's way as actions in step, on a grid.
//!
//! ```text
//!   entries ──> visits: place and time ──> actions, tick by tick: turn, forward, wait ──> floor_plan::planviz
//! ```
//!
//! A tick is a third of a step, so that a half turn and the way fit into one. Who comes to a cell later in the log comes later
//! here: the order of visits is kept also where turns, which four-way robots do not need, cost ticks.

use super::{Entry, Log};
use floor_plan::map::Grid;
use floor_plan::planviz::{Finished, Run, State};
use std::collections::{BTreeMap, BTreeSet};

/// Actions that are written at most.
const ACTIONS_MAX: u64 = 20_000_000;
/// So many ticks nobody who is due moves; then the order of visits is given up for one of them.
const PATIENCE: u32 = 3;

/// What is written.
#[derive(Debug)]
pub struct Export {
    /// For PlanViz.
    pub run: Run,
    /// The floor as a MovingAI map.
    pub map: String,
    /// The same, as cells.
    pub grid: Grid,
    /// Everybody's states, tick by tick.
    pub states: Vec<Vec<State>>,
    /// Milliseconds of a tick.
    pub tick_ms: u64,
    /// Nobody hit anybody.
    pub valid: bool,
}

#[derive(Clone, Copy)]
struct Visit {
    t: u64,
    place: u16,
    /// How many visits the place had before this one.
    rank: usize,
}

struct Robot {
    visits: Vec<Visit>,
    /// The visit it is at.
    n: usize,
    heading: u8,
}

impl Robot {
    fn here(&self) -> u16 {
        self.visits.get(self.n).map_or(u16::MAX, |v| v.place)
    }

    fn next(&self) -> Option<Visit> {
        self.visits.get(self.n + 1).copied()
    }
}

/// Makes it; a floor that is no grid, or a span that is too long, is refused.
pub fn export(log: &Log) -> Result<Export, String> {
    let (cells, grid) = grid(log)?;
    let tick_ms = (log.header.step_ms / 3).clamp(20, 5_000);
    let (from, to) = log.span();
    let mut robots = visits(log, &cells)?;
    if robots.is_empty() {
        return Err("no robot was on the roads in this time".into());
    }
    let ticks = (to - from).div_ceil(tick_ms);
    if ticks.saturating_mul(robots.len() as u64) > ACTIONS_MAX {
        let most = ACTIONS_MAX / robots.len() as u64 * tick_ms / 60_000;
        return Err(format!(
            "this is too long for PlanViz: with {} robots take {most} minutes at most (--from, --to)",
            robots.len()
        ));
    }
    let due = |t: u64| t.saturating_sub(from).div_ceil(tick_ms);
    let state = |r: &Robot| cells.get(usize::from(r.here())).map(|(row, column)| (*row, *column, r.heading));
    let starts: Vec<_> = robots.values().filter_map(state).collect();
    let mut left = vec![0; cells.len()];
    let mut states: Vec<Vec<State>> = vec![robots.values().map(state).collect()];
    let (mut tick, mut stuck) = (0u64, 0);
    while tick < ticks || robots.values().any(|r| r.next().is_some()) {
        let mut acted = false;
        let mut wants = Vec::new();
        for (id, robot) in &mut robots {
            let Some(next) = robot.next() else { continue };
            let heading = towards(&cells, robot.here(), next.place);
            let turns = (4 + heading - robot.heading) % 4;
            let needed = 1 + u64::from(turns.min(4 - turns));
            if due(next.t) > tick + needed {
                continue;
            }
            match turns {
                0 => wants.push((*id, next)),
                3 => robot.heading = (robot.heading + 3) % 4,
                _ => robot.heading = (robot.heading + 1) % 4,
            }
            acted |= turns != 0;
        }
        let wanted = wants.clone();
        keep_order(&robots, &left, &mut wants);
        if wants.is_empty() && !acted && !wanted.is_empty() {
            stuck += 1;
            if stuck > PATIENCE {
                wants.extend(wanted.iter().min_by_key(|(_, next)| next.t));
            }
        }
        for (id, _) in &wants {
            let Some(robot) = robots.get_mut(id) else { continue };
            if let Some(slot) = left.get_mut(usize::from(robot.here())) {
                *slot += 1;
            }
            robot.n += 1;
            stuck = 0;
        }
        states.push(robots.values().map(state).collect());
        tick += 1;
    }
    let finished = finished(log, &robots, &cells, due);
    let valid = states.windows(2).all(|pair| matches!(pair, [a, b] if nobody_hits(a, b)));
    let run = Run::new(&starts, &states, &finished, valid);
    Ok(Export { run, map: text(&grid), grid, states, tick_ms, valid })
}

/// Takes away those whose turn it is not: visitors before them have not left, and do not leave now.
fn keep_order(robots: &BTreeMap<u16, Robot>, left: &[usize], wants: &mut Vec<(u16, Visit)>) {
    loop {
        let leaving: BTreeSet<u16> = wants.iter().filter_map(|(id, _)| Some(robots.get(id)?.here())).collect();
        let before = wants.len();
        wants.retain(|(_, next)| {
            let gone = left.get(usize::from(next.place)).copied().unwrap_or(0);
            gone + usize::from(leaving.contains(&next.place)) >= next.rank
        });
        if wants.len() == before {
            return;
        }
    }
}

fn nobody_hits(before: &[State], after: &[State]) -> bool {
    let cell = |s: &State| s.map(|(row, column, _)| (row, column));
    let taken: BTreeSet<_> = after.iter().filter_map(cell).collect();
    let moved: BTreeSet<_> =
        before.iter().zip(after).map(|(a, b)| (cell(a), cell(b))).filter(|(a, b)| a != b).collect();
    taken.len() == after.len() && !moved.iter().any(|(a, b)| moved.contains(&(*b, *a)))
}

/// The heading from a place to one beside it.
fn towards(cells: &[(usize, usize)], from: u16, to: u16) -> u8 {
    let cell = |p: u16| cells.get(usize::from(p)).copied().unwrap_or_default();
    let ((row, column), (to_row, to_column)) = (cell(from), cell(to));
    match () {
        () if to_column > column => 0,
        () if to_row > row => 1,
        () if to_column < column => 2,
        () => 3,
    }
}

/// The places each robot was at, and when; those between two entries are spread over the time between.
fn visits(log: &Log, cells: &[(usize, usize)]) -> Result<BTreeMap<u16, Robot>, String> {
    let mut all = BTreeMap::new();
    for (id, entries) in (0u16..).zip(log.by_robot()) {
        let present: Vec<&Entry> = entries.into_iter().filter(|e| e.at.is_some()).collect();
        let Some((first, place)) = present.first().and_then(|e| Some((e.t, e.at?))) else { continue };
        let mut visits = vec![Visit { t: first, place, rank: 0 }];
        for (before, after) in present.iter().zip(present.iter().skip(1)) {
            let Some(to) = after.at else { continue };
            let way = log.way(before, to).ok_or_else(|| {
                let name = log.header.robots.get(usize::from(id)).map_or("?", String::as_str);
                let (a, b) = (log.place_name(before.at.unwrap_or_default()), log.place_name(to));
                format!("{name} went from {a} to {b}, where no road leads: PlanViz cannot show it. Leave that time out (--from, --to)")
            })?;
            // It may have stood long before it left: only the last stretch is taken for the ways between.
            let begin = before.t.max(after.t.saturating_sub(log.header.step_ms * way.len() as u64));
            for (n, place) in (1u64..).zip(&way) {
                let t = begin + (after.t - begin) * n / way.len().max(1) as u64;
                visits.push(Visit { t, place: *place, rank: 0 });
            }
        }
        let heading = visits.get(1).map_or(0, |v| towards(cells, place, v.place));
        all.insert(id, Robot { visits, n: 0, heading });
    }
    // Who comes to a place in which order; where everybody begins comes first.
    let mut order: Vec<(bool, u64, u16, usize)> = Vec::new();
    for (id, robot) in &all {
        order.extend(robot.visits.iter().enumerate().map(|(n, v)| (n > 0, v.t, *id, n)));
    }
    order.sort_unstable();
    let mut count = BTreeMap::<u16, usize>::new();
    for (_, _, id, n) in order {
        if let Some(visit) = all.get_mut(&id).and_then(|r: &mut Robot| r.visits.get_mut(n)) {
            let so_far = count.entry(visit.place).or_default();
            visit.rank = *so_far;
            *so_far += 1;
        }
    }
    Ok(all)
}

/// Errands that ended: the robot has another order, or none.
fn finished(
    log: &Log,
    robots: &BTreeMap<u16, Robot>,
    cells: &[(usize, usize)],
    due: impl Fn(u64) -> u64,
) -> Vec<Finished> {
    let mut found = Vec::new();
    for (n, id) in robots.keys().enumerate() {
        let entries: Vec<&Entry> = log.entries.iter().filter(|e| e.robot == *id).collect();
        for (before, after) in entries.iter().zip(entries.iter().skip(1)) {
            let place = after.at.or(before.at).and_then(|p| cells.get(usize::from(p)));
            if let Some(cell) = place.filter(|_| before.order.is_some() && before.order != after.order) {
                found.push(Finished { step: due(after.t) as usize, robot: n, cell: *cell });
            }
        }
    }
    found.sort_by_key(|f| f.step);
    found
}

/// The cell of each place.
fn grid(log: &Log) -> Result<(Vec<(usize, usize)>, Grid), String> {
    let places = &log.header.places;
    let road = |(a, to): (usize, &Vec<u16>)| to.iter().map(|b| (a, usize::from(*b))).collect::<Vec<_>>();
    let roads: Vec<(usize, usize)> = log.header.roads.iter().enumerate().flat_map(road).collect();
    let spot = |n: usize| places.get(n).copied().unwrap_or_default();
    let length = |(a, b): &(usize, usize)| (spot(*a).0 - spot(*b).0).abs().max((spot(*a).1 - spot(*b).1).abs());
    let pitch = roads.iter().map(length).filter(|l| *l > 0).min().ok_or("there are no roads in this log")?;
    let low = |of: fn(&(i64, i64)) -> i64| places.iter().map(of).min().unwrap_or(0);
    let (x, y) = (low(|p| p.0), low(|p| p.1));
    let nth = |mm: i64| ((mm + pitch / 2) / pitch) as usize;
    let cells: Vec<(usize, usize)> = places.iter().map(|p| (nth(p.1 - y), nth(p.0 - x))).collect();
    let cell = |n: usize| cells.get(n).copied().unwrap_or_default();
    let beside = |(a, b): &(usize, usize)| cell(*a).0.abs_diff(cell(*b).0) + cell(*a).1.abs_diff(cell(*b).1) == 1;
    if let Some((a, b)) = roads.iter().find(|r| !beside(r)) {
        let (a, b) = (log.place_name(*a as u16), log.place_name(*b as u16));
        return Err(format!(
            "the road from {a} to {b} does not lead to the next cell of a grid: PlanViz shows grids only"
        ));
    }
    let free: BTreeSet<(usize, usize)> = cells.iter().copied().collect();
    if free.len() < cells.len() {
        return Err("two places share a cell of the grid: PlanViz shows grids only".into());
    }
    let most = |of: fn(&(usize, usize)) -> usize| cells.iter().map(of).max().unwrap_or(0) + 1;
    let (height, width) = (most(|c| c.0), most(|c| c.1));
    if height.saturating_mul(width) > 4 << 20 {
        return Err(format!("a grid of {height} x {width} cells is too large"));
    }
    Ok((cells, Grid::from_fn(height, width, |row, column| free.contains(&(row, column)))))
}

fn text(grid: &Grid) -> String {
    let mut out = format!("type octile\nheight {}\nwidth {}\nmap\n", grid.height, grid.width);
    for row in 0..grid.height {
        out.extend((0..grid.width).map(|column| if grid.is_free(row, column) { '.' } else { '@' }));
        out.push('\n');
    }
    out
}
