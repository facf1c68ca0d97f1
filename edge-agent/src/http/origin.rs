//! Where a request comes from.
//!
//! ```text
//!   peer of the connection ── a trusted proxy? ──no──> the peer
//!                                   │yes
//!                          its header says ──> the last address in it that is not a trusted proxy's
//!
//!   here, for the role `loopback`:  a loopback peer, and no header of a proxy, and a name that only this machine has
//! ```
//!
//! A request without a name in `Host`, with two, or with one that is none, is not answered at all: whoever looks at it takes another for it.
//!
//! A proxy on this machine makes everybody a loopback peer. So whatever looks passed on is not from here: any forwarding header, whoever sent
//! it; a name in `Host` that is not ours; HTTP/1.0, which is how nginx speaks to what is behind it unless told otherwise, and nobody else does.

use crate::config::plan::HttpPlan;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, Version, header};
use std::net::{IpAddr, SocketAddr};

/// Headers by which a proxy says that it is one; and all that begin with [`FORWARDED`].
const PROXY_HEADERS: [&str; 9] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "cdn-loop",
];
const FORWARDED: &str = "x-forwarded";
/// Addresses read of a header that names all proxies on the way.
const HOPS_MAX: usize = 32;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who asks: the peer, or what a trusted proxy says.
    pub(super) from: IpAddr,
    /// Whether that is this machine.
    pub(super) is_here: bool,
}

/// Whether a request says whom it is for, once, and as a name can be (RFC 9112, 3.2). The text says what is wrong.
pub(super) fn says_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let target = request.uri().authority().map(Authority::as_str);
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err("it has more than one `Host`"),
        (None, None) if request.version() >= Version::HTTP_11 => Err("it has no `Host`"),
        (Some(host), None) if !host.to_str().is_ok_and(|h| h.is_empty() || host_of(h).is_some()) => {
            Err("its `Host` is no name and no address")
        }
        _ if target.is_some_and(|t| host_of(t).is_none()) => Err("it is for no name and no address"),
        _ => Ok(()),
    }
}

/// The name or address of `host` or `host:port`; nothing else may stand in it, and no user before it.
fn host_of(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let port = text.strip_prefix(host)?;
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.is_empty() || p.parse::<u16>().is_ok());
    (is_port && !host.is_empty()).then(|| host.trim_matches(['[', ']']).to_ascii_lowercase())
}

/// Looks at a request.
pub(super) fn origin(door: &HttpPlan, peer: IpAddr, parts: &Parts) -> Origin {
    let peer = peer.to_canonical();
    let headers = &parts.headers;
    let is_proxied = headers.keys().any(|k| PROXY_HEADERS.contains(&k.as_str()) || k.as_str().starts_with(FORWARDED));
    let authority = parts.uri.authority().map(|a| a.as_str());
    let is_ours = is_own_host(door, text(headers, header::HOST).unwrap_or_default())
        && authority.is_none_or(|a| is_own_host(door, a));
    let is_here = peer.is_loopback() && !is_proxied && is_ours && parts.version >= Version::HTTP_11;
    let from = if is_trusted(door, peer) { told(door, headers).unwrap_or(peer) } else { peer };
    Origin { from, is_here }
}

/// Whether a proxy that may say so says that the client came over TLS.
pub(super) fn is_told_secure(door: &HttpPlan, peer: IpAddr, headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto").and_then(|v| v.to_str().ok());
    is_trusted(door, peer) && proto.is_some_and(|p| p.trim().eq_ignore_ascii_case("https"))
}

fn is_trusted(door: &HttpPlan, address: IpAddr) -> bool {
    door.trusted_proxies.iter().any(|n| n.has(address))
}

/// The client, as the headers of a trusted proxy tell it. A proxy sets one of them and passes others on as the client has made them up: where
/// they contradict each other none is believed.
fn told(door: &HttpPlan, headers: &HeaderMap) -> Option<IpAddr> {
    let all = ["x-forwarded-for", "forwarded", "x-real-ip"];
    let mut said = all.iter().filter(|n| headers.contains_key(**n)).map(|name| client(door, headers, name));
    let first = said.next()??;
    said.all(|other| other == Some(first)).then_some(first)
}

/// The last address in a header that is not a trusted proxy's; what stands before it anybody could have written.
fn client(door: &HttpPlan, headers: &HeaderMap, name: &str) -> Option<IpAddr> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|v| v.to_str().ok()).collect::<Option<_>>()?;
    let mut last = None;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS_MAX) {
        let hop = if name == "forwarded" { forwarded_for(hop) } else { Some(hop.trim()) };
        let address = hop.and_then(address)?;
        last = Some(address);
        if !is_trusted(door, address) {
            break;
        }
    }
    last
}

/// `for=` of one hop (RFC 7239, 4).
fn forwarded_for(hop: &str) -> Option<&str> {
    hop.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let found = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|at| at.ip()));
    found.map(|ip| ip.to_canonical())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Whether the host asked for is this machine, under a name that no foreign page can have and no proxy passes on by itself.
fn is_own_host(door: &HttpPlan, host: &str) -> bool {
    let Some(name) = host_of(host) else { return false };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || door.names.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    const CLIENT: &str = "192.0.2.9";

    fn door(proxies: &[&str]) -> HttpPlan {
        let trusted_proxies = proxies.iter().map(|p| p.parse().unwrap()).collect();
        HttpPlan { names: vec!["gw-1.plant".into()], trusted_proxies, ..HttpPlan::default() }
    }

    fn look(door: &HttpPlan, peer: &str, version: Version, rows: &[(&str, &str)]) -> Origin {
        let mut request = Request::builder().uri("/").version(version);
        for (name, value) in rows {
            request = request.header(*name, *value);
        }
        origin(door, peer.parse().unwrap(), &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn here_is_a_loopback_peer_under_our_own_name_and_nothing_that_looks_passed_on() {
        let host = |host: &str, peer: &str| look(&door(&[]), peer, Version::HTTP_11, &[("host", host)]).is_here;
        let rows = [
            ("127.0.0.1:9464", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("[::1]:9464", true),
            ("gw-1.plant:9464", true),
            ("10.1.2.3", false),
            ("evil.example:9464", false),
            ("localhost.evil.example", false),
            ("localhost:1@evil.example", false),
            ("evil.example@localhost", false),
            ("localhost:9464:9464", false),
            ("localhost:99999", false),
            ("[::1]evil.example", false),
            ("", false),
        ];
        for (name, want) in rows {
            assert_eq!(host(name, "127.0.0.1"), want, "{name}");
            assert!(!host(name, "192.168.1.7"), "{name} from elsewhere");
        }
        assert!(host("localhost", "::1") && host("localhost", "::ffff:127.0.0.1"));
        assert!(!look(&door(&[]), "127.0.0.1", Version::HTTP_11, &[]).is_here);
        assert!(!look(&door(&[]), "127.0.0.1", Version::HTTP_10, &[("host", "127.0.0.1")]).is_here, "nginx by itself");
        for name in PROXY_HEADERS.into_iter().chain(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]) {
            for value in ["", "127.0.0.1", "x"] {
                for trusted in [&[][..], &["127.0.0.1"]] {
                    let rows = [("host", "localhost"), (name, value)];
                    assert!(!look(&door(trusted), "127.0.0.1", Version::HTTP_11, &rows).is_here, "{name}: {value}");
                }
            }
        }
    }

    #[test]
    fn a_request_says_once_whom_it_is_for() {
        let rows: [(Version, &str, &[&str], bool); 17] = [
            (Version::HTTP_11, "/", &["localhost"], true),
            (Version::HTTP_11, "/", &["gw_1.plant:9464"], true),
            (Version::HTTP_11, "/", &["[::1]:9464"], true),
            (Version::HTTP_11, "/", &["10.1.2.3:"], true),
            (Version::HTTP_11, "/", &[""], true),
            (Version::HTTP_11, "http://localhost/", &["localhost"], true),
            (Version::HTTP_10, "/", &[], true),
            (Version::HTTP_11, "/", &[], false),
            (Version::HTTP_11, "http://localhost/", &[], false),
            (Version::HTTP_11, "/", &["localhost", "localhost"], false),
            (Version::HTTP_10, "/", &["localhost", "evil.example"], false),
            (Version::HTTP_11, "/", &["localhost:1@evil.example"], false),
            (Version::HTTP_11, "/", &["a b"], false),
            (Version::HTTP_11, "/", &["http://localhost"], false),
            (Version::HTTP_11, "/", &["localhost:x"], false),
            (Version::HTTP_11, "/", &["[::1"], false),
            (Version::HTTP_11, "http://localhost:1@evil.example/", &["localhost"], false),
        ];
        for (version, uri, hosts, want) in rows {
            let mut request = Request::builder().uri(uri).version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            assert_eq!(says_host(&request.body(()).unwrap()).is_ok(), want, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_says_where_a_client_is_and_nobody_else_is_believed() {
        let of = |peer: &str, rows: &[(&str, &str)]| {
            look(&door(&["127.0.0.1", "10.0.0.0/8"]), peer, Version::HTTP_11, rows).from.to_string()
        };
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let rows: [Row<'_>; 14] = [
            ("127.0.0.1", &[("x-forwarded-for", CLIENT)], CLIENT),
            ("127.0.0.1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.0.0.4")], CLIENT),
            ("127.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", CLIENT)], CLIENT),
            ("10.0.0.3", &[("forwarded", "for=1.1.1.1, for=\"192.0.2.9:4711\";proto=https")], CLIENT),
            ("10.0.0.3", &[("forwarded", "for=\"[2001:db8::1]:80\"")], "2001:db8::1"),
            ("10.0.0.3", &[("x-real-ip", CLIENT)], CLIENT),
            ("127.0.0.1", &[("x-real-ip", CLIENT), ("x-forwarded-for", "1.1.1.1, 192.0.2.9")], CLIENT),
            // Made up by the client, and passed on: the one header or the other is the proxy's, and nobody knows which.
            ("127.0.0.1", &[("x-real-ip", CLIENT), ("x-forwarded-for", "1.1.1.1")], "127.0.0.1"),
            ("127.0.0.1", &[("x-forwarded-for", "unknown")], "127.0.0.1"),
            ("127.0.0.1", &[("x-forwarded-for", "")], "127.0.0.1"),
            ("127.0.0.1", &[("x-forwarded-for", "10.0.0.1, 10.0.0.2")], "10.0.0.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("192.168.1.7", &[("x-forwarded-for", CLIENT)], "192.168.1.7"),
            ("192.168.1.7", &[("x-real-ip", "127.0.0.1")], "192.168.1.7"),
        ];
        for (peer, headers, want) in rows {
            assert_eq!(of(peer, headers), want, "{peer} {headers:?}");
        }
    }
}
