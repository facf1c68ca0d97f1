//! Orders: give, look at, raise, withdraw.

use super::Face;
use super::guard::{As, OPERATOR, VIEWER};
use super::problem::{Asked, Body, Named, Problem};
use crate::board::Step;
use crate::desk::{Changed, OrderForm, OrderState, OrderView, Submitted};
use crate::live::frames::{self, OrderRow};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use control_core::resume::Decision;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// How long an order waits for the control thread's word.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Orders in one answer.
const LIST_MAX: usize = 1000;

fn no_floor() -> Problem {
    Problem::conflict("no-floor", "this gateway moves nothing", "the configuration has no [floor]")
}

/// Gives an order.
#[utoipa::path(post, path = "/api/v1/orders", tag = "orders", request_body = OrderForm, responses(
    (status = 201, body = OrderView, description = "Taken"),
    (status = 200, body = OrderView, description = "The key is known: this is the order it made"),
))]
pub(super) async fn submit(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    Body(form): Body<OrderForm>,
) -> Result<(StatusCode, Json<OrderView>), Problem> {
    if !face.stages.has_floor {
        return Err(no_floor());
    }
    let what = format!("{:?} load {}", form.kind, form.load).to_lowercase();
    let done = match face.desk.submit(form, ANSWER_LIMIT).await {
        Submitted::Order(view) => Ok((StatusCode::CREATED, view)),
        Submitted::Known(view) => Ok((StatusCode::OK, view)),
        Submitted::KeyTaken(clash) => {
            Err(Problem::conflict("key-taken", "this key was used for another order", clash.to_string()))
        }
        Submitted::Refused(view) => {
            let why = view.reason.as_deref().unwrap_or("refused");
            Err(Problem::conflict("refused", "the order was refused", format!("order {}: {why}", view.id)))
        }
        Submitted::Invalid(why) => Err(Problem::invalid("this is not an order", why)),
        Submitted::Busy => Err(Problem::busy("too many orders at once; try again in a second")),
    };
    let outcome = done.as_ref().map(|(_, view)| format!("order {}", view.id));
    face.access.audit.note_try(&who, "order.submit", &what, outcome.as_deref().map_err(|p| p.detail()));
    done.map(|(status, view)| (status, Json(view)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// So many at most; 100 when nothing is said.
    #[param(minimum = 0)]
    limit: Option<u32>,
    /// Only those in this state.
    #[param(inline)]
    state: Option<OrderState>,
}

/// The newest orders, newest first.
#[utoipa::path(get, path = "/api/v1/orders", tag = "orders", params(ListQuery), responses((status = 200, body = Vec<OrderRow>)))]
pub(super) async fn list(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    Asked(q): Asked<ListQuery>,
) -> Json<Vec<OrderRow>> {
    let limit = q.limit.map_or(100, |n| usize::try_from(n).unwrap_or(LIST_MAX)).min(LIST_MAX);
    Json(frames::rows(&face.board, face.desk.newest(limit, q.state)))
}

/// An order with its story.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderStory {
    #[serde(flatten)]
    row: OrderRow,
    /// What happened to it, oldest first.
    story: Vec<Step>,
}

fn no_such() -> Problem {
    Problem::not_found("no such order", "it never was, or ended long ago")
}

/// One order, with its story.
#[utoipa::path(get, path = "/api/v1/orders/{id}", tag = "orders", params(("id" = u32, Path, description = "Its number")),
    responses((status = 200, body = OrderStory)))]
pub(super) async fn one(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    id: Result<Named<u32>, Problem>,
) -> Result<Json<OrderStory>, Problem> {
    let Named(id) = id.map_err(|_| no_such())?;
    let order = face.desk.order(id).ok_or_else(no_such)?;
    let story = face.board.story(id).unwrap_or_default().steps;
    let row = frames::rows(&face.board, vec![order]).pop().ok_or_else(no_such)?;
    Ok(Json(OrderStory { row, story }))
}

/// What can be changed of an order that has not ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderChange {
    /// 0 rush, 1, 2, 3 bulk.
    #[schema(minimum = 0, maximum = 3)]
    class: u8,
}

fn changed(face: &Face, id: u32, done: Changed) -> Result<Json<OrderView>, Problem> {
    match done {
        Changed::Asked => face.desk.order(id).map(Json).ok_or_else(no_such),
        Changed::Unknown => Err(no_such()),
        Changed::Ended(state) => {
            let detail = format!("order {id} is {state:?} already").to_lowercase();
            Err(Problem::conflict("ended", "the order has ended", detail))
        }
        Changed::NotHeld => {
            let detail = format!("order {id} goes on by itself; only one that is held is decided upon");
            Err(Problem::conflict("not-held", "the order is not held", detail))
        }
        Changed::Busy => Err(Problem::busy("too many requests at once; try again in a second")),
    }
}

/// Changes the class of an order: 0 goes before everything.
#[utoipa::path(patch, path = "/api/v1/orders/{id}", tag = "orders", params(("id" = u32, Path, description = "Its number")),
    request_body = OrderChange, responses((status = 200, body = OrderView)))]
pub(super) async fn change(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    id: Result<Named<u32>, Problem>,
    Body(form): Body<OrderChange>,
) -> Result<Json<OrderView>, Problem> {
    let Named(id) = id.map_err(|_| no_such())?;
    if form.class > 3 {
        return Err(Problem::invalid("there is no such class", "class: expected 0 (rush), 1, 2 or 3 (bulk)"));
    }
    let done = changed(&face, id, face.desk.reclass(id, form.class));
    let outcome = done.as_ref().map(|_| format!("class {}", form.class));
    let target = format!("order {id}");
    face.access.audit.note_try(&who, "order.class", &target, outcome.as_deref().map_err(|p| p.detail()));
    face.access.audit.settle().await;
    done
}

/// What becomes of an order that is held.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DecisionForm {
    /// It goes on, from where its load is seen.
    GoOn,
    /// It is done.
    Done,
    /// It is given up; its load is put away if it stands in the way.
    GiveUp,
}

/// A person's decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderDecision {
    /// What becomes of it.
    decision: DecisionForm,
}

/// Decides on an order that is held: after a restart the plant and the record disagree about it.
#[utoipa::path(post, path = "/api/v1/orders/{id}/decision", tag = "orders", params(("id" = u32, Path, description = "Its number")),
    request_body = OrderDecision, responses((status = 202, body = OrderView, description = "Handed to the control thread")))]
pub(super) async fn decide(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    id: Result<Named<u32>, Problem>,
    Body(form): Body<OrderDecision>,
) -> Result<(StatusCode, Json<OrderView>), Problem> {
    let Named(id) = id.map_err(|_| no_such())?;
    let (decision, said) = match form.decision {
        DecisionForm::GoOn => (Decision::GoOn, "goes on"),
        DecisionForm::Done => (Decision::Done, "is done"),
        DecisionForm::GiveUp => (Decision::GiveUp, "is given up"),
    };
    let done = changed(&face, id, face.desk.decide(id, decision));
    let outcome = done.as_ref().map(|_| said).map_err(|p| p.detail());
    face.access.audit.note_try(&who, "order.decide", &format!("order {id}"), outcome);
    face.access.audit.settle().await;
    done.map(|view| (StatusCode::ACCEPTED, view))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WithdrawQuery {
    /// At once, whatever moves: the order ends now; what a machine is doing it brings to its end.
    #[serde(default)]
    now: Option<bool>,
}

/// Withdraws an order: what a machine is doing for it is brought to its end first, and its load stays where that leaves it, or is
/// put away if it stands in the way. With `now` the order ends at once.
#[utoipa::path(delete, path = "/api/v1/orders/{id}", tag = "orders",
    params(("id" = u32, Path, description = "Its number"), WithdrawQuery),
    responses((status = 202, body = OrderView, description = "Will be withdrawn; the order says when it was")))]
pub(super) async fn withdraw(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    id: Result<Named<u32>, Problem>,
    Asked(query): Asked<WithdrawQuery>,
) -> Result<(StatusCode, Json<OrderView>), Problem> {
    let Named(id) = id.map_err(|_| no_such())?;
    let now = query.now.unwrap_or(false);
    let done = changed(&face, id, face.desk.withdraw(id, now));
    let asked = if now { "asked for, at once" } else { "asked for" };
    let outcome = done.as_ref().map(|_| asked).map_err(|p| p.detail());
    face.access.audit.note_try(&who, "order.withdraw", &format!("order {id}"), outcome);
    face.access.audit.settle().await;
    done.map(|view| (StatusCode::ACCEPTED, view))
}
