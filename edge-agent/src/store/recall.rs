//! What earlier runs have left: the events that still stand, added up.

use super::event::Event;
use super::facts::{Alarm, Closing, Did, Fact, Step, Taken};
use super::open::Opened;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Changes of alarms that are remembered, and what people did.
const REMEMBERED: usize = 1000;

/// An order of an earlier run.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderLeft {
    /// As it was taken.
    pub taken: Taken,
    /// When each state was reached, milliseconds since 1970 UTC; the last is where it stands.
    pub states: Vec<(u64, String)>,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// Of one that is held: what plant and record disagree about.
    pub doubt: Option<String>,
    /// Its class, where somebody has changed it.
    pub class: Option<u8>,
    /// It was withdrawn, `true` for at once.
    pub withdrawn: Option<bool>,
    /// Stops made.
    pub stops: u8,
    /// Where its load was last known to be.
    pub at: Option<String>,
    /// Where a machine was taking it.
    pub to: Option<String>,
    /// When it was taken, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Its story: when and what.
    pub story: Vec<(u64, String)>,
}

/// What earlier runs have left.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// Orders by number.
    pub orders: BTreeMap<u32, OrderLeft>,
    /// No order has this number or a higher one.
    pub next_order: u32,
    /// The newest changes of alarms, the oldest first: when, and what.
    pub alarms: VecDeque<(u64, Alarm)>,
    /// What every alarm that is not normal has gone through since it was raised.
    pub standing: BTreeMap<(String, String), Vec<(u64, Alarm)>>,
    /// What is closed.
    pub closed: BTreeSet<(String, String)>,
    /// Robots of which a person says that they are not on the floor, and whether they could be seen then.
    pub absent: BTreeMap<String, bool>,
    /// Writes with a key, and what came of them, oldest first.
    pub writes: Vec<Did>,
    /// What people did, the oldest first.
    pub did: VecDeque<(u64, Did)>,
    /// Events that this version does not understand.
    pub foreign: u64,
}

/// Adds events up.
#[derive(Default)]
pub struct Recall(Recalled);

fn keep_newest<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

impl Recall {
    /// Takes the next event.
    pub fn see(&mut self, event: &Event<'_>) {
        match Fact::of(event) {
            Some(fact) => self.take(event.at_ms, fact),
            None => self.0.foreign += 1,
        }
    }

    /// Takes the next fact, which was written at `at_ms`.
    pub fn take(&mut self, at_ms: u64, fact: Fact) {
        let left = &mut self.0;
        match fact {
            Fact::Taken(taken) => {
                left.next_order = left.next_order.max(taken.id.saturating_add(1));
                left.orders.insert(taken.id, OrderLeft::new(at_ms, taken));
            }
            Fact::Numbers(numbers) => left.next_order = left.next_order.max(numbers.next),
            Fact::Turned(turned) => left.order(turned.id, |order| {
                order.states.push((at_ms, turned.state));
                (order.reason, order.doubt) = (turned.reason, turned.doubt);
            }),
            Fact::Step(step) => left.order(step.id, |order| order.step(at_ms, step)),
            Fact::Changed(changed) => left.order(changed.id, |order| {
                order.class = changed.class.or(order.class);
                order.withdrawn = changed.withdrawn.or(order.withdrawn);
            }),
            Fact::Alarm(alarm) => left.alarm(at_ms, alarm),
            Fact::Closing(Closing { what, name, closed: true }) => drop(left.closed.insert((what, name))),
            Fact::Closing(Closing { what, name, closed: false }) => drop(left.closed.remove(&(what, name))),
            Fact::Robot(robot) if robot.absent => drop(left.absent.insert(robot.robot, robot.seen)),
            Fact::Robot(robot) => drop(left.absent.remove(&robot.robot)),
            Fact::Did(did) => {
                if did.is_keyed_write() {
                    left.writes.push(did.clone());
                }
                keep_newest(&mut left.did, (at_ms, did));
            }
        }
    }

    /// All of it. Where events are missing, so are numbers of orders, perhaps: they are never given again.
    pub fn end(mut self, opened: &Opened) -> Recalled {
        let missing = u32::try_from(opened.missing_count()).unwrap_or(u32::MAX);
        self.0.next_order = self.0.next_order.max(1).saturating_add(missing);
        if self.0.foreign > 0 {
            tracing::warn!("{} events of the store are of a newer version: they are kept as they are", self.0.foreign);
        }
        self.0
    }
}

impl Recalled {
    /// An order that is refused leaves nothing.
    fn order(&mut self, id: u32, change: impl FnOnce(&mut OrderLeft)) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        change(order);
        if order.state() == "rejected" {
            self.orders.remove(&id);
        }
    }

    fn alarm(&mut self, at_ms: u64, alarm: Alarm) {
        let key = (alarm.alarm.clone(), alarm.subject.clone());
        let changes = self.standing.entry(key).or_default();
        if alarm.change == "raised" {
            // Raised once more: who has seen it, saw another one; a shelf stays.
            changes.retain(|(_, a)| matches!(&*a.change, "shelved" | "unshelved"));
        }
        changes.push((at_ms, alarm.clone()));
        keep_newest(&mut self.alarms, (at_ms, alarm));
    }
}

impl OrderLeft {
    fn new(since_ms: u64, taken: Taken) -> OrderLeft {
        OrderLeft {
            taken,
            states: Vec::new(),
            reason: None,
            doubt: None,
            class: None,
            withdrawn: None,
            stops: 0,
            at: None,
            to: None,
            since_ms,
            story: Vec::new(),
        }
    }

    fn step(&mut self, at_ms: u64, step: Step) {
        self.story.extend(step.what.map(|what| (at_ms, what)));
        if let Some(stops) = step.stops {
            // A stop is made where the machine was taking the load.
            (self.stops, self.at, self.to) = (stops, self.to.take().or(self.at.take()), None);
        }
        if step.at.is_some() {
            (self.at, self.to) = (step.at, None);
        }
        self.to = step.to.or(self.to.take());
    }

    /// Where it stands; nothing where only its number was given.
    pub fn state(&self) -> &str {
        self.states.last().map_or("", |(_, state)| state)
    }

    /// When it came to a state, milliseconds since 1970 UTC.
    pub fn reached(&self, state: &str) -> Option<u64> {
        self.states.iter().find(|(_, s)| s == state).map(|(at, _)| *at)
    }
}

impl Did {
    /// A write with a key. Of one that has only `begun` nobody knows what came of it: its device may have heard of it.
    pub fn is_keyed_write(&self) -> bool {
        self.action == "tag.write" && self.key.is_some()
    }
}
