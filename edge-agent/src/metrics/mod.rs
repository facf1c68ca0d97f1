//! Figures for Prometheus. Every stage owns its counters; this room only reads them, when somebody scrapes.
//!
//! ```text
//!   counters of the stages (Stages) ──read by the rows of──> TABLE ──> exporter ──> /metrics
//!                                                              └──> the list in the README, the snapshot test
//! ```
//!
//! Base units, bounded labels: the name of a line, a device, a machine or a state, never a tag's or an order's.

mod exporter;
mod figure;
pub mod histogram;
mod process;
mod robots;
mod table;

pub use exporter::Metrics;
pub use figure::{Figure, Kind, Reading};
pub use robots::{RobotSeen, RobotWatch};
pub use table::TABLE;

use crate::absent::Absent;
use crate::alarms::AlarmDesk;
use crate::audit::Audit;
use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::closings::Closings;
use crate::commands::{CommandStats, WriteDesk};
use crate::control::ControlStats;
use crate::desk::Desk;
use crate::http::HttpStats;
use crate::lines::LineList;
use crate::live::LiveStats;
use crate::store::Keep;
use crate::telemetry::Spool;
use crate::telemetry::mqtt::MqttStats;
use std::sync::Arc;

/// All the stages' counters.
pub struct Stages {
    /// The one clock.
    pub clock: Clock,
    /// Whether there is a control loop.
    pub has_floor: bool,
    /// Mobile robots.
    pub robots: Arc<RobotWatch>,
    /// What is closed on the floor; `None`: there is none.
    pub closings: Option<Arc<Closings>>,
    /// Control thread.
    pub control: Arc<ControlStats>,
    /// Lines, with their names.
    pub lines: Arc<LineList>,
    /// Spool.
    pub spool: Arc<Spool>,
    /// MQTT edge.
    pub mqtt: Arc<MqttStats>,
    /// Order desk.
    pub desk: Arc<Desk>,
    /// The door for writes.
    pub writes: Arc<WriteDesk>,
    /// The door for MQTT and Sparkplug.
    pub commands: Arc<CommandStats>,
    /// The audit record.
    pub audit: Arc<Audit>,
    /// The store.
    pub keep: Keep,
    /// Robots that a person has declared absent.
    pub absent: Arc<Absent>,
    /// The traffic log.
    pub traffic: Arc<crate::traffic::TrafficStats>,
    /// Alarms.
    pub alarms: Arc<AlarmDesk>,
    /// Who looks.
    pub live: Arc<LiveStats>,
    /// Which certificates run out, and when.
    pub certificates: Arc<Certificates>,
    /// The door for people.
    pub http: Arc<HttpStats>,
}
