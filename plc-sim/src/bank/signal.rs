//! What a bank measures: a number for every pair of registers at every tick, without storing one of them.
//!
//! ```text
//!   pair 0, 2, 4 ..      /|  /|  /|        pair 1, 3, 5 ..      /\    /\
//!   (a ramp)            / | / | / |        (a triangle)        /  \  /  \      both of 100 ticks
//! ```
//!
//! The value is a pure function of unit, pair and tick, so whoever reads it can check it. Every value lies in 128 .. 512 and is a
//! multiple of 2^-15, hence exact as an `f32`; it moves by 3.25 at least, so that *both* words of a pair change at every tick and a torn
//! read is seen. A small offset of its own tells each pair of each unit from the others.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ticks after which a signal repeats.
pub const PERIOD: u64 = 100;

/// Values change no faster.
pub const RATE_MIN: Duration = Duration::from_millis(1);

/// Offsets are multiples of this: the last bit of an `f32` between 256 and 512.
const OFFSET_STEP: f32 = 1.0 / 32_768.0;
/// Offsets stay below 50: 128 + 325 + 50 is less than 512.
const OFFSETS: u32 = 50 * 32_768;

/// The value of a pair of registers of a unit at a tick.
pub fn value(unit: u8, pair: u16, tick: u64) -> f32 {
    let phase = (tick.wrapping_add(u64::from(pair)).wrapping_add(7 * u64::from(unit)) % PERIOD) as u16; // below 100
    let height = if pair.is_multiple_of(2) { phase } else { 2 * phase.min(100 - phase) };
    128.0 + f32::from(height) * 3.25 + offset(u32::from(unit), u32::from(pair))
}

fn offset(unit: u32, pair: u32) -> f32 {
    let n = (unit * 40_503 + pair * 9_973) % OFFSETS; // below 2^21: exact as an f32
    n as f32 * OFFSET_STEP
}

/// The word at an address: the high half of its pair's value at even addresses, the low half at odd ones.
pub fn register(unit: u8, address: u16, tick: u64) -> u16 {
    let bits = value(unit, address / 2, tick).to_bits();
    if address.is_multiple_of(2) { (bits >> 16) as u16 } else { bits as u16 }
}

/// A coil or discrete input: on for one tick in three, a light that runs along the addresses.
pub fn bit(unit: u8, address: u16, tick: u64) -> bool {
    tick.wrapping_add(u64::from(unit)).wrapping_sub(u64::from(address)).is_multiple_of(3)
}

/// Tells the tick from the time. Tick 1 is the first; nothing runs between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    start: Instant,
    start_ms: u64,
    period: Duration,
}

impl Beat {
    /// A beat that starts now; its period is [`RATE_MIN`] at least.
    pub fn start(period: Duration) -> Beat {
        let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Beat { start: Instant::now(), start_ms, period: period.max(RATE_MIN) }
    }

    /// The tick at an instant.
    pub fn tick(&self, now: Instant) -> u64 {
        1 + (now.saturating_duration_since(self.start).as_nanos() / self.period.as_nanos()) as u64
    }

    /// The wall-clock milliseconds since 1970 at which a tick began.
    pub fn began_ms(&self, tick: u64) -> u64 {
        self.start_ms + (self.period.as_nanos() * u128::from(tick.saturating_sub(1)) / 1_000_000) as u64
    }

    /// The instant at which a tick begins.
    pub fn begins(&self, tick: u64) -> Instant {
        self.start + self.period.saturating_mul(u32::try_from(tick.saturating_sub(1)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_exact_and_both_of_its_words_change_at_every_tick() {
        for unit in [0, 1, 7, 100, 247, 255] {
            for pair in (0..1000).chain([32_766, 32_767]) {
                for tick in 0..=PERIOD {
                    let (old, new) = (value(unit, pair, tick), value(unit, pair, tick + 1));
                    assert!((128.0..512.0).contains(&new), "{unit} {pair} {tick}: {new}");
                    assert_eq!((f64::from(new) * 32_768.0).fract(), 0.0, "{unit} {pair} {tick}: {new}");
                    let (old, new) = (old.to_bits(), new.to_bits());
                    assert_ne!(old >> 16, new >> 16, "high word of {unit} {pair} {tick}");
                    assert_ne!(old as u16, new as u16, "low word of {unit} {pair} {tick}");
                }
            }
        }
    }

    #[test]
    fn two_words_make_the_value() {
        let (high, low) = (register(3, 10, 5), register(3, 11, 5));
        assert_eq!(f32::from_bits(u32::from(high) << 16 | u32::from(low)), value(3, 5, 5));
    }

    #[test]
    fn the_beat_counts_from_one_and_knows_when_a_tick_began() {
        let beat = Beat::start(Duration::from_millis(100));
        assert_eq!(beat.tick(beat.begins(1)), 1);
        assert_eq!(beat.tick(beat.begins(7)), 7);
        assert_eq!(beat.tick(beat.begins(8) - Duration::from_nanos(1)), 7);
        assert_eq!(beat.began_ms(11) - beat.began_ms(1), 1000);
    }
}
