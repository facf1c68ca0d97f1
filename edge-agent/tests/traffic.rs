//! The traffic log, written from a hall that is driven in virtual time: read again it gives everybody's place at any time, a torn line
//! costs that line alone, the disk is bounded, and what PlanViz is given can be driven.

use control_core::order::{OrderRequest, Stops};
use control_core::units::{LoadId, OrderId};
use edge_agent::control::Shown;
use edge_agent::traffic::{Entry, Files, Log, Recorder, export};
use floor_plan::Arena;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use std::path::{Path, PathBuf};
use std::process::Command;

const BEGIN: u64 = 1_790_000_000_000;
const SEED: u64 = 7;

/// Where everybody was, sample by sample.
type Truth = Vec<(u64, Vec<Option<u16>>)>;

/// Drives the demo's hall for so many samples, five a second, and writes the log.
fn driven(dir: &Path, samples: u64, limits: (u64, u64)) -> (Truth, Files) {
    let text = include_str!("../../configs/demo/plant.toml");
    let read = |_: &Path| Ok(include_str!("../../configs/demo/floor.toml").to_string());
    let config = PlantConfig::read(text, read).unwrap();
    let plan = config.plan.clone();
    let arena = Arena::new();
    let mut hall = ClosedLoop::new(&arena, config, SEED, LinkFaults::default()).unwrap();
    let mut recorder = Recorder::new(plan.clone());
    assert_eq!(recorder.robots(), 24);
    let mut files = Files::with_limits(dir, recorder.header("floor.toml"), limits);
    let robots: Vec<_> = plan.view().robots().map(|(id, vehicle, _)| (id, vehicle)).collect();
    let mut shown = Shown::new(plan.machine_count(), plan.proof.regions.len(), 0);
    let mut truth = Vec::new();
    for n in 0..samples {
        if n % 20 == 0 && n / 20 < 60 {
            let number = (n / 20) as u32 + 1;
            let stops = if number.is_multiple_of(2) { Stops::RETRIEVE } else { Stops::process(0, 1) };
            hall.order(OrderRequest::new(OrderId(number), LoadId::new(1000 + number).unwrap(), stops));
        }
        hall.run(200);
        let t = BEGIN + n * 200;
        shown.fill(&plan.view(), &hall.controller);
        let changed = recorder.take(t, &shown, |_| None);
        if !changed.is_empty() {
            files.write(&changed, &recorder.everybody());
        }
        let traffic = hall.controller.traffic();
        truth.push((t, robots.iter().map(|(_, v)| traffic.place(*v)).collect()));
    }
    (truth, files)
}

fn found(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

const WIDE: (u64, u64) = (1 << 30, 1 << 31);

#[test]
fn a_log_read_again_says_where_everybody_was_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let (truth, _) = driven(dir.path(), 600, WIDE);
    let files = found(dir.path());
    let [file] = &files[..] else { panic!("{files:?}") };
    let log = Log::read(file).unwrap();
    assert!(!log.torn && log.header.floor == "floor.toml" && log.header.robots.len() == 24);
    let mut moved = 0;
    for (t, places) in &truth {
        for late in [0, 199] {
            let now = log.at(t + late);
            let seen: Vec<Option<u16>> = now.iter().map(|e| e.and_then(|e: &Entry| e.at)).collect();
            assert_eq!(&seen, places, "at {t}, {late} ms later; seed {SEED}");
        }
    }
    for pair in truth.windows(2) {
        moved += pair[0].1.iter().zip(&pair[1].1).filter(|(a, b)| a != b && a.is_some()).count() as u64;
    }
    let sum = log.summary();
    let reached: u64 = sum.robots.iter().map(|r| r.reached).sum();
    assert!(moved > 200 && reached >= moved, "{moved} places were reached, {reached} are told");
    assert!(log.entries.iter().any(|e| e.order.is_some() && e.to.is_some() && !e.base.is_empty()));
    // A part of it says the same of its time.
    let (from, to) = (truth[200].0, truth[400].0);
    let part = log.between(from, to);
    for (t, places) in &truth[200..=400] {
        let seen: Vec<Option<u16>> = part.at(*t).iter().map(|e| e.and_then(|e| e.at)).collect();
        assert_eq!(&seen, places, "at {t}, of a part");
    }
}

#[test]
fn a_torn_last_line_is_left_out_and_told_and_a_broken_one_is_an_error_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    driven(dir.path(), 60, WIDE);
    let file = found(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let count = Log::parse(&whole).unwrap().entries.len();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last + 1..whole.len() {
        let log = Log::parse(&whole[..cut]).unwrap();
        assert!(log.torn && log.entries.len() == count - 1, "cut at {cut}");
    }
    let text = String::from_utf8(whole).unwrap();
    let broken = text.replacen("\"state\":", "\"stat\":", 1);
    assert!(Log::parse(broken.as_bytes()).unwrap_err().starts_with("line 2: expected an entry"));
    for (wrong, says) in [("", "line 1"), ("{}\n", "line 1: expected the header"), ("x", "line 1")] {
        assert!(Log::parse(wrong.as_bytes()).unwrap_err().contains(says), "{wrong:?}");
    }
    let far = format!("{text}{{\"t\":{},\"robot\":0,\"at\":60000,\"state\":\"driving\"}}\n", u64::MAX);
    assert!(Log::parse(far.as_bytes()).unwrap_err().contains("found place 60000"));

    std::fs::write(&file, &text[..text.len() - 3]).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("traffic").arg(&file).output().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success() && said.contains("the last line is torn") && said.contains("robot-1"), "{said}");
}

#[test]
fn the_oldest_file_goes_before_the_cap_is_passed_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (truth, files) = driven(dir.path(), 900, (20_000, 50_000));
    let left = found(dir.path());
    let bytes: u64 = left.iter().map(|f| f.metadata().unwrap().len()).sum();
    let dropped = files.stats.dropped.load(std::sync::atomic::Ordering::Relaxed);
    // A file may pass its limit by the lines of one sample.
    assert!(dropped > 0 && left.len() > 1 && bytes < 50_000 + 20_000, "{bytes} bytes, {dropped} dropped");
    let newest = Log::read(left.last().unwrap()).unwrap();
    assert!(newest.header.dropped > 0);
    // Each file begins with everybody.
    let (t, places) = truth.last().unwrap();
    let seen: Vec<Option<u16>> = newest.at(*t).iter().map(|e| e.and_then(|e| e.at)).collect();
    assert_eq!(&seen, places);
}

#[test]
fn what_planviz_is_given_is_json_in_which_every_action_can_be_driven() {
    let dir = tempfile::tempdir().unwrap();
    let (truth, _) = driven(dir.path(), 600, WIDE);
    let file = found(dir.path()).remove(0);
    let out = dir.path().join("hall.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    let run = command.args(["traffic", "--json"]).arg(&file).arg("--planviz").arg(&out).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let said: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(said["robots"].as_array().unwrap().len(), 24);
    let shown: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let map = std::fs::read_to_string(out.with_extension("map")).unwrap();
    let grid = floor_plan::map::Grid::parse(&map).unwrap();

    let starts = shown["start"].as_array().unwrap();
    let paths = shown["actualPaths"].as_array().unwrap();
    assert!(starts.len() == 24 && paths.len() == 24 && shown["actionModel"] == "MAPF_T");
    let mut ends = Vec::new();
    let mut ways: Vec<Vec<(i64, i64)>> = Vec::new();
    for (start, path) in starts.iter().zip(paths) {
        let mut at = (start[0].as_i64().unwrap(), start[1].as_i64().unwrap());
        let mut heading = "ESWN".find(start[2].as_str().unwrap()).unwrap();
        let mut way = vec![at];
        for action in path.as_str().unwrap().split(',') {
            match action {
                "F" => at = (at.0 + [0, 1, 0, -1][heading], at.1 + [1, 0, -1, 0][heading]),
                "R" => heading = (heading + 1) % 4,
                "C" => heading = (heading + 3) % 4,
                "W" => {}
                other => panic!("{other:?} is no action"),
            }
            let free = at.0 >= 0 && at.1 >= 0 && grid.is_free(at.0 as usize, at.1 as usize);
            assert!(free, "a robot drives to {at:?}, which is no place; seed {SEED}");
            way.push(at);
        }
        ends.push(at);
        ways.push(way);
    }
    // All go as long, end where the log ends, and nobody hits anybody.
    assert!(ways.iter().all(|w| w.len() == ways[0].len() && w.len() > 100));
    let log = Log::read(&file).unwrap();
    let cell = |place: u16| {
        let (x, y) = log.header.places[usize::from(place)];
        let low = |of: fn(&(i64, i64)) -> i64| log.header.places.iter().map(of).min().unwrap();
        let a = log.header.roads.iter().position(|to| !to.is_empty()).unwrap();
        let (p, q) = (log.header.places[a], log.header.places[usize::from(log.header.roads[a][0])]);
        let pitch = (p.0 - q.0).abs().max((p.1 - q.1).abs());
        ((y - low(|p| p.1)) / pitch, (x - low(|p| p.0)) / pitch)
    };
    let last: Vec<(i64, i64)> = truth.last().unwrap().1.iter().map(|p| cell(p.unwrap())).collect();
    assert_eq!(ends, last);
    for k in 0..ways[0].len() {
        let mut here: Vec<_> = ways.iter().map(|w| w[k]).collect();
        here.sort_unstable();
        here.dedup();
        assert_eq!(here.len(), 24, "two in one cell after {k} steps; seed {SEED}");
    }
    assert!(shown["AllValid"] == "Yes" && export(&log).unwrap().valid);
    assert!(paths.iter().any(|p| p.as_str().unwrap().contains('F')));
}

#[test]
fn who_came_to_a_place_later_comes_later_for_planviz_too_and_a_floor_that_is_no_grid_is_refused() {
    // 0 1 2 in a row, 3 below 1. The first goes 0, 1, 3 with a turn, which costs a tick; the second comes from 2 to 1 as it leaves.
    let header = |third: &str| {
        format!(
            "{{\"traffic\":1,\"t\":0,\"floor\":\"f\",\"step_ms\":300,\"robots\":[\"a\",\"b\"],\"places\":[[0,0],[1000,0],{third},\
             [1000,1000]],\"roads\":[[1],[0,2,3],[1],[1]],\"names\":{{}},\"dropped\":0,\"failed\":0}}\n"
        )
    };
    let entry =
        |t: u64, robot: u16, at: u16| format!("{{\"t\":{t},\"robot\":{robot},\"at\":{at},\"state\":\"driving\"}}\n");
    let entries = [(0, 0, 0), (0, 1, 2), (100, 0, 1), (200, 0, 3), (200, 1, 1), (600, 1, 0)];
    let entries: String = entries.map(|(t, robot, at)| entry(t, robot, at)).concat();
    let log = Log::parse((header("[2000,0]") + &entries).as_bytes()).unwrap();
    let shown = export(&log).unwrap();
    assert!(shown.valid, "{:?}", shown.states);
    let run = serde_json::to_value(&shown.run).unwrap();
    assert_eq!(run["actualPaths"], serde_json::json!(["F,R,F,W,W,W", "W,W,F,W,W,F"]));
    assert_eq!(shown.map, "type octile\nheight 2\nwidth 3\nmap\n...\n@.@\n");
    let sum = log.summary();
    assert!(sum.robots[0].reached == 2 && (sum.robots[0].metres - 2.0).abs() < 1e-9, "{sum:?}");

    let log = Log::parse((header("[3500,0]") + &entries).as_bytes()).unwrap();
    assert!(export(&log).unwrap_err().contains("PlanViz shows grids only"));
    let carried = entries + &entry(700, 0, 2) + &entry(800, 0, 9);
    assert!(Log::parse((header("[2000,0]") + &carried).as_bytes()).unwrap_err().contains("found place 9"));
}
