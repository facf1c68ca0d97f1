//! What a device has taught us about its registers, and the requests that follow from it. Pure.
//!
//! One bad address makes a device refuse the whole request (exception 2 or 3), and a rival then loses every value in it.
//! Here the refused request is halved until the culprit is alone:
//!
//! ```text
//!   [a b c d e f]  refused          -> halves
//!   [a b c] fine   [d e f] refused  -> halves
//!                  [d] refused  [e f] fine      d is quarantined; next poll: [a b c] [e f], and d probed now and then
//! ```
//!
//! When both halves are fine and the whole is not, the culprit is what lies between them, or the length: then the boundary
//! is a cut, and is not read across again. A refusal that a smaller refusal explains leaves no cut. So every refused
//! request ends in at least one quarantine or one cut, and the number of requests settles.
//!
//! A device may also say no for a moment, at random, to what it answers otherwise. So what was answered before is asked as a whole
//! [`TRUST`] times more before it is halved, and a value that was good is quarantined only when it is refused alone in two polls.

use super::plan::{Limits, Request, Span, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// First and longest wait before a quarantined value is asked for again.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// How often a request is asked again in the same poll, all of whose values were answered before.
const TRUST: u8 = 2;

/// What a device has said of a value that is not quarantined.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// How often it may be refused together with others, or the like, before that is believed.
    trust: u8,
    /// It was answered, and since then not refused alone.
    was_good: bool,
}

/// A value that the device refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The exception it was refused with.
    pub code: u8,
    /// When it is asked for again.
    probe_at: Duration,
    wait: Duration,
}

/// What is to be done about a refused request.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Ask for the same once more: it was answered before.
    Again,
    /// This value alone is refused, and was good before: it is asked for in the next poll as ever.
    Doubted(u32),
    /// Ask for these two instead; if one of them is refused, say so with its boundary.
    Halves(Request, Request, u32),
    /// This value alone is refused: it is quarantined.
    Quarantined(u32),
}

/// The values of one device and interval, and what is known of them. Values are numbered as in the slice given.
#[derive(Debug)]
pub struct Coverage {
    spans: Vec<Span>,
    records: Vec<Record>,
    limits: Limits,
    cuts: BTreeSet<u32>,
    /// When the cuts are tried without, and the wait after that.
    uncut: Option<(Duration, Duration)>,
    quarantine: BTreeMap<u32, Quarantine>,
}

impl Coverage {
    /// Spans sorted by table and address: a device that is trusted until it refuses.
    pub fn new(spans: Vec<Span>, limits: Limits) -> Coverage {
        debug_assert!(spans.is_sorted());
        let records = vec![Record::default(); spans.len()];
        Coverage { spans, records, limits, cuts: BTreeSet::new(), uncut: None, quarantine: BTreeMap::new() }
    }

    /// The requests that read everything that is not quarantined.
    pub fn requests(&self) -> Vec<Request> {
        plan(&self.spans, |i| !self.quarantine.contains_key(&i), |i| self.cuts.contains(&i), &self.limits)
    }

    /// What is quarantined.
    pub fn quarantined(&self) -> impl Iterator<Item = (u32, Quarantine)> + '_ {
        self.quarantine.iter().map(|(i, q)| (*i, *q))
    }

    /// One span.
    pub fn span(&self, i: u32) -> Option<Span> {
        self.spans.get(i as usize).copied()
    }

    /// Whether anything is quarantined.
    pub fn is_clean(&self) -> bool {
        self.quarantine.is_empty()
    }

    /// Registers or bits that nobody wants, in this request.
    pub fn wasted(&self, request: &Request) -> u16 {
        request.wasted(&self.spans)
    }

    fn request(&self, values: &[u32]) -> Option<Request> {
        let span = |i: &u32| self.spans.get(*i as usize);
        let first = span(values.first()?)?;
        let end = values.iter().filter_map(span).map(Span::end).max()?;
        let count = u16::try_from(end - u32::from(first.start)).ok()?;
        Some(Request { table: first.table, start: first.start, count, spans: values.to_vec() })
    }

    /// The device has answered a request.
    pub fn answered(&mut self, request: &Request) {
        for i in &request.spans {
            if let Some(record) = self.records.get_mut(*i as usize) {
                *record = Record { trust: TRUST, was_good: true };
            }
        }
    }

    /// Whether a request is to be asked again, for all of its values were answered before; that wears off.
    fn is_trusted(&mut self, request: &Request) -> bool {
        let record = |i: &u32| self.records.get(*i as usize);
        let trusted = request.spans.iter().all(|i| record(i).is_some_and(|r| r.trust > 0));
        for i in &request.spans {
            if let Some(record) = self.records.get_mut(*i as usize) {
                record.trust = record.trust.saturating_sub(1);
            }
        }
        trusted
    }

    /// The device has refused a request at time `now`; `born_of` is the boundary that made it, if it was a half.
    pub fn refused(&mut self, request: &Request, born_of: Option<u32>, code: u8, now: Duration) -> Option<Refusal> {
        if self.is_trusted(request) {
            return Some(Refusal::Again);
        }
        if let Some(boundary) = born_of {
            self.cuts.remove(&boundary); // this smaller refusal explains the greater one
        }
        if let [only] = request.spans[..] {
            let record = self.records.get_mut(only as usize);
            if record.is_some_and(|r| std::mem::take(&mut r.was_good)) {
                return Some(Refusal::Doubted(only));
            }
            let wait = self.quarantine.get(&only).map_or(PROBE.0, |q| (q.wait * 2).min(PROBE.1));
            self.quarantine.insert(only, Quarantine { code, probe_at: now + wait, wait });
            return Some(Refusal::Quarantined(only));
        }
        let (left, right) = request.spans.split_at(request.spans.len() / 2);
        let boundary = *right.first()?;
        self.cuts.insert(boundary);
        self.uncut.get_or_insert((now + PROBE.0, PROBE.0 * 2));
        Some(Refusal::Halves(self.request(left)?, self.request(right)?, boundary))
    }

    /// A quarantined value to ask for now, if one's time has come.
    pub fn probe(&self, now: Duration) -> Option<Request> {
        let (due, _) = self.quarantine.iter().find(|(_, q)| q.probe_at <= now)?;
        self.request(&[*due])
    }

    /// Forgets the cuts when it is time: whether they are still needed is found out again. True when there were any.
    pub fn try_uncut(&mut self, now: Duration) -> bool {
        match self.uncut {
            Some((at, wait)) if at <= now => {
                self.uncut = Some((now + wait, (wait * 2).min(PROBE.1)));
                let had = !self.cuts.is_empty();
                self.cuts.clear();
                had
            }
            _ => false,
        }
    }

    /// A probe was answered: the device has been mended or loaded anew, so all its values get another chance. Those that are
    /// still refused are found again.
    pub fn forgive(&mut self) {
        self.quarantine.clear();
    }

    /// The link was made anew: quarantined values are asked for soon.
    pub fn probe_soon(&mut self, now: Duration) {
        self.cuts.clear();
        self.uncut = None;
        for q in self.quarantine.values_mut() {
            (q.probe_at, q.wait) = (now, PROBE.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Table;
    use super::*;
    use proptest::prelude::*;

    /// A device that has these registers only, and takes so many at once.
    struct Device {
        legal: Vec<bool>,
        most: u16,
    }

    impl Device {
        fn answers(&self, request: &Request) -> bool {
            let range = usize::from(request.start)..usize::from(request.start) + usize::from(request.count);
            request.count <= self.most && self.legal.get(range).is_some_and(|r| r.iter().all(|ok| *ok))
        }

        /// One poll: values that came, and requests it took.
        fn poll(&self, coverage: &mut Coverage, now: Duration) -> (BTreeSet<u32>, usize) {
            let mut todo: Vec<(Request, Option<u32>)> = coverage.requests().into_iter().map(|r| (r, None)).collect();
            let (mut good, mut asked) = (BTreeSet::new(), 0);
            while let Some((request, born_of)) = todo.pop() {
                asked += 1;
                assert!(asked < 10_000, "it does not end");
                if self.answers(&request) {
                    coverage.answered(&request);
                    good.extend(request.spans);
                    continue;
                }
                match coverage.refused(&request, born_of, 2, now) {
                    Some(Refusal::Halves(left, right, at)) => {
                        todo.push((right, Some(at)));
                        todo.push((left, Some(at)));
                    }
                    Some(Refusal::Again) => todo.push((request, born_of)),
                    Some(Refusal::Doubted(_) | Refusal::Quarantined(_)) | None => {}
                }
            }
            (good, asked)
        }
    }

    fn registers(starts: &[u16]) -> Vec<Span> {
        starts.iter().map(|s| Span { table: Table::Holding, start: *s, len: 1 }).collect()
    }

    #[test]
    fn one_bad_register_costs_its_neighbours_nothing() {
        let mut device = Device { legal: vec![true; 100], most: 125 };
        device.legal[41] = false;
        let starts: Vec<u16> = (0..100).collect();
        let mut coverage = Coverage::new(registers(&starts), Limits { gap: 0, ..Limits::default() });
        let (good, asked) = device.poll(&mut coverage, Duration::ZERO);
        assert_eq!((good.len(), asked), (99, 15), "found in the first poll, by halves");
        assert_eq!(coverage.quarantined().map(|(i, q)| (i, q.code)).collect::<Vec<_>>(), [(41, 2)]);
        let (good, asked) = device.poll(&mut coverage, Duration::ZERO);
        assert_eq!((good.len(), asked), (99, 2), "left and right of it, nothing more");
    }

    #[test]
    fn a_gap_that_refuses_is_not_read_across_again() {
        let mut device = Device { legal: vec![true; 20], most: 125 };
        device.legal[5] = false;
        let mut coverage = Coverage::new(registers(&[0, 1, 4, 6, 7]), Limits::default());
        let (good, _) = device.poll(&mut coverage, Duration::ZERO);
        assert_eq!(good.len(), 5, "no value was lost, not even once");
        assert!(coverage.is_clean());
        let (good, asked) = device.poll(&mut coverage, Duration::ZERO);
        assert_eq!((good.len(), asked), (5, 2));
    }

    #[test]
    fn a_quarantined_value_is_asked_for_ever_less_often_and_comes_back() {
        let mut device = Device { legal: vec![false], most: 125 };
        let mut coverage = Coverage::new(registers(&[0]), Limits::default());
        device.poll(&mut coverage, Duration::ZERO);
        let mut waits = Vec::new();
        let mut now = Duration::ZERO;
        for _ in 0..8 {
            let start = now;
            while coverage.probe(now).is_none() {
                now += Duration::from_secs(1);
            }
            waits.push((now - start).as_secs());
            let probe = coverage.probe(now).unwrap();
            coverage.refused(&probe, None, 2, now);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        device.legal[0] = true;
        coverage.forgive();
        assert_eq!(device.poll(&mut coverage, now).0.len(), 1);
    }

    #[test]
    fn a_value_that_was_good_is_quarantined_when_it_is_refused_alone_in_two_polls() {
        let mut device = Device { legal: vec![true; 8], most: 125 };
        let starts: Vec<u16> = (0..8).collect();
        let mut coverage = Coverage::new(registers(&starts), Limits::default());
        assert_eq!(device.poll(&mut coverage, Duration::ZERO).0.len(), 8);
        device.legal[5] = false;
        let (good, _) = device.poll(&mut coverage, Duration::ZERO);
        assert_eq!((good.len(), coverage.is_clean()), (7, true), "its neighbours are read, and it is in doubt");
        assert_eq!(device.poll(&mut coverage, Duration::ZERO).0.len(), 7);
        assert_eq!(coverage.quarantined().map(|(i, _)| i).collect::<Vec<_>>(), [5]);
        device.legal[5] = true;
        coverage.forgive();
        device.poll(&mut coverage, Duration::ZERO);
        device.legal[5] = false;
        device.poll(&mut coverage, Duration::ZERO);
        device.legal[5] = true;
        assert_eq!(device.poll(&mut coverage, Duration::ZERO), ((0..8).collect(), 1), "once was no reason");
    }

    proptest! {
        /// A device that says no to one request in ten, whatever is asked: next to nothing is lost, and it is hardly asked more.
        #[test]
        fn a_passing_refusal_is_not_made_more_of(seed in any::<u64>()) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let starts: Vec<u16> = (0..24).map(|n| n * 20).collect();
            let mut coverage = Coverage::new(registers(&starts), Limits { gap: 70, ..Limits::default() });
            coverage.requests().iter().for_each(|r| coverage.answered(r));
            let (planned, mut read, mut asked) = (coverage.requests().len(), 0, 0);
            for poll in 0..200 {
                let now = Duration::from_secs(poll);
                coverage.try_uncut(now);
                let mut todo: Vec<(Request, Option<u32>)> = coverage.requests().into_iter().map(|r| (r, None)).collect();
                while let Some((request, born_of)) = todo.pop() {
                    asked += 1;
                    if rng.u8(0..10) > 0 {
                        coverage.answered(&request);
                        read += request.spans.len();
                        continue;
                    }
                    match coverage.refused(&request, born_of, 4, now) {
                        Some(Refusal::Halves(left, right, at)) => todo.extend([(right, Some(at)), (left, Some(at))]),
                        Some(Refusal::Again) => todo.push((request, born_of)),
                        _ => {}
                    }
                }
                prop_assert!(coverage.quarantined().count() <= 1);
            }
            prop_assert!(read > 24 * 200 * 98 / 100, "{} of {} were read", read, 24 * 200);
            prop_assert!(asked < planned * 200 * 2, "{} requests, {} are planned", asked, planned * 200);
        }

        /// Whatever registers a device lacks and however little it takes at once: it ends, and then every value that can be
        /// read is read in every poll, and only those that cannot are quarantined.
        #[test]
        fn in_the_end_every_value_that_can_be_read_is_read(
            legal in proptest::collection::vec(proptest::bool::weighted(0.9), 150),
            wanted in proptest::collection::btree_set((0u16..140, 1u16..=4), 1..60),
            most in 4u16..=125, gap in 0u16..10
        ) {
            let device = Device { legal, most };
            let spans: Vec<Span> =
                wanted.into_iter().map(|(start, len)| Span { table: Table::Holding, start, len }).collect();
            let can = |s: &Span| device.answers(&Request { table: s.table, start: s.start, count: s.len, spans: vec![] });
            let mut coverage = Coverage::new(spans.clone(), Limits { gap, ..Limits::default() });
            let mut last = 0;
            for _ in 0..2 * spans.len() + 2 {
                let (good, asked) = device.poll(&mut coverage, Duration::ZERO);
                prop_assert!(good.iter().all(|i| can(&spans[*i as usize])));
                last = asked;
                if asked == coverage.requests().len() {
                    break;
                }
            }
            prop_assert_eq!(last, coverage.requests().len(), "it has settled");
            let (good, _) = device.poll(&mut coverage, Duration::ZERO);
            for (i, span) in spans.iter().enumerate() {
                prop_assert_eq!(good.contains(&(i as u32)), can(span), "{:?}", span);
            }
        }
    }
}
