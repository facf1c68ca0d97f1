//! Five small floors on which pushing alone gets nobody home (FLEET section 4), solved by the bounded search.

use control_core::traffic::search::{Party, Search, Verdict};
use floor_plan::map::Grid;
use floor_plan::{Arena, RoadTables};

/// Rows of a floor, then (from, to) of each vehicle as (column, row).
type Puzzle = (&'static str, &'static [&'static str], &'static [((usize, usize), (usize, usize))]);

const PUZZLES: [Puzzle; 5] = [
    ("tree", &["@.@", "@..", "@.@", "..."], &[((1, 3), (1, 0)), ((1, 1), (1, 3)), ((1, 0), (1, 1))]),
    ("tunnel", &[".@@@", "....", ".@@@", ".@@@", ".@@@", ".@@@"], &[((0, 5), (0, 2)), ((0, 4), (0, 3))]),
    (
        "connector",
        &["...@@@", ".@.@@@", "...@@@", "@@..@@", "@@@...", "@@@.@.", "@@@..."],
        &[((0, 0), (5, 6)), ((5, 6), (0, 0)), ((0, 1), (3, 3)), ((5, 5), (2, 3)), ((1, 0), (3, 4)), ((4, 6), (2, 2))],
    ),
    (
        "string",
        &["@.@", "..@", "@..", "..@", "@..", "..@"],
        &[((0, 5), (2, 4)), ((2, 4), (0, 3)), ((0, 3), (2, 2)), ((2, 2), (0, 1)), ((0, 1), (0, 5))],
    ),
    (
        "chain of loops",
        &["....", ".@.@", "...@"],
        &[
            ((2, 2), (0, 2)),
            ((2, 1), (0, 1)),
            ((2, 0), (0, 0)),
            ((1, 0), (1, 0)),
            ((0, 0), (2, 0)),
            ((0, 1), (2, 1)),
            ((0, 2), (2, 2)),
        ],
    ),
];

#[test]
fn the_search_solves_what_pushing_alone_does_not() {
    for circles in [true, false] {
        for (name, rows, vehicles) in PUZZLES {
            let grid = Grid::from_fn(rows.len(), rows[0].len(), |r, c| rows[r].as_bytes()[c] == b'.');
            let (mut tables, place_of) = RoadTables::of_grid(&grid, false);
            let place = |(column, row): (usize, usize)| place_of[row * grid.width + column].unwrap();
            let goals: Vec<Vec<u16>> = vehicles.iter().map(|(_, to)| vec![place(*to)]).collect();
            tables.measure(&goals);
            let (roads, arena) = (tables.view(), Arena::new());
            let mut search = Search::new(&&arena, vehicles.len(), tables.places, 20_000, circles);
            let parties = vehicles.iter().enumerate().map(|(n, (from, _))| Party {
                from: place(*from),
                goal: n as u16,
                must: true,
                moves: true,
            });
            assert!(search.start(&roads, parties, |_| false));
            let verdict = search.work(&roads, 1_000_000);
            let Verdict::Solved(steps) = verdict else { panic!("{name}, circles {circles}: {verdict:?}") };
            println!("{name}, circles {circles}: {steps} steps, {} configurations", search.made());
            for step in 0..=steps {
                let now: Vec<u16> = (0..vehicles.len()).map(|v| search.place(step, v).unwrap()).collect();
                for a in 0..now.len() {
                    for b in 0..a {
                        assert_ne!(now[a], now[b], "{name}: two in one place after step {step}");
                    }
                }
                if step > 0 {
                    let before: Vec<u16> = (0..vehicles.len()).map(|v| search.place(step - 1, v).unwrap()).collect();
                    for v in 0..now.len() {
                        assert!(now[v] == before[v] || roads.beside(before[v]).contains(&now[v]), "{name}: a jump");
                        for w in 0..v {
                            assert!(
                                now[v] == before[v] || now[v] != before[w] || now[w] != before[v],
                                "{name}: exchange"
                            );
                        }
                    }
                }
            }
            for (v, (_, to)) in vehicles.iter().enumerate() {
                assert_eq!(search.place(steps, v), Some(place(*to)), "{name}");
            }
        }
    }
}
