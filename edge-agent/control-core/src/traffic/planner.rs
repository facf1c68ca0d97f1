//! The planner at the frontier: one step of many vehicles at once (Enhanced PIBT, arXiv 2511.09193; PIBT: Okumura et al.,
//! Artificial Intelligence 310, 2022).
//!
//! ```text
//!   prepare   every vehicle: what is left of its last operation is what it has; what it could do instead, best first
//!   order     by rank, then the one nearest to its goal first
//!   solve     each vehicle in turn takes the best operation that meets nobody, or one vehicle that comes later in the order;
//!             that one is pushed: it looks for an operation of its own, and may push another; whoever insists and
//!             does not get nearer all the same has those before it make way ([`make_way`])
//!   improve   as long as there is time: somebody takes another operation, if the floor as a whole gains
//!   commit    all frontiers move one step
//! ```
//!
//! **Why it is always safe.** What is left of the operations of the last step meets nobody. A vehicle changes its operation only
//! for one that meets nobody, so after each change, and whenever the work is broken off, all operations together are valid.
//!
//! **How much it does.** A check looks whether one operation meets anybody. There are at most [`CHECKS_PER_CHAIN`] for each
//! vehicle's turn, and as many as the caller grants in one call; what is not decided keeps its old operation.

mod make_way;

use super::pool::{DEPTH, OPERATIONS_MAX, Pool, STAY};
use super::roads::{FAR, Goal, NO_GOAL, NO_POSE, OPEN, Place, Pose, Region, Roads};
use super::tracks::{Meets, NOBODY, Track, Tracks};
use crate::storage::{Storage, at, put};

/// A vehicle may be pushed this often in one step.
const REVISITS: u8 = 10;
/// Checks for one chain of pushes. The longest seen on a floor of 819 places with 800 vehicles were 6,000.
pub const CHECKS_PER_CHAIN: u32 = 20_000;
/// The part of a priority that is the distance left.
const DISTANCE: u32 = 0x00FF_FFFF;
/// What preparing one vehicle costs, in checks.
const PREPARE_CHECKS: u64 = 8;
/// Regions a vehicle may hold a pass for at once.
pub const PASSES: usize = 2;

/// An operation a vehicle could choose.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    track: Track,
    operation: u8,
    /// Distance left after it.
    left: u16,
}

/// A vehicle on the stack of pushes.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    vehicle: u16,
    choice: u8,
    old: Choice,
}

/// What the caller says of a vehicle before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Where it wants to go; [`NO_GOAL`] when it only has to make way.
    pub goal: Goal,
    /// It takes no new operation in this step. What is left of its old one it still does.
    pub frozen: bool,
    /// Smaller comes first; vehicles of equal rank by distance.
    pub rank: u8,
    /// Those in front of it make way, if it does not get nearer otherwise.
    pub insists: bool,
    /// It keeps this far from its goal, because somebody else is there.
    pub keep_off: u16,
    /// Regions it may enter.
    pub passes: [Region; PASSES],
}

impl Default for Wish {
    fn default() -> Self {
        Wish { goal: NO_GOAL, frozen: false, rank: 0, insists: false, keep_off: 0, passes: [OPEN; PASSES] }
    }
}

/// Where the work on a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prepare(u16),
    Solve(u16),
    Done,
}

/// How a chain of pushes is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    /// Whoever comes first in the order has its way; it may push those of a greater priority number.
    Order { above: u32 },
    /// Only what helps the floor as a whole.
    Gain,
}

/// The planner. Its tables are those of a number of vehicles on a number of places.
#[derive(Debug)]
pub struct Planner<'m> {
    pool: &'static Pool,
    paper: bool,
    phase: Phase,
    stamp: u32,
    checks: u64,
    pose: &'m mut [Pose],
    wish: &'m mut [Wish],
    /// What each does at present.
    now: &'m mut [Choice],
    choices: &'m mut [[Choice; OPERATIONS_MAX]],
    choice_count: &'m mut [u8],
    priority: &'m mut [u32],
    order: &'m mut [u16],
    /// How much a vehicle's distance counts for the floor as a whole.
    weight: &'m mut [u32],
    /// The step in which it was last looked at, and how often then.
    visited: &'m mut [(u32, u8)],
    /// The step in which its operation was last settled.
    settled: &'m mut [u32],
    stack: &'m mut [Frame],
    /// Places that nobody enters: a plan made elsewhere uses them.
    closed: &'m mut [bool],
    tracks: Tracks<'m>,
}

impl<'m> Planner<'m> {
    /// A planner for so many vehicles and places; no vehicle is anywhere yet. On `paper` a vehicle may come to a place
    /// in the step in which another leaves it, all in a circle too, and pass over its goal; real ones come when the place is
    /// free, and stop at their goals.
    pub fn new(
        storage: &impl Storage<'m>,
        pool: &'static Pool,
        vehicles: usize,
        places: usize,
        paper: bool,
    ) -> Planner<'m> {
        let vehicles = vehicles.min(usize::from(NOBODY));
        Planner {
            pool,
            paper,
            phase: Phase::Done,
            stamp: 0,
            checks: 0,
            pose: storage.slice(vehicles, NO_POSE),
            wish: storage.slice(vehicles, Wish::default()),
            now: storage.slice(vehicles, Choice::default()),
            choices: storage.slice(vehicles, [Choice::default(); OPERATIONS_MAX]),
            choice_count: storage.slice(vehicles, 0),
            priority: storage.slice(vehicles, 0),
            order: storage.slice(vehicles, 0),
            weight: storage.slice(vehicles, 0),
            visited: storage.slice(vehicles, (0, 0)),
            settled: storage.slice(vehicles, 0),
            stack: storage.slice(vehicles, Frame::default()),
            closed: storage.slice(places, false),
            tracks: Tracks::new(storage, vehicles, places, pool.depth, paper),
        }
    }

    /// Number of vehicles.
    pub fn vehicles(&self) -> usize {
        self.pose.len()
    }

    /// The frontier of a vehicle, or [`NO_POSE`].
    pub fn pose(&self, vehicle: u16) -> Pose {
        self.pose.get(usize::from(vehicle)).copied().unwrap_or(NO_POSE)
    }

    /// Checks made since the start.
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// Who stands at a place at the frontier.
    pub fn occupant(&self, place: Place) -> Option<u16> {
        self.tracks.occupant(place)
    }

    /// Closes a place to everybody's next operations, or opens it again.
    pub fn close(&mut self, place: Place, closed: bool) {
        put(self.closed, usize::from(place), closed);
    }

    /// Whether a place is closed.
    pub fn is_closed(&self, place: Place) -> bool {
        at(self.closed, usize::from(place))
    }

    /// Places at which a vehicle is and will be in the next steps.
    pub(crate) fn track(&self, vehicle: u16) -> Track {
        at(self.now, usize::from(vehicle)).track
    }

    /// Whether a step has been begun and not been committed.
    pub fn in_step(&self) -> bool {
        self.phase != Phase::Done
    }

    /// Forgets a step that was begun. What was decided so far is valid, and is what vehicles have.
    pub fn abandon(&mut self) {
        self.phase = Phase::Done;
    }

    /// Takes all operations back: every vehicle stays where its frontier is, and a step that was begun is forgotten.
    pub fn halt(&mut self, roads: &Roads<'_>) {
        for v in 0..self.vehicles() {
            self.tracks.remove(v as u16);
            let place = roads.place(at_pose(self.pose, v));
            put(self.now, v, Choice { track: [place; DEPTH + 1], ..Choice::default() });
        }
        for v in (0..self.vehicles()).filter(|v| at_pose(self.pose, *v) != NO_POSE) {
            self.tracks.enter(v as u16, &at(self.now, v).track);
        }
        self.phase = Phase::Done;
    }

    /// Puts a vehicle onto the floor or elsewhere, or takes it away with [`NO_POSE`]. Its operation is to stay. Only between
    /// steps; refused when another is at the place, or has claimed it for its next steps.
    pub fn set_pose(&mut self, roads: &Roads<'_>, vehicle: u16, pose: Pose) -> bool {
        let v = usize::from(vehicle);
        if v >= self.vehicles() || self.in_step() {
            return false;
        }
        let place = roads.place(pose);
        if pose != NO_POSE && !self.tracks.is_free(place, vehicle) {
            return false;
        }
        self.tracks.remove(vehicle);
        let track = [place; DEPTH + 1];
        put(self.pose, v, pose);
        put(self.now, v, Choice { track, ..Choice::default() });
        if pose != NO_POSE {
            self.tracks.enter(vehicle, &track);
        }
        true
    }

    /// Begins a step. `wish` is asked once for each vehicle, with the pose of its frontier.
    pub fn begin(&mut self, mut wish: impl FnMut(u16, Pose) -> Wish) {
        for ((n, slot), pose) in (0u16..).zip(self.wish.iter_mut()).zip(self.pose.iter()) {
            *slot = wish(n, *pose);
        }
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.phase = Phase::Prepare(0);
    }

    /// Works on the step until it is decided or `grant` checks are spent. Returns whether it is decided. Preparing a vehicle
    /// counts as eight checks.
    pub fn work(&mut self, roads: &Roads<'_>, grant: u32) -> bool {
        let end = self.checks + u64::from(grant);
        while self.checks < end {
            match self.phase {
                Phase::Prepare(n) if usize::from(n) < self.vehicles() => {
                    self.prepare(roads, n);
                    self.checks += PREPARE_CHECKS;
                    self.phase = Phase::Prepare(n + 1);
                }
                Phase::Prepare(_) => {
                    self.put_in_order();
                    self.phase = Phase::Solve(0);
                }
                Phase::Solve(n) if usize::from(n) < self.vehicles() => {
                    let vehicle = at(self.order, usize::from(n));
                    let v = usize::from(vehicle);
                    if at(self.visited, v).0 != self.stamp {
                        let end = self.checks + u64::from(CHECKS_PER_CHAIN);
                        self.solve(roads, vehicle, Judge::Order { above: at(self.priority, v) }, end);
                        if at(self.wish, v).insists {
                            self.make_way(roads, vehicle, end);
                        }
                    }
                    self.phase = Phase::Solve(n + 1);
                }
                Phase::Solve(_) => self.phase = Phase::Done,
                Phase::Done => return true,
            }
        }
        self.phase == Phase::Done
    }

    /// Tries other operations until `grant` checks are spent, each time for a vehicle that `next` draws below the number of
    /// vehicles; what helps the floor as a whole is kept. After [`Planner::work`] has decided, before the commit.
    pub fn improve(&mut self, roads: &Roads<'_>, grant: u32, mut next: impl FnMut(u16) -> u16) {
        let end = self.checks + u64::from(grant);
        let count = self.vehicles() as u16;
        while self.checks < end && count > 0 {
            self.stamp = self.stamp.wrapping_add(1).max(1);
            self.checks += 1;
            self.solve(roads, next(count), Judge::Gain, self.checks + u64::from(CHECKS_PER_CHAIN));
        }
    }

    /// Moves all frontiers one step on. `moved` is told each vehicle that goes to another pose: from which, to which.
    pub fn commit(&mut self, roads: &Roads<'_>, mut moved: impl FnMut(u16, Pose, Pose)) {
        for v in 0..self.vehicles() {
            let (vehicle, pose) = (v as u16, at_pose(self.pose, v));
            if pose == NO_POSE {
                continue;
            }
            self.tracks.remove(vehicle);
            let choice = at(self.now, v);
            let way = self.pool.first_way(choice.operation);
            let next = if way == STAY { pose } else { roads.after(pose, usize::from(way)) };
            let mut track = choice.track;
            track.rotate_left(1);
            track[DEPTH] = track[DEPTH - 1];
            if self.pool.depth == 1 {
                track = [roads.place(next); DEPTH + 1];
            }
            let operation = self.pool.rest_of(choice.operation);
            put(self.now, v, Choice { track, operation, left: choice.left });
            put(self.pose, v, next);
            if next != pose {
                moved(vehicle, pose, next);
            }
        }
        for v in (0..self.vehicles()).filter(|v| at_pose(self.pose, *v) != NO_POSE) {
            self.tracks.enter(v as u16, &at(self.now, v).track);
        }
        self.phase = Phase::Done;
    }

    /// Notes what a vehicle could do, best first.
    fn prepare(&mut self, roads: &Roads<'_>, vehicle: u16) {
        let v = usize::from(vehicle);
        let (pose, wish, pool) = (at_pose(self.pose, v), at(self.wish, v), self.pool);
        put(self.choice_count, v, 0);
        put(self.priority, v, u32::MAX);
        if pose == NO_POSE {
            return;
        }
        let distances = roads.distances(wish.goal);
        let far = |pose: Pose| match distances.get(pose as usize).copied() {
            None => 0,
            Some(FAR) => FAR,
            Some(d) => d.abs_diff(wish.keep_off),
        };
        let here = far(pose);
        put(self.priority, v, (u32::from(wish.rank) << 24) | u32::from(here));
        let poses = pool.follow(roads, pose);
        let along = |op: usize| pool.steps_of(op).map(|s| at_pose(&poses, usize::from(s)));

        let held = at(self.now, v).operation;
        if let Some(now) = self.now.get_mut(v) {
            now.left = far(at_pose(&along(usize::from(held)), pool.depth - 1));
        }
        if wish.frozen {
            return;
        }
        let home = roads.region(roads.place(pose));
        let allowed = |place: Place| {
            let region = roads.region(place);
            if at(self.closed, usize::from(place)) {
                return false;
            }
            region == OPEN || region == home || wish.passes.contains(&region)
        };
        // The key: distance left, then the later in the pool the better. Who is where it wants to be stays, or moves little.
        let mut keys = [u32::MAX; OPERATIONS_MAX];
        let mut count = 0usize;
        let first = usize::from(here > 0);
        for op in first..pool.count {
            let path = along(op);
            let last = at_pose(&path, pool.depth - 1);
            if last == NO_POSE {
                continue;
            }
            let steps = || path.iter().take(pool.depth);
            if !steps().all(|p| allowed(roads.place(*p))) {
                continue;
            }
            let left = u32::from(far(last));
            let (distance, tie) = match steps().position(|p| far(*p) == 0) {
                // Real vehicles have something to do at their goal: they do not go on.
                Some(step) if here > 0 && (self.paper || left == 0) => (step as u32, OPERATIONS_MAX - op),
                _ if here > 0 => (left.saturating_add(DEPTH as u32), OPERATIONS_MAX - op),
                _ => (left, steps().filter(|p| **p != pose).count()),
            };
            if left >= u32::from(FAR) {
                continue;
            }
            let key = (distance << 16) | ((tie as u32) << 8) | op as u32;
            insert_sorted(&mut keys, count, key);
            count += 1;
        }
        let place = roads.place(pose);
        let Some(choices) = self.choices.get_mut(v) else { return };
        for (slot, key) in choices.iter_mut().zip(keys.iter().take(count)) {
            let op = (*key & 0xFF) as usize;
            let path = along(op);
            let mut track = [place; DEPTH + 1];
            for (to, pose) in track.iter_mut().skip(1).zip(path) {
                *to = roads.place(pose);
            }
            *slot = Choice { track, operation: op as u8, left: far(at_pose(&path, pool.depth - 1)) };
        }
        put(self.choice_count, v, count as u8);
    }

    fn put_in_order(&mut self) {
        for (n, slot) in (0u16..).zip(self.order.iter_mut()) {
            *slot = n;
        }
        let priority = &*self.priority;
        self.order.sort_unstable_by_key(|v| (at(priority, usize::from(*v)), *v));
        // The first counts 1024 times, the last hardly at all, falling with the square.
        let count = self.order.len() as u64 + 1;
        for (n, vehicle) in (0u64..).zip(self.order.iter()) {
            let share = (count - n) * 1024 / count;
            put(self.weight, usize::from(*vehicle), (share * share / 1024) as u32);
        }
    }

    /// One vehicle's turn, with the chain of those it pushes, until so many checks have been made.
    fn solve(&mut self, roads: &Roads<'_>, first: u16, judge: Judge, end: u64) {
        if at(self.choice_count, usize::from(first)) == 0 {
            return;
        }
        self.tracks.withdraw(first, &at(self.now, usize::from(first)).track);
        self.push(0, first);
        let mut gain = 0i64;
        let mut depth = 1usize;
        while let Some(frame) = depth.checked_sub(1).and_then(|d| self.stack.get(d)).copied() {
            let v = usize::from(frame.vehicle);
            if frame.choice >= at(self.choice_count, v) {
                // Nothing fits: it keeps what it had, and whoever pushed it looks further.
                depth -= 1;
                gain -= self.take_back(depth);
                self.give_back(&frame);
                continue;
            }
            let choice = self.choices.get(v).map_or(frame.old, |c| at(c, usize::from(frame.choice)));
            if let Some(slot) = self.stack.get_mut(depth - 1) {
                slot.choice += 1;
            }
            self.checks += 1;
            match self.tracks.meets(roads, frame.vehicle, &choice.track) {
                Meets::Nobody => {
                    gain += self.gain_of(&frame, &choice);
                    if judge == Judge::Gain && gain < 0 {
                        return self.unwind(depth);
                    }
                    put(self.now, v, choice);
                    self.tracks.propose(frame.vehicle, &choice.track);
                    return;
                }
                Meets::One(other) if self.may_push(other, judge) => {
                    self.tracks.withdraw(other, &at(self.now, usize::from(other)).track);
                    gain += self.gain_of(&frame, &choice);
                    put(self.now, v, choice);
                    self.tracks.propose(frame.vehicle, &choice.track);
                    self.push(depth, other);
                    depth += 1;
                }
                _ => {}
            }
            if self.checks >= end {
                return self.unwind(depth);
            }
        }
    }

    /// What the floor gains when a vehicle does this instead of what it had.
    fn gain_of(&self, frame: &Frame, choice: &Choice) -> i64 {
        let weight = i64::from(at(self.weight, usize::from(frame.vehicle)));
        (i64::from(frame.old.left) - i64::from(choice.left)) * weight
    }

    /// Puts a vehicle onto the stack.
    fn push(&mut self, depth: usize, vehicle: u16) {
        let v = usize::from(vehicle);
        let (stamp, count) = at(self.visited, v);
        put(self.visited, v, (self.stamp, if stamp == self.stamp { count.saturating_add(1) } else { 1 }));
        put(self.settled, v, self.stamp);
        put(self.stack, depth, Frame { vehicle, choice: 0, old: at(self.now, v) });
    }

    /// The vehicle that is now at the top of the stack takes its own try back. Returns what the try had gained.
    fn take_back(&mut self, depth: usize) -> i64 {
        let Some(frame) = depth.checked_sub(1).and_then(|d| self.stack.get(d)).copied() else { return 0 };
        let tried = at(self.now, usize::from(frame.vehicle));
        self.tracks.withdraw(frame.vehicle, &tried.track);
        self.gain_of(&frame, &tried)
    }

    /// Everybody on the stack goes back to what it had.
    fn unwind(&mut self, mut depth: usize) {
        while let Some(frame) = depth.checked_sub(1).and_then(|d| self.stack.get(d)).copied() {
            depth -= 1;
            self.take_back(depth);
            self.give_back(&frame);
        }
    }

    /// A vehicle has what it had before, and may be pushed again.
    fn give_back(&mut self, frame: &Frame) {
        let v = usize::from(frame.vehicle);
        put(self.now, v, frame.old);
        put(self.settled, v, 0);
        self.tracks.propose(frame.vehicle, &frame.old.track);
    }

    fn may_push(&self, other: u16, judge: Judge) -> bool {
        let o = usize::from(other);
        let (stamp, count) = at(self.visited, o);
        at(self.settled, o) != self.stamp
            && !(stamp == self.stamp && count >= REVISITS)
            && at(self.choice_count, o) > 0
            && match judge {
                Judge::Order { above } => at(self.priority, o) > above,
                Judge::Gain => true,
            }
    }
}

/// A pose of a table; beyond its end none.
fn at_pose(table: &[Pose], index: usize) -> Pose {
    table.get(index).copied().unwrap_or(NO_POSE)
}

/// Puts a key among the first `count`, which are sorted.
fn insert_sorted(keys: &mut [u32; OPERATIONS_MAX], count: usize, key: u32) {
    let place = keys.iter().take(count).position(|k| *k > key).unwrap_or(count);
    if count < keys.len() && place <= count {
        keys.copy_within(place..count, place + 1);
        put(keys, place, key);
    }
}
