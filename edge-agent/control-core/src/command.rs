//! One command's life, by read-back alone (DESIGN section 4).
//!
//! ```text
//!            issue()         write acknowledged       seq_seen == seq        seq_done == seq
//!   idle ───────────> NEW ───────────────────> SENT ────────────────> SEEN ─────────────────> DONE
//!    ^                 │                         │                                            FAILED
//!    │                 └──── controller's clock is past issued + valid: it would refuse it ─> REJECTED
//!    └────────────────────────────────────────────────────────────────────────────────────── EXPIRED
//! ```
//!
//! Nothing here times out into an assumption. A retry is the same block with the same sequence; a command that was
//! not seen is given up only when the machine's own clock, read from its status block, says that it would refuse it now.

use crate::image::{Command, CommandResult, MachineStatus, Reason};

/// The controller's clock must be this much past a command's validity before the command is given up, milliseconds:
/// room for a block that the controller took in the very scan the status was built in.
pub const EXPIRY_MARGIN_MS: u32 = 200;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Executed to the end.
    Done,
    /// Begun, not brought to its end.
    Failed(Reason),
    /// Never begun.
    Rejected(Reason),
    /// Never begun, and now too late.
    Expired,
}

/// How far the command in flight is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// In the output image.
    #[default]
    New,
    /// The controller has acknowledged the write.
    Sent,
    /// The status block shows its sequence.
    Seen,
}

/// The conversation with one machine: at most one command in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandLink {
    last_seq: u32,
    in_flight: Option<(Command, Progress)>,
}

impl CommandLink {
    /// Continues where the machine stands: the next sequence will be above all it has seen and all we have used.
    /// Forgets the command in flight; the caller has made sure that none is being executed.
    pub fn handshake(&mut self, status: &MachineStatus) {
        self.last_seq = self.last_seq.max(status.seq_seen).max(status.seq_done);
        self.in_flight = None;
    }

    /// Whether a command is in flight.
    pub fn busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The command in flight.
    pub fn in_flight(&self) -> Option<(Command, Progress)> {
        self.in_flight
    }

    /// Makes the next command out of what is asked: its sequence and dates are filled in. `status` is the machine's freshest
    /// status; its clock dates the command. A command that is in flight is taken over by this one: only a drive that goes on.
    pub fn issue(&mut self, status: &MachineStatus, asked: Command, valid_ms: u16) -> Command {
        self.last_seq = self.last_seq.wrapping_add(1).max(1);
        let command = Command {
            seq: self.last_seq,
            valid_ms,
            issued_plc_ms: status.plc_time_ms,
            issued_boot: status.boot,
            ..asked
        };
        self.in_flight = Some((command, Progress::New));
        command
    }

    /// Reads back. Returns the command and its outcome when it has ended; it is then no longer in flight.
    pub fn observe(&mut self, status: &MachineStatus, written: u32) -> Option<(Command, Outcome)> {
        let (command, progress) = self.in_flight?;
        if status.seq_done == command.seq {
            self.in_flight = None;
            let outcome = match status.result {
                CommandResult::Done => Outcome::Done,
                CommandResult::Expired => Outcome::Expired,
                CommandResult::Rejected => Outcome::Rejected(status.reason),
                CommandResult::Failed | CommandResult::None => Outcome::Failed(status.reason),
            };
            return Some((command, outcome));
        }
        let progress = if status.seq_seen == command.seq {
            Progress::Seen
        } else if written == command.seq && progress == Progress::New {
            Progress::Sent
        } else {
            progress
        };
        self.in_flight = Some((command, progress));

        if progress != Progress::Seen && expired(&command, status) {
            self.in_flight = None;
            return Some((command, Outcome::Expired));
        }
        None
    }
}

/// Whether the controller would refuse the command as too late, with margin: its clock says so, or it has started anew.
fn expired(command: &Command, status: &MachineStatus) -> bool {
    let age = status.plc_time_ms.wrapping_sub(command.issued_plc_ms);
    status.boot != command.issued_boot || age > u32::from(command.valid_ms) + EXPIRY_MARGIN_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::CommandCode;
    use crate::units::{LoadId, PosId};

    fn link_at(status: &MachineStatus) -> (CommandLink, Command) {
        let mut link = CommandLink::default();
        link.handshake(status);
        let asked = Command { code: CommandCode::Pick, pos: PosId(3), load: LoadId::new(9), ..Command::default() };
        let c = link.issue(status, asked, 2000);
        (link, c)
    }

    fn at(plc_time_ms: u32, seen: u32, done: u32, result: CommandResult, reason: Reason) -> MachineStatus {
        MachineStatus { plc_time_ms, seq_seen: seen, seq_done: done, result, reason, ..MachineStatus::default() }
    }

    #[test]
    fn the_first_sequence_is_above_all_the_machine_has_seen() {
        let (_, c) = link_at(&at(0, 41, 40, CommandResult::None, Reason::None));
        assert_eq!(c.seq, 42);
    }

    #[test]
    fn a_command_ends_only_by_what_is_read_back() {
        let rows = [
            (at(50, 0, 0, CommandResult::None, Reason::None), None),
            (at(50, 1, 0, CommandResult::None, Reason::None), None),
            (at(99_999, 1, 0, CommandResult::None, Reason::None), None),
            (at(50, 1, 1, CommandResult::Done, Reason::None), Some(Outcome::Done)),
            (at(50, 1, 1, CommandResult::Failed, Reason::DriveFault), Some(Outcome::Failed(Reason::DriveFault))),
            (at(50, 1, 1, CommandResult::Rejected, Reason::NotAuto), Some(Outcome::Rejected(Reason::NotAuto))),
            (at(50, 1, 1, CommandResult::Expired, Reason::None), Some(Outcome::Expired)),
            (at(2_199, 0, 0, CommandResult::None, Reason::None), None),
            (at(2_201, 0, 0, CommandResult::None, Reason::None), Some(Outcome::Expired)),
        ];
        for (status, want) in rows {
            let (mut link, c) = link_at(&at(0, 0, 0, CommandResult::None, Reason::None));
            assert_eq!(c.seq, 1);
            assert_eq!(link.observe(&status, 1).map(|(_, o)| o), want, "{status:?}");
            assert_eq!(link.busy(), want.is_none());
        }
    }

    #[test]
    fn a_controller_that_has_started_anew_refuses_the_old_command_whatever_its_clock_says() {
        for clock in [10, 500_010] {
            let (mut link, _) = link_at(&at(500_000, 0, 0, CommandResult::None, Reason::None));
            let rebooted = MachineStatus { boot: 1, ..at(clock, 0, 0, CommandResult::None, Reason::None) };
            assert_eq!(link.observe(&rebooted, 0).map(|(_, o)| o), Some(Outcome::Expired));
        }
    }

    #[test]
    fn the_clock_may_wrap_in_between() {
        let (mut link, _) = link_at(&at(u32::MAX - 100, 0, 0, CommandResult::None, Reason::None));
        assert_eq!(link.observe(&at(200, 0, 0, CommandResult::None, Reason::None), 0), None);
    }
}
