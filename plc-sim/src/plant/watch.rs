//! Who hits whom. A mobile robot is in the way at the place it has reached last and, while it drives, at the next, and it is as long and
//! as wide as it is, in the direction it looks; two lifts on one mast may not come nearer than [`MAST_GAP_M`]. Of shuttles that change tier no
//! two may be on one tier or one lift; between a tier and a lift one may only be while the lift stands there, empty.

use super::loads::Loads;
use super::machine::Machine;
use control_core::floor::MachineKind;
use control_core::image::Stand;
use control_core::traffic::roads::Place;
use control_core::units::MachineId;
use floor_plan::FloorPlan;
use std::collections::BTreeSet;

/// Two lifts on one mast touch below this, metres.
const MAST_GAP_M: f64 = 0.3;

const NOBODY: u16 = u16::MAX;

/// Notices collisions.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Who is at each place.
    who: Vec<u16>,
    robots: Vec<MachineId>,
    /// Half of length and width of each robot, metres.
    halves: Vec<[f64; 2]>,
    bodies: Vec<Body>,
    masts: Vec<(MachineId, MachineId)>,
    /// Pairs that touch now: a meeting counts once.
    touching: BTreeSet<(u16, u16)>,
    count: u64,
    first: Option<String>,
}

impl Watch {
    pub(super) fn new(plan: &FloorPlan) -> Watch {
        let floor = plan.view();
        let mast = |id: MachineId| match floor.machine(id)?.kind {
            MachineKind::Lift { mast, .. } => Some(mast),
            _ => None,
        };
        let next = |id: MachineId| MachineId(id.0 + 1);
        let masts = floor.machine_ids().filter(|id| mast(*id).is_some() && mast(*id) == mast(next(*id)));
        Watch {
            who: vec![NOBODY; floor.roads().places()],
            robots: floor.robots().map(|(id, ..)| id).collect(),
            halves: plan.robots.iter().map(|r| r.size.map(|m| m / 2.0)).collect(),
            bodies: Vec::new(),
            masts: masts.map(|id| (id, next(id))).collect(),
            touching: BTreeSet::new(),
            count: 0,
            first: None,
        }
    }

    /// Meetings so far.
    pub(super) fn collisions(&self) -> u64 {
        self.count
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Looks at everybody.
    pub(super) fn look(&mut self, plan: &FloorPlan, machines: &[Machine], loads: &Loads, time_s: f64) {
        let mut found = Vec::new();
        let places = |id: MachineId| {
            let robot = machines.get(usize::from(id.0)).and_then(Machine::robot).filter(|r| !r.is_off());
            robot.into_iter().flat_map(|r| [Some(r.at()), r.towards()].into_iter().flatten())
        };
        for id in &self.robots {
            for place in places(*id) {
                let Some(slot) = self.who.get_mut(usize::from(place)) else { continue };
                if *slot != NOBODY && *slot != id.0 {
                    found.push((*slot, id.0, place));
                }
                *slot = id.0;
            }
        }
        let floor = plan.view();
        let roads = floor.roads();
        for id in &self.robots {
            for place in places(*id) {
                for near in roads.near(place) {
                    let other = self.who.get(usize::from(*near)).copied().unwrap_or(NOBODY);
                    if other != NOBODY && other > id.0 {
                        found.push((id.0, other, place));
                    }
                }
            }
        }
        for id in &self.robots {
            for place in places(*id) {
                if let Some(slot) = self.who.get_mut(usize::from(place)) {
                    *slot = NOBODY;
                }
            }
        }
        self.bodies.clear();
        for (id, half) in self.robots.iter().zip(&self.halves) {
            if let Some(robot) = machines.get(usize::from(id.0)).and_then(Machine::robot).filter(|r| !r.is_off()) {
                self.bodies.push(Body::new(id.0, robot.position(plan), robot.heading_deg(), *half, robot.at()));
            }
        }
        self.bodies.sort_by(|a, b| a.middle.0.total_cmp(&b.middle.0));
        let widest = self.bodies.iter().map(|b| b.radius).fold(0.0, f64::max);
        for (n, a) in self.bodies.iter().enumerate() {
            let reach = a.middle.0 + a.radius + widest;
            for b in self.bodies[n + 1..].iter().take_while(|b| b.middle.0 < reach) {
                if a.touches(b) {
                    found.push((a.id, b.id, a.place));
                }
            }
        }
        let height = |id: MachineId| machines.get(usize::from(id.0)).map_or(0.0, Machine::position);
        for (lower, upper) in &self.masts {
            if height(*lower) + MAST_GAP_M > height(*upper) {
                found.push((lower.0, upper.0, Place::MAX));
            }
        }
        shuttles(plan, machines, loads, &mut found);
        if found.is_empty() && self.touching.is_empty() {
            return;
        }
        let now: BTreeSet<(u16, u16)> = found.iter().map(|(a, b, _)| (*a.min(b), *a.max(b))).collect();
        for pair in now.difference(&self.touching) {
            self.count += 1;
            let place = found.iter().find(|(a, b, _)| (*a.min(b), *a.max(b)) == *pair).map(|(.., p)| *p);
            let name = |n: u16| plan.machine_name(MachineId(n));
            let text = || format!("{} and {} at place {place:?} after {time_s:.2} s", name(pair.0), name(pair.1));
            self.first.get_or_insert_with(text);
        }
        self.touching = now;
    }
}

/// What shuttles that change tier may not do.
fn shuttles(plan: &FloorPlan, machines: &[Machine], loads: &Loads, found: &mut Vec<(u16, u16, Place)>) {
    /// A lift stands at a tier when it is this near, metres.
    const LEVEL_M: f64 = 0.02;
    let floor = plan.view();
    let machine = |id: MachineId| machines.get(usize::from(id.0));
    for rack in floor.tables().racks {
        let lift_of = |n: u8| rack.lifts().nth(usize::from(n).wrapping_sub(1));
        for id in rack.shuttles() {
            let Some(stand) = machine(id).map(Machine::stand) else { continue };
            let (tier, lift) = match stand {
                Stand::Unknown => (None, None),
                Stand::Tier(tier) => (Some(tier), None),
                Stand::Lift(lift) => (None, Some(lift)),
                Stand::Between(tier, lift) => (Some(tier), Some(lift)),
            };
            for other in rack.shuttles().filter(|other| other.0 > id.0) {
                let meets = match machine(other).map(Machine::stand) {
                    Some(Stand::Tier(t)) => Some(t) == tier,
                    Some(Stand::Lift(l)) => Some(l) == lift,
                    Some(Stand::Between(t, l)) => Some(t) == tier || Some(l) == lift,
                    _ => false,
                };
                if meets {
                    found.push((id.0, other.0, Place::MAX));
                }
            }
            let Some(lift) = lift.and_then(lift_of) else { continue };
            let Some(body) = machine(lift) else { continue };
            let gate = tier.and_then(|n| floor.tiers(rack).get(usize::from(n) - 1)).map(|t| t.gate);
            let level = gate.map(|gate| f64::from(floor.stop_mm(lift, gate)) / 1e3);
            let away = level.is_some_and(|m| (body.position() - m).abs() > LEVEL_M || body.speed() != 0.0);
            if away || loads.at(body.deck()).is_some() {
                found.push((id.0, lift.0, Place::MAX));
            }
        }
    }
}

/// A robot as a rectangle.
#[derive(Clone, Copy, Debug)]
struct Body {
    id: u16,
    middle: (f64, f64),
    /// Unit vector in which it looks.
    along: (f64, f64),
    half: [f64; 2],
    radius: f64,
    place: Place,
}

impl Body {
    fn new(id: u16, middle: (f64, f64), heading_deg: f64, half: [f64; 2], place: Place) -> Body {
        let along = (heading_deg.to_radians().cos(), heading_deg.to_radians().sin());
        Body { id, middle, along, half, radius: half[0].hypot(half[1]), place }
    }

    /// Whether two rectangles overlap: there is no axis of either on which their shadows are apart.
    fn touches(&self, other: &Body) -> bool {
        let (dx, dy) = (other.middle.0 - self.middle.0, other.middle.1 - self.middle.1);
        if dx.hypot(dy) >= self.radius + other.radius {
            return false;
        }
        let shadow = |body: &Body, axis: (f64, f64)| {
            let (u, v) = (body.along, (-body.along.1, body.along.0));
            body.half[0] * (u.0 * axis.0 + u.1 * axis.1).abs() + body.half[1] * (v.0 * axis.0 + v.1 * axis.1).abs()
        };
        let axes = [self, other].into_iter().flat_map(|b| [b.along, (-b.along.1, b.along.0)]);
        axes.into_iter().all(|axis| (dx * axis.0 + dy * axis.1).abs() < shadow(self, axis) + shadow(other, axis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_touch_when_they_overlap_and_not_before() {
        let body = |x: f64, y: f64, deg: f64| Body::new(0, (x, y), deg, [0.5, 0.3], 0);
        let one = body(0.0, 0.0, 0.0);
        assert!(one.touches(&body(0.99, 0.0, 0.0)) && !one.touches(&body(1.01, 0.0, 0.0)));
        assert!(one.touches(&body(0.0, 0.59, 0.0)) && !one.touches(&body(0.0, 0.61, 180.0)));
        assert!(one.touches(&body(0.79, 0.0, 90.0)) && !one.touches(&body(0.81, 0.0, 90.0)));
        // Corner to corner: the circles overlap, the rectangles do not.
        assert!(!one.touches(&body(0.9, 0.65, 0.0)) && one.touches(&body(0.9, 0.55, 0.0)));
        assert!(one.touches(&body(0.85, 0.5, 45.0)) && !one.touches(&body(0.95, 0.7, 45.0)));
    }
}
