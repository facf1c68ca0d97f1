//! What is remembered of a broker from one connection to the next, and how long it is left alone between them.
//!
//! ```text
//!   MQTT 5 ──"unsupported protocol version", if `version` was not set──> 3.1.1, for good
//!     └────── hangs up instead of CONNACK ──> 3.1.1, for one try
//!
//!   retained birth and will ──Retain Available 0, or 0x9A──> neither is retained
//! ```

use super::MqttStats;
use super::poison::Poison;
use super::reason::{Code, Failure};
use super::wire::{Version, Wire};
use crate::config::plan::{Broker, MqttPlan};
use device_drivers::line::Backoff;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// First and longest wait after every broker was asked.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same where another client has our name: each of us ends the other's connection.
const RIVAL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// A connection that has held for so long was a good one: longer than any wait before it.
pub(super) const HELD: Duration = Duration::from_secs(10);
/// Then nobody else uses our name any more.
const RIVAL_HELD: Duration = Duration::from_secs(120);
/// After so many connections in a row that were hung up on at once there may be somebody who does; 3.1.1 has no way to say so.
pub const CUT_SHORT: u64 = 6;

/// What is remembered of a broker.
#[derive(Debug)]
pub(super) struct Manners {
    version: Version,
    falls_back: bool,
    /// It hung up on MQTT 5 without a word: one try is made with 3.1.1.
    tries_old: bool,
    /// What the connection is made with.
    spoken: Version,
    keeps: bool,
    /// What it does not take.
    pub(super) poison: Poison,
}

/// What is done after a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The same broker is asked at once, in another way.
    AtOnce,
    /// As always.
    Waits,
}

impl Manners {
    pub(super) fn new(plan: &MqttPlan) -> Manners {
        Manners {
            version: plan.version,
            falls_back: plan.falls_back,
            tries_old: false,
            spoken: plan.version,
            keeps: plan.retain,
            poison: Poison::default(),
        }
    }

    /// The version to speak, and whether anything may be retained.
    pub(super) fn hello(&mut self) -> (Version, bool) {
        self.spoken = if std::mem::take(&mut self.tries_old) { Version::V311 } else { self.version };
        (self.spoken, self.keeps)
    }

    /// The connection is there.
    pub(super) fn connected(&mut self, wire: &Wire, broker: &Broker) {
        if self.keeps && !wire.keeps {
            self.keeps_nothing(broker);
        }
        if self.spoken != self.version {
            tracing::info!("{broker} hangs up on MQTT 5, and takes 3.1.1: that is spoken");
        }
    }

    fn keeps_nothing(&mut self, broker: &Broker) {
        self.keeps = false;
        tracing::warn!(
            "{broker} keeps no messages: our birth and last will are not retained; who subscribes later does not hear of them"
        );
    }

    /// The connection has ended, or was not made.
    pub(super) fn ended(&mut self, why: &Failure, broker: &Broker) -> Step {
        let may_be_old = self.falls_back && self.spoken == Version::V5;
        match why {
            Failure::Refused(Code::NO_RETAIN, _) | Failure::Ended(Code::NO_RETAIN, _) if self.keeps => {
                self.keeps_nothing(broker);
                Step::AtOnce
            }
            Failure::Refused(Code::VERSION, _) if may_be_old => {
                tracing::info!("{broker} does not know MQTT 5: 3.1.1 is spoken from now on");
                self.version = Version::V311;
                Step::AtOnce
            }
            Failure::Unanswered(_) if may_be_old => {
                self.tries_old = true;
                Step::AtOnce
            }
            _ => Step::Waits,
        }
    }
}

/// What a connection was like that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) held: Duration,
    /// Nothing was on its way when it ended: no message can be the reason.
    pub(super) was_idle: bool,
}

/// How long brokers are left alone. Waits grow until a connection has held for a while, not until one was made: what takes connections and
/// ends them is asked ever less often.
#[derive(Debug)]
pub(super) struct Waits {
    usual: Backoff,
    rival: Backoff,
    has_rival: bool,
}

impl Waits {
    pub(super) fn new(seed: u64) -> Waits {
        let backoff = |(first, longest)| Backoff::new(first, longest, seed);
        Waits { usual: backoff(BACKOFF), rival: backoff(RIVAL), has_rival: false }
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        if self.has_rival { self.rival.wait() } else { self.usual.wait() }
    }

    /// A connection has ended; `None`: it was not made.
    pub(super) fn ended(&mut self, why: &Failure, past: Option<Past>, stats: &MqttStats) {
        let held = past.map_or(Duration::ZERO, |past| past.held);
        if held >= HELD {
            self.usual.reset();
            stats.cut_short.store(0, Relaxed);
        } else if past.is_some_and(|past| past.was_idle) && matches!(why, Failure::HungUp(_)) {
            stats.cut_short.fetch_add(1, Relaxed);
        }
        if held >= RIVAL_HELD {
            self.rival.reset();
        }
        let is_taken_over = matches!(why, Failure::Ended(Code::TAKEN_OVER, _));
        if is_taken_over {
            stats.taken_over.fetch_add(1, Relaxed);
        }
        self.has_rival = is_taken_over || stats.cut_short.load(Relaxed) >= CUT_SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_a_connection_has_held_and_a_rival_is_left_alone_for_longer() {
        let (mut waits, stats) = (Waits::new(1), MqttStats::default());
        let past = |held| Some(Past { held, was_idle: true });
        let short = past(Duration::from_secs(1));
        let lost = Failure::Other("a cable".into());
        for whole in [200, 400, 800, 1600, 3200, 5000, 5000] {
            waits.ended(&lost, short, &stats);
            let wait = waits.next().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        waits.ended(&lost, past(HELD), &stats);
        assert!(waits.next() <= BACKOFF.0, "it has held");

        let taken = Failure::Ended(Code::TAKEN_OVER, None);
        for whole in [5, 10, 20, 40, 60, 60] {
            waits.ended(&taken, past(HELD * 2), &stats);
            let wait = waits.next().as_secs_f64();
            assert!((f64::from(whole) / 2.0..=f64::from(whole)).contains(&wait), "{wait} of {whole}");
        }
        assert_eq!(stats.taken_over.load(Relaxed), 6);
        waits.ended(&lost, past(RIVAL_HELD), &stats);
        assert!(waits.next() <= BACKOFF.0);
        waits.ended(&taken, short, &stats);
        assert!(waits.next() <= RIVAL.0, "begins anew");
    }

    #[test]
    fn who_is_hung_up_on_again_and_again_may_have_a_rival_too() {
        let (mut waits, stats) = (Waits::new(1), MqttStats::default());
        let hung_up = Failure::HungUp("the broker hung up".into());
        let past = |held, was_idle| Some(Past { held, was_idle });
        for _ in 0..CUT_SHORT {
            assert!(waits.next() <= BACKOFF.1);
            waits.ended(&hung_up, past(Duration::from_secs(3), false), &stats);
            waits.ended(&hung_up, past(Duration::from_secs(3), true), &stats);
        }
        assert!(waits.next() >= RIVAL.0 / 2);
        waits.ended(&hung_up, past(HELD, true), &stats);
        assert!(waits.next() <= BACKOFF.1);
    }
}
