//! Dead-locks that users of other fleet managers have reported, as floors of ours: two robots that swap places on and on
//! (rmf_ros2 #503), crossing streams at which each waits for the other (rmf #356), somebody who stands idle in the way
//! (rmf_core #303), two who go to and fro before each other without end (rmf_core #145), a vehicle at rest that is given no order any
//! more (openTCS #275), a vehicle that reports where nobody expects it while orders are given out (openTCS #257: there the two threads
//! wait for each other's lock; here one thread reads and decides, and holds none), two in the lane of a shared dock (rmf #514), a lock
//! that is asked for again after its place was left, since the plan changed on the way (rmf_ros2 #448). That of the lift that somebody
//! else gets while its lane is still locked (rmf_ros2 #369) is among those of `change_of_tier.rs`: with us, shuttles ride on lifts.

mod support;

use control_core::cycle::Request;
use control_core::order::Stops;
use control_core::traffic::pool::TURNING;
use control_core::traffic::roads::{OPEN, Roads};
use control_core::traffic::{Settings, Size, Traffic};
use control_core::units::{LoadId, Millis};
use floor_plan::map::Grid;
use floor_plan::{Arena, Proof, RoadTables};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::LinkFaults;

/// A robot: where it begins, and the cells it is sent to one after the other, over and over; a letter of the map each.
type Robot<'a> = (char, &'a str);

/// How often each robot has arrived after so many steps, and the longest any of them took.
fn drive(rows: &[&str], robots: &[Robot<'_>], steps: u64) -> (Vec<usize>, u64) {
    drive_with(rows, robots, steps, Settings::default(), |_| None, |_, _, _| {})
}

/// The same, with somebody who sends a robot elsewhere for a step, and somebody who looks on after every step.
fn drive_with(
    rows: &[&str],
    robots: &[Robot<'_>],
    steps: u64,
    settings: Settings,
    mut elsewhere: impl FnMut(usize) -> Option<char>,
    mut look: impl FnMut(&Roads<'_>, &Traffic<'_>, &[u16]),
) -> (Vec<usize>, u64) {
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
    let mut traffic = Traffic::new(&&arena, &TURNING, size, settings);
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
            let due = tour.as_bytes()[arrived[n] % tour.len()] as char;
            let to = elsewhere(n).unwrap_or(due);
            traffic.send(v, goal(to), 1);
            if to == due && traffic.has_arrived(&roads, v) {
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
        look(&roads, &traffic, &capacities);
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

/// Looks whether passes are in order: whoever is in a region holds one, and there are no more than may be in it. A search may move
/// more into a region than that; then whoever is outside holds none.
fn passes_in_order() -> impl FnMut(&Roads<'_>, &Traffic<'_>, &[u16]) {
    let (mut searched, mut quiet) = (false, 0);
    move |roads, traffic, capacities| {
        let vehicles = || 0..traffic.vehicles() as u16;
        let moves = vehicles().any(|v| traffic.state(v).2);
        (searched, quiet) = (searched || moves, if moves { 0 } else { quiet + 1 });
        if quiet < 3 {
            return; // passes follow in the step after a search
        }
        for (region, capacity) in (0u16..).zip(capacities) {
            let holds = |v: &u16| traffic.state(*v).0.contains(&region);
            let inside = |v: &u16| traffic.path(*v).any(|p| roads.region(p) == region);
            assert!(vehicles().filter(inside).all(|v| holds(&v)), "somebody is in region {region} without a pass");
            let (holders, outside) = (vehicles().filter(holds), vehicles().filter(|v| holds(v) && !inside(v)));
            assert!(
                holders.count() <= usize::from(*capacity) || (searched && outside.count() == 0),
                "more passes of region {region} than {capacity}"
            );
        }
    }
}

#[test]
fn one_at_a_time_is_in_the_lane_of_a_dock_that_two_share() {
    let rows = ["A......B", "........", "@@@.@@@@", "@@@.@@@@", "@@@D@@@@"];
    let mut alone = 0;
    let mut in_order = passes_in_order();
    let look = |roads: &Roads<'_>, traffic: &Traffic<'_>, capacities: &[u16]| {
        in_order(roads, traffic, capacities);
        assert_eq!(capacities, [1], "the lane is one region for one robot");
        alone += u32::from((0..2).any(|v| traffic.place(v).is_some_and(|p| roads.region(p) != OPEN)));
    };
    let (arrived, longest) = drive_with(&rows, &[('A', "DA"), ('B', "DB")], 2_000, Settings::default(), |_| None, look);
    println!("tours {arrived:?}, the longest took {longest} steps; somebody was in the lane in {alone}");
    assert!(arrived.iter().all(|n| *n >= 100) && longest <= 60 && alone > 1_000, "{arrived:?} {longest} {alone}");
}

/// Chargers and stations in bays along a lane that leads round.
const LANE: [&str; 5] = ["@A@B@C@D@E@", "...........", ".@@@@@@@@@.", "...........", "@F@G@H@I@J@"];

/// At any instant a robot on its way is sent back to its charger and then on again: in front of its bay, half out of it, long gone.
/// Once more without anybody making way, so that a search has to: it moves whom it likes into a bay for which somebody else holds the
/// pass.
#[test]
fn who_is_sent_back_and_on_again_leaves_no_lock_behind_and_waits_for_none_it_does_not_need() {
    let robots = [('A', "FA"), ('B', "GB"), ('C', "HC"), ('D', "ID"), ('E', "JE")];
    for (seed, insist_after, most) in support::seeds(0..20).into_iter().flat_map(|s| [(s, 10, 150), (s, u32::MAX, 400)])
    {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut back = [0u32; 5];
        let mut sent_back = 0;
        let elsewhere = |n: usize| {
            if back[n] == 0 && rng.u32(0..15) == 0 {
                (back[n], sent_back) = (rng.u32(1..8), sent_back + 1);
            }
            back[n] = back[n].saturating_sub(1);
            (back[n] > 0).then_some(robots[n].0)
        };
        let settings = Settings { insist_after, ..Settings::default() };
        let (arrived, longest) = drive_with(&LANE, &robots, 2_000, settings, elsewhere, passes_in_order());
        println!("seed {seed}: sent back {sent_back} times, tours {arrived:?}, the longest took {longest} steps");
        assert!(
            sent_back > 200 && arrived.iter().all(|n| *n >= 30) && longest <= most,
            "LIGHTSOUT_SEED={seed}: {arrived:?} {longest}"
        );
    }
}

/// Head-on in a lane somebody has to turn before anybody can go on. Those in front make way for whoever comes first, one behind the
/// other: nearly three times as many tours as with a search for each jam.
#[test]
fn in_a_lane_those_who_meet_head_on_turn_back_one_behind_the_other() {
    let (mut with, mut without) = (0, 0);
    for seed in support::seeds(0..5) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut letters: Vec<char> = ('A'..='J').collect();
        rng.shuffle(&mut letters);
        let tours: Vec<String> = (0..7).map(|_| (0..100).map(|_| letters[rng.usize(0..10)]).collect()).collect();
        let robots: Vec<Robot<'_>> = letters.iter().copied().zip(tours.iter().map(String::as_str)).collect();
        let drive = |insist_after| {
            let settings = Settings { insist_after, ..Settings::default() };
            let (arrived, longest) = drive_with(&LANE, &robots, 4_000, settings, |_| None, passes_in_order());
            println!("seed {seed}: {insist_after}: tours {arrived:?}, the longest took {longest} steps");
            (arrived.iter().sum::<usize>(), longest)
        };
        let ((make_way, longest), (search, _)) = (drive(Settings::default().insist_after), drive(u32::MAX));
        assert!(longest <= 250, "LIGHTSOUT_SEED={seed}: {longest}");
        (with, without) = (with + make_way, without + search);
    }
    assert!(with > 2 * without, "{with} tours, {without} without making way");
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
        let idle = floor.plant.machine(who).is_some_and(|m| m.job().is_none());
        let is_pushed = idle && floor.plant.push_robot(who, to);
        pushed += u32::from(is_pushed);
        let before = floor.controller.output().cycle;
        floor.run(100);
        if is_pushed {
            floor.request(Request::Located(who)); // who has pushed it says so
        }
        floor.run(900);
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
