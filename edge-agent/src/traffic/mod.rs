//! Where every mobile robot was, and when: an append-only log that can be played again.
//!
//! ```text
//!   what the control thread shows ──5/s──> Recorder: only what changed ──lines──> files of the state folder, bounded
//!                                                                                    │
//!                            summary, place of everybody at any time, PlanViz <── Log ┘
//! ```
//!
//! One JSON object a line. The first line of a file is its [`Header`]: the floor, so that a file says everything by itself. Then one
//! [`Entry`] for each change of a robot, whole, not as a difference: the newest before an instant is what was so at that instant.
//! A file begins with everybody's entry. Lines go to the operating system at once; they are not forced to the disk, so a power
//! failure costs the newest few seconds and may tear the last line.

mod files;
mod log;
mod plan_viz;

pub use files::{FILE_MAX, Files, TOTAL_MAX, TrafficStats};
pub use log::{Log, RobotSum, Summary};
pub use plan_viz::{Export, export};

use crate::control::{ROBOT_STATES, Shown, ShownDesk};
use crate::field::ImageStage;
use control_core::image::Quality;
use control_core::units::{MachineId, PosId};
use device_drivers::value::wall_clock_ms;
use floor_plan::FloorPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// As often as frames are made.
const EVERY: Duration = Duration::from_millis(200);
/// The version of the format.
const VERSION: u32 = 1;

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub traffic: u32,
    /// When the file was begun, milliseconds since 1970.
    pub t: u64,
    /// Name of the floor's file; empty for the small floor.
    pub floor: String,
    /// What a step from place to place takes a robot nobody is in the way of, milliseconds.
    pub step_ms: u64,
    /// Names of the robots; an entry says which by its index.
    pub robots: Vec<String>,
    /// x and y of each place, millimetres.
    pub places: Vec<(i64, i64)>,
    /// The places a road leads to, by place.
    pub roads: Vec<Vec<u16>>,
    /// Names of the places that have one.
    pub names: BTreeMap<u16, String>,
    /// Files that had to go to make room since the gateway started.
    pub dropped: u64,
    /// Lines the disk did not take since the gateway started.
    pub failed: u64,
}

/// What was so of a robot from an instant on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970. Never goes back within a file.
    pub t: u64,
    /// Index of the robot.
    pub robot: u16,
    /// The place it has reached; none while it is not on the roads.
    pub at: Option<u16>,
    /// `away`, `arrived`, `driving`, `waiting`, `jammed` or `astray`.
    pub state: String,
    /// Places allocated to it ahead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base: Vec<u16>,
    /// Where its errand takes it: to the load, then to where the load goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// The order it works for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u32>,
    /// The load it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<u32>,
}

/// Notices what changes.
pub struct Recorder {
    plan: Arc<FloorPlan>,
    robots: Vec<MachineId>,
    now: Vec<Entry>,
    t: u64,
}

impl Recorder {
    /// Of a floor; nothing is known yet.
    pub fn new(plan: Arc<FloorPlan>) -> Recorder {
        let robots: Vec<MachineId> = plan.view().robots().map(|(id, ..)| id).collect();
        let away = |(robot, _)| Entry { robot, state: "away".into(), ..Entry::default() };
        let now = (0..).zip(&robots).map(away).collect();
        Recorder { plan, robots, now, t: 0 }
    }

    /// Mobile robots there are.
    pub fn robots(&self) -> usize {
        self.robots.len()
    }

    /// The first line of a file.
    pub fn header(&self, floor: &str) -> Header {
        let plan = &self.plan;
        let roads = plan.view().roads().places();
        let millimetres = |m: f64| (m * 1000.0).round() as i64;
        let beside = |place: u16| plan.view().roads().beside(place).to_vec();
        Header {
            traffic: VERSION,
            t: 0,
            floor: floor.into(),
            step_ms: plan.step_ms(),
            robots: self.robots.iter().map(|id| plan.machine_name(*id).to_string()).collect(),
            places: plan.place_spots.iter().take(roads).map(|s| (millimetres(s.x), millimetres(s.y))).collect(),
            roads: (0..plan.place_spots.len().min(roads) as u16).map(beside).collect(),
            names: plan.place_names.clone(),
            dropped: 0,
            failed: 0,
        }
    }

    /// Takes what is shown, and the loads that are carried; gives the entries that have changed.
    pub fn take(&mut self, t: u64, shown: &Shown, load: impl Fn(MachineId) -> Option<u32>) -> Vec<Entry> {
        // A clock that is set back does not make the past happen again.
        self.t = self.t.max(t);
        let (t, mut changed) = (self.t, Vec::new());
        for (n, (id, slot)) in (0u16..).zip(self.robots.iter().zip(&mut self.now)) {
            let machine = shown.machine(*id);
            let (path, load) = (machine.robot.path(), load(*id));
            let name = ROBOT_STATES.iter().find(|(state, _)| *state == machine.robot.state).map_or("away", |s| s.1);
            let place = |pos: PosId| self.plan.view().position(pos).map(|p| p.place);
            let goal = machine.leg.and_then(|leg| place(if load.is_some() { leg.target } else { leg.source }));
            let next = Entry {
                t: slot.t,
                robot: n,
                at: path.first().copied(),
                state: name.into(),
                base: path.iter().skip(1).take(usize::from(machine.robot.base)).copied().collect(),
                to: goal.filter(|p| usize::from(*p) < self.plan.place_spots.len()),
                order: machine.leg.map(|leg| leg.order.0),
                load,
            };
            if next != *slot {
                *slot = Entry { t, ..next };
                changed.push(slot.clone());
            }
        }
        changed
    }

    /// Everybody, as of the newest time taken.
    pub fn everybody(&self) -> Vec<Entry> {
        self.now.iter().map(|e| Entry { t: self.t, ..e.clone() }).collect()
    }
}

/// Starts the log of a floor with mobile robots, in this folder; without any there is none. `name`: that of the floor's file.
pub fn start(
    plan: Arc<FloorPlan>,
    (folder, name): (&Path, &str),
    stage: ImageStage,
    shown: Arc<ShownDesk>,
) -> Option<(Arc<TrafficStats>, JoinHandle<()>)> {
    let recorder = Some(Recorder::new(plan)).filter(|r| r.robots() > 0)?;
    let files = Files::new(folder, recorder.header(name));
    Some((files.stats.clone(), tokio::spawn(keep(recorder, files, stage, shown))))
}

/// Keeps the log until it is stopped. Files are written on a thread that may wait, not on one that serves.
async fn keep(mut recorder: Recorder, mut files: Files, stage: ImageStage, shown: Arc<ShownDesk>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let robots = recorder.robots.clone();
    loop {
        ticks.tick().await;
        let loads: BTreeMap<MachineId, u32> = stage.look(|image, _| {
            let of = |id: &MachineId| {
                let seen = image.machine(*id);
                let load = seen.value.load.filter(|_| seen.quality != Quality::Bad)?;
                Some((*id, load.get()))
            };
            robots.iter().filter_map(of).collect()
        });
        // The copy keeps the desk for no longer than a glance.
        let now = shown.look(Shown::clone);
        let changed = recorder.take(wall_clock_ms(), &now, |id| loads.get(&id).copied());
        if changed.is_empty() {
            continue;
        }
        let all = if files.begins() { recorder.everybody() } else { Vec::new() };
        let written = tokio::task::spawn_blocking(move || {
            files.write(&changed, &all);
            files
        });
        match written.await {
            Ok(back) => files = back,
            Err(why) => return tracing::error!("the traffic log has ended: {why}"),
        }
    }
}
