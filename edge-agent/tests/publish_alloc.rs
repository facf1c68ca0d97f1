//! A record goes from the spool to the wire, and is done at its acknowledgement, without an allocation: counted.

#[path = "support/counting.rs"]
mod counting;

use counting::counted;
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::publish::{Head, user_properties};
use edge_agent::telemetry::mqtt::wire::{Hello, Message, Version, Wire};
use edge_agent::telemetry::spool::{Kind, Next, Outlet, Records, Replay, Stream};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const WINDOW: u64 = 500;

fn append(spool: &Spool, count: u64) {
    let mut records = Records::default();
    for n in 0..count {
        records.push((Stream::Normal, Kind::Json), &["lightsout/hall/line/cell/press/", "force"], (n, 1), |out| {
            let start = out.len();
            let _ = write!(out, "{{\"value\":{n},\"quality\":\"good\",\"sequence\":");
            let hole = out.len() - start;
            out.push(b'}');
            hole
        });
    }
    spool.append(&mut records);
}

/// A wire whose broker takes everything and says nothing, and what that broker has read.
async fn wire(version: Version) -> (Wire, tokio::task::JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = duplex(1 << 20);
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        let _ = theirs.read(&mut bytes).await; // CONNECT
        let connack: &[u8] = if version == Version::V5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
        theirs.write_all(connack).await.unwrap();
        let mut all = Vec::new();
        let _ = theirs.read_to_end(&mut all).await;
        all
    });
    let will = Message { topic: "t".into(), ..Message::default() };
    let keep_alive = Duration::from_secs(5);
    let hello = Hello { version, client_id: "gw", keep_alive, login: None, will: &will, keeps: true };
    (Wire::open(Box::new(ours), hello).await.unwrap(), reading)
}

#[tokio::test]
async fn a_message_costs_no_allocation_and_is_the_packet_it_should_be() {
    for version in [Version::V5, Version::V311] {
        let spool = Spool::in_memory(64 << 20);
        let (mut wire, reading) = wire(version).await;
        let mut outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
        let user = user_properties(&[("site".into(), "hall-1".into())]);
        let head = Head { content_type: "application/json", expiry_s: Some(60) };
        let mut tickets = Vec::with_capacity(WINDOW as usize);
        let (mut allocations, rounds) = (0, 20);
        for round in 0..rounds {
            append(&spool, WINDOW);
            let now = Instant::now();
            let mut id = 0;
            let count = counted(|| {
                while let Next::Record(ticket, written) = outlet.next(now, |_, record| {
                    id += 1;
                    Some(wire.publish_record(record, id, head, &user))
                }) {
                    written.unwrap();
                    tickets.push(ticket);
                }
                tickets.iter().for_each(|ticket| outlet.acknowledge(ticket));
            });
            assert_eq!(tickets.len() as u64, WINDOW);
            tickets.clear();
            // The buffer has its size after the first.
            allocations += if round == 0 { 0 } else { count };
            while wire.pending() > 0 {
                wire.turn().await.unwrap();
            }
            let _ = spool.commit();
        }
        let messages = (rounds - 1) * WINDOW;
        println!("{version:?}: {allocations} allocations for {messages} messages");
        assert!(allocations * 100 < messages, "{allocations} allocations for {messages} messages");
        wire.close().await;

        let mut bytes = bytes::BytesMut::from(&reading.await.unwrap()[..]);
        for n in 0..rounds * WINDOW {
            let payload = format!("{{\"value\":{},\"quality\":\"good\",\"sequence\":{}}}", n % WINDOW, n + 1);
            match version {
                Version::V5 => {
                    let v5::Packet::Publish(p) = v5::Packet::read(&mut bytes, None).unwrap() else { panic!() };
                    assert_eq!(
                        (&p.topic[..], &p.payload[..]),
                        (&b"lightsout/hall/line/cell/press/force"[..], payload.as_bytes())
                    );
                    assert_eq!((p.pkid, p.qos as u8, p.retain, p.dup), ((n % WINDOW) as u16 + 1, 1, false, false));
                    let said = p.properties.unwrap();
                    assert_eq!(
                        (said.content_type.as_deref(), said.message_expiry_interval),
                        (Some("application/json"), Some(60))
                    );
                    assert_eq!(said.user_properties, [("site".to_string(), "hall-1".to_string())]);
                }
                Version::V311 => {
                    let v4::Packet::Publish(p) = v4::Packet::read(&mut bytes, 1 << 20).unwrap() else { panic!() };
                    assert_eq!(
                        (p.topic.as_str(), &p.payload[..]),
                        ("lightsout/hall/line/cell/press/force", payload.as_bytes())
                    );
                    assert_eq!((p.pkid, p.qos as u8), ((n % WINDOW) as u16 + 1, 1));
                }
            }
        }
    }
}
