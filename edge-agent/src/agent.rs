//! The wiring: the only place that knows every part. Start in the order of the data flow, stop in the reverse.
//!
//! ```text
//!   start:  desk, spool ─> control thread ─> lines ─> MQTT ─> HTTP
//!   stop:   drain ─> control thread withdraws authority ─> lines write that and close ─> spool drains ─> farewell
//! ```

use crate::clock::Clock;
use crate::config::Plan;
use crate::config::plan::{DriverPlan, LinePlan};
use crate::control::{self, ControlStats, EVENTS, REQUESTS, Wires};
use crate::desk::Desk;
use crate::field::{FieldLine, ImageStage, LineStats};
use crate::http::{self, Face};
use crate::metrics::{Metrics, Stages};
use crate::telemetry::Spool;
use crate::telemetry::mqtt::{Mqtt, MqttStats};
use control_core::event::RunState;
use control_core::{InputImage, OutputImage};
use device_drivers::line::{Backoff, run_line};
use device_drivers::modbus::ModbusTcp;
use device_drivers::opcua::OpcUa;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use triple_buffer::triple_buffer;

/// First and longest wait before a line is tried again. The longest is short: a factory that waits is expensive,
/// and a connection attempt costs nothing.
const LINE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long a stop waits for one line, or for the broker.
const PART_LIMIT: Duration = Duration::from_secs(8);

/// A running agent.
pub struct Agent {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// All counters.
    pub stages: Arc<Stages>,
    /// Order desk.
    pub desk: Arc<Desk>,
    plan: Arc<Plan>,
    face: Arc<Face>,
    control: std::thread::JoinHandle<()>,
    drain: Arc<AtomicBool>,
    control_stop: Arc<AtomicBool>,
    lines: Vec<JoinHandle<()>>,
    lines_stop: watch::Sender<bool>,
    mqtt: JoinHandle<()>,
    mqtt_stop: watch::Sender<bool>,
    others: Vec<JoinHandle<()>>,
}

impl Agent {
    /// Starts everything. Needs a tokio runtime. Whether PLCs or broker can be reached does not matter.
    pub async fn start(plan: Plan) -> Result<Agent, String> {
        let plan = Arc::new(plan);
        let clock = Clock::new();
        let seed = fastrand::u64(..);
        let listener =
            TcpListener::bind(plan.listen).await.map_err(|e| format!("cannot listen on {}: {e}", plan.listen))?;
        let http_at = listener.local_addr().map_err(|e| e.to_string())?;

        let (request_tx, request_rx) = rtrb::RingBuffer::new(REQUESTS);
        let (event_tx, event_rx) = rtrb::RingBuffer::new(EVENTS);
        let desk = Desk::new(request_tx);
        let spool = Arc::new(Spool::new(plan.mqtt.spool_samples));
        let (image_in, image_out) = triple_buffer(&InputImage::default());
        let stage = ImageStage::new(image_in);
        let (outputs, line_outputs): (Vec<_>, Vec<_>) =
            plan.lines.iter().map(|_| triple_buffer(&OutputImage::default())).unzip();

        let control_stats = Arc::new(ControlStats::default());
        let (drain, control_stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let wires = Wires {
            image: image_out,
            outputs,
            requests: request_rx,
            events: event_tx,
            stats: control_stats.clone(),
            drain: drain.clone(),
            stop: control_stop.clone(),
        };
        let control = control::start(&plan.control, plan.layout, clock, wires)?;

        let (lines_stop, lines_stopped) = watch::channel(false);
        let mut line_stats = Vec::new();
        let mut lines = Vec::new();
        for (line, output) in plan.lines.iter().zip(line_outputs) {
            let stats = Arc::new(LineStats::default());
            line_stats.push((line.name.clone(), stats.clone()));
            let sink = FieldLine::new(line, plan.mqtt.heartbeat, clock, stage.clone(), output, spool.clone(), stats);
            lines.push(start_line(line, sink, seed ^ lines.len() as u64, lines_stopped.clone()));
        }

        let mqtt_stats = Arc::new(MqttStats::default());
        let (mqtt_stop, mqtt_stopped) = watch::channel(false);
        let mqtt = Mqtt::new(plan.mqtt.clone(), spool.clone(), mqtt_stats.clone(), seed).run(mqtt_stopped);
        let mqtt = tokio::spawn(mqtt);

        let stages =
            Arc::new(Stages { control: control_stats, lines: line_stats, spool, mqtt: mqtt_stats, desk: desk.clone() });
        let metrics = Metrics::new(stages.clone()).map_err(|e| e.to_string())?;
        let face = Face::new(metrics, desk.clone(), stages.clone());
        let others = vec![
            tokio::spawn(desk.clone().keep_books(event_rx, plan.clone())),
            tokio::spawn(http::serve(face.clone(), listener)),
            tokio::spawn(face.clone().watch_beat()),
        ];
        tracing::info!("serving http://{http_at}/");
        Ok(Agent {
            http: http_at,
            stages,
            desk,
            plan,
            face,
            control,
            drain,
            control_stop,
            lines,
            lines_stop,
            mqtt,
            mqtt_stop,
            others,
        })
    }

    /// Whether the control cycle is alive, for the supervisor's watchdog.
    pub fn alive(&self) -> bool {
        self.face.alive()
    }

    /// Whether orders are taken.
    pub fn ready(&self) -> bool {
        matches!(self.stages.control.run_state(), RunState::Running | RunState::Degraded)
    }

    /// Stops in order: what moves is brought to its end, authority is withdrawn as the last thing every controller
    /// hears, samples are delivered, and the retained status says offline.
    pub async fn stop(self) {
        tracing::info!("stopping: machines finish what they are doing");
        self.drain.store(true, Relaxed);
        let deadline = Instant::now() + self.plan.drain;
        let running = || self.ready();
        while running() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if running() {
            tracing::warn!("machines did not finish within {:?}; authority is withdrawn nevertheless", self.plan.drain);
        }
        self.control_stop.store(true, Relaxed);
        let control = self.control;
        let _ = tokio::task::spawn_blocking(move || control.join()).await;

        let _ = self.lines_stop.send(true);
        for line in self.lines {
            within(line).await;
        }
        let _ = self.mqtt_stop.send(true);
        within(self.mqtt).await;
        for task in &self.others {
            task.abort();
        }
        tracing::info!("stopped");
    }
}

/// Waits for a part to end; one that does not is left behind. No peer may keep a gateway from stopping.
async fn within(mut part: JoinHandle<()>) {
    if tokio::time::timeout(PART_LIMIT, &mut part).await.is_err() {
        part.abort();
    }
}

fn start_line(plan: &LinePlan, sink: FieldLine, seed: u64, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let backoff = Backoff::new(LINE_BACKOFF.0, LINE_BACKOFF.1, seed);
    let (_, wishes) = tokio::sync::mpsc::channel(1);
    match &plan.driver {
        DriverPlan::Modbus(spec) => tokio::spawn(run_line(ModbusTcp::new(spec.clone()), sink, wishes, backoff, stop)),
        DriverPlan::OpcUa(spec) => tokio::spawn(run_line(OpcUa::new(spec.clone()), sink, wishes, backoff, stop)),
    }
}
