//! The OPC UA client against a server by other people: asyncua (Python). One server for all, because it takes up to twenty seconds to start.

mod support;

use device_drivers::driver::WriteOutcome;
use device_drivers::opcua::pki::Pki;
use device_drivers::opcua::{Identity, Mode, OpcUa, OpcUaSpec, Security, browse};
use device_drivers::value::{Quality, wall_clock_ms};
use device_drivers::{Cause, Value};
use opcua::crypto::{CertificateStore, X509Data};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::peers::{Peer, python_with, script};
use support::{Line, ms, point, spec};

const NAMESPACE: &str = "urn:lightsout:peer";
const NAMES: [&str; 18] = [
    "Count", "Double", "Float", "Byte", "Flag", "Text", "Label", "Moment", "Guid", "Bytes", "Words", "Matrix", "Later",
    "Tick", "Names", "Flags", "Table", "Range",
];

/// The server's clock is behind by almost a year.
const SKEW_S: i64 = -30_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn asyncua_is_read_written_browsed_and_trusted() {
    let Some(python) = python_with("asyncua", "asyncua_is_read_written_browsed_and_trusted") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.der"), dir.path().join("key.pem"));
    let names = X509Data::alt_host_names("urn:lightsout:plc-sim", Some(vec!["127.0.0.1".into()]), false, false, false);
    let data = X509Data { alt_host_names: names, certificate_duration_days: 30, ..X509Data::sample_cert() };
    CertificateStore::create_certificate_and_key(&data, true, &cert, &key).unwrap();

    let script = script("asyncua_server.py");
    let mut command = Command::new(python);
    command
        .args([script.as_ref(), cert.as_os_str(), key.as_os_str(), SKEW_S.to_string().as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut peer = Peer(command.stderr(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(peer.0.stdout.take().unwrap()).lines();
    let mut say = move || said.next().expect("the server goes on").expect("it speaks UTF-8");
    let ready = tokio::task::spawn_blocking(move || (say(), say));
    let (ready, say) = tokio::time::timeout(Duration::from_secs(120), ready).await.expect("in time").unwrap();
    let port = ready.strip_prefix("ready ").expect("ready");
    let url = format!("opc.tcp://127.0.0.1:{port}/peer/");

    // Every kind of value, by subscription; a structure has no place in a value, one node is not there yet.
    let points: Vec<_> = (0..).zip(NAMES).map(|(id, n)| point(id, &format!("nsu={NAMESPACE};s={n}"))).collect();
    let plain = spec(url.clone(), dir.path(), points);
    let line = Line::run(OpcUa::new(plain.clone()), false);
    line.told.until("all", |r| (0..18).all(|n| r.last(n).is_some()).then_some(())).await;
    let text = |t: &str| Value::Text(t.into());
    let wanted = [
        Value::Float(0.1),
        Value::Single(0.5),
        Value::Uint(7),
        Value::Bool(true),
        text("Grüße"),
        text("ready"),
        Value::Int(1_709_208_000_500),
        text("72962b91-fa75-4ae6-8d28-b404dc7daf63"),
        text("00ff7f"),
        Value::Words([1, 2, 3].into()),
    ];
    let row = |values: &[Value]| Value::List(values.into());
    let floats = |values: &[f64]| Value::List(values.iter().map(|f| Value::Float(*f)).collect());
    let rows = [
        (11, floats(&[1.0, 2.0])),
        (14, row(&[text("links"), text("rechts")])),
        (15, row(&[Value::Bool(true), Value::Bool(false), Value::Bool(true)])),
        (16, row(&[floats(&[1.5, 2.5]), floats(&[3.5, 4.5]), floats(&[5.5, 6.5])])),
    ];
    for (n, wanted) in (1u32..).zip(wanted).chain(rows) {
        assert_eq!(line.told.look().good(n), Some(wanted), "{}", NAMES[n as usize]);
    }
    let range = line.told.look().last(17).map(|r| (r.quality, r.cause));
    assert_eq!(range, Some((Quality::Bad, Cause::Found("a structure"))));
    line.told.until("a count", |r| r.good(0).filter(|v| matches!(v, Value::Int(n) if *n > 3))).await;

    // Source time and server time, each without the other.
    for n in [0, 13] {
        let ticking = |r: &support::Record| r.good(n).filter(|v| matches!(v, Value::Int(n) if *n > 3));
        line.told.until("a count", ticking).await;
        let source_ms = line.told.look().last(n).map_or(0, |r| r.source_ms);
        let behind_ms = i64::try_from(wall_clock_ms().saturating_sub(source_ms)).unwrap() + 1000 * SKEW_S;
        assert!(behind_ms.abs() < 60_000, "the time of a reading is the server's own, wrong as it is: {behind_ms} ms");
    }

    // Writes in the node's own type.
    for (n, value) in [
        (2, Value::Float(2.25)),
        (3, Value::Int(200)),
        (5, text("neu")),
        (7, Value::Int(1_500_000_000_250)),
        (10, Value::Words([9, 8].into())),
    ] {
        assert_eq!(line.write(n, value, true).await, WriteOutcome::Done, "{}", NAMES[n as usize]);
    }
    assert!(matches!(line.write(3, Value::Int(300), true).await, WriteOutcome::Invalid(_)));

    // The node that comes later.
    assert_eq!(tokio::task::spawn_blocking(say).await.unwrap(), "later");
    line.told.until("what came later", |r| r.good(12).filter(|v| *v == Value::Int(1))).await;
    assert_eq!(line.told.look().ups(), 1);
    line.stop().await;

    // What is read in turn, and what there is.
    let mut polled = plain.clone();
    polled.points.truncate(2);
    polled.points.iter_mut().for_each(|p| p.mode = Mode::Poll { interval: ms(100) });
    let line = Line::run(OpcUa::new(polled), false);
    line.told.until("ten reads", |r| (r.of(0).count() >= 10).then_some(())).await;
    line.stop().await;
    let walk = browse::browse(&plain, 1000, |path, _| path.starts_with("Peer/")).await.unwrap();
    let found: Vec<_> = walk.found.iter().map(|f| (f.path.join("/"), &*f.data_type)).collect();
    assert!(
        found.contains(&("Peer/Words".into(), "UInt16[]")) || found.contains(&("Peer/Words".into(), "UInt16")),
        "{found:?}"
    );
    assert_eq!(found.len(), NAMES.len(), "each once, although there is a circle: {found:?}");

    // With security and a user.
    let pki = Pki::open(&plain.pki_dir).unwrap();
    pki.trust(cert.to_str().unwrap()).unwrap();
    let user = |password: &str| Identity::User { name: "operator".into(), password: password.into() };
    for security in [
        "Basic256Sha256/Sign",
        "Basic256Sha256/SignAndEncrypt",
        "Aes128_Sha256_RsaOaep/SignAndEncrypt",
        "Aes256_Sha256_RsaPss/SignAndEncrypt",
    ] {
        let security: Security = security.parse().unwrap();
        let line = Line::run(OpcUa::new(OpcUaSpec { security, identity: user("right"), ..plain.clone() }), false);
        let what = format!("a value with {security}");
        line.told.until(&what, |r| r.good(1)).await;
        line.stop().await;
    }
    let security: Security = "Basic256Sha256/SignAndEncrypt".parse().unwrap();
    let line = Line::run(OpcUa::new(OpcUaSpec { security, identity: user("wrong"), ..plain }), false);
    line.told.until("a refusal", |r| r.errors.contains(&"Login").then_some(())).await;
}
