//! The lines that run, and how another configuration takes the place of the one in force.
//!
//! ```text
//!   file ──load──> plan ──difference──> kept:    not touched: its socket, its counters, its values
//!                   │                   stopped: removed, or another one of the name comes
//!                   │                   started
//!                   │                      └─ up in time? ── no ──> the last good files, by difference again
//!                   └ wrong, or more than lines differ: nothing is changed, an alarm says why
//! ```
//!
//! Tags that are gone when it is over have a last word at the broker: Bad, for they are removed.
//!
//! Whatever is not a line (gateway, control, broker, floor) is wired at the start and needs a restart; so do lines that carry machines,
//! because the control thread knows them, and all lines of a Sparkplug node, because its births name every tag.

mod phases;

use crate::alarms::AlarmDesk;
use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::commands::{QUEUE, Target, WriteDesk, targets};
use crate::config::{self, DriverPlan, Files, LinePlan, Plan, Role};
use crate::field::view::LOOKS;
use crate::field::{Farewell, FieldLine, FieldWires, ImageStage, LineStats, Publish};
use crate::http::{FieldIndex, IndexedLine};
use crate::telemetry::meaning::Meanings;
use arc_swap::ArcSwap;
use device_drivers::line::{Backoff, run_line};
use device_drivers::modbus::Modbus;
use device_drivers::opcua::{Identity, OpcUa};
use device_drivers::{LinkState, TagWrite};
use floor_plan::OutputBuffer;
use phases::{phase, phases};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use triple_buffer::triple_buffer;

/// First and longest wait before a line is tried again. The longest is short: a factory that waits is expensive,
/// and a connection attempt costs nothing.
const LINE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a stop waits for the lines.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// The last good configuration, in the state folder.
pub const LAST_GOOD: &str = "last-good.json";
/// What is read of it, bytes: some files of the largest size.
const LAST_GOOD_MAX: u64 = 4 * device_drivers::files::CONFIGURATION_MAX;
/// How long new lines have to come up when nothing is said.
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(20);

/// Lines with their names and counters; replaced whole when a configuration is reloaded.
#[derive(Default)]
pub struct LineList(ArcSwap<Vec<(Arc<str>, Arc<LineStats>)>>);

impl LineList {
    /// The lines of now.
    pub fn all(&self) -> Arc<Vec<(Arc<str>, Arc<LineStats>)>> {
        self.0.load_full()
    }
}

/// What all lines are connected to.
pub struct LineWires {
    /// The one clock.
    pub clock: Clock,
    /// Where the input image is put together.
    pub stage: ImageStage,
    /// Where samples go.
    pub publish: Option<Publish>,
    /// An unchanged value is sent again after this long.
    pub resend: Duration,
    /// Draws the back-off.
    pub seed: u64,
}

struct Running {
    name: Arc<str>,
    print: u64,
    carries_machines: bool,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    stats: Arc<LineStats>,
    index: Arc<IndexedLine>,
    targets: Vec<(String, Target)>,
    farewell: Arc<Farewell>,
}

/// The lines that run.
pub struct LineRoom {
    wires: LineWires,
    running: Vec<Running>,
    /// For who reads counters.
    pub list: Arc<LineList>,
    /// For who searches tags.
    pub index: Arc<FieldIndex>,
    /// The door for writes.
    pub writes: Arc<WriteDesk>,
    /// Who has to know which certificates the lines need.
    pub certificates: Arc<Certificates>,
    /// What tags are to people.
    pub meanings: Arc<Meanings>,
}

impl LineRoom {
    /// A room without lines.
    pub fn new(wires: LineWires, writes: Arc<WriteDesk>) -> LineRoom {
        let (list, index, certificates, meanings) = Default::default();
        LineRoom { wires, running: Vec::new(), list, index, writes, certificates, meanings }
    }

    /// Starts a line; `output` is what the control thread wants of it.
    pub fn start(&mut self, plan: LinePlan, output: triple_buffer::Output<OutputBuffer>) {
        let names = plan.devices.iter().map(|d| &d.name);
        let stats = Arc::new(LineStats::new(names, write_wait_worst(&plan.driver), plan.driver.is_insecure()));
        let (queue, asked) = mpsc::channel(QUEUE);
        let (look, looks) = mpsc::channel(LOOKS);
        let (stop, stopped) = watch::channel(false);
        let wires = FieldWires {
            clock: self.wires.clock,
            stage: self.wires.stage.clone(),
            output,
            publish: self.wires.publish.clone(),
            resend: self.wires.resend,
            stats: stats.clone(),
            looks,
        };
        let entry = Running {
            name: plan.name.clone(),
            print: print(&plan),
            carries_machines: carries_machines(&plan),
            stop,
            stats,
            index: Arc::new(IndexedLine::new(&plan, look)),
            targets: targets(&plan, &queue),
            farewell: Arc::new(Farewell::of(&plan, self.wires.publish.clone())),
            task: {
                let sink = FieldLine::new(&plan, wires);
                self.wires.seed = self.wires.seed.rotate_left(7) ^ 0x9E37_79B9;
                let phase = phase(self.running.len(), phases(&plan.driver));
                // The plan is used up: what a line needs of it, the line has.
                run(plan.driver, sink, asked, (self.wires.seed, phase), stopped)
            },
        };
        self.running.push(entry);
    }

    /// Starts the first lines, each with its output, and shows them.
    pub fn start_all(&mut self, plans: Vec<LinePlan>, outputs: Vec<triple_buffer::Output<OutputBuffer>>) {
        plans.into_iter().zip(outputs).for_each(|(plan, output)| self.start(plan, output));
        self.show();
    }

    /// Shows the lines of now to everybody who looks.
    pub fn show(&self) {
        self.list.0.store(Arc::new(self.running.iter().map(|r| (r.name.clone(), r.stats.clone())).collect()));
        self.index.show(self.running.iter().map(|r| r.index.clone()).collect());
        self.writes.open(self.running.iter().flat_map(|r| r.targets.iter().cloned()));
        self.meanings.show(self.running.iter().map(|r| r.index.parts()));
    }

    /// Stops the lines that `which` names, all at once; no peer may keep a gateway from stopping.
    async fn stop_those(&mut self, which: impl Fn(&str) -> bool) {
        let (out, stay) = std::mem::take(&mut self.running).into_iter().partition(|r| which(&r.name));
        self.running = stay;
        let out: Vec<Running> = out;
        for line in &out {
            let _ = line.stop.send(true);
        }
        let limit = tokio::time::Instant::now() + STOP_LIMIT;
        for mut line in out {
            if tokio::time::timeout_at(limit, &mut line.task).await.is_err() {
                line.task.abort();
            }
        }
    }

    /// Stops all lines.
    pub async fn stop(&mut self) {
        self.stop_those(|_| true).await;
    }

    /// What would have to be done to get from the lines that run to those of a plan.
    fn difference(&self, plan: &Plan) -> Result<Reloaded, String> {
        let mut done = Reloaded::default();
        let wanted: HashSet<&str> = plan.lines.iter().map(|l| &*l.name).collect();
        let gone = self.running.iter().filter(|r| !wanted.contains(&*r.name));
        let mut with_machines =
            gone.clone().filter(|r| r.carries_machines).map(|r| r.name.to_string()).collect::<Vec<_>>();
        done.stopped.extend(gone.map(|r| r.name.to_string()));
        for line in &plan.lines {
            let name = line.name.to_string();
            let old = self.running.iter().find(|r| r.name == line.name);
            let is_new = old.is_none_or(|r| r.print != print(line));
            if is_new && (carries_machines(line) || old.is_some_and(|r| r.carries_machines)) {
                with_machines.push(name.clone());
            }
            match old {
                Some(_) if !is_new => done.kept.push(name),
                Some(_) => done.changed.push(name),
                None => done.started.push(name),
            }
        }
        if !with_machines.is_empty() {
            return Err(format!("lines that carry machines need a restart: {}", with_machines.join(", ")));
        }
        let differs = !(done.stopped.is_empty() && done.changed.is_empty() && done.started.is_empty());
        if differs && self.wires.publish.as_ref().is_some_and(|p| p.hub.is_some()) {
            return Err("lines of a Sparkplug node need a restart: its births name every tag".into());
        }
        Ok(done)
    }

    /// Gets from the lines that run to those of a plan. Those that have ended take leave when it is settled.
    async fn apply(&mut self, plan: Plan, what: &Reloaded) -> Vec<Arc<Farewell>> {
        self.certificates.watch(&plan);
        let ends = |name: &str| what.stopped.iter().chain(&what.changed).any(|n| n == name);
        let leaving = self.running.iter().filter(|r| ends(&r.name));
        self.writes.begin_trial(leaving.clone().flat_map(|r| r.targets.iter().map(|(tag, _)| tag.clone())));
        let leaving = leaving.map(|r| r.farewell.clone()).collect();
        self.stop_those(ends).await;
        let order: Vec<Arc<str>> = plan.lines.iter().map(|l| l.name.clone()).collect();
        for line in plan.lines {
            if !self.running.iter().any(|r| r.name == line.name) {
                self.start(line, triple_buffer(&OutputBuffer::default()).1);
            }
        }
        self.running.sort_by_key(|r| order.iter().position(|n| *n == r.name));
        self.show();
        leaving
    }

    /// The lines of now are settled: what was published by those that have ended, and is by nobody now, is Bad for good.
    fn settle(&self, left: &[Arc<Farewell>]) {
        let published = self.running.iter().flat_map(|r| r.farewell.topics()).collect();
        left.iter().for_each(|line| line.say(&published));
        self.writes.end_trial();
    }
}

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// Lines that were not touched.
    pub kept: Vec<String>,
    /// Lines that are new.
    pub started: Vec<String>,
    /// Lines that another one of the same name has taken the place of.
    pub changed: Vec<String>,
    /// Lines that are gone.
    pub stopped: Vec<String>,
}

/// Why a reload has changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// The configuration is wrong; nothing was touched.
    Wrong(String),
    /// It differs in more than lines; nothing was touched.
    NeedsRestart(String),
    /// Lines did not come up in time; the last good configuration is in force again.
    NotHealthy(String),
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReloadError::Wrong(why) | ReloadError::NeedsRestart(why) | ReloadError::NotHealthy(why) => f.write_str(why),
        }
    }
}

/// Reloads the configuration of a running agent.
pub struct Reloader {
    room: tokio::sync::Mutex<LineRoom>,
    list: Arc<LineList>,
    alarms: Arc<AlarmDesk>,
    file: Option<PathBuf>,
    good: std::sync::Mutex<Files>,
    keep_in: Option<PathBuf>,
    rest: Vec<(&'static str, u64)>,
}

impl Reloader {
    /// Of these lines, started from what `rest` was made of.
    pub fn new(
        room: LineRoom,
        alarms: Arc<AlarmDesk>,
        (file, files): (Option<PathBuf>, Files),
        keep_in: Option<PathBuf>,
        rest: Vec<(&'static str, u64)>,
    ) -> Reloader {
        let (list, room, good) = (room.list.clone(), tokio::sync::Mutex::new(room), std::sync::Mutex::new(files));
        let reloader = Reloader { room, list, alarms, file, good, keep_in, rest };
        reloader.keep();
        reloader
    }

    /// Keeps the files that are good on the disk: whoever starts next and finds wrong ones has these.
    fn keep(&self) {
        let (Some(dir), Some(_)) = (&self.keep_in, &self.file) else { return };
        let good = self.good.lock().unwrap_or_else(std::sync::PoisonError::into_inner).to_json();
        let kept =
            good.map_err(std::io::Error::from).and_then(|text| crate::state::replace(&dir.join(LAST_GOOD), &text));
        if let Err(why) = kept {
            tracing::warn!("the configuration cannot be kept as the last good one: {why}");
        }
    }

    /// Stops all lines.
    pub async fn stop(&self) {
        self.room.lock().await.stop().await;
    }

    /// Reads the configuration again and takes over what differs: all of it, or nothing.
    pub async fn reload(&self, within: Duration) -> Result<Reloaded, ReloadError> {
        let done = self.take_over(within).await;
        match &done {
            Ok(what) => tracing::info!(
                "configuration reloaded: {} lines kept, {} changed, {} started, {} stopped",
                what.kept.len(),
                what.changed.len(),
                what.started.len(),
                what.stopped.len()
            ),
            Err(why) => tracing::error!("the configuration was not taken over: {why}"),
        }
        self.alarms.configuration_refused(done.as_ref().err().map(|why| first_line(&why.to_string())));
        done
    }

    async fn take_over(&self, within: Duration) -> Result<Reloaded, ReloadError> {
        let Some(file) = self.file.clone() else {
            return Err(ReloadError::NeedsRestart("this agent was not started from a file".into()));
        };
        let mut room = self.room.lock().await; // one at a time
        let path = file.clone();
        let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let plan =
            loaded.map_err(|e| ReloadError::Wrong(e.to_string()))?.map_err(|r| ReloadError::Wrong(r.to_string()))?;
        let other: Vec<&str> =
            rest(&plan).iter().zip(&self.rest).filter(|(new, old)| new != old).map(|(new, _)| new.0).collect();
        if !other.is_empty() {
            return Err(ReloadError::NeedsRestart(format!("a change of {} needs a restart", other.join(", "))));
        }
        let what = room.difference(&plan).map_err(ReloadError::NeedsRestart)?;
        let files = plan.files.clone();
        // What was down before need not be up afterwards.
        let down: Vec<String> =
            self.list.all().iter().filter(|(_, s)| s.state() != LinkState::Up).map(|(n, _)| n.to_string()).collect();
        let left = room.apply(plan, &what).await;
        let awaited: Vec<&String> =
            what.started.iter().chain(what.changed.iter().filter(|n| !down.contains(n))).collect();
        if let Err(name) = self.come_up(&awaited, within).await {
            self.roll_back(&mut room, &file, left).await;
            let why =
                format!("line {name} did not come up within {within:?}; the last good configuration is in force again");
            return Err(ReloadError::NotHealthy(why));
        }
        room.settle(&left);
        *self.good.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = files;
        self.keep();
        Ok(what)
    }

    /// Waits for lines to come up; the first that does not is the error.
    async fn come_up(&self, names: &[&String], within: Duration) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            let all = self.list.all();
            let is_up = |name: &str| all.iter().any(|(n, s)| &**n == name && s.state() == LinkState::Up);
            match names.iter().find(|n| !is_up(n)) {
                None => return Ok(()),
                Some(name) if Instant::now() >= end => return Err((*name).clone()),
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Back to the files that were good, as they were. What was there only for the trial takes leave as well.
    async fn roll_back(&self, room: &mut LineRoom, file: &std::path::Path, mut left: Vec<Arc<Farewell>>) {
        self.back_to_good(room, file, &mut left).await;
        room.settle(&left);
    }

    async fn back_to_good(&self, room: &mut LineRoom, file: &std::path::Path, left: &mut Vec<Arc<Farewell>>) {
        let kept = self.good.lock().unwrap_or_else(std::sync::PoisonError::into_inner).kept();
        let plan = match config::load_from(file, kept) {
            Ok(plan) => plan,
            Err(why) => return tracing::error!("the last good configuration cannot be read any more: {why}"),
        };
        match room.difference(&plan) {
            Ok(what) => left.extend(room.apply(plan, &what).await),
            Err(why) => tracing::error!("the last good configuration cannot be restored: {why}"),
        }
    }
}

/// The last good configuration of this file that a state folder has, when the file itself is wrong.
pub fn last_good(file: &std::path::Path, dir: &std::path::Path) -> Option<Plan> {
    let kept = device_drivers::files::read(&dir.join(LAST_GOOD), LAST_GOOD_MAX).ok()?;
    let files = Files::from_json(&kept).ok()?;
    let is_of_this = files.paths().any(|p| p == file);
    if is_of_this { config::load_from(file, files).ok() } else { None }
}

/// What an alarm says of a longer text.
pub fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}

fn hash(thing: &impl Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{thing:?}").hash(&mut hasher);
    hasher.finish()
}

/// A number that differs when anything of a line does, what is not shown included.
fn print(plan: &LinePlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash(plan).hash(&mut hasher);
    if let DriverPlan::OpcUa(spec) = &plan.driver
        && let Identity::User { password, .. } = &spec.identity
    {
        password.hash(&mut hasher);
    }
    hasher.finish()
}

/// Everything of a plan that is not a line, by the name of its table.
pub fn rest(plan: &Plan) -> Vec<(&'static str, u64)> {
    vec![
        ("[gateway]", hash(&(&plan.gateway, plan.listen, &plan.state_dir, plan.drain))),
        ("[control]", hash(&plan.control)),
        ("[http]", hash(&(&plan.access, &plan.http))),
        ("[mqtt] or [spool]", hash(&plan.mqtt)),
        ("[floor]", hash(&plan.floor)),
    ]
}

fn carries_machines(plan: &LinePlan) -> bool {
    !plan.machines.is_empty() || plan.points.iter().any(|p| p.role != Role::Telemetry)
}

/// The longest a write waits for its line: OPC UA has no turns, only the time limit of a request.
fn write_wait_worst(driver: &DriverPlan) -> Duration {
    match driver {
        DriverPlan::Modbus(spec) => spec.write_wait_worst(),
        DriverPlan::OpcUa(spec) => spec.timeout,
    }
}

fn run(
    driver: DriverPlan,
    sink: FieldLine,
    wishes: mpsc::Receiver<TagWrite>,
    (seed, phase): (u64, Duration),
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let backoff = Backoff::new(LINE_BACKOFF.0, LINE_BACKOFF.1, seed);
    tokio::spawn(async move {
        let _ = tokio::time::timeout(phase, stop.wait_for(|s| *s)).await;
        match driver {
            DriverPlan::Modbus(spec) => run_line(Modbus::new(spec), sink, wishes, backoff, stop).await,
            DriverPlan::OpcUa(spec) => run_line(OpcUa::new(spec), sink, wishes, backoff, stop).await,
        }
    })
}
