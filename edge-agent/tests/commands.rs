//! Commands over MQTT: what passes the gate is done, read back, answered and written down; nothing else reaches the wire.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/sending.rs"]
mod sending;
mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use plc_sim::bank::{Bank, BankConfig};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use std::time::Duration;
use support::eventually;
use tokio::sync::mpsc;

const BASE: &str = "lightsout/hall/a/gw/cmd";

/// A gateway with one meter whose tags `speed` (0 to 100) and `secret` may be written, but only `speed` over MQTT.
async fn gateway(bank: &Bank, broker: u16, more: &str) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{broker}\"\n{more}\n\
         [mqtt.commands]\nallow = [\"meter/speed\", \"meter/slow\"]\nrate = 50.0\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\ntimeout = \"300ms\"\n\
         [[line.device]]\nname = \"meter\"\ncell = \"c\"\nunit = 1\nprofile = \"meter.toml\"\n",
        bank.addr
    );
    let tag = |name: &str, at: u16, write: &str| {
        format!("[[tag]]\nname = \"{name}\"\naddress = \"holding:{at}\"\ntype = \"u16\"\nwrite = {write}\n")
    };
    let tags = tag("speed", 100, "{ min = 0, max = 100 }")
        + &tag("secret", 101, "{}")
        + &tag("slow", 102, "{ every = \"1h\" }");
    std::fs::write(dir.path().join("meter.toml"), tags).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    let agent = Agent::start(plan).await.unwrap();
    let ready = async || support::http(agent.http, "GET", "/readyz", "").await.unwrap().0 == 200;
    assert!(eventually(Duration::from_secs(20), ready).await);
    (dir, agent)
}

/// A client that sends commands and hears answers.
struct Client {
    client: AsyncClient,
    answers: mpsc::UnboundedReceiver<(String, Value, Option<Vec<u8>>)>,
}

impl Client {
    async fn new(broker: u16) -> Client {
        let mut options = MqttOptions::new("mes", "127.0.0.1", broker);
        options.set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(10);
        let (client, mut events) = AsyncClient::new(options, 10);
        for filter in ["replies/#", "lightsout/hall/a/gw/cmd/+/reply", "lightsout/hall/a/gw/cmd/order/state/#"] {
            client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        }
        let (put, answers) = mpsc::unbounded_channel();
        let (ready_tx, mut ready) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => drop(ready_tx.send(())),
                    Event::Incoming(Packet::Publish(p)) => {
                        let json = serde_json::from_slice(&p.payload).unwrap_or_default();
                        let correlation = p.properties.and_then(|p| p.correlation_data).map(|c| c.to_vec());
                        let _ = put.send((String::from_utf8_lossy(&p.topic).into_owned(), json, correlation));
                    }
                    _ => {}
                }
            }
        });
        for _ in 0..3 {
            ready.recv().await.unwrap();
        }
        Client { client, answers }
    }

    async fn send(&self, what: &str, form: &Value, properties: Option<PublishProperties>, retain: bool) {
        let topic = format!("{BASE}/{what}");
        let (qos, payload) = (QoS::AtLeastOnce, form.to_string());
        match properties {
            Some(p) => self.client.publish_with_properties(topic, qos, retain, payload, p).await.unwrap(),
            None => self.client.publish(topic, qos, retain, payload).await.unwrap(),
        }
    }

    async fn answer(&mut self) -> (String, Value, Option<Vec<u8>>) {
        tokio::time::timeout(Duration::from_secs(10), self.answers.recv()).await.expect("an answer comes").unwrap()
    }

    /// Sends a write and gives its outcome.
    async fn write(&mut self, form: Value) -> Value {
        self.send("write", &form, None, false).await;
        let (topic, answer, _) = self.answer().await;
        assert_eq!(topic, format!("{BASE}/write/reply"), "without a response topic the usual one");
        answer
    }
}

/// What the record says of commands.
fn audit(dir: &tempfile::TempDir) -> Vec<Value> {
    support::commands(&dir.path().join("state"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_mqtt_5_is_done_read_back_answered_and_written_down() {
    let broker = support::start_broker().await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = gateway(&bank, broker, "").await;
    let mut client = Client::new(broker).await;
    let properties = PublishProperties {
        response_topic: Some("replies/mes".into()),
        correlation_data: Some(vec![1, 2, 3].into()),
        user_properties: vec![("by".into(), "anna".into())],
        ..PublishProperties::default()
    };
    client.send("write", &json!({"tag": "meter/speed", "value": 42}), Some(properties), false).await;
    let (topic, answer, correlation) = client.answer().await;
    assert_eq!((topic.as_str(), answer["outcome"].as_str()), ("replies/mes", Some("done")), "{answer}");
    assert_eq!(correlation.as_deref(), Some(&[1, 2, 3][..]), "the asker knows which question is answered");
    let lines = audit(&dir);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    let want = json!({ "via": "mqtt", "who": "anna", "from": "lightsout/hall/a/gw/cmd/write", "action": "tag.write",
        "target": "meter/speed", "value": 42, "key": "010203", "outcome": "done" });
    assert_eq!(line, &want);
    accounts::stopped(agent).await;
}

/// MQTT 3.1.1 has no response topic and no correlation data: the key says which question is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_speaks_3_1_1_answers_on_the_usual_topic_with_the_key() {
    use wire_broker::{Event, Trace, WireBroker};
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = gateway(&bank, broker.port, "version = \"3.1.1\"").await;
    let is_there = |wanted: &dyn Fn(&Event) -> bool| trace.lock().unwrap().iter().any(|e| wanted(&e.event));
    let asks = |e: &Event| matches!(e, Event::Subscribe(f) if f.iter().any(|(f, qos)| f == &format!("{BASE}/write") && *qos == 1));
    assert!(eventually(Duration::from_secs(20), async || is_there(&asks)).await, "it asks for commands");
    assert!(is_there(&|e| matches!(e, Event::Connect { version: 4, .. })));
    let rows = [
        (json!({"tag": "meter/speed", "value": 42, "key": "shift-7"}), "done"),
        (json!({"tag": "meter/speed", "value": 101, "key": "shift-8"}), "not_allowed"),
    ];
    for (form, want) in rows {
        broker.tell(&format!("{BASE}/write"), form.to_string(), false);
        let answer = || {
            let trace = trace.lock().unwrap();
            trace.iter().find_map(|e| match &e.event {
                Event::Publish(said) if said.topic == format!("{BASE}/write/reply").as_bytes() => {
                    let json: Value = serde_json::from_slice(&said.payload).unwrap();
                    assert_eq!((said.qos, said.retain), (1, false), "{json}");
                    (json["key"] == form["key"]).then_some(json)
                }
                _ => None,
            })
        };
        assert!(eventually(Duration::from_secs(20), async || answer().is_some()).await, "{form}");
        assert_eq!(answer().unwrap()["outcome"], want);
    }
    let lines: Vec<Value> = audit(&dir);
    assert_eq!(lines.iter().map(|l| l["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["done", "not_allowed"]);
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_does_not_reach_the_wire_and_is_written_down() {
    let broker = support::start_broker().await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = gateway(&bank, broker, "").await;
    let mut client = Client::new(broker).await;
    let rows = [
        (json!({"tag": "meter/secret", "value": 1, "key": "a"}), "not_allowed"),
        (json!({"tag": "meter/none", "value": 1, "key": "b"}), "not_allowed"),
        (json!({"tag": "meter/speed", "value": 101, "key": "c"}), "not_allowed"),
        (json!({"tag": "meter/speed", "value": 1}), "invalid"), // no key
        (json!({"tag": "meter/speed", "value": {"x": 1}, "key": "d"}), "invalid"),
        (json!({"tag": "meter/speed", "valu": 1, "key": "e"}), "invalid"),
        (json!({"tag": "meter/speed", "value": 1, "key": "f", "expires": "2020-01-01T00:00:00Z"}), "expired"),
        (json!({"tag": "meter/speed", "value": 1, "key": "g", "expires": "soon"}), "invalid"),
        (json!("no object"), "invalid"),
        (json!({"tag": "meter/slow", "value": 1, "key": "h"}), "done"),
        (json!({"tag": "meter/slow", "value": 2, "key": "i"}), "too_often"),
        (json!({"tag": "meter/speed", "value": 7, "key": "j"}), "done"),
        (json!({"tag": "meter/speed", "value": 7, "key": "j"}), "done"), // the same again: answered, not written
        (json!({"tag": "meter/speed", "value": 8, "key": "j"}), "invalid"),
    ];
    for (form, want) in &rows {
        let answer = client.write(form.clone()).await;
        assert_eq!(answer["outcome"], *want, "{form} -> {answer}");
        assert!(*want == "done" || answer["reason"].is_string(), "{answer}");
    }
    let lines = audit(&dir);
    assert_eq!(lines.len(), rows.len() - 2, "one line a command; a known key is none: {lines:#?}");
    let blocks = agent.stages.writes.stats.outcomes.iter().map(|o| o.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(blocks.clone().next(), Some(2), "two were done: {:?}", blocks.collect::<Vec<_>>());
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_command_is_ignored_and_an_answer_never_goes_into_what_is_ours() {
    let broker = support::start_broker().await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let mut client = Client::new(broker).await;
    client.send("write", &json!({"tag": "meter/speed", "value": 9, "key": "old"}), None, true).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (dir, agent) = gateway(&bank, broker, "").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(audit(&dir).is_empty(), "nobody obeyed: {:?}", audit(&dir));
    let into = |topic: &str| PublishProperties { response_topic: Some(topic.into()), ..PublishProperties::default() };
    for (n, topic) in
        ["lightsout/hall/a/c/meter/speed", "lightsout/hall/a/gw/status", "a/#", "$SYS/x"].iter().enumerate()
    {
        let form = json!({"tag": "meter/none", "value": 1, "key": format!("k{n}")});
        client.send("write", &form, Some(into(topic)), false).await;
        let (topic, ..) = client.answer().await;
        assert_eq!(topic, format!("{BASE}/write/reply"));
    }
    accounts::stopped(agent).await;
}

/// mosquitto hides from a subscriber that what it forwards just now is retained as well, unless it is asked not to.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_retained_while_the_gateway_listens_is_ignored_and_taking_it_back_is_none() {
    let test = "a_command_that_is_retained_while_the_gateway_listens_is_ignored_and_taking_it_back_is_none";
    let Some(program) = support::installed("mosquitto", test) else { return };
    let broker = mosquitto::Broker::start(&program, |_| "allow_anonymous true".into()).await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = gateway(&bank, broker.port, "").await;
    assert!(
        eventually(Duration::from_secs(20), async || agent
            .stages
            .mqtt
            .connected
            .load(std::sync::atomic::Ordering::Relaxed))
        .await
    );
    let mut client = Client::new(broker.port).await;
    client.send("write", &json!({"tag": "meter/speed", "value": 9, "key": "kept"}), None, true).await;
    client.client.publish(format!("{BASE}/write"), QoS::AtLeastOnce, true, "").await.unwrap();
    let answer = client.write(json!({"tag": "meter/speed", "value": 7, "key": "now"})).await;
    assert_eq!((&answer["key"], &answer["outcome"]), (&"now".into(), &"done".into()), "{answer}");
    assert_eq!(audit(&dir).len(), 1, "{:?}", audit(&dir));
    let late = client
        .write(json!({"tag": "meter/speed", "value": 7, "key": "e1", "expires": "2020-01-01T00:00:00+01:00"}))
        .await;
    assert_eq!(
        (&late["key"], &late["tag"], &late["outcome"]),
        (&"e1".into(), &"meter/speed".into(), &"expired".into())
    );
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_commands_is_slowed_down_and_costs_nobody_a_value() {
    let broker = support::start_broker().await;
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (_dir, agent) = gateway(&bank, broker, "").await;
    let mut client = Client::new(broker).await;
    for n in 0..300 {
        client.send("write", &json!({"tag": "meter/none", "value": n, "key": format!("k{n}")}), None, false).await;
    }
    let mut too_often = 0;
    for _ in 0..300 {
        let Ok(Some((_, answer, _))) = tokio::time::timeout(Duration::from_secs(5), client.answers.recv()).await else {
            break;
        };
        too_often += u32::from(answer["outcome"] == "too_often" || answer["outcome"] == "busy");
    }
    assert!(too_often > 100, "{too_often} of 300 were turned away");
    accounts::stopped(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_come_over_mqtt_and_answer_with_every_change_of_their_state() {
    let broker = support::start_broker().await;
    let sim = support::start_plant(11).await;
    let mut plan = support::demo_plan(sim.addresses, broker);
    let own = vec!["lightsout/hall/a/gw/cmd".to_string()];
    let allow = Vec::new();
    let commands = edge_agent::commands::CommandPlan { topic: BASE.into(), allow, orders: true, rate: 50.0, own };
    plan.mqtt.as_mut().unwrap().commands = Some(commands);
    let agent = Agent::start(plan).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await);
    let mut client = Client::new(broker).await;
    let load = 1001;
    client.send("order", &json!({"kind": "retrieve", "load": load, "key": "po-1"}), None, false).await;
    let (mut states, mut answers) = (Vec::new(), Vec::new());
    while !states.iter().any(|s| s == "completed") {
        let (topic, json, _) =
            tokio::time::timeout(Duration::from_secs(60), client.answers.recv()).await.unwrap().unwrap();
        match topic.strip_prefix(&format!("{BASE}/order/state/")) {
            Some(_) if json["key"] == "po-1" => states.push(json["state"].as_str().unwrap().to_string()),
            Some(_) => {}
            None => answers.push(json),
        }
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((answers[0]["outcome"].as_str(), answers[0]["order"]["load"].as_u64()), (Some("accepted"), Some(load)));
    assert_eq!(states, ["submitted", "accepted", "running", "completed"]);
    client.send("order", &json!({"kind": "retrieve", "load": load, "key": "po-1"}), None, false).await;
    let again = loop {
        let (topic, json, _) = client.answer().await;
        if topic.ends_with("/reply") {
            break json;
        }
    };
    assert_eq!(again["outcome"], "known", "the same key again is the same order");
    accounts::stopped(agent).await;
    assert!(sim.truth().is_clean());
}
