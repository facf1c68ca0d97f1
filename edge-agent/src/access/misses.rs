//! Wrong passwords: who has to wait before the next try.
//!
//! Counted by where they come from and whom they are for: a stranger who guesses keeps waiting, and the owner of the name, who is somewhere
//! else, gets in all the same.
//!
//! ```text
//!   many wrong ones from one place ──────────────> that place waits half a minute at a time
//!   many wrong ones for one name, from anywhere ──> answers for it come one behind the other, further and further apart;
//!                                                   at once to who is on the gateway, or where the name has signed in before
//! ```

use super::neighbour::Neighbour;
use std::collections::{HashMap, VecDeque};
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
/// Wrong passwords for one name, wherever they come from, before answers for it slow down.
pub(super) const FREE: u32 = 10;
/// How far apart these answers are then, at first and at most; doubled with each [`DOUBLED_BY`] more.
pub(super) const GAP: Duration = Duration::from_millis(250);
const GAP_MAX: Duration = Duration::from_secs(4);
const DOUBLED_BY: u32 = 5;
/// Who would have to wait for longer is sent away.
const QUEUE_MAX: Duration = Duration::from_secs(10);
/// Names that are remembered; the one that was missed least makes room.
const NAMES_MAX: usize = 1000;
/// Places that a name has signed in from and that are remembered; the oldest goes first.
const HOMES_MAX: usize = 32;
/// What happened within this time is lately.
const LATELY: Duration = Duration::from_secs(300);
/// In steps of which it is counted.
const STEP: Duration = Duration::from_secs(10);
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

/// A name that passwords are guessed for.
struct Aimed {
    count: Count,
    /// When the last answer that has been promised is given.
    last_answer: Instant,
}

/// The misses that count.
#[derive(Default)]
pub(super) struct Misses {
    places: HashMap<Neighbour, Place>,
    names: HashMap<String, Aimed>,
    /// Where users have signed in from.
    homes: HashMap<String, VecDeque<Neighbour>>,
    /// All misses of late, by when each step began.
    lately: VecDeque<(Instant, u32)>,
}

fn short(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

impl Misses {
    /// Whether nobody from there may try this name now.
    pub(super) fn must_wait(&self, from: Neighbour, name: &str, now: Instant) -> bool {
        let Some(place) = self.places.get(&from) else { return false };
        let for_name = place.names.get(&short(name)).is_some_and(|c| c.waits(NAME_MISSES_MAX, now));
        for_name || place.all.waits(PLACE_MISSES_MAX, now)
    }

    /// How long the answer for this name has to wait; `None`: longer than anybody should. Each that is asked for is one behind the others:
    /// who asks a hundred times at once gains nothing.
    pub(super) fn delay(&mut self, from: Neighbour, is_here: bool, name: &str, now: Instant) -> Option<Duration> {
        let name = short(name);
        if is_here || self.homes.get(&name).is_some_and(|homes| homes.contains(&from)) {
            return Some(Duration::ZERO);
        }
        let Some(aimed) = self.names.get_mut(&name) else { return Some(Duration::ZERO) };
        let over = aimed.count.misses.saturating_sub(FREE);
        if over == 0 || now.duration_since(aimed.count.last) > FORGOTTEN {
            return Some(Duration::ZERO);
        }
        let doubled = 1u32.checked_shl(over / DOUBLED_BY).filter(|n| *n > 0).unwrap_or(u32::MAX);
        let answer = aimed.last_answer.max(now) + GAP.saturating_mul(doubled).min(GAP_MAX);
        let wait = answer.duration_since(now);
        if wait > QUEUE_MAX {
            return None;
        }
        aimed.last_answer = answer;
        Some(wait)
    }

    /// How many there were in the last five minutes.
    pub(super) fn lately(&self, now: Instant) -> u32 {
        let of_late = self.lately.iter().filter(|(at, _)| now.duration_since(*at) <= LATELY);
        of_late.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn note(&mut self, name: &str, now: Instant) {
        self.lately.retain(|(at, _)| now.duration_since(*at) <= LATELY);
        match self.lately.back_mut().filter(|(at, _)| now.duration_since(*at) < STEP) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.lately.push_back((now, 1)),
        }
        let name = short(name);
        if self.names.len() >= NAMES_MAX
            && !self.names.contains_key(&name)
            && let Some(least) =
                self.names.iter().min_by_key(|(_, a)| (a.count.misses, a.count.last)).map(|(n, _)| n.clone())
        {
            self.names.remove(&least);
        }
        let none = Count { misses: 0, last: now };
        let aimed = self.names.entry(name).or_insert(Aimed { count: none, last_answer: now });
        aimed.count = aimed.count.more(now);
    }

    /// Another one.
    pub(super) fn missed(&mut self, from: Neighbour, name: &str, now: Instant) {
        self.note(name, now);
        if self.places.len() >= PLACES_MAX
            && !self.places.contains_key(&from)
            && let Some(quietest) = self.places.iter().min_by_key(|(_, p)| p.all.last).map(|(from, _)| *from)
        {
            self.places.remove(&quietest);
        }
        let none = Count { misses: 0, last: now };
        let place = self.places.entry(from).or_insert_with(|| Place { all: none, names: HashMap::new() });
        place.all = place.all.more(now);
        place.names.retain(|_, c| now.duration_since(c.last) <= FORGOTTEN);
        // No more names than misses that are let through before the whole place waits.
        if place.names.len() < PLACE_MISSES_MAX as usize || place.names.contains_key(&short(name)) {
            let count = place.names.entry(short(name)).or_insert(none);
            *count = count.more(now);
        }
    }

    /// It was right this time: there the name is at home. What others have guessed elsewhere goes on counting.
    pub(super) fn right(&mut self, from: Neighbour, name: &str) {
        let name = short(name);
        if let Some(place) = self.places.get_mut(&from) {
            place.names.remove(&name);
        }
        let homes = self.homes.entry(name).or_default();
        homes.retain(|home| *home != from);
        if homes.len() >= HOMES_MAX {
            homes.pop_front();
        }
        homes.push_back(from);
    }

    /// A user who is no more is at home nowhere.
    pub(super) fn removed(&mut self, name: &str) {
        self.homes.remove(&short(name));
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
        assert_eq!(misses.places.len(), PLACES_MAX);
        assert!(misses.names.len() <= NAMES_MAX && misses.lately.len() <= 32);
        assert!(misses.places.values().all(|p| p.names.len() <= PLACE_MISSES_MAX as usize));
    }

    #[test]
    fn guessing_for_one_name_from_everywhere_gets_slow_and_its_owner_does_not() {
        let (mut misses, t0) = (Misses::default(), Instant::now());
        misses.right(at(7), "ada");
        for n in 0..FREE {
            assert_eq!(misses.delay(at(1000 + n), false, "ada", t0), Some(Duration::ZERO), "a person mistypes");
            misses.missed(at(1000 + n), "ada", t0);
        }
        misses.missed(at(1), "ada", t0);
        assert_eq!(misses.delay(at(2), false, "ada", t0), Some(GAP));
        assert_eq!(misses.delay(at(3), false, "ada", t0), Some(GAP * 2), "at the same time: one behind the other");
        assert_eq!(misses.delay(at(7), false, "ada", t0), Some(Duration::ZERO), "where she has signed in before");
        assert_eq!(misses.delay(at(8), true, "ada", t0), Some(Duration::ZERO), "on the gateway");
        assert_eq!(misses.delay(at(2), false, "bob", t0), Some(Duration::ZERO));
        assert_eq!(misses.lately(t0), FREE + 1);
        let (mut now, mut answers) = (t0, 0);
        while now < t0 + LATELY {
            if misses.delay(at(9), false, "ada", now).is_some() {
                misses.missed(at(2000 + answers), "ada", now);
                answers += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(answers < 120, "{answers} guesses in five minutes");
        assert_eq!(misses.delay(at(2), false, "ada", now + FORGOTTEN * 2), Some(Duration::ZERO));
        assert_eq!(misses.lately(now + LATELY * 2), 0);
    }
}
