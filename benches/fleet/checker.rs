//! Counts what must not happen, from cells and headings alone.

use floor_plan::map::Grid;
pub(crate) use floor_plan::planviz::State;

/// Collisions of one step: two in a cell, two that exchanged cells, and moves nobody can make.
pub(crate) fn collisions(grid: &Grid, turning: bool, before: &[State], after: &[State]) -> u64 {
    let mut count = 0;
    let cell = |s: &(usize, usize, u8)| s.0 * grid.width + s.1;
    let mut here = vec![None; grid.width * grid.height];
    let mut was = vec![None; grid.width * grid.height];
    for (robot, state) in before.iter().enumerate() {
        if let Some(s) = state {
            was[cell(s)] = Some(robot);
        }
    }
    for (robot, (from, to)) in before.iter().zip(after).enumerate() {
        let Some(to) = to else { continue };
        if here[cell(to)].replace(robot).is_some() || !grid.is_free(to.0, to.1) {
            count += 1;
        }
        let Some(from) = from else { continue };
        if !is_move(turning, from, to) {
            count += 1;
        }
        if let Some(other) = was[cell(to)]
            && other < robot
            && after[other].is_some_and(|o| cell(&o) == cell(from))
        {
            count += 1;
        }
    }
    count
}

fn is_move(turning: bool, from: &(usize, usize, u8), to: &(usize, usize, u8)) -> bool {
    let (down, right) = (to.0 as isize - from.0 as isize, to.1 as isize - from.1 as isize);
    if down == 0 && right == 0 {
        return !turning || (4 + to.2 - from.2) % 4 != 2;
    }
    let ahead = [(0, 1), (1, 0), (0, -1), (-1, 0)];
    if turning { to.2 == from.2 && ahead[usize::from(from.2)] == (down, right) } else { down.abs() + right.abs() == 1 }
}
