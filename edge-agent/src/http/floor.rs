//! The floor: what stands still, what moves, one vehicle.

use super::Face;
use super::guard::{As, OPERATOR, VIEWER};
use super::problem::{Named, Problem};
use crate::access::Who;
use crate::closings::{Closed, Refused, What};
use crate::scene::{Moment, Scene, VehicleDetail};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

fn none() -> Problem {
    Problem::not_found("there is no floor", "the configuration has no [floor]: this gateway gathers and forwards")
}

/// What stands still: tiers, places, roads, areas, and the vehicles there are.
#[utoipa::path(get, path = "/api/v1/floor", tag = "floor", responses((status = 200, body = Scene)))]
pub(super) async fn scene(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Result<Json<Scene>, Problem> {
    face.floor.as_ref().map(|f| Json(f.scene())).ok_or_else(none)
}

/// What moves, right now; a page hears it five times a second (`/api/v1/live?topics=floor,loads`).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FloorNow {
    #[serde(flatten)]
    moment: Moment,
    /// `[place, load]` of every load that is not on a vehicle; load 0 is a place that cannot be seen just now.
    #[schema(value_type = Vec<Vec<u32>>)]
    loads: Vec<(u32, u32)>,
}

/// What moves, and where the loads are.
#[utoipa::path(get, path = "/api/v1/floor/now", tag = "floor", responses((status = 200, body = FloorNow)))]
pub(super) async fn now(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Result<Json<FloorNow>, Problem> {
    let floor = face.floor.as_ref().ok_or_else(none)?;
    Ok(Json(FloorNow { moment: floor.moment(), loads: floor.loads() }))
}

/// One vehicle: what it is up to, why it is held, its last commands.
#[utoipa::path(get, path = "/api/v1/floor/vehicles/{vehicle}", tag = "floor",
    params(("vehicle" = String, Path, description = "Its name, or its place in the scene's list, which counts from 0")), responses((status = 200, body = VehicleDetail)))]
pub(super) async fn vehicle(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    vehicle: Result<Named<String>, Problem>,
) -> Result<Json<VehicleDetail>, Problem> {
    let missing = || Problem::not_found("no such vehicle", "GET /api/v1/floor lists them");
    let Named(said) = vehicle.map_err(|_| missing())?;
    let found = face.floor.as_ref().and_then(|f| {
        let named = || f.scene().vehicles.iter().position(|v| v.name == said);
        f.vehicle(said.parse().ok().or_else(named)?)
    });
    found.map(Json).ok_or_else(missing)
}

/// What is closed: places and roads to mobile robots, zones to loads.
#[utoipa::path(get, path = "/api/v1/floor/closed", tag = "floor", responses((status = 200, body = Closed)))]
pub(super) async fn closed(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Result<Json<Closed>, Problem> {
    Ok(Json(face.stages.closings.as_ref().ok_or_else(none)?.closed()))
}

/// Closes a place: no mobile robot is sent into it any more; who stands there drives out.
#[utoipa::path(put, path = "/api/v1/floor/places/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "Its name in GET /api/v1/floor, or its number")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn close_place(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Place, name, true).await
}

/// Opens a place again.
#[utoipa::path(delete, path = "/api/v1/floor/places/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "Its name in GET /api/v1/floor, or its number")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn open_place(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Place, name, false).await
}

/// Closes a road between two places beside each other, in both directions: no mobile robot is sent along it any more.
#[utoipa::path(put, path = "/api/v1/floor/roads/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "The names or numbers of its ends: A..B")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn close_road(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Road, name, true).await
}

/// Opens a road again.
#[utoipa::path(delete, path = "/api/v1/floor/roads/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "The names or numbers of its ends: A..B")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn open_road(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Road, name, false).await
}

/// Closes a tier or a belt: nothing is brought there or taken from there; what is on its way is brought elsewhere, what is inside waits.
#[utoipa::path(put, path = "/api/v1/floor/zones/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "A belt's name, or AISLE.tier-1 ..")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn close_zone(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Zone, name, true).await
}

/// Opens a tier or a belt again.
#[utoipa::path(delete, path = "/api/v1/floor/zones/{name}/closed", tag = "floor",
    params(("name" = String, Path, description = "A belt's name, or AISLE.tier-1 ..")),
    responses((status = 202, description = "Handed to the control thread")))]
pub(super) async fn open_zone(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    name: Result<Named<String>, Problem>,
) -> Result<StatusCode, Problem> {
    set(&face, &who, What::Zone, name, false).await
}

async fn set(
    face: &Arc<Face>,
    who: &Who,
    what: What,
    name: Result<Named<String>, Problem>,
    closed: bool,
) -> Result<StatusCode, Problem> {
    let name = name.map(|Named(n)| n).unwrap_or_default();
    let closings = face.stages.closings.clone();
    let asked = name.clone();
    // Distances are measured anew: not on a thread that serves others.
    let done = tokio::task::spawn_blocking(move || closings.map(|c| c.set(what, &asked, closed))).await.ok().flatten();
    let (outcome, answer) = match done {
        None => ("refused", Err(none())),
        Some(Ok(())) => ("done", Ok(StatusCode::ACCEPTED)),
        Some(Err(Refused::Unknown)) => {
            let (title, known) = match what {
                What::Place => ("no such place", "names are those of the floor file, numbers those of its places"),
                What::Road => {
                    ("no such road", "a road joins two places beside each other: A..B, by their names or numbers")
                }
                What::Zone => ("no such zone", "zones are belts by their names, and tiers: AISLE.tier-1 .."),
            };
            ("refused", Err(Problem::not_found(title, known)))
        }
        Some(Err(Refused::Busy)) => {
            ("busy", Err(Problem::busy("the last change is still on its way; try again in a second")))
        }
    };
    face.access.audit.note(who, if closed { "floor.close" } else { "floor.open" }, &name, outcome).await;
    answer
}
