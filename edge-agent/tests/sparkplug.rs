//! A checker of Sparkplug 3.0.0 for an edge node: it watches the wire from the broker's side while an agent lives through what can happen to
//! it, and judges every assertion by id: pass, fail, not exercised. `cargo test -p edge-agent --test sparkplug -- --nocapture` prints the list;
//! the ids and the rule that judges each are in `tests/sparkplug/assertions.txt`.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "sparkplug/npm.rs"]
mod npm;
#[path = "sparkplug/rules.rs"]
mod rules;
mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use edge_agent::telemetry::sparkplug::payload::{CellValue, Metric, MetricValue, Payload, Row, Template};
use plc_sim::bank::{Bank, BankConfig, Fault, FaultScript, Kind};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use prost::Message;
use rules::{Scene, Verdict, World};
use std::time::Duration;
use support::eventually;
use wire_broker::{Event, Trace, Ways, WireBroker, now_ms};

/// Three devices: `m1` and `m2` move, `still` does not; `speed` of m1 may be written.
async fn agent(
    bank: &Bank,
    brokers: &[&WireBroker],
    node: &str,
    more: &str,
    bd_seq: Option<u64>,
) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let list: Vec<String> = brokers.iter().map(|b| format!("\"127.0.0.1:{}\"", b.port)).collect();
    let (version, host) = more.split_once(',').unwrap_or((more, ""));
    let mut text = format!(
        "[gateway]\nname = \"{node}\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\nstate_dir = \"state\"\n\
         [mqtt]\nbrokers = [{}]\nversion = \"{version}\"\n\
         [mqtt.sparkplug]\ngroup = \"plant\"\n{host}\n[mqtt.commands]\nallow = [\"m1/*\"]\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\ntimeout = \"200ms\"\n",
        list.join(", "),
        bank.addr
    );
    for (n, name) in ["m1", "m2", "still"].iter().enumerate() {
        let profile = if n == 2 { "still.toml" } else { "moving.toml" };
        text +=
            &format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nunit = {}\nprofile = \"{profile}\"\n", n + 1);
    }
    let tag = |name: &str, address: &str, more: &str| {
        format!("[[tag]]\nname = \"{name}\"\naddress = \"{address}\"\ntype = \"u16\"\n{more}")
    };
    let moving = "interval = \"20ms\"\n".to_string() + &tag("a", "input:0", "") + &tag("b", "input:1", "");
    std::fs::write(dir.path().join("moving.toml"), moving + &tag("speed", "holding:100", "write = {}\n")).unwrap();
    std::fs::write(dir.path().join("still.toml"), tag("x", "holding:110", "deadband = 65536.0\n")).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    if let Some(n) = bd_seq {
        std::fs::create_dir_all(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("state/sparkplug-bdseq"), n.to_string()).unwrap();
    }
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    (dir, Agent::start(plan).await.unwrap())
}

async fn bank() -> Bank {
    let rate = Duration::from_millis(20);
    Bank::start(BankConfig { units: 3, registers: 200, rate, ..BankConfig::default() }).await.unwrap()
}

fn count(trace: &Trace, kind: &str) -> usize {
    count_of(trace, &format!("/{kind}/"))
}

async fn until(trace: &Trace, kind: &str, more: usize) {
    after(trace, kind, more, || ()).await;
}

/// Does something and waits for so many more messages of a kind than there were before.
async fn after(trace: &Trace, kind: &str, more: usize, act: impl FnOnce()) {
    let before = count(trace, kind);
    act();
    let came = eventually(Duration::from_secs(20), async || count(trace, kind) >= before + more).await;
    assert!(came, "{more} more {kind}: {} after {before}", count(trace, kind));
}

fn command(name: Option<&str>, alias: Option<u64>, value: MetricValue) -> Vec<u8> {
    let metric = Metric {
        name: name.map(String::from),
        alias,
        timestamp: Some(now_ms()),
        value: Some(value),
        ..Metric::default()
    };
    Payload { timestamp: Some(now_ms()), metrics: vec![metric], ..Payload::default() }.encode_to_vec()
}

fn state(online: bool, timestamp: u64) -> Vec<u8> {
    format!("{{\"online\":{online},\"timestamp\":{timestamp}}}").into_bytes()
}

/// The metrics of a message, if it is of a kind that begins so.
fn metrics_of(entry: &wire_broker::Entry, kind: &str) -> Option<Vec<Metric>> {
    let Event::Publish(said) = &entry.event else { return None };
    let is_kind = String::from_utf8_lossy(&said.topic).contains(&format!("/{kind}"));
    is_kind.then(|| Payload::decode(&said.payload[..]).unwrap().metrics)
}

/// Waits until the newest table of alarms has this one, and says so of it.
async fn alarm_stands(trace: &Trace, alarm: &str, state: &str) {
    let cell = |row: &Row, n: usize, text: &str| row.elements[n].value == Some(CellValue::Text(text.into()));
    let table = |m: Metric| if let Some(MetricValue::DataSet(set)) = m.value { Some(set) } else { None };
    let stands = async || {
        let trace = trace.lock().unwrap();
        let table = trace.iter().rev().filter_map(|e| metrics_of(e, "N")).flatten().find_map(table);
        table.is_some_and(|set| set.rows.iter().any(|row| cell(row, 0, alarm) && cell(row, 3, state)))
    };
    assert!(eventually(Duration::from_secs(20), stands).await, "{alarm} is told as {state}");
}

/// Everything that happens to a node without a primary host; `more` are keys of its table.
async fn alone(version: &str, more: &str) -> Scene {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let bank = bank().await;
    // Close to the end of the circle, so that 255 wraps.
    let (dir, agent) = agent(&bank, &[&broker], "gw", &format!("{version},{more}"), Some(252)).await;
    assert!(eventually(Duration::from_secs(20), async || count(&trace, "DBIRTH") == 3).await);
    until(&trace, "DDATA", 300).await;
    let rebirth = || command(Some("Node Control/Rebirth"), None, MetricValue::Boolean(true));
    tokio::time::sleep(Duration::from_secs(2)).await; // the first birth was just now
    let births = count(&trace, "NBIRTH");
    after(&trace, "DBIRTH", 3, || broker.tell("spBv1.0/plant/NCMD/gw", rebirth(), false)).await;
    (0..5).for_each(|_| broker.tell("spBv1.0/plant/NCMD/gw", rebirth(), false));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(count(&trace, "NBIRTH") <= births + 1, "a storm of wishes is no storm of births");
    assert!(eventually(Duration::from_secs(10), async || count(&trace, "NBIRTH") == births + 2).await, "but one more");
    until(&trace, "DDATA", 20).await;
    broker.tell("spBv1.0/plant/NCMD/gw", rebirth(), true); // retained: ignored

    let speed = Metric { name: Some("speed".into()), value: Some(MetricValue::Long(777)), ..Metric::default() };
    let wish = if more.contains("templates") {
        let (template_ref, is_definition) = (Some("moving".into()), Some(false));
        let asked = Template { metrics: vec![speed], template_ref, is_definition, ..Template::default() };
        let metrics =
            trace.lock().unwrap().iter().filter_map(|e| metrics_of(e, "DBIRTH")).flatten().collect::<Vec<_>>();
        let alias = metrics.iter().find(|m| m.name.as_deref() == Some("m1")).unwrap().alias;
        command(None, alias, MetricValue::Template(asked))
    } else {
        command(speed.name.as_deref(), None, speed.value.unwrap())
    };
    broker.tell("spBv1.0/plant/DCMD/gw/m1", wish, false);
    let wrote = async || support::was_written(&dir.path().join("state"), "m1/speed", 777);
    assert!(eventually(Duration::from_secs(10), wrote).await, "the DCMD is written, read back and written down");

    if more.contains("alarms") {
        let desk = &agent.stages.alarms;
        desk.configuration_refused(Some("a key is wrong".into()));
        alarm_stands(&trace, "configuration-refused", "unacknowledged").await;
        desk.acknowledge("configuration-refused", "configuration", "jo").unwrap();
        alarm_stands(&trace, "configuration-refused", "acknowledged").await;
    }

    after(&trace, "DDEATH", 1, || bank.set_faults(Fault::new(Kind::Silent).units(&[2])).unwrap()).await;
    after(&trace, "DBIRTH", 1, || bank.set_faults(FaultScript::default()).unwrap()).await;

    for _ in 0..4 {
        after(&trace, "NBIRTH", 1, || broker.cut()).await;
        until(&trace, "DDATA", 5).await;
    }
    accounts::stopped(agent).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let entries = trace.lock().unwrap().clone();
    Scene { name: "alone", version: if version == "5" { 5 } else { 4 }, primary_host: None, entries }
}

/// A node with a primary host and two brokers.
async fn with_host() -> Scene {
    let trace = Trace::default();
    let first = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let second = WireBroker::start(2, trace.clone(), Vec::new()).await;
    let bank = bank().await;
    let (_dir, agent) = agent(&bank, &[&first, &second], "gw2", "3.1.1,primary_host = \"scada\"", None).await;
    let subscribed = |n: usize| {
        let trace = trace.clone();
        async move || trace.lock().unwrap().iter().any(|e| e.broker == n && matches!(e.event, Event::Subscribe(_)))
    };
    assert!(eventually(Duration::from_secs(10), subscribed(1)).await);
    let quiet = async |what: &str| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(count(&trace, "NBIRTH"), 0, "{what}: no birth");
    };
    quiet("no STATE").await;
    let now = now_ms();
    first.tell("spBv1.0/STATE/other", state(true, now), false);
    quiet("another host").await;
    after(&trace, "DBIRTH", 3, || first.tell("spBv1.0/STATE/scada", state(true, now), false)).await;
    until(&trace, "DDATA", 10).await;
    first.tell("spBv1.0/STATE/scada", state(false, now - 1000), false);
    until(&trace, "DDATA", 10).await;
    first.tell("spBv1.0/STATE/scada", state(false, now + 1000), false);
    assert!(eventually(Duration::from_secs(15), subscribed(2)).await, "the next broker is asked");
    let births = count(&trace, "NBIRTH");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count(&trace, "NBIRTH"), births, "no birth without STATE at the second broker");
    // An offline here sends it back to the first, which says offline, then something older, then online.
    second.tell("spBv1.0/STATE/scada", state(false, now + 2000), false);
    let at_first = async || {
        let trace = trace.lock().unwrap();
        trace.iter().rev().find(|e| matches!(e.event, Event::Subscribe(_))).is_some_and(|e| e.broker == 1)
    };
    assert!(eventually(Duration::from_secs(15), at_first).await);
    after(&trace, "NBIRTH", 1, || first.tell("spBv1.0/STATE/scada", state(true, now + 5000), false)).await;
    // The older form, on a connection of its own: it has no time.
    accounts::stopped(agent).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let entries = trace.lock().unwrap().clone();
    Scene { name: "with a host", version: 4, primary_host: Some("scada"), entries }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_assertion_that_binds_an_edge_node_holds_or_is_named_with_the_reason() {
    let complex = "alarms = true\ntemplates = true";
    let scenes = tokio::join!(alone("5", ""), alone("3.1.1", ""), alone("5", complex), with_host());
    let world = World::new(vec![scenes.0, scenes.1, scenes.2, scenes.3]);
    let list = include_str!("sparkplug/assertions.txt");
    let judged: Vec<(&str, char, Verdict)> = list
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|line| {
            let [id, seen, rule] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}: id, how, rule") };
            (id, seen.chars().next().unwrap(), world.judge(rule))
        })
        .collect();
    for (id, _, verdict) in &judged {
        let (name, why) = match verdict {
            Verdict::Pass => ("pass", ""),
            Verdict::Fail(why) => ("FAIL", why.as_str()),
            Verdict::NotExercised(why) => ("not exercised", why.as_str()),
        };
        println!("{}", format!("{name:<14} {id:<90} {why}").trim_end());
    }
    // Pass, fail, not exercised of those that can be seen in one of these ways.
    let split = |ways: &str| {
        judged.iter().filter(|(_, seen, _)| ways.contains(*seen)).fold([0; 3], |mut counts, (.., verdict)| {
            counts[match verdict {
                Verdict::Pass => 0,
                Verdict::Fail(_) => 1,
                Verdict::NotExercised(_) => 2,
            }] += 1;
            counts
        })
    };
    println!("\n{:<62} {:>5} {:>5} {:>14}", "", "pass", "FAIL", "not exercised");
    for (what, ways) in [
        ("by whoever subscribes", "P"),
        ("at the broker: CONNECT, SUBSCRIBE, will, retain", "W"),
        ("when something is done to the node", "S"),
        ("of the 190 that can be seen from the wire", "PWS"),
        ("of the 10 that only who knows the plant can judge", "K"),
        ("of the 200", "PWSK"),
    ] {
        let [pass, fail, not] = split(ways);
        println!("{what:<62} {pass:>5} {fail:>5} {not:>14}");
    }
    assert_eq!(split("PWSK").iter().sum::<usize>(), 200);
    assert_eq!(split("PWS").iter().sum::<usize>(), 190);
    let failed: Vec<_> = judged.iter().filter(|(.., v)| matches!(v, Verdict::Fail(_))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(split("K"), [10, 0, 0], "what needs the ground truth is judged: the plant is ours");
    assert_eq!(split("PWSK"), [200, 0, 0], "nothing stays out");
}

/// The type of an OPC UA node is known when it has been read: the definition that was told before it is told again, and every instance
/// is of what its NBIRTH defines.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_whose_types_were_not_known_is_defined_again_before_its_instances_are_born() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let dir = tempfile::tempdir().unwrap();
    let port = support::free_port();
    let mut text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{}\"\n[mqtt.sparkplug]\ngroup = \"plant\"\ntemplates = true\n\
         [[line]]\nname = \"cells\"\nopcua = \"opc.tcp://127.0.0.1:{port}/\"\nsecurity = \"none\"\n",
        broker.port
    );
    for name in ["c1", "c2"] {
        text += &format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nprofile = \"robot-cell.toml\"\n");
    }
    // One value that moves, and the server's own ServiceLevel, a Byte.
    let tags = [("speed", format!("nsu={};s=V.1", opcua_bank::NAMESPACE)), ("level", "ns=0;i=2267".into())];
    let tags = tags.map(|(name, node)| format!("[[tag]]\nname = \"{name}\"\nnode = \"{node}\"\n"));
    std::fs::write(dir.path().join("robot-cell.toml"), tags.concat()).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    let agent = Agent::start(plan).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || count(&trace, "NBIRTH") == 1).await);
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let config =
        OpcuaBankConfig { listen, variables: 4, period: Duration::from_millis(100), ..OpcuaBankConfig::default() };
    let _bank = opcua_bank::serve(config).await.unwrap();
    let again = async || count(&trace, "NBIRTH") >= 2 && count(&trace, "DBIRTH") >= 2;
    assert!(eventually(Duration::from_secs(40), again).await, "the types are not those that were guessed");
    until(&trace, "DDATA", 3).await;
    accounts::stopped(agent).await;
    let entries = trace.lock().unwrap().clone();
    let world = World::new(vec![Scene { name: "cells", version: 5, primary_host: None, entries }]);
    for rule in ["template:resolves", "template:members-are-defined", "template:birth-has-all-members", "seq-counts"] {
        assert_eq!(world.judge(rule), Verdict::Pass, "{rule}");
    }
}

/// bdSeq counts CONNECT packets, not tries: a broker that cannot be reached has heard of none (6.4.2, "incremented on every new MQTT
/// connection").
#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_reached_nobody_uses_up_no_bd_seq() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let bank = bank().await;
    // The first of the two is not there: it is tried before each connection.
    let nobody = WireBroker::nobody().await;
    let (_dir, agent) = agent(&bank, &[&nobody, &broker], "gw6", "5,", Some(253)).await;
    for n in 1..=4 {
        assert!(eventually(Duration::from_secs(20), async || count(&trace, "NBIRTH") >= n).await);
        broker.cut();
    }
    accounts::stopped(agent).await;
    let of_will = |event: &Event| match event {
        Event::Connect { will: Some(will), .. } => {
            let metrics = Payload::decode(&will.payload[..]).unwrap().metrics;
            metrics.first().and_then(|m| m.value.clone())
        }
        _ => None,
    };
    let told: Vec<MetricValue> = trace.lock().unwrap().iter().filter_map(|e| of_will(&e.event)).take(4).collect();
    assert_eq!(told, [254, 255, 0, 1].map(MetricValue::Long));
}

/// The most used decoder for JavaScript reads all that a node is born with: every type of tag, templates, the table of alarms. What it
/// reads is what ours reads from the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn npm_s_sparkplug_payload_reads_every_birth() {
    let test = "npm_s_sparkplug_payload_reads_every_birth";
    let Some(node) = support::installed("node", test) else { return };
    let Some(modules) = support::npm_modules("sparkplug-payload", test) else { return };
    let trace = Trace::default();
    let bank = bank().await;
    let mut agents = Vec::new();
    for (gateway, more) in [("flat", ""), ("complex", "alarms = true\ntemplates = true\n")] {
        let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
        let (dir, agent) = typed_agent(&bank, broker.port, gateway, more).await;
        let born = format!("DBIRTH/{gateway}");
        let is_born = async || trace.lock().unwrap().iter().any(|e| metrics_of(e, &born).is_some());
        assert!(eventually(Duration::from_secs(20), is_born).await);
        if more.contains("alarms") {
            agent.stages.alarms.configuration_refused(Some("a key is wrong".into()));
            alarm_stands(&trace, "configuration-refused", "unacknowledged").await;
            after(&trace, "NBIRTH", 1, || broker.cut()).await; // born again, with the alarm in its table
        }
        agents.push((dir, agent));
    }
    for (_, agent) in agents {
        accounts::stopped(agent).await;
    }
    let said: Vec<(String, Vec<u8>)> = trace
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::Publish(said) = &e.event { Some(said) } else { None })
        .map(|said| (String::from_utf8_lossy(&said.topic).into_owned(), said.payload.clone()))
        .filter(|(topic, _)| ["BIRTH", "DATA", "DEATH"].iter().any(|kind| topic.contains(kind)))
        .collect();
    let read = npm::decode(&node, &modules, &said);
    assert_eq!(read.len(), said.len());
    let mut kinds = std::collections::BTreeSet::new();
    for ((topic, payload), theirs) in said.iter().zip(&read) {
        assert!(theirs.get("error").is_none(), "{topic}: {theirs}");
        let ours = Payload::decode(&payload[..]).unwrap();
        for (metric, theirs) in ours.metrics.iter().zip(theirs["metrics"].as_array().unwrap()) {
            npm::same(topic, metric, theirs, &mut kinds);
        }
    }
    let want =
        ["Boolean", "DataSet", "DateTime", "Double", "Float", "Int16", "Int32", "Int64", "Int8", "String", "Template"];
    let more = ["UInt16", "UInt32", "UInt64", "UInt8"];
    assert!(want.iter().chain(&more).all(|kind| kinds.contains(*kind)), "every type was told: {kinds:?}");
}

/// An agent with a tag of every type, one of them with all that a tag can say of itself.
async fn typed_agent(bank: &Bank, broker: u16, gateway: &str, more: &str) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"{gateway}\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:0\"\n[mqtt]\nbroker = \"127.0.0.1:{broker}\"\n\
         [mqtt.sparkplug]\ngroup = \"plant\"\n{more}[[line]]\nname = \"bank\"\nmodbus = \"{}\"\n\
         [[line.device]]\nname = \"{gateway}-1\"\ncell = \"c\"\nprofile = \"{gateway}.toml\"\n",
        bank.addr
    );
    let kinds = "i8 u8-high i16 u16 i32 u32 i64 u64 f32 f64 text[8] unix-s";
    let tag = |(n, kind): (usize, &str)| {
        format!("[[tag]]\nname = \"{kind}\"\naddress = \"input:{}\"\ntype = \"{kind}\"\norder = \"CDAB\"\n", n * 4)
    };
    let all: String = kinds.split(' ').enumerate().map(tag).collect();
    let rich = "[[tag]]\nname = \"rich\"\naddress = \"input:60\"\ntype = \"u16\"\nfactor = 0.1\nunit = \"°C\"\nlow = 0\nhigh = 120.5\n\
                description = \"Öl\"\n[[tag]]\nname = \"bit\"\naddress = \"input:61.3\"\ntype = \"bool\"\n\
                [[tag]]\nname = \"nothing\"\naddress = \"input:9999\"\ntype = \"u16\"\n";
    std::fs::write(dir.path().join(format!("{gateway}.toml")), all + rich).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    (dir, Agent::start(plan).await.unwrap())
}

/// A host of before Sparkplug 3 says ONLINE and OFFLINE on STATE/id.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_speaks_the_older_form_is_understood() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), vec![("STATE/scada".into(), b"ONLINE".to_vec())]).await;
    let bank = bank().await;
    let (_dir, agent) = agent(&bank, &[&broker], "gw3", "3.1.1,primary_host = \"scada\"", None).await;
    assert!(eventually(Duration::from_secs(20), async || count(&trace, "DBIRTH") == 3).await);
    after(&trace, "NDEATH", 1, || broker.tell("STATE/scada", "OFFLINE", false)).await;
    accounts::stopped(agent).await;
}

/// A birth that the broker takes no packet of: nobody would know what the device's data is. It is not sent, and told as lost; numbers go on
/// without a hole, and other devices are well.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_birth_is_too_large_says_nothing_and_is_told_and_the_others_are_well() {
    let trace = Trace::default();
    let ways = Ways { packet_max: Some(800), ..Ways::default() };
    let broker = WireBroker::with(1, trace.clone(), ways).await;
    let bank = bank().await;
    let dir = tempfile::tempdir().unwrap();
    let device = |name: &str, unit: u8| {
        format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nunit = {unit}\nprofile = \"{name}.toml\"\n")
    };
    let text = format!(
        "[gateway]\nname = \"gw7\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{}\"\nversion = \"5\"\nsparkplug = {{ group = \"plant\" }}\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\n{}{}",
        broker.port,
        bank.addr,
        device("large", 1),
        device("small", 2)
    );
    let tags = |count: u32| {
        let tag = |n| format!("[[tag]]\nname = \"tag-{n}\"\naddress = \"input:{n}\"\ntype = \"u16\"\n");
        "interval = \"20ms\"\n".to_string() + &(0..count).map(tag).collect::<String>()
    };
    std::fs::write(dir.path().join("large.toml"), tags(100)).unwrap();
    std::fs::write(dir.path().join("small.toml"), tags(2)).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    let agent = Agent::start(plan).await.unwrap();
    let stats = agent.stages.clone();
    let lost = || stats.spool.stats.lost.of(edge_agent::telemetry::spool::Reason::TooLarge).1;
    let both = async || count_of(&trace, "/DDATA/gw7/small") > 20 && lost() > 200;
    let in_time = eventually(Duration::from_secs(20), both).await;
    accounts::stopped(agent).await;
    let (small, all) = (count_of(&trace, "/DDATA/gw7/small"), count(&trace, "DDATA"));
    assert!(in_time, "{small} of the small one, {} lost", lost());
    assert_eq!((small, count(&trace, "DBIRTH")), (all, 1), "no data of who was not born");
    let mut expected = 0u64;
    for entry in trace.lock().unwrap().iter() {
        let Event::Publish(said) = &entry.event else { continue };
        let Some(seq) = Payload::decode(&said.payload[..]).unwrap().seq else { continue };
        assert_eq!(seq, expected % 256, "{}", String::from_utf8_lossy(&said.topic));
        expected = seq + 1;
    }
}

fn count_of(trace: &Trace, part: &str) -> usize {
    let is = |e: &&wire_broker::Entry| matches!(&e.event, Event::Publish(p) if String::from_utf8_lossy(&p.topic).contains(part));
    trace.lock().unwrap().iter().filter(is).count()
}

/// What waited while the broker was away comes as historical, with its own times, and every value comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_replayed_as_historical() {
    tokio::join!(replayed("gw4", ""), replayed("gw5", "templates = true"));
}

async fn replayed(node: &str, more: &str) {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let bank = bank().await;
    let (_dir, agent) = agent(&bank, &[&broker], node, &format!("5,primary_host = \"scada\"\n{more}"), None).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // connected, and not allowed to speak
    broker.tell("spBv1.0/STATE/scada", state(true, now_ms()), false);
    let enough = async || {
        let seen = Replayed::of(&trace);
        seen.historical > 50 && seen.live > 10
    };
    assert!(eventually(Duration::from_secs(20), enough).await, "{:?}", Replayed::of(&trace));
    let stages = agent.stages.clone();
    accounts::stopped(agent).await;
    let seen = Replayed::of(&trace);
    assert_eq!(seen.newer_than_birth, 0, "what is historical is older than its device's birth: {seen:?}");
    let said = seen.historical + seen.live;
    let missing = stages.spool.stats.produced.load(std::sync::atomic::Ordering::Relaxed) - said;
    assert!(
        missing <= seen.born,
        "every value came, if not as data then in a birth: {missing} of {said} are missing, {seen:?}"
    );
}

/// Values in births of devices and in their data: metrics, or members of instances, which are as historical as what they are in.
#[derive(Debug, Default)]
struct Replayed {
    born: u64,
    historical: u64,
    newer_than_birth: u64,
    live: u64,
}

impl Replayed {
    fn of(trace: &Trace) -> Replayed {
        let (mut seen, mut births) = (Replayed::default(), std::collections::HashMap::new());
        for entry in trace.lock().unwrap().iter() {
            let Event::Publish(p) = &entry.event else { continue };
            let (topic, payload) = (String::from_utf8_lossy(&p.topic), Payload::decode(&p.payload[..]).unwrap());
            let values = payload.metrics.into_iter().flat_map(|metric| match metric.value {
                Some(MetricValue::Template(instance)) if topic.contains("/D") => {
                    assert!(instance.metrics.iter().all(|m| m.is_historical == metric.is_historical));
                    instance.metrics
                }
                _ => vec![metric],
            });
            let values: Vec<Metric> = values.collect();
            if topic.contains("/DBIRTH/") {
                seen.born += values.len() as u64;
                births.insert(topic.replace("DBIRTH", "DDATA"), payload.timestamp);
            }
            for metric in values.iter().filter(|_| topic.contains("/DDATA/")) {
                let is_historical = metric.is_historical == Some(true);
                seen.historical += u64::from(is_historical);
                seen.live += u64::from(!is_historical);
                seen.newer_than_birth += u64::from(is_historical && metric.timestamp > births[&*topic]);
            }
        }
        seen
    }
}
