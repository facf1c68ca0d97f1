//! What has become of values: the one place that counts it.
//!
//! ```text
//!   produced = delivered + waiting + lost            lost: by its reason, each told at the loss topic
//! ```

use super::loss::{Loss, Reason};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Messages and values of one reason.
#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    values: AtomicU64,
}

/// What was lost, by reason. Rises only.
#[derive(Debug, Default)]
pub struct Lost([Count; Reason::NAMES.len()]);

impl Lost {
    pub(super) fn add(&self, loss: &Loss) {
        if let Some(count) = self.0.get(loss.reason.index()) {
            count.messages.fetch_add(loss.records, Relaxed);
            count.values.fetch_add(loss.values, Relaxed);
        }
    }

    /// Values that damage took: how many they were is known when nothing else of their stream waits.
    pub(super) fn damaged_values(&self, values: u64) {
        if let Some(count) = self.0.get(Reason::Damaged.index()).filter(|_| values > 0) {
            count.values.fetch_add(values, Relaxed);
        }
    }

    /// Values lost, whatever the reason.
    pub fn values(&self) -> u64 {
        self.0.iter().map(|c| c.values.load(Relaxed)).sum()
    }

    /// Messages lost, whatever the reason.
    pub fn messages(&self) -> u64 {
        self.0.iter().map(|c| c.messages.load(Relaxed)).sum()
    }

    /// Name of each reason, messages and values lost for it.
    pub fn by_reason(&self) -> [(&'static str, u64, u64); Reason::NAMES.len()] {
        let mut rows = Reason::NAMES.map(|name| (name, 0, 0));
        for (row, count) in rows.iter_mut().zip(&self.0) {
            (row.1, row.2) = (count.messages.load(Relaxed), count.values.load(Relaxed));
        }
        rows
    }

    /// Messages and values lost for this reason.
    pub fn of(&self, reason: Reason) -> (u64, u64) {
        self.0.get(reason.index()).map_or((0, 0), |c| (c.messages.load(Relaxed), c.values.load(Relaxed)))
    }
}

/// Where all values are that were ever produced, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Appended, or found waiting at the start.
    pub produced: u64,
    /// Acknowledged by the broker.
    pub delivered: u64,
    /// Neither delivered nor lost.
    pub waiting: u64,
    /// Lost, whatever the reason.
    pub lost: u64,
}

impl Accounts {
    /// Each value has become one thing, and one thing only.
    pub fn balance(&self) -> bool {
        self.produced == self.delivered + self.waiting + self.lost
    }
}
