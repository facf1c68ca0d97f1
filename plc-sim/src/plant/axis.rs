//! One axis with trapezoidal motion, rest to rest.
//!
//! t(d) = 2 sqrt(d/a) if d < v^2/a, else d/v + v/a  (FEM 9.860, the travel time of a storage machine).

/// An axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    speed_max: f64,
    acceleration: f64,
    from: f64,
    to: f64,
    elapsed: f64,
}

impl Axis {
    /// An axis at rest at `at` metres.
    pub fn new(speed_max: f64, acceleration: f64, at: f64) -> Axis {
        Axis { speed_max, acceleration, from: at, to: at, elapsed: 0.0 }
    }

    /// Time from rest to rest over `distance` metres, seconds.
    pub fn travel_time(&self, distance: f64) -> f64 {
        let (v, a) = (self.speed_max, self.acceleration);
        if distance < v * v / a { 2.0 * (distance / a).sqrt() } else { distance / v + v / a }
    }

    /// Starts towards `to` metres.
    pub fn go(&mut self, to: f64) {
        *self = Axis { from: self.position(), to, elapsed: 0.0, ..*self };
    }

    /// Stops where it is.
    pub fn halt(&mut self) {
        self.go(self.position());
    }

    /// Moves on by `dt` seconds; true when it has arrived.
    pub fn step(&mut self, dt: f64) -> bool {
        self.elapsed += dt;
        self.elapsed >= self.travel_time((self.to - self.from).abs())
    }

    /// Where it is, metres.
    pub fn position(&self) -> f64 {
        let d = (self.to - self.from).abs();
        let total = self.travel_time(d);
        let t = self.elapsed.min(total);
        let ramp = (self.speed_max / self.acceleration).min(total / 2.0);
        let a = self.acceleration;
        let travelled = if t < ramp {
            a * t * t / 2.0
        } else if t <= total - ramp {
            a * ramp * ramp / 2.0 + a * ramp * (t - ramp)
        } else {
            d - a * (total - t) * (total - t) / 2.0
        };
        self.from + travelled * (self.to - self.from).signum()
    }

    /// How fast it is, metres per second, signed.
    pub fn speed(&self) -> f64 {
        let total = self.travel_time((self.to - self.from).abs());
        if self.elapsed >= total {
            return 0.0;
        }
        let ramp = (self.speed_max / self.acceleration).min(total / 2.0);
        let v = self.acceleration * self.elapsed.min(total - self.elapsed).min(ramp);
        v * (self.to - self.from).signum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travel_times_are_those_of_the_formula() {
        let axis = Axis::new(4.0, 2.0, 0.0);
        assert!((axis.travel_time(2.0) - 2.0).abs() < 1e-9, "never reaches its speed");
        assert!((axis.travel_time(8.0) - 4.0).abs() < 1e-9, "just reaches it");
        assert!((axis.travel_time(20.0) - 7.0).abs() < 1e-9, "runs at it");
    }

    #[test]
    fn an_axis_goes_there_without_a_jump_and_never_faster_than_it_may() {
        for to in [0.3, 5.0, -12.0, 40.0] {
            let mut axis = Axis::new(4.0, 2.0, 1.0);
            axis.go(to);
            let (mut last, mut arrived) = (axis.position(), false);
            for _ in 0..2000 {
                arrived = axis.step(0.01);
                assert!((axis.position() - last).abs() <= 0.0401, "{to}");
                assert!(axis.speed().abs() <= 4.0 + 1e-9);
                last = axis.position();
            }
            assert!(arrived && (axis.position() - to).abs() < 1e-6, "{to}: {}", axis.position());
        }
    }
}
