//! Signing in and out, users, tokens, and who has done what.

use super::Face;
use super::guard::{self, ADMIN, Anybody, As, COOKIE, IsSecure};
use super::problem::{Asked, Body, Named, Problem};
use crate::access::{Role, SetupError, StoreError};
use crate::audit::Entry;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Who I am here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// Name; `anonymous` without signing in.
    name: String,
    /// What I may do; nothing when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Whether I have signed in.
    signed_in: bool,
    /// Whether the first admin has still to be made, with the token from the log.
    needs_setup: bool,
    /// Whether passwords cross the network for all to read.
    is_unencrypted: bool,
    /// Name of the gateway.
    gateway: String,
    /// Version of the agent.
    version: &'static str,
}

/// Who I am, and what I may do.
#[utoipa::path(get, path = "/api/v1/me", tag = "people", responses((status = 200, body = Me)))]
pub(super) async fn me(Anybody(who): Anybody, State(face): State<Arc<Face>>) -> Json<Me> {
    Json(Me {
        name: who.name.to_string(),
        role: who.role,
        signed_in: who.signed_in,
        needs_setup: face.access.needs_setup(),
        is_unencrypted: face.stages.http.is_unencrypted,
        gateway: face.gateway.clone(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Name and password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    name: String,
    password: String,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// To be sent as `Authorization: Bearer ..`; a browser has it in a cookie already.
    token: String,
    /// What it allows.
    role: Role,
}

fn session(token: String, role: Role, IsSecure(is_secure): IsSecure) -> Response {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}");
    ([(header::SET_COOKIE, cookie)], Json(Session { token, role })).into_response()
}

/// Signs in: the answer is a session token, in a cookie too.
#[utoipa::path(post, path = "/api/v1/login", tag = "people", request_body = Login, responses((status = 200, body = Session)))]
pub(super) async fn login(
    Anybody(mut who): Anybody,
    is_secure: IsSecure,
    State(face): State<Arc<Face>>,
    Body(Login { name, password }): Body<Login>,
) -> Result<Response, Problem> {
    let done = face.access.login(who.from, &name, password).await.map_err(guard::denied);
    who.name = name.as_str().into();
    match &done {
        Ok(_) => face.access.audit.note(&who, "login", "", "done").await,
        Err(why) => face.access.audit.refuse(&who, "login", "", why.detail()),
    }
    done.map(|(token, role)| session(token, role, is_secure))
}

/// Signs out.
#[utoipa::path(post, path = "/api/v1/logout", tag = "people", responses((status = 204, description = "Done")))]
pub(super) async fn logout(Anybody(who): Anybody, State(face): State<Arc<Face>>, headers: HeaderMap) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.get(7..));
    for token in [guard::cookie(&headers), bearer].into_iter().flatten() {
        face.access.logout(token);
    }
    // Who was not signed in has changed nothing.
    match who.signed_in {
        true => face.access.audit.note(&who, "logout", "", "done").await,
        false => face.access.audit.refuse(&who, "logout", "", "was not signed in"),
    }
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response()
}

/// The one-time token, and the first admin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Setup {
    /// From the log of the first start.
    token: String,
    name: String,
    /// 8 to 256 characters.
    password: String,
}

/// Makes the first admin, against the one-time token that the first start has printed.
#[utoipa::path(post, path = "/api/v1/setup", tag = "people", request_body = Setup, responses((status = 200, body = Session)))]
pub(super) async fn setup(
    Anybody(mut who): Anybody,
    is_secure: IsSecure,
    State(face): State<Arc<Face>>,
    Body(Setup { token, name, password }): Body<Setup>,
) -> Result<Response, Problem> {
    let done = face.access.setup(who.from, &token, &name, password).await.map_err(|why| match why {
        SetupError::Denied(why) => guard::denied(why),
        SetupError::Store(why) => store_problem(&why),
    });
    who.name = name.as_str().into();
    match &done {
        Ok(_) => face.access.audit.note(&who, "setup", "first admin", "done").await,
        Err(why) => face.access.audit.refuse(&who, "setup", "first admin", why.detail()),
    }
    done.map(|token| session(token, Role::Admin, is_secure))
}

fn store_problem(why: &StoreError) -> Problem {
    let text = why.to_string();
    match why {
        StoreError::Invalid(_) => Problem::invalid("this cannot be taken", text),
        StoreError::Exists(_) => Problem::conflict("exists", "the name is taken", text),
        StoreError::Unknown(_) => Problem::not_found("no such user or token", &text),
        StoreError::Damaged(_) | StoreError::Other(_) => {
            let title = "the users cannot be changed";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store", title, text)
        }
    }
}

/// A user or a token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Person {
    name: String,
    role: Role,
    /// Whether it is an API token.
    token: bool,
    /// Since when, RFC 3339.
    since: String,
}

/// Users and API tokens.
#[utoipa::path(get, path = "/api/v1/users", tag = "people", responses((status = 200, body = Vec<Person>)))]
pub(super) async fn users(_: As<ADMIN>, State(face): State<Arc<Face>>) -> Json<Vec<Person>> {
    let person = |(name, role, token, since)| Person { name, role, token, since };
    Json(face.access.list().into_iter().map(person).collect())
}

/// A new user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    role: Role,
    /// 8 to 256 characters.
    password: String,
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "people", request_body = NewUser, responses((status = 204, description = "Done")))]
pub(super) async fn add_user(
    As(who): As<ADMIN>,
    State(face): State<Arc<Face>>,
    Body(NewUser { name, role, password }): Body<NewUser>,
) -> Result<StatusCode, Problem> {
    let done = face.access.add_user(&name, role, password).await.map_err(|why| store_problem(&why));
    let target = format!("{name}, {}", role.name());
    face.access.audit.note(&who, "user.add", &target, done.as_ref().map_or_else(|p| p.detail(), |()| "done")).await;
    done.map(|()| StatusCode::NO_CONTENT)
}

/// Removes a user or token; its sessions end at once.
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "people", params(("name" = String, Path, description = "User or token")),
    responses((status = 204, description = "Done")))]
pub(super) async fn remove_user(
    As(who): As<ADMIN>,
    State(face): State<Arc<Face>>,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    let done = face.access.remove_user(&name).map_err(|why| store_problem(&why));
    face.access.audit.note(&who, "user.remove", &name, done.as_ref().map_or_else(|p| p.detail(), |()| "done")).await;
    done.map(|()| StatusCode::NO_CONTENT)
}

/// A new API token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    role: Role,
}

/// Makes an API token. It is shown this once, and only its digest is kept.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "people", request_body = NewToken, responses((status = 200, body = Session)))]
pub(super) async fn add_token(
    As(who): As<ADMIN>,
    State(face): State<Arc<Face>>,
    Body(NewToken { name, role }): Body<NewToken>,
) -> Result<Json<Session>, Problem> {
    let done = face.access.add_token(&name, role).map_err(|why| store_problem(&why));
    let target = format!("{name}, {}", role.name());
    face.access.audit.note(&who, "token.add", &target, done.as_ref().map_or_else(|p| p.detail(), |_| "done")).await;
    done.map(|token| Json(Session { token, role }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// So many at most; 100 when nothing is said.
    limit: Option<u32>,
}

/// Who has changed what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "people", params(AuditQuery), responses((status = 200, body = Vec<Entry>)))]
pub(super) async fn audit(
    _: As<ADMIN>,
    State(face): State<Arc<Face>>,
    Asked(q): Asked<AuditQuery>,
) -> Json<Vec<Entry>> {
    Json(face.access.audit.newest(q.limit.map_or(100, |n| usize::try_from(n).unwrap_or(100))))
}
