//! Another configuration in a running agent: by difference, all or nothing, and back when it does not come up.

mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use edge_agent::lines::{ReloadError, Reloaded};
use plc_sim::bank::{Bank, BankConfig};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{eventually, http};
use wire_broker::{Event, Trace, WireBroker};

/// A configuration in a folder of its own.
struct Config {
    dir: tempfile::TempDir,
    port: u16,
    more: String,
}

impl Config {
    fn new() -> Config {
        Config { dir: tempfile::tempdir().unwrap(), port: support::free_port(), more: String::new() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Writes it: lines with their peers, each with a profile of its own name.
    fn write(&self, lines: &[(&str, SocketAddr)]) {
        let mut text = format!(
            "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:{}\"\n[http]\nloopback = \"engineer\"\n{}",
            self.port, self.more
        );
        for (name, at) in lines {
            text += &format!(
                "[[line]]\nname = \"{name}\"\nmodbus = \"{at}\"\ntimeout = \"5s\"\n\
                 [[line.device]]\nname = \"d-{name}\"\ncell = \"c\"\nprofile = \"{name}.toml\"\n"
            );
        }
        std::fs::write(self.file(), text).unwrap();
    }

    fn profile(&self, name: &str, tags: &[&str]) {
        let tag = |(n, tag): (usize, &&str)| {
            format!(
                "[[tag]]\nname = \"{tag}\"\naddress = \"holding:{n}\"\ntype = \"u16\"\ninterval = \"100ms\"\nwrite = {{}}\n"
            )
        };
        std::fs::write(
            self.dir.path().join(format!("{name}.toml")),
            tags.iter().enumerate().map(tag).collect::<String>(),
        )
        .unwrap();
    }
}

async fn bank() -> Bank {
    Bank::start(BankConfig { units: 1, registers: 50, ..BankConfig::default() }).await.unwrap()
}

fn counters(agent: &Agent, line: &str) -> Option<(u64, u64)> {
    let lines = agent.stages.lines.all();
    lines.iter().find(|(n, _)| &**n == line).map(|(_, s)| (s.connects.load(Relaxed), s.polls.load(Relaxed)))
}

async fn tags(agent: &Agent) -> String {
    http(agent.http, "GET", "/api/v1/tags", "").await.unwrap().1
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_is_not_touched_and_what_does_not_come_up_is_taken_back() {
    let (one, two, three) = (bank().await, bank().await, bank().await);
    let mut config = Config::new();
    config.profile("one", &["a"]);
    config.profile("two", &["a"]);
    config.profile("three", &["a"]);
    config.write(&[("one", one.addr), ("two", two.addr)]);
    let agent = Agent::start(edge_agent::config::load(&config.file()).unwrap_or_else(|e| panic!("{e}"))).await.unwrap();
    let reloader = agent.reloader();
    let within = Duration::from_secs(60);
    let polled = async |line: &'static str| counters(&agent, line).is_some_and(|(up, polls)| up > 0 && polls > 2);
    assert!(eventually(within, async || polled("one").await && polled("two").await).await);

    // A tag more behind one line, and a line more: the other line does not notice.
    let before = counters(&agent, "one").unwrap();
    config.profile("two", &["a", "b"]);
    config.write(&[("one", one.addr), ("two", two.addr), ("three", three.addr)]);
    let done = reloader.reload(within).await.unwrap();
    let want =
        Reloaded { kept: names(&["one"]), started: names(&["three"]), changed: names(&["two"]), stopped: vec![] };
    assert_eq!(done, want);
    assert!(eventually(within, async || counters(&agent, "one").unwrap().1 > before.1 + 3).await, "it goes on");
    assert_eq!(counters(&agent, "one").unwrap().0, 1, "its connection is the first one still");
    assert!(
        counters(&agent, "two").unwrap().1 < counters(&agent, "one").unwrap().1,
        "a changed line begins to count anew"
    );
    assert!(tags(&agent).await.contains("d-two/b"));
    let (status, said) = http(agent.http, "POST", "/api/v1/writes", "{\"tag\":\"d-two/b\",\"value\":7}").await.unwrap();
    assert_eq!(status, 200, "what is new can be written: {said}");
    let (_, page) = http(agent.http, "GET", "/metrics", "").await.unwrap();
    assert!(page.contains("lightsout_line_up{line=\"three\"} 1"), "{page}");
    // The same again is nothing to do.
    let (status, said) = http(agent.http, "POST", "/api/v1/reload", "").await.unwrap();
    assert_eq!((status, said.contains("\"kept\":[\"one\",\"two\",\"three\"]")), (200, true), "{said}");

    // A wrong file changes nothing, and an alarm says so until a right one is taken over.
    std::fs::write(config.dir.path().join("two.toml"), "[[tag]]\nnam = \"a\"\n").unwrap();
    assert!(matches!(reloader.reload(within).await, Err(ReloadError::Wrong(why)) if why.contains("two.toml:2")));
    let alarm = async || agent.stages.alarms.list().iter().any(|a| a.alarm == "configuration-refused" && a.active);
    assert!(eventually(within, alarm).await);
    assert!(tags(&agent).await.contains("d-two/b"));
    config.profile("two", &["a", "b"]);

    // What is wired at the start says that it needs a restart.
    config.more = "[mqtt]\nbroker = \"127.0.0.1:1\"\n".into();
    config.write(&[("one", one.addr)]);
    let refused = reloader.reload(within).await;
    assert!(matches!(refused, Err(ReloadError::NeedsRestart(why)) if why.contains("[mqtt]")));
    assert!(counters(&agent, "three").is_some(), "all or nothing");
    config.more.clear();

    // A line that does not come up is taken back, with all that came with it, as the files were.
    let dead = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    config.profile("two", &["a", "b", "c"]);
    config.write(&[("one", one.addr), ("two", dead)]);
    let taken_back = reloader.reload(Duration::from_secs(1)).await;
    assert!(matches!(taken_back, Err(ReloadError::NotHealthy(why)) if why.contains("line two did not come up")));
    let again = async || tags(&agent).await.contains("d-two/b") && polled("two").await && polled("three").await;
    assert!(eventually(within, again).await, "{}", tags(&agent).await);
    assert!(!tags(&agent).await.contains("d-two/c"));

    // And a line that is gone is gone from everywhere.
    config.write(&[("one", one.addr), ("two", two.addr)]);
    assert_eq!(reloader.reload(within).await.unwrap().stopped, names(&["three"]));
    let (_, page) = http(agent.http, "GET", "/metrics", "").await.unwrap();
    assert!(!page.contains("three") && !tags(&agent).await.contains("three"));
    let (status, _) = http(agent.http, "POST", "/api/v1/writes", "{\"tag\":\"d-three/a\",\"value\":7}").await.unwrap();
    assert_eq!(status, 403);
    assert!(eventually(within, async || !alarm().await).await, "the alarm is over");
    assert_eq!(counters(&agent, "one").unwrap().0, 1, "after all that, its first connection still");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_are_gone_are_bad_at_the_broker_and_a_trial_says_that_it_is_one() {
    let (one, two) = (bank().await, bank().await);
    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let mut config = Config::new();
    config.more = format!("[mqtt]\nbroker = \"127.0.0.1:{}\"\n", broker.port);
    config.profile("one", &["a"]);
    config.profile("two", &["a", "b"]);
    config.write(&[("one", one.addr), ("two", two.addr)]);
    let agent = Agent::start(edge_agent::config::load(&config.file()).unwrap_or_else(|e| panic!("{e}"))).await.unwrap();
    // What was said last of a tag.
    let last = |tag: &str| {
        let trace = trace.lock().unwrap();
        let of_it = |e: &wire_broker::Entry| match &e.event {
            Event::Publish(said) if String::from_utf8_lossy(&said.topic).ends_with(tag) => {
                Some(String::from_utf8_lossy(&said.payload).into_owned())
            }
            _ => None,
        };
        trace.iter().rev().find_map(of_it).unwrap_or_default()
    };
    let is_good = |tag: &str| last(tag).contains("\"quality\":\"good\"");
    let patience = Duration::from_secs(60);
    assert!(eventually(patience, async || ["one/a", "two/a", "two/b"].iter().all(|t| is_good(t))).await);

    // While a line is tried that never comes up, another's tags wait for what comes of it.
    let dead = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    config.profile("three", &["a"]);
    config.write(&[("one", one.addr), ("three", dead)]);
    let reloader = agent.reloader();
    let trial = tokio::spawn(async move { reloader.reload(Duration::from_secs(5)).await });
    let write = async |tag: &str| {
        http(agent.http, "POST", "/api/v1/writes", &format!("{{\"tag\":\"{tag}\",\"value\":7}}")).await.unwrap().1
    };
    assert!(eventually(patience, async || !tags(&agent).await.contains("d-two")).await);
    let said = write("d-two/a").await;
    assert!(said.contains("link_down") && said.contains("a new configuration is being tried"), "{said}");
    assert!(write("d-two/none").await.contains("not_allowed"), "what never was is not there");
    assert!(matches!(trial.await.unwrap(), Err(ReloadError::NotHealthy(_))));
    assert!(eventually(patience, async || write("d-two/a").await.contains("\"done\"")).await);
    assert!(last("three/a").contains("removed from the configuration"), "it was only tried: {}", last("three/a"));

    // A tag less, and then a line less.
    config.profile("two", &["b"]);
    config.write(&[("one", one.addr), ("two", two.addr)]);
    agent.reloader().reload(patience).await.unwrap();
    let gone = |tag: &str| {
        let said = last(tag);
        said.contains("\"quality\":\"bad\"") && said.contains("\"cause\":\"removed from the configuration\"")
    };
    assert!(eventually(patience, async || gone("two/a")).await, "{}", last("two/a"));
    assert!(eventually(patience, async || is_good("two/b")).await, "it has a new place, and goes on");
    config.write(&[("one", one.addr)]);
    agent.reloader().reload(patience).await.unwrap();
    assert!(eventually(patience, async || gone("two/b")).await, "{}", last("two/b"));
    assert!(is_good("one/a"), "{}", last("one/a"));
    assert!(write("d-two/b").await.contains("not_allowed"), "it is settled");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_not_taken_from_under_the_control_thread() {
    let sim = support::start_plant(3).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("profiles")).unwrap();
    let port = support::free_port();
    for name in ["agent.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        let text = std::fs::read_to_string(support::demo_file(name)).unwrap();
        let text = text.replace("127.0.0.1:5020", &sim.addresses.modbus.to_string());
        let text = text.replace("127.0.0.1:4855", &sim.addresses.opcua.to_string());
        std::fs::write(dir.path().join(name), text.replace("127.0.0.1:9464", &format!("127.0.0.1:{port}"))).unwrap();
    }
    let file = dir.path().join("agent.toml");
    let agent = Agent::start(edge_agent::config::load(&file).unwrap_or_else(|e| panic!("{e}"))).await.unwrap();
    assert!(eventually(Duration::from_secs(20), async || agent.ready()).await);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("timeout = \"1s\"", "timeout = \"2s\"")).unwrap();
    let refused = agent.reloader().reload(Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(ReloadError::NeedsRestart(why)) if why.contains("rack")));
    std::fs::write(&file, text.replace("bays_per_side = 20", "bays_per_side = 20\n")).unwrap();
    assert_eq!(
        agent.reloader().reload(Duration::from_secs(60)).await.unwrap().kept.len(),
        2,
        "an empty line is no change"
    );
    agent.stop().await;
    assert!(sim.truth().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_enough() {
    let (one, two) = (bank().await, bank().await);
    let config = Config::new();
    config.profile("one", &["a"]);
    config.profile("two", &["a"]);
    config.write(&[("one", one.addr)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
        .arg("run")
        .arg(config.file())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], config.port));
    let shows =
        async |text: &'static str| http(at, "GET", "/metrics", "").await.is_ok_and(|(_, page)| page.contains(text));
    assert!(eventually(Duration::from_secs(20), async || shows("lightsout_line_up{line=\"one\"} 1").await).await);
    config.write(&[("one", one.addr), ("two", two.addr)]);
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    let up = eventually(Duration::from_secs(10), async || shows("lightsout_line_up{line=\"two\"} 1").await).await;
    let kept = shows("lightsout_line_connects_total{line=\"one\"} 1").await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(up && kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_finds_a_wrong_file_at_its_start_goes_on_with_the_last_good_one() {
    let one = bank().await;
    let config = Config::new();
    config.profile("one", &["a"]);
    config.write(&[("one", one.addr)]);
    let text = std::fs::read_to_string(config.file()).unwrap();
    let text = text.replace("[http]", "state_dir = \"state\"\n[http]");
    std::fs::write(config.file(), &text).unwrap();
    let state = config.dir.path().join("state");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        command.arg("run").arg(config.file()).env("STATE_DIRECTORY", &state).stderr(Stdio::null()).spawn().unwrap()
    };
    let at = SocketAddr::from(([127, 0, 0, 1], config.port));
    let up = async || {
        let page = http(at, "GET", "/metrics", "").await;
        page.is_ok_and(|(_, page)| page.contains("lightsout_line_up{line=\"one\"} 1"))
    };
    let mut first = run();
    assert!(eventually(Duration::from_secs(20), up).await);
    first.kill().unwrap();
    first.wait().unwrap();

    std::fs::write(config.file(), text.replace("modbus", "modbsu")).unwrap();
    std::fs::write(config.dir.path().join("one.toml"), "half a li").unwrap();
    let mut second = run();
    assert!(eventually(Duration::from_secs(20), up).await, "as if nothing had been written");
    let told =
        async || http(at, "GET", "/api/v1/alarms", "").await.is_ok_and(|(_, a)| a.contains("configuration-refused"));
    assert!(eventually(Duration::from_secs(10), told).await, "but it says so");
    second.kill().unwrap();
    second.wait().unwrap();
    std::fs::remove_file(state.join("last-good.json")).unwrap();
    let status = tokio::task::spawn_blocking({
        let mut third = run();
        move || third.wait().unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(2), "without a last good one it does not start");
}
