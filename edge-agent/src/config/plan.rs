//! What the file means: a plan that cannot be wrong later.

use super::floor::{FloorSetup, floor};
use super::raw;
use super::report::{Files, Problem, Report, Source};
use super::values::{Spanned, Time};
use super::{lines, mqtt};
use crate::access::{AccessPlan, Role as UserRole};
use crate::commands::CommandPlan;
use crate::control::rt::RealTime;
use crate::telemetry::mqtt::wire::Version;
use crate::telemetry::payload::Encoding;
use crate::telemetry::sparkplug::NodePlan;
use crate::telemetry::spool::{Replay, Retention, Stream};
use control_core::units::{DomainId, MachineId, PosId};
use device_drivers::modbus::{LineSpec, Tls};
use device_drivers::opcua::OpcUaSpec;
use floor_plan::FloorPlan;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the agent needs to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the gateway.
    pub gateway: String,
    /// Where metrics and orders are served.
    pub listen: SocketAddr,
    /// Keys and other things that outlive a run.
    pub state_dir: PathBuf,
    /// Whether that folder was configured: else it is one that a restart of the machine empties.
    pub is_kept: bool,
    /// How long a stop waits for machines to finish.
    pub drain: Duration,
    /// The control loop.
    pub control: ControlPlan,
    /// Telemetry; without it nothing is published.
    pub mqtt: Option<MqttPlan>,
    /// The floor; without it the gateway gathers and forwards only.
    pub floor: Option<FloorSetup>,
    /// The field lines.
    pub lines: Vec<LinePlan>,
    /// Addresses that were typed in another form than ours, for `check` to show.
    pub notes: Vec<String>,
    /// Who may do what over HTTP.
    pub access: AccessPlan,
    /// Where it was read from.
    pub file: Option<PathBuf>,
    /// All the files it consists of, as they were.
    pub files: Files,
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
    /// Brokers, the preferred one first.
    pub brokers: Vec<Broker>,
    /// Certificates for brokers with TLS.
    pub tls: Option<Tls>,
    /// Version of the protocol.
    pub version: Version,
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
    /// How payloads are written.
    pub encoding: Encoding,
    /// Nobody wants a message any more that is older than this.
    pub expiry: Option<Duration>,
    /// User properties of every message.
    pub properties: Vec<(String, String)>,
    /// What goes first after an outage.
    pub replay: Replay,
    /// Messages a second that are sent of what waited, at most.
    pub replay_rate: Option<f64>,
    /// User and password.
    pub login: Option<Login>,
    /// Where messages wait.
    pub spool: SpoolPlan,
    /// Commands that are taken; `None`: none is.
    pub commands: Option<CommandPlan>,
    /// A Sparkplug edge node, in place of our own messages.
    pub sparkplug: Option<NodePlan>,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it is reached over TLS.
    pub tls: bool,
}

impl MqttPlan {
    /// Where changes of alarms are told: this and the alarm's name.
    pub fn alarm_topic(&self) -> String {
        format!("{}/alarm", self.status_topic.trim_end_matches("/status"))
    }
}

impl Broker {
    /// A broker without TLS.
    pub fn plain(host: &str, port: u16) -> Broker {
        Broker { host: host.into(), port, tls: false }
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Broker { host, port, tls } = self;
        write!(f, "{}{host}:{port}", if *tls { "mqtts://" } else { "" })
    }
}

/// Who we are to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password or token.
    pub secret: Option<Secret>,
}

/// Where a secret is: read anew for every connection, so that a renewed token needs no restart. Never part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// A credential that systemd hands over (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

impl Secret {
    /// Reads it; the text says what to do.
    pub fn read(&self) -> Result<String, String> {
        let path = match self {
            Secret::File(path) => path.clone(),
            Secret::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(dir) => PathBuf::from(dir).join(name),
                None => {
                    let what = "systemd hands no credentials over";
                    return Err(format!("{what}: add `LoadCredential={name}:/path/of/the/file` to the unit"));
                }
            },
        };
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|e| format!("cannot read the password from {}: {e}", path.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_string())
    }
}

/// Where messages wait for the broker.
#[derive(Clone, Debug)]
pub struct SpoolPlan {
    /// Its folder; `None`: in memory.
    pub directory: Option<PathBuf>,
    /// Bytes.
    pub capacity: u64,
    /// Older messages are dropped.
    pub age: Duration,
    /// What goes first when it is full.
    pub retention: Retention,
    /// Bytes of the disk that telemetry cannot take from the order journal in `state_dir`.
    pub reserve: u64,
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
    /// What a person should see to at the other end of this line, if anything: a gateway from TCP to serial asks one unit at a time, and while
    /// it waits for a dead one it answers for nobody.
    pub fn advice(&self) -> Option<String> {
        let DriverPlan::Modbus(spec) = &self.driver else { return None };
        let units: std::collections::BTreeSet<u8> = spec.devices.iter().map(|d| d.unit).collect();
        (units.len() > 1 && spec.endpoint.has_transactions()).then(|| {
            format!(
                "{} units behind {}: if it is a gateway to a serial line, let it give up on a unit well before {:?} (`timeout`)",
                units.len(),
                self.driver.peer(),
                spec.timeout
            )
        })
    }

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
    /// Where it stands.
    pub cell: Arc<str>,
    /// What its tags come from: its profile's name, and that of its tag table.
    pub profile: Arc<str>,
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
    /// The stream of its messages.
    pub stream: Stream,
    /// A number that has changed by less is not reported; 0: every change is.
    pub deadband: f64,
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
#[derive(Clone, Debug, Default)]
pub struct FloorNames(Option<Arc<FloorPlan>>);

impl FloorNames {
    /// The names of a floor; without one, numbers.
    pub fn of(plan: Option<Arc<FloorPlan>>) -> FloorNames {
        FloorNames(plan)
    }

    /// Every machine of the floor.
    pub fn machine_ids(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.0.as_ref().map_or(0, |p| p.machine_count() as u16)).map(MachineId)
    }

    /// The name of a machine.
    pub fn machine(&self, id: MachineId) -> String {
        let known = self.0.as_ref().filter(|p| usize::from(id.0) < p.machine_count());
        known.map_or_else(|| format!("machine-{}", id.0), |p| p.machine_name(id).to_string())
    }

    /// The name of a position.
    pub fn position(&self, pos: PosId) -> String {
        let known = self.0.as_ref().filter(|p| usize::from(pos.0) < p.position_count());
        known.map_or_else(|| format!("position-{}", pos.0), |p| p.position_name(pos).to_string())
    }

    /// The name of a place on the roads; one without a name is told by where it is.
    pub fn place(&self, place: u16) -> String {
        let Some(plan) = &self.0 else { return format!("place-{place}") };
        match (plan.place_names.get(&place), plan.place_spots.get(usize::from(place))) {
            (Some(name), _) => name.clone(),
            (None, Some(spot)) => format!("x {:.1} y {:.1}", spot.x, spot.y),
            (None, None) => format!("place-{place}"),
        }
    }

    /// The domain of a machine.
    pub fn domain_of(&self, id: MachineId) -> Option<DomainId> {
        self.0.as_ref()?.view().machine(id).map(|m| m.domain)
    }

    /// Every domain with its name: that of its aisle, station, robot or belt.
    pub fn domains(&self) -> Vec<(DomainId, String)> {
        let Some(plan) = &self.0 else { return Vec::new() };
        let floor = plan.view();
        let name = |id: DomainId| {
            let info = floor.tables().domains.get(usize::from(id.0))?;
            let aisle =
                plan.aisles.iter().find(|a| a.shuttles.first().is_some_and(|s| info.machines().any(|m| m == *s)));
            match (aisle, info.machines().next(), info.sensed().next()) {
                (Some(aisle), ..) if aisle.name.is_empty() => Some("aisle".to_string()),
                (Some(aisle), ..) => Some(aisle.name.clone()),
                (None, Some(machine), _) => Some(plan.machine_name(machine).to_string()),
                (None, None, Some(pos)) => floor.zone_of(pos).map(|(zone, _)| plan.zone_name(zone).to_string()),
                _ => None,
            }
        };
        floor.domains().map(|(id, _)| (id, name(id).unwrap_or_else(|| format!("domain-{}", id.0)))).collect()
    }

    /// The groups of stations; their numbers are their places here.
    pub fn groups(&self) -> Vec<String> {
        self.0.as_ref().map_or_else(Vec::new, |p| p.groups().to_vec())
    }
}

impl Plan {
    /// What machines and positions are called.
    pub fn names(&self) -> FloorNames {
        FloorNames(self.floor.as_ref().map(|f| f.plan.clone()))
    }
}

const PERIOD: Duration = Duration::from_millis(10);
const PERIOD_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);
const TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}/{tag}";
const DEVICE_TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}";
pub(super) const STATUS_TOPIC: &str = "lightsout/{area}/{line}/{gateway}/status";
/// An unchanged value is sent again after this long; more often than it is read it cannot be.
pub(super) const RESEND: Duration = Duration::from_secs(30);
pub(super) const RESEND_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);
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
    let access = access(source, &raw, &gateway.1, &mut problems);
    let mqtt = raw.mqtt.as_ref().map(|m| mqtt::mqtt(source, m, &raw, &mut problems));
    if raw.floor.is_some() && floor.is_none() {
        return Err(Report(problems));
    }
    let mut files = vec![(source, &raw.lines[..])];
    files.extend(parts.iter().map(|(source, part)| (source, &part.lines[..])));
    let drain = within(source, &raw.gateway.drain, DRAIN, DRAIN_RANGE, &mut problems);
    let plan = floor.as_ref().map(|f| &*f.plan);
    let (lines, notes) = lines::Lines::new(&raw, plan, &gateway.1, &mut problems, kept).read(source, &files);
    if !problems.is_empty() {
        return Err(Report(problems));
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
        access,
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
        let [from, to] = [range.start(), range.end()].map(|t| humantime::format_duration(*t));
        let label = format!("must be {from} to {to}");
        problems.push(source.problem(given.span(), "this time is out of range", label));
    }
    time
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

pub(super) type Levels<'a> = [(&'static str, &'a str); 8];

pub(super) fn levels<'a>(raw: &'a raw::Config, cell: &'a str, device: &'a str, tag: &'a str) -> Levels<'a> {
    let g = &raw.gateway;
    let given = |level: &'a Option<Spanned<String>>| level.as_ref().map_or("", |l| l.get_ref().as_str());
    [
        ("{enterprise}", given(&g.enterprise)),
        ("{site}", given(&g.site)),
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

/// Whether a template is a topic made of levels there are: those of the gateway, and `known`.
pub(super) fn check_template(
    source: &Source,
    text: &Spanned<String>,
    gateway: &raw::Gateway,
    known: &[&str],
    needed: &[&str],
    problems: &mut Vec<Problem>,
) {
    let template = text.get_ref();
    let mut own = vec!["area", "line", "gateway"];
    own.extend(gateway.enterprise.as_ref().map(|_| "enterprise"));
    own.extend(gateway.site.as_ref().map(|_| "site"));
    let known: Vec<&str> = own.into_iter().chain(known.iter().copied()).collect();
    for part in template.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or(part);
        if !known.contains(&name) || !part.contains('}') {
            let label = format!("there is no level {{{name}}}; the levels are {{{}}}", known.join("}, {"));
            let problem = source.problem(text.span(), "unknown level in a topic template", label);
            problems.push(match name {
                "enterprise" | "site" => problem.help(format!("add `{name} = ..` to [gateway]")),
                _ => problem,
            });
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
