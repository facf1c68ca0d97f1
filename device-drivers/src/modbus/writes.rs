//! What waits to be written, and in which order: command blocks first, then tags by priority, neighbours in one request.

use super::address::{Address, Table};
use super::pdu::{Ask, WRITE_COILS_MAX, WRITE_REGISTERS_MAX};
use super::types::Format;
use crate::driver::{BlockWrite, TagWrite, WriteOutcome};
use crate::value::Value;
use control_core::units::MachineId;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Tag writes that may wait on one line; whoever comes later is told that the line is busy.
const WAITING_MAX: usize = 256;

/// Where a writable point lies.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) unit: usize,
    pub(super) address: Address,
    pub(super) format: Format,
    pub(super) single: bool,
}

/// A tag write on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) wish: TagWrite,
    pub(super) target: Target,
    pub(super) words: Vec<u16>,
}

impl Pending {
    fn end(&self) -> usize {
        usize::from(self.target.address.number) + self.words.len()
    }

    pub(super) fn answer(self, outcome: WriteOutcome) {
        let _ = self.wish.reply.send(outcome); // whoever asked may have gone
    }
}

/// Command blocks that stand side by side.
#[derive(Debug)]
pub(super) struct BlockRun {
    pub(super) unit: usize,
    pub(super) start: u16,
    pub(super) words: Vec<u16>,
    pub(super) blocks: Vec<BlockWrite>,
}

#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) blocks: VecDeque<BlockRun>,
    tags: Vec<Pending>,
}

impl Writes {
    /// Blocks to be written; those side by side go out in one request.
    pub(super) fn push_blocks(&mut self, due: &[BlockWrite], places: &[(MachineId, usize, u16)]) {
        let place = |b: &BlockWrite| places.iter().find(|(m, ..)| *m == b.machine).map(|(_, unit, at)| (*unit, *at));
        let mut placed: Vec<(usize, u16, BlockWrite)> =
            due.iter().filter_map(|b| place(b).map(|(unit, at)| (unit, at, *b))).collect();
        placed.sort_by_key(|(unit, at, _)| (*unit, *at));
        for (unit, at, block) in placed {
            match self.blocks.back_mut() {
                Some(run)
                    if run.unit == unit
                        && usize::from(run.start) + run.words.len() == usize::from(at)
                        && run.words.len() + block.words.len() <= WRITE_REGISTERS_MAX =>
                {
                    run.words.extend_from_slice(&block.words);
                    run.blocks.push(block);
                }
                _ => self.blocks.push_back(BlockRun {
                    unit,
                    start: at,
                    words: block.words.to_vec(),
                    blocks: vec![block],
                }),
            }
        }
    }

    /// Takes a wish, or answers it at once when it cannot be fulfilled.
    pub(super) fn push_tag(&mut self, wish: TagWrite, target: Option<&Target>) {
        let Some(target) = target.cloned() else {
            let _ = wish.reply.send(WriteOutcome::Invalid("this tag cannot be written".into()));
            return;
        };
        let words = if target.address.table.is_bits() {
            match wish.value {
                Value::Bool(b) => Ok(vec![u16::from(b)]),
                ref other => target.format.encode(other),
            }
        } else {
            target.format.encode(&wish.value)
        };
        match words {
            Ok(_) if self.tags.len() >= WAITING_MAX => {
                let _ =
                    wish.reply.send(WriteOutcome::Invalid(format!("{WAITING_MAX} writes wait on this line already")));
            }
            Ok(words) => self.tags.push(Pending { wish, target, words }),
            Err(why) => {
                let _ = wish.reply.send(WriteOutcome::Invalid(why));
            }
        }
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for i in (0..self.tags.len()).rev() {
            if self.tags.get(i).is_some_and(|p| p.wish.deadline <= now) {
                self.tags.remove(i).answer(WriteOutcome::Expired);
            }
        }
    }

    /// The deadline that comes first.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.tags.iter().map(|p| p.wish.deadline).min()
    }

    /// The most urgent tag write, with those beside it: highest priority first, then the one that waits longest.
    pub(super) fn next_tags(&mut self) -> Option<(usize, Ask, Vec<Pending>)> {
        let first = (0..self.tags.len()).rev().max_by_key(|i| self.tags.get(*i).map(|p| p.wish.priority))?;
        let mut run = VecDeque::from([self.tags.remove(first)]);
        let (unit, table, single) = run.front().map(|p| (p.target.unit, p.target.address.table, p.target.single))?;
        let most = if table == Table::Coil { WRITE_COILS_MAX } else { WRITE_REGISTERS_MAX };
        loop {
            let (start, end) = (run.front()?.target.address.number, run.back()?.end());
            let room = most.saturating_sub(end - usize::from(start));
            let fits = |p: &Pending| p.target.unit == unit && p.target.address.table == table && p.words.len() <= room;
            // Two writes to one register keep their order: the second finds the first one's place taken.
            let first_at = |at: &dyn Fn(&Pending) -> bool| self.tags.iter().position(|p| fits(p) && at(p));
            if let Some(i) = first_at(&|p| usize::from(p.target.address.number) == end) {
                run.push_back(self.tags.remove(i));
            } else if let Some(i) = first_at(&|p| p.end() == usize::from(start)) {
                run.push_front(self.tags.remove(i));
            } else {
                break;
            }
        }
        let start = run.front()?.target.address.number;
        let words: Vec<u16> = run.iter().flat_map(|p| p.words.iter().copied()).collect();
        let ask = match table {
            Table::Coil => Ask::WriteCoils { start, bits: words.iter().map(|w| *w != 0).collect(), single },
            _ => Ask::WriteRegisters { start, words, single },
        };
        Some((unit, ask, run.into()))
    }

    /// Nothing waits any more: the link is gone.
    pub(super) fn give_up(&mut self, outcome: &WriteOutcome) {
        self.blocks.clear();
        for pending in self.tags.drain(..) {
            pending.answer(outcome.clone());
        }
    }
}

/// The read that shows whether a run of writes has arrived.
pub(super) fn read_back(run: &[Pending]) -> Option<Ask> {
    let (first, last) = (run.first()?, run.last()?);
    let Address { table, number: start, .. } = first.target.address;
    Some(Ask::Read { table, start, count: u16::try_from(last.end() - usize::from(start)).ok()? })
}

/// Compares what was read back and answers.
pub(super) fn compare(run: Vec<Pending>, data: &[u8]) {
    let start = run.first().map_or(0, |p| p.target.address.number);
    for pending in run {
        let at = usize::from(pending.target.address.number - start);
        let outcome = if pending.target.address.table.is_bits() {
            match data.get(at / 8).map(|byte| byte >> (at % 8) & 1) {
                Some(bit) if u16::from(bit) == pending.words.first().copied().unwrap_or(0) => WriteOutcome::Done,
                Some(bit) => WriteOutcome::Differs(Value::Bool(bit == 1)),
                None => WriteOutcome::Unknown,
            }
        } else {
            let bytes: Vec<u8> = pending.words.iter().flat_map(|w| w.to_be_bytes()).collect();
            match data.get(at * 2..at * 2 + bytes.len()) {
                Some(same) if same == bytes => WriteOutcome::Done,
                Some(other) => pending.target.format.decode(other).map_or(WriteOutcome::Unknown, WriteOutcome::Differs),
                None => WriteOutcome::Unknown,
            }
        };
        pending.answer(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::DataType;
    use super::*;
    use crate::value::PointId;
    use std::time::Duration;
    use tokio::sync::oneshot;

    fn target(address: &str) -> Target {
        Target {
            unit: 0,
            address: address.parse().unwrap(),
            format: Format::plain(if address.starts_with("coil") { DataType::Bool } else { DataType::U16 }),
            single: true,
        }
    }

    fn wish(value: Value, priority: u8, deadline: Instant) -> (TagWrite, oneshot::Receiver<WriteOutcome>) {
        let (reply, answer) = oneshot::channel();
        (TagWrite { point: PointId(0), value, deadline, priority, verify: false, reply }, answer)
    }

    #[test]
    fn neighbours_share_a_request_and_the_most_urgent_goes_first() {
        let (mut writes, soon) = (Writes::default(), Instant::now() + Duration::from_secs(1));
        let mut answers = Vec::new();
        for (address, value, priority) in [
            ("holding:10", 1, 0),
            ("holding:12", 3, 0),
            ("holding:50", 9, 5),
            ("holding:11", 2, 0),
            ("holding:11", 7, 0),
        ] {
            let (wish, answer) = wish(Value::Uint(value), priority, soon);
            writes.push_tag(wish, Some(&target(address)));
            answers.push(answer);
        }
        let asks: Vec<Ask> = std::iter::from_fn(|| writes.next_tags().map(|(_, ask, _)| ask)).collect();
        let write = |start, words: &[u16]| Ask::WriteRegisters { start, words: words.to_vec(), single: true };
        assert_eq!(
            asks,
            [write(50, &[9]), write(10, &[1, 2, 3]), write(11, &[7])],
            "the second write to 11 comes second"
        );
    }

    #[test]
    fn a_write_that_waited_too_long_or_cannot_be_is_told_so_and_never_sent() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        let (late, mut late_answer) = wish(Value::Uint(1), 0, now);
        let (wrong, mut wrong_answer) = wish(Value::Uint(70_000), 0, now + Duration::from_secs(1));
        let (nowhere, mut nowhere_answer) = wish(Value::Uint(1), 0, now + Duration::from_secs(1));
        writes.push_tag(late, Some(&target("holding:0")));
        writes.push_tag(wrong, Some(&target("holding:1")));
        writes.push_tag(nowhere, None);
        writes.expire(now);
        assert!(writes.next_tags().is_none());
        assert_eq!(late_answer.try_recv(), Ok(WriteOutcome::Expired));
        assert!(
            matches!(wrong_answer.try_recv(), Ok(WriteOutcome::Invalid(why)) if why.contains("does not fit into u16"))
        );
        assert!(matches!(nowhere_answer.try_recv(), Ok(WriteOutcome::Invalid(_))));
    }

    #[test]
    fn what_is_read_back_decides() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let pending = |address: &str, word: u16| {
            let (wish, answer) = wish(Value::Uint(u64::from(word)), 0, deadline);
            (Pending { wish, target: target(address), words: vec![word] }, answer)
        };
        let ((a, mut a_answer), (b, mut b_answer)) = (pending("holding:5", 7), pending("holding:6", 8));
        let run = vec![a, b];
        assert_eq!(read_back(&run), Some(Ask::Read { table: Table::Holding, start: 5, count: 2 }));
        compare(run, &[0, 7, 0, 9]);
        assert_eq!(a_answer.try_recv(), Ok(WriteOutcome::Done));
        assert_eq!(b_answer.try_recv(), Ok(WriteOutcome::Differs(Value::Uint(9))));
    }
}
