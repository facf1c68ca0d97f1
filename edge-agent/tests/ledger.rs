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
use edge_agent::ledger::{Ledger, RESTARTED};
use edge_agent::telemetry::spool::Journal;
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

/// A desk on this disk, the other end of its ring, and the orders that were under way.
fn desk(disk: &FaultDisk) -> (Arc<Desk>, rtrb::Consumer<Request>, Vec<u32>) {
    let (journal, entries) = Journal::open(Arc::new(disk.clone()), 0).unwrap();
    let (ledger, known) = Ledger::with(journal, &entries).unwrap();
    let (requests, ring) = rtrb::RingBuffer::new(8);
    let interrupted = known.interrupted.iter().map(|o| o.id).collect();
    (Desk::with(requests, Vec::new(), Some(ledger), known), ring, interrupted)
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
    let written = async || disk.files().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("completed"));
    assert!(eventually(Duration::from_secs(20), written).await);
    drop(put);
    books.await.unwrap();

    let disk = disk.after_power_failure(&mut fastrand::Rng::with_seed(1));
    let (second, ring, interrupted) = desk(&disk);
    assert_eq!(interrupted, [open]);
    let order = second.order(open).unwrap();
    assert_eq!((order.state, order.reason.as_deref()), (OrderState::Failed, Some(RESTARTED)));
    assert_eq!(second.order(done).unwrap().state, OrderState::Completed);
    for (load, key, id) in [(1, "a", done), (2, "b", open)] {
        let again = second.submit(form(load, key), NO_WAIT).await;
        assert!(matches!(&again, Submitted::Known(view) if view.id == id), "{again:?}");
    }
    assert!(matches!(second.submit(form(3, "a"), NO_WAIT).await, Submitted::KeyTaken(_)));
    assert_eq!(ring.slots(), 0, "nothing of that was handed in");
    assert_eq!(taken(&second, 3, "c").await, open + 1, "numbers go on");
    // The third run knows what the second has made of it.
    let (third, _ring, interrupted) = desk(&disk.after_kill());
    assert_eq!(interrupted, [open + 1]);
    assert_eq!(third.order(open).unwrap().reason.as_deref(), Some(RESTARTED));
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
    let (second, _ring, interrupted) = desk(&disk.after_kill());
    assert_eq!(interrupted.len(), 8);
    assert!(matches!(second.submit(form(9, "k8"), NO_WAIT).await, Submitted::Order(_)), "its key is free");
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // SIGKILL
        let _ = self.0.wait();
    }
}

/// The program itself, killed while orders are under way.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_every_order_that_was_answered_is_known_and_none_is_done_twice() {
    let broker = support::start_broker().await;
    let sim = support::start_plant(5).await;
    let dir = tempfile::tempdir().unwrap();
    let (config, port) = support::demo_folder(dir.path(), sim.addresses, broker);
    let at = ([127, 0, 0, 1], port).into();
    let start = async || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        program.arg("run").arg(&config).stderr(Stdio::null());
        let program = Program(program.spawn().unwrap());
        let ready = async || matches!(http(at, "GET", "/readyz", "").await, Ok((200, _)));
        assert!(eventually(Duration::from_secs(60), ready).await, "not ready in time");
        program
    };
    let give = async |load: u32| -> (u16, Value) {
        let order = json!({"kind": "retrieve", "load": load, "key": format!("po-{load}")}).to_string();
        let (status, body) = http(at, "POST", "/api/v1/orders", &order).await.unwrap();
        (status, serde_json::from_str(&body).unwrap())
    };
    let loads = 1001..1009;

    let program = start().await;
    let mut ids = Vec::new();
    for load in loads.clone() {
        let (status, order) = give(load).await;
        assert_eq!(status, 201, "{order}");
        ids.push(order["id"].clone());
    }
    drop(program);

    let _program = start().await;
    for (load, id) in loads.zip(&ids) {
        let (status, order) = give(load).await;
        assert_eq!((status, &order["id"]), (200, id), "the same key is the same order: {order}");
        let state = order["state"].as_str().unwrap();
        assert!(state == "completed" || order["reason"] == RESTARTED, "{order}");
    }
    assert!(sim.truth().is_clean(), "{:?}", sim.truth());
}
