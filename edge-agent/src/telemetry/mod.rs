//! Telemetry: what was promised is delivered, and what had to be dropped is said.
//!
//! ```text
//!   field lines ──append──> spool (disk, bounded, numbered) ──window──> MQTT, QoS 1 ──> broker
//!                             ^                                           │
//!                             └────────── cursor moves on PUBACK alone ───┘
//! ```
//!
//! | room | in one line |
//! |---|---|
//! | [`spool`] | keeps what was promised, on disk, and says what had to go |
//! | [`payload`] | how values look on the wire |
//! | [`meaning`] | what tags are to people, told once |
//! | [`schema`] | the JSON Schema of all that is published |
//! | [`sparkplug`] | a Sparkplug B edge node, in place of our own messages |
//! | [`mqtt`] | brings it to a broker, over connections that may break at any time |
//! | [`watchdog`] | sees that it goes |

pub mod meaning;
pub mod mqtt;
pub mod payload;
pub mod schema;
pub mod sparkplug;
pub mod spool;
pub mod watchdog;

pub use spool::Spool;
