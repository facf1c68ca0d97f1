//! What `edge-agent check --connect` does: it speaks with every peer as the gateway will, once, and says what came of it.
//!
//! ```text
//!   broker    name ─ port ─ TLS ─ CONNECT ─ CONNACK
//!   Modbus    name ─ port ─ TLS ─ one value of each unit
//!   OPC UA    name ─ port ─ security, trust, user ─ session ─ one node
//! ```
//!
//! Whatever fails is said in words: what was found, and what to look at.

use super::Failure;
use crate::config::plan::{Broker, MqttPlan};
use crate::config::{DriverPlan, LinePlan, Plan};
use crate::telemetry::mqtt;
use device_drivers::modbus::{Endpoint, Fault, LineSpec, Probe};
use device_drivers::{dial, opcua, tls};
use serde::Serialize;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for a name to be looked up and a port to be reached.
const REACH_LIMIT: Duration = Duration::from_secs(5);

/// A peer, and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Tried {
    pub(super) peer: String,
    #[serde(rename = "reached")]
    pub(super) is_reached: bool,
    pub(super) said: String,
}

fn tried(peer: String, done: Result<String, String>) -> Tried {
    Tried { peer, is_reached: done.is_ok(), said: done.unwrap_or_else(|why| why) }
}

/// Speaks with all peers at the same time.
pub(super) fn all(plan: &Plan) -> Result<Vec<Tried>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(1, e.to_string()))?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for line in &plan.lines {
            let line = line.clone();
            tasks.push(tokio::spawn(async move { reach_line(&line).await }));
        }
        for (mqtt, broker) in plan.mqtt.iter().flat_map(|m| m.brokers.iter().map(move |b| (m.clone(), b.clone()))) {
            tasks.push(tokio::spawn(async move {
                vec![tried(format!("broker {broker}"), reach_broker(&mqtt, &broker).await)]
            }));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.map_err(|e| Failure::new(1, e.to_string()))?);
        }
        Ok(all)
    })
}

/// Whether a name can be looked up right now.
async fn name(peer: &str) -> Result<(), String> {
    let found = timeout(REACH_LIMIT, tokio::net::lookup_host(peer)).await;
    let late = || format!("the name in {peer} cannot be looked up within {REACH_LIMIT:?}");
    let found = found.map_err(|_| late())?.map_err(|e| format!("the name in {peer} cannot be looked up: {e}"))?;
    if found.count() == 0 { Err(format!("the name in {peer} has no address")) } else { Ok(()) }
}

/// Whether a port answers. What is on it is not asked.
async fn port(peer: &str) -> Result<TcpStream, String> {
    name(peer).await?;
    dial(peer, REACH_LIMIT).await.map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => {
            format!("{peer} answers, but nothing listens on this port; is the server switched on there?")
        }
        ErrorKind::TimedOut => {
            format!("{peer} does not answer within {REACH_LIMIT:?}; is it powered, and on this network?")
        }
        _ => format!("{peer}: {e}; check the address, the cable and the switch"),
    })
}

/// Who has spoken plainly to a port with TLS hears nothing that can be understood: so it is asked for.
async fn hint_of_tls(peer: &str, why: String, instead: &str) -> String {
    let speaks = match dial(peer, REACH_LIMIT).await {
        Ok(stream) => tls::is_spoken(stream, REACH_LIMIT).await,
        Err(_) => false,
    };
    if speaks { format!("the peer speaks TLS on this port: write {instead} ({why})") } else { why }
}

async fn reach_broker(mqtt: &MqttPlan, broker: &Broker) -> Result<String, String> {
    let at = at(&broker.host, broker.port);
    drop(port(&at).await?);
    match mqtt::probe(mqtt, broker).await {
        Err(why) if !broker.tls => Err(hint_of_tls(&at, why, &format!("\"mqtts://{at}\" and `tls`")).await),
        done => done,
    }
}

/// `host:port`, with an IPv6 address in brackets.
fn at(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

async fn reach_line(line: &LinePlan) -> Vec<Tried> {
    let title = format!("line {}", line.name);
    match &line.driver {
        DriverPlan::Modbus(spec) => {
            // Some devices have one connection to give: it is opened once. A serial port has no name.
            let known = match spec.endpoint.host_port() {
                Some(peer) => name(peer).await,
                None => Ok(()),
            };
            match known {
                Ok(()) => reach_units(line, spec).await,
                Err(why) => vec![tried(title, Err(why))],
            }
        }
        DriverPlan::OpcUa(spec) => {
            let done = match port(&line.driver.peer()).await {
                Ok(_) => opcua::probe(spec).await,
                Err(why) => Err(why),
            };
            vec![tried(title, done)]
        }
    }
}

/// Every unit of a line, over one connection for as long as it holds.
async fn reach_units(line: &LinePlan, spec: &LineSpec) -> Vec<Tried> {
    let mut all = Vec::new();
    let mut probe = None;
    for (device, plan) in spec.devices.iter().zip(line.devices.iter()) {
        let peer = format!("line {} at {}, {}", line.name, spec.endpoint, plan.name);
        if probe.is_none() {
            match Probe::open(spec).await {
                Ok(opened) => probe = Some(opened),
                Err(why) => {
                    // Nobody behind it can be asked.
                    all.push(tried(format!("line {} at {}", line.name, spec.endpoint), Err(why)));
                    return all;
                }
            }
        }
        let Some(open) = probe.as_mut() else { return all };
        let done = open.ask(device).await;
        if let Err(Fault::Line(_) | Fault::Silent(_)) = &done {
            probe = None;
        }
        let done = match (done, &spec.endpoint) {
            (Err(Fault::Line(why) | Fault::Silent(why)), Endpoint::Tcp(at)) => {
                Err(hint_of_tls(at, why, &format!("\"tls://{at}\" and `tls`")).await)
            }
            (done, _) => done.map_err(|fault| fault.text().to_string()),
        };
        all.push(tried(peer, done));
    }
    all
}
