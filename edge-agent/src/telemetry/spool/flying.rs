//! What of a stream is on its way: sent, and neither acknowledged nor given up. It may arrive at any time, or has already, whatever became of
//! the connection since: so it is not lost, and nothing is told of it, however full the spool is.

use std::collections::VecDeque;

/// Sequences on their way, in order.
#[derive(Debug, Default)]
pub(super) struct Flying {
    all: VecDeque<Flight>,
    bytes: u64,
    /// Connections so far.
    turn: u64,
    /// How many were sent over this one.
    fresh: usize,
}

#[derive(Debug)]
struct Flight {
    sequence: u64,
    bytes: u32,
    /// Over which connection it was sent last.
    turn: u64,
}

impl Flying {
    /// A new connection.
    pub(super) fn begin_turn(&mut self) {
        self.turn += 1;
        self.fresh = 0;
    }

    /// A record leaves. Allocates only while there are more than ever before.
    pub(super) fn add(&mut self, sequence: u64, bytes: u32) {
        let turn = self.turn;
        match self.find(sequence) {
            Err(at) => {
                self.all.insert(at, Flight { sequence, bytes, turn });
                self.bytes += u64::from(bytes);
                self.fresh += 1;
            }
            Ok(at) => {
                let Some(flight) = self.all.get_mut(at) else { return };
                self.fresh += usize::from(std::mem::replace(&mut flight.turn, turn) != turn);
            }
        }
    }

    /// Nothing of this stretch, both ends included, is on its way any more.
    pub(super) fn remove(&mut self, (from, to): (u64, u64)) {
        let at = self.find(from).unwrap_or_else(|at| at);
        // Mostly one, and the first: acknowledgements come in the order of sending.
        while self.all.get(at).is_some_and(|flight| flight.sequence <= to) {
            let Some(flight) = self.all.remove(at) else { return };
            self.bytes -= u64::from(flight.bytes);
            self.fresh -= usize::from(flight.turn == self.turn);
        }
    }

    /// It was not sent over this connection after all, but over an earlier one.
    pub(super) fn stays_earlier(&mut self, sequence: u64) {
        let Ok(at) = self.find(sequence) else { return };
        let Some(flight) = self.all.get_mut(at).filter(|flight| flight.turn == self.turn) else { return };
        flight.turn = 0;
        self.fresh -= 1;
    }

    /// How many were sent over this connection.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.find(sequence).is_ok()
    }

    /// Bytes on their way.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether any of a stretch, both ends included, is on its way.
    pub(super) fn is_any(&self, from: u64, to: u64) -> bool {
        let at = self.find(from).unwrap_or_else(|at| at);
        self.all.get(at).is_some_and(|flight| flight.sequence <= to)
    }

    /// The stretches between two sequences, both ends included, of which none is on its way.
    pub(super) fn gaps(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let first = self.find(from).unwrap_or_else(|at| at);
        let flights = self.all.range(first..).map(|flight| flight.sequence).take_while(move |n| *n <= to);
        let ends = flights.chain([to.saturating_add(1)]);
        ends.scan(from, |at, end| Some((std::mem::replace(at, end.saturating_add(1)), end - 1)))
            .filter(|(from, to)| from <= to)
    }

    fn find(&self, sequence: u64) -> Result<usize, usize> {
        self.all.binary_search_by_key(&sequence, |flight| flight.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_the_set_of_what_left_and_did_not_come_back(steps: Vec<(u8, u64, u64)>) {
            let (mut flying, mut all, mut turn) = (Flying::default(), BTreeMap::new(), 1);
            flying.begin_turn();
            for (what, from, length) in steps {
                let (from, to) = (from % 40, from % 40 + length % 4);
                match what % 5 {
                    0..=2 => {
                        flying.add(from, 7);
                        all.insert(from, turn);
                    }
                    3 => {
                        flying.remove((from, to));
                        all.retain(|n, _| !(from..=to).contains(n));
                    }
                    _ => {
                        flying.begin_turn();
                        turn += 1;
                    }
                }
                let there: Vec<u64> = (0..50).filter(|n| flying.has(*n)).collect();
                prop_assert!(there.iter().eq(all.keys()), "{:?} in {:?}", all, flying);
                prop_assert_eq!(flying.bytes(), 7 * all.len() as u64);
                prop_assert_eq!(flying.fresh(), all.values().filter(|t| **t == turn).count());
                prop_assert_eq!(flying.is_any(10, 20), all.range(10..=20).next().is_some());
                let gaps: Vec<u64> = flying.gaps(10, 20).flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(gaps, (10..=20).filter(|n| !all.contains_key(n)).collect::<Vec<_>>());
            }
        }
    }
}
