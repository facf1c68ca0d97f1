//! What keeping promises costs: durable appends of 256-byte records with group commit, beside two embedded databases that do the same.
//!
//! ```text
//!   cargo bench --bench spool [-- --json] [--for 6s] [--dir DIR]
//! ```
//!
//! All three write the same records into a folder on the same disk, in turns, for the same time. The databases wait for the disk after each
//! group of 256 KiB, on the thread that writes. The spool is used as the agent uses it: appends from one thread, commits from its own, where
//! a group is whatever has come while the disk was busy with the one before, 256 KiB and more. So two rows more say what is due to that: redb
//! again with groups as large as the spool's were in the same turn; and a bare file, the spool's bytes in groups of that size, writes
//! of 256 KiB and one fdatasync each and nothing else. What the spool takes beyond that row comes from letting go of memory that holds
//! what the disk has: the bare file's writes look for new pages all the time.
//!
//! Then what the spool holds is read back and acknowledged (drain), and opened anew (open).

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{Kind, Next, Outlet, Records, Replay, SpoolOptions, Stream};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const BYTES: usize = 256;
/// Each of the three has so many turns.
const TURNS: u32 = 3;
/// Records in 256 KiB.
const GROUP: usize = 1024;
/// The producer waits while more than this is in memory: it would be faster than the disk otherwise.
const AHEAD: u64 = 12 << 20;
/// The target: as many records as redb, times this.
const TARGET: f64 = 5.0;

/// Records and seconds.
#[derive(Clone, Copy)]
struct Rate {
    records: u64,
    seconds: f64,
}

impl Rate {
    fn records_per_s(self) -> f64 {
        self.records as f64 / self.seconds
    }

    fn json(self) -> serde_json::Value {
        let records = self.records_per_s();
        json!({ "records_per_s": records.round(), "mib_per_s": (records * BYTES as f64 / f64::from(1 << 20) * 10.0).round() / 10.0 })
    }
}

impl std::ops::AddAssign for Rate {
    fn add_assign(&mut self, other: Rate) {
        self.records += other.records;
        self.seconds += other.seconds;
    }
}

/// A record that no compression makes smaller.
fn fill(record: &mut [u8], n: u64) {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in record.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn options() -> SpoolOptions {
    SpoolOptions::new(64 << 30, "lost")
}

/// What the spool took, and the bytes of its groups: all of them, and the mean of one.
struct Ours {
    rate: Rate,
    bytes: u64,
    group: u64,
}

fn ours(dir: &Path, length: Duration) -> Ours {
    let handle = Spool::start(Some(dir), options()).expect("the spool opens");
    let spool = &handle.spool;
    let (mut records, mut record, mut n) = (Records::default(), [0; BYTES], 0u64);
    let start = Instant::now();
    while start.elapsed() < length {
        for _ in 0..GROUP / 8 {
            fill(&mut record, n);
            records.push((Stream::Normal, Kind::Cbor), &[], (1, 1), |out| {
                out.extend_from_slice(&record);
                0
            });
            n += 1;
        }
        spool.append(&mut records);
        while spool.stats.volatile_bytes.load(Relaxed) > AHEAD {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    spool.commit().expect("the disk takes it");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(spool.stats.lost.values(), 0);
    assert_eq!(spool.durable(Stream::Normal), n + 1);
    let (commits, bytes) = (spool.stats.commits.load(Relaxed), spool.stats.written_bytes.load(Relaxed));
    handle.stop();
    Ours { rate: Rate { records: n, seconds }, bytes, group: bytes / commits.max(1) }
}

/// The least that a group commit is: groups of so many bytes, each one write and one fdatasync, in files as long as the spool's.
fn bare(dir: &Path, length: Duration, group: usize) -> (u64, f64) {
    const FILE: usize = 16 << 20;
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; group];
    fill(&mut bytes, 1);
    let (mut file, mut at, mut written) = (None, FILE, 0u64);
    let start = Instant::now();
    while start.elapsed() < length {
        if at + group > FILE {
            file = Some(std::fs::File::create_new(dir.join(format!("bare-{group}-{written}"))).expect("a file"));
            at = 0;
        }
        let Some(file) = &file else { unreachable!("one was just made") };
        for (n, piece) in bytes.chunks(256 << 10).enumerate() {
            file.write_all_at(piece, (at + n * (256 << 10)) as u64).expect("the disk takes it");
        }
        file.sync_data().expect("the disk takes it");
        (at, written) = (at + group, written + group as u64);
    }
    (written, start.elapsed().as_secs_f64())
}

fn redb(dir: &Path, length: Duration, group: usize) -> Rate {
    const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("q");
    let db = redb::Database::create(dir.join(format!("redb-{group}"))).expect("redb opens");
    let (mut record, mut n) = ([0; BYTES], 0u64);
    let start = Instant::now();
    while start.elapsed() < length {
        let transaction = db.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for _ in 0..group {
                fill(&mut record, n);
                table.insert(n, &record[..]).expect("an insert");
                n += 1;
            }
        }
        transaction.commit().expect("a commit");
    }
    Rate { records: n, seconds: start.elapsed().as_secs_f64() }
}

fn fjall(dir: &Path, length: Duration) -> Rate {
    let db = fjall::Database::builder(dir.join("fjall")).open().expect("fjall opens");
    let keyspace = db.keyspace("q", fjall::KeyspaceCreateOptions::default).expect("a keyspace");
    let (mut record, mut n) = ([0; BYTES], 0u64);
    let start = Instant::now();
    while start.elapsed() < length {
        let mut batch = db.batch();
        for _ in 0..GROUP {
            fill(&mut record, n);
            batch.insert(&keyspace, n.to_be_bytes(), record);
            n += 1;
        }
        batch.commit().expect("a batch");
        db.persist(fjall::PersistMode::SyncData).expect("the disk takes it");
    }
    Rate { records: n, seconds: start.elapsed().as_secs_f64() }
}

/// Opens what was written; seconds per GiB.
fn open(dir: &Path) -> f64 {
    let start = Instant::now();
    let handle = Spool::start(Some(dir), options()).expect("the spool opens");
    let seconds = start.elapsed().as_secs_f64();
    let gib = handle.spool.stats.disk_bytes.load(Relaxed) as f64 / f64::from(1 << 30);
    handle.stop();
    seconds / gib
}

/// Takes everything out, as a sender does.
fn drain(dir: &Path) -> Rate {
    let handle = Spool::start(Some(dir), options()).expect("the spool opens");
    let mut outlet = Outlet::new(handle.spool.clone(), Replay::InOrder, None);
    let (start, mut records, mut bytes) = (Instant::now(), 0, 0);
    while let Next::Record(ticket, length) =
        outlet.next_blocking(Instant::now(), |_, record| Some(record.payload.len()))
    {
        (records, bytes) = (records + 1, bytes + length);
        outlet.acknowledge(&ticket);
    }
    assert_eq!(bytes, records as usize * BYTES);
    let seconds = start.elapsed().as_secs_f64();
    handle.stop();
    Rate { records, seconds }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| args.iter().skip_while(|a| *a != name).nth(1).map(String::as_str);
    let length = humantime::parse_duration(value("--for").unwrap_or("6s")).expect("--for takes a time, as in 5s");
    let dir = match value("--dir") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a folder");
    let none = Rate { records: 0, seconds: 0.0 };
    let (mut ours_all, mut redb_all, mut redb_large, mut fjall_all, mut bare_all) = (none, none, none, none, none);
    let (mut groups, mut record_bytes) = (0, 0);
    // In turns, so that a disk that is slow for a moment is slow for each.
    for turn in 0..TURNS {
        let (at, length) = (dir.path().join(turn.to_string()), length / TURNS);
        std::fs::create_dir(&at).expect("a folder");
        let one = ours(&at.join("spool"), length);
        ours_all += one.rate;
        groups += one.group / u64::from(TURNS);
        record_bytes = one.bytes / one.rate.records.max(1);
        let (written, seconds) = bare(&at, length, one.group as usize);
        bare_all += Rate { records: written / record_bytes.max(1), seconds };
        redb_all += redb(&at, length, GROUP);
        redb_large += redb(&at, length, (one.group / record_bytes.max(1)) as usize);
        fjall_all += fjall(&at, length);
    }
    let (ours, redb, fjall, bare) = (ours_all, redb_all, fjall_all, bare_all);
    let spool = dir.path().join((TURNS - 1).to_string()).join("spool");
    let (open_s, drained) = (open(&spool), drain(&spool));
    let of = |other: Rate| ours.records_per_s() / other.records_per_s();
    if args.iter().any(|a| a == "--json") {
        let result = json!({
            "ours": ours.json(),
            "redb": redb.json(),
            "fjall": fjall.json(),
            "redb_in_our_groups": redb_large.json(),
            "bare_disk": bare.json(),
            "group_kib": groups >> 10,
            "record_bytes_on_disk": record_bytes,
            "times_redb": (of(redb) * 100.0).round() / 100.0,
            "times_bare_disk": (of(bare) * 100.0).round() / 100.0,
            "drain_records_per_s": drained.records_per_s().round(),
            "open_s_per_gib": (open_s * 1000.0).round() / 1000.0,
        });
        println!("{result}");
        return;
    }
    println!("durable appends of {BYTES} bytes, a group of {} KiB a commit, {length:?} each", (GROUP * BYTES) >> 10);
    let own = format!("redb, groups of {} KiB as ours were", groups >> 10);
    let bare_name = format!("a bare file, our {record_bytes} bytes a record, the same groups");
    for (name, rate) in
        [("ours", ours), ("redb", redb), ("fjall", fjall), (own.as_str(), redb_large), (bare_name.as_str(), bare)]
    {
        println!("  {name:<58}{:>12.0} records/s", rate.records_per_s());
    }
    let times = of(redb);
    println!("  ours / redb       {times:.1}   target >= {TARGET}   {}", if times >= TARGET { "pass" } else { "MISS" });
    println!("  ours / bare file  {:.2}", of(bare));
    println!("  drain   {:>12.0} records/s", drained.records_per_s());
    println!("  open    {open_s:>12.3} s per GiB   target <= 2   {}", if open_s <= 2.0 { "pass" } else { "MISS" });
}
