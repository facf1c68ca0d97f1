//! What a maintenance technician reads when a configuration is wrong. The texts are kept in `snapshots/config_errors.txt`;
//! after a change read them aloud, then `UPDATE_EXPECT=1 cargo test -p edge-agent --test config_errors`.

mod support;

use edge_agent::config;
use expect_test::expect_file;
use std::fmt::Write;
use std::path::Path;
use support::demo_file;

/// A copy of the demo configuration in a folder of its own, with one text replaced.
fn changed(file: &str, from: &str, to: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("profiles")).unwrap();
    for name in ["agent.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        let mut text = std::fs::read_to_string(demo_file(name)).unwrap();
        if name == file {
            assert!(text.contains(from), "{file} does not say {from:?} any more");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("agent.toml");
    (dir, path)
}

fn report(name: &str, path: &Path, dir: &Path) -> String {
    let Err(report) = config::load(path) else { panic!("{name}: taken for valid") };
    report.render(false).replace(&format!("{}/", dir.display()), "")
}

const SENSORS: &str = "[sensors]                       # load id at every position, two registers each, in the order of the location numbers
first = \"input:1000\"
bays  = \"1s\"";

#[test]
fn wrong_configurations_say_what_where_and_what_to_do() {
    let agent = "agent.toml";
    let rack = "profiles/rack-plc.toml";
    let cell = "profiles/robot-cell.toml";
    let rows = [
        ("a key that does not exist", agent, "broker    =", "brocker   ="),
        ("a key in the wrong table", agent, "drain  = \"10s\"", "period = \"10ms\""),
        ("a missing key", agent, "area   = \"hall-1\"", ""),
        ("a number where a text belongs", agent, "modbus  = \"127.0.0.1:5020\"", "modbus  = 5020"),
        ("a text where a number belongs", agent, "tiers         = 4", "tiers         = \"four\""),
        ("a duration without its unit", agent, "\"500ms\"", "500"),
        ("a duration that is none", agent, "\"500ms\"", "\"500\""),
        ("a number too large", agent, "unit    = 1", "unit    = 300"),
        ("not TOML at all", agent, "[mqtt]", "[mqtt"),
        ("a text without quotation marks", agent, "\"127.0.0.1:1883\"", "127.0.0.1:1883"),
        ("a table with single brackets", agent, "[[line]]", "[line]"),
        ("a password without a user", agent, "heartbeat = \"30s\" ", "password_file = \"secret\""),
        ("an address without a port", agent, "\"127.0.0.1:5020\"", "\"127.0.0.1\""),
        ("a control period out of range", agent, "\"10ms\"", "\"2s\""),
        ("a topic with a level that does not exist", agent, "{device}/{tag}", "{machine}/{tag}"),
        ("a line without security said", agent, "security   = \"none\"", "             "),
        ("a profile that is not there", agent, "profiles/rack-plc.toml", "profiles/rack.toml"),
        ("a floor larger than its controllers", agent, "tiers         = 4", "tiers         = 5"),
        ("a tag twice", rack, "name    = \"lift.state\"", "name    = \"lift.mode\""),
        ("a table that does not exist", rack, "\"input:12\"", "\"inputs:12\""),
        ("an address beyond the last register", rack, "\"input:12\"", "\"input:70000\""),
        (
            "a value that ends beyond the last register",
            rack,
            "\"input:22\"\ntype    = \"u16\"",
            "\"input:65535\"\ntype    = \"u32\"",
        ),
        ("a type that does not exist", rack, "type    = \"i16\"", "type    = \"int16\""),
        ("a bit without a bit type", rack, "\"input:12\"", "\"input:12.3\""),
        ("a machine the floor does not have", rack, "name    = \"shuttle-1\"", "name    = \"shuttle-9\""),
        ("a command block that cannot be written", rack, "\"holding:0\"", "\"input:0\""),
        ("positions that nobody reads", rack, SENSORS, ""),
        ("command blocks that overlap", rack, "\"holding:20\"", "\"holding:10\""),
        ("a type by its IEC 61131-3 name", rack, "type    = \"i16\"", "type    = \"INT\""),
        ("an interval too short", rack, "interval = \"50ms\"", "interval = \"1ms\""),
        ("a factor on an OPC UA node", cell, "name = \"state\"", "factor = 0.1\nname = \"state\""),
        ("security on a Modbus line", agent, "timeout = \"1s\"", "security = \"none\""),
        ("a node that is none", cell, "nsu=urn:lightsout:plc-sim:cell;s=Cell.State\"", "Cell.State\""),
    ];
    let mut all = String::new();
    for (name, file, from, to) in rows {
        let (dir, path) = changed(file, from, to);
        let _ = write!(all, "=== {name}\n{}\n\n", report(name, &path, dir.path()));
    }
    expect_file!["snapshots/config_errors.txt"].assert_eq(&all);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let text = config::load(Path::new("no/such/agent.toml")).unwrap_err().to_string();
    assert!(text.contains("cannot read no/such/agent.toml: No such file or directory"), "{text}");
}

#[test]
fn all_problems_of_meaning_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = changed("agent.toml", "\"127.0.0.1:1883\"", "\"localhost\"");
    for name in ["agent.toml", "profiles"] {
        std::fs::rename(first.path().join(name), dir.path().join(name)).unwrap();
    }
    let path = dir.path().join("agent.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("{device}/{tag}", "{tag}");
    std::fs::write(&path, text).unwrap();
    let report = config::load(&path).unwrap_err();
    assert_eq!(report.0.len(), 2, "{report}");
}
