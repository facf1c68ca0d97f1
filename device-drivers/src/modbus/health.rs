//! The health of a unit, keyed by line and unit: who answers is asked, who does not is asked less and less.
//!
//! ```text
//!            answers                    two misses in a row
//!   Unknown ────────> Healthy ─────────────────────────────> Demoted { probe after 1 s, 2 s, 4 s .. 30 s }
//!                        ^────────────── answers ────────────────┘
//! ```
//!
//! A unit that is later than usual gives way: after its turn (eight of its usual reply times, a quarter of the time limit at most, but never
//! less than two) the next unit is asked, and its reply is still taken when it comes, by transaction id, until the time limit. So a dead
//! unit costs its neighbours a turn now and then, and not a time limit every cycle; and one that is slow by nature is never asked beside.

use crate::line::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// Misses in a row that demote.
const MISSES: u8 = 2;
/// First and longest wait between probes of a demoted unit.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Turn of a unit that is being probed: it has used up its credit.
const PROBE_TURN: Duration = Duration::from_millis(20);
/// Shortest turn: below it the noise of a network decides.
const TURN_MIN: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) id: u8,
    /// What comes while its request is open is its reply.
    pub(super) takes_foreign_replies: bool,
    /// It has answered on this link.
    known: bool,
    /// Its being demoted has been told on this link.
    told: bool,
    misses: u8,
    last_miss: Option<Instant>,
    probe_at: Option<Instant>,
    wait: Backoff,
    /// Not asked before: a late reply would be taken for the next.
    quiet: Option<Instant>,
    /// Usual reply time, smoothed.
    usual: Option<Duration>,
}

impl Unit {
    pub(super) fn new(id: u8, seed: u64) -> Unit {
        Unit {
            id,
            takes_foreign_replies: false,
            known: false,
            told: false,
            misses: 0,
            last_miss: None,
            probe_at: None,
            wait: Backoff::new(PROBE.0, PROBE.1, seed),
            quiet: None,
            usual: None,
        }
    }

    pub(super) fn is_demoted(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Whether it may be asked now.
    pub(super) fn may_be_asked(&self, now: Instant) -> bool {
        self.probe_at.is_none_or(|at| at <= now)
    }

    /// Its time limit: a second try of a quick unit gets half, so that a dead peer is noticed in one and a half.
    pub(super) fn limit(&self, timeout: Duration) -> Duration {
        let quick = self.usual.is_some_and(|usual| usual * 4 < timeout);
        if self.misses == 1 && quick { timeout / 2 } else { timeout }
    }

    /// It is not asked until then.
    pub(super) fn keep_quiet(&mut self, until: Instant) {
        self.quiet = Some(until);
    }

    pub(super) fn quiet_until(&self, now: Instant) -> Option<Instant> {
        self.quiet.filter(|until| *until > now)
    }

    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_until(now).is_some()
    }

    /// Whether it has answered on this link.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether it has answered on this link, its last request too.
    pub(super) fn is_fine(&self) -> bool {
        self.known && self.misses == 0
    }

    /// Whether it has left a request unanswered, and nothing has been heard of it since.
    pub(super) fn is_in_arrears(&self) -> bool {
        self.misses > 0 || self.is_demoted()
    }

    /// Its usual reply time, once it has one.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// How long it keeps the others waiting. Where they can afford it (`patient`) one that nothing is known of gets all its time; else as
    /// much as the slowest of them (`slowest`) would: they may be the same box.
    pub(super) fn turn(&self, timeout: Duration, patient: bool, slowest: Option<Duration>) -> Duration {
        match self.usual {
            _ if patient && (self.is_demoted() || self.usual.is_none()) => timeout,
            _ if self.is_demoted() => PROBE_TURN.min(timeout),
            Some(usual) => (usual * 8).clamp(TURN_MIN, (timeout / 4).max(usual * 2).max(TURN_MIN)),
            None => (timeout / 4).max(slowest.unwrap_or_default() * 2),
        }
    }

    /// It has answered after `took`; true when that is news.
    pub(super) fn answered(&mut self, took: Duration) -> bool {
        (self.misses, self.told) = (0, false);
        self.wait.reset();
        self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        let news = !self.known || self.probe_at.is_some();
        (self.known, self.probe_at) = (true, None);
        news
    }

    /// It has not answered what was sent at `sent`; true when that demotes it. Several requests that were on their way at
    /// once are one miss.
    pub(super) fn missed(&mut self, sent: Instant, now: Instant) -> bool {
        if self.last_miss.is_some_and(|before| sent < before) {
            return false;
        }
        self.last_miss = Some(now);
        self.misses = self.misses.saturating_add(1);
        if self.misses < MISSES {
            return false;
        }
        let first = !std::mem::replace(&mut self.told, true);
        self.probe_at = Some(now + self.wait.wait());
        first
    }

    /// The link was made anew: it gets another chance soon.
    pub(super) fn link_is_new(&mut self, now: Instant) {
        (self.misses, self.known, self.told) = (0, false, false);
        self.quiet = None;
        if self.probe_at.is_some() {
            (self.probe_at, self.misses) = (Some(now), MISSES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_does_not_answer_is_asked_ever_less_often() {
        let mut unit = Unit::new(1, 7);
        let start = Instant::now();
        assert!(!unit.missed(start, start), "once may happen to anyone");
        assert!(unit.may_be_asked(start));
        assert!(unit.missed(start, start), "twice demotes");
        assert!(!unit.may_be_asked(start));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let asked = now;
            while !unit.may_be_asked(now) {
                now += Duration::from_millis(10);
            }
            waits.push((now - asked).as_millis());
            assert!(!unit.missed(now, now), "it is demoted already");
        }
        assert!((500..=1010).contains(&waits[0]), "{waits:?}");
        assert!(waits[7] >= 15_000 && waits[7] <= 30_010, "{waits:?}");
        assert!(unit.answered(Duration::from_millis(1)), "and is itself again with the first answer");
        assert!(unit.may_be_asked(now) && !unit.is_demoted());
    }

    #[test]
    fn requests_that_were_on_their_way_at_once_are_one_miss() {
        let (mut unit, sent) = (Unit::new(1, 7), Instant::now());
        let later = sent + Duration::from_secs(1);
        for _ in 0..8 {
            assert!(!unit.missed(sent, later));
        }
        assert!(!unit.is_demoted());
    }

    #[test]
    fn a_turn_follows_the_usual_reply_time() {
        let mut unit = Unit::new(1, 7);
        let timeout = Duration::from_secs(1);
        assert_eq!(unit.turn(timeout, false, None), timeout / 4, "nothing is known yet");
        assert_eq!(unit.turn(timeout, true, None), timeout, "and nobody waits");
        assert_eq!(unit.turn(timeout, false, Some(timeout / 2)), timeout, "as slow as another");
        unit.answered(Duration::from_micros(200));
        assert_eq!(unit.turn(timeout, true, None), TURN_MIN);
        for _ in 0..50 {
            unit.answered(Duration::from_millis(20));
        }
        assert!(unit.turn(timeout, false, None) > Duration::from_millis(150), "a slow unit is given its time");
        for _ in 0..50 {
            unit.answered(Duration::from_millis(600));
        }
        assert!(unit.turn(timeout, false, None) > timeout, "the slowest too: nobody is asked beside it");
    }
}
