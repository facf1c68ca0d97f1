//! The Modbus driver against plc-sim over real sockets: two codecs written apart that have to agree.

mod line;

use control_core::image::{Command, CommandCode, CommandResult, MachineStatus, Mode};
use control_core::units::{MachineId, PosId};
use device_drivers::block::{Owner, STATUS_WORDS, decode_status, encode_command, rack_map};
use device_drivers::modbus::{DataType, Endpoint, Modbus};
use device_drivers::{BlockWrite, Value};
use line::{Running, Seen, device, line, point};
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim};
use std::time::Duration;

fn status(seen: &Seen) -> Option<MachineStatus> {
    match seen.last(0).and_then(|r| r.value.as_ref()) {
        Some(Value::Words(words)) => decode_status(words),
        _ => None,
    }
}

/// Keeps the heartbeat up until the status is as wanted.
async fn until(running: &Running, command: Option<Command>, wanted: impl Fn(&MachineStatus) -> bool) -> MachineStatus {
    for beat in 0u16..2000 {
        let owner = Owner { token: 1, heartbeat: beat, authority: true, acknowledged: 0 };
        let words = encode_command(owner, command);
        let block = BlockWrite { machine: MachineId(0), seq: command.map_or(0, |c| c.seq), words };
        let last = {
            let mut seen = running.seen();
            seen.to_write = vec![block];
            status(&seen)
        };
        if let Some(status) = last.filter(&wanted) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("still {:?}", status(&running.seen()));
}

#[tokio::test]
async fn a_shuttle_is_commanded_over_modbus_and_its_load_is_seen_to_move() {
    let mut config = PlantConfig::from_toml(include_str!("../../configs/small/plant.toml")).unwrap();
    config.listen.modbus.set_port(0);
    config.listen.opcua.set_port(0);
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep { pki_dir: Some(dir.path().join("server")), ..Keep::default() };
    let sim = Sim::start(config, 7, 1, keep).await.unwrap();
    let (bay, load) = {
        let plant = sim.plant.lock();
        let bay = (0..40).map(PosId).find(|p| plant.loads().at(*p).is_some()).unwrap();
        (bay, plant.loads().at(bay).unwrap())
    };

    let at = |id: u32, address: u16, kind| point(id, &format!("input:{address}"), kind);
    let mut points = vec![at(0, rack_map::status_block(0), DataType::Words(STATUS_WORDS as u8))];
    points.extend((0..176).map(|n| at(1 + u32::from(n), rack_map::position(n), DataType::U32)));
    let mut rack = device(1, points);
    rack.commands = vec![(MachineId(0), 0)];
    let mut spec = line(Endpoint::Tcp(sim.addresses.modbus.to_string()), vec![rack]);
    spec.timeout = Duration::from_secs(5);
    let requests = Modbus::new(spec.clone()).requests().count();
    assert_eq!(requests, 4, "24 registers, far from them 352 more: one request and three");

    let running = Running::start_with(spec, Seen { machines: true, ..Seen::default() });
    running.until("a poll", |s| !s.reports.is_empty()).await;
    assert_eq!(running.seen().readings.len() % 177, 0, "each point once a poll");
    let sensor = running.seen().last(1 + u32::from(bay.0)).unwrap().value.clone();
    assert_eq!(sensor, Some(Value::Uint(u64::from(load.get()))));

    let before = until(&running, None, |s| s.interlocks == 0).await;
    assert_eq!((before.mode, before.load, before.seq_seen), (Mode::Auto, None, 0));
    let pick = Command {
        seq: 1,
        code: CommandCode::Pick,
        pos: bay,
        load: Some(load),
        program: 0,
        path: Default::default(),
        valid_ms: 2000,
        issued_plc_ms: before.plc_time_ms,
        issued_boot: before.boot,
    };
    let after = until(&running, Some(pick), |s| s.seq_done == 1).await;
    assert_eq!((after.result, after.load), (CommandResult::Done, Some(load)));
    assert!(sim.truth().is_clean());
    assert_eq!(sim.truth().commands_executed, 1, "the block was written again and again, and executed once");
}
