//! The broker and the subscriber, each in a process of its own: this program, started again with a hidden word.
//!
//! ```text
//!   __broker PORT              rumqttd until killed
//!   __subscriber PORT MODE     "reset" / "report" on its input, one line of JSON on its output
//! ```

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Largest payload: a device's message has some 20 kB.
const PAYLOAD_MAX: usize = 1 << 20;

/// rumqttd on a port, until killed.
pub(crate) fn serve(port: u16) {
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: PAYLOAD_MAX,
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
    rumqttd::Broker::new(config).start().expect("the broker starts");
}

/// What is looked at in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// The sequence.
    Plain,
    /// And when the bank changed, and when its reply came.
    Stamped,
    /// One value a message: the sequence, and when its reply came.
    Values,
}

/// What has come.
#[derive(Default)]
struct Seen {
    messages: u64,
    sequences: HashSet<u64>,
    change_ms: Vec<f64>,
    reply_ms: Vec<f64>,
    /// When the last one came, and the longest that nothing did.
    last: Option<Instant>,
    gap: Duration,
}

impl Seen {
    fn take(&mut self, payload: &[u8], watch: Watch) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
        // `{"sequence":7,"readings":..`, or `.. ,"sequence":7}`; the status message has none.
        let name: &[u8] = b"\"sequence\":";
        let at = match watch {
            Watch::Values => payload.windows(name.len()).rposition(|w| w == name),
            _ => payload.get(1..).filter(|rest| rest.starts_with(name)).map(|_| 1),
        };
        let Some(rest) = at.and_then(|at| payload.get(at + name.len()..)) else { return };
        let digits = rest.iter().take_while(|b| b.is_ascii_digit());
        let sequence = digits.fold(0u64, |n, b| n.wrapping_mul(10).wrapping_add(u64::from(b - b'0')));
        self.messages += 1;
        self.sequences.insert(sequence);
        let came = Instant::now();
        self.gap = self.gap.max(self.last.replace(came).map_or(Duration::ZERO, |last| came - last));
        let source = |text: &str| {
            let time = humantime::parse_rfc3339(text).ok()?;
            Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64() * 1000.0)
        };
        match watch {
            Watch::Plain => {}
            Watch::Values => {
                let name: &[u8] = b"\"source_time\":\"";
                let at = payload.windows(name.len()).position(|w| w == name).map(|at| at + name.len());
                let text = at.and_then(|at| payload.get(at..at + 24)).and_then(|t| std::str::from_utf8(t).ok());
                self.reply_ms.extend(text.and_then(source).map(|source| now - source));
            }
            Watch::Stamped => {
                let message: serde_json::Value = serde_json::from_slice(payload).expect("every payload is JSON");
                for reading in message["readings"].as_array().into_iter().flatten() {
                    // A poll in which nothing changed but the heartbeat says no stamp.
                    if let Some(stamp) = reading["values"]["stamp"].as_u64() {
                        self.change_ms.push(now - stamp as f64);
                        let source = reading["source_time"].as_str().and_then(source).expect("a source time");
                        self.reply_ms.push(now - source);
                    }
                }
            }
        }
    }

    fn report(&mut self) -> serde_json::Value {
        let first = self.sequences.iter().min().copied().unwrap_or(0);
        let last = self.sequences.iter().max().copied().unwrap_or(0);
        let expected = if self.sequences.is_empty() { 0 } else { last - first + 1 };
        json!({
            "messages": self.messages,
            "missing": expected - self.sequences.len() as u64,
            "change_ms": spread(&mut self.change_ms),
            "reply_ms": spread(&mut self.reply_ms),
            "gap_ms": self.gap.as_secs_f64() * 1000.0,
        })
    }
}

fn spread(all: &mut [f64]) -> serde_json::Value {
    all.sort_by(f64::total_cmp);
    match super::quantile(all, 0.5) {
        Some(p50) => json!({ "p50": p50, "p99": super::quantile(all, 0.99) }),
        None => serde_json::Value::Null,
    }
}

/// Lines of the input, from a thread of their own.
fn words() -> mpsc::UnboundedReceiver<String> {
    let (put, words) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for word in std::io::stdin().lines().map_while(Result::ok) {
            if put.send(word).is_err() {
                return;
            }
        }
    });
    words
}

/// Subscribes to everything, over and over when the broker goes away, and answers to what comes on its input.
pub(crate) fn subscribe(port: u16, watched: &str) {
    let (watch, qos) = match watched {
        "stamped" => (Watch::Stamped, QoS::AtLeastOnce),
        // The broker has enough to do with those who send.
        "values" => (Watch::Values, QoS::AtMostOnce),
        _ => (Watch::Plain, QoS::AtLeastOnce),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut options = MqttOptions::new("bench-subscriber", "127.0.0.1", port);
        options
            .set_keep_alive(Duration::from_secs(30))
            .set_outgoing_inflight_upper_limit(10)
            .set_max_packet_size(Some(PAYLOAD_MAX as u32));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 10);
        let mut words = words();
        let (mut seen, mut ready) = (Seen::default(), false);
        loop {
            // A poll that is dropped loses bytes: it is carried to its end while words are answered.
            let event = {
                let mut poll = std::pin::pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break event,
                        word = words.recv() => match word {
                            Some(word) => {
                                if word == "reset" {
                                    seen = Seen::default();
                                }
                                println!("{}", seen.report());
                            }
                            None => return,
                        },
                    }
                }
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.try_subscribe("lightsout/#", qos).expect("room for a subscription");
                }
                Ok(Event::Incoming(Packet::SubAck(_))) if !ready => {
                    ready = true;
                    println!("{{}}");
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => seen.take(&publish.payload, watch),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // the broker is away
            }
        }
    });
}
