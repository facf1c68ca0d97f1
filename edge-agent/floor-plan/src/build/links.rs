//! Who moves loads from where to where: belts, lanes and decks are joined by links.

use super::{Build, End};
use crate::plan::Spot;
use control_core::floor::{Beyond, Link, MAST_GAP_MM, MachineKind, Mover, Position, Zone, ZoneKind};
use control_core::traffic::roads::NO_PLACE;
use control_core::units::{MachineId, ZoneId};

impl Build {
    /// Who moves loads from where to where; and the decks.
    pub(super) fn join(&mut self) {
        for aisle in 0..self.plan.aisles.len() {
            self.join_aisle(aisle);
        }
        let from_robots: Vec<ZoneId> =
            self.lanes.iter().filter(|(_, from, _)| *from == Some(End::Robots)).map(|l| l.0).collect();
        for (zone, _, to) in self.lanes.clone() {
            match to {
                Some(End::Robots) => {
                    let links =
                        from_robots.iter().filter(|t| **t != zone).map(|to| Link { to: *to, by: Mover::Robots });
                    self.plan.links[usize::from(zone.0)].extend(links);
                }
                Some(End::Station(n)) => {
                    if let Some(info) = self.plan.stations.get(n).copied() {
                        let link = Link { to: info.output, by: Mover::Machine(info.machine) };
                        self.plan.links[usize::from(zone.0)].push(link);
                    }
                }
                _ => {}
            }
        }
        for n in 0..self.plan.machines.len() {
            let id = MachineId(n as u16);
            let first = self.next_pos();
            let (name, domain) = (format!("{}.deck", self.plan.machine_names[n]), self.plan.machines[n].domain);
            let spot = self.rest(id);
            let position =
                Position { zone: ZoneId(0), along_mm: 0, height_mm: 0, place: NO_PLACE, front: None, behind: None };
            let zone = Zone {
                kind: ZoneKind::Deck(id),
                first,
                count: 1,
                beyond: Beyond::Nothing,
                feeds: None,
                deep: false,
                tier: None,
                closed: false,
                domain,
            };
            self.zone(name.clone(), zone, vec![(position, spot, name)]);
            self.plan.machines[n].deck = first;
        }
    }

    /// Where a machine is at rest.
    fn rest(&self, id: MachineId) -> Spot {
        for aisle in &self.plan.aisles {
            if let Some(t) = aisle.shuttles.iter().position(|s| *s == id) {
                return Build::spot(aisle, aisle.bay_distances[0], 0.0, t as u16);
            }
            if aisle.lifts.contains(&id) {
                return aisle.at;
            }
        }
        match self.plan.machines[usize::from(id.0)].kind {
            MachineKind::Robot { vehicle, .. } => {
                let place = self.plan.parking.get(usize::from(vehicle));
                place.and_then(|p| self.plan.place_spots.get(usize::from(*p))).copied().unwrap_or_default()
            }
            MachineKind::Station(n) => {
                let info = self.plan.stations.get(usize::from(n.0));
                let at = |z: ZoneId| self.plan.spots[usize::from(self.plan.zones[usize::from(z.0)].exit().0)];
                info.map_or(Spot::default(), |s| {
                    let (a, b) = (at(s.input), at(s.output));
                    Spot { x: (a.x + b.x) / 2.0, y: (a.y + b.y) / 2.0, z: 0.0, tier: 0 }
                })
            }
            _ => Spot::default(),
        }
    }

    fn join_aisle(&mut self, n: usize) {
        let aisle = self.plan.aisles[n].clone();
        let ends = |lift: MachineId, lanes: &[(ZoneId, Option<End>, Option<End>)], out: bool| -> Vec<ZoneId> {
            let at = |end: Option<End>| end == Some(End::Lift(lift));
            lanes.iter().filter(|(_, from, to)| if out { at(*from) } else { at(*to) }).map(|l| l.0).collect()
        };
        for (tier, [bays, lane_out, lane_in]) in aisle.zones.iter().copied().enumerate() {
            let shuttle = aisle.rack.map_or_else(|| Mover::Machine(aisle.shuttles[tier]), Mover::Shuttles);
            let one = self.plan.zones[usize::from(lane_out.0)].count == 1;
            let mut link =
                |from: ZoneId, to: ZoneId| self.plan.links[usize::from(from.0)].push(Link { to, by: shuttle });
            link(bays, lane_out);
            link(bays, bays);
            link(lane_in, bays);
            if one {
                // A lane of one place has no ends: both sides reach it.
                link(lane_out, bays);
            } else {
                link(lane_in, lane_out);
            }
        }
        for lift in &aisle.lifts {
            let by = Mover::Machine(*lift);
            let (outs, ins) = (ends(*lift, &self.lanes, true), ends(*lift, &self.lanes, false));
            // The lower one of two lifts does not reach where there is no room above it for the other.
            let top = aisle.tier_heights[0] + f64::from(aisle.tiers - 1) * aisle.tier_heights[1];
            let lower = aisle.lifts.len() == 2 && *lift == aisle.lifts[0];
            let height = |z: &ZoneId| self.plan.spots[usize::from(self.plan.zones[usize::from(z.0)].first.0)].z;
            let reaches = |z: &[ZoneId; 3]| !lower || height(&z[1]) + f64::from(MAST_GAP_MM) / 1e3 <= top + 1e-6;
            let tiers: Vec<[ZoneId; 3]> = aisle.zones.iter().filter(|z| reaches(z)).copied().collect();
            let lanes_in: Vec<ZoneId> = tiers.iter().map(|z| z[2]).collect();
            for [_, lane_out, lane_in] in &tiers {
                let one = self.plan.zones[usize::from(lane_in.0)].count == 1;
                for from in [Some(*lane_out), one.then_some(*lane_in)].into_iter().flatten() {
                    let to = outs.iter().chain(lanes_in.iter().filter(|l| **l != from));
                    let links = to.map(|to| Link { to: *to, by });
                    self.plan.links[usize::from(from.0)].extend(links);
                }
            }
            for from in ins {
                let links = lanes_in.iter().chain(&outs).map(|to| Link { to: *to, by });
                self.plan.links[usize::from(from.0)].extend(links);
            }
        }
    }
}
