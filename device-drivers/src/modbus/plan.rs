//! The request planner: people describe values, the planner makes requests. Pure.
//!
//! Sorted by table and address, spans are merged greedily while the gap and the length allow it. For intervals on a
//! line, going from left to right and extending as far as allowed gives the fewest requests.

use super::address::Table;

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
    fn end(&self) -> u32 {
        u32::from(self.start) + u32::from(self.len)
    }
}

/// What a device takes in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Registers a request, at most 125 (V1.1b3, 6.3).
    pub registers: u16,
    /// Bits a request, at most 2000 (V1.1b3, 6.1).
    pub bits: u16,
    /// Registers or bits read and thrown away rather than asking twice.
    pub gap: u16,
}

impl Default for PlanLimits {
    fn default() -> Self {
        PlanLimits { registers: 125, bits: 2000, gap: 8 }
    }
}

/// One read request, and which spans it serves: indices into the slice given to [`plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Table.
    pub table: Table,
    /// First number.
    pub start: u16,
    /// How many.
    pub count: u16,
    /// The spans it covers.
    pub spans: Vec<usize>,
}

/// Plans the requests that cover every span exactly once. A span longer than a request may be is a caller's error
/// and gets a request of its own, which the device will refuse.
pub fn plan(spans: &[Span], limits: PlanLimits) -> Vec<Request> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|i| spans[*i]);
    let mut requests: Vec<Request> = Vec::new();
    for i in order {
        let span = spans[i];
        let limit = u32::from(if span.table.is_bits() { limits.bits } else { limits.registers });
        if let Some(r) = requests.last_mut()
            && r.table == span.table
        {
            let end = u32::from(r.start) + u32::from(r.count);
            let joined = end.max(span.end()) - u32::from(r.start);
            if u32::from(span.start) <= end + u32::from(limits.gap) && joined <= limit {
                r.count = joined as u16; // joined <= limit <= u16::MAX
                r.spans.push(i);
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

    #[test]
    fn neighbours_share_a_request_and_strangers_do_not() {
        let limits = PlanLimits { gap: 2, ..PlanLimits::default() };
        let got = plan(&[holding(10, 2), holding(0, 1), holding(14, 1), holding(100, 1)], limits);
        let shape: Vec<_> = got.iter().map(|r| (r.start, r.count, r.spans.clone())).collect();
        assert_eq!(shape, [(0, 1, vec![1]), (10, 5, vec![0, 2]), (100, 1, vec![3])]);
    }

    #[test]
    fn a_request_never_asks_for_more_than_125_registers() {
        let spans: Vec<_> = (0..100).map(|n| holding(2 * n, 2)).collect();
        let got = plan(&spans, PlanLimits::default());
        assert_eq!(got.iter().map(|r| r.count).collect::<Vec<_>>(), [124, 76]);
    }

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let table = prop_oneof![Just(Table::Holding), Just(Table::Input), Just(Table::Coil)];
        let span = (table, 0u16..3000, 1u16..=24).prop_map(|(table, start, len)| Span { table, start, len });
        proptest::collection::vec(span, 0..120)
    }

    proptest! {
        #[test]
        fn every_span_is_covered_once_and_no_limit_is_broken(
            spans in spans(), registers in 24u16..=125, bits in 24u16..=2000, gap in 0u16..50
        ) {
            let limits = PlanLimits { registers, bits, gap };
            let requests = plan(&spans, limits);
            let mut covered = vec![0; spans.len()];
            for r in &requests {
                let limit = if r.table.is_bits() { bits } else { registers };
                prop_assert!(r.count >= 1 && r.count <= limit);
                for i in &r.spans {
                    covered[*i] += 1;
                    let s = spans[*i];
                    prop_assert_eq!(s.table, r.table);
                    prop_assert!(s.start >= r.start && s.end() <= u32::from(r.start) + u32::from(r.count));
                }
            }
            prop_assert!(covered.iter().all(|n| *n == 1));
        }

        #[test]
        fn no_two_neighbouring_requests_could_have_been_one(spans in spans()) {
            let limits = PlanLimits::default();
            for pair in plan(&spans, limits).windows(2) {
                let (a, b) = (&pair[0], &pair[1]);
                let end = u32::from(a.start) + u32::from(a.count);
                let limit = u32::from(if a.table.is_bits() { limits.bits } else { limits.registers });
                let first = spans[b.spans[0]];
                let joinable = a.table == b.table
                    && u32::from(first.start) <= end + u32::from(limits.gap)
                    && end.max(first.end()) - u32::from(a.start) <= limit;
                prop_assert!(!joinable, "{:?} and {:?}", a, b);
            }
        }
    }
}
