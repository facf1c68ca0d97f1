//! Conversations: one for each connection, one buffer in, one buffer out.
//!
//! ```text
//!            ┌─ read ─> input ─ every request that is complete ─> out ─ one write ─┐
//!   stream ──┤                                   └─ delayed ─> later ─ when due ───┼──> stream
//!            └─ silent too long, kicked by the device, reset ──> end               ┘
//! ```
//!
//! In the steady state nothing is allocated for a request: both buffers keep their size. A delayed answer has a buffer of its own.

use super::frame::{Found, find_rtu, find_tcp};
use super::wire::{Treatment, bend, close, dress, open};
use super::{Framing, pdu};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

/// Room for 16 of the longest requests.
const INPUT: usize = 16 * 260;
/// Answers are written when there are so many bytes of them, even if more requests wait.
const WRITE_AT: usize = 16 * 1024;
/// An answer that waits to be overtaken waits no longer than this.
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(100);
/// Delayed answers of one connection; the oldest requests beyond are answered without delay.
const LATER_MAX: usize = 4096;

/// What is behind a connection.
pub trait Device: Send + Sync + 'static {
    /// Whether there is such a unit. On RTU others are met with silence; on TCP [`Device::answer`] is asked all the same.
    fn has(&self, unit: u8) -> bool;

    /// Does what a PDU asks and appends the PDU of the answer.
    fn answer(&self, unit: u8, pdu: &[u8], out: &mut Vec<u8>);

    /// Does what a PDU asks of all units (RTU, unit 0).
    fn broadcast(&self, _pdu: &[u8]) {}

    /// What becomes of a request. Asked before it is done.
    fn treatment(&self, _unit: u8) -> Treatment {
        Treatment::default()
    }

    /// Whether a new connection is served. Otherwise it is closed at once.
    fn welcomes(&self) -> bool {
        true
    }

    /// Completes when connections that are open now are to be closed.
    fn kicked(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// So many bytes came in and went out.
    fn carried(&self, _received: usize, _sent: usize) {}
}

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How requests are framed.
    pub framing: Framing,
    /// Connections served at once; more wait.
    pub connections_max: usize,
    /// A client that says nothing for this long is let go; `None` for never.
    pub idle_max: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options { framing: Framing::Tcp, connections_max: 64, idle_max: Some(Duration::from_secs(60)) }
    }
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has closed it.
    Closed,
    /// The client was silent for too long.
    Idle,
    /// The device closes it.
    Kicked,
    /// The device wants it reset, which only a socket can do.
    Reset,
}

/// Serves until the future is dropped; its connections are closed then.
pub async fn listen<D: Device>(device: Arc<D>, listener: TcpListener, options: Options) {
    let seats = Arc::new(Semaphore::new(options.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if device.welcomes() => {
                let device = device.clone();
                clients.spawn(async move {
                    let _seat = seat;
                    let _ = client(&*device, stream, options).await; // whatever ended it ended it for this client alone
                });
            }
            Ok(_) => {}
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn client(device: &impl Device, mut stream: TcpStream, options: Options) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if converse(device, &mut stream, options).await? == End::Reset {
        stream.set_zero_linger()?;
    }
    Ok(())
}

/// Answers on one stream until it ends. TCP sockets should have `TCP_NODELAY`.
pub async fn converse<D, S>(device: &D, stream: &mut S, options: Options) -> io::Result<End>
where
    D: Device,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut talk = Talk::new(device, options.framing);
    let mut input = Input::new();
    let mut kicked = std::pin::pin!(device.kicked());
    // The timer is set anew only when it fires: a busy line does not touch it.
    let mut last_heard = Instant::now();
    let mut idle = std::pin::pin!(sleep(options.idle_max.unwrap_or_default()));
    loop {
        while let Some(step) = talk.next(&mut input) {
            if talk.out.len() >= WRITE_AT || !matches!(step, Step::Go) {
                flush(device, stream, &mut talk.out).await?;
            }
            match step {
                Step::Go => {}
                Step::Trickle(answer) => trickle(device, stream, &answer).await?,
                Step::Reset => return Ok(End::Reset),
            }
        }
        flush(device, stream, &mut talk.out).await?;

        let silence = input.silence(options.framing, last_heard);
        let due = talk.due();
        tokio::select! {
            biased;
            read = stream.read(input.room()) => {
                let received = read?;
                if received == 0 {
                    return Ok(End::Closed);
                }
                device.carried(received, 0);
                input.received(received);
                last_heard = Instant::now();
            }
            () = &mut kicked => return Ok(End::Kicked),
            () = until(due) => talk.take_due(),
            () = until(silence) => input.ended = true,
            () = &mut idle, if options.idle_max.is_some() => {
                let end = last_heard + options.idle_max.unwrap_or_default();
                if end <= Instant::now() && !talk.half_open {
                    return Ok(End::Idle);
                }
                idle.as_mut().reset(end.max(Instant::now() + Duration::from_secs(1)));
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn flush<S: AsyncWrite + Unpin>(device: &impl Device, stream: &mut S, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        stream.write_all(out).await?;
        stream.flush().await?;
        device.carried(0, out.len());
        out.clear();
    }
    Ok(())
}

/// Sends byte by byte, far enough apart that each is a segment of its own.
async fn trickle<S: AsyncWrite + Unpin>(device: &impl Device, stream: &mut S, answer: &[u8]) -> io::Result<()> {
    for byte in answer {
        stream.write_all(std::slice::from_ref(byte)).await?;
        stream.flush().await?;
        device.carried(0, 1);
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Bytes received and not yet understood.
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes to come that are passed over (TCP).
    skip: usize,
    /// Everything is passed over until the line is silent (RTU).
    deaf: bool,
    /// The line has been silent since the last byte (RTU).
    ended: bool,
}

impl Input {
    fn new() -> Input {
        Input { buffer: vec![0; INPUT], start: 0, end: 0, skip: 0, deaf: false, ended: false }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Where the next bytes go: never empty, for what is left is less than a request.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            (self.end, self.deaf) = (0, true); // RTU noise without a silence
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    fn received(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
        let skipped = self.skip.min(self.end - self.start);
        self.skip -= skipped;
        self.start += skipped;
    }

    fn take(&mut self, bytes: usize) {
        let there = bytes.min(self.end - self.start);
        self.start += there;
        self.skip += bytes - there;
    }

    /// When what has been received counts as ended.
    fn silence(&self, framing: Framing, last_heard: Instant) -> Option<Instant> {
        match framing {
            Framing::Rtu { gap } if self.deaf || self.start < self.end => Some(last_heard + gap),
            _ => None,
        }
    }
}

enum Step {
    Go,
    Trickle(Vec<u8>),
    Reset,
}

/// One side of a conversation: the device's.
struct Talk<'a, D> {
    device: &'a D,
    framing: Framing,
    /// Answers to be written.
    out: Vec<u8>,
    /// Answers that wait, and until when.
    later: Vec<(Instant, Vec<u8>)>,
    /// An answer that waits to be overtaken.
    held: Option<(Instant, Vec<u8>)>,
    half_open: bool,
}

impl<'a, D: Device> Talk<'a, D> {
    fn new(device: &'a D, framing: Framing) -> Self {
        Talk { device, framing, out: Vec::with_capacity(1024), later: Vec::new(), held: None, half_open: false }
    }

    /// Deals with the next request, or with what is none; `None` when more bytes are needed.
    fn next(&mut self, input: &mut Input) -> Option<Step> {
        let rtu = self.framing != Framing::Tcp;
        if rtu && input.deaf {
            input.take(input.end - input.start);
            input.deaf = !std::mem::take(&mut input.ended);
            return None;
        }
        let ended = std::mem::take(&mut input.ended);
        let bytes = input.bytes();
        if bytes.is_empty() {
            return None;
        }
        match if rtu { find_rtu(bytes, ended) } else { find_tcp(bytes) } {
            Found::More => None,
            Found::Nothing(length) => {
                input.take(length);
                input.deaf = rtu && !ended;
                Some(Step::Go)
            }
            Found::Request { transaction, unit, pdu, taken } => {
                let step = self.request(transaction, unit, pdu);
                input.take(taken);
                Some(step)
            }
        }
    }

    fn request(&mut self, transaction: [u8; 2], unit: u8, pdu: &[u8]) -> Step {
        if self.framing != Framing::Tcp && !self.device.has(unit) {
            if unit == 0 {
                self.device.broadcast(pdu);
            }
            return Step::Go;
        }
        let treatment = self.device.treatment(unit);
        if treatment == Treatment::default() && !self.half_open && self.held.is_none() {
            let start = open(self.framing, transaction, unit, &mut self.out);
            self.device.answer(unit, pdu, &mut self.out);
            close(self.framing, start, &mut self.out);
            return Step::Go;
        }
        self.half_open |= treatment.half_open;
        match treatment {
            Treatment { silent: true, .. } => Step::Go,
            Treatment { reset: true, .. } => Step::Reset,
            _ if self.half_open => Step::Go,
            _ => self.mistreat(&treatment, transaction, unit, pdu),
        }
    }

    fn mistreat(&mut self, treatment: &Treatment, transaction: [u8; 2], unit: u8, pdu: &[u8]) -> Step {
        let start = open(self.framing, transaction, unit, &mut self.out);
        self.device.answer(unit, pdu, &mut self.out);
        bend(self.framing, treatment, start, &mut self.out);
        close(self.framing, start, &mut self.out);
        let answer = dress(treatment, self.out.split_off(start));
        let overtaken = self.held.take().map(|(_, held)| held);
        if let Some(delay) = treatment.delay
            && self.later.len() < LATER_MAX
        {
            self.later.push((Instant::now() + delay, answer));
        } else if treatment.reorder && overtaken.is_none() {
            self.held = Some((Instant::now() + OVERTAKEN_WITHIN, answer));
        } else if treatment.trickle {
            return Step::Trickle([answer, overtaken.unwrap_or_default()].concat());
        } else {
            self.out.extend_from_slice(&answer);
        }
        self.out.extend_from_slice(&overtaken.unwrap_or_default());
        Step::Go
    }

    fn due(&self) -> Option<Instant> {
        self.later.iter().chain(&self.held).map(|(due, _)| *due).min()
    }

    /// Puts what is due into `out`, in the order in which it is due.
    fn take_due(&mut self) {
        let now = Instant::now();
        self.later.extend(self.held.take_if(|(due, _)| *due <= now));
        self.later.sort_by_key(|(due, _)| *due);
        let due = self.later.partition_point(|(due, _)| *due <= now);
        for (_, answer) in self.later.drain(..due) {
            self.out.extend_from_slice(&answer);
        }
    }
}

/// The answer of a unit that is not there.
pub(crate) fn no_such_unit(pdu: &[u8], out: &mut Vec<u8>) {
    pdu::refuse(pdu.first().copied().unwrap_or_default(), pdu::Exception::NO_SUCH_UNIT, out);
}
