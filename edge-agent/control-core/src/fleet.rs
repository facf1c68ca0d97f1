//! Mobile robots: which robot fetches which load, where it waits, when it charges, and how its authority grows.
//!
//! ```text
//!   legs that wait for a robot ─┐
//!   robots that are free,       ├─> assign (least travel, rush weighs more) ─> goal ─> traffic ─> base ─> DRIVE ─> PICK / PLACE
//!     or on their way to one ───┘        again until it has picked up
//! ```
//!
//! A robot that is silent keeps what was allocated to it: it may have driven to its end. Everybody else goes on around that. So does one
//! that says it is where it cannot be (`locate`). One that shows up where it was not sent and can have driven to is put there anew.

pub(crate) mod locate;
mod matching;

pub use locate::Stray;

use crate::command::Outcome;
use crate::cycle::Controller;
use crate::dispatch;
use crate::event::{EventKind, Events, RunState};
use crate::floor::{Floor, Mover};
use crate::image::{Command, CommandCode, InputImage, MachineStatus, Path};
use crate::limits::{Capacity, LOOKS_PER_CYCLE, NOBODY_COMES_MAX};
use crate::storage::Storage;
use crate::traffic::roads::{FAR, Goal, NO_GOAL, Place};
use crate::units::{MachineId, Millis, PosId};
use locate::{Sight, Word};
use matching::Use;

/// Robots and loads are matched this often, milliseconds.
const ASSIGN_EVERY_MS: u64 = 250;
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
    /// When it was last seen where it is known to be.
    known_at: Millis,
    /// Why it cannot be where it says, and the place it says.
    stray: Option<(Stray, Place)>,
    /// Since when it has said a place of its own again.
    back_since: Option<Millis>,
    /// It is not on the floor, a person says, and can be seen: it comes back by a person's word alone.
    taken_off: bool,
    /// What a person has just said of it.
    word: Option<Word>,
    /// Whether it can come for a leg.
    in_use: Use,
}

/// All mobile robots, by their number on the roads.
#[derive(Debug)]
pub struct Fleet<'m> {
    robots: &'m mut [Robot],
    known: bool,
    assigned_at: Millis,
    /// Places that robots say they are at and that can still be looked at in this cycle.
    looks: u8,
    /// Where loads wait to which no robot can come.
    nobody_comes: heapless::Vec<PosId, NOBODY_COMES_MAX>,
}

impl<'m> Fleet<'m> {
    pub(crate) fn new(storage: &impl Storage<'m>, capacity: &Capacity) -> Fleet<'m> {
        Fleet {
            robots: storage.slice(capacity.traffic.vehicles, IDLE),
            known: false,
            assigned_at: Millis(0),
            looks: LOOKS_PER_CYCLE,
            nobody_comes: heapless::Vec::new(),
        }
    }

    fn with(&mut self, vehicle: u16, change: impl FnOnce(&mut Robot)) {
        if let Some(robot) = self.robots.get_mut(usize::from(vehicle)) {
            change(robot);
        }
    }

    fn robot(&self, vehicle: u16) -> Option<Robot> {
        self.robots.get(usize::from(vehicle)).copied()
    }

    /// It has something better to do.
    fn stop_charging(&mut self, vehicle: u16) {
        self.with(vehicle, |r| (r.charging, r.charger) = (false, NO_GOAL));
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
        self.fleet.looks = LOOKS_PER_CYCLE;
        for (id, vehicle, home) in floor.robots() {
            self.fleet.with(vehicle, |r| r.machine = id);
            match self.locate(now, floor, image, id, vehicle, events) {
                Sight::Known => self.guide(now, floor, image, id, vehicle, home, events),
                Sight::Obstacle => {
                    self.traffic.hold(vehicle, true);
                    self.give_up_leg(floor, id);
                }
                Sight::Off => everybody &= self.fleet.robot(vehicle).is_some_and(|r| r.absent),
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
            if machine.hold.is_some() {
                self.give_up_leg(floor, id);
            }
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

    /// A robot that is held, or that nobody knows where it is, loses a leg it has not picked up for: another one does it.
    fn give_up_leg(&mut self, floor: &Floor<'_>, id: MachineId) {
        let machine = self.machine(id);
        let picked = machine.task.is_some_and(|t| self.stock.at(Self::deck(floor, id)) == Some(t.load));
        if machine.task.is_some() && !picked && !machine.link.busy() {
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
                self.fleet.stop_charging(vehicle);
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
    known_at: Millis(0),
    stray: None,
    back_since: None,
    taken_off: false,
    word: None,
    in_use: Use::None,
};
