//! The door's own TLS: certificate and key, made here on request, and taken over anew when somebody renews the files.
//!
//! ```text
//!   [http] tls = { self_signed = true }        ──> state_dir/tls/gateway.pem, gateway.key (0600): made once, kept
//!   [http] tls = { certificate = .., key = .. } ──> these files
//!                                                     └── looked at every RELOAD_EVERY: what is new and good serves the next connection
//! ```

use crate::config::plan::HttpTls;
use crate::state::replace;
use arc_swap::ArcSwap;
use device_drivers::tls::Certificate;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// A certificate made here lasts as long as a gateway; the alarm `certificate-ends` comes in time all the same.
const LASTS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The clock of a gateway without a battery may be wrong when its certificate is made: it is valid from a day on that was before its program.
const VALID_FROM_S: u64 = 1_735_689_600; // 2025-01-01
/// What browsers keep in mind: only with TLS from now on (RFC 6797, 6.1).
pub(super) const HSTS: &str = "max-age=31536000";
/// The first byte of a TLS handshake (RFC 8446, 5.1).
pub(super) const HANDSHAKE: u8 = 0x16;

/// Certificate and key, read and found to fit.
pub(crate) struct Identity {
    config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, as browsers show it.
    pub(crate) thumbprint: String,
    /// What it says.
    pub(crate) says: Certificate,
}

/// Reads certificate and key; the text says what is wrong with which file.
pub(crate) fn read(files: &HttpTls) -> Result<Identity, String> {
    let (pem, key) = (files.certificate.display(), files.key.display());
    let unreadable = |what: &str, e: &dyn std::fmt::Display| format!("cannot read {what}: {e}");
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(&format!("a certificate from {pem}"), &e))?;
    let first = chain.first().ok_or_else(|| format!("{pem} holds no certificate in PEM form"))?;
    let says = Certificate::from_der(first).map_err(|e| format!("{pem}: {e}"))?;
    let digest = Sha256::digest(first);
    let thumbprint = digest.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
    let secret = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unreadable(&format!("a key from {key}"), &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, secret).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => format!("{key} is not the key of the certificate in {pem}"),
        other => format!("{pem}: {other}"),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), thumbprint, says })
}

/// Makes a certificate that signs itself, if there is none yet: for this host, and the names that are configured.
fn make(files: &HttpTls, listen: SocketAddr, names: &[String]) -> Result<(), String> {
    if files.certificate.exists() && files.key.exists() {
        return Ok(());
    }
    let fail = |e: &dyn std::fmt::Display| format!("cannot make a certificate in {}: {e}", files.certificate.display());
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let own = rustix::system::uname();
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    hosts.extend(own.nodename().to_str().ok().filter(is_name).map(str::to_ascii_lowercase));
    hosts.extend(Some(listen.ip()).filter(|ip: &IpAddr| !ip.is_unspecified()).map(|ip| ip.to_string()));
    hosts.extend(names.iter().cloned());
    hosts.sort();
    hosts.dedup();
    let mut params = CertificateParams::new(hosts).map_err(|e| fail(&e))?;
    params.distinguished_name.push(DnType::CommonName, "Lightsout gateway");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let from = UNIX_EPOCH + Duration::from_secs(VALID_FROM_S);
    params.not_before = from.into();
    params.not_after = (SystemTime::now().max(from) + LASTS).into();
    let key = KeyPair::generate().map_err(|e| fail(&e))?;
    let certificate = params.self_signed(&key).map_err(|e| fail(&e))?;
    replace(&files.key, key.serialize_pem().as_bytes()).map_err(|e| fail(&e))?;
    replace(&files.certificate, certificate.pem().as_bytes()).map_err(|e| fail(&e))
}

/// What serves with TLS.
pub(crate) struct Door {
    files: HttpTls,
    now: ArcSwap<Identity>,
}

impl Door {
    /// Opens it; a certificate of its own is made if it is wanted and not there.
    pub(crate) fn open(files: &HttpTls, listen: SocketAddr, names: &[String]) -> Result<Arc<Door>, String> {
        if files.is_self_signed {
            make(files, listen, names)?;
        }
        let identity = read(files)?;
        let missing: Vec<&str> =
            names.iter().filter(|n| !identity.says.names.contains(n)).map(String::as_str).collect();
        if !missing.is_empty() {
            let (file, missing) = (files.certificate.display(), missing.join(", "));
            tracing::warn!("the certificate {file} is not made out to {missing}: browsers will say so");
        }
        Ok(Arc::new(Door { files: files.clone(), now: ArcSwap::from_pointee(identity) }))
    }

    /// SHA-256 of the certificate.
    pub(crate) fn thumbprint(&self) -> String {
        self.now.load().thumbprint.clone()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.now.load().config.clone())
    }

    /// Takes renewed files over, for as long as it lives. Files that are wrong change nothing, and are told once.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            let now = self.stamp();
            if now != seen {
                self.renew();
                seen = now;
            }
        }
    }

    pub(super) fn renew(&self) {
        match read(&self.files) {
            Ok(identity) if identity.thumbprint == self.thumbprint() => {}
            Ok(identity) => {
                tracing::info!("a renewed certificate serves the page: SHA-256 {}", identity.thumbprint);
                self.now.store(Arc::new(identity));
            }
            Err(why) => tracing::error!("the renewed certificate cannot be used, the old one goes on: {why}"),
        }
    }

    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        let of = |path: &Path| std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        [of(&self.files.certificate), of(&self.files.key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn files(dir: &Path) -> HttpTls {
        let (certificate, key) = (dir.join("tls/gateway.pem"), dir.join("tls/gateway.key"));
        HttpTls { certificate, key, is_self_signed: true }
    }

    #[test]
    fn a_certificate_is_made_once_for_all_our_names_and_its_key_is_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let listen = "10.1.2.3:9464".parse().unwrap();
        let first = Door::open(&files, listen, &["gw-1.plant".into()]).unwrap();
        let says = first.now.load().says.clone();
        for name in ["localhost", "127.0.0.1", "::1", "10.1.2.3", "gw-1.plant"] {
            assert!(says.names.iter().any(|n| n == name), "{name}: {says:?}");
        }
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Door::open(&files, listen, &[]).unwrap();
        assert_eq!(first.thumbprint(), again.thumbprint());
        assert_eq!(first.thumbprint().len(), 32 * 3 - 1);
    }

    #[test]
    fn renewed_files_are_taken_over_and_wrong_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let listen = "127.0.0.1:0".parse().unwrap();
        let door = Door::open(&files, listen, &[]).unwrap();
        let old = door.thumbprint();
        let (pem, key) = (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap());
        std::fs::remove_file(&files.key).unwrap();
        make(&files, listen, &[]).unwrap();
        let new_pem = std::fs::read(&files.certificate).unwrap();
        for wrong in [&b"nothing"[..], b"", &pem] {
            std::fs::write(&files.certificate, wrong).unwrap();
            door.renew();
            assert_eq!(door.thumbprint(), old);
        }
        std::fs::write(&files.certificate, &new_pem).unwrap();
        door.renew();
        assert_ne!(door.thumbprint(), old);
        std::fs::write(&files.key, &key).unwrap();
        let why = read(&files).err().unwrap();
        assert!(why.contains("gateway.key is not the key of the certificate in"), "{why}");
    }
}
