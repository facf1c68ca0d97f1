//! The store: everything a person or the cloud was promised, as events. Nothing of it is ever changed.
//!
//! ```text
//!   append ──> log: written, one fsync for all that wait ──> Ok          what is Ok is there after any end of the gateway
//!   open   ──> snapshot, then the logs behind it ──> every event that still stands, in order ──> books, alarms, closings, keys ..
//!   tend   ──> a snapshot of what those still stand on, written beside, whole before anything goes
//!
//!   0000000000000003.snap   what stands of all events before log 3, word for word, those of kinds that this version does not know too
//!   0000000000000002.log    events, chained by their hashes; kept for the audit as long as there is room, whatever the snapshots say
//!   0000000000000003.log    the one that is written
//!   head                    the newest number, beside: so a log whose end is missing is known for one
//!   reserve                 room on the disk that telemetry cannot take
//! ```
//!
//! Who keeps the books ([`facts`] says in which words) hands events in here, and takes them back at the start ([`Recall`]). What people see is made
//! of them: the same after a restart as before.
//!
//! **Damage.** The end of a write that a crash has torn is cut: nobody was told that it is there. A file with any other damage is moved aside
//! as it is, after all that is sound in it has been written anew; what is missing is told, by its numbers.

pub mod event;
pub mod facts;
mod files;
mod keep;
mod migrate;
mod open;
pub mod recall;
mod snapshot;
mod verify;
mod write;

pub use event::{Event, Hash};
pub use facts::Fact;
pub use keep::{FOLDER, Keep, Stands};
pub use open::{Missing, Opened};
pub use recall::{Recall, Recalled};
pub use verify::{Verdict, export, verify};
pub use write::Store;

/// A log is closed at this length, bytes.
const LOG_MAX: u64 = 4 << 20;
/// Logs behind the newest snapshot may have so many bytes together before there is a new one: what the next start has to read.
const TAIL_MAX: u64 = 16 << 20;
/// All logs together: beyond, the oldest go that a snapshot stands for, bytes. At 300 bytes an event these are nearly a million.
const LOGS_MAX: u64 = 256 << 20;
/// Kinds of the store's own events begin so.
const OWN: &str = "store.";
/// The first event of each log.
const BEGIN: &str = "store.log";
/// What was found to be missing, and where.
const MISSING: &str = "store.missing";
