//! The control core against the plant, in virtual time: hours in seconds, from a seed, over links good and bad.
//!
//! A failing run prints its seed; `LIGHTSOUT_SEED=<n> cargo test -p plc-sim --test closed_loop` runs that one alone.

mod support;

use control_core::EventKind;
use control_core::cycle::Request;
use control_core::event::{OrderFault, RunState};
use control_core::image::Mode;
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId, OrderId, PosId};
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use plc_sim::{Plant, PlantConfig};
use support::{closed_loop, deck, demo, machine, order, passages, seeds};

fn again(seed: u64) -> String {
    format!("seed {seed}; again: LIGHTSOUT_SEED={seed} cargo test -p plc-sim --test closed_loop")
}

/// Feeds orders at random: stores with their deliveries, retrievals, trips through the cell; some of them nonsense.
struct Feeder {
    rng: fastrand::Rng,
    next_order: u32,
    next_load: u32,
    handed_in: u32,
}

impl Feeder {
    fn new(seed: u64) -> Feeder {
        Feeder { rng: fastrand::Rng::with_seed(seed), next_order: 1, next_load: 9_000, handed_in: 0 }
    }

    fn feed(&mut self, floor: &mut ClosedLoop<'_>) {
        let class = self.rng.u8(0..4);
        let inside: Vec<LoadId> = floor.plant.loads().all().collect();
        let pick = inside.get(self.rng.usize(0..inside.len().max(1))).copied();
        let (kind, load) = match self.rng.u8(0..10) {
            0..=2 => {
                self.next_load += 1;
                let load = LoadId::new(self.next_load).unwrap();
                floor.plant.deliver(load);
                (Stops::STORE, load)
            }
            3..=5 => (Stops::RETRIEVE, pick.unwrap_or(LoadId::new(1).unwrap())),
            6..=8 => (Stops::process(0, self.rng.u16(1..4)), pick.unwrap_or(LoadId::new(1).unwrap())),
            _ => (Stops::RETRIEVE, LoadId::new(4_000_000).unwrap()),
        };
        let wait_ms = if kind == Stops::STORE { 600_000 } else { 0 };
        floor.order(order(self.next_order, load, kind, class, wait_ms));
        self.next_order += 1;
        self.handed_in += 1;
    }
}

/// Runs a floor for `minutes` of orders, lets it finish, and returns it.
fn live(seed: u64, config: PlantConfig, faults: LinkFaults, minutes: u64) -> ClosedLoop<'static> {
    let mut floor = closed_loop(config, seed, faults);
    let mut feeder = Feeder::new(seed);
    floor.run(2_000);
    for _ in 0..minutes * 6 {
        feeder.feed(&mut floor);
        floor.run(10_000);
    }
    floor.faults = LinkFaults::default();
    for _ in 0..120 {
        if floor.controller.orders().is_empty() {
            break;
        }
        floor.run(10_000);
    }
    assert!(floor.controller.orders().is_empty(), "orders that never ended: {}{}", floor.situation(), again(seed));
    let answered = floor
        .trace
        .iter()
        .filter(|e| matches!(e.kind, EventKind::OrderAccepted(..) | EventKind::OrderRejected(..)))
        .count();
    assert_eq!(answered as u32, feeder.handed_in, "every order is answered once; {}", again(seed));
    assert!(floor.plant.truth().is_clean(), "{:?}; {}", floor.plant.truth(), again(seed));
    floor
}

#[test]
fn an_honest_plant_does_every_order_for_two_hours() {
    for seed in seeds(1..4) {
        let floor = live(seed, demo(), LinkFaults::default(), 120);
        let c = floor.counters();
        assert_eq!((c.orders_failed, c.commands_failed, c.commands_expired), (0, 0, 0), "{c:?}; {}", again(seed));
        assert_eq!(c.commands_sent, c.commands_done, "{}", again(seed));
        assert!(c.orders_completed > 500, "{c:?}; {}", again(seed));
    }
}

#[test]
fn a_flood_of_orders_on_a_nearly_full_rack_neither_locks_nor_costs_one_failed_command() {
    for seed in seeds(100..106) {
        let mut config = demo();
        config.loads = 150;
        let mut floor = closed_loop(config, seed, LinkFaults::default());
        let mut rng = fastrand::Rng::with_seed(seed);
        floor.run(2_000);
        let mut inside: Vec<LoadId> = floor.plant.loads().all().collect();
        rng.shuffle(&mut inside);
        for (id, load) in (1u32..).zip(inside.into_iter().take(100)) {
            let kind = if id % 4 == 0 { Stops::RETRIEVE } else { Stops::process(0, 1) };
            floor.order(order(id, load, kind, rng.u8(0..4), 0));
        }
        for n in 0..20 {
            let load = LoadId::new(7_000 + n).unwrap();
            floor.plant.deliver(load);
            floor.order(order(500 + n, load, Stops::STORE, 1, 3_600_000));
        }
        for _ in 0..240 {
            floor.run(10_000);
            if floor.controller.orders().is_empty() {
                break;
            }
        }
        let c = floor.counters();
        assert!(floor.controller.orders().is_empty(), "{}{}", floor.situation(), again(seed));
        assert_eq!((c.orders_failed, c.commands_failed, c.commands_expired), (0, 0, 0), "{c:?}; {}", again(seed));
        assert!(floor.plant.truth().is_clean(), "{:?}; {}", floor.plant.truth(), again(seed));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let bad = LinkFaults { read_lost: 0.1, write_lost: 0.1, ack_lost: 0.1, delay_ms_max: 80 };
    let hash = |seed| live(seed, demo(), bad, 10).trace_hash();
    assert_eq!(hash(11), hash(11));
    assert_ne!(hash(11), hash(12));
}

#[test]
fn no_command_is_executed_twice_over_a_link_that_loses_and_delays() {
    let bad = LinkFaults { read_lost: 0.2, write_lost: 0.2, ack_lost: 0.2, delay_ms_max: 400 };
    let mut executed = 0;
    for seed in seeds(20..40) {
        let floor = live(seed, demo(), bad, 30);
        executed += floor.plant.truth().commands_executed;
    }
    assert!(executed > 5_000 || std::env::var("LIGHTSOUT_SEED").is_ok(), "only {executed} commands");
}

#[test]
fn commands_that_fail_or_are_rejected_are_tried_again_and_every_order_ends() {
    for seed in seeds(50..60) {
        let mut config = demo();
        config.faults = plc_sim::config::Faults { drive_fault: 0.05, reject: 0.05, slow: 0.1 };
        let floor = live(seed, config, LinkFaults::default(), 30);
        let c = floor.counters();
        assert!(c.commands_failed > 20, "{c:?}; {}", again(seed));
        assert!(c.orders_completed > 100, "{c:?}; {}", again(seed));
    }
}

#[test]
fn a_restarted_agent_takes_over_what_is_in_motion() {
    for seed in seeds(70..75) {
        let mut floor = closed_loop(demo(), seed, LinkFaults::default());
        let mut feeder = Feeder::new(seed);
        floor.run(2_000);
        for _ in 0..20 {
            feeder.feed(&mut floor);
            feeder.feed(&mut floor);
            floor.run(7_300);
            floor.restart_controller();
            floor.run(5_000);
            assert_eq!(floor.controller.run_state(), RunState::Running, "{}", again(seed));
        }
        floor.run(300_000);
        assert!(floor.plant.truth().is_clean(), "{:?}; {}", floor.plant.truth(), again(seed));
        // Whatever stood in the way has been put away: nothing is left outside the bays.
        let mut astray = passages(floor.plan());
        astray.retain(|pos| floor.plant.loads().at(*pos).is_some());
        assert!(astray.is_empty(), "loads left at {astray:?}; {}", again(seed));
    }
}

#[test]
fn a_rack_controller_that_starts_anew_is_read_again_before_anything_moves() {
    for seed in seeds(80..85) {
        let mut floor = closed_loop(demo(), seed, LinkFaults::default());
        let mut feeder = Feeder::new(seed);
        floor.run(2_000);
        for round in 0..15 {
            feeder.feed(&mut floor);
            floor.run(4_700);
            let (cell, all) = (machine(floor.plan(), "cell"), floor.plan().view().machine_ids());
            let rebooting: Vec<MachineId> = all.filter(|id| (*id == cell) == (round % 3 == 0)).collect();
            for id in rebooting {
                floor.plant.reboot(id);
            }
            floor.run(3_000);
            assert_eq!(floor.controller.run_state(), RunState::Running, "back within 3 s; {}", again(seed));
        }
        floor.run(400_000);
        assert!(floor.controller.orders().is_empty(), "{}{}", floor.situation(), again(seed));
        assert!(floor.plant.truth().is_clean(), "{:?}; {}", floor.plant.truth(), again(seed));
    }
}

/// The command may be on its way when another controller of the same domain starts anew: it is waited for, and no other is made
/// meanwhile.
#[test]
fn a_command_that_is_on_its_way_while_its_domain_is_read_again_is_not_given_a_second_time() {
    let slow = LinkFaults { delay_ms_max: 300, ..LinkFaults::default() };
    for seed in seeds(0..12) {
        let mut floor = closed_loop(demo(), seed, slow);
        let mut feeder = Feeder::new(seed);
        floor.run(2_000);
        for round in 0..60 {
            feeder.feed(&mut floor);
            // One shuttle at a time, while all others and the lift are at work.
            floor.run(1_500 + 70 * round);
            let shuttle = machine(floor.plan(), &format!("shuttle-{}", 1 + round % 4));
            floor.plant.reboot(shuttle);
        }
        assert!(floor.plant.truth().is_clean(), "{:?}; {}{}", floor.plant.truth(), floor.situation(), again(seed));
    }
}

#[test]
fn a_cable_that_is_out_for_five_seconds_stops_the_machines_and_loses_nothing() {
    let mut floor = closed_loop(demo(), 3, LinkFaults::default());
    let mut feeder = Feeder::new(3);
    floor.run(2_000);
    for _ in 0..10 {
        feeder.feed(&mut floor);
        floor.run(6_000);
        floor.connected = false;
        floor.run(1_500);
        let executed = floor.plant.truth().commands_executed;
        floor.run(3_500);
        assert_eq!(floor.plant.truth().commands_executed, executed, "nothing starts while the cable is out");
        floor.connected = true;
        floor.run(5_000);
    }
    floor.run(300_000);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
}

#[test]
fn a_machine_taken_out_of_auto_is_not_commanded_until_a_person_acknowledges() {
    let mut floor = closed_loop(demo(), 5, LinkFaults::default());
    floor.run(2_000);
    let lift = machine(floor.plan(), "lift");
    let load = floor.plant.loads().all().next().unwrap();
    floor.order(order(1, load, Stops::RETRIEVE, 0, 0));
    floor.run(1_000);
    floor.plant.set_mode(lift, Mode::EmergencyStop);
    floor.run(2_000);
    floor.plant.set_mode(lift, Mode::Auto);
    let commands_to_lift = |floor: &ClosedLoop<'_>| {
        floor
            .trace
            .iter()
            .filter(|e| matches!(e.kind, EventKind::CommandIssued { machine, .. } if machine == lift))
            .count()
    };
    let before = commands_to_lift(&floor);
    floor.run(30_000);
    assert_eq!(commands_to_lift(&floor), before, "AUTO alone moves nothing");
    assert!(floor.plant.loads().all().any(|l| l == load));
    floor.request(Request::AcknowledgeAll);
    floor.run(30_000);
    assert_eq!(floor.counters().orders_completed, 1);
    assert!(floor.plant.truth().is_clean());
}

#[test]
fn a_load_carried_off_by_a_person_is_found_again_and_its_order_goes_on() {
    let mut floor = closed_loop(demo(), 8, LinkFaults::default());
    floor.run(2_000);
    let bays: Vec<PosId> = floor.plan().bays().collect();
    let from = bays.iter().copied().find(|p| floor.plant.loads().at(*p).is_some()).unwrap();
    let to = bays.iter().rev().copied().find(|p| floor.plant.loads().at(*p).is_none()).unwrap();
    let load = floor.plant.loads().at(from).unwrap();
    assert!(floor.plant.carry_off(from, to));
    floor.run(6_000);
    assert_eq!(floor.controller.stock().find(load), Some(to));
    floor.order(order(1, load, Stops::process(0, 1), 1, 0));
    floor.run(90_000);
    assert_eq!((floor.counters().orders_completed, floor.counters().orders_failed), (1, 0));
}

#[test]
fn a_load_that_comes_in_unannounced_is_put_away() {
    let mut floor = closed_loop(demo(), 9, LinkFaults::default());
    floor.run(2_000);
    let load = LoadId::new(777).unwrap();
    floor.plant.deliver(load);
    floor.run(60_000);
    let at = floor.controller.stock().find(load).unwrap();
    assert!(floor.plan().view().is_bay(at), "{at:?}");
    assert_eq!(floor.plant.loads().at(at), Some(load));
}

#[test]
fn orders_that_cannot_be_are_refused_with_the_reason() {
    let mut floor = closed_loop(demo(), 4, LinkFaults::default());
    let inside = floor.plant.loads().all().next().unwrap();
    let order = |id, kind, load| order(id, load, kind, 1, if kind == Stops::STORE { 5_000 } else { 0 });
    floor.order(order(1, Stops::RETRIEVE, inside));
    floor.run(10);
    floor.run(3_000);
    floor.order(order(2, Stops::RETRIEVE, LoadId::new(31_337).unwrap()));
    floor.order(order(3, Stops::RETRIEVE, inside));
    floor.order(order(4, Stops::process(0, 1), inside));
    floor.order(order(3, Stops::STORE, LoadId::new(31_338).unwrap()));
    floor.order(order(5, Stops::STORE, LoadId::new(31_339).unwrap()));
    floor.run(60_000);
    let verdicts: Vec<_> = floor
        .trace
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::OrderRejected(id, why) | EventKind::OrderFailed(id, why) => Some((id.0, why)),
            _ => None,
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            (1, OrderFault::NotReady),
            (2, OrderFault::UnknownLoad),
            (4, OrderFault::LoadBusy),
            (3, OrderFault::DuplicateId),
            (5, OrderFault::NeverArrived),
        ]
    );
}

#[test]
fn draining_brings_what_moves_to_its_end_and_then_withdraws_authority() {
    let mut floor = closed_loop(demo(), 6, LinkFaults::default());
    let mut feeder = Feeder::new(6);
    floor.run(2_000);
    for _ in 0..6 {
        feeder.feed(&mut floor);
    }
    floor.run(4_000);
    floor.request(Request::Drain);
    floor.run(30_000);
    assert_eq!(floor.controller.run_state(), RunState::Safe);
    for id in floor.plan().view().machine_ids() {
        assert_eq!(floor.plant.loads().at(deck(floor.plan(), id)), None, "{id:?} still carries a load");
    }
    let c = floor.counters();
    assert_eq!(c.commands_sent, c.commands_done);
}

#[test]
fn a_full_rack_refuses_to_store_and_goes_on_retrieving() {
    let mut config = demo();
    config.loads = 160;
    let mut floor = closed_loop(config, 2, LinkFaults::default());
    floor.run(2_000);
    let load = LoadId::new(123_456).unwrap();
    floor.order(order(1, load, Stops::STORE, 1, 1_000));
    let inside = floor.plant.loads().all().next().unwrap();
    floor.order(order(2, inside, Stops::RETRIEVE, 1, 0));
    floor.run(60_000);
    assert!(floor.trace.iter().any(|e| e.kind == EventKind::OrderRejected(OrderId(1), OrderFault::RackFull)));
    assert!(floor.trace.iter().any(|e| e.kind == EventKind::OrderCompleted(OrderId(2))));
}

#[test]
fn the_truth_notices_a_load_lost_and_a_command_executed_twice() {
    // The test of the tests: an honest plant is clean, and one that was tampered with is not.
    let mut plant = Plant::new(demo(), 1, 1).unwrap();
    assert!(plant.truth().is_clean());
    let infeed = plant.plan().zone("infeed").unwrap().1.entry();
    let mut snapshot = plant.loads().snapshot();
    snapshot[usize::from(infeed.0)] = snapshot.iter().copied().find(|l| *l != 0).unwrap();
    assert!(plant.restore(&snapshot).unwrap_err().contains("twice"));
}
