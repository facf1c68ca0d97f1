//! What is watched on a server: in which subscription, with which deadband, and what happens to an item that has died.

mod support;

use device_drivers::opcua::{Deadband, Mode, NodeType, OpcUa, Scalar, UaPoint, Vendor};
use device_drivers::value::Quality;
use device_drivers::{Cause, Notice, PointId, Value};
use opcua::types::{DataValue, DateTime, StatusCode, UAString};
use plc_sim::bank::Kind;
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use support::ua_server::UaServer;
use support::{Line, Record, bank_points, ms, spec, test_points};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_one_subscription_goes_into_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let pki_dir = Some(dir.path().join("server"));
    let faults = Kind::TooManyItems { count: 25 }.into();
    let config = OpcuaBankConfig { variables: 60, period: ms(200), pki_dir, faults, ..OpcuaBankConfig::default() };
    let bank = opcua_bank::serve(config).await.unwrap();
    let line = Line::run(OpcUa::new(spec(bank.url(), dir.path(), bank_points(60))), false);
    line.told.until("all good", |r| (0..60).all(|n| r.good(n).is_some()).then_some(())).await;
    let seen = line.told.look().readings.len();
    line.told.until("all again", |r| (r.readings.len() > seen + 120).then_some(())).await;
    let told = line.told.look();
    assert_eq!(told.ups(), 1, "{:?}", told.links);
    assert!(told.reports.iter().all(|r| r.requests == 0), "nothing is read in turn");
    assert!(told.readings.iter().all(|(_, r)| r.quality == Quality::Good));
    assert_eq!(told.notices, [Notice::Room { subscriptions: 3, points: Vec::new() }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_no_subscription_is_read_in_turn_and_a_person_is_told() {
    let server = UaServer::start(|mut b| {
        let limits = &mut b.limits_mut().subscriptions;
        (limits.max_monitored_items_per_sub, limits.max_subscriptions_per_session) = (2, 2);
        b
    })
    .await;
    let names = ["A", "B", "C", "D", "E"];
    names.iter().for_each(|name| server.add(name, 1i32, None));
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&names))), false);
    line.told.until("all good", |r| (0..5).all(|n| r.good(n).is_some()).then_some(())).await;
    names.iter().for_each(|name| server.set(name, DataValue::new_now(2i32)));
    let two = |r: &Record| (0..5).all(|n| r.good(n) == Some(Value::Int(2))).then_some(());
    line.told.until("all of the second value", two).await;
    let told = line.told.look();
    assert_eq!(told.notices, [Notice::Room { subscriptions: 2, points: vec![PointId(4)] }]);
    assert!(told.reports.iter().any(|r| r.requests > 0), "one is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_has_died_is_found_by_reading_and_made_again() {
    let server = UaServer::start(|b| b).await;
    for name in ["Foo", "Near", "Gone"] {
        server.add(name, 1i32, None);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut points = test_points(&["Foo", "Near", "Gone"]);
    points[1].mode = Mode::Subscribe { sampling: ms(50), queue: 0, deadband: Some(Deadband::Absolute(5.0)) };
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    line.told.until("values", |r| (0..3).all(|n| r.good(n).is_some()).then_some(())).await;
    // Another node under the same name, of which the item knows nothing.
    server.set_silently("Foo", 10i32);
    server.set_silently("Near", 4i32);
    line.told.until("the value of the new node", |r| r.good(0).filter(|v| *v == Value::Int(10))).await;
    line.told.until("a word of it", |r| (!r.notices.is_empty()).then_some(())).await;
    server.set("Foo", DataValue::new_now(11i32));
    line.told.until("what it says after that", |r| r.good(0).filter(|v| *v == Value::Int(11))).await;
    server.delete("Gone");
    let gone = Cause::Status(StatusCode::BadNodeIdUnknown.bits());
    line.told.until("that a node has gone", |r| r.last(2).filter(|r| r.cause == gone).map(|_| ())).await;
    server.add("Gone", 7i32, None);
    line.told.until("that it is back", |r| r.good(2).filter(|v| *v == Value::Int(7))).await;
    let told = line.told.look();
    assert_eq!(told.notices, [Notice::MadeAgain { points: vec![PointId(0)] }], "and not what is within its deadband");
    assert_eq!((told.of(1).count(), told.ups()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_passes_for_the_sink_also_where_there_is_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec("opc.tcp://127.0.0.1:1/".into(), dir.path(), Vec::new())), false);
    line.told.until("twenty sweeps", |r| (r.sweeps >= 20).then_some(())).await;
    assert_eq!(line.told.look().ups(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_within_the_deadband_are_not_told() {
    let server = UaServer::start(|b| b).await;
    for name in ["D", "P", "R", "C"] {
        server.add(name, 10.0f64, None);
    }
    let range = opcua::types::Range { low: 0.0, high: 4.0 };
    server.add_property("R", "EURange", opcua::types::ExtensionObject::from_message(range));
    let dir = tempfile::tempdir().unwrap();
    let mut points = test_points(&["D", "P", "R", "C"]);
    let with = |deadband| Mode::Subscribe { sampling: ms(20), queue: 10, deadband: Some(deadband) };
    points[0].mode = with(Deadband::Absolute(1.0));
    // This server has no range for it, refuses the filter, and is asked without: every change comes.
    points[1].mode = with(Deadband::Percent(50.0));
    points[2].mode = with(Deadband::Percent(25.0));
    // Of this one the configuration knows the range.
    (points[3].mode, points[3].range) = (with(Deadband::Percent(25.0)), Some(4.0));
    // Who filters a part of a range must not matter.
    let mut unfiltered = spec(server.url(), dir.path(), vec![UaPoint { id: PointId(0), ..points[2].clone() }]);
    unfiltered.vendor = Vendor::S71200;
    let unfiltered = Line::run(OpcUa::new(unfiltered), false);
    unfiltered.told.until("a first value", |r| r.good(0)).await;
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    line.told.until("first values", |r| (0..4).all(|n| r.good(n).is_some()).then_some(())).await;
    for value in [10.5, 10.9, 12.0, 12.1, 8.0] {
        server.set("D", DataValue::new_now(value));
        server.set("P", DataValue::new_now(value));
        server.set("R", DataValue::new_now(value));
        server.set("C", DataValue::new_now(value));
        sleep(ms(150)).await;
    }
    line.told.until("the last", |r| r.good(0).filter(|v| *v == Value::Float(8.0))).await;
    line.told.until("the last", |r| r.good(1).filter(|v| *v == Value::Float(8.0))).await;
    line.told.until("the last", |r| r.good(3).filter(|v| *v == Value::Float(8.0))).await;
    line.told.until("the last", |r| r.good(2).filter(|v| *v == Value::Float(8.0))).await;
    unfiltered.told.until("the last", |r| r.good(0).filter(|v| *v == Value::Float(8.0))).await;
    let values = |told: &Record, n| told.of(n).filter_map(|r| r.value.clone()).collect::<Vec<_>>();
    let told = line.told.look();
    for n in [0, 2, 3] {
        assert_eq!(values(&told, n), [10.0, 12.0, 8.0].map(Value::Float));
    }
    assert_eq!(values(&unfiltered.told.look(), 0), [10.0, 12.0, 8.0].map(Value::Float));
    assert_eq!(told.of(1).count(), 6);
    assert_eq!(told.notices, [Notice::NoRange { points: vec![PointId(1)] }], "which a person is told");
}

/// Also where there is no value.
#[tokio::test(flavor = "multi_thread")]
async fn points_are_of_the_type_that_their_nodes_declare() {
    let server = UaServer::start(|b| b).await;
    server.add("Word", 7i16, None);
    server.add("Byte", 7u8, None);
    server.add("When", DateTime::null(), None);
    server.add("Text", UAString::null(), None);
    server.add("None", vec![0.5f32], None);
    let dir = tempfile::tempdir().unwrap();
    let points = test_points(&["Word", "Byte", "When", "Text", "None", "NotThere"]);
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    let types = line.told.until("their types", |r| r.types.clone()).await;
    let one = |scalar| NodeType { scalar, dimensions: 0 };
    let row = NodeType { scalar: Scalar::Float, dimensions: 1 };
    let want = [one(Scalar::Int16), one(Scalar::Uint8), one(Scalar::DateTime), one(Scalar::Text), row];
    assert_eq!(types, (0..).map(PointId).zip(want).collect::<Vec<_>>());
    line.told
        .until("no text", |r| r.last(3).filter(|r| r.cause == Cause::NotAvailable && r.value.is_none()).map(|_| ()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_signal_loses_nothing_between_two_publishings() {
    let server = UaServer::start(|mut b| {
        b.limits_mut().subscriptions.max_monitored_item_queue_size = 1000;
        b
    })
    .await;
    server.add("Fast", -1i32, None);
    let dir = tempfile::tempdir().unwrap();
    let mut points = test_points(&["Fast"]);
    points[0].mode = Mode::subscribe(ms(20));
    let mut spec = spec(server.url(), dir.path(), points);
    spec.publishing = ms(1000);
    let line = Line::run(OpcUa::new(spec), false);
    line.told.until("a first value", |r| r.good(0)).await;
    for n in 0..30 {
        server.set("Fast", DataValue::new_now(n));
        sleep(ms(25)).await;
    }
    line.told.until("all of them", |r| r.good(0).filter(|v| *v == Value::Int(29))).await;
    let values: Vec<_> = line.told.look().of(0).filter_map(|r| r.value.clone()).collect();
    assert_eq!(values, (-1..30).map(Value::Int).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_stays_silent_is_read_and_then_made_anew() {
    // This server looks at its subscriptions once an hour.
    let server = UaServer::start(|b| b.subscription_poll_interval_ms(3_600_000)).await;
    server.add("Mute", 4i32, None);
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&["Mute"]))), false);
    line.told.until("its value all the same", |r| r.good(0).filter(|v| *v == Value::Int(4))).await;
    line.told.until("a new link", |r| (r.ups() >= 2).then_some(())).await;
    let told = line.told.look();
    assert_eq!(told.errors.first(), Some(&"Timeout"));
    assert!(told.last_error().is_some_and(|e| e.contains("can be read and do not come")), "{:?}", told.last_error());
}
