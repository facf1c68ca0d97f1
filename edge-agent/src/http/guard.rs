//! Who asks, and whether they may: `As<OPERATOR>` in a handler's arguments lets nobody below in.
//!
//! A browser must not be made to act for somebody by another site's page: what changes anything and comes from another origin is
//! refused, and who has not signed in is trusted as "on this machine" only as `origin` says.

use super::Face;
use super::origin::{Origin, is_told_secure, origin};
use super::problem::Problem;
use crate::access::{Denied, Role, Shown, Who};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::net::SocketAddr;
use std::sync::Arc;

/// Name of the session cookie.
pub(super) const COOKIE: &str = "lightsout_session";

/// Where a connection comes from; put there by the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) at: SocketAddr,
    pub(super) is_tls: bool,
}

impl Peer {
    fn of(parts: &Parts) -> Peer {
        let unknown = Peer { at: ([0, 0, 0, 0], 0).into(), is_tls: false };
        parts.extensions.get().copied().unwrap_or(unknown)
    }
}

/// Whether a request came over TLS, to us or to a proxy that may say so.
pub(super) struct IsSecure(pub bool);

impl FromRequestParts<Arc<Face>> for IsSecure {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, face: &Arc<Face>) -> Result<Self, Problem> {
        let peer = Peer::of(parts);
        Ok(IsSecure(peer.is_tls || is_told_secure(&face.door, peer.at.ip(), &parts.headers)))
    }
}

/// Somebody who may do at least this; the number is the role's.
#[derive(Debug)]
pub(super) struct As<const ROLE: u8>(pub Who);

pub(super) const VIEWER: u8 = Role::Viewer as u8;
pub(super) const OPERATOR: u8 = Role::Operator as u8;
pub(super) const ENGINEER: u8 = Role::Engineer as u8;
pub(super) const ADMIN: u8 = Role::Admin as u8;

/// Anybody, and who they are.
#[derive(Debug)]
pub(super) struct Anybody(pub Who);

impl<const ROLE: u8> FromRequestParts<Arc<Face>> for As<ROLE> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, face: &Arc<Face>) -> Result<Self, Problem> {
        let Anybody(who) = Anybody::from_request_parts(parts, face).await?;
        if who.role.is_some_and(|r| r as u8 >= ROLE) {
            let changes = parts.method != Method::GET && parts.method != Method::HEAD;
            let action = format!("{} {}", parts.method, parts.uri.path());
            return match if changes { face.access.audit.may_begin(&who, &action).await } else { Ok(()) } {
                Ok(()) => Ok(As(who)),
                Err(e) => Err(unwritten(&e)),
            };
        }
        let needed = Role::ALL.into_iter().find(|r| *r as u8 == ROLE).map_or("", Role::name);
        if parts.method != Method::GET {
            face.access.audit.refuse(&who, &format!("{} {}", parts.method, parts.uri.path()), "", "denied");
        }
        Err(if who.signed_in {
            let has = who.role.map_or("nothing", Role::name);
            let detail = format!("this needs the role {needed}; {} is {has}", who.name);
            Problem::new(StatusCode::FORBIDDEN, "not-allowed", "your role does not allow this", detail)
        } else {
            let detail = format!(
                "this needs the role {needed}: sign in, or send Authorization: Bearer TOKEN (edge-agent user token makes one)"
            );
            Problem::new(StatusCode::UNAUTHORIZED, "sign-in", "sign in first", detail)
        })
    }
}

impl FromRequestParts<Arc<Face>> for Anybody {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, face: &Arc<Face>) -> Result<Self, Problem> {
        if parts.method != Method::GET && parts.method != Method::HEAD {
            same_origin(&parts.headers)?;
        }
        let Origin { from, is_here } = origin(&face.door, Peer::of(parts).at.ip(), parts);
        let shown = Shown { bearer: bearer(&parts.headers), cookie: cookie(&parts.headers), from, is_here };
        match face.access.who(shown) {
            Ok(who) => Ok(Anybody(who)),
            Err(why) => Err(denied(why)),
        }
    }
}

/// Where the audit record is required, nothing is changed that cannot be written down.
fn unwritten(why: &std::io::Error) -> Problem {
    let title = "nothing was changed: it cannot be written down";
    let detail =
        format!("the audit record is required (`audit = \"require\"`), and the store cannot be written: {why}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "audit", title, detail)
}

/// What a refusal looks like.
pub(super) fn denied(why: Denied) -> Problem {
    let (status, kind, detail) = match why {
        Denied::BadToken => (StatusCode::UNAUTHORIZED, "bad-token", "the token is not known, or no longer"),
        Denied::BadPassword => (StatusCode::UNAUTHORIZED, "bad-password", "name or password is wrong"),
        Denied::NobodyKnown => (
            StatusCode::SERVICE_UNAVAILABLE,
            "users-unreadable",
            "the file of the users cannot be read, so nobody can sign in; the gateway's log says why",
        ),
        Denied::BadFirst => (
            StatusCode::FORBIDDEN,
            "bad-token",
            "the one-time token is wrong, or was used; the newest is in the log of the last start",
        ),
        Denied::Wait => (StatusCode::TOO_MANY_REQUESTS, "wait", "too many wrong passwords; try again in half a minute"),
        Denied::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "too many are signing in; try again in some seconds"),
    };
    Problem::new(status, kind, "you are not let in", detail)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session token of the cookie, if there is one.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// A page of another site must not change anything here.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = text(headers, header::ORIGIN) else { return Ok(()) };
    let host = text(headers, header::HOST).unwrap_or_default();
    if origin.split_once("://").is_some_and(|(_, at)| at == host) {
        return Ok(());
    }
    let detail = format!("a page of {origin} may not change anything at {host}");
    Err(Problem::new(StatusCode::FORBIDDEN, "other-origin", "this came from another site's page", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        rows.iter().map(|(n, v)| (header::HeaderName::from_static(n), header::HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn another_site_s_page_changes_nothing() {
        let rows = [
            (None, true),
            (Some("http://127.0.0.1:9464"), true),
            (Some("https://127.0.0.1:9464"), true),
            (Some("http://evil.example"), false),
            (Some("null"), false),
            (Some("http://127.0.0.1:80"), false),
        ];
        for (origin, want) in rows {
            let mut all = headers(&[("host", "127.0.0.1:9464")]);
            if let Some(origin) = origin {
                all.insert(header::ORIGIN, header::HeaderValue::from_static(origin));
            }
            assert_eq!(same_origin(&all).is_ok(), want, "{origin:?}");
        }
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; lightsout_session=xyz; c=d")])), Some("xyz"));
        assert_eq!(cookie(&headers(&[("cookie", "lightsout_session_2=xyz")])), None);
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
    }
}
