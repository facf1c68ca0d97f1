//! A Modbus server's protocol, apart from what is served (Modbus Application Protocol V1.1b3, Modbus TCP V1.0b, Serial Line V1.02).
//!
//! ```text
//!   bytes ──> frame ──> pdu ──> Space        frame: where a request begins and ends
//!   bytes <── wire  <───┘                    pdu:   is it legal, and what is the answer
//!               └── Treatment                wire:  how the answer goes out, honestly unless a fault asks for another way
//! ```
//!
//! Frames are checked here, byte by byte, and not by a library: exceptions come in the order 01, 03, 02; a refused write changes nothing;
//! a frame of another protocol is met with silence; a length that cannot be is read over; a client that falls silent is let go.
//! [`converse`] works on any stream, be it a socket, a serial port or TLS; [`listen`] brings it to TCP.

mod frame;
mod pdu;
mod server;
mod wire;

pub use frame::crc;
pub(crate) use pdu::refuse;
pub use pdu::{Access, Exception, Space, Span, Table, answer};
pub(crate) use server::no_such_unit;
pub use server::{Device, End, Options, converse, listen};
pub use wire::Treatment;

use std::time::Duration;

/// How requests and answers are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The MBAP header of Modbus TCP.
    Tcp,
    /// Unit, PDU and CRC, on a serial line or over TCP. A line that is silent for the gap ends whatever went before.
    Rtu {
        /// The silence between two frames; 3.5 characters on a real line, some milliseconds where a kernel buffers.
        gap: Duration,
    },
}

impl Framing {
    /// RTU on a stream that does not keep time well: a pseudo-terminal, TCP.
    pub const RTU: Framing = Framing::Rtu { gap: Duration::from_millis(20) };
}
