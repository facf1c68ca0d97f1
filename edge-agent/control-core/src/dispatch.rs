//! Which leg comes next for a load, and which machine takes which leg.
//!
//! ```text
//!   bay ──shuttle──> transfer out ──lift──> feed entry ══belt══> feed exit ──cell──> return entry ══belt══> return exit ┐
//!    ^                                 └──> outfeed entry ══belt══> outside                                            │
//!    └──shuttle── transfer in <──lift───────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Why this cannot lock.** A leg is started only when its target has been reserved, so a machine that carries a load
//! can always put it down. A load going back into the rack has its bay promised from the start, on the tier whose
//! transfer-in point it takes, so a transfer-in point always empties; hence the lift can always clear the return and infeed
//! conveyors; hence the cell can always clear its in port; hence the lift can always clear the transfer-out points. Every
//! chain of waits ends at a machine that can move. What threatens this is what comes from outside, after a restart or a
//! person's hand: a load on a transfer-in point is therefore promised a bay of its own tier before anybody else, an order
//! begins with its load in a bay, and a load on its way for which there is no bay leaves by the outfeed.
//!
//! **Which machine.** Class first, then age; among the [`PAIRING_WINDOW`] oldest of the best class the nearest one.

use crate::image::{InputImage, MachineStatus};
use crate::layout::{Conveyor, End, Layout, MachineKind, Place};
use crate::limits::{ORDERS_MAX, PAIRING_WINDOW};
use crate::order::{Goal, Order};
use crate::stock::Stock;
use crate::units::{LoadId, MachineId, Millis, OrderId, PosId};
use crate::{cell, lift, shuttle};

/// What has to happen next to a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// This machine takes it there.
    Carry {
        /// Which machine.
        machine: MachineId,
        /// Where to.
        target: PosId,
    },
    /// A conveyor or the cell has it; it will appear elsewhere by itself.
    Wait,
    /// It is where it should be.
    Arrived,
    /// It has left the plant and cannot be brought to its goal.
    Gone,
}

/// The next leg of a load that is at `here` and has to go to `goal`. Pure; a few comparisons.
pub fn next_leg(layout: &Layout, here: PosId, goal: Goal) -> Leg {
    if goal == Goal::Home(here) {
        return Leg::Arrived;
    }
    let by = |machine, target: Option<PosId>| target.map_or(Leg::Wait, |target| Leg::Carry { machine, target });
    let by_shuttle = |tier| by(layout.shuttle(tier), shuttle::target(layout, tier, goal));
    let by_lift = || by(layout.lift(), lift::target(layout, goal));

    match layout.place(here) {
        Some(Place::Bay { tier, .. }) => by_shuttle(tier),
        // It has lost its bay on this tier, to a person or to a restart: the lift takes it back, so that it never has to wait
        // for the transfer-out point, which may be waiting for it.
        Some(Place::TransferIn(_)) if !is_home_on(layout, here, goal) => by_lift(),
        Some(Place::TransferIn(tier)) => by_shuttle(tier),
        // Its bay is on this very tier: the shuttle takes it back. By the lift it could meet a load that wants to pass.
        Some(Place::TransferOut(tier)) if is_home_on(layout, here, goal) => by_shuttle(tier),
        Some(Place::TransferOut(_)) => by_lift(),
        Some(Place::Belt(Conveyor::Outfeed, End::Exit)) if goal == Goal::Outside => Leg::Arrived,
        Some(Place::Belt(Conveyor::Outfeed, End::Exit)) => Leg::Gone,
        Some(Place::Belt(_, End::Entry)) => Leg::Wait,
        Some(Place::Belt(Conveyor::Feed, End::Exit)) => by(layout.cell(), Some(cell::out_port(layout))),
        Some(Place::Belt(_, End::Exit)) => by_lift(),
        Some(Place::Deck(machine)) => match layout.kind(machine) {
            Some(MachineKind::Shuttle(tier)) => by_shuttle(tier),
            Some(MachineKind::Lift) => by_lift(),
            // Stopped in its work: the program starts over with the load where it is.
            Some(MachineKind::Cell) => by(machine, Some(cell::out_port(layout))),
            None => Leg::Wait,
        },
        None => Leg::Wait,
    }
}

/// Whether the goal is a bay on the very tier where the load stands.
fn is_home_on(layout: &Layout, here: PosId, goal: Goal) -> bool {
    matches!(goal, Goal::Home(bay) if layout.tier(bay) == layout.tier(here))
}

/// A leg that a machine has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// For which order.
    pub order: OrderId,
    /// Which load.
    pub load: LoadId,
    /// Where it stands.
    pub source: PosId,
    /// Where it goes; reserved.
    pub target: PosId,
    /// Program, for the cell.
    pub program: u16,
}

/// A leg that could be started now.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// By which machine.
    pub machine: MachineId,
    /// What it would be.
    pub task: Task,
    class: u8,
    accepted_at: Millis,
}

/// All legs that could be started in this cycle.
pub type Candidates = heapless::Vec<Candidate, ORDERS_MAX>;

/// What the sensors have to say before a leg is started: the load stands at the source, the target is empty.
/// A deck is vouched for by its machine's status; a position that cannot be seen permits nothing.
pub fn sensors_agree(layout: &Layout, image: &InputImage, now: Millis, limit_ms: u64, task: &Task) -> bool {
    let reads = |pos, want: Option<LoadId>| image.position(pos).fresh(now, limit_ms) == Some(&want);
    let source_ok = match layout.place(task.source) {
        Some(Place::Deck(machine)) => image.machine(machine).value.load == Some(task.load),
        _ => reads(task.source, Some(task.load)),
    };
    source_ok && reads(task.target, None)
}

/// The leg an order could start now, if any: not waiting, not on its way, target free.
pub fn candidate(layout: &Layout, stock: &Stock, order: &Order, now: Millis) -> Option<Candidate> {
    let source = order.at?;
    let Leg::Carry { machine, target } = next_leg(layout, source, order.goal()) else { return None };
    let load = order.request.load;
    (now >= order.retry_at && stock.free_for(target, load)).then_some(Candidate {
        machine,
        task: Task { order: order.request.id, load, source, target, program: order.program() },
        class: order.effective_class(now),
        accepted_at: order.accepted_at,
    })
}

/// Picks for a machine that last worked at `near`. A load on its own deck comes before everything.
/// Looks at every candidate twice at most per window slot: [`ORDERS_MAX`] x [`PAIRING_WINDOW`] comparisons at worst.
pub fn choose(
    layout: &Layout,
    machine: MachineId,
    near: PosId,
    status: &MachineStatus,
    candidates: &Candidates,
) -> Option<Task> {
    let mine = || candidates.iter().filter(move |c| c.machine == machine);
    let deck = layout.pos(Place::Deck(machine));

    if let Some(carried) = status.load {
        return mine().find(|c| c.task.source == deck && c.task.load == carried).map(|c| c.task);
    }
    let best_class = mine().map(|c| c.class).min()?;
    let mut window: heapless::Vec<&Candidate, PAIRING_WINDOW> = heapless::Vec::new();
    for c in mine().filter(|c| c.class == best_class && c.task.source != deck) {
        let older = |a: &Candidate, b: &Candidate| (a.accepted_at, a.task.order) < (b.accepted_at, b.task.order);
        if window.is_full() {
            let Some(youngest) = window.iter_mut().reduce(|a, b| if older(a, b) { b } else { a }) else { continue };
            if older(c, youngest) {
                *youngest = c;
            }
        } else {
            let _ = window.push(c);
        }
    }
    window
        .iter()
        .min_by_key(|c| (layout.steps(machine, near, c.task.source), c.accepted_at, c.task.order))
        .map(|c| c.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tier;

    fn demo() -> Layout {
        Layout::new(4, 20).unwrap()
    }

    fn belt(c: Conveyor, e: End) -> PosId {
        demo().pos(Place::Belt(c, e))
    }

    #[test]
    fn each_place_has_the_next_leg_of_the_picture() {
        let l = demo();
        let bay = |tier, index| l.pos(Place::Bay { tier: Tier(tier), index });
        let (out2, in1, in2) =
            (l.pos(Place::TransferOut(Tier(2))), l.pos(Place::TransferIn(Tier(1))), l.pos(Place::TransferIn(Tier(2))));
        let carry = |machine, target| Leg::Carry { machine, target };
        let home = Goal::Home(bay(1, 7));
        let rows = [
            (bay(2, 0), Goal::Cell, carry(MachineId(2), out2)),
            (bay(2, 0), Goal::Outside, carry(MachineId(2), out2)),
            (bay(1, 0), home, carry(MachineId(1), bay(1, 7))),
            (bay(1, 7), home, Leg::Arrived),
            (bay(2, 3), Goal::Nowhere, Leg::Wait),
            (out2, Goal::Cell, carry(l.lift(), belt(Conveyor::Feed, End::Entry))),
            (out2, Goal::Outside, carry(l.lift(), belt(Conveyor::Outfeed, End::Entry))),
            (out2, home, carry(l.lift(), in1)),
            (out2, Goal::Home(bay(2, 9)), carry(MachineId(2), bay(2, 9))),
            (in1, home, carry(MachineId(1), bay(1, 7))),
            (in2, home, carry(l.lift(), in1)),
            (in2, Goal::Outside, carry(l.lift(), belt(Conveyor::Outfeed, End::Entry))),
            (belt(Conveyor::Infeed, End::Entry), home, Leg::Wait),
            (belt(Conveyor::Infeed, End::Exit), home, carry(l.lift(), in1)),
            (belt(Conveyor::Feed, End::Exit), Goal::Cell, carry(l.cell(), belt(Conveyor::Return, End::Entry))),
            (belt(Conveyor::Feed, End::Exit), home, carry(l.cell(), belt(Conveyor::Return, End::Entry))),
            (belt(Conveyor::Return, End::Exit), home, carry(l.lift(), in1)),
            (belt(Conveyor::Outfeed, End::Exit), Goal::Outside, Leg::Arrived),
            (belt(Conveyor::Outfeed, End::Exit), home, Leg::Gone),
            (l.pos(Place::Deck(l.lift())), home, carry(l.lift(), in1)),
            (l.pos(Place::Deck(MachineId(1))), home, carry(MachineId(1), bay(1, 7))),
            (l.pos(Place::Deck(l.cell())), home, carry(l.cell(), belt(Conveyor::Return, End::Entry))),
        ];
        for (here, goal, want) in rows {
            assert_eq!(next_leg(&l, here, goal), want, "{:?} {goal:?}", l.place(here));
        }
    }

    #[test]
    fn every_load_reaches_every_goal_within_ten_legs() {
        let l = demo();
        for start in 0..l.positions() {
            for goal in [Goal::Home(PosId(0)), Goal::Home(PosId(159)), Goal::Cell, Goal::Outside] {
                let mut here = PosId(start);
                for _ in 0..10 {
                    here = match next_leg(&l, here, goal) {
                        Leg::Carry { machine, .. } if machine == l.cell() && goal == Goal::Cell => break,
                        Leg::Carry { target, .. } => target,
                        Leg::Arrived | Leg::Gone => break,
                        Leg::Wait => match l.place(here) {
                            Some(Place::Belt(c, End::Entry)) => l.pos(Place::Belt(c, End::Exit)),
                            other => panic!("stuck at {other:?} on the way to {goal:?}"),
                        },
                    };
                }
                let last = next_leg(&l, here, goal);
                let at_cell = matches!(last, Leg::Carry { machine, .. } if machine == l.cell());
                assert!(matches!(last, Leg::Arrived | Leg::Gone) || at_cell, "{start} to {goal:?} ended with {last:?}");
            }
        }
    }
}
