//! The floor: what stands still, what moves, one vehicle.

use super::Face;
use super::guard::{As, VIEWER};
use super::problem::{Named, Problem};
use crate::scene::{Moment, Scene, VehicleDetail};
use axum::Json;
use axum::extract::State;
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
    /// `[place, load]` of every load that is not on a vehicle.
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
#[utoipa::path(get, path = "/api/v1/floor/vehicles/{index}", tag = "floor",
    params(("index" = u32, Path, description = "Its place in the scene's list")), responses((status = 200, body = VehicleDetail)))]
pub(super) async fn vehicle(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    index: Result<Named<u32>, Problem>,
) -> Result<Json<VehicleDetail>, Problem> {
    let missing = || Problem::not_found("no such vehicle", "GET /api/v1/floor lists them");
    let Named(index) = index.map_err(|_| missing())?;
    face.floor.as_ref().and_then(|f| f.vehicle(usize::try_from(index).ok()?)).map(Json).ok_or_else(missing)
}
