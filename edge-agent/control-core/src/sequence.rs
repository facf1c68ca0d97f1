//! The sequence rule: loads of a group leave the rack in the order of their numbers.
//!
//! One group at a time is brought out, the one whose first order was taken first; of it each tier brings its loads in their
//! order, and the lift takes the one whose turn it is. Lanes are first in, first out, so the next one is always the first of its
//! lane or on its way there: nothing can lock. With two groups at once it could, each having what the other waits for behind
//! its own.

use crate::order::{Order, Orders};
use crate::units::Taken;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequence {
    /// The group that is brought out, and the number that leaves next.
    front: Option<(u16, u16)>,
    known: bool,
}

impl Sequence {
    /// Something has changed.
    pub(crate) fn look_again(&mut self) {
        self.known = false;
    }

    /// Finds out whose turn it is, if something has changed. Looks at all orders.
    pub(crate) fn find(&mut self, orders: &Orders<'_>) {
        if self.known {
            return;
        }
        self.known = true;
        let waiting = || orders.iter().filter_map(|(_, o)| Some((o.request.sequence?, o.accepted_at, o.request.id)));
        let begun = self.front.map(|(group, _)| group).filter(|g| waiting().any(|((group, _), ..)| group == *g));
        let oldest = || waiting().min_by_key(|(_, at, id): &(_, Taken, _)| (*at, *id)).map(|((group, _), ..)| group);
        let group = begun.or_else(oldest);
        self.front = group.and_then(|g| {
            waiting().filter(|((group, _), ..)| *group == g).map(|((_, number), ..)| number).min().map(|n| (g, n))
        });
    }

    /// Whether a shuttle may bring this one out, as far as its group is concerned.
    pub(crate) fn may_come(&self, order: &Order) -> bool {
        order.request.sequence.is_none_or(|(group, _)| self.front.is_some_and(|(g, _)| g == group))
    }

    /// Whether the lift may take it.
    pub(crate) fn may_leave(&self, order: &Order) -> bool {
        order.request.sequence.is_none_or(|of_order| self.front == Some(of_order))
    }
}
