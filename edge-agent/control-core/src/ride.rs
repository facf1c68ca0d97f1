//! Shuttles that change tier: on a lift of their rack, one at a time, and at most one shuttle on a tier.
//!
//! ```text
//!   tier 4  ┆                              [lift]──> shuttle leaves
//!   tier 3  ┆                     ┌── Move ──┘
//!   tier 2  ┆ shuttle ── Board ──> [lift]
//! ```
//!
//! A shuttle that has nothing to do on its tier, or nothing as urgent as what waits on a tier without a shuttle, asks for a ride there: a
//! lift that can stop at both is kept for it, and brings what it is doing to its end first. What a tier has is done before the next change
//! (a change costs the lift more than a load does), unless something elsewhere is of a better class or has waited longer by
//! [`BATCH_MS`].
//!
//! **Steps follow from what is seen, not from what was said.** A shuttle says on which tier it stands, on which lift, or between which two.
//! It is told to board or to leave only while the lift stands at rest at that tier with an empty deck and nothing is in flight for it; the lift is
//! told to go only while the shuttle stands on it whole, or on its tier whole, and nothing is in flight for that. Whoever stands between
//! the two goes back onto its tier. A lift on which a shuttle stands takes no load.
//!
//! **Why this cannot lock.** A shuttle asks for a ride with an empty deck, and a lift gives one with an empty deck; both end what they do first, and
//! what they do ends (see [`crate::dispatch`]). The tier asked for has no shuttle, and no other is on its way to it. There are fewer
//! shuttles than tiers, so there is one.

use crate::cycle::Controller;
use crate::dispatch::{Candidate, Task};
use crate::event::{Events, RunState};
use crate::floor::{Floor, Mover, Rack, Tier, ZoneKind};
use crate::image::{Command, CommandCode, InputImage, Stand};
use crate::limits::SCAN;
use crate::mast;
use crate::order::{Goal, Order};
use crate::units::{MachineId, Millis, PosId, Taken, ZoneId};

/// What waits elsewhere has to be older by so much than anything here before a shuttle leaves work behind, milliseconds: at 7 s a
/// change a lift is busy with it for a quarter of the time at most.
const BATCH_MS: u64 = 30_000;

/// A full lane that has not moved for so long is not waited for, milliseconds: what it holds may wait for what is on another tier.
const PATIENCE_MS: u64 = 15_000;

/// A lift stands at a tier when it is this near to it, millimetres.
const LEVEL_MM: u32 = 10;

/// A step that failed is tried again after this, milliseconds.
const RETRY_MS: u64 = 1_000;

/// A change of tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ride {
    /// The lift that is kept for it.
    pub(crate) lift: MachineId,
    /// The bays of the tier it leads to.
    pub(crate) to: ZoneId,
    /// No step before.
    pub(crate) retry_at: Millis,
}

/// How much something wants to be done: class, then since when it waits.
type Want = (u8, Taken);

impl Controller<'_> {
    /// Whether a machine may do a leg from where it stands now.
    pub(crate) fn can_do(&self, floor: &Floor<'_>, id: MachineId, by: Mover, task: &Task) -> bool {
        let Some(rack) = floor.rack_of(id) else { return by == Mover::Machine(id) };
        let whole = matches!(self.stock.stand(id), Stand::Tier(_));
        let reaches = self.stock.tier(floor, id).is_some_and(|t| touches(floor, t, task));
        by == floor.mover(id) && whole && reaches && self.is_alone(floor, rack, id)
    }

    /// Where a machine takes loads from at present.
    pub(crate) fn sources_now<'f>(&self, floor: &Floor<'f>, id: MachineId) -> impl Iterator<Item = ZoneId> + use<'f> {
        let own = floor.rack_of(id).map(|_| self.stock.tier(floor, id));
        floor.sources(id).iter().copied().filter(move |z| own.is_none_or(|tier| tier.is_some_and(|t| t.has(*z))))
    }

    /// Whether no other shuttle is on the tier of this one. Two that a person has put there are not told anything.
    fn is_alone(&self, floor: &Floor<'_>, rack: &Rack, id: MachineId) -> bool {
        let own = self.stock.tier(floor, id);
        rack.shuttles().all(|other| other == id || self.stock.tier(floor, other) != own)
    }

    /// The shuttle a lift is kept for.
    fn rider(&self, floor: &Floor<'_>, lift: MachineId) -> Option<MachineId> {
        let comes = |shuttle: &MachineId| self.machine(*shuttle).ride.is_some_and(|ride| ride.lift == lift);
        floor.rack_of_lift(lift)?.shuttles().find(comes)
    }

    /// Whether a lift is kept for a shuttle, or one stands on it.
    pub(crate) fn is_ridden(&self, floor: &Floor<'_>, lift: MachineId) -> Option<Ridden> {
        let rack = floor.rack_of_lift(lift)?;
        let on = |shuttle| match self.stock.stand(shuttle) {
            Stand::Lift(n) | Stand::Between(_, n) => lift_at(rack, n) == Some(lift),
            Stand::Tier(_) | Stand::Unknown => false,
        };
        if rack.shuttles().any(on) {
            return Some(Ridden::StandsOnIt);
        }
        self.rider(floor, lift).map(|_| Ridden::Kept)
    }

    /// Where a lift wants to go, or is told to: for its load, or for a shuttle.
    pub(crate) fn wanted(&self, floor: &Floor<'_>, image: &InputImage<'_>, id: MachineId) -> Option<PosId> {
        if let Some(task) = self.machine(id).task {
            let carried = image.machine(id).value.load == Some(task.load);
            return Some(if carried { task.target } else { task.source });
        }
        let rider = self.rider(floor, id)?;
        let ride = self.machine(rider).ride?;
        self.next_tier(floor, rider, &ride).map(|t| t.gate)
    }

    /// The tier at which the lift has to stand for the next step of a ride.
    fn next_tier<'f>(&self, floor: &Floor<'f>, rider: MachineId, ride: &Ride) -> Option<&'f Tier> {
        match self.stock.stand(rider) {
            Stand::Lift(_) => floor.tier(floor.rack_of(rider)?, ride.to),
            _ => self.stock.tier(floor, rider),
        }
    }

    /// A step of a ride that failed is not tried again at once.
    pub(crate) fn ride_step_failed(&mut self, floor: &Floor<'_>, id: MachineId, now: Millis) {
        let rider = self.rider(floor, id).unwrap_or(id);
        self.with(rider, |m| {
            if let Some(ride) = &mut m.ride {
                ride.retry_at = now.plus(RETRY_MS);
            }
        });
    }

    /// Brings the ride of a shuttle on by a step; whether it has one.
    pub(crate) fn ride(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        events: &mut Events,
    ) -> bool {
        let Some(rack) = floor.rack_of(id) else { return false };
        let me = self.machine(id);
        let stand = self.stock.stand(id);
        let on_tier = matches!(stand, Stand::Tier(_));
        if me.ride.is_none() && !on_tier {
            self.find_way_off(now, floor, image, rack, id);
        }
        let Some(ride) = self.machine(id).ride else { return !on_tier };
        if me.link.busy() || self.machine(ride.lift).link.busy() {
            return true;
        }
        let held = me.hold.is_some() || self.hold(ride.lift).is_some();
        let arrived = on_tier && self.stock.tier(floor, id).is_some_and(|t| t.bays == ride.to);
        let given_up = on_tier && (held || self.draining || floor.is_closed(ride.to));
        if arrived || given_up {
            self.with(id, |m| m.ride = None);
            return false;
        }
        let (own, lift) = (image.machine(id).value, image.machine(ride.lift).value);
        let at_work = self.machine(ride.lift).task.is_some() || own.executing() || lift.executing();
        let goes_on = self.run == RunState::Running || self.draining;
        if held || at_work || lift.load.is_some() || now < ride.retry_at || !goes_on {
            return true;
        }
        let Some(tier) = self.next_tier(floor, id, &ride) else { return true };
        let level = floor.stop_mm(ride.lift, tier.gate);
        let plain = |code, pos| Command { code, pos, ..Command::default() };
        if u32::from(lift.at).abs_diff(level) <= LEVEL_MM {
            // Onto the lift; or off it, or back from halfway.
            let asked = if on_tier {
                let program = ride.lift.0.saturating_sub(rack.lifts.0.0).saturating_add(1); // which of the lifts, for its controller
                Command { program, ..plain(CommandCode::Board, Self::deck(floor, ride.lift)) }
            } else {
                plain(CommandCode::Move, tier.stop)
            };
            self.say(now, id, &own, asked, events);
        } else if !matches!(stand, Stand::Between(..)) {
            let flight = |m| self.machine(m).link.in_flight();
            let way = if mast::allows(floor, image, ride.lift, level, flight) {
                Some(tier.gate)
            } else if mast::is_upper(floor, ride.lift) {
                mast::make_way(floor, image, ride.lift, |m| self.wanted(floor, image, m))
            } else {
                None
            };
            if let Some(pos) = way {
                self.say(now, ride.lift, &lift, plain(CommandCode::Move, pos), events);
            }
        }
        true
    }

    /// A shuttle that is found on a lift, or half on it, with no ride: to the nearest tier without a shuttle, or back.
    fn find_way_off(&mut self, now: Millis, floor: &Floor<'_>, image: &InputImage<'_>, rack: &Rack, id: MachineId) {
        let (Stand::Lift(number) | Stand::Between(_, number)) = self.stock.stand(id) else { return };
        let Some(lift) = lift_at(rack, number) else { return };
        let height = u32::from(image.machine(lift).value.at);
        let free = floor.tiers(rack).iter().filter(|t| {
            let open = !floor.is_closed(t.bays) && !self.is_taken(floor, rack, t.bays, id);
            open && serves(floor, lift, t)
        });
        let nearest = free.min_by_key(|t| floor.stop_mm(lift, t.gate).abs_diff(height));
        let Some(to) = self.stock.tier(floor, id).or(nearest).map(|t| t.bays) else { return };
        self.with(id, |m| m.ride = Some(Ride { lift, to, retry_at: now }));
    }

    /// Whether another shuttle is on a tier, or on its way to it.
    fn is_taken(&self, floor: &Floor<'_>, rack: &Rack, bays: ZoneId, id: MachineId) -> bool {
        let there = |other| self.stock.tier(floor, other).is_some_and(|t| t.bays == bays);
        let coming = |other: MachineId| self.machine(other).ride.is_some_and(|r| r.to == bays);
        rack.shuttles().filter(|other| *other != id).any(|other| there(other) || coming(other))
    }

    /// Asks for a ride if something on a tier without a shuttle wants it more than what could be done here; whether one was found.
    pub(crate) fn ask_for_ride(
        &mut self,
        now: Millis,
        floor: &Floor<'_>,
        image: &InputImage<'_>,
        id: MachineId,
        here: &[Candidate],
    ) -> bool {
        let Some(rack) = floor.rack_of(id) else { return false };
        let Some(from) = self.stock.tier(floor, id) else { return false };
        let whole = matches!(self.stock.stand(id), Stand::Tier(_));
        if !whole || floor.is_closed(from.bays) || !self.is_alone(floor, rack, id) {
            return false;
        }
        let mut best: Option<(Want, MachineId, ZoneId)> = None;
        for tier in floor.tiers(rack) {
            if tier.bays == from.bays || floor.is_closed(tier.bays) || self.is_taken(floor, rack, tier.bays, id) {
                continue;
            }
            let Some(lift) = self.free_lift(floor, rack, from, tier) else { continue };
            let mut found: heapless::Vec<Candidate, SCAN> = heapless::Vec::new();
            for zone in floor.sources(id).iter().filter(|z| tier.has(**z)) {
                let fits = |c: &Candidate| c.by == floor.mover(id) && touches(floor, tier, &c.task);
                self.gather(now, floor, image, id, *zone, &fits, &mut found);
            }
            if let Some(want) = found.iter().filter_map(|c| self.want(c)).min()
                && best.is_none_or(|(other, ..)| want < other)
            {
                best = Some((want, lift, tier.bays));
            }
        }
        let Some(((class, since), lift, to)) = best else { return false };
        let stays = here.iter().filter_map(|c| self.want(c)).chain(self.waits_for_lane(now, floor, id, from)).min();
        let leaves = stays.is_none_or(|own| class < own.0 || (class == own.0 && since.plus(BATCH_MS) < own.1));
        if leaves {
            self.with(id, |m| m.ride = Some(Ride { lift, to, retry_at: now }));
        }
        leaves
    }

    /// What is to leave a tier and waits for room on its lane, as long as that moves on.
    fn waits_for_lane(&self, now: Millis, floor: &Floor<'_>, id: MachineId, tier: &Tier) -> Option<Want> {
        if now.since(self.stock.since(tier.stop)) > PATIENCE_MS {
            return None;
        }
        let stays = |goal: Goal| {
            matches!(goal, Goal::Nowhere)
                || matches!(goal, Goal::Home(bay) if floor.zone_of(bay).is_some_and(|(z, _)| z == tier.bays))
        };
        let leaves = |o: &&Order| {
            let may = !o.under_way && !o.withdrawn && !o.is_in_doubt() && now >= o.retry_at && !stays(o.goal());
            may && self.in_turn(floor, id, ZoneKind::Bays, tier.bays, o)
        };
        let waiting = self.orders.in_zone(tier.bays).map(|(_, o)| o).take(SCAN).filter(leaves);
        waiting.map(|o| (o.effective_class(now), o.accepted_at)).min()
    }

    fn want(&self, candidate: &Candidate) -> Option<Want> {
        Some((candidate.class, self.orders.slot(candidate.task.slot)?.accepted_at))
    }

    /// A lift that stops at both tiers, may be commanded and is not kept for another shuttle; rather one with nothing to do.
    fn free_lift(&self, floor: &Floor<'_>, rack: &Rack, from: &Tier, to: &Tier) -> Option<MachineId> {
        let fits = |lift: &MachineId| {
            let empty = self.machine(*lift).task.is_some() || self.stock.at(Self::deck(floor, *lift)).is_none();
            let free = self.hold(*lift).is_none() && self.is_ridden(floor, *lift).is_none();
            free && empty && serves(floor, *lift, from) && serves(floor, *lift, to)
        };
        rack.lifts().filter(fits).min_by_key(|lift| (self.machine(*lift).task.is_some(), *lift))
    }

    /// The rack in which a shuttle may come to a tier, or stand on it.
    pub(crate) fn rack_of_tier<'f>(floor: &Floor<'f>, tier: ZoneId) -> Option<&'f Rack> {
        floor.links(tier).iter().find_map(|link| match link.by {
            Mover::Shuttles(rack) => floor.rack(rack),
            _ => None,
        })
    }
}

/// In which way a lift is not free for loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ridden {
    /// A shuttle will board it: it ends what it does.
    Kept,
    /// A shuttle stands on it, or half on it.
    StandsOnIt,
}

/// The n-th lift of a rack, 1 for the lower one.
fn lift_at(rack: &Rack, n: u8) -> Option<MachineId> {
    rack.lifts().nth(usize::from(n).checked_sub(1)?)
}

/// Whether a leg begins or ends on a tier.
fn touches(floor: &Floor<'_>, tier: &Tier, task: &Task) -> bool {
    let on = |pos: PosId| floor.zone_of(pos).is_some_and(|(zone, _)| tier.has(zone));
    on(task.source) || on(task.target)
}

/// Whether a lift stops at a tier.
fn serves(floor: &Floor<'_>, lift: MachineId, tier: &Tier) -> bool {
    floor.links(tier.lane_out).iter().any(|link| link.by == Mover::Machine(lift))
}
