//! What is closed while the floor runs: places and roads, to mobile robots (a spill, a pallet that fell, a door that stays shut); zones, to
//! loads (a tier or a belt somebody works at).
//!
//! ```text
//!   close(place) ──> distances measured anew, beside ──> ring ──> control thread: the next cycle plans on it
//!                                                  <── ring ── the floor it replaces, to be given back here
//! ```
//!
//! Nobody is sent into a closed place or along a closed road any more; who was told to go there already drives through, who stands there drives out. Nothing is
//! brought to a closed zone or taken from it; what a machine is doing there it brings to its end, loads on their way are brought elsewhere,
//! and those inside wait. What a person has closed stays closed after a restart. It is no safeguard for people: that is a key switch.

use crate::store::{Fact, Keep, Recalled, Stands, facts};
use control_core::floor::ZoneKind;
use control_core::units::ZoneId;
use floor_plan::FloorPlan;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use utoipa::ToSchema;

/// Floors on their way to the control thread, and back.
pub const RING: usize = 2;

struct State {
    closed: floor_plan::Closed,
    generation: u32,
    floors: rtrb::Producer<Arc<FloorPlan>>,
    spent: rtrb::Consumer<Arc<FloorPlan>>,
}

/// What is closed, by the names of the floor file; places without one as `place-7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Closed {
    /// Places, closed to mobile robots.
    pub places: Vec<String>,
    /// Roads between two places beside each other, closed to mobile robots: `A..B`.
    pub roads: Vec<String>,
    /// Zones, closed to loads.
    pub zones: Vec<String>,
}

/// What is to be closed, or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A place of the roads.
    Place,
    /// A road between two places, in both directions.
    Road,
    /// A tier, or a belt.
    Zone,
}

/// The closings of a floor.
pub struct Closings {
    plan: Arc<FloorPlan>,
    /// Held while distances are measured.
    state: Mutex<State>,
    /// What is closed: whoever looks waits for nobody who measures.
    told: Mutex<Closed>,
    /// Of an earlier run, and not in this floor: closed again when there is something of that name.
    unknown: Vec<(String, String)>,
    keep: Keep,
}

impl What {
    const ALL: [What; 3] = [What::Place, What::Road, What::Zone];

    fn name(self) -> &'static str {
        match self {
            What::Place => "place",
            What::Road => "road",
            What::Zone => "zone",
        }
    }
}

/// Why something was not closed or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is nothing of this name.
    Unknown,
    /// The control thread has yet to take the last change over.
    Busy,
}

impl Closings {
    /// A floor where everything is open.
    pub fn new(
        plan: Arc<FloorPlan>,
        floors: rtrb::Producer<Arc<FloorPlan>>,
        spent: rtrb::Consumer<Arc<FloorPlan>>,
    ) -> Closings {
        let state = State { closed: floor_plan::Closed::default(), generation: 0, floors, spent };
        let (told, unknown, keep) = Default::default();
        Closings { plan, state: Mutex::new(state), told, unknown, keep }
    }

    /// With what an earlier run has left closed; what is closed from now on is written down.
    pub fn recalling(mut self, keep: Keep, left: &Recalled) -> Closings {
        self.keep = keep;
        let mut closed = floor_plan::Closed::default();
        for (what, name) in &left.closed {
            let found = What::ALL.into_iter().find(|w| w.name() == what);
            if found.is_none_or(|found| self.toggle(&mut closed, found, name, true).is_err()) {
                tracing::warn!("{what} {name} was closed, and is not in this floor");
                self.unknown.push((what.clone(), name.clone()));
            }
        }
        if closed != floor_plan::Closed::default() {
            // The ring is empty: nothing has been closed before.
            let _ = self.take(&mut self.lock(), closed);
        }
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn toggle(&self, now: &mut floor_plan::Closed, what: What, name: &str, closed: bool) -> Result<bool, Refused> {
        Ok(match what {
            What::Place => toggle(&mut now.places, self.plan.place(name).ok_or(Refused::Unknown)?, closed),
            What::Road => toggle(&mut now.roads, self.plan.road(name).ok_or(Refused::Unknown)?, closed),
            What::Zone => toggle(&mut now.zones, self.zone(name).ok_or(Refused::Unknown)?, closed),
        })
    }

    /// What is closed.
    pub fn closed(&self) -> Closed {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes something, or opens it again; names are those of the floor file, tiers are `AISLE.tier-1` .., places without a name
    /// `place-7`, or `7`, roads the names of their ends, `A..B`. Measures all distances: blocks for as long as that takes.
    pub fn set(&self, what: What, name: &str, closed: bool) -> Result<(), Refused> {
        let mut state = self.lock();
        let mut now = state.closed.clone();
        let changed = self.toggle(&mut now, what, name, closed)?;
        while state.spent.pop().is_ok() {}
        if !changed {
            return Ok(());
        }
        self.take(&mut state, now)?;
        // By the name that it has in the floor file, whatever it was called here.
        let name = match what {
            What::Place => self.plan.place(name).map(|p| self.plan.place_name(p)),
            What::Road => self.plan.road(name).map(|r| self.plan.road_name(r)),
            What::Zone => self.zone(name).map(|z| self.plan.zone_name(z).to_string()),
        };
        self.keep.note(facts::Closing { what: what.name().into(), name: name.unwrap_or_default(), closed });
        Ok(())
    }

    /// Measures a floor where this is closed, and hands it in.
    fn take(&self, state: &mut State, now: floor_plan::Closed) -> Result<(), Refused> {
        if state.floors.is_full() {
            return Err(Refused::Busy);
        }
        state.generation = state.generation.wrapping_add(1);
        let floor = Arc::new(self.plan.with_closed(&now, state.generation));
        state.floors.push(floor).map_err(|_| Refused::Busy)?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Closed {
            places: now.places.iter().map(|p| self.plan.place_name(*p)).collect(),
            roads: now.roads.iter().map(|r| self.plan.road_name(*r)).collect(),
            zones: now.zones.iter().map(|z| self.plan.zone_name(*z).to_string()).collect(),
        };
        state.closed = now;
        Ok(())
    }

    /// A tier or a belt by its name. The deck of a machine is no zone of its own to anybody but the core.
    fn zone(&self, name: &str) -> Option<ZoneId> {
        let (id, zone) = self.plan.zone(name)?;
        (!matches!(zone.kind, ZoneKind::Deck(_))).then_some(id)
    }
}

impl Stands for Closings {
    fn stands(&self, _: u64, fact: &Fact) -> bool {
        let Fact::Closing(closing) = fact else { return false };
        let told = self.closed();
        let (what, name) = (closing.what.clone(), closing.name.clone());
        let list = match &*closing.what {
            "place" => told.places,
            "road" => told.roads,
            _ => told.zones,
        };
        closing.closed && (list.contains(&name) || self.unknown.contains(&(what, name)))
    }
}

/// Puts an entry into a set, or takes it out. Returns whether that changed anything.
fn toggle<T: Ord>(set: &mut BTreeSet<T>, entry: T, put: bool) -> bool {
    if put { set.insert(entry) } else { set.remove(&entry) }
}
