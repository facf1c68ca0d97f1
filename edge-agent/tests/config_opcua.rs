//! What a maintenance technician reads when the OPC UA part of a configuration is wrong. The texts are kept in
//! `snapshots/config_opcua.txt`; after a change read them aloud, then `UPDATE_EXPECT=1 cargo test -p edge-agent --test config_opcua`.

mod support;

use device_drivers::opcua::{Deadband, Identity, Mode, OpcUaSpec, Vendor};
use edge_agent::config::{self, DriverPlan};
use expect_test::expect_file;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use support::demo_file;

const SECURITY: &str = "security   = \"none\"";
/// In a line whose gateway has no place for its keys.
const LOST: &str = "# lost";
const TAG: &str = "name = \"state\"";

/// A copy of the demo configuration in a folder of its own, with a text of the line and one of a tag replaced.
fn changed(line: &str, tag: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("profiles")).unwrap();
    for name in ["agent.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        let mut text = std::fs::read_to_string(demo_file(name)).unwrap();
        let (from, to) = match name {
            "agent.toml" => (SECURITY, line),
            "profiles/robot-cell.toml" => (TAG, tag),
            _ => ("", ""),
        };
        assert!(text.contains(from), "{name} does not say {from:?} any more");
        text = text.replacen(from, to, 1);
        if !line.contains(LOST) {
            text = text.replacen("[gateway]", "[gateway]\nstate_dir = \"state\"", 1);
        }
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("password"), "geheim\n").unwrap();
    for name in ["user.der", "user.pem"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let path = dir.path().join("agent.toml");
    (dir, path)
}

fn cell(path: &std::path::Path) -> OpcUaSpec {
    let plan = config::load(path).unwrap_or_else(|e| panic!("{e}"));
    let spec =
        plan.lines.into_iter().find_map(|l| if let DriverPlan::OpcUa(spec) = l.driver { Some(spec) } else { None });
    spec.expect("a line of OPC UA")
}

const SAFE: &str = "security = \"Basic256Sha256/SignAndEncrypt\"";

#[test]
fn wrong_keys_say_what_where_and_what_to_do() {
    let line = |keys: &str| (format!("{SAFE}\n{keys}"), TAG.to_string());
    let tag = |keys: &str| (SECURITY.to_string(), format!("{TAG}\n{keys}"));
    let rows = [
        ("a policy that is broken", ("security = \"Basic256/Sign\"".to_string(), TAG.to_string())),
        ("a policy without its mode", ("security = \"Basic256Sha256\"".to_string(), TAG.to_string())),
        ("a key that is lost with a restart", line(LOST)),
        ("a user without a password", line("username = \"op\"")),
        ("a password without a user", line("password_file = \"password\"")),
        ("a password that is not there", line("username = \"op\"\npassword_file = \"no-such-file\"")),
        ("a certificate without its key", line("user_certificate = \"user.der\"")),
        ("a key that is not there", line("user_certificate = \"user.der\"\nuser_key = \"no.pem\"")),
        ("two users", line("username = \"op\"\npassword_file = \"password\"\nuser_key = \"user.pem\"")),
        (
            "a user without security",
            (format!("{SECURITY}\nusername = \"op\"\npassword_file = \"password\""), TAG.to_string()),
        ),
        ("a vendor by another name", line("vendor = \"S7 1200\"")),
        ("a deadband of nothing", tag("deadband = 0.0")),
        ("a deadband beyond the range", tag("deadband_percent = 120.0")),
        ("two deadbands", tag("deadband = 0.5\ndeadband_percent = 1.0")),
        ("a queue of nothing", tag("queue = 0")),
        ("a polled tag with a queue", tag("poll = true\nqueue = 5")),
        ("a sampling too fast", tag("sampling = \"1ms\"")),
    ];
    let mut all = String::new();
    for (name, (line, tag)) in rows {
        let (dir, path) = changed(&line, &tag);
        let Err(report) = config::load(&path) else { panic!("{name}: taken for valid") };
        let text = report.render(false).replace(&format!("{}/", dir.path().display()), "");
        let _ = write!(all, "=== {name}\n{text}\n\n");
    }
    expect_file!["snapshots/config_opcua.txt"].assert_eq(&all);
}

#[test]
fn keys_of_opc_ua_on_a_modbus_device_are_refused() {
    let (_dir, path) = changed(SECURITY, TAG);
    let profile = path.with_file_name("profiles").join("rack-plc.toml");
    let text = std::fs::read_to_string(&profile).unwrap().replacen("[[tag]]", "[[tag]]\npoll = true", 1);
    std::fs::write(&profile, text).unwrap();
    let report = config::load(&path).unwrap_err().to_string();
    assert!(report.contains("this key belongs to OPC UA"), "{report}");
}

#[test]
fn what_is_said_of_a_line_and_its_tags_is_what_the_driver_gets() {
    let keys =
        format!("{SAFE}\ncheck_host = false\nvendor = \"s7-1200\"\nusername = \"op\"\npassword_file = \"password\"");
    let (_dir, path) = changed(&keys, &format!("{TAG}\nsampling = \"20ms\"\ndeadband = 0.5\nqueue = 10"));
    let spec = cell(&path);
    assert_eq!(spec.security.to_string(), "Basic256Sha256/SignAndEncrypt");
    assert!(!spec.security.check_host && !spec.is_insecure());
    assert_eq!(spec.vendor, Vendor::S71200);
    assert_eq!(spec.identity, Identity::User { name: "op".into(), password: "geheim".into() });
    let sampling = Duration::from_millis(20);
    let wanted = Mode::Subscribe { sampling, queue: 10, deadband: Some(Deadband::Absolute(0.5)) };
    assert_eq!(spec.points.iter().filter(|p| p.mode == wanted).count(), 1);

    let (_dir, path) = changed(SECURITY, &format!("{TAG}\ndeadband_percent = 5.0\nlow = -10\nhigh = 40.0"));
    let part = cell(&path).points.into_iter().find(|p| p.range.is_some()).expect("a tag with a range");
    assert_eq!(part.range, Some(50.0));
    assert!(matches!(part.mode, Mode::Subscribe { deadband: Some(Deadband::Percent(5.0)), .. }), "{part:?}");

    let (_dir, path) = changed(SECURITY, &format!("{TAG}\npoll = true\nsampling = \"2s\""));
    let spec = cell(&path);
    assert!(spec.is_insecure());
    let interval = Duration::from_secs(2);
    assert_eq!(spec.points.iter().filter(|p| p.mode == Mode::Poll { interval }).count(), 1);
}
