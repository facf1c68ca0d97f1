//! From a device and its profile to points: tags, status blocks and load sensors, each with a number and a role.

use super::advice::Advice;
use super::meaning::Meanings;
use super::plan::{PointPlan, Role, WriteRule};
use super::report::{Problem, Source, closest};
use super::values::{Exact, Spanned};
use super::{opcua, raw, topics};
use crate::telemetry::spool::Stream;
use control_core::units::{MachineId, PosId};
use device_drivers::Number;
use device_drivers::modbus::{Address, DataType, Format, Limits, Order, PointSpec, Scale, Special, Table, Written};
use device_drivers::opcua::{Mode, NodeName, UaPoint, WATCHDOG};
use device_drivers::value::PointId;
use floor_plan::FloorPlan;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Problems after which nobody reads on: a table that is wrong as a whole has one in each of a million rows.
pub(super) const PROBLEMS_MAX: usize = 1000;
/// How often tags are read when nothing is said.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// The fastest poll: below it the network's own jitter decides (FIELD section 5).
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The slowest: twice three times as long has to fit into 49 days, after which the clock of staleness wraps.
const INTERVAL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How often machines and the sensors beside them are read.
pub(super) const MACHINE_INTERVAL: Duration = Duration::from_millis(50);

/// What one line's devices come to.
#[derive(Default)]
pub(super) struct LinePoints {
    pub(super) points: Vec<PointPlan>,
    /// Of the device being read.
    pub(super) modbus: Vec<PointSpec>,
    pub(super) nodes: Vec<UaPoint>,
    /// Of the device being read.
    pub(super) block_commands: Vec<(MachineId, u16)>,
    pub(super) node_commands: Vec<(MachineId, NodeName)>,
    pub(super) limits: Limits,
    pub(super) single_writes: bool,
    pub(super) mask_write: bool,
    /// Addresses that were typed in another form than ours: tag, as typed, in our form.
    pub(super) notes: Vec<String>,
    /// What hardly anybody means.
    pub(super) advice: Advice,
}

/// Who holds which machine, and who reads which position, over all lines.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) machines: HashMap<MachineId, String>,
    pub(super) positions: HashMap<PosId, String>,
}

/// One name for a tag that a hundred devices have.
#[derive(Default)]
pub(super) struct Names(HashSet<Arc<str>>, pub(super) Meanings, pub(super) Vec<Arc<Special>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

/// One device being turned into points.
pub(super) struct DeviceReader<'a> {
    pub(super) floor: Option<&'a FloorPlan>,
    /// The machine the device says it has.
    pub(super) machine: Option<(&'a Source, &'a Spanned<String>)>,
    /// The file that is being read: profile or tag table.
    pub(super) profile: &'a Source,
    /// The line's keys, where it speaks OPC UA.
    pub(super) ua: Option<&'a opcua::LineKeys>,
    /// Its number on the line.
    pub(super) device: u32,
    pub(super) device_name: &'a str,
    pub(super) unit: u8,
    pub(super) order: Order,
    pub(super) order_is_the_device_s: bool,
    pub(super) interval: Duration,
    pub(super) names: &'a mut Names,
    pub(super) seen: HashMap<String, (std::path::PathBuf, usize)>,
    /// What the profile says of tags that say nothing of absent values.
    pub(super) absent: Vec<String>,
    /// Tags of the file being read that say how others are scaled: where they are, or why they cannot.
    pub(super) powers: HashMap<String, Result<Address, String>>,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) out: &'a mut LinePoints,
}

impl DeviceReader<'_> {
    pub(super) fn is_modbus(&self) -> bool {
        self.ua.is_none()
    }

    pub(super) fn problem(&mut self, at: Range<usize>, title: impl Into<String>, label: impl Into<String>) {
        self.problems.push(self.profile.problem(at, title, label));
    }

    pub(super) fn problem_help(&mut self, at: Range<usize>, title: &str, label: String, help: String) {
        self.problems.push(self.profile.problem(at, title, label).help(help));
    }

    /// A text that has to be one of ours.
    fn parsed<T: FromStr<Err = String>>(&mut self, text: &Option<Spanned<String>>, title: &str) -> Option<T> {
        let text = text.as_ref()?;
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(text.span(), title, why);
                None
            }
        }
    }

    pub(super) fn order(&mut self, text: &Option<Spanned<String>>) -> Option<Order> {
        self.parsed(text, "unknown order of words and bytes")
    }

    pub(super) fn read(&mut self, raw: &raw::Profile, bound: &mut Bound) {
        self.limits(&raw.limits);
        // What the device says goes before what its profile says.
        if let (Some(order), false) = (self.order(&raw.order), self.order_is_the_device_s) {
            self.order = order;
        }
        let mut own = Vec::new();
        for machine in &raw.machines {
            own.extend(self.machine(machine, bound));
        }
        if let Some(sensors) = &raw.sensors {
            self.sensors(sensors, &own, bound);
        }
        self.interval = self.interval(raw.interval.as_ref(), self.interval);
        self.absent_of_all(raw.absent.as_ref());
        self.tags(&raw.tags);
    }

    pub(super) fn tags(&mut self, tags: &[raw::Tag]) {
        let (mut line, mut at) = (1, 0);
        self.find_powers(tags);
        for tag in tags {
            if self.problems.len() >= PROBLEMS_MAX {
                return;
            }
            // Tags come in the order of the file: the lines of a long one are counted once.
            let start = tag.name.span().start;
            line = match self.profile.text.get(at..start) {
                Some(between) => line + newlines(between),
                None => line_of(&self.profile.text, start),
            };
            at = start;
            let here = (self.profile.path.clone(), line);
            if let Some((file, line)) = self.seen.insert(tag.name.get_ref().clone(), here) {
                let name = tag.name.get_ref().clone();
                let other = if file == self.profile.path { String::new() } else { format!(" of {}", file.display()) };
                self.problem_help(
                    tag.name.span(),
                    "two tags have the same name",
                    format!("`{name}` is already the tag in line {line}{other}"),
                    "a tag's name is part of its topic: give each its own".into(),
                );
            }
            self.tag(tag);
        }
    }

    fn limits(&mut self, raw: &raw::Limits) {
        let says = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|f| *f.get_ref());
        let mut limits = Limits { single: says(&raw.one_by_one), ..Limits::default() };
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
        for never in &raw.never {
            match never_range(never.get_ref()) {
                Some(range) => limits.never.push(range),
                None => {
                    let label = format!("found \"{}\", expected a range, as in \"holding:100..120\"", never.get_ref());
                    self.problem(never.span(), "this is no range of addresses", label);
                }
            }
        }
        let spans = [&raw.registers, &raw.bits, &raw.gap].into_iter().flatten().map(Spanned::span);
        let flags = [&raw.one_by_one, &raw.multiple_writes_only, &raw.mask_write];
        let flags = flags.into_iter().flatten().map(Spanned::span);
        let given = spans.chain(raw.never.iter().map(Spanned::span)).chain(flags).next();
        if let (Some(given), false) = (given, self.is_modbus()) {
            self.problem(given, "these limits belong to Modbus", "the device speaks OPC UA");
        }
        self.out.limits = limits;
        self.out.single_writes = !says(&raw.multiple_writes_only);
        self.out.mask_write = says(&raw.mask_write);
    }

    pub(super) fn interval(&mut self, given: Option<&Spanned<super::values::Time>>, default: Duration) -> Duration {
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
        if interval > INTERVAL_MAX {
            self.problem(given.span(), "this interval is too long", "must be 7 days or less");
        }
        interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    /// Adds a point; `publish` is false for what only the control loop wants to see.
    pub(super) fn point(&mut self, tag: &str, role: Role, publish: bool, interval: Duration) -> PointId {
        let id = PointId(u32::try_from(self.out.points.len()).unwrap_or(u32::MAX));
        // A subscription says nothing while nothing changes: there the watchdog decides what is stale.
        let floor = if self.is_modbus() { Duration::from_millis(300) } else { WATCHDOG };
        self.out.points.push(PointPlan {
            device: self.device,
            tag: self.names.get(tag),
            publish,
            role,
            stale_after: (interval * 3).max(floor),
            write: None,
            stream: Stream::Normal,
            deadband: 0.0,
            meaning: None,
        });
        id
    }

    pub(super) fn address(&mut self, text: &Spanned<String>, registers: u16) -> Option<Address> {
        self.written(text, registers, true).map(|w| w.address)
    }

    /// The address of a run of values, which may take several requests.
    pub(super) fn run_address(&mut self, text: &Spanned<String>, registers: u16) -> Option<Address> {
        self.written(text, registers, false).map(|w| w.address)
    }

    fn written(&mut self, text: &Spanned<String>, registers: u16, at_once: bool) -> Option<Written> {
        let written = match text.get_ref().parse::<Written>() {
            Ok(written) => written,
            Err(why) => {
                self.problem(text.span(), "this is not a Modbus address", why.to_string());
                return None;
            }
        };
        let address = written.address;
        let last = u32::from(address.number) + u32::from(registers) - 1;
        if last > u32::from(u16::MAX) {
            self.problem(
                text.span(),
                "this address is out of range",
                format!("it takes {registers} registers and would end at {last}, beyond 65535"),
            );
            return None;
        }
        if let Some(range) = self.out.limits.forbids(address.table, u32::from(address.number), last + 1) {
            let range = format!("{}:{}..{}", address.table.name(), range.start(), range.end());
            self.problem(text.span(), "this address may never be read", format!("`never` in [limits] has {range}"));
            return None;
        }
        let most = self.out.limits.most(address.table);
        if at_once && registers > most {
            let label = format!("it takes {registers} registers, and the device gives {most} at once");
            self.problem(text.span(), "this value does not fit into one request", label);
            return None;
        }
        if let Some(unit) = written.unit.filter(|u| *u != self.unit) {
            let label = format!("it names unit {unit}, and the device is unit {}", self.unit);
            self.problem(text.span(), "this address is another unit's", label);
        }
        Some(written)
    }

    /// A node; `{device}` in it is the device's name, so that devices that are alike share a profile.
    pub(super) fn node(&mut self, text: &Spanned<String>) -> Option<NodeName> {
        match text.get_ref().replace("{device}", self.device_name).parse::<NodeName>() {
            Ok(node) => Some(node),
            Err(why) => {
                self.problem(text.span(), "this is not an OPC UA node", why);
                None
            }
        }
    }

    /// Adds a point that is only read.
    pub(super) fn push_modbus(&mut self, id: PointId, address: Address, format: Format, interval: Duration) {
        let (writable, read_modify_write) = (false, false);
        self.out.modbus.push(PointSpec { id, address, format, interval, writable, read_modify_write });
    }

    pub(super) fn push_node(&mut self, id: PointId, node: NodeName, mode: Mode, range: Option<f64>) {
        self.out.nodes.push(UaPoint { id, device: self.device as usize, node, mode, range });
    }

    fn tag(&mut self, raw: &raw::Tag) {
        let interval = self.interval(raw.interval.as_ref(), self.interval);
        let name = raw.name.get_ref();
        if let Some(label) = topics::unfit(name) {
            self.problem(raw.name.span(), "this name cannot be part of a topic", label);
        } else if name.is_empty() || name.contains(['/', '+', '#']) || name.chars().any(char::is_whitespace) {
            self.problem(raw.name.span(), "this name cannot be part of a topic", "no blanks, no `/`, `+` or `#`");
        }
        if name.starts_with("load.") {
            self.problem(
                raw.name.span(),
                "this name is taken",
                "names that begin with `load.` are those of load positions",
            );
        }
        match self.ua {
            None => self.modbus_tag(raw, interval),
            Some(ua) => self.opcua_tag(raw, interval, ua.publishing),
        }
    }

    fn opcua_tag(&mut self, raw: &raw::Tag, interval: Duration, publishing: Duration) {
        let Some(node) = &raw.node else {
            self.problem(
                raw.name.span(),
                "this tag has no node",
                "add `node = \"nsu=..;s=..\"`: the device speaks OPC UA",
            );
            return;
        };
        let texts = [&raw.address, &raw.kind, &raw.order, &raw.scale_from].into_iter().flatten().map(Spanned::span);
        let texts = texts.chain(raw.absent.iter().map(Spanned::span));
        let numbers = [raw.factor.as_ref().map(Spanned::span), raw.offset.as_ref().map(Spanned::span)];
        let limits = [raw.min.as_ref().map(Spanned::span), raw.max.as_ref().map(Spanned::span)];
        let numbers = numbers.into_iter().chain(limits).flatten();
        for stray in texts.chain(numbers).collect::<Vec<_>>() {
            self.problem(stray, "this key belongs to Modbus", "the device speaks OPC UA");
        }
        if let Some(write) = raw.write.as_ref().filter(|w| w.get_ref().read_modify_write) {
            self.problem(write.span(), "`read_modify_write` belongs to Modbus", "a node is written as a whole");
        }
        if let Some(given) = &raw.interval {
            let help =
                "set `sampling` at the tag or `publishing` at the line: the server sends changes by itself".to_string();
            self.problem_help(given.span(), "a node is not polled", "no effect here".into(), help);
        }
        let Some(node) = self.node(node) else { return };
        let mode = opcua::mode(self.profile, raw, publishing, self.problems);
        let id = self.point(raw.name.get_ref(), Role::Telemetry, true, interval);
        self.push_node(id, node, mode, opcua::range(raw));
        self.reporting(raw);
        self.meaning(raw);
        self.write_rule(raw);
    }

    fn modbus_tag(&mut self, raw: &raw::Tag, interval: Duration) {
        let strays = raw.node.as_ref().map(Spanned::span).into_iter().chain(opcua::keys_of_tag(raw));
        for stray in strays.collect::<Vec<_>>() {
            self.problem(stray, "this key belongs to OPC UA", "the device speaks Modbus");
        }
        let (Some(typed), Some(kind_text)) = (&raw.address, &raw.kind) else {
            let what = "add `address = \"holding:0\"` and `type = \"u16\"`: the device speaks Modbus";
            self.problem(raw.name.span(), "this tag has no address or no type", what);
            return;
        };
        let Some(kind) = self.data_type(kind_text) else { return };
        let Some(Written { address, order, .. }) = self.written(typed, kind.registers(), true) else { return };
        self.address_fits(typed, address, kind);
        let order = order.or_else(|| self.order(&raw.order)).unwrap_or(self.order);
        let scale = self.scale(raw, kind);
        if let Some(write) = &raw.write {
            self.can_be_written(write, address, kind);
        }
        let name = raw.name.get_ref();
        if address.to_string() != *typed.get_ref() {
            let device = self.device_name;
            self.out.notes.push(format!("{device}/{name}: {} is {address}, {order}", typed.get_ref()));
        }
        let id = self.point(name, Role::Telemetry, true, interval);
        let read_modify_write = raw.write.as_ref().is_some_and(|w| w.get_ref().read_modify_write);
        let special = self.special(raw, kind, address);
        let format = Format { kind, order, scale, special };
        self.write_is_wide(raw, &format, address.table.is_bits() || address.bits.is_some());
        let writable = raw.write.is_some();
        self.out.modbus.push(PointSpec { id, address, format, interval, writable, read_modify_write });
        self.reporting(raw);
        self.range_is_a_number_s(raw, kind);
        self.meaning(raw);
        self.write_rule(raw);
    }

    fn can_be_written(&mut self, write: &Spanned<raw::Write>, address: Address, kind: DataType) {
        let is_part = kind.is_part() || address.bits.is_some();
        if !address.table.is_writable() {
            self.problem(write.span(), "this address cannot be written", "only coils and holding registers are");
        } else if kind == DataType::DateTimeBcd {
            self.problem(write.span(), "this type cannot be written", format!("{kind} is only read"));
        } else if write.get_ref().read_modify_write && !is_part {
            let label = "`read_modify_write` is for parts of a register, and this tag has registers of its own";
            self.problem(write.span(), "there is nothing to read before this is written", label);
        } else if is_part && !write.get_ref().read_modify_write && !self.out.mask_write {
            let help = "if the device knows function 22: mask_write = true in [limits]; else, if nobody else writes to this register, not the \
                        PLC's own program either: write = { .., read_modify_write = true }; best: a coil or a register of its own"
                .to_string();
            let label = "other bits of the register would be overwritten".to_string();
            self.problem_help(write.span(), "a part of a register cannot be written just so", label, help);
        }
    }

    fn data_type(&mut self, text: &Spanned<String>) -> Option<DataType> {
        let why = match text.get_ref().parse::<DataType>() {
            Ok(kind) => return Some(kind),
            Err(why) => why,
        };
        let all: Vec<&str> = DataType::names().collect();
        let near = closest(&familiar(text.get_ref()), &all).map_or(String::new(), |n| format!("did you mean `{n}`? "));
        let help = format!("{near}The types are: {}", all.join(", "));
        self.problem_help(text.span(), "unknown type", why, help);
        None
    }

    fn address_fits(&mut self, typed: &Spanned<String>, address: Address, kind: DataType) {
        let is_bit = address.table.is_bits() || address.bits.is_some_and(|b| b.count == 1);
        let is_field = address.bits.is_some_and(|b| b.count > 1);
        let (label, help) = match kind {
            _ if is_field && kind != DataType::U16 => {
                ("these are bits of a register", "a field of bits has type `u16`")
            }
            DataType::Bool if !is_bit => {
                ("this address is a register", "name the bit, as in \"holding:5.3\", or choose a number type")
            }
            DataType::Bool => return,
            _ if is_bit => ("this address is one bit", "a bit has type `bool`"),
            _ => return,
        };
        self.problem_help(typed.span(), "address and type do not fit", label.into(), help.into());
    }

    fn scale(&mut self, raw: &raw::Tag, kind: DataType) -> Option<Box<Scale>> {
        let plain = |n: &Spanned<f64>| (n.span(), *n.get_ref());
        let limit = |n: &Spanned<Exact>| (n.span(), n.get_ref().0.as_f64());
        let numbers = [&raw.factor, &raw.offset].map(|n| n.as_ref().map(plain));
        let limits = [&raw.min, &raw.max].map(|n| n.as_ref().map(limit));
        let given: Vec<(Range<usize>, f64)> = numbers.into_iter().chain(limits).flatten().collect();
        let (first, _) = given.first()?;
        if !kind.is_number() {
            let label = format!("this tag is {kind}");
            self.problem(first.clone(), "only numbers have factor, offset, min and max", label);
        }
        if let Some((span, wrong)) = given.iter().find(|(_, n)| !n.is_finite()) {
            self.problem(span.clone(), "this is not a number to calculate with", format!("found {wrong}"));
            return None;
        }
        let number = |given: &Option<Spanned<f64>>, default| given.as_ref().map_or(default, |n| *n.get_ref());
        let (factor, offset) = (number(&raw.factor, 1.0), number(&raw.offset, 0.0));
        if let Some(given) = raw.factor.as_ref().filter(|f| *f.get_ref() == 0.0 || !f.get_ref().is_finite()) {
            self.problem(given.span(), "this factor makes every value the same", "must be a number other than 0");
        }
        let end = |given: &Option<Spanned<Exact>>, default| given.as_ref().map_or(default, |n| n.get_ref().0);
        let (min, max) = (end(&raw.min, Number::LEAST), end(&raw.max, Number::MOST));
        if let Some(given) = raw.min.as_ref().filter(|_| min > max) {
            self.problem(given.span(), "min is greater than max", format!("{min} is greater than {max}"));
        }
        let clamp = (raw.min.is_some() || raw.max.is_some()).then_some((min, max));
        Some(Box::new(Scale { factor, offset, clamp }))
    }

    /// How the point that was added last is reported.
    fn reporting(&mut self, raw: &raw::Tag) {
        // An OPC UA server does that itself, before it sends anything.
        if self.is_modbus() {
            let deadband = self.deadband(raw);
            self.out.points.last_mut().into_iter().for_each(|point| point.deadband = deadband);
        }
        let stream = match raw.priority.as_ref().map(|p| (p.get_ref().as_str(), p.span())) {
            None => return,
            Some(("high", _)) => Stream::High,
            Some(("normal", _)) => Stream::Normal,
            Some(("low", _)) => Stream::Low,
            Some((other, span)) => {
                let label = format!("found \"{other}\", expected \"high\", \"normal\" or \"low\"");
                return self.problem(span, "unknown priority", label);
            }
        };
        if let Some(point) = self.out.points.last_mut() {
            point.stream = stream;
        }
    }

    /// In the unit of the value; percent are those of its range.
    fn deadband(&mut self, raw: &raw::Tag) -> f64 {
        if let (Some(percent), Some(_)) = (&raw.deadband_percent, &raw.deadband) {
            let label = "`deadband` says it already, in the unit of the value";
            self.problem(percent.span(), "this tag has two deadbands", label);
        }
        let Some(given) = raw.deadband.as_ref().or(raw.deadband_percent.as_ref()) else { return 0.0 };
        let most = if raw.deadband.is_some() { f64::INFINITY } else { 100.0 };
        if !(*given.get_ref() > 0.0 && *given.get_ref() < most) {
            let label = format!("must be more than 0 and less than {most}");
            self.problem(given.span(), "this deadband is out of range", label);
        }
        if raw.deadband.is_some() {
            return *given.get_ref();
        }
        let end = |n: &Option<Spanned<f64>>| n.as_ref().map(|n| *n.get_ref());
        let limit = |n: &Option<Spanned<Exact>>| n.as_ref().map(|n| n.get_ref().0.as_f64());
        match end(&raw.low).zip(end(&raw.high)).or(limit(&raw.min).zip(limit(&raw.max))) {
            Some((from, to)) => (to - from) * given.get_ref() / 100.0,
            None => {
                let help = "add `low` and `high`, or say `deadband` in the unit of the value".to_string();
                self.problem_help(given.span(), "percent of what?", "this tag has no range".into(), help);
                0.0
            }
        }
    }

    /// The rule of the point that was added last.
    fn write_rule(&mut self, raw: &raw::Tag) {
        let (Some(write), Some(point)) = (&raw.write, self.out.points.last_mut()) else { return };
        let rule = write.get_ref();
        let (min, max) = (rule.min.map(|n| n.0), rule.max.map(|n| n.0));
        if let Some(given) = rule.every.filter(|t| t.0.is_zero()) {
            let label = format!("`every` is {}: leave it out", humantime::format_duration(given.0));
            self.problems.push(self.profile.problem(write.span(), "this rate limits nothing", label));
        }
        let (least, most) = (min.unwrap_or(Number::LEAST), max.unwrap_or(Number::MOST));
        if least.partial_cmp(&most).is_none_or(|order| order.is_gt()) {
            let (min, max) = (least, most);
            let label = format!("{min} to {max} is no range");
            self.problems.push(self.profile.problem(write.span(), "nothing could ever be written", label));
        }
        point.write = Some(Arc::new(WriteRule {
            min,
            max,
            every: rule.every.map_or(Duration::ZERO, |t| t.0),
            priority: rule.priority,
            verify: rule.verify.unwrap_or(true),
        }));
    }
}

/// `holding:100..120`, both ends included.
fn never_range(text: &str) -> Option<(Table, std::ops::RangeInclusive<u16>)> {
    let (first, last) = text.split_once("..")?;
    let first: Address = first.parse().ok()?;
    let last: u16 = last.parse().ok()?;
    (first.bits.is_none() && first.number <= last).then_some((first.table, first.number..=last))
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
    text.get(..at).map_or(1, |before| newlines(before) + 1)
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}
