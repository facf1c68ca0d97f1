//! The beat on a real clock: racks with so many shuttles, a plant beside them, and a thread that wakes when the next cycle is due.

use crate::arguments::refuse;
use crate::counting::counted;
use control_core::limits::REQUESTS_PER_CYCLE;
use control_core::order::{OrderRequest, Stops};
use control_core::units::OrderId;
use edge_agent::control::rt::{self, RealTime};
use edge_agent::metrics::histogram::Histogram;
use floor_plan::{Arena, FloorPlan};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Tiers of an aisle.
const TIERS: u16 = 20;
/// Cycles before anything is counted, once the orders are in: everything has been touched once.
const WARM_UP: u64 = 600;

/// Orders in the tables: one for every other vehicle.
fn orders(vehicles: u16) -> usize {
    usize::from(vehicles / 2).max(1)
}

/// What one run came to.
pub(crate) struct Run {
    pub(crate) vehicles: u16,
    pub(crate) period: Duration,
    pub(crate) policy: &'static str,
    pub(crate) exec: Histogram,
    missed: u64,
    allocations: u64,
    page_faults: i64,
    refused: Vec<String>,
    cyclictest: Option<(f64, f64)>,
}

impl Run {
    pub(crate) fn us(&self, quantile: f64) -> f64 {
        self.exec.quantile_ns(quantile) as f64 / 1000.0
    }

    fn missed_ratio(&self) -> f64 {
        self.missed as f64 / self.exec.count().max(1) as f64
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "vehicles": self.vehicles,
            "period_us": self.period.as_micros() as u64,
            "policy": self.policy,
            "cycles": self.exec.count(),
            "exec_us": { "p50": self.us(0.5), "p99": self.us(0.99), "p999": self.us(0.999), "max": self.exec.max_ns() as f64 / 1000.0 },
            "missed_ratio": self.missed_ratio(),
            "allocations": self.allocations,
            "page_faults": self.page_faults,
            "refused": self.refused,
            "cyclictest_us": self.cyclictest.map(|(average, max)| json!({ "average": average, "max": max })),
        })
    }

    pub(crate) fn line(&self) -> String {
        let mut text = format!(
            "{:>8}  {:>6}  {:<11} {:>7.1} {:>7.1} {:>9.1}  {:>7.3} %  {:>11}  {:>11}",
            self.vehicles,
            format!("{:?}", self.period),
            self.policy,
            self.us(0.5),
            self.us(0.99),
            self.us(0.999),
            self.missed_ratio() * 100.0,
            self.allocations,
            self.page_faults
        );
        for refused in &self.refused {
            let _ = write!(text, "\n          {refused}");
        }
        if let Some((average, max)) = self.cyclictest {
            let _ = write!(text, "\n          cyclictest wakes {average} us late on average, {max} us at most");
        }
        text
    }
}

/// Threads that only count, until this is dropped.
pub(crate) struct Stress(Arc<AtomicBool>);

impl Stress {
    pub(crate) fn begin() -> Stress {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut n = 0u64;
                while !stop.load(Relaxed) {
                    n = std::hint::black_box(n.wrapping_add(1));
                }
            });
        }
        Stress(stop)
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The same under SCHED_OTHER and under SCHED_FIFO, each on a thread of its own.
pub(crate) fn pair(vehicles: u16, period: Duration, length: Duration) -> Vec<Run> {
    let run = |fifo: bool| {
        let thread =
            std::thread::Builder::new().stack_size(8 << 20).spawn(move || beat(vehicles, period, length, fifo));
        thread.map_err(|e| e.to_string()).and_then(|t| t.join().map_err(|_| "the beat has panicked".into()))
    };
    [false, true].map(|fifo| run(fifo).unwrap_or_else(|e: String| refuse(&e))).into()
}

/// Racks with so many shuttles, a lift an aisle, a belt in and a belt out.
fn racks(vehicles: u16) -> FloorPlan {
    let mut text = String::new();
    let mut left = vehicles.max(1);
    for n in 1.. {
        let tiers = left.min(TIERS);
        let _ = writeln!(text, "[[aisle]]\nname = \"a{n}\"\ntiers = {tiers}\nbays = 1");
        let _ = writeln!(text, "[[belt]]\nname = \"in-{n}\"\nfrom = \"outside\"\nto = \"a{n}.lift\"");
        let _ = writeln!(text, "[[belt]]\nname = \"out-{n}\"\nfrom = \"a{n}.lift\"\nto = \"outside\"");
        left -= tiers;
        if left == 0 {
            break;
        }
    }
    FloorPlan::parse(&text).unwrap_or_else(|faults| refuse(&faults.first().map_or(String::new(), |f| f.text(&text))))
}

fn page_faults() -> i64 {
    // SAFETY: all zeros are a valid `rusage`, and the call fills in a live one of this thread's.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    usage.ru_minflt + usage.ru_majflt
}

fn beat(vehicles: u16, period: Duration, length: Duration, fifo: bool) -> Run {
    let plan = Arc::new(racks(vehicles));
    let mut config = PlantConfig::from_toml("tiers = 1\nbays_per_side = 1\nloads = 0\n").expect("a plant").on(plan);
    config.loads = config.plan.bays().count().min(usize::from(u16::MAX)) as u16 / 2;
    let arena = Arena::new();
    let mut floor = ClosedLoop::new(&arena, config, 7, LinkFaults::default()).unwrap_or_else(|e| refuse(&e));
    let wanted = RealTime { wanted: fifo, required: false, priority: 80, core: None };
    let refused = rt::enter(&wanted);
    let exec = Histogram::default();
    let (mut missed, mut allocations, mut faults, mut cycles) = (0, 0, 0, 0u64);
    let mut order = 0;
    let mut due = Instant::now() + period;
    let wanted = (length.as_micros() / period.as_micros().max(1)) as u64;
    let warm_up = WARM_UP + (orders(vehicles) / REQUESTS_PER_CYCLE) as u64;
    while cycles < wanted + warm_up {
        if cycles.is_multiple_of(200) {
            more_orders(&mut floor, orders(vehicles), &mut order);
        }
        floor.run_for(plc_sim::closed_loop::PERIOD_MS, |cycle| {
            // What the plant has taken beside is not the beat's: the next cycle is due a period after it at the earliest.
            let now = Instant::now();
            if due < now {
                due = now + period;
            }
            std::thread::sleep(due - now);
            let faults_before = page_faults();
            let begin = Instant::now();
            let ((), calls) = counted(&mut *cycle);
            let end = Instant::now();
            if cycles >= warm_up {
                faults += page_faults() - faults_before;
                allocations += calls;
                missed += u64::from(end > due + period);
                exec.record_ns(u64::try_from((end - begin).as_nanos()).unwrap_or(u64::MAX));
            }
            due += period;
        });
        cycles += 1;
    }
    let policy = if fifo && refused.is_empty() { "SCHED_FIFO" } else { "SCHED_OTHER" };
    let cyclictest = if fifo { cyclictest(period) } else { None };
    Run { vehicles, period, policy, exec, missed, allocations, page_faults: faults, refused, cyclictest }
}

/// Loads out, and others in: as many orders as there were, all over the racks.
fn more_orders(floor: &mut ClosedLoop<'_>, wanted: usize, next: &mut u32) {
    let missing = wanted.saturating_sub(floor.controller.orders().len());
    let loads: Vec<_> = floor.plan().bays().filter_map(|b| floor.plant.loads().at(b)).collect();
    for load in loads.iter().copied().step_by((loads.len() / missing.max(1)).max(1)).take(missing) {
        *next += 1;
        floor.order(OrderRequest::new(OrderId(*next), load, Stops::RETRIEVE));
        if let Some(fresh) = control_core::units::LoadId::new(100_000 + *next) {
            floor.plant.deliver(fresh); // nobody has announced it: it is put away
        }
    }
}

/// What cyclictest says of the host: microseconds late, on average and at most.
fn cyclictest(period: Duration) -> Option<(f64, f64)> {
    let interval = format!("--interval={}", period.as_micros());
    let output =
        Command::new("cyclictest").args(["--quiet", "--mlockall", "--priority=80", "--duration=3", &interval]).output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let figure = |name: &str| {
        let rest = text.split(name).nth(1)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some((figure("Avg:")?, figure("Max:")?))
}
