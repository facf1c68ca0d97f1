//! The daemon: polls the plant, decides every cycle, delivers every sample.
//!
//! ```text
//!   PLC ──> field line ──> input image ══> control thread ══> output image ──> field line ──> PLC
//!               │                               │  ^
//!               │ samples                events │  │ requests
//!               v                               v  │
//!            spool ──> MQTT                   order desk <── HTTP
//! ```
//!
//! | room | decides |
//! |---|---|
//! | [`config`] | what the file says, and what it means |
//! | [`agent`] | the wiring: the only place that knows every part |
//! | [`control`] | the control thread and its beat |
//! | [`field`] | what a reading means: image, quality, sample |
//! | [`desk`] | orders from outside and what became of them |
//! | [`commands`] | which commands from outside may pass, what became of them, and who sent them |
//! | [`forecast`] | what a configuration will cost, before anything runs |
//! | [`telemetry`] | spool and MQTT: what was promised is delivered |
//! | [`metrics`] | the one table of figures |
//! | [`http`] | metrics, health, orders, writes |
//! | [`browse`], [`pki`] | commands: what an OPC UA server has, and whether it is trusted |

pub mod agent;
pub mod browse;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod desk;
pub mod field;
pub mod forecast;
pub mod http;
pub mod metrics;
pub mod pki;
pub mod telemetry;

pub use agent::Agent;
pub use config::Plan;
