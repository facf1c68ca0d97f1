//! What can be proven of a road map before a vehicle moves on it.
//!
//! ```text
//!      o───o───o            o  live: in a block of three places and more, every vehicle can be pushed round (PIBT)
//!      │       │
//!      o───o───o───r───r    r  a region: a dead end, a tunnel, a tree; nobody can be pushed out of the way there
//! ```
//!
//! Pushing brings every vehicle to its goal in finite time where every two places next to each other lie on a common circle of
//! at least three (PIBT, theorem 1), and, since real vehicles cannot start all at once, where a place is free. So the
//! road map is cut into **blocks** in which that holds; what is left are **regions**, which get gates. A region that touches no
//! block has nowhere to wait outside it: of that nothing can be proven.

use crate::tables::RoadTables;
use control_core::traffic::roads::{OPEN, Place, Region};

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One way in, which is the way out.
    DeadEnd,
    /// Leads from one place of the live floor to another.
    Tunnel,
    /// Touches no live place.
    Closed,
}

/// A part of the floor with a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// What it is.
    pub kind: Kind,
    /// Its places.
    pub places: Vec<Place>,
    /// The live places next to it.
    pub mouths: Vec<Place>,
    /// Vehicles that may be in it at once.
    pub capacity: u16,
}

/// What is proven of a road map.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The region of each place, [`OPEN`] for live ones.
    pub region: Vec<Region>,
    /// All regions.
    pub regions: Vec<RegionInfo>,
    /// The blocks, each with its places. A place can be in several.
    pub blocks: Vec<Vec<Place>>,
    /// The strongly connected part each place belongs to.
    pub part: Vec<u32>,
    /// Number of parts.
    pub parts: u32,
}

impl Proof {
    /// Looks at a road map. Linear in places and roads.
    pub fn of(tables: &RoadTables) -> Proof {
        let out = |p: Place| {
            let (from, to) = (tables.beside_start[usize::from(p)], tables.beside_start[usize::from(p) + 1]);
            &tables.beside[from as usize..to as usize]
        };
        let n = tables.places;
        let mut both: Vec<Vec<Place>> = vec![Vec::new(); n];
        for p in 0..n as Place {
            for q in out(p) {
                for (a, b) in [(p, *q), (*q, p)] {
                    if !both[usize::from(a)].contains(&b) {
                        both[usize::from(a)].push(b);
                    }
                }
            }
        }
        let (part, parts) = strong_parts(n, |p| out(p).to_vec());
        let mut proof = Proof { part, parts, region: vec![OPEN; n], ..Proof::default() };
        let mut live = vec![false; n];
        for block in biconnected(&both) {
            if block.len() >= 3 && is_strong(&block, &out) {
                block.iter().for_each(|p| live[usize::from(*p)] = true);
                proof.blocks.push(block);
            }
        }
        for start in 0..n {
            if live[start] || proof.region[start] != OPEN {
                continue;
            }
            let number = proof.regions.len() as Region;
            let (mut places, mut mouths) = (vec![start as Place], Vec::new());
            proof.region[start] = number;
            let mut next = 0;
            while let Some(place) = places.get(next).copied() {
                next += 1;
                for q in &both[usize::from(place)] {
                    if live[usize::from(*q)] {
                        if !mouths.contains(q) {
                            mouths.push(*q);
                        }
                    } else if proof.region[usize::from(*q)] == OPEN {
                        proof.region[usize::from(*q)] = number;
                        places.push(*q);
                    }
                }
            }
            let kind = match mouths.len() {
                0 => Kind::Closed,
                1 => Kind::DeadEnd,
                _ => Kind::Tunnel,
            };
            // Those that follow each other through a line never have to pass each other.
            let is_line = kind == Kind::Tunnel && places.iter().all(|p| both[usize::from(*p)].len() <= 2);
            let capacity = if is_line { places.len() as u16 } else { 1 };
            proof.regions.push(RegionInfo { kind, places, mouths, capacity });
        }
        proof
    }

    /// How many vehicles may be in each region.
    pub fn capacities(&self) -> Vec<u16> {
        self.regions.iter().map(|r| r.capacity).collect()
    }

    /// Whether everything is proven.
    pub fn is_live(&self) -> bool {
        self.regions.iter().all(|r| r.kind != Kind::Closed) && self.parts == 1
    }
}

/// Strongly connected parts: for each place its part. Kosaraju, with lists instead of recursion.
fn strong_parts(n: usize, out: impl Fn(Place) -> Vec<Place>) -> (Vec<u32>, u32) {
    let forward: Vec<Vec<Place>> = (0..n as Place).map(&out).collect();
    let mut backward: Vec<Vec<Place>> = vec![Vec::new(); n];
    for (p, next) in forward.iter().enumerate() {
        next.iter().for_each(|q| backward[usize::from(*q)].push(p as Place));
    }
    let mut order = Vec::with_capacity(n);
    let mut seen = vec![false; n];
    for start in 0..n {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let mut stack = vec![(start, 0usize)];
        while let Some((p, k)) = stack.pop() {
            match forward[p].get(k) {
                None => order.push(p),
                Some(q) => {
                    stack.push((p, k + 1));
                    if !std::mem::replace(&mut seen[usize::from(*q)], true) {
                        stack.push((usize::from(*q), 0));
                    }
                }
            }
        }
    }
    let mut part = vec![u32::MAX; n];
    let mut parts = 0;
    for start in order.into_iter().rev() {
        if part[start] != u32::MAX {
            continue;
        }
        let mut stack = vec![start];
        part[start] = parts;
        while let Some(p) = stack.pop() {
            for q in &backward[p] {
                if part[usize::from(*q)] == u32::MAX {
                    part[usize::from(*q)] = parts;
                    stack.push(usize::from(*q));
                }
            }
        }
        parts += 1;
    }
    (part, parts)
}

/// Whether every place of a block can be reached from every other within it.
fn is_strong<'t>(block: &[Place], out: &impl Fn(Place) -> &'t [Place]) -> bool {
    let number = |p: Place| block.binary_search(&p).ok();
    let within = |n: Place| -> Vec<Place> {
        out(block[usize::from(n)]).iter().filter_map(|q| number(*q)).map(|q| q as Place).collect()
    };
    strong_parts(block.len(), within).1 == 1
}

/// Biconnected components of an undirected graph, each sorted (Hopcroft and Tarjan, CACM 16, 1973), with a list of edges
/// instead of recursion.
fn biconnected(beside: &[Vec<Place>]) -> Vec<Vec<Place>> {
    const UNSEEN: u32 = u32::MAX;
    let n = beside.len();
    let (mut depth, mut low) = (vec![UNSEEN; n], vec![0u32; n]);
    let mut found = Vec::new();
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for start in 0..n {
        if depth[start] != UNSEEN {
            continue;
        }
        depth[start] = 0;
        let mut stack = vec![(start, usize::MAX, 0usize)];
        while let Some((p, parent, k)) = stack.pop() {
            if let Some(q) = beside[p].get(k).map(|q| usize::from(*q)) {
                stack.push((p, parent, k + 1));
                if depth[q] == UNSEEN {
                    edges.push((p, q));
                    (depth[q], low[q]) = (depth[p] + 1, depth[p] + 1);
                    stack.push((q, p, 0));
                } else if q != parent && depth[q] < depth[p] {
                    edges.push((p, q));
                    low[p] = low[p].min(depth[q]);
                }
                continue;
            }
            if parent == usize::MAX {
                continue;
            }
            low[parent] = low[parent].min(low[p]);
            if low[p] >= depth[parent] {
                let mut block = Vec::new();
                while let Some((a, b)) = edges.pop() {
                    block.extend([a as Place, b as Place]);
                    if (a, b) == (parent, p) {
                        break;
                    }
                }
                block.sort_unstable();
                block.dedup();
                found.push(block);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Grid;

    fn proof(rows: &[&str]) -> Proof {
        let grid = Grid::from_fn(rows.len(), rows[0].len(), |r, c| rows[r].as_bytes()[c] == b'.');
        Proof::of(&RoadTables::of_grid(&grid, true).0)
    }

    #[test]
    fn a_loop_is_live_a_stub_is_a_dead_end_and_a_bridge_a_tunnel() {
        let p = proof(&["...@@@@", ".@.....", "...@@.@", "@@@@@@@"]);
        assert_eq!(p.blocks.len(), 1);
        assert_eq!(p.regions.len(), 1);
        assert_eq!((p.regions[0].kind, p.regions[0].mouths.len(), p.regions[0].capacity), (Kind::DeadEnd, 1, 1));
        let p = proof(&["...@...", ".@.....", "...@..."]);
        assert_eq!((p.blocks.len(), p.regions.len()), (2, 1));
        assert_eq!((p.regions[0].kind, p.regions[0].capacity), (Kind::Tunnel, 1));
        let p = proof(&["...@@...", "........", "...@@..."]);
        assert_eq!((p.regions[0].kind, p.regions[0].capacity, p.is_live()), (Kind::Tunnel, 2, true));
    }

    #[test]
    fn the_five_controls_are_flagged() {
        let tree = proof(&["@.@", "@..", "@.@", "..."]);
        let tunnel = proof(&[".@@@", "....", ".@@@", ".@@@", ".@@@", ".@@@"]);
        let string = proof(&["@.@", "..@", "@..", "..@", "@..", "..@"]);
        for p in [tree, tunnel] {
            assert!(!p.is_live());
            assert_eq!(p.regions[0].kind, Kind::Closed);
        }
        let connector = proof(&["...@@@", ".@.@@@", "...@@@", "@@..@@", "@@@...", "@@@.@.", "@@@..."]);
        assert_eq!((connector.blocks.len(), connector.regions.len()), (2, 1));
        let chain = proof(&["....", ".@.@", "...@"]);
        assert_eq!((chain.blocks.len(), chain.regions[0].kind), (1, Kind::DeadEnd));
        assert!(!string.regions.is_empty());
    }
}
