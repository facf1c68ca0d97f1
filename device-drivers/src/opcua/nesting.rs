//! How deep diagnostics may be nested: looked at before the library decodes them.
//!
//! ```text
//!   DiagnosticInfo  [mask][fields the mask names][mask][fields][mask] ..
//!                      └── 0x40: another one inside ──┘
//! ```
//!
//! async-opcua counts how deep variants and structures are nested, but a DiagnosticInfo calls itself for the one inside, and that for the
//! next, as often as the bytes say so. A byte is enough for each, so one reply of 60 kB ends the stack, and with it the process: in the very
//! first reply, before anyone has been asked for a certificate.
//!
//! Where in a message diagnostics stand only a decoder knows. So each byte is taken for the first of a DiagnosticInfo, and the longest
//! chain is the most that any decoder can meet: no message can hide one. Values may look like a chain: a text `AAAA..` does, each five
//! letters a level. [`DEPTH_MAX`] is therefore what the stack holds, and not what a server ever means (which is two or three).

use std::collections::BTreeMap;

/// The deepest nesting that is let in. The threads of a runtime have 2 MiB of stack; a level takes less than 420 bytes of it in a release
/// build and less than 2,200 in a debug build. The longest array of bytes or of 16 bits that can be a tag has 2,048 bytes, and is let in where
/// it counts.
pub(super) const DEPTH_MAX: u32 = if cfg!(debug_assertions) { 700 } else { 3000 };

/// Messages that may be under way at once, each in chunks that end in the middle of a chain.
const OPEN_MAX: usize = 64;

/// The longest text inside a DiagnosticInfo that the library takes; it gives up a longer one, and the chain with it.
const TEXT_MAX: usize = 65_535;

/// Bits of the mask: four fields of four bytes, a text, a status, and another DiagnosticInfo inside.
const NUMBERS: u8 = 0x0F;
const TEXT: u8 = 0x10;
const STATUS: u8 = 0x20;
const INNER: u8 = 0x40;

/// Watches the chunks of one connection.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// How deep a chain is that ends beyond the chunks so far, by request.
    open: BTreeMap<u32, u32>,
    /// How deep a chain is that has come to each byte of a chunk.
    depths: Vec<u32>,
}

impl Nesting {
    /// Looks at a decrypted chunk from its sequence number on; `kind` is the letter that says whether it is the last of its message.
    /// Work is in proportion to its length, and no memory is taken beyond that of the longest chunk.
    pub(super) fn check(&mut self, kind: u8, chunk: &[u8]) -> Result<(), String> {
        let Some((&[_, _, _, _, request @ ..], body)) = chunk.split_first_chunk::<8>() else { return Ok(()) };
        let request = u32::from_le_bytes(request);
        let before = self.open.remove(&request).unwrap_or(0);
        let (deepest, beyond) = self.chains(body, before);
        if deepest > DEPTH_MAX {
            return Err(format!("diagnostics nested more than {DEPTH_MAX} deep"));
        }
        if kind == b'C' && beyond > 0 {
            if self.open.len() >= OPEN_MAX {
                return Err(format!("more than {OPEN_MAX} messages in pieces at once"));
            }
            self.open.insert(request, beyond);
        }
        Ok(())
    }

    /// The longest chain, and the longest that goes on in the next chunk. One that came from the chunk before may begin anywhere.
    fn chains(&mut self, body: &[u8], before: u32) -> (u32, u32) {
        self.depths.clear();
        self.depths.resize(body.len(), before);
        let (mut deepest, mut beyond) = (before, before);
        for (at, mask) in body.iter().enumerate().filter(|(_, mask)| *mask & INNER != 0) {
            let depth = self.depths.get(at).copied().unwrap_or(before).saturating_add(1);
            deepest = deepest.max(depth);
            match next(body, at, *mask) {
                Next::At(inner) => match self.depths.get_mut(inner) {
                    Some(known) => *known = depth.max(*known),
                    None => beyond = beyond.max(depth),
                },
                Next::Nowhere => {}
            }
        }
        (deepest, beyond)
    }
}

/// Where the one inside begins.
enum Next {
    At(usize),
    /// It cannot be decoded that far.
    Nowhere,
}

fn next(body: &[u8], at: usize, mask: u8) -> Next {
    let mut end = at + 1 + 4 * (mask & NUMBERS).count_ones() as usize;
    if mask & TEXT != 0 {
        let length = body.get(end..).and_then(<[u8]>::first_chunk::<4>);
        end += 4;
        match length.map(|length| usize::try_from(i32::from_le_bytes(*length)).unwrap_or(0)) {
            Some(length) if length > TEXT_MAX => return Next::Nowhere,
            Some(length) => end += length,
            None => {} // its length is in the next chunk, and so is the one inside
        }
    }
    Next::At(if mask & STATUS != 0 { end + 4 } else { end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opcua::types::{BinaryDecodable, BinaryEncodable, ContextOwned, DiagnosticInfo, StatusCode, UAString};

    const REQUEST: [u8; 8] = [1, 0, 0, 0, 7, 0, 0, 0];

    fn check(nesting: &mut Nesting, kind: u8, body: &[u8]) -> Result<(), String> {
        nesting.check(kind, &[&REQUEST, body].concat())
    }

    /// Encoding goes as deep as decoding, and a thread of a test has little room.
    fn with_room(test: impl FnOnce() + Send + 'static) {
        std::thread::Builder::new().stack_size(256 << 20).spawn(test).unwrap().join().unwrap();
    }

    /// So many inside each other, each with some of the fields.
    fn nested(depth: u32, fields: impl Fn(u32, &mut DiagnosticInfo)) -> Vec<u8> {
        let mut info = DiagnosticInfo::null();
        for n in 0..depth {
            info = DiagnosticInfo { inner_diagnostic_info: Some(Box::new(info)), ..DiagnosticInfo::null() };
            fields(n, &mut info);
        }
        let context = ContextOwned::default();
        let mut bytes = Vec::new();
        info.encode(&mut bytes, &context.context()).unwrap();
        bytes
    }

    fn of_all_kinds(n: u32, info: &mut DiagnosticInfo) {
        let has = |bit: u32| n >> bit & 1 == 1;
        info.symbolic_id = has(0).then_some(1);
        info.namespace_uri = has(1).then_some(2);
        info.locale = has(2).then_some(3);
        info.localized_text = has(3).then_some(4);
        info.additional_info = has(4).then(|| UAString::from("behind"));
        info.inner_status_code = has(5).then_some(StatusCode::Good);
    }

    #[test]
    fn a_chain_is_as_deep_as_the_decoder_would_go_whatever_fields_it_has_and_wherever_it_begins() {
        for depth in [1u32, 63, 64, 200] {
            let mut bytes = nested(depth, of_all_kinds);
            for front in 0..9 {
                assert_eq!(Nesting::default().chains(&bytes, 0).0, depth, "{depth} deep behind {front} bytes");
                bytes.insert(0, 0);
            }
        }
    }

    #[test]
    fn the_deepest_that_is_let_in_is_decoded_and_dropped_on_three_quarters_of_a_stack() {
        let decode = || {
            let bytes = vec![INNER; DEPTH_MAX as usize];
            assert_eq!(check(&mut Nesting::default(), b'F', &bytes), Ok(()));
            let bytes = [bytes, vec![0]].concat();
            let context = ContextOwned::default();
            DiagnosticInfo::decode(&mut &bytes[..], &context.context()).unwrap();
        };
        std::thread::Builder::new().stack_size(1536 << 10).spawn(decode).unwrap().join().unwrap();
    }

    #[test]
    fn a_chain_that_is_deeper_is_refused_in_one_chunk_or_in_many() {
        with_room(refused_in_one_chunk_or_in_many);
    }

    fn refused_in_one_chunk_or_in_many() {
        let deep = nested(DEPTH_MAX + 1, of_all_kinds);
        assert!(check(&mut Nesting::default(), b'F', &deep).is_err());
        for size in [1, 100, 1000, 4096] {
            let mut nesting = Nesting::default();
            let refused = deep.chunks(size).any(|piece| check(&mut nesting, b'C', piece).is_err());
            assert!(refused, "in pieces of {size}");
        }
        let fine = nested(DEPTH_MAX / 8, of_all_kinds);
        let mut nesting = Nesting::default();
        assert!(fine.chunks(4096).all(|piece| check(&mut nesting, b'C', piece).is_ok()));
        assert_eq!(check(&mut nesting, b'F', &[]), Ok(()));
        assert!(nesting.open.is_empty(), "a message that has ended leaves nothing behind");
    }

    #[test]
    fn messages_that_never_end_take_no_memory_for_ever() {
        let mut nesting = Nesting::default();
        let piece = |n: u32| [&[0; 4][..], &n.to_le_bytes(), &[INNER]].concat();
        let refused = (0..1000).find(|n| nesting.check(b'C', &piece(*n)).is_err());
        assert_eq!(refused, Some(OPEN_MAX as u32));
    }

    #[test]
    fn values_as_machines_have_them_are_let_in() {
        let rows: [Vec<u8>; 4] = [
            vec![INNER; if cfg!(debug_assertions) { 512 } else { 2048 }], // as many numbers 64, or half as many 16448
            b"SGVsbG8sIGhlcmUgaXMgYW4gaW1hZ2U".repeat(2000),
            "Achse steht, Schutz offen; ".repeat(2000).into_bytes(),
            (0..60_000u32).flat_map(|n| f64::from(n).to_le_bytes()).collect(),
        ];
        for (n, row) in rows.into_iter().enumerate() {
            let mut nesting = Nesting::default();
            let fine = row.chunks(60_000).all(|piece| check(&mut nesting, b'C', piece).is_ok());
            assert!(fine, "row {n}: {:?}", nesting.chains(&row, 0));
        }
    }
}
