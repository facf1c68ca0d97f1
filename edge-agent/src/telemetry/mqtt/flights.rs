//! What is on its way over a connection, and what of our own waits to go: never more than the window, and the window is never more than the
//! broker's Receive Maximum (MQTT 5, 4.9), whoever said the messages.
//!
//! ```text
//!   own ──queue──> ┐
//!                  ├──> in flight (<= window) ──PUBACK, PINGRESP──> done, handed back in the order of sending
//!   spool ───────> ┘     own first
//! ```
//!
//! An acknowledgement is found by its packet id in one step: ids are places in a table, and one that is free goes to the end of the row.

use super::reason::Code;
use super::wire::{Message, TooLarge, Wire};
use crate::telemetry::spool::Ticket;
use std::collections::VecDeque;

/// The packet id of the subscription: none of those that messages get.
pub(super) const SUBSCRIBE_ID: u16 = u16::MAX;
/// Messages in flight at most: every id but that one.
const IDS: u16 = u16::MAX - 1;

/// A message of our own, which the spool does not hold.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) message: Message,
    pub(super) how: How,
}

/// How a message of our own is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// QoS 0.
    Mentioned,
    /// QoS 1; a new connection says something of its own.
    Said,
    /// QoS 1, and again over the next connection if this one ends before its acknowledgement: somebody waits for it.
    Answered,
}

/// What is on its way.
#[derive(Debug)]
pub(super) enum What {
    /// A record of the spool.
    Record(Ticket),
    /// A message of our own; kept if it has to be said again.
    Own(Option<Box<Message>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A PUBACK with this packet id.
    PubAck(u16),
    /// The answer to this ping.
    Ping(u64),
}

/// What the broker has said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has taken it.
    Taken,
    /// It has not, and for this reason.
    Refused(Code),
}

#[derive(Debug)]
struct Flight {
    what: What,
    by: By,
    verdict: Option<Verdict>,
}

/// All of it.
pub(super) struct Flights {
    all: VecDeque<Flight>,
    /// How many have left `all`: the first of it has this number.
    first: u64,
    window: usize,
    /// Of each packet id, from 1: the number of its message.
    ids: Vec<u64>,
    free: VecDeque<u16>,
    queue: VecDeque<Own>,
    pings_sent: u64,
    pings_answered: u64,
    /// Something waits for a ping that has not been sent.
    wants_ping: bool,
    /// The last message of QoS 0 that did not fit.
    too_large: Option<TooLarge>,
}

impl Flights {
    /// Nothing, and room for so many.
    pub(super) fn new(window: u16) -> Flights {
        let window = window.clamp(1, IDS);
        Flights {
            all: VecDeque::with_capacity(usize::from(window)),
            first: 0,
            window: usize::from(window),
            ids: vec![u64::MAX; usize::from(window)],
            free: (1..=window).collect(),
            queue: VecDeque::new(),
            pings_sent: 0,
            pings_answered: 0,
            wants_ping: false,
            too_large: None,
        }
    }

    /// What did not fit since this was asked last.
    pub(super) fn take_too_large(&mut self) -> Option<TooLarge> {
        self.too_large.take()
    }

    /// Whether another message may go.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() < self.window && !self.free.is_empty()
    }

    /// Nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Messages of our own that wait for room.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Nothing of our own waits, or waits for its acknowledgement.
    pub(super) fn own_is_done(&self) -> bool {
        let is_done = |f: &Flight| matches!(f.what, What::Record(_)) || f.verdict.is_some();
        self.queue.is_empty() && self.all.iter().all(is_done)
    }

    /// The packet id the next message gets that goes out with QoS 1; there has to be room.
    pub(super) fn next_id(&self) -> Option<u16> {
        self.free.front().copied()
    }

    /// A message has gone out: with this packet id, or done when the next ping is answered.
    pub(super) fn add(&mut self, what: What, id: Option<u16>) {
        let by = match id {
            Some(id) => {
                self.free.pop_front(); // it is that id
                let number = self.first + self.all.len() as u64;
                self.ids.get_mut(usize::from(id) - 1).into_iter().for_each(|at| *at = number);
                By::PubAck(id)
            }
            None => {
                self.wants_ping = true;
                By::Ping(self.pings_sent + 1)
            }
        };
        self.all.push_back(Flight { what, by, verdict: None });
    }

    /// Takes a message of our own: it goes when there is room, after those before it. Gives how many have gone.
    pub(super) fn own(&mut self, wire: &mut Wire, message: Message, how: How) -> u64 {
        self.queue.push_back(Own { message, how });
        self.pump(wire)
    }

    /// Sends what of our own waits, as far as there is room; gives how many have gone.
    pub(super) fn pump(&mut self, wire: &mut Wire) -> u64 {
        let mut gone = 0;
        while let Some(own) = self.queue.front() {
            if own.how != How::Mentioned && !self.has_room() {
                break;
            }
            let Some(Own { message, how }) = self.queue.pop_front() else { break };
            let id = if how == How::Mentioned { None } else { self.next_id() };
            let kept = (how == How::Answered).then(|| Box::new(message.clone()));
            let topic = if how == How::Answered { message.topic.clone() } else { String::new() };
            match wire.publish(message, id) {
                Ok(()) => {
                    gone += 1;
                    if id.is_some() {
                        self.add(What::Own(kept), id);
                    }
                }
                Err(e) if how == How::Answered => {
                    tracing::warn!("an answer of {} bytes to {topic} is not sent: the broker takes {}", e.size, e.max);
                }
                Err(e) => {
                    tracing::debug!("a message of {} bytes is not sent: the broker takes {}", e.size, e.max);
                    self.too_large = (how == How::Mentioned).then_some(e);
                }
            }
        }
        gone
    }

    /// Notes an acknowledgement; false when it is for nothing that was sent.
    pub(super) fn acknowledged(&mut self, id: u16, verdict: Verdict) -> bool {
        let Some(number) = usize::from(id).checked_sub(1).and_then(|n| self.ids.get_mut(n)) else { return false };
        let at = std::mem::replace(number, u64::MAX).checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        let Some(flight) = at.and_then(|n| self.all.get_mut(n)) else { return false };
        flight.verdict = Some(verdict);
        self.free.push_back(id);
        true
    }

    /// A ping goes out now.
    pub(super) fn pinging(&mut self) {
        self.pings_sent += 1;
        self.wants_ping = false;
    }

    /// A ping is answered; false when none was sent.
    pub(super) fn pinged(&mut self) -> bool {
        if self.pings_answered >= self.pings_sent {
            return false;
        }
        self.pings_answered += 1;
        let upto = self.pings_answered;
        for flight in self.all.iter_mut().filter(|f| matches!(f.by, By::Ping(n) if n <= upto)) {
            flight.verdict = Some(Verdict::Taken);
        }
        true
    }

    /// A ping is not answered yet.
    pub(super) fn awaits_ping(&self) -> bool {
        self.pings_sent > self.pings_answered
    }

    /// Whether something waits for a ping that has not been sent and may be.
    pub(super) fn wants_ping(&self) -> bool {
        self.wants_ping && !self.awaits_ping()
    }

    /// The oldest, if the broker has said what it does with it.
    pub(super) fn pop(&mut self) -> Option<(What, Verdict)> {
        let verdict = self.all.front()?.verdict?;
        self.first += 1;
        Some((self.all.pop_front()?.what, verdict))
    }

    /// So many messages are on their way.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The records of the spool that are on their way.
    pub(super) fn records(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.all.iter().filter_map(|f| if let What::Record(ticket) = &f.what { Some(*ticket) } else { None })
    }

    /// Records of the spool of which the broker has said nothing: how many; and the only one, if nothing else is open.
    pub(super) fn open(&self) -> (usize, Option<Ticket>) {
        let mut open = self.all.iter().filter(|f| f.verdict.is_none());
        let count = open.clone().filter(|f| matches!(f.what, What::Record(_))).count();
        let alone = match (open.next().map(|f| &f.what), open.next()) {
            (Some(What::Record(ticket)), None) => Some(*ticket),
            _ => None,
        };
        (count, alone)
    }

    /// The connection has ended: messages of our own that have to be said again, in order.
    pub(super) fn unanswered(&mut self) -> impl Iterator<Item = Message> + '_ {
        let flying = self.all.drain(..).filter(|f| f.verdict.is_none()).filter_map(|f| match f.what {
            What::Own(Some(message)) => Some(*message),
            _ => None,
        });
        let queued = self.queue.drain(..).filter(|own| own.how == How::Answered).map(|own| own.message);
        flying.chain(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::spool::Stream;
    use proptest::prelude::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket {
            stream: Stream::Normal,
            from: sequence,
            sequence,
            values: 1,
            bytes: 1,
            is_backlog: false,
            is_notice: false,
            is_again: false,
        }
    }

    proptest! {
        /// Acknowledgements in any order, some for what was never sent.
        #[test]
        fn records_come_back_in_the_order_of_sending_and_no_id_is_used_twice(window in 1u16..20, picks: Vec<u8>) {
            let (mut flights, mut sent, mut back) = (Flights::new(window), 0, 0);
            let mut out: Vec<u16> = Vec::new();
            for pick in picks {
                while flights.has_room() && pick % 3 > 0 {
                    let id = flights.next_id().unwrap();
                    prop_assert!(!out.contains(&id) && id >= 1, "{} is on its way", id);
                    sent += 1;
                    flights.add(What::Record(ticket(sent)), Some(id));
                    out.push(id);
                }
                prop_assert!(out.len() <= usize::from(window));
                prop_assert!(!flights.acknowledged(0, Verdict::Taken) && !flights.acknowledged(SUBSCRIBE_ID, Verdict::Taken));
                if !out.is_empty() {
                    let id = out.remove(usize::from(pick) % out.len());
                    prop_assert!(flights.acknowledged(id, Verdict::Taken));
                    prop_assert!(!flights.acknowledged(id, Verdict::Taken), "{} twice", id);
                }
                while let Some((What::Record(ticket), _)) = flights.pop() {
                    back += 1;
                    prop_assert_eq!(ticket.sequence, back);
                }
            }
            for id in out {
                prop_assert!(flights.acknowledged(id, Verdict::Taken));
            }
            while let Some((What::Record(ticket), _)) = flights.pop() {
                back += 1;
                prop_assert_eq!(ticket.sequence, back);
            }
            prop_assert_eq!(back, sent);
        }
    }
}
