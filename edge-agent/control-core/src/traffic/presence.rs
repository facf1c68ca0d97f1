//! Vehicles that come onto the floor and leave it, stand between two places, or are nobody knows where.
//!
//! ```text
//!   nowhere ──enter──> at a place ──freeze──> at any place of its path: all of them closed to everybody else
//!      ^                 │    ^                  │
//!      └──────leave──────┘    └───────thaw───────┘      enter_around: between a place and one beside it, so all around is its own
//! ```

use super::claims::PATH_MAX;
use super::planner::PASSES;
use super::roads::{NO_POSE, OPEN, Place, Pose, Roads};
use super::{Driver, Traffic};

impl Traffic<'_> {
    /// A vehicle stands at a pose, wherever it was before. Refused, with everything as it was, when somebody is there, or near, or has
    /// claimed it; for one that is on the floor already claims of others give way that are not allocated.
    pub fn enter(&mut self, roads: &Roads<'_>, vehicle: u16, pose: Pose) -> bool {
        let place = roads.place(pose);
        if self.is_present(vehicle) {
            self.retract(roads);
            let free = |p: &Place| self.claims.first_of(*p).is_none_or(|other| other == vehicle);
            if !free(&place) || !roads.near(place).iter().all(free) {
                return false;
            }
            self.leave(roads, vehicle);
        }
        if self.way_out.uses(place) {
            return false;
        }
        self.planner.abandon();
        if !self.claims.enter(vehicle, place, pose) {
            return false;
        }
        if !self.planner.set_pose(roads, vehicle, pose) {
            self.claims.leave(vehicle);
            return false;
        }
        let region = roads.region(place);
        self.with(vehicle, |d| {
            *d = Driver { goal: d.goal, class: d.class, held: d.held, ..Driver::default() };
            d.passes = [region, OPEN];
        });
        self.gates.admit(region);
        true
    }

    /// A vehicle stands between this pose's place and one beside it, nobody knows which: all of them are its own, but for those at which
    /// somebody stands. Refused while somebody has been let through there. It has to be held, and taken off before it drives.
    pub fn enter_around(&mut self, roads: &Roads<'_>, vehicle: u16, pose: Pose) -> bool {
        self.retract(roads);
        let place = roads.place(pose);
        let around = roads.beside(place);
        let other = |p: Place| self.claims.first_of(p).filter(|other| *other != vehicle);
        let stands = |p: Place| other(p).is_some_and(|v| self.claims.place(v, 0) == Some(p));
        let is_free = |p: &Place| other(*p).is_none() && !self.way_out.uses(*p);
        if around.len() >= PATH_MAX || !around.iter().all(|p| stands(*p) || is_free(p)) {
            return false;
        }
        if !self.enter(roads, vehicle, pose) {
            return false;
        }
        self.keep(vehicle, around);
        true
    }

    /// A vehicle that stands between two places has these too.
    fn keep(&mut self, vehicle: u16, places: &[Place]) {
        self.hold(vehicle, true);
        self.claims.keep(vehicle, places);
        for n in 1..=self.claims.lead(vehicle) {
            self.claims.place(vehicle, n).into_iter().for_each(|p| self.planner.close(p, true));
        }
    }

    /// A vehicle that stands between two places is seen not to be at this one: somebody else is.
    pub fn give_up_place(&mut self, roads: &Roads<'_>, vehicle: u16, place: Place) {
        let kept: heapless::Vec<Place, PATH_MAX> = self.path(vehicle).skip(1).filter(|p| *p != place).collect();
        let Some(pose) = self.place(vehicle).and_then(|p| roads.poses_of(p).next()) else { return };
        self.leave(roads, vehicle);
        if self.enter(roads, vehicle, pose) {
            self.keep(vehicle, &kept);
        }
    }

    /// Takes a vehicle off the floor. Everybody's claims that are not allocated are taken back.
    pub fn leave(&mut self, roads: &Roads<'_>, vehicle: u16) {
        self.retract(roads);
        self.thaw(vehicle);
        self.planner.set_pose(roads, vehicle, NO_POSE);
        for n in 1..=self.claims.lead(vehicle) {
            self.claims.place(vehicle, n).into_iter().for_each(|p| self.planner.close(p, false));
        }
        self.claims.leave(vehicle);
        for region in self.driver(vehicle).passes {
            self.gates.release(region);
        }
        self.with(vehicle, |d| d.passes = [OPEN; PASSES]);
    }

    /// Nobody knows at which of its places a vehicle is, nor whether it will ever leave one: it is held, and to everybody else all of them
    /// are closed. Without that they would plan to come when it has gone, and wait for ever. Everybody's claims that are not allocated are
    /// taken back.
    pub fn freeze(&mut self, roads: &Roads<'_>, vehicle: u16) {
        self.hold(vehicle, true);
        self.retract(roads);
        self.with(vehicle, |d| d.frozen = true);
        self.close_path(vehicle, true);
    }

    /// It is known again where a vehicle is.
    pub fn thaw(&mut self, vehicle: u16) {
        if self.driver(vehicle).frozen {
            self.close_path(vehicle, false);
            self.with(vehicle, |d| d.frozen = false);
        }
    }

    /// At the last place of its path it stands in the planner itself.
    fn close_path(&mut self, vehicle: u16, closed: bool) {
        for n in 0..self.claims.lead(vehicle) {
            self.claims.place(vehicle, n).into_iter().for_each(|p| self.planner.close(p, closed));
        }
    }
}
