//! Vehicles on a road map, in steps, from a seed: some late, some silent for a while, some set down elsewhere. Traffic alone, with
//! nothing to carry; the truth about who is where is kept here and checked after every step.
//!
//! ```text
//!   Traffic ──base──> vehicle: drives the next place of its base, in one step or, late, in several
//!      ^                 │     while it drives it is in both places
//!      └────reached──────┘     at its goal: waits a while, then is sent elsewhere
//! ```

use control_core::traffic::pool::TURNING;
use control_core::traffic::roads::{Goal, NO_GOAL, Place, Pose, Roads};
use control_core::traffic::{Settings, Size, Traffic};
use control_core::units::Millis;
use floor_plan::{Arena, Proof, RoadTables};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What may happen to vehicles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Probability that a vehicle that could drive on does not in a step.
    pub late: f64,
    /// Probability that a vehicle breaks down in a step: it stands where it is for a while.
    pub breaks_down: f64,
    /// Probability that a vehicle that stands is taken away in a step, and set down somewhere else later.
    pub carried_off: f64,
    /// Probability that a vehicle drives to a place that was not allocated to it. Never; but the checks have to notice.
    pub disobeys: f64,
}

/// What vehicles move on.
pub struct Floor<'m> {
    /// The road map, its goals measured.
    pub tables: &'m RoadTables,
    /// What is proven of it.
    pub proof: &'m Proof,
    /// A pose for each vehicle.
    pub starts: &'m [Pose],
    /// Rows of the table of distances to which they are sent.
    pub goals: Vec<Goal>,
    /// How traffic works.
    pub settings: Settings,
}

/// One vehicle as it really is.
#[derive(Clone, Copy, Debug)]
struct Body {
    at: Place,
    driving_to: Option<Place>,
    /// Steps it stands still.
    broken: u32,
    /// Taken off the floor for so many steps.
    away: u32,
    waits: u32,
    sent_at: u64,
}

/// The yard.
pub struct Yard<'m> {
    /// The traffic under test.
    pub traffic: Traffic<'m>,
    tables: &'m RoadTables,
    proof: &'m Proof,
    bodies: Vec<Body>,
    goals: Vec<Goal>,
    rng: fastrand::Rng,
    trouble: Trouble,
    step: u64,
    /// Goals reached.
    pub arrived: u64,
    /// The longest a vehicle took, steps.
    pub longest: u64,
    capacities: Vec<u16>,
    hash: DefaultHasher,
}

impl<'m> Yard<'m> {
    /// Vehicles on a road map.
    pub fn new(arena: &'m Arena, floor: Floor<'m>, trouble: Trouble, seed: u64) -> Result<Yard<'m>, String> {
        let Floor { tables, proof, starts, goals, settings } = floor;
        let size = Size {
            vehicles: starts.len(),
            places: tables.places,
            regions: proof.regions.len(),
            search_vehicles: 24.min(starts.len()),
            search_nodes: 2_000,
        };
        let mut traffic = Traffic::new(&arena, &TURNING, size, settings);
        let capacities = proof.capacities();
        let roads = tables.view().with_regions(&proof.region, &capacities);
        let mut bodies = Vec::new();
        for (v, pose) in (0u16..).zip(starts) {
            if !traffic.enter(&roads, v, *pose) {
                return Err(format!("vehicle {v} cannot stand at pose {pose}"));
            }
            let at = roads.place(*pose);
            bodies.push(Body { at, driving_to: None, broken: 0, away: 0, waits: 0, sent_at: 0 });
        }
        Ok(Yard {
            traffic,
            tables,
            proof,
            bodies,
            goals,
            rng: fastrand::Rng::with_seed(seed),
            trouble,
            step: 0,
            arrived: 0,
            longest: 0,
            capacities,
            hash: DefaultHasher::new(),
        })
    }

    fn roads(&self) -> Roads<'_> {
        self.tables.view().with_regions(&self.proof.region, &self.capacities)
    }

    /// A number that is equal if and only if everything that happened was equal.
    pub fn trace_hash(&self) -> u64 {
        self.hash.clone().finish()
    }

    /// Longest time any vehicle has been on its way now, steps.
    pub fn longest_now(&self) -> u64 {
        let busy = (0u16..).zip(&self.bodies).filter(|(v, b)| self.traffic.goal(*v) != NO_GOAL && b.away == 0);
        busy.map(|(_, b)| self.step - b.sent_at).max().unwrap_or(0)
    }

    /// One step of everything. The error says what should never be.
    pub fn step(&mut self) -> Result<(), String> {
        self.step += 1;
        for v in 0..self.bodies.len() {
            self.live(v);
        }
        // The planner is quicker than the vehicles: it may come round several times in a step.
        let (tables, region, capacities) = (self.tables, &self.proof.region, &self.capacities);
        let roads = tables.view().with_regions(region, capacities);
        for part in 0..6 {
            self.traffic.work(&roads, Millis(self.step * 1_000 + part * 160));
        }
        self.check()
    }

    /// What one vehicle does in a step.
    fn live(&mut self, v: usize) {
        let (tables, region, capacities) = (self.tables, &self.proof.region, &self.capacities);
        let roads = tables.view().with_regions(region, capacities);
        let id = v as u16;
        let mut body = self.bodies[v];
        if body.away > 0 {
            body.away -= 1;
            if body.away == 0 {
                let place = self.rng.u16(0..tables.places as u16);
                let pose = self.rng.u32(tables.poses_of(place));
                if self.occupied(place) || !self.traffic.enter(&roads, id, pose) {
                    body.away = 1;
                } else {
                    (body.at, body.driving_to, body.sent_at) = (place, None, self.step);
                    self.traffic.hold(id, false);
                }
            }
            self.bodies[v] = body;
            return;
        }
        if body.broken > 0 {
            body.broken -= 1;
            if body.broken == 0 {
                self.traffic.hold(id, false);
            }
            self.bodies[v] = body;
            return;
        }
        if let Some(to) = body.driving_to {
            if self.rng.f64() >= self.trouble.late {
                (body.at, body.driving_to) = (to, None);
                let known = self.traffic.reached(id, to);
                assert!(
                    known || self.trouble.disobeys > 0.0,
                    "vehicle {v} reached {to}, which was not allocated to it"
                );
                (v, to, self.step).hash(&mut self.hash);
            }
        } else if self.rng.f64() < self.trouble.breaks_down {
            body.broken = self.rng.u32(5..80);
            self.traffic.hold(id, true);
            self.traffic.retract(&roads);
        } else if self.rng.f64() < self.trouble.carried_off {
            body.away = self.rng.u32(5..60);
            self.traffic.leave(&roads, id);
        } else {
            let mut next = self.traffic.base(id).next();
            if next.is_none() && self.rng.f64() < self.trouble.disobeys {
                next = self.traffic.path(id).nth(1);
            }
            body.driving_to = next;
            if next.is_none() && (self.traffic.goal(id) == NO_GOAL || self.traffic.has_arrived(&roads, id)) {
                if self.traffic.goal(id) != NO_GOAL {
                    self.arrived += 1;
                    self.longest = self.longest.max(self.step - body.sent_at);
                    body.waits = self.rng.u32(0..6);
                    body.sent_at = self.step;
                    self.traffic.send(id, NO_GOAL, 3);
                    self.traffic.hold(id, true);
                }
                if body.waits == 0 {
                    let goal = self.goals[self.rng.usize(0..self.goals.len())];
                    self.traffic.hold(id, false);
                    self.traffic.send(id, goal, self.rng.u8(0..4));
                    body.sent_at = self.step;
                } else {
                    body.waits -= 1;
                }
            }
        }
        self.bodies[v] = body;
    }

    fn occupied(&self, place: Place) -> bool {
        self.bodies.iter().any(|b| b.away == 0 && (b.at == place || b.driving_to == Some(place)))
    }

    /// Nobody is where somebody else is, or near, or drives to.
    fn check(&self) -> Result<(), String> {
        let mut who = vec![None; self.tables.places];
        let roads = self.roads();
        for (v, body) in self.bodies.iter().enumerate().filter(|(_, b)| b.away == 0) {
            for place in [Some(body.at), body.driving_to].into_iter().flatten() {
                if let Some(other) = who[usize::from(place)].replace(v)
                    && other != v
                {
                    return Err(format!("step {}: vehicles {other} and {v} meet at place {place}", self.step));
                }
            }
        }
        for (place, v) in who.iter().enumerate().filter_map(|(p, v)| v.map(|v| (p, v))) {
            for near in roads.near(place as Place) {
                if let Some(other) = who[usize::from(*near)]
                    && other != v
                {
                    return Err(format!("step {}: vehicles {other} and {v} come near each other", self.step));
                }
            }
        }
        Ok(())
    }

    /// Everybody, for the text of a failing test.
    pub fn situation(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("{:?}\n", self.proof.regions);
        let roads = self.roads();
        for (v, body) in (0u16..).zip(&self.bodies) {
            let goal = self.traffic.goal(v);
            let left = roads.from_place(goal, body.at);
            let _ = writeln!(
                text,
                "  {v}: at {} broken {} away {} goal {goal} left {left}, sent {} steps ago, path {:?}, jammed {}, {:?}, region {}",
                body.at,
                body.broken,
                body.away,
                self.step - body.sent_at,
                self.traffic.path(v).collect::<Vec<_>>(),
                self.traffic.is_jammed(v),
                self.traffic.state(v),
                roads.region(body.at),
            );
        }
        text
    }
}
