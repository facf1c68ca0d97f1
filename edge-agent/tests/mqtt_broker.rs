//! Brokers that want something else than we would: quotas, small packets, nothing retained, an older version, two of us under one name. Each
//! is a stand-in of ours; the same of mosquitto stands in `mqtt_peers.rs`.

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/sending.rs"]
mod sending;
mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::config::plan::MqttPlan;
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::plain::Plain;
use edge_agent::telemetry::mqtt::wire::{Message, Version};
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{Disk, Kind, Memory, Reason, Records, SpoolOptions, Stream};
use sending::plan;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::eventually;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wire_broker::{Does, Entry, Event, Old, Rule, Said, Trace, Ways, Which, WireBroker};

const LIMIT: Duration = Duration::from_secs(60);

/// A sender, and a broker that writes down what it is told.
struct Pair {
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    trace: Trace,
    broker: WireBroker,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Pair {
    async fn start(ways: Ways, change: impl FnOnce(&mut MqttPlan)) -> Pair {
        Pair::with(Spool::in_memory(8 << 20), ways, change).await
    }

    async fn with(spool: Arc<Spool>, ways: Ways, change: impl FnOnce(&mut MqttPlan)) -> Pair {
        Pair::answering(spool, ways, change, mpsc::channel(1).1).await
    }

    /// As [`Pair::with`], and these are answers that somebody waits for.
    async fn answering(
        spool: Arc<Spool>,
        ways: Ways,
        change: impl FnOnce(&mut MqttPlan),
        answers: mpsc::Receiver<Message>,
    ) -> Pair {
        let trace = Trace::default();
        let broker = WireBroker::with(1, trace.clone(), ways).await;
        let mut plan = plan(broker.port);
        change(&mut plan);
        let stats = Arc::new(MqttStats::default());
        let (stop, stopped) = watch::channel(false);
        let face = Box::new(Plain::new(&plan, None));
        let task = tokio::spawn(Mqtt::with(plan, spool.clone(), stats.clone(), 1, (face, answers)).run(stopped));
        Pair { spool, stats, trace, broker, stop, task }
    }

    /// Promises one message to each of these topics, of so many bytes.
    fn append(&self, topics: &[&str], bytes: usize) {
        self.append_to(Stream::Normal, topics, bytes);
    }

    fn append_to(&self, stream: Stream, topics: &[&str], bytes: usize) {
        let mut records = Records::default();
        for topic in topics {
            records.push((stream, Kind::Json), &[topic], (1, 1), |out| {
                out.extend_from_slice(b"{\"sequence\":");
                out.extend(std::iter::repeat_n(b' ', bytes.saturating_sub(13)));
                out.push(b'}');
                12
            });
        }
        self.spool.append(&mut records);
    }

    fn delivered(&self) -> u64 {
        self.spool.stats.delivered.load(Relaxed)
    }

    fn entries(&self) -> Vec<Entry> {
        self.trace.lock().unwrap().clone()
    }

    fn connects(&self) -> usize {
        self.entries().iter().filter(|e| matches!(e.event, Event::Connect { .. })).count()
    }

    /// Everything that was published, by topic.
    fn said(&self, topic: &str) -> Vec<Said> {
        let said = |e: Entry| if let Event::Publish(said) = e.event { Some(said) } else { None };
        self.entries().into_iter().filter_map(said).filter(|s| s.topic == topic.as_bytes()).collect()
    }

    /// What was told as lost: reasons.
    fn told(&self) -> Vec<serde_json::Value> {
        self.said("lost").iter().map(|s| serde_json::from_slice(&s.payload).unwrap()).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Pair) -> bool) {
        let in_time = eventually(LIMIT, async || done(self)).await;
        assert!(
            in_time,
            "{what}: {:?}, {} wait, {:?}",
            self.stats,
            self.spool.stats.waiting.load(Relaxed),
            self.entries()
        );
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        self.task.await.unwrap();
        accounts::balanced(&self.spool);
    }
}

fn v311(plan: &mut MqttPlan) {
    (plan.version, plan.falls_back) = (Version::V311, false);
}

/// EMQX (from 5.9) answers so at its rate limit. 3.4.2.1: 0x80 and 0x83 speak of the broker, not of the message.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_does_not_take_now_is_sent_again_and_nothing_is_lost() {
    for code in [0x80, 0x83, 0x97] {
        let rules = vec![Rule(Which::Nth(20..=36), Does::PubAck(code))];
        let pair = Pair::start(Ways { rules, ..Ways::default() }, |_| {}).await;
        let topics: Vec<String> = (0..300).map(|n| format!("t/{n}")).collect();
        for some in topics.chunks(50) {
            pair.append(&some.iter().map(String::as_str).collect::<Vec<_>>(), 20);
        }
        pair.until("all is delivered", |p| p.spool.is_empty()).await;
        assert_eq!((pair.delivered(), pair.spool.stats.lost.values()), (300, 0), "{code:#x}");
        assert!(pair.stats.postponed.load(Relaxed) > 0);
        assert_eq!(pair.stats.connects.load(Relaxed), 1, "nobody hangs up over it");
        let arrived: BTreeSet<_> = topics.iter().filter(|topic| !pair.said(topic).is_empty()).collect();
        assert_eq!(arrived.len(), 300);
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_never_taken_waits_and_holds_up_no_other() {
    let rules = vec![Rule(Which::Topic("t/never"), Does::PubAck(0x83))];
    let pair = Pair::start(Ways { rules, ..Ways::default() }, |_| {}).await;
    for _ in 0..20 {
        pair.append(&["t/never", "t/a", "t/b"], 20);
    }
    pair.until("the others are delivered", |p| p.delivered() == 40).await;
    pair.until("it is asked for again", |p| p.said("t/never").len() > 20).await;
    assert_eq!(pair.spool.stats.waiting.load(Relaxed), 20);
    assert_eq!(pair.spool.stats.lost.values(), 0);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_will_never_take_is_lost_and_told_with_the_reason() {
    for code in [0x87, 0x90, 0x99] {
        let rules = vec![Rule(Which::Topic("t/never"), Does::PubAck(code))];
        let pair = Pair::start(Ways { rules, ..Ways::default() }, |_| {}).await;
        pair.append(&["t/a", "t/never", "t/b"], 20);
        pair.until("all is done and told", |p| p.spool.is_empty() && !p.told().is_empty()).await;
        assert_eq!((pair.delivered(), pair.spool.stats.lost.of(Reason::Refused(code))), (2, (1, 1)));
        let told = pair.told();
        assert_eq!((told.len(), &told[0]["reason"], &told[0]["reason_code"]), (1, &"refused".into(), &code.into()));
        assert_eq!(pair.said("t/never").len(), 1, "it is not sent again");
        pair.stop().await;
    }
}

/// A broker that forbids even the notice of a loss: that one is not told again.
#[tokio::test(flavor = "multi_thread")]
async fn where_everything_is_refused_nothing_goes_round_in_circles() {
    let rules = vec![Rule(Which::All, Does::PubAck(0x87))];
    let pair = Pair::start(Ways { rules, ..Ways::default() }, |_| {}).await;
    pair.append(&["t/a", "t/b", "t/c"], 20);
    pair.until("all is done", |p| p.spool.is_empty()).await;
    assert_eq!((pair.delivered(), pair.spool.stats.lost.values()), (0, 3));
    let published = pair.stats.published.load(Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pair.stats.published.load(Relaxed), published);
    pair.stop().await;
}

/// zigbee2mqtt#13030, paho.mqtt.python#760: a broker of 3.1.1 with a limit, and a device whose messages are larger, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_messages_a_broker_hangs_up_over_costs_few_connections_and_stops_no_other() {
    let pair = Pair::start(Ways { packet_max: Some(2048), ..Ways::default() }, v311).await;
    for n in 0..10 {
        pair.append(&["t/small", "t/big"], 20);
        pair.append(&["t/big"], 3000 + n);
    }
    pair.until("all is done", |p| p.spool.is_empty()).await;
    assert_eq!((pair.delivered(), pair.spool.stats.lost.of(Reason::TooLarge)), (20, (10, 10)));
    assert!(pair.connects() <= 6, "{} connections", pair.connects());
    // From then on its like costs no connection.
    let before = pair.connects();
    for n in 0..20 {
        pair.append(&["t/small", "t/big"], 20);
        pair.append(&["t/big"], 3005 + n);
    }
    pair.until("all is done", |p| p.spool.is_empty()).await;
    assert_eq!(pair.connects(), before);
    assert_eq!((pair.delivered(), pair.spool.stats.lost.of(Reason::TooLarge)), (60, (30, 30)));
    let told: u64 = pair.told().iter().map(|t| t["lost"].as_u64().unwrap()).sum();
    assert_eq!(told, 30, "each is told");
    pair.stop().await;
}

/// AWS IoT and mosquitto say 0x95 over 5, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_was_called_too_large_is_remembered_and_smaller_ones_are_sent() {
    let ways = Ways { packet_max: Some(2048), is_reserved: true, ..Ways::default() };
    let pair = Pair::start(ways, |_| {}).await;
    for n in 0..10 {
        pair.append(&["t/a", "t/b", "t/c"], 200);
        pair.append(&["t/a", "t/b", "t/c"], 3000 + n);
    }
    pair.until("all is done", |p| p.spool.is_empty()).await;
    assert_eq!((pair.delivered(), pair.spool.stats.lost.of(Reason::TooLarge)), (30, (30, 30)));
    assert!(pair.connects() <= 4, "{} connections", pair.connects());
    let room = pair.stats.message_max.load(Relaxed);
    assert!((200..2048).contains(&room), "messages are made to fit: {room}");
    pair.stop().await;
}

/// Said in CONNACK it costs no connection at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_the_broker_tells_costs_no_connection() {
    let pair = Pair::start(Ways { packet_max: Some(2048), ..Ways::default() }, |_| {}).await;
    for _ in 0..10 {
        pair.append(&["t/a"], 200);
        pair.append(&["t/a"], 3000);
    }
    pair.until("all is done", |p| p.spool.is_empty()).await;
    assert_eq!((pair.delivered(), pair.connects()), (10, 1));
    assert!(pair.stats.message_max.load(Relaxed) < 2048);
    pair.stop().await;
}

/// 0 is an error of the protocol (MQTT 5, 3.2.2.3.6), and with a few bytes nothing can be said: neither is a reason to throw away what waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_under_which_nothing_fits_is_no_broker_and_everything_is_kept() {
    for most in [0, 1, 40] {
        let pair = Pair::start(Ways { packet_max: Some(most), ..Ways::default() }, |_| {}).await;
        pair.append(&["t/a"; 10], 20);
        pair.until("it was tried", |p| p.stats.failures.load(Relaxed) >= 2).await;
        assert_eq!((pair.delivered(), pair.spool.stats.lost.values()), (0, 0), "{most}");
        assert_eq!(pair.spool.stats.waiting.load(Relaxed), 10, "{most}");
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_a_broker_ends_connections_over_is_given_up_and_told_and_the_others_flow() {
    let ends = [Does::HangUp, Does::Disconnect(0x90), Does::Disconnect(0x87), Does::Say(&[0xE0, 2, 0x81, 0])];
    for does in ends {
        let rules = vec![Rule(Which::Topic("t/never"), does.clone())];
        let pair = Pair::start(Ways { rules, ..Ways::default() }, |_| {}).await;
        for _ in 0..10 {
            pair.append(&["t/a", "t/never", "t/b"], 200);
            pair.append(&["t/a"], 900);
        }
        pair.until("all is done", |p| p.spool.is_empty()).await;
        assert_eq!(pair.delivered(), 30, "{does:?}");
        assert_eq!(pair.spool.stats.lost.values(), 10);
        assert!(pair.told().iter().all(|t| t["reason"] == "refused"), "{:?}", pair.told());
        assert!(pair.connects() <= 6, "{does:?}: {} connections", pair.connects());
        pair.stop().await;
    }
}

/// Connections that are cut at any time, by a network or by a second gateway of this name: no message is blamed for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cuts_again_and_again_is_no_reason_to_give_anything_up() {
    let pair = Pair::start(Ways { puback_after: Duration::from_millis(20), ..Ways::default() }, v311).await;
    for n in 1..8 {
        pair.append(&["t/a"; 40], 300);
        pair.until("it connects", |p| p.connects() >= n).await;
        tokio::time::sleep(Duration::from_millis(137 * n as u64 % 400)).await;
        pair.broker.cut();
    }
    pair.until("all is delivered", |p| p.spool.is_empty()).await;
    assert_eq!((pair.delivered(), pair.spool.stats.lost.values()), (280, 0));
    pair.stop().await;
}

/// MQTT 5, 4.9; eclipse-mosquitto/mosquitto#1822. Values, states of orders, answers and births, and all that a connection that was cut has
/// left open: together they are no more than the broker takes at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_never_more_than_the_receive_maximum_whoever_said_it() {
    const ANSWERS: usize = 40;
    for receive_max in [1, 5] {
        let (answering, answers) = mpsc::channel(ANSWERS);
        let (receive, puback_after) = (Some(receive_max), Duration::from_millis(10));
        let ways = Ways { receive_max: receive, puback_after, holds: true, ..Ways::default() };
        let pair = Pair::answering(Spool::in_memory(8 << 20), ways, |_| {}, answers).await;
        for n in 0..ANSWERS {
            pair.append(&["t/a", "t/b"], 20);
            pair.append_to(Stream::High, &["t/order/state/1"], 20);
            let (topic, payload) = ("t/answer".into(), n.to_string().into());
            answering.send(Message { topic, payload, ..Message::default() }).await.unwrap();
        }
        // As soon as there are too many the broker ends the connection, for ever.
        let is_over = |p: &Pair| p.broker.most_open() > usize::from(receive_max);
        let met = |p: &Pair| is_over(p) || p.said("t/answer").len() + p.said("t/order/state/1").len() > ANSWERS / 2;
        pair.until("all kinds are on their way", met).await;
        pair.broker.cut();
        let came = |p: &Pair| p.said("t/answer").iter().map(|s| s.payload.clone()).collect::<BTreeSet<_>>().len();
        pair.until("all have come", |p| is_over(p) || p.spool.is_empty() && came(p) == ANSWERS).await;
        assert_eq!(pair.broker.most_open(), usize::from(receive_max), "as many as it takes, and no more");
        assert_eq!((pair.connects(), pair.said("t/status").len()), (2, 2), "born over both, and it ended neither");
        let all =
            pair.entries().into_iter().filter_map(|e| if let Event::Publish(s) = e.event { Some(s) } else { None });
        assert!(all.into_iter().all(|said| said.qos == 1), "nothing gets by with a lesser promise");
        pair.stop().await;
    }
}

fn wills(pair: &Pair) -> Vec<(u8, bool)> {
    let will = |e: Entry| match e.event {
        Event::Connect { version, will, .. } => Some((version, will.unwrap().retain)),
        _ => None,
    };
    pair.entries().into_iter().filter_map(will).collect()
}

/// node-red-contrib-aws-iot#3, jackalope#14, espMqttClient#116.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_keeps_nothing_is_sent_nothing_to_be_kept() {
    for takes_wills in [false, true] {
        let pair = Pair::start(Ways { no_retain: true, takes_wills, ..Ways::default() }, |_| {}).await;
        pair.append(&["t/a"; 5], 20);
        pair.until("all is delivered", |p| p.spool.is_empty()).await;
        let (refused, then): (&[_], &[_]) = (&[(5, true), (5, false)], &[(5, true)]);
        assert_eq!(wills(&pair), if takes_wills { then } else { refused }, "asked again at once, without");
        assert!(pair.said("t/status").iter().all(|s| !s.retain));
        pair.broker.cut();
        pair.until("it connects again", |p| p.stats.connects.load(Relaxed) == 2).await;
        assert_eq!(wills(&pair).last(), Some(&(5, false)), "and remembered");
        pair.stop().await;
    }
    // 3.1.1 has no way to say so: a key of the configuration does.
    let pair = Pair::start(Ways { no_retain: true, ..Ways::default() }, |plan| {
        v311(plan);
        plan.retain = false;
    })
    .await;
    pair.append(&["t/a"; 5], 20);
    pair.until("all is delivered", |p| p.spool.is_empty()).await;
    assert_eq!(wills(&pair), [(4, false)]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_3_1_1_alone_is_spoken_to_in_3_1_1_unless_the_version_was_set() {
    for old in [Old::Says, Old::HangsUp] {
        let pair = Pair::start(Ways { old: Some(old), ..Ways::default() }, |_| {}).await;
        pair.append(&["t/a"; 5], 20);
        pair.until("all is delivered", |p| p.spool.is_empty()).await;
        assert_eq!(wills(&pair).iter().map(|w| w.0).collect::<Vec<_>>(), [5, 4]);
        assert!(!pair.stats.is_v5.load(Relaxed));
        pair.stop().await;

        let pair = Pair::start(Ways { old: Some(old), ..Ways::default() }, |plan| plan.falls_back = false).await;
        pair.until("it is tried again", |p| p.connects() > 2).await;
        assert!(wills(&pair).iter().all(|w| w.0 == 5));
        assert_eq!(pair.stats.connects.load(Relaxed), 0);
        pair.stop().await;
    }
}

/// aws-iot-device-sdk-python-v2#191: a copied image. Each of the two ends the other's connection.
#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_of_one_name_are_told_and_leave_each_other_ever_longer_alone() {
    let trace = Trace::default();
    let broker = WireBroker::with(1, trace.clone(), Ways { takes_over: true, ..Ways::default() }).await;
    let one = |seed| {
        let (spool, stats) = (Spool::in_memory(1 << 20), Arc::new(MqttStats::default()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Mqtt::new(plan(broker.port), spool.clone(), stats.clone(), seed).run(stopped));
        (stats, stop, task, spool)
    };
    let both = [one(1), one(2)];
    let know = async || both.iter().all(|(stats, ..)| stats.taken_over.load(Relaxed) >= 2);
    assert!(eventually(LIMIT, know).await, "both know why");
    let at: Vec<u64> =
        trace.lock().unwrap().iter().filter(|e| matches!(e.event, Event::Connect { .. })).map(|e| e.at_ms).collect();
    // The first two come at once; each of the following has waited for 2.5 s at least, and so has the other.
    let took = at.last().unwrap() - at[0];
    assert!(at.len() as u64 <= 4 + took / 1000, "{} connections in {took} ms", at.len());
    for (_, stop, task, spool) in both {
        let _ = stop.send(true);
        task.await.unwrap();
        accounts::balanced(&spool);
    }
}

/// A broker that takes its time, and a spool that has no room for so long.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_as_lost_never_came_however_late_the_broker_acknowledges() {
    let ways = Ways { puback_after: Duration::from_millis(1500), ..Ways::default() };
    let pair = Pair::with(Spool::in_memory(1 << 20), ways, |plan| plan.window = 400).await;
    for _ in 0..50 {
        pair.append(&["t/a"; 60], 1000);
        pair.spool.commit().unwrap();
        pair.spool.tend();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    pair.until("each is one thing", |p| p.spool.is_empty()).await;
    let sequence =
        |said: &Said| serde_json::from_slice::<serde_json::Value>(&said.payload).unwrap()["sequence"].as_u64();
    let came: BTreeSet<u64> = pair.said("t/a").iter().filter_map(sequence).collect();
    let told: BTreeSet<u64> = pair
        .told()
        .iter()
        .flat_map(|t| t["from_sequence"].as_u64().unwrap()..=t["to_sequence"].as_u64().unwrap())
        .collect();
    assert!(told.len() > 500 && came.len() > 500, "{} told, {} came", told.len(), came.len());
    let both: Vec<_> = came.intersection(&told).collect();
    assert!(both.is_empty(), "told as lost, and delivered: {both:?}");
    assert_eq!((came.len() as u64, told.len() as u64), (pair.delivered(), 3000 - pair.delivered()));
    pair.stop().await;
}

/// The folder of the spool comes while the broker is there: what was in it follows over the same connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_in_a_folder_that_is_opened_late_is_delivered_without_a_new_connection() {
    let options = || SpoolOptions::new(8 << 20, "lost");
    let disks = [(); 3].map(|()| Arc::new(Memory::default()));
    let all = || disks.clone().map(|disk| disk as Arc<dyn Disk>);
    let promise = |spool: &Spool, count| {
        let mut records = Records::default();
        for _ in 0..count {
            records.push((Stream::Normal, Kind::Json), &["t/a"], (1, 1), |out| {
                out.extend_from_slice(b"{\"sequence\":}");
                12
            });
        }
        spool.append(&mut records);
    };
    let earlier = Spool::open(all(), options()).unwrap();
    promise(&earlier, 40);
    earlier.close();
    let ways = Ways { puback_after: Duration::from_millis(300), ..Ways::default() };
    let pair = Pair::with(Spool::unopened(options(), "it is not there".into()), ways, |_| {}).await;
    promise(&pair.spool, 30);
    pair.until("some are on their way", |p| !p.said("t/a").is_empty()).await;
    pair.spool.attach(all()).unwrap();
    promise(&pair.spool, 30);
    pair.until("all is delivered", |p| p.spool.is_empty()).await;
    let sequence =
        |said: &Said| serde_json::from_slice::<serde_json::Value>(&said.payload).unwrap()["sequence"].as_u64();
    let came: Vec<u64> = pair.said("t/a").iter().filter_map(sequence).collect();
    assert_eq!((came.len(), came.iter().collect::<BTreeSet<_>>().len()), (100, 100), "each once");
    assert!((1..=40).all(|n| came.contains(&n)));
    assert_eq!((pair.connects(), pair.spool.accounts().produced), (1, 100));
    pair.stop().await;
}

/// A last will is made before the birth and said long after it: with the time of its making, who orders by time would keep "online".
#[tokio::test(flavor = "multi_thread")]
async fn a_last_will_has_no_time_of_its_own_and_names_the_connection_that_it_ends() {
    let pair = Pair::start(Ways::default(), |_| {}).await;
    pair.until("it is born", |p| !p.said("t/status").is_empty()).await;
    let json = |payload: &[u8]| serde_json::from_slice::<serde_json::Value>(payload).unwrap();
    let will = pair.entries().into_iter().find_map(|e| match e.event {
        Event::Connect { will, .. } => will,
        _ => None,
    });
    let (will, birth) = (json(&will.unwrap().payload), json(&pair.said("t/status")[0].payload));
    assert_eq!((&will["state"], &birth["state"]), (&"offline".into(), &"online".into()));
    assert!(will.get("time").is_none() && birth["time"].is_string(), "{will} {birth}");
    assert_eq!(will["connect_time"], birth["time"], "it names the connection");
    let trace = pair.trace.clone();
    pair.stop().await;
    let last = trace.lock().unwrap().iter().rev().find_map(|e| match &e.event {
        Event::Publish(said) => Some(json(&said.payload)),
        _ => None,
    });
    let last = last.unwrap();
    assert_eq!(last["state"], "offline");
    assert!(last["time"].as_str() >= birth["time"].as_str(), "a farewell has its own time");
}
