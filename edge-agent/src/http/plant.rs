//! What reaches the plant beside orders: writes of tags, and a person's word that machines may go on.

use super::Face;
use super::guard::{As, ENGINEER, OPERATOR};
use super::problem::{Body, Named, Problem};
use crate::commands::{Origin, WriteForm, WriteView};
use crate::lines::{HEALTHY_WITHIN, ReloadError, Reloaded};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use control_core::cycle::Request;
use control_core::units::MachineId;
use std::sync::Arc;

/// Writes a tag that may be written, and waits for what comes of it.
#[utoipa::path(post, path = "/api/v1/writes", tag = "plant", request_body = WriteForm, responses(
    (status = 200, body = WriteView, description = "Written and read back"),
))]
pub(super) async fn write(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    Body(form): Body<WriteForm>,
) -> Result<Json<WriteView>, Problem> {
    let what = format!("{} = {}", form.tag, form.value);
    let view = face.stages.writes.write(form, Origin { via: "http", by: who.name.to_string() }).await;
    face.access.audit.note(&who, "tag.write", &what, view.outcome);
    let status = match view.outcome {
        "done" => return Ok(Json(view)),
        "not_allowed" => StatusCode::FORBIDDEN,
        "invalid" => StatusCode::UNPROCESSABLE_ENTITY,
        "too_often" => StatusCode::TOO_MANY_REQUESTS,
        "link_down" | "busy" => StatusCode::SERVICE_UNAVAILABLE,
        "expired" | "unknown" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::CONFLICT,
    };
    let detail = view.reason.clone().unwrap_or_default();
    Err(Problem::new(status, &format!("write-{}", view.outcome), "the tag was not written", detail).of_write(view))
}

/// A person says that machines that left AUTO may go on.
#[utoipa::path(post, path = "/api/v1/acknowledge", tag = "plant", responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn acknowledge(As(who): As<OPERATOR>, State(face): State<Arc<Face>>) -> Result<StatusCode, Problem> {
    let done = face.desk.request(Request::Acknowledge);
    face.access.audit.note(&who, "plant.acknowledge", "machines that left AUTO", if done { "done" } else { "busy" });
    if done { Ok(StatusCode::ACCEPTED) } else { Err(Problem::busy("too many requests at once; try again in a second")) }
}

/// A person says that a mobile robot that was never seen is not on the floor: until that is known of each, none is moved.
#[utoipa::path(post, path = "/api/v1/floor/vehicles/{index}/absent", tag = "plant",
    params(("index" = u32, Path, description = "Its place in the scene's list")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn absent(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    index: Result<Named<u32>, Problem>,
) -> Result<StatusCode, Problem> {
    let asked = index.ok().and_then(|Named(n)| u16::try_from(n).ok()).map(MachineId);
    let Some(id) = asked.filter(|id| face.stages.robots.is_robot(*id)) else {
        face.access.audit.note(&who, "plant.absent", "no such robot", "refused");
        return Err(Problem::not_found("no such mobile robot", "GET /api/v1/floor lists the vehicles"));
    };
    let done = face.desk.request(Request::Absent(id));
    let name = face.stages.robots.name(id);
    face.access.audit.note(&who, "plant.absent", &name, if done { "done" } else { "busy" });
    if done { Ok(StatusCode::ACCEPTED) } else { Err(Problem::busy("too many requests at once; try again in a second")) }
}

/// Reads the configuration again and takes over what differs, all of it or nothing: lines that are the same keep their sockets and counters;
/// lines that are new or changed have to come up within 20 s, else the last good configuration is in force again.
#[utoipa::path(post, path = "/api/v1/reload", tag = "plant", responses((status = 200, body = Reloaded, description = "Taken over")))]
pub(super) async fn reload(As(who): As<ENGINEER>, State(face): State<Arc<Face>>) -> Result<Json<Reloaded>, Problem> {
    let done = face.reloader.reload(HEALTHY_WITHIN).await.map_err(|why| match &why {
        ReloadError::Wrong(text) => Problem::invalid("the configuration is wrong; nothing was changed", text.clone()),
        ReloadError::NeedsRestart(text) => {
            Problem::conflict("needs-restart", "this needs a restart; nothing was changed", text.clone())
        }
        ReloadError::NotHealthy(text) => {
            Problem::conflict("not-healthy", "the new lines did not come up", text.clone())
        }
    });
    face.access.audit.note(&who, "reload", "", done.as_ref().map_or_else(|p| p.detail(), |_| "done"));
    done.map(Json)
}
