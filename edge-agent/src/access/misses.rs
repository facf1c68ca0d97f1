//! Wrong passwords: who has to wait before the next try.
//!
//! Counted by where they come from and whom they are for: a stranger who guesses keeps waiting, and the owner of the name, who is somewhere
//! else, gets in all the same. What is left of guessing from many places is slow: passwords are checked one at a time.

use super::neighbour::Neighbour;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Wrong passwords from one place for one name before it has to wait.
pub(super) const NAME_MISSES_MAX: u32 = 5;
/// Wrong passwords from one place for all names together: a shift that signs in behind one address has a few.
pub(super) const PLACE_MISSES_MAX: u32 = 30;
/// For how long it waits.
const PAUSE: Duration = Duration::from_secs(30);
/// Without another miss they are forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// Places that are remembered; the one that has been quiet longest makes room.
const PLACES_MAX: usize = 1000;
/// As much of a name as is remembered.
const NAME_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Count {
    misses: u32,
    last: Instant,
}

impl Count {
    fn more(self, now: Instant) -> Count {
        let misses = if now.duration_since(self.last) > FORGOTTEN { 0 } else { self.misses };
        Count { misses: misses.saturating_add(1), last: now }
    }

    fn waits(self, max: u32, now: Instant) -> bool {
        self.misses >= max && now.duration_since(self.last) < PAUSE
    }
}

struct Place {
    all: Count,
    names: HashMap<String, Count>,
}

/// The misses that count.
#[derive(Default)]
pub(super) struct Misses(HashMap<Neighbour, Place>);

fn short(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

impl Misses {
    /// Whether nobody from there may try this name now.
    pub(super) fn must_wait(&self, from: Neighbour, name: &str, now: Instant) -> bool {
        let Some(place) = self.0.get(&from) else { return false };
        let for_name = place.names.get(&short(name)).is_some_and(|c| c.waits(NAME_MISSES_MAX, now));
        for_name || place.all.waits(PLACE_MISSES_MAX, now)
    }

    /// Another one.
    pub(super) fn missed(&mut self, from: Neighbour, name: &str, now: Instant) {
        if self.0.len() >= PLACES_MAX
            && !self.0.contains_key(&from)
            && let Some(quietest) = self.0.iter().min_by_key(|(_, p)| p.all.last).map(|(from, _)| *from)
        {
            self.0.remove(&quietest);
        }
        let none = Count { misses: 0, last: now };
        let place = self.0.entry(from).or_insert_with(|| Place { all: none, names: HashMap::new() });
        place.all = place.all.more(now);
        place.names.retain(|_, c| now.duration_since(c.last) <= FORGOTTEN);
        // No more names than misses that are let through before the whole place waits.
        if place.names.len() < PLACE_MISSES_MAX as usize || place.names.contains_key(&short(name)) {
            let count = place.names.entry(short(name)).or_insert(none);
            *count = count.more(now);
        }
    }

    /// It was right this time.
    pub(super) fn forget(&mut self, from: Neighbour, name: &str) {
        if let Some(place) = self.0.get_mut(&from) {
            place.names.remove(&short(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u32) -> Neighbour {
        std::net::IpAddr::from(n.to_be_bytes()).into()
    }

    #[test]
    fn a_stranger_waits_and_the_owner_does_not() {
        let (mut misses, t0) = (Misses::default(), Instant::now());
        for n in 0..NAME_MISSES_MAX {
            assert!(!misses.must_wait(at(1), "ada", t0), "{n}");
            misses.missed(at(1), "ada", t0);
        }
        assert!(misses.must_wait(at(1), "ada", t0));
        assert!(!misses.must_wait(at(2), "ada", t0) && !misses.must_wait(at(1), "bob", t0));
        assert!(!misses.must_wait(at(1), "ada", t0 + PAUSE));
        misses.missed(at(1), "ada", t0 + PAUSE);
        assert!(misses.must_wait(at(1), "ada", t0 + PAUSE), "one more miss is one more pause");
        misses.missed(at(1), "ada", t0 + PAUSE + FORGOTTEN * 2);
        assert!(!misses.must_wait(at(1), "ada", t0 + PAUSE + FORGOTTEN * 2), "they were forgotten");
    }

    #[test]
    fn ever_new_names_and_places_gain_nothing_and_cost_little() {
        let (mut misses, t0) = (Misses::default(), Instant::now());
        let tried = (0..1000).filter(|n| {
            let name = format!("{n}{}", "x".repeat(1000));
            let waits = misses.must_wait(at(1), &name, t0);
            if !waits {
                misses.missed(at(1), &name, t0);
            }
            !waits
        });
        assert_eq!(tried.count(), PLACE_MISSES_MAX as usize);
        for n in 0..3 * PLACES_MAX as u32 {
            misses.missed(at(1000 + n), "ada", t0 + Duration::from_secs(1));
        }
        assert_eq!(misses.0.len(), PLACES_MAX);
        assert!(misses.0.values().all(|p| p.names.len() <= PLACE_MISSES_MAX as usize));
    }
}
