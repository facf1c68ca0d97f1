//! The PLCs that speak Modbus TCP, each a unit behind one address, with the register map of [`rack_map`].
//!
//! ```text
//!   unit 1 ..    the aisles in the order of the floor file    255 is unit 1
//!   unit 90      belts and ports that no aisle has: sensors only
//!   unit 100 ..  mobile robots, 40 a unit
//!
//!   holding registers   0 ..   command blocks of the unit's machines, side by side
//!   input registers     0 ..   their status blocks          1000 ..  the unit's load sensors, two words each
//! ```

use super::SharedPlant;
use crate::modbus::{Access, Device, Exception, Options, Space, Span, Table, listen, no_such_unit};
use crate::plant::Plant;
use control_core::floor::MachineKind;
use control_core::units::{LoadId, MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS, rack_map};
use floor_plan::FloorPlan;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpListener;

/// "This device" (Modbus TCP V1.0b, 4.4.2).
const ITSELF: u8 = 255;
/// Sensors that no aisle has.
pub const HALL: u8 = 90;
/// The first unit of mobile robots, and how many are behind one.
pub const ROBOTS: u8 = 100;
const ROBOTS_A_UNIT: u16 = 40;
/// Machines whose status blocks fit below the sensors.
const MACHINES_MAX: u16 = 1000 / STATUS_WORDS as u16;

/// What a unit has: machines and sensors, each numbered in one piece from a first one on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unit {
    /// First machine, and how many.
    pub machines: (u16, u16),
    /// First position, and how many.
    pub sensed: (u16, u16),
}

/// The units of a floor; the error names the aisle that is too large.
pub fn units(plan: &FloorPlan) -> Result<BTreeMap<u8, Unit>, String> {
    let floor = plan.view();
    let mut units = BTreeMap::new();
    let mut hall = 0;
    for (n, aisle) in (1u8..HALL).zip(&plan.aisles) {
        let first = aisle.shuttles.first().and_then(|id| floor.machine(*id));
        let Some((_, info)) = floor.domains().find(|(id, _)| first.is_some_and(|m| m.domain == *id)) else { continue };
        if info.machines.1 > MACHINES_MAX {
            return Err(format!("aisle {} has {} machines, a unit holds {MACHINES_MAX}", aisle.name, info.machines.1));
        }
        hall = hall.max(info.sensed.0.0 + info.sensed.1);
        units.insert(
            n,
            Unit { machines: (info.machines.0.0, info.machines.1), sensed: (info.sensed.0.0, info.sensed.1) },
        );
    }
    if plan.aisles.len() >= usize::from(HALL) {
        return Err(format!("{} aisles, at most {} have a unit", plan.aisles.len(), HALL - 1));
    }
    let sensed = plan.sensed();
    if sensed > hall {
        units.insert(HALL, Unit { machines: (0, 0), sensed: (hall, sensed - hall) });
    }
    let robots = || {
        floor.machine_ids().filter(|id| matches!(floor.machine(*id).map(|m| m.kind), Some(MachineKind::Robot { .. })))
    };
    let (first, count) = (robots().next().map_or(0, |id| id.0), robots().count() as u16);
    for (unit, from) in (ROBOTS..).zip((0..count).step_by(usize::from(ROBOTS_A_UNIT))) {
        units.insert(unit, Unit { machines: (first + from, (count - from).min(ROBOTS_A_UNIT)), sensed: (0, 0) });
    }
    Ok(units)
}

/// Serves until the task is aborted.
pub async fn serve(plant: SharedPlant, listener: TcpListener) {
    listen(Arc::new(Floor::new(plant)), listener, Options::default()).await;
}

/// The answer to one PDU.
pub fn answer(plant: &SharedPlant, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Floor::new(plant.clone()).answer(unit, pdu, &mut out);
    out
}

struct Floor {
    plant: SharedPlant,
    units: BTreeMap<u8, Unit>,
}

impl Floor {
    fn new(plant: SharedPlant) -> Floor {
        let units = units(plant.lock().plan()).unwrap_or_default(); // looked at before the start
        Floor { plant, units }
    }

    fn unit(&self, unit: u8) -> Option<&Unit> {
        self.units.get(if unit == ITSELF { &1 } else { &unit })
    }
}

impl Device for Floor {
    fn has(&self, unit: u8) -> bool {
        self.unit(unit).is_some()
    }

    fn answer(&self, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        match self.unit(unit) {
            Some(unit) => crate::modbus::answer(&mut Registers { plant: &self.plant, unit: *unit }, pdu, out),
            None => no_such_unit(pdu, out),
        }
    }
}

/// The registers of a unit. It has no bits: every legal request for one asks for an address that is not there.
struct Registers<'a> {
    plant: &'a SharedPlant,
    unit: Unit,
}

impl Space for Registers<'_> {
    fn supports(&self, function: u8) -> bool {
        function != 22
    }

    fn check(&self, table: Table, span: Span, access: Access) -> Result<(), Exception> {
        let (machines, sensors) = (u32::from(self.unit.machines.1), u32::from(self.unit.sensed.1));
        let within = |from: u32, count: u32| u32::from(span.start) >= from && span.end() <= from + count;
        let there = match (table, access) {
            (Table::HoldingRegisters, _) => within(0, machines * COMMAND_WORDS as u32),
            (Table::InputRegisters, Access::Read) => {
                within(0, machines * STATUS_WORDS as u32) || within(u32::from(rack_map::position(0)), 2 * sensors)
            }
            _ => false,
        };
        if there { Ok(()) } else { Err(Exception::ILLEGAL_ADDRESS) }
    }

    fn read(&mut self, table: Table, span: Span, out: &mut Vec<u8>) {
        let plant = self.plant.lock();
        let mut status = None;
        for at in (0..span.quantity).filter_map(|n| span.start.checked_add(n)) {
            let value = match table {
                Table::HoldingRegisters => self.holding(&plant, at),
                _ => self.input(&plant, at, &mut status),
            };
            out.extend_from_slice(&value.unwrap_or_default().to_be_bytes());
        }
    }

    /// Writes command blocks, each part in one go.
    fn write(&mut self, _table: Table, span: Span, values: &[u8]) {
        let words: Vec<u16> = values.as_chunks().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
        let mut plant = self.plant.lock();
        let (mut rest, mut register) = (words.as_slice(), usize::from(span.start));
        while !rest.is_empty() {
            let (machine, offset) = (register / COMMAND_WORDS, register % COMMAND_WORDS);
            let (here, beyond) = rest.split_at(rest.len().min(COMMAND_WORDS - offset));
            plant.write_block(MachineId(self.unit.machines.0 + machine as u16), offset, here); // within the unit
            register += here.len();
            rest = beyond;
        }
    }
}

type Block = [u16; STATUS_WORDS];

impl Registers<'_> {
    fn machine(&self, n: usize) -> Option<MachineId> {
        let n = u16::try_from(n).ok().filter(|n| *n < self.unit.machines.1)?;
        Some(MachineId(self.unit.machines.0 + n))
    }

    /// Holding registers: the command blocks side by side.
    fn holding(&self, plant: &Plant, at: u16) -> Option<u16> {
        let (machine, offset) = (usize::from(at) / COMMAND_WORDS, usize::from(at) % COMMAND_WORDS);
        plant.command_block(self.machine(machine)?)?.get(offset).copied()
    }

    /// Input registers: status blocks from 0, sensors from 1000. `last` keeps the block that was made last.
    fn input(&self, plant: &Plant, at: u16, last: &mut Option<(MachineId, Block)>) -> Option<u16> {
        if let Some(n) = at.checked_sub(rack_map::position(0)) {
            let pos = PosId(self.unit.sensed.0 + n / 2);
            let load = LoadId::raw((n / 2 < self.unit.sensed.1).then(|| plant.loads().at(pos))?);
            return Some(if n % 2 == 0 { (load / 65_536) as u16 } else { (load % 65_536) as u16 });
        }
        let machine = self.machine(usize::from(at) / STATUS_WORDS)?;
        if last.is_none_or(|(m, _)| m != machine) {
            *last = Some((machine, plant.status_block(machine)?));
        }
        last.as_ref()?.1.get(usize::from(at) % STATUS_WORDS).copied()
    }
}
