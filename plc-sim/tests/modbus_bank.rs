//! The bank answers like a PLC, and says what its signal says: bytes in, bytes out, over a raw socket.
//! Numbers in the names of rows are clauses of the Modbus Application Protocol V1.1b3.

mod wire;

use plc_sim::bank::{Bank, BankConfig, BankDevice, FaultScript, Shape, signal};
use plc_sim::modbus::{End, Framing, Options, converse, crc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Client, STILL, read, still, words, write};

async fn bank() -> Bank {
    still(BankConfig { units: 3, registers: 200, ..BankConfig::default() }).await
}

#[tokio::test]
async fn every_illegal_request_gets_the_exception_the_specification_asks_for() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    let rows: &[(&str, &[u8], &[u8])] = &[
        ("6.1 quantity 0", &[1, 0, 0, 0, 0], &[0x81, 3]),
        ("6.1 quantity 2001", &[1, 0, 0, 0x07, 0xD1], &[0x81, 3]),
        ("6.1 beyond the last coil", &[1, 0, 199, 0, 2], &[0x81, 2]),
        ("6.2 quantity 0", &[2, 0, 0, 0, 0], &[0x82, 3]),
        ("6.2 quantity 2001", &[2, 0, 0, 0x07, 0xD1], &[0x82, 3]),
        ("6.2 beyond the last input", &[2, 0, 200, 0, 1], &[0x82, 2]),
        ("6.3 quantity 0", &[3, 0, 0, 0, 0], &[0x83, 3]),
        ("6.3 quantity 126", &[3, 0, 0, 0, 126], &[0x83, 3]),
        ("6.3 quantity 65535", &[3, 0, 0, 0xFF, 0xFF], &[0x83, 3]),
        ("6.3 beyond the last register", &[3, 0, 199, 0, 2], &[0x83, 2]),
        ("6.3 wraps past 65535", &[3, 0xFF, 0xFF, 0, 2], &[0x83, 2]),
        ("6.3 too short", &[3, 0, 0, 0], &[0x83, 3]),
        ("6.3 too long", &[3, 0, 0, 0, 1, 0], &[0x83, 3]),
        ("6.4 quantity 126", &[4, 0, 0, 0, 126], &[0x84, 3]),
        ("6.4 beyond the stamp", &[4, 0, 200, 0, 9], &[0x84, 2]),
        ("6.4 wraps past 65535", &[4, 0xFF, 0xFF, 0, 2], &[0x84, 2]),
        ("6.5 value neither 0000 nor FF00", &[5, 0, 0, 0x12, 0x34], &[0x85, 3]),
        ("6.5 no such coil", &[5, 0, 200, 0xFF, 0], &[0x85, 2]),
        ("6.6 too short", &[6, 0, 0, 0], &[0x86, 3]),
        ("6.6 no such register", &[6, 0, 200, 0, 1], &[0x86, 2]),
        ("6.11 quantity 0", &[15, 0, 0, 0, 0, 0], &[0x8F, 3]),
        ("6.11 quantity 1969", &[15, 0, 0, 0x07, 0xB1, 247, 0], &[0x8F, 3]),
        ("6.11 byte count does not fit", &[15, 0, 0, 0, 8, 2, 1, 1], &[0x8F, 3]),
        ("6.11 beyond the last coil", &[15, 0, 199, 0, 2, 1, 3], &[0x8F, 2]),
        ("6.12 quantity 0", &[16, 0, 0, 0, 0, 0], &[0x90, 3]),
        ("6.12 quantity 124", &[16, 0, 0, 0, 124, 248], &[0x90, 3]),
        ("6.12 quantity 32768", &[16, 0, 0, 0x80, 0, 0, 1, 2], &[0x90, 3]),
        ("6.12 byte count does not fit", &[16, 0, 0, 0, 2, 2, 0, 1], &[0x90, 3]),
        ("6.12 fewer bytes than counted", &[16, 0, 0, 0, 2, 4, 0, 1], &[0x90, 3]),
        ("6.12 beyond the last register", &[16, 0, 199, 0, 2, 4, 0, 1, 0, 2], &[0x90, 2]),
        ("6.16 too short", &[22, 0, 0, 0, 0, 0], &[0x96, 3]),
        ("6.16 no such register", &[22, 0, 200, 0, 0, 0, 0], &[0x96, 2]),
        ("6.17 read quantity 126", &[23, 0, 0, 0, 126, 0, 0, 0, 1, 2, 0, 1], &[0x97, 3]),
        ("6.17 write quantity 122", &[23, 0, 0, 0, 1, 0, 0, 0, 122, 244, 0, 1], &[0x97, 3]),
        ("6.17 read beyond the last register", &[23, 0, 199, 0, 2, 0, 0, 0, 1, 2, 0, 1], &[0x97, 2]),
        ("6.17 write beyond the last register", &[23, 0, 0, 0, 1, 0, 199, 0, 2, 4, 0, 1, 0, 1], &[0x97, 2]),
        ("4 no such function", &[0x2B, 0x0E, 1, 0], &[0xAB, 1]),
        ("4 function 0", &[0, 1, 2], &[0x80, 1]),
        ("4 function 0x90 is an exception, not a request", &[0x90, 0], &[0x90, 1]),
    ];
    for (name, request, want) in rows {
        assert_eq!(client.ask(2, request).await, *want, "{name}");
    }
    for unit in [0, 4, 255] {
        assert_eq!(client.ask(unit, &read(3, 0, 1)).await, [0x83, 11], "7 no unit {unit}");
    }
    let counters = bank.counters(2).unwrap();
    assert_eq!((counters.requests, counters.exceptions, counters.writes), (39, 39, 0));
    assert_eq!(bank.report().exceptions, 42);
}

#[tokio::test]
async fn what_is_written_is_read_back_and_a_refused_write_changes_nothing() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    assert_eq!(client.ask(1, &write(5, 0x1234)).await, write(5, 0x1234));
    assert_eq!(client.ask(1, &[16, 0, 6, 0, 2, 4, 0, 1, 0, 2]).await, [16, 0, 6, 0, 2]);
    assert_eq!(words(&client.ask(1, &read(3, 5, 3)).await), [0x1234, 1, 2]);
    let untouched = |unit, address| signal::register(unit, address, 1);
    assert_eq!(words(&client.ask(1, &read(3, 4, 1)).await), [untouched(1, 4)], "the neighbour");
    assert_eq!(words(&client.ask(1, &read(4, 5, 1)).await), [untouched(1, 5)], "the input register");
    assert_eq!(words(&client.ask(2, &read(3, 5, 1)).await), [untouched(2, 5)], "the other unit");
    // One register too far: neither of the two is written.
    assert_eq!(client.ask(1, &[16, 0, 199, 0, 2, 4, 9, 9, 9, 9]).await, [0x90, 2]);
    assert_eq!(words(&client.ask(1, &read(3, 199, 1)).await), [untouched(1, 199)]);
    // 6.16: the example of the specification. Present 0x12, AND 0xF2, OR 0x25 make 0x17.
    client.ask(1, &write(4, 0x12)).await;
    assert_eq!(client.ask(1, &[22, 0, 4, 0, 0xF2, 0, 0x25]).await, [22, 0, 4, 0, 0xF2, 0, 0x25]);
    assert_eq!(words(&client.ask(1, &read(3, 4, 1)).await), [0x17]);
    // 6.17: the write comes before the read; if one of them is refused neither is done.
    assert_eq!(client.ask(1, &[23, 0, 8, 0, 1, 0, 8, 0, 1, 2, 7, 7]).await, [23, 2, 7, 7]);
    assert_eq!(client.ask(1, &[23, 0, 199, 0, 2, 0, 8, 0, 1, 2, 8, 8]).await, [0x97, 2]);
    assert_eq!(words(&client.ask(1, &read(3, 8, 1)).await), [0x0707]);
    assert_eq!(bank.counters(1).unwrap().writes, 5);
}

#[tokio::test]
async fn coils_are_written_one_by_one_and_in_rows() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    let light = |address| u8::from(signal::bit(1, address, 1));
    let lights = (0..8).fold(0, |byte, n| byte | light(n) << n);
    assert_eq!(client.ask(1, &read(1, 0, 8)).await, [1, 1, lights]);
    assert_eq!(client.ask(1, &read(2, 0, 8)).await, [2, 1, lights]);
    // 6.11: the example of the specification, ten coils from 19 on.
    assert_eq!(client.ask(1, &[15, 0, 19, 0, 10, 2, 0xCD, 0x01]).await, [15, 0, 19, 0, 10]);
    assert_eq!(client.ask(1, &read(1, 19, 10)).await, [1, 2, 0xCD, 0x01]);
    for (value, on) in [(0xFF, 1), (0, 0)] {
        assert_eq!(client.ask(1, &[5, 0, 20, value, 0]).await, [5, 0, 20, value, 0]);
        assert_eq!(client.ask(1, &read(1, 20, 1)).await, [1, 1, on]);
    }
    assert_eq!(client.ask(1, &read(2, 20, 1)).await, [2, 1, light(20)], "discrete inputs are not written");
}

#[tokio::test]
async fn every_register_of_every_unit_is_what_its_tick_says() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    for (unit, function, start, quantity) in
        [(1, 3, 0, 125), (2, 4, 75, 125), (3, 3, 1, 2), (3, 4, 199, 1), (1, 4, 190, 10)]
    {
        let want: Vec<u16> = (start..start + quantity).map(|a| signal::register(unit, a, 1)).collect();
        assert_eq!(words(&client.ask(unit, &read(function, start, quantity)).await), want, "{unit} {function} {start}");
    }
}

#[tokio::test]
async fn all_of_a_request_is_of_one_tick_and_the_stamp_tells_which_and_since_when() {
    let config = BankConfig { units: 1, registers: 20, rate: Duration::from_millis(5), ..BankConfig::default() };
    let bank = Bank::start(config).await.unwrap();
    let mut client = Client::connect(bank.addr).await;
    let mut last = 0;
    for _ in 0..200 {
        let got = words(&client.ask(1, &read(4, 0, 28)).await);
        let number = |at: usize| got[at..at + 4].iter().fold(0u64, |n, w| n << 16 | u64::from(*w));
        let (began_ms, tick) = (number(20), number(24));
        assert!(tick >= last && tick <= bank.tick(), "tick {tick} after {last}");
        let want: Vec<u16> = (0..20).map(|a| signal::register(1, a, tick)).collect();
        assert_eq!(got[..20], want, "tick {tick}");
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(now_ms.abs_diff(began_ms) < 60_000, "{began_ms} is not about now");
        last = tick;
    }
}

#[tokio::test]
async fn frames_of_another_protocol_are_met_with_silence_and_the_next_one_is_answered() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    let silent: &[(&str, Vec<u8>)] = &[
        ("protocol id 1", vec![0, 1, 0, 1, 0, 6, 1, 3, 0, 0, 0, 1]),
        ("length 0", vec![0, 1, 0, 0, 0, 0]),
        ("length 1: a unit and nothing more", vec![0, 1, 0, 0, 0, 1, 1]),
        ("length 255", [vec![0, 1, 0, 0, 0, 255], vec![3; 255]].concat()),
        ("length 65535", [vec![0, 1, 0, 0, 0xFF, 0xFF], vec![0; 65_535]].concat()),
    ];
    for (name, bytes) in silent {
        client.stream.write_all(bytes).await.unwrap();
        // The answer to the next request is the next answer: the strange one had none.
        assert_eq!(words(&client.ask(1, &read(3, 0, 1)).await), [signal::register(1, 0, 1)], "after {name}");
    }
}

#[tokio::test]
async fn many_requests_in_one_segment_are_answered_in_order() {
    let bank = bank().await;
    let mut client = Client::connect(bank.addr).await;
    let requests: Vec<u8> =
        (0..500u16).flat_map(|n| wire::frame(n, (n % 3) as u8 + 1, &read(3, n % 75, 125))).collect();
    let (mut reader, mut writer) = client.stream.into_split();
    let sender = tokio::spawn(async move {
        // In pieces that end anywhere.
        for piece in requests.chunks(997) {
            writer.write_all(piece).await.unwrap();
        }
        writer
    });
    for n in 0..500u16 {
        let mut frame = [0; 9 + 250];
        tokio::time::timeout(wire::PATIENCE, reader.read_exact(&mut frame)).await.unwrap().unwrap();
        let head = [(n >> 8) as u8, n as u8, 0, 0, 0, 253, (n % 3) as u8 + 1, 3, 250];
        assert_eq!(frame[..9], head, "answer {n}");
        assert_eq!(words(&frame[7..])[124], signal::register((n % 3) as u8 + 1, n % 75 + 124, 1), "answer {n}");
    }
    client.stream = reader.reunite(sender.await.unwrap()).unwrap();
    assert_eq!(bank.report().requests, 500);
    assert_eq!(bank.report().bytes_sent, 500 * 259);
}

#[tokio::test]
async fn more_connections_than_seats_wait_for_one() {
    let bank = still(BankConfig { units: 1, connections_max: 2, ..BankConfig::default() }).await;
    let mut first = Client::connect(bank.addr).await;
    let mut second = Client::connect(bank.addr).await;
    first.ask(1, &read(3, 0, 1)).await;
    second.ask(1, &read(3, 0, 1)).await;
    let mut third = Client::connect(bank.addr).await;
    third.send(7, 1, &read(3, 0, 1)).await;
    third.hears_nothing().await;
    drop(first);
    assert_eq!(third.answer().await.transaction, 7);
}

#[tokio::test]
async fn a_bank_that_cannot_be_is_refused() {
    let start = async |config| Bank::start(config).await.map(|_| ()).unwrap_err();
    let none = BankConfig::default();
    assert!(start(BankConfig { units: 256, ..none.clone() }).await.contains("units are numbered to 255"));
    assert!(start(BankConfig { registers: 65_530, ..none.clone() }).await.contains("registers = 65530"));
    assert!(start(BankConfig { rate: Duration::ZERO, ..none.clone() }).await.contains("rate = 0ns"));
    let other = Bank::start(none.clone()).await.unwrap();
    assert!(
        start(BankConfig { listen: other.addr, ..none }).await.contains(&format!("cannot listen on {}", other.addr))
    );
}

/// Puts bytes into a conversation, ends it, and returns what came out.
fn put(framing: Framing, bytes: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let shape = Shape { first_unit: 1, units: 3, registers: 200, rate: STILL };
    let device = BankDevice::new(shape, FaultScript::default()).unwrap();
    runtime.block_on(async {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        here.write_all(bytes).await.unwrap();
        here.shutdown().await.unwrap();
        let options = Options { framing, ..Options::default() };
        assert_eq!(converse(&device, &mut there, options).await.unwrap(), End::Closed);
        drop(there);
        let mut out = Vec::new();
        here.read_to_end(&mut out).await.unwrap();
        out
    })
}

/// Anything, and requests that are nearly right.
fn soup() -> impl proptest::strategy::Strategy<Value = Vec<Vec<u8>>> {
    use proptest::prelude::*;
    let pdu = prop_oneof![
        proptest::collection::vec(0u8.., 0..300),
        (0u8..25, 0u16..210, 0u16..130, proptest::collection::vec(0u8.., 0..8))
            .prop_map(|(function, start, quantity, more)| [read(function, start, quantity), more].concat()),
        (0u16..210, 0u16..125).prop_map(|(start, quantity)| {
            let head = [read(16, start, quantity), vec![(quantity * 2) as u8]].concat();
            [head, vec![7; usize::from(quantity) * 2]].concat()
        }),
    ];
    let framed = (0u8..5, pdu).prop_map(|(unit, pdu)| {
        if pdu.first().is_some_and(|f| f % 5 == 4) { pdu } else { [&[unit][..], &pdu].concat() }
    });
    proptest::collection::vec(framed, 1..12)
}

proptest::proptest! {
    #[test]
    fn whatever_bytes_come_every_answer_is_well_formed(soup in soup(), noise in proptest::collection::vec(0u8.., 0..40)) {
        let mut bytes: Vec<u8> = soup
            .iter()
            .flat_map(|adu| [&[9, 9, 0, 0][..], &(adu.len() as u16).to_be_bytes(), adu].concat())
            .collect();
        bytes.extend(noise);
        let out = put(Framing::Tcp, &bytes);
        let mut rest = out.as_slice();
        let mut answers = 0;
        while let Some((head, tail)) = rest.split_first_chunk::<6>() {
            proptest::prop_assert_eq!(head[2..4].to_vec(), vec![0, 0]);
            let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
            proptest::prop_assert!((3..=254).contains(&length), "length {}", length);
            proptest::prop_assert!(length <= tail.len());
            let function = tail[1];
            if matches!(function, 1..=4 | 23) {
                proptest::prop_assert_eq!(usize::from(tail[2]) + 3, length);
            } else if function & 0x80 != 0 {
                proptest::prop_assert_eq!(length, 3);
                proptest::prop_assert!(matches!(tail[2], 1..=3 | 11));
            }
            rest = &tail[length..];
            answers += 1;
        }
        proptest::prop_assert!(rest.is_empty());
        // Requests of a legal length are answered, one by one; the noise at the end may make one more.
        let legal = soup.iter().filter(|adu| (2..=254).contains(&adu.len())).count();
        proptest::prop_assert!((legal..=legal + 5).contains(&answers), "{} answers to {}", answers, legal);
    }

    #[test]
    fn whatever_bytes_come_on_rtu_every_answer_carries_its_crc(soup in soup()) {
        let bytes: Vec<u8> = soup.iter().flat_map(|adu| [adu.clone(), crc(adu).to_vec()].concat()).collect();
        let mut out = put(Framing::Rtu { gap: Duration::from_millis(1) }, &bytes);
        while !out.is_empty() {
            let length = match out[1] {
                0x80.. => 5,
                1..=4 | 23 => 5 + usize::from(out[2]),
                22 => 10,
                _ => 8,
            };
            proptest::prop_assert!(length <= out.len() && crc(&out[..length - 2]) == out[length - 2..length], "{:02X?}", out);
            proptest::prop_assert!((1..=3).contains(&out[0]), "unit {}", out[0]);
            out.drain(..length);
        }
    }
}
