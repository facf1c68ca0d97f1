//! How messages of the spool are let out on one connection: what a broker does not take now comes later, what it ends connections over goes
//! alone, and what is known to end them does not go at all.
//!
//! | asks | file |
//! |---|---|
//! | [`later`](super::later) | what was refused for now |
//! | [`poison`](super::poison) | what connections ended over, over all of them |

use super::later::{Key, Later, key};
use super::poison::{CONTROL, Care, Evidence, PROMPT, Suspect};
use crate::telemetry::spool::{Reason, Ticket};
use std::collections::HashSet;
use tokio::time::Instant;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// It goes.
    Goes,
    /// Not now: it stays in the spool, and is read again.
    Waits,
    /// The broker ends the connection over its like: never, for this reason.
    Never(Reason),
}

/// What is let out on a connection.
pub(super) struct Caution {
    later: Later,
    care: Care,
    /// As many as the broker takes on their way at once.
    window: usize,
    /// So many messages go one at a time.
    single: usize,
    /// What is in doubt goes from then on.
    control: Instant,
    /// On their way when the outlet began anew: not sent twice.
    on_their_way: HashSet<Key>,
    /// What was sent while nothing else was on its way.
    alone: Option<Suspect>,
    taken: u32,
    too_large: Option<u32>,
    cleared: Vec<Suspect>,
}

impl Caution {
    pub(super) fn new(care: Care, window: u16, now: Instant) -> Caution {
        Caution {
            window: usize::from(window),
            later: Later::default(),
            single: care.single,
            care,
            control: now + CONTROL,
            on_their_way: HashSet::new(),
            alone: None,
            taken: 0,
            too_large: None,
            cleared: Vec::new(),
        }
    }

    /// How many may be on their way at once now.
    pub(super) fn window(&mut self, now: Instant, since: Option<Instant>) -> usize {
        let most = self.later.window(self.window, now);
        if self.outlives(since).is_some_and(|at| now >= at) {
            self.single = 0;
            self.care.doubts.clear();
        }
        let is_single = self.single > 0 || !self.care.doubts.is_empty() && now >= self.control;
        if is_single { most.min(1) } else { most }
    }

    /// From then on the connection does not end over what is on its way: a broker may take its time, and acknowledge many together. `since`:
    /// when something was last acknowledged, if anything is on its way.
    fn outlives(&self, since: Option<Instant>) -> Option<Instant> {
        let is_careful = self.single > 0 || !self.care.doubts.is_empty();
        since.filter(|_| is_careful).map(|since| since + PROMPT)
    }

    /// What becomes of a message that is next. `may_wait`: its place in the order may be lost.
    pub(super) fn judge(&mut self, ticket: &Ticket, topic: &str, may_wait: bool, now: Instant) -> Pass {
        if !self.on_their_way.is_empty() && self.on_their_way.remove(&key(ticket)) {
            return Pass::Waits;
        }
        if !self.later.is_empty() && self.later.skips(ticket) {
            return Pass::Waits;
        }
        let is_known = self.care.message_max.is_some() || !self.care.dead.is_empty() || !self.care.doubts.is_empty();
        if !is_known {
            return Pass::Goes;
        }
        let size = ticket.bytes;
        if self.care.message_max.is_some_and(|most| size > most) {
            return Pass::Never(Reason::TooLarge);
        }
        if let Some((_, reason)) = self.care.dead.iter().find(|(like, _)| like.is(topic, size)) {
            return Pass::Never(*reason);
        }
        if may_wait && now < self.control && self.care.doubts.iter().any(|d| d.is(topic, size)) {
            self.later.postpone(ticket, self.control);
            return Pass::Waits;
        }
        Pass::Goes
    }

    /// A message goes; `is_alone`: nothing else is on its way.
    pub(super) fn sends(&mut self, ticket: &Ticket, topic: &str, is_alone: bool, now: Instant) {
        let before = self.alone.take().filter(|_| is_alone);
        if is_alone {
            // The text is used again: this is done for every message of a quiet line.
            let mut text = before.map_or_else(String::new, |before| before.topic);
            text.clear();
            text.push_str(topic);
            self.alone = Some(Suspect { ticket: *ticket, topic: text, sent_at: now });
        }
        self.single = self.single.saturating_sub(1);
    }

    /// The broker has taken a message of the spool.
    pub(super) fn taken(&mut self, ticket: &Ticket) {
        self.taken = self.taken.max(ticket.bytes);
        self.later.taken(ticket);
        if self.care.doubts.is_empty() {
            return;
        }
        if let Some(alone) = self.alone.as_ref().filter(|alone| key(&alone.ticket) == key(ticket)) {
            let before = self.care.doubts.len();
            self.care.doubts.retain(|d| !d.is(&alone.topic, alone.ticket.bytes));
            if self.care.doubts.len() < before {
                self.cleared.push(alone.clone());
            }
        }
    }

    /// The broker does not take it now; false: it never will, and is in the way of others.
    pub(super) fn refused(&mut self, ticket: &Ticket, now: Instant) -> bool {
        self.later.refused(ticket, now)
    }

    /// The broker takes no message of this size; gives one that it surely takes, or probably does.
    pub(super) fn is_too_large(&mut self, size: u32) -> u32 {
        let least = self.too_large.map_or(size, |before| before.min(size));
        self.too_large = Some(least);
        self.care.message_max = Some(least.saturating_sub(1));
        (least / 2).max(self.taken.min(least.saturating_sub(1)))
    }

    /// Whether something is due that the outlet has passed already: it has to begin anew, without what is on its way. `is_dry`: there is
    /// nothing else to be sent.
    pub(super) fn is_due(&self, now: Instant, is_dry: bool) -> bool {
        self.later.is_due(now, is_dry)
    }

    /// The outlet begins anew.
    pub(super) fn begins_anew(&mut self, on_their_way: impl Iterator<Item = Ticket>, now: Instant) {
        self.later.begins_anew(now);
        self.on_their_way = on_their_way.map(|ticket| key(&ticket)).collect();
    }

    /// When something has to be done next.
    pub(super) fn wake(&self, now: Instant, is_dry: bool, since: Option<Instant>) -> Option<Instant> {
        self.later.wake(now, is_dry).into_iter().chain(self.outlives(since).filter(|at| *at > now)).min()
    }

    /// What this connection has shown: so many messages are open, this one alone.
    pub(super) fn evidence(&mut self, open: usize, alone: Option<Ticket>) -> Evidence {
        let alone = self.alone.take().filter(|s| alone.is_some_and(|ticket| key(&s.ticket) == key(&ticket)));
        let cleared = std::mem::take(&mut self.cleared);
        Evidence { open, alone, taken: self.taken, cleared, too_large: self.too_large, was_born: false }
    }
}
