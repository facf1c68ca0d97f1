//! Messages of a device are cut to what the broker takes, also while nobody knows how much that is.

#[path = "support/accounts.rs"]
mod accounts;
mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use plc_sim::bank::{Bank, BankConfig};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::eventually;
use wire_broker::{Event, Said, Trace, Ways, WireBroker};

/// Waits this long before its CONNACK: meanwhile messages are made, and nobody knows what it takes.
const SILENT: Duration = Duration::from_secs(3);
const TAGS: usize = 20;

async fn agent(dir: &Path, bank: &Bank, broker: u16, more: &str) -> Agent {
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:1\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{broker}\"\npayload = \"device\"\nheartbeat = \"1s\"\n{more}\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\ntimeout = \"300ms\"\n\
         [[line.device]]\nname = \"meter\"\ncell = \"c\"\nunit = 1\nprofile = \"meter.toml\"\n",
        bank.addr
    );
    let tag = |n| format!("[[tag]]\nname = \"v{n}\"\naddress = \"input:{}\"\ntype = \"f32\"\n", n * 2);
    std::fs::write(dir.join("meter.toml"), (0..TAGS).map(tag).collect::<String>()).unwrap();
    std::fs::write(dir.join("agent.toml"), text).unwrap();
    let mut plan = edge_agent::config::load(&dir.join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    Agent::start(plan).await.unwrap()
}

/// A broker that says after a while that it takes so many bytes, and a gateway that runs for it until values have come; what came of the
/// device, and how large messages were made before anything was known of the broker.
async fn run(dir: &Path, packet_max: Option<u32>, more: &str) -> (Vec<Said>, u64) {
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let trace = Trace::default();
    let broker =
        WireBroker::with(1, trace.clone(), Ways { packet_max, connack_after: SILENT, ..Ways::default() }).await;
    let agent = agent(dir, &bank, broker.port, more).await;
    let (spool, mqtt) = (agent.stages.spool.clone(), agent.stages.mqtt.clone());
    let first_max = mqtt.message_max.load(Relaxed);
    let made = async || spool.stats.produced.load(Relaxed) >= 2 * TAGS as u64;
    assert!(eventually(Duration::from_secs(20), made).await);
    assert!(!mqtt.connected.load(Relaxed), "made before anything is known of the broker");
    let waited = spool.stats.produced.load(Relaxed);
    let delivered = async || spool.stats.delivered.load(Relaxed) > waited + TAGS as u64;
    assert!(eventually(Duration::from_secs(20), delivered).await, "{:?}", spool.stats.lost.by_reason());
    let accounts = accounts::stopped(agent).await;
    assert_eq!(accounts.lost, 0, "{:?}", spool.stats.lost.by_reason());
    let said = trace
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::Publish(s) = &e.event { Some(s.clone()) } else { None })
        .collect();
    (said, first_max)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_too_large_that_was_made_before_the_broker_said_what_it_takes() {
    for (packet_max, more) in [(Some(300), ""), (Some(300), "encoding = \"cbor\""), (Some(2500), ""), (None, "")] {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), packet_max, more).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_takes_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[spool]\ndirectory = \"state/spool\"";
    let bank = Bank::start(BankConfig { units: 1, registers: 200, ..BankConfig::default() }).await.unwrap();
    let ways = Ways { packet_max: Some(700), connack_after: SILENT, ..Ways::default() };
    let broker = WireBroker::with(1, Trace::default(), ways).await;
    let mut made = Vec::new();
    for _ in 0..2 {
        let agent = agent(dir.path(), &bank, broker.port, more).await;
        let mqtt = agent.stages.mqtt.clone();
        made.push(mqtt.message_max.load(Relaxed));
        assert!(eventually(Duration::from_secs(20), async || mqtt.connected.load(Relaxed)).await);
        let kept = async || dir.path().join("state/spool/message-max").exists();
        assert!(eventually(Duration::from_secs(20), kept).await);
        assert_eq!(accounts::stopped(agent).await.lost, 0);
    }
    assert_eq!(made, [1, 604], "first one value a message, then what is known to fit");
    // What is damaged, or of another broker, is as good as nothing.
    for text in ["", "127.0.0.1:1 604\n", &format!("127.0.0.1:{} many\n", broker.port)] {
        std::fs::write(dir.path().join("state/spool/message-max"), text).unwrap();
        let agent = agent(dir.path(), &bank, broker.port, more).await;
        let first = agent.stages.mqtt.message_max.load(Relaxed);
        assert_eq!(first, 1, "{text:?}");
        agent.stop().await;
    }
}
