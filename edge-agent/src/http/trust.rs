//! Whom the OPC UA lines trust: what `edge-agent pki` does, for the page.

use super::Face;
use super::guard::{As, ENGINEER, VIEWER};
use super::problem::{Body, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use device_drivers::opcua::pki::{Certificate, Pki, Place};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertificateView {
    /// own, trusted, rejected.
    place: &'static str,
    /// SHA-1 of it, to be compared with what the server shows.
    thumbprint: String,
    /// Whose it is.
    subject: String,
    /// Its application URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    application_uri: Option<String>,
    /// Valid until.
    valid_until: String,
}

/// Which certificate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Thumbprint {
    /// Its thumbprint, or the beginning of it.
    thumbprint: String,
}

/// Certificates of OPC UA servers: those in quarantine wait for a person's word.
#[utoipa::path(get, path = "/api/v1/certificates", tag = "field", responses((status = 200, body = Vec<CertificateView>)))]
pub(super) async fn certificates(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Json<Vec<CertificateView>> {
    // The folder is made when a line with security first connects.
    let all =
        if face.pki_dir.is_dir() { Pki::open(&face.pki_dir).map(|p| p.list()).unwrap_or_default() } else { vec![] };
    let view = |(place, c): (Place, Certificate)| CertificateView {
        place: match place {
            Place::Own => "own",
            Place::Trusted => "trusted",
            Place::Rejected => "rejected",
        },
        thumbprint: c.thumbprint.to_string(),
        subject: c.subject.to_string(),
        application_uri: c.application_uri.clone(),
        valid_until: c.valid.1.to_string(),
    };
    Json(all.into_iter().map(view).collect())
}

async fn decide(
    face: &Face,
    who: &crate::access::Who,
    action: &str,
    form: &Thumbprint,
    does: impl FnOnce(Pki, &str) -> Result<Certificate, String>,
) -> Result<StatusCode, Problem> {
    let which = form.thumbprint.as_str();
    // On the command line this may be a file; from outside it is a thumbprint and nothing else.
    let done = if which.len() < 4 || !which.chars().all(|c| c.is_ascii_hexdigit()) {
        Err(Problem::invalid("this is not a thumbprint", "thumbprint: expected four or more hexadecimal digits"))
    } else if !face.pki_dir.is_dir() {
        Err(Problem::not_found("no such certificate", "there are none yet"))
    } else {
        let done = Pki::open(&face.pki_dir).and_then(|pki| does(pki, which));
        done.map(|_| StatusCode::NO_CONTENT).map_err(|why| Problem::not_found("no such certificate", &why))
    };
    face.access.audit.note(who, action, which, done.as_ref().map_or_else(|p| p.detail(), |_| "done")).await;
    done
}

/// Trusts a server's certificate; its line connects by itself.
#[utoipa::path(post, path = "/api/v1/certificates/trust", tag = "field", request_body = Thumbprint,
    responses((status = 204, description = "Done")))]
pub(super) async fn trust(
    As(who): As<ENGINEER>,
    State(face): State<Arc<Face>>,
    Body(form): Body<Thumbprint>,
) -> Result<StatusCode, Problem> {
    decide(&face, &who, "certificate.trust", &form, |pki, which| pki.trust(which)).await
}

/// Trusts a server's certificate no longer.
#[utoipa::path(post, path = "/api/v1/certificates/reject", tag = "field", request_body = Thumbprint,
    responses((status = 204, description = "Done")))]
pub(super) async fn reject(
    As(who): As<ENGINEER>,
    State(face): State<Arc<Face>>,
    Body(form): Body<Thumbprint>,
) -> Result<StatusCode, Problem> {
    decide(&face, &who, "certificate.reject", &form, |pki, which| pki.reject(which)).await
}
