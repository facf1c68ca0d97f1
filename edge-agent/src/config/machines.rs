//! Machines and load sensors of a device: status and command blocks, positions; and what all of them are called.

use super::plan::Role;
use super::tags::{Bound, DeviceReader, MACHINE_INTERVAL};
use super::{opcua, raw};
use control_core::layout::{Conveyor, End, Layout, MachineKind, Place};
use control_core::units::{MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS};
use device_drivers::modbus::{Address, DataType, Format, Table};
use std::ops::Range;
use std::time::Duration;

/// How often bays are read.
const BAYS_INTERVAL: Duration = Duration::from_secs(1);

/// The name of a machine in configuration, topics and logs.
pub(super) fn machine_name(layout: &Layout, id: MachineId) -> String {
    match layout.kind(id) {
        Some(MachineKind::Shuttle(tier)) => format!("shuttle-{}", tier.0 + 1),
        Some(MachineKind::Lift) => "lift".into(),
        Some(MachineKind::Cell) => "cell".into(),
        None => format!("machine-{}", id.0),
    }
}

/// The name of a position in topics and logs.
pub(super) fn position_name(layout: &Layout, pos: PosId) -> String {
    match layout.place(pos) {
        Some(Place::Bay { tier, index }) => {
            let bays = layout.bays_per_side();
            format!("bay-{}-{}-{:02}", tier.0 + 1, if index < bays { "left" } else { "right" }, index % bays + 1)
        }
        Some(Place::TransferOut(tier)) => format!("transfer-out-{}", tier.0 + 1),
        Some(Place::TransferIn(tier)) => format!("transfer-in-{}", tier.0 + 1),
        Some(Place::Belt(conveyor, end)) => {
            let name = match conveyor {
                Conveyor::Infeed => "infeed",
                Conveyor::Outfeed => "outfeed",
                Conveyor::Feed => "cell-feed",
                Conveyor::Return => "cell-return",
            };
            format!("{name}-{}", if end == End::Entry { "entry" } else { "exit" })
        }
        Some(Place::Deck(id)) => format!("deck-{}", machine_name(layout, id)),
        None => format!("position-{}", pos.0),
    }
}

impl DeviceReader<'_> {
    pub(super) fn machine(&mut self, raw: &raw::Machine, bound: &mut Bound) {
        let Some(layout) = self.layout else { return self.no_floor(raw.name.span()) };
        let names: Vec<(String, MachineId)> = layout.machine_ids().map(|id| (machine_name(layout, id), id)).collect();
        let Some((_, id)) = names.iter().find(|(name, _)| name == raw.name.get_ref()) else {
            let all: Vec<&str> = names.iter().map(|(n, _)| n.as_str()).collect();
            self.problem_help(
                raw.name.span(),
                "the floor has no such machine",
                format!("`{}` is not on this floor", raw.name.get_ref()),
                format!("the machines are: {}", all.join(", ")),
            );
            return;
        };
        if let Some(other) = bound.insert(*id, self.device.to_string()) {
            self.problem(
                raw.name.span(),
                "this machine has two controllers",
                format!("device `{other}` has it already"),
            );
        }
        if self.is_modbus() {
            let status = self.address(&raw.status, STATUS_WORDS as u16);
            let command = self.address(&raw.command, COMMAND_WORDS as u16);
            let (Some(status), Some(command)) = (status, command) else { return };
            if command.table != Table::Holding {
                self.problem(raw.command.span(), "a command block must be writable", "only holding registers are");
            }
            let id_of =
                self.point(&format!("{}.status", raw.name.get_ref()), Role::Machine(*id), false, MACHINE_INTERVAL);
            self.push_modbus(id_of, status, Format::plain(DataType::Words(STATUS_WORDS as u8)), MACHINE_INTERVAL);
            self.out.block_commands.push((*id, command.number));
        } else {
            let (status, command) = (self.node(&raw.status), self.node(&raw.command));
            let (Some(status), Some(command)) = (status, command) else { return };
            let id_of =
                self.point(&format!("{}.status", raw.name.get_ref()), Role::Machine(*id), false, MACHINE_INTERVAL);
            let publishing = self.ua.map_or(MACHINE_INTERVAL, |ua| ua.publishing);
            self.push_node(id_of, status, opcua::status_block(publishing));
            self.out.node_commands.push((*id, command));
        }
    }

    pub(super) fn sensors(&mut self, raw: &raw::Sensors) {
        let Some(layout) = self.layout else { return self.no_floor(raw.first.span()) };
        if !self.is_modbus() {
            self.problem(raw.first.span(), "load sensors are read over Modbus", "this device speaks OPC UA");
            return;
        }
        let bays = self.interval(raw.bays.as_ref(), BAYS_INTERVAL);
        let Some(first) = self.run_address(&raw.first, 2 * layout.sensed()) else { return };
        for pos in (0..layout.sensed()).map(PosId) {
            let is_bay = matches!(layout.place(pos), Some(Place::Bay { .. }));
            let interval = if is_bay { bays } else { MACHINE_INTERVAL };
            let name = position_name(layout, pos);
            let id = self.point(&format!("load.{name}"), Role::Position(pos), true, interval);
            let address = Address { number: first.number + 2 * pos.0, ..first };
            self.push_modbus(id, address, Format::plain(DataType::U32), interval);
        }
    }

    fn no_floor(&mut self, at: Range<usize>) {
        let help = "add a [floor] table to the configuration, or take this out of the profile";
        let label = "the configuration has no [floor]".to_string();
        self.problem_help(at, "a machine needs a floor", label, help.into());
    }
}
