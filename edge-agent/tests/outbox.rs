//! Nothing is delivered before its PUBACK: a broker that takes messages and cuts before it acknowledges them.

mod support {
    pub mod accounts;
    pub mod cutting_broker;
    pub mod sending;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{Outlet, Replay, Stream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::accounts::balanced;
use support::cutting_broker::{Cuts, start};
use support::sending::{WINDOW, append, plan};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const NO_CUTS: Cuts = Cuts { every: usize::MAX, lag: 0, connections: 0 };

async fn drained(spool: &Spool, limit: Duration) {
    let start = Instant::now();
    while !spool.is_empty() {
        assert!(start.elapsed() < limit, "{} still wait", spool.stats.waiting.load(Relaxed));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_arrives_in_order_although_the_broker_cuts_before_it_acknowledges() {
    const COUNT: u64 = 5_000;
    let cuts = Cuts { every: 700, lag: 20, connections: 4 };
    let (port, seen) = start(cuts).await;
    let spool = Spool::in_memory(64 << 20);
    let (stop, stopped) = watch::channel(false);
    let stats = Arc::new(MqttStats::default());
    let mut plan = plan(port);
    plan.replay = Replay::InOrder;
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
    for from in (1..=COUNT).step_by(50) {
        append(&spool, Stream::Normal, from..from + 50);
        sleep(Duration::from_millis(2)).await;
    }
    drained(&spool, Duration::from_secs(40)).await;
    let _ = stop.send(true);
    task.await.unwrap();
    balanced(&spool);

    let seen = seen.lock().unwrap();
    assert_eq!(seen.sequences.len() as u64, COUNT, "every sequence was seen");
    assert!(seen.order.windows(2).all(|w| w[0] < w[1]), "first arrivals are in order");
    let duplicates: u32 = seen.sequences.values().map(|n| n - 1).sum();
    let allowed = u32::from(WINDOW) * cuts.connections as u32;
    assert!(duplicates <= allowed, "{duplicates} duplicates, the window allows {allowed}");
    assert!(duplicates > 0, "the broker did not cut: this test proves nothing");
    assert_eq!(seen.connections, cuts.connections + 1);
    assert_eq!(seen.wills, seen.connections, "every CONNECT carries the last will");
    assert_eq!(spool.stats.delivered.load(Relaxed), COUNT);
    let states: Vec<bool> = seen.retained.iter().map(|(_, p)| p.contains("\"online\"")).collect();
    assert_eq!(states, [true, true, true, true, true, false], "a birth on every connection, a farewell at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_fit_into_the_spool_is_told_in_the_stream() {
    let spool = Spool::in_memory(64 << 10);
    for from in (1..=2000).step_by(50) {
        append(&spool, Stream::Normal, from..from + 50);
        spool.commit().unwrap();
        spool.tend();
    }
    let lost = spool.stats.lost.values();
    assert!(lost > 100 && lost < 1900, "{lost}");
    let (port, seen) = start(NO_CUTS).await;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), Arc::default(), 1).run(stopped));
    drained(&spool, Duration::from_secs(20)).await;
    let _ = stop.send(true);
    task.await.unwrap();
    balanced(&spool);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.order, (lost + 1..=2000).collect::<Vec<_>>(), "the oldest are lost, and nothing else");
    let told: u64 = seen.losses.iter().map(|l| l["lost"].as_u64().unwrap()).sum();
    assert_eq!(told, lost, "every loss is told: {:?}", seen.losses);
    assert!(seen.losses.iter().all(|l| l["reason"] == "full" && l["lost_stream"] == "normal" && l["stream"] == "high"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_goes_out_at_once_while_a_backlog_follows_at_its_rate() {
    let spool = Spool::in_memory(64 << 20);
    append(&spool, Stream::Normal, 1..3001);
    spool.commit().unwrap();
    let (port, seen) = start(NO_CUTS).await;
    let (stop, stopped) = watch::channel(false);
    let mut plan = plan(port);
    plan.replay_rate = Some(2000.0);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), Arc::default(), 1).run(stopped));
    let connected = async || seen.lock().unwrap().retained.len() == 1;
    while !connected().await {
        sleep(Duration::from_millis(5)).await;
    }
    for n in 0..50 {
        append(&spool, Stream::Normal, 3001 + n..3002 + n);
        sleep(Duration::from_millis(5)).await;
    }
    drained(&spool, Duration::from_secs(20)).await;
    let _ = stop.send(true);
    task.await.unwrap();
    balanced(&spool);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.sequences.len(), 3050);
    let (old, new): (Vec<u64>, Vec<u64>) = seen.order.iter().partition(|n| **n <= 3000);
    assert!(old.windows(2).all(|w| w[0] < w[1]) && new.windows(2).all(|w| w[0] < w[1]), "each in its order");
    let overtaken = seen.order.iter().position(|n| *n > 3000).unwrap();
    assert!(overtaken < 2900, "what is new does not wait for the backlog: {overtaken} were before it");
    assert!(seen.sequences.values().all(|n| *n == 1), "nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_go_before_what_waited_and_before_process_values() {
    let spool = Spool::in_memory(64 << 20);
    append(&spool, Stream::Low, 1..501);
    append(&spool, Stream::Normal, 1..501);
    append(&spool, Stream::High, 1..4);
    let mut outlet = Outlet::new(spool, Replay::LiveFirst, None);
    let mut order = Vec::new();
    use edge_agent::telemetry::spool::Next;
    while let Next::Record(ticket, ()) = outlet.next_blocking(std::time::Instant::now(), |_, _| Some(())) {
        order.push(ticket.stream);
    }
    let want = [vec![Stream::High; 3], vec![Stream::Normal; 500], vec![Stream::Low; 500]].concat();
    assert_eq!(order, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_again_and_again_and_acknowledges_nothing_cannot_keep_us_from_stopping() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
            // CONNACK to everything, and to nothing.
            tokio::spawn(async move {
                while to.write_all(&[0x20, 3, 0, 0, 0]).await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            });
        }
    });
    let spool = Spool::in_memory(1 << 20);
    append(&spool, Stream::Normal, 1..501);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), Arc::default(), 1).run(stopped));
    sleep(Duration::from_secs(1)).await;
    let _ = stop.send(true);
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
    balanced(&spool);
    assert_eq!(spool.stats.delivered.load(Relaxed), 0, "nothing was taken for delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_what_was_not_sent_is_left_and_nothing_is_taken_for_delivered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&[0x20, 3, 0, 0, 0, 0x40, 2, 0x70, 0x01]).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let spool = Spool::in_memory(1 << 20);
    append(&spool, Stream::Normal, 1..501);
    let stats = Arc::new(MqttStats::default());
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), stats.clone(), 1).run(stopped));
    sleep(Duration::from_secs(1)).await;
    assert!(stats.failures.load(Relaxed) > 0);
    let _ = stop.send(true);
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
    balanced(&spool);
    assert_eq!(spool.stats.delivered.load(Relaxed), 0);
}
