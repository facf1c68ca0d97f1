//! The page Prometheus scrapes, values left out: names, helps, types and labels are an interface others build on.
//! After a change: `UPDATE_EXPECT=1 cargo test -p edge-agent --test metrics_page`.

mod support;

use edge_agent::Agent;
use edge_agent::metrics::{Kind, TABLE};
use expect_test::expect_file;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
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
        .filter(|l| !l.contains("lightsout_alarm{") && !l.contains(" lightsout_alarm ")) // which are raised is another thing each time
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
        // Those of the process itself have the names they have everywhere.
        let own = figure.name.starts_with("lightsout_");
        assert!(own || figure.name.starts_with("process_"), "{}", figure.name);
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

/// A gateway with so many lines and devices, of which none is there; everything it says of them is said all the same.
async fn gateway(lines: usize, devices: usize) -> (Agent, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut text =
        String::from("[gateway]\nname = \"gw\"\narea = \"hall-2\"\nline = \"packing\"\nlisten = \"127.0.0.1:0\"\n");
    for line in 0..lines {
        let _ = write!(text, "[[line]]\nname = \"hall-2-packing-{line}\"\nmodbus = \"127.0.0.{}:1\"\n", line + 2);
        for device in (0..devices).filter(|d| d % lines == line) {
            let unit = device / lines + 1;
            let _ = write!(
                text,
                "[[line.device]]\nname = \"frequency-converter-{device}\"\ncell = \"belts\"\nunit = {unit}\nprofile = \"drive.toml\"\n"
            );
        }
    }
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    let profile = "interval = \"1s\"\n[[tag]]\nname = \"speed\"\naddress = \"holding:0\"\ntype = \"u16\"\n";
    std::fs::write(dir.path().join("drive.toml"), profile).unwrap();
    let plan = edge_agent::config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    (Agent::start(plan).await.unwrap(), dir)
}

/// Head and body of an answer, byte by byte.
fn fetch(at: SocketAddr, more: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while reader.read_line(&mut head).unwrap() > 2 {}
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    (head.to_ascii_lowercase(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_of_a_hundred_devices_is_small_and_no_figure_is_most_of_it() {
    for lines in [10, 100] {
        let (agent, _dir) = gateway(lines, 100).await;
        let at = agent.http;
        let (plain, packed) =
            tokio::task::spawn_blocking(move || (fetch(at, ""), fetch(at, "Accept-Encoding: deflate, gzip;q=0.8\r\n")))
                .await
                .unwrap();
        assert!(!plain.0.contains("content-encoding") && packed.0.contains("content-encoding: gzip"), "{}", packed.0);
        assert!(plain.0.contains("vary: accept-encoding") && packed.0.contains("vary: accept-encoding"));
        let mut page = String::new();
        flate2::read::GzDecoder::new(&packed.1[..]).read_to_string(&mut page).unwrap();
        assert!(page.contains("lightsout_device_tags_bad{device=\"frequency-converter-99\",line=\"hall-2-packing-9"));
        assert!(packed.1.len() <= 100_000, "{lines} lines: {} bytes packed", packed.1.len());

        let mut series: BTreeMap<&str, usize> = BTreeMap::new();
        for line in page.lines().filter(|l| !l.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            *series.entry(base).or_default() += 1;
        }
        let all: usize = series.values().sum();
        let (most, count) = series.iter().max_by_key(|(_, n)| **n).unwrap();
        println!("{lines} lines: {} bytes, {} packed, {all} series, {count} of {most}", page.len(), packed.1.len());
        assert!(count * 2 < all, "{lines} lines: {count} of {all} series are of {most}");
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_of_buckets_are_printed_as_people_write_them() {
    let (agent, _dir) = gateway(1, 1).await;
    let at = agent.http;
    let (_, body) = tokio::task::spawn_blocking(move || fetch(at, "")).await.unwrap();
    let page = String::from_utf8(body).unwrap();
    assert!(page.contains("le=\"0.000002\""), "{page}");
    let edges = page.lines().filter_map(|l| l.split_once("le=\"")?.1.split('"').next());
    for edge in edges {
        assert!(edge == "+Inf" || edge.len() <= 9, "{edge}");
    }
    for figure in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        assert!(page.lines().any(|l| l.starts_with(&format!("{figure} "))), "no {figure}");
    }
    agent.stop().await;
}
