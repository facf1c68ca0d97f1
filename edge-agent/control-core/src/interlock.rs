//! Whether a machine may be commanded at all. Interlocks can only restrict: nothing here makes a machine move,
//! and none of it is a safety function. E-stop and guards live in the safety PLC.

use crate::image::{MachineStatus, Mode, Stamped};
use crate::units::Millis;

/// Interlock bit: emergency stop circuit is open.
pub const EMERGENCY_STOP: u16 = 1 << 0;
/// Interlock bit: a guard is open.
pub const GUARD_OPEN: u16 = 1 << 1;
/// Interlock bit: the owner's heartbeat is missing.
pub const OWNER_LOST: u16 = 1 << 2;
/// Interlock bit: the axis is blocked or not referenced.
pub const AXIS_BLOCKED: u16 = 1 << 3;

/// Interlock bit: it has left AUTO, and nobody has acknowledged that.
pub const NOT_ACKNOWLEDGED: u16 = 1 << 4;

/// Why a machine is not commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Its status is not Good or too old.
    NotSeen,
    /// It has started anew and has not been spoken to yet.
    NoHandshake,
    /// It is in manual mode or off.
    NotAuto,
    /// Emergency stop.
    EmergencyStop,
    /// Open interlock bits.
    Interlocked(u16),
    /// It reports a fault.
    Fault(u16),
    /// It left AUTO while under our authority: somebody has to say that it may go on.
    NeedsAcknowledge,
}

/// Whether it is in AUTO, with no emergency stop.
pub fn in_auto(status: &MachineStatus) -> Result<(), Hold> {
    if status.mode == Mode::EmergencyStop || status.interlocks & EMERGENCY_STOP != 0 {
        return Err(Hold::EmergencyStop);
    }
    if status.mode == Mode::Auto { Ok(()) } else { Err(Hold::NotAuto) }
}

/// Decides whether a machine may take a new command. Strictest reason first.
pub fn permit(
    seen: &Stamped<MachineStatus>,
    now: Millis,
    stale_ms: u64,
    handshaken: bool,
    needs_acknowledge: bool,
) -> Result<MachineStatus, Hold> {
    let status = *seen.fresh(now, stale_ms).ok_or(Hold::NotSeen)?;
    in_auto(&status)?;
    if needs_acknowledge || status.interlocks & NOT_ACKNOWLEDGED != 0 {
        return Err(Hold::NeedsAcknowledge);
    }
    if status.fault != 0 {
        return Err(Hold::Fault(status.fault));
    }
    if status.interlocks != 0 {
        return Err(Hold::Interlocked(status.interlocks));
    }
    if !handshaken {
        return Err(Hold::NoHandshake);
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Quality;

    fn auto() -> MachineStatus {
        MachineStatus { mode: Mode::Auto, ..MachineStatus::default() }
    }

    #[test]
    fn only_a_fresh_machine_in_auto_without_objection_is_permitted() {
        let rows = [
            (auto(), Quality::Good, 100, true, false, None),
            (auto(), Quality::Good, 501, true, false, Some(Hold::NotSeen)),
            (auto(), Quality::Uncertain, 0, true, false, Some(Hold::NotSeen)),
            (auto(), Quality::Good, 0, false, false, Some(Hold::NoHandshake)),
            (auto(), Quality::Good, 0, true, true, Some(Hold::NeedsAcknowledge)),
            (MachineStatus { mode: Mode::Manual, ..auto() }, Quality::Good, 0, true, false, Some(Hold::NotAuto)),
            (
                MachineStatus { mode: Mode::EmergencyStop, ..auto() },
                Quality::Good,
                0,
                true,
                true,
                Some(Hold::EmergencyStop),
            ),
            (
                MachineStatus { interlocks: EMERGENCY_STOP, ..auto() },
                Quality::Good,
                0,
                true,
                false,
                Some(Hold::EmergencyStop),
            ),
            (
                MachineStatus { interlocks: GUARD_OPEN, ..auto() },
                Quality::Good,
                0,
                true,
                false,
                Some(Hold::Interlocked(2)),
            ),
            (
                MachineStatus { interlocks: NOT_ACKNOWLEDGED, ..auto() },
                Quality::Good,
                0,
                true,
                false,
                Some(Hold::NeedsAcknowledge),
            ),
            (MachineStatus { fault: 7, ..auto() }, Quality::Good, 0, true, false, Some(Hold::Fault(7))),
        ];
        for (value, quality, age, handshaken, ack, want) in rows {
            let seen = Stamped { value, quality, at: Millis(1000) };
            let got = permit(&seen, Millis(1000 + age), 500, handshaken, ack).err();
            assert_eq!(got, want, "{value:?} {quality:?} age {age}");
        }
    }
}
