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
use control_core::limits::STOPS_MAX;
use control_core::order::{ADOPTED, OrderRequest, Stop, Stops};
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
/// Longest key, and longest name of a tenant or a group.
const KEY_MAX: usize = 64;
/// Tenants there may be; the first number is that of whoever says nothing.
const TENANTS_MAX: usize = 255;
/// The longest a due time may lie ahead, milliseconds: as a number of 32 bits holds it.
const DUE_MAX_MS: u128 = u32::MAX as u128;

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
    /// Which station, or which of a group of them, for `process`; the first group of the floor when nothing is said.
    #[serde(default)]
    pub station: Option<String>,
    /// Where the load goes one after the other, for `route`: 1 to 4 stops.
    #[serde(default)]
    pub stops: Option<Vec<StopForm>>,
    /// 0 rush, 1, 2, 3 bulk; 1 when nothing is said.
    #[serde(default)]
    pub class: Option<u8>,
    /// How long an order waits for a load that is still to come, seconds; for a store order 600 when nothing is said.
    #[serde(default)]
    pub wait_s: Option<u32>,
    /// When it shall be done: a time as `2026-11-25T14:00:00Z`, or how long from now, as `10m`.
    #[serde(default)]
    pub due: Option<String>,
    /// Whose it is: no tenant can fill the table of orders alone.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Loads of one group leave the rack in the order of their numbers.
    #[serde(default)]
    pub group: Option<String>,
    /// The number within the group.
    #[serde(default)]
    pub number: Option<u16>,
    /// Not begun before this order has ended.
    #[serde(default)]
    pub after: Option<u32>,
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
    /// From stop to stop.
    Route,
}

/// A stop of an order.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopForm {
    /// `rack`, `outside`, or a group of stations.
    pub at: String,
    /// Program there; 1 when nothing is said, 0 passes the load through untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u16>,
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
    /// Names of tenants; the number of one is its place, from 1.
    tenants: Vec<String>,
    groups: Groups,
}

/// Sequence groups that have orders, by name: their number, and how many orders.
#[derive(Default)]
struct Groups {
    named: HashMap<String, (u16, usize)>,
    next: u16,
}

impl Groups {
    /// The number of a group, for one more order.
    fn enter(&mut self, name: &str) -> Option<u16> {
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
    fn leave(&mut self, name: &str) {
        if let Some((_, count)) = self.named.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.named.remove(name);
            }
        }
    }
}

/// The order desk.
pub struct Desk {
    books: Mutex<Books>,
    requests: Mutex<rtrb::Producer<Request>>,
    /// Groups of stations by name; their numbers are their places.
    stations: Vec<String>,
    ledger: Option<Ledger>,
    /// Requests that found the ring full.
    pub busy: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A desk that hands its requests in through `requests`, for a floor with these groups of stations; it forgets everything with its end.
    pub fn new(requests: rtrb::Producer<Request>, stations: Vec<String>) -> Arc<Desk> {
        Desk::with(requests, stations, None, Recalled::default())
    }

    /// A desk that writes its orders down, and knows those of an earlier run.
    pub fn with(
        requests: rtrb::Producer<Request>,
        stations: Vec<String>,
        ledger: Option<Ledger>,
        known: Recalled,
    ) -> Arc<Desk> {
        let changes = broadcast::channel(CHANGES).0;
        let next = known.orders.iter().map(|o| (o.id + 1) & !ADOPTED).max().unwrap_or(1);
        let key = |o: &OrderView| Some((o.key.clone()?, o.id));
        let keys = known.orders.iter().filter_map(key).collect();
        let orders = known.orders.into_iter().map(|o| (o.id, o)).collect();
        let (answers, tenants, groups) = Default::default();
        let books = Mutex::new(Books { changes, orders, keys, answers, next, tenants, groups });
        Arc::new(Desk { books, requests: Mutex::new(requests), stations, ledger, busy: AtomicU64::new(0) })
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
        let asked = match check(&form, &self.stations) {
            Ok(checked) => checked,
            Err(why) => return Submitted::Invalid(why),
        };
        let (view, request, answer) = {
            let mut books = lock(&self.books);
            if let Some(known) = form.key.as_ref().and_then(|k| books.keys.get(k)).and_then(|id| books.orders.get(id)) {
                let same = (known.kind, known.load) == (form.kind, form.load);
                return if same { Submitted::Known(known.clone()) } else { Submitted::KeyTaken(known.clone()) };
            }
            if let Some(after) = form.after.filter(|after| !books.orders.contains_key(after)) {
                return Submitted::Invalid(format!("after: there is no order {after}"));
            }
            let tenant = match books.tenant(form.tenant.as_deref()) {
                Ok(tenant) => tenant,
                Err(why) => return Submitted::Invalid(why),
            };
            let id = books.next;
            let group = match &form.group {
                None => None,
                Some(name) => match books.groups.enter(name) {
                    Some(group) => Some((group, form.number.unwrap_or(0))),
                    None => return Submitted::Busy,
                },
            };
            let request = OrderRequest {
                class: form.class.unwrap_or(1),
                due_ms: asked.due_ms,
                wait_ms: asked.wait_ms,
                tenant,
                sequence: group,
                after: form.after.map(OrderId),
                ..OrderRequest::new(OrderId(id), asked.load, asked.stops)
            };
            books.next = (id + 1) & !ADOPTED;
            let (tx, rx) = oneshot::channel();
            books.answers.insert(id, tx);
            if let Some(key) = &form.key {
                books.keys.insert(key.clone(), id);
            }
            let view = OrderView {
                stops: form.stops.unwrap_or_default(),
                class: request.class,
                due: asked.due,
                tenant: form.tenant,
                group: form.group,
                number: form.number,
                after: form.after,
                key: form.key,
                ..OrderView::new(id, form.kind, form.load)
            };
            books.enter(view.clone());
            (view, request, rx)
        };
        let id = view.id;
        if let Some(ledger) = &self.ledger
            && let Err(e) = ledger.write(&view).await
        {
            tracing::error!(order = id, "an order is refused that cannot be written down: {e}");
            return self.refuse(id, "the disk does not take it: an order that is not written down is not begun").await;
        }
        if !self.request(Request::Order(request)) {
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

    /// Asks for an order to be withdrawn: when no machine is busy with its load, or `now`, whatever moves.
    pub fn withdraw(&self, id: u32, now: bool) -> Changed {
        let request = if now { Request::WithdrawNow(OrderId(id)) } else { Request::Withdraw(OrderId(id)) };
        self.ask(id, request)
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
                log(&event, &names);
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

/// What a form asks for.
struct Checked {
    load: LoadId,
    stops: Stops,
    wait_ms: u32,
    due_ms: u32,
    due: Option<String>,
}

fn check(form: &OrderForm, stations: &[String]) -> Result<Checked, String> {
    let load = LoadId::new(form.load).ok_or("load: found 0, expected the number on the load's label, 1 or above")?;
    if form.class.is_some_and(|c| c > 3) {
        return Err("class: expected 0 (rush), 1, 2 or 3 (bulk)".into());
    }
    for (name, text) in [("key", &form.key), ("tenant", &form.tenant), ("group", &form.group)] {
        if text.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_MAX) {
            return Err(format!("{name}: expected 1 to {KEY_MAX} characters"));
        }
    }
    if form.number.is_some() && form.group.is_none() {
        return Err("number: only an order with a `group` has one".into());
    }
    let is_process = form.kind == KindForm::Process;
    for (name, is_there) in [("program", form.program.is_some()), ("station", form.station.is_some())] {
        if is_there && !is_process {
            return Err(format!("{name}: only an order of kind \"process\" has one"));
        }
    }
    if form.stops.is_some() != (form.kind == KindForm::Route) {
        return Err("stops: an order of kind \"route\" has them, and no other".into());
    }
    let stops = match form.kind {
        KindForm::Store => Stops::STORE,
        KindForm::Retrieve => Stops::RETRIEVE,
        KindForm::Process => {
            let group = form.station.as_ref().map_or(Ok(0), |name| station(name, stations, "station"))?;
            Stops::process(group, form.program.unwrap_or(1))
        }
        KindForm::Route => route(form.stops.as_deref().unwrap_or_default(), stations)?,
    };
    let wait_s = form.wait_s.unwrap_or(if form.kind == KindForm::Store { WAIT_S } else { 0 });
    let (due_ms, due) = match &form.due {
        None => (0, None),
        Some(text) => due(text, std::time::SystemTime::now())?,
    };
    Ok(Checked { load, stops, wait_ms: wait_s.saturating_mul(1000), due_ms, due })
}

/// How long a store order waits for its load when nothing is said, seconds.
const WAIT_S: u32 = 600;

fn station(name: &str, stations: &[String], key: &str) -> Result<u8, String> {
    let known = || if stations.is_empty() { "this floor has none".into() } else { stations.join(", ") };
    let found = stations.iter().position(|s| s == name).and_then(|n| u8::try_from(n).ok());
    found.ok_or_else(|| format!("{key}: there is no group of stations \"{name}\"; the groups are: {}", known()))
}

fn route(list: &[StopForm], stations: &[String]) -> Result<Stops, String> {
    let mut stops = Vec::new();
    for stop in list.iter().take(STOPS_MAX + 1) {
        let place = match stop.at.as_str() {
            "rack" => Stop::Home,
            "outside" => Stop::Outside,
            name => Stop::Station { group: station(name, stations, "stops")?, program: stop.program.unwrap_or(1) },
        };
        if stop.program.is_some() && !matches!(place, Stop::Station { .. }) {
            return Err(format!("stops: \"{}\" has no program, only stations have one", stop.at));
        }
        stops.push(place);
    }
    Stops::new(&stops).ok_or_else(|| format!("stops: expected 1 to {STOPS_MAX}, and \"outside\" only as the last"))
}

/// A time, or how long from now: milliseconds from now, and the time. What is over is due at once.
fn due(text: &str, now: std::time::SystemTime) -> Result<(u32, Option<String>), String> {
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => at,
        Err(_) => {
            let wrong = || {
                format!("due: found \"{text}\", expected a time as 2026-11-25T14:00:00Z, or how long from now, as 10m")
            };
            let ahead = humantime::parse_duration(text).map_err(|_| wrong())?;
            now.checked_add(ahead).ok_or_else(wrong)?
        }
    };
    let ahead = at.duration_since(now).unwrap_or_default().as_millis();
    if ahead > DUE_MAX_MS {
        return Err(format!("due: \"{text}\" is more than 49 days ahead"));
    }
    // Zero would be no due time at all.
    let ms = u32::try_from(ahead).unwrap_or(u32::MAX).max(1);
    Ok((ms, Some(humantime::format_rfc3339_seconds(at).to_string())))
}

impl OrderView {
    /// An order that has just been handed in; class 1, nothing else said.
    fn new(id: u32, kind: KindForm, load: u32) -> OrderView {
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
    fn tenant(&mut self, name: Option<&str>) -> Result<u8, String> {
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
    fn turn(&mut self, id: u32, state: OrderState, reason: Option<&'static str>) -> Option<OrderView> {
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

/// The name of a reason in answers and logs.
pub fn fault_name(fault: OrderFault) -> &'static str {
    match fault {
        OrderFault::TableFull => "too many orders at once; try again later",
        OrderFault::TenantFull => "this tenant has as many orders as one may have; try again later",
        OrderFault::NoStation => "there is no such station",
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
fn log(event: &Event, names: &FloorNames) {
    match event.kind {
        EventKind::Run(state) => tracing::info!("runtime is {}", run_state_name(state)),
        EventKind::OrderRejected(id, why) => tracing::info!(order = id.0, "order refused: {}", fault_name(why)),
        EventKind::OrderFailed(id, why) => tracing::warn!(order = id.0, "order given up: {}", fault_name(why)),
        EventKind::OrderAdopted { load, leaves: true, .. } => {
            tracing::warn!(
                load = load.get(),
                "a load stands in the way and no bay is free; sending it out of the plant"
            );
        }
        EventKind::OrderAdopted { load, .. } => {
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
        EventKind::RobotElsewhere(id, place) => {
            let place = names.place(place);
            tracing::warn!(
                machine = names.machine(id),
                "the robot is at {place}, where it was not sent; it is believed"
            );
        }
        EventKind::RobotJammed(id) => {
            tracing::error!(
                machine = names.machine(id),
                "the robot does not come nearer to its goal, and no way out was found"
            );
        }
        EventKind::BatteryLow(id) => {
            tracing::warn!(
                machine = names.machine(id),
                "the battery is low; the robot drives to a charger and does nothing else"
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_is_a_time_or_how_long_from_now_and_never_no_due_time_at_all() {
        let now = humantime::parse_rfc3339("2026-11-25T12:00:00Z").unwrap();
        let rows = [
            ("10m", Ok((600_000, "2026-11-25T12:10:00Z"))),
            ("2026-11-25T12:00:05Z", Ok((5_000, "2026-11-25T12:00:05Z"))),
            ("2026-11-25 12:00:05", Ok((5_000, "2026-11-25T12:00:05Z"))),
            ("2026-11-24T00:00:00Z", Ok((1, "2026-11-24T00:00:00Z"))),
            ("0s", Ok((1, "2026-11-25T12:00:00Z"))),
            ("50days", Err("more than 49 days")),
            ("600", Err("expected a time")),
            ("99999999999999years", Err("expected a time")),
        ];
        for (text, want) in rows {
            match (due(text, now), want) {
                (Ok((ms, at)), Ok((want_ms, want_at))) => {
                    assert_eq!((ms, at.as_deref()), (want_ms, Some(want_at)), "{text}");
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        }
    }

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

    #[test]
    fn a_route_is_made_of_groups_of_this_floor() {
        let floor = ["weld".to_string(), "test".to_string()];
        let stop = |at: &str, program| StopForm { at: at.into(), program };
        let made = route(&[stop("test", Some(3)), stop("weld", None), stop("outside", None)], &floor).unwrap();
        let want = [Stop::Station { group: 1, program: 3 }, Stop::Station { group: 0, program: 1 }, Stop::Outside];
        assert_eq!(made.iter().collect::<Vec<_>>(), want);
        assert!(route(&[stop("rack", Some(1))], &floor).unwrap_err().contains("has no program"));
        assert!(route(&vec![stop("rack", None); 5], &floor).unwrap_err().contains("1 to 4"));
        assert!(route(&[stop("paint", None)], &[]).unwrap_err().contains("this floor has none"));
    }
}
