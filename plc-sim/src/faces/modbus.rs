//! The rack PLC: a Modbus TCP server that answers like a PLC (Modbus Application Protocol V1.1b3, Modbus TCP V1.0b).
//!
//! Frames are checked here, byte by byte, and not by a library: exceptions come in the order 01, 03, 02; a refused write changes nothing;
//! a frame of another protocol is met with silence; a length that cannot be is read over; a client that falls silent is let go.

use super::SharedPlant;
use control_core::units::{LoadId, MachineId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS, rack_map};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections served at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A client that says nothing for this long is let go.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The unit that answers; 255 is "this device" (Modbus TCP V1.0b, 4.4.2).
const UNITS: [u8; 2] = [1, 255];

const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;
const NO_SUCH_UNIT: u8 = 11;

/// Serves until the task is aborted.
pub async fn serve(plant: SharedPlant, listener: TcpListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let plant = plant.clone();
                clients.spawn(async move {
                    let _seat = seat;
                    let _ = client(stream, plant).await; // whatever ended it ended it for this client alone
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn client(mut stream: TcpStream, plant: SharedPlant) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut body = vec![0u8; usize::from(u16::MAX)];
    loop {
        let mut header = [0u8; 6];
        timeout(IDLE_MAX, stream.read_exact(&mut header)).await??;
        let [t1, t0, p1, p0, l1, l0] = header;
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        let Some(frame) = body.get_mut(..length) else { continue };
        timeout(IDLE_MAX, stream.read_exact(frame)).await??;
        // Unit, then a PDU of 1 to 253 bytes; protocol 0 (Modbus TCP V1.0b, 4.2).
        if [p1, p0] != [0, 0] || !(2..=254).contains(&length) {
            continue;
        }
        let [unit, pdu @ ..] = &*frame else { continue };
        let answer = answer(&plant, *unit, pdu);
        let mut out = Vec::with_capacity(7 + answer.len());
        out.extend_from_slice(&[t1, t0, 0, 0]);
        out.extend_from_slice(&(answer.len() as u16 + 1).to_be_bytes()); // an answer has 253 bytes at most
        out.push(*unit);
        out.extend_from_slice(&answer);
        stream.write_all(&out).await?;
    }
}

/// The answer to one PDU.
pub fn answer(plant: &SharedPlant, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let Some((&function, data)) = pdu.split_first() else { return Vec::new() };
    let refuse = |code| vec![function | 0x80, code];
    if !UNITS.contains(&unit) {
        return refuse(NO_SUCH_UNIT);
    }
    let result = match function {
        1 | 2 => read_bits(data),
        3 => read_registers(data, |at| holding(plant, at)),
        4 => read_registers(data, |at| input(plant, at)),
        5 => write_coil(data),
        6 => write_register(plant, data),
        15 => write_coils(data),
        16 => write_registers(plant, data),
        23 => read_write(plant, data),
        _ => Err(ILLEGAL_FUNCTION),
    };
    match result {
        Ok(mut reply) => {
            reply.insert(0, function);
            reply
        }
        Err(code) => refuse(code),
    }
}

fn word(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

/// Start and quantity; a quantity outside 1 ..= max, or data that is too short or too long, is an illegal value.
fn span(data: &[u8], max: u16) -> Result<(u16, u16), u8> {
    match (word(data, 0), word(data, 2), data.len()) {
        (Some(start), Some(quantity), 4) if (1..=max).contains(&quantity) => Ok((start, quantity)),
        _ => Err(ILLEGAL_VALUE),
    }
}

/// The rack has no bits: every legal request asks for an address that is not there.
fn read_bits(data: &[u8]) -> Result<Vec<u8>, u8> {
    span(data, 2000).and(Err(ILLEGAL_ADDRESS))
}

fn write_coil(data: &[u8]) -> Result<Vec<u8>, u8> {
    match (data.len(), word(data, 2)) {
        (4, Some(0x0000 | 0xFF00)) => Err(ILLEGAL_ADDRESS),
        _ => Err(ILLEGAL_VALUE),
    }
}

fn write_coils(data: &[u8]) -> Result<Vec<u8>, u8> {
    let (head, tail) = data.split_at_checked(4).ok_or(ILLEGAL_VALUE)?;
    let (_, quantity) = span(head, 1968)?;
    let bytes = usize::from(quantity.div_ceil(8));
    if tail.len() == bytes + 1 && tail.first().map(|n| usize::from(*n)) == Some(bytes) {
        Err(ILLEGAL_ADDRESS)
    } else {
        Err(ILLEGAL_VALUE)
    }
}

fn read_registers(data: &[u8], at: impl Fn(u16) -> Option<u16>) -> Result<Vec<u8>, u8> {
    let (start, quantity) = span(data, 125)?;
    let mut reply = vec![(quantity * 2) as u8]; // at most 250
    for n in 0..quantity {
        let value = start.checked_add(n).and_then(&at).ok_or(ILLEGAL_ADDRESS)?;
        reply.extend_from_slice(&value.to_be_bytes());
    }
    Ok(reply)
}

fn write_register(plant: &SharedPlant, data: &[u8]) -> Result<Vec<u8>, u8> {
    match (word(data, 0), word(data, 2), data.len()) {
        (Some(at), Some(value), 4) => {
            store(plant, at, &[value])?;
            Ok(data.to_vec())
        }
        _ => Err(ILLEGAL_VALUE),
    }
}

/// Quantity, byte count and values of a multiple write.
fn values(data: &[u8], max: u16) -> Result<(u16, Vec<u16>), u8> {
    let (head, tail) = data.split_at_checked(4).ok_or(ILLEGAL_VALUE)?;
    let (start, quantity) = span(head, max)?;
    let (count, bytes) = tail.split_first().ok_or(ILLEGAL_VALUE)?;
    if usize::from(*count) != usize::from(quantity) * 2 || bytes.len() != usize::from(*count) {
        return Err(ILLEGAL_VALUE);
    }
    Ok((start, bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect()))
}

fn write_registers(plant: &SharedPlant, data: &[u8]) -> Result<Vec<u8>, u8> {
    let (start, words) = values(data, 123)?;
    store(plant, start, &words)?;
    Ok(data.get(..4).unwrap_or_default().to_vec())
}

/// Function 23 writes before it reads (V1.1b3, 6.17); all is checked before anything is done.
fn read_write(plant: &SharedPlant, data: &[u8]) -> Result<Vec<u8>, u8> {
    let (read, write) = data.split_at_checked(4).ok_or(ILLEGAL_VALUE)?;
    let (start, quantity) = span(read, 125)?;
    let (at, words) = values(write, 121)?;
    let readable = (0..quantity).all(|n| start.checked_add(n).and_then(|a| holding(plant, a)).is_some());
    if !readable {
        return Err(ILLEGAL_ADDRESS);
    }
    store(plant, at, &words)?;
    read_registers(read, |a| holding(plant, a))
}

/// Holding registers: the command blocks of shuttles and lift, side by side.
fn holding(plant: &SharedPlant, at: u16) -> Option<u16> {
    let (machine, offset) = (usize::from(at) / COMMAND_WORDS, usize::from(at) % COMMAND_WORDS);
    let plant = plant.lock();
    let id = u8::try_from(machine).ok().filter(|m| *m <= plant.layout().tiers())?;
    plant.command_block(MachineId(id))?.get(offset).copied()
}

/// Writes command blocks; all of it is inside, or nothing is written.
fn store(plant: &SharedPlant, at: u16, words: &[u16]) -> Result<(), u8> {
    let mut plant = plant.lock();
    let registers = (usize::from(plant.layout().tiers()) + 1) * COMMAND_WORDS;
    let (start, end) = (usize::from(at), usize::from(at) + words.len());
    if end > registers {
        return Err(ILLEGAL_ADDRESS);
    }
    let mut rest = words;
    let mut register = start;
    while !rest.is_empty() {
        let (machine, offset) = (register / COMMAND_WORDS, register % COMMAND_WORDS);
        let (here, beyond) = rest.split_at(rest.len().min(COMMAND_WORDS - offset));
        plant.write_block(MachineId(machine as u8), offset, here); // at most tiers + 1
        register += here.len();
        rest = beyond;
    }
    Ok(())
}

/// Input registers: status blocks from 0, sensors from 1000.
fn input(plant: &SharedPlant, at: u16) -> Option<u16> {
    let plant = plant.lock();
    let layout = plant.layout();
    if let Some(n) = at.checked_sub(rack_map::position(0)) {
        let pos = PosId(n / 2);
        let load = LoadId::raw((pos.0 < layout.sensed()).then(|| plant.loads().at(pos))?);
        return Some(if n % 2 == 0 { (load / 65_536) as u16 } else { (load % 65_536) as u16 });
    }
    let machine = u8::try_from(usize::from(at) / STATUS_WORDS).ok().filter(|m| *m <= layout.tiers())?;
    plant.status_block(MachineId(machine))?.get(usize::from(at) % STATUS_WORDS).copied()
}
