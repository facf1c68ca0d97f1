//! The request planner: people describe values, the planner makes requests. Pure.
//!
//! ```text
//!   wanted     [0..1] [2..3]      [10..11]      [40..41]   never 20..29
//!   requests   [0 ............. 11]             [40..41]   joined over gaps up to `gap`, never over a cut or a forbidden
//!                                                          register, never longer than the device takes
//! ```
//!
//! Sorted by table and address, spans are joined greedily while all of this allows it. For intervals on a line, going from
//! left to right and extending as far as allowed gives the fewest requests: whatever fits the window of an earlier
//! start fits the window of a later one.

use super::address::Table;
use std::ops::RangeInclusive;

/// A run of registers or bits that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Table.
    pub table: Table,
    /// First number.
    pub start: u16,
    /// How many, at least 1.
    pub len: u16,
}

impl Span {
    /// One past the last number.
    pub fn end(&self) -> u32 {
        u32::from(self.start) + u32::from(self.len)
    }
}

/// What a device takes in one request, and what it does not take at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Registers a request, at most 125 (V1.1b3, 6.3).
    pub registers: u16,
    /// Bits a request, at most 2000 (V1.1b3, 6.1).
    pub bits: u16,
    /// Registers or bits read and thrown away rather than asking twice.
    pub gap: u16,
    /// Each value is asked for on its own: some devices refuse anything else.
    pub single: bool,
    /// Never touched, not even in passing: reading some registers has effects, and some gaps refuse the whole request.
    pub never: Vec<(Table, RangeInclusive<u16>)>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { registers: 125, bits: 2000, gap: 8, single: false, never: Vec::new() }
    }
}

impl Limits {
    /// The longest request in this table.
    pub fn most(&self, table: Table) -> u16 {
        if table.is_bits() { self.bits } else { self.registers }
    }

    /// A forbidden range that this run of registers touches.
    pub fn forbids(&self, table: Table, start: u32, end: u32) -> Option<&RangeInclusive<u16>> {
        self.never
            .iter()
            .find(|(t, range)| *t == table && u32::from(*range.start()) < end && u32::from(*range.end()) >= start)
            .map(|(_, range)| range)
    }
}

/// One read request, and which spans it serves: indices into the slice given to [`plan`], ascending by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Table.
    pub table: Table,
    /// First number.
    pub start: u16,
    /// How many.
    pub count: u16,
    /// The spans it covers.
    pub spans: Vec<u32>,
}

impl Request {
    /// Registers or bits in it that nobody wants. Costs a sort of nothing: the spans are in order.
    pub fn wasted(&self, spans: &[Span]) -> u16 {
        let mut reached = u32::from(self.start);
        let mut wasted = 0;
        for span in self.spans.iter().filter_map(|i| spans.get(*i as usize)) {
            wasted += u32::from(span.start).saturating_sub(reached);
            reached = reached.max(span.end());
        }
        wasted as u16 // at most the length of the request
    }
}

/// Plans the requests that cover every span exactly once, in order of address. A span longer than a request may be is the
/// caller's error and gets a request of its own, which the device will refuse. `cut(i)` forbids joining span `i` to those before it.
pub fn plan(spans: &[Span], wanted: impl Fn(u32) -> bool, cut: impl Fn(u32) -> bool, limits: &Limits) -> Vec<Request> {
    let mut order: Vec<u32> = (0..spans.len() as u32).filter(|i| wanted(*i)).collect();
    order.sort_by_key(|i| spans[*i as usize]);
    let mut requests: Vec<Request> = Vec::new();
    for i in order {
        let span = spans[i as usize];
        if let Some(last) = requests.last_mut().filter(|r| r.table == span.table && !limits.single && !cut(i)) {
            let (start, end) = (u32::from(last.start), u32::from(last.start) + u32::from(last.count));
            let joined = end.max(span.end()) - start;
            let gap = u32::from(span.start).saturating_sub(end);
            let free = gap == 0 || limits.forbids(span.table, end, u32::from(span.start)).is_none();
            if gap <= u32::from(limits.gap) && joined <= u32::from(limits.most(span.table)) && free {
                last.count = joined as u16; // joined <= most <= u16::MAX
                last.spans.push(i);
                continue;
            }
        }
        requests.push(Request { table: span.table, start: span.start, count: span.len, spans: vec![i] });
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holding(start: u16, len: u16) -> Span {
        Span { table: Table::Holding, start, len }
    }

    fn simple(spans: &[Span], limits: &Limits) -> Vec<Request> {
        plan(spans, |_| true, |_| false, limits)
    }

    fn shape(requests: &[Request]) -> Vec<(u16, u16, Vec<u32>)> {
        requests.iter().map(|r| (r.start, r.count, r.spans.clone())).collect()
    }

    #[test]
    fn neighbours_share_a_request_and_strangers_do_not() {
        let spans = [holding(10, 2), holding(0, 2), holding(2, 1), holding(100, 1)];
        let got = simple(&spans, &Limits::default());
        assert_eq!(shape(&got), [(0, 12, vec![1, 2, 0]), (100, 1, vec![3])]);
        assert_eq!(got[0].wasted(&spans), 7);
    }

    #[test]
    fn a_request_never_asks_for_more_than_125_registers() {
        let spans: Vec<_> = (0..100).map(|n| holding(2 * n, 2)).collect();
        let got = simple(&spans, &Limits::default());
        assert_eq!(got.iter().map(|r| r.count).collect::<Vec<_>>(), [124, 76]);
    }

    #[test]
    fn forbidden_registers_are_not_touched_in_passing() {
        let limits = Limits { never: vec![(Table::Holding, 4..=5)], ..Limits::default() };
        let got = simple(&[holding(0, 4), holding(6, 2), holding(8, 1)], &limits);
        assert_eq!(shape(&got), [(0, 4, vec![0]), (6, 3, vec![1, 2])]);
    }

    #[test]
    fn a_device_that_wants_it_is_asked_for_one_value_at_a_time() {
        let limits = Limits { single: true, ..Limits::default() };
        let got = simple(&[holding(0, 2), holding(2, 2)], &limits);
        assert_eq!(got.len(), 2);
    }

    fn spans(most: usize) -> impl Strategy<Value = Vec<Span>> {
        let table = prop_oneof![Just(Table::Holding), Just(Table::Input), Just(Table::Coil)];
        let start = prop_oneof![0u16..300, 65_500u16..=65_511];
        let span = (table, start, 1u16..=24).prop_map(|(table, start, len)| Span { table, start, len });
        proptest::collection::vec(span, 0..most)
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let never = proptest::collection::vec((0u16..300, 0u16..6), 0..3);
        (24u16..=125, 24u16..=2000, 0u16..50, any::<bool>(), never).prop_map(|(registers, bits, gap, single, never)| {
            Limits {
                registers,
                bits,
                gap,
                single: single && gap == 0, // now and then
                never: never.into_iter().map(|(at, len)| (Table::Holding, at..=at + len)).collect(),
            }
        })
    }

    /// The fewest requests by trying every way to cut the sorted spans into runs.
    fn fewest(spans: &[Span], limits: &Limits) -> usize {
        let mut sorted = spans.to_vec();
        sorted.sort();
        let mut best = vec![0; sorted.len() + 1];
        for to in 1..=sorted.len() {
            let run_ok = |from: usize| {
                let run = &sorted[from..to];
                let start = u32::from(run[0].start);
                let mut end = run[0].end();
                run.iter().skip(1).all(|s| {
                    let gap = u32::from(s.start).saturating_sub(end);
                    let free = gap == 0 || limits.forbids(s.table, end, u32::from(s.start)).is_none();
                    end = end.max(s.end());
                    s.table == run[0].table
                        && !limits.single
                        && gap <= u32::from(limits.gap)
                        && free
                        && end - start <= u32::from(limits.most(s.table))
                })
            };
            best[to] =
                (0..to).filter(|from| run_ok(*from)).map(|from| best[from] + 1).min().expect("one alone is a run");
        }
        best[sorted.len()]
    }

    proptest! {
        #[test]
        fn every_span_is_covered_once_and_no_limit_is_broken(spans in spans(120), limits in limits()) {
            let requests = simple(&spans, &limits);
            let mut covered = vec![0; spans.len()];
            for r in &requests {
                prop_assert!(r.count >= 1 && r.count <= limits.most(r.table));
                prop_assert!(!limits.single || r.spans.len() == 1);
                prop_assert!(u32::from(r.start) + u32::from(r.count) <= 65_536);
                for i in &r.spans {
                    covered[*i as usize] += 1;
                    let s = spans[*i as usize];
                    prop_assert_eq!(s.table, r.table);
                    prop_assert!(s.start >= r.start && s.end() <= u32::from(r.start) + u32::from(r.count));
                }
                // What is forbidden is read only where somebody wants it in so many words.
                for n in u32::from(r.start)..u32::from(r.start) + u32::from(r.count) {
                    let wanted = r.spans.iter().any(|i| {
                        let s = spans[*i as usize];
                        u32::from(s.start) <= n && n < s.end()
                    });
                    prop_assert!(wanted || limits.forbids(r.table, n, n + 1).is_none());
                }
            }
            prop_assert!(covered.iter().all(|n| *n == 1));
        }

        #[test]
        fn no_plan_has_fewer_requests(spans in spans(24), limits in limits()) {
            prop_assert_eq!(simple(&spans, &limits).len(), fewest(&spans, &limits));
        }

        #[test]
        fn a_cut_is_never_read_across(spans in spans(40), cuts in proptest::collection::btree_set(0u32..40, 0..6)) {
            for r in plan(&spans, |_| true, |i| cuts.contains(&i), &Limits::default()) {
                prop_assert!(r.spans.iter().skip(1).all(|i| !cuts.contains(i)));
            }
        }
    }
}
