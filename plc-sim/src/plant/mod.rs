//! The plant: machines, belts and loads, moved on by [`Plant::step`] from a seed. No socket, no clock, no thread.

mod axis;
mod loads;
mod machine;

pub use axis::Axis;
pub use loads::Loads;
pub use machine::{Job, Machine};

use crate::config::PlantConfig;
use crate::plc::MachinePlc;
use control_core::image::Mode;
use control_core::layout::{Conveyor, End, Layout, MachineKind, Place};
use control_core::units::{LoadId, MachineId, PosId};
use std::collections::VecDeque;

/// Load ids that come in by themselves are numbered from here.
const FIRST_ARRIVAL: u32 = 50_000;

/// What really happened; asked at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Loads found in two places.
    pub in_two_places: Vec<LoadId>,
    /// Loads that are nowhere.
    pub lost: Vec<LoadId>,
    /// Commands that were executed twice: the same sequence again, or the same motion again under another one.
    pub double_commands: u64,
    /// Commands begun.
    pub commands_executed: u64,
    /// Commands refused.
    pub commands_refused: u64,
    /// Loads that have left by the outfeed.
    pub loads_left: usize,
    /// Loads in the plant.
    pub loads_inside: usize,
}

impl Truth {
    /// No load doubled or lost, no command executed twice.
    pub fn is_clean(&self) -> bool {
        self.in_two_places.is_empty() && self.lost.is_empty() && self.double_commands == 0
    }
}

/// The plant and the controllers of its machines.
#[derive(Clone, Debug)]
pub struct Plant {
    layout: Layout,
    config: PlantConfig,
    time_s: f64,
    rng: fastrand::Rng,
    loads: Loads,
    machines: Vec<Machine>,
    plcs: Vec<MachinePlc>,
    belt_left_s: [Option<f64>; 4],
    fetch_left_s: Option<f64>,
    dock: VecDeque<LoadId>,
    next_arrival_s: f64,
    next_arrival: u32,
}

impl Plant {
    /// A plant with its first loads in bays drawn from the seed. `boot` is the controllers' boot counter.
    pub fn new(config: PlantConfig, seed: u64, boot: u16) -> Result<Plant, String> {
        let layout = Layout::new(config.tiers, config.bays_per_side).ok_or("no such layout")?;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut loads = Loads::new(&layout);
        let mut bays: Vec<PosId> =
            (0..layout.tiers()).flat_map(|t| layout.bays(control_core::units::Tier(t))).collect();
        rng.shuffle(&mut bays);
        for (bay, n) in bays.iter().zip(1..=u32::from(config.loads)) {
            if let Some(load) = LoadId::new(1000 + n) {
                loads.enter(*bay, load);
            }
        }
        let machines: Vec<Machine> = layout
            .machine_ids()
            .filter_map(|id| {
                Some(match layout.kind(id)? {
                    kind @ MachineKind::Shuttle(_) => Machine::carrier(&layout, id, kind, config.shuttle),
                    kind @ MachineKind::Lift => Machine::carrier(&layout, id, kind, config.lift),
                    MachineKind::Cell => Machine::cell(&layout, id, config.cell),
                })
            })
            .collect();
        let plcs = machines.iter().map(|_| MachinePlc::new(boot)).collect();
        let next_arrival_s = config.outside.arrival_every_s;
        Ok(Plant {
            layout,
            config,
            time_s: 0.0,
            rng,
            loads,
            machines,
            plcs,
            belt_left_s: [None; 4],
            fetch_left_s: None,
            dock: VecDeque::new(),
            next_arrival_s,
            next_arrival: FIRST_ARRIVAL,
        })
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
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

    /// Replaces all loads by those of a snapshot (see [`Loads::snapshot`]); refused when it is not of this layout.
    pub fn restore(&mut self, snapshot: &[u32]) -> Result<(), String> {
        if snapshot.len() != usize::from(self.layout.positions()) {
            return Err(format!("the state has {} positions, this plant {}", snapshot.len(), self.layout.positions()));
        }
        self.loads = Loads::new(&self.layout);
        for (n, raw) in (0u16..).zip(snapshot) {
            if let Some(load) = LoadId::new(*raw)
                && !self.loads.enter(PosId(n), load)
            {
                return Err(format!("the state has load {raw} twice"));
            }
        }
        Ok(())
    }

    /// A lorry brings a load; it goes onto the infeed as soon as that is free.
    pub fn deliver(&mut self, load: LoadId) {
        self.dock.push_back(load);
    }

    /// A person carries a load elsewhere.
    pub fn carry_off(&mut self, from: PosId, to: PosId) -> bool {
        self.loads.carry_off(from, to)
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
        Some(plc.status(machine, self.loads.at(machine.deck())))
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
        self.outside(dt);
        for conveyor in Conveyor::ALL {
            self.belt(dt, conveyor);
        }
        for (plc, machine) in self.plcs.iter_mut().zip(&mut self.machines) {
            plc.scan(dt, &self.layout, &self.config, machine, &self.loads, &mut self.rng);
            let noise = self.rng.f64() * 2.0 - 1.0;
            if let Some(result) = machine.step(dt, &self.layout, &mut self.loads, noise) {
                plc.ended(result);
            }
        }
    }

    fn outside(&mut self, dt: f64) {
        let every = self.config.outside.arrival_every_s;
        if every > 0.0 && self.time_s >= self.next_arrival_s {
            self.next_arrival_s += every;
            if let Some(load) = LoadId::new(self.next_arrival) {
                self.dock.push_back(load);
            }
            self.next_arrival += 1;
        }
        let infeed = self.layout.pos(Place::Belt(Conveyor::Infeed, End::Entry));
        if self.loads.at(infeed).is_none()
            && let Some(load) = self.dock.pop_front()
        {
            self.loads.enter(infeed, load);
        }
        let outfeed = self.layout.pos(Place::Belt(Conveyor::Outfeed, End::Exit));
        self.fetch_left_s = match (self.loads.at(outfeed), self.fetch_left_s) {
            (None, _) => None,
            (Some(_), None) => Some(self.config.outside.fetch_after_s),
            (Some(_), Some(left)) if left > dt => Some(left - dt),
            (Some(_), Some(_)) => {
                self.loads.leave(outfeed);
                None
            }
        };
    }

    /// A conveyor takes its load on as soon as its exit is free.
    fn belt(&mut self, dt: f64, conveyor: Conveyor) {
        let entry = self.layout.pos(Place::Belt(conveyor, End::Entry));
        let exit = self.layout.pos(Place::Belt(conveyor, End::Exit));
        let ready = self.loads.at(entry).is_some() && self.loads.at(exit).is_none();
        let left = &mut self.belt_left_s[conveyor as usize];
        *left = match (ready, *left) {
            (false, _) => None,
            (true, None) => Some(self.config.conveyor.transit_s),
            (true, Some(t)) if t > dt => Some(t - dt),
            (true, Some(_)) => {
                let _ = self.loads.pass(entry, exit, None); // both ends were looked at above
                None
            }
        };
    }

    /// What really happened so far.
    pub fn truth(&self) -> Truth {
        Truth {
            in_two_places: self.loads.in_two_places(),
            lost: self.loads.lost(),
            double_commands: self.plcs.iter().map(|p| p.ledger().doubles).sum(),
            commands_executed: self.plcs.iter().map(|p| p.ledger().executed).sum(),
            commands_refused: self.plcs.iter().map(|p| p.ledger().refused).sum(),
            loads_left: self.loads.left(),
            loads_inside: self.loads.all().count(),
        }
    }
}
