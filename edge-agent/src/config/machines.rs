//! Machines and load sensors of a device: status and command blocks, positions; by the floor's names and in its order.

use super::plan::Role;
use super::report::{Source, closest};
use super::tags::{Bound, DeviceReader, MACHINE_INTERVAL};
use super::values::Spanned;
use super::{opcua, raw};
use control_core::units::{MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS};
use device_drivers::modbus::{Address, DataType, Format, Table};
use floor_plan::FloorPlan;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// How often bays are read.
const BAYS_INTERVAL: Duration = Duration::from_secs(1);

impl DeviceReader<'_> {
    /// Reads a `[[machine]]`. Returns the machines it is of.
    pub(super) fn machine(&mut self, raw: &raw::Machine, bound: &mut Bound) -> Vec<MachineId> {
        let at = raw.name.as_ref().unwrap_or(&raw.status).span();
        let Some(plan) = self.floor else {
            self.no_floor(at);
            return Vec::new();
        };
        let (source, name) = match (&raw.name, self.machine) {
            (Some(name), _) => (self.profile, name),
            (None, Some((source, name))) => (source, name),
            (None, None) => {
                let label = "this [[machine]] has no name, and the device has no `machine`".to_string();
                let help = "give the device `machine = \"..\"`, or the [[machine]] a name".into();
                self.problem_help(at, "which machine is this?", label, help);
                return Vec::new();
            }
        };
        let Some(first) = plan.machine(name.get_ref()) else {
            self.no_such_machine(source, name, plan);
            return Vec::new();
        };
        let count = raw.count.as_ref().map_or(1, |c| *c.get_ref());
        if count == 0 || usize::from(first.0) + usize::from(count) > plan.machine_count() {
            let at = raw.count.as_ref().map_or(at, Spanned::span);
            let left = plan.machine_count() - usize::from(first.0);
            let label = format!("found {count}, and from `{}` on the floor has {left}", name.get_ref());
            self.problem(at, "the floor does not have so many machines", label);
            return Vec::new();
        }
        let ids: Vec<MachineId> = (first.0..first.0 + count).map(MachineId).collect();
        for id in &ids {
            if let Some(other) = bound.machines.insert(*id, self.device_name.to_string()) {
                let label = format!("device `{other}` has {} already", plan.machine_name(*id));
                self.problems.push(source.problem(name.span(), "this machine has two controllers", label));
            }
        }
        if self.is_modbus() {
            self.modbus_machines(raw, plan, &ids)
        } else {
            self.opcua_machines(raw, plan, &ids)
        }
        ids
    }

    fn modbus_machines(&mut self, raw: &raw::Machine, plan: &FloorPlan, ids: &[MachineId]) {
        let (status, command) = if ids.len() == 1 {
            (self.address(&raw.status, STATUS_WORDS as u16), self.address(&raw.command, COMMAND_WORDS as u16))
        } else {
            let run = |words: usize| u16::try_from(words * ids.len()).unwrap_or(u16::MAX);
            (self.run_address(&raw.status, run(STATUS_WORDS)), self.run_address(&raw.command, run(COMMAND_WORDS)))
        };
        let (Some(status), Some(command)) = (status, command) else { return };
        if command.table != Table::Holding {
            self.problem(raw.command.span(), "a command block must be writable", "only holding registers are");
        }
        for (n, id) in (0u16..).zip(ids) {
            let name = format!("{}.status", plan.machine_name(*id));
            let point = self.point(&name, Role::Machine(*id), false, MACHINE_INTERVAL);
            let address = Address { number: status.number + n * STATUS_WORDS as u16, ..status };
            self.push_modbus(point, address, Format::plain(DataType::Words(STATUS_WORDS as u8)), MACHINE_INTERVAL);
            self.out.block_commands.push((*id, command.number + n * COMMAND_WORDS as u16));
        }
    }

    fn opcua_machines(&mut self, raw: &raw::Machine, plan: &FloorPlan, ids: &[MachineId]) {
        for text in [&raw.status, &raw.command] {
            if ids.len() > 1 && !text.get_ref().contains("{machine}") {
                let label = "several machines need several nodes: put {machine} where their name belongs";
                return self.problem(text.span(), "one node for several machines", label);
            }
        }
        for id in ids {
            let name = plan.machine_name(*id);
            let of = |text: &Spanned<String>| Spanned::new(text.span(), text.get_ref().replace("{machine}", name));
            let (Some(status), Some(command)) = (self.node(&of(&raw.status)), self.node(&of(&raw.command))) else {
                return;
            };
            let point = self.point(&format!("{name}.status"), Role::Machine(*id), false, MACHINE_INTERVAL);
            let publishing = self.ua.map_or(MACHINE_INTERVAL, |ua| ua.publishing);
            self.push_node(point, status, opcua::status_block(publishing), None);
            self.out.node_commands.push((*id, command));
        }
    }

    /// Reads `[sensors]`: the positions of the aisles and stations whose machines the device has.
    pub(super) fn sensors(&mut self, raw: &raw::Sensors, own: &[MachineId], bound: &mut Bound) {
        let at = [&raw.first, &raw.node, &raw.from].into_iter().flatten().next().map_or(0..0, Spanned::span);
        let Some(plan) = self.floor else { return self.no_floor(at) };
        let Some(positions) = self.which_positions(raw, own, plan, &at) else { return };
        for pos in &positions {
            if let Some(other) = bound.positions.insert(*pos, self.device_name.to_string()) {
                let label = format!("device `{other}` reads {} already", plan.position_name(*pos));
                return self.problem(at, "every load position must be read once", label);
            }
        }
        let bays = self.interval(raw.bays.as_ref(), BAYS_INTERVAL);
        let floor = plan.view();
        let interval = |pos| if floor.is_bay(pos) { bays } else { MACHINE_INTERVAL };
        if self.is_modbus() {
            let Some(text) = &raw.first else {
                return self.problem(at, "load sensors need a register", "say `first = \"input:..\"`");
            };
            let registers = u16::try_from(2 * positions.len()).unwrap_or(u16::MAX);
            let Some(first) = self.run_address(text, registers) else { return };
            for (n, pos) in (0u16..).zip(positions) {
                let id =
                    self.point(&format!("load.{}", plan.position_name(pos)), Role::Position(pos), true, interval(pos));
                let address = Address { number: first.number + 2 * n, ..first };
                self.push_modbus(id, address, Format::plain(DataType::U32), interval(pos));
            }
            return;
        }
        let Some(text) = raw.node.as_ref().filter(|t| t.get_ref().contains("{position}")) else {
            let label = "over OPC UA say `node`, with {position} where the position's name belongs";
            return self.problem(at, "load sensors need a node each", label);
        };
        let publishing = self.ua.map_or(MACHINE_INTERVAL, |ua| ua.publishing);
        for pos in positions {
            let name = plan.position_name(pos);
            let Some(node) = self.node(&Spanned::new(text.span(), text.get_ref().replace("{position}", name))) else {
                return;
            };
            let id = self.point(&format!("load.{name}"), Role::Position(pos), true, interval(pos));
            self.push_node(id, node, opcua::status_block(publishing), None);
        }
    }

    fn which_positions(
        &mut self,
        raw: &raw::Sensors,
        own: &[MachineId],
        plan: &FloorPlan,
        at: &Range<usize>,
    ) -> Option<Vec<PosId>> {
        let floor = plan.view();
        let sensed = |domain: &control_core::floor::DomainInfo| domain.sensed().collect::<Vec<PosId>>();
        let mut all: Vec<PosId> = if let Some(from) = &raw.from {
            let first = (0..plan.sensed()).map(PosId).find(|p| plan.position_name(*p) == from.get_ref());
            let Some(first) = first else {
                let names: Vec<&str> = (0..plan.sensed()).map(|n| plan.position_name(PosId(n))).collect();
                let near = closest(from.get_ref(), &names).map_or(String::new(), |n| format!("did you mean `{n}`?"));
                let label = format!("`{}` is not on this floor", from.get_ref());
                self.problem_help(from.span(), "the floor has no such position", label, near);
                return None;
            };
            let domain = floor.tables().domains.iter().find(|d| d.sensed().any(|p| p == first));
            match (&raw.count, domain) {
                (Some(_), _) => (first.0..plan.sensed()).map(PosId).collect(),
                (None, Some(domain)) => sensed(domain).into_iter().filter(|p| *p >= first).collect(),
                (None, None) => vec![first],
            }
        } else {
            let domains: BTreeSet<u16> = own.iter().filter_map(|m| floor.machine(*m)).map(|m| m.domain.0).collect();
            domains.iter().filter_map(|d| floor.tables().domains.get(usize::from(*d))).flat_map(sensed).collect()
        };
        if let Some(count) = &raw.count {
            let most = usize::from(*count.get_ref());
            if most == 0 || most > all.len() {
                self.problem(
                    count.span(),
                    "there are not so many positions",
                    format!("found {most}, must be 1 to {}", all.len()),
                );
                return None;
            }
            all.truncate(most);
        }
        if all.is_empty() {
            let label = "no machine of this device has load positions beside it";
            let help = "say `from` with the name of the first position, or take [sensors] out";
            self.problem_help(at.clone(), "which positions are these?", label.into(), help.into());
            return None;
        }
        Some(all)
    }

    fn no_such_machine(&mut self, source: &Source, name: &Spanned<String>, plan: &FloorPlan) {
        const SHOWN: usize = 24;
        let names: Vec<&str> = plan.machine_names().iter().map(String::as_str).collect();
        let mut help =
            format!("the machines are: {}", names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", "));
        if names.len() > SHOWN {
            help += &format!(", and {} more", names.len() - SHOWN);
            if let Some(near) = closest(name.get_ref(), &names) {
                help = format!("did you mean `{near}`? {help}");
            }
        }
        let label = format!("`{}` is not on this floor", name.get_ref());
        self.problems.push(source.problem(name.span(), "the floor has no such machine", label).help(help));
    }

    fn no_floor(&mut self, at: Range<usize>) {
        let help = "add a [floor] table to the configuration, or take this out of the profile";
        let label = "the configuration has no [floor]".to_string();
        self.problem_help(at, "a machine needs a floor", label, help.into());
    }
}
