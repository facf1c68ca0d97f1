//! The one monotonic clock: what the core is told as `now`, and what readings are stamped with.

use control_core::units::Millis;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Milliseconds since the agent started. Copy; reading it is one system call without a switch (vDSO).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Timespec,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

impl Clock {
    /// Starts now.
    pub fn new() -> Clock {
        Clock { start: clock_gettime(ClockId::Monotonic) }
    }

    /// Since the start.
    pub fn now(&self) -> Millis {
        Millis(nanos_between(self.start, clock_gettime(ClockId::Monotonic)) / 1_000_000)
    }
}

/// Nanoseconds from `a` to `b`, 0 when `b` is not later.
pub fn nanos_between(a: Timespec, b: Timespec) -> u64 {
    let seconds = b.tv_sec - a.tv_sec;
    let nanos = b.tv_nsec - a.tv_nsec;
    u64::try_from(seconds * 1_000_000_000 + nanos).unwrap_or(0)
}
