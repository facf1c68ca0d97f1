//! A bank as a Modbus device: its units, its counters, and the faults that are on.
//!
//! ```text
//!   request ──> treatment (what becomes of it) ──> answer ──> a Unit at this Moment, under the unit's lock
//!                   └──────── script + seed ──────────┘
//! ```

use super::script::{FaultScript, Kind};
use super::signal::{Beat, RATE_MIN};
use super::units::{Moment, Overlay, STAMP_WORDS, Unit};
use crate::modbus::{Device, Exception, Treatment, no_such_unit, refuse};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The shape of a bank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The number of the first unit.
    pub first_unit: u8,
    /// How many units.
    pub units: u16,
    /// Holding registers, input registers, coils and discrete inputs, each so many.
    pub registers: u16,
    /// How often the values change.
    pub rate: Duration,
}

/// What one unit has been asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnitCounters {
    /// Requests, answered or not.
    pub requests: u64,
    /// Writes that were done.
    pub writes: u64,
    /// Requests that were refused.
    pub exceptions: u64,
}

/// What a bank has done; the report at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Requests to units of the bank, answered or not.
    pub requests: u64,
    /// Writes that were done.
    pub writes: u64,
    /// Requests that were refused, those for units that are not there among them.
    pub exceptions: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
}

/// A bank without a socket, for [`crate::modbus::converse`] on any stream.
#[derive(Debug)]
pub struct BankDevice {
    shape: Shape,
    beat: Beat,
    units: Vec<Slot>,
    script: watch::Sender<Armed>,
    /// Whether the script has any fault at all: most have none, and then nothing is looked up.
    faulty: AtomicBool,
    chance: Mutex<fastrand::Rng>,
    kicks: watch::Sender<u64>,
    exceptions_elsewhere: AtomicU64,
    connections: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) since: Instant,
    pub(super) script: FaultScript,
}

#[derive(Debug, Default)]
struct Slot {
    overlay: Mutex<Overlay>,
    requests: AtomicU64,
    writes: AtomicU64,
    exceptions: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BankDevice {
    /// A bank whose first tick begins now.
    pub fn new(shape: Shape, faults: FaultScript) -> Result<BankDevice, String> {
        let last = u16::from(shape.first_unit) + shape.units;
        if shape.units == 0 || last > 256 {
            return Err(format!("{} units from {} on: units are numbered to 255", shape.units, shape.first_unit));
        }
        if shape.registers == 0 || shape.registers > u16::MAX - STAMP_WORDS {
            return Err(format!("registers = {} must be 1 to {}", shape.registers, u16::MAX - STAMP_WORDS));
        }
        if shape.rate < RATE_MIN {
            return Err(format!("rate = {:?} must be {RATE_MIN:?} at least", shape.rate));
        }
        let device = BankDevice {
            shape,
            beat: Beat::start(shape.rate),
            units: (0..shape.units).map(|_| Slot::default()).collect(),
            script: watch::Sender::new(Armed { since: Instant::now(), script: FaultScript::default() }),
            faulty: AtomicBool::new(false),
            chance: Mutex::new(fastrand::Rng::with_seed(0)),
            kicks: watch::Sender::new(0),
            exceptions_elsewhere: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        };
        device.set_faults(faults)?;
        Ok(device)
    }

    /// Another script, from now on; chances start from its seed. Faults of OPC UA are refused.
    pub fn set_faults(&self, script: FaultScript) -> Result<(), String> {
        if let Some(fault) = script.faults.iter().find(|f| f.kind.is_opcua()) {
            return Err(format!("{:?} is no fault of a Modbus bank", fault.kind));
        }
        *lock(&self.chance) = fastrand::Rng::with_seed(script.seed);
        let faulty = !script.faults.is_empty();
        self.script.send_replace(Armed { since: Instant::now(), script });
        self.faulty.store(faulty, Ordering::Release);
        Ok(())
    }

    /// The tick it is at.
    pub fn tick(&self) -> u64 {
        self.beat.tick(Instant::now())
    }

    /// What a unit has been asked.
    pub fn counters(&self, unit: u8) -> Option<UnitCounters> {
        self.slot(unit).map(Slot::counters)
    }

    /// What the bank has done so far.
    pub fn report(&self) -> Report {
        let mut report = Report {
            exceptions: self.exceptions_elsewhere.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            ..Report::default()
        };
        for unit in self.units.iter().map(Slot::counters) {
            report.requests += unit.requests;
            report.writes += unit.writes;
            report.exceptions += unit.exceptions;
        }
        report
    }

    pub(super) fn script(&self) -> watch::Receiver<Armed> {
        self.script.subscribe()
    }

    /// Forgets what was written to the units a fault concerns, and closes all connections.
    pub(super) fn reboot(&self, concerns: impl Fn(u8) -> bool) {
        for (unit, slot) in (self.shape.first_unit..=u8::MAX).zip(&self.units).filter(|(unit, _)| concerns(*unit)) {
            tracing::debug!("unit {unit} reboots");
            *lock(&slot.overlay) = Overlay::default();
        }
        self.kicks.send_modify(|kicks| *kicks += 1);
    }

    fn slot(&self, unit: u8) -> Option<&Slot> {
        self.units.get(usize::from(unit.checked_sub(self.shape.first_unit)?))
    }

    /// The faults that are on for a unit and whose chance has come, in the order of the script.
    fn faults(&self, unit: u8, wanted: impl Fn(&Kind) -> bool) -> Vec<Kind> {
        if !self.faulty.load(Ordering::Acquire) {
            return Vec::new(); // which does not allocate
        }
        let armed = self.script.borrow();
        let since = armed.since.elapsed();
        let on = armed.script.faults.iter().filter(|f| wanted(&f.kind) && f.is_on(since) && f.concerns(unit));
        on.filter(|f| f.probability >= 1.0 || lock(&self.chance).f64() < f.probability).map(|f| f.kind).collect()
    }

    fn execute(&self, slot: &Slot, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let function = pdu.first().copied().unwrap_or_default();
        let faults = self.faults(unit, Kind::is_of_the_unit);
        let refusal = faults.iter().find_map(|kind| match kind {
            Kind::Exception { code } => Some(Exception(*code)),
            Kind::Busy => Some(Exception::BUSY),
            _ => None,
        });
        if let Some(exception) = refusal {
            refuse(function, exception, out);
        } else {
            let tick = self.tick();
            let moment = Moment { tick, began_ms: self.beat.began_ms(tick) };
            let mut overlay = lock(&slot.overlay);
            let registers = self.shape.registers;
            let mut space = Unit { number: unit, registers, moment, overlay: &mut overlay, faults: &faults };
            crate::modbus::answer(&mut space, pdu, out);
        }
        let refused = out.get(start).is_some_and(|function| function & 0x80 != 0);
        slot.requests.fetch_add(1, Ordering::Relaxed);
        if refused {
            slot.exceptions.fetch_add(1, Ordering::Relaxed);
        } else if matches!(function, 5 | 6 | 15 | 16 | 22 | 23) {
            slot.writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Slot {
    fn counters(&self) -> UnitCounters {
        UnitCounters {
            requests: self.requests.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            exceptions: self.exceptions.load(Ordering::Relaxed),
        }
    }
}

impl Device for BankDevice {
    fn has(&self, unit: u8) -> bool {
        self.slot(unit).is_some()
    }

    fn answer(&self, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        match self.slot(unit) {
            Some(slot) => self.execute(slot, unit, pdu, out),
            None => {
                no_such_unit(pdu, out);
                self.exceptions_elsewhere.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn broadcast(&self, pdu: &[u8]) {
        let mut unheard = Vec::new();
        for (unit, slot) in (self.shape.first_unit..=u8::MAX).zip(&self.units) {
            unheard.clear();
            self.execute(slot, unit, pdu, &mut unheard);
        }
    }

    fn treatment(&self, unit: u8) -> Treatment {
        let mut treatment = Treatment::default();
        for kind in self.faults(unit, |kind| !kind.is_of_the_unit()) {
            match kind {
                Kind::Silent => treatment.silent = true,
                Kind::Slow { delay } | Kind::Late { delay } => treatment.delay = Some(delay),
                Kind::Duplicate => treatment.duplicate = true,
                Kind::Reorder => treatment.reorder = true,
                Kind::WrongTransaction => treatment.wrong_transaction = true,
                Kind::Reset => treatment.reset = true,
                Kind::HalfOpen => treatment.half_open = true,
                Kind::Trickle => treatment.trickle = true,
                Kind::WrongLength => treatment.wrong_length = true,
                Kind::WrongUnit => treatment.wrong_unit = true,
                Kind::WrongFunction => treatment.wrong_function = true,
                Kind::Garbage => treatment.garbage = Some(std::array::from_fn(|_| lock(&self.chance).u8(..))),
                _ => {}
            }
        }
        if (treatment.silent || treatment.half_open || treatment.reset)
            && let Some(slot) = self.slot(unit)
        {
            slot.requests.fetch_add(1, Ordering::Relaxed);
        }
        treatment
    }

    fn welcomes(&self) -> bool {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.faults(0, |kind| *kind == Kind::Refuse).is_empty()
    }

    fn kicked(&self) -> impl Future<Output = ()> + Send {
        let mut kicks = self.kicks.subscribe();
        async move {
            let _ = kicks.changed().await;
        }
    }

    fn carried(&self, received: usize, sent: usize) {
        self.received.fetch_add(received as u64, Ordering::Relaxed);
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }
}
