//! A histogram of fixed counters: written with relaxed stores from the control thread, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets per doubling. Eight give 9 % resolution.
const PER_OCTAVE: u32 = 8;
/// Doublings from 1 microsecond up: to 16 seconds.
const OCTAVES: u32 = 24;
const BUCKETS: usize = (PER_OCTAVE * OCTAVES) as usize;

/// At which edges a histogram is shown. A series each, so those of which there is one for each line or device have few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// One a doubling, from 2 us to 16.8 s.
    Fine,
    /// One every second doubling, from 256 us to 16.8 s: for what there is one of for each line.
    Coarse,
    /// 1, 4, 16, 262 ms and 16.8 s: for what there is one of for each device.
    Rough,
}

/// The first edge of [`Edges::Coarse`] is that many doublings over 1 us.
const COARSE_FROM: u32 = 8;
/// And so many are all of [`Edges::Rough`].
const ROUGH: [u32; 5] = [10, 12, 14, 18, OCTAVES];

impl Edges {
    /// Whether the edge so many doublings over 1 us is shown. The last one always is.
    fn has(self, doublings: u32) -> bool {
        match self {
            Edges::Fine => true,
            Edges::Coarse => doublings >= COARSE_FROM && doublings.is_multiple_of(2),
            Edges::Rough => ROUGH.contains(&doublings),
        }
    }
}

// The last edge is that of all three.
const _: () = assert!(OCTAVES & 1 == 0 && OCTAVES > COARSE_FROM);

/// Durations from 1 us to 16 s, logarithmic.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

/// Upper edge of a bucket, nanoseconds.
fn edge_ns(bucket: usize) -> f64 {
    1000.0 * ((bucket as f64 + 1.0) / f64::from(PER_OCTAVE)).exp2()
}

impl Histogram {
    /// Counts a duration. Does not allocate or block.
    pub fn record_ns(&self, ns: u64) {
        let octaves = (ns.max(1000) as f64 / 1000.0).log2();
        let bucket = ((octaves * f64::from(PER_OCTAVE)) as usize).min(BUCKETS - 1);
        if let Some(slot) = self.buckets.get(bucket) {
            slot.fetch_add(1, Relaxed);
        }
        self.sum_ns.fetch_add(ns, Relaxed);
        self.max_ns.fetch_max(ns, Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }

    /// Their sum, seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns.load(Relaxed) as f64 * 1e-9
    }

    /// The longest, nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.max_ns.load(Relaxed)
    }

    /// The duration that a share `q` of all stays below, nanoseconds; 0 when nothing was counted.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        let total = self.count();
        let rank = (q * total as f64).ceil() as u64;
        let mut seen = 0;
        for (n, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= rank && total > 0 {
                return (edge_ns(n) as u64).min(self.max_ns());
            }
        }
        0
    }

    /// Cumulative counts at these edges: `(seconds, count)`. They are edges of buckets, and the last count is that of all.
    pub fn cumulative(&self, edges: Edges) -> Vec<(f64, u64)> {
        let mut seen = 0;
        let mut out = Vec::with_capacity(OCTAVES as usize);
        for (octave, buckets) in (1..).zip(self.buckets.chunks(PER_OCTAVE as usize)) {
            seen += buckets.iter().map(|b| b.load(Relaxed)).sum::<u64>();
            if edges.has(octave) {
                // A power of two in millionths: printed as people write it.
                out.push(((1u64 << octave) as f64 / 1e6, seen));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let h = Histogram::default();
        assert_eq!(h.quantile_ns(0.5), 0);
        for us in 1..=1000 {
            h.record_ns(us * 1000);
        }
        for (q, want) in [(0.5, 500_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let got = h.quantile_ns(q) as f64;
            assert!((got / want - 1.0).abs() < 0.10, "{q}: {got} for {want}");
        }
        assert_eq!((h.count(), h.max_ns()), (1000, 1_000_000));
    }

    #[test]
    fn counts_never_fall_from_edge_to_edge_and_end_at_the_total() {
        let h = Histogram::default();
        for ns in [0, 999, 1_000, 5_000_000, u64::MAX] {
            h.record_ns(ns);
        }
        for (edges, count) in [(Edges::Fine, 24), (Edges::Coarse, 9), (Edges::Rough, 5)] {
            let all = h.cumulative(edges);
            assert!(all.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
            assert_eq!((all.len(), all.last().map(|o| o.1)), (count, Some(5)));
        }
    }

    #[test]
    fn edges_are_those_of_buckets_and_printed_as_people_write_them() {
        let h = Histogram::default();
        let fine = h.cumulative(Edges::Fine);
        for (n, (edge, _)) in fine.iter().enumerate() {
            let bucket = edge_ns((n + 1) * PER_OCTAVE as usize - 1) * 1e-9;
            assert!((edge / bucket - 1.0).abs() < 1e-12, "{edge} {bucket}");
        }
        let printed: Vec<String> = fine.iter().map(|(edge, _)| edge.to_string()).collect();
        assert_eq!(printed[..4], ["0.000002", "0.000004", "0.000008", "0.000016"]);
        assert!(printed.iter().all(|p| p.len() <= 9), "{printed:?}");
        let coarse: Vec<String> = h.cumulative(Edges::Coarse).iter().map(|(edge, _)| edge.to_string()).collect();
        assert_eq!(coarse[..3], ["0.000256", "0.001024", "0.004096"]);
        // What is shorter than the first edge is in its bucket.
        h.record_ns(30_000);
        assert_eq!(h.cumulative(Edges::Coarse)[0].1, 1);
    }
}
