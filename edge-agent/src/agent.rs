//! The wiring: the only place that knows every part. Start in the order of the data flow, stop in the reverse.
//!
//! ```text
//!   start:  desk, spool ─> control thread ─> lines ─> MQTT ─> HTTP
//!   stop:   drain ─> control thread withdraws authority ─> lines write that and close ─> spool drains ─> farewell
//! ```

use crate::access::Access;
use crate::alarms::{AlarmDesk, AlarmNews, AlarmWatcher};
use crate::board::Board;
use crate::certificates::Certificates;
use crate::clock::{self, Clock, run_ms};
use crate::closings::{self, Closings};
use crate::commands::{Audit, Commands, WriteDesk};
use crate::config::Plan;
use crate::config::plan::{LinePlan, MqttPlan};
use crate::control::{self, ControlStats, EVENTS, REQUESTS, Shown, ShownDesk, Wires};
use crate::desk::{Desk, OrderView};
use crate::field::{ImageStage, Publish};
use crate::http::{self, Face, FaceParts, HttpStats};
use crate::ledger::Ledger;
use crate::lines::{self, LineRoom, LineWires, Reloader};
use crate::live::{Live, LiveStats};
use crate::metrics::{Metrics, RobotWatch, Stages};
use crate::scene::{Floor, Source};
use crate::state::{self, StateWatch};
use crate::telemetry::mqtt::plain::Plain;
use crate::telemetry::mqtt::{ANSWERS, Mqtt, MqttStats};
use crate::telemetry::payload::rfc3339;
use crate::telemetry::sparkplug::{FIRST_DEVICE_ALIAS, Hub, Node};
use crate::telemetry::spool::{Kind, Records, SpoolHandle, SpoolOptions, Stream};
use crate::telemetry::{self, Spool};
use crate::traffic::{self, Files, Recorder};
use control_core::event::RunState;
use device_drivers::value::wall_clock_ms;
use floor_plan::{InputBuffer, OutputBuffer};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use triple_buffer::triple_buffer;

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
    drain_limit: Duration,
    face: Arc<Face>,
    control: Option<std::thread::JoinHandle<()>>,
    drain: Arc<AtomicBool>,
    control_stop: Arc<AtomicBool>,
    reloader: Arc<Reloader>,
    mqtt: Option<JoinHandle<()>>,
    mqtt_stop: watch::Sender<bool>,
    others: Vec<JoinHandle<()>>,
    spool: SpoolHandle,
    /// The state folder is ours as long as this is open.
    _held: Option<std::fs::File>,
}

impl Agent {
    /// Starts everything. Needs a tokio runtime. Whether PLCs or broker can be reached does not matter.
    pub async fn start(plan: Plan) -> Result<Agent, String> {
        Agent::start_with(plan, None).await
    }

    /// The same, with a floor of somebody else's to draw: for tests of the page.
    pub async fn start_with(plan: Plan, other_floor: Option<Arc<dyn Source>>) -> Result<Agent, String> {
        let clock = Clock::new();
        let held = match plan.is_kept.then(|| state::hold(&plan.state_dir)) {
            Some(Err(e)) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                let dir = plan.state_dir.display();
                return Err(format!("another gateway uses {dir}: each needs a `state_dir` of its own"));
            }
            held => held.and_then(Result::ok), // what cannot be made or opened is told where it is needed
        };
        let (access, first) = Access::start(plan.access.clone())?;
        let mut unusable = Vec::new();
        let seed = fastrand::u64(..);
        let opened = plan.http.tls.as_ref().map(|t| http::Door::open(t, plan.listen, &plan.http.names)).transpose();
        // A certificate that cannot be used is no reason to stand still; without one nobody beyond this machine is served.
        let (tls, closed) = opened.map_or_else(|why| (None, Some(why)), |tls| (tls, None));
        let listen = if closed.is_some() { http::on_this_machine(plan.listen) } else { plan.listen };
        if let Some(why) = &closed {
            tracing::error!("{why}; the page is served to this machine alone, without TLS");
        }
        unusable.extend(tls.as_ref().and_then(|door| door.unkept.clone()).map(|why| ("page", why)));
        let listener = TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
        let http_at = listener.local_addr().map_err(|e| e.to_string())?;

        let (request_tx, request_rx) = rtrb::RingBuffer::new(REQUESTS);
        let (event_tx, event_rx) = rtrb::RingBuffer::new(EVENTS);
        let names = plan.names();
        let certificates = Certificates::of(&plan);
        let (has_floor, kept) = (plan.floor.is_some(), plan.floor.is_some() && plan.is_kept);
        let reserve = plan.mqtt.as_ref().map_or(0, |m| m.spool.reserve);
        let (ledger, known) = match kept.then(|| Ledger::open(&plan.state_dir.join("orders"), reserve)) {
            Some(Ok((ledger, known))) => (Some(ledger), known),
            Some(Err(why)) => {
                unusable.push(("orders", format!("{why}; no order is taken")));
                (Some(Ledger::closed()), Default::default())
            }
            None => Default::default(),
        };
        let interrupted = known.interrupted.clone();
        if !interrupted.is_empty() {
            tracing::warn!("{} orders were under way when the gateway ended: they have failed", interrupted.len());
        }
        let desk = Desk::with(request_tx, names.groups(), ledger, known);
        let mqtt_stats = Arc::new(plan.mqtt.as_ref().map_or_else(MqttStats::default, MqttStats::new));
        let (spool, publish) = start_spool(plan.mqtt.as_ref(), &plan.lines, &mqtt_stats)?;
        let hub = publish.as_ref().and_then(|p| p.hub.clone());
        let floor_plan = plan.floor.as_ref().map(|f| f.plan.clone());
        let sizes = floor_plan
            .as_ref()
            .map_or((0, 0, 0), |p| (p.machine_count(), usize::from(p.sensed()), p.proof.regions.len()));
        let empty = InputBuffer::new(sizes.0, sizes.1);
        let (image_in, image_out) = triple_buffer(&empty);
        let stage = ImageStage::new(image_in, empty, sizes.0);
        let (outputs, line_outputs): (Vec<_>, Vec<_>) =
            plan.lines.iter().map(|l| triple_buffer(&OutputBuffer::new(&l.machines))).unzip();
        let (shown_in, shown_out) = triple_buffer(&Shown::new(sizes.0, sizes.2));
        let shown = Arc::new(ShownDesk::new(shown_out));

        let control_stats = Arc::new(ControlStats::default());
        let (drain, control_stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (floor_tx, floor_rx) = rtrb::RingBuffer::new(closings::RING);
        let (spent_tx, spent_rx) = rtrb::RingBuffer::new(closings::RING);
        let closings = floor_plan.clone().map(|p| Arc::new(Closings::new(p, floor_tx, spent_rx)));
        let wires = Wires {
            image: image_out,
            floors: floor_rx,
            spent: spent_tx,
            outputs,
            shown: shown_in,
            requests: request_rx,
            events: event_tx,
            stats: control_stats.clone(),
            drain: drain.clone(),
            stop: control_stop.clone(),
        };
        let control = match &plan.floor {
            Some(floor) => Some(control::start(&plan.control, floor.plan.clone(), floor.orders, clock, wires)?),
            None => None,
        };

        let board = Arc::new(Board::new(names.clone()));
        let own_floor = |plan| -> Arc<dyn Source> {
            Arc::new(Floor::new(plan, stage.clone(), shown.clone(), board.clone(), clock))
        };
        let floor = other_floor.or_else(|| floor_plan.clone().map(own_floor));
        let recorder = floor_plan.clone().filter(|_| kept).map(Recorder::new).filter(|r| r.robots() > 0);
        let traffic = recorder.map(|recorder| {
            let file = plan.floor.as_ref().and_then(|f| f.file.as_deref()?.file_name()).unwrap_or_default();
            let files = Files::new(&plan.state_dir.join("traffic"), recorder.header(&file.to_string_lossy()));
            (files.stats.clone(), traffic::keep(recorder, files, stage.clone(), shown.clone()))
        });
        let (traffic_stats, traffic) = match traffic {
            Some((stats, keep)) => (stats, Some(keep)),
            None => Default::default(),
        };
        let robots = Arc::new(RobotWatch::new(floor_plan, stage.clone(), shown));
        let (audit, known) = match plan.is_kept.then(|| Audit::open(&plan.state_dir)) {
            Some(Ok(opened)) => opened,
            Some(Err(why)) => {
                unusable.push(("commands", format!("{why}; what is commanded is in the log only")));
                (Audit::none(), Vec::new())
            }
            None => (Audit::none(), Vec::new()),
        };
        unusable.iter().for_each(|(_, why)| tracing::error!("{why}"));
        let spooled = plan.mqtt.as_ref().and_then(|m| m.spool.directory.clone());
        let kept_in = plan.is_kept.then(|| plan.state_dir.clone());
        let state = StateWatch::new(kept_in.into_iter().chain(spooled).collect(), unusable);
        let state = Arc::new(state.saying("tls/", tls.as_ref().and_then(|door| door.aside.clone())));
        let audit = Arc::new(audit);
        let writes = Arc::new(WriteDesk::new(audit.clone(), &known));
        let rest = lines::rest(&plan);
        let resend = plan.mqtt.as_ref().map_or(Duration::MAX, |m| m.heartbeat);
        let mut room = LineRoom::new(LineWires { clock, stage, publish, resend, seed }, writes.clone());
        room.certificates = certificates.clone();
        for (line, output) in plan.lines.into_iter().zip(line_outputs) {
            room.start(line, output);
        }
        room.show();
        let (line_list, index, meanings) = (room.list.clone(), room.index.clone(), room.meanings.clone());

        let (mqtt_stop, mqtt_stopped) = watch::channel(false);
        let (answering, answers) = mpsc::channel(ANSWERS);
        let orders = has_floor.then(|| desk.clone());
        let door = |p| Commands::new(p, writes.clone(), orders.clone(), audit.clone(), answering.clone());
        let commands = plan.mqtt.as_ref().and_then(|m| m.commands.clone()).map(door);
        let command_stats = commands.as_ref().map_or_else(Arc::default, |c| c.stats.clone());
        let tells = commands.as_ref().and_then(|c| c.order_topic()).zip(orders);
        let telling =
            tells.map(|(topic, desk)| tokio::spawn(tell_orders((desk, interrupted), topic, spool.spool.clone())));
        let alarms = Arc::new(AlarmDesk::default());
        // A Sparkplug host is told those that stand, by its edge node, if it wants to be.
        let own_messages = plan.mqtt.as_ref().filter(|m| m.sparkplug.is_none());
        let alarming = own_messages.map(|m| tell_alarms(alarms.news(), m.alarm_topic(), spool.spool.clone()));
        let mqtt = plan.mqtt.clone().map(|m| {
            let face: Box<dyn telemetry::mqtt::face::Face> = match (m.sparkplug.clone(), hub) {
                (Some(node), Some(hub)) => {
                    Box::new(Node::new(node, m.version, hub, spool.spool.clone(), commands, &alarms))
                }
                _ => Box::new(Plain::new(&m, commands).telling(meanings)),
            };
            let edge = Mqtt::with(m, spool.spool.clone(), mqtt_stats.clone(), seed, (face, answers));
            tokio::spawn(edge.run(mqtt_stopped))
        });

        let stages = Arc::new(Stages {
            clock,
            has_floor,
            robots,
            closings,
            control: control_stats,
            lines: line_list,
            spool: spool.spool.clone(),
            mqtt: mqtt_stats,
            desk: desk.clone(),
            writes,
            commands: command_stats,
            audit: audit.stats.clone(),
            traffic: traffic_stats,
            alarms,
            live: Arc::new(LiveStats::default()),
            certificates: certificates.clone(),
            http: Arc::new(HttpStats { is_unencrypted: plan.http.is_unencrypted, closed, ..HttpStats::default() }),
        });
        let reloader = Arc::new(Reloader::new(
            room,
            stages.alarms.clone(),
            (plan.file, plan.files),
            plan.access.dir.clone(),
            rest,
        ));
        let metrics = Metrics::new(stages.clone()).map_err(|e| e.to_string())?;
        let watcher = AlarmWatcher {
            desk: stages.alarms.clone(),
            stages: stages.clone(),
            board: board.clone(),
            people: access.clone(),
            state: state.clone(),
            unproven: plan.floor.map_or_else(Vec::new, |f| f.unproven),
            publishes: plan.mqtt.is_some(),
            wants_realtime: plan.control.realtime.wanted,
        };
        let face = Face::new(FaceParts {
            metrics,
            live: Live::new(stages.live.clone()),
            stages: stages.clone(),
            access,
            board: board.clone(),
            floor,
            field: index,
            gateway: plan.gateway,
            pki_dir: plan.state_dir.join("pki"),
            reloader: reloader.clone(),
            door: plan.http,
        });
        let shown_at = http::address_for_people(http_at, &face.door.names);
        let beat = face.clone();
        let mut others = vec![
            tokio::spawn(desk.clone().keep_books(event_rx, names, board)),
            tokio::spawn(watcher.run(move || beat.alive())),
            tokio::spawn(face.clone().make_frames()),
            tokio::spawn(http::serve(face.clone(), listener, tls.clone())),
            tokio::spawn(face.clone().watch_beat()),
            tokio::spawn(certificates.keep_looking()),
            tokio::spawn(clock::watch()),
            tokio::spawn(tend_state(state, face.clone())),
        ];
        others.extend(telling);
        others.extend(traffic.map(tokio::spawn));
        others.extend(alarming.map(tokio::spawn));
        others.extend(tls.clone().map(|door| tokio::spawn(door.keep_fresh())));
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!("serving {scheme}://{http_at}/");
        if let Some(door) = &tls {
            tracing::info!("its certificate, to be compared with what a browser shows: SHA-256 {}", door.thumbprint());
        }
        if let Some(token) = first {
            let at = format!("{scheme}://{shown_at}/#setup={token}");
            tracing::info!("nobody can sign in yet. The one-time token {token} makes the first admin: open {at}");
        }
        Ok(Agent {
            http: http_at,
            stages,
            desk,
            drain_limit: plan.drain,
            face,
            control,
            drain,
            control_stop,
            reloader,
            mqtt,
            mqtt_stop,
            others,
            spool,
            _held: held,
        })
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
        !self.stages.has_floor || matches!(self.stages.control.run_state(), RunState::Running | RunState::Degraded)
    }

    async fn bring_machines_to_rest(&self) {
        tracing::info!("stopping: machines finish what they are doing");
        self.drain.store(true, Relaxed);
        let deadline = Instant::now() + self.drain_limit;
        let running = || self.ready();
        while running() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if running() {
            tracing::warn!(
                "machines did not finish within {:?}; authority is withdrawn nevertheless",
                self.drain_limit
            );
        }
    }

    /// Stops in order: what moves is brought to its end, authority is withdrawn as the last thing every controller
    /// hears, samples are delivered, and the retained status says offline. Says what is given up of telemetry, if something is.
    pub async fn stop(self) -> Option<String> {
        if self.stages.has_floor {
            self.bring_machines_to_rest().await;
        }
        self.control_stop.store(true, Relaxed);
        if let Some(control) = self.control {
            let _ = tokio::task::spawn_blocking(move || control.join()).await;
        }

        self.reloader.stop().await;
        let _ = self.mqtt_stop.send(true);
        if let Some(mqtt) = self.mqtt {
            by(tokio::time::Instant::now() + PART_LIMIT, mqtt).await;
        }
        for task in &self.others {
            task.abort();
        }
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

/// Looks now and then at what was set aside, and sums up who was refused. A disk that hangs keeps nobody else.
async fn tend_state(state: Arc<StateWatch>, face: Arc<Face>) {
    let mut ticks = tokio::time::interval(state::LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (state, face) = (state.clone(), face.clone());
        let looked = tokio::task::spawn_blocking(move || {
            state.look();
            face.access.audit.tend(Instant::now());
        });
        let _ = looked.await;
    }
}

/// Promises every change of an order's state to the broker, in the stream `high`: `{topic}/{id}`.
async fn tell_orders((desk, first): (Arc<Desk>, Vec<OrderView>), topic: String, spool: Arc<Spool>) {
    let (mut changes, mut records, mut first) = (desk.changes(), Records::default(), first.into_iter());
    loop {
        let next = match first.next() {
            Some(view) => Ok(view),
            None => changes.recv().await,
        };
        let view = match next {
            Ok(view) => view,
            // The newest state of an order says what the ones before would have.
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let id = view.id.to_string();
        let stamp = (run_ms(), 1);
        let news = OrderNews { view, time: rfc3339(wall_clock_ms()).to_string() };
        records.push((Stream::High, Kind::Json), &[&topic, "/", &id], stamp, |out| numbered(out, &news));
        spool.append(&mut records);
    }
}

/// Promises every change of an alarm to the broker, in the stream `high`: `{topic}/{alarm}`.
async fn tell_alarms(mut news: broadcast::Receiver<AlarmNews>, topic: String, spool: Arc<Spool>) {
    let mut records = Records::default();
    loop {
        let news = match news.recv().await {
            Ok(news) => news,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!("{missed} changes of alarms came too fast to be published; the API has them");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let place = [&*topic, "/", news.change.alarm];
        records.push((Stream::High, Kind::Json), &place, (run_ms(), 0), |out| numbered(out, &news));
        spool.append(&mut records);
    }
}

/// An order and when it came to this.
#[derive(Serialize)]
struct OrderNews {
    #[serde(flatten)]
    view: OrderView,
    time: String,
}

/// Something as a JSON object, with its stream and the place of the sequence.
fn numbered(out: &mut Vec<u8>, what: &impl Serialize) -> usize {
    let start = out.len();
    let _ = serde_json::to_writer(&mut *out, what);
    out.pop(); // the closing brace
    out.extend_from_slice(b",\"stream\":\"high\",\"sequence\":");
    let hole = out.len() - start;
    out.push(b'}');
    hole
}

/// The spool, and what field lines need of it. Without a broker nothing is published, and the spool stays empty.
fn start_spool(
    mqtt: Option<&MqttPlan>,
    lines: &[LinePlan],
    stats: &MqttStats,
) -> Result<(SpoolHandle, Option<Publish>), String> {
    let Some(plan) = mqtt else {
        return Ok((Spool::start(None, SpoolOptions::new(0, "")).map_err(|e| e.to_string())?, None));
    };
    let options = SpoolOptions {
        age_max: plan.spool.age,
        retention: plan.spool.retention,
        ..SpoolOptions::new(plan.spool.capacity, &plan.loss_topic)
    };
    let handle = Spool::start(plan.spool.directory.as_deref(), options).map_err(|e| e.to_string())?;
    let (payload, encoding) = (plan.payload, plan.encoding);
    let hub = plan.sparkplug.as_ref().map(|s| Hub::new(lines, FIRST_DEVICE_ALIAS, s.templates));
    let message_max = stats.message_max.clone();
    let publish = Publish { spool: handle.spool.clone(), payload, encoding, hub, message_max };
    Ok((handle, Some(publish)))
}

/// Waits for a part to end; one that does not is left behind. No peer may keep a gateway from stopping.
async fn by(limit: tokio::time::Instant, mut part: JoinHandle<()>) {
    if tokio::time::timeout_at(limit, &mut part).await.is_err() {
        part.abort();
    }
}
