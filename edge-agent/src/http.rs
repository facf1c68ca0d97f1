//! Metrics, health and orders over HTTP. Nothing here can delay a cycle: it reads atomics, and hands orders to a ring.
//!
//! A hostile client is let go: headers within [`HEADER_LIMIT`], bodies up to [`BODY_MAX`], [`CONNECTIONS_MAX`] at once.

use crate::commands::{Origin, WriteForm};
use crate::control::run_state_name;
use crate::desk::{Desk, OrderForm, Submitted};
use crate::metrics::{Metrics, Stages};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use control_core::cycle::Request;
use control_core::event::RunState;
use device_drivers::LinkState;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Largest body taken, bytes: an order has some hundred.
pub const BODY_MAX: usize = 64 * 1024;
/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 64;
/// Time for the headers of a request.
pub const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Longest life of a connection: a client that reads slowly is let go, one that wants more comes again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// How long an order waits for the control thread's word.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The control thread is alive if it has completed a cycle since this long.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// What the handlers see.
pub struct Face {
    /// Exporter.
    pub metrics: Metrics,
    /// Order desk.
    pub desk: Arc<Desk>,
    /// All counters.
    pub stages: Arc<Stages>,
    /// Cycles counted when last asked, and when that was.
    alive: AtomicU64,
}

impl Face {
    /// A face of these parts.
    pub fn new(metrics: Metrics, desk: Arc<Desk>, stages: Arc<Stages>) -> Arc<Face> {
        Arc::new(Face { metrics, desk, stages, alive: AtomicU64::new(u64::MAX) })
    }

    /// Watches the beat: whether a cycle was completed within [`ALIVE_WITHIN`].
    pub async fn watch_beat(self: Arc<Self>) {
        if !self.stages.has_floor {
            return; // no beat to be kept: the process answers, and that is its life
        }
        loop {
            let before = self.stages.control.cycles.load(Relaxed);
            tokio::time::sleep(ALIVE_WITHIN / 2).await;
            let moved = self.stages.control.cycles.load(Relaxed) != before;
            self.alive.store(u64::from(moved), Relaxed);
        }
    }

    /// Whether the beat is kept.
    pub fn alive(&self) -> bool {
        self.alive.load(Relaxed) != 0
    }
}

/// An error as RFC 9457 shapes it.
#[derive(Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

fn problem(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Response {
    let body = Problem { title, status: status.as_u16(), detail: detail.into() };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
}

/// Serves until the task is aborted.
pub async fn serve(face: Arc<Face>, listener: TcpListener) {
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/orders", post(submit).get(list))
        .route("/api/v1/orders/{id}", get(one))
        .route("/api/v1/writes", post(write))
        .route("/api/v1/acknowledge", post(acknowledge))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such page", "GET / lists what there is") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(face);
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, most likely
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _seat = seat;
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(BODY_MAX);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await; // its errors are the client's
        });
    }
}

const INDEX: &str = "Lightsout edge-agent

GET  /metrics               figures for Prometheus
GET  /healthz               200 while the control cycle is alive
GET  /readyz                200 while the plant is read and every line is up, else 503 and why
POST /api/v1/orders         {\"kind\":\"store\"|\"retrieve\"|\"process\",\"load\":1001,\"program\":1,\"class\":1,\"key\":\"..\"}
GET  /api/v1/orders         newest first; ?limit=100&state=running
GET  /api/v1/orders/{id}    one order
POST /api/v1/writes         {\"tag\":\"press-1/setpoint\",\"value\":21.5,\"within_ms\":1000,\"key\":\"..\"}
POST /api/v1/acknowledge    machines that left AUTO may go on
";

async fn index() -> &'static str {
    INDEX
}

async fn metrics(State(face): State<Arc<Face>>) -> Response {
    match face.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(e) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be shown", e.to_string()),
    }
}

async fn healthz(State(face): State<Arc<Face>>) -> Response {
    if face.alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no control cycle was completed in time\n").into_response()
    }
}

async fn readyz(State(face): State<Arc<Face>>) -> Response {
    let state = if face.stages.has_floor { face.stages.control.run_state() } else { RunState::Running };
    let why = match state {
        RunState::Running | RunState::Degraded if face.alive() => {
            let down = face.stages.lines.iter().find(|(_, l)| l.state() != LinkState::Up);
            return match down {
                None => (StatusCode::OK, "ready\n".to_string()),
                Some((line, _)) => {
                    (StatusCode::SERVICE_UNAVAILABLE, format!("line {line} is down; what is behind it waits\n"))
                }
            }
            .into_response();
        }
        RunState::Running | RunState::Degraded => "no control cycle was completed in time",
        RunState::Starting | RunState::Recover => "the plant has not been read yet; are its controllers reachable?",
        RunState::Fenced => "another gateway owns the plant",
        RunState::Safe => "stopping",
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {why}\n", run_state_name(state))).into_response()
}

async fn write(State(face): State<Arc<Face>>, form: Result<Json<WriteForm>, JsonRejection>) -> Response {
    let form = match form {
        Ok(Json(form)) => form,
        Err(why) => return problem(why.status(), "this is not a write", why.body_text()),
    };
    let view = face.stages.writes.write(form, Origin { via: "http", by: "http".into() }).await;
    let status = match view.outcome {
        "done" => StatusCode::OK,
        "not_allowed" => StatusCode::FORBIDDEN,
        "invalid" => StatusCode::UNPROCESSABLE_ENTITY,
        "too_often" => StatusCode::TOO_MANY_REQUESTS,
        "link_down" | "busy" => StatusCode::SERVICE_UNAVAILABLE,
        "expired" | "unknown" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(view)).into_response()
}

async fn submit(State(face): State<Arc<Face>>, form: Result<Json<OrderForm>, JsonRejection>) -> Response {
    if !face.stages.has_floor {
        let why = "the configuration has no [floor]";
        return problem(StatusCode::CONFLICT, "this gateway moves nothing", why);
    }
    let form = match form {
        Ok(Json(form)) => form,
        Err(why) => return problem(why.status(), "this is not an order", why.body_text()),
    };
    match face.desk.submit(form, ANSWER_LIMIT).await {
        Submitted::Order(view) => (StatusCode::CREATED, Json(view)).into_response(),
        Submitted::Known(view) => (StatusCode::OK, Json(view)).into_response(),
        Submitted::KeyTaken(view) => {
            let why = format!("the key stands for order {}, load {}; give a new order a new key", view.id, view.load);
            problem(StatusCode::CONFLICT, "this key was used for another order", why)
        }
        Submitted::Refused(view) => {
            let why = view.reason.unwrap_or("refused");
            problem(StatusCode::CONFLICT, "the order was refused", format!("order {}: {why}", view.id))
        }
        Submitted::Invalid(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, "this is not an order", why),
        Submitted::Busy => problem(StatusCode::SERVICE_UNAVAILABLE, "too many orders at once", "try again in a second"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    state: Option<String>,
}

async fn list(State(face): State<Arc<Face>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(q)) => Json(face.desk.newest(q.limit.unwrap_or(100).min(1000), q.state.as_deref())).into_response(),
        Err(why) => problem(StatusCode::BAD_REQUEST, "this is not a question for orders", why.body_text()),
    }
}

async fn one(State(face): State<Arc<Face>>, id: Result<Path<u32>, PathRejection>) -> Response {
    let found = id.ok().and_then(|Path(id)| face.desk.order(id));
    match found {
        Some(view) => Json(view).into_response(),
        None => problem(StatusCode::NOT_FOUND, "no such order", "it never was, or ended long ago"),
    }
}

async fn acknowledge(State(face): State<Arc<Face>>) -> Response {
    tracing::info!("a person acknowledges: machines that left AUTO may go on");
    if face.desk.request(Request::Acknowledge) {
        StatusCode::ACCEPTED.into_response()
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once", "try again in a second")
    }
}
