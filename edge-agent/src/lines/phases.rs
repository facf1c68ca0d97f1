//! When lines begin to poll: apart from each other, and the same way at every start.

use crate::config::DriverPlan;
use std::time::Duration;

/// Lines begin within their shortest interval, but not later than this: a person waits for the first values.
const PHASES_MAX: Duration = Duration::from_secs(1);

/// The time within which a line begins. OPC UA has intervals of its own, which begin when its server likes.
pub(super) fn phases(driver: &DriverPlan) -> Duration {
    match driver {
        DriverPlan::Modbus(spec) => {
            let intervals = spec.devices.iter().flat_map(|d| &d.points).map(|p| p.interval);
            intervals.min().map_or(Duration::ZERO, |shortest| shortest.min(PHASES_MAX))
        }
        DriverPlan::OpcUa(_) => Duration::ZERO,
    }
}

/// When the nth line begins, of that time: lines of one interval would else poll in the same instant for as long as they live. Multiples of
/// the golden ratio lie apart whatever their number, and are the same at every start.
pub(super) fn phase(nth: usize, within: Duration) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    within.mul_f64((nth as f64 * GOLDEN).fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_apart_from_each_other_and_the_same_way_at_every_start() {
        let second = Duration::from_secs(1);
        assert_eq!(phase(0, second), Duration::ZERO, "one line does not wait");
        for count in [2, 10, 100] {
            let mut phases: Vec<Duration> = (0..count).map(|n| phase(n, second)).collect();
            phases.sort_unstable();
            let apart = phases.windows(2).map(|w| w[1] - w[0]).min().unwrap();
            assert!(apart > second / count as u32 / 3, "{count} lines: {apart:?}");
            assert!(phases.last().unwrap() < &second);
        }
    }
}
