//! Devices with manners of their own: slow ones, ones that hang up, ones that answer as somebody else. None of it is a fault as long as
//! the values are right.

mod line;

use control_core::units::MachineId;
use device_drivers::modbus::{DataType, Endpoint, PointSpec};
use device_drivers::value::{Cause, Quality};
use device_drivers::{BlockWrite, Health, Reading, Value, WriteOutcome};
use line::plc::{ABSENT, Closes, Manners, Plc, Refuses};
use line::{Running, Seen, device, frame, line, point};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

fn endpoint(plc: &Plc) -> Endpoint {
    Endpoint::Tcp(plc.addr.to_string())
}

/// Values that lie so far apart that each is a request of its own.
fn apart(count: u32) -> Vec<PointSpec> {
    (0..count).map(|n| point(n, &format!("holding:{}", n * 100), DataType::U16)).collect()
}

fn is_bad(reading: &&Reading) -> bool {
    reading.quality != Quality::Good
}

/// Asks once over a connection of its own, and gives what comes until it is closed or nothing more comes.
async fn exchange(plc: &Plc, requests: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(plc.addr).await.unwrap();
    stream.write_all(&requests.concat()).await.unwrap();
    let (mut got, mut chunk) = (Vec::new(), [0; 512]);
    loop {
        match tokio::time::timeout(500 * MS, stream.read(&mut chunk)).await {
            Ok(Ok(n @ 1..)) => got.extend_from_slice(&chunk[..n]),
            Ok(_) => return (got, true),
            Err(_) => return (got, false),
        }
    }
}

#[tokio::test]
async fn the_stand_in_does_what_it_is_told() {
    let read = |transaction, start: u8| frame(transaction, 1, &[3, 0, start, 0, 1]);
    let reply = |transaction, unit, word: u8| frame(transaction, unit, &[3, 2, 0, word]);
    let start = |manners| async { Plc::start(manners).await };
    let two = [read(7, 5), read(8, 6)];
    let both = [reply(7, 1, 5), reply(8, 1, 6)].concat();

    let plain = start(Manners::default()).await;
    assert_eq!(exchange(&plain, &two).await, (both.clone(), false));
    assert_eq!(exchange(&plain, &[frame(1, 1, &[6, 0, 5, 0, 9])]).await.0, frame(1, 1, &[6, 0, 5, 0, 9]));
    assert_eq!([1, 2].map(|unit| plain.inside().register(unit, 5)), [9, 5], "each unit has its own");
    let (i32_absent, absent) = (ABSENT[3].1, frame(1, 1, &[3, 4, 0x80, 0, 0, 0]));
    plain.inside().set_absent(1, 20, "i32");
    assert_eq!(exchange(&plain, &[frame(1, 1, &[3, 0, 20, 0, 2])]).await.0, absent, "{i32_absent:x?}");
    assert_eq!(plain.inside().connections, 3);
    assert_eq!(plain.inside().writes().count(), 1);

    let closes = start(Manners { closes: Closes::AfterReplies(1), ..Manners::default() }).await;
    assert_eq!(exchange(&closes, &two).await, (reply(7, 1, 5), true));
    closes.inside().manners.closes = Closes::WhenIdle(100 * MS);
    assert_eq!(exchange(&closes, &two).await, (both.clone(), true));
    closes.inside().manners.closes = Closes::InsteadOfReply(1);
    assert_eq!(exchange(&closes, &two).await, (reply(7, 1, 5), true));

    let other = start(Manners { answers_as: Some(255), transaction: Some(0), ..Manners::default() }).await;
    assert_eq!(exchange(&other, &two[..1]).await, (reply(0, 255, 5), false));

    let drops = start(Manners { delay: 100 * MS, drops_while_busy: true, ..Manners::default() }).await;
    assert_eq!(exchange(&drops, &two).await, (reply(7, 1, 5), false));
    assert_eq!(drops.inside().open.1, 2, "the second was written down all the same");

    let refuses = vec![Refuses::reads(5..=9, 4).times(1), Refuses::writes(5..=5, 5).but_does_it()];
    let refuses = start(Manners { refuses, ..Manners::default() }).await;
    assert_eq!(exchange(&refuses, &two).await.0, [frame(7, 1, &[0x83, 4]), reply(8, 1, 6)].concat());
    assert_eq!(exchange(&refuses, &[frame(1, 1, &[6, 0, 5, 0, 9])]).await.0, frame(1, 1, &[0x86, 5]));
    assert_eq!(refuses.inside().register(1, 5), 9);
}

/// A device that answers in 0.6 of the time limit, and takes nothing while it is busy, as pymodbus does.
fn slow() -> Manners {
    Manners { delay: 360 * MS, drops_while_busy: true, ..Manners::default() }
}

#[tokio::test]
async fn a_device_slower_than_a_quarter_of_the_limit_is_never_asked_beside_and_its_writes_are_done() {
    let plc = Plc::start(slow()).await;
    let mut units = [1u8, 2].map(|unit| device(unit, apart(2)));
    units[1].points.iter_mut().for_each(|p| p.id.0 += 10);
    let mut spec = line(endpoint(&plc), units.to_vec());
    spec.timeout = 600 * MS;
    let running = Running::start(spec);
    running.until("all", |s| [0, 1, 10, 11].iter().all(|n| s.good(*n) >= 1)).await;
    for n in 0..4u64 {
        let outcome = running.write([0, 11][n as usize % 2], Value::Uint(1000 + n), n < 2).await;
        assert_eq!(outcome, WriteOutcome::Done, "write {n}");
    }
    assert_eq!(plc.inside().open.1, 1, "requests at once");
    assert_eq!(plc.inside().writes().count(), 4);
    let seen = running.seen();
    let bad: Vec<_> = seen.readings.iter().filter(is_bad).collect();
    assert!(bad.is_empty() && seen.downs().is_empty(), "{bad:?}, {:?}, {:?}", seen.downs(), seen.counters);
}

/// Its turn is over long before its reply comes, by what it was used to: what waits goes out behind that reply all the same.
#[tokio::test]
async fn a_quick_device_that_becomes_slow_is_never_asked_beside_either() {
    let block = BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] };
    for always in [vec![], vec![block]] {
        let plc = Plc::start(Manners { drops_while_busy: true, ..Manners::default() }).await;
        let mut unit = device(1, apart(3));
        unit.commands = always.iter().map(|b| (b.machine, 1000)).collect();
        let mut spec = line(endpoint(&plc), vec![unit]);
        spec.timeout = 600 * MS;
        let machines = !always.is_empty();
        let running = Running::start_with(spec, Seen { machines, always, ..Seen::default() });
        running.until("quick", |s| s.good(2) >= 3).await;
        plc.inside().manners.delay = 360 * MS;
        let written = running.seen().written.len();
        if machines {
            running.until("blocks", |s| s.written.len() >= written + 4).await;
        } else {
            for n in 0..3u64 {
                let outcome = running.write(n as u32, Value::Uint(1000 + n), true).await;
                assert_eq!(outcome, WriteOutcome::Done, "write {n}");
            }
        }
        assert_eq!(plc.inside().open.1, 1, "requests at once, machines {machines}");
        let seen = running.seen();
        let bad: Vec<_> = seen.readings.iter().filter(is_bad).collect();
        assert!(
            bad.is_empty() && seen.not_written.is_empty() && seen.downs().is_empty(),
            "{bad:?}, {:?}",
            seen.downs()
        );
    }
}

#[tokio::test]
async fn command_blocks_wait_for_the_reply_of_a_slow_device() {
    let plc = Plc::start(slow()).await;
    let mut unit = device(1, vec![point(0, "input:300", DataType::U16)]);
    unit.commands = vec![(MachineId(0), 0)];
    let mut spec = line(endpoint(&plc), vec![unit]);
    spec.timeout = 600 * MS;
    let block = BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] };
    let running = Running::start_with(spec, Seen { machines: true, always: vec![block], ..Seen::default() });
    running.until("both", |s| s.good(0) >= 3 && s.written.len() >= 3).await;
    assert_eq!(plc.inside().open.1, 1);
    assert!(running.seen().not_written.is_empty(), "{:?}", running.seen().not_written);
}

/// How a device that hangs up between replies is read: nothing Bad, the line never down, each value as often as its interval says.
async fn hangs_up(manners: Manners, requests: u32, interval: Duration) -> (Plc, Running) {
    let plc = Plc::start(manners).await;
    let mut points = apart(requests);
    points.iter_mut().for_each(|p| p.interval = interval);
    let running = Running::start(line(endpoint(&plc), vec![device(1, points)]));
    let start = Instant::now();
    running.until("ten polls", |s| s.good(requests - 1) >= 10).await;
    {
        let seen = running.seen();
        let bad: Vec<_> = seen.readings.iter().filter(is_bad).collect();
        assert!(bad.is_empty() && seen.downs().is_empty(), "{bad:?}; {:?}", seen.downs());
        let most = start.elapsed().as_millis() / interval.as_millis() + 2;
        assert!(seen.good(0) as u128 <= most, "{} polls, at most {most}", seen.good(0));
    }
    (plc, running)
}

#[tokio::test]
async fn a_device_that_hangs_up_behind_each_reply_is_well() {
    for resets in [false, true] {
        for requests in [1, 3] {
            let closes = Closes::AfterReplies(1);
            let (plc, running) = hangs_up(Manners { closes, resets, ..Manners::default() }, requests, 100 * MS).await;
            for n in 0..10 {
                assert_eq!(running.write(0, Value::Uint(n), true).await, WriteOutcome::Done, "write {n}");
            }
            assert_eq!(plc.inside().writes().count(), 10, "none was made twice");
            assert!(running.seen().downs().is_empty(), "{:?}", running.seen().downs());
        }
    }
}

/// All units behind a gateway that is alive itself: no dance of connections, each of them is told as silent and asked less and less.
#[tokio::test]
async fn units_that_are_all_silent_are_told_so_and_the_connection_stays() {
    let plc = Plc::start(Manners { silent: vec![1, 2], ..Manners::default() }).await;
    let mut units = [1u8, 2].map(|unit| device(unit, apart(2)));
    units[1].points.iter_mut().for_each(|p| p.id.0 += 10);
    let mut spec = line(endpoint(&plc), units.to_vec());
    spec.timeout = 50 * MS;
    let running = Running::start(spec);
    let demoted = |s: &Seen, device| s.health.iter().any(|(d, health, _)| (*d, *health) == (device, Health::Demoted));
    running.until("both told", |s| demoted(s, 0) && demoted(s, 1)).await;
    sleep(2000 * MS).await;
    let connections = plc.inside().connections;
    assert!(connections <= 2, "{connections} connections: {:?}", running.seen().links);
    plc.inside().manners.silent.clear();
    running.until("both well", |s| s.good(0) > 0 && s.good(10) > 0).await;
}

/// Nothing but the replies lets it go on: a poll a day, a sweep a day.
#[tokio::test]
async fn behind_a_connection_that_has_ended_the_next_request_waits_for_nothing() {
    let plc = Plc::start(Manners { closes: Closes::AfterReplies(1), ..Manners::default() }).await;
    let (mut points, day) = (apart(6), Duration::from_secs(86_400));
    points.iter_mut().for_each(|p| p.interval = day);
    let seen = Seen { sweep_every: Some(day), ..Seen::default() };
    let running = Running::start_with(line(endpoint(&plc), vec![device(1, points)]), seen);
    running.until("one poll of six requests", |s| s.good(5) >= 1).await;
}

#[tokio::test]
async fn a_device_that_hangs_up_when_idle_is_well_and_is_asked_no_more_often() {
    for resets in [false, true] {
        let closes = Closes::WhenIdle(100 * MS);
        let (plc, running) = hangs_up(Manners { closes, resets, ..Manners::default() }, 2, 300 * MS).await;
        assert!(plc.inside().connections >= 8, "{} connections", plc.inside().connections);
        sleep(200 * MS).await;
        assert_eq!(running.write(0, Value::Uint(7), true).await, WriteOutcome::Done, "over a connection made for it");
        assert!(running.seen().downs().is_empty(), "{:?}", running.seen().downs());
    }
}

#[tokio::test]
async fn a_gateway_that_hangs_up_behind_one_unit_costs_the_other_nothing() {
    let plc = Plc::start(Manners { closes: Closes::BehindUnit(2), ..Manners::default() }).await;
    let units = [1u8, 2].map(|unit| device(unit, vec![point(u32::from(unit), "holding:7", DataType::U16)]));
    let running = Running::start(line(endpoint(&plc), units.to_vec()));
    running.until("both", |s| s.good(1) >= 20 && s.good(2) >= 20).await;
    let seen = running.seen();
    let bad: Vec<_> = seen.readings.iter().filter(is_bad).collect();
    assert!(bad.is_empty() && seen.downs().is_empty() && seen.health.len() == 2, "{bad:?}; {:?}", seen.downs());
}

#[tokio::test]
async fn a_device_that_hangs_up_without_a_word_or_is_gone_is_a_fault() {
    let mut plc = Plc::start(Manners { closes: Closes::InsteadOfReply(0), ..Manners::default() }).await;
    let running = Running::start(line(endpoint(&plc), vec![device(1, apart(1))]));
    running.until("down", |s| s.downs().len() >= 2).await;
    assert!(running.seen().downs()[0].contains("closed by the device"), "{:?}", running.seen().downs());
    plc.inside().manners.closes = Closes::WhenIdle(10 * MS);
    running.until("up", |s| s.good(0) >= 3).await;
    let before = running.seen().downs().len();
    plc.power_off();
    running.until("gone", |s| s.downs().len() > before).await;
    assert_eq!(running.write(0, Value::Uint(1), true).await, WriteOutcome::LinkDown, "nothing was sent");
    plc.power_on().await;
    let before = running.seen().good(0);
    running.until("back", |s| s.good(0) >= before + 3).await;
}

#[tokio::test]
async fn one_register_that_is_refused_costs_its_neighbours_nothing_whatever_the_exception() {
    for code in [1, 2, 3, 4, 7, 8] {
        let refuses = vec![Refuses::reads(17..=17, code)];
        let plc = Plc::start(Manners { refuses, ..Manners::default() }).await;
        let points = (0..40).map(|n| point(n, &format!("holding:{n}"), DataType::U16)).collect();
        let running = Running::start(line(endpoint(&plc), vec![device(1, points)]));
        running.until("a quarantine", |s| s.counters.quarantined == 1 && s.reports.len() >= 3).await;
        let seen = running.seen();
        let fine = (0..40).filter(|n| seen.good(*n) >= seen.reports.len() - 1).count();
        assert_eq!(fine, 39, "exception {code}");
        assert_eq!(seen.last(17).map(|r| (r.quality, r.cause)), Some((Quality::Bad, Cause::Exception(code))));
        assert_eq!(seen.reports.last().map(|r| r.requests), Some(2));
    }
}

#[tokio::test]
async fn a_device_that_is_busy_is_asked_again_soon_and_not_at_the_next_poll() {
    for code in [5, 6] {
        let refuses = vec![Refuses::reads(0..=99, code).times(3)];
        let plc = Plc::start(Manners { refuses, ..Manners::default() }).await;
        let mut points = vec![point(0, "holding:7", DataType::U16), point(1, "holding:300", DataType::U16)];
        points.iter_mut().for_each(|p| p.interval = Duration::from_secs(3600));
        let running = Running::start(line(endpoint(&plc), vec![device(1, points)]));
        running.until("the value", |s| s.good(0) == 1).await;
        let seen = running.seen();
        let before: Vec<_> = seen.readings.iter().filter(is_bad).map(|r| (r.quality, r.cause)).collect();
        assert_eq!(before, [(Quality::Uncertain, Cause::Exception(code)); 3], "busy is not gone");
        assert!(seen.counters.quarantined == 0 && plc.inside().asked.len() <= 8, "{:?}", plc.inside().asked);
    }
}

#[tokio::test]
async fn a_write_that_is_neither_done_nor_refused_is_looked_after() {
    let refuses = vec![
        Refuses::writes(0..=0, 5).but_does_it(),
        Refuses::writes(100..=100, 11).but_does_it(),
        Refuses::writes(200..=200, 5),
        Refuses::writes(300..=300, 11),
        Refuses::writes(400..=400, 11),
        Refuses::writes(500..=500, 6),
    ];
    let plc = Plc::start(Manners { refuses, ..Manners::default() }).await;
    let mut points = apart(6);
    points.iter_mut().for_each(|p| p.interval = Duration::from_secs(3600));
    let running = Running::start(line(endpoint(&plc), vec![device(1, points)]));
    running.until("all", |s| (0..6).all(|n| s.good(n) >= 1)).await;
    plc.inside().manners.refuses.push(Refuses::reads(400..=400, 11));
    for verify in [true, false] {
        assert_eq!(running.write(0, Value::Uint(1), verify).await, WriteOutcome::Done, "accepted, and done");
        assert_eq!(running.write(1, Value::Uint(1), verify).await, WriteOutcome::Done, "no answer, and done");
        let refused = WriteOutcome::Refused(Cause::Exception(6));
        assert_eq!(running.write(5, Value::Uint(1), verify).await, refused, "busy: nothing has changed");
    }
    assert_eq!(
        running.write(2, Value::Uint(1), true).await,
        WriteOutcome::Differs(Value::Uint(200)),
        "accepted, not done"
    );
    assert_eq!(
        running.write(3, Value::Uint(1), true).await,
        WriteOutcome::Differs(Value::Uint(300)),
        "no answer, not done"
    );
    assert_eq!(running.write(4, Value::Uint(1), true).await, WriteOutcome::Unknown, "and nobody can look");
}

#[tokio::test]
async fn what_a_device_accepts_and_does_later_is_done() {
    let plc = Plc::start(Manners { refuses: vec![Refuses::writes(0..=0, 5)], ..Manners::default() }).await;
    let running = std::sync::Arc::new(Running::start(line(endpoint(&plc), vec![device(1, apart(1))])));
    running.until("up", |s| s.good(0) >= 1).await;
    let write = tokio::spawn({
        let running = running.clone();
        async move { running.write(0, Value::Uint(77), true).await }
    });
    while plc.inside().writes().count() == 0 {
        sleep(5 * MS).await;
    }
    sleep(600 * MS).await;
    plc.inside().set(1, 0, &[77]);
    assert_eq!(write.await.unwrap(), WriteOutcome::Done);
    assert_eq!(plc.inside().writes().count(), 1, "and was written once");
}

#[tokio::test]
async fn a_slow_unit_that_was_away_is_itself_again() {
    let plc = Plc::start(Manners { silent: vec![1], ..slow() }).await;
    let mut spec = line(endpoint(&plc), vec![device(1, apart(1))]);
    spec.timeout = 600 * MS;
    let running = Running::start(spec);
    running.until("away", |s| s.health.iter().any(|h| h.1 == Health::Demoted) || !s.downs().is_empty()).await;
    plc.inside().manners.silent.clear();
    running.until("back", |s| s.good(0) >= 2).await;
    assert_eq!(running.write(0, Value::Uint(9), true).await, WriteOutcome::Done);
}

#[tokio::test]
async fn a_connection_that_others_need_is_given_up_behind_each_poll() {
    let plc = Plc::start(Manners { connections_max: 1, ..Manners::default() }).await;
    let mut points = apart(3);
    points.iter_mut().for_each(|p| p.interval = 400 * MS);
    let mut spec = line(endpoint(&plc), vec![device(1, points)]);
    spec.close_after_poll = true;
    let running = Running::start(spec);
    running.until("a poll", |s| s.good(2) >= 1).await;
    // Somebody else, who needs the same single seat.
    for _ in 0..5 {
        let mut stream = TcpStream::connect(plc.addr).await.unwrap();
        stream.write_all(&frame(7, 1, &[3, 0, 5, 0, 1])).await.unwrap();
        let mut reply = [0; 11];
        let got = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut reply)).await;
        assert!(got.is_ok_and(|r| r.is_ok()), "the seat was free");
    }
    let before = running.seen().good(2);
    running.until("polls", |s| s.good(2) >= before + 3).await;
    assert_eq!(running.write(0, Value::Uint(3), true).await, WriteOutcome::Done);
    assert_eq!(plc.inside().connected.1, 1);
    assert!(plc.inside().connections >= 8);
    let seen = running.seen();
    let bad: Vec<_> = seen.readings.iter().filter(is_bad).collect();
    assert!(bad.is_empty() && seen.downs().is_empty(), "{bad:?}; {:?}", seen.downs());
}

#[tokio::test]
async fn a_device_that_answers_as_somebody_else_is_told_so_and_taken_where_that_is_its_way() {
    let of = |answers_as, transaction| Manners { answers_as, transaction, ..Manners::default() };
    for (manners, cause) in [
        (of(Some(0), None), Cause::OtherUnit(0)),
        (of(Some(255), None), Cause::OtherUnit(255)),
        (of(None, Some(0)), Cause::NoTransaction),
        (of(Some(0), Some(0)), Cause::OtherUnit(0)),
    ] {
        let plc = Plc::start(manners).await;
        let running = Running::start(line(endpoint(&plc), vec![device(7, apart(2))]));
        running.until("it is told", |s| s.health.contains(&(0, Health::Demoted, cause))).await;
        assert!(running.seen().readings.iter().all(|r| r.quality == Quality::Bad), "and nothing of it is believed");
        assert!(running.seen().last(0).is_some_and(|r| r.cause == cause));

        let mut spec = line(endpoint(&plc), vec![device(7, apart(2))]);
        spec.devices[0].foreign_replies = true;
        let running = Running::start(spec);
        running.until("its values", |s| s.good(0) >= 3 && s.good(1) >= 3).await;
        assert_eq!(running.write(0, Value::Uint(9), true).await, WriteOutcome::Done);
        let seen = running.seen();
        assert!(seen.readings.iter().all(|r| r.quality == Quality::Good) && seen.downs().is_empty(), "{cause}");
    }
}

/// A late reply without a transaction would be the next one's: the unit is left alone until it can be none.
#[tokio::test]
async fn a_late_foreign_reply_is_nobody_s() {
    let plc = Plc::start(Manners { transaction: Some(0), ..Manners::default() }).await;
    let mut spec = line(endpoint(&plc), vec![device(1, apart(3))]);
    spec.devices[0].foreign_replies = true;
    let running = Running::start(spec);
    running.until("its values", |s| (0..3).all(|n| s.good(n) >= 2)).await;
    for _ in 0..3 {
        plc.inside().manners.delay = 500 * MS; // of a limit of 400
        sleep(450 * MS).await;
        plc.inside().manners.delay = Duration::ZERO;
        let before = running.seen().good(0);
        running.until("values again", |s| s.good(0) >= before + 2).await;
    }
    let seen = running.seen();
    let own = |r: &&Reading| r.value != Some(Value::Uint(u64::from(r.point.0) * 100));
    let wrong: Vec<_> = seen.readings.iter().filter(|r| r.quality == Quality::Good).filter(own).collect();
    assert!(wrong.is_empty(), "another register's: {wrong:?}");
}
