//! Modbus and OPC UA with other people's programs: our client against pymodbus's server, pymodbus's and asyncua's clients
//! against the bank.

mod line;
#[path = "support/peers.rs"]
mod peers;

use device_drivers::modbus::{DataType, Endpoint};
use device_drivers::value::Cause;
use device_drivers::{Value, WriteOutcome};
use line::{Running, device, line, point};
use peers::{Peer, python_with, script};
use plc_sim::bank::{Bank, BankConfig, signal};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A server of pymodbus, and its port.
async fn pymodbus_server(python: &str, arguments: &[&str]) -> (Peer, String) {
    let mut command = Command::new(python);
    command.arg(script("pymodbus_server.py")).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut peer = Peer(command.spawn().unwrap());
    let out = BufReader::new(peer.0.stdout.take().unwrap());
    let ready = tokio::task::spawn_blocking(move || out.lines().next().expect("it starts").expect("it speaks UTF-8"));
    let ready = tokio::time::timeout(Duration::from_secs(60), ready).await.expect("in time").unwrap();
    (peer, ready.strip_prefix("ready ").expect("ready").to_string())
}

/// Slower than a quarter of the time limit, and what is asked beside an open request is lost: so nothing may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_of_pymodbus_answers_everything_and_its_writes_are_done() {
    let test = "a_slow_server_of_pymodbus_answers_everything_and_its_writes_are_done";
    let Some(python) = python_with("pymodbus", test) else { return };
    let (_peer, port) = pymodbus_server(&python, &["0.6"]).await;
    let units = [1u8, 2].map(|unit| {
        let first = u32::from(unit) * 10;
        device(unit, vec![point(first, "holding:5", DataType::U16), point(first + 1, "holding:150", DataType::U16)])
    });
    let mut spec = line(Endpoint::Tcp(format!("127.0.0.1:{port}")), units.to_vec());
    (spec.timeout, spec.connect_timeout) = (Duration::from_secs(2), Duration::from_secs(10));
    let running = Running::start(spec);
    running.until("both units", |s| [10, 11, 20, 21].iter().all(|n| s.good(*n) >= 1)).await;
    for n in 0..4u64 {
        assert_eq!(
            running.write(10 + 10 * (n as u32 % 2), Value::Uint(n), true).await,
            WriteOutcome::Done,
            "write {n}"
        );
    }
    let seen = running.seen();
    assert!(seen.downs().is_empty() && seen.counters.dropped == 0, "{:?}; {:?}", seen.downs(), seen.counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_pymodbus_is_read_and_written_and_its_bad_address_costs_nothing() {
    let test = "a_server_of_pymodbus_is_read_and_written_and_its_bad_address_costs_nothing";
    let Some(python) = python_with("pymodbus", test) else { return };
    let (_peer, port) = pymodbus_server(&python, &[]).await;

    // The server has 300 registers: one tag lies beyond them.
    let mut points: Vec<_> = (0..150).map(|n| point(n, &format!("holding:{}", n + 150), DataType::U16)).collect();
    points.push(point(200, "holding:300", DataType::U16));
    points.push(point(201, "input:7", DataType::U16));
    points.push(point(202, "coil:3", DataType::Bool));
    points.push(point(203, "coil:4", DataType::Bool));
    points.push(point(204, "discrete:2", DataType::Bool));
    points.push(point(205, "holding:0", DataType::U32));
    points.push(point(206, "holding:20", DataType::U16));
    points.push(point(207, "holding:20.0-3", DataType::U16));
    let mut two = vec![point(300, "holding:5", DataType::U16), point(301, "holding:5.0-3", DataType::U16)];
    two[1].read_modify_write = true;
    let mut units = vec![device(1, points), device(2, two)];
    units[0].mask_write = true;
    let mut spec = line(Endpoint::Tcp(format!("127.0.0.1:{port}")), units);
    spec.timeout = Duration::from_secs(5);
    let running = Running::start(spec);
    running.until("both units", |s| s.good(149) >= 2 && s.good(300) >= 1).await;
    {
        let seen = running.seen();
        let value = |id| seen.last(id).and_then(|r| r.value.clone());
        assert_eq!(value(0), Some(Value::Uint(1150)));
        assert_eq!(value(149), Some(Value::Uint(1299)));
        assert_eq!(seen.last(200).map(|r| r.cause), Some(Cause::Exception(2)));
        assert_eq!(value(201), Some(Value::Uint(14)));
        let bits = [Some(Value::Bool(true)), Some(Value::Bool(false)), Some(Value::Bool(true))];
        assert_eq!([value(202), value(203), value(204)], bits);
        assert_eq!(value(205), Some(Value::Uint(1000 << 16 | 1001)));
        assert_eq!(value(300), Some(Value::Uint(2005)));
    }
    assert_eq!(running.write(0, Value::Uint(7), true).await, WriteOutcome::Done);
    assert_eq!(running.write(205, Value::Uint(70_000), true).await, WriteOutcome::Done);
    assert_eq!(running.write(203, Value::Bool(true), true).await, WriteOutcome::Done);
    assert_eq!(running.write(207, Value::Uint(5), true).await, WriteOutcome::Done, "1020 is 0x3FC");
    running.until("the part by mask", |s| s.last(206).is_some_and(|r| r.value == Some(Value::Uint(0x3F5)))).await;
    assert_eq!(running.write(301, Value::Uint(10), true).await, WriteOutcome::Done, "2005 is 0x7D5");
    running.until("the part by hand", |s| s.last(300).is_some_and(|r| r.value == Some(Value::Uint(0x7DA)))).await;
    running.until("what was written", |s| s.last(205).is_some_and(|r| r.value == Some(Value::Uint(70_000)))).await;
    let refused = running.write(200, Value::Uint(1), true).await;
    assert_eq!(refused, WriteOutcome::Refused(Cause::Exception(2)));
}

/// Runs a client of other people to its end and reads its JSON.
async fn run(python: &str, name: &str, argument: &str) -> serde_json::Value {
    let mut command = tokio::process::Command::new(python);
    command.args([script(name), argument.to_string()]).kill_on_drop(true).stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("in time").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_pymodbus_gets_from_the_bank_what_the_specification_says() {
    let test = "a_client_of_pymodbus_gets_from_the_bank_what_the_specification_says";
    let Some(python) = python_with("pymodbus", test) else { return };
    // Registers that stand still: one tick a day.
    let rate = Duration::from_secs(86_400);
    let bank = Bank::start(BankConfig { units: 2, registers: 200, rate, ..BankConfig::default() }).await.unwrap();
    let said = run(&python, "pymodbus_client.py", &bank.addr.port().to_string()).await;
    let words =
        |unit: u8, count: u16| -> Vec<u16> { (0..count).map(|n| signal::register(unit, n, bank.tick())).collect() };
    assert_eq!(said["read"], serde_json::json!(words(1, 125)));
    assert_eq!(said["input"], serde_json::json!(words(2, 4)));
    assert_eq!((&said["no_unit"], &said["exchanged"]), (&"exception 11".into(), &serde_json::json!([8, 9])), "{said}");
    for done in ["wrote_one", "wrote_many", "wrote_coil", "masked", "coil_back"] {
        assert_eq!(said[done], true, "{done}: {said}");
    }
    assert_eq!((&said["one_back"], &said["many_back"]), (&serde_json::json!([4711]), &serde_json::json!([0x42, 2, 3])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_asyncua_reads_and_subscribes_to_the_bank() {
    let Some(python) = python_with("asyncua", "a_client_of_asyncua_reads_and_subscribes_to_the_bank") else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = OpcuaBankConfig {
        variables: 10,
        period: Duration::from_millis(200),
        pki_dir: Some(dir.path().join("pki")),
        ..OpcuaBankConfig::default()
    };
    let bank = opcua_bank::serve(config).await.unwrap();
    let said = run(&python, "asyncua_client.py", &bank.url()).await;
    assert_eq!(said["values"].as_array().map(Vec::len), Some(3), "{said}");
    assert!(said["changes"].as_u64() >= Some(3), "{said}");
    assert_eq!(said["missing"], "BadNodeIdUnknown", "{said}");
}
