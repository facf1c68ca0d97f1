//! One device's values of one interval: their requests, and one poll of them from its due time to its report.
//!
//! ```text
//!   due ──begin──> next, next, ..  ──answered──> readings ──finish──> report to the sink
//!                    ^      └── refused: two halves, asked in the same poll
//!                    └── a quarantined value whose time has come
//! ```

use super::coverage::{Coverage, Refusal};
use super::pdu::{Answer, Ask};
use super::plan::{Limits, Request, Span};
use super::spec::PointSpec;
use super::types::Format;
use crate::driver::PollReport;
use crate::value::{Cause, PointId, Quality, Reading, Value};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Requests that one poll may spend on finding out what a device refuses; the rest is found in the polls after.
const SPLITS_PER_POLL: u32 = 64;

/// Exceptions that one value of a request may have brought about (V1.1b3, 7; 7 is negative acknowledge of older devices): the request is
/// halved until it is alone.
const REFUSALS: [u8; 6] = [1, 2, 3, 4, 7, 8];
/// Exceptions that say "not now" (V1.1b3, 7): acknowledge, server device busy.
const BUSY_CODES: [u8; 2] = [5, 6];
/// First and longest wait before a device that was busy is asked again, where its next poll is later than that.
const BUSY_WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

#[derive(Debug)]
struct Point {
    id: PointId,
    format: Format,
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
            |p: &PointSpec| Span { table: p.address.table, start: p.address.number, len: p.format.kind.registers() };
        let mut sorted: Vec<&&PointSpec> = specs.iter().collect();
        sorted.sort_by_key(|p| span(p));
        let coverage = Coverage::new(sorted.iter().map(|p| span(p)).collect(), limits.clone());
        let points = sorted.iter().map(|p| Point { id: p.id, format: p.format.within(&p.address) }).collect();
        let reads = coverage.requests();
        let (run, readings) = (Run::default(), Vec::new());
        Group {
            device,
            unit,
            period,
            due: Instant::now(),
            points,
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
        self.run.relearned = true;
        match self.coverage.refused(&request, born_of, code, since_start) {
            Some(Refusal::Halves(left, right, boundary)) => {
                let half = |request| Extra { request, born_of: Some(boundary), probe: false };
                self.run.extra.push_front(half(right));
                self.run.extra.push_front(half(left));
            }
            Some(Refusal::Quarantined(_)) | None => {
                self.mark(&request, Quality::Bad, Cause::Exception(code), wall_ms);
            }
        }
    }

    fn decode(&mut self, request: &Request, data: &[u8], wall_ms: u64) {
        for i in &request.spans {
            let (Some(point), Some(span)) = (self.points.get(*i as usize), self.coverage.span(*i)) else { continue };
            let at = usize::from(span.start.saturating_sub(request.start));
            let value = if request.table.is_bits() {
                data.get(at / 8).map(|byte| Value::Bool(byte >> (at % 8) & 1 == 1))
            } else {
                data.get(at * 2..).and_then(|wire| point.format.decode(wire))
            };
            self.readings.push(match value {
                Some(value) => Reading::good(point.id, value, wall_ms),
                None => Reading::bad(point.id, Cause::WrongType, wall_ms),
            });
        }
    }

    fn mark(&mut self, request: &Request, quality: Quality, cause: Cause, wall_ms: u64) {
        let points = &self.points;
        let ids = request.spans.iter().filter_map(|i| points.get(*i as usize).map(|p| p.id));
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
        self.points.iter().map(|p| Reading::bad(p.id, cause, wall_ms)).collect()
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
