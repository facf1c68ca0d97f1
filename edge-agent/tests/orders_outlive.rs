//! Orders outlive the gateway: what was accepted is known after any end of it, and nothing that is asked for twice is done twice.

#[path = "support/fault_disk.rs"]
mod fault_disk;
mod support;

use control_core::cycle::Request;
use control_core::event::{Event, EventKind};
use control_core::units::{Millis, OrderId};
use edge_agent::board::Board;
use edge_agent::config::plan::FloorNames;
use edge_agent::desk::{Desk, OrderForm, OrderState, Submitted};
use edge_agent::store::Keep;
use fault_disk::FaultDisk;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{eventually, http};

const NO_WAIT: Duration = Duration::ZERO;

fn form(load: u32, key: &str) -> OrderForm {
    serde_json::from_value(json!({"kind": "retrieve", "load": load, "key": key})).unwrap()
}

/// A desk on this disk, the other end of its ring, and the orders that had not ended.
fn desk(disk: &FaultDisk) -> (Arc<Desk>, rtrb::Consumer<Request>, Vec<u32>) {
    let (keep, left, _) = Keep::on(Arc::new(disk.clone()), 0, Vec::new).unwrap();
    let (requests, ring) = rtrb::RingBuffer::new(8);
    let desk = Desk::with(requests, Vec::new(), keep, &left);
    let open = desk.newest(100, None).iter().filter(|o| !o.state.has_ended()).map(|o| o.id).collect();
    (desk, ring, open)
}

async fn taken(desk: &Arc<Desk>, load: u32, key: &str) -> u32 {
    match desk.submit(form(load, key), NO_WAIT).await {
        Submitted::Order(view) => view.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_order_is_on_disk_before_the_control_thread_hears_of_it_and_known_after_the_power_failed() {
    let disk = FaultDisk::default();
    let (first, ring, _) = desk(&disk);
    let (done, open) = (taken(&first, 1, "a").await, taken(&first, 2, "b").await);
    assert_eq!(ring.slots(), 2, "both were handed in");
    let (mut put, events) = rtrb::RingBuffer::new(8);
    let books = tokio::spawn(first.clone().keep_books(
        events,
        FloorNames::of(None),
        Arc::new(Board::new(FloorNames::of(None))),
    ));
    let event = |kind| Event { at: Millis::default(), kind };
    put.push(event(EventKind::OrderStarted(OrderId(open)))).unwrap();
    put.push(event(EventKind::OrderCompleted(OrderId(done)))).unwrap();
    drop(put);
    books.await.unwrap();
    // The next that is durable takes along what nobody waits for.
    let third = taken(&first, 4, "d").await;

    let disk = disk.after_power_failure(&mut fastrand::Rng::with_seed(1));
    let (second, ring, left) = desk(&disk);
    assert_eq!(left, [third, open]);
    assert_eq!(second.order(open).unwrap(), first.order(open).unwrap());
    assert_eq!(second.order(done).unwrap().state, OrderState::Completed);
    for (load, key, id) in [(1, "a", done), (2, "b", open)] {
        let again = second.submit(form(load, key), NO_WAIT).await;
        assert!(matches!(&again, Submitted::Known(view) if view.id == id), "{again:?}");
    }
    assert!(matches!(second.submit(form(3, "a"), NO_WAIT).await, Submitted::KeyTaken(_)));
    assert_eq!(ring.slots(), 0, "nothing of that was handed in");
    assert_eq!(taken(&second, 3, "c").await, third + 1, "numbers go on");
    let (_, _ring, left) = desk(&disk.after_kill());
    assert_eq!(left, [third + 1, third, open]);
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_refused_and_never_begun() {
    let disk = FaultDisk::default();
    let (desk, ring, _) = desk(&disk);
    disk.fail_writes(1000);
    let refused = desk.submit(form(1, "a"), NO_WAIT).await;
    assert!(matches!(&refused, Submitted::Refused(view) if view.reason.as_ref().is_some_and(|r| r.contains("disk"))));
    assert_eq!(ring.slots(), 0);
    disk.fail_writes(0);
    taken(&desk, 1, "a").await; // the key may be tried again
    assert_eq!(ring.slots(), 1);
}

#[tokio::test]
async fn when_the_ring_is_full_it_is_busy_and_the_order_is_none_after_a_restart() {
    let disk = FaultDisk::default();
    let (first, _ring, _) = desk(&disk);
    for n in 0..8 {
        taken(&first, n + 1, &format!("k{n}")).await;
    }
    assert!(matches!(first.submit(form(9, "k8"), NO_WAIT).await, Submitted::Busy));
    let (second, _ring, left) = desk(&disk.after_kill());
    assert_eq!(left.len(), 8);
    assert!(matches!(second.submit(form(9, "k8"), NO_WAIT).await, Submitted::Order(_)), "its key is free");
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // SIGKILL
        let _ = self.0.wait();
    }
}

/// The program on a floor of its own, in a folder of its own.
struct Gateway {
    config: std::path::PathBuf,
    at: std::net::SocketAddr,
    dir: tempfile::TempDir,
}

impl Gateway {
    fn on(files: fn(&str) -> std::path::PathBuf, sim: &plc_sim::Sim, broker: u16) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("profiles")).unwrap();
        for file in std::fs::read_dir(files("profiles")).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join("profiles").join(file.file_name())).unwrap();
        }
        if files("floor.toml").exists() {
            std::fs::copy(files("floor.toml"), dir.path().join("floor.toml")).unwrap();
        }
        let port = support::free_port();
        let text = std::fs::read_to_string(files("agent.toml"))
            .unwrap()
            .replace("[gateway]", "[gateway]\nstate_dir = \"state\"")
            .replace("127.0.0.1:9464", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:1883", &format!("127.0.0.1:{broker}"))
            .replace("127.0.0.1:5020", &sim.addresses.modbus.to_string())
            .replace("127.0.0.1:4855", &sim.addresses.opcua.to_string())
            .replace("realtime      = \"try\"", "realtime      = \"off\"");
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, text).unwrap();
        Gateway { config, at: ([127, 0, 0, 1], port).into(), dir }
    }

    /// Starts it, whether or not it gets far.
    fn begin(&self) -> Program {
        let mut program = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        program.arg("run").arg(&self.config).stderr(Stdio::null());
        Program(program.spawn().unwrap())
    }

    /// Starts it, and waits until it takes orders.
    async fn start(&self) -> Program {
        let program = self.begin();
        let ready = async || matches!(http(self.at, "GET", "/readyz", "").await, Ok((200, _)));
        assert!(eventually(Duration::from_secs(60), ready).await, "not ready in time");
        program
    }

    /// Gives an order; `None` where no answer came.
    async fn give(&self, order: &Value) -> Option<(u16, Value)> {
        let (status, body) = http(self.at, "POST", "/api/v1/orders", &order.to_string()).await.ok()?;
        Some((status, serde_json::from_str(&body).ok()?))
    }

    async fn order(&self, id: &Value) -> Option<Value> {
        let (status, body) = http(self.at, "GET", &format!("/api/v1/orders/{id}"), "").await.ok()?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }
}

/// What happened, for a person, when it did not come out right.
fn stories(orders: &[Value]) -> String {
    let bad = orders.iter().filter(|o| o["state"] != "completed");
    bad.map(|o| serde_json::to_string_pretty(o).unwrap()).collect::<Vec<_>>().join("\n")
}

/// How often the program is killed: `LIGHTSOUT_KILLS=50` for the long proof.
fn kills(usual: usize) -> usize {
    std::env::var("LIGHTSOUT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The plant's clock runs so much faster than ours.
const PACE: u16 = 3;

/// The program itself, killed again and again while loads move, at first whenever it likes and then before it is well up: every order that was
/// answered is brought to its end, and none is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_order_that_was_answered_is_completed_through_kills_at_any_instant() {
    let seed = std::env::var("LIGHTSOUT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    eprintln!("LIGHTSOUT_SEED={seed} LIGHTSOUT_KILLS={} runs it again", kills(3));
    let broker = support::start_broker().await;
    let sim = support::start_at(support::hall_plant(), seed, PACE).await;
    let gateway = Gateway::on(support::hall_file, &sim, broker);
    let (mut rng, mut loads) = (fastrand::Rng::with_seed(seed), 1001..);
    // Given, and the number it was answered with.
    let mut given: Vec<(Value, Option<Value>)> = Vec::new();
    for kill in 0..kills(3) {
        let program = gateway.start().await;
        // What was asked for before is asked for again: the same key is the same order.
        for (order, id) in &mut given {
            let Some((status, answer)) = gateway.give(order).await else { continue };
            match id {
                Some(id) => assert_eq!((status, &answer["id"]), (200, &*id), "kill {kill}: {order} is {answer}"),
                None if status == 200 || status == 201 => *id = Some(answer["id"].clone()),
                None => {}
            }
        }
        let until = std::time::Instant::now() + Duration::from_millis(rng.u64(500..6_000));
        while std::time::Instant::now() < until {
            let load = loads.next().unwrap();
            let kind = if rng.bool() { json!({"kind": "retrieve"}) } else { json!({"kind": "process"}) };
            let mut order = json!({"load": load, "key": format!("po-{load}"), "class": rng.u8(0..4)});
            order.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
            let answer = gateway.give(&order).await;
            let id = answer.filter(|(status, _)| *status == 201).map(|(_, order)| order["id"].clone());
            given.push((order, id));
            tokio::time::sleep(Duration::from_millis(rng.u64(0..2_500))).await;
        }
        drop(program);
        if kill % 3 == 2 {
            // Killed again before it has read the plant, or just when it has.
            let program = gateway.begin();
            tokio::time::sleep(Duration::from_millis(rng.u64(0..2_000))).await;
            drop(program);
        }
    }
    let _program = gateway.start().await;
    let answered: Vec<Value> = given.iter().filter_map(|(_, id)| id.clone()).collect();
    let mut last = Vec::new();
    let all_done = eventually(Duration::from_secs(600), async || {
        last.clear();
        for id in &answered {
            last.extend(gateway.order(id).await);
        }
        last.len() == answered.len() && last.iter().all(|o| o["state"] == "completed" || o["state"] == "failed")
    });
    let ended = all_done.await;
    let truth = sim.truth();
    assert!(ended && last.iter().all(|o| o["state"] == "completed"), "seed {seed}: {}\n{truth:?}", stories(&last));
    assert!(truth.is_clean(), "seed {seed}: {truth:?}");
    let mut numbers: Vec<String> = answered.iter().map(Value::to_string).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), answered.len(), "seed {seed}: no number is given twice");
    eprintln!("{} orders through {} kills; {:?}", answered.len(), kills(3), gateway.dir.path());
}
