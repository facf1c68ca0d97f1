//! Acting: free machines are given a leg, and machines with a leg their next command.

use crate::cycle::Controller;
use crate::dispatch::{self, Candidates};
use crate::event::{EventKind, Events, RunState};
use crate::image::{CommandCode, InputImage, MachineStatus};
use crate::layout::{MachineKind, Place};
use crate::units::{MachineId, Millis, PosId};

impl Controller {
    /// Gives free machines a leg, and machines with a leg their next command.
    pub(crate) fn act(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        let may_start = self.run == RunState::Running;
        let mut candidates = Candidates::new();
        if may_start {
            let legs = self
                .orders
                .iter()
                .filter(|o| !o.withdrawn)
                .filter_map(|o| dispatch::candidate(&self.layout, &self.stock, o, now));
            for c in legs {
                if dispatch::sensors_agree(&self.layout, image, now, self.settings.position_stale_ms, &c.task) {
                    let _ = candidates.push(c); // as many places as orders
                }
            }
        }
        for id in self.layout.machine_ids() {
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            if machine.hold.is_some() || machine.link.busy() {
                continue;
            }
            let status = image.machine(id).value;
            if machine.task.is_none() && may_start && !self.draining {
                let near = machine.near.unwrap_or(PosId(0));
                let Some(task) = dispatch::choose(&self.layout, id, near, &status, &candidates) else { continue };
                if !self.stock.free_for(task.target, task.load) {
                    continue; // taken by a machine earlier in this very cycle
                }
                self.stock.reserve(task.target, task.load);
                machine.task = Some(task);
                if let Some(order) = self.orders.by_load(task.load)
                    && !order.started
                {
                    order.started = true;
                    events.push(now, EventKind::OrderStarted(task.order));
                }
            }
            if may_start || self.draining {
                self.command(now, id, &status, events);
            }
        }
    }

    /// Makes the command that brings a machine's leg on.
    fn command(&mut self, now: Millis, id: MachineId, status: &MachineStatus, events: &mut Events) {
        let deck = self.layout.pos(Place::Deck(id));
        let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { return };
        let Some(task) = machine.task else { return };
        let (code, pos) = match self.layout.kind(id) {
            Some(MachineKind::Cell) => (CommandCode::Start, crate::cell::in_port(&self.layout)),
            _ if self.stock.at(deck) == Some(task.load) => (CommandCode::Place, task.target),
            _ if self.draining => {
                self.end_task(id);
                return;
            }
            _ => (CommandCode::Pick, task.source),
        };
        let command = machine.link.issue(status, code, pos, task.load, task.program, self.settings.valid_ms);
        if let Some(slot) = self.commands.get_mut(usize::from(id.0)) {
            *slot = Some(command);
        }
        self.counters.commands_sent += 1;
        events.push(now, EventKind::CommandIssued { machine: id, seq: command.seq, code, pos, load: task.load });
    }
}
