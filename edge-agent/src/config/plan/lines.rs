//! Field lines: whom they reach, which devices are behind them, and what each point of them is to the agent.

use crate::telemetry::spool::Stream;
use control_core::units::{MachineId, PosId};
use device_drivers::Number;
use device_drivers::modbus::LineSpec;
use device_drivers::opcua::OpcUaSpec;
use std::sync::Arc;
use std::time::Duration;

/// One field line.
#[derive(Clone, Debug)]
pub struct LinePlan {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// Protocol and peer.
    pub driver: DriverPlan,
    /// Its devices; points name them by index.
    pub devices: Arc<[DevicePlan]>,
    /// Its points; the index is the point's number.
    pub points: Arc<[PointPlan]>,
    /// Machines whose command blocks it carries.
    pub machines: Vec<MachineId>,
    /// How often the blocks are written although nothing changed.
    pub heartbeat: Duration,
}

impl LinePlan {
    /// What a person should see to at the other end of this line, if anything: a gateway from TCP to serial asks one unit at a time, and while
    /// it waits for a dead one it answers for nobody.
    pub fn advice(&self) -> Option<String> {
        let DriverPlan::Modbus(spec) = &self.driver else { return None };
        let units: std::collections::BTreeSet<u8> = spec.devices.iter().map(|d| d.unit).collect();
        (units.len() > 1 && spec.endpoint.has_transactions()).then(|| {
            format!(
                "{} units behind {}: if it is a gateway to a serial line, let it give up on a unit well before {:?} (`timeout`)",
                units.len(),
                self.driver.peer(),
                spec.timeout
            )
        })
    }

    /// `device/tag`.
    pub fn point_name(&self, point: &PointPlan) -> String {
        let device = self.devices.get(point.device as usize).map_or("?", |d| &d.name);
        format!("{device}/{}", point.tag)
    }
}

/// One device of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// Name in topics, logs and metrics.
    pub name: Arc<str>,
    /// Modbus unit.
    pub unit: u8,
    /// Where it stands.
    pub cell: Arc<str>,
    /// What its tags come from: its profile's name, and that of its tag table.
    pub profile: Arc<str>,
    /// Its topic, before and after the tag's name; all before when a message holds a whole device.
    pub topic: (Arc<str>, Arc<str>),
}

/// Protocol and peer.
#[derive(Clone, Debug)]
pub enum DriverPlan {
    /// Modbus.
    Modbus(LineSpec),
    /// OPC UA.
    OpcUa(OpcUaSpec),
}

impl DriverPlan {
    /// Whether anyone on the network can read and write it although it could be otherwise. Plain Modbus is not counted: it
    /// has no other way, and `tls://` is seen in the configuration.
    pub fn is_insecure(&self) -> bool {
        matches!(self, DriverPlan::OpcUa(spec) if spec.is_insecure())
    }

    /// Address of the peer: `host:port`, or a serial port.
    pub fn peer(&self) -> String {
        match self {
            DriverPlan::Modbus(spec) => {
                spec.endpoint.host_port().map_or_else(|| spec.endpoint.to_string(), String::from)
            }
            DriverPlan::OpcUa(spec) => {
                let rest = spec.endpoint.strip_prefix("opc.tcp://").unwrap_or(&spec.endpoint);
                rest.split('/').next().unwrap_or(rest).to_string()
            }
        }
    }
}

/// One point of a line. Kept small: a gateway has a hundred thousand.
#[derive(Clone, Debug)]
pub struct PointPlan {
    /// Which device of the line.
    pub device: u32,
    /// The tag's name, shared by all devices of a profile.
    pub tag: Arc<str>,
    /// Whether it is published; what only the control loop sees is not.
    pub publish: bool,
    /// What it is to the control loop.
    pub role: Role,
    /// Without a new reading for this long it is Uncertain, for twice as long Bad.
    pub stale_after: Duration,
    /// Who may write it may write this; `None`: nobody.
    pub write: Option<Arc<WriteRule>>,
    /// The stream of its messages.
    pub stream: Stream,
    /// A number that has changed by less is not reported; 0: every change is.
    pub deadband: f64,
    /// What it is to people, if anybody has said so; shared by all devices of a profile.
    pub meaning: Option<Arc<Meaning>>,
}

/// What a tag is to people. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meaning {
    /// Unit of the value.
    pub unit: Option<String>,
    /// The tag in words.
    pub description: Option<String>,
    /// Lower end of the range that displays show.
    pub low: Option<f64>,
    /// Upper end of that range.
    pub high: Option<f64>,
}

/// What may be written to a tag.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRule {
    /// Smallest value.
    pub min: Option<Number>,
    /// Greatest value.
    pub max: Option<Number>,
    /// At most one write in this time.
    pub every: Duration,
    /// Higher goes first.
    pub priority: u8,
    /// Whether it is read back.
    pub verify: bool,
}

/// What a point is to the control loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: telemetry only.
    Telemetry,
    /// A machine's status block.
    Machine(MachineId),
    /// A load sensor.
    Position(PosId),
}
