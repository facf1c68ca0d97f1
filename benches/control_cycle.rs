//! What a control cycle costs: the demo floor under load in virtual time, every cycle measured.
//!
//! ```text
//!   cargo bench -p benches --bench control_cycle [-- --minutes 60] [--json]
//! ```
//!
//! The plant, the link and the codec run beside it and are not counted. Times are those of the host the bench runs on.

use control_core::order::{OrderRequest, Stops};
use control_core::units::{LoadId, OrderId};
use edge_agent::metrics::histogram::Histogram;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults, PERIOD_MS};
use std::time::Instant;

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.next()?;
    args.next()
}

fn main() {
    let minutes: u64 = argument("--minutes").and_then(|m| m.parse().ok()).unwrap_or(60);
    let json = std::env::args().any(|a| a == "--json");
    let floor_file = include_str!("../configs/demo/floor.toml");
    let config = PlantConfig::read(include_str!("../configs/demo/plant.toml"), |_| Ok(floor_file.into()));
    let arena = floor_plan::Arena::new();
    let config = config.expect("a valid plant");
    let mut floor = ClosedLoop::new(&arena, config, 7, LinkFaults::default()).expect("a floor");
    let exec = Histogram::default();
    let start = Instant::now();
    floor.run(2_000);
    let mut order = 0;
    for _ in 0..minutes * 6 {
        // As many orders as the tables hold: the worst a cycle meets.
        while floor.controller.orders().len() < 100 {
            let loads: Vec<LoadId> = floor.plant.loads().all().collect();
            order += 1;
            let load = loads[order as usize % loads.len()];
            let class = (order % 4) as u8;
            let stops = Stops::process((order % 2) as u8, 1);
            floor.order(OrderRequest { class, ..OrderRequest::new(OrderId(order), load, stops) });
            if (order as usize).is_multiple_of(loads.len()) {
                break; // every load has been asked for once
            }
        }
        floor.run_for(10_000, |cycle| {
            let begin = Instant::now();
            cycle();
            exec.record_ns(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        });
    }
    let wall = start.elapsed().as_secs_f64();
    let us = |ns: u64| ns as f64 / 1000.0;
    let result = serde_json::json!({
        "cycles": exec.count(),
        "exec_us": {
            "mean": exec.sum_s() * 1e6 / exec.count() as f64,
            "p50": us(exec.quantile_ns(0.5)),
            "p99": us(exec.quantile_ns(0.99)),
            "p999": us(exec.quantile_ns(0.999)),
            "max": us(exec.max_ns()),
        },
        "orders_completed": floor.counters().orders_completed,
        "commands_done": floor.counters().commands_done,
        "plant_seconds_per_second": (exec.count() * PERIOD_MS) as f64 / 1000.0 / wall,
        "clean": floor.plant.truth().is_clean(),
    });
    if json {
        println!("{result}");
    } else {
        println!("{result:#}");
    }
}
