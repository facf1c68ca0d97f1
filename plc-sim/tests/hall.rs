//! The floor of the demo in virtual time: two aisles, four cells, a dock, twenty-four mobile robots, and orders of every kind.

mod support;

use control_core::order::{Stop, Stops};
use control_core::units::LoadId;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::LinkFaults;
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
