//! A normal run of the program itself: no warning in its log but that of the line without security, a clean end on SIGTERM; and the control
//! thread asks nothing of the kernel but to be woken.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{demo_file, eventually, http};

/// The program itself on the small demo's plant, with three orders handed in.
struct Run {
    sim: plc_sim::Sim,
    child: Child,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Run {
    async fn start(seed: u64) -> Run {
        let broker = support::start_broker().await;
        let sim = support::start_plant(seed).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("profiles")).unwrap();
        for name in ["profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
            std::fs::copy(demo_file(name), dir.path().join(name)).unwrap();
        }
        let port = support::free_port();
        let text = std::fs::read_to_string(demo_file("agent.toml"))
            .unwrap()
            .replace("127.0.0.1:9464", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:1883", &format!("127.0.0.1:{broker}"))
            .replace("127.0.0.1:5020", &sim.addresses.modbus.to_string())
            .replace("127.0.0.1:4855", &sim.addresses.opcua.to_string())
            // Whether this host grants real time is not what is tested here; refused, it would rightly be a warning.
            .replace("realtime      = \"try\"", "realtime      = \"off\"");
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .args(["run", "--log", "json"])
            .arg(&config)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Run { sim, child, at: ([127, 0, 0, 1], port).into(), _dir: dir }
    }

    async fn hands_in_three_orders(&self) {
        let at = self.at;
        let ready =
            eventually(Duration::from_secs(30), async || matches!(http(at, "GET", "/readyz", "").await, Ok((200, _))))
                .await;
        assert!(ready, "not ready in time");
        for (kind, load) in [("process", 1001), ("retrieve", 1002), ("process", 1003)] {
            let order = format!("{{\"kind\":\"{kind}\",\"load\":{load}}}");
            assert_eq!(http(at, "POST", "/api/v1/orders", &order).await.unwrap().0, 201);
        }
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_logs_no_warning_from_start_to_stop() {
    let mut run = Run::start(4).await;
    let log = BufReader::new(run.child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>());
    run.hands_in_three_orders().await;
    let done = eventually(Duration::from_secs(90), async || {
        let (_, page) = http(run.at, "GET", "/metrics", "").await.unwrap();
        page.contains("lightsout_orders_completed_total 3")
    });
    assert!(done.await, "three orders are done in time");
    run.terminate();
    let status = tokio::task::spawn_blocking(move || run.child.wait()).await.unwrap().unwrap();
    let lines = reader.join().unwrap();
    assert!(status.success(), "{status}: {lines:#?}");

    let levels: Vec<serde_json::Value> =
        lines.iter().map(|l| serde_json::from_str(l).expect("every line is JSON")).collect();
    assert!(levels.len() > 5, "it says something");
    // The demo's cell has no security, and that is said once and loudly; there is nothing else to complain of, but the clock of a machine
    // that nobody synchronises.
    let own = |l: &&serde_json::Value| l["level"] != "INFO" && l["target"] != "edge_agent::clock";
    let complaints: Vec<_> = levels.iter().filter(own).collect();
    let insecure = |l: &serde_json::Value| l.to_string().contains("security = \\\"none\\\"");
    assert!(complaints.len() == 1 && insecure(complaints[0]), "{complaints:#?}");
    assert!(lines.last().unwrap().contains("stopped"));
    assert!(run.sim.truth().is_clean());
}

/// What the thread of this name in a process asked of the kernel in so many seconds, and how often; `None` where nobody may look.
fn system_calls(strace: &Path, process: u32, thread: &str, seconds: u32) -> Option<BTreeMap<String, u64>> {
    let named = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let task = tasks.flatten().map(|t| t.path()).find(named).expect("there is such a thread");
    let id = task.file_name().unwrap().to_str().unwrap();
    let report = Command::new("timeout")
        .args(["--signal=INT", &seconds.to_string()])
        .arg(strace)
        .args(["-q", "-p", id])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&report.stderr);
    if text.contains("Operation not permitted") || text.contains("PTRACE") {
        eprintln!("SKIPPED: this host lets nobody trace a process: {text}");
        return None;
    }
    let mut calls = BTreeMap::new();
    for name in text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name) {
        *calls.entry(name.trim_start_matches("strace: ").to_string()).or_default() += 1;
    }
    Some(calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_thread_asks_the_kernel_for_nothing_but_the_next_beat() {
    let Some(strace) = support::installed("strace", "the_control_thread_asks_the_kernel_for_nothing_but_the_next_beat")
    else {
        return;
    };
    let mut run = Run::start(5).await;
    run.hands_in_three_orders().await;
    let id = run.child.id();
    let calls = tokio::task::spawn_blocking(move || system_calls(&strace, id, "control", 4)).await.unwrap();
    run.terminate();
    run.child.wait().unwrap();
    let Some(calls) = calls else { return };
    println!("{calls:?}");
    // The time is read without the kernel; where a machine has no clock for that, by clock_gettime.
    let allowed = ["clock_nanosleep", "clock_gettime", "restart_syscall"];
    assert!(calls.keys().all(|name| allowed.contains(&name.as_str())), "{calls:?}");
    assert!(calls.get("clock_nanosleep").is_some_and(|n| *n > 50), "{calls:?}");
}
