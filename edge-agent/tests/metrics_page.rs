//! The page Prometheus scrapes, values left out: names, helps, types and labels are an interface others build on.
//! After a change: `UPDATE_EXPECT=1 cargo test -p edge-agent --test metrics_page`.

mod support;

use edge_agent::Agent;
use edge_agent::metrics::{Kind, TABLE};
use expect_test::expect_file;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_as_it_was() {
    let sim = support::start_plant(1).await;
    let agent = Agent::start(support::demo_plan(sim.addresses, support::free_port())).await.unwrap();
    assert!(support::eventually(Duration::from_secs(20), async || agent.ready()).await);
    let (status, page) = support::http(agent.http, "GET", "/metrics", "").await.unwrap();
    assert_eq!(status, 200);
    let shape: String = page
        .lines()
        .filter(|l| !l.contains("_bucket{") || l.contains("+Inf"))
        .map(|l| {
            if l.starts_with('#') { l.to_string() } else { l.rsplit_once(' ').map_or(l, |(name, _)| name).to_string() }
        })
        .map(|l| l + "\n")
        .collect();
    expect_file!["snapshots/metrics_page.txt"].assert_eq(&shape);
    agent.stop().await;
}

#[test]
fn every_figure_is_named_as_prometheus_wants_it() {
    for figure in TABLE {
        assert!(figure.name.starts_with("lightsout_"), "{}", figure.name);
        assert_eq!(figure.kind == Kind::Counter, figure.name.ends_with("_total"), "{}", figure.name);
        assert!(figure.kind != Kind::Histogram || figure.name.ends_with("_seconds"), "{}", figure.name);
        assert!(figure.help.ends_with('.'), "{}", figure.name);
    }
    let mut names: Vec<_> = TABLE.iter().map(|f| f.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len(), "a name stands twice");
}

#[test]
fn the_readme_lists_every_figure() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    for figure in TABLE {
        assert!(readme.contains(&format!("`{}`", figure.name)), "README.md does not list {}", figure.name);
    }
}
