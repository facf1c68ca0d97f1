//! The way to the server, with a guard at the door.
//!
//! ```text
//!   TcpStream ──> Guard ──> async-opcua's codec, which waits for as many bytes as a header claims, and keeps them all
//!                   └── reads each header as it passes: a claim beyond CHUNK_MAX ends the connection
//! ```
//!
//! A chunk may not be longer than the receive buffer of our `Hello` (OPC 10000-6, 7.1.2), but the codec of the library does not ask.
//! Without the guard a hostile server could claim 4 GiB and fill the memory of the gateway. How many chunks make a message is limited
//! by the settings of the client.

use opcua::client::ConnectionSource;
use opcua::client::transport::{
    Connector, RequestRecv, SecureChannelState, StreamConnection, StreamConnector, StreamTransport,
};
use opcua::core::comms::tcp_codec::TcpCodec;
use opcua::core::comms::url::hostname_port_from_url;
use opcua::types::{DecodingOptions, EndpointDescription, Error, StatusCode};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

/// The longest chunk that is let in: four times the receive buffer that our `Hello` announces, for servers that do not look at it.
pub(super) const CHUNK_MAX: u32 = 256 * 1024;

/// Message type, chunk type and size.
const HEADER: usize = 8;

/// OPC UA's own port, when the endpoint names none.
const PORT: u16 = 4840;

/// What the library would only log.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// No connection, and what to look at.
    NoConnection(String),
    /// A header claimed so many bytes.
    Oversize(u32),
}

/// Makes connections to one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Door {
    url: String,
    note: Arc<OnceLock<Note>>,
}

impl Door {
    pub(super) fn new(url: &str) -> Door {
        Door { url: url.to_string(), note: Arc::default() }
    }

    /// Why the connection failed, if it did so here.
    pub(super) fn note(&self) -> Option<Note> {
        self.note.get().cloned()
    }
}

impl ConnectionSource for Door {
    type Builder = Door;

    fn get_connector(&self, _endpoint: &EndpointDescription) -> Result<Door, Error> {
        Ok(self.clone())
    }
}

impl Connector for Door {
    type Transport = StreamTransport<Guard<OwnedReadHalf>, OwnedWriteHalf>;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        outgoing: RequestRecv,
        config: opcua::client::transport::TransportConfiguration,
    ) -> Result<Self::Transport, Error> {
        let note = self.note.clone();
        let open = move |url, options| open(url, options, note.clone());
        StreamConnector::new(open, self.url.clone()).connect(channel, outgoing, config).await
    }

    fn default_endpoint(&self) -> EndpointDescription {
        EndpointDescription::from(self.url.as_str())
    }
}

type Connection = StreamConnection<Guard<OwnedReadHalf>, OwnedWriteHalf>;

async fn open(url: String, options: DecodingOptions, note: Arc<OnceLock<Note>>) -> Result<Connection, Error> {
    let (host, port) =
        hostname_port_from_url(&url, PORT).map_err(|e| Error::new(e, format!("{url} is no OPC UA endpoint")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let stream = match TcpStream::connect((host, port)).await {
        Ok(stream) => stream,
        Err(e) => {
            let why = advice(&e);
            let error = Error::new(StatusCode::BadCommunicationError, why.clone());
            let _ = note.set(Note::NoConnection(why));
            return Err(error);
        }
    };
    let _ = stream.set_nodelay(true); // a delay is no reason to have no connection
    let (read, write) = stream.into_split();
    let guard = Guard { inner: read, header: [0; HEADER], have: 0, left: 0, note };
    Ok(StreamConnection::new(FramedRead::new(guard, TcpCodec::new(options)), write, url))
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "the host answers, but nothing listens on this port; is the OPC UA server switched on?".into()
        }
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no connection; check the address, the cable and the switch ({error})")
        }
        _ => format!("no connection: {error}"),
    }
}

/// Lets bytes through as long as the headers among them claim no more than [`CHUNK_MAX`].
#[derive(Debug)]
pub(super) struct Guard<R> {
    inner: R,
    header: [u8; HEADER],
    /// Bytes of the present header that have passed.
    have: usize,
    /// Bytes of the present message that are still to come.
    left: usize,
    note: Arc<OnceLock<Note>>,
}

impl<R> Guard<R> {
    /// Looks at bytes that pass; the claim if one is too large or too small to be one.
    fn look(&mut self, mut bytes: &[u8]) -> Result<(), u32> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let wanted = (HEADER - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            for (slot, byte) in self.header.iter_mut().skip(self.have).zip(now) {
                *slot = *byte;
            }
            self.have += wanted;
            bytes = rest;
            if self.have == HEADER {
                let [_, _, _, _, a, b, c, d] = self.header;
                let claim = u32::from_le_bytes([a, b, c, d]);
                let body = (claim as usize).checked_sub(HEADER).filter(|_| claim <= CHUNK_MAX).ok_or(claim)?;
                (self.have, self.left) = (0, body);
            }
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Guard<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut guard.inner).poll_read(cx, buf))?;
        let looked = guard.look(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(looked.map_err(|claim| {
            let _ = guard.note.set(Note::Oversize(claim));
            io::Error::new(io::ErrorKind::InvalidData, format!("a message that claims {claim} bytes"))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard<()> {
        Guard { inner: (), header: [0; HEADER], have: 0, left: 0, note: Arc::default() }
    }

    fn message(size: u32, body: usize) -> Vec<u8> {
        let mut bytes = b"MSGF".to_vec();
        bytes.extend(size.to_le_bytes());
        bytes.extend(std::iter::repeat_n(0xff, body));
        bytes
    }

    #[test]
    fn messages_pass_however_they_are_cut() {
        let stream: Vec<u8> = [message(8, 0), message(20, 12), message(9, 1)].concat();
        for cut in 1..=stream.len() {
            let mut guard = guard();
            for piece in stream.chunks(cut) {
                assert_eq!(guard.look(piece), Ok(()), "cut into pieces of {cut}");
            }
            assert_eq!((guard.have, guard.left), (0, 0));
        }
    }

    #[test]
    fn a_claim_too_large_or_too_small_is_stopped_at_its_last_byte() {
        for (claim, stopped) in [(u32::MAX, true), (CHUNK_MAX + 1, true), (CHUNK_MAX, false), (7, true), (0, true)] {
            let mut guard = guard();
            let (first, last) = (message(20, 12), message(claim, 0));
            assert_eq!(guard.look(&first), Ok(()));
            for byte in &last[..7] {
                assert_eq!(guard.look(&[*byte]), Ok(()));
            }
            assert_eq!(guard.look(&last[7..]).is_err(), stopped, "{claim}");
        }
    }
}
