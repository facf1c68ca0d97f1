//! What the control thread shows of its decisions, for whoever draws the floor or counts: which leg a machine is at, and the
//! reserved path of every mobile robot. Copied some times a second into memory that was asked for at the start.

use control_core::Controller;
use control_core::fleet::Stray;
use control_core::floor::{Floor, MachineKind};
use control_core::image::CommandCode;
use control_core::limits::NOBODY_COMES_MAX;
use control_core::traffic::claims::PATH_MAX;
use control_core::traffic::roads::{NO_GOAL, OPEN, Place};
use control_core::units::{MachineId, OrderId, PosId};
use std::sync::{Mutex, PoisonError};

/// A leg, as people see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegShown {
    /// For which order.
    pub order: OrderId,
    /// Where the load stands.
    pub source: PosId,
    /// Where it goes.
    pub target: PosId,
}

/// One machine as the core sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineShown {
    /// Its leg, if it has one.
    pub leg: Option<LegShown>,
    /// It has a command that has not ended.
    pub busy: bool,
    /// Of a mobile robot: what the roads say.
    pub robot: RobotShown,
}

/// An order that the core has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderShown {
    /// Its number.
    pub id: OrderId,
    /// A machine has been put to it.
    pub started: bool,
}

/// A mobile robot on the roads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RobotShown {
    places: [Place; PATH_MAX],
    length: u8,
    /// So many places ahead are allocated to it; what comes beyond is claimed.
    pub base: u8,
    /// What it is doing.
    pub state: RobotState,
    /// Why it cannot be where it says, and the place it says.
    pub stray: Option<(Stray, Place)>,
}

impl RobotShown {
    /// Where it is, and the places that are reserved for it ahead.
    pub fn path(&self) -> &[Place] {
        self.places.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// What a mobile robot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RobotState {
    /// Not a robot, or not on the roads yet.
    #[default]
    Away,
    /// It stands where it was sent.
    Arrived,
    /// Places ahead are reserved for it.
    Driving,
    /// It is sent somewhere, and nothing ahead is reserved for it: it waits for others, or for a pass through a gate.
    Waiting,
    /// It does not come nearer, and no way out was found.
    Jammed,
    /// It says it is where it cannot be: it counts as where it was last known, if it was.
    Astray,
}

/// All states with their names.
pub const ROBOT_STATES: [(RobotState, &str); 6] = [
    (RobotState::Away, "away"),
    (RobotState::Arrived, "arrived"),
    (RobotState::Driving, "driving"),
    (RobotState::Waiting, "waiting"),
    (RobotState::Jammed, "jammed"),
    (RobotState::Astray, "astray"),
];

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    machines: Vec<MachineShown>,
    /// Vehicles that hold a pass, by gate.
    gates: Vec<u16>,
    /// Where loads wait to which no robot can come.
    nobody_comes: heapless::Vec<PosId, NOBODY_COMES_MAX>,
    /// Room for all orders, and how many there are; `None`: nothing has been shown yet.
    orders: Vec<OrderShown>,
    count: Option<usize>,
}

impl Shown {
    /// Of a floor of this size; nothing is known yet.
    pub fn new(machines: usize, gates: usize, orders: usize) -> Shown {
        Shown {
            machines: vec![MachineShown::default(); machines],
            gates: vec![0; gates],
            nobody_comes: heapless::Vec::new(),
            orders: vec![OrderShown::default(); orders],
            count: None,
        }
    }

    /// A machine.
    pub fn machine(&self, id: MachineId) -> MachineShown {
        self.machines.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    /// Mobile robots in each state, in the order of [`ROBOT_STATES`]; `robots` are those of the floor.
    pub fn count(&self, robots: impl Iterator<Item = MachineId>) -> [u64; ROBOT_STATES.len()] {
        let mut counts = [0; ROBOT_STATES.len()];
        for id in robots {
            let state = self.machine(id).robot.state;
            if let Some(n) = ROBOT_STATES.iter().position(|(s, _)| *s == state)
                && let Some(slot) = counts.get_mut(n)
            {
                *slot += 1;
            }
        }
        counts
    }

    /// Gates for which a vehicle holds a pass.
    pub fn gates_occupied(&self) -> u64 {
        self.gates.iter().filter(|n| **n > 0).count() as u64
    }

    /// Where loads wait to which no robot can come.
    pub fn nobody_comes(&self) -> &[PosId] {
        &self.nobody_comes
    }

    /// Orders that the core has; `None` before anything was shown.
    pub fn orders(&self) -> Option<&[OrderShown]> {
        self.orders.get(..self.count?)
    }

    /// Takes over what the controller has decided. Asks for no memory.
    pub fn fill(&mut self, floor: &Floor<'_>, controller: &Controller<'_>) {
        let (mut count, orders) = (0, controller.orders().iter().map(|(_, order)| order));
        for (slot, order) in self.orders.iter_mut().zip(orders) {
            *slot = OrderShown { id: order.request.id, started: order.started };
            count += 1;
        }
        self.count = Some(count);
        self.gates.fill(0);
        self.nobody_comes = controller.nobody_comes().iter().copied().take(NOBODY_COMES_MAX).collect();
        for (id, slot) in floor.machine_ids().zip(&mut self.machines) {
            let (task, command) = controller.busy_with(id);
            let leg = task.map(|t| LegShown { order: t.order, source: t.source, target: t.target });
            let robot = match floor.machine(id).map(|m| m.kind) {
                Some(MachineKind::Robot { vehicle, .. }) => robot(floor, controller, vehicle, &mut self.gates),
                _ => RobotShown::default(),
            };
            let busy = command.is_some_and(|(c, _)| c.code != CommandCode::None);
            *slot = MachineShown { leg, busy, robot };
        }
    }
}

fn robot(floor: &Floor<'_>, controller: &Controller<'_>, vehicle: u16, gates: &mut [u16]) -> RobotShown {
    let traffic = controller.traffic();
    let stray = controller.stray(vehicle);
    let mut shown = RobotShown { stray, ..RobotShown::default() };
    if !traffic.is_present(vehicle) {
        shown.state = if stray.is_some() { RobotState::Astray } else { RobotState::Away };
        return shown;
    }
    for (slot, place) in shown.places.iter_mut().zip(traffic.path(vehicle)) {
        *slot = place;
        shown.length += 1;
    }
    shown.base = u8::try_from(traffic.base(vehicle).count()).unwrap_or(u8::MAX);
    let (passes, ..) = traffic.state(vehicle);
    for region in passes.into_iter().filter(|r| *r != OPEN) {
        if let Some(slot) = gates.get_mut(usize::from(region)) {
            *slot += 1;
        }
    }
    shown.state = match () {
        () if stray.is_some() => RobotState::Astray,
        () if traffic.is_jammed(vehicle) => RobotState::Jammed,
        () if shown.length > 1 => RobotState::Driving,
        () if traffic.goal(vehicle) == NO_GOAL || traffic.has_arrived(floor.roads(), vehicle) => RobotState::Arrived,
        () => RobotState::Waiting,
    };
    shown
}

/// The newest of what was shown, for whoever looks.
pub struct ShownDesk(Mutex<triple_buffer::Output<Shown>>);

impl ShownDesk {
    /// Reads from here.
    pub fn new(newest: triple_buffer::Output<Shown>) -> ShownDesk {
        ShownDesk(Mutex::new(newest))
    }

    /// Looks at the newest. The control thread does not wait for it.
    pub fn look<T>(&self, look: impl FnOnce(&Shown) -> T) -> T {
        look(self.0.lock().unwrap_or_else(PoisonError::into_inner).read())
    }
}
