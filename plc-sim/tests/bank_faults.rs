//! Every kind of fault of a Modbus bank, seen on a raw socket.

mod wire;

use plc_sim::bank::{Bank, BankConfig, Fault, FaultScript, Kind, signal};
use plc_sim::modbus::{Framing, Table, crc};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{Client, PATIENCE, read, still, words, write};

/// Unit 2 has the fault, units 1 and 3 have not.
async fn bank(kind: Kind) -> (Bank, Client) {
    let faults = Fault::new(kind).units(&[2]).into();
    let bank = still(BankConfig { units: 3, registers: 200, faults, ..BankConfig::default() }).await;
    let client = Client::connect(bank.addr).await;
    (bank, client)
}

fn healthy(unit: u8) -> Vec<u8> {
    [&[3, 2][..], &signal::register(unit, 0, 1).to_be_bytes()].concat()
}

/// Sends request 1 to unit 2 and request 2 to unit 1 in one go; the transactions answered, in order.
async fn both(client: &mut Client) -> [u16; 2] {
    let two = [wire::frame(1, 2, &read(3, 0, 1)), wire::frame(2, 1, &read(3, 0, 1))].concat();
    client.stream.write_all(&two).await.unwrap();
    [client.answer().await.transaction, client.answer().await.transaction]
}

#[tokio::test]
async fn a_silent_unit_says_and_does_nothing_while_its_neighbours_answer() {
    let (bank, mut client) = bank(Kind::Silent).await;
    client.send(1, 2, &write(0, 77)).await;
    assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
    assert_eq!((bank.counters(2).unwrap().requests, bank.counters(2).unwrap().writes), (1, 0));
    client.hears_nothing().await;
    bank.set_faults(FaultScript::default()).unwrap();
    assert_eq!(client.ask(2, &read(3, 0, 1)).await, healthy(2), "what it was told meanwhile was not done");
}

#[tokio::test]
async fn slow_and_late_answers_do_not_hold_up_others() {
    let delay = Duration::from_millis(200);
    for kind in [Kind::Slow { delay }, Kind::Late { delay }] {
        let (_bank, mut client) = bank(kind).await;
        assert_eq!(both(&mut client).await, [2, 1], "{kind:?}");
    }
}

#[tokio::test]
async fn slow_answers_come_in_the_order_of_their_requests() {
    let (_bank, mut client) = bank(Kind::Slow { delay: Duration::from_millis(50) }).await;
    for n in 0..20 {
        client.send(n, 2, &read(3, 0, 1)).await;
    }
    for n in 0..20 {
        assert_eq!(client.answer().await.transaction, n);
    }
}

#[tokio::test]
async fn a_duplicate_comes_twice() {
    let (_bank, mut client) = bank(Kind::Duplicate).await;
    client.send(5, 2, &read(3, 0, 1)).await;
    assert_eq!(client.answer().await, client.answer().await);
    client.hears_nothing().await;
}

#[tokio::test]
async fn two_answers_change_places_and_one_alone_comes_by_itself() {
    let (_bank, mut client) = bank(Kind::Reorder).await;
    assert_eq!(both(&mut client).await, [2, 1]);
    client.send(9, 2, &read(3, 0, 1)).await;
    assert_eq!(client.answer().await.transaction, 9);
}

#[tokio::test]
async fn a_wrong_transaction_is_one_too_high() {
    let (_bank, mut client) = bank(Kind::WrongTransaction).await;
    for (sent, got) in [(7, 8), (0xFFFF, 0)] {
        client.send(sent, 2, &read(3, 0, 1)).await;
        assert_eq!(client.answer().await.transaction, got);
    }
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (_bank, mut client) = bank(Kind::Reset).await;
    assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
    client.send(1, 2, &read(3, 0, 1)).await;
    let end = timeout(PATIENCE, client.stream.read(&mut [0; 9])).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_half_open_connection_stays_open_and_never_answers_again() {
    let (bank, mut client) = bank(Kind::HalfOpen).await;
    client.send(1, 2, &read(3, 0, 1)).await;
    client.hears_nothing().await;
    bank.set_faults(FaultScript::default()).unwrap();
    client.send(2, 1, &read(3, 0, 1)).await;
    client.hears_nothing().await;
    assert_eq!(Client::connect(bank.addr).await.ask(2, &read(3, 0, 1)).await, healthy(2), "another connection");
}

#[tokio::test]
async fn a_trickle_comes_in_many_pieces_and_is_whole() {
    let (_bank, mut client) = bank(Kind::Trickle).await;
    client.send(1, 2, &read(3, 0, 100)).await;
    let (mut whole, mut pieces) = (Vec::new(), 0);
    while whole.len() < 9 + 200 {
        let mut piece = [0; 300];
        let n = timeout(PATIENCE, client.stream.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(n, 0, "closed after {whole:?}");
        whole.extend_from_slice(&piece[..n]);
        pieces += 1;
    }
    assert!(pieces > 3, "{pieces} pieces");
    assert_eq!(words(&whole[7..])[99], signal::register(2, 99, 1));
    assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
}

#[tokio::test]
async fn exceptions_are_answered_and_nothing_is_done() {
    for (kind, code) in [(Kind::Exception { code: 4 }, 4), (Kind::Busy, 6)] {
        let (bank, mut client) = bank(kind).await;
        assert_eq!(client.ask(2, &write(0, 1)).await, [0x86, code]);
        assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
        bank.set_faults(FaultScript::default()).unwrap();
        assert_eq!(client.ask(2, &read(3, 0, 1)).await, healthy(2));
        assert_eq!(bank.counters(2).unwrap().exceptions, 1);
    }
}

#[tokio::test]
async fn a_read_that_touches_illegal_addresses_is_refused_and_its_neighbours_are_read() {
    let (_bank, mut client) = bank(Kind::Illegal { table: Table::HoldingRegisters, start: 10, count: 2 }).await;
    let rows =
        [(9, 1, true), (9, 2, false), (10, 1, false), (11, 5, false), (0, 100, false), (12, 1, true), (0, 10, true)];
    for (start, quantity, legal) in rows {
        let answer = client.ask(2, &read(3, start, quantity)).await;
        assert_eq!(answer != [0x83, 2], legal, "{start} + {quantity}: {answer:?}");
        assert_eq!(client.ask(2, &read(4, start, quantity)).await[0], 4, "the other table");
    }
    assert_eq!(client.ask(2, &write(10, 1)).await, write(10, 1), "writes are not concerned");
}

#[tokio::test]
async fn a_torn_pair_has_the_high_word_of_this_tick_and_the_low_word_of_the_last() {
    let (_bank, mut client) = bank(Kind::Torn).await;
    for function in [3, 4] {
        let got = words(&client.ask(2, &read(function, 0, 100)).await);
        for (address, word) in (0u16..).zip(&got) {
            let tick = if address % 2 == 0 { 1 } else { 0 };
            assert_eq!(*word, signal::register(2, address, tick), "{function} {address}");
        }
    }
}

#[tokio::test]
async fn what_is_stuck_stays_whatever_is_written() {
    let (_bank, mut client) = bank(Kind::Stuck { table: Table::HoldingRegisters, start: 4, count: 1, value: 99 }).await;
    client.ask(2, &write(4, 7)).await;
    client.ask(2, &write(5, 7)).await;
    assert_eq!(words(&client.ask(2, &read(3, 4, 2)).await), [99, 7]);
    for value in [0, 1] {
        let (_bank, mut client) = bank_of_bits(value).await;
        let other = u8::from(value == 0);
        client.ask(2, &[5, 0, 8, if other == 1 { 0xFF } else { 0 }, 0]).await;
        assert_eq!(client.ask(2, &read(1, 8, 1)).await, [1, 1, value as u8]);
    }
}

async fn bank_of_bits(value: u16) -> (Bank, Client) {
    bank(Kind::Stuck { table: Table::Coils, start: 8, count: 1, value }).await
}

#[tokio::test]
async fn a_reboot_closes_connections_forgets_what_was_written_and_reads_zero_for_a_while() {
    let (bank, mut client) = bank(Kind::Silent).await;
    bank.set_faults(FaultScript::default()).unwrap();
    for unit in [1, 2] {
        client.ask(unit, &write(0, 4711)).await;
    }
    bank.set_faults(Fault::new(Kind::Reboot).units(&[2])).unwrap();
    let end = timeout(PATIENCE, client.stream.read(&mut [0; 9])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");

    let mut client = Client::connect(bank.addr).await;
    assert_eq!(words(&client.ask(2, &read(3, 0, 4)).await), [0; 4]);
    assert_eq!(words(&client.ask(2, &read(4, 0, 4)).await), [0; 4]);
    assert_eq!(client.ask(2, &read(1, 0, 8)).await, [1, 1, 0]);
    assert_eq!(words(&client.ask(1, &read(3, 0, 1)).await), [4711], "the other unit");
    bank.set_faults(FaultScript::default()).unwrap();
    assert_eq!(client.ask(2, &read(3, 0, 1)).await, healthy(2));
}

#[tokio::test]
async fn a_refused_connection_is_closed_at_once_and_the_others_go_on() {
    let (bank, mut client) = bank(Kind::Silent).await;
    client.ask(1, &read(3, 0, 1)).await; // it has been accepted
    bank.set_faults(Kind::Refuse).unwrap();
    let mut refused = TcpStream::connect(bank.addr).await.unwrap();
    let end = timeout(PATIENCE, refused.read(&mut [0; 9])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
}

#[tokio::test]
async fn answers_lie_about_length_unit_and_function() {
    let (bank, mut client) = bank(Kind::WrongLength).await;
    assert_eq!(client.ask(2, &read(3, 0, 1)).await, [&[3, 4][..], &healthy(2)[2..]].concat());
    assert_eq!(client.ask(2, &write(0, 7)).await, [6, 0, 0, 0], "a byte is missing");
    bank.set_faults(Fault::new(Kind::WrongUnit).units(&[2])).unwrap();
    client.send(1, 2, &read(3, 1, 1)).await;
    assert_eq!(client.answer().await.unit, 3);
    bank.set_faults(Fault::new(Kind::WrongFunction).units(&[2])).unwrap();
    assert_eq!(client.ask(2, &read(3, 1, 1)).await[0], 4);
}

#[tokio::test]
async fn garbage_comes_before_the_answer_of_an_rtu_unit() {
    let config = BankConfig { units: 1, framing: Framing::RTU, faults: Kind::Garbage.into(), ..BankConfig::default() };
    let bank = still(config).await;
    let mut stream = TcpStream::connect(bank.addr).await.unwrap();
    let request = [&[1][..], &read(3, 0, 1)].concat();
    stream.write_all(&[request.clone(), crc(&request).to_vec()].concat()).await.unwrap();
    let mut all = [0; 5 + 7];
    timeout(PATIENCE, stream.read_exact(&mut all)).await.unwrap().unwrap();
    let want = [&[1][..], &healthy(1)].concat();
    assert_eq!(all[5..], [want.clone(), crc(&want).to_vec()].concat());
}

#[tokio::test]
async fn the_seed_decides_which_requests_a_chance_strikes() {
    let pattern = async |seed| {
        let faults = FaultScript { seed, faults: vec![Fault::new(Kind::Busy).probability(0.3)] };
        let bank = still(BankConfig { units: 1, faults, ..BankConfig::default() }).await;
        let mut client = Client::connect(bank.addr).await;
        let mut struck = Vec::new();
        for _ in 0..200 {
            struck.push(client.ask(1, &read(3, 0, 1)).await == [0x83, 6]);
        }
        struck
    };
    let (first, again, other) = (pattern(7).await, pattern(7).await, pattern(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    let count = first.iter().filter(|s| **s).count();
    assert!((30..90).contains(&count), "{count} of 200 with seed 7");
}

#[tokio::test]
async fn a_fault_begins_and_ends_when_the_script_says() {
    let text = "[[fault]]\nat = '300ms'\nfor = '500ms'\nunits = ['2..3']\nkind = 'busy'\n";
    let faults = FaultScript::from_toml(text).unwrap();
    let bank = still(BankConfig { units: 3, faults, ..BankConfig::default() }).await;
    let mut client = Client::connect(bank.addr).await;
    let mut seen = Vec::new();
    timeout(PATIENCE, async {
        while seen != [false, true, false] {
            let busy = client.ask(3, &read(3, 0, 1)).await == [0x83, 6];
            if seen.last() != Some(&busy) {
                seen.push(busy);
            }
            assert_eq!(client.ask(1, &read(3, 0, 1)).await, healthy(1));
        }
    })
    .await
    .unwrap_or_else(|_| panic!("seen {seen:?}"));
}

#[tokio::test]
async fn faults_of_opcua_are_refused() {
    let faults = Kind::Restart.into();
    let error = Bank::start(BankConfig { faults, ..BankConfig::default() }).await.unwrap_err();
    assert!(error.contains("Restart is no fault of a Modbus bank"), "{error}");
}

/// The scripts in `configs/faults` are where people look for the names; the parser's own list says which there are.
#[tokio::test]
async fn the_scripts_that_come_with_us_show_every_kind_once() {
    let unknown = FaultScript::from_toml("[[fault]]\nkind = '?'").unwrap_err();
    let (_, list) = unknown.split_once("expected one of ").unwrap();
    let mut known: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert!(known.len() > 20, "{known:?}");

    let file =
        |name| std::fs::read_to_string(format!("{}/../configs/faults/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (modbus, opcua) = (file("modbus.toml"), file("opcua.toml"));
    let kinds =
        |text: &str| FaultScript::from_toml(text).unwrap().faults.into_iter().map(|f| f.kind).collect::<Vec<_>>();
    assert!(!kinds(&modbus).iter().any(Kind::is_opcua) && kinds(&opcua).iter().all(Kind::is_opcua));
    let faults = FaultScript::from_toml(&modbus).unwrap();
    Bank::start(BankConfig { units: 4, faults, ..BankConfig::default() }).await.unwrap();

    let both = modbus + &opcua;
    let mut shown: Vec<&str> =
        both.lines().filter_map(|l| l.strip_prefix("kind = \"")).map(|l| l.trim_end_matches('"')).collect();
    known.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, known);
}
