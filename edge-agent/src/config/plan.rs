//! What the file means: a plan that cannot be wrong later.

use super::raw;
use super::report::{Problem, Report, Source, parse};
use super::tags::{self, Bound, DeviceReader, LinePoints};
use crate::control::rt::RealTime;
use control_core::Layout;
use control_core::units::{MachineId, PosId};
use device_drivers::modbus::{DeviceSpec, TcpSpec};
use device_drivers::opcua::OpcUaSpec;
use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;

/// Everything the agent needs to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the gateway.
    pub gateway: String,
    /// Where metrics and orders are served.
    pub listen: SocketAddr,
    /// Keys and other things that outlive a run.
    pub state_dir: PathBuf,
    /// How long a stop waits for machines to finish.
    pub drain: Duration,
    /// The control loop.
    pub control: ControlPlan,
    /// Telemetry.
    pub mqtt: MqttPlan,
    /// The floor.
    pub layout: Layout,
    /// The field lines.
    pub lines: Vec<LinePlan>,
}

/// The control loop.
#[derive(Clone, Debug)]
pub struct ControlPlan {
    /// Period.
    pub period: Duration,
    /// What is asked of the host.
    pub realtime: RealTime,
    /// A status older than this is not believed.
    pub stale_after: Duration,
    /// How long a command may wait before it is begun.
    pub command_valid: Duration,
}

/// Telemetry.
#[derive(Clone, Debug)]
pub struct MqttPlan {
    /// Broker host.
    pub host: String,
    /// Broker port.
    pub port: u16,
    /// Client id.
    pub client_id: String,
    /// Topic of birth and last will.
    pub status_topic: String,
    /// Topic of loss records.
    pub loss_topic: String,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// An unchanged value is sent again after this long.
    pub heartbeat: Duration,
    /// Messages on their way at once.
    pub window: u16,
    /// Samples that may wait for the broker.
    pub spool_samples: usize,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// One field line.
#[derive(Clone, Debug)]
pub struct LinePlan {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// Protocol and peer.
    pub driver: DriverPlan,
    /// Its points; the index is the point's number.
    pub points: Arc<[PointPlan]>,
    /// Machines whose command blocks it carries.
    pub machines: Vec<MachineId>,
    /// How often the blocks are written although nothing changed.
    pub heartbeat: Duration,
}

/// Protocol and peer.
#[derive(Clone, Debug)]
pub enum DriverPlan {
    /// Modbus TCP.
    Modbus(TcpSpec),
    /// OPC UA.
    OpcUa(OpcUaSpec),
}

impl DriverPlan {
    /// Address of the peer, `host:port`.
    pub fn peer(&self) -> &str {
        match self {
            DriverPlan::Modbus(spec) => &spec.peer,
            DriverPlan::OpcUa(spec) => {
                let rest = spec.endpoint.strip_prefix("opc.tcp://").unwrap_or(&spec.endpoint);
                rest.split('/').next().unwrap_or(rest)
            }
        }
    }
}

/// One point of a line.
#[derive(Clone, Debug)]
pub struct PointPlan {
    /// `device/tag`.
    pub name: Arc<str>,
    /// Where it is published; `None` for what only the control loop sees.
    pub topic: Option<Arc<str>>,
    /// What it is to the control loop.
    pub role: Role,
    /// Without a new reading for this long it is Uncertain, for twice as long Bad.
    pub stale_after: Duration,
}

/// What a point is to the control loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: telemetry only.
    Telemetry,
    /// A machine's status block.
    Machine(MachineId),
    /// A load sensor.
    Position(PosId),
}

impl Plan {
    /// The name of a machine.
    pub fn machine_name(&self, id: MachineId) -> String {
        tags::machine_name(&self.layout, id)
    }

    /// The name of a position.
    pub fn position_name(&self, pos: PosId) -> String {
        tags::position_name(&self.layout, pos)
    }
}

const PERIOD: Duration = Duration::from_millis(10);
const PERIOD_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);
const TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}/{tag}";
const STATUS_TOPIC: &str = "lightsout/{area}/{line}/{gateway}/status";
/// Below five seconds the MQTT client library refuses to work.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// Memory one waiting sample takes, with its share of the queue.
const SAMPLE_BYTES: u64 = 256;

pub(super) fn plan(source: &Source, raw: raw::Config) -> Result<Plan, Report> {
    let mut problems = Vec::new();
    let layout = floor(source, &raw.floor, &mut problems);
    let control = control(source, &raw.control, &mut problems);
    let gateway = gateway(source, &raw.gateway, &mut problems);
    let mqtt = mqtt(source, &raw, &mut problems);
    let Some(layout) = layout else { return Err(Report(problems)) };
    let lines = lines(source, &raw, &layout, &gateway.1, &mut problems);
    if !problems.is_empty() {
        return Err(Report(problems));
    }
    let (listen, state_dir) = gateway;
    Ok(Plan {
        gateway: raw.gateway.name.into_inner(),
        listen,
        state_dir,
        drain: raw.gateway.drain.map_or(Duration::from_secs(10), |t| t.0),
        control,
        mqtt,
        layout,
        lines,
    })
}

fn floor(source: &Source, raw: &raw::Floor, problems: &mut Vec<Problem>) -> Option<Layout> {
    use control_core::limits::{BAYS_PER_SIDE_MAX, TIERS_MAX};
    let mut within = |value: &Spanned<u8>, most: usize| {
        if !(1..=most).contains(&usize::from(*value.get_ref())) {
            problems.push(source.problem(value.span(), "the floor does not fit", format!("must be 1 to {most}")));
        }
    };
    within(&raw.tiers, TIERS_MAX);
    within(&raw.bays_per_side, BAYS_PER_SIDE_MAX);
    Layout::new(*raw.tiers.get_ref(), *raw.bays_per_side.get_ref())
}

fn gateway(source: &Source, raw: &raw::Gateway, problems: &mut Vec<Problem>) -> (SocketAddr, PathBuf) {
    for level in [&raw.name, &raw.area, &raw.line] {
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
    let state_dir = raw.state_dir.as_deref().map_or_else(|| std::env::temp_dir().join("lightsout"), beside);
    (listen, state_dir)
}

fn topic_level(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) {
    let level = text.get_ref();
    if level.is_empty() || level.contains(['/', '+', '#', '\0']) || level.chars().any(char::is_whitespace) {
        let label = "a level has no blanks, no `/`, `+` or `#`, and is not empty";
        problems.push(source.problem(text.span(), "this name cannot be a level of a topic", label));
    }
}

fn control(source: &Source, raw: &raw::Control, problems: &mut Vec<Problem>) -> ControlPlan {
    let mut time =
        |given: &Option<Spanned<super::values::Time>>, default, range: std::ops::RangeInclusive<Duration>| {
            let Some(given) = given else { return default };
            let time = given.get_ref().0;
            if !range.contains(&time) {
                let label = format!("must be {:?} to {:?}", range.start(), range.end());
                problems.push(source.problem(given.span(), "this time is out of range", label));
            }
            time
        };
    let period = time(&raw.period, PERIOD, PERIOD_RANGE);
    let stale = Duration::from_millis(300)..=Duration::from_secs(10);
    let stale_after = time(&raw.stale_after, Duration::from_millis(500), stale);
    let valid = Duration::from_millis(500)..=Duration::from_secs(60);
    let command_valid = time(&raw.command_valid, Duration::from_secs(2), valid);

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

fn mqtt(source: &Source, raw: &raw::Config, problems: &mut Vec<Problem>) -> MqttPlan {
    let m = &raw.mqtt;
    let (host, port) = host_port(source, &m.broker, problems);
    let keep_alive = m.keep_alive.as_ref().map_or(KEEP_ALIVE_MIN, |t| t.get_ref().0);
    if let Some(given) = &m.keep_alive
        && (keep_alive < KEEP_ALIVE_MIN || keep_alive > Duration::from_secs(3600))
    {
        problems.push(source.problem(given.span(), "this keep-alive is out of range", "must be 5s to 1h"));
    }
    let window = m.window.as_ref().map_or(64, |w| *w.get_ref());
    if window == 0 || window > 1000 {
        let span = m.window.as_ref().map_or(0..0, Spanned::span);
        problems.push(source.problem(span, "this window is out of range", "must be 1 to 1000"));
    }
    let spool = m.spool.as_ref().map_or(64 << 20, |s| s.get_ref().0);
    if let Some(given) = &m.spool
        && !((1 << 20)..=(16 << 30)).contains(&spool)
    {
        problems.push(source.problem(given.span(), "this spool is out of range", "must be 1MiB to 16GiB"));
    }
    if let Some(topic) = &m.topic {
        check_template(source, topic, &["area", "line", "cell", "device", "tag", "gateway"], true, problems);
    }
    if let Some(topic) = &m.status_topic {
        check_template(source, topic, &["area", "line", "gateway"], false, problems);
    }
    let status_template = m.status_topic.as_ref().map_or(STATUS_TOPIC, |t| t.get_ref());
    let status_topic = expand(status_template, &levels(raw, "", "", ""));
    let loss_topic = format!("{}/lost", status_topic.trim_end_matches("/status"));
    MqttPlan {
        host,
        port,
        client_id: raw.gateway.name.get_ref().clone(),
        status_topic,
        loss_topic,
        keep_alive,
        heartbeat: m.heartbeat.map_or(Duration::from_secs(30), |t| t.0),
        window,
        spool_samples: usize::try_from(spool / SAMPLE_BYTES).unwrap_or(usize::MAX),
        login: login(source, m, problems),
    }
}

fn login(source: &Source, m: &raw::Mqtt, problems: &mut Vec<Problem>) -> Option<(String, String)> {
    let user = m.username.clone()?;
    let Some(file) = &m.password_file else { return Some((user, String::new())) };
    let path = source.path.parent().map_or_else(|| PathBuf::from(file.get_ref()), |dir| dir.join(file.get_ref()));
    match std::fs::read_to_string(&path) {
        Ok(password) => Some((user, password.trim_end().to_string())),
        Err(e) => {
            problems.push(source.problem(file.span(), "cannot read the password", format!("{}: {e}", path.display())));
            None
        }
    }
}

/// `host:port`, neither empty.
fn host_port(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) -> (String, u16) {
    let parsed = text.get_ref().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() && port > 0 && !host.contains(['/', ' ']) => (host.to_string(), port),
        _ => {
            let label = format!("found \"{}\", expected host:port, as in \"192.168.1.10:502\"", text.get_ref());
            problems.push(source.problem(text.span(), "this is not a network address", label));
            (String::new(), 0)
        }
    }
}

type Levels<'a> = [(&'static str, &'a str); 6];

fn levels<'a>(raw: &'a raw::Config, cell: &'a str, device: &'a str, tag: &'a str) -> Levels<'a> {
    let g = &raw.gateway;
    [
        ("{area}", g.area.get_ref()),
        ("{line}", g.line.get_ref()),
        ("{gateway}", g.name.get_ref()),
        ("{cell}", cell),
        ("{device}", device),
        ("{tag}", tag),
    ]
}

fn expand(template: &str, levels: &Levels<'_>) -> String {
    levels.iter().fold(template.to_string(), |topic, (name, value)| topic.replace(name, value))
}

fn check_template(source: &Source, text: &Spanned<String>, known: &[&str], full: bool, problems: &mut Vec<Problem>) {
    let template = text.get_ref();
    for part in template.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or(part);
        if !known.contains(&name) || !part.contains('}') {
            let label = format!("there is no level {{{name}}}; the levels are {{{}}}", known.join("}, {"));
            problems.push(source.problem(text.span(), "unknown level in a topic template", label));
        }
    }
    if template.is_empty() || template.contains(['+', '#']) {
        let label = "a topic to publish to has no wildcards and is not empty";
        problems.push(source.problem(text.span(), "this is not a topic", label));
    }
    if full && !(template.contains("{device}") && template.contains("{tag}")) {
        let label = "without {device} and {tag} several tags would share one topic";
        problems.push(source.problem(text.span(), "this template is too short", label));
    }
}

fn lines(
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
    let time =
        |given: &Option<Spanned<super::values::Time>>, default| given.as_ref().map_or(default, |t| t.get_ref().0);
    let timeout = time(&line.timeout, Duration::from_secs(1));
    let heartbeat = time(&line.heartbeat, Duration::from_millis(100));
    let mut all = LinePoints::default();
    let mut specs = Vec::new();
    for device in &line.devices {
        let before = (all.modbus.len(), all.block_commands.len());
        let template = raw.mqtt.topic.as_ref().map_or(TOPIC, |t| t.get_ref());
        let topic = |tag: &str| expand(template, &levels(raw, device.cell.get_ref(), device.name.get_ref(), tag));
        let path = source.path.parent().map_or_else(PathBuf::new, |p| p.to_path_buf()).join(device.profile.get_ref());
        let profile = match Source::read(&path) {
            Ok(profile) => profile,
            Err(_) => {
                let label = format!("cannot read {}", path.display());
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
        specs.push(DeviceSpec {
            unit: device.unit.unwrap_or(1),
            points: all.modbus[before.0..].to_vec(),
            limits: all.limits,
            commands: all.block_commands[before.1..].to_vec(),
        });
    }
    let driver = if is_modbus {
        let peer = line.modbus.as_ref()?;
        host_port(source, peer, problems);
        DriverPlan::Modbus(TcpSpec { peer: peer.get_ref().clone(), connect_timeout: timeout, timeout, devices: specs })
    } else {
        let endpoint = line.opcua.as_ref()?;
        check_opcua(source, line, endpoint, problems);
        let publishing = time(&line.publishing, Duration::from_millis(100));
        DriverPlan::OpcUa(OpcUaSpec {
            endpoint: endpoint.get_ref().clone(),
            timeout: timeout.max(Duration::from_secs(3)),
            publishing,
            sampling: publishing.min(Duration::from_millis(50)),
            pki_dir: state_dir.join("pki"),
            points: all.nodes,
            commands: all.node_commands.clone(),
        })
    };
    let machines =
        all.block_commands.iter().map(|(m, _)| *m).chain(all.node_commands.iter().map(|(m, _)| *m)).collect();
    let name = line.name.get_ref().as_str().into();
    Some(LinePlan { name, driver, points: all.points.into(), machines, heartbeat })
}

fn check_opcua(source: &Source, line: &raw::Line, endpoint: &Spanned<String>, problems: &mut Vec<Problem>) {
    let address = endpoint.get_ref().strip_prefix("opc.tcp://").map(|rest| rest.split('/').next().unwrap_or(rest));
    let valid =
        address.and_then(|a| a.rsplit_once(':')).is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok());
    if !valid {
        let label = "expected an endpoint, as in \"opc.tcp://192.168.1.20:4840/\"";
        problems.push(source.problem(endpoint.span(), "this is not an OPC UA endpoint", label));
    }
    match line.security.as_ref().map(|s| (s.get_ref().as_str(), s.span())) {
        Some(("none", _)) => {}
        Some((other, span)) => {
            let label = format!("found \"{other}\"; this version connects without security only");
            problems.push(source.problem(span, "unknown OPC UA security", label));
        }
        None => {
            let problem = source.problem(
                endpoint.span(),
                "say which security this line has",
                "anyone on this network can read and write it",
            );
            problems.push(problem.help("add `security = \"none\"` to the line if that is what you want"));
        }
    }
}

/// Whether a host name can be looked up right now; the text says why not.
pub fn resolves(peer: &str) -> Result<Vec<SocketAddr>, String> {
    match peer.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => Err(format!("the name in {peer} cannot be looked up: {e}")),
    }
}
