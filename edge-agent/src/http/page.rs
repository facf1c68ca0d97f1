//! The page: a few files that are part of the program. Nothing is loaded from elsewhere, nothing has to be built.

use super::Face;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Path, kind, text.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/page/app.js", "text/javascript; charset=utf-8", include_str!("../page/app.js")),
    ("/page/api.js", "text/javascript; charset=utf-8", include_str!("../page/api.js")),
    ("/page/floor.js", "text/javascript; charset=utf-8", include_str!("../page/floor.js")),
    ("/page/acknowledge.js", "text/javascript; charset=utf-8", include_str!("../page/acknowledge.js")),
    ("/page/closings.js", "text/javascript; charset=utf-8", include_str!("../page/closings.js")),
    ("/page/orders.js", "text/javascript; charset=utf-8", include_str!("../page/orders.js")),
    ("/page/field.js", "text/javascript; charset=utf-8", include_str!("../page/field.js")),
    ("/page/beat.js", "text/javascript; charset=utf-8", include_str!("../page/beat.js")),
    ("/page/alarms.js", "text/javascript; charset=utf-8", include_str!("../page/alarms.js")),
    ("/page/people.js", "text/javascript; charset=utf-8", include_str!("../page/people.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
];

/// Only what we have brought ourselves is run or shown, and nobody may put the page into a frame of theirs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Face>> {
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| {
        let digest: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let tag = format!("\"{digest}\"");
        router.route(path, get(move |headers: HeaderMap| async move { file(&headers, kind, text, &tag) }))
    })
}

fn file(asked: &HeaderMap, kind: &'static str, text: &'static str, tag: &str) -> Response {
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, text).into_response() }
}
