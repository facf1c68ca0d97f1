//! The gateway itself: what its tables mean, `[gateway]`, `[http]` and `[control]`, and how all that was read comes together. Here every
//! problem is found that lies in one value; what lies between several is found where they meet (`lines`, `machines`, `mqtt`).

use super::floor::floor;
use super::http;
use super::plan::{ControlPlan, Plan};
use super::raw;
use super::report::{Files, Problem, Report, Source};
use super::topics::topic_level;
use super::values::{no_home, within};
use super::{lines, mqtt};
use crate::control::rt::RealTime;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(10);
const PERIOD_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);
/// How long a stop waits for machines. A supervisor that waits less kills us before the last word is out.
const DRAIN: Duration = Duration::from_secs(10);
const DRAIN_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

pub(super) fn plan(
    source: &Source,
    raw: raw::Config,
    parts: Vec<(Source, raw::Part)>,
    kept: &mut Files,
) -> Result<Plan, Report> {
    let mut problems = Vec::new();
    let floor = raw.floor.as_ref().and_then(|f| floor(source, f, kept, &mut problems));
    let control = control(source, &raw.control, &mut problems);
    let gateway = gateway(source, &raw.gateway, &mut problems);
    let access = http::access(source, &raw, &gateway.1, &mut problems);
    let mut defects = Vec::new();
    let http = http::http(source, &raw, (gateway.0, &gateway.1), &mut problems, &mut defects);
    let mqtt = raw.mqtt.as_ref().map(|m| mqtt::mqtt(source, m, &raw, &mut problems));
    if raw.floor.is_some() && floor.is_none() {
        return Err(Report(problems));
    }
    let mut files = vec![(source, &raw.lines[..])];
    files.extend(parts.iter().map(|(source, part)| (source, &part.lines[..])));
    let drain = within(source, &raw.gateway.drain, DRAIN, DRAIN_RANGE, &mut problems);
    let plan = floor.as_ref().map(|f| &*f.plan);
    let (lines, [notes, mut advice]) =
        lines::Lines::new(&raw, plan, &gateway.1, &mut problems, kept).read(source, &files);
    if !problems.is_empty() {
        problems.append(&mut defects);
        return Err(Report(problems));
    }
    if let Some(commands) = raw.mqtt.as_ref().and_then(|m| m.commands.as_ref()) {
        advice.extend(super::advice::of_allowed(source, &commands.get_ref().allow, &lines));
    }
    let (listen, state_dir) = gateway;
    let is_kept = raw.gateway.state_dir.is_some();
    let gateway = raw.gateway.name.into_inner();
    Ok(Plan {
        gateway,
        listen,
        state_dir,
        is_kept,
        drain,
        control,
        mqtt,
        floor,
        lines,
        notes,
        advice,
        defects,
        access,
        http,
        file: None,
        files: Files::default(),
    })
}

fn gateway(source: &Source, raw: &raw::Gateway, problems: &mut Vec<Problem>) -> (SocketAddr, PathBuf) {
    for level in [&raw.name, &raw.area, &raw.line].into_iter().chain(&raw.enterprise).chain(&raw.site) {
        topic_level(source, level, problems);
    }
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let listen = match &raw.listen {
        None => default,
        Some(text) => text.get_ref().parse().unwrap_or_else(|_| {
            let label = "expected an address and a port, as in \"127.0.0.1:9464\"";
            problems.push(source.problem(text.span(), "this is not a listening address", label));
            default
        }),
    };
    let beside = |dir: &str| source.path.parent().map_or_else(|| PathBuf::from(dir), |p| p.join(dir));
    if let Some(given) = &raw.state_dir {
        no_home(source, given, problems);
    }
    let given = raw.state_dir.as_ref().map(|dir| beside(dir.get_ref()));
    let state_dir = given.unwrap_or_else(|| std::env::temp_dir().join("lightsout"));
    (listen, state_dir)
}

fn control(source: &Source, raw: &raw::Control, problems: &mut Vec<Problem>) -> ControlPlan {
    let period = within(source, &raw.period, PERIOD, PERIOD_RANGE, problems);
    let stale = Duration::from_millis(300)..=Duration::from_secs(10);
    let stale_after = within(source, &raw.stale_after, Duration::from_millis(500), stale, problems);
    let valid = Duration::from_millis(500)..=Duration::from_secs(60);
    let command_valid = within(source, &raw.command_valid, Duration::from_secs(2), valid, problems);

    let priority = raw.priority.as_ref().map_or(60, |p| *p.get_ref());
    if let Some(given) = &raw.priority
        && !(1..=99).contains(&priority)
    {
        problems.push(source.problem(given.span(), "this is not a priority of SCHED_FIFO", "must be 1 to 99"));
    }
    let mode = raw.realtime.as_ref().map_or("try", |m| m.get_ref());
    let realtime = RealTime { wanted: mode != "off", required: mode == "require", priority, core: raw.core };
    if let Some(given) = &raw.realtime
        && !["try", "require", "off"].contains(&mode)
    {
        let label = format!("found \"{mode}\", expected \"try\", \"require\" or \"off\"");
        problems.push(source.problem(given.span(), "unknown real-time mode", label));
    }
    ControlPlan { period, realtime, stale_after, command_valid }
}
