//! One connection, from CONNECT to its end.
//!
//! ```text
//!   outlet ──fill──> in flight (<= window) ──> wire ──> broker
//!    ^   ^              │  packet id, or the ping that follows   │
//!    │   └ acknowledge ─┴──────────── PUBACK / PINGRESP ─────────┘
//!    └ loads: pieces of segments, one of each track at most
//!
//!   Serving ──stop──> Draining ──nothing in flight──> Farewell ──taken──> DISCONNECT
//! ```
//!
//! The spool is the only copy that counts. When the connection is lost, whatever was in flight is sent again from there: duplicates per
//! connection are the window at most. Acknowledgements are passed on in the order of sending.
//!
//! **Alive.** A broker that has not been heard for a keep-alive is asked with a ping, and has a keep-alive from then to be heard again: it is
//! not blamed for having had nothing to say. One that is heard and acknowledges nothing is left after [`SILENCE_LIMIT`].
//!
//! **Bounded.** Nothing here goes round without a limit between two awaits: a stop is heard whatever broker and spool do.

use super::caution::{Caution, Pass};
use super::face::{Face, Sending};
use super::flights::{Flights, How, SUBSCRIBE_ID, Verdict, What};
use super::poison::{Care, Evidence};
use super::reason::{self, Code, Failure};
use super::wire::{Incoming, Message, OUT_MAX, TooLarge, Wire};
use super::{MqttStats, Shared};
use crate::telemetry::spool::{Load, Next, Outlet, Reason, Ticket};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How long a stop waits for the last acknowledgements.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// A broker that acknowledges nothing for so long although something is in flight is left.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Answers wait in their channel while so many messages of our own wait for room.
const QUEUED_MAX: usize = 64;
/// Records taken from the outlet before others have their turn.
const FILL_MAX: usize = 4096;
/// How often the face may look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Farewell,
}

/// What has become of a record of the spool.
enum Sent {
    /// It is among the bytes that go out, with this packet id.
    Written(Result<(), TooLarge>, u16),
    /// A message was made of it.
    Made(Message),
    /// Nobody wants it.
    Nothing,
    /// The broker is asked again later.
    Waits,
    /// The broker does not take its like, for this reason.
    Never(Reason),
    /// Nothing was made of it, for this reason.
    Lost(Reason),
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
        self.send(message, How::Said);
    }

    /// Sends a message of our own, QoS 0.
    pub fn mention(&mut self, message: Message) -> Result<(), TooLarge> {
        self.send(message, How::Mentioned);
        self.flights.take_too_large().map_or(Ok(()), Err)
    }

    fn send(&mut self, message: Message, how: How) {
        let gone = self.flights.own(self.wire, message, how);
        self.stats.published.fetch_add(gone, Relaxed);
    }
}

/// Answers on their way to a connection, and those that the last one did not live to deliver.
pub(super) struct Answers {
    coming: mpsc::Receiver<Message>,
    kept: VecDeque<Message>,
}

impl Answers {
    pub(super) fn new(coming: mpsc::Receiver<Message>) -> Answers {
        Answers { coming, kept: VecDeque::new() }
    }

    /// None has to be said.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.coming.is_empty()
    }

    /// The next one that has come.
    async fn next(&mut self) -> Option<Message> {
        self.coming.recv().await
    }
}

/// How a connection ended.
pub(super) enum Ended {
    /// We were stopped.
    Stopped,
    /// It broke, or we left; and why.
    Lost(Failure),
    /// The face wanted to leave: the next broker is asked.
    Left(String),
}

/// One connection.
pub(super) struct Session<'a> {
    wire: Wire,
    face: &'a mut dyn Face,
    outlet: &'a mut Outlet,
    shared: &'a Shared,
    answers: &'a mut Answers,
    flights: Flights,
    /// What MQTT 5 says with every record.
    user: Vec<u8>,
    /// Pieces of segments that are being read. The outlet asks for one of each track at most, and each is handed back: a track whose piece was
    /// forgotten would wait for it for ever.
    loads: JoinSet<Load>,
    /// The backlog goes on then.
    resume: Option<Instant>,
    heard_at: Instant,
    /// When the last ping went out.
    pinged_at: Instant,
    /// When something was last acknowledged, or nothing was in flight.
    acknowledged_at: Instant,
    looked_at: Instant,
    leaving: Option<String>,
    caution: Caution,
    /// There is nothing to be sent but what has to wait.
    is_dry: bool,
    /// A message of our own was acknowledged.
    took_ours: bool,
    /// When it has ended: what it has shown of what the broker takes.
    pub(super) evidence: Evidence,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        wire: Wire,
        face: &'a mut dyn Face,
        outlet: &'a mut Outlet,
        shared: &'a Shared,
        answers: &'a mut Answers,
        window: u16,
        care: Care,
    ) -> Session<'a> {
        let window = window.min(wire.receive_max);
        let (now, user) = (Instant::now(), face.user_properties());
        Session {
            wire,
            face,
            outlet,
            shared,
            answers,
            flights: Flights::new(window),
            user,
            loads: JoinSet::new(),
            resume: None,
            heard_at: now,
            pinged_at: now,
            acknowledged_at: now,
            looked_at: now,
            leaving: None,
            caution: Caution::new(care, window, now),
            is_dry: false,
            took_ours: false,
            evidence: Evidence::default(),
        }
    }

    /// Serves until the connection ends. Answers that did not get through are kept for the next one.
    pub(super) async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        let ended = self.serve(stop).await;
        let (open, alone) = self.flights.open();
        // The broker has acknowledged our birth: so it does take messages.
        self.evidence = self.caution.evidence(open, alone.filter(|_| self.took_ours));
        self.evidence.was_born = self.took_ours;
        self.answers.kept.extend(self.flights.unanswered());
        ended
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut phase = Phase::Serving;
        let mut deadline = Instant::now();
        if let Err(why) = self.begin() {
            return Ended::Lost(why.into());
        }
        loop {
            if phase == Phase::Serving {
                self.send_again();
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
            if self.resume.is_some_and(|at| at <= Instant::now()) {
                // There is more: what the broker and who stops us have to say comes from others, who need a turn for it.
                tokio::task::yield_now().await;
            }
            let wake = self.wake_at(phase, deadline);
            let bell = self.shared.spool.bell.notified();
            let event = tokio::select! {
                done = self.wire.turn() => Some(done.map_err(Failure::from)),
                () = bell, if phase != Phase::Farewell => None,
                () = self.shared.nudge.notified(), if phase == Phase::Serving => {
                    self.look();
                    None
                }
                Some(load) = self.loads.join_next() => {
                    self.loaded(load);
                    None
                }
                Some(answer) = self.answers.next(), if phase != Phase::Farewell && self.flights.queued() < QUEUED_MAX => {
                    self.out(|_, out| out.send(answer, How::Answered));
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
                return Ended::Lost(why.into());
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

    /// Ends the connection in good order.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(FLUSH_LIMIT, self.wire.close()).await;
    }

    fn begin(&mut self) -> Result<(), String> {
        let (filters, with_retained) = self.face.subscriptions();
        if !filters.is_empty() {
            self.wire.subscribe(&filters, with_retained, SUBSCRIBE_ID)?;
        }
        self.out(|face, out| face.connected(out));
        for answer in std::mem::take(&mut self.answers.kept) {
            self.out(|_, out| out.send(answer, How::Answered));
        }
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
            self.loads = JoinSet::new();
            self.outlet.restart();
        }
    }

    fn look(&mut self) {
        self.looked_at = Instant::now();
        self.out(|face, out| face.look(out));
    }

    fn wake_at(&self, phase: Phase, deadline: Instant) -> Instant {
        let look = if phase == Phase::Serving { self.looked_at + self.shared.look_every } else { deadline };
        let mut wake = look.min(self.ping_at()).min(self.silent_at());
        if phase != Phase::Farewell {
            let again = self.caution.wake(Instant::now(), self.is_dry, self.waits_since());
            wake = [self.resume, again].into_iter().flatten().fold(wake, Instant::min);
        }
        if phase == Phase::Serving { wake } else { wake.min(deadline) }
    }

    /// When the broker has to be asked whether it is alive: it has not heard of us for a keep-alive, or we not of it.
    fn ping_at(&self) -> Instant {
        let heard = self.heard_at.max(self.pinged_at);
        self.wire.sent_at.min(heard) + self.wire.keep_alive
    }

    /// When the broker is taken for dead: counted from the ping, not from what was heard before it.
    fn silent_at(&self) -> Instant {
        let acknowledged = self.acknowledged_at + SILENCE_LIMIT.max(self.wire.keep_alive * 3);
        match self.flights.awaits_ping() {
            true => acknowledged.min(self.heard_at.max(self.pinged_at) + self.wire.keep_alive),
            false => acknowledged,
        }
    }

    /// When something was last acknowledged, if anything is on its way.
    fn waits_since(&self) -> Option<Instant> {
        (!self.flights.is_empty()).then_some(self.acknowledged_at)
    }

    fn keep_alive(&mut self, now: Instant) -> Result<(), String> {
        if self.flights.is_empty() {
            self.acknowledged_at = now;
        }
        if now >= self.silent_at() {
            return Err("the broker is silent".into());
        }
        if now >= self.ping_at() || self.flights.wants_ping() {
            self.flights.pinging();
            self.pinged_at = now;
            self.wire.ping()?;
        }
        Ok(())
    }

    /// Begins the outlet anew when something is due that was refused, or had to wait, for it has passed that already; and when the disk has come.
    fn send_again(&mut self) {
        let now = Instant::now();
        if self.outlet.is_outdated() || self.caution.is_due(now, self.is_dry) {
            self.caution.begins_anew(self.flights.records(), now);
            self.loads = JoinSet::new();
            self.outlet.restart();
            self.is_dry = false;
        }
    }

    /// Sends what of our own waits, then from the outlet until the window is full, or others want their turn.
    fn fill(&mut self) {
        self.resume = None;
        let now = std::time::Instant::now();
        let gone = self.flights.pump(&mut self.wire);
        self.shared.stats.published.fetch_add(gone, Relaxed);
        let mut held_back = false;
        for _ in 0..FILL_MAX {
            if self.flights.len() >= self.caution.window(now.into(), self.waits_since()) {
                return;
            }
            if !self.flights.has_room() || self.flights.queued() > 0 || self.wire.pending() >= OUT_MAX {
                return;
            }
            let Session { face, wire, flights, user, caution, .. } = self;
            let next = self.outlet.next(now, |ticket, record| {
                let sending = face.sending(ticket.stream, record);
                held_back |= sending.is_none();
                let sending = sending?;
                // A message whose place in the order counts, as in Sparkplug, cannot wait.
                let may_wait = matches!(sending, Sending::Straight(_));
                if !matches!(sending, Sending::Nothing | Sending::Lost(_)) {
                    match caution.judge(ticket, record.topic, may_wait, now.into()) {
                        Pass::Goes => caution.sends(ticket, record.topic, flights.is_empty(), now.into()),
                        Pass::Waits => return Some(Sent::Waits),
                        Pass::Never(reason) => return Some(Sent::Never(reason)),
                    }
                }
                Some(match sending {
                    // Written from where it lies: nothing of it is copied but into the packet.
                    Sending::Straight(head) => {
                        let id = flights.next_id()?;
                        Sent::Written(wire.publish_record(record, id, head, user), id)
                    }
                    Sending::Pinged(message) => Sent::Made(message),
                    Sending::Nothing => Sent::Nothing,
                    Sending::Lost(reason) => Sent::Lost(reason),
                })
            });
            self.shared.stats.held_back.store(held_back, Relaxed);
            match next {
                Next::Record(ticket, sent) => self.sent(ticket, sent),
                Next::Load(load) => drop(self.loads.spawn_blocking(move || load.run())),
                Next::Wait(until) => {
                    self.resume = Some(until.into());
                    return;
                }
                Next::Empty => {
                    self.is_dry = self.loads.is_empty();
                    return;
                }
            }
            self.is_dry = false;
        }
        self.resume = Some(Instant::now());
    }

    fn loaded(&mut self, load: Result<Load, JoinError>) {
        match load {
            Ok(load) => self.outlet.loaded(load),
            Err(e) => {
                // What it was for would be waited for: everything that is not done is asked for anew.
                tracing::error!("a piece of the spool was not read: {e}");
                self.loads = JoinSet::new();
                self.outlet.restart();
            }
        }
    }

    fn sent(&mut self, ticket: Ticket, sent: Sent) {
        let (written, id) = match sent {
            Sent::Written(written, id) => (written, Some(id)),
            Sent::Made(message) => (self.wire.publish(message, None), None),
            Sent::Nothing => return self.outlet.acknowledge(&ticket),
            Sent::Waits => return self.outlet.keep_back(&ticket),
            Sent::Never(reason) => return self.give_up(&ticket, reason),
            Sent::Lost(reason) => return self.outlet.give_up(&ticket, reason),
        };
        match written {
            Ok(()) => {
                self.flights.add(What::Record(ticket), id);
                self.shared.stats.published.fetch_add(1, Relaxed);
            }
            Err(e) => {
                tracing::debug!("a message is {} bytes long, and the broker takes {} at most", e.size, e.max);
                self.give_up(&ticket, Reason::TooLarge);
            }
        }
    }

    /// It is lost, and told. What the face has counted is not sent: it may have to begin anew.
    fn give_up(&mut self, ticket: &Ticket, reason: Reason) {
        self.outlet.give_up(ticket, reason);
        self.face.dropped();
    }

    fn take_all(&mut self) -> Result<(), Failure> {
        while let Some(incoming) = self.wire.take()? {
            self.heard_at = Instant::now();
            match incoming {
                Incoming::PubAck(id, refused) => {
                    if let Some(code) = refused {
                        self.shared.tell_refusal(code);
                    }
                    if !self.flights.acknowledged(id, refused.map_or(Verdict::Taken, Verdict::Refused)) {
                        return Err(String::from("the broker acknowledges what was not sent").into());
                    }
                    self.pass_on();
                }
                Incoming::PingResp => {
                    if !self.flights.pinged() {
                        return Err(String::from("the broker answers a ping that was not sent").into());
                    }
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
        while let Some((what, verdict)) = self.flights.pop() {
            self.acknowledged_at = Instant::now();
            let What::Record(ticket) = what else {
                self.took_ours = true;
                continue;
            };
            match verdict {
                Verdict::Taken => {
                    self.caution.taken(&ticket);
                    self.outlet.acknowledge(&ticket);
                }
                Verdict::Refused(code) => match code.verdict() {
                    reason::Verdict::Later if self.caution.refused(&ticket, Instant::now()) => {
                        self.outlet.keep_back(&ticket);
                        self.shared.stats.postponed.fetch_add(1, Relaxed);
                    }
                    _ if code == Code::TOO_LARGE => {
                        // What is made from now on is cut to fit.
                        let fits = u64::from(self.caution.is_too_large(ticket.bytes));
                        let room = &self.shared.stats.message_max;
                        let _ = room.fetch_update(Relaxed, Relaxed, |room| (room == 0 || fits < room).then_some(fits));
                        self.give_up(&ticket, Reason::TooLarge);
                    }
                    _ => self.give_up(&ticket, Reason::Refused(code.0)),
                },
            }
        }
    }

    /// A stop, step by step; `None` when it is done.
    fn leave(&mut self, phase: Phase) -> Option<Phase> {
        match phase {
            Phase::Draining => {
                self.fill();
                let is_idle = self.flights.is_empty() && self.flights.queued() == 0 && self.loads.is_empty();
                Some(if is_idle && self.resume.is_none() { self.say_goodbye() } else { Phase::Draining })
            }
            other => {
                let gone = self.flights.pump(&mut self.wire);
                self.shared.stats.published.fetch_add(gone, Relaxed);
                (!self.flights.own_is_done()).then_some(other)
            }
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
