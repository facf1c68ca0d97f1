//! One event: what it says, and its link in the chain.
//!
//! ```text
//!   record of the spool's format:   sequence = number    at = time    topic = kind    payload = hash, 32 bytes, then the body (JSON)
//!   hash = SHA-256( hash of the one before | number | time | length of kind | kind | body )
//! ```
//!
//! Who changes, inserts or leaves out an event changes every hash behind it (FIPS 180-4). Without a key that proves nothing against somebody
//! who writes the whole file anew: for that the last hash has to be kept elsewhere, which is why it is told.

use crate::telemetry::spool::record::{self, Kind, Record};
use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];
/// Of the first event there is none before it.
pub(super) const NONE: Hash = [0; 32];

/// An event, seen in place.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its number: the first is 1, and none is given twice.
    pub number: u64,
    /// When it was written, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What kind of event it is, as `order.taken`.
    pub kind: &'a str,
    /// What it says, JSON.
    pub body: &'a [u8],
    /// Its link in the chain.
    pub hash: Hash,
    /// The whole of it as it stands on the disk.
    pub(super) bytes: &'a [u8],
}

impl<'a> Event<'a> {
    /// The event in a record; `None` for one that is none.
    pub(super) fn of(record: &Record<'a>, bytes: &'a [u8]) -> Option<Event<'a>> {
        let (hash, body) = record.payload.split_first_chunk::<32>().filter(|_| record.kind == Kind::Json)?;
        let Record { sequence: number, at_ms, topic: kind, .. } = *record;
        Some(Event { number, at_ms, kind, body, hash: *hash, bytes })
    }

    /// Whether it is the one that follows the one with this hash, unchanged.
    pub(super) fn follows(&self, before: &Hash) -> bool {
        self.hash == chain(before, (self.number, self.at_ms), self.kind, self.body)
    }
}

/// The hash of an event that follows the one with the hash `before`.
fn chain(before: &Hash, (number, at_ms): (u64, u64), kind: &str, body: &[u8]) -> Hash {
    let mut sum = Sha256::new();
    sum.update(before);
    sum.update(number.to_le_bytes());
    sum.update(at_ms.to_le_bytes());
    sum.update((kind.len() as u64).to_le_bytes());
    sum.update(kind);
    sum.update(body);
    sum.finalize().into()
}

/// Appends an event; the answer is its hash.
pub(super) fn push(out: &mut Vec<u8>, before: &Hash, (number, at_ms): (u64, u64), kind: &str, body: &[u8]) -> Hash {
    let (start, hash) = (out.len(), chain(before, (number, at_ms), kind, body));
    record::push(out, Kind::Json, &[kind], (at_ms, 0), |out| {
        out.extend_from_slice(&hash);
        out.extend_from_slice(body);
        0
    });
    out.get_mut(start..).into_iter().for_each(|record| record::number(record, number));
    hash
}

/// A hash as people write it.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash as [`hex`] has written it.
pub(super) fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = NONE;
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * hash.len())?;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sha_256_over_the_one_before_and_all_that_the_event_says() {
        let mut bytes = Vec::new();
        let hash = push(&mut bytes, &NONE, (1, 2), "k", b"{}");
        let said = [&NONE[..], &1u64.to_le_bytes(), &2u64.to_le_bytes(), &1u64.to_le_bytes(), b"k{}"].concat();
        assert_eq!(hash, <Hash>::from(Sha256::digest(said)));
        assert_eq!(
            hex(&Sha256::digest(b"abc").into()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!((from_hex(&hex(&hash)), from_hex("00"), from_hex(&"g".repeat(64))), (Some(hash), None, None));
        let record::Found::Record(record, _) = record::read(&bytes) else { panic!() };
        let event = Event::of(&record, &bytes).unwrap();
        assert_eq!((event.number, event.at_ms, event.kind, event.body), (1, 2, "k", &b"{}"[..]));
        assert!(event.follows(&NONE) && !event.follows(&hash));
    }
}
