//! Serial units at the end of a pseudo-terminal: a serial line's rules, written a second time.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use device_drivers::modbus::Serial;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// CRC-16 by the shift register of Modbus over Serial Line V1.02, 6.2.2, low byte first.
pub fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut register = 0xFFFFu16;
    for byte in bytes {
        register ^= u16::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register >>= 1;
            if carry == 1 {
                register ^= 0xA001;
            }
        }
    }
    register.to_le_bytes()
}

pub fn rtu(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut out = vec![unit];
    out.extend(pdu);
    out.extend(crc(&out));
    out
}

/// What was asked on the serial line, and when.
pub type Log = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// Serial units at the end of a pseudo-terminal. `answer` gets unit and PDU and returns what is put on the line, byte for byte.
pub fn serial_units(answer: impl Fn(usize, u8, &[u8]) -> Vec<u8> + Send + 'static) -> (Serial, Log) {
    let (serial, log, _) = serial_line(answer);
    (serial, log)
}

/// The same, and the far end of the wires for whoever else wants to say something.
pub fn serial_line(answer: impl Fn(usize, u8, &[u8]) -> Vec<u8> + Send + 'static) -> (Serial, Log, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let log = Log::default();
    let asked = log.clone();
    // Somebody has to hold the other end open, or the master reads errors until the driver comes.
    let held = File::options().read(true).write(true).open(&path).unwrap();
    // And it must not give back what comes before the driver has made it a plain line.
    let mut plain = tcgetattr(&held).unwrap();
    plain.make_raw();
    tcsetattr(&held, OptionalActions::Now, &plain).unwrap();
    let mut port = File::from(master);
    let wires = port.try_clone().unwrap();
    std::thread::spawn(move || {
        let _held = held;
        let mut bytes = Vec::new();
        let mut chunk = [0u8; 256];
        for n in 0.. {
            let length = loop {
                let length = length(&bytes);
                if length <= bytes.len() {
                    break length;
                }
                match port.read(&mut chunk) {
                    Ok(got) if got > 0 => bytes.extend_from_slice(&chunk[..got]),
                    _ => return,
                }
            };
            let request: Vec<u8> = bytes.drain(..length).collect();
            let (body, check) = request.split_at(length - 2);
            assert_eq!(check, crc(body), "the CRC of a request");
            asked.lock().unwrap().push((Instant::now(), request.clone()));
            let _ = port.write_all(&answer(n, body[0], &body[1..]));
        }
    });
    (Serial { path, baud: 19_200, parity: 'E', stop_bits: 1 }, log, wires)
}

/// How long a request is, as far as it can be told.
fn length(bytes: &[u8]) -> usize {
    match bytes {
        [_, 15 | 16, _, _, _, _, data, ..] => 9 + usize::from(*data),
        [_, 15 | 16, ..] => 9,
        [_, 22, ..] => 10,
        _ => 8,
    }
}
