//! The traffic of the product: a robot comes to a place when that is free, stops at its goal, and drives along what is allocated to it; in
//! time, or late: each misses a step now and then, and the plan is carried out in its order.

use crate::checker::{State, collisions};
use crate::counting::counted;
use crate::instance::Instance;
use crate::lockstep::{Log, state};
use crate::{Outcome, Play};
use control_core::traffic::pool::{GOING, TURNING};
use control_core::traffic::roads::{Place, Pose, Roads};
use control_core::traffic::{Settings, Size, Traffic};
use control_core::units::Millis;
use floor_plan::{Arena, RoadTables};
use std::time::Instant;

/// One robot as it really is.
struct Body {
    pose: Pose,
    goal: Option<Place>,
    given: usize,
}

/// Plays it.
pub(crate) fn play(instance: &Instance, tables: &RoadTables, play: Play, delays: f64, seed: u64) -> (Outcome, Log) {
    let (roads, arena, robots) = (tables.view(), Arena::new(), instance.starts.len());
    let size = Size { vehicles: robots, places: tables.places, regions: 0, search_vehicles: 24, search_nodes: 2_000 };
    let settings =
        Settings { lead: 5, ahead: 4, step_ms: 1, checks: u32::MAX, improve: play.improve, ..Settings::default() };
    let mut traffic = Traffic::new(&&arena, if play.turning { &TURNING } else { &GOING }, size, settings);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bodies: Vec<Body> = Vec::new();
    for (v, start) in (0u16..).zip(&instance.starts) {
        let pose = tables.poses_of(*start).start;
        assert!(traffic.enter(&roads, v, pose), "robot {v} stands where another does");
        bodies.push(Body { pose, goal: None, given: 0 });
    }
    let mut outcome = Outcome { robots, steps: play.steps, ..Outcome::default() };
    let mut log = Log::default();
    for step in 0..play.steps {
        for (r, body) in bodies.iter_mut().enumerate() {
            while body.goal.is_none_or(|g| g == roads.place(body.pose)) {
                let place = instance.task(r, body.given);
                (body.goal, body.given) = (Some(place), body.given + 1);
                traffic.send(r as u16, instance.goal(place), 1);
            }
        }
        let begin = Instant::now();
        let ((), allocations) = counted(|| {
            let plans = traffic.steps();
            for part in 0..3 {
                if traffic.steps() == plans || part < 2 {
                    traffic.work(&roads, Millis(step as u64 * 3 + part));
                }
            }
        });
        outcome.times.push(begin.elapsed());
        outcome.allocations += allocations;
        let states = |bodies: &[Body]| -> Vec<State> {
            bodies.iter().map(|b| state(instance, &roads, play.turning, b.pose)).collect()
        };
        let before = states(&bodies);
        for (r, body) in bodies.iter_mut().enumerate() {
            if rng.f64() < delays {
                continue;
            }
            // What is claimed ahead it may turn to; where nothing is, as its frontier does. To drive it needs the base.
            let Some(next) = traffic.path(r as u16).nth(1) else {
                body.pose = turned(&roads, body.pose, traffic.frontier(r as u16));
                continue;
            };
            let moved = towards(&roads, body.pose, next);
            if roads.place(moved) == roads.place(body.pose) {
                body.pose = moved;
            } else if traffic.base(r as u16).next().is_some() {
                body.pose = moved;
                assert!(traffic.reached(r as u16, next));
                if body.goal == Some(next) {
                    outcome.tasks += 1;
                    log.finished.push((step + 1, r, next));
                    body.goal = None;
                }
            }
        }
        outcome.collisions += collisions(&instance.grid, play.turning, &before, &states(&bodies));
        log.states.push(before);
    }
    outcome.memory = arena.bytes() + tables.bytes();
    (outcome, log)
}

/// A quarter turn nearer to a pose of the same place.
fn turned(roads: &Roads<'_>, pose: Pose, wanted: Pose) -> Pose {
    let (right, left) = (roads.after(pose, 1), roads.after(pose, 2));
    match () {
        () if roads.place(wanted) != roads.place(pose) || wanted == pose => pose,
        () if left == wanted => left,
        () => right,
    }
}

/// One action nearer to the next place: forward if it is ahead, else the shorter turn.
fn towards(roads: &Roads<'_>, pose: Pose, next: Place) -> Pose {
    let leads = |pose: Pose| (0..4).map(|way| roads.after(pose, way)).find(|p| roads.place(*p) == next);
    if let Some(forward) = leads(pose) {
        return forward;
    }
    let (right, left) = (roads.after(pose, 1), roads.after(pose, 2));
    if leads(left).is_some() { left } else { right }
}
