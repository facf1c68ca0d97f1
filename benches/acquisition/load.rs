//! What is polled: so many devices, lines and values; as a configuration for the agent, and as requests for the floor.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// What the registers of a device hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 1000 contiguous f32, 2000 holding registers: the common benchmark's group.
    Floats,
    /// 100 u16, 100 holding registers.
    Words,
    /// 100 input registers, 96 u16 and the bank's stamp (a u64), which says when they changed: one request still.
    Stamped,
}

/// Registers in one request: a pair is never torn, so a request for pairs has 124.
const REQUEST_MAX: u16 = 125;
/// Units of a bank: more devices share them, over other connections.
const UNITS_MAX: usize = 247;
/// In the shape with stamps, u16 before the stamp.
const BEFORE_STAMP: u16 = 96;

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) lines: usize,
    /// On all lines.
    pub(crate) devices: usize,
    pub(crate) interval: Duration,
    /// Requests on their way at once, per line.
    pub(crate) pipeline: u8,
    /// How often the bank's values change.
    pub(crate) changes: Duration,
    /// What a message holds: `device` or `tag`.
    pub(crate) payload: &'static str,
}

impl Load {
    /// Groups of 1000 f32, one connection for ten units.
    pub(crate) fn floats(devices: usize, interval: Duration) -> Load {
        let lines = devices.div_ceil(10);
        Load { shape: Shape::Floats, lines, devices, interval, pipeline: 1, changes: interval, payload: "device" }
    }

    /// Devices on each line; the last may have fewer.
    pub(crate) fn per_line(&self) -> usize {
        self.devices.div_ceil(self.lines)
    }

    /// What a subscriber looks at in a message.
    pub(crate) fn watched(&self) -> &'static str {
        match self.shape {
            Shape::Stamped => "stamped",
            _ if self.payload == "tag" => "values",
            _ => "plain",
        }
    }

    /// Units the bank needs.
    pub(crate) fn units(&self) -> usize {
        self.devices.min(UNITS_MAX)
    }

    /// The unit of a device.
    pub(crate) fn unit(&self, device: usize) -> u8 {
        (device % UNITS_MAX + 1) as u8
    }

    /// Registers of each table in the bank.
    pub(crate) fn bank_registers(&self) -> u16 {
        match self.shape {
            Shape::Floats => 2000,
            Shape::Words => 100,
            Shape::Stamped => BEFORE_STAMP,
        }
    }

    /// Values of one device.
    pub(crate) fn values(&self) -> usize {
        match self.shape {
            Shape::Floats => 1000,
            Shape::Words => 100,
            Shape::Stamped => usize::from(BEFORE_STAMP) + 1,
        }
    }

    /// Values a second, over all.
    pub(crate) fn values_per_s(&self) -> f64 {
        (self.devices * self.values()) as f64 / self.interval.as_secs_f64()
    }

    /// The reads of one poll of one device, as `edge-agent plan` shows them: first register and how many.
    pub(crate) fn requests(&self) -> Vec<(u16, u16)> {
        let (registers, most) = match self.shape {
            Shape::Floats => (2000, REQUEST_MAX - 1),
            Shape::Words | Shape::Stamped => (100, REQUEST_MAX),
        };
        (0..registers).step_by(usize::from(most)).map(|at| (at, most.min(registers - at))).collect()
    }

    /// `agent.toml`.
    pub(crate) fn agent_toml(&self, bank: SocketAddr, broker: Option<u16>) -> String {
        let mut text = gateway_toml("", broker, self.payload);
        for (n, devices) in (0..self.devices).collect::<Vec<_>>().chunks(self.per_line()).enumerate() {
            let (line, pipeline) = (n + 1, self.pipeline);
            let _ = write!(text, "\n[[line]]\nname = \"line-{line}\"\nmodbus = \"{bank}\"\npipeline = {pipeline}\n");
            for device in devices {
                let (name, unit) = (device_name(*device), self.unit(*device));
                let _ = write!(text, "[[line.device]]\nname = \"{name}\"\ncell = \"c{line}\"\nunit = {unit}\n");
                text.push_str("profile = \"profile.toml\"\n");
            }
        }
        text
    }

    /// `profile.toml`. The first value of each device may be written.
    pub(crate) fn profile_toml(&self) -> String {
        let interval = humantime::format_duration(self.interval);
        let mut text = format!("interval = \"{interval}\"\n[limits]\nregisters = {REQUEST_MAX}\ngap = 8\n");
        let mut tag = |n: usize, address: String, kind: &str| {
            let write = if n == 0 && address.starts_with("holding") { "write = { }\n" } else { "" };
            let name = if kind == "u64" { "stamp".to_string() } else { format!("t{n}") };
            let _ = write!(text, "[[tag]]\nname = \"{name}\"\naddress = \"{address}\"\ntype = \"{kind}\"\n{write}");
        };
        match self.shape {
            Shape::Floats => (0..1000).for_each(|n| tag(n, format!("holding:{}", 2 * n), "f32")),
            Shape::Words => (0..100).for_each(|n| tag(n, format!("holding:{n}"), "u16")),
            Shape::Stamped => {
                (0..usize::from(BEFORE_STAMP)).for_each(|n| tag(n, format!("input:{n}"), "u16"));
                tag(usize::from(BEFORE_STAMP), format!("input:{BEFORE_STAMP}"), "u64");
            }
        }
        text
    }
}

/// The head of `agent.toml`: a gateway without lines; `more` are keys of the gateway.
pub(crate) fn gateway_toml(more: &str, broker: Option<u16>, payload: &str) -> String {
    let mut text = format!(
        "[gateway]\nname = \"bench\"\narea = \"hall\"\nline = \"bench\"\nlisten = \"127.0.0.1:0\"\n{more}[http]\nloopback = \"operator\"\n",
    );
    if let Some(port) = broker {
        let _ = write!(
            text,
            "\n[mqtt]\nbroker = \"127.0.0.1:{port}\"\npayload = \"{payload}\"\n[spool]\ndirectory = \"spool\"\n"
        );
    }
    text
}

/// The name of a device.
pub(crate) fn device_name(device: usize) -> String {
    format!("d{device}")
}
