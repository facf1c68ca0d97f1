//! The field lines: each with its driver, its points and the machines it carries.

use super::opcua;
use super::plan::{DriverPlan, LinePlan, Role, TOPIC, expand, host_port, levels, topic_level, within};
use super::raw;
use super::report::{Problem, Source, parse};
use super::tags::{self, Bound, DeviceReader, LinePoints};
use control_core::Layout;
use device_drivers::block::COMMAND_WORDS;
use device_drivers::modbus::{DeviceSpec, TcpSpec};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

pub(super) fn lines(
    source: &Source,
    raw: &raw::Config,
    layout: &Layout,
    state_dir: &std::path::Path,
    problems: &mut Vec<Problem>,
) -> Vec<LinePlan> {
    let mut bound = Bound::new();
    let (mut names, mut devices) = (HashSet::new(), HashSet::new());
    let mut plans = Vec::new();
    for line in &raw.lines {
        if !names.insert(line.name.get_ref().clone()) {
            let label = format!("`{}` is already the name of another line", line.name.get_ref());
            problems.push(source.problem(line.name.span(), "two lines have the same name", label));
        }
        for device in &line.devices {
            topic_level(source, &device.name, problems);
            topic_level(source, &device.cell, problems);
            if !devices.insert(device.name.get_ref().clone()) {
                let label = format!("`{}` is already the name of another device", device.name.get_ref());
                problems.push(source.problem(device.name.span(), "two devices have the same name", label));
            }
        }
        plans.extend(self::line(source, raw, line, layout, state_dir, &mut bound, problems));
    }
    let missing: Vec<String> =
        layout.machine_ids().filter(|id| !bound.contains_key(id)).map(|id| tags::machine_name(layout, id)).collect();
    if !missing.is_empty() && problems.is_empty() {
        let label = format!("no profile has a [[machine]] for: {}", missing.join(", "));
        let problem = source.problem(raw.floor.tiers.span(), "the floor has machines that nobody controls", label);
        problems
            .push(problem.help("add a [[machine]] with its status and command block to the profile of its controller"));
    }
    let reads_positions = |l: &LinePlan| l.points.iter().filter(|p| matches!(p.role, Role::Position(_))).count();
    let seen: usize = plans.iter().map(reads_positions).sum();
    if problems.is_empty() && seen != usize::from(layout.sensed()) {
        let label = format!("{} load positions, and profiles that read {seen}", layout.sensed());
        let problem = source.problem(raw.floor.bays_per_side.span(), "every load position must be read once", label);
        problems.push(problem.help("exactly one profile has a [sensors] table, with the register of position 0"));
    }
    plans
}

fn line(
    source: &Source,
    raw: &raw::Config,
    line: &raw::Line,
    layout: &Layout,
    state_dir: &std::path::Path,
    bound: &mut Bound,
    problems: &mut Vec<Problem>,
) -> Option<LinePlan> {
    let is_modbus = match (&line.modbus, &line.opcua) {
        (Some(_), None) => true,
        (None, Some(_)) => false,
        _ => {
            let label = "give it either `modbus = \"host:port\"` or `opcua = \"opc.tcp://host:port/\"`";
            problems.push(source.problem(line.name.span(), "this line has no protocol, or two", label));
            return None;
        }
    };
    let strays: Vec<std::ops::Range<usize>> = if is_modbus {
        opcua::keys_of_line(line)
    } else {
        line.devices.iter().filter_map(|d| d.unit.as_ref().map(Spanned::span)).collect()
    };
    for stray in strays {
        let (other, own) = if is_modbus { ("OPC UA", "Modbus") } else { ("Modbus", "OPC UA") };
        let title = format!("this key belongs to {other}");
        problems.push(source.problem(stray, title, format!("the line speaks {own}")));
    }
    let ms = Duration::from_millis;
    let timeout = within(source, &line.timeout, ms(1000), ms(50)..=ms(60_000), problems);
    // The plant's watchdog is half a second or more: the heartbeat has to come several times in that.
    let heartbeat = within(source, &line.heartbeat, ms(100), ms(20)..=ms(250), problems);
    let endpoint = line.opcua.as_ref();
    let kept = (state_dir, raw.gateway.state_dir.is_some());
    let ua = endpoint.map(|endpoint| opcua::line(source, line, endpoint, timeout, kept, problems));
    let mut ua_points = Vec::new();
    let mut all = LinePoints::default();
    let mut specs = Vec::new();
    for (index, device) in line.devices.iter().enumerate() {
        let before = (all.modbus.len(), all.block_commands.len());
        let nodes_before = all.nodes.len();
        let template = raw.mqtt.topic.as_ref().map_or(TOPIC, |t| t.get_ref());
        let topic = |tag: &str| expand(template, &levels(raw, device.cell.get_ref(), device.name.get_ref(), tag));
        let path = source.path.parent().map_or_else(PathBuf::new, |p| p.to_path_buf()).join(device.profile.get_ref());
        let profile = match Source::read(&path) {
            Ok(profile) => profile,
            Err(why) => {
                let label = why.first_title();
                let problem = source.problem(device.profile.span(), "the profile cannot be read", label);
                problems.push(problem.help("profile files are looked for beside this file"));
                continue;
            }
        };
        let parsed: raw::Profile = match parse(&profile) {
            Ok(parsed) => parsed,
            Err(report) => {
                problems.extend(report.0);
                continue;
            }
        };
        let name = device.name.get_ref();
        DeviceReader { layout, profile: &profile, is_modbus, device: name, topic: &topic, problems, out: &mut all }
            .read(&parsed, bound);
        if let Some(ua) = &ua {
            let nodes = &all.nodes[nodes_before..];
            let at = (index, name.as_str());
            ua_points.extend(opcua::points(&profile, &parsed, nodes, &all.points, at, ua.publishing, problems));
        } else {
            for stray in opcua::keys_of_tags(&parsed) {
                problems.push(profile.problem(stray, "this key belongs to OPC UA", "the device speaks Modbus"));
            }
        }
        specs.push(DeviceSpec {
            unit: device.unit.as_ref().map_or(1, |u| *u.get_ref()),
            points: all.modbus[before.0..].to_vec(),
            limits: all.limits,
            commands: all.block_commands[before.1..].to_vec(),
        });
    }
    let overlaps = overlap(source, line, &specs);
    problems.extend(overlaps);
    let driver = if let Some(ua) = ua {
        ua.allow_for(&ua_points, &mut all.points);
        DriverPlan::OpcUa(ua.spec(ua_points, all.node_commands.clone()))
    } else {
        let peer = line.modbus.as_ref()?;
        host_port(source, peer, problems);
        DriverPlan::Modbus(TcpSpec { peer: peer.get_ref().clone(), connect_timeout: timeout, timeout, devices: specs })
    };
    let machines =
        all.block_commands.iter().map(|(m, _)| *m).chain(all.node_commands.iter().map(|(m, _)| *m)).collect();
    let name = line.name.get_ref().as_str().into();
    Some(LinePlan { name, driver, points: all.points.into(), machines, heartbeat })
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
