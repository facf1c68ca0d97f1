//! The robot cell: takes a load from its in port (the exit of the feed conveyor), runs a program, and puts it on its
//! out port (the entry of the return conveyor). It has one command, START, and reports PackML states. START with the
//! load already in the gripper, after the cell was stopped in its work, starts the program over.

use crate::layout::{Conveyor, End, Layout, Place};
use crate::units::PosId;

/// Where the robot picks up.
pub fn in_port(layout: &Layout) -> PosId {
    layout.pos(Place::Belt(Conveyor::Feed, End::Exit))
}

/// Where the robot puts down.
pub fn out_port(layout: &Layout) -> PosId {
    layout.pos(Place::Belt(Conveyor::Return, End::Entry))
}
