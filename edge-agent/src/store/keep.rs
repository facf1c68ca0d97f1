//! The store as the rooms use it.

use super::event::Event;
use super::facts::{Fact, Numbers};
use super::migrate;
use super::open::Opened;
use super::recall::{Recall, Recalled};
use super::write::Store;
use crate::telemetry::spool::disk::{Disk, Folder};
use device_drivers::value::wall_clock_ms;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The store's room in the state folder.
pub const FOLDER: &str = "store";
/// How often what nobody waits for is written.
const TEND_EVERY: Duration = Duration::from_millis(50);

/// Says whether something still stands on an event: then the next snapshot has it.
pub trait Stands: Send + Sync {
    /// Whether something here stands on this. `at_ms` is when it was written, milliseconds since 1970 UTC.
    fn stands(&self, at_ms: u64, fact: &Fact) -> bool;
}

/// Where things are written down.
#[derive(Clone, Default)]
enum Place {
    /// This gateway keeps nothing.
    #[default]
    Nowhere,
    /// The store could not be opened: whoever needs it is refused.
    Closed,
    Store(Arc<Store>),
}

/// The store, as the rooms use it. A gateway that keeps nothing has one too: there everything is done at once, and forgotten.
#[derive(Clone, Default)]
pub struct Keep(Place, u64);

impl Keep {
    /// Opens the store of a state folder; telemetry cannot take `reserve` bytes of its disk from it. The first time, what versions before the
    /// store have left is taken over. Blocks.
    pub fn open(state: &Path, reserve: u64) -> Result<(Keep, Recalled, Opened), String> {
        let folder = state.join(FOLDER);
        let why = |e: io::Error| format!("the store in {} cannot be opened: {e}", folder.display());
        let disk = Folder::new(&folder).map_err(why)?;
        Keep::on(Arc::new(disk), reserve, || migrate::left(state)).map_err(why)
    }

    /// Opens the store on a disk; in one that is new is what `before` gives: when, and what.
    pub fn on(
        disk: Arc<dyn Disk>,
        reserve: u64,
        before: impl FnOnce() -> Vec<(u64, Fact)>,
    ) -> io::Result<(Keep, Recalled, Opened)> {
        let mut recall = Recall::default();
        let (store, opened) = Store::open(disk, reserve, |event| recall.see(event))?;
        // A crash on the way leaves a store without any event, and the next start begins anew.
        if store.newest().0 == 0 && opened.missing.is_empty() {
            for (at_ms, fact) in before() {
                store.note_at(at_ms, fact.kind(), fact.body());
                recall.take(if at_ms > 0 { at_ms } else { wall_clock_ms() }, fact);
            }
            store.settle()?; // all of it in one write
        }
        let recalled = recall.end(&opened);
        if !opened.missing.is_empty() {
            let numbers = Fact::from(Numbers { next: recalled.next_order });
            store.append(numbers.kind(), numbers.body())?;
        }
        Ok((Keep(Place::Store(Arc::new(store)), opened.missing_count()), recalled, opened))
    }

    /// A store that cannot be opened: what has to be written down first is refused.
    pub fn closed() -> Keep {
        Keep(Place::Closed, 0)
    }

    /// The store, if there is one.
    pub fn store(&self) -> Option<&Arc<Store>> {
        match &self.0 {
            Place::Store(store) => Some(store),
            Place::Nowhere | Place::Closed => None,
        }
    }

    /// Events that were missing when the store was opened.
    pub fn missing(&self) -> u64 {
        self.1
    }

    /// Whether what is handed in is not on the disk.
    pub fn is_failing(&self) -> bool {
        match &self.0 {
            Place::Nowhere => false,
            Place::Closed => true,
            Place::Store(store) => store.is_failing.load(Relaxed),
        }
    }

    /// Writes something down; when this returns `Ok` it is durable.
    pub async fn write(&self, fact: impl Into<Fact>) -> io::Result<()> {
        let fact = fact.into();
        self.blocking(move |store| store.append(fact.kind(), fact.body())).await
    }

    /// Writes something down soon; nobody waits for it.
    pub fn note(&self, fact: impl Into<Fact>) {
        if let Place::Store(store) = &self.0 {
            let fact = fact.into();
            store.note(fact.kind(), fact.body());
        }
    }

    /// The same of something that happened then, milliseconds since 1970 UTC.
    pub fn note_at(&self, at_ms: u64, fact: impl Into<Fact>) {
        if let Place::Store(store) = &self.0 {
            let fact = fact.into();
            store.note_at(at_ms, fact.kind(), fact.body());
        }
    }

    /// Waits until all that was noted so far is durable.
    pub async fn settle(&self) -> io::Result<()> {
        self.blocking(|store| store.settle()).await
    }

    async fn blocking(&self, act: impl FnOnce(&Store) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let store = match &self.0 {
            Place::Nowhere => return Ok(()),
            Place::Closed => return Err(io::Error::other("the store could not be opened at the start")),
            Place::Store(store) => store.clone(),
        };
        let done = tokio::task::spawn_blocking(move || act(&store)).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Writes what was noted, and a snapshot of what the rooms stand on when there should be one; for as long as it lives.
    pub async fn tend(self, rooms: Vec<Arc<dyn Stands>>) {
        let (Place::Store(store), rooms) = (self.0, Arc::new(rooms)) else { return };
        let mut ticks = tokio::time::interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if !store.has_work() {
                continue;
            }
            let (store, rooms) = (store.clone(), rooms.clone());
            let _ = tokio::task::spawn_blocking(move || tend(&store, &rooms)).await;
        }
    }
}

fn tend(store: &Store, rooms: &[Arc<dyn Stands>]) {
    let _ = store.settle(); // what failed is tried again, and told
    if store.wants_snapshot() {
        // What this version does not understand stands: a newer one may.
        let stands = |event: &Event<'_>| {
            Fact::of(event).is_none_or(|fact| rooms.iter().any(|room| room.stands(event.at_ms, &fact)))
        };
        if let Err(e) = store.snapshot(stands) {
            static UNMADE: crate::trouble::Shared<io::ErrorKind> = crate::trouble::Shared::new();
            if let Some(lasting) = UNMADE.is(e.kind()) {
                tracing::warn!("no snapshot of the store can be made: {e}{lasting}");
            }
        }
    }
}
