//! The plant: machines, belts and loads, moved on by [`Plant::step`] from a seed. No socket, no clock, no thread.

mod axis;
mod lanes;
mod loads;
mod machine;
mod robot;
mod watch;

pub use axis::Axis;
pub use loads::Loads;
pub use machine::{Job, Machine};
pub use robot::Robot;

use crate::config::PlantConfig;
use crate::plc::MachinePlc;
use control_core::image::Mode;
use control_core::traffic::roads::Place;
use control_core::units::{LoadId, MachineId, PosId, ZoneId};
use floor_plan::FloorPlan;
use lanes::Lanes;
use std::sync::Arc;
use watch::Watch;

/// What really happened; asked at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Loads found in two places.
    pub in_two_places: Vec<LoadId>,
    /// Loads that are nowhere.
    pub lost: Vec<LoadId>,
    /// Commands that were executed twice: the same sequence again, or the same motion again under another one.
    pub double_commands: u64,
    /// Vehicles that met, counted once a meeting.
    pub collisions: u64,
    /// The first of these meetings.
    pub first_collision: Option<String>,
    /// Commands begun.
    pub commands_executed: u64,
    /// Commands refused.
    pub commands_refused: u64,
    /// Loads that have left the plant.
    pub loads_left: usize,
    /// Loads in the plant.
    pub loads_inside: usize,
}

impl Truth {
    /// No load doubled or lost, no command executed twice, nobody hit.
    pub fn is_clean(&self) -> bool {
        self.in_two_places.is_empty() && self.lost.is_empty() && self.double_commands == 0 && self.collisions == 0
    }
}

/// The plant and the controllers of its machines.
#[derive(Clone, Debug)]
pub struct Plant {
    config: PlantConfig,
    time_s: f64,
    rng: fastrand::Rng,
    loads: Loads,
    machines: Vec<Machine>,
    plcs: Vec<MachinePlc>,
    lanes: Lanes,
    watch: Watch,
}

impl Plant {
    /// A plant with its first loads in bays drawn from the seed. `boot` is the controllers' boot counter.
    pub fn new(config: PlantConfig, seed: u64, boot: u16) -> Result<Plant, String> {
        let plan = config.plan.clone();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut loads = Loads::new(&plan);
        let mut bays: Vec<PosId> = plan.bays().collect();
        rng.shuffle(&mut bays);
        for (bay, n) in bays.iter().zip(1..=u32::from(config.loads)) {
            if let Some(load) = LoadId::new(1000 + n) {
                loads.enter(*bay, load);
            }
        }
        let machines: Option<Vec<Machine>> = plan.view().machine_ids().map(|id| Machine::new(&config, id)).collect();
        let machines = machines.ok_or("a machine of this floor cannot be built")?;
        let plcs = machines.iter().map(|_| MachinePlc::new(boot)).collect();
        let (lanes, watch) = (Lanes::new(&config), Watch::new(&plan));
        Ok(Plant { config, time_s: 0.0, rng, loads, machines, plcs, lanes, watch })
    }

    /// The floor.
    pub fn plan(&self) -> &Arc<FloorPlan> {
        &self.config.plan
    }

    /// The configuration.
    pub fn config(&self) -> &PlantConfig {
        &self.config
    }

    /// Where the loads really are.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Plant time, seconds.
    pub fn time_s(&self) -> f64 {
        self.time_s
    }

    /// Replaces all loads by those of a snapshot (see [`Loads::snapshot`]); refused when it is not of this floor.
    pub fn restore(&mut self, snapshot: &[u32]) -> Result<(), String> {
        let plan = self.plan().clone();
        if snapshot.len() != plan.position_count() {
            return Err(format!("the state has {} positions, this plant {}", snapshot.len(), plan.position_count()));
        }
        self.loads = Loads::new(&plan);
        for (n, raw) in (0u16..).zip(snapshot) {
            if let Some(load) = LoadId::new(*raw)
                && !self.loads.enter(PosId(n), load)
            {
                return Err(format!("the state has load {raw} twice"));
            }
        }
        Ok(())
    }

    /// A lorry brings a load; it goes onto the first belt that leads in as soon as that is free.
    pub fn deliver(&mut self, load: LoadId) {
        self.lanes.deliver(load, None);
    }

    /// A lorry brings a load to one of the belts that lead in.
    pub fn deliver_to(&mut self, load: LoadId, belt: ZoneId) {
        self.lanes.deliver(load, Some(belt));
    }

    /// A person carries a load elsewhere.
    pub fn carry_off(&mut self, from: PosId, to: PosId) -> bool {
        self.loads.carry_off(from, to)
    }

    /// A person pushes a mobile robot to another place, which has to be free.
    pub fn push_robot(&mut self, id: MachineId, to: Place) -> bool {
        let taken = |m: &Machine| m.robot().is_some_and(|r| !r.is_off() && (r.at() == to || r.towards() == Some(to)));
        if self.machines.iter().any(taken) {
            return false;
        }
        let Some(robot) = self.machines.get_mut(usize::from(id.0)).and_then(Machine::robot_mut) else { return false };
        robot.put(to);
        true
    }

    /// A person carries a mobile robot off the floor, or sets it down again where it was.
    pub fn carry_off_robot(&mut self, id: MachineId, off: bool) {
        if let Some(robot) = self.machines.get_mut(usize::from(id.0)).and_then(Machine::robot_mut) {
            robot.carry_off(off);
        }
    }

    /// A mobile robot loses its way: from here on it says that it is at this place, wherever it is; `None` when it has found it again.
    pub fn lose_its_way(&mut self, id: MachineId, says: Option<Place>) {
        if let Some(robot) = self.machines.get_mut(usize::from(id.0)).and_then(Machine::robot_mut) {
            robot.lose_its_way(says);
        }
    }

    /// Sets the charge of a mobile robot's battery, 0 to 1.
    pub fn set_charge(&mut self, id: MachineId, charge: f64) {
        if let Some(robot) = self.machines.get_mut(usize::from(id.0)).and_then(Machine::robot_mut) {
            robot.set_charge(charge);
        }
    }

    /// Turns a machine's key switch.
    pub fn set_mode(&mut self, id: MachineId, mode: Mode) {
        if let (Some(plc), Some(machine)) =
            (self.plcs.get_mut(usize::from(id.0)), self.machines.get_mut(usize::from(id.0)))
        {
            plc.set_mode(mode, machine);
        }
    }

    /// Restarts a machine's controller: its memory is empty, its machine stands still.
    pub fn reboot(&mut self, id: MachineId) {
        if let (Some(plc), Some(machine)) =
            (self.plcs.get_mut(usize::from(id.0)), self.machines.get_mut(usize::from(id.0)))
        {
            plc.reboot(machine);
        }
    }

    /// Puts a command block into a controller's memory. It is looked at in the next step.
    pub fn write_block(&mut self, id: MachineId, offset: usize, words: &[u16]) {
        if let Some(plc) = self.plcs.get_mut(usize::from(id.0)) {
            plc.write(offset, words);
        }
    }

    /// A controller's command block as it stands in its memory.
    pub fn command_block(&self, id: MachineId) -> Option<&[u16]> {
        self.plcs.get(usize::from(id.0)).map(MachinePlc::memory)
    }

    /// A controller's status block.
    pub fn status_block(&self, id: MachineId) -> Option<[u16; device_drivers::block::STATUS_WORDS]> {
        let (plc, machine) = (self.plcs.get(usize::from(id.0))?, self.machines.get(usize::from(id.0))?);
        Some(plc.status(self.plan(), machine, self.loads.at(machine.deck())))
    }

    /// A machine.
    pub fn machine(&self, id: MachineId) -> Option<&Machine> {
        self.machines.get(usize::from(id.0))
    }

    /// Commands a machine has done.
    pub fn done(&self, id: MachineId) -> u32 {
        self.plcs.get(usize::from(id.0)).map_or(0, MachinePlc::done)
    }

    /// Moves everything on by `dt` seconds: outside, belts, then each controller's scan and its machine.
    pub fn step(&mut self, dt: f64) {
        self.time_s += dt;
        self.lanes.step(dt, self.time_s, &mut self.loads);
        let plan = &*self.config.plan;
        for (plc, machine) in self.plcs.iter_mut().zip(&mut self.machines) {
            plc.scan(dt, &self.config, machine, &self.loads, &mut self.rng);
            let noise = self.rng.f64() * 2.0 - 1.0;
            if let Some(result) = machine.step(dt, plan, &mut self.loads, noise, plc.may_move()) {
                plc.ended(result);
            }
        }
        self.watch.look(plan, &self.machines, &self.loads, self.time_s);
    }

    /// What really happened so far.
    pub fn truth(&self) -> Truth {
        Truth {
            in_two_places: self.loads.in_two_places(),
            lost: self.loads.lost(),
            double_commands: self.plcs.iter().map(|p| p.ledger().doubles).sum(),
            collisions: self.watch.collisions(),
            first_collision: self.watch.first().map(str::to_string),
            commands_executed: self.plcs.iter().map(|p| p.ledger().executed).sum(),
            commands_refused: self.plcs.iter().map(|p| p.ledger().refused).sum(),
            loads_left: self.loads.left(),
            loads_inside: self.loads.all().count(),
        }
    }
}
