//! Which places cannot be used at the same time, because vehicles there, or on the roads to and from there, would touch.
//!
//! ```text
//!        r                 a vehicle on the road p-q has both p and q: nobody is at either
//!        │  < clearance    one at r would touch it: so r is in the way of p or of q, and that is enough
//!   p────┴────q
//! ```
//!
//! A vehicle turns on the spot, so it is taken as a circle about its middle; the clearance is the sum of the radii of the two largest.
//! Places that are neighbours on a road are the last to be chosen: two vehicles could not even follow each other there.

use crate::plan::Spot;
use control_core::traffic::roads::Place;

/// Touching by less than this is rounding, metres.
const ROUNDING_M: f64 = 1e-6;

type Point = (f64, f64);

/// A place (both ends the same), or a road between two.
#[derive(Clone, Copy)]
struct Way {
    ends: [Place; 2],
    at: [Point; 2],
}

impl Way {
    fn reach(&self) -> (f64, f64) {
        let [a, b] = self.at;
        (a.0.min(b.0), a.0.max(b.0))
    }
}

/// Pairs of places that cannot be used at once, the smaller number first, sorted.
pub fn pairs(spots: &[Spot], beside: impl Fn(Place) -> Vec<Place>, clearance_m: f64) -> Vec<(Place, Place)> {
    let at = |p: Place| spots.get(usize::from(p)).map_or((0.0, 0.0), |s| (s.x, s.y));
    let way = |a: Place, b: Place| Way { ends: [a, b], at: [at(a), at(b)] };
    let places = 0..spots.len() as Place;
    let neighbours: Vec<Vec<Place>> = places.clone().map(&beside).collect();
    let is_beside =
        |a: Place, b: Place| neighbours[usize::from(a)].contains(&b) || neighbours[usize::from(b)].contains(&a);
    let single: Vec<Way> = places.clone().map(|p| way(p, p)).collect();
    let roads: Vec<Way> = places
        .flat_map(|p| neighbours[usize::from(p)].iter().map(move |q| (p.min(*q), p.max(*q))))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .map(|(a, b)| way(a, b))
        .collect();
    let mut found = std::collections::BTreeSet::new();
    // First place by place: what that settles needs no road.
    for (one, other) in [(&single, &single), (&single, &roads), (&roads, &roads)] {
        for (a, b) in close(one, other, clearance_m) {
            let options = || a.ends.into_iter().flat_map(|p| b.ends.map(|q| (p.min(q), p.max(q))));
            if options().any(|(p, q)| p == q || found.contains(&(p, q))) {
                continue; // who is on one has a place of the other, or that was settled before
            }
            let apart = |(p, q): &(Place, Place)| distance([at(*p); 2], [at(*q); 2]);
            let best = options()
                .min_by(|x, y| is_beside(x.0, x.1).cmp(&is_beside(y.0, y.1)).then(apart(x).total_cmp(&apart(y))));
            found.extend(best);
        }
    }
    found.into_iter().collect()
}

/// Ways of two lists that come nearer to each other than the clearance; a sweep along x.
fn close(one: &[Way], other: &[Way], clearance_m: f64) -> Vec<(Way, Way)> {
    let mut later: Vec<&Way> = other.iter().collect();
    later.sort_by(|a, b| a.reach().0.total_cmp(&b.reach().0));
    let widest = other.iter().map(|w| w.reach().1 - w.reach().0).fold(0.0, f64::max);
    let mut found = Vec::new();
    for a in one {
        let (from, to) = a.reach();
        let first = later.partition_point(|b| b.reach().0 < from - clearance_m - widest);
        for b in later[first..].iter().take_while(|b| b.reach().0 <= to + clearance_m) {
            if distance(a.at, b.at) < clearance_m - ROUNDING_M {
                found.push((*a, **b));
            }
        }
    }
    found
}

/// Distance of two segments, metres; 0 where they cross.
fn distance([a, b]: [Point; 2], [c, d]: [Point; 2]) -> f64 {
    let side = |p: Point, q: Point, r: Point| (q.0 - p.0) * (r.1 - p.1) - (q.1 - p.1) * (r.0 - p.0);
    if side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0 {
        return 0.0;
    }
    let from = |p: Point, [q, r]: [Point; 2]| {
        let (dx, dy) = (r.0 - q.0, r.1 - q.1);
        let length = dx * dx + dy * dy;
        let t = if length > 0.0 { (((p.0 - q.0) * dx + (p.1 - q.1) * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
        (p.0 - q.0 - t * dx).hypot(p.1 - q.1 - t * dy)
    };
    from(a, [c, d]).min(from(b, [c, d])).min(from(c, [a, b])).min(from(d, [a, b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(spots: &[(f64, f64)], roads: &[(Place, Place)], clearance_m: f64) -> Vec<(Place, Place)> {
        let spots: Vec<Spot> = spots.iter().map(|(x, y)| Spot { x: *x, y: *y, ..Spot::default() }).collect();
        let beside = |p: Place| roads.iter().filter(|(a, _)| *a == p).map(|(_, b)| *b).collect();
        pairs(&spots, beside, clearance_m)
    }

    #[test]
    fn a_grid_with_room_for_everybody_has_no_pairs() {
        let spots: Vec<(f64, f64)> = (0..9).map(|n| (f64::from(n % 3), f64::from(n / 3))).collect();
        let roads: Vec<(Place, Place)> =
            (0..9).flat_map(|n| [(n % 3 < 2).then_some((n, n + 1)), (n < 6).then_some((n, n + 3))]).flatten().collect();
        assert!(near(&spots, &roads, 1.0).is_empty());
        // A hand's breadth more, and nobody may stand beside anybody.
        assert_eq!(near(&spots, &roads, 1.1).len(), roads.len());
    }

    #[test]
    fn a_place_beside_a_road_is_in_the_way_of_its_nearer_end() {
        let spots = [(0.0, 0.0), (4.0, 0.0), (1.5, 0.6)];
        assert_eq!(near(&spots, &[(0, 1)], 1.0), [(0, 2)]);
        assert!(near(&spots, &[(0, 1)], 0.6).is_empty());
        // Where it is joined to that end, the other one: they can follow each other then.
        assert_eq!(near(&spots, &[(0, 1), (0, 2)], 1.0), [(1, 2)]);
    }

    #[test]
    fn roads_that_cross_are_not_driven_at_once() {
        let spots = [(-2.0, 0.0), (2.0, 0.0), (0.0, -2.0), (0.0, 2.0)];
        assert_eq!(near(&spots, &[(0, 1), (2, 3)], 1.0).len(), 1);
        // Roads that share a place have one robot at most.
        assert!(near(&[(0.0, 0.0), (2.0, 0.0), (4.0, 0.0)], &[(0, 1), (1, 2)], 1.0).is_empty());
    }
}
