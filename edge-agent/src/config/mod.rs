//! Configuration: what the file says, then what it means.
//!
//! ```text
//!   agent.toml, conf.d/*.toml, profiles, tag tables ──serde──> raw::*  ──plan()──> Plan      valid, and cannot be wrong later
//!                                   │                  │
//!                                   └── one error      └── all errors     file, line, column, what was found,
//!                                                                         what was expected, what to do
//! ```

mod csv;
mod lines;
mod machines;
mod modbus;
mod mqtt;
pub mod opcua;
pub mod plan;
pub mod raw;
pub mod report;
mod tags;
pub mod values;

pub use plan::{DevicePlan, DriverPlan, LinePlan, Payload, Plan, PointPlan, Role, WriteRule};
pub use report::{Problem, Report};

use std::path::{Path, PathBuf};

/// Reads and checks a configuration with its `conf.d/*.toml` and the profiles they name. Every problem found is in the report.
pub fn load(path: &Path) -> Result<Plan, Report> {
    let source = report::Source::read(path)?;
    let raw: raw::Config = report::parse(&source)?;
    let mut parts = Vec::new();
    for file in parts_of(path) {
        let part = report::Source::read(&file)?;
        let raw: raw::Part = report::parse(&part)?;
        parts.push((part, raw));
    }
    plan::plan(&source, raw, parts)
}

/// `conf.d/*.toml` beside the file, by name.
fn parts_of(path: &Path) -> Vec<PathBuf> {
    let dir = path.parent().map_or_else(|| PathBuf::from("conf.d"), |p| p.join("conf.d"));
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml") && p.is_file()).collect();
    files.sort();
    files
}
