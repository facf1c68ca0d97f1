//! The trait every protocol implements, and which errors end a link.
//!
//! Three scales of error: what concerns one point is a reading that is Bad with a cause; what concerns one device is its
//! [`Health`]; what concerns the link is a [`LinkError`], and every one of them ends the link: [`crate::line::run_line`] closes it, backs off, and connects anew.

use crate::block::CommandBlock;
use crate::line::LineSink;
use crate::said::said;
use crate::value::{Cause, PointId, Value};
use control_core::units::MachineId;
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What ended a link. The text says what a technician can look at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("cannot connect to {peer}: {}", said(.why))]
    Connect {
        /// Address as configured.
        peer: String,
        /// What the network said, and what to look at.
        why: String,
    },
    /// No answer in time. The answer may still come, so the connection cannot be used any more.
    #[error("{peer} did not answer {} within {limit:?}", said(.what))]
    Timeout {
        /// Address as configured.
        peer: String,
        /// Which request.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The peer sent something that is not the protocol, or not the answer.
    #[error("{peer} broke the protocol: {}", said(.what))]
    Protocol {
        /// Address as configured.
        peer: String,
        /// What was received and what was expected.
        what: String,
    },
    /// The peer's certificate is not trusted, or is not what it has to be. Nothing was said to this peer that it could use.
    #[error("{peer}: {}", said(.what))]
    Untrusted {
        /// Address as configured.
        peer: String,
        /// What is wrong with the certificate, and what to do.
        what: String,
        /// Its SHA-1 thumbprint, in hexadecimal; empty where there is none.
        thumbprint: String,
    },
    /// The peer does not want us: our certificate, our user, or the security that the line asks for.
    #[error("{peer} refuses: {}", said(.what))]
    Denied {
        /// Address as configured.
        peer: String,
        /// What it refuses, and what to do.
        what: String,
    },
    /// The peer does not take our user, or its password. It is asked again only after minutes.
    #[error("{peer} refuses: {}", said(.what))]
    Login {
        /// Address as configured.
        peer: String,
        /// What it refuses, and what to do.
        what: String,
    },
    /// The connection was closed or failed.
    #[error("connection to {peer} lost: {}", said(.why))]
    Lost {
        /// Address as configured.
        peer: String,
        /// What the network said.
        why: String,
    },
}

/// A command block to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockWrite {
    /// For which machine.
    pub machine: MachineId,
    /// Sequence of the command in it, 0 for none.
    pub seq: u32,
    /// The words.
    pub words: CommandBlock,
}

/// What a poll did, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollReport {
    /// Which device of the line, in the order of the configuration.
    pub device: usize,
    /// Requests sent.
    pub requests: u32,
    /// The device is alive although it may have had nothing new to say: what was Good stays Good.
    pub alive: bool,
    /// From the first request to the last reply: the oldest value is as old as this.
    pub took: Duration,
    /// How long after its due time the poll was begun.
    pub late: Duration,
}

/// What a person or a program outside wants to have written to a point.
#[derive(Debug)]
pub struct TagWrite {
    /// Which point.
    pub point: PointId,
    /// The value in engineering units; the driver inverts factor and offset and refuses what does not fit the type.
    pub value: Value,
    /// Not begun after this instant.
    pub deadline: Instant,
    /// Higher goes first.
    pub priority: u8,
    /// Whether the point is read back and compared.
    pub verify: bool,
    /// Where the outcome goes. It is answered once, whatever happens to the line.
    pub reply: oneshot::Sender<WriteOutcome>,
}

/// What came of a [`TagWrite`].
#[derive(Clone, Debug, PartialEq)]
pub enum WriteOutcome {
    /// The device has acknowledged it, and what was read back (if it was) agrees.
    Done,
    /// This was read back. Where the device has acknowledged it, something else writes there, or it clamps; where it has only accepted it,
    /// or a gateway has heard nothing of it, it was not done.
    Differs(Value),
    /// The value cannot be written to this point, and nothing was sent.
    Invalid(String),
    /// The device refused it; nothing has changed.
    Refused(Cause),
    /// Its time was over before it could be begun; nothing was sent.
    Expired,
    /// The line is down; nothing was sent.
    LinkDown,
    /// It was sent, and no answer came: it may or may not have been done. Resolved by reading, never by assuming.
    Unknown,
}

/// How a device on a line is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It did not answer, and is asked less often.
    Demoted,
}

/// A field protocol on one line.
///
/// Contract, in the order of a link's life:
/// - `connect` makes the link or fails; it has a time limit of its own and may be called again after any failure.
/// - `serve` works the link: reads each point on its schedule, makes the writes that the sink and `wishes` ask for, and reports to the
///   sink. It holds no lock across an await. What concerns one point is a Bad reading; what concerns one device is its [`Health`];
///   only what concerns the link as a whole ends it (`Err`). Command blocks are idempotent (their sequence makes them so): after
///   an error they may or may not have arrived, and are written again. When `stop` turns true it makes the last due
///   writes (the safe state) and returns `Ok`.
/// - `close` ends the link without waiting for the peer; it cannot fail and may be called at any time.
pub trait Driver: Send + 'static {
    /// Address of the peer, as a person would look for it in the configuration.
    fn peer(&self) -> String;

    /// Makes the link.
    fn connect(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Works the link until it fails or `stop` turns true.
    fn serve<S: LineSink>(
        &mut self,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Ends the link.
    fn close(&mut self);
}
