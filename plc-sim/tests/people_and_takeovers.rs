//! What comes from outside the plan: people who carry loads and turn key switches, gateways that take over, controllers that
//! freeze. Each was a way to lock the floor or to move what must not move, once.

mod support;

use control_core::cycle::Request;
use control_core::event::{Events, RunState};
use control_core::image::{Mode, Quality, Stamped};
use control_core::interlock::Hold;
use control_core::limits::Capacity;
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId, Millis, OrderId, PosId};
use control_core::{Controller, EventKind, Inputs, Settings, Word};
use device_drivers::block::{Owner, decode_status, encode_command};
use floor_plan::{FloorPlan, InputBuffer};
use plc_sim::Plant;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use support::{arena, closed_loop, deck, demo, machine};

const SHUTTLE: MachineId = MachineId(0);

fn floor(seed: u64) -> ClosedLoop<'static> {
    let mut floor = closed_loop(demo(), seed, LinkFaults::default());
    floor.run(4_000);
    assert_eq!(floor.controller.run_state(), RunState::Running);
    floor
}

fn order(id: u32, kind: Stops, load: LoadId) -> Request {
    Request::Order(support::order(id, load, kind, 1, 60_000))
}

fn lowest(plan: &FloorPlan) -> impl Iterator<Item = PosId> {
    plan.zone("tier-1").unwrap().1.positions()
}

/// Bays of the lowest tier with a load in them.
fn stocked(floor: &ClosedLoop<'_>) -> Vec<PosId> {
    lowest(floor.plan()).filter(|p| floor.plant.loads().at(*p).is_some()).collect()
}

fn at(floor: &ClosedLoop<'_>, pos: PosId) -> LoadId {
    floor.plant.loads().at(pos).unwrap()
}

#[test]
fn an_order_whose_bay_a_person_has_filled_is_promised_another() {
    let mut floor = floor(8);
    let bays = stocked(&floor);
    floor.request(order(1, Stops::process(0, 1), at(&floor, bays[0])));
    floor.run(15_000);
    assert!(floor.plant.carry_off(bays[1], bays[0]), "the load is under way, its bay is empty");
    floor.run(120_000);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert_eq!((floor.counters().orders_completed, floor.counters().orders_failed), (1, 0));
}

#[test]
fn every_order_ends_in_one_outcome_that_is_counted_and_withdrawn_is_one_of_them() {
    let mut floor = floor(8);
    let bays = stocked(&floor);
    let loads = [0, 1, 2].map(|n| at(&floor, bays[n]));
    for (id, load) in (1..).zip(loads) {
        floor.request(order(id, Stops::process(0, 1), load));
    }
    floor.run(1_000);
    floor.request(Request::Withdraw(OrderId(2)));
    floor.request(Request::WithdrawNow(OrderId(3)));
    floor.run(200_000);
    let c = floor.counters();
    let ended = c.orders_completed + c.orders_failed + c.orders_withdrawn;
    assert_eq!(c.orders_accepted, ended + floor.controller.orders().len() as u64, "{c:?}");
    assert_eq!(c.orders_withdrawn, 2, "{c:?}");
}

#[test]
fn a_load_that_a_person_puts_on_a_shuttle_is_noticed_and_put_away() {
    let mut floor = floor(8);
    let (bays, deck) = (stocked(&floor), deck(floor.plan(), SHUTTLE));
    let wanted = at(&floor, bays[1]);
    floor.plant.set_mode(SHUTTLE, Mode::Manual);
    floor.run(1_000);
    assert!(floor.plant.carry_off(bays[0], deck));
    floor.plant.set_mode(SHUTTLE, Mode::Auto);
    floor.run(1_000);
    floor.request(Request::AcknowledgeAll);
    floor.request(order(1, Stops::RETRIEVE, wanted));
    floor.run(90_000);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert_eq!(floor.plant.loads().at(deck), None);
}

#[test]
fn a_load_that_a_person_takes_off_a_shuttle_ends_its_order() {
    let mut floor = floor(8);
    let (bays, deck) = (stocked(&floor), deck(floor.plan(), SHUTTLE));
    let outside = floor.plan().zone("outfeed").unwrap().1.exit();
    floor.request(order(1, Stops::RETRIEVE, at(&floor, bays[0])));
    while floor.plant.loads().at(deck).is_none() {
        floor.run(10);
    }
    floor.plant.set_mode(SHUTTLE, Mode::EmergencyStop);
    floor.run(2_000);
    assert!(floor.plant.carry_off(deck, outside));
    floor.run(2_000);
    floor.plant.set_mode(SHUTTLE, Mode::Auto);
    floor.run(1_000);
    floor.request(Request::AcknowledgeAll);
    floor.run(90_000);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
}

fn commands_to_shuttle(floor: &ClosedLoop<'_>) -> usize {
    let is =
        |e: &&control_core::Event| matches!(e.kind, EventKind::CommandIssued { machine, .. } if machine == SHUTTLE);
    floor.trace.iter().filter(is).count()
}

/// A shuttle with an order under way leaves AUTO and comes back by `how`; nobody acknowledges.
fn moves_without_acknowledgement(how: impl FnOnce(&mut ClosedLoop<'static>)) -> bool {
    let mut floor = floor(5);
    let load = at(&floor, stocked(&floor)[0]);
    floor.request(order(1, Stops::RETRIEVE, load));
    floor.run(500);
    how(&mut floor);
    let before = commands_to_shuttle(&floor);
    floor.request(order(2, Stops::RETRIEVE, load));
    floor.run(60_000);
    let moved = commands_to_shuttle(&floor) > before;
    assert_eq!(floor.controller.hold(SHUTTLE), Some(Hold::NeedsAcknowledge));
    // And it goes on when somebody says so.
    floor.request(Request::AcknowledgeAll);
    floor.request(order(3, Stops::RETRIEVE, load));
    floor.run(60_000);
    assert_eq!(floor.controller.hold(SHUTTLE), None);
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    moved
}

#[test]
fn a_machine_that_left_auto_unseen_does_not_move_before_it_is_acknowledged() {
    let stop = |floor: &mut ClosedLoop<'static>, ms| {
        floor.plant.set_mode(SHUTTLE, Mode::EmergencyStop);
        floor.run(ms);
        floor.plant.set_mode(SHUTTLE, Mode::Auto);
    };
    assert!(
        !moves_without_acknowledgement(|f| {
            f.connected = false;
            f.run(1_000);
            stop(f, 5_000);
            f.connected = true;
        }),
        "while the cable was out"
    );
    assert!(!moves_without_acknowledgement(|f| stop(f, 20)), "between two polls");
    assert!(
        !moves_without_acknowledgement(|f| {
            stop(f, 2_000);
            f.run(2_000);
            f.restart_controller();
        }),
        "before the gateway was restarted"
    );
    assert!(
        !moves_without_acknowledgement(|f| {
            stop(f, 500);
            f.plant.reboot(SHUTTLE);
        }),
        "before its controller was restarted"
    );
}

fn words(floor: &ClosedLoop<'_>) -> Vec<(MachineId, Word)> {
    let said = |e: &control_core::Event| match e.kind {
        EventKind::Acknowledged(id, word) => Some((id, word)),
        _ => None,
    };
    floor.trace.iter().filter_map(said).collect()
}

#[test]
fn a_word_for_one_machine_releases_that_one_alone_and_each_word_is_answered() {
    let mut floor = floor(5);
    let (other, lift) = (MachineId(1), machine(floor.plan(), "lift"));
    let nobody = MachineId(700);
    for id in [SHUTTLE, other, lift] {
        floor.plant.set_mode(id, Mode::Manual);
    }
    floor.run(1_000);
    for id in [SHUTTLE, other] {
        floor.plant.set_mode(id, Mode::Auto);
    }
    floor.run(1_000);
    let idle = machine(floor.plan(), "cell");
    for id in [SHUTTLE, lift, idle, nobody] {
        floor.request(Request::Acknowledge(id));
    }
    floor.run(1_000);
    let want = [
        (SHUTTLE, Word::Released),
        (lift, Word::Held(Hold::NotAuto)),
        (idle, Word::NotNeeded),
        (nobody, Word::Held(Hold::NotSeen)),
    ];
    assert_eq!(words(&floor), want);
    let hold = |floor: &ClosedLoop<'_>, id| floor.controller.hold(id);
    assert_eq!(hold(&floor, SHUTTLE), None);
    assert_eq!(hold(&floor, other), Some(Hold::NeedsAcknowledge), "nobody has spoken of it");
    // A word is for now: a machine that comes back later needs another.
    floor.plant.set_mode(lift, Mode::Auto);
    floor.run(2_000);
    assert_eq!(hold(&floor, lift), Some(Hold::NeedsAcknowledge));
}

#[test]
fn a_word_for_all_passes_over_those_that_need_none_and_names_those_that_are_not_ready() {
    let mut floor = floor(5);
    let (other, lift) = (MachineId(1), machine(floor.plan(), "lift"));
    for id in [SHUTTLE, other, lift] {
        floor.plant.set_mode(id, Mode::EmergencyStop);
    }
    floor.run(1_000);
    floor.plant.set_mode(SHUTTLE, Mode::Auto);
    floor.plant.set_mode(other, Mode::Auto);
    floor.run(1_000);
    floor.silent.insert(other);
    floor.run(1_000);
    floor.request(Request::AcknowledgeAll);
    floor.run(1_000);
    let mut said = words(&floor);
    said.sort_by_key(|(id, _)| id.0);
    let want = [(SHUTTLE, Word::Released), (other, Word::Held(Hold::NotSeen)), (lift, Word::Held(Hold::EmergencyStop))];
    assert_eq!(said, want);
    assert_eq!(floor.trace.iter().filter(|e| e.kind == EventKind::AcknowledgedAll).count(), 1);
    assert_eq!(floor.controller.hold(SHUTTLE), None);
}

/// A controller with an image of its own, beside others, on one plant.
struct Gateway {
    controller: Controller<'static>,
    image: InputBuffer,
    events: Events,
}

impl Gateway {
    fn new(plant: &Plant) -> Gateway {
        let plan = plant.plan();
        let controller = Controller::new(&arena(), &Capacity::of(&plan.view(), 64), Settings::default());
        let image = InputBuffer::new(plan.machine_count(), plan.position_count());
        Gateway { controller, image, events: Events::default() }
    }

    fn read(&mut self, plant: &Plant, now: u64, cell: bool) {
        let (plan, the_cell) = (plant.plan(), machine(plant.plan(), "cell"));
        for id in plan.view().machine_ids().filter(|id| cell || *id != the_cell) {
            let words = plant.status_block(id).unwrap();
            let value = decode_status(&words).unwrap();
            self.image.set_machine(id, Stamped { value, quality: Quality::Good, at: Millis(now) });
        }
        for pos in (0..plan.sensed()).map(PosId) {
            let value = plant.loads().at(pos);
            self.image.set_position(pos, Stamped { value, quality: Quality::Good, at: Millis(now) });
        }
    }

    fn cycle(&mut self, plant: &Plant, now: u64, requests: &[Request]) {
        let floor = plant.plan().view();
        let inputs = Inputs { floor: &floor, image: self.image.view(), requests, degraded: false };
        self.controller.cycle(Millis(now), &inputs, &mut self.events);
    }

    fn write(&self, plant: &mut Plant, cell: bool) {
        let image = self.controller.output();
        if !image.write {
            return;
        }
        let (plan, the_cell) = (plant.plan().clone(), machine(plant.plan(), "cell"));
        for id in plan.view().machine_ids().filter(|id| cell || *id != the_cell) {
            let acknowledged = image.acknowledged(id);
            let owner =
                Owner { token: image.token, heartbeat: image.heartbeat, authority: image.authority, acknowledged };
            plant.write_block(id, 0, &encode_command(owner, image.command(id)));
        }
    }

    /// Lives for so many cycles of 10 ms; the cell is seen or not.
    fn live(&mut self, plant: &mut Plant, now: &mut u64, cycles: u64, cell: bool) {
        for n in 0..cycles {
            *now += 10;
            plant.step(0.01);
            if n % 5 == 0 {
                self.read(plant, *now, cell);
            }
            self.cycle(plant, *now, &[]);
            self.write(plant, cell);
        }
    }
}

#[test]
fn a_command_of_the_gateway_before_us_that_arrives_late_is_not_taken_for_ours() {
    for late in 1..60 {
        let mut plant = Plant::new(demo(), 1, 1).unwrap();
        let loads: Vec<LoadId> = lowest(plant.plan()).filter_map(|p| plant.loads().at(p)).collect();
        let mut now = 0;
        let mut first = Gateway::new(&plant);
        first.live(&mut plant, &mut now, 300, true);
        first.cycle(&plant, now, &[order(1, Stops::RETRIEVE, loads[0])]);
        first.cycle(&plant, now + 10, &[]);

        // The second gateway lives for a while; then what the first one had sent arrives.
        let mut second = Gateway::new(&plant);
        second.live(&mut plant, &mut now, late, true);
        first.write(&mut plant, true);
        second.cycle(&plant, now, &[order(1, Stops::RETRIEVE, loads[1])]);
        second.live(&mut plant, &mut now, 500, true);
        assert_eq!(second.controller.run_state(), RunState::Running, "late by {late} cycles");
        second.cycle(&plant, now, &[order(2, Stops::RETRIEVE, loads[1])]);
        second.live(&mut plant, &mut now, 12_000, true);
        assert!(second.controller.orders().is_empty(), "late by {late} cycles");
        let deck = deck(plant.plan(), SHUTTLE);
        assert_eq!(plant.loads().at(deck), second.controller.stock().at(deck));
        assert!(plant.truth().is_clean(), "late by {late} cycles: {:?}", plant.truth());
    }
}

#[test]
fn a_gateway_that_is_replaced_while_it_lives_is_fenced_and_falls_silent() {
    let mut plant = Plant::new(demo(), 1, 1).unwrap();
    let mut now = 0;
    let mut first = Gateway::new(&plant);
    first.live(&mut plant, &mut now, 300, true);
    let mut second = Gateway::new(&plant);
    for n in 0..600 {
        now += 10;
        plant.step(0.01);
        for gateway in [&mut first, &mut second] {
            if n % 5 == 0 {
                gateway.read(&plant, now, true);
            }
            gateway.cycle(&plant, now, &[]);
            gateway.write(&mut plant, true);
        }
    }
    assert_eq!(first.controller.run_state(), RunState::Fenced);
    assert!(!first.controller.output().write);
    assert_eq!(second.controller.run_state(), RunState::Running);
}

#[test]
fn a_gateway_is_not_fenced_by_its_own_past_on_a_controller_it_sees_late() {
    let mut plant = Plant::new(demo(), 1, 1).unwrap();
    let (plan, cell) = (plant.plan().clone(), machine(plant.plan(), "cell"));
    let mut now = 0;
    for _ in 0..3 {
        Gateway::new(&plant).live(&mut plant, &mut now, 400, true);
    }
    for id in plan.view().machine_ids().filter(|id| *id != cell) {
        plant.reboot(id); // the rack forgets the tokens, the cell does not
    }
    let mut late = Gateway::new(&plant);
    late.live(&mut plant, &mut now, 400, false);
    assert_eq!(late.controller.run_state(), RunState::Running);
    late.live(&mut plant, &mut now, 400, true);
    assert_eq!(late.controller.run_state(), RunState::Running);
    assert_eq!(late.controller.hold(cell), None, "and it commands the cell");
}

#[test]
fn a_controller_that_answers_but_does_not_run_any_more_is_not_seen() {
    let mut plant = Plant::new(demo(), 1, 1).unwrap();
    let load = lowest(plant.plan()).find_map(|p| plant.loads().at(p)).unwrap();
    let mut now = 0;
    let mut gateway = Gateway::new(&plant);
    gateway.live(&mut plant, &mut now, 400, true);
    assert_eq!(gateway.controller.hold(SHUTTLE), None);
    for n in 0..200 {
        now += 10; // the plant does not step: its program stands still, its registers are answered
        if n % 5 == 0 {
            gateway.read(&plant, now, true);
        }
        gateway.cycle(&plant, now, &[]);
    }
    assert_eq!(gateway.controller.hold(SHUTTLE), Some(Hold::NotSeen));
    gateway.cycle(&plant, now, &[order(1, Stops::RETRIEVE, load)]);
    assert_eq!(gateway.controller.busy_with(SHUTTLE), (None, None));
}
