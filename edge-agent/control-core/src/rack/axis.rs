//! How long an axis takes from rest to rest.

/// Speed and acceleration of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Top speed, millimetres per second.
    pub speed_mm_s: u32,
    /// Acceleration and deceleration, millimetres per second squared.
    pub acceleration_mm_s2: u32,
}

impl Axis {
    /// Time for a distance, milliseconds: accelerate, travel, decelerate (FEM 9.860): 2 sqrt(d/a) while the top speed is not
    /// reached, else d/v + v/a. An axis without speed takes for ever.
    pub const fn time_ms(&self, distance_mm: u32) -> u32 {
        let (d, v, a) = (distance_mm as u64, self.speed_mm_s as u64, self.acceleration_mm_s2 as u64);
        if d == 0 {
            return 0;
        }
        if v == 0 || a == 0 {
            return u32::MAX;
        }
        let ms = if d * a < v * v {
            // 2000 sqrt(d/a) = sqrt(4 000 000 d / a)
            (4_000_000 * d / a).isqrt()
        } else {
            1_000 * d / v + 1_000 * v / a
        };
        if ms > u32::MAX as u64 { u32::MAX } else { ms as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ways_are_all_ramp_and_long_ones_mostly_speed() {
        let lift = Axis { speed_mm_s: 5_000, acceleration_mm_s2: 7_000 };
        let rows = [(0, 0), (500, 534), (3_500, 1_414), (3_571, 1_428), (3_572, 1_428), (10_000, 2_714)];
        for (mm, ms) in rows {
            assert_eq!(lift.time_ms(mm), ms, "{mm} mm");
        }
        assert_eq!(Axis { speed_mm_s: 0, acceleration_mm_s2: 1 }.time_ms(1), u32::MAX);
    }
}
