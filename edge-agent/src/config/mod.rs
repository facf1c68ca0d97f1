//! Configuration: what the file says, then what it means.
//!
//! ```text
//!   agent.toml, conf.d/*.toml, profiles, tag tables ──serde──> raw::*  ──plan()──> Plan      valid, and cannot be wrong later
//!                                   │                  │
//!                                   └── one error      └── all errors     file, line, column, what was found,
//!                                                                         what was expected, what to do
//! ```

mod advice;
mod csv;
mod floor;
mod gateway;
mod http;
mod lines;
mod machines;
mod meaning;
mod modbus;
mod mqtt;
pub mod opcua;
pub mod plan;
pub mod raw;
pub mod report;
mod special;
mod tags;
mod topics;
pub mod values;

pub use floor::FloorSetup;
pub use meaning::{DESCRIPTION_MAX, UNIT_MAX};
pub use plan::{DevicePlan, DriverPlan, LinePlan, Meaning, Payload, Plan, PointPlan, Role, WriteRule};
pub use report::{Files, Problem, Report};

use device_drivers::files;
use std::io;
use std::path::{Path, PathBuf};

/// Where a gateway keeps its state, by a file that may be wrong anywhere else: the first `state_dir = ".."` in it.
pub fn state_dir_of(path: &Path) -> Option<PathBuf> {
    let text = files::read_text(path, files::CONFIGURATION_MAX).ok()?;
    let said = text.lines().find_map(|line| {
        let value = line.trim_start().strip_prefix("state_dir")?.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
        value.get(1..)?.split_once(quote).map(|(dir, _)| dir)
    })?;
    Some(path.parent().map_or_else(|| PathBuf::from(said), |dir| dir.join(said)))
}

/// Reads and checks a configuration with its `conf.d/*.toml` and the profiles they name. Every problem found is in the report.
pub fn load(path: &Path) -> Result<Plan, Report> {
    let plan = load_from(path, Files::default())?;
    if plan.defects.is_empty() { Ok(plan) } else { Err(Report(plan.defects)) }
}

/// The same for a gateway that starts, from files that may have been kept: defects that are no reason to stand still are in the plan.
pub fn load_from(path: &Path, mut files: Files) -> Result<Plan, Report> {
    let source = files.read(path)?;
    let raw: raw::Config = report::parse(&source)?;
    let mut parts = Vec::new();
    let names = if files.is_kept {
        let dir = path.parent().map_or_else(|| PathBuf::from("conf.d"), |p| p.join("conf.d"));
        files
            .paths()
            .filter(|p| p.parent() == Some(&dir))
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .map(PathBuf::from)
            .collect()
    } else {
        parts_of(path).map_err(|(dir, e)| report::Report::unreadable(&dir, &e))?
    };
    for file in names {
        let part = files.read(&file)?;
        let raw: raw::Part = report::parse(&part)?;
        parts.push((part, raw));
    }
    let mut plan = gateway::plan(&source, raw, parts, &mut files)?;
    (plan.file, plan.files) = (Some(path.into()), files);
    Ok(plan)
}

/// `conf.d/*.toml` beside the file, by name. No such folder is none; one that cannot be read is an error: lines would be missing, and nobody
/// would know.
fn parts_of(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let dir = path.parent().map_or_else(|| PathBuf::from("conf.d"), |p| p.join("conf.d"));
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<PathBuf>>>(),
        Err(e) if e.kind() == io::ErrorKind::NotFound && dir.symlink_metadata().is_err() => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let mut files = entries.map_err(|e| (dir, e))?;
    files.retain(|p| p.extension().is_some_and(|e| e == "toml") && !p.is_dir());
    files.sort();
    Ok(files)
}

/// The JSON Schema of the configuration: the same types that read it.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::Config)
}
