//! Traffic: how vehicles that share roads move without ever meeting, and without ever locking.
//!
//! ```text
//!   wishes ──> [ gates ] ──> [ planner ] ──moves──> [ claims ] ──base──> vehicles
//!              who may        one step of            in the order          reach places,
//!              enter          all frontiers          of the plan           some late
//!     ^                                                                                            │
//!     └── not nearer for long? those in front make way; then it is first in rank; then [ search ] ─┘
//! ```
//!
//! Every vehicle has a path: places **allocated** to it, which are irrevocable, and places **claimed** beyond. The end of its claims
//! is its **frontier**. All frontiers together are always a valid configuration ([`planner`]); the claims are carried out in
//! their order, however late anybody is ([`claims`]). A vehicle that is late has its frontier stand still.
//!
//! What cannot be proven of pushing alone is kept from happening: narrow parts are entered with a pass only (`gates`). For whoever
//! does not get nearer those in front make way, though it takes them some steps; after a while it comes first; if that does not help
//! either, a way out is searched ([`search`]); if there is none, it is told.
//!
//! When somebody is silent, or is elsewhere than it should be, everybody's claims that are not allocated are taken back
//! ([`Traffic::retract`]). That is always a valid configuration too: what is allocated belongs to one alone.

pub mod claims;
mod gates;
pub mod planner;
pub mod pool;
mod presence;
pub mod roads;
pub mod search;
mod tracks;
mod way_out;

use crate::storage::{Storage, at, put};
use crate::units::Millis;
use claims::{Claims, PATH_MAX};
use gates::Gates;
use planner::{PASSES, Planner, Wish};
use pool::Pool;
use roads::{FAR, Goal, NO_GOAL, NO_POSE, OPEN, Place, Pose, Region, Roads};
use search::Search;
use way_out::WayOut;

/// How traffic works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Claimed places ahead of a vehicle at which its frontier stands still. At least `ahead`.
    pub lead: usize,
    /// Allocated places ahead of a vehicle: its authority (FIELD section 5).
    pub ahead: usize,
    /// What a step takes a vehicle that nobody is in the way of, milliseconds.
    pub step_ms: u64,
    /// Checks for one call of [`Traffic::work`].
    pub checks: u32,
    /// Checks for making a step better than it has to be, spread over the time it takes; 0 for none.
    pub improve: u32,
    /// Steps without getting nearer after which those in front of a vehicle make way.
    pub insist_after: u32,
    /// And after which it comes first.
    pub patience: u32,
    /// And after which a way out is searched.
    pub search_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lead: 3,
            ahead: 2,
            step_ms: 1_000,
            checks: 4_000,
            improve: 0,
            insist_after: 10,
            patience: 60,
            search_after: 200,
        }
    }
}

/// How large the tables are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Vehicles.
    pub vehicles: usize,
    /// Places.
    pub places: usize,
    /// Regions.
    pub regions: usize,
    /// Vehicles that a search moves at most.
    pub search_vehicles: usize,
    /// Configurations it makes at most.
    pub search_nodes: usize,
}

/// What is known of one vehicle.
#[derive(Clone, Copy, Debug)]
struct Driver {
    goal: Goal,
    class: u8,
    held: bool,
    /// It may be at any of its places: nobody plans to come to one of them.
    frozen: bool,
    /// The nearest its frontier has been to its goal, and in which step.
    best: u16,
    since: u32,
    /// The step by which it would be its turn at a gate: when it was sent, later for a lower class.
    turn: u32,
    passes: [Region; PASSES],
    jammed: bool,
}

impl Default for Driver {
    fn default() -> Self {
        Driver {
            goal: NO_GOAL,
            class: 3,
            held: false,
            frozen: false,
            best: FAR,
            since: 0,
            turn: 0,
            passes: [OPEN; PASSES],
            jammed: false,
        }
    }
}

/// The planner makes at most so many steps in the time a vehicle takes for one.
const FASTEST: u64 = 8;

/// A class lower counts as having been sent so many steps later: nobody waits at a gate for ever.
const CLASS_STEPS: u32 = 100;

/// Ranks in the planner's order; classes of orders follow.
mod rank {
    pub(super) const FIRST: u8 = 0;
    pub(super) const PASS: u8 = 1;
    pub(super) const CLASS: u8 = 2;
    pub(super) const IDLE: u8 = 16;
}

/// The traffic of a floor.
#[derive(Debug)]
pub struct Traffic<'m> {
    settings: Settings,
    planner: Planner<'m>,
    claims: Claims<'m>,
    gates: Gates<'m>,
    way_out: WayOut<'m>,
    drivers: &'m mut [Driver],
    step: u32,
    last_step_at: Millis,
    seed: u32,
}

impl<'m> Traffic<'m> {
    /// No vehicle is on the floor yet.
    pub fn new(storage: &impl Storage<'m>, pool: &'static Pool, size: Size, settings: Settings) -> Traffic<'m> {
        let Size { vehicles, places, regions, search_vehicles, search_nodes } = size;
        let search = Search::new(storage, search_vehicles, places, search_nodes, false);
        Traffic {
            settings,
            planner: Planner::new(storage, pool, vehicles, places, false),
            claims: Claims::new(storage, vehicles, places),
            gates: Gates::new(storage, regions),
            way_out: WayOut::new(storage, search, places, search_vehicles),
            drivers: storage.slice(vehicles, Driver::default()),
            step: 0,
            last_step_at: Millis(0),
            seed: 0x9E37_79B9,
        }
    }

    /// Number of vehicles there may be.
    pub fn vehicles(&self) -> usize {
        self.drivers.len()
    }

    fn driver(&self, vehicle: u16) -> Driver {
        at(self.drivers, usize::from(vehicle))
    }

    fn with(&mut self, vehicle: u16, change: impl FnOnce(&mut Driver)) {
        if let Some(driver) = self.drivers.get_mut(usize::from(vehicle)) {
            change(driver);
        }
    }

    /// Whether a vehicle is on the floor.
    pub fn is_present(&self, vehicle: u16) -> bool {
        self.claims.place(vehicle, 0).is_some()
    }

    /// Sends a vehicle to a goal, [`NO_GOAL`] for none; `class` 0 comes before 3.
    pub fn send(&mut self, vehicle: u16, goal: Goal, class: u8) {
        let step = self.step;
        self.with(vehicle, |d| {
            if d.goal != goal {
                (d.best, d.since, d.jammed) = (FAR, step, false);
                d.turn = step.wrapping_add(u32::from(class.min(7)) * CLASS_STEPS);
            }
            (d.goal, d.class) = (goal, class.min(7));
        });
    }

    /// Where a vehicle is sent.
    pub fn goal(&self, vehicle: u16) -> Goal {
        self.driver(vehicle).goal
    }

    /// Lets a vehicle's frontier stand still, or go on: while it takes a load, or cannot be seen.
    pub fn hold(&mut self, vehicle: u16, held: bool) {
        self.with(vehicle, |d| d.held = held);
    }

    /// Where a vehicle is: the last place it has reached.
    pub fn place(&self, vehicle: u16) -> Option<Place> {
        self.claims.place(vehicle, 0)
    }

    /// The places allocated to a vehicle ahead of where it is, nearest first.
    pub fn base(&self, vehicle: u16) -> impl Iterator<Item = Place> + '_ {
        (1..=self.claims.base(vehicle)).map_while(move |n| self.claims.place(vehicle, n))
    }

    /// The whole path of a vehicle: where it is, what is allocated, what is claimed.
    pub fn path(&self, vehicle: u16) -> impl Iterator<Item = Place> + '_ {
        (0..=self.claims.lead(vehicle)).map_while(move |n| self.claims.place(vehicle, n))
    }

    /// Whether a vehicle stands at its goal with nothing ahead of it.
    pub fn has_arrived(&self, roads: &Roads<'_>, vehicle: u16) -> bool {
        let goal = self.driver(vehicle).goal;
        self.claims.lead(vehicle) == 0 && self.place(vehicle).is_some_and(|p| roads.from_place(goal, p) == 0)
    }

    /// The pose a vehicle will go on from, or [`NO_POSE`]: where it stands at its frontier, it may turn into it.
    pub fn frontier(&self, vehicle: u16) -> Pose {
        self.planner.pose(vehicle)
    }

    /// Whether a vehicle does not get nearer to its goal and no way out was found.
    pub fn is_jammed(&self, vehicle: u16) -> bool {
        self.driver(vehicle).jammed
    }

    /// The regions a vehicle holds passes for, and how long it has not come nearer, in steps: for whoever looks for a reason.
    pub fn state(&self, vehicle: u16) -> ([Region; PASSES], u32, bool) {
        let d = self.driver(vehicle);
        (d.passes, self.step.wrapping_sub(d.since), self.way_out.moves(vehicle))
    }

    /// Who is at a place, or comes there next.
    pub fn first_of(&self, place: Place) -> Option<u16> {
        self.claims.first_of(place)
    }

    /// Steps planned so far.
    pub fn steps(&self) -> u32 {
        self.step
    }

    /// Checks made so far.
    pub fn checks(&self) -> u64 {
        self.planner.checks()
    }

    /// Whether a vehicle is at a place, or it is allocated to it.
    pub fn has(&self, vehicle: u16, place: Place) -> bool {
        self.place(vehicle) == Some(place) || self.base(vehicle).any(|p| p == place)
    }

    /// Whether a vehicle can be at a place after so many moves beyond what is allocated to it. Looks at every place at most.
    pub fn may_reach(&mut self, roads: &Roads<'_>, vehicle: u16, place: Place, moves: usize) -> bool {
        let own: heapless::Vec<Place, PATH_MAX> = self.place(vehicle).into_iter().chain(self.base(vehicle)).collect();
        self.way_out.may_reach(roads, &own, place, moves)
    }

    /// A vehicle says which place it has reached last. `false` when that is not a place allocated to it: it is where nobody
    /// has sent it.
    pub fn reached(&mut self, vehicle: u16, place: Place) -> bool {
        self.claims.reached(vehicle, place)
    }

    /// Takes back everything that is claimed and not allocated: somebody is not where it was thought to be.
    /// Also when other tables are handed in.
    pub fn retract(&mut self, roads: &Roads<'_>) {
        self.way_out.give_up(&mut self.planner);
        for vehicle in 0..self.vehicles() as u16 {
            self.claims.retract(vehicle);
        }
        self.planner.halt(roads);
        // Frontiers go back to the ends of the bases. First nobody is anywhere: one's end may be another's frontier.
        for vehicle in 0..self.vehicles() as u16 {
            self.planner.set_pose(roads, vehicle, NO_POSE);
        }
        for vehicle in 0..self.vehicles() as u16 {
            self.planner.set_pose(roads, vehicle, self.claims.last_pose(vehicle));
        }
    }

    /// Works on the next step, and gives out what can be given. At most [`Settings::checks`] checks, and a look at every vehicle.
    pub fn work(&mut self, roads: &Roads<'_>, now: Millis) {
        if self.planner.in_step() {
            if self.planner.work(roads, self.settings.checks) {
                self.finish(roads);
            }
        } else {
            self.way_out.work(roads, &mut self.planner, &mut self.claims, self.settings.lead, &mut self.step);
            if self.is_time(roads, now) {
                self.begin(roads, now);
            }
        }
        for vehicle in 0..self.vehicles() as u16 {
            if self.claims.lead(vehicle) > self.claims.base(vehicle) {
                self.claims.allocate(roads, vehicle, self.settings.ahead, |_| true);
            }
        }
    }

    /// Whether most vehicles that want to go on could be given more, or a step's time is over and one could.
    fn is_time(&self, roads: &Roads<'_>, now: Millis) -> bool {
        let (mut waiting, mut ready) = (0u32, 0u32);
        for vehicle in 0..self.vehicles() as u16 {
            let driver = self.driver(vehicle);
            let pose = self.planner.pose(vehicle);
            if driver.held || driver.goal == NO_GOAL || pose == NO_POSE || roads.distance(driver.goal, pose) == 0 {
                continue;
            }
            waiting += 1;
            ready += u32::from(self.claims.lead(vehicle) < self.settings.lead);
        }
        let since = now.since(self.last_step_at);
        let most = ready * 3 >= waiting * 2 && since * FASTEST >= self.settings.step_ms;
        ready > 0 && (most || since >= self.settings.step_ms)
    }

    fn begin(&mut self, roads: &Roads<'_>, now: Millis) {
        self.last_step_at = now;
        self.step = self.step.wrapping_add(1);
        self.give_passes(roads);
        let (drivers, claims, lead, way_out) = (&*self.drivers, &self.claims, self.settings.lead, &self.way_out);
        let (step, patience, insist_after) = (self.step, self.settings.patience, self.settings.insist_after);
        let planner = &mut self.planner;
        let gates = &self.gates;
        planner.begin(|vehicle, pose| {
            let d = at(drivers, usize::from(vehicle));
            // Who is inside a region, or may go in, goes before those who wait for it.
            let inside = d.passes.iter().any(|region| *region != OPEN);
            let late = d.goal != NO_GOAL && step.wrapping_sub(d.since) > patience;
            Wish {
                goal: d.goal,
                frozen: d.held
                    || claims.lead(vehicle) >= lead.min(PATH_MAX - pool::DEPTH - 1)
                    || way_out.moves(vehicle),
                rank: match () {
                    () if late => rank::FIRST,
                    () if inside => rank::PASS,
                    () if d.goal == NO_GOAL => rank::IDLE,
                    () => rank::CLASS + d.class,
                },
                insists: d.goal != NO_GOAL && step.wrapping_sub(d.since) > insist_after,
                keep_off: gates.keep_off(roads, &d.passes, d.goal, pose),
                passes: d.passes,
            }
        });
    }

    fn finish(&mut self, roads: &Roads<'_>) {
        let (settings, seed) = (self.settings, &mut self.seed);
        if self.settings.improve > 0 {
            self.planner.improve(roads, settings.improve, |count| draw(seed, count));
        }
        let (claims, step) = (&mut self.claims, self.step);
        self.planner.commit(roads, |vehicle, from, pose| {
            if roads.place(from) != roads.place(pose) {
                claims.claim(vehicle, roads.place(pose), pose, step);
                claims.shorten(roads, vehicle);
            }
        });
        self.note_progress(roads);
    }

    /// Who has come nearer, and who has not for long.
    fn note_progress(&mut self, roads: &Roads<'_>) {
        let mut worst = None;
        for vehicle in 0..self.vehicles() as u16 {
            let mut d = self.driver(vehicle);
            let pose = self.planner.pose(vehicle);
            if pose == NO_POSE || d.goal == NO_GOAL {
                continue;
            }
            let left = roads.distance(d.goal, pose);
            // Who is held, is late, or waits for a pass does not wait for the planner.
            let excused = d.held
                || left == 0
                || self.claims.lead(vehicle) >= self.settings.lead
                || self.way_out.moves(vehicle)
                || self.gates.keep_off(roads, &d.passes, d.goal, pose) > 0;
            if left < d.best {
                (d.best, d.since, d.jammed) = (left, self.step, false);
            } else if excused {
                d.since = d.since.wrapping_add(1).min(self.step);
            } else if self.step.wrapping_sub(d.since) > self.settings.search_after {
                worst = match worst {
                    Some((since, _)) if since <= d.since => worst,
                    _ => Some((d.since, vehicle)),
                };
            }
            put(self.drivers, usize::from(vehicle), d);
        }
        if let Some((_, vehicle)) = worst
            && !self.way_out.is_busy()
        {
            let (drivers, planner) = (&*self.drivers, &mut self.planner);
            let who = |v: u16| (at(drivers, usize::from(v)).goal, at(drivers, usize::from(v)).held);
            let begun = self.way_out.begin(roads, planner, vehicle, who);
            let step = self.step;
            self.with(vehicle, |d| (d.since, d.jammed) = (step, d.jammed || !begun));
        }
        if let Some(vehicle) = self.way_out.failed() {
            self.with(vehicle, |d| d.jammed = true);
        }
    }
}

/// A number below `count` (xorshift32): where to look for something better first. Any order would do.
fn draw(seed: &mut u32, count: u16) -> u16 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    ((u64::from(*seed) * u64::from(count)) >> 32) as u16
}
