//! What the rows look at, gathered twice a second.

use super::desk::AlarmDesk;
use super::schedule::{Polls, Schedules};
use crate::access::{Access, AccessPlan};
use crate::board::Board;
use crate::field::LineStats;
use crate::metrics::{RobotSeen, Stages};
use crate::state::StateWatch;
use crate::telemetry::watchdog::Watchdog;
use control_core::interlock::Hold;
use device_drivers::LinkState;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often the rows are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long something that happened counts as lately.
const LATELY: Duration = Duration::from_secs(300);

/// What the rows look at.
pub struct Watch<'a> {
    pub(crate) stages: &'a Stages,
    pub(crate) access: &'a AccessPlan,
    /// Why nobody can sign in, if the users cannot be read.
    pub(crate) no_users: Option<String>,
    /// Wrong passwords within five minutes.
    pub(crate) missed: u32,
    /// Whether the audit record cannot be written.
    pub(crate) audit_fails: bool,
    pub(crate) state: &'a StateWatch,
    pub(crate) alive: bool,
    pub(crate) publishes: bool,
    pub(crate) wants_realtime: bool,
    pub(crate) up_for: Duration,
    pub(crate) held: Vec<(String, Hold)>,
    pub(crate) twice: Vec<(u32, String)>,
    /// Parts of the floor that are not acted upon, and for how long.
    pub(crate) unread: Vec<(String, Duration)>,
    /// What of the floor could not be proven.
    pub(crate) unproven: &'a [String],
    /// Mobile robots: name, jammed, charge of the battery where it is low.
    pub(crate) robots: Vec<RobotSeen>,
    /// Load positions at which something waits to which no robot can come.
    pub(crate) nobody_comes: Vec<String>,
    pub(crate) lately: Lately,
    pub(crate) refused: Option<String>,
    /// Lines that do not keep their schedule, and how much is asked of them.
    pub(crate) behind: Vec<(String, String)>,
}

/// What has happened in the last five minutes.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    pub(crate) orders_failed: Option<u64>,
    /// Messages lost, for each reason there was.
    pub(crate) lost: Vec<(&'static str, u64)>,
    /// Connections to the broker that another client of our name has ended.
    pub(crate) taken_over: Option<u64>,
}

/// A counter and when it last rose.
#[derive(Default)]
pub(super) struct Since {
    known: Option<u64>,
    before: u64,
    rose: Option<Instant>,
}

impl Since {
    pub(super) fn look(&mut self, value: u64, now: Instant) -> Option<u64> {
        self.look_from(value, value, now)
    }

    /// The same of a counter that was `first` when the gateway started: what has happened before the first look counts too.
    pub(super) fn look_from(&mut self, first: u64, value: u64, now: Instant) -> Option<u64> {
        let known = *self.known.get_or_insert(first);
        if value > known {
            if self.rose.is_none() {
                self.before = known;
            }
            self.rose = Some(now);
        }
        self.known = Some(value);
        if self.rose.is_some_and(|at| now.duration_since(at) > LATELY) {
            self.rose = None;
        }
        self.rose.map(|_| value - self.before)
    }
}

/// What the rows need beside the stages.
pub struct AlarmWatcher {
    /// The desk.
    pub desk: Arc<AlarmDesk>,
    /// Counters.
    pub stages: Arc<Stages>,
    /// What the events add up to.
    pub board: Arc<Board>,
    /// Who may do what.
    pub people: Arc<Access>,
    /// What is wrong with the state folder.
    pub state: Arc<StateWatch>,
    /// What of the floor could not be proven, and is driven on all the same.
    pub unproven: Vec<String>,
    /// Whether there is a broker to publish to.
    pub publishes: bool,
    /// Whether real time was asked for.
    pub wants_realtime: bool,
}

impl AlarmWatcher {
    /// Looks at the rows for as long as it lives.
    pub async fn run(self, alive: impl Fn() -> bool) {
        let start = Instant::now();
        let (mut delivery, mut schedules) = (Watchdog::default(), Schedules::default());
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            delivery.look(&self.stages.spool.stats, &self.stages.mqtt, now);
            let watch = Watch {
                stages: &self.stages,
                access: self.people.plan(),
                no_users: self.people.trouble(),
                missed: self.people.missed_lately(),
                audit_fails: self.people.audit.is_failing(),
                state: &self.state,
                alive: alive(),
                publishes: self.publishes,
                wants_realtime: self.wants_realtime,
                up_for: now.duration_since(start),
                held: self.board.held(),
                twice: self.board.twice(),
                unread: self.board.unread().into_iter().map(|(name, at)| (name, now.duration_since(at))).collect(),
                unproven: &self.unproven,
                robots: self.stages.robots.seen(),
                nobody_comes: self.stages.robots.nobody_comes(),
                lately: self.desk.lately(&self.stages, now),
                refused: self.desk.refused(),
                behind: self.behind(&mut schedules, now),
            };
            self.desk.look(&watch, now);
        }
    }

    fn behind(&self, schedules: &mut Schedules, now: Instant) -> Vec<(String, String)> {
        let all = self.stages.lines.all();
        let polls = |line: &LineStats| Polls {
            is_up: line.state() == LinkState::Up,
            made: line.polls.load(Relaxed),
            missed: line.missed(),
        };
        let lines: Vec<(&str, Polls)> = all.iter().map(|(name, line)| (&**name, polls(line))).collect();
        schedules.look(&lines, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rose_lately_is_counted_from_its_first_rise_and_forgotten_after_a_while() {
        let (mut since, t0) = (Since::default(), Instant::now());
        assert_eq!(since.look(7, t0), None, "what was before the start is not lately");
        assert_eq!(since.look(9, t0), Some(2));
        assert_eq!(since.look(10, t0 + LATELY / 2), Some(3));
        assert_eq!(since.look(10, t0 + LATELY * 2), None);
        assert_eq!(Since::default().look_from(0, 3, t0), Some(3), "what was found damaged at the start is lately");
    }
}
