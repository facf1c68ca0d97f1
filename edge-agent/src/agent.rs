//! The wiring: the only place that knows every part. Start in the order of the data flow, stop in the reverse.
//!
//! ```text
//!   start:  memory, entrance, spool, doors ─> control thread ─> lines ─> MQTT ─> HTTP
//!   stop:   drain ─> control thread withdraws authority ─> lines write that and close ─> spool drains ─> farewell
//! ```
//!
//! | file | in one line |
//! |---|---|
//! | `wires` | rings and buffers of the control thread |
//! | `memory` | the store, and what earlier runs have left in it |
//! | `beat` | that thread, and how it ends |
//! | `doors` | orders and writes from outside |
//! | `uplink` | spool and MQTT |

mod beat;
mod doors;
mod memory;
mod uplink;
mod wires;

use crate::access::Access;
use crate::alarms::{AlarmDesk, AlarmWatcher};
use crate::board::Board;
use crate::certificates::Certificates;
use crate::clock::{self, Clock};
use crate::config::Plan;
use crate::desk::Desk;
use crate::http::{Entrance, Face, FaceParts, FieldIndex, HttpStats};
use crate::lines::{self, LineList, LineRoom, LineWires, Reloader};
use crate::live::{Live, LiveStats};
use crate::metrics::{Metrics, RobotWatch, Stages};
use crate::scene::{Floor, Source};
use crate::state::{self, StateWatch, Unusable};
use crate::store::{Keep, Stands};
use crate::telemetry::meaning::Meanings;
use crate::telemetry::spool::SpoolHandle;
use crate::traffic::{self, TrafficStats};
use beat::Beat;
use device_drivers::value::wall_clock_ms;
use doors::Doors;
use memory::Memory;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use uplink::{Edge, Uplink};
use wires::Views;

/// How long a stop waits for the broker.
const PART_LIMIT: Duration = Duration::from_secs(8);

/// A running agent.
pub struct Agent {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// All counters.
    pub stages: Arc<Stages>,
    /// Order desk.
    pub desk: Arc<Desk>,
    face: Arc<Face>,
    beat: Beat,
    reloader: Arc<Reloader>,
    edge: Option<Edge>,
    others: Vec<JoinHandle<()>>,
    spool: SpoolHandle,
    keep: Keep,
    /// The state folder is ours as long as this is open.
    _held: Option<std::fs::File>,
}

impl Agent {
    /// Starts everything. Needs a tokio runtime. Whether PLCs or broker can be reached does not matter.
    pub async fn start(plan: Plan) -> Result<Agent, String> {
        Agent::start_with(plan, None).await
    }

    /// The same, with a floor of somebody else's to draw: for tests of the page.
    pub async fn start_with(mut plan: Plan, other_floor: Option<Arc<dyn Source>>) -> Result<Agent, String> {
        let held = state::hold_alone(plan.is_kept.then_some(&*plan.state_dir))?;
        let mut unusable = Unusable::new();
        let memory = Memory::open(&plan, &mut unusable);
        let (access, first) = Access::start(plan.access.clone(), memory.audit.clone())?;
        let entrance = Entrance::open(&plan.http, plan.listen).await?;
        unusable.extend(entrance.unkept().map(|why| ("page", why)));

        let mut parts = Parts::start(&mut plan, memory)?;
        unusable.iter().for_each(|(_, why)| tracing::error!("{why}"));
        let state = watch_state(&plan, unusable, &entrance, parts.memory.missing.take());
        let edge = parts.uplink.connect(&plan, &mut parts.doors, parts.meanings.clone(), &parts.alarms, parts.seed);
        parts.others.extend(parts.uplink.tell(&plan, &parts.doors, &parts.alarms));

        let stages = Arc::new(parts.stages(&plan, entrance.stats(plan.http.is_unencrypted)));
        let watcher = parts.watcher(&plan, &stages, &access, &state);
        let floor = other_floor.or_else(|| parts.floor(&plan));
        let http = entrance.at;
        let face = parts.face(plan, &stages, access, floor)?;
        let (beat, people, rooms) = (face.clone(), face.clone(), rooms(&stages));
        let mut others = parts.others;
        others.extend(entrance.serve(&face, first.as_deref()));
        others.extend([
            tokio::spawn(watcher.run(move || beat.alive())),
            tokio::spawn(face.clone().make_frames()),
            tokio::spawn(face.clone().watch_beat()),
            tokio::spawn(parts.certificates.keep_looking()),
            tokio::spawn(clock::watch()),
            tokio::spawn(state.keep_looking(move || people.access.look())),
            parts.memory.tend(rooms),
        ]);
        let keep = parts.memory.keep;
        let (beat, desk, reloader, spool) = (parts.beat, parts.doors.desk, parts.reloader, parts.uplink.spool);
        Ok(Agent { http, stages, desk, face, beat, reloader, edge, others, spool, keep, _held: held })
    }

    /// Whether the control cycle is alive, for the supervisor's watchdog.
    pub fn alive(&self) -> bool {
        self.face.alive()
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.face.access
    }

    /// What reads the configuration again and takes over what differs.
    pub fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// Whether orders are taken.
    pub fn ready(&self) -> bool {
        self.beat.is_ready()
    }

    /// Stops in order: what moves is brought to its end, authority is withdrawn as the last thing every controller
    /// hears, samples are delivered, and the retained status says offline. Says what is given up of telemetry, if something is.
    pub async fn stop(self) -> Option<String> {
        self.beat.end().await;
        self.reloader.stop().await;
        if let Some(edge) = self.edge {
            edge.end(PART_LIMIT).await;
        }
        for task in &self.others {
            task.abort();
        }
        memory::end(self.keep, PART_LIMIT).await;
        let spool = self.spool;
        let ending = tokio::task::spawn_blocking(move || spool.stop());
        let given_up = match tokio::time::timeout(PART_LIMIT, ending).await {
            Ok(said) => said.unwrap_or_default(),
            Err(_) => Some("given up, for the disk does not answer: what was not on it".into()),
        };
        if let Some(said) = &given_up {
            tracing::warn!("{said}");
        }
        tracing::info!("stopped");
        given_up
    }
}

/// What runs behind the face.
struct Parts {
    clock: Clock,
    seed: u64,
    views: Views,
    memory: Memory,
    uplink: Uplink,
    doors: Doors,
    beat: Beat,
    board: Arc<Board>,
    alarms: Arc<AlarmDesk>,
    certificates: Arc<Certificates>,
    traffic: Arc<TrafficStats>,
    lines: Arc<LineList>,
    field: Arc<FieldIndex>,
    meanings: Arc<Meanings>,
    reloader: Arc<Reloader>,
    others: Vec<JoinHandle<()>>,
}

impl Parts {
    /// Starts them, up to the lines. The lines of the plan are used up: what a line needs of them, the line has.
    fn start(plan: &mut Plan, memory: Memory) -> Result<Parts, String> {
        let (clock, seed) = (Clock::new(), fastrand::u64(..));
        let (wires, ends, views) = wires::lay(plan, &memory);
        let doors = Doors::open(plan, ends.requests, &memory);
        let uplink = Uplink::open(plan)?;
        let resumes = doors.desk.resume(&memory.left, &plan.names(), wall_clock_ms());
        let beat = Beat::start(plan, resumes, clock, wires)?;

        let board = Arc::new(Board::new(plan.names()));
        board.recall(&memory.left);
        let books = doors.desk.clone().keep_books(ends.events, plan.names(), board.clone());
        let mut others = vec![tokio::spawn(books)];
        if plan.floor.is_some() {
            others.push(tokio::spawn(doors.desk.clone().keep_agreeing(views.shown.clone())));
        }
        let (traffic, log) = start_traffic(plan, &views).unzip();
        others.extend(log);

        let (alarms, certificates) = (AlarmDesk::new(memory.keep.clone(), &memory.left), Certificates::of(plan));
        let alarms = Arc::new(alarms);
        let resend = plan.mqtt.as_ref().map_or(Duration::MAX, |m| m.heartbeat);
        let wires = LineWires { clock, stage: views.stage.clone(), publish: uplink.publish.clone(), resend, seed };
        let rest = lines::rest(plan);
        let mut room = LineRoom::new(wires, doors.writes.clone());
        room.certificates = certificates.clone();
        room.start_all(std::mem::take(&mut plan.lines), ends.outputs);
        let (lines, field, meanings) = (room.list.clone(), room.index.clone(), room.meanings.clone());
        let files = (plan.file.take(), std::mem::take(&mut plan.files));
        let reloader = Arc::new(Reloader::new(room, alarms.clone(), files, plan.access.dir.clone(), rest));
        let traffic = traffic.unwrap_or_default();
        Ok(Parts {
            clock,
            seed,
            views,
            memory,
            uplink,
            doors,
            beat,
            board,
            alarms,
            certificates,
            traffic,
            lines,
            field,
            meanings,
            reloader,
            others,
        })
    }

    /// All counters.
    fn stages(&self, plan: &Plan, http: HttpStats) -> Stages {
        let floor = plan.floor.as_ref().map(|f| f.plan.clone());
        let has_floor = floor.is_some();
        let robots = RobotWatch::new(floor, self.views.stage.clone(), self.views.shown.clone());
        for request in self.memory.absent.requests(|name| robots.find(name)) {
            let _ = self.doors.desk.request(request);
        }
        Stages {
            clock: self.clock,
            has_floor,
            robots: Arc::new(robots),
            closings: self.views.closings.clone(),
            control: self.views.stats.clone(),
            lines: self.lines.clone(),
            spool: self.uplink.spool.spool.clone(),
            mqtt: self.uplink.stats.clone(),
            desk: self.doors.desk.clone(),
            writes: self.doors.writes.clone(),
            commands: self.doors.command_stats(),
            audit: self.memory.audit.clone(),
            keep: self.memory.keep.clone(),
            absent: self.memory.absent.clone(),
            traffic: self.traffic.clone(),
            alarms: self.alarms.clone(),
            live: Arc::new(LiveStats::default()),
            certificates: self.certificates.clone(),
            http: Arc::new(http),
        }
    }

    /// Who looks whether something wants a person.
    fn watcher(
        &self,
        plan: &Plan,
        stages: &Arc<Stages>,
        people: &Arc<Access>,
        state: &Arc<StateWatch>,
    ) -> AlarmWatcher {
        AlarmWatcher {
            desk: self.alarms.clone(),
            stages: stages.clone(),
            board: self.board.clone(),
            people: people.clone(),
            state: state.clone(),
            unproven: plan.floor.as_ref().map_or_else(Vec::new, |f| f.unproven.clone()),
            publishes: plan.mqtt.is_some(),
            wants_realtime: plan.control.realtime.wanted,
        }
    }

    /// The floor as it is drawn; without one there is nothing to draw.
    fn floor(&self, plan: &Plan) -> Option<Arc<dyn Source>> {
        let (floor, views) = (plan.floor.as_ref()?.plan.clone(), &self.views);
        Some(Arc::new(Floor::new(floor, views.stage.clone(), views.shown.clone(), self.board.clone(), self.clock)))
    }

    /// What the API, the page and the figures see.
    fn face(
        &self,
        plan: Plan,
        stages: &Arc<Stages>,
        access: Arc<Access>,
        floor: Option<Arc<dyn Source>>,
    ) -> Result<Arc<Face>, String> {
        Ok(Face::new(FaceParts {
            metrics: Metrics::new(stages.clone()).map_err(|e| e.to_string())?,
            live: Live::new(stages.live.clone()),
            stages: stages.clone(),
            access,
            board: self.board.clone(),
            floor,
            field: self.field.clone(),
            gateway: plan.gateway,
            pki_dir: plan.state_dir.join("pki"),
            reloader: self.reloader.clone(),
            door: plan.http,
        }))
    }
}

/// Who stands on events of the store.
fn rooms(stages: &Stages) -> Vec<Arc<dyn Stands>> {
    let mut rooms: Vec<Arc<dyn Stands>> = vec![stages.desk.clone(), stages.alarms.clone(), stages.writes.clone()];
    if let Some(closings) = stages.closings.clone() {
        rooms.push(closings);
    }
    rooms
}

/// The traffic log of a floor, where it can be kept.
fn start_traffic(plan: &Plan, views: &Views) -> Option<(Arc<TrafficStats>, JoinHandle<()>)> {
    let floor = plan.floor.as_ref().filter(|_| plan.is_kept)?;
    let name = floor.file.as_deref().and_then(|f| f.file_name()).unwrap_or_default().to_string_lossy();
    let folder = plan.state_dir.join("traffic");
    traffic::start(floor.plan.clone(), (&folder, &name), views.stage.clone(), views.shown.clone())
}

/// Who looks for what was set aside, and knows what is done without.
fn watch_state(plan: &Plan, unusable: Unusable, entrance: &Entrance, missing: Option<String>) -> Arc<StateWatch> {
    let spool = plan.mqtt.as_ref().and_then(|m| m.spool.directory.clone());
    let folders = plan.is_kept.then(|| plan.state_dir.clone()).into_iter().chain(spool);
    let state = StateWatch::new(folders.collect(), unusable);
    Arc::new(state.saying("tls/", entrance.aside()).saying("store/", missing))
}
