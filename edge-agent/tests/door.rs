//! The door for people and programs under those who mean no good: connections, password work, proxies. Counted in connections and bytes, not
//! in time.

mod support;

use edge_agent::Agent;
use edge_agent::access::Role;
use edge_agent::http::CONNECTIONS_MAX;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{eventually, free_port, http, http_raw, http_with, installed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

fn config(dir: &Path, http: &str) -> std::path::PathBuf {
    let file = dir.join("agent.toml");
    let listen = free_port();
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:{listen}\"\nstate_dir = \"state\"\n[http]\n{http}"
    );
    std::fs::write(&file, text).unwrap();
    file
}

async fn agent(dir: &Path, http: &str) -> Agent {
    let plan = edge_agent::config::load(&config(dir, http)).unwrap_or_else(|e| panic!("{e}"));
    Agent::start(plan).await.unwrap()
}

/// A connection from another address of this machine.
async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// The status of an answer on a connection.
async fn asked(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or("none").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_connections_one_client_opens_others_are_served_and_health_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "").await;
    let at = agent.http;
    let mut page = connect(3, at).await;
    page.write_all(b"GET /api/v1/live?topics=beat HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    page.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let counted = &agent.stages.http;
    let displaced = || counted.displaced.load(std::sync::atomic::Ordering::Relaxed);
    let mut flood = Vec::new();
    while displaced() < 60 {
        let mut stream = connect(1, at).await;
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow").await;
        flood.push(stream);
        assert!(flood.len() < 20 * CONNECTIONS_MAX, "nobody ever makes room");
    }
    assert!(counted.connections.load(std::sync::atomic::Ordering::Relaxed) <= CONNECTIONS_MAX);
    for path in ["/healthz", "/api/v1/orders", "/readyz"] {
        assert_eq!(asked(&mut connect(2, at).await, path).await, "200", "{path} from elsewhere");
    }
    assert_eq!(asked(&mut connect(1, at).await, "/healthz").await, "200", "from the place of the flood itself");
    // Who was there before, and asks for little, stays.
    let mut frames = [0; 4096];
    while page.try_read(&mut frames).is_ok_and(|n| n > 0) {} // they may be older than the flood
    assert!(page.read(&mut frames).await.unwrap() > 0, "it is told what is new");
    drop(flood);
    agent.stop().await;
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: impl AsRef<std::ffi::OsStr>, args: &[&std::ffi::OsStr]) -> Running {
    let mut command = Command::new(program);
    Running(command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

async fn listens(at: SocketAddr) -> bool {
    eventually(Duration::from_secs(60), async || TcpStream::connect(at).await.is_ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_ninety_two_wrong_passwords_leave_no_memory_behind() {
    /// One buffer of 7 MiB, some threads' stacks, and what an allocator keeps; it was 117 MiB.
    const GROWTH_MAX_KIB: u64 = 32 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "");
    let at = edge_agent::config::load(&file).unwrap().listen;
    let run = start(env!("CARGO_BIN_EXE_edge-agent"), &["run".as_ref(), file.as_os_str()]);
    assert!(listens(at).await);
    assert_eq!(http(at, "GET", "/healthz", "").await.unwrap().0, 200);
    let before = resident(run.0.id());
    let mut tries = Vec::new();
    for n in 0..192u8 {
        tries.push(tokio::spawn(async move {
            // Six places with two at a time, as long as it takes to be heard.
            let body = format!("{{\"name\":\"user-{n}\",\"password\":\"wrong horse\"}}");
            let length = body.len();
            for _ in 0..1000 {
                let mut stream = connect(10 + n / 24, at).await;
                let head = "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
                let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                if answer.starts_with(b"HTTP/1.1 401") {
                    return;
                }
                assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            panic!("never heard");
        }));
    }
    for one in tries {
        one.await.unwrap();
    }
    let grown = resident(run.0.id()).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more than before");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_through_a_trusted_proxy_lock_out_who_sent_them() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "trusted_proxies = [\"127.0.0.1\"]").await;
    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
    let login = async |from: &str, password: &str| {
        let body = format!("{{\"name\":\"ada\",\"password\":\"{password}\"}}");
        let header = format!("X-Forwarded-For: {from}\r\n");
        http_with(agent.http, "POST", "/api/v1/login", &body, &header).await.unwrap().0
    };
    for _ in 0..5 {
        assert_eq!(login("192.0.2.66", "wrong horse").await, 401);
    }
    assert_eq!(login("192.0.2.66", "correct horse").await, 429);
    assert_eq!(login("203.0.113.5, 192.0.2.66", "correct horse").await, 429, "made up in front");
    assert_eq!(login("192.0.2.7", "correct horse").await, 200);
    let record = serde_json::to_string(&agent.access().audit.newest(100)).unwrap();
    assert!(record.contains("\"192.0.2.66\"") && record.contains("\"192.0.2.7\""), "{record}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_this_machine_is_for_nobody_who_was_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "names = [\"gw-1.plant\"]").await;
    let rows = [
        ("HTTP/1.1", "Host: localhost\r\n", "200"),
        ("HTTP/1.1", "Host: 127.0.0.1:9464\r\n", "200"),
        ("HTTP/1.1", "Host: [::1]\r\n", "200"),
        ("HTTP/1.1", "Host: gw-1.plant\r\n", "200"),
        ("HTTP/1.1", "Host: 10.1.2.3\r\n", "401"),
        ("HTTP/1.1", "Host: plant.example\r\n", "401"),
        ("HTTP/1.1", "Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n", "401"),
        ("HTTP/1.1", "Host: localhost\r\nForwarded: for=127.0.0.1\r\n", "401"),
        ("HTTP/1.1", "Host: localhost\r\nX-Real-IP: 127.0.0.1\r\n", "401"),
        ("HTTP/1.1", "Host: localhost\r\nVia: 1.1 proxy\r\n", "401"),
        ("HTTP/1.1", "Host: localhost\r\nX-Forwarded-Proto: https\r\n", "401"),
        ("HTTP/1.0", "Host: 127.0.0.1\r\n", "401"),
        ("HTTP/1.1", "", "400"),
        ("HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n", "400"),
        ("HTTP/1.1", "Host: localhost\r\nHost: plant.example\r\n", "400"),
        ("HTTP/1.1", "Host: localhost:1@plant.example\r\n", "400"),
    ];
    for (version, headers, want) in rows {
        let request = format!("GET /api/v1/orders {version}\r\n{headers}Connection: close\r\n\r\n");
        let answer = http_raw(agent.http, request).await;
        assert_eq!(answer.split(' ').nth(1), Some(want), "{version} {headers}");
    }
    agent.stop().await;
}

/// A shipped file of a proxy, with the ports, names and folders of a test.
fn proxy_file(name: &str, dir: &Path, ports: (u16, u16), agent: SocketAddr) -> std::path::PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/proxy").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let text = text
        .replace("127.0.0.1:9464", &agent.to_string())
        .replace("/etc/lightsout/proxy", &dir.display().to_string())
        .replace("listen 443 ssl", &format!("listen 127.0.0.1:{} ssl", ports.0))
        .replace("listen 80", &format!("listen 127.0.0.1:{}", ports.1));
    let made = dir.join(name);
    std::fs::write(&made, text).unwrap();
    made
}

fn certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["gateway-1.plant.example".to_string()]).unwrap();
    std::fs::write(dir.join("gateway.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("gateway.key"), made.signing_key.serialize_pem()).unwrap();
}

fn nginx(program: &Path, dir: &Path, file: &Path) -> Running {
    let (prefix, quiet) =
        (dir.as_os_str(), format!("daemon off; master_process off; pid {0}/nginx.pid;", dir.display()));
    let error_log = dir.join("error.log");
    let args = ["-e".as_ref(), error_log.as_os_str(), "-p".as_ref(), prefix, "-g".as_ref(), quiet.as_ref()];
    start(program, &[&args[..], &["-c".as_ref(), file.as_os_str()]].concat())
}

/// An nginx with nothing but what it must have in front of the agent: no header says that it is there.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_plain_nginx_a_stranger_is_not_taken_for_somebody_on_the_gateway() {
    let test = "behind_a_plain_nginx_a_stranger_is_not_taken_for_somebody_on_the_gateway";
    let Some(program) = installed("nginx", test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "").await;
    let port = free_port();
    let file = dir.path().join("plain.conf");
    let text = format!(
        "events {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; }} }} }}\n",
        agent.http
    );
    std::fs::write(&file, text).unwrap();
    let running = nginx(&program, dir.path(), &file);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(listens(at).await, "{:?}", std::fs::read_to_string(dir.path().join("error.log")));
    assert_eq!(http(agent.http, "GET", "/api/v1/orders", "").await.unwrap().0, 200, "without it");
    assert_eq!(http(at, "GET", "/api/v1/orders", "").await.unwrap().0, 401);
    assert_eq!(http(at, "GET", "/healthz", "").await.unwrap().0, 200);
    drop(running);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_nginx_file_serves_the_page_over_tls_and_says_where_clients_are() {
    let test = "the_shipped_nginx_file_serves_the_page_over_tls_and_says_where_clients_are";
    let Some(program) = installed("nginx", test) else { return };
    let Some(curl) = installed("curl", test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "trusted_proxies = [\"127.0.0.1\"]").await;
    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
    certificate(dir.path());
    let ports = (free_port(), free_port());
    let site = proxy_file("nginx.conf", dir.path(), ports, agent.http);
    let whole = dir.path().join("whole.conf");
    let text = format!("events {{}}\nhttp {{ access_log off; include {}; }}\n", site.display());
    std::fs::write(&whole, text).unwrap();
    let running = nginx(&program, dir.path(), &whole);
    assert!(
        listens(([127, 0, 0, 1], ports.0).into()).await,
        "{:?}",
        std::fs::read_to_string(dir.path().join("error.log"))
    );
    let ca = dir.path().join("gateway.pem");
    let ask = |more: &[&str], path: &str| {
        let url = format!("https://gateway-1.plant.example:{}{path}", ports.0);
        let resolve = format!("gateway-1.plant.example:{}:127.0.0.1", ports.0);
        let output = Command::new(&curl)
            .args(["-sS", "-i", "--noproxy", "*", "--max-time", "60", "--cacert"])
            .arg(&ca)
            .args(["--resolve", &resolve, "--interface", "127.0.0.77"])
            .args(more)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(ask(&[], "/").contains("<title>Lightsout</title>"));
    assert!(ask(&[], "/api/v1/orders").contains(" 401 "), "a stranger");
    let made_up = ["-H", "X-Forwarded-For: 127.0.0.1", "-H", "X-Real-IP: 127.0.0.1", "-H", "Host: localhost"];
    assert!(ask(&made_up, "/api/v1/orders").contains(" 401 "), "a stranger who pretends");
    let origin = format!("Origin: https://gateway-1.plant.example:{}", ports.0);
    let form = "{\"name\":\"ada\",\"password\":\"correct horse\"}";
    let sign_in = ["-H", &origin, "-H", "X-Forwarded-For: 203.0.113.5", "--json", form];
    let signed_in = ask(&sign_in, "/api/v1/login");
    assert!(signed_in.contains(" 200 ") && signed_in.contains("; Secure"), "{signed_in}");
    let record = serde_json::to_string(&agent.access().audit.newest(100)).unwrap();
    assert!(record.contains("\"127.0.0.77\"") && !record.contains("203.0.113.5"), "{record}");
    let moved = http(([127, 0, 0, 1], ports.1).into(), "GET", "/", "").await.unwrap();
    assert_eq!(moved.0, 308, "{}", moved.1);
    let live = ask(&["-N", "--max-time", "3"], "/api/v1/live?topics=beat");
    assert!(live.contains(" 401 "), "{live}");
    drop(running);
    agent.stop().await;
}

#[test]
fn caddy_takes_the_shipped_file() {
    let Some(caddy) = found("caddy") else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED caddy_takes_the_shipped_file: caddy is not installed here");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let file = proxy_file("Caddyfile", dir.path(), (0, 0), ([127, 0, 0, 1], 9464).into());
    let output = Command::new(caddy).args(["validate", "--adapter", "caddyfile", "--config"]).arg(file).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A program that CI need not have.
fn found(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}
