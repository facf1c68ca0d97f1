//! One aisle, event by event. Times in milliseconds.
//!
//! ```text
//!   request ──> tier's list ──shuttle──> out buffer (first in, first out) ──lift──> foot
//!                                         in buffer <──lift── foot (dual command)
//! ```

use crate::model::{Drive, Order, Setting};
use control_core::rack::{choose, tier};
use std::collections::VecDeque;

/// How lifts and shuttles choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// As the core does.
    Core,
    /// In the order in which loads were asked for.
    FirstCome,
}

/// Whether something comes in on each trip, and to which tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    None,
    RandomTier,
    ChosenTier,
}

/// A load that is to leave.
#[derive(Clone, Copy, Debug)]
struct Request {
    number: u64,
    asked_ms: u64,
    column: usize,
    /// Something stands before it.
    blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Idle,
    /// Brings a load to the buffer.
    Retrieve(u64),
    /// Puts a load that came in.
    Store,
    /// Rides the lift.
    Riding,
}

#[derive(Clone, Copy, Debug)]
struct Shuttle {
    tier: usize,
    at_mm: u32,
    doing: Doing,
    /// What it did last was to store.
    stored: bool,
    until: u64,
    busy: u64,
}

#[derive(Clone, Debug, Default)]
struct Tier {
    requests: VecDeque<Request>,
    /// Loads in the out buffer with their number and when they were asked for; places that are promised.
    out: VecDeque<(u64, u64)>,
    out_promised: usize,
    in_waiting: usize,
    in_promised: usize,
    shuttle: Option<usize>,
    /// A shuttle is on its way to this tier.
    awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lift {
    Free,
    /// Takes a load out of this tier's buffer at the end.
    Taking(usize),
    /// Puts a load into this tier's buffer at the end.
    Putting(usize),
    /// Comes down with a load that was asked for then; done at the end.
    Bringing(u64, u64),
    /// Moves a shuttle to this tier.
    Ferrying(usize, usize),
    /// Waits at a tier for something to take.
    WaitingAbove,
    /// Comes down with nothing.
    Returning,
}

#[derive(Clone, Copy, Debug)]
struct Car {
    state: Lift,
    at_mm: u32,
    until: u64,
    busy: u64,
    foot_mm: u32,
}

/// The aisle.
pub(crate) struct Rack {
    setting: Setting,
    rule: Rule,
    storage: Storage,
    lift: Drive,
    shuttle: Drive,
    rng: fastrand::Rng,
    now: u64,
    tiers: Vec<Tier>,
    shuttles: Vec<Shuttle>,
    cars: Vec<Car>,
    next_number: u64,
    outstanding: usize,
    next_out: u64,
    group_left: u64,
    /// Loads brought to the foot.
    pub(crate) brought: u64,
    /// Loads put into bays.
    pub(crate) stored: u64,
    pub(crate) relocations: u64,
    pub(crate) changes: u64,
    /// Seconds from request to foot.
    pub(crate) took_s: Vec<f32>,
    keep_times: bool,
    last_brought: u64,
    taken_in: u64,
}

/// Without a load brought for so long, a rack with work to do counts as stuck, however much moves: ten hours.
const STUCK_AFTER_MS: u64 = 36_000_000;

impl Rack {
    pub(crate) fn new(setting: &Setting, rule: Rule, storage: Storage, seed: u64, keep_times: bool) -> Rack {
        let count = setting.shuttles();
        let mut tiers = vec![Tier::default(); setting.tiers];
        let mut shuttles = Vec::new();
        for n in 0..count {
            let tier = n * setting.tiers / count;
            tiers[tier].shuttle = Some(n);
            shuttles.push(Shuttle { tier, at_mm: 0, doing: Doing::Idle, stored: false, until: 0, busy: 0 });
        }
        let cars = (0..setting.lifts)
            .map(|n| {
                let foot_mm = n as u32 * 1000;
                Car { state: Lift::Free, at_mm: foot_mm, until: 0, busy: 0, foot_mm }
            })
            .collect();
        Rack {
            setting: *setting,
            rule,
            storage,
            lift: setting.lift(),
            shuttle: setting.shuttle(),
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            tiers,
            shuttles,
            cars,
            next_number: 0,
            outstanding: 0,
            next_out: 0,
            group_left: match setting.order {
                Order::Groups(size) => size,
                _ => 0,
            },
            brought: 0,
            stored: 0,
            relocations: 0,
            changes: 0,
            took_s: Vec::new(),
            keep_times,
            last_brought: 0,
            taken_in: 0,
        }
    }

    pub(crate) fn now_s(&self) -> f64 {
        self.now as f64 / 1000.0
    }

    /// Share of the time that lifts and shuttles were busy.
    pub(crate) fn utilisation(&self) -> (f64, f64) {
        let share = |busy: u64, count: usize| busy as f64 / (self.now.max(1) as f64 * count as f64);
        (
            share(self.cars.iter().map(|c| c.busy).sum(), self.cars.len()),
            share(self.shuttles.iter().map(|s| s.busy).sum(), self.shuttles.len()),
        )
    }

    /// Asks for a load on a random tier.
    pub(crate) fn ask(&mut self) {
        let tier = self.rng.usize(0..self.setting.tiers);
        let column = self.rng.usize(0..self.setting.columns);
        // In a double-deep rack that is nearly full, half the loads stand behind another.
        let blocked = self.setting.depth == 2 && self.rng.bool();
        let request = Request { number: self.next_number, asked_ms: self.now, column, blocked };
        self.next_number += 1;
        self.outstanding += 1;
        self.tiers[tier].requests.push_back(request);
    }

    /// Runs while there is always more to do, until so many were brought. `false` when it is stuck.
    pub(crate) fn saturate(&mut self, loads: u64) -> bool {
        let backlog = match self.setting.order {
            Order::Free => self.setting.tiers * 10,
            Order::Strict | Order::Groups(_) => self.setting.look_ahead,
        };
        while self.brought < loads {
            while self.outstanding < backlog {
                self.ask();
            }
            self.decide();
            if !self.advance(u64::MAX) || self.now > self.last_brought + STUCK_AFTER_MS {
                return false;
            }
        }
        true
    }

    /// Runs with requests at random, so many an hour. `false` when it is stuck.
    pub(crate) fn at_random(&mut self, per_hour: f64, loads: u64) -> bool {
        let mut next = 0.0f64;
        while self.brought < loads {
            if self.now > self.last_brought + STUCK_AFTER_MS && self.outstanding > 100 {
                return false;
            }
            self.decide();
            if !self.advance(next as u64) && self.now < next as u64 {
                self.now = next as u64;
            }
            if self.now >= next as u64 {
                self.ask();
                next += -(1.0 - self.rng.f64()).ln() / per_hour * 3_600_000.0;
            }
        }
        true
    }

    /// On to the next event, not beyond `limit`. `false` when nothing is under way.
    fn advance(&mut self, limit: u64) -> bool {
        let busy = |s: &&Shuttle| !matches!(s.doing, Doing::Idle | Doing::Riding);
        let shuttles = self.shuttles.iter().filter(busy).map(|s| s.until);
        let moving = |c: &&Car| !matches!(c.state, Lift::Free | Lift::WaitingAbove);
        let cars = self.cars.iter().filter(moving).map(|c| c.until);
        let Some(next) = shuttles.chain(cars).min() else { return false };
        self.now = next.min(limit).max(self.now);
        if next > limit {
            return true;
        }
        for n in 0..self.shuttles.len() {
            if !matches!(self.shuttles[n].doing, Doing::Idle | Doing::Riding) && self.shuttles[n].until == next {
                self.shuttle_done(n);
            }
        }
        for n in 0..self.cars.len() {
            if !matches!(self.cars[n].state, Lift::Free | Lift::WaitingAbove) && self.cars[n].until == next {
                self.lift_done(n);
            }
        }
        true
    }

    fn decide(&mut self) {
        for n in 0..self.shuttles.len() {
            if self.shuttles[n].doing == Doing::Idle {
                self.give_shuttle_work(n);
            }
        }
        // The upper one first: the lower one follows it up.
        for n in (0..self.cars.len()).rev() {
            if matches!(self.cars[n].state, Lift::Free | Lift::WaitingAbove) {
                self.give_lift_work(n);
            }
        }
    }

    fn shuttle_done(&mut self, n: usize) {
        let shuttle = self.shuttles[n];
        let tier = &mut self.tiers[shuttle.tier];
        match shuttle.doing {
            Doing::Retrieve(number) => {
                let at = tier.requests.iter().position(|r| r.number == number);
                let Some(request) = at.and_then(|at| tier.requests.remove(at)) else { return };
                tier.out_promised -= 1;
                tier.out.push_back((number, request.asked_ms));
                self.shuttles[n].at_mm = 0;
            }
            Doing::Store => self.stored += 1,
            Doing::Idle | Doing::Riding => {}
        }
        self.shuttles[n].doing = Doing::Idle;
    }

    /// A shuttle puts away what has come in, and brings what is next: in the order of the sequence, or, where there is none, what
    /// is nearest of the oldest.
    fn give_shuttle_work(&mut self, n: usize) {
        let shuttle = self.shuttles[n];
        let room = {
            let tier = &self.tiers[shuttle.tier];
            tier.out.len() + tier.out_promised < self.setting.buffer
        };
        let tier = &self.tiers[shuttle.tier];
        // In and out by turns: neither waits for the other to end.
        let turn_out = shuttle.stored && room && !tier.requests.is_empty();
        if tier.in_waiting > 0 && !turn_out {
            let column = self.rng.usize(0..self.setting.columns);
            let to = self.setting.distance_mm(column);
            let time = self.shuttle.time(shuttle.at_mm, 0) + self.shuttle.time(0, to) + 2 * self.shuttle.handling_ms;
            let tier = &mut self.tiers[shuttle.tier];
            // The place in the buffer is free when the shuttle has taken the load; that is soon enough after this.
            tier.in_waiting -= 1;
            tier.in_promised -= 1;
            return self.start_shuttle(n, Doing::Store, to, time);
        }
        if !room {
            return;
        }
        let distance = |r: &Request| self.setting.distance_mm(r.column);
        let pick = match (self.rule, self.setting.order) {
            (Rule::Core, Order::Free) => {
                let candidates = tier.requests.iter().map(|r| choose::Candidate {
                    class: 0,
                    rank: r.number,
                    from_mm: distance(r),
                    to_mm: 0,
                });
                choose::choose(self.shuttle.axis, shuttle.at_mm, candidates)
            }
            _ => (!tier.requests.is_empty()).then_some(0),
        };
        let Some(request) = pick.and_then(|k| tier.requests.get(k)).copied() else { return };
        let from = self.setting.distance_mm(request.column);
        let mut time =
            self.shuttle.time(shuttle.at_mm, from) + self.shuttle.time(from, 0) + 2 * self.shuttle.handling_ms;
        if request.blocked {
            // What stands before it goes to a bay nearby that was reserved first, and the shuttle comes back.
            let beside = self.setting.distance_mm((request.column + self.rng.usize(1..4)) % self.setting.columns);
            time += 2 * self.shuttle.time(from, beside) + 2 * self.shuttle.handling_ms;
            self.relocations += 1;
        }
        self.tiers[shuttle.tier].out_promised += 1;
        self.start_shuttle(n, Doing::Retrieve(request.number), 0, time);
    }

    fn start_shuttle(&mut self, n: usize, doing: Doing, to: u32, time: u64) {
        let shuttle = &mut self.shuttles[n];
        (shuttle.doing, shuttle.at_mm, shuttle.until) = (doing, to, self.now + time);
        shuttle.stored = doing == Doing::Store;
        shuttle.busy += time;
    }

    fn lift_done(&mut self, n: usize) {
        let car = self.cars[n];
        match car.state {
            Lift::Taking(tier) => {
                let Some((number, asked)) = self.tiers[tier].out.pop_front() else { return };
                self.note_taken(number);
                let time = self.lift.time(car.at_mm, car.foot_mm) + self.lift.handling_ms;
                let start = self.free_below(n);
                self.start_lift(n, Lift::Bringing(number, asked), car.foot_mm, start, time);
            }
            Lift::Putting(tier) => {
                self.tiers[tier].in_waiting += 1;
                self.cars[n].state = Lift::WaitingAbove;
            }
            Lift::Bringing(_, asked) => {
                self.brought += 1;
                self.last_brought = self.now;
                self.outstanding -= 1;
                if self.keep_times {
                    self.took_s.push((self.now - asked) as f32 / 1000.0);
                }
                self.cars[n].state = Lift::Free;
            }
            Lift::Ferrying(shuttle, tier) => {
                let s = &mut self.shuttles[shuttle];
                (s.tier, s.at_mm, s.doing) = (tier, 0, Doing::Idle);
                self.tiers[tier].shuttle = Some(shuttle);
                self.tiers[tier].awaited = false;
                self.changes += 1;
                self.cars[n].state = Lift::Free;
            }
            Lift::Returning => self.cars[n].state = Lift::Free,
            Lift::Free | Lift::WaitingAbove => {}
        }
    }

    fn note_taken(&mut self, _number: u64) {
        self.next_out += 1;
        if let Order::Groups(size) = self.setting.order {
            self.group_left -= 1;
            if self.group_left == 0 {
                self.group_left = size;
            }
        }
    }

    /// Whether a load may leave now.
    fn may_leave(&self, number: u64) -> bool {
        match self.setting.order {
            _ if self.rule == Rule::FirstCome => number == self.next_out,
            Order::Free => true,
            Order::Strict => number == self.next_out,
            Order::Groups(size) => number / size == self.next_out / size,
        }
    }

    fn give_lift_work(&mut self, n: usize) {
        let car = self.cars[n];
        if self.storage != Storage::None && car.state == Lift::Free && self.bring_in(n) {
            return;
        }
        let claimed: Vec<usize> =
            self.cars.iter().filter_map(|c| if let Lift::Taking(tier) = c.state { Some(tier) } else { None }).collect();
        let ready = |t: &usize| {
            let head = self.tiers[*t].out.front();
            head.is_some_and(|(number, _)| self.may_leave(*number)) && !claimed.contains(t) && self.reachable(n, *t)
        };
        let tiers: Vec<usize> = (0..self.tiers.len()).filter(ready).collect();
        let candidates = tiers.iter().map(|t| choose::Candidate {
            class: 0,
            rank: self.tiers[*t].out.front().map_or(u64::MAX, |(number, _)| *number),
            from_mm: self.setting.height_mm(*t),
            to_mm: car.foot_mm,
        });
        let pick = match self.rule {
            Rule::Core => choose::choose(self.lift.axis, car.at_mm, candidates),
            Rule::FirstCome => candidates.enumerate().min_by_key(|(_, c)| c.rank).map(|(k, _)| k),
        };
        match pick.and_then(|k| tiers.get(k).copied()) {
            Some(tier) => {
                let height = self.setting.height_mm(tier);
                let time = self.lift.time(car.at_mm, height) + self.lift.handling_ms;
                let start = self.free_above(n, height);
                self.start_lift(n, Lift::Taking(tier), height, start, time);
            }
            // Of two on a mast none waits where it is in the other's way.
            None if car.state == Lift::WaitingAbove && (self.cars.len() > 1 || self.needs_ferry()) => {
                let time = self.lift.time(car.at_mm, car.foot_mm);
                let start = self.free_below(n);
                self.start_lift(n, Lift::Returning, car.foot_mm, start, time);
            }
            None if car.state == Lift::Free => self.ferry(n),
            None => {}
        }
    }

    fn start_lift(&mut self, n: usize, state: Lift, to: u32, start: u64, time: u64) {
        let car = &mut self.cars[n];
        (car.state, car.at_mm, car.until) = (state, to, start + time);
        car.busy += time;
    }

    /// Takes a load at the foot and brings it to a tier, if there is one with room.
    fn bring_in(&mut self, n: usize) -> bool {
        // One in for one out; a few ahead, so that no trip up is empty.
        if self.taken_in > self.brought + self.tiers.len() as u64 {
            return false;
        }
        let room = |t: &Tier| t.in_promised < self.setting.buffer;
        let tier = match self.storage {
            Storage::RandomTier => {
                let tier = self.rng.usize(0..self.tiers.len());
                room(&self.tiers[tier]).then_some(tier)
            }
            _ => tier::choose(self.tiers.iter().map(|t| tier::Tier {
                served: t.shuttle.is_some(),
                room: room(t),
                coming: t.in_promised as u16,
                waiting: t.out.front().filter(|(number, _)| self.may_leave(*number)).map(|(number, _)| *number),
                full: 0,
            }))
            .filter(|t| room(&self.tiers[*t])),
        };
        let Some(tier) = tier.filter(|t| self.reachable(n, *t)) else { return false };
        let (car, height) = (self.cars[n], self.setting.height_mm(tier));
        self.tiers[tier].in_promised += 1;
        self.taken_in += 1;
        let time = 2 * self.lift.handling_ms + self.lift.time(car.at_mm, height);
        let start = self.free_above(n, height);
        self.start_lift(n, Lift::Putting(tier), height, start, time);
        true
    }

    fn needs_ferry(&self) -> bool {
        self.tiers.iter().any(in_need)
    }

    /// Brings a shuttle to a tier that has none and has something to bring: the one with the oldest, and from where there is
    /// nothing left to do, so that a shuttle does all it can on a tier before it leaves.
    fn ferry(&mut self, n: usize) {
        if self.shuttles.len() == self.tiers.len() {
            return;
        }
        // What has come in takes up the buffer, so it counts as the oldest of all.
        let oldest = |t: &Tier| match t.in_waiting {
            0 => t.requests.front().map_or(u64::MAX, |r| r.number),
            _ => 0,
        };
        let need = |t: &Tier| if in_need(t) { oldest(t) } else { u64::MAX };
        let Some(to) = (0..self.tiers.len()).min_by_key(|t| need(&self.tiers[*t])) else { return };
        if need(&self.tiers[to]) == u64::MAX {
            return;
        }
        let in_order = self.setting.order != Order::Free || self.rule == Rule::FirstCome;
        let can_leave = |s: &Shuttle| {
            let tier = &self.tiers[s.tier];
            let full = tier.out.len() + tier.out_promised >= self.setting.buffer;
            let urgent = in_order && oldest(tier) > oldest(&self.tiers[to]);
            s.doing == Doing::Idle && tier.in_waiting == 0 && (tier.requests.is_empty() || urgent || full)
        };
        let idle = (0..self.shuttles.len()).filter(|k| can_leave(&self.shuttles[*k]));
        let height = |k: usize| self.setting.height_mm(self.shuttles[k].tier);
        let Some(shuttle) = idle.min_by_key(|k| height(*k).abs_diff(self.setting.height_mm(to))) else { return };
        let (car, from, goal) = (self.cars[n], height(shuttle), self.setting.height_mm(to));
        // The shuttle drives onto the lift and off again: as long as it takes or puts a load.
        let time = self.lift.time(car.at_mm, from)
            + self.lift.time(from, goal)
            + self.lift.time(goal, car.foot_mm)
            + 2 * self.shuttle.handling_ms;
        self.tiers[self.shuttles[shuttle].tier].shuttle = None;
        self.tiers[to].awaited = true;
        self.shuttles[shuttle].doing = Doing::Riding;
        self.start_lift(n, Lift::Ferrying(shuttle, to), car.foot_mm, self.now, time);
    }

    /// Whether a car can go to a tier at all: of two on a mast the lower one stays below the upper one's work.
    fn reachable(&self, n: usize, tier: usize) -> bool {
        let height = self.setting.height_mm(tier);
        match (self.cars.len(), n) {
            (1, _) => true,
            (_, 0) => self.cars[1].state == Lift::Free || height + GAP_MM <= self.cars[1].at_mm,
            _ => height >= self.cars[0].at_mm + GAP_MM,
        }
    }

    /// When a car may start up to a height: the lower one when the upper one has passed it.
    fn free_above(&self, n: usize, height: u32) -> u64 {
        if self.cars.len() == 1 || n == 1 {
            return self.now;
        }
        let upper = self.cars[1];
        match upper.state {
            Lift::Taking(_) | Lift::Putting(_) => {
                let passed = self.lift.time(upper.foot_mm, (height + GAP_MM).min(upper.at_mm));
                let started = upper.until - self.lift.handling_ms - self.lift.time(upper.foot_mm, upper.at_mm);
                self.now.max(started + passed.saturating_sub(self.lift.time(0, height)))
            }
            _ => self.now,
        }
    }

    /// When a car may start down to its foot: the upper one when the lower one is down.
    fn free_below(&self, n: usize) -> u64 {
        if self.cars.len() == 1 || n == 0 {
            return self.now;
        }
        let lower = self.cars[0];
        match lower.state {
            Lift::Free => self.now,
            // It has still to come down: as long as its way and a hold take.
            Lift::Taking(_) | Lift::Putting(_) => {
                lower.until + self.lift.time(lower.at_mm, 0)
                    - self.lift.time(0, 1_000).min(self.lift.time(lower.at_mm, 0))
            }
            _ => lower.until.saturating_sub(self.lift.handling_ms).max(self.now),
        }
    }
}

/// Whether a tier has something to do and no shuttle for it.
fn in_need(tier: &Tier) -> bool {
    tier.shuttle.is_none() && !tier.awaited && (!tier.requests.is_empty() || tier.in_waiting > 0)
}

/// Two cars on a mast keep this far apart.
const GAP_MM: u32 = 500;
