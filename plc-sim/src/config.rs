//! `plant.toml`: the shape and the speed of the plant. Lengths in metres, times in seconds, unknown keys refused.

use serde::Deserialize;
use std::net::SocketAddr;

/// The whole plant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantConfig {
    /// Tiers of the rack.
    pub tiers: u8,
    /// Bays on each side of a tier.
    pub bays_per_side: u8,
    /// Loads in the rack at the start, in bays drawn from the seed.
    pub loads: u16,
    /// Plant seconds per second.
    #[serde(default = "one")]
    pub speed: f64,
    /// A machine holds when its owner's heartbeat stands still for this long.
    #[serde(default = "watchdog")]
    pub watchdog_s: f64,
    /// Where the PLCs listen.
    #[serde(default)]
    pub listen: Listen,
    /// The shuttles.
    pub shuttle: Carrier,
    /// The lift.
    pub lift: Carrier,
    /// The conveyors.
    pub conveyor: ConveyorConfig,
    /// The robot cell.
    pub cell: CellConfig,
    /// The world outside.
    #[serde(default)]
    pub outside: OutsideConfig,
    /// What goes wrong. Nothing, unless asked for.
    #[serde(default)]
    pub faults: Faults,
}

/// Listening addresses; port 0 takes any free one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Rack PLC, Modbus TCP.
    pub modbus: SocketAddr,
    /// Cell PLC, OPC UA.
    pub opcua: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Listen { modbus: SocketAddr::from(([127, 0, 0, 1], 5020)), opcua: SocketAddr::from(([127, 0, 0, 1], 4855)) }
    }
}

/// A machine that travels and handles loads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// Top speed, m/s.
    pub speed: f64,
    /// Acceleration and braking, m/s2.
    pub acceleration: f64,
    /// Taking or putting a load, s.
    pub handling_s: f64,
    /// Distance between two stops (bays or tiers), m.
    pub pitch: f64,
}

/// The four conveyors.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConveyorConfig {
    /// From entry to exit, s.
    pub transit_s: f64,
}

/// The robot cell.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// Taking or putting a load, s.
    pub handling_s: f64,
    /// Time of program 1, s; program n takes n times as long, program 0 none.
    pub process_s: f64,
}

/// The world outside.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutsideConfig {
    /// A load comes in by itself every so often, s; 0 for never.
    pub arrival_every_s: f64,
    /// A load stands on the outfeed's exit this long before it is fetched, s.
    pub fetch_after_s: f64,
}

impl Default for OutsideConfig {
    fn default() -> Self {
        OutsideConfig { arrival_every_s: 0.0, fetch_after_s: 1.5 }
    }
}

/// What goes wrong, each a probability per command.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The drive gives up half-way.
    pub drive_fault: f64,
    /// The command is rejected as busy.
    pub reject: f64,
    /// The command is executed three times slower.
    pub slow: f64,
}

fn one() -> f64 {
    1.0
}

fn watchdog() -> f64 {
    0.5
}

impl PlantConfig {
    /// Reads a plant from TOML. The error says what, and where.
    pub fn from_toml(text: &str) -> Result<PlantConfig, String> {
        let config: PlantConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Some(layout) = control_core::Layout::new(self.tiers, self.bays_per_side) else {
            use control_core::limits::{BAYS_PER_SIDE_MAX, TIERS_MAX};
            return Err(format!("tiers must be 1 to {TIERS_MAX} and bays_per_side 1 to {BAYS_PER_SIDE_MAX}"));
        };
        let bays = u16::from(layout.tiers()) * layout.bays_per_tier();
        if self.loads > bays {
            return Err(format!("loads = {} do not fit into {bays} bays", self.loads));
        }
        let positive = [
            ("speed", self.speed),
            ("watchdog_s", self.watchdog_s),
            ("shuttle.speed", self.shuttle.speed),
            ("shuttle.acceleration", self.shuttle.acceleration),
            ("shuttle.pitch", self.shuttle.pitch),
            ("lift.speed", self.lift.speed),
            ("lift.acceleration", self.lift.acceleration),
            ("lift.pitch", self.lift.pitch),
        ];
        match positive.iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            Some((name, value)) => Err(format!("{name} = {value} must be above 0")),
            None => Ok(()),
        }
    }
}
