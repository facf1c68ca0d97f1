//! A machine's body: it travels, takes, works and puts. It knows nothing of sequences and tokens; that is [`crate::plc`].

use super::axis::Axis;
use super::loads::Loads;
use crate::config::{Carrier, CellConfig};
use control_core::image::{CommandCode, PackState, Reason};
use control_core::layout::{Layout, MachineKind, Place};
use control_core::units::{LoadId, MachineId, PosId};

/// What the machine was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What.
    pub code: CommandCode,
    /// Where.
    pub pos: PosId,
    /// With which load.
    pub load: LoadId,
    /// Program, for the cell.
    pub program: u16,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Travel,
    Handle { left_s: f64 },
    Process { left_s: f64 },
    Put { left_s: f64 },
}

/// What makes one kind of machine differ from another.
#[derive(Clone, Copy, Debug)]
enum Body {
    Carrier(Carrier),
    Cell(CellConfig),
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    kind: MachineKind,
    deck: PosId,
    body: Body,
    axis: Axis,
    job: Option<(Job, Phase)>,
    /// 1, or more when a fault makes it slow.
    drag: f64,
    breaks_down: bool,
    temperature_c: f64,
    current_a: f64,
}

impl Machine {
    /// A shuttle or the lift.
    pub fn carrier(layout: &Layout, id: MachineId, kind: MachineKind, body: Carrier) -> Machine {
        Machine::new(layout, id, kind, Body::Carrier(body), Axis::new(body.speed, body.acceleration, 0.0))
    }

    /// The robot cell.
    pub fn cell(layout: &Layout, id: MachineId, body: CellConfig) -> Machine {
        Machine::new(layout, id, MachineKind::Cell, Body::Cell(body), Axis::new(1.0, 1.0, 0.0))
    }

    fn new(layout: &Layout, id: MachineId, kind: MachineKind, body: Body, axis: Axis) -> Machine {
        let deck = layout.pos(Place::Deck(id));
        Machine {
            kind,
            deck,
            body,
            axis,
            job: None,
            drag: 1.0,
            breaks_down: false,
            temperature_c: 24.0,
            current_a: 0.4,
        }
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

    /// Axis position, metres.
    pub fn position(&self) -> f64 {
        self.axis.position()
    }

    /// Axis speed, metres per second.
    pub fn speed(&self) -> f64 {
        self.axis.speed()
    }

    /// Motor temperature, degrees Celsius.
    pub fn temperature_c(&self) -> f64 {
        self.temperature_c
    }

    /// Motor current, amperes.
    pub fn current_a(&self) -> f64 {
        self.current_a
    }

    /// Where on its axis a position is, metres; `None` when it does not serve it.
    fn stop_at(&self, layout: &Layout, pos: PosId) -> Option<f64> {
        let place = layout.place(pos)?;
        match (self.kind, self.body, place) {
            (MachineKind::Shuttle(tier), Body::Carrier(c), Place::Bay { tier: t, index }) if t == tier => {
                Some(1.0 + c.pitch * f64::from(index % layout.bays_per_side()))
            }
            (MachineKind::Shuttle(tier), _, Place::TransferIn(t) | Place::TransferOut(t)) if t == tier => Some(0.0),
            (MachineKind::Lift, Body::Carrier(c), Place::TransferIn(t) | Place::TransferOut(t)) => {
                Some(c.pitch * (1.0 + f64::from(t.0)))
            }
            (MachineKind::Lift, _, Place::Belt(..)) => Some(0.0),
            (MachineKind::Cell, _, Place::Belt(..)) if pos == control_core::cell::in_port(layout) => Some(0.0),
            _ => None,
        }
    }

    /// Whether it could do this at all.
    pub fn accepts(&self, layout: &Layout, job: &Job) -> Result<(), Reason> {
        let knows = match self.kind {
            MachineKind::Cell => job.code == CommandCode::Start,
            _ => matches!(job.code, CommandCode::Pick | CommandCode::Place),
        };
        if !knows {
            return Err(Reason::UnknownCode);
        }
        self.stop_at(layout, job.pos).map(|_| ()).ok_or(Reason::BadPosition)
    }

    /// Begins. The caller has asked [`Machine::accepts`].
    pub fn begin(&mut self, layout: &Layout, job: Job, drag: f64, breaks_down: bool) {
        if let Some(stop) = self.stop_at(layout, job.pos) {
            self.axis.go(stop);
        }
        self.drag = drag;
        self.breaks_down = breaks_down;
        self.job = Some((job, Phase::Travel));
    }

    /// Stops at once, wherever it is. What it carries it keeps.
    pub fn halt(&mut self) {
        self.axis.halt();
        self.job = None;
    }

    /// Moves on by `dt` seconds. Returns how the job ended, when it has.
    pub fn step(&mut self, dt: f64, layout: &Layout, loads: &mut Loads, noise: f64) -> Option<Result<(), Reason>> {
        self.warm(dt, noise);
        let (job, phase) = self.job?;
        let dt = dt / self.drag;
        let next = match phase {
            Phase::Travel => {
                if !self.axis.step(dt) {
                    return None;
                }
                if self.breaks_down {
                    return self.end(Err(Reason::DriveFault));
                }
                Phase::Handle { left_s: self.handling_s() }
            }
            Phase::Handle { left_s } if left_s > dt => Phase::Handle { left_s: left_s - dt },
            Phase::Handle { .. } => match self.handle(&job, loads) {
                Ok(Some(phase)) => phase,
                Ok(None) => return self.end(Ok(())),
                Err(why) => return self.end(Err(why)),
            },
            Phase::Process { left_s } if left_s > dt => Phase::Process { left_s: left_s - dt },
            Phase::Process { .. } => Phase::Put { left_s: self.handling_s() },
            Phase::Put { left_s } if left_s > dt => Phase::Put { left_s: left_s - dt },
            Phase::Put { .. } => {
                let out = control_core::cell::out_port(layout);
                match loads.pass(self.deck, out, Some(job.load)) {
                    Ok(()) => return self.end(Ok(())),
                    Err(_) => Phase::Put { left_s: 0.0 }, // the robot waits with the load in its gripper
                }
            }
        };
        self.job = Some((job, next));
        None
    }

    fn handling_s(&self) -> f64 {
        match self.body {
            Body::Carrier(c) => c.handling_s,
            Body::Cell(c) => c.handling_s,
        }
    }

    /// The end of the handling time: the load changes place, or does not.
    fn handle(&mut self, job: &Job, loads: &mut Loads) -> Result<Option<Phase>, Reason> {
        match (job.code, self.body) {
            (CommandCode::Place, _) => loads.pass(self.deck, job.pos, Some(job.load)).map(|()| None),
            (CommandCode::Start, Body::Cell(cell)) => {
                if loads.at(self.deck) != Some(job.load) {
                    loads.pass(job.pos, self.deck, Some(job.load))?;
                }
                Ok(Some(Phase::Process { left_s: cell.process_s * f64::from(job.program) }))
            }
            _ => loads.pass(job.pos, self.deck, Some(job.load)).map(|()| None),
        }
    }

    fn end(&mut self, result: Result<(), Reason>) -> Option<Result<(), Reason>> {
        self.job = None;
        Some(result)
    }

    /// Motor current follows what it does, temperature follows the current.
    fn warm(&mut self, dt: f64, noise: f64) {
        let load = match self.job {
            None => 0.4,
            Some((_, Phase::Travel)) => 2.0 + 1.5 * self.axis.speed().abs(),
            Some((_, Phase::Process { .. })) => 6.0,
            Some(_) => 3.0,
        };
        self.current_a = load * (1.0 + 0.05 * noise);
        let settles_at = 24.0 + 4.0 * load;
        self.temperature_c += (settles_at - self.temperature_c) * (dt / 120.0).min(1.0);
    }
}
