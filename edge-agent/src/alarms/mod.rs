//! Alarms as ISA-18.2 has them: a condition that wants a person, told once, kept until it is both over and known.
//!
//! ```text
//!                raised                 acknowledged
//!   (normal) ───────────> unacknowledged ───────────> acknowledged
//!      ^  ^                     │ over                     │ over
//!      │  └── acknowledged ── returned (unacknowledged) ───┼──────> (normal)
//!      └───────────────────────────────────────────────────┘
//!   shelved: any of these, put aside by a person for a time, with a reason; comes back by itself
//! ```
//!
//! | room | in one line |
//! |---|---|
//! | [`table`] | what is raised when, and what to do about it |
//! | `schedule` | which lines do not keep their schedule |
//! | `watch` | looks at every row twice a second; waits for nobody, and nobody waits for it |
//! | `desk` | where each alarm stands, and what people do to it |
//! | `book` | what has changed, for those who ask and those who listen |
//! | `rules` | the same table for Prometheus |
//!
//! Here stands what others see of an alarm.

mod book;
mod desk;
mod row;
mod rules;
mod schedule;
pub mod table;
mod watch;

pub use desk::{AlarmDesk, SHELF_MAX};
pub use row::{Priority, Row};
pub use rules::rules;
pub use table::TABLE;
pub use watch::{AlarmWatcher, LOOK_EVERY, Lately, Watch};

use serde::Serialize;
use utoipa::ToSchema;

/// Where an alarm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlarmState {
    /// Raised, and nobody has seen it.
    Unacknowledged,
    /// Raised, and somebody is at it.
    Acknowledged,
    /// Over, and nobody has seen it.
    Returned,
    /// Put aside by a person.
    Shelved,
}

impl AlarmState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            AlarmState::Unacknowledged => "unacknowledged",
            AlarmState::Acknowledged => "acknowledged",
            AlarmState::Returned => "returned",
            AlarmState::Shelved => "shelved",
        }
    }
}

/// An alarm that is not normal.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlarmView {
    /// Row of the table.
    pub alarm: &'static str,
    /// What it is about: a line, a machine, a device.
    pub subject: String,
    /// How soon somebody has to act.
    pub priority: Priority,
    /// Where it stands.
    pub state: AlarmState,
    /// Whether the condition holds right now.
    pub active: bool,
    /// What is said of it.
    pub detail: String,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub action: &'static str,
    /// Raised at, RFC 3339.
    pub since: String,
    /// The same, milliseconds since 1970 UTC.
    #[serde(skip)]
    pub since_ms: u64,
    /// Who has acknowledged or shelved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// On the shelf until, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why it was shelved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One change of one alarm.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlarmChange {
    /// When, RFC 3339.
    pub time: String,
    /// Row of the table.
    pub alarm: &'static str,
    /// What it is about.
    pub subject: String,
    /// `raised`, `cleared`, `acknowledged`, `shelved`, `unshelved`.
    pub change: &'static str,
    /// Who, if it was a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A change, with what one has to know who sees nothing else of the alarm.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmNews {
    /// What has changed.
    #[serde(flatten)]
    pub change: AlarmChange,
    /// How soon somebody has to act.
    pub priority: Priority,
    /// What is said of it.
    pub detail: String,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub action: &'static str,
}

/// Why an alarm cannot be acknowledged or shelved.
#[derive(Debug, PartialEq, Eq)]
pub enum AlarmError {
    /// It is not raised.
    NotRaised,
    /// The time or the reason cannot be taken.
    Invalid(String),
}
