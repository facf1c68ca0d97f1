//! Raw sockets for tests of Modbus servers: bytes in, bytes out, bounded waits.

#![allow(dead_code)] // each test uses its part

use plc_sim::bank::{Bank, BankConfig};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that comes takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What has not come by then does not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// So long a tick lasts where nothing may move.
pub(crate) const STILL: Duration = Duration::from_secs(3600);

/// A bank that stands still at tick 1, on a port of its own.
pub(crate) async fn still(config: BankConfig) -> Bank {
    Bank::start(BankConfig { rate: STILL, ..config }).await.unwrap()
}

/// An answer of Modbus TCP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) transaction: u16,
    pub(crate) unit: u8,
    pub(crate) pdu: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn connect(at: SocketAddr) -> Client {
        let stream = TcpStream::connect(at).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    pub(crate) async fn send(&mut self, transaction: u16, unit: u8, pdu: &[u8]) {
        self.stream.write_all(&frame(transaction, unit, pdu)).await.unwrap();
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = [0; 7];
        timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("an answer in time").unwrap();
        let [t1, t0, p1, p0, l1, l0, unit] = head;
        assert_eq!([p1, p0], [0, 0], "the protocol is Modbus");
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        assert!((2..=254).contains(&length), "length {length}");
        let mut pdu = vec![0; length - 1];
        timeout(PATIENCE, self.stream.read_exact(&mut pdu)).await.expect("all of it in time").unwrap();
        Answer { transaction: u16::from_be_bytes([t1, t0]), unit, pdu }
    }

    /// The PDU that answers a PDU.
    pub(crate) async fn ask(&mut self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        self.send(0x1234, unit, pdu).await;
        let answer = self.answer().await;
        assert_eq!((answer.transaction, answer.unit), (0x1234, unit));
        answer.pdu
    }

    /// Nothing comes, and the connection stays open.
    pub(crate) async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let heard = timeout(SILENCE, self.stream.read(&mut byte)).await;
        assert!(heard.is_err(), "heard {heard:?} of {byte:?}");
    }
}

pub(crate) fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap();
    [&transaction.to_be_bytes()[..], &[0, 0], &length.to_be_bytes(), &[unit], pdu].concat()
}

/// The PDU that reads from a table by its function.
pub(crate) fn read(function: u8, start: u16, quantity: u16) -> Vec<u8> {
    [&[function][..], &start.to_be_bytes(), &quantity.to_be_bytes()].concat()
}

/// The PDU that writes one holding register.
pub(crate) fn write(address: u16, value: u16) -> Vec<u8> {
    read(6, address, value)
}

/// The words of an answer to a read.
pub(crate) fn words(pdu: &[u8]) -> Vec<u16> {
    assert_eq!(usize::from(pdu[1]), pdu.len() - 2, "byte count of {pdu:?}");
    pdu[2..].chunks(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect()
}
