//! The search for a way out, when pushing alone does not get somebody to its goal: LaCAM (Okumura, AAAI 2023), bounded.
//!
//! ```text
//!   open:  [start] ─> [c1] ─> [c2]          a configuration: where everybody is; the last one is looked at first
//!                       │       └ PIBT makes the next one; asked again, under one constraint more
//!                       └ known ones are not made twice
//! ```
//!
//! The plan that is found first wanders. So of all its configurations those are kept that lead from one to the next in the fewest
//! steps.
//!
//! It works on places alone: a move takes a step, and turns are left to the execution. It knows every configuration it has made,
//! and tries under ever more constraints all that can follow from one, so what can be solved is solved, if the tables are
//! large enough. Work is granted in configurations made; the search goes on where it stopped.

mod generator;

use super::roads::{Goal, NO_PLACE, Place, Roads};
use crate::storage::{Storage, at, put};
use generator::Push;

const NONE: u32 = u32::MAX;
const NOBODY: u16 = u16::MAX;
/// Places next to one that are looked at, staying included.
const CANDIDATES: usize = 12;

/// What became of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More work is needed.
    Going,
    /// A plan stands ready: so many steps.
    Solved(u32),
    /// There is none, or it does not fit into the tables.
    Failed,
}

/// A vehicle of the search.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Where it is.
    pub from: Place,
    /// Its goal.
    pub goal: Goal,
    /// It has to be at its goal in the end. Otherwise it only makes way.
    pub must: bool,
    /// It may move at all.
    pub moves: bool,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// The constraints to be tried, oldest first.
    first: u32,
    last: u32,
    /// The next node with the same hash.
    same: u32,
    /// The node below on the stack of open ones.
    below: u32,
}

#[derive(Clone, Copy, Debug)]
struct Constraint {
    parent: u32,
    next: u32,
    who: u16,
    place: Place,
    depth: u16,
}

/// The search, with its tables.
#[derive(Debug)]
pub struct Search<'m> {
    parties: &'m mut [Party],
    count: usize,
    /// Configurations: a row of places a node.
    config: &'m mut [Place],
    /// How urgent each vehicle is in a node: a row of numbers a node.
    urgency: &'m mut [u16],
    nodes: &'m mut [Node],
    node_count: usize,
    constraints: &'m mut [Constraint],
    constraint_count: usize,
    hash: &'m mut [u32],
    open: u32,
    /// Scratch of the generator: who was, and who will be, at each place.
    was: &'m mut [u16],
    will: &'m mut [u16],
    next: &'m mut [Place],
    order: &'m mut [u16],
    frames: &'m mut [Push],
    /// The nodes of the plan; with how many steps each can be reached, and after which other one of the plan.
    plan: &'m mut [u32],
    shortest: &'m mut [(u32, u32)],
    kept: &'m mut [u32],
    /// Places nobody may go to.
    closed: &'m mut [bool],
    circles: bool,
    reached: u32,
    shortening: u32,
    length: u32,
}

impl<'m> Search<'m> {
    /// Tables for so many vehicles, places and configurations.
    pub fn new(storage: &impl Storage<'m>, vehicles: usize, places: usize, nodes: usize, circles: bool) -> Search<'m> {
        let empty = Node { parent: NONE, first: NONE, last: NONE, same: NONE, below: NONE };
        let free = Constraint { parent: NONE, next: NONE, who: 0, place: 0, depth: 0 };
        let nobody = Party { from: NO_PLACE, goal: 0, must: false, moves: false };
        Search {
            parties: storage.slice(vehicles, nobody),
            count: 0,
            config: storage.slice(vehicles * nodes, NO_PLACE),
            urgency: storage.slice(vehicles * nodes, 0),
            nodes: storage.slice(nodes, empty),
            node_count: 0,
            constraints: storage.slice(nodes * 8, free),
            constraint_count: 0,
            hash: storage.slice(nodes * 2 + 1, NONE),
            open: NONE,
            was: storage.slice(places, NOBODY),
            will: storage.slice(places, NOBODY),
            next: storage.slice(vehicles, NO_PLACE),
            order: storage.slice(vehicles, 0),
            frames: storage.slice(vehicles + 1, Push::NONE),
            plan: storage.slice(nodes, NONE),
            shortest: storage.slice(nodes, (0, NONE)),
            kept: storage.slice(nodes, NONE),
            closed: storage.slice(places, false),
            circles,
            reached: NONE,
            shortening: 0,
            length: 0,
        }
    }

    /// How many vehicles it can take.
    pub fn capacity(&self) -> usize {
        self.parties.len()
    }

    /// Configurations made so far.
    pub fn made(&self) -> usize {
        self.node_count
    }

    /// Starts anew, with places that nobody may go to. `false` when there are too many vehicles, or two at one place.
    pub fn start(
        &mut self,
        roads: &Roads<'_>,
        parties: impl Iterator<Item = Party>,
        closed: impl Fn(Place) -> bool,
    ) -> bool {
        for (place, slot) in (0..).zip(self.closed.iter_mut()) {
            *slot = closed(place);
        }
        (self.count, self.node_count, self.constraint_count, self.open, self.reached) = (0, 0, 0, NONE, NONE);
        self.hash.fill(NONE);
        self.was.fill(NOBODY);
        self.will.fill(NOBODY);
        for party in parties {
            let taken = self.was.get(usize::from(party.from)).is_none_or(|who| *who != NOBODY);
            if self.count >= self.parties.len() || taken {
                return false;
            }
            put(self.was, usize::from(party.from), self.count as u16);
            put(self.parties, self.count, party);
            put(self.next, self.count, party.from);
            self.count += 1;
        }
        self.was.fill(NOBODY);
        self.add_node(roads, NONE).is_some()
    }

    /// Makes at most `grant` configurations.
    pub fn work(&mut self, roads: &Roads<'_>, grant: u32) -> Verdict {
        for _ in 0..grant {
            if self.reached != NONE {
                match self.shorten(roads) {
                    true => return Verdict::Solved(self.length),
                    false => continue,
                }
            }
            let node = self.open;
            if node == NONE {
                return Verdict::Failed;
            }
            if self.is_goal(roads, node) {
                self.reached = node;
                self.remember_plan();
                continue;
            }
            let Some(constraint) = self.take_constraint(node) else {
                self.open = self.node(node).below;
                continue;
            };
            if !self.refine(roads, node, constraint) {
                return Verdict::Failed; // the tables are full
            }
            if !self.generate(roads, node, constraint) {
                continue;
            }
            match self.find() {
                Some(known) if known != node && !self.is_open(known) => {
                    let below = self.open;
                    self.with(known, |n| n.below = below);
                    self.open = known;
                }
                Some(_) => {}
                None => {
                    if self.add_node(roads, node).is_none() {
                        return Verdict::Failed;
                    }
                }
            }
        }
        Verdict::Going
    }

    /// Where a vehicle is after a step of the plan; step 0 is the start.
    pub fn place(&self, step: u32, vehicle: usize) -> Option<Place> {
        let node = at(self.plan, step as usize);
        (self.reached != NONE && vehicle < self.count).then(|| self.config_of(node, vehicle))
    }

    /// Writes the nodes of the plan that was found.
    fn remember_plan(&mut self) {
        let mut steps = 0;
        let mut node = self.reached;
        while self.node(node).parent != NONE {
            node = self.node(node).parent;
            steps += 1;
        }
        (self.length, self.shortening) = (steps, 1);
        node = self.reached;
        for step in (0..=steps).rev() {
            put(self.plan, step as usize, node);
            node = self.node(node).parent;
        }
    }

    /// Finds the shortest way to the next configuration of the plan; after the last, keeps those on the shortest way to it.
    /// Returns whether that is done.
    fn shorten(&mut self, roads: &Roads<'_>) -> bool {
        let here = self.shortening as usize;
        if here > self.length as usize {
            return true;
        }
        let mut best = (u32::MAX, NONE);
        for before in 0..here {
            let (steps, _) = self.shortest.get(before).copied().unwrap_or((u32::MAX, NONE));
            if steps < best.0.saturating_sub(1) && self.follows(roads, at(self.plan, before), at(self.plan, here)) {
                best = (steps + 1, before as u32);
            }
        }
        put(self.shortest, here, best);
        put(self.shortest, 0, (0, NONE));
        self.shortening += 1;
        if here < self.length as usize {
            return false;
        }
        let (length, mut from) = (best.0, here as u32);
        for step in (1..=length as usize).rev() {
            put(self.kept, step, at(self.plan, from as usize));
            from = self.shortest.get(from as usize).map_or(0, |(_, before)| *before);
        }
        for step in 1..=length as usize {
            put(self.plan, step, at(self.kept, step));
        }
        self.length = length;
        true
    }

    /// Whether one configuration can follow another in one step.
    fn follows(&mut self, roads: &Roads<'_>, node: u32, next: u32) -> bool {
        for v in 0..self.count {
            let (from, to) = (self.config_of(node, v), self.config_of(next, v));
            if from != to && !(self.party(v).moves && roads.beside(from).contains(&to)) {
                return false;
            }
        }
        for v in 0..self.count {
            put(self.was, usize::from(self.config_of(node, v)), v as u16);
            put(self.next, v, self.config_of(next, v));
        }
        let exchange = (0..self.count).any(|v| {
            let (from, to) = (self.config_of(node, v), at(self.next, v));
            let other = at_vehicle(self.was, to);
            from != to && other != NOBODY && at(self.next, usize::from(other)) == from
        });
        let fits = !exchange && (self.circles || !self.has_circle(node)) && self.passes_near(roads, node);
        for v in 0..self.count {
            put(self.was, usize::from(self.config_of(node, v)), NOBODY);
        }
        fits
    }

    fn node(&self, node: u32) -> Node {
        let none = Node { parent: NONE, first: NONE, last: NONE, same: NONE, below: NONE };
        self.nodes.get(node as usize).copied().unwrap_or(none)
    }

    fn with(&mut self, node: u32, change: impl FnOnce(&mut Node)) {
        if let Some(n) = self.nodes.get_mut(node as usize) {
            change(n);
        }
    }

    fn constraint(&self, n: u32) -> Option<Constraint> {
        self.constraints.get(n as usize).copied().filter(|_| (n as usize) < self.constraint_count)
    }

    fn config_of(&self, node: u32, vehicle: usize) -> Place {
        let row = node as usize * self.parties.len();
        self.config.get(row + vehicle).copied().unwrap_or(NO_PLACE)
    }

    fn party(&self, vehicle: usize) -> Party {
        self.parties.get(vehicle).copied().unwrap_or(Party { from: NO_PLACE, goal: 0, must: false, moves: false })
    }

    /// How far a place is from a vehicle's goal. Who has none is as well off anywhere.
    fn far(&self, roads: &Roads<'_>, vehicle: usize, place: Place) -> u16 {
        let party = self.party(vehicle);
        if party.must { roads.from_place(party.goal, place) } else { 0 }
    }

    fn is_goal(&self, roads: &Roads<'_>, node: u32) -> bool {
        (0..self.count).all(|v| !self.party(v).must || self.far(roads, v, self.config_of(node, v)) == 0)
    }

    fn is_open(&self, node: u32) -> bool {
        let mut here = self.open;
        while here != NONE {
            if here == node {
                return true;
            }
            here = self.node(here).below;
        }
        false
    }

    fn hash_of(&self, places: impl Iterator<Item = Place>) -> usize {
        let sum = places.fold(0xcbf2_9ce4_8422_2325u64, |h, p| (h ^ u64::from(p)).wrapping_mul(0x0100_0000_01b3));
        (sum % self.hash.len().max(1) as u64) as usize
    }

    /// The node with the configuration in `next`.
    fn find(&self) -> Option<u32> {
        let slot = self.hash_of(self.next.iter().take(self.count).copied());
        let mut node = self.hash.get(slot).copied().unwrap_or(NONE);
        while node != NONE {
            if (0..self.count).all(|v| self.config_of(node, v) == at(self.next, v)) {
                return Some(node);
            }
            node = self.node(node).same;
        }
        None
    }

    /// A node for the configuration in `next`, put on top of the open ones.
    fn add_node(&mut self, roads: &Roads<'_>, parent: u32) -> Option<u32> {
        if self.node_count >= self.nodes.len() {
            return None;
        }
        let root = self.add_constraint(Constraint { parent: NONE, next: NONE, who: 0, place: 0, depth: 0 })?;
        let node = self.node_count as u32;
        self.node_count += 1;
        let (row, width) = (node as usize * self.parties.len(), self.parties.len());
        let slot = self.hash_of(self.next.iter().take(self.count).copied());
        let same = self.hash.get(slot).copied().unwrap_or(NONE);
        put(self.nodes, node as usize, Node { parent, first: root, last: root, same, below: self.open });
        put(self.hash, slot, node);
        self.open = node;
        for v in 0..self.count {
            let place = at(self.next, v);
            put(self.config, row + v, place);
            // The longer it has not been where it has to be, the more urgent (Okumura, IJCAI 2023).
            let far = self.far(roads, v, place);
            let before = match parent {
                NONE => far.min(1_000),
                p => at(self.urgency, p as usize * width + v),
            };
            let now = match (parent, far) {
                (NONE, _) => before,
                (_, 0) => before % 16,
                _ => before.saturating_add(16),
            };
            put(self.urgency, row + v, now);
        }
        Some(node)
    }

    fn add_constraint(&mut self, constraint: Constraint) -> Option<u32> {
        if self.constraint_count >= self.constraints.len() {
            return None;
        }
        put(self.constraints, self.constraint_count, constraint);
        self.constraint_count += 1;
        Some(self.constraint_count as u32 - 1)
    }

    fn take_constraint(&mut self, node: u32) -> Option<u32> {
        let first = self.node(node).first;
        let constraint = self.constraint(first)?;
        self.with(node, |n| n.first = constraint.next);
        if constraint.next == NONE {
            self.with(node, |n| n.last = NONE);
        }
        Some(first)
    }

    /// The constraints that follow: the next vehicle in the order, at each place it could go to. `false` when there is no room.
    fn refine(&mut self, roads: &Roads<'_>, node: u32, constraint: u32) -> bool {
        let depth = self.constraint(constraint).map_or(0, |c| c.depth);
        if usize::from(depth) >= self.count {
            return true;
        }
        self.put_in_order(node);
        let who = at(self.order, usize::from(depth));
        let here = self.config_of(node, usize::from(who));
        let moves = self.party(usize::from(who)).moves;
        let beside = if moves { roads.beside(here) } else { &[] };
        for place in core::iter::once(here).chain(beside.iter().copied()) {
            let child = Constraint { parent: constraint, next: NONE, who, place, depth: depth + 1 };
            let Some(added) = self.add_constraint(child) else { return false };
            let last = self.node(node).last;
            if let Some(before) = self.constraints.get_mut(last as usize) {
                before.next = added;
            }
            self.with(node, |n| {
                n.last = added;
                if n.first == NONE {
                    n.first = added;
                }
            });
        }
        true
    }

    fn put_in_order(&mut self, node: u32) {
        let row = node as usize * self.parties.len();
        for (n, slot) in (0u16..).zip(self.order.iter_mut().take(self.count)) {
            *slot = n;
        }
        let urgency = &*self.urgency;
        if let Some(order) = self.order.get_mut(..self.count) {
            order.sort_unstable_by_key(|v| (core::cmp::Reverse(at(urgency, row + usize::from(*v))), *v));
        }
    }
}

fn at_vehicle(table: &[u16], place: Place) -> u16 {
    table.get(usize::from(place)).copied().unwrap_or(NOBODY)
}
