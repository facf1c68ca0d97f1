//! What the frames say: the beat, the field, the orders. The API answers with the same.

use crate::board::{Board, is_found, stamp};
use crate::control::run_state_name;
use crate::desk::{Desk, OrderState, OrderView};
use crate::field::{LineStats, Refusal};
use crate::metrics::Stages;
use crate::metrics::histogram::{Edges, Histogram};
use device_drivers::{Health, LinkState};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use utoipa::ToSchema;

/// An order that has not ended after this long is late.
pub const LATE_AFTER: Duration = Duration::from_secs(600);
/// Ended orders in a frame.
const ENDED: usize = 100;

/// A distribution of durations, microseconds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half stay below.
    pub p50_us: u64,
    /// 99 in 100 stay below.
    pub p99_us: u64,
    /// 999 in 1000 stay below.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
    /// `[upper edge, count]` of each doubling from 2 us on; what is empty at both ends is left out.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub buckets: Vec<(u64, u64)>,
}

impl Spread {
    /// Of a histogram.
    pub fn of(h: &Histogram) -> Spread {
        let us = |q| h.quantile_ns(q) / 1000;
        let mut before = 0;
        let counts = h.cumulative(Edges::Fine).into_iter().map(|(edge, count)| {
            let n = count - before;
            before = count;
            ((edge * 1e6).round() as u64, n)
        });
        let counts: Vec<(u64, u64)> = counts.collect();
        let used = |range: &[(u64, u64)]| range.iter().position(|(_, n)| *n > 0);
        let first = used(&counts).unwrap_or(0);
        let last = counts.iter().rposition(|(_, n)| *n > 0).map_or(0, |n| n + 1);
        let buckets = counts.get(first..last).unwrap_or_default().to_vec();
        let count = h.count();
        Spread { count, p50_us: us(0.5), p99_us: us(0.99), p999_us: us(0.999), max_us: h.max_ns() / 1000, buckets }
    }
}

/// The beat, and how telemetry is doing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Beat {
    /// Milliseconds since the agent started.
    pub up_ms: u64,
    /// State of the runtime: starting, recover, running, degraded, fenced, safe; none without a floor.
    pub run_state: &'static str,
    /// Whether a cycle was completed lately.
    pub alive: bool,
    /// Control cycles completed.
    pub cycles: u64,
    /// Beats skipped because a cycle was late.
    pub missed: u64,
    /// Time a cycle takes.
    pub exec: Spread,
    /// Time from the beat to the start of its cycle.
    pub wake: Spread,
    /// Age of the newest machine status, milliseconds.
    pub image_age_ms: u64,
    /// Whether every permission for real time was granted.
    pub realtime: bool,
    /// Events that did not fit into the ring.
    pub events_lost: u64,
    /// Orders.
    pub orders: Counts,
    /// Commands sent, done, failed, expired.
    pub commands: [u64; 4],
    /// Telemetry.
    pub spool: SpoolView,
    /// Pages and programs that look on.
    pub clients: u64,
}

/// Orders, counted.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Counts {
    /// Not ended.
    pub active: u64,
    /// Taken since the start.
    pub accepted: u64,
    /// Refused.
    pub rejected: u64,
    /// Done.
    pub completed: u64,
    /// Given up.
    pub failed: u64,
}

/// The spool and the broker.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct SpoolView {
    /// Whether the broker is connected.
    pub connected: bool,
    /// Messages waiting.
    pub waiting: u64,
    /// Bytes of these messages.
    pub waiting_bytes: u64,
    /// Bytes that the spool takes, on disk and in memory: a segment of it goes when all in it is acknowledged.
    pub used_bytes: u64,
    /// Bytes there are.
    pub capacity_bytes: u64,
    /// At the present rate it is full after so long, seconds; missing: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_in_s: Option<f64>,
    /// At the present rate nothing waits any more after so long, seconds; missing: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained_in_s: Option<f64>,
    /// Without a broker it would last so long, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasts_s: Option<f64>,
    /// The disk takes nothing.
    pub failing: bool,
    /// Values promised.
    pub produced: u64,
    /// Values acknowledged.
    pub delivered: u64,
    /// Values dropped.
    pub lost: u64,
    /// Connections lost, and tries that failed.
    pub failures: u64,
}

/// The beat right now.
pub fn beat(s: &Stages, alive: bool) -> Beat {
    let c = |n: usize| s.control.counters.get(n).map_or(0, |c| c.load(Relaxed));
    let load = |a: &AtomicU64| a.load(Relaxed);
    let spool = s.spool.status();
    Beat {
        up_ms: s.clock.now().0,
        run_state: if s.has_floor { run_state_name(s.control.run_state()) } else { "none" },
        alive,
        cycles: load(&s.control.cycles),
        missed: load(&s.control.missed),
        exec: Spread::of(&s.control.exec),
        wake: Spread::of(&s.control.wake),
        image_age_ms: load(&s.control.image_age_ms),
        realtime: s.control.realtime.load(Relaxed),
        events_lost: load(&s.control.events_lost),
        orders: Counts {
            active: load(&s.control.orders_active),
            accepted: c(0),
            rejected: c(1),
            completed: c(2),
            failed: c(3),
        },
        commands: [c(4), c(5), c(6), c(7)],
        spool: SpoolView {
            connected: s.mqtt.connected.load(Relaxed),
            waiting: spool.waiting,
            waiting_bytes: spool.waiting_bytes,
            used_bytes: spool.used_bytes,
            capacity_bytes: spool.capacity_bytes,
            full_in_s: spool.full_in_s,
            drained_in_s: spool.drained_in_s,
            lasts_s: spool.lasts_s,
            failing: spool.is_failing,
            produced: load(&s.spool.stats.produced),
            delivered: load(&s.spool.stats.delivered),
            lost: s.spool.stats.lost.values(),
            failures: load(&s.mqtt.failures),
        },
        clients: s.live.clients.load(Relaxed) as u64,
    }
}

/// A field line.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LineView {
    /// Its name.
    pub name: String,
    /// `up`, `connecting`, `down`, `untrusted`, `denied`.
    pub state: &'static str,
    /// Anyone on the network can read and write it.
    pub insecure: bool,
    /// Tags that are Good.
    pub good: u64,
    /// Uncertain.
    pub uncertain: u64,
    /// Bad.
    pub bad: u64,
    /// Tags a device refuses.
    pub quarantined: u64,
    /// Readings taken.
    pub readings: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests not answered in time.
    pub timeouts: u64,
    /// Links lost, and tries that failed.
    pub failures: u64,
    /// Time of a poll: half stay below, microseconds.
    pub poll_p50_us: u64,
    /// 99 in 100 stay below.
    pub poll_p99_us: u64,
    /// The devices behind it.
    pub devices: Vec<DeviceView>,
}

/// A device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceView {
    /// Its name.
    pub name: String,
    /// `up`, `silent`, `unknown`.
    pub state: &'static str,
    /// Since it was last read, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<f64>,
    /// Polls not made because the ones before took too long.
    pub missed: u64,
}

fn line(name: &str, l: &LineStats, now_ms: u64) -> LineView {
    let load = |a: &AtomicU64| a.load(Relaxed);
    let state = match (l.refusal(), l.state()) {
        (Some(Refusal::Untrusted), _) => "untrusted",
        (Some(Refusal::Denied), _) => "denied",
        (None, LinkState::Up) => "up",
        (None, LinkState::Connecting) => "connecting",
        (None, LinkState::Down) => "down",
    };
    let devices = l.devices.iter().map(|d| {
        let at = load(&d.read_at_ms);
        DeviceView {
            name: d.name.to_string(),
            state: match d.health() {
                Health::Healthy => "up",
                Health::Demoted => "silent",
                // A subscription has no polls to be healthy by: what it brings is.
                Health::Unknown if at > 0 && l.state() == LinkState::Up => "up",
                Health::Unknown => "unknown",
            },
            age_s: (at > 0).then(|| now_ms.saturating_sub(at) as f64 / 1000.0),
            missed: load(&d.missed),
        }
    });
    LineView {
        name: name.into(),
        state,
        insecure: l.is_insecure,
        good: load(&l.quality[0]),
        uncertain: load(&l.quality[1]),
        bad: load(&l.quality[2]),
        quarantined: load(&l.quarantined),
        readings: load(&l.readings),
        requests: load(&l.requests),
        timeouts: load(&l.timeouts),
        failures: load(&l.failures),
        poll_p50_us: l.poll.quantile_ns(0.5) / 1000,
        poll_p99_us: l.poll.quantile_ns(0.99) / 1000,
        devices: devices.collect(),
    }
}

/// All lines right now.
pub fn field(s: &Stages) -> Vec<LineView> {
    let now = s.clock.now().0;
    s.lines.all().iter().map(|(name, l)| line(name, l, now)).collect()
}

/// An order, and when it went through its states.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OrderRow {
    /// The order.
    #[serde(flatten)]
    pub order: OrderView,
    /// Taken or refused, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
    /// A machine was put to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// It ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Not ended, and taken more than ten minutes ago.
    pub late: bool,
}

/// Whether an order has ended.
pub fn has_ended(state: OrderState) -> bool {
    matches!(state, OrderState::Completed | OrderState::Rejected | OrderState::Failed)
}

/// Orders with their times. None is late because somebody has set the clock.
pub fn rows(board: &Board, orders: Vec<OrderView>) -> Vec<OrderRow> {
    let times = board.times(orders.iter().map(|o| o.id));
    let ages = board.ages(orders.iter().map(|o| o.id));
    let row = |((order, [taken, started, ended]), age): ((OrderView, [Option<u64>; 3]), Option<Duration>)| {
        let late = !has_ended(order.state) && age.is_some_and(|age| age > LATE_AFTER);
        let [taken, started, ended] = [taken, started, ended].map(|t| t.map(stamp));
        OrderRow { order, taken, started, ended, late }
    };
    orders.into_iter().zip(times).zip(ages).map(row).collect()
}

/// All orders that have not ended, and the newest of those that have.
pub fn orders(desk: &Desk, board: &Board) -> Vec<OrderRow> {
    let all = desk.newest(crate::desk::HISTORY, None);
    let (ended, mut open): (Vec<_>, Vec<_>) = all.into_iter().partition(|o| has_ended(o.state));
    open.sort_by_key(|o| (is_found(o.id), std::cmp::Reverse(o.id)));
    open.truncate(500);
    open.extend(ended.into_iter().take(ENDED));
    rows(board, open)
}
