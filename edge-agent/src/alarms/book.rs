//! What has changed: remembered for those who ask, told to those who listen.

use super::row::Row;
use super::table::TABLE;
use super::{AlarmChange, AlarmNews};
use crate::board::stamp;
use crate::store::{Keep, facts};
use std::collections::VecDeque;
use tokio::sync::broadcast;

/// Changes remembered.
const HISTORY: usize = 1000;
/// What may happen to an alarm.
const CHANGES: [&str; 5] = ["raised", "cleared", "acknowledged", "shelved", "unshelved"];
/// Changes that may wait for whoever listens: a whole plant that goes silent at once.
const NEWS: usize = 4096;

/// What has changed, for those who ask and those who listen.
pub(super) struct Book {
    pub(super) history: VecDeque<AlarmChange>,
    /// When each of these was, milliseconds since 1970 UTC.
    times: VecDeque<u64>,
    pub(super) news: broadcast::Sender<AlarmNews>,
    keep: Keep,
}

impl Default for Book {
    fn default() -> Book {
        Book::new(Keep::default(), &VecDeque::new())
    }
}

impl Book {
    /// With what earlier runs have left, the oldest first.
    pub(super) fn new(keep: Keep, left: &VecDeque<(u64, facts::Alarm)>) -> Book {
        let (history, times) = (VecDeque::new(), VecDeque::new());
        let mut book = Book { history, times, news: broadcast::channel(NEWS).0, keep };
        for (ms, said) in left {
            let change = CHANGES.into_iter().find(|c| *c == said.change);
            if let (Some(row), Some(change)) = (TABLE.iter().find(|row| row.id == said.alarm), change) {
                book.remember(
                    *ms,
                    AlarmChange {
                        time: stamp(*ms),
                        alarm: row.id,
                        subject: said.subject.clone(),
                        change,
                        by: said.by.clone(),
                    },
                );
            }
        }
        book
    }

    /// Whether a change that was written down then is still remembered.
    pub(super) fn has(&self, at_ms: u64) -> bool {
        self.times.front().is_some_and(|oldest| at_ms >= *oldest)
    }

    fn remember(&mut self, ms: u64, change: AlarmChange) {
        if self.history.len() >= HISTORY {
            self.history.pop_front();
            self.times.pop_front();
        }
        self.history.push_back(change);
        self.times.push_back(ms);
    }

    /// Notes a change at `now_ms`, milliseconds since 1970 UTC: it is remembered, written down, and told. `said` says of whom, and by whom.
    pub(super) fn note(&mut self, row: &Row, change: &'static str, said: facts::Alarm, now_ms: u64) {
        let (alarm, subject) = (row.id, said.subject.as_str());
        match &said.by {
            None => tracing::info!(target: "alarm", alarm, subject, "{change}"),
            Some(by) => tracing::info!(target: "alarm", alarm, subject, by, "{change}"),
        }
        let told = AlarmChange { time: stamp(now_ms), alarm, subject: subject.into(), change, by: said.by.clone() };
        self.remember(now_ms, told.clone());
        let (priority, means, action, detail) = (row.priority, row.means, row.action, said.detail.clone());
        self.keep.note_at(now_ms, facts::Alarm { alarm: alarm.into(), change: change.into(), ..said });
        let _ = self.news.send(AlarmNews { change: told, priority, detail, means, action });
    }
}
