//! The MQTT edge: brings the spool to a broker, over connections that may break at any time.
//!
//! ```text
//!   brokers, by preference ──connect──> session ──ends──> jittered back-off ──> the first broker again
//!                                        │
//!             spool ──outlet──> face ──> wire            face: what is said (our own messages, or Sparkplug)
//! ```
//!
//! | file | in one line |
//! |---|---|
//! | [`wire`] | MQTT 3.1.1 and 5 as one face |
//! | `session` | one connection: window, acknowledgements, keep-alive, stop |
//! | [`face`] | what is said over it |
//! | [`plain`] | our own messages |

pub mod face;
pub mod plain;
mod session;
pub mod wire;

pub use session::Out;

use crate::config::plan::{Broker, MqttPlan, Secret};
use crate::telemetry::Spool;
use crate::telemetry::spool::{Outlet, Ticket};
use device_drivers::line::Backoff;
use face::Face;
use plain::Plain;
use session::{Ended, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use wire::{Hello, Io, Message, Wire};

/// Time for TCP, TLS and CONNACK.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// First and longest wait after every broker was asked.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Answers that may wait for the connection.
pub const ANSWERS: usize = 64;

/// What the MQTT edge counts.
#[derive(Debug, Default)]
pub struct MqttStats {
    /// Connected right now.
    pub connected: AtomicBool,
    /// Which broker, by preference, from 0.
    pub broker: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Connections lost or refused.
    pub failures: AtomicU64,
    /// Messages published, those sent again included.
    pub published: AtomicU64,
}

/// What one edge's sessions share.
struct Shared {
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    /// Rings when the face should look.
    nudge: Arc<Notify>,
    look_every: Duration,
    with_will: AtomicBool,
    refused: AtomicBool,
}

impl Shared {
    fn tell_refusal(&self, reason: &str) {
        if !self.refused.swap(true, Relaxed) {
            tracing::warn!("the broker refuses messages: {reason}; they are counted as refused, not sent again");
        }
    }
}

/// The MQTT edge of the agent.
pub struct Mqtt {
    plan: MqttPlan,
    shared: Shared,
    face: Box<dyn Face>,
    answers: mpsc::Receiver<Message>,
    backoff: Backoff,
    last_error: String,
    poison: Poison,
}

/// A broker that cannot say what it does not take (3.1.1) hangs up over it, again and again. After [`SUSPICIOUS`] connections that ended
/// without one acknowledgement of a promised message they go out one at a time; one that ends [`PROVEN`] connections all alone, after our birth was
/// acknowledged, is the one.
#[derive(Debug, Default)]
struct Poison {
    /// Connections in a row that ended so.
    in_a_row: u32,
    /// The message that was alone on its way, and how many connections it has ended.
    suspect: Option<(Ticket, u32)>,
}

const SUSPICIOUS: u32 = 3;
const PROVEN: u32 = 3;
/// Smaller messages no broker hangs up over: then it is something else.
const POISON_MIN: u32 = 4 * 1024;

impl Poison {
    fn window(&self, window: u16) -> u16 {
        if self.in_a_row >= SUSPICIOUS { 1 } else { window }
    }

    /// A connection has ended; gives the message that is given up.
    fn ended(&mut self, delivered: bool, alone: Option<Ticket>) -> Option<Ticket> {
        if delivered {
            *self = Poison::default();
            return None;
        }
        self.in_a_row += 1;
        let alone = alone.filter(|t| self.in_a_row > SUSPICIOUS && t.bytes >= POISON_MIN)?;
        let times = match self.suspect {
            Some((before, times)) if (before.stream, before.sequence) == (alone.stream, alone.sequence) => times + 1,
            _ => 1,
        };
        self.suspect = Some((alone, times));
        (times >= PROVEN).then(|| {
            *self = Poison::default();
            alone
        })
    }
}

impl Mqtt {
    /// An edge that is not connected, and takes no commands.
    pub fn new(plan: MqttPlan, spool: Arc<Spool>, stats: Arc<MqttStats>, seed: u64) -> Mqtt {
        let face = Box::new(Plain::new(&plan, None));
        Mqtt::with(plan, spool, stats, seed, (face, mpsc::channel(ANSWERS).1))
    }

    /// An edge that says what `face` says, and what is handed in as answers.
    pub fn with(
        plan: MqttPlan,
        spool: Arc<Spool>,
        stats: Arc<MqttStats>,
        seed: u64,
        (face, answers): (Box<dyn Face>, mpsc::Receiver<Message>),
    ) -> Mqtt {
        let backoff = Backoff::new(BACKOFF.0, BACKOFF.1, seed);
        let shared = Shared {
            spool,
            stats,
            nudge: face.nudge(),
            look_every: face.look_every(),
            with_will: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        };
        Mqtt { plan, shared, face, answers, backoff, last_error: String::new(), poison: Poison::default() }
    }

    /// Delivers until `stop` turns true, then what is left, as far as the broker takes it in a few seconds.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut outlet = Outlet::new(self.shared.spool.clone(), self.plan.replay, self.plan.replay_rate);
        let mut next = 0;
        while !*stop.borrow() {
            let brokers = self.plan.brokers.clone();
            let Some(broker) = brokers.get(next) else {
                next = 0;
                tokio::select! {
                    _ = stop.wait_for(|s| *s) => {}
                    () = tokio::time::sleep(self.backoff.wait()) => {}
                }
                continue;
            };
            let before = self.shared.stats.connects.load(Relaxed);
            let ended = self.connection(broker, next, &mut outlet, &mut stop).await;
            let worked = self.shared.stats.connects.load(Relaxed) > before;
            self.shared.stats.connected.store(false, Relaxed);
            let (why, goes_on) = match ended {
                Ended::Stopped => return,
                Ended::Lost(why) => (why, false),
                Ended::Left(why) => (why, true),
            };
            self.shared.stats.failures.fetch_add(1, Relaxed);
            let why = format!("{broker}: {why}");
            if why != self.last_error {
                tracing::warn!("no MQTT: {why}; messages wait in the spool, trying again");
                self.last_error = why;
            }
            // After a connection that did work the first broker is asked again; a host that left sends us to the next.
            next = if worked && !goes_on { brokers.len() } else { next + 1 };
        }
    }

    /// One connection, from CONNECT to its end.
    async fn connection(
        &mut self,
        broker: &Broker,
        nth: usize,
        outlet: &mut Outlet,
        stop: &mut watch::Receiver<bool>,
    ) -> Ended {
        let wire = tokio::select! {
            wire = connect(&self.plan, broker, &mut *self.face) => wire,
            _ = stop.wait_for(|s| *s) => return Ended::Stopped,
        };
        let wire = match wire {
            Ok(wire) => wire,
            Err(why) => return Ended::Lost(why),
        };
        let stats = self.shared.stats.clone();
        if !self.last_error.is_empty() {
            let waiting = self.shared.spool.stats.waiting.load(Relaxed);
            tracing::info!("connected to the MQTT broker {broker}; {waiting} messages waited");
            self.last_error.clear();
        }
        stats.connected.store(true, Relaxed);
        stats.broker.store(nth as u64, Relaxed);
        stats.connects.fetch_add(1, Relaxed);
        outlet.restart();
        let window = self.poison.window(self.plan.window);
        let mut session = Session::new(wire, &mut *self.face, outlet, &self.shared, &mut self.answers, window);
        let ended = session.run(stop).await;
        if session.delivered {
            // Not before: a broker that takes connections and nothing else is asked ever less often.
            self.backoff.reset();
        }
        let (delivered, alone) = (session.delivered, session.alone());
        if !matches!(ended, Ended::Lost(_)) {
            session.disconnect();
            session.close().await;
        } else if let Some(ticket) = self.poison.ended(delivered, alone) {
            let (bytes, sequence, stream) = (ticket.bytes, ticket.sequence, ticket.stream.name());
            tracing::warn!(
                "a message of {bytes} bytes is lost: the broker hangs up over it; sequence {sequence} of the stream {stream}"
            );
            outlet.too_large(&ticket);
        }
        ended
    }
}

/// TCP, TLS where it is wanted, and CONNECT.
async fn connect(plan: &MqttPlan, broker: &Broker, face: &mut dyn Face) -> Result<Wire, String> {
    let limit = CONNECT_LIMIT;
    let opening = async {
        let (host, port) = (broker.host.as_str(), broker.port);
        let stream = TcpStream::connect((host, port)).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let io: Box<dyn Io> = match broker.tls.then_some(plan.tls.as_ref()).flatten() {
            None if broker.tls => return Err("no certificates are configured".into()),
            None => Box::new(stream),
            Some(files) => Box::new(files.connect(host, stream, limit).await?),
        };
        let login = plan.login.as_ref().map(|login| {
            let password = login.secret.as_ref().map_or(Ok(String::new()), Secret::read);
            password.map(|password| (login.user.clone(), password))
        });
        let hello = Hello {
            version: plan.version,
            client_id: &plan.client_id,
            keep_alive: plan.keep_alive,
            login: login.transpose()?,
            // Not before there is somebody to hear it: a Sparkplug will counts the CONNECT packets that were sent.
            will: &face.will(),
        };
        Wire::open(io, hello).await
    };
    tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}
