//! What stands on the wire of an MQTT connection, seen from the broker's side: topic aliases, message expiry, who we say we are, and how
//! long a broker is left alone that does not serve us.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/sending.rs"]
mod sending;
mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::config::plan::MqttPlan;
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::wire::Version;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{Kind, Records, Stream};
use sending::plan;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::eventually;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire_broker::{Entry, Event, Said, Trace, Ways, WireBroker, now_ms};

struct Edge {
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Edge {
    fn start(plan: MqttPlan, seed: u64) -> Edge {
        let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), seed).run(stopped));
        Edge { spool, stats, stop, task }
    }

    /// Promises one record for each of these topics, as of then.
    fn append(&self, topics: &[&str], at_ms: u64) {
        let mut records = Records::default();
        for topic in topics {
            records.push((Stream::Normal, Kind::Json), &[topic], (at_ms, 1), |out| {
                out.extend_from_slice(b"{}");
                1
            });
        }
        self.spool.append(&mut records);
    }

    /// Everything that was promised has been acknowledged.
    async fn delivered(&self) {
        assert!(eventually(Duration::from_secs(20), async || self.spool.is_empty()).await);
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        self.task.await.unwrap();
        accounts::balanced(&self.spool);
    }
}

fn entries(trace: &Trace) -> Vec<Entry> {
    trace.lock().unwrap().clone()
}

/// Messages of one connection that are not the gateway's own status.
fn said(trace: &Trace, connection: usize) -> Vec<Said> {
    let own = |said: &Said| said.topic == b"t/status";
    let message = |e: Entry| match e.event {
        Event::Publish(said) if e.connection == connection && !own(&said) => Some(said),
        _ => None,
    };
    entries(trace).into_iter().filter_map(message).collect()
}

fn connects(trace: &Trace) -> Vec<Entry> {
    entries(trace).into_iter().filter(|e| matches!(e.event, Event::Connect { .. })).collect()
}

/// MQTT 5, 3.3.2.3.4: an alias stands for a topic on one connection, and none is greater than the broker has said.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_said_once_a_connection_and_then_by_its_alias_as_far_as_the_broker_takes_aliases() {
    let trace = Trace::default();
    let broker = WireBroker::with(1, trace.clone(), Ways { aliases: Some(2), ..Ways::default() }).await;
    let edge = Edge::start(plan(broker.port), 1);
    for connection in 1..=2 {
        let n = connection as u64;
        assert!(eventually(Duration::from_secs(20), async || edge.stats.connects.load(Relaxed) == n).await);
        edge.append(&["t/a", "t/b", "t/c", "t/a", "t/b", "t/c"], now_ms());
        edge.delivered().await;
        let on_wire: Vec<(String, Option<u16>)> = said(&trace, connection)
            .into_iter()
            .map(|s| (String::from_utf8(s.topic).unwrap(), s.properties.topic_alias))
            .collect();
        let want = [
            ("t/a", Some(1)),
            ("t/b", Some(2)),
            ("t/c", None), // the broker takes two
            ("", Some(1)),
            ("", Some(2)),
            ("t/c", None),
        ];
        let want: Vec<(String, Option<u16>)> = want.iter().map(|(t, a)| (t.to_string(), *a)).collect();
        assert_eq!(on_wire, want, "connection {connection}: aliases begin anew with each");
        let is_birth = |e: &Entry| matches!(&e.event, Event::Publish(s) if s.topic == b"t/status" && s.retain);
        let birth = entries(&trace).into_iter().find(|e| e.connection == connection && is_birth(e));
        assert!(birth.is_some(), "what is retained is said in full");
        broker.cut();
    }
    edge.stop().await;

    // A broker that says nothing of aliases takes none (3.2.2.3.8), and 3.1.1 has none.
    for version in [Version::V5, Version::V311] {
        let trace = Trace::default();
        let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
        let edge = Edge::start(MqttPlan { version, ..plan(broker.port) }, 1);
        edge.append(&["t/a", "t/a"], now_ms());
        edge.delivered().await;
        edge.stop().await;
        let said = said(&trace, 1);
        assert_eq!(said.len(), 2);
        assert!(said.iter().all(|s| s.topic == b"t/a" && s.properties.topic_alias.is_none()), "{said:?}");
    }
}

/// MQTT 5, 3.3.2.3.3. What has waited in the spool has less time left, and what is too old already is not sent but told.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_expires_so_long_after_it_was_promised_and_not_after_it_was_sent() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let expiry = Some(Duration::from_secs(3600));
    let edge = Edge::start(MqttPlan { expiry, ..plan(broker.port) }, 1);
    let began = now_ms();
    edge.append(&["t/new"], began);
    edge.append(&["t/waited"], began - 600_000);
    edge.append(&["t/old"], began - 7_200_000);
    edge.delivered().await;
    let edge_spool = edge.spool.clone();
    edge.stop().await;
    let took_s = u32::try_from((now_ms() - began) / 1000).unwrap() + 1;
    let said_of =
        |s: &wire_broker::Said| (String::from_utf8_lossy(&s.topic).into_owned(), s.properties.message_expiry_interval);
    let all: Vec<(String, Option<u32>)> = said(&trace, 1).iter().map(said_of).collect();
    let [(_, Some(new)), (_, Some(waited)), (last, Some(_))] = &all[..] else { panic!("{all:?}") };
    assert!((3600 - took_s..=3600).contains(new), "{new}");
    assert!((3000 - took_s..=3000).contains(waited), "{waited}");
    assert_eq!(
        (last.as_str(), edge_spool.stats.lost.of(edge_agent::telemetry::spool::Reason::Age).1),
        ("lost", 1),
        "{all:?}"
    );
    for entry in entries(&trace) {
        if let Event::Publish(said) = entry.event
            && said.topic == b"t/status"
        {
            assert_eq!(said.properties.message_expiry_interval, None, "what is retained stands until the next");
        }
    }

    // Without `expiry` messages are good for ever.
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let edge = Edge::start(plan(broker.port), 1);
    edge.append(&["t/a"], began - 7_200_000);
    edge.delivered().await;
    edge.stop().await;
    assert_eq!(said(&trace, 1).iter().map(|s| s.properties.message_expiry_interval).collect::<Vec<_>>(), [None]);
}

/// A broker that takes connections and serves nobody is asked ever less often: after 200 ms, 400, 800 .. or up to half as long, as the seed
/// draws. Only that it is not asked sooner is judged: a busy machine may well be late.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_serve_us_is_left_alone_for_longer_and_longer() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let edge = Edge::start(plan(broker.port), 7);
    for n in 1..=5 {
        assert!(eventually(Duration::from_secs(20), async || edge.stats.connects.load(Relaxed) >= n).await);
        broker.cut();
    }
    edge.stop().await;
    let at: Vec<u64> = connects(&trace).iter().take(5).map(|e| e.at_ms).collect();
    let waits: Vec<u64> = at.windows(2).map(|w| w[1] - w[0]).collect();
    for (wait, whole) in waits.iter().zip([200, 400, 800, 1600]) {
        assert!(*wait + 2 >= whole / 2, "{waits:?}: not before {} ms", whole / 2);
    }
    let mut draws =
        [1, 2, 3].map(|seed| device_drivers::line::Backoff::new(Duration::from_secs(1), Duration::MAX, seed));
    let first = draws.each_mut().map(|b| b.wait());
    assert!(first[0] != first[1] && first[1] != first[2], "gateways do not come back in step: {first:?}");
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd.exec(5), `LoadCredential=`: a folder of the unit's own, named by the environment.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_systemd_is_the_password_and_one_that_was_renewed_is_taken_for_the_next_connection() {
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:{}\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{}\"\nusername = \"gw\"\npassword_credential = \"mqtt\"\n\
         [[line]]\nname = \"l\"\nmodbus = \"127.0.0.1:1\"\n\
         [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"p.toml\"\n",
        support::free_port(),
        broker.port
    );
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let tag = "[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"u16\"\n";
    std::fs::write(dir.path().join("p.toml"), tag).unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    program.arg("run").arg(dir.path().join("agent.toml")).env("CREDENTIALS_DIRECTORY", &credentials);
    program.stderr(Stdio::null());
    let mut running = None;
    for (n, password) in ["first", "renewed"].iter().enumerate() {
        std::fs::write(credentials.join("mqtt"), format!("{password}\n")).unwrap();
        match &running {
            None => running = Some(Program(program.spawn().unwrap())),
            Some(_) => broker.cut(),
        }
        assert!(eventually(Duration::from_secs(60), async || connects(&trace).len() > n).await, "it connects");
        let Event::Connect { login, .. } = connects(&trace)[n].event.clone() else { unreachable!() };
        assert_eq!(login, Some(("gw".to_string(), password.to_string())));
    }
}
