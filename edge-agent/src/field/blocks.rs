//! Command blocks that a device does not take: which machine's, and when all of them are taken again.

use super::FieldLine;
use crate::config::Role;
use crate::trouble::{Trouble, spoken};
use control_core::units::MachineId;
use device_drivers::BlockWrite;
use device_drivers::value::Cause;
use std::collections::BTreeSet;
use std::time::Instant;

/// Blocks that were not taken, and have not been since.
#[derive(Debug, Default)]
pub(super) struct NotTaken {
    machines: BTreeSet<MachineId>,
    /// A refusal is told of each machine, silence of the line.
    trouble: Trouble<(Option<MachineId>, Cause)>,
}

impl FieldLine {
    pub(super) fn blocks_are_taken(&mut self, blocks: &[BlockWrite]) {
        for block in blocks {
            self.not_taken.machines.remove(&block.machine);
        }
        if !self.not_taken.machines.is_empty() {
            return;
        }
        if let Some(after) = self.not_taken.trouble.is_over(Instant::now()) {
            tracing::info!(line = &*self.name, "all command blocks are taken again after {}", spoken(after));
        }
    }

    pub(super) fn blocks_are_not_taken(&mut self, blocks: &[BlockWrite], cause: Cause) {
        self.not_taken.machines.extend(blocks.iter().map(|b| b.machine));
        let first = blocks.first().map(|b| b.machine);
        let refused = first.filter(|_| matches!(cause, Cause::Exception(_) | Cause::Status(_)));
        if let Some(lasting) = self.not_taken.trouble.is((refused, cause), Instant::now()) {
            let (line, whose) = (&*self.name, self.machine_name(first));
            tracing::warn!(
                line,
                "the command block of {whose} was not taken, and is written again: {cause}; is `command` right in the profile?{lasting}"
            );
        }
    }

    /// The point with the status of a machine, as device and tag.
    fn machine_name(&self, machine: Option<MachineId>) -> String {
        let of_it = |role: Role| machine.is_some_and(|m| role == Role::Machine(m));
        let point = self.points.iter().find(|p| of_it(p.role));
        point.map_or("a machine".into(), |p| format!("{}/{}", self.device_name(p.device as usize), p.tag))
    }
}
