//! Banks: many devices that only measure, for load tests and for tests of drivers.
//!
//! ```text
//!   signal (pure: unit, pair, tick)  ──┐
//!   script (what goes wrong, when)   ──┼──>  faces::opcua_bank   OPC UA, a row of variables
//! ```

pub mod script;
pub mod signal;

pub use script::{Fault, FaultScript, Kind};
