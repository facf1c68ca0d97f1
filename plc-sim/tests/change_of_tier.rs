//! Racks with fewer shuttles than tiers, in virtual time: shuttles change tier on the lifts. Nobody moves under anybody, what a tier has is
//! done before the next change, what is urgent does not wait for that, and who is found on a lift, or half on it, gets off.

mod support;

use control_core::EventKind;
use control_core::command::Outcome;
use control_core::cycle::Request;
use control_core::image::{Command, CommandCode, Mode, Stand};
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId, OrderId};
use device_drivers::block::{Owner, decode_status, encode_command};
use floor_plan::FloorPlan;
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::{closed_loop, machine, order};

/// A rack of six tiers with a belt in and a belt out at each lift.
fn rack(shuttles: u16, lifts: u16) -> ClosedLoop<'static> {
    let mut text =
        format!("[[aisle]]\nname = \"r\"\ntiers = 6\nbays = 8\nlane = 2\nshuttles = {shuttles}\nlifts = {lifts}\n");
    for n in 1..=lifts {
        let lift = if lifts == 1 { "r.lift".to_string() } else { format!("r.lift-{n}") };
        text += &format!("[[belt]]\nname = \"in-{n}\"\nfrom = \"outside\"\nto = \"{lift}\"\n");
        text += &format!("[[belt]]\nname = \"out-{n}\"\nfrom = \"{lift}\"\nto = \"outside\"\n");
    }
    let plan = FloorPlan::parse(&text).unwrap();
    let mut config = PlantConfig::from_toml("tiers = 1\nbays_per_side = 1\nloads = 0\n").unwrap().on(Arc::new(plan));
    config.loads = 60;
    let mut floor = closed_loop(config, 11, LinkFaults::default());
    floor.run(6_000);
    floor
}

/// Loads in the bays of a tier.
fn loads_on(floor: &ClosedLoop<'_>, tier: u16) -> Vec<LoadId> {
    let bays = (0..).map_while(|n| floor.plan().bay(0, tier, n));
    bays.filter_map(|b| floor.plant.loads().at(b)).collect()
}

fn shuttles(floor: &ClosedLoop<'_>) -> Vec<MachineId> {
    floor.plan().aisles[0].shuttles.clone()
}

fn stand(floor: &ClosedLoop<'_>, id: MachineId) -> Stand {
    floor.plant.machine(id).map(|m| m.stand()).unwrap_or_default()
}

/// Changes of tier that were brought to their end.
fn changes(floor: &ClosedLoop<'_>) -> usize {
    let mut boards = BTreeSet::new();
    let mut done = 0;
    for event in &floor.trace {
        match event.kind {
            EventKind::CommandIssued { machine, seq, code: CommandCode::Board, .. } => {
                boards.insert((machine, seq));
            }
            EventKind::CommandEnded { machine, seq, outcome: Outcome::Done } => {
                done += usize::from(boards.remove(&(machine, seq)));
            }
            _ => {}
        }
    }
    done
}

fn when(floor: &ClosedLoop<'_>, order: u32) -> Option<u64> {
    let done = |e: &&control_core::Event| matches!(e.kind, EventKind::OrderCompleted(id) if id.0 == order);
    floor.trace.iter().find(done).map(|e| e.at.0)
}

/// Until every order has ended.
fn ends(floor: &mut ClosedLoop<'_>) {
    for _ in 0..600 {
        floor.run(5_000);
        if floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(floor.controller.orders().is_empty(), "{}", floor.situation());
    assert!(floor.plant.truth().is_clean(), "{:?}\n{}", floor.plant.truth(), floor.situation());
}

/// Runs until it is so; seldom longer than the ride that is asked for.
fn until(floor: &mut ClosedLoop<'_>, what: &str, is_so: impl Fn(&ClosedLoop<'_>) -> bool) {
    for _ in 0..60_000 {
        if is_so(floor) {
            return;
        }
        floor.run(10);
    }
    panic!("{what} never came about\n{}", floor.situation());
}

fn is_half_on(s: Stand) -> bool {
    matches!(s, Stand::Between(..))
}

#[test]
fn an_hour_of_orders_with_two_shuttles_for_six_tiers_and_nothing_is_left_over() {
    for lifts in [1, 2] {
        let mut floor = rack(2, lifts);
        let mut rng = fastrand::Rng::with_seed(4);
        let (mut id, mut fresh) = (0, 9_000);
        for _ in 0..60 {
            for _ in 0..2 {
                id += 1;
                let bays: Vec<LoadId> = floor.plan().bays().filter_map(|p| floor.plant.loads().at(p)).collect();
                if rng.bool() {
                    let load = bays[rng.usize(0..bays.len())];
                    floor.order(order(id, load, Stops::RETRIEVE, rng.u8(1..4), 0));
                } else {
                    fresh += 1;
                    let load = LoadId::new(fresh).unwrap();
                    floor.plant.deliver(load);
                    floor.order(order(id, load, Stops::STORE, 1, 3_600_000));
                }
            }
            floor.run(60_000);
        }
        ends(&mut floor);
        let counters = floor.counters();
        assert!(counters.orders_completed > 100, "{counters:?}");
        assert_eq!((counters.orders_failed, counters.commands_failed), (0, 0), "{counters:?}");
        assert!(changes(&floor) > 10, "they have to change tier for that: {}", changes(&floor));
    }
}

#[test]
fn what_a_tier_has_is_done_before_the_next_change() {
    let mut floor = rack(1, 1);
    let mut id = 0;
    let mut all: Vec<LoadId> = (0..6).flat_map(|tier| loads_on(&floor, tier).into_iter().take(5)).collect();
    fastrand::Rng::with_seed(2).shuffle(&mut all);
    for load in &all {
        id += 1;
        floor.order(order(id, *load, Stops::RETRIEVE, 1, 0));
    }
    ends(&mut floor);
    let n = changes(&floor);
    assert!(
        (5..=10).contains(&n),
        "{n} changes for {} loads of six tiers; one after the other would be about 25",
        all.len()
    );
}

#[test]
fn a_rush_order_on_a_tier_without_a_shuttle_does_not_wait_for_bulk_elsewhere() {
    let mut floor = rack(1, 1);
    let bulk: Vec<LoadId> = loads_on(&floor, 0);
    for (id, load) in (1..).zip(&bulk) {
        floor.order(order(id, *load, Stops::RETRIEVE, 3, 0));
    }
    floor.run(8_000);
    let rush = loads_on(&floor, 4)[0];
    floor.order(order(1_000, rush, Stops::RETRIEVE, 0, 0));
    ends(&mut floor);
    let at = when(&floor, 1_000).expect("it ends");
    let before = (1..=bulk.len() as u32).filter(|id| when(&floor, *id).is_some_and(|t| t < at)).count();
    assert!(before < bulk.len() - 1, "{before} of {} bulk orders were done before the rush order", bulk.len());
}

/// Its controller starts anew, its key is turned, the gateway is killed: each time while a shuttle is half on a lift.
#[test]
fn who_is_found_half_on_a_lift_gets_off_whatever_has_happened() {
    for what in 0..3 {
        let mut floor = rack(2, 1);
        let ids = shuttles(&floor);
        for (id, load) in
            (1..).zip(loads_on(&floor, 5).into_iter().chain(loads_on(&floor, 3)).take(6).collect::<Vec<_>>())
        {
            floor.order(order(id, load, Stops::RETRIEVE, 1, 0));
        }
        let half = |floor: &ClosedLoop<'_>| ids.iter().copied().find(|id| is_half_on(stand(floor, *id)));
        until(&mut floor, "a shuttle half on a lift", |f| half(f).is_some());
        let who = half(&floor).unwrap();
        match what {
            0 => floor.plant.reboot(who),
            1 => {
                floor.plant.set_mode(who, Mode::Manual);
                floor.run(20_000);
                assert!(is_half_on(stand(&floor, who)), "nobody may move it meanwhile");
                let lift = machine(floor.plan(), "r.lift");
                assert!(floor.plant.machine(lift).is_some_and(|m| m.job().is_none()), "nor the lift under it");
                floor.plant.set_mode(who, Mode::Auto);
                floor.run(1_000);
                floor.request(Request::AcknowledgeAll);
            }
            _ => floor.restart_controller(),
        }
        floor.run(60_000);
        assert!(!is_half_on(stand(&floor, who)), "{what}: {}", floor.situation());
        if what < 2 {
            ends(&mut floor);
        } else {
            assert!(floor.plant.truth().is_clean(), "{:?}", floor.plant.truth());
        }
    }
}

#[test]
fn a_lift_on_which_a_shuttle_stands_takes_no_load_and_the_other_goes_on() {
    let mut floor = rack(2, 2);
    let ids = shuttles(&floor);
    for (id, load) in (1..).zip(loads_on(&floor, 2)) {
        floor.order(order(id, load, Stops::RETRIEVE, 1, 0));
    }
    let aboard = |floor: &ClosedLoop<'_>| ids.iter().copied().find(|id| matches!(stand(floor, *id), Stand::Lift(_)));
    until(&mut floor, "a shuttle on a lift", |f| aboard(f).is_some());
    let who = aboard(&floor).unwrap();
    let Stand::Lift(number) = stand(&floor, who) else { panic!() };
    floor.plant.set_mode(who, Mode::Manual);
    let lifts = floor.plan().aisles[0].lifts.clone();
    let (under, other) = (lifts[usize::from(number) - 1], lifts[2 - usize::from(number)]);
    // The one that is left has work on its own tier.
    let rest = ids.iter().copied().find(|id| *id != who).unwrap();
    let Stand::Tier(tier) = stand(&floor, rest) else { panic!("{:?}", stand(&floor, rest)) };
    let (before, from) = (floor.plant.done(under), floor.plant.done(other));
    for (id, load) in (100..).zip(loads_on(&floor, u16::from(tier) - 1).into_iter().take(3)) {
        floor.order(order(id, load, Stops::RETRIEVE, 1, 0));
    }
    floor.run(120_000);
    assert!(floor.plant.done(under) <= before + 1, "the lift under it is told nothing");
    let at = |id| floor.plant.machine(id).map(|m| m.position());
    assert!(
        floor.plant.done(other) > from + 4,
        "{under:?} at {:?}, {other:?} at {:?}\n{}",
        at(under),
        at(other),
        floor.situation()
    );
    assert_eq!((100..103).filter(|id| when(&floor, *id).is_some()).count(), 3, "{}", floor.situation());
    floor.plant.set_mode(who, Mode::Auto);
    floor.run(1_000);
    floor.request(Request::AcknowledgeAll);
    ends(&mut floor);
}

#[test]
fn nobody_rides_into_a_closed_tier_or_out_of_one() {
    let mut floor = rack(1, 1);
    let tier = |floor: &ClosedLoop<'_>, n: usize| floor.plan().aisles[0].zones[n][0];
    let (first, fourth) = (tier(&floor, 0), tier(&floor, 3));
    floor.close(&[], &[fourth]);
    let load = loads_on(&floor, 3)[0];
    floor.order(order(1, load, Stops::RETRIEVE, 1, 0));
    floor.run(60_000);
    assert_eq!((changes(&floor), when(&floor, 1)), (0, None));
    floor.close(&[], &[first]);
    floor.run(60_000);
    assert_eq!((changes(&floor), when(&floor, 1)), (0, None), "it stands where somebody may be at work");
    floor.close(&[], &[]);
    ends(&mut floor);
    assert!(when(&floor, 1).is_some() && changes(&floor) == 1);
}

/// What a shuttle wants the lift for is withdrawn, at any instant of its way there, while another shuttle wants the same lift for
/// something else: nobody is left with half of what it needs (rmf_ros2 #369: the one had the lift's lane and the other the lift).
#[test]
fn a_ride_whose_reason_is_gone_leaves_the_lift_to_the_next() {
    let mut rng = fastrand::Rng::with_seed(369);
    let (mut rides, mut longest) = (0, 0);
    for _ in 0..3 {
        let mut floor = rack(2, 1);
        for n in 0..16 {
            let with_shuttle: Vec<Stand> = shuttles(&floor).iter().map(|id| stand(&floor, *id)).collect();
            let mut tiers: Vec<u16> = (0..6).filter(|t| !with_shuttle.contains(&Stand::Tier(*t as u8 + 1))).collect();
            rng.shuffle(&mut tiers);
            let mut loads = tiers.iter().filter_map(|tier| loads_on(&floor, *tier).first().copied());
            let (Some(first), Some(second)) = (loads.next(), loads.next()) else { panic!("{}", floor.situation()) };
            let (withdrawn, stays) = (2 * n + 1, 2 * n + 2);
            floor.order(order(withdrawn, first, Stops::RETRIEVE, 1, 0));
            floor.order(order(stays, second, Stops::RETRIEVE, 2, 0));
            floor.run(rng.u64(0..25_000));
            let (id, from) = (OrderId(withdrawn), floor.now().0);
            floor.request(if rng.bool() { Request::Withdraw(id) } else { Request::WithdrawNow(id) });
            until(&mut floor, "the end of the other order", |f| when(f, stays).is_some());
            longest = longest.max(floor.now().0 - from);
            ends(&mut floor);
        }
        rides += changes(&floor);
    }
    println!("{rides} rides; the other order ended {:.0} s after the withdrawal at most", longest as f64 / 1e3);
    assert!(rides > 48 && longest < 90_000, "{rides} {longest}");
}

/// The truth is looked at by who moves, not by who decides: a lift that is sent away under a shuttle is noticed.
#[test]
fn a_lift_that_goes_away_under_a_shuttle_is_seen_as_what_it_is() {
    let mut floor = rack(1, 1);
    let id = shuttles(&floor)[0];
    let load = loads_on(&floor, 3)[0];
    floor.order(order(1, load, Stops::RETRIEVE, 1, 0));
    until(&mut floor, "a shuttle half on a lift", |f| is_half_on(stand(f, id)));
    assert!(floor.plant.truth().is_clean());
    let lift = machine(floor.plan(), "r.lift");
    let to = floor.plan().view().tables().tiers[5].gate;
    let status = decode_status(&floor.plant.status_block(lift).unwrap()).unwrap();
    let output = floor.controller.output();
    let owner = Owner { token: output.token, heartbeat: output.heartbeat, authority: true, acknowledged: 0 };
    let command = Command {
        seq: status.seq_seen + 1,
        code: CommandCode::Move,
        pos: to,
        valid_ms: 2_000,
        issued_plc_ms: status.plc_time_ms,
        issued_boot: status.boot,
        ..Command::default()
    };
    floor.plant.write_block(lift, 0, &encode_command(owner, Some(command)));
    (0..50).for_each(|_| floor.plant.step(0.01));
    let truth = floor.plant.truth();
    assert!(truth.collisions == 1 && !truth.is_clean(), "{truth:?}");
    assert!(truth.first_collision.is_some_and(|text| text.contains("r.shuttle-1") && text.contains("r.lift")));
}
