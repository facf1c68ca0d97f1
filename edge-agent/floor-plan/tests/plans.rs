//! What floor files come to, and what is said of those that are wrong.

use control_core::floor::{MachineKind, NEVER, ZoneKind};
use control_core::units::PosId;
use floor_plan::FloorPlan;

#[test]
fn the_small_floor_is_numbered_as_its_register_map_says() {
    let plan = FloorPlan::small(4, 20).unwrap();
    let floor = plan.view();
    assert_eq!(plan.machine_names(), ["shuttle-1", "shuttle-2", "shuttle-3", "shuttle-4", "lift", "cell"]);
    assert_eq!(plan.bay(0, 1, 20), Some(PosId(60)));
    assert_eq!(plan.position_name(PosId(160)), "transfer-out-1");
    assert_eq!(plan.position_name(PosId(167)), "transfer-in-4");
    assert_eq!(plan.position_name(PosId(168)), "infeed-entry");
    assert_eq!(plan.position_name(PosId(175)), "cell-return-exit");
    assert_eq!(plan.position_name(PosId(181)), "cell.deck");
    assert_eq!((plan.sensed(), floor.positions()), (176, 182));
}

#[test]
fn every_zone_leads_to_every_other_that_loads_have_to_reach() {
    let plan = FloorPlan::small(4, 20).unwrap();
    let floor = plan.view();
    for (from, zone) in floor.zone_ids() {
        for (to, goal) in floor.zone_ids().filter(|(_, z)| z.kind == ZoneKind::Bays || z.feeds.is_some()) {
            let leaves = plan.zone_name(from) == "outfeed";
            assert_eq!(floor.hops(from, to) == NEVER, leaves, "{zone:?} to {goal:?}");
        }
    }
}

const HALL: &str = r#"
[[aisle]]
name = "a1"
tiers = 6
bays = 20
lane = 2
at = [-3.0, 2.0]
towards = "west"

[[belt]]
name = "a1.out"
from = "a1.lift"
to = "robots"
stop = "A"

[[belt]]
name = "a1.in"
from = "robots"
to = "a1.lift"
stop = "B"

[[belt]]
name = "dock"
from = "robots"
to = "outside"
stop = "D"

[[station]]
name = "cell-1"
group = "weld"
in = "C"
out = "F"

[roads]
pitch = 1.2
map = """
@PPPP@
A....C
B....F
D.@@..
@....E
"""

[robots]
count = 3
"#;

#[test]
fn a_hall_with_an_aisle_a_cell_and_robots_has_all_its_links() {
    let plan = FloorPlan::parse(HALL).unwrap_or_else(|f| panic!("{f:?}"));
    let floor = plan.view();
    assert_eq!(floor.machines(), 6 + 1 + 1 + 3);
    assert!(matches!(
        floor.machine(plan.machine("robot-2").unwrap()).unwrap().kind,
        MachineKind::Robot { vehicle: 1, .. }
    ));
    let zone = |name: &str| plan.zone(name).unwrap_or_else(|| panic!("no {name}")).0;
    let rows = [
        ("a1.tier-3", "cell-1.in", 3),
        ("cell-1.in", "a1.tier-1", 4),
        ("a1.tier-1", "dock", 3),
        ("a1.tier-1", "a1.tier-2", 3),
        ("a1.in", "a1.tier-6", 2),
    ];
    for (from, to, hops) in rows {
        assert_eq!(floor.hops(zone(from), zone(to)), hops, "{from} to {to}");
    }
    for (name, belt) in [("a1.out", 2), ("dock", 2), ("cell-1.in", 1)] {
        assert_eq!(plan.zone(name).unwrap().1.count, belt);
    }
    assert!(plan.proof.is_live());
    assert_eq!(plan.parking.len(), 4);
}

/// Everything is numbered with 16 bits: what does not fit is refused with its numbers, and never built.
#[test]
fn a_floor_that_is_too_large_is_refused_with_numbers() {
    let change = |from: &str, to: &str| HALL.replacen(from, to, 1);
    let cells = format!("{}\n", ".".repeat(300));
    let map = format!("map = \"\"\"\n{}", cells.repeat(240));
    let aisle = |n: u32, tiers: u32, bays: u32| {
        format!("[[aisle]]\nname = \"x{n}\"\ntiers = {tiers}\nbays = {bays}\nlifts = 2\ndepth = 2\n")
    };
    let many = |count: u32, tiers: u32, bays: u32| (0..count).map(|n| aisle(n, tiers, bays)).collect::<String>();
    let before = |more: &str| format!("{more}{HALL}");
    let places: String = (0..70_000).map(|n| format!("[[roads.place]]\nname = \"p{n}\"\nx = {n}\ny = 0\n")).collect();
    let roads = format!("[roads]\n{places}[robots]\ncount = 3\n");
    let stations: String = (0..300)
        .map(|n| format!("[[station]]\nname = \"s{n}\"\ngroup = \"g{n}\"\nin = \"C\"\nout = \"F\"\n"))
        .collect();
    let rows = [
        (
            change("map = \"\"\"\n", &map),
            "this floor has too many places on its roads: found 72025, expected at most 65534",
        ),
        (roads, "this floor has too many places on its roads: found 70000, expected at most 65534"),
        (before(&many(1, 60, 400)), "this floor has too many load positions: found 96"),
        (before(&many(1_200, 60, 1)), "this floor has too many machines: found 74"),
        (before(&many(360, 60, 1)), "this floor has too many zones of load positions: found 87"),
        (
            change("count = 3", "count = 10_001"),
            "this floor has too many mobile robots: found 10001, expected at most 10000",
        ),
        (
            change("count = 3", "count = 6_000\n[[robots.kind]]\ncount = 6_000"),
            "this floor has too many mobile robots: found 12000, expected at most 10000",
        ),
        (before(&stations), "this floor has too many groups of stations: found 301, expected at most 255"),
        (before(&many(1, 65_535, 65_535)), "this floor has too many load positions: found"),
    ];
    for (text, want) in rows {
        let faults = FloorPlan::parse(&text).err().unwrap_or_default();
        let told: Vec<String> = faults.iter().map(|f| f.text(&text)).collect();
        assert!(told.iter().any(|t| t.contains(want) && t.contains("; ")), "wanted {want:?}, told {told:#?}");
    }
    // As many as fit are taken.
    let row = format!("{}\n", ".".repeat(302));
    let text = format!("[roads]\nguidance = false\nmap = \"\"\"\n{}\"\"\"\n", row.repeat(217));
    let plan = FloorPlan::parse(&text).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!((plan.roads.places, plan.proof.blocks.len()), (65_534, 1));
}

#[test]
fn what_is_wrong_with_a_floor_is_told_with_its_line() {
    let change = |from: &str, to: &str| HALL.replacen(from, to, 1);
    let rows = [
        (change("tiers = 6", "tiers = 0"), "line 4: there cannot be 0 tiers in an aisle: expected 1 to 60"),
        (
            change("to = \"a1.lift\"", "to = \"a2.lift\""),
            "there is nothing of this name at the end of a belt: found \"a2.lift\"",
        ),
        (
            change("stop = \"D\"", "stop = \"Z\""),
            "there is no place of this name: found \"Z\", expected one of: A, B, C, D, F",
        ),
        (change("stop = \"D\"\n", ""), "robots do not know where to stop for this belt: \"dock\" has no stop"),
        (
            change("count = 3", "count = 5"),
            "every robot needs a parking place of its own: found 5 robots and 4 parking places",
        ),
        (change("in = \"C\"\n", ""), "this station is not joined to anything: nothing brings loads to \"cell-1\""),
        (change("D.@@..\n@....E", "D.@@.@\n@...@E"), "a charger is cut off"),
        (change("lane = 2", "lanes = 2"), "unknown field `lanes`"),
        (
            change("@PPPP@\nA....C\nB....F\nD.@@..\n@....E", "PPPPAB\n@@@.@@\nPPDCFE"),
            "it cannot be proven that robots on these roads never lock",
        ),
    ];
    for (text, want) in rows {
        let faults = FloorPlan::parse(&text).err().unwrap_or_default();
        let told: Vec<String> = faults.iter().map(|f| f.text(&text)).collect();
        assert!(told.iter().any(|t| t.contains(want)), "wanted {want:?}, told {told:#?}");
    }
}
