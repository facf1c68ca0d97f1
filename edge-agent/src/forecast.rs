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
use device_drivers::modbus::{Endpoint, LineSpec, Modbus};
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

/// Forecasts a plan; OPC UA lines are not asked but told, and are left out.
pub fn forecast(plan: &Plan, reply: Duration) -> Forecast {
    let lines: Vec<LineForecast> = plan
        .lines
        .iter()
        .filter_map(|line| match &line.driver {
            DriverPlan::Modbus(spec) => Some(forecast_line(line, spec, reply)),
            DriverPlan::OpcUa(_) => None,
        })
        .collect();
    Forecast { feasible: lines.iter().all(|l| l.infeasible.is_none()), assumed_reply_ms: ms(reply), lines }
}

/// Time of one exchange of so many bytes.
fn exchange(spec: &LineSpec, asked: usize, answered: usize, reply: Duration) -> Duration {
    let wire = match &spec.endpoint {
        Endpoint::Rtu(serial) => serial.takes(asked + answered + 6) + serial.silence() * 2, // address and CRC, twice
        _ => Duration::ZERO,
    };
    wire + reply + spec.pause
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
    let beat = exchange(spec, 46 * blocks, 5, reply).as_secs_f64() / line.heartbeat.as_secs_f64();
    let own = |busy: Duration, interval: Duration| busy.as_secs_f64() / at_once / interval.as_secs_f64();
    let writes = if blocks > 0 { beat / at_once } else { 0.0 };
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
            writeln!(
                f,
                "  a write waits {} ms at most, {} ms when a device does not answer",
                line.write_wait_ms, line.write_wait_worst_ms
            )?;
            for group in &line.groups {
                writeln!(f, "  {} every {} ms, a cycle takes {} ms", group.device, group.interval_ms, group.cycle_ms)?;
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
        write!(f, "assumed: a device needs {} ms for a reply (--reply); ", self.assumed_reply_ms)?;
        write!(
            f,
            "{}",
            if self.feasible { "every line can keep its schedule" } else { "not every line can keep its schedule" }
        )
    }
}
