//! How an answer goes out: as it should, unless a [`Treatment`] asks for another way.
//!
//! ```text
//!   unit, PDU ──bend──> wrong unit, function, length ──close──> length or CRC ──> wrong transaction ──> garbage before, twice
//! ```

use super::Framing;
use super::frame::crc;
use std::time::Duration;

/// What becomes of one request and its answer; the default is honest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Nothing is done and nothing is said.
    pub silent: bool,
    /// From now on nothing is said on this connection, which stays open.
    pub half_open: bool,
    /// The connection ends with a reset.
    pub reset: bool,
    /// The answer waits; others go on.
    pub delay: Option<Duration>,
    /// The answer goes after the next one.
    pub reorder: bool,
    /// The answer goes twice.
    pub duplicate: bool,
    /// The answer goes byte by byte.
    pub trickle: bool,
    /// The transaction id is one too high.
    pub wrong_transaction: bool,
    /// The unit is one too high.
    pub wrong_unit: bool,
    /// The function is one too high.
    pub wrong_function: bool,
    /// The byte count is two too high; an answer without one lacks its last byte.
    pub wrong_length: bool,
    /// These come first.
    pub garbage: Option<[u8; 5]>,
}

/// Begins an answer; returns where in `out`.
pub(super) fn open(framing: Framing, transaction: [u8; 2], unit: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    if framing == Framing::Tcp {
        let [t1, t0] = transaction;
        out.extend_from_slice(&[t1, t0, 0, 0, 0, 0]);
    }
    out.push(unit);
    start
}

/// Ends the answer that began at `start`: fills in its length, or appends its CRC.
pub(super) fn close(framing: Framing, start: usize, out: &mut Vec<u8>) {
    match framing {
        Framing::Tcp => {
            let length = (out.len() - start).saturating_sub(6) as u16; // an answer has 254 bytes at most
            if let Some(field) = out.get_mut(start + 4..start + 6) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
        Framing::Rtu { .. } => {
            let sum = crc(out.get(start..).unwrap_or_default());
            out.extend_from_slice(&sum);
        }
    }
}

/// Falsifies the answer that began at `start` and has not been closed.
pub(super) fn bend(framing: Framing, treatment: &Treatment, start: usize, out: &mut Vec<u8>) {
    let unit = if framing == Framing::Tcp { start + 6 } else { start };
    let add = |out: &mut Vec<u8>, at: usize, n: u8| {
        if let Some(byte) = out.get_mut(at) {
            *byte = byte.wrapping_add(n);
        }
    };
    if treatment.wrong_length {
        if matches!(out.get(unit + 1), Some(1..=4 | 23)) {
            add(out, unit + 2, 2);
        } else {
            out.pop();
        }
    }
    if treatment.wrong_unit {
        add(out, unit, 1);
    }
    if treatment.wrong_function {
        add(out, unit + 1, 1);
    }
    if treatment.wrong_transaction
        && framing == Framing::Tcp
        && let Some(id) = out.get_mut(start..start + 2).and_then(|id| <&mut [u8; 2]>::try_from(id).ok())
    {
        *id = u16::from_be_bytes(*id).wrapping_add(1).to_be_bytes();
    }
}

/// The bytes that go out in place of a closed answer.
pub(super) fn dress(treatment: &Treatment, answer: Vec<u8>) -> Vec<u8> {
    let mut all = treatment.garbage.map(Vec::from).unwrap_or_default();
    all.extend_from_slice(&answer);
    if treatment.duplicate {
        all.extend_from_slice(&answer);
    }
    all
}
