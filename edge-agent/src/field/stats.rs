//! What a line and its devices count. Written by the line's task, read by whoever wants to.

use crate::metrics::histogram::Histogram;
use control_core::image::Quality;
use device_drivers::{Health, LinkError, LinkState};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a line counts.
#[derive(Debug, Default)]
pub struct LineStats {
    state: AtomicU8,
    /// Links made.
    pub connects: AtomicU64,
    /// Links lost, and tries that failed.
    pub failures: AtomicU64,
    /// Polls made.
    pub polls: AtomicU64,
    /// Requests sent.
    pub requests: AtomicU64,
    /// Readings taken.
    pub readings: AtomicU64,
    /// Readings that were Bad.
    pub bad_readings: AtomicU64,
    /// Requests that were not answered in time.
    pub timeouts: AtomicU64,
    /// Replies dropped: late, duplicate, foreign.
    pub dropped: AtomicU64,
    /// Replies that were no answer to what was asked.
    pub bad_replies: AtomicU64,
    /// Copies of our own words that the adapter of a serial line gave back.
    pub echoes: AtomicU64,
    /// Requests sent into a serial line that was never silent.
    pub noise: AtomicU64,
    /// Tags that their devices refuse, and that are asked for only now and then.
    pub quarantined: AtomicU64,
    /// Tags, by device and name, whose deadband is a part of a range that nobody knows.
    pub without_deadband: Mutex<Vec<String>>,
    /// Command blocks written and acknowledged.
    pub blocks: AtomicU64,
    /// Command blocks that were refused or not acknowledged.
    pub blocks_failed: AtomicU64,
    /// Time of a poll.
    pub poll: Histogram,
    /// Points that are Good, Uncertain, Bad.
    pub quality: [AtomicU64; 3],
    /// How long a write waits for the line at most.
    pub write_wait_worst: Duration,
    /// Anyone on the network can read and write this line.
    pub is_insecure: bool,
    refusal: AtomicU8,
    /// Its devices, in the order of the configuration.
    pub devices: Vec<DeviceStats>,
}

/// What a device counts.
#[derive(Debug)]
pub struct DeviceStats {
    /// Its name.
    pub name: Arc<str>,
    health: AtomicU8,
    /// Polls not made because the ones before took too long.
    pub missed: AtomicU64,
    /// How long after its due time a poll was begun.
    pub jitter: Histogram,
    /// Its points that are Bad.
    pub bad: AtomicU64,
    /// When its values were last read, milliseconds of the agent's clock; 0 never.
    pub read_at_ms: AtomicU64,
}

/// Why there is no link although the peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its certificate is not trusted here.
    Untrusted,
    /// It refuses our certificate, our user, or the security we want.
    Denied,
}

impl DeviceStats {
    /// How it is doing.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Healthy,
            2 => Health::Demoted,
            _ => Health::Unknown,
        }
    }

    /// A point of it was so, and is so now.
    pub(super) fn count(&self, was: Quality, is: Quality) {
        if was == Quality::Bad && is != Quality::Bad {
            self.bad.fetch_sub(1, Relaxed);
        } else if was != Quality::Bad && is == Quality::Bad {
            self.bad.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let code = match health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Demoted => 2,
        };
        self.health.store(code, Relaxed);
    }
}

impl LineStats {
    /// Counters of a line with these devices.
    pub fn new<'a>(
        devices: impl Iterator<Item = &'a Arc<str>>,
        write_wait_worst: Duration,
        is_insecure: bool,
    ) -> LineStats {
        let device = |name: &Arc<str>| DeviceStats {
            name: name.clone(),
            health: AtomicU8::new(0),
            missed: AtomicU64::new(0),
            jitter: Histogram::default(),
            bad: AtomicU64::new(0),
            read_at_ms: AtomicU64::new(0),
        };
        LineStats { devices: devices.map(device).collect(), write_wait_worst, is_insecure, ..LineStats::default() }
    }

    /// Why the peer does not let us in, if that is why the line is down: we do not trust it, or it refuses us.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.refusal.load(Relaxed) {
            1 => Some(Refusal::Untrusted),
            2 => Some(Refusal::Denied),
            _ => None,
        }
    }

    pub(super) fn set_refusal(&self, cause: Option<&LinkError>) {
        let code = match cause {
            Some(LinkError::Untrusted { .. }) => 1,
            Some(LinkError::Denied { .. } | LinkError::Login { .. }) => 2,
            _ => 0,
        };
        self.refusal.store(code, Relaxed);
    }

    /// State of the link.
    pub fn state(&self) -> LinkState {
        match self.state.load(Relaxed) {
            1 => LinkState::Up,
            2 => LinkState::Down,
            _ => LinkState::Connecting,
        }
    }

    pub(super) fn set_state(&self, state: LinkState) {
        let code = match state {
            LinkState::Connecting => 0,
            LinkState::Up => 1,
            LinkState::Down => 2,
        };
        self.state.store(code, Relaxed);
    }

    /// Polls of all its devices that were not made.
    pub fn missed(&self) -> u64 {
        self.devices.iter().map(|d| d.missed.load(Relaxed)).sum()
    }
}
