//! The order of it all: first understand, then act.
//!
//! ```text
//!   image ─> recovered? ─> requests (K) ─> read back commands ─> conveyors, audit ─> orders ─> dispatch ─> commands
//!            `recover`      `intake`        `read_back`           `sense`            `settle`   `act`
//! ```
//!
//! Bounds of one cycle, with M machines, O orders, P positions: requests <= [`REQUESTS_PER_CYCLE`] (each looks at
//! the free bays once: P); read-back M; conveyors 4; audit [`AUDIT_PER_CYCLE`]; legs O; choices M x O. No allocation,
//! no recursion; the only full pass over P x O is the rebuild after a recovery.

use crate::command::{CommandLink, Outcome, Progress};
use crate::dispatch::{self, Candidates, Leg, Task};
use crate::event::{EventKind, Events, OrderFault, RunState};
use crate::image::{Command, CommandCode, InputImage, MachineStatus, OutputImage, Reason};
use crate::interlock::{self, Hold};
use crate::layout::{Layout, MachineKind, Place};
use crate::limits::{ATTEMPTS_MAX, MACHINES_MAX, REQUESTS_PER_CYCLE};
use crate::order::{Order, OrderKind, OrderRequest, Orders};
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
    /// At most [`REQUESTS_PER_CYCLE`] are looked at.
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
    needs_acknowledge: bool,
    was_auto: bool,
    hold: Option<Hold>,
    near: Option<PosId>,
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
    commands: [Option<Command>; MACHINES_MAX],
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
        self.intake(now, inputs.requests, &mut out.events);
        if recovered && self.run != RunState::Fenced {
            self.read_back(now, image, &mut out.events);
            self.sense(now, image, &mut out.events);
            self.settle(now, &mut out.events);
            self.act(now, image, &mut out.events);
        }
        self.publish(out);
    }

    /// A higher token anywhere means that another runtime owns the plant now. There is no way back.
    fn watch_ownership(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        if !self.claimed || self.run == RunState::Fenced {
            return;
        }
        let highest = self.layout.machine_ids().map(|id| image.machine(id).value.token).max();
        if highest > Some(self.token) {
            self.enter(now, RunState::Fenced, events);
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

    fn intake(&mut self, now: Millis, requests: &[Request], events: &mut Events) {
        for request in requests.iter().take(REQUESTS_PER_CYCLE) {
            match request {
                Request::Order(request) => self.accept(now, *request, events),
                Request::Acknowledge => {
                    for machine in &mut self.machines {
                        machine.needs_acknowledge &= !machine.was_auto;
                    }
                }
                Request::Drain => self.draining = true,
            }
        }
    }

    fn accept(&mut self, now: Millis, request: OrderRequest, events: &mut Events) {
        match self.admit(now, request) {
            Ok(order) => {
                self.counters.orders_accepted += 1;
                let load = order.request.load;
                events.push(now, EventKind::OrderAccepted(order.request.id, load));
            }
            Err(why) => {
                self.counters.orders_rejected += 1;
                events.push(now, EventKind::OrderRejected(request.id, why));
            }
        }
    }

    /// Checks an order and enters it. An order that ends in the rack leaves here with a bay promised.
    pub(crate) fn admit(&mut self, now: Millis, request: OrderRequest) -> Result<Order, OrderFault> {
        if self.draining {
            return Err(OrderFault::Draining);
        }
        if !matches!(self.run, RunState::Running | RunState::Degraded) {
            return Err(OrderFault::NotReady);
        }
        if self.orders.by_id(request.id).is_some() {
            return Err(OrderFault::DuplicateId);
        }
        if self.orders.is_full() {
            return Err(OrderFault::TableFull);
        }
        if let Some(other) = self.orders.by_load(request.load) {
            // A load that was adopted because nobody had asked for it follows the one who asks now, where it fits.
            let adopted = other.request.id.0 & crate::order::ADOPTED != 0;
            if !(adopted && request.kind == OrderKind::Store && !other.started) {
                return Err(OrderFault::LoadBusy);
            }
            let old = other.request.id;
            self.drop_order(old);
        }
        let mut order = Order::new(request, now);
        order.at = self.stock.find(request.load);
        if order.at.is_none() && request.kind != OrderKind::Store {
            return Err(OrderFault::UnknownLoad);
        }
        if order.needs_home() {
            order.home = Some(self.promise_bay(request.load, order.at).ok_or(OrderFault::RackFull)?);
        }
        self.orders.add(order).map_err(|_| OrderFault::TableFull)?;
        Ok(order)
    }

    /// Promises a bay to a load: its own if it stands in one, else the nearest free bay of the tier with the fewest
    /// promises among the tiers whose shuttle may be commanded (any tier if none may).
    pub(crate) fn promise_bay(&mut self, load: LoadId, at: Option<PosId>) -> Option<PosId> {
        if let Some(here) = at
            && matches!(self.layout.place(here), Some(Place::Bay { .. }))
            && self.stock.free_for(here, load)
        {
            self.stock.reserve(here, load);
            return Some(here);
        }
        let tier_of = |o: &Order| o.home.and_then(|h| self.layout.tier(h));
        let held = |m: MachineId| self.hold(m).is_some();
        let bay = (0..self.layout.tiers())
            .map(crate::units::Tier)
            .filter_map(|tier| {
                let busy = self.orders.iter().filter(|o| tier_of(o) == Some(tier)).count();
                let door = self.layout.pos(Place::TransferIn(tier));
                let nearest = self
                    .layout
                    .bays(tier)
                    .filter(|bay| self.stock.free_for(*bay, load) && self.stock.at(*bay).is_none())
                    .min_by_key(|bay| (self.layout.steps(self.layout.shuttle(tier), door, *bay), *bay))?;
                Some((held(self.layout.shuttle(tier)), busy, tier, nearest))
            })
            .min_by_key(|(held, busy, tier, _)| (*held, *busy, *tier))
            .map(|(.., nearest)| nearest)?;
        self.stock.reserve(bay, load);
        Some(bay)
    }

    /// Takes an order out of the tables. What a machine is doing for it is brought to its end.
    fn drop_order(&mut self, id: OrderId) {
        if let Some(order) = self.orders.remove(id)
            && let Some(home) = order.home
        {
            self.stock.release(home, order.request.load);
        }
    }

    pub(crate) fn complete(&mut self, now: Millis, id: OrderId, events: &mut Events) {
        self.counters.orders_completed += 1;
        events.push(now, EventKind::OrderCompleted(id));
        self.drop_order(id);
    }

    pub(crate) fn fail(&mut self, now: Millis, id: OrderId, why: OrderFault, events: &mut Events) {
        self.counters.orders_failed += 1;
        events.push(now, EventKind::OrderFailed(id, why));
        self.drop_order(id);
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

    /// Reads back every command in flight and draws the consequences of those that have ended.
    fn read_back(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        for id in self.layout.machine_ids() {
            let seen = image.machine(id);
            let Some(status) = seen.fresh(now, self.settings.stale_ms) else { continue };
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            let ended = machine.link.observe(status, image.written(id));
            let task = machine.task;

            if id == self.layout.cell()
                && let Some(task) = task
                && status.load == Some(task.load)
                && self.stock.at(task.source) == Some(task.load)
            {
                let deck = self.layout.pos(Place::Deck(id));
                self.move_load(task.load, Some(task.source), Some(deck), now);
            }
            if let Some((command, outcome)) = ended {
                events.push(now, EventKind::CommandEnded { machine: id, seq: command.seq, outcome });
                self.conclude(now, id, &command, outcome, status, events);
            }
        }
    }

    fn conclude(
        &mut self,
        now: Millis,
        id: MachineId,
        command: &Command,
        outcome: Outcome,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        let deck = self.layout.pos(Place::Deck(id));
        match outcome {
            Outcome::Done => self.counters.commands_done += 1,
            Outcome::Expired => self.counters.commands_expired += 1,
            Outcome::Failed(_) | Outcome::Rejected(_) => self.counters.commands_failed += 1,
        }
        let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { return };
        machine.near = Some(command.pos);
        let Some(task) = machine.task else { return };

        if outcome == Outcome::Done {
            match command.code {
                CommandCode::Pick => self.move_load(task.load, Some(command.pos), Some(deck), now),
                CommandCode::Place => self.move_load(task.load, Some(deck), Some(command.pos), now),
                CommandCode::Start => {
                    let from = if self.stock.at(deck) == Some(task.load) { deck } else { task.source };
                    self.move_load(task.load, Some(from), Some(task.target), now);
                    if let Some(order) = self.orders.by_load(task.load) {
                        order.processed = true;
                    }
                }
                CommandCode::None => {}
            }
            if command.code != CommandCode::Pick {
                self.end_task(id);
            }
            return;
        }

        // Not done. The machine says what it carries; belief follows, and the next leg is derived anew.
        match (status.load, self.stock.at(deck)) {
            (Some(load), None) if load == task.load => self.move_load(load, Some(task.source), Some(deck), now),
            (None, Some(load)) => self.move_load(load, Some(deck), None, now),
            _ => {}
        }
        self.end_task(id);
        let own_fault = !matches!(
            outcome,
            Outcome::Expired
                | Outcome::Failed(Reason::OwnerLost | Reason::Aborted)
                | Outcome::Rejected(
                    Reason::Busy | Reason::NotAuto | Reason::Interlocked | Reason::NoAuthority | Reason::BadBlock
                )
        );
        let Some(order) = self.orders.by_load(task.load) else { return };
        order.attempts = order.attempts.saturating_add(u8::from(own_fault));
        order.retry_at = now.plus(500 << order.attempts.min(ATTEMPTS_MAX));
        if order.attempts >= ATTEMPTS_MAX {
            let order = order.request.id;
            self.fail(now, order, OrderFault::TooManyAttempts, events);
        }
    }

    pub(crate) fn end_task(&mut self, id: MachineId) {
        if let Some(machine) = self.machines.get_mut(usize::from(id.0))
            && let Some(task) = machine.task.take()
        {
            let home = self.orders.by_load(task.load).and_then(|o| o.home);
            if home != Some(task.target) {
                self.stock.release(task.target, task.load);
            }
        }
    }

    /// Ends the orders whose load has arrived, or cannot be brought to its goal any more.
    fn settle(&mut self, now: Millis, events: &mut Events) {
        let mut ended: heapless::Vec<(OrderId, Option<OrderFault>), { MACHINES_MAX * 2 }> = heapless::Vec::new();
        for order in self.orders.iter_mut() {
            let verdict = match order.at {
                Some(here) => {
                    order.missing_since = None;
                    match dispatch::next_leg(&self.layout, here, order.goal()) {
                        Leg::Arrived => None,
                        Leg::Gone => Some(OrderFault::LeftPlant),
                        Leg::Carry { .. } | Leg::Wait => continue,
                    }
                }
                None if order.request.kind == OrderKind::Store && !order.started => {
                    if now.since(order.accepted_at) < u64::from(order.request.wait_ms) {
                        continue;
                    }
                    Some(OrderFault::NeverArrived)
                }
                None => {
                    let since = *order.missing_since.get_or_insert(now);
                    if now.since(since) < self.settings.missing_ms {
                        continue;
                    }
                    Some(OrderFault::LoadMissing)
                }
            };
            if ended.push((order.request.id, verdict)).is_err() {
                break; // the rest is looked at in the next cycle
            }
        }
        for (id, verdict) in ended {
            match verdict {
                None => self.complete(now, id, events),
                Some(why) => self.fail(now, id, why, events),
            }
        }
    }

    /// Gives free machines a leg, and machines with a leg their next command.
    fn act(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        let may_start = self.run == RunState::Running;
        let mut candidates = Candidates::new();
        if may_start {
            let legs = self.orders.iter().filter_map(|o| dispatch::candidate(&self.layout, &self.stock, o, now));
            for c in legs {
                if dispatch::sensors_agree(&self.layout, image, now, self.settings.position_stale_ms, &c.task) {
                    let _ = candidates.push(c); // as many places as orders
                }
            }
        }
        for id in self.layout.machine_ids() {
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            if machine.hold.is_some() || machine.link.busy() {
                continue;
            }
            let status = image.machine(id).value;
            if machine.task.is_none() && may_start && !self.draining {
                let near = machine.near.unwrap_or(PosId(0));
                let Some(task) = dispatch::choose(&self.layout, id, near, &status, &candidates) else { continue };
                if !self.stock.free_for(task.target, task.load) {
                    continue; // taken by a machine earlier in this very cycle
                }
                self.stock.reserve(task.target, task.load);
                machine.task = Some(task);
                if let Some(order) = self.orders.by_load(task.load)
                    && !order.started
                {
                    order.started = true;
                    events.push(now, EventKind::OrderStarted(task.order));
                }
            }
            if may_start || self.draining {
                self.command(now, id, &status, events);
            }
        }
    }

    /// Makes the command that brings a machine's leg on.
    fn command(&mut self, now: Millis, id: MachineId, status: &MachineStatus, events: &mut Events) {
        let deck = self.layout.pos(Place::Deck(id));
        let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { return };
        let Some(task) = machine.task else { return };
        let (code, pos) = match self.layout.kind(id) {
            Some(MachineKind::Cell) => (CommandCode::Start, crate::cell::in_port(&self.layout)),
            _ if self.stock.at(deck) == Some(task.load) => (CommandCode::Place, task.target),
            _ if self.draining => {
                self.end_task(id);
                return;
            }
            _ => (CommandCode::Pick, task.source),
        };
        let command = machine.link.issue(status, code, pos, task.load, task.program, self.settings.valid_ms);
        if let Some(slot) = self.commands.get_mut(usize::from(id.0)) {
            *slot = Some(command);
        }
        self.counters.commands_sent += 1;
        events.push(now, EventKind::CommandIssued { machine: id, seq: command.seq, code, pos, load: task.load });
    }

    fn publish(&self, out: &mut Outputs) {
        out.image.cycle = self.cycles;
        out.image.heartbeat = (self.cycles & 0xFFFF) as u16;
        out.image.token = self.token;
        out.image.authority = matches!(self.run, RunState::Running | RunState::Degraded);
        out.image.write = self.claimed && self.run != RunState::Fenced;
        out.image.commands = self.commands;
    }
}
