//! The board: what the events of the core add up to, for people. Who is busy with what, who is held and why, and the story of
//! every order.
//!
//! ```text
//!   order desk ──each event──> [ board ] <── floor, orders and alarms look at it
//! ```
//!
//! The desk keeps what an order is; the board keeps what happened to it and when. One lock, held for an event or a copy.

use crate::config::plan::FloorNames;
use crate::store::{Recalled, facts};
use crate::telemetry::payload;
use control_core::command::Outcome;
use control_core::event::{Event, EventKind, RunState};
use control_core::image::CommandCode;
use control_core::interlock::Hold;
use control_core::order::FOUND;
use control_core::traffic::roads::Place;
use control_core::units::{DomainId, LoadId, MachineId, OrderId, PosId};
use device_drivers::value::wall_clock_ms;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stories kept; as many as the desk keeps orders.
const STORIES: usize = crate::desk::HISTORY;
/// Steps of one story; a load that is moved more often than this has a story of its own to tell.
const STEPS: usize = 64;
/// Commands remembered per machine.
const COMMANDS: usize = 12;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Step {
    /// When, RFC 3339.
    pub time: String,
    /// What, in words.
    pub what: String,
}

/// When an order went through its states, and what happened on the way.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Taken or refused, milliseconds since 1970.
    pub taken_ms: Option<u64>,
    /// The same by the clock that nobody sets: how long it has been waiting follows from this one.
    taken_at: Option<Instant>,
    /// A machine was put to it.
    pub started_ms: Option<u64>,
    /// Done, refused or given up.
    pub ended_ms: Option<u64>,
    /// What happened.
    pub steps: Vec<Step>,
}

/// A machine as the events show it.
#[derive(Clone, Debug, Default)]
pub struct MachineSeen {
    /// Why it is not commanded, if it is not.
    pub hold: Option<Hold>,
    /// Where its last command brought it.
    pub at: Option<PosId>,
    /// Where its command in flight takes it.
    pub target: Option<PosId>,
    /// The order that command is for.
    pub order: Option<u32>,
    /// Of a mobile robot: told where it was seen although it was not sent there.
    pub elsewhere: Option<Place>,
    /// Of a mobile robot: it did not come nearer to where it was sent.
    pub jammed: bool,
    /// Of a mobile robot: its battery was too low for anything but the way to a charger.
    pub battery_low: bool,
    /// Its last commands, oldest first.
    pub commands: VecDeque<Step>,
    /// The last of them is a drive.
    drives: bool,
}

/// A part of the floor that is read by itself.
#[derive(Clone, Debug)]
struct DomainSeen {
    name: String,
    /// Since when it has not been acted upon; `None` while it is.
    unread: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    run: RunState,
    machines: BTreeMap<u16, MachineSeen>,
    domains: BTreeMap<u16, DomainSeen>,
    stories: BTreeMap<u32, Story>,
    order_of: HashMap<u32, u32>,
    /// Positions of which two hold the same load; forgotten when the load is seen to move.
    twice: BTreeMap<u32, PosId>,
    /// What the stories of orders have got since somebody looked, to be written down.
    told: Vec<facts::Step>,
}

/// The board.
pub struct Board {
    names: FloorNames,
    inner: Mutex<Inner>,
}

impl Board {
    /// An empty board of a floor.
    pub fn new(names: FloorNames) -> Board {
        // Nothing has been seen before it was: all machines begin as not seen.
        let unseen = |id: MachineId| (id.0, MachineSeen { hold: Some(Hold::NotSeen), ..MachineSeen::default() });
        let machines = names.machine_ids().map(unseen).collect();
        let unread = Some(Instant::now());
        let domains = names.domains().into_iter().map(|(id, name)| (id.0, DomainSeen { name, unread })).collect();
        Board { names, inner: Mutex::new(Inner { machines, domains, ..Inner::default() }) }
    }

    /// Takes over the stories of an earlier run's orders.
    pub fn recall(&self, left: &Recalled) {
        let mut inner = self.lock();
        let (now, now_ms) = (Instant::now(), wall_clock_ms());
        for (id, order) in &left.orders {
            let age = Duration::from_millis(now_ms.saturating_sub(order.since_ms));
            let story = Story {
                taken_ms: order.reached("accepted"),
                taken_at: now.checked_sub(age),
                started_ms: order.reached("running"),
                ended_ms: order.reached("completed").or(order.reached("failed")),
                steps: order.story.iter().map(|(ms, what)| Step { time: stamp(*ms), what: what.clone() }).collect(),
            };
            if story.ended_ms.is_none() {
                inner.order_of.insert(order.taken.wanted.load, *id);
            }
            *inner.story(OrderId(*id)) = story;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event that happened at `now_ms`, milliseconds since 1970. What it adds to the stories of orders is to be written down.
    pub fn note(&self, event: &Event, now_ms: u64) -> Vec<facts::Step> {
        let mut inner = self.lock();
        self.take(&mut inner, event, now_ms);
        std::mem::take(&mut inner.told)
    }

    fn take(&self, inner: &mut Inner, event: &Event, now_ms: u64) {
        match event.kind {
            EventKind::Run(state) => inner.run = state,
            EventKind::OrderAccepted(id, load) => inner.taken(id, Some(load), now_ms, "taken"),
            EventKind::OrderFound { id, load, .. } => {
                inner.taken(id, Some(load), now_ms, "made: its load stood in the way")
            }
            EventKind::OrderAdopted(id, load) => {
                inner.order_of.insert(load.get(), id.0);
                inner.step(id.0, now_ms, "taken back after a restart");
            }
            EventKind::OrderHeld(id, doubt) => {
                inner.step(id.0, now_ms, &format!("held: {}", crate::desk::doubt_text(doubt)));
            }
            EventKind::OrderReleased(id, at) => {
                inner.step(id.0, now_ms, "goes on: a person has said so");
                inner.trail(id, facts::Step { at: at.map(|pos| self.names.position(pos)), ..facts::Step::default() });
            }
            EventKind::StopMade(id, stops) => {
                inner.trail(id, facts::Step { stops: Some(stops), ..facts::Step::default() });
            }
            EventKind::LegBegun { id, from, to } => {
                let (at, to) = (Some(self.names.position(from)), Some(self.names.position(to)));
                inner.trail(id, facts::Step { at, to, ..facts::Step::default() });
            }
            EventKind::OrderStarted(id) => {
                inner.story(id).started_ms = Some(now_ms);
            }
            EventKind::OrderCompleted(id) => inner.ended(id, now_ms, "done"),
            EventKind::OrderRejected(id, why) => {
                // A number that is in use is refused; the story is the other order's.
                if !inner.stories.contains_key(&id.0) {
                    inner.taken(id, None, now_ms, "");
                    inner.ended(id, now_ms, &format!("refused: {}", crate::desk::fault_name(why)));
                }
            }
            EventKind::OrderFailed(id, why) => {
                inner.ended(id, now_ms, &format!("given up: {}", crate::desk::fault_name(why)));
            }
            EventKind::CommandIssued { machine, code: CommandCode::Drive, .. } => {
                // A robot is told to drive on every second or so: that it drives is said once.
                if let Some(seen) = inner.machines.get_mut(&machine.0)
                    && !seen.drives
                {
                    seen.remember(now_ms, "drive".into());
                    seen.drives = true;
                }
            }
            EventKind::CommandIssued { machine, code, pos, load, .. } => {
                let what = format!("{} {}", code_name(code), self.names.position(pos));
                let order = load.and_then(|l| inner.order_of.get(&l.get()).copied());
                if let Some(load) = load {
                    inner.tell(load, now_ms, &format!("{} is sent to {what}", self.names.machine(machine)));
                }
                if let Some(seen) = inner.machines.get_mut(&machine.0) {
                    (seen.target, seen.order) = (Some(pos), order);
                    seen.remember(now_ms, load.map_or(what.clone(), |l| format!("{what}, load {}", l.get())));
                }
            }
            EventKind::CommandEnded { machine, outcome, .. } => {
                let Some(seen) = inner.machines.get_mut(&machine.0) else { return };
                if outcome == Outcome::Done && seen.target.is_some() {
                    (seen.at, seen.jammed, seen.elsewhere) = (seen.target, false, None);
                }
                seen.target = None;
                let order = seen.order.take();
                if seen.drives && outcome == Outcome::Done {
                    return;
                }
                if let Some(last) = seen.commands.back_mut() {
                    last.what += &format!(": {}", outcome_name(outcome));
                }
                if outcome != Outcome::Done
                    && let Some(id) = order
                {
                    let what = format!("{}: {}", self.names.machine(machine), outcome_name(outcome));
                    inner.step(id, now_ms, &what);
                }
            }
            EventKind::Acknowledged(..) | EventKind::AcknowledgedAll => {} // the order desk passes them on
            EventKind::MachineHeld(id, why) => inner.hold(id, Some(why)),
            EventKind::MachineReleased(id) => inner.hold(id, None),
            EventKind::LoadTwice(load, pos) => {
                inner.twice.insert(load.get(), pos);
            }
            EventKind::LoadArrived(load, pos) | EventKind::LoadFound(load, pos) => {
                inner.twice.remove(&load.get());
                if let Some(id) = inner.order_of.get(&load.get()).copied() {
                    let at = Some(self.names.position(pos));
                    inner.trail(OrderId(id), facts::Step { at, ..facts::Step::default() });
                }
                inner.tell(load, now_ms, &format!("its load is seen at {}", self.names.position(pos)));
            }
            EventKind::LoadMissing(load, pos) => {
                inner.twice.remove(&load.get());
                inner.tell(load, now_ms, &format!("its load is gone from {}", self.names.position(pos)));
            }
            EventKind::LoadLeft(load) => {
                inner.twice.remove(&load.get());
                inner.tell(load, now_ms, "its load has left the plant");
            }
            EventKind::MachineRebooted(id) => {
                let domain = self.names.domain_of(id).and_then(|d| inner.domains.get_mut(&d.0));
                if let Some(domain) = domain {
                    domain.unread.get_or_insert_with(Instant::now);
                }
            }
            EventKind::DomainKnown(DomainId(n)) => {
                if let Some(domain) = inner.domains.get_mut(&n) {
                    domain.unread = None;
                }
            }
            EventKind::RobotElsewhere(id, place) => inner.with(id, |m| m.elsewhere = Some(place)),
            EventKind::RobotAstray(..) => {} // the control thread shows it for as long as it is so
            EventKind::RobotJammed(id) => inner.with(id, |m| m.jammed = true),
            EventKind::BatteryLow(id) => inner.with(id, |m| m.battery_low = true),
        }
    }

    /// What machines and positions are called.
    pub fn names(&self) -> &FloorNames {
        &self.names
    }

    /// A machine.
    pub fn machine(&self, id: MachineId) -> MachineSeen {
        self.lock().machines.get(&id.0).cloned().unwrap_or_default()
    }

    /// Every machine that is held, by name.
    pub fn held(&self) -> Vec<(String, Hold)> {
        let inner = self.lock();
        let held = inner.machines.iter().filter_map(|(n, m)| m.hold.map(|h| (MachineId(*n), h)));
        held.map(|(id, hold)| (self.names.machine(id), hold)).collect()
    }

    /// Parts of the floor that are not acted upon, by name, and since when.
    pub fn unread(&self) -> Vec<(String, Instant)> {
        let inner = self.lock();
        inner.domains.values().filter_map(|d| d.unread.map(|since| (d.name.clone(), since))).collect()
    }

    /// Loads that two positions report, with one of them.
    pub fn twice(&self) -> Vec<(u32, String)> {
        self.lock().twice.iter().map(|(load, pos)| (*load, self.names.position(*pos))).collect()
    }

    /// What happened to an order.
    pub fn story(&self, order: u32) -> Option<Story> {
        self.lock().stories.get(&order).cloned()
    }

    /// How long ago orders were taken; nothing for one that is not known.
    pub fn ages(&self, orders: impl Iterator<Item = u32>) -> Vec<Option<Duration>> {
        let inner = self.lock();
        orders.map(|id| Some(inner.stories.get(&id)?.taken_at?.elapsed())).collect()
    }

    /// When orders were taken, started and ended; nothing for one that is not known.
    pub fn times(&self, orders: impl Iterator<Item = u32>) -> Vec<[Option<u64>; 3]> {
        let inner = self.lock();
        let of = |id| inner.stories.get(&id).map_or([None; 3], |s| [s.taken_ms, s.started_ms, s.ended_ms]);
        orders.map(of).collect()
    }
}

impl Inner {
    fn story(&mut self, id: OrderId) -> &mut Story {
        if self.stories.len() >= STORIES
            && let Some(oldest) = self.stories.iter().find(|(_, s)| s.ended_ms.is_some()).map(|(id, _)| *id)
        {
            self.stories.remove(&oldest);
        }
        self.stories.entry(id.0).or_default()
    }

    fn taken(&mut self, id: OrderId, load: Option<LoadId>, now_ms: u64, what: &str) {
        if let Some(load) = load {
            self.order_of.insert(load.get(), id.0);
        }
        let story = self.story(id);
        (story.taken_ms, story.taken_at) = (Some(now_ms), Some(Instant::now()));
        if !what.is_empty() {
            self.step(id.0, now_ms, what);
        }
    }

    fn ended(&mut self, id: OrderId, now_ms: u64, what: &str) {
        self.order_of.retain(|_, order| *order != id.0);
        self.story(id).ended_ms = Some(now_ms);
        self.step(id.0, now_ms, what);
    }

    /// Adds a step to the story of whatever order has this load.
    fn tell(&mut self, load: LoadId, now_ms: u64, what: &str) {
        if let Some(id) = self.order_of.get(&load.get()).copied() {
            self.step(id, now_ms, what);
        }
    }

    /// Where the load of an order is, to be written down.
    fn trail(&mut self, id: OrderId, step: facts::Step) {
        if !is_found(id.0) {
            self.told.push(facts::Step { id: id.0, ..step });
        }
    }

    fn step(&mut self, id: u32, now_ms: u64, what: &str) {
        if self.story(OrderId(id)).step(now_ms, what) && !is_found(id) {
            self.told.push(facts::Step { id, what: Some(what.into()), ..facts::Step::default() });
        }
    }

    fn hold(&mut self, id: MachineId, hold: Option<Hold>) {
        self.with(id, |machine| machine.hold = hold);
    }

    fn with(&mut self, id: MachineId, change: impl FnOnce(&mut MachineSeen)) {
        if let Some(machine) = self.machines.get_mut(&id.0) {
            change(machine);
        }
    }
}

impl MachineSeen {
    fn remember(&mut self, now_ms: u64, what: String) {
        if self.commands.len() >= COMMANDS {
            self.commands.pop_front();
        }
        self.drives = false;
        self.commands.push_back(Step { time: stamp(now_ms), what });
    }
}

impl Story {
    fn step(&mut self, now_ms: u64, what: &str) -> bool {
        let has_room = self.steps.len() < STEPS;
        if has_room {
            self.steps.push(Step { time: stamp(now_ms), what: what.into() });
        }
        has_room
    }
}

fn code_name(code: CommandCode) -> &'static str {
    match code {
        CommandCode::None => "nothing at",
        CommandCode::Pick => "pick up at",
        CommandCode::Place => "put down at",
        CommandCode::Start => "run its program at",
        CommandCode::Move => "go to",
        CommandCode::Drive => "drive",
        CommandCode::Board => "drive onto",
    }
}

fn outcome_name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Failed(why) => format!("failed, {why:?}"),
        Outcome::Rejected(why) => format!("rejected, {why:?}"),
        Outcome::Expired => "came too late to be begun".into(),
    }
}

/// A time of day as people and programs read it, RFC 3339.
pub fn stamp(ms: u64) -> String {
    payload::rfc3339(ms).to_string()
}

/// Whether the runtime made this order for itself.
pub fn is_found(order: u32) -> bool {
    order & FOUND != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_core::event::OrderFault;
    use control_core::image::Reason;
    use control_core::units::Millis;

    fn board() -> Board {
        Board::new(FloorNames::of(floor_plan::FloorPlan::small(4, 20).map(std::sync::Arc::new)))
    }

    fn note(board: &Board, ms: u64, kind: EventKind) {
        drop(board.note(&Event { at: Millis(0), kind }, ms));
    }

    #[test]
    fn an_order_s_story_has_its_commands_in_it_and_ends() {
        let (board, load) = (board(), LoadId::new(1001).unwrap());
        let (id, machine) = (OrderId(7), MachineId(0));
        note(&board, 1000, EventKind::OrderAccepted(id, load));
        note(&board, 2000, EventKind::OrderStarted(id));
        let issued =
            EventKind::CommandIssued { machine, seq: 1, code: CommandCode::Pick, pos: PosId(3), load: Some(load) };
        note(&board, 2000, issued);
        assert_eq!((board.machine(machine).target, board.machine(machine).order), (Some(PosId(3)), Some(7)));
        note(&board, 3000, EventKind::CommandEnded { machine, seq: 1, outcome: Outcome::Failed(Reason::SourceEmpty) });
        note(&board, 4000, EventKind::OrderFailed(id, OrderFault::LoadMissing));
        let story = board.story(7).unwrap();
        assert_eq!((story.taken_ms, story.started_ms, story.ended_ms), (Some(1000), Some(2000), Some(4000)));
        let told: Vec<&str> = story.steps.iter().map(|s| s.what.as_str()).collect();
        let want = [
            "taken",
            "shuttle-1 is sent to pick up at bay-1-left-04",
            "shuttle-1: failed, SourceEmpty",
            "given up: the load cannot be found",
        ];
        assert_eq!(told, want);
        let seen = board.machine(machine);
        assert_eq!((seen.at, seen.target), (None, None), "it is not known where a failed command has left it");
    }

    #[test]
    fn a_refusal_of_a_number_in_use_does_not_end_the_other_order_s_story() {
        let board = board();
        note(&board, 1, EventKind::OrderAccepted(OrderId(1), LoadId::new(5).unwrap()));
        note(&board, 2, EventKind::OrderRejected(OrderId(1), OrderFault::DuplicateId));
        assert_eq!(board.story(1).unwrap().ended_ms, None);
    }

    #[test]
    fn stories_and_steps_are_bounded() {
        let (board, load) = (board(), LoadId::new(5).unwrap());
        for n in 0..(STORIES as u32 + 50) {
            note(&board, 1, EventKind::OrderAccepted(OrderId(n), load));
            note(&board, 2, EventKind::OrderCompleted(OrderId(n)));
        }
        assert!(board.lock().stories.len() <= STORIES && board.lock().order_of.is_empty());
        note(&board, 1, EventKind::OrderAccepted(OrderId(u32::MAX >> 1), load));
        for n in 0..1000 {
            note(&board, n, EventKind::LoadFound(load, PosId(1)));
        }
        assert_eq!(board.story(u32::MAX >> 1).unwrap().steps.len(), STEPS);
    }
}
