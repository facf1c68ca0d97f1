//! Who is where in the next steps, and whom a vehicle would meet.
//!
//! ```text
//!   place    now   +1   +2   +3          a track: the places of one vehicle now and after each step
//!     7       A     A    B    B          A leaves 7 when B comes: fine, B comes after it
//!     8       B     B    A    A          here B and A would have to pass each other: they meet
//! ```

use super::pool::DEPTH;
use super::roads::{NO_PLACE, Place, Roads};
use crate::storage::{Storage, at, put};

/// No vehicle.
pub(crate) const NOBODY: u16 = u16::MAX;
/// How far a chain of vehicles that follow each other is looked along. A longer one counts as a circle.
const CHAIN_MAX: usize = 256;

/// Places at the start and after each step.
pub(crate) type Track = [Place; DEPTH + 1];

/// Whom a track meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meets {
    Nobody,
    One(u16),
    Several,
}

impl Meets {
    fn and(self, other: u16) -> Meets {
        match self {
            _ if other == NOBODY => self,
            Meets::Nobody => Meets::One(other),
            Meets::One(before) if before == other => self,
            _ => Meets::Several,
        }
    }
}

/// The tracks of all vehicles, by place and step.
#[derive(Debug)]
pub(crate) struct Tracks<'m> {
    used: &'m mut [[u16; DEPTH + 1]],
    /// The tracks that are entered; [`NO_PLACE`] for none.
    track: &'m mut [Track],
    depth: usize,
    circles: bool,
}

impl<'m> Tracks<'m> {
    pub(crate) fn new(
        storage: &impl Storage<'m>,
        vehicles: usize,
        places: usize,
        depth: usize,
        circles: bool,
    ) -> Tracks<'m> {
        Tracks {
            used: storage.slice(places, [NOBODY; DEPTH + 1]),
            track: storage.slice(vehicles, [NO_PLACE; DEPTH + 1]),
            depth,
            circles,
        }
    }

    pub(crate) fn occupant(&self, place: Place) -> Option<u16> {
        self.used.get(usize::from(place)).map(|row| row[0]).filter(|v| *v != NOBODY)
    }

    /// Whether nobody but `vehicle` is, or will be, at a place.
    pub(crate) fn is_free(&self, place: Place, vehicle: u16) -> bool {
        let row = self.used.get(usize::from(place));
        row.is_some_and(|row| row.iter().all(|u| *u == NOBODY || *u == vehicle))
    }

    /// A vehicle with where it is and will be.
    pub(crate) fn enter(&mut self, vehicle: u16, track: &Track) {
        put(self.track, usize::from(vehicle), *track);
        self.write(track, 0, vehicle);
    }

    /// Takes it out.
    pub(crate) fn remove(&mut self, vehicle: u16) {
        let track = self.track.get(usize::from(vehicle)).copied().unwrap_or([NO_PLACE; DEPTH + 1]);
        // After `withdraw` only the first of it is still there; what others have put over the rest is theirs.
        for (step, place) in track.iter().enumerate().take(self.depth + 1) {
            if let Some(slot) = self.used.get_mut(usize::from(*place)).and_then(|row| row.get_mut(step))
                && *slot == vehicle
            {
                *slot = NOBODY;
            }
        }
        put(self.track, usize::from(vehicle), [NO_PLACE; DEPTH + 1]);
    }

    /// A vehicle that is entered will do this.
    pub(crate) fn propose(&mut self, vehicle: u16, track: &Track) {
        put(self.track, usize::from(vehicle), *track);
        self.write(track, 1, vehicle);
    }

    /// What a vehicle will do is open again; where it is, it is.
    pub(crate) fn withdraw(&mut self, vehicle: u16, track: &Track) {
        self.write(track, 1, NOBODY);
        let place = track[0];
        put(self.track, usize::from(vehicle), [place, NO_PLACE, NO_PLACE, NO_PLACE]);
    }

    fn write(&mut self, track: &Track, from: usize, value: u16) {
        for (step, place) in track.iter().enumerate().take(self.depth + 1).skip(from) {
            if let Some(slot) = self.used.get_mut(usize::from(*place)).and_then(|row| row.get_mut(step)) {
                *slot = value;
            }
        }
    }

    fn row(&self, place: Place) -> [u16; DEPTH + 1] {
        self.used.get(usize::from(place)).copied().unwrap_or([NOBODY; DEPTH + 1])
    }

    /// Whom a track meets: at a place, on the way between two, or in a circle in which each waits for the next.
    pub(crate) fn meets(&self, roads: &Roads<'_>, vehicle: u16, track: &Track) -> Meets {
        let mut met = Meets::Nobody;
        let mut before = track[0];
        let mut row_before = self.row(before);
        for (step, place) in track.iter().copied().enumerate().skip(1).take(self.depth) {
            let moves = place != before;
            let row = if moves { self.row(place) } else { row_before };
            met = met.and(at(&row, step));
            if moves {
                // Who was there a step ago, and comes to where we were?
                let crossing = at(&row, step - 1);
                if crossing != vehicle && at(&row_before, step) == crossing {
                    met = met.and(crossing);
                }
            }
            for near in roads.near(place) {
                let near_row = self.row(*near);
                let there = at(&near_row, step);
                met = met.and(if there == vehicle { NOBODY } else { there });
            }
            if met == Meets::Several {
                return met;
            }
            (before, row_before) = (place, row);
        }
        if !self.circles && self.closes_circle(roads, vehicle, track) { Meets::Several } else { met }
    }

    /// Whether with this track some vehicles would move in one step, each to where the next one was, with nobody first.
    fn closes_circle(&self, roads: &Roads<'_>, vehicle: u16, track: &Track) -> bool {
        let mut before = track[0];
        for (step, place) in track.iter().copied().enumerate().skip(1).take(self.depth) {
            if place != before && self.waits_for(roads, vehicle, before, place, step) {
                return true;
            }
            before = place;
        }
        false
    }

    /// Whether whoever has to leave `place` in this step, so that `vehicle` can come from `origin`, waits for it in turn.
    fn waits_for(&self, roads: &Roads<'_>, vehicle: u16, origin: Place, place: Place, step: usize) -> bool {
        let mut open: heapless::Vec<Place, 32> = heapless::Vec::new();
        let _ = open.push(place);
        for _ in 0..CHAIN_MAX {
            let Some(wanted) = open.pop() else { return false };
            for spot in core::iter::once(&wanted).chain(roads.near(wanted)) {
                if *spot == origin && wanted != place {
                    return true;
                }
                let who = at(&self.row(*spot), step - 1);
                if who == NOBODY || who == vehicle {
                    continue;
                }
                let goes = self.track.get(usize::from(who)).and_then(|t| t.get(step)).copied().unwrap_or(NO_PLACE);
                if goes != NO_PLACE && goes != *spot && open.push(goes).is_err() {
                    return true;
                }
            }
        }
        true
    }
}
