//! The Modbus driver against plc-sim over real sockets: two codecs written apart that have to agree.

use control_core::image::{Command, CommandCode, CommandResult, MachineStatus, Mode};
use control_core::units::{LoadId, MachineId, PosId};
use device_drivers::block::{Owner, STATUS_WORDS, decode_status, encode_command, rack_map};
use device_drivers::modbus::{DataType, DeviceSpec, ModbusTcp, PlanLimits, PointSpec, TcpSpec, WordOrder};
use device_drivers::{BlockWrite, Driver, PointId, Reading, Value};
use plc_sim::faces::Keep;
use plc_sim::{PlantConfig, Sim};
use std::time::Duration;
use tokio::time::{Instant, sleep};

async fn plant() -> (Sim, tempfile::TempDir) {
    let mut config = PlantConfig::from_toml(include_str!("../../configs/demo/plant.toml")).unwrap();
    config.listen.modbus.set_port(0);
    config.listen.opcua.set_port(0);
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep { state: None, pki_dir: Some(dir.path().join("server")) };
    (Sim::start(config, 7, 1, keep).await.unwrap(), dir)
}

fn rack(sim: &Sim) -> ModbusTcp {
    let point = |id: u32, address: u16, kind| PointSpec {
        id: PointId(id),
        address: format!("input:{address}").parse().unwrap(),
        kind,
        order: WordOrder::HighFirst,
        scale: None,
        interval: Duration::from_millis(50),
    };
    let mut points = vec![point(0, rack_map::status_block(0), DataType::Words(STATUS_WORDS as u8))];
    points.extend((0..176).map(|n| point(1 + u32::from(n), rack_map::position(n), DataType::U32)));
    let device = DeviceSpec { unit: 1, points, limits: PlanLimits::default(), commands: vec![(MachineId(0), 0)] };
    let timeout = Duration::from_secs(1);
    ModbusTcp::new(TcpSpec {
        peer: sim.addresses.modbus.to_string(),
        connect_timeout: timeout,
        timeout,
        devices: vec![device],
    })
}

fn status(readings: &[Reading]) -> Option<MachineStatus> {
    readings.iter().rev().filter(|r| r.point == PointId(0)).find_map(|r| match &r.value {
        Some(Value::Words(words)) => decode_status(words),
        _ => None,
    })
}

fn write(machine: u8, beat: u16, command: Option<Command>) -> BlockWrite {
    let owner = Owner { token: 1, heartbeat: beat, authority: true, acknowledged: 0 };
    let seq = command.map_or(0, |c| c.seq);
    BlockWrite { machine: MachineId(machine), seq, words: encode_command(owner, command) }
}

/// Polls and keeps the heartbeat up until the status is as wanted.
async fn until<D: Driver>(
    driver: &mut D,
    machine: u8,
    command: Option<Command>,
    wanted: impl Fn(&MachineStatus) -> bool,
) -> MachineStatus {
    let (start, mut readings) = (Instant::now(), Vec::new());
    let mut last = None;
    for beat in 0u16.. {
        driver.write(&[write(machine, beat, command)]).await.unwrap();
        readings.clear();
        driver.poll(0, &mut readings).await.unwrap();
        last = status(&readings).or(last);
        if let Some(status) = last.filter(&wanted) {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "still {last:?}");
        sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

#[tokio::test]
async fn a_shuttle_is_commanded_over_modbus_and_its_load_is_seen_to_move() {
    let (sim, _dir) = plant().await;
    let (bay, load) = {
        let plant = sim.plant.lock();
        let bay = (0..40).map(PosId).find(|p| plant.loads().at(*p).is_some()).unwrap();
        (bay, plant.loads().at(bay).unwrap())
    };
    let mut driver = rack(&sim);
    driver.connect().await.unwrap();
    assert_eq!(driver.requests(0), 4, "24 registers, far from them 352 more: one request and three");

    let mut readings = Vec::new();
    driver.poll(0, &mut readings).await.unwrap();
    assert_eq!(readings.len(), 177);
    let sensor = &readings.iter().find(|r| r.point == PointId(1 + u32::from(bay.0))).unwrap();
    assert_eq!(sensor.value, Some(Value::Uint(u64::from(load.get()))));

    let before = until(&mut driver, 0, None, |s| s.interlocks == 0).await;
    assert_eq!((before.mode, before.load, before.seq_seen), (Mode::Auto, None, 0));
    let pick = Command {
        seq: 1,
        code: CommandCode::Pick,
        pos: bay,
        load,
        program: 0,
        valid_ms: 2000,
        issued_plc_ms: before.plc_time_ms,
        issued_boot: before.boot,
    };
    let after = until(&mut driver, 0, Some(pick), |s| s.seq_done == 1).await;
    assert_eq!((after.result, after.load), (CommandResult::Done, Some(load)));
    assert!(sim.truth().is_clean());
    assert_eq!(sim.truth().commands_executed, 1, "the block was written again and again, and executed once");
}
