//! The program of a machine's controller: which command blocks it believes, and when it refuses (DESIGN section 4).
//!
//! ```text
//!  block complete?   no ─> ignored          commit == sequence and the CRC holds
//!  token             lower than the highest seen ─> ignored, counted
//!  sequence          not above the last seen ─> nothing new
//!  age               boot differs, or clock - issued > valid ─> EXPIRED
//!  mode, interlocks  not AUTO, open, no authority, busy, unknown ─> REJECTED (why)
//!                    else ─> executing ─> DONE / FAILED (why)
//! ```
//!
//! The words are read and written by code of its own, not by the driver's codec: two that agree prove more than one.

use crate::config::PlantConfig;
use crate::plant::{Job, Loads, Machine};
use control_core::image::{CommandCode, CommandResult, Mode, Path, Reason, Stand};
use control_core::interlock;
use control_core::units::{LoadId, PosId};
use device_drivers::block::{COMMAND_WORDS, STATUS_WORDS, command, status};
use floor_plan::FloorPlan;

/// What the controller remembers of commands, apart from what it reports.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Commands begun.
    pub executed: u64,
    /// Commands refused.
    pub refused: u64,
    /// Commands begun that had been executed before.
    pub doubles: u64,
    /// Blocks with a stale token.
    pub stale_tokens: u64,
    last_begun: Option<(u16, u32)>,
    last_done: Option<Job>,
}

/// One machine's controller.
#[derive(Clone, Debug)]
pub struct MachinePlc {
    memory: [u16; COMMAND_WORDS],
    boot: u16,
    time_s: f64,
    scans: u16,
    token: u32,
    last_beat: Option<u16>,
    beat_age_s: f64,
    owner_lost: bool,
    authority: bool,
    mode: Mode,
    auto_exits: u16,
    not_acknowledged: bool,
    seq_seen: u32,
    seq_done: u32,
    result: CommandResult,
    reason: Reason,
    done: u32,
    ledger: Ledger,
}

impl MachinePlc {
    /// A controller that has just started, in AUTO.
    pub fn new(boot: u16) -> MachinePlc {
        MachinePlc {
            memory: [0; COMMAND_WORDS],
            boot,
            time_s: 0.0,
            scans: 0,
            token: 0,
            last_beat: None,
            beat_age_s: 0.0,
            owner_lost: true,
            authority: false,
            mode: Mode::Auto,
            auto_exits: 0,
            not_acknowledged: false,
            seq_seen: 0,
            seq_done: 0,
            result: CommandResult::None,
            reason: Reason::None,
            done: 0,
            ledger: Ledger::default(),
        }
    }

    /// Its memory, as a client reads it back.
    pub fn memory(&self) -> &[u16] {
        &self.memory
    }

    /// A client writes; what does not fit is cut off.
    pub fn write(&mut self, offset: usize, words: &[u16]) {
        for (slot, word) in self.memory.iter_mut().skip(offset).zip(words) {
            *slot = *word;
        }
    }

    /// Commands done since the machine was built.
    pub fn done(&self) -> u32 {
        self.done
    }

    /// What it remembers apart from what it reports.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The key switch. Leaving AUTO ends what is being executed.
    pub fn set_mode(&mut self, mode: Mode, machine: &mut Machine) {
        if self.mode == Mode::Auto && mode != Mode::Auto {
            self.auto_exits = self.auto_exits.wrapping_add(1).max(1);
            self.not_acknowledged = true;
        }
        self.mode = mode;
        if mode != Mode::Auto && machine.job().is_some() {
            machine.halt();
            self.ended(Err(Reason::Aborted));
        }
    }

    /// A restart: memory empty, machine standing. The key switch and what hangs on it are retentive; the ledger belongs to
    /// the simulation and stays.
    pub fn reboot(&mut self, machine: &mut Machine) {
        machine.halt();
        let ledger = std::mem::take(&mut self.ledger);
        *self = MachinePlc {
            ledger,
            done: self.done,
            mode: self.mode,
            auto_exits: self.auto_exits,
            not_acknowledged: self.not_acknowledged,
            ..MachinePlc::new(self.boot.wrapping_add(1))
        };
    }

    fn time_ms(&self) -> u32 {
        (self.time_s * 1000.0) as u64 as u32
    }

    /// Whether the machine may move by itself, with no command.
    pub fn may_move(&self) -> bool {
        self.mode == Mode::Auto && self.authority && !self.owner_lost && !self.not_acknowledged
    }

    fn interlocks(&self, machine: &Machine) -> u16 {
        let blocked = if machine.is_stranded() { interlock::AXIS_BLOCKED } else { 0 };
        let stop = if self.mode == Mode::EmergencyStop { interlock::EMERGENCY_STOP } else { 0 };
        let unseen = if self.not_acknowledged { interlock::NOT_ACKNOWLEDGED } else { 0 };
        stop | unseen | blocked | if self.owner_lost { interlock::OWNER_LOST } else { 0 }
    }

    /// One scan: look at the memory, watch the owner's heartbeat.
    pub fn scan(
        &mut self,
        dt: f64,
        config: &PlantConfig,
        machine: &mut Machine,
        loads: &Loads,
        rng: &mut fastrand::Rng,
    ) {
        self.time_s += dt;
        self.scans = self.scans.wrapping_add(1);
        self.beat_age_s += dt;
        if let Some(block) = self.believed() {
            self.authority = block[command::FLAGS] & command::FLAG_AUTHORITY != 0;
            if self.last_beat != Some(block[command::HEARTBEAT]) {
                self.last_beat = Some(block[command::HEARTBEAT]);
                self.beat_age_s = 0.0;
                self.owner_lost = false;
            }
            if self.mode == Mode::Auto && block[command::ACKNOWLEDGED] == self.auto_exits {
                self.not_acknowledged = false;
            }
            let seq = double_word(&block, command::SEQ);
            if seq > self.seq_seen {
                self.seq_seen = seq;
                self.consider(&block, config, machine, loads, rng);
            }
        }
        // The watchdog counts real time: plant seconds may run faster.
        if self.beat_age_s > config.watchdog_s * config.speed.max(1.0) && !self.owner_lost {
            self.owner_lost = true;
            if machine.job().is_some() {
                machine.halt();
                self.ended(Err(Reason::OwnerLost));
            }
        }
    }

    /// The memory, if it holds a complete block of a rightful owner.
    fn believed(&mut self) -> Option<[u16; COMMAND_WORDS]> {
        let block = self.memory;
        let complete = double_word(&block, command::SEQ) == double_word(&block, command::COMMIT)
            && checksum(&block[..command::CRC]) == block[command::CRC];
        let token = double_word(&block, command::TOKEN);
        if !complete || token == 0 {
            return None;
        }
        if token < self.token {
            self.ledger.stale_tokens += 1;
            return None;
        }
        self.token = token;
        Some(block)
    }

    fn consider(
        &mut self,
        block: &[u16; COMMAND_WORDS],
        config: &PlantConfig,
        machine: &mut Machine,
        loads: &Loads,
        rng: &mut fastrand::Rng,
    ) {
        let age_ms = self.time_ms().wrapping_sub(double_word(block, command::ISSUED_MS));
        if block[command::BOOT] != self.boot || age_ms > u32::from(block[command::VALID_MS]) {
            return self.refuse(CommandResult::Expired, Reason::None);
        }
        let Some(job) = job_of(block) else { return self.refuse(CommandResult::Rejected, Reason::WrongLoad) };
        let objection = if self.mode != Mode::Auto {
            Some(Reason::NotAuto)
        } else if self.interlocks(machine) != 0 {
            Some(Reason::Interlocked)
        } else if !self.authority {
            Some(Reason::NoAuthority)
        } else if (machine.job().is_some() && !machine.takes_more(&job)) || rng.f64() < config.faults.reject {
            Some(Reason::Busy)
        } else {
            machine.accepts(&config.plan, &job).err()
        };
        if let Some(why) = objection {
            return self.refuse(CommandResult::Rejected, why);
        }
        self.note(&job, machine, loads);
        let drag = if rng.f64() < config.faults.slow { 3.0 } else { 1.0 };
        machine.begin(&config.plan, job, drag, rng.f64() < config.faults.drive_fault);
    }

    /// Keeps the truth: was this sequence, or this very motion, executed before?
    fn note(&mut self, job: &Job, machine: &Machine, loads: &Loads) {
        self.ledger.executed += 1;
        let this = (self.boot, self.seq_seen);
        let same_sequence = self.ledger.last_begun.is_some_and(|(boot, seq)| boot == this.0 && this.1 <= seq);
        self.ledger.last_begun = Some(this);
        let on_deck = job.load.is_some() && loads.at(machine.deck()) == job.load;
        let same_motion = self.ledger.last_done == Some(*job)
            && match job.code {
                CommandCode::Pick => on_deck,
                CommandCode::Place => !on_deck && loads.at(job.pos) == job.load,
                CommandCode::Start => !on_deck && loads.at(job.pos) != job.load,
                CommandCode::Move | CommandCode::Board | CommandCode::Drive | CommandCode::None => false,
            };
        self.ledger.doubles += u64::from(same_sequence || same_motion);
    }

    fn refuse(&mut self, result: CommandResult, why: Reason) {
        self.ledger.refused += 1;
        self.seq_done = self.seq_seen;
        (self.result, self.reason) = (result, why);
    }

    /// The machine has finished, or has had to give up.
    pub fn ended(&mut self, result: Result<(), Reason>) {
        self.seq_done = self.seq_seen;
        match result {
            Ok(()) => {
                self.done = self.done.wrapping_add(1);
                (self.result, self.reason) = (CommandResult::Done, Reason::None);
                self.ledger.last_done = self.job_in_memory();
            }
            Err(why) => (self.result, self.reason) = (CommandResult::Failed, why),
        }
    }

    fn job_in_memory(&self) -> Option<Job> {
        let same = double_word(&self.memory, command::SEQ) == self.seq_done;
        job_of(&self.memory).filter(|_| same)
    }

    /// The status block.
    pub fn status(&self, plan: &FloorPlan, machine: &Machine, deck: Option<LoadId>) -> [u16; STATUS_WORDS] {
        let mut w = [0u16; STATUS_WORDS];
        let long = |w: &mut [u16; STATUS_WORDS], at: usize, value: u32| {
            let [a, b, c, d] = value.to_be_bytes();
            w[at] = u16::from_be_bytes([a, b]);
            w[at + 1] = u16::from_be_bytes([c, d]);
        };
        let tenths = |v: f64| (v * 10.0).round().clamp(0.0, 65535.0) as u16;
        long(&mut w, status::TOKEN, self.token);
        w[status::HEARTBEAT] = self.scans;
        w[status::BOOT] = self.boot;
        long(&mut w, status::TIME_MS, self.time_ms());
        long(&mut w, status::SEQ_SEEN, self.seq_seen);
        long(&mut w, status::SEQ_DONE, self.seq_done);
        w[status::RESULT] = self.result.word();
        w[status::REASON] = self.reason.word();
        w[status::MODE] = self.mode.word();
        w[status::INTERLOCKS] = self.interlocks(machine);
        // A battery that is quite empty is a fault of its own.
        w[status::FAULT] = if machine.robot().is_some_and(|r| r.charge() <= 0.0) { 20 } else { 0 };
        w[status::STATE] = machine.state().word();
        long(&mut w, status::LOAD, LoadId::raw(deck));
        w[status::SPEED_MM_S] = ((machine.speed() * 1000.0).round() as i16) as u16;
        if let Some(robot) = machine.robot() {
            let centimetres = |v: f64| ((v * 100.0).round() as i16) as u16;
            let (x, y) = robot.position(plan);
            w[status::AT] = robot.says();
            w[status::CHARGE] = (robot.charge() * 1000.0).round() as u16;
            (w[status::X_CM], w[status::Y_CM]) = (centimetres(x), centimetres(y));
        } else {
            w[status::AT] = (machine.position() * 1000.0).round().clamp(0.0, 65535.0) as u16;
            w[status::TEMPERATURE_DC] = tenths(machine.temperature_c());
            w[status::CURRENT_DA] = tenths(machine.current_a());
            w[status::CYCLES] = match machine.stand() {
                Stand::Unknown => (self.done % 65_536) as u16,
                stand => stand_word(stand),
            };
        }
        w[status::AUTO_EXITS] = self.auto_exits;
        w
    }
}

/// What a block asks for; `None` when it names no load where one has to be named.
fn job_of(block: &[u16; COMMAND_WORDS]) -> Option<Job> {
    let code = CommandCode::from_word(block[command::CODE]);
    let nothing = Job { code, pos: PosId(0), load: None, program: 0, path: Path::default() };
    let pos = PosId(block[command::POS]);
    match code {
        CommandCode::Drive => {
            let places = command::PATH.iter().map(|at| block[*at]).take_while(|p| *p != command::NO_PLACE);
            Some(Job { path: Path::of(places), ..nothing })
        }
        CommandCode::Move => Some(Job { pos, ..nothing }),
        CommandCode::Board => Some(Job { pos, program: block[command::PROGRAM], ..nothing }),
        _ => {
            let load = Some(LoadId::new(double_word(block, command::LOAD))?);
            Some(Job { pos, load, program: block[command::PROGRAM], ..nothing })
        }
    }
}

fn stand_word(stand: Stand) -> u16 {
    let (tier, lift) = match stand {
        Stand::Unknown => (0, 0),
        Stand::Tier(tier) => (tier, 0),
        Stand::Lift(lift) => (0, lift),
        Stand::Between(tier, lift) => (tier, lift),
    };
    u16::from(lift) * 256 + u16::from(tier)
}

fn double_word(block: &[u16; COMMAND_WORDS], at: usize) -> u32 {
    u32::from(block[at]) * 65_536 + u32::from(block[at + 1])
}

/// CRC-16/MODBUS, bit by bit over the words as bytes.
fn checksum(words: &[u16]) -> u16 {
    let mut crc: u16 = 0xFFFF;
    for word in words {
        for byte in [word >> 8, word & 0xFF] {
            crc ^= byte;
            for _ in 0..8 {
                let carry = crc & 1;
                crc >>= 1;
                if carry == 1 {
                    crc ^= 0xA001;
                }
            }
        }
    }
    crc
}
