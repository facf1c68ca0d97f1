//! One record: how a message stands in memory and on disk. All numbers are little-endian.
//!
//! ```text
//!    0  magic  "LR"       2     24  promised at, ms     8     44  topic      topic_len
//!    2  kind              1     32  hole                4         payload    the rest
//!    3  reserved          1     36  values              4
//!    4  length, all of it 4     40  topic_len           2
//!    8  CRC32C of 24..    4     42  reserved            2
//!   12  sequence          8
//!   20  CRC32C of 0..20   4
//! ```
//!
//! The head has a checksum of its own, for two reasons: a flipped bit in the length must not hide the records behind it, and the sequence is
//! given under the spool's lock, where no long payload should be gone through again.
//!
//! The payload is ready to be sent but for its own sequence: `hole` says where that goes.

use std::ops::Range;

/// Bytes before the topic.
pub const HEADER: usize = 44;
/// Bytes of the head, which have a checksum of their own.
pub const HEAD: usize = 24;
/// Of these the checksum is made.
const HEAD_SUMMED: usize = 20;
/// Longest record, bytes: more than any broker takes. A length beyond it is damage.
pub const RECORD_MAX: usize = 32 << 20;
const MAGIC: [u8; 2] = *b"LR";

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON payload.
    Json,
    /// A CBOR payload.
    Cbor,
    /// Readings that a Sparkplug edge node turns into DDATA when it sends them.
    Sparkplug,
    /// A JSON payload that tells of a loss: never lost with what it lies beside.
    Loss,
    /// No message: the sequences from the one in its payload up to and with its own were delivered before they had to be written, thinned
    /// out, or left out by a restart.
    Skip,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Json => 1,
            Kind::Cbor => 2,
            Kind::Sparkplug => 3,
            Kind::Loss => 4,
            Kind::Skip => 16,
        }
    }

    fn of(code: u8) -> Option<Kind> {
        [Kind::Json, Kind::Cbor, Kind::Sparkplug, Kind::Loss, Kind::Skip].into_iter().find(|k| k.code() == code)
    }
}

/// A record, seen in place.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its number in its stream.
    pub sequence: u64,
    /// When it was promised, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Values in it.
    pub values: u32,
    /// Where it goes.
    pub topic: &'a str,
    /// Where in the payload the sequence goes.
    pub hole: usize,
    /// What it says.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Where a [`Kind::Skip`] begins; `None` for one of an earlier version, which did not say.
    pub fn skips_from(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_le_bytes)
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug)]
pub enum Found<'a> {
    /// A whole record, and its length.
    Record(Record<'a>, usize),
    /// The beginning of a record of this length, or of one whose length is not yet there (0).
    Part(usize),
    /// No record.
    Damage,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Writes a record behind `out`; `fill` writes the payload and says where the hole is. The sequence is left open: see [`number`]. Nothing is
/// allocated but what `out` needs to grow.
pub fn push(
    out: &mut Vec<u8>,
    kind: Kind,
    topic: &[&str],
    (at_ms, values): (u64, u32),
    fill: impl FnOnce(&mut Vec<u8>) -> usize,
) {
    let start = out.len();
    let mut head = [0; HEADER]; // length, checksums, sequence and hole come later
    put(&mut head, 0, &[MAGIC[0], MAGIC[1], kind.code(), 0]);
    put(&mut head, 24, &at_ms.to_le_bytes());
    put(&mut head, 36, &values.to_le_bytes());
    out.extend_from_slice(&head);
    topic.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    let topic_len = out.len() - start - HEADER;
    let payload = out.len();
    let hole = fill(out).min(out.len() - payload);
    let length = out.len() - start;
    let Some(record) = out.get_mut(start..) else { return };
    put(record, 4, &(u32::try_from(length).unwrap_or(u32::MAX)).to_le_bytes());
    put(record, 32, &(u32::try_from(hole).unwrap_or(u32::MAX)).to_le_bytes());
    put(record, 40, &(u16::try_from(topic_len).unwrap_or(u16::MAX)).to_le_bytes());
    let body = record.get(HEAD..).map_or(0, crc32c::crc32c);
    put(record, 8, &body.to_le_bytes());
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = record.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The length of the record at the beginning of bytes that this process wrote; 0 at their end.
pub fn length(bytes: &[u8]) -> usize {
    u32_at(bytes, 4) as usize
}

/// The sequence of the record at the beginning of bytes that this process wrote.
pub fn sequence(bytes: &[u8]) -> u64 {
    u64_at(bytes, 12)
}

/// Values in the record at the beginning of bytes that this process wrote.
pub fn values(bytes: &[u8]) -> u32 {
    u32_at(bytes, 36)
}

/// When the record at the beginning of bytes that this process wrote was promised.
pub fn at_ms(bytes: &[u8]) -> u64 {
    u64_at(bytes, 24)
}

/// Gives the record at the beginning of `bytes` its number: now it is whole.
pub fn number(bytes: &mut [u8], sequence: u64) {
    put(bytes, 12, &sequence.to_le_bytes());
    let head = bytes.get(..HEAD_SUMMED).map_or(0, crc32c::crc32c);
    put(bytes, HEAD_SUMMED, &head.to_le_bytes());
}

/// Writes a [`Kind::Skip`]: the sequences between these two, both ends included, are not here, and that is no loss.
pub fn push_skip(out: &mut Vec<u8>, (from, to): (u64, u64)) {
    let start = out.len();
    push(out, Kind::Skip, &[], (0, 0), |out| {
        out.extend_from_slice(&from.to_le_bytes());
        0
    });
    if let Some(record) = out.get_mut(start..) {
        number(record, to);
    }
}

/// Reads a record that this process has made or checked.
pub fn peek(bytes: &[u8]) -> Option<Record<'_>> {
    let bytes = bytes.get(..length(bytes))?;
    let topic_end = HEADER + usize::from(u16_at(bytes, 40));
    let payload = bytes.get(topic_end..)?;
    Some(Record {
        kind: Kind::of(*bytes.get(2)?)?,
        sequence: u64_at(bytes, 12),
        at_ms: u64_at(bytes, 24),
        values: u32_at(bytes, 36),
        topic: std::str::from_utf8(bytes.get(HEADER..topic_end)?).ok()?,
        hole: (u32_at(bytes, 32) as usize).min(payload.len()),
        payload,
    })
}

/// Reads a record that comes from outside: nothing of it is believed before its checksums.
pub fn read(bytes: &[u8]) -> Found<'_> {
    let Some(head) = bytes.get(..HEAD) else {
        let looks_right = MAGIC.iter().zip(bytes).all(|(a, b)| a == b);
        return if looks_right { Found::Part(0) } else { Found::Damage };
    };
    if !is_head(head) {
        return Found::Damage;
    }
    let length = length(bytes);
    if !(HEADER..=RECORD_MAX).contains(&length) {
        return Found::Damage;
    }
    let Some(whole) = bytes.get(..length) else { return Found::Part(length) };
    if whole.get(HEAD..).map(crc32c::crc32c) != Some(u32_at(whole, 8)) {
        return Found::Damage;
    }
    peek(whole).map_or(Found::Damage, |record| Found::Record(record, length))
}

/// Whether a head stands at the beginning of `bytes`, and its checksum is right.
fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
        && bytes.len() >= HEAD
        && bytes.get(..HEAD_SUMMED).map(crc32c::crc32c) == Some(u32_at(bytes, HEAD_SUMMED))
}

/// How far damage reaches from the beginning of `bytes`: to the next place where a record's head stands, or to their end.
pub fn damage(bytes: &[u8]) -> usize {
    let is_head = |at: usize| bytes.get(at..).is_some_and(is_head);
    // A sound head tells where the next record is: whatever its own payload looks like is not taken for one.
    let next = length(bytes);
    if is_head(0) && next >= HEADER && (next == bytes.len() || is_head(next)) {
        return next;
    }
    // The last bytes may be the beginning of one.
    let end = bytes.len().saturating_sub(HEAD - 1).max(1);
    (1..end).find(|at| is_head(*at)).unwrap_or(bytes.len())
}

/// The records of bytes that this process wrote: where each stands.
pub fn walk(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, Record<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let record = peek(bytes.get(at..)?)?;
        let range = at..at + length(bytes.get(at..)?);
        at = range.end;
        Some((range, record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(sequence: u64, topic: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, Kind::Json, &[topic], (77, 3), |out| {
            out.extend_from_slice(payload);
            payload.len() / 2
        });
        number(&mut out, sequence);
        out
    }

    #[test]
    fn a_record_comes_back_as_it_went_in() {
        let bytes = record(9, "a/b", b"{}");
        let Found::Record(r, length) = read(&bytes) else { panic!() };
        assert_eq!((r.sequence, r.at_ms, r.values, r.topic, r.hole, r.payload), (9, 77, 3, "a/b", 1, &b"{}"[..]));
        assert_eq!(length, bytes.len());
    }

    #[test]
    fn checksums_are_crc32c() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283, "RFC 3720, B.4 and the usual check value");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_seen_wherever_it_is(payload: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = record(1, "topic", &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(read(&bytes), Found::Record(..)), "byte {} bit {}", at, bit);
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_damage_ends(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let skipped = damage(&bytes);
            prop_assert!(skipped >= 1 || bytes.is_empty());
            prop_assert!(skipped <= bytes.len());
        }
    }
}
