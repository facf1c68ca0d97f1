//! The field lines: each with its driver, its points and the machines it carries.

use super::advice::Advice;
use super::plan::{DevicePlan, DriverPlan, LinePlan};
use super::report::{Files, Problem, Source, parse};
use super::tags::{Bound, DeviceReader, INTERVAL, LinePoints, Names, line_of};
use super::topics::{device_topic, own_topic, topic_level};
use super::values::{Spanned, within};
use super::{csv, modbus, opcua, raw};
use control_core::units::{MachineId, PosId};
use device_drivers::block::COMMAND_WORDS;
use device_drivers::modbus::{DeviceSpec, Order};
use floor_plan::FloorPlan;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Profiles that have been read: a hundred devices may share one.
type Profiles = HashMap<PathBuf, Option<Rc<(Source, raw::Profile)>>>;

/// Reads the lines of all files.
pub(super) struct Lines<'a> {
    raw: &'a raw::Config,
    floor: Option<&'a FloorPlan>,
    state_dir: &'a Path,
    problems: &'a mut Vec<Problem>,
    files: &'a mut Files,
    bound: Bound,
    names: Names,
    profiles: Profiles,
    /// Names of profiles, in small letters, and the files that have them.
    templates: HashMap<String, (PathBuf, PathBuf)>,
    notes: Vec<String>,
    advice: Advice,
}

impl<'a> Lines<'a> {
    pub(super) fn new(
        raw: &'a raw::Config,
        floor: Option<&'a FloorPlan>,
        state_dir: &'a Path,
        problems: &'a mut Vec<Problem>,
        files: &'a mut Files,
    ) -> Lines<'a> {
        let (bound, names, profiles) = (Bound::default(), Names::default(), Profiles::new());
        let templates = HashMap::new();
        Lines {
            raw,
            floor,
            state_dir,
            problems,
            files,
            bound,
            names,
            profiles,
            templates,
            notes: Vec::new(),
            advice: Advice::default(),
        }
    }

    pub(super) fn read(
        mut self,
        root: &Source,
        files: &[(&Source, &[raw::Line])],
    ) -> (Vec<LinePlan>, [Vec<String>; 2]) {
        let (mut names, mut devices) = (HashSet::new(), HashSet::new());
        let mut plans = Vec::new();
        for (source, line) in files.iter().flat_map(|(source, lines)| lines.iter().map(move |l| (*source, l))) {
            if !names.insert(line.name.get_ref().clone()) {
                let label = format!("`{}` is already the name of another line", line.name.get_ref());
                self.problems.push(source.problem(line.name.span(), "two lines have the same name", label));
            }
            for device in &line.devices {
                topic_level(source, &device.name, self.problems);
                topic_level(source, &device.cell, self.problems);
                if !devices.insert(device.name.get_ref().clone()) {
                    let label = format!("`{}` is already the name of another device", device.name.get_ref());
                    self.problems.push(source.problem(device.name.span(), "two devices have the same name", label));
                }
            }
            plans.extend(self.line(source, line));
        }
        self.floor_is_complete(root);
        (plans, [self.notes, self.advice.take()])
    }

    /// Every machine has a controller, every load position is read once.
    fn floor_is_complete(&mut self, root: &Source) {
        let (Some(plan), Some(raw)) = (self.floor, &self.raw.floor) else { return };
        if !self.problems.is_empty() {
            return;
        }
        let at = [raw.file.as_ref().map(Spanned::span), raw.tiers.as_ref().map(Spanned::span)];
        let at = at.into_iter().flatten().next().unwrap_or(0..0);
        let machines = (0..plan.machine_count() as u16).map(MachineId);
        let missing: Vec<&str> =
            machines.filter(|id| !self.bound.machines.contains_key(id)).map(|id| plan.machine_name(id)).collect();
        if !missing.is_empty() {
            let label = format!("no profile has a [[machine]] for: {}", shortened(&missing));
            let problem = root.problem(at, "the floor has machines that nobody controls", label);
            let help = "add a [[machine]] with its status and command block to the profile of its controller";
            self.problems.push(problem.help(help));
            return;
        }
        let unread = (0..plan.sensed()).map(PosId).filter(|pos| !self.bound.positions.contains_key(pos));
        let unread: Vec<&str> = unread.map(|pos| plan.position_name(pos)).collect();
        if !unread.is_empty() {
            let seen = usize::from(plan.sensed()) - unread.len();
            let at = raw.bays_per_side.as_ref().map_or(at, Spanned::span);
            let label = format!(
                "{} load positions, and profiles that read {seen}; without: {}",
                plan.sensed(),
                shortened(&unread)
            );
            let problem = root.problem(at, "every load position must be read once", label);
            let help =
                "the profile of each aisle and station has a [sensors] table, with the register of its first position";
            self.problems.push(problem.help(help));
        }
    }

    fn line(&mut self, source: &Source, line: &raw::Line) -> Option<LinePlan> {
        let is_modbus = match (&line.modbus, &line.opcua) {
            (Some(_), None) => true,
            (None, Some(_)) => false,
            _ => {
                let label = "give it either `modbus = \"host:port\"` or `opcua = \"opc.tcp://host:port/\"`";
                self.problems.push(source.problem(line.name.span(), "this line has no protocol, or two", label));
                return None;
            }
        };
        self.strays(source, line, is_modbus);
        let ms = Duration::from_millis;
        let timeout = within(source, &line.timeout, ms(1000), ms(50)..=ms(60_000), self.problems);
        // The plant's watchdog is half a second or more: the heartbeat has to come several times in that.
        let heartbeat = within(source, &line.heartbeat, ms(100), ms(20)..=ms(250), self.problems);
        let kept = (self.state_dir, self.raw.gateway.state_dir.is_some());
        let ua = line.opcua.as_ref().map(|at| opcua::line(source, line, at, timeout, kept, self.problems));
        let mut all = LinePoints::default();
        let (mut specs, mut devices) = (Vec::new(), Vec::new());
        for (n, device) in line.devices.iter().enumerate() {
            let name = device.name.get_ref();
            let unit = device.unit.as_ref().map_or(1, |u| *u.get_ref());
            let topic = device_topic(self.raw, device.cell.get_ref(), name);
            if let Some(taken) = own_topic(self.raw, &topic.0) {
                let label = format!("its values would go to {taken}, which is a topic of the gateway's own");
                let problem = source.problem(device.name.span(), "this name is taken", label);
                self.problems.push(problem.help("give the device, or its cell, another name"));
            }
            let (cell, profile) = (device.cell.get_ref().as_str(), self.template(source, device));
            let (cell, profile) = (self.names.get(cell), self.names.get(&profile));
            devices.push(DevicePlan { name: name.as_str().into(), unit, cell, profile, topic });
            let before = all.points.len();
            self.device(source, device, n as u32, unit, ua.as_ref(), &mut all);
            if all.points.len() == before {
                let at = line_of(&source.text, device.name.span().start);
                all.advice.add(&source.path, at, &format!("{name} has no tags: nothing of it is read"));
            }
            specs.push(DeviceSpec {
                unit,
                points: std::mem::take(&mut all.modbus),
                limits: std::mem::take(&mut all.limits),
                single_writes: all.single_writes,
                mask_write: all.mask_write,
                foreign_replies: device.foreign_replies.as_ref().is_some_and(|f| *f.get_ref()),
                commands: std::mem::take(&mut all.block_commands),
            });
        }
        self.problems.extend(overlap(source, line, &specs));
        if is_modbus {
            all.advice.of_units(source, line);
        }
        if line.devices.is_empty() {
            let (name, at) = (line.name.get_ref(), line_of(&source.text, line.name.span().start));
            let what = format!("line {name} has no [[line.device]]: nothing is read");
            all.advice.add(&source.path, at, &what);
        }
        self.advice.append(&mut all.advice); // lines may have profiles in common
        let machines = specs
            .iter()
            .flat_map(|s| s.commands.iter().map(|(m, _)| *m))
            .chain(all.node_commands.iter().map(|(m, _)| *m));
        let machines = machines.collect();
        let driver = match ua {
            None => DriverPlan::Modbus(modbus::line(source, line, timeout, specs, self.problems)?),
            Some(ua) => {
                ua.allow_for(&all.nodes, &mut all.points);
                DriverPlan::OpcUa(ua.spec(all.nodes, all.node_commands))
            }
        };
        self.notes.append(&mut all.notes);
        let name = line.name.get_ref().as_str().into();
        Some(LinePlan { name, driver, devices: devices.into(), points: all.points.into(), machines, heartbeat })
    }

    /// Keys that belong to the other protocol.
    fn strays(&mut self, source: &Source, line: &raw::Line, is_modbus: bool) {
        let (other, own) = if is_modbus { ("OPC UA", "Modbus") } else { ("Modbus", "OPC UA") };
        let strays: Vec<Option<Range<usize>>> = if is_modbus {
            opcua::keys_of_line(line).into_iter().map(Some).collect()
        } else {
            let of_line = [
                line.serial.as_ref().map(Spanned::span),
                line.tls.as_ref().map(Spanned::span),
                line.pipeline.as_ref().map(Spanned::span),
                line.pause.as_ref().map(Spanned::span),
                line.close_after_poll.as_ref().map(Spanned::span),
            ];
            let of_devices = line.devices.iter().flat_map(|d| {
                let foreign = d.foreign_replies.as_ref().map(Spanned::span);
                [d.unit.as_ref().map(Spanned::span), d.order.as_ref().map(Spanned::span), foreign]
            });
            of_line.into_iter().chain(of_devices).collect()
        };
        for stray in strays.into_iter().flatten() {
            let title = format!("this key belongs to {other}");
            self.problems.push(source.problem(stray, title, format!("the line speaks {own}")));
        }
    }

    fn device(
        &mut self,
        source: &Source,
        device: &raw::Device,
        number: u32,
        unit: u8,
        ua: Option<&opcua::LineKeys>,
        out: &mut LinePoints,
    ) {
        let profile = device.profile.as_ref().map(|path| self.profile(source, path));
        if device.profile.is_none() && device.tags.is_none() {
            let problem = source.problem(device.name.span(), "this device has no tags", "nothing would be read");
            self.problems.push(problem.help("add `profile = \"file.toml\"` or `tags = \"file.csv\"`"));
        }
        if matches!(profile, Some(None)) {
            return; // told already
        }
        let profile = profile.flatten();
        if let Some(machine) = &device.machine
            && !profile.as_ref().is_some_and(|p| p.1.machines.iter().any(|m| m.name.is_none()))
        {
            let label = "its profile has no [[machine]] that waits for a name";
            let problem = source.problem(machine.span(), "nothing of this device is a machine", label);
            self.problems.push(problem.help("take `name` out of the [[machine]] of the profile, or take this out"));
        }
        (out.single_writes, out.mask_write) = (true, false);
        let mut reader = DeviceReader {
            floor: self.floor,
            machine: device.machine.as_ref().map(|m| (source, m)),
            profile: source,
            ua,
            device: number,
            device_name: device.name.get_ref(),
            unit,
            order: Order::default(),
            order_is_the_device_s: device.order.is_some(),
            interval: INTERVAL,
            names: &mut self.names,
            seen: HashMap::new(),
            absent: Vec::new(),
            powers: HashMap::new(),
            problems: self.problems,
            out,
        };
        reader.order = reader.order(&device.order).unwrap_or_default();
        if let Some(profile) = &profile {
            reader.profile = &profile.0;
            reader.read(&profile.1, &mut self.bound);
        }
        let table = device.tags.as_ref().map(|path| {
            self.files
                .read(&beside(source, path.get_ref()))
                .map_err(|why| {
                    vec![source.unread(
                        path.span(),
                        "the tag table cannot be read",
                        &why,
                        "tables are looked for beside this file",
                    )]
                })
                .and_then(|table| csv::tags(&table).map(|tags| (table, tags)).map_err(|report| report.0))
        });
        match &table {
            None => {}
            Some(Ok((table, tags))) => {
                reader.profile = table;
                reader.tags(tags);
            }
            Some(Err(problems)) => reader.problems.extend(problems.iter().cloned()),
        }
        reader.overlaps();
    }

    /// What a device's tags come from, by the names of the files. Templates are told apart by it.
    fn template(&mut self, source: &Source, device: &raw::Device) -> String {
        let given = [&device.profile, &device.tags];
        let stem = |path: &Spanned<String>| Some(Path::new(path.get_ref()).file_stem()?.to_string_lossy().into_owned());
        let name = given.into_iter().flatten().filter_map(stem).collect::<Vec<_>>().join("-");
        let [profile, tags] =
            given.map(|path| path.as_ref().map_or_else(PathBuf::new, |p| plain(&beside(source, p.get_ref()))));
        let sparkplug = self.raw.mqtt.as_ref().and_then(|m| m.sparkplug.as_ref());
        let files = (profile, tags);
        let known = self.templates.entry(name.to_lowercase()).or_insert_with(|| files.clone());
        if *known != files && sparkplug.is_some_and(|s| s.get_ref().templates) {
            let at = given.into_iter().flatten().next().map_or(0..0, Spanned::span);
            let other = if known.0.as_os_str().is_empty() { &known.1 } else { &known.0 };
            let label = format!("`{name}` is already the template of {}", other.display());
            let problem = source.problem(at, "two templates have the same name", label);
            self.problems.push(
                problem.help(
                    "templates are named after files, and capitals do not tell them apart: rename one of the files",
                ),
            );
        }
        name
    }

    /// A profile, read once; its problems are told once.
    fn profile(&mut self, source: &Source, path: &Spanned<String>) -> Option<Rc<(Source, raw::Profile)>> {
        let file = beside(source, path.get_ref());
        if let Some(known) = self.profiles.get(&file) {
            return known.clone();
        }
        let read = match self.files.read(&file) {
            Ok(profile) => match parse(&profile) {
                Ok(parsed) => Some(Rc::new((profile, parsed))),
                Err(report) => {
                    self.problems.extend(report.0);
                    None
                }
            },
            Err(why) => {
                self.problems.push(source.unread(
                    path.span(),
                    "the profile cannot be read",
                    &why,
                    "profile files are looked for beside this file",
                ));
                None
            }
        };
        self.profiles.insert(file, read.clone());
        read
    }
}

fn shortened(names: &[&str]) -> String {
    const MOST: usize = 12;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown}, and {} more", names.len() - MOST) } else { shown }
}

/// A path as the file that names it means it.
pub(super) fn beside(source: &Source, path: &str) -> PathBuf {
    source.path.parent().map_or_else(|| PathBuf::from(path), |dir| dir.join(path))
}

/// A path without detours: a file in `conf.d` names the same profile by another one.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
        plain
    })
}

/// Two command blocks in the same registers: each machine would take the other's words for damage, and hold.
fn overlap(source: &Source, line: &raw::Line, devices: &[DeviceSpec]) -> Option<Problem> {
    let mut blocks: Vec<(u8, u16)> =
        devices.iter().flat_map(|d| d.commands.iter().map(|(_, first)| (d.unit, *first))).collect();
    blocks.sort_unstable();
    let clash = blocks.windows(2).find(|w| w[0].0 == w[1].0 && w[1].1 - w[0].1 < COMMAND_WORDS as u16)?;
    let last = |first: u16| u32::from(first) + COMMAND_WORDS as u32 - 1;
    let (unit, a, b) = (clash[0].0, clash[0].1, clash[1].1);
    let label =
        format!("unit {unit}: holding:{a} to {} and holding:{b} to {} are both command blocks", last(a), last(b));
    let problem = source.problem(line.name.span(), "two command blocks overlap", label);
    Some(problem.help(format!("a command block takes {COMMAND_WORDS} registers; correct `command` in the profile")))
}
