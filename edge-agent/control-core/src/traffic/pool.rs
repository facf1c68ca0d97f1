//! The operations a vehicle chooses from: short sequences of actions, three with turns, one without.
//!
//! A turn that does not pay off within the sequence is left out, and so is what another sequence does as well. That leaves
//! seventeen (arXiv 2511.09193, table 1). They stand in the order in which they are preferred when they lead equally far,
//! the best last: the sooner forward, the better.

use super::roads::{NO_POSE, Pose, Roads, WAYS};
use crate::storage::{at, put};

/// Steps an operation looks ahead.
pub const DEPTH: usize = 3;
/// Operations of the larger pool.
pub const OPERATIONS_MAX: usize = 17;
const NODES_MAX: usize = 40;

/// The way that is no way: stay.
pub const STAY: u8 = WAYS as u8;

/// A pool of operations, with what is derived from them. Operation 0 is to stay.
#[derive(Debug)]
pub struct Pool {
    /// Steps that count: beyond them a vehicle stays, and nobody looks.
    pub(crate) depth: usize,
    /// How many there are.
    pub(crate) count: usize,
    /// The prefixes of all operations, shorter ones first: which prefix it continues, and with which way. Prefix 0 is empty.
    prefixes: [(u8, u8); NODES_MAX],
    prefix_count: usize,
    /// For each operation its prefixes of one, two and three steps.
    steps: [[u8; DEPTH]; OPERATIONS_MAX],
    /// For each operation what is left of it after one step.
    rest: [u8; OPERATIONS_MAX],
    turning: bool,
}

impl Pool {
    /// Whether vehicles have headings.
    pub fn turning(&self) -> bool {
        self.turning
    }

    /// The pose after each prefix, from this one on; [`NO_POSE`] where it cannot be gone.
    pub(crate) fn follow(&self, roads: &Roads<'_>, pose: Pose) -> [Pose; NODES_MAX] {
        let mut poses = [NO_POSE; NODES_MAX];
        poses[0] = pose;
        for (n, (before, way)) in self.prefixes.iter().enumerate().take(self.prefix_count).skip(1) {
            let from = poses.get(usize::from(*before)).copied().unwrap_or(NO_POSE);
            let stays = *way == STAY || from == NO_POSE;
            put(&mut poses, n, if stays { from } else { roads.after(from, usize::from(*way)) });
        }
        poses
    }

    /// The prefixes of an operation.
    pub(crate) fn steps_of(&self, operation: usize) -> [u8; DEPTH] {
        self.steps.get(operation).copied().unwrap_or_default()
    }

    /// What an operation does first.
    pub(crate) fn first_way(&self, operation: u8) -> u8 {
        let [first, ..] = self.steps_of(usize::from(operation));
        self.prefixes.get(usize::from(first)).map_or(STAY, |(_, way)| *way)
    }

    /// What is left of an operation after one step.
    pub(crate) fn rest_of(&self, operation: u8) -> u8 {
        at(&self.rest, usize::from(operation))
    }
}

/// Vehicles that turn: forward, right, left, stay.
pub static TURNING: Pool = build(b"WWWWWFWRFWCFRRFWFWRFWCFWFWWWFFRFFCFFFWFFRFFCFFFWFFF", 3, true);
/// Vehicles that go to any place next to theirs.
pub static GOING: Pool = build(b"WWW0WW1WW2WW3WW", 1, false);

const fn way(letter: u8) -> u8 {
    match letter {
        b'F' | b'0' => 0,
        b'R' | b'1' => 1,
        b'C' | b'2' => 2,
        b'3' => 3,
        _ => STAY,
    }
}

/// Derives the tables, when the program is compiled.
#[allow(clippy::indexing_slicing)] // when the program is compiled, a wrong index is an error
const fn build(letters: &[u8], depth: usize, turning: bool) -> Pool {
    let count = letters.len() / DEPTH;
    let mut pool = Pool {
        depth,
        count,
        prefixes: [(0, STAY); NODES_MAX],
        prefix_count: 1,
        steps: [[0; DEPTH]; OPERATIONS_MAX],
        rest: [0; OPERATIONS_MAX],
        turning,
    };
    let mut step = 0;
    while step < DEPTH {
        let mut op = 0;
        while op < count {
            let before = if step == 0 { 0 } else { pool.steps[op][step - 1] };
            let wanted = way(letters[op * DEPTH + step]);
            let mut node = 1;
            while node < pool.prefix_count && !(pool.prefixes[node].0 == before && pool.prefixes[node].1 == wanted) {
                node += 1;
            }
            if node == pool.prefix_count {
                pool.prefixes[node] = (before, wanted);
                pool.prefix_count += 1;
            }
            pool.steps[op][step] = node as u8;
            op += 1;
        }
        step += 1;
    }
    let mut op = 0;
    while op < count {
        let mut other = 0;
        while other < count {
            let mut same = way(letters[other * DEPTH + DEPTH - 1]) == STAY;
            let mut k = 0;
            while k + 1 < DEPTH {
                same = same && way(letters[other * DEPTH + k]) == way(letters[op * DEPTH + k + 1]);
                k += 1;
            }
            if same {
                pool.rest[op] = other as u8;
            }
            other += 1;
        }
        op += 1;
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pool: &Pool, op: usize) -> String {
        pool.steps[op].iter().map(|n| b"FRC3W"[usize::from(pool.prefixes[usize::from(*n)].1)] as char).collect()
    }

    extern crate std;
    use std::string::String;

    #[test]
    fn what_is_left_of_an_operation_is_the_operation_one_step_later() {
        for op in 0..TURNING.count {
            let (whole, rest) = (text(&TURNING, op), text(&TURNING, usize::from(TURNING.rest[op])));
            assert_eq!(rest, std::format!("{}W", &whole[1..]), "{whole}");
        }
        assert!((0..GOING.count).all(|op| GOING.rest[op] == 0));
        assert_eq!((TURNING.count, GOING.count), (17, 5));
    }
}
