//! A connection that ends although nothing is wrong: the peer hangs up behind each reply, or when nobody has spoken for a while, or we do,
//! because others want to be served as well.
//!
//! ```text
//!   open ── reply, reply, .. ──> the peer hangs up ──> resting ── something to be said ──> open
//!     └── nothing was ever heard over it: a fault, and the link ends                └── no connection: the link ends
//! ```
//!
//! While it rests the link is up: values keep their quality, polls their schedule. A request that was on its way when the peer hung up
//! is asked again over the next connection, if it only reads; a write is looked after. From then on no connection is asked for more replies
//! than the one that ended gave. What hangs up before it has answered anything is a fault each time: so nothing goes on in a circle.

use super::{Modbus, What};
use crate::driver::{LinkError, WriteOutcome};
use crate::line::{LineSink, stopped};
use crate::modbus::transport::Stream;
use crate::modbus::writes::Look;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A peer that hangs up may have been started anew, and may have the values by now that it refused: asked for this often at most, as some
/// hang up all the time.
const STARTED_ANEW: Duration = Duration::from_secs(60);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);

/// The next bytes; never, where there is no connection.
pub(super) async fn read_some(stream: &mut Option<Box<dyn Stream>>, chunk: &mut [u8]) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read(chunk).await,
        None => std::future::pending().await,
    }
}

/// The end of a stream, in words.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the device")
}

/// Ends a connection in order.
pub(super) async fn hang_up(stream: &mut Option<Box<dyn Stream>>) {
    if let Some(mut stream) = stream.take() {
        let _ = timeout(FAREWELL, stream.shutdown()).await; // whoever does not want to hear it need not
    }
}

impl Modbus {
    /// The peer has hung up: a fault, or a rest.
    pub(super) fn hung_up(&mut self, why: io::Error, sink: &mut impl LineSink) -> Result<(), LinkError> {
        if self.replies == 0 || self.endpoint.host_port().is_none() {
            return Err(self.lost(why));
        }
        if !self.flights.is_empty() {
            let most = self.replies_a_connection.map_or(self.replies, |most| most.min(self.replies));
            self.replies_a_connection = Some(most);
        }
        let now = Instant::now();
        for flight in std::mem::take(&mut self.flights) {
            match flight.what {
                What::Poll(n, step) => {
                    if let Some(group) = self.groups.get_mut(n) {
                        group.again(step);
                    }
                }
                What::Blocks(blocks) => self.writes.blocks_again(&blocks, &self.commands),
                What::Tags(run) => self.looks.push(Look::at_lost(flight.unit, run, now)),
                What::ReadBack(look) => self.looks.push(look),
                What::Modify(run) => self.writes.again(run), // only read so far
                What::Listen => {}
            }
        }
        self.replies = 0;
        if self.asked_anew.is_none_or(|at| now >= at + STARTED_ANEW) {
            self.asked_anew = Some(now);
            let since_start = self.since_start(now);
            self.groups.iter_mut().for_each(|g| g.probe_soon(since_start));
        }
        self.finish_polls(now, sink);
        Ok(())
    }

    /// Whether the connection is given up now: others are waiting for it, or it has had all the replies that it will give.
    pub(super) fn is_done_with_the_connection(&self) -> bool {
        let used_up = self.replies_a_connection.is_some_and(|most| self.replies >= most);
        let rests =
            self.active.is_empty() && self.writes.is_empty() && self.modified.is_empty() && self.looks.is_empty();
        self.replies > 0 && self.flights.is_empty() && (used_up || (self.close_after_poll && rests))
    }

    /// The connection for requests that were made at `since` and have not gone out. Their time begins when it is there. `None`: the line
    /// is to stop, and has nothing to say any more.
    pub(super) async fn open_again(
        &mut self,
        since: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Box<dyn Stream>>, LinkError> {
        let opened = tokio::select! {
            biased;
            opened = self.endpoint.open(self.connect_timeout) => opened,
            () = stopped(stop), if !self.stopping => {
                if self.commands.is_empty() {
                    self.unsaid();
                    return Ok(None);
                }
                Err("the gateway is stopping".into())
            }
        };
        let stream = opened.map_err(|why| {
            self.unsaid();
            LinkError::Connect { peer: self.endpoint.to_string(), why }
        })?;
        let waited = since.elapsed();
        for flight in &mut self.flights {
            flight.sent += waited;
            flight.turn_until += waited;
            flight.deadline += waited;
        }
        self.inbox.clear();
        self.bus.is_connected_again();
        (self.replies, self.unheard) = (0, self.unheard.map(|at| at + waited));
        Ok(Some(stream))
    }

    /// What was to go out has not gone out, and will not.
    fn unsaid(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            match flight.what {
                What::Tags(run) | What::Modify(run) => run.into_iter().for_each(|p| p.answer(WriteOutcome::LinkDown)),
                What::ReadBack(look) => look.give_up(),
                What::Poll(..) | What::Blocks(_) | What::Listen => {}
            }
        }
    }
}
