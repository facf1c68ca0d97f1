//! What machines report of their commands, and what follows from it.
//!
//! Done moves the belief. Anything else does not guess: the machine says what it carries, belief follows, the order's next
//! leg is derived anew. Only what is the order's own fault counts against it.

use crate::command::Outcome;
use crate::cycle::Controller;
use crate::event::{EventKind, Events, OrderFault};
use crate::floor::{Floor, MachineKind};
use crate::image::{Command, CommandCode, InputImage, MachineStatus, Reason};
use crate::limits::ATTEMPTS_MAX;
use crate::units::{MachineId, Millis};

impl Controller<'_> {
    /// Reads back every command in flight and draws the consequences of those that have ended.
    pub(crate) fn read_back(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        for id in floor.machine_ids() {
            let seen = image.machine(id);
            let Some(status) = seen.fresh(now, self.settings.stale_ms) else { continue };
            if status.token != self.token || !self.machine(id).handshaken {
                continue; // what it shows was not said to us
            }
            let mut ended = None;
            self.with(id, |m| ended = m.link.observe(status, image.written(id)));
            let task = self.machine(id).task;

            // A station has taken the load in, which it will show for as long as it works on it.
            if let Some(MachineKind::Station(_)) = Self::kind(floor, id)
                && let Some(task) = task
                && status.load == Some(task.load)
                && self.stock.at(task.source) == Some(task.load)
            {
                self.move_load(floor, task.load, Some(Self::deck(floor, id)), now);
            }
            if let Some((command, outcome)) = ended {
                if command.code != CommandCode::Drive || outcome != Outcome::Done {
                    events.push(now, EventKind::CommandEnded { machine: id, seq: command.seq, outcome });
                }
                self.conclude(now, floor, id, &command, outcome, status, events);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // what has ended, and where
    fn conclude(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        command: &Command,
        outcome: Outcome,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        match outcome {
            Outcome::Done => self.counters.commands_done += 1,
            Outcome::Expired => self.counters.commands_expired += 1,
            Outcome::Failed(_) | Outcome::Rejected(_) => self.counters.commands_failed += 1,
        }
        self.with(id, |m| m.idle_until = now);
        let deck = Self::deck(floor, id);
        if matches!(command.code, CommandCode::Drive | CommandCode::Move | CommandCode::Board | CommandCode::None) {
            if outcome != Outcome::Done {
                self.ride_step_failed(floor, id, now);
            }
            return self.fleet.drive_ended(id, outcome, now);
        }
        let Some(task) = self.machine(id).task else { return };

        if outcome == Outcome::Done {
            match command.code {
                CommandCode::Pick => {
                    self.move_load(floor, task.load, Some(deck), now);
                    if matches!(Self::kind(floor, id), Some(MachineKind::Lift { .. }))
                        && let Some(order) = self.orders.by_load(&self.stock.loads, task.load)
                        && order.request.sequence.take().is_some()
                    {
                        self.sequence.look_again(); // it has left the rack
                    }
                }
                CommandCode::Place | CommandCode::Start => {
                    self.end_task(floor, id);
                    self.move_load(floor, task.load, Some(task.target), now);
                    self.with(id, |m| m.stored = floor.is_bay(task.target));
                    self.settle_load(now, floor, task.load, events);
                }
                _ => {}
            }
            return;
        }

        // Not done. The machine says what it carries; belief follows, and the next leg is derived anew.
        match (status.load, self.stock.at(deck)) {
            (Some(load), None) if load == task.load => self.move_load(floor, load, Some(deck), now),
            (None, Some(load)) => self.move_load(floor, load, None, now),
            _ => {}
        }
        self.end_task(floor, id);
        let own_fault = !matches!(
            outcome,
            Outcome::Expired
                | Outcome::Failed(Reason::OwnerLost | Reason::Aborted)
                | Outcome::Rejected(
                    Reason::Busy | Reason::NotAuto | Reason::Interlocked | Reason::NoAuthority | Reason::BadBlock
                )
        );
        let Some(slot) = self.stock.loads.order(task.load) else { return };
        let Some(order) = self.orders.slot_mut(slot) else { return };
        order.attempts = order.attempts.saturating_add(u8::from(own_fault));
        order.retry_at = now.plus(500 << order.attempts.min(ATTEMPTS_MAX));
        if order.attempts >= ATTEMPTS_MAX {
            self.fail(now, floor, slot, OrderFault::TooManyAttempts, events);
        }
    }

    /// A machine's leg has ended, or is given up: what was promised for it is free again.
    pub(crate) fn end_task(&mut self, floor: &Floor<'_>, id: MachineId) {
        let mut ended = None;
        self.with(id, |m| ended = m.task.take());
        let Some(task) = ended else { return };
        self.stock.touch(task.source, false);
        self.stock.touch(task.target, false);
        let order = self.orders.by_load(&self.stock.loads, task.load);
        let home = order.as_ref().and_then(|o| o.home);
        if let Some(order) = order {
            order.under_way = false;
        }
        if home != Some(task.target) {
            self.stock.release(floor, task.target, task.load);
        }
    }
}
