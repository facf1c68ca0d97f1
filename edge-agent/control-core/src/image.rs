//! The process image: what is known of the plant, and what is wanted of it.
//!
//! A value is never just a value: it carries its quality and the time at which it was read. The core treats what is
//! not Good, or older than its limit, as unknown, and what is unknown can only make it more careful.

use crate::limits::PATH_PLACES;
use crate::traffic::roads::Place;
use crate::units::{LoadId, MachineId, Millis, PosId};

/// How much a value can be trusted (OPC 10000-8, in three steps).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// Not usable: never read, link down, device refused it, or far too old.
    #[default]
    Bad,
    /// The last known value, older than its limit.
    Uncertain,
    /// Read within its limit.
    Good,
}

/// A value with its quality and the time at which it was received, on the clock of [`crate::Controller::cycle`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stamped<T> {
    /// The value.
    pub value: T,
    /// Its quality when it was put here.
    pub quality: Quality,
    /// When it was received.
    pub at: Millis,
}

impl<T> Stamped<T> {
    /// The value, if it is Good and not older than `limit_ms`.
    pub fn fresh(&self, now: Millis, limit_ms: u64) -> Option<&T> {
        (self.quality == Quality::Good && now.since(self.at) <= limit_ms).then_some(&self.value)
    }
}

/// Makes an enum out of a register word, total in both directions.
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, default $default:ident { $($(#[$vdoc:meta])* $variant:ident = $n:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[$vdoc])* $variant = $n,)* }

        impl $name {
            #[doc = "The meaning of a register word; a word without meaning counts as the most careful one."]
            pub const fn from_word(word: u16) -> Self {
                match word { $($n => Self::$variant,)* _ => Self::$default }
            }
            #[doc = "The register word."]
            pub const fn word(self) -> u16 {
                self as u16
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }
    };
}

word_enum! {
    /// How a command ended, or that none has ended yet.
    CommandResult, default None {
        /// No command has ended since the controller started.
        None = 0,
        /// Executed to the end.
        Done = 1,
        /// Begun, and not brought to its end.
        Failed = 2,
        /// Arrived too late to be begun.
        Expired = 3,
        /// Never begun, for the reason given.
        Rejected = 4,
    }
}

word_enum! {
    /// Why a command was rejected or failed.
    Reason, default Unknown {
        /// No reason: it was done.
        None = 0,
        /// The check sum or the commit word did not fit; the block was not believed.
        BadBlock = 1,
        /// A higher owner token has been seen.
        StaleToken = 2,
        /// The machine is not in AUTO.
        NotAuto = 4,
        /// An interlock is open.
        Interlocked = 5,
        /// Another command is being executed.
        Busy = 6,
        /// A command code this machine does not know.
        UnknownCode = 7,
        /// A position this machine does not serve.
        BadPosition = 8,
        /// There is no load to pick.
        SourceEmpty = 9,
        /// There is a load where one should be put.
        TargetOccupied = 10,
        /// The drive reported a fault.
        DriveFault = 11,
        /// The owner's heartbeat stood still for longer than the watchdog allows.
        OwnerLost = 12,
        /// The load is not the one that was named.
        WrongLoad = 13,
        /// Mode was taken out of AUTO, or e-stop was pressed, while it ran.
        Aborted = 14,
        /// The owner has withdrawn its authority.
        NoAuthority = 15,
        /// A code this software does not know.
        Unknown = 65535,
    }
}

word_enum! {
    /// Operating mode of a machine, set at the machine and only there.
    Mode, default Off {
        /// Without power or initialising.
        Off = 0,
        /// A person moves it.
        Manual = 1,
        /// It takes commands.
        Auto = 2,
        /// Emergency stop is active.
        EmergencyStop = 3,
    }
}

word_enum! {
    /// Machine states of ISA-TR88.00.02 (PackML), by their standard numbers.
    PackState, default Undefined {
        /// Not reported.
        Undefined = 0,
        /// Clearing a fault.
        Clearing = 1,
        /// Stopped.
        Stopped = 2,
        /// Starting.
        Starting = 3,
        /// Ready for a command.
        Idle = 4,
        /// Waiting for up- or downstream.
        Suspended = 5,
        /// Working.
        Execute = 6,
        /// Stopping.
        Stopping = 7,
        /// Aborting.
        Aborting = 8,
        /// Aborted, to be cleared by a person.
        Aborted = 9,
        /// Going to Held.
        Holding = 10,
        /// Held.
        Held = 11,
        /// Leaving Held.
        Unholding = 12,
        /// Going to Suspended.
        Suspending = 13,
        /// Leaving Suspended.
        Unsuspending = 14,
        /// Resetting.
        Resetting = 15,
        /// Finishing.
        Completing = 16,
        /// Finished.
        Complete = 17,
    }
}

/// Where a shuttle that changes tier stands. Tiers and lifts count from 1, the lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stand {
    /// It does not say.
    #[default]
    Unknown,
    /// On this tier, whole.
    Tier(u8),
    /// On this lift, whole.
    Lift(u8),
    /// Between this tier and this lift.
    Between(u8, u8),
}

impl Stand {
    /// The meaning of a register word: the tier in its low byte, the lift in its high byte.
    pub const fn from_word(word: u16) -> Stand {
        let [lift, tier] = word.to_be_bytes();
        match (tier, lift) {
            (0, 0) => Stand::Unknown,
            (tier, 0) => Stand::Tier(tier),
            (0, lift) => Stand::Lift(lift),
            (tier, lift) => Stand::Between(tier, lift),
        }
    }

    /// The register word.
    pub const fn word(self) -> u16 {
        match self {
            Stand::Unknown => 0,
            Stand::Tier(tier) => u16::from_be_bytes([0, tier]),
            Stand::Lift(lift) => u16::from_be_bytes([lift, 0]),
            Stand::Between(tier, lift) => u16::from_be_bytes([lift, tier]),
        }
    }
}

/// What a machine's status block says (DESIGN section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineStatus {
    /// The highest owner token the controller has accepted.
    pub token: u32,
    /// The controller's own heartbeat.
    pub heartbeat: u16,
    /// Milliseconds since the controller started; commands are aged against it.
    pub plc_time_ms: u32,
    /// Sequence of the last command it has looked at.
    pub seq_seen: u32,
    /// Sequence of the last command that has ended, whatever way.
    pub seq_done: u32,
    /// How that one ended.
    pub result: CommandResult,
    /// And why.
    pub reason: Reason,
    /// Operating mode.
    pub mode: Mode,
    /// Open interlocks, one bit each; 0 when all permissives are given. Bits in [`crate::interlock`].
    pub interlocks: u16,
    /// Fault code of the machine, 0 for none.
    pub fault: u16,
    /// PackML state.
    pub state: PackState,
    /// Load on its deck.
    pub load: Option<LoadId>,
    /// Counts the controller's starts: a change means it has forgotten what it was told.
    pub boot: u16,
    /// Counts how often the machine has left AUTO. The machine holds until the owner gives the present count back, after a
    /// person has acknowledged: so neither a missed poll nor a new owner can forget it.
    pub auto_exits: u16,
    /// Where it is: millimetres along its axis; for a mobile robot the number of the place it has reached last.
    pub at: u16,
    /// Charge of its battery, thousandths; for a mobile robot only.
    pub charge: u16,
    /// Where it stands; for a shuttle that changes tier only.
    pub stand: Stand,
}

impl MachineStatus {
    /// Whether a command has been taken and has not ended.
    pub fn executing(&self) -> bool {
        self.seq_seen != self.seq_done
    }
}

/// All that is known of the plant in one instant, borrowed from whoever keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputImage<'a> {
    /// Status of each machine.
    pub machines: &'a [Stamped<MachineStatus>],
    /// For each machine the sequence of the last command block whose write its controller has acknowledged.
    pub written: &'a [u32],
    /// What the sensor of each position says.
    pub positions: &'a [Stamped<Option<LoadId>>],
}

impl InputImage<'_> {
    /// Status of a machine; one that is not in the image reads as never seen.
    pub fn machine(&self, id: MachineId) -> Stamped<MachineStatus> {
        self.machines.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    /// Sequence of the last command block whose write the machine's controller has acknowledged.
    pub fn written(&self, id: MachineId) -> u32 {
        self.written.get(usize::from(id.0)).copied().unwrap_or(0)
    }

    /// What the sensor of a position says; decks and positions that are not in the image read as never seen.
    pub fn position(&self, pos: PosId) -> Stamped<Option<LoadId>> {
        self.positions.get(usize::from(pos.0)).copied().unwrap_or_default()
    }
}

word_enum! {
    /// What a machine is asked to do.
    CommandCode, default None {
        /// Nothing.
        None = 0,
        /// Go to the position and take the load.
        Pick = 1,
        /// Go to the position and put the load.
        Place = 2,
        /// Robot cell: take the load from the in port, run the program, put it on the out port.
        Start = 3,
        /// Go to the position, with whatever is on the deck.
        Move = 4,
        /// Mobile robot: drive along these places. Said again with more places while it drives.
        Drive = 5,
        /// Shuttle that changes tier: drive onto the lift whose deck the position is; the program number says which of the rack's, 1
        /// for the lower one. It stands at the shuttle's tier.
        Board = 6,
    }
}

/// Places to drive along, nearest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    places: [Place; PATH_PLACES],
    length: u8,
}

impl Path {
    /// The first of these places, as many as fit.
    pub fn of(places: impl Iterator<Item = Place>) -> Path {
        let mut path = Path::default();
        for (slot, place) in path.places.iter_mut().zip(places) {
            *slot = place;
            path.length += 1;
        }
        path
    }

    /// Its places.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Place> + '_ {
        self.places.iter().take(usize::from(self.length)).copied()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// One command as it stands in a machine's command block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Strictly rising per machine; the machine takes each at most once.
    pub seq: u32,
    /// What to do.
    pub code: CommandCode,
    /// Where.
    pub pos: PosId,
    /// With which load, if with any.
    pub load: Option<LoadId>,
    /// Program number, for [`CommandCode::Start`].
    pub program: u16,
    /// Along which places, for [`CommandCode::Drive`].
    pub path: Path,
    /// It may be begun this long after `issued_plc_ms`, milliseconds.
    pub valid_ms: u16,
    /// The machine controller's own time when the command was made, as last read from its status block:
    /// the controller can tell a late command without any two clocks agreeing.
    pub issued_plc_ms: u32,
    /// The controller's boot counter at that time: its clock starts anew with every boot.
    pub issued_boot: u16,
}

/// What is wanted of the plant, borrowed from the controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputImage<'a> {
    /// Number of the cycle that made it.
    pub cycle: u64,
    /// Advances once per completed cycle.
    pub heartbeat: u16,
    /// Owner token.
    pub token: u32,
    /// Whether machines may act on what stands here. Without it they hold.
    pub authority: bool,
    /// Whether anything may be written at all: not before the plant has been read, nor once another owner is known.
    pub write: bool,
    /// The last command of each machine.
    pub commands: &'a [Option<Command>],
    /// Which leaving of AUTO a person has acknowledged, per machine.
    pub acknowledged: &'a [u16],
}

impl OutputImage<'_> {
    /// The last command of a machine.
    pub fn command(&self, id: MachineId) -> Option<Command> {
        self.commands.get(usize::from(id.0)).copied().flatten()
    }

    /// Which leaving of AUTO a person has acknowledged; 0 for none.
    pub fn acknowledged(&self, id: MachineId) -> u16 {
        self.acknowledged.get(usize::from(id.0)).copied().unwrap_or(0)
    }
}
