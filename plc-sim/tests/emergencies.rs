//! Rush orders beside bulk, a robot that drops out or stands where nobody knows, places and tiers that are closed: on the floor of the demo, in virtual time.

mod support;

use control_core::EventKind;
use control_core::cycle::Request;
use control_core::image::{CommandCode, Mode};
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use std::collections::BTreeMap;
use support::{closed_loop, machine, order};

/// The hall, with so many robots.
fn hall(robots: u16) -> PlantConfig {
    let floor = include_str!("../../configs/demo/floor.toml");
    let floor = floor.replace("count = 24", &format!("count = {robots}"));
    let mut config = PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(floor.clone())).unwrap();
    config.robot.charge = 1.0;
    config
}

const RUSH: u32 = 1_000_000;

struct Shift {
    floor: ClosedLoop<'static>,
    rng: fastrand::Rng,
    bulk: u32,
    rush: u32,
}

impl Shift {
    fn new(robots: u16) -> Shift {
        let mut floor = closed_loop(hall(robots), 5, LinkFaults::default());
        floor.run(6_000);
        Shift { floor, rng: fastrand::Rng::with_seed(9), bulk: 0, rush: 0 }
    }

    /// An order out of the rack, or through a cell.
    fn bulk(&mut self) {
        let bays: Vec<LoadId> = self.floor.plan().bays().filter_map(|b| self.floor.plant.loads().at(b)).collect();
        let load = bays[self.rng.usize(0..bays.len())];
        let stops = if self.bulk.is_multiple_of(2) && bays.len() > 150 {
            Stops::RETRIEVE
        } else {
            Stops::process((self.bulk / 2 % 2) as u8, 1)
        };
        self.bulk += 1;
        self.floor.order(order(self.bulk, load, stops, 3, 0));
    }

    /// A load that has come and has to go into the rack at once.
    fn rush(&mut self) {
        self.rush += 1;
        let load = LoadId::new(RUSH + self.rush).unwrap();
        let dock = self.floor.plan().zone("dock-in").unwrap().0;
        self.floor.plant.deliver_to(load, dock);
        self.floor.order(order(RUSH + self.rush, load, Stops::STORE, 0, 600_000));
    }

    /// Minutes of work: a bulk order every so many seconds, a rush order every so many, 0 for never.
    fn work(&mut self, minutes: u32, bulk_every_s: u32, rush_every_s: u32) {
        for second in 0..minutes * 60 {
            if bulk_every_s > 0 && second % bulk_every_s == 0 {
                self.bulk();
            }
            if rush_every_s > 0 && second % rush_every_s == rush_every_s / 2 {
                self.rush();
            }
            self.floor.run(1_000);
        }
        assert!(self.floor.plant.truth().is_clean(), "{:?}", self.floor.plant.truth());
    }

    /// Every order ends, and nobody has hit anybody.
    fn ends(&mut self) {
        for _ in 0..180 {
            self.floor.run(10_000);
            if self.floor.controller.orders().is_empty() {
                break;
            }
        }
        assert!(self.floor.controller.orders().is_empty(), "{}", self.floor.situation());
        assert!(self.floor.plant.truth().is_clean(), "{:?}", self.floor.plant.truth());
    }

    /// Bulk orders done between two instants.
    fn done(&self, from_ms: u64, to_ms: u64) -> usize {
        let within = |e: &&control_core::Event| (from_ms..to_ms).contains(&e.at.0);
        self.floor
            .trace
            .iter()
            .filter(within)
            .filter(|e| matches!(e.kind, EventKind::OrderCompleted(id) if id.0 < RUSH))
            .count()
    }

    /// For each rush order the time from when its load stood at the end of the dock to when a robot had it, seconds, in order.
    fn waits(&self) -> Vec<f64> {
        let plan = self.floor.plan();
        let (_, dock) = plan.zone("dock-in").unwrap();
        let (mut arrived, mut picked) = (BTreeMap::new(), BTreeMap::new());
        let mut asked = BTreeMap::new();
        for event in &self.floor.trace {
            match event.kind {
                EventKind::OrderAccepted(id, load) if id.0 > RUSH => {
                    arrived.insert(load, event.at.0);
                }
                EventKind::CommandIssued { machine, seq, code: CommandCode::Pick, pos, load: Some(load) }
                    if pos == dock.exit() =>
                {
                    asked.insert((machine, seq), load);
                }
                EventKind::CommandEnded { machine, seq, .. } => {
                    if let Some(load) = asked.get(&(machine, seq)) {
                        picked.insert(*load, event.at.0);
                    }
                }
                _ => {}
            }
        }
        let mut waits: Vec<f64> =
            arrived.iter().filter_map(|(l, from)| Some((picked.get(l)? - from) as f64 / 1e3)).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }
}

fn p99(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

#[test]
fn a_rush_order_is_fetched_as_soon_as_by_a_robot_that_has_nothing_else_to_do_and_bulk_hardly_notices() {
    let mut alone = Shift::new(1);
    alone.work(60, 0, 120);
    let mut bulk = Shift::new(24);
    bulk.work(60, 20, 0);
    let mut both = Shift::new(24);
    both.work(60, 20, 120);
    let (lone, waits) = (alone.waits(), both.waits());
    let (without, with) = (bulk.done(0, u64::MAX), both.done(0, u64::MAX));
    println!(
        "rush: fetched after {:.1} s (99 %, {} orders) beside {:.1} s by a lone robot ({}); bulk done {with} of {without}",
        p99(&waits),
        waits.len(),
        p99(&lone),
        lone.len()
    );
    assert!(waits.len() >= 29 && lone.len() >= 29);
    assert!(p99(&waits) <= 1.2 * p99(&lone), "{waits:?}\n{lone:?}");
    assert!(with as f64 >= 0.95 * without as f64, "{with} of {without}");
}

#[test]
fn when_a_robot_drops_out_the_others_go_on_and_do_their_part() {
    const MINUTES: u32 = 90;
    let run = |drops: bool| {
        let mut shift = Shift::new(24);
        shift.work(10, 10, 0);
        if drops {
            let dead: MachineId = machine(shift.floor.plan(), "robot-7");
            shift.floor.silent.insert(dead);
            // Nobody waits for it: whoever was under way goes on being told to.
            let before = shift.floor.counters().commands_sent;
            shift.floor.run(1_000);
            assert!(shift.floor.counters().commands_sent > before + 3, "the others go on");
        }
        let from = shift.floor.now().0;
        shift.work(MINUTES, 10, 0);
        shift.done(from, u64::MAX)
    };
    let (all, less) = (run(false), run(true));
    println!("24 robots have done {all} orders in {MINUTES} minutes, 23 of them {less}");
    assert!(less as f64 >= 0.95 * 23.0 / 24.0 * all as f64, "{less} of {all}");
}

#[test]
fn nobody_drives_into_a_closed_place_and_the_others_go_around_until_it_is_opened() {
    let mut shift = Shift::new(12);
    shift.work(5, 15, 0);
    // A spill across the middle of both lanes of the upper cross aisle, but for one cell; and the stop of a cell.
    let plan = shift.floor.plant.plan().clone();
    let in_the_way = |x: f64, y: f64| {
        let near = |s: &floor_plan::plan::Spot| (s.x - x).abs() < 0.1 && (s.y - y).abs() < 0.1;
        plan.place_spots.iter().position(near).unwrap() as u16
    };
    let closed = [in_the_way(12.0, 6.0), in_the_way(13.2, 6.0), plan.place("K").unwrap()];
    shift.floor.close(&closed, &[]);
    let inside = |shift: &Shift| {
        let robots =
            plan.view().robots().filter_map(|(id, ..)| shift.floor.plant.machine(id)?.robot()).collect::<Vec<_>>();
        robots.iter().filter(|r| closed.contains(&r.at()) || r.towards().is_some_and(|p| closed.contains(&p))).count()
    };
    shift.floor.run(20_000); // whoever had been told to go there has been there, and has left
    let from = shift.floor.now().0;
    for _ in 0..600 {
        assert_eq!(inside(&shift), 0, "somebody is in a closed place");
        shift.floor.run(1_000);
        if shift.floor.now().0 % 15_000 < 1_000 {
            shift.bulk();
        }
    }
    assert!(shift.done(from, u64::MAX) > 10, "the others go on: {}", shift.floor.situation());
    shift.floor.close(&[], &[]);
    shift.ends();
}

#[test]
fn nobody_drives_along_a_closed_road_and_the_others_go_around_until_it_is_opened() {
    let mut shift = Shift::new(12);
    let robots: Vec<MachineId> = shift.floor.plan().view().robots().map(|(id, ..)| id).collect();
    // The roads on which somebody is seen, ends in the order of their numbers, and how often.
    let drive = |shift: &mut Shift, seconds: u32| {
        let mut seen: BTreeMap<(u16, u16), u32> = BTreeMap::new();
        for tenth in 0..seconds * 10 {
            if tenth % 150 == 0 {
                shift.bulk();
            }
            shift.floor.run(100);
            for robot in robots.iter().filter_map(|id| shift.floor.plant.machine(*id)?.robot()) {
                if let Some(to) = robot.towards().filter(|to| *to != robot.at()) {
                    *seen.entry((robot.at().min(to), robot.at().max(to))).or_default() += 1;
                }
            }
        }
        seen
    };
    let before = drive(&mut shift, 300);
    let (busiest, times) = before.iter().max_by_key(|(_, n)| **n).map(|(road, n)| (*road, *n)).unwrap();
    shift.floor.close_all(&floor_plan::Closed { roads: [busiest].into(), ..floor_plan::Closed::default() });
    shift.floor.run(20_000); // whoever had been told to drive along it has done so
    let from = shift.floor.now().0;
    let after = drive(&mut shift, 300);
    assert!(
        times > 50 && !after.contains_key(&busiest),
        "{busiest:?} was used {times} times, now {:?}",
        after.get(&busiest)
    );
    assert!(shift.done(from, u64::MAX) > 5, "the others go on: {}", shift.floor.situation());
    shift.floor.close(&[], &[]);
    shift.ends();
}

#[test]
fn a_tier_that_is_closed_is_left_alone_and_the_others_do_its_work() {
    let mut shift = Shift::new(24);
    shift.work(2, 15, 0);
    let plan = shift.floor.plant.plan().clone();
    let tier = plan.aisles[0].zones[2];
    let shuttle = plan.aisles[0].shuttles[2];
    shift.floor.close(&[], &[tier[0]]);
    shift.floor.run(30_000); // its shuttle brings what it was doing to its end
    let inside = |shift: &Shift| -> Vec<LoadId> {
        let zones = tier.iter().filter_map(|z| plan.view().zone(*z));
        zones.flat_map(|z| z.positions()).filter_map(|p| shift.floor.plant.loads().at(p)).collect()
    };
    let (before, from) = (inside(&shift), shift.floor.now());
    assert!(!before.is_empty(), "there is something in it");
    for _ in 0..8 {
        shift.work(1, 15, 0);
        shift.rush();
    }
    assert_eq!(inside(&shift), before, "nobody takes anything out or brings anything");
    let by_its_shuttle = |e: &&control_core::Event| {
        e.at > from && matches!(e.kind, EventKind::CommandIssued { machine, .. } if machine == shuttle)
    };
    assert_eq!(shift.floor.trace.iter().filter(by_its_shuttle).count(), 0);
    assert!(shift.done(from.0, u64::MAX) > 8, "the others go on: {}", shift.floor.situation());
    // What was asked for in there has waited.
    shift.floor.close(&[], &[]);
    shift.ends();
}

/// In the crowd of the parking places, and on the roads.
#[test]
fn a_robot_that_stands_between_two_places_after_a_restart_holds_up_nobody_but_those_beside_it() {
    stands_between_two_places("robot-1", 0);
    stands_between_two_places("robot-3", 3);
}

fn stands_between_two_places(name: &str, after_min: u32) {
    let mut shift = Shift::new(12);
    shift.work(after_min, 10, 0);
    // It is stopped by hand between two places, and the gateway starts anew.
    let plan = shift.floor.plant.plan().clone();
    let robot = machine(&plan, name);
    let at = |shift: &Shift| {
        let robot = shift.floor.plant.machine(robot).and_then(|m| m.robot()).unwrap();
        (robot.at(), robot.towards())
    };
    while at(&shift).1.is_none() {
        shift.floor.run(10);
        if shift.floor.now().0.is_multiple_of(10_000) {
            shift.bulk();
        }
    }
    shift.floor.plant.set_mode(robot, Mode::Manual);
    shift.floor.restart_controller();
    shift.floor.run(15_000);
    let (stands, from) = (at(&shift), shift.floor.now().0);
    assert!(stands.1.is_some(), "it stands between two places");
    shift.work(10, 15, 0);
    assert!(shift.done(from, u64::MAX) > 10, "the others go on: {}", shift.floor.situation());
    assert_eq!(at(&shift), stands);
    shift.floor.plant.set_mode(robot, Mode::Auto);
    shift.floor.run(10_000);
    shift.floor.request(Request::AcknowledgeAll);
    let moved = (0..120).any(|_| {
        shift.floor.run(5_000);
        shift.bulk();
        at(&shift).0 != stands.0
    });
    assert!(moved, "it finds back and works again: {}", shift.floor.situation());
    assert!(shift.floor.plant.truth().is_clean(), "{:?}", shift.floor.plant.truth());
}

#[test]
fn the_load_of_a_robot_that_has_failed_goes_on_with_another_one_as_soon_as_somebody_has_put_it_on_a_belt() {
    let mut shift = Shift::new(6);
    let plan = shift.floor.plant.plan().clone();
    let (dock, lane) = plan.zone("dock-in").unwrap();
    let mut handed_over = 0;
    for round in 0..6u64 {
        shift.bulk |= 1; // through a cell: that takes a robot
        let before = shift.bulk;
        shift.bulk();
        // A robot has picked it up, and stops with it somewhere on its way.
        let carrier = |shift: &Shift| {
            let carries = |id: &MachineId| shift.floor.plant.loads().at(support::deck(&plan, *id));
            plan.view().robots().map(|(id, ..)| id).find_map(|id| carries(&id).map(|load| (id, load)))
        };
        let from = shift.floor.now().0;
        while carrier(&shift).is_none() {
            shift.floor.run(100);
            assert!(shift.floor.now().0 < from + 300_000, "round {round}\n{}", shift.floor.situation());
        }
        shift.floor.run(700 * round);
        let Some((robot, load)) = carrier(&shift) else { continue };
        shift.floor.plant.set_mode(robot, Mode::Manual);
        shift.floor.run(5_000);
        assert_eq!(carrier(&shift), Some((robot, load)), "it keeps it until somebody comes");
        assert!(shift.floor.plant.carry_off(support::deck(&plan, robot), lane.entry()), "{dock:?} is free");
        let from = shift.floor.now().0;
        while shift.done(from, u64::MAX) == 0 {
            shift.floor.run(1_000);
            assert!(shift.floor.now().0 < from + 900_000, "order {before}\n{}", shift.floor.situation());
        }
        let held = shift.floor.controller.hold(robot);
        assert!(held.is_some(), "without the robot that failed: {held:?}");
        shift.floor.plant.set_mode(robot, Mode::Auto);
        shift.floor.run(10_000);
        shift.floor.request(Request::AcknowledgeAll);
        shift.floor.run(1_000);
        handed_over += 1;
    }
    assert!(handed_over >= 3, "{handed_over}");
    assert_eq!(shift.floor.counters().orders_failed, 0);
    assert!(shift.floor.plant.truth().is_clean(), "{:?}", shift.floor.plant.truth());
}

/// Two lifts on one mast, a belt out at each: what the lower one was to fetch the upper one fetches while that stands still.
#[test]
fn when_a_lift_stops_the_other_one_brings_out_what_it_can() {
    let text = "[[aisle]]\nname = \"r\"\ntiers = 5\nbays = 8\nlifts = 2\n\
                [[belt]]\nname = \"out-1\"\nfrom = \"r.lift-1\"\nto = \"outside\"\n\
                [[belt]]\nname = \"out-2\"\nfrom = \"r.lift-2\"\nto = \"outside\"\n";
    let config = PlantConfig::read("floor = \"rack.toml\"\nloads = 60\n", |_| Ok(text.into())).unwrap();
    let mut floor = closed_loop(config, 3, LinkFaults::default());
    floor.run(6_000);
    let lifts = floor.plan().aisles[0].lifts.clone();
    floor.plant.set_mode(lifts[0], Mode::Manual);
    floor.run(1_000);
    let (stands, moves) = (floor.plant.done(lifts[0]), floor.plant.done(lifts[1]));
    // From the tiers above the one that stands.
    let bays = (1..5).flat_map(|tier| (0..6).map(move |n| (tier, n)));
    let bays = bays.filter_map(|(tier, n)| floor.plan().bay(0, tier, n));
    let loads: Vec<LoadId> = bays.filter_map(|bay| floor.plant.loads().at(bay)).collect();
    for (id, load) in (1..).zip(&loads) {
        floor.order(order(id, *load, Stops::RETRIEVE, 2, 0));
    }
    floor.run(300_000);
    assert!(loads.len() > 8 && floor.controller.orders().is_empty(), "{}", floor.situation());
    assert_eq!(floor.plant.done(lifts[0]), stands, "it is told nothing");
    assert!(floor.plant.done(lifts[1]) - moves >= 2 * loads.len() as u32);
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}
