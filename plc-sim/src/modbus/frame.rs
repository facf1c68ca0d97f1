//! Where a request begins and ends.
//!
//! ```text
//!   TCP   | transaction | protocol = 0 | length | unit | PDU |      the length says
//!   RTU                                         | unit | PDU | CRC |    the function says, and a silence
//! ```

/// An ADU of Modbus TCP has a PDU of 1 to 253 bytes, after a unit (Modbus TCP V1.0b, 4.2).
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=254;
/// The MBAP header up to its length.
const MBAP: usize = 6;

/// What stands at the beginning of the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A request, and how many bytes it takes.
    Request { transaction: [u8; 2], unit: u8, pdu: &'a [u8], taken: usize },
    /// So many bytes, perhaps more than there are yet, that are no request and are passed over.
    Nothing(usize),
    /// The beginning of something.
    More,
}

/// Looks for a request of Modbus TCP.
pub(crate) fn find_tcp(bytes: &[u8]) -> Found<'_> {
    let Some((&[t1, t0, p1, p0, l1, l0], rest)) = bytes.split_first_chunk() else { return Found::More };
    let length = usize::from(u16::from_be_bytes([l1, l0]));
    if [p1, p0] != [0, 0] || !LENGTHS.contains(&length) {
        return Found::Nothing(MBAP + length);
    }
    match rest.get(..length) {
        Some([unit, pdu @ ..]) => Found::Request { transaction: [t1, t0], unit: *unit, pdu, taken: MBAP + length },
        _ => Found::More,
    }
}

/// Looks for a request of Modbus RTU. `ended` says that the line has been silent since: then all the bytes are one frame or none.
pub(crate) fn find_rtu(bytes: &[u8], ended: bool) -> Found<'_> {
    let length = match rtu_length(bytes) {
        _ if ended => bytes.len(),
        Some(length) if length <= bytes.len() => length,
        Some(_) | None => return Found::More,
    };
    match bytes.get(..length).and_then(|frame| frame.split_last_chunk()) {
        Some(([unit, pdu @ ..], sum))
            if !pdu.is_empty() && crc(bytes.get(..length - 2).unwrap_or_default()) == *sum =>
        {
            Found::Request { transaction: [0, 0], unit: *unit, pdu, taken: length }
        }
        // After a frame that is none only silence tells where the next begins.
        _ => Found::Nothing(bytes.len()),
    }
}

/// The length of a request by its function; `None` if it cannot be told (yet).
fn rtu_length(bytes: &[u8]) -> Option<usize> {
    let counted = |at: usize| bytes.get(at).map(|count| at + 1 + usize::from(*count) + 2);
    match bytes.get(1)? {
        1..=6 => Some(8),
        15 | 16 => counted(6),
        22 => Some(10),
        23 => counted(10),
        _ => None,
    }
}

const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut sum, mut bit) = (n as u16, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xA001 } else { sum >> 1 };
            bit += 1;
        }
        table[n] = sum;
        n += 1;
    }
    table
};

/// The CRC-16 of Modbus, as it is sent: the low byte first (Serial Line V1.02, 6.2.2).
pub fn crc(bytes: &[u8]) -> [u8; 2] {
    let fold = |sum: u16, byte: &u8| {
        let index = usize::from((sum as u8) ^ byte);
        sum >> 8 ^ CRC_TABLE.get(index).copied().unwrap_or_default() // the table has all 256
    };
    bytes.iter().fold(0xFFFF, fold).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_one_of_the_specification() {
        // Serial Line V1.02, 6.2.2: the frame 02 07 has the CRC 41 12. The second is the check value of CRC-16/MODBUS.
        assert_eq!(crc(&[0x02, 0x07]), [0x41, 0x12]);
        assert_eq!(crc(b"123456789"), 0x4B37u16.to_le_bytes());
    }

    #[test]
    fn an_rtu_request_ends_where_its_function_says_or_where_silence_begins() {
        let frame = |bytes: &[u8]| [bytes, &crc(bytes)].concat();
        let read = frame(&[1, 3, 0, 0, 0, 2]);
        let two = [read.clone(), read.clone()].concat();
        assert_eq!(find_rtu(&two, false), Found::Request { transaction: [0, 0], unit: 1, pdu: &read[1..6], taken: 8 });
        assert_eq!(find_rtu(&read[..7], false), Found::More);
        assert_eq!(find_rtu(&read[..7], true), Found::Nothing(7));
        let strange = frame(&[1, 0x2B, 0x0E, 1, 0]);
        assert_eq!(find_rtu(&strange, false), Found::More);
        assert!(matches!(find_rtu(&strange, true), Found::Request { unit: 1, taken: 7, .. }));
        assert_eq!(find_rtu(&[1, 3, 0, 0, 0, 2, 0, 0, 9], false), Found::Nothing(9));
    }
}
