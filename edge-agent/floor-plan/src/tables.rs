//! The tables of a road map: poses, ways and distances.

use crate::map::Grid;
use control_core::traffic::roads::{FAR, NO_POSE, Place, Pose, Roads, WAYS};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// The four headings of a grid: east, south, west, north; as (row, column).
const HEADINGS: [(isize, isize); 4] = [(0, 1), (1, 0), (0, -1), (-1, 0)];

/// Roads that meet at less than this need no turn, degrees.
pub const BEND_DEG: f64 = 30.0;

/// The angle between two directions, degrees.
fn between(a: f64, b: f64) -> f64 {
    let apart = (a - b).rem_euclid(360.0);
    apart.min(360.0 - apart)
}

/// Owned tables of a road map.
#[derive(Clone, Debug, Default)]
pub struct RoadTables {
    /// Number of places.
    pub places: usize,
    /// Ways of each pose.
    pub next: Vec<[Pose; WAYS]>,
    /// What each way costs.
    pub cost: Vec<[u16; WAYS]>,
    /// Place of each pose.
    pub place: Vec<Place>,
    /// The first pose of each place, they are contiguous; and, as one more, the number of poses.
    pub first_pose: Vec<Pose>,
    /// Places next to each: from `beside_start[place]` on.
    pub beside_start: Vec<u32>,
    /// Places next to each.
    pub beside: Vec<Place>,
    /// Places in the way of each: from `near_start[place]` on. Empty where nobody is in anybody's way.
    pub near_start: Vec<u32>,
    /// Places in the way of each.
    pub near: Vec<Place>,
    /// A row for each goal.
    pub distance: Vec<u16>,
}

impl RoadTables {
    /// The road map of a grid. With `turning` a pose has a heading and a turn by a quarter takes a step.
    /// Also the place of each cell, row by row.
    pub fn of_grid(grid: &Grid, turning: bool) -> (RoadTables, Vec<Option<Place>>) {
        RoadTables::of_grid_with(grid, turning, |_, _| None)
    }

    /// The same, where some cells can be left in one direction only, but for those beside that are ends (east 0, south 1, ..).
    pub fn of_grid_with(
        grid: &Grid,
        turning: bool,
        one_way: impl Fn(usize, usize) -> Option<usize>,
    ) -> (RoadTables, Vec<Option<Place>>) {
        let mut place_of = vec![None; grid.height * grid.width];
        for (n, (row, column)) in grid.cells().enumerate() {
            place_of[row * grid.width + column] = Place::try_from(n).ok();
        }
        let beside = |row: usize, column: usize, heading: usize| {
            let (r, c) =
                (row.checked_add_signed(HEADINGS[heading].0)?, column.checked_add_signed(HEADINGS[heading].1)?);
            if !grid.is_free(r, c) {
                return None;
            }
            // Against the arrow of either cell nobody drives.
            let along = |arrow: Option<usize>| arrow.is_none_or(|a| a != (heading + 2) % 4);
            let leaves = one_way(row, column).is_none_or(|a| a == heading || one_way(r, c).is_none());
            let allowed = along(one_way(row, column)) && along(one_way(r, c)) && leaves;
            if allowed { place_of[r * grid.width + c] } else { None }
        };
        let mut tables = RoadTables { places: grid.cells().count(), ..RoadTables::default() };
        for (n, (row, column)) in grid.cells().enumerate() {
            let n = n as u32;
            tables.first_pose.push(if turning { n * 4 } else { n });
            if turning {
                for heading in 0..4usize {
                    let turn = |by: usize| n * 4 + ((heading + by) % 4) as u32;
                    let forward = beside(row, column, heading).map_or(NO_POSE, |p| u32::from(p) * 4 + heading as u32);
                    tables.next.push([forward, turn(1), turn(3), NO_POSE]);
                    tables.place.push(n as Place);
                }
            } else {
                tables.next.push([0, 1, 2, 3].map(|h| beside(row, column, h).map_or(NO_POSE, u32::from)));
                tables.place.push(n as Place);
            }
        }
        tables.cost = vec![[1; WAYS]; tables.next.len()];
        tables.finish();
        (tables, place_of)
    }

    /// The road map of places at (x, y) and one-way roads between them. With `turning`, a pose has one of the directions in which
    /// roads come to or leave its place; roads within [`BEND_DEG`] of each other need no turn.
    pub fn of_roads(places: &[(f64, f64)], roads: &[(Place, Place)], turning: bool) -> RoadTables {
        let bearing = |from: Place, to: Place| {
            let ((x, y), (u, v)) = (places[usize::from(from)], places[usize::from(to)]);
            (v - y).atan2(u - x).to_degrees().rem_euclid(360.0)
        };
        let mut tables = RoadTables { places: places.len(), ..RoadTables::default() };
        let mut headings: Vec<Vec<f64>> = vec![Vec::new(); places.len()];
        if turning {
            for (from, to) in roads {
                headings[usize::from(*from)].push(bearing(*from, *to));
            }
            for (from, to) in roads {
                let (own, comes) = (&mut headings[usize::from(*to)], bearing(*from, *to));
                if own.iter().all(|h| between(*h, comes) > BEND_DEG) {
                    own.push(comes);
                }
            }
            headings.iter_mut().for_each(|h| h.sort_by(f64::total_cmp));
        }
        let mut first = 0;
        for own in &headings {
            tables.first_pose.push(first);
            first += own.len().max(1) as Pose;
        }
        for (place, own) in headings.iter().enumerate() {
            let count = own.len().max(1);
            for k in 0..count {
                let turn = |by: usize| tables.first_pose[place] + ((k + by) % count) as Pose;
                let [right, left] = if count > 1 { [turn(1), turn(count - 1)] } else { [NO_POSE; 2] };
                tables.next.push([NO_POSE, right, if right == left { NO_POSE } else { left }, NO_POSE]);
                tables.place.push(place as Place);
            }
        }
        for (from, to) in roads {
            let direction = bearing(*from, *to);
            let nearest = |place: Place| {
                let own = &headings[usize::from(place)];
                let best =
                    (0..own.len()).min_by(|a, b| between(own[*a], direction).total_cmp(&between(own[*b], direction)));
                tables.first_pose[usize::from(place)] + best.unwrap_or(0) as Pose
            };
            let (pose, arrival) = (nearest(*from), nearest(*to));
            let ways = &mut tables.next[pose as usize];
            // Without headings every road is a way; with them a heading is made of one road.
            if let Some(way) = if turning { Some(0) } else { ways.iter().position(|w| *w == NO_POSE) } {
                ways[way] = arrival;
            }
        }
        tables.cost = vec![[1; WAYS]; tables.next.len()];
        tables.finish();
        tables
    }

    /// Closes places, into which nobody drives any more, while who is there can drive out; and roads, each a pair of places, in both
    /// directions. Distances have to be measured again.
    pub fn close(&mut self, closed: &BTreeSet<Place>, roads: &BTreeSet<(Place, Place)>) {
        for pose in 0..self.next.len() {
            let from = self.place[pose];
            let stays = closed.contains(&from);
            for way in &mut self.next[pose] {
                let Some(to) = self.place.get(*way as usize).copied() else { continue };
                let road = roads.contains(&(from, to)) || roads.contains(&(to, from));
                if road || (closed.contains(&to) && !stays) {
                    *way = NO_POSE;
                }
            }
        }
        (self.beside_start, self.beside) = Default::default();
        self.find_beside();
    }

    fn finish(&mut self) {
        self.first_pose.push(self.next.len() as Pose);
        self.find_beside();
    }

    fn find_beside(&mut self) {
        self.beside_start.push(0);
        for place in 0..self.places as Place {
            let from = self.beside.len();
            for pose in self.poses_of(place) {
                for to in self.next[pose as usize] {
                    let Some(beside) = self.place.get(to as usize).copied() else { continue };
                    if beside != place && !self.beside[from..].contains(&beside) {
                        self.beside.push(beside);
                    }
                }
            }
            self.beside_start.push(self.beside.len() as u32);
        }
    }

    /// Vehicles at the places of each of these pairs would touch.
    pub fn keep_apart(&mut self, pairs: &[(Place, Place)]) {
        let mut rows = vec![Vec::new(); self.places];
        for (a, b) in pairs {
            rows[usize::from(*a)].push(*b);
            rows[usize::from(*b)].push(*a);
        }
        let ends = rows.iter().scan(0, |sum, row| {
            *sum += row.len() as u32;
            Some(*sum)
        });
        self.near_start = if pairs.is_empty() { Vec::new() } else { std::iter::once(0).chain(ends).collect() };
        self.near = rows.concat();
    }

    /// The tables as the core wants them.
    pub fn view(&self) -> Roads<'_> {
        Roads::new(self.places, &self.next, &self.place, &self.distance)
            .with_places(&self.first_pose, &self.beside_start, &self.beside)
            .with_near(&self.near_start, &self.near)
    }

    /// Memory the tables take.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.next[..])
            + size_of_val(&self.cost[..])
            + size_of_val(&self.place[..])
            + size_of_val(&self.first_pose[..])
            + size_of_val(&self.beside_start[..])
            + size_of_val(&self.beside[..])
            + size_of_val(&self.distance[..])
    }

    /// Poses of a place.
    pub fn poses_of(&self, place: Place) -> std::ops::Range<Pose> {
        let n = usize::from(place);
        self.first_pose[n]..self.first_pose[n + 1]
    }

    /// Makes the rows of distances: one for each set of places.
    pub fn measure(&mut self, goals: &[Vec<Place>]) {
        // Ways backwards: for each pose those it is reached from.
        let mut start = vec![0u32; self.next.len() + 1];
        for to in self.next.iter().flatten().filter(|to| **to != NO_POSE) {
            start[*to as usize + 1] += 1;
        }
        for n in 1..start.len() {
            start[n] += start[n - 1];
        }
        let mut fill = start.clone();
        let mut from = vec![(0 as Pose, 0u16); *start.last().unwrap_or(&0) as usize];
        for (pose, (ways, costs)) in self.next.iter().zip(&self.cost).enumerate() {
            for (to, cost) in ways.iter().zip(costs).filter(|(to, _)| **to != NO_POSE) {
                let slot = &mut fill[*to as usize];
                from[*slot as usize] = (pose as Pose, *cost);
                *slot += 1;
            }
        }
        self.distance = vec![FAR; goals.len() * self.next.len()];
        let mut heap = BinaryHeap::new();
        for (row, places) in self.distance.chunks_mut(self.next.len().max(1)).zip(goals) {
            heap.clear();
            for place in places {
                let n = usize::from(*place);
                for pose in self.first_pose[n]..self.first_pose[n + 1] {
                    row[pose as usize] = 0;
                    heap.push(Reverse((0u16, pose)));
                }
            }
            while let Some(Reverse((distance, pose))) = heap.pop() {
                if row[pose as usize] < distance {
                    continue;
                }
                for (before, cost) in &from[start[pose as usize] as usize..start[pose as usize + 1] as usize] {
                    let through = distance.saturating_add(*cost);
                    if through < row[*before as usize] {
                        row[*before as usize] = through;
                        heap.push(Reverse((through, *before)));
                    }
                }
            }
        }
    }
}
