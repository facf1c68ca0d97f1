//! Figures for Prometheus, health for a supervisor, the beat for people.

use super::Face;
use super::guard::{As, VIEWER};
use super::problem::Problem;
use crate::control::run_state_name;
use crate::live::frames;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use control_core::event::RunState;
use device_drivers::LinkState;
use std::sync::Arc;

pub(super) async fn metrics(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Result<Response, Problem> {
    let page = face.metrics.page().map_err(|e| {
        let title = "the figures cannot be shown";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, e.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response())
}

pub(super) async fn healthz(State(face): State<Arc<Face>>) -> Response {
    if face.alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no control cycle was completed in time\n").into_response()
    }
}

pub(super) async fn readyz(State(face): State<Arc<Face>>) -> Response {
    match readiness(&face) {
        Ok(()) => (StatusCode::OK, "ready\n".to_string()).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Whether the plant is read and every line is up; else why not.
pub(super) fn readiness(face: &Face) -> Result<(), String> {
    let state = if face.stages.has_floor { face.stages.control.run_state() } else { RunState::Running };
    let why = match state {
        RunState::Running | RunState::Degraded if face.alive() => {
            let lines = face.stages.lines.all();
            let down = lines.iter().find(|(_, l)| l.state() != LinkState::Up);
            return down.map_or(Ok(()), |(line, _)| Err(format!("line {line} is down; what is behind it waits")));
        }
        RunState::Running | RunState::Degraded => "no control cycle was completed in time",
        RunState::Starting | RunState::Recover => "the plant has not been read yet; are its controllers reachable?",
        RunState::Fenced => "another gateway owns the plant",
        RunState::Safe => "stopping",
    };
    Err(format!("{}: {why}", run_state_name(state)))
}

/// The beat: cycles, how long they take, how late they start, and how telemetry is doing.
#[utoipa::path(get, path = "/api/v1/beat", tag = "beat", responses((status = 200, body = frames::Beat)))]
pub(super) async fn beat(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Json<frames::Beat> {
    Json(frames::beat(&face.stages, face.alive()))
}
