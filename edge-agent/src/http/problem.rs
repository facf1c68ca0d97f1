//! Errors as RFC 9457 shapes them, and extractors that answer with them.

use axum::Json;
use axum::body::HttpBody;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use utoipa::ToSchema;

/// Time for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// An error. `type` is stable: programs compare it, people read `detail`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of error: `urn:lightsout:problem:..`
    #[serde(rename = "type")]
    kind: String,
    /// The kind, in words.
    title: &'static str,
    /// The HTTP status again.
    status: u16,
    /// What is wrong this time, and what to do.
    detail: String,
    /// A write's tag and outcome.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    write: Option<Box<crate::commands::WriteView>>,
}

impl Problem {
    /// A problem of a kind.
    pub(crate) fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Problem {
        let kind = format!("urn:lightsout:problem:{kind}");
        Problem { kind, title, status: status.as_u16(), detail: detail.into(), write: None }
    }

    /// Adds what came of a write.
    pub(crate) fn of_write(mut self, view: crate::commands::WriteView) -> Problem {
        self.write = Some(Box::new(view));
        self
    }

    /// 404
    pub(crate) fn not_found(title: &'static str, detail: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", title, detail)
    }

    /// 409
    pub(crate) fn conflict(kind: &str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, kind, title, detail)
    }

    /// 422
    pub(crate) fn invalid(title: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title, detail)
    }

    /// 503
    pub(crate) fn busy(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too much at once", detail)
    }

    /// What the audit record says of it.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON body: an object, whose fields have names. The library would take a list as well, by the order in which we happen to declare them.
pub(super) struct Body<T>(pub T);

/// Something that is read from an object alone.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        source.deserialize_map(Fields(PhantomData))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match tokio::time::timeout(BODY_LIMIT, Json::<Object<T>>::from_request(request, state)).await {
            Ok(Ok(Json(Object(body)))) => Ok(Body(body)),
            Ok(Err(why)) => Err(body_problem(&why)),
            Err(_) => {
                let detail = format!("the body did not arrive within {BODY_LIMIT:?}");
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "the body is too slow", detail))
            }
        }
    }
}

/// A JSON body that may be left out. Only one of no bytes is none: what was sent with a wrong type is not taken for nothing.
pub(super) struct MaybeBody<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for MaybeBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(MaybeBody(None));
        }
        Body::from_request(request, state).await.map(|Body(body)| MaybeBody(Some(body)))
    }
}

fn body_problem(why: &JsonRejection) -> Problem {
    let (status, text) = (why.status(), why.body_text());
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "too-large", "the body is too large", text),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(status, "not-json", "the body is not JSON", text),
        _ => Problem::new(status, "invalid", "the body cannot be understood", text),
    }
}

/// The part of the address after `?`.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(query) = Query::<T>::from_request_parts(parts, state).await.map_err(|why: QueryRejection| {
            let text = why.body_text();
            Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "the query cannot be understood", text)
        })?;
        Ok(Asked(query))
    }
}

/// A part of the path that names something; what cannot be a name is not found.
pub(super) struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|why: PathRejection| Problem::not_found("there is no such thing", &why.body_text()))?;
        Ok(Named(name))
    }
}
