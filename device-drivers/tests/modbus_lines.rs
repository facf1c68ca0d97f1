//! The other lines: RTU on a serial port (a pseudo-terminal), RTU through TCP, TLS with certificates on both sides. The
//! units at the far end are this test's own: a serial line's rules, written a second time.

mod line;
mod serial;

use device_drivers::modbus::{DataType, Endpoint, Serial, Tls};
use device_drivers::value::Cause;
use device_drivers::{Health, Value};
use line::{Running, device, frame, line, own_numbers, point};
use serial::{crc, rtu, serial_units};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[tokio::test]
async fn a_serial_line_resynchronises_after_garbage_silence_and_foreign_replies() {
    let (serial, log) = serial_units(|n, unit, pdu| {
        let good = rtu(unit, &own_numbers(pdu));
        let mut damaged = good.clone();
        damaged[3] ^= 1;
        match (unit, n % 5) {
            (3, _) => vec![],
            (_, 1) => [vec![0xFF, unit, 3, 0x55], good].concat(),
            (_, 2) => damaged,
            (_, 3) => [rtu(9, &own_numbers(pdu)), good].concat(),
            _ => good,
        }
    });
    let units = [1, 2, 3]
        .map(|u| device(u, vec![point(u32::from(u), &format!("holding:{}", u32::from(u) * 100), DataType::U16)]));
    let mut spec = line(Endpoint::Rtu(serial), units.to_vec());
    spec.timeout = Duration::from_millis(100);
    let running = Running::start(spec);
    running.until("values of both units", |s| s.good(1) >= 10 && s.good(2) >= 10).await;
    running.until("the silent one is demoted", |s| s.health.contains(&(2, Health::Demoted, Cause::NoAnswer))).await;
    running.until("damaged replies are not believed", |s| s.counters.timeouts >= 2).await;
    let seen = running.seen();
    for unit in [1u32, 2] {
        let own = Value::Uint(u64::from(unit) * 100);
        let values = seen.readings.iter().filter(|r| r.point.0 == unit).filter_map(|r| r.value.as_ref());
        assert!(
            values.clone().count() >= 10 && values.clone().all(|v| *v == own),
            "unit {unit}: only its own register"
        );
    }
    assert_eq!(seen.downs().len(), 0, "{:?}", seen.downs());
    assert!(log.lock().unwrap().len() >= 20);
}

#[tokio::test]
async fn a_late_serial_reply_is_thrown_away_before_the_next_request() {
    let late = Arc::new(Mutex::new(Vec::new()));
    let kept = late.clone();
    let (serial, _) = serial_units(move |n, unit, pdu| {
        let good = rtu(unit, &own_numbers(pdu));
        let mut late = kept.lock().unwrap();
        // The reply to one request of unit 1 comes in front of the next reply, whoever that is from.
        let before = std::mem::take(&mut *late);
        if unit == 1 && n % 5 == 0 {
            *late = good;
            return vec![];
        }
        [before, good].concat()
    });
    let units =
        [1, 2].map(|u| device(u, vec![point(u32::from(u), &format!("holding:{}", u32::from(u) * 100), DataType::U16)]));
    let mut spec = line(Endpoint::Rtu(serial), units.to_vec());
    spec.timeout = Duration::from_millis(100);
    let running = Running::start(spec);
    running.until("values of both units", |s| s.good(1) >= 5 && s.good(2) >= 10 && s.counters.timeouts >= 3).await;
    let seen = running.seen();
    let values = seen.readings.iter().filter(|r| r.point.0 == 2).filter_map(|r| r.value.as_ref());
    assert!(values.clone().all(|v| *v == Value::Uint(200)), "never the value of unit 1");
}

#[tokio::test]
async fn a_doubled_serial_reply_is_not_the_answer_to_the_next_request() {
    let (serial, _) = serial_units(|n, unit, _| {
        let counted = rtu(unit, &[3, 2, (n >> 8) as u8, n as u8]);
        [counted.clone(), counted].concat()
    });
    let mut spec = line(Endpoint::Rtu(serial), vec![device(1, vec![point(1, "holding:0", DataType::U16)])]);
    spec.timeout = Duration::from_millis(200);
    let running = Running::start(spec);
    running.until("many values", |s| s.good(1) >= 20).await;
    let seen = running.seen();
    let values: Vec<_> = seen.readings.iter().filter_map(|r| r.value.as_ref()?.as_u32()).collect();
    assert!(values.is_sorted_by(|a, b| a < b), "each request has its own answer: {values:?}");
}

#[tokio::test]
async fn a_port_that_is_not_there_is_told_and_tried_again() {
    let serial = Serial { path: "/dev/no-such-port".into(), baud: 9600, parity: 'N', stop_bits: 2 };
    let running = Running::start(line(Endpoint::Rtu(serial), vec![]));
    running.until("two tries", |s| s.downs().len() >= 2).await;
    let seen = running.seen();
    assert!(seen.downs()[0].contains("/dev/no-such-port") && seen.downs()[0].contains("is the adapter plugged in"));
}

#[tokio::test]
async fn serial_frames_go_through_tcp_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0u8; 8];
        while stream.read_exact(&mut request).await.is_ok() {
            assert_eq!(request[6..], crc(&request[..6]));
            for byte in rtu(request[0], &own_numbers(&request[1..6])) {
                stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let units = [7, 8].map(|u| device(u, vec![point(u32::from(u), &format!("holding:{u}"), DataType::U16)]));
    let running = Running::start(line(Endpoint::RtuOverTcp(at), units.to_vec()));
    running.until("values of both units", |s| s.good(7) >= 5 && s.good(8) >= 5).await;
    let seen = running.seen();
    assert_eq!(seen.last(7).unwrap().value, Some(Value::Uint(7)));
    assert_eq!(seen.last(8).unwrap().value, Some(Value::Uint(8)));
}

/// A certificate authority, and a certificate with key signed by it, as PEM files.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn issue(&self, dir: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

/// A Modbus/TCP Security server that wants a certificate of `clients` from whoever comes.
async fn secure_server(dir: &Path, device: &Authority, clients: &Authority) -> String {
    let (certificate, key) = device.issue(dir, "plc.example");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0u8; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                let transaction = u16::from_be_bytes([request[0], request[1]]);
                let _ = stream.write_all(&frame(transaction, request[6], &own_numbers(&request[7..]))).await;
                let _ = stream.flush().await;
            }
        }
    });
    at
}

#[tokio::test]
async fn over_tls_both_sides_show_certificates_and_who_has_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (plant, people, stranger) = (Authority::new("plant"), Authority::new("people"), Authority::new("stranger"));
    let at = secure_server(dir.path(), &plant, &people).await;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &plant.pem).unwrap();
    let foreign_ca = dir.path().join("foreign-ca.pem");
    std::fs::write(&foreign_ca, &stranger.pem).unwrap();
    let own = people.issue(dir.path(), "gateway.example");
    let forged = stranger.issue(dir.path(), "forger.example");
    let unit = device(1, vec![point(0, "holding:9", DataType::U16)]);
    let spec = |ca: &Path, own: Option<(std::path::PathBuf, std::path::PathBuf)>, name: &str| {
        let files = Tls { ca: ca.into(), own, name: Some(name.into()) };
        line(Endpoint::Tls(at.clone(), files), vec![unit.clone()])
    };

    let running = Running::start(spec(&ca, Some(own.clone()), "plc.example"));
    running.until("values over TLS", |s| s.good(0) >= 3).await;
    assert_eq!(running.seen().last(0).unwrap().value, Some(Value::Uint(9)));
    drop(running);

    for (why, spec) in [
        ("no certificate of our own", spec(&ca, None, "plc.example")),
        ("one of a stranger", spec(&ca, Some(forged), "plc.example")),
        ("a device of another authority", spec(&foreign_ca, Some(own.clone()), "plc.example")),
        ("a device of another name", spec(&ca, Some(own.clone()), "other.example")),
        ("a file that is none", spec(&dir.path().join("missing.pem"), Some(own.clone()), "plc.example")),
    ] {
        let running = Running::start(spec);
        running.until(why, |s| s.downs().len() >= 2).await;
        let seen = running.seen();
        assert!(seen.readings.iter().all(|r| r.value.is_none()), "{why}: not one value");
    }
}
