//! The command line as scripts and people use it: what is printed, where, and with which exit code.

mod support;

use edge_agent::Agent;
use edge_agent::access::Role;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn edge(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    command.args(args).env_remove("LIGHTSOUT_URL").env_remove("LIGHTSOUT_TOKEN");
    command
}

fn ran(args: &[&str]) -> (Option<i32>, String, String) {
    said(edge(args).output().unwrap())
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[test]
fn every_command_has_a_help_and_the_exit_codes_are_in_it() {
    let (code, help, _) = ran(&["--help"]);
    assert_eq!(code, Some(0));
    let commands = "run check plan status order acknowledge browse pki user doctor schema openapi completions";
    for command in commands.split(' ') {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
        let (code, text, _) = ran(&[command, "--help"]);
        assert!(code == Some(0) && text.contains("Usage: edge-agent"), "{command}");
    }
    assert!(help.contains("3 no agent answers"), "{help}");
}

#[test]
fn wrong_input_ends_with_2_no_agent_with_3_and_programs_get_json() {
    let (code, out, err) = ran(&["--json", "check", "Cargo.toml"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["valid"]), (Some(2), &Value::Bool(false)), "{out}");
    let first = &json["problems"][0];
    assert!(first["line"].as_u64().is_some() && first["title"].as_str().is_some_and(|t| t.contains("no key")), "{out}");
    assert!(err.contains("there is no key"), "people read the error stream: {err}");
    assert_eq!(ran(&["check"]).0, Some(2));
    let url = format!("http://127.0.0.1:{}", support::free_port());
    let (code, _, err) = ran(&["status", "--url", &url]);
    assert!(code == Some(3) && err.contains("does it run?"), "{err}");
    assert_eq!(ran(&["status", "--url", "ftp://x"]).0, Some(2));
}

#[test]
fn check_and_plan_speak_to_people_and_to_programs_and_colour_stays_off_pipes() {
    let demo = support::demo_file("agent.toml").display().to_string();
    let (code, text, _) = ran(&["check", &demo]);
    assert!(code == Some(0) && text.contains("is valid") && !text.contains('\u{1b}'), "{text}");
    let (code, out, _) = ran(&["check", &demo, "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["lines"][0]["points"].as_u64()), (Some(0), Some(216)));
    let (code, text, _) = ran(&["plan", &demo]);
    assert!(code == Some(0) && text.contains("busy, fine") && !text.contains('\u{1b}'), "{text}");
    let (_, out, _) = ran(&["plan", &demo, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["feasible"], true);
}

#[test]
fn the_schema_knows_every_key_of_the_shipped_configurations_and_says_what_it_is_for() {
    let (code, out, _) = ran(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&out).unwrap();
    let text = std::fs::read_to_string(support::demo_file("agent.toml")).unwrap();
    let config: toml::Table = toml::from_str(&text).unwrap();
    fits(&schema, &schema, &toml::Value::Table(config), "agent.toml");
    assert_eq!(schema["additionalProperties"], false, "unknown keys are wrong");
}

/// Follows a value through the schema: every key is there, with a description.
fn fits(root: &Value, schema: &Value, value: &toml::Value, at: &str) {
    let mut schema = schema;
    loop {
        if let Some(name) = schema["$ref"].as_str() {
            schema = root.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{at}: {name}"));
        } else if let Some(some) = schema["anyOf"].as_array() {
            schema = some.iter().find(|s| s["type"] != "null").unwrap();
        } else {
            break;
        }
    }
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let property = &schema["properties"][key];
                assert!(property.is_object(), "{at}: the schema has no {key}: {schema}");
                let told = property["description"].as_str().is_some() || property["$ref"].is_string();
                assert!(told, "{at}.{key} is not described");
                fits(root, property, value, &format!("{at}.{key}"));
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|i| fits(root, &schema["items"], i, at)),
        _ => {}
    }
}

#[test]
fn completions_and_the_api_s_document_are_made_from_the_code() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = ran(&["completions", shell]);
        assert!(code == Some(0) && text.contains("doctor") && text.contains("withdraw"), "{shell}");
    }
    let (code, out, _) = ran(&["openapi"]);
    let api: Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && api["paths"]["/api/v1/orders"]["post"].is_object());
}

#[test]
fn the_doctor_gives_a_verdict_with_a_way_to_mend_it_for_each_thing() {
    let demo = support::demo_file("agent.toml").display().to_string();
    for (args, wanted) in [
        (
            vec!["doctor", "--json", &demo],
            vec![
                "real time",
                "memory lock",
                "isolated cores",
                "timer slack",
                "clock sync",
                "disk space",
                "disk writes",
            ],
        ),
        (
            vec!["doctor", "--security", "--json", &demo],
            vec!["user", "listening", "here, not signed in", "OPC UA", "MQTT", "state folder", "configuration"],
        ),
    ] {
        let (code, out, _) = ran(&args);
        let json: Value = serde_json::from_str(&out).unwrap();
        let findings = json["findings"].as_array().unwrap();
        for what in wanted {
            assert!(findings.iter().any(|f| f["what"] == what), "{what}: {out}");
        }
        for f in findings {
            let mended = f["mend"].as_str().is_some_and(|m| !m.is_empty());
            assert_eq!(f["pass"] == false, mended, "who warns says what to do: {f}");
        }
        assert_eq!(code, Some(i32::from(json["pass"] == false)));
    }
    // The demo's door is open on purpose, and the doctor says so.
    let (_, text, _) = ran(&["doctor", "--security", &demo]);
    assert!(text.contains("role operator") && text.contains("loopback = \"viewer\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_given_shown_raised_and_withdrawn_and_who_may_not_is_told_with_4() {
    let sim = support::start_plant(11).await;
    let mut plan = support::demo_plan(sim.addresses, support::free_port());
    plan.access.loopback = Some(Role::Viewer);
    let agent = Agent::start(plan).await.unwrap();
    let token = agent.access().add_token("script", Role::Operator).unwrap();
    assert!(support::eventually(Duration::from_secs(20), async || agent.ready()).await);
    let url = format!("http://{}", agent.http);
    let with = move |args: &[&str], token: Option<&str>| {
        let mut command = edge(args);
        command.env("LIGHTSOUT_URL", &url);
        if let Some(token) = token {
            command.env("LIGHTSOUT_TOKEN", token);
        }
        said(command.output().unwrap())
    };
    let outcome = blocking(move || {
        let (code, _, err) = with(&["order", "submit", "retrieve", "1001"], None);
        assert!(code == Some(4) && err.contains("needs the role operator"), "{err}");
        assert_eq!(with(&["order", "list"], Some("wrong")).0, Some(4));
        let script = Some(token.as_str());
        let (code, out, err) = with(&["order", "submit", "retrieve", "1001", "--class", "3", "--json"], script);
        assert_eq!(code, Some(0), "{err}");
        let id = serde_json::from_str::<Value>(&out).unwrap()["id"].to_string();
        assert_eq!(with(&["order", "class", &id, "0"], script).0, Some(0));
        let (code, _, err) = with(&["order", "submit", "retrieve", "1001"], script);
        assert!(code == Some(1) && err.contains("another order has this load"), "{err}");
        let (_, out, _) = with(&["order", "list"], None);
        assert!(out.contains("ORDER") && out.contains("retrieve  1001  0"), "{out}");
        let (code, out, _) = with(&["order", "cancel", &id], script);
        assert!(code == Some(0) && out.contains("will be withdrawn"), "{out}");
        let (code, text, _) = with(&["status"], None);
        assert!(code.is_some_and(|c| c < 2) && text.contains("gateway-1") && text.contains("rack  up"), "{text}");
        let (code, out, _) = with(&["acknowledge"], None);
        assert!(code == Some(0) && out.contains("no machine waits"), "{out}");
        let (code, out, _) = with(&["acknowledge", "--all"], script);
        assert!(code == Some(0) && out.contains("no machine waits"), "{out}");
        let (code, out, _) = with(&["acknowledge", "lift"], script);
        assert!(code == Some(1) && out.contains("lift may not: it waits for no acknowledgement"), "{out}");
        let (code, _, err) = with(&["acknowledge", "lfit"], script);
        assert!(code == Some(1) && err.contains("there is no lfit"), "{err}");
        assert_eq!(with(&["acknowledge", "lift", "--all"], script).0, Some(2));
        let (_, out, _) = with(&["status", "--json"], None);
        assert!(serde_json::from_str::<Value>(&out).unwrap()["beat"]["cycles"].as_u64().is_some_and(|n| n > 0));
        let end = std::time::Instant::now() + Duration::from_secs(180);
        loop {
            let (_, out, _) = with(&["order", "show", &id, "--json"], None);
            let order: Value = serde_json::from_str(&out).unwrap();
            if order["state"] == "failed" || order["state"] == "completed" || std::time::Instant::now() > end {
                break order;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    })
    .await;
    let last = outcome["story"].as_array().unwrap().last().unwrap()["what"].to_string();
    assert!(outcome["reason"] == "withdrawn" && last.contains("withdrawn"), "{outcome}");
    agent.stop().await;
    assert!(sim.truth().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_made_on_the_command_line_may_sign_in_at_the_running_agent() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let port = support::free_port();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:{port}\"\nstate_dir = \"state\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let agent = Agent::start(edge_agent::config::load(&config).unwrap()).await.unwrap();
    let file = config.display().to_string();
    let made = blocking(move || {
        let mut child = edge(&["user", "add", "ada", "--role", "operator", "--config", &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
        let added = said(child.wait_with_output().unwrap());
        (added, ran(&["user", "list", "--config", &file]), ran(&["user", "remove", "nobody", "--config", &file]))
    })
    .await;
    assert_eq!(made.0.0, Some(0), "{made:?}");
    assert!(made.1.1.contains("ada") && made.1.1.contains("operator"), "{made:?}");
    assert!(made.2.0 == Some(1) && made.2.2.contains("there is no `nobody`"), "{made:?}");
    let login = "{\"name\":\"ada\",\"password\":\"correct horse\"}";
    let (status, body) = support::http(agent.http, "POST", "/api/v1/login", login).await.unwrap();
    assert_eq!(status, 200, "{body}");
    agent.stop().await;
}
