//! A wall clock that steps: a box without a battery starts in 2001, NTP comes later, somebody sets the clock back. Nothing is late, old or
//! lost for it, and stamps say when they are not to be believed.

mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use plc_sim::bank::{Bank, BankConfig};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{SteppingClock, eventually, http};
use wire_broker::{Event, Trace, WireBroker};

/// A value as it was published.
#[derive(Clone, Debug)]
struct Told {
    sequence: u64,
    time: String,
    is_untrusted: bool,
    expiry_s: Option<u32>,
}

/// Values in the order they came, those sent twice once; and what was told as lost.
fn told(trace: &Trace) -> (Vec<Told>, Vec<String>) {
    let (mut values, mut lost): (Vec<Told>, Vec<String>) = Default::default();
    for entry in trace.lock().unwrap().iter() {
        let Event::Publish(said) = &entry.event else { continue };
        let (topic, text) = (String::from_utf8_lossy(&said.topic), String::from_utf8_lossy(&said.payload));
        if topic.ends_with("/lost") {
            lost.push(text.into_owned());
        } else if topic.ends_with("/r") {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let value = Told {
                sequence: json["sequence"].as_u64().unwrap(),
                time: json["source_time"].as_str().unwrap().into(),
                is_untrusted: json["clock"] == "untrusted",
                expiry_s: said.properties.message_expiry_interval,
            };
            if values.iter().all(|v| v.sequence != value.sequence) {
                values.push(value);
            }
        }
    }
    (values, lost)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_loses_nothing_ages_nothing_and_its_stamps_say_so() {
    let test = "a_clock_that_steps_loses_nothing_ages_nothing_and_its_stamps_say_so";
    let Some(clock) = SteppingClock::new("@2001-01-01 00:00:00", test) else { return };
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let (port, open) = support::gate(broker.port).await;
    let rate = Duration::from_millis(200);
    let bank = Bank::start(BankConfig { units: 1, registers: 10, rate, ..BankConfig::default() }).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:{}\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{port}\"\nexpiry = \"1h\"\n[spool]\ndirectory = \"spool\"\nage = \"1day\"\nsize = \"8MiB\"\n\
         [[line]]\nname = \"bank\"\nmodbus = \"{}\"\n[[line.device]]\nname = \"d\"\ncell = \"c\"\ntags = \"t.csv\"\n",
        support::free_port(),
        bank.addr
    );
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    std::fs::write(dir.path().join("t.csv"), "name,address,type\nr,input:0,u16\n").unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    run.args(["run", "agent.toml"]).current_dir(dir.path()).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut agent = Running(clock.give_to(&mut run).spawn().unwrap());
    let from = async |year: &str, more: usize| {
        let before = told(&trace).0.iter().filter(|v| v.time.starts_with(year)).count();
        let is = async || told(&trace).0.iter().filter(|v| v.time.starts_with(year)).count() >= before + more;
        assert!(
            eventually(Duration::from_secs(30), is).await,
            "{more} more values of {year}: {:?}",
            told(&trace).0.last()
        );
    };
    from("2001", 5).await;

    // These wait in the spool while NTP comes: they are seconds old, not years.
    open.send(false).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = told(&trace).0.last().unwrap().sequence;
    clock.set("+0");
    tokio::time::sleep(Duration::from_secs(3)).await;
    open.send(true).unwrap();
    from("20", 25).await;
    // Somebody sets it back by an hour.
    clock.set("-3600");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let back = told(&trace).0.last().unwrap().sequence;
    from("20", 10).await;

    let (values, lost) = told(&trace);
    let mut sequences: Vec<u64> = values.iter().map(|v| v.sequence).collect();
    sequences.sort_unstable();
    let gap = sequences.windows(2).find(|w| w[1] != w[0] + 1);
    assert!(gap.is_none() && lost.is_empty(), "between {gap:?} values are missing; told as lost: {lost:?}");
    let of_2001: Vec<&Told> = values.iter().filter(|v| v.time.starts_with("2001")).collect();
    assert!(of_2001.iter().any(|v| v.sequence > waiting), "some have waited while the clock was set");
    assert!(of_2001.iter().all(|v| v.is_untrusted), "{of_2001:?}");
    assert!(
        values.iter().all(|v| v.expiry_s.is_some_and(|s| s > 3_500)),
        "none is older than some seconds: {values:?}"
    );
    assert!(values.iter().filter(|v| v.sequence > back).all(|v| v.is_untrusted), "set back, and it says so");
    let _ = agent.0.kill();
    let mut log = String::new();
    agent.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log.matches("nobody has set it yet").count(), 1, "said once: {log}");
    assert!(!log.contains("are lost"), "{log}");
}

/// Orders wait by the clock that nobody sets: what is said to be late, what is due and how long a load is waited for is none of the other's business.
#[tokio::test(flavor = "multi_thread")]
async fn orders_that_wait_are_not_late_and_not_given_up_because_somebody_has_set_the_clock() {
    let test = "orders_that_wait_are_not_late_and_not_given_up_because_somebody_has_set_the_clock";
    let Some(clock) = SteppingClock::new("+0", test) else { return };
    let sim = support::start_plant(7).await;
    let broker = support::start_broker().await;
    let dir = tempfile::tempdir().unwrap();
    let config = support::demo_folder(dir.path(), sim.addresses, broker);
    let mut run = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    run.arg("run").arg(&config.0).stderr(Stdio::null()).stdout(Stdio::null());
    let _agent = Running(clock.give_to(&mut run).spawn().unwrap());
    let at = ([127, 0, 0, 1], config.1).into();
    let ready = async || matches!(http(at, "GET", "/readyz", "").await, Ok((200, _)));
    assert!(eventually(Duration::from_secs(60), ready).await, "not ready in time");
    let store = async |load: u32, more: Value| -> Value {
        let mut form = json!({"kind": "store", "load": load});
        form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, body) = http(at, "POST", "/api/v1/orders", &form.to_string()).await.unwrap();
        assert_eq!(status, 201, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let now = async |order: &Value| -> Value {
        let (_, body) = http(at, "GET", &format!("/api/v1/orders/{}", order["id"]), "").await.unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let long = store(9001, json!({"wait_s": 1800, "due": "20m"})).await;
    for (n, step) in ["+3600", "+0", "-3600"].into_iter().enumerate() {
        // This one is given up after some seconds: of the clock that nobody sets.
        let short = store(9002 + n as u32, json!({"wait_s": 6})).await;
        clock.set(step);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for order in [&long, &short] {
            let order = now(order).await;
            assert_eq!(order["late"], false, "{step}: {order}");
            assert!(order["state"] == "accepted" && order.get("ended").is_none(), "{step}, it waits: {order}");
        }
        assert_eq!(now(&long).await["due"], long["due"], "{step}");
        let given_up = async || now(&short).await["reason"] == "the load did not arrive in time";
        assert!(eventually(Duration::from_secs(30), given_up).await, "{step}: {}", now(&short).await);
    }
}
