//! Packets that are read here, byte by byte: CONNACK, PUBACK and DISCONNECT. rumqttc reads them as the standard's examples have them, not as
//! it allows them: a DISCONNECT with a reason and no properties (MQTT 5, 3.14.2.2.1: "If the Remaining Length is less than 2, a value of 0
//! is used"), as mosquitto sends it, is an error to it, and so is a reason that it does not know.

use super::reason::Code;

/// Kinds of packets (MQTT 5, 2.1.2).
const CONNACK: u8 = 2;
const PUBACK: u8 = 4;
const DISCONNECT: u8 = 14;

/// A packet that is read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    ConnAck(Code, Terms),
    PubAck(u16, Code),
    Disconnect(Code, Option<String>),
}

/// What a broker says of itself in CONNACK (MQTT 5, 3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) packet_max: Option<u32>,
    pub(super) receive_max: Option<u16>,
    pub(super) aliases_max: Option<u16>,
    pub(super) keep_alive_s: Option<u16>,
    pub(super) qos_max: Option<u8>,
    pub(super) keeps: Option<bool>,
    /// Its words for a person.
    pub(super) said: Option<String>,
}

/// The packet at the beginning of `bytes`, if it is one of those, and its length; `None`: it is none of them, or not there whole.
pub(super) fn own(bytes: &[u8], is_v5: bool, most: usize) -> Result<Option<(Own, usize)>, String> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let kind = first >> 4;
    if !is_own(kind, is_v5) {
        return Ok(None);
    }
    let Some((start, length)) = remaining(bytes)? else { return Ok(None) };
    if length > most {
        return Err(format!("a packet of {length} bytes, {most} at most were agreed"));
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let packet = match kind {
        CONNACK => conn_ack(body, is_v5),
        PUBACK => pub_ack(body),
        _ => disconnect(body),
    };
    let name = match kind {
        CONNACK => "CONNACK",
        PUBACK => "PUBACK",
        _ => "DISCONNECT",
    };
    let packet = packet.ok_or_else(|| format!("a {name} that ends in the middle"))?;
    Ok(Some((packet, start + length)))
}

/// Whether what stands at the beginning of `bytes` is read here, as soon as it is there.
pub(super) fn begins_own(bytes: &[u8], is_v5: bool) -> bool {
    bytes.first().is_some_and(|first| is_own(first >> 4, is_v5))
}

fn is_own(kind: u8, is_v5: bool) -> bool {
    // A server that says DISCONNECT in 3.1.1 does so against the standard; what it means is plain.
    kind == CONNACK || kind == DISCONNECT || is_v5 && kind == PUBACK
}

/// Where the body begins, and its length (2.1.4); `None`: more bytes are wanted.
fn remaining(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0usize;
    for n in 0..4 {
        let Some(byte) = bytes.get(1 + n) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + n, length)));
        }
    }
    Err("a length of more than four bytes".into())
}

fn conn_ack(body: &[u8], is_v5: bool) -> Option<Own> {
    let [_flags, code, rest @ ..] = body else { return None };
    // A broker of 3.1.1 answers so whatever it was asked, and has no properties.
    if !is_v5 || rest.is_empty() {
        let code = if *code < 0x80 { Code::of_v311(*code) } else { Code(*code) };
        return Some(Own::ConnAck(code, Terms::default()));
    }
    let mut terms = Terms::default();
    for (id, value) in properties(rest)? {
        match (id, value) {
            (0x13, Value::Number(n)) => terms.keep_alive_s = u16::try_from(n).ok(),
            (0x1F, Value::Text(text)) => terms.said = Some(text),
            (0x21, Value::Number(n)) => terms.receive_max = u16::try_from(n).ok(),
            (0x22, Value::Number(n)) => terms.aliases_max = u16::try_from(n).ok(),
            (0x24, Value::Number(n)) => terms.qos_max = u8::try_from(n).ok(),
            (0x25, Value::Number(n)) => terms.keeps = Some(n != 0),
            (0x27, Value::Number(n)) => terms.packet_max = Some(n),
            _ => {}
        }
    }
    Some(Own::ConnAck(Code(*code), terms))
}

fn pub_ack(body: &[u8]) -> Option<Own> {
    let [high, low, rest @ ..] = body else { return None };
    let code = rest.first().map_or(Code::SUCCESS, |code| Code(*code));
    Some(Own::PubAck(u16::from_be_bytes([*high, *low]), code))
}

fn disconnect(body: &[u8]) -> Option<Own> {
    let [code, rest @ ..] = body else { return Some(Own::Disconnect(Code::SUCCESS, None)) };
    let found = if rest.is_empty() { Vec::new() } else { properties(rest)? };
    let said = found.into_iter().find_map(|(id, value)| match value {
        Value::Text(text) if id == 0x1F => Some(text),
        _ => None,
    });
    Some(Own::Disconnect(Code(*code), said))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u32),
    Text(String),
    Other,
}

/// The properties at the beginning of `bytes`, with their length before them (MQTT 5, 2.2.2).
fn properties(bytes: &[u8]) -> Option<Vec<(u8, Value)>> {
    let (length, mut rest) = variable(bytes)?;
    rest = rest.get(..length as usize)?;
    let mut found = Vec::new();
    while let [id, after @ ..] = rest {
        let (value, tail) = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => number(after, 1)?,
            0x13 | 0x21..=0x23 => number(after, 2)?,
            0x02 | 0x11 | 0x18 | 0x27 => number(after, 4)?,
            0x0B => variable(after).map(|(_, tail)| (Value::Other, tail))?,
            0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => text(after)?,
            0x09 | 0x16 => text(after).map(|(_, tail)| (Value::Other, tail))?,
            0x26 => text(text(after)?.1).map(|(_, tail)| (Value::Other, tail))?,
            _ => return None,
        };
        found.push((*id, value));
        rest = tail;
    }
    Some(found)
}

fn number(bytes: &[u8], width: usize) -> Option<(Value, &[u8])> {
    let (value, tail) = bytes.split_at_checked(width)?;
    let n = value.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte));
    Some((Value::Number(n), tail))
}

fn text(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (value, tail) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((Value::Text(String::from_utf8_lossy(value).into_owned()), tail))
}

fn variable(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut n = 0u32;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        n |= u32::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((n, bytes.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Own {
        let (packet, length) = own(bytes, true, 1000).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        packet
    }

    #[test]
    fn a_disconnect_is_read_in_each_of_the_forms_that_brokers_send() {
        let rows: [(&[u8], Own); 4] = [
            (&[0xE0, 0], Own::Disconnect(Code(0), None)),
            (&[0xE0, 1, 0x95], Own::Disconnect(Code(0x95), None)), // mosquitto
            (&[0xE0, 2, 0x8E, 0], Own::Disconnect(Code(0x8E), None)),
            (&[0xE0, 7, 0x8B, 5, 0x1F, 0, 2, b'h', b'i'], Own::Disconnect(Code(0x8B), Some("hi".into()))),
        ];
        for (bytes, want) in rows {
            assert_eq!(read(bytes), want);
        }
    }

    #[test]
    fn a_puback_and_a_connack_are_read_with_and_without_what_may_be_left_out() {
        assert_eq!(read(&[0x40, 2, 1, 2]), Own::PubAck(258, Code(0)));
        assert_eq!(read(&[0x40, 3, 1, 2, 0x97]), Own::PubAck(258, Code(0x97)));
        assert_eq!(read(&[0x40, 4, 1, 2, 0x87, 0]), Own::PubAck(258, Code(0x87)));
        // What a broker of 3.1.1 answers to MQTT 5: unacceptable protocol version.
        assert_eq!(read(&[0x20, 2, 0, 1]), Own::ConnAck(Code::VERSION, Terms::default()));
        let full = [
            0x20, 28, 0, 0, 25, 0x27, 0, 0, 8, 0, 0x25, 0, 0x21, 0, 10, 0x22, 0, 5, 0x26, 0, 1, b'a', 0, 1, b'b', 0x13,
            0, 9, 0x24, 1,
        ];
        let terms = Terms {
            packet_max: Some(2048),
            receive_max: Some(10),
            aliases_max: Some(5),
            keep_alive_s: Some(9),
            qos_max: Some(1),
            keeps: Some(false),
            said: None,
        };
        assert_eq!(read(&full), Own::ConnAck(Code(0), terms));
        for cut in 0..full.len() {
            assert_eq!(own(&full[..cut], true, 1000), Ok(None), "{cut} bytes of it");
        }
        assert!(own(&[0x20, 2, 0], true, 1).is_err(), "longer than agreed");
        assert_eq!(own(&[0x30, 2, 0, 0], true, 1000), Ok(None), "none of these");
        assert_eq!(own(&[0x40, 2, 0, 1], false, 1000), Ok(None), "a PUBACK of 3.1.1 the library reads well");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(kind in prop::sample::select(vec![0x20u8, 0x40, 0xE0]), body: Vec<u8>, is_v5: bool) {
            let framed = [&[kind, body.len().min(127) as u8][..], &body[..body.len().min(127)]].concat();
            let _ = own(&framed, is_v5, 1000);
            let _ = own(&body, is_v5, 1000);
        }
    }
}
