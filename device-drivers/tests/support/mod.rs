//! What tests of drivers share: a sink that remembers, a line that runs, and an OPC UA server that can be told what to do.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

pub mod peers;
pub mod ua_server;

use device_drivers::driver::{Health, PollReport, TagWrite, WriteOutcome};
use device_drivers::line::{Backoff, LineCounters, Notice};
use device_drivers::opcua::{Identity, Mode, NodeType, OpcUaSpec, Security, UaPoint, Vendor};
use device_drivers::value::Quality;
use device_drivers::{BlockWrite, Cause, Driver, LineSink, LinkError, LinkState, PointId, Reading, Value, run_line};
use plc_sim::faces::opcua_bank;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use ua_server::UaServer;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A line without security and points.
pub fn spec(endpoint: String, dir: &Path, points: Vec<UaPoint>) -> OpcUaSpec {
    OpcUaSpec {
        endpoint,
        timeout: Duration::from_secs(20),
        publishing: ms(100),
        security: Security::NONE,
        identity: Identity::Anonymous,
        vendor: Vendor::Generic,
        pki_dir: dir.join("client"),
        points,
        commands: Vec::new(),
    }
}

/// A point that is subscribed to.
pub fn point(id: u32, node: &str) -> UaPoint {
    UaPoint { id: PointId(id), device: 0, node: node.parse().unwrap(), mode: Mode::subscribe(ms(50)), range: None }
}

/// Variables of the test server.
pub fn test_points(names: &[&str]) -> Vec<UaPoint> {
    (0u32..).zip(names).map(|(id, name)| point(id, &UaServer::node(name))).collect()
}

/// The first variables of a bank.
pub fn bank_points(count: u16) -> Vec<UaPoint> {
    let node = |n| format!("nsu={};s=V.{n}", opcua_bank::NAMESPACE);
    (0..count).map(|n| point(n.into(), &node(n))).collect()
}

/// What a line has told.
#[derive(Debug, Default)]
pub struct Record {
    /// All readings, with the device they came for.
    pub readings: Vec<(usize, Reading)>,
    /// All reports.
    pub reports: Vec<PollReport>,
    /// All states, with the error as it is told and as it is.
    pub links: Vec<(LinkState, Option<String>)>,
    /// Kinds of errors, by the name of their variant.
    pub errors: Vec<&'static str>,
    /// Thumbprints of certificates that were not trusted.
    pub thumbprints: Vec<String>,
    /// Polls missed.
    pub missed: u64,
    /// What only the driver can count.
    pub counters: LineCounters,
    /// What a person should know.
    pub notices: Vec<Notice>,
    /// What the server declares points to be, where that is asked for.
    pub types: Option<Vec<(PointId, NodeType)>>,
    /// How often time has passed.
    pub sweeps: usize,
    /// Blocks the device has acknowledged.
    pub written: Vec<BlockWrite>,
    /// Blocks it has not.
    pub not_written: Vec<(BlockWrite, Cause)>,
    /// Blocks to be written, each once.
    pub due: Vec<BlockWrite>,
    /// Whether there are machines.
    pub machines: bool,
}

impl Record {
    /// The readings of a point.
    pub fn of(&self, point: u32) -> impl Iterator<Item = &Reading> {
        self.readings.iter().map(|(_, r)| r).filter(move |r| r.point == PointId(point))
    }

    /// The last reading of a point.
    pub fn last(&self, point: u32) -> Option<&Reading> {
        self.of(point).last()
    }

    /// The last value of a point, if it is Good.
    pub fn good(&self, point: u32) -> Option<Value> {
        self.last(point).filter(|r| r.quality == Quality::Good).and_then(|r| r.value.clone())
    }

    /// How often the line came up.
    pub fn ups(&self) -> usize {
        self.links.iter().filter(|(state, _)| *state == LinkState::Up).count()
    }

    /// The last error, as it is told.
    pub fn last_error(&self) -> Option<&str> {
        self.links.iter().rev().find_map(|(_, why)| why.as_deref())
    }
}

/// A sink that remembers.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

impl Recorder {
    /// What has been told so far.
    pub fn look(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no panic while held")
    }

    /// Waits until what has been told is enough; shows it when it never is.
    pub async fn until<T>(&self, what: &str, done: impl FnMut(&Record) -> Option<T>) -> T {
        self.within(PATIENCE, what, done).await
    }

    /// The same with a patience of its own.
    pub async fn within<T>(&self, limit: Duration, what: &str, mut done: impl FnMut(&Record) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = done(&self.look()) {
                return found;
            }
            if start.elapsed() > limit {
                let seen = self.look();
                let last: Vec<_> = seen.readings.iter().rev().take(5).collect();
                panic!("never: {what}; links {:?}; {} readings, the last {last:?}", seen.links, seen.readings.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl LineSink for Recorder {
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>) {
        let mut record = self.look();
        record.reports.push(report);
        record.readings.extend(readings.drain(..).map(|r| (report.device, r)));
    }

    fn link(&mut self, state: LinkState, cause: Option<&LinkError>) {
        let mut record = self.look();
        record.links.push((state, cause.map(ToString::to_string)));
        record.errors.extend(cause.map(|c| match c {
            LinkError::Connect { .. } => "Connect",
            LinkError::Timeout { .. } => "Timeout",
            LinkError::Protocol { .. } => "Protocol",
            LinkError::Untrusted { .. } => "Untrusted",
            LinkError::Denied { .. } => "Denied",
            LinkError::Login { .. } => "Login",
            LinkError::Lost { .. } => "Lost",
        }));
        if let Some(LinkError::Untrusted { thumbprint, .. }) = cause {
            record.thumbprints.push(thumbprint.clone());
        }
    }

    fn health(&mut self, _device: usize, _health: Health, _cause: Cause) {}

    fn missed(&mut self, _device: usize, polls: u64) {
        self.look().missed += polls;
    }

    fn carries_machines(&self) -> bool {
        self.look().machines
    }

    fn due_writes(&mut self, out: &mut Vec<BlockWrite>) {
        out.append(&mut self.look().due);
    }

    fn written(&mut self, blocks: &[BlockWrite]) {
        self.look().written.extend_from_slice(blocks);
    }

    fn not_written(&mut self, blocks: &[BlockWrite], cause: Cause) {
        self.look().not_written.extend(blocks.iter().map(|b| (*b, cause)));
    }

    fn sweep(&mut self) {
        self.look().sweeps += 1;
    }

    fn counters(&mut self, counters: LineCounters) {
        self.look().counters = counters;
    }

    fn wants_types(&self) -> bool {
        true
    }

    fn types(&mut self, types: &[(PointId, NodeType)]) {
        self.look().types.get_or_insert_default().extend_from_slice(types);
    }

    fn notice(&mut self, notice: &Notice) {
        self.look().notices.push(notice.clone());
    }
}

/// A line that runs until it is dropped.
pub struct Line {
    /// What it has told.
    pub told: Recorder,
    /// Takes writes.
    pub wishes: mpsc::Sender<TagWrite>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Line {
    /// Runs a driver.
    pub fn run(driver: impl Driver, machines: bool) -> Line {
        let told = Recorder::default();
        told.look().machines = machines;
        let (wishes, of_line) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 1);
        let task = tokio::spawn(run_line(driver, told.clone(), of_line, backoff, stopped));
        Line { told, wishes, stop, task }
    }

    /// Stops it and waits for it.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").expect("without a panic");
    }

    /// Asks for a write.
    pub async fn ask(&self, point: u32, value: Value, verify: bool) -> oneshot::Receiver<WriteOutcome> {
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + PATIENCE;
        let wish = TagWrite { point: PointId(point), value, deadline, priority: 0, verify, reply };
        self.wishes.send(wish).await.expect("the line runs");
        outcome
    }

    /// Asks for a write and waits for what comes of it.
    pub async fn write(&self, point: u32, value: Value, verify: bool) -> WriteOutcome {
        let outcome = self.ask(point, value, verify).await;
        tokio::time::timeout(PATIENCE, outcome).await.expect("an outcome in time").expect("an outcome")
    }
}
