//! How much a rack with shuttles and lifts brings out, beside what it could at most by formula.
//!
//! ```text
//!   cargo bench --bench shuttle -- --aisles A --tiers T --bays B --lifts 1|2 --depth 1|2 --buffer N
//!       [--sequence strict|groups:G|free] [--four-way P] [--look-ahead W] [--loads N] [--seed S] [--json] [--plot FILE.svg]
//! ```
//!
//! Every choice (which load a lift takes next, on which tier a load is put) is the control core's. Times are those of the worked
//! example of [`floor_plan::bounds`]: half a metre from tier to tier and from bay to bay.
//!
//! | figure | of what |
//! |---|---|
//! | `loads_per_hour` | retrievals while there is always more to do than can be done |
//! | `first_come_per_hour` | the same rack, lifts and shuttles in the order in which the loads were asked for |
//! | `double_per_hour` | one in and one out each trip, the load that comes in being bound to a random tier |
//! | `same_tier_per_hour` | the same, the core choosing the tier |
//! | `retrieval_s` | from the request to the lift's foot, requests coming at random at 50, 80 and 95 % of the bound |
//! | `stuck` | runs that came to a stop with loads still to be brought |
//!
//! `--lifts 2`: two on one mast, that do not pass each other; the upper one's foot lies a metre above the lower one's.
//! `--four-way P`: P percent of the tiers have no shuttle of their own; one comes from another tier by the lift.

#[path = "common/arguments.rs"]
mod arguments;
#[path = "shuttle/model.rs"]
mod model;
#[path = "shuttle/plot.rs"]
mod plot;
#[path = "shuttle/rack.rs"]
mod rack;
#[path = "shuttle/run.rs"]
mod run;

use arguments::{Arguments, refuse};
use model::{Order, Setting};
use serde_json::json;

fn main() {
    let arguments = Arguments::of_process();
    let order = match arguments.text("--sequence") {
        None | Some("free") => Order::Free,
        Some("strict") => Order::Strict,
        Some(groups) => match groups.strip_prefix("groups:").and_then(|g| g.parse().ok()) {
            Some(size) if size > 0 => Order::Groups(size),
            _ => refuse(&format!("--sequence {groups}: expected strict, groups:G or free")),
        },
    };
    let tiers = arguments.number("--tiers", 20);
    let setting = Setting {
        tiers,
        columns: arguments.number("--bays", 100),
        lifts: arguments.number("--lifts", 1),
        depth: arguments.number("--depth", 1),
        buffer: arguments.number("--buffer", 2),
        order,
        look_ahead: arguments.number("--look-ahead", tiers),
        four_way: arguments.number("--four-way", 0),
    };
    if let Err(why) = setting.check() {
        refuse(&why);
    }
    let aisles: u64 = arguments.number("--aisles", 1);
    let loads: u64 = arguments.number("--loads", 200_000);
    let seed: u64 = arguments.number("--seed", 1);

    let per_aisle: Vec<run::Figures> =
        (0..aisles).map(|a| run::figures(&setting, loads / aisles.max(1), seed.wrapping_add(a))).collect();
    let sum = |of: fn(&run::Figures) -> f64| per_aisle.iter().map(of).sum::<f64>();
    let mean = |of: fn(&run::Figures) -> f64| sum(of) / per_aisle.len().max(1) as f64;
    let (rate, bound) = (sum(|f| f.loads_per_hour), setting.bound() * aisles as f64);
    let result = json!({
        "aisles": aisles,
        "sequence": arguments.text("--sequence").unwrap_or("free"),
        "loads": per_aisle.iter().map(|f| f.loads).sum::<u64>(),
        "loads_per_hour": round(rate),
        "bound_per_hour": round(bound),
        "ratio": (rate / bound * 1e4).round() / 1e4,
        "first_come_per_hour": round(sum(|f| f.first_come)),
        "double_per_hour": round(sum(|f| f.double)),
        "double_first_come_per_hour": round(sum(|f| f.double_first_come)),
        "same_tier_per_hour": round(sum(|f| f.same_tier)),
        "stuck": per_aisle.iter().map(|f| f.stuck).sum::<u64>(),
        "lift_utilisation": round3(mean(|f| f.lift_busy)),
        "shuttle_utilisation": round3(mean(|f| f.shuttle_busy)),
        "relocations_per_load": round3(mean(|f| f.relocations)),
        "tier_changes_per_load": round3(mean(|f| f.changes)),
        "retrieval_s": retrieval(&per_aisle),
    });
    if let Some(file) = arguments.text("--plot") {
        plot::rate_over_buffer(file, &setting, seed).unwrap_or_else(|why| refuse(&format!("{file}: {why}")));
    }
    if arguments.flag("--json") {
        println!("{result}");
    } else {
        println!("{result:#}");
    }
}

/// By load, of the first aisle.
fn retrieval(per_aisle: &[run::Figures]) -> serde_json::Value {
    let Some(first) = per_aisle.first() else { return json!({}) };
    first
        .retrieval
        .iter()
        .map(|(load, [p50, p95])| (load.to_string(), json!({ "p50": round(*p50), "p95": round(*p95) })))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
