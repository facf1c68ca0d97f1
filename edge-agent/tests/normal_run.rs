//! A normal run of the program itself: no warning in its log but that of the line without security, a clean end on SIGTERM.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{demo_file, eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn the_program_logs_no_warning_from_start_to_stop() {
    let broker = support::start_broker().await;
    let sim = support::start_plant(4).await;
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

    let mut child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
        .args(["run", "--log", "json"])
        .arg(&config)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>());

    let at = ([127, 0, 0, 1], port).into();
    let ready =
        eventually(Duration::from_secs(30), async || matches!(http(at, "GET", "/readyz", "").await, Ok((200, _))))
            .await;
    assert!(ready, "not ready in time");
    for (kind, load) in [("process", 1001), ("retrieve", 1002), ("process", 1003)] {
        let order = format!("{{\"kind\":\"{kind}\",\"load\":{load}}}");
        assert_eq!(http(at, "POST", "/api/v1/orders", &order).await.unwrap().0, 201);
    }
    let done = eventually(Duration::from_secs(90), async || {
        let (_, page) = http(at, "GET", "/metrics", "").await.unwrap();
        page.contains("lightsout_orders_completed_total 3")
    });
    assert!(done.await, "three orders are done in time");
    let terminated = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    let lines = reader.join().unwrap();
    assert!(status.success(), "{status}: {lines:#?}");

    let levels: Vec<serde_json::Value> =
        lines.iter().map(|l| serde_json::from_str(l).expect("every line is JSON")).collect();
    assert!(levels.len() > 5, "it says something");
    // The demo's cell has no security, and that is said once and loudly; there is nothing else to complain of.
    let complaints: Vec<_> = levels.iter().filter(|l| l["level"] != "INFO").collect();
    let insecure = |l: &serde_json::Value| l.to_string().contains("security = \\\"none\\\"");
    assert!(complaints.len() == 1 && insecure(complaints[0]), "{complaints:#?}");
    assert!(lines.last().unwrap().contains("stopped"));
    assert!(sim.truth().is_clean());
}
