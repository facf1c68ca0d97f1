//! The control thread: one OS thread that keeps the beat (DESIGN section 3).
//!
//! ```text
//!   sleep until the next beat ─> newest input image ─> requests (K) ─> Controller::cycle ─> output images ─> events
//!        ^                                                                                                   │
//!        └────────── late? skip the beats that are over, keep the phase, count them ─────────────────────────┘
//! ```
//!
//! It never waits for anybody: images are swapped whole through triple buffers, requests and events go through rings
//! with one writer and one reader. What it counts are plain atomics, read by whoever wants to.

pub mod rt;
mod shown;

pub use shown::{LegShown, MachineShown, OrderShown, ROBOT_STATES, RobotShown, RobotState, Shown, ShownDesk};

use crate::clock::{Clock, nanos_between};
use crate::config::plan::ControlPlan;
use crate::metrics::histogram::Histogram;
use control_core::cycle::{Request, Settings};
use control_core::event::Events;
use control_core::event::RunState;
use control_core::limits::{Capacity, REQUESTS_PER_CYCLE};
use control_core::resume::Resume;
use control_core::{Controller, Event, Inputs, traffic};
use floor_plan::{Arena, FloorPlan, InputBuffer, OutputBuffer};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Events between control thread and order desk: 32 cycles of the worst case, thousands of the usual one.
pub const EVENTS: usize = 8192;
/// Requests between order desk and control thread; beyond that an order is refused at the door.
pub const REQUESTS: usize = 256;
/// So many late cycles in a row are too many.
const LATE_IN_A_ROW: u32 = 3;
/// Nor may this much time pass without a completed cycle, nanoseconds.
const GAP_MAX_NS: u64 = 100_000_000;
/// After so many cycles in time the beat is trusted again.
const IN_TIME_AGAIN: u32 = 50;
/// What is decided is shown this often, nanoseconds.
const SHOW_EVERY_NS: i64 = 100_000_000;

/// What the control thread counts.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Cycles completed.
    pub cycles: AtomicU64,
    /// Beats that were skipped because a cycle was late.
    pub missed: AtomicU64,
    /// Time a cycle takes.
    pub exec: Histogram,
    /// Time from the beat to the start of the cycle.
    pub wake: Histogram,
    /// Events that did not fit into the ring.
    pub events_lost: AtomicU64,
    /// Orders that are not ended.
    pub orders_active: AtomicU64,
    /// Counters of the core, in the order of its struct.
    pub counters: [AtomicU64; 9],
    /// Age of the input image's newest machine status, milliseconds.
    pub image_age_ms: AtomicU64,
    /// 1 when every permission for real time was granted.
    pub realtime: AtomicBool,
    /// Bytes of the core's tables; all of them asked for before the first cycle.
    pub table_bytes: AtomicU64,
    run: AtomicU8,
}

const RUN_STATES: [RunState; 6] =
    [RunState::Starting, RunState::Recover, RunState::Running, RunState::Degraded, RunState::Fenced, RunState::Safe];

impl ControlStats {
    /// State of the runtime.
    pub fn run_state(&self) -> RunState {
        RUN_STATES.get(usize::from(self.run.load(Relaxed))).copied().unwrap_or_default()
    }

    /// All states with their names, the present one marked.
    pub fn run_states(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let now = self.run_state();
        RUN_STATES.into_iter().map(move |s| (run_state_name(s), s == now))
    }

    fn take_over(&self, controller: &Controller<'_>) {
        let c = controller.counters();
        let values = [
            c.orders_accepted,
            c.orders_rejected,
            c.orders_completed,
            c.orders_failed,
            c.commands_sent,
            c.commands_done,
            c.commands_failed,
            c.commands_expired,
            c.orders_withdrawn,
        ];
        for (slot, value) in self.counters.iter().zip(values) {
            slot.store(value, Relaxed);
        }
        self.orders_active.store(controller.orders().len() as u64, Relaxed);
        let run = RUN_STATES.iter().position(|s| *s == controller.run_state()).unwrap_or(0);
        self.run.store(u8::try_from(run).unwrap_or(0), Relaxed);
    }
}

/// The name of a state in logs, metrics and answers.
pub fn run_state_name(state: RunState) -> &'static str {
    match state {
        RunState::Starting => "starting",
        RunState::Recover => "recover",
        RunState::Running => "running",
        RunState::Degraded => "degraded",
        RunState::Fenced => "fenced",
        RunState::Safe => "safe",
    }
}

/// What the control thread is connected to.
pub struct Wires {
    /// Newest input image.
    pub image: triple_buffer::Output<InputBuffer>,
    /// One output image a line, of the machines it carries.
    pub outputs: Vec<triple_buffer::Input<OutputBuffer>>,
    /// Floors that take the place of the one before: roads have been closed or opened.
    pub floors: rtrb::Consumer<Arc<FloorPlan>>,
    /// Floors that are not needed any more: somebody else gives their memory back.
    pub spent: rtrb::Producer<Arc<FloorPlan>>,
    /// What people see of the decisions.
    pub shown: triple_buffer::Input<Shown>,
    /// Requests from the order desk.
    pub requests: rtrb::Consumer<Request>,
    /// Events to the order desk.
    pub events: rtrb::Producer<Event>,
    /// Counters.
    pub stats: Arc<ControlStats>,
    /// Turns true when machines shall finish what they are doing. A flag, not a request: no flood can keep it out.
    pub drain: Arc<AtomicBool>,
    /// Turns true when the thread shall withdraw authority and end.
    pub stop: Arc<AtomicBool>,
}

/// Starts the thread, with the orders of an earlier run that go on. Returns when it has its permissions, or an error when some are missing and all are required.
pub fn start(
    plan: &ControlPlan,
    floor: Arc<FloorPlan>,
    orders: usize,
    resumes: Vec<Resume>,
    clock: Clock,
    mut wires: Wires,
) -> Result<JoinHandle<()>, String> {
    let settings = Settings {
        stale_ms: u64::try_from(plan.stale_after.as_millis()).unwrap_or(u64::MAX),
        valid_ms: u16::try_from(plan.command_valid.as_millis()).unwrap_or(u16::MAX),
        traffic: traffic::Settings { step_ms: floor.step_ms(), ..traffic::Settings::default() },
        ..Settings::default()
    };
    let (realtime, period_ns) = (plan.realtime, plan.period.as_nanos() as i64); // 1 to 100 ms, checked by the plan
    let (ready_tx, ready_rx) = std::sync::mpsc::channel();
    let handle = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            // Everything the loop touches is made here, before memory is locked; afterwards it asks for none.
            let arena = Arena::new();
            let mut controller = Controller::new(&&arena, &Capacity::of(&floor.view(), orders), settings);
            let mut events = Box::new(Events::default());
            for order in &resumes {
                controller.resume(clock.now(), &floor.view(), order, &mut events);
                tell(&mut wires, &mut events);
            }
            drop(resumes);
            wires.stats.table_bytes.store(arena.bytes() as u64, Relaxed);
            let refused = rt::enter(&realtime);
            wires.stats.realtime.store(realtime.wanted && refused.is_empty(), Relaxed);
            let go = refused.is_empty() || !realtime.required;
            let _ = ready_tx.send(refused);
            if go {
                let (late_in_a_row, in_time, degraded, shown_ns) = (0, 0, false, 0);
                Loop { controller, floor, events, clock, wires, period_ns, late_in_a_row, in_time, degraded, shown_ns }
                    .run();
            }
        })
        .map_err(|e| format!("cannot start the control thread: {e}"))?;
    let refused = ready_rx.recv().unwrap_or_default();
    if !refused.is_empty() {
        let text = refused.join("; ");
        if realtime.required {
            return Err(format!("real time is required and was not granted: {text}"));
        }
        tracing::warn!("running without full real time: {text}. Set control.realtime = \"off\" if that is meant");
    }
    Ok(handle)
}

struct Loop<'m> {
    controller: Controller<'m>,
    floor: Arc<FloorPlan>,
    events: Box<Events>,
    clock: Clock,
    wires: Wires,
    period_ns: i64,
    late_in_a_row: u32,
    in_time: u32,
    degraded: bool,
    shown_ns: i64,
}

impl Loop<'_> {
    fn run(mut self) {
        let mut beat = clock_gettime(ClockId::Monotonic);
        let mut last_end = beat;
        loop {
            beat = plus(beat, self.period_ns);
            while clock_nanosleep_absolute(ClockId::Monotonic, &beat).is_err() {} // interrupted: the beat stays
            let start = clock_gettime(ClockId::Monotonic);
            let stop = self.wires.stop.load(Relaxed);

            self.cycle();
            self.publish(stop);

            let end = clock_gettime(ClockId::Monotonic);
            let stats = &self.wires.stats;
            stats.exec.record_ns(nanos_between(start, end));
            stats.wake.record_ns(nanos_between(beat, start));
            stats.cycles.fetch_add(1, Relaxed);
            if stop {
                return;
            }
            let gap = nanos_between(last_end, end);
            last_end = end;
            beat = self.keep_phase(beat, end, gap);
        }
    }

    /// Skips the beats that are over. Returns the beat to count the next one from.
    fn keep_phase(&mut self, beat: Timespec, end: Timespec, gap_ns: u64) -> Timespec {
        let over = nanos_between(beat, end) as i64 / self.period_ns;
        if over > 0 {
            self.wires.stats.missed.fetch_add(over as u64, Relaxed);
            self.late_in_a_row += 1;
            self.in_time = 0;
        } else {
            self.late_in_a_row = 0;
            self.in_time = self.in_time.saturating_add(1);
        }
        if self.late_in_a_row >= LATE_IN_A_ROW || gap_ns > GAP_MAX_NS {
            self.degraded = true;
            self.in_time = 0;
        } else if self.in_time >= IN_TIME_AGAIN {
            self.degraded = false;
        }
        plus(beat, over * self.period_ns)
    }

    fn cycle(&mut self) {
        let mut requests: heapless::Vec<Request, REQUESTS_PER_CYCLE> = heapless::Vec::new();
        if self.wires.drain.load(Relaxed) {
            let _ = requests.push(Request::Drain);
        }
        while let Ok(request) = self.wires.requests.peek() {
            if requests.push(*request).is_err() {
                break;
            }
            let _ = self.wires.requests.pop();
        }
        if !self.wires.spent.is_full()
            && let Ok(next) = self.wires.floors.pop()
        {
            let _ = self.wires.spent.push(std::mem::replace(&mut self.floor, next)); // there is room
        }
        let now = self.clock.now();
        let image = self.wires.image.read().view();
        let inputs = Inputs { floor: &self.floor.view(), image, requests: &requests, degraded: self.degraded };
        self.controller.cycle(now, &inputs, &mut self.events);

        let newest = image.machines.iter().map(|m| m.at).max();
        self.wires.stats.image_age_ms.store(now.since(newest.unwrap_or_default()), Relaxed);
    }

    fn publish(&mut self, stop: bool) {
        let mut image = self.controller.output();
        image.authority &= !stop;
        for output in &mut self.wires.outputs {
            output.input_buffer_mut().fill(&image); // plain data: nothing is allocated or freed
            output.publish();
        }
        let mut lost = u64::from(self.events.lost());
        for event in self.events.iter() {
            lost += u64::from(self.wires.events.push(*event).is_err());
        }
        self.wires.stats.events_lost.fetch_add(lost, Relaxed);
        self.wires.stats.take_over(&self.controller);
        self.shown_ns += self.period_ns;
        if self.shown_ns >= SHOW_EVERY_NS {
            self.shown_ns = 0;
            self.wires.shown.input_buffer_mut().fill(&self.floor.view(), &self.controller);
            self.wires.shown.publish();
        }
    }
}

/// Hands events to the order desk, and forgets them.
fn tell(wires: &mut Wires, events: &mut Events) {
    let mut lost = u64::from(events.lost());
    for event in events.iter() {
        lost += u64::from(wires.events.push(*event).is_err());
    }
    wires.stats.events_lost.fetch_add(lost, Relaxed);
    events.clear();
}

fn plus(t: Timespec, ns: i64) -> Timespec {
    let nanos = t.tv_nsec + ns % 1_000_000_000;
    let carry = nanos.div_euclid(1_000_000_000);
    Timespec { tv_sec: t.tv_sec + ns / 1_000_000_000 + carry, tv_nsec: nanos.rem_euclid(1_000_000_000) }
}
