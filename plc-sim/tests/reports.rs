//! Dead-locks that users of other fleet managers have reported, as floors of ours: two robots that swap places on and on
//! (rmf_ros2 #503), crossing streams at which each waits for the other (rmf #356), somebody who stands idle in the way
//! (rmf_core #303), two who go to and fro before each other without end (rmf_core #145), a vehicle at rest that is given no order any
//! more (openTCS #275), a vehicle that reports where nobody expects it while orders are given out (openTCS #257: there the two threads
//! wait for each other's lock; here one thread reads and decides, and holds none).

mod support;

use control_core::order::Stops;
use control_core::traffic::pool::TURNING;
use control_core::traffic::{Settings, Size, Traffic};
use control_core::units::{LoadId, Millis};
use floor_plan::map::Grid;
use floor_plan::{Arena, Proof, RoadTables};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::LinkFaults;

/// A robot: where it begins, and the cells it is sent to one after the other, over and over; a letter of the map each.
type Robot = (char, &'static str);

/// How often each robot has arrived after so many steps, and the longest any of them took.
fn drive(rows: &[&str], robots: &[Robot], steps: u64) -> (Vec<usize>, u64) {
    let grid = Grid::from_fn(rows.len(), rows[0].len(), |r, c| rows[r].as_bytes()[c] != b'@');
    let (mut tables, place_of) = RoadTables::of_grid(&grid, true);
    let letters = || rows.iter().flat_map(|r| r.chars());
    let place = |letter: char| place_of[letters().position(|c| c == letter).unwrap()].unwrap();
    let names: Vec<char> = letters().filter(char::is_ascii_alphabetic).collect();
    tables.measure(&names.iter().map(|c| vec![place(*c)]).collect::<Vec<_>>());
    let goal = |letter: char| names.iter().position(|c| *c == letter).unwrap() as u16;
    let proof = Proof::of(&tables);
    assert!(proof.is_live(), "the floor of the report can be proven");
    let capacities = proof.capacities();
    let roads = tables.view().with_regions(&proof.region, &capacities);
    let arena = Arena::new();
    let size = Size {
        vehicles: robots.len(),
        places: tables.places,
        regions: proof.regions.len(),
        search_vehicles: robots.len(),
        search_nodes: 2_000,
    };
    let mut traffic = Traffic::new(&&arena, &TURNING, size, Settings::default());
    for (v, (start, _)) in (0u16..).zip(robots) {
        assert!(traffic.enter(&roads, v, roads.poses_of(place(*start)).start));
    }
    let (mut arrived, mut since, mut longest) = (vec![0usize; robots.len()], vec![0; robots.len()], 0);
    for step in 1..=steps {
        for (v, (_, tour)) in (0u16..).zip(robots) {
            let n = usize::from(v);
            let next = traffic.base(v).next();
            if let Some(next) = next {
                assert!(traffic.reached(v, next));
            }
            let to = tour.as_bytes()[arrived[n] % tour.len()] as char;
            traffic.send(v, goal(to), 1);
            if traffic.has_arrived(&roads, v) {
                longest = longest.max(step - since[n]);
                (arrived[n], since[n]) = (arrived[n] + 1, step);
            }
        }
        for part in 0..4 {
            traffic.work(&roads, Millis(step * 1_000 + part * 250));
        }
        let mut at: Vec<u16> = (0..robots.len() as u16).filter_map(|v| traffic.place(v)).collect();
        at.sort_unstable();
        at.dedup();
        assert_eq!(at.len(), robots.len(), "nobody stands where somebody else is");
    }
    (arrived, longest)
}

#[test]
fn two_that_swap_places_on_and_on_go_on_swapping() {
    let rows = ["A......B", "@@@..@@@"];
    let (arrived, longest) = drive(&rows, &[('A', "BA"), ('B', "AB")], 2_000);
    println!("swaps {arrived:?}, the longest took {longest} steps");
    assert!(arrived.iter().all(|n| *n >= 40) && longest <= 120, "{arrived:?} {longest}");
}

#[test]
fn streams_that_cross_do_not_wait_for_each_other() {
    let rows = ["@@CD@@", "@@..@@", "A....E", "B....F", "@@..@@", "@@GH@@"];
    let robots = [('A', "EA"), ('F', "BF"), ('C', "GC"), ('H', "DH")];
    let (arrived, longest) = drive(&rows, &robots, 2_000);
    println!("crossings {arrived:?}, the longest took {longest} steps");
    assert!(arrived.iter().all(|n| *n >= 100) && longest <= 60, "{arrived:?} {longest}");
}

#[test]
fn whoever_stands_idle_in_the_way_goes_aside_and_comes_back() {
    let rows = ["A..I..B", "@@...@@"];
    let (arrived, longest) = drive(&rows, &[('A', "BA"), ('I', "I")], 1_000);
    println!("tours {arrived:?}, the longest took {longest} steps");
    assert!(arrived[0] >= 40 && longest <= 60, "{arrived:?} {longest}");
    assert!(arrived[1] > 200, "it is at its place most of the time: {arrived:?}");
}

/// A robot that has nothing to do, or is on its way to its parking place or to a charger, gets the next order: each comes at another
/// instant of that.
#[test]
fn a_robot_at_rest_or_on_its_way_to_rest_gets_the_next_order() {
    let text = include_str!("../../configs/demo/floor.toml").replace("count = 24", "count = 2");
    let config = PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(text.clone())).unwrap();
    let mut floor = support::closed_loop(config, 4, LinkFaults::default());
    floor.run(6_000);
    let (zone, dock) = floor.plan().zone("dock-in").unwrap();
    let mut longest = 0;
    for n in 0..40 {
        let load = LoadId::new(8_000 + n).unwrap();
        floor.plant.deliver_to(load, zone);
        floor.order(support::order(n + 1, load, Stops::STORE, 1, 600_000));
        let from = floor.now().0;
        while floor.plant.loads().at(dock.exit()) != Some(load) {
            floor.run(100);
            assert!(floor.now().0 < from + 60_000, "order {}: the belt brings it", n + 1);
        }
        let stands = floor.now().0;
        while floor.plant.loads().at(dock.exit()) == Some(load) {
            floor.run(100);
            assert!(floor.now().0 < stands + 90_000, "order {}: nobody comes\n{}", n + 1, floor.situation());
        }
        longest = longest.max(floor.now().0 - stands);
        // The next comes when this one has been put down, and a while later every time.
        while !floor.controller.orders().is_empty() {
            floor.run(100);
            assert!(floor.now().0 < stands + 600_000, "order {} never ends\n{}", n + 1, floor.situation());
        }
        floor.run(u64::from(n) * 700);
    }
    println!("40 orders, each fetched after {:.1} s at most", longest as f64 / 1e3);
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}

/// Orders are given out all the time, and every second a robot reports a place where it was not sent: a person pushes it there. Who
/// decides goes on in every cycle, and every order ends.
#[test]
fn who_reports_an_unexpected_place_while_orders_are_given_out_stops_nobody_else() {
    let text = include_str!("../../configs/demo/floor.toml").replace("count = 24", "count = 6");
    let config = PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(text.clone())).unwrap();
    let mut floor = support::closed_loop(config, 4, LinkFaults::default());
    floor.run(6_000);
    let mut rng = fastrand::Rng::with_seed(257);
    let (places, robots) = (floor.plan().place_spots.len() as u16, floor.plan().view().robots().count());
    let (mut id, mut pushed) = (0, 0);
    for second in 0..240 {
        if second % 4 == 0 {
            id += 1;
            let inside: Vec<LoadId> = floor.plan().bays().filter_map(|b| floor.plant.loads().at(b)).collect();
            floor.order(support::order(id, inside[rng.usize(0..inside.len())], Stops::process(0, 1), 2, 0));
        }
        let who = floor.plan().view().robots().nth(rng.usize(0..robots)).map(|(id, ..)| id).unwrap();
        let to = rng.u16(0..places);
        pushed +=
            u32::from(floor.plant.machine(who).is_some_and(|m| m.job().is_none()) && floor.plant.push_robot(who, to));
        let before = floor.controller.output().cycle;
        floor.run(1_000);
        assert_eq!(floor.controller.output().cycle - before, 100, "a cycle every 10 ms");
    }
    for _ in 0..180 {
        floor.run(10_000);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(pushed > 20, "{pushed} pushed");
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert!(floor.counters().orders_completed > 40, "{:?}", floor.counters());
    let truth = floor.plant.truth();
    assert!(truth.lost.is_empty() && truth.in_two_places.is_empty() && truth.double_commands == 0, "{truth:?}");
}
