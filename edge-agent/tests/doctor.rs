//! `doctor --security` looks at every file that the configuration names.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether the row passes, and what it found.
fn verdict(config: &Path, row: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    command.env("CREDENTIALS_DIRECTORY", config.with_file_name("credentials"));
    let output = command.args(["--json", "doctor", "--security"]).arg(config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{output:?}"));
    let rows = json["findings"].as_array().unwrap_or_else(|| panic!("{json:#}"));
    let found = rows.iter().find(|r| r["what"] == row).unwrap_or_else(|| panic!("no row {row}: {json:#}"));
    (found["pass"].as_bool().unwrap(), found["found"].as_str().unwrap().to_string())
}

#[test]
fn each_key_and_password_that_the_configuration_names_has_to_be_the_gateway_s_alone() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path(), 0o755);
    let at = |name: &str| dir.path().join(name);
    let text = r#"
[gateway]
name = "gw"
area = "h"
line = "a"
state_dir = "state"
[mqtt]
broker = "mqtts://broker.example:8883"
username = "gw"
password_file = "mqtt.password"
tls = { ca = "ca.pem", certificate = "gw.pem", key = "gw.key" }
[[line]]
name = "ua"
opcua = "opc.tcp://plc.example:4840"
security = "Basic256Sha256/SignAndEncrypt"
username = "op"
password_file = "opcua.password"
[[line]]
name = "ub"
opcua = "opc.tcp://plc2.example:4840"
security = "Basic256Sha256/SignAndEncrypt"
user_certificate = "user.der"
user_key = "user.key"
[[line]]
name = "m"
modbus = "tls://plc3.example:802"
tls = { ca = "ca.pem", certificate = "m.pem", key = "m.key" }
"#;
    let config = at("agent.toml");
    std::fs::write(&config, text).unwrap();
    let secrets = ["mqtt.password", "gw.key", "opcua.password", "user.key", "m.key"];
    let others = ["ca.pem", "gw.pem", "user.der", "m.pem"];
    for name in secrets.iter().chain(&others) {
        std::fs::write(at(name), "x").unwrap();
        set(&at(name), if secrets.contains(name) { 0o600 } else { 0o644 });
    }
    set(&config, 0o644);
    let (pass, found) = verdict(&config, "named secrets");
    assert!(pass && found.starts_with("5 "), "{found}");
    assert!(verdict(&config, "named files").0, "{:?}", verdict(&config, "named files"));
    for name in secrets {
        for mode in [0o644, 0o640, 0o620] {
            set(&at(name), mode);
            let (pass, found) = verdict(&config, "named secrets");
            assert!(!pass && found.contains(&format!("{name}: mode {mode:o}")), "{name} {mode:o}: {found}");
        }
        set(&at(name), 0o600);
    }
    for name in others.iter().chain(&["agent.toml"]) {
        set(&at(name), 0o666);
        let (pass, found) = verdict(&config, "named files");
        assert!(!pass && found.contains(name), "{name}: {found}");
        set(&at(name), 0o644);
    }
    set(dir.path(), 0o777);
    let (pass, found) = verdict(&config, "named secrets");
    assert!(!pass && found.contains("put another in its place"), "{found}");
    set(dir.path(), 0o755);
    if std::os::unix::fs::chown(at("gw.key"), Some(61_234), None).is_ok() {
        let (pass, found) = verdict(&config, "named secrets");
        assert!(!pass && found.contains("gw.key: owner 61234"), "{found}");
    }
}

#[test]
fn a_password_that_the_unit_hands_over_is_looked_at_like_one_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path(), 0o755);
    let (config, credential) = (dir.path().join("agent.toml"), dir.path().join("credentials/mqtt"));
    let text = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\nstate_dir = \"state\"\n\
                [mqtt]\nbroker = \"broker.example:1883\"\nusername = \"gw\"\npassword_credential = \"mqtt\"\n";
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir(dir.path().join("credentials")).unwrap();
    std::fs::write(&credential, "x").unwrap();
    for (mode, passes) in [(0o400, true), (0o440, false), (0o644, false)] {
        set(&credential, mode);
        let (pass, found) = verdict(&config, "named secrets");
        assert_eq!(pass, passes, "{mode:o}: {found}");
        assert!(passes || found.contains(&format!("credentials/mqtt: mode {mode:o}")), "{found}");
    }
}
