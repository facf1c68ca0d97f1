//! Floors of their own file: what is wrong with one is told with its line, and `check` says what is proven of it. The texts are in
//! `snapshots/floors.txt`; after a change read them aloud, then `UPDATE_EXPECT=1 cargo test -p edge-agent --test floors`.

use expect_test::expect_file;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const HALL: &str = include_str!("floors/hall.toml");
const AGENT: &str = r#"[gateway]
name   = "gateway-1"
area   = "hall-1"
line   = "line-1"
listen = "127.0.0.1:0"

[floor]
file = "floor.toml"

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
profile = "hall.toml"

[[line.device]]
name    = "robots"
cell    = "hall"
unit    = 100
profile = "robots.toml"

[[line.device]]
name    = "cell-plc"
cell    = "weld"
unit    = 2
profile = "cell.toml"
"#;
const BLOCKS: &str = "status = \"input:0\"\ncommand = \"holding:0\"\n";

fn checked(dir: &Path, floor: &str, agent: &str, profiles: &[(&str, &str)]) -> String {
    let mut files = vec![
        ("floor.toml", floor.to_string()),
        ("agent.toml", agent.to_string()),
        ("aisle.toml", format!("[[machine]]\ncount = 3\n{BLOCKS}[sensors]\nfirst = \"input:1000\"\n")),
        ("hall.toml", "[sensors]\nfirst = \"input:1000\"\nfrom = \"cell-1.in\"\ncount = 4\n".to_string()),
        ("robots.toml", format!("[[machine]]\nname = \"robot-1\"\ncount = 3\n{BLOCKS}")),
        ("cell.toml", format!("[[machine]]\nname = \"cell-1\"\n{BLOCKS}")),
    ];
    files.extend(profiles.iter().map(|(name, text)| (*name, (*text).to_string())));
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let path = dir.join("agent.toml");
    let run = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").arg(&path).output().unwrap();
    let (out, err) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    let code = run.status.code();
    format!("exit {}\n{out}{err}", code.unwrap_or(-1)).replace(&format!("{}/", dir.display()), "")
}

#[test]
fn what_is_proven_of_a_floor_and_what_is_wrong_with_it_is_said_with_place_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let with = |from: &str, to: &str| {
        assert!(HALL.contains(from), "the floor does not say {from:?} any more");
        HALL.replacen(from, to, 1)
    };
    let tree = with("@PPPP@@@@\nA....C@@@\nB....F@@@\nD.......E\n@....@@@@", "@PP@P@@\nAB.CFDE\n@@.@@@@\n@@P@@@@");
    let closed = with("@PPPP@@@@\nA....C@@@\nB....F@@@\nD.......E\n@....@@@@", "PPPPAB\n@@@.@@\nPPDCFE");
    let brave = AGENT.replace("file = \"floor.toml\"", "file = \"floor.toml\"\nunproven = true");
    let robots = format!("[[machine]]\nname = \"robot-1\"\ncount = 4\n{BLOCKS}");
    let of_one = format!("[[machine]]\ncount = 2\n{BLOCKS}[sensors]\nfirst = \"input:1000\"\n");
    let other = format!("[[machine]]\nname = \"robot-9\"\n{BLOCKS}");
    let rows = [
        ("a corridor with a gate", HALL.to_string(), AGENT, vec![]),
        ("a floor that cannot be proven", closed.clone(), AGENT, vec![]),
        ("taken all the same", closed, &brave, vec![]),
        ("a robot that rests behind a gate", tree.clone(), AGENT, vec![]),
        ("that too taken all the same", tree, &brave, vec![]),
        ("a place that is cut off", with("D.......E", "D.....@.E"), &brave, vec![]),
        ("a key that does not exist", with("tiers   = 2", "teirs   = 2"), AGENT, vec![]),
        (
            "too many tiers, and a belt to nowhere",
            with("tiers   = 2", "tiers   = 99").replace("from = \"a1.lift\"", "from = \"a2.lift\""),
            AGENT,
            vec![],
        ),
        (
            "fewer shuttles than tiers",
            with("tiers   = 2", "tiers   = 2\nshuttles = 1"),
            AGENT,
            vec![("aisle.toml", &*of_one)],
        ),
        ("more shuttles than tiers", with("tiers   = 2", "tiers   = 2\nshuttles = 3"), AGENT, vec![]),
        (
            "two kinds of robots, and an area with a cap",
            with("count = 3", "count = 2\n[[robots.kind]]\ncount = 1\nsize = [0.7, 0.5]").replace(
                "[robots]",
                "[[roads.area]]\nname = \"cell\"\nfrom = [5.0, 0.0]\nto = [7.0, 4.0]\nrobots = 1\n[robots]",
            ),
            AGENT,
            vec![],
        ),
        ("robots that do not fit past each other", with("count = 3", "count = 3\nsize = [1.1, 0.9]"), AGENT, vec![]),
        (
            "areas that overlap, and one without places",
            with(
                "[robots]",
                "[[roads.area]]\nname = \"one\"\nfrom = [0.0, 0.0]\nto = [3.0, 3.0]\nrobots = 1\n\
                 [[roads.area]]\nname = \"two\"\nfrom = [3.0, 3.0]\nto = [2.0, 2.0]\nrobots = 0\n\
                 [[roads.area]]\nname = \"far\"\nfrom = [90.0, 0.0]\nto = [99.0, 4.0]\nrobots = 1\n[robots]",
            ),
            AGENT,
            vec![],
        ),
        ("two belts of one name", with("name = \"a1.in\"", "name = \"a1.out\""), AGENT, vec![]),
        ("a robot of no size", with("count = 3", "count = 3\nsize = [0.0, 0.9]"), AGENT, vec![]),
        ("not TOML at all", with("[roads]", "[roads"), AGENT, vec![]),
        ("more machines than the floor has", HALL.to_string(), AGENT, vec![("robots.toml", &*robots)]),
        ("a machine that is not there", HALL.to_string(), AGENT, vec![("robots.toml", &*other)]),
        (
            "positions that nobody reads",
            HALL.to_string(),
            AGENT,
            vec![("hall.toml", "[sensors]\nfirst = \"input:1000\"\nfrom = \"dock-entry\"\n")],
        ),
    ];
    let mut all = String::new();
    for (name, floor, agent, profiles) in rows {
        let _ = write!(all, "=== {name}\n{}\n", checked(dir.path(), &floor, agent, &profiles));
    }
    for (name, from, to) in [
        ("a floor file that is not there", "\"floor.toml\"", "\"flor.toml\""),
        ("two shapes", "file = \"floor.toml\"", "file = \"floor.toml\"\ntiers = 4"),
        ("no shape", "file = \"floor.toml\"", "orders = 70000"),
        ("a machine nobody waits for", "profile = \"robots.toml\"", "profile = \"robots.toml\"\nmachine = \"robot-1\""),
    ] {
        let agent = AGENT.replacen(from, to, 1);
        let _ = write!(all, "=== {name}\n{}\n", checked(dir.path(), HALL, &agent, &[]));
    }
    expect_file!["snapshots/floors.txt"].assert_eq(&all);
}
