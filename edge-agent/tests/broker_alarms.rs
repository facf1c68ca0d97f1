//! A broker that is there and does not do its work calls a person, and what ends with the process is said: the whole agent against a
//! stand-in, as somebody beside it sees it.

mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use plc_sim::bank::{Bank, BankConfig};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{eventually, http};
use wire_broker::{Does, Rule, Trace, Ways, Which, WireBroker};

const LIMIT: Duration = Duration::from_secs(60);

async fn bank() -> Bank {
    let rate = Duration::from_millis(200);
    Bank::start(BankConfig { units: 1, registers: 10, rate, ..BankConfig::default() }).await.unwrap()
}

/// A gateway with one value that moves, and nothing on disk.
fn configured(bank: &Bank, broker: u16, listen: u16) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:{listen}\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{broker}\"\n[[line]]\nname = \"bank\"\nmodbus = \"{}\"\n\
         [[line.device]]\nname = \"d\"\ncell = \"c\"\ntags = \"t.csv\"\n",
        bank.addr
    );
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    std::fs::write(dir.path().join("t.csv"), "name,address,type\nr,input:0,u16\n").unwrap();
    dir
}

async fn gateway(bank: &Bank, broker: u16) -> (tempfile::TempDir, Agent) {
    let dir = configured(bank, broker, 0);
    let plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    (dir, Agent::start(plan).await.unwrap())
}

/// Waits until an alarm stands, and gives its detail.
async fn raised(agent: &Agent, alarm: &str) -> String {
    let mut detail = String::new();
    let stands = async || {
        let (_, body) = http(agent.http, "GET", "/api/v1/alarms", "").await.unwrap();
        let all: serde_json::Value = serde_json::from_str(&body).unwrap();
        let found = all.as_array().unwrap().iter().find(|a| a["alarm"] == alarm);
        found.map(|a| detail = a["detail"].as_str().unwrap().into()).is_some()
    };
    assert!(eventually(LIMIT, stands).await, "no alarm {alarm}");
    detail
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_connected_and_acknowledges_nothing_raises_an_alarm() {
    let rules = vec![Rule(Which::Topic("/d/"), Does::Silence)];
    let broker = WireBroker::with(1, Trace::default(), Ways { rules, ..Ways::default() }).await;
    let bank = bank().await;
    let (_dir, agent) = gateway(&bank, broker.port).await;
    let said = raised(&agent, "delivery-stalled").await;
    assert!(said.contains("messages wait, none has gone for"), "{said}");
    agent.stop().await;
}

/// One alarm over all ways to lose a message; it says which.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_broker_never_takes_raise_the_alarm_over_losses() {
    let rules = vec![Rule(Which::Topic("/d/"), Does::PubAck(0x87))];
    let broker = WireBroker::with(1, Trace::default(), Ways { rules, ..Ways::default() }).await;
    let bank = bank().await;
    let (_dir, agent) = gateway(&bank, broker.port).await;
    let said = raised(&agent, "samples-lost").await;
    assert!(said.starts_with("messages lost: ") && said.ends_with(" refused"), "{said}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_of_one_name_raise_the_alarm_that_names_the_cause() {
    let broker = WireBroker::with(1, Trace::default(), Ways { takes_over: true, ..Ways::default() }).await;
    let bank = bank().await;
    let (one, two) = tokio::join!(gateway(&bank, broker.port), gateway(&bank, broker.port));
    for (_, agent) in [&one, &two] {
        let said = raised(agent, "name-taken").await;
        assert!(said.starts_with("the broker says so: "), "{said}");
    }
    tokio::join!(one.1.stop(), two.1.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_at_its_end_what_it_gives_up_with_its_memory() {
    let bank = bank().await;
    let port = support::free_port();
    let dir = configured(&bank, support::free_port(), port);
    let mut run = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    run.args(["run", "agent.toml"]).current_dir(dir.path()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let waits = async || {
        let page = http(([127, 0, 0, 1], port).into(), "GET", "/metrics", "").await.map(|(_, page)| page);
        let page = page.unwrap_or_default();
        let line = page.lines().find_map(|l| l.strip_prefix("lightsout_spool_samples "));
        line.and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n >= 3.0)
    };
    let in_time = eventually(LIMIT, waits).await;
    if !in_time {
        let _ = child.kill();
    }
    assert!(in_time, "nothing waits");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let said = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("given up with the memory they waited in: "), "{said}");
}
