//! What ends a TLS connection, in words: what was found, what was expected, what to do.

use super::Certificate;
use std::io;
use std::path::Path;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Said of a certificate of version 1.
pub(super) const VERSION_1: &str = "it is an X.509 version 1 certificate, which no TLS library takes; make it anew as version 3 \
    (openssl x509 -req .. -extfile v3.cnf, with an extension such as basicConstraints = CA:FALSE)";

/// A certificate that was not believed, and what was there to believe it by.
pub(super) struct Refused<'a> {
    /// What the peer shows, its own first.
    pub(super) shown: &'a [Certificate],
    /// What `ca` holds.
    pub(super) trusted: &'a [Certificate],
    /// The file of `ca`.
    pub(super) file: &'a Path,
    /// The name it should be made out to.
    pub(super) name: &'a str,
}

/// Why a peer's certificate was not believed.
pub(super) fn of_certificate(why: &Error, refused: &Refused<'_>) -> String {
    let Some(leaf) = refused.shown.first() else { return format!("the peer's certificate cannot be read: {why}") };
    let Error::InvalidCertificate(what) = why else { return format!("the peer's certificate {}: {why}", leaf.subject) };
    if leaf.version < 3 {
        return format!("the peer's certificate {}: {VERSION_1}", leaf.subject);
    }
    match what {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ran_out(refused),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the peer's certificate {} is not valid yet: is the clock here or there wrong?", leaf.subject)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let (names, name) = (listed(&leaf.names), refused.name);
            format!(
                "the peer's certificate is made out to {names}, and not to {name}: use one of its names in the address, or say `name = ..` in `tls`"
            )
        }
        CertificateError::UnknownIssuer => unknown_issuer(refused),
        // One that may sign others, shown as a server's own: nobody here has said that it is trusted as it is.
        CertificateError::Other(_) if leaf.subject == leaf.issuer => unknown_issuer(refused),
        CertificateError::BadSignature => {
            let (issuer, file) = (&leaf.issuer, refused.file.display());
            format!(
                "the peer's certificate is not signed by the {issuer} that {file} holds: that authority has another key now"
            )
        }
        CertificateError::Revoked => format!("the peer's certificate {} is revoked", leaf.subject),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("the peer's certificate {} is not for servers (extended key usage)", leaf.subject)
        }
        other => format!("the peer's certificate {}: {other:?}", leaf.subject),
    }
}

fn listed(names: &[String]) -> String {
    /// Names that are shown.
    const MOST: usize = 5;
    match names {
        [] => "nobody (it has no subjectAltName)".into(),
        names => names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn ran_out(refused: &Refused<'_>) -> String {
    let first = refused.shown.iter().chain(refused.trusted).min_by_key(|c| c.until_s);
    let Some(first) = first else { return "a certificate has run out".into() };
    let (subject, until) = (&first.subject, &first.until);
    if refused.shown.contains(first) {
        format!("the peer's certificate {subject} has run out on {until}: renew it there")
    } else {
        format!("the authority {subject} in {} has run out on {until}", refused.file.display())
    }
}

/// The chain does not reach anybody in `ca`.
fn unknown_issuer(refused: &Refused<'_>) -> String {
    let file = refused.file.display();
    let top = refused.shown.last().or(refused.shown.first());
    let issuer = top.map_or("somebody unknown", |c| c.issuer.as_str());
    if refused.trusted.iter().any(|c| c.subject == issuer) {
        return format!(
            "the peer's certificate is signed by an authority called {issuer}, but not by the one in {file}: same name, another key; get the right one"
        );
    }
    let held: Vec<&str> = refused.trusted.iter().take(5).map(|c| c.subject.as_str()).collect();
    let held = held.join("; ");
    match top.filter(|c| c.issuer == c.subject) {
        Some(own) if refused.shown.len() == 1 => format!(
            "the peer's certificate {} has signed itself, and {file} holds {held}: put that certificate into `ca` if it is the right one",
            own.subject
        ),
        _ => format!(
            "the peer's certificate is signed by {issuer}, and {file} (`ca`) does not hold that authority, it holds {held}: \
             put the authority's certificate there, with those between it and the peer if the peer does not send them"
        ),
    }
}

/// Why a handshake has ended.
pub(super) fn of_handshake(e: &io::Error, has_own: bool) -> String {
    if let Some(why) = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return of_error(why, has_own);
    }
    if e.kind() == io::ErrorKind::UnexpectedEof || is_cut(e) {
        return format!("the peer hung up during the TLS handshake: {NOT_TLS}");
    }
    format!("the TLS handshake failed: {e}")
}

/// The same for what comes later: with TLS 1.3 our certificate is refused after the handshake, if need be without a word.
pub(super) fn of_link(e: io::Error, has_own: bool, has_heard: bool) -> io::Error {
    let words = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(|why| of_error(why, has_own));
    match words {
        Some(words) => io::Error::new(e.kind(), words),
        None if is_cut(&e) && !has_heard => {
            let hint = if has_own {
                "it may not take our certificate (`certificate` in `tls`)"
            } else {
                "if it wants a certificate of ours, give `certificate` and `key` in `tls`"
            };
            io::Error::new(e.kind(), format!("the peer hung up right after the TLS handshake: {hint}"))
        }
        None => e,
    }
}

/// Whether the peer has cut the connection.
pub(super) fn is_cut(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted)
}

const NOT_TLS: &str = "does it speak TLS on this port, or is this its plain one?";

fn of_error(why: &Error, has_own: bool) -> String {
    match why {
        Error::AlertReceived(alert) => of_alert(*alert, has_own),
        Error::InvalidMessage(_) => format!("what the peer sends is no TLS: {NOT_TLS}"),
        Error::PeerIncompatible(what) => {
            format!("the peer knows no TLS that is safe: {what:?}; it must speak TLS 1.2 or 1.3")
        }
        other => format!("TLS failed: {other}"),
    }
}

/// What a peer says of us (RFC 8446, 6.2).
fn of_alert(alert: AlertDescription, has_own: bool) -> String {
    use AlertDescription as A;
    let own = match alert {
        A::CertificateRequired => None,
        // TLS 1.2 has no word of its own for a certificate that was not shown.
        A::HandshakeFailure | A::BadCertificate | A::NoCertificate if !has_own => None,
        A::UnknownCA => Some("it does not know the authority that has signed it"),
        A::CertificateExpired => Some("it says that it has run out"),
        A::CertificateRevoked => Some("it says that it is revoked"),
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown => Some("it cannot use it"),
        A::AccessDenied => Some("it says: access denied"),
        A::DecryptError => Some("its signature does not hold there: are certificate and key a pair?"),
        A::HandshakeFailure => {
            return "the peer has refused the TLS handshake: no algorithm is common to both, or it does not take our certificate".into();
        }
        A::ProtocolVersion => return "the peer speaks neither TLS 1.2 nor 1.3".into(),
        A::UnrecognisedName => return "the peer does not know itself by the name that we ask for (SNI)".into(),
        other => return format!("the peer has ended TLS: {other:?}"),
    };
    match own {
        None => "the peer wants a certificate of ours and is shown none: give `certificate` and `key` in `tls`".into(),
        Some(what) => format!("the peer refuses our certificate (`certificate` in `tls`): {what}"),
    }
}
