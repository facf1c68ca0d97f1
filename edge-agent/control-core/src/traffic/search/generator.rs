//! The generator: one configuration that follows from another, as PIBT makes it (Okumura et al., Artificial Intelligence 310, 2022).
//!
//! ```text
//!   constraints are taken as they are; then each vehicle in the order of urgency takes the best place that is free,
//!   and pushes who stands there: that one looks for a place in turn; finds none: the one that pushed it looks further
//! ```
//!
//! Two on a line that want past each other, where there is no room ahead, change places where there is room: the one in front
//! leads back, the other follows (Okumura, IJCAI 2023, section 4).

use super::{CANDIDATES, NOBODY, Search, at_vehicle};
use crate::storage::{at, put};
use crate::traffic::roads::{FAR, NO_PLACE, Place, Roads};

/// One vehicle that looks for a place, on the stack of the generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    who: u16,
    tried: u8,
    count: u8,
    places: [Place; CANDIDATES],
    swap: u16,
}

impl Push {
    pub(super) const NONE: Push = Push { who: 0, tried: 0, count: 0, places: [NO_PLACE; CANDIDATES], swap: NOBODY };
}

impl Search<'_> {
    /// Makes a configuration that follows from a node, under a constraint and all above it, into `next`.
    pub(super) fn generate(&mut self, roads: &Roads<'_>, node: u32, constraint: u32) -> bool {
        for v in 0..self.count {
            put(self.was, usize::from(self.config_of(node, v)), v as u16);
            put(self.next, v, NO_PLACE);
        }
        let mut fits = true;
        let mut bound = constraint;
        while let Some(c) = self.constraint(bound).filter(|c| c.depth > 0) {
            fits = fits && self.take(node, c.who, c.place);
            bound = c.parent;
        }
        if fits {
            self.put_in_order(node);
            for n in 0..self.count {
                let who = at(self.order, n);
                if at(self.next, usize::from(who)) == NO_PLACE && !self.place_one(roads, node, who) {
                    fits = false;
                    break;
                }
            }
        }
        fits = fits
            && (self.circles || !self.has_circle(node))
            && self.keeps_distance(roads)
            && self.passes_near(roads, node);
        for v in 0..self.count {
            put(self.was, usize::from(self.config_of(node, v)), NOBODY);
            let to = at(self.next, v);
            put(self.will, usize::from(to), NOBODY);
        }
        fits
    }

    /// A vehicle takes a place, if it is free and nobody passes it on the way.
    fn take(&mut self, node: u32, who: u16, place: Place) -> bool {
        if at_vehicle(self.will, place) != NOBODY || at(self.closed, usize::from(place)) {
            return false;
        }
        let other = at_vehicle(self.was, place);
        if other != NOBODY
            && other != who
            && at(self.next, usize::from(other)) == self.config_of(node, usize::from(who))
        {
            return false;
        }
        put(self.will, usize::from(place), who);
        put(self.next, usize::from(who), place);
        true
    }

    /// PIBT for one vehicle and those it pushes. `false` when it finds no place.
    fn place_one(&mut self, roads: &Roads<'_>, node: u32, first: u16) -> bool {
        let mut depth = 0usize;
        self.enter(roads, node, depth, first);
        loop {
            let Some(mut frame) = self.frames.get(depth).copied() else { return false };
            let who = usize::from(frame.who);
            let here = self.config_of(node, who);
            // Whoever comes back to this frame has had its try at the last place taken away.
            let Some(place) = frame.places.get(usize::from(frame.tried)).copied().filter(|_| frame.tried < frame.count)
            else {
                // It stays, whatever that means to others, and the one that pushed it looks further.
                let free = at_vehicle(self.will, here);
                if free == NOBODY || usize::from(free) == who {
                    put(self.will, usize::from(here), frame.who);
                }
                put(self.next, who, here);
                if depth == 0 {
                    return free == NOBODY || usize::from(free) == who;
                }
                depth -= 1;
                self.untake(depth);
                continue;
            };
            frame.tried += 1;
            put(self.frames, depth, frame);
            if !self.take(node, frame.who, place) {
                continue;
            }
            let other = at_vehicle(self.was, place);
            if other == NOBODY || usize::from(other) == who || at(self.next, usize::from(other)) != NO_PLACE {
                self.pull(node, depth);
                return true;
            }
            if depth + 1 >= self.frames.len() {
                return false;
            }
            depth += 1;
            self.enter(roads, node, depth, other);
        }
    }

    /// After a push came to nothing: the pusher gives the place back, and the pushed one has it as its own.
    fn untake(&mut self, depth: usize) {
        let Some(frame) = self.frames.get(depth).copied() else { return };
        let place = at(self.next, usize::from(frame.who));
        let stays = at_vehicle(self.was, place);
        put(self.will, usize::from(place), stays);
        put(self.next, usize::from(frame.who), NO_PLACE);
    }

    /// Those with whom somebody on the stack has to change places follow into the places that were left.
    fn pull(&mut self, node: u32, depth: usize) {
        for level in (0..=depth).rev() {
            let Some(frame) = self.frames.get(level).copied() else { continue };
            let (who, swap) = (usize::from(frame.who), usize::from(frame.swap));
            let left = self.config_of(node, who);
            if frame.swap != NOBODY
                && frame.tried == 1
                && at(self.next, swap) == NO_PLACE
                && at(self.next, who) != left
                && self.party(swap).moves
            {
                let _ = self.take(node, frame.swap, left);
            }
        }
    }

    /// Puts a vehicle onto the generator's stack with the places it would go to, best first.
    fn enter(&mut self, roads: &Roads<'_>, node: u32, depth: usize, who: u16) {
        let v = usize::from(who);
        let here = self.config_of(node, v);
        let mut frame = Push { who, ..Push::NONE };
        let beside = if self.party(v).moves { roads.beside(here) } else { &[] };
        for place in beside.iter().copied().chain(core::iter::once(here)).take(CANDIDATES) {
            let far = self.far(roads, v, place);
            if far == FAR || at(self.closed, usize::from(place)) {
                continue;
            }
            // Nearest first; among equals where nobody is; then any, but not always the same.
            let key = |p: Place| {
                let taken = at_vehicle(self.was, p) != NOBODY && p != here;
                let any = (u32::from(p) ^ node << 9 ^ u32::from(who) << 20).wrapping_mul(0x9E37_79B9) >> 8;
                (self.far(roads, v, p), taken, any)
            };
            let mut n = usize::from(frame.count);
            while n > 0 && frame.places.get(n - 1).is_some_and(|before| key(*before) > key(place)) {
                let moved = frame.places.get(n - 1).copied().unwrap_or(NO_PLACE);
                put(&mut frame.places, n, moved);
                n -= 1;
            }
            put(&mut frame.places, n, place);
            frame.count += 1;
        }
        let swap = self.swap_partner(roads, node, who, &frame);
        if swap != NOBODY {
            frame.swap = swap;
            let count = usize::from(frame.count);
            if let Some(places) = frame.places.get_mut(..count) {
                places.reverse();
            }
        }
        put(self.frames, depth, frame);
    }

    /// The vehicle with which this one has to change places in a narrow part, if there is one and it can be done: then it
    /// goes back to where there is room, and the other follows (Okumura, IJCAI 2023, section 4).
    fn swap_partner(&self, roads: &Roads<'_>, node: u32, who: u16, frame: &Push) -> u16 {
        let v = usize::from(who);
        let (here, best) = (self.config_of(node, v), frame.places[0]);
        if best == here || best == NO_PLACE {
            return NOBODY;
        }
        let ahead = at_vehicle(self.was, best);
        if ahead != NOBODY
            && ahead != who
            && at(self.next, usize::from(ahead)) == NO_PLACE
            && self.must_swap(roads, v, usize::from(ahead), here, best)
            && self.can_swap(roads, best, here)
        {
            return ahead;
        }
        // Somebody behind wants to come through: lead it back to where there is room.
        for place in roads.beside(here) {
            let behind = at_vehicle(self.was, *place);
            if behind != NOBODY
                && *place != best
                && at(self.next, usize::from(behind)) == NO_PLACE
                && self.must_swap(roads, usize::from(behind), v, here, best)
                && self.can_swap(roads, best, here)
            {
                return behind;
            }
        }
        NOBODY
    }

    /// Whether two vehicles on a line, `pusher` behind `puller`, want past each other, and there is no room for that ahead.
    fn must_swap(&self, roads: &Roads<'_>, pusher: usize, puller: usize, from: Place, to: Place) -> bool {
        let (mut back, mut front) = (from, to);
        for _ in 0..roads.places() {
            if self.far(roads, pusher, front) >= self.far(roads, pusher, back) {
                break;
            }
            match self.ways_on(roads, back, front) {
                (_, 2..) => return false,
                (Some(only), 1) => (back, front) = (front, only),
                _ => break,
            }
        }
        self.far(roads, puller, back) < self.far(roads, puller, front)
            && (self.far(roads, pusher, back) == 0 || self.far(roads, pusher, front) < self.far(roads, pusher, back))
    }

    /// How many ways lead on from a place to which one came from another, and the last of them. A dead end in which somebody is
    /// at its goal leads nowhere.
    fn ways_on(&self, roads: &Roads<'_>, back: Place, front: Place) -> (Option<Place>, usize) {
        let is_taken_end = |place: Place| {
            let who = at_vehicle(self.was, place);
            roads.beside(place).len() == 1 && who != NOBODY && self.far(roads, usize::from(who), place) == 0
        };
        let ways = roads.beside(front).iter().filter(|p| **p != back && !is_taken_end(**p));
        ways.fold((None, 0), |(_, count), place| (Some(*place), count + 1))
    }

    /// Whether back along the line there is room to change places.
    fn can_swap(&self, roads: &Roads<'_>, from: Place, to: Place) -> bool {
        let (mut back, mut front) = (from, to);
        for _ in 0..roads.places() {
            match self.ways_on(roads, back, front) {
                (_, 2..) => return true,
                (Some(only), 1) => (back, front) = (front, only),
                _ => return false,
            }
            if front == from {
                return false;
            }
        }
        false
    }

    /// Whether in this step some go round in a circle, each to where the next one was.
    pub(super) fn has_circle(&self, node: u32) -> bool {
        (0..self.count).any(|v| {
            let start = self.config_of(node, v);
            let mut place = at(self.next, v);
            if place == start {
                return false;
            }
            for _ in 0..self.count {
                let who = at_vehicle(self.was, place);
                if who == NOBODY {
                    return false;
                }
                let goes = at(self.next, usize::from(who));
                if goes == place {
                    return false;
                }
                if goes == start {
                    return true;
                }
                place = goes;
            }
            true
        })
    }

    /// Whether nobody is near another where that is not allowed.
    fn keeps_distance(&self, roads: &Roads<'_>) -> bool {
        (0..self.count).all(|v| {
            let place = at(self.next, v);
            roads.near(place).iter().all(|p| at_vehicle(self.will, *p) == NOBODY)
        })
    }

    /// Whether of two that come near to where the other was, one stays where it is.
    pub(super) fn passes_near(&self, roads: &Roads<'_>, node: u32) -> bool {
        (0..self.count).all(|v| {
            let (from, to) = (self.config_of(node, v), at(self.next, v));
            from == to
                || roads.near(to).iter().all(|p| {
                    let other = at_vehicle(self.was, *p);
                    let goes = if other == NOBODY { NO_PLACE } else { at(self.next, usize::from(other)) };
                    goes == *p || goes != from && !roads.near(from).contains(&goes)
                })
        })
    }
}
