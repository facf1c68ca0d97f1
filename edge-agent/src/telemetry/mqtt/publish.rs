//! A record of the spool as a PUBLISH packet (MQTT 3.1.1 and 5, 3.3), written straight from where it lies: one copy, nothing allocated but
//! what the buffer needs to grow.

use super::wire::{TooLarge, Version, Wire};
use crate::telemetry::payload::{SEQUENCE_MAX, sequence_bytes};
use crate::telemetry::spool::record::Record;
use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

/// QoS 1, not retained, for the first time.
const PUBLISH: u8 = 0x32;
/// Property identifiers (MQTT 5, 2.2.2.2).
const EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const TOPIC_ALIAS: u8 = 0x23;
const USER: u8 = 0x26;

/// What MQTT 5 says of a record beside its payload.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// MIME type of the payload.
    pub content_type: &'static str,
    /// Nobody wants it any more after so many seconds.
    pub expiry_s: Option<u32>,
}

/// Names and values as they stand among the properties of every record: encoded once.
pub fn user_properties(pairs: &[(String, String)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for (name, value) in pairs {
        out.put_u8(USER);
        put_text(&mut out, name);
        put_text(&mut out, value);
    }
    out.to_vec()
}

/// A text is longer than its length can say in no topic and no property that the configuration lets through.
fn put_text(out: &mut BytesMut, text: &str) {
    let text = text.as_bytes();
    let text = text.get(..text.len().min(usize::from(u16::MAX))).unwrap_or_default();
    out.put_u16(text.len() as u16);
    out.put_slice(text);
}

/// A variable byte integer (MQTT 5, 1.5.5).
fn put_varint(out: &mut BytesMut, mut number: usize) {
    loop {
        let more = number >= 128;
        out.put_u8((number % 128) as u8 | if more { 128 } else { 0 });
        number /= 128;
        if !more {
            return;
        }
    }
}

fn varint_length(number: usize) -> usize {
    1 + usize::from(number >= 1 << 7) + usize::from(number >= 1 << 14) + usize::from(number >= 1 << 21)
}

impl Wire {
    /// Puts a record on its way, QoS 1; `user` are [`user_properties`].
    pub fn publish_record(&mut self, record: &Record<'_>, id: u16, head: Head, user: &[u8]) -> Result<(), TooLarge> {
        let (before, after) = record.payload.split_at_checked(record.hole).unwrap_or((record.payload, &[]));
        let mut buffer = [0; SEQUENCE_MAX];
        let sequence = sequence_bytes(record.kind, record.sequence, &mut buffer);
        let payload = before.len() + sequence.len() + after.len();
        let is_new = self.version == Version::V5;
        let (alias, known) = if is_new { self.alias(record.topic) } else { (None, false) };
        let topic = if known { "" } else { record.topic };
        let expiry = head.expiry_s.map_or(0, |_| 5);
        let properties = 3 + head.content_type.len() + expiry + alias.map_or(0, |_| 3) + user.len();
        let extra = if is_new { varint_length(properties) + properties } else { 0 };
        let rest = 2 + topic.len() + 2 + extra + payload;
        let size = 1 + varint_length(rest) + rest;
        if let Some(max) = self.packet_max.filter(|max| is_new && size > *max as usize) {
            if let (Some(_), false) = (alias, known) {
                self.aliases.remove(record.topic);
            }
            return Err(TooLarge { size, max });
        }
        self.sent_at = Instant::now();
        let out = &mut self.outbox;
        out.reserve(size);
        out.put_u8(PUBLISH);
        put_varint(out, rest);
        put_text(out, topic);
        out.put_u16(id);
        if is_new {
            put_varint(out, properties);
            out.put_u8(CONTENT_TYPE);
            put_text(out, head.content_type);
            if let Some(expiry) = head.expiry_s {
                out.put_u8(EXPIRY);
                out.put_u32(expiry);
            }
            if let Some(alias) = alias {
                out.put_u8(TOPIC_ALIAS);
                out.put_u16(alias);
            }
            out.put_slice(user);
        }
        out.put_slice(before);
        out.put_slice(sequence);
        out.put_slice(after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lengths_are_those_of_the_standard(number in 0usize..268_435_456) {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            prop_assert_eq!(out.len(), varint_length(number));
            let read = out.iter().rev().fold(0usize, |n, b| n << 7 | usize::from(b & 127));
            prop_assert_eq!(read, number);
        }
    }

    #[test]
    fn the_rows_of_the_standards_table_are_written_as_it_says() {
        // MQTT 5, table 1-1.
        for (number, bytes) in [
            (127, &[0x7F][..]),
            (128, &[0x80, 0x01]),
            (16_384, &[0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            assert_eq!(&out[..], bytes);
        }
    }
}
