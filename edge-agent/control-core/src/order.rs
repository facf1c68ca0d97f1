//! Transport orders: what is to be moved, and how far it is.
//!
//! An order does not carry a plan. It knows its load and its goal, and the next leg follows from where the load is
//! now ([`crate::dispatch::next_leg`]). So a failed command, a reboot or a load found elsewhere needs no repair of a
//! plan: the next leg is derived again.
//!
//! ```text
//!   request ──> accepted ──> moving, leg by leg ──> completed
//!      │            │              │
//!      └> rejected  └──────────────┴──> failed (why)
//! ```

use crate::limits::ORDERS_MAX;
use crate::units::{LoadId, Millis, OrderId, PosId};

/// What is wanted with the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// From wherever it is, or will arrive, into a bay.
    Store,
    /// Out of the rack and out of the plant.
    Retrieve,
    /// Through the robot cell with this program, and back into the rack.
    Process {
        /// Program number, 1 and above; 0 passes the load through untouched.
        program: u16,
    },
}

/// An order as it is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    /// Its number; below 2^31, the rest is for orders the core makes itself.
    pub id: OrderId,
    /// What.
    pub kind: OrderKind,
    /// Which load.
    pub load: LoadId,
    /// 0 rush .. 3 bulk.
    pub class: u8,
    /// How long a store order waits for its load, milliseconds.
    pub wait_ms: u32,
}

/// Orders with this bit were made by the core for a load that stood in the way.
pub const ADOPTED: u32 = 1 << 31;

/// An order that is not ended.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// As it was handed in.
    pub request: OrderRequest,
    /// When it was taken.
    pub accepted_at: Millis,
    /// Where its load is believed to be.
    pub at: Option<PosId>,
    /// Since when the load has been nowhere.
    pub missing_since: Option<Millis>,
    /// The bay that is promised to it.
    pub home: Option<PosId>,
    /// Since when no bay could be promised.
    pub homeless_since: Option<Millis>,
    /// The cell is done with it.
    pub processed: bool,
    /// A machine has been put to it.
    pub started: bool,
    /// Failed tries.
    pub attempts: u8,
    /// Not to be tried again before.
    pub retry_at: Millis,
    /// Somebody has withdrawn it.
    pub withdrawn: bool,
}

/// Where the load has to go next, in the large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Into this bay.
    Home(PosId),
    /// Out of the plant.
    Outside,
    /// To the robot cell.
    Cell,
    /// No bay could be promised yet.
    Nowhere,
}

impl Order {
    /// A fresh order.
    pub fn new(request: OrderRequest, now: Millis) -> Order {
        Order {
            request,
            accepted_at: now,
            at: None,
            missing_since: None,
            home: None,
            homeless_since: None,
            processed: false,
            started: false,
            attempts: 0,
            retry_at: now,
            withdrawn: false,
        }
    }

    /// Where the load has to go next.
    pub fn goal(&self) -> Goal {
        match self.request.kind {
            OrderKind::Retrieve => Goal::Outside,
            OrderKind::Process { .. } if !self.processed => Goal::Cell,
            OrderKind::Store | OrderKind::Process { .. } => self.home.map_or(Goal::Nowhere, Goal::Home),
        }
    }

    /// Whether the order ends in a bay, and so needs one promised.
    pub fn needs_home(&self) -> bool {
        !matches!(self.request.kind, OrderKind::Retrieve)
    }

    /// The cell's program for this load; 0 when it only has to pass through.
    pub fn program(&self) -> u16 {
        match self.request.kind {
            OrderKind::Process { program } if !self.processed => program,
            _ => 0,
        }
    }

    /// Class with ageing: one class better every two minutes, but never rush, so that bulk does not starve
    /// and rush stays rush.
    pub fn effective_class(&self, now: Millis) -> u8 {
        const AGEING_MS: u64 = 120_000;
        let aged = u8::try_from(now.since(self.accepted_at) / AGEING_MS).unwrap_or(u8::MAX);
        match self.request.class {
            0 => 0,
            c => c.saturating_sub(aged).max(1),
        }
    }
}

/// All orders that are not ended.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    list: heapless::Vec<Order, ORDERS_MAX>,
}

impl Orders {
    /// Adds an order; gives it back when the table is full.
    pub fn add(&mut self, order: Order) -> Result<(), Order> {
        self.list.push(order)
    }

    /// Whether there is room.
    pub fn is_full(&self) -> bool {
        self.list.is_full()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// By load; one load has one order at most.
    pub fn by_load(&mut self, load: LoadId) -> Option<&mut Order> {
        self.list.iter_mut().find(|o| o.request.load == load)
    }

    /// By number.
    pub fn by_id(&self, id: OrderId) -> Option<&Order> {
        self.list.iter().find(|o| o.request.id == id)
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Order> {
        self.list.iter()
    }

    /// All, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Order> {
        self.list.iter_mut()
    }

    /// Takes an order out.
    pub fn remove(&mut self, id: OrderId) -> Option<Order> {
        let n = self.list.iter().position(|o| o.request.id == id)?;
        Some(self.list.swap_remove(n))
    }
}
