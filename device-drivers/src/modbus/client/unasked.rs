//! Replies that nobody has asked for: some are late, doubled or foreign, and are dropped; a flood of them ends the connection.
//!
//! Dropping costs little, and yet a peer that sends as fast as its connection carries would keep a core busy for ever while the line looks
//! well. What a peer can send unasked in good faith is little: at most some replies to each request of ours.

use std::time::Duration;
use tokio::time::Instant;

/// Frames within [`SPELL`] that nobody has asked for: dropping so many takes less than a hundredth of a core.
pub(super) const FRAMES_MAX: usize = 5000;
/// Bytes within [`SPELL`] of any kind, where there are no transactions: more than twice what the fastest serial line carries.
pub(super) const BYTES_MAX: usize = 256 * 1024;
const SPELL: Duration = Duration::from_secs(1);

/// What has come unasked in the spell that runs.
#[derive(Debug, Default)]
pub(super) struct Unasked {
    since: Option<Instant>,
    amount: usize,
}

impl Unasked {
    /// So much more has come; whether that is a flood.
    pub(super) fn comes(&mut self, amount: usize, most: usize, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPELL) {
            *self = Unasked { since: Some(now), amount: 0 };
        }
        self.amount = self.amount.saturating_add(amount);
        self.amount > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_more_within_a_second_than_a_peer_can_owe() {
        let (mut unasked, start) = (Unasked::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!((0..600_000).all(|n| !unasked.comes(1, FRAMES_MAX, at(n / 5))), "5000 a second for two minutes");
        let mut unasked = Unasked::default();
        assert_eq!((0..).position(|_| unasked.comes(1, FRAMES_MAX, start)), Some(FRAMES_MAX));
    }
}
