//! Everybody has one goal and has to be there in the end: the search that looks for a way out, for all at once.

use crate::checker::{State, collisions};
use crate::instance::Instance;
use crate::lockstep::state;
use crate::{Outcome, Play};
use control_core::traffic::roads::Place;
use control_core::traffic::search::{Party, Search, Verdict};
use floor_plan::{Arena, RoadTables};
use std::time::Instant;

/// Configurations the search may make.
const CONFIGURATIONS: usize = 20_000;

/// Plays it; also the sum over all robots of the step after which each stays at its goal.
pub(crate) fn play(instance: &Instance, tables: &RoadTables, play: Play) -> (Outcome, usize) {
    let (roads, arena, robots) = (tables.view(), Arena::new(), instance.starts.len());
    let nodes = CONFIGURATIONS.min(play.steps.max(100) * 20).min((256 << 20) / (robots * 4));
    let mut search = Search::new(&&arena, robots, tables.places, nodes, true);
    let goals = goals(instance);
    let goal = |r: usize| instance.goal(goals[r]);
    let parties = (0..robots).map(|r| Party { from: instance.starts[r], goal: goal(r), must: true, moves: true });
    let mut outcome = Outcome { robots, ..Outcome::default() };
    assert!(search.start(&roads, parties, |_| false), "two robots start at one place");
    let verdict = loop {
        let begin = Instant::now();
        let verdict = search.work(&roads, 1);
        outcome.times.push(begin.elapsed());
        if verdict != Verdict::Going {
            break verdict;
        }
    };
    outcome.memory = arena.bytes() + tables.bytes();
    let Verdict::Solved(steps) = verdict else {
        return (outcome, 0);
    };
    outcome.steps = steps as usize;
    outcome.tasks = robots as u64;
    let mut arrived = vec![0usize; robots];
    let states = |step: u32| -> Vec<State> {
        (0..robots).map(|r| state(instance, &roads, false, u32::from(search.place(step, r)?))).collect()
    };
    for step in 1..=steps {
        let (before, after) = (states(step - 1), states(step));
        outcome.collisions += collisions(&instance.grid, false, &before, &after);
        for (r, last) in arrived.iter_mut().enumerate() {
            if search.place(step, r).is_none_or(|p| roads.from_place(goal(r), p) > 0) {
                *last = step as usize + 1;
            }
        }
    }
    (outcome, arrived.iter().sum())
}

/// A goal for each robot, no two the same: its own first task that nobody has taken.
fn goals(instance: &Instance) -> Vec<Place> {
    let mut taken = std::collections::BTreeSet::new();
    let pick = |r: usize| (0..).map(|k| instance.task(r, k)).take(10_000).find(|p| taken.insert(*p));
    (0..instance.starts.len())
        .map(pick)
        .map(|p| p.unwrap_or_else(|| crate::arguments::refuse("there are fewer goals than robots")))
        .collect()
}
