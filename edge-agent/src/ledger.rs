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

use crate::desk::{HISTORY, OrderForm, OrderState, OrderView};
use crate::telemetry::spool::Journal;
use crate::trouble::Shared;
use serde::{Deserialize, Serialize};
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
    /// `None`: it cannot be opened, and takes nothing.
    journal: Option<Arc<Journal>>,
    /// Entries that this version does not understand: a newer one may.
    foreign: Arc<[Vec<u8>]>,
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
        let (recalled, foreign) = recall(entries);
        journal.compact(|| foreign.iter().cloned().chain(recalled.orders.iter().map(line)).collect())?;
        let ledger =
            Ledger { journal: Some(Arc::new(journal)), foreign: foreign.into(), is_compacting: Arc::default() };
        Ok((ledger, recalled))
    }

    /// A ledger that cannot be opened: control goes on, and orders are refused, because they cannot be written down.
    pub fn closed() -> Ledger {
        Ledger { journal: None, foreign: Arc::default(), is_compacting: Arc::default() }
    }

    /// Writes an order down. When this returns `Ok` it is durable.
    pub async fn write(&self, order: &OrderView) -> io::Result<()> {
        let closed = || io::Error::other("the order journal could not be opened at the start");
        self.journal.as_ref().ok_or_else(closed)?.record(line(order)).await
    }

    /// Writes down what has ended, beside: a crash in this moment makes it an order that was under way.
    pub fn note(&self, ended: Vec<OrderView>) {
        let Some(journal) = self.journal.clone() else { return };
        tokio::task::spawn_blocking(move || ended.iter().for_each(|order| drop(journal.append(&line(order)))));
    }

    /// Begins a new file with what `orders` gives, if the old one has become long.
    pub fn tend(&self, orders: impl FnOnce() -> Vec<OrderView> + Send + 'static) {
        let Some(journal) = self.journal.clone().filter(|j| j.bytes.load(Relaxed) >= FILE_MAX) else { return };
        if self.is_compacting.swap(true, Relaxed) {
            return;
        }
        let ledger = self.clone();
        tokio::task::spawn_blocking(move || {
            // What is in the file is in the books already: they change first.
            let foreign = ledger.foreign.iter().cloned();
            if let Err(e) =
                journal.compact(|| foreign.chain(orders().iter().filter(|o| is_kept(o)).map(line)).collect())
            {
                static TOO_LONG: Shared<io::ErrorKind> = Shared::new();
                if let Some(lasting) = TOO_LONG.is(e.kind()) {
                    tracing::warn!("the order journal cannot be shortened: {e}{lasting}");
                }
            }
            ledger.is_compacting.store(false, Relaxed);
        });
    }
}

/// An order as it is written down: with what was asked for under its key.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    order: &'a OrderView,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'a OrderForm>,
}

/// As it is read back.
#[derive(Deserialize)]
struct Kept {
    #[serde(flatten)]
    order: OrderView,
    asked: Option<OrderForm>,
}

fn line(order: &OrderView) -> Vec<u8> {
    serde_json::to_vec(&Written { order, asked: order.asked.as_deref() }).unwrap_or_default()
}

/// A refused order is none, and what the runtime does for itself it does again.
fn is_kept(order: &OrderView) -> bool {
    order.state != OrderState::Rejected && !order.found
}

/// What the entries say, and those that are not understood, word for word.
fn recall(entries: &[Vec<u8>]) -> (Recalled, Vec<Vec<u8>>) {
    let (mut orders, mut foreign) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        match serde_json::from_slice::<Kept>(entry) {
            Ok(Kept { order, asked }) => {
                drop(orders.insert(order.id, OrderView { asked: asked.map(Arc::new), ..order }))
            }
            Err(e) => {
                tracing::warn!("an entry of the order journal is not understood, and is kept as it is: {e}");
                foreign.push(entry.clone());
            }
        }
    }
    // What was refused is none, and pushes nothing out.
    orders.retain(|_, order| is_kept(order));
    let mut recalled = Recalled::default();
    let skipped = orders.len().saturating_sub(HISTORY);
    for mut order in orders.into_values().skip(skipped) {
        if !matches!(order.state, OrderState::Completed | OrderState::Failed) {
            (order.state, order.reason) = (OrderState::Failed, Some(Cow::Borrowed(RESTARTED)));
            recalled.interrupted.push(order.clone());
        }
        recalled.orders.push(order);
    }
    (recalled, foreign)
}
