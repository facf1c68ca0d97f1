//! Modbus client: TCP, TLS, RTU through TCP, RTU on a serial port; one line, many units.
//!
//! ```text
//!   address, types     what people write: "holding:5.3", "40001", "f32", "CDAB"
//!   plan               the fewest requests for many values             pure
//!   coverage           what a device refuses, and the requests then     pure
//!   group, health      one poll; who is asked and who has to wait
//!   pdu, frame         bytes, checked before they are believed
//!   bus                echo and noise of a serial line
//!   transport          sockets, TLS, serial ports
//!   writes, apart      what goes first, and what goes together
//!   client             the task that joins them
//!   probe              one question to each unit, before anything runs
//! ```
//!
//! The link layer is our own: tokio-modbus drops late replies by ending the connection, knows no pipelining, no silence on a serial line,
//! and believes lengths and echoes.

mod absent;
mod address;
mod apart;
mod bus;
mod client;
mod coverage;
mod frame;
pub(crate) mod fuzz_doors;
mod group;
mod health;
mod pdu;
mod plan;
mod probe;
mod spec;
mod text;
mod transport;
mod types;
mod writes;

pub use crate::tls::Tls;
pub use absent::{Absent, PATTERNS_MAX};
pub use address::{Address, AddressError, Bits, Table, Written};
pub use client::Modbus;
pub use coverage::{Coverage, Quarantine, Refusal};
pub use pdu::{WRITE_COILS_MAX, WRITE_REGISTERS_MAX};
pub use plan::{Limits, Request, Span, plan};
pub use probe::{Fault, Probe};
pub use spec::{DeviceSpec, LineSpec, PointSpec};
pub use text::{Charset, Lettering, Packing};
pub use transport::{Endpoint, Serial};
pub use types::{DataType, Format, Order, POWER_MAX, Scale, Special, TEXT_MAX};

/// Name of an exception code (Modbus Application Protocol V1.1b3, 7).
pub const fn exception_name(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        7 => "negative acknowledge",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "unknown",
    }
}
