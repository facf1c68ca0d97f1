//! The page in a real browser: the floor appears and moves, an order is given and seen to end, one is raised and withdrawn, a tier, a belt
//! and a place are closed and opened, a server is trusted, a wrong role is refused, a killed agent is shown as lost and found again, a thousand vehicles glide, and whoever cannot see,
//! point or tell colours can use it too.
//!
//! Pictures of every view are left in `target/page/` to be looked at.

#[path = "support/browser.rs"]
mod browser;
mod support;

use browser::{Browser, PATIENCE};
use control_core::image::Mode;
use edge_agent::Agent;
use edge_agent::access::Role;
use edge_agent::board::Step;
use edge_agent::scene::{
    AreaKind, AreaView, Moment, PlaceKind, PlaceView, RoadView, STATES, Scene, Source, State, TierView, VehicleDetail,
    VehicleKind, VehicleNow, VehicleView,
};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use support::eventually;

/// What axe would find first: controls without a name, pictures without a text, text that is too faint, things the keyboard cannot reach.
const AUDIT: &str = r#"
const bad = [];
const shown = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getBoundingClientRect().width > 0;
const name = (e) => (e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent || e.title || "").trim();
for (const e of document.querySelectorAll("button, a[href], input, select, [role=tab], [tabindex='0']")) {
  if (!shown(e)) continue;
  if (!name(e)) bad.push(`no name: ${e.outerHTML.slice(0, 90)}`);
  const r = e.getBoundingClientRect();
  if (e.matches("button") && r.height < 24) bad.push(`too small to touch: ${name(e)}`);
}
for (const e of document.querySelectorAll("[role=img], img, svg:not([aria-hidden])")) if (shown(e) && !e.getAttribute("aria-label")) bad.push(`picture without a text: ${e.outerHTML.slice(0, 90)}`);
for (const e of document.querySelectorAll("[aria-labelledby], [aria-controls]")) for (const a of ["aria-labelledby", "aria-controls"]) { const id = e.getAttribute(a); if (id && e.id !== "dialog" && !document.getElementById(id)) bad.push(`${a} names nothing: ${id}`); }
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id); for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) bad.push(`id twice: ${id}`);
if (!document.documentElement.lang || !document.title || !document.querySelector("main")) bad.push("no language, title or main");
const rgb = (t) => { const c = document.createElement("canvas"); c.width = c.height = 1; const x = c.getContext("2d", { willReadFrequently: true }); x.fillStyle = t; x.fillRect(0, 0, 1, 1); const d = x.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = (c) => { const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
const ground = (e) => { const all = []; for (; e; e = e.parentElement) all.push(rgb(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]); };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || !e || !shown(e) || e.closest("script, style, noscript, :disabled, .toast, svg") || e.tagName === "OPTION") continue;
  const css = getComputedStyle(e), back = ground(e), front = over(rgb(css.color), back);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05), size = parseFloat(css.fontSize);
  const need = size >= 24 || (size >= 18.66 && css.fontWeight >= 600) ? 3 : 4.5;
  if (ratio < need) bad.push(`contrast ${ratio.toFixed(2)} of "${walk.currentNode.textContent.trim().slice(0, 30)}"`);
}
return [...new Set(bad)];
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_floor_gives_an_order_and_sees_it_end_and_a_wrong_role_is_refused() {
    let Some(browser) = Browser::start("an_operator_sees_the_floor").await else { return };
    let sim = support::start_plant(12).await;
    let mut plan = support::demo_plan(sim.addresses, support::free_port());
    plan.access.loopback = Some(Role::Viewer);
    let agent = Agent::start(plan).await.unwrap();
    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
    agent.access().add_user("vic", Role::Viewer, "correct horse".into()).await.unwrap();
    assert!(eventually(PATIENCE, async || agent.ready()).await);

    browser.open(agent.http, "floor").await;
    browser.until("six machines on the map", "return window.lightsoutFloor?.count() === 6").await;
    browser.until("the list has them", "return document.querySelectorAll('.vehicles tbody button').length === 6").await;
    browser.until("it is running", "return document.getElementById('run-state').textContent === 'Running'").await;
    // Read from a copy: a canvas that is read twice makes the browser complain.
    let painted = "const c = document.querySelector('.map canvas'), o = new OffscreenCanvas(c.width, c.height); \
                   const x = o.getContext('2d', { willReadFrequently: true }); x.drawImage(c, 0, 0); \
                   const d = x.getImageData(0, 0, c.width, c.height).data; \
                   let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n > 20000";
    browser.until("the map is painted", painted).await;

    // A viewer looks, and that is all.
    browser.tab("orders").await;
    browser.until("no orders from a viewer", "return document.querySelector('#orders .primary').disabled").await;
    browser.sign_in("vic", "correct horse").await;
    browser.until("nor from vic", "return document.querySelector('#orders .primary').disabled").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let refused = "const r = await fetch('/api/v1/orders', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{\"kind\":\"retrieve\",\"load\":1001}' }); \
                   return `${r.status} ${(await r.json()).type}`";
    assert_eq!(browser.js(refused).await, "403 urn:lightsout:problem:not-allowed");
    browser.complaints().await; // the browser itself notes the 403

    // An operator gives an order and sees it end.
    browser.click("#who").await;
    browser.click("dialog .primary").await;
    browser.until("signed out", "return document.getElementById('who').textContent.startsWith('Sign in')").await;
    browser.sign_in("ada", "correct horse").await;
    browser.click("#orders .primary").await;
    browser.fill("dialog input[name=load]", "1001").await;
    browser.click("dialog button[type=submit]").await;
    browser
        .until("its story is told", "return document.querySelector('#orders .story')?.textContent.includes('taken')")
        .await;
    browser.tab("floor").await;
    let first = browser.js("return window.lightsoutFloor.positions()").await;
    let moved = async || browser.js("return window.lightsoutFloor.positions()").await != first;
    assert!(eventually(PATIENCE, moved).await, "vehicles move");
    browser.tab("orders").await;
    let done = "return document.querySelector('#orders .story')?.textContent.includes('done')";
    browser.until("the order is seen to end", done).await;

    // Every view, at a desk and on a tablet, light and dark, can be read and used by everybody.
    for tab in ["floor", "orders", "field", "beat", "alarms"] {
        browser.tab(tab).await;
        for (theme, size) in
            [("light", (1366, 1000)), ("dark", (1366, 1000)), ("light", (1024, 900)), ("dark", (800, 1100))]
        {
            browser.picture(tab, size, theme).await;
            let wide = "return document.documentElement.scrollWidth <= innerWidth";
            browser.until(&format!("{tab} is not wider than {size:?}"), wide).await;
            // What is still fading in when the machine is busy is looked at again.
            let mut found = browser.js(AUDIT).await;
            for _ in 0..20 {
                if found == json!([]) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                found = browser.js(AUDIT).await;
            }
            assert_eq!(found, json!([]), "{tab}, {theme}, {size:?}");
        }
    }
    // The keyboard alone gets from view to view.
    browser.js("document.getElementById('tab-alarms').focus()").await;
    browser.client.active_element().await.unwrap().send_keys("\u{e014}").await.unwrap();
    browser
        .until(
            "arrow keys change the view",
            "return document.activeElement.id === 'tab-floor' && !document.getElementById('floor').hidden",
        )
        .await;
    // The plant is gone: a click on a machine says what is the matter with it, and what to do.
    assert!(sim.truth().is_clean());
    drop(sim);
    browser.tab("floor").await;
    let lost = "return [...document.querySelectorAll('.vehicles tbody tr')].some((r) => r.textContent.includes('shuttle-1') && r.textContent.includes('Not seen'))";
    browser.until("the machine is not seen", lost).await;
    browser.click(".vehicles [data-n='0']").await;
    let told = "return document.querySelector('#detail .alarm')?.textContent.includes('status cannot be seen')";
    browser.until("its alarm is beside it", told).await;
    // What cannot be seen is not nothing.
    let unseen = "return [...document.querySelectorAll('.kpi')].some((k) => k.textContent.startsWith('—') && k.textContent.includes('are not'))";
    browser.until("no load is seen, and that is said", unseen).await;
    browser.picture("lost", (1366, 1000), "light").await;
    browser.picture("lost", (800, 1100), "dark").await;
    an_order_that_waits_is_raised_and_withdrawn(&browser, agent.http).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
    agent.stop().await;
}

/// An order of which nothing comes while the plant is gone: by the buttons of its row it gets another class, and is withdrawn.
async fn an_order_that_waits_is_raised_and_withdrawn(browser: &Browser, agent: SocketAddr) {
    browser.tab("orders").await;
    let api = async |path: &str| {
        let (_, text) = support::http(agent, "GET", path, "").await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_default()
    };
    browser.click("#orders .primary").await;
    browser.fill("dialog input[name=load]", "1005").await;
    browser.click("dialog button[type=submit]").await;
    let mut id = 0;
    let found = async || {
        let orders = api("/api/v1/orders").await;
        id = orders.as_array().and_then(|all| all.iter().find(|o| o["load"] == 1005)?["id"].as_u64()).unwrap_or(0);
        id > 0
    };
    assert!(eventually(PATIENCE, found).await, "it is taken");
    // The row may be painted anew between two looks at it.
    let class = format!("#orders select[aria-label='Class of order {id}']");
    let raised = async || {
        let chosen = browser.find(&class).await.select_by_value("0").await.is_ok();
        chosen && api(&format!("/api/v1/orders/{id}")).await["class"] == 0
    };
    assert!(eventually(PATIENCE, raised).await, "it has class 0");
    // The selector has the keyboard, and while it has, rows are left alone: somebody may be choosing.
    browser.js("document.activeElement.blur()").await;
    browser.click(&format!("#orders button[aria-label='Withdraw order {id}']")).await;
    browser.click("dialog button[type=submit]").await;
    let withdrawn = async || api(&format!("/api/v1/orders/{id}")).await["reason"] == "withdrawn";
    assert!(eventually(PATIENCE, withdrawn).await, "it is withdrawn");
    let gone = format!("return !document.querySelector(\"{class}\")");
    browser.until("it is not among those that go on", &gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_a_belt_and_a_place_are_closed_on_the_map_and_opened_again() {
    let Some(browser) = Browser::start("a_tier_a_belt_and_a_place_are_closed").await else { return };
    let sim = support::start(support::hall_plant(), 9).await;
    let mut plan = support::hall_plan(sim.addresses, support::free_port());
    plan.access.loopback = Some(Role::Viewer);
    let agent = Agent::start(plan).await.unwrap();
    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
    assert!(eventually(PATIENCE, async || agent.ready()).await);
    let closed = async || {
        let (_, text) = support::http(agent.http, "GET", "/api/v1/floor/closed", "").await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_default()
    };
    let becomes = async |places: Value, zones: Value| {
        let wanted = json!({ "places": places, "roads": [], "zones": zones });
        assert!(eventually(PATIENCE, async || closed().await == wanted).await, "{wanted}: {}", closed().await);
    };
    let heading = |name: &str| format!("return document.querySelector('#detail h2')?.textContent === '{name}'");
    let button = |word: &str, name: &str| format!("#detail button[aria-label='{word} {name}']");

    browser.open(agent.http, "floor").await;
    browser.until("the list has all", "return document.querySelectorAll('.vehicles tbody button').length >= 7").await;
    // A click into a corner of the tier, away from the shuttle: who has not signed in sees how it is, and no more.
    let corner = async |name: &str| {
        let script = format!("return window.lightsoutFloor.where('{name}')");
        // The map moves when an alarm comes or goes above it: then the click went beside it.
        let chosen = async || {
            let [x, y, wide, high]: [f64; 4] = serde_json::from_value(browser.js(&script).await).unwrap();
            browser.click_at((x + 0.1 * wide, y + 0.12 * high)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            browser.js(&heading(name)).await == true
        };
        assert!(eventually(PATIENCE, chosen).await, "never chosen: {name}");
    };
    corner("a1.tier-2").await;
    let locked = format!("return document.querySelector(\"{}\").disabled", button("Close", "a1.tier-2"));
    browser.until("a viewer closes nothing", &locked).await;
    browser.sign_in("ada", "correct horse").await;
    browser.click(&button("Close", "a1.tier-2")).await;
    becomes(json!([]), json!(["a1.tier-2"])).await;
    browser.find(&button("Open", "a1.tier-2")).await;
    corner("a1.out").await;
    browser.click(&button("Close", "a1.out")).await;
    becomes(json!([]), json!(["a1.tier-2", "a1.out"])).await;

    // The keyboard alone finds a place, and closes it.
    browser.fill("#floor input[name=closable]", "a\u{e007}").await;
    browser.until("the place", &heading("A")).await;
    browser.js(&format!("document.querySelector(\"{}\").focus()", button("Close", "A"))).await;
    browser.client.active_element().await.unwrap().send_keys("\u{e007}").await.unwrap();
    becomes(json!(["A"]), json!(["a1.tier-2", "a1.out"])).await;
    let listed = "return [...document.querySelectorAll('#closed-list button')].map((b) => b.textContent).join() === 'a1.tier-2,a1.out,A'";
    browser.until("all three are listed", listed).await;
    for (theme, size) in
        [("light", (1366, 1000)), ("dark", (1366, 1000)), ("light", (800, 1100)), ("dark", (1024, 900))]
    {
        browser.picture("closed", size, theme).await;
        let good = async || browser.js(AUDIT).await == json!([]);
        assert!(eventually(PATIENCE, good).await, "{theme}, {size:?}: {}", browser.js(AUDIT).await);
    }

    // What somebody else opens is seen to be open; what is listed is a click away from being opened.
    let (status, _) = support::http(agent.http, "DELETE", "/api/v1/floor/zones/a1.out/closed", "").await.unwrap();
    assert_eq!(status, 401, "whoever has not signed in opens nothing");
    for name in ["a1.out", "A", "a1.tier-2"] {
        browser.click(&format!("#closed-list [data-closed='{name}']")).await;
        browser.click(&button("Open", name)).await;
        browser.find(&button("Close", name)).await;
    }
    becomes(json!([]), json!([])).await;
    let nothing = "return document.getElementById('closed-list').textContent === 'Nothing is closed.'";
    browser.until("nothing is closed", nothing).await;
    // A road is named by its ends, whichever comes first.
    browser.fill("#floor input[name=closable]", "b..a\u{e007}").await;
    browser.until("the road", &heading("A..B")).await;
    for (word, then) in [("Close", json!(["A..B"])), ("Open", json!([]))] {
        browser.click(&button(word, "A..B")).await;
        assert!(eventually(PATIENCE, async || closed().await["roads"] == then).await, "{then}: {}", closed().await);
    }
    // The control thread takes one change after the other; where it is slow the page asks again, and the browser notes that.
    let mut complaints = browser.complaints().await;
    complaints.retain(|c| !c.contains("503"));
    assert_eq!(complaints, Vec::<String>::new());
    browser.end().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engineer_trusts_an_opc_ua_server_on_the_page_and_its_line_comes_up() {
    let Some(browser) = Browser::start("an_engineer_trusts_an_opc_ua_server").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let pki_dir = Some(dir.path().join("server"));
    let config = OpcuaBankConfig { variables: 3, secure: true, trust_all: true, pki_dir, ..OpcuaBankConfig::default() };
    let bank = opcua_bank::serve(config).await.unwrap();
    let text = format!(
        "[gateway]\nname = \"gw-8\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\
         [[line]]\nname = \"press\"\nopcua = \"{}\"\nsecurity = \"Basic256Sha256/SignAndEncrypt\"\ncheck_host = false\n\
         [[line.device]]\nname = \"press-1\"\ncell = \"c\"\nprofile = \"press.toml\"\n",
        bank.url()
    );
    let tag = format!("[[tag]]\nname = \"force\"\nnode = \"nsu={};s=V.2\"\n", opcua_bank::NAMESPACE);
    std::fs::write(dir.path().join("press.toml"), tag).unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    let agent = Agent::start(edge_agent::config::load(&file).unwrap_or_else(|e| panic!("{e}"))).await.unwrap();
    agent.access().add_user("eve", Role::Engineer, "correct horse".into()).await.unwrap();

    browser.open(agent.http, "field").await;
    // It waits for trust, and whoever has not signed in may look and no more.
    let trust = "[...document.querySelectorAll('#field button')].find((b) => b.textContent === 'Trust')";
    browser.until("a server waits for trust", &format!("return {trust}?.disabled === true")).await;
    browser.picture("untrusted", (1366, 1000), "light").await;
    browser.sign_in("eve", "correct horse").await;
    browser.until("an engineer may", &format!("return {trust}?.disabled === false")).await;
    let asked = format!("{trust}?.click(); return document.getElementById('dialog').open");
    browser.until("it is asked again", &asked).await;
    let thumbprint = "return /Thumbprint [0-9a-f]{40}/.test(document.getElementById('dialog').textContent)";
    browser.until("the thumbprint is shown", thumbprint).await;
    browser.click("dialog button[type=submit]").await;
    let up = "return document.querySelector('#field .head .mark')?.textContent === 'up'";
    browser.until("the line comes up", up).await;
    let trusted = "return document.querySelector('#field .panel.scroll .mark')?.textContent === 'trusted'";
    browser.until("the server is trusted", trusted).await;
    // That this gateway has no floor is an answer, not an error; the browser notes it all the same.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|c| c.contains("/api/v1/floor - ") && c.contains("404")), "{complaints:?}");
    browser.end().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_shown_as_lost_and_found_again() {
    let Some(browser) = Browser::start("a_killed_agent_is_shown_as_lost").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
    let text =
        format!("[gateway]\nname = \"gw-7\"\narea = \"a\"\nline = \"l\"\nlisten = \"{at}\"\nstate_dir = \"state\"\n");
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        command.arg("run").arg(&file).stderr(Stdio::null()).spawn().unwrap()
    };
    let up = async || matches!(support::http(at, "GET", "/healthz", "").await, Ok((200, _)));
    let mut agent = run();
    assert!(eventually(PATIENCE, up).await);
    browser.open(at, "beat").await;
    browser.until("connected", "return document.getElementById('gateway').textContent === 'gw-7' && document.getElementById('run-state').textContent === 'Gathering'").await;
    agent.kill().unwrap(); // SIGKILL
    agent.wait().unwrap();
    browser.until("lost", "return !document.getElementById('lost').hidden").await;
    let mut agent = run();
    browser.until("found again", "return document.getElementById('lost').hidden").await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    browser.end().await;
}

/// A floor of a thousand robots that go round and round, at the hour the test sets.
#[derive(Default)]
struct Synthetic {
    now_ms: AtomicU64,
}

const ROBOTS: usize = 1000;

impl Synthetic {
    /// A robot runs round a block of its own, a metre and a half a second.
    fn at(robot: usize, seconds: f64) -> (f64, f64, i16) {
        let (column, row) = ((robot % 40) as f64 * 3.0, (robot / 40) as f64 * 3.0);
        let way = (seconds * 1.5 + robot as f64 * 0.37) % 8.0;
        match way {
            w if w < 2.0 => (column + w, row, 0),
            w if w < 4.0 => (column + 2.0, row + w - 2.0, 90),
            w if w < 6.0 => (column + 6.0 - w, row + 2.0, 180),
            w => (column, row + 8.0 - w, 270),
        }
    }
}

impl Source for Synthetic {
    fn scene(&self) -> Scene {
        let corner = |n: usize| {
            let (column, row) = ((n / 4 % 40) as f32 * 3.0, (n / 4 / 40) as f32 * 3.0);
            let (x, y) = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)][n % 4];
            PlaceView { name: format!("p{n}"), x_m: column + x, y_m: row + y, tier: 0, kind: PlaceKind::Road }
        };
        let road = |n: usize| RoadView { from: n as u32, to: (n - n % 4 + (n + 1) % 4) as u32, both: false };
        let hall = AreaView {
            name: "hall".into(),
            kind: AreaKind::Zone,
            x_m: -1.0,
            y_m: -1.0,
            width_m: 121.0,
            depth_m: 76.0,
            tier: 0,
            to_tier: 0,
            zones: Vec::new(),
        };
        let robot =
            |n| VehicleView { name: format!("robot-{n}"), kind: VehicleKind::Robot, length_m: 1.0, width_m: 0.7 };
        Scene {
            tiers: vec![TierView { name: "Ground".into(), elevation_m: 0.0 }],
            places: (0..ROBOTS * 4).map(corner).collect(),
            roads: (0..ROBOTS * 4).map(road).collect(),
            areas: vec![hall],
            vehicles: (0..ROBOTS).map(robot).collect(),
            states: STATES.to_vec(),
            bay_m: 0.0,
        }
    }

    fn moment(&self) -> Moment {
        let t = self.now_ms.load(Relaxed);
        let seconds = t as f64 / 1000.0;
        let now = |n: usize| {
            let (x, y, heading_deg) = Synthetic::at(n, seconds);
            let state = if n % 97 == 5 {
                State::Fault
            } else if n % 53 == 7 {
                State::Waiting
            } else {
                State::Busy
            };
            VehicleNow {
                x_mm: (x * 1000.0) as i32,
                y_mm: (y * 1000.0) as i32,
                tier: 0,
                heading_deg,
                state: state as u8,
                load: if n.is_multiple_of(3) { 7000 + n as u32 } else { 0 },
                battery: (n % 100) as i8,
                order: 0,
                path: (0..4).map(|k| (n * 4 + k) as u32).collect(),
            }
        };
        Moment { t, v: (0..ROBOTS).map(now).collect() }
    }

    fn loads(&self) -> Vec<(u32, u32)> {
        Vec::new()
    }

    fn vehicle(&self, index: usize) -> Option<VehicleDetail> {
        let commands = vec![Step { time: "2026-11-24T00:00:00.000Z".into(), what: "round again".into() }];
        Some(VehicleDetail {
            name: format!("robot-{index}"),
            state: State::Busy,
            why: None,
            load: None,
            order: None,
            doing: None,
            commands,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_vehicles_glide_between_the_frames_they_are_told_in() {
    let Some(browser) = Browser::start("a_thousand_vehicles").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "[gateway]\nname = \"hall\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:0\"\n")
        .unwrap();
    let plan = edge_agent::config::load(&file).unwrap();
    let source = Arc::new(Synthetic::default());
    let bytes = serde_json::to_vec(&source.moment()).unwrap().len();
    let agent = Agent::start_with(plan, Some(source.clone())).await.unwrap();
    browser.open(agent.http, "floor").await;
    let all = "return window.lightsoutFloor?.count() === 1000 && window.lightsoutFloor.stats.told === 0";
    browser.until("a thousand", all).await;
    // The page's clock stands from here on and is moved by hand: how fast this machine is says nothing about the page.
    browser.js("window.noon = performance.now(); performance.now = () => window.noon").await;
    let drawn = async || {
        let draws = browser.js("return window.lightsoutFloor.stats.draws").await;
        browser.until("a picture", &format!("return window.lightsoutFloor.stats.draws > {draws}")).await;
        // The hall begins a metre before 0 and is drawn from 0 on.
        let script = "return window.lightsoutFloor.positions().map(([x, y]) => [x, y - 1])";
        let all: Vec<(f64, f64)> = serde_json::from_value(browser.js(script).await).unwrap();
        assert_eq!(all.len(), ROBOTS);
        all
    };
    let told = |seconds: f64| (0..ROBOTS).map(move |n| Synthetic::at(n, seconds));
    let apart = |(a, b): (&(f64, f64), (f64, f64, i16))| (a.0 - b.0).hypot(a.1 - b.1);
    assert!(drawn().await.iter().zip(told(0.0)).map(apart).all(|d| d < 0.002), "all where the first frame says");
    source.now_ms.store(200, Relaxed);
    browser.until("the second frame", "return window.lightsoutFloor.stats.told === 200").await;
    // A quarter of a second to glide over: at four pictures on the way every robot is past where it was and short of where it goes.
    for step in 1..=4 {
        browser.js("window.noon += 50").await;
        let now = drawn().await;
        for (n, at) in now.iter().enumerate() {
            let (from, to) = (Synthetic::at(n, 0.0), Synthetic::at(n, 0.2));
            let share = f64::from(step) / 5.0;
            let between = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share, 0);
            assert!(apart((at, between)) < 0.003, "robot {n} at picture {step}: {at:?}, from {from:?} to {to:?}");
        }
    }
    browser.js("window.noon += 50").await;
    assert!(drawn().await.iter().zip(told(0.2)).map(apart).all(|d| d < 0.002), "and arrives");
    browser.js("delete performance.now").await;
    let watch = "Object.assign(window.lightsoutFloor.stats, { draws: 0, drawMs: 0, worstMs: 0 })";
    browser.js(watch).await;
    browser.until("pictures", "return window.lightsoutFloor.stats.draws >= 60").await;
    let stats = browser.js("return window.lightsoutFloor.stats").await;
    let n = |key: &str| stats[key].as_f64().unwrap();
    eprintln!(
        "1000 vehicles: a frame of {bytes} bytes, {:.2} ms a picture, worst {:.1} ms",
        n("drawMs") / n("draws"),
        n("worstMs")
    );
    assert!(bytes < 80_000, "a frame of a thousand stays small: {bytes}");
    browser.click(".vehicles tbody button").await;
    browser
        .until("one is chosen", "return document.querySelector('#detail h2')?.textContent.startsWith('robot-')")
        .await;
    browser.picture("thousand", (1366, 1000), "light").await;
    browser.picture("thousand", (1366, 1000), "dark").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_left_auto_are_listed_in_a_dialog_and_those_that_are_ticked_go_on() {
    let Some(browser) = Browser::start("machines_that_left_auto_are_listed").await else { return };
    let sim = support::start_plant(12).await;
    let mut plan = support::demo_plan(sim.addresses, support::free_port());
    plan.access.loopback = Some(Role::Operator);
    let agent = Agent::start(plan).await.unwrap();
    assert!(eventually(PATIENCE, async || agent.ready()).await);
    let turn = |name: &str, mode| {
        let mut plant = sim.plant.lock();
        let id = plant.plan().machine(name).unwrap();
        plant.set_mode(id, mode);
    };
    let is = async |name: &str, word: &str| {
        let row = format!(
            "return [...document.querySelectorAll('.vehicles tbody tr')].some((r) => r.textContent.includes('{name}') && r.textContent.includes('{word}'))"
        );
        browser.until(&format!("{name} is {word}"), &row).await;
    };
    browser.open(agent.http, "floor").await;
    let left = ["shuttle-1", "shuttle-2", "lift", "cell"];
    for name in left {
        turn(name, Mode::Manual);
        is(name, "Manual").await;
    }
    for name in left.iter().filter(|name| **name != "cell") {
        turn(name, Mode::Auto);
        is(name, "Needs acknowledge").await;
    }

    // The one that was looked at is ticked, and no other.
    browser.click(".vehicles [data-n='1']").await;
    browser.click("#detail button.primary").await;
    let ticked = "return [...document.querySelectorAll('dialog .ticks input:not([name=all])')].map((b) => `${b.value} ${b.checked}`)";
    browser.until("the dialog is open", "return document.getElementById('dialog').open").await;
    assert_eq!(browser.js(ticked).await, json!(["shuttle-1 false", "shuttle-2 true", "lift false"]));
    let others = "return document.querySelector('dialog').textContent.includes('Not back in AUTO yet: cell')";
    browser.until("who is not back is named", others).await;
    assert_eq!(browser.js(AUDIT).await, json!([]), "everybody can use the dialog");
    browser.picture("acknowledge", (1366, 1000), "light").await;
    browser.click("dialog button[type=submit]").await;
    is("shuttle-2", "Idle").await;
    is("shuttle-1", "Needs acknowledge").await;

    // One box ticks all that are listed.
    browser.click(".vehicles [data-n='0']").await;
    browser.click("#detail button.primary").await;
    browser.click("dialog .ticks input[name=all]").await;
    assert_eq!(browser.js(ticked).await, json!(["shuttle-1 true", "lift true"]));
    browser.click("dialog button[type=submit]").await;
    is("shuttle-1", "Idle").await;
    is("lift", "Idle").await;
    is("cell", "Manual").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
    agent.stop().await;
}
