//! What registers mean beside their bits: a scale factor in a register of its own (SunSpec), patterns of absent values.

mod line;

use device_drivers::Value;
use device_drivers::modbus::{Absent, DataType, Format, PointSpec, Special};
use device_drivers::value::{Cause, Quality};
use line::{Asked, Running, at_once, device, line, point, server};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A point that is multiplied by ten to the power that stands at `power`.
fn scaled(id: u32, address: &str, power: &str) -> PointSpec {
    let special = Special { absent: Absent::default(), power: Some(power.parse().unwrap()) };
    let format = Format { special: Some(special.into()), ..Format::plain(DataType::I16) };
    PointSpec { format, ..point(id, address, DataType::I16) }
}

/// Registers by a rule.
fn answer(asked: &Asked, register: impl Fn(u16) -> u16) -> line::Sends {
    let word = |at: usize| u16::from_be_bytes([asked.pdu[at], asked.pdu[at + 1]]);
    let mut pdu = vec![asked.pdu[0], (word(3) * 2) as u8];
    pdu.extend((0..word(3)).flat_map(|n| register(word(1) + n).to_be_bytes()));
    at_once(asked, &pdu)
}

#[tokio::test]
async fn a_scale_factor_is_of_the_same_read_as_what_it_scales() {
    // The device changes its mind with every request: 2301 x 0.1 is 23010 x 0.01.
    let asks = AtomicU16::new(0);
    let (endpoint, log) = server(move |asked| {
        let fine = asks.fetch_add(1, Relaxed) % 2 == 1;
        answer(asked, |register| match register {
            0 if fine => 23010,
            0 => 2301,
            1 if fine => (-2i16).cast_unsigned(),
            _ => (-1i16).cast_unsigned(),
        })
    })
    .await;
    let points = vec![scaled(0, "holding:0", "holding:1"), point(1, "holding:1", DataType::I16)];
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    running.until("twenty values", |s| s.good(0) >= 20 && s.good(1) >= 20).await;
    let seen = running.stop().await;
    let seen = seen.lock().unwrap();
    let values = |id: u32| seen.readings.iter().filter(move |r| r.point.0 == id).filter_map(|r| r.value.clone());
    assert!(values(0).all(|v| v == Value::Float(230.1)), "{:?}", values(0).collect::<Vec<_>>());
    let powers: BTreeSet<String> = values(1).map(|v| v.to_string()).collect();
    assert_eq!(powers.len(), 2, "and the factor is a tag of its own as well: {powers:?}");
    let asked: BTreeSet<Vec<u8>> = log.lock().unwrap().iter().map(|a| a.pdu.clone()).collect();
    assert_eq!(asked, BTreeSet::from([vec![3, 0, 0, 0, 2]]), "one request has both");
}

#[tokio::test]
async fn a_scale_factor_that_stands_far_away_is_of_the_same_poll_as_what_it_scales() {
    // The device changes its mind with every poll, which begins with the value in front of the factor.
    let polls = AtomicU16::new(0);
    let (endpoint, _) = server(move |asked| {
        let begins = u16::from(asked.pdu[1..3] == [0, 0]);
        let fine = (polls.fetch_add(begins, Relaxed) + begins) % 2 == 1;
        answer(asked, |register| match (register, fine) {
            (500, true) => (-2i16).cast_unsigned(),
            (500, false) => (-1i16).cast_unsigned(),
            (_, true) => 23010,
            (_, false) => 2301,
        })
    })
    .await;
    let points = vec![scaled(0, "holding:0", "holding:500"), scaled(1, "holding:900", "holding:500")];
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    running.until("twenty values", |s| s.good(0) >= 20 && s.good(1) >= 20).await;
    let seen = running.stop().await;
    let seen = seen.lock().unwrap();
    let values: Vec<_> = seen.readings.iter().filter_map(|r| r.value.clone()).collect();
    assert!(values.iter().all(|v| *v == Value::Float(230.1)), "{values:?}");
}

#[tokio::test]
async fn a_value_is_as_absent_as_its_scale_factor_and_comes_back_with_it() {
    // The factor stands far away, in a request of its own; two values share it, one before and one behind it.
    let power = Arc::new(AtomicU16::new((-1i16).cast_unsigned()));
    let told = power.clone();
    let (endpoint, _) = server(move |asked| {
        let now = told.load(Relaxed);
        if now == 1 && asked.pdu[1..3] == 500u16.to_be_bytes() {
            return at_once(asked, &[0x83, 2]); // it is not even there
        }
        answer(asked, |register| if register == 500 { now } else { 5 })
    })
    .await;
    let points = vec![
        scaled(0, "holding:0", "holding:500"),
        scaled(1, "holding:900", "holding:500"),
        point(2, "holding:901", DataType::U16),
    ];
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    let all = |value: Option<Value>, cause: Cause| {
        move |s: &line::Seen| {
            let is = |id| s.last(id).is_some_and(|r| r.value == value && r.cause == cause);
            is(0) && is(1) && s.last(2).is_some_and(|r| r.quality == Quality::Good)
        }
    };
    running.until("both scaled", all(Some(Value::Float(0.5)), Cause::None)).await;
    for absent in [0x8000, 11, 1] {
        power.store(absent, Relaxed);
        running.until("both absent", all(None, Cause::NoScale)).await;
        power.store(2, Relaxed);
        if absent != 1 {
            running.until("both back", all(Some(Value::Float(500.0)), Cause::None)).await;
        }
    }
    running.stop().await;
}
