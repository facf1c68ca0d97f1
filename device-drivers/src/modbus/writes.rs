//! What waits to be written, and in which order: command blocks in turn, tags by priority, neighbours in one request.

use super::address::{Address, Table};
use super::apart::Apart;
use super::pdu::{Ask, WRITE_COILS_MAX, WRITE_REGISTERS_MAX};
use super::types::Format;
use crate::driver::{BlockWrite, TagWrite, WriteOutcome};
use crate::value::Value;
use control_core::units::MachineId;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Tag writes that may wait on one line; whoever comes later is told that the line is busy.
const WAITING_MAX: usize = 256;

/// How a value gets to where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Its registers or coils are its own.
    Whole,
    /// A part of a register, by function 22: the device itself leaves the other bits alone.
    Mask,
    /// A part of a register: the register is read, and written with the part changed.
    Modify,
}

/// Where a writable point lies.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) unit: usize,
    pub(super) address: Address,
    pub(super) format: Format,
    pub(super) way: Way,
    pub(super) single: bool,
    /// Registers or coils the device takes in one request; 1: each value on its own.
    pub(super) most: u16,
}

/// A tag write on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) wish: TagWrite,
    pub(super) target: Target,
    pub(super) words: Vec<u16>,
    /// The bits of its register that it has, where it has not all of them.
    pub(super) mask: Option<u16>,
    /// Sent on its own: together with others it was refused.
    pub(super) alone: bool,
}

impl Pending {
    fn end(&self) -> usize {
        usize::from(self.target.address.number) + self.words.len()
    }

    pub(super) fn answer(self, outcome: WriteOutcome) {
        let _ = self.wish.reply.send(outcome); // whoever asked may have gone
    }

    /// What of it stands in registers or bits that were read from `start` on.
    fn found(&self, start: u16, data: &[u8]) -> WriteOutcome {
        let at = usize::from(self.target.address.number - start);
        if self.target.address.table.is_bits() {
            return match data.get(at / 8).map(|byte| byte >> (at % 8) & 1) {
                Some(bit) if u16::from(bit) == self.words.first().copied().unwrap_or(0) => WriteOutcome::Done,
                Some(bit) => WriteOutcome::Differs(Value::Bool(bit == 1)),
                None => WriteOutcome::Unknown,
            };
        }
        let mask = self.mask.unwrap_or(u16::MAX);
        let same = |(found, wanted): (&[u8], &u16)| {
            <[u8; 2]>::try_from(found).is_ok_and(|found| (u16::from_be_bytes(found) ^ wanted) & mask == 0)
        };
        match data.get(at * 2..(at + self.words.len()) * 2) {
            Some(found) if found.chunks(2).zip(&self.words).all(same) => WriteOutcome::Done,
            Some(other) => {
                self.target.format.decode(other).value().map_or(WriteOutcome::Unknown, WriteOutcome::Differs)
            }
            None => WriteOutcome::Unknown,
        }
    }
}

/// How long is looked after a write that was neither done nor refused, and how long between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));

/// What is known of a run of writes before it is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was acknowledged: what stands there is what came of it.
    Done,
    /// The device or a gateway has taken it, and may be at it still: looked at until then.
    UnderWay(Instant),
    /// The connection or the time ended before it was answered: whether it is on its way still nobody knows.
    Nothing,
}

/// A read that shows what has come of a run of writes.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) unit: usize,
    pub(super) not_before: Instant,
    run: Vec<Pending>,
    known: Known,
}

impl Look {
    /// At writes that were acknowledged.
    pub(super) fn at_done(unit: usize, run: Vec<Pending>, now: Instant) -> Look {
        Look { unit, not_before: now, run, known: Known::Done }
    }

    /// At writes that the device or a gateway has taken and not done yet.
    pub(super) fn at_taken(unit: usize, run: Vec<Pending>, now: Instant) -> Look {
        Look { unit, not_before: now, run, known: Known::UnderWay(now + LOOKS.0) }
    }

    /// At writes that were sent and never answered.
    pub(super) fn at_lost(unit: usize, run: Vec<Pending>, now: Instant) -> Look {
        Look { unit, not_before: now, run, known: Known::Nothing }
    }

    /// The registers or coils of the run: they lie side by side, or did.
    pub(super) fn ask(&self) -> Ask {
        let Address { table, number: start, .. } =
            self.run.first().map_or(Address { table: Table::Holding, number: 0, bits: None }, |p| p.target.address);
        let end = self.run.last().map_or(0, Pending::end);
        Ask::Read { table, start, count: u16::try_from(end.saturating_sub(usize::from(start))).unwrap_or(1).max(1) }
    }

    /// What was read decides. What is still under way is looked at once more.
    pub(super) fn seen(self, data: &[u8], now: Instant) -> Option<Look> {
        let Look { unit, run, known, .. } = self;
        let start = run.first().map_or(0, |p| p.target.address.number);
        let (again, run): (Vec<_>, Vec<_>) = run.into_iter().partition(|pending| {
            let waits = matches!(known, Known::UnderWay(until) if now < until);
            waits && pending.found(start, data) != WriteOutcome::Done
        });
        for pending in run {
            let outcome = match pending.found(start, data) {
                WriteOutcome::Differs(_) if known == Known::Nothing => WriteOutcome::Unknown,
                outcome => outcome,
            };
            pending.answer(outcome);
        }
        (!again.is_empty()).then(|| Look { unit, not_before: now + LOOKS.1, run: again, known })
    }

    /// It could not be read. Where that may pass it is looked at once more.
    pub(super) fn failed(self, passes: bool, now: Instant) -> Option<Look> {
        match self.known {
            Known::UnderWay(until) if passes && now < until => Some(Look { not_before: now + LOOKS.1, ..self }),
            _ => {
                self.give_up();
                None
            }
        }
    }

    /// Nobody will look.
    pub(super) fn give_up(self) {
        self.run.into_iter().for_each(|p| p.answer(WriteOutcome::Unknown));
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

/// A command block that waits, and where it goes.
#[derive(Debug)]
struct Placed {
    unit: usize,
    at: u16,
    block: BlockWrite,
}

#[derive(Debug, Default)]
pub(super) struct Writes {
    /// At most one a machine: the newest wins. By where they go.
    blocks: Vec<Placed>,
    /// Where the last went that was sent: those behind it are next.
    last: Option<(usize, u16)>,
    apart: Apart,
    tags: Vec<Pending>,
}

impl Writes {
    /// Blocks to be written; they take the place of older ones that have not been sent.
    pub(super) fn push_blocks(&mut self, due: &[BlockWrite], places: &[(MachineId, usize, u16)]) {
        for block in due {
            let Some((_, unit, at)) = places.iter().find(|(m, ..)| *m == block.machine) else { continue };
            self.blocks.retain(|p| p.block.machine != block.machine);
            self.blocks.push(Placed { unit: *unit, at: *at, block: *block });
        }
        self.blocks.sort_by_key(|p| (p.unit, p.at));
    }

    /// Blocks that were sent over a connection that ended: as good as never sent, where none has come since.
    pub(super) fn blocks_again(&mut self, blocks: &[BlockWrite], places: &[(MachineId, usize, u16)]) {
        let is_old = |b: &&BlockWrite| !self.blocks.iter().any(|p| p.block.machine == b.machine);
        let missing: Vec<BlockWrite> = blocks.iter().filter(is_old).copied().collect();
        self.push_blocks(&missing, places);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.tags.is_empty()
    }

    /// Whether blocks wait for a unit that is ready for them.
    pub(super) fn has_blocks(&self, ready: impl Fn(usize) -> bool) -> bool {
        self.blocks.iter().any(|p| ready(p.unit))
    }

    /// The blocks of a unit that is ready for them; those side by side go out in one request. Machines take turns: where replies take longer
    /// than heartbeats, each has a new block before the others were written.
    pub(super) fn next_blocks(&mut self, ready: impl Fn(usize) -> bool) -> Option<BlockRun> {
        let behind = self.blocks.partition_point(|p| Some((p.unit, p.at)) <= self.last);
        let mut all = (behind..self.blocks.len()).chain(0..behind);
        let first = all.find(|i| self.blocks.get(*i).is_some_and(|p| ready(p.unit)))?;
        let Placed { unit, at: start, block } = self.blocks.remove(first);
        self.last = Some((unit, start));
        let mut run = BlockRun { unit, start, words: block.words.to_vec(), blocks: vec![block] };
        while let Some(next) = self.blocks.get(first)
            && next.unit == unit
            && usize::from(next.at) == usize::from(start) + run.words.len()
            && !self.apart.splits(block.machine, next.block.machine)
            && run.words.len() + next.block.words.len() <= WRITE_REGISTERS_MAX
        {
            let next = self.blocks.remove(first);
            run.words.extend_from_slice(&next.block.words);
            run.blocks.push(next.block);
            self.last = Some((unit, next.at));
        }
        Some(run)
    }

    /// The device has taken these blocks.
    pub(super) fn blocks_taken(&mut self, blocks: &[BlockWrite]) {
        self.apart.taken(blocks);
    }

    /// The device has refused these blocks together, and has taken none of them: each goes on its own from now on. False for one that was
    /// alone: then it is the one that is refused.
    pub(super) fn blocks_one_by_one(&mut self, blocks: &[BlockWrite], places: &[(MachineId, usize, u16)]) -> bool {
        let several = self.apart.refused(blocks);
        if several {
            self.blocks_again(blocks, places);
        }
        several
    }

    /// Takes a wish, or answers it at once when it cannot be fulfilled.
    pub(super) fn push_tag(&mut self, wish: TagWrite, target: Option<&Target>) {
        let Some(target) = target.cloned() else {
            let _ = wish.reply.send(WriteOutcome::Invalid("this tag cannot be written".into()));
            return;
        };
        let whole = |words| (words, None);
        let words = match (&wish.value, target.way) {
            (Value::Bool(b), _) if target.address.table.is_bits() => Ok((vec![u16::from(*b)], None)),
            (value, Way::Whole) => target.format.encode(value).map(whole),
            (value, Way::Mask | Way::Modify) => {
                target.format.encode_part(value).map(|(bits, mask)| (vec![bits], Some(mask)))
            }
        };
        match words {
            Ok(_) if self.tags.len() >= WAITING_MAX => {
                let _ =
                    wish.reply.send(WriteOutcome::Invalid(format!("{WAITING_MAX} writes wait on this line already")));
            }
            Ok((words, mask)) => {
                let alone = mask.is_some();
                self.tags.push(Pending { wish, target, words, mask, alone });
            }
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

    /// The read of what would be written next: it changes nothing, and tells whether the line echoes.
    pub(super) fn next_read(&self, ready: impl Fn(&Target) -> bool) -> Option<(usize, Ask)> {
        let next = self.tags.iter().find(|p| ready(&p.target))?;
        let Address { table, number: start, .. } = next.target.address;
        Some((next.target.unit, Ask::Read { table, start, count: u16::try_from(next.words.len()).ok()? }))
    }

    /// The most urgent tag write, with those beside it: highest priority first, then the one that waits longest. Where a part of a
    /// register is to be changed, it is the read of that register.
    pub(super) fn next_tags(&mut self, ready: impl Fn(&Target) -> bool) -> Option<(usize, Ask, Vec<Pending>)> {
        let may = |i: &usize| self.tags.get(*i).is_some_and(|p| ready(&p.target));
        let urgency = |i: &usize| self.tags.get(*i).map(|p| p.wish.priority);
        let first = (0..self.tags.len()).rev().filter(may).max_by_key(urgency)?;
        let mut run = VecDeque::from([self.tags.remove(first)]);
        let front = run.front()?;
        let (unit, table, single) = (front.target.unit, front.target.address.table, front.target.single);
        let most = if table == Table::Coil { WRITE_COILS_MAX } else { WRITE_REGISTERS_MAX };
        let (most, alone) = (most.min(usize::from(front.target.most)), front.alone);
        loop {
            if alone {
                break;
            }
            let (start, end) = (usize::from(run.front()?.target.address.number), run.back()?.end());
            match self.neighbour(unit, table, start..end, most.saturating_sub(end - start)) {
                Some((i, true)) => run.push_back(self.tags.remove(i)),
                Some((i, false)) => run.push_front(self.tags.remove(i)),
                None => break,
            }
        }
        let start = run.front()?.target.address.number;
        let words: Vec<u16> = run.iter().flat_map(|p| p.words.iter().copied()).collect();
        let ask = match (run.front()?.target.way, run.front()?.mask) {
            (Way::Modify, _) => Ask::Read { table, start, count: 1 },
            (Way::Mask, Some(mask)) => Ask::MaskWrite { number: start, mask, bits: words.first().copied()? },
            _ if table == Table::Coil => {
                Ask::WriteCoils { start, bits: words.iter().map(|w| *w != 0).collect(), single }
            }
            _ => Ask::WriteRegisters { start, words, single },
        };
        Some((unit, ask, run.into()))
    }

    /// A waiting write right behind (`true`) or in front of a run. None is pulled past an earlier one that it overlaps: two
    /// writes to one register keep their order.
    fn neighbour(&self, unit: usize, table: Table, run: Range<usize>, room: usize) -> Option<(usize, bool)> {
        let same = |p: &Pending| p.target.unit == unit && p.target.address.table == table;
        let start_of = |p: &Pending| usize::from(p.target.address.number);
        let overlaps = |a: &Pending, b: &Pending| same(b) && start_of(a) < b.end() && start_of(b) < a.end();
        self.tags.iter().enumerate().find_map(|(i, p)| {
            let behind = start_of(p) == run.end;
            let fits = same(p) && !p.alone && p.words.len() <= room && (behind || p.end() == run.start);
            let earlier = self.tags.get(..i).unwrap_or_default();
            (fits && !earlier.iter().any(|e| overlaps(p, e))).then_some((i, behind))
        })
    }

    /// A run was refused as a whole, which changed nothing: each is sent on its own.
    pub(super) fn again_one_by_one(&mut self, mut run: Vec<Pending>) {
        run.iter_mut().for_each(|pending| pending.alone = true);
        self.again(run);
    }

    /// Nothing of this run was done, nor will be: it is sent before all others.
    pub(super) fn again(&mut self, run: Vec<Pending>) {
        self.tags.splice(0..0, run);
    }

    /// Nothing waits any more: the link is gone.
    pub(super) fn give_up(&mut self, outcome: &WriteOutcome) {
        self.blocks.clear();
        for pending in self.tags.drain(..) {
            pending.answer(outcome.clone());
        }
    }
}

/// The write of a register that was read for it, with its part changed.
pub(super) fn modified(run: &[Pending], data: &[u8]) -> Option<Ask> {
    let (pending, present) = (run.first()?, <[u8; 2]>::try_from(data).ok().map(u16::from_be_bytes)?);
    let (mask, bits) = (pending.mask?, pending.words.first().copied()?);
    let Target { address, single, .. } = pending.target;
    Some(Ask::WriteRegisters { start: address.number, words: vec![(present & !mask) | (bits & mask)], single })
}

#[cfg(test)]
mod tests {
    use super::super::types::DataType;
    use super::*;
    use crate::value::PointId;
    use std::time::Duration;
    use tokio::sync::oneshot;

    fn target(address: &str) -> Target {
        let address = address.parse().unwrap();
        Target {
            unit: 0,
            address,
            format: Format::plain(if address.table.is_bits() { DataType::Bool } else { DataType::U16 })
                .within(&address),
            way: if address.bits.is_some() { Way::Mask } else { Way::Whole },
            single: true,
            most: 123,
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
        let asks: Vec<Ask> = std::iter::from_fn(|| writes.next_tags(|_| true).map(|(_, ask, _)| ask)).collect();
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
        assert!(writes.next_tags(|_| true).is_none());
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
            (Pending { wish, target: target(address), words: vec![word], mask: None, alone: false }, answer)
        };
        let ((a, mut a_answer), (b, mut b_answer)) = (pending("holding:5", 7), pending("holding:6", 8));
        let look = Look::at_done(0, vec![a, b], Instant::now());
        assert_eq!(look.ask(), Ask::Read { table: Table::Holding, start: 5, count: 2 });
        assert!(look.seen(&[0, 7, 0, 9], Instant::now()).is_none());
        assert_eq!(a_answer.try_recv(), Ok(WriteOutcome::Done));
        assert_eq!(b_answer.try_recv(), Ok(WriteOutcome::Differs(Value::Uint(9))));
    }
    #[test]
    fn what_is_under_way_is_looked_at_until_it_is_there_and_what_was_lost_once() {
        let start = Instant::now();
        let pending = |at: fn(usize, Vec<Pending>, Instant) -> Look| {
            let (wish, answer) = wish(Value::Uint(7), 0, start);
            let target = target("holding:5");
            (at(0, vec![Pending { wish, target, words: vec![7], mask: None, alone: false }], start), answer)
        };
        let (look, mut answer) = pending(Look::at_taken);
        let look = look.seen(&[0, 0], start).expect("not yet");
        assert_eq!(look.not_before, start + LOOKS.1);
        let look = look.failed(true, start).expect("busy, or nobody answered: that passes");
        assert!(answer.try_recv().is_err());
        assert!(look.seen(&[0, 7], start).is_none());
        assert_eq!(answer.try_recv(), Ok(WriteOutcome::Done));

        let (look, mut answer) = pending(Look::at_taken);
        assert!(look.seen(&[0, 0], start + LOOKS.0).is_none());
        assert_eq!(answer.try_recv(), Ok(WriteOutcome::Differs(Value::Uint(0))), "time is over");

        let (look, mut answer) = pending(Look::at_lost);
        assert!(look.seen(&[0, 0], start).is_none());
        assert_eq!(answer.try_recv(), Ok(WriteOutcome::Unknown), "it may come yet");
        let (look, mut answer) = pending(Look::at_lost);
        assert!(look.failed(true, start).is_none());
        assert_eq!(answer.try_recv(), Ok(WriteOutcome::Unknown));
    }
}
