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
//! | [`wire`], `frame` | MQTT 3.1.1 and 5 as one face |
//! | [`reason`] | what a broker says when it does not want something |
//! | `session` | one connection: acknowledgements, keep-alive, stop |
//! | `flights` | what is on its way over it, within its window |
//! | `caution`, `later`, `poison` | what is sent again, what goes alone, what does not go at all |
//! | `manners` | what is remembered of a broker: version, retained messages, taste |
//! | `room` | how large messages are made |
//! | [`publish`] | a record of the spool as a packet |
//! | [`face`] | what is said over it |
//! | [`plain`] | our own messages |
//! | `probe` | a connection made to see whether it can be made |

mod caution;
pub mod face;
mod flights;
mod frame;
mod later;
mod manners;
pub mod plain;
mod poison;
mod probe;
pub mod publish;
pub mod reason;
mod room;
mod session;
#[cfg(test)]
mod session_tests;
pub mod wire;

pub use manners::CUT_SHORT;
pub use probe::probe;
pub use session::Out;

use crate::config::plan::{Broker, MqttPlan, Secret};
use crate::telemetry::Spool;
use crate::telemetry::spool::Outlet;
use device_drivers::dial;
use face::Face;
use manners::{HELD, Manners, Past, Step, Waits};
use plain::Plain;
use reason::{Code, Failure, Verdict};
use room::{Rooms, room};
use session::{Answers, Ended, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use wire::{Hello, Io, Message, Version, Wire};

/// Time for TCP, TLS and CONNACK.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
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
    /// What waits is not to be sent now: a primary host is not there.
    pub held_back: AtomicBool,
    /// So long something has waited for the connected broker without anything being drained, milliseconds.
    pub stalled_ms: AtomicU64,
    /// Messages that the broker did not take for now: they are sent again.
    pub postponed: AtomicU64,
    /// Connections that the broker has ended because another client came with our id.
    pub taken_over: AtomicU64,
    /// Connections in a row that were hung up on before they had held for a while.
    pub cut_short: AtomicU64,
    /// The connection speaks MQTT 5.
    pub is_v5: AtomicBool,
    /// Topic and payload of a message that is worth making, bytes at most; 0: as large as one likes;
    /// 1: no broker is known, and each value is a message of its own.
    pub message_max: Arc<AtomicU64>,
}

impl MqttStats {
    /// Before the first connection: messages that are made now fit what brokers took the last time.
    pub fn new(plan: &MqttPlan) -> MqttStats {
        MqttStats { message_max: Arc::new(Rooms::remembered(plan).message_max().into()), ..MqttStats::default() }
    }
}

/// What one edge's sessions share.
struct Shared {
    spool: Arc<Spool>,
    stats: Arc<MqttStats>,
    /// Rings when the face should look.
    nudge: Arc<Notify>,
    look_every: Duration,
    with_will: AtomicBool,
    /// Reasons of refusals that were logged: 0x80 and up, one bit each.
    told: [AtomicU64; 2],
}

impl Shared {
    /// Says in the log that messages are refused, once for each reason.
    fn tell_refusal(&self, code: Code) {
        let (bit, word) = (1 << (code.0 % 64), usize::from(code.0 >> 6 & 1));
        if self.told.get(word).is_none_or(|word| word.fetch_or(bit, Relaxed) & bit != 0) {
            return;
        }
        let (hint, follows) = match code.verdict() {
            Verdict::Later => (code.hint(), "they are sent again later, none is lost"),
            Verdict::Never => (code.hint(), "they are lost, and told"),
        };
        tracing::warn!("the broker refuses messages: {code}; {hint}; {follows}");
    }
}

/// The MQTT edge of the agent.
pub struct Mqtt {
    plan: MqttPlan,
    shared: Shared,
    face: Box<dyn Face>,
    answers: Answers,
    waits: Waits,
    last_error: String,
    /// After that error it was said that there is a connection.
    said_connected: bool,
    /// What is known of each broker.
    manners: Vec<Manners>,
    rooms: Rooms,
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
        let manners = plan.brokers.iter().map(|_| Manners::new(&plan)).collect();
        let rooms = Rooms::remembered(&plan);
        let shared = Shared {
            spool,
            stats,
            nudge: face.nudge(),
            look_every: face.look_every(),
            with_will: AtomicBool::new(false),
            told: Default::default(),
        };
        let answers = Answers::new(answers);
        let waits = Waits::new(seed);
        Mqtt { plan, shared, face, answers, waits, last_error: String::new(), said_connected: false, manners, rooms }
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
                    () = tokio::time::sleep(self.waits.next()) => {}
                }
                continue;
            };
            let (ended, past) = self.connection(broker, next, &mut outlet, &mut stop).await;
            self.shared.stats.connected.store(false, Relaxed);
            let (why, goes_on) = match ended {
                Ended::Stopped => return,
                Ended::Lost(why) => (why, false),
                Ended::Left(why) => (why.into(), true),
            };
            self.shared.stats.failures.fetch_add(1, Relaxed);
            self.waits.ended(&why, past, &self.shared.stats);
            let step = self.manners.get_mut(next).map_or(Step::Waits, |m| m.ended(&why, broker));
            next = match step {
                Step::AtOnce => next,
                // After a connection that did work the first broker is asked again; a host that left sends us to the next.
                Step::Waits if past.is_some() && !goes_on => brokers.len(),
                Step::Waits => next + 1,
            };
            // A connection that comes and goes is told once.
            if past.is_some_and(|past| past.held >= HELD) {
                self.last_error.clear();
            }
            let why = format!("{broker}: {why}");
            if step == Step::Waits && why != self.last_error {
                tracing::warn!("no MQTT: {why}; messages wait in the spool, trying again");
                (self.last_error, self.said_connected) = (why, false);
            }
        }
    }

    /// One connection, from CONNECT to its end, and what it was like; `None`: it was not made.
    async fn connection(
        &mut self,
        broker: &Broker,
        nth: usize,
        outlet: &mut Outlet,
        stop: &mut watch::Receiver<bool>,
    ) -> (Ended, Option<Past>) {
        let Some(manners) = self.manners.get_mut(nth) else { return (Ended::Stopped, None) };
        let (version, keeps) = manners.hello();
        let face = &mut self.face;
        let mut will = || face.will();
        let wire = tokio::select! {
            wire = connect(&self.plan, broker, (&mut will, keeps), version) => wire,
            _ = stop.wait_for(|s| *s) => return (Ended::Stopped, None),
        };
        let wire = match wire {
            Ok(wire) => wire,
            Err(why) => return (Ended::Lost(why), None),
        };
        let began = Instant::now();
        manners.connected(&wire, broker);
        let care = manners.poison.care(began);
        let learned = manners.poison.fits().map(u64::from);
        let room = wire.packet_max.map(|most| room(&self.plan, most)).into_iter().chain(learned).min();
        let stats = self.shared.stats.clone();
        self.rooms.learn(nth, room);
        stats.message_max.store(self.rooms.message_max(), Relaxed);
        if !self.last_error.is_empty() && !std::mem::replace(&mut self.said_connected, true) {
            let waiting = self.shared.spool.stats.waiting.load(Relaxed);
            tracing::info!("connected to the MQTT broker {broker}; {waiting} messages waited");
        }
        stats.is_v5.store(version == Version::V5, Relaxed);
        stats.connected.store(true, Relaxed);
        stats.broker.store(nth as u64, Relaxed);
        stats.connects.fetch_add(1, Relaxed);
        outlet.restart();
        let window = self.plan.window;
        let mut session = Session::new(wire, &mut *self.face, outlet, &self.shared, &mut self.answers, window, care);
        let mut ended = session.run(stop).await;
        let mut past = Past { held: began.elapsed(), was_idle: false };
        match &ended {
            Ended::Lost(why) => {
                let seen = std::mem::take(&mut session.evidence);
                let was_born = seen.was_born;
                past.was_idle = was_born && seen.open == 0;
                let manners = self.manners.get_mut(nth);
                if let Some((it, reason)) = manners.and_then(|m| m.poison.ended(seen, why, Instant::now())) {
                    let (bytes, sequence, stream) = (it.ticket.bytes, it.ticket.sequence, it.ticket.stream.name());
                    tracing::warn!(
                        "a message is given up, because the broker ends connections over it: {bytes} bytes on {}, sequence {sequence} of the \
                         stream {stream}; {why}",
                        it.topic
                    );
                    outlet.give_up(&it.ticket, reason);
                }
                if matches!(why, Failure::HungUp(_)) && version == Version::V311 && keeps && !was_born {
                    ended = Ended::Lost(Failure::HungUpOverBirth);
                }
            }
            _ => {
                session.disconnect();
                session.close().await;
            }
        }
        (ended, Some(past))
    }
}

/// TCP, TLS where it is wanted, and CONNECT.
async fn connect(
    plan: &MqttPlan,
    broker: &Broker,
    (will, keeps): (&mut (dyn FnMut() -> Message + Send), bool),
    version: Version,
) -> Result<Wire, Failure> {
    let limit = CONNECT_LIMIT;
    let opening = async {
        let (host, port) = (broker.host.as_str(), broker.port);
        let stream = dial((host, port), limit).await.map_err(|e| e.to_string())?;
        let io: Box<dyn Io> = match broker.tls.then_some(plan.tls.as_ref()).flatten() {
            None if broker.tls => return Err(String::from("no certificates are configured").into()),
            None => Box::new(stream),
            Some(files) => Box::new(files.connect(host, stream, limit).await?),
        };
        let login = plan.login.as_ref().map(|login| {
            let password = login.secret.as_ref().map_or(Ok(String::new()), Secret::read);
            password.map(|password| (login.user.clone(), password))
        });
        let hello = Hello {
            version,
            client_id: &plan.client_id,
            keep_alive: plan.keep_alive,
            login: login.transpose()?,
            // Not before there is somebody to hear it: a Sparkplug will counts the CONNECT packets that were sent.
            will: &will(),
            keeps,
        };
        Wire::open(io, hello).await
    };
    tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into()))
}
