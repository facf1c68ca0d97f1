//! Execution by order, not by time: what the planner has decided is carried out however late anybody is
//! (action dependency graph, Hoenig et al., RA-L 4, 2019).
//!
//! ```text
//!   claim ──────────> allocate ───────────> free                 (the words of openTCS)
//!   the planner's     its turn has come:    the vehicle has
//!   frontier moves    released to it,       reached the next
//!   onto a place      irrevocable           place: it has left
//!
//!   vehicle  [ 3 ][ 4 ][ 5 ][ 6 ]      3 where it is, 4 allocated, 5 and 6 claimed
//!                                      place 5:  B, then A  -> A waits until B has left
//! ```
//!
//! Each place keeps the order in which claims were made. The orders come from one valid plan without circles, so they cannot
//! wait for each other in a circle, whoever is late, and by how much: nothing can lock.

use super::roads::{NO_PLACE, NO_POSE, Place, Pose, Roads};
use crate::storage::{Storage, at, put};

/// Places one vehicle can have claimed, the one it is at included.
pub const PATH_MAX: usize = 16;
/// No claim.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Claim {
    place: Place,
    /// In which pose it comes there.
    pose: Pose,
    /// The planner's step in which it was made.
    step: u32,
    /// The next claim on the same place.
    after: u32,
}

impl Default for Claim {
    fn default() -> Self {
        Claim { place: NO_PLACE, pose: NO_POSE, step: 0, after: NONE }
    }
}

/// The path of one vehicle, as a ring.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    first: u8,
    length: u8,
    allocated: u8,
}

/// All claims.
#[derive(Debug)]
pub struct Claims<'m> {
    claims: &'m mut [Claim],
    paths: &'m mut [Path],
    /// The first and the last claim on each place.
    queues: &'m mut [(u32, u32)],
}

impl<'m> Claims<'m> {
    /// Nobody has claimed anything.
    pub fn new(storage: &impl Storage<'m>, vehicles: usize, places: usize) -> Claims<'m> {
        Claims {
            claims: storage.slice(vehicles * PATH_MAX, Claim::default()),
            paths: storage.slice(vehicles, Path::default()),
            queues: storage.slice(places, (NONE, NONE)),
        }
    }

    fn path(&self, vehicle: u16) -> Path {
        at(self.paths, usize::from(vehicle))
    }

    fn slot(vehicle: u16, path: Path, n: u8) -> u32 {
        let within = (usize::from(path.first) + usize::from(n)) % PATH_MAX;
        u32::from(vehicle) * PATH_MAX as u32 + within as u32
    }

    fn claim_at(&self, slot: u32) -> Claim {
        self.claims.get(slot as usize).copied().unwrap_or_default()
    }

    /// The `n`th place of a vehicle's path; 0 is where it is.
    pub fn place(&self, vehicle: u16, n: usize) -> Option<Place> {
        let path = self.path(vehicle);
        let n = u8::try_from(n).ok().filter(|n| *n < path.length)?;
        Some(self.claim_at(Self::slot(vehicle, path, n)).place)
    }

    /// The pose in which a vehicle comes to the last place of its path.
    pub fn last_pose(&self, vehicle: u16) -> Pose {
        let path = self.path(vehicle);
        path.length.checked_sub(1).map_or(NO_POSE, |n| self.claim_at(Self::slot(vehicle, path, n)).pose)
    }

    /// Claimed places ahead of where it is.
    pub fn lead(&self, vehicle: u16) -> usize {
        usize::from(self.path(vehicle).length).saturating_sub(1)
    }

    /// Allocated places ahead of where it is.
    pub fn base(&self, vehicle: u16) -> usize {
        usize::from(self.path(vehicle).allocated).saturating_sub(1)
    }

    /// Whether another claim fits.
    pub fn has_room(&self, vehicle: u16) -> bool {
        usize::from(self.path(vehicle).length) < PATH_MAX
    }

    /// Who has claimed a place first: who is there, or comes there next.
    pub fn first_of(&self, place: Place) -> Option<u16> {
        let (head, _) = self.queues.get(usize::from(place)).copied().unwrap_or((NONE, NONE));
        (head != NONE).then_some((head as usize / PATH_MAX) as u16)
    }

    /// A vehicle stands at a place: claimed and allocated at once. Refused when anybody else has claimed it.
    pub fn enter(&mut self, vehicle: u16, place: Place, pose: Pose) -> bool {
        let free = self.queues.get(usize::from(place)).is_some_and(|(head, _)| *head == NONE);
        if !free || usize::from(vehicle) >= self.paths.len() {
            return false;
        }
        self.leave(vehicle);
        self.claim(vehicle, place, pose, 0);
        if let Some(path) = self.paths.get_mut(usize::from(vehicle)) {
            path.allocated = 1;
        }
        true
    }

    /// A vehicle that stands somewhere has these places too, as far as nobody has claimed them.
    pub fn keep(&mut self, vehicle: u16, places: &[Place]) {
        let pose = self.last_pose(vehicle);
        for place in places {
            let free = self.queues.get(usize::from(*place)).is_some_and(|(head, _)| *head == NONE);
            if free
                && self.claim(vehicle, *place, pose, 0)
                && let Some(path) = self.paths.get_mut(usize::from(vehicle))
            {
                path.allocated = path.length;
            }
        }
    }

    /// A vehicle is nowhere any more.
    pub fn leave(&mut self, vehicle: u16) {
        while self.path(vehicle).length > 0 {
            self.drop_last(vehicle);
        }
    }

    /// The frontier of a vehicle has moved onto a place, in this step of the planner. `false` when there is no room.
    pub fn claim(&mut self, vehicle: u16, place: Place, pose: Pose, step: u32) -> bool {
        let path = self.path(vehicle);
        let (Some(queue), true) = (self.queues.get_mut(usize::from(place)), usize::from(path.length) < PATH_MAX) else {
            return false;
        };
        let slot = Self::slot(vehicle, path, path.length);
        let before = queue.1;
        *queue = (if queue.0 == NONE { slot } else { queue.0 }, slot);
        if let Some(last) = self.claims.get_mut(before as usize) {
            last.after = slot;
        }
        put(self.claims, slot as usize, Claim { place, pose, step, after: NONE });
        put(self.paths, usize::from(vehicle), Path { length: path.length + 1, ..path });
        true
    }

    /// A vehicle whose frontier has gone to the next place and come back need not go there: it waits where it is, unless somebody
    /// has been let through meanwhile. Returns whether its path is shorter now.
    pub fn shorten(&mut self, roads: &Roads<'_>, vehicle: u16) -> bool {
        let path = self.path(vehicle);
        let Some(n) = path.length.checked_sub(3).filter(|n| n + 1 >= path.allocated) else { return false };
        let (first, last) = (Self::slot(vehicle, path, n), Self::slot(vehicle, path, n + 2));
        let (stays, comes) = (self.claim_at(first), self.claim_at(last));
        let later = |place: &Place| {
            let mut slot = self.queues.get(usize::from(*place)).map_or(NONE, |q| q.0);
            while slot != NONE {
                let claim = self.claim_at(slot);
                if slot as usize / PATH_MAX != usize::from(vehicle) && claim.step >= stays.step {
                    return true;
                }
                slot = claim.after;
            }
            false
        };
        if stays.place != comes.place || stays.after != last || roads.near(stays.place).iter().any(later) {
            return false;
        }
        self.drop_last(vehicle);
        self.drop_last(vehicle);
        if let Some(claim) = self.claims.get_mut(first as usize) {
            claim.pose = comes.pose;
        }
        true
    }

    /// Allocates to a vehicle what its turn has come for, up to `ahead` places ahead of where it is, while `may` agrees.
    /// Returns whether there was anything.
    pub fn allocate(
        &mut self,
        roads: &Roads<'_>,
        vehicle: u16,
        ahead: usize,
        mut may: impl FnMut(Place) -> bool,
    ) -> bool {
        let mut gained = false;
        loop {
            let path = self.path(vehicle);
            if path.allocated >= path.length || usize::from(path.allocated) > ahead {
                return gained;
            }
            let slot = Self::slot(vehicle, path, path.allocated);
            let claim = self.claim_at(slot);
            let its_turn = core::iter::once(&claim.place)
                .chain(roads.near(claim.place))
                .all(|place| self.nobody_before(vehicle, *place, claim.step));
            // A base never comes to a place twice: a vehicle that says where it is could not be understood.
            let again = (0..path.allocated).any(|n| self.claim_at(Self::slot(vehicle, path, n)).place == claim.place);
            if !its_turn || again || !may(claim.place) {
                return gained;
            }
            put(self.paths, usize::from(vehicle), Path { allocated: path.allocated + 1, ..path });
            gained = true;
        }
    }

    /// Whether no other vehicle has a claim on a place that was made before this step.
    fn nobody_before(&self, vehicle: u16, place: Place, step: u32) -> bool {
        let (mut slot, _) = self.queues.get(usize::from(place)).copied().unwrap_or((NONE, NONE));
        while slot != NONE {
            let claim = self.claim_at(slot);
            if slot as usize / PATH_MAX != usize::from(vehicle) {
                return claim.step >= step && self.is_behind(slot, step, vehicle);
            }
            slot = claim.after;
        }
        true
    }

    /// Two claims of one step are on places that are near each other: the planner lets that happen only one after the other.
    fn is_behind(&self, slot: u32, step: u32, vehicle: u16) -> bool {
        self.claim_at(slot).step > step || slot as usize / PATH_MAX > usize::from(vehicle)
    }

    /// A vehicle has reached a place: what lies behind is free. `false` when the place is not among those allocated to it.
    pub fn reached(&mut self, vehicle: u16, place: Place) -> bool {
        let path = self.path(vehicle);
        let Some(n) = (0..path.allocated).find(|n| self.claim_at(Self::slot(vehicle, path, *n)).place == place) else {
            return false;
        };
        for _ in 0..n {
            self.drop_first(vehicle);
        }
        true
    }

    /// Takes back what is claimed and not allocated. The frontier is then the end of the base.
    pub fn retract(&mut self, vehicle: u16) {
        while self.path(vehicle).length > self.path(vehicle).allocated {
            self.drop_last(vehicle);
        }
    }

    fn drop_first(&mut self, vehicle: u16) {
        let path = self.path(vehicle);
        self.unlink(Self::slot(vehicle, path, 0));
        let first = ((usize::from(path.first) + 1) % PATH_MAX) as u8;
        let (length, allocated) = (path.length.saturating_sub(1), path.allocated.saturating_sub(1));
        put(self.paths, usize::from(vehicle), Path { first, length, allocated });
    }

    fn drop_last(&mut self, vehicle: u16) {
        let path = self.path(vehicle);
        let length = path.length.saturating_sub(1);
        self.unlink(Self::slot(vehicle, path, length));
        put(self.paths, usize::from(vehicle), Path { length, allocated: path.allocated.min(length), ..path });
    }

    /// Takes a claim out of its place's order. Walks along the order, which is seldom longer than two.
    fn unlink(&mut self, slot: u32) {
        let gone = self.claim_at(slot);
        let Some((head, tail)) = self.queues.get(usize::from(gone.place)).copied() else { return };
        let mut before = NONE;
        let mut here = head;
        while here != NONE && here != slot {
            before = here;
            here = self.claim_at(here).after;
        }
        if here == NONE {
            return;
        }
        if let Some(claim) = self.claims.get_mut(before as usize) {
            claim.after = gone.after;
        }
        let head = if before == NONE { gone.after } else { head };
        let tail = if tail == slot { before } else { tail };
        put(self.queues, usize::from(gone.place), (head, tail));
        put(self.claims, slot as usize, Claim::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    struct Leak;
    impl Storage<'static> for Leak {
        fn slice<T: Copy>(&self, length: usize, entry: T) -> &'static mut [T] {
            std::vec![entry; length].leak()
        }
    }

    fn anywhere(_: Place) -> bool {
        true
    }

    #[test]
    fn who_claims_later_waits_until_who_claimed_first_has_left() {
        let roads = Roads::default();
        let mut c = Claims::new(&Leak, 2, 10);
        assert!(c.enter(0, 1, 1) && c.enter(1, 5, 5) && !c.enter(1, 1, 1));
        assert!(c.claim(0, 2, 2, 1) && c.claim(0, 3, 3, 2) && c.claim(1, 2, 2, 3));
        assert!(c.allocate(&roads, 0, 8, anywhere));
        assert_eq!((c.base(0), c.lead(0)), (2, 2));
        assert!(!c.allocate(&roads, 1, 8, anywhere), "A has still to pass place 2");
        assert!(c.reached(0, 2));
        assert!(!c.allocate(&roads, 1, 8, anywhere), "A is at place 2");
        assert!(c.reached(0, 3));
        assert!(c.allocate(&roads, 1, 8, anywhere));
        assert_eq!((c.place(1, 0), c.place(1, 1), c.first_of(2)), (Some(5), Some(2), Some(1)));
        assert!(!c.reached(1, 7), "not its place");
    }

    #[test]
    fn what_was_not_allocated_is_taken_back_and_others_go_on() {
        let roads = Roads::default();
        let mut c = Claims::new(&Leak, 2, 10);
        assert!(c.enter(0, 1, 1) && c.enter(1, 5, 5));
        assert!(c.claim(0, 2, 2, 1) && c.claim(0, 3, 3, 2) && c.claim(1, 3, 3, 3));
        assert!(c.allocate(&roads, 0, 1, anywhere));
        c.retract(0);
        assert_eq!((c.base(0), c.lead(0)), (1, 1));
        assert!(c.allocate(&roads, 1, 8, anywhere));
        c.leave(0);
        assert_eq!((c.first_of(1), c.first_of(2), c.place(0, 0)), (None, None, None));
    }

    #[test]
    fn nobody_drives_to_and_fro_for_nothing() {
        let roads = Roads::default();
        let mut c = Claims::new(&Leak, 2, 10);
        assert!(c.enter(0, 1, 1) && c.claim(0, 2, 2, 1) && c.claim(0, 1, 3, 2));
        assert!(c.shorten(&roads, 0));
        assert_eq!((c.lead(0), c.last_pose(0), c.first_of(2)), (0, 3, None));
        // Who has let somebody through has to go out of the way.
        assert!(
            c.enter(1, 5, 5)
                && c.claim(0, 2, 2, 3)
                && c.claim(1, 1, 1, 3)
                && c.claim(1, 6, 6, 4)
                && c.claim(0, 1, 1, 5)
        );
        assert!(!c.shorten(&roads, 0));
        // And what is allocated stays.
        let mut c = Claims::new(&Leak, 2, 10);
        assert!(c.enter(0, 1, 1) && c.claim(0, 2, 2, 1) && c.allocate(&roads, 0, 4, anywhere) && c.claim(0, 1, 1, 2));
        assert!(!c.shorten(&roads, 0));
    }

    #[test]
    fn places_near_each_other_share_one_order() {
        let (start, near) = ([0u32, 1, 2], [1u16, 0]);
        let roads = Roads::default().with_near(&start, &near);
        let mut c = Claims::new(&Leak, 2, 4);
        assert!(c.enter(0, 0, 0) && c.enter(1, 3, 3));
        assert!(c.claim(0, 2, 2, 5) && c.claim(1, 1, 1, 6));
        assert!(!c.allocate(&roads, 1, 8, anywhere), "A is near");
        assert!(c.allocate(&roads, 0, 8, anywhere) && c.reached(0, 2));
        assert!(c.allocate(&roads, 1, 8, anywhere));
    }
}
