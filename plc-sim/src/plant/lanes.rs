//! Belts and what lies beyond them: a load moves on as soon as the next place is free; lorries bring loads and fetch them.

use super::loads::Loads;
use crate::config::{OutsideConfig, PlantConfig};
use control_core::floor::{Beyond, Zone, ZoneKind};
use control_core::units::{LoadId, PosId, ZoneId};
use std::collections::VecDeque;

/// Load ids that come in by themselves are numbered from here.
const FIRST_ARRIVAL: u32 = 50_000;

#[derive(Clone, Debug)]
struct Belt {
    id: ZoneId,
    zone: Zone,
    /// For each place but the last: seconds until its load is on the next one.
    left_s: Vec<Option<f64>>,
    /// Until the load at its end is fetched.
    fetch_left_s: Option<f64>,
    /// Loads that wait before its beginning.
    dock: VecDeque<LoadId>,
}

/// All lanes of a plant.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    belts: Vec<Belt>,
    outside: OutsideConfig,
    transit_s: f64,
    next_arrival_s: f64,
    next_arrival: u32,
}

impl Lanes {
    pub(super) fn new(config: &PlantConfig) -> Lanes {
        let floor = config.plan.view();
        let moves = |z: &Zone| z.kind == ZoneKind::Lane && (z.count > 1 || z.beyond != Beyond::Nothing);
        let belts = floor
            .zone_ids()
            .filter(|(_, z)| moves(z))
            .map(|(id, zone)| Belt {
                id,
                zone: *zone,
                left_s: vec![None; usize::from(zone.count.saturating_sub(1))],
                fetch_left_s: None,
                dock: VecDeque::new(),
            })
            .collect();
        Lanes {
            belts,
            outside: config.outside,
            transit_s: config.conveyor.transit_s,
            next_arrival_s: config.outside.arrival_every_s,
            next_arrival: FIRST_ARRIVAL,
        }
    }

    /// A load is brought; to the belt where the fewest wait, unless one is named.
    pub(super) fn deliver(&mut self, load: LoadId, to: Option<ZoneId>) {
        let leads_in = |b: &&mut Belt| b.zone.beyond == Beyond::Arrivals && to.is_none_or(|id| b.id == id);
        if let Some(belt) = self.belts.iter_mut().filter(leads_in).min_by_key(|b| b.dock.len()) {
            belt.dock.push_back(load);
        }
    }

    /// Moves everything on.
    pub(super) fn step(&mut self, dt: f64, time_s: f64, loads: &mut Loads) {
        let every = self.outside.arrival_every_s;
        if every > 0.0 && time_s >= self.next_arrival_s {
            self.next_arrival_s += every;
            if let Some(load) = LoadId::new(self.next_arrival) {
                self.deliver(load, None);
            }
            self.next_arrival += 1;
        }
        for belt in &mut self.belts {
            belt.step(dt, self.transit_s, self.outside.fetch_after_s, loads);
        }
    }
}

impl Belt {
    fn step(&mut self, dt: f64, transit_s: f64, fetch_after_s: f64, loads: &mut Loads) {
        let (entry, exit) = (self.zone.entry(), self.zone.exit());
        if self.zone.beyond == Beyond::Arrivals
            && loads.at(entry).is_none()
            && let Some(load) = self.dock.pop_front()
        {
            loads.enter(entry, load);
        }
        if self.zone.beyond == Beyond::Departures {
            self.fetch_left_s = match (loads.at(exit), self.fetch_left_s) {
                (None, _) => None,
                (Some(_), None) => Some(fetch_after_s),
                (Some(_), Some(left)) if left > dt => Some(left - dt),
                (Some(_), Some(_)) => {
                    loads.leave(exit);
                    None
                }
            };
        }
        for (n, left) in self.left_s.iter_mut().enumerate().rev() {
            let from = PosId(entry.0 + n as u16);
            let to = PosId(from.0 + 1);
            let ready = loads.at(from).is_some() && loads.at(to).is_none();
            *left = match (ready, *left) {
                (false, _) => None,
                (true, None) => Some(transit_s),
                (true, Some(t)) if t > dt => Some(t - dt),
                (true, Some(_)) => {
                    let _ = loads.pass(from, to, None); // both ends were looked at above
                    None
                }
            };
        }
    }
}
