//! What is said over a connection: the gateway's own messages, or those of a Sparkplug edge node. The session below keeps the promises of
//! delivery and knows nothing of topics.

use super::publish::Head;
use super::session::Out;
use super::wire::{Message, Received};
use crate::telemetry::spool::record::Record;
use crate::telemetry::spool::{Reason, Stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How a message of the spool is sent.
#[derive(Debug)]
pub enum Sending {
    /// QoS 1: done at its PUBACK. The record itself, with its topic and its payload.
    Straight(Head),
    /// QoS 0, as Sparkplug wants its data: done when the broker answers a ping that was sent after it. MQTT keeps the order of a
    /// connection, so by then it has been taken.
    Pinged(Message),
    /// Nothing to be sent: it is done.
    Nothing,
    /// It cannot be sent, for this reason: lost, and told.
    Lost(Reason),
}

/// What is said over a connection.
pub trait Face: Send {
    /// CONNECT is about to be sent: the last will in it.
    fn will(&mut self) -> Message;
    /// What is to be subscribed to, and whether retained messages are wanted.
    fn subscriptions(&self) -> (Vec<String>, bool);
    /// The connection is there.
    fn connected(&mut self, out: &mut Out<'_>);
    /// What a record of the spool becomes; `None`: not now.
    fn sending(&mut self, stream: Stream, record: &Record<'_>) -> Option<Sending>;
    /// What MQTT 5 says with every record: names and values, encoded.
    fn user_properties(&self) -> Vec<u8> {
        Vec::new()
    }
    /// A message came in.
    fn received(&mut self, message: Received, out: &mut Out<'_>);
    /// Something happened elsewhere, or time has passed: once in 50 ms at most.
    fn look(&mut self, out: &mut Out<'_>);
    /// A message that it has made is not sent: the broker does not take it.
    fn dropped(&mut self) {}
    /// Rings when [`Face::look`] is wanted at once.
    fn nudge(&self) -> Arc<Notify> {
        Arc::default()
    }
    /// How often [`Face::look`] is wanted anyway.
    fn look_every(&self) -> Duration {
        Duration::from_secs(1)
    }
    /// The last message before DISCONNECT, and whether the broker is to publish the will (MQTT 5).
    fn farewell(&mut self) -> (Option<Message>, bool);
}
