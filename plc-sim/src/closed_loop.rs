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
use control_core::image::{Quality, Stamped};
use control_core::order::OrderRequest;
use control_core::units::{LoadId, MachineId, Millis, PosId};
use control_core::{Controller, Event, InputImage, Inputs, Outputs, Settings};
use device_drivers::block::{CommandBlock, Owner, decode_status, encode_command};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Control period, milliseconds.
pub const PERIOD_MS: u64 = 10;
const POLL_MS: u64 = 50;
const BAY_POLL_MS: u64 = 1_000;
const HEARTBEAT_MS: u64 = 100;

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
pub struct ClosedLoop {
    /// The plant; tests may break it.
    pub plant: Plant,
    /// The controller.
    pub controller: Controller,
    /// The link; tests may change it.
    pub faults: LinkFaults,
    /// Everything that happened.
    pub trace: Vec<Event>,
    /// Nothing is read or written while false: the cable is out.
    pub connected: bool,
    image: InputImage,
    out: Outputs,
    requests: VecDeque<Request>,
    late: Vec<Late>,
    last_seq: Vec<u32>,
    now_ms: u64,
    rng: fastrand::Rng,
    hash: DefaultHasher,
}

impl ClosedLoop {
    /// A floor from a seed.
    pub fn new(config: PlantConfig, seed: u64, faults: LinkFaults) -> Result<ClosedLoop, String> {
        let plant = Plant::new(config, seed, 1)?;
        let controller = Controller::new(*plant.layout(), Settings::default());
        let machines = usize::from(plant.layout().machines());
        Ok(ClosedLoop {
            plant,
            controller,
            faults,
            trace: Vec::new(),
            connected: true,
            image: InputImage::default(),
            out: Outputs::default(),
            requests: VecDeque::new(),
            late: Vec::new(),
            last_seq: vec![0; machines],
            now_ms: 0,
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            hash: DefaultHasher::new(),
        })
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
        self.controller = Controller::new(*self.plant.layout(), Settings::default());
        self.image = InputImage::default();
        self.out = Outputs::default();
        self.last_seq.fill(0);
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
        let layout = self.plant.layout();
        let mut text = format!("{:?}, {} orders\n", self.controller.run_state(), self.controller.orders().len());
        let bays = u16::from(layout.tiers()) * layout.bays_per_tier();
        for pos in (bays..layout.positions()).map(PosId) {
            let (real, believed) = (self.plant.loads().at(pos), self.controller.stock().at(pos));
            if real.is_some() || believed.is_some() {
                let _ = writeln!(text, "  {:?}: plant {real:?}, believed {believed:?}", layout.place(pos));
            }
        }
        for id in layout.machine_ids() {
            let (hold, job) = (self.controller.hold(id), self.plant.machine(id).and_then(|m| m.job()));
            let _ = writeln!(text, "  {id:?}: hold {hold:?}, doing {job:?}, asked {:?}", self.controller.busy_with(id));
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
            let inputs = Inputs { image: &self.image, requests: &requests, degraded: false };
            let (controller, out, now) = (&mut self.controller, &mut self.out, Millis(self.now_ms));
            around_cycle(&mut || controller.cycle(now, &inputs, out));
            for event in self.out.events.iter() {
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
        let (layout, at) = (*self.plant.layout(), Millis(self.now_ms));
        for id in layout.machine_ids() {
            let words = self.plant.status_block(id);
            if let Some(value) = words.and_then(|w| decode_status(&w)) {
                self.image.set_machine(id, Stamped { value, quality: Quality::Good, at });
            }
        }
        let bays = u16::from(layout.tiers()) * layout.bays_per_tier();
        let first = if self.now_ms.is_multiple_of(BAY_POLL_MS) { 0 } else { bays };
        for pos in (first..layout.sensed()).map(PosId) {
            let value: Option<LoadId> = self.plant.loads().at(pos);
            self.image.set_position(pos, Stamped { value, quality: Quality::Good, at });
        }
    }

    fn write(&mut self) {
        if !self.connected || !self.out.image.write {
            return;
        }
        let layout = *self.plant.layout();
        for id in layout.machine_ids() {
            let command = self.out.image.command(id);
            let seq = command.map_or(0, |c| c.seq);
            let Some(last) = self.last_seq.get_mut(usize::from(id.0)) else { continue };
            let due = *last != seq || self.now_ms.is_multiple_of(HEARTBEAT_MS);
            *last = seq;
            if !due || self.rng.f64() < self.faults.write_lost {
                continue;
            }
            let image = &self.out.image;
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

// A controller of the plant must be as replayable as the plant: it holds no hidden clock or random number.
const _: fn() = || {
    fn replayable<T: Clone>() {}
    replayable::<MachinePlc>();
    replayable::<Controller>();
};
