//! Guidance: what each road costs, learned from where everybody would drive, so that traffic spreads and keeps to its side.
//!
//! ```text
//!   costs ──shortest ways from everywhere to every goal──> flows ──crowded? against the stream?──> costs     (again and again)
//! ```
//!
//! Every pair of a place and a goal sends one unit along its shortest ways. A place where much comes through becomes dearer with
//! the square of its share, and a road on which more comes the other way becomes dearer by as much as comes. Flows are averaged
//! over the rounds, so that the answer settles. One-way lanes form by themselves, on any road map. Made outside the control
//! thread, once a floor; a planner that follows it finishes a quarter to a third more at medium density.

use crate::tables::RoadTables;
use control_core::traffic::roads::{FAR, NO_POSE, Place, WAYS};

/// Distance units of a plain step in a guided table.
pub const UNIT: u16 = 10;

/// How much what counts. The values were found by trying on a hall of 819 places with 100 to 400 vehicles.
#[derive(Clone, Copy, Debug)]
pub struct Guidance {
    /// Rounds of learning.
    pub rounds: usize,
    /// Share of the old flows that is kept in a round.
    pub keep: f64,
    /// What a place of mean flow adds.
    pub crowd: f64,
    /// What a road adds on which everything comes the other way.
    pub counter: f64,
    /// Goals from which flows are measured at most; more are sampled evenly.
    pub goals: usize,
}

impl Default for Guidance {
    fn default() -> Self {
        Guidance { rounds: 20, keep: 0.7, crowd: 0.3, counter: 6.0, goals: 1_000 }
    }
}

/// Learns the costs of a road map and measures its goals with them.
pub fn learn(tables: &mut RoadTables, goals: &[Vec<Place>], guidance: Guidance) {
    let step = goals.len().div_ceil(guidance.goals.max(1)).max(1);
    let sample: Vec<Vec<Place>> = goals.iter().step_by(step).cloned().collect();
    let roads = RoadIndex::of(tables);
    let mut flows = vec![0.0; roads.count];
    set_costs(tables, &roads, |road| 1.0 + 0.5 * f64::from(roads.prefers_other_way(road)), |_| 1.0);
    for round in 0..guidance.rounds {
        tables.measure(&sample);
        let fresh = flows_of(tables, &roads);
        let keep = if round == 0 { 0.0 } else { guidance.keep };
        for (flow, new) in flows.iter_mut().zip(fresh) {
            *flow = *flow * keep + new * (1.0 - keep);
        }
        let mut through = vec![0.0; tables.places];
        for (road, flow) in flows.iter().enumerate() {
            through[usize::from(roads.to[road])] += flow;
        }
        let mean = (through.iter().sum::<f64>() / through.len().max(1) as f64).max(f64::MIN_POSITIVE);
        let crowded = |place: Place| 1.0 + guidance.crowd * (through[usize::from(place)] / mean).powi(2);
        let against = |road: usize| {
            let comes = roads.reverse[road].map_or(0.0, |r| flows[r]);
            if comes > 0.0 { comes / (comes + flows[road]) * (comes / mean).min(1.0) } else { 0.0 }
        };
        set_costs(tables, &roads, |road| crowded(roads.to[road]) + guidance.counter * against(road), crowded);
    }
    tables.measure(goals);
}

/// Roads between places, numbered as in [`RoadTables::beside`].
struct RoadIndex {
    count: usize,
    from: Vec<Place>,
    to: Vec<Place>,
    reverse: Vec<Option<usize>>,
    /// The road of each way of each pose; `None` for a turn.
    of_way: Vec<[Option<usize>; WAYS]>,
}

impl RoadIndex {
    fn of(tables: &RoadTables) -> RoadIndex {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for place in 0..tables.places {
            for n in tables.beside_start[place]..tables.beside_start[place + 1] {
                from.push(place as Place);
                to.push(tables.beside[n as usize]);
            }
        }
        let find = |a: Place, b: Place| {
            let n = usize::from(a);
            let range = tables.beside_start[n] as usize..tables.beside_start[n + 1] as usize;
            range.into_iter().find(|r| tables.beside[*r] == b)
        };
        let reverse = from.iter().zip(&to).map(|(a, b)| find(*b, *a)).collect();
        let of_way = (0..tables.next.len())
            .map(|pose| {
                tables.next[pose].map(|next| {
                    let here = tables.place[pose];
                    let there = *tables.place.get(next as usize)?;
                    if here == there { None } else { find(here, there) }
                })
            })
            .collect();
        RoadIndex { count: from.len(), from, to, reverse, of_way }
    }

    /// A push in one direction to begin with, so that two equal directions do not stay equal.
    fn prefers_other_way(&self, road: usize) -> bool {
        let (a, b) = (u32::from(self.from[road]), u32::from(self.to[road]));
        let pair = (a.min(b) ^ (a.max(b) << 7)).wrapping_mul(0x9E37_79B9);
        (pair >> 31 == 0) == (a < b)
    }
}

fn set_costs(
    tables: &mut RoadTables,
    roads: &RoadIndex,
    of_road: impl Fn(usize) -> f64,
    of_turn: impl Fn(Place) -> f64,
) {
    for (pose, costs) in tables.cost.iter_mut().enumerate() {
        for (way, cost) in costs.iter_mut().enumerate() {
            let value = roads.of_way[pose][way].map_or_else(|| of_turn(tables.place[pose]), &of_road);
            *cost = (value * f64::from(UNIT)).round().clamp(1.0, 1_000.0) as u16;
        }
    }
}

/// What comes along each road when one unit goes from every pose to every measured goal.
fn flows_of(tables: &RoadTables, roads: &RoadIndex) -> Vec<f64> {
    let poses = tables.next.len();
    let mut flows = vec![0.0; roads.count];
    let mut order: Vec<usize> = (0..poses).collect();
    let mut through = vec![0.0; poses];
    for row in tables.distance.chunks(poses.max(1)) {
        order.sort_unstable_by_key(|pose| std::cmp::Reverse(row[*pose]));
        through.fill(1.0);
        for pose in order.iter().copied().filter(|pose| row[*pose] != 0 && row[*pose] != FAR) {
            let on_the_way = |way: usize| {
                let next = tables.next[pose][way];
                let leads = next != NO_POSE && row[next as usize].saturating_add(tables.cost[pose][way]) == row[pose];
                leads.then_some(next as usize)
            };
            let count = (0..WAYS).filter(|way| on_the_way(*way).is_some()).count();
            for way in 0..WAYS {
                if let Some(next) = on_the_way(way) {
                    let share = through[pose] / count as f64;
                    through[next] += share;
                    if let Some(road) = roads.of_way[pose][way] {
                        flows[road] += share;
                    }
                }
            }
        }
    }
    flows
}
