//! The whole floor over real sockets: orders done, nothing lost; plant or broker gone for seconds, and back.

#[path = "support/accounts.rs"]
mod accounts;
mod support;

use edge_agent::Agent;
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{eventually, http};

async fn submit(at: SocketAddr, kind: &str, load: u32) -> (u16, String) {
    http(at, "POST", "/api/v1/orders", &format!("{{\"kind\":\"{kind}\",\"load\":{load}}}")).await.expect("HTTP works")
}

fn completed(agent: &Agent) -> u64 {
    agent.stages.control.counters[2].load(Relaxed)
}

async fn metric(at: SocketAddr, name: &str) -> f64 {
    let (_, page) = http(at, "GET", "/metrics", "").await.expect("HTTP works");
    let lines = page.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<f64> = lines.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    assert!(!values.is_empty(), "no metric {name}");
    values.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_come_out_of_the_rack_go_through_the_cell_and_back_and_every_sample_arrives() {
    let broker = support::start_broker().await;
    let received = support::subscribe(broker).await;
    let sim = support::start_plant(7).await;
    let agent = Agent::start(support::demo_plan(sim.addresses, broker)).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await, "ready in time");
    for (kind, load) in [("process", 1001), ("retrieve", 1002), ("process", 1003)] {
        let (status, body) = submit(agent.http, kind, load).await;
        assert_eq!(status, 201, "{body}");
    }
    sim.plant.lock().deliver(control_core::units::LoadId::new(5001).unwrap());
    assert_eq!(submit(agent.http, "store", 5001).await.0, 201);
    let (status, body) = submit(agent.http, "retrieve", 1001).await;
    assert_eq!((status, body.contains("another order has this load")), (409, true), "{body}");
    assert!(eventually(Duration::from_secs(120), async || completed(&agent) == 4).await, "{} of 4", completed(&agent));

    // The desk hears of the last order a moment after the control thread has counted it.
    let at = agent.http;
    let all_told = async || {
        let (_, orders) = http(at, "GET", "/api/v1/orders?state=completed", "").await.unwrap();
        let orders: serde_json::Value = serde_json::from_str(&orders).unwrap();
        orders.as_array().map(Vec::len) == Some(4)
    };
    assert!(eventually(Duration::from_secs(10), all_told).await, "the desk says so too");
    let stages = agent.stages.clone();
    accounts::stopped(agent).await;

    let produced = stages.spool.stats.produced.load(Relaxed);
    let all =
        eventually(Duration::from_secs(10), async || received.lock().unwrap().sequences.len() as u64 == produced).await;
    let status = "lightsout/hall-1/line-1/gateway-1/status";
    let farewell = async || received.lock().unwrap().last[status]["reason"] == "stopped";
    assert!(eventually(Duration::from_secs(5), farewell).await, "the retained status says that it was stopped");
    let received = received.lock().unwrap();
    assert!(all, "{} of {produced} samples", received.sequences.len());
    let state = &received.last["lightsout/hall-1/line-1/robot-cell/cell-plc/parts-done"];
    assert_eq!((state["value"].as_u64(), state["quality"].as_str()), (Some(2), Some("good")));
    let truth = sim.truth();
    assert!(truth.is_clean() && truth.loads_left == 1, "{truth:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plant_that_is_gone_for_five_seconds_is_bad_then_good_again_and_orders_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let keep =
        Keep { state: Some(dir.path().join("state.json")), pki_dir: Some(dir.path().join("pki")), ..Keep::default() };
    let sim = Sim::start(support::demo_plant(), 3, 1, keep.clone()).await.unwrap();
    let addresses = sim.addresses;
    let agent = Agent::start(support::demo_plan(addresses, support::free_port())).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await);
    assert_eq!(submit(agent.http, "process", 1010).await.0, 201);
    tokio::time::sleep(Duration::from_secs(3)).await;

    drop(sim); // in the middle of a motion
    let at = agent.http;
    assert!(
        eventually(Duration::from_secs(8), async || metric(at, "lightsout_tags_good{line=\"cell\"}").await == 0.0)
            .await
    );
    let all_bad = async || metric(at, "lightsout_tags_bad{line=\"rack\"}").await == 216.0;
    assert!(eventually(Duration::from_secs(8), all_bad).await);
    assert_eq!(metric(at, "lightsout_line_up{line=\"rack\"}").await, 0.0);
    let (status, why) = http(at, "GET", "/readyz", "").await.unwrap();
    assert_eq!((status, why.contains("line rack is down")), (503, true), "{why}");
    assert_eq!(http(at, "GET", "/healthz", "").await.unwrap().0, 200, "it keeps running");
    tokio::time::sleep(Duration::from_secs(3)).await;

    let mut config: PlantConfig = support::demo_plant();
    (config.listen.modbus, config.listen.opcua) = (addresses.modbus, addresses.opcua);
    let sim = Sim::start(config, 3, 2, keep).await.unwrap();
    assert!(eventually(Duration::from_secs(15), async || http(at, "GET", "/readyz", "").await.unwrap().0 == 200).await);
    assert!(eventually(Duration::from_secs(60), async || completed(&agent) >= 1).await, "the order goes on");
    assert_eq!(metric(at, "lightsout_tags_bad{line=\"rack\"}").await, 0.0);
    accounts::stopped(agent).await;
    assert!(sim.truth().is_clean(), "{:?}", sim.truth());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_late_gets_every_sample_from_the_first_on() {
    let sim = support::start_plant(5).await;
    let port = support::free_port();
    let agent = Agent::start(support::demo_plan(sim.addresses, port)).await.unwrap();
    let spool = agent.stages.spool.clone();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await, "the floor does not need a broker");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(spool.stats.waiting.load(Relaxed) > 200);
    assert_eq!(metric(agent.http, "lightsout_mqtt_connected").await, 0.0);
    assert_eq!(metric(agent.http, "lightsout_samples_lost_total").await, 0.0);
    accounts::stopped(agent).await;
    assert_eq!(spool.stats.delivered.load(Relaxed), 0, "nothing was taken for delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_leaves_a_plant_without_authority_and_nothing_on_a_deck() {
    let sim = support::start_plant(9).await;
    let agent = Agent::start(support::demo_plan(sim.addresses, support::free_port())).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await);
    for load in [1001, 1002, 1003, 1004, 1005] {
        submit(agent.http, "retrieve", load).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    accounts::stopped(agent).await;
    let plant = sim.plant.lock();
    for id in plant.plan().view().machine_ids() {
        let block = plant.command_block(id).unwrap();
        let flags = block[device_drivers::block::command::FLAGS];
        assert_eq!(
            flags & device_drivers::block::command::FLAG_AUTHORITY,
            0,
            "{id:?} heard that authority is withdrawn"
        );
        assert_eq!(plant.loads().at(plant.machine(id).unwrap().deck()), None, "{id:?}");
    }
    assert!(plant.truth().is_clean());
}
