//! The books: every order that is remembered, by number and by key, and what events say became of it.

use super::HISTORY;
use super::form::{KindForm, OrderForm, StopForm};
use super::resume::doubt_name;
use super::words::{doubt_text, fault_name};
use crate::store::facts::{CLASS, Turned};
use control_core::event::{Event, EventKind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::{broadcast, oneshot};

/// Numbers of tenants that have orders; 0 is that of whoever says nothing.
const TENANTS: RangeInclusive<u16> = 1..=255;
/// Refused orders that are remembered, of all [`HISTORY`].
const REFUSED_KEPT: usize = 1000;

/// Where an order stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Handed to the control thread.
    #[default]
    Submitted,
    /// Taken; no machine yet.
    Accepted,
    /// A machine has been put to it.
    Running,
    /// After a restart plant and record disagree about it: a person has to decide.
    Held,
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
    pub found: bool,
    /// The key it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As it was asked for; nobody has asked for what the runtime does by itself.
    #[serde(skip)]
    pub asked: Option<Arc<Asked>>,
}

/// What an order was asked for as.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The request.
    pub form: OrderForm,
    /// Its digest: what a key stands for. One that a newer version wrote down may stand for more than the form says.
    pub digest: String,
}

/// A key that stands for another order than the one that came with it.
#[derive(Clone, Debug)]
pub struct Clash {
    /// The order it stands for.
    pub order: OrderView,
    /// What was asked for then, and now: as JSON.
    pub before: String,
    /// What was asked for now.
    pub now: String,
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Clash { order, before, now } = self;
        write!(
            f,
            "the key stands for order {}, asked for as {before}; now it came with {now}: give it a new key",
            order.id
        )
    }
}

pub(super) struct Books {
    pub(super) changes: broadcast::Sender<OrderView>,
    pub(super) orders: BTreeMap<u32, OrderView>,
    pub(super) keys: HashMap<String, u32>,
    pub(super) answers: HashMap<u32, oneshot::Sender<()>>,
    pub(super) next: u32,
    /// Tenants that have orders.
    pub(super) tenants: Numbers,
    /// Sequence groups that have orders.
    pub(super) groups: Numbers,
    /// Orders that were refused, the oldest first.
    refused: VecDeque<u32>,
}

/// Names that have orders, which the core knows by number: the number, and how many orders. A name that has none is not in it, so that
/// nobody fills it with names of orders that were refused.
pub(super) struct Numbers {
    named: HashMap<String, (u16, usize)>,
    range: RangeInclusive<u16>,
    next: u16,
}

impl Numbers {
    pub(super) fn within(range: RangeInclusive<u16>) -> Numbers {
        Numbers { named: HashMap::new(), next: *range.start(), range }
    }

    /// The number of a name, for one more order; none when all are taken.
    pub(super) fn enter(&mut self, name: &str) -> Option<u16> {
        if let Some((number, count)) = self.named.get_mut(name) {
            *count += 1;
            return Some(*number);
        }
        if self.named.len() >= self.range.len() {
            return None;
        }
        while self.named.values().any(|(number, _)| *number == self.next) {
            self.next = self.after(self.next);
        }
        let number = self.next;
        self.next = self.after(number);
        self.named.insert(name.into(), (number, 1));
        Some(number)
    }

    fn after(&self, number: u16) -> u16 {
        if number >= *self.range.end() { *self.range.start() } else { number + 1 }
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
            class: CLASS,
            due: None,
            tenant: None,
            group: None,
            number: None,
            after: None,
            state: OrderState::Submitted,
            reason: None,
            found: false,
            key: None,
            asked: None,
        }
    }

    /// Takes over what a form says.
    pub(super) fn taken_as(&mut self, form: &OrderForm, due: Option<String>) {
        let form = form.clone();
        self.stops = form.stops.unwrap_or_default();
        self.class = form.class.unwrap_or(CLASS);
        self.due = due;
        (self.tenant, self.group, self.number) = (form.tenant, form.group, form.number);
        (self.after, self.key) = (form.after, form.key);
    }

    /// Why a form is not what this order was asked for as, if it is not.
    pub(super) fn clash(&self, form: &OrderForm) -> Option<Clash> {
        let asked = self.asked.as_ref()?;
        let json = |form: &OrderForm| serde_json::to_string(form).unwrap_or_default();
        (asked.digest != form.wanted().digest()).then(|| Clash {
            order: self.clone(),
            before: json(&asked.form),
            now: json(form),
        })
    }

    /// Its state, as it is written down.
    pub(super) fn turned(&self) -> Turned {
        let reason = self.reason.as_deref().map(String::from);
        Turned { id: self.id, state: self.state.name().into(), reason, doubt: None }
    }

    /// Made by the runtime for itself.
    pub(super) fn is_own(&self) -> bool {
        self.found
    }
}

/// What an order may be given of the numbers that the core knows names by.
pub(super) struct Entered {
    pub(super) tenant: u8,
    pub(super) group: Option<u16>,
}

impl Books {
    pub(super) fn new(changes: broadcast::Sender<OrderView>, orders: BTreeMap<u32, OrderView>, next: u32) -> Books {
        let keys = orders.values().filter_map(|o| Some((o.key.clone()?, o.id))).collect();
        Books {
            changes,
            orders,
            keys,
            answers: HashMap::new(),
            next,
            tenants: Numbers::within(TENANTS),
            groups: Numbers::within(0..=u16::MAX),
            refused: VecDeque::new(),
        }
    }

    /// Numbers for one more order of this tenant and this group, for as long as it has not ended; whoever says no tenant is number 0.
    pub(super) fn enter_names(&mut self, tenant: Option<&str>, group: Option<&str>) -> Result<Entered, String> {
        let full =
            |what: &str, n: usize| format!("{what}: {n} have orders under way; try again when one has none left");
        let number = match tenant {
            None => 0,
            Some(name) => self.tenants.enter(name).ok_or_else(|| full("tenant", TENANTS.len()))?,
        };
        let group = match group.map(|name| self.groups.enter(name)) {
            Some(None) => {
                tenant.into_iter().for_each(|name| self.tenants.leave(name));
                return Err(full("group", self.groups.range.len()));
            }
            entered => entered.flatten(),
        };
        Ok(Entered { tenant: u8::try_from(number).unwrap_or(u8::MAX), group })
    }

    pub(super) fn enter(&mut self, view: OrderView) {
        let ended = || self.orders.values().find(|o| o.state.has_ended()).map(|o| o.id);
        if let Some(id) = Some(()).filter(|()| self.orders.len() >= HISTORY).and_then(|()| ended())
            && let Some(old) = self.orders.remove(&id)
            && let Some(key) = old.key
        {
            self.keys.remove(&key);
        }
        let _ = self.changes.send(view.clone());
        self.orders.insert(view.id, view);
    }

    fn is_new(&self, id: u32) -> bool {
        self.orders.get(&id).is_some_and(|o| o.state == OrderState::Submitted)
    }

    /// A refusal is not what the key stood for: the same key may be tried again.
    pub(super) fn forget_key(&mut self, id: u32) {
        if let Some(key) = self.orders.get(&id).and_then(|o| o.key.as_ref()) {
            self.keys.remove(key);
        }
    }

    /// Takes an event over; what is to be written down of it.
    pub(super) fn note(&mut self, event: &Event) -> Option<Turned> {
        let (id, state, reason) = match event.kind {
            EventKind::OrderAdopted(id, _) if self.is_new(id.0) => (id, OrderState::Accepted, None),
            EventKind::OrderHeld(id, doubt) => (id, OrderState::Held, Some(doubt_text(doubt))),
            EventKind::OrderReleased(id, _) => (id, OrderState::Running, None),
            EventKind::OrderAccepted(id, _) => (id, OrderState::Accepted, None),
            EventKind::OrderRejected(id, why) => (id, OrderState::Rejected, Some(fault_name(why))),
            EventKind::OrderStarted(id) => (id, OrderState::Running, None),
            EventKind::OrderCompleted(id) => (id, OrderState::Completed, None),
            EventKind::OrderFailed(id, why) => (id, OrderState::Failed, Some(fault_name(why))),
            EventKind::OrderFound { id, load, leaves } => {
                let kind = if leaves { KindForm::Retrieve } else { KindForm::Store };
                let (state, found) = (OrderState::Accepted, true);
                self.enter(OrderView { state, found, ..OrderView::new(id.0, kind, load.get()) });
                return None;
            }
            _ => return None,
        };
        let turned = self.turn(id.0, state, reason.map(Cow::Borrowed));
        if let Some(answer) = self.answers.remove(&id.0) {
            let _ = answer.send(());
        }
        let doubt = match event.kind {
            EventKind::OrderHeld(_, doubt) => Some(doubt_name(doubt).to_string()),
            _ => None,
        };
        turned.filter(|o| !o.is_own()).map(|o| Turned { doubt, ..o.turned() })
    }

    /// Another state of an order: the order, if it has taken it.
    pub(super) fn turn(&mut self, id: u32, state: OrderState, reason: Option<Cow<'static, str>>) -> Option<OrderView> {
        let mut turned = None;
        if let Some(order) = self.orders.get_mut(&id)
            // A number that is already in use is refused; the order that has it goes on.
            && !(state == OrderState::Rejected && order.state != OrderState::Submitted)
        {
            let ends = state.has_ended() && !order.state.has_ended();
            (order.state, order.reason) = (state, reason);
            let _ = self.changes.send(order.clone());
            if ends {
                order.group.iter().for_each(|group| self.groups.leave(group));
                order.tenant.iter().for_each(|tenant| self.tenants.leave(tenant));
            }
            turned = Some(order.clone());
        }
        if state == OrderState::Rejected {
            self.forget_key(id);
            if turned.is_some() {
                self.keep_few_refused(id);
            }
        }
        turned
    }

    /// Refused orders do not push out those that were done, and their keys with them.
    fn keep_few_refused(&mut self, id: u32) {
        self.refused.push_back(id);
        if self.refused.len() > REFUSED_KEPT
            && let Some(oldest) = self.refused.pop_front()
            && self.orders.get(&oldest).is_some_and(|o| o.state == OrderState::Rejected)
        {
            self.orders.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_number_for_as_long_as_it_has_orders() {
        let mut groups = Numbers { next: u16::MAX, ..Numbers::within(0..=u16::MAX) };
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

    #[test]
    fn numbers_go_round_within_their_range_and_end_where_all_are_taken() {
        let mut tenants = Numbers::within(1..=2);
        assert_eq!([tenants.enter("a"), tenants.enter("b"), tenants.enter("c")], [Some(1), Some(2), None]);
        tenants.leave("a");
        assert_eq!(tenants.enter("c"), Some(1));
    }
}
