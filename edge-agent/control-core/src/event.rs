//! What is told to the outside: small Copy records, in the order in which things happened.

use crate::acknowledge::Word;
use crate::command::Outcome;
use crate::fleet::Stray;
use crate::image::CommandCode;
use crate::interlock::Hold;
use crate::limits::EVENTS_PER_CYCLE;
use crate::resume::Doubt;
use crate::traffic::roads::Place;
use crate::units::{DomainId, LoadId, MachineId, Millis, OrderId, PosId};

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The cycle's `now`.
    pub at: Millis,
    /// What happened.
    pub kind: EventKind,
}

/// Why an order was refused or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderFault {
    /// The order table is full; try again later.
    TableFull,
    /// This tenant has as many orders as one may have; try again later.
    TenantFull,
    /// No free bay in any tier that can be reached.
    RackFull,
    /// The load is not in the plant.
    UnknownLoad,
    /// Another order has this load.
    LoadBusy,
    /// A number that is already in use.
    DuplicateId,
    /// The runtime is draining and takes no new orders.
    Draining,
    /// The runtime has not read the plant yet, or has lost its ownership.
    NotReady,
    /// The load did not arrive in time.
    NeverArrived,
    /// The load cannot be found any more.
    LoadMissing,
    /// Tried as often as allowed.
    TooManyAttempts,
    /// The load has left the plant.
    LeftPlant,
    /// Somebody has withdrawn it.
    Withdrawn,
    /// The load is on its way somewhere; it can be asked for when it stands in a bay.
    NotInBay,
    /// There is no station of this group.
    NoStation,
    /// It was held, and a person gave it up.
    GivenUp,
}

/// States of the runtime (DESIGN section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Nothing has been read yet.
    #[default]
    Starting,
    /// Reading every device; orders taken back are looked for there.
    Recover,
    /// Deciding.
    Running,
    /// Cycles are late: what is in flight goes on, nothing new is started.
    Degraded,
    /// A higher owner token was seen: this runtime has no say any more.
    Fenced,
    /// Drained; authority withdrawn.
    Safe,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The runtime changed its state.
    Run(RunState),
    /// An order was taken.
    OrderAccepted(OrderId, LoadId),
    /// An order was refused; it has left no trace.
    OrderRejected(OrderId, OrderFault),
    /// A machine was put to an order's load for the first time.
    OrderStarted(OrderId),
    /// The load is where it should be.
    OrderCompleted(OrderId),
    /// The order was given up.
    OrderFailed(OrderId, OrderFault),
    /// A load stood in the way without an order; this one puts it away, or out of the plant when no bay is free.
    OrderFound {
        /// Its number.
        id: OrderId,
        /// Which load.
        load: LoadId,
        /// Out of the plant; else into the rack.
        leaves: bool,
    },
    /// A command entered the output image.
    CommandIssued {
        /// Which machine.
        machine: MachineId,
        /// Its sequence.
        seq: u32,
        /// What.
        code: CommandCode,
        /// Where.
        pos: PosId,
        /// With which load, if with any.
        load: Option<LoadId>,
    },
    /// A command ended.
    CommandEnded {
        /// Which machine.
        machine: MachineId,
        /// Its sequence.
        seq: u32,
        /// How.
        outcome: Outcome,
    },
    /// A machine may not be commanded any more.
    MachineHeld(MachineId, Hold),
    /// And may again.
    MachineReleased(MachineId),
    /// What a person's word on a machine that left AUTO came to.
    Acknowledged(MachineId, Word),
    /// A word for all machines has come to its end.
    AcknowledgedAll,
    /// A machine's controller has started anew.
    MachineRebooted(MachineId),
    /// A load came in.
    LoadArrived(LoadId, PosId),
    /// A load left by the outfeed.
    LoadLeft(LoadId),
    /// A load is somewhere else than it should be; the plant is believed.
    LoadFound(LoadId, PosId),
    /// A load is not where it should be, and not elsewhere.
    LoadMissing(LoadId, PosId),
    /// Two positions report the same load.
    LoadTwice(LoadId, PosId),
    /// A part of the floor has been read and is acted upon.
    DomainKnown(DomainId),
    /// A mobile robot is where it was not sent.
    RobotElsewhere(MachineId, Place),
    /// A mobile robot says that it is at a place where it cannot be. It is in the way where it was last known.
    RobotAstray(MachineId, Place, Stray),
    /// A mobile robot does not get nearer to where it is sent, and no way out was found.
    RobotJammed(MachineId),
    /// The battery of a mobile robot is too low for anything but the way to a charger.
    BatteryLow(MachineId),
    /// An order that was open when the run before this one ended was taken back.
    OrderAdopted(OrderId, LoadId),
    /// The plant and the journal disagree about an order that was taken back: a person has to decide.
    OrderHeld(OrderId, Doubt),
    /// A person has decided that it goes on, from where its load is.
    OrderReleased(OrderId, Option<PosId>),
    /// A stop was made, and another lies ahead; so many are made now.
    StopMade(OrderId, u8),
    /// A machine was put to the next leg of an order.
    LegBegun {
        /// Which order.
        id: OrderId,
        /// From where.
        from: PosId,
        /// Where to.
        to: PosId,
    },
}

/// The events of one cycle. Full means counted, never blocked.
#[derive(Debug, Default)]
pub struct Events {
    list: heapless::Vec<Event, EVENTS_PER_CYCLE>,
    lost: u32,
}

impl Events {
    /// Adds an event; when full it is counted as lost.
    pub fn push(&mut self, at: Millis, kind: EventKind) {
        if self.list.push(Event { at, kind }).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// The events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.list.iter()
    }

    /// How many did not fit.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.list.clear();
        self.lost = 0;
    }
}
