//! `edge-agent schema --payloads` says what every message looks like, and every message of a run looks so: judged by Python's jsonschema.

#[path = "support/accounts.rs"]
mod accounts;
mod support;

use device_drivers::value::Cause;
use edge_agent::Agent;
use edge_agent::commands::CommandPlan;
use edge_agent::config::{Meaning, Payload, Plan};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{eventually, installed};

const BASE: &str = "lightsout/hall-1/line-1/gateway-1";

const JUDGE: &str = r##"
import json, sys
from jsonschema import Draft202012Validator as Judge
schema, messages = json.load(open(sys.argv[1])), [json.loads(line) for line in sys.stdin]
Judge.check_schema(schema)
judges = {name: Judge({**schema, "anyOf": [{"$ref": "#/$defs/" + name}]}) for name in schema["$defs"]}
wrong = []
for name, message in messages:
    wrong += [f"{name}: {e.message} in {json.dumps(message)[:300]}" for e in judges[name].iter_errors(message)]
print(json.dumps(wrong[:20]))
"##;

fn python(test: &str) -> Option<PathBuf> {
    let python = installed("python3", test)?;
    if Command::new(&python).args(["-c", "import jsonschema"]).output().unwrap().status.success() {
        return Some(python);
    }
    assert!(std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"), "{test} needs Python's jsonschema");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: Python's jsonschema is not installed here");
    None
}

/// What is wrong with these messages, each under its definition.
fn judge(python: &Path, messages: &[(String, Value)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let printed = Command::new(env!("CARGO_BIN_EXE_edge-agent")).args(["schema", "--payloads"]).output().unwrap();
    assert!(printed.status.success());
    std::fs::write(dir.path().join("schema.json"), &printed.stdout).unwrap();
    let mut child = Command::new(python)
        .args(["-c", JUDGE])
        .arg(dir.path().join("schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = messages.iter().map(|(name, message)| format!("{}\n", json!([name, message]))).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "the schema is one, and it is asked");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What a topic's messages are.
fn definition(topic: &str, payload: Payload) -> &'static str {
    let Some(rest) = topic.strip_prefix(BASE) else {
        return if payload == Payload::Device { "device" } else { "sample" };
    };
    let known = [
        ("/status", "status"),
        ("/lost", "lost"),
        ("/meta/", "meta"),
        ("/alarm/", "alarm"),
        ("/cmd/order/state/", "order"),
        ("/cmd/write/reply", "write_reply"),
        ("/cmd/order/reply", "order_reply"),
    ];
    known.iter().find(|(start, _)| rest.starts_with(start)).unwrap_or_else(|| panic!("{topic} is in no list")).1
}

type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A client that hears everything, and can send commands.
async fn client(broker: u16) -> (AsyncClient, Heard) {
    let mut options = MqttOptions::new("judge", "127.0.0.1", broker);
    options.set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(10);
    options.set_max_packet_size(Some(256 * 1024));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("lightsout/#", QoS::AtLeastOnce).await.unwrap();
    let heard = Heard::default();
    let (kept, (ready, is_ready)) = (heard.clone(), tokio::sync::oneshot::channel());
    tokio::spawn(async move {
        let mut ready = Some(ready);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::SubAck(_)) => drop(ready.take().map(|ready| ready.send(()))),
                Event::Incoming(Packet::Publish(p))
                    if !p.topic.ends_with(b"/write") && !p.topic.ends_with(b"/order") =>
                {
                    let json = serde_json::from_slice(&p.payload).expect("every payload is JSON");
                    kept.lock().unwrap().push((String::from_utf8_lossy(&p.topic).into_owned(), json));
                }
                _ => {}
            }
        }
    });
    is_ready.await.unwrap();
    (client, heard)
}

/// The small demo, with commands and with something to say of its tags.
fn plan(plant: plc_sim::SimAddresses, broker: u16, payload: Payload) -> Plan {
    let mut plan = support::demo_plan(plant, broker);
    let mqtt = plan.mqtt.as_mut().unwrap();
    (mqtt.payload, mqtt.heartbeat) = (payload, Duration::from_secs(1));
    let topic = format!("{BASE}/cmd");
    mqtt.commands =
        Some(CommandPlan { topic, allow: Vec::new(), orders: true, rate: 50.0, own: vec!["lightsout/".into()] });
    let meaning = Meaning { unit: Some("°C".into()), description: Some("Öl".into()), low: Some(0.0), high: None };
    let meaning = Arc::new(meaning);
    for line in &mut plan.lines {
        let say = |point: &edge_agent::config::PointPlan| edge_agent::config::PointPlan {
            meaning: Some(meaning.clone()),
            ..point.clone()
        };
        line.points = line.points.iter().map(say).collect();
    }
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_run_is_as_the_schema_says() {
    let Some(python) = python("every_message_of_a_run_is_as_the_schema_says") else { return };
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all: Vec<(String, Value)> = Vec::new();
    for payload in [Payload::Tag, Payload::Device] {
        let sim = support::start_plant(7).await;
        let broker = support::start_broker().await;
        let (client, heard) = client(broker).await;
        let agent = Agent::start(plan(sim.addresses, broker, payload)).await.unwrap();
        let ready = async || support::http(agent.http, "GET", "/readyz", "").await.unwrap().0 == 200;
        assert!(eventually(Duration::from_secs(20), ready).await);
        let send = async |what: &str, form: Value| {
            client.publish(format!("{BASE}/cmd/{what}"), QoS::AtLeastOnce, false, form.to_string()).await.unwrap();
        };
        send("order", json!({"kind": "store", "load": 4711, "key": "o1"})).await;
        send("order", json!({"kind": "teleport", "key": "o2"})).await;
        send("write", json!({"tag": "rack-plc/nothing", "value": 1, "key": "w1"})).await;
        send("write", json!({"value": true})).await;
        agent.stages.alarms.configuration_refused(Some("a key is wrong".into()));
        let has = |name: &str, n: usize| {
            heard.lock().unwrap().iter().filter(|(topic, _)| definition(topic, payload) == name).count() >= n
        };
        let values = if payload == Payload::Tag { "sample" } else { "device" };
        let done = async || {
            let again = |m: &Value| m.to_string().contains("confirmed_time");
            [
                ("status", 1),
                ("meta", 2),
                ("alarm", 1),
                ("order", 1),
                ("order_reply", 2),
                ("write_reply", 2),
                (values, 100),
            ]
            .iter()
            .all(|(name, n)| has(name, *n))
                && heard.lock().unwrap().iter().any(|(_, m)| again(m))
        };
        assert!(eventually(Duration::from_secs(60), done).await, "every kind of message is told");
        accounts::stopped(agent).await;
        for (topic, message) in heard.lock().unwrap().drain(..) {
            let name = definition(&topic, payload);
            *told.entry(name).or_default() += 1;
            all.push((name.to_string(), message));
        }
    }
    println!("{told:?}");
    assert_eq!(judge(&python, &all), Vec::<String>::new());
}

/// The judge judges: a message that is none is told.
#[test]
fn a_message_that_is_not_as_the_schema_says_is_found() {
    let Some(python) = python("a_message_that_is_not_as_the_schema_says_is_found") else { return };
    let good = json!({"value": 1, "quality": "good", "source_time": "2026-11-22T22:00:00.000Z", "sequence": 7});
    let with = |key: &str, value: Value| {
        let mut message = good.clone();
        message[key] = value;
        ("sample".to_string(), message)
    };
    let wrong = [
        with("quality", "fine".into()),
        with("source_time", "yesterday".into()),
        with("sequence", (-1).into()),
        with("more", 1.into()),
        with("value", json!({"a": 1})),
    ];
    for message in wrong {
        assert_eq!(judge(&python, std::slice::from_ref(&message)).len(), 1, "{message:?}");
    }
    let bad = Cause::NotAvailable.to_string();
    let fine = [("sample".to_string(), good.clone()), with("value", Value::Null), with("cause", bad.into())];
    assert_eq!(judge(&python, &fine), Vec::<String>::new());
}
