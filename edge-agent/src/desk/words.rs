//! Events and reasons in words, for answers and the log.

use crate::config::plan::FloorNames;
use crate::control::run_state_name;
use control_core::Word;
use control_core::event::{Event, EventKind, OrderFault};
use control_core::fleet::Stray;
use control_core::interlock::{AXIS_BLOCKED, GUARD_OPEN, Hold, OWNER_LOST};
use control_core::resume::Doubt;

/// The name of a reason in answers and logs.
pub fn fault_name(fault: OrderFault) -> &'static str {
    match fault {
        OrderFault::TableFull => "too many orders at once; try again later",
        OrderFault::TenantFull => "this tenant has as many orders as one may have; try again later",
        OrderFault::NoStation => "there is no such station",
        OrderFault::RackFull => "no free bay in the rack",
        OrderFault::UnknownLoad => "the load is not in the plant",
        OrderFault::LoadBusy => "another order has this load",
        OrderFault::DuplicateId => "the number is already in use",
        OrderFault::Draining => "the gateway is stopping",
        OrderFault::NotReady => "the gateway has not read the plant yet, or no longer owns it",
        OrderFault::NeverArrived => "the load did not arrive in time",
        OrderFault::LoadMissing => "the load cannot be found",
        OrderFault::TooManyAttempts => "tried as often as allowed",
        OrderFault::NotInBay => "the load is on its way; ask again when it stands in a bay",
        OrderFault::Withdrawn => "withdrawn",
        OrderFault::GivenUp => "a person gave it up",
        OrderFault::LeftPlant => "the load has left the plant",
    }
}

/// What plant and record disagree about, in words.
pub fn doubt_text(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Elsewhere => {
            "after the restart its load is where none of its legs leads: say whether it goes on, is done, or is given up"
        }
        Doubt::Gone => {
            "after the restart its load is nowhere: say whether it is done, is given up, or goes on when the load is seen"
        }
        Doubt::Twice => {
            "after the restart its load is seen at two places: say where it goes on when one of them is right"
        }
        Doubt::NoSuchPlace => {
            "the floor file has changed, and a place of it is gone: say whether it goes on, is done, or is given up"
        }
    }
}

/// Why a mobile robot cannot be where it says, in words.
pub fn stray_text(why: Stray, says: &str, counts_as: Option<&str>) -> String {
    let why = match why {
        Stray::NoPlace => format!("it says it is at {says}: there is no such place"),
        Stray::OutOfReach => format!("it says it is at {says}, where it cannot have driven in the time"),
        Stray::Taken => format!("it says it is at {says}, which another robot has"),
    };
    match counts_as {
        Some(place) => format!("{why}; it counts as at {place}"),
        None => why,
    }
}

/// Why a machine is not commanded, in words.
pub fn hold_text(hold: Hold) -> String {
    match hold {
        Hold::NotSeen => "its controller cannot be seen".into(),
        Hold::NoHandshake => "its controller is being read".into(),
        Hold::NotAuto => "it is not in AUTO".into(),
        Hold::EmergencyStop => "emergency stop".into(),
        Hold::Interlocked(OWNER_LOST) => "it waits for this gateway's heartbeat".into(),
        Hold::Interlocked(bits) => {
            let names = [(GUARD_OPEN, "guard open"), (OWNER_LOST, "no heartbeat"), (AXIS_BLOCKED, "axis blocked")];
            let open: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
            format!("interlocks 0x{bits:04X}: {}", open.join(", "))
        }
        Hold::Fault(code) => format!("it reports fault {code}"),
        Hold::NeedsAcknowledge => "it left AUTO; acknowledge it when it may go on".into(),
    }
}

/// Machines that one line of the log names all; of more it names two and gives the number of the others.
const NAMED: usize = 3;

/// What people want to know of events, in their order. What many machines have in common is said once, as at a start.
pub(super) fn log(events: &[Event], names: &FloorNames) {
    let alike = |a: &Event, b: &Event| match (a.kind, b.kind) {
        (EventKind::MachineHeld(_, a), EventKind::MachineHeld(_, b)) => a == b,
        (EventKind::MachineReleased(_), EventKind::MachineReleased(_)) => true,
        _ => false,
    };
    for run in events.chunk_by(alike) {
        let machines = || {
            let name = |event: &Event| match event.kind {
                EventKind::MachineHeld(id, _) | EventKind::MachineReleased(id) => Some(names.machine(id)),
                _ => None,
            };
            list(&run.iter().filter_map(name).collect::<Vec<_>>())
        };
        match run.first().map(|event| event.kind) {
            Some(EventKind::MachineHeld(_, Hold::NoHandshake)) | None => {}
            Some(EventKind::MachineHeld(_, why)) => match why {
                Hold::EmergencyStop | Hold::Fault(_) | Hold::NeedsAcknowledge | Hold::NotAuto => {
                    tracing::warn!(machine = machines(), "not commanded: {}", hold_text(why));
                }
                // Passes by itself at a start.
                _ => tracing::info!(machine = machines(), "not commanded: {}", hold_text(why)),
            },
            Some(EventKind::MachineReleased(_)) => tracing::info!(machine = machines(), "may be commanded"),
            Some(_) => run.iter().for_each(|event| log_one(event, names)),
        }
    }
}

/// `a, b, c`, or `a, b and 40 more`.
fn list(machines: &[String]) -> String {
    match machines {
        [first, second, rest @ ..] if machines.len() > NAMED => format!("{first}, {second} and {} more", rest.len()),
        few => few.join(", "),
    }
}

fn log_one(event: &Event, names: &FloorNames) {
    match event.kind {
        EventKind::Run(state) => tracing::info!("runtime is {}", run_state_name(state)),
        EventKind::OrderRejected(id, why) => tracing::info!(order = id.0, "order refused: {}", fault_name(why)),
        EventKind::OrderFailed(id, why) => tracing::warn!(order = id.0, "order given up: {}", fault_name(why)),
        EventKind::OrderAdopted(id, load) => {
            tracing::info!(order = id.0, load = load.get(), "the order was open when the gateway ended: it goes on");
        }
        EventKind::OrderHeld(id, doubt) => tracing::error!(order = id.0, "the order is held: {}", doubt_text(doubt)),
        EventKind::OrderFound { load, leaves: true, .. } => {
            tracing::warn!(
                load = load.get(),
                "a load stands in the way and no bay is free; sending it out of the plant"
            );
        }
        EventKind::OrderFound { load, .. } => {
            tracing::info!(load = load.get(), "a load without an order stands in the way; putting it away");
        }
        EventKind::MachineRebooted(id) => {
            tracing::info!(machine = names.machine(id), "the machine's controller has started anew; reading it again");
        }
        EventKind::RobotElsewhere(id, place) => {
            let place = names.place(place);
            tracing::warn!(
                machine = names.machine(id),
                "the robot is at {place}, where it was not sent; it is believed"
            );
        }
        EventKind::RobotAstray(id, place, why) => {
            let why = stray_text(why, &names.place(place), None);
            tracing::error!(machine = names.machine(id), "{why}; it is told nothing until somebody has looked");
        }
        EventKind::RobotJammed(id) => {
            tracing::error!(
                machine = names.machine(id),
                "the robot does not come nearer to its goal, and no way out was found"
            );
        }
        EventKind::BatteryLow(id) => {
            tracing::warn!(
                machine = names.machine(id),
                "the battery is low; the robot drives to a charger and does nothing else"
            );
        }
        EventKind::LoadFound(load, pos) => {
            tracing::warn!(load = load.get(), "load found at {}; the plant is believed", names.position(pos));
        }
        EventKind::LoadMissing(load, pos) => {
            tracing::warn!(load = load.get(), "load is gone from {}", names.position(pos));
        }
        EventKind::LoadTwice(load, pos) => {
            tracing::error!(load = load.get(), "two positions report this load, one of them {}", names.position(pos));
        }
        EventKind::Acknowledged(id, Word::Released) => {
            tracing::info!(machine = names.machine(id), "acknowledged: it may go on");
        }
        _ => tracing::debug!(?event, "event"),
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn three_machines_are_named_and_of_more_two_and_the_rest_is_counted() {
        let first = |n: usize| ["a", "b", "c", "d", "e"].iter().take(n).map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(list(&first(1)), "a");
        assert_eq!(list(&first(3)), "a, b, c");
        assert_eq!(list(&first(5)), "a, b and 3 more");
    }
}
