//! What a configuration will cost before anything runs: each request, the time of a cycle, how busy a line is, how long a write
//! waits; and, where it cannot work, the smallest change that would make it work.
//!
//! ```text
//!   request   = pause + request and reply on the wire + the device's own time      (serial: 11 bits a byte, two silences)
//!   cycle     = requests of a group, one after the other; so many at once as the pipeline allows
//!   line busy = sum of cycle / interval over all groups, and the heartbeat of the command blocks
//! ```
//!
//! The device's own time is a guess until it runs (`--reply`); `lightsout_poll_seconds` shows the real one.

use crate::config::{DriverPlan, LinePlan, Plan};
use device_drivers::block::COMMAND_WORDS;
use device_drivers::modbus::{Endpoint, LineSpec, Modbus, WRITE_REGISTERS_MAX};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What a device is taken to need for a reply when nobody says: a PLC answers once in its scan.
pub const REPLY: Duration = Duration::from_millis(5);

/// A line that is busier than this is told to be near its limit.
const NEARLY_FULL: f64 = 0.8;

/// The forecast of all lines.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Whether every line can keep its schedule.
    pub feasible: bool,
    /// Device's own time that was assumed, milliseconds.
    pub assumed_reply_ms: f64,
    /// The lines.
    pub lines: Vec<LineForecast>,
    /// OPC UA lines: they are not asked but told.
    pub told: Vec<Told>,
}

/// A line whose server tells what changes.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Its name.
    pub line: String,
    /// Where it is.
    pub peer: String,
    /// Points it subscribes to.
    pub points: usize,
    /// Between two messages of the server at the least, milliseconds.
    pub publishing_ms: f64,
}

/// The forecast of one line.
#[derive(Clone, Debug, Serialize)]
pub struct LineForecast {
    /// Its name.
    pub line: String,
    /// Where it is.
    pub peer: String,
    /// Share of the time it is busy; above 1 it cannot keep its schedule.
    pub utilisation: f64,
    /// How long a write waits at most while all devices answer, milliseconds.
    pub write_wait_ms: f64,
    /// How long it waits at most when one does not, milliseconds.
    pub write_wait_worst_ms: f64,
    /// Requests, by group.
    pub groups: Vec<GroupForecast>,
    /// Command blocks of machines; each is written in every heartbeat.
    pub command_blocks: usize,
    /// Requests they take: those side by side share one.
    pub command_requests: usize,
    /// Heartbeat, milliseconds.
    pub heartbeat_ms: f64,
    /// Share of the time the blocks take.
    pub command_share: f64,
    /// Why it cannot work, and the smallest change that would make it work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infeasible: Option<String>,
}

/// One device's values of one interval.
#[derive(Clone, Debug, Serialize)]
pub struct GroupForecast {
    /// Device.
    pub device: String,
    /// Interval, milliseconds.
    pub interval_ms: f64,
    /// Time of one cycle, milliseconds.
    pub cycle_ms: f64,
    /// Its requests.
    pub requests: Vec<RequestForecast>,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct RequestForecast {
    /// Unit.
    pub unit: u8,
    /// Function code.
    pub function: u8,
    /// First number on the wire.
    pub start: u16,
    /// Registers or bits.
    pub count: u16,
    /// Tags it serves.
    pub tags: usize,
    /// Registers or bits it reads for nobody.
    pub wasted: u16,
}

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// Forecasts a plan.
pub fn forecast(plan: &Plan, reply: Duration) -> Forecast {
    let lines: Vec<LineForecast> = plan
        .lines
        .iter()
        .filter_map(|line| match &line.driver {
            DriverPlan::Modbus(spec) => Some(forecast_line(line, spec, reply)),
            DriverPlan::OpcUa(_) => None,
        })
        .collect();
    let told = plan.lines.iter().filter_map(|line| match &line.driver {
        DriverPlan::OpcUa(spec) => Some(Told {
            line: line.name.to_string(),
            peer: line.driver.peer(),
            points: line.points.len(),
            publishing_ms: ms(spec.publishing),
        }),
        DriverPlan::Modbus(_) => None,
    });
    let feasible = lines.iter().all(|l| l.infeasible.is_none());
    Forecast { feasible, assumed_reply_ms: ms(reply), lines, told: told.collect() }
}

/// Time of one exchange of so many bytes.
fn exchange(spec: &LineSpec, asked: usize, answered: usize, reply: Duration) -> Duration {
    let wire = match &spec.endpoint {
        Endpoint::Rtu(serial) => serial.takes(asked + answered + 6) + serial.silence() * 2, // address and CRC, twice
        _ => Duration::ZERO,
    };
    wire + reply + spec.pause
}

/// How many command blocks each write of a heartbeat takes along: those side by side go out in one request.
fn block_runs(spec: &LineSpec) -> Vec<usize> {
    let mut runs = Vec::new();
    for device in &spec.devices {
        let mut at: Vec<usize> = device.commands.iter().map(|(_, at)| usize::from(*at)).collect();
        at.sort_unstable();
        let mut next = None;
        for at in at {
            match runs.last_mut() {
                Some(n) if next == Some(at) && (*n + 1) * COMMAND_WORDS <= WRITE_REGISTERS_MAX => *n += 1,
                _ => runs.push(1),
            }
            next = Some(at + COMMAND_WORDS);
        }
    }
    runs
}

fn forecast_line(line: &LinePlan, spec: &LineSpec, reply: Duration) -> LineForecast {
    let client = Modbus::new(spec.clone());
    let mut groups: Vec<(GroupForecast, Duration, Duration)> = Vec::new();
    let mut longest = Duration::ZERO;
    for (unit, device, interval, request, wasted) in client.requests() {
        let name = line.devices.get(device).map_or("?", |d| &d.name);
        let bytes = if request.table.is_bits() { request.count.div_ceil(8) } else { request.count * 2 };
        let time = exchange(spec, 5, usize::from(bytes) + 2, reply);
        longest = longest.max(time);
        let interval_ms = ms(interval);
        if !groups.last().is_some_and(|(g, ..)| g.device == name && g.interval_ms == interval_ms) {
            let group = GroupForecast { device: name.into(), interval_ms, cycle_ms: 0.0, requests: Vec::new() };
            groups.push((group, interval, Duration::ZERO));
        }
        if let Some((group, _, busy)) = groups.last_mut() {
            *busy += time;
            group.requests.push(RequestForecast {
                unit,
                function: request.table.read_function(),
                start: request.start,
                count: request.count,
                tags: request.spans.len(),
                wasted,
            });
        }
    }
    let at_once = f64::from(spec.pipeline.max(1));
    let blocks: usize = spec.devices.iter().map(|d| d.commands.len()).sum();
    let runs = block_runs(spec);
    let beat: Duration = runs.iter().map(|n| exchange(spec, 6 + 2 * COMMAND_WORDS * n, 5, reply)).sum();
    let beat = beat.as_secs_f64() / line.heartbeat.as_secs_f64();
    let own = |busy: Duration, interval: Duration| busy.as_secs_f64() / at_once / interval.as_secs_f64();
    let writes = beat / at_once;
    let utilisation = writes + groups.iter().map(|(_, interval, busy)| own(*busy, *interval)).sum::<f64>();
    let infeasible = (utilisation > 1.0 + 1e-9).then(|| {
        let loads: Vec<(String, Duration, f64)> =
            groups.iter().map(|(g, interval, busy)| (g.device.clone(), *interval, own(*busy, *interval))).collect();
        format!(
            "the line would have to be busy {:.0} % of the time; {}",
            utilisation * 100.0,
            smallest_change(spec, &loads, utilisation)
        )
    });
    let finished = groups.into_iter().map(|(mut group, _, busy)| {
        group.cycle_ms = ms(busy.div_f64(at_once));
        group
    });
    LineForecast {
        line: line.name.to_string(),
        peer: spec.endpoint.to_string(),
        utilisation: (utilisation * 1000.0).round() / 1000.0,
        write_wait_ms: ms(longest),
        write_wait_worst_ms: ms(spec.write_wait_worst().max(longest)),
        groups: finished.collect(),
        command_blocks: blocks,
        command_requests: runs.len(),
        heartbeat_ms: ms(line.heartbeat),
        command_share: (writes * 1000.0).round() / 1000.0,
        infeasible,
    }
}

/// The change that alters least: one interval if one is enough, more requests at once, else all intervals.
fn smallest_change(spec: &LineSpec, loads: &[(String, Duration, f64)], utilisation: f64) -> String {
    let one = loads.iter().filter_map(|(device, interval, load)| {
        let left = 1.0 - (utilisation - load);
        (left > 0.0).then(|| (load / left, device, rounded_up(interval.mul_f64(load / left)), interval))
    });
    if let Some((_, device, longer, interval)) = one.min_by(|a, b| a.0.total_cmp(&b.0)) {
        return format!("it would work with the {interval:?} values of {device} read every {longer:?}");
    }
    if spec.endpoint.has_transactions() {
        let needed = (utilisation * f64::from(spec.pipeline.max(1))).ceil();
        if needed <= 8.0 {
            return format!("it would work with pipeline = {needed}, if the devices take several requests at once");
        }
    }
    format!(
        "it would work with all intervals {utilisation:.1} times as long, or with the devices on {} lines",
        utilisation.ceil()
    )
}

/// To two digits, upwards: nobody configures 137 ms.
fn rounded_up(d: Duration) -> Duration {
    let ms = (d.as_secs_f64() * 1000.0).ceil().max(1.0) as u64;
    let step = 10u64.pow(ms.ilog10().saturating_sub(1));
    Duration::from_millis(ms.div_ceil(step) * step)
}

/// Milliseconds as people say them: nobody plans by the microsecond.
fn spoken(ms: f64) -> String {
    match ms {
        _ if ms >= 100.0 => format!("{ms:.0} ms"),
        _ => format!("{} ms", (ms * 10.0).round() / 10.0),
    }
}

/// An interval as it is configured.
fn interval(ms: f64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_micros((ms * 1000.0).round() as u64))
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let busy = line.utilisation * 100.0;
            let state = if line.infeasible.is_some() {
                "CANNOT KEEP ITS SCHEDULE"
            } else if line.utilisation > NEARLY_FULL {
                "nearly full"
            } else {
                "fine"
            };
            writeln!(f, "line {} at {}: {busy:.1} % busy, {state}", line.line, line.peer)?;
            let (wait, worst) = (spoken(line.write_wait_ms), spoken(line.write_wait_worst_ms));
            writeln!(f, "  a write waits {wait} at most, {worst} when a device does not answer")?;
            if line.command_blocks > 0 {
                let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let blocks = count(line.command_blocks, "command block");
                let requests = count(line.command_requests, "request");
                let (every, share) = (interval(line.heartbeat_ms), line.command_share * 100.0);
                writeln!(f, "  {blocks} in {requests} every {every}: {share:.1} % of the line")?;
            }
            for group in &line.groups {
                let (every, cycle) = (interval(group.interval_ms), spoken(group.cycle_ms));
                writeln!(f, "  {} every {every}, a cycle takes {cycle}", group.device)?;
                writeln!(f, "    unit  function   start  count   tags  wasted")?;
                for r in &group.requests {
                    let RequestForecast { unit, function, start, count, tags, wasted } = r;
                    writeln!(f, "    {unit:>4}  {function:>8}  {start:>6}  {count:>5}  {tags:>5}  {wasted:>6}")?;
                }
            }
            if let Some(why) = &line.infeasible {
                writeln!(f, "  {why}")?;
            }
        }
        for Told { line, peer, points, publishing_ms } in &self.told {
            let every = interval(*publishing_ms);
            writeln!(f, "line {line} at {peer}: {points} points, told by the server every {every}: no polls to plan")?;
        }
        write!(f, "assumed: a device needs {} for a reply (--reply); ", spoken(self.assumed_reply_ms))?;
        write!(
            f,
            "{}",
            if self.feasible { "every line can keep its schedule" } else { "not every line can keep its schedule" }
        )
    }
}
