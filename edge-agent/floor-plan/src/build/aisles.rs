//! An aisle: its machines, its tiers of bays, the lanes between shuttles and lifts, and the belts at the foot of its mast.

use super::Build;
use crate::file::{Aisle, Belt, Drive};
use crate::plan::{AislePlan, Spot};
use control_core::floor::{Beyond, MachineKind, Position, Rack, Tier, Zone, ZoneKind};
use control_core::traffic::roads::NO_PLACE;
use control_core::units::{DomainId, MachineId, PosId, RackId, ZoneId};

/// A fast shuttle and a fast lift of a small-parts store.
const SHUTTLE: Drive = Drive { speed: 4.0, acceleration: 2.0 };
const LIFT: Drive = Drive { speed: 5.0, acceleration: 7.0 };
const BAY_DISTANCES: [f64; 2] = [1.0, 0.5];
const TIER_HEIGHTS: [f64; 2] = [0.5, 0.5];
/// From the middle of the lane to the middle of a bay.
const SIDE_M: f64 = 0.85;
/// The foot of the upper of two lifts over that of the lower one.
const SECOND_FOOT_M: f64 = 1.0;

impl Build {
    pub(super) fn aisle(&mut self, aisle: &Aisle, belts: &[Belt]) {
        let tiers = self.within("tiers in an aisle", &aisle.tiers, 1, 60);
        let bays = self.within("bays on a side of a tier", &aisle.bays, 1, 400);
        let depth = aisle.depth.as_ref().map_or(1, |d| self.within("bays one behind another", d, 1, 2));
        let lane = aisle.lane.as_ref().map_or(1, |l| self.within("places in a lane", l, 1, 8));
        let lifts =
            aisle.lifts.as_ref().map_or(1, |l| self.within("lifts on a mast", l, 1, if tiers > 1 { 2 } else { 1 }));
        let towards = match aisle.towards.as_ref().map(|t| t.get_ref().as_str()) {
            None | Some("east") => (1.0, 0.0),
            Some("west") => (-1.0, 0.0),
            Some("north") => (0.0, -1.0),
            Some("south") => (0.0, 1.0),
            Some(other) => {
                let span = aisle.towards.as_ref().map_or(0..0, |t| t.span());
                self.fault(
                    span,
                    "this is no direction",
                    format!("found \"{other}\", expected east, west, north or south"),
                );
                (1.0, 0.0)
            }
        };
        let name = aisle.name.get_ref().clone();
        let dotted = |what: &str| if name.is_empty() { what.to_string() } else { format!("{name}.{what}") };
        if self.plan.aisles.iter().any(|a| a.name == name) {
            self.fault(aisle.name.span(), "there are two aisles of this name", format!("\"{name}\" again"));
        }
        let domain = self.domain();
        let shuttle = aisle.shuttle.unwrap_or(SHUTTLE);
        let count = aisle.shuttles.as_ref().map_or(tiers, |s| self.within("shuttles in an aisle", s, 1, tiers));
        let rack = (count < tiers).then_some(RackId(self.plan.racks.len() as u16));
        let shuttles: Vec<MachineId> = (1..=count)
            .map(|n| self.machine(dotted(&format!("shuttle-{n}")), MachineKind::Shuttle { rack }, shuttle, domain))
            .collect();
        let mast = self.plan.aisles.len() as u16;
        let lift_ids: Vec<MachineId> = (1..=lifts)
            .map(|n| {
                let name = dotted(&if lifts == 1 { "lift".to_string() } else { format!("lift-{n}") });
                let id =
                    self.machine(name.clone(), MachineKind::Lift { mast, rack }, aisle.lift.unwrap_or(LIFT), domain);
                self.lifts.insert(name, id);
                id
            })
            .collect();
        let mut plan = AislePlan {
            name: name.clone(),
            tiers,
            bays,
            depth,
            at: Spot { x: aisle.at[0], y: aisle.at[1], z: 0.0, tier: 0 },
            towards,
            bay_distances: aisle.bay_distances.unwrap_or(BAY_DISTANCES),
            tier_heights: aisle.tier_heights.unwrap_or(TIER_HEIGHTS),
            zones: Vec::new(),
            shuttles,
            lifts: lift_ids,
            rack,
        };
        let tiers_of_bays: Vec<ZoneId> = (0..tiers).map(|t| self.bays(&plan, &dotted, t, domain)).collect();
        for (t, tier) in (0..tiers).zip(tiers_of_bays) {
            let lanes = [("out", 0.35), ("in", -0.35)].map(|(way, side)| {
                let name = dotted(&format!("transfer-{way}-{}", t + 1));
                self.lane(&plan, name, lane, t, side, if way == "in" { Some(tier) } else { None }, domain)
            });
            plan.zones.push([tier, lanes[0], lanes[1]]);
        }
        if rack.is_some() {
            self.change_of_tiers(&plan);
        }
        for (n, belt) in belts.iter().enumerate() {
            self.aisle_belt(n, belt, &plan, domain);
        }
        self.close(domain);
        self.plan.aisles.push(plan);
    }

    /// What the shuttles of an aisle have to know that change tier.
    fn change_of_tiers(&mut self, plan: &AislePlan) {
        let all = |ids: &[MachineId]| (ids.first().copied().unwrap_or_default(), ids.len() as u16);
        let tiers = (self.plan.tiers.len() as u16, plan.tiers);
        self.plan.racks.push(Rack { shuttles: all(&plan.shuttles), lifts: all(&plan.lifts), tiers });
        for [bays, lane_out, lane_in] in plan.zones.iter().copied() {
            let lane = &self.plan.zones[usize::from(lane_out.0)];
            let (gate, stop) = (lane.exit(), lane.entry());
            self.plan.tiers.push(Tier { bays, lane_out, lane_in, gate, stop });
        }
    }

    /// Where something at a distance from the lift and beside the lane is.
    pub(super) fn spot(plan: &AislePlan, along: f64, side: f64, tier: u16) -> Spot {
        let (dx, dy) = plan.towards;
        Spot {
            x: plan.at.x + dx * along - dy * side,
            y: plan.at.y + dy * along + dx * side,
            z: plan.tier_heights[0] + f64::from(tier) * plan.tier_heights[1],
            tier,
        }
    }

    fn bays(&mut self, plan: &AislePlan, dotted: &dyn Fn(&str) -> String, tier: u16, domain: DomainId) -> ZoneId {
        let first = self.next_pos();
        let [start, pitch] = plan.bay_distances;
        let count = plan.bays * 2 * plan.depth;
        let mut positions = Vec::new();
        for index in 0..count {
            // Front bays of both sides first, then those behind them.
            let (row, column) = (index / plan.bays, index % plan.bays);
            let (deep, side) = (row / 2, if row % 2 == 0 { 1.0 } else { -1.0 });
            let along = start + f64::from(column) * pitch;
            let offset = side * (SIDE_M + f64::from(deep) * 0.7);
            let ahead = if deep == 1 { Some(PosId(first.0 + index - 2 * plan.bays)) } else { None };
            let behind = if deep == 0 && plan.depth == 2 { Some(PosId(first.0 + index + 2 * plan.bays)) } else { None };
            let side_name = if row % 2 == 0 { "left" } else { "right" };
            let rear = if deep == 1 { "-rear" } else { "" };
            let name = dotted(&format!("bay-{}-{side_name}{rear}-{:02}", tier + 1, column + 1));
            let position = Position {
                zone: ZoneId(0),
                along_mm: (along * 1000.0).round() as u32,
                height_mm: 0,
                place: NO_PLACE,
                front: ahead,
                behind,
            };
            positions.push((position, Build::spot(plan, along, offset, tier), name));
        }
        let zone = Zone {
            kind: ZoneKind::Bays,
            first,
            count,
            beyond: Beyond::Nothing,
            feeds: None,
            deep: plan.depth == 2,
            tier: None,
            closed: false,
            domain,
        };
        self.zone(dotted(&format!("tier-{}", tier + 1)), zone, positions)
    }

    #[allow(clippy::too_many_arguments)] // a lane: where, how long, to which tier
    fn lane(
        &mut self,
        plan: &AislePlan,
        name: String,
        count: u16,
        tier: u16,
        side: f64,
        into: Option<ZoneId>,
        domain: DomainId,
    ) -> ZoneId {
        let first = self.next_pos();
        let height = plan.tier_heights[0] + f64::from(tier) * plan.tier_heights[1];
        let positions = (0..count)
            .map(|n| {
                let position = Position {
                    zone: ZoneId(0),
                    along_mm: 0,
                    height_mm: (height * 1000.0).round() as u32,
                    place: NO_PLACE,
                    front: None,
                    behind: None,
                };
                let name = if count == 1 { name.clone() } else { format!("{name}-{}", n + 1) };
                (position, Build::spot(plan, 0.4 + 0.1 * f64::from(n), side, tier), name)
            })
            .collect();
        let zone = Zone {
            kind: ZoneKind::Lane,
            first,
            count,
            beyond: Beyond::Nothing,
            feeds: None,
            deep: false,
            tier: into,
            closed: false,
            domain,
        };
        self.zone(name, zone, positions)
    }

    /// A belt at the foot of this aisle's lifts.
    fn aisle_belt(&mut self, n: usize, belt: &Belt, plan: &AislePlan, domain: DomainId) {
        let of_aisle = |text: &str| self.lifts.get(text).is_some_and(|id| plan.lifts.contains(id));
        if !of_aisle(belt.from.get_ref()) && !of_aisle(belt.to.get_ref()) {
            return;
        }
        self.done_belts.push(n);
        let lift = [&belt.from, &belt.to].into_iter().find_map(|e| self.lifts.get(e.get_ref())).copied();
        let upper = plan.lifts.len() == 2 && lift == plan.lifts.get(1).copied();
        let foot = if upper { SECOND_FOOT_M } else { 0.0 };
        let side = 1.2
            * f64::from(
                self.lanes.iter().filter(|(z, ..)| self.plan.zones[usize::from(z.0)].domain == domain).count() as u16
            );
        let end = belt.stop.as_ref().map(|_| self.near_label(belt.stop.as_ref()));
        let spot = move |k: u16, count: u16, towards_lift: bool| {
            let out = f64::from(if towards_lift { count - k } else { k + 1 });
            // From the foot to where robots stop for it, or straight out.
            let straight = Build::spot(plan, -0.9 * out, side - 1.8, 0);
            let part = out / f64::from(count + 1);
            let (from, to) = (plan.at, end.unwrap_or(straight));
            let between = Spot { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part, ..from };
            Spot { z: foot, ..if end.is_some() { between } else { straight } }
        };
        let towards_lift = self.lifts.contains_key(belt.to.get_ref());
        self.belt(belt, domain, (foot * 1000.0) as u32, |k, count| spot(k, count, towards_lift));
    }
}
