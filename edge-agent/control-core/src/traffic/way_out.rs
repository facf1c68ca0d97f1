//! A way out for somebody who is stuck: a small part of the floor is moved as the search has found, step by step, while everybody
//! else goes on around it.
//!
//! ```text
//!   idle ──somebody is stuck──> searching ──found──> clearing, then moving ──last step──> idle
//!                                  └──none──> failed: it is told
//! ```

use super::claims::{Claims, PATH_MAX};
use super::planner::Planner;
use super::pool::DEPTH;
use super::roads::{Goal, NO_PLACE, NO_POSE, Place, Roads};
use super::search::{Party, Search, Verdict};
use crate::storage::{Storage, at, put};

/// Configurations made in one call.
const CONFIGURATIONS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Searching,
    Moving { step: u32, steps: u32 },
}

/// The way out, if one is under way.
#[derive(Debug)]
pub(super) struct WayOut<'m> {
    state: State,
    search: Search<'m>,
    who: &'m mut [u16],
    count: usize,
    stuck: u16,
    failed: Option<u16>,
    /// Scratch: places still to be looked at around the stuck one, and which have been.
    queue: &'m mut [Place],
    seen: &'m mut [bool],
    /// Places the plan uses.
    used: &'m mut [bool],
}

impl<'m> WayOut<'m> {
    pub(super) fn new(storage: &impl Storage<'m>, search: Search<'m>, places: usize, vehicles: usize) -> WayOut<'m> {
        WayOut {
            state: State::Idle,
            search,
            who: storage.slice(vehicles, 0),
            count: 0,
            stuck: 0,
            failed: None,
            queue: storage.slice(places, NO_PLACE),
            seen: storage.slice(places, false),
            used: storage.slice(places, false),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether a vehicle is moved by the plan, and so by nobody else.
    pub(super) fn moves(&self, vehicle: u16) -> bool {
        self.is_busy() && self.who.iter().take(self.count).any(|v| *v == vehicle)
    }

    /// Whether a place belongs to the plan.
    pub(super) fn uses(&self, place: Place) -> bool {
        self.is_busy() && at(self.used, usize::from(place))
    }

    /// Who was to be helped and could not be, since this was last asked.
    pub(super) fn failed(&mut self) -> Option<u16> {
        self.failed.take()
    }

    /// Begins a search for a stuck vehicle with those nearest to it. `who` gives the goal of a vehicle and whether it is held.
    pub(super) fn begin(
        &mut self,
        roads: &Roads<'_>,
        planner: &mut Planner<'_>,
        stuck: u16,
        who: impl Fn(u16) -> (Goal, bool),
    ) -> bool {
        planner.halt(roads);
        self.gather(roads, planner, stuck);
        let (list, count) = (&*self.who, self.count);
        let parties = (0..count).map(|n| {
            let vehicle = at(list, n);
            let (goal, held) = who(vehicle);
            Party { from: roads.place(planner.pose(vehicle)), goal, must: vehicle == stuck, moves: !held }
        });
        let inside = |vehicle: u16| list.iter().take(count).any(|v| *v == vehicle);
        let closed = |place: Place| planner.occupant(place).is_some_and(|v| !inside(v)) || planner.is_closed(place);
        if !self.search.start(roads, parties, closed) {
            return false;
        }
        self.stuck = stuck;
        self.state = State::Searching;
        true
    }

    /// The vehicles nearest to the stuck one, as many as the search can take; itself first.
    fn gather(&mut self, roads: &Roads<'_>, planner: &Planner<'_>, stuck: u16) {
        self.seen.fill(false);
        let start = roads.place(planner.pose(stuck));
        put(self.queue, 0, start);
        put(self.seen, usize::from(start), true);
        (self.count, self.stuck) = (0, stuck);
        let (mut read, mut written) = (0usize, 1usize);
        while read < written && self.count < self.search.capacity().min(self.who.len()) {
            let place = self.queue.get(read).copied().unwrap_or(NO_PLACE);
            read += 1;
            if let Some(vehicle) = planner.occupant(place) {
                put(self.who, self.count, vehicle);
                self.count += 1;
            }
            for next in roads.beside(place) {
                if !at(self.seen, usize::from(*next)) && written < self.queue.len() {
                    put(self.seen, usize::from(*next), true);
                    put(self.queue, written, *next);
                    written += 1;
                }
            }
        }
    }

    /// Whether a place is at most so many moves from one of these. Looks at every place at most; between two searches it borrows their
    /// scratch memory, which none of them keeps anything in.
    pub(super) fn may_reach(&mut self, roads: &Roads<'_>, from: &[Place], to: Place, moves: usize) -> bool {
        self.seen.fill(false);
        let mut written = 0;
        for place in from {
            put(self.seen, usize::from(*place), true);
            put(self.queue, written, *place);
            written += 1;
        }
        let (mut read, mut left) = (0, moves);
        while left > 0 && read < written && !at(self.seen, usize::from(to)) {
            let ring = written;
            while read < ring {
                for next in roads.beside(at(self.queue, read)) {
                    if !at(self.seen, usize::from(*next)) && written < self.queue.len() {
                        put(self.seen, usize::from(*next), true);
                        put(self.queue, written, *next);
                        written += 1;
                    }
                }
                read += 1;
            }
            left -= 1;
        }
        at(self.seen, usize::from(to))
    }

    /// Goes on with the search or with the plan that was found. Between two steps of the planner; a step of the plan counts as
    /// one too.
    pub(super) fn work(
        &mut self,
        roads: &Roads<'_>,
        planner: &mut Planner<'_>,
        claims: &mut Claims<'_>,
        lead: usize,
        count: &mut u32,
    ) {
        match self.state {
            State::Idle => {}
            State::Searching => match self.search.work(roads, CONFIGURATIONS) {
                Verdict::Going => {}
                Verdict::Failed => {
                    self.failed = Some(self.stuck);
                    self.state = State::Idle;
                }
                Verdict::Solved(steps) => {
                    // The others may have moved meanwhile: then it is searched anew, when it is still stuck.
                    if self.still_holds(roads, planner) {
                        planner.halt(roads);
                        self.close(planner, steps, true);
                        self.state = State::Moving { step: 1, steps };
                    } else {
                        self.state = State::Idle;
                    }
                }
            },
            State::Moving { step, steps } if step > steps => {
                self.close(planner, steps, false);
                self.state = State::Idle;
            }
            State::Moving { step, steps } => {
                if self.move_all(roads, planner, claims, step, lead, count.wrapping_add(1)) {
                    *count = count.wrapping_add(1);
                    self.state = State::Moving { step: step + 1, steps };
                }
            }
        }
    }

    /// Whether everybody stands where the search began, and nobody else where it leads.
    fn still_holds(&self, roads: &Roads<'_>, planner: &Planner<'_>) -> bool {
        (0..self.count).all(|n| {
            let vehicle = at(self.who, n);
            Some(roads.place(planner.pose(vehicle))) == self.search.place(0, n)
        })
    }

    /// Closes the places of the plan to all others, or opens them again.
    fn close(&mut self, planner: &mut Planner<'_>, steps: u32, closed: bool) {
        self.used.fill(false);
        for step in 0..=steps {
            for n in 0..self.count {
                if let Some(place) = self.search.place(step, n) {
                    planner.close(place, closed);
                    put(self.used, usize::from(place), closed);
                }
            }
        }
    }

    /// One step of the plan. `false` while somebody is too late for it.
    fn move_all(
        &mut self,
        roads: &Roads<'_>,
        planner: &mut Planner<'_>,
        claims: &mut Claims<'_>,
        step: u32,
        lead: usize,
        number: u32,
    ) -> bool {
        let goes = |search: &Search<'_>, n: usize| {
            let (from, to) = (search.place(step - 1, n)?, search.place(step, n)?);
            (from != to).then_some((from, to))
        };
        let limit = lead.min(PATH_MAX - DEPTH - 1);
        if (0..self.count).any(|n| goes(&self.search, n).is_some() && claims.lead(at(self.who, n)) >= limit) {
            return false;
        }
        for n in 0..self.count {
            if goes(&self.search, n).is_some() {
                planner.set_pose(roads, at(self.who, n), NO_POSE);
            }
        }
        for n in 0..self.count {
            let Some((from, to)) = goes(&self.search, n) else { continue };
            let (vehicle, pose) = (at(self.who, n), roads.arriving(from, to));
            planner.set_pose(roads, vehicle, pose);
            claims.claim(vehicle, to, pose, number);
            claims.shorten(roads, vehicle);
        }
        true
    }

    /// Forgets the plan.
    pub(super) fn give_up(&mut self, planner: &mut Planner<'_>) {
        if let State::Moving { steps, .. } = self.state {
            self.close(planner, steps, false);
        }
        self.state = State::Idle;
    }
}
