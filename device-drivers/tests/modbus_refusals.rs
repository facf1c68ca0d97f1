//! A device that says no: to one thing for good, or to anything for a moment. Nobody else is to lose by it.

mod line;

use control_core::units::MachineId;
use device_drivers::modbus::DataType;
use device_drivers::value::Quality;
use device_drivers::{BlockWrite, Cause};
use line::{Running, Seen, at_once, device, line, own_numbers, point, server};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Words of a command block.
const BLOCK: u16 = 20;

fn word(pdu: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([pdu[at], pdu[at + 1]])
}

#[tokio::test]
async fn a_refusal_that_passes_is_asked_again_and_costs_no_value_and_no_more_requests() {
    for code in [1, 4] {
        let count = AtomicUsize::new(0);
        let (endpoint, asked) = server(move |asked| match count.fetch_add(1, SeqCst) % 10 {
            9 => at_once(asked, &[asked.pdu[0] | 0x80, code]),
            _ => at_once(asked, &own_numbers(&asked.pdu)),
        })
        .await;
        // Six values in three requests: they lie far apart.
        let points = (0..6).map(|n| point(n, &format!("holding:{}", n / 2 * 1000 + n), DataType::U16)).collect();
        let running = Running::start(line(endpoint, vec![device(1, points)]));
        running.until("a hundred polls", |s| s.reports.len() >= 100).await;
        let seen = running.seen();
        let bad = seen.readings.iter().filter(|r| r.quality == Quality::Bad).count();
        assert_eq!(bad, 0, "exception {code}");
        let (polls, requests) = (seen.reports.len(), asked.lock().unwrap().len());
        assert!(requests <= polls * 4, "exception {code}: {requests} requests in {polls} polls of 3");
    }
}

#[tokio::test]
async fn a_command_block_that_is_refused_does_not_keep_its_neighbours_from_theirs() {
    let (endpoint, asked) = server(|asked| {
        let (first, count) = (word(&asked.pdu, 1), word(&asked.pdu, 3));
        let missing = 4 * BLOCK..5 * BLOCK;
        let refused = asked.pdu[0] == 16 && first < missing.end && first + count > missing.start;
        if refused { at_once(asked, &[0x90, 2]) } else { at_once(asked, &own_numbers(&asked.pdu)) }
    })
    .await;
    let mut rack = device(1, vec![point(0, "holding:2000", DataType::U16)]);
    rack.commands = (0..6).map(|n| (MachineId(n), n * BLOCK)).collect();
    let always = (0..6).map(|n| BlockWrite { machine: MachineId(n), seq: 1, words: [0; BLOCK as usize] }).collect();
    let seen = Seen { machines: true, always, ..Seen::default() };
    let running = Running::start_with(line(endpoint, vec![rack]), seen);
    let taken = |s: &Seen, n: u16| s.written.iter().filter(|b| b.machine == MachineId(n)).count();
    running.until("the others are taken, again and again", |s| (0..6).all(|n| n == 4 || taken(s, n) > 10)).await;
    let seen = running.stop().await;
    let seen = seen.lock().unwrap();
    assert_eq!(taken(&seen, 4), 0);
    assert!(seen.not_written.iter().all(|cause| *cause == Cause::Exception(2)) && !seen.not_written.is_empty());
    assert!(seen.refused.iter().all(|machines| *machines == [MachineId(4)]), "it is named alone: {:?}", seen.refused);
    let whole = asked.lock().unwrap().iter().filter(|a| a.pdu[0] == 16 && word(&a.pdu, 3) == 6 * BLOCK).count();
    assert_eq!(whole, 1, "what is known is not tried again");
}
