//! Telemetry: what was promised is delivered, and what had to be dropped is said.
//!
//! ```text
//!   field lines ──append──> spool (bounded, numbered) ──window──> MQTT 5, QoS 1 ──> broker
//!                             ^                                        │
//!                             └───────── cursor moves on PUBACK alone ─┘
//! ```
//!
//! The spool is the only copy that counts; the client library's own queue never is ([`mqtt`]). In this version the
//! spool lives in memory: it survives any outage of the broker that fits into it, not the end of the process.

pub mod mqtt;
pub mod sample;
pub mod spool;

pub use sample::Sample;
pub use spool::Spool;
