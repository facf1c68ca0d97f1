//! What units, gateways and networks do wrong, and what may not come of it. Each test is a complaint of somebody's users
//! about another product.

mod line;
mod serial;

use device_drivers::modbus::{DataType, Endpoint};
use device_drivers::value::{Cause, Quality};
use device_drivers::{Health, LinkState, Value, WriteOutcome};
use line::{Running, Seen, at_once, device, frame, line, own_numbers, point, server};
use serial::rtu;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

fn ups(seen: &Seen) -> usize {
    seen.links.iter().filter(|(s, _)| *s == LinkState::Up).count()
}

#[tokio::test]
async fn a_dead_unit_does_not_close_the_line_and_its_neighbours_stay_on_time() {
    let revived = Arc::new(AtomicBool::new(false));
    let alive = revived.clone();
    let (endpoint, asked) = server(move |asked| {
        let dead = asked.unit == 2 && !alive.load(SeqCst);
        if dead { vec![] } else { at_once(asked, &own_numbers(&asked.pdu)) }
    })
    .await;
    let units = [1, 2, 3].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
    let running = Running::start(line(endpoint, units.to_vec()));
    running.until("the dead unit is demoted", |s| s.health.contains(&(1, Health::Demoted, Cause::NoAnswer))).await;
    running.until("its tag is Bad", |s| s.last(2).is_some_and(|r| r.cause == Cause::NoAnswer)).await;
    let (before, probes) = {
        let seen = running.seen();
        (seen.reports.len(), asked.lock().unwrap().iter().filter(|a| a.unit == 2).count())
    };
    running.until("a hundred polls more", |s| s.reports.len() >= before + 100).await;
    {
        let seen = running.seen();
        assert_eq!((ups(&seen), seen.downs().len()), (1, 0), "the line was never closed");
        let missed: u64 = seen.missed.iter().filter(|(device, _)| *device != 1).map(|(_, n)| n).sum();
        // What a busy machine costs is seen in both; a stall of 400 ms a cycle would cost eight polls each time.
        assert!(missed <= 8, "healthy neighbours missed {missed} polls");
        let more = asked.lock().unwrap().iter().filter(|a| a.unit == 2).count() - probes;
        assert!(more <= 4, "a demoted unit was asked {more} times in a hundred polls");
    }
    revived.store(true, SeqCst);
    running.until("it comes back", |s| s.health.last() == Some(&(1, Health::Healthy, Cause::None))).await;
    running.until("with its value", |s| s.last(2).is_some_and(|r| r.value == Some(Value::Uint(7)))).await;
}

#[tokio::test]
async fn a_line_on_which_nobody_answers_is_made_anew() {
    let (endpoint, asked) = server(|asked| match asked.connection {
        0 => vec![], // half open: takes everything, says nothing
        _ => at_once(asked, &own_numbers(&asked.pdu)),
    })
    .await;
    let running = Running::start(line(endpoint, vec![device(1, vec![point(0, "holding:9", DataType::U16)])]));
    running.until("a value from the second connection", |s| s.good(0) >= 1).await;
    let seen = running.seen();
    assert!(seen.downs()[0].contains("did not answer read of holding:9..9 at unit 1 within"), "{:?}", seen.downs());
    let first: usize = asked.lock().unwrap().iter().filter(|a| a.connection == 0).count();
    assert_eq!(first, 2, "one second try, no more");
}

/// Found by running the bank's own faults: while one unit is waited for the others may be waiting behind it, and none of them is to blame;
/// so nobody was, and the line stayed dead for ever.
#[tokio::test]
async fn a_connection_that_goes_dead_under_several_units_is_made_anew() {
    for pipeline in [1, 4] {
        let (endpoint, _) = server(|asked| at_once(asked, &own_numbers(&asked.pdu))).await;
        let Endpoint::Tcp(upstream) = endpoint else { panic!() };
        let deaf = Arc::new(AtomicBool::new(false));
        let (through, is_deaf) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), deaf.clone());
        let at = through.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = through.accept().await.unwrap();
                let (mut far, deaf) = (tokio::net::TcpStream::connect(&upstream).await.unwrap(), is_deaf.clone());
                tokio::spawn(async move {
                    let (mut near_read, mut near_write) = near.split();
                    let (mut far_read, mut far_write) = far.split();
                    let mut chunk = [0u8; 512];
                    let back = async {
                        while let Ok(n @ 1..) = far_read.read(&mut chunk).await {
                            if !deaf.load(SeqCst) && near_write.write_all(&chunk[..n]).await.is_err() {
                                break;
                            }
                        }
                    };
                    let _ = tokio::join!(tokio::io::copy(&mut near_read, &mut far_write), back);
                });
            }
        });
        let units = [1, 2, 3].map(|u| device(u, vec![point(u32::from(u), "holding:7", DataType::U16)]));
        let mut spec = line(Endpoint::Tcp(at), units.to_vec());
        spec.pipeline = pipeline;
        let running = Running::start(spec);
        running.until("all", |s| (1..4).all(|n| s.good(n) >= 5)).await;
        deaf.store(true, SeqCst);
        running.until("it is noticed", |s| !s.downs().is_empty()).await;
        deaf.store(false, SeqCst);
        let before = running.seen().good(1);
        running.until("it is well again", |s| s.good(1) >= before + 5).await;
        assert!(running.seen().downs()[0].contains("did not answer"), "{:?}", running.seen().downs());
    }
}

#[tokio::test]
async fn a_flood_of_replies_that_nobody_has_asked_for_ends_the_connection_and_is_backed_off() {
    let (endpoint, _) = server(|asked| {
        let strange = frame(asked.transaction.wrapping_add(9), asked.unit, &[3, 2, 0xBA, 0xD0]);
        [at_once(asked, &own_numbers(&asked.pdu)), vec![(Duration::ZERO, strange.repeat(100_000))]].concat()
    })
    .await;
    let running = Running::start(line(endpoint, vec![device(1, vec![point(0, "holding:9", DataType::U16)])]));
    running.until("three connections", |s| s.downs().len() >= 3).await;
    let seen = running.stop().await;
    let seen = seen.lock().unwrap();
    assert!(seen.downs().iter().all(|why| why.contains("nobody has asked for")), "{:?}", seen.downs());
    // Each connection was ended long before its flood was: a hundred thousand are sent over each.
    let most = 5001 * u64::try_from(ups(&seen)).unwrap();
    assert!(seen.counters.dropped <= most, "{:?} over {} connections", seen.counters, ups(&seen));
    assert!(seen.good(0) >= 1, "what was asked for is taken");
}

/// Without transactions nobody can tell which bytes were asked for: more of them than any serial line carries were not.
#[tokio::test]
async fn a_flood_on_a_line_without_transactions_ends_the_connection_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0u8; 8];
            // First what was asked for, then the flood.
            for more in [0, 8 << 20].into_iter().cycle() {
                if stream.read_exact(&mut request).await.is_err() {
                    break;
                }
                let said = [rtu(request[0], &own_numbers(&request[1..6])), vec![0x55; more]].concat();
                if stream.write_all(&said).await.is_err() {
                    break;
                }
            }
        }
    });
    let running =
        Running::start(line(Endpoint::RtuOverTcp(at), vec![device(1, vec![point(0, "holding:9", DataType::U16)])]));
    running.until("three connections", |s| s.downs().len() >= 3).await;
    let seen = running.seen();
    assert!(seen.downs().iter().all(|why| why.contains("nobody has asked for")), "{:?}", seen.downs());
    assert!(seen.good(0) >= 1, "what was asked for is taken");
}

#[tokio::test]
async fn late_duplicate_and_foreign_replies_are_dropped_by_their_transaction() {
    let mut n = 0u16;
    let (endpoint, asked) = server(move |asked| {
        n += 1;
        let good = frame(asked.transaction, asked.unit, &[3, 2, (n >> 8) as u8, n as u8]);
        let wrong = |transaction, unit| (Duration::ZERO, frame(transaction, unit, &[3, 2, 0xBA, 0xD0]));
        match n % 6 {
            1 => vec![wrong(asked.transaction.wrapping_add(1), asked.unit), (Duration::ZERO, good)],
            2 => vec![(Duration::ZERO, good.clone()), (Duration::ZERO, good)],
            3 => vec![wrong(asked.transaction, 99), (Duration::ZERO, good)],
            4 => vec![(300 * MS, good)], // slow, but in time
            5 => vec![(700 * MS, good)], // later than the time limit
            _ => vec![(Duration::ZERO, good)],
        }
    })
    .await;
    // A neighbour keeps the line alive.
    let devices = vec![
        device(1, vec![point(0, "holding:0", DataType::U16)]),
        device(2, vec![point(1, "holding:0", DataType::U16)]),
    ];
    let running = Running::start(line(endpoint, devices));
    running.until("many values", |s| s.good(0) + s.good(1) >= 40).await;
    running.until("dropped replies", |s| s.counters.dropped >= 8 && s.counters.timeouts >= 2).await;
    let seen = running.seen();
    assert_eq!(seen.downs().len(), 0, "{:?}", seen.downs());
    // Each value belongs to one request: none comes twice, none out of the blue.
    let mut values = HashMap::new();
    for reading in seen.readings.iter().filter(|r| r.quality == Quality::Good) {
        let Some(Value::Uint(value)) = reading.value else { panic!("{reading:?}") };
        let asked = asked.lock().unwrap()[value as usize - 1].clone();
        assert_eq!(u32::from(asked.unit) - 1, reading.point.0, "value {value} went to the unit that was asked");
        assert!(values.insert(value, ()).is_none(), "value {value} was taken twice");
    }
}

#[tokio::test]
async fn one_bad_address_costs_its_neighbours_nothing_and_is_found_again_when_it_comes() {
    let mended = Arc::new(AtomicBool::new(false));
    let good = mended.clone();
    let (endpoint, asked) = server(move |asked| {
        let (start, count) = (u16::from(asked.pdu[2]), u16::from(asked.pdu[4]));
        let touches = (start..start + count).contains(&41);
        at_once(asked, &if touches && !good.load(SeqCst) { vec![0x83, 2] } else { own_numbers(&asked.pdu) })
    })
    .await;
    let points = (0..60).map(|n| point(n, &format!("holding:{n}"), DataType::U16)).collect();
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    running.until("all others in the first poll", |s| !s.reports.is_empty()).await;
    {
        let seen = running.seen();
        let polled = seen.reports.len();
        let fine = (0..60).filter(|n| seen.good(*n) == polled).count();
        assert_eq!(fine, 59, "no value but the bad one was lost, not even once");
        assert_eq!(seen.last(41).map(|r| (r.quality, r.cause)), Some((Quality::Bad, Cause::Exception(2))));
    }
    let first = running.seen().reports[0].requests;
    running.until("later polls", |s| s.reports.len() >= 5).await;
    assert_eq!(running.seen().reports[4].requests, 2, "left and right of it; the first poll took {first}");
    running.until("it is counted", |s| s.counters.quarantined == 1).await;
    let touched = asked.lock().unwrap().iter().rev().take(6).filter(|a| a.pdu[2] == 41).count();
    assert_eq!(touched, 0, "it is left alone until its probe");
}

#[tokio::test]
async fn a_line_that_comes_back_asks_for_quarantined_values_at_once() {
    let (endpoint, _) = server(|asked| {
        let refuses = asked.connection == 0 && asked.pdu[2] == 1;
        at_once(asked, &if refuses { vec![0x83, 2] } else { own_numbers(&asked.pdu) })
    })
    .await;
    let unit = device(1, vec![point(0, "holding:0", DataType::U16), point(1, "holding:1", DataType::U16)]);
    let mut spec = line(endpoint.clone(), vec![unit]);
    spec.devices[0].limits.single = true;
    // Through a proxy that can cut.
    let Endpoint::Tcp(upstream) = endpoint else { panic!() };
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    spec.endpoint = Endpoint::Tcp(proxy.local_addr().unwrap().to_string());
    let (cut, mut cuts) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = proxy.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(&upstream).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cuts.recv() => {}
            }
        }
    });
    let running = Running::start(spec);
    running.until("refused", |s| s.last(1).is_some_and(|r| r.cause == Cause::Exception(2))).await;
    let before = running.seen().reports.len();
    cut.send(()).await.unwrap();
    running.until("back", |s| s.last(1).is_some_and(|r| r.value == Some(Value::Uint(1)))).await;
    let polls = running.seen().reports.len() - before;
    assert!(polls < 60, "it waited {polls} polls for its probe, which are ten seconds and not a new link");
}

#[tokio::test]
async fn what_a_gateway_says_of_a_unit_behind_it_concerns_that_unit_alone() {
    let (endpoint, asked) =
        server(|asked| at_once(asked, &if asked.unit == 2 { vec![0x83, 11] } else { own_numbers(&asked.pdu) })).await;
    let units = [1, 2].map(|u| device(u, vec![point(u32::from(u), "holding:3", DataType::U16)]));
    let running = Running::start(line(endpoint, units.to_vec()));
    running.until("demoted", |s| s.health.contains(&(1, Health::Demoted, Cause::Exception(11)))).await;
    running.until("the neighbour goes on", |s| s.good(1) >= 30).await;
    assert_eq!(running.seen().last(2).unwrap().cause, Cause::Exception(11));
    assert!(asked.lock().unwrap().iter().filter(|a| a.unit == 2).count() <= 6, "asked less and less");
}

#[tokio::test]
async fn a_busy_device_is_uncertain_and_keeps_its_last_value() {
    let mut n = 0;
    let (endpoint, _) = server(move |asked| {
        n += 1;
        at_once(asked, &if n > 3 { vec![0x83, 6] } else { own_numbers(&asked.pdu) })
    })
    .await;
    let running = Running::start(line(endpoint, vec![device(1, vec![point(0, "holding:5", DataType::U16)])]));
    running.until("busy", |s| s.last(0).is_some_and(|r| r.cause == Cause::Exception(6))).await;
    let seen = running.seen();
    let last = seen.last(0).unwrap();
    assert_eq!((last.quality, last.value.clone()), (Quality::Uncertain, None), "no value: the last one stands");
}

/// The most requests that were on their way at once, as counted by a server that answers each after 20 ms.
async fn most_at_once(pipeline: u8) -> usize {
    let most = Arc::new(Mutex::new(0));
    let (counted, mut answers_at) = (most.clone(), Vec::<Instant>::new());
    let (endpoint, _) = server(move |asked| {
        answers_at.retain(|at| *at > Instant::now());
        answers_at.push(Instant::now() + 20 * MS);
        let mut most = counted.lock().unwrap();
        *most = answers_at.len().max(*most);
        vec![(20 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]
    })
    .await;
    let points = (0..20).map(|n| point(n, &format!("holding:{}", n * 100), DataType::U16)).collect();
    let mut spec = line(endpoint, vec![device(1, points)]);
    (spec.pipeline, spec.timeout) = (pipeline, Duration::from_secs(10));
    let running = Running::start(spec);
    running.until("two polls", |s| s.reports.len() >= 2).await;
    assert_eq!(running.seen().good(19), 2, "answers went to their requests");
    *most.lock().unwrap()
}

#[tokio::test]
async fn one_request_at_a_time_unless_more_are_opted_in() {
    assert_eq!(most_at_once(1).await, 1);
    assert_eq!(most_at_once(8).await, 8);
}

#[tokio::test]
async fn a_demoted_unit_is_asked_one_thing_at_a_time_however_much_is_due() {
    let asks = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let log = asks.clone();
    let (endpoint, _) = server(move |asked| {
        if asked.unit == 2 {
            log.lock().unwrap().push(Instant::now());
            return vec![];
        }
        at_once(asked, &own_numbers(&asked.pdu))
    })
    .await;
    let interval = |n: u32| {
        let mut p = point(10 + n, &format!("holding:{}", n * 200), DataType::U16);
        p.interval = Duration::from_millis(50 + u64::from(n));
        p
    };
    let silent = device(2, (0..6).map(interval).collect());
    let mut spec = line(endpoint, vec![device(1, vec![point(0, "holding:0", DataType::U16)]), silent]);
    (spec.pipeline, spec.timeout) = (8, Duration::from_secs(1));
    let running = Running::start(spec);
    running.until("demoted", |s| s.health.contains(&(1, Health::Demoted, Cause::NoAnswer))).await;
    let at_demotion = asks.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let probes: Vec<Instant> = asks.lock().unwrap()[at_demotion..].to_vec();
    assert!(!probes.is_empty(), "it is probed");
    // A probe takes half a second to be given up; nothing else is asked of the unit in that time.
    assert!(probes.windows(2).all(|w| w[1] - w[0] >= Duration::from_millis(300)), "{probes:?}");
}

#[tokio::test]
async fn tags_are_written_before_the_next_read_and_read_back() {
    let registers = Arc::new(Mutex::new(HashMap::from([(5u16, 0u16)])));
    let memory = registers.clone();
    let (endpoint, asked) = server(move |asked| {
        let word = |at: usize| u16::from_be_bytes([asked.pdu[at], asked.pdu[at + 1]]);
        let mut memory = memory.lock().unwrap();
        let pdu = match asked.pdu[0] {
            6 if word(1) == 6 => vec![0x86, 4],
            6 if word(1) == 7 => return vec![],
            6 => {
                memory.insert(word(1), word(3).min(1000)); // it clamps
                asked.pdu.clone()
            }
            3 => {
                let mut pdu = vec![3, (word(3) * 2) as u8];
                pdu.extend((0..word(3)).flat_map(|n| memory.get(&(word(1) + n)).copied().unwrap_or(0).to_be_bytes()));
                pdu
            }
            _ => vec![asked.pdu[0] | 0x80, 1],
        };
        at_once(asked, &pdu)
    })
    .await;
    let points =
        (5..8).map(|n| point(n, &format!("holding:{n}"), DataType::U16)).chain([point(9, "input:9", DataType::U16)]);
    let running = Running::start(line(endpoint, vec![device(1, points.collect())]));
    running.until("up", |s| ups(s) == 1).await;
    assert_eq!(running.write(5, Value::Uint(77), true).await, WriteOutcome::Done);
    assert_eq!(running.write(5, Value::Uint(2000), true).await, WriteOutcome::Differs(Value::Uint(1000)));
    assert_eq!(running.write(6, Value::Uint(1), true).await, WriteOutcome::Refused(Cause::Exception(4)));
    assert_eq!(running.write(7, Value::Uint(1), true).await, WriteOutcome::Unknown, "sent, and never answered");
    assert!(matches!(running.write(5, Value::Int(-1), true).await, WriteOutcome::Invalid(_)));
    assert!(matches!(running.write(9, Value::Int(1), true).await, WriteOutcome::Invalid(_)), "input registers");
    let sevens = asked.lock().unwrap().iter().filter(|a| a.pdu[0] == 6 && a.pdu[2] == 7).count();
    assert_eq!(sevens, 1, "an unanswered write is not sent again");
}

#[tokio::test]
async fn a_write_to_a_line_that_is_down_is_refused_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unit = device(1, vec![point(0, "holding:0", DataType::U16)]);
    let running = Running::start(line(Endpoint::Tcp(format!("127.0.0.1:{port}")), vec![unit]));
    running.until("down", |s| !s.downs().is_empty()).await;
    assert_eq!(running.write(0, Value::Uint(1), true).await, WriteOutcome::LinkDown);
}

#[tokio::test]
async fn garbage_in_the_stream_ends_the_link_and_frames_too_many_do_not() {
    let (endpoint, _) = server(|asked| match asked.connection {
        0 => vec![(Duration::ZERO, vec![0xFF; 64])],
        _ => {
            let flood: Vec<u8> = (0..100).flat_map(|n| frame(0x4000 + n, 9, &[3, 2, 1, 1])).collect();
            vec![
                (Duration::ZERO, flood),
                (Duration::ZERO, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu))),
            ]
        }
    })
    .await;
    let running = Running::start(line(endpoint, vec![device(1, vec![point(0, "holding:3", DataType::U16)])]));
    running.until("values between them", |s| s.good(0) >= 5).await;
    let seen = running.seen();
    assert_eq!(seen.downs().len(), 1, "{:?}", seen.downs());
    assert!(seen.downs()[0].contains("protocol id 65535, expected 0"), "{:?}", seen.downs());
}

/// Neuron burns a core on a timer for each group; here what is not due costs nothing. Counted in wake-ups, which no busy machine changes.
#[tokio::test]
async fn five_thousand_idle_groups_wake_nobody() {
    let (endpoint, _) = server(|asked| at_once(asked, &own_numbers(&asked.pdu))).await;
    let units: Vec<_> = (1..=200u8)
        .map(|unit| {
            let mut points: Vec<_> =
                (0..25).map(|n| point(u32::from(unit) * 100 + n, "holding:7", DataType::U16)).collect();
            points.iter_mut().zip(0..).for_each(|(p, n)| p.interval = Duration::from_secs(3600 + n));
            device(unit, points)
        })
        .collect();
    let mut spec = line(endpoint, units);
    spec.pipeline = 8;
    let running = Running::start(spec);
    running.until("each has been read", |s| s.readings.len() >= 5000).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_count(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let woken = metrics.worker_park_count(0) - before;
    assert!(woken < 200, "{woken} times in 2 s; the sweep alone is 40");
}
