//! Field protocols behind one trait: registers and nodes become stamped readings, commands become writes.
//!
//! ```text
//!   line (a socket) ── Driver ──┬─ poll ──> Reading { point, value, quality, source time } ──> LineSink
//!     └─ device (a unit)        └─ write <── command block <─────────────────────────────────  LineSink
//!          └─ point (a tag)
//! ```
//!
//! | room | decides |
//! |---|---|
//! | [`value`] | what a reading is |
//! | [`block`] | the register map of command and status blocks, and their codec |
//! | [`files`] | whose the files are that outlive the process |
//! | [`driver`] | the trait every protocol implements, and which errors end a link |
//! | [`mod@dial`] | the way to a host that may have several addresses |
//! | [`mod@line`] | one line's task: connect, back off, write before read, keep the schedule |
//! | [`modbus`] | Modbus TCP client: addresses, request planner, reply checks |
//! | [`number`] | limits that are not rounded |
//! | [`mod@said`] | how much of what a peer says is repeated |
//! | [`mod@tls`] | TLS to a peer: whom to trust, and every refusal in words |
//! | [`opcua`] | OPC UA client: whom to trust, what is subscribed to, what is read in turn, what is written |

pub mod block;
pub mod dial;
pub mod driver;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod line;
pub mod modbus;
pub mod number;
pub mod opcua;
pub mod said;
pub mod tls;
pub mod value;

pub use dial::dial;
pub use driver::{BlockWrite, Driver, Health, LinkError, PollReport, TagWrite, WriteOutcome};
pub use line::{LineCounters, LineSink, LinkState, Notice, run_line};
pub use number::Number;
pub use value::{Cause, PointId, Reading, Value};
