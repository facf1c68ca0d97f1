//! What machines report of their commands, and what follows from it.
//!
//! Done moves the belief. Anything else does not guess: the machine says what it carries, belief follows, the order's next
//! leg is derived anew. Only what is the order's own fault counts against it.

use crate::command::Outcome;
use crate::cycle::Controller;
use crate::event::{EventKind, Events, OrderFault};
use crate::image::{Command, CommandCode, InputImage, MachineStatus, Reason};
use crate::layout::Place;
use crate::limits::ATTEMPTS_MAX;
use crate::units::{MachineId, Millis};

impl Controller {
    /// Reads back every command in flight and draws the consequences of those that have ended.
    pub(crate) fn read_back(&mut self, now: Millis, image: &InputImage, events: &mut Events) {
        for id in self.layout.machine_ids() {
            let seen = image.machine(id);
            let Some(status) = seen.fresh(now, self.settings.stale_ms) else { continue };
            if status.token != self.token {
                continue; // what it shows was not said to us
            }
            let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { continue };
            let ended = machine.link.observe(status, image.written(id));
            let task = machine.task;

            if id == self.layout.cell()
                && let Some(task) = task
                && status.load == Some(task.load)
                && self.stock.at(task.source) == Some(task.load)
            {
                let deck = self.layout.pos(Place::Deck(id));
                self.move_load(task.load, Some(task.source), Some(deck), now);
            }
            if let Some((command, outcome)) = ended {
                events.push(now, EventKind::CommandEnded { machine: id, seq: command.seq, outcome });
                self.conclude(now, id, &command, outcome, status, events);
            }
        }
    }

    fn conclude(
        &mut self,
        now: Millis,
        id: MachineId,
        command: &Command,
        outcome: Outcome,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        let deck = self.layout.pos(Place::Deck(id));
        match outcome {
            Outcome::Done => self.counters.commands_done += 1,
            Outcome::Expired => self.counters.commands_expired += 1,
            Outcome::Failed(_) | Outcome::Rejected(_) => self.counters.commands_failed += 1,
        }
        let Some(machine) = self.machines.get_mut(usize::from(id.0)) else { return };
        machine.near = Some(command.pos);
        let Some(task) = machine.task else { return };

        if outcome == Outcome::Done {
            match command.code {
                CommandCode::Pick => self.move_load(task.load, Some(command.pos), Some(deck), now),
                CommandCode::Place => self.move_load(task.load, Some(deck), Some(command.pos), now),
                CommandCode::Start => {
                    let from = if self.stock.at(deck) == Some(task.load) { deck } else { task.source };
                    self.move_load(task.load, Some(from), Some(task.target), now);
                    if let Some(order) = self.orders.by_load(task.load) {
                        order.processed = true;
                    }
                }
                CommandCode::None => {}
            }
            if command.code != CommandCode::Pick {
                self.end_task(id);
            }
            return;
        }

        // Not done. The machine says what it carries; belief follows, and the next leg is derived anew.
        match (status.load, self.stock.at(deck)) {
            (Some(load), None) if load == task.load => self.move_load(load, Some(task.source), Some(deck), now),
            (None, Some(load)) => self.move_load(load, Some(deck), None, now),
            _ => {}
        }
        self.end_task(id);
        let own_fault = !matches!(
            outcome,
            Outcome::Expired
                | Outcome::Failed(Reason::OwnerLost | Reason::Aborted)
                | Outcome::Rejected(
                    Reason::Busy | Reason::NotAuto | Reason::Interlocked | Reason::NoAuthority | Reason::BadBlock
                )
        );
        let Some(order) = self.orders.by_load(task.load) else { return };
        order.attempts = order.attempts.saturating_add(u8::from(own_fault));
        order.retry_at = now.plus(500 << order.attempts.min(ATTEMPTS_MAX));
        if order.attempts >= ATTEMPTS_MAX {
            let order = order.request.id;
            self.fail(now, order, OrderFault::TooManyAttempts, events);
        }
    }

    pub(crate) fn end_task(&mut self, id: MachineId) {
        if let Some(machine) = self.machines.get_mut(usize::from(id.0))
            && let Some(task) = machine.task.take()
        {
            let home = self.orders.by_load(task.load).and_then(|o| o.home);
            if home != Some(task.target) {
                self.stock.release(task.target, task.load);
            }
        }
    }
}
