//! Where each alarm stands: the ways of ISA-18.2 between what a row says and what people do.

use super::book::Book;
use super::row::Row;
use super::table::TABLE;
use super::watch::{Lately, Since, Watch};
use super::{AlarmChange, AlarmError, AlarmNews, AlarmState, AlarmView};
use crate::board::stamp;
use crate::metrics::Stages;
use crate::store::{Fact, Keep, Recalled, Stands, facts};
use device_drivers::said::{self, SAID_MAX};
use device_drivers::value::wall_clock_ms;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Subjects of one row; what comes beyond is one more that says how many.
const SUBJECTS_MAX: usize = 100;
/// Longest time on the shelf: a shift. What has to rest longer is mended or taken out.
pub const SHELF_MAX: Duration = Duration::from_secs(8 * 3600);

/// What an earlier run has left is not cleared before lines and broker have had the time to come up.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
struct Shelf {
    until: Instant,
    until_ms: u64,
    by: String,
    reason: String,
}

/// Ways to lose a message.
const REASONS: usize = crate::telemetry::spool::Reason::NAMES.len();

#[derive(Clone, Debug)]
struct Alarm {
    active: bool,
    /// Since when the condition differs from `active`.
    turning: Option<Instant>,
    acknowledged: Option<String>,
    detail: String,
    since_ms: u64,
    shelf: Option<Shelf>,
    /// Has been raised at least once; before that it is only on its way.
    raised: bool,
}

type Key = (usize, String);

#[derive(Default)]
struct Inner {
    alarms: BTreeMap<Key, Alarm>,
    book: Book,
    orders_failed: Since,
    lost: [Since; REASONS],
    taken_over: Since,
}

/// The alarm desk.
#[derive(Default)]
pub struct AlarmDesk {
    inner: Mutex<Inner>,
    version: AtomicU64,
    refused: Mutex<Option<String>>,
}

/// What is said of a change.
fn said(subject: &str, detail: &str, by: Option<&str>) -> facts::Alarm {
    facts::Alarm { subject: subject.into(), detail: detail.into(), by: by.map(String::from), ..facts::Alarm::default() }
}

impl Alarm {
    /// An alarm as earlier runs have left it. What is not so any more is cleared, but not before everything has been looked at.
    fn recall(changes: &[(u64, facts::Alarm)], now: Instant, now_ms: u64) -> Alarm {
        let mut alarm = Alarm {
            active: false,
            turning: Some(now + SETTLED_AFTER),
            acknowledged: None,
            detail: String::new(),
            since_ms: 0,
            shelf: None,
            raised: false,
        };
        for (ms, said) in changes {
            let by = || said.by.clone().unwrap_or_default();
            match &*said.change {
                "raised" => (alarm.active, alarm.raised, alarm.acknowledged, alarm.since_ms) = (true, true, None, *ms),
                "cleared" => alarm.active = false,
                "acknowledged" => alarm.acknowledged = Some(by()),
                "shelved" => {
                    let until_ms = said.until_ms.unwrap_or(now_ms);
                    let until = now + Duration::from_millis(until_ms.saturating_sub(now_ms)).min(SHELF_MAX);
                    alarm.shelf =
                        Some(Shelf { until, until_ms, by: by(), reason: said.reason.clone().unwrap_or_default() });
                }
                "unshelved" => alarm.shelf = None,
                _ => {}
            }
            alarm.detail.clone_from(&said.detail);
        }
        alarm
    }

    /// Normal again: over and known, or never raised at all.
    fn is_over(&self) -> bool {
        !(self.active || self.shelf.is_some() || (self.raised && self.acknowledged.is_none()))
    }
}

impl Stands for AlarmDesk {
    fn stands(&self, at_ms: u64, fact: &Fact) -> bool {
        let Fact::Alarm(said) = fact else { return false };
        let Some(n) = TABLE.iter().position(|row| row.id == said.alarm) else { return true }; // of another version
        let inner = self.lock();
        inner.book.has(at_ms) || inner.alarms.get(&(n, said.subject.clone())).is_some_and(|alarm| !alarm.is_over())
    }
}

impl AlarmDesk {
    /// A desk that writes down what changes, and knows what earlier runs have left.
    pub fn new(keep: Keep, left: &Recalled) -> AlarmDesk {
        let (now, now_ms, mut alarms) = (Instant::now(), wall_clock_ms(), BTreeMap::new());
        for ((id, subject), changes) in &left.standing {
            let alarm = Alarm::recall(changes, now, now_ms);
            if let Some(n) = TABLE.iter().position(|row| row.id == id).filter(|_| !alarm.is_over()) {
                alarms.insert((n, subject.clone()), alarm);
            }
        }
        let inner = Inner { alarms, book: Book::new(keep, &left.alarms), ..Inner::default() };
        AlarmDesk { inner: Mutex::new(inner), ..AlarmDesk::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rises with every change: who has seen this number has seen everything.
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// A reload was refused, or (`None`) went well.
    pub fn configuration_refused(&self, why: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// What has been refused.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has happened lately.
    pub(crate) fn lately(&self, stages: &Stages, now: Instant) -> Lately {
        let mut inner = self.lock();
        let failed = stages.control.counters.get(3).map_or(0, |c| c.load(Relaxed));
        let orders_failed = inner.orders_failed.look(failed, now);
        let mut lost = Vec::new();
        for ((reason, messages, _), since) in stages.spool.stats.lost.by_reason().into_iter().zip(&mut inner.lost) {
            lost.extend(since.look_from(0, messages, now).map(|count| (reason, count)));
        }
        let taken_over = inner.taken_over.look(stages.mqtt.taken_over.load(Relaxed), now);
        Lately { orders_failed, lost, taken_over }
    }

    /// Looks at every row.
    pub fn look(&self, watch: &Watch<'_>, now: Instant) {
        for (n, row) in TABLE.iter().enumerate() {
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            let mut beyond = 0;
            (row.when)(watch, &mut |subject, detail| {
                let detail = if detail.len() > SAID_MAX { said::said(&detail).to_string() } else { detail };
                if seen.len() < SUBJECTS_MAX {
                    seen.insert(subject.into(), detail);
                } else {
                    beyond += 1;
                }
            });
            if beyond > 0 {
                seen.insert("others".into(), format!("{beyond} more"));
            }
            self.take(n, row, seen, now);
        }
        self.unshelve_what_is_due(now);
    }

    /// Compares what a row says now with what is known.
    fn take(&self, n: usize, row: &Row, mut seen: BTreeMap<String, String>, now: Instant) {
        let mut inner = self.lock();
        let Inner { alarms, book, .. } = &mut *inner;
        let mut changes = 0;
        let wall = wall_clock_ms();
        let mut told = |subject: &str, detail: &str, change: &'static str| {
            book.note(row, change, said(subject, detail, None), wall);
            changes += 1;
        };
        let known = alarms.range_mut((n, String::new())..(n + 1, String::new()));
        for ((_, subject), alarm) in known {
            let detail = seen.remove(subject);
            let holds = detail.is_some();
            if let Some(detail) = detail {
                alarm.detail = detail;
            }
            if holds == alarm.active {
                alarm.turning = None;
            } else if now.duration_since(*alarm.turning.get_or_insert(now)) >= row.delay {
                (alarm.active, alarm.turning) = (holds, None);
                if holds {
                    (alarm.acknowledged, alarm.since_ms, alarm.raised) = (None, wall, true);
                    told(subject, &alarm.detail, "raised");
                } else {
                    told(subject, &alarm.detail, "cleared");
                }
            }
        }
        for (subject, detail) in seen {
            let active = row.delay.is_zero();
            if active {
                told(&subject, &detail, "raised");
            }
            let turning = (!active).then_some(now);
            let alarm =
                Alarm { active, turning, acknowledged: None, detail, since_ms: wall, shelf: None, raised: active };
            alarms.insert((n, subject), alarm);
        }
        alarms.retain(|(m, _), a| *m != n || !a.is_over() || a.turning.is_some());
        self.version.fetch_add(changes, Relaxed);
    }

    /// A row says this of these subjects, and has for long enough.
    #[cfg(test)]
    pub(crate) fn say(&self, row: &str, subjects: &[&str], now: Instant) {
        let Some((n, row)) = TABLE.iter().enumerate().find(|(_, r)| r.id == row) else { return };
        let seen: BTreeMap<_, _> = subjects.iter().map(|s| ((*s).to_string(), "so it is".to_string())).collect();
        self.take(n, row, seen.clone(), now);
        self.take(n, row, seen, now + row.delay);
    }

    fn unshelve_what_is_due(&self, now: Instant) {
        let mut inner = self.lock();
        let Inner { alarms, book, .. } = &mut *inner;
        for ((n, subject), alarm) in alarms.iter_mut() {
            if let Some(row) = TABLE.get(*n).filter(|_| alarm.shelf.as_ref().is_some_and(|s| now >= s.until)) {
                alarm.shelf = None;
                book.note(row, "unshelved", said(subject, &alarm.detail, None), wall_clock_ms());
                self.version.fetch_add(1, Relaxed);
            }
        }
    }

    /// Everything that is not normal: the most urgent first, then the newest.
    pub fn list(&self) -> Vec<AlarmView> {
        let inner = self.lock();
        let mut all: Vec<AlarmView> = inner.alarms.iter().filter_map(|(key, alarm)| view(key, alarm)).collect();
        all.sort_by(|a, b| a.priority.cmp(&b.priority).then_with(|| b.since.cmp(&a.since)));
        all
    }

    /// The newest changes, newest first.
    pub fn history(&self, limit: usize) -> Vec<AlarmChange> {
        self.lock().book.history.iter().rev().take(limit).cloned().collect()
    }

    /// Every change from now on.
    pub fn news(&self) -> broadcast::Receiver<AlarmNews> {
        self.lock().book.news.subscribe()
    }

    /// Every alarm that is raised and not shelved: its row, and what it is about.
    pub fn active(&self) -> Vec<(&'static str, String)> {
        let inner = self.lock();
        let raised = inner.alarms.iter().filter(|(_, a)| a.active && a.shelf.is_none());
        raised.filter_map(|((n, subject), _)| Some((TABLE.get(*n)?.id, subject.clone()))).collect()
    }

    /// How many are active, unacknowledged, shelved, by row.
    pub fn counts(&self) -> Vec<(&'static str, [u64; 3])> {
        let inner = self.lock();
        let mut counts: Vec<(&'static str, [u64; 3])> = TABLE.iter().map(|r| (r.id, [0; 3])).collect();
        for ((n, _), alarm) in &inner.alarms {
            if let (Some((_, slots)), Some(view)) = (counts.get_mut(*n), state(alarm)) {
                let shelved = view == AlarmState::Shelved;
                slots[0] += u64::from(alarm.active && !shelved);
                slots[1] += u64::from(matches!(view, AlarmState::Unacknowledged | AlarmState::Returned));
                slots[2] += u64::from(shelved);
            }
        }
        counts
    }

    /// Somebody has seen it.
    pub fn acknowledge(&self, alarm: &str, subject: &str, by: &str) -> Result<(), AlarmError> {
        self.change(alarm, "acknowledged", said(subject, "", Some(by)), |a| {
            a.acknowledged = Some(by.into());
            Ok(())
        })
    }

    /// Somebody puts it aside for a while, for a reason.
    pub fn shelve(&self, alarm: &str, subject: &str, by: &str, time: Duration, why: &str) -> Result<(), AlarmError> {
        if time.is_zero() || time > SHELF_MAX {
            return Err(AlarmError::Invalid(format!(
                "an alarm is shelved for 1 s to {} h",
                SHELF_MAX.as_secs() / 3600
            )));
        }
        if why.trim().is_empty() || why.len() > 200 {
            return Err(AlarmError::Invalid("say why, in 1 to 200 characters".into()));
        }
        let until_ms = wall_clock_ms() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (until, reason) = (Instant::now() + time, why.trim().to_string());
        let told =
            facts::Alarm { until_ms: Some(until_ms), reason: Some(reason.clone()), ..said(subject, "", Some(by)) };
        let shelf = Shelf { until, until_ms, by: by.into(), reason };
        self.change(alarm, "shelved", told, |a| {
            a.shelf = Some(shelf);
            Ok(())
        })
    }

    /// Takes it off the shelf.
    pub fn unshelve(&self, alarm: &str, subject: &str, by: &str) -> Result<(), AlarmError> {
        self.change(alarm, "unshelved", said(subject, "", Some(by)), |a| {
            a.shelf.take().map(|_| ()).ok_or(AlarmError::NotRaised)
        })
    }

    fn change(
        &self,
        alarm: &str,
        what: &'static str,
        told: facts::Alarm,
        change: impl FnOnce(&mut Alarm) -> Result<(), AlarmError>,
    ) -> Result<(), AlarmError> {
        let (n, row) = TABLE.iter().enumerate().find(|(_, r)| r.id == alarm).ok_or(AlarmError::NotRaised)?;
        let mut inner = self.lock();
        let Inner { alarms, book, .. } = &mut *inner;
        let key = (n, told.subject.clone());
        let found = alarms.get_mut(&key).filter(|a| a.raised).ok_or(AlarmError::NotRaised)?;
        change(found)?;
        book.note(row, what, facts::Alarm { detail: found.detail.clone(), ..told }, wall_clock_ms());
        self.version.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Where an alarm stands; `None` when it is normal, or only on its way.
fn state(alarm: &Alarm) -> Option<AlarmState> {
    match (alarm.raised, &alarm.shelf, alarm.active, &alarm.acknowledged) {
        (false, ..) => None,
        (_, Some(_), ..) => Some(AlarmState::Shelved),
        (_, None, true, None) => Some(AlarmState::Unacknowledged),
        (_, None, true, Some(_)) => Some(AlarmState::Acknowledged),
        (_, None, false, None) => Some(AlarmState::Returned),
        (_, None, false, Some(_)) => None,
    }
}

fn view((n, subject): &Key, alarm: &Alarm) -> Option<AlarmView> {
    let (row, state) = (TABLE.get(*n)?, state(alarm)?);
    let shelf = alarm.shelf.as_ref();
    Some(AlarmView {
        alarm: row.id,
        subject: subject.clone(),
        priority: row.priority,
        state,
        active: alarm.active,
        detail: alarm.detail.clone(),
        means: row.means,
        action: row.action,
        since: stamp(alarm.since_ms),
        since_ms: alarm.since_ms,
        by: shelf.map(|s| s.by.clone()).or_else(|| alarm.acknowledged.clone()),
        until: shelf.map(|s| stamp(s.until_ms)),
        reason: shelf.map(|s| s.reason.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::row::Priority;
    use super::*;

    const ROW: Row = Row {
        id: "line-down",
        priority: Priority::High,
        means: "",
        action: "",
        delay: Duration::from_secs(5),
        when: |_, _| {},
    };

    fn n() -> usize {
        TABLE.iter().position(|r| r.id == ROW.id).unwrap()
    }

    fn take(desk: &AlarmDesk, at: Instant, subjects: &[&str]) {
        let seen = subjects.iter().map(|s| ((*s).to_string(), "no link".to_string())).collect();
        desk.take(n(), &ROW, seen, at);
    }

    fn states(desk: &AlarmDesk) -> Vec<(String, AlarmState)> {
        desk.list().into_iter().map(|v| (v.subject, v.state)).collect()
    }

    #[test]
    fn an_alarm_goes_the_ways_of_isa_18_2_and_no_others() {
        let (desk, t0) = (AlarmDesk::default(), Instant::now());
        let s = Duration::from_secs;
        take(&desk, t0, &["rack"]);
        assert_eq!(states(&desk), [], "not before its delay");
        assert_eq!(desk.acknowledge(ROW.id, "rack", "ada"), Err(AlarmError::NotRaised));
        take(&desk, t0 + s(2), &[]);
        take(&desk, t0 + s(6), &["rack"]);
        assert_eq!(states(&desk), [], "what came and went has to begin again");
        take(&desk, t0 + s(11), &["rack"]);
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Unacknowledged)]);

        // Over before anybody has seen it: it stays until somebody has.
        take(&desk, t0 + s(12), &[]);
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Unacknowledged)], "not over before its delay");
        take(&desk, t0 + s(17), &[]);
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Returned)]);
        // And when it comes back, it is new.
        take(&desk, t0 + s(18), &["rack"]);
        take(&desk, t0 + s(23), &["rack"]);
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Unacknowledged)]);

        desk.acknowledge(ROW.id, "rack", "ada").unwrap();
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Acknowledged)]);
        take(&desk, t0 + s(24), &[]);
        take(&desk, t0 + s(29), &[]);
        assert_eq!(states(&desk), []);
        let changes: Vec<_> = desk.history(10).into_iter().rev().map(|c| c.change).collect();
        assert_eq!(changes, ["raised", "cleared", "raised", "acknowledged", "cleared"]);
        assert!(desk.lock().alarms.is_empty(), "nothing is kept of what is normal");
    }

    #[test]
    fn what_is_shelved_is_out_of_the_way_and_comes_back_by_itself() {
        let (desk, t0) = (AlarmDesk::default(), Instant::now());
        take(&desk, t0, &["rack"]);
        take(&desk, t0 + Duration::from_secs(5), &["rack"]);
        let hour = Duration::from_secs(3600);
        assert!(matches!(desk.shelve(ROW.id, "rack", "ada", hour, " "), Err(AlarmError::Invalid(_))));
        assert!(matches!(desk.shelve(ROW.id, "rack", "ada", hour * 9, "repair"), Err(AlarmError::Invalid(_))));
        desk.shelve(ROW.id, "rack", "ada", hour, "repair").unwrap();
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Shelved)]);
        assert_eq!(desk.counts()[n()].1, [0, 0, 1]);
        desk.unshelve_what_is_due(Instant::now() + hour - Duration::from_secs(5));
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Shelved)]);
        desk.unshelve_what_is_due(Instant::now() + hour);
        assert_eq!(states(&desk), [("rack".into(), AlarmState::Unacknowledged)]);
        assert_eq!(desk.counts()[n()].1, [1, 1, 0]);
    }
}
