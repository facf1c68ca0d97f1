//! What comes back, and what does not: replies to their requests, time-outs to their units.

use super::unasked::{BYTES_MAX, FRAMES_MAX};
use super::{FRUITLESS, Flight, Modbus, SILENCE_LIMITS, What};
use crate::driver::{Health, LinkError, PollReport, WriteOutcome};
use crate::line::LineSink;
use crate::modbus::frame::{Inbox, MbapFrame};
use crate::modbus::group::{Group, REFUSALS};
use crate::modbus::health::Unit;
use crate::modbus::pdu::{Answer, Ask};
use crate::modbus::writes::{Look, Pending, modified};
use crate::value::{Cause, wall_clock_ms};
use std::cmp::Reverse;
use std::time::Duration;
use tokio::time::Instant;

impl Modbus {
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.push(bytes);
        let result = if self.endpoint.has_transactions() {
            self.take_mbap(&mut inbox, now, sink)
        } else {
            // Without transactions nobody can tell which bytes were asked for; more than a line carries were not.
            self.unasked(bytes.len(), BYTES_MAX, now).and_then(|()| self.take_rtu(&mut inbox, now, sink))
        };
        self.inbox = inbox;
        result
    }

    fn take_mbap(&mut self, inbox: &mut Inbox, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        loop {
            let frame = inbox.mbap().map_err(|what| LinkError::Protocol { peer: self.endpoint.to_string(), what })?;
            let Some(frame) = frame else { return Ok(()) };
            // Whatever it is an answer to: somebody is there.
            self.hears(now);
            let units = &self.units;
            let meant = |f: &Flight| {
                f.transaction == frame.transaction && units.get(f.unit).is_some_and(|u| u.id == frame.unit)
            };
            match self.flights.iter().position(meant).or_else(|| self.stranger(&frame)) {
                Some(at) => {
                    let flight = self.flights.swap_remove(at);
                    self.may_send_at = self.may_send_at.max(now + self.pause);
                    self.answered(flight, inbox.get(frame.pdu), now, sink)?;
                }
                None => {
                    self.counters.dropped += 1;
                    self.unasked(1, FRAMES_MAX, now)?;
                }
            }
        }
    }

    /// A frame that answers nothing that was asked may be a reply all the same, of a device that copies unit or transaction wrongly: taken
    /// where that is wanted, else remembered as the likely reason why no answer came.
    fn stranger(&mut self, frame: &MbapFrame) -> Option<usize> {
        let units = &self.units;
        let unit_of = |f: &Flight| units.get(f.unit).map_or(0, |u| u.id);
        let alone = self.flights.len() == 1;
        let at = self.flights.iter().position(|f| {
            f.transaction == frame.transaction || (frame.transaction == 0 && (alone || unit_of(f) == frame.unit))
        })?;
        let flight = self.flights.get(at)?;
        if alone && units.get(flight.unit).is_some_and(|u| u.takes_foreign_replies) {
            return Some(at);
        }
        let is_own = unit_of(flight) == frame.unit;
        let cause = if is_own { Cause::NoTransaction } else { Cause::OtherUnit(frame.unit) };
        self.flights.get_mut(at)?.stranger = Some(cause);
        None
    }

    fn take_rtu(&mut self, inbox: &mut Inbox, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        self.may_send_at = self.bus.hears(now, self.silence.max(self.pause), self.timeout);
        let Some(flight) = self.flights.first() else {
            self.counters.dropped += 1;
            inbox.clear();
            return Ok(());
        };
        if !self.bus.takes_its_copy(inbox, &mut self.counters.echoes) {
            return Ok(());
        }
        let id = self.units.get(flight.unit).map_or(0, |u| u.id);
        let Some(pdu) = inbox.rtu(id, flight.expected) else { return Ok(()) };
        self.bus.is_answered();
        let flight = self.flights.remove(0);
        self.answered(flight, inbox.get(pdu), now, sink)
    }

    /// So much has come that nobody has asked for. A flood of it is not listened to for ever.
    fn unasked(&mut self, amount: usize, most: usize, now: Instant) -> Result<(), LinkError> {
        if !self.unasked.comes(amount, most, now) {
            return Ok(());
        }
        let what = "a flood of replies that nobody has asked for; is something else behind this address, or a gateway that mirrors others?";
        Err(LinkError::Protocol { peer: self.endpoint.to_string(), what: what.into() })
    }

    /// Somebody is there.
    fn hears(&mut self, now: Instant) {
        (self.last_heard, self.unheard, self.silent) = (now, None, 0);
    }

    fn nobody_answers(&self, unit: usize, ask: &Ask) -> LinkError {
        let unit = self.units.get(unit).map_or(0, |u| u.id);
        let (peer, what) = (self.endpoint.to_string(), format!("{ask} at unit {unit}"));
        LinkError::Timeout { peer, what, limit: self.timeout }
    }

    fn answered(
        &mut self,
        flight: Flight,
        pdu: &[u8],
        now: Instant,
        sink: &mut impl LineSink,
    ) -> Result<(), LinkError> {
        self.hears(now);
        self.replies += 1;
        let answer = flight.expected.check(pdu);
        // A gateway that says "no path" or "no answer" speaks for a unit that did not.
        let absent = matches!(answer, Ok(Answer::Exception(10 | 11)));
        let took = now.saturating_duration_since(flight.sent);
        let since_start = self.since_start(now);
        self.counters.bad_replies += u64::from(answer.is_err());
        let cause = match &answer {
            Ok(Answer::Exception(code)) => Some(Cause::Exception(*code)),
            Err(_) => Some(Cause::BadReply),
            Ok(_) => None,
        };
        match flight.what {
            What::Poll(n, step) => {
                if let Some(group) = self.groups.get_mut(n) {
                    group.answered(step, answer.map_err(|_| Cause::BadReply), since_start, wall_clock_ms());
                    if absent {
                        group.drop_rest();
                    }
                }
            }
            What::Blocks(blocks) => match cause {
                None => {
                    self.writes.blocks_taken(&blocks);
                    sink.written(&blocks);
                }
                Some(Cause::Exception(code))
                    if REFUSALS.contains(&code) && self.writes.blocks_one_by_one(&blocks, &self.commands) => {}
                Some(cause) => sink.not_written(&blocks, cause),
            },
            What::Tags(run) => match cause {
                None => self.acknowledged(flight.unit, run, now),
                // Together they are too long, or one of them is not there: alone each gets its own answer.
                Some(Cause::Exception(1..=3)) if run.len() > 1 => self.writes.again_one_by_one(run),
                // Accepted (V1.1b3, 7: it takes long), or handed on by a gateway that heard nothing of it: neither done nor refused.
                Some(Cause::BadReply | Cause::Exception(5 | 11)) => {
                    self.looks.push(Look::at_taken(flight.unit, run, now));
                }
                Some(cause) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Refused(cause))),
            },
            What::Modify(run) => {
                let data = if let Ok(Answer::Data(data)) = answer { data } else { &[] };
                match modified(&run, data) {
                    Some(ask) => self.modified.push((flight.unit, ask, run)),
                    // Nothing has been written, and nothing has changed.
                    None => {
                        let cause = cause.unwrap_or(Cause::BadReply);
                        run.into_iter().for_each(|p| p.answer(WriteOutcome::Refused(cause)));
                    }
                }
            }
            What::Listen => {}
            What::ReadBack(look) => self.looks.extend(match answer {
                Ok(Answer::Data(data)) => look.seen(data, now),
                other => look.failed(matches!(other, Ok(Answer::Exception(5 | 6 | 11))), now),
            }),
        }
        self.finish_polls(now, sink);
        match cause {
            Some(cause @ (Cause::Exception(10 | 11) | Cause::BadReply)) => {
                self.unit_missed(flight.unit, flight.sent, now, cause, sink);
            }
            _ => self.unit_answered(flight.unit, took, now, sink),
        }
        Ok(())
    }

    fn unit_answered(&mut self, unit: usize, took: Duration, now: Instant, sink: &mut impl LineSink) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let was_demoted = u.is_demoted();
        if u.answered(took) {
            self.tell_health(unit, Health::Healthy, Cause::None, sink);
        }
        if was_demoted {
            // What it has not been asked for in the meantime is read now, however long its interval.
            for (n, group) in self.groups.iter_mut().enumerate().filter(|(_, g)| g.unit == unit && !g.is_running()) {
                group.poll_now(now);
                self.timer.push(Reverse((group.due, n)));
            }
        }
    }

    /// A write was acknowledged: read it back where that is wanted.
    fn acknowledged(&mut self, unit: usize, run: Vec<Pending>, now: Instant) {
        if run.iter().any(|p| p.wish.verify) {
            self.looks.push(Look::at_done(unit, run, now));
        } else {
            run.into_iter().for_each(|p| p.answer(WriteOutcome::Done));
        }
    }

    pub(super) fn finish_polls(&mut self, now: Instant, sink: &mut impl LineSink) {
        let (groups, timer, spare) = (&mut self.groups, &mut self.timer, &mut self.spare);
        self.active.retain(|n| {
            let Some(group) = groups.get_mut(*n) else { return false };
            match group.finish(now) {
                Some((report, readings)) => {
                    sink.readings(report, readings);
                    spare.push(std::mem::take(readings));
                    timer.push(Reverse((group.due, *n)));
                    false
                }
                None => true,
            }
        });
    }

    /// Requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant, sink: &mut impl LineSink) -> Result<(), LinkError> {
        while let Some(at) = self.flights.iter().position(|f| f.deadline <= now) {
            let flight = self.flights.swap_remove(at);
            self.counters.timeouts += 1;
            let cause = self.after_time_out(flight.unit, now);
            let cause = flight.stranger.unwrap_or(cause);
            match flight.what {
                What::Poll(n, step) => {
                    if let Some(group) = self.groups.get_mut(n) {
                        group.abandoned(step, cause, wall_clock_ms());
                    }
                }
                What::Blocks(blocks) => sink.not_written(&blocks, cause),
                What::Tags(run) => self.looks.push(Look::at_lost(flight.unit, run, now)),
                What::ReadBack(look) => self.looks.extend(look.failed(false, now)),
                What::Modify(run) => run.into_iter().for_each(|p| p.answer(WriteOutcome::Refused(cause))),
                What::Listen => {}
            }
            self.finish_polls(now, sink);
            let deaf = self.unheard.is_some_and(|since| now >= since + self.timeout * SILENCE_LIMITS);
            if deaf && self.endpoint.host_port().is_some() {
                return Err(self.nobody_answers(flight.unit, &flight.ask));
            }
            // It may have waited behind another: that one's silence, not its own; unless nobody has answered for two connections.
            let is_excused = self.fruitless.is_none() || self.units.iter().any(Unit::is_known);
            if flight.behind && is_excused {
                continue;
            }
            self.unit_missed(flight.unit, flight.sent, now, cause, sink);
            self.silent = if self.last_heard < flight.sent { self.silent + 1 } else { 0 };
            if self.silent >= 2 && self.is_half_open(now) && self.may_end(now) {
                return Err(self.nobody_answers(flight.unit, &flight.ask));
            }
        }
        Ok(())
    }

    /// A connection on which nobody says anything is half open, unless there is a unit that has always answered: then that
    /// one is asked now. A serial port is never half open.
    fn is_half_open(&mut self, now: Instant) -> bool {
        if self.endpoint.host_port().is_none() {
            return false;
        }
        let Some(fine) = self.units.iter().position(Unit::is_fine) else { return true };
        if let Some((n, group)) = self.groups.iter_mut().enumerate().find(|(_, g)| g.unit == fine && !g.is_running()) {
            group.poll_now(now);
            self.timer.push(Reverse((group.due, n)));
        }
        false
    }

    /// Whether it helps to end the connection because nobody answers. Where nobody has answered on it at all, and a new one was made for
    /// that already, the units are silent and not the connection: they are demoted one by one, and told as such.
    fn may_end(&mut self, now: Instant) -> bool {
        let was_heard = self.units.iter().any(Unit::is_known);
        let may = was_heard || self.fruitless.is_none_or(|at| now >= at + FRUITLESS);
        if may {
            self.fruitless = (!was_heard).then_some(now);
        }
        may
    }

    /// Without transaction ids a late reply looks like the answer to the next request of the same kind: the unit is left
    /// alone for as long again, and whatever comes in that time is thrown away. The answer is why there was none, as far as the line
    /// can tell.
    fn after_time_out(&mut self, unit: usize, now: Instant) -> Cause {
        if self.endpoint.has_transactions() {
            // Nor does it help where they are not believed.
            if let Some(unit) = self.units.get_mut(unit).filter(|u| u.takes_foreign_replies) {
                unit.keep_quiet(now + self.timeout);
            }
            return Cause::NoAnswer;
        }
        self.inbox.clear();
        self.may_send_at = self.may_send_at.max(now + self.silence.max(self.pause));
        if let Some(unit) = self.units.get_mut(unit) {
            unit.keep_quiet(now + self.timeout);
        }
        self.bus.is_not_answered()
    }

    fn unit_missed(&mut self, unit: usize, sent: Instant, now: Instant, cause: Cause, sink: &mut impl LineSink) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let newly = u.missed(sent, now);
        if !u.is_demoted() {
            return;
        }
        // What was about to be asked of it is not asked before its probe.
        self.groups.iter_mut().filter(|g| g.unit == unit).for_each(Group::drop_rest);
        self.finish_polls(now, sink);
        if newly {
            self.tell_health(unit, Health::Demoted, cause, sink);
            let wall_ms = wall_clock_ms();
            for group in self.groups.iter().filter(|g| g.unit == unit) {
                let report = PollReport { device: group.device, ..PollReport::default() };
                sink.readings(report, &mut group.all_bad(cause, wall_ms));
            }
        }
    }

    fn tell_health(&mut self, unit: usize, health: Health, cause: Cause, sink: &mut impl LineSink) {
        for device in self.devices.iter().enumerate().filter(|(_, u)| **u == unit).map(|(d, _)| d) {
            sink.health(device, health, cause);
        }
    }
}
