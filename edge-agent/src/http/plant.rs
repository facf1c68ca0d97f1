//! What reaches the plant beside orders: writes of tags, and a person's word on mobile robots. On machines that left AUTO: `acknowledge`.

use super::Face;
use super::guard::{As, ENGINEER, OPERATOR};
use super::problem::{Body, Named, Problem};
use crate::access::Who;
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
    let origin = Origin { via: "http", by: who.name.to_string(), from: who.from.to_string() };
    let view = face.stages.writes.write(form, origin).await;
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
    let title = match view.outcome {
        "unknown" => "it is not known whether the tag was written",
        "differs" => "the tag was written, and holds something else",
        _ => "the tag was not written",
    };
    Err(Problem::new(status, &format!("write-{}", view.outcome), title, detail).of_write(view))
}

/// A person says that a mobile robot is not on the floor. Of one that was never seen: until that is known of each, none is moved. Of one that
/// is silent or astray: its places are free again. One that stands where it is known to stands in the way whatever is said. One that can be
/// seen comes back with `located` alone.
#[utoipa::path(post, path = "/api/v1/floor/vehicles/{vehicle}/absent", tag = "plant",
    params(("vehicle" = String, Path, description = "Its name, as robot-3; or its place in the scene's list, which counts from 0 through all vehicles")),
    responses((status = 202, body = Meant, description = "Handed to the control thread")))]
pub(super) async fn absent(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    vehicle: Result<Named<String>, Problem>,
) -> Result<(StatusCode, Json<Meant>), Problem> {
    of_robot(&face, &who, vehicle, "plant.absent", Request::Absent).await
}

/// A person says that a mobile robot that is astray, or was taken off the floor, is where it says it is: that is believed if it is a place and
/// free, and what was kept closed for it is open again.
#[utoipa::path(post, path = "/api/v1/floor/vehicles/{vehicle}/located", tag = "plant",
    params(("vehicle" = String, Path, description = "Its name, as robot-3; or its place in the scene's list, which counts from 0 through all vehicles")),
    responses((status = 202, body = Meant, description = "Handed to the control thread")))]
pub(super) async fn located(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    vehicle: Result<Named<String>, Problem>,
) -> Result<(StatusCode, Json<Meant>), Problem> {
    of_robot(&face, &who, vehicle, "plant.located", Request::Located).await
}

/// Which one was meant.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(super) struct Meant {
    /// Its name.
    vehicle: String,
}

/// A person's word on one mobile robot.
async fn of_robot(
    face: &Arc<Face>,
    who: &Who,
    vehicle: Result<Named<String>, Problem>,
    action: &'static str,
    request: fn(MachineId) -> Request,
) -> Result<(StatusCode, Json<Meant>), Problem> {
    let Some(id) = vehicle.ok().and_then(|Named(said)| face.stages.robots.find(&said)) else {
        face.access.audit.note(who, action, "no such robot", "refused").await;
        return Err(Problem::not_found("no such mobile robot", "GET /api/v1/floor lists the vehicles"));
    };
    let (request, name) = (request(id), face.stages.robots.name(id));
    let seen = face.stages.robots.is_seen(id);
    let done = face.desk.request(request);
    match request {
        Request::Absent(_) if done => face.stages.absent.leaves(&name, seen),
        _ if done => face.stages.absent.comes_back(&name),
        _ => {}
    }
    face.access.audit.note(who, action, &name, if done { "done" } else { "busy" }).await;
    match done {
        true => Ok((StatusCode::ACCEPTED, Json(Meant { vehicle: name }))),
        false => Err(Problem::busy("too many requests at once; try again in a second")),
    }
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
    face.access.audit.note(&who, "reload", "", done.as_ref().map_or_else(|p| p.detail(), |_| "done")).await;
    done.map(Json)
}
