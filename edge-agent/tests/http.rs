//! HTTP clients, good and hostile.

mod support;

use control_core::image::Mode;
use edge_agent::Agent;
use serde_json::{Value, json};
use std::time::Duration;
use support::{eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn lonely_agent() -> Agent {
    // No plant, no broker: HTTP answers all the same.
    let nowhere = plc_sim::SimAddresses {
        modbus: ([127, 0, 0, 1], support::free_port()).into(),
        opcua: ([127, 0, 0, 1], support::free_port()).into(),
    };
    Agent::start(support::demo_plan(nowhere, support::free_port())).await.expect("starts without anybody")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_gets_its_status_and_a_reason() {
    let agent = lonely_agent().await;
    let at = agent.http;
    let long = format!("{{\"kind\":\"store\",\"load\":1,\"key\":\"{}\"}}", "x".repeat(70_000));
    let rows = [
        ("POST", "/api/v1/orders", "", 400, "EOF while parsing"),
        (
            "POST",
            "/api/v1/orders",
            "{\"kind\":\"stor\",\"load\":1}",
            422,
            "expected one of `store`, `retrieve`, `process`",
        ),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"lod\":1}", 422, "unknown field `lod`"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":0}", 422, "the number on the load's label"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":-1}", 422, "expected u32"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"class\":9}", 422, "expected 0 (rush)"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"program\":2}", 422, "only an order of kind"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"key\":\"\"}", 422, "1 to 64 characters"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"due\":\"soon\"}", 422, "as 10m"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"due\":\"90days\"}", 422, "more than 49 days"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"number\":2}", 422, "with a `group`"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"after\":77}", 422, "there is no order 77"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"tenant\":\"\"}", 422, "1 to 64 characters"),
        ("POST", "/api/v1/orders", "{\"kind\":\"route\",\"load\":1}", 422, "of kind \"route\" has them"),
        ("POST", "/api/v1/orders", "{\"kind\":\"route\",\"load\":1,\"stops\":[]}", 422, "expected 1 to 4"),
        (
            "POST",
            "/api/v1/orders",
            "{\"kind\":\"route\",\"load\":1,\"stops\":[{\"at\":\"paint\"}]}",
            422,
            "there is no group of stations \"paint\"; the groups are: station",
        ),
        (
            "POST",
            "/api/v1/orders",
            "{\"kind\":\"route\",\"load\":1,\"stops\":[{\"at\":\"outside\"},{\"at\":\"rack\"}]}",
            422,
            "only as the last",
        ),
        ("POST", "/api/v1/orders", "[\"store\",1]", 422, "expected an object"),
        ("POST", "/api/v1/writes", "[\"a/b\",1]", 422, "expected an object"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1,\"key\":\"a\\nb\"}", 422, "control character"),
        ("DELETE", "/api/v1/orders/1?now=perhaps", "", 400, "now"),
        ("POST", "/api/v1/floor/vehicles/4/absent", "", 404, "no such mobile robot"),
        ("POST", "/api/v1/floor/vehicles/70000/absent", "", 404, "no such mobile robot"),
        ("POST", "/api/v1/floor/vehicles/4/located", "", 404, "no such mobile robot"),
        (
            "POST",
            "/api/v1/acknowledge",
            "{\"machines\":[\"lift\",\"lfit\"]}",
            422,
            "there is no lfit; nothing was acknowledged",
        ),
        ("POST", "/api/v1/acknowledge", "{\"machines\":\"some\"}", 422, "expected \"all\" or a list of names"),
        ("POST", "/api/v1/acknowledge", "{\"machines\":[]}", 422, "name 1 to 128"),
        ("POST", "/api/v1/acknowledge", "{\"machine\":\"lift\"}", 422, "unknown field `machine`"),
        ("POST", "/api/v1/acknowledge", "{\"machines\":[\"lift\"]}", 200, "its controller cannot be seen"),
        ("POST", "/api/v1/acknowledge", "", 200, "\"released\":[]"),
        ("POST", "/api/v1/orders", &long, 413, "length limit exceeded"),
        ("POST", "/api/v1/orders", "{\"kind\":\"store\",\"load\":1}", 409, "has not read the plant yet"),
        ("GET", "/api/v1/orders?limit=many", "", 400, "invalid digit"),
        ("GET", "/api/v1/orders/4711", "", 404, "it never was"),
        ("GET", "/api/v1/orders/first", "", 404, "it never was"),
        ("GET", "/nothing", "", 404, "openapi.json lists what there is"),
        ("DELETE", "/metrics", "", 405, "not done with that method"),
        ("GET", "/readyz", "", 503, "has not been read yet"),
        ("GET", "/", "", 200, "<title>Lightsout</title>"),
        ("GET", "/api/v1/live?topics=all", "", 400, "expected some of floor, loads"),
        ("GET", "/api/v1/orders?state=lost", "", 400, "unknown variant"),
        ("PATCH", "/api/v1/orders/4711", "{\"class\":0}", 404, "it never was"),
        ("PATCH", "/api/v1/orders/1", "{\"class\":7}", 422, "expected 0 (rush)"),
        ("DELETE", "/api/v1/orders/4711", "", 404, "it never was"),
        ("GET", "/api/v1/users", "", 401, "needs the role admin"),
        (
            "POST",
            "/api/v1/alarms/shelve",
            "{\"alarm\":\"x\",\"subject\":\"y\",\"minutes\":5,\"reason\":\"z\"}",
            404,
            "not raised",
        ),
        ("POST", "/api/v1/certificates/trust", "{\"thumbprint\":\"/etc/passwd\"}", 401, "needs the role engineer"),
        ("GET", "/healthz", "", 200, "ok"),
    ];
    for (method, path, body, status, text) in rows {
        let (got, answer) = http(at, method, path, body).await.unwrap();
        let shown: String = body.chars().take(60).collect();
        assert_eq!(got, status, "{method} {path} {shown}: {answer}");
        assert!(answer.replace("\\\"", "\"").contains(text), "{method} {path} {shown}: {answer}");
        // The two for supervisors speak plainly; everything else that goes wrong is a problem with a stable type.
        if status >= 400 && path != "/readyz" {
            let problem: serde_json::Value = serde_json::from_str(&answer).unwrap();
            let kind = problem["type"].as_str().unwrap();
            assert!(kind.starts_with("urn:lightsout:problem:") && problem["status"] == status, "{problem}");
        }
    }
    agent.stop().await;
}

/// What is no JSON by its own word is not taken for a word on all machines.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_on_machines_without_its_type_is_refused_and_releases_nobody() {
    let agent = lonely_agent().await;
    let body = "{\"machines\":[\"lift\"]}";
    let request = format!(
        "POST /api/v1/acknowledge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = support::http_raw(agent.http, request).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_machines_that_left_auto_is_released_and_both_are_answered_for_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let sim = support::start_plant(5).await;
    let mut plan = support::demo_plan(sim.addresses, support::free_port());
    plan.access.dir = Some(dir.path().into());
    let agent = Agent::start(plan).await.unwrap();
    let at = agent.http;
    assert!(eventually(Duration::from_secs(60), async || agent.ready()).await, "ready in time");
    let turn = |name: &str, mode| {
        let mut plant = sim.plant.lock();
        let id = plant.plan().machine(name).unwrap();
        plant.set_mode(id, mode);
    };
    let names = ["shuttle-1", "shuttle-2", "lift"];
    for name in names {
        turn(name, Mode::Manual);
    }
    let states = async |wanted: [&str; 3]| {
        let mut all = true;
        for (name, state) in names.iter().zip(wanted) {
            let (_, text) = http(at, "GET", &format!("/api/v1/floor/vehicles/{name}"), "").await.unwrap();
            all &= serde_json::from_str::<Value>(&text).unwrap()["state"] == state;
        }
        all
    };
    let become_so = async |wanted| {
        assert!(eventually(Duration::from_secs(30), async || states(wanted).await).await, "never {wanted:?}");
    };
    become_so(["manual", "manual", "manual"]).await;
    for name in ["shuttle-1", "shuttle-2"] {
        turn(name, Mode::Auto);
    }
    become_so(["waiting", "waiting", "manual"]).await;

    let say = async |body: Value| {
        let (status, text) = http(at, "POST", "/api/v1/acknowledge", &body.to_string()).await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let not_yet = json!([{ "machine": "lift", "why": "it is not in AUTO" }]);
    let answer = say(json!({ "machines": ["shuttle-1", "lift", "lift"] })).await;
    assert_eq!(answer, json!({ "released": ["shuttle-1"], "not_released": not_yet }));
    become_so(["idle", "waiting", "manual"]).await;
    let answer = say(json!({ "machines": "all" })).await;
    assert_eq!(answer, json!({ "released": ["shuttle-2"], "not_released": not_yet }));
    become_so(["idle", "idle", "manual"]).await;

    let record = agent.access().audit.newest(100).into_iter().rev();
    let said: Vec<(String, String)> =
        record.filter(|e| e.action == "plant.acknowledge").map(|e| (e.target, e.outcome)).collect();
    let want =
        [("shuttle-1", "done"), ("lift", "it is not in AUTO"), ("shuttle-2", "done"), ("lift", "it is not in AUTO")];
    assert_eq!(said, want.map(|(target, outcome)| (target.to_string(), outcome.to_string())));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_order() {
    let sim = support::start_plant(2).await;
    let agent = Agent::start(support::demo_plan(sim.addresses, support::free_port())).await.unwrap();
    assert!(support::eventually(Duration::from_secs(20), async || agent.ready()).await);
    let order = "{\"kind\":\"retrieve\",\"load\":1001,\"key\":\"po-17\"}";
    let (first, body) = http(agent.http, "POST", "/api/v1/orders", order).await.unwrap();
    let (second, again) = http(agent.http, "POST", "/api/v1/orders", order).await.unwrap();
    assert_eq!((first, second), (201, 200), "{body} {again}");
    let other = "{\"kind\":\"retrieve\",\"load\":1002,\"key\":\"po-17\"}";
    let (third, why) = http(agent.http, "POST", "/api/v1/orders", other).await.unwrap();
    assert_eq!((third, why.contains("the key stands for order 1") && why.contains("1001")), (409, true), "{why}");
    let id = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].clone();
    assert_eq!(id(&body), id(&again));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_says_when_it_is_due_whose_it_is_and_what_it_waits_for() {
    let sim = support::start_plant(3).await;
    let agent = Agent::start(support::demo_plan(sim.addresses, support::free_port())).await.unwrap();
    let at = agent.http;
    assert!(support::eventually(Duration::from_secs(20), async || agent.ready()).await);
    let give = async |order: serde_json::Value| {
        let (status, answer) = http(at, "POST", "/api/v1/orders", &order.to_string()).await.unwrap();
        assert_eq!(status, 201, "{order}: {answer}");
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let stops = json!([{ "at": "station", "program": 1 }, { "at": "rack" }]);
    let first = give(json!({ "kind": "route", "load": 1001, "stops": stops, "tenant": "north", "due": "10m" })).await;
    assert_eq!((&first["tenant"], &first["stops"]), (&json!("north"), &stops), "{first}");
    let due = humantime::parse_rfc3339(first["due"].as_str().unwrap()).unwrap();
    let ahead = due.duration_since(std::time::SystemTime::now()).unwrap().as_secs();
    assert!((580..=600).contains(&ahead), "{first}");
    let then =
        give(json!({ "kind": "retrieve", "load": 1002, "after": first["id"], "group": "lorry", "number": 2 })).await;
    assert_eq!((&then["after"], &then["group"], &then["number"]), (&first["id"], &json!("lorry"), &json!(2)), "{then}");

    // What waits for another one is not begun before that has ended.
    let order = async |id: &serde_json::Value| {
        let (_, answer) = http(at, "GET", &format!("/api/v1/orders/{id}"), "").await.unwrap();
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let second_began = async || order(&then["id"]).await["started"].is_string();
    assert!(support::eventually(Duration::from_secs(90), second_began).await);
    let done = order(&first["id"]).await;
    assert!(done["state"] == "completed" && done["ended"].is_string(), "{done}");

    // One that is withdrawn at once ends at once, whatever moves.
    let third = give(json!({ "kind": "process", "load": 1003, "station": "station" })).await;
    let (status, _) = http(at, "DELETE", &format!("/api/v1/orders/{}?now=true", third["id"]), "").await.unwrap();
    assert_eq!(status, 202);
    let ended = async || order(&third["id"]).await["reason"] == "withdrawn";
    assert!(support::eventually(Duration::from_secs(5), ended).await);
    agent.stop().await;
    assert!(sim.truth().is_clean(), "{:?}", sim.truth());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_half_a_request_or_garbage_do_not_keep_others_out() {
    let agent = lonely_agent().await;
    let mut idle = Vec::new();
    for n in 0..60 {
        let mut stream = TcpStream::connect(agent.http).await.unwrap();
        let _ = match n % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow").await,
            _ => stream.write_all(&[0xFF; 64]).await,
        };
        idle.push(stream);
    }
    assert_eq!(http(agent.http, "GET", "/healthz", "").await.unwrap().0, 200);
    // All of them are let go in the end.
    for mut stream in idle {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a client that says nothing was kept for more than a minute");
    }
    let mut flood = TcpStream::connect(agent.http).await.unwrap();
    let header = vec![b'a'; 1 << 20];
    let _ = flood.write_all(b"GET / HTTP/1.1\r\nX: ").await;
    let _ = flood.write_all(&header).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), flood.read_to_end(&mut answer)).await.expect("let go");
    assert_eq!(http(agent.http, "GET", "/healthz", "").await.unwrap().0, 200);
    agent.stop().await;
}
