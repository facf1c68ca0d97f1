//! The watchdog over delivery: a broker is connected, something waits for it, and nothing goes. Whatever the cause, a person hears of it.
//!
//! ```text
//!   connected, something waits ──nothing drained for LIMIT──> stalled          drained: delivered, or lost and told
//!   not connected, nothing waits, held back on purpose, or something drained ──> begins anew
//! ```

use super::mqtt::MqttStats;
use super::spool::SpoolStats;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// So long nothing may be drained: more than any broker needs for an acknowledgement, less than a person needs to be called.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The watchdog.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Messages drained when it last rose, and since when it has not.
    still: Option<(u64, Instant)>,
}

impl Watchdog {
    /// How long something has waited for a connected broker without anything being drained; also kept in `mqtt`, for figure and alarm.
    pub fn look(&mut self, spool: &SpoolStats, mqtt: &MqttStats, now: Instant) -> Duration {
        let waits = mqtt.connected.load(Relaxed) && !mqtt.held_back.load(Relaxed) && spool.waiting.load(Relaxed) > 0;
        let drained = spool.drained.load(Relaxed);
        self.still = match self.still {
            Some(still) if waits && still.0 == drained => Some(still),
            _ => waits.then_some((drained, now)),
        };
        let stalled = self.still.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since));
        mqtt.stalled_ms.store(u64::try_from(stalled.as_millis()).unwrap_or(u64::MAX), Relaxed);
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_anew_with_everything_that_goes_and_with_every_connection() {
        let (spool, mqtt, mut dog, t0) =
            (SpoolStats::default(), MqttStats::default(), Watchdog::default(), Instant::now());
        let s = Duration::from_secs;
        let mut look = |at: u64| dog.look(&spool, &mqtt, t0 + s(at));
        spool.waiting.store(5, Relaxed);
        assert_eq!((look(0), look(20)), (s(0), s(0)), "nobody is connected");
        mqtt.connected.store(true, Relaxed);
        assert_eq!((look(21), look(30)), (s(0), s(9)));
        spool.drained.store(1, Relaxed);
        assert_eq!((look(31), look(45)), (s(0), s(14)));
        assert_eq!(mqtt.stalled_ms.load(Relaxed), 14_000);
        mqtt.held_back.store(true, Relaxed);
        assert_eq!(look(46), s(0), "a primary host is not there: nothing is to go");
        mqtt.held_back.store(false, Relaxed);
        assert_eq!((look(47), look(49)), (s(0), s(2)));
        spool.waiting.store(0, Relaxed);
        assert_eq!(look(50), s(0));
    }
}
