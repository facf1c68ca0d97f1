//! The thinking part of Lightsout: given time and what the plant says, decides what the plant should do.
//!
//! ```text
//!   InputImage ──┐                               ┌──> OutputImage   one command block per machine
//!   requests ────┼──> Controller::cycle(now) ────┼──> events        what happened, in order, bounded
//!   now ─────────┘                               └──> counters
//! ```
//!
//! One function, no clock, no heap, no lock, no randomness: the same inputs give the same outputs, always.
//! That is what lets a test live through hours of plant time in a second, and replay a night from its trace.
//!
//! | room | decides |
//! |---|---|
//! | [`limits`] | how much of everything there may be, and why |
//! | [`units`] | ids and quantities, each its own type |
//! | [`floor`] | where loads can be, who moves them from where to where, and the roads |
//! | [`image`] | what is known (input) and what is wanted (output), each value with quality and time |
//! | [`command`] | one command's life: NEW, SENT, SEEN, then DONE / FAILED / EXPIRED, by read-back alone |
//! | [`interlock`] | whether a machine may be commanded at all |
//! | [`order`] | what is to be moved, and how far it is; what comes first |
//! | [`dispatch`] | the next leg of a load |
//! | [`rack`] | what a lift or a shuttle takes next, and on which tier a load is put |
//! | [`traffic`] | how vehicles that share roads move without meeting and without locking |
//! | [`fleet`] | which mobile robot takes what, where it waits and when it charges |
//! | [`stock`] | where every load is believed to be, and what is promised |
//! | [`cycle`] | the order of it all: first understand, then act. Its steps: `recover`, [`resume`], `admission`, `acknowledge`, `feedback`, `act`, and `ride` for shuttles that change tier |
//! | [`event`] | what is told to the outside |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod acknowledge;
mod act;
mod admission;
pub mod assign;
pub mod command;
pub mod cycle;
pub mod dispatch;
pub mod event;
mod feedback;
pub mod fleet;
pub mod floor;
pub mod image;
pub mod interlock;
pub mod limits;
mod loads;
mod mast;
pub mod order;
pub mod rack;
mod recover;
pub mod resume;
mod ride;
mod sequence;
pub mod stock;
pub mod storage;
pub mod traffic;
pub mod units;

pub use acknowledge::Word;
pub use cycle::{Controller, Inputs, Settings};
pub use event::{Event, EventKind};
pub use floor::Floor;
pub use image::{InputImage, OutputImage};
