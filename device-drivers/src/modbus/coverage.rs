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

use super::plan::{Limits, Request, Span, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// First and longest wait before a quarantined value is asked for again.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

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
    /// Ask for these two instead; if one of them is refused, say so with its boundary.
    Halves(Request, Request, u32),
    /// This value alone is refused: it is quarantined.
    Quarantined(u32),
}

/// The values of one device and interval, and what is known of them. Values are numbered as in the slice given.
#[derive(Debug)]
pub struct Coverage {
    spans: Vec<Span>,
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
        Coverage { spans, limits, cuts: BTreeSet::new(), uncut: None, quarantine: BTreeMap::new() }
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

    /// The device has refused a request at time `now`; `born_of` is the boundary that made it, if it was a half.
    pub fn refused(&mut self, request: &Request, born_of: Option<u32>, code: u8, now: Duration) -> Option<Refusal> {
        if let Some(boundary) = born_of {
            self.cuts.remove(&boundary); // this smaller refusal explains the greater one
        }
        if let [only] = request.spans[..] {
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
                    good.extend(request.spans);
                } else if let Some(Refusal::Halves(left, right, at)) = coverage.refused(&request, born_of, 2, now) {
                    todo.push((right, Some(at)));
                    todo.push((left, Some(at)));
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

    proptest! {
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
