//! Orders as the store has them: written down before anybody acts on them, and read back as they were.

use super::books::{Asked, OrderState, OrderView};
use super::form::{KindForm, OrderForm, StopForm, due_text};
use crate::store::facts::{Taken, Wanted};
use crate::store::recall::OrderLeft;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl KindForm {
    const ALL: [KindForm; 4] = [KindForm::Store, KindForm::Retrieve, KindForm::Process, KindForm::Route];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            KindForm::Store => "store",
            KindForm::Retrieve => "retrieve",
            KindForm::Process => "process",
            KindForm::Route => "route",
        }
    }
}

impl OrderState {
    const ALL: [OrderState; 7] = [
        OrderState::Submitted,
        OrderState::Accepted,
        OrderState::Running,
        OrderState::Held,
        OrderState::Completed,
        OrderState::Rejected,
        OrderState::Failed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OrderState::Submitted => "submitted",
            OrderState::Accepted => "accepted",
            OrderState::Running => "running",
            OrderState::Held => "held",
            OrderState::Completed => "completed",
            OrderState::Rejected => "rejected",
            OrderState::Failed => "failed",
        }
    }

    /// Nothing becomes of it any more.
    pub fn has_ended(self) -> bool {
        matches!(self, OrderState::Completed | OrderState::Rejected | OrderState::Failed)
    }
}

impl OrderForm {
    /// As it is written down.
    pub(super) fn wanted(&self) -> Wanted {
        let form = self.clone();
        let stops = form.stops.map(|stops| stops.into_iter().map(|s| (s.at, s.program)).collect());
        Wanted {
            kind: form.kind.name().into(),
            load: form.load,
            program: form.program,
            station: form.station,
            stops,
            class: form.class,
            wait_s: form.wait_s,
            due: form.due,
            tenant: form.tenant,
            group: form.group,
            number: form.number,
            after: form.after,
            key: form.key,
        }
    }

    /// As it was written down; `None` for a kind of order that this version does not know.
    pub(super) fn of(wanted: Wanted) -> Option<OrderForm> {
        let kind = KindForm::ALL.into_iter().find(|kind| kind.name() == wanted.kind)?;
        let stop = |(at, program)| StopForm { at, program };
        Some(OrderForm {
            kind,
            load: wanted.load,
            program: wanted.program,
            station: wanted.station,
            stops: wanted.stops.map(|stops| stops.into_iter().map(stop).collect()),
            class: wanted.class,
            wait_s: wanted.wait_s,
            due: wanted.due,
            tenant: wanted.tenant,
            group: wanted.group,
            number: wanted.number,
            after: wanted.after,
            key: wanted.key,
        })
    }
}

impl OrderView {
    /// An order as the store has it; `None` for one of a kind that this version does not know.
    pub(super) fn recall(left: &OrderLeft) -> Option<OrderView> {
        let Taken { id, wanted, digest, due_ms } = left.taken.clone();
        let form = OrderForm::of(wanted)?;
        let mut view = OrderView::new(id, form.kind, form.load);
        view.taken_as(&form, due_ms.map(|ms| due_text(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))));
        view.state = OrderState::ALL.into_iter().find(|s| s.name() == left.state()).unwrap_or_default();
        view.reason = left.reason.clone().map(Into::into);
        view.class = left.class.unwrap_or(view.class);
        view.asked = Some(Arc::new(Asked { form, digest }));
        Some(view)
    }
}
