//! Configuration: what the file says, then what it means.
//!
//! ```text
//!   agent.toml, profiles/*.toml ──serde──> raw::*  ──plan()──> Plan      valid, and cannot be wrong later
//!                                   │                  │
//!                                   └── one error      └── all errors     file, line, column, what was found,
//!                                                                         what was expected, what to do
//! ```

mod lines;
pub mod opcua;
pub mod plan;
pub mod raw;
pub mod report;
mod tags;
pub mod values;

pub use plan::{DriverPlan, LinePlan, Plan, PointPlan, Role};
pub use report::{Problem, Report};

use std::path::Path;

/// Reads and checks a configuration with the profiles it names. Every problem found is in the report.
pub fn load(path: &Path) -> Result<Plan, Report> {
    let source = report::Source::read(path)?;
    let raw: raw::Config = report::parse(&source)?;
    plan::plan(&source, raw)
}
