//! Orders of an earlier run that had not ended: they go on. Where the load of each is, the plant says; what was left to do, the store.

use super::books::{Books, Entered, OrderState};
use super::form::{Checked, OrderForm, check};
use super::{Desk, lock};
use crate::config::plan::FloorNames;
use crate::store::Recalled;
use crate::store::recall::OrderLeft;
use control_core::order::OrderRequest;
use control_core::resume::{Doubt, Resume};
use control_core::units::{OrderId, PosId};
use std::collections::HashMap;

/// Doubts as they are written down.
const DOUBTS: [(Doubt, &str); 4] = [
    (Doubt::Elsewhere, "elsewhere"),
    (Doubt::Gone, "gone"),
    (Doubt::Twice, "twice"),
    (Doubt::NoSuchPlace, "no such place"),
];

/// A doubt as it is written down.
pub(super) fn doubt_name(doubt: Doubt) -> &'static str {
    DOUBTS.iter().find(|(d, _)| *d == doubt).map_or("gone", |(_, name)| name)
}

/// Positions by name.
struct Places(HashMap<String, PosId>);

impl Places {
    /// A place that the store names. `Err`: this floor has none of that name any more.
    fn find(&self, name: Option<&String>) -> Result<Option<PosId>, Doubt> {
        name.map(|name| self.0.get(name).copied().ok_or(Doubt::NoSuchPlace)).transpose()
    }
}

impl Desk {
    /// What the control thread has to be told of orders that had not ended, at `now_ms`, milliseconds since 1970 UTC. One that cannot be meant on
    /// this floor any more is given up.
    pub fn resume(&self, left: &Recalled, names: &FloorNames, now_ms: u64) -> Vec<Resume> {
        let places = Places(names.positions().map(|(pos, name)| (name, pos)).collect());
        let mut books = lock(&self.books);
        let open: Vec<u32> = books.orders.values().filter(|o| !o.state.has_ended()).map(|o| o.id).collect();
        let mut resumes = Vec::new();
        for (id, order) in open.into_iter().filter_map(|id| Some((id, left.orders.get(&id)?))) {
            match resume_one(&mut books, (id, order), &self.stations, &places, now_ms) {
                Ok(resume) => resumes.push(resume),
                Err(why) => {
                    tracing::error!(order = id, "the order cannot go on after the restart: {why}");
                    let failed = books.turn(id, OrderState::Failed, Some(why.into()));
                    failed.into_iter().for_each(|order| self.keep.note(order.turned()));
                }
            }
        }
        resumes
    }
}

fn resume_one(
    books: &mut Books,
    (id, order): (u32, &OrderLeft),
    stations: &[String],
    places: &Places,
    now_ms: u64,
) -> Result<Resume, String> {
    let form = OrderForm::of(order.taken.wanted.clone()).ok_or("it is of a kind that this version does not know")?;
    // When it is due is known; what was said, as `10m`, counted from then.
    let Checked { load, stops, wait_ms, .. } = check(&OrderForm { due: None, ..form.clone() }, stations)?;
    let Entered { tenant, group } = books.enter_names(form.tenant.as_deref(), form.group.as_deref())?;
    let after_taken = |due: u64| u32::try_from(due.saturating_sub(order.since_ms)).unwrap_or(u32::MAX).max(1);
    let request = OrderRequest {
        class: order.class.unwrap_or_else(|| form.class.unwrap_or(crate::store::facts::CLASS)),
        due_ms: order.taken.due_ms.map_or(0, after_taken),
        wait_ms,
        tenant,
        sequence: group.map(|group| (group, form.number.unwrap_or(0))),
        after: form.after.map(OrderId),
        ..OrderRequest::new(OrderId(id), load, stops)
    };
    let (at, to) = (places.find(order.at.as_ref()), places.find(order.to.as_ref()));
    let named = order.doubt.as_ref().filter(|_| order.state() == "held");
    let held =
        named.map(|named| DOUBTS.iter().find(|(_, name)| name == named).map_or(Doubt::Gone, |(doubt, _)| *doubt));
    Ok(Resume {
        request,
        age_ms: now_ms.saturating_sub(order.since_ms),
        stop: order.stops,
        started: order.reached("running").is_some(),
        withdrawn: order.withdrawn.is_some(),
        held: held.or(at.err()).or(to.err()),
        at: at.unwrap_or_default(),
        to: to.unwrap_or_default(),
    })
}
