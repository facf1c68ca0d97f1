//! The lock-step planner alone: after each plan every robot has made its move, and may come to a place in the step in which another leaves
//! it. That is the rule of the published figures; it is not how real robots drive, nor how the product moves them.

use crate::checker::{State, collisions};
use crate::counting::counted;
use crate::instance::Instance;
use crate::{Outcome, Play};
use control_core::traffic::planner::{Planner, Wish};
use control_core::traffic::pool::{GOING, TURNING};
use control_core::traffic::roads::{NO_POSE, Place, Pose, Roads};
use floor_plan::planviz::{Finished, Run};
use floor_plan::{Arena, RoadTables};
use std::collections::VecDeque;
use std::time::Instant;

/// What happened, for PlanViz.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) states: Vec<Vec<State>>,
    /// Step, robot, where.
    pub(crate) finished: Vec<(usize, usize, Place)>,
}

/// Where a robot is, as the checker wants it.
pub(crate) fn state(instance: &Instance, roads: &Roads<'_>, turning: bool, pose: Pose) -> State {
    let (row, column) = *instance.cell_of.get(usize::from(roads.place(pose)))?;
    Some((row, column, if turning { (pose % 4) as u8 } else { 0 }))
}

/// Plays it.
pub(crate) fn play(instance: &Instance, tables: &RoadTables, play: Play) -> (Outcome, Log) {
    let (roads, arena, robots) = (tables.view(), Arena::new(), instance.starts.len());
    let pool = if play.turning { &TURNING } else { &GOING };
    let mut planner = Planner::new(&&arena, pool, robots, tables.places, true);
    let mut floor = Floor {
        goal: vec![None; robots],
        given: vec![0; robots],
        beside: instance.starts.iter().map(|p| tables.poses_of(*p).start).collect(),
        outside: (0..robots).collect(),
        cap: play.zone_cap.unwrap_or(robots),
    };
    let mut outcome = Outcome { robots, steps: play.steps, ..Outcome::default() };
    let mut log = Log::default();
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    let mut draw = move |count: u16| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (((seed >> 32) * u64::from(count)) >> 32) as u16
    };
    for step in 0..play.steps {
        floor.let_in(&mut planner, &roads);
        for robot in 0..robots {
            let here = roads.place(planner.pose(robot as u16));
            while floor.goal[robot].is_none_or(|g| g == here && planner.pose(robot as u16) != NO_POSE) {
                floor.goal[robot] = Some(instance.task(robot, floor.given[robot]));
                floor.given[robot] += 1;
            }
        }
        let states = |planner: &Planner<'_>| -> Vec<State> {
            (0..robots as u16).map(|v| state(instance, &roads, play.turning, planner.pose(v))).collect()
        };
        let before = states(&planner);
        let goals = &floor.goal;
        let begin = Instant::now();
        let ((), allocations) = counted(|| {
            planner.begin(|v, _| Wish {
                goal: goals[usize::from(v)].map_or(u16::MAX, |p| instance.goal(p)),
                ..Wish::default()
            });
            while !planner.work(&roads, u32::MAX) {}
            planner.improve(&roads, play.improve, &mut draw);
            planner.commit(&roads, |_, _, _| {});
        });
        outcome.times.push(begin.elapsed());
        outcome.allocations += allocations;
        let after = states(&planner);
        outcome.collisions += collisions(&instance.grid, play.turning, &before, &after);
        log.states.push(before);
        for robot in 0..robots {
            let place = roads.place(planner.pose(robot as u16));
            if floor.goal[robot] == Some(place) {
                outcome.tasks += 1;
                log.finished.push((step + 1, robot, place));
                floor.goal[robot] = None;
                floor.make_room(&mut planner, &roads, robot);
            }
        }
    }
    outcome.memory = arena.bytes() + tables.bytes();
    (outcome, log)
}

/// Who is on the floor.
struct Floor {
    goal: Vec<Option<Place>>,
    given: Vec<usize>,
    /// Where each would come in.
    beside: Vec<Pose>,
    outside: VecDeque<usize>,
    cap: usize,
}

impl Floor {
    /// Those that wait come in, in order, as far as there is room; one whose cell is taken waits on.
    fn let_in(&mut self, planner: &mut Planner<'_>, roads: &Roads<'_>) {
        let inside = self.beside.len() - self.outside.len();
        for _ in inside..self.cap {
            let free = self.outside.iter().position(|r| planner.set_pose(roads, *r as u16, self.beside[*r]));
            let Some(n) = free else { return };
            self.outside.remove(n);
        }
    }

    /// A robot that has reached its goal goes beside the floor, if somebody waits there.
    fn make_room(&mut self, planner: &mut Planner<'_>, roads: &Roads<'_>, robot: usize) {
        if self.outside.is_empty() || self.cap >= self.beside.len() {
            return;
        }
        self.beside[robot] = planner.pose(robot as u16);
        planner.set_pose(roads, robot as u16, NO_POSE);
        self.outside.push_back(robot);
    }
}

impl Log {
    /// What PlanViz of the League of Robot Runners shows.
    pub(crate) fn planviz(&self, instance: &Instance) -> Run {
        let cell = |place: &Place| instance.cell_of[usize::from(*place)];
        let start = |place: &Place| (cell(place).0, cell(place).1, 0);
        let starts: Vec<_> = instance.starts.iter().map(start).collect();
        let done =
            |(step, robot, place): &(usize, usize, Place)| Finished { step: *step, robot: *robot, cell: cell(place) };
        let finished: Vec<_> = self.finished.iter().map(done).collect();
        Run::new(&starts, &self.states, &finished, true)
    }
}
