//! The program against real peers, each a process of its own: mosquitto, Prometheus, plc-sim. Killed with -9, on purpose.
//!
//! Where a peer is not installed the test says so and does nothing; with `LIGHTSOUT_PEERS=require`, as in CI, it fails instead.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{demo_file, eventually, free_port, http, installed};

/// A process that is killed when the test ends, however it ends.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Process {
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn kill_9(mut self) {
        self.signal("-KILL");
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The plc-sim program; built if `cargo test` has not done so already.
fn plc_sim() -> PathBuf {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_edge-agent"));
    let program = agent.with_file_name("plc-sim");
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-p", "plc-sim", "--bin", "plc-sim"]);
        if agent.parent().is_some_and(|p| p.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success());
    }
    program
}

/// A floor of processes: files and ports of its own.
struct Floor {
    dir: tempfile::TempDir,
    broker: u16,
    at: SocketAddr,
}

impl Floor {
    fn new() -> Floor {
        let dir = tempfile::tempdir().unwrap();
        let (modbus, opcua, broker, http) = (free_port(), free_port(), free_port(), free_port());
        std::fs::create_dir(dir.path().join("profiles")).unwrap();
        for name in ["agent.toml", "plant.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
            let text = std::fs::read_to_string(demo_file(name))
                .unwrap()
                .replace("127.0.0.1:5020", &format!("127.0.0.1:{modbus}"))
                .replace("127.0.0.1:4855", &format!("127.0.0.1:{opcua}"))
                .replace("127.0.0.1:1883", &format!("127.0.0.1:{broker}"))
                .replace("127.0.0.1:9464", &format!("127.0.0.1:{http}"));
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let broker_config = format!("listener {broker} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        std::fs::write(dir.path().join("mosquitto.conf"), broker_config).unwrap();
        Floor { dir, broker, at: ([127, 0, 0, 1], http).into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_agent(&self) -> Process {
        Process::start(Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("run").arg(self.file("agent.toml")))
    }

    fn start_plant(&self) -> Process {
        let (plant, state) = (self.file("plant.toml"), self.file("state.json"));
        Process::start(Command::new(plc_sim()).arg("run").arg(plant).arg("--state").arg(state).args(["--seed", "7"]))
    }

    fn start_broker(&self, mosquitto: &Path) -> Process {
        Process::start(Command::new(mosquitto).arg("-c").arg(self.file("mosquitto.conf")))
    }

    async fn ready(&self, limit: u64) -> bool {
        eventually(Duration::from_secs(limit), async || {
            matches!(http(self.at, "GET", "/readyz", "").await, Ok((200, _)))
        })
        .await
    }

    async fn metric(&self, name: &str) -> f64 {
        let Ok((_, page)) = http(self.at, "GET", "/metrics", "").await else { return f64::NAN };
        on_page(&page, name)
    }

    /// The books are right. Values come while the page is written, so it is asked for until none has.
    async fn is_balanced(&self) -> bool {
        eventually(Duration::from_secs(20), async || {
            let Ok((_, page)) = http(self.at, "GET", "/metrics", "").await else { return false };
            let of = |name: &str| on_page(&page, &format!("lightsout_samples_{name}"));
            let produced = of("produced_total");
            produced > 0.0 && produced == of("delivered_total") + of("waiting") + of("lost_total")
        })
        .await
    }

    /// The next message of a topic, as mosquitto_sub prints it.
    async fn next_message(&self, sub: &Path, topic: &str) -> String {
        let port = self.broker.to_string();
        let mut command = Command::new(sub);
        command.args(["-h", "127.0.0.1", "-p", &port, "-t", topic, "-C", "1", "-W", "10", "-F", "%r %p"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("mosquitto_sub runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The sum of a metric over its labels.
fn on_page(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<f64> = lines.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    if values.is_empty() { f64::NAN } else { values.iter().sum() }
}

const STATUS: &str = "lightsout/hall-1/line-1/gateway-1/status";

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_keeps_the_birth_and_tells_the_last_will_after_a_kill() {
    let test = "mosquitto_keeps_the_birth_and_tells_the_last_will_after_a_kill";
    let (Some(mosquitto), Some(sub)) = (installed("mosquitto", test), installed("mosquitto_sub", test)) else { return };
    let floor = Floor::new();
    let _broker = floor.start_broker(&mosquitto);
    let _plant = floor.start_plant();
    let agent = floor.start_agent();
    assert!(floor.ready(30).await);

    let birth = floor.next_message(&sub, STATUS).await;
    assert!(birth.starts_with("1 {\"state\":\"online\""), "the birth is retained: {birth:?}");
    agent.kill_9();
    let will = eventually(Duration::from_secs(15), async || {
        floor.next_message(&sub, STATUS).await.starts_with("1 {\"state\":\"offline\",\"reason\":\"connection lost\"")
    });
    assert!(will.await, "the last will is told and retained");

    // And it comes back: a new agent takes the plant over.
    let agent = floor.start_agent();
    assert!(floor.ready(30).await);
    assert!(floor.next_message(&sub, STATUS).await.contains("online"));
    assert!(floor.is_balanced().await);
    agent.signal("-TERM");
    let stopped =
        eventually(Duration::from_secs(15), async || floor.next_message(&sub, STATUS).await.contains("\"stopped\""));
    assert!(stopped.await, "a stop is told as one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_for_five_seconds_costs_no_sample() {
    let test = "a_broker_killed_for_five_seconds_costs_no_sample";
    let Some(mosquitto) = installed("mosquitto", test) else { return };
    let floor = Floor::new();
    let broker = floor.start_broker(&mosquitto);
    let _plant = floor.start_plant();
    let _agent = floor.start_agent();
    assert!(floor.ready(30).await);
    assert!(eventually(Duration::from_secs(10), async || floor.metric("lightsout_mqtt_connected").await == 1.0).await);
    broker.kill_9();
    assert!(eventually(Duration::from_secs(3), async || floor.metric("lightsout_mqtt_connected").await == 0.0).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(floor.metric("lightsout_spool_samples").await > 50.0, "samples wait");
    assert_eq!(floor.metric("lightsout_run_state{state=\"running\"}").await, 1.0, "the floor goes on");

    let _broker = floor.start_broker(&mosquitto);
    let delivered = eventually(Duration::from_secs(20), async || {
        let waiting = floor.metric("lightsout_spool_samples").await;
        floor.metric("lightsout_mqtt_connected").await == 1.0 && waiting < 20.0
    });
    assert!(delivered.await, "{} still wait", floor.metric("lightsout_spool_samples").await);
    assert_eq!(floor.metric("lightsout_samples_lost_total").await, 0.0);
    assert!(floor.is_balanced().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plant_program_killed_for_five_seconds_is_read_again_and_its_orders_are_done() {
    let floor = Floor::new();
    let plant = floor.start_plant();
    let _agent = floor.start_agent();
    assert!(floor.ready(30).await);
    let order = "{\"kind\":\"process\",\"load\":1020}";
    assert_eq!(http(floor.at, "POST", "/api/v1/orders", order).await.unwrap().0, 201);
    tokio::time::sleep(Duration::from_secs(2)).await;
    plant.kill_9();
    assert!(
        eventually(Duration::from_secs(8), async || floor.metric("lightsout_tags_good{line=\"cell\"}").await == 0.0)
            .await
    );
    let all_bad = async || floor.metric("lightsout_tags_bad{line=\"rack\"}").await == 216.0;
    assert!(eventually(Duration::from_secs(8), all_bad).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _plant = floor.start_plant();
    assert!(floor.ready(15).await, "back by itself");
    let done =
        eventually(Duration::from_secs(60), async || floor.metric("lightsout_orders_completed_total").await >= 1.0);
    assert!(done.await, "the order is brought to its end");
    assert!(floor.is_balanced().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_the_agent_and_promtool_finds_nothing_to_complain_about() {
    let test = "prometheus_scrapes_the_agent_and_promtool_finds_nothing_to_complain_about";
    let (Some(prometheus), Some(promtool)) = (installed("prometheus", test), installed("promtool", test)) else {
        return;
    };
    let floor = Floor::new();
    let _plant = floor.start_plant();
    let _agent = floor.start_agent();
    assert!(floor.ready(30).await);

    let (_, page) = http(floor.at, "GET", "/metrics", "").await.unwrap();
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let verdict = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&verdict.stdout).into_owned() + &String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success() && said.trim().is_empty(), "promtool says: {said}");

    // The shipped scrape configuration, pointed at this agent.
    let text = std::fs::read_to_string(demo_file("../prometheus.yml")).unwrap();
    assert!(text.contains("127.0.0.1:9464"));
    let text =
        text.replace("127.0.0.1:9464", &floor.at.to_string()).replace("scrape_interval: 5s", "scrape_interval: 1s");
    std::fs::write(floor.file("prometheus.yml"), text).unwrap();
    let valid = Command::new(&promtool).args(["check", "config"]).arg(floor.file("prometheus.yml")).output().unwrap();
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stderr));
    let port = free_port();
    let _prometheus = Process::start(
        Command::new(prometheus)
            .arg(format!("--config.file={}", floor.file("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", floor.file("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );
    let ask = async |query: &str| {
        let at = ([127, 0, 0, 1], port).into();
        let (_, body) = http(at, "GET", &format!("/api/v1/query?query={query}"), "").await.ok()?;
        let json: serde_json::Value = serde_json::from_str(&body).ok()?;
        json["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    let scraped = eventually(Duration::from_secs(40), async || ask("up").await == Some(1.0)).await;
    assert!(scraped, "Prometheus says that the agent is up");
    assert!(ask("lightsout_cycles_total").await.is_some_and(|cycles| cycles > 100.0));
    let buckets = ask("count(lightsout_cycle_exec_seconds_bucket)").await;
    assert_eq!(buckets, Some(25.0), "24 doublings and +Inf");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_python_parser_reads_the_page() {
    let test = "the_strict_python_parser_reads_the_page";
    let Some(python) = installed("python3", test) else { return };
    let has = Command::new(&python).args(["-c", "import prometheus_client"]).output().unwrap().status.success();
    if !has {
        assert!(
            std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"),
            "{test} needs prometheus-client from PyPI"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: prometheus-client from PyPI is not installed here");
        return;
    }
    let floor = Floor::new();
    let _agent = floor.start_agent();
    assert!(eventually(Duration::from_secs(20), async || http(floor.at, "GET", "/healthz", "").await.is_ok()).await);
    let (_, page) = http(floor.at, "GET", "/metrics", "").await.unwrap();
    let script = "
import sys
from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    assert family.documentation and family.samples, family
    last = {}
    for s in family.samples:
        assert s.value >= 0, s
        if s.name.endswith('_bucket'):
            key = tuple(sorted((k, v) for k, v in s.labels.items() if k != 'le'))
            assert s.value >= last.get(key, 0), s
            last[key] = s.value
        if s.name.endswith('_count') and family.type == 'histogram':
            assert s.value == last[tuple(sorted(s.labels.items()))], s
";
    let mut child =
        Command::new(python).args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let verdict = child.wait_with_output().unwrap();
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
}
