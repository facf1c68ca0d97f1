//! One message a value, as everybody has it who sets nothing: how long a value takes to the subscriber, what that costs, and what happens
//! above what the broker takes.
//!
//! ```text
//!   plc-sim bank <── Modbus ── edge-agent ──┐
//!                                           ├── QoS 1 ──> broker ──> subscriber      one after the other, in one run
//!   the same messages, made up: bare loop ──┘
//! ```
//!
//! The bare loop is what a program of forty lines does with rumqttc: as many messages of the same length a second, in bursts of the same
//! size, a thousand on their way at once. It keeps nothing and promises nothing.

use crate::load::{Load, Shape};
use crate::plant::{Process, Subscriber, cpu_s, ourselves};
use crate::report::{Bare, Outcome};
use crate::{Options, Setup, floor};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

/// Messages a second, by the name of the scenario.
pub(crate) const RATES: [(&str, usize); 3] = [("tags-10k", 10_000), ("tags-30k", 30_000), ("tags-100k", 100_000)];
/// Values of a device, each of which is a message: the size of a burst.
const BURST: usize = 100;
/// How often a device is polled.
const INTERVAL: Duration = Duration::from_millis(100);
/// Messages on their way at once.
const WINDOW: u16 = 1000;
/// Before the bare loop is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The agent, then the bare loop, on one broker.
pub(crate) fn run(scenario: &str, rate: usize, options: &Options) -> Outcome {
    let devices = rate / (BURST * 10);
    // Changes come a little faster than polls: each poll finds every value changed.
    let changes = INTERVAL - Duration::from_millis(3);
    let (shape, lines) = (Shape::Words, devices.min(10));
    let load = Load { shape, lines, devices, interval: INTERVAL, pipeline: 1, changes, payload: "tag" };
    let mut setup = Setup::new(load, true, options, None);
    let (mut outcome, ()) = setup.window(scenario, options.window, |_, _| ());
    let Setup { load, bank, broker, subscriber, agent, dir: _dir, .. } = setup;
    drop(agent);
    if let (Some(broker), Some(mut subscriber)) = (&broker, subscriber) {
        outcome.bare = Some(bare_loop(broker.port, rate, options.window, &mut subscriber));
    }
    drop(broker);
    outcome.floor_cpu_s_per_million = Some(floor::measure(&load, bank.at, options.window / 2, None));
    outcome
}

fn bare_loop(port: u16, rate: usize, window: Duration, subscriber: &mut Subscriber) -> Bare {
    // What the agent had on its way comes to an end.
    std::thread::sleep(WARM_UP);
    let numbers = [rate as u64, window.as_millis() as u64];
    let mut command = ourselves();
    command.args(["__publisher", &port.to_string()]).args(numbers.map(|n| n.to_string()));
    let process = Process::start(command.stdout(Stdio::piped()));
    std::thread::sleep(WARM_UP);
    subscriber.reset();
    let start = Instant::now();
    std::thread::sleep(window);
    let (seen, seconds) = (subscriber.report(), start.elapsed().as_secs_f64());
    let text = process.output();
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("the loop said {text:?}: {e}"));
    let messages = seen["messages"].as_f64().unwrap_or(0.0);
    let sent = said["sent"].as_f64().unwrap_or(0.0);
    Bare {
        per_s: messages / seconds,
        reply_ms: seen["reply_ms"]["p50"].as_f64().zip(seen["reply_ms"]["p99"].as_f64()).map(|(a, b)| [a, b]),
        gap_ms: seen["gap_ms"].as_f64().unwrap_or(0.0),
        cpu_s_per_million: said["cpu_s"].as_f64().unwrap_or(0.0) / sent.max(1.0) * 1e6,
    }
}

/// The child's part: the bare loop.
pub(crate) fn publish(args: &[String]) {
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<u64>().ok()).expect("a number");
    let (port, rate, window) = (number(0) as u16, number(1), Duration::from_millis(number(2)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut options = MqttOptions::new("bench-loop", "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(WINDOW);
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, usize::from(WINDOW));
        let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let (start, mut sent) = (tokio::time::Instant::now(), 0u64);
        let (mut before, mut from) = (None, 0);
        let every = Duration::from_secs_f64(BURST as f64 / rate as f64);
        let mut due = start;
        while start.elapsed() < WARM_UP * 2 + window {
            tokio::time::sleep_until(due).await;
            due += every;
            if before.is_none() && start.elapsed() >= WARM_UP {
                (before, from) = (Some(cpu_s(std::process::id())), sent);
            }
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            for n in 0..BURST {
                sent += 1;
                let value = sent % 65_536;
                let payload = format!(
                    "{{\"value\":{value},\"quality\":\"good\",\"source_time\":\"{time}\",\"sequence\":{sent}}}"
                );
                let topic = format!("lightsout/hall/bench/c1/d{}/t{n}", sent / BURST as u64 % (rate / 1000));
                if client.publish(topic, QoS::AtLeastOnce, false, payload).await.is_err() {
                    break;
                }
            }
        }
        let cpu = cpu_s(std::process::id()) - before.unwrap_or_default();
        println!("{}", json!({ "sent": sent - from, "cpu_s": cpu }));
        polling.abort();
    });
}
