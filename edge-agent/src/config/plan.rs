//! What the file means: a plan that cannot be wrong later.

use super::raw;
use super::report::{Problem, Report, Source};
use super::values::Time;
use super::{lines, machines};
use crate::access::{AccessPlan, Role as UserRole};
use crate::control::rt::RealTime;
use control_core::Layout;
use control_core::units::{MachineId, PosId};
use device_drivers::modbus::LineSpec;
use device_drivers::opcua::OpcUaSpec;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
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
    /// Telemetry; without it nothing is published.
    pub mqtt: Option<MqttPlan>,
    /// The floor; without it the gateway gathers and forwards only.
    pub layout: Option<Layout>,
    /// The field lines.
    pub lines: Vec<LinePlan>,
    /// Addresses that were typed in another form than ours, for `check` to show.
    pub notes: Vec<String>,
    /// Who may do what over HTTP.
    pub access: AccessPlan,
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
    /// What one message holds.
    pub payload: Payload,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// An unchanged value is sent again after this long.
    pub heartbeat: Duration,
    /// Messages on their way at once.
    pub window: u16,
    /// Memory for samples that wait for the broker, bytes.
    pub spool_bytes: usize,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// What one message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// One value.
    #[default]
    Tag,
    /// What changed in one poll of a device.
    Device,
}

/// One field line.
#[derive(Clone, Debug)]
pub struct LinePlan {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// Protocol and peer.
    pub driver: DriverPlan,
    /// Its devices; points name them by index.
    pub devices: Arc<[DevicePlan]>,
    /// Its points; the index is the point's number.
    pub points: Arc<[PointPlan]>,
    /// Machines whose command blocks it carries.
    pub machines: Vec<MachineId>,
    /// How often the blocks are written although nothing changed.
    pub heartbeat: Duration,
}

impl LinePlan {
    /// `device/tag`.
    pub fn point_name(&self, point: &PointPlan) -> String {
        let device = self.devices.get(point.device as usize).map_or("?", |d| &d.name);
        format!("{device}/{}", point.tag)
    }
}

/// One device of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// Name in topics, logs and metrics.
    pub name: Arc<str>,
    /// Modbus unit.
    pub unit: u8,
    /// Its topic, before and after the tag's name; all before when a message holds a whole device.
    pub topic: (Arc<str>, Arc<str>),
}

/// Protocol and peer.
#[derive(Clone, Debug)]
pub enum DriverPlan {
    /// Modbus.
    Modbus(LineSpec),
    /// OPC UA.
    OpcUa(OpcUaSpec),
}

impl DriverPlan {
    /// Whether anyone on the network can read and write it although it could be otherwise. Plain Modbus is not counted: it
    /// has no other way, and `tls://` is seen in the configuration.
    pub fn is_insecure(&self) -> bool {
        matches!(self, DriverPlan::OpcUa(spec) if spec.is_insecure())
    }

    /// Address of the peer: `host:port`, or a serial port.
    pub fn peer(&self) -> String {
        match self {
            DriverPlan::Modbus(spec) => {
                spec.endpoint.host_port().map_or_else(|| spec.endpoint.to_string(), String::from)
            }
            DriverPlan::OpcUa(spec) => {
                let rest = spec.endpoint.strip_prefix("opc.tcp://").unwrap_or(&spec.endpoint);
                rest.split('/').next().unwrap_or(rest).to_string()
            }
        }
    }
}

/// One point of a line. Kept small: a gateway has a hundred thousand.
#[derive(Clone, Debug)]
pub struct PointPlan {
    /// Which device of the line.
    pub device: u32,
    /// The tag's name, shared by all devices of a profile.
    pub tag: Arc<str>,
    /// Whether it is published; what only the control loop sees is not.
    pub publish: bool,
    /// What it is to the control loop.
    pub role: Role,
    /// Without a new reading for this long it is Uncertain, for twice as long Bad.
    pub stale_after: Duration,
    /// Who may write it may write this; `None`: nobody.
    pub write: Option<Arc<WriteRule>>,
}

/// What may be written to a tag.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRule {
    /// Smallest value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// At most one write in this time.
    pub every: Duration,
    /// Higher goes first.
    pub priority: u8,
    /// Whether it is read back.
    pub verify: bool,
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

/// What machines and positions of a floor are called.
#[derive(Clone, Copy, Debug)]
pub struct FloorNames(Option<Layout>);

impl FloorNames {
    /// The names of a layout; without one, numbers.
    pub fn of(layout: Option<Layout>) -> FloorNames {
        FloorNames(layout)
    }

    /// Every machine of the floor.
    pub fn machine_ids(&self) -> impl Iterator<Item = MachineId> + use<> {
        self.0.into_iter().flat_map(|l| l.machine_ids())
    }

    /// The name of a machine.
    pub fn machine(&self, id: MachineId) -> String {
        self.0.as_ref().map_or_else(|| format!("machine-{}", id.0), |l| machines::machine_name(l, id))
    }

    /// The name of a position.
    pub fn position(&self, pos: PosId) -> String {
        self.0.as_ref().map_or_else(|| format!("position-{}", pos.0), |l| machines::position_name(l, pos))
    }
}

impl Plan {
    /// What machines and positions are called.
    pub fn names(&self) -> FloorNames {
        FloorNames(self.layout)
    }
}

const PERIOD: Duration = Duration::from_millis(10);
const PERIOD_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);
const TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}/{tag}";
const DEVICE_TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}";
const STATUS_TOPIC: &str = "lightsout/{area}/{line}/{gateway}/status";
/// Below five seconds the MQTT client library refuses to work.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

pub(super) fn plan(source: &Source, raw: raw::Config, parts: Vec<(Source, raw::Part)>) -> Result<Plan, Report> {
    let mut problems = Vec::new();
    let layout = raw.floor.as_ref().and_then(|f| floor(source, f, &mut problems));
    let control = control(source, &raw.control, &mut problems);
    let gateway = gateway(source, &raw.gateway, &mut problems);
    let access = access(source, &raw, &gateway.1, &mut problems);
    let mqtt = raw.mqtt.as_ref().map(|m| mqtt(source, m, &raw, &mut problems));
    if raw.floor.is_some() && layout.is_none() {
        return Err(Report(problems));
    }
    let mut files = vec![(source, &raw.lines[..])];
    files.extend(parts.iter().map(|(source, part)| (source, &part.lines[..])));
    let (lines, notes) = lines::Lines::new(&raw, layout.as_ref(), &gateway.1, &mut problems).read(source, &files);
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
        notes,
        access,
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

fn access(source: &Source, raw: &raw::Config, state_dir: &std::path::Path, problems: &mut Vec<Problem>) -> AccessPlan {
    let mut role = |given: &Option<Spanned<String>>, usual| {
        let Some(text) = given else { return usual };
        let named = UserRole::named(text.get_ref());
        if named.is_none() && text.get_ref() != "none" {
            let names = UserRole::ALL.map(|r| format!("\"{}\"", r.name())).join(", ");
            let label = format!("found \"{}\", expected \"none\", {names}", text.get_ref());
            problems.push(source.problem(text.span(), "there is no such role", label));
        }
        named
    };
    let http = &raw.http;
    let (loopback, remote) = (role(&http.loopback, Some(UserRole::Viewer)), role(&http.remote, None));
    let range = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
    let session = within(source, &http.session, Duration::from_secs(12 * 3600), range, problems);
    // The usual state folder is one that anybody may write to: no place for users.
    let dir = raw.gateway.state_dir.is_some().then(|| state_dir.to_path_buf());
    AccessPlan { loopback, remote, session, dir }
}

pub(super) fn topic_level(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) {
    let level = text.get_ref();
    if level.is_empty() || level.contains(['/', '+', '#', '\0']) || level.chars().any(char::is_whitespace) {
        let label = "a level has no blanks, no `/`, `+` or `#`, and is not empty";
        problems.push(source.problem(text.span(), "this name cannot be a level of a topic", label));
    }
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

/// A time that is given or not, and its range.
pub(super) fn within(
    source: &Source,
    given: &Option<Spanned<Time>>,
    default: Duration,
    range: RangeInclusive<Duration>,
    problems: &mut Vec<Problem>,
) -> Duration {
    let Some(given) = given else { return default };
    let time = given.get_ref().0;
    if !range.contains(&time) {
        let label = format!("must be {:?} to {:?}", range.start(), range.end());
        problems.push(source.problem(given.span(), "this time is out of range", label));
    }
    time
}

fn mqtt(source: &Source, m: &raw::Mqtt, raw: &raw::Config, problems: &mut Vec<Problem>) -> MqttPlan {
    let payload = match m.payload.as_ref().map(|p| (p.get_ref().as_str(), p.span())) {
        None | Some(("tag", _)) => Payload::Tag,
        Some(("device", _)) => Payload::Device,
        Some((other, span)) => {
            let label = format!("found \"{other}\", expected \"tag\" or \"device\"");
            problems.push(source.problem(span, "unknown payload", label));
            Payload::Tag
        }
    };
    let (host, port) = host_port(source, &m.broker, problems);
    let keep_alive =
        within(source, &m.keep_alive, KEEP_ALIVE_MIN, KEEP_ALIVE_MIN..=Duration::from_secs(3600), problems);
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
        match payload {
            Payload::Tag => {
                let levels = ["area", "line", "cell", "device", "tag", "gateway"];
                check_template(source, topic, &levels, &["{device}", "{tag}"], problems);
            }
            Payload::Device => {
                let levels = ["area", "line", "cell", "device", "gateway"];
                check_template(source, topic, &levels, &["{device}"], problems);
            }
        }
    }
    if let Some(topic) = &m.status_topic {
        check_template(source, topic, &["area", "line", "gateway"], &[], problems);
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
        payload,
        keep_alive,
        heartbeat: m.heartbeat.map_or(Duration::from_secs(30), |t| t.0),
        window,
        spool_bytes: usize::try_from(spool).unwrap_or(usize::MAX),
        login: login(source, m, problems),
    }
}

fn login(source: &Source, m: &raw::Mqtt, problems: &mut Vec<Problem>) -> Option<(String, String)> {
    let file = match (&m.username, &m.password_file) {
        (None, None) => return None,
        (Some(user), None) => return Some((user.clone(), String::new())),
        (_, Some(file)) => file,
    };
    let Some(user) = m.username.clone() else {
        problems.push(source.problem(file.span(), "a password without a user", "add `username = ..`"));
        return None;
    };
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
pub(super) fn host_port(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) -> (String, u16) {
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

/// The topic of a device, before and after the tag's name.
pub(super) fn device_topic(raw: &raw::Config, cell: &str, device: &str) -> (Arc<str>, Arc<str>) {
    let mqtt = raw.mqtt.as_ref();
    let by_device = mqtt.and_then(|m| m.payload.as_ref()).is_some_and(|p| p.get_ref() == "device");
    let default = if by_device { DEVICE_TOPIC } else { TOPIC };
    let template = mqtt.and_then(|m| m.topic.as_ref()).map_or(default, |t| t.get_ref());
    let (before, after) = template.split_once("{tag}").unwrap_or((template, ""));
    let levels = levels(raw, cell, device, "");
    (expand(before, &levels).into(), expand(after, &levels).into())
}

pub(super) type Levels<'a> = [(&'static str, &'a str); 6];

pub(super) fn levels<'a>(raw: &'a raw::Config, cell: &'a str, device: &'a str, tag: &'a str) -> Levels<'a> {
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

pub(super) fn expand(template: &str, levels: &Levels<'_>) -> String {
    levels.iter().fold(template.to_string(), |topic, (name, value)| topic.replace(name, value))
}

fn check_template(
    source: &Source,
    text: &Spanned<String>,
    known: &[&str],
    needed: &[&str],
    problems: &mut Vec<Problem>,
) {
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
    if !needed.iter().all(|level| template.contains(level)) {
        let label = format!("without {} several tags would share one topic", needed.join(" and "));
        problems.push(source.problem(text.span(), "this template is too short", label));
    }
}

/// Whether a host name can be looked up right now; the text says why not.
pub fn resolves(peer: &str) -> Result<Vec<SocketAddr>, String> {
    match peer.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => Err(format!("the name in {peer} cannot be looked up: {e}")),
    }
}
