//! Who is where in the next steps, and whom a vehicle would meet.
//!
//! ```text
//!   place    now   +1   +2   +3          a track: the places of one vehicle now and after each step
//!     7       A     A    -    B          A has left 7 when B comes: fine
//!     8       B     B    A    A          A comes to 8 when B leaves it: on paper; real vehicles would have to start together
//! ```

use super::pool::DEPTH;
use super::roads::{NO_PLACE, Place, Roads};
use crate::storage::{Storage, at, put};

/// No vehicle.
pub(crate) const NOBODY: u16 = u16::MAX;
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
    paper: bool,
}

impl<'m> Tracks<'m> {
    pub(crate) fn new(
        storage: &impl Storage<'m>,
        vehicles: usize,
        places: usize,
        depth: usize,
        paper: bool,
    ) -> Tracks<'m> {
        Tracks {
            used: storage.slice(places, [NOBODY; DEPTH + 1]),
            track: storage.slice(vehicles, [NO_PLACE; DEPTH + 1]),
            depth,
            paper,
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

    /// Whom a track meets: at a place, or on the way between two. On paper one may come to a place in the step in which another
    /// leaves it; real vehicles come when it has left.
    pub(crate) fn meets(&self, roads: &Roads<'_>, vehicle: u16, track: &Track) -> Meets {
        let mut met = Meets::Nobody;
        let mut before = track[0];
        let mut row_before = self.row(before);
        for (step, place) in track.iter().copied().enumerate().skip(1).take(self.depth) {
            let moves = place != before;
            let row = if moves { self.row(place) } else { row_before };
            met = met.and(at(&row, step));
            if !self.paper {
                met = self.and_close(met, vehicle, &row, step);
            } else if moves {
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
                met = self.and_close(met, vehicle, &near_row, step);
            }
            if met == Meets::Several {
                return met;
            }
            (before, row_before) = (place, row);
        }
        met
    }

    /// Also whoever is at the place of this row a step before or a step after. Who is there now cannot be pushed away in time.
    fn and_close(&self, met: Meets, vehicle: u16, row: &[u16; DEPTH + 1], step: usize) -> Meets {
        let was = at(row, step - 1);
        let comes = if step < self.depth { at(row, step + 1) } else { NOBODY };
        if was != NOBODY && was != vehicle && step == 1 {
            return Meets::Several;
        }
        let met = if was == vehicle { met } else { met.and(was) };
        if comes == vehicle { met } else { met.and(comes) }
    }
}
