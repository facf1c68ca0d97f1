//! More robots than are matched with loads at once: whoever is nearest comes, whatever its number, and where nobody can come, that is
//! told. And a robot whose battery is too low is given nothing.

mod support;

use control_core::EventKind;
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId};
use floor_plan::Closed;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use std::fmt::Write;
use support::{closed_loop, deck, order};

/// Rows of the hall's map, each with a lane above it; robots park in every second one.
const COLUMNS: usize = 24;

/// A rack, a dock out in the last row, and as many rows of parking places as the robots need; robot-1 parks at the top, the last one at
/// the bottom, beside the stops. `chargers` stand in the lowest lane, and below it there are `docks` at which loads come in, two a stop.
fn hall(robots: usize, chargers: usize, docks: usize) -> PlantConfig {
    let rows = robots.div_ceil(COLUMNS - 2);
    let mut map = String::new();
    let line = |inside: &str| format!(".{inside:.<width$}.\n", width = COLUMNS - 2);
    let mut left = robots;
    for _ in 0..rows {
        map += &line("");
        let here = left.min(COLUMNS - 2);
        map += &line(&"P".repeat(here));
        left -= here;
    }
    map += &line("");
    map += &line(&"E".repeat(chargers));
    map += &line("A.B.C");
    let mut belts = String::new();
    let stops: Vec<char> = "abcdefghijklmnopqrstuwxyz0123456789".chars().take(docks.div_ceil(2)).collect();
    for row in stops.chunks((COLUMNS - 2) / 2) {
        map += &line(&row.iter().map(|stop| format!("{stop}.")).collect::<String>());
        map += &line("");
    }
    for (n, stop) in (0..docks).map(|n| (n, stops[n / 2])) {
        let _ = write!(
            belts,
            "[[belt]]\nname = \"dock-{n}\"\nfrom = \"outside\"\nto = \"robots\"\nstop = \"{stop}\"\nplaces = 1\n"
        );
    }
    let text = format!(
        "[[aisle]]\nname = \"r\"\ntiers = 2\nbays = 20\nat = [-3.0, 0.0]\ntowards = \"west\"\n\
         [[belt]]\nname = \"out\"\nfrom = \"r.lift\"\nto = \"robots\"\nstop = \"A\"\n\
         [[belt]]\nname = \"in\"\nfrom = \"robots\"\nto = \"r.lift\"\nstop = \"B\"\n\
         [[belt]]\nname = \"dock\"\nfrom = \"robots\"\nto = \"outside\"\nstop = \"C\"\n{belts}\
         [roads]\npitch = 1.2\nguidance = false\nmap = \"\"\"\n{map}\"\"\"\n\
         [robots]\ncount = {robots}\ndrive = {{ speed = 2.0, acceleration = 1.0 }}\n"
    );
    let mut config = PlantConfig::read("floor = \"hall.toml\"\nloads = 60\n", |_| Ok(text.clone()))
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    config.robot.charge = 1.0;
    config
}

fn robots(floor: &ClosedLoop<'_>) -> Vec<MachineId> {
    floor.plan().view().robots().map(|(id, ..)| id).collect()
}

/// Orders for so many loads, out of the plant.
fn retrieve(floor: &mut ClosedLoop<'_>, count: usize) {
    let loads: Vec<LoadId> = floor.plan().bays().filter_map(|b| floor.plant.loads().at(b)).take(count).collect();
    for (n, load) in (1..).zip(&loads) {
        floor.order(order(n, *load, Stops::RETRIEVE, 2, 0));
    }
}

/// Who has picked up anything so far, in order.
fn carriers(floor: &ClosedLoop<'_>) -> Vec<MachineId> {
    let all = robots(floor);
    let picks = floor.trace.iter().filter_map(|e| match e.kind {
        EventKind::CommandIssued { machine, code: control_core::image::CommandCode::Pick, .. } => Some(machine),
        _ => None,
    });
    picks.filter(|id| all.contains(id)).collect()
}

#[test]
fn the_nearest_of_many_robots_comes_whatever_its_number() {
    let mut floor = closed_loop(hall(88, 0, 0), 1, LinkFaults::default());
    floor.run(6_000);
    retrieve(&mut floor, 12);
    for _ in 0..60 {
        floor.run(5_000);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    // Those of the two lower rows are nearest, first of all the one right above the stop; of the first 64 most stand far above.
    let came: Vec<usize> =
        carriers(&floor).iter().map(|id| robots(&floor).iter().position(|r| r == id).unwrap() + 1).collect();
    assert!(came.first().is_some_and(|n| *n >= 67) && came.iter().all(|n| *n >= 45), "{came:?} came");
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
    assert!(floor.controller.nobody_comes().is_empty());
}

/// All but the last row are cut off: no road leads from them any more.
#[test]
fn robots_that_cannot_come_take_nobodys_place() {
    let mut floor = closed_loop(hall(80, 0, 0), 2, LinkFaults::default());
    floor.run(6_000);
    let rows = 80usize.div_ceil(COLUMNS - 2);
    // The lane above the last row of parking places, from wall to wall: 66 robots stand beyond.
    let places = floor.plan().place_spots.len() as u16;
    let row = |p: &u16| usize::from(*p) / COLUMNS == 2 * (rows - 1);
    floor.close_all(&Closed { places: (0..places).filter(row).collect(), ..Closed::default() });
    retrieve(&mut floor, 20);
    for _ in 0..120 {
        floor.run(5_000);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert!(carriers(&floor).iter().all(|id| robots(&floor).iter().position(|r| r == id).unwrap() >= 66));
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}

#[test]
fn where_nobody_can_come_that_is_told_and_when_the_way_is_open_the_load_is_fetched() {
    for count in [3, 80] {
        let mut floor = closed_loop(hall(count, 0, 0), 3, LinkFaults::default());
        floor.run(6_000);
        let stop = floor.plan().place("A").unwrap();
        floor.close(&[stop], &[]);
        retrieve(&mut floor, 3);
        floor.run(60_000);
        let waits: Vec<&str> =
            floor.controller.nobody_comes().iter().map(|pos| floor.plan().position_name(*pos)).collect();
        assert_eq!(waits, ["out-exit"], "{count} robots\n{}", floor.situation());
        assert!(carriers(&floor).is_empty());
        floor.close(&[], &[]);
        floor.run(240_000);
        assert!(
            floor.controller.nobody_comes().is_empty() && floor.controller.orders().is_empty(),
            "{}",
            floor.situation()
        );
        assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
    }
}

/// Where a load would have to go nobody can drive: it is not fetched either.
#[test]
fn a_load_that_cannot_be_brought_where_it_goes_is_left_where_it_stands() {
    let mut floor = closed_loop(hall(4, 0, 0), 4, LinkFaults::default());
    floor.run(6_000);
    let stop = floor.plan().place("C").unwrap();
    floor.close(&[stop], &[]);
    retrieve(&mut floor, 2);
    floor.run(60_000);
    assert_eq!(floor.controller.nobody_comes().len(), 1, "{}", floor.situation());
    assert!(carriers(&floor).is_empty());
    floor.close(&[], &[]);
    floor.run(240_000);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
}

#[test]
fn more_loads_wait_than_are_matched_at_once_and_every_one_is_fetched() {
    const DOCKS: usize = 70;
    let mut floor = closed_loop(hall(80, 0, DOCKS), 5, LinkFaults::default());
    floor.run(6_000);
    for n in 0..DOCKS {
        let (dock, load) = (floor.plan().zone(&format!("dock-{n}")).unwrap().0, LoadId::new(5_000 + n as u32).unwrap());
        floor.plant.deliver_to(load, dock);
        floor.order(order(1 + n as u32, load, Stops::RETRIEVE, (n % 4) as u8, 600_000));
    }
    let mut most = 0;
    for _ in 0..1_800 {
        floor.run(1_000);
        let busy = robots(&floor).into_iter().filter(|id| floor.controller.busy_with(*id).0.is_some()).count();
        most = most.max(busy);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert_eq!(floor.counters().orders_completed, DOCKS as u64);
    println!("at most {most} robots had something to do at once");
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}

/// Two robots with hardly anything left and one charger: one drives there, the other one waits, and is given nothing to do. A third one
/// does the work.
#[test]
fn a_robot_whose_battery_is_too_low_is_given_nothing_but_the_way_to_a_charger() {
    let mut floor = closed_loop(hall(3, 1, 0), 6, LinkFaults::default());
    floor.run(6_000);
    let all = robots(&floor);
    for id in &all[..2] {
        floor.plant.set_charge(*id, 0.1);
    }
    floor.plant.set_charge(all[2], 0.9);
    // The third one is out of order: whoever takes a leg now is too low.
    floor.plant.set_mode(all[2], control_core::image::Mode::Manual);
    retrieve(&mut floor, 3);
    let (mut given, mut had) = (0, [false; 2]);
    for _ in 0..3_300 {
        floor.run(10);
        for (id, had) in all.iter().zip(&mut had) {
            let has = floor.controller.busy_with(*id).0.is_some();
            given += u32::from(has && !*had);
            *had = has;
        }
    }
    assert_eq!(given, 0, "legs that were given to a robot that cannot do them");
    floor.plant.set_mode(all[2], control_core::image::Mode::Auto);
    floor.run(500);
    floor.request(control_core::cycle::Request::AcknowledgeAll);
    for _ in 0..60 {
        floor.run(10_000);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert!(floor.plant.loads().at(deck(floor.plan(), all[0])).is_none());
}
