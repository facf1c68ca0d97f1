//! The doors: where orders and writes from outside come in.

use super::memory::Memory;
use crate::commands::{CommandStats, Commands, WriteDesk};
use crate::config::Plan;
use crate::desk::Desk;
use crate::telemetry::mqtt::ANSWERS;
use crate::telemetry::mqtt::wire::Message;
use control_core::cycle::Request;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where orders and writes come in.
pub(super) struct Doors {
    /// Order desk.
    pub(super) desk: Arc<Desk>,
    /// The same where there is a floor to order on.
    pub(super) orders: Option<Arc<Desk>>,
    /// The door for writes.
    pub(super) writes: Arc<WriteDesk>,
    /// The door for MQTT and Sparkplug.
    pub(super) commands: Option<Arc<Commands>>,
    /// What that door answers, for the connection it goes over.
    pub(super) answers: Option<mpsc::Receiver<Message>>,
}

impl Doors {
    /// Opens them, with what earlier runs have left.
    pub(super) fn open(plan: &Plan, requests: rtrb::Producer<Request>, memory: &Memory) -> Doors {
        let Memory { keep, left, audit, .. } = memory;
        let desk = Desk::with(requests, plan.names().groups(), keep.clone(), left);
        let orders = plan.floor.is_some().then(|| desk.clone());
        let writes = Arc::new(WriteDesk::new(audit.clone(), &left.writes));
        let (answering, answers) = mpsc::channel(ANSWERS);
        let door = |p| Commands::new(p, writes.clone(), orders.clone(), audit.clone(), answering);
        let commands = plan.mqtt.as_ref().and_then(|m| m.commands.clone()).map(door);
        Doors { desk, orders, writes, commands, answers: Some(answers) }
    }

    /// Counters of the door for MQTT and Sparkplug.
    pub(super) fn command_stats(&self) -> Arc<CommandStats> {
        self.commands.as_ref().map_or_else(Arc::default, |c| c.stats.clone())
    }
}
