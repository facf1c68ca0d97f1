//! What the floor looks like: the one place that turns the core's layout into something to draw.
//!
//! ```text
//!   Scene    what stands still: tiers, places, roads, areas (aisle, lift, belt, cell), the vehicles there are
//!   Moment   what moves: per vehicle where it is, where it looks, its state, load, battery, order, reserved path
//!   loads    which place holds which load
//! ```
//!
//! Lengths are metres in the scene and whole millimetres in a moment, x along the aisle, y across it, tier 0 at the bottom. Everything
//! is named by its index in the scene's lists, so that a moment of a thousand vehicles stays small. A page draws any
//! [`Source`]; the floor of this version is [`Aisle`].

use crate::board::Board;
use crate::config::plan::FloorNames;
use crate::field::ImageStage;
use control_core::Layout;
use control_core::image::Quality;
use control_core::interlock::Hold;
use control_core::layout::{Conveyor, End, MachineKind, Place};
use control_core::units::{MachineId, PosId, Tier};
use serde::ser::SerializeTuple;
use serde::{Serialize, Serializer};
use std::sync::Arc;
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
    /// Along the aisle, metres.
    pub x_m: f32,
    /// Across the aisle, metres.
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
    /// Along the aisle, millimetres.
    pub x_mm: i32,
    /// Across, millimetres.
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
    /// Its last commands, newest first.
    pub commands: Vec<crate::board::Step>,
}

/// Somebody who knows a floor.
pub trait Source: Send + Sync {
    /// What stands still. Asked once a page.
    fn scene(&self) -> Scene;
    /// What moves. Asked some times a second while anybody looks.
    fn moment(&self) -> Moment;
    /// Which place (by index) holds which load.
    fn loads(&self) -> Vec<(u32, u32)>;
    /// One vehicle.
    fn vehicle(&self, index: usize) -> Option<VehicleDetail>;
}

/// Bay to bay, metres.
const PITCH: f32 = 0.6;
/// From the middle of the lane to the middle of a bay.
const SIDE: f32 = 0.85;
/// Floor to floor of two tiers.
const TIER: f32 = 0.5;

/// The floor of this version: one aisle with its lift, four belts and a robot cell.
pub struct Aisle {
    layout: Layout,
    names: FloorNames,
    stage: ImageStage,
    board: Arc<Board>,
    clock: crate::clock::Clock,
}

impl Aisle {
    /// The floor of a layout; what is known of it comes from the input image and the board.
    pub fn new(
        layout: Layout,
        names: FloorNames,
        stage: ImageStage,
        board: Arc<Board>,
        clock: crate::clock::Clock,
    ) -> Aisle {
        Aisle { layout, names, stage, board, clock }
    }

    /// Where a position is: x, y in metres, tier. A deck is where its machine is at rest.
    fn spot(&self, pos: PosId) -> (f32, f32, Tier) {
        match self.layout.place(pos) {
            Some(Place::Bay { tier, index }) => {
                let side = self.layout.bays_per_side();
                let (n, y) = if index < side { (index, SIDE) } else { (index - side, -SIDE) };
                (1.0 + PITCH * f32::from(n), y, tier)
            }
            Some(Place::TransferOut(tier)) => (0.2, 0.45, tier),
            Some(Place::TransferIn(tier)) => (0.2, -0.45, tier),
            Some(Place::Belt(conveyor, end)) => {
                let (y, inward) = match conveyor {
                    Conveyor::Infeed => (1.5, true),
                    Conveyor::Outfeed => (0.7, false),
                    Conveyor::Feed => (-0.7, false),
                    Conveyor::Return => (-1.5, true),
                };
                let far = (end == End::Entry) == inward;
                (if far { -3.6 } else { -1.8 }, y, Tier(0))
            }
            Some(Place::Deck(id)) => match self.layout.kind(id) {
                Some(MachineKind::Shuttle(tier)) => (1.0, 0.0, tier),
                Some(MachineKind::Lift) => (-0.8, 0.0, Tier(0)),
                _ => (-7.0, -1.1, Tier(0)),
            },
            None => (0.0, 0.0, Tier(0)),
        }
    }

    /// Where a machine stands when it serves a position.
    fn at(&self, id: MachineId, pos: Option<PosId>) -> (f32, f32, Tier) {
        let rest = self.spot(self.layout.pos(Place::Deck(id)));
        let Some(pos) = pos else { return rest };
        let (x, _, tier) = self.spot(pos);
        match self.layout.kind(id) {
            Some(MachineKind::Shuttle(own)) => (x.max(0.6), 0.0, own),
            Some(MachineKind::Lift) => (rest.0, rest.1, tier),
            _ => rest,
        }
    }

    fn now(&self, id: MachineId, image: &control_core::InputImage) -> VehicleNow {
        let seen = self.board.machine(id);
        let status = image.machine(id);
        let (x, y, tier) = self.at(id, seen.target.or(seen.at));
        let mut path: Vec<u32> = Vec::new();
        if let Some(target) = seen.target {
            path.extend(seen.at.map(|p| u32::from(p.0)));
            path.push(u32::from(target.0));
        }
        let load = if status.quality == Quality::Bad { None } else { status.value.load };
        VehicleNow {
            x_mm: (x * 1000.0) as i32,
            y_mm: (y * 1000.0) as i32,
            tier: u16::from(tier.0),
            heading_deg: 0,
            state: State::of(seen.hold, seen.target.is_some()) as u8,
            load: load.map_or(0, |l| l.get()),
            battery: -1,
            order: seen.order.unwrap_or(0),
            path,
        }
    }
}

impl Source for Aisle {
    fn scene(&self) -> Scene {
        let (tiers, side) = (self.layout.tiers(), f32::from(self.layout.bays_per_side()));
        let last = u16::from(tiers - 1);
        let place = |n: u16| {
            let (x_m, y_m, tier) = self.spot(PosId(n));
            let kind = match self.layout.place(PosId(n)) {
                Some(Place::Bay { .. }) => PlaceKind::Bay,
                Some(Place::TransferOut(_) | Place::TransferIn(_)) => PlaceKind::Transfer,
                _ => PlaceKind::Belt,
            };
            PlaceView { name: self.names.position(PosId(n)), x_m, y_m, tier: u16::from(tier.0), kind }
        };
        let area = |name: &str, kind, (x_m, y_m): (f32, f32), (width_m, depth_m): (f32, f32), to_tier| AreaView {
            name: name.into(),
            kind,
            x_m,
            y_m,
            width_m,
            depth_m,
            tier: 0,
            to_tier,
        };
        let belt = |name, y: f32| area(name, AreaKind::Belt, (-4.0, y - 0.3), (2.6, 0.6), 0);
        let vehicle = |id: MachineId| {
            let (kind, length_m, width_m) = match self.layout.kind(id) {
                Some(MachineKind::Shuttle(_)) => (VehicleKind::Shuttle, 0.7, 0.6),
                Some(MachineKind::Lift) => (VehicleKind::Lift, 0.8, 1.2),
                _ => (VehicleKind::Cell, 1.2, 1.2),
            };
            VehicleView { name: self.names.machine(id), kind, length_m, width_m }
        };
        Scene {
            tiers: (0..tiers)
                .map(|t| TierView { name: format!("Tier {}", t + 1), elevation_m: f32::from(t) * TIER })
                .collect(),
            places: (0..self.layout.sensed()).map(place).collect(),
            roads: Vec::new(),
            areas: vec![
                area("aisle", AreaKind::Aisle, (0.0, -1.2), (1.0 + PITCH * side, 2.4), last),
                area("lift", AreaKind::Lift, (-1.3, -0.9), (1.0, 1.8), last),
                belt("infeed", 1.5),
                belt("outfeed", 0.7),
                belt("cell feed", -0.7),
                belt("cell return", -1.5),
                area("robot cell", AreaKind::Station, (-7.9, -1.9), (1.8, 1.6), 0),
            ],
            vehicles: self.layout.machine_ids().map(vehicle).collect(),
            states: STATES.to_vec(),
        }
    }

    fn moment(&self) -> Moment {
        let image = self.stage.look();
        Moment { t: self.clock.now().0, v: self.layout.machine_ids().map(|id| self.now(id, &image)).collect() }
    }

    fn loads(&self) -> Vec<(u32, u32)> {
        let image = self.stage.look();
        let held = |n: u16| {
            let seen = image.position(PosId(n));
            let load = if seen.quality == Quality::Bad { None } else { seen.value };
            load.map(|l| (u32::from(n), l.get()))
        };
        (0..self.layout.sensed()).filter_map(held).collect()
    }

    fn vehicle(&self, index: usize) -> Option<VehicleDetail> {
        let id = u8::try_from(index).ok().map(MachineId).filter(|id| self.layout.kind(*id).is_some())?;
        let seen = self.board.machine(id);
        let now = self.now(id, &self.stage.look());
        Some(VehicleDetail {
            name: self.names.machine(id),
            state: State::of(seen.hold, seen.target.is_some()),
            why: seen.hold.map(crate::desk::hold_text),
            load: (now.load > 0).then_some(now.load),
            order: (now.order > 0).then_some(now.order),
            commands: seen.commands.into_iter().rev().collect(),
        })
    }
}
