//! The floor of the demo in virtual time: two aisles, four cells, a dock, twenty-four mobile robots, and orders of every kind; and the same
//! floor with robots of several sizes, and with a cap.

mod support;

use control_core::order::{Stop, Stops};
use control_core::units::LoadId;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use support::{closed_loop, order};

#[test]
fn an_hour_of_mixed_orders_ends_with_every_order_done_and_nobody_hit() {
    let floor = include_str!("../../configs/demo/floor.toml");
    let config = PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(floor.into())).unwrap();
    let mut floor = closed_loop(config, 1, LinkFaults::default());
    floor.run(6_000);
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut id, mut fresh) = (0, 9_000);
    let through_two = [Stop::Station { group: 0, program: 1 }, Stop::Station { group: 1, program: 2 }, Stop::Outside];
    for _ in 0..60 {
        for _ in 0..5 {
            id += 1;
            let bays: Vec<LoadId> = floor.plan().bays().filter_map(|p| floor.plant.loads().at(p)).collect();
            let load = bays[rng.usize(0..bays.len())];
            let (load, stops) = match rng.u8(0..10) {
                0..=2 => {
                    fresh += 1;
                    let load = LoadId::new(fresh).unwrap();
                    floor.plant.deliver(load);
                    (load, Stops::STORE)
                }
                3..=5 => (load, Stops::RETRIEVE),
                6..=7 => (load, Stops::process(rng.u8(0..2), rng.u16(1..3))),
                _ => (load, Stops::new(&through_two).unwrap()),
            };
            let wait_ms = if stops == Stops::STORE { 3_600_000 } else { 0 };
            floor.order(order(id, load, stops, rng.u8(1..4), wait_ms));
        }
        floor.run(60_000);
        assert!(floor.plant.truth().is_clean(), "{:?}\n{}", floor.plant.truth(), floor.situation());
    }
    for _ in 0..120 {
        if floor.controller.orders().is_empty() {
            break;
        }
        floor.run(10_000);
    }
    let counters = floor.counters();
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert_eq!((counters.orders_failed, counters.commands_failed), (0, 0), "{counters:?}");
    assert!(counters.orders_completed > 250, "{counters:?}");
}

/// The floor of the demo with its text changed, and some minutes of bulk orders on it. Returns how many were done.
fn minutes(change: &[(&str, &str)], minutes: u32, every_s: u32, mut look: impl FnMut(&ClosedLoop<'static>)) -> u64 {
    let mut text = include_str!("../../configs/demo/floor.toml").to_string();
    for (from, to) in change {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let config = PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(text.clone())).unwrap();
    let mut floor = closed_loop(config, 2, LinkFaults::default());
    floor.run(6_000);
    let mut rng = fastrand::Rng::with_seed(8);
    for second in 0..minutes * 60 {
        if second % every_s == 0 {
            let bays: Vec<LoadId> = floor.plan().bays().filter_map(|p| floor.plant.loads().at(p)).collect();
            let load = bays[rng.usize(0..bays.len())];
            floor.order(order(second + 1, load, Stops::process(rng.u8(0..2), 1), 3, 0));
        }
        floor.run(1_000);
        look(&floor);
    }
    assert!(floor.plant.truth().is_clean(), "{:?}\n{}", floor.plant.truth(), floor.situation());
    floor.counters().orders_completed
}

#[test]
fn large_slow_robots_and_small_fast_ones_keep_out_of_each_others_way() {
    // Of the large ones two do not fit beside each other anywhere: every place is in the way of those beside it.
    let kinds = "drive = { speed = 2.0, acceleration = 1.0 }\n\n\
        [[robots.kind]]\ncount = 2\nsize = [1.3, 0.9]\ndrive = { speed = 0.6, acceleration = 0.4 }\n";
    let change = [
        ("count = 24\n", "count = 4\n"),
        ("drive = { speed = 2.0, acceleration = 1.0 }\n", kinds),
        ("pitch = 1.2\n", "pitch = 1.2\nunproven = true\n"),
        ("@PPPPPPPPPPPPPPPPPPPPPPPP@", "@P.P.P.P.P.P.P.P.P.P.P.P.@"),
    ];
    let mut apart = 0;
    let done = minutes(&change, 20, 30, |floor| {
        let plan = floor.plan();
        apart = plan.roads.near.len() / 2;
        let view = plan.view();
        assert_eq!(view.robots().count(), 6);
    });
    println!("{done} orders done, {apart} pairs of places that cannot be used at once");
    assert!(apart > 300 && done >= 10, "{done} orders, {apart} pairs");
}

#[test]
fn no_more_robots_have_work_in_an_area_than_its_cap_says() {
    let area = "[[roads.area]]\nname = \"cells\"\nfrom = [10.0, -50.0]\nto = [50.0, 50.0]\nrobots = 3\n[robots]\n";
    let most = |change: &[(&str, &str)]| {
        let mut most = 0;
        let done = minutes(change, 15, 8, |floor| {
            let plan = floor.plan();
            let view = plan.view();
            let inside = |pos| {
                let place = view.position(pos).map_or(usize::MAX, |p| usize::from(p.place));
                plan.place_spots.get(place).is_some_and(|s| s.x >= 10.0)
            };
            let has_work = |id| {
                let task = floor.controller.busy_with(id).0;
                task.is_some_and(|t| inside(t.source) || inside(t.target))
            };
            most = most.max(view.robots().filter(|(id, ..)| has_work(*id)).count());
        });
        (most, done)
    };
    let (open, capped) = (most(&[]), most(&[("[robots]\n", area)]));
    println!(
        "without a cap at most {} robots with work there and {} orders done, with it {} and {}",
        open.0, open.1, capped.0, capped.1
    );
    assert!(open.0 > 3 && capped.0 == 3, "{open:?} {capped:?}");
    assert!(capped.1 * 2 > open.1, "{open:?} {capped:?}");
}
