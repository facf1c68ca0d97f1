//! The agent without a floor: it gathers from a bank of units, forwards by device, and writes what it is allowed to write.

#[path = "support/accounts.rs"]
mod accounts;
mod support;

use edge_agent::Agent;
use plc_sim::bank::{Bank, BankConfig, Fault, Kind};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{eventually, http};

/// An agent that reads `units` units of a bank, ten registers pairs each, every 100 ms.
async fn agent(bank: &Bank, units: u8, broker: u16) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let mut text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\n[http]\nloopback = \"operator\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{broker}\"\npayload = \"device\"\ntopic = \"lightsout/{{area}}/{{cell}}/{{device}}\"\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\ntimeout = \"300ms\"\n",
        bank.addr
    );
    for unit in 1..=units {
        text += &format!(
            "[[line.device]]\nname = \"meter-{unit}\"\ncell = \"c\"\nunit = {unit}\nprofile = \"meter.toml\"\n"
        );
    }
    let tags: String =
        (0..10).map(|n| format!("[[tag]]\nname = \"v{n}\"\naddress = \"input:{}\"\ntype = \"f32\"\n", n * 2)).collect();
    let tags = tags + "unit = \"kW\"\ndescription = \"Power of the last phase\"\nlow = 0\nhigh = 16.5\n";
    let setpoint = "[[tag]]\nname = \"setpoint\"\naddress = \"holding:100\"\ntype = \"f32\"\nwrite = { min = 0.0, max = 50.0 }\n\
                    [[tag]]\nname = \"rare\"\naddress = \"holding:110\"\ntype = \"u16\"\nwrite = { every = \"1h\" }\n\
                    [[tag]]\nname = \"pump\"\naddress = \"holding:120.3\"\ntype = \"bool\"\nwrite = { }\n\
                    [limits]\nmask_write = true\n";
    std::fs::write(dir.path().join("meter.toml"), tags + setpoint).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    let agent = Agent::start(plan).await.unwrap();
    (dir, agent)
}

async fn write(at: SocketAddr, form: Value) -> (u16, Value) {
    let (status, body) = http(at, "POST", "/api/v1/writes", &form.to_string()).await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn metric(at: SocketAddr, name: &str) -> f64 {
    let (_, page) = http(at, "GET", "/metrics", "").await.unwrap();
    let line = page.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no metric {name}"));
    line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_floor_gathers_and_forwards_by_device_and_loses_nothing() {
    let broker = support::start_broker().await;
    let received = support::subscribe(broker).await;
    let bank =
        Bank::start(BankConfig { units: 3, registers: 200, rate: Duration::from_millis(200), ..BankConfig::default() })
            .await
            .unwrap();
    let (_dir, agent) = agent(&bank, 3, broker).await;
    assert!(
        eventually(Duration::from_secs(20), async || http(agent.http, "GET", "/readyz", "").await.unwrap().0 == 200)
            .await
    );
    assert_eq!(http(agent.http, "GET", "/healthz", "").await.unwrap().0, 200);
    let (status, why) = http(agent.http, "POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1}").await.unwrap();
    assert_eq!((status, why.contains("no [floor]")), (409, true), "{why}");
    let many = async || received.lock().unwrap().messages >= 30;
    assert!(eventually(Duration::from_secs(20), many).await, "messages come");
    let stages = agent.stages.clone();
    accounts::stopped(agent).await;
    let produced = stages.spool.stats.produced.load(Relaxed);
    assert_eq!(produced, stages.spool.stats.delivered.load(Relaxed));
    let values = async || received.lock().unwrap().values() == produced;
    assert!(eventually(Duration::from_secs(10), values).await, "{} of {produced}", received.lock().unwrap().values());
    let received = received.lock().unwrap();
    let last = &received.last["lightsout/hall/c/meter-2"];
    let first = &last["readings"][0];
    assert!(first["source_time"].is_string() && first["values"].is_object(), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_shown_with_its_unit_its_range_and_what_it_is() {
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (_dir, agent) = agent(&bank, 1, support::free_port()).await;
    let tag = async |name: &str| -> Value {
        let (_, body) = http(agent.http, "GET", &format!("/api/v1/tags?q=meter-1/{name}"), "").await.unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["tags"][0].take()
    };
    assert!(eventually(Duration::from_secs(20), async || tag("v9").await["quality"] == "good").await);
    let v9 = tag("v9").await;
    let told = json!([v9["unit"], v9["description"], v9["low"], v9["high"]]);
    assert_eq!(told, json!(["kW", "Power of the last phase", 0.0, 16.5]), "{v9}");
    let v8 = tag("v8").await;
    assert!(["unit", "description", "low", "high"].iter().all(|key| v8.get(key).is_none()), "{v8}");
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_does_not_change_is_shown_as_long_the_same_and_lately_confirmed() {
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (_dir, agent) = agent(&bank, 1, support::free_port()).await;
    let stands = async || {
        let (_, body) = http(agent.http, "GET", "/api/v1/tags?q=meter-1/setpoint", "").await.unwrap();
        let tag = serde_json::from_str::<Value>(&body).unwrap()["tags"][0].take();
        let (text, seconds) = (|key: &str| tag[key].as_str().map(String::from), |key: &str| tag[key].as_f64().unwrap());
        seconds("unchanged_s") > seconds("age_s") + 0.5 && text("confirmed_time") > text("source_time")
    };
    assert!(eventually(Duration::from_secs(20), stands).await);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_through_the_door_or_not_at_all() {
    let bank = Bank::start(BankConfig { units: 2, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (_dir, agent) = agent(&bank, 2, support::free_port()).await;
    let at = agent.http;
    assert!(eventually(Duration::from_secs(20), async || http(at, "GET", "/readyz", "").await.unwrap().0 == 200).await);
    let sent = || bank.counters(1).map_or(0, |c| c.writes);

    let (status, done) = write(at, json!({"tag": "meter-1/setpoint", "value": 21.5, "key": "k1"})).await;
    assert_eq!((status, &done["outcome"]), (200, &json!("done")), "{done}");
    assert_eq!(sent(), 1);
    let (status, again) = write(at, json!({"tag": "meter-1/setpoint", "value": 21.5, "key": "k1"})).await;
    assert_eq!((status, &again["outcome"], sent()), (200, &json!("done"), 1), "the same key is the same write");

    let before = bank.counters(1).map(|c| c.writes);
    let (status, done) = write(at, json!({"tag": "meter-1/pump", "value": true})).await;
    assert_eq!(
        (status, &done["outcome"], before, sent()),
        (200, &json!("done"), Some(1), 2),
        "one bit by mask: {done}"
    );

    let refused = [
        (json!({"tag": "meter-1/setpoint", "value": 50.5}), 403, "not_allowed"),
        (json!({"tag": "meter-1/setpoint", "value": -0.1}), 403, "not_allowed"),
        (json!({"tag": "meter-1/v0", "value": 1}), 403, "not_allowed"),
        (json!({"tag": "meter-9/setpoint", "value": 1}), 403, "not_allowed"),
        (json!({"tag": "meter-1/setpoint", "value": "warm"}), 422, "invalid"),
        (json!({"tag": "meter-1/setpoint", "value": [1]}), 422, "invalid"),
        (json!({"tag": "meter-1/rare", "value": 70000}), 422, "invalid"),
        (json!({"tag": "meter-1/pump", "value": 2}), 422, "invalid"),
        (json!({"tag": "meter-1/setpoint", "value": 1, "key": ""}), 422, "invalid"),
        (json!({"tag": "meter-2/setpoint", "value": 1, "key": "k1"}), 422, "invalid"),
    ];
    for (form, status, outcome) in refused {
        let got = write(at, form.clone()).await;
        assert_eq!((got.0, &got.1["outcome"]), (status, &json!(outcome)), "{form}: {}", got.1);
    }
    assert_eq!(sent(), 2, "nothing of this reached the wire");
    assert_eq!(write(at, json!({"tag": "meter-1/other", "colour": 1})).await.0, 422, "unknown keys are refused");

    assert_eq!(write(at, json!({"tag": "meter-2/rare", "value": 7})).await.0, 200);
    let (status, second) = write(at, json!({"tag": "meter-2/rare", "value": 8})).await;
    assert_eq!((status, &second["outcome"]), (429, &json!("too_often")), "{second}");

    bank.set_faults(Fault::new(Kind::Silent).units(&[1])).unwrap();
    let (status, lost) = write(at, json!({"tag": "meter-1/setpoint", "value": 3.0})).await;
    assert_eq!((status, &lost["outcome"]), (504, &json!("unknown")), "{lost}");
    assert_eq!(metric(at, "lightsout_writes_total{outcome=\"done\"}").await, 3.0);
    assert_eq!(metric(at, "lightsout_writes_total{outcome=\"unknown\"}").await, 1.0);
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_unit_is_seen_in_the_metrics_and_its_neighbours_do_not_care() {
    let bank = Bank::start(BankConfig { units: 3, registers: 200, ..BankConfig::default() }).await.unwrap();
    bank.set_faults(Fault::new(Kind::Silent).units(&[2])).unwrap();
    let (_dir, agent) = agent(&bank, 3, support::free_port()).await;
    let at = agent.http;
    let demoted = async || metric(at, "lightsout_device_demoted{device=\"meter-2\"").await == 1.0;
    assert!(eventually(Duration::from_secs(20), demoted).await);
    assert_eq!(metric(at, "lightsout_tags_bad{line=\"bank\"}").await, 13.0, "its own thirteen, no more");
    assert_eq!(metric(at, "lightsout_device_up{device=\"meter-1\"").await, 1.0);
    assert!(metric(at, "lightsout_device_age_seconds{device=\"meter-3\"").await < 5.0);
    assert_eq!(metric(at, "lightsout_line_connects_total{line=\"bank\"}").await, 1.0, "the line was never closed");
    bank.set_faults(plc_sim::bank::FaultScript::default()).unwrap();
    let up = async || metric(at, "lightsout_device_up{device=\"meter-2\"").await == 1.0;
    assert!(eventually(Duration::from_secs(40), up).await, "it is found again");
    assert!(
        eventually(Duration::from_secs(10), async || metric(at, "lightsout_tags_good{line=\"bank\"}").await == 39.0)
            .await
    );
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_that_of_a_unit_on_its_line_and_what_is_silent_keeps_its_old_time() {
    let broker = support::start_broker().await;
    let received = support::subscribe(broker).await;
    let config = || BankConfig { units: 1, registers: 200, rate: Duration::from_millis(100), ..BankConfig::default() };
    let (one, other) = (Bank::start(config()).await.unwrap(), Bank::start(config()).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\n[http]\nloopback = \"operator\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{broker}\"\n"
    );
    for (name, bank) in [("one", &one), ("other", &other)] {
        text += &format!(
            "[[line]]\nname = \"{name}\"\nmodbus = \"{}\"\ntimeout = \"200ms\"\n\
             [[line.device]]\nname = \"meter-{name}\"\ncell = \"c\"\nunit = 1\nprofile = \"meter.toml\"\n",
            bank.addr
        );
    }
    let tag = "[[tag]]\nname = \"v\"\naddress = \"input:0\"\ntype = \"f32\"\ninterval = \"50ms\"\n";
    std::fs::write(dir.path().join("meter.toml"), tag).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    let agent = Agent::start(plan).await.unwrap();
    let at = agent.http;
    let topic = |name: &str| format!("lightsout/hall/a/c/meter-{name}/v");
    let last = |name: &str| received.lock().unwrap().last.get(&topic(name)).cloned().unwrap_or_default();
    let good = async || last("one")["quality"] == "good" && last("other")["quality"] == "good";
    assert!(eventually(Duration::from_secs(20), good).await, "{} {}", last("one"), last("other"));

    one.set_faults(Kind::Silent).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await; // what was on its way has come
    let silent_since = edge_agent::telemetry::payload::rfc3339(device_drivers::value::wall_clock_ms()).to_string();
    let bad = async || last("one")["quality"] == "bad";
    assert!(eventually(Duration::from_secs(20), bad).await, "{}", last("one"));
    let told = last("one");
    let time = told["source_time"].as_str().unwrap();
    assert!(time < &*silent_since, "{time} is the time of a value that came before {silent_since}");
    assert!(told["value"].is_number() && told["cause"].is_string(), "the last value stands, and why: {told}");
    assert_eq!(last("other")["quality"], "good", "unit 1 of the other line is another unit");
    assert_eq!(metric(at, "lightsout_device_demoted{device=\"meter-other\"").await, 0.0);
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_alarm_is_told_to_the_broker_before_process_values() {
    let broker = support::start_broker().await;
    let received = support::subscribe(broker).await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (_dir, agent) = agent(&bank, 1, broker).await;
    let told = |change: &'static str| {
        let received = received.clone();
        let is = move || received.lock().unwrap().last.get("lightsout/hall/a/gw/alarm/open-door").cloned();
        async move || is().filter(|news| news["change"] == change)
    };
    let raised = told("raised");
    assert!(
        eventually(Duration::from_secs(20), async || raised().await.is_some()).await,
        "the door of this test is open"
    );
    let news = raised().await.unwrap();
    assert_eq!(
        (&news["subject"], &news["priority"], &news["stream"]),
        (&json!("loopback"), &json!("low"), &json!("high"))
    );
    assert!(news["sequence"].is_u64() && news["time"].is_string() && news["action"].is_string(), "{news}");
    agent.stages.alarms.acknowledge("open-door", "loopback", "ada").unwrap();
    let acknowledged = told("acknowledged");
    assert!(eventually(Duration::from_secs(20), async || acknowledged().await.is_some()).await);
    assert_eq!(acknowledged().await.unwrap()["by"], "ada");
    accounts::stopped(agent).await;
}

/// Part 8 says what a percent deadband is a part of: of the range that the server knows (EURange). Where neither it nor the configuration knows
/// one, there is no deadband, and somebody should know.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadband_that_is_a_part_of_no_range_is_an_alarm_that_names_the_tag() {
    let bank = opcua_bank::serve(OpcuaBankConfig { variables: 2, ..OpcuaBankConfig::default() }).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\n\
         [[line]]\nname = \"press\"\nopcua = \"{}\"\nsecurity = \"none\"\n\
         [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"d.toml\"\n",
        bank.url()
    );
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let agent = async |ranges: [&str; 2]| {
        let tag = |(n, range): (usize, &str)| {
            let node = format!("nsu={};s=V.{n}", opcua_bank::NAMESPACE);
            format!("[[tag]]\nname = \"v{n}\"\nnode = \"{node}\"\ndeadband_percent = 5.0\n{range}\n")
        };
        let tags: String = ranges.into_iter().enumerate().map(tag).collect();
        std::fs::write(dir.path().join("d.toml"), tags).unwrap();
        let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
        plan.listen.set_port(0);
        Agent::start(plan).await.unwrap()
    };
    let stands = |agent: &Agent| {
        let all = agent.stages.alarms.list();
        all.into_iter().filter(|a| a.alarm == "deadband-off" && a.active).map(|a| a.subject).collect::<Vec<_>>()
    };
    let known = "low = 0.0\nhigh = 100.0";
    let first = agent([known, ""]).await;
    assert!(eventually(Duration::from_secs(30), async || !stands(&first).is_empty()).await, "no alarm");
    let subjects = stands(&first);
    assert!(subjects.len() == 1 && subjects[0].contains("d/v1"), "the other has a range: {subjects:?}");
    first.stop().await;
    // As the alarm advises.
    let mended = agent([known, known]).await;
    let ready = async || http(mended.http, "GET", "/readyz", "").await.unwrap().0 == 200;
    assert!(eventually(Duration::from_secs(30), ready).await);
    tokio::time::sleep(Duration::from_secs(2)).await; // alarms are looked at once a second
    assert!(stands(&mended).is_empty(), "{:?}", stands(&mended));
    mended.stop().await;
}
