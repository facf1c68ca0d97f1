//! Command blocks, tag writes and reads on one line take turns, and so do machines: whoever is always ready again, for replies take longer
//! than heartbeats, keeps nobody else waiting.

mod line;

use control_core::units::MachineId;
use device_drivers::modbus::DataType;
use device_drivers::{BlockWrite, Value, WriteOutcome};
use line::{Running, Seen, device, frame, line, own_numbers, point, server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

fn block(machine: u16) -> BlockWrite {
    BlockWrite { machine: MachineId(machine), seq: 1, words: [0; 20] }
}

#[tokio::test]
async fn on_a_slow_unit_with_a_machine_tag_writes_heartbeats_and_reads_take_turns() {
    let (endpoint, asked) =
        server(|asked| vec![(360 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
    let mut unit = device(1, vec![point(0, "holding:300", DataType::U16), point(1, "holding:500", DataType::U16)]);
    unit.commands = vec![(MachineId(0), 0)];
    let mut spec = line(endpoint, vec![unit]);
    spec.timeout = 600 * MS;
    let running = Running::start_with(spec, Seen { machines: true, always: vec![block(0)], ..Seen::default() });
    running.until("up", |s| s.good(1) >= 1 && !s.written.is_empty()).await;
    let before = asked.lock().unwrap().len();
    // Two at a time: one waits whenever the other has been sent.
    for n in 0..3 {
        let writes = [0, 1].map(|point| running.write(point, Value::Uint(n), false));
        let [a, b] = writes;
        assert_eq!(tokio::join!(a, b), (WriteOutcome::Done, WriteOutcome::Done), "writes {n}");
    }
    let kinds: Vec<u8> = asked.lock().unwrap().iter().skip(before).map(|a| a.pdu[0]).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == 6).count(), 6);
    for between in kinds.split(|kind| *kind == 16) {
        assert!(between.len() <= 2, "no two of a kind between two heartbeats: {kinds:?}");
    }
    for between in kinds.split(|kind| *kind == 3) {
        assert!(between.len() <= 2, "nor between two reads: {kinds:?}");
    }
}

/// On one unit, or on one each.
#[tokio::test]
async fn machines_on_a_slow_line_all_get_their_heartbeats() {
    for apart in [false, true] {
        let (endpoint, _) =
            server(|asked| vec![(360 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
        let mut units: Vec<_> = (1..=if apart { 3 } else { 1 })
            .map(|unit| device(unit, vec![point(u32::from(unit), "holding:900", DataType::U16)]))
            .collect();
        for (n, at) in [0, 200, 400].into_iter().enumerate() {
            let unit = if apart { n } else { 0 };
            units[unit].commands.push((MachineId(n as u16), at));
        }
        let mut spec = line(endpoint, units);
        spec.timeout = 600 * MS;
        let always = (0..3).map(block).collect();
        let running = Running::start_with(spec, Seen { machines: true, always, ..Seen::default() });
        let count = |s: &Seen, n| s.written.iter().filter(|b| b.machine == MachineId(n)).count();
        running.until("each has three", |s| (0..3).all(|n| count(s, n) >= 3)).await;
        let counts = [0, 1, 2].map(|n| count(&running.seen(), n));
        assert!(counts.iter().all(|n| *n <= 5), "none has more than its share: {counts:?}");
    }
}

/// Tag writes come before reads without end.
#[tokio::test]
async fn writers_do_not_starve_reads() {
    let (endpoint, _) =
        server(|asked| vec![(3 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
    let points = (0..8).map(|n| point(n, &format!("holding:{}", n * 50), DataType::U16)).collect();
    let running = Arc::new(Running::start(line(endpoint, vec![device(1, points)])));
    running.until("up", |s| s.good(0) >= 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    for n in 1..8 {
        let (running, stop) = (running.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(SeqCst) {
                running.write(n, Value::Uint(1), false).await;
            }
        });
    }
    sleep(200 * MS).await;
    let before = running.seen().good(0);
    sleep(3000 * MS).await;
    let polls = running.seen().good(0) - before;
    stop.store(true, SeqCst);
    assert!(polls >= 10, "{polls} polls of 60 in 3 s while writes are made");
}

/// Command blocks that take as long as the heartbeat leave no room for a single read.
#[tokio::test]
async fn block_writes_do_not_starve_reads() {
    let (endpoint, _) =
        server(|asked| vec![(120 * MS, frame(asked.transaction, asked.unit, &own_numbers(&asked.pdu)))]).await;
    let mut unit = device(1, vec![point(0, "input:7", DataType::U16)]);
    unit.commands = vec![(MachineId(0), 0)];
    let running = Running::start_with(line(endpoint, vec![unit]), Seen { machines: true, ..Seen::default() });
    for _ in 0..50 {
        running.seen().to_write = vec![BlockWrite { machine: MachineId(0), seq: 1, words: [0; 20] }];
        sleep(100 * MS).await;
    }
    let seen = running.seen();
    assert!(seen.good(0) >= 3, "{} reads and {} blocks in 5 s", seen.good(0), seen.written.len());
}
