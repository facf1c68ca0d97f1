//! What may come in masses, each time from outside, and lasts no time: a refused command, a foreign message. The first of a kind is said at
//! once; what follows within a minute is counted, and said with the next.
//!
//! ```text
//!   refused            refused x 399             refused
//!   └─ said            └─ counted                └─ said, "and 399 more since"       a minute or more behind the first
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same kind is said.
const EVERY: Duration = Duration::from_secs(60);
/// Kinds that are told apart; all others are one more.
const KINDS_MAX: usize = 16;

struct Kept<K> {
    kind: Option<K>,
    said: Instant,
    unsaid: u64,
}

/// What has come lately, by kind.
pub struct Often<K>(Mutex<Vec<Kept<K>>>);

impl<K: PartialEq> Default for Often<K> {
    fn default() -> Often<K> {
        Often(Mutex::default())
    }
}

impl<K: PartialEq> Often<K> {
    /// One of this kind has come. `Some`: it is to be said, and so many have not been since the last one that was.
    pub fn comes(&self, kind: K, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_rested = |kept: &Kept<K>| now.saturating_duration_since(kept.said) >= EVERY;
        if !all.iter().any(|kept| kept.kind.as_ref() == Some(&kind)) {
            // What has been quiet for long, and owes nothing, makes room.
            all.retain(|kept| kept.unsaid > 0 || !is_rested(kept));
        }
        let kind =
            Some(kind).filter(|kind| all.len() < KINDS_MAX || all.iter().any(|kept| kept.kind.as_ref() == Some(kind)));
        match all.iter_mut().find(|kept| kept.kind == kind) {
            Some(kept) if !is_rested(kept) => {
                kept.unsaid += 1;
                None
            }
            Some(kept) => {
                kept.said = now;
                Some(std::mem::take(&mut kept.unsaid))
            }
            None => {
                all.push(Kept { kind, said: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

/// What is said behind one that stands for others too.
pub fn and_more(unsaid: u64) -> String {
    if unsaid > 0 { format!("; and {unsaid} more like it were not said one by one") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_hundred_at_once_are_said_once_and_counted_with_the_next() {
        let (often, start) = (Often::default(), Instant::now());
        let said: Vec<u64> = (0..400).filter_map(|_| often.comes("invalid", start)).collect();
        assert_eq!(said, [0]);
        assert_eq!(often.comes("expired", start), Some(0), "another kind");
        assert_eq!(often.comes("invalid", start + EVERY), Some(399));
        assert_eq!(and_more(399), "; and 399 more like it were not said one by one");
    }

    #[test]
    fn kinds_that_are_made_up_all_the_time_are_one_more() {
        let (often, start) = (Often::default(), Instant::now());
        let said = (0..10_000).filter_map(|n| often.comes(n, start)).count();
        assert_eq!(said, KINDS_MAX + 1);
        assert_eq!(often.comes(20_000, start + EVERY), Some(0), "they have rested, and made room");
    }
}
