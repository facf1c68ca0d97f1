//! A real browser, driven through chromedriver: what tests of the page ask of it.

use super::support::{self, eventually};
use fantoccini::actions::{InputSource, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How long the browser may take for anything: this machine may have much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One browser at a time: two of them on a small machine wait for each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser with its driver; both end with it.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

/// A chromedriver on a port that it has chosen itself, and whatever it has started.
struct Driver {
    process: Child,
    at: SocketAddr,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

impl Driver {
    /// Up, and ready by its own word.
    async fn start(program: &Path) -> Result<Driver, String> {
        let mut command = Command::new(program);
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut process = command.spawn().map_err(|e| format!("chromedriver: {e}"))?;
        let said = process.stdout.take().expect("its words are piped");
        let mut driver = Driver { process, at: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let (port_tx, port) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut port_tx = Some(port_tx);
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let port = line.rsplit_once("on port ").and_then(|(_, n)| n.trim_end_matches('.').parse::<u16>().ok());
                if let (Some(port @ 1..), Some(tx)) = (port, port_tx.take_if(|_| line.contains("successfully"))) {
                    let _ = tx.send(port);
                }
            }
        });
        let port = tokio::time::timeout(PATIENCE, port).await.map_err(|_| "chromedriver names no port")?;
        driver.at.set_port(port.map_err(|_| "chromedriver has ended")?);
        let ready = async || {
            let answer = support::http(driver.at, "GET", "/status", "").await;
            let status: Value = answer.ok().and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default();
            status["value"]["ready"] == true
        };
        if eventually(PATIENCE, ready).await { Ok(driver) } else { Err("chromedriver is never ready".into()) }
    }

    async fn session(&self) -> Result<Client, String> {
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--window-size=1366,900",
        ];
        let mut wanted = serde_json::Map::new();
        wanted.insert("goog:chromeOptions".into(), json!({ "args": args }));
        wanted.insert("goog:loggingPrefs".into(), json!({ "browser": "ALL" }));
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let url = format!("http://{}", self.at);
        let session = tokio::time::timeout(PATIENCE, builder.capabilities(wanted).connect(&url));
        session.await.map_err(|_| "no session in time".to_string())?.map_err(|e| e.to_string())
    }
}

impl Browser {
    /// `None` where there is no Chromium. A start that fails is tried again: that is the machine, not the page.
    pub(crate) async fn start(test: &str) -> Option<Browser> {
        let program = support::installed("chromedriver", test)?;
        support::installed("chromium", test)?;
        let turn = TURN.lock().await;
        let mut why = String::new();
        for _ in 0..10 {
            let started = async {
                let driver = Driver::start(&program).await?;
                Ok::<_, String>((driver.session().await?, driver))
            };
            match started.await {
                Ok((client, driver)) => return Some(Browser { client, driver, _turn: turn }),
                Err(e) => why = e,
            }
            eprintln!("a browser did not start: {why}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        panic!("no browser starts: {why}");
    }

    pub(crate) async fn open(&self, page: SocketAddr, tab: &str) {
        self.client.goto(&format!("http://{page}/#{tab}")).await.unwrap();
    }

    pub(crate) async fn js(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Waits until a script says true.
    pub(crate) async fn until(&self, what: &str, script: &str) {
        assert!(eventually(PATIENCE, async || self.js(script).await == true).await, "never: {what}");
    }

    /// The element, once it is there.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|e| panic!("{css}: {e}"))
    }

    /// A click once it can be clicked: it may be on its way, or painted anew just now.
    pub(crate) async fn click(&self, css: &str) {
        let clicked = eventually(PATIENCE, async || self.find(css).await.click().await.is_ok()).await;
        assert!(clicked, "never to be clicked: {css}");
    }

    /// A click of the mouse at a point of the window.
    pub(crate) async fn click_at(&self, (x, y): (f64, f64)) {
        let to = PointerAction::MoveTo { duration: None, x, y };
        let button = fantoccini::actions::MOUSE_BUTTON_LEFT;
        let mouse = MouseActions::new("mouse".into()).then(to);
        let mouse = mouse.then(PointerAction::Down { button }).then(PointerAction::Up { button });
        self.client.perform_actions(mouse).await.unwrap();
    }

    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let filled = eventually(PATIENCE, async || self.find(css).await.send_keys(text).await.is_ok()).await;
        assert!(filled, "never to be filled: {css}");
    }

    pub(crate) async fn tab(&self, name: &str) {
        self.click(&format!("#tab-{name}")).await;
        self.until(name, &format!("return !document.getElementById('{name}').hidden")).await;
    }

    /// What the browser has complained of since this was last asked.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let session = self.client.session_id().await.unwrap().unwrap();
        let path = format!("/session/{session}/se/log");
        let (_, text) = support::http(self.driver.at, "POST", &path, "{\"type\":\"browser\"}").await.unwrap();
        let log: Value = serde_json::from_str(&text).unwrap_or_default();
        let lines = log["value"].as_array().into_iter().flatten();
        lines.filter(|l| l["level"] != "INFO" && l["level"] != "DEBUG").map(|l| l["message"].to_string()).collect()
    }

    /// A picture at this size, in this theme.
    pub(crate) async fn picture(&self, name: &str, (width, height): (u32, u32), theme: &str) {
        self.client.set_window_size(width, height).await.unwrap();
        self.js(&format!(
            "if (document.documentElement.dataset.theme !== '{theme}') document.getElementById('theme').click()"
        ))
        .await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        let png = self.client.screenshot().await.unwrap();
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/page");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}-{width}x{height}-{theme}.png")), png).unwrap();
    }

    pub(crate) async fn sign_in(&self, name: &str, password: &str) {
        self.click("#who").await;
        self.fill("dialog input[name=name]", name).await;
        self.fill("dialog input[name=password]", password).await;
        self.click("dialog button[type=submit]").await;
        self.until("signed in", &format!("return document.getElementById('who').textContent.startsWith('{name}')"))
            .await;
    }

    pub(crate) async fn end(self) {
        let _ = tokio::time::timeout(PATIENCE, self.client.clone().close()).await;
    }
}
