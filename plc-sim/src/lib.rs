//! A plant that answers like the real one. Honest by default, breakable on request, steppable, seeded.
//!
//! ```text
//!                       step(dt)                                  sockets
//!   Plant ── truth ── machines, belts, loads          ┌── aisles, hall, robots: Modbus TCP   (faces::modbus)
//!     └── one MachinePlc a machine: block in, block out ┤
//!                                                     └── robot cells: OPC UA server         (faces::opcua)
//! ```
//!
//! [`plant`] has physics and no sockets: a test steps it through a night in a second. [`plc`] is the program of a machine's
//! controller: which command blocks it believes, and when it refuses. [`faces`] puts both on the network.
//! [`closed_loop`] joins plant and controller without a socket, in virtual time, over a link that may lose and delay.
//! The truth about loads and executed commands is kept apart from what is reported, and is asked at the end.

pub mod bank;
pub mod closed_loop;
pub mod config;
pub mod faces;
pub mod floors;
pub mod halls;
pub mod modbus;
pub mod plant;
pub mod plc;
pub mod yard;

pub use config::PlantConfig;
pub use faces::{Sim, SimAddresses};
pub use plant::{Plant, Truth};
