//! One device's values of one interval: their requests, and one poll of them from its due time to its report.
//!
//! ```text
//!   due ──begin──> next, next, ..  ──answered──> readings ──finish──> report to the sink
//!                    ^      └── refused: once more if it was answered before, else two halves, asked in the same poll
//!                    └── a quarantined value whose time has come
//! ```

use super::address::{Address, Table};
use super::coverage::{Coverage, Refusal};
use super::pdu::{Answer, Ask};
use super::plan::{Limits, Request, Span};
use super::spec::PointSpec;
use super::types::{DataType, Format, POWER_MAX};
use crate::driver::PollReport;
use crate::value::{Cause, Decoded, PointId, Quality, Reading, Value, wall_clock_ms};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Requests that one poll may spend on finding out what a device refuses; the rest is found in the polls after.
const SPLITS_PER_POLL: u32 = 64;

/// The longest number, four registers.
const VALUE_BYTES: usize = 8;

/// Exceptions that one value of a request may have brought about (V1.1b3, 7; 7 is negative acknowledge of older devices): the request is
/// halved until it is alone. A 4 may pass by itself, as any of them may.
pub(super) const REFUSALS: [u8; 6] = [1, 2, 3, 4, 7, 8];
/// Exceptions that say "not now" (V1.1b3, 7): acknowledge, server device busy.
const BUSY_CODES: [u8; 2] = [5, 6];
/// First and longest wait before a device that was busy is asked again, where its next poll is later than that.
const BUSY_WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

#[derive(Debug)]
struct Point {
    /// `None`: a power of ten, read for the values that it scales.
    id: Option<PointId>,
    format: Format,
    /// Which of the powers scales it.
    power: Option<usize>,
}

/// A register that says by which power of ten values are multiplied (SunSpec `sunssf`), as this poll has read it.
#[derive(Debug)]
struct Power {
    /// Which of the points it is.
    point: u32,
    said: Said,
    /// Values that came in an earlier request of this poll: their bits, high word first on the wire or not, as they came.
    waiting: Vec<(u32, [u8; VALUE_BYTES])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    NotYet,
    /// It could not be read, or is none.
    Nothing,
    Power(i16),
}

/// Which request of a poll.
#[derive(Debug)]
pub(super) enum Step {
    /// One of the plan.
    Planned(usize),
    /// One half of a refused one, or a probe.
    Extra(Box<Extra>),
}

#[derive(Debug)]
pub(super) struct Extra {
    request: Request,
    born_of: Option<u32>,
    probe: bool,
}

#[derive(Debug, Default)]
struct Run {
    late: Duration,
    begun: Option<Instant>,
    next: usize,
    extra: VecDeque<Extra>,
    outstanding: u32,
    requests: u32,
    splits: u32,
    relearned: bool,
    busy: bool,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) device: usize,
    pub(super) unit: usize,
    pub(super) period: Duration,
    pub(super) due: Instant,
    points: Vec<Point>,
    powers: Vec<Power>,
    coverage: Coverage,
    reads: Vec<Request>,
    /// With which request a poll begins: behind one that was not answered, so that those after it get their turn.
    first: usize,
    run: Run,
    readings: Vec<Reading>,
    /// The device was busy: so long is waited, and then its schedule goes on from this instant.
    busy: Option<(Duration, Instant)>,
}

impl Group {
    /// The points of one interval.
    pub(super) fn new(device: usize, unit: usize, period: Duration, specs: &[&PointSpec], limits: &Limits) -> Group {
        let span =
            |at: &Address, format: &Format| Span { table: at.table, start: at.number, len: format.kind.registers() };
        let of_point = |p: &&PointSpec| (span(&p.address, &p.format), Some(p.id), p.format.within(&p.address));
        let mut wanted: Vec<(Span, Option<PointId>, Format)> = specs.iter().map(of_point).collect();
        // Each power once, and of the same poll as what it scales: beside it, so in the same request where the device takes that.
        let mut scales: Vec<(Span, Format)> = Vec::new();
        for format in specs.iter().map(|p| &p.format) {
            let Some(at) = format.power() else { continue };
            let power = Format { order: format.order, ..Format::plain(DataType::I16) };
            if !scales.iter().any(|(s, _)| *s == span(&at, &power)) {
                scales.push((span(&at, &power), power));
            }
        }
        wanted.extend(scales.into_iter().map(|(span, format)| (span, None, format)));
        wanted.sort_by_key(|(span, ..)| *span);
        let coverage = Coverage::new(wanted.iter().map(|(span, ..)| *span).collect(), limits.clone());
        let is_power = |(n, w): (usize, &(Span, Option<PointId>, Format))| {
            w.1.is_none().then_some((n as u32, w.0.start, w.0.table))
        };
        let places: Vec<(u32, u16, Table)> = wanted.iter().enumerate().filter_map(is_power).collect();
        let power = |format: &Format| {
            let at = format.power()?;
            places.iter().position(|(_, start, table)| (*start, *table) == (at.number, at.table))
        };
        let points =
            wanted.iter().map(|(_, id, format)| Point { id: *id, format: format.clone(), power: power(format) });
        let points = points.collect();
        let fresh = |(point, ..): &(u32, u16, Table)| Power { point: *point, said: Said::NotYet, waiting: Vec::new() };
        let powers = places.iter().map(fresh).collect();
        let reads = coverage.requests();
        let (run, readings) = (Run::default(), Vec::new());
        Group {
            device,
            unit,
            period,
            due: Instant::now(),
            points,
            powers,
            coverage,
            reads,
            first: 0,
            run,
            readings,
            busy: None,
        }
    }

    /// The requests of one poll as things stand.
    pub(super) fn reads(&self) -> &[Request] {
        &self.reads
    }

    /// Registers or bits that a request reads for nobody.
    pub(super) fn wasted(&self, request: &Request) -> u16 {
        self.coverage.wasted(request)
    }

    pub(super) fn is_running(&self) -> bool {
        self.run.begun.is_some()
    }

    /// Begins a poll; the answer is how many were missed because this one is late. Its phase is kept. `spare` is memory for what will be
    /// read: groups that run have some, those that wait have none.
    pub(super) fn begin(&mut self, now: Instant, since_start: Duration, spare: &mut Vec<Vec<Reading>>) -> u64 {
        let late = now.saturating_duration_since(self.due);
        let missed = late.as_nanos() / self.period.as_nanos().max(1);
        match self.busy {
            // This one is out of turn.
            Some((_, regular)) if regular > now => self.due = regular,
            _ => self.due += self.period * u32::try_from(missed + 1).unwrap_or(u32::MAX),
        }
        if self.coverage.try_uncut(since_start) {
            (self.reads, self.first) = (self.coverage.requests(), 0);
        }
        let mut extra = VecDeque::new();
        if let Some(request) = self.coverage.probe(since_start) {
            extra.push_back(Extra { request, born_of: None, probe: true });
        }
        if self.readings.capacity() == 0 {
            self.readings = spare.pop().unwrap_or_default();
        }
        self.readings.clear();
        for power in &mut self.powers {
            power.said = Said::NotYet;
            power.waiting.clear();
        }
        let late = late - self.period * u32::try_from(missed).unwrap_or(0);
        self.run = Run { late, begun: Some(now), extra, ..Run::default() };
        u64::try_from(missed).unwrap_or(u64::MAX)
    }

    /// Skips polls without counting them: the unit is not asked.
    pub(super) fn skip(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due).as_nanos() / self.period.as_nanos().max(1);
        self.due += self.period * u32::try_from(late + 1).unwrap_or(u32::MAX);
    }

    /// The next request of the poll that runs.
    pub(super) fn next(&mut self) -> Option<(Ask, Step)> {
        self.run.begun?;
        let (request, step) = match self.run.extra.pop_front() {
            Some(extra) => (extra.request.clone(), Step::Extra(Box::new(extra))),
            None => {
                if self.run.next >= self.reads.len() {
                    return None;
                }
                let n = (self.first + self.run.next) % self.reads.len();
                let request = self.reads.get(n)?.clone();
                self.run.next += 1;
                (request, Step::Planned(n))
            }
        };
        self.run.outstanding += 1;
        self.run.requests += 1;
        Some((Ask::Read { table: request.table, start: request.start, count: request.count }, step))
    }

    /// Whether the poll that runs has another request to send.
    pub(super) fn has_next(&self) -> bool {
        self.is_running() && (!self.run.extra.is_empty() || self.run.next < self.reads.len())
    }

    /// An answer has come, or something that is none (`Err`).
    pub(super) fn answered(
        &mut self,
        step: Step,
        answer: Result<Answer<'_>, Cause>,
        since_start: Duration,
        wall_ms: u64,
    ) {
        self.run.outstanding = self.run.outstanding.saturating_sub(1);
        let (request, born_of, probe) = match step {
            Step::Planned(n) => match self.reads.get(n) {
                Some(request) => (request.clone(), None, false),
                None => return,
            },
            Step::Extra(extra) => (extra.request, extra.born_of, extra.probe),
        };
        match answer {
            Ok(Answer::Data(data)) => {
                self.coverage.answered(&request);
                self.decode(&request, data, wall_ms);
                if probe {
                    self.coverage.forgive();
                    self.run.relearned = true;
                }
            }
            Ok(Answer::Exception(code)) if REFUSALS.contains(&code) => {
                self.refused(request, born_of, code, since_start, wall_ms);
            }
            Ok(Answer::Exception(code)) if BUSY_CODES.contains(&code) => {
                self.run.busy = true;
                self.mark(&request, Quality::Uncertain, Cause::Exception(code), wall_ms);
            }
            Ok(Answer::Exception(code)) => self.mark(&request, Quality::Bad, Cause::Exception(code), wall_ms),
            Ok(Answer::Done) => self.mark(&request, Quality::Bad, Cause::BadReply, wall_ms),
            Err(cause) => self.mark(&request, Quality::Bad, cause, wall_ms),
        }
    }

    fn refused(&mut self, request: Request, born_of: Option<u32>, code: u8, since_start: Duration, wall_ms: u64) {
        if self.run.splits >= SPLITS_PER_POLL && request.spans.len() > 1 {
            return self.mark(&request, Quality::Bad, Cause::Exception(code), wall_ms);
        }
        self.run.splits += 1;
        let refusal = self.coverage.refused(&request, born_of, code, since_start);
        self.run.relearned |= !matches!(refusal, Some(Refusal::Again));
        match refusal {
            Some(Refusal::Again) => self.run.extra.push_front(Extra { request, born_of, probe: false }),
            Some(Refusal::Halves(left, right, boundary)) => {
                let half = |request| Extra { request, born_of: Some(boundary), probe: false };
                self.run.extra.push_front(half(right));
                self.run.extra.push_front(half(left));
            }
            Some(Refusal::Doubted(_) | Refusal::Quarantined(_)) | None => {
                self.mark(&request, Quality::Bad, Cause::Exception(code), wall_ms);
            }
        }
    }

    fn decode(&mut self, request: &Request, data: &[u8], wall_ms: u64) {
        self.hear_powers(request, Some(data), wall_ms);
        for i in &request.spans {
            let (Some(point), Some(span)) = (self.points.get(*i as usize), self.coverage.span(*i)) else { continue };
            let Some(id) = point.id else { continue };
            let at = usize::from(span.start.saturating_sub(request.start));
            let wire = data.get(at * 2..).unwrap_or_default();
            let decoded = match point.power.and_then(|n| self.powers.get_mut(n)) {
                _ if request.table.is_bits() => match data.get(at / 8) {
                    Some(byte) => Decoded::Good(Value::Bool(byte >> (at % 8) & 1 == 1)),
                    None => Decoded::None(Cause::WrongType),
                },
                None => point.format.decode(wire),
                Some(Power { said: Said::Power(power), .. }) => point.format.decode_with(wire, *power),
                Some(Power { said: Said::Nothing, .. }) => Decoded::None(Cause::NoScale),
                Some(Power { waiting, .. }) => {
                    let mut bits = [0; VALUE_BYTES];
                    bits.iter_mut().zip(wire).for_each(|(to, from)| *to = *from);
                    waiting.push((*i, bits));
                    continue;
                }
            };
            self.readings.push(Reading::decoded(id, decoded, wall_ms));
        }
    }

    /// What a request says of powers: in `data`, or nothing at all. Whatever has waited for one of them is decoded.
    fn hear_powers(&mut self, request: &Request, data: Option<&[u8]>, wall_ms: u64) {
        for power in self.powers.iter_mut().filter(|p| request.spans.contains(&p.point)) {
            let (Some(point), Some(span)) = (self.points.get(power.point as usize), self.coverage.span(power.point))
            else {
                continue;
            };
            let at = usize::from(span.start.saturating_sub(request.start)) * 2;
            let said = data.and_then(|data| data.get(at..)).and_then(|wire| point.format.decode(wire).value());
            power.said = match said {
                Some(Value::Int(n)) if n.unsigned_abs() <= POWER_MAX.unsigned_abs().into() => Said::Power(n as i16),
                _ => Said::Nothing,
            };
            let Power { said, waiting, .. } = power;
            settle(&self.points, *said, waiting, &mut self.readings, wall_ms);
        }
    }

    fn mark(&mut self, request: &Request, quality: Quality, cause: Cause, wall_ms: u64) {
        self.hear_powers(request, None, wall_ms);
        let points = &self.points;
        let ids = request.spans.iter().filter_map(|i| points.get(*i as usize)?.id);
        self.readings.extend(ids.map(|point| Reading { point, value: None, quality, cause, source_ms: wall_ms }));
    }

    /// A request was not answered: its values are Bad, and the rest of this poll is not asked. What has been read is still
    /// reported, and the next poll begins behind it.
    pub(super) fn abandoned(&mut self, step: Step, cause: Cause, wall_ms: u64) {
        self.run.outstanding = self.run.outstanding.saturating_sub(1);
        let request = match step {
            Step::Planned(n) => {
                self.first = (n + 1) % self.reads.len().max(1);
                self.reads.get(n).cloned()
            }
            Step::Extra(extra) => Some(extra.request),
        };
        if let Some(request) = request {
            self.mark(&request, Quality::Bad, cause, wall_ms);
        }
        self.drop_rest();
    }

    /// The device hung up in place of an answer: the request is asked once more, over a new connection.
    pub(super) fn again(&mut self, step: Step) {
        self.run.outstanding = self.run.outstanding.saturating_sub(1);
        self.run.requests = self.run.requests.saturating_sub(1);
        let extra = match step {
            Step::Planned(n) => match self.reads.get(n) {
                Some(request) => Extra { request: request.clone(), born_of: None, probe: false },
                None => return,
            },
            Step::Extra(extra) => *extra,
        };
        self.run.extra.push_front(extra);
    }

    /// The device may have been mended or loaded anew: what it refused is asked for soon.
    pub(super) fn probe_soon(&mut self, since_start: Duration) {
        self.coverage.probe_soon(since_start);
        if self.is_running() {
            self.run.relearned = true; // and the requests follow when it has ended
        } else {
            (self.reads, self.first) = (self.coverage.requests(), 0);
        }
    }

    /// What is polled seldom is polled now: the unit is back.
    pub(super) fn poll_now(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// What of this poll has not been asked is not asked.
    pub(super) fn drop_rest(&mut self) {
        self.run.extra.clear();
        self.run.next = self.reads.len();
    }

    /// Ends the poll if nothing of it is left to be asked or waited for.
    pub(super) fn finish(&mut self, now: Instant) -> Option<(PollReport, &mut Vec<Reading>)> {
        let begun = self.run.begun?;
        if self.run.outstanding > 0 || self.has_next() {
            return None;
        }
        let run = std::mem::take(&mut self.run);
        for Power { waiting, .. } in &mut self.powers {
            // It was not read at all: it is quarantined, or the poll was cut short.
            settle(&self.points, Said::Nothing, waiting, &mut self.readings, wall_clock_ms());
        }
        if run.relearned {
            (self.reads, self.first) = (self.coverage.requests(), 0);
        }
        self.busy = match self.busy {
            _ if !run.busy => None,
            before => {
                let wait = before.map_or(BUSY_WAIT.0, |(wait, _)| (wait * 2).min(BUSY_WAIT.1));
                let regular = self.due;
                self.due = regular.min(now + wait);
                Some((wait, regular))
            }
        };
        let report =
            PollReport { device: self.device, requests: run.requests, alive: false, took: now - begun, late: run.late };
        Some((report, &mut self.readings))
    }

    /// The unit does not answer: everything is Bad.
    pub(super) fn all_bad(&self, cause: Cause, wall_ms: u64) -> Vec<Reading> {
        self.points.iter().filter_map(|p| p.id).map(|id| Reading::bad(id, cause, wall_ms)).collect()
    }

    /// The link was made anew.
    pub(super) fn link_is_new(&mut self, since_start: Duration) {
        (self.run, self.busy) = (Run::default(), None);
        self.coverage.probe_soon(since_start);
        (self.reads, self.first) = (self.coverage.requests(), 0);
    }

    /// Points that the device refuses, with the exception.
    pub(super) fn quarantined(&self) -> usize {
        self.coverage.quarantined().count()
    }
}

/// Values that have waited for their power.
fn settle(
    points: &[Point],
    said: Said,
    waiting: &mut Vec<(u32, [u8; VALUE_BYTES])>,
    readings: &mut Vec<Reading>,
    wall_ms: u64,
) {
    for (i, bits) in waiting.drain(..) {
        let Some((point, id)) = points.get(i as usize).and_then(|p| Some((p, p.id?))) else { continue };
        let decoded = match said {
            Said::Power(power) => point.format.decode_with(&bits, power),
            Said::NotYet | Said::Nothing => Decoded::None(Cause::NoScale),
        };
        readings.push(Reading::decoded(id, decoded, wall_ms));
    }
}
