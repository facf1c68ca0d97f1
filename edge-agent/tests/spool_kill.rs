//! SIGKILL while the spool writes, 200 times: whatever was promised is there, without a gap (FIELD fault 21).
//!
//! The test starts itself again as the process that is killed. `SPOOL_SEED=<seed>` runs one round again.

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{Kind, Next, Outlet, Records, Replay, SpoolOptions, Stream};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 200;
const BYTES: usize = 256;

fn options() -> SpoolOptions {
    SpoolOptions::new(64 << 20, "lost")
}

/// Content that only this sequence has.
fn content(sequence: u64) -> Vec<u8> {
    (0..BYTES as u64).map(|n| (sequence.wrapping_mul(0x9E37_79B9).wrapping_add(n * 7) >> 3) as u8).collect()
}

/// The process that is killed: appends, and says what is promised.
#[test]
fn child() {
    let Ok(dir) = std::env::var("SPOOL_CHILD") else { return };
    let handle = Spool::start(Some(Path::new(&dir)), options()).unwrap();
    let spool = &handle.spool;
    let mut records = Records::default();
    let first = spool.next_sequence(Stream::Normal);
    let mut said = first;
    println!("first {first}");
    loop {
        for _ in 0..20 {
            let next = spool.next_sequence(Stream::Normal);
            records.push((Stream::Normal, Kind::Cbor), &["t"], (1, 1), |out| {
                out.extend_from_slice(&content(next));
                0
            });
            spool.append(&mut records);
        }
        let promised = spool.durable(Stream::Normal);
        if promised > said {
            said = promised;
            println!("promised {promised}");
            let _ = std::io::stdout().flush();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs the child until it has promised something and a little longer; first sequence, and below which all were promised.
fn kill_one(dir: &Path, rng: &mut fastrand::Rng) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("SPOOL_CHILD", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: &str, word: &str| line.rsplit_once(word).and_then(|(_, n)| n.trim().parse::<u64>().ok());
    let first = lines.find_map(|l| number(&l, "first ")).expect("the child says where it begins");
    let mut promised = lines.find_map(|l| number(&l, "promised ")).expect("the child promises something");
    std::thread::sleep(Duration::from_micros(rng.u64(0..40_000)));
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    for line in lines {
        promised = number(&line, "promised ").unwrap_or(promised);
    }
    (first, promised)
}

#[test]
fn nothing_promised_is_lost_and_nothing_is_missing_between_after_200_kills() {
    let one: Option<u64> = std::env::var("SPOOL_SEED").ok().and_then(|s| s.parse().ok());
    let mut dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for seed in one.map_or(1..=ROUNDS, |seed| seed..=seed) {
        let mut rng = fastrand::Rng::with_seed(seed);
        if rng.u8(0..10) == 0 {
            dir = tempfile::tempdir().unwrap(); // else one folder lives through many kills
        }
        let (first, promised) = kill_one(dir.path(), &mut rng);
        let handle = Spool::start(Some(dir.path()), options()).unwrap();
        let mut outlet = Outlet::new(handle.spool.clone(), Replay::InOrder, None);
        let mut expected = first;
        while let Next::Record(ticket, right) = outlet.next_blocking(Instant::now(), |ticket, r| {
            Some(ticket.stream != Stream::Normal || r.payload == content(r.sequence))
        }) {
            assert!(right, "seed {seed}: sequence {} says something else", ticket.sequence);
            if ticket.stream == Stream::Normal && ticket.sequence >= first {
                assert_eq!(ticket.sequence, expected, "seed {seed}: a gap");
                expected += 1;
            }
            outlet.acknowledge(&ticket);
        }
        assert!(expected >= promised, "seed {seed}: promised below {promised}, there below {expected}");
        let next = handle.spool.next_sequence(Stream::Normal);
        assert!(next >= expected, "seed {seed}: {next} would be used again");
        total += expected - first;
        drop(outlet);
        handle.stop();
    }
    assert!(one.is_some() || total > 5_000, "{total} records were written: this proves little");
}
