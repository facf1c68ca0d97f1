//! Which robot fetches which load.
//!
//! ```text
//!   legs that wait ── can anybody come? ──> the 64 most urgent ──> nearest robots to each, 64 in all ──> least travel together
//!                          └─ nobody: told
//! ```
//!
//! As long as no more robots are free than are matched at once, all of them are; beyond that, those nearest to the legs, whatever their
//! numbers. A leg that no free robot can reach takes no place among those that are matched.

use super::{Fleet, Robot};
use crate::assign::{self, NEVER};
use crate::cycle::Controller;
use crate::dispatch::{self, Candidate, Task};
use crate::event::Events;
use crate::floor::{Floor, MachineKind, Mover};
use crate::image::{CommandCode, InputImage};
use crate::limits::{AREAS_MAX, ASSIGN_MAX, NOBODY_COMES_MAX};
use crate::order::Order;
use crate::traffic::roads::FAR;
use crate::units::{MachineId, Millis, PosId};

/// Another assignment has to save a tenth and this much, in steps: nothing flaps.
const HYSTERESIS_STEPS: i64 = 3;
/// How much more the way to a load of each class weighs.
const CLASS_WEIGHT: [i64; 4] = [8, 3, 2, 1];

/// Robots that are matched.
type Robots = heapless::Vec<(MachineId, u16), ASSIGN_MAX>;
/// Legs that are matched, the most urgent first.
type Legs = heapless::Vec<Candidate, ASSIGN_MAX>;

/// What a robot is to those who match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Use {
    /// It cannot come at present.
    #[default]
    None,
    /// It can come when it has done what it is at.
    Later,
    /// It can come now.
    Free,
    /// It is among those that are matched.
    Matched,
}

/// Who can come for a leg.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A robot that is free.
    Somebody,
    /// One that is not free yet.
    Later,
    /// None of all there are.
    Nobody,
}

impl Fleet<'_> {
    /// Where loads wait to which no robot can come, as far as there is room for them.
    pub(crate) fn nobody_comes(&self) -> &[PosId] {
        &self.nobody_comes
    }

    fn in_use(&self, as_what: Use) -> impl Iterator<Item = (u16, &Robot)> {
        (0u16..).zip(self.robots.iter()).filter(move |(_, r)| r.in_use == as_what)
    }
}

impl Controller<'_> {
    /// Matches robots without a load with the legs that wait for one. At most [`ASSIGN_MAX`] legs with as many robots; besides, a look at
    /// every robot for each of these robots, and for each leg that no free robot can reach.
    pub(super) fn assign(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        self.find_free(floor, image);
        let mut legs = self.legs_that_wait(now, floor, image);
        let robots = self.choose_robots(floor, &legs);
        self.keep_to_caps(floor, &robots, &mut legs);
        legs.truncate(robots.len());
        let cost = |leg: usize, robot: usize| {
            let (Some(c), Some((id, vehicle))) = (legs.get(leg), robots.get(robot)) else { return NEVER };
            let steps = floor.roads().distance(floor.goal_of(c.task.source), self.traffic.frontier(*vehicle));
            if steps == FAR {
                return NEVER;
            }
            let unit = i64::from(floor.roads().unit());
            let held = self.machine(*id).task.is_some_and(|t| t.slot == c.task.slot);
            let way = if held { i64::from(steps) * 9 / 10 - HYSTERESIS_STEPS * unit } else { i64::from(steps) };
            way * CLASS_WEIGHT.get(usize::from(c.class)).copied().unwrap_or(1)
        };
        let found = assign::assign(legs.len(), robots.len(), cost);
        for ((id, _), n) in robots.iter().zip(0usize..) {
            let leg = found.iter().take(legs.len()).position(|r| *r == Some(n)).and_then(|k| legs.get(k));
            let Some(has) = self.machine(*id).task else { continue };
            let kept = leg.is_none() && !self.is_up_for_another(&has, &legs);
            if leg.map(|c| c.task.slot) != Some(has.slot) && !kept {
                self.end_task(floor, *id);
            }
        }
        for (c, robot) in legs.iter().zip(found) {
            let Some((id, vehicle)) = robot.and_then(|n| robots.get(n)).copied() else { continue };
            if self.machine(id).task.is_none() && self.stock.free_for(floor, c.task.target, c.task.load) {
                self.fleet.stop_charging(vehicle);
                self.start_task(now, floor, id, c.task, events);
            }
        }
    }

    /// Notes of each robot whether it can come for a leg. One whose battery is too low for anything but the way to a charger cannot.
    fn find_free(&mut self, floor: &Floor<'_>, image: &InputImage<'_>) {
        let [critical, _, enough, _] = self.settings.charge;
        let charges = !floor.tables().chargers.is_empty();
        for (id, vehicle, _) in floor.robots() {
            let (machine, status) = (self.machine(id), image.machine(id).value);
            let handling = machine.link.in_flight().is_some_and(|(c, _)| c.code != CommandCode::Drive);
            let robot = self.fleet.robot(vehicle);
            let here = self.traffic.is_present(vehicle) && robot.is_some_and(|r| r.stray.is_none());
            let charged = robot.is_some_and(|r| !r.charging || status.charge > enough);
            let empty = charges && status.charge < critical;
            let in_use = match () {
                () if !here || machine.hold.is_some() => Use::None,
                () if handling || status.load.is_some() || !charged || empty => Use::Later,
                () => Use::Free,
            };
            self.fleet.with(vehicle, |r| r.in_use = in_use);
        }
    }

    /// The most urgent legs that a robot could be put to, also those that one is on its way for. Notes where nobody can come.
    fn legs_that_wait(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>) -> Legs {
        let mut legs = Legs::new();
        let mut nobody: heapless::Vec<PosId, NOBODY_COMES_MAX> = heapless::Vec::new();
        for zone in floor.tables().robot_sources {
            let Some(info) = floor.zone(*zone) else { continue };
            let Some(slot) = self.stock.at(info.exit()).and_then(|l| self.slot_of(l)) else { continue };
            let Some(order) = self.orders.slot(slot) else { continue };
            if order.under_way {
                // A leg a robot is on its way for is up for another too.
                if let Some(task) = self.held_by_a_free_robot(floor, slot, order) {
                    let (class, urgency) = (order.effective_class(now), order.urgency(now));
                    insert(&mut legs, Candidate { by: Mover::Robots, task, class, urgency });
                }
                continue;
            }
            let Some(c) = dispatch::candidate(floor, &self.stock, slot, order, now) else { continue };
            if c.by != Mover::Robots || !self.may_set_out(now, floor, image, &c.task) {
                continue;
            }
            match self.who_can_come(floor, &c.task) {
                Who::Somebody => insert(&mut legs, c),
                Who::Later => {}
                Who::Nobody => {
                    let _ = nobody.push(info.exit()); // what does not fit is told when others are gone
                }
            }
        }
        self.fleet.nobody_comes = nobody;
        legs
    }

    /// Whether a leg is among those that are matched, or its load does not wait any more. One that is too many to be matched is kept by
    /// its robot, unless there is a more urgent one for it.
    fn is_up_for_another(&self, task: &Task, legs: &Legs) -> bool {
        legs.iter().any(|c| c.task.slot == task.slot) || self.stock.at(task.source) != Some(task.load)
    }

    /// The leg of an order, if a robot is on its way for it that could be put to another.
    fn held_by_a_free_robot(&self, floor: &Floor<'_>, slot: u16, order: &Order) -> Option<Task> {
        let id = order.carrier?;
        let MachineKind::Robot { vehicle, .. } = floor.machine(id)?.kind else { return None };
        let free = self.fleet.robot(vehicle).is_some_and(|r| r.in_use == Use::Free);
        self.machine(id).task.filter(|t| free && t.slot == slot)
    }

    /// Who can fetch a load and bring it where it goes. The first one found will do.
    fn who_can_come(&self, floor: &Floor<'_>, task: &Task) -> Who {
        let roads = floor.roads();
        let stop = floor.position(task.source).map(|p| p.place);
        if stop.is_none_or(|stop| roads.from_place(floor.goal_of(task.target), stop) == FAR) {
            return Who::Nobody;
        }
        let distances = roads.distances(floor.goal_of(task.source));
        let reaches = |vehicle: u16| {
            let steps = distances.get(self.traffic.frontier(vehicle) as usize);
            steps.is_some_and(|steps| *steps != FAR)
        };
        match () {
            () if self.fleet.in_use(Use::Free).any(|(v, _)| reaches(v)) => Who::Somebody,
            () if self.fleet.in_use(Use::Later).any(|(v, _)| reaches(v)) => Who::Later,
            () => Who::Nobody,
        }
    }

    /// The robots that are matched: all that are free; of more than fit those that are on their way for one of the legs, then for each leg
    /// the nearest, the most urgent leg first, and again. So many rounds as there are legs are enough: no leg needs a robot that is
    /// farther than that.
    fn choose_robots(&mut self, floor: &Floor<'_>, legs: &Legs) -> Robots {
        if self.fleet.in_use(Use::Free).count() <= ASSIGN_MAX {
            return self.fleet.in_use(Use::Free).map(|(vehicle, r)| (r.machine, vehicle)).collect();
        }
        let mut robots = Robots::new();
        for c in legs {
            let carrier = self.orders.slot(c.task.slot).filter(|o| o.under_way).and_then(|o| o.carrier);
            let vehicle = carrier.and_then(|id| match floor.machine(id)?.kind {
                MachineKind::Robot { vehicle, .. } => Some(vehicle),
                _ => None,
            });
            if let Some(vehicle) = vehicle {
                self.match_it(vehicle, &mut robots);
            }
        }
        for _ in 0..legs.len() {
            let before = robots.len();
            for c in legs.iter().take(ASSIGN_MAX.saturating_sub(before)) {
                let distances = floor.roads().distances(floor.goal_of(c.task.source));
                let steps = |v: u16| distances.get(self.traffic.frontier(v) as usize).copied().unwrap_or(FAR);
                let free = self.fleet.in_use(Use::Free).map(|(v, _)| (steps(v), v));
                if let Some((_, vehicle)) = free.min().filter(|(steps, _)| *steps != FAR) {
                    self.match_it(vehicle, &mut robots);
                }
            }
            if robots.len() == before {
                break;
            }
        }
        robots
    }

    fn match_it(&mut self, vehicle: u16, robots: &mut Robots) {
        if let Some(robot) = self.fleet.robot(vehicle)
            && robots.push((robot.machine, vehicle)).is_ok()
        {
            self.fleet.with(vehicle, |r| r.in_use = Use::Matched);
        }
    }

    /// Leaves out the legs that would bring more robots into an area than may have work there. Throughput falls where it is crowded:
    /// who waits outside is in nobody's way. A leg that is under way counts to its end, and can always be brought to it.
    fn keep_to_caps(&self, floor: &Floor<'_>, robots: &Robots, legs: &mut Legs) {
        let caps = floor.tables().area_caps;
        if caps.is_empty() {
            return;
        }
        let mut busy = Crowd([0; AREAS_MAX]);
        // Who has picked up, or is about to, is not matched anew; nor is a leg that is too many to be matched.
        let is_matched = |id: MachineId| robots.iter().any(|(r, _)| *r == id);
        for (id, ..) in floor.robots() {
            if let Some(task) = self.machine(id).task
                && !(is_matched(id) && self.is_up_for_another(&task, legs))
            {
                busy.add(floor, &task);
            }
        }
        let has_robot =
            |c: &Candidate| robots.iter().any(|(id, _)| self.machine(*id).task.is_some_and(|t| t.slot == c.task.slot));
        for c in legs.iter().filter(|c| has_robot(c)) {
            busy.add(floor, &c.task);
        }
        legs.retain(|c| has_robot(c) || busy.add_within(floor, &c.task, caps));
    }
}

/// How many robots have work in each area.
struct Crowd([u16; AREAS_MAX]);

impl Crowd {
    /// The areas a leg begins and ends in; one that does both counts once.
    fn areas(floor: &Floor<'_>, task: &Task) -> impl Iterator<Item = usize> + use<> {
        let (from, to) = (floor.area_of(task.source), floor.area_of(task.target));
        from.into_iter().chain(to.filter(|to| Some(*to) != from)).filter(|n| *n < AREAS_MAX)
    }

    fn add(&mut self, floor: &Floor<'_>, task: &Task) {
        for n in Crowd::areas(floor, task) {
            if let Some(count) = self.0.get_mut(n) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// Adds a leg if there is room for it everywhere.
    fn add_within(&mut self, floor: &Floor<'_>, task: &Task, caps: &[u16]) -> bool {
        let room = |n: usize| self.0.get(n) < caps.get(n);
        let fits = Crowd::areas(floor, task).all(room);
        if fits {
            self.add(floor, task);
        }
        fits
    }
}

/// Puts a leg among those that wait, the most urgent first; the least urgent falls off the end.
fn insert(legs: &mut Legs, leg: Candidate) {
    if legs.is_full() {
        let last = legs.last().is_some_and(|l| (l.class, l.urgency) > (leg.class, leg.urgency));
        if !last {
            return;
        }
        legs.pop();
    }
    let n = legs.iter().position(|l| (l.class, l.urgency) > (leg.class, leg.urgency)).unwrap_or(legs.len());
    let _ = legs.insert(n, leg);
}
