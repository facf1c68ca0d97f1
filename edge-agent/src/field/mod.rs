//! One line's side of the agent: readings become image and samples, the output image becomes writes.
//!
//! ```text
//!   readings ──┬─> last known value ──changed, or not sent for long──> sample ──> spool
//!              │        └── silent for its limit: Uncertain, twice: Bad (the source time stays what it was)
//!              └──> machine status / load sensor ──> input image (staging) ──whole──> triple buffer ══> control thread
//!   output image ══> triple buffer ──> changed blocks at once, all of them at the heartbeat ──> driver
//! ```

mod blocks;
mod farewell;
mod image;
mod reporter;
#[cfg(test)]
mod reporting_tests;
mod stats;
mod telling;
#[cfg(test)]
mod telling_tests;
pub mod view;

pub use farewell::Farewell;
pub use image::ImageStage;
pub use stats::{DeviceStats, LineStats, Refusal};

use crate::clock::{self, Clock};
use crate::config::{DriverPlan, LinePlan, PointPlan, Role};
use crate::telemetry::payload::Said;
use crate::trouble::{Trouble, spoken};
use blocks::NotTaken;
use control_core::image::Quality;
use control_core::units::{MachineId, Millis};
use device_drivers::block::{Owner, encode_command};
use device_drivers::opcua::NodeType;
use device_drivers::value::{Cause, Reading, Value, wall_clock_ms};
use device_drivers::{
    BlockWrite, Health, LineCounters, LineSink, LinkError, LinkState, Notice, Number, PointId, PollReport,
};
use floor_plan::OutputBuffer;
use image::into_image;
pub use reporter::Publish;
use reporter::Reporter;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use telling::Unfiltered;
use tokio::sync::mpsc;

/// How often points are looked at for staleness, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often is looked whether something that is wrong for long is to be said again.
const REMIND: Duration = Duration::from_secs(60);

/// What was last known of a point. Times are milliseconds since the line's start and may wrap: they are only subtracted.
///
/// A value that does not change and one that nobody reads any more look alike by their source time: so it is kept apart when it came to be
/// and when its source last said that it is still so.
#[derive(Clone, Debug)]
struct Last {
    value: Option<Value>,
    /// Since when it has been so, by its source's clock.
    source_ms: u64,
    /// When its source last said so, by ours.
    confirmed_ms: u64,
    cause: Cause,
    quality: Quality,
    /// Whether the clock of the source time is one to go by.
    is_timed: bool,
    seen: u32,
    sent: u32,
    changed: u32,
    confirmed: u32,
}

impl Last {
    fn said(&self) -> Said<'_> {
        let Last { value, quality, cause, source_ms, confirmed_ms, is_timed, .. } = self;
        let confirmed_ms = Some(*confirmed_ms).filter(|confirmed| *confirmed > *source_ms && value.is_some());
        let (value, quality, cause, source_ms) = (value.as_ref(), *quality, *cause, *source_ms);
        Said { value, quality, cause, source_ms, confirmed_ms, is_timed: *is_timed }
    }
}

/// What a line is connected to.
pub struct FieldWires {
    /// The one clock.
    pub clock: Clock,
    /// Where the input image is put together.
    pub stage: ImageStage,
    /// What the control thread wants.
    pub output: triple_buffer::Output<OutputBuffer>,
    /// Where samples go, and what a message holds; `None`: nothing is published.
    pub publish: Option<Publish>,
    /// An unchanged value is sent again after this long.
    pub resend: Duration,
    /// Counters.
    pub stats: Arc<LineStats>,
    /// Questions of those who want to see values.
    pub looks: mpsc::Receiver<view::Look>,
}

/// One line's side of the agent.
pub struct FieldLine {
    name: Arc<str>,
    points: Arc<[PointPlan]>,
    machines: Vec<MachineId>,
    /// Whether source times are those of this gateway's own clock.
    is_own_clock: bool,
    /// Whether the control loop sees any of its points.
    has_roles: bool,
    heartbeat: Duration,
    start: Instant,
    last: Vec<Last>,
    quality: [u64; 3],
    written: Vec<(u32, u32, bool)>,
    last_beat: Instant,
    last_look: Instant,
    /// Before this nothing can have become stale or due again.
    sweep_due: u32,
    down: Trouble<String>,
    away: Vec<Trouble<Cause>>,
    refused: Trouble<Cause>,
    not_taken: NotTaken,
    unfiltered: Unfiltered,
    reporter: Reporter,
    wires: FieldWires,
}

impl FieldLine {
    /// A line that has read nothing yet.
    pub fn new(plan: &LinePlan, wires: FieldWires) -> FieldLine {
        let now = Instant::now();
        let (source_ms, cause) = (wall_clock_ms(), Cause::NotReadYet);
        let never = Last {
            value: None,
            source_ms,
            confirmed_ms: source_ms,
            cause,
            quality: Quality::Bad,
            is_timed: clock::is_trusted(source_ms),
            seen: 0,
            sent: 0,
            changed: 0,
            confirmed: 0,
        };
        let publish = wires.publish.clone();
        let line = FieldLine {
            name: plan.name.clone(),
            points: plan.points.clone(),
            machines: plan.machines.clone(),
            is_own_clock: matches!(plan.driver, DriverPlan::Modbus(_)),
            has_roles: plan.points.iter().any(|p| p.role != Role::Telemetry),
            heartbeat: plan.heartbeat,
            start: now,
            last: vec![never; plan.points.len()],
            quality: [0, 0, plan.points.len() as u64],
            written: vec![(0, 0, false); plan.machines.len()],
            last_beat: now,
            last_look: now,
            sweep_due: 0,
            down: Trouble::default(),
            away: plan.devices.iter().map(|_| Trouble::default()).collect(),
            refused: Trouble::default(),
            not_taken: NotTaken::default(),
            unfiltered: Unfiltered::default(),
            reporter: Reporter::new(publish, plan.devices.clone()),
            wires,
        };
        line.show_quality();
        for point in line.points.iter() {
            count(&line.wires.stats, point, Quality::Good, Quality::Bad);
        }
        line
    }

    fn now_ms(&self) -> u32 {
        self.start.elapsed().as_millis() as u32 // wraps after 49 days, and is only subtracted
    }

    fn show_quality(&self) {
        for (slot, n) in self.wires.stats.quality.iter().zip(self.quality) {
            slot.store(n, Relaxed);
        }
    }

    fn deliver(&mut self) {
        self.reporter.deliver();
    }

    /// Takes one reading over; a sample is made when value or quality changed, or nothing was sent for too long.
    fn take(&mut self, reading: &mut Reading, (now, wall_ms): (u32, u64), resend: u32) {
        let n = reading.point.0 as usize;
        let (Some(point), Some(last)) = (self.points.get(n), self.last.get_mut(n)) else { return };
        // Nothing was ever said, and now it cannot be asked: there is no value that could be doubtful.
        if reading.value.is_none() && last.value.is_none() && !reading.cause.is_of_the_source() {
            reading.quality = Quality::Bad;
        }
        let other = |now: &Value| !last.value.as_ref().is_some_and(|then| same_within(then, now, point.deadband));
        // The source says that there is none: then the last one does not stand.
        let is_none = reading.value.is_none() && reading.cause.says_there_is_none();
        let changed =
            last.quality != reading.quality || last.cause != reading.cause || reading.value.as_ref().is_some_and(other);
        if last.quality != reading.quality {
            move_between(&mut self.quality, last.quality, reading.quality);
            count(&self.wires.stats, point, last.quality, reading.quality);
        }
        // Value and source time stay together: what is sent again, or turns Bad, is as old as when it was first said. Only a server that
        // gives the status itself says since when it is so (OPC 10000-4, 7.11.3); and where there never was a value, its time is none.
        let is_servers = matches!(reading.cause, Cause::Status(_) | Cause::Found(_));
        if changed && (reading.value.is_some() || is_none || is_servers || last.value.is_none()) {
            last.source_ms = reading.source_ms;
            last.is_timed =
                clock::is_plausible(reading.source_ms) && (!self.is_own_clock || clock::is_trusted(reading.source_ms));
        }
        if changed && (reading.value.is_some() || is_none) {
            (last.confirmed_ms, last.changed) = (reading.source_ms, now);
            last.value.clone_from(&reading.value);
        } else if reading.value.is_some() {
            last.confirmed_ms = wall_ms;
        }
        if reading.value.is_some() || is_none {
            last.confirmed = now;
        }
        (last.quality, last.cause, last.seen) = (reading.quality, reading.cause, now);
        if changed || now.wrapping_sub(last.sent) >= resend {
            last.sent = now;
            self.reporter.report(point, last.said());
        }
    }

    fn device_name(&self, device: usize) -> &str {
        self.wires.stats.devices.get(device).map_or("?", |d| &d.name)
    }

    /// Everything of this line is Bad.
    fn all_bad(&mut self, cause: Cause) {
        let now = self.now_ms();
        for (point, last) in self.points.iter().zip(&mut self.last) {
            if (last.quality, last.cause) != (Quality::Bad, cause) {
                count(&self.wires.stats, point, last.quality, Quality::Bad);
                (last.quality, last.cause, last.sent) = (Quality::Bad, cause, now);
                self.reporter.report(point, last.said());
            }
        }
        self.wires.stage.change(|seen| {
            for point in self.points.iter() {
                match point.role {
                    Role::Machine(id) => seen.image.degrade_machine(id, Quality::Bad),
                    Role::Position(pos) => seen.image.degrade_position(pos, Quality::Bad),
                    Role::Telemetry => {}
                }
            }
        });
        self.quality = [0, 0, self.points.len() as u64];
        self.show_quality();
        self.deliver();
        (0..self.wires.stats.devices.len()).for_each(|device| self.reporter.gone(device));
    }
}

/// Whether two values are one as far as a deadband is concerned. What is no finite number has none.
fn same_within(then: &Value, now: &Value, deadband: f64) -> bool {
    if deadband > 0.0 {
        match (then.number(), now.number()) {
            // Not by doubles: counters of 64 bits have more digits.
            (Some(Number::Whole(a)), Some(Number::Whole(b))) => return ((a - b).abs() as f64) < deadband,
            (Some(a), Some(b)) if a.as_f64().is_finite() && b.as_f64().is_finite() => {
                return (a.as_f64() - b.as_f64()).abs() < deadband;
            }
            _ => {}
        }
    }
    then.same(now)
}

const fn slot_of(quality: Quality) -> usize {
    match quality {
        Quality::Good => 0,
        Quality::Uncertain => 1,
        Quality::Bad => 2,
    }
}

fn move_between(count: &mut [u64; 3], from: Quality, to: Quality) {
    count[slot_of(from)] = count[slot_of(from)].saturating_sub(1);
    count[slot_of(to)] += 1;
}

/// Its device counts a point anew.
fn count(stats: &LineStats, point: &PointPlan, was: Quality, is: Quality) {
    if let Some(device) = stats.devices.get(point.device as usize) {
        device.count(was, is);
    }
}

fn ms_of(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

impl LineSink for FieldLine {
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>) {
        let (now, resend) = (self.now_ms(), ms_of(self.wires.resend));
        let (clock, wall_ms) = (self.wires.clock.now(), wall_clock_ms());
        // The oldest reply of the poll is as old as the poll is long.
        let at = Millis(clock.0.saturating_sub(u64::from(ms_of(report.took))));
        let stats = self.wires.stats.clone();
        stats.requests.fetch_add(u64::from(report.requests), Relaxed);
        stats.readings.fetch_add(readings.len() as u64, Relaxed);
        if report.requests > 0 {
            stats.polls.fetch_add(1, Relaxed);
            stats.poll.record_ns(u64::try_from(report.took.as_nanos()).unwrap_or(u64::MAX));
        }
        readings.iter_mut().for_each(Reading::without_infinities);
        let bad = readings.iter().filter(|r| r.quality == Quality::Bad).count();
        stats.bad_readings.fetch_add(bad as u64, Relaxed);
        if let Some(device) = stats.devices.get(report.device) {
            if report.requests > 0 {
                device.jitter.record_ns(u64::try_from(report.late.as_nanos()).unwrap_or(u64::MAX));
            }
            if report.alive || bad < readings.len() {
                device.read_at_ms.store(clock.0.max(1), Relaxed);
            }
        }
        if report.alive {
            let stands = |l: &&mut Last| l.quality != Quality::Bad && l.cause.is_of_the_source();
            for last in self.last.iter_mut().filter(stands) {
                (last.seen, last.confirmed, last.confirmed_ms) = (now, now, wall_ms);
            }
        }
        for reading in readings.iter_mut() {
            self.take(reading, (now, wall_ms), resend);
        }
        if self.has_roles {
            self.show_the_core(readings, at);
        }
        if bad > 0 {
            self.tell_refusals(readings);
        }
        self.show_quality();
        self.deliver();
    }

    fn link(&mut self, state: LinkState, cause: Option<&LinkError>) {
        self.wires.stats.set_state(state);
        self.answer_looks();
        self.wires.stats.set_refusal(cause);
        match (state, cause) {
            (LinkState::Up, _) => {
                let first = self.wires.stats.connects.fetch_add(1, Relaxed) == 0;
                match self.down.is_over(Instant::now()) {
                    Some(after) => tracing::info!(line = &*self.name, "line up again after {}", spoken(after)),
                    None if first => tracing::info!(line = &*self.name, "line up"),
                    None => {}
                }
                self.written.fill((0, 0, false));
                self.all_have_ranges();
            }
            (LinkState::Down, Some(why)) => {
                self.wires.stats.failures.fetch_add(1, Relaxed);
                self.wires.stats.devices.iter().for_each(|d| d.set_health(Health::Unknown));
                self.all_bad(Cause::LinkDown);
                let again = match why {
                    LinkError::Login { .. } => {
                        "trying again only after minutes, since servers lock accounts; a changed configuration is tried at once"
                    }
                    _ => "trying again",
                };
                if let Some(lasting) = self.down.is(why.to_string(), Instant::now()) {
                    let line = &*self.name;
                    tracing::warn!(line, "line down, its tags are Bad now, {again}: {why}{lasting}");
                }
            }
            _ => {}
        }
    }

    fn health(&mut self, device: usize, health: Health, cause: Cause) {
        let Some(stats) = self.wires.stats.devices.get(device) else { return };
        stats.set_health(health);
        let (name, now, line) = (&stats.name, Instant::now(), &*self.name);
        let Some(away) = self.away.get_mut(device) else { return };
        match health {
            Health::Demoted => {
                self.reporter.gone(device);
                if let Some(lasting) = away.is(cause, now) {
                    let hint = match cause {
                        Cause::OtherUnit(_) | Cause::NoTransaction => {
                            "; is `unit` right? If that is its way: foreign_replies = true"
                        }
                        _ => "",
                    };
                    tracing::warn!(
                        line,
                        "device {name} is asked less often now, its tags are Bad: {cause}{hint}{lasting}"
                    );
                }
            }
            Health::Healthy => {
                if let Some(after) = away.is_over(now) {
                    tracing::info!(line, "device {name} answers again after {}", spoken(after));
                }
            }
            Health::Unknown => {}
        }
    }

    fn missed(&mut self, device: usize, polls: u64) {
        if let Some(device) = self.wires.stats.devices.get(device) {
            device.missed.fetch_add(polls, Relaxed);
        }
    }

    fn carries_machines(&self) -> bool {
        !self.machines.is_empty()
    }

    fn due_writes(&mut self, out: &mut Vec<BlockWrite>) {
        let image = self.wires.output.read();
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
        self.wires.stats.blocks.fetch_add(blocks.len() as u64, Relaxed);
        self.blocks_are_taken(blocks);
        self.wires.stage.change(|seen| {
            for block in blocks {
                seen.image.set_written(block.machine, block.seq);
            }
        });
    }

    fn not_written(&mut self, blocks: &[BlockWrite], cause: Cause) {
        // The heartbeat writes them again, whether they have arrived or not: their sequence makes that harmless.
        self.wires.stats.blocks_failed.fetch_add(blocks.len() as u64, Relaxed);
        self.blocks_are_not_taken(blocks, cause);
    }

    fn sweep_every(&self) -> Duration {
        let soonest = self.points.iter().map(|p| p.stale_after).min().unwrap_or(SWEEP.1);
        (soonest / 6).clamp(SWEEP.0, SWEEP.1)
    }

    fn sweep(&mut self) {
        let now = self.now_ms();
        if now.wrapping_sub(self.sweep_due) < u32::MAX / 2 {
            self.look_for_stale(now);
        }
        self.show_quality();
        self.deliver();
        self.answer_looks();
        self.remind();
    }

    fn wants_types(&self) -> bool {
        self.reporter.wants_types()
    }

    fn types(&mut self, types: &[(PointId, NodeType)]) {
        for (point, node) in types {
            self.points.get(point.0 as usize).into_iter().for_each(|p| self.reporter.declare(p, *node));
        }
    }

    fn notice(&mut self, notice: &Notice) {
        self.heed(notice);
    }

    fn counters(&mut self, counters: LineCounters) {
        let stats = &self.wires.stats;
        stats.timeouts.store(counters.timeouts, Relaxed);
        stats.dropped.store(counters.dropped, Relaxed);
        stats.bad_replies.store(counters.bad_replies, Relaxed);
        stats.quarantined.store(counters.quarantined, Relaxed);
        let (echoes, noise) = (stats.echoes.swap(counters.echoes, Relaxed), stats.noise.swap(counters.noise, Relaxed));
        let line = &*self.name;
        if echoes == 0 && counters.echoes > 0 {
            tracing::info!(line, "the serial adapter gives back what we say (local echo): our own words are taken off");
        }
        if noise == 0 && counters.noise > 0 {
            tracing::warn!(
                line,
                "the serial line is never silent, and is asked all the same; is a device babbling, is the adapter's bias right?"
            );
        }
    }
}

impl FieldLine {
    /// Marks what has been silent for too long, and says again what has not been said for long: who listens only now learns also what
    /// never changes, and what is not there. Source times stay what they were. Finds out when that is to be done again: what is read
    /// meanwhile can only put it off, and what comes to be Good now has its limit before it.
    fn look_for_stale(&mut self, now: u32) {
        let resend = ms_of(self.wires.resend);
        let mut rest = resend;
        for (point, last) in self.points.iter().zip(&mut self.last) {
            let (silent, limit) = (now.wrapping_sub(last.seen), ms_of(point.stale_after));
            let next = match last.quality {
                Quality::Good | Quality::Uncertain if silent > limit.saturating_mul(2) => Some(Quality::Bad),
                Quality::Good if silent > limit => Some(Quality::Uncertain),
                _ => None,
            };
            let unsaid = now.wrapping_sub(last.sent);
            if let Some(next) = next {
                move_between(&mut self.quality, last.quality, next);
                count(&self.wires.stats, point, last.quality, next);
                (last.quality, last.cause) = (next, Cause::Stale);
            }
            if next.is_some() || unsaid >= resend {
                last.sent = now;
                self.reporter.report(point, last.said());
            } else {
                rest = rest.min(resend - unsaid);
            }
            let lasts = match last.quality {
                Quality::Good => limit.saturating_sub(silent),
                Quality::Uncertain => limit.saturating_mul(2).saturating_sub(silent),
                Quality::Bad => limit,
            };
            rest = rest.min(lasts).min(limit);
        }
        self.sweep_due = now.wrapping_add(rest.min(u32::MAX / 4));
    }

    /// What concerns machines and load positions goes into the input image.
    fn show_the_core(&self, readings: &[Reading], at: Millis) {
        let role_of = |r: &Reading| self.points.get(r.point.0 as usize).map_or(Role::Telemetry, |p| p.role);
        if readings.iter().any(|r| role_of(r) != Role::Telemetry) {
            self.wires.stage.change(|seen| {
                for reading in readings {
                    into_image(seen, role_of(reading), reading, at);
                }
            });
        }
    }
}
