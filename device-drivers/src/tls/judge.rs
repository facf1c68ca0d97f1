//! Whether a peer's certificate is to be believed, and in which words it is not.
//!
//! The library's verifier decides. Beside it one case is decided here: a certificate that nobody else has signed, named as its own `ca`. It is
//! trusted byte by byte, as a person has put it there; as an authority (which most tools make it) the library takes it for no server's.

use super::words::{self, Refused};
use super::{Certificate, shown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// Judges the certificate of one connection.
#[derive(Debug)]
pub(super) struct Judge {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    file: PathBuf,
    peer: String,
    verdict: Mutex<Option<String>>,
}

impl Judge {
    pub(super) fn new(
        file: &Path,
        trusted: Vec<CertificateDer<'static>>,
        peer: &str,
        provider: Arc<CryptoProvider>,
    ) -> Result<Judge, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in &trusted {
            roots.add(certificate.clone()).map_err(|e| format!("{}: {}", file.display(), unusable(certificate, &e)))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(Judge { inner, trusted, file: file.into(), peer: peer.into(), verdict: Mutex::default() })
    }

    /// Why the peer was not believed, if it was not.
    pub(super) fn verdict(&self) -> Option<String> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, shown: &[CertificateDer<'_>], name: &ServerName<'_>, why: rustls::Error) -> rustls::Error {
        let trusted: Vec<Certificate> = self.trusted.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        let shown: Vec<Certificate> = shown.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        let name = name.to_str();
        let text =
            words::of_certificate(&why, &Refused { shown: &shown, trusted: &trusted, file: &self.file, name: &name });
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        why
    }
}

/// Why a file's certificate cannot stand for anybody.
fn unusable(der: &CertificateDer<'_>, why: &rustls::Error) -> String {
    match Certificate::from_der(der) {
        Ok(certificate) if certificate.version < 3 => format!("{}: {}", certificate.subject, words::VERSION_1),
        _ => why.to_string(),
    }
}

/// A certificate that is trusted itself, not by who has signed it: for this name, and in time.
fn stands_for_itself(der: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let bad = |e: CertificateError| rustls::Error::InvalidCertificate(e);
    let parsed = x509_validity(der).ok_or_else(|| bad(CertificateError::BadEncoding))?;
    if now.as_secs() > parsed.1 {
        return Err(bad(CertificateError::Expired));
    }
    if now.as_secs() < parsed.0 {
        return Err(bad(CertificateError::NotValidYet));
    }
    let leaf = webpki::EndEntityCert::try_from(der).map_err(|_| bad(CertificateError::BadEncoding))?;
    leaf.verify_is_valid_for_subject_name(name).map_err(|_| bad(CertificateError::NotValidForName))
}

/// Whether a certificate that has signed itself is still as it was signed: a bit that a disk has lost is found by that.
pub fn is_as_signed(der: &CertificateDer<'_>) -> Result<(), String> {
    let wrong = |e: &dyn std::fmt::Display| format!("it is not as it was signed: {e}");
    let (from, _) = x509_validity(der).ok_or("it is no X.509 certificate")?;
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|e| wrong(&e))?;
    let leaf = webpki::EndEntityCert::try_from(der).map_err(|e| wrong(&e))?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    // At its first second: whether it has run out is asked by others.
    let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(from));
    let usage = webpki::KeyUsage::server_auth();
    leaf.verify_for_usage(algorithms.all, &[anchor], &[], then, usage, None, None).map(drop).map_err(|e| wrong(&e))
}

fn x509_validity(der: &[u8]) -> Option<(u64, u64)> {
    use x509_cert::der::Decode;
    let validity = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate.validity;
    let seconds = |t: x509_cert::time::Time| t.to_unix_duration().as_secs();
    Some((seconds(validity.not_before), seconds(validity.not_after)))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        shown::note(&self.peer, chain.iter().map(|der| der.as_ref()));
        let judged = match self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(_) if self.trusted.contains(end_entity) => {
                stands_for_itself(end_entity, name, now).map(|()| ServerCertVerified::assertion())
            }
            judged => judged,
        };
        judged.map_err(|why| self.refuse(&chain, name, why))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
