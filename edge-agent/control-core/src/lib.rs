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
//! | [`layout`] | which positions exist and who serves them |
//! | [`image`] | what is known (input) and what is wanted (output), each value with quality and time |
//! | [`command`] | one command's life: NEW, SENT, SEEN, then DONE / FAILED / EXPIRED, by read-back alone |
//! | [`interlock`] | whether a machine may be commanded at all |
//! | [`order`] | what is to be moved, and how far it is |
//! | [`dispatch`] | the next leg of a load, and which machine takes it |
//! | [`shuttle`], [`lift`], [`cell`] | what a leg means to each kind of machine |
//! | [`stock`] | where every load is believed to be, and what is reserved |
//! | [`cycle`] | the order of it all: first understand, then act. Its steps: `recover`, `admission`, `feedback`, `act` |
//! | [`event`] | what is told to the outside |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod act;
mod admission;
pub mod cell;
pub mod command;
pub mod cycle;
pub mod dispatch;
pub mod event;
mod feedback;
pub mod image;
pub mod interlock;
pub mod layout;
pub mod lift;
pub mod limits;
pub mod order;
mod recover;
pub mod shuttle;
pub mod stock;
pub mod storage;
pub mod traffic;
pub mod units;

pub use cycle::{Controller, Inputs, Outputs, Settings};
pub use event::{Event, EventKind};
pub use image::{InputImage, OutputImage};
pub use layout::Layout;
