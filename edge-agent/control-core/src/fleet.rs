//! Mobile robots: which robot fetches which load, where it waits, when it charges, and how its authority grows.
//!
//! ```text
//!   legs that wait for a robot ─┐
//!   robots that are free,       ├─> assign (least travel, rush weighs more) ─> goal ─> traffic ─> base ─> DRIVE ─> PICK / PLACE
//!     or on their way to one ───┘        again until it has picked up
//! ```
//!
//! A robot that is silent keeps what was allocated to it: it may have driven to its end. Everybody else goes on around that. A
//! robot that shows up where it was not sent is taken off the roads and put there anew; nobody is sent there meanwhile.

use crate::assign::{self, NEVER};
use crate::command::Outcome;
use crate::cycle::Controller;
use crate::dispatch::{self, Candidate, Task};
use crate::event::{EventKind, Events, RunState};
use crate::floor::{Floor, Mover};
use crate::image::{Command, CommandCode, InputImage, MachineStatus, Path};
use crate::interlock::{self, Hold};
use crate::limits::{AREAS_MAX, ASSIGN_MAX, Capacity};
use crate::storage::Storage;
use crate::traffic::roads::{FAR, Goal, NO_GOAL, NO_POSE, Place};
use crate::units::{MachineId, Millis, PosId};

/// Robots and loads are matched this often, milliseconds.
const ASSIGN_EVERY_MS: u64 = 250;
/// Another assignment has to save a tenth and this much, in steps: nothing flaps.
const HYSTERESIS_STEPS: i64 = 3;
/// How much more the way to a load of each class weighs.
const CLASS_WEIGHT: [i64; 4] = [8, 3, 2, 1];
/// A robot whose drive was refused is told again after this, milliseconds.
const RETRY_MS: u64 = 300;

/// What is known of a robot besides what traffic knows.
#[derive(Clone, Copy, Debug)]
struct Robot {
    machine: MachineId,
    /// It is not on the floor, a person says.
    absent: bool,
    charging: bool,
    charger: Goal,
    /// The end of the path it was last told.
    told: Option<Place>,
    retry_at: Millis,
    silent: bool,
    /// It stands between two places, and one of them is not known.
    between: bool,
    jammed: bool,
}

/// All mobile robots, by their number on the roads.
#[derive(Debug)]
pub struct Fleet<'m> {
    robots: &'m mut [Robot],
    known: bool,
    assigned_at: Millis,
}

impl<'m> Fleet<'m> {
    pub(crate) fn new(storage: &impl Storage<'m>, capacity: &Capacity) -> Fleet<'m> {
        Fleet { robots: storage.slice(capacity.traffic.vehicles, IDLE), known: false, assigned_at: Millis(0) }
    }

    fn with(&mut self, vehicle: u16, change: impl FnOnce(&mut Robot)) {
        if let Some(robot) = self.robots.get_mut(usize::from(vehicle)) {
            change(robot);
        }
    }

    fn robot(&self, vehicle: u16) -> Option<Robot> {
        self.robots.get(usize::from(vehicle)).copied()
    }

    pub(crate) fn set_absent(&mut self, id: MachineId) {
        for robot in self.robots.iter_mut().filter(|r| r.machine == id) {
            robot.absent = true;
        }
    }

    /// A drive has ended; one that was refused is not said again at once.
    pub(crate) fn drive_ended(&mut self, id: MachineId, outcome: Outcome, now: Millis) {
        for robot in self.robots.iter_mut().filter(|r| r.machine == id) {
            robot.told = None;
            if outcome != Outcome::Done {
                robot.retry_at = now.plus(RETRY_MS);
            }
        }
    }
}

impl Controller<'_> {
    /// Everything robots do in a cycle.
    pub(crate) fn drive(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        if self.traffic.vehicles() == 0 {
            return;
        }
        let mut everybody = true;
        for (id, vehicle, home) in floor.robots() {
            self.fleet.with(vehicle, |r| r.machine = id);
            let present = self.locate(now, floor, image, id, vehicle, events);
            everybody &= present || self.fleet.robot(vehicle).is_some_and(|r| r.absent);
            if present {
                self.guide(now, floor, image, id, vehicle, home, events);
            }
        }
        // Where a robot is that was never seen, nobody knows: until all are seen, or a person says that one is not there, none moves.
        self.fleet.known |= everybody;
        if !self.fleet.known {
            return;
        }
        if self.run == RunState::Running && !self.draining && now.since(self.fleet.assigned_at) >= ASSIGN_EVERY_MS {
            self.fleet.assigned_at = now;
            self.assign(now, floor, image, events);
        }
        if matches!(self.run, RunState::Running | RunState::Degraded) && !self.draining {
            self.traffic.work(floor.roads(), now);
        }
    }

    /// Finds out where a robot is. `false` while it is not on the roads.
    fn locate(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        vehicle: u16,
        events: &mut Events,
    ) -> bool {
        let seen = image.machine(id);
        let status = seen.fresh(now, self.settings.stale_ms).copied().filter(|_| self.machine(id).handshaken);
        let present = self.traffic.is_present(vehicle);
        let Some(status) = status else {
            if present && self.fleet.robot(vehicle).is_some_and(|r| !r.silent) {
                self.traffic.hold(vehicle, true);
                self.traffic.retract(floor.roads());
                self.fleet.with(vehicle, |r| r.silent = true);
            }
            return present;
        };
        self.fleet.with(vehicle, |r| r.silent = false);
        let blocked = status.interlocks & interlock::AXIS_BLOCKED != 0;
        let between = self.fleet.robot(vehicle).is_some_and(|r| r.between);
        if between && !blocked {
            // It has found back: from here on it is at one place again.
            self.fleet.with(vehicle, |r| r.between = false);
            self.traffic.leave(floor.roads(), vehicle);
        } else if present {
            let machine = self.machine(id);
            // It has been stopped, is seen to stand at a place, and is told nothing: what lies ahead of it is for others.
            let given_up = machine.hold.is_some() && !machine.link.busy() && !status.executing() && !blocked;
            if self.traffic.reached(vehicle, status.at) {
                if !given_up || self.traffic.base(vehicle).next().is_none() {
                    return true;
                }
                self.traffic.leave(floor.roads(), vehicle);
                return self.enter_at(floor, vehicle, status.at);
            }
            events.push(now, EventKind::RobotElsewhere(id, status.at));
            self.traffic.leave(floor.roads(), vehicle);
        }
        // Between two places it is in the way at both, and says only one: until it has found back, all around it is its own.
        if blocked {
            let pose = floor.roads().poses_of(status.at).next().unwrap_or(NO_POSE);
            let entered = pose != NO_POSE && self.traffic.enter_around(floor.roads(), vehicle, pose);
            self.fleet.with(vehicle, |r| r.between |= entered);
            return entered;
        }
        self.enter_at(floor, vehicle, status.at)
    }

    /// Puts a robot onto the roads where it says it stands.
    fn enter_at(&mut self, floor: &Floor<'_>, vehicle: u16, place: Place) -> bool {
        let pose = floor.roads().poses_of(place).next().unwrap_or(NO_POSE);
        // Who stands between two places, nobody knows which, does not stand where this one is seen.
        if let Some(other) = self.traffic.first_of(place)
            && other != vehicle
            && self.traffic.place(other) != Some(place)
            && self.fleet.robot(other).is_some_and(|r| r.between)
        {
            self.fleet.with(other, |r| r.between = false);
            self.traffic.leave(floor.roads(), other); // it is looked at again in the next cycle
        }
        pose != NO_POSE && self.traffic.enter(floor.roads(), vehicle, pose)
    }

    /// Sends a robot where its leg, its battery or its home asks it to be, and tells it how far it may drive.
    #[allow(clippy::too_many_arguments)] // one robot, by both its names
    fn guide(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        vehicle: u16,
        home: Goal,
        events: &mut Events,
    ) {
        let (machine, status) = (self.machine(id), image.machine(id).value);
        let handling = machine.link.in_flight().is_some_and(|(c, _)| c.code != CommandCode::Drive);
        self.traffic.hold(vehicle, machine.hold.is_some() || handling);
        if machine.hold.is_some() || handling {
            self.give_up_leg(floor, id, machine.hold);
            return;
        }
        if self.draining {
            // It stops at the end of what it was told, with its load if it has one.
            self.end_task(floor, id);
        }
        self.take_what_it_carries(now, floor, image, id, &status, events);
        self.look_after_battery(now, floor, id, vehicle, &status, events);
        let robot = self.fleet.robot(vehicle).unwrap_or(IDLE);
        let task = self.machine(id).task;
        let carries = task.is_some_and(|t| status.load == Some(t.load));
        let stop = task.map(|t| if carries { t.target } else { t.source });
        let (goal, class) = match (stop, robot.charging) {
            (Some(pos), _) => {
                let class = task.and_then(|t| self.orders.slot(t.slot)).map_or(1, |o| o.effective_class(now));
                (floor.goal_of(pos), class)
            }
            (None, true) => (robot.charger, 3),
            (None, false) => (home, 3),
        };
        // Where it shall go may be closed: then it stays where it is, and goes out of the way for others.
        let reached = floor.roads().distance(goal, self.traffic.frontier(vehicle)) != FAR;
        self.traffic.send(vehicle, if reached { goal } else { NO_GOAL }, class);
        if let Some((task, pos)) = task.zip(stop)
            && self.traffic.has_arrived(floor.roads(), vehicle)
            && !machine.link.busy()
            && now >= robot.retry_at
        {
            let code = if carries { CommandCode::Place } else { CommandCode::Pick };
            let limit = self.settings.position_stale_ms;
            let ready = match code {
                CommandCode::Place => dispatch::is_empty(image, now, limit, task.target),
                _ => dispatch::stands_there(floor, image, now, limit, task.source, task.load),
            };
            // What is seen there is not what is believed: nobody is on the way there until one of them has been put right.
            let looks_at = if carries { task.target } else { task.source };
            if !ready && self.contradicts(now, image, looks_at) {
                return self.end_task(floor, id);
            }
            if ready && self.run != RunState::Safe {
                self.traffic.hold(vehicle, true);
                self.say(now, id, &status, Command { code, pos, load: Some(task.load), ..Command::default() }, events);
            }
            return;
        }
        self.extend(now, id, vehicle, &status, &robot, events);
        let jammed = self.traffic.is_jammed(vehicle) || (stop.is_some() && !reached);
        if jammed && !robot.jammed {
            events.push(now, EventKind::RobotJammed(id));
        }
        self.fleet.with(vehicle, |r| r.jammed = jammed);
    }

    /// Whether a sensor says something else of a position than is believed.
    pub(crate) fn contradicts(&self, now: Millis, image: &InputImage<'_>, pos: PosId) -> bool {
        let seen = image.position(pos);
        seen.fresh(now, self.settings.position_stale_ms).is_some_and(|load| *load != self.stock.at(pos))
    }

    /// Tells a robot more of its base, when there is more than it was told.
    fn extend(
        &mut self,
        now: Millis,
        id: MachineId,
        vehicle: u16,
        status: &MachineStatus,
        robot: &Robot,
        events: &mut Events,
    ) {
        let path = Path::of(self.traffic.base(vehicle));
        let last = path.iter().last();
        // What it was told counts for as long as it is at it.
        let told = robot.told.filter(|_| self.machine(id).link.busy());
        if path.is_empty() || last == told || now < robot.retry_at || self.run == RunState::Safe {
            return;
        }
        self.fleet.with(vehicle, |r| r.told = last);
        self.say(now, id, status, Command { code: CommandCode::Drive, path, ..Command::default() }, events);
    }

    /// A robot that is held loses a leg it has not picked up for: another one does it.
    fn give_up_leg(&mut self, floor: &Floor<'_>, id: MachineId, hold: Option<Hold>) {
        let machine = self.machine(id);
        let picked = machine.task.is_some_and(|t| self.stock.at(Self::deck(floor, id)) == Some(t.load));
        if hold.is_some() && machine.task.is_some() && !picked && !machine.link.busy() {
            self.end_task(floor, id);
        }
    }

    /// A robot with a load and no leg is given the load's next one.
    fn take_what_it_carries(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        if self.machine(id).task.is_some() || self.run != RunState::Running || self.draining {
            return;
        }
        let Some(slot) = status.load.and_then(|l| self.slot_of(l)) else { return };
        let Some(order) = self.orders.slot(slot) else { return };
        let Some(c) = dispatch::candidate(floor, &self.stock, slot, order, now) else { return };
        if c.by == Mover::Robots
            && c.task.source == Self::deck(floor, id)
            && self.may_set_out(now, floor, image, &c.task)
        {
            self.start_task(now, floor, id, c.task, events);
        }
    }

    fn look_after_battery(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        let Some(robot) = self.fleet.robot(vehicle) else { return };
        let chargers = floor.tables().chargers;
        if chargers.is_empty() {
            return;
        }
        let [critical, low, enough, full] = self.settings.charge;
        let idle = self.machine(id).task.is_none();
        if robot.charging {
            let waiting = !self.orders.is_empty();
            if status.charge >= full || (waiting && status.charge >= enough) {
                self.fleet.with(vehicle, |r| (r.charging, r.charger) = (false, NO_GOAL));
            }
            return;
        }
        let empty = status.charge < critical;
        if empty && status.load.is_none() {
            self.end_task(floor, id);
        }
        if status.load.is_some() || !(empty || (idle && status.charge < low)) {
            return;
        }
        let here = self.traffic.frontier(vehicle);
        let free = |goal: &Goal| !self.fleet.robots.iter().any(|r| r.charger == *goal);
        let nearest = chargers.iter().copied().filter(free).min_by_key(|g| floor.roads().distance(*g, here));
        if let Some(charger) = nearest {
            self.fleet.with(vehicle, |r| (r.charging, r.charger) = (true, charger));
            if empty {
                events.push(now, EventKind::BatteryLow(id));
            }
        }
    }

    /// Matches robots without a load with the legs that wait for one.
    fn assign(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        let mut robots: heapless::Vec<(MachineId, u16), ASSIGN_MAX> = heapless::Vec::new();
        for (id, vehicle, _) in floor.robots() {
            let (machine, status) = (self.machine(id), image.machine(id).value);
            let handling = machine.link.in_flight().is_some_and(|(c, _)| c.code != CommandCode::Drive);
            let ready =
                self.fleet.robot(vehicle).is_some_and(|r| !r.charging || status.charge > self.settings.charge[2]);
            let free = machine.hold.is_none() && !handling && status.load.is_none() && ready;
            if free && self.traffic.is_present(vehicle) {
                let _ = robots.push((id, vehicle)); // beyond that the others come round when these are busy
            }
        }
        let mut legs: heapless::Vec<Candidate, ASSIGN_MAX> = heapless::Vec::new();
        for zone in floor.tables().robot_sources {
            let Some(info) = floor.zone(*zone) else { continue };
            let Some(slot) = self.stock.at(info.exit()).and_then(|l| self.slot_of(l)) else { continue };
            let Some(mut order) = self.orders.slot(slot).copied() else { continue };
            // A leg a robot is on its way for is up for another too.
            let holder = robots.iter().position(|(id, _)| self.machine(*id).task.is_some_and(|t| t.slot == slot));
            if order.under_way && holder.is_none() {
                continue;
            }
            if let Some(holder) = holder.and_then(|n| robots.get(n)) {
                let Some(task) = self.machine(holder.0).task else { continue };
                let (class, urgency) = (order.effective_class(now), order.urgency(now));
                insert(&mut legs, Candidate { by: Mover::Robots, task, class, urgency });
                continue;
            }
            order.under_way = false;
            let Some(c) = dispatch::candidate(floor, &self.stock, slot, &order, now) else { continue };
            if c.by == Mover::Robots && self.may_set_out(now, floor, image, &c.task) {
                insert(&mut legs, c);
            }
        }
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
            let has = self.machine(*id).task;
            if has.map(|t| t.slot) != leg.map(|c| c.task.slot) && has.is_some() {
                self.end_task(floor, *id);
            }
        }
        for (c, robot) in legs.iter().zip(found) {
            let Some((id, vehicle)) = robot.and_then(|n| robots.get(n)).copied() else { continue };
            if self.machine(id).task.is_none() && self.stock.free_for(floor, c.task.target, c.task.load) {
                self.fleet.with(vehicle, |r| (r.charging, r.charger) = (false, NO_GOAL));
                self.start_task(now, floor, id, c.task, events);
            }
        }
    }
}

impl Controller<'_> {
    /// Leaves out the legs that would bring more robots into an area than may have work there. Throughput falls where it is crowded:
    /// who waits outside is in nobody's way. A leg that is under way counts to its end, and can always be brought to it.
    fn keep_to_caps(
        &self,
        floor: &Floor<'_>,
        robots: &[(MachineId, u16)],
        legs: &mut heapless::Vec<Candidate, ASSIGN_MAX>,
    ) {
        let caps = floor.tables().area_caps;
        if caps.is_empty() {
            return;
        }
        let mut busy = Crowd([0; AREAS_MAX]);
        // Who has picked up, or is about to, is not matched anew.
        let is_matched = |id: MachineId| robots.iter().any(|(r, _)| *r == id);
        for (id, ..) in floor.robots().filter(|(id, ..)| !is_matched(*id)) {
            if let Some(task) = self.machine(id).task {
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

const IDLE: Robot = Robot {
    machine: MachineId(u16::MAX),
    absent: false,
    charging: false,
    charger: NO_GOAL,
    told: None,
    retry_at: Millis(0),
    silent: false,
    between: false,
    jammed: false,
};

/// Puts a leg among those that wait, the most urgent first; the least urgent falls off the end.
fn insert(legs: &mut heapless::Vec<Candidate, ASSIGN_MAX>, leg: Candidate) {
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
