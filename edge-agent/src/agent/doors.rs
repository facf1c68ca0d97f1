//! The doors: where orders and writes from outside come in, and the records of both.

use crate::commands::{Audit, CommandStats, Commands, WriteDesk};
use crate::config::Plan;
use crate::desk::{Desk, OrderView};
use crate::ledger::{Ledger, Recalled};
use crate::state::Unusable;
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
    /// Orders that were under way when the gateway ended.
    pub(super) interrupted: Vec<OrderView>,
    /// The door for writes.
    pub(super) writes: Arc<WriteDesk>,
    /// What was commanded.
    pub(super) audit: Arc<Audit>,
    /// The door for MQTT and Sparkplug.
    pub(super) commands: Option<Arc<Commands>>,
    /// What that door answers, for the connection it goes over.
    pub(super) answers: Option<mpsc::Receiver<Message>>,
}

impl Doors {
    /// Opens them. Where a record cannot be opened, control goes on without.
    pub(super) fn open(plan: &Plan, requests: rtrb::Producer<Request>, unusable: &mut Unusable) -> Doors {
        let (ledger, known) = open_ledger(plan, unusable);
        let interrupted = known.interrupted.clone();
        if !interrupted.is_empty() {
            tracing::warn!("{} orders were under way when the gateway ended: they have failed", interrupted.len());
        }
        let desk = Desk::with(requests, plan.names().groups(), ledger, known);
        let orders = plan.floor.is_some().then(|| desk.clone());
        let (audit, known) = match plan.is_kept.then(|| Audit::open(&plan.state_dir)) {
            Some(Ok(opened)) => opened,
            Some(Err(why)) => {
                unusable.push(("commands", format!("{why}; what is commanded is in the log only")));
                (Audit::none(), Vec::new())
            }
            None => (Audit::none(), Vec::new()),
        };
        let audit = Arc::new(audit);
        let writes = Arc::new(WriteDesk::new(audit.clone(), &known));
        let (answering, answers) = mpsc::channel(ANSWERS);
        let door = |p| Commands::new(p, writes.clone(), orders.clone(), audit.clone(), answering);
        let commands = plan.mqtt.as_ref().and_then(|m| m.commands.clone()).map(door);
        Doors { desk, orders, interrupted, writes, audit, commands, answers: Some(answers) }
    }

    /// Counters of the door for MQTT and Sparkplug.
    pub(super) fn command_stats(&self) -> Arc<CommandStats> {
        self.commands.as_ref().map_or_else(Arc::default, |c| c.stats.clone())
    }
}

/// The ledger of a gateway that has a floor and is kept.
fn open_ledger(plan: &Plan, unusable: &mut Unusable) -> (Option<Ledger>, Recalled) {
    let reserve = plan.mqtt.as_ref().map_or(0, |m| m.spool.reserve);
    let kept = plan.floor.is_some() && plan.is_kept;
    match kept.then(|| Ledger::open(&plan.state_dir.join("orders"), reserve)) {
        Some(Ok((ledger, known))) => (Some(ledger), known),
        Some(Err(why)) => {
            unusable.push(("orders", format!("{why}; no order is taken")));
            (Some(Ledger::closed()), Recalled::default())
        }
        None => Default::default(),
    }
}
