//! What a broker does not take now is sent again later, and nothing is lost over it.
//!
//! ```text
//!   on its way ──refused for now──> waiting { due } ──due: the outlet begins anew──> on its way ..
//!                                      └── refused again: twice as long
//!
//!   the others:  Open ──a refusal──> Held { until } ──then──> one at a time, one more with every acknowledgement ──> Open
//!                                     └── refused again, nothing taken between: twice as long
//! ```
//!
//! A quota (0x97) is over after a while, and over it everything is refused: then nothing is sent for a while. A message that is refused again
//! and again while others are taken holds up nobody: any acknowledgement ends the wait of the others, and as long as those go slowly it is
//! their turn, not that of what was refused before.
//!
//! All of it lasts for one connection: with the next everything that is not done is sent anyway.

use crate::telemetry::spool::{Stream, Ticket};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// First and longest wait of everything else after a refusal.
const HOLD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// First and longest wait of the message that was refused.
const WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// When so many wait nothing new is sent before one of them is due: a broker that refuses a thousand takes no more.
const WAITING_MAX: usize = 1000;

/// Which message of the spool.
pub(super) type Key = (Stream, u64);

/// The key of a ticket.
pub(super) fn key(ticket: &Ticket) -> Key {
    (ticket.stream, ticket.sequence)
}

/// A message refused so often, while so many others were taken, is not refused for now. Only where [`WAITING_MAX`] wait is it given up for
/// that: till then it costs nobody anything.
const PATIENCE: (u32, u64) = (8, 100);

#[derive(Clone, Copy, Debug)]
struct Wait {
    /// How often it was refused, and how many others had been taken when that began.
    refusals: u32,
    taken: u64,
    /// `None`: it is to be sent, or on its way.
    due: Option<Instant>,
    next: Duration,
}

/// Messages that wait, and how fast the others go.
#[derive(Debug, Default)]
pub(super) struct Later {
    waiting: HashMap<Key, Wait>,
    held: Option<Instant>,
    hold: Option<Duration>,
    /// So many at once; `None`: as many as the window has room for.
    pace: Option<usize>,
    /// Messages taken so far.
    taken: u64,
}

impl Later {
    /// The broker does not take it now; false: it never will, and is in the way of others.
    pub(super) fn refused(&mut self, ticket: &Ticket, now: Instant) -> bool {
        let first = Wait { refusals: 0, taken: self.taken, due: None, next: WAIT.0 };
        let wait = self.waiting.get(&key(ticket)).copied().unwrap_or(first);
        let refusals = wait.refusals + 1;
        if refusals >= PATIENCE.0 && self.taken - wait.taken >= PATIENCE.1 && self.waiting.len() >= WAITING_MAX {
            self.waiting.remove(&key(ticket));
            return false;
        }
        let wait = Wait { refusals, due: Some(now + wait.next), next: (wait.next * 2).min(WAIT.1), ..wait };
        self.waiting.insert(key(ticket), wait);
        // Of a burst that is refused the first refusal counts.
        if self.held.is_none_or(|until| now >= until) {
            let hold = self.hold.map_or(HOLD.0, |before| (before * 2).min(HOLD.1));
            (self.hold, self.held) = (Some(hold), Some(now + hold));
        }
        self.pace = Some(1);
        true
    }

    /// It is not to be sent before then, although nobody has refused it.
    pub(super) fn postpone(&mut self, ticket: &Ticket, until: Instant) {
        self.waiting.insert(key(ticket), Wait { refusals: 0, taken: self.taken, due: Some(until), next: WAIT.0 });
    }

    /// The broker has taken a message.
    pub(super) fn taken(&mut self, ticket: &Ticket) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&key(ticket));
        }
        self.taken += 1;
        (self.held, self.hold) = (None, None);
        self.pace = self.pace.map(|pace| pace + 1);
    }

    /// How many may be on their way at once, of a window.
    pub(super) fn window(&mut self, window: usize, now: Instant) -> usize {
        let is_full = || self.waiting.len() >= WAITING_MAX && self.waiting.values().all(|w| w.due.is_some());
        if self.held.is_some_and(|until| now < until) || is_full() {
            return 0;
        }
        match self.pace.filter(|pace| *pace < window) {
            Some(pace) => pace,
            None => {
                self.pace = None;
                window
            }
        }
    }

    /// Whether it has to wait still.
    pub(super) fn skips(&self, ticket: &Ticket) -> bool {
        self.waiting.get(&key(ticket)).is_some_and(|wait| wait.due.is_some())
    }

    /// Whether something is due that has to be read again; `is_dry`: there is nothing else to be sent.
    pub(super) fn is_due(&self, now: Instant, is_dry: bool) -> bool {
        self.has_turn(is_dry) && self.waiting.values().any(|wait| wait.due.is_some_and(|due| now >= due))
    }

    /// What was refused is asked again when all goes well, or nothing else is left.
    fn has_turn(&self, is_dry: bool) -> bool {
        is_dry || self.pace.is_none()
    }

    /// The outlet begins anew: what is due has waited long enough.
    pub(super) fn begins_anew(&mut self, now: Instant) {
        let is_due = |wait: &&mut Wait| wait.due.is_some_and(|due| now >= due);
        self.waiting.values_mut().filter(is_due).for_each(|wait| wait.due = None);
    }

    /// When something has to be done next.
    pub(super) fn wake(&self, now: Instant, is_dry: bool) -> Option<Instant> {
        let held = self.held.filter(|until| *until > now);
        let due = self.waiting.values().filter_map(|w| w.due).filter(|_| self.has_turn(is_dry));
        due.chain(held).min()
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        let stream = Stream::Normal;
        Ticket {
            stream,
            from: sequence,
            sequence,
            values: 1,
            bytes: 100,
            is_backlog: false,
            is_notice: false,
            is_again: false,
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test]
    async fn a_quota_holds_everything_for_longer_and_longer_until_something_is_taken() {
        let (mut later, mut now) = (Later::default(), Instant::now());
        assert_eq!(later.window(64, now), 64);
        for (n, hold) in [200, 400, 800, 1600, 3200, 5000, 5000].into_iter().enumerate() {
            (1..=64).for_each(|n| assert!(later.refused(&ticket(n), now)));
            assert_eq!(later.window(64, now + ms(hold - 1)), 0, "hold {n}");
            now += ms(hold);
            assert_eq!(later.window(64, now), 1, "then one");
        }
        later.taken(&ticket(99));
        for pace in [2, 3, 4] {
            assert_eq!(later.window(64, now), pace);
            later.taken(&ticket(99));
        }
        (5..64).for_each(|_| later.taken(&ticket(99)));
        assert_eq!(later.window(64, now), 64);
        later.refused(&ticket(1), now);
        assert_eq!(later.window(64, now + ms(199)), 0);
        assert_eq!(later.window(64, now + ms(200)), 1, "the hold began anew");
    }

    /// A broker that refuses one topic for ever, and says that it is for now: other messages wait for that no longer than these few times.
    #[tokio::test]
    async fn when_all_that_may_wait_is_refused_for_ever_it_is_given_up_and_others_go_on() {
        let (mut later, mut now) = (Later::default(), Instant::now());
        let all = 1..=WAITING_MAX as u64;
        let mut given_up = 0;
        for round in 1..=PATIENCE.0 {
            given_up = all.clone().filter(|n| !later.refused(&ticket(*n), now)).count();
            assert!(round == PATIENCE.0 || later.window(64, now + ms(5000)) == 0, "all of them wait: {round}");
            (0..PATIENCE.1).for_each(|n| later.taken(&ticket(1_000_000 + n)));
            now += WAIT.1;
            later.begins_anew(now);
        }
        assert_eq!(given_up, 1, "one makes room, and so on with each that is refused again");
        assert!(later.window(64, now) > 0);
        // A quota: nothing is taken, nothing is given up, however often.
        let mut later = Later::default();
        for _ in 0..100 {
            assert!(all.clone().all(|n| later.refused(&ticket(n), now)));
            now += WAIT.1;
            later.begins_anew(now);
        }
    }

    #[tokio::test]
    async fn a_message_that_is_never_taken_is_asked_for_less_and_less_and_holds_up_nobody() {
        let (mut later, mut now) = (Later::default(), Instant::now());
        for wait in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000] {
            later.refused(&ticket(1), now);
            later.taken(&ticket(2));
            assert!(later.window(64, now) > 0, "the others go on");
            assert!(later.skips(&ticket(1)) && !later.is_due(now + ms(wait - 1), true), "{wait}");
            now += ms(wait);
            assert!(!later.is_due(now, false), "the others first, while they go slowly");
            assert!(later.is_due(now, true) && later.wake(now, true) == Some(now));
            later.begins_anew(now);
            assert!(!later.skips(&ticket(1)) && !later.is_due(now, true), "it is on its way");
        }
        later.taken(&ticket(1));
        assert!(later.is_empty() && later.wake(now, true).is_none());
    }
}
