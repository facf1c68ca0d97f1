//! What is known of a floor at this instant: from the input image, from what the control thread shows, and from the board.

use super::drawing::{Drawing, Point, SHAFT_M, in_aisle};
use super::{Moment, Scene, Source, State, VehicleDetail, VehicleNow};
use crate::board::Board;
use crate::clock::Clock;
use crate::control::{MachineShown, RobotState, ShownDesk};
use crate::field::ImageStage;
use control_core::floor::MachineKind;
use control_core::image::{InputImage, MachineStatus, Quality, Stamped, Stand};
use control_core::traffic::roads::Place;
use control_core::units::{MachineId, PosId};
use floor_plan::FloorPlan;
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering::Relaxed};

/// A floor plan, alive.
pub struct Floor {
    plan: Arc<FloorPlan>,
    drawing: Drawing,
    stage: ImageStage,
    shown: Arc<ShownDesk>,
    board: Arc<Board>,
    clock: Clock,
    /// Where each machine looked last, degrees.
    headings: Vec<AtomicI16>,
}

/// Where mobile robots say they are.
type Spots<'a> = &'a dyn Fn(MachineId) -> Option<(i16, i16)>;

impl Floor {
    /// A floor, seen through these.
    pub fn new(
        plan: Arc<FloorPlan>,
        stage: ImageStage,
        shown: Arc<ShownDesk>,
        board: Arc<Board>,
        clock: Clock,
    ) -> Floor {
        let headings = (0..plan.machine_count()).map(|_| AtomicI16::new(0)).collect();
        let drawing = Drawing::of(&plan);
        Floor { plan, drawing, stage, shown, board, clock, headings }
    }

    fn place(&self, place: Place) -> Point {
        self.plan.place_spots.get(usize::from(place)).map_or(Point::default(), |s| Point::from(*s))
    }

    /// Where a machine is; one that was never seen is where it rests.
    fn at(&self, id: MachineId, image: &InputImage<'_>, spot: Option<(i16, i16)>) -> Point {
        let floor = self.plan.view();
        let seen = image.machine(id);
        let status = Some(&seen.value).filter(|_| is_known(&seen));
        let Some(info) = floor.machine(id) else { return Point::default() };
        let rest = self.drawing.at(info.deck);
        let Some(status) = status else { return rest };
        let along = f64::from(status.at) / 1000.0;
        match info.kind {
            MachineKind::Robot { .. } => match spot {
                Some((x, y)) => Point { x: f64::from(x) / 100.0, y: f64::from(y) / 100.0, tier: 0 },
                None if usize::from(status.at) < self.plan.place_spots.len() => self.place(status.at),
                None => rest,
            },
            MachineKind::Shuttle { .. } => {
                let aisle = self.plan.aisles.iter().find_map(|a| Some((a, a.shuttles.iter().position(|s| *s == id)?)));
                let Some((aisle, number)) = aisle else { return rest };
                let on = |tier: u16| in_aisle(aisle, along.max(0.4), 0.0, tier.min(aisle.tiers.saturating_sub(1)));
                match status.stand {
                    _ if aisle.rack.is_none() => on(number as u16),
                    Stand::Tier(n) | Stand::Between(n, _) => on(u16::from(n.saturating_sub(1))),
                    // Where the lift is.
                    Stand::Lift(n) => {
                        let lift = aisle.lifts.get(usize::from(n.saturating_sub(1)));
                        lift.map_or(rest, |lift| self.at(*lift, image, None))
                    }
                    Stand::Unknown => rest,
                }
            }
            MachineKind::Lift { .. } => {
                let Some(aisle) = self.plan.aisles.iter().find(|a| a.lifts.contains(&id)) else { return rest };
                let [first, each] = aisle.tier_heights;
                let tier = if each > 0.0 { ((along - first) / each).round().max(0.0) as u16 } else { 0 };
                in_aisle(aisle, SHAFT_M.0, 0.0, tier.min(aisle.tiers.saturating_sub(1)))
            }
            MachineKind::Station(_) => rest,
        }
    }

    /// The number of a road place in the scene's list.
    fn road(&self, place: Place) -> u32 {
        u32::from(self.plan.sensed()) + u32::from(place)
    }

    fn heading(&self, id: MachineId, at: Point, shown: &MachineShown) -> i16 {
        let slot = self.headings.get(usize::from(id.0));
        let ahead = shown.robot.path().get(1).map(|p| self.place(*p));
        if let Some(to) = ahead
            && let Some(slot) = slot
            && (to.x - at.x).hypot(to.y - at.y) > 0.05
        {
            slot.store((to.y - at.y).atan2(to.x - at.x).to_degrees().round() as i16, Relaxed);
        }
        slot.map_or(0, |h| h.load(Relaxed))
    }

    fn now(&self, id: MachineId, image: &InputImage<'_>, spots: Spots<'_>, shown: &MachineShown) -> VehicleNow {
        let seen = self.board.machine(id);
        let status = image.machine(id);
        let known = is_known(&status);
        let at = self.at(id, image, spots(id));
        let floor = self.plan.view();
        let is_robot = matches!(floor.machine(id).map(|m| m.kind), Some(MachineKind::Robot { .. }));
        let path: Vec<u32> = if is_robot {
            shown.robot.path().iter().map(|p| self.road(*p)).collect()
        } else {
            let sensed = self.plan.sensed();
            seen.target.into_iter().filter(|p| p.0 < sensed).map(|p| u32::from(p.0)).collect()
        };
        let load = if status.quality == Quality::Bad { None } else { status.value.load };
        let order = shown.leg.map_or(seen.order.unwrap_or(0), |leg| leg.order.0);
        let battery =
            if is_robot && known { i8::try_from(status.value.charge.min(1000) / 10).unwrap_or(-1) } else { -1 };
        VehicleNow {
            x_mm: (at.x * 1000.0) as i32,
            y_mm: (at.y * 1000.0) as i32,
            tier: at.tier,
            heading_deg: if is_robot { self.heading(id, at, shown) } else { 0 },
            state: self.state(&seen, shown, &status.value) as u8,
            load: load.map_or(0, |l| l.get()),
            battery,
            order,
            path,
        }
    }

    fn state(&self, seen: &crate::board::MachineSeen, shown: &MachineShown, status: &MachineStatus) -> State {
        let robot = shown.robot.state;
        let at_charger = robot == RobotState::Arrived && self.plan.charging.contains(&status.at);
        match State::of(seen.hold, seen.target.is_some() || shown.leg.is_some() || robot == RobotState::Driving) {
            State::Idle | State::Busy if matches!(robot, RobotState::Jammed | RobotState::Astray) => State::Blocked,
            State::Idle if at_charger => State::Charging,
            state => state,
        }
    }

    fn doing(&self, shown: &MachineShown) -> Option<String> {
        let leg = shown.leg.map(|leg| {
            let name = |pos: PosId| self.plan.position_name(pos);
            format!("from {} to {}", name(leg.source), name(leg.target))
        });
        let robot = match shown.robot.state {
            RobotState::Astray => Some("says it is where it cannot be; somebody has to look"),
            RobotState::Jammed => Some("does not come nearer to its goal; no way out was found"),
            RobotState::Waiting => Some("waits for others, or for a pass"),
            _ => None,
        };
        match (leg, robot) {
            (Some(leg), Some(robot)) => Some(format!("{leg}; {robot}")),
            (leg, robot) => leg.or(robot.map(String::from)),
        }
    }
}

/// Whether a machine was ever seen.
fn is_known(seen: &Stamped<MachineStatus>) -> bool {
    seen.quality != Quality::Bad || seen.at.0 > 0
}

impl Source for Floor {
    fn scene(&self) -> Scene {
        self.drawing.scene.clone()
    }

    fn moment(&self) -> Moment {
        let ids: Vec<MachineId> = self.plan.view().machine_ids().collect();
        let shown: Vec<MachineShown> = self.shown.look(|s| ids.iter().map(|id| s.machine(*id)).collect());
        let v = self.stage.look(|image, spots| {
            ids.iter().zip(&shown).map(|(id, shown)| self.now(*id, image, spots, shown)).collect()
        });
        Moment { t: self.clock.now().0, v }
    }

    fn loads(&self) -> Vec<(u32, u32)> {
        self.stage.look(|image, _| {
            let held = |n: u16| {
                let seen = image.position(PosId(n));
                let load = if seen.quality == Quality::Bad { Some(0) } else { seen.value.map(|l| l.get()) };
                load.map(|l| (u32::from(n), l))
            };
            (0..self.plan.sensed()).filter_map(held).collect()
        })
    }

    fn vehicle(&self, index: usize) -> Option<VehicleDetail> {
        let id = u16::try_from(index).ok().filter(|n| usize::from(*n) < self.plan.machine_count()).map(MachineId)?;
        let shown = self.shown.look(|s| s.machine(id));
        let seen = self.board.machine(id);
        let (now, state) = self.stage.look(|image, spots| {
            let status = image.machine(id).value;
            (self.now(id, image, spots, &shown), self.state(&seen, &shown, &status))
        });
        Some(VehicleDetail {
            name: self.plan.machine_name(id).into(),
            state,
            why: seen.hold.map(crate::desk::hold_text),
            load: (now.load > 0).then_some(now.load),
            order: (now.order > 0).then_some(now.order),
            doing: self.doing(&shown),
            commands: seen.commands.into_iter().rev().collect(),
        })
    }
}
