//! Robots that say they are where they cannot be: no place at all, one too far away, one that another robot has. Each stays an obstacle
//! where it was, named, until somebody has looked; nobody drives into it. The plant counts who meets whom.

mod support;

use control_core::EventKind;
use control_core::cycle::Request;
use control_core::fleet::Stray;
use control_core::order::Stops;
use control_core::traffic::roads::{NO_PLACE, Place};
use control_core::units::{LoadId, MachineId};
use plc_sim::PlantConfig;
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use std::collections::BTreeSet;
use support::{closed_loop, deck, order};

struct Hall {
    floor: ClosedLoop<'static>,
    rng: fastrand::Rng,
    orders: u32,
}

impl Hall {
    fn new(robots: u16, seed: u64) -> Hall {
        let text = include_str!("../../configs/demo/floor.toml").replace("count = 24", &format!("count = {robots}"));
        let mut config =
            PlantConfig::read(include_str!("../../configs/demo/plant.toml"), |_| Ok(text.clone())).unwrap();
        config.robot.charge = 1.0;
        let mut floor = closed_loop(config, seed, LinkFaults::default());
        floor.run(6_000);
        Hall { floor, rng: fastrand::Rng::with_seed(seed), orders: 0 }
    }

    /// An order every ten seconds, through a cell or out.
    fn work(&mut self, seconds: u32) {
        for second in 0..seconds {
            if second % 10 == 0 {
                let bays: Vec<LoadId> =
                    self.floor.plan().bays().filter_map(|b| self.floor.plant.loads().at(b)).collect();
                let load = bays[self.rng.usize(0..bays.len())];
                let stops = if self.orders.is_multiple_of(3) {
                    Stops::RETRIEVE
                } else {
                    Stops::process((self.orders % 2) as u8, 1)
                };
                self.orders += 1;
                self.floor.order(order(self.orders, load, stops, 2, 0));
            }
            self.floor.run(1_000);
        }
    }

    fn robots(&self) -> Vec<(MachineId, u16)> {
        self.floor.plan().view().robots().map(|(id, v, _)| (id, v)).collect()
    }

    fn vehicle(&self, id: MachineId) -> u16 {
        self.robots().into_iter().find(|(r, _)| *r == id).unwrap().1
    }

    /// A robot that is driving right now.
    fn one_that_drives(&mut self) -> MachineId {
        self.one(|hall, id| hall.floor.plant.machine(id).and_then(|m| m.robot()).is_some_and(|r| r.towards().is_some()))
    }

    /// A robot that carries a load over the roads right now.
    fn one_that_carries(&mut self) -> MachineId {
        self.one(|hall, id| {
            let loaded = hall.floor.plant.loads().at(deck(hall.floor.plan(), id)).is_some();
            loaded && hall.floor.plant.machine(id).and_then(|m| m.robot()).is_some_and(|r| r.towards().is_some())
        })
    }

    fn one(&mut self, is: impl Fn(&Hall, MachineId) -> bool) -> MachineId {
        for _ in 0..600 {
            if let Some((id, _)) = self.robots().into_iter().find(|(id, _)| is(self, *id)) {
                return id;
            }
            self.work(1);
        }
        panic!("none is like that\n{}", self.floor.situation());
    }

    fn really_at(&self, id: MachineId) -> Place {
        self.floor.plant.machine(id).and_then(|m| m.robot()).unwrap().at()
    }

    fn stray(&self, id: MachineId) -> Option<Stray> {
        self.floor.controller.stray(self.vehicle(id)).map(|(why, _)| why)
    }

    /// All places that are the robot's own.
    fn own(&self, id: MachineId) -> BTreeSet<Place> {
        self.floor.controller.traffic().path(self.vehicle(id)).collect()
    }

    fn done(&self) -> u64 {
        self.floor.counters().orders_completed
    }

    fn is_sound(&self) {
        let truth = self.floor.plant.truth();
        assert!(truth.is_clean(), "{truth:?}\n{}", self.floor.situation());
    }

    fn told(&self, id: MachineId) -> Vec<Stray> {
        let of = |e: &control_core::Event| match e.kind {
            EventKind::RobotAstray(who, _, why) if who == id => Some(why),
            _ => None,
        };
        self.floor.trace.iter().filter_map(of).collect()
    }

    /// A person puts a robot right, and says so.
    fn found(&mut self, id: MachineId) {
        self.floor.plant.lose_its_way(id, None);
        self.floor.run(200);
        self.floor.request(Request::Located(id));
    }

    /// A parking place that no robot has, and at which none is.
    fn free_parking_place(&self) -> Place {
        let traffic = self.floor.controller.traffic();
        *self.floor.plan().parking.iter().rev().find(|p| traffic.first_of(**p).is_none()).unwrap()
    }

    /// A free place far away from a robot.
    fn far_from(&self, id: MachineId) -> Place {
        let plan = self.floor.plan();
        let at = |p: Place| plan.place_spots[usize::from(p)];
        let here = at(self.really_at(id));
        let free = |p: &Place| self.floor.controller.traffic().first_of(*p).is_none();
        let places = (0..plan.place_spots.len() as Place).filter(free);
        let away = |p: &Place| ((at(*p).x - here.x).hypot(at(*p).y - here.y) * 1e3) as u64;
        places.max_by_key(away).unwrap()
    }
}

/// It stays where it was, is told nothing, and the others go around it; in the end they have done their work.
fn the_others_go_around(hall: &mut Hall, id: MachineId, why: Stray) {
    hall.floor.run(1_000);
    assert_eq!(hall.stray(id), Some(why));
    hall.floor.run(10_000); // it drives to the end of what it was told
    let (own, commands, done) = (hall.own(id), hall.floor.plant.truth().commands_executed, hall.done());
    assert!(own.contains(&hall.really_at(id)), "{} is not among {own:?}", hall.really_at(id));
    hall.work(300);
    hall.is_sound();
    assert_eq!(hall.own(id), own, "what was its own stays its own");
    assert_eq!(hall.told(id), [why], "it is told once");
    assert!(hall.floor.plant.truth().commands_executed > commands);
    // In a hall of lanes two wide three places are a wall: those that go round find it step by step.
    assert!(hall.done() > done + 4, "the others go on: {} of {}", hall.done() - done, hall.floor.situation());
}

#[test]
fn a_robot_that_does_not_know_where_it_is_stays_in_the_way_until_it_is_found_again() {
    for (n, says) in [NO_PLACE, 5_000].into_iter().enumerate() {
        let mut hall = Hall::new(12, 3 + n as u64);
        hall.work(60);
        let id = hall.one_that_drives();
        hall.floor.plant.lose_its_way(id, Some(says));
        the_others_go_around(&mut hall, id, Stray::NoPlace);
        // It finds its way again by itself.
        hall.floor.plant.lose_its_way(id, None);
        hall.floor.run(1_000);
        assert!(hall.stray(id).is_some(), "not at the first word");
        hall.work(300);
        assert_eq!(hall.stray(id), None);
        hall.is_sound();
    }
}

#[test]
fn a_robot_that_says_a_place_it_cannot_have_driven_to_is_not_believed_however_long_it_says_so() {
    let mut hall = Hall::new(12, 5);
    hall.work(60);
    let id = hall.one_that_drives();
    let says = hall.far_from(id);
    hall.floor.plant.lose_its_way(id, Some(says));
    the_others_go_around(&mut hall, id, Stray::OutOfReach);
    hall.found(id);
    hall.floor.run(500);
    assert_eq!(hall.stray(id), None);
    hall.work(120);
    hall.is_sound();
}

#[test]
fn a_robot_that_says_the_place_of_another_is_not_believed_nor_when_that_one_has_gone() {
    let mut hall = Hall::new(12, 7);
    hall.work(60);
    let id = hall.one_that_drives();
    let near: Vec<Place> = hall.floor.plan().view().roads().beside(hall.really_at(id)).to_vec();
    let other = hall.robots().into_iter().map(|(r, _)| r).find(|r| *r != id && !near.contains(&hall.really_at(*r)));
    let says = hall.really_at(other.unwrap());
    hall.floor.plant.lose_its_way(id, Some(says));
    hall.floor.run(1_000);
    assert!(hall.stray(id).is_some());
    hall.work(300);
    hall.is_sound();
    assert!(hall.stray(id).is_some() && hall.own(id).contains(&hall.really_at(id)));
    // Nor by a person's word while the other one is there.
    let holder = hall.robots().into_iter().map(|(r, _)| r).find(|r| *r != id).unwrap();
    let taken = hall.really_at(holder);
    hall.floor.plant.lose_its_way(id, Some(taken));
    hall.floor.run(200);
    hall.floor.request(Request::Located(id));
    hall.floor.run(20);
    if hall.own(holder).contains(&taken) {
        assert_eq!(hall.stray(id), Some(Stray::Taken));
    }
    hall.work(60);
    hall.is_sound();
}

#[test]
fn two_robots_that_lose_their_way_at_once_while_they_carry_loads_keep_them_and_bring_them_home_afterwards() {
    let mut hall = Hall::new(12, 11);
    hall.work(120);
    let first = hall.one_that_carries();
    hall.floor.plant.lose_its_way(first, Some(NO_PLACE));
    hall.floor.run(500);
    let second = hall.one(|hall, id| {
        let loaded = hall.floor.plant.loads().at(deck(hall.floor.plan(), id)).is_some();
        loaded && id != first
    });
    let far = hall.far_from(second);
    hall.floor.plant.lose_its_way(second, Some(far));
    let carried = |hall: &Hall, id| hall.floor.plant.loads().at(deck(hall.floor.plan(), id));
    let loads = [carried(&hall, first), carried(&hall, second)];
    hall.work(240);
    hall.is_sound();
    // One that was just putting its load down may have brought that to its end.
    assert_eq!(carried(&hall, first), loads[0]);
    assert!(hall.stray(first).is_some() && hall.stray(second).is_some());
    for id in [first, second] {
        hall.found(id);
    }
    for _ in 0..120 {
        hall.floor.run(10_000);
        if hall.floor.controller.orders().is_empty() {
            break;
        }
    }
    assert!(hall.floor.controller.orders().is_empty(), "{}", hall.floor.situation());
    hall.is_sound();
}

#[test]
fn after_a_restart_nobody_moves_before_a_robot_that_has_lost_its_way_is_found_or_taken_off() {
    for taken_off in [true, false] {
        let mut hall = Hall::new(12, 13);
        hall.work(60);
        let id = hall.one_that_drives();
        hall.floor.plant.lose_its_way(id, Some(NO_PLACE));
        hall.floor.run(30_000);
        hall.floor.restart_controller();
        hall.floor.run(20_000); // what was under way has come to its end
        let robots = hall.robots();
        let stand: Vec<Place> = robots.iter().map(|(id, _)| hall.really_at(*id)).collect();
        hall.work(60);
        assert_eq!(hall.stray(id), Some(Stray::NoPlace));
        assert_eq!(robots.iter().map(|(id, _)| hall.really_at(*id)).collect::<Vec<_>>(), stand, "nobody moves");
        if taken_off {
            hall.floor.plant.carry_off_robot(id, true);
            hall.floor.request(Request::Absent(id));
        } else {
            hall.floor.plant.lose_its_way(id, None);
        }
        let done = hall.done();
        hall.work(240);
        hall.is_sound();
        assert!(hall.done() > done + 8, "{}", hall.floor.situation());
        assert_eq!(hall.stray(id), None);
        assert_eq!(hall.floor.controller.traffic().is_present(hall.vehicle(id)), !taken_off);
    }
}

#[test]
fn a_robot_that_is_taken_off_the_floor_gives_its_place_back_and_comes_again_by_a_persons_word_alone() {
    let mut hall = Hall::new(12, 17);
    hall.work(60);
    let id = hall.one_that_drives();
    hall.floor.plant.lose_its_way(id, Some(NO_PLACE));
    hall.floor.run(10_000);
    // One that is where it is known to be is in the way whatever anybody says.
    let other = hall.robots().into_iter().map(|(r, _)| r).find(|r| *r != id).unwrap();
    hall.floor.request(Request::Absent(other));
    hall.floor.plant.carry_off_robot(id, true);
    hall.floor.request(Request::Absent(id));
    hall.floor.run(100);
    let traffic = hall.floor.controller.traffic();
    assert!(!traffic.is_present(hall.vehicle(id)) && traffic.is_present(hall.vehicle(other)));
    // It is switched on in the workshop, and says something.
    let far = hall.far_from(id);
    hall.floor.plant.lose_its_way(id, Some(far));
    hall.work(60);
    assert!(!hall.floor.controller.traffic().is_present(hall.vehicle(id)));
    // It is set down again, where nobody is.
    let free = hall.free_parking_place();
    assert!(hall.floor.plant.push_robot(id, free));
    hall.floor.plant.carry_off_robot(id, false);
    hall.found(id);
    hall.work(120);
    assert!(hall.floor.controller.traffic().is_present(hall.vehicle(id)));
    hall.is_sound();
}

#[test]
fn all_robots_that_lose_their_way_at_once_stop_nothing_but_themselves() {
    let mut hall = Hall::new(24, 19);
    hall.work(120);
    for (id, _) in hall.robots() {
        let far = hall.far_from(id);
        hall.floor.plant.lose_its_way(id, Some(far));
    }
    let before = hall.floor.controller.output().cycle;
    hall.floor.run(1_000);
    assert_eq!(hall.floor.controller.output().cycle - before, 100, "a cycle every 10 ms");
    assert!(hall.robots().iter().all(|(id, _)| hall.stray(*id).is_some()));
    hall.work(60);
    hall.is_sound();
    for (id, _) in hall.robots() {
        hall.found(id);
    }
    let done = hall.done();
    hall.work(240);
    assert!(hall.done() > done + 10, "{}", hall.floor.situation());
    hall.is_sound();
}
