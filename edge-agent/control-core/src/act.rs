//! Acting: free machines are given a leg, and machines with a leg their next command.

use crate::cycle::Controller;
use crate::dispatch::{self, Candidate, Task};
use crate::event::{EventKind, Events, RunState};
use crate::floor::{Floor, MachineKind, Mover, ZoneKind};
use crate::image::{Command, CommandCode, InputImage, MachineStatus};
use crate::limits::SCAN;
use crate::mast;
use crate::order::{Goal, Order};
use crate::rack::{choose, tier};
use crate::ride::Ridden;
use crate::units::{LoadId, MachineId, Millis, PosId, ZoneId};

/// A machine that found nothing to do looks again after this, milliseconds.
const LOOK_AGAIN_MS: u64 = 20;

impl Controller<'_> {
    /// Gives free machines a leg, and machines with a leg their next command.
    pub(crate) fn act(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, events: &mut Events) {
        self.sequence.find(&self.orders);
        let may_start = self.run == RunState::Running;
        for id in floor.machine_ids() {
            let Some(info) = floor.machine(id) else { continue };
            let rides = self.is_known(info.domain) && self.ride(now, floor, image, id, events);
            let machine = self.machine(id);
            if rides || machine.hold.is_some() || machine.link.busy() || matches!(self.run, RunState::Safe) {
                continue;
            }
            // A domain that is read again stands still, those of its machines too that have not started anew.
            if matches!(info.kind, MachineKind::Robot { .. }) || !self.is_known(info.domain) {
                continue;
            }
            let status = image.machine(id).value;
            match self.is_ridden(floor, id) {
                Some(Ridden::StandsOnIt) => continue,
                Some(Ridden::Kept) if machine.task.is_none() && status.load.is_none() => continue,
                _ => {}
            }
            let wanted = |m| self.wanted(floor, image, m);
            let gives_way = machine.task.is_none() && mast::make_way(floor, image, id, wanted).is_some();
            if machine.task.is_none() && !gives_way && may_start && !self.draining && now >= machine.idle_until {
                match self.choose(now, floor, image, id, &status) {
                    Some(task) => self.start_task(now, floor, id, task, events),
                    None => self.with(id, |m| m.idle_until = now.plus(LOOK_AGAIN_MS)),
                }
            }
            if may_start || self.draining {
                self.command(now, floor, image, id, &status, events);
            }
        }
        self.drive(now, floor, image, events);
    }

    /// Puts a machine to a leg; its target is promised from now on.
    pub(crate) fn start_task(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        id: MachineId,
        task: Task,
        events: &mut Events,
    ) {
        self.stock.promise(floor, task.target, task.load);
        self.stock.touch(task.source, true);
        self.stock.touch(task.target, true);
        self.with(id, |m| m.task = Some(task));
        if let Some(order) = self.orders.slot_mut(task.slot) {
            (order.under_way, order.carrier) = (true, Some(id));
            if !core::mem::replace(&mut order.started, true) {
                events.push(now, EventKind::OrderStarted(task.order));
            }
            events.push(now, EventKind::LegBegun { id: task.order, from: task.source, to: task.target });
        }
    }

    /// The leg a machine takes next. A load on its own deck comes before everything.
    fn choose(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        status: &MachineStatus,
    ) -> Option<Task> {
        if let Some(carried) = status.load {
            let slot = self.stock.loads.order(carried)?;
            let candidate = dispatch::candidate(floor, &self.stock, slot, self.orders.slot(slot)?, now)?;
            let fits =
                self.can_do(floor, id, candidate.by, &candidate.task) && candidate.task.source == Self::deck(floor, id);
            return Some(candidate.task).filter(|t| fits && self.may_start(now, floor, image, t));
        }
        let mut found: heapless::Vec<Candidate, SCAN> = heapless::Vec::new();
        let machine = self.machine(id);
        for zone in self.sources_now(floor, id) {
            let fits = |c: &Candidate| self.can_do(floor, id, c.by, &c.task);
            self.gather(now, floor, image, id, zone, &fits, &mut found);
        }
        if self.ask_for_ride(now, floor, image, id, &found) {
            return None;
        }
        // In and out by turns: who has just put something into a bay brings something out, if there is anything.
        let brings_out = |c: &Candidate| floor.is_bay(c.task.source);
        if machine.stored && found.iter().any(brings_out) {
            found.retain(brings_out);
        }
        let info = floor.machine(id)?;
        let options = found.iter().map(|c| choose::Candidate {
            class: c.class,
            rank: c.urgency,
            from_mm: floor.stop_mm(id, c.task.source),
            to_mm: floor.stop_mm(id, c.task.target),
        });
        let best = found.get(choose::choose(info.axis, u32::from(status.at), options)?)?;
        Some(self.nearer_tier(now, floor, image, id, best.task))
    }

    /// What a machine could take from one zone: of bays any, of a lane what is at its end.
    #[allow(clippy::too_many_arguments)] // from where, for whom, and into what
    pub(crate) fn gather(
        &self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        zone: ZoneId,
        fits: &dyn Fn(&Candidate) -> bool,
        found: &mut heapless::Vec<Candidate, SCAN>,
    ) {
        let Some(info) = floor.zone(zone) else { return };
        if !self.is_known(info.domain) {
            return;
        }
        let mut consider = |slot: u16, order: &Order| {
            if !self.in_turn(floor, id, info.kind, zone, order) {
                return;
            }
            let may = |c: &Candidate| fits(c) && self.may_start(now, floor, image, &c.task);
            if let Some(candidate) = dispatch::candidate(floor, &self.stock, slot, order, now).filter(may) {
                let _ = found.push(candidate); // as many as are looked at
            }
        };
        if info.kind == ZoneKind::Lane {
            let load = self.stock.at(info.exit());
            let slot = load.and_then(|l| self.stock.loads.order(l));
            if let Some((slot, order)) = slot.and_then(|s| Some((s, self.orders.slot(s)?))) {
                consider(slot, order);
            }
            return;
        }
        for (slot, order) in self.orders.in_zone(zone).take(SCAN) {
            consider(slot, order);
        }
    }

    /// Whether it is an order's turn: what it waits for has ended, and the sequence lets it come or leave.
    pub(crate) fn in_turn(
        &self,
        floor: &Floor<'_>,
        id: MachineId,
        kind: ZoneKind,
        zone: ZoneId,
        order: &Order,
    ) -> bool {
        if order.request.after.is_some_and(|other| !order.started && self.orders.by_id(other).is_some()) {
            return false;
        }
        if order.request.sequence.is_none() {
            return true;
        }
        if matches!(Self::kind(floor, id), Some(MachineKind::Lift { .. })) {
            return self.sequence.may_leave(order);
        }
        // Of the tier's loads of this sequence the one with the lowest number.
        let lowest = || self.orders.in_zone(zone).filter_map(|(_, o)| o.request.sequence).min();
        kind != ZoneKind::Bays || (self.sequence.may_come(order) && order.request.sequence == lowest())
    }

    /// Whether a robot may set out on a leg: both its ends are known, and the load is seen. Where it goes will be looked at there.
    pub(crate) fn may_set_out(&self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, task: &Task) -> bool {
        let known = |pos| floor.zone_of(pos).is_some_and(|(_, z)| self.is_known(z.domain));
        let limit = self.settings.position_stale_ms;
        let seen = dispatch::stands_there(floor, image, now, limit, task.source, task.load);
        known(task.source) && known(task.target) && seen && !self.contradicts(now, image, task.target)
    }

    /// Whether a leg may be begun: both its ends are known, and the sensors agree.
    pub(crate) fn may_start(&self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, task: &Task) -> bool {
        let known = |pos| floor.zone_of(pos).is_some_and(|(_, z)| self.is_known(z.domain));
        let limit = self.settings.position_stale_ms;
        known(task.source) && known(task.target) && dispatch::sensors_agree(floor, image, now, limit, task)
    }

    /// A lift that brings a load in from its foot brings it to a tier from which something waits to go out, if there is one: both
    /// at one stop.
    fn nearer_tier(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        task: Task,
    ) -> Task {
        let Some((zone, info)) = floor.zone_of(task.source) else { return task };
        let comes_in = info.kind == ZoneKind::Lane && info.tier.is_none();
        let Some(order) = self.orders.slot(task.slot).copied() else { return task };
        let Goal::Home(home) = order.goal() else { return task };
        if !comes_in || !matches!(Self::kind(floor, id), Some(MachineKind::Lift { .. })) {
            return task;
        }
        let lanes = || {
            floor.links(zone).iter().filter(|l| l.by == Mover::Machine(id)).filter_map(|l| {
                let lane = floor.zone(l.to)?;
                Some((lane, lane.tier?))
            })
        };
        let waiting = |lane_tier: ZoneId| {
            floor.sources(id).iter().find_map(|z| {
                let out = floor.zone(*z)?;
                let from = floor.stop_mm(id, out.exit());
                let same = lanes().any(|(l, t)| t == lane_tier && floor.stop_mm(id, l.entry()) == from);
                let load = self.stock.at(out.exit()).filter(|_| same && *z != zone)?;
                let order = self.orders.slot(self.stock.loads.order(load)?)?;
                self.sequence.may_leave(order).then(|| order.urgency(now))
            })
        };
        let pick = tier::choose(lanes().map(|(lane, t)| {
            let bays = floor.zone(t).filter(|z| !z.closed);
            tier::Tier {
                served: self.keeper(floor, t).is_some_and(|m| self.hold(m).is_none()) && self.is_known(lane.domain),
                room: self.stock.free_for(floor, lane.entry(), task.load)
                    && bays.is_some_and(|b| b.contains(home) || self.stock.free(t, b) > u16::from(b.deep)),
                coming: self.stock.promised(t),
                waiting: waiting(t),
                full: 0,
            }
        }));
        let Some((lane, tier)) = pick.and_then(|n| lanes().nth(n)) else { return task };
        let other = Task { target: lane.entry(), ..task };
        let better = waiting(tier).is_some() && !floor.zone(tier).is_some_and(|z| z.contains(home));
        if !better || !self.may_start(now, floor, image, &other) || !self.stock.free_for(floor, other.target, task.load)
        {
            return task;
        }
        let Some(bay) = self.nearest_bay(floor, tier, task.load) else { return task };
        self.stock.release(floor, home, task.load);
        self.stock.promise(floor, bay, task.load);
        if let Some(order) = self.orders.slot_mut(task.slot) {
            order.home = Some(bay);
        }
        other
    }

    /// Makes the command that brings a machine's leg on.
    fn command(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        status: &MachineStatus,
        events: &mut Events,
    ) {
        let deck = Self::deck(floor, id);
        let Some(task) = self.machine(id).task else {
            // Of two lifts on one mast the idle one makes way.
            if let Some(pos) = mast::make_way(floor, image, id, |m| self.wanted(floor, image, m)) {
                self.say(now, id, status, Command { code: CommandCode::Move, pos, ..Command::default() }, events);
            }
            return;
        };
        let load = Some(task.load);
        let asked = match Self::kind(floor, id) {
            Some(MachineKind::Station(_)) => {
                let pos = if self.stock.at(deck) == load { self.input_of(floor, id) } else { task.source };
                Command { code: CommandCode::Start, pos, load, program: task.program, ..Command::default() }
            }
            _ if self.stock.at(deck) == load => {
                Command { code: CommandCode::Place, pos: task.target, load, ..Command::default() }
            }
            _ if self.draining => return self.end_task(floor, id),
            _ => Command { code: CommandCode::Pick, pos: task.source, load, ..Command::default() },
        };
        let flight = |m| self.machine(m).link.in_flight();
        if mast::allows(floor, image, id, floor.stop_mm(id, asked.pos), flight) {
            self.say(now, id, status, asked, events);
        } else if mast::is_upper(floor, id)
            && let Some(pos) = mast::make_way(floor, image, id, |m| self.wanted(floor, image, m))
        {
            self.say(now, id, status, Command { code: CommandCode::Move, pos, ..Command::default() }, events);
        }
    }

    fn input_of(&self, floor: &Floor<'_>, id: MachineId) -> PosId {
        let input = floor.sources(id).first().and_then(|z| floor.zone(*z));
        input.map_or(PosId(u16::MAX), |z| z.exit())
    }

    /// Puts a command into the output image.
    pub(crate) fn say(
        &mut self,
        now: Millis,
        id: MachineId,
        status: &MachineStatus,
        asked: Command,
        events: &mut Events,
    ) {
        let valid_ms = self.settings.valid_ms;
        let mut made = None;
        self.with(id, |m| made = Some(m.link.issue(status, asked, valid_ms)));
        let Some(command) = made else { return };
        crate::storage::put(self.commands, usize::from(id.0), Some(command));
        self.counters.commands_sent += 1;
        if command.code == CommandCode::Drive {
            return; // a robot is told to go on many times a minute
        }
        let Command { seq, code, pos, load, .. } = command;
        events.push(now, EventKind::CommandIssued { machine: id, seq, code, pos, load });
    }

    /// A load's slot in the table of orders, for the fleet.
    pub(crate) fn slot_of(&self, load: LoadId) -> Option<u16> {
        self.stock.loads.order(load)
    }
}
