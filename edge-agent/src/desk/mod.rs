//! The order desk: orders from outside, their numbers, and what became of them.
//!
//! ```text
//!   HTTP ──submit──> [desk] ──ring──> control thread
//!     ^                 │                  │
//!     └── answer ───────┴──── events <─────┘
//! ```
//!
//! The desk keeps the last [`HISTORY`] orders. A key given with an order makes it idempotent: the same key again
//! is answered with the order it already made. An order is in the store before the control thread hears of it, and so is, soon, all that becomes
//! of it: after a restart the books are as they were.

mod agree;
mod books;
mod form;
mod recall;
mod resume;
mod spoken;
mod words;

pub use books::{Asked, Clash, OrderState, OrderView};
pub use form::{KindForm, OrderForm, StopForm};
pub use spoken::{Heard, NAMED_MAX, Which};
pub use words::{doubt_text, fault_name, hold_text, stray_text};

use crate::config::plan::FloorNames;
use crate::store::facts::{self, CLASS, Taken};
use crate::store::{Fact, Keep, Recalled, Stands};
use books::Books;
use control_core::cycle::Request;
use control_core::event::{Event, OrderFault};
use control_core::order::{FOUND, OrderRequest};
use control_core::resume::Decision;
use control_core::units::OrderId;
use device_drivers::value::wall_clock_ms;
use form::check;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};
use words::log;

/// Orders the desk remembers, ended ones first to go. An order is some hundred bytes: 10,000 are a few megabytes.
pub const HISTORY: usize = 10_000;
/// How often events are taken over. The control thread wakes nobody: that would be a system call in its cycle.
const TAKE_EVERY: Duration = Duration::from_millis(10);

/// What a submission came to.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// Taken, or at least handed in.
    Order(OrderView),
    /// The key is known: this is the order it made.
    Known(OrderView),
    /// The key is known and stands for another order.
    KeyTaken(Box<Clash>),
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
    /// It is not held: there is nothing to decide.
    NotHeld,
    /// Too many requests at once.
    Busy,
}

/// The order desk.
pub struct Desk {
    books: Mutex<Books>,
    requests: Mutex<rtrb::Producer<Request>>,
    words: broadcast::Sender<spoken::Said>,
    /// Groups of stations by name; their numbers are their places.
    stations: Vec<String>,
    keep: Keep,
    /// Requests that found the ring full.
    pub busy: AtomicU64,
    /// Orders of an earlier run that had not ended.
    pub resumed: u64,
    /// Orders whose state was not what the core has, because an event was lost.
    pub reconciled: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A desk that hands its requests in through `requests`, for a floor with these groups of stations; it forgets everything with its end.
    pub fn new(requests: rtrb::Producer<Request>, stations: Vec<String>) -> Arc<Desk> {
        Desk::with(requests, stations, Keep::default(), &Recalled::default())
    }

    /// A desk that writes its orders down, and knows those of an earlier run.
    pub fn with(requests: rtrb::Producer<Request>, stations: Vec<String>, keep: Keep, left: &Recalled) -> Arc<Desk> {
        let changes = broadcast::channel(CHANGES).0;
        let orders: BTreeMap<u32, OrderView> =
            left.orders.iter().filter_map(|(id, order)| Some((*id, OrderView::recall(order)?))).collect();
        let orders = orders.into_iter().rev().take(HISTORY).collect::<BTreeMap<_, _>>();
        let resumed = orders.values().filter(|o| !o.state.has_ended()).count() as u64;
        let books = Mutex::new(Books::new(changes, orders, left.next_order.max(1) & !FOUND));
        let words = broadcast::channel(spoken::ANSWERS).0;
        let (requests, busy) = (Mutex::new(requests), AtomicU64::new(0));
        let reconciled = AtomicU64::new(0);
        Arc::new(Desk { books, requests, words, stations, keep, busy, resumed, reconciled })
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
        let (taken, request, answer) = {
            let mut books = lock(&self.books);
            if let Some(known) = form.key.as_ref().and_then(|k| books.keys.get(k)).and_then(|id| books.orders.get(id)) {
                return match known.clash(&form) {
                    None => Submitted::Known(known.clone()),
                    Some(clash) => Submitted::KeyTaken(Box::new(clash)),
                };
            }
            if let Some(after) = form.after.filter(|after| !books.orders.contains_key(after)) {
                return Submitted::Invalid(format!("after: there is no order {after}"));
            }
            let entered = match books.enter_names(form.tenant.as_deref(), form.group.as_deref()) {
                Ok(entered) => entered,
                Err(why) => return Submitted::Invalid(why),
            };
            let id = books.next;
            let request = OrderRequest {
                class: form.class.unwrap_or(CLASS),
                due_ms: asked.due_ms,
                wait_ms: asked.wait_ms,
                tenant: entered.tenant,
                sequence: entered.group.map(|group| (group, form.number.unwrap_or(0))),
                after: form.after.map(OrderId),
                ..OrderRequest::new(OrderId(id), asked.load, asked.stops)
            };
            books.next = (id + 1) & !FOUND;
            let (tx, rx) = oneshot::channel();
            books.answers.insert(id, tx);
            if let Some(key) = &form.key {
                books.keys.insert(key.clone(), id);
            }
            let mut view = OrderView::new(id, form.kind, form.load);
            view.taken_as(&form, asked.due_text());
            let wanted = form.wanted();
            let digest = wanted.digest();
            let taken = Taken { id, wanted, digest: digest.clone(), due_ms: asked.due_at_ms() };
            view.asked = Some(Arc::new(Asked { form, digest }));
            books.enter(view);
            (taken, request, rx)
        };
        let id = taken.id;
        if let Err(e) = self.keep.write(taken).await {
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
            Some(view) if view.state == OrderState::Rejected => self.write_refusal(view).await,
            Some(view) => Submitted::Order(view),
            None => Submitted::Busy,
        }
    }

    /// Refuses an order that the control thread has not heard of.
    async fn refuse(&self, id: u32, why: &'static str) -> Submitted {
        let view = {
            let mut books = lock(&self.books);
            books.answers.remove(&id);
            books.turn(id, OrderState::Rejected, Some(why.into()))
        };
        let Some(view) = view else { return Submitted::Busy };
        self.write_refusal(view).await
    }

    /// What is told to be refused must not be begun after a restart.
    async fn write_refusal(&self, view: OrderView) -> Submitted {
        let _ = self.keep.write(view.turned()).await; // where the disk takes nothing the order is not on it either, most likely
        Submitted::Refused(view)
    }

    /// Every change of an order's state from now on.
    pub fn changes(&self) -> broadcast::Receiver<OrderView> {
        lock(&self.books).changes.subscribe()
    }

    /// Asks for an order to be withdrawn: when no machine is busy with its load, or `now`, whatever moves.
    pub fn withdraw(&self, id: u32, now: bool) -> Changed {
        let request = if now { Request::WithdrawNow(OrderId(id)) } else { Request::Withdraw(OrderId(id)) };
        self.ask(id, request, facts::Changed { id, withdrawn: Some(now), ..Default::default() })
    }

    /// Asks for another class: 0 rush .. 3 bulk.
    pub fn reclass(&self, id: u32, class: u8) -> Changed {
        let changed = facts::Changed { id, class: Some(class), ..Default::default() };
        let done = self.ask(id, Request::Reclass(OrderId(id), class), changed);
        if done == Changed::Asked
            && let Some(order) = lock(&self.books).orders.get_mut(&id)
        {
            order.class = class;
        }
        done
    }

    /// A person decides on an order that is held.
    pub fn decide(&self, id: u32, decision: Decision) -> Changed {
        match self.order(id).map(|o| o.state) {
            None => Changed::Unknown,
            Some(OrderState::Held) if self.request(Request::Decide(OrderId(id), decision)) => Changed::Asked,
            Some(OrderState::Held) => Changed::Busy,
            Some(state) if state.has_ended() => Changed::Ended(state),
            Some(_) => Changed::NotHeld,
        }
    }

    fn ask(&self, id: u32, request: Request, changed: facts::Changed) -> Changed {
        match self.order(id) {
            None => Changed::Unknown,
            Some(order) if order.state.has_ended() => Changed::Ended(order.state),
            Some(order) if self.request(request) => {
                if !order.is_own() {
                    self.keep.note(changed);
                }
                Changed::Asked
            }
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
        let (asked, found) = (books.orders.range(..FOUND), books.orders.range(FOUND..));
        asked.rev().chain(found.rev()).map(|(_, o)| o).filter(named).take(limit).cloned().collect()
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
            let mut noted = Vec::new();
            while let Ok(event) = events.pop() {
                let turned = lock(&self.books).note(&event);
                turned.into_iter().for_each(|turned| self.keep.note(turned));
                self.pass_on(&event);
                board.note(&event, wall_clock_ms()).into_iter().for_each(|step| self.keep.note(step));
                noted.push(event);
            }
            log(&noted, &names);
            if events.is_abandoned() {
                return;
            }
        }
    }
}

impl Stands for Desk {
    fn stands(&self, _: u64, fact: &Fact) -> bool {
        let books = lock(&self.books);
        let id = match fact {
            // The highest number that was given, whatever became of it: none is given twice.
            Fact::Taken(taken) if (taken.id.wrapping_add(1)) & !FOUND == books.next => return true,
            Fact::Numbers(numbers) => return numbers.next >= books.next,
            Fact::Taken(taken) => taken.id,
            Fact::Turned(turned) => turned.id,
            Fact::Step(step) => step.id,
            Fact::Changed(changed) => changed.id,
            _ => return false,
        };
        books.orders.get(&id).is_some_and(|order| order.state != OrderState::Rejected)
    }
}
