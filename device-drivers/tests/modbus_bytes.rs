//! The Modbus driver against a scripted server: requests compared with bytes written by hand from the Modbus Application
//! Protocol V1.1b3, replies good and bad. What a reply claims is not believed before it has been checked.

mod line;

use control_core::units::MachineId;
use device_drivers::modbus::{DataType, Endpoint, PointSpec};
use device_drivers::value::{Cause, Quality};
use device_drivers::{BlockWrite, Health, Value};
use line::{Running, Seen, at_once, device, line, point, server};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Hexadecimal, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|c| u8::from_str_radix(&c.iter().collect::<String>(), 16).unwrap()).collect()
}

/// A server behind unit 17 that answers the requests it knows, and an exception 4 to others.
async fn scripted(script: &'static [(&'static str, &'static str)]) -> Endpoint {
    let answers: Vec<(Vec<u8>, Vec<u8>)> = script.iter().map(|(want, reply)| (hex(want), hex(reply))).collect();
    let (endpoint, _) = server(move |asked| {
        let known = answers.iter().find(|(want, _)| *want == asked.pdu && asked.unit == 17);
        at_once(asked, known.map_or(&[0x80 | asked.pdu[0], 4], |(_, reply)| reply))
    })
    .await;
    endpoint
}

async fn values(points: Vec<PointSpec>, script: &'static [(&'static str, &'static str)]) -> Vec<Option<Value>> {
    let ids: Vec<u32> = points.iter().map(|p| p.id.0).collect();
    let running = Running::start(line(scripted(script).await, vec![device(17, points)]));
    running.until("a poll", |seen| !seen.reports.is_empty()).await;
    let seen = running.seen();
    ids.into_iter().map(|id| seen.last(id).and_then(|r| r.value.clone())).collect()
}

#[tokio::test]
async fn the_examples_of_the_specification_are_asked_and_understood() {
    // 6.3: registers 108 to 110 are 022B, 0000, 0064.
    let points = vec![
        point(0, "holding:107", DataType::U16),
        point(1, "holding:108", DataType::U32),
        point(2, "holding:107.1", DataType::Bool),
    ];
    let got = values(points, &[("03 006B 0003", "03 06 022B 0000 0064")]).await;
    assert_eq!(got, [Some(Value::Uint(555)), Some(Value::Uint(100)), Some(Value::Bool(true))]);

    // 6.4: input register 9 is 000A.
    let got = values(vec![point(0, "input:8", DataType::I16)], &[("04 0008 0001", "04 02 000A")]).await;
    assert_eq!(got, [Some(Value::Int(10))]);

    // 6.1: coils 20 to 38 are CD 6B 05, lowest bit first; here coils 20, 29, 37 and 38.
    let points = [19, 28, 36, 37].map(|n| point(n, &format!("coil:{n}"), DataType::Bool)).to_vec();
    let got = values(points, &[("01 0013 0013", "01 03 CD 6B 05")]).await;
    assert_eq!(got, [true, true, false, true].map(|b| Some(Value::Bool(b))));

    // 6.2: input status 197 to 218 are AC DB 35.
    let got = values(vec![point(0, "discrete:196", DataType::Bool)], &[("02 00C4 0001", "02 01 00")]).await;
    assert_eq!(got, [Some(Value::Bool(false))]);
}

#[tokio::test]
async fn an_exception_makes_its_tags_bad_and_leaves_link_and_neighbours_alone() {
    let points = vec![point(0, "holding:0", DataType::U16), point(1, "holding:500", DataType::U16)];
    let endpoint = scripted(&[("03 0000 0001", "83 02"), ("03 01F4 0001", "03 02 0007")]).await;
    let running = Running::start(line(endpoint, vec![device(17, points)]));
    running.until("three polls", |seen| seen.reports.len() >= 3).await;
    let seen = running.seen();
    let bad = seen.last(0).unwrap();
    assert_eq!((bad.quality, bad.cause, bad.value.clone()), (Quality::Bad, Cause::Exception(2), None));
    assert_eq!((seen.good(1), seen.downs().len()), (seen.reports.len(), 0));
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_as_good_as_any() {
    let (endpoint, _) = server(|asked| {
        let whole = line::frame(asked.transaction, asked.unit, &[3, 2, 0, 7]);
        whole.into_iter().enumerate().map(|(n, b)| (Duration::from_millis(1 + 2 * n as u64), vec![b])).collect()
    })
    .await;
    let running = Running::start(line(endpoint, vec![device(17, vec![point(0, "holding:0", DataType::U16)])]));
    running.until("three values", |seen| seen.good(0) >= 3).await;
    assert_eq!(running.seen().last(0).unwrap().value, Some(Value::Uint(7)));
}

#[tokio::test]
async fn a_reply_that_is_not_what_was_asked_for_brings_no_value() {
    let rows = [
        ("too few registers", "03 02 0007"),
        ("too many registers", "03 06 0001 0002 0003"),
        ("none at all", "03 00"),
        ("odd byte count", "03 03 00 01 02"),
        ("byte count beyond the frame", "03 FA 0001"),
        ("another function", "04 04 0001 0002"),
        ("exception of another function", "84 02"),
        ("a reply without a byte count", "03"),
        ("an exception with more to say", "83 02 00"),
    ];
    for (name, reply) in rows {
        let pdu = hex(reply);
        let (endpoint, _) = server(move |asked| at_once(asked, &pdu)).await;
        let running = Running::start(line(endpoint, vec![device(17, vec![point(0, "holding:0", DataType::U32)])]));
        // Again: then it is a unit that does not answer, and the link stays.
        running.until(name, |seen| seen.health.contains(&(0, Health::Demoted, Cause::BadReply))).await;
        let seen = running.seen();
        assert!(seen.readings.iter().all(|r| r.value.is_none()), "{name}");
        assert_eq!((seen.last(0).unwrap().cause, seen.downs().len()), (Cause::BadReply, 0), "{name}");
    }
}

fn block(machine: u16, first: u16) -> BlockWrite {
    BlockWrite { machine: MachineId(machine), seq: 1, words: std::array::from_fn(|n| first + n as u16) }
}

/// Writes blocks; the requests that went out, and what was seen.
async fn write(blocks: &[BlockWrite], reply: Option<&'static str>) -> (Vec<Vec<u8>>, Arc<Mutex<Seen>>) {
    let (endpoint, asked) = server(move |asked| reply.map_or(vec![], |r| at_once(asked, &hex(r)))).await;
    let mut unit = device(17, vec![]);
    unit.commands = vec![(MachineId(0), 0), (MachineId(1), 20)];
    let seen = Seen { machines: true, to_write: blocks.to_vec(), ..Seen::default() };
    let running = Running::start_with(line(endpoint, vec![unit]), seen);
    running.until("an outcome", |seen| !seen.written.is_empty() || !seen.not_written.is_empty()).await;
    let pdus = asked.lock().unwrap().iter().map(|a| a.pdu.clone()).collect();
    (pdus, running.stop().await)
}

const ONE: &str = "10 0000 0014 28 0000 0001 0002 0003 0004 0005 0006 0007 0008 0009 000A 000B 000C 000D 000E 000F 0010 0011 0012 0013";
const TWO: &str = "10 0000 0028 50 0000 0001 0002 0003 0004 0005 0006 0007 0008 0009 000A 000B 000C 000D 000E 000F 0010 0011 0012 0013
    0100 0101 0102 0103 0104 0105 0106 0107 0108 0109 010A 010B 010C 010D 010E 010F 0110 0111 0112 0113";

#[tokio::test]
async fn a_command_block_goes_out_in_one_write_and_neighbours_share_it() {
    let (pdus, seen) = write(&[block(0, 0)], Some("10 0000 0014")).await;
    assert_eq!((pdus, seen.lock().unwrap().written.len()), (vec![hex(ONE)], 1));
    let (pdus, seen) = write(&[block(1, 0x100), block(0, 0)], Some("10 0000 0028")).await;
    assert_eq!((pdus, seen.lock().unwrap().written.len()), (vec![hex(TWO)], 2));
}

#[tokio::test]
async fn a_write_is_believed_only_if_the_echo_fits() {
    for (name, reply, cause) in [
        ("another address", Some("10 0001 0014"), Cause::BadReply),
        ("another quantity", Some("10 0000 0013"), Cause::BadReply),
        ("another function", Some("06 0000 0014"), Cause::BadReply),
        ("an exception", Some("90 04"), Cause::Exception(4)),
        ("a short echo", Some("10 0000"), Cause::BadReply),
        ("nothing", None, Cause::NoAnswer),
    ] {
        let (_, seen) = write(&[block(0, 0)], reply).await;
        let seen = seen.lock().unwrap();
        assert_eq!((seen.written.len(), seen.not_written[0]), (0, cause), "{name}");
    }
}

#[tokio::test]
async fn an_unreachable_device_gives_an_error_a_technician_understands() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let running = Running::start(line(Endpoint::Tcp(format!("127.0.0.1:{port}")), vec![]));
    running.until("a failed try", |seen| !seen.downs().is_empty()).await;
    let seen = running.seen();
    assert!(seen.downs()[0].contains("nothing listens on this port; is Modbus TCP switched on"), "{:?}", seen.downs());
}
