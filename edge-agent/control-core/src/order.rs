//! Transport orders: what is to be moved, and how far it is.
//!
//! An order does not carry a plan. It knows its load and its stops, and the next leg follows from where the load is
//! now ([`crate::dispatch`]). So a failed command, a reboot or a load found elsewhere needs no repair of a
//! plan: the next leg is derived again.
//!
//! ```text
//!   request ──> accepted ──> moving, leg by leg, stop by stop ──> completed
//!      │            │              │       │
//!      └> rejected  └──────────────┴───────┴──> failed (why), withdrawn
//! ```
//!
//! **What comes first.** Class, 0 before 3, one class better every two minutes, but never rush, so that bulk does not starve and rush
//! stays rush. Within a class the due-date index ATC (Vepsalainen and Morton, 1987): weight / time x exp(-slack / k mean time),
//! here as its logarithm, which orders alike and needs no exponent.

use crate::floor::Floor;
use crate::limits::{Capacity, STOPS_MAX};
use crate::loads::Loads;
use crate::resume::{Doubt, Trail};
use crate::stock::Stock;
use crate::storage::{Storage, at, put};
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId, StationId, Taken, ZoneId};

/// A stop of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// A bay.
    Home,
    /// Out of the plant.
    Outside,
    /// A station of this group works on it.
    Station {
        /// Which group.
        group: u8,
        /// Program number, 1 and above; 0 passes the load through untouched.
        program: u16,
    },
}

/// The stops of an order, first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stops {
    stops: [Stop; STOPS_MAX],
    count: u8,
}

impl Stops {
    /// `None` when there is none, too many, or one after the load has left.
    pub fn new(list: &[Stop]) -> Option<Stops> {
        let last_leaves = !list.iter().rev().skip(1).any(|s| *s == Stop::Outside);
        if list.is_empty() || list.len() > STOPS_MAX || !last_leaves {
            return None;
        }
        let mut stops = [Stop::Home; STOPS_MAX];
        for (slot, stop) in stops.iter_mut().zip(list) {
            *slot = *stop;
        }
        Some(Stops { stops, count: list.len() as u8 })
    }

    /// Into the rack.
    pub const STORE: Stops = Stops { stops: [Stop::Home; STOPS_MAX], count: 1 };
    /// Out of the plant.
    pub const RETRIEVE: Stops = Stops { stops: [Stop::Outside; STOPS_MAX], count: 1 };

    /// Through a station of a group with a program, and back into the rack.
    pub const fn process(group: u8, program: u16) -> Stops {
        let mut stops = [Stop::Home; STOPS_MAX];
        stops[0] = Stop::Station { group, program };
        Stops { stops, count: 2 }
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Stop> + '_ {
        self.stops.iter().take(usize::from(self.count)).copied()
    }

    fn get(&self, n: u8) -> Option<Stop> {
        self.stops.get(usize::from(n)).copied().filter(|_| n < self.count)
    }
}

/// An order as it is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    /// Its number; below 2^31, the rest is for orders the core makes itself.
    pub id: OrderId,
    /// Which load.
    pub load: LoadId,
    /// Where to.
    pub stops: Stops,
    /// 0 rush .. 3 bulk.
    pub class: u8,
    /// Due so long after it was taken, milliseconds; 0 for no due time.
    pub due_ms: u32,
    /// How long the order waits for its load to arrive, milliseconds; for a load that is not there yet.
    pub wait_ms: u32,
    /// Whose it is.
    pub tenant: u8,
    /// Loads of one group leave the rack in the order of their numbers; those of equal number in any order.
    pub sequence: Option<(u16, u16)>,
    /// Not begun before this one has ended.
    pub after: Option<OrderId>,
}

impl OrderRequest {
    /// A plain order: class 1, nothing else said.
    pub const fn new(id: OrderId, load: LoadId, stops: Stops) -> OrderRequest {
        OrderRequest { id, load, stops, class: 1, due_ms: 0, wait_ms: 0, tenant: 0, sequence: None, after: None }
    }
}

/// Orders with this bit were made by the core for a load that stood in the way.
pub const FOUND: u32 = 1 << 31;

/// An order that is not ended.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// As it was handed in.
    pub request: OrderRequest,
    /// When it was taken, by whichever run.
    pub accepted_at: Taken,
    /// Where its load is believed to be.
    pub at: Option<PosId>,
    /// The stop it is on its way to.
    pub stop: u8,
    /// The station that will work on it, once one is chosen.
    pub station: Option<StationId>,
    /// Since when the load has been nowhere.
    pub missing_since: Option<Millis>,
    /// The bay that is promised to it.
    pub home: Option<PosId>,
    /// Since when no bay could be promised.
    pub homeless_since: Option<Millis>,
    /// A bay it is put aside into first: it stands before something that has to go.
    pub aside: Option<PosId>,
    /// A machine has been put to it.
    pub started: bool,
    /// A machine has it, or is on its way to it.
    pub under_way: bool,
    /// Which was put to it last.
    pub carrier: Option<MachineId>,
    /// Somebody has taken it back: its load is put away.
    pub withdrawn: bool,
    /// Failed tries.
    pub attempts: u8,
    /// Not to be tried again before.
    pub retry_at: Millis,
    /// Taken back after a restart, and its load not seen yet: where the journal leaves it.
    pub trail: Option<Trail>,
    /// It waits for a person's word.
    pub held: Option<Doubt>,
}

/// Where the load has to go next, in the large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Into this bay.
    Home(PosId),
    /// Out of the plant.
    Outside,
    /// To this station.
    Station(StationId),
    /// No bay could be promised yet, or no station chosen.
    Nowhere,
}

impl Order {
    /// A fresh order.
    pub fn new(request: OrderRequest, now: Millis) -> Order {
        Order {
            request,
            accepted_at: Taken::before(now, 0),
            at: None,
            stop: 0,
            station: None,
            missing_since: None,
            home: None,
            homeless_since: None,
            aside: None,
            started: false,
            under_way: false,
            carrier: None,
            withdrawn: false,
            attempts: 0,
            retry_at: now,
            trail: None,
            held: None,
        }
    }

    /// Whether it is not known yet where it goes on: no machine is put to it.
    pub fn is_in_doubt(&self) -> bool {
        self.trail.is_some() || self.held.is_some()
    }

    /// Whether it waits for its load as long as it was told to, when that is nowhere.
    pub(crate) fn waits(&self) -> bool {
        !self.started && (self.request.wait_ms > 0 || self.request.stops == Stops::STORE)
    }

    /// The stop it is on its way to; `None` when all are made.
    pub fn next_stop(&self) -> Option<Stop> {
        self.request.stops.get(self.stop)
    }

    /// Where the load has to go next.
    pub fn goal(&self) -> Goal {
        if let Some(bay) = self.aside {
            return Goal::Home(bay);
        }
        match self.next_stop() {
            Some(Stop::Outside) => Goal::Outside,
            Some(Stop::Station { .. }) => self.station.map_or(Goal::Nowhere, Goal::Station),
            Some(Stop::Home) | None => self.home.map_or(Goal::Nowhere, Goal::Home),
        }
    }

    /// Whether a bay lies ahead, and so has to be promised.
    pub fn needs_home(&self) -> bool {
        self.request.stops.iter().skip(usize::from(self.stop)).any(|s| s == Stop::Home)
    }

    /// The program for this load at the station it is sent to; 0 when it only has to pass through another.
    pub fn program(&self, station: StationId) -> u16 {
        match self.next_stop() {
            Some(Stop::Station { program, .. }) if self.station == Some(station) => program,
            _ => 0,
        }
    }

    /// Class with ageing.
    pub fn effective_class(&self, now: Millis) -> u8 {
        const AGEING_MS: u64 = 120_000;
        let aged = u8::try_from(self.accepted_at.age(now) / AGEING_MS).unwrap_or(u8::MAX);
        match self.request.class {
            0 => 0,
            c => c.saturating_sub(aged).max(1),
        }
    }

    /// The due-date index: the smaller, the sooner. Orders without a due time count as due an hour after they were taken.
    pub fn urgency(&self, now: Millis) -> u64 {
        /// What an order takes on the whole, milliseconds; and how far slack looks ahead, in such times.
        const TIME_MS: u64 = 60_000;
        const LOOK: u64 = 3;
        const NO_DUE_MS: u64 = 3_600_000;
        let due = match self.request.due_ms {
            0 => NO_DUE_MS,
            ms => u64::from(ms),
        };
        let slack = due.saturating_sub(self.accepted_at.age(now).saturating_add(TIME_MS));
        // Equal index: who came first.
        ((slack * 1_000 / (LOOK * TIME_MS)) << 32) | u64::from(self.accepted_at.rank())
    }
}

const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    order: Order,
    used: bool,
    zone: u16,
    next: u16,
    before: u16,
}

/// All orders that are not ended, by number, by load, and by the zone their load is in.
#[derive(Debug)]
pub struct Orders<'m> {
    slots: &'m mut [Slot],
    /// First and last order of each zone.
    zones: &'m mut [(u16, u16)],
    free: u16,
    count: usize,
}

impl<'m> Orders<'m> {
    /// No order yet.
    pub fn new(storage: &impl Storage<'m>, capacity: &Capacity) -> Orders<'m> {
        let count = capacity.orders.min(usize::from(NONE) - 1);
        let nobody = OrderRequest::new(OrderId(0), LoadId::ONE, Stops::STORE);
        let free = Slot { order: Order::new(nobody, Millis(0)), used: false, zone: NONE, next: NONE, before: NONE };
        let slots = storage.slice(count, free);
        for (n, slot) in (1u16..).zip(slots.iter_mut()) {
            slot.next = if usize::from(n) < count { n } else { NONE };
        }
        let zones = storage.slice(capacity.zones, (NONE, NONE));
        Orders { slots, zones, free: if count > 0 { 0 } else { NONE }, count: 0 }
    }

    /// Whether there is room.
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// By its slot.
    pub(crate) fn slot(&self, slot: u16) -> Option<&Order> {
        self.slots.get(usize::from(slot)).filter(|s| s.used).map(|s| &s.order)
    }

    /// By its slot, to be changed. Where its load is, is changed by [`Orders::set_at`].
    pub(crate) fn slot_mut(&mut self, slot: u16) -> Option<&mut Order> {
        self.slots.get_mut(usize::from(slot)).filter(|s| s.used).map(|s| &mut s.order)
    }

    /// By load; one load has one order at most.
    pub(crate) fn by_load(&mut self, loads: &Loads<'_>, load: LoadId) -> Option<&mut Order> {
        let slot = loads.order(load)?;
        self.slot_mut(slot)
    }

    /// By number. Looks at all.
    pub fn by_id(&self, id: OrderId) -> Option<&Order> {
        self.iter().map(|(_, o)| o).find(|o| o.request.id == id)
    }

    /// All, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Order)> {
        (0u16..).zip(self.slots.iter()).filter(|(_, s)| s.used).map(|(n, s)| (n, &s.order))
    }

    /// Adds an order. `None` when the table is full.
    pub(crate) fn add(&mut self, floor: &Floor<'_>, loads: &mut Loads<'_>, order: Order) -> Option<u16> {
        let n = self.free;
        let slot = self.slots.get_mut(usize::from(n))?;
        self.free = slot.next;
        (slot.order, slot.used, slot.next, slot.before, slot.zone) =
            (Order { at: None, ..order }, true, NONE, NONE, NONE);
        self.count += 1;
        loads.set_order(order.request.load, Some(n));
        self.set_at(floor, n, order.at);
        Some(n)
    }

    /// Takes an order out.
    pub(crate) fn remove(&mut self, loads: &mut Loads<'_>, n: u16) -> Option<Order> {
        let order = *self.slot(n)?;
        self.unlink(n);
        let free = self.free;
        if let Some(slot) = self.slots.get_mut(usize::from(n)) {
            (slot.used, slot.next) = (false, free);
        }
        self.free = n;
        self.count -= 1;
        loads.set_order(order.request.load, None);
        Some(order)
    }

    /// Its load is believed to be here now.
    pub(crate) fn set_at(&mut self, floor: &Floor<'_>, n: u16, pos: Option<PosId>) {
        self.unlink(n);
        let zone = pos.and_then(|p| floor.zone_of(p)).map_or(NONE, |(zone, _)| zone.0);
        let (_, last) = self.zones.get(usize::from(zone)).copied().unwrap_or((NONE, NONE));
        let known = usize::from(zone) < self.zones.len();
        if let Some(slot) = self.slots.get_mut(usize::from(n)) {
            slot.order.at = pos;
            (slot.zone, slot.before, slot.next) = (if known { zone } else { NONE }, last, NONE);
        }
        if !known {
            return;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(last)) {
            slot.next = n;
        }
        if let Some(ends) = self.zones.get_mut(usize::from(zone)) {
            *ends = (if ends.0 == NONE { n } else { ends.0 }, n);
        }
    }

    fn unlink(&mut self, n: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(n)) else { return };
        let (zone, before, next) = (slot.zone, slot.before, slot.next);
        if zone == NONE {
            return;
        }
        (slot.zone, slot.before, slot.next) = (NONE, NONE, NONE);
        if let Some(slot) = self.slots.get_mut(usize::from(before)) {
            slot.next = next;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(next)) {
            slot.before = before;
        }
        let (first, last) = at(self.zones, usize::from(zone));
        let ends = (if first == n { next } else { first }, if last == n { before } else { last });
        put(self.zones, usize::from(zone), ends);
    }

    /// The orders whose load is in a zone, those that came there first first.
    pub(crate) fn in_zone(&self, zone: ZoneId) -> impl Iterator<Item = (u16, &Order)> {
        let (first, _) = self.zones.get(usize::from(zone.0)).copied().unwrap_or((NONE, NONE));
        let mut next = first;
        core::iter::from_fn(move || {
            let slot = self.slots.get(usize::from(next))?;
            let n = core::mem::replace(&mut next, slot.next);
            Some((n, &slot.order))
        })
    }

    /// The zone a goal is in, seen from another: of several one to which somebody can bring it now, and of these the nearest.
    pub(crate) fn goal_zone(floor: &Floor<'_>, stock: &Stock<'_>, from: ZoneId, goal: Goal) -> Option<ZoneId> {
        match goal {
            Goal::Home(bay) => floor.zone_of(bay).map(|(id, _)| id),
            Goal::Station(station) => floor.station(station).map(|s| s.input),
            Goal::Outside => {
                let exits = floor.exits(from);
                let waits = |to: ZoneId| {
                    let legs = floor.hops(from, to);
                    !floor.links(from).iter().any(|l| floor.hops(l.to, to) < legs && !stock.is_mover_out(l.by))
                };
                exits.iter().find(|id| !waits(**id)).or(exits.first()).copied()
            }
            Goal::Nowhere => None,
        }
    }
}
