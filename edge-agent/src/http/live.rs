//! Server-sent events: one stream a page, of the topics it asks for. Also the task that makes the frames.

use super::Face;
use super::guard::{As, VIEWER};
use super::problem::{Asked, Problem};
use super::server::IsLive;
use crate::closings::Closed;
use crate::live::{CLIENTS_MAX, TOPICS, Topic, frames};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use utoipa::IntoParams;

/// How often vehicles are told.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LiveQuery {
    /// Some of floor, loads, beat, orders, alarms, field, closed, with commas between; all when nothing is said.
    topics: Option<String>,
}

/// What happens, as it happens: `event: floor`, `data: {..}`. A client that is slow gets the newest frame, not all of them.
#[utoipa::path(get, path = "/api/v1/live", tag = "live", params(LiveQuery),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn live(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    Extension(is_live): Extension<IsLive>,
    Asked(query): Asked<LiveQuery>,
) -> Result<Response, Problem> {
    let topics = query.topics.as_deref().map_or_else(|| Ok(TOPICS.map(|(t, _)| t).to_vec()), topics)?;
    let stream = face.live.subscribe(topics).ok_or_else(|| {
        let detail = format!("{CLIENTS_MAX} look on already; try again later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many look on", detail)
    })?;
    is_live.0.store(true, Relaxed);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn topics(text: &str) -> Result<Vec<Topic>, Problem> {
    let mut wanted = Vec::new();
    for name in text.split(',') {
        let Some((topic, _)) = TOPICS.iter().find(|(_, n)| *n == name) else {
            let names: Vec<&str> = TOPICS.iter().map(|(_, n)| *n).collect();
            let detail = format!("topics: found \"{name}\", expected some of {}", names.join(", "));
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "there is no such topic", detail));
        };
        if !wanted.contains(topic) {
            wanted.push(*topic);
        }
    }
    Ok(wanted)
}

impl Face {
    /// Makes frames of what is looked at, for as long as it lives.
    pub async fn make_frames(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut n, mut joined, mut alarms) = (0u64, 0, 0);
        let (mut loads, mut orders, mut closed) = (Vec::new(), Vec::new(), Closed::default());
        loop {
            ticks.tick().await;
            n += 1;
            let somebody_is_new = joined != self.live.joined();
            joined = self.live.joined();
            let second = n.is_multiple_of(5) || somebody_is_new;
            if let Some(floor) = &self.floor {
                if self.live.is_watched(Topic::Floor) {
                    self.live.put(Topic::Floor, &floor.moment());
                }
                if self.live.is_watched(Topic::Loads) {
                    let now = floor.loads();
                    if somebody_is_new || now != loads {
                        loads = now;
                        self.live.put(Topic::Loads, &loads);
                    }
                }
            }
            if let Some(closings) = &self.stages.closings
                && self.live.is_watched(Topic::Closed)
            {
                let now = closings.closed();
                if somebody_is_new || now != closed {
                    closed = now;
                    self.live.put(Topic::Closed, &closed);
                }
            }
            if self.live.is_watched(Topic::Alarms) && (somebody_is_new || alarms != self.alarms.version()) {
                alarms = self.alarms.version();
                self.live.put(Topic::Alarms, &self.alarms.list());
            }
            if second && self.live.is_watched(Topic::Beat) {
                self.live.put(Topic::Beat, &frames::beat(&self.stages, self.alive()));
            }
            if second && self.live.is_watched(Topic::Field) {
                self.live.put(Topic::Field, &frames::field(&self.stages));
            }
            if second && self.live.is_watched(Topic::Orders) {
                let now = frames::orders(&self.desk, &self.board);
                if somebody_is_new || now != orders {
                    orders = now;
                    self.live.put(Topic::Orders, &orders);
                }
            }
        }
    }
}
