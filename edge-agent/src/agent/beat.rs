//! The control thread as the agent holds it: how it is told to come to an end, and how that is waited for.

use crate::clock::Clock;
use crate::config::{FloorSetup, Plan};
use crate::control::{self, ControlStats, Wires};
use control_core::event::RunState;
use control_core::resume::Resume;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The control thread; without a floor there is none.
pub(super) struct Beat {
    thread: Option<JoinHandle<()>>,
    stats: Arc<ControlStats>,
    drain: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    drain_limit: Duration,
}

impl Beat {
    /// Starts it, with the orders that go on.
    pub(super) fn start(plan: &Plan, resumes: Vec<Resume>, clock: Clock, wires: Wires) -> Result<Beat, String> {
        let (stats, drain, stop) = (wires.stats.clone(), wires.drain.clone(), wires.stop.clone());
        let start = |f: &FloorSetup| control::start(&plan.control, f.plan.clone(), f.orders, resumes, clock, wires);
        let thread = plan.floor.as_ref().map(start).transpose()?;
        Ok(Beat { thread, stats, drain, stop, drain_limit: plan.drain })
    }

    /// Whether orders are taken.
    pub(super) fn is_ready(&self) -> bool {
        self.thread.is_none() || matches!(self.stats.run_state(), RunState::Running | RunState::Degraded)
    }

    async fn bring_machines_to_rest(&self) {
        tracing::info!("stopping: machines finish what they are doing");
        self.drain.store(true, Relaxed);
        let deadline = Instant::now() + self.drain_limit;
        while self.is_ready() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.is_ready() {
            tracing::warn!(
                "machines did not finish within {:?}; authority is withdrawn nevertheless",
                self.drain_limit
            );
        }
    }

    /// Brings what moves to its end, and withdraws authority.
    pub(super) async fn end(self) {
        if self.thread.is_some() {
            self.bring_machines_to_rest().await;
        }
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
