//! The way to the server, with a guard at the door.
//!
//! ```text
//!   TcpStream ──> Guard ──> async-opcua's codec, which waits for as many bytes as a header claims, and keeps them all
//!                   ├── reads each header before it passes: a claim beyond CHUNK_MAX ends the connection
//!                   ├── an OPN passes as a whole, and only if it is the one that was asked for: see [`super::opening`]
//!                   └── an OPN or MSG passes as a whole, and only if its diagnostics are not nested without end: see [`super::nesting`]
//! ```
//!
//! What is encrypted is decrypted here to be looked at, and a second time by the library. Behind an OPN nothing passes until the library
//! has taken it, for the keys of what follows are in it.
//!
//! A chunk may not be longer than the receive buffer of our `Hello` (OPC 10000-6, 7.1.2), but the codec of the library does not ask.
//! Without the guard a hostile server could claim 4 GiB and fill the memory of the gateway. How many chunks make a message is limited
//! by the settings of the client.

use super::nesting::Nesting;
use super::opening::{Keys, Opening};
use crate::dial;
use bytes::Bytes;
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
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

/// The longest chunk that is let in: four times the receive buffer that our `Hello` announces, for servers that do not look at it.
pub(super) const CHUNK_MAX: u32 = 256 * 1024;

/// Message type, chunk type and size.
const HEADER: usize = 8;

/// Header, channel and token of a message of an open channel: its sequence number comes next.
const SECURITY: usize = HEADER + 8;

/// Bytes taken from the socket at once.
const CHUNK: usize = 16 * 1024;

/// OPC UA's own port, when the endpoint names none.
const PORT: u16 = 4840;

/// What the library would only log.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// No connection, and what to look at.
    NoConnection(String),
    /// What the server sent cannot be, or is not what was asked for.
    Wrong(String),
}

/// Makes connections to one endpoint.
#[derive(Clone)]
pub(super) struct Door {
    url: String,
    keys: Option<Arc<Keys>>,
    opening: Opening,
    note: Arc<OnceLock<Note>>,
    limit: Duration,
}

impl Door {
    /// `limit` is for the connection alone: what is said over it has limits of its own.
    pub(super) fn new(url: &str, keys: Option<Arc<Keys>>, limit: Duration) -> Door {
        Door { url: url.to_string(), keys, opening: Opening::PLAIN, note: Arc::default(), limit }
    }

    /// Why the connection failed, if it did so here.
    pub(super) fn note(&self) -> Option<Note> {
        self.note.get().cloned()
    }
}

impl ConnectionSource for Door {
    type Builder = Door;

    fn get_connector(&self, endpoint: &EndpointDescription) -> Result<Door, Error> {
        Ok(Door { opening: Opening::of(endpoint, self.keys.as_ref()), ..self.clone() })
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
        let (note, opening, limit, keys) = (self.note.clone(), self.opening.clone(), self.limit, channel.clone());
        let open = move |url, options| open(url, options, opening.clone(), keys.clone(), note.clone(), limit);
        StreamConnector::new(open, self.url.clone()).connect(channel, outgoing, config).await
    }

    fn default_endpoint(&self) -> EndpointDescription {
        EndpointDescription::from(self.url.as_str())
    }
}

type Connection = StreamConnection<Guard<OwnedReadHalf>, OwnedWriteHalf>;

async fn open(
    url: String,
    options: DecodingOptions,
    opening: Opening,
    channel: Arc<SecureChannelState>,
    note: Arc<OnceLock<Note>>,
    limit: Duration,
) -> Result<Connection, Error> {
    let (host, port) =
        hostname_port_from_url(&url, PORT).map_err(|e| Error::new(e, format!("{url} is no OPC UA endpoint")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let stream = match dial((host, port), limit).await {
        Ok(stream) => stream,
        Err(e) => {
            let why = advice(&e);
            let error = Error::new(StatusCode::BadCommunicationError, why.clone());
            let _ = note.set(Note::NoConnection(why));
            return Err(error);
        }
    };
    let (read, write) = stream.into_split();
    let guard = Guard::new(read, opening, Some(channel), note);
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

/// Lets bytes through as long as the headers among them claim no more than [`CHUNK_MAX`], and channels are opened as they should be.
pub(super) struct Guard<R> {
    inner: R,
    /// What has come and not been handed on begins at `start`; of that, so many bytes may pass.
    inbox: Vec<u8>,
    start: usize,
    judged: usize,
    /// Bytes of the present message that are still to come, and may pass when they do.
    left: usize,
    /// What has been judged ends with an OPN, which the library has to take first.
    behind_opening: bool,
    opening: Opening,
    /// With the keys of the channel; `None` for one without security.
    channel: Option<Arc<SecureChannelState>>,
    nesting: Nesting,
    note: Arc<OnceLock<Note>>,
}

impl<R> Guard<R> {
    fn new(
        inner: R,
        opening: Opening,
        channel: Option<Arc<SecureChannelState>>,
        note: Arc<OnceLock<Note>>,
    ) -> Guard<R> {
        Guard {
            inner,
            inbox: Vec::new(),
            start: 0,
            judged: 0,
            left: 0,
            behind_opening: false,
            opening,
            channel,
            nesting: Nesting::default(),
            note,
        }
    }

    /// Looks at what has come, and lets pass what may.
    fn judge(&mut self) -> Result<(), String> {
        while !self.behind_opening {
            let rest = self.inbox.get(self.start + self.judged..).unwrap_or_default();
            if self.left > 0 {
                let passes = self.left.min(rest.len());
                if passes == 0 {
                    return Ok(());
                }
                self.left -= passes;
                self.judged += passes;
                continue;
            }
            let Some((&[a, b, c, kind, size @ ..], _)) = rest.split_first_chunk::<HEADER>() else { return Ok(()) };
            let claim = u32::from_le_bytes(size);
            let size = usize::try_from(claim).unwrap_or(usize::MAX);
            if claim > CHUNK_MAX || size < HEADER {
                return Err(format!("a message that claims {claim} bytes, {CHUNK_MAX} at most were agreed"));
            }
            match &[a, b, c] {
                b"OPN" => {
                    let Some(message) = rest.get(..size) else { return Ok(()) };
                    let plain = self.opening.check(message)?;
                    self.nesting.check(kind, &plain)?;
                    self.behind_opening = true;
                }
                b"MSG" | b"CLO" if !self.opening.takes(size) => {
                    return Err(format!("a message of {size} bytes, too short or uneven for the security of the line"));
                }
                b"MSG" | b"CLO" => {
                    let Some(message) = rest.get(..size) else { return Ok(()) };
                    let plain = decrypted(message, &self.opening, self.channel.as_deref())?;
                    self.nesting.check(kind, plain.get(SECURITY..).unwrap_or_default())?;
                }
                _ => {}
            }
            self.left = size;
        }
        Ok(())
    }
}

impl<R> Guard<R> {
    fn judge_or_note(&mut self) -> io::Result<()> {
        self.judge().map_err(|what| {
            let error = io::Error::new(io::ErrorKind::InvalidData, what.clone());
            let _ = self.note.set(Note::Wrong(what));
            error
        })
    }
}

/// A message of an open channel as the library will see it.
fn decrypted(message: &[u8], opening: &Opening, channel: Option<&SecureChannelState>) -> Result<Bytes, String> {
    let message = Bytes::copy_from_slice(message);
    match channel {
        Some(channel) if opening.is_secure() => {
            let plain = channel.secure_channel().read().verify_and_remove_security(message);
            plain.map(|chunk| chunk.data).map_err(|e| format!("a message that is not of this channel: {e}"))
        }
        _ => Ok(message),
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Guard<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        loop {
            if guard.judged > 0 {
                let passes = guard.judged.min(buf.remaining());
                buf.put_slice(guard.inbox.get(guard.start..guard.start + passes).unwrap_or_default());
                guard.start += passes;
                guard.judged -= passes;
                return Poll::Ready(Ok(()));
            }
            guard.inbox.drain(..guard.start);
            guard.start = 0;
            // The library comes back for more when it has taken what passed.
            if std::mem::take(&mut guard.behind_opening) {
                guard.judge_or_note()?;
                continue;
            }
            let had = guard.inbox.len();
            guard.inbox.resize(had + CHUNK, 0);
            let mut more = ReadBuf::new(guard.inbox.get_mut(had..).unwrap_or_default());
            let read = Pin::new(&mut guard.inner).poll_read(cx, &mut more);
            let came = more.filled().len();
            guard.inbox.truncate(had + came);
            ready!(read)?;
            if came == 0 {
                return Poll::Ready(Ok(())); // the end; what is left is no message
            }
            guard.judge_or_note()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// What passes of a stream that comes in pieces of this size, and what is said of the rest.
    async fn passes(stream: &[u8], cut: usize) -> (Vec<u8>, Option<String>) {
        let note = Arc::default();
        let (mut near, far) = tokio::io::duplex(cut);
        let mut guard = Guard::new(far, Opening::PLAIN, None, Arc::clone(&note));
        let stream = stream.to_vec();
        let sends = tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut near, &stream).await;
        });
        let mut passed = Vec::new();
        let _ = guard.read_to_end(&mut passed).await;
        sends.abort();
        let said = note.get().map(|note| if let Note::Wrong(what) = note { what.clone() } else { String::new() });
        (passed, said)
    }

    fn message(kind: &[u8; 4], size: u32, body: usize) -> Vec<u8> {
        let mut bytes = kind.to_vec();
        bytes.extend(size.to_le_bytes());
        bytes.extend(std::iter::repeat_n(0xff, body));
        bytes
    }

    /// An `OPN` without security.
    fn plain_opening() -> Vec<u8> {
        let uri = SecurityPolicy::None.to_uri().as_bytes();
        let fields = [&[0; 4][..], &(uri.len() as u32).to_le_bytes(), uri, &[0xFF; 8], &[7; 20]].concat();
        let mut bytes = message(b"OPNF", 8 + fields.len() as u32, 0);
        bytes.extend(fields);
        bytes
    }

    use opcua::crypto::SecurityPolicy;

    #[tokio::test]
    async fn messages_pass_however_they_are_cut() {
        let stream: Vec<u8> = [
            message(b"MSGF", 8, 0),
            message(b"MSGF", 20, 12),
            plain_opening(),
            message(b"MSGC", 9, 1),
            plain_opening(),
            message(b"ACKF", 28, 20),
        ]
        .concat();
        for cut in 1..=stream.len() {
            assert_eq!(passes(&stream, cut).await, (stream.clone(), None), "cut into pieces of {cut}");
        }
    }

    #[tokio::test]
    async fn a_claim_too_large_or_too_small_is_stopped_and_what_came_before_is_not() {
        for (claim, stopped) in [(u32::MAX, true), (CHUNK_MAX + 1, true), (CHUNK_MAX, false), (7, true), (0, true)] {
            let first = message(b"MSGF", 20, 12);
            for cut in [1, 7, 1000] {
                let (passed, said) = passes(&[first.clone(), message(b"MSGF", claim, 0)].concat(), cut).await;
                assert_eq!(said.is_some(), stopped, "{claim}: {said:?}");
                assert!(!stopped || first.starts_with(&passed), "{claim}");
            }
        }
    }

    #[tokio::test]
    async fn a_channel_that_is_opened_in_another_way_is_not_seen_by_the_library() {
        let good = plain_opening();
        let mut other = good.clone();
        let at = good.windows(4).position(|w| w == b"None").expect("the policy");
        other[at..at + 4].copy_from_slice(b"Lone");
        let rows = [
            (other, "it opens the channel with security Lone, and None was asked for"),
            (message(b"OPNF", 10, 2), "too short"),
            (message(b"OPNF", 20, 12), "ends in the middle"),
            ([message(b"OPNF", 40, 4), 900u32.to_le_bytes().to_vec(), vec![0; 24]].concat(), "ends in the middle"),
        ];
        for (stream, want) in rows {
            let (passed, said) = passes(&stream, 1000).await;
            assert!(passed.is_empty());
            assert!(said.as_ref().is_some_and(|said| said.contains(want)), "{said:?}");
        }
    }
}
