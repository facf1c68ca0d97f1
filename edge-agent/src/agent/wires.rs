//! The wires: rings and buffers between the control thread and everybody else, each with one writer and one reader.

use super::memory::Memory;
use crate::closings::{self, Closings};
use crate::config::{LinePlan, Plan};
use crate::control::{ControlStats, EVENTS, REQUESTS, Shown, ShownDesk, Wires};
use crate::field::ImageStage;
use control_core::Event;
use control_core::cycle::Request;
use floor_plan::{FloorPlan, InputBuffer, OutputBuffer};
use std::sync::Arc;
use triple_buffer::triple_buffer;

/// The other ends of what the control thread is wired to; each has one owner.
pub(super) struct Ends {
    /// Orders, for the next cycle.
    pub(super) requests: rtrb::Producer<Request>,
    /// What the core says has happened.
    pub(super) events: rtrb::Consumer<Event>,
    /// What is wanted of the machines, line by line.
    pub(super) outputs: Vec<triple_buffer::Output<OutputBuffer>>,
}

/// What many look at.
pub(super) struct Views {
    /// Where the input image is put together.
    pub(super) stage: ImageStage,
    /// What people see of the decisions.
    pub(super) shown: Arc<ShownDesk>,
    /// What is closed on the floor.
    pub(super) closings: Option<Arc<Closings>>,
    /// Counters.
    pub(super) stats: Arc<ControlStats>,
}

/// Lays them, as large as the floor needs.
pub(super) fn lay(plan: &Plan, memory: &Memory) -> (Wires, Ends, Views) {
    let floor = plan.floor.as_ref().map(|f| f.plan.clone());
    let of = |p: &Arc<FloorPlan>| (p.machine_count(), usize::from(p.sensed()), p.proof.regions.len());
    let (machines, sensed, regions) = floor.as_ref().map_or((0, 0, 0), of);
    let empty = InputBuffer::new(machines, sensed);
    let (image_in, image) = triple_buffer(&empty);
    let line = |l: &LinePlan| triple_buffer(&OutputBuffer::new(&l.machines));
    let (outputs, line_outputs) = plan.lines.iter().map(line).unzip();
    let (shown, shown_out) = triple_buffer(&Shown::new(machines, regions, plan.floor.as_ref().map_or(0, |f| f.orders)));
    let (request_tx, requests) = rtrb::RingBuffer::new(REQUESTS);
    let (events, event_rx) = rtrb::RingBuffer::new(EVENTS);
    let (floor_tx, floors) = rtrb::RingBuffer::new(closings::RING);
    let (spent, spent_rx) = rtrb::RingBuffer::new(closings::RING);
    let stats = Arc::new(ControlStats::default());
    let closings =
        |floor| Arc::new(Closings::new(floor, floor_tx, spent_rx).recalling(memory.keep.clone(), &memory.left));
    let views = Views {
        stage: ImageStage::new(image_in, empty, machines),
        shown: Arc::new(ShownDesk::new(shown_out)),
        closings: floor.map(closings),
        stats: stats.clone(),
    };
    let (drain, stop) = Default::default();
    let wires = Wires { image, outputs, floors, spent, shown, requests, events, stats, drain, stop };
    (wires, Ends { requests: request_tx, events: event_rx, outputs: line_outputs }, views)
}
