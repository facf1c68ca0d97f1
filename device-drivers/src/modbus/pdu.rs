//! Requests to bytes, and replies that are believed only after their function, length and echo have been checked.
//! Shapes are those of the Modbus Application Protocol V1.1b3, section 6.

use super::address::{Table, span_text};
use std::fmt;

/// Registers one write request may carry (V1.1b3, 6.12).
pub const WRITE_REGISTERS_MAX: usize = 123;
/// Coils one write request may carry (V1.1b3, 6.11).
pub const WRITE_COILS_MAX: usize = 1968;

/// Mask write register (V1.1b3, 6.16).
const MASK_WRITE: u8 = 22;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Functions 1 to 4.
    Read { table: Table, start: u16, count: u16 },
    /// Function 6 for one register where the device takes it, else 16.
    WriteRegisters { start: u16, words: Vec<u16>, single: bool },
    /// Function 5 for one coil where the device takes it, else 15.
    WriteCoils { start: u16, bits: Vec<bool>, single: bool },
    /// Function 22: these bits of a register are set to those, all others stay.
    MaskWrite { number: u16, mask: u16, bits: u16 },
}

/// What its reply has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// So many registers or bits.
    Data { function: u8, bytes: u8 },
    /// These two words.
    Echo { function: u8, echo: [u8; 4] },
    /// These three: number, AND mask, OR mask (V1.1b3, 6.16).
    MaskEcho { echo: [u8; 6] },
}

/// A reply that has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// Registers, high byte first, or bits, lowest first.
    Data(&'a [u8]),
    /// The write was done.
    Done,
    /// The device refused, with this code.
    Exception(u8),
}

impl Ask {
    /// Appends the PDU.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Expected {
        let mut head = |function: u8, a: u16, b: u16| {
            let ([a1, a0], [b1, b0]) = (a.to_be_bytes(), b.to_be_bytes());
            out.extend_from_slice(&[function, a1, a0, b1, b0]);
            [a1, a0, b1, b0]
        };
        match self {
            Ask::Read { table, start, count } => {
                let function = table.read_function();
                head(function, *start, *count);
                let bytes = if table.is_bits() { count.div_ceil(8) } else { count * 2 };
                Expected::Data { function, bytes: bytes.min(255) as u8 } // planned: at most 125 registers or 2000 bits
            }
            Ask::WriteRegisters { start, words, single: true } if words.len() == 1 => {
                let echo = head(6, *start, words.first().copied().unwrap_or(0));
                Expected::Echo { function: 6, echo }
            }
            Ask::WriteRegisters { start, words, .. } => {
                let echo = head(16, *start, words.len() as u16); // at most WRITE_REGISTERS_MAX
                out.push((words.len() * 2) as u8);
                out.extend(words.iter().flat_map(|w| w.to_be_bytes()));
                Expected::Echo { function: 16, echo }
            }
            Ask::WriteCoils { start, bits, single: true } if bits.len() == 1 => {
                let echo = head(5, *start, if bits.first() == Some(&true) { 0xFF00 } else { 0 });
                Expected::Echo { function: 5, echo }
            }
            Ask::WriteCoils { start, bits, .. } => {
                let echo = head(15, *start, bits.len() as u16); // at most WRITE_COILS_MAX
                out.push(bits.len().div_ceil(8) as u8);
                let byte = |eight: &[bool]| eight.iter().rev().fold(0u8, |acc, b| acc << 1 | u8::from(*b));
                out.extend(bits.chunks(8).map(byte));
                Expected::Echo { function: 15, echo }
            }
            Ask::MaskWrite { number, mask, bits } => {
                let [n1, n0, a1, a0] = head(MASK_WRITE, *number, !mask);
                let [o1, o0] = (bits & mask).to_be_bytes();
                out.extend_from_slice(&[o1, o0]);
                Expected::MaskEcho { echo: [n1, n0, a1, a0, o1, o0] }
            }
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Read { table, start, count } => write!(f, "read of {}", span_text(*table, *start, *count)),
            Ask::WriteRegisters { start, words, .. } => {
                write!(f, "write of {}", span_text(Table::Holding, *start, words.len() as u16))
            }
            Ask::WriteCoils { start, bits, .. } => {
                write!(f, "write of {}", span_text(Table::Coil, *start, bits.len() as u16))
            }
            Ask::MaskWrite { number, mask, .. } => write!(f, "mask write of holding:{number}, bits {mask:#06x}"),
        }
    }
}

impl Expected {
    pub(super) const fn function(self) -> u8 {
        match self {
            Expected::Data { function, .. } | Expected::Echo { function, .. } => function,
            Expected::MaskEcho { .. } => MASK_WRITE,
        }
    }

    /// Whether a good reply may look like the request itself, CRC and all: functions 5, 6 and 22 are answered so, and three
    /// bytes of bits are as long as the request for them.
    pub(super) const fn may_be_the_request(self) -> bool {
        match self {
            Expected::Data { bytes, .. } => bytes == 3,
            Expected::Echo { function, .. } => matches!(function, 5 | 6),
            Expected::MaskEcho { .. } => true,
        }
    }

    /// Length of a good reply's PDU.
    pub(super) const fn length(self) -> usize {
        match self {
            Expected::Data { bytes, .. } => 2 + bytes as usize,
            Expected::Echo { .. } => 5,
            Expected::MaskEcho { .. } => 7,
        }
    }

    /// Believes a reply only if it is of the right kind, exactly as long as was asked for, and echoes what was written.
    pub(super) fn check(self, pdu: &[u8]) -> Result<Answer<'_>, String> {
        let (&function, rest) = pdu.split_first().ok_or("an empty reply")?;
        if function == self.function() | 0x80 {
            return match rest {
                [code] => Ok(Answer::Exception(*code)),
                _ => Err(format!("an exception of {} bytes", pdu.len())),
            };
        }
        if function != self.function() {
            return Err(format!("function {function}, expected {}", self.function()));
        }
        match (self, rest) {
            (Expected::Data { bytes, .. }, [claimed, data @ ..]) => {
                if *claimed == bytes && data.len() == usize::from(bytes) {
                    Ok(Answer::Data(data))
                } else {
                    Err(format!("{} data bytes, a byte count of {claimed}, expected {bytes}", data.len()))
                }
            }
            (Expected::Echo { echo, .. }, rest) if rest == echo => Ok(Answer::Done),
            (Expected::MaskEcho { echo }, rest) if rest == echo => Ok(Answer::Done),
            (Expected::Echo { echo, .. }, rest) => Err(format!("the echo {rest:02x?}, expected {echo:02x?}")),
            (Expected::MaskEcho { echo }, rest) => Err(format!("the echo {rest:02x?}, expected {echo:02x?}")),
            (Expected::Data { .. }, []) => Err("no byte count".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_those_of_the_specification() {
        let read = |table, start, count| Ask::Read { table, start, count };
        let rows: [(Ask, &[u8]); 10] = [
            (read(Table::Coil, 19, 19), &[1, 0, 0x13, 0, 0x13]),
            (read(Table::Discrete, 196, 22), &[2, 0, 0xC4, 0, 0x16]),
            (read(Table::Holding, 107, 3), &[3, 0, 0x6B, 0, 3]),
            (read(Table::Input, 8, 1), &[4, 0, 8, 0, 1]),
            (Ask::WriteCoils { start: 172, bits: vec![true], single: true }, &[5, 0, 0xAC, 0xFF, 0]),
            (Ask::WriteRegisters { start: 1, words: vec![3], single: true }, &[6, 0, 1, 0, 3]),
            (Ask::WriteRegisters { start: 1, words: vec![3], single: false }, &[16, 0, 1, 0, 1, 2, 0, 3]),
            (Ask::WriteRegisters { start: 1, words: vec![10, 0x102], single: true }, &[16, 0, 1, 0, 2, 4, 0, 10, 1, 2]),
            (
                Ask::WriteCoils {
                    start: 19,
                    bits: [1, 0, 1, 1, 0, 0, 1, 1, 1, 0].map(|b| b == 1).to_vec(),
                    single: true,
                },
                &[15, 0, 0x13, 0, 10, 2, 0xCD, 1],
            ),
            // The specification's own: AND 00F2, OR 0025; what lies under the AND mask's ones stays whatever OR says.
            (Ask::MaskWrite { number: 4, mask: !0x00F2, bits: 0x0025 }, &[22, 0, 4, 0, 0xF2, 0, 5]),
        ];
        for (ask, want) in rows {
            let mut pdu = Vec::new();
            ask.encode(&mut pdu);
            assert_eq!(pdu, want, "{ask}");
        }
    }

    proptest! {
        #[test]
        fn only_what_was_asked_for_is_believed(
            pdu in proptest::collection::vec(any::<u8>(), 0..20), count in 1u16..5, plain in any::<bool>()
        ) {
            let mut bytes = Vec::new();
            let expected = Ask::Read { table: Table::Holding, start: 0, count }.encode(&mut bytes);
            let mut pdu = pdu;
            if plain && !pdu.is_empty() {
                pdu[0] = 3;
            }
            match expected.check(&pdu) {
                Ok(Answer::Data(data)) => {
                    prop_assert_eq!(pdu[0], 3);
                    prop_assert_eq!(data.len(), usize::from(count) * 2);
                }
                Ok(Answer::Exception(code)) => prop_assert_eq!(&pdu[..], &[0x83, code]),
                Ok(Answer::Done) => prop_assert!(false, "a read is not a write"),
                Err(_) => {}
            }
        }
    }
}
