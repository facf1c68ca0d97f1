//! What the floor looks like, to whoever draws it.
//!
//! ```text
//!   Scene    what stands still: tiers, places, roads, areas (aisle, lift, belt, cell), the vehicles there are
//!   Moment   what moves: per vehicle where it is, where it looks, its state, load, battery, order, reserved path
//!   loads    which place holds which load, and which cannot be seen
//! ```
//!
//! Lengths are metres in the scene and whole millimetres in a moment, x and y those of the floor file, tier 0 at the bottom. Everything
//! is named by its index in the scene's lists, so that a moment of a thousand vehicles stays small. A page draws any
//! [`Source`]; that of a floor plan is [`Floor`].

mod drawing;
mod floor;

pub use floor::Floor;

use control_core::interlock::Hold;
use serde::ser::SerializeTuple;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Everything that stands still.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Scene {
    /// Tiers, the lowest first.
    pub tiers: Vec<TierView>,
    /// Where a vehicle or a load can be.
    pub places: Vec<PlaceView>,
    /// From place to place.
    pub roads: Vec<RoadView>,
    /// What surrounds them.
    pub areas: Vec<AreaView>,
    /// The vehicles and machines; a moment has one entry for each, in this order.
    pub vehicles: Vec<VehicleView>,
    /// What the number of a state in a moment means.
    pub states: Vec<State>,
    /// A bay's width on the map, metres; 0 where there is none.
    pub bay_m: f32,
}

/// A tier.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TierView {
    /// Its name.
    pub name: String,
    /// Height of its floor, metres.
    pub elevation_m: f32,
}

/// A place.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlaceView {
    /// Its name.
    pub name: String,
    /// Metres.
    pub x_m: f32,
    /// Metres.
    pub y_m: f32,
    /// Index of its tier.
    pub tier: u16,
    /// What it is.
    pub kind: PlaceKind,
}

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// A bay of a rack.
    Bay,
    /// A transfer point.
    Transfer,
    /// An end of a conveyor.
    Belt,
    /// A port of a station.
    Port,
    /// A point of a road.
    Road,
    /// Where vehicles park.
    Park,
    /// Where vehicles charge.
    Charge,
}

/// A road.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct RoadView {
    /// Index of the place it begins at.
    pub from: u32,
    /// Index of the place it ends at.
    pub to: u32,
    /// Whether it is used both ways.
    pub both: bool,
}

/// An area: a rectangle on one or several tiers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AreaView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: AreaKind,
    /// Its lower corner, metres.
    pub x_m: f32,
    /// Its lower corner, metres.
    pub y_m: f32,
    /// Along x, metres.
    pub width_m: f32,
    /// Along y, metres.
    pub depth_m: f32,
    /// First tier.
    pub tier: u16,
    /// Last tier.
    pub to_tier: u16,
    /// What each of its tiers is called when it is closed to loads, the first tier first; empty where that cannot be.
    pub zones: Vec<String>,
}

/// What an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AreaKind {
    /// The lane of a shuttle between its bays.
    Aisle,
    /// A lift's shaft.
    Lift,
    /// A conveyor.
    Belt,
    /// A robot cell or another station.
    Station,
    /// A zone of a road map.
    Zone,
}

/// A vehicle or machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VehicleView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: VehicleKind,
    /// Along its heading, metres.
    pub length_m: f32,
    /// Across, metres.
    pub width_m: f32,
}

/// What a vehicle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VehicleKind {
    /// Shuttle of a tier.
    Shuttle,
    /// Lift.
    Lift,
    /// Mobile robot.
    Robot,
    /// Robot cell; stands still.
    Cell,
}

/// What a vehicle is up to; what wants a person comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Nothing to do.
    Idle,
    /// Has a command.
    Busy,
    /// At a charger.
    Charging,
    /// Its controller is being read.
    Starting,
    /// An interlock is open.
    Blocked,
    /// Its controller cannot be seen.
    Lost,
    /// A person moves it.
    Manual,
    /// It left AUTO and waits for an acknowledgement.
    Waiting,
    /// It reports a fault.
    Fault,
    /// Emergency stop.
    Stopped,
}

/// All states, by number.
pub const STATES: [State; 10] = [
    State::Idle,
    State::Busy,
    State::Charging,
    State::Starting,
    State::Blocked,
    State::Lost,
    State::Manual,
    State::Waiting,
    State::Fault,
    State::Stopped,
];

impl State {
    /// What a hold looks like.
    pub fn of(hold: Option<Hold>, busy: bool) -> State {
        match hold {
            None if busy => State::Busy,
            None => State::Idle,
            Some(Hold::NotSeen) => State::Lost,
            Some(Hold::NoHandshake) => State::Starting,
            Some(Hold::NotAuto) => State::Manual,
            Some(Hold::EmergencyStop) => State::Stopped,
            Some(Hold::Interlocked(_)) => State::Blocked,
            Some(Hold::Fault(_)) => State::Fault,
            Some(Hold::NeedsAcknowledge) => State::Waiting,
        }
    }
}

/// Everything that moves, at one instant.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Moment {
    /// Milliseconds of the agent's clock.
    pub t: u64,
    /// One entry a vehicle: `[x_mm, y_mm, tier, heading_deg, state, load, battery_percent, order, [place, ..]]`; load and order are 0 for
    /// none, battery is -1 where there is none, the last is the reserved path.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    pub v: Vec<VehicleNow>,
}

/// A vehicle at one instant.
#[derive(Clone, Debug, Default)]
pub struct VehicleNow {
    /// Millimetres.
    pub x_mm: i32,
    /// Millimetres.
    pub y_mm: i32,
    /// Index of its tier; a lift's is the one it is nearest to.
    pub tier: u16,
    /// Where it looks, degrees from x towards y.
    pub heading_deg: i16,
    /// Number of its state.
    pub state: u8,
    /// The load it carries, 0 for none.
    pub load: u32,
    /// Battery, percent; -1 where there is none.
    pub battery: i8,
    /// The order it works for, 0 for none.
    pub order: u32,
    /// Places reserved for it, in order.
    pub path: Vec<u32>,
}

impl Serialize for VehicleNow {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut tuple = s.serialize_tuple(9)?;
        tuple.serialize_element(&self.x_mm)?;
        tuple.serialize_element(&self.y_mm)?;
        tuple.serialize_element(&self.tier)?;
        tuple.serialize_element(&self.heading_deg)?;
        tuple.serialize_element(&self.state)?;
        tuple.serialize_element(&self.load)?;
        tuple.serialize_element(&self.battery)?;
        tuple.serialize_element(&self.order)?;
        tuple.serialize_element(&self.path)?;
        tuple.end()
    }
}

/// What is known of one vehicle, for who asks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VehicleDetail {
    /// Its name.
    pub name: String,
    /// What it is up to.
    pub state: State,
    /// Why it is not commanded, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The load it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<u32>,
    /// The order it works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u32>,
    /// Where it is on its way to, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Its last commands, newest first.
    pub commands: Vec<crate::board::Step>,
}

/// Somebody who knows a floor.
pub trait Source: Send + Sync {
    /// What stands still. Asked once a page.
    fn scene(&self) -> Scene;
    /// What moves. Asked some times a second while anybody looks.
    fn moment(&self) -> Moment;
    /// Which place (by index) holds which load; 0 where nobody can see.
    fn loads(&self) -> Vec<(u32, u32)>;
    /// One vehicle.
    fn vehicle(&self, index: usize) -> Option<VehicleDetail>;
}
