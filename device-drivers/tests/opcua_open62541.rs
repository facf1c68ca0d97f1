//! open62541 (PyPI `o6`), on which many controllers' servers are built: as a server of our client, and as a client of the bank.

mod support;

use device_drivers::driver::WriteOutcome;
use device_drivers::opcua::{OpcUa, browse};
use device_drivers::{Cause, Notice, PointId, Value};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::peers::{Peer, python_with, script};
use support::{Line, ms, point, spec};

const NAMES: [&str; 9] = ["Foo", "Tick", "Row", "Words", "Text", "Label", "Flag", "Limits", "Long"];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_open62541_is_watched_written_and_browsed_and_a_node_may_be_made_again() {
    let test = "a_server_of_open62541_is_watched_written_and_browsed_and_a_node_may_be_made_again";
    let Some(python) = python_with("o6", test) else { return };
    let mut command = Command::new(python);
    command.arg(script("o6_server.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut peer = Peer(command.spawn().unwrap());
    let mut said = BufReader::new(peer.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = tokio::task::spawn_blocking(move || said.find_map(|l| l.strip_prefix("ready ").map(String::from)));
    let port = tokio::time::timeout(Duration::from_secs(120), ready).await.expect("in time").unwrap().expect("ready");

    let dir = tempfile::tempdir().unwrap();
    let points: Vec<_> = (0..).zip(NAMES).map(|(id, name)| point(id, &format!("ns=1;s={name}"))).collect();
    let spec = spec(format!("opc.tcp://127.0.0.1:{port}/"), dir.path(), points);
    let line = Line::run(OpcUa::new(spec.clone()), false);
    line.told.until("all", |r| (0..9).all(|n| r.last(n).is_some()).then_some(())).await;
    let floats = |values: &[f64]| Value::List(values.iter().map(|f| Value::Float(*f)).collect());
    let text = |text: &str| Value::Text(text.into());
    let wanted = [Value::Float(1.0), floats(&[1.5, 2.5]), Value::Words([1, 2].into()), text("Grüße"), text("bereit")];
    for (n, wanted) in [0, 2, 3, 4, 5].into_iter().zip(wanted) {
        assert_eq!(line.told.look().good(n), Some(wanted), "{}", NAMES[n as usize]);
    }
    for (n, found) in [(7, "a structure"), (8, "an array of more than 1024 elements")] {
        assert_eq!(line.told.look().last(n).map(|r| r.cause), Some(Cause::Found(found)));
    }
    line.told.until("a count", |r| r.good(1).filter(|v| matches!(v, Value::Int(n) if *n > 3))).await;

    for (n, value) in
        [(2, floats(&[7.0, 8.0, 9.0])), (3, Value::Words([5].into())), (5, text("läuft")), (6, Value::Bool(false))]
    {
        assert_eq!(line.write(n, value, true).await, WriteOutcome::Done, "{}", NAMES[n as usize]);
    }

    let walk = browse::browse(&spec, 1000, |_, node| node.contains(";s=")).await.unwrap();
    let named = |name: &str| walk.found.iter().find(|f| f.path == [name]).unwrap_or_else(|| panic!("{name}: {walk:?}"));
    assert_eq!(named("Limits").unreadable.as_deref(), Some("a structure"));
    assert_eq!(named("Long").unreadable.as_deref(), Some("an array of more than 1024 elements"));
    assert_eq!((&named("Row").unreadable, &*named("Row").data_type), (&None, "Double[]"));

    // The program is loaded anew: Foo goes, and comes again under its name.
    peer.0.stdin.as_mut().unwrap().write_all(b"again\n").unwrap();
    line.told
        .until("the node that was made again", |r| r.good(0).filter(|v| matches!(v, Value::Float(f) if *f >= 10.0)))
        .await;
    let then = line.told.look().good(0);
    line.told.until("what it says after that", |r| r.good(0).filter(|v| Some(v) != then.as_ref())).await;
    let told = line.told.look();
    assert_eq!(told.ups(), 1);
    let others = |n: &Notice| !matches!(n, Notice::MadeAgain { points } if *points == [PointId(0)]);
    assert!(!told.notices.iter().any(others), "{:?}", told.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_open62541_browses_reads_writes_and_subscribes_to_the_bank() {
    let test = "a_client_of_open62541_browses_reads_writes_and_subscribes_to_the_bank";
    let Some(python) = python_with("o6", test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = OpcuaBankConfig {
        variables: 3,
        writable: 1,
        period: ms(200),
        pki_dir: Some(dir.path().join("pki")),
        ..OpcuaBankConfig::default()
    };
    let bank = opcua_bank::serve(config).await.unwrap();
    let mut command = tokio::process::Command::new(python);
    command.args([script("o6_client.py"), bank.url()]).kill_on_drop(true).stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("in time").unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = said.lines().last().unwrap_or_default();
    let said: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {said}{errors}"));
    assert_eq!(said["names"], serde_json::json!(["V.0", "V.1", "V.2", "W.0"]), "{said}");
    assert_eq!(said["values"].as_array().map(Vec::len), Some(3), "{said}");
    assert_eq!(said["back"], 4.5, "{said}");
    assert!(said["changes"].as_u64() >= Some(3), "{said}");
}
