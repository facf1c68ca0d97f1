//! Nothing is delivered before its PUBACK: a broker that takes messages and cuts before it acknowledges them.

mod support {
    pub mod cutting_broker;
}

use control_core::image::Quality;
use device_drivers::value::{Cause, Value};
use edge_agent::config::DevicePlan;
use edge_agent::config::plan::MqttPlan;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::sample::{Body, SAMPLE_BYTES, Topic};
use edge_agent::telemetry::{Sample, Spool};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::cutting_broker::{Cuts, start};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const WINDOW: u16 = 32;

fn plan(port: u16) -> MqttPlan {
    MqttPlan {
        host: "127.0.0.1".into(),
        port,
        client_id: "outbox".into(),
        status_topic: "t/status".into(),
        loss_topic: "t/lost".into(),
        keep_alive: Duration::from_secs(5),
        heartbeat: Duration::from_secs(30),
        window: WINDOW,
        payload: edge_agent::config::Payload::Tag,
        spool_bytes: 64 << 20,
        login: None,
    }
}

fn samples(count: u64) -> Vec<Sample> {
    let device = DevicePlan { name: "t".into(), unit: 1, topic: ("t/".into(), "".into()) };
    let devices: Arc<[DevicePlan]> = vec![device].into();
    let sample = |n| {
        let topic = Topic { devices: devices.clone(), device: 0, tag: Some("v".into()) };
        let (value, quality, cause) = (Some(Value::Uint(n)), Quality::Good, Cause::None);
        Sample { topic, body: Body::One { value, quality, cause, source_ms: n } }
    };
    (1..=count).map(sample).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_arrives_in_order_although_the_broker_cuts_before_it_acknowledges() {
    const COUNT: u64 = 5_000;
    let cuts = Cuts { every: 700, lag: 20, connections: 4 };
    let (port, seen) = start(cuts).await;
    let spool = Arc::new(Spool::new(64 << 20));
    let (stop, stopped) = watch::channel(false);
    let stats = Arc::new(MqttStats::default());
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), stats.clone(), 1).run(stopped));
    for chunk in samples(COUNT).chunks(50) {
        spool.append(&mut chunk.to_vec());
        sleep(Duration::from_millis(2)).await;
    }
    let start = Instant::now();
    while !spool.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(40), "{} still wait", spool.stats.waiting.load(Relaxed));
        sleep(Duration::from_millis(20)).await;
    }
    let _ = stop.send(true);
    task.await.unwrap();

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
    let spool = Arc::new(Spool::new(100 * SAMPLE_BYTES));
    spool.append(&mut samples(250));
    let (port, seen) = start(Cuts { every: usize::MAX, lag: 0, connections: 0 }).await;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), Arc::default(), 1).run(stopped));
    let start = Instant::now();
    while !spool.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(20)).await;
    }
    let _ = stop.send(true);
    task.await.unwrap();
    assert_eq!(seen.lock().unwrap().order, (151..=250).collect::<Vec<_>>());
    assert_eq!(spool.stats.lost.load(Relaxed), 150);
    assert_eq!(spool.take_loss(), None, "the loss has been told");
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
            // CONNACK and PINGRESP to everything, and to nothing.
            tokio::spawn(async move {
                while to.write_all(&[0x20, 3, 0, 0, 0, 0xD0, 0]).await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            });
        }
    });
    let spool = Arc::new(Spool::new(1000));
    spool.append(&mut samples(500));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan(port), spool.clone(), Arc::default(), 1).run(stopped));
    sleep(Duration::from_secs(1)).await;
    let _ = stop.send(true);
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
    assert_eq!(spool.stats.delivered.load(Relaxed), 0, "nothing was taken for delivered");
}
