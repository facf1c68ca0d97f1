//! Patience and fairness: what one slow, dead, babbling or half-dead unit, a gateway or eager writers may cost the others. Each test
//! was a defect that a reviewer found.

mod line;

use control_core::units::MachineId;
use device_drivers::modbus::{DataType, Endpoint, Format, Scale};
use device_drivers::value::{Cause, Quality};
use device_drivers::{BlockWrite, Health, Value, WriteOutcome};
use line::{Running, Seen, at_once, device, frame, line, own_numbers, point, server};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

/// Health.rs limit(): after one miss the limit is halved, for ever, also for probes.
#[tokio::test]
async fn a_unit_slower_than_half_the_limit_heals_after_one_lost_reply() {
    let mut n = 0;
    let (endpoint, _) = server(move |asked| {
        if asked.unit == 1 {
            return at_once(asked, &own_numbers(&asked.pdu));
        }
        n += 1;
        if n == 4 { vec![] } else { vec![(250 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))] }
    })
    .await;
    let units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    let running = Running::start(line(endpoint, units.to_vec()));
    running.until("three values", |s| s.good(2) >= 3).await;
    sleep(8000 * MS).await;
    let seen = running.seen();
    assert!(
        seen.good(2) > 10,
        "one lost reply of a unit that answers in 250 of 400 ms: {} values, health {:?}",
        seen.good(2),
        seen.health
    );
}

/// Client.rs expire(): the link is ended by one dead unit that is asked more often than its neighbours.
#[tokio::test]
async fn a_dead_unit_does_not_end_the_link_when_its_neighbour_is_read_seldom() {
    let (endpoint, _) =
        server(|asked| if asked.unit == 2 { vec![] } else { at_once(asked, &own_numbers(&asked.pdu)) }).await;
    let mut units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    units[0].points[0].interval = 5000 * MS;
    let running = Running::start(line(endpoint, units.to_vec()));
    sleep(6000 * MS).await;
    let seen = running.seen();
    assert!(seen.downs().is_empty(), "{} times down, health {:?}", seen.downs().len(), seen.health);
}

/// Blocks of a machine on a dead unit hold up those of a machine on a healthy one.
#[tokio::test]
async fn a_dead_unit_does_not_hold_up_the_heartbeat_of_another_unit_s_machine() {
    let at = Arc::new(Mutex::new(Vec::new()));
    let log = at.clone();
    let (endpoint, _) = server(move |asked| {
        if asked.unit == 2 {
            return vec![];
        }
        if asked.pdu[0] == 16 {
            log.lock().unwrap().push(Instant::now());
        }
        at_once(asked, &own_numbers(&asked.pdu))
    })
    .await;
    let mut units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "input:7", DataType::U16)]));
    units[0].commands = vec![(MachineId(0), 0)];
    units[1].commands = vec![(MachineId(1), 0)];
    let mut spec = line(endpoint, units.to_vec());
    spec.timeout = 1000 * MS;
    let running = Running::start_with(spec, Seen { machines: true, ..Seen::default() });
    let block = |n| BlockWrite { machine: MachineId(n), seq: 1, words: [0; 20] };
    for _ in 0..60 {
        running.seen().to_write = vec![block(0), block(1)];
        sleep(100 * MS).await;
    }
    let at = at.lock().unwrap();
    let gaps: Vec<u128> = at.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    assert!(*gaps.iter().max().unwrap() < 400, "heartbeats of 100 ms came after {gaps:?} ms");
}

/// Values of a long interval stay Bad after a short silence.
#[tokio::test]
async fn a_unit_that_is_back_gets_its_slow_values_read_again() {
    let silent = Arc::new(AtomicBool::new(false));
    let quiet = silent.clone();
    let (endpoint, _) =
        server(
            move |asked| {
                if asked.unit == 2 && quiet.load(SeqCst) { vec![] } else { at_once(asked, &own_numbers(&asked.pdu)) }
            },
        )
        .await;
    let mut units = vec![
        device(1, vec![point(1, "holding:7", DataType::U16)]),
        device(2, vec![point(2, "holding:7", DataType::U16), point(3, "holding:90", DataType::U16)]),
    ];
    units[1].points[1].interval = Duration::from_secs(3600);
    let running = Running::start(line(endpoint, units));
    running.until("read", |s| s.good(2) >= 1 && s.good(3) >= 1).await;
    silent.store(true, SeqCst);
    running.until("demoted", |s| s.health.contains(&(1, Health::Demoted, Cause::NoAnswer))).await;
    silent.store(false, SeqCst);
    running.until("back", |s| s.health.last() == Some(&(1, Health::Healthy, Cause::None))).await;
    sleep(3000 * MS).await;
    let seen = running.seen();
    assert_eq!(seen.last(3).map(|r| (r.quality, r.cause)), Some((Quality::Good, Cause::None)), "Bad for the next hour");
}

/// Serial frames: one hiccup longer than the time limit, and each reply is believed to be that of the next request.
#[tokio::test]
async fn a_late_serial_reply_is_not_taken_for_another_register_s() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut s, _) = listener.accept().await.unwrap();
            let mut n = 0;
            let mut request = [0u8; 8];
            while s.read_exact(&mut request).await.is_ok() {
                n += 1;
                // One at a time, as a radio or a gateway with a queue does; the fifth takes longer once.
                sleep(if n == 5 { 470 * MS } else { 30 * MS }).await;
                let mut reply = vec![request[0]];
                reply.extend(own_numbers(&request[1..6]));
                let crc = reply.iter().fold(0xFFFFu16, |c, b| {
                    (0..8).fold(c ^ u16::from(*b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xA001 } else { c >> 1 })
                });
                reply.extend(crc.to_le_bytes());
                s.write_all(&reply).await.unwrap();
            }
        }
    });
    let points = [0, 100, 200].map(|n| point(n, &format!("holding:{n}"), DataType::U16));
    let running = Running::start(line(Endpoint::RtuOverTcp(at), vec![device(1, points.to_vec())]));
    sleep(6000 * MS).await;
    let seen = running.seen();
    let wrong: Vec<_> = seen
        .readings
        .iter()
        .filter(|r| r.quality == Quality::Good && r.value != Some(Value::Uint(u64::from(r.point.0))))
        .map(|r| (r.point.0, r.value.clone()))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} Good readings of {} are another register's: {:?}",
        wrong.len(),
        seen.readings.len(),
        wrong.last()
    );
}

/// Cuts are for ever.
#[tokio::test]
async fn requests_are_joined_again_when_a_device_has_stopped_refusing() {
    let (mut n, refuses) = (0, Arc::new(AtomicBool::new(true)));
    let still = refuses.clone();
    let (endpoint, _) = server(move |asked| {
        n += 1;
        let busy = still.load(SeqCst) && asked.pdu[4] > 1 && n % 7 == 0;
        at_once(asked, &if busy { vec![0x83, 2] } else { own_numbers(&asked.pdu) })
    })
    .await;
    let points = (0..60).map(|n| point(n, &format!("holding:{n}"), DataType::U16)).collect();
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    sleep(4000 * MS).await;
    refuses.store(false, SeqCst);
    sleep(12_000 * MS).await;
    let seen = running.seen();
    let last = seen.reports.last().unwrap();
    assert!(last.requests <= 2, "60 neighbours are read with {} requests, {:?}", last.requests, seen.counters);
}

/// A long cycle of one device is not interrupted for a fast one.
#[tokio::test]
async fn a_long_cycle_does_not_stall_a_fast_neighbour() {
    let (endpoint, _) =
        server(|asked| vec![(8 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
    let slow = (0..80)
        .map(|n| {
            let mut p = point(n, &format!("holding:{}", n * 50), DataType::U16);
            p.interval = 2000 * MS;
            p
        })
        .collect();
    let units = vec![device(1, slow), device(2, vec![point(100, "holding:7", DataType::U16)])];
    let running = Running::start(line(endpoint, units));
    running.until("six seconds", |s| s.good(0) >= 4).await;
    let seen = running.seen();
    let missed: u64 = seen.missed.iter().filter(|(d, _)| *d == 1).map(|(_, n)| n).sum();
    assert!(
        missed <= 6,
        "busy for {:?} of 2 s, and the 50 ms values of the neighbour missed {missed} polls in three cycles",
        seen.reports.iter().filter(|r| r.device == 0).map(|r| r.took).next_back()
    );
}

/// Writes are put together although the device takes one register at a time.
#[tokio::test]
async fn neighbouring_writes_to_a_device_that_takes_one_value_at_a_time_are_done() {
    let (endpoint, _) = server(|asked| {
        let pdu = if asked.pdu[0] == 16 { vec![0x90, 1] } else { own_numbers(&asked.pdu) };
        vec![(50 * MS, frame(asked.transaction, asked.unit, &pdu))]
    })
    .await;
    let points = [5, 6, 7].map(|n| point(n, &format!("holding:{n}"), DataType::U16));
    let mut unit = device(1, points.to_vec());
    unit.limits.single = true;
    let running = Running::start(line(endpoint, vec![unit]));
    running.until("up", |s| s.good(5) >= 1).await;
    let all = tokio::join!(
        running.write(5, Value::Uint(5), false),
        running.write(6, Value::Uint(6), false),
        running.write(7, Value::Uint(7), false)
    );
    assert_eq!(all, (WriteOutcome::Done, WriteOutcome::Done, WriteOutcome::Done));
}

/// A unit that was demoted before the link was lost, and is still dead after: nobody is told.
#[tokio::test]
async fn a_unit_still_dead_on_the_new_link_is_told_again() {
    let cut = Arc::new(AtomicBool::new(false));
    let cuts = cut.clone();
    let (endpoint, _) = server(move |asked| match asked.unit {
        2 => vec![],
        _ if cuts.swap(false, SeqCst) => vec![(Duration::ZERO, vec![0xFF; 64])],
        _ => at_once(asked, &own_numbers(&asked.pdu)),
    })
    .await;
    let units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    let running = Running::start(line(endpoint, units.to_vec()));
    running.until("demoted", |s| s.health.contains(&(1, Health::Demoted, Cause::NoAnswer))).await;
    cut.store(true, SeqCst);
    running.until("down", |s| s.downs().len() == 1).await;
    let told = running.seen().health.len();
    sleep(6000 * MS).await;
    let seen = running.seen();
    // The agent has set every device to Unknown and every tag to LinkDown when the link went down.
    assert!(seen.health[told..].contains(&(1, Health::Demoted, Cause::NoAnswer)), "{:?}", &seen.health[told..]);
}

/// A gateway that asks its serial line one after the other and takes 1.5 time limits to give up on a dead unit.
#[tokio::test]
async fn a_gateway_that_waits_for_a_dead_unit_does_not_cost_the_living_theirs() {
    let mut free = Instant::now();
    let (endpoint, _) = server(move |asked| {
        let now = Instant::now();
        free = free.max(now) + if asked.unit == 2 { 600 * MS } else { 5 * MS };
        let pdu = if asked.unit == 2 { vec![0x83, 11] } else { own_numbers(&asked.pdu) };
        vec![(free - now, frame(asked.transaction, asked.unit, &pdu))]
    })
    .await;
    let units = [1, 2, 3, 4].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    let running = Running::start(line(endpoint, units.to_vec()));
    sleep(12_000 * MS).await;
    let seen = running.seen();
    let wrongly: Vec<_> = seen.health.iter().filter(|(d, h, _)| *d != 1 && *h == Health::Demoted).collect();
    assert!(
        wrongly.is_empty() && seen.downs().is_empty(),
        "{} downs, living units demoted {} times, {:?}",
        seen.downs().len(),
        wrongly.len(),
        seen.counters
    );
}

/// The last words are lost with the link, and the machine goes on.
#[tokio::test]
async fn last_words_lost_with_the_link_are_said_once_more_on_a_new_one() {
    for deaf in [1, 2] {
        // So many connections are cut when the block comes.
        let (endpoint, asked) = server(move |asked| match (asked.pdu[0], asked.connection) {
            (16, n) if n < deaf => vec![(Duration::ZERO, vec![0xFF; 64])],
            _ => at_once(asked, &own_numbers(&asked.pdu)),
        })
        .await;
        let mut unit = device(1, vec![point(0, "input:7", DataType::U16)]);
        unit.commands = vec![(MachineId(0), 0)];
        let running = Running::start_with(line(endpoint, vec![unit]), Seen { machines: true, ..Seen::default() });
        running.until("up", |s| s.good(0) >= 3).await;
        running.seen().always = vec![BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] }];
        let seen = running.stop().await;
        let blocks = asked.lock().unwrap().iter().filter(|a| a.pdu[0] == 16).map(|a| a.connection).max();
        assert_eq!(blocks, Some(1), "once more, and not again");
        assert_eq!(seen.lock().unwrap().written.is_empty(), deaf == 2);
    }
}

/// A line that is down when it is to stop: its machines hear nothing.
#[tokio::test]
async fn last_words_are_tried_once_where_there_is_no_link() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (refused, wants) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, open) = (refused.clone(), wants.clone());
    let heard = Arc::new(AtomicUsize::new(0));
    let blocks = heard.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !open.load(SeqCst) {
                count.fetch_add(1, SeqCst);
                continue; // closed at once
            }
            let mut head = [0u8; 7];
            while stream.read_exact(&mut head).await.is_ok() {
                let mut pdu = vec![0; usize::from(head[5]) - 1];
                stream.read_exact(&mut pdu).await.unwrap();
                blocks.fetch_add(usize::from(pdu[0] == 16), SeqCst);
                let reply = frame(u16::from_be_bytes([head[0], head[1]]), head[6], &own_numbers(&pdu));
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    let mut unit = device(1, vec![point(0, "input:7", DataType::U16)]);
    unit.commands = vec![(MachineId(0), 0)];
    let block = BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] };
    let seen = Seen { machines: true, always: vec![block], ..Seen::default() };
    let running = Running::start_with(line(Endpoint::Tcp(at), vec![unit]), seen);
    running.until("down", |s| s.downs().len() >= 4).await;
    wants.store(true, SeqCst);
    let seen = running.stop().await;
    assert!(refused.load(SeqCst) >= 4);
    assert!(heard.load(SeqCst) >= 1 && !seen.lock().unwrap().written.is_empty());
}

/// While the last words wait for their answer the task spins.
#[tokio::test]
async fn stopping_does_not_spin() {
    let (endpoint, _) =
        server(|asked| if asked.pdu[0] == 16 { vec![] } else { at_once(asked, &own_numbers(&asked.pdu)) }).await;
    let mut unit = device(1, vec![point(0, "input:7", DataType::U16)]);
    unit.commands = vec![(MachineId(0), 0)];
    let mut spec = line(endpoint, vec![unit]);
    spec.timeout = 3000 * MS;
    let running = Running::start_with(spec, Seen { machines: true, ..Seen::default() });
    running.until("up", |s| s.good(0) >= 3).await;
    running.seen().to_write = vec![BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] }];
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let f: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|t| t.parse().unwrap()).collect();
        (f[0] + f[1]) * 10
    };
    let (before, began) = (cpu(), Instant::now());
    running.stop().await;
    let (spent, took) = (cpu() - before, began.elapsed());
    assert!(spent < 300, "{spent} ms of CPU in {took:?} of stopping");
}

/// Not a number becomes the smallest number, Good.
#[test]
fn not_a_number_is_not_shown_as_the_lower_limit() {
    let scale = |clamp: (f64, f64)| {
        let clamp = Some((clamp.0.into(), clamp.1.into()));
        Some(Box::new(Scale { factor: 1.0, offset: 0.0, clamp }))
    };
    let mut format = Format::plain(DataType::F32);
    format.scale = scale((0.0, 100.0));
    let nan = f32::NAN.to_bits().to_be_bytes();
    let got = format.decode(&nan).value();
    format.scale = scale((f64::NEG_INFINITY, 100.0));
    let open = format.decode(&nan).value();
    let is_low = |v: &Option<Value>, low: f64| v.as_ref().and_then(Value::as_f64) == Some(low);
    assert!(
        !is_low(&got, 0.0) && !is_low(&open, f64::NEG_INFINITY),
        "NaN is shown as {got:?}; with max alone {open:?}"
    );
}

/// 95 is within a maximum of 95, and 100 is what the device gets.
#[test]
fn rounding_does_not_carry_a_write_past_its_limit() {
    let mut format = Format::plain(DataType::U16);
    format.scale = Some(Box::new(Scale { factor: 10.0, offset: 0.0, clamp: None }));
    let why = format.encode(&Value::Uint(95)).unwrap_err();
    assert_eq!(why, "95 lies between two steps of the device, 90 and 100");
    assert_eq!(format.encode(&Value::Uint(90)), Ok(vec![9]));
}

/// A healthy pipelined unit is demoted by one stall, which is one event, not two misses in a row.
#[tokio::test]
async fn one_stall_of_a_pipelined_unit_does_not_demote_it() {
    let n = Arc::new(AtomicUsize::new(0));
    let stalled = n.clone();
    let (endpoint, _) = server(move |asked| {
        if asked.unit == 1 {
            return at_once(asked, &own_numbers(&asked.pdu));
        }
        let n = stalled.fetch_add(1, SeqCst);
        if (40..44).contains(&n) {
            vec![]
        } else {
            vec![(5 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]
        }
    })
    .await;
    let points = (0..4).map(|n| point(n, &format!("holding:{}", n * 100), DataType::U16)).collect();
    let mut spec = line(endpoint, vec![device(2, points), device(1, vec![point(9, "holding:1", DataType::U16)])]);
    spec.pipeline = 8;
    let running = Running::start(spec);
    running.until("past the stall", |s| s.counters.timeouts >= 4).await;
    sleep(300 * MS).await;
    let seen = running.seen();
    assert!(!seen.health.iter().any(|h| h.1 == Health::Demoted), "{:?}", seen.health);
}

/// A unit that says nothing to one request, and answers all others.
#[tokio::test]
async fn a_request_that_is_never_answered_does_not_cost_those_behind_it() {
    let (endpoint, _) =
        server(
            |asked| {
                if asked.unit == 2 && asked.pdu[2] == 100 { vec![] } else { at_once(asked, &own_numbers(&asked.pdu)) }
            },
        )
        .await;
    let points = [0, 100, 200].map(|n| point(n, &format!("holding:{n}"), DataType::U16));
    let units = vec![device(2, points.to_vec()), device(1, vec![point(9, "holding:9", DataType::U16)])];
    let running = Running::start(line(endpoint, units));
    sleep(6000 * MS).await;
    let seen = running.seen();
    let (first, last) = (seen.good(0), seen.good(200));
    assert!(
        last > 0 && seen.last(100).is_some(),
        "holding:0 was read {first} times, holding:200 {last} times; of holding:100 is told {:?}; {:?}",
        seen.last(100),
        seen.health
    );
}

/// Eight replies of one unit that are no answers end the link for all.
#[tokio::test]
async fn one_unit_that_answers_nonsense_does_not_end_the_link() {
    let (endpoint, _) =
        server(|asked| at_once(asked, &if asked.unit == 2 { vec![3, 4, 0, 1, 0, 2] } else { own_numbers(&asked.pdu) }))
            .await;
    let mut units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    units[0].points[0].interval = 5000 * MS;
    let running = Running::start(line(endpoint, units.to_vec()));
    sleep(4000 * MS).await;
    let seen = running.seen();
    assert!(seen.downs().is_empty(), "{} times down: {:?}", seen.downs().len(), seen.downs().last());
}

/// Writes.rs says that two writes to one register keep their order.
#[tokio::test]
async fn overlapping_writes_keep_their_order() {
    let (endpoint, asked) =
        server(|asked| vec![(60 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
    let mut points = vec![
        point(20, "holding:20", DataType::U16),
        point(21, "holding:21", DataType::U32),
        point(22, "holding:22", DataType::U16),
    ];
    points.iter_mut().for_each(|p| p.interval = 10_000 * MS);
    points.push(point(0, "holding:400", DataType::U16));
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    running.until("up", |s| s.good(0) >= 1).await;
    let done = tokio::join!(
        biased;
        running.write(20, Value::Uint(1), false),
        running.write(22, Value::Uint(0xAAAA), false),
        running.write(21, Value::Uint(0xBBBB_BBBB), false)
    );
    assert_eq!(done, (WriteOutcome::Done, WriteOutcome::Done, WriteOutcome::Done));
    let mut register = 0;
    for a in asked.lock().unwrap().iter() {
        let (f, start) = (a.pdu[0], u16::from(a.pdu[2]));
        let words: Vec<u16> = match f {
            6 => vec![u16::from_be_bytes([a.pdu[3], a.pdu[4]])],
            16 => a.pdu[6..].chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect(),
            _ => continue,
        };
        for (n, w) in words.iter().enumerate() {
            if start + n as u16 == 22 {
                register = *w;
            }
        }
    }
    assert_eq!(register, 0xBBBB, "the last write was 0xBBBB");
}
