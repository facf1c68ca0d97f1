//! Connections: so many, so long, so large. A hostile client is let go, and costs nobody else anything.
//!
//! | limit | what it stops |
//! |---|---|
//! | [`CONNECTIONS_MAX`], shared among places by `seats` | a flood of connections |
//! | [`HEADER_LIMIT`], [`BODY_MAX`] for the headers | a client that says nothing, half a request, or a megabyte of header |
//! | ten seconds for a body of at most [`BODY_MAX`] | a body by drops |
//! | [`STALL_LIMIT`] | a client that does not read what it asked for |
//! | [`AGE_LIMIT`], [`LIVE_AGE_LIMIT`] | a client that stays for ever; a browser comes again by itself |

use super::guard::Peer;
use super::origin::says_host;
use super::problem::Problem;
use super::seats::{HttpStats, Seat, Seats};
use super::tls::{Door, HANDSHAKE, HSTS};
use axum::http::header::STRICT_TRANSPORT_SECURITY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Router};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

/// Largest body taken, bytes: an order has some hundred.
pub const BODY_MAX: usize = 64 * 1024;
/// Connections served at once: those who look on live, and a good hundred for everybody else.
pub const CONNECTIONS_MAX: usize = crate::live::CLIENTS_MAX + 128;
/// Of the descriptors this process may have, connections take so many of so many: lines, spool and store need theirs. With the usual 1024
/// there is room for all.
const DESCRIPTORS_SHARE: (u64, u64) = (2, 3);
/// Time for the headers of a request.
pub const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// A client that takes nothing for so long is let go.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(10);
/// After this long a connection takes no further request; after a half more it is closed. The longest write is answered in that.
pub(super) const AGE_LIMIT: Duration = Duration::from_secs(60);
/// The same for one that looks on live.
pub(super) const LIVE_AGE_LIMIT: Duration = Duration::from_secs(900);
/// What the kernel may hold for a client that does not read, bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Pause after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Turned on by a request that looks on live.
#[derive(Clone, Debug, Default)]
pub(super) struct IsLive(pub Arc<AtomicBool>);

/// Connections that fit into what the process may open.
fn connections_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let fit = files.map_or(u64::MAX, |files| files.saturating_mul(DESCRIPTORS_SHARE.0) / DESCRIPTORS_SHARE.1);
    usize::try_from(fit).unwrap_or(usize::MAX).min(CONNECTIONS_MAX)
}

/// Serves until the task is aborted.
pub(super) async fn serve(router: Router, listener: TcpListener, stats: Arc<HttpStats>, tls: Option<Arc<Door>>) {
    let seats = Seats::new(connections_max(), stats);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER); // a favour, not a need
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let seat = seats.take(from.ip().into());
                tokio::spawn(sit(router.clone(), stream, from, seat, tls.clone()));
            }
            Err(_) => {
                // Out of descriptors, most likely.
                seats.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until it ends or its seat is needed.
async fn sit(router: Router, stream: TcpStream, from: SocketAddr, seat: Seat, tls: Option<Arc<Door>>) {
    tokio::select! {
        () = connection(router, stream, from, &seat, tls) => {}
        () = seat.is_needed() => {}
    }
}

async fn connection(router: Router, stream: TcpStream, from: SocketAddr, seat: &Seat, tls: Option<Arc<Door>>) {
    let _ = stream.set_nodelay(true);
    let peer = Peer { at: from, is_tls: tls.is_some() };
    let Some(door) = tls else { return talk(router, stalling(stream), peer, seat).await };
    let mut first = [0];
    match tokio::time::timeout(HEADER_LIMIT, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [HANDSHAKE] => {}
        Ok(Ok(1)) => return turn_away(stream).await,
        _ => return, // nothing, or nobody any more
    }
    if let Ok(Ok(stream)) = tokio::time::timeout(HEADER_LIMIT, door.acceptor().accept(stalling(stream))).await {
        talk(router, stream, peer, seat).await;
    }
}

/// A client that takes nothing for a while is let go.
fn stalling(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL_LIMIT));
    Box::pin(stream)
}

/// Says to who speaks plainly that this is a door with TLS.
async fn turn_away(mut stream: TcpStream) {
    let body = "{\"type\":\"urn:lightsout:problem:tls\",\"title\":\"this is served over TLS\",\"status\":400,\
                \"detail\":\"this port speaks HTTPS: write https:// in front of the address\"}\n";
    let length = body.len();
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
    let saying = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What it has sent is read, or the kernel would take the answer back with a reset.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(HEADER_LIMIT, saying).await;
}

/// Requests and answers over a connection.
async fn talk(router: Router, io: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, seat: &Seat) {
    let (is_live, sign) = (IsLive::default(), seat.sign());
    let inner = TowerToHyperService::new(router.layer(Extension(peer)).layer(Extension(is_live.clone())));
    let live = is_live.clone();
    let service = service_fn(move |request| {
        let answer = match says_host(&request) {
            Ok(()) => Ok(inner.call(request)),
            Err(what) => Err(Problem::new(StatusCode::BAD_REQUEST, "host", "this is not said to be for anybody", what)),
        };
        let (sign, live) = (sign.clone(), live.clone());
        async move {
            sign.is_busy.store(true, Relaxed);
            let mut answer = match answer {
                Ok(answer) => answer.await,
                Err(problem) => Ok(problem.into_response()),
            };
            sign.is_busy.store(live.0.load(Relaxed), Relaxed);
            if let (Ok(answer), true) = (&mut answer, peer.is_tls) {
                answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
            }
            answer
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(BODY_MAX);
    let mut connection = pin!(server.serve_connection(TokioIo::new(io), service));
    // Errors are the client's.
    if tokio::time::timeout(AGE_LIMIT, connection.as_mut()).await.is_ok() {
        return;
    }
    if is_live.0.load(Relaxed) {
        let _ = tokio::time::timeout(LIVE_AGE_LIMIT - AGE_LIMIT, connection).await;
    } else {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(AGE_LIMIT / 2, connection).await;
    }
}
