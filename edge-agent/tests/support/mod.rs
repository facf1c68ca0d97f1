//! What tests and the demo share: a whole floor on this machine. Broker, plant and agent on ports of their own.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use device_drivers::modbus::Endpoint;
use edge_agent::config::plan::Broker;
use edge_agent::config::{DriverPlan, Plan};
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim, SimAddresses};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A file of the small demo: one aisle and one cell. Most tests need no more.
pub fn demo_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/small").join(name)
}

/// A file of the whole demo: two aisles, four cells, mobile robots.
pub fn hall_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/demo").join(name)
}

fn plant(file: &std::path::Path) -> PlantConfig {
    let mut config = PlantConfig::load(file).expect("a valid plant");
    config.listen.modbus.set_port(0);
    config.listen.opcua.set_port(0);
    config
}

/// The plant of the small demo, listening on free ports.
pub fn demo_plant() -> PlantConfig {
    plant(&demo_file("plant.toml"))
}

/// The plant of the whole demo, listening on free ports.
pub fn hall_plant() -> PlantConfig {
    plant(&hall_file("plant.toml"))
}

/// Starts the plant of the small demo.
pub async fn start_plant(seed: u64) -> Sim {
    start(demo_plant(), seed).await
}

/// Starts a plant.
pub async fn start(plant: PlantConfig, seed: u64) -> Sim {
    start_at(plant, seed, 1).await
}

/// Starts a plant whose clock runs so much faster.
pub async fn start_at(plant: PlantConfig, seed: u64, pace: u16) -> Sim {
    let pki_dir = Some(std::env::temp_dir().join("lightsout-test-pki"));
    Sim::start(plant, seed, pace, Keep { pki_dir, ..Keep::default() }).await.expect("the plant starts")
}

/// The agent of the small demo, pointed at these peers, serving HTTP on a free port.
pub fn demo_plan(plant: SimAddresses, broker: u16) -> Plan {
    plan_of(&demo_file("agent.toml"), plant, broker)
}

/// The agent of the whole demo, pointed at these peers.
pub fn hall_plan(plant: SimAddresses, broker: u16) -> Plan {
    plan_of(&hall_file("agent.toml"), plant, broker)
}

/// The small demo as files in a folder, for a program that is started: its configuration, pointed at these peers, and its port.
pub fn demo_folder(dir: &std::path::Path, plant: SimAddresses, broker: u16) -> (PathBuf, u16) {
    std::fs::create_dir(dir.join("profiles")).expect("a new folder");
    for name in ["profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        std::fs::copy(demo_file(name), dir.join(name)).expect("the demo has it");
    }
    let port = free_port();
    let text = std::fs::read_to_string(demo_file("agent.toml"))
        .expect("the demo has it")
        .replace("[gateway]", "[gateway]\nstate_dir = \"state\"")
        .replace("127.0.0.1:9464", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:1883", &format!("127.0.0.1:{broker}"))
        .replace("127.0.0.1:5020", &plant.modbus.to_string())
        .replace("127.0.0.1:4855", &plant.opcua.to_string())
        .replace("realtime      = \"try\"", "realtime      = \"off\"");
    let config = dir.join("agent.toml");
    std::fs::write(&config, text).expect("a folder of ours");
    (config, port)
}

fn plan_of(file: &std::path::Path, plant: SimAddresses, broker: u16) -> Plan {
    let mut plan = edge_agent::config::load(file).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    plan.control.realtime.wanted = false;
    let mqtt = plan.mqtt.as_mut().expect("the demo publishes");
    mqtt.brokers = vec![Broker::plain("127.0.0.1", broker)];
    for line in &mut plan.lines {
        match &mut line.driver {
            DriverPlan::Modbus(spec) => spec.endpoint = Endpoint::Tcp(plant.modbus.to_string()),
            DriverPlan::OpcUa(spec) => spec.endpoint = format!("opc.tcp://{}/", plant.opcua),
        }
    }
    plan
}

/// A program on this machine, or a clear word that the test is skipped.
pub fn installed(name: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let found = path.split(':').map(|dir| std::path::Path::new(dir).join(name)).find(|p| p.is_file());
    if found.is_none() {
        assert!(
            std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"),
            "{test} needs {name}, and CI must have it"
        );
        // Straight to the terminal: the test runner would swallow a println.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {name} is not installed here");
    }
    found
}

/// Where npm has installed a package for the tests (`.ci/run` does that), or a clear word that the test is skipped.
pub fn npm_modules(package: &str, test: &str) -> Option<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/npm/node_modules");
    let given = std::env::var_os("NODE_PATH").map(PathBuf::from);
    let found = [Some(own), given].into_iter().flatten().find(|dir| dir.join(package).is_dir());
    if found.is_none() {
        assert!(
            std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"),
            "{test} needs npm's {package}, and CI must have it: npm install --prefix target/npm {package}"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: npm install --prefix target/npm {package}");
    }
    found
}

/// A clock that a test sets: the wall clock of a program that is started with it (libfaketime). The monotonic one goes on as it does.
pub struct SteppingClock {
    file: tempfile::NamedTempFile,
    library: PathBuf,
}

impl SteppingClock {
    /// A clock that shows this, as `@2001-01-01 00:00:00`; or a clear word that the test is skipped.
    pub fn new(shows: &str, test: &str) -> Option<SteppingClock> {
        installed("faketime", test)?;
        let dirs = std::fs::read_dir("/usr/lib").expect("a system").flatten();
        let library = dirs.map(|dir| dir.path().join("faketime/libfaketime.so.1")).find(|file| file.is_file());
        let clock = SteppingClock {
            file: tempfile::NamedTempFile::new().expect("a file"),
            library: library.expect("beside it"),
        };
        clock.set(shows);
        Some(clock)
    }

    /// Steps: to an instant (`@2001-01-01 00:00:00`), or so many seconds from the true time (`+0`, `-3600`).
    pub fn set(&self, shows: &str) {
        std::fs::write(self.file.path(), format!("{shows}\n")).expect("its file can be written");
    }

    /// Makes it the clock of a program that is about to be started.
    pub fn give_to<'a>(&self, command: &'a mut std::process::Command) -> &'a mut std::process::Command {
        let file = self.file.path();
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_RESET", "1")
    }
}

/// A port nobody listens on, and that nobody here is given again: below those the kernel hands out to connections of its own choice, so
/// that it is still free when it is used.
pub fn free_port() -> u16 {
    const RANGE: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: std::sync::OnceLock<std::sync::atomic::AtomicU32> = std::sync::OnceLock::new();
    let next = NEXT.get_or_init(|| {
        // Programs that test at the same time begin far from each other.
        let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_nanos());
        (std::process::id().wrapping_mul(7919).wrapping_add(nanos / 1000) % 1_000_000).into()
    });
    for _ in RANGE {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = (RANGE.start + n % (RANGE.end - RANGE.start)) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A real broker in this process, for as long as the process lives.
pub async fn start_broker() -> u16 {
    let port = free_port();
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 500,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = rumqttd::ServerSettings {
        name: "v5".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = rumqttd::RouterConfig {
        max_connections: 100,
        max_outgoing_packet_count: 500,
        max_segment_size: 16 << 20,
        max_segment_count: 8,
        ..rumqttd::RouterConfig::default()
    };
    let v5 = Some(HashMap::from([("v5".to_string(), server)]));
    let config = rumqttd::Config { id: 0, router, v5, ..rumqttd::Config::default() };
    std::thread::spawn(move || {
        let mut broker = rumqttd::Broker::new(config);
        broker.start().expect("the broker starts");
    });
    for _ in 0..2400 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the broker did not come up on port {port}");
}

/// A way to a port that can be cut: while the sender says false, connections are closed and none is let through.
pub async fn gate(to: u16) -> (u16, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (open, is_open) = tokio::sync::watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut is_open = is_open.clone();
            if !*is_open.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let Ok(mut peer) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                let _ = (stream.set_nodelay(true), peer.set_nodelay(true));
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut stream, &mut peer) => {}
                    _ = is_open.wait_for(|open| !*open) => {}
                }
            });
        }
    });
    (port, open)
}

/// What a subscriber of our own has received.
#[derive(Debug, Default)]
pub struct Received {
    /// Sequences of samples.
    pub sequences: BTreeSet<u64>,
    /// Messages, duplicates included.
    pub messages: u64,
    /// Values in device messages, by sequence.
    pub by_device: HashMap<u64, u64>,
    /// Last payload per topic.
    pub last: HashMap<String, serde_json::Value>,
}

impl Received {
    /// Values in device messages, duplicates left out.
    pub fn values(&self) -> u64 {
        self.by_device.values().sum()
    }
}

/// Subscribes to everything and keeps what comes.
pub async fn subscribe(broker: u16) -> Arc<Mutex<Received>> {
    let received = Arc::new(Mutex::new(Received::default()));
    let mut options = MqttOptions::new("recorder", "127.0.0.1", broker);
    options.set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(10);
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("lightsout/#", QoS::AtLeastOnce).await.expect("subscribe");
    let (ready_tx, ready_rx) = tokio::sync::oneshot::channel();
    let kept = received.clone();
    tokio::spawn(async move {
        let _client = client;
        let mut ready = Some(ready_tx);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::SubAck(_)) => {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                }
                Event::Incoming(Packet::Publish(p)) => {
                    let mut kept = kept.lock().expect("no panic while held");
                    kept.messages += 1;
                    let json: serde_json::Value = serde_json::from_slice(&p.payload).expect("every payload is JSON");
                    if let Some(sequence) = json["sequence"].as_u64() {
                        kept.sequences.insert(sequence);
                        if let Some(readings) = json["readings"].as_array() {
                            let values =
                                readings.iter().filter_map(|r| r["values"].as_object()).map(|v| v.len() as u64);
                            kept.by_device.insert(sequence, values.sum());
                        }
                    }
                    kept.last.insert(String::from_utf8_lossy(&p.topic).into_owned(), json);
                }
                _ => {}
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(60), ready_rx).await.expect("subscribed in time").expect("subscribed");
    received
}

/// One HTTP request on a connection of its own: status and body.
pub async fn http(at: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    http_with(at, method, path, body, "").await
}

/// The same with more header lines, each with its line end.
pub async fn http_with(
    at: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    more: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(at).await?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{more}");
    let kind = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(format!("{head}{kind}").as_bytes()).await?;
    let mut answer = Vec::new();
    // Some servers keep the connection whatever is asked of them: what they said is all there when it has its length.
    while !is_whole(&answer) && stream.read_buf(&mut answer).await? > 0 {}
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let body = if headers.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body.split("\r\n").skip(1).step_by(2).collect()
    } else {
        body.to_string()
    };
    Ok((status, body))
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

/// What comes back for these bytes, whatever they are.
pub async fn http_raw(at: SocketAddr, request: String) -> String {
    let mut stream = tokio::net::TcpStream::connect(at).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it takes bytes");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of an answer.
pub async fn http_head(at: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    let kind = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = http_raw(at, head + &kind).await;
    answer.split("\r\n\r\n").next().unwrap_or_default().to_string()
}

/// Waits until `done` says so; false when it never does. `limit` is what a machine with nothing else to do needs; one that is busy gets
/// its time, and only a test that fails waits for all of it.
pub async fn eventually(limit: Duration, mut done: impl AsyncFnMut() -> bool) -> bool {
    let end = tokio::time::Instant::now() + limit.max(Duration::from_secs(60));
    while tokio::time::Instant::now() < end {
        if done().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// What the record of a state folder says of commands that have come to an end: who, what, and what came of it.
pub fn commands(state: &std::path::Path) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let disk = edge_agent::telemetry::spool::Folder::to_read(&state.join(edge_agent::store::FOLDER));
    let shown = edge_agent::store::export(&disk, |event| {
        if event.kind == "did" {
            found.extend(serde_json::from_slice::<serde_json::Value>(event.body));
        }
    });
    shown.expect("a store");
    found.retain(|did| ["tag.write", "order.submit"].iter().any(|a| did["action"] == *a) && did["outcome"] != "begun");
    found
}

/// Whether the record says that this was written to a tag.
pub fn was_written(state: &std::path::Path, tag: &str, value: i64) -> bool {
    state.join(edge_agent::store::FOLDER).is_dir()
        && commands(state).iter().any(|c| c["target"] == tag && c["value"] == value && c["outcome"] == "done")
}
