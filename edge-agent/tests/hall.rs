//! A floor of its own file over real sockets: an aisle, a cell, a dock and mobile robots, driven through the same doors as anything else.

mod support;

use edge_agent::Agent;
use edge_agent::config::{DriverPlan, Plan};
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use support::{eventually, http};

const HALL: &str = include_str!("floors/hall.toml");
const AGENT: &str = r#"
[gateway]
name   = "gateway-1"
area   = "hall-1"
line   = "line-1"
listen = "127.0.0.1:0"

[http]
loopback = "operator"

[control]
realtime      = "off"
command_valid = "6s"   # in the plant's time, which runs faster here

[floor]
file = "hall.toml"

[[line]]
name   = "hall"
modbus = "127.0.0.1:5020"

[[line.device]]
name    = "a1-plc"
cell    = "a1"
unit    = 1
profile = "aisle.toml"
machine = "a1.shuttle-1"

[[line.device]]
name    = "hall-plc"
cell    = "hall"
unit    = 90
profile = "belts.toml"

[[line.device]]
name    = "robots"
cell    = "hall"
unit    = 100
profile = "robots.toml"

[[line]]
name     = "cells"
opcua    = "opc.tcp://127.0.0.1:4855/"
security = "none"

[[line.device]]
name    = "cell-plc"
cell    = "weld"
profile = "cell.toml"
"#;
const FILES: [(&str, &str); 5] = [
    ("hall.toml", HALL),
    (
        "aisle.toml",
        "[[machine]]\ncount = 3\nstatus = \"input:0\"\ncommand = \"holding:0\"\n[sensors]\nfirst = \"input:1000\"\n",
    ),
    ("belts.toml", "[sensors]\nfirst = \"input:1000\"\nfrom = \"cell-1.in\"\ncount = 4\n"),
    (
        "robots.toml",
        "[[machine]]\nname = \"robot-1\"\ncount = 3\nstatus = \"input:0\"\ncommand = \"holding:0\"\n\
         [[tag]]\nname = \"robot-1.charge\"\naddress = \"input:20\"\ntype = \"u16\"\nfactor = 0.001\n",
    ),
    (
        "cell.toml",
        "[[machine]]\nname = \"cell-1\"\nstatus = \"nsu=urn:lightsout:plc-sim:cell;s=Cell-1.StatusBlock\"\n\
         command = \"nsu=urn:lightsout:plc-sim:cell;s=Cell-1.CommandBlock\"\n",
    ),
];

async fn get(at: SocketAddr, path: &str) -> Value {
    let (status, answer) = http(at, "GET", path, "").await.unwrap();
    assert_eq!(status, 200, "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// The value of a figure with these labels.
async fn metric(at: SocketAddr, name: &str) -> Option<f64> {
    let (_, page) = http(at, "GET", "/metrics", "").await.unwrap();
    page.lines().find(|l| l.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

/// A plant on the floor `hall.toml`, and the plan of a gateway beside it.
async fn plant_and_plan(dir: &Path, floor: &str, agent: &str, loads: u16) -> (Sim, Plan) {
    let plant = format!("floor = \"hall.toml\"\nloads = {loads}\n");
    let mut plant = PlantConfig::read(&plant, |_| Ok(floor.into())).unwrap();
    plant.listen.modbus.set_port(0);
    plant.listen.opcua.set_port(0);
    plant.speed = 3.0;
    plant.watchdog_s = 2.0; // a busy machine is no fault of the plant
    let keep = Keep { pki_dir: Some(dir.join("pki")), ..Keep::default() };
    let sim = Sim::start(plant, 5, 1, keep).await.unwrap();

    std::fs::write(dir.join("agent.toml"), agent).unwrap();
    let mut plan = edge_agent::config::load(&dir.join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan.listen.set_port(0);
    for line in &mut plan.lines {
        match &mut line.driver {
            DriverPlan::Modbus(spec) => {
                spec.endpoint = device_drivers::modbus::Endpoint::Tcp(sim.addresses.modbus.to_string());
            }
            DriverPlan::OpcUa(spec) => spec.endpoint = format!("opc.tcp://{}/", sim.addresses.opcua),
        }
    }
    (sim, plan)
}

/// The hall with its plant, and an agent that is ready; its files lie in the folder.
async fn running() -> (Sim, Agent, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (sim, plan) = plant_and_plan(dir.path(), HALL, AGENT, 12).await;
    let agent = Agent::start(plan).await.unwrap();
    assert!(eventually(Duration::from_secs(30), async || agent.ready()).await, "ready in time");
    (sim, agent, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn robots_carry_loads_from_the_rack_to_the_cell_and_to_the_dock_and_the_page_sees_them_drive() {
    let (sim, agent, _dir) = running().await;
    let at = agent.http;

    let scene = get(at, "/api/v1/floor").await;
    let names: Vec<&str> = scene["vehicles"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a1.shuttle-1", "a1.shuttle-2", "a1.lift", "cell-1", "robot-1", "robot-2", "robot-3"]);
    let kinds = |kind: &str| scene["places"].as_array().unwrap().iter().filter(|p| p["kind"] == kind).count();
    assert_eq!((kinds("bay"), kinds("park"), kinds("charge"), kinds("port")), (40, 4, 1, 2));
    assert!(scene["roads"].as_array().unwrap().len() > 30);

    let give = async |order: Value| {
        let (status, answer) = http(at, "POST", "/api/v1/orders", &order.to_string()).await.unwrap();
        assert_eq!(status, 201, "{order}: {answer}");
    };
    let stops = json!([{ "at": "weld", "program": 2 }, { "at": "outside" }]);
    give(json!({ "kind": "process", "load": 1001, "station": "weld" })).await;
    give(json!({ "kind": "route", "load": 1002, "stops": stops, "tenant": "north" })).await;
    give(json!({ "kind": "retrieve", "load": 1003 })).await;

    // While they drive, somebody has a path, an order and a battery.
    let driving = async || {
        let now = get(at, "/api/v1/floor/now").await;
        now["v"].as_array().unwrap().iter().skip(4).any(|v| v[8].as_array().is_some_and(|path| path.len() > 1))
    };
    assert!(eventually(Duration::from_secs(60), driving).await, "a robot drives");
    let now = get(at, "/api/v1/floor/now").await;
    assert!(now["v"].as_array().unwrap().iter().skip(4).all(|v| (90..=100).contains(&v[6].as_i64().unwrap())), "{now}");
    assert_eq!(metric(at, "lightsout_gates ").await, Some(1.0));
    assert!(metric(at, "lightsout_robot_battery_ratio{machine=\"robot-2\"}").await.unwrap() > 0.9);
    assert!(metric(at, "lightsout_control_table_bytes").await.unwrap() > 10_000.0);

    let all_done = async || metric(at, "lightsout_orders_completed_total").await == Some(3.0);
    let done = eventually(Duration::from_secs(180), all_done).await;
    assert!(done, "{:#}", get(at, "/api/v1/orders").await);
    let (_, story) = http(at, "GET", "/api/v1/orders/2", "").await.unwrap();
    assert!(story.contains("robot-") && story.contains("pick up at a1.out-exit"), "{story}");
    let alarms = get(at, "/api/v1/alarms").await;
    let robots_are_well =
        alarms.as_array().unwrap().iter().all(|a| a["alarm"] != "robot-jammed" && a["alarm"] != "domain-degraded");
    assert!(robots_are_well, "{alarms:#}");

    // A place and a tier are closed and opened while the floor runs.
    let say =
        async |method: &str, what: &str| http(at, method, &format!("/api/v1/floor/{what}/closed"), "").await.unwrap().0;
    let done = async |method: &str, what: &str| {
        eventually(Duration::from_secs(5), async || say(method, what).await == 202).await
    };
    for unknown in
        ["places/nowhere", "zones/nowhere", "zones/robot-1.deck", "roads/A", "roads/A..nowhere", "roads/A..F"]
    {
        assert_eq!(say("PUT", unknown).await, 404, "{unknown}");
    }
    for (method, what, places, roads, zones) in [
        ("PUT", "places/A", json!(["A"]), json!([]), json!([])),
        ("PUT", "zones/a1.tier-1", json!(["A"]), json!([]), json!(["a1.tier-1"])),
        ("PUT", "roads/B..A", json!(["A"]), json!(["A..B"]), json!(["a1.tier-1"])),
        ("DELETE", "places/A", json!([]), json!(["A..B"]), json!(["a1.tier-1"])),
        ("DELETE", "roads/A..B", json!([]), json!([]), json!(["a1.tier-1"])),
        ("DELETE", "zones/a1.tier-1", json!([]), json!([]), json!([])),
    ] {
        assert!(done(method, what).await, "{method} {what}: the control thread takes one change over after the other");
        assert_eq!(get(at, "/api/v1/floor/closed").await, json!({ "places": places, "roads": roads, "zones": zones }));
    }
    agent.stop().await;
    let truth = sim.truth();
    assert!(truth.is_clean() && truth.loads_left == 2, "{truth:?}");
}

const RACK: &str = r#"
[[aisle]]
name     = "r"
tiers    = 3
bays     = 4
shuttles = 1

[[belt]]
name = "out"
from = "r.lift"
to   = "outside"
"#;
const RACK_FILES: [(&str, &str); 2] = [
    ("hall.toml", RACK),
    (
        "rack.toml",
        "[[machine]]\ncount = 2\nstatus = \"input:0\"\ncommand = \"holding:0\"\n[sensors]\nfirst = \"input:1000\"\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_shuttle_that_changes_tier_fetches_from_each_and_the_page_sees_it_there() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in RACK_FILES {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let head = AGENT.split("[[line]]").next().unwrap();
    let device = "name = \"rack-plc\"\ncell = \"rack\"\nunit = 1\nprofile = \"rack.toml\"\nmachine = \"r.shuttle-1\"\n";
    let agent = format!("{head}[[line]]\nname = \"rack\"\nmodbus = \"127.0.0.1:5020\"\n[[line.device]]\n{device}");
    let (sim, plan) = plant_and_plan(dir.path(), RACK, &agent, 24).await;
    let agent = Agent::start(plan).await.unwrap();
    let at = agent.http;
    assert!(eventually(Duration::from_secs(30), async || agent.ready()).await, "ready in time");

    // The rack is full: a load of each tier is among these.
    let scene = get(at, "/api/v1/floor").await;
    let names: Vec<&str> = scene["places"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    let loads = get(at, "/api/v1/floor/now").await["loads"].clone();
    let on = |tier: &str| {
        let is_on = |l: &&Value| names[l[0].as_u64().unwrap() as usize].starts_with(&format!("r.bay-{tier}-"));
        loads.as_array().unwrap().iter().find(is_on).and_then(|l| l[1].as_u64()).unwrap()
    };
    for tier in ["3", "1", "2"] {
        let order = json!({ "kind": "retrieve", "load": on(tier) }).to_string();
        assert_eq!(http(at, "POST", "/api/v1/orders", &order).await.unwrap().0, 201);
    }
    let mut seen = std::collections::BTreeSet::new();
    let done = eventually(Duration::from_secs(180), async || {
        seen.insert(get(at, "/api/v1/floor/now").await["v"][0][2].as_u64());
        metric(at, "lightsout_orders_completed_total").await == Some(3.0)
    });
    assert!(done.await, "{:#}", get(at, "/api/v1/orders").await);
    assert_eq!(seen, [Some(0), Some(1), Some(2)].into(), "the tiers it was seen on");
    let shuttle = get(at, "/api/v1/floor/vehicles/0").await;
    let said = shuttle["commands"].to_string();
    assert!(said.contains("drive onto r.lift.deck"), "{said}");
    agent.stop().await;
    let truth = sim.truth();
    assert!(truth.is_clean() && truth.loads_left >= 2, "{truth:?}");
}

/// The stop of the belt by which loads come out is closed: no robot may drive there, and that is told until it is open again.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_to_which_no_robot_can_come_is_named_by_an_alarm_until_the_way_is_open() {
    let (sim, agent, _dir) = running().await;
    let at = agent.http;
    let stop = "/api/v1/floor/places/A/closed";
    let (code, said) = http(at, "PUT", stop, "").await.unwrap();
    assert_eq!(code, 202, "{said}");
    let order = json!({ "kind": "retrieve", "load": 1001 }).to_string();
    assert_eq!(http(at, "POST", "/api/v1/orders", &order).await.unwrap().0, 201);
    let raised = async || {
        let alarms = get(at, "/api/v1/alarms").await;
        let all = alarms.as_array().unwrap().clone();
        all.into_iter().find(|a| a["alarm"] == "nobody-comes" && a["active"] == true)
    };
    assert!(eventually(Duration::from_secs(120), async || raised().await.is_some()).await, "no alarm");
    let alarm = raised().await.unwrap();
    assert!(alarm["subject"].as_str().unwrap().starts_with("a1.out"), "{alarm}");
    assert_eq!(http(at, "DELETE", stop, "").await.unwrap().0, 202);
    assert!(eventually(Duration::from_secs(60), async || raised().await.is_none()).await, "it stays raised");
    let done = async || get(at, "/api/v1/orders").await[0]["state"] == "completed";
    assert!(eventually(Duration::from_secs(120), done).await, "{}", get(at, "/api/v1/orders").await);
    agent.stop().await;
    assert!(sim.truth().is_clean(), "{:?}", sim.truth());
}

/// Where a robot stands is asked of the plant; what it says is in the alarm, with its name, until a person has looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_robot_that_has_lost_its_way_is_named_by_an_alarm_until_a_person_says_that_it_is_where_it_says() {
    let (sim, agent, _dir) = running().await;
    let at = agent.http;

    let (robot, home) = {
        let mut plant = sim.plant.lock();
        let robot = plant.plan().machine("robot-2").unwrap();
        let home = plant.machine(robot).and_then(|m| m.robot()).unwrap().at();
        plant.lose_its_way(robot, Some(60_000));
        (robot, home)
    };
    let raised = async || {
        let alarms = get(at, "/api/v1/alarms").await;
        let all = alarms.as_array().unwrap().clone();
        all.into_iter().find(|a| a["alarm"] == "robot-astray" && a["active"] == true)
    };
    assert!(eventually(Duration::from_secs(30), async || raised().await.is_some()).await, "no alarm");
    let alarm = raised().await.unwrap();
    assert_eq!(alarm["subject"], "robot-2");
    let detail = alarm["detail"].as_str().unwrap();
    assert!(detail.contains("place-60000") && detail.contains("it counts as at"), "{detail}");
    assert_eq!(metric(at, "lightsout_alarm{alarm=\"robot-astray\",subject=\"robot-2\"}").await, Some(1.0));
    assert_eq!(metric(at, "lightsout_robots{state=\"astray\"}").await, Some(1.0));

    // A person's word does not make a place of what is none.
    let index = {
        let scene = get(at, "/api/v1/floor").await;
        scene["vehicles"].as_array().unwrap().iter().position(|v| v["name"] == "robot-2").unwrap()
    };
    assert_eq!(get(at, "/api/v1/floor/vehicles/robot-2").await["name"], "robot-2");
    let located = format!("/api/v1/floor/vehicles/{index}/located");
    let (code, said) = http(at, "POST", &located, "").await.unwrap();
    assert!(code == 202 && said.contains("{\"vehicle\":\"robot-2\"}"), "{code} {said}");
    let located = "/api/v1/floor/vehicles/robot-2/located".to_string();
    assert_eq!(http(at, "POST", &located, "").await.unwrap().0, 202);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(raised().await.is_some());
    assert_eq!(http(at, "POST", "/api/v1/floor/vehicles/0/located", "").await.unwrap().0, 404, "a shuttle");

    sim.plant.lock().lose_its_way(robot, Some(home));
    assert_eq!(http(at, "POST", &located, "").await.unwrap().0, 202);
    assert!(eventually(Duration::from_secs(30), async || raised().await.is_none()).await, "it stays raised");
    agent.stop().await;
}
