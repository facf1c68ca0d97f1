//! A Modbus TCP stand-in with manners of its own: each is an argument, and all may be changed while it runs.
//!
//! ```text
//!   request ──> written down ──> one after another, each after `delay` ──> exception? else done ──> dressed ──> reply ──> closed?
//!                 └── `drops_while_busy`                                    `refuses`              `answers_as`   `closes`
//!                                                                                                  `transaction`
//! ```
//!
//! Nothing of ours is behind it, so that no fault of ours is on both sides; it needs tokio alone. Tests of other crates take it by its path:
//! `#[path = "../../device-drivers/tests/line/plc.rs"] mod plc;`
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What devices hold where they have no value, by type, high word first.
pub const ABSENT: [(&str, &[u16]); 7] = [
    ("u16", &[0xFFFF]),
    ("i16", &[0x8000]),
    ("u32", &[0xFFFF; 2]),
    ("i32", &[0x8000, 0]),
    ("f32", &[0x7FC0, 0]),
    ("u64", &[0xFFFF; 4]),
    ("i64", &[0x8000, 0, 0, 0]),
];

/// When it hangs up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Closes {
    /// When its client does.
    #[default]
    Never,
    /// Behind so many replies of one connection.
    AfterReplies(u32),
    /// When nothing has been said for so long.
    WhenIdle(Duration),
    /// Behind each reply of this unit, as a gateway does whose serial side is this one's.
    BehindUnit(u8),
    /// In place of a reply, behind so many good ones of one connection: the request is done, and not answered.
    InsteadOfReply(u32),
}

/// Requests that are answered with an exception.
#[derive(Clone, Debug, PartialEq)]
pub struct Refuses {
    registers: RangeInclusive<u16>,
    code: u8,
    writes: bool,
    done: bool,
    times: u32,
}

impl Refuses {
    /// Reads that touch one of these, of any table.
    pub fn reads(registers: RangeInclusive<u16>, code: u8) -> Refuses {
        Refuses { registers, code, writes: false, done: false, times: u32::MAX }
    }

    /// Writes that touch one of these.
    pub fn writes(registers: RangeInclusive<u16>, code: u8) -> Refuses {
        Refuses { writes: true, ..Refuses::reads(registers, code) }
    }

    /// What is answered so is done all the same.
    pub fn but_does_it(self) -> Refuses {
        Refuses { done: true, ..self }
    }

    /// Only so many times.
    pub fn times(self, times: u32) -> Refuses {
        Refuses { times, ..self }
    }
}

/// How it behaves. By default well.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Before each reply; what comes meanwhile waits.
    pub delay: Duration,
    /// What comes while another request is open is never answered, as pymodbus does it.
    pub drops_while_busy: bool,
    /// When it hangs up.
    pub closes: Closes,
    /// It hangs up with a reset.
    pub resets: bool,
    /// The unit in its replies.
    pub answers_as: Option<u8>,
    /// The transaction in its replies.
    pub transaction: Option<u16>,
    /// Units that say nothing.
    pub silent: Vec<u8>,
    /// The first that fits answers.
    pub refuses: Vec<Refuses>,
    /// Connections at once; more have to wait.
    pub connections_max: usize,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners {
            delay: Duration::ZERO,
            drops_while_busy: false,
            closes: Closes::Never,
            resets: false,
            answers_as: None,
            transaction: None,
            silent: Vec::new(),
            refuses: Vec::new(),
            connections_max: 64,
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// From 0.
    pub connection: usize,
    pub transaction: u16,
    pub unit: u8,
    pub pdu: Vec<u8>,
    pub at: Instant,
}

impl Asked {
    pub fn is_write(&self) -> bool {
        matches!(self.pdu.first(), Some(5 | 6 | 15 | 16 | 22))
    }

    /// A word of the PDU.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.pdu[at], self.pdu[at + 1]])
    }
}

/// What it has seen, and what it holds.
#[derive(Default)]
pub struct Inside {
    pub manners: Manners,
    pub asked: Vec<Asked>,
    /// Connections it has taken.
    pub connections: usize,
    /// Connections at once, now and at most.
    pub connected: (usize, usize),
    /// Requests without a reply, now and at most.
    pub open: (usize, usize),
    registers: HashMap<(u8, u16), u16>,
    coils: HashMap<(u8, u16), bool>,
    busy_until: Option<Instant>,
}

impl Inside {
    /// A register holds its own number until something else is written there.
    pub fn register(&self, unit: u8, number: u16) -> u16 {
        self.registers.get(&(unit, number)).copied().unwrap_or(number)
    }

    pub fn set(&mut self, unit: u8, at: u16, words: &[u16]) {
        self.registers.extend((at..).zip(words).map(|(n, word)| ((unit, n), *word)));
    }

    pub fn coil(&self, unit: u8, number: u16) -> bool {
        self.coils.get(&(unit, number)).copied().unwrap_or(false)
    }

    /// The device has no value there, as one of [`ABSENT`] says it.
    pub fn set_absent(&mut self, unit: u8, at: u16, kind: &str) {
        let words = ABSENT.iter().find(|(name, _)| *name == kind).expect("a type of ABSENT").1;
        self.set(unit, at, words);
    }

    /// Reads, in the order in which they came.
    pub fn reads(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|a| !a.is_write())
    }

    /// Writes, in the order in which they came.
    pub fn writes(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|a| a.is_write())
    }

    fn answer(&mut self, asked: &Asked) -> Vec<u8> {
        let (function, start) = (asked.pdu[0], asked.word(1));
        let count = if matches!(function, 5 | 6 | 22) { 1 } else { asked.word(3) };
        let touches = |r: &RangeInclusive<u16>| *r.start() < start + count && *r.end() >= start;
        let fits = |r: &&mut Refuses| r.times > 0 && r.writes == asked.is_write() && touches(&r.registers);
        if let Some(refuses) = self.manners.refuses.iter_mut().find(fits) {
            refuses.times = refuses.times.saturating_sub(1);
            let (code, done) = (refuses.code, refuses.done);
            if done {
                self.done(asked, start, count);
            }
            return vec![function | 0x80, code];
        }
        self.done(asked, start, count)
    }

    fn done(&mut self, asked: &Asked, start: u16, count: u16) -> Vec<u8> {
        let unit = asked.unit;
        match asked.pdu[0] {
            function @ (1 | 2) => {
                let bits: Vec<bool> = (start..start + count).map(|n| self.coil(unit, n)).collect();
                let byte = |eight: &[bool]| eight.iter().rev().fold(0u8, |acc, b| acc << 1 | u8::from(*b));
                let bytes: Vec<u8> = bits.chunks(8).map(byte).collect();
                [vec![function, bytes.len() as u8], bytes].concat()
            }
            function @ (3 | 4) => {
                let mut pdu = vec![function, (count * 2) as u8];
                pdu.extend((start..start + count).flat_map(|n| self.register(unit, n).to_be_bytes()));
                pdu
            }
            5 => {
                self.coils.insert((unit, start), asked.word(3) == 0xFF00);
                asked.pdu.clone()
            }
            6 => {
                self.set(unit, start, &[asked.word(3)]);
                asked.pdu.clone()
            }
            15 => {
                let bit = |n: u16| asked.pdu[6 + usize::from(n / 8)] >> (n % 8) & 1 == 1;
                self.coils.extend((0..count).map(|n| ((unit, start + n), bit(n))));
                asked.pdu[..5].to_vec()
            }
            16 => {
                let words: Vec<u16> = (0..usize::from(count)).map(|n| asked.word(6 + 2 * n)).collect();
                self.set(unit, start, &words);
                asked.pdu[..5].to_vec()
            }
            22 => {
                let (and, or) = (asked.word(3), asked.word(5));
                let word = (self.register(unit, start) & and) | (or & !and);
                self.set(unit, start, &[word]);
                asked.pdu.clone()
            }
            other => vec![other | 0x80, 1],
        }
    }
}

/// A stand-in that runs until it is dropped.
pub struct Plc {
    /// Where it listens.
    pub addr: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    task: Option<JoinHandle<()>>,
}

impl Plc {
    pub async fn start(manners: Manners) -> Plc {
        let inside = Arc::new(Mutex::new(Inside { manners, ..Inside::default() }));
        let mut plc = Plc { addr: SocketAddr::from(([127, 0, 0, 1], 0)), inside, task: None };
        plc.power_on().await;
        plc
    }

    /// What it has seen and holds; how it behaves from now on is changed here too.
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// Nobody listens any more, and all connections are gone. What it holds it keeps.
    pub fn power_off(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Listens again, at the same place.
    pub async fn power_on(&mut self) {
        self.power_off();
        let start = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => break listener,
                Err(e) if start.elapsed() > Duration::from_secs(20) => panic!("{}: {e}", self.addr),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.addr = listener.local_addr().unwrap();
        let seats = Arc::new(Semaphore::new(self.inside().manners.connections_max));
        {
            let mut inside = self.inside();
            (inside.connected.0, inside.open.0, inside.busy_until) = (0, 0, None);
        }
        let inside = self.inside.clone();
        self.task = Some(tokio::spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let seat = seats.clone().acquire_owned().await.unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let inside = inside.clone();
                clients.spawn(async move {
                    talk(stream, &inside).await;
                    inside.lock().unwrap().connected.0 -= 1;
                    drop(seat);
                });
            }
        }));
    }
}

impl Drop for Plc {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A request that waits for its reply.
struct Waiting {
    due: Instant,
    asked: Asked,
}

async fn talk(mut stream: TcpStream, inside: &Mutex<Inside>) {
    let connection = {
        let mut inside = inside.lock().unwrap();
        inside.connections += 1;
        inside.connected.0 += 1;
        inside.connected.1 = inside.connected.1.max(inside.connected.0);
        inside.connections - 1
    };
    stream.set_nodelay(true).unwrap();
    let (mut bytes, mut chunk, mut waiting) = (Vec::new(), [0u8; 512], VecDeque::<Waiting>::new());
    let (mut replies, mut last) = (0, Instant::now());
    loop {
        let (closes, resets) = {
            let inside = inside.lock().unwrap();
            (inside.manners.closes, inside.manners.resets)
        };
        let idle = match closes {
            Closes::WhenIdle(limit) if waiting.is_empty() => Some(last + limit),
            _ => None,
        };
        let due = waiting.front().map(|w| w.due);
        tokio::select! {
            biased;
            () = until(due) => {
                let Some(Waiting { asked, .. }) = waiting.pop_front() else { continue };
                let (reply, unit) = (dressed(&asked, &mut inside.lock().unwrap()), asked.unit);
                if closes == Closes::InsteadOfReply(replies) {
                    break hang_up(stream, resets).await;
                }
                if stream.write_all(&reply).await.is_err() {
                    break;
                }
                (replies, last) = (replies + 1, Instant::now());
                if closes == Closes::AfterReplies(replies) || closes == Closes::BehindUnit(unit) {
                    break hang_up(stream, resets).await;
                }
            }
            () = until(idle) => break hang_up(stream, resets).await,
            read = stream.read(&mut chunk) => match read {
                Ok(n @ 1..) => {
                    bytes.extend_from_slice(&chunk[..n]);
                    last = Instant::now();
                    while let Some(asked) = frame_of(connection, &mut bytes) {
                        waiting.extend(taken(asked, &mut inside.lock().unwrap()));
                    }
                }
                _ => break,
            },
        }
    }
    inside.lock().unwrap().open.0 -= waiting.len();
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn hang_up(mut stream: TcpStream, resets: bool) {
    if resets {
        stream.set_zero_linger().unwrap();
    } else {
        let _ = stream.shutdown().await;
    }
}

/// The next whole request.
fn frame_of(connection: usize, bytes: &mut Vec<u8>) -> Option<Asked> {
    let head: [u8; 7] = bytes.get(..7)?.try_into().ok()?;
    let end = 6 + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let pdu = bytes.get(7..end)?.to_vec();
    bytes.drain(..end);
    let transaction = u16::from_be_bytes([head[0], head[1]]);
    Some(Asked { connection, transaction, unit: head[6], pdu, at: Instant::now() })
}

/// Writes a request down, and says when it will be answered, if it will.
fn taken(asked: Asked, inside: &mut Inside) -> Option<Waiting> {
    let now = asked.at;
    inside.asked.push(asked.clone());
    if inside.manners.silent.contains(&asked.unit) {
        return None;
    }
    inside.open.0 += 1;
    inside.open.1 = inside.open.1.max(inside.open.0);
    if inside.manners.drops_while_busy && inside.open.0 > 1 {
        inside.open.0 -= 1;
        return None;
    }
    let due = inside.busy_until.map_or(now, |t| t.max(now)) + inside.manners.delay;
    inside.busy_until = Some(due);
    Some(Waiting { due, asked })
}

/// The reply in its frame.
fn dressed(asked: &Asked, inside: &mut Inside) -> Vec<u8> {
    inside.open.0 -= 1;
    let pdu = inside.answer(asked);
    let Manners { answers_as, transaction, .. } = &inside.manners;
    let mut out = transaction.unwrap_or(asked.transaction).to_be_bytes().to_vec();
    out.extend([0, 0]);
    out.extend((pdu.len() as u16 + 1).to_be_bytes());
    out.push(answers_as.unwrap_or(asked.unit));
    out.extend(pdu);
    out
}
