//! The order of it all: first understand, then act.
//!
//! ```text
//!   image ─> domains read? ─> requests (K) ─> read back commands ─> lanes, audit ─> orders ended? ─> legs, traffic, commands
//!            [recover]        [admission]     [feedback]            [recover]       [admission]      [act, fleet]
//! ```
//!
//! Bounds of one cycle, with M machines: requests <= [`crate::limits::REQUESTS_PER_CYCLE`]; read-back M; lanes as many as there
//! are; audit, settling and choices as [`crate::limits`] says; traffic as its settings say. No allocation, no recursion; the only
//! full pass over the positions of a domain is the rebuild after it was read.

use crate::command::{CommandLink, Progress};
use crate::dispatch::Task;
use crate::event::{EventKind, Events, RunState};
use crate::fleet::{Fleet, Stray};
use crate::floor::{DomainInfo, Floor, MachineKind};
use crate::image::{Command, InputImage, OutputImage};
use crate::interlock::{self, Hold};
use crate::limits::Capacity;
use crate::order::{OrderRequest, Orders};
use crate::recover::Domain;
use crate::resume::Decision;
use crate::ride::{Ridden, Ride};
use crate::sequence::Sequence;
use crate::stock::Stock;
use crate::storage::Storage;
use crate::traffic::roads::Place;
use crate::traffic::{self, Traffic};
use crate::units::{DomainId, LoadId, MachineId, Millis, OrderId, PosId};

/// Times the core works with, milliseconds, and other settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A machine's status older than this permits nothing. At least three polls and 300 ms (FIELD section 5).
    pub stale_ms: u64,
    /// The same for a position's sensor; bays are read less often.
    pub position_stale_ms: u64,
    /// How long a command may wait before it is begun.
    pub valid_ms: u16,
    /// How long a sensor has to contradict the belief before the sensor is believed.
    pub odd_ms: u64,
    /// How long a load may stand in the way without an order before it is put away.
    pub found_ms: u64,
    /// How long an order looks for its load before it is given up.
    pub missing_ms: u64,
    /// How long the start waits for domains that cannot be read, before it goes on with those that can.
    pub start_ms: u64,
    /// Orders one tenant may have at once, in hundredths of the table.
    pub tenant_percent: u8,
    /// Battery of mobile robots, thousandths: below the first nothing but the way to a charger, below the second to a charger
    /// when idle, above the third to work again if there is any, at the fourth full.
    pub charge: [u16; 4],
    /// How traffic works.
    pub traffic: traffic::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stale_ms: 500,
            position_stale_ms: 5_000,
            valid_ms: 2_000,
            odd_ms: 3_000,
            found_ms: 3_000,
            missing_ms: 10_000,
            start_ms: 3_000,
            tenant_percent: 80,
            charge: [150, 350, 500, 950],
            traffic: traffic::Settings::default(),
        }
    }
}

/// What is asked of the core from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A transport order.
    Order(OrderRequest),
    /// An order is to be withdrawn: no new leg is begun for it, and it ends when no machine is busy with its load.
    Withdraw(OrderId),
    /// An order is withdrawn at once, whatever moves: what a machine is doing it brings to its end.
    WithdrawNow(OrderId),
    /// An order gets another class, 0 rush .. 3 bulk.
    Reclass(OrderId, u8),
    /// A person decides on an order that is held.
    Decide(OrderId, Decision),
    /// A person says that this machine, which left AUTO, may go on.
    Acknowledge(MachineId),
    /// The same of every machine that waits for it and is back in AUTO.
    AcknowledgeAll,
    /// A person says that a mobile robot that was never seen, is silent or is astray, is not on the floor.
    Absent(MachineId),
    /// The same, said in an earlier run of one that could be seen then: it comes back by [`Request::Located`] alone.
    TakenOff(MachineId),
    /// A person says that a mobile robot that is astray, or was taken off the floor, is where it says.
    Located(MachineId),
    /// Bring what is moving to its end, start nothing, then withdraw authority.
    Drain,
}

/// What a cycle is given.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The floor.
    pub floor: &'a Floor<'a>,
    /// The plant as last read.
    pub image: InputImage<'a>,
    /// At most [`crate::limits::REQUESTS_PER_CYCLE`] are looked at.
    pub requests: &'a [Request],
    /// Cycles have been late: start nothing new.
    pub degraded: bool,
}

/// Counters since start; they only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Orders taken, those found and adopted included.
    pub orders_accepted: u64,
    /// Orders refused.
    pub orders_rejected: u64,
    /// Orders whose load is where it should be.
    pub orders_completed: u64,
    /// Orders given up.
    pub orders_failed: u64,
    /// Commands made.
    pub commands_sent: u64,
    /// Commands done.
    pub commands_done: u64,
    /// Commands failed or rejected.
    pub commands_failed: u64,
    /// Commands expired.
    pub commands_expired: u64,
    /// Orders withdrawn, by somebody or because another order has taken over their load.
    pub orders_withdrawn: u64,
}

/// One machine as the core sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) link: CommandLink,
    pub(crate) task: Option<Task>,
    pub(crate) handshaken: bool,
    pub(crate) boot: u16,
    pub(crate) owned: bool,
    pub(crate) needs_acknowledge: bool,
    pub(crate) hold: Option<Hold>,
    /// Found nothing to do; not to be asked again before.
    pub(crate) idle_until: Millis,
    /// What it did last was to put a load into a bay.
    pub(crate) stored: bool,
    /// Of a shuttle: its change of tier.
    pub(crate) ride: Option<Ride>,
}

/// The controller of a floor. Its tables are those it was given memory for.
#[derive(Debug)]
pub struct Controller<'m> {
    pub(crate) settings: Settings,
    pub(crate) run: RunState,
    pub(crate) started_at: Option<Millis>,
    pub(crate) draining: bool,
    pub(crate) token: u32,
    pub(crate) claimed: bool,
    pub(crate) machines: &'m mut [Machine],
    pub(crate) domains: &'m mut [Domain],
    pub(crate) orders: Orders<'m>,
    pub(crate) stock: Stock<'m>,
    pub(crate) sequence: Sequence,
    pub(crate) traffic: Traffic<'m>,
    pub(crate) fleet: Fleet<'m>,
    pub(crate) found: u32,
    pub(crate) sweep: u16,
    pub(crate) audit: u16,
    pub(crate) settled: u16,
    pub(crate) commands: &'m mut [Option<Command>],
    pub(crate) acknowledged: &'m mut [u16],
    /// How far a word for all machines has come.
    pub(crate) acknowledging: Option<u16>,
    pub(crate) generation: u32,
    cycles: u64,
    pub(crate) counters: Counters,
}

impl<'m> Controller<'m> {
    /// A controller that has seen nothing yet, on tables of this size.
    pub fn new(storage: &impl Storage<'m>, capacity: &Capacity, settings: Settings) -> Controller<'m> {
        Controller {
            settings,
            run: RunState::Starting,
            started_at: None,
            draining: false,
            token: 0,
            claimed: false,
            machines: storage.slice(capacity.machines, Machine::default()),
            domains: storage.slice(capacity.domains, Domain::default()),
            orders: Orders::new(storage, capacity),
            stock: Stock::new(storage, capacity),
            sequence: Sequence::default(),
            traffic: Traffic::new(storage, &traffic::pool::TURNING, capacity.traffic, settings.traffic),
            fleet: Fleet::new(storage, capacity),
            found: 0,
            sweep: 0,
            audit: 0,
            settled: 0,
            commands: storage.slice(capacity.machines, None),
            acknowledged: storage.slice(capacity.machines, 0),
            acknowledging: None,
            generation: 0,
            cycles: 0,
            counters: Counters::default(),
        }
    }

    /// State of the runtime.
    pub fn run_state(&self) -> RunState {
        self.run
    }

    /// Counters since start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Orders that are not ended.
    pub fn orders(&self) -> &Orders<'m> {
        &self.orders
    }

    /// Where loads are believed to be.
    pub fn stock(&self) -> &Stock<'m> {
        &self.stock
    }

    /// Why a mobile robot cannot be where it says, and the place it says; `None` while it can.
    pub fn stray(&self, vehicle: u16) -> Option<(Stray, Place)> {
        self.fleet.stray(vehicle)
    }

    /// Where loads wait to which no mobile robot can come, as far as there is room for them.
    pub fn nobody_comes(&self) -> &[PosId] {
        self.fleet.nobody_comes()
    }

    /// The vehicles on the roads.
    pub fn traffic(&self) -> &Traffic<'m> {
        &self.traffic
    }

    pub(crate) fn machine(&self, id: MachineId) -> Machine {
        self.machines.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    pub(crate) fn with(&mut self, id: MachineId, change: impl FnOnce(&mut Machine)) {
        if let Some(machine) = self.machines.get_mut(usize::from(id.0)) {
            change(machine);
        }
    }

    /// Why a machine is not commanded, if it is not.
    pub fn hold(&self, id: MachineId) -> Option<Hold> {
        self.machine(id).hold
    }

    /// What a machine is busy with: its leg and its command in flight.
    pub fn busy_with(&self, id: MachineId) -> (Option<Task>, Option<(Command, Progress)>) {
        let machine = self.machine(id);
        (machine.task, machine.link.in_flight())
    }

    /// One cycle. `now` never goes backwards. Does not allocate, block or panic. What is wanted of the plant is then in
    /// [`Controller::output`].
    pub fn cycle(&mut self, now: Millis, inputs: &Inputs<'_>, events: &mut Events) {
        events.clear();
        self.cycles = self.cycles.wrapping_add(1);
        let (floor, image) = (inputs.floor, &inputs.image);

        if self.generation != floor.generation() {
            self.generation = floor.generation();
            self.traffic.retract(floor.roads());
            self.look_at_closings(floor);
        }
        self.watch_ownership(now, floor, image, events);
        self.watch_machines(now, floor, image, events);
        self.recover(now, floor, image, events);
        self.set_run_state(now, floor, image, inputs.degraded, events);
        self.intake(now, floor, image, inputs.requests, events);
        if self.is_working() {
            self.read_back(now, floor, image, events);
            self.sense(now, floor, image, events);
            self.rehome_one(now, floor, events);
            self.settle(now, floor, events);
            self.act(now, floor, image, events);
        }
    }

    /// What is wanted of the plant after the last cycle.
    pub fn output(&self) -> OutputImage<'_> {
        OutputImage {
            cycle: self.cycles,
            heartbeat: (self.cycles & 0xFFFF) as u16,
            token: self.token,
            authority: matches!(self.run, RunState::Running | RunState::Degraded),
            write: self.claimed && self.run != RunState::Fenced,
            commands: self.commands,
            acknowledged: self.acknowledged,
        }
    }

    /// Whether anything that was read may be acted upon.
    fn is_working(&self) -> bool {
        !matches!(self.run, RunState::Starting | RunState::Recover | RunState::Fenced)
    }

    /// A machine that has been ours and shows a higher token has another owner now. There is no way back. A higher token on
    /// a machine that has not been ours yet is an older owner's: the claim is raised above it.
    fn watch_ownership(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        if !self.claimed || self.run == RunState::Fenced {
            return;
        }
        for id in floor.machine_ids() {
            let seen = image.machine(id);
            let Some(status) = seen.fresh(now, self.settings.stale_ms) else { continue };
            let token = self.token;
            self.with(id, |m| m.owned |= status.token == token);
            if status.token <= token {
                continue;
            }
            if self.machine(id).owned {
                return self.enter(now, RunState::Fenced, events);
            }
            self.token = status.token.saturating_add(1);
        }
    }

    /// Notes who left AUTO and who started anew.
    fn watch_machines(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        for id in floor.machine_ids() {
            let seen = image.machine(id);
            let mut machine = self.machine(id);
            if let Some(status) = seen.fresh(now, self.settings.stale_ms) {
                if floor.rack_of(id).is_some() {
                    self.stock.set_stand(id, status.stand);
                }
                machine.needs_acknowledge |= interlock::in_auto(status).is_err();
                if machine.handshaken && machine.boot != status.boot {
                    machine.handshaken = false;
                    events.push(now, EventKind::MachineRebooted(id));
                    // Its controller knows what is where in its domain: when it starts anew, all of it is read again.
                    if let Some(info) = floor.machine(id) {
                        self.read_again(info.domain);
                    }
                }
            }
            let stale_ms = self.settings.stale_ms;
            let hold = interlock::permit(&seen, now, stale_ms, machine.handshaken, machine.needs_acknowledge).err();
            match (machine.hold, hold) {
                (None, Some(why)) => events.push(now, EventKind::MachineHeld(id, why)),
                (Some(old), Some(why)) if old != why => events.push(now, EventKind::MachineHeld(id, why)),
                (Some(_), None) => events.push(now, EventKind::MachineReleased(id)),
                _ => {}
            }
            machine.hold = hold;
            self.with(id, |m| *m = machine);
            let ridden = self.is_ridden(floor, id) == Some(Ridden::StandsOnIt);
            self.stock.set_out(id, hold.is_some() || ridden);
        }
    }

    fn read_again(&mut self, domain: DomainId) {
        if let Some(d) = self.domains.get_mut(usize::from(domain.0)) {
            *d = Domain::default();
        }
    }

    fn set_run_state(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        degraded: bool,
        events: &mut Events,
    ) {
        let started = *self.started_at.get_or_insert(now);
        // Who brings a long command to its end is waited for by its own domain alone.
        let busy = |info: &DomainInfo| {
            let stale_ms = self.settings.stale_ms;
            let fresh = |m| image.machine(m).fresh(now, stale_ms).copied();
            info.machines().all(|m| fresh(m).is_some())
                && info.machines().any(|m| fresh(m).is_some_and(|s| s.executing()))
        };
        let known = |(id, _): &(DomainId, &DomainInfo)| self.is_known(*id);
        let some = floor.domains().any(|d| known(&d));
        let ready =
            some && (now.since(started) >= self.settings.start_ms || floor.domains().all(|d| known(&d) || busy(d.1)));
        let at_rest = |m: &Machine| !m.link.busy() && m.task.is_none() && m.ride.is_none();
        let next = match self.run {
            RunState::Fenced => RunState::Fenced,
            RunState::Safe => RunState::Safe,
            RunState::Starting | RunState::Recover if !ready => RunState::Recover,
            _ if self.draining && self.machines.iter().all(at_rest) => RunState::Safe,
            _ if degraded => RunState::Degraded,
            _ => RunState::Running,
        };
        self.enter(now, next, events);
    }

    fn enter(&mut self, now: Millis, next: RunState, events: &mut Events) {
        if self.run != next {
            self.run = next;
            events.push(now, EventKind::Run(next));
        }
    }

    /// Believes from now on that `load` is at `to`, or nowhere.
    pub(crate) fn move_load(&mut self, floor: &Floor<'_>, load: LoadId, to: Option<PosId>, now: Millis) {
        match (to, self.stock.find(load)) {
            (Some(to), _) => self.stock.set(floor, to, Some(load), now),
            (None, Some(from)) => self.stock.set(floor, from, None, now),
            (None, None) => {}
        }
        if let Some(slot) = self.stock.loads.order(load) {
            self.orders.set_at(floor, slot, to);
        }
    }

    /// The kind of a machine.
    pub(crate) fn kind(floor: &Floor<'_>, id: MachineId) -> Option<MachineKind> {
        floor.machine(id).map(|m| m.kind)
    }

    /// The deck of a machine.
    pub(crate) fn deck(floor: &Floor<'_>, id: MachineId) -> PosId {
        floor.machine(id).map_or(PosId(u16::MAX), |m| m.deck)
    }
}
