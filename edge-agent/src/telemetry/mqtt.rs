//! MQTT 5 through rumqttc, as a pipe that may break at any time.
//!
//! ```text
//!   spool ──fill──> in flight (<= window) ──publish──> rumqttc ──> broker
//!     ^                 │ packet id, from the event loop            │
//!     └── acknowledge ──┴──────────────── PUBACK ──────────────────┘
//!   any error: forget what was in flight, make a new client, replay from the spool's first sample
//! ```
//!
//! rumqttc drops what it has accepted when a session is not resumed, and keeps stale events over a reconnect. So its queue
//! is never the only copy, and neither client nor event loop outlives a connection. Duplicates per cut: the window at most.
//!
//! On every connection: last will (retained, QoS 1), then the retained birth, then samples from the cursor on.

use super::sample::rfc3339;
use super::spool::{Loss, Spool};
use crate::config::plan::MqttPlan;
use device_drivers::line::Backoff;
use device_drivers::value::wall_clock_ms;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Largest packet we take from a broker: we subscribe to nothing yet, so acknowledgements only.
const INCOMING_MAX: u32 = 64 * 1024;
/// Time for TCP and CONNACK, seconds.
const CONNECT_LIMIT_S: u64 = 5;
/// How long a stop waits for the last acknowledgements.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// What the MQTT edge counts.
#[derive(Debug, Default)]
pub struct MqttStats {
    /// Connected right now.
    pub connected: AtomicBool,
    /// Connections made.
    pub connects: AtomicU64,
    /// Connections lost or refused.
    pub failures: AtomicU64,
    /// Messages published, those sent again included.
    pub published: AtomicU64,
}

/// What a message on its way was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Status,
    Loss(Loss),
    /// Its sequence, and how many values are in it.
    Sample(u64, u64),
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sent: Sent,
    packet: Option<u16>,
    acknowledged: bool,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Connecting,
    Serving,
    Draining,
    Farewell,
    Leaving,
}

/// The MQTT edge of the agent.
pub struct Mqtt {
    plan: MqttPlan,
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    in_flight: VecDeque<InFlight>,
    cursor: u64,
    backoff: Backoff,
    last_error: String,
}

impl Mqtt {
    /// An edge that is not connected.
    pub fn new(plan: MqttPlan, spool: Arc<Spool>, stats: Arc<MqttStats>, seed: u64) -> Mqtt {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5), seed);
        Mqtt { plan, spool, stats, in_flight: VecDeque::new(), cursor: 0, backoff, last_error: String::new() }
    }

    /// Delivers until `stop` turns true, then what is left, as far as the broker takes it within [`FLUSH_LIMIT`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let why = match self.connection(&mut stop).await {
                Ok(()) => return,
                Err(why) => why,
            };
            self.stats.connected.store(false, Relaxed);
            self.stats.failures.fetch_add(1, Relaxed);
            if why != self.last_error {
                let peer = format!("{}:{}", self.plan.host, self.plan.port);
                tracing::warn!(
                    broker = peer,
                    "MQTT broker not reachable: {why}; samples wait in the spool, trying again"
                );
                self.last_error = why;
            }
            tokio::select! {
                _ = stop.wait_for(|s| *s) => {}
                () = tokio::time::sleep(self.backoff.wait()) => {}
            }
        }
    }

    fn options(&self) -> MqttOptions {
        let plan = &self.plan;
        let mut options = MqttOptions::new(&plan.client_id, &plan.host, plan.port);
        let will = status_json("offline", "connection lost");
        options
            .set_keep_alive(plan.keep_alive)
            .set_clean_start(true)
            .set_outgoing_inflight_upper_limit(plan.window)
            .set_max_packet_size(Some(INCOMING_MAX))
            .set_connection_timeout(CONNECT_LIMIT_S)
            .set_last_will(LastWill::new(&plan.status_topic, will, QoS::AtLeastOnce, true, None));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        if let Some((user, password)) = &plan.login {
            options.set_credentials(user, password);
        }
        options
    }

    /// One connection, from CONNECT to its end. `Ok` when it was ended by a stop.
    async fn connection(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), String> {
        self.forget_in_flight();
        let (client, mut events) = AsyncClient::new(self.options(), usize::from(self.plan.window) + 4);
        let spool = self.spool.clone();
        let mut phase = Phase::Connecting;
        let mut deadline = Instant::now();
        loop {
            // The event loop is polled to its end before anything else is done to it: a dropped poll loses bytes.
            let event = {
                let mut poll = std::pin::pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break event,
                        () = spool.bell.notified(), if phase == Phase::Serving => self.fill(&client),
                        _ = stop.wait_for(|s| *s), if phase <= Phase::Serving => {
                            if phase == Phase::Connecting {
                                return Ok(());
                            }
                            deadline = Instant::now() + FLUSH_LIMIT;
                            phase = self.leave(&client, Phase::Draining);
                        }
                        () = sleep_until(deadline), if phase > Phase::Serving => return Ok(()),
                    }
                }
            };
            match event {
                Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)) if phase == Phase::Leaving => return Ok(()),
                Err(e) => return Err(e.to_string()),
                Ok(Event::Incoming(Packet::ConnAck(_))) if phase == Phase::Connecting => {
                    phase = Phase::Serving;
                    self.connected(&client);
                }
                Ok(event) => self.handle(event),
            }
            match phase {
                Phase::Connecting => {}
                Phase::Serving => self.fill(&client),
                _ => phase = self.leave(&client, phase),
            }
        }
    }

    /// A stop, step by step: the rest of the spool, the retained farewell, DISCONNECT.
    fn leave(&mut self, client: &AsyncClient, phase: Phase) -> Phase {
        match phase {
            Phase::Draining => {
                self.fill(client);
                if !self.in_flight.is_empty() {
                    return Phase::Draining;
                }
                let topic = self.plan.status_topic.clone();
                self.publish(client, Sent::Status, &topic, true, status_json("offline", "stopped"));
                Phase::Farewell
            }
            Phase::Farewell if self.in_flight.is_empty() => {
                let _ = client.try_disconnect();
                Phase::Leaving
            }
            other => other,
        }
    }

    fn connected(&mut self, client: &AsyncClient) {
        if !self.last_error.is_empty() {
            tracing::info!("MQTT broker reachable again; {} samples waited", self.spool.stats.waiting.load(Relaxed));
            self.last_error.clear();
        }
        self.stats.connected.store(true, Relaxed);
        self.stats.connects.fetch_add(1, Relaxed);
        let topic = self.plan.status_topic.clone();
        self.publish(client, Sent::Status, &topic, true, status_json("online", "connected"));
    }

    fn forget_in_flight(&mut self) {
        for flight in self.in_flight.drain(..) {
            if let Sent::Loss(loss) = flight.sent
                && !flight.acknowledged
            {
                self.spool.put_loss_back(loss);
            }
        }
        self.cursor = self.spool.first();
    }

    /// Publishes from the cursor on, until the window is full.
    fn fill(&mut self, client: &AsyncClient) {
        while self.in_flight.len() < usize::from(self.plan.window) {
            if let Some(loss) = self.spool.take_loss() {
                let time = rfc3339(wall_clock_ms());
                let text = format!(
                    "{{\"lost\":{},\"from_sequence\":{},\"to_sequence\":{},\"time\":\"{time}\"}}",
                    loss.count(),
                    loss.from,
                    loss.to
                );
                if !self.publish(client, Sent::Loss(loss), &self.plan.loss_topic.clone(), false, text) {
                    self.spool.put_loss_back(loss);
                    return;
                }
                continue;
            }
            let Some((sequence, sample)) = self.spool.next_from(self.cursor) else { return };
            let (sent, topic) = (Sent::Sample(sequence, sample.count()), sample.topic.to_string());
            if !self.publish(client, sent, &topic, false, sample.json(sequence)) {
                return;
            }
            self.cursor = sequence + 1;
        }
    }

    fn publish(&mut self, client: &AsyncClient, sent: Sent, topic: &str, retain: bool, payload: String) -> bool {
        let done = client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok();
        if done {
            self.in_flight.push_back(InFlight { sent, packet: None, acknowledged: false });
            self.stats.published.fetch_add(1, Relaxed);
        }
        done
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                // The event loop sends in the order of our calls: this is the oldest without a packet id.
                if let Some(flight) = self.in_flight.iter_mut().find(|f| f.packet.is_none()) {
                    flight.packet = Some(packet);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let refused = !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                self.acknowledged(ack.pkid, refused.then_some(ack.reason));
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, packet: u16, refused: Option<PubAckReason>) {
        let Some(flight) = self.in_flight.iter_mut().find(|f| f.packet == Some(packet) && !f.acknowledged) else {
            return;
        };
        flight.acknowledged = true;
        self.backoff.reset(); // not before: a broker that takes connections and nothing else is asked ever less often
        if let Sent::Sample(_, count) = flight.sent {
            match refused {
                None => self.spool.stats.delivered.fetch_add(count, Relaxed),
                Some(reason) => {
                    let before = self.spool.stats.refused.fetch_add(count, Relaxed);
                    if before == 0 {
                        tracing::warn!(
                            "the broker refuses samples: {reason:?}; they are counted as refused, not sent again"
                        );
                    }
                    before
                }
            };
        }
        while self.in_flight.front().is_some_and(|f| f.acknowledged) {
            if let Some(InFlight { sent: Sent::Sample(sequence, _), .. }) = self.in_flight.pop_front() {
                self.spool.acknowledge(sequence);
            }
        }
    }
}

fn status_json(state: &str, reason: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let time = rfc3339(wall_clock_ms());
    format!("{{\"state\":\"{state}\",\"reason\":\"{reason}\",\"version\":\"{version}\",\"time\":\"{time}\"}}")
}
