//! OPC UA client: one session, one subscription, watched.
//!
//! ```text
//!   server ──publish──> async-opcua event loop ──notifications──> bounded channel ──> poll() drains
//!                                └── any PublishResponse ───────> sign of life ─────> watchdog
//! ```
//!
//! async-opcua can reconnect by itself, but its subscriptions stay dead afterwards while the session looks healthy.
//! So we never let it: the first sign of trouble ends the link, and `connect` makes session, subscription and items anew.
//! Any PublishResponse, a keep-alive too, counts as life; without one for [`WATCHDOG`] the link is ended.
//!
//! The queue of an item holds more than one sample per publishing interval, or fast changes would be lost.

mod decode;
mod node;

pub use node::NodeName;

use crate::block::CommandBlock;
use crate::driver::{BlockWrite, Driver, LinkError, PollReport, TagWrite, WriteOutcome};
use crate::line::{LineSink, WRITE_TICK, stopped};
use crate::value::{Cause, PointId, Reading, wall_clock_ms};
use control_core::units::MachineId;
use decode::reading_of;
use futures_util::StreamExt;
use opcua::client::{ClientBuilder, DataChangeCallback, IdentityToken, Session, SessionPollResult};
use opcua::client::{SessionActivity, SubscriptionActivity};
use opcua::crypto::SecurityPolicy;
use opcua::types::{
    AttributeId, DataValue, MessageSecurityMode, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters,
    NodeId, NumericRange, ReadValueId, TimestampsToReturn, UserTokenPolicy, Variant, WriteValue,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Without a PublishResponse for this long the subscription is taken for dead. Keep-alives come every ten
/// publishing intervals.
pub const WATCHDOG: Duration = Duration::from_secs(4);

/// How often notifications are taken over.
const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// Notifications waiting to be taken over. At 20 ms this is 800,000 a second; more than that ends the link.
const CHANNEL: usize = 16_384;

/// Monitored items made in one call.
const ITEMS_PER_CALL: usize = 500;

/// One line.
#[derive(Clone, Debug)]
pub struct OpcUaSpec {
    /// `opc.tcp://host:port/path`.
    pub endpoint: String,
    /// Time for connecting, and for each request.
    pub timeout: Duration,
    /// How often the server sends changes.
    pub publishing: Duration,
    /// How often it looks for them.
    pub sampling: Duration,
    /// Where keys and certificates are kept.
    pub pki_dir: PathBuf,
    /// What is subscribed to.
    pub points: Vec<(PointId, NodeName)>,
    /// Command block nodes.
    pub commands: Vec<(MachineId, NodeName)>,
}

/// What the event loop and the callback leave behind for `poll`.
#[derive(Debug, Default)]
struct Signs {
    publishes: AtomicU64,
    overflow: AtomicBool,
    ended: OnceLock<String>,
}

struct Live {
    session: Arc<Session>,
    event_loop: JoinHandle<()>,
    notifications: mpsc::Receiver<(PointId, DataValue)>,
    refused: Vec<Reading>,
    commands: Vec<(MachineId, NodeId)>,
    signs: Arc<Signs>,
    publishes_seen: u64,
    last_life: Instant,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.event_loop.abort();
    }
}

/// OPC UA client of one line.
pub struct OpcUa {
    spec: OpcUaSpec,
    live: Option<Live>,
}

impl OpcUa {
    /// A client that is not connected yet.
    pub fn new(spec: OpcUaSpec) -> OpcUa {
        OpcUa { spec, live: None }
    }

    fn refused(&self, what: &str, why: impl std::fmt::Display) -> LinkError {
        LinkError::Connect { peer: self.spec.endpoint.clone(), why: format!("{what}: {why}") }
    }

    /// The library reports a refused connection as the system's own words in its own brackets.
    fn plainly(&self, error: LinkError) -> LinkError {
        match error {
            LinkError::Connect { why, .. } if why.contains("ConnectionRefused") => LinkError::Connect {
                peer: self.spec.endpoint.clone(),
                why: "the host answers, but nothing listens on this port; is the OPC UA server switched on?".into(),
            },
            LinkError::Connect { why, .. } if why.contains("Could not connect") => LinkError::Connect {
                peer: self.spec.endpoint.clone(),
                why: "no connection; check the address, the cable and the switch".into(),
            },
            other => other,
        }
    }

    async fn limited<T, E: std::fmt::Display>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, LinkError> {
        match timeout(self.spec.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.refused(what, e)),
            Err(_) => Err(LinkError::Timeout {
                peer: self.spec.endpoint.clone(),
                what: what.into(),
                limit: self.spec.timeout,
            }),
        }
    }

    /// Session and its event loop; the caller aborts the loop.
    async fn open(&self, signs: &Arc<Signs>) -> Result<(Arc<Session>, JoinHandle<()>), LinkError> {
        let mut client = ClientBuilder::new()
            .application_name("Lightsout edge-agent")
            .application_uri("urn:lightsout:edge-agent")
            .product_uri("urn:lightsout:edge-agent")
            .pki_dir(&self.spec.pki_dir)
            .session_retry_limit(0)
            .recreate_subscriptions(false)
            .session_timeout(30_000)
            .keep_alive_interval(Duration::from_secs(2))
            .request_timeout(self.spec.timeout)
            .max_message_size(8 << 20)
            .max_chunk_count(128)
            .max_array_length(50_000)
            .client()
            .map_err(|e| self.refused("client configuration", e.join(", ")))?;
        let endpoint = (
            self.spec.endpoint.as_str(),
            SecurityPolicy::None.to_str(),
            MessageSecurityMode::None,
            UserTokenPolicy::anonymous(),
        );
        let (session, event_loop) = self
            .limited(
                "asking for the endpoints",
                client.connect_to_matching_endpoint(endpoint, IdentityToken::Anonymous),
            )
            .await
            .map_err(|e| self.plainly(e))?;

        let signs = signs.clone();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(event_loop.enter());
            let why = loop {
                match events.next().await {
                    Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::Publish))) => {
                        signs.publishes.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Ok(
                        SessionPollResult::ConnectionLost(status) | SessionPollResult::ReconnectFailed(status),
                    )) => {
                        break format!("{status}");
                    }
                    Some(Ok(SessionPollResult::SessionActivity(SessionActivity::KeepAliveFailed(status)))) => {
                        break format!("keep-alive failed: {status}");
                    }
                    Some(Ok(_)) => {}
                    Some(Err(status)) => break format!("{status}"),
                    None => break "closed".into(),
                }
            };
            let _ = signs.ended.set(why);
        });
        let up = timeout(self.spec.timeout, session.wait_for_connection()).await;
        if !matches!(up, Ok(true)) {
            task.abort();
            let why = signs_text(&up);
            return Err(self.refused("opening the session", why));
        }
        Ok((session, task))
    }

    /// Node names to node ids, by the server's own namespace table.
    async fn resolve(&self, session: &Session, name: &NodeName) -> Result<NodeId, LinkError> {
        let index = match &name.uri {
            Some(uri) => self.limited(&format!("looking up namespace {uri}"), session.get_namespace_index(uri)).await?,
            None => 0,
        };
        name.resolve(index).ok_or_else(|| self.refused("node id", &name.rest))
    }

    async fn subscribe(&self, session: &Arc<Session>, signs: &Arc<Signs>) -> Result<Subscribed, LinkError> {
        let mut by_node = HashMap::new();
        let mut nodes = Vec::new();
        for (point, name) in &self.spec.points {
            let node = self.resolve(session, name).await?;
            by_node.insert(node.clone(), *point);
            nodes.push((*point, node));
        }
        let (tx, notifications) = mpsc::channel(CHANNEL);
        let callback_signs = signs.clone();
        let callback = DataChangeCallback::new(move |value, item| {
            if let Some(point) = by_node.get(&item.item_to_monitor().node_id)
                && tx.try_send((*point, value)).is_err()
            {
                callback_signs.overflow.store(true, Ordering::Relaxed);
            }
        });
        // 2,000 a publish: 0 ("no limit") makes large subscriptions go silent.
        let subscription = self
            .limited(
                "creating the subscription",
                session.create_subscription(self.spec.publishing, 600, 10, 2000, 0, true, callback),
            )
            .await?;

        let per_publish = self.spec.publishing.as_secs_f64() / self.spec.sampling.as_secs_f64().max(0.001);
        let queue_size = (2.0 * per_publish).ceil().clamp(2.0, 1000.0) as u32;
        let mut refused = Vec::new();
        for chunk in nodes.chunks(ITEMS_PER_CALL) {
            let items = chunk.iter().map(|(_, node)| MonitoredItemCreateRequest {
                item_to_monitor: ReadValueId {
                    node_id: node.clone(),
                    attribute_id: AttributeId::Value as u32,
                    ..ReadValueId::default()
                },
                monitoring_mode: MonitoringMode::Reporting,
                requested_parameters: MonitoringParameters {
                    sampling_interval: self.spec.sampling.as_secs_f64() * 1000.0,
                    queue_size,
                    discard_oldest: true,
                    ..MonitoringParameters::default()
                },
            });
            let create = session.create_monitored_items(subscription, TimestampsToReturn::Both, items.collect());
            let made = self.limited("creating monitored items", create).await?;
            if made.len() != chunk.len() {
                return Err(self
                    .refused("creating monitored items", format!("{} answers for {} items", made.len(), chunk.len())));
            }
            for ((point, _), made) in chunk.iter().zip(made) {
                let status = made.result.status_code;
                if !status.is_good() {
                    refused.push(Reading::bad(*point, Cause::Status(status.bits()), wall_clock_ms()));
                }
            }
        }
        Ok(Subscribed { notifications, refused })
    }
}

struct Subscribed {
    notifications: mpsc::Receiver<(PointId, DataValue)>,
    refused: Vec<Reading>,
}

fn signs_text(up: &Result<bool, tokio::time::error::Elapsed>) -> &'static str {
    match up {
        Err(_) => {
            "no session in time; does the server trust this client, and is an endpoint without security switched on?"
        }
        Ok(_) => "refused by the server; does it allow anonymous sessions without security?",
    }
}

impl Driver for OpcUa {
    fn peer(&self) -> String {
        self.spec.endpoint.clone()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        let signs = Arc::new(Signs::default());
        let (session, event_loop) = self.open(&signs).await?;
        let prepared = async {
            let subscribed = self.subscribe(&session, &signs).await?;
            let mut commands = Vec::new();
            for (machine, name) in &self.spec.commands {
                commands.push((*machine, self.resolve(&session, name).await?));
            }
            Ok((subscribed, commands))
        };
        match prepared.await {
            Ok((subscribed, commands)) => {
                self.live = Some(Live {
                    session,
                    event_loop,
                    notifications: subscribed.notifications,
                    refused: subscribed.refused,
                    commands,
                    signs,
                    publishes_seen: 0,
                    last_life: Instant::now(),
                });
                Ok(())
            }
            Err(why) => {
                event_loop.abort();
                Err(why)
            }
        }
    }

    async fn serve<S: LineSink>(
        &mut self,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let (mut readings, mut writes) = (Vec::new(), Vec::new());
        let (mut next_drain, mut next_write) = (tokio::time::Instant::now(), tokio::time::Instant::now());
        loop {
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            let now = tokio::time::Instant::now();
            if sink.carries_machines() && (stopping || now >= next_write) {
                next_write = now + WRITE_TICK;
                writes.clear();
                sink.due_writes(&mut writes);
                if !writes.is_empty() {
                    self.write(&writes).await?;
                    sink.written(&writes);
                }
            }
            if stopping {
                return Ok(());
            }
            if now >= next_drain {
                next_drain = now + DRAIN_EVERY;
                readings.clear();
                let report = self.drain(&mut readings)?;
                sink.readings(report, &mut readings);
                sink.sweep();
            }
            let next = if sink.carries_machines() { next_drain.min(next_write) } else { next_drain };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                Some(wish) = wishes.recv() => {
                    let _ = wish.reply.send(WriteOutcome::Invalid("this line cannot write tags yet".into()));
                }
                () = stopped(stop) => {}
            }
        }
    }

    fn close(&mut self) {
        self.live = None;
    }
}

impl OpcUa {
    /// Takes over what has come.
    fn drain(&mut self, out: &mut Vec<Reading>) -> Result<PollReport, LinkError> {
        let peer = || self.spec.endpoint.clone();
        let Some(live) = self.live.as_mut() else {
            return Err(LinkError::Lost { peer: peer(), why: "not connected".into() });
        };
        out.append(&mut live.refused);
        while let Ok((point, value)) = live.notifications.try_recv() {
            out.push(reading_of(point, value));
        }
        if live.signs.overflow.load(Ordering::Relaxed) {
            let what =
                format!("more than {CHANNEL} notifications within {DRAIN_EVERY:?}; choose a longer sampling interval");
            return Err(LinkError::Protocol { peer: peer(), what });
        }
        if let Some(why) = live.signs.ended.get() {
            return Err(LinkError::Lost { peer: peer(), why: why.clone() });
        }
        let publishes = live.signs.publishes.load(Ordering::Relaxed);
        let alive = publishes != live.publishes_seen;
        live.publishes_seen = publishes;
        if alive {
            live.last_life = Instant::now();
        } else if live.last_life.elapsed() > WATCHDOG {
            return Err(LinkError::Timeout { peer: peer(), what: "its subscription".into(), limit: WATCHDOG });
        }
        Ok(PollReport { alive, ..PollReport::default() })
    }

    async fn write(&mut self, blocks: &[BlockWrite]) -> Result<(), LinkError> {
        let peer = || self.spec.endpoint.clone();
        let Some(live) = self.live.as_ref() else {
            return Err(LinkError::Lost { peer: peer(), why: "not connected".into() });
        };
        let node_of = |machine| live.commands.iter().find(|(m, _)| *m == machine).map(|(_, node)| node.clone());
        let values: Vec<WriteValue> =
            blocks.iter().filter_map(|b| node_of(b.machine).map(|node| write_value(node, &b.words))).collect();
        if values.is_empty() {
            return Ok(());
        }
        let results = match timeout(self.spec.timeout, live.session.write(&values)).await {
            Ok(Ok(results)) => results,
            Ok(Err(e)) => return Err(LinkError::Lost { peer: peer(), why: format!("write of a command block: {e}") }),
            Err(_) => {
                let what = "the write of a command block".into();
                return Err(LinkError::Timeout { peer: peer(), what, limit: self.spec.timeout });
            }
        };
        match results.iter().find(|s| !s.is_good()) {
            None if results.len() == values.len() => Ok(()),
            bad => {
                let what = match bad {
                    Some(status) => format!("write of a command block refused: {status}"),
                    None => format!("{} answers to {} writes", results.len(), values.len()),
                };
                Err(LinkError::Protocol { peer: peer(), what })
            }
        }
    }
}

fn write_value(node_id: NodeId, block: &CommandBlock) -> WriteValue {
    WriteValue {
        node_id,
        attribute_id: AttributeId::Value as u32,
        index_range: NumericRange::None,
        value: DataValue { value: Some(Variant::from(block.to_vec())), ..DataValue::default() },
    }
}
