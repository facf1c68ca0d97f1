//! The books: every order that is remembered, by number and by key, and what events say became of it.

use super::HISTORY;
use super::form::{KindForm, StopForm};
use super::words::fault_name;
use control_core::event::{Event, EventKind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::{broadcast, oneshot};

/// Tenants there may be; the first number is that of whoever says nothing.
const TENANTS_MAX: usize = 255;

/// Where an order stands.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Handed to the control thread.
    Submitted,
    /// Taken; no machine yet.
    Accepted,
    /// A machine has been put to it.
    Running,
    /// Done.
    Completed,
    /// Refused.
    Rejected,
    /// Given up.
    Failed,
}

/// An order and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OrderView {
    /// Its number.
    pub id: u32,
    /// What is wanted.
    pub kind: KindForm,
    /// Which load.
    pub load: u32,
    /// Where the load goes, of a `route`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<StopForm>,
    /// 0 rush .. 3 bulk.
    pub class: u8,
    /// When it shall be done, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its sequence group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its number within the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Not begun before this one has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// Where it stands.
    pub state: OrderState,
    /// Why it was refused or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Made by the runtime for a load that stood in the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// The key it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

pub(super) struct Books {
    pub(super) changes: broadcast::Sender<OrderView>,
    pub(super) orders: BTreeMap<u32, OrderView>,
    pub(super) keys: HashMap<String, u32>,
    pub(super) answers: HashMap<u32, oneshot::Sender<()>>,
    pub(super) next: u32,
    /// Names of tenants; the number of one is its place, from 1.
    pub(super) tenants: Vec<String>,
    pub(super) groups: Groups,
}

/// Sequence groups that have orders, by name: their number, and how many orders.
#[derive(Default)]
pub(super) struct Groups {
    named: HashMap<String, (u16, usize)>,
    next: u16,
}

impl Groups {
    /// The number of a group, for one more order.
    pub(super) fn enter(&mut self, name: &str) -> Option<u16> {
        if let Some((number, count)) = self.named.get_mut(name) {
            *count += 1;
            return Some(*number);
        }
        if self.named.len() >= usize::from(u16::MAX) {
            return None;
        }
        while self.named.values().any(|(number, _)| *number == self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.named.insert(name.into(), (number, 1));
        Some(number)
    }

    /// One of its orders has ended.
    pub(super) fn leave(&mut self, name: &str) {
        if let Some((_, count)) = self.named.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.named.remove(name);
            }
        }
    }
}

impl OrderView {
    /// An order that has just been handed in; class 1, nothing else said.
    pub(super) fn new(id: u32, kind: KindForm, load: u32) -> OrderView {
        OrderView {
            id,
            kind,
            load,
            stops: Vec::new(),
            class: 1,
            due: None,
            tenant: None,
            group: None,
            number: None,
            after: None,
            state: OrderState::Submitted,
            reason: None,
            adopted: false,
            key: None,
        }
    }
}

impl Books {
    /// The number of a tenant; whoever says none is number 0.
    pub(super) fn tenant(&mut self, name: Option<&str>) -> Result<u8, String> {
        let Some(name) = name else { return Ok(0) };
        let n = match self.tenants.iter().position(|t| t == name) {
            Some(n) => n,
            None if self.tenants.len() < TENANTS_MAX => {
                self.tenants.push(name.into());
                self.tenants.len() - 1
            }
            None => return Err(format!("tenant: there are {TENANTS_MAX} already")),
        };
        Ok(u8::try_from(n + 1).unwrap_or(u8::MAX))
    }

    pub(super) fn enter(&mut self, view: OrderView) {
        if self.orders.len() >= HISTORY {
            let ended =
                |o: &&OrderView| matches!(o.state, OrderState::Completed | OrderState::Rejected | OrderState::Failed);
            if let Some(id) = self.orders.values().find(ended).map(|o| o.id)
                && let Some(old) = self.orders.remove(&id)
                && let Some(key) = old.key
            {
                self.keys.remove(&key);
            }
        }
        let _ = self.changes.send(view.clone());
        self.orders.insert(view.id, view);
    }

    /// A refusal is not what the key stood for: the same key may be tried again.
    pub(super) fn forget_key(&mut self, id: u32) {
        if let Some(key) = self.orders.get(&id).and_then(|o| o.key.as_ref()) {
            self.keys.remove(key);
        }
    }

    /// Takes an event over; the order that has ended with it, if one has.
    pub(super) fn note(&mut self, event: &Event) -> Option<OrderView> {
        let (id, state, reason) = match event.kind {
            EventKind::OrderAccepted(id, _) => (id, OrderState::Accepted, None),
            EventKind::OrderRejected(id, why) => (id, OrderState::Rejected, Some(fault_name(why))),
            EventKind::OrderStarted(id) => (id, OrderState::Running, None),
            EventKind::OrderCompleted(id) => (id, OrderState::Completed, None),
            EventKind::OrderFailed(id, why) => (id, OrderState::Failed, Some(fault_name(why))),
            EventKind::OrderAdopted { id, load, leaves } => {
                let kind = if leaves { KindForm::Retrieve } else { KindForm::Store };
                let (state, adopted) = (OrderState::Accepted, true);
                self.enter(OrderView { state, adopted, ..OrderView::new(id.0, kind, load.get()) });
                return None;
            }
            _ => return None,
        };
        let turned = self.turn(id.0, state, reason);
        if let Some(answer) = self.answers.remove(&id.0) {
            let _ = answer.send(());
        }
        turned.filter(|o| matches!(o.state, OrderState::Completed | OrderState::Rejected | OrderState::Failed))
    }

    /// Another state of an order: the order, if it has taken it.
    pub(super) fn turn(&mut self, id: u32, state: OrderState, reason: Option<&'static str>) -> Option<OrderView> {
        let mut turned = None;
        if let Some(order) = self.orders.get_mut(&id)
            // A number that is already in use is refused; the order that has it goes on.
            && !(state == OrderState::Rejected && order.state != OrderState::Submitted)
        {
            (order.state, order.reason) = (state, reason.map(Cow::Borrowed));
            let _ = self.changes.send(order.clone());
            if let Some(group) = order.group.as_ref().filter(|_| crate::live::frames::has_ended(state)) {
                self.groups.leave(group);
            }
            turned = Some(order.clone());
        }
        if state == OrderState::Rejected {
            self.forget_key(id);
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_number_for_as_long_as_it_has_orders() {
        let mut groups = Groups { next: u16::MAX, ..Groups::default() };
        assert_eq!(
            [groups.enter("a"), groups.enter("b"), groups.enter("a")],
            [Some(u16::MAX), Some(0), Some(u16::MAX)]
        );
        groups.leave("a");
        assert_eq!(groups.enter("a"), Some(u16::MAX), "one of two is left");
        groups.leave("a");
        groups.leave("a");
        groups.next = 0;
        assert_eq!(groups.enter("c"), Some(1), "0 is b's");
        assert_eq!(groups.named.len(), 2, "nothing is kept of a group that has ended");
    }
}
