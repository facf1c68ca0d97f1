//! What a rack can do at most, by formula: an aisle brings out no more than its lifts, its shuttles and its conveyor can
//! (FEM 9.860; cycle times of multi-tier shuttle systems after VDI 2692). Lengths in metres, times in seconds, from rest to rest.

/// An axis with a fixed time to take or put a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Top speed, m/s.
    pub speed: f64,
    /// Acceleration, m/s2.
    pub acceleration: f64,
    /// Time to take or put a load, s.
    pub handling: f64,
}

impl Machine {
    /// Time for a distance.
    pub fn time(&self, distance: f64) -> f64 {
        let (d, v, a) = (distance.abs(), self.speed, self.acceleration);
        if d < v * v / a { 2.0 * (d / a).sqrt() } else { d / v + v / a }
    }

    /// Mean time of a single command over stops that are asked for equally often: there, take, back, put.
    pub fn single(&self, stops: &[f64]) -> f64 {
        mean(stops.iter().map(|s| 2.0 * self.time(*s))) + 2.0 * self.handling
    }

    /// Mean time of a dual command over random pairs: bring one, fetch another.
    pub fn dual(&self, stops: &[f64]) -> f64 {
        let pairs = stops.iter().flat_map(|a| stops.iter().map(move |b| (a, b)));
        mean(pairs.map(|(a, b)| self.time(*a) + self.time(a - b) + self.time(*b))) + 4.0 * self.handling
    }

    /// Mean time of a dual command that brings and fetches at one stop.
    pub fn dual_at_one_stop(&self, stops: &[f64]) -> f64 {
        self.single(stops) + 2.0 * self.handling
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    sum / count.max(1) as f64
}

/// An aisle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aisle {
    /// Tiers.
    pub tiers: usize,
    /// Height of the lowest tier over the lift's foot, and from tier to tier.
    pub heights: (f64, f64),
    /// Bays along a tier.
    pub columns: usize,
    /// Distance of the first bay from the lift, and from bay to bay.
    pub distances: (f64, f64),
    /// Lifts.
    pub lifts: usize,
    /// The lift.
    pub lift: Machine,
    /// The shuttles, one a tier.
    pub shuttle: Machine,
}

impl Aisle {
    /// Heights of the tiers.
    pub fn stops(&self) -> Vec<f64> {
        (0..self.tiers).map(|n| self.heights.0 + n as f64 * self.heights.1).collect()
    }

    /// Distances of the bays.
    pub fn bays(&self) -> Vec<f64> {
        (0..self.columns).map(|n| self.distances.0 + n as f64 * self.distances.1).collect()
    }

    /// Loads per hour that can come out at most.
    pub fn out_per_hour(&self) -> f64 {
        let lifts = self.lifts as f64 * 3600.0 / self.lift.single(&self.stops());
        let shuttles = self.tiers as f64 * 3600.0 / self.shuttle.single(&self.bays());
        lifts.min(shuttles)
    }
}

/// The worked example: 20 tiers of half a metre, 100 bays.
pub const EXAMPLE: Aisle = Aisle {
    tiers: 20,
    heights: (0.5, 0.5),
    columns: 100,
    distances: (1.0, 0.5),
    lifts: 1,
    lift: Machine { speed: 5.0, acceleration: 7.0, handling: 1.4 },
    shuttle: Machine { speed: 4.0, acceleration: 2.0, handling: 3.5 },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_comes_out_as_published() {
        let (stops, bays) = (EXAMPLE.stops(), EXAMPLE.bays());
        let rows = [
            (EXAMPLE.lift.single(&stops), 6.269),
            (EXAMPLE.lift.dual(&stops), 10.359),
            (EXAMPLE.shuttle.single(&bays), 23.807),
            (EXAMPLE.shuttle.dual(&bays), 36.866),
        ];
        for (found, want) in rows {
            assert!((found - want).abs() < 0.001, "{found} instead of {want}");
        }
        assert!((EXAMPLE.out_per_hour() - 574.3).abs() < 0.1);
        assert!((3600.0 / EXAMPLE.lift.dual(&stops) - 347.5).abs() < 0.1);
        assert!((3600.0 / EXAMPLE.lift.dual_at_one_stop(&stops) - 397.0).abs() < 0.1);
    }
}
