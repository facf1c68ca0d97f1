//! Everything at once, from a seed: bad links, drives that give up, gateways and controllers that start anew, key switches,
//! people who carry loads, loads nobody announced, racks with hardly a bay to spare.
//!
//! Whatever happens, the truth stays clean, every order ends, and afterwards the floor works: nothing is left standing where
//! others have to pass, and it takes new orders. `LIGHTSOUT_SEEDS=500` tries more; a failing run prints how to run it again.

mod support;

use control_core::cycle::Request;
use control_core::image::Mode;
use control_core::order::Stops;
use control_core::units::{LoadId, MachineId, PosId};
use plc_sim::closed_loop::{ClosedLoop, LinkFaults};
use plc_sim::config::Faults;
use support::{closed_loop, demo, machine, order, passages};

/// What may happen.
#[derive(Clone, Copy, Debug, Default)]
struct May {
    drives_fail: bool,
    link_fails: bool,
    gateway_restarts: bool,
    controllers_restart: bool,
    keys_turn: bool,
    people_carry: bool,
    loads_come_unannounced: bool,
    cable_is_pulled: bool,
}

struct Chaos {
    floor: ClosedLoop<'static>,
    rng: fastrand::Rng,
    next_order: u32,
    next_load: u32,
    bays: u16,
}

impl Chaos {
    fn new(seed: u64, loads: u16, may: May) -> Chaos {
        let mut config = demo();
        config.loads = loads;
        if may.drives_fail {
            config.faults = Faults { drive_fault: 0.03, reject: 0.03, slow: 0.1 };
        }
        let link = match may.link_fails {
            true => LinkFaults { read_lost: 0.15, write_lost: 0.15, ack_lost: 0.15, delay_ms_max: 300 },
            false => LinkFaults::default(),
        };
        let floor = closed_loop(config, seed, link);
        let bays = floor.plan().bays().count() as u16;
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(77));
        Chaos { floor, rng, next_order: 1, next_load: 9_000, bays }
    }

    fn order(&mut self, kind: Stops, load: LoadId, class: u8) {
        self.floor.order(order(self.next_order, load, kind, class, 60_000));
        self.next_order += 1;
    }

    fn some_orders(&mut self, may: May) {
        for _ in 0..self.rng.u8(1..6) {
            let inside: Vec<LoadId> = self.floor.plant.loads().all().collect();
            let Some(pick) = self.rng.choice(inside) else { continue };
            let class = self.rng.u8(0..4);
            let dice = self.rng.u8(0..10);
            if dice <= 2 || (dice == 3 && may.loads_come_unannounced) {
                self.next_load += 1;
                let load = LoadId::new(self.next_load).unwrap();
                self.floor.plant.deliver(load);
                if dice <= 2 {
                    self.order(Stops::STORE, load, class);
                }
            } else if dice <= 5 {
                self.order(Stops::RETRIEVE, pick, class);
            } else {
                let program = self.rng.u16(0..4);
                self.order(Stops::process(0, program), pick, class);
            }
        }
    }

    fn something_happens(&mut self, may: May) {
        let plan = self.floor.plant.plan().clone();
        match self.rng.u8(0..6) {
            0 if may.gateway_restarts => self.floor.restart_controller(),
            1 if may.controllers_restart => {
                let cell_only = self.rng.bool();
                for id in plan.view().machine_ids().filter(|id| (*id == machine(&plan, "cell")) == cell_only) {
                    self.floor.plant.reboot(id);
                }
            }
            2 if may.keys_turn => {
                let id = MachineId(self.rng.u16(0..plan.machine_count() as u16));
                let mode = if self.rng.bool() { Mode::Manual } else { Mode::EmergencyStop };
                self.floor.plant.set_mode(id, mode);
                let (off, on) = (self.rng.u64(1..300) * 10, self.rng.u64(10..300) * 10);
                self.floor.run(off);
                self.floor.plant.set_mode(id, Mode::Auto);
                self.floor.run(on);
                self.floor.request(Request::AcknowledgeAll);
            }
            3 if may.people_carry => {
                let (from, to) = (PosId(self.rng.u16(0..self.bays)), PosId(self.rng.u16(0..self.bays)));
                self.floor.plant.carry_off(from, to);
            }
            4 if may.cable_is_pulled => {
                self.floor.connected = false;
                let out = self.rng.u64(10..700) * 10;
                self.floor.run(out);
                self.floor.connected = true;
            }
            _ => {}
        }
    }

    /// Lives through it, then checks that every order ended and that the floor works.
    fn live(&mut self, may: May) -> Result<(), String> {
        self.floor.run(4_000);
        for _ in 0..40 {
            self.some_orders(may);
            let for_ms = self.rng.u64(100..900) * 10;
            self.floor.run(for_ms);
            self.something_happens(may);
        }
        self.floor.faults = LinkFaults::default();
        self.floor.run(3_000);
        self.floor.request(Request::AcknowledgeAll);
        self.ended("after it all")?;
        self.floor.run(60_000); // found loads come last
        self.ended("after the found ones")?;

        let some: Vec<LoadId> = (0..self.bays).filter_map(|n| self.floor.plant.loads().at(PosId(n))).take(8).collect();
        let (left, count) = (self.floor.plant.truth().loads_left, some.len());
        for load in some {
            self.order(Stops::RETRIEVE, load, 0);
        }
        self.ended("of the orders that show that it works")?;
        self.floor.run(10_000);
        let truth = self.floor.plant.truth();
        if truth.loads_left < left + count {
            return Err(format!("only {} of {count} left", truth.loads_left - left));
        }
        // Lorries may still be waiting outside; in the end nothing stands where others have to pass.
        let mut astray = self.astray();
        for _ in 0..360 {
            if astray.is_empty() {
                return Ok(());
            }
            self.floor.run(10_000);
            astray = self.astray();
        }
        Err(format!("loads stand at {astray:?}"))
    }

    fn astray(&self) -> Vec<String> {
        let (plan, loads) = (self.floor.plan(), self.floor.plant.loads());
        let loaded = passages(plan).into_iter().filter(|pos| loads.at(*pos).is_some());
        loaded.map(|pos| plan.position_name(pos).to_string()).collect()
    }

    fn ended(&mut self, when: &str) -> Result<(), String> {
        self.floor.run(2_000); // whatever was handed in is in the books now
        for _ in 0..360 {
            if self.floor.controller.orders().is_empty() {
                break;
            }
            self.floor.run(10_000);
        }
        let truth = self.floor.plant.truth();
        if !truth.is_clean() {
            return Err(format!("{truth:?}"));
        }
        if !self.floor.controller.orders().is_empty() {
            return Err(format!("orders that never end, {when}"));
        }
        Ok(())
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("LIGHTSOUT_SEED").ok().map(|s| s.parse().expect("a number")) {
        Some(seed) => vec![seed],
        None => (1..=std::env::var("LIGHTSOUT_SEEDS").map_or(count, |n| n.parse().expect("a number"))).collect(),
    }
}

fn try_all(test: &str, count: u64, loads: &[u16], may: May) {
    let mut failed = Vec::new();
    for seed in seeds(count) {
        for loads in loads {
            let mut chaos = Chaos::new(seed, *loads, may);
            if let Err(why) = chaos.live(may) {
                failed.push(format!("seed {seed}, {loads} loads: {why}\n{}", chaos.floor.situation()));
            }
        }
    }
    let shown: String = failed.iter().take(3).map(|f| format!("{f}\n")).collect();
    let again = format!("again: LIGHTSOUT_SEED=<seed> cargo test -p plc-sim --test chaos {test}");
    assert!(failed.is_empty(), "{} failed\n{shown}{again}", failed.len());
}

#[test]
fn gateways_that_restart() {
    let may = May { gateway_restarts: true, ..May::default() };
    try_all("gateways_that_restart", 10, &[60, 157], may);
}

#[test]
fn bad_links_weak_drives_and_restarts() {
    let may = May { drives_fail: true, link_fails: true, gateway_restarts: true, ..May::default() };
    try_all("bad_links_weak_drives_and_restarts", 6, &[60, 157], may);
}

#[test]
fn key_switches_controllers_that_restart_and_cables_that_are_pulled() {
    let may =
        May { controllers_restart: true, keys_turn: true, cable_is_pulled: true, link_fails: true, ..May::default() };
    try_all("key_switches_controllers_that_restart_and_cables_that_are_pulled", 6, &[60, 157], may);
}

#[test]
fn people_who_carry_loads() {
    let may = May { people_carry: true, ..May::default() };
    try_all("people_who_carry_loads", 10, &[60, 150], may);
}

#[test]
fn full_racks_and_loads_nobody_announced() {
    let may = May { gateway_restarts: true, loads_come_unannounced: true, ..May::default() };
    try_all("full_racks_and_loads_nobody_announced", 6, &[155, 160], may);
}

#[test]
fn everything_at_once() {
    let may = May {
        drives_fail: true,
        link_fails: true,
        gateway_restarts: true,
        controllers_restart: true,
        keys_turn: true,
        people_carry: true,
        loads_come_unannounced: true,
        cable_is_pulled: true,
    };
    try_all("everything_at_once", 8, &[100, 155], may);
}
