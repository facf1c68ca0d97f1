//! Figures for Prometheus, health for a supervisor, the beat for people.

use super::Face;
use super::guard::{As, VIEWER};
use super::problem::Problem;
use crate::control::run_state_name;
use crate::field::LineStats;
use crate::live::frames;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use control_core::event::RunState;
use device_drivers::{Health, LinkState};
use std::io::Write;
use std::sync::Arc;

/// The page Prometheus scrapes, compressed for whoever takes that: one line is much like the next.
pub(super) async fn metrics(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let broken = |e: &dyn std::fmt::Display| {
        let title = "the figures cannot be shown";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, e.to_string())
    };
    let page = face.metrics.page().map_err(|e| broken(&e))?;
    let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT), (header::VARY, "accept-encoding")];
    if !takes_gzip(&headers) {
        return Ok((kind, page).into_response());
    }
    let packed = gzip(page.as_bytes()).map_err(|e| broken(&e))?;
    Ok((kind, [(header::CONTENT_ENCODING, "gzip")], packed).into_response())
}

/// Whether somebody takes what is compressed (RFC 9110, 12.5.3): it is named, or all is, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = |name: &str| {
        let all = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
        all.flat_map(|v| v.split(',')).find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(name) {
                return None;
            }
            let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
            Some(weight.is_none_or(|q| q.trim().parse::<f32>().is_ok_and(|q| q > 0.0)))
        })
    };
    named("gzip").or_else(|| named("*")).unwrap_or(false)
}

fn gzip(page: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::with_capacity(page.len() / 8), flate2::Compression::fast());
    packed.write_all(page)?;
    packed.finish()
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
            if let Some((line, _)) = lines.iter().find(|(_, l)| l.state() != LinkState::Up) {
                return Err(format!("line {line} is down; what is behind it waits"));
            }
            let is_silent = |l: &LineStats| l.devices.iter().all(|d| d.health() == Health::Demoted);
            let silent = lines.iter().find(|(_, l)| !l.devices.is_empty() && is_silent(l));
            return silent.map_or(Ok(()), |(line, _)| Err(format!("line {line}: none of its devices answers")));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip_says_so() {
        let rows: [(&[&str], bool); 9] = [
            (&["gzip"], true),
            (&["deflate, gzip;q=0.5"], true),
            (&["br", "GZip"], true),
            (&["*"], true),
            (&["gzip;q=0, *"], false),
            (&["gzip; q=0.000"], false),
            (&["identity"], false),
            (&[""], false),
            (&[], false),
        ];
        for (said, want) in rows {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(takes_gzip(&headers), want, "{said:?}");
        }
    }
}
