//! Wires: adapters that give back what we say, lines that are never silent, and parts of registers. On a pseudo-terminal, with units that
//! this test writes itself.

mod line;
mod serial;

use device_drivers::modbus::{DataType, Endpoint, LineSpec, Serial};
use device_drivers::value::{Cause, Quality};
use device_drivers::{Health, Value, WriteOutcome};
use line::{Running, at_once, device, line, own_numbers, point, server};
use serial::{rtu, serial_line, serial_units};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn one_unit(serial: Serial) -> LineSpec {
    let mut points = vec![point(1, "holding:7", DataType::U16), point(2, "coil:3", DataType::Bool)];
    points.iter_mut().for_each(|p| p.interval = 100 * MS);
    let mut spec = line(Endpoint::Rtu(serial), vec![device(1, points)]);
    spec.timeout = 100 * MS;
    spec
}

/// A good answer of a unit of which every register holds its number and every coil is on.
fn answer(pdu: &[u8]) -> Vec<u8> {
    if pdu[0] == 1 { vec![1, 1, 1] } else { own_numbers(pdu) }
}

#[tokio::test]
async fn an_adapter_that_echoes_makes_no_write_done_and_is_named_as_the_cause() {
    let (serial, log) = serial_units(|_, unit, pdu| rtu(unit, pdu));
    let running = Running::start(one_unit(serial));
    // The very first thing on the line, before any read has told that it echoes.
    assert_eq!(running.write(1, Value::Uint(9), false).await, WriteOutcome::Unknown);
    assert_eq!(running.write(2, Value::Bool(true), false).await, WriteOutcome::Unknown);
    running.until("the tag says why", |s| s.last(1).is_some_and(|r| r.cause == Cause::OnlyEcho)).await;
    running.until("the device too", |s| s.health.contains(&(0, Health::Demoted, Cause::OnlyEcho))).await;
    running.until("it is counted", |s| s.counters.echoes >= 3).await;
    let seen = running.seen();
    assert!(seen.readings.iter().all(|r| r.value.is_none()), "no echo was taken for a value");
    let writes: Vec<u8> = log.lock().unwrap().iter().map(|(_, r)| r[1]).filter(|f| matches!(f, 5 | 6)).collect();
    assert_eq!(writes, [6, 5], "each was sent once");
}

#[tokio::test]
async fn behind_an_adapter_that_echoes_a_device_that_answers_is_read_and_written() {
    let (serial, log) = serial_units(|_, unit, pdu| [rtu(unit, pdu), rtu(unit, &answer(pdu))].concat());
    let running = Running::start(one_unit(serial));
    running.until("values", |s| s.good(1) >= 5 && s.good(2) >= 5).await;
    assert_eq!(running.write(1, Value::Uint(9), false).await, WriteOutcome::Done);
    assert_eq!(running.write(2, Value::Bool(true), true).await, WriteOutcome::Done);
    // The line tells its counters now and then: those of what has been asked so far come a little later.
    let asked = log.lock().unwrap().len() as u64;
    assert!(asked >= 10);
    running.until("they are counted", |s| s.counters.echoes >= asked).await;
    let seen = running.seen();
    let wrong = seen.readings.iter().filter(|r| r.quality != Quality::Good).count();
    assert_eq!((wrong, seen.counters.timeouts), (0, 0));
}

#[tokio::test]
async fn without_an_echo_the_reply_that_equals_its_request_is_believed() {
    // The first reply is damaged: it tells nothing.
    let (serial, log) = serial_units(|n, unit, pdu| if n == 0 { vec![0xFF; 9] } else { rtu(unit, &answer(pdu)) });
    let running = Running::start(one_unit(serial));
    assert_eq!(running.write(1, Value::Uint(9), false).await, WriteOutcome::Done);
    assert_eq!(running.seen().counters.echoes, 0);
    let functions: Vec<u8> = log.lock().unwrap().iter().map(|(_, r)| r[1]).collect();
    assert_ne!(functions[1], 6, "a read goes first: it tells whether there is an echo");
}

/// A line on which something sends all the time, until `quiet` is true; then its unit answers.
fn babbling(quiet: Arc<AtomicBool>) -> (Serial, serial::Log) {
    let (serial, log, mut wires) = serial_line({
        let quiet = quiet.clone();
        move |_, unit, pdu| if quiet.load(SeqCst) { rtu(unit, &answer(pdu)) } else { vec![] }
    });
    std::thread::spawn(move || {
        use std::io::Write;
        while !quiet.load(SeqCst) {
            if wires.write_all(&[0x55]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    (serial, log)
}

#[tokio::test]
async fn a_line_that_is_never_silent_is_asked_all_the_same_and_says_what_is_wrong() {
    let quiet = Arc::new(AtomicBool::new(false));
    let (serial, log) = babbling(quiet.clone());
    // So slow that the silence between frames, 64 ms, is longer than a busy machine lets the babbler sleep.
    let running = Running::start(one_unit(Serial { baud: 600, ..serial }));
    running.until("the tag says why", |s| s.last(1).is_some_and(|r| r.cause == Cause::NeverSilent)).await;
    running.until("the device too", |s| s.health.iter().any(|h| h.1 == Health::Demoted)).await;
    running.until("it is counted", |s| s.counters.noise >= 2).await;
    assert!(log.lock().unwrap().len() >= 2, "it was spoken into");
    quiet.store(true, SeqCst);
    running.until("it works again by itself", |s| s.good(1) >= 3).await;
}

/// Registers and what was done to them: number of function 6, 16 and 22 requests.
type Memory = Arc<Mutex<(HashMap<u16, u16>, Vec<u8>)>>;

/// A device with registers, over TCP; it knows function 22 or not.
fn registers(memory: &Memory, knows_mask_write: bool) -> impl FnMut(&line::Asked) -> line::Sends + Send + 'static {
    let memory = memory.clone();
    move |asked| {
        let word = |at: usize| u16::from_be_bytes([asked.pdu[at], asked.pdu[at + 1]]);
        let (registers, log) = &mut *memory.lock().unwrap();
        log.push(asked.pdu[0]);
        let pdu = match asked.pdu[0] {
            3 => {
                let mut pdu = vec![3, (word(3) * 2) as u8];
                pdu.extend((0..word(3)).flat_map(|n| registers.get(&(word(1) + n)).unwrap_or(&0).to_be_bytes()));
                pdu
            }
            6 => {
                registers.insert(word(1), word(3));
                asked.pdu.clone()
            }
            22 if knows_mask_write => {
                let register = registers.entry(word(1)).or_default();
                *register = (*register & word(3)) | (word(5) & !word(3));
                asked.pdu.clone()
            }
            other => vec![other | 0x80, 1],
        };
        at_once(asked, &pdu)
    }
}

/// Bit 3, the field 4 to 7, and the high byte of register 5, and the whole of it; read seldom, so that the log shows writes.
fn parts(read_modify_write: bool) -> Vec<device_drivers::modbus::PointSpec> {
    let mut points = vec![
        point(0, "holding:5.3", DataType::Bool),
        point(1, "holding:5.4-7", DataType::U16),
        point(2, "holding:5", DataType::I8 { high: true }),
        point(3, "holding:5", DataType::U16),
    ];
    for p in &mut points {
        (p.interval, p.read_modify_write) = (Duration::from_secs(3600), read_modify_write);
    }
    points
}

async fn writes_parts(spec: LineSpec, memory: &Memory) -> Vec<u8> {
    memory.lock().unwrap().0.insert(5, 0x1207);
    let running = Running::start(spec);
    running.until("up", |s| s.good(3) >= 1).await;
    memory.lock().unwrap().1.clear();
    assert_eq!(running.write(0, Value::Bool(true), true).await, WriteOutcome::Done);
    assert_eq!(memory.lock().unwrap().0[&5], 0x120F);
    assert_eq!(running.write(1, Value::Uint(0xA), true).await, WriteOutcome::Done);
    assert_eq!(memory.lock().unwrap().0[&5], 0x12AF);
    assert_eq!(running.write(2, Value::Int(-1), true).await, WriteOutcome::Done);
    assert_eq!(memory.lock().unwrap().0[&5], 0xFFAF);
    assert_eq!(running.write(0, Value::Bool(false), true).await, WriteOutcome::Done);
    assert_eq!(memory.lock().unwrap().0[&5], 0xFFA7);
    for (point, value, why) in [
        (1, Value::Uint(16), "16 does not fit into 4 bits"),
        (0, Value::Uint(2), "2 does not fit into 1 bit"),
        (2, Value::Int(200), "200 does not fit into i8-high"),
        (1, Value::Bool(true), "this tag is a number"),
    ] {
        assert_eq!(running.write(point, value, true).await, WriteOutcome::Invalid(why.into()));
    }
    assert_eq!(memory.lock().unwrap().0[&5], 0xFFA7);
    memory.lock().unwrap().1.clone()
}

#[tokio::test]
async fn a_part_of_a_register_is_written_by_mask_where_the_device_knows_that() {
    let memory = Memory::default();
    let (endpoint, _) = server(registers(&memory, true)).await;
    let mut unit = device(1, parts(true));
    unit.mask_write = true;
    let asked = writes_parts(line(endpoint, vec![unit]), &memory).await;
    assert_eq!(asked, [22, 3, 22, 3, 22, 3, 22, 3], "each with its read-back");
}

#[tokio::test]
async fn else_its_register_is_read_and_written_back_but_only_where_the_tag_says_so() {
    let memory = Memory::default();
    let (endpoint, _) = server(registers(&memory, false)).await;
    let asked = writes_parts(line(endpoint.clone(), vec![device(1, parts(true))]), &memory).await;
    assert_eq!(asked, [3, 6, 3, 3, 6, 3, 3, 6, 3, 3, 6, 3], "read, write, read back");

    let running = Running::start(line(endpoint.clone(), vec![device(1, parts(false))]));
    running.until("up", |s| s.good(3) >= 1).await;
    assert!(matches!(running.write(0, Value::Bool(true), true).await, WriteOutcome::Invalid(_)));
    drop(running);

    let mut unit = device(1, parts(false));
    unit.mask_write = true;
    let running = Running::start(line(endpoint, vec![unit]));
    running.until("up", |s| s.good(3) >= 1).await;
    let refused = WriteOutcome::Refused(Cause::Exception(1));
    assert_eq!(running.write(0, Value::Bool(true), true).await, refused, "the profile is wrong about the device");
    assert_eq!(memory.lock().unwrap().0[&5], 0xFFA7);
}

#[tokio::test]
async fn two_parts_of_one_register_written_at_once_both_arrive() {
    let memory = Memory::default();
    let (endpoint, _) = server(registers(&memory, false)).await;
    let mut spec = line(endpoint, vec![device(1, parts(true))]);
    spec.pipeline = 8;
    let running = Running::start(spec);
    running.until("up", |s| s.good(3) >= 1).await;
    for round in 0..20 {
        let (bit, field) = (round % 2 == 0, round % 16);
        let done = tokio::join!(
            running.write(3, Value::Uint(0), false),
            running.write(0, Value::Bool(bit), false),
            running.write(1, Value::Uint(field), false),
            running.write(2, Value::Int(0x12), false)
        );
        let all = [&done.0, &done.1, &done.2, &done.3];
        assert!(all.into_iter().all(|outcome| *outcome == WriteOutcome::Done), "{done:?}");
        let want = 0x1200 | (field as u16) << 4 | u16::from(bit) << 3;
        assert_eq!(memory.lock().unwrap().0[&5], want, "round {round}");
    }
}

#[tokio::test]
async fn what_is_read_to_be_changed_and_cannot_be_read_is_not_written() {
    let (endpoint, asked) = server(|asked| match (asked.pdu[0], asked.pdu[2]) {
        (3, 5) => at_once(asked, &[0x83, 4]),
        (3, 6) => vec![],
        _ => at_once(asked, &own_numbers(&asked.pdu)),
    })
    .await;
    let mut points = parts(true);
    points.extend([point(9, "holding:6.1", DataType::Bool), point(10, "holding:100", DataType::U16)]);
    points.iter_mut().for_each(|p| p.read_modify_write = true);
    let running = Running::start(line(endpoint, vec![device(1, points)]));
    running.until("up", |s| s.good(10) >= 1).await;
    assert_eq!(running.write(0, Value::Bool(true), true).await, WriteOutcome::Refused(Cause::Exception(4)));
    assert_eq!(running.write(9, Value::Bool(true), true).await, WriteOutcome::Refused(Cause::NoAnswer));
    assert!(asked.lock().unwrap().iter().all(|a| a.pdu[0] == 3), "nothing was written");
}
