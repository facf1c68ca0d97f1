//! What a reading means: one line's readings become the input image, qualities and samples; its part of the output
//! image becomes writes.
//!
//! ```text
//!   reading ──> point's last state ──changed?──> sample ──> spool
//!      │                └── silent for its limit: Uncertain, twice: Bad (the source time stays what it was)
//!      └──> machine status / load sensor ──> input image (staging) ──whole──> triple buffer ══> control thread
//!   output image ══> triple buffer ──> changed blocks at once, all of them at the heartbeat ──> driver
//! ```

use crate::clock::Clock;
use crate::config::plan::{LinePlan, PointPlan, Role};
use crate::metrics::histogram::Histogram;
use crate::telemetry::{Sample, Spool};
use control_core::image::{Quality, Stamped};
use control_core::units::{LoadId, MachineId};
use control_core::{InputImage, OutputImage};
use device_drivers::block::{Owner, decode_status, encode_command};
use device_drivers::driver::{Health, PollReport};
use device_drivers::value::{Cause, Reading, Value, wall_clock_ms};
use device_drivers::{BlockWrite, LineSink, LinkError, LinkState};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often points are looked at for staleness.
const SWEEP: Duration = Duration::from_millis(50);

/// A line that fails in ever new ways is logged this often at most; the metrics count every time.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Causes told per link; a device that makes up new ones all the time is not worth more.
const TOLD_MAX: usize = 8;

/// What a line counts.
#[derive(Debug, Default)]
pub struct LineStats {
    state: AtomicU8,
    /// Links made.
    pub connects: AtomicU64,
    /// Links lost, and tries that failed.
    pub failures: AtomicU64,
    /// Polls made.
    pub polls: AtomicU64,
    /// Polls not made because the ones before took too long.
    pub missed: AtomicU64,
    /// Requests sent.
    pub requests: AtomicU64,
    /// Readings taken.
    pub readings: AtomicU64,
    /// Readings that were Bad.
    pub bad_readings: AtomicU64,
    /// Command blocks written and acknowledged.
    pub blocks: AtomicU64,
    /// Time of a poll.
    pub poll: Histogram,
    /// Points that are Good, Uncertain, Bad.
    pub quality: [AtomicU64; 3],
}

impl LineStats {
    /// State of the link.
    pub fn state(&self) -> LinkState {
        match self.state.load(Relaxed) {
            1 => LinkState::Up,
            2 => LinkState::Down,
            _ => LinkState::Connecting,
        }
    }
}

/// The input image while it is being put together, shared by all lines. The lock is held for a copy.
#[derive(Clone)]
pub struct ImageStage(Arc<Mutex<Stage>>);

struct Stage {
    image: InputImage,
    out: triple_buffer::Input<InputImage>,
}

impl ImageStage {
    /// A stage that hands over through `out`.
    pub fn new(out: triple_buffer::Input<InputImage>) -> ImageStage {
        ImageStage(Arc::new(Mutex::new(Stage { image: InputImage::default(), out })))
    }

    /// Changes the image and hands it over whole.
    fn change(&self, change: impl FnOnce(&mut InputImage)) {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Stage { image, out } = &mut *stage;
        change(image);
        out.input_buffer_mut().clone_from(image);
        out.publish();
    }
}

/// What was last known of a point.
#[derive(Clone, Debug)]
struct Last {
    value: Option<Value>,
    quality: Quality,
    cause: Cause,
    source_ms: u64,
    seen: Instant,
    sent: Instant,
}

/// One line's side of the agent.
pub struct FieldLine {
    name: Arc<str>,
    points: Arc<[PointPlan]>,
    machines: Vec<MachineId>,
    heartbeat: Duration,
    resend: Duration,
    last: Vec<Last>,
    written: Vec<(u32, u32, bool)>,
    last_beat: Instant,
    last_sweep: Instant,
    last_error: String,
    last_told: Option<Instant>,
    told: Vec<Cause>,
    samples: Vec<Sample>,
    clock: Clock,
    stage: ImageStage,
    output: triple_buffer::Output<OutputImage>,
    spool: Arc<Spool>,
    stats: Arc<LineStats>,
}

impl FieldLine {
    /// A line that has read nothing yet.
    pub fn new(
        plan: &LinePlan,
        resend: Duration,
        clock: Clock,
        stage: ImageStage,
        output: triple_buffer::Output<OutputImage>,
        spool: Arc<Spool>,
        stats: Arc<LineStats>,
    ) -> FieldLine {
        let now = Instant::now();
        let never = Last {
            value: None,
            quality: Quality::Bad,
            cause: Cause::NotReadYet,
            source_ms: wall_clock_ms(),
            seen: now,
            sent: now,
        };
        stats.quality[2].store(plan.points.len() as u64, Relaxed);
        FieldLine {
            name: plan.name.clone(),
            points: plan.points.clone(),
            machines: plan.machines.clone(),
            heartbeat: plan.heartbeat,
            resend,
            last: vec![never; plan.points.len()],
            written: vec![(0, 0, false); plan.machines.len()],
            last_beat: now,
            last_sweep: now,
            last_error: String::new(),
            last_told: None,
            told: Vec::new(),
            samples: Vec::new(),
            clock,
            stage,
            output,
            spool,
            stats,
        }
    }

    /// Takes one reading over; a sample is made when value or quality changed, or nothing was sent for too long.
    fn take(&mut self, reading: &Reading, now: Instant) {
        let n = reading.point.0 as usize;
        let (Some(point), Some(last)) = (self.points.get(n), self.last.get_mut(n)) else { return };
        let changed = last.quality != reading.quality
            || last.cause != reading.cause
            || (reading.value.is_some() && last.value != reading.value);
        if reading.value.is_some() {
            last.value.clone_from(&reading.value);
            last.source_ms = reading.source_ms;
        }
        (last.quality, last.cause, last.seen) = (reading.quality, reading.cause, now);
        if changed || now.duration_since(last.sent) >= self.resend {
            report(point, last, now, &mut self.samples);
        }
    }

    /// Says once per link and cause that a device refuses points: the line is up, and yet something is wrong.
    fn tell_refusals(&mut self, readings: &[Reading]) {
        let refused = |c: Cause| matches!(c, Cause::Exception(_) | Cause::Status(_) | Cause::WrongType);
        for first in readings.iter().filter(|r| r.quality == Quality::Bad && refused(r.cause)) {
            if self.told.contains(&first.cause) || self.told.len() >= TOLD_MAX {
                continue;
            }
            self.told.push(first.cause);
            let count = readings.iter().filter(|r| r.cause == first.cause).count();
            let tag = self.points.get(first.point.0 as usize).map_or("?", |p| &*p.name);
            let hint = match first.cause {
                Cause::Exception(10 | 11) => "is `unit` right?",
                Cause::Exception(2) => "is the address right?",
                Cause::Status(_) => "does the server have this node?",
                _ => "does the profile fit the device?",
            };
            let cause = first.cause;
            tracing::warn!(line = &*self.name, "{count} tags are Bad, the first is {tag}: {cause}; {hint}");
        }
    }

    /// Marks what has been silent for too long. Source times stay what they were.
    fn mark_silent(&mut self, now: Instant) {
        if now.duration_since(self.last_sweep) < SWEEP {
            return;
        }
        self.last_sweep = now;
        let mut count = [0u64; 3];
        for (point, last) in self.points.iter().zip(&mut self.last) {
            let silent = now.duration_since(last.seen);
            let next = match last.quality {
                Quality::Good | Quality::Uncertain if silent > point.stale_after * 2 => Quality::Bad,
                Quality::Good if silent > point.stale_after => Quality::Uncertain,
                same => same,
            };
            if next != last.quality {
                (last.quality, last.cause) = (next, Cause::Stale);
                report(point, last, now, &mut self.samples);
            }
            count[match last.quality {
                Quality::Good => 0,
                Quality::Uncertain => 1,
                Quality::Bad => 2,
            }] += 1;
        }
        for (slot, n) in self.stats.quality.iter().zip(count) {
            slot.store(n, Relaxed);
        }
        self.spool.append(&mut self.samples);
    }

    /// The link is down: nothing of this line is known any more.
    fn all_bad(&mut self) {
        let now = Instant::now();
        for (point, last) in self.points.iter().zip(&mut self.last) {
            if (last.quality, last.cause) != (Quality::Bad, Cause::LinkDown) {
                (last.quality, last.cause) = (Quality::Bad, Cause::LinkDown);
                report(point, last, now, &mut self.samples);
            }
        }
        self.stage.change(|image| {
            for point in self.points.iter() {
                match point.role {
                    Role::Machine(id) => image.degrade_machine(id, Quality::Bad),
                    Role::Position(pos) => image.degrade_position(pos, Quality::Bad),
                    Role::Telemetry => {}
                }
            }
        });
        self.spool.append(&mut self.samples);
        for (slot, n) in self.stats.quality.iter().zip([0, 0, self.points.len() as u64]) {
            slot.store(n, Relaxed);
        }
    }
}

fn report(point: &PointPlan, last: &mut Last, now: Instant, samples: &mut Vec<Sample>) {
    last.sent = now;
    if let Some(topic) = &point.topic {
        samples.push(Sample {
            topic: topic.clone(),
            value: last.value.clone(),
            quality: last.quality,
            cause: last.cause,
            source_ms: last.source_ms,
        });
    }
}

/// Puts a reading into the image.
fn into_image(image: &mut InputImage, role: Role, reading: &Reading, at: control_core::units::Millis) {
    match (role, &reading.value) {
        (Role::Machine(id), Some(Value::Words(words))) => match decode_status(words) {
            Some(value) => image.set_machine(id, Stamped { value, quality: reading.quality, at }),
            None => image.degrade_machine(id, Quality::Bad),
        },
        (Role::Position(pos), Some(value)) => match value.as_u32() {
            Some(raw) => image.set_position(pos, Stamped { value: LoadId::new(raw), quality: reading.quality, at }),
            None => image.degrade_position(pos, Quality::Bad),
        },
        (Role::Machine(id), None | Some(_)) => image.degrade_machine(id, Quality::Bad),
        (Role::Position(pos), None) => image.degrade_position(pos, Quality::Bad),
        (Role::Telemetry, _) => {}
    }
}

impl LineSink for FieldLine {
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>) {
        let now = Instant::now();
        let took = report.took;
        // The oldest reply of the poll is as old as the poll is long.
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let at = control_core::units::Millis(self.clock.now().0.saturating_sub(took_ms));
        let stats = self.stats.clone();
        stats.polls.fetch_add(1, Relaxed);
        stats.requests.fetch_add(u64::from(report.requests), Relaxed);
        stats.readings.fetch_add(readings.len() as u64, Relaxed);
        stats.poll.record_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let bad = readings.iter().filter(|r| r.quality == Quality::Bad).count();
        stats.bad_readings.fetch_add(bad as u64, Relaxed);

        if report.alive {
            for last in self.last.iter_mut().filter(|l| l.quality == Quality::Good) {
                last.seen = now;
            }
        }
        for reading in readings.iter() {
            self.take(reading, now);
        }
        let points = &self.points;
        let role_of = |r: &Reading| points.get(r.point.0 as usize).map_or(Role::Telemetry, |p| p.role);
        if readings.iter().any(|r| role_of(r) != Role::Telemetry) {
            self.stage.change(|image| {
                for reading in readings.iter() {
                    into_image(image, role_of(reading), reading, at);
                }
            });
        }
        if bad > 0 {
            self.tell_refusals(readings);
        }
        self.spool.append(&mut self.samples);
    }

    fn link(&mut self, state: LinkState, cause: Option<&LinkError>) {
        let code = match state {
            LinkState::Connecting => 0,
            LinkState::Up => 1,
            LinkState::Down => 2,
        };
        self.stats.state.store(code, Relaxed);
        match (state, cause) {
            (LinkState::Up, _) => {
                self.stats.connects.fetch_add(1, Relaxed);
                tracing::info!(line = &*self.name, "line up");
                self.last_error.clear();
                self.told.clear();
                self.written.fill((0, 0, false));
            }
            (LinkState::Down, Some(why)) => {
                self.stats.failures.fetch_add(1, Relaxed);
                self.all_bad();
                let why = why.to_string();
                // The same reason over and over is said once; the metric counts the tries.
                if why != self.last_error && self.last_told.is_none_or(|t| t.elapsed() >= TELL_EVERY) {
                    self.last_told = Some(Instant::now());
                    tracing::warn!(line = &*self.name, "line down, its tags are Bad now, trying again: {why}");
                    self.last_error = why;
                }
            }
            _ => {}
        }
    }

    fn carries_machines(&self) -> bool {
        !self.machines.is_empty()
    }

    fn sweep(&mut self) {
        self.mark_silent(Instant::now());
    }

    fn health(&mut self, _device: usize, _health: Health, _cause: Cause) {}

    fn not_written(&mut self, _blocks: &[BlockWrite], _cause: Cause) {}

    fn due_writes(&mut self, out: &mut Vec<BlockWrite>) {
        let image = self.output.read();
        if !image.write {
            return;
        }
        let beat = self.last_beat.elapsed() >= self.heartbeat;
        for (id, written) in self.machines.iter().zip(&mut self.written) {
            let command = image.command(*id);
            let seq = command.map_or(0, |c| c.seq);
            let state = (seq, image.token, image.authority);
            if beat || *written != state {
                *written = state;
                let owner = Owner {
                    token: image.token,
                    heartbeat: image.heartbeat,
                    authority: image.authority,
                    acknowledged: image.acknowledged(*id),
                };
                out.push(BlockWrite { machine: *id, seq, words: encode_command(owner, command) });
            }
        }
        if beat {
            self.last_beat = Instant::now();
        }
    }

    fn written(&mut self, blocks: &[BlockWrite]) {
        self.stats.blocks.fetch_add(blocks.len() as u64, Relaxed);
        self.stage.change(|image| {
            for block in blocks {
                image.set_written(block.machine, block.seq);
            }
        });
    }

    fn missed(&mut self, _device: usize, polls: u64) {
        self.stats.missed.fetch_add(polls, Relaxed);
    }
}
