//! Keys and tenants of orders: a key stands for all that was asked for, and nobody who is refused takes a place from others.

#[path = "support/fault_disk.rs"]
mod fault_disk;

use control_core::cycle::Request;
use edge_agent::desk::{Desk, OrderForm, OrderState, Submitted};
use edge_agent::store::Keep;
use fault_disk::FaultDisk;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NO_WAIT: Duration = Duration::ZERO;

fn form(value: Value) -> OrderForm {
    serde_json::from_value(value).unwrap()
}

/// What an order asks for, with something added or changed.
fn with(base: &Value, change: Value) -> OrderForm {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    form(all)
}

fn desk_on(disk: &FaultDisk, slots: usize) -> (Arc<Desk>, rtrb::Consumer<Request>) {
    let (keep, left, _) = Keep::on(Arc::new(disk.clone()), 0, Vec::new).unwrap();
    let (requests, ring) = rtrb::RingBuffer::new(slots);
    (Desk::with(requests, vec!["weld".into(), "test".into()], keep, &left), ring)
}

/// IETF draft-ietf-httpapi-idempotency-key-header, 2.7: the same key with another payload is a conflict.
#[tokio::test]
async fn a_key_with_another_program_class_due_or_tenant_is_told_what_it_stands_for() {
    let disk = FaultDisk::default();
    let (first, _ring) = desk_on(&disk, 8);
    let asked = json!({"kind": "process", "load": 7, "program": 3, "due": "10m", "tenant": "acme", "key": "po-7"});
    let made = first.submit(form(asked.clone()), NO_WAIT).await;
    assert!(matches!(&made, Submitted::Order(order) if order.id == 1), "{made:?}");
    let (second, _ring2) = desk_on(&disk.after_kill(), 8);
    for (run, desk) in [("the same run", first), ("after a restart", second)] {
        let again = desk.submit(form(asked.clone()), NO_WAIT).await;
        assert!(matches!(&again, Submitted::Known(order) if order.id == 1), "{run}: {again:?}");
        let spelled_out = desk.submit(with(&asked, json!({"class": 1, "wait_s": 0})), NO_WAIT).await;
        assert!(matches!(&spelled_out, Submitted::Known(_)), "{run}: what counts when nothing is said is the same");
        let others = [
            json!({"program": 4}),
            json!({"station": "test"}),
            json!({"class": 0}),
            json!({"due": "11m"}),
            json!({"tenant": "other"}),
            json!({"load": 8}),
            json!({"kind": "retrieve", "program": null}),
            json!({"group": "truck-1", "number": 2}),
            json!({"wait_s": 5}),
        ];
        for other in others {
            let taken = desk.submit(with(&asked, other.clone()), NO_WAIT).await;
            let Submitted::KeyTaken(clash) = taken else { panic!("{run}, {other}: {taken:?}") };
            let told: Value = serde_json::from_str(&clash.before).unwrap();
            assert_eq!((&told["program"], &told["tenant"]), (&json!(3), &json!("acme")), "{run}: what it was before");
            let now: Value = serde_json::from_str(&clash.now).unwrap();
            for (key, value) in other.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
                assert_eq!(&now[key], value, "{run}: and what it is now");
            }
            let text = clash.to_string();
            assert!(text.contains(&clash.before) && text.contains(&clash.now) && text.contains("order 1"), "{text}");
        }
    }
}

#[tokio::test]
async fn orders_that_are_refused_leave_no_tenant_no_group_and_no_key_behind() {
    let (requests, mut ring) = rtrb::RingBuffer::new(1);
    let desk = Desk::new(requests, Vec::new());
    let order = |n: u32, tenant: String| {
        form(
            json!({"kind": "retrieve", "load": n + 1, "tenant": tenant, "group": format!("g{n}"), "key": format!("k{n}")}),
        )
    };
    let real = desk.submit(order(0, "real".into()), NO_WAIT).await;
    assert!(matches!(real, Submitted::Order(_)), "{real:?}");
    for n in 1..2000 {
        let refused = desk.submit(order(n, format!("invented-{n}")), NO_WAIT).await;
        assert!(matches!(refused, Submitted::Busy), "the ring is full: {refused:?}");
    }
    ring.pop().unwrap();
    let other = desk.submit(order(5000, "another".into()), NO_WAIT).await;
    let Submitted::Order(other) = other else { panic!("{other:?}") };
    let remembered = desk.newest(usize::MAX, Some(OrderState::Rejected)).len();
    assert!(remembered <= 1000, "{remembered} refused orders push out those that were done");
    assert!(desk.order(1).is_some() && desk.order(other.id).is_some());
    ring.pop().unwrap();
    for n in [3, 1999] {
        let again = desk.submit(order(n, "real".into()), NO_WAIT).await;
        assert!(matches!(again, Submitted::Order(_)), "the key of refused order {n} may be used again: {again:?}");
        ring.pop().unwrap();
    }
}

#[tokio::test]
async fn at_most_255_tenants_have_orders_at_once_and_the_next_may_come_when_one_has_none() {
    let (requests, _ring) = rtrb::RingBuffer::new(1000);
    let desk = Desk::new(requests, Vec::new());
    let order = |n: u32| form(json!({"kind": "retrieve", "load": n + 1, "tenant": format!("t{n}")}));
    for n in 0..255 {
        assert!(matches!(desk.submit(order(n), NO_WAIT).await, Submitted::Order(_)), "{n}");
    }
    let refused = desk.submit(order(255), NO_WAIT).await;
    assert!(matches!(&refused, Submitted::Invalid(why) if why.contains("255")), "{refused:?}");
    assert!(matches!(desk.submit(order(0), NO_WAIT).await, Submitted::Order(_)), "who has orders may give more");
}
