//! The order of it all: first understand, then act.
//!
//! ```text
//!   image ─> recovered? ─> requests (K) ─> read back commands ─> conveyors, audit ─> orders ended? ─> legs, commands
//!            [recover]      [admission]     [feedback]             [recover]          [admission]      [act]
//! ```
//!
//! Bounds of one cycle, with M machines, O orders, P positions: requests <= [`crate::limits::REQUESTS_PER_CYCLE`] (each looks at
//! the free bays once: P); read-back M; conveyors 4; audit `AUDIT_PER_CYCLE`; legs O; choices M x O. No allocation,
//! no recursion; the only full pass over P x O is the rebuild after a recovery.

use crate::command::{CommandLink, Progress};
use crate::dispatch::Task;
use crate::event::{EventKind, Events, RunState};
use crate::image::{Command, InputImage, OutputImage};
use crate::interlock::{self, Hold};
use crate::layout::Layout;
use crate::limits::MACHINES_MAX;
use crate::order::{OrderRequest, Orders};
use crate::stock::Stock;
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId};

/// Times the core works with, milliseconds.
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
    pub adopt_ms: u64,
    /// How long an order looks for its load before it is given up.
    pub missing_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stale_ms: 500,
            position_stale_ms: 5_000,
            valid_ms: 2_000,
            odd_ms: 3_000,
            adopt_ms: 3_000,
            missing_ms: 10_000,
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
    /// An order gets another class, 0 rush .. 3 bulk.
    Reclass(OrderId, u8),
    /// A person says that machines that left AUTO may go on.
    Acknowledge,
    /// Bring what is moving to its end, start nothing, then withdraw authority.
    Drain,
}

/// What a cycle is given.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The plant as last read.
    pub image: &'a InputImage,
    /// At most [`crate::limits::REQUESTS_PER_CYCLE`] are looked at.
    pub requests: &'a [Request],
    /// Cycles have been late: start nothing new.
    pub degraded: bool,
}

/// What a cycle leaves behind. Made once and reused.
#[derive(Debug, Default)]
pub struct Outputs {
    /// What is wanted of the plant.
    pub image: OutputImage,
    /// What happened.
    pub events: Events,
}

/// Counters since start; they only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Orders taken, adopted ones included.
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
}

/// One machine as the core sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) link: CommandLink,
    pub(crate) task: Option<Task>,
    pub(crate) handshaken: bool,
    pub(crate) boot: u16,
    pub(crate) owned: bool,
    pub(crate) acknowledged: u16,
    pub(crate) needs_acknowledge: bool,
    pub(crate) was_auto: bool,
    pub(crate) hold: Option<Hold>,
    pub(crate) near: Option<PosId>,
}

/// The controller of one aisle and its cell. Some 40 KiB; belongs into one box or one static, made at start.
#[derive(Clone, Debug)]
pub struct Controller {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) run: RunState,
    pub(crate) recover_since: Option<Millis>,
    pub(crate) claimed: bool,
    pub(crate) draining: bool,
    pub(crate) token: u32,
    pub(crate) machines: [Machine; MACHINES_MAX],
    pub(crate) orders: Orders,
    pub(crate) stock: Stock,
    pub(crate) adopted: u32,
    pub(crate) sweep: u16,
    pub(crate) audit: u16,
    pub(crate) commands: [Option<Command>; MACHINES_MAX],
    cycles: u64,
    pub(crate) counters: Counters,
}

impl Controller {
    /// A controller that has seen nothing yet.
    pub fn new(layout: Layout, settings: Settings) -> Controller {
        Controller {
            layout,
            settings,
            run: RunState::Starting,
            recover_since: None,
            claimed: false,
            draining: false,
            token: 0,
            machines: [Machine::default(); MACHINES_MAX],
            orders: Orders::default(),
            stock: Stock::default(),
            adopted: 0,
            sweep: 0,
            audit: 0,
            commands: [None; MACHINES_MAX],
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
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Where loads are believed to be.
    pub fn stock(&self) -> &Stock {
        &self.stock
    }

    /// Why a machine is not commanded, if it is not.
    pub fn hold(&self, id: MachineId) -> Option<Hold> {
        self.machines.get(usize::from(id.0)).and_then(|m| m.hold)
    }

    /// What a machine is busy with: its leg and its command in flight.
    pub fn busy_with(&self, id: MachineId) -> (Option<Task>, Option<(Command, Progress)>) {
        self.machines.get(usize::from(id.0)).map_or((None, None), |m| (m.task, m.link.in_flight()))
    }

    /// One cycle. `now` never goes backwards. Does not allocate, block or panic.
    pub fn cycle(&mut self, now: Millis, inputs: &Inputs<'_>, out: &mut Outputs) {
        out.events.clear();
        self.cycles = self.cycles.wrapping_add(1);

        let image = inputs.image;
        self.watch_ownership(now, image, &mut out.events);
        self.watch_machines(now, image, &mut out.events);
        let recovered = self.recover(now, image, &mut out.events);
        self.set_run_state(now, recovered, inputs.degraded, &mut out.events);
        self.intake(now, image, inputs.requests, &mut out.events);
        if recovered && self.run != RunState::Fenced {
            self.read_back(now, image, &mut out.events);
            self.sense(now, image, &mut out.events);
            self.rehome_one(now, &mut out.events);
            self.settle(now, &mut out.events);
            self.act(now, image, &mut out.events);
        }
        self.publish(out);
    }

    /// A machine that has been ours and shows a higher token has another owner now. There is no way back. A higher token on
    /// a machine that has not been ours yet is an older owner's: the claim is raised above it.
    fn watch_ownership(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        if !self.claimed || self.run == RunState::Fenced {
            return;
        }
        for id in self.layout.machine_ids() {
            let seen = image.machine(id);
            let Some(status) = seen.fresh(now, self.settings.stale_ms) else { continue };
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            machine.owned |= status.token == self.token;
            if status.token <= self.token {
                continue;
            }
            if machine.owned {
                return self.enter(now, RunState::Fenced, events);
            }
            self.token = status.token.saturating_add(1);
        }
    }

    /// Notes who left AUTO and who started anew.
    fn watch_machines(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        for id in self.layout.machine_ids() {
            let seen = image.machine(id);
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            if let Some(status) = seen.fresh(now, self.settings.stale_ms) {
                let auto =
                    status.mode == crate::image::Mode::Auto && status.interlocks & interlock::EMERGENCY_STOP == 0;
                machine.needs_acknowledge |= !auto;
                machine.was_auto = auto;
                if machine.handshaken && machine.boot != status.boot {
                    machine.handshaken = false;
                    events.push(now, EventKind::MachineRebooted(id));
                    // The rack knows the positions: when it starts anew, everything is read again. The cell does not.
                    if id != self.layout.cell() {
                        self.recover_since = None;
                    }
                }
            }
            let hold =
                interlock::permit(&seen, now, self.settings.stale_ms, machine.handshaken, machine.needs_acknowledge)
                    .err();
            match (machine.hold, hold) {
                (None, Some(why)) => events.push(now, EventKind::MachineHeld(id, why)),
                (Some(old), Some(why)) if old != why => events.push(now, EventKind::MachineHeld(id, why)),
                (Some(_), None) => events.push(now, EventKind::MachineReleased(id)),
                _ => {}
            }
            machine.hold = hold;
        }
    }

    fn set_run_state(&mut self, now: Millis, recovered: bool, degraded: bool, events: &mut Events) {
        let next = match self.run {
            RunState::Fenced => RunState::Fenced,
            RunState::Safe => RunState::Safe,
            _ if !recovered => RunState::Recover,
            _ if self.draining && !self.machines.iter().any(|m| m.link.busy() || m.task.is_some()) => RunState::Safe,
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
    pub(crate) fn move_load(&mut self, load: LoadId, from: Option<PosId>, to: Option<PosId>, now: Millis) {
        if let Some(from) = from
            && self.stock.at(from) == Some(load)
        {
            self.stock.set(from, None, now);
        }
        if let Some(to) = to {
            self.stock.set(to, Some(load), now);
        }
        if let Some(order) = self.orders.by_load(load) {
            order.at = to;
        }
    }

    fn publish(&self, out: &mut Outputs) {
        out.image.cycle = self.cycles;
        out.image.heartbeat = (self.cycles & 0xFFFF) as u16;
        out.image.token = self.token;
        out.image.authority = matches!(self.run, RunState::Running | RunState::Degraded);
        out.image.write = self.claimed && self.run != RunState::Fenced;
        out.image.commands = self.commands;
        for (slot, machine) in out.image.acknowledged.iter_mut().zip(&self.machines) {
            *slot = machine.acknowledged;
        }
    }
}
