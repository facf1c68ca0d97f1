//! mosquitto with the limits that plants give it: small packets, nothing retained, an access list, and a line on which nothing happens. Where
//! it is not installed the test says so; with `LIGHTSOUT_PEERS=require` it fails instead.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/sending.rs"]
mod sending;
mod support;

use edge_agent::config::plan::MqttPlan;
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::wire::Version;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{Kind, Reason, Records, Stream};
use mosquitto::Broker;
use sending::plan;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{eventually, installed};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
const VERSIONS: [Version; 2] = [Version::V5, Version::V311];

struct Edge {
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Edge {
    fn start(plan: MqttPlan) -> Edge {
        let (spool, stats) = (Spool::in_memory(8 << 20), Arc::new(MqttStats::default()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
        Edge { spool, stats, stop, task }
    }

    /// Promises a message to each of these topics, of so many bytes.
    fn append(&self, topics: &[&str], bytes: usize) {
        let mut records = Records::default();
        for topic in topics {
            records.push((Stream::Normal, Kind::Json), &[topic], (edge_agent::clock::run_ms(), 1), |out| {
                out.extend(std::iter::repeat_n(b' ', bytes));
                0
            });
        }
        self.spool.append(&mut records);
    }

    async fn drained(&self, broker: &Broker) {
        let in_time = eventually(LIMIT, async || self.spool.is_empty()).await;
        assert!(in_time, "{} wait, {:?}: {}", self.spool.stats.waiting.load(Relaxed), self.stats, broker.log());
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        self.task.await.unwrap();
        accounts::balanced(&self.spool);
    }
}

/// Over 5 mosquitto says what it takes, over 3.1.1 it hangs up.
#[tokio::test(flavor = "multi_thread")]
async fn small_packets_what_fits_is_delivered_the_rest_is_lost_and_told_and_few_connections_end() {
    let test = "small_packets_what_fits_is_delivered_the_rest_is_lost_and_told_and_few_connections_end";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    // At 185 bytes a loss notice does not fit either: it is not told again.
    for (most, small, large) in [(2048, 500, 3000), (185, 20, 400)] {
        let broker = Broker::start(&mosquitto, |_| format!("allow_anonymous true\nmax_packet_size {most}")).await;
        for version in VERSIONS {
            let edge = Edge::start(MqttPlan { version, keep_alive: Duration::from_secs(60), ..plan(broker.port) });
            for _ in 0..10 {
                edge.append(&["t/a", "t/b"], small);
                edge.append(&["t/a"], large);
            }
            edge.drained(&broker).await;
            let stats = &edge.spool.stats;
            assert_eq!((stats.delivered.load(Relaxed), stats.lost.values()), (20, 10), "{most} bytes, {version:?}");
            assert_eq!(stats.lost.of(Reason::TooLarge).1, 10, "{most} bytes, {version:?}");
            let connects = edge.stats.connects.load(Relaxed);
            assert!(connects <= if version == Version::V5 { 1 } else { 8 }, "{most} bytes, {version:?}: {connects}");
            edge.stop().await;
        }
    }
}

/// `message_size_limit`: over 5 each message is answered, with 0x95. What is too large is lost and told at once, its size is learned, and what
/// is small waits for none of it, however much of the other there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_by_its_puback_is_lost_and_told_and_holds_up_nobody() {
    let test = "what_is_too_large_by_its_puback_is_lost_and_told_and_holds_up_nobody";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true\nmessage_size_limit 300".into()).await;
    let edge = Edge::start(MqttPlan { version: Version::V5, ..plan(broker.port) });
    for _ in 0..1500 {
        edge.append(&["t/small"], 50);
        edge.append(&["t/large"], 2000);
    }
    edge.drained(&broker).await;
    let stats = &edge.spool.stats;
    assert_eq!((stats.delivered.load(Relaxed), stats.lost.of(Reason::TooLarge).1), (1500, 1500));
    assert_eq!(edge.stats.connects.load(Relaxed), 1);
    let fits = edge.stats.message_max.load(Relaxed);
    assert!((50..2000).contains(&fits), "what is made from now on is cut to {fits} bytes");
    edge.stop().await;
}

/// Nobody wants a message any more that is older than its expiry: it is told as that, and not sent with a second to live.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_while_it_waited_is_told_and_not_sent() {
    let test = "what_has_expired_while_it_waited_is_told_and_not_sent";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true".into()).await;
    let expiry = Some(Duration::from_secs(2));
    let edge = Edge::start(MqttPlan { version: Version::V5, expiry, ..plan(support::free_port()) });
    edge.append(&["t/a"; 5], 50);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (spool, _) = (edge.spool.clone(), edge.stop().await);
    let (stats, (stop, stopped)) = (Arc::new(MqttStats::default()), watch::channel(false));
    let late = MqttPlan { version: Version::V5, expiry, ..plan(broker.port) };
    let edge =
        Edge { task: tokio::spawn(Mqtt::new(late, spool.clone(), stats.clone(), 1).run(stopped)), spool, stats, stop };
    edge.append(&["t/a"; 3], 50);
    edge.drained(&broker).await;
    let stats = &edge.spool.stats;
    assert_eq!((stats.delivered.load(Relaxed), stats.lost.of(Reason::Age).1), (3, 5));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_retained_values_flow_all_the_same() {
    let test = "where_nothing_is_retained_values_flow_all_the_same";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true\nretain_available false".into()).await;
    for version in VERSIONS {
        // 3.1.1 has no way to say so: the configuration does.
        let retain = version == Version::V5;
        let edge = Edge::start(MqttPlan { version, retain, ..plan(broker.port) });
        edge.append(&["t/a"; 20], 50);
        edge.drained(&broker).await;
        assert_eq!((edge.spool.stats.delivered.load(Relaxed), edge.spool.stats.lost.values()), (20, 0));
        assert_eq!(edge.stats.connects.load(Relaxed), 1);
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_access_list_refuses_is_told_with_the_reason_and_the_rest_flows() {
    let test = "what_an_access_list_refuses_is_told_with_the_reason_and_the_rest_flows";
    let (Some(mosquitto), Some(sub)) = (installed("mosquitto", test), installed("mosquitto_sub", test)) else { return };
    let acl = |dir: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        let file = dir.join("acl");
        std::fs::write(&file, "topic readwrite t/status\ntopic readwrite t/a\ntopic readwrite lost\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        format!("allow_anonymous true\nacl_file {}", file.display())
    };
    let broker = Broker::start(&mosquitto, acl).await;
    let mut listener = std::process::Command::new(sub);
    listener.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", "5", "-t", "lost", "-C", "1", "-W", "60"]);
    let heard = tokio::task::spawn_blocking(move || listener.output().unwrap());
    let subscribed = async || broker.log().contains("as auto-") || broker.log().contains("New client connected");
    assert!(eventually(LIMIT, subscribed).await, "{}", broker.log());
    tokio::time::sleep(Duration::from_secs(1)).await; // its subscription has no line in the log
    let edge = Edge::start(MqttPlan { version: Version::V5, ..plan(broker.port) });
    edge.append(&["t/a", "t/forbidden", "t/a"], 50);
    edge.drained(&broker).await;
    let stats = &edge.spool.stats;
    assert_eq!((stats.delivered.load(Relaxed), stats.lost.of(Reason::Refused(0x87)).1), (2, 1));
    let heard = String::from_utf8_lossy(&heard.await.unwrap().stdout).into_owned();
    let told: serde_json::Value = serde_json::from_str(heard.trim()).unwrap_or_else(|e| panic!("{e}: {heard}"));
    assert_eq!((&told["reason"], &told["reason_code"], &told["lost"]), (&"refused".into(), &0x87.into(), &1.into()));
    edge.stop().await;
}

/// influxdata/telegraf#7648: nothing to say for three keep-alives, and one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_on_which_nothing_happens_is_one_connection() {
    let test = "a_line_on_which_nothing_happens_is_one_connection";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let broker = Broker::start(&mosquitto, |_| "allow_anonymous true".into()).await;
    let keep_alive = Duration::from_secs(2);
    let edges = VERSIONS.map(|version| {
        let client_id = format!("{version:?}");
        Edge::start(MqttPlan { version, keep_alive, client_id, ..plan(broker.port) })
    });
    tokio::time::sleep(keep_alive * 7 / 2).await;
    for edge in edges {
        let (connects, failures) = (edge.stats.connects.load(Relaxed), edge.stats.failures.load(Relaxed));
        assert_eq!((connects, failures), (1, 0), "{}", broker.log());
        edge.stop().await;
    }
}
