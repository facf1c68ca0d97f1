//! Which message a broker ends connections over: 3.1.1 has no way to say so, and 5 says why at most, not which.
//!
//! ```text
//!   ended, several on their way ──> the next connection sends the oldest one at a time
//!   ended over one alone        ──> doubt { its topic, its size, shown }: its like waits for CONTROL while all others go, then goes alone
//!        │                              │  its like is taken: no doubt
//!        └── the broker has said why    └── shown PROVEN times
//!                   └──────────┬────────────┘
//!                          given up, told, remembered: its like is not sent any more
//! ```
//!
//! "Its like" is what goes to the same topic and is as large, since a device's next message has the fault of the one before. A connection that
//! ends while nothing is on its way is no evidence, and takes back what was shown: two gateways with one name end each other's connections at
//! any time. And where no message was ever taken it is not one message that is wrong.

use super::later::{Key, key};
use super::reason::{Code, Failure};
use crate::telemetry::spool::record::HEADER;
use crate::telemetry::spool::{Reason, Ticket};
use std::time::Duration;
use tokio::time::Instant;

/// Evidence that is needed where the broker does not say why; one less for what is as large as something that was given up.
const PROVEN: u32 = 3;
/// What is in doubt goes out after a connection has lived for so long.
pub(super) const CONTROL: Duration = Duration::from_secs(1);
/// And the connection has to end within this time after it went out.
pub(super) const PROMPT: Duration = Duration::from_secs(2);
/// So many messages go one at a time: a broker acknowledges in order, so the guilty one is among the oldest.
const SINGLE_MAX: usize = 8;
/// How long is remembered what was given up. Then the broker may have been told better.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So many topics are in doubt, and so many remembered.
const TOPICS_MAX: usize = 64;
/// Within a sixteenth of a size that was shown to be too large nothing is tried.
const NEAR: u32 = 16;

/// A message of the spool on its way. Its size is that of its record: what it says, and some bytes.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) ticket: Ticket,
    pub(super) topic: String,
    pub(super) sent_at: Instant,
}

/// What a connection has shown at its end.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Messages of the spool without an acknowledgement.
    pub(super) open: usize,
    /// The only one of them, if nothing else was on its way, and the broker has acknowledged a message of our own: so it does take messages.
    pub(super) alone: Option<Suspect>,
    /// The largest message of the spool that was acknowledged; 0: none was.
    pub(super) taken: u32,
    /// What was in doubt and was acknowledged.
    pub(super) cleared: Vec<Suspect>,
    /// The smallest that was refused as too large.
    pub(super) too_large: Option<u32>,
    /// Our birth was acknowledged, or another message of our own.
    pub(super) was_born: bool,
}

/// Messages to a topic, from a size on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Like {
    topic: String,
    from: u32,
}

impl Like {
    pub(super) fn is(&self, topic: &str, size: u32) -> bool {
        size >= self.from && self.topic == topic
    }
}

#[derive(Clone, Debug)]
struct Doubt {
    like: Like,
    shown: u32,
    /// The message itself, and how often it was that one.
    it: (Key, u32),
}

/// How the next connection has to be used.
#[derive(Clone, Debug, Default)]
pub(super) struct Care {
    /// So many messages go one at a time.
    pub(super) single: usize,
    /// These wait for [`CONTROL`], and then go one at a time.
    pub(super) doubts: Vec<Like>,
    /// These are not sent.
    pub(super) dead: Vec<(Like, Reason)>,
    /// The largest message that is sent.
    pub(super) message_max: Option<u32>,
}

/// What is known of a broker's taste.
#[derive(Debug, Default)]
pub(super) struct Poison {
    single: usize,
    doubts: Vec<Doubt>,
    dead: Vec<(Like, Reason, Instant)>,
    /// Sizes from here on end the connection.
    too_large: Option<(u32, Instant)>,
    /// The largest message of the spool that was ever taken.
    taken: u32,
}

impl Poison {
    /// How the next connection has to be used.
    pub(super) fn care(&mut self, now: Instant) -> Care {
        self.too_large = self.too_large.filter(|(_, at)| now < *at + REMEMBERED);
        self.dead.retain(|(.., at)| now < *at + REMEMBERED);
        Care {
            single: self.single,
            doubts: self.doubts.iter().map(|d| d.like.clone()).collect(),
            dead: self.dead.iter().map(|(like, reason, _)| (like.clone(), *reason)).collect(),
            message_max: self.too_large.map(|(size, _)| size.saturating_sub(1)),
        }
    }

    /// A size that the broker surely takes, and something near the largest that it may.
    pub(super) fn fits(&self) -> Option<u32> {
        // Where it may have been the size, smaller messages are worth trying.
        let doubtful = self.dead.iter().map(|(like, ..)| like.from).filter(|from| *from > 0);
        let size = doubtful.chain(self.too_large.map(|(size, _)| size)).min()?;
        Some((size / 2).max(self.taken.saturating_sub(HEADER as u32).min(size.saturating_sub(1))))
    }

    /// A connection has ended; gives the message that is given up, and why.
    pub(super) fn ended(&mut self, seen: Evidence, why: &Failure, now: Instant) -> Option<(Suspect, Reason)> {
        self.taken = self.taken.max(seen.taken);
        if let Some(size) = seen.too_large {
            let before = self.too_large.map_or(size, |(before, _)| before);
            self.too_large = Some((size.min(before), now));
        }
        for cleared in &seen.cleared {
            self.doubts.retain_mut(|d| {
                if d.it.0 == key(&cleared.ticket) {
                    return false;
                }
                d.shown = if d.like.is(&cleared.topic, cleared.ticket.bytes) { 0 } else { d.shown };
                d.shown > 0 || d.it.1 > 1
            });
        }
        let code = match why {
            Failure::HungUp(_) => None,
            Failure::Ended(code, _) if code.blames_a_message() => Some(*code),
            Failure::Ended(Code(0x80), _) => None,
            _ => {
                self.single = 0;
                return None;
            }
        };
        let Some(suspect) = seen.alone.filter(|s| now <= s.sent_at + PROMPT) else {
            self.single = seen.open.min(SINGLE_MAX);
            if seen.open == 0 {
                self.doubts.clear();
            }
            return None;
        };
        self.single = SINGLE_MAX;
        let as_large = self.dead.iter().any(|(like, ..)| suspect.ticket.bytes >= like.from && like.from > 0);
        let (shown, times) = self.doubt(&suspect);
        let is_shown = shown + u32::from(as_large) >= PROVEN || times >= PROVEN;
        if code.is_none() && (self.taken == 0 || !is_shown) {
            return None;
        }
        self.doubts.retain(|d| !d.like.is(&suspect.topic, suspect.ticket.bytes));
        let reason = self.remember(&suspect, code, as_large, now);
        Some((suspect, reason))
    }

    /// A connection has ended over this alone: how often it was its like, and it itself.
    fn doubt(&mut self, suspect: &Suspect) -> (u32, u32) {
        let (key, near) = (key(&suspect.ticket), suspect.ticket.bytes - suspect.ticket.bytes / NEAR);
        if let Some(doubt) = self.doubts.iter_mut().find(|d| d.like.topic == suspect.topic) {
            doubt.like.from = doubt.like.from.min(near);
            doubt.shown += 1;
            doubt.it = if doubt.it.0 == key { (key, doubt.it.1 + 1) } else { (key, 1) };
            return (doubt.shown, doubt.it.1);
        }
        if self.doubts.len() >= TOPICS_MAX {
            self.doubts.remove(0);
        }
        let like = Like { topic: suspect.topic.clone(), from: near };
        self.doubts.push(Doubt { like, shown: 1, it: (key, 1) });
        (1, 1)
    }

    /// Remembers what is given up, so that its like costs no further connection.
    fn remember(&mut self, suspect: &Suspect, code: Option<Code>, as_large: bool, now: Instant) -> Reason {
        let size = suspect.ticket.bytes;
        let is_told = code == Some(Code::TOO_LARGE);
        // Where larger ones are taken it is not the size.
        let may_be_size = is_told || code.is_none() && size > self.taken;
        let from = if may_be_size { (size - size / NEAR).max(self.taken + 1).min(size) } else { 0 };
        let reason = match code {
            _ if may_be_size => Reason::TooLarge,
            code => Reason::Refused(code.unwrap_or(Code(0x80)).0),
        };
        // Two topics that ended connections with what was never taken so large: it is the size.
        if is_told || may_be_size && as_large {
            let before = self.too_large.map_or(u32::MAX, |(size, _)| size);
            self.too_large = Some((from.min(before), now));
        } else {
            self.dead.retain(|(like, ..)| like.topic != suspect.topic);
            if self.dead.len() >= TOPICS_MAX {
                self.dead.remove(0);
            }
            self.dead.push((Like { topic: suspect.topic.clone(), from }, reason, now));
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::spool::Stream;

    fn hung_up() -> Failure {
        Failure::HungUp("the broker hung up".into())
    }

    fn suspect(sequence: u64, topic: &str, size: u32, now: Instant) -> Suspect {
        let stream = Stream::Normal;
        let ticket = Ticket {
            stream,
            from: sequence,
            sequence,
            values: 1,
            bytes: size,
            is_backlog: false,
            is_notice: false,
            is_again: false,
        };
        Suspect { ticket, topic: topic.into(), sent_at: now }
    }

    fn alone(s: Suspect, taken: u32) -> Evidence {
        Evidence { open: 1, alone: Some(s), taken, was_born: true, ..Evidence::default() }
    }

    #[tokio::test]
    async fn a_device_whose_messages_are_too_large_costs_few_connections_and_then_none() {
        let (mut poison, now) = (Poison::default(), Instant::now());
        let several = Evidence { open: 30, taken: 200, ..Evidence::default() };
        assert!(poison.ended(several, &hung_up(), now).is_none());
        assert_eq!(poison.care(now).single, SINGLE_MAX);
        for n in 1..3 {
            let size = 3000 + n as u32;
            assert!(poison.ended(alone(suspect(n, "t/big", size, now), 200), &hung_up(), now).is_none());
            let care = poison.care(now);
            assert!(care.doubts[0].is("t/big", 2990) && !care.doubts[0].is("t/small", 2990));
        }
        let (given_up, reason) = poison.ended(alone(suspect(7, "t/big", 2999, now), 200), &hung_up(), now).unwrap();
        assert_eq!((given_up.ticket.sequence, reason), (7, Reason::TooLarge));
        let care = poison.care(now);
        assert!((1400..2800).contains(&poison.fits().unwrap()), "messages are made smaller");
        assert!(care.dead[0].0.is("t/big", 2900) && !care.dead[0].0.is("t/big", 1500) && care.doubts.is_empty());

        // Another device's, as large: then it is the size.
        assert!(poison.ended(alone(suspect(8, "t/other", 3100, now), 200), &hung_up(), now).is_none());
        let (_, reason) = poison.ended(alone(suspect(8, "t/other", 3100, now), 200), &hung_up(), now).unwrap();
        assert_eq!(reason, Reason::TooLarge);
        assert!((2800..3100).contains(&poison.care(now).message_max.unwrap()));
        assert!((1400..2800).contains(&poison.fits().unwrap()));
        let later = poison.care(now + REMEMBERED);
        assert!(later.message_max.is_none() && later.dead.is_empty(), "the broker may have been told better");
    }

    #[tokio::test]
    async fn what_the_broker_says_is_believed_at_once() {
        let now = Instant::now();
        for (code, reason) in [(0x95, Reason::TooLarge), (0x87, Reason::Refused(0x87)), (0x90, Reason::Refused(0x90))] {
            let mut poison = Poison::default();
            let why = Failure::Ended(Code(code), None);
            let (_, found) = poison.ended(alone(suspect(1, "t/a", 3000, now), 0), &why, now).unwrap();
            assert_eq!(found, reason);
            let care = poison.care(now);
            assert_eq!(care.message_max.is_some(), code == 0x95);
            assert_eq!(care.dead.iter().any(|(like, _)| like.is("t/a", 1)), code != 0x95, "whatever its size");
        }
        // Of what has nothing to do with a message nothing follows.
        let mut poison = Poison::default();
        for code in [0x8E, 0x8B, 0x93, 0x97, 0x8D] {
            for _ in 0..9 {
                let why = Failure::Ended(Code(code), None);
                assert!(poison.ended(alone(suspect(1, "t/a", 3000, now), 10), &why, now).is_none());
            }
        }
    }

    #[tokio::test]
    async fn nobody_is_given_up_where_connections_end_by_themselves() {
        let (mut poison, now) = (Poison::default(), Instant::now());
        for n in 0..100 {
            // A topic that is in doubt, and taken on the next connection.
            let s = suspect(n, "t/a", 100, now);
            let cleared = vec![suspect(n - n.min(1), "t/a", 100, now)];
            let seen = Evidence { cleared, ..alone(s, 100) };
            assert!(poison.ended(seen, &hung_up(), now).is_none());
        }
        let mut poison = Poison::default();
        for _ in 0..100 {
            assert!(poison.ended(alone(suspect(1, "t/a", 100, now), 100), &hung_up(), now).is_none());
            assert!(poison.ended(Evidence { taken: 100, ..Evidence::default() }, &hung_up(), now).is_none());
        }
        let (mut poison, late) = (Poison::default(), now + PROMPT * 2);
        for _ in 0..100 {
            assert!(poison.ended(alone(suspect(1, "t/a", 100, now), 100), &hung_up(), late).is_none());
        }
        // A broker that takes nothing at all but our birth: it is not the message.
        let mut poison = Poison::default();
        for _ in 0..100 {
            assert!(poison.ended(alone(suspect(1, "t/a", 100, now), 0), &hung_up(), now).is_none());
        }
    }
}
