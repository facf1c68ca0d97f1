//! Whom the OPC UA client talks to, and to whom it does not say a word.

mod support;

use device_drivers::opcua::pki::{Pki, Place};
use device_drivers::opcua::{Identity, OpcUa, OpcUaSpec, Policy, Security};
use device_drivers::{LinkState, Value};
use opcua::crypto::{CertificateStore, PrivateKey, SecurityPolicy, X509, X509Data};
use opcua::server::{ServerEndpoint, ServerUserToken};
use opcua::types::MessageSecurityMode;
use plc_sim::faces::opcua_bank::{self, OpcuaBank, OpcuaBankConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;
use support::ua_server::UaServer;
use support::{Line, bank_points, ms, spec, test_points};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ENCRYPTED: Security = Security::encrypted(Policy::Basic256Sha256);

/// A server's keys are made once for all tests: that takes seconds.
static SERVER_KEYS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let data = X509Data {
        key_size: 2048,
        common_name: "bank".into(),
        organization: "test".into(),
        organizational_unit: String::new(),
        country: String::new(),
        state: String::new(),
        alt_host_names: X509Data::alt_host_names(
            opcua_bank::APPLICATION_URI,
            Some(vec!["127.0.0.1".into()]),
            false,
            false,
            false,
        ),
        certificate_duration_days: 30,
    };
    let (cert, key) = (dir.path().join("own/cert.der"), dir.path().join("private/private.pem"));
    CertificateStore::create_certificate_and_key(&data, true, &cert, &key).unwrap();
    dir
});

/// The files of a server of its own, with the keys of all.
fn server_files(dir: &Path) -> std::path::PathBuf {
    let to = dir.join("server");
    for file in ["own/cert.der", "private/private.pem"] {
        std::fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
        std::fs::copy(SERVER_KEYS.path().join(file), to.join(file)).unwrap();
    }
    to
}

async fn bank(dir: &Path, adapt: impl FnOnce(&mut OpcuaBankConfig)) -> OpcuaBank {
    let mut config = OpcuaBankConfig {
        variables: 20,
        period: ms(200),
        secure: true,
        trust_all: true,
        pki_dir: Some(server_files(dir)),
        ..OpcuaBankConfig::default()
    };
    adapt(&mut config);
    opcua_bank::serve(config).await.unwrap()
}

fn secure(url: String, dir: &Path, security: Security) -> OpcUaSpec {
    OpcUaSpec { security, ..spec(url, dir, bank_points(20)) }
}

async fn all_good(line: &Line) {
    line.told.until("all good", |r| (0..20).all(|n| r.good(n).is_some()).then_some(())).await;
}

async fn error(line: &Line, kind: &str) -> String {
    let told = |r: &support::Record| {
        r.errors.iter().position(|e| *e == kind)?;
        r.last_error().map(String::from)
    };
    let text = line.told.until(kind, told).await;
    assert_eq!(line.told.look().ups(), 0, "{text}");
    text
}

/// Trusts the server beforehand, as a person does who has its certificate at hand.
fn trusted(dir: &Path) {
    let pki = Pki::open(&dir.join("client")).unwrap();
    pki.trust(SERVER_KEYS.path().join("own/cert.der").to_str().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_nobody_has_trusted_waits_in_quarantine_until_a_person_decides() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |_| {}).await;
    let line = Line::run(OpcUa::new(secure(bank.url(), dir.path(), ENCRYPTED)), false);
    let text = error(&line, "Untrusted").await;
    let thumbprint = line.told.look().thumbprints[0].clone();
    assert!(text.contains(&format!("certificate not trusted: run edge-agent pki trust {thumbprint}")), "{text}");

    let pki = Pki::open(&dir.path().join("client")).unwrap();
    let list = |place| pki.list().into_iter().filter(move |(p, _)| *p == place).map(|(_, c)| c.thumbprint);
    assert_eq!(list(Place::Rejected).collect::<Vec<_>>(), std::slice::from_ref(&thumbprint));
    assert_eq!(list(Place::Trusted).count(), 0);
    pki.trust(&thumbprint[..8]).unwrap();
    all_good(&line).await;

    // What is made is kept, and kept from others.
    let mode = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("client"), 0o700);
    assert_eq!(mode("client/private"), 0o700);
    assert_eq!(mode("client/private/private.pem"), 0o600);
    let own = pki.own().unwrap();
    line.stop().await;
    assert_eq!(Pki::open(&dir.path().join("client")).unwrap().own().unwrap(), own);

    // And what a person no longer trusts is no longer talked to.
    pki.reject(&thumbprint).unwrap();
    let line = Line::run(OpcUa::new(secure(bank.url(), dir.path(), ENCRYPTED)), false);
    error(&line, "Untrusted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_and_mode_works() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |_| {}).await;
    trusted(dir.path());
    let names = Security::names();
    assert_eq!(names.len(), 6);
    for name in names {
        let line = Line::run(OpcUa::new(secure(bank.url(), dir.path(), name.parse().unwrap())), false);
        all_good(&line).await;
        line.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_trust_us_is_told_apart_and_the_text_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |c| c.trust_all = false).await;
    trusted(dir.path());
    let line = Line::run(OpcUa::new(secure(bank.url(), dir.path(), ENCRYPTED)), false);
    let text = error(&line, "Denied").await;
    let own = Pki::open(&dir.path().join("client")).unwrap().own().unwrap();
    assert!(text.contains(&own.thumbprint) && text.contains("own/cert.der"), "{text}");

    // What the text says helps.
    let server = dir.path().join("server");
    for file in std::fs::read_dir(server.join("rejected")).unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), server.join("trusted").join(file.file_name())).unwrap();
    }
    all_good(&line).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_that_is_not_offered_is_never_replaced_by_a_weaker_one() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |c| c.secure = false).await;
    let line = Line::run(OpcUa::new(secure(bank.url(), dir.path(), ENCRYPTED)), false);
    let text = error(&line, "Denied").await;
    assert!(text.ends_with("it does not offer security Basic256Sha256/SignAndEncrypt, it offers none"), "{text}");
    assert!(line.told.look().readings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_who_they_say_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let users = vec![("operator".to_string(), "right".to_string())];
    let bank = bank(dir.path(), |c| (c.anonymous, c.users) = (false, users)).await;
    trusted(dir.path());
    let user = |password: &str| Identity::User { name: "operator".into(), password: password.into() };
    let run = |identity, security| {
        Line::run(OpcUa::new(OpcUaSpec { identity, ..secure(bank.url(), dir.path(), security) }), false)
    };

    let line = run(user("right"), ENCRYPTED);
    all_good(&line).await;
    line.stop().await;
    let line = run(user("wrong"), ENCRYPTED);
    let text = error(&line, "Login").await;
    assert!(text.contains("operator") && !text.contains("wrong"), "{text}");
    // Whatever else fails is tried again after a second at most; servers lock accounts.
    tokio::time::sleep(ms(6000)).await;
    assert_eq!(line.told.look().errors, ["Login"], "one try, and not one every second");
    line.stop().await;
    let text = error(&run(Identity::Anonymous, ENCRYPTED), "Denied").await;
    assert!(text.ends_with("it does not take anonymous users, it takes users with a password"), "{text}");
    let text = error(&run(user("right"), Security::NONE), "Denied").await;
    assert!(text.contains("choose a security"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_have_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("user.der"), dir.path().join("user.pem"));
    CertificateStore::create_certificate_and_key(&X509Data::sample_cert(), true, &cert, &key).unwrap();
    let pki = server_files(dir.path());
    let server = UaServer::start(|b| {
        let policy = SecurityPolicy::Basic256Sha256;
        let endpoint = ServerEndpoint::new("/", policy, MessageSecurityMode::SignAndEncrypt, &["engineer".to_string()]);
        b.pki_dir(&pki)
            .application_uri(opcua_bank::APPLICATION_URI)
            .trust_client_certs(true)
            .add_user_token("engineer", ServerUserToken::x509("engineer", &cert))
            .add_endpoint("secure", endpoint)
    })
    .await;
    server.add("X", 3i32, None);
    trusted(dir.path());
    let run = |certificate, key| {
        let identity = Identity::Certificate { certificate, key };
        let mut spec = secure(server.url(), dir.path(), ENCRYPTED);
        spec.points = test_points(&["X"]);
        Line::run(OpcUa::new(OpcUaSpec { identity, ..spec }), false)
    };
    let line = run(cert.clone(), key.clone());
    line.told.until("a value", |r| r.good(0).filter(|v| *v == Value::Int(3))).await;
    line.stop().await;

    let (other, others_key) = (dir.path().join("other.der"), dir.path().join("other.pem"));
    CertificateStore::create_certificate_and_key(&X509Data::sample_cert(), true, &other, &others_key).unwrap();
    error(&run(other, others_key), "Login").await;
    error(&run(cert, dir.path().join("no.pem")), "Denied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_encrypted_values_are_all_good_and_go_on_changing() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |c| (c.variables, c.period) = (5000, ms(1000))).await;
    trusted(dir.path());
    let spec = OpcUaSpec { points: bank_points(5000), ..secure(bank.url(), dir.path(), ENCRYPTED) };
    let line = Line::run(OpcUa::new(spec), false);
    line.told
        .until("all good", |r| (r.readings.len() >= 5000 && (0..5000).all(|n| r.good(n).is_some())).then_some(()))
        .await;
    let (first, tick) = (line.told.look().readings.len(), bank.tick());
    let changed = |r: &support::Record| r.readings.len() >= first + 10_000 && bank.tick() > tick;
    line.told.until("two changes of each", |r| changed(r).then_some(())).await;
    let told = line.told.look();
    assert_eq!(told.ups(), 1, "{:?}", told.links);
}

/// A server that answers the first bytes of every client with these, and then goes on with zeros.
async fn hostile(answer: Vec<u8>) -> (String, tokio::sync::watch::Receiver<u64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    let (taken, seen) = tokio::sync::watch::channel(0u64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, taken) = (answer.clone(), taken.clone());
            tokio::spawn(async move {
                let mut hello = [0u8; 64];
                let _ = stream.read(&mut hello).await;
                let _ = stream.write_all(&answer).await;
                let zeros = vec![0u8; 1 << 16];
                while stream.write_all(&zeros).await.is_ok() {
                    taken.send_modify(|n| *n += zeros.len() as u64);
                }
            });
        }
    });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_claims_four_gigabytes_is_left_at_once() {
    let rows: [&[u8]; 4] = [
        b"ACKF\xff\xff\xff\xff",
        b"MSGF\x00\x00\x00\x80",
        b"ACKF\x00\x00\x00\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    for answer in rows {
        let (url, taken) = hostile(answer.to_vec()).await;
        let dir = tempfile::tempdir().unwrap();
        let line = Line::run(OpcUa::new(spec(url, dir.path(), test_points(&["X"]))), false);
        let text = error(&line, "Protocol").await;
        assert!(text.contains("a message that claims"), "{text}");
        line.told
            .until("another try", |r| (r.links.iter().filter(|l| l.0 == LinkState::Down).count() >= 2).then_some(()))
            .await;
        line.stop().await;
        // Only what fits into the buffers of the sockets has gone its way.
        assert!(*taken.borrow() < 64 << 20, "{} bytes were taken", *taken.borrow());
    }
}

fn certificate(uri: &str, hosts: &[&str], bits: u32, days: u32) -> Vec<u8> {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    let data = X509Data {
        key_size: bits,
        common_name: "x".into(),
        organization: String::new(),
        organizational_unit: String::new(),
        country: String::new(),
        state: String::new(),
        alt_host_names: X509Data::alt_host_names(uri, Some(hosts), false, false, false),
        certificate_duration_days: days,
    };
    X509::cert_and_pkey(&data).unwrap().0.to_der().unwrap()
}

#[test]
fn what_trust_would_not_mend_is_said_first_and_at_once() {
    use device_drivers::opcua::pki::Wanted;
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let der = certificate("urn:plc", &["plc-1\nWARN forged"], 2048, 30);
    let wanted = Wanted { policy: SecurityPolicy::Basic256Sha256, host: Some("10.0.0.8"), application_uri: "urn:plc" };
    let doubt = pki.judge(&der, &wanted).unwrap_err();
    let host = "the server's certificate is for plc-1?WARN forged, not for 10.0.0.8: use one of these";
    assert!(doubt.what.starts_with(host) && doubt.what.contains("check_host = false"), "{}", doubt.what);
    let then = format!(
        "; and then: certificate not trusted: run edge-agent pki trust {} --dir {}",
        doubt.thumbprint,
        dir.path().display()
    );
    assert!(doubt.what.ends_with(&then), "{}", doubt.what);
}

#[test]
fn a_trusted_certificate_must_also_fit() {
    use device_drivers::opcua::pki::Wanted;
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let judge = |der: &[u8], host: Option<&str>, uri: &str| {
        let file = dir.path().join("by-hand.der");
        std::fs::write(&file, der).unwrap();
        pki.trust(file.to_str().unwrap()).unwrap();
        let policy = SecurityPolicy::Basic256Sha256;
        pki.judge(der, &Wanted { policy, host, application_uri: uri }).map(|_| ()).map_err(|d| d.what)
    };
    let good = certificate("urn:plc", &["plc-1", "10.0.0.7", "::1"], 2048, 30);
    assert_eq!(judge(&good, Some("PLC-1"), "urn:plc"), Ok(()));
    assert_eq!(judge(&good, Some("10.0.0.7"), "urn:plc"), Ok(()));
    assert_eq!(judge(&good, Some("0:0:0:0:0:0:0:1"), "urn:plc"), Ok(()));
    assert_eq!(judge(&good, None, "urn:plc"), Ok(()));
    let why = judge(&good, Some("10.0.0.8"), "urn:plc").unwrap_err();
    assert!(why.contains("plc-1, 10.0.0.7") && why.contains("check_host = false"), "{why}");
    let why = judge(&good, None, "urn:other").unwrap_err();
    assert!(why.contains("is for urn:plc") && why.contains("urn:other"), "{why}");
    let why = judge(&certificate("urn:plc", &[], 1024, 30), None, "urn:plc").unwrap_err();
    assert!(why.contains("1024 bits"), "{why}");
    let over = certificate("urn:plc", &[], 2048, 0);
    std::thread::sleep(ms(2100));
    let why = judge(&over, None, "urn:plc").unwrap_err();
    assert!(why.contains("has run out"), "{why}");
    for nonsense in [&b""[..], b"nonsense", &good[..100], &[&good[..], &good[..]].concat()] {
        let wanted = Wanted { policy: SecurityPolicy::Basic256Sha256, host: None, application_uri: "urn:plc" };
        assert!(pki.judge(nonsense, &wanted).is_err());
    }
}

#[test]
fn quarantine_is_bounded_and_thumbprints_are_found_as_people_write_them() {
    use device_drivers::opcua::pki::Wanted;
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    for n in 0..150 {
        std::fs::write(dir.path().join(format!("rejected/{n}.der")), b"flood").unwrap();
    }
    let der = certificate("urn:plc", &[], 2048, 30);
    let wanted = Wanted { policy: SecurityPolicy::Basic256Sha256, host: None, application_uri: "urn:plc" };
    let thumbprint = pki.judge(&der, &wanted).unwrap_err().thumbprint;
    assert_eq!(std::fs::read_dir(dir.path().join("rejected")).unwrap().count(), 100);
    let shout = thumbprint.to_uppercase();
    let spaced = shout.as_bytes().chunks(2).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join(":");
    assert_eq!(pki.trust(&spaced).unwrap().thumbprint, thumbprint);
    assert!(pki.trust(&thumbprint[..4]).unwrap_err().contains("too short"));
    assert!(pki.trust("0123456789").unwrap_err().contains("no certificate here"));
}

#[test]
fn a_key_that_others_can_read_is_closed_to_them_and_a_certificate_without_its_key_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let own = pki.own().unwrap();
    let key = dir.path().join("private/private.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(pki.own().unwrap(), own);
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // A start that ended between key and certificate: the key stays.
    std::fs::remove_file(dir.path().join("own/cert.der")).unwrap();
    let again = pki.own().unwrap();
    assert_eq!(again.application_uri, own.application_uri);
    std::fs::remove_file(&key).unwrap();
    assert!(pki.own().unwrap_err().contains("restore the key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_security_needs_no_folder_of_keys() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |_| {}).await;
    // As little of a folder as there can be: what stands in its place cannot become one.
    let blocked = dir.path().join("client");
    std::fs::write(&blocked, "a file").unwrap();
    let line = Line::run(
        OpcUa::new(OpcUaSpec { pki_dir: blocked.clone(), ..secure(bank.url(), dir.path(), Security::NONE) }),
        false,
    );
    all_good(&line).await;
    line.stop().await;
    let line =
        Line::run(OpcUa::new(OpcUaSpec { pki_dir: blocked, ..secure(bank.url(), dir.path(), ENCRYPTED) }), false);
    assert!(error(&line, "Connect").await.contains("client"));
}

/// `ACK` with usual limits, and an `OPN` that claims this policy, certificate and body.
fn opening(policy: &str, certificate: Option<&[u8]>, thumbprint: Option<&[u8]>, body: &[u8]) -> Vec<u8> {
    let text = |bytes: Option<&[u8]>| match bytes {
        None => (-1i32).to_le_bytes().to_vec(),
        Some(bytes) => [&(bytes.len() as i32).to_le_bytes()[..], bytes].concat(),
    };
    let ack: Vec<u8> = [28u32, 0, 65_536, 65_536, 0, 0].iter().skip(1).flat_map(|n| n.to_le_bytes()).collect();
    let mut out = [b"ACKF".to_vec(), 28u32.to_le_bytes().to_vec(), ack].concat();
    let rest =
        [7u32.to_le_bytes().to_vec(), text(Some(policy.as_bytes())), text(certificate), text(thumbprint)].concat();
    out.extend(b"OPNF");
    out.extend((8 + rest.len() as u32 + body.len() as u32).to_le_bytes());
    out.extend(rest);
    out.extend(body);
    out
}

/// A server that says this to every client, and then nothing more.
async fn says(answer: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut heard = [0u8; 64];
                let _ = stream.read(&mut heard).await;
                let _ = stream.write_all(&answer).await;
                while stream.read(&mut heard).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_opens_the_channel_in_another_way_than_was_asked_for_is_left() {
    let cert = std::fs::read(SERVER_KEYS.path().join("own/cert.der")).unwrap();
    let basic = SecurityPolicy::Basic256Sha256.to_uri();
    let answer = opening(basic, Some(&cert), Some(&[0; 20]), &[0; 256]);
    let dir = tempfile::tempdir().unwrap();
    let line = Line::run(OpcUa::new(spec(says(answer).await, dir.path(), test_points(&["X"]))), false);
    let text = error(&line, "Protocol").await;
    assert!(text.contains("it opens the channel with security Basic256Sha256, and None was asked for"), "{text}");
}

/// Between us and a good server: the answers to the second connection, the one with security, come from here.
async fn taken_over(server: &str, answer: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    let (good, bad) = (server.to_string(), says(answer).await);
    let host = |url: &str| url.trim_start_matches("opc.tcp://").trim_end_matches('/').to_string();
    let ends = [host(&good), host(&bad)];
    tokio::spawn(async move {
        for n in 0.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let end = ends[n % 2].clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(end).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stands_between_us_and_a_trusted_server_can_do_no_more_than_end_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let bank = bank(dir.path(), |_| {}).await;
    trusted(dir.path());
    let pki = Pki::open(&dir.path().join("client")).unwrap();
    pki.own().unwrap();
    let own_der = std::fs::read(dir.path().join("client/own/cert.der")).unwrap();
    let own = X509::from_der(&own_der).unwrap();
    let thumbprint = own.thumbprint().value().to_vec();
    let cert = std::fs::read(SERVER_KEYS.path().join("own/cert.der")).unwrap();
    let policy = SecurityPolicy::Basic256Sha256;
    // Anyone can encrypt to us: our certificate is no secret.
    let encrypted = |plain: &[u8]| {
        let key = own.public_key().unwrap();
        let mut out = vec![0; policy.calculate_cipher_text_size(plain.len(), &key)];
        let length = policy.asymmetric_encrypt(&key, plain, &mut out).unwrap();
        out.truncate(length);
        out
    };
    let open = |policy: SecurityPolicy, cert: &[u8], thumbprint: &[u8], body: &[u8]| {
        opening(policy.to_uri(), Some(cert), Some(thumbprint), body)
    };
    // Not even the server itself, with its own key: as many bytes of padding as there are not.
    let padded = |padding: u8| {
        let key = PrivateKey::read_pem_file(&SERVER_KEYS.path().join("private/private.pem")).unwrap();
        let (body, mut signature) = (vec![padding; 100], vec![0; 256]);
        let mut head = open(policy, &cert, &thumbprint, &[])[28..].to_vec();
        let size = head.len() + policy.calculate_cipher_text_size(356, &own.public_key().unwrap());
        head[4..8].copy_from_slice(&(size as u32).to_le_bytes());
        policy.asymmetric_sign(&key, &[&head[..], &body].concat(), &mut signature).unwrap();
        open(policy, &cert, &thumbprint, &encrypted(&[body, signature].concat()))
    };
    let rows: [(Vec<u8>, &str); 9] = [
        (open(SecurityPolicy::None, &[], &[], &[0; 100]), "with security None, and Basic256Sha256 was asked for"),
        (open(SecurityPolicy::Aes128Sha256RsaOaep, &cert, &thumbprint, &[0; 256]), "and Basic256Sha256 was asked for"),
        (open(policy, &own_der, &thumbprint, &[0; 256]), "another certificate than it has shown"),
        (open(policy, &cert, &[7; 20], &[0; 256]), "for another certificate than ours"),
        (open(policy, &cert, &thumbprint, &[0; 100]), "not made of whole blocks"),
        (open(policy, &cert, &thumbprint, &[]), "not made of whole blocks"),
        (open(policy, &cert, &thumbprint, &encrypted(b"short")), "no room for its signature"),
        (open(policy, &cert, &thumbprint, &encrypted(&[9; 600])), "not signed by the server"),
        (padded(92), "claims more padding than it is long"),
    ];
    for (answer, want) in rows {
        let mut spec = secure(taken_over(&bank.url(), answer).await, dir.path(), ENCRYPTED);
        spec.security.check_host = false;
        let line = Line::run(OpcUa::new(spec), false);
        let text = error(&line, "Protocol").await;
        assert!(text.contains(want), "{text}");
        line.stop().await;
    }
}
