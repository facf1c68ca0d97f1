//! Keys, certificates and whom we trust.
//!
//! ```text
//!   pki/                  0700
//!     own/cert.der              who we are; to be trusted by the servers
//!     private/private.pem 0600  our key: made at the first need, kept for ever, never leaves
//!     trusted/                  servers a person has trusted, byte by byte; and authorities, with all they have signed
//!     crl/                      revocation lists of these authorities
//!     rejected/                 servers that came by: quarantined until a person decides
//!     library/                  what async-opcua looks into once more, after we have looked; nothing for people
//! ```
//!
//! What is revoked is not trusted, whoever has trusted it. An authority is trusted like a server: by a person, with its own certificate.

mod authority;
mod certificate;

pub use authority::RevocationList;
pub use certificate::{Certificate, read};

use super::opening::Keys;
use crate::files;
use authority::Word;
use opcua::crypto::{CertificateStore, KeySize, PrivateKey, SecurityPolicy, X509, X509Data};
use opcua::types::ByteString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_cert::der::pem::LineEnding;

/// Bits of our key: all three policies take 2048 to 4096.
const KEY_BITS: u32 = 2048;
/// Our certificate lasts longer than the gateway: one that runs out stops a plant.
const DAYS: u32 = 20 * 365;
/// Quarantined certificates that are kept; beyond that the oldest goes, or a hostile server could fill the disk.
const REJECTED_MAX: usize = 100;
/// Characters shown of what a stranger has written.
const SHOWN_MAX: usize = 200;
/// Shortest beginning of a thumbprint that names a certificate.
const PREFIX_MIN: usize = 6;

/// Several lines share a folder: one makes the key, the others wait.
static MAKING: Mutex<()> = Mutex::new(());

/// Where a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Our own.
    Own,
    /// Trusted.
    Trusted,
    /// Quarantined.
    Rejected,
}

/// Why a certificate is not good enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What is wrong, and what to do.
    pub what: String,
    /// Of which certificate; empty if it is none.
    pub thumbprint: String,
}

/// What a server's certificate has to fit.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Decides how long its key must be.
    pub policy: SecurityPolicy,
    /// The host we reached it by; `None` if that is not to be checked.
    pub host: Option<&'a str>,
    /// The application the server says it is.
    pub application_uri: &'a str,
}

/// One folder of keys and certificates.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Opens a folder, and makes it if it is not there. Nobody else may look into it.
    pub fn open(dir: &Path) -> Result<Pki, String> {
        for place in ["", "trusted", "crl", "rejected", "library/trusted", "library/rejected"] {
            let path = dir.join(place);
            files::make_folder(&path, 0o700).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        }
        keep_private(dir, 0o700)?;
        Ok(Pki { dir: dir.to_path_buf() })
    }

    /// Our own certificate. Made with its key if there is none: this may take seconds, so not on a thread that has other things to do.
    pub fn own(&self) -> Result<Certificate, String> {
        let _one_at_a_time = MAKING.lock().map_err(|_| "another line failed while it made the key".to_string())?;
        let (key, cert) = (self.key_file(), self.dir.join("own/cert.der"));
        match (key.exists(), cert.exists()) {
            (true, true) => {}
            (false, true) => {
                let lost = format!("{} is there, but its key {} is not", cert.display(), key.display());
                return Err(format!("{lost}; restore the key, or remove the certificate to be someone new"));
            }
            (has_key, false) => self.make_own(has_key)?,
        }
        keep_private(&key, 0o600)?;
        read(&cert)
    }

    /// Our key, and the thumbprint of our certificate.
    pub(super) fn keys(&self) -> Result<Keys, String> {
        let thumbprint = self.own()?.x509()?.thumbprint().value().to_vec();
        Ok(Keys { thumbprint, key: self.read_key()? })
    }

    fn read_key(&self) -> Result<PrivateKey, String> {
        let file = self.key_file();
        let fail = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", file.display());
        let pem = files::read(&file, files::SECRET_MAX).map_err(|e| fail(&e))?;
        PrivateKey::from_pem(&pem).map_err(|e| fail(&e))
    }

    fn key_file(&self) -> PathBuf {
        self.dir.join("private/private.pem")
    }

    fn make_own(&self, has_key: bool) -> Result<(), String> {
        let fail = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what} in {}: {e}", self.dir.display());
        let host = X509Data::computer_hostnames().into_iter().next().unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || ['-', '.'].contains(c)).collect();
        let host = if host.is_empty() { "gateway".to_string() } else { host };
        let uri = format!("urn:{host}:lightsout:edge-agent");
        let data = X509Data {
            key_size: KEY_BITS,
            common_name: "Lightsout edge-agent".into(),
            organization: "Lightsout".into(),
            organizational_unit: String::new(),
            country: String::new(),
            state: String::new(),
            alt_host_names: X509Data::alt_host_names(&uri, Some(vec![host]), false, false, false),
            certificate_duration_days: DAYS,
        };
        let (certificate, key) = if has_key {
            let key = self.read_key()?;
            (X509::from_pkey(&key, &data)?, None)
        } else {
            let (certificate, key) = X509::cert_and_pkey(&data)?;
            (certificate, Some(key))
        };
        if let Some(key) = key {
            let der = key.to_der().map_err(|e| fail("make a key", &e))?;
            let pem = der.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|e| fail("make a key", &e))?;
            store(&self.key_file(), pem.as_bytes(), 0o600)?;
        }
        let der = certificate.to_der().map_err(|e| fail("make a certificate", &e))?;
        store(&self.dir.join("own/cert.der"), &der, 0o644)
    }

    /// Whether a server's certificate is trusted and fits. One that nobody has decided on is quarantined. What trust alone would not mend is
    /// said first.
    pub fn judge(&self, der: &[u8], wanted: &Wanted<'_>) -> Result<Certificate, Doubt> {
        let shapeless = |what| Doubt {
            what: format!("the server's certificate cannot be read: {what}"),
            thumbprint: String::new(),
        };
        let found = Certificate::from_der(der).map_err(shapeless)?;
        let what = match (fits(&found, wanted), self.trusts(&found)) {
            (Ok(()), Ok(())) => return Ok(found),
            (Err(what), Ok(())) | (Ok(()), Err(what)) => what,
            (Err(misfit), Err(trust)) => format!("{misfit}; and then: {trust}"),
        };
        Err(Doubt { what, thumbprint: found.thumbprint })
    }

    /// Whether a person, or an authority that a person trusts, stands for this certificate. The text says why not.
    fn trusts(&self, found: &Certificate) -> Result<(), String> {
        let known: Vec<Certificate> = self.all(Place::Trusted).into_iter().map(|(_, c)| c).collect();
        let (by_hand, authorities): (Vec<_>, Vec<_>) = known.into_iter().partition(|c| !c.is_authority);
        let (lists, unreadable) = self.lists();
        let by_hand = by_hand.iter().any(|known| known.der == found.der);
        let by = &found.issuer;
        let doubt = match authority::ask(found, &authorities, &lists) {
            Word::Revoked => {
                return Err(format!("the server's certificate has been revoked by {by}: give the server a new one"));
            }
            _ if by_hand => None,
            Word::Signed => unreadable.map(|why| format!(" ({by} has signed it, but {why})")),
            Word::Refused(why) => Some(format!(" ({by} is trusted, but {why})")),
            Word::Unknown if *by == found.subject => Some(String::new()),
            Word::Unknown => Some(format!(" ({by} has signed it, and is not trusted either)")),
        };
        let Some(but) = doubt else {
            // The library looks for it by its own name for it, and at nothing but its bytes.
            let name = CertificateStore::cert_file_name(&found.x509()?);
            let canonical = self.dir.join("library/trusted").join(name);
            return if canonical.exists() { Ok(()) } else { store(&canonical, &found.der, 0o644) };
        };
        let kept = match self.quarantine(found) {
            Ok(()) => String::new(),
            Err(e) => format!(" (and it could not be kept: {e})"),
        };
        Err(format!(
            "certificate not trusted{but}: run edge-agent pki trust {} --dir {}{kept}",
            found.thumbprint,
            self.dir.display()
        ))
    }

    /// The revocation lists, and what is wrong with the first that cannot be read.
    pub fn lists(&self) -> (Vec<RevocationList>, Option<String>) {
        let (mut lists, mut wrong) = (Vec::new(), None);
        let entries = match fs::read_dir(self.dir.join("crl")) {
            Ok(entries) => entries,
            Err(e) => return (lists, Some(format!("revocation lists cannot be read: {e}"))),
        };
        for path in entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| !is_partial(p)) {
            let bytes = files::read(&path, files::CONFIGURATION_MAX).map_err(|e| e.to_string());
            let read = bytes.and_then(|bytes| RevocationList::from_bytes(&bytes));
            match read {
                Ok(list) => lists.push(list),
                Err(e) => wrong = Some(format!("the revocation list {} cannot be read: {e}", path.display())),
            }
        }
        lists.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        (lists, wrong)
    }

    fn quarantine(&self, certificate: &Certificate) -> Result<(), String> {
        let dir = self.dir.join("rejected");
        let path = dir.join(format!("{}.der", certificate.thumbprint));
        if path.exists() {
            return Ok(());
        }
        let entries = fs::read_dir(&dir).map_err(|e| format!("cannot look into {}: {e}", dir.display()))?;
        let mut old: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        old.sort();
        let surplus = (old.len() + 1).saturating_sub(REJECTED_MAX);
        for (_, path) in old.iter().take(surplus) {
            let _ = fs::remove_file(path); // the next one tries again
        }
        store(&path, &certificate.der, 0o644)
    }

    fn all(&self, place: Place) -> Vec<(PathBuf, Certificate)> {
        let dir = match place {
            Place::Own => "own",
            Place::Trusted => "trusted",
            Place::Rejected => "rejected",
        };
        let entries = fs::read_dir(self.dir.join(dir)).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
        entries.filter_map(|path| read(&path).ok().map(|c| (path, c))).collect()
    }

    /// All certificates, our own first; a file that is none is passed over.
    pub fn list(&self) -> Vec<(Place, Certificate)> {
        let places = [Place::Own, Place::Trusted, Place::Rejected];
        let mut all: Vec<_> =
            places.into_iter().flat_map(|p| self.all(p).into_iter().map(move |(_, c)| (p, c))).collect();
        all.sort_by(|a, b| (a.0, &a.1.subject, &a.1.thumbprint).cmp(&(b.0, &b.1.subject, &b.1.thumbprint)));
        all.dedup_by(|a, b| (a.0, &a.1.der) == (b.0, &b.1.der));
        all
    }

    /// Keeps a revocation list from a file. It takes the place of an older one of the same authority.
    pub fn revoke(&self, file: &Path) -> Result<RevocationList, String> {
        let fail = |e: String| format!("{}: {e}", file.display());
        let bytes = files::read(file, files::CONFIGURATION_MAX).map_err(|e| fail(e.to_string()))?;
        let list = RevocationList::from_bytes(&bytes).map_err(fail)?;
        let mut authorities = self.all(Place::Trusted).into_iter().map(|(_, c)| c);
        let Some(authority) = authorities.find(|c| c.is_authority && c.subject == list.issuer) else {
            return Err(fail(format!("it is signed by {}, which is not trusted here; trust that first", list.issuer)));
        };
        store(&self.dir.join("crl").join(format!("{}.crl", authority.thumbprint)), &list.der, 0o644)?;
        Ok(list)
    }

    /// Trusts a quarantined certificate, named by the beginning of its thumbprint, or one from a file: that of a server, or of an authority.
    pub fn trust(&self, which: &str) -> Result<Certificate, String> {
        let path = Path::new(which);
        let certificate =
            if path.is_file() { read(path)? } else { self.find(which, &[Place::Rejected, Place::Trusted])? };
        let name = CertificateStore::cert_file_name(&certificate.x509()?);
        store(&self.dir.join("trusted").join(name), &certificate.der, 0o644)?;
        self.remove(Place::Rejected, &certificate)?;
        Ok(certificate)
    }

    /// Trusts a certificate no longer, named by the beginning of its thumbprint. A link that is up ends with its next try.
    pub fn reject(&self, which: &str) -> Result<Certificate, String> {
        let certificate = self.find(which, &[Place::Trusted, Place::Rejected])?;
        self.quarantine(&certificate)?;
        self.remove(Place::Trusted, &certificate)?;
        Ok(certificate)
    }

    fn remove(&self, place: Place, certificate: &Certificate) -> Result<(), String> {
        for (path, known) in self.all(place) {
            if known.der == certificate.der {
                fs::remove_file(&path).map_err(|e| format!("cannot remove {}: {e}", path.display()))?;
            }
        }
        Ok(())
    }

    fn find(&self, which: &str, places: &[Place]) -> Result<Certificate, String> {
        let which = which.to_ascii_lowercase().replace([':', ' '], "");
        if which.len() < PREFIX_MIN {
            return Err(format!("\"{which}\" is too short: give at least {PREFIX_MIN} characters of the thumbprint"));
        }
        let mut found: Vec<Certificate> = places.iter().flat_map(|p| self.all(*p)).map(|(_, c)| c).collect();
        found.retain(|c| c.thumbprint.starts_with(&which));
        found.dedup();
        match found.len() {
            1 => found.pop().ok_or_else(String::new),
            0 => Err(format!("no certificate here has a thumbprint that begins with {which}; see edge-agent pki list")),
            n => Err(format!("{n} certificates here have thumbprints that begin with {which}: give more of it")),
        }
    }
}

/// Whether a certificate is what it has to be, trusted or not. The text says why not, and what to do.
fn fits(found: &Certificate, wanted: &Wanted<'_>) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let (from, until) = (&found.valid.0, &found.valid.1);
    if now > found.valid_s.1 {
        return Err(format!("the server's certificate has run out on {until}: renew it on the server"));
    }
    if now < found.valid_s.0 {
        return Err(format!("the server's certificate is valid from {from} on: set the clock of the one or the other"));
    }
    let bits = found.x509().ok().and_then(|x| x.public_key().ok()).map_or(0, |k| k.bit_length());
    if wanted.policy != SecurityPolicy::None && !wanted.policy.is_valid_keylength(bits) {
        let policy = wanted.policy;
        return Err(format!("the server's key has {bits} bits, which {policy} does not take: renew it on the server"));
    }
    if found.application_uri.as_deref() != Some(wanted.application_uri) {
        let named = shown(found.application_uri.as_deref().unwrap_or("no application"));
        let claimed = shown(wanted.application_uri);
        return Err(format!(
            "the server's certificate is for {named}, but the server says it is {claimed}: renew it on the server"
        ));
    }
    if let Some(host) = wanted.host.filter(|host| !found.is_for(host)) {
        let hosts = if found.hosts.is_empty() { "no host".to_string() } else { shown(&found.hosts.join(", ")) };
        return Err(format!(
            "the server's certificate is for {hosts}, not for {host}: use one of these in the endpoint, or, if you are sure, check_host = false"
        ));
    }
    Ok(())
}

/// Takes a file or a folder of ours from everybody else, if it is not so already: on a disk that is read-only that is enough.
fn keep_private(path: &Path, mode: u32) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|e| format!("cannot see {}: {e}", path.display()))?.permissions().mode();
    if found & 0o077 == 0 {
        return Ok(());
    }
    let (shown, found) = (path.display(), found & 0o777);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| {
        format!(
            "{shown} is open to others (mode {found:o}), and cannot be closed to them ({e}): chmod {mode:o} {shown}"
        )
    })
}

/// What a stranger has written, as far as it can be shown.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Writes a file as a whole or not at all, with a mode from its first byte on, and the owner of its folder.
fn store(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
    let dir = path.parent().unwrap_or(path);
    files::make_folder(dir, 0o700).map_err(fail)?;
    let part = dir.join(format!(".part-{}", fastrand::u64(..)));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).and_then(|mut file| {
        files::hand_over(&file, dir)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.map_err(|e| {
        let _ = fs::remove_file(&part);
        fail(e)
    })
}

/// A file that is being written.
fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".part-"))
}

/// A certificate as the protocol carries it.
pub(super) fn bytes_of(certificate: &ByteString) -> &[u8] {
    certificate.value.as_deref().unwrap_or_default()
}
