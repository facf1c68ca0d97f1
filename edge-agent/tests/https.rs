//! HTTPS built in, what is served without it, and certificates that run out.

#[path = "support/authority.rs"]
mod authority;
mod support;
#[path = "support/tls_broker.rs"]
mod tls_broker;

use authority::Authority;
use device_drivers::opcua::pki::{Certificate, Pki};
use device_drivers::tls::Tls;
use edge_agent::Agent;
use edge_agent::access::Role;
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use support::{eventually, http, http_raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn config(dir: &Path, listen: &str, rest: &str) -> PathBuf {
    let file = dir.join("agent.toml");
    let head = "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\nstate_dir = \"state\"\n";
    std::fs::write(&file, format!("{head}listen = \"{listen}\"\n{rest}")).unwrap();
    file
}

/// As `run` starts it.
async fn start(file: &Path) -> Agent {
    let plan = edge_agent::config::load_from(file, Default::default()).unwrap_or_else(|e| panic!("{e}"));
    Agent::start(plan).await.unwrap()
}

/// What an alarm says, when it stands.
async fn told(agent: &Agent, alarm: &str) -> String {
    let said =
        || agent.stages.alarms.list().iter().filter(|a| a.alarm == alarm).map(|a| a.detail.clone()).collect::<Vec<_>>();
    let stands = async || !said().is_empty();
    assert!(eventually(Duration::from_secs(30), stands).await, "{alarm} is not told");
    said().join("; ")
}

/// One request over TLS: the whole answer.
async fn https(at: SocketAddr, ca: &Path, request: String) -> Result<String, String> {
    let stream = TcpStream::connect(at).await.unwrap();
    let tls = Tls { ca: ca.into(), own: None, name: Some("localhost".into()) };
    let mut stream = tls.connect("localhost", stream, Duration::from_secs(30)).await?;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

async fn edge(args: Vec<String>) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        command.args(args).env_remove("LIGHTSOUT_URL").env_remove("LIGHTSOUT_TOKEN").env_remove("LIGHTSOUT_CA").output()
    });
    let output = output.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_made_on_request_and_everything_goes_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "127.0.0.1:0", "[http]\ntls = { self_signed = true }\n");
    let (code, text) = edge(vec!["check".into(), file.display().to_string()]).await;
    assert!(code == Some(0) && text.contains("is made at the first start"), "{text}");
    let agent = start(&file).await;
    let (at, pem) = (agent.http, dir.path().join("state/tls/gateway.pem"));
    let mode = std::fs::metadata(dir.path().join("state/tls/gateway.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let answer = https(at, &pem, get("/healthz")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security: max-age="), "{answer}");
    assert!(https(at, &pem, get("/api/v1/orders")).await.unwrap().starts_with("HTTP/1.1 200"), "still this machine");

    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
    let form = "{\"name\":\"ada\",\"password\":\"correct horse\"}";
    let head = "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    let answer = https(at, &pem, format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len())).await.unwrap();
    let cookie = answer.lines().find(|l| l.starts_with("set-cookie")).unwrap_or_else(|| panic!("{answer}"));
    assert!(cookie.contains("; Secure") && cookie.contains("HttpOnly"), "{cookie}");

    // Who speaks plainly is told so, and somebody who says nothing keeps nobody out.
    let _silent = TcpStream::connect(at).await.unwrap();
    let plain = http_raw(at, get("/healthz")).await;
    assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("https://"), "{plain}");
    let status = |more: &[&str]| {
        let url = format!("https://localhost:{}", at.port());
        let args = ["status", "--url", &url].iter().chain(more).map(ToString::to_string).collect();
        edge(args)
    };
    let pem_text = pem.display().to_string();
    let (code, text) = status(&["--ca", &pem_text]).await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = status(&[]).await;
    assert!(code == Some(3) && text.contains("--ca FILE says whom to believe"), "{text}");
    assert!(text.contains("answers") && text.contains("tls/gateway.pem") && !text.contains("does it run"), "{text}");

    let (code, text) = edge(vec!["check".into(), file.display().to_string()]).await;
    let print = text.lines().find_map(|l| l.trim().strip_prefix("SHA-256 ")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!((code, print.len()), (Some(0), 95), "{text}");
    agent.stop().await;
    let again = start(&file).await;
    let (_, text) = edge(vec!["check".into(), file.display().to_string()]).await;
    assert!(text.contains(print), "the next start has the same: {text}");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_without_tls_takes_a_word_and_is_told_on_the_page_and_as_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |listen: &str, http: &str| {
        let why = edge_agent::config::load(&config(dir.path(), listen, http)).err();
        why.map_or_else(String::new, |report| report.render(false))
    };
    let text = refused("0.0.0.0:0", "");
    assert!(
        text.contains("for all to read") && text.contains("self_signed = true") && text.contains("unencrypted = true"),
        "{text}"
    );
    assert!(refused("127.0.0.1:0", "[http]\nunencrypted = true\n").contains("no effect"));
    assert!(refused("0.0.0.0:0", "[http]\nunencrypted = true\ntls = { self_signed = true }\n").contains("no effect"));
    assert!(refused("0.0.0.0:0", "[http]\ntls = { certificate = \"a.pem\" }\n").contains("half of an identity"));
    assert!(refused("0.0.0.0:0", "[http]\ntls = { certificate = \"a.pem\", key = \"a.key\" }\n").contains("a.pem"));
    assert!(refused("127.0.0.1:0", "[http]\ntrusted_proxies = [\"proxy\"]\n").contains("10.0.0.0/8"));
    assert!(refused("127.0.0.1:0", "[http]\nnames = [\"https://gw\"]\n").contains("host name"));
    assert_eq!(refused("0.0.0.0:0", "[http]\ntls = { self_signed = true }\n"), "");

    let agent = start(&config(dir.path(), "0.0.0.0:0", "[http]\nunencrypted = true\n")).await;
    let at = SocketAddr::from(([127, 0, 0, 1], agent.http.port()));
    let (_, me) = http(at, "GET", "/api/v1/me", "").await.unwrap();
    assert!(me.contains("\"is_unencrypted\":true"), "{me}");
    let told = async || http(at, "GET", "/api/v1/alarms", "").await.unwrap().1.contains("page-unencrypted");
    assert!(eventually(Duration::from_secs(30), told).await);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_runs_out_is_a_figure_and_an_alarm_a_month_and_a_week_before() {
    let day = |n: u64| SystemTime::now() + Duration::from_secs(n * 86_400 + 3600);
    let authority = Authority::until("Plant CA", day(20));
    let made = authority.signs_until("broker", &["localhost"], day(5));
    let acceptor = tls_broker::tls(&made.pem, &made, None, tls_broker::ANY);
    let broker = tls_broker::broker(Some(acceptor), tls_broker::WELCOME_5, tls_broker::WELCOME_311).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.signs_until("gw", &["localhost"], day(300)).write(dir.path(), "gw");
    let rest = format!(
        "[mqtt]\nbroker = \"mqtts://localhost:{broker}\"\ntls = {{ ca = \"ca.pem\", certificate = \"gw.pem\", key = \"gw.key\" }}\n\
         [http]\ntls = {{ self_signed = true }}\n"
    );
    let agent = start(&config(dir.path(), "127.0.0.1:0", &rest)).await;
    let pem = dir.path().join("state/tls/gateway.pem");
    let body = async |path: &str| {
        let answer = https(agent.http, &pem, get(path)).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    };
    let days = async |name: &str| {
        agent.stages.certificates.look(SystemTime::now());
        let page = body("/metrics").await;
        let line = page.lines().find(|l| l.starts_with("lightsout_certificate_days_left{") && l.contains(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // What the broker shows is known when it has been met.
    let met = async || days("certificate=\"broker mqtts://localhost").await.is_some();
    assert!(eventually(Duration::from_secs(30), met).await);
    for (name, want) in [("broker mqtts://localhost", 5.0), ("mqtt ca ", 20.0), ("mqtt certificate ", 300.0)] {
        let left = days(name).await.unwrap_or_else(|| panic!("{name}"));
        assert!((want..want + 0.1).contains(&left), "{name}: {left}");
    }
    assert!(days("page ").await.is_some_and(|left| left > 3000.0));
    let alarms = async || {
        let all: Value = serde_json::from_str(&body("/api/v1/alarms").await).unwrap();
        let all = all.as_array().unwrap().clone();
        let of = |a: &Value| format!("{} {}: {}", a["alarm"], a["subject"], a["detail"]).replace('"', "");
        all.iter().map(of).filter(|a| a.starts_with("certificate")).collect::<Vec<_>>()
    };
    let both = async || alarms().await.len() == 2;
    assert!(eventually(Duration::from_secs(30), both).await, "{:?}", alarms().await);
    let told = alarms().await;
    let is =
        |start: &str, words: &[&str]| told.iter().any(|a| a.starts_with(start) && words.iter().all(|w| a.contains(w)));
    assert!(
        is("certificate-ends-soon broker mqtts://localhost", &["CN=broker", "runs out on 20", "5.0 days"]),
        "{told:?}"
    );
    assert!(is("certificate-ends mqtt ca ", &["ca.pem", "CN=Plant CA", "20.0 days"]), "{told:?}");

    // Renewed, and the alarm goes.
    std::fs::write(dir.path().join("ca.pem"), Authority::new("Plant CA").pem()).unwrap();
    let gone = async || {
        agent.stages.certificates.look(SystemTime::now());
        let all: Value = serde_json::from_str(&body("/api/v1/alarms").await).unwrap();
        let mut all = all.as_array().unwrap().iter();
        all.any(|a| a["alarm"] == "certificate-ends" && a["state"] == "returned")
    };
    assert!(eventually(Duration::from_secs(30), gone).await, "{:?}", alarms().await);
    agent.stop().await;
}

/// The folder of OPC UA: who we are, and whom a person trusts. Looked at with the date of a later day; nobody has to wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_opc_ua_that_run_out_are_figures_and_alarms_a_month_and_a_week_before() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("state/pki")).unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(pki.own().unwrap().valid_s.1.try_into().unwrap());
    let day = Duration::from_secs(86_400);
    std::fs::write(dir.path().join("ca.pem"), Authority::until("Cell CA", end - 15 * day).pem()).unwrap();
    let trusted = pki.trust(&dir.path().join("ca.pem").display().to_string()).unwrap();
    let own = pki.own().unwrap();
    let name = |place: &str, c: &Certificate| format!("OPC UA {place} {}", &c.thumbprint[..12]);
    let names = (name("own", &own), name("trusted", &trusted));
    let (own, trusted) = (names.0.as_str(), names.1.as_str());
    let rest = format!(
        "[[line]]\nname = \"press\"\nopcua = \"opc.tcp://127.0.0.1:{}/\"\nsecurity = \"Basic256Sha256/SignAndEncrypt\"\n\
         [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"d.toml\"\n",
        support::free_port()
    );
    std::fs::write(dir.path().join("d.toml"), "[[tag]]\nname = \"v\"\nnode = \"ns=2;s=v\"\n").unwrap();
    let agent = start(&config(dir.path(), "127.0.0.1:0", &rest)).await;
    /// Alarm, subject, and what its detail says.
    type Stands<'a> = (&'a str, &'a str, &'a str);
    let rows: [(u32, &[Stands<'_>]); 4] = [
        (50, &[]),
        (40, &[("certificate-ends", trusted, "CN=Cell CA: runs out on 2")]),
        (20, &[("certificate-ends", own, "runs out on 2"), ("certificate-ends-soon", trusted, "5.0 days")]),
        (5, &[("certificate-ends-soon", own, "5.0 days"), ("certificate-ends-soon", trusted, "has run out on 2")]),
    ];
    for (days, want) in rows {
        let then = end - days * day;
        let stand = async || {
            agent.stages.certificates.look(then);
            let all: Vec<_> = agent.stages.alarms.list();
            let mut all: Vec<_> = all.iter().filter(|a| a.active && a.alarm.starts_with("certificate-")).collect();
            all.sort_by(|a, b| a.subject.cmp(&b.subject));
            all.len() == want.len()
                && all.iter().zip(want).all(|(a, (alarm, subject, detail))| {
                    a.alarm == *alarm && a.subject == *subject && a.detail.contains(*detail)
                })
        };
        assert!(eventually(Duration::from_secs(30), stand).await, "{days} days: {:#?}", agent.stages.alarms.list());
        for (name, left) in [(own, f64::from(days)), (trusted, f64::from(days) - 15.0)] {
            // Once a minute the agent looks with the date of today.
            let shown = async || {
                agent.stages.certificates.look(then);
                let (_, page) = http(agent.http, "GET", "/metrics", "").await.unwrap();
                let is_it = |l: &&str| l.starts_with("lightsout_certificate_days_left{") && l.contains(name);
                let shown = page.lines().find(is_it).and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
                shown.is_some_and(|shown| (shown - left).abs() < 0.1)
            };
            assert!(eventually(Duration::from_secs(10), shown).await, "{name}: no figure of {left} days");
        }
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pair_of_the_gateway_s_own_keeps_nobody_from_control_and_is_told_with_both_thumbprints() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "127.0.0.1:0", "[http]\ntls = { self_signed = true }\n");
    start(&file).await.stop().await;
    let (pem, key) = (dir.path().join("state/tls/gateway.pem"), dir.path().join("state/tls/gateway.key"));
    let check = async || edge(vec!["check".into(), file.display().to_string()]).await.1;
    let print = |text: &str| text.lines().find_map(|l| l.trim().strip_prefix("SHA-256 ")).map(String::from);
    let old = print(&check().await).unwrap();
    let mut bytes = std::fs::read(&key).unwrap();
    bytes[100] ^= 4;
    std::fs::write(&key, bytes).unwrap();
    let text = check().await;
    assert!(text.contains("a key from") && text.contains("gateway.key") && text.contains("sets it aside"), "{text}");

    let agent = start(&file).await;
    let new = print(&check().await).unwrap();
    let said = told(&agent, "state-damaged").await;
    assert!(old != new && said.contains(&old) && said.contains(&new), "{said}");
    assert!(https(agent.http, &pem, get("/healthz")).await.unwrap().starts_with("HTTP/1.1 200"));
    agent.stop().await;

    // A key that is gone is no first start.
    std::fs::remove_file(&key).unwrap();
    let agent = start(&file).await;
    assert!(told(&agent, "state-damaged").await.contains(&new), "the one that was in force is named");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_read_closes_the_page_and_not_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new("Plant CA").signs("gw", &["localhost"]).write(dir.path(), "gw");
    let given = "[http]\ntls = { certificate = \"gw.pem\", key = \"gw.key\" }\n";
    let file = config(dir.path(), "0.0.0.0:0", given);
    edge_agent::config::load(&file).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(dir.path().join("gw.key"), "").unwrap();
    let (code, text) = edge(vec!["check".into(), file.display().to_string()]).await;
    assert!(code == Some(2) && text.contains("gw.key"), "{text}");
    let agent = start(&file).await;
    assert!(agent.http.ip().is_loopback(), "{}", agent.http);
    assert_eq!(http(agent.http, "GET", "/healthz", "").await.unwrap().0, 200);
    assert!(told(&agent, "page-closed").await.contains("gw.key"));
    agent.stop().await;
}
