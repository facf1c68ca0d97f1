//! What is reported of a point, and when: changes beyond the deadband, every change of quality, and the heartbeat with the old source time.

use super::*;
use crate::config::{DevicePlan, DriverPlan, Payload};
use crate::telemetry::Spool;
use crate::telemetry::payload::Encoding;
use crate::telemetry::spool::{Next, Outlet, Replay, Stream};
use device_drivers::PointId;
use device_drivers::modbus::{Endpoint, LineSpec};
use triple_buffer::triple_buffer;

pub(super) fn line(deadband: f64, stale_after: Duration, resend: Duration) -> (FieldLine, Outlet) {
    let device = DevicePlan {
        name: "d".into(),
        unit: 1,
        cell: "c".into(),
        profile: "p".into(),
        topic: ("t/".into(), "".into()),
    };
    let point = PointPlan {
        device: 0,
        tag: "v".into(),
        publish: true,
        role: Role::Telemetry,
        stale_after,
        write: None,
        stream: Stream::Normal,
        deadband,
        meaning: None,
    };
    let (endpoint, connect_timeout) = (Endpoint::Tcp("127.0.0.1:1".into()), Duration::from_secs(1));
    let (timeout, pause, devices) = (connect_timeout, Duration::ZERO, Vec::new());
    let spec = LineSpec { endpoint, connect_timeout, timeout, pipeline: 1, pause, close_after_poll: false, devices };
    let plan = LinePlan {
        name: "l".into(),
        driver: DriverPlan::Modbus(spec),
        devices: vec![device].into(),
        points: vec![point].into(),
        machines: Vec::new(),
        heartbeat: Duration::from_secs(1),
    };
    let spool = Spool::in_memory(1 << 20);
    let wires = FieldWires {
        clock: Clock::new(),
        stage: ImageStage::new(triple_buffer(&Default::default()).0, Default::default(), 0),
        output: triple_buffer(&floor_plan::OutputBuffer::default()).1,
        publish: Some(Publish {
            spool: spool.clone(),
            payload: Payload::Tag,
            encoding: Encoding::Json,
            hub: None,
            message_max: Arc::default(),
        }),
        resend,
        stats: Arc::new(LineStats::new(std::iter::once(&"d".into()), Duration::ZERO, false)),
        looks: tokio::sync::mpsc::channel(1).1,
    };
    (FieldLine::new(&plan, wires), Outlet::new(spool, Replay::InOrder, None))
}

pub(super) fn good(value: f64, source_ms: u64) -> Reading {
    Reading {
        point: PointId(0),
        value: Some(Value::Float(value)),
        quality: Quality::Good,
        cause: Cause::None,
        source_ms,
    }
}

/// Value, quality and source time of everything that was reported since the last time.
fn said(outlet: &mut Outlet) -> Vec<(f64, String, String)> {
    let next = || match outlet.next(Instant::now(), |_, r| Some(String::from_utf8_lossy(r.payload).into_owned())) {
        Next::Record(_, payload) => Some(payload),
        _ => None,
    };
    std::iter::from_fn(next)
        .map(|payload| {
            let json: serde_json::Value =
                serde_json::from_str(&payload.replace(":}", ":0}").replace(":,", ":0,")).unwrap();
            let text = |key: &str| json[key].as_str().unwrap_or_default().to_string();
            (json["value"].as_f64().unwrap_or(f64::NAN), text("quality"), text("source_time")[17..].to_string())
        })
        .collect()
}

fn row(value: f64, quality: &str, time: &str) -> (f64, String, String) {
    (value, quality.into(), time.into())
}

/// Everything that was reported since the last time.
fn whole(outlet: &mut Outlet) -> Vec<serde_json::Value> {
    let next = || match outlet.next(Instant::now(), |_, r| Some(String::from_utf8_lossy(r.payload).into_owned())) {
        Next::Record(_, payload) => Some(payload),
        _ => None,
    };
    let json = |payload: String| {
        let text = payload.replace("\"sequence\":,", "\"sequence\":0,").replace("\"sequence\":}", "\"sequence\":0}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
    };
    std::iter::from_fn(next).map(json).collect()
}

/// A deadband and a value that goes away: null, bad, the reason, said once; and back although the value is the same as before.
#[test]
fn a_source_that_says_that_it_has_no_value_takes_the_last_one_away() {
    let absent = |cause| Reading { value: None, quality: Quality::Bad, cause, ..good(0.0, 2000) };
    let rows = [
        (good(f64::NAN, 2000), Cause::NotFinite),
        (good(f64::INFINITY, 2000), Cause::NotFinite),
        (Reading { value: Some(Value::Single(f32::NEG_INFINITY)), ..good(0.0, 2000) }, Cause::NotFinite),
        (absent(Cause::NotAvailable), Cause::NotAvailable),
        (absent(Cause::NoText), Cause::NoText),
    ];
    for (reading, cause) in rows {
        let (mut line, mut outlet) = line(0.5, LONG, LONG);
        let mut all = [good(5.0, 1000), reading.clone(), reading.clone(), reading, good(5.0, 3000)];
        all.iter_mut().for_each(|r| line.readings(PollReport::default(), &mut vec![r.clone()]));
        let told = whole(&mut outlet);
        let row = |n: usize| (told[n]["value"].clone(), told[n]["quality"].clone(), told[n]["source_time"].clone());
        let time = |s: u8| serde_json::Value::from(format!("1970-01-01T00:00:0{s}.000Z"));
        assert_eq!(told.len(), 3, "{cause:?}: {told:?}");
        assert_eq!(row(0), (5.0.into(), "good".into(), time(1)));
        assert_eq!(row(1), (serde_json::Value::Null, "bad".into(), time(2)));
        assert_eq!(told[1]["cause"], cause.to_string());
        assert_eq!(row(2), (5.0.into(), "good".into(), time(3)), "{cause:?}");
    }
}

#[test]
fn what_does_not_change_says_when_it_was_confirmed_and_what_is_not_read_any_more_does_not() {
    let (mut line, mut outlet) = line(0.0, LONG, Duration::ZERO);
    let bad = Reading { value: None, quality: Quality::Bad, cause: Cause::NoAnswer, ..good(0.0, 9000) };
    for reading in [good(20.0, 1000), good(20.0, 2000), bad.clone(), bad] {
        line.readings(PollReport::default(), &mut vec![reading]);
    }
    let told = whole(&mut outlet);
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|m| m["source_time"] == "1970-01-01T00:00:01.000Z"), "{told:?}");
    assert!(told[0].get("confirmed_time").is_none(), "it has only just come to be: {told:?}");
    let confirmed = told[1]["confirmed_time"].as_str().expect("the second reading has said so again");
    assert!(confirmed > "2020", "by our own clock: {confirmed}");
    assert!(told[2..].iter().all(|m| m["confirmed_time"] == confirmed), "nobody has confirmed it since: {told:?}");
}

/// Of a value that stands: how old it is, and how long ago its source last said so, are two things.
#[test]
fn who_looks_at_a_value_that_does_not_change_sees_it_confirmed_and_one_that_is_not_read_grow_old() {
    let (mut line, _outlet) = line(0.0, LONG, LONG);
    let (ask, looks) = mpsc::channel(1);
    line.wires.looks = looks;
    let pause = Duration::from_millis(30);
    let ages = |line: &mut FieldLine| {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        ask.try_send(view::Look { points: vec![0], bad: None, reply }).unwrap();
        line.sweep();
        answer.try_recv().unwrap()[0].ages
    };
    for _ in 0..3 {
        line.readings(PollReport::default(), &mut vec![good(5.0, 1000)]);
        std::thread::sleep(pause);
    }
    let [changed, confirmed] = ages(&mut line);
    assert!(changed >= confirmed + pause, "read again since: {changed:?}, {confirmed:?}");
    std::thread::sleep(pause);
    let [_, frozen] = ages(&mut line);
    assert!(frozen >= confirmed + pause / 2, "not read any more: {confirmed:?}, then {frozen:?}");
}

pub(super) const LONG: Duration = Duration::from_secs(3600);

#[test]
fn changes_within_the_deadband_are_not_reported_and_do_not_creep() {
    let (mut line, mut outlet) = line(1.0, LONG, LONG);
    for (value, at) in
        [(20.0, 1000), (20.9, 2000), (19.1, 3000), (20.99, 4000), (21.0, 5000), (20.1, 6000), (20.0, 7000)]
    {
        line.readings(PollReport::default(), &mut vec![good(value, at)]);
    }
    let want = [row(20.0, "good", "01.000Z"), row(21.0, "good", "05.000Z"), row(20.0, "good", "07.000Z")];
    assert_eq!(said(&mut outlet), want);
}

#[test]
fn a_change_of_quality_is_always_reported_whatever_the_deadband() {
    let (mut line, mut outlet) = line(100.0, LONG, LONG);
    let bad = Reading { value: None, quality: Quality::Bad, cause: Cause::NoAnswer, ..good(0.0, 9999) };
    for reading in [good(20.0, 1000), bad.clone(), bad, good(20.5, 3000)] {
        line.readings(PollReport::default(), &mut vec![reading]);
    }
    let want = [row(20.0, "good", "01.000Z"), row(20.0, "bad", "01.000Z"), row(20.5, "good", "03.000Z")];
    assert_eq!(said(&mut outlet), want, "what turns Bad keeps the source time of its value");
}

#[test]
fn the_heartbeat_says_the_last_value_with_its_old_source_time() {
    let (mut line, mut outlet) = line(1.0, LONG, Duration::ZERO);
    line.readings(PollReport::default(), &mut vec![good(20.0, 1000)]);
    line.readings(PollReport::default(), &mut vec![good(20.5, 2000)]);
    assert_eq!(said(&mut outlet), [row(20.0, "good", "01.000Z"), row(20.0, "good", "01.000Z")]);
}

#[test]
fn what_never_changes_is_said_at_each_heartbeat_although_no_reading_comes() {
    let bad = || Reading { value: None, quality: Quality::Bad, cause: Cause::NoAnswer, ..good(0.0, 9999) };
    for (resend, times) in [(LONG, 0), (Duration::ZERO, 3)] {
        let (mut line, mut outlet) = line(0.0, LONG, resend);
        for (reading, quality) in [(good(20.0, 1000), "good"), (bad(), "bad")] {
            line.readings(PollReport::default(), &mut vec![reading]);
            assert_eq!(said(&mut outlet), [row(20.0, quality, "01.000Z")]);
            (0..3).for_each(|_| line.sweep());
            assert_eq!(said(&mut outlet), vec![row(20.0, quality, "01.000Z"); times], "as old as it is");
        }
    }
}

#[test]
fn a_status_of_the_server_has_the_servers_time_and_what_it_says_beyond_good_is_a_change() {
    let (mut line, mut outlet) = line(0.0, LONG, LONG);
    let status = |code, quality, value, source_ms| Reading {
        value,
        quality,
        cause: Cause::Status(code),
        ..good(0.0, source_ms)
    };
    let failed = status(0x808B_0000, Quality::Bad, None, 3000); // BadDeviceFailure
    let overridden = status(0x0096_0000, Quality::Good, Some(Value::Float(20.0)), 5000);
    for reading in [failed.clone(), good(20.0, 4000), overridden, failed] {
        line.readings(PollReport::default(), &mut vec![reading]);
    }
    let rows = said(&mut outlet);
    let times: Vec<_> = rows.iter().map(|(_, quality, time)| (quality.as_str(), time.as_str())).collect();
    assert_eq!(times, [("bad", "03.000Z"), ("good", "04.000Z"), ("good", "05.000Z"), ("bad", "03.000Z")]);
}

#[test]
fn what_is_silent_turns_uncertain_then_bad_and_is_never_stamped_anew() {
    let (mut line, mut outlet) = line(0.0, Duration::from_millis(20), LONG);
    line.readings(PollReport::default(), &mut vec![good(20.0, 1000)]);
    line.sweep();
    std::thread::sleep(Duration::from_millis(25));
    line.sweep();
    std::thread::sleep(Duration::from_millis(25));
    line.sweep();
    line.sweep();
    let said = said(&mut outlet);
    // On a machine that hesitates it may be Bad at once; it is never Good again, and never younger.
    assert!(said.iter().all(|(value, _, time)| *value == 20.0 && time == "01.000Z"), "{said:?}");
    assert_eq!((said[0].1.as_str(), said.last().unwrap().1.as_str()), ("good", "bad"));
    assert!(said.len() <= 3, "{said:?}");
}

/// Uncertain by the server's own word, and a subscription that lives: it stays so, as what is Good stays Good.
#[test]
fn what_a_subscription_confirms_does_not_grow_old_whatever_its_server_thinks_of_it() {
    for (quality, cause) in [
        (Quality::Good, Cause::None),
        (Quality::Uncertain, Cause::Status(0x4000_0000)),
        (Quality::Uncertain, Cause::OutOfRange),
    ] {
        let (mut line, mut outlet) = line(0.0, Duration::from_millis(50), LONG);
        line.readings(PollReport::default(), &mut vec![Reading { quality, cause, ..good(5.0, 1000) }]);
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            line.readings(PollReport { alive: true, ..PollReport::default() }, &mut Vec::new());
            line.sweep();
        }
        assert_eq!(whole(&mut outlet).len(), 1, "{cause:?} was said once, and stands");
        std::thread::sleep(Duration::from_millis(500));
        line.sweep();
        assert_eq!(whole(&mut outlet).last().map(|m| m["cause"].clone()), Some("stale".into()), "{cause:?}");
    }
}

/// A device that is busy from the start: there is no value that could be doubtful.
#[test]
fn where_there_never_was_a_value_there_is_none_and_that_is_bad() {
    let busy = |value| Reading { value, quality: Quality::Uncertain, cause: Cause::Exception(6), ..good(0.0, 2000) };
    let (mut line, mut outlet) = line(0.0, LONG, LONG);
    line.readings(PollReport::default(), &mut vec![busy(None)]);
    line.readings(PollReport::default(), &mut vec![good(5.0, 3000)]);
    line.readings(PollReport::default(), &mut vec![busy(None)]);
    let told = whole(&mut outlet);
    let said: Vec<_> = told.iter().map(|m| (m["value"].as_f64(), m["quality"].as_str().unwrap())).collect();
    assert_eq!(said, [(None, "bad"), (Some(5.0), "good"), (Some(5.0), "uncertain")]);
}
