//! mosquitto in all the ways a plant runs it: plain, TLS, mutual TLS, with an access list; 3.1.1 and 5. And a Sparkplug host application by a
//! library that is not ours. Where a peer is not installed the test says so; with `LIGHTSOUT_PEERS=require` it fails instead.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/sending.rs"]
mod sending;
mod support;

use edge_agent::Agent;
use edge_agent::config::plan::{Login, MqttPlan, Secret};
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::wire::Version;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::Stream;
use mosquitto::{Broker, certificates};
use plc_sim::bank::{Bank, BankConfig};
use sending::{append, plan};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{eventually, free_port, installed};
use tokio::sync::watch;

/// Sends records until they are delivered; spool and stats as they are then.
async fn deliver(plan: MqttPlan, count: u64, limit: u64) -> (Arc<Spool>, Arc<MqttStats>) {
    let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
    append(&spool, Stream::Normal, 1..count + 1);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
    eventually(Duration::from_secs(limit), async || spool.is_empty()).await;
    let _ = stop.send(true);
    task.await.unwrap();
    accounts::balanced(&spool);
    (spool, stats)
}

async fn delivers(plan: MqttPlan) {
    let (spool, _) = deliver(plan, 500, 60).await;
    assert_eq!((spool.stats.delivered.load(Relaxed), spool.stats.lost.values()), (500, 0));
}

async fn is_refused(plan: MqttPlan) {
    let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
    append(&spool, Stream::Normal, 1..6);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
    assert!(eventually(Duration::from_secs(60), async || stats.failures.load(Relaxed) >= 2).await, "it is tried again");
    let _ = stop.send(true);
    task.await.unwrap();
    accounts::balanced(&spool);
    assert_eq!((spool.stats.delivered.load(Relaxed), stats.connects.load(Relaxed)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_in_both_versions_and_what_the_broker_forbids_is_a_told_loss_of_that_record_only() {
    let test = "plain_in_both_versions_and_what_the_broker_forbids_is_a_told_loss_of_that_record_only";
    let (Some(mosquitto), Some(sub)) = (installed("mosquitto", test), installed("mosquitto_sub", test)) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true\nmax_packet_size 20000".into()).await;
    for version in [Version::V5, Version::V311] {
        delivers(MqttPlan { version, ..plan(broker.port) }).await;
    }

    // A session that the broker keeps: what comes later waits in it, however late the listener is.
    let listen = |more: &[&str]| {
        let mut listener = Command::new(&sub);
        listener.args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-V",
            "5",
            "-i",
            "listener",
            "-c",
            "-x",
            "600",
        ]);
        listener
            .args(["-t", "t/v", "-t", "t/big", "-t", "lost", "-q", "1", "-W", "60", "-F", "%t %P %C %p"])
            .args(more);
        tokio::task::spawn_blocking(move || listener.output().unwrap())
    };
    assert!(listen(&["-E"]).await.unwrap().status.success());
    let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
    let plan = MqttPlan {
        properties: vec![("site".into(), "hall-1".into())],
        expiry: Some(Duration::from_secs(60)),
        ..plan(broker.port)
    };
    append(&spool, Stream::Normal, 1..4);
    let mut records = edge_agent::telemetry::spool::Records::default();
    records.push((Stream::Normal, edge_agent::telemetry::spool::Kind::Json), &["t/big"], (1, 7), |out| {
        out.extend_from_slice(&[b'x'; 30_000]);
        0
    });
    spool.append(&mut records);
    append(&spool, Stream::Normal, 5..8);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
    assert!(eventually(Duration::from_secs(20), async || spool.is_empty()).await);
    let _ = stop.send(true);
    task.await.unwrap();
    accounts::balanced(&spool);
    assert_eq!((spool.stats.delivered.load(Relaxed), spool.stats.lost.values()), (6, 7));
    assert_eq!(stats.connects.load(Relaxed), 1, "the connection did not end over it");
    let heard = String::from_utf8_lossy(&listen(&["-C", "7"]).await.unwrap().stdout).into_owned();
    assert_eq!(heard.lines().filter(|l| l.starts_with("t/v ")).count(), 6, "{heard}");
    assert!(
        heard.contains("\"reason\":\"too large\"") && heard.contains("\"from_sequence\":4,\"to_sequence\":4"),
        "{heard}"
    );
    assert!(heard.contains("site:hall-1") && heard.contains("application/json"), "{heard}");
}

/// MQTT 3.1.1 has no way to say that a message is too large: the broker hangs up over it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_without_words_hangs_up_over_is_lost_alone_and_told() {
    let test = "what_a_broker_without_words_hangs_up_over_is_lost_alone_and_told";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true\nmax_packet_size 20000".into()).await;
    let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
    append(&spool, Stream::Normal, 1..4);
    let mut records = edge_agent::telemetry::spool::Records::default();
    records.push((Stream::Normal, edge_agent::telemetry::spool::Kind::Json), &["t/big"], (1, 7), |out| {
        out.extend_from_slice(&[b'x'; 30_000]);
        0
    });
    spool.append(&mut records);
    append(&spool, Stream::Normal, 5..8);
    let (stop, stopped) = watch::channel(false);
    let plan = MqttPlan { version: Version::V311, ..plan(broker.port) };
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
    assert!(eventually(Duration::from_secs(60), async || spool.is_empty()).await, "{stats:?}");
    let _ = stop.send(true);
    task.await.unwrap();
    accounts::balanced(&spool);
    assert_eq!((spool.stats.delivered.load(Relaxed), spool.stats.lost.values()), (6, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_mutual_tls_and_whoever_does_not_fit_is_refused() {
    let test = "tls_and_mutual_tls_and_whoever_does_not_fit_is_refused";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let tls = |dir: &Path| {
        let file = |name: &str| dir.join(name).display().to_string();
        format!(
            "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n",
            file("ca.pem"),
            file("broker.pem"),
            file("broker.key")
        )
    };
    let broker = Broker::start(&mosquitto, tls).await;
    for version in [Version::V5, Version::V311] {
        delivers(MqttPlan { version, ..broker.tls_plan(false) }).await;
    }
    let mut stranger = broker.tls_plan(false);
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    stranger.tls.as_mut().unwrap().ca = other.path().join("ca.pem");
    is_refused(stranger).await; // another CA
    let mut renamed = broker.tls_plan(false);
    renamed.tls.as_mut().unwrap().name = Some("other.plant".into());
    is_refused(renamed).await; // another name
    is_refused(plan(broker.port)).await; // no fall-back to plain text

    let mutual = |dir: &Path| format!("{}require_certificate true\nuse_identity_as_username true\n", tls(dir));
    let broker = Broker::start(&mosquitto, mutual).await;
    delivers(broker.tls_plan(true)).await;
    is_refused(broker.tls_plan(false)).await; // no certificate of our own
}

#[tokio::test(flavor = "multi_thread")]
async fn with_password_and_access_list_the_next_broker_is_asked_and_what_is_not_allowed_is_counted() {
    let test = "with_password_and_access_list_the_next_broker_is_asked_and_what_is_not_allowed_is_counted";
    let (Some(mosquitto), Some(passwd)) = (installed("mosquitto", test), installed("mosquitto_passwd", test)) else {
        return;
    };
    let acl = |list: &str| {
        let (list, passwd) = (list.to_string(), passwd.clone());
        move |dir: &Path| {
            let users = dir.join("users");
            let made =
                Command::new(&passwd).args(["-c", "-b"]).arg(&users).args(["gateway-1", "secret"]).output().unwrap();
            assert!(made.status.success());
            std::fs::write(dir.join("acl"), &list).unwrap();
            for file in ["users", "acl"] {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(dir.join(file), std::fs::Permissions::from_mode(0o644)).unwrap();
            }
            format!(
                "allow_anonymous false\npassword_file {}\nacl_file {}\n",
                users.display(),
                dir.join("acl").display()
            )
        }
    };
    let broker = Broker::start(&mosquitto, acl("user gateway-1\ntopic write t/#\n")).await;
    std::fs::write(broker.file("password"), "secret\n").unwrap();
    let login = |file: &str| Some(Login { user: "gateway-1".into(), secret: Some(Secret::File(broker.file(file))) });
    // The preferred broker is not there: the second is taken.
    let mut two = MqttPlan { login: login("password"), ..plan(broker.port) };
    two.brokers.insert(0, edge_agent::config::plan::Broker::plain("127.0.0.1", free_port()));
    delivers(two).await;
    std::fs::write(broker.file("wrong"), "public").unwrap();
    is_refused(MqttPlan { login: login("wrong"), ..plan(broker.port) }).await;
    is_refused(plan(broker.port)).await; // anonymous
    // The list we ship: what is below the gateway's own line, and nothing else.
    let shipped = std::fs::read_to_string(support::demo_file("../mosquitto.acl")).unwrap();
    let broker = Broker::start(&mosquitto, acl(&shipped)).await;
    std::fs::write(broker.file("password"), "secret\n").unwrap();
    let secret = Some(Secret::File(broker.file("password")));
    let login = Some(Login { user: "gateway-1".into(), secret });
    let status_topic = "lightsout/hall-1/line-1/gateway-1/status".to_string();
    let own = MqttPlan { login, status_topic, ..plan(broker.port) };
    let (spool, stats) = (Spool::in_memory(1 << 20), Arc::new(MqttStats::default()));
    let mut records = edge_agent::telemetry::spool::Records::default();
    for topic in ["lightsout/hall-1/line-1/press/force", "lightsout/hall-1/line-2/press/force"] {
        let kind = edge_agent::telemetry::spool::Kind::Json;
        records.push((Stream::Normal, kind), &[topic], (1, 1), |_| 0);
    }
    spool.append(&mut records);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(own, spool.clone(), stats, 1).run(stopped));
    assert!(eventually(Duration::from_secs(60), async || spool.is_empty()).await);
    let _ = stop.send(true);
    task.await.unwrap();
    accounts::balanced(&spool);
    assert_eq!((spool.stats.delivered.load(Relaxed), spool.stats.lost.values()), (1, 1));
    // MQTT 5 says that a topic is not allowed: counted as refused, not sent for ever.
    let broker = Broker::start(&mosquitto, acl("user gateway-1\ntopic write t/status\n")).await;
    std::fs::write(broker.file("password"), "secret\n").unwrap();
    let secret = Some(Secret::File(broker.file("password")));
    let login = Some(Login { user: "gateway-1".into(), secret });
    let (spool, _) = deliver(MqttPlan { login, ..plan(broker.port) }, 50, 60).await;
    assert_eq!((spool.stats.delivered.load(Relaxed), spool.stats.lost.values()), (0, 50));
}

/// Python with pysparkplug, if it is there.
fn pysparkplug(test: &str) -> Option<PathBuf> {
    let python = installed("python3", test)?;
    if Command::new(&python).args(["-c", "import pysparkplug"]).output().unwrap().status.success() {
        return Some(python);
    }
    assert!(std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"), "{test} needs pysparkplug from PyPI");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: pysparkplug from PyPI is not installed here");
    None
}

/// A Sparkplug node of three devices at a broker; `more` are keys of its table.
async fn sparkplug_node(broker: &Broker, bank: &Bank, more: &str) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let mut text = format!(
        "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{}\"\nversion = \"3.1.1\"\n[mqtt.sparkplug]\ngroup = \"plant\"\n{more}\n\
         [mqtt.commands]\nallow = [\"m1/speed\"]\n[[line]]\nname = \"bank\"\nmodbus = \"{}\"\n",
        broker.port, bank.addr
    );
    for (n, name) in ["m1", "m2", "still"].iter().enumerate() {
        text += &format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nunit = {}\nprofile = \"p.toml\"\n", n + 1);
    }
    let profile = "[[tag]]\nname = \"a\"\naddress = \"input:0\"\ntype = \"u16\"\n\
                   [[tag]]\nname = \"speed\"\naddress = \"holding:100\"\ntype = \"u16\"\nwrite = { max = 500 }\n";
    std::fs::write(dir.path().join("p.toml"), profile).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    let agent = Agent::start(plan).await.unwrap();
    (dir, agent)
}

/// What a script of `tests/peers` says about the node at a broker, as JSON.
async fn host_says(python: PathBuf, script: &str, broker: &Broker) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    let port = broker.port.to_string();
    let run = tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(port).output().unwrap());
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(said.trim()).unwrap_or_else(|e| panic!("{e}: {said} {why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparkplug_host_by_another_library_understands_births_and_writes_a_register() {
    let test = "a_sparkplug_host_by_another_library_understands_births_and_writes_a_register";
    let (Some(mosquitto), Some(python)) = (installed("mosquitto", test), pysparkplug(test)) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true".into()).await;
    let bank = Bank::start(BankConfig { units: 3, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = sparkplug_node(&broker, &bank, "").await;
    let json = host_says(python, "sparkplug_host.py", &broker).await;
    assert_eq!((json["born"].as_bool(), json["again"].as_bool()), (Some(true), Some(true)), "{json}");
    assert_eq!(json["m1"], serde_json::json!(["a", "speed"]));
    assert!(json["node"].as_array().unwrap().iter().any(|n| n == "Node Control/Rebirth"), "{json}");
    assert!(json["a"].is_u64(), "{json}");
    assert!(support::was_written(&dir.path().join("state"), "m1/speed", 321), "{json}");
    accounts::stopped(agent).await;
}

/// The metric of a message that has this name.
fn metric<'a>(message: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let found = message["metrics"].as_array().and_then(|all| all.iter().find(|m| m["name"] == name));
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_specification_s_own_classes_decode_alarms_and_templates_and_write_a_member() {
    let test = "the_specification_s_own_classes_decode_alarms_and_templates_and_write_a_member";
    let (Some(mosquitto), Some(python)) = (installed("mosquitto", test), pysparkplug(test)) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true".into()).await;
    let bank = Bank::start(BankConfig { units: 3, registers: 200, ..BankConfig::default() }).await.unwrap();
    let (dir, agent) = sparkplug_node(&broker, &bank, "alarms = true\ntemplates = true").await;
    agent.stages.alarms.configuration_refused(Some("a key is wrong".into()));
    assert!(eventually(Duration::from_secs(20), async || !agent.stages.alarms.list().is_empty()).await);
    let json = host_says(python, "sparkplug_births.py", &broker).await;
    let birth = &json["spBv1.0/plant/NBIRTH/gw"];
    let table = &metric(birth, "Alarms/Table")["dataset_value"];
    assert_eq!((&table["num_of_columns"], &table["columns"][0]), (&"9".into(), &"Alarm".into()), "{table}");
    assert_eq!(table["types"], serde_json::json!([12, 12, 12, 12, 11, 4, 12, 12, 12]));
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(metric(birth, "Alarms/Count")["long_value"], rows.len().to_string(), "{birth}");
    let cells = rows.iter().map(|row| &row["elements"]).find(|row| row[0]["string_value"] == "configuration-refused");
    let cells = cells.unwrap();
    let want = [(1, "configuration"), (2, "medium"), (3, "unacknowledged"), (6, "a key is wrong")];
    want.iter().for_each(|(n, text)| assert_eq!(cells[n]["string_value"], *text, "{cells}"));
    assert_eq!(cells[4]["boolean_value"], true, "{cells}");

    let definition = &metric(birth, "p")["template_value"];
    let names = |template: &serde_json::Value, what: &str| {
        let all = template[what].as_array().cloned().unwrap_or_default();
        all.iter().map(|m| m["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(definition, "metrics"), names(definition, "parameters")),
        (vec!["a".into(), "speed".into()], vec!["Cell".into(), "Unit".into()])
    );
    assert_eq!(definition["is_definition"], true);
    for (n, device) in ["m1", "m2", "still"].iter().enumerate() {
        let instance = &metric(&json[format!("spBv1.0/plant/DBIRTH/gw/{device}")], device)["template_value"];
        assert_eq!((&instance["is_definition"], &instance["template_ref"]), (&false.into(), &"p".into()), "{instance}");
        let unit = serde_json::json!({"name": "Unit", "type": 4, "long_value": (n + 1).to_string()});
        assert_eq!(instance["parameters"][1], unit);
        assert_eq!(names(instance, "metrics"), ["a", "speed"]);
        assert!(instance["metrics"][0]["int_value"].is_u64(), "{instance}");
    }
    let wrote = async || support::was_written(&dir.path().join("state"), "m1/speed", 321);
    assert!(eventually(Duration::from_secs(20), wrote).await, "a member is written as a tag is");
    accounts::stopped(agent).await;
}
