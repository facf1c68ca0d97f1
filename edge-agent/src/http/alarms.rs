//! Alarms: those that are not normal, what they all mean, what happened, and what a person does about them.

use super::Face;
use super::guard::{As, OPERATOR, VIEWER};
use super::problem::{Body, Problem};
use crate::access::Who;
use crate::alarms::{AlarmChange, AlarmError, AlarmView, Priority, TABLE};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// Changes in one answer.
const HISTORY: usize = 200;

/// Alarms that are not normal, the most urgent first.
#[utoipa::path(get, path = "/api/v1/alarms", tag = "alarms", responses((status = 200, body = Vec<AlarmView>)))]
pub(super) async fn list(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Json<Vec<AlarmView>> {
    Json(face.alarms.list())
}

/// A row of the table.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmRow {
    /// Its name.
    alarm: &'static str,
    /// How soon somebody has to act.
    priority: Priority,
    /// What it means.
    means: &'static str,
    /// What to do.
    action: &'static str,
    /// It has to hold for this long, seconds.
    delay_s: u64,
}

/// Every alarm there is, and what to do about it.
#[utoipa::path(get, path = "/api/v1/alarms/table", tag = "alarms", responses((status = 200, body = Vec<AlarmRow>)))]
pub(super) async fn table(_: As<VIEWER>) -> Json<Vec<AlarmRow>> {
    let row = |r: &crate::alarms::Row| AlarmRow {
        alarm: r.id,
        priority: r.priority,
        means: r.means,
        action: r.action,
        delay_s: r.delay.as_secs(),
    };
    Json(TABLE.iter().map(row).collect())
}

/// What happened, newest first.
#[utoipa::path(get, path = "/api/v1/alarms/history", tag = "alarms", responses((status = 200, body = Vec<AlarmChange>)))]
pub(super) async fn history(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Json<Vec<AlarmChange>> {
    Json(face.alarms.history(HISTORY))
}

/// Which alarm.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Row of the table.
    alarm: String,
    /// What it is about.
    subject: String,
}

/// Which alarm, for how long, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shelve {
    /// Row of the table.
    alarm: String,
    /// What it is about.
    subject: String,
    /// For so many minutes, 1 to 480.
    #[schema(minimum = 1, maximum = 480)]
    minutes: u32,
    /// Why.
    #[schema(min_length = 1, max_length = 200)]
    reason: String,
}

async fn answer(
    face: &Face,
    who: &Who,
    action: &str,
    target: &str,
    done: Result<(), AlarmError>,
) -> Result<StatusCode, Problem> {
    let done = done.map_err(|why| match why {
        AlarmError::NotRaised => {
            Problem::not_found("no such alarm", "it is not raised, or not shelved, or was never there")
        }
        AlarmError::Invalid(why) => Problem::invalid("this alarm cannot be shelved so", why),
    });
    face.access.audit.note(who, action, target, done.as_ref().map_or_else(|p| p.detail(), |()| "done")).await;
    done.map(|()| StatusCode::NO_CONTENT)
}

/// Somebody has seen an alarm.
#[utoipa::path(post, path = "/api/v1/alarms/acknowledge", tag = "alarms", request_body = Which,
    responses((status = 204, description = "Done")))]
pub(super) async fn acknowledge(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    Body(Which { alarm, subject }): Body<Which>,
) -> Result<StatusCode, Problem> {
    let done = face.alarms.acknowledge(&alarm, &subject, &who.name);
    answer(&face, &who, "alarm.acknowledge", &format!("{alarm} {subject}"), done).await
}

/// Puts an alarm aside for a time, for a reason.
#[utoipa::path(post, path = "/api/v1/alarms/shelve", tag = "alarms", request_body = Shelve,
    responses((status = 204, description = "Done")))]
pub(super) async fn shelve(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    Body(Shelve { alarm, subject, minutes, reason }): Body<Shelve>,
) -> Result<StatusCode, Problem> {
    let time = Duration::from_secs(u64::from(minutes) * 60);
    let done = face.alarms.shelve(&alarm, &subject, &who.name, time, &reason);
    answer(&face, &who, "alarm.shelve", &format!("{alarm} {subject}, {minutes} min: {reason}"), done).await
}

/// Takes an alarm off the shelf.
#[utoipa::path(post, path = "/api/v1/alarms/unshelve", tag = "alarms", request_body = Which,
    responses((status = 204, description = "Done")))]
pub(super) async fn unshelve(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    Body(Which { alarm, subject }): Body<Which>,
) -> Result<StatusCode, Problem> {
    let done = face.alarms.unshelve(&alarm, &subject, &who.name);
    answer(&face, &who, "alarm.unshelve", &format!("{alarm} {subject}"), done).await
}
