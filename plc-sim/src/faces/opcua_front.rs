//! The door before an OPC UA server: it mends one answer that the library leaves unfinished.
//!
//! ```text
//!   client <──> door (the port) <──> async-opcua's server, on a loopback port of its own
//!                 └── ActivateSession's answer without a nonce, on a channel without security: 32 bytes of chance are put in
//! ```
//!
//! Whoever activates a session gets a nonce of at least 32 bytes (OPC 10000-4, ActivateSession), whatever the security. async-opcua 0.19
//! takes it from the security policy, and the policy None has none to give; no setting reaches there. open62541, and all that is built on
//! it, ends such a session with BadNonceInvalid. What the client does with the nonce is nothing here: without security nothing is signed.

use opcua::server::{Server, ServerHandle};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The shortest nonce there may be.
const NONCE: usize = 32;
/// Message type, chunk type and size.
const HEADER: usize = 8;
/// Where the policy of an `OPN` stands: behind header and channel.
const POLICY: usize = 12;
const POLICY_NONE: &[u8] = b"http://opcfoundation.org/UA/SecurityPolicy#None";
/// Where the body of a `MSG` without security begins: behind header, channel, token, sequence and request.
const BODY: usize = 24;
/// The node of ActivateSessionResponse's binary encoding, i=470 (OPC 10000-6, 5.2.2.9).
const ACTIVATED: [u8; 4] = [1, 0, 0xD6, 0x01];
/// In the body, behind its type and the header of a response without diagnostics: the length of the nonce.
const NONCE_AT: usize = BODY + 4 + 24;
/// The longest chunk that is looked at; what claims more passes as it is.
const CHUNK_MAX: usize = 1 << 20;
/// A door that cannot take anybody in (no descriptors left) is opened again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// Runs a server behind a door on this listener, until the server ends.
pub(super) async fn serve(server: Server, handle: &ServerHandle, outer: TcpListener) -> Result<(), String> {
    let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| e.to_string())?;
    let (at, port) = match (inner.local_addr(), outer.local_addr()) {
        (Ok(at), Ok(outer)) => (at, outer.port()),
        (Err(e), _) | (_, Err(e)) => return Err(e.to_string()),
    };
    let mut guests = JoinSet::new();
    let mut server = std::pin::pin!(server.run_with(inner));
    loop {
        tokio::select! {
            ended = &mut server => return ended,
            came = outer.accept() => match came {
                Ok((client, _)) => {
                    let info = handle.info().clone();
                    // The server would name the port behind the door in its endpoints; once it answers it knows better.
                    guests.spawn(guide(client, at, move || info.port.store(port, Relaxed)));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            },
            Some(_) = guests.join_next() => {}
        }
    }
}

/// Brings a client to the server; when one of them goes, so does the other.
async fn guide(client: TcpStream, at: SocketAddr, answered: impl Fn() + Send) {
    let Ok(server) = TcpStream::connect(at).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // a delay is no reason to have no connection
    let (mut of_client, to_client) = client.into_split();
    let (of_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = tokio::io::copy(&mut of_client, &mut to_server) => {}
        _ = answers(of_server, to_client, answered) => {}
    }
}

/// Passes on what the server says, chunk by chunk.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, answered: impl Fn()) -> io::Result<()> {
    let (mut inbox, mut plain) = (Vec::with_capacity(CHUNK_MAX / 16), false);
    while from.read_buf(&mut inbox).await? > 0 {
        answered();
        let mut at = 0;
        while let Some(size) = size_of(inbox.get(at..).unwrap_or_default()) {
            if !(HEADER..=CHUNK_MAX).contains(&size) {
                to.write_all(inbox.get(at..).unwrap_or_default()).await?;
                tokio::io::copy(&mut from, &mut to).await?;
                return Ok(());
            }
            let Some(chunk) = inbox.get(at..at + size) else { break };
            plain = if chunk.starts_with(b"OPN") { is_plain(chunk) } else { plain };
            match mended(chunk).filter(|_| plain) {
                Some(mended) => to.write_all(&mended).await?,
                None => to.write_all(chunk).await?,
            }
            at += size;
        }
        inbox.drain(..at);
    }
    Ok(())
}

/// What the next chunk says is its size.
fn size_of(bytes: &[u8]) -> Option<usize> {
    let size = bytes.get(4..HEADER)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*size)).ok()
}

/// Whether an `OPN` opens a channel without security.
fn is_plain(chunk: &[u8]) -> bool {
    chunk.get(POLICY + 4..).is_some_and(|rest| rest.starts_with(POLICY_NONE))
}

/// The answer to ActivateSession with a nonce, if it is one without.
fn mended(chunk: &[u8]) -> Option<Vec<u8>> {
    let is_one = chunk.starts_with(b"MSGF") && chunk.get(BODY..)?.starts_with(&ACTIVATED);
    // Time, request, status; then no diagnostics, no texts, nothing additional.
    let (diagnostics, rest) = chunk.get(BODY + 16 + 4..NONCE_AT)?.split_first()?;
    let (texts, additional) = rest.split_first_chunk()?;
    let bare = *diagnostics == 0 && i32::from_le_bytes(*texts) <= 0 && additional == [0, 0, 0];
    let (head, rest) = chunk.split_at_checked(NONCE_AT)?;
    let (length, tail) = rest.split_first_chunk()?;
    if !is_one || !bare || i32::from_le_bytes(*length) > 0 {
        return None;
    }
    let mut nonce = [0u8; NONCE];
    fastrand::Rng::new().fill(&mut nonce);
    let mut whole = [head, &(NONCE as u32).to_le_bytes(), &nonce, tail].concat();
    let size = u32::try_from(whole.len()).ok()?.to_le_bytes();
    whole.get_mut(4..HEADER)?.copy_from_slice(&size);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to ActivateSession, with this nonce.
    fn activated(nonce: &[u8], null: bool) -> Vec<u8> {
        let length = if null { -1 } else { nonce.len() as i32 };
        let body = [&ACTIVATED[..], &[7; 8], &[1, 0, 0, 0], &[0; 4], &[0], &(-1i32).to_le_bytes(), &[0, 0, 0]].concat();
        let rest = [&[9u8; 16][..], &body, &length.to_le_bytes(), nonce, &[0xFF; 8]].concat();
        let size = (HEADER + rest.len()) as u32;
        [&b"MSGF"[..], &size.to_le_bytes(), &rest].concat()
    }

    #[test]
    fn an_answer_without_a_nonce_gets_one_and_is_otherwise_as_it_was() {
        for null in [true, false] {
            let bare = activated(&[], null);
            let whole = mended(&bare).expect("it is mended");
            assert_eq!(whole.len(), bare.len() + NONCE);
            assert_eq!(size_of(&whole), Some(whole.len()));
            assert_eq!(
                (&whole[HEADER..NONCE_AT], &whole[NONCE_AT + 4 + NONCE..]),
                (&bare[HEADER..NONCE_AT], &bare[NONCE_AT + 4..])
            );
            assert_eq!(mended(&whole), None, "once is enough");
        }
    }

    #[test]
    fn what_is_anything_else_passes_as_it_is() {
        let good = activated(&[], true);
        let mut other = good.clone();
        other[BODY + 2] = 0xD7;
        let mut with_texts = good.clone();
        with_texts[BODY + 21] = 1;
        with_texts[BODY + 24] = 0;
        for cut in 0..good.len() {
            let _ = mended(&good[..cut]); // and no panic
        }
        for chunk in [other, with_texts, activated(&[1; 32], false), good[..NONCE_AT].to_vec()] {
            assert_eq!(mended(&chunk), None);
        }
    }
}
