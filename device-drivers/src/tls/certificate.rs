//! What a certificate says of itself, as far as trust and its end are concerned.

use std::net::IpAddr;
use std::path::Path;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Names and addresses it is made out to.
    pub names: Vec<String>,
    /// Last second of its validity, since 1970.
    pub until_s: i64,
    /// That day, for people: `2026-01-31`.
    pub until: String,
    /// Of X.509: 1 to 3.
    pub version: u8,
}

impl Certificate {
    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Certificate, String> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| "it is no X.509 certificate".to_string())?;
        let tbs = parsed.tbs_certificate;
        let names = tbs.get::<SubjectAltName>().ok().flatten().map_or_else(Vec::new, |(_, names)| names.0);
        let end = tbs.validity.not_after.to_date_time();
        Ok(Certificate {
            subject: named(&tbs.subject),
            issuer: named(&tbs.issuer),
            names: names.iter().filter_map(name_of).collect(),
            until_s: i64::try_from(end.unix_duration().as_secs()).unwrap_or(i64::MAX),
            until: format!("{:04}-{:02}-{:02}", end.year(), end.month(), end.day()),
            version: match tbs.version {
                x509_cert::Version::V1 => 1,
                x509_cert::Version::V2 => 2,
                x509_cert::Version::V3 => 3,
            },
        })
    }

    /// All in a file: PEM, or a single one in DER.
    pub fn all_in(path: &Path) -> Result<Vec<Certificate>, String> {
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = crate::files::read(path, crate::files::AUTHORITIES_MAX).map_err(|e| fail(&e))?;
        let pem: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let all = match pem {
            Ok(all) if !all.is_empty() => all,
            _ => vec![CertificateDer::from(bytes)],
        };
        all.iter().map(|der| Certificate::from_der(der).map_err(|e| fail(&e))).collect()
    }
}

/// A name as people read it: `CN=broker,O=plant`. What a stranger has written shall not steer a terminal.
fn named(name: &Name) -> String {
    plain(&name.to_string())
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn name_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(host) => Some(plain(host.as_str())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}
