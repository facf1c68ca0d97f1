//! Frames on the wire: MBAP headers over TCP and TLS, address and CRC-16 on a serial line or tunnelled through TCP.
//!
//! ```text
//!   MBAP   [transaction 2][protocol 0 2][length 2][unit 1][PDU <= 253]      Modbus Messaging on TCP/IP V1.0b, 3.1.3
//!   RTU    [unit 1][PDU <= 253][CRC-16 low, high]                           Modbus over Serial Line V1.02, 2.5.1
//! ```
//!
//! tokio-modbus's decoders are private to its client, which believes lengths and is poisoned by one late reply; so the frames are ours.
//! MBAP says itself where a frame ends. RTU does not: a reply is looked for by what was asked, at every offset, and believed
//! if its CRC holds; so garbage in front of it costs nothing but the time it took.

use super::pdu::Expected;
use crate::block::crc16_step;
use std::ops::Range;

/// Bytes kept while an RTU reply is looked for: two of the longest frames.
const RTU_WINDOW: usize = 512;

/// A frame that came with an MBAP header: where its PDU lies in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MbapFrame {
    pub(super) transaction: u16,
    pub(super) unit: u8,
    pub(super) pdu: Range<usize>,
}

/// Bytes that have been received and not been taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// What has not been taken.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Takes so many bytes.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.taken = (self.taken + bytes).min(self.bytes.len());
    }

    /// The next whole MBAP frame. An error means that the stream has lost its frames and cannot be used any more.
    pub(super) fn mbap(&mut self) -> Result<Option<MbapFrame>, String> {
        let Some(&[t1, t0, p1, p0, l1, l0, unit]) = self.bytes.get(self.taken..self.taken + 7) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        if [p1, p0] != [0, 0] {
            return Err(format!("protocol id {}, expected 0", u16::from_be_bytes([p1, p0])));
        }
        if !(2..=254).contains(&length) {
            return Err(format!("a frame of length {length}, expected 2 to 254"));
        }
        let end = self.taken + 6 + length;
        if end > self.bytes.len() {
            return Ok(None);
        }
        let pdu = self.taken + 7..end;
        self.taken = end;
        Ok(Some(MbapFrame { transaction: u16::from_be_bytes([t1, t0]), unit, pdu }))
    }

    /// The reply of `unit` to what was asked, wherever it begins.
    pub(super) fn rtu(&mut self, unit: u8, expected: Expected) -> Option<Range<usize>> {
        let spare = self.bytes.len().saturating_sub(RTU_WINDOW);
        self.taken = self.taken.max(spare);
        let function = expected.function();
        let found = (self.taken..self.bytes.len()).find_map(|at| {
            let head = self.bytes.get(at..at + 2)?;
            let length = match head {
                [u, f] if *u == unit && *f == function => expected.length(),
                [u, f] if *u == unit && *f == function | 0x80 => 2,
                _ => return None,
            };
            let body = self.bytes.get(at..at + 1 + length)?;
            let crc = self.bytes.get(at + 1 + length..at + 3 + length)?;
            (crc == crc16_wire(body)).then(|| at + 1..at + 1 + length)
        })?;
        self.taken = found.end + 2;
        Some(found)
    }
}

/// Puts a request into an MBAP frame.
pub(super) fn put_mbap(transaction: u16, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&transaction.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes()); // a request has 253 bytes at most
    out.push(unit);
    out.extend_from_slice(pdu);
}

/// Puts a request into an RTU frame.
pub(super) fn put_rtu(unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(unit);
    out.extend_from_slice(pdu);
    let crc = crc16_wire(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc);
}

/// CRC-16 as it goes over the wire: low byte first (Modbus over Serial Line V1.02, 6.2.2).
fn crc16_wire(bytes: &[u8]) -> [u8; 2] {
    crc16_bytes(bytes).to_le_bytes()
}

fn crc16_bytes(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| crc16_step(crc, *byte))
}

#[cfg(test)]
mod tests {
    use super::super::address::Table;
    use super::super::pdu::{Answer, Ask};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_serial_line_guide_s_own_example() {
        // Modbus over Serial Line V1.02, 6.2.2: the CRC of 02 07 is 1241, sent as 41 12.
        assert_eq!(crc16_bytes(&[2, 7]), 0x1241);
        assert_eq!(crc16_wire(&[2, 7]), [0x41, 0x12]);
    }

    fn read(count: u16) -> Expected {
        Ask::Read { table: Table::Holding, start: 0, count }.encode(&mut Vec::new())
    }

    fn rtu_reply(unit: u8, words: &[u16]) -> Vec<u8> {
        let mut pdu = vec![3, (words.len() * 2) as u8];
        pdu.extend(words.iter().flat_map(|w| w.to_be_bytes()));
        let mut out = Vec::new();
        put_rtu(unit, &pdu, &mut out);
        out
    }

    #[test]
    fn frames_are_found_in_pieces_and_several_at_once() {
        let mut wire = Vec::new();
        put_mbap(1, 17, &[3, 2, 0, 7], &mut wire);
        put_mbap(2, 18, &[0x83, 2], &mut wire);
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        for byte in &wire {
            inbox.push(&[*byte]);
            while let Some(f) = inbox.mbap().unwrap() {
                got.push((f.transaction, f.unit, inbox.get(f.pdu).to_vec()));
            }
        }
        assert_eq!(got, [(1, 17, vec![3, 2, 0, 7]), (2, 18, vec![0x83, 2])]);
    }

    #[test]
    fn a_stream_that_has_lost_its_frames_says_so() {
        for bad in [[0, 1, 0, 9, 0, 3, 1], [0, 1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 255, 1], [0, 1, 0, 0, 0xFF, 0xFF, 1]]
        {
            let mut inbox = Inbox::default();
            inbox.push(&bad);
            assert!(inbox.mbap().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_serial_reply_is_found_behind_garbage_and_a_late_reply_of_another_is_not_taken() {
        let mut inbox = Inbox::default();
        inbox.push(&[17, 3, 0, 0xFF, 17]);
        inbox.push(&rtu_reply(18, &[9]));
        inbox.push(&rtu_reply(17, &[9, 9]));
        assert_eq!(inbox.rtu(17, read(1)), None);
        inbox.push(&rtu_reply(17, &[7]));
        let found = inbox.rtu(17, read(1)).unwrap();
        assert_eq!(read(1).check(inbox.get(found)), Ok(Answer::Data(&[0, 7])));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let (mut tcp, mut serial) = (Inbox::default(), Inbox::default());
            let mut broken = false;
            for chunk in chunks {
                serial.push(&chunk);
                let _ = serial.rtu(1, read(4));
                prop_assert!(serial.bytes.len() - serial.taken <= RTU_WINDOW);
                if broken {
                    continue;
                }
                tcp.push(&chunk);
                loop {
                    match tcp.mbap() {
                        Ok(Some(f)) => prop_assert!((1..=253).contains(&tcp.get(f.pdu).len())),
                        Ok(None) => break,
                        Err(_) => { broken = true; break }
                    }
                }
                prop_assert!(broken || tcp.bytes.len() - tcp.taken < 260);
            }
        }

        #[test]
        fn a_good_reply_is_found_behind_any_garbage(garbage in proptest::collection::vec(any::<u8>(), 0..100), word in any::<u16>()) {
            let mut inbox = Inbox::default();
            inbox.push(&garbage);
            inbox.push(&rtu_reply(5, &[word, !word]));
            let found = inbox.rtu(5, read(2)).expect("it is there");
            let mut want = word.to_be_bytes().to_vec();
            want.extend((!word).to_be_bytes());
            // Garbage of the right shape with a right CRC is one in 65,536 at each place; then another is found first.
            if inbox.get(found.clone()).len() == 6 {
                prop_assert_eq!(inbox.get(found)[2..].to_vec(), want);
            }
        }
    }
}
