//! The ledger: what has to be known of orders after the gateway's own end, whatever ended it.
//!
//! ```text
//!   order ──> ledger: durable ──> control thread ──> answer          nobody acts on an order that is not written down
//!   ended ──> ledger
//!   start <── ledger: numbers go on, keys stay, what was under way has FAILED and says so
//! ```
//!
//! An order that was under way is not begun again by itself: where its load is now only the plant knows, and half of it may be done. The
//! same key after a restart is still the same order, so nothing that is asked for twice is done twice.

use crate::desk::{HISTORY, OrderState, OrderView};
use crate::telemetry::spool::Journal;
use crate::trouble::Shared;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The file begins anew after so many bytes: ten times what [`HISTORY`] orders take.
const FILE_MAX: u64 = 32 << 20;
/// Why an order has failed that was under way.
pub const RESTARTED: &str = "the gateway ended while it was under way; see where the load is, then order again";

/// What is written down of orders.
#[derive(Clone)]
pub struct Ledger {
    journal: Arc<Journal>,
    is_compacting: Arc<AtomicBool>,
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Orders, as they are now.
    pub orders: Vec<OrderView>,
    /// Those of them that were under way.
    pub interrupted: Vec<OrderView>,
}

impl Ledger {
    /// Opens the ledger in a folder; telemetry cannot take `reserve` bytes of its disk from it. Blocks.
    pub fn open(folder: &Path, reserve: u64) -> Result<(Ledger, Recalled), String> {
        let (journal, entries) = Journal::start(folder, reserve)?;
        Ledger::with(journal, &entries).map_err(|e| format!("the order journal in {}: {e}", folder.display()))
    }

    /// A ledger in a journal that has these entries.
    pub fn with(journal: Journal, entries: &[Vec<u8>]) -> io::Result<(Ledger, Recalled)> {
        let recalled = recall(entries);
        let ledger = Ledger { journal: Arc::new(journal), is_compacting: Arc::default() };
        ledger.journal.compact(|| recalled.orders.iter().map(line).collect())?;
        Ok((ledger, recalled))
    }

    /// Writes an order down. When this returns `Ok` it is durable.
    pub async fn write(&self, order: &OrderView) -> io::Result<()> {
        self.journal.record(line(order)).await
    }

    /// Writes down what has ended, beside: a crash in this moment makes it an order that was under way.
    pub fn note(&self, ended: Vec<OrderView>) {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || ended.iter().for_each(|order| drop(journal.append(&line(order)))));
    }

    /// Begins a new file with what `orders` gives, if the old one has become long.
    pub fn tend(&self, orders: impl FnOnce() -> Vec<OrderView> + Send + 'static) {
        if self.journal.bytes.load(Relaxed) < FILE_MAX || self.is_compacting.swap(true, Relaxed) {
            return;
        }
        let ledger = self.clone();
        tokio::task::spawn_blocking(move || {
            // What is in the file is in the books already: they change first.
            if let Err(e) = ledger.journal.compact(|| orders().iter().filter(|o| is_kept(o)).map(line).collect()) {
                static TOO_LONG: Shared<io::ErrorKind> = Shared::new();
                if let Some(lasting) = TOO_LONG.is(e.kind()) {
                    tracing::warn!("the order journal cannot be shortened: {e}{lasting}");
                }
            }
            ledger.is_compacting.store(false, Relaxed);
        });
    }
}

fn line(order: &OrderView) -> Vec<u8> {
    serde_json::to_vec(order).unwrap_or_default()
}

/// A refused order is none, and what the runtime does for itself it does again.
fn is_kept(order: &OrderView) -> bool {
    order.state != OrderState::Rejected && !order.adopted
}

fn recall(entries: &[Vec<u8>]) -> Recalled {
    let mut orders = BTreeMap::new();
    for entry in entries {
        match serde_json::from_slice::<OrderView>(entry) {
            Ok(order) => drop(orders.insert(order.id, order)),
            Err(e) => tracing::warn!("an entry of the order journal is not understood: {e}"),
        }
    }
    let mut recalled = Recalled::default();
    let skipped = orders.len().saturating_sub(HISTORY);
    for mut order in orders.into_values().skip(skipped).filter(is_kept) {
        if !matches!(order.state, OrderState::Completed | OrderState::Failed) {
            (order.state, order.reason) = (OrderState::Failed, Some(Cow::Borrowed(RESTARTED)));
            recalled.interrupted.push(order.clone());
        }
        recalled.orders.push(order);
    }
    recalled
}
