//! What has changed: remembered for those who ask, told to those who listen.

use super::row::Row;
use super::{AlarmChange, AlarmNews};
use crate::board::stamp;
use device_drivers::value::wall_clock_ms;
use std::collections::VecDeque;
use tokio::sync::broadcast;

/// Changes remembered.
const HISTORY: usize = 1000;
/// Changes that may wait for whoever listens: a whole plant that goes silent at once.
const NEWS: usize = 4096;

/// What has changed, for those who ask and those who listen.
pub(super) struct Book {
    pub(super) history: VecDeque<AlarmChange>,
    pub(super) news: broadcast::Sender<AlarmNews>,
}

impl Default for Book {
    fn default() -> Book {
        Book { history: VecDeque::new(), news: broadcast::channel(NEWS).0 }
    }
}

impl Book {
    pub(super) fn note(
        &mut self,
        row: &Row,
        (subject, detail): (&str, &str),
        change: &'static str,
        by: Option<String>,
    ) {
        let alarm = row.id;
        match &by {
            None => tracing::info!(target: "alarm", alarm, subject, "{change}"),
            Some(by) => tracing::info!(target: "alarm", alarm, subject, by, "{change}"),
        }
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        let change = AlarmChange { time: stamp(wall_clock_ms()), alarm, subject: subject.into(), change, by };
        self.history.push_back(change.clone());
        let (priority, means, action) = (row.priority, row.means, row.action);
        let _ = self.news.send(AlarmNews { change, priority, detail: detail.into(), means, action });
    }
}
