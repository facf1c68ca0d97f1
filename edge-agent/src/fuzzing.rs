//! Doors for fuzzers into what this program reads from outside, or back from its disk: each takes any bytes at all, and may only return.
//!
//! | door | what the bytes are |
//! |---|---|
//! | [`mqtt`] | what a broker sends: the first byte decides the version, and whether it answered CONNECT properly before |
//! | [`sparkplug`] | an NCMD or DCMD of a host |
//! | [`segment`], [`store`] | a file of the spool, and of the store |
//! | [`body`] | a body of an order or a write, over HTTP or MQTT |
//! | [`configuration`], [`csv`] | the file; a table of tags |
//!
//! `cargo +nightly fuzz run mqtt` in this crate's folder goes on until it finds something; `tests/decoders.rs` runs all doors on stable, for a
//! bounded number of inputs that are made of `fuzz/corpus`.

use crate::audit::Audit;
use crate::commands::{CommandPlan, Commands, WriteDesk};
use crate::config::{self, Files};
use crate::desk::Desk;
use crate::store::{Keep, Recalled};
use crate::telemetry::mqtt::wire::{Hello, Incoming, Message, Received, Version, Wire};
use crate::telemetry::sparkplug::payload::{DataType, Payload, wanted};
use crate::telemetry::spool::{Disk, Memory, Next, Outlet, Replay, Spool, SpoolOptions};
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// CONNACK of both versions: taken, nothing else said (MQTT 3.1.1, 3.2; MQTT 5, 3.2).
const CONNACK: [&[u8]; 2] = [&[0x20, 2, 0, 0], &[0x20, 3, 0, 0, 0]];
/// More packets than any input of ours holds; a door that goes on beyond has found no end.
const PACKETS_MAX: usize = 1 << 20;

fn runtime() -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.unwrap_or_else(|e| unreachable!("a runtime of one thread needs nothing: {e}"))
}

/// What a broker sends, in either version.
pub fn mqtt(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else { return };
    let (version, is_v5) = if first & 1 == 0 { (Version::V311, 0) } else { (Version::V5, 1) };
    let hello = if first & 2 == 0 { CONNACK.get(is_v5).copied().unwrap_or_default() } else { &[] };
    runtime().block_on(async {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let _ = far.write_all(hello).await;
        let _ = far.write_all(stream.get(..stream.len().min(1 << 19)).unwrap_or_default()).await;
        let _ = far.shutdown().await;
        let will = Message::default();
        let keep_alive = Duration::from_secs(5);
        let hello = Hello { version, client_id: "fuzz", keep_alive, login: None, will: &will, keeps: true };
        let Ok(mut wire) = Wire::open(Box::new(near), hello).await else { return };
        for _ in 0..PACKETS_MAX {
            match wire.take() {
                Ok(Some(Incoming::Disconnect(_))) | Err(_) => return,
                Ok(Some(_)) => {}
                Ok(None) if wire.turn().await.is_err() => return,
                Ok(None) => {}
            }
        }
        unreachable!("{} bytes are no {PACKETS_MAX} packets", stream.len());
    });
}

/// A command of a Sparkplug host.
pub fn sparkplug(bytes: &[u8]) {
    let Ok(payload) = Payload::decode(bytes) else { return };
    for value in payload.metrics.iter().filter_map(|m| m.value.as_ref()) {
        for kind in [DataType::Int32, DataType::Int64, DataType::UInt64, DataType::Double, DataType::Text] {
            let _ = wanted(value, kind);
        }
    }
}

fn file(name: &str, bytes: &[u8]) -> Arc<Memory> {
    let disk = Memory::default();
    let made = disk.create(name).and_then(|file| file.write_at(0, bytes));
    made.unwrap_or_else(|e| unreachable!("memory takes it: {e}"));
    Arc::new(disk)
}

/// A segment of the spool: what is read from it is sent in the order of its numbers, and nothing of it twice.
pub fn segment(bytes: &[u8]) {
    let empty = || Arc::new(Memory::default()) as Arc<dyn Disk>;
    let disks = [empty(), file("0000000000000001.seg", bytes) as Arc<dyn Disk>, empty()];
    let Ok(spool) = Spool::open(disks, SpoolOptions::new(1 << 24, "lost")) else { return };
    let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
    let mut last = 0;
    while let Next::Record(ticket, ()) = outlet.next_blocking(Instant::now(), |_, _| Some(())) {
        if ticket.stream == crate::telemetry::spool::Stream::Normal {
            assert!(ticket.sequence > last, "{} after {last}", ticket.sequence);
            last = ticket.sequence;
        }
        outlet.acknowledge(&ticket);
    }
    drop(outlet);
    spool.close();
}

/// A log of the store: what is understood of it once is understood the next time.
pub fn store(bytes: &[u8]) {
    let disk: Arc<dyn Disk> = file("0000000000000001.log", bytes);
    let open = || Keep::on(disk.clone(), 0, Vec::new).map(|(_, left, _)| left).ok();
    let Some(first) = open() else { return };
    let again = open().unwrap_or_default();
    let told = |left: &Recalled| {
        (left.orders.len(), left.standing.len(), left.closed.len(), left.did.len(), left.writes.len())
    };
    assert_eq!(told(&again), told(&first), "what was rescued");
    assert!(again.next_order >= first.next_order);
}

/// A body: of an order, of a write, and of both over MQTT.
pub fn body(bytes: &[u8]) {
    runtime().block_on(async {
        let (requests, _ring) = rtrb::RingBuffer::new(4);
        let desk = Desk::new(requests, vec!["weld".into(), "test".into()]);
        let audit = Arc::new(Audit::default());
        let writes = Arc::new(WriteDesk::new(audit.clone(), &[]));
        if let Ok(form) = serde_json::from_slice(bytes) {
            let _ = desk.submit(form, Duration::ZERO).await;
        }
        if let Ok(form) = serde_json::from_slice(bytes) {
            let origin = crate::commands::Origin { via: "http", by: "fuzz".into(), from: "fuzz".into() };
            let _ = writes.write(form, origin).await;
        }
        let plan = CommandPlan { topic: "cmd".into(), allow: vec!["*".into()], orders: true, rate: 1e6, own: vec![] };
        let (answering, mut answers) = tokio::sync::mpsc::channel(4);
        let door = Commands::new(plan, writes, Some(desk), audit, answering);
        for topic in ["cmd/write", "cmd/order"] {
            let payload = bytes.to_vec().into();
            door.take(Received { topic: topic.into(), payload, ..Received::default() });
        }
        // Nothing at all is how a retained message is taken back: no command.
        for _ in 0..if bytes.is_empty() { 0 } else { 2 } {
            let answer = answers.recv().await;
            let sound = answer.is_some_and(|a| serde_json::from_slice::<serde_json::Value>(&a.payload).is_ok());
            assert!(sound, "each command is answered, in JSON");
        }
    });
}

fn load(texts: &[(&str, &str)]) {
    let texts: std::collections::BTreeMap<_, _> = texts.iter().copied().collect();
    let files = serde_json::to_vec(&texts).ok().and_then(|json| Files::from_json(&json).ok());
    let Some(files) = files else { return };
    match config::load_from(Path::new("agent.toml"), files) {
        Ok(_) => {}
        Err(report) => assert!(!report.render(false).is_empty(), "what is refused is said"),
    }
}

/// A configuration.
pub fn configuration(bytes: &[u8]) {
    load(&[("agent.toml", &String::from_utf8_lossy(bytes)), ("p.toml", PROFILE)]);
}

/// A table of tags, from a spreadsheet.
pub fn csv(bytes: &[u8]) {
    load(&[("agent.toml", AGENT), ("p.csv", &String::from_utf8_lossy(bytes))]);
}

const PROFILE: &str = "[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"u16\"\n";
const AGENT: &str = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\n[[line]]\nname = \"l\"\nmodbus = \"h:502\"\n\
                     [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"p.csv\"\n";
