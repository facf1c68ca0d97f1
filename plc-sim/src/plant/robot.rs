//! A mobile robot's body: it drives from place to place along what it was told, slows down for bends and for the end of its
//! path, turns on the spot, and uses its battery.
//!
//! ```text
//!   at ──gone──●───── ahead[0] ───── ahead[1]       speed <= sqrt(2 a x metres to the next bend or end)
//! ```
//!
//! While it is between two places it is in the way at both. One that has had to stop there goes back to where it came from
//! before it does anything else: that place is its own, whatever its owner has forgotten.

use crate::config::RobotConfig;
use control_core::traffic::roads::Place;
use floor_plan::FloorPlan;
use std::collections::VecDeque;

/// Robots that go back do so at this speed, metres per second.
const CREEP: f64 = 0.3;
/// Roads that meet at less than this are driven without a stop, degrees.
const BEND_DEG: f64 = floor_plan::tables::BEND_DEG;

/// A mobile robot.
#[derive(Clone, Debug)]
pub struct Robot {
    speed_max: f64,
    acceleration: f64,
    config: RobotConfig,
    at: Place,
    ahead: VecDeque<Place>,
    /// Metres from `at` towards the first place ahead.
    gone: f64,
    speed: f64,
    heading_deg: f64,
    turn_left_deg: f64,
    stranded: bool,
    charge: f64,
    /// It has lost its way, and says that it is there.
    says: Option<Place>,
    /// It has been carried off the floor.
    off: bool,
}

fn apart(a: f64, b: f64) -> f64 {
    let d = (a - b).rem_euclid(360.0);
    d.min(360.0 - d)
}

impl Robot {
    /// A robot that stands at a place.
    pub fn new(at: Place, speed_max: f64, acceleration: f64, config: RobotConfig, charge: f64) -> Robot {
        Robot {
            speed_max,
            acceleration,
            config,
            at,
            ahead: VecDeque::new(),
            gone: 0.0,
            speed: 0.0,
            heading_deg: 0.0,
            turn_left_deg: 0.0,
            stranded: false,
            charge,
            says: None,
            off: false,
        }
    }

    /// The place it has reached last.
    pub fn at(&self) -> Place {
        self.at
    }

    /// The place it says it has reached last.
    pub fn says(&self) -> Place {
        self.says.unwrap_or(self.at)
    }

    /// Whether it has been carried off the floor: it is in nobody's way.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// It is carried off the floor, or set down again where it was.
    pub fn carry_off(&mut self, off: bool) {
        self.halt();
        (self.gone, self.stranded, self.off) = (0.0, false, off);
        self.ahead.clear();
    }

    /// It loses its way, and says that it is there; or it has found it again.
    pub fn lose_its_way(&mut self, says: Option<Place>) {
        self.says = says;
    }

    /// The place it is on its way to, while it is between two.
    pub fn towards(&self) -> Option<Place> {
        self.ahead.front().copied().filter(|_| self.gone > 0.0)
    }

    /// It has had to stop between two places.
    pub fn is_stranded(&self) -> bool {
        self.stranded
    }

    /// Speed, metres per second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Battery, 0 to 1.
    pub fn charge(&self) -> f64 {
        self.charge
    }

    /// Somebody has changed its battery.
    pub fn set_charge(&mut self, charge: f64) {
        self.charge = charge;
    }

    /// Direction, degrees.
    pub fn heading_deg(&self) -> f64 {
        self.heading_deg
    }

    /// Where it is in the hall, metres.
    pub fn position(&self, plan: &FloorPlan) -> (f64, f64) {
        let here = spot(plan, self.at);
        let Some(next) = self.ahead.front().filter(|_| self.gone > 0.0) else { return here };
        let (there, way) = (spot(plan, *next), length(plan, self.at, *next));
        let part = (self.gone / way).clamp(0.0, 1.0);
        (here.0 + (there.0 - here.0) * part, here.1 + (there.1 - here.1) * part)
    }

    /// What is still ahead of it on a path it is told, which may begin with places it has passed; `None` if it cannot go there.
    fn rest_of(&self, plan: &FloorPlan, path: &[Place]) -> Option<VecDeque<Place>> {
        let passed = path.iter().rposition(|p| *p == self.at).map_or(0, |n| n + 1);
        let rest: VecDeque<Place> = path.get(passed..)?.iter().copied().collect();
        let floor = plan.view();
        let mut before = self.at;
        for place in &rest {
            if !floor.roads().beside(before).contains(place) {
                return None;
            }
            before = *place;
        }
        let goes_on = self.towards().is_none_or(|next| rest.front() == Some(&next));
        goes_on.then_some(rest)
    }

    /// Whether it could drive along these places.
    pub fn accepts(&self, plan: &FloorPlan, path: &[Place]) -> bool {
        !path.is_empty() && !self.stranded && self.rest_of(plan, path).is_some()
    }

    /// Drives along these places, from wherever it is now.
    pub fn go(&mut self, plan: &FloorPlan, path: &[Place]) {
        if let Some(rest) = self.rest_of(plan, path) {
            self.ahead = rest;
        }
    }

    /// Stops at once.
    pub fn halt(&mut self) {
        self.speed = 0.0;
        self.turn_left_deg = 0.0;
        self.stranded = self.gone > 0.0;
        self.ahead.truncate(usize::from(self.stranded));
    }

    /// A person sets it down elsewhere.
    pub fn put(&mut self, at: Place) {
        self.halt();
        (self.at, self.gone, self.stranded) = (at, 0.0, false);
        self.ahead.clear();
    }

    /// Moves on by `dt` seconds; true when it stands at the end of its path.
    pub fn step(&mut self, dt: f64, plan: &FloorPlan) -> bool {
        self.use_battery(dt, plan);
        let Some(next) = self.ahead.front().copied() else { return true };
        if self.charge <= 0.0 {
            return false;
        }
        let bearing = bearing(plan, self.at, next);
        if self.gone <= 0.0 && apart(bearing, self.heading_deg) > BEND_DEG && self.turn_left_deg <= 0.0 {
            self.turn_left_deg = apart(bearing, self.heading_deg);
            self.speed = 0.0;
        }
        if self.turn_left_deg > 0.0 {
            let by = (90.0 * dt / self.config.turn_s.max(0.001)).min(self.turn_left_deg);
            self.turn_left_deg -= by;
            let to_the_right = (bearing - self.heading_deg).rem_euclid(360.0) <= 180.0;
            self.heading_deg += if to_the_right { by } else { -by };
            if self.turn_left_deg <= 0.0 {
                self.heading_deg = bearing;
            }
            return false;
        }
        self.heading_deg = bearing;
        let way = length(plan, self.at, next);
        let left = way - self.gone + self.straight_on(plan);
        let may = (2.0 * self.acceleration * left.max(0.0)).sqrt();
        self.speed = (self.speed + self.acceleration * dt).min(self.speed_max).min(may).max(0.02);
        self.gone += self.speed * dt;
        if self.gone + 0.001 < way {
            return false;
        }
        self.ahead.pop_front();
        (self.at, self.gone) = (next, if self.ahead.is_empty() { 0.0 } else { (self.gone - way).max(0.0) });
        let turns = self.ahead.front().is_some_and(|p| apart(self::bearing(plan, next, *p), bearing) > BEND_DEG);
        if self.ahead.is_empty() || turns {
            (self.speed, self.gone) = (0.0, 0.0);
        }
        self.ahead.is_empty()
    }

    /// Goes back to where it came from, after it has had to stop.
    pub fn find_back(&mut self, dt: f64, plan: &FloorPlan) {
        self.use_battery(dt, plan);
        if !self.stranded {
            return;
        }
        self.gone -= CREEP * dt;
        if self.gone <= 0.0 {
            (self.gone, self.stranded) = (0.0, false);
            self.ahead.clear();
        }
    }

    /// Metres beyond the next place that lie in its direction.
    fn straight_on(&self, plan: &FloorPlan) -> f64 {
        let mut sum = 0.0;
        let (mut before, mut direction) = (self.at, None);
        for place in &self.ahead {
            let now = bearing(plan, before, *place);
            match direction {
                None => {}
                Some(d) if apart(now, d) > BEND_DEG => break,
                Some(_) => sum += length(plan, before, *place),
            }
            (before, direction) = (*place, Some(now));
        }
        sum
    }

    fn use_battery(&mut self, dt: f64, plan: &FloorPlan) {
        let stands = self.ahead.is_empty();
        let rate = if stands && plan.charging.contains(&self.at) {
            1.0 / (self.config.charge_min * 60.0)
        } else {
            -1.0 / (self.config.standby_h * 3600.0) - self.speed / self.config.range_m
        };
        self.charge = (self.charge + rate * dt).clamp(0.0, 1.0);
    }
}

fn spot(plan: &FloorPlan, place: Place) -> (f64, f64) {
    plan.place_spots.get(usize::from(place)).map_or((0.0, 0.0), |s| (s.x, s.y))
}

fn length(plan: &FloorPlan, from: Place, to: Place) -> f64 {
    let ((x, y), (u, v)) = (spot(plan, from), spot(plan, to));
    (u - x).hypot(v - y).max(0.001)
}

fn bearing(plan: &FloorPlan, from: Place, to: Place) -> f64 {
    let ((x, y), (u, v)) = (spot(plan, from), spot(plan, to));
    (v - y).atan2(u - x).to_degrees().rem_euclid(360.0)
}
