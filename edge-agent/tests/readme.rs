//! What the README shows of the program is what it prints. Each line of a text block that begins with `$ edge-agent` is run, and what
//! comes is compared with what stands below it. What is another thing on each machine and in each run (times, counts, what a host
//! grants) is left out of the comparison, and a line of two dots stands for any lines.
//!
//! `UPDATE_EXPECT=1 cargo test -p edge-agent --test readme` writes what has changed, and leaves the rest as it is.

mod support;

use edge_agent::Agent;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use support::{eventually, hall_file, http};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Several tests may write.
static WRITING: Mutex<()> = Mutex::new(());

/// What is shown below a command.
fn shown(command: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let start = readme.find(&format!("$ {command}\n")).unwrap_or_else(|| panic!("README.md does not show `{command}`"));
    let lines = readme[start..].lines().skip(1).take_while(|l| !l.starts_with("$ ") && *l != "```");
    let mut lines: Vec<String> = lines.map(String::from).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Whether these lines are those, where two dots stand for any.
fn fits(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((dots, rest)) if dots == ".." => (0..=printed.len()).any(|n| fits(rest, &printed[n..])),
        Some((line, rest)) => printed.first() == Some(line) && fits(rest, &printed[1..]),
    }
}

/// Compares; `same` makes of lines what has to be equal. Writes what was printed in place of what is not true any more, if asked to.
fn compare(command: &str, printed: &str, same: impl Fn(&[String]) -> Vec<String>) -> Result<(), String> {
    let shown = shown(command);
    let printed: Vec<String> = printed.trim_end().lines().map(String::from).collect();
    if fits(&same(&shown), &same(&printed)) {
        return Ok(());
    }
    let text = |lines: &[String]| lines.join("\n");
    Err(format!(
        "README.md shows of `{command}`:\n{}\n\nand it prints:\n{}\n\nUPDATE_EXPECT=1 cargo test -p edge-agent --test readme writes it anew",
        text(&shown),
        text(&printed)
    ))
}

fn settle(command: &str, printed: &str, outcome: Result<(), String>) {
    let Err(why) = outcome else { return };
    assert!(std::env::var_os("UPDATE_EXPECT").is_some(), "{why}");
    let _writing = WRITING.lock().unwrap_or_else(|e| e.into_inner());
    let shown = shown(command);
    let mut lines: Vec<&str> = printed.trim_end().lines().collect();
    if let Some(dots) = shown.iter().position(|l| l == "..") {
        let after = shown.len() - dots - 1;
        let until = lines.len().saturating_sub(after).max(dots);
        if dots < until {
            lines.splice(dots..until, [".."]);
        }
    }
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let below = |lines: String| format!("$ {command}\n{lines}").trim_end().to_string() + "\n";
    let (old, new) = (below(shown.join("\n")), below(lines.join("\n")));
    assert!(readme.contains(&old), "{command}");
    std::fs::write(&path, readme.replacen(&old, &new, 1)).unwrap();
}

fn edge(command: &str, url: Option<&str>) -> String {
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("edge-agent"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    program.args(words).current_dir(root()).env_remove("LIGHTSOUT_TOKEN").env_remove("LIGHTSOUT_URL");
    if let Some(url) = url {
        program.env("LIGHTSOUT_URL", url);
    }
    let output = program.output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn exactly(lines: &[String]) -> Vec<String> {
    lines.to_vec()
}

/// Figures are figures, and columns as wide as what stands in them.
fn without_figures(line: &str) -> String {
    const UNITS: [&str; 13] = ["us", "ms", "s", "min", "h", "d", "B", "KiB", "MiB", "GiB", "us,", "ms,", "s,"];
    let mut out: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_end_matches([',', ';', ')']);
        let of_figure = out.last().is_some_and(|w| w.starts_with('#'));
        if of_figure && UNITS.contains(&bare) {
            continue; // 90 us today, 1.2 ms tomorrow
        }
        let mut said = String::new();
        for c in word.chars() {
            let is_figure = c.is_ascii_digit() || (matches!(c, '.' | ':') && said.ends_with('#'));
            if !is_figure {
                said.push(c);
            } else if !said.ends_with('#') {
                said.push('#');
            }
        }
        out.push(said);
    }
    out.join(" ")
}

/// A page of `status`: figures, forecasts and what this host grants are its own; how many tags are good is not.
fn status(lines: &[String]) -> Vec<String> {
    let (mut in_table, mut in_alarms) = (false, false);
    let mut kept = Vec::new();
    let mut alarms = Vec::new(); // the newest first: which one that is, a slow start decides
    for line in lines {
        in_table = line.starts_with("LINE") || (in_table && !line.is_empty());
        let words: Vec<&str> = line.split_whitespace().collect();
        // A slow machine is behind now and then, and says so in an alarm; what the configuration is to blame for has to be there.
        let configured = line.contains("without security") || line.contains("without signing in");
        if in_alarms {
            alarms.extend(configured.then(|| without_figures(line)));
            continue;
        }
        in_alarms |= line == "alarms";
        kept.push(match words.first().copied() {
            _ if in_table && words.len() > 5 => {
                let poll = if words[5] == "-" || line.starts_with("LINE") { words[5] } else { "#" };
                format!("{} {poll} {}", words[..5].join(" "), words[words.len() - 2..].join(" "))
            }
            Some("beat") => without_figures(line).replace("not granted", "granted"),
            Some("spool") => without_figures(line).split("; ").take(2).collect::<Vec<_>>().join("; "),
            _ => without_figures(line),
        });
    }
    alarms.sort();
    kept.extend(alarms);
    kept
}

/// What `doctor` looks at, and how each thing is mended; what it finds is the host's.
fn doctor(lines: &[String]) -> Vec<String> {
    let what = |l: &String| {
        let name = l.get(6..26)?.trim();
        Some(if name.is_empty() { return None } else { name.to_string() })
    };
    let rows = lines.iter().filter(|l| l.starts_with("pass") || l.starts_with("warn")).filter_map(what);
    let of = lines.last().map(|l| without_figures(l.split(" of ").nth(1).unwrap_or_default()));
    rows.chain(of).collect()
}

/// The row above each `mend:`, and what it says.
fn mends(lines: &[String]) -> BTreeMap<String, String> {
    let pairs = lines.iter().zip(lines.iter().skip(1));
    let mend = pairs.filter_map(|(row, mend)| Some((row.get(6..26)?.trim().to_string(), mend.split("mend: ").nth(1)?)));
    mend.map(|(row, mend)| (row, without_figures(mend))).collect()
}

#[test]
fn check_and_plan_print_what_the_readme_shows() {
    for command in ["edge-agent check configs/demo/agent.toml", "edge-agent plan configs/demo/agent.toml"] {
        let printed = edge(command, None);
        settle(command, &printed, compare(command, &printed, exactly));
    }
}

#[test]
fn a_wrong_key_is_told_as_the_readme_shows() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(hall_file("agent.toml")).unwrap();
    std::fs::write(dir.path().join("agent.toml"), text.replace("broker    =", "brocker   =")).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    let output = check.args(["check", "agent.toml"]).current_dir(dir.path()).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    let command = "edge-agent check agent.toml";
    // Of the list of keys the README shows the first.
    let cut = |lines: &[String]| lines.iter().map(|l| l.split(", commands").next().unwrap_or(l).to_string()).collect();
    settle(command, &printed, compare(command, &printed, cut));
}

/// The floor that the README gives, with profiles that have a block for each of its machines.
#[test]
fn the_proof_of_the_floor_in_the_readme_is_what_check_says_of_it() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme.split("\n## The floor\n").nth(1).expect("the section");
    let floor = section.split("```toml\n").nth(1).and_then(|t| t.split("```").next()).expect("its floor");
    let blocks = "status = \"input:0\"\ncommand = \"holding:0\"\n";
    let device = |name: &str, unit: u8, more: &str| {
        format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nunit = {unit}\nprofile = \"{name}.toml\"\n{more}")
    };
    let agent = "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\n[floor]\nfile = \"floor.toml\"\n\
                 [[line]]\nname = \"hall\"\nmodbus = \"127.0.0.1:5020\"\n"
        .to_string()
        + &device("rack", 1, "machine = \"a1.shuttle-1\"\n")
        + &device("belts", 90, "")
        + &device("robots", 100, "")
        + &device("cell", 2, "");
    let files = [
        ("floor.toml", floor.to_string()),
        ("hall.toml", agent),
        ("rack.toml", format!("[[machine]]\ncount = 7\n{blocks}[sensors]\nfirst = \"input:1000\"\n")),
        ("belts.toml", "[sensors]\nfirst = \"input:1000\"\nfrom = \"cell-1.in\"\ncount = 2\n".into()),
        ("robots.toml", format!("[[machine]]\nname = \"robot-1\"\ncount = 3\n{blocks}")),
        ("cell.toml", format!("[[machine]]\nname = \"cell-1\"\n{blocks}")),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    let output = check.args(["check", "hall.toml"]).current_dir(dir.path()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let command = "edge-agent check hall.toml";
    settle(command, &printed, compare(command, &printed, exactly));
}

#[test]
fn the_doctor_looks_at_what_the_readme_shows() {
    let command = "edge-agent doctor";
    let printed = edge(command, None);
    let lines: Vec<String> = printed.lines().map(String::from).collect();
    let (here, there) = (mends(&lines), mends(&shown(command)));
    let mut outcome = compare(command, &printed, doctor);
    if let Some((row, mend)) = here.iter().find(|(row, mend)| there.get(*row).is_some_and(|m| m != *mend)) {
        outcome = Err(format!("{row}: README.md shows another way to mend it than: {mend}\n{printed}"));
    }
    settle(command, &printed, outcome);
}

/// The whole demo, faster than life unless the README is written, and one order from the command line to its end.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_the_status_look_as_the_readme_shows_them() {
    let broker = support::start_broker().await;
    let mut plant = support::hall_plant();
    let writing = std::env::var_os("UPDATE_EXPECT").is_some();
    plant.speed = if writing { 1.0 } else { 5.0 };
    plant.watchdog_s = 10.0; // a busy machine is no fault of the plant
    let sim = support::start(plant, 7).await;
    let mut plan = support::hall_plan(sim.addresses, broker);
    plan.control.realtime.wanted = writing;
    plan.control.command_valid = Duration::from_secs(10);
    let agent = Agent::start(plan).await.unwrap();
    let url = format!("http://{}", agent.http);
    assert!(eventually(Duration::from_secs(60), async || agent.ready()).await, "ready in time");

    let run = async |command: String| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || edge(&command, Some(&url))).await.unwrap()
    };
    let give = "edge-agent order submit process 1001 --station weld";
    let show = "edge-agent order show 1";
    // On a machine that stands still for seconds a command may expire and be given again: then the next order has its turn.
    let mut told = (String::new(), String::new(), Err("no order was given".to_string()));
    for id in 1..=4 {
        let said = run(give.replace("1001", &(1000 + id).to_string())).await;
        let ended = eventually(Duration::from_secs(180), async || {
            let (_, text) = http(agent.http, "GET", &format!("/api/v1/orders/{id}"), "").await.unwrap();
            let order: Value = serde_json::from_str(&text).unwrap_or(json!({}));
            order["state"] == "completed" || order["state"] == "failed" || order["state"] == "rejected"
        });
        assert!(ended.await, "order {id} ends");
        let story = run(show.replace('1', &id.to_string())).await;
        let outcome = compare(show, &story, |lines| lines.iter().map(|l| without_figures(l)).collect());
        told = (said, story, outcome);
        if told.2.is_ok() || writing {
            break;
        }
    }
    let (said, story, outcome) = told;
    settle(give, &said, compare(give, &said, |lines| lines.iter().map(|l| without_figures(l)).collect()));
    settle(show, &story, outcome);

    let command = "edge-agent status";
    let mut printed = run(command.into()).await;
    let fits = eventually(Duration::from_secs(60), async || {
        printed = run(command.into()).await;
        compare(command, &printed, status).is_ok() || writing
    });
    let _ = fits.await;
    settle(command, &printed, compare(command, &printed, status));
    agent.stop().await;
    assert!(sim.truth().is_clean());
}

#[test]
fn what_is_left_out_of_the_comparison_is_figures_and_no_more() {
    let line = "cell-1  up   3 of 12  4.5 ms  12:03:59  99 % starts 90 us late";
    assert_eq!(without_figures(line), "cell-# up # of # # # # % starts # late");
    let of = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    assert!(fits(&of("a\n..\nd"), &of("a\nb\nc\nd")) && !fits(&of("a\n..\nd"), &of("a\nb\nc")));
    assert!(fits(&of("a\n..\nb"), &of("a\nb")) && !fits(&of("a"), &of("a\nb")));
    assert!(Path::new(&root()).join("README.md").is_file());
}
