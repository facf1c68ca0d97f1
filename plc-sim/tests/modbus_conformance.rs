//! The rack PLC answers like a PLC: bytes in, bytes out, over a raw socket.
//! Numbers in the names of rows are clauses of the Modbus Application Protocol V1.1b3.

use plc_sim::faces::{SharedPlant, modbus};
use plc_sim::{Plant, PlantConfig};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn rack() -> (SharedPlant, SocketAddr) {
    let config = PlantConfig::from_toml(include_str!("../../configs/small/plant.toml")).unwrap();
    let plant = SharedPlant::new(Plant::new(config, 1, 1).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(modbus::serve(plant.clone(), listener));
    (plant, at)
}

/// Sends a frame with transaction 0x1234 and returns the PDU of the answer, or `None` for silence.
async fn ask(stream: &mut TcpStream, unit: u8, pdu: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0x12, 0x34, 0, 0];
    frame.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
    frame.push(unit);
    frame.extend_from_slice(pdu);
    stream.write_all(&frame).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0u8; 7];
    timeout(Duration::from_millis(400), stream.read_exact(&mut head)).await.ok()?.ok()?;
    assert_eq!(head[..4], [0x12, 0x34, 0, 0], "transaction and protocol are echoed");
    let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
    stream.read_exact(&mut pdu).await.unwrap();
    Some(pdu)
}

#[tokio::test]
async fn every_illegal_request_gets_the_exception_the_specification_asks_for() {
    let (_, at) = rack().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let rows: &[(&str, &[u8], &[u8])] = &[
        ("6.3 quantity 0", &[3, 0, 0, 0, 0], &[0x83, 3]),
        ("6.3 quantity 126", &[3, 0, 0, 0, 126], &[0x83, 3]),
        ("6.3 quantity 65535", &[3, 0, 0, 0xFF, 0xFF], &[0x83, 3]),
        ("6.3 beyond the last register", &[3, 0, 99, 0, 2], &[0x83, 2]),
        ("6.3 wraps past 65535", &[3, 0xFF, 0xFF, 0, 2], &[0x83, 2]),
        ("6.3 too short", &[3, 0, 0, 0], &[0x83, 3]),
        ("6.3 too long", &[3, 0, 0, 0, 1, 0], &[0x83, 3]),
        ("6.4 input registers between the blocks", &[4, 0, 120, 0, 1], &[0x84, 2]),
        ("6.1 coils: quantity 0", &[1, 0, 0, 0, 0], &[0x81, 3]),
        ("6.1 coils: quantity 2001", &[1, 0, 0, 0x07, 0xD1], &[0x81, 3]),
        ("6.1 coils: there are none", &[1, 0, 0, 0, 1], &[0x81, 2]),
        ("6.2 discrete inputs: there are none", &[2, 0, 0, 0, 1], &[0x82, 2]),
        ("6.5 coil value neither 0000 nor FF00", &[5, 0, 0, 0x12, 0x34], &[0x85, 3]),
        ("6.5 no such coil", &[5, 0, 0, 0xFF, 0], &[0x85, 2]),
        ("6.6 no such register", &[6, 0x10, 0, 0, 1], &[0x86, 2]),
        ("6.11 byte count does not fit", &[15, 0, 0, 0, 8, 2, 1, 1], &[0x8F, 3]),
        ("6.11 no such coils", &[15, 0, 0, 0, 8, 1, 1], &[0x8F, 2]),
        ("6.12 quantity 0", &[16, 0, 0, 0, 0, 0], &[0x90, 3]),
        ("6.12 quantity 124", &[16, 0, 0, 0, 124, 248], &[0x90, 3]),
        ("6.12 quantity 32768", &[16, 0, 0, 0x80, 0, 0, 1, 2], &[0x90, 3]),
        ("6.12 byte count does not fit", &[16, 0, 0, 0, 2, 2, 0, 1], &[0x90, 3]),
        ("6.12 beyond the last register", &[16, 0, 99, 0, 2, 4, 0, 1, 0, 2], &[0x90, 2]),
        ("6.17 read quantity 126", &[23, 0, 0, 0, 126, 0, 0, 0, 1, 2, 0, 1], &[0x97, 3]),
        ("6.17 write quantity 122", &[23, 0, 0, 0, 1, 0, 0, 0, 122, 244, 0, 1], &[0x97, 3]),
        ("6.17 read beyond the last register", &[23, 0, 99, 0, 2, 0, 0, 0, 1, 2, 0, 1], &[0x97, 2]),
        ("4 no such function", &[0x2B, 0x0E, 1, 0], &[0xAB, 1]),
        ("4 function 0", &[0, 1, 2], &[0x80, 1]),
        ("4 function 0x90 is an exception, not a request", &[0x90, 0], &[0x90, 1]),
    ];
    for (name, request, want) in rows {
        assert_eq!(ask(&mut stream, 1, request).await.as_deref(), Some(*want), "{name}");
    }
    assert_eq!(ask(&mut stream, 9, &[3, 0, 0, 0, 1]).await.as_deref(), Some(&[0x83, 11][..]), "7 no such unit");
}

#[tokio::test]
async fn what_is_written_is_read_back_and_a_refused_write_changes_nothing() {
    let (_, at) = rack().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    assert_eq!(ask(&mut stream, 1, &[6, 0, 5, 0x12, 0x34]).await.unwrap(), [6, 0, 5, 0x12, 0x34]);
    assert_eq!(ask(&mut stream, 1, &[16, 0, 6, 0, 2, 4, 0, 1, 0, 2]).await.unwrap(), [16, 0, 6, 0, 2]);
    assert_eq!(ask(&mut stream, 1, &[3, 0, 5, 0, 3]).await.unwrap(), [3, 6, 0x12, 0x34, 0, 1, 0, 2]);
    // One register too far: neither of the two is written.
    assert_eq!(ask(&mut stream, 1, &[16, 0, 99, 0, 2, 4, 9, 9, 9, 9]).await.unwrap(), [0x90, 2]);
    assert_eq!(ask(&mut stream, 1, &[3, 0, 99, 0, 1]).await.unwrap(), [3, 2, 0, 0]);
    // 6.17: the write comes before the read.
    assert_eq!(ask(&mut stream, 1, &[23, 0, 8, 0, 1, 0, 8, 0, 1, 2, 7, 7]).await.unwrap(), [23, 2, 7, 7]);
}

#[tokio::test]
async fn load_sensors_and_status_blocks_are_where_the_map_says() {
    let (plant, at) = rack().await;
    let (pos, load) = {
        let plant = plant.lock();
        let pos = (0..160u16).find(|n| plant.loads().at(control_core::units::PosId(*n)).is_some()).unwrap();
        (pos, plant.loads().at(control_core::units::PosId(pos)).unwrap().get())
    };
    let mut stream = TcpStream::connect(at).await.unwrap();
    let [a, b] = (1000 + 2 * pos).to_be_bytes();
    let [l3, l2, l1, l0] = load.to_be_bytes();
    assert_eq!(ask(&mut stream, 1, &[4, a, b, 0, 2]).await.unwrap(), [4, 4, l3, l2, l1, l0]);
    // Word 12 of machine 0's status block is its mode: 2 is AUTO.
    assert_eq!(ask(&mut stream, 1, &[4, 0, 12, 0, 1]).await.unwrap(), [4, 2, 0, 2]);
}

#[tokio::test]
async fn frames_of_another_protocol_are_met_with_silence_and_the_next_one_is_answered() {
    let (_, at) = rack().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let read = [0x12, 0x34, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    let silent: &[(&str, Vec<u8>)] = &[
        ("protocol id 1", vec![0x12, 0x34, 0, 1, 0, 6, 1, 3, 0, 0, 0, 1]),
        ("length 0", vec![0x12, 0x34, 0, 0, 0, 0]),
        ("length 1: a unit and nothing more", vec![0x12, 0x34, 0, 0, 0, 1, 1]),
        ("length 1000", [vec![0x12, 0x34, 0, 0, 0x03, 0xE8], vec![0xAA; 1000]].concat()),
        ("length 65535", [vec![0x12, 0x34, 0, 0, 0xFF, 0xFF], vec![0; 65535]].concat()),
    ];
    for (name, frame) in silent {
        stream.write_all(frame).await.unwrap();
        assert_eq!(answer(&mut stream).await, None, "{name}");
        stream.write_all(&read).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), [3, 2, 0, 0], "after {name}");
    }
}

#[tokio::test]
async fn a_frame_in_single_bytes_and_two_frames_in_one_are_answered_alike() {
    let (_, at) = rack().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let read = [0x12, 0x34, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    for byte in read {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(answer(&mut stream).await.unwrap(), [3, 2, 0, 0]);
    stream.write_all(&[read, read].concat()).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap(), [3, 2, 0, 0]);
    assert_eq!(answer(&mut stream).await.unwrap(), [3, 2, 0, 0]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_whatever_make_the_server_panic_or_answer_at_length(unit in 0u8.., pdu in proptest::collection::vec(0u8.., 1..253)) {
        let config = PlantConfig::from_toml(include_str!("../../configs/small/plant.toml")).unwrap();
        let plant = SharedPlant::new(Plant::new(config, 1, 1).unwrap());
        let answer = modbus::answer(&plant, unit, &pdu);
        proptest::prop_assert!((2..=253).contains(&answer.len()));
    }
}
