//! Modbus TCP client.
//!
//! tokio-modbus frames requests and matches replies by transaction id; we call it below its reader functions, because
//! those believe the length of a reply (a short one panics a debug build) and the echo of a write. Every reply's kind, length
//! and echo is checked here before it is believed. A reply that comes too late would be taken for the next one's: after a time-out,
//! a mismatch or an I/O error the connection is closed and made anew.

mod address;
mod decode;
mod plan;
mod tcp;

pub use address::{Address, AddressError, Table};
pub use decode::{DataType, Scale, WordOrder};
pub use plan::{PlanLimits, Request, Span, plan};
pub use tcp::{DeviceSpec, ModbusTcp, PointSpec, TcpSpec};

/// Name of an exception code (Modbus Application Protocol V1.1b3, 7).
pub const fn exception_name(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "unknown",
    }
}
