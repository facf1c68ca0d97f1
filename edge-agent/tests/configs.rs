//! Every file in `configs/` loads: with the program it is for, or with ours.

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::installed;

fn configs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[test]
fn there_is_no_file_that_no_test_loads() {
    let mut found = Vec::new();
    let mut folders = vec![configs()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(configs()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    let known = [
        "demo/agent.toml",
        "demo/floor.toml",
        "demo/plant.toml",
        "demo/profiles/aisle-plc.toml",
        "demo/profiles/hall-plc.toml",
        "demo/profiles/robot-cell.toml",
        "demo/profiles/robots.toml",
        "faults/modbus.toml", // both in plc-sim/tests/bank_faults.rs
        "faults/opcua.toml",
        "grafana/beat.json", // these and the rules in alerts.rs
        "grafana/field.json",
        "grafana/fleet.json",
        "grafana/spool.json",
        "lightsout.service",
        "mosquitto.acl",
        "mosquitto.conf",
        "package/Containerfile", // this and the next are parts of a package: .ci/package
        "package/agent.toml",
        "package/serial.conf",
        "prometheus.yml", // in peers.rs, by a real Prometheus
        "prometheus/alerts.yml",
        "proxy/Caddyfile", // these two in door.rs
        "proxy/nginx.conf",
        "samples/gateway/agent.toml",
        "samples/gateway/drive.toml",
        "samples/gateway/meter.csv",
        "samples/gateway/packer.toml",
        "samples/pair/gateway-a.toml",
        "samples/pair/gateway-b.toml",
        "samples/sparkplug/agent.toml",
        "samples/sparkplug/press.toml",
        "small/agent.toml",
        "small/plant.toml",
        "small/profiles/rack-plc.toml",
        "small/profiles/robot-cell.toml",
    ];
    assert_eq!(found, known, "a new file in configs/ needs a test that loads it");
}

#[test]
fn the_demo_loads_and_check_says_so() {
    let check = |file: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").arg(configs().join(file)).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("is valid"), "{text}");
        text
    };
    let small = check("small/agent.toml");
    assert!(small.contains("216 points, requests: 2 every 50ms, 3 every 1s"), "{small}");
    let whole = check("demo/agent.toml");
    assert!(whole.contains("24 mobile robots") && whole.contains("proven   24 robots"), "{whole}");
    support::demo_plant();
    support::hall_plant();
}

#[test]
fn the_samples_are_valid_and_every_line_of_them_can_keep_its_schedule() {
    let all = [
        "package/agent.toml",
        "samples/gateway/agent.toml",
        "samples/sparkplug/agent.toml",
        "samples/pair/gateway-a.toml",
        "samples/pair/gateway-b.toml",
        "small/agent.toml",
    ];
    for name in all {
        for command in ["check", "plan"] {
            let output =
                Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg(command).arg(configs().join(name)).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{command} {name}: {said}");
            assert!(!said.contains("\n  note "), "{name} has something that hardly anybody means: {said}");
        }
    }
}

#[test]
fn the_drop_in_for_serial_ports_is_one_systemd_takes_and_the_container_file_runs_what_is_built() {
    let file = std::fs::read_to_string(configs().join("package/Containerfile")).unwrap();
    assert!(file.contains("COPY target/${TARGET}/dist/edge-agent") && file.contains("USER 65532"));
    let Some(analyze) = installed("systemd-analyze", "the_drop_in_for_serial_ports") else { return };
    let dir = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(configs().join("lightsout.service")).unwrap();
    let serial = std::fs::read_to_string(configs().join("package/serial.conf")).unwrap();
    let here = env!("CARGO_BIN_EXE_edge-agent");
    std::fs::create_dir(dir.path().join("lightsout.service.d")).unwrap();
    std::fs::write(dir.path().join("lightsout.service"), unit.replace("/usr/bin/edge-agent", here)).unwrap();
    std::fs::write(dir.path().join("lightsout.service.d/serial.conf"), serial).unwrap();
    let output =
        Command::new(analyze).args(["verify", "--man=no"]).arg(dir.path().join("lightsout.service")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|l| l.contains("lightsout")).collect();
    assert!(ours.is_empty(), "{said}");
}

#[test]
fn check_ends_with_2_on_a_wrong_file_and_with_1_when_a_peer_is_not_reached() {
    let check =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").args(args).output().unwrap();
    assert_eq!(check(&["Cargo.toml"]).status.code(), Some(2));

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("profiles")).unwrap();
    let nobody = support::free_port().to_string();
    for name in ["agent.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        let text = std::fs::read_to_string(configs().join("small").join(name)).unwrap();
        std::fs::write(
            dir.path().join(name),
            text.replace("5020", &nobody).replace("127.0.0.1:4855", "no.such.host.invalid:4855"),
        )
        .unwrap();
    }
    let file = dir.path().join("agent.toml").display().to_string();
    let output = check(&[&file, "--connect"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("NOT reached  line rack") && text.contains("nothing listens on this port"), "{text}");
    assert!(
        text.contains("NOT reached  line cell: the name in no.such.host.invalid:4855 cannot be looked up"),
        "{text}"
    );
}

#[test]
fn mosquitto_takes_the_broker_configuration_and_the_access_list() {
    let test = "mosquitto_takes_the_broker_configuration_and_the_access_list";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = support::free_port();
    let text = std::fs::read_to_string(configs().join("mosquitto.conf")).unwrap();
    let text = text.replace("listener 1883", &format!("listener {port}"));
    let acl = dir.path().join("mosquitto.acl");
    std::fs::copy(configs().join("mosquitto.acl"), &acl).unwrap();
    let config = dir.path().join("mosquitto.conf");
    std::fs::write(&config, format!("{text}\nacl_file {}\n", acl.display())).unwrap();
    let mut broker =
        Command::new(mosquitto).arg("-c").arg(&config).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let up = (0..1200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let ended = broker.try_wait().unwrap();
    let _ = broker.kill();
    let _ = broker.wait();
    assert!(up && ended.is_none(), "mosquitto refuses the shipped files: {ended:?}");
}

#[test]
fn the_unit_is_hardened_and_still_permits_real_time() {
    let unit = std::fs::read_to_string(configs().join("lightsout.service")).unwrap();
    for needed in ["Type=notify", "WatchdogSec=", "LimitRTPRIO=99", "LimitMEMLOCK=infinity", "RestrictRealtime=no"] {
        assert!(unit.contains(needed), "{needed}");
    }
    let test = "the_unit_is_hardened_and_still_permits_real_time";
    let Some(analyze) = installed("systemd-analyze", test) else { return };
    let path: &Path = &configs().join("lightsout.service");
    let output =
        Command::new(analyze).args(["security", "--offline=true", "--threshold=15"]).arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default();
    if !output.status.success() {
        let _ = writeln!(std::io::stderr(), "{said}");
    }
    assert!(output.status.success(), "the score must be 1.5 at most: {last}");
}
