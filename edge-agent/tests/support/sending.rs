//! A sender without an agent around it: a plan, and records to be sent.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use edge_agent::config::plan::{Broker, MqttPlan, SpoolPlan};
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{Kind, Records, Retention, Stream};
use std::io::Write;
use std::ops::Range;
use std::time::Duration;

/// Messages on their way at once.
pub const WINDOW: u16 = 32;

/// A plan for a broker on this machine.
pub fn plan(port: u16) -> MqttPlan {
    MqttPlan {
        brokers: vec![Broker::plain("127.0.0.1", port)],
        tls: None,
        version: Default::default(),
        falls_back: true,
        retain: true,
        client_id: "outbox".into(),
        status_topic: "t/status".into(),
        loss_topic: "t/lost".into(),
        payload: edge_agent::config::Payload::Tag,
        keep_alive: Duration::from_secs(5),
        heartbeat: Duration::from_secs(30),
        window: WINDOW,
        encoding: Default::default(),
        expiry: None,
        properties: Vec::new(),
        replay: Default::default(),
        replay_rate: None,
        login: None,
        spool: SpoolPlan {
            directory: None,
            capacity: 64 << 20,
            age: Duration::MAX,
            retention: Retention::Oldest,
            reserve: 0,
        },
        commands: None,
        sparkplug: None,
    }
}

/// Promises records that say these numbers.
pub fn append(spool: &Spool, stream: Stream, numbers: Range<u64>) {
    let mut records = Records::default();
    for n in numbers {
        records.push((stream, Kind::Json), &["t/v"], (n, 1), |out| {
            let start = out.len();
            let _ = write!(out, "{{\"value\":{n},\"stream\":\"{}\",\"sequence\":", stream.name());
            let hole = out.len() - start;
            out.push(b'}');
            hole
        });
    }
    spool.append(&mut records);
}
