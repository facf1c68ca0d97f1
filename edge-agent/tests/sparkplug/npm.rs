//! What npm's `sparkplug-payload` reads, beside what we read from the same bytes.

use edge_agent::telemetry::sparkplug::payload::{CellValue, Metric, MetricValue, ParameterValue};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Each message as that library reads it.
pub(crate) fn decode(node: &Path, modules: &Path, said: &[(String, Vec<u8>)]) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/sparkplug_payload.js");
    let mut child = Command::new(node)
        .arg(script)
        .env("NODE_PATH", modules)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = said
        .iter()
        .map(|(topic, payload)| {
            let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{topic} {hex}\n")
        })
        .collect();
    let writing = std::thread::spawn(move || lines.iter().for_each(|line| input.write_all(line.as_bytes()).unwrap()));
    let out = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Asserts that both have read the same metric; `kinds` are the types that were told.
pub(crate) fn same(topic: &str, ours: &Metric, theirs: &Value, kinds: &mut BTreeSet<String>) {
    let text = |key: &str| theirs[key].as_str().map(String::from);
    if ours.name.is_some() {
        assert_eq!(text("name"), ours.name, "{topic}");
    }
    // Data goes by alias and has no type in it: that of the birth is the host's to remember.
    let Some(datatype) = ours.datatype else { return };
    kinds.extend(text("type"));
    let value = &theirs["value"];
    let at = format!("{topic} {:?} of type {datatype}: {theirs}", ours.name);
    match &ours.value {
        None => assert!(value.is_null(), "{at}"),
        Some(MetricValue::Boolean(b)) => assert_eq!(value.as_bool(), Some(*b), "{at}"),
        Some(MetricValue::Text(t)) => assert_eq!(value.as_str(), Some(t.as_str()), "{at}"),
        Some(MetricValue::Int(n)) if datatype <= 3 => {
            assert_eq!(value.as_str(), Some(&*n.cast_signed().to_string()), "{at}")
        }
        Some(MetricValue::Int(n)) => assert_eq!(value.as_str(), Some(&*n.to_string()), "{at}"),
        Some(MetricValue::Long(n)) if datatype == 4 => {
            assert_eq!(value.as_str(), Some(&*n.cast_signed().to_string()), "{at}")
        }
        Some(MetricValue::Long(n)) => assert_eq!(value.as_str(), Some(&*n.to_string()), "{at}"),
        Some(MetricValue::Float(f)) => assert_eq!(number(value).map(|n| n as f32), Some(*f), "{at}"),
        Some(MetricValue::Double(f)) => assert_eq!(number(value), Some(*f), "{at}"),
        Some(MetricValue::Bytes(_) | MetricValue::Extension(_)) => {}
        Some(MetricValue::DataSet(set)) => {
            let rows = value["rows"].as_array().unwrap();
            assert_eq!(rows.len(), set.rows.len(), "{at}");
            for (ours, theirs) in set.rows.iter().zip(rows) {
                let shown = ours.elements.iter().map(|cell| match &cell.value {
                    Some(CellValue::Text(t)) => Value::from(t.as_str()),
                    Some(CellValue::Boolean(b)) => Value::from(*b),
                    Some(CellValue::Long(n)) => Value::from(n.to_string()),
                    other => panic!("{other:?}"),
                });
                assert_eq!(*theirs, Value::Array(shown.collect()), "{at}");
            }
        }
        Some(MetricValue::Template(template)) => {
            let members = value["metrics"].as_array().unwrap();
            assert_eq!(members.len(), template.metrics.len(), "{at}");
            template.metrics.iter().zip(members).for_each(|(ours, theirs)| same(topic, ours, theirs, kinds));
            let parameters = value["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(parameters.len(), template.parameters.len(), "{at}");
            for (ours, theirs) in template.parameters.iter().zip(parameters) {
                let shown = match &ours.value {
                    Some(ParameterValue::Text(t)) => t.clone(),
                    Some(ParameterValue::Long(n)) => n.to_string(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(
                    (theirs["name"].as_str(), theirs["value"].as_str()),
                    (ours.name.as_deref(), Some(&*shown)),
                    "{at}"
                );
            }
        }
    }
    let Some(properties) = &ours.properties else { return };
    for (key, ours) in properties.keys.iter().zip(&properties.values) {
        let theirs = &theirs["properties"][key]["value"];
        match (&ours.string_value, ours.double_value, ours.int_value) {
            (Some(text), ..) => assert_eq!(theirs.as_str(), Some(text.as_str()), "{at}"),
            (_, Some(end), _) => assert_eq!(number(theirs), Some(end), "{at}"),
            (.., Some(n)) => assert_eq!(theirs.as_str(), Some(&*n.to_string()), "{at}"),
            _ => panic!("{key} of {at} has no value"),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}
