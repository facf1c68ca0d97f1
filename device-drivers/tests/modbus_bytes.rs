//! The Modbus driver against a scripted server: requests compared with bytes written by hand from the Modbus Application
//! Protocol V1.1b3, replies good and bad. What a reply claims is not believed before it has been checked.

use control_core::units::MachineId;
use device_drivers::modbus::{DataType, DeviceSpec, ModbusTcp, PlanLimits, PointSpec, TcpSpec, WordOrder};
use device_drivers::value::{Cause, Quality};
use device_drivers::{BlockWrite, Driver, LinkError, PointId, Reading, Value};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Hexadecimal, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|c| u8::from_str_radix(&c.iter().collect::<String>(), 16).unwrap()).collect()
}

/// A server that expects these PDUs behind unit 17 and answers with those; `None` answers nothing.
/// `..` in front of an answer sends it byte by byte.
async fn scripted(script: Vec<(&'static str, Option<&'static str>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for (want, reply) in script {
            let mut head = [0u8; 7];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!((head[2..4].to_vec(), head[6]), (vec![0, 0], 17), "protocol id and unit");
            let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
            stream.read_exact(&mut pdu).await.unwrap();
            assert_eq!(pdu, hex(want), "the request on the wire");
            let Some(reply) = reply else { continue };
            let body = hex(reply.trim_start_matches(".."));
            let mut frame = head[..4].to_vec();
            frame.extend_from_slice(&(body.len() as u16 + 1).to_be_bytes());
            frame.push(17);
            frame.extend_from_slice(&body);
            if reply.starts_with("..") {
                for byte in frame {
                    stream.write_all(&[byte]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                stream.write_all(&frame).await.unwrap();
            }
        }
        // Stay open: a closed connection would be another error than the one looked for.
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    at.to_string()
}

fn point(id: u32, address: &str, kind: DataType) -> PointSpec {
    PointSpec {
        id: PointId(id),
        address: address.parse().unwrap(),
        kind,
        order: WordOrder::HighFirst,
        scale: None,
        interval: Duration::from_millis(100),
    }
}

fn driver(peer: String, points: Vec<PointSpec>) -> ModbusTcp {
    let commands = vec![(MachineId(0), 0), (MachineId(1), 20)];
    let device = DeviceSpec { unit: 17, points, limits: PlanLimits::default(), commands };
    let timeout = Duration::from_millis(300);
    ModbusTcp::new(TcpSpec { peer, connect_timeout: timeout, timeout, devices: vec![device] })
}

async fn poll(
    points: Vec<PointSpec>,
    script: Vec<(&'static str, Option<&'static str>)>,
) -> Result<Vec<Reading>, LinkError> {
    let mut driver = driver(scripted(script).await, points);
    driver.connect().await.unwrap();
    let mut readings = Vec::new();
    driver.poll(0, &mut readings).await.map(|_| readings)
}

#[tokio::test]
async fn the_examples_of_the_specification_are_asked_and_understood() {
    // 6.3: registers 108 to 110 are 022B, 0000, 0064.
    let points = vec![
        point(0, "holding:107", DataType::U16),
        point(1, "holding:108", DataType::U32),
        point(2, "holding:107.1", DataType::Bool),
    ];
    let got = poll(points, vec![("03 006B 0003", Some("03 06 022B 0000 0064"))]).await.unwrap();
    let value = |id| got.iter().find(|r| r.point == PointId(id)).and_then(|r| r.value.clone());
    assert_eq!(
        (value(0), value(1), value(2)),
        (Some(Value::Uint(555)), Some(Value::Uint(100)), Some(Value::Bool(true)))
    );

    // 6.4: input register 9 is 000A.
    let got = poll(vec![point(0, "input:8", DataType::I16)], vec![("04 0008 0001", Some("04 02 000A"))]).await.unwrap();
    assert_eq!(got[0].value, Some(Value::Int(10)));

    // 6.1: coils 20 to 38 are CD 6B 05, lowest bit first; here coils 20, 29, 37 and 38.
    let coils = [19, 28, 36, 37];
    let points = coils.iter().map(|n| point(*n, &format!("coil:{n}"), DataType::Bool)).collect();
    let got = poll(points, vec![("01 0013 0013", Some("01 03 CD 6B 05"))]).await.unwrap();
    let bits: Vec<_> = got.iter().map(|r| r.value.clone()).collect();
    assert_eq!(bits, [true, true, false, true].map(|b| Some(Value::Bool(b))));

    // 6.2: input status 197 to 218 are AC DB 35.
    let got =
        poll(vec![point(0, "discrete:196", DataType::Bool)], vec![("02 00C4 0001", Some("02 01 00"))]).await.unwrap();
    assert_eq!(got[0].value, Some(Value::Bool(false)));
}

#[tokio::test]
async fn an_exception_makes_its_tags_bad_and_leaves_link_and_neighbours_alone() {
    let points = vec![point(0, "holding:0", DataType::U16), point(1, "holding:500", DataType::U16)];
    let script = vec![("03 0000 0001", Some("83 02")), ("03 01F4 0001", Some("03 02 0007"))];
    let got = poll(points, script).await.unwrap();
    assert_eq!((got[0].quality, got[0].cause, got[0].value.clone()), (Quality::Bad, Cause::Exception(2), None));
    assert_eq!((got[1].quality, got[1].value.clone()), (Quality::Good, Some(Value::Uint(7))));
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_as_good_as_any() {
    let got =
        poll(vec![point(0, "holding:0", DataType::U16)], vec![("03 0000 0001", Some("..03 02 0007"))]).await.unwrap();
    assert_eq!(got[0].value, Some(Value::Uint(7)));
}

#[tokio::test]
async fn a_reply_that_is_not_what_was_asked_for_ends_the_link_and_brings_no_value() {
    let rows = [
        ("too few registers", "03 02 0007"),
        ("too many registers", "03 06 0001 0002 0003"),
        ("none at all", "03 00"),
        ("odd byte count", "03 03 00 01 02"),
        ("byte count beyond the frame", "03 FA 0001"),
        ("another function", "04 04 0001 0002"),
        ("exception of another function", "84 02"),
        ("an empty reply to nothing", "03"),
    ];
    for (name, reply) in rows {
        let result = poll(vec![point(0, "holding:0", DataType::U32)], vec![("03 0000 0002", Some(reply))]).await;
        let why = result.expect_err(name);
        // What cannot be framed at all looks like a reply that never comes; either way the link ends.
        assert!(
            matches!(why, LinkError::Protocol { .. } | LinkError::Timeout { .. } | LinkError::Lost { .. }),
            "{name}: {why}"
        );
    }
}

#[tokio::test]
async fn a_device_that_does_not_answer_ends_the_link_in_time_and_the_error_says_what_was_asked() {
    let why = poll(vec![point(0, "holding:0", DataType::U16)], vec![("03 0000 0001", None)]).await.unwrap_err();
    let text = why.to_string();
    assert!(text.contains("did not answer read of holding:0..0 at unit 17 within 300ms"), "{text}");
}

#[tokio::test]
async fn a_late_reply_is_never_taken_for_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for connection in 0u8.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut frame = [0u8; 12];
                while stream.read_exact(&mut frame).await.is_ok() {
                    // The first connection answers after the driver has given up; the value tells who answered.
                    let late = if connection == 0 { 450 } else { 0 };
                    tokio::time::sleep(Duration::from_millis(late)).await;
                    let reply = [frame[0], frame[1], 0, 0, 0, 5, frame[6], 3, 2, connection, 0x77];
                    let _ = stream.write_all(&reply).await;
                }
            });
        }
    });
    let mut driver = driver(peer, vec![point(0, "holding:0", DataType::U16)]);
    let mut readings = Vec::new();
    driver.connect().await.unwrap();
    assert!(matches!(driver.poll(0, &mut readings).await, Err(LinkError::Timeout { .. })));
    driver.close();
    driver.connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    driver.poll(0, &mut readings).await.unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0].value, Some(Value::Uint(0x0177)), "from the second connection");
}

fn block(machine: u8, first: u16) -> BlockWrite {
    BlockWrite { machine: MachineId(machine), seq: 1, words: std::array::from_fn(|n| first + n as u16) }
}

async fn write(blocks: &[BlockWrite], request: &'static str, reply: Option<&'static str>) -> Result<(), LinkError> {
    let mut driver = driver(scripted(vec![(request, reply)]).await, vec![]);
    driver.connect().await.unwrap();
    driver.write(blocks).await
}

const ONE: &str = "10 0000 0014 28 0000 0001 0002 0003 0004 0005 0006 0007 0008 0009 000A 000B 000C 000D 000E 000F 0010 0011 0012 0013";
const TWO: &str = "10 0000 0028 50 0000 0001 0002 0003 0004 0005 0006 0007 0008 0009 000A 000B 000C 000D 000E 000F 0010 0011 0012 0013
    0100 0101 0102 0103 0104 0105 0106 0107 0108 0109 010A 010B 010C 010D 010E 010F 0110 0111 0112 0113";

#[tokio::test]
async fn a_command_block_goes_out_in_one_write_and_neighbours_share_it() {
    write(&[block(0, 0)], ONE, Some("10 0000 0014")).await.unwrap();
    write(&[block(1, 0x100), block(0, 0)], TWO, Some("10 0000 0028")).await.unwrap();
}

#[tokio::test]
async fn a_write_is_believed_only_if_the_echo_fits() {
    for (name, reply) in [
        ("another address", Some("10 0001 0014")),
        ("another quantity", Some("10 0000 0013")),
        ("another function", Some("06 0000 0014")),
        ("an exception", Some("90 04")),
        ("a short echo", Some("10 0000")),
        ("nothing", None),
    ] {
        assert!(write(&[block(0, 0)], ONE, reply).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn an_unreachable_device_gives_an_error_a_technician_understands() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut driver = driver(format!("127.0.0.1:{port}"), vec![]);
    let text = driver.connect().await.unwrap_err().to_string();
    assert!(text.contains("nothing listens on this port; is Modbus TCP switched on in the device?"), "{text}");
}
