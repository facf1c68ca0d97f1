//! Reports at the end: one line a figure for people, one JSON object for programs.

use plc_sim::Truth;
use plc_sim::bank::Report;
use serde_json::{Value, json};

/// A key for programs, words for people, and the figure.
pub(crate) type Line = (&'static str, &'static str, Value);

/// Prints a report on standard output.
pub(crate) fn print(as_json: bool, lines: &[Line]) {
    if as_json {
        let object: serde_json::Map<_, _> = lines.iter().map(|(key, _, v)| (key.to_string(), v.clone())).collect();
        println!("{}", Value::Object(object));
        return;
    }
    let width = lines.iter().map(|(_, words, _)| words.len()).max().unwrap_or(0);
    for (_, words, value) in lines {
        println!("{words:width$}  {}", text(value));
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Array(all) if all.is_empty() => "none".into(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        other => other.to_string(),
    }
}

/// What really happened in a plant.
pub(crate) fn of_the_plant(truth: &Truth) -> Vec<Line> {
    let ids = |loads: &[control_core::units::LoadId]| json!(loads.iter().map(|l| l.get()).collect::<Vec<_>>());
    vec![
        ("commands_executed", "commands executed", json!(truth.commands_executed)),
        ("commands_refused", "commands refused", json!(truth.commands_refused)),
        ("double_commands", "commands executed twice", json!(truth.double_commands)),
        ("collisions", "vehicles that met", json!(truth.collisions)),
        ("loads_inside", "loads inside", json!(truth.loads_inside)),
        ("loads_left", "loads that left", json!(truth.loads_left)),
        ("in_two_places", "loads in two places", ids(&truth.in_two_places)),
        ("lost", "loads lost", ids(&truth.lost)),
        ("clean", "clean", json!(truth.is_clean())),
    ]
}

/// What a Modbus bank has done.
pub(crate) fn of_the_bank(report: &Report) -> Vec<Line> {
    vec![
        ("requests", "requests", json!(report.requests)),
        ("writes", "writes", json!(report.writes)),
        ("exceptions", "exceptions", json!(report.exceptions)),
        ("connections", "connections", json!(report.connections)),
        ("bytes_received", "bytes received", json!(report.bytes_received)),
        ("bytes_sent", "bytes sent", json!(report.bytes_sent)),
    ]
}
