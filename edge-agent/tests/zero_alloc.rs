//! A control cycle allocates nothing: counted by an allocator that knows when it is asked from inside a cycle.

#[path = "support/counting.rs"]
mod counting;

use control_core::order::{OrderRequest, Stops};
use control_core::units::{LoadId, OrderId};
use counting::counted;
use floor_plan::Arena;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};

#[test]
fn no_cycle_allocates_or_frees_from_the_first_to_the_last() {
    let text = include_str!("../../configs/small/plant.toml");
    let mut config = PlantConfig::from_toml(text).unwrap();
    config.faults.drive_fault = 0.05;
    let faults = LinkFaults { read_lost: 0.1, write_lost: 0.1, ack_lost: 0.1, delay_ms_max: 200 };
    let arena = Arena::new();
    let mut floor = ClosedLoop::new(&arena, config, 1, faults).unwrap();
    let (mut cycles, mut allocations) = (0u64, 0u64);
    for n in 1..=60u32 {
        let load = LoadId::new(1000 + n).unwrap();
        let stops = if n % 2 == 0 { Stops::RETRIEVE } else { Stops::process(0, 1) };
        floor.order(OrderRequest::new(OrderId(n), load, stops));
        floor.run_for(10_000, |cycle| {
            allocations += counted(cycle);
            cycles += 1;
        });
    }
    assert_eq!(allocations, 0, "in {cycles} cycles");
    assert!(cycles == 60_000 && floor.counters().orders_completed > 20, "{:?}", floor.counters());
}

#[test]
fn nor_does_one_of_a_hall_with_mobile_robots_two_aisles_and_four_cells() {
    let text = include_str!("../../configs/demo/plant.toml");
    let read = |_: &std::path::Path| Ok(include_str!("../../configs/demo/floor.toml").to_string());
    let mut config = PlantConfig::read(text, read).unwrap();
    config.faults.drive_fault = 0.02;
    let faults = LinkFaults { read_lost: 0.05, write_lost: 0.05, ack_lost: 0.05, delay_ms_max: 100 };
    let arena = Arena::new();
    let mut floor = ClosedLoop::new(&arena, config, 1, faults).unwrap();
    let (asked_for, mut allocations, mut cycles) = (arena.bytes(), 0u64, 0u64);
    for n in 1..=60u32 {
        let load = LoadId::new(1000 + n).unwrap();
        let stops = if n % 2 == 0 { Stops::RETRIEVE } else { Stops::process((n % 4 / 2) as u8, 1) };
        floor.order(OrderRequest { class: (n % 4) as u8, ..OrderRequest::new(OrderId(n), load, stops) });
        floor.run_for(10_000, |cycle| {
            allocations += counted(cycle);
            cycles += 1;
        });
    }
    assert_eq!((allocations, arena.bytes()), (0, asked_for), "in {cycles} cycles");
    assert!(cycles == 60_000 && floor.counters().orders_completed > 10, "{:?}", floor.counters());
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}

#[test]
fn nor_one_of_a_rack_in_which_two_shuttles_change_tier() {
    let text = "[[aisle]]\nname = \"r\"\ntiers = 6\nbays = 8\nshuttles = 2\nlifts = 2\n\
                [[belt]]\nname = \"out\"\nfrom = \"r.lift-1\"\nto = \"outside\"\n\
                [[belt]]\nname = \"out-2\"\nfrom = \"r.lift-2\"\nto = \"outside\"\n";
    let config = PlantConfig::read("floor = \"rack.toml\"\nloads = 60\n", |_| Ok(text.into())).unwrap();
    let arena = Arena::new();
    let mut floor = ClosedLoop::new(&arena, config, 1, LinkFaults::default()).unwrap();
    let mut allocations = 0u64;
    for n in 1..=50u32 {
        floor.order(OrderRequest::new(OrderId(n), LoadId::new(1000 + n).unwrap(), Stops::RETRIEVE));
        floor.run_for(10_000, |cycle| allocations += counted(cycle));
    }
    assert!(allocations == 0 && floor.counters().orders_completed > 30, "{allocations}, {:?}", floor.counters());
}

#[test]
fn the_counter_counts() {
    // The test of the test: an allocation planted where a cycle would be is seen.
    assert_eq!(counted(|| drop(std::hint::black_box(vec![1u8; 16]))), 2);
}
