//! What authorities say of a server's certificate.
//!
//! ```text
//!   certificate ──signed by──> an authority a person has trusted        in time, by a strong algorithm, for a server
//!        └── its number on a list that the authority has signed? ──> revoked
//! ```
//!
//! The chain is built and checked by rustls-webpki, as TLS does it: no authority is believed that is weak, out of time, or may not sign. An old
//! revocation list still counts for what it names: a plant does not stop because a list was not renewed.

use super::certificate::{Certificate, named};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The authority that has signed it.
    pub issuer: String,
    /// Certificates on it.
    pub count: usize,
    /// First second after which there should be a newer one, since 1970.
    pub next_s: Option<i64>,
    pub(super) der: Vec<u8>,
}

impl RevocationList {
    /// Reads a list, DER or PEM. Whether it is signed is seen when it is used.
    pub fn from_bytes(bytes: &[u8]) -> Result<RevocationList, String> {
        let der = match CertificateRevocationListDer::from_pem_slice(bytes) {
            Ok(der) => der.as_ref().to_vec(),
            Err(_) => bytes.to_vec(),
        };
        let none = || "it is no revocation list in DER or PEM form".to_string();
        BorrowedCertRevocationList::from_der(&der).map_err(|_| none())?;
        let list = CertificateList::from_der(&der).map_err(|_| none())?.tbs_cert_list;
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        Ok(RevocationList {
            issuer: named(&list.issuer),
            count: list.revoked_certificates.map_or(0, |all| all.len()),
            next_s: list.next_update.map(|t| seconds(t.to_unix_duration())),
            der,
        })
    }
}

/// What comes of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// None of them knows it.
    Unknown,
    /// One of them has signed it.
    Signed,
    /// One of them has signed it, and takes it back.
    Revoked,
    /// One of them would stand for it, but: ..
    Refused(String),
}

/// Asks all authorities that a person has trusted.
pub(super) fn ask(certificate: &Certificate, authorities: &[Certificate], lists: &[RevocationList]) -> Word {
    if !authorities.iter().any(|a| a.subject == certificate.issuer) {
        return Word::Unknown;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let ders: Vec<CertificateDer<'_>> = authorities.iter().map(|a| CertificateDer::from(a.der.as_slice())).collect();
    let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
    for (authority, der) in authorities.iter().zip(&ders) {
        let in_time = (authority.valid_s.0..=authority.valid_s.1).contains(&now_s);
        match webpki::anchor_from_trusted_cert(der) {
            Ok(anchor) if in_time => anchors.push(anchor),
            Ok(_) if authority.subject == certificate.issuer => {
                return Word::Refused(format!(
                    "its authority {} has run out on {}",
                    certificate.issuer, authority.valid.1
                ));
            }
            Ok(_) | Err(_) => {}
        }
    }
    let lists: Vec<CertRevocationList<'_>> =
        lists.iter().filter_map(|l| BorrowedCertRevocationList::from_der(&l.der).ok().map(Into::into)).collect();
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        let options = options.with_status_policy(UnknownStatusPolicy::Allow);
        options.with_expiration_policy(ExpirationPolicy::Ignore).build()
    });
    let der = CertificateDer::from(certificate.der.as_slice());
    let leaf = match EndEntityCert::try_from(&der) {
        Ok(leaf) => leaf,
        Err(e) => return Word::Refused(e.to_string()),
    };
    let time = UnixTime::since_unix_epoch(now);
    let path = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &[],
        time,
        KeyUsage::server_auth(),
        revocation,
        None,
    );
    match path {
        Ok(_) => Word::Signed,
        Err(webpki::Error::CertRevoked) => Word::Revoked,
        Err(webpki::Error::UnknownIssuer) => Word::Unknown,
        Err(why) => Word::Refused(why.to_string()),
    }
}
