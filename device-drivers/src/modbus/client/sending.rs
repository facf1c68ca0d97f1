//! What goes out next: command blocks, tag writes and polls in turn, as much as the window has room for.

use super::{Flight, Modbus, What};
use crate::line::LineSink;
use crate::modbus::frame::{put_mbap, put_rtu};
use crate::modbus::group::Group;
use crate::modbus::health::Unit;
use crate::modbus::pdu::Ask;
use crate::modbus::writes::{Target, Way};
use std::cmp::Reverse;
use std::time::Duration;
use tokio::time::Instant;

/// Who is asked for a request next. Of the three, those that have one take turns: neither heartbeats nor writers keep each other from a slow
/// unit, nor it from being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    #[default]
    Blocks,
    Tags,
    Reads,
}

impl Turn {
    const ALL: [Turn; 3] = [Turn::Blocks, Turn::Tags, Turn::Reads];

    fn next(self) -> Turn {
        match self {
            Turn::Blocks => Turn::Tags,
            Turn::Tags => Turn::Reads,
            Turn::Reads => Turn::Blocks,
        }
    }
}

/// Which units may be written to. Each has as many requests to answer as the line has a window, overdue ones too: without a pipeline one.
fn ready<'a>(
    units: &'a [Unit],
    flights: &'a [Flight],
    window: usize,
    now: Instant,
) -> impl Fn(usize) -> bool + Copy + 'a {
    move |unit| {
        let has_room = flights.iter().filter(|f| f.unit == unit).count() < window;
        has_room && !units.get(unit).is_some_and(|u| u.is_quiet(now))
    }
}

impl Modbus {
    /// Begins the polls whose time has come.
    pub(super) fn begin_due(&mut self, now: Instant, sink: &mut impl LineSink) {
        let since_start = self.since_start(now);
        while let Some(&Reverse((at, n))) = self.timer.peek() {
            if at > now {
                break;
            }
            self.timer.pop();
            let Some(group) = self.groups.get_mut(n).filter(|g| g.due == at && !g.is_running()) else { continue };
            let unit = self.units.get(group.unit);
            let probing = unit.is_some_and(Unit::is_demoted)
                && self.flights.iter().any(|f| f.unit == group.unit && matches!(f.what, What::Poll(..)));
            if probing || unit.is_some_and(|u| !u.may_be_asked(now)) {
                group.skip(now);
                self.timer.push(Reverse((group.due, n)));
            } else {
                // Its next due time goes into the timer when it has ended: until then it cannot begin.
                let missed = group.begin(now, since_start, &mut self.spare);
                if missed > 0 {
                    sink.missed(group.device, missed);
                }
                self.active.push(n);
            }
        }
    }

    /// The next request and its purpose.
    fn next_request(&mut self, now: Instant) -> Option<(usize, Ask, What)> {
        // Between the read of a register and the write of it with one part changed nothing else is asked: the shorter the better.
        if let Some((unit, ask, run)) = self.modified.pop() {
            return Some((unit, ask, What::Tags(run)));
        }
        let mut turn = self.turn;
        for _ in Turn::ALL {
            let next = match turn {
                Turn::Blocks => self.next_blocks(now),
                Turn::Tags => self.next_tags(now),
                Turn::Reads => self.next_read(now),
            };
            turn = turn.next();
            if next.is_some() {
                self.turn = turn;
                return next;
            }
        }
        None
    }

    fn next_blocks(&mut self, now: Instant) -> Option<(usize, Ask, What)> {
        let (units, flights, stopping) = (&self.units, &self.flights, self.stopping);
        let ready = ready(units, flights, self.window, now);
        let run = self.writes.next_blocks(|unit| {
            let under_way = flights.iter().any(|f| f.unit == unit && matches!(f.what, What::Blocks(_)));
            // A demoted unit is tried when it is probed, and once more at the very end.
            !under_way && ready(unit) && (stopping || units.get(unit).is_some_and(|u| u.may_be_asked(now)))
        })?;
        let ask = Ask::WriteRegisters { start: run.start, words: run.words, single: false };
        Some((run.unit, ask, What::Blocks(run.blocks)))
    }

    /// Writes of tags, and the reads that show what came of them.
    fn next_tags(&mut self, now: Instant) -> Option<(usize, Ask, What)> {
        let (units, flights) = (&self.units, &self.flights);
        let ready = ready(units, flights, self.window, now);
        if let Some(at) = self.looks.iter().position(|look| look.not_before <= now && ready(look.unit)) {
            let look = self.looks.remove(at);
            return Some((look.unit, look.ask(), What::ReadBack(look)));
        }
        // A reply that may be an echo of its request proves nothing before a read has told whether there is one.
        if !self.endpoint.has_transactions() && !self.bus.knows_its_echo() {
            let (unit, ask) = self.writes.next_read(|target| ready(target.unit))?;
            return Some((unit, ask, What::Listen));
        }
        // Where a register is read to be written again, its unit gets no other write before and in between.
        let changing = |target: &Target| {
            flights.iter().filter(|f| f.unit == target.unit).any(|f| match f.what {
                What::Modify(_) => true,
                What::Tags(_) => target.way == Way::Modify,
                _ => false,
            })
        };
        let (unit, ask, run) = self.writes.next_tags(|target| ready(target.unit) && !changing(target))?;
        match run.first().map(|p| p.target.way) {
            Some(Way::Modify) => Some((unit, ask, What::Modify(run))),
            _ => Some((unit, ask, What::Tags(run))),
        }
    }

    /// The read that is due again first: a long cycle does not hold up a short one.
    fn next_read(&mut self, now: Instant) -> Option<(usize, Ask, What)> {
        if self.stopping {
            return None;
        }
        // A unit that is overdue is not asked again before it has answered or its time is over.
        let overdue = |unit: usize| self.flights.iter().any(|f| f.unit == unit && f.turn_until <= now);
        let quiet = |unit: usize| self.units.get(unit).is_some_and(|u| u.is_quiet(now));
        let may = |g: &Group| g.has_next() && !overdue(g.unit) && !quiet(g.unit) && self.may_probe(g.unit);
        let ready = self.active.iter().filter_map(|n| self.groups.get(*n).filter(|g| may(g)).map(|g| (g.due, *n)));
        let (_, n) = ready.min()?;
        let group = self.groups.get_mut(n)?;
        let (ask, step) = group.next()?;
        Some((group.unit, ask, What::Poll(n, step)))
    }

    /// A demoted unit gets one request at a time.
    fn may_probe(&self, unit: usize) -> bool {
        let demoted = self.units.get(unit).is_some_and(Unit::is_demoted);
        !demoted || !self.flights.iter().any(|f| f.unit == unit)
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        // A connection that the device will close behind so many replies is not asked for more.
        let takes = self.replies_a_connection.map_or(usize::MAX, |most| most.saturating_sub(self.replies));
        now >= self.may_send_at
            && self.flights.len() < takes
            && self.flights.iter().filter(|f| f.turn_until > now).count() < self.window
    }

    /// How long the request that goes out now keeps the others waiting.
    fn turn_of(&self, unit: &Unit, limit: Duration) -> Duration {
        // What it says is told from what another says by nothing but time.
        if !self.endpoint.has_transactions() || unit.takes_foreign_replies {
            return limit;
        }
        // Machines wait for nobody.
        let slowest = self.units.iter().filter_map(Unit::usual).max();
        let patient = self.commands.is_empty()
            && if unit.is_demoted() {
                !self.units.iter().any(Unit::is_fine)
            } else {
                slowest.is_none() && !self.units.iter().any(Unit::is_in_arrears)
            };
        unit.turn(self.timeout, patient, slowest).min(limit)
    }

    /// Puts requests into `out` while there is room for them on the line.
    pub(super) fn send(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.writes.expire(now);
        let mut pdu = Vec::new();
        while self.has_room(now) {
            let Some((unit, ask, what)) = self.next_request(now) else { break };
            pdu.clear();
            let expected = ask.encode(&mut pdu);
            let Some(u) = self.units.get(unit) else { continue };
            let before = out.len();
            let limit = u.limit(self.timeout) + self.endpoint.takes(pdu.len() + 3, expected.length() + 3);
            let is_fine = u.is_fine();
            let (id, transactions) = (u.id, self.endpoint.has_transactions());
            let turn = self.turn_of(u, limit);
            self.transaction = self.transaction.wrapping_add(1);
            if transactions {
                put_mbap(self.transaction, id, &pdu, out);
            } else {
                self.inbox.clear(); // whatever is left is late
                put_rtu(id, &pdu, out);
                let said = out.get(before..).unwrap_or_default();
                let noisy = self.bus.say(said, expected, now, self.silence.max(self.pause));
                self.counters.noise += u64::from(noisy);
            }
            self.may_send_at = now + self.pause;
            if is_fine {
                self.unheard.get_or_insert(now);
            }
            let transaction = self.transaction;
            let (turn_until, deadline) = (now + turn, now + limit);
            // Whoever is asked while another keeps the line waiting may be waiting behind it.
            let behind = self.flights.iter().any(|f| f.unit != unit && f.turn_until <= now);
            let stranger = None;
            let flight =
                Flight { transaction, unit, ask, expected, what, sent: now, turn_until, deadline, behind, stranger };
            self.flights.push(flight);
        }
    }

    /// When something is to be done although nothing comes.
    pub(super) fn next_instant(&self, now: Instant) -> Option<Instant> {
        let flights = self.flights.iter().flat_map(|f| [f.turn_until, f.deadline]).filter(|at| *at > now);
        let due = self.timer.peek().map(|Reverse((at, _))| *at).filter(|_| !self.stopping);
        let quiet = self.units.iter().filter_map(|u| u.quiet_until(now));
        let send = (self.may_send_at > now).then_some(self.may_send_at);
        let looks = self.looks.iter().map(|look| look.not_before).filter(|at| *at > now);
        flights.chain(due).chain(send).chain(quiet).chain(looks).chain(self.writes.next_deadline()).min()
    }
}
