//! Places that are closed to mobile robots while the floor runs: a spill, a pallet that fell, somebody at work.
//!
//! ```text
//!   close(place) ──> distances measured anew, beside ──> ring ──> control thread: the next cycle plans on it
//!                                                  <── ring ── the floor it replaces, to be given back here
//! ```
//!
//! Nobody is sent into a closed place any more; who was told to go there already drives through, who stands there drives out. Closed
//! places are not kept: after a restart all are open.

use control_core::traffic::roads::Place;
use floor_plan::FloorPlan;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Floors on their way to the control thread, and back.
pub const RING: usize = 2;

struct State {
    closed: BTreeSet<Place>,
    generation: u32,
    floors: rtrb::Producer<Arc<FloorPlan>>,
    spent: rtrb::Consumer<Arc<FloorPlan>>,
}

/// The closed places of a floor.
pub struct Closings {
    plan: Arc<FloorPlan>,
    state: Mutex<State>,
}

/// Why a place was not closed or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such place.
    Unknown,
    /// The control thread has yet to take the last change over.
    Busy,
}

impl Closings {
    /// All places of a floor, open.
    pub fn new(
        plan: Arc<FloorPlan>,
        floors: rtrb::Producer<Arc<FloorPlan>>,
        spent: rtrb::Consumer<Arc<FloorPlan>>,
    ) -> Closings {
        Closings { plan, state: Mutex::new(State { closed: BTreeSet::new(), generation: 0, floors, spent }) }
    }

    /// The places that are closed, by name or number.
    pub fn closed(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed.iter().map(|p| self.name(*p)).collect()
    }

    fn name(&self, place: Place) -> String {
        self.plan.place_names.get(&place).cloned().unwrap_or_else(|| place.to_string())
    }

    /// Closes a place, or opens it again; names are those of the floor file, else numbers. Measures all distances: blocks for as long as
    /// that takes.
    pub fn set(&self, name: &str, closed: bool) -> Result<(), Refused> {
        let place = self.plan.place(name).ok_or(Refused::Unknown)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.spent.pop().is_ok() {}
        if state.closed.contains(&place) == closed {
            return Ok(());
        }
        if state.floors.is_full() {
            return Err(Refused::Busy);
        }
        let mut next = state.closed.clone();
        if closed {
            next.insert(place);
        } else {
            next.remove(&place);
        }
        state.generation = state.generation.wrapping_add(1);
        let floor = Arc::new(self.plan.with_closed(&next, state.generation));
        state.floors.push(floor).map_err(|_| Refused::Busy)?;
        state.closed = next;
        Ok(())
    }
}
