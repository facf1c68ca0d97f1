//! The driver: one socket, several units behind it.

use super::address::{Address, Table};
use super::decode::{DataType, Scale, WordOrder, decode};
use super::plan::{PlanLimits, Span, plan};
use crate::driver::{BlockWrite, Driver, LinkError, PollReport, TagWrite};
use crate::line::{LineSink, WRITE_TICK};
use crate::value::{Cause, PointId, Reading, Value, wall_clock_ms};
use control_core::units::MachineId;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client, Context, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Error, Request as Pdu, Response};

/// Registers one write request may carry (V1.1b3, 6.12).
const WRITE_REGISTERS_MAX: usize = 123;

/// One point of a device.
#[derive(Clone, Debug)]
pub struct PointSpec {
    /// Its number on the line.
    pub id: PointId,
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub kind: DataType,
    /// Which word comes first.
    pub order: WordOrder,
    /// Factor and offset.
    pub scale: Option<Scale>,
    /// How often it is read.
    pub interval: Duration,
}

/// One unit on the line.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Unit id.
    pub unit: u8,
    /// Its points.
    pub points: Vec<PointSpec>,
    /// What it takes in one request.
    pub limits: PlanLimits,
    /// Machines whose command block this unit holds, with the block's first holding register.
    pub commands: Vec<(MachineId, u16)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct TcpSpec {
    /// `host:port`.
    pub peer: String,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for one reply.
    pub timeout: Duration,
    /// The units behind it.
    pub devices: Vec<DeviceSpec>,
}

/// A read request and what is in its reply.
#[derive(Debug)]
struct Read {
    unit: u8,
    table: Table,
    start: u16,
    count: u16,
    points: Vec<PointSpec>,
}

#[derive(Debug)]
struct Group {
    interval: Duration,
    reads: Vec<Read>,
}

/// Modbus TCP client of one line.
pub struct ModbusTcp {
    peer: String,
    connect_timeout: Duration,
    timeout: Duration,
    groups: Vec<Group>,
    commands: Vec<(MachineId, u8, u16)>,
    context: Option<Context>,
}

impl ModbusTcp {
    /// Plans all requests of the line; connects nothing.
    pub fn new(spec: TcpSpec) -> ModbusTcp {
        let mut intervals: Vec<Duration> =
            spec.devices.iter().flat_map(|d| d.points.iter().map(|p| p.interval)).collect();
        intervals.sort();
        intervals.dedup();
        let groups = intervals
            .into_iter()
            .map(|interval| Group { interval, reads: reads_of(&spec.devices, interval) })
            .collect();
        let commands = spec.devices.iter().flat_map(|d| d.commands.iter().map(|(m, at)| (*m, d.unit, *at))).collect();
        ModbusTcp {
            peer: spec.peer,
            connect_timeout: spec.connect_timeout,
            timeout: spec.timeout,
            groups,
            commands,
            context: None,
        }
    }

    /// How many requests a group costs.
    pub fn requests(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, |g| g.reads.len())
    }
}

fn reads_of(devices: &[DeviceSpec], interval: Duration) -> Vec<Read> {
    let mut reads = Vec::new();
    for device in devices {
        let points: Vec<&PointSpec> = device.points.iter().filter(|p| p.interval == interval).collect();
        let spans: Vec<Span> = points
            .iter()
            .map(|p| Span { table: p.address.table, start: p.address.number, len: p.kind.registers() })
            .collect();
        for request in plan(&spans, device.limits) {
            reads.push(Read {
                unit: device.unit,
                table: request.table,
                start: request.start,
                count: request.count,
                points: request.spans.iter().filter_map(|i| points.get(*i).map(|p| (*p).clone())).collect(),
            });
        }
    }
    reads
}

/// The reply to a read, after its kind and length have been checked.
enum Reply {
    Registers(Vec<u16>),
    Bits(Vec<bool>),
    Exception(u8),
}

/// Sends one request and waits for its reply. Every error ends the link; only then is `what` put into words.
async fn call(
    context: &mut Option<Context>,
    peer: &str,
    limit: Duration,
    unit: u8,
    what: impl Fn() -> String,
    pdu: Pdu<'_>,
) -> Result<Result<Response, u8>, LinkError> {
    let peer = || peer.to_string();
    let Some(open) = context.as_mut() else {
        return Err(LinkError::Lost { peer: peer(), why: "not connected".into() });
    };
    open.set_slave(Slave(unit));
    match timeout(limit, open.call(pdu)).await {
        Ok(Ok(Ok(response))) => Ok(Ok(response)),
        Ok(Ok(Err(exception))) => Ok(Err(exception.into())),
        Ok(Err(Error::Transport(e))) => Err(match e.kind() {
            ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                LinkError::Protocol { peer: peer(), what: format!("reply to {}: {e}", what()) }
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
                LinkError::Lost { peer: peer(), why: e.to_string() }
            }
            // At the end of the stream the library reports whatever error the system had last, related or not.
            _ => LinkError::Lost { peer: peer(), why: "closed by the device".into() },
        }),
        Ok(Err(Error::Protocol(e))) => {
            Err(LinkError::Protocol { peer: peer(), what: format!("reply to {}: {e}", what()) })
        }
        Err(_) => Err(LinkError::Timeout { peer: peer(), what: what(), limit }),
    }
}

/// Believes a reply only if it is of the right kind and exactly as long as was asked for
/// (bits: padded to whole bytes, no more).
fn check_read(read: &Read, response: Result<Response, u8>) -> Result<Reply, String> {
    let want = usize::from(read.count);
    match (read.table, response) {
        (_, Err(code)) => Ok(Reply::Exception(code)),
        (Table::Holding, Ok(Response::ReadHoldingRegisters(words)))
        | (Table::Input, Ok(Response::ReadInputRegisters(words))) => {
            if words.len() == want {
                Ok(Reply::Registers(words))
            } else {
                Err(format!("{} registers", words.len()))
            }
        }
        (Table::Coil, Ok(Response::ReadCoils(bits))) | (Table::Discrete, Ok(Response::ReadDiscreteInputs(bits))) => {
            if bits.len() >= want && bits.len() <= want.next_multiple_of(8) {
                Ok(Reply::Bits(bits))
            } else {
                Err(format!("{} bits", bits.len()))
            }
        }
        (_, Ok(other)) => Err(format!("function {}", other.function_code())),
    }
}

fn readings_of(read: &Read, reply: &Reply, now_ms: u64, out: &mut Vec<Reading>) {
    for point in &read.points {
        let at = usize::from(point.address.number - read.start); // planned: never below the start
        let value = match reply {
            Reply::Exception(code) => {
                out.push(Reading::bad(point.id, Cause::Exception(*code), now_ms));
                continue;
            }
            Reply::Registers(words) => {
                words.get(at..).and_then(|w| decode(w, point.kind, point.address.bit, point.order, point.scale))
            }
            Reply::Bits(bits) => bits.get(at).map(|b| Value::Bool(*b)),
        };
        out.push(match value {
            Some(value) => Reading::good(point.id, value, now_ms),
            None => Reading::bad(point.id, Cause::WrongType, now_ms),
        });
    }
}

impl Driver for ModbusTcp {
    fn peer(&self) -> String {
        self.peer.clone()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        let fail = |why: String| LinkError::Connect { peer: self.peer.clone(), why };
        let stream = match timeout(self.connect_timeout, TcpStream::connect(&self.peer)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
                return Err(fail(
                    "the host answers, but nothing listens on this port; is Modbus TCP switched on in the device?"
                        .into(),
                ));
            }
            Ok(Err(e)) => return Err(fail(format!("{e}; check the address, the cable and the switch"))),
            Err(_) => {
                let limit = self.connect_timeout;
                return Err(fail(format!("no answer within {limit:?}; is the device powered and on this network?")));
            }
        };
        stream.set_nodelay(true).map_err(|e| fail(e.to_string()))?;
        self.context = Some(tcp::attach(stream));
        Ok(())
    }

    async fn serve<S: LineSink>(
        &mut self,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let periods: Vec<Duration> = self.groups.iter().map(|g| g.interval).collect();
        let mut due: Vec<Instant> = vec![Instant::now(); periods.len()];
        let (mut readings, mut writes) = (Vec::new(), Vec::new());
        loop {
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            writes.clear();
            sink.due_writes(&mut writes);
            if !writes.is_empty() {
                self.write(&writes).await?;
                sink.written(&writes);
            }
            sink.sweep();
            if stopping {
                return Ok(());
            }
            while let Ok(wish) = wishes.try_recv() {
                let _ = wish.reply.send(crate::driver::WriteOutcome::Invalid("not yet".into()));
            }
            let now = Instant::now();
            let next = due.iter().enumerate().min_by_key(|(_, at)| **at).map(|(group, at)| (group, *at));
            match next {
                Some((group, at)) if at <= now => {
                    let period = periods[group].max(Duration::from_millis(1));
                    let late = u64::try_from((now - at).as_nanos() / period.as_nanos()).unwrap_or(u64::MAX);
                    if late > 0 {
                        sink.missed(0, late);
                    }
                    due[group] = at + period * u32::try_from(late + 1).unwrap_or(u32::MAX);
                    readings.clear();
                    let mut report = self.poll(group, &mut readings).await?;
                    report.took = now.elapsed();
                    sink.readings(report, &mut readings);
                }
                _ => sleep_until(next.map_or(now + WRITE_TICK, |(_, at)| at.min(now + WRITE_TICK))).await,
            }
        }
    }

    fn close(&mut self) {
        self.context = None;
    }
}

impl ModbusTcp {
    /// The polling intervals.
    pub fn groups(&self) -> Vec<Duration> {
        self.groups.iter().map(|g| g.interval).collect()
    }

    async fn poll(&mut self, group: usize, out: &mut Vec<Reading>) -> Result<PollReport, LinkError> {
        let mut report = PollReport::default();
        let reads = self.groups.get(group).map_or(&[][..], |g| &g.reads);
        for read in reads {
            let what = || format!("read of {} at unit {}", span_text(read.table, read.start, read.count), read.unit);
            let (start, count) = (read.start, read.count);
            let pdu = match read.table {
                Table::Coil => Pdu::ReadCoils(start, count),
                Table::Discrete => Pdu::ReadDiscreteInputs(start, count),
                Table::Input => Pdu::ReadInputRegisters(start, count),
                Table::Holding => Pdu::ReadHoldingRegisters(start, count),
            };
            report.requests += 1;
            let response = call(&mut self.context, &self.peer, self.timeout, read.unit, what, pdu).await?;
            let reply = check_read(read, response).map_err(|got| LinkError::Protocol {
                peer: self.peer.clone(),
                what: format!("reply to {} has {got}, expected {count}", what()),
            })?;
            readings_of(read, &reply, wall_clock_ms(), out);
        }
        Ok(report)
    }

    async fn write(&mut self, blocks: &[BlockWrite]) -> Result<(), LinkError> {
        let place =
            |b: &BlockWrite| self.commands.iter().find(|(m, ..)| *m == b.machine).map(|(_, unit, at)| (*unit, *at));
        let mut placed: Vec<(u8, u16, &BlockWrite)> =
            blocks.iter().filter_map(|b| place(b).map(|(unit, at)| (unit, at, b))).collect();
        placed.sort_by_key(|(unit, at, _)| (*unit, *at));

        // Blocks that stand side by side go out in one request.
        let mut runs: Vec<(u8, u16, Vec<u16>)> = Vec::new();
        for (unit, at, block) in placed {
            match runs.last_mut() {
                Some((u, start, words))
                    if *u == unit
                        && usize::from(*start) + words.len() == usize::from(at)
                        && words.len() + block.words.len() <= WRITE_REGISTERS_MAX =>
                {
                    words.extend_from_slice(&block.words);
                }
                _ => runs.push((unit, at, block.words.to_vec())),
            }
        }
        for (unit, at, words) in runs {
            let count = words.len() as u16; // at most WRITE_REGISTERS_MAX
            let what = || format!("write of {} at unit {unit}", span_text(Table::Holding, at, count));
            let broke = |what| LinkError::Protocol { peer: self.peer.clone(), what };
            let pdu = Pdu::WriteMultipleRegisters(at, words.into());
            match call(&mut self.context, &self.peer, self.timeout, unit, what, pdu).await? {
                Ok(Response::WriteMultipleRegisters(a, n)) if (a, n) == (at, count) => {}
                Ok(Response::WriteMultipleRegisters(a, n)) => {
                    return Err(broke(format!("echo of {} says {}", what(), span_text(Table::Holding, a, n))));
                }
                Ok(other) => return Err(broke(format!("answer to {} is function {}", what(), other.function_code()))),
                Err(code) => {
                    return Err(broke(format!(
                        "{} refused: exception {code} ({})",
                        what(),
                        super::exception_name(code)
                    )));
                }
            }
        }
        Ok(())
    }
}

fn span_text(table: Table, start: u16, count: u16) -> String {
    let last = u32::from(start) + u32::from(count).max(1) - 1;
    format!("{}..{last}", Address { table, number: start, bit: None })
}
