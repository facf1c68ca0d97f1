//! See [`crate::fuzzing`].

use super::address::Table;
use super::frame::Inbox;
use super::pdu::{Answer, Ask};

fn asks() -> [Ask; 4] {
    [
        Ask::Read { table: Table::Holding, start: 0, count: 4 },
        Ask::Read { table: Table::Coil, start: 3, count: 19 },
        Ask::WriteRegisters { start: 1, words: vec![1, 2], single: true },
        Ask::WriteCoils { start: 1, bits: vec![true], single: true },
    ]
}

/// Any bytes as a stream of MBAP frames, in pieces as their first byte says.
pub fn modbus_stream(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let mut inbox = Inbox::default();
    for chunk in stream.chunks(usize::from(size).max(1)) {
        inbox.push(chunk);
        loop {
            match inbox.mbap() {
                Ok(Some(frame)) => {
                    let pdu = inbox.get(frame.pdu).to_vec();
                    assert!((1..=253).contains(&pdu.len()), "a PDU of {} bytes", pdu.len());
                    believe_only_what_was_asked(&pdu);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Any bytes on a serial line.
pub fn modbus_serial(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    for ask in asks() {
        let expected = ask.encode(&mut Vec::new());
        let mut inbox = Inbox::default();
        for chunk in stream.chunks(usize::from(size).max(1)) {
            inbox.push(chunk);
            while let Some(found) = inbox.rtu(1, expected) {
                believe_only_what_was_asked(inbox.get(found));
            }
        }
    }
}

fn believe_only_what_was_asked(pdu: &[u8]) {
    for ask in asks() {
        let mut request = Vec::new();
        let expected = ask.encode(&mut request);
        match expected.check(pdu) {
            Ok(Answer::Data(data)) => assert_eq!(data.len() + 2, expected.length(), "{ask}"),
            Ok(Answer::Done) => assert_eq!(pdu, request.get(..5).unwrap_or_default(), "{ask}"),
            Ok(Answer::Exception(_)) | Err(_) => {}
        }
    }
}
