//! Which sequences of a stream are done: delivered, or told as lost.
//!
//! ```text
//!   1 ................ first            islands
//!   ######################....####......##.....
//!                         ^ the oldest that is not done
//! ```

/// With so many islands replay goes in order until they are fewer: each is looked through and written down with the cursor.
const RAGGED: usize = 1024;

/// Sequences that are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Everything below is done, and this is not.
    pub first: u64,
    /// Stretches above that are done, both ends included, in order, none touching another.
    pub islands: Vec<(u64, u64)>,
}

impl Default for Done {
    fn default() -> Self {
        Done { first: 1, islands: Vec::new() }
    }
}

impl Done {
    /// Marks a stretch, both ends included.
    pub fn add(&mut self, from: u64, to: u64) {
        if to < from || to < self.first {
            return;
        }
        let (mut from, mut to) = (from.max(self.first), to);
        let start = self.islands.partition_point(|(_, end)| end.saturating_add(1) < from);
        let end = self.islands.partition_point(|(begin, _)| *begin <= to.saturating_add(1));
        if start < end {
            from = from.min(self.islands.get(start).map_or(from, |i| i.0));
            to = to.max(self.islands.get(end - 1).map_or(to, |i| i.1));
        }
        self.islands.splice(start..end.max(start), [(from, to)]);
        if from == self.first {
            self.first = to + 1;
            self.islands.remove(0);
        }
    }

    /// The lowest sequence from `at` on that is not done.
    pub fn open_from(&self, at: u64) -> u64 {
        let at = at.max(self.first);
        let near = self.islands.partition_point(|(_, end)| *end < at);
        match self.islands.get(near) {
            Some((begin, end)) if *begin <= at => end + 1,
            _ => at,
        }
    }

    /// The stretches between two sequences, both ends included, that are not done.
    pub fn gaps(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = self.open_from(from);
        std::iter::from_fn(move || {
            let begin = (at <= to).then_some(at)?;
            let near = self.islands.partition_point(|(island, _)| *island <= begin);
            let end = self.islands.get(near).map_or(to, |(island, _)| to.min(island - 1));
            at = self.open_from(end + 1);
            Some((begin, end))
        })
    }

    /// Whether a sequence is done.
    pub fn has(&self, sequence: u64) -> bool {
        self.open_from(sequence) != sequence
    }

    /// Whether nothing of a stretch is done.
    pub fn is_open(&self, from: u64, to: u64) -> bool {
        let near = self.islands.partition_point(|(_, end)| *end < from);
        self.first <= from && self.islands.get(near).is_none_or(|(begin, _)| *begin > to)
    }

    /// Whether there are more islands than there should be.
    pub fn is_ragged(&self) -> bool {
        self.islands.len() >= RAGGED
    }

    /// Marks numbers of which none is anywhere and none is owed, if what is done reaches up to them: an island of their own they need not be.
    pub fn join(&mut self, from: u64, to: u64) {
        if from <= to && (self.has(from.saturating_sub(1)) || self.has(to.saturating_add(1))) {
            self.add(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_added(stretches: Vec<(u64, u64)>) {
            let (mut done, mut all) = (Done::default(), BTreeSet::new());
            for (from, length) in stretches {
                let (from, length) = (from % 60, length % 9);
                done.add(from, from + length);
                all.extend(from..=from + length);
                for n in 1..80 {
                    prop_assert_eq!(done.has(n), all.contains(&n), "{} in {:?}", n, done);
                }
                let gaps: Vec<u64> = done.gaps(10, 50).flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(gaps, (10..=50).filter(|n| !all.contains(n)).collect::<Vec<_>>());
                prop_assert_eq!(done.is_open(20, 30), (20..=30).all(|n| !all.contains(&n)));
                prop_assert!(done.islands.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", done);
                prop_assert!(done.islands.iter().all(|i| i.0 > done.first), "{:?}", done);
            }
        }
    }
}
