//! What a row of the table is.

use super::Watch;
use serde::Serialize;
use std::time::Duration;

/// How soon somebody has to act (ISA-18.2, annex B; at most a twentieth of all rows should be critical when they are raised).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// At once: the floor stands, or nobody is in control of it.
    Critical,
    /// Within minutes: a part of the floor stands.
    High,
    /// Within the shift.
    Medium,
    /// When there is time.
    Low,
}

impl Priority {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        }
    }
}

/// Takes one subject of which the row is true, and what is to be said of it.
pub(super) type Raise<'a> = &'a mut dyn FnMut(&str, String);

/// A row.
pub struct Row {
    /// Its name in API, metric and rules.
    pub id: &'static str,
    /// How soon.
    pub priority: Priority,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub action: &'static str,
    /// It has to be true for this long before it is raised, and untrue for as long before it is cleared.
    pub delay: Duration,
    pub(super) when: fn(&Watch<'_>, Raise<'_>),
}

pub(super) const fn row(
    id: &'static str,
    priority: Priority,
    delay_s: u64,
    (means, action): (&'static str, &'static str),
    when: fn(&Watch<'_>, Raise<'_>),
) -> Row {
    Row { id, priority, means, action, delay: Duration::from_secs(delay_s), when }
}
