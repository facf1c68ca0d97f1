//! Who takes what, so that all together travel least (Jonker and Volgenant, Computing 38, 1987, in its shortest-path form).

use crate::limits::ASSIGN_MAX;
use crate::storage::{at, put};

/// A cost that is never worth it.
pub const NEVER: i64 = i64::MAX / 4;

const N: usize = ASSIGN_MAX + 1;

/// For each row the column it gets, so that the sum of costs is least. There are at least as many columns as rows, at most
/// [`ASSIGN_MAX`]; a pair that costs [`NEVER`] is not made. Rows^2 x columns steps.
pub fn assign(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> i64) -> [Option<usize>; ASSIGN_MAX] {
    let (rows, columns) = (rows.min(ASSIGN_MAX), columns.min(ASSIGN_MAX));
    let (mut of_row, mut of_column) = ([0i64; N], [0i64; N]);
    // Row 0 and column 0 are none; `taken[column]` is the row that has it.
    let (mut taken, mut came_from) = ([0usize; N], [0usize; N]);
    for row in 1..=rows {
        put(&mut taken, 0, row);
        let (mut least, mut seen) = ([i64::MAX; N], [false; N]);
        let mut here = 0usize;
        loop {
            put(&mut seen, here, true);
            let from = at(&taken, here);
            let (mut step, mut next) = (i64::MAX, 0usize);
            for column in (1..=columns).filter(|c| !seen.get(*c).copied().unwrap_or(true)) {
                let reduced = cost(from - 1, column - 1) - at(&of_row, from) - at(&of_column, column);
                if reduced < least.get(column).copied().unwrap_or(i64::MAX) {
                    put(&mut least, column, reduced);
                    put(&mut came_from, column, here);
                }
                let found = least.get(column).copied().unwrap_or(i64::MAX);
                if found < step {
                    (step, next) = (found, column);
                }
            }
            if next == 0 {
                break; // more rows than columns
            }
            for column in 0..=columns {
                if seen.get(column).copied().unwrap_or(false) {
                    let row = at(&taken, column);
                    let (raised, lowered) = (at(&of_row, row) + step, at(&of_column, column) - step);
                    put(&mut of_row, row, raised);
                    put(&mut of_column, column, lowered);
                } else if let Some(l) = least.get_mut(column) {
                    *l = l.saturating_sub(step);
                }
            }
            here = next;
            if at(&taken, here) == 0 {
                break;
            }
        }
        while here != 0 {
            let before = at(&came_from, here);
            let row = at(&taken, before);
            put(&mut taken, here, row);
            here = before;
        }
    }
    let mut result = [None; ASSIGN_MAX];
    for column in 1..=columns {
        let row = at(&taken, column);
        if row > 0 && cost(row - 1, column - 1) < NEVER {
            put(&mut result, row - 1, Some(column - 1));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    fn best(costs: &[Vec<i64>], used: u32, row: usize) -> i64 {
        if row == costs.len() {
            return 0;
        }
        (0..costs[0].len())
            .filter(|c| used & (1 << c) == 0)
            .map(|c| costs[row][c] + best(costs, used | 1 << c, row + 1))
            .min()
            .unwrap()
    }

    proptest! {
        #[test]
        fn no_other_assignment_is_cheaper(
            rows in 1usize..6, more in 0usize..3, seed in proptest::collection::vec(0i64..1000, 64),
        ) {
            let columns = rows + more;
            let costs: Vec<Vec<i64>> = (0..rows).map(|r| seed[r * 8..r * 8 + columns].to_vec()).collect();
            let found = assign(rows, columns, |r, c| costs[r][c]);
            let mut used: Vec<usize> = found.iter().flatten().copied().collect();
            prop_assert_eq!(used.len(), rows);
            let sum: i64 = (0..rows).map(|r| costs[r][found[r].unwrap()]).sum();
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!(used.len(), rows);
            prop_assert_eq!(sum, best(&costs, 0, 0));
        }
    }

    #[test]
    fn what_is_never_worth_it_is_not_done() {
        let found = assign(2, 2, |r, c| if (r, c) == (1, 1) || (r, c) == (1, 0) { NEVER } else { 5 });
        assert!(found[0].is_some() && found[1].is_none());
    }
}
