//! The memory: the store, and what earlier runs have left in it. The same for every room: each takes its part at the start.

use crate::absent::Absent;
use crate::audit::Audit;
use crate::config::Plan;
use crate::state::Unusable;
use crate::store::{Keep, Recalled, Stands};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What is kept, and what was.
pub(super) struct Memory {
    /// Where things are written down.
    pub(super) keep: Keep,
    /// What earlier runs have left.
    pub(super) left: Recalled,
    /// Who did what.
    pub(super) audit: Arc<Audit>,
    /// Robots of which a person says that they are not on the floor.
    pub(super) absent: Arc<Absent>,
    /// What is missing of the store, if something is.
    pub(super) missing: Option<String>,
}

impl Memory {
    /// Opens the store. Without one that can be opened nothing is promised, and control goes on.
    pub(super) fn open(plan: &Plan, unusable: &mut Unusable) -> Memory {
        let reserve = plan.mqtt.as_ref().map_or(0, |m| m.spool.reserve);
        let (keep, left, missing) = match plan.is_kept.then(|| Keep::open(&plan.state_dir, reserve)) {
            Some(Ok((keep, left, opened))) => (keep, left, opened.told()),
            Some(Err(why)) => {
                unusable.push(("store", format!("{why}; no order is taken, and what people do is in the log only")));
                (Keep::closed(), Recalled::default(), None)
            }
            None => Default::default(),
        };
        let audit = Arc::new(Audit::new(keep.clone(), left.did.clone(), plan.access.audit_is_required));
        let absent = Arc::new(Absent::new(keep.clone(), &left));
        Memory { keep, left, audit, absent, missing }
    }

    /// Writes what nobody waits for, and snapshots of what the rooms stand on.
    pub(super) fn tend(&self, rooms: Vec<Arc<dyn Stands>>) -> JoinHandle<()> {
        let own: [Arc<dyn Stands>; 2] = [self.audit.clone(), self.absent.clone()];
        tokio::spawn(self.keep.clone().tend(own.into_iter().chain(rooms).collect()))
    }
}

/// Writes what is left to be written, for so long; what the disk does not take is in the log.
pub(super) async fn end(keep: Keep, within: Duration) {
    let _ = tokio::time::timeout(within, keep.settle()).await;
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
