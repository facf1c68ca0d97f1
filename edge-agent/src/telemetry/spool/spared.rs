//! What of a stream cannot be lost: what is done, and what is on its way. Two sets, looked at as one; neither is copied.

use super::done::Done;
use super::flying::Flying;

/// Sequences that are done, or on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spared<'a> {
    pub(super) done: &'a Done,
    pub(super) flying: &'a Flying,
}

impl<'a> Spared<'a> {
    /// Whether a sequence is among them.
    pub(super) fn has(self, sequence: u64) -> bool {
        self.done.has(sequence) || self.flying.has(sequence)
    }

    /// Whether none of a stretch, both ends included, is.
    pub(super) fn is_open(self, from: u64, to: u64) -> bool {
        self.done.is_open(from, to) && !self.flying.is_any(from, to)
    }

    /// The stretches between two sequences, both ends included, that can be lost.
    pub(super) fn gaps(self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.done.gaps(from, to).flat_map(move |(from, to)| self.flying.gaps(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_set_of_what_is_done_and_what_is_on_its_way(stretches: Vec<(u64, u64)>, flights: Vec<u64>) {
            let (mut done, mut flying) = (Done::default(), Flying::default());
            stretches.iter().for_each(|(from, length)| done.add(from % 60, from % 60 + length % 5));
            flights.iter().for_each(|n| flying.add(n % 60, 1));
            let spared = Spared { done: &done, flying: &flying };
            let lost = |n: u64| !done.has(n) && flights.iter().all(|flight| flight % 60 != n);
            for n in 1..70 {
                prop_assert_eq!(spared.has(n), !lost(n), "{} in {:?}", n, spared);
            }
            for (from, to) in [(1, 70), (10, 20), (30, 30)] {
                let gaps: Vec<(u64, u64)> = spared.gaps(from, to).collect();
                let in_gaps: Vec<u64> = gaps.iter().flat_map(|(from, to)| *from..=*to).collect();
                prop_assert_eq!(in_gaps, (from..=to).filter(|n| lost(*n)).collect::<Vec<_>>(), "{:?}", spared);
                prop_assert!(gaps.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}: {:?}", spared, gaps);
                prop_assert_eq!(spared.is_open(from, to), (from..=to).all(lost), "{:?}", spared);
            }
        }
    }
}
