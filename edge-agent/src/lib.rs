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
//! | [`alarms`] | what wants a person, and what to do about it |
//! | [`certificates`] | which certificates run out, and when |
//! | [`board`] | what the core's events add up to, for people |
//! | [`scene`] | what the floor looks like |
//! | [`traffic`] | where every mobile robot was, and when |
//! | [`trouble`] | what is wrong for long is said once, then hourly |
//! | [`access`] | who may do what |
//! | [`audit`] | who has done what |
//! | [`absent`] | robots of which a person says that they are not on the floor |
//! | [`state`] | the state folder: how its files are made, and what becomes of damaged ones |
//! | [`store`] | everything that was promised, as events that are never changed |
//! | [`lines`] | the lines that run, and reload by difference |
//! | [`news`] | what became of orders and alarms is told over the broker |
//! | [`live`] | what pages see, encoded once for all of them |
//! | [`http`] | the API and the page |
//! | [`plain`] | text from outside, made harmless for the log and a terminal |
//! | [`cli`] | the command line; [`browse`] and [`pki`] are two of its commands |
//!
//! How to use it, connect it, tune it and keep it: [`handbook`], which is the README.

pub mod absent;
pub mod access;
pub mod agent;
pub mod alarms;
pub mod audit;
pub mod board;
pub mod browse;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod closings;
pub mod commands;
pub mod config;
pub mod control;
pub mod desk;
pub mod field;
pub mod forecast;
#[doc(hidden)]
pub mod fuzzing;
#[doc = include_str!("../../README.md")]
pub mod handbook {}
pub mod http;
pub mod lines;
pub mod live;
pub mod metrics;
pub mod news;
pub mod pki;
pub mod plain;
pub mod scene;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod traffic;
pub mod trouble;

pub use agent::Agent;
pub use config::Plan;
