//! A machine's body: it travels, takes, works and puts. It knows nothing of sequences and tokens; that is [`crate::plc`].

use super::axis::Axis;
use super::loads::Loads;
use super::robot::Robot;
use crate::config::{Carrier, CellConfig, PlantConfig};
use control_core::floor::{MachineKind, Rack, ZoneKind};
use control_core::image::{CommandCode, PackState, Path, Reason, Stand};
use control_core::traffic::roads::{NO_PLACE, Place};
use control_core::units::{LoadId, MachineId, PosId};
use floor_plan::FloorPlan;

/// What the machine was told to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// What.
    pub code: CommandCode,
    /// Where.
    pub pos: PosId,
    /// With which load.
    pub load: Option<LoadId>,
    /// Program, for a cell.
    pub program: u16,
    /// Along which places, for a drive.
    pub path: Path,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Off a lift, onto the tier it stands at.
    Leave {
        left_s: f64,
    },
    Travel,
    /// Onto a lift.
    Board {
        left_s: f64,
    },
    Handle {
        left_s: f64,
    },
    Process {
        left_s: f64,
    },
    Put {
        left_s: f64,
    },
}

/// What makes one kind of machine differ from another.
#[derive(Clone, Debug)]
enum Body {
    /// Shuttle or lift, along its axis.
    Carrier { axis: Axis, handling_s: f64, stand: Stand },
    /// Robot cell between two ports.
    Cell { config: CellConfig, from: PosId, to: PosId },
    /// Mobile robot.
    Robot { robot: Robot, handling_s: f64 },
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    id: MachineId,
    deck: PosId,
    body: Body,
    job: Option<(Job, Phase)>,
    /// 1, or more when a fault makes it slow.
    drag: f64,
    breaks_down: bool,
    temperature_c: f64,
    current_a: f64,
}

impl Machine {
    /// A machine of a floor, at rest.
    pub fn new(config: &PlantConfig, id: MachineId) -> Option<Machine> {
        let plan = &config.plan;
        let floor = plan.view();
        let info = floor.machine(id)?;
        let (speed, acceleration) =
            (f64::from(info.axis.speed_mm_s) / 1e3, f64::from(info.axis.acceleration_mm_s2) / 1e3);
        let carrier = |c: Carrier, at: f64, stand: Stand| Body::Carrier {
            axis: Axis::new(c.speed.unwrap_or(speed), c.acceleration.unwrap_or(acceleration), at),
            handling_s: c.handling_s,
            stand,
        };
        let body = match info.kind {
            MachineKind::Shuttle { .. } => {
                // Those that change tier stand on the lowest ones at first.
                let number = floor.rack_of(id).map(|rack| id.0 - rack.shuttles.0.0 + 1);
                let stand = number.and_then(|n| u8::try_from(n).ok()).map_or(Stand::Unknown, Stand::Tier);
                carrier(config.shuttle, 0.0, stand)
            }
            MachineKind::Lift { .. } => {
                // At its own foot, where its belts are: the upper one of two stands above the lower one.
                let stops = floor.sources(id).iter().filter_map(|z| floor.zone(*z)).map(|z| z.exit());
                let deck = floor.zone_of(info.deck).map_or(&[][..], |(deck, _)| floor.links(deck));
                let puts = deck.iter().filter_map(|l| floor.zone(l.to)).map(|z| z.entry());
                let foot = stops.chain(puts).map(|pos| floor.stop_mm(id, pos)).min();
                carrier(config.lift, f64::from(foot.unwrap_or(0)) / 1e3, Stand::Unknown)
            }
            MachineKind::Station(station) => {
                let s = floor.station(station)?;
                let (from, to) = (floor.zone(s.input)?.exit(), floor.zone(s.output)?.entry());
                Body::Cell { config: config.cell, from, to }
            }
            MachineKind::Robot { vehicle, .. } => {
                let at = plan.parking.get(usize::from(vehicle)).copied()?;
                let charge = (config.robot.charge - 0.013 * f64::from(vehicle % 32)).clamp(0.05, 1.0);
                let robot = Robot::new(at, speed, acceleration, config.robot, charge);
                Body::Robot { robot, handling_s: config.robot.handling_s }
            }
        };
        Some(Machine {
            id,
            deck: info.deck,
            body,
            job: None,
            drag: 1.0,
            breaks_down: false,
            temperature_c: 24.0,
            current_a: 0.4,
        })
    }

    /// Its deck.
    pub fn deck(&self) -> PosId {
        self.deck
    }

    /// What it is doing.
    pub fn job(&self) -> Option<Job> {
        self.job.map(|(job, _)| job)
    }

    /// PackML state.
    pub fn state(&self) -> PackState {
        if self.job.is_some() { PackState::Execute } else { PackState::Idle }
    }

    /// A mobile robot's body.
    pub fn robot(&self) -> Option<&Robot> {
        match &self.body {
            Body::Robot { robot, .. } => Some(robot),
            _ => None,
        }
    }

    /// A mobile robot's body, to be pushed about.
    pub fn robot_mut(&mut self) -> Option<&mut Robot> {
        match &mut self.body {
            Body::Robot { robot, .. } => Some(robot),
            _ => None,
        }
    }

    /// It has to be brought back before it can be told anything.
    pub fn is_stranded(&self) -> bool {
        self.robot().is_some_and(Robot::is_stranded)
    }

    /// Axis position, metres.
    pub fn position(&self) -> f64 {
        match &self.body {
            Body::Carrier { axis, .. } => axis.position(),
            _ => 0.0,
        }
    }

    /// Speed, metres per second.
    pub fn speed(&self) -> f64 {
        match &self.body {
            Body::Carrier { axis, .. } => axis.speed(),
            Body::Robot { robot, .. } => robot.speed(),
            Body::Cell { .. } => 0.0,
        }
    }

    /// Where it stands, if it changes tier.
    pub fn stand(&self) -> Stand {
        match &self.body {
            Body::Carrier { stand, .. } => *stand,
            _ => Stand::Unknown,
        }
    }

    /// Motor temperature, degrees Celsius.
    pub fn temperature_c(&self) -> f64 {
        self.temperature_c
    }

    /// Motor current, amperes.
    pub fn current_a(&self) -> f64 {
        self.current_a
    }

    /// Whether it serves a position for what it is told: of a lane the end at which it takes, or the end at which it puts.
    fn serves(&self, plan: &FloorPlan, code: CommandCode, pos: PosId) -> bool {
        let floor = plan.view();
        let Some((zone, info)) = floor.zone_of(pos) else { return false };
        let on_tier = |rack: &Rack| {
            let there = self.tier_of(plan, pos).is_some_and(|n| match self.stand() {
                Stand::Tier(own) => n == own,
                // Off the lift, onto the tier it stands at; whether it does is looked at by [`super::watch`].
                Stand::Lift(_) => code == CommandCode::Move,
                Stand::Between(own, _) => code == CommandCode::Move && n == own,
                Stand::Unknown => false,
            });
            there && rack.shuttles().any(|s| s == self.id)
        };
        if floor.rack_of(self.id).is_some_and(|rack| !on_tier(rack)) {
            return false;
        }
        let by = |mover| mover == floor.mover(self.id);
        let takes =
            || floor.links(zone).iter().any(|l| by(l.by)) && (info.kind == ZoneKind::Bays || pos == info.exit());
        let Some((deck, _)) = floor.zone_of(self.deck) else { return false };
        let puts = || {
            floor.links(deck).iter().any(|l| l.to == zone && by(l.by))
                && (info.kind == ZoneKind::Bays || pos == info.entry())
        };
        match code {
            CommandCode::Pick => takes(),
            CommandCode::Place => puts(),
            CommandCode::Move => takes() || puts(),
            _ => false,
        }
    }

    /// The number of the tier a position is on, if its loads are moved by shuttles that change tier.
    fn tier_of(&self, plan: &FloorPlan, pos: PosId) -> Option<u8> {
        let floor = plan.view();
        let (zone, _) = floor.zone_of(pos)?;
        let n = floor.tiers(floor.rack_of(self.id)?).iter().position(|t| t.has(zone))?;
        u8::try_from(n + 1).ok()
    }

    /// The number of the lift whose deck a position is, of those it changes tier on.
    fn lift_of(&self, plan: &FloorPlan, pos: PosId) -> Option<u8> {
        let floor = plan.view();
        let lift = floor.deck_of(pos)?;
        let n = floor.rack_of(self.id)?.lifts().position(|l| l == lift)?;
        u8::try_from(n + 1).ok()
    }

    /// Whether it could do this at all.
    pub fn accepts(&self, plan: &FloorPlan, job: &Job) -> Result<(), Reason> {
        let fits = |yes: bool| if yes { Ok(()) } else { Err(Reason::BadPosition) };
        match (&self.body, job.code) {
            (Body::Cell { from, .. }, CommandCode::Start) => fits(job.pos == *from),
            (Body::Carrier { stand, .. }, CommandCode::Board) => {
                let lift = self.lift_of(plan, job.pos);
                fits(lift.is_some_and(|n| n == job.program as u8) && matches!(stand, Stand::Tier(_)))
            }
            (Body::Carrier { .. }, CommandCode::Pick | CommandCode::Place | CommandCode::Move) => {
                fits(self.serves(plan, job.code, job.pos))
            }
            (Body::Robot { robot, .. }, CommandCode::Pick | CommandCode::Place) => {
                let place = plan.view().position(job.pos).map_or(NO_PLACE, |p| p.place);
                let there = robot.at() == place && robot.towards().is_none();
                fits(there && self.serves(plan, job.code, job.pos))
            }
            (Body::Robot { robot, .. }, CommandCode::Drive) => {
                let path: Vec<Place> = job.path.iter().collect();
                fits(robot.accepts(plan, &path))
            }
            _ => Err(Reason::UnknownCode),
        }
    }

    /// A drive may be told more while it is driven; everything else has to be over.
    pub fn takes_more(&self, job: &Job) -> bool {
        job.code == CommandCode::Drive && self.job().is_none_or(|j| j.code == CommandCode::Drive)
    }

    /// Begins. The caller has asked [`Machine::accepts`].
    pub fn begin(&mut self, plan: &FloorPlan, job: Job, drag: f64, breaks_down: bool) {
        let tier = self.tier_of(plan, job.pos);
        let mut phase = Phase::Travel;
        match &mut self.body {
            Body::Carrier { axis, stand, handling_s } => {
                axis.go(f64::from(plan.view().stop_mm(self.id, job.pos)) / 1e3);
                if let (Stand::Lift(lift) | Stand::Between(_, lift), Some(tier)) = (*stand, tier) {
                    *stand = Stand::Between(tier, lift);
                    phase = Phase::Leave { left_s: *handling_s };
                }
            }
            Body::Robot { robot, .. } if job.code == CommandCode::Drive => {
                let path: Vec<Place> = job.path.iter().collect();
                robot.go(plan, &path);
            }
            _ => {}
        }
        self.drag = drag;
        self.breaks_down = breaks_down;
        self.job = Some((job, phase));
    }

    /// Stops at once, wherever it is. What it carries it keeps.
    pub fn halt(&mut self) {
        match &mut self.body {
            Body::Carrier { axis, .. } => axis.halt(),
            Body::Robot { robot, .. } => robot.halt(),
            Body::Cell { .. } => {}
        }
        self.job = None;
    }

    /// Moves on by `dt` seconds. Returns how the job ended, when it has. `may_move` says that it may do so without a job too.
    pub fn step(
        &mut self,
        dt: f64,
        plan: &FloorPlan,
        loads: &mut Loads,
        noise: f64,
        may_move: bool,
    ) -> Option<Result<(), Reason>> {
        self.warm(dt, noise);
        let Some((job, phase)) = self.job else {
            if let Body::Robot { robot, .. } = &mut self.body {
                robot.find_back(if may_move { dt } else { 0.0 }, plan);
            }
            return None;
        };
        let dt = dt / self.drag;
        let lift = self.lift_of(plan, job.pos);
        let next = match phase {
            Phase::Leave { left_s } if left_s > dt => Phase::Leave { left_s: left_s - dt },
            Phase::Leave { .. } => {
                if let Body::Carrier { stand, .. } = &mut self.body
                    && let Stand::Between(tier, _) = *stand
                {
                    *stand = Stand::Tier(tier);
                }
                Phase::Travel
            }
            Phase::Board { left_s } if left_s > dt => Phase::Board { left_s: left_s - dt },
            Phase::Board { .. } => {
                if let (Body::Carrier { stand, .. }, Some(lift)) = (&mut self.body, lift) {
                    *stand = Stand::Lift(lift);
                }
                return self.end(Ok(()));
            }
            Phase::Travel => {
                let arrived = match &mut self.body {
                    Body::Carrier { axis, .. } => axis.step(dt),
                    Body::Robot { robot, .. } => robot.step(dt, plan),
                    Body::Cell { .. } => true,
                };
                if !arrived {
                    return None;
                }
                if self.breaks_down {
                    return self.end(Err(Reason::DriveFault));
                }
                match (job.code, &mut self.body, lift) {
                    (CommandCode::Move | CommandCode::Drive, ..) => return self.end(Ok(())),
                    (CommandCode::Board, Body::Carrier { stand, handling_s, .. }, Some(lift)) => {
                        if let Stand::Tier(tier) = *stand {
                            *stand = Stand::Between(tier, lift);
                        }
                        Phase::Board { left_s: *handling_s }
                    }
                    _ => Phase::Handle { left_s: self.handling_s() },
                }
            }
            Phase::Handle { left_s } if left_s > dt => Phase::Handle { left_s: left_s - dt },
            Phase::Handle { .. } => match self.handle(plan, &job, loads) {
                Ok(Some(phase)) => phase,
                Ok(None) => return self.end(Ok(())),
                Err(why) => return self.end(Err(why)),
            },
            Phase::Process { left_s } if left_s > dt => Phase::Process { left_s: left_s - dt },
            Phase::Process { .. } => Phase::Put { left_s: self.handling_s() },
            Phase::Put { left_s } if left_s > dt => Phase::Put { left_s: left_s - dt },
            Phase::Put { .. } => {
                let Body::Cell { to, .. } = self.body else { return self.end(Ok(())) };
                match loads.pass(self.deck, to, job.load) {
                    Ok(()) => return self.end(Ok(())),
                    Err(_) => Phase::Put { left_s: 0.0 }, // the robot waits with the load in its gripper
                }
            }
        };
        self.job = Some((job, next));
        None
    }

    fn handling_s(&self) -> f64 {
        match &self.body {
            Body::Carrier { handling_s, .. } | Body::Robot { handling_s, .. } => *handling_s,
            Body::Cell { config, .. } => config.handling_s,
        }
    }

    /// The end of the handling time: the load changes place, or does not.
    fn handle(&mut self, plan: &FloorPlan, job: &Job, loads: &mut Loads) -> Result<Option<Phase>, Reason> {
        if let (CommandCode::Start, Body::Cell { config, .. }) = (job.code, &self.body) {
            if loads.at(self.deck) != job.load {
                loads.pass(job.pos, self.deck, job.load)?;
            }
            return Ok(Some(Phase::Process { left_s: config.process_s * f64::from(job.program) }));
        }
        // What stands before a bay is in the way to it.
        let front = plan.view().position(job.pos).and_then(|p| p.front);
        if front.is_some_and(|f| loads.at(f).is_some()) {
            return Err(Reason::TargetOccupied);
        }
        match job.code {
            CommandCode::Place => loads.pass(self.deck, job.pos, job.load).map(|()| None),
            _ => loads.pass(job.pos, self.deck, job.load).map(|()| None),
        }
    }

    fn end(&mut self, result: Result<(), Reason>) -> Option<Result<(), Reason>> {
        self.job = None;
        if let (Err(_), Body::Robot { robot, .. }) = (result, &mut self.body) {
            robot.halt();
        }
        Some(result)
    }

    /// Motor current follows what it does, temperature follows the current.
    fn warm(&mut self, dt: f64, noise: f64) {
        let load = match self.job {
            None => 0.4,
            Some((_, Phase::Travel)) => 2.0 + 1.5 * self.speed().abs(),
            Some((_, Phase::Process { .. })) => 6.0,
            Some(_) => 3.0,
        };
        self.current_a = load * (1.0 + 0.05 * noise);
        let settles_at = 24.0 + 4.0 * load;
        self.temperature_c += (settles_at - self.temperature_c) * (dt / 120.0).min(1.0);
    }
}
