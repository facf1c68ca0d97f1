//! Who may do what over HTTP, and what is written down of it.

mod support;

use edge_agent::Agent;
use edge_agent::access::{Access, AccessPlan, Role};
use std::net::SocketAddr;
use std::time::Duration;
use support::http_with;

async fn agent(dir: &std::path::Path, loopback: Option<Role>) -> Agent {
    let nowhere = plc_sim::SimAddresses {
        modbus: ([127, 0, 0, 1], support::free_port()).into(),
        opcua: ([127, 0, 0, 1], support::free_port()).into(),
    };
    let mut plan = support::demo_plan(nowhere, support::free_port());
    (plan.access.loopback, plan.access.dir) = (loopback, Some(dir.into()));
    Agent::start(plan).await.unwrap()
}

async fn status(at: SocketAddr, method: &str, path: &str, body: &str, token: &str) -> u16 {
    let header = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    http_with(at, method, path, body, &header).await.unwrap().0
}

/// Every operation that is not a question, from the API's own document, with a body that gets past its reader.
fn operations() -> Vec<(String, String, String)> {
    let api = serde_json::to_value(edge_agent::http::openapi()).unwrap();
    let mut all = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "get" && *m != "parameters") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let body = schema.as_str().map_or(serde_json::Value::Null, |name| example(&api, name));
            let path = path.replace("{id}", "1").replace("{name}", "nobody");
            all.push((method.to_uppercase(), path, if body.is_null() { String::new() } else { body.to_string() }));
        }
    }
    assert!(all.len() >= 14, "{all:?}");
    all
}

fn example(api: &serde_json::Value, name: &str) -> serde_json::Value {
    let schema = &api["components"]["schemas"][name.rsplit('/').next().unwrap()];
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let needed: Vec<&str> = schema["required"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    let value = |key: &str| {
        let p = &schema["properties"][key];
        match (p["$ref"].as_str(), p["type"].as_str()) {
            (Some(other), _) => example(api, other),
            (None, Some("integer")) => 1.into(),
            (None, Some("string")) => "abcdefgh".into(),
            _ => 1.into(),
        }
    };
    needed.into_iter().map(|key| (key.to_string(), value(key))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_without_a_role_and_every_change_and_every_refusal_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let plan = AccessPlan {
        loopback: None,
        remote: None,
        session: Duration::from_secs(600),
        dir: Some(dir.path().into()),
        audit_is_required: false,
    };
    let (access, _) = Access::open(plan).unwrap();
    access.add_user("ada", Role::Admin, "correct horse".into()).await.unwrap();
    let tokens = [Role::Viewer, Role::Operator, Role::Engineer, Role::Admin]
        .map(|role| access.add_token(&format!("{}-token", role.name()), role).unwrap());
    drop(access);
    let agent = agent(dir.path(), None).await;
    let at = agent.http;
    let open = ["/api/v1/login", "/api/v1/logout", "/api/v1/setup"];
    let entries = || agent.access().audit.newest(usize::MAX).into_iter().map(|e| e.outcome).collect::<Vec<_>>();
    let mut refused = 0;
    for (method, path, body) in operations() {
        let before = entries().len();
        let anonymous = status(at, &method, &path, &body, "").await;
        let viewer = status(at, &method, &path, &body, &tokens[0]).await;
        let admin = status(at, &method, &path, &body, &tokens[3]).await;
        refused += 1; // the anonymous one
        let more = entries().len() - before;
        assert!(
            (2..5).contains(&more),
            "{method} {path}: of the viewer, of the admin, and perhaps of a stranger: {more}"
        );
        if open.contains(&path.as_str()) {
            continue;
        }
        assert_eq!((anonymous, viewer), (401, 403), "{method} {path}");
        assert!(![401, 403].contains(&admin) || path == "/api/v1/writes", "{method} {path}: {admin}");
    }
    agent.access().audit.tend(std::time::Instant::now() + Duration::from_secs(120));
    // One by one or in a sum, however long all that took: none is missing.
    let more = |outcome: &String| outcome.strip_suffix(" more from 127.0.0.1")?.parse::<usize>().ok();
    let told = entries().iter().map(|outcome| more(outcome).unwrap_or(1)).sum::<usize>();
    assert_eq!(told, 3 * refused, "of the viewer, of the admin, and of strangers: {:#?}", entries());
    for path in ["/metrics", "/api/v1/orders", "/api/v1/floor", "/api/v1/tags", "/api/v1/live"] {
        assert_eq!(status(at, "GET", path, "", "").await, 401, "{path}");
        assert_eq!(status(at, "GET", path, "", "00").await, 401, "{path}");
    }
    assert_eq!(status(at, "GET", "/metrics", "", &tokens[0]).await, 200);
    assert_eq!(status(at, "GET", "/api/v1/audit", "", &tokens[2]).await, 403);
    let (_, record) =
        http_with(at, "GET", "/api/v1/audit?limit=1000", "", &format!("Authorization: Bearer {}\r\n", tokens[3]))
            .await
            .unwrap();
    assert!(
        record.contains("viewer-token") && !record.contains("correct horse") && !record.contains(&tokens[3]),
        "{record}"
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_with_a_cookie_that_scripts_and_other_sites_cannot_use() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Some(Role::Viewer)).await;
    let at = agent.http;
    let (wrong, _) =
        http_with(at, "POST", "/api/v1/setup", "{\"token\":\"0\",\"name\":\"ada\",\"password\":\"correct horse\"}", "")
            .await
            .unwrap();
    assert_eq!(wrong, 403);
    agent.access().add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();

    let login = "{\"name\":\"ada\",\"password\":\"correct horse\"}";
    let foreign = http_with(at, "POST", "/api/v1/login", login, "Origin: http://evil.example\r\n").await.unwrap();
    assert_eq!((foreign.0, foreign.1.contains("other-origin")), (403, true));
    let head = support::http_head(at, "POST", "/api/v1/login", login).await;
    let cookie = head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let header = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let (status, me) = http_with(at, "GET", "/api/v1/me", "", &header).await.unwrap();
    assert_eq!((status, me.contains("\"operator\"")), (200, true), "{me}");
    let own = format!("{header}Origin: http://{at}\r\n");
    assert_eq!(http_with(at, "POST", "/api/v1/acknowledge", "", &own).await.unwrap().0, 200);
    let other = format!("{header}Origin: http://127.0.0.1:1\r\n");
    assert_eq!(http_with(at, "POST", "/api/v1/acknowledge", "", &other).await.unwrap().0, 403);
    assert_eq!(http_with(at, "POST", "/api/v1/logout", "", &header).await.unwrap().0, 204);
    let (_, me) = http_with(at, "GET", "/api/v1/me", "", &header).await.unwrap();
    assert!(me.contains("anonymous"), "{me}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_to_point_here_is_not_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Some(Role::Operator)).await;
    let ask = |host: &'static str| {
        support::http_raw(
            agent.http,
            format!("GET /api/v1/orders HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        )
    };
    assert!(ask("localhost").await.starts_with("HTTP/1.1 200"));
    assert!(ask("evil.example").await.starts_with("HTTP/1.1 401"));
    agent.stop().await;
}
