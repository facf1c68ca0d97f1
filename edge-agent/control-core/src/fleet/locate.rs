//! Where a robot is, and whether that can be.
//!
//! ```text
//!                      a place of its own                 reached in the time, and free
//!   not on the roads ──────────────────────> STANDS ───────────────────────────────────> STANDS, there
//!     ^   first seen, or after a person's     │  ^
//!     │   word: any place that is free        │  │ back at a place of its own for a while, or a person: it is where it says
//!     │                                       v  │
//!     └──────a person: it is not there────── ASTRAY   it says a place that is none, that it cannot have reached, or that another has
//! ```
//!
//! A robot that is astray stays an obstacle where it was last known, with all that was allocated to it: it may be at any of these
//! places. It is told nothing, and what it carries waits with it. What it says is not believed by waiting: after a minute it could have
//! driven anywhere, and still have lost its way. So a person has to look.

use super::Fleet;
use crate::cycle::Controller;
use crate::event::{EventKind, Events};
use crate::floor::Floor;
use crate::image::{InputImage, MachineStatus, Stamped};
use crate::interlock;
use crate::traffic::roads::Place;
use crate::units::{MachineId, Millis};

/// Why a robot cannot be where it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stray {
    /// There is no such place: it does not know where it is.
    NoPlace,
    /// It cannot have driven there in the time.
    OutOfReach,
    /// Another robot is there, or has been let through there.
    Taken,
}

/// What is known of a robot's place in this cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is not on the roads.
    Off,
    /// It is in the way where it was last known, and is told nothing.
    Obstacle,
    /// It is where it is known to be.
    Known,
}

/// What a person has said of a robot's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is not on the floor.
    Absent,
    /// The same, said in an earlier run of one that could be seen: it comes back by a person's word alone.
    TakenOff,
    /// It is where it says.
    Located,
}

impl Fleet<'_> {
    /// A person has said something of a robot's place. It is acted upon when the robot is looked at, in the same cycle.
    pub(crate) fn set_word(&mut self, id: MachineId, word: Word) {
        for robot in self.robots.iter_mut().filter(|r| r.machine == id) {
            robot.word = Some(word);
        }
    }

    /// Why a robot cannot be where it says, and the place it says.
    pub(crate) fn stray(&self, vehicle: u16) -> Option<(Stray, Place)> {
        self.robot(vehicle).and_then(|r| r.stray)
    }
}

impl Controller<'_> {
    /// Finds out where a robot is.
    pub(super) fn locate(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        vehicle: u16,
        events: &mut Events,
    ) -> Sight {
        let seen = image.machine(id);
        let fresh = seen.fresh(now, self.settings.stale_ms).is_some() && self.machine(id).handshaken;
        let mut word = None;
        self.fleet.with(vehicle, |r| word = r.word.take());
        match word {
            Some(Word::Absent) => self.take_off(floor, id, vehicle, fresh),
            Some(Word::TakenOff) => self.take_off(floor, id, vehicle, true),
            Some(Word::Located) | None => {}
        }
        let Some(robot) = self.fleet.robot(vehicle) else { return Sight::Off };
        let present = self.traffic.is_present(vehicle);
        if !fresh {
            if present && !robot.silent {
                self.freeze(floor, vehicle);
                self.fleet.with(vehicle, |r| r.silent = true);
            }
            return if present { Sight::Obstacle } else { Sight::Off };
        }
        self.fleet.with(vehicle, |r| r.silent = false);
        if robot.silent && robot.stray.is_none() {
            self.traffic.thaw(vehicle);
        }
        let located = word == Some(Word::Located);
        if located {
            self.fleet.with(vehicle, |r| r.taken_off = false);
        } else if robot.taken_off {
            return Sight::Off;
        }
        let sight = match (present, robot.stray) {
            (false, _) => self.appear(now, floor, id, vehicle, &seen, events),
            (true, None) => self.follow(now, floor, id, vehicle, &seen, events),
            (true, Some(_)) if located => self.believe(now, floor, id, vehicle, &seen, events),
            (true, Some(stray)) => self.wait_for_it(now, floor, id, vehicle, &seen, stray),
        };
        if sight == Sight::Known {
            self.fleet.with(vehicle, |r| (r.known_at, r.stray) = (seen.at, None));
        }
        sight
    }

    /// Everybody else plans anew around where it is and what it has. Of one that stands between two places all is closed already.
    fn freeze(&mut self, floor: &Floor<'_>, vehicle: u16) {
        if self.fleet.robot(vehicle).is_some_and(|r| r.between) {
            self.traffic.hold(vehicle, true);
            self.traffic.retract(floor.roads());
        } else {
            self.traffic.freeze(floor.roads(), vehicle);
        }
    }

    /// A person says that a robot is not on the floor. One that stands where it is known to be is in the way whatever they say. One that
    /// can be seen comes back by a person's word alone: what it says is not where it is.
    fn take_off(&mut self, floor: &Floor<'_>, id: MachineId, vehicle: u16, fresh: bool) {
        let present = self.traffic.is_present(vehicle);
        let known = present && self.fleet.robot(vehicle).is_some_and(|r| r.stray.is_none() && !r.silent);
        if known {
            return;
        }
        if present {
            self.end_task(floor, id);
            self.traffic.leave(floor.roads(), vehicle);
        }
        self.fleet.with(vehicle, |r| {
            (r.absent, r.taken_off) = (true, fresh);
            (r.stray, r.between, r.told) = (None, false, None);
        });
    }

    /// A robot that is not on the roads is put there where it says it stands, as soon as that is a place and free.
    fn appear(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        seen: &Stamped<MachineStatus>,
        events: &mut Events,
    ) -> Sight {
        match self.put(floor, vehicle, seen.value.at, is_blocked(&seen.value)) {
            Ok(()) => {
                self.fleet.with(vehicle, |r| r.absent = false);
                Sight::Known
            }
            Err(why) => {
                // Who is not on the floor says no place, and nobody minds.
                let absent = self.fleet.robot(vehicle).is_some_and(|r| r.absent);
                if !(absent && why == Stray::NoPlace) {
                    self.note_stray(now, id, vehicle, (why, seen.value.at), events);
                }
                Sight::Off
            }
        }
    }

    /// A robot on the roads says where it is.
    fn follow(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        seen: &Stamped<MachineStatus>,
        events: &mut Events,
    ) -> Sight {
        let (status, blocked) = (&seen.value, is_blocked(&seen.value));
        let between = self.fleet.robot(vehicle).is_some_and(|r| r.between);
        let found_back = between && !blocked;
        if self.traffic.has(vehicle, status.at) && (found_back || self.is_given_up(id, vehicle, status)) {
            // It is at one place again; or it has been stopped, and what lies ahead of it is for others.
            let _ = self.put(floor, vehicle, status.at, false); // a place of its own
            return Sight::Known;
        }
        if self.traffic.reached(vehicle, status.at) {
            return Sight::Known;
        }
        match self.may_have_reached(floor, vehicle, seen) {
            None => {
                self.traffic.hold(vehicle, true);
                Sight::Obstacle
            }
            Some(true) => self.believe(now, floor, id, vehicle, seen, events),
            Some(false) => self.lose(now, floor, id, vehicle, Stray::OutOfReach, status.at, events),
        }
    }

    /// Whether a robot has been stopped, is seen to stand at a place, and is told nothing, while there is more allocated to it.
    fn is_given_up(&self, id: MachineId, vehicle: u16, status: &MachineStatus) -> bool {
        let machine = self.machine(id);
        let stopped = machine.hold.is_some() && !machine.link.busy() && !status.executing() && !is_blocked(status);
        stopped && self.traffic.base(vehicle).next().is_some()
    }

    /// Whether a robot can have driven in the time to where it says it is; `None` when there was no time left to look, see
    /// [`crate::limits::LOOKS_PER_CYCLE`].
    fn may_have_reached(&mut self, floor: &Floor<'_>, vehicle: u16, seen: &Stamped<MachineStatus>) -> Option<bool> {
        let roads = floor.roads();
        if roads.poses_of(seen.value.at).is_empty() {
            return Some(true); // it is none at all, which comes first
        }
        let known_at = self.fleet.robot(vehicle).map_or(seen.at, |r| r.known_at);
        // A status may be as old as that when it is received.
        let ms = seen.at.since(known_at).saturating_add(self.settings.stale_ms);
        let moves = usize::try_from(ms / roads.shortest_ms()).unwrap_or(usize::MAX).saturating_add(1);
        self.fleet.looks = self.fleet.looks.checked_sub(1)?;
        Some(self.traffic.may_reach(roads, vehicle, seen.value.at, moves))
    }

    /// It is where it says, if that is a place and free.
    fn believe(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        seen: &Stamped<MachineStatus>,
        events: &mut Events,
    ) -> Sight {
        match self.put(floor, vehicle, seen.value.at, is_blocked(&seen.value)) {
            Ok(()) => {
                events.push(now, EventKind::RobotElsewhere(id, seen.value.at));
                Sight::Known
            }
            Err(why) => self.lose(now, floor, id, vehicle, why, seen.value.at, events),
        }
    }

    /// From here on a robot is in the way where it was last known, until it is back there or somebody has looked.
    #[allow(clippy::too_many_arguments)] // one robot, by both its names
    fn lose(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        why: Stray,
        says: Place,
        events: &mut Events,
    ) -> Sight {
        self.freeze(floor, vehicle);
        self.note_stray(now, id, vehicle, (why, says), events);
        Sight::Obstacle
    }

    /// Tells once why a robot cannot be where it says.
    fn note_stray(&mut self, now: Millis, id: MachineId, vehicle: u16, stray: (Stray, Place), events: &mut Events) {
        if self.fleet.stray(vehicle).is_none_or(|(why, _)| why != stray.0) {
            events.push(now, EventKind::RobotAstray(id, stray.1, stray.0));
        }
        self.fleet.with(vehicle, |r| (r.stray, r.back_since) = (Some(stray), None));
    }

    /// A robot that is astray has found back when it says a place of its own for as long as a sensor has to.
    fn wait_for_it(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        vehicle: u16,
        seen: &Stamped<MachineStatus>,
        stray: (Stray, Place),
    ) -> Sight {
        if !self.traffic.has(vehicle, seen.value.at) {
            // What it says may change; why it is not believed does not.
            self.fleet.with(vehicle, |r| (r.stray, r.back_since) = (Some((stray.0, seen.value.at)), None));
            return Sight::Obstacle;
        }
        let since = self.fleet.robot(vehicle).and_then(|r| r.back_since).unwrap_or(now);
        self.fleet.with(vehicle, |r| r.back_since = Some(since));
        if now.since(since) < self.settings.odd_ms {
            return Sight::Obstacle;
        }
        self.traffic.thaw(vehicle);
        if self.is_given_up(id, vehicle, &seen.value) {
            let _ = self.put(floor, vehicle, seen.value.at, false); // a place of its own
        } else {
            self.traffic.reached(vehicle, seen.value.at);
        }
        Sight::Known
    }

    /// Puts a robot onto the roads at a place, wherever it was before. Refused, with everything as it was, when that is no place or
    /// another's. One that is blocked stands between two places and says only one: until it has found back, all around it is its own.
    fn put(&mut self, floor: &Floor<'_>, vehicle: u16, place: Place, blocked: bool) -> Result<(), Stray> {
        let roads = floor.roads();
        let pose = roads.poses_of(place).next().ok_or(Stray::NoPlace)?;
        // Who stands between two places, nobody knows which, does not stand where this one is seen.
        let other = self.traffic.first_of(place).filter(|other| {
            *other != vehicle
                && self.traffic.place(*other) != Some(place)
                && self.fleet.robot(*other).is_some_and(|r| r.between)
        });
        if let Some(other) = other {
            self.traffic.give_up_place(roads, other, place);
        }
        let entered = match blocked {
            true => self.traffic.enter_around(roads, vehicle, pose),
            false => self.traffic.enter(roads, vehicle, pose),
        };
        if !entered {
            return Err(Stray::Taken);
        }
        self.fleet.with(vehicle, |r| r.between = blocked);
        Ok(())
    }
}

/// It stands between two places.
fn is_blocked(status: &MachineStatus) -> bool {
    status.interlocks & interlock::AXIS_BLOCKED != 0
}
