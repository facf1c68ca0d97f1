//! From a device and its profile to points: tags, status blocks and load sensors, each with a number and a role.

use super::plan::{PointPlan, Role};
use super::raw;
use super::report::{Problem, Source, closest};
use control_core::layout::{Conveyor, End, Layout, MachineKind, Place};
use control_core::units::{MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS};
use device_drivers::modbus::{Address, DataType, PlanLimits, PointSpec, Scale, Table, WordOrder};
use device_drivers::opcua::{NodeName, WATCHDOG};
use device_drivers::value::PointId;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;

/// How often tags are read when nothing is said.
const INTERVAL: Duration = Duration::from_millis(100);
/// The fastest poll: below it the network's own jitter decides (FIELD section 5).
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// How often machines and the sensors beside them are read.
const MACHINE_INTERVAL: Duration = Duration::from_millis(50);
/// How often bays are read.
const BAYS_INTERVAL: Duration = Duration::from_secs(1);

const TYPES: [(&str, DataType); 9] = [
    ("bool", DataType::Bool),
    ("u16", DataType::U16),
    ("i16", DataType::I16),
    ("u32", DataType::U32),
    ("i32", DataType::I32),
    ("f32", DataType::F32),
    ("u64", DataType::U64),
    ("i64", DataType::I64),
    ("f64", DataType::F64),
];

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

/// What one line's devices come to.
#[derive(Default)]
pub(super) struct LinePoints {
    pub(super) points: Vec<PointPlan>,
    pub(super) modbus: Vec<PointSpec>,
    pub(super) nodes: Vec<(PointId, NodeName)>,
    pub(super) block_commands: Vec<(MachineId, u16)>,
    pub(super) node_commands: Vec<(MachineId, NodeName)>,
    pub(super) limits: PlanLimits,
}

/// Who holds which machine, over all lines.
pub(super) type Bound = HashMap<MachineId, String>;

/// One device being turned into points.
pub(super) struct DeviceReader<'a> {
    pub(super) layout: &'a Layout,
    pub(super) profile: &'a Source,
    pub(super) is_modbus: bool,
    pub(super) device: &'a str,
    pub(super) topic: &'a dyn Fn(&str) -> String,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) out: &'a mut LinePoints,
}

impl DeviceReader<'_> {
    fn problem(&mut self, at: Range<usize>, title: impl Into<String>, label: impl Into<String>) {
        self.problems.push(self.profile.problem(at, title, label));
    }

    fn problem_help(&mut self, at: Range<usize>, title: &str, label: String, help: String) {
        self.problems.push(self.profile.problem(at, title, label).help(help));
    }

    pub(super) fn read(&mut self, raw: &raw::Profile, bound: &mut Bound) {
        self.limits(&raw.limits);
        for machine in &raw.machines {
            self.machine(machine, bound);
        }
        if let Some(sensors) = &raw.sensors {
            self.sensors(sensors);
        }
        let interval = self.interval(raw.interval.as_ref(), INTERVAL);
        let mut names: HashMap<&str, Range<usize>> = HashMap::new();
        for tag in &raw.tags {
            if let Some(first) = names.insert(tag.name.get_ref(), tag.name.span()) {
                let line = line_of(&self.profile.text, first.start);
                let name = tag.name.get_ref().clone();
                self.problem_help(
                    tag.name.span(),
                    "two tags have the same name",
                    format!("`{name}` is already the tag in line {line}"),
                    "a tag's name is part of its topic: give each its own".into(),
                );
            }
            self.tag(tag, interval);
        }
    }

    fn limits(&mut self, raw: &raw::Limits) {
        let mut limits = PlanLimits::default();
        for (given, most, slot) in [(&raw.registers, 125, &mut limits.registers), (&raw.bits, 2000, &mut limits.bits)] {
            let Some(given) = given else { continue };
            if !(1..=most).contains(given.get_ref()) {
                self.problems.push(self.profile.problem(
                    given.span(),
                    "no Modbus server takes this many in one request",
                    format!("must be 1 to {most}"),
                ));
            }
            *slot = *given.get_ref();
        }
        if let Some(gap) = &raw.gap {
            limits.gap = *gap.get_ref();
        }
        let given = [&raw.registers, &raw.bits, &raw.gap].into_iter().flatten().next();
        if let (Some(given), false) = (given, self.is_modbus) {
            self.problem(given.span(), "these limits belong to Modbus", "the device speaks OPC UA");
        }
        self.out.limits = limits;
    }

    fn interval(&mut self, given: Option<&Spanned<super::values::Time>>, default: Duration) -> Duration {
        let Some(given) = given else { return default };
        let interval = given.get_ref().0;
        if interval < INTERVAL_MIN {
            self.problem_help(
                given.span(),
                "this interval is too short",
                format!("must be {INTERVAL_MIN:?} or more"),
                "what must react faster belongs in the PLC".into(),
            );
        }
        interval
    }

    /// Adds a point; `topic` is `None` for what only the control loop wants to see.
    fn point(&mut self, tag: &str, role: Role, publish: bool, interval: Duration) -> PointId {
        let id = PointId(u32::try_from(self.out.points.len()).unwrap_or(u32::MAX));
        // A subscription says nothing while nothing changes: there the watchdog decides what is stale.
        let floor = if self.is_modbus { Duration::from_millis(300) } else { WATCHDOG };
        self.out.points.push(PointPlan {
            name: format!("{}/{tag}", self.device).into(),
            topic: publish.then(|| (self.topic)(tag).into()),
            role,
            stale_after: (interval * 3).max(floor),
        });
        id
    }

    fn address(&mut self, text: &Spanned<String>, registers: u16) -> Option<Address> {
        match text.get_ref().parse::<Address>() {
            Ok(address) => {
                let last = u32::from(address.number) + u32::from(registers) - 1;
                if last > u32::from(u16::MAX) {
                    self.problem(
                        text.span(),
                        "this address is out of range",
                        format!("it takes {registers} registers and would end at {last}, beyond 65535"),
                    );
                    return None;
                }
                Some(address)
            }
            Err(why) => {
                self.problem(text.span(), "this is not a Modbus address", why.to_string());
                None
            }
        }
    }

    fn node(&mut self, text: &Spanned<String>) -> Option<NodeName> {
        match text.get_ref().parse::<NodeName>() {
            Ok(node) => Some(node),
            Err(why) => {
                self.problem(text.span(), "this is not an OPC UA node", why);
                None
            }
        }
    }

    fn push_modbus(&mut self, id: PointId, address: Address, kind: DataType, interval: Duration) {
        let spec = PointSpec { id, address, kind, order: WordOrder::HighFirst, scale: None, interval };
        self.out.modbus.push(spec);
    }

    fn machine(&mut self, raw: &raw::Machine, bound: &mut Bound) {
        let names: Vec<(String, MachineId)> =
            self.layout.machine_ids().map(|id| (machine_name(self.layout, id), id)).collect();
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
        if self.is_modbus {
            let status = self.address(&raw.status, STATUS_WORDS as u16);
            let command = self.address(&raw.command, COMMAND_WORDS as u16);
            let (Some(status), Some(command)) = (status, command) else { return };
            if command.table != Table::Holding {
                self.problem(raw.command.span(), "a command block must be writable", "only holding registers are");
            }
            let id_of =
                self.point(&format!("{}.status", raw.name.get_ref()), Role::Machine(*id), false, MACHINE_INTERVAL);
            self.push_modbus(id_of, status, DataType::Words(STATUS_WORDS as u8), MACHINE_INTERVAL);
            self.out.block_commands.push((*id, command.number));
        } else {
            let (status, command) = (self.node(&raw.status), self.node(&raw.command));
            let (Some(status), Some(command)) = (status, command) else { return };
            let id_of =
                self.point(&format!("{}.status", raw.name.get_ref()), Role::Machine(*id), false, MACHINE_INTERVAL);
            self.out.nodes.push((id_of, status));
            self.out.node_commands.push((*id, command));
        }
    }

    fn sensors(&mut self, raw: &raw::Sensors) {
        if !self.is_modbus {
            self.problem(raw.first.span(), "load sensors are read over Modbus", "this device speaks OPC UA");
            return;
        }
        let bays = self.interval(raw.bays.as_ref(), BAYS_INTERVAL);
        let Some(first) = self.address(&raw.first, 2 * self.layout.sensed()) else { return };
        for pos in (0..self.layout.sensed()).map(PosId) {
            let is_bay = matches!(self.layout.place(pos), Some(Place::Bay { .. }));
            let interval = if is_bay { bays } else { MACHINE_INTERVAL };
            let name = position_name(self.layout, pos);
            let id = self.point(&format!("load.{name}"), Role::Position(pos), true, interval);
            let address = Address { number: first.number + 2 * pos.0, ..first };
            self.push_modbus(id, address, DataType::U32, interval);
        }
    }

    fn tag(&mut self, raw: &raw::Tag, interval: Duration) {
        let interval = self.interval(raw.interval.as_ref(), interval);
        let name = raw.name.get_ref();
        if name.is_empty() || name.contains(['/', '+', '#', '\0']) || name.chars().any(char::is_whitespace) {
            self.problem(raw.name.span(), "this name cannot be part of a topic", "no blanks, no `/`, `+` or `#`");
        }
        if name.starts_with("load.") {
            self.problem(
                raw.name.span(),
                "this name is taken",
                "names that begin with `load.` are those of load positions",
            );
        }
        if !self.is_modbus {
            let Some(node) = &raw.node else {
                self.problem(
                    raw.name.span(),
                    "this tag has no node",
                    "add `node = \"nsu=..;s=..\"`: the device speaks OPC UA",
                );
                return;
            };
            let texts = [&raw.address, &raw.kind, &raw.first_word].into_iter().flatten().map(Spanned::span);
            let numbers = [&raw.factor, &raw.offset].into_iter().flatten().map(Spanned::span);
            for stray in texts.chain(numbers).collect::<Vec<_>>() {
                self.problem(stray, "this key belongs to Modbus", "the device speaks OPC UA");
            }
            if let Some(given) = &raw.interval {
                let help = "set `publishing` at the line in agent.toml: the server sends changes by itself".to_string();
                self.problem_help(given.span(), "a node is not polled", "no effect here".into(), help);
            }
            let Some(node) = self.node(node) else { return };
            let id = self.point(name, Role::Telemetry, true, interval);
            self.out.nodes.push((id, node));
            return;
        }
        if let Some(stray) = &raw.node {
            self.problem(stray.span(), "this key belongs to OPC UA", "the device speaks Modbus");
        }
        let (Some(address), Some(kind)) = (&raw.address, &raw.kind) else {
            let what = "add `address = \"holding:0\"` and `type = \"u16\"`: the device speaks Modbus";
            self.problem(raw.name.span(), "this tag has no address or no type", what);
            return;
        };
        let Some((_, data_type)) = TYPES.iter().find(|(n, _)| n == kind.get_ref()) else {
            let all: Vec<&str> = TYPES.iter().map(|(n, _)| *n).collect();
            let near =
                closest(&familiar(kind.get_ref()), &all).map_or(String::new(), |n| format!("did you mean `{n}`? "));
            let label = format!("there is no type `{}`", kind.get_ref());
            self.problem_help(kind.span(), "unknown type", label, format!("{near}The types are: {}", all.join(", ")));
            return;
        };
        let Some(address_of) = self.address(address, data_type.registers()) else { return };
        let is_bit = address_of.table.is_bits() || address_of.bit.is_some();
        if is_bit != (*data_type == DataType::Bool) {
            let (label, help) = match is_bit {
                true => ("this address is one bit", "a bit has type `bool`"),
                false => ("this address is a register", "name the bit, as in \"holding:5.3\", or choose a number type"),
            };
            self.problem_help(address.span(), "address and type do not fit", label.into(), help.into());
        }
        let order = match raw.first_word.as_ref().map(|s| (s.get_ref().as_str(), s.span())) {
            None | Some(("high", _)) => WordOrder::HighFirst,
            Some(("low", _)) => WordOrder::LowFirst,
            Some((other, span)) => {
                let label = format!("found \"{other}\", expected \"high\" or \"low\"");
                self.problem(span, "unknown word order", label);
                WordOrder::HighFirst
            }
        };
        let number = |given: &Option<Spanned<f64>>, default| given.as_ref().map_or(default, |n| *n.get_ref());
        let scale = (raw.factor.is_some() || raw.offset.is_some())
            .then(|| Scale { factor: number(&raw.factor, 1.0), offset: number(&raw.offset, 0.0) });

        let id = self.point(name, Role::Telemetry, true, interval);
        self.out.modbus.push(PointSpec { id, address: address_of, kind: *data_type, order, scale, interval });
    }
}

/// A type as IEC 61131-3 and others call it, in our spelling.
fn familiar(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    match lower.as_str() {
        "int" | "short" => "i16".into(),
        "word" | "uint" => "u16".into(),
        "dint" | "long" => "i32".into(),
        "dword" | "udint" => "u32".into(),
        "real" | "float" | "single" => "f32".into(),
        "lreal" | "double" => "f64".into(),
        "bit" | "boolean" => "bool".into(),
        other => other.replace("uint", "u").replace("int", "i").replace("float", "f"),
    }
}

/// The line a byte is in, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}
