//! The floor: a bare tokio-modbus loop that does the same reads at the same times, and nothing with what comes.
//!
//! A task for each line, its devices in turn, each at its time; lines begin apart as the agent's do: what comes together wakes a loop
//! once, and is cheap, for either. Values are decoded and dropped. What it costs on this machine, in this run, is what the agent is compared
//! with. Where the agent publishes, the loop is run a second time and publishes too: one JSON message a device, QoS 1, by rumqttc. That is the
//! gateway somebody writes in an afternoon, which keeps nothing and checks nothing.

use crate::load::{Load, Shape};
use crate::plant::{Process, cpu_s, ourselves};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde_json::json;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio_modbus::client::{Context, tcp};
use tokio_modbus::prelude::{Reader, Slave, SlaveContext};

/// Before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Lines begin within their interval, but within this, as do the devices of one.
const SPREAD_MAX: Duration = Duration::from_secs(1);
/// Where lines begin, of their interval: the multiples that the agent takes.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// CPU seconds per million values that a bare loop needs for this load; published, where there is a broker's port.
pub(crate) fn measure(load: &Load, bank: SocketAddr, window: Duration, broker: Option<u16>) -> f64 {
    let shape = match load.shape {
        Shape::Floats => "floats",
        Shape::Words => "words",
        Shape::Stamped => "stamped",
    };
    let (interval, window) = (load.interval.as_millis() as u64, window.as_millis() as u64);
    let numbers = [load.lines as u64, load.devices as u64, interval, window, broker.map_or(0, u64::from)];
    let mut command: Command = ourselves();
    command.args(["__floor", shape, &bank.to_string()]).args(numbers.map(|n| n.to_string()));
    let text = Process::start(command.stdout(Stdio::piped())).output();
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("floor said {text:?}: {e}"));
    said["cpu_s"].as_f64().expect("cpu_s") / said["values"].as_f64().expect("values") * 1e6
}

/// The child's part.
pub(crate) fn run(args: &[String]) {
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<u64>().ok()).expect("a number");
    let shape = match args.first().map(String::as_str) {
        Some("floats") => Shape::Floats,
        Some("words") => Shape::Words,
        _ => Shape::Stamped,
    };
    let bank: SocketAddr = args.get(1).and_then(|a| a.parse().ok()).expect("an address");
    let interval = Duration::from_millis(number(4));
    let (lines, devices) = (number(2) as usize, number(3) as usize);
    let load = Load { shape, lines, devices, interval, pipeline: 1, changes: interval, payload: "device" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let values = Arc::new(AtomicU64::new(0));
        let publisher = u16::try_from(number(6)).ok().filter(|port| *port > 0).map(publisher);
        for (n, devices) in (0..load.devices).collect::<Vec<_>>().chunks(load.per_line()).enumerate() {
            let units: Vec<u8> = devices.iter().map(|d| load.unit(*d)).collect();
            let phase = load.interval.min(SPREAD_MAX).mul_f64((n as f64 * GOLDEN).fract());
            tokio::spawn(line(load.clone(), bank, units, (values.clone(), publisher.clone()), phase));
        }
        tokio::time::sleep(WARM_UP).await;
        let (before, cpu) = (values.load(Relaxed), cpu_s(std::process::id()));
        tokio::time::sleep(Duration::from_millis(number(5))).await;
        println!("{}", json!({ "values": values.load(Relaxed) - before, "cpu_s": cpu_s(std::process::id()) - cpu }));
    });
}

/// A client, whose events are taken and dropped.
fn publisher(port: u16) -> AsyncClient {
    let mut options = MqttOptions::new("bench-floor", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 1000);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    client
}

/// What the agent says of a device, from a loop: a time, and each value by its name.
fn message(values: &[f32]) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let mut text = format!("{{\"source_time\":\"{time}\",\"values\":{{");
    for (n, value) in values.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\"t{n}\":{value}");
    }
    text + "}}"
}

async fn line(
    load: Load,
    bank: SocketAddr,
    units: Vec<u8>,
    (values, publisher): (Arc<AtomicU64>, Option<AsyncClient>),
    phase: Duration,
) {
    let stream = tokio::net::TcpStream::connect(bank).await.expect("the bank takes connections");
    stream.set_nodelay(true).expect("a TCP option");
    let mut client = tcp::attach(stream);
    let (requests, mut decoded) = (load.requests(), Vec::with_capacity(1000));
    let apart = load.interval.min(SPREAD_MAX) / units.len() as u32;
    let start = tokio::time::Instant::now() + phase;
    let mut due: Vec<_> = (0..units.len() as u32).map(|n| start + apart * n).collect();
    loop {
        for (unit, due) in units.iter().zip(&mut due) {
            tokio::time::sleep_until(*due).await;
            *due += load.interval;
            client.set_slave(Slave(*unit));
            decoded.clear();
            for (at, count) in &requests {
                read(&mut client, &load, *at, *count, &mut decoded).await;
            }
            std::hint::black_box(&decoded);
            if let Some(client) = &publisher {
                let topic = format!("lightsout/hall/bench/c1/d{unit}");
                client.publish(topic, QoS::AtLeastOnce, false, message(&decoded)).await.expect("the broker takes it");
            }
            values.fetch_add(load.values() as u64, Relaxed);
        }
    }
}

async fn read(client: &mut Context, load: &Load, at: u16, count: u16, decoded: &mut Vec<f32>) {
    let reply = match load.shape {
        Shape::Stamped => client.read_input_registers(at, count).await,
        _ => client.read_holding_registers(at, count).await,
    };
    let words = reply.expect("the bank answers").expect("and does not refuse");
    match load.shape {
        Shape::Floats => decoded.extend(
            words.as_chunks().0.iter().map(|[high, low]| f32::from_bits(u32::from(*high) << 16 | u32::from(*low))),
        ),
        _ => decoded.extend(words.iter().map(|word| f32::from(*word))),
    }
}
