//! What the file means: a plan that cannot be wrong later.
//!
//! ```text
//!   Plan ─┬─ control   the beat, and what is asked of the host
//!         ├─ mqtt      brokers, topics, the spool            (`mqtt`)
//!         ├─ lines     peers, devices, points, what is what  (`lines`)
//!         ├─ floor     the floor, and its names              (`names`)
//!         ├─ access    who may do what
//!         └─ http      names, proxies, TLS                (`http`)
//! ```
//!
//! Plain data: what was left out has got its value, what does not fit was refused. Nothing here reads a file (`config::gateway` and its
//! neighbours do), and nothing is decided twice.

mod http;
mod lines;
mod mqtt;
mod names;

pub use http::{HttpPlan, HttpTls, Network};
pub use lines::{DevicePlan, DriverPlan, LinePlan, Meaning, PointPlan, Role, WriteRule};
pub use mqtt::{Broker, Login, MqttPlan, Payload, Secret, SpoolPlan};
pub use names::FloorNames;

use super::floor::FloorSetup;
use super::report::{Files, Problem};
use crate::access::AccessPlan;
use crate::control::rt::RealTime;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the agent needs to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the gateway.
    pub gateway: String,
    /// Where metrics and orders are served.
    pub listen: SocketAddr,
    /// Keys and other things that outlive a run.
    pub state_dir: PathBuf,
    /// Whether that folder was configured: else it is one that a restart of the machine empties.
    pub is_kept: bool,
    /// How long a stop waits for machines to finish.
    pub drain: Duration,
    /// The control loop.
    pub control: ControlPlan,
    /// Telemetry; without it nothing is published.
    pub mqtt: Option<MqttPlan>,
    /// The floor; without it the gateway gathers and forwards only.
    pub floor: Option<FloorSetup>,
    /// The field lines.
    pub lines: Vec<LinePlan>,
    /// Addresses that were typed in another form than ours, for `check` to show.
    pub notes: Vec<String>,
    /// What hardly anybody means, each with file and line.
    pub advice: Vec<String>,
    /// What `check` refuses, and control and telemetry can do without: a gateway starts all the same, and says so.
    pub defects: Vec<Problem>,
    /// Who may do what over HTTP.
    pub access: AccessPlan,
    /// The door itself.
    pub http: HttpPlan,
    /// Where it was read from.
    pub file: Option<PathBuf>,
    /// All the files it consists of, as they were.
    pub files: Files,
}

/// The control loop.
#[derive(Clone, Debug)]
pub struct ControlPlan {
    /// Period.
    pub period: Duration,
    /// What is asked of the host.
    pub realtime: RealTime,
    /// A status older than this is not believed.
    pub stale_after: Duration,
    /// How long a command may wait before it is begun.
    pub command_valid: Duration,
}

impl Plan {
    /// What machines and positions are called.
    pub fn names(&self) -> FloorNames {
        FloorNames::of(self.floor.as_ref().map(|f| f.plan.clone()))
    }
}
