//! What a line is told: where it is, what is behind it, what is wanted of it.

use super::address::Address;
use super::plan::Limits;
use super::transport::Endpoint;
use super::types::Format;
use crate::value::PointId;
use control_core::units::MachineId;
use std::time::Duration;

/// One point of a device.
#[derive(Clone, Debug)]
pub struct PointSpec {
    /// Its number on the line.
    pub id: PointId,
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub format: Format,
    /// How often it is read.
    pub interval: Duration,
    /// Whether it may be written.
    pub writable: bool,
    /// A part of a register may be written by reading the register, changing the part and writing the whole. Whatever the device or another
    /// client changes between the two is undone by that.
    pub read_modify_write: bool,
}

/// One device: a unit on the line.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Unit id.
    pub unit: u8,
    /// Its points.
    pub points: Vec<PointSpec>,
    /// What it takes in one request, and what it does not take at all.
    pub limits: Limits,
    /// Whether it takes functions 5 and 6 for a single coil or register; some know 15 and 16 only.
    pub single_writes: bool,
    /// Whether it takes function 22 for parts of a register.
    pub mask_write: bool,
    /// It answers as another unit (0 and 255 are common) or with transaction 0: what comes while its request is open is its reply. Only
    /// where there is no pipeline, and nobody else is asked meanwhile.
    pub foreign_replies: bool,
    /// Machines whose command block this unit holds, with the block's first holding register.
    pub commands: Vec<(MachineId, u16)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct LineSpec {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for one reply.
    pub timeout: Duration,
    /// Requests on their way at once; more than one only where every device behind the line takes that.
    pub pipeline: u8,
    /// Pause between a reply and the next request; some devices lose requests without one.
    pub pause: Duration,
    /// The connection is given up behind each poll, and made for the next: some devices serve one client at a time.
    pub close_after_poll: bool,
    /// The units behind it.
    pub devices: Vec<DeviceSpec>,
}

impl LineSpec {
    /// The longest a write waits for the line: until the request before it has had its time. Nothing is sent to a device that has not
    /// answered yet, unless it takes several requests at once.
    pub fn write_wait_worst(&self) -> Duration {
        let turn = if self.endpoint.has_transactions() && self.pipeline > 1 {
            self.timeout / 4
        } else {
            // On a serial line the longest reply, 256 bytes, is on the wire as well.
            self.timeout + self.endpoint.takes(8, 256)
        };
        turn + self.pause.max(self.endpoint.silence())
    }
}
