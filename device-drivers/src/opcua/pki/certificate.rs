//! What a certificate says.

use crate::files;
use opcua::crypto::X509;
use std::net::IpAddr;
use std::path::Path;
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};
use x509_cert::name::Name;

/// What a person wants to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-1 of it, in hexadecimal: its name among people.
    pub thumbprint: String,
    /// Subject.
    pub subject: String,
    /// Who has signed it: itself, or an authority.
    pub issuer: String,
    /// Which application it is for.
    pub application_uri: Option<String>,
    /// Names and addresses of the hosts it is for.
    pub hosts: Vec<String>,
    /// First and last second of its validity, since 1970.
    pub valid_s: (i64, i64),
    /// The same for people: `2026-01-31`.
    pub valid: (String, String),
    /// Whether it may sign others: an authority, and no application.
    pub is_authority: bool,
    pub(super) der: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Certificate, String> {
        let unreadable = || match first_of(der).is_some_and(|first| first.len() < der.len()) {
            true => "it comes with others behind it; let the server send its own certificate alone".to_string(),
            false => "it is no X.509 certificate in DER".to_string(),
        };
        let x509 = X509::from_der(der).map_err(|_| unreadable())?;
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| unreadable())?;
        let names = parsed.tbs_certificate.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
        let (mut application_uri, mut hosts) = (None, Vec::new());
        for name in names.into_iter().flatten() {
            match name {
                GeneralName::UniformResourceIdentifier(uri) if application_uri.is_none() => {
                    application_uri = Some(uri.to_string());
                }
                GeneralName::DnsName(host) => hosts.push(host.to_string()),
                GeneralName::IpAddress(bytes) => hosts.extend(address(bytes.as_bytes()).map(|a| a.to_string())),
                _ => {}
            }
        }
        // OPC 10000-6, 6.2: an application's certificate names the application; an authority's says that it may sign.
        let may_sign = parsed.tbs_certificate.get::<BasicConstraints>().ok().flatten().is_some_and(|(_, b)| b.ca)
            && parsed.tbs_certificate.get::<KeyUsage>().ok().flatten().is_none_or(|(_, usage)| usage.key_cert_sign());
        let (from, until) = match (x509.not_before(), x509.not_after()) {
            (Ok(from), Ok(until)) => (from, until),
            _ => return Err("it does not say from when to when it is valid".into()),
        };
        Ok(Certificate {
            thumbprint: x509.thumbprint().as_hex_string(),
            subject: named(&parsed.tbs_certificate.subject),
            issuer: named(&parsed.tbs_certificate.issuer),
            is_authority: may_sign && application_uri.is_none(),
            application_uri,
            hosts,
            valid_s: (from.timestamp(), until.timestamp()),
            valid: (from.format("%Y-%m-%d").to_string(), until.format("%Y-%m-%d").to_string()),
            der: der.to_vec(),
        })
    }

    pub(super) fn x509(&self) -> Result<X509, String> {
        X509::from_der(&self.der).map_err(|e| e.to_string())
    }

    pub(super) fn is_for(&self, host: &str) -> bool {
        let same = |name: &String| match (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => name.eq_ignore_ascii_case(host),
        };
        self.hosts.iter().any(same)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads a certificate file, DER or PEM.
pub fn read(path: &Path) -> Result<Certificate, String> {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = files::read(path, files::SECRET_MAX).map_err(|e| fail(&e))?;
    let der = match X509::from_pem(&bytes).and_then(|x| x.to_der()) {
        Ok(der) => der,
        Err(_) => bytes,
    };
    Certificate::from_der(&der).map_err(|e| fail(&e))
}

/// A name as people read it: `CN=press,O=plant`.
pub(super) fn named(name: &Name) -> String {
    name.to_string().replace(';', "/")
}

/// The bytes of the first of several values in DER that stand one behind the other.
fn first_of(der: &[u8]) -> Option<&[u8]> {
    SliceReader::new(der).ok()?.tlv_bytes().ok()
}
