//! The door's own TLS: certificate and key, made here on request, and taken over anew when somebody renews the files.
//!
//! ```text
//!   [http] tls = { self_signed = true }        ──> state_dir/tls/gateway.pem, gateway.key (0600): made once, kept
//!                    └── damaged, or one of them gone ──> set aside, made anew, and told with both thumbprints
//!                    └── cannot be read, or kept ──> one for this run only, and told
//!   [http] tls = { certificate = .., key = .. } ──> these files
//!                    └── damaged, gone, or not to be read ──> no TLS, and so no page beyond this machine; told
//!                                                     └── looked at every RELOAD_EVERY: what is new and good serves the next connection
//! ```
//!
//! Whatever becomes of them, the gateway starts: nobody stops a plant by damaging the page's certificate.

use crate::config::plan::HttpTls;
use crate::state::{self, replace};
use arc_swap::ArcSwap;
use device_drivers::files::{self, SECRET_MAX};
use device_drivers::tls::{Certificate, is_as_signed, pem_trouble};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Whose a certificate is that was made here.
const OWN_NAME: &str = "Lightsout gateway";
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

/// Why certificate and key cannot be used: what is wrong with which file.
#[derive(Debug)]
pub(crate) struct Unfit {
    why: String,
    /// Whether a file is missing or damaged; else it is only closed to us.
    pub(crate) is_damaged: bool,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

fn damaged(why: String) -> Unfit {
    Unfit { why, is_damaged: true }
}

fn thumbprint_of(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

/// Reads certificate and key; the text says what is wrong with which file.
pub(crate) fn read(files: &HttpTls) -> Result<Identity, Unfit> {
    let read = |path: &Path, what: &str| {
        files::read(path, SECRET_MAX).map_err(|e| Unfit {
            why: format!("cannot read {what} from {}: {e}", path.display()),
            is_damaged: e.kind() != io::ErrorKind::PermissionDenied,
        })
    };
    let pem = read(&files.certificate, "a certificate")?;
    let key = read(&files.key, "a key")?;
    fit(files, &pem, &key)
}

/// The certificate and those with it, and what the first one says.
fn chain_of(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Certificate), String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| pem_trouble(&e))?;
    let first = chain.first().ok_or("it holds no certificate in PEM form")?;
    let says = Certificate::from_der(first)?;
    Ok((chain, says))
}

/// Whether certificate and key are sound, and fit each other.
fn fit(files: &HttpTls, pem: &[u8], key: &[u8]) -> Result<Identity, Unfit> {
    let (pem_file, key_file) = (files.certificate.display(), files.key.display());
    let (chain, says) = chain_of(pem).map_err(|e| damaged(format!("{pem_file}: {e}")))?;
    let thumbprint = chain.first().map(|der| thumbprint_of(der)).unwrap_or_default();
    // In our place somebody may have put a certificate that an authority has signed.
    let is_ours = files.is_self_signed && [&says.subject, &says.issuer].iter().any(|name| name.contains(OWN_NAME));
    if let Some(own) = chain.first().filter(|_| is_ours) {
        is_as_signed(own).map_err(|e| damaged(format!("{pem_file}: {e}")))?;
    }
    let wrong_key = |e: &dyn fmt::Display| damaged(format!("cannot read a key from {key_file}: {e}"));
    let secret = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong_key(&pem_trouble(&e)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Asked by itself first: the library does not say whether it is the key or the certificate that it cannot take.
    provider.key_provider.load_private_key(secret.clone_key()).map_err(|e| wrong_key(&e))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| damaged(e.to_string()))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, secret).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            damaged(format!("{key_file} is not the key of the certificate in {pem_file}"))
        }
        other => damaged(format!("{pem_file}: {other}")),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), thumbprint, says })
}

/// What this host calls itself, if that is a name.
pub(super) fn host_name() -> Option<String> {
    let own = rustix::system::uname();
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    own.nodename().to_str().ok().filter(is_name).map(str::to_ascii_lowercase)
}

/// A certificate that signs itself, for this host and the names that are configured; and its key. Both as PEM.
fn made(listen: SocketAddr, names: &[String]) -> Result<(String, String), rcgen::Error> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    hosts.extend(host_name());
    hosts.extend(Some(listen.ip()).filter(|ip: &IpAddr| !ip.is_unspecified()).map(|ip| ip.to_string()));
    hosts.extend(names.iter().cloned());
    hosts.sort();
    hosts.dedup();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, OWN_NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let from = UNIX_EPOCH + Duration::from_secs(VALID_FROM_S);
    params.not_before = from.into();
    params.not_after = (SystemTime::now().max(from) + LASTS).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Keeps a new pair; what is there of an old one is set aside, and nothing of it is lost.
fn keep(files: &HttpTls, pem: &str, key: &str) -> io::Result<()> {
    for path in [&files.certificate, &files.key] {
        if path.symlink_metadata().is_ok() {
            state::set_aside(path)?;
        }
    }
    replace(&files.key, key.as_bytes())?;
    replace(&files.certificate, pem.as_bytes())
}

/// What is to be said while something of a pair of ours that was set aside is there: who has trusted the old certificate has to know the new.
fn said_of_old(files: &HttpTls, now: &str) -> Option<String> {
    let certificate = state::aside_of(&files.certificate);
    if certificate.is_none() && state::aside_of(&files.key).is_none() {
        return None;
    }
    let sound = |path: &Path| {
        let (chain, _) = chain_of(&files::read(path, SECRET_MAX).ok()?).ok()?;
        let first = chain.first()?;
        is_as_signed(first).ok().map(|()| thumbprint_of(first))
    };
    let old = certificate.as_deref().and_then(sound);
    let old = old.map_or("cannot be told any more".into(), |old| format!("was SHA-256 {old}"));
    Some(format!("set aside; the page's certificate was made anew: the old one {old}, the new one is SHA-256 {now}"))
}

/// A new pair in the place of one that cannot be used; or one for this run, and why it is not kept.
fn open_anew(
    files: &HttpTls,
    unfit: &Unfit,
    listen: SocketAddr,
    names: &[String],
) -> Result<(Identity, Option<String>), String> {
    let file = files.certificate.display();
    let (pem, key) = made(listen, names).map_err(|e| format!("cannot make a certificate for {file}: {e}"))?;
    let identity = fit(files, pem.as_bytes(), key.as_bytes()).map_err(|e| e.to_string())?;
    let kept = match unfit.is_damaged {
        true => keep(files, &pem, &key).map_err(|e| format!("cannot keep {file}: {e}")),
        false => Err(unfit.to_string()), // it may be sound, and somebody's mistake in giving it away is soon mended
    };
    let this = &identity.thumbprint;
    let unkept = kept.err().map(|why| format!("{why}; the page has one for this run only, SHA-256 {this}"));
    Ok((identity, unkept))
}

/// What serves with TLS.
pub(crate) struct Door {
    files: HttpTls,
    now: ArcSwap<Identity>,
    /// What is to be said of a pair that was set aside.
    pub(crate) aside: Option<String>,
    /// Why the certificate is one for this run only, if it is.
    pub(crate) unkept: Option<String>,
}

impl Door {
    /// Opens it; a certificate of its own is made if it is wanted and there is none that can be used.
    pub(crate) fn open(files: &HttpTls, listen: SocketAddr, names: &[String]) -> Result<Arc<Door>, String> {
        let (identity, unkept) = match read(files) {
            Ok(identity) => (identity, None),
            Err(why) if files.is_self_signed => open_anew(files, &why, listen, names)?,
            Err(why) => return Err(why.to_string()),
        };
        let aside = if files.is_self_signed { said_of_old(files, &identity.thumbprint) } else { None };
        if let Some(said) = &aside {
            tracing::warn!("{}: {said}", files.certificate.display());
        }
        let missing: Vec<&str> =
            names.iter().filter(|n| !identity.says.names.contains(n)).map(String::as_str).collect();
        if !missing.is_empty() {
            let (file, missing) = (files.certificate.display(), missing.join(", "));
            tracing::warn!("the certificate {file} is not made out to {missing}: browsers will say so");
        }
        Ok(Arc::new(Door { files: files.clone(), now: ArcSwap::from_pointee(identity), aside, unkept }))
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

    /// What becomes of a file's bytes; `None`: it is gone.
    type Harm = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

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
        let (new_pem, new_key) = made(listen, &[]).unwrap();
        std::fs::write(&files.key, new_key).unwrap();
        for wrong in [&b"nothing"[..], b"", &pem] {
            std::fs::write(&files.certificate, wrong).unwrap();
            door.renew();
            assert_eq!(door.thumbprint(), old);
        }
        std::fs::write(&files.certificate, &new_pem).unwrap();
        door.renew();
        assert_ne!(door.thumbprint(), old);
        std::fs::write(&files.key, &key).unwrap();
        let why = read(&files).err().unwrap().to_string();
        assert!(why.contains("gateway.key is not the key of the certificate in"), "{why}");
    }

    #[test]
    fn a_pair_of_ours_that_is_damaged_or_halved_is_set_aside_and_made_anew_and_the_old_thumbprint_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let listen = "127.0.0.1:0".parse().unwrap();
        let old = Door::open(&files, listen, &[]).unwrap();
        assert_eq!((&old.aside, &old.unkept), (&None, &None), "the first one is no news");
        let old = old.thumbprint();
        let sound = [&files.certificate, &files.key].map(|path| std::fs::read(path).unwrap());
        let empty = || {
            for entry in std::fs::read_dir(dir.path().join("tls")).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        };
        let mut harms: Vec<Harm> = vec![
            Box::new(|_| None),
            Box::new(|_| Some(Vec::new())),
            Box::new(|bytes| Some(bytes[..bytes.len() / 2].to_vec())),
            Box::new(|bytes| Some([&bytes[..bytes.len() / 2], &vec![0; bytes.len() / 2]].concat())),
        ];
        for n in 0..40 {
            harms.push(Box::new(move |bytes| {
                let mut bytes = bytes.to_vec();
                let at = bytes.len() * n / 40;
                bytes[at] ^= 1 << (n % 7);
                Some(bytes)
            }));
        }
        for (which, path) in [&files.certificate, &files.key].into_iter().enumerate() {
            for (n, harm) in harms.iter().enumerate() {
                empty();
                std::fs::write(&files.certificate, &sound[0]).unwrap();
                std::fs::write(&files.key, &sound[1]).unwrap();
                match harm(&sound[which]) {
                    Some(bytes) => std::fs::write(path, bytes).unwrap(),
                    None => std::fs::remove_file(path).unwrap(),
                }
                let door = Door::open(&files, listen, &[]).unwrap();
                let new = door.thumbprint();
                if new == old {
                    assert!(door.aside.is_none() && n > 3, "{n} in {which} has changed nothing that matters");
                    continue;
                }
                let said = door.aside.clone().unwrap_or_else(|| panic!("{n} in {which}: not told"));
                assert!(said.contains(&new) && (which == 0 || said.contains(&old)), "{n} in {which}: {said}");
                let again = Door::open(&files, listen, &[]).unwrap();
                assert_eq!((again.thumbprint(), again.aside.clone()), (new, Some(said)), "until it is moved away");
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_serves_this_run_and_what_a_user_gave_is_not_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        std::fs::write(dir.path().join("tls"), "a file").unwrap();
        let door = Door::open(&files(dir.path()), listen, &[]).unwrap();
        assert!(door.unkept.as_ref().is_some_and(|why| why.contains(&door.thumbprint())), "{:?}", door.unkept);

        std::fs::remove_file(dir.path().join("tls")).unwrap();
        let given = HttpTls { is_self_signed: false, ..files(dir.path()) };
        Door::open(&files(dir.path()), listen, &[]).unwrap();
        std::fs::write(&given.key, "-----BEGIN PRIVATE KEY-----\nMIG").unwrap();
        let why = Door::open(&given, listen, &[]).err().unwrap();
        assert!(why.contains("gateway.key") && why.contains("cut short"), "{why}");
        assert!(state::aside_of(&given.key).is_none());
    }
}
