//! Runs a Modbus line and records what it tells its sink; and a server whose answers each test decides itself.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

pub mod plc;

use control_core::units::MachineId;
use device_drivers::line::Backoff;
use device_drivers::modbus::{DataType, DeviceSpec, Endpoint, Format, Limits, LineSpec, Modbus, PointSpec};
use device_drivers::value::{Cause, Quality};
use device_drivers::{
    BlockWrite, Health, LineCounters, LineSink, LinkError, LinkState, PointId, PollReport, Reading, TagWrite, Value,
    WriteOutcome, run_line,
};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Everything a line has told.
#[derive(Default)]
pub struct Seen {
    pub readings: Vec<Reading>,
    pub reports: Vec<PollReport>,
    pub links: Vec<(LinkState, String)>,
    pub health: Vec<(usize, Health, Cause)>,
    pub missed: Vec<(usize, u64)>,
    pub written: Vec<BlockWrite>,
    pub not_written: Vec<Cause>,
    /// Whose blocks these were.
    pub refused: Vec<Vec<MachineId>>,
    pub counters: LineCounters,
    /// Handed out at the next question for due writes.
    pub to_write: Vec<BlockWrite>,
    /// Due whenever it is asked.
    pub always: Vec<BlockWrite>,
    pub machines: bool,
    /// How often it is swept; 50 ms when nothing is said.
    pub sweep_every: Option<Duration>,
}

impl Seen {
    /// The last reading of a point.
    pub fn last(&self, id: u32) -> Option<&Reading> {
        self.readings.iter().rev().find(|r| r.point == PointId(id))
    }

    pub fn good(&self, id: u32) -> usize {
        self.readings.iter().filter(|r| r.point == PointId(id) && r.quality == Quality::Good).count()
    }

    pub fn downs(&self) -> Vec<&str> {
        self.links.iter().filter(|(s, _)| *s == LinkState::Down).map(|(_, why)| why.as_str()).collect()
    }
}

struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }
}

impl LineSink for Recorder {
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>) {
        let mut seen = self.seen();
        seen.reports.push(report);
        seen.readings.append(readings);
    }

    fn link(&mut self, state: LinkState, cause: Option<&LinkError>) {
        self.seen().links.push((state, cause.map_or(String::new(), ToString::to_string)));
    }

    fn health(&mut self, device: usize, health: Health, cause: Cause) {
        self.seen().health.push((device, health, cause));
    }

    fn missed(&mut self, device: usize, polls: u64) {
        self.seen().missed.push((device, polls));
    }

    fn carries_machines(&self) -> bool {
        self.seen().machines
    }

    fn due_writes(&mut self, out: &mut Vec<BlockWrite>) {
        let seen = &mut *self.seen();
        out.append(&mut seen.to_write);
        out.extend_from_slice(&seen.always);
    }

    fn written(&mut self, blocks: &[BlockWrite]) {
        self.seen().written.extend_from_slice(blocks);
    }

    fn not_written(&mut self, blocks: &[BlockWrite], cause: Cause) {
        let mut seen = self.seen();
        seen.not_written.push(cause);
        seen.refused.push(blocks.iter().map(|b| b.machine).collect());
    }

    fn sweep(&mut self) {}

    fn sweep_every(&self) -> Duration {
        self.seen().sweep_every.unwrap_or(Duration::from_millis(50))
    }

    fn counters(&mut self, counters: LineCounters) {
        self.seen().counters = counters;
    }
}

/// A line that runs.
pub struct Running {
    pub seen: Arc<Mutex<Seen>>,
    pub wishes: mpsc::Sender<TagWrite>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn start(spec: LineSpec) -> Running {
        Running::start_with(spec, Seen::default())
    }

    pub fn start_with(spec: LineSpec, seen: Seen) -> Running {
        let seen = Arc::new(Mutex::new(seen));
        let (wishes, asked) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200), 7);
        let task = tokio::spawn(run_line(Modbus::new(spec), Recorder(seen.clone()), asked, backoff, stopped));
        Running { seen, wishes, stop, task }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until what is seen is as wanted; the time limit is generous, for busy machines.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !wanted(&self.seen()) {
            if start.elapsed() > Duration::from_secs(20) {
                let seen = self.seen();
                let last: Vec<_> = seen.readings.iter().rev().take(4).collect();
                panic!(
                    "not seen: {what}; links {:?}, health {:?}, last {last:?}, {:?}",
                    seen.links, seen.health, seen.counters
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Writes a point and waits for the outcome.
    pub async fn write(&self, point: u32, value: Value, verify: bool) -> WriteOutcome {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_secs(10);
        self.wishes
            .send(TagWrite { point: PointId(point), value, deadline, priority: 0, verify, reply })
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an outcome in time").expect("an outcome")
    }

    pub async fn stop(self) -> Arc<Mutex<Seen>> {
        let _ = self.stop.send(true);
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("it stops").expect("it does not panic");
        self.seen
    }
}

pub fn point(id: u32, address: &str, kind: DataType) -> PointSpec {
    PointSpec {
        id: PointId(id),
        address: address.parse().unwrap(),
        format: Format::plain(kind),
        interval: Duration::from_millis(50),
        writable: address.starts_with("holding") || address.starts_with("coil"),
        read_modify_write: false,
    }
}

pub fn device(unit: u8, points: Vec<PointSpec>) -> DeviceSpec {
    let (single_writes, mask_write, foreign_replies) = (true, false, false);
    DeviceSpec { unit, points, limits: Limits::default(), single_writes, mask_write, foreign_replies, commands: vec![] }
}

pub fn line(endpoint: Endpoint, devices: Vec<DeviceSpec>) -> LineSpec {
    LineSpec {
        endpoint,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_millis(400),
        pipeline: 1,
        pause: Duration::ZERO,
        close_after_poll: false,
        devices,
    }
}

/// A request as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub connection: usize,
    pub transaction: u16,
    pub unit: u8,
    pub pdu: Vec<u8>,
}

/// What a test's server sends: whole frames, after so long.
pub type Sends = Vec<(Duration, Vec<u8>)>;

/// An MBAP frame.
pub fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut out = transaction.to_be_bytes().to_vec();
    out.extend([0, 0]);
    out.extend((pdu.len() as u16 + 1).to_be_bytes());
    out.push(unit);
    out.extend(pdu);
    out
}

/// An answer at once, in the right frame.
pub fn at_once(asked: &Asked, pdu: &[u8]) -> Sends {
    vec![(Duration::ZERO, frame(asked.transaction, asked.unit, pdu))]
}

/// A good answer to a read of registers: each register holds its own number. Anything else is echoed.
pub fn own_numbers(pdu: &[u8]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
    match pdu[0] {
        3 | 4 => {
            let mut out = vec![pdu[0], (word(3) * 2) as u8];
            out.extend((0..word(3)).flat_map(|n| (word(1) + n).to_be_bytes()));
            out
        }
        _ => pdu[..5].to_vec(),
    }
}

/// A server that asks `answer` what to do; several connections, requests taken as they come, answers sent at their time.
pub async fn server(answer: impl FnMut(&Asked) -> Sends + Send + 'static) -> (Endpoint, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (asked.clone(), Arc::new(Mutex::new(answer)));
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(talk(stream, connection, log.clone(), answer.clone()));
        }
    });
    (Endpoint::Tcp(at), asked)
}

async fn talk<A: FnMut(&Asked) -> Sends + Send + 'static>(
    stream: TcpStream,
    connection: usize,
    log: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Mutex<A>>,
) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    let mut head = [0u8; 7];
    while reader.read_exact(&mut head).await.is_ok() {
        let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
        reader.read_exact(&mut pdu).await.unwrap();
        let asked = Asked { connection, transaction: u16::from_be_bytes([head[0], head[1]]), unit: head[6], pdu };
        log.lock().unwrap().push(asked.clone());
        let sends = (answer.lock().unwrap())(&asked);
        for (wait, bytes) in sends {
            let writer = writer.clone();
            if wait.is_zero() {
                let _ = writer.lock().await.write_all(&bytes).await;
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let _ = writer.lock().await.write_all(&bytes).await;
                });
            }
        }
    }
}
