//! Authorities: a person trusts one, and with it the servers whose certificates it has signed, but not those it has taken back.

mod support;

use device_drivers::opcua::pki::{Pki, Place, Wanted};
use device_drivers::opcua::{OpcUa, OpcUaSpec, Policy, Security};
use opcua::crypto::{CertificateStore, SecurityPolicy, X509Data};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::path::Path;
use std::sync::LazyLock;
use support::{Line, bank_points, ms, spec};

const URI: &str = opcua_bank::APPLICATION_URI;

/// A key of a server, made once: that takes seconds.
static SERVER_KEY: LazyLock<String> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let data = X509Data::sample_cert();
    CertificateStore::create_certificate_and_key(&data, true, &dir.path().join("cert.der"), &key).unwrap();
    std::fs::read_to_string(key).unwrap().replace('\r', "\n")
});

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

/// How an authority's certificate differs from a good one.
fn authority(name: &str, adapt: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    adapt(&mut params);
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    Authority { issuer: Issuer::new(params, key), der }
}

impl Authority {
    /// A server's certificate with this serial number.
    fn signs(&self, serial: u64, adapt: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("server {serial}"));
        params.subject_alt_names =
            vec![SanType::URI(URI.try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        adapt(&mut params);
        let key = KeyPair::from_pem(&SERVER_KEY).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }

    fn revokes(&self, serials: &[u64], next: (i32, u8, u8)) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(next.0, next.1, next.2),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// A folder in which these are trusted.
fn folder(dir: &Path, trusted: &[&[u8]]) -> Pki {
    let pki = Pki::open(dir).unwrap();
    for (n, der) in trusted.iter().enumerate() {
        let file = dir.join(format!("by-hand-{n}.der"));
        std::fs::write(&file, der).unwrap();
        pki.trust(file.to_str().unwrap()).unwrap();
    }
    pki
}

fn judged(pki: &Pki, der: &[u8]) -> Result<(), String> {
    let wanted = Wanted { policy: SecurityPolicy::Basic256Sha256, host: Some("127.0.0.1"), application_uri: URI };
    pki.judge(der, &wanted).map(|_| ()).map_err(|doubt| doubt.what)
}

#[test]
fn what_a_trusted_authority_has_signed_is_trusted_and_nothing_else() {
    let (plant, stranger) = (authority("plant", |_| {}), authority("stranger", |_| {}));
    let namesake = authority("plant", |_| {});
    let dir = tempfile::tempdir().unwrap();
    let pki = folder(dir.path(), &[&plant.der]);
    assert_eq!(judged(&pki, &plant.signs(1, |_| {})), Ok(()));
    // Trust by the authority leaves nothing behind that would outlive it.
    assert_eq!(pki.list().iter().filter(|(place, _)| *place == Place::Trusted).count(), 1);

    let rows: Vec<(Vec<u8>, &str)> = vec![
        (stranger.signs(1, |_| {}), "CN=stranger has signed it, and is not trusted either"),
        (namesake.signs(1, |_| {}), "CN=plant is trusted, but"),
        (plant.signs(1, |p| p.not_after = date_time_ymd(2025, 1, 1)), "CN=plant is trusted, but"),
        (
            plant.signs(1, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "CN=plant is trusted, but",
        ),
        (plant.signs(1, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CN=plant is trusted, but"),
    ];
    for (der, want) in rows {
        let why = judged(&pki, &der).unwrap_err();
        assert!(why.contains("certificate not trusted (") && why.contains(want), "{why}");
    }
    // It has to fit all the same.
    let other = plant.signs(1, |p| p.subject_alt_names = vec![SanType::URI("urn:other".try_into().unwrap())]);
    assert!(judged(&pki, &other).unwrap_err().contains("is for urn:other"));

    // A server is no authority, whatever it says of itself: its certificate names an application.
    let server = authority("server", |p| {
        p.subject_alt_names = vec![SanType::URI(URI.try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
    });
    let dir = tempfile::tempdir().unwrap();
    let pki = folder(dir.path(), &[&server.der]);
    assert!(judged(&pki, &server.signs(1, |_| {})).is_err());

    let late = authority("late", |p| p.not_after = date_time_ymd(2025, 1, 1));
    let dir = tempfile::tempdir().unwrap();
    let why = judged(&folder(dir.path(), &[&late.der]), &late.signs(1, |_| {})).unwrap_err();
    assert!(why.contains("its authority CN=late has run out on 2025-01-01"), "{why}");

    // And the authority goes as it came.
    let dir = tempfile::tempdir().unwrap();
    let pki = folder(dir.path(), &[&plant.der]);
    let der = plant.signs(7, |_| {});
    assert_eq!(judged(&pki, &der), Ok(()));
    let known = pki.list().into_iter().find(|(_, c)| c.is_authority).unwrap().1;
    pki.reject(&known.thumbprint).unwrap();
    assert!(judged(&pki, &der).is_err(), "it is not remembered");
}

#[test]
fn what_an_authority_has_taken_back_is_not_trusted_whoever_has_trusted_it() {
    let (plant, stranger) = (authority("plant", |_| {}), authority("stranger", |_| {}));
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (plant.signs(1, |_| {}), plant.signs(2, |_| {}));
    let pki = folder(dir.path(), &[&plant.der, &bad]);
    assert_eq!((judged(&pki, &good), judged(&pki, &bad)), (Ok(()), Ok(())));

    let keep = |list: &[u8]| {
        let file = dir.path().join("list.crl");
        std::fs::write(&file, list).unwrap();
        pki.revoke(&file)
    };
    assert!(keep(b"nonsense").unwrap_err().contains("it is no revocation list"));
    assert!(
        keep(&stranger.revokes(&[1], (2030, 1, 1))).unwrap_err().contains("CN=stranger, which is not trusted here")
    );
    // An old list counts as well for what it names, and stops nobody else.
    let list = keep(&plant.revokes(&[2, 99], (2026, 2, 1))).unwrap();
    assert_eq!((list.issuer.as_str(), list.count), ("CN=plant", 2));
    assert_eq!(judged(&pki, &good), Ok(()));
    let why = judged(&pki, &bad).unwrap_err();
    assert!(why.contains("has been revoked by CN=plant"), "{why}");

    // A newer list takes its place; one that the authority has not signed lets nobody in by the authority's word.
    keep(&plant.revokes(&[99], (2030, 1, 1))).unwrap();
    assert_eq!(judged(&pki, &bad), Ok(()));
    let forged = authority("plant", |_| {}).revokes(&[], (2030, 1, 1));
    keep(&forged).unwrap();
    assert!(judged(&pki, &good).unwrap_err().contains("CN=plant is trusted, but"));
    assert_eq!(judged(&pki, &bad), Ok(()), "a person has trusted this one");
    std::fs::write(dir.path().join("crl/other.crl"), b"nonsense").unwrap();
    std::fs::remove_file(dir.path().join(format!("crl/{}.crl", thumbprint(&pki)))).unwrap();
    assert!(judged(&pki, &good).unwrap_err().contains("other.crl cannot be read"));
}

fn thumbprint(pki: &Pki) -> String {
    pki.list().into_iter().find(|(_, c)| c.is_authority).unwrap().1.thumbprint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_the_certificate_of_an_authority_is_read_until_it_is_revoked() {
    let plant = authority("plant", |_| {});
    let dir = tempfile::tempdir().unwrap();
    let server = dir.path().join("server");
    for (file, bytes) in
        [("own/cert.der", plant.signs(5, |_| {})), ("private/private.pem", SERVER_KEY.as_bytes().into())]
    {
        std::fs::create_dir_all(server.join(file).parent().unwrap()).unwrap();
        std::fs::write(server.join(file), bytes).unwrap();
    }
    let config = OpcuaBankConfig {
        variables: 20,
        period: ms(200),
        secure: true,
        trust_all: true,
        pki_dir: Some(server),
        ..OpcuaBankConfig::default()
    };
    let bank = opcua_bank::serve(config).await.unwrap();
    let run = || {
        let security = Security::encrypted(Policy::Basic256Sha256);
        Line::run(OpcUa::new(OpcUaSpec { security, ..spec(bank.url(), dir.path(), bank_points(20)) }), false)
    };
    let line = run();
    line.told
        .until("not trusted", |r| r.last_error().filter(|e| e.contains("CN=plant has signed it, and")).map(|_| ()))
        .await;
    let pki = folder(&dir.path().join("client"), &[&plant.der]);
    line.told.until("all good", |r| (0..20).all(|n| r.good(n).is_some()).then_some(())).await;
    line.stop().await;

    let file = dir.path().join("list.crl");
    std::fs::write(&file, plant.revokes(&[5], (2030, 1, 1))).unwrap();
    pki.revoke(&file).unwrap();
    let line = run();
    line.told.until("revoked", |r| r.last_error().filter(|e| e.contains("revoked by CN=plant")).map(|_| ())).await;
    assert_eq!(line.told.look().ups(), 0);
}
