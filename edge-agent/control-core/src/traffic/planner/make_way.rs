//! Making way: whoever has waited for long sends those in front of it away, though it cannot follow at once.
//!
//! ```text
//!   A> . <B <C .        A comes first. B would have to turn, and C stands behind it: within three steps nobody gives A its place.
//!   A> . <B  C> .       So C, the first of them that can leave its place, is told to.
//!   A> .  B> .  C>      Now B can: it turns and leaves.
//!   .  A> .  B> .       And A comes. In a lane with a free place somewhere, whoever comes first gets through.
//! ```
//!
//! A push works at once or not at all: the one who is pushed has to be gone within the planner's horizon, before the one who pushes
//! comes (real vehicles do not start all at the same instant). Two who meet head-on in a lane need longer, for one of them has to turn.

use super::{Judge, Planner, at, at_pose};
use crate::storage::put;
use crate::traffic::pool::DEPTH;
use crate::traffic::roads::{NO_PLACE, NO_POSE, Place, Roads, WAYS};
use crate::traffic::tracks::Track;

/// Vehicles, one behind the other, that are asked whether they can leave.
const QUEUE_MAX: usize = 16;

impl Planner<'_> {
    /// A vehicle has had its turn, and does not get nearer: somebody of those in front of it leaves, if one can. Until so many checks
    /// have been made.
    pub(super) fn make_way(&mut self, roads: &Roads<'_>, vehicle: u16, end: u64) {
        let v = usize::from(vehicle);
        let priority = at(self.priority, v);
        if u32::from(at(self.now, v).left) < priority & super::DISTANCE {
            return;
        }
        let judge = Judge::Order { above: priority };
        let mut before = roads.place(at_pose(self.pose, v));
        let mut place = self.next_place(roads, vehicle);
        for _ in 0..QUEUE_MAX {
            let Some(other) = self.tracks.occupant(place).filter(|o| self.may_push(*o, judge)) else { return };
            self.keep_those_that_leave(other, place);
            self.solve(roads, other, judge, end);
            if at(self.now, usize::from(other)).track[DEPTH] != place {
                return;
            }
            (before, place) = (place, self.exit_of(other, before, judge));
        }
    }

    /// The next place on a vehicle's shortest way.
    fn next_place(&self, roads: &Roads<'_>, vehicle: u16) -> Place {
        let mut pose = at_pose(self.pose, usize::from(vehicle));
        let goal = at(self.wish, usize::from(vehicle)).goal;
        let here = roads.place(pose);
        // Some turns, then a move.
        for _ in 0..WAYS {
            let ways = (0..WAYS).map(|way| roads.after(pose, way)).filter(|p| *p != NO_POSE);
            let Some(next) = ways.min_by_key(|p| roads.distance(goal, *p)) else { return NO_PLACE };
            if roads.place(next) != here {
                return roads.place(next);
            }
            pose = next;
        }
        NO_PLACE
    }

    /// Of what a vehicle could do only what ends elsewhere remains.
    fn keep_those_that_leave(&mut self, vehicle: u16, place: Place) {
        let v = usize::from(vehicle);
        let count = usize::from(at(self.choice_count, v));
        let Some(choices) = self.choices.get_mut(v) else { return };
        let mut kept = 0usize;
        for n in 0..count {
            let choice = at(choices, n);
            if choice.track[DEPTH] != place {
                put(choices, kept, choice);
                kept += 1;
            }
        }
        put(self.choice_count, v, kept as u8);
    }

    /// Where a vehicle would leave to, not back to where it is wanted from, if whoever stands there left.
    fn exit_of(&self, vehicle: u16, wanted: Place, judge: Judge) -> Place {
        let v = usize::from(vehicle);
        let first = |track: &Track| track.iter().copied().find(|p| *p != track[0]).unwrap_or(NO_PLACE);
        let choices = self.choices.get(v).into_iter().flatten().take(usize::from(at(self.choice_count, v)));
        let mut exits = choices.map(|c| first(&c.track)).filter(|p| *p != wanted);
        exits.find(|p| self.tracks.occupant(*p).is_some_and(|o| self.may_push(o, judge))).unwrap_or(NO_PLACE)
    }
}
