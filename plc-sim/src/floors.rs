//! Road maps drawn from a seed, of the kinds that factories have: halls, rings with stations beside them, aisles between shelves,
//! halls joined by tunnels, halls with dead ends that branch.

use control_core::traffic::roads::Place;
use floor_plan::RoadTables;
use floor_plan::map::Grid;

/// A kind of road map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hall with obstacles.
    Hall,
    /// A one-way ring with short cuts; stations and parking in dead ends beside it.
    Ring,
    /// Aisles between shelves.
    Warehouse,
    /// Halls joined by tunnels.
    Tunnels,
    /// A hall with dead ends that branch.
    Branches,
}

/// All kinds.
pub const KINDS: [Kind; 5] = [Kind::Hall, Kind::Ring, Kind::Warehouse, Kind::Tunnels, Kind::Branches];

/// A road map with the places one may be sent to.
pub struct Drawn {
    /// The tables, goals not measured yet.
    pub tables: RoadTables,
    /// Where vehicles can be sent.
    pub stations: Vec<Place>,
}

/// Draws a road map.
pub fn draw(kind: Kind, rng: &mut fastrand::Rng) -> Drawn {
    match kind {
        Kind::Ring => {
            let (places, roads, stations) = ring(rng);
            Drawn { tables: RoadTables::of_roads(&places, &roads, true), stations }
        }
        _ => {
            let grid = largest_part(&cells(kind, rng));
            let tables = RoadTables::of_grid(&grid, true).0;
            let stations = (0..tables.places as Place).collect();
            Drawn { tables, stations }
        }
    }
}

/// The cells of a grid of some kind.
pub fn cells(kind: Kind, rng: &mut fastrand::Rng) -> Grid {
    match kind {
        Kind::Warehouse => {
            let (rows, columns, long) = (rng.usize(2..5), rng.usize(2..5), rng.usize(3..7));
            warehouse(rows, columns, long)
        }
        Kind::Tunnels => {
            let (halls, size, long) = (rng.usize(2..4), rng.usize(3..6), rng.usize(1..5));
            let middle = size / 2;
            Grid::from_fn(size, halls * (size + long) - long, |r, c| c % (size + long) < size || r == middle)
        }
        Kind::Branches => {
            let size = rng.usize(4..7);
            let side = size + 8;
            let mut free = vec![false; side * side];
            for n in 0..size * size {
                free[(4 + n / size) * side + 4 + n % size] = true;
            }
            for _ in 0..rng.usize(2..6) {
                // A walk from the edge of the hall outwards, that keeps away from itself.
                let at = rng.usize(0..size);
                let (mut r, mut c, dr, dc) = match rng.u8(0..4) {
                    0 => (3isize, 4 + at as isize, -1, 0),
                    1 => (4 + size as isize, 4 + at as isize, 1, 0),
                    2 => (4 + at as isize, 3, 0, -1),
                    _ => (4 + at as isize, 4 + size as isize, 0, 1),
                };
                for _ in 0..rng.usize(1..5) {
                    let inside = |v: isize| (0..side as isize).contains(&v);
                    if !inside(r) || !inside(c) {
                        break;
                    }
                    free[r as usize * side + c as usize] = true;
                    if rng.u8(0..3) == 0 {
                        (r, c) = (r + dc, c + dr);
                    } else {
                        (r, c) = (r + dr, c + dc);
                    }
                }
            }
            Grid::from_fn(side, side, |r, c| free[r * side + c])
        }
        Kind::Hall | Kind::Ring => {
            let (height, width, blocked) = (rng.usize(5..14), rng.usize(5..14), rng.f64() * 0.25);
            Grid::from_fn(height, width, |_, _| rng.f64() >= blocked)
        }
    }
}

/// Shelves two deep with aisles of one between them, and two cross aisles at each end.
pub fn warehouse(rows: usize, columns: usize, long: usize) -> Grid {
    Grid::from_fn(rows * 3 + 1, columns * (long + 2) + 2, |r, c| r % 3 == 0 || c % (long + 2) < 2)
}

/// The largest part of a grid in which every cell can be reached from every other.
pub fn largest_part(grid: &Grid) -> Grid {
    let mut part = vec![0usize; grid.height * grid.width];
    let mut best = (0, 0);
    let mut count = 0;
    for (row, column) in grid.cells() {
        if part[row * grid.width + column] != 0 {
            continue;
        }
        count += 1;
        let mut stack = vec![(row, column)];
        part[row * grid.width + column] = count;
        let mut size = 0;
        while let Some((r, c)) = stack.pop() {
            size += 1;
            let beside = [(r.wrapping_sub(1), c), (r + 1, c), (r, c.wrapping_sub(1)), (r, c + 1)];
            for (r, c) in beside.into_iter().filter(|(r, c)| grid.is_free(*r, *c)) {
                if part[r * grid.width + c] == 0 {
                    part[r * grid.width + c] = count;
                    stack.push((r, c));
                }
            }
        }
        best = best.max((size, count));
    }
    Grid::from_fn(grid.height, grid.width, |r, c| part[r * grid.width + c] == best.1)
}

/// Places at x and y, one-way roads between them, and the places one stops at.
pub type RoadMap = (Vec<(f64, f64)>, Vec<(Place, Place)>, Vec<Place>);

/// A one-way ring with short cuts, and dead ends beside it.
pub fn ring(rng: &mut fastrand::Rng) -> RoadMap {
    let count = rng.usize(10..40);
    let radius = count as f64 / std::f64::consts::TAU;
    let on_circle = |n: f64, r: f64| {
        let angle = n / count as f64 * std::f64::consts::TAU;
        (r * angle.cos(), r * angle.sin())
    };
    let mut places: Vec<(f64, f64)> = (0..count).map(|n| on_circle(n as f64, radius)).collect();
    let mut roads: Vec<(Place, Place)> = (0..count).map(|n| (n as Place, ((n + 1) % count) as Place)).collect();
    let mut stations = Vec::new();
    for n in 0..count {
        if rng.u8(0..3) == 0 {
            let stub = places.len() as Place;
            places.push(on_circle(n as f64, radius + 1.0));
            roads.extend([(n as Place, stub), (stub, n as Place)]);
            stations.push(stub);
        } else if rng.u8(0..8) == 0 {
            let across = ((n + count / 2) % count) as Place;
            if !roads.contains(&(across, n as Place)) {
                roads.push((n as Place, across));
            }
        }
    }
    if stations.len() < 3 {
        stations.extend((0..count as Place).step_by(3));
    }
    (places, roads, stations)
}
