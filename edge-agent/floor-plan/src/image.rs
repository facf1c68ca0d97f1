//! The process image as its keeper holds it: what was read and what is to be written, with memory of its own.

use control_core::image::{Command, InputImage, MachineStatus, OutputImage, Quality, Stamped};
use control_core::units::{LoadId, MachineId, Millis, PosId};

/// All that is known of the plant.
#[derive(Clone, Debug, Default)]
pub struct InputBuffer {
    machines: Vec<Stamped<MachineStatus>>,
    written: Vec<u32>,
    positions: Vec<Stamped<Option<LoadId>>>,
}

impl InputBuffer {
    /// For so many machines and positions; nothing is known yet.
    pub fn new(machines: usize, positions: usize) -> InputBuffer {
        InputBuffer {
            machines: vec![Stamped::default(); machines],
            written: vec![0; machines],
            positions: vec![Stamped::default(); positions],
        }
    }

    /// As the core reads it.
    pub fn view(&self) -> InputImage<'_> {
        InputImage { machines: &self.machines, written: &self.written, positions: &self.positions }
    }

    /// Puts a machine's status; a number beyond the end is ignored. A status whose controller's clock stands still is no
    /// news: it keeps the time of the first one, and grows old. A controller whose program has stopped often goes on answering.
    pub fn set_machine(&mut self, id: MachineId, status: Stamped<MachineStatus>) {
        if let Some(slot) = self.machines.get_mut(usize::from(id.0)) {
            let (old, new) = (&slot.value, &status.value);
            let alive = (old.boot, old.plc_time_ms, old.heartbeat) != (new.boot, new.plc_time_ms, new.heartbeat);
            let at = if alive || slot.at == Millis::default() { status.at } else { slot.at };
            *slot = Stamped { at, ..status };
        }
    }

    /// Notes an acknowledged write.
    pub fn set_written(&mut self, id: MachineId, seq: u32) {
        if let Some(slot) = self.written.get_mut(usize::from(id.0)) {
            *slot = seq;
        }
    }

    /// Puts a sensor's value; a number beyond the end is ignored.
    pub fn set_position(&mut self, pos: PosId, load: Stamped<Option<LoadId>>) {
        if let Some(slot) = self.positions.get_mut(usize::from(pos.0)) {
            *slot = load;
        }
    }

    /// Marks a machine as out of sight, its last status kept.
    pub fn degrade_machine(&mut self, id: MachineId, quality: Quality) {
        if let Some(slot) = self.machines.get_mut(usize::from(id.0)) {
            slot.quality = quality;
        }
    }

    /// Marks a position as out of sight, its last value kept.
    pub fn degrade_position(&mut self, pos: PosId, quality: Quality) {
        if let Some(slot) = self.positions.get_mut(usize::from(pos.0)) {
            slot.quality = quality;
        }
    }

    /// Takes over another one of the same size, without asking for memory.
    pub fn copy_from(&mut self, other: &InputBuffer) {
        self.machines.clone_from(&other.machines);
        self.written.clone_from(&other.written);
        self.positions.clone_from(&other.positions);
    }
}

/// What is wanted of some machines of the plant.
#[derive(Clone, Debug, Default)]
pub struct OutputBuffer {
    /// Number of the cycle that made it.
    pub cycle: u64,
    /// Advances once per completed cycle.
    pub heartbeat: u16,
    /// Owner token.
    pub token: u32,
    /// Whether machines may act on what stands here.
    pub authority: bool,
    /// Whether anything may be written at all.
    pub write: bool,
    machines: Vec<MachineId>,
    commands: Vec<Option<Command>>,
    acknowledged: Vec<u16>,
}

impl OutputBuffer {
    /// For these machines.
    pub fn new(machines: &[MachineId]) -> OutputBuffer {
        OutputBuffer {
            machines: machines.to_vec(),
            commands: vec![None; machines.len()],
            acknowledged: vec![0; machines.len()],
            ..OutputBuffer::default()
        }
    }

    /// Takes over what the controller wants of these machines. Asks for no memory.
    pub fn fill(&mut self, image: &OutputImage<'_>) {
        (self.cycle, self.heartbeat, self.token) = (image.cycle, image.heartbeat, image.token);
        (self.authority, self.write) = (image.authority, image.write);
        for ((id, command), acknowledged) in self.machines.iter().zip(&mut self.commands).zip(&mut self.acknowledged) {
            (*command, *acknowledged) = (image.command(*id), image.acknowledged(*id));
        }
    }

    fn slot(&self, id: MachineId) -> Option<usize> {
        // Machines of a line are few, or numbered in one piece.
        let guess = usize::from(id.0.wrapping_sub(self.machines.first()?.0));
        if self.machines.get(guess) == Some(&id) { Some(guess) } else { self.machines.iter().position(|m| *m == id) }
    }

    /// The last command of a machine.
    pub fn command(&self, id: MachineId) -> Option<Command> {
        self.commands.get(self.slot(id)?).copied().flatten()
    }

    /// Which leaving of AUTO a person has acknowledged; 0 for none.
    pub fn acknowledged(&self, id: MachineId) -> u16 {
        self.slot(id).and_then(|n| self.acknowledged.get(n)).copied().unwrap_or(0)
    }
}
