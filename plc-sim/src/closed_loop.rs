//! Plant and controller joined without a socket, in virtual time: hours of plant time in seconds, equal on every replay.
//!
//! ```text
//!   Plant ──status words, sensors──> link (loses, delays) ──> InputImage ─┐
//!     ^                                                                   ├─ Controller::cycle
//!     └──────command words────────── link (loses, delays) <── OutputImage ┘
//! ```
//!
//! What travels are the real words of the register map, through the drivers' codec on one side and the controllers' on
//! the other. The link loses reads, writes and acknowledgements and delays writes, as its [`LinkFaults`] say.

use crate::config::PlantConfig;
use crate::plant::Plant;
use crate::plc::MachinePlc;
use control_core::cycle::{Counters, Request};
use control_core::event::Events;
use control_core::floor::ZoneKind;
use control_core::image::{Quality, Stamped};
use control_core::limits::Capacity;
use control_core::order::OrderRequest;
use control_core::resume::Resume;
use control_core::traffic::roads::Place;
use control_core::units::{LoadId, MachineId, Millis, PosId, ZoneId};
use control_core::{Controller, Event, Inputs, Settings};
use device_drivers::block::{CommandBlock, Owner, decode_status, encode_command};
use floor_plan::{Arena, Closed, FloorPlan, InputBuffer};
use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Control period, milliseconds.
pub const PERIOD_MS: u64 = 10;
const POLL_MS: u64 = 50;
const BAY_POLL_MS: u64 = 1_000;
const HEARTBEAT_MS: u64 = 100;
/// Orders there may be.
const ORDERS: usize = 1_024;

/// How bad the link is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFaults {
    /// Probability that a poll brings nothing.
    pub read_lost: f64,
    /// Probability that a write does not arrive.
    pub write_lost: f64,
    /// Probability that a write arrives and its acknowledgement does not.
    pub ack_lost: f64,
    /// Writes take up to this long, milliseconds; later ones may overtake.
    pub delay_ms_max: u64,
}

struct Late {
    at_ms: u64,
    machine: MachineId,
    seq: u32,
    words: CommandBlock,
}

/// The whole floor in virtual time.
pub struct ClosedLoop<'m> {
    /// The plant; tests may break it.
    pub plant: Plant,
    /// The controller.
    pub controller: Controller<'m>,
    /// Settings of the controller, also of the next one.
    pub settings: Settings,
    /// The link; tests may change it.
    pub faults: LinkFaults,
    /// Everything that happened.
    pub trace: Vec<Event>,
    /// Nothing is read or written while false: the cable is out.
    pub connected: bool,
    /// The floor as the controller knows it.
    plan: Arc<FloorPlan>,
    closings: u32,
    /// Machines that can neither be read nor written: their own link is out.
    pub silent: BTreeSet<MachineId>,
    arena: &'m Arena,
    image: InputBuffer,
    events: Events,
    requests: VecDeque<Request>,
    late: Vec<Late>,
    last_seq: Vec<u32>,
    now_ms: u64,
    rng: fastrand::Rng,
    hash: DefaultHasher,
}

/// What the controller of a floor is made for: one order a machine, or [`ORDERS`].
fn capacity(plan: &FloorPlan) -> Capacity {
    Capacity::of(&plan.view(), ORDERS.max(plan.machine_count()))
}

impl<'m> ClosedLoop<'m> {
    /// A floor from a seed. The controller lives in `arena`.
    pub fn new(arena: &'m Arena, config: PlantConfig, seed: u64, faults: LinkFaults) -> Result<ClosedLoop<'m>, String> {
        let mut settings = Settings::default();
        settings.traffic.step_ms = config.plan.step_ms();
        ClosedLoop::with_settings(arena, config, seed, faults, settings)
    }

    /// The same with other settings of the controller.
    pub fn with_settings(
        arena: &'m Arena,
        config: PlantConfig,
        seed: u64,
        faults: LinkFaults,
        settings: Settings,
    ) -> Result<ClosedLoop<'m>, String> {
        let plan = config.plan.clone();
        let plant = Plant::new(config, seed, 1)?;
        Ok(ClosedLoop {
            plant,
            controller: Controller::new(&arena, &capacity(&plan), settings),
            settings,
            faults,
            trace: Vec::new(),
            connected: true,
            plan: plan.clone(),
            closings: 0,
            silent: BTreeSet::new(),
            arena,
            image: InputBuffer::new(plan.machine_count(), plan.position_count()),
            events: Events::default(),
            requests: VecDeque::new(),
            late: Vec::new(),
            last_seq: vec![0; plan.machine_count()],
            now_ms: 0,
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            hash: DefaultHasher::new(),
        })
    }

    /// Closes these places and zones, and opens all others, and all roads.
    pub fn close(&mut self, places: &[Place], zones: &[ZoneId]) {
        self.close_all(&Closed {
            places: places.iter().copied().collect(),
            zones: zones.iter().copied().collect(),
            ..Closed::default()
        });
    }

    /// Closes all this, and opens all else.
    pub fn close_all(&mut self, closed: &Closed) {
        self.closings += 1;
        self.plan = Arc::new(self.plant.plan().with_closed(closed, self.closings));
    }

    /// The floor.
    pub fn plan(&self) -> &FloorPlan {
        self.plant.plan()
    }

    /// Hands in an order.
    pub fn order(&mut self, request: OrderRequest) {
        self.requests.push_back(Request::Order(request));
    }

    /// Hands in another request.
    pub fn request(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Replaces the controller by one that knows nothing, as after a kill of the agent.
    /// What the old one has sent is still on its way.
    pub fn restart_controller(&mut self) {
        let plan = self.plant.plan();
        self.controller = Controller::new(&self.arena, &capacity(plan), self.settings);
        self.image = InputBuffer::new(plan.machine_count(), plan.position_count());
        self.events = Events::default();
        self.last_seq.fill(0);
    }

    /// The same, and the next one takes these orders back.
    pub fn restart_with(&mut self, orders: &[Resume]) {
        self.restart_controller();
        let plan = self.plan.clone();
        for order in orders {
            self.controller.resume(Millis(self.now_ms), &plan.view(), order, &mut self.events);
            self.trace.extend(self.events.iter());
            self.events.clear();
        }
    }

    /// The plant goes on for so many milliseconds, and no controller looks.
    pub fn run_alone(&mut self, ms: u64) {
        for _ in 0..ms / PERIOD_MS {
            self.now_ms += PERIOD_MS;
            self.plant.step(PERIOD_MS as f64 / 1000.0);
            self.deliver_late();
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Millis {
        Millis(self.now_ms)
    }

    /// The controller's counters.
    pub fn counters(&self) -> Counters {
        self.controller.counters()
    }

    /// A number that is equal if and only if everything that was decided and happened was equal.
    pub fn trace_hash(&self) -> u64 {
        self.hash.clone().finish()
    }

    /// What stands outside the bays, who is held and what is in flight: for the text of a failing test.
    pub fn situation(&self) -> String {
        use std::fmt::Write;
        let plan = self.plant.plan();
        let mut text = format!("{:?}, {} orders\n", self.controller.run_state(), self.controller.orders().len());
        let floor = plan.view();
        for pos in (0..floor.positions()).map(PosId).filter(|p| !floor.is_bay(*p)) {
            let (real, believed) = (self.plant.loads().at(pos), self.controller.stock().at(pos));
            if real.is_some() || believed.is_some() {
                let _ = writeln!(text, "  {}: plant {real:?}, believed {believed:?}", plan.position_name(pos));
            }
        }
        for id in floor.machine_ids() {
            let (hold, machine) = (self.controller.hold(id), self.plant.machine(id));
            let job = machine.and_then(|m| m.job()).map(|j| (j.code, j.pos, j.load));
            let at = machine.and_then(|m| m.robot()).map(|r| (r.at(), r.towards(), r.charge()));
            let asked = self.controller.busy_with(id);
            if hold.is_some() || job.is_some() || asked.0.is_some() || asked.1.is_some() {
                let _ = writeln!(
                    text,
                    "  {}: hold {hold:?}, at {at:?}, doing {job:?}, asked {asked:?}",
                    plan.machine_name(id)
                );
            }
        }
        let traffic = self.controller.traffic();
        for (id, v, _) in floor.robots() {
            let (path, base): (Vec<_>, Vec<_>) = (traffic.path(v).collect(), traffic.base(v).collect());
            let goal = traffic.goal(v);
            let to = (0..floor.roads().places() as u16).find(|p| floor.roads().from_place(goal, *p) == 0);
            let state = traffic.state(v);
            let _ = writeln!(text, "  {}: to {to:?}, path {path:?}, base {base:?}, {state:?}", plan.machine_name(id));
        }
        for (_, order) in self.controller.orders().iter().take(12) {
            let _ =
                writeln!(text, "  {:?} at {:?} stop {} goal {:?}", order.request, order.at, order.stop, order.goal());
        }
        text
    }

    /// Runs for so many milliseconds; `around_cycle` is given each cycle to call, and may measure it.
    pub fn run_for(&mut self, ms: u64, mut around_cycle: impl FnMut(&mut dyn FnMut())) {
        for _ in 0..ms / PERIOD_MS {
            self.now_ms += PERIOD_MS;
            self.plant.step(PERIOD_MS as f64 / 1000.0);
            self.deliver_late();
            self.read();
            let count = self.requests.len().min(control_core::limits::REQUESTS_PER_CYCLE);
            let requests: Vec<Request> = self.requests.drain(..count).collect();
            let plan = self.plan.clone();
            let floor = plan.view();
            let inputs = Inputs { floor: &floor, image: self.image.view(), requests: &requests, degraded: false };
            let (controller, events, now) = (&mut self.controller, &mut self.events, Millis(self.now_ms));
            around_cycle(&mut || controller.cycle(now, &inputs, events));
            for event in self.events.iter() {
                event.hash(&mut self.hash);
                self.trace.push(*event);
            }
            self.write();
        }
    }

    /// Runs for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        self.run_for(ms, |cycle| cycle());
    }

    fn read(&mut self) {
        let poll = self.now_ms.is_multiple_of(POLL_MS);
        if !poll || !self.connected || self.rng.f64() < self.faults.read_lost {
            return;
        }
        let (plan, at) = (self.plant.plan().clone(), Millis(self.now_ms));
        let floor = plan.view();
        for id in floor.machine_ids().filter(|id| !self.silent.contains(id)) {
            let words = self.plant.status_block(id);
            if let Some(value) = words.and_then(|w| decode_status(&w)) {
                self.image.set_machine(id, Stamped { value, quality: Quality::Good, at });
            }
        }
        let bays_too = self.now_ms.is_multiple_of(BAY_POLL_MS);
        let read = |kind| match kind {
            ZoneKind::Bays => bays_too,
            ZoneKind::Lane => true,
            ZoneKind::Deck(_) => false,
        };
        for pos in floor.zone_ids().filter(|(_, z)| read(z.kind)).flat_map(|(_, z)| z.positions()) {
            let value: Option<LoadId> = self.plant.loads().at(pos);
            self.image.set_position(pos, Stamped { value, quality: Quality::Good, at });
        }
    }

    fn write(&mut self) {
        let image = self.controller.output();
        if !self.connected || !image.write {
            return;
        }
        for n in 0..self.last_seq.len() {
            let id = MachineId(n as u16);
            let command = image.command(id);
            let seq = command.map_or(0, |c| c.seq);
            let Some(last) = self.last_seq.get_mut(n) else { continue };
            let due = *last != seq || self.now_ms.is_multiple_of(HEARTBEAT_MS);
            *last = seq;
            if !due || self.silent.contains(&id) || self.rng.f64() < self.faults.write_lost {
                continue;
            }
            let owner = Owner {
                token: image.token,
                heartbeat: image.heartbeat,
                authority: image.authority,
                acknowledged: image.acknowledged(id),
            };
            let words = encode_command(owner, command);
            let delay = if self.faults.delay_ms_max > 0 { self.rng.u64(0..=self.faults.delay_ms_max) } else { 0 };
            self.late.push(Late { at_ms: self.now_ms + delay, machine: id, seq, words });
        }
    }

    fn deliver_late(&mut self) {
        let now = self.now_ms;
        for late in self.late.extract_if(.., |l| l.at_ms <= now).collect::<Vec<_>>() {
            self.plant.write_block(late.machine, 0, &late.words);
            if self.rng.f64() >= self.faults.ack_lost {
                self.image.set_written(late.machine, late.seq);
            }
        }
    }
}

// A machine's controller must be as replayable as the plant: it holds no hidden clock or random number.
const _: fn() = || {
    fn replayable<T: Clone>() {}
    replayable::<MachinePlc>();
};
