//! The rack PLC: the register map of [`rack_map`] behind the Modbus TCP server of [`crate::modbus`].
//!
//! ```text
//!   holding registers   0 ..   command blocks of shuttles and lift, side by side
//!   input registers     0 ..   their status blocks          1000 ..  load sensors, two words each
//! ```

use super::SharedPlant;
use crate::modbus::{Access, Device, Exception, Options, Space, Span, Table, listen, no_such_unit};
use control_core::units::{LoadId, MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS, rack_map};
use std::sync::Arc;
use tokio::net::TcpListener;

/// The unit that answers; 255 is "this device" (Modbus TCP V1.0b, 4.4.2).
const UNITS: [u8; 2] = [1, 255];

/// Serves until the task is aborted.
pub async fn serve(plant: SharedPlant, listener: TcpListener) {
    listen(Arc::new(Rack(plant)), listener, Options::default()).await;
}

/// The answer to one PDU.
pub fn answer(plant: &SharedPlant, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Rack(plant.clone()).answer(unit, pdu, &mut out);
    out
}

struct Rack(SharedPlant);

impl Device for Rack {
    fn has(&self, unit: u8) -> bool {
        UNITS.contains(&unit)
    }

    fn answer(&self, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        if self.has(unit) {
            crate::modbus::answer(&mut Registers(&self.0), pdu, out);
        } else {
            no_such_unit(pdu, out);
        }
    }
}

/// The registers of the rack. It has no bits: every legal request for one asks for an address that is not there.
struct Registers<'a>(&'a SharedPlant);

impl Space for Registers<'_> {
    fn supports(&self, function: u8) -> bool {
        function != 22
    }

    fn check(&self, table: Table, span: Span, access: Access) -> Result<(), Exception> {
        let there = match (table, access) {
            (Table::HoldingRegisters, Access::Write) => self.writable(span),
            (Table::HoldingRegisters, Access::Read) => all(span, |at| holding(self.0, at)),
            (Table::InputRegisters, Access::Read) => all(span, |at| input(self.0, at)),
            _ => false,
        };
        if there { Ok(()) } else { Err(Exception::ILLEGAL_ADDRESS) }
    }

    fn read(&mut self, table: Table, span: Span, out: &mut Vec<u8>) {
        for at in (0..span.quantity).filter_map(|n| span.start.checked_add(n)) {
            let value = if table == Table::HoldingRegisters { holding(self.0, at) } else { input(self.0, at) };
            out.extend_from_slice(&value.unwrap_or_default().to_be_bytes());
        }
    }

    /// Writes command blocks, each part in one go.
    fn write(&mut self, _table: Table, span: Span, values: &[u8]) {
        let words: Vec<u16> = values.as_chunks().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
        let mut plant = self.0.lock();
        let (mut rest, mut register) = (words.as_slice(), usize::from(span.start));
        while !rest.is_empty() {
            let (machine, offset) = (register / COMMAND_WORDS, register % COMMAND_WORDS);
            let (here, beyond) = rest.split_at(rest.len().min(COMMAND_WORDS - offset));
            plant.write_block(MachineId(machine as u8), offset, here); // at most tiers + 1
            register += here.len();
            rest = beyond;
        }
    }
}

impl Registers<'_> {
    fn writable(&self, span: Span) -> bool {
        let machines = u32::from(self.0.lock().layout().tiers()) + 1;
        span.end() <= machines * COMMAND_WORDS as u32
    }
}

fn all(span: Span, at: impl Fn(u16) -> Option<u16>) -> bool {
    (0..span.quantity).all(|n| span.start.checked_add(n).and_then(&at).is_some())
}

/// Holding registers: the command blocks of shuttles and lift, side by side.
fn holding(plant: &SharedPlant, at: u16) -> Option<u16> {
    let (machine, offset) = (usize::from(at) / COMMAND_WORDS, usize::from(at) % COMMAND_WORDS);
    let plant = plant.lock();
    let id = u8::try_from(machine).ok().filter(|m| *m <= plant.layout().tiers())?;
    plant.command_block(MachineId(id))?.get(offset).copied()
}

/// Input registers: status blocks from 0, sensors from 1000.
fn input(plant: &SharedPlant, at: u16) -> Option<u16> {
    let plant = plant.lock();
    let layout = plant.layout();
    if let Some(n) = at.checked_sub(rack_map::position(0)) {
        let pos = PosId(n / 2);
        let load = LoadId::raw((pos.0 < layout.sensed()).then(|| plant.loads().at(pos))?);
        return Some(if n % 2 == 0 { (load / 65_536) as u16 } else { (load % 65_536) as u16 });
    }
    let machine = u8::try_from(usize::from(at) / STATUS_WORDS).ok().filter(|m| *m <= layout.tiers())?;
    plant.status_block(MachineId(machine))?.get(usize::from(at) % STATUS_WORDS).copied()
}
