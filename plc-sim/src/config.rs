//! `plant.toml`: the shape and the speed of the plant. Lengths in metres, times in seconds, unknown keys refused.

use floor_plan::FloorPlan;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The whole plant. Its shape is a floor file, or for a small one the number of tiers and bays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantConfig {
    /// The floor file, beside this one.
    #[serde(default)]
    pub floor: Option<PathBuf>,
    /// Of a small floor: tiers of the rack.
    #[serde(default)]
    pub tiers: Option<u16>,
    /// Of a small floor: bays on each side of a tier.
    #[serde(default)]
    pub bays_per_side: Option<u16>,
    /// Loads in the racks at the start, in bays drawn from the seed.
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
    #[serde(default)]
    pub shuttle: Carrier,
    /// The lifts.
    #[serde(default)]
    pub lift: Carrier,
    /// The mobile robots.
    #[serde(default)]
    pub robot: RobotConfig,
    /// The conveyors.
    #[serde(default)]
    pub conveyor: ConveyorConfig,
    /// The robot cells.
    #[serde(default)]
    pub cell: CellConfig,
    /// The world outside.
    #[serde(default)]
    pub outside: OutsideConfig,
    /// What goes wrong. Nothing, unless asked for.
    #[serde(default)]
    pub faults: Faults,
    /// The floor as it was read.
    #[serde(skip)]
    pub plan: Arc<FloorPlan>,
}

/// Listening addresses; port 0 takes any free one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// PLCs of aisles, hall and robots, Modbus TCP.
    pub modbus: SocketAddr,
    /// PLCs of cells, OPC UA.
    pub opcua: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Listen { modbus: SocketAddr::from(([127, 0, 0, 1], 5020)), opcua: SocketAddr::from(([127, 0, 0, 1], 4855)) }
    }
}

/// A machine that travels and handles loads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Carrier {
    /// Top speed, m/s; else as the floor says.
    pub speed: Option<f64>,
    /// Acceleration and braking, m/s2; else as the floor says.
    pub acceleration: Option<f64>,
    /// Taking or putting a load, s.
    pub handling_s: f64,
}

impl Default for Carrier {
    fn default() -> Self {
        Carrier { speed: None, acceleration: None, handling_s: 0.8 }
    }
}

/// Mobile robots.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RobotConfig {
    /// Taking or putting a load, s.
    pub handling_s: f64,
    /// A quarter turn on the spot, s.
    pub turn_s: f64,
    /// Metres on a full battery.
    pub range_m: f64,
    /// Hours a full battery lasts when the robot stands.
    pub standby_h: f64,
    /// Minutes from empty to full.
    pub charge_min: f64,
    /// Charge at the start, 0 to 1; each robot a little less than the one before.
    pub charge: f64,
}

impl Default for RobotConfig {
    fn default() -> Self {
        RobotConfig { handling_s: 2.0, turn_s: 1.0, range_m: 15_000.0, standby_h: 24.0, charge_min: 30.0, charge: 1.0 }
    }
}

/// The conveyors.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConveyorConfig {
    /// From one place to the next, s.
    pub transit_s: f64,
}

impl Default for ConveyorConfig {
    fn default() -> Self {
        ConveyorConfig { transit_s: 1.5 }
    }
}

/// The robot cells.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellConfig {
    /// Taking or putting a load, s.
    pub handling_s: f64,
    /// Time of program 1, s; program n takes n times as long, program 0 none.
    pub process_s: f64,
}

impl Default for CellConfig {
    fn default() -> Self {
        CellConfig { handling_s: 0.8, process_s: 2.0 }
    }
}

/// The world outside.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutsideConfig {
    /// A load comes in by itself every so often, s; 0 for never.
    pub arrival_every_s: f64,
    /// A load stands at the end of a belt that leads out this long before it is fetched, s.
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
    /// Reads a plant from a file, and its floor from the one beside it.
    pub fn load(path: &Path) -> Result<PlantConfig, String> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
        let beside = path.parent().unwrap_or(Path::new("."));
        PlantConfig::read(&read(path)?, |floor| read(&beside.join(floor)))
            .map_err(|e| if e.starts_with('/') { e } else { format!("{}: {e}", path.display()) })
    }

    /// Reads a plant with a small floor from TOML. The error says what, and where.
    pub fn from_toml(text: &str) -> Result<PlantConfig, String> {
        PlantConfig::read(text, |floor| Err(format!("the floor file {} is not at hand", floor.display())))
    }

    /// Reads a plant from TOML; `floor` reads its floor file.
    pub fn read(text: &str, floor: impl Fn(&Path) -> Result<String, String>) -> Result<PlantConfig, String> {
        let mut config: PlantConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        let plan = match (&config.floor, config.tiers, config.bays_per_side) {
            (Some(path), None, None) => {
                let text = floor(path)?;
                FloorPlan::parse(&text).map_err(|faults| {
                    let lines: Vec<String> =
                        faults.iter().map(|f| format!("{}: {}", path.display(), f.text(&text))).collect();
                    lines.join("\n")
                })?
            }
            (None, Some(tiers), Some(bays)) => {
                FloorPlan::small(tiers, bays).ok_or("tiers must be 1 to 60 and bays_per_side 1 to 400")?
            }
            _ => return Err("a plant needs either floor = \"..\", or tiers and bays_per_side".into()),
        };
        config.plan = Arc::new(plan);
        config.check()?;
        Ok(config)
    }

    /// The same plant on another floor.
    pub fn on(self, plan: Arc<FloorPlan>) -> PlantConfig {
        PlantConfig { plan, ..self }
    }

    fn check(&self) -> Result<(), String> {
        let bays = self.plan.bays().count();
        if usize::from(self.loads) > bays {
            return Err(format!("loads = {} do not fit into {bays} bays", self.loads));
        }
        let positive = [
            ("speed", Some(self.speed)),
            ("watchdog_s", Some(self.watchdog_s)),
            ("shuttle.speed", self.shuttle.speed),
            ("shuttle.acceleration", self.shuttle.acceleration),
            ("lift.speed", self.lift.speed),
            ("lift.acceleration", self.lift.acceleration),
            ("robot.range_m", Some(self.robot.range_m)),
            ("robot.standby_h", Some(self.robot.standby_h)),
            ("robot.charge_min", Some(self.robot.charge_min)),
        ];
        match positive.iter().find_map(|(name, v)| v.filter(|v| !(v.is_finite() && *v > 0.0)).map(|v| (name, v))) {
            Some((name, value)) => Err(format!("{name} = {value} must be above 0")),
            None => Ok(()),
        }
    }
}
