//! What `[http]` means: who may do what without signing in, by which names the gateway is known, whose word about a
//! client counts, and TLS.

use super::lines::beside;
use super::plan::{HttpPlan, HttpTls, Network};
use super::raw;
use super::report::{Problem, Source};
use super::values::{Spanned, within};
use crate::access::{AccessPlan, Role};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// A session that is not used for this long is forgotten.
const SESSION: Duration = Duration::from_secs(12 * 3600);
const SESSION_RANGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);

pub(super) fn access(source: &Source, raw: &raw::Config, state_dir: &Path, problems: &mut Vec<Problem>) -> AccessPlan {
    let mut role = |given: &Option<Spanned<String>>, usual| {
        let Some(text) = given else { return usual };
        let named = Role::named(text.get_ref());
        if named.is_none() && text.get_ref() != "none" {
            let names = Role::ALL.map(|r| format!("\"{}\"", r.name())).join(", ");
            let label = format!("found \"{}\", expected \"none\", {names}", text.get_ref());
            problems.push(source.problem(text.span(), "there is no such role", label));
        }
        named
    };
    let http = &raw.http;
    let (loopback, remote) = (role(&http.loopback, Some(Role::Viewer)), role(&http.remote, None));
    let session = within(source, &http.session, SESSION, SESSION_RANGE, problems);
    // The usual state folder is one that anybody may write to: no place for users.
    let dir = raw.gateway.state_dir.is_some().then(|| state_dir.to_path_buf());
    let audit_is_required = match raw.gateway.audit.as_ref().map(|text| (text.get_ref().as_str(), text)) {
        None | Some(("log", _)) => false,
        Some(("require", text)) => {
            if dir.is_none() {
                let label =
                    "there is no state_dir, so nothing is written down: add `state_dir = \"/var/lib/lightsout\"`";
                problems.push(source.problem(text.span(), "the audit record cannot be required", label));
            }
            true
        }
        Some((other, text)) => {
            let label = format!("found \"{other}\", expected \"log\" or \"require\"");
            problems.push(source.problem(text.span(), "this is no way to keep the audit record", label));
            false
        }
    };
    AccessPlan { loopback, remote, session, dir, audit_is_required }
}

/// Where a certificate of our own is, in the state folder.
const OWN: (&str, &str) = ("tls/gateway.pem", "tls/gateway.key");

pub(super) fn http(
    source: &Source,
    raw: &raw::Config,
    (listen, state_dir): (SocketAddr, &Path),
    problems: &mut Vec<Problem>,
    defects: &mut Vec<Problem>,
) -> HttpPlan {
    let http = &raw.http;
    for name in &http.names {
        let fine = |c: char| c.is_ascii_alphanumeric() || ['-', '.'].contains(&c);
        if name.get_ref().is_empty() || !name.get_ref().chars().all(fine) {
            let label = "expected a host name, without scheme and port, as in \"gateway-1.plant.example\"";
            problems.push(source.problem(name.span(), "this is not a host name", label));
        }
    }
    let mut network = |text: &Spanned<String>| {
        let read = text.get_ref().parse::<Network>();
        read.map_err(|label| problems.push(source.problem(text.span(), "this is not where a proxy is", label))).ok()
    };
    let trusted_proxies = http.trusted_proxies.iter().filter_map(&mut network).collect();
    let tls = http.tls.as_ref().and_then(|given| tls(source, given, raw, state_dir, problems, defects));
    let beyond = !listen.ip().is_loopback();
    let is_unencrypted = beyond && http.tls.is_none();
    let wanted = http.unencrypted.as_ref().filter(|u| *u.get_ref());
    if is_unencrypted && wanted.is_none() {
        let span = raw.gateway.listen.as_ref().map_or(0..0, Spanned::span);
        let label = "beyond this machine, and without TLS";
        let problem = source.problem(span, "passwords and tokens would cross the network for all to read", label);
        problems.push(problem.help(
            "add tls = { self_signed = true } to [http], or tls = { certificate = \"gateway.pem\", key = \"gateway.key\" }; \
             or listen on 127.0.0.1 behind a proxy that has TLS; or add unencrypted = true if that is what you want",
        ));
    }
    if let Some(given) = wanted.filter(|_| !is_unencrypted) {
        let label = if beyond { "there is `tls`" } else { "only this machine can reach it" };
        problems.push(source.problem(given.span(), "this key has no effect", label));
    }
    let names = http.names.iter().map(|n| n.get_ref().to_ascii_lowercase()).collect();
    HttpPlan { names, trusted_proxies, tls, is_unencrypted }
}

fn tls(
    source: &Source,
    given: &Spanned<raw::HttpTls>,
    raw: &raw::Config,
    state_dir: &Path,
    problems: &mut Vec<Problem>,
    defects: &mut Vec<Problem>,
) -> Option<HttpTls> {
    let table = given.get_ref();
    let is_self_signed = table.self_signed.as_ref().is_some_and(|s| *s.get_ref());
    match (&table.certificate, &table.key, is_self_signed) {
        (None, None, true) if raw.gateway.state_dir.is_none() => {
            let label = "it would be another one after each restart of this machine, and nobody could know it";
            let problem = source.problem(given.span(), "a certificate of our own must be kept", label);
            problems.push(problem.help("add `state_dir = \"/var/lib/lightsout\"` to [gateway]"));
            None
        }
        (None, None, true) => {
            let (certificate, key) = (state_dir.join(OWN.0), state_dir.join(OWN.1));
            Some(HttpTls { certificate, key, is_self_signed })
        }
        (Some(certificate), Some(key), false) => {
            let (pem, secret) = (beside(source, certificate.get_ref()), beside(source, key.get_ref()));
            let files = HttpTls { certificate: pem, key: secret, is_self_signed };
            if let Err(why) = crate::http::tls_files(&files) {
                defects.push(source.problem(certificate.span(), "this certificate cannot be served", why.to_string()));
            }
            Some(files)
        }
        (Some(one), _, true) | (_, Some(one), true) => {
            let label = "`self_signed = true` makes both";
            problems.push(source.problem(one.span(), "this key has no effect", label));
            None
        }
        _ => {
            let label = "expected `certificate` and `key`, or `self_signed = true`";
            problems.push(source.problem(given.span(), "half of an identity", label));
            None
        }
    }
}
