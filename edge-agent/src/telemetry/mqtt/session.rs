//! One connection, from CONNECT to its end.
//!
//! ```text
//!   outlet ──fill──> in flight (<= window) ──> wire ──> broker
//!      ^                │  packet id, or the ping that follows   │
//!      └─ acknowledge ──┴──────────── PUBACK / PINGRESP ─────────┘
//!
//!   Serving ──stop──> Draining ──nothing in flight──> Farewell ──taken──> DISCONNECT
//! ```
//!
//! The spool is the only copy that counts. When the connection is lost, whatever was in flight is sent again from there: duplicates per
//! connection are the window at most. Acknowledgements are passed on in the order of sending.

use super::face::{Face, Sending};
use super::wire::{Incoming, Message, OUT_MAX, Wire};
use super::{MqttStats, Shared};
use crate::telemetry::spool::{Load, Next, Outlet, Ticket};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How long a stop waits for the last acknowledgements.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// A broker that acknowledges nothing for so long although something is in flight is left.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How often the face may look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A PUBACK with this packet id.
    PubAck(u16),
    /// The answer to this ping.
    Ping(u64),
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// `None`: a message of our own, which the spool does not hold.
    ticket: Option<Ticket>,
    by: By,
    is_done: bool,
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Farewell,
}

/// What a face may do with a connection.
pub struct Out<'a> {
    wire: &'a mut Wire,
    flights: &'a mut Flights,
    stats: &'a MqttStats,
    /// Set to end the connection, with a farewell and this reason.
    pub leave: Option<String>,
    /// Set to start the outlet anew: what is not done counts as having waited.
    pub restart: bool,
}

impl Out<'_> {
    /// Sends a message of our own, QoS 1.
    pub fn say(&mut self, message: Message) {
        self.flights.own(self.wire, message, true);
        self.stats.published.fetch_add(1, Relaxed);
    }

    /// Sends a message of our own, QoS 0.
    pub fn mention(&mut self, message: Message) {
        self.flights.own(self.wire, message, false);
        self.stats.published.fetch_add(1, Relaxed);
    }
}

/// What is on its way.
#[derive(Default)]
struct Flights {
    all: VecDeque<InFlight>,
    last_id: u16,
    pings_sent: u64,
    pings_answered: u64,
}

impl Flights {
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let taken = |f: &InFlight| f.by == By::PubAck(self.last_id);
            // Ids come round after 65,535: only a broker that never answers could still hold one.
            if !self.all.iter().any(taken) {
                return self.last_id;
            }
        }
    }

    fn add(&mut self, ticket: Option<Ticket>, by: By) {
        self.all.push_back(InFlight { ticket, by, is_done: false, is_refused: false });
    }

    fn own(&mut self, wire: &mut Wire, message: Message, acknowledged: bool) {
        let id = acknowledged.then(|| self.next_id());
        // A message of our own that is too large is none of the promised ones.
        if wire.publish(message, id).is_ok()
            && let Some(id) = id
        {
            self.add(None, By::PubAck(id));
        }
    }

    /// Marks what an acknowledgement is for; false when it is for nothing.
    fn acknowledged(&mut self, id: u16, refused: bool) -> bool {
        let found = self.all.iter_mut().find(|f| f.by == By::PubAck(id) && !f.is_done);
        found.map(|f| (f.is_done, f.is_refused) = (true, refused)).is_some()
    }

    fn pinged(&mut self) {
        self.pings_answered += 1;
        let upto = self.pings_answered;
        let answered = |f: &&mut InFlight| matches!(f.by, By::Ping(n) if n <= upto);
        self.all.iter_mut().filter(answered).for_each(|f| f.is_done = true);
    }

    /// Whether something waits for a ping that has not been sent.
    fn wants_ping(&self) -> bool {
        let next = self.pings_sent + 1;
        self.pings_sent == self.pings_answered && self.all.iter().any(|f| f.by == By::Ping(next))
    }
}

/// How a connection ended.
pub(super) enum Ended {
    /// We were stopped.
    Stopped,
    /// It broke, or we left; and why.
    Lost(String),
    /// The face wanted to leave: the next broker is asked.
    Left(String),
}

/// One connection.
pub(super) struct Session<'a> {
    wire: Wire,
    face: &'a mut dyn Face,
    outlet: &'a mut Outlet,
    shared: &'a Shared,
    answers: &'a mut mpsc::Receiver<Message>,
    flights: Flights,
    window: usize,
    load: Option<JoinHandle<Load>>,
    /// The backlog goes on then.
    resume: Option<Instant>,
    heard_at: Instant,
    looked_at: Instant,
    leaving: Option<String>,
    /// Something of the spool was acknowledged: the broker is good.
    pub(super) delivered: bool,
    /// A message of our own was acknowledged.
    took_ours: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        wire: Wire,
        face: &'a mut dyn Face,
        outlet: &'a mut Outlet,
        shared: &'a Shared,
        answers: &'a mut mpsc::Receiver<Message>,
        window: u16,
    ) -> Session<'a> {
        let window = usize::from(window.min(wire.receive_max));
        let now = Instant::now();
        Session {
            wire,
            face,
            outlet,
            shared,
            answers,
            flights: Flights::default(),
            window,
            load: None,
            resume: None,
            heard_at: now,
            looked_at: now,
            leaving: None,
            delivered: false,
            took_ours: false,
        }
    }

    /// Serves until the connection ends.
    pub(super) async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut phase = Phase::Serving;
        let mut deadline = Instant::now();
        if let Err(why) = self.begin() {
            return Ended::Lost(why);
        }
        loop {
            if phase == Phase::Serving {
                self.fill();
                if self.leaving.is_some() {
                    // No time is lost on what waits: it is delivered elsewhere.
                    phase = self.say_goodbye();
                    deadline = Instant::now() + FLUSH_LIMIT;
                }
            } else {
                phase = match self.leave(phase) {
                    Some(phase) => phase,
                    None => break,
                };
            }
            let wake = self.wake_at(phase, deadline);
            let bell = self.shared.spool.bell.notified();
            let event = tokio::select! {
                done = self.wire.turn() => Some(done.map_err(|e| e.to_string())),
                () = bell, if phase != Phase::Farewell => None,
                () = self.shared.nudge.notified(), if phase == Phase::Serving => {
                    self.look();
                    None
                }
                load = loaded(&mut self.load) => {
                    self.load = None;
                    load.into_iter().for_each(|load| self.outlet.loaded(load));
                    None
                }
                Some(answer) = self.answers.recv(), if phase != Phase::Farewell => {
                    self.out(|_, out| out.say(answer));
                    None
                }
                _ = stop.wait_for(|s| *s), if phase == Phase::Serving => {
                    (phase, deadline) = (Phase::Draining, Instant::now() + FLUSH_LIMIT);
                    None
                }
                () = sleep_until(wake) => None,
            };
            match event {
                Some(Err(why)) if phase == Phase::Serving => return Ended::Lost(why),
                Some(Err(_)) => break,
                Some(Ok(())) => {
                    if let Err(why) = self.take_all() {
                        return Ended::Lost(why);
                    }
                }
                None => {}
            }
            let now = Instant::now();
            if phase != Phase::Serving && now >= deadline {
                break;
            }
            if let Err(why) = self.keep_alive(now) {
                return Ended::Lost(why);
            }
            if phase == Phase::Serving && now >= self.looked_at + LOOK_EVERY {
                self.look();
            }
        }
        match self.leaving.take() {
            Some(why) => Ended::Left(why),
            None => Ended::Stopped,
        }
    }

    /// The message of the spool that is on its way, if it is the only one, and the broker has acknowledged our birth: so it does take
    /// messages.
    pub(super) fn alone(&self) -> Option<Ticket> {
        if !self.took_ours {
            return None;
        }
        let mut tickets = self.flights.all.iter().filter_map(|f| f.ticket);
        tickets.next().filter(|_| tickets.next().is_none())
    }

    /// Ends the connection in good order.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(FLUSH_LIMIT, self.wire.close()).await;
    }

    fn begin(&mut self) -> Result<(), String> {
        let (filters, with_retained) = self.face.subscriptions();
        if !filters.is_empty() {
            let id = self.flights.next_id();
            self.wire.subscribe(&filters, with_retained, id)?;
        }
        self.out(|face, out| face.connected(out));
        Ok(())
    }

    /// Lets the face do something with the connection.
    fn out(&mut self, act: impl FnOnce(&mut dyn Face, &mut Out<'_>)) {
        let (wire, flights, stats) = (&mut self.wire, &mut self.flights, &*self.shared.stats);
        let mut out = Out { wire, flights, stats, leave: None, restart: false };
        act(self.face, &mut out);
        let (leave, restart) = (out.leave.take(), out.restart);
        self.leaving = leave.or(self.leaving.take());
        if restart {
            // What is in flight stays so, and its tickets stay good: it may be sent twice.
            self.load = None;
            self.outlet.restart();
        }
    }

    fn look(&mut self) {
        self.looked_at = Instant::now();
        self.out(|face, out| face.look(out));
    }

    fn wake_at(&self, phase: Phase, deadline: Instant) -> Instant {
        let ping = self.wire.sent_at + self.wire.keep_alive;
        let look = if phase == Phase::Serving { self.looked_at + self.shared.look_every } else { deadline };
        let mut wake = ping.min(look).min(self.heard_at + self.silence());
        if let Some(resume) = self.resume.filter(|_| phase == Phase::Serving) {
            wake = wake.min(resume);
        }
        if phase == Phase::Serving { wake } else { wake.min(deadline) }
    }

    /// How long nothing may be heard while something is expected.
    fn silence(&self) -> Duration {
        let is_waiting = self.flights.pings_sent > self.flights.pings_answered;
        if is_waiting { self.wire.keep_alive } else { SILENCE_LIMIT.max(self.wire.keep_alive * 3) }
    }

    fn keep_alive(&mut self, now: Instant) -> Result<(), String> {
        if now >= self.heard_at + self.silence() {
            return Err("the broker is silent".into());
        }
        if now >= self.wire.sent_at + self.wire.keep_alive || self.flights.wants_ping() {
            self.flights.pings_sent += 1;
            self.wire.ping()?;
        }
        Ok(())
    }

    /// Sends from the outlet until the window is full.
    fn fill(&mut self) {
        self.resume = None;
        let now = std::time::Instant::now();
        while self.flights.all.len() < self.window && self.wire.pending() < OUT_MAX {
            let face = &mut *self.face;
            let next = self.outlet.next(now, |stream, record| face.sending(stream, record));
            match next {
                Next::Record(ticket, sending) => self.send(ticket, sending),
                Next::Load(load) => self.load = Some(tokio::task::spawn_blocking(move || load.run())),
                Next::Wait(until) => {
                    self.resume = Some(until.into());
                    return;
                }
                Next::Empty => return,
            }
        }
    }

    fn send(&mut self, ticket: Ticket, sending: Sending) {
        let (message, by) = match sending {
            Sending::Acknowledged(message) => (message, By::PubAck(self.flights.next_id())),
            Sending::Pinged(message) => (message, By::Ping(self.flights.pings_sent + 1)),
            Sending::Nothing => return self.outlet.acknowledge(&ticket),
        };
        let id = if let By::PubAck(id) = by { Some(id) } else { None };
        match self.wire.publish(message, id) {
            Ok(()) => {
                self.flights.add(Some(ticket), by);
                self.shared.stats.published.fetch_add(1, Relaxed);
            }
            Err(e) => {
                tracing::warn!(
                    "a message of {} bytes is lost: the broker takes {} at most; sequence {} of the stream {}",
                    e.size,
                    e.max,
                    ticket.sequence,
                    ticket.stream.name()
                );
                self.outlet.too_large(&ticket);
            }
        }
    }

    fn take_all(&mut self) -> Result<(), String> {
        while let Some(incoming) = self.wire.take()? {
            self.heard_at = Instant::now();
            match incoming {
                Incoming::PubAck(id, refused) => {
                    if let Some(reason) = &refused {
                        self.shared.tell_refusal(reason);
                    }
                    if !self.flights.acknowledged(id, refused.is_some()) {
                        return Err("the broker acknowledges what was not sent".into());
                    }
                    self.pass_on();
                }
                Incoming::PingResp => {
                    if self.flights.pings_answered >= self.flights.pings_sent {
                        return Err("the broker answers a ping that was not sent".into());
                    }
                    self.flights.pinged();
                    self.pass_on();
                }
                Incoming::SubAck(true) => {
                    tracing::warn!(
                        "the broker refuses a subscription: commands will not come through; its access list?"
                    );
                }
                Incoming::Publish(message) => self.out(|face, out| face.received(*message, out)),
                Incoming::Disconnect(why) => return Err(why),
                Incoming::SubAck(false) | Incoming::Other => {}
            }
        }
        Ok(())
    }

    /// Passes acknowledgements on to the spool, in the order of sending.
    fn pass_on(&mut self) {
        while self.flights.all.front().is_some_and(|f| f.is_done) {
            let Some(flight) = self.flights.all.pop_front() else { return };
            let InFlight { ticket: Some(ticket), is_refused, .. } = flight else {
                self.took_ours = true;
                continue;
            };
            self.delivered = true;
            match is_refused {
                false => self.outlet.acknowledge(&ticket),
                true => self.outlet.refuse(&ticket),
            }
        }
    }

    /// A stop, step by step; `None` when it is done.
    fn leave(&mut self, phase: Phase) -> Option<Phase> {
        match phase {
            Phase::Draining => {
                self.fill();
                let is_idle = self.flights.all.is_empty() && self.load.is_none() && self.resume.is_none();
                Some(if is_idle { self.say_goodbye() } else { Phase::Draining })
            }
            Phase::Farewell if self.flights.all.iter().all(|f| f.ticket.is_some() || f.is_done) => None,
            other => Some(other),
        }
    }

    fn say_goodbye(&mut self) -> Phase {
        let (last, with_will) = self.face.farewell();
        if let Some(message) = last {
            self.out(|_, out| out.say(message));
        }
        self.shared.with_will.store(with_will, Relaxed);
        Phase::Farewell
    }

    /// Says DISCONNECT.
    pub(super) fn disconnect(&mut self) {
        self.wire.disconnect(self.shared.with_will.load(Relaxed));
    }
}

/// The piece of a segment that is being read, when it is there.
async fn loaded(load: &mut Option<JoinHandle<Load>>) -> Option<Load> {
    match load {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    }
}
