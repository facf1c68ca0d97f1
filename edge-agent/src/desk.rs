//! The order desk: orders from outside, their numbers, and what became of them.
//!
//! ```text
//!   HTTP ──submit──> [desk] ──ring──> control thread
//!     ^                 │                  │
//!     └── answer ───────┴──── events <─────┘
//! ```
//!
//! The desk keeps the last [`HISTORY`] orders. A key given with an order makes it idempotent: the same key again
//! is answered with the order it already made. With a [`Ledger`] an order is on disk before the control thread hears of it, and known
//! after a restart.

use crate::config::plan::FloorNames;
use crate::control::run_state_name;
use crate::ledger::{Ledger, Recalled};
use control_core::cycle::Request;
use control_core::event::{Event, EventKind, OrderFault};
use control_core::interlock::{AXIS_BLOCKED, GUARD_OPEN, Hold, OWNER_LOST};
use control_core::order::{ADOPTED, OrderKind, OrderRequest};
use control_core::units::{LoadId, OrderId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

/// Orders the desk remembers, ended ones first to go. An order is some hundred bytes: 10,000 are a few megabytes.
pub const HISTORY: usize = 10_000;
/// How often events are taken over. The control thread wakes nobody: that would be a system call in its cycle.
const TAKE_EVERY: Duration = Duration::from_millis(10);
/// Longest key.
const KEY_MAX: usize = 64;

/// An order as it is handed in over HTTP.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderForm {
    /// What is wanted with the load.
    pub kind: KindForm,
    /// Which load: the number on its label, 1 and above.
    pub load: u32,
    /// Program of the robot cell, for `process`; 1 when nothing is said.
    #[serde(default)]
    pub program: Option<u16>,
    /// 0 rush, 1, 2, 3 bulk; 1 when nothing is said.
    #[serde(default)]
    pub class: Option<u8>,
    /// How long a store order waits for its load, seconds; 600 when nothing is said.
    #[serde(default)]
    pub wait_s: Option<u32>,
    /// The same key again is the same order.
    #[serde(default)]
    pub key: Option<String>,
}

/// What is wanted with the load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindForm {
    /// Into the rack.
    Store,
    /// Out of the rack and the plant.
    Retrieve,
    /// Through the robot cell and back.
    Process,
}

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
    /// 0 rush .. 3 bulk.
    pub class: u8,
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

/// What a submission came to.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// Taken, or at least handed in.
    Order(OrderView),
    /// The key is known: this is the order it made.
    Known(OrderView),
    /// The key is known and stands for another order, this one.
    KeyTaken(OrderView),
    /// Refused, with the order as it stands in the books.
    Refused(OrderView),
    /// Not even handed in.
    Invalid(String),
    /// Too many orders at once.
    Busy,
}

/// Changes that may wait for whoever listens.
const CHANGES: usize = 1024;

/// What a wish to change an order came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Handed to the control thread.
    Asked,
    /// There is no such order.
    Unknown,
    /// It has ended already, so.
    Ended(OrderState),
    /// Too many requests at once.
    Busy,
}

struct Books {
    changes: broadcast::Sender<OrderView>,
    orders: BTreeMap<u32, OrderView>,
    keys: HashMap<String, u32>,
    answers: HashMap<u32, oneshot::Sender<()>>,
    next: u32,
}

/// The order desk.
pub struct Desk {
    books: Mutex<Books>,
    requests: Mutex<rtrb::Producer<Request>>,
    ledger: Option<Ledger>,
    /// Requests that found the ring full.
    pub busy: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A desk that hands its requests in through `requests`, and forgets everything with its end.
    pub fn new(requests: rtrb::Producer<Request>) -> Arc<Desk> {
        Desk::with(requests, None, Recalled::default())
    }

    /// A desk that writes its orders down, and knows those of an earlier run.
    pub fn with(requests: rtrb::Producer<Request>, ledger: Option<Ledger>, known: Recalled) -> Arc<Desk> {
        let changes = broadcast::channel(CHANGES).0;
        let next = known.orders.iter().map(|o| (o.id + 1) & !ADOPTED).max().unwrap_or(1);
        let key = |o: &OrderView| Some((o.key.clone()?, o.id));
        let keys = known.orders.iter().filter_map(key).collect();
        let orders = known.orders.into_iter().map(|o| (o.id, o)).collect();
        let books = Mutex::new(Books { changes, orders, keys, answers: HashMap::new(), next });
        Arc::new(Desk { books, requests: Mutex::new(requests), ledger, busy: AtomicU64::new(0) })
    }

    /// Hands in a request; false when the ring is full.
    pub fn request(&self, request: Request) -> bool {
        let done = lock(&self.requests).push(request).is_ok();
        self.busy.fetch_add(u64::from(!done), Relaxed);
        done
    }

    /// Hands in an order and waits, at most `limit`, for the control thread's word on it. It is brought to its end whether or not whoever asked
    /// goes on waiting.
    pub async fn submit(self: &Arc<Self>, form: OrderForm, limit: Duration) -> Submitted {
        let desk = self.clone();
        tokio::spawn(async move { desk.hand_in(form, limit).await }).await.unwrap_or(Submitted::Busy)
    }

    async fn hand_in(&self, form: OrderForm, limit: Duration) -> Submitted {
        let (load, kind) = match check(&form) {
            Ok(checked) => checked,
            Err(why) => return Submitted::Invalid(why),
        };
        let class = form.class.unwrap_or(1);
        let wait_ms = form.wait_s.unwrap_or(600).saturating_mul(1000);
        let (view, answer) = {
            let mut books = lock(&self.books);
            if let Some(known) = form.key.as_ref().and_then(|k| books.keys.get(k)).and_then(|id| books.orders.get(id)) {
                let same = (known.kind, known.load) == (form.kind, form.load);
                return if same { Submitted::Known(known.clone()) } else { Submitted::KeyTaken(known.clone()) };
            }
            let id = books.next;
            books.next = (id + 1) & !ADOPTED;
            let (tx, rx) = oneshot::channel();
            books.answers.insert(id, tx);
            if let Some(key) = &form.key {
                books.keys.insert(key.clone(), id);
            }
            let view = OrderView {
                id,
                kind: form.kind,
                load: form.load,
                class,
                state: OrderState::Submitted,
                reason: None,
                adopted: false,
                key: form.key,
            };
            books.enter(view.clone());
            (view, rx)
        };
        let id = view.id;
        if let Some(ledger) = &self.ledger
            && let Err(e) = ledger.write(&view).await
        {
            tracing::error!(order = id, "an order is refused that cannot be written down: {e}");
            return self.refuse(id, "the disk does not take it: an order that is not written down is not begun").await;
        }
        if !self.request(Request::Order(OrderRequest { id: OrderId(id), kind, load, class, wait_ms })) {
            self.refuse(id, fault_name(OrderFault::TableFull)).await;
            return Submitted::Busy;
        }
        let _ = tokio::time::timeout(limit, answer).await;
        lock(&self.books).answers.remove(&id);
        match self.order(id) {
            Some(view) if view.state == OrderState::Rejected => Submitted::Refused(view),
            Some(view) => Submitted::Order(view),
            None => Submitted::Busy,
        }
    }

    /// Refuses an order that the control thread has not heard of.
    async fn refuse(&self, id: u32, why: &'static str) -> Submitted {
        let view = {
            let mut books = lock(&self.books);
            books.answers.remove(&id);
            books.turn(id, OrderState::Rejected, Some(why))
        };
        let Some(view) = view else { return Submitted::Busy };
        if let Some(ledger) = &self.ledger {
            let _ = ledger.write(&view).await;
        }
        Submitted::Refused(view)
    }

    /// Every change of an order's state from now on.
    pub fn changes(&self) -> broadcast::Receiver<OrderView> {
        lock(&self.books).changes.subscribe()
    }

    /// Asks for an order to be withdrawn.
    pub fn withdraw(&self, id: u32) -> Changed {
        self.ask(id, Request::Withdraw(OrderId(id)))
    }

    /// Asks for another class: 0 rush .. 3 bulk.
    pub fn reclass(&self, id: u32, class: u8) -> Changed {
        let done = self.ask(id, Request::Reclass(OrderId(id), class));
        if done == Changed::Asked
            && let Some(order) = lock(&self.books).orders.get_mut(&id)
        {
            order.class = class;
        }
        done
    }

    fn ask(&self, id: u32, request: Request) -> Changed {
        match self.order(id).map(|o| o.state) {
            None => Changed::Unknown,
            Some(state @ (OrderState::Completed | OrderState::Rejected | OrderState::Failed)) => Changed::Ended(state),
            Some(_) if self.request(request) => Changed::Asked,
            Some(_) => Changed::Busy,
        }
    }

    /// One order.
    pub fn order(&self, id: u32) -> Option<OrderView> {
        lock(&self.books).orders.get(&id).cloned()
    }

    /// The newest orders, newest first; those the runtime made for itself come last.
    pub fn newest(&self, limit: usize, state: Option<OrderState>) -> Vec<OrderView> {
        let books = lock(&self.books);
        let named = |o: &&OrderView| state.is_none_or(|s| s == o.state);
        let (asked, adopted) = (books.orders.range(..ADOPTED), books.orders.range(ADOPTED..));
        asked.rev().chain(adopted.rev()).map(|(_, o)| o).filter(named).take(limit).cloned().collect()
    }

    /// Takes events over for as long as the control thread lives, and logs what people want to know.
    pub async fn keep_books(
        self: Arc<Self>,
        mut events: rtrb::Consumer<Event>,
        names: FloorNames,
        board: Arc<crate::board::Board>,
    ) {
        let mut ticks = tokio::time::interval(TAKE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let mut ended = Vec::new();
            while let Ok(event) = events.pop() {
                ended.extend(lock(&self.books).note(&event));
                board.note(&event, device_drivers::value::wall_clock_ms());
                log(&event, names);
            }
            if let Some(ledger) = self.ledger.as_ref().filter(|_| !ended.is_empty()) {
                ledger.note(ended);
                let desk = self.clone();
                ledger.tend(move || lock(&desk.books).orders.values().cloned().collect());
            }
            if events.is_abandoned() {
                return;
            }
        }
    }
}

fn check(form: &OrderForm) -> Result<(LoadId, OrderKind), String> {
    let load = LoadId::new(form.load).ok_or("load: found 0, expected the number on the load's label, 1 or above")?;
    if form.class.is_some_and(|c| c > 3) {
        return Err("class: expected 0 (rush), 1, 2 or 3 (bulk)".into());
    }
    if form.key.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_MAX) {
        return Err(format!("key: expected 1 to {KEY_MAX} characters"));
    }
    let kind = match (form.kind, form.program) {
        (KindForm::Process, program) => OrderKind::Process { program: program.unwrap_or(1) },
        (_, Some(_)) => return Err("program: only an order of kind \"process\" has one".into()),
        (KindForm::Store, None) => OrderKind::Store,
        (KindForm::Retrieve, None) => OrderKind::Retrieve,
    };
    Ok((load, kind))
}

impl Books {
    fn enter(&mut self, view: OrderView) {
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
    fn forget_key(&mut self, id: u32) {
        if let Some(key) = self.orders.get(&id).and_then(|o| o.key.as_ref()) {
            self.keys.remove(key);
        }
    }

    /// Takes an event over; the order that has ended with it, if one has.
    fn note(&mut self, event: &Event) -> Option<OrderView> {
        let (id, state, reason) = match event.kind {
            EventKind::OrderAccepted(id, _) => (id, OrderState::Accepted, None),
            EventKind::OrderRejected(id, why) => (id, OrderState::Rejected, Some(fault_name(why))),
            EventKind::OrderStarted(id) => (id, OrderState::Running, None),
            EventKind::OrderCompleted(id) => (id, OrderState::Completed, None),
            EventKind::OrderFailed(id, why) => (id, OrderState::Failed, Some(fault_name(why))),
            EventKind::OrderAdopted(id, load, kind) => {
                let kind = if kind == OrderKind::Retrieve { KindForm::Retrieve } else { KindForm::Store };
                let view = OrderView {
                    id: id.0,
                    kind,
                    load: load.get(),
                    class: 1,
                    state: OrderState::Accepted,
                    reason: None,
                    adopted: true,
                    key: None,
                };
                self.enter(view);
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
    fn turn(&mut self, id: u32, state: OrderState, reason: Option<&'static str>) -> Option<OrderView> {
        let mut turned = None;
        if let Some(order) = self.orders.get_mut(&id)
            // A number that is already in use is refused; the order that has it goes on.
            && !(state == OrderState::Rejected && order.state != OrderState::Submitted)
        {
            (order.state, order.reason) = (state, reason.map(Cow::Borrowed));
            let _ = self.changes.send(order.clone());
            turned = Some(order.clone());
        }
        if state == OrderState::Rejected {
            self.forget_key(id);
        }
        turned
    }
}

/// The name of a reason in answers and logs.
pub fn fault_name(fault: OrderFault) -> &'static str {
    match fault {
        OrderFault::TableFull => "too many orders at once; try again later",
        OrderFault::RackFull => "no free bay in the rack",
        OrderFault::UnknownLoad => "the load is not in the plant",
        OrderFault::LoadBusy => "another order has this load",
        OrderFault::DuplicateId => "the number is already in use",
        OrderFault::Draining => "the gateway is stopping",
        OrderFault::NotReady => "the gateway has not read the plant yet, or no longer owns it",
        OrderFault::NeverArrived => "the load did not arrive in time",
        OrderFault::LoadMissing => "the load cannot be found",
        OrderFault::TooManyAttempts => "tried as often as allowed",
        OrderFault::NotInBay => "the load is on its way; ask again when it stands in a bay",
        OrderFault::Withdrawn => "withdrawn",
        OrderFault::LeftPlant => "the load has left the plant",
    }
}

/// Why a machine is not commanded, in words.
pub fn hold_text(hold: Hold) -> String {
    match hold {
        Hold::NotSeen => "its controller cannot be seen".into(),
        Hold::NoHandshake => "its controller is being read".into(),
        Hold::NotAuto => "it is not in AUTO".into(),
        Hold::EmergencyStop => "emergency stop".into(),
        Hold::Interlocked(OWNER_LOST) => "it waits for this gateway's heartbeat".into(),
        Hold::Interlocked(bits) => {
            let names = [(GUARD_OPEN, "guard open"), (OWNER_LOST, "no heartbeat"), (AXIS_BLOCKED, "axis blocked")];
            let open: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
            format!("interlocks 0x{bits:04X}: {}", open.join(", "))
        }
        Hold::Fault(code) => format!("it reports fault {code}"),
        Hold::NeedsAcknowledge => "it left AUTO; POST /api/v1/acknowledge when it may go on".into(),
    }
}

/// What people want to know of an event. Holds that pass by themselves at a start are no more than information.
fn log(event: &Event, names: FloorNames) {
    match event.kind {
        EventKind::Run(state) => tracing::info!("runtime is {}", run_state_name(state)),
        EventKind::OrderRejected(id, why) => tracing::info!(order = id.0, "order refused: {}", fault_name(why)),
        EventKind::OrderFailed(id, why) => tracing::warn!(order = id.0, "order given up: {}", fault_name(why)),
        EventKind::OrderAdopted(_, load, OrderKind::Retrieve) => {
            tracing::warn!(
                load = load.get(),
                "a load stands in the way and no bay is free; sending it out of the plant"
            );
        }
        EventKind::OrderAdopted(_, load, _) => {
            tracing::info!(load = load.get(), "a load without an order stands in the way; putting it away");
        }
        EventKind::MachineHeld(id, why) => {
            let machine = names.machine(id);
            match why {
                Hold::EmergencyStop | Hold::Fault(_) | Hold::NeedsAcknowledge | Hold::NotAuto => {
                    tracing::warn!(machine, "machine is not commanded: {}", hold_text(why));
                }
                Hold::NoHandshake => {}
                _ => tracing::info!(machine, "machine is not commanded: {}", hold_text(why)),
            }
        }
        EventKind::MachineReleased(id) => tracing::info!(machine = names.machine(id), "machine may be commanded"),
        EventKind::MachineRebooted(id) => {
            tracing::info!(machine = names.machine(id), "the machine's controller has started anew; reading it again");
        }
        EventKind::LoadFound(load, pos) => {
            tracing::warn!(load = load.get(), "load found at {}; the plant is believed", names.position(pos));
        }
        EventKind::LoadMissing(load, pos) => {
            tracing::warn!(load = load.get(), "load is gone from {}", names.position(pos));
        }
        EventKind::LoadTwice(load, pos) => {
            tracing::error!(load = load.get(), "two positions report this load, one of them {}", names.position(pos));
        }
        _ => tracing::debug!(?event, "event"),
    }
}
