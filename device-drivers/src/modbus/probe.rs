//! One question to each unit of a line, for `edge-agent check --connect`, before anything runs: is it there, and has it what the
//! configuration names?

use super::address::{Table, span_text};
use super::exception_name;
use super::frame::{Inbox, put_mbap, put_rtu};
use super::pdu::{Answer, Ask, Expected};
use super::spec::{DeviceSpec, LineSpec};
use super::transport::{Endpoint, Stream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// A unit behind a gateway may take so long before the gateway says that it does not answer.
const REPLY_MIN: Duration = Duration::from_secs(3);
/// Bytes read at once.
const READ: usize = 512;

/// A line that is asked, and thrown away.
pub struct Probe<'a> {
    spec: &'a LineSpec,
    stream: Box<dyn Stream>,
    inbox: Inbox,
    transaction: u16,
}

impl<'a> Probe<'a> {
    /// Makes the connection; the text says what a technician can look at.
    pub async fn open(spec: &'a LineSpec) -> Result<Probe<'a>, String> {
        let stream = spec.endpoint.open(spec.connect_timeout).await?;
        Ok(Probe { spec, stream, inbox: Inbox::default(), transaction: 0 })
    }

    /// Reads the first value of a device. The text says what came of it. An error of the connection ends it: open another one.
    pub async fn ask(&mut self, device: &DeviceSpec) -> Result<String, Fault> {
        let unit = device.unit;
        let (table, start, count) = first_of(device);
        let ask = Ask::Read { table, start, count };
        let what = if count == 1 { format!("{}:{start}", table.name()) } else { span_text(table, start, count) };
        let limit = self.spec.timeout.max(REPLY_MIN);
        sleep(self.spec.endpoint.silence().max(self.spec.pause)).await;
        let (mut pdu, mut frame) = (Vec::new(), Vec::new());
        let expected = ask.encode(&mut pdu);
        self.transaction = self.transaction.wrapping_add(1);
        match self.spec.endpoint {
            Endpoint::Tcp(_) | Endpoint::Tls(..) => put_mbap(self.transaction, unit, &pdu, &mut frame),
            Endpoint::RtuOverTcp(_) | Endpoint::Rtu(_) => put_rtu(unit, &pdu, &mut frame),
        }
        self.stream.write_all(&frame).await.map_err(|e| Fault::Line(format!("the connection has failed: {e}")))?;
        let reply = match timeout(limit, self.reply(unit, expected)).await {
            Ok(reply) => reply?,
            Err(_) => {
                let why = format!("unit {unit} does not answer within {limit:?}; is `unit` right, is it switched on?");
                return Err(Fault::Silent(why));
            }
        };
        match expected.check(&reply).map_err(|e| Fault::Unit(format!("unit {unit} answers with {e}")))? {
            Answer::Data(_) | Answer::Done => Ok(format!("unit {unit} answers, {what} was read")),
            Answer::Exception(code) => refused(device, &what, code),
        }
    }

    async fn reply(&mut self, unit: u8, expected: Expected) -> Result<Vec<u8>, Fault> {
        let mut bytes = [0; READ];
        loop {
            let found =
                if self.spec.endpoint.has_transactions() { self.mbap(unit)? } else { self.inbox.rtu(unit, expected) };
            if let Some(pdu) = found {
                return Ok(self.inbox.get(pdu).to_vec());
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) => return Err(Fault::Line("the peer hung up when it was asked".into())),
                Ok(n) => self.inbox.push(bytes.get(..n).unwrap_or_default()),
                Err(e) => return Err(Fault::Line(e.to_string())),
            }
        }
    }

    fn mbap(&mut self, unit: u8) -> Result<Option<std::ops::Range<usize>>, Fault> {
        loop {
            let frame = self.inbox.mbap();
            let frame = frame.map_err(|e| Fault::Line(format!("what it sends is no Modbus TCP ({e})")))?;
            match frame {
                None => return Ok(None),
                Some(f) if f.transaction != self.transaction => {} // late
                Some(f) if f.unit != unit => {
                    return Err(Fault::Unit(format!("asked for unit {unit}, it answers as unit {}", f.unit)));
                }
                Some(f) => return Ok(Some(f.pdu)),
            }
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With the connection: nobody else can be asked over it.
    Line(String),
    /// A reply may still come: others are asked over another connection.
    Silent(String),
    /// With this unit.
    Unit(String),
}

impl Fault {
    /// What to say of it.
    pub fn text(&self) -> &str {
        let (Fault::Line(text) | Fault::Silent(text) | Fault::Unit(text)) = self;
        text
    }
}

/// What is asked of a device: its first value, or the first of its command blocks; of one that has neither some register.
fn first_of(device: &DeviceSpec) -> (Table, u16, u16) {
    let point = device.points.first().map(|p| (p.address.table, p.address.number, p.format.kind.registers()));
    let command = device.commands.first().map(|(_, first)| (Table::Holding, *first, 1));
    point.or(command).unwrap_or((Table::Holding, 0, 1))
}

fn refused(device: &DeviceSpec, what: &str, code: u8) -> Result<String, Fault> {
    let (unit, name) = (device.unit, exception_name(code));
    let wrong = |text: String| Err(Fault::Unit(text));
    match code {
        // V1.1b3, 7: the gateway speaks, and not the unit.
        10 => wrong(format!(
            "unit {unit} is not reached: the gateway has no way to it (exception 10, {name}); is `unit` right, is the gateway's serial port set up?"
        )),
        11 => wrong(format!(
            "unit {unit} is not reached: it does not answer the gateway (exception 11, {name}); is `unit` right, is it switched on and wired?"
        )),
        5 | 6 => Ok(format!("unit {unit} answers, and is busy ({name})")),
        _ if device.points.is_empty() => Ok(format!("unit {unit} answers (exception {code}, {name})")),
        _ => {
            wrong(format!("unit {unit} answers, and refuses {what} (exception {code}, {name}): is its address right?"))
        }
    }
}
