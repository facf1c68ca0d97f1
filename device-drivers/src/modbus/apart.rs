//! Which command blocks do not share a request with others. Pure.
//!
//! ```text
//!   [a b c d] refused  ──> [a] [b] [c] [d]     six blocks fill a request, so there is nothing to halve
//!                               └─ refused ──> [a] [b] [c d]     b stays alone until it is taken
//!                     none refused ──> the device takes fewer at once, or had a bad moment: they are tried together now and then
//! ```

use crate::driver::BlockWrite;
use control_core::units::MachineId;
use std::collections::{BTreeMap, BTreeSet};

/// How often a block is taken alone before it is tried together with others again.
const APART: u32 = 100;

/// What refusals have taught.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// Refused together with others, by whose fault nobody knows; so often they go alone yet.
    alone: BTreeMap<MachineId, u32>,
    /// Refused alone.
    refused: BTreeSet<MachineId>,
}

impl Apart {
    /// Whether these two go in requests of their own.
    pub(super) fn splits(&self, one: MachineId, other: MachineId) -> bool {
        [one, other].iter().any(|m| self.alone.contains_key(m) || self.refused.contains(m))
    }

    /// The device has taken these.
    pub(super) fn taken(&mut self, blocks: &[BlockWrite]) {
        for machine in blocks.iter().map(|b| b.machine) {
            self.refused.remove(&machine);
            if let Some(left) = self.alone.get_mut(&machine) {
                *left -= 1;
                if *left == 0 {
                    self.alone.remove(&machine);
                }
            }
        }
    }

    /// The device has refused these; whether they were several, and are to be sent one by one.
    pub(super) fn refused(&mut self, blocks: &[BlockWrite]) -> bool {
        match blocks {
            [] => false,
            [only] => {
                // One that was not known explains why others were refused with it: these may go together again.
                if self.refused.insert(only.machine) {
                    self.alone.clear();
                }
                false
            }
            several => {
                self.alone.extend(several.iter().map(|b| (b.machine, APART)));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writes::Writes;
    use super::*;
    use crate::block::COMMAND_WORDS;

    /// A device that refuses some blocks, and takes so many at once. What is sent in one heartbeat, and who is refused alone.
    fn beat(writes: &mut Writes, bad: &[u16], most: usize) -> (Vec<Vec<u16>>, Vec<u16>) {
        let places: Vec<(MachineId, usize, u16)> =
            (0..6).map(|n| (MachineId(n), 0, n * COMMAND_WORDS as u16)).collect();
        let block = |n| BlockWrite { machine: MachineId(n), seq: 1, words: [0; COMMAND_WORDS] };
        writes.push_blocks(&(0..6).map(block).collect::<Vec<_>>(), &places);
        let (mut sent, mut refused) = (Vec::new(), Vec::new());
        while let Some(run) = writes.next_blocks(|_| true) {
            let machines: Vec<u16> = run.blocks.iter().map(|b| b.machine.0).collect();
            assert_eq!(run.start, machines[0] * COMMAND_WORDS as u16);
            if machines.len() <= most && !machines.iter().any(|m| bad.contains(m)) {
                writes.blocks_taken(&run.blocks);
            } else if !writes.blocks_one_by_one(&run.blocks, &places) {
                refused.extend(machines.iter().copied());
            }
            sent.push(machines);
            assert!(sent.len() < 100, "it does not end");
        }
        (sent, refused)
    }

    #[test]
    fn a_block_that_is_refused_takes_no_other_with_it_and_is_asked_alone_until_it_is_taken() {
        let mut writes = Writes::default();
        assert_eq!(beat(&mut writes, &[], 6), (vec![(0..6).collect()], vec![]));
        let (sent, refused) = beat(&mut writes, &[2], 6);
        assert!((0..6).filter(|n| *n != 2).all(|n| sent.iter().any(|run| run.contains(&n) && !run.contains(&2))));
        assert_eq!(refused, [2]);
        for _ in 0..3 {
            assert_eq!(
                beat(&mut writes, &[2], 6),
                (vec![vec![0, 1], vec![2], vec![3, 4, 5]], vec![2]),
                "no more than that"
            );
        }
        assert_eq!(beat(&mut writes, &[], 6).1, vec![0u16; 0], "it is mended");
        assert_eq!(beat(&mut writes, &[], 6), (vec![(0..6).collect()], vec![]));
    }

    #[test]
    fn blocks_that_were_refused_for_a_moment_share_a_request_again() {
        let mut writes = Writes::default();
        assert_eq!(beat(&mut writes, &[], 3).0.len(), 7, "all together, and each on its own");
        let beats = (1..1000).find(|_| beat(&mut writes, &[], 6).0.len() == 1);
        assert_eq!(beats, Some(APART));
    }

    #[test]
    fn it_settles_however_many_are_refused_and_however_few_the_device_takes_at_once() {
        for (bad, most) in [(vec![0u16, 5], 6), (vec![1, 2], 6), (vec![], 2), (vec![3], 1), (vec![0, 4], 2)] {
            let mut writes = Writes::default();
            for _ in 0..3 {
                let (sent, refused) = beat(&mut writes, &bad, most);
                let taken = |run: &&Vec<u16>| run.len() <= most && !run.iter().any(|m| bad.contains(m));
                let taken: BTreeSet<u16> = sent.iter().filter(taken).flatten().copied().collect();
                assert_eq!(taken.len(), 6 - bad.len(), "{bad:?}, {most} at once: {sent:?}");
                assert_eq!(refused.iter().copied().collect::<BTreeSet<_>>(), bad.iter().copied().collect());
            }
            let (sent, _) = beat(&mut writes, &bad, most);
            assert!(sent.len() <= 6, "{bad:?}, {most} at once: {sent:?}");
        }
    }
}
