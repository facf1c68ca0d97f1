//! Events and reasons in words, for answers and the log.

use crate::config::plan::FloorNames;
use crate::control::run_state_name;
use control_core::event::{Event, EventKind, OrderFault};
use control_core::interlock::{AXIS_BLOCKED, GUARD_OPEN, Hold, OWNER_LOST};

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
        OrderFault::LeftPlant => "the load has left the plant",
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
        Hold::NeedsAcknowledge => "it left AUTO; POST /api/v1/acknowledge when it may go on".into(),
    }
}

/// What people want to know of an event. Holds that pass by themselves at a start are no more than information.
pub(super) fn log(event: &Event, names: &FloorNames) {
    match event.kind {
        EventKind::Run(state) => tracing::info!("runtime is {}", run_state_name(state)),
        EventKind::OrderRejected(id, why) => tracing::info!(order = id.0, "order refused: {}", fault_name(why)),
        EventKind::OrderFailed(id, why) => tracing::warn!(order = id.0, "order given up: {}", fault_name(why)),
        EventKind::OrderAdopted { load, leaves: true, .. } => {
            tracing::warn!(
                load = load.get(),
                "a load stands in the way and no bay is free; sending it out of the plant"
            );
        }
        EventKind::OrderAdopted { load, .. } => {
            tracing::info!(load = load.get(), "a load without an order stands in the way; putting it away");
        }
        EventKind::MachineHeld(id, why) => {
            let machine = names.machine(id);
            match why {
                Hold::EmergencyStop | Hold::Fault(_) | Hold::NeedsAcknowledge | Hold::NotAuto => {
                    tracing::warn!(machine, "machine is not commanded: {}", hold_text(why));
                }
                Hold::NoHandshake => {}
                _ => tracing::info!(machine, "machine is not commanded: {}", hold_text(why)),
            }
        }
        EventKind::MachineReleased(id) => tracing::info!(machine = names.machine(id), "machine may be commanded"),
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
        _ => tracing::debug!(?event, "event"),
    }
}
