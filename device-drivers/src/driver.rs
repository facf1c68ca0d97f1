//! The trait every protocol implements, and which errors end a link.
//!
//! Two scales of error: what concerns one point is a reading that is Bad with a cause; what concerns the link is a
//! [`LinkError`], and every one of them ends the link. [`crate::line::run_line`] then closes it, backs off, and connects anew.

use crate::block::CommandBlock;
use crate::value::Reading;
use control_core::units::MachineId;
use std::future::Future;
use std::time::Duration;

/// What ended a link. The text says what a technician can look at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("cannot connect to {peer}: {why}")]
    Connect {
        /// Address as configured.
        peer: String,
        /// What the network said, and what to look at.
        why: String,
    },
    /// No answer in time. The answer may still come, so the connection cannot be used any more.
    #[error("{peer} did not answer {what} within {limit:?}")]
    Timeout {
        /// Address as configured.
        peer: String,
        /// Which request.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The peer sent something that is not the protocol, or not the answer.
    #[error("{peer} broke the protocol: {what}")]
    Protocol {
        /// Address as configured.
        peer: String,
        /// What was received and what was expected.
        what: String,
    },
    /// The connection was closed or failed.
    #[error("connection to {peer} lost: {why}")]
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
    /// Requests sent.
    pub requests: u32,
    /// The device is alive although it may have had nothing new to say: what was Good stays Good.
    pub alive: bool,
}

/// A field protocol on one line.
///
/// Contract, in the order of a link's life:
/// - `connect` makes the link or fails; it has a time limit of its own and may be called again after any failure.
/// - `poll(group)` reads one group once. It takes at most the time limit per request times the requests of the group,
///   holds no lock, and appends exactly one reading for each point it has news about. A point the device refuses is a Bad reading;
///   an error return ends the link. Dropping the future half-way is not allowed: a reply would be left in the socket.
/// - `write` writes command blocks; it returns when the device has acknowledged all of them. Blocks are idempotent
///   (their sequence makes them so): after an error they may or may not have arrived, and are written again.
/// - `close` ends the link without waiting for the peer; it cannot fail and may be called at any time.
pub trait Driver: Send + 'static {
    /// Address of the peer, as a person would look for it in the configuration.
    fn peer(&self) -> String;

    /// How often each group wants to be polled; the index is the argument of `poll`.
    fn groups(&self) -> Vec<Duration>;

    /// Whether a poll that is late means a reading that was missed. Not so where the device sends by itself and a poll
    /// only takes over what has come.
    fn paced(&self) -> bool {
        true
    }

    /// Makes the link.
    fn connect(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Reads a group once.
    fn poll(
        &mut self,
        group: usize,
        out: &mut Vec<Reading>,
    ) -> impl Future<Output = Result<PollReport, LinkError>> + Send;

    /// Writes command blocks.
    fn write(&mut self, blocks: &[BlockWrite]) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Ends the link.
    fn close(&mut self);
}
