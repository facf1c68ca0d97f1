//! Certificates for tests: authorities, what they sign, and what nobody should have signed.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SigningKey,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_cert::der::{Decode, Encode};

/// Somebody who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub struct Made {
    /// The certificate.
    pub pem: String,
    /// Its key.
    pub key: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

impl Made {
    /// Writes both beside each other: `{name}.pem`, `{name}.key`.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (pem, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&pem, &self.pem).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (pem, key)
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn signs(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Authority {
    /// One that has signed itself.
    pub fn new(name: &str) -> Authority {
        Authority(CertifiedIssuer::self_signed(signs(name), key()).unwrap())
    }

    /// One below this one.
    pub fn below(&self, name: &str) -> Authority {
        Authority(CertifiedIssuer::signed_by(signs(name), key(), &self.0).unwrap())
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// One that has signed itself and runs out then.
    pub fn until(name: &str, until: SystemTime) -> Authority {
        let mut params = signs(name);
        params.not_before = (until - Duration::from_secs(1000 * 86_400)).into();
        params.not_after = until.into();
        Authority(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    /// A certificate for these hosts.
    pub fn signs(&self, name: &str, hosts: &[&str]) -> Made {
        self.signs_until(name, hosts, SystemTime::now() + Duration::from_secs(365 * 86_400))
    }

    /// One that runs out then.
    pub fn signs_until(&self, name: &str, hosts: &[&str], until: SystemTime) -> Made {
        let (mut params, key) = (params(name, hosts), key());
        params.not_before = (until - Duration::from_secs(1000 * 86_400)).into();
        params.not_after = until.into();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Made { pem: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// One of X.509 version 1, as `openssl x509 -req` makes it without extensions.
    pub fn signs_version_1(&self, name: &str) -> Made {
        let key = key();
        let modern = params(name, &[]).signed_by(&key, &self.0).unwrap();
        let mut old = x509_cert::Certificate::from_der(modern.der()).unwrap();
        old.tbs_certificate.version = x509_cert::Version::V1;
        old.tbs_certificate.extensions = None;
        let tbs = old.tbs_certificate.to_der().unwrap();
        old.signature = x509_cert::der::asn1::BitString::from_bytes(&self.0.key().sign(&tbs).unwrap()).unwrap();
        let der = old.to_der().unwrap();
        let pem = x509_cert::der::pem::encode_string("CERTIFICATE", x509_cert::der::pem::LineEnding::LF, &der).unwrap();
        Made { pem, key: key.serialize_pem(), der }
    }
}

/// What most tools make when they are asked for a certificate: it signs itself, and says that it may sign others.
pub fn self_signed(name: &str, hosts: &[&str]) -> Made {
    let mut params = params(name, hosts);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = key();
    let certificate = params.self_signed(&key).unwrap();
    Made { pem: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
}
