//! Connections: so many, so long, so large. A hostile client is let go, and costs nobody else anything.
//!
//! | limit | what it stops |
//! |---|---|
//! | [`CONNECTIONS_MAX`] | a flood of connections |
//! | [`HEADER_LIMIT`], [`BODY_MAX`] for the headers | a client that says nothing, half a request, or a megabyte of header |
//! | ten seconds for a body of at most [`BODY_MAX`] | a body by drops |
//! | [`STALL_LIMIT`] | a client that does not read what it asked for |
//! | [`AGE_LIMIT`], [`LIVE_AGE_LIMIT`] | a client that stays for ever; a browser comes again by itself |

use super::guard::Peer;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// Largest body taken, bytes: an order has some hundred.
pub const BODY_MAX: usize = 64 * 1024;
/// Connections served at once: those who look on live, and a good hundred for everybody else.
pub const CONNECTIONS_MAX: usize = crate::live::CLIENTS_MAX + 128;
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

/// Turned on by a request that looks on live.
#[derive(Clone, Debug, Default)]
pub(super) struct IsLive(pub Arc<AtomicBool>);

/// Serves until the task is aborted.
pub(super) async fn serve(router: Router, listener: TcpListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER); // a favour, not a need
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, most likely
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let is_live = IsLive::default();
        let service = router.clone().layer(Extension(Peer(from))).layer(Extension(is_live.clone()));
        tokio::spawn(async move {
            let _seat = seat;
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(STALL_LIMIT));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(BODY_MAX);
            let io = TokioIo::new(Box::pin(stream));
            let mut connection = pin!(server.serve_connection(io, TowerToHyperService::new(service)));
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
        });
    }
}
