//! What a control cycle costs.
//!
//! ```text
//!   cargo bench --bench control_cycle [-- --minutes 60] [--json]           the demo floor in virtual time
//!   cargo bench --bench control_cycle -- --vehicles 100,1000 --period-us 1000 [--for 30s] [--stress] [--plot FILE.svg] [--json]
//! ```
//!
//! The second keeps a real beat on a thread of the host: once under SCHED_OTHER, once under SCHED_FIFO, for each number of vehicles;
//! with `--stress` two threads beside it do nothing but count. `missed_ratio` is the part of the cycles that were not done before the
//! next was due, late waking included. With cyclictest installed its figures stand beside (what the host could do at best).

#[path = "common/arguments.rs"]
mod arguments;
#[path = "control_cycle/beat.rs"]
mod beat;
#[path = "common/counting.rs"]
mod counting;
#[path = "control_cycle/hall.rs"]
mod hall;
#[path = "control_cycle/plot.rs"]
mod plot;

use arguments::{Arguments, refuse};
use std::time::Duration;

fn main() {
    let arguments = Arguments::of_process();
    let json = arguments.flag("--json");
    let Some(list) = arguments.text("--vehicles") else {
        let result = hall::run(arguments.number("--minutes", 60));
        return if json { println!("{result}") } else { println!("{result:#}") };
    };
    let vehicles: Vec<u16> = list
        .split(',')
        .map(|n| n.parse().unwrap_or_else(|_| refuse(&format!("--vehicles {n}: expected numbers, as in 100,1000"))))
        .collect();
    let length = arguments.text("--for").unwrap_or("10s");
    let length = humantime::parse_duration(length).unwrap_or_else(|e| refuse(&format!("--for {length}: {e}")));
    let period = Duration::from_micros(arguments.number("--period-us", 10_000));
    let stress = arguments.flag("--stress").then(beat::Stress::begin);
    let runs: Vec<beat::Run> = vehicles.iter().flat_map(|n| beat::pair(*n, period, length)).collect();
    drop(stress);
    if let Some(file) = arguments.text("--plot") {
        plot::draw(file, &runs).unwrap_or_else(|e| refuse(&format!("{file}: {e}")));
    }
    if json {
        println!("{}", serde_json::Value::Array(runs.iter().map(beat::Run::json).collect()));
        return;
    }
    println!("VEHICLES  PERIOD  POLICY       P50 us  P99 us  P99.9 us  MISSED     ALLOCATIONS  PAGE FAULTS");
    for run in &runs {
        println!("{}", run.line());
    }
}
