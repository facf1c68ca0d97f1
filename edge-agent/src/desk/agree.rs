//! Desk and core agree: what the books say of orders is compared with what the core has, once a second. An event that did not fit into the ring
//! can so not leave an order "running" for ever.
//!
//! ```text
//!   books: open      core: not there, at two looks in a row   ──> failed: nobody knows how it ended
//!   books: accepted  core: a machine has been put to it       ──> running
//!   books: handed in core: there                              ──> accepted
//! ```

use super::books::OrderState;
use super::{Desk, lock};
use crate::control::{OrderShown, ShownDesk};
use crate::trouble::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often they are compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Why an order has failed of which the core knows nothing any more.
const UNHEARD: &str = "it has ended, and word of how was lost; see where the load is";

impl Desk {
    /// Compares the books with what the core has, for as long as it lives.
    pub async fn keep_agreeing(self: Arc<Self>, shown: Arc<ShownDesk>) {
        let (mut ticks, mut gone) = (tokio::time::interval(LOOK_EVERY), BTreeSet::new());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some(orders) = shown.look(|s| s.orders().map(<[OrderShown]>::to_vec)) {
                gone = self.agree(&orders, &gone);
            }
        }
    }

    /// Takes over what the core has; `gone` is what was missing there the last time. Returns what is missing now.
    pub fn agree(&self, core: &[OrderShown], gone: &BTreeSet<u32>) -> BTreeSet<u32> {
        let core: BTreeMap<u32, bool> = core.iter().map(|o| (o.id.0, o.started)).collect();
        let mut books = lock(&self.books);
        // One whose answer is waited for may be on its way to the core.
        let open = books.orders.values().filter(|o| !o.state.has_ended() && !books.answers.contains_key(&o.id));
        let open: Vec<(u32, OrderState)> = open.map(|o| (o.id, o.state)).collect();
        let mut missing = BTreeSet::new();
        for (id, state) in open {
            let turned = match (core.get(&id), state) {
                (None, _) if gone.contains(&id) => Some((OrderState::Failed, Some(UNHEARD.into()))),
                (None, _) => {
                    missing.insert(id);
                    None
                }
                (Some(true), OrderState::Submitted | OrderState::Accepted) => Some((OrderState::Running, None)),
                (Some(false), OrderState::Submitted) => Some((OrderState::Accepted, None)),
                _ => None,
            };
            let Some((state, why)) = turned else { continue };
            self.reconciled.fetch_add(1, Relaxed);
            static LOST: Shared<&str> = Shared::new();
            if let Some(lasting) = LOST.is(state.name()) {
                tracing::error!(order = id, "word of the order was lost: it is {}{lasting}", state.name());
            }
            let order = books.turn(id, state, why).filter(|o| !o.is_own());
            order.into_iter().for_each(|order| self.keep.note(order.turned()));
        }
        missing
    }
}
