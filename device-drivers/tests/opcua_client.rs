//! The OPC UA client against real servers over real sockets: what is watched, what is refused, what is written.

mod support;

use control_core::image::{Command, CommandCode, CommandResult, MachineStatus};
use control_core::units::{LoadId, MachineId, PosId};
use device_drivers::block::{Owner, decode_status, encode_command};
use device_drivers::driver::{TagWrite, WriteOutcome};
use device_drivers::opcua::{Deadband, Mode, OpcUa, Vendor, browse};
use device_drivers::value::{Quality, wall_clock_ms};
use device_drivers::{BlockWrite, Cause, LinkState, PointId, Value};
use opcua::types::{DataValue, DateTime, LocalizedText, StatusCode, Variant};
use plc_sim::bank::{Fault, Kind};
use plc_sim::faces::Keep;
use plc_sim::faces::opcua::NAMESPACE;
use plc_sim::faces::opcua_bank::{self, OpcuaBank, OpcuaBankConfig};
use plc_sim::{PlantConfig, Sim};
use std::path::Path;
use std::time::Duration;
use support::ua_server::UaServer;
use support::{Line, PATIENCE, Record, bank_points, ms, point, spec, test_points};
use tokio::time::{Instant, sleep};

async fn bank(variables: u16, period: Duration) -> (OpcuaBank, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let pki_dir = Some(dir.path().join("server"));
    let config = OpcuaBankConfig { variables, period, pki_dir, ..OpcuaBankConfig::default() };
    (opcua_bank::serve(config).await.unwrap(), dir)
}

fn status(record: &Record) -> Option<MachineStatus> {
    match record.last(0)?.value.as_ref()? {
        Value::Words(words) => decode_status(words),
        _ => None,
    }
}

async fn plant(at: Option<std::net::SocketAddr>, boot: u16, dir: &Path) -> Sim {
    let mut config = PlantConfig::from_toml(include_str!("../../configs/small/plant.toml")).unwrap();
    config.listen.modbus.set_port(0);
    config.listen.opcua.set_port(0);
    config.listen.opcua = at.unwrap_or(config.listen.opcua);
    let keep = Keep { pki_dir: Some(dir.join("server")), ..Keep::default() };
    Sim::start(config, 7, boot, keep).await.unwrap()
}

fn cell(sim: &Sim, dir: &Path) -> OpcUa {
    let node = |name: &str| format!("nsu={NAMESPACE};s=Cell.{name}");
    let names = ["StatusBlock", "State", "MotorCurrent", "Busy", "NoSuchNode"];
    let points = (0u32..).zip(names).map(|(id, name)| point(id, &node(name))).collect();
    let mut spec = spec(format!("opc.tcp://{}/", sim.addresses.opcua), dir, points);
    spec.commands = vec![(MachineId(5), node("CommandBlock").parse().unwrap())];
    OpcUa::new(spec)
}

/// Keeps the heartbeat up until the status is as wanted.
async fn commanded(line: &Line, command: Option<Command>, wanted: impl Fn(&MachineStatus) -> bool) -> MachineStatus {
    let start = Instant::now();
    for beat in 0u16.. {
        let owner = Owner { token: 1, heartbeat: beat, authority: true, acknowledged: 0 };
        let seq = command.map_or(0, |c| c.seq);
        line.told.look().due.push(BlockWrite { machine: MachineId(5), seq, words: encode_command(owner, command) });
        sleep(ms(50)).await;
        let last = status(&line.told.look());
        if let Some(status) = last.filter(&wanted) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "still {last:?}");
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cell_is_read_by_subscription_and_refuses_to_start_without_a_load() {
    let dir = tempfile::tempdir().unwrap();
    let sim = plant(None, 1, dir.path()).await;
    let line = Line::run(cell(&sim, dir.path()), true);
    line.told.until("five status blocks", |r| (r.of(0).filter(|r| r.value.is_some()).count() >= 5).then_some(())).await;
    line.told.until("a bad node", |r| r.last(4).map(|_| ())).await;
    {
        let told = line.told.look();
        assert_eq!(told.good(1), Some(Value::Int(4)), "PackML Idle");
        assert_eq!(told.good(3), Some(Value::Bool(false)));
        let missing: Vec<_> = told.of(4).map(|r| (r.quality, r.cause)).collect();
        assert_eq!(
            missing,
            [(Quality::Bad, Cause::Status(StatusCode::BadNodeIdUnknown.bits()))],
            "one bad node does not fail the others"
        );
        assert!(told.of(0).all(|r| wall_clock_ms().abs_diff(r.source_ms) < 60_000), "source times are the server's");
    }
    let before = commanded(&line, None, |s| s.interlocks == 0).await;
    let start = Command {
        seq: 1,
        code: CommandCode::Start,
        pos: PosId(173),
        load: LoadId::new(4711),
        path: Default::default(),
        program: 1,
        valid_ms: 2000,
        issued_plc_ms: before.plc_time_ms,
        issued_boot: before.boot,
    };
    let after = commanded(&line, Some(start), |s| s.seq_done == 1).await;
    assert_eq!(after.result, CommandResult::Failed);
    assert!(line.told.look().not_written.is_empty());
    // The last block goes out before the link does.
    let owner = Owner { token: 1, heartbeat: 9999, authority: false, acknowledged: 0 };
    let last = BlockWrite { machine: MachineId(5), seq: 0, words: encode_command(owner, None) };
    let told = line.told.clone();
    told.look().due.push(last);
    line.stop().await;
    assert_eq!(told.look().written.last(), Some(&last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_ends_the_link_and_comes_back_with_a_living_subscription() {
    let dir = tempfile::tempdir().unwrap();
    let sim = plant(None, 1, dir.path()).await;
    let line = Line::run(cell(&sim, dir.path()), false);
    line.told.until("a status block", status).await;
    let at = sim.addresses.opcua;
    drop(sim);
    line.told.until("the end of the link", |r| (r.links.last()?.0 == LinkState::Down).then_some(())).await;
    line.told.until("a try in vain", |r| r.last_error().filter(|e| e.contains("nothing listens")).map(|_| ())).await;
    line.told.look().readings.clear();
    let _sim = plant(Some(at), 2, dir.path()).await;
    line.told.until("five status blocks of the next life", |r| (r.of(0).count() >= 5).then_some(())).await;
    let told = line.told.look();
    let blocks = told.of(0).filter_map(|r| if let Some(Value::Words(w)) = &r.value { decode_status(w) } else { None });
    assert!(blocks.map(|s| s.boot).all(|boot| boot == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_of_a_bank_is_good_at_once_and_goes_on_changing() {
    let (bank, dir) = bank(500, ms(200)).await;
    let line = Line::run(OpcUa::new(spec(bank.url(), dir.path(), bank_points(500))), false);
    line.told.until("all good", |r| (0..500).all(|n| r.good(n).is_some()).then_some(())).await;
    let last = line.told.look().readings.len();
    line.told.until("all again", |r| (r.readings.len() >= last + 1000).then_some(())).await;
    let told = line.told.look();
    // Each value is one the bank has shown at some tick.
    for (n, reading) in (0u16..500).zip((0u32..500).map(|n| told.last(n))) {
        let Some(Value::Float(value)) = reading.and_then(|r| r.value.clone()) else { panic!("{reading:?}") };
        assert!((0..bank.tick() + 2).any(|tick| opcua_bank::value(n, tick) == value), "V.{n} = {value}");
    }
    assert_eq!(told.ups(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_little_in_one_call_is_asked_in_small_calls() {
    let (bank, dir) = bank(100, ms(200)).await;
    let low = Kind::LowLimits { max_nodes_per_read: 7, max_monitored_items_per_call: 3 };
    bank.set_faults(low).unwrap();
    restarted(&bank, 2).await;
    let mut points = bank_points(100);
    for point in points.iter_mut().skip(50) {
        point.mode = Mode::Poll { interval: ms(200) };
    }
    let line = Line::run(OpcUa::new(spec(bank.url(), dir.path(), points)), false);
    line.told.until("all good", |r| (0..100).all(|n| r.good(n).is_some()).then_some(())).await;
    let told = line.told.look();
    assert_eq!(told.ups(), 1, "{:?}", told.links);
    let most = told.reports.iter().map(|r| r.requests).max();
    assert_eq!(most, Some(8), "50 nodes, 7 at a time");
}

async fn restarted(bank: &OpcuaBank, starts: u64) {
    let since = Instant::now();
    while bank.starts() < starts {
        assert!(since.elapsed() < PATIENCE, "the bank did not start again");
        sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_choices_and_texts_are_written_as_the_node_has_them() {
    let server = UaServer::start(|b| b).await;
    server.add("Row", vec![1.0f64, 2.0], None);
    server.add("State", 0i32, None);
    let names: Vec<LocalizedText> = ["Off", "On"].into_iter().map(LocalizedText::from).collect();
    server.add_property("State", "EnumStrings", names);
    let text = |text: &str| LocalizedText { locale: "de".into(), text: text.into() };
    server.add("Label", text("bereit"), None);
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&["Row", "State", "Label"]))), false);
    line.told.until("values", |r| (0..3).all(|n| r.good(n).is_some()).then_some(())).await;
    let row = Value::List([Value::Int(3), Value::Float(4.5), Value::Int(5)].into());
    assert_eq!(line.write(0, row, false).await, WriteOutcome::Done);
    assert_eq!(server.get("Row"), Some(Variant::from(vec![3.0f64, 4.5, 5.0])));
    let back = Value::List([Value::Float(0.5)].into());
    assert_eq!(line.write(0, back, true).await, WriteOutcome::Done, "and read back");
    assert!(matches!(line.write(0, Value::Float(1.0), true).await, WriteOutcome::Invalid(why) if why.contains("row")));

    assert_eq!(line.write(1, Value::Int(1), true).await, WriteOutcome::Done);
    let why = line.write(1, Value::Int(2), true).await;
    assert!(matches!(&why, WriteOutcome::Invalid(why) if why.contains("0 Off, 1 On")), "{why:?}");
    assert_eq!(server.get("State"), Some(Variant::Int32(1)));

    assert_eq!(line.write(2, Value::Text("läuft".into()), true).await, WriteOutcome::Done);
    assert_eq!(server.get("Label"), Some(Variant::from(text("läuft"))), "in the language it was in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s7_1200_gets_a_thousand_items_in_calls_of_a_hundred_and_no_filter() {
    let (bank, dir) = bank(1100, ms(500)).await;
    let mut points = bank_points(1100);
    // Every value moves by more than 3 at each tick and by less than 1000: with this deadband only the first comes through.
    for point in &mut points {
        point.mode = Mode::Subscribe { sampling: ms(100), queue: 0, deadband: Some(Deadband::Absolute(1000.0)) };
    }
    let mut spec = spec(bank.url(), dir.path(), points);
    spec.vendor = Vendor::S71200;
    let line = Line::run(OpcUa::new(spec), false);
    line.told.until("all good", |r| (r.readings.len() >= 1100).then_some(())).await;
    sleep(ms(1500)).await;
    let told = line.told.look();
    assert_eq!(told.readings.len(), 1100, "what the server cannot filter we do");
    let reads = told.reports.iter().filter(|r| r.requests > 0).count();
    assert!(reads >= 1, "a hundred beyond the thousand are read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_appears_later_becomes_good_and_its_namespace_may_too() {
    let server = UaServer::start(|b| b).await;
    server.add("There", 1i32, None);
    let dir = tempfile::tempdir().unwrap();
    let mut points = test_points(&["There", "Later", "Never"]);
    points.push(point(3, "nsu=urn:no:such:namespace;s=There"));
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    line.told.until("four answers", |r| (0..4).all(|n| r.last(n).is_some()).then_some(())).await;
    let unknown = (Quality::Bad, Cause::Status(StatusCode::BadNodeIdUnknown.bits()));
    for n in 1..4 {
        let told = line.told.look();
        assert_eq!(told.last(n).map(|r| (r.quality, r.cause)), Some(unknown), "point {n}");
    }
    line.told.until("three in quarantine", |r| (r.counters.quarantined == 3).then_some(())).await;
    server.add("Later", 7i32, None);
    line.told.until("what came later", |r| r.good(1).filter(|v| *v == Value::Int(7))).await;
    line.told.until("two in quarantine", |r| (r.counters.quarantined == 2).then_some(())).await;
    let told = line.told.look();
    assert_eq!((told.good(0), told.ups()), (Some(Value::Int(1)), 1));
    assert_eq!(told.last(2).map(|r| r.quality), Some(Quality::Bad));
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_and_times_are_the_servers() {
    let (bank, dir) = bank(10, ms(200)).await;
    let line = Line::run(OpcUa::new(spec(bank.url(), dir.path(), bank_points(10))), false);
    line.told.until("all good", |r| (0..10).all(|n| r.good(n).is_some()).then_some(())).await;
    bank.set_faults(Fault::new(Kind::BadNode { start: 3, count: 1 })).unwrap();
    let cause = Cause::Status(StatusCode::BadSensorFailure.bits());
    line.told.until("a bad sensor", |r| r.last(3).filter(|r| r.cause == cause).map(|_| ())).await;
    assert!(line.told.look().good(4).is_some(), "its neighbour is not concerned");

    let server = UaServer::start(|b| b).await;
    server.add("T", 1i32, None);
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&["T"]))), false);
    line.told.until("a value", |r| r.good(0)).await;
    let source = DateTime::ymd_hms(2040, 1, 2, 3, 4, 5);
    let data = DataValue { value: Some(Variant::Int32(2)), source_timestamp: Some(source), ..DataValue::new_now(2i32) };
    server.set("T", data);
    let at = line
        .told
        .until("the second value", |r| r.of(0).find(|r| r.value == Some(Value::Int(2))).map(|r| r.source_ms))
        .await;
    assert_eq!(at, 2_209_086_245_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_come_under_the_device_they_belong_to_and_two_points_may_share_a_node() {
    let server = UaServer::start(|b| b).await;
    for name in ["A", "B"] {
        server.add(name, 5i32, None);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut points = test_points(&["A", "B", "A"]);
    points[1].device = 2;
    points[2].device = 1;
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    line.told.until("all three", |r| (0..3).all(|n| r.good(n).is_some()).then_some(())).await;
    line.told
        .until("all alive", |r| (0..3).all(|d| r.reports.iter().any(|p| p.device == d && p.alive)).then_some(()))
        .await;
    let told = line.told.look();
    let mut devices: Vec<(u32, usize)> = told.readings.iter().map(|(device, r)| (r.point.0, *device)).collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices, [(0, 0), (1, 2), (2, 1)]);
}

fn clamped(_: &DataValue) -> StatusCode {
    StatusCode::Good // and forgets it
}

fn locked(_: &DataValue) -> StatusCode {
    StatusCode::BadUserAccessDenied
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_the_nodes_own_type_and_its_outcome_is_told() {
    let server = UaServer::start(|b| b).await;
    server.add("Byte", 1u8, None);
    server.add("Float", 1.0f32, None);
    server.add("Text", "old", None);
    server.add("Words", vec![0u16; 3], None);
    server.add("Stubborn", 5i32, Some(clamped));
    server.add("Locked", 5i32, Some(locked));
    let dir = tempfile::tempdir().unwrap();
    let points = test_points(&["Byte", "Float", "Text", "Words", "Stubborn", "Locked", "Missing"]);
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), points)), false);
    line.told.until("values", |r| (0..6).all(|n| r.good(n).is_some()).then_some(())).await;

    assert_eq!(line.write(0, Value::Int(200), true).await, WriteOutcome::Done);
    assert_eq!(server.get("Byte"), Some(Variant::Byte(200)), "in the type of the node");
    assert!(
        matches!(line.write(0, Value::Int(256), true).await, WriteOutcome::Invalid(why) if why.contains("256") && why.contains("Byte"))
    );
    assert_eq!(line.write(1, Value::Float(0.1), true).await, WriteOutcome::Done, "rounding is no difference");
    assert_eq!(line.write(2, Value::Text("neu".into()), true).await, WriteOutcome::Done);
    assert_eq!(line.write(3, Value::Words([7, 8, 9].into()), true).await, WriteOutcome::Done);
    assert_eq!(line.write(4, Value::Int(6), false).await, WriteOutcome::Done);
    assert_eq!(line.write(4, Value::Int(6), true).await, WriteOutcome::Differs(Value::Int(5)));
    let denied = Cause::Status(StatusCode::BadUserAccessDenied.bits());
    assert_eq!(line.write(5, Value::Int(6), true).await, WriteOutcome::Refused(denied));
    let unknown = Cause::Status(StatusCode::BadNodeIdUnknown.bits());
    assert_eq!(line.write(6, Value::Int(6), true).await, WriteOutcome::Refused(unknown));
    assert_eq!(line.write(99, Value::Int(6), true).await, WriteOutcome::Refused(unknown));
    line.told.until("what was written comes back", |r| r.good(0).filter(|v| *v == Value::Uint(200))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_for_no_deadline_and_the_last_to_one_node_wins() {
    let server = UaServer::start(|b| b).await;
    server.add("W", 0i32, None);
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&["W"]))), false);
    line.told.until("a value", |r| r.good(0)).await;

    let (reply, outcome) = tokio::sync::oneshot::channel();
    let deadline = Instant::now() - ms(1);
    let late = TagWrite { point: PointId(0), value: Value::Int(9), deadline, priority: 9, verify: false, reply };
    line.wishes.send(late).await.unwrap();
    assert_eq!(outcome.await, Ok(WriteOutcome::Expired));

    let mut outcomes = Vec::new();
    for n in 1..=20 {
        outcomes.push(line.ask(0, Value::Int(n), false).await);
    }
    for outcome in outcomes {
        assert_eq!(outcome.await, Ok(WriteOutcome::Done));
    }
    assert_eq!(server.get("W"), Some(Variant::Int32(20)));
    drop(server);
    line.told.until("the end of the link", |r| (r.links.last()?.0 == LinkState::Down).then_some(())).await;
    assert_eq!(line.write(0, Value::Int(1), false).await, WriteOutcome::LinkDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_server_forgets_are_made_anew() {
    let (bank, dir) = bank(20, ms(200)).await;
    let line = Line::run(OpcUa::new(spec(bank.url(), dir.path(), bank_points(20))), false);
    line.told.until("all good", |r| (0..20).all(|n| r.good(n).is_some()).then_some(())).await;
    for lives in 2..5 {
        bank.set_faults(Kind::DropSession).unwrap();
        line.told.until("another life", |r| (r.ups() >= lives).then_some(())).await;
        line.told.look().readings.clear();
        line.told.until("all good again", |r| (0..20).all(|n| r.good(n).is_some()).then_some(())).await;
        line.told.until("and changing", |r| (r.readings.len() > 60).then_some(())).await;
    }
}

static ORDER: std::sync::Mutex<Vec<i32>> = std::sync::Mutex::new(Vec::new());

fn slow(data: &DataValue) -> StatusCode {
    // Not so that the client cannot run meanwhile.
    tokio::task::block_in_place(|| std::thread::sleep(ms(1500)));
    noted(data)
}

fn noted(data: &DataValue) -> StatusCode {
    if let Some(Variant::Int32(n)) = data.value {
        ORDER.lock().unwrap().push(n);
    }
    StatusCode::Good
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_matters_more_is_written_first_and_what_is_not_answered_is_unknown() {
    let server = UaServer::start(|b| b).await;
    server.add("Slow", 0i32, Some(slow));
    for name in ["A", "B", "C"] {
        server.add(name, 0i32, Some(noted));
    }
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(server.url(), dir.path(), test_points(&["Slow", "A", "B", "C"]))), false);
    line.told.until("values", |r| (0..4).all(|n| r.good(n).is_some()).then_some(())).await;
    let first = line.ask(0, Value::Int(1), false).await;
    sleep(ms(300)).await;
    let mut outcomes = Vec::new();
    for (point, priority) in [(1u32, 1u8), (2, 200), (3, 7)] {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        let (value, deadline) = (Value::Int(i64::from(priority)), Instant::now() + PATIENCE);
        let wish = TagWrite { point: PointId(point), value, deadline, priority, verify: false, reply };
        line.wishes.send(wish).await.unwrap();
        outcomes.push(outcome);
    }
    for outcome in std::iter::once(first).chain(outcomes) {
        assert_eq!(outcome.await, Ok(WriteOutcome::Done));
    }
    assert_eq!(*ORDER.lock().unwrap(), [1, 200, 7, 1]);
    line.stop().await;

    let mut impatient = spec(server.url(), dir.path(), test_points(&["Slow"]));
    impatient.timeout = ms(1000);
    let line = Line::run(OpcUa::new(impatient), false);
    line.told.until("a value", |r| r.good(0)).await;
    assert_eq!(line.write(0, Value::Int(2), false).await, WriteOutcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsing_follows_continuation_points_in_small_calls_and_finds_each_variable_once() {
    let server = UaServer::start(|mut b| {
        let limits = &mut b.limits_mut().operational;
        (limits.max_nodes_per_browse, limits.max_references_per_browse_node, limits.max_nodes_per_read) = (3, 40, 50);
        b
    })
    .await;
    for hall in 0..7 {
        server.folder(&format!("Hall{hall}"), None);
        for n in 0..150 {
            server.add_below(&format!("Hall{hall}"), &format!("H{hall}.V{n}"), n);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(server.url(), dir.path(), Vec::new());
    let walk = browse::browse(&spec, 10_000, |path, _| path.starts_with("Hall")).await.unwrap();
    assert_eq!((walk.found.len(), &walk.cut), (7 * 150, &None));
    let mut nodes: Vec<_> = walk.found.iter().map(|f| f.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 7 * 150);
    let one = walk.found.iter().find(|f| f.node == UaServer::node("H6.V149")).unwrap();
    assert_eq!((&*one.path.join("/"), &*one.data_type), ("Hall6/H6.V149", "Int32"));
    let walk = browse::browse(&spec, 10_000, |_, _| true).await.unwrap();
    assert!(walk.found.iter().all(|f| f.path[0].starts_with("Hall")), "nothing of the standard's own");
    let walk = browse::browse(&spec, 100, |_, node| node.contains("H3.")).await.unwrap();
    assert_eq!(walk.found.len(), 100);
    assert!(walk.cut.is_some());
}
