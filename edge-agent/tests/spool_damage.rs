//! What a disk does to a spool: flipped bits, files cut off, an fdatasync that fails, no room; and the order journal on the same disk.
//!
//! `SPOOL_SEED=<seed>` runs one round again.

mod support {
    pub mod fault_disk;
    pub mod sending;
}

use edge_agent::store::Store;
use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{
    Disk, DiskFile, Folder, Kind, Next, Outlet, Reason, Records, Replay, STREAMS, SpoolOptions, Stream, Ticket,
};
use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::fault_disk::FaultDisk;
use support::sending::append;

fn open(disks: &[FaultDisk; 3], options: SpoolOptions) -> Arc<Spool> {
    let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
    Spool::open([disk(0), disk(1), disk(2)], options).unwrap()
}

fn options() -> SpoolOptions {
    SpoolOptions::new(1 << 30, "lost")
}

/// Takes everything out of a spool: sequence and payload of the stream `normal`, and what was told as lost of it.
fn drain(spool: &Arc<Spool>) -> (Vec<(u64, String)>, BTreeSet<u64>) {
    let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
    let (mut came, mut told) = (Vec::new(), BTreeSet::new());
    loop {
        let next = outlet.next_blocking(Instant::now(), |ticket, r| {
            Some((ticket.stream, r.kind, r.sequence, String::from_utf8_lossy(r.payload).into_owned()))
        });
        let Next::Record(ticket, (stream, kind, sequence, payload)) = next else { break };
        outlet.acknowledge(&ticket);
        if kind == Kind::Loss {
            let json: serde_json::Value = serde_json::from_str(&payload.replace(":}", ":0}")).unwrap();
            if json["lost"] != 0 && json["lost_stream"] == "normal" {
                told.extend(json["from_sequence"].as_u64().unwrap()..=json["to_sequence"].as_u64().unwrap());
            }
        } else if stream == Stream::Normal {
            came.push((sequence, payload));
        }
    }
    (came, told)
}

fn rounds(count: u64, round: impl Fn(u64)) {
    let one = std::env::var("SPOOL_SEED").ok().and_then(|s| s.parse().ok());
    for seed in one.map_or(1..=count, |seed| seed..=seed) {
        if let Err(why) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(seed))) {
            eprintln!("seed {seed}: run it again with SPOOL_SEED={seed}");
            std::panic::resume_unwind(why);
        }
    }
}

/// FIELD fault 22: 1,000 rounds.
#[test]
fn no_damaged_record_is_delivered_and_what_is_missing_is_counted_and_told() {
    const COUNT: u64 = 200;
    let pristine: [FaultDisk; 3] = Default::default();
    let spool = open(&pristine, SpoolOptions::new(2 << 20, "lost")); // segments of 32 KiB
    for n in (1..=COUNT).step_by(20) {
        append(&spool, Stream::Normal, n..n + 20);
        spool.commit().unwrap();
    }
    let whole: HashSet<(u64, String)> = {
        let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
        let take = |_: &Ticket, r: &edge_agent::telemetry::spool::record::Record<'_>| {
            Some((r.sequence, String::from_utf8_lossy(r.payload).into_owned()))
        };
        let next = std::iter::from_fn(|| match outlet.next_blocking(Instant::now(), take) {
            Next::Record(_, record) => Some(record),
            _ => None,
        });
        next.collect()
    };
    assert_eq!(whole.len() as u64, COUNT);
    spool.close();

    rounds(1000, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disks: [FaultDisk; 3] = std::array::from_fn(|n| pristine[n].after_kill());
        let segments: Vec<(String, Vec<u8>)> =
            disks[1].files().into_iter().filter(|(name, _)| name.ends_with(".seg")).collect();
        let (name, mut bytes) = segments[rng.usize(0..segments.len())].clone();
        if rng.bool() {
            bytes.truncate(rng.usize(0..bytes.len()));
        } else {
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(0..bytes.len());
                bytes[at] ^= 1 << rng.u8(0..8);
            }
        }
        let late = rng.bool();
        let spool;
        if late {
            // Damage that comes while it runs: found when it is read for the broker.
            spool = open(&disks, options());
            disks[1].overwrite(&name, bytes);
        } else {
            disks[1].overwrite(&name, bytes);
            spool = open(&disks, options());
        }
        let (came, told) = drain(&spool);
        // What is found while draining is told behind what is drained.
        let told: BTreeSet<u64> = told.into_iter().chain(drain(&spool).1).collect();
        for record in &came {
            assert!(whole.contains(record), "{record:?} was never written");
        }
        assert!(came.windows(2).all(|w| w[0].0 < w[1].0), "in order, none twice");
        let missing: BTreeSet<u64> =
            (1..=COUNT).filter(|n| came.binary_search_by_key(n, |(sequence, _)| *sequence).is_err()).collect();
        assert_eq!(missing, told, "what is missing is told, and nothing else (late: {late})");
        assert!(spool.stats.lost.of(Reason::Damaged).0 == missing.len() as u64);
        assert!(spool.is_empty());
        let accounts = spool.accounts();
        assert!(accounts.balance() && accounts.waiting == 0, "{accounts:?}");
    });
}

/// FIELD fault 23.
#[test]
fn an_fdatasync_that_fails_promises_nothing_and_its_file_is_left() {
    let disks: [FaultDisk; 3] = Default::default();
    let spool = open(&disks, options());
    append(&spool, Stream::Normal, 1..11);
    spool.commit().unwrap();
    let first = disks[1].files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    disks[1].fail_syncs(100);
    append(&spool, Stream::Normal, 11..21);
    assert!(spool.commit().is_err());
    assert_eq!(spool.durable(Stream::Normal), 11, "what was not written durably is not promised");
    assert!(spool.stats.is_failing.load(Relaxed) && spool.stats.disk_faults.load(Relaxed) > 0, "and that is shown");
    let left = disks[1].files().into_iter().find(|(name, _)| *name == first.0).unwrap();
    disks[1].fail_syncs(0);
    append(&spool, Stream::Normal, 21..31);
    spool.commit().unwrap();
    assert_eq!(spool.durable(Stream::Normal), 31);
    assert!(!spool.stats.is_failing.load(Relaxed));
    let now = disks[1].files();
    assert!(now.iter().all(|(name, bytes)| *name != left.0 || *bytes == left.1), "nobody writes to it again");

    // The power fails: what the failed fsync forgot is gone, what was promised is there.
    let mut rng = fastrand::Rng::with_seed(1);
    let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_power_failure(&mut rng));
    let (came, _) = drain(&open(&disks, options()));
    assert_eq!(came.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..31).collect::<Vec<_>>());
}

/// A tmpfs for as long as this is held.
struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

/// Mounts a tmpfs of so many bytes; says why it cannot.
fn tmpfs(bytes: u64) -> Result<Mounted, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(dir.path());
    match mount.output() {
        Ok(output) if output.status.success() => Ok(Mounted(dir)),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(e) => Err(format!("mount: {e}")),
    }
}

/// A folder on a disk that takes so many bytes in all files together and then says ENOSPC, in the middle of a write as a full one does.
#[derive(Clone)]
struct Narrow {
    folder: Arc<Folder>,
    left: Arc<Mutex<u64>>,
}

impl Narrow {
    fn over(path: &Path, left: &Arc<Mutex<u64>>) -> Arc<dyn Disk> {
        Arc::new(Narrow { folder: Arc::new(Folder::new(path).unwrap()), left: left.clone() })
    }

    fn length(&self, name: &str) -> u64 {
        self.folder.list().unwrap().iter().find(|(n, _)| n == name).map_or(0, |(_, length)| *length)
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(NarrowFile { file, length: Mutex::new(self.length(name)), left: self.left.clone() })
    }
}

impl Disk for Narrow {
    fn list(&self) -> std::io::Result<Vec<(String, u64)>> {
        self.folder.list()
    }

    fn create(&self, name: &str) -> std::io::Result<Box<dyn DiskFile>> {
        *self.left.lock().unwrap() += self.length(name);
        Ok(self.file(name, self.folder.create(name)?))
    }

    fn open(&self, name: &str) -> std::io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name, self.folder.open(name)?))
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        let length = self.length(name);
        self.folder.remove(name)?;
        *self.left.lock().unwrap() += length;
        Ok(())
    }

    fn sync(&self) -> std::io::Result<()> {
        self.folder.sync()
    }
}

struct NarrowFile {
    file: Box<dyn DiskFile>,
    length: Mutex<u64>,
    left: Arc<Mutex<u64>>,
}

impl NarrowFile {
    /// Takes room up to this length; how far there is some.
    fn grow(&self, to: u64) -> u64 {
        let (mut length, mut left) = (self.length.lock().unwrap(), self.left.lock().unwrap());
        let more = to.saturating_sub(*length).min(*left);
        *left -= more;
        *length += more;
        *length
    }
}

impl DiskFile for NarrowFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let end = at + bytes.len() as u64;
        let there = self.grow(end).min(end);
        self.file.write_at(at, &bytes[..there.saturating_sub(at) as usize])?;
        if there < end { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(at, into)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        if self.grow(length) < length {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let before = std::mem::replace(&mut *self.length.lock().unwrap(), length);
        *self.left.lock().unwrap() += before.saturating_sub(length);
        self.file.set_len(length)
    }
}

const NARROW: u64 = 3 << 20;
/// Set in the process that has a user namespace of its own.
const INSIDE: &str = "SPOOL_FULL_DISK_INSIDE";

/// FIELD fault 24. On a tmpfs, a disk that is full in truth: mounted by this user, or by root of a namespace of its own (`unshare -rm`). Where the
/// host forbids both, on a folder that counts its bytes: nowhere is it left out.
#[test]
fn a_full_disk_drops_telemetry_by_its_rule_and_the_order_journal_still_writes() {
    let said = |text: String| drop(writeln!(std::io::stderr(), "a_full_disk: {text}"));
    let why = match tmpfs(NARROW) {
        Ok(mounted) => {
            let disk = |name: &str| Arc::new(Folder::new(&mounted.0.path().join(name)).unwrap()) as Arc<dyn Disk>;
            full_disk(disk);
            return said("on a tmpfs".into());
        }
        Err(why) => why,
    };
    assert!(std::env::var_os(INSIDE).is_none(), "root of a namespace may not mount a tmpfs: {why}");
    let test = "a_full_disk_drops_telemetry_by_its_rule_and_the_order_journal_still_writes";
    let may = std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    if may.as_ref().is_ok_and(|o| o.status.success()) {
        let mut again = std::process::Command::new("unshare");
        again.arg("-rm").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
        assert!(again.status().unwrap().success(), "in a namespace of its own");
        return;
    }
    said(format!("on a folder that counts its bytes, for this host lets nobody mount a tmpfs: {why}; {may:?}"));
    let (dir, left) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(NARROW)));
    full_disk(|name| Narrow::over(&dir.path().join(name), &left));
}

/// The folder that counts does what a tmpfs does.
#[test]
fn a_folder_that_counts_its_bytes_is_full_like_a_disk() {
    let (dir, left) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(NARROW)));
    full_disk(|name| Narrow::over(&dir.path().join(name), &left));
}

/// Fills a disk of [`NARROW`] bytes and the memory beside it, for a spool that may be twice as large; `disk` gives a folder of it.
fn full_disk(disk: impl Fn(&str) -> Arc<dyn Disk>) {
    let (store, _) = Store::open(disk("store"), 256 << 10, |_| {}).unwrap();
    let options = SpoolOptions::new(2 * NARROW, "lost");
    let spool = Spool::open([disk("high"), disk("normal"), disk("low")], options).unwrap();
    let mut records = Records::default();
    for n in 0..400u64 {
        for _ in 0..20 {
            records.push((Stream::Normal, Kind::Json), &["t"], (1, 1), |out| {
                out.extend_from_slice(&[b'x'; 1000]);
                0
            });
        }
        spool.append(&mut records);
        let _ = spool.commit();
        store.append("n", n.to_le_bytes().to_vec()).unwrap_or_else(|e| panic!("order {n}: {e}"));
    }
    let (lost, waiting) = (spool.stats.lost.values(), spool.stats.waiting.load(Relaxed));
    assert!(lost > 1000, "the disk was full: {lost} lost, {waiting} wait");
    assert!(waiting > 4500, "what the disk has no room for is in memory: {lost} lost, {waiting} wait");
    assert_eq!(spool.stats.lost.of(Reason::Disk).1, lost, "{:?}", spool.stats.lost.by_reason());
    let (came, told) = drain(&spool);
    let told: BTreeSet<u64> = told.into_iter().chain(drain(&spool).1).collect();
    assert_eq!((came.len() + told.len()) as u64, 8000, "each was delivered or told");
    assert!(store.reserve.load(Relaxed) > 0, "the reserve lasts");
    spool.close();
    drop(store);
    let mut orders = 0;
    Store::open(disk("store"), 256 << 10, |_| orders += 1).unwrap();
    assert_eq!(orders, 400);
}

#[test]
fn two_gateways_cannot_use_one_spool_and_a_newer_format_is_set_aside_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::start(Some(dir.path()), options()).unwrap();
    append(&first.spool, Stream::Normal, 1..5);
    let why = Spool::start(Some(dir.path()), options()).unwrap_err().to_string();
    assert!(why.contains("another gateway uses it"), "{why}");
    first.stop();

    let normal = dir.path().join("normal");
    let segment =
        std::fs::read_dir(&normal).unwrap().flatten().find(|e| e.path().extension().is_some_and(|e| e == "seg"));
    let path = segment.unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[6] = 9;
    std::fs::write(&path, &bytes).unwrap();
    let handle = Spool::start(Some(dir.path()), options()).unwrap();
    let aside = edge_agent::state::aside_of(&path).expect("it is set aside");
    assert_eq!((std::fs::read(&aside).unwrap(), path.exists()), (bytes, false), "nothing was changed");
    let (came, told) = drain(&handle.spool);
    assert!(came.is_empty(), "{came:?}");
    assert_eq!(told, (1..5).collect(), "what was in it is told as lost");
}

#[test]
fn a_stop_is_exact_and_a_folder_remembers_what_waited_and_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spool::start(Some(dir.path()), options()).unwrap();
    append(&handle.spool, Stream::Normal, 1..101);
    let mut outlet = Outlet::new(handle.spool.clone(), Replay::InOrder, None);
    for _ in 0..40 {
        let Next::Record(ticket, ()) = outlet.next_blocking(Instant::now(), |_, _| Some(())) else { panic!() };
        outlet.acknowledge(&ticket);
    }
    drop(outlet);
    handle.stop();
    let handle = Spool::start(Some(dir.path()), options()).unwrap();
    assert_eq!(handle.spool.next_sequence(Stream::Normal), 101, "a stop leaves no hole in the numbers");
    assert_eq!(handle.spool.stats.waiting.load(Relaxed), 60);
    let (came, told) = drain(&handle.spool);
    assert_eq!(came.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (41..101).collect::<Vec<_>>());
    assert!(told.is_empty());
    handle.stop();
    let left: u64 = STREAMS
        .iter()
        .flat_map(|s| Folder::new(&dir.path().join(s.name())).unwrap().list().unwrap())
        .filter(|(name, _)| name.ends_with(".seg"))
        .map(|(_, length)| length)
        .sum();
    assert!(left < 64 << 10, "segments that are done are removed: {left} bytes are left");
}

#[test]
fn what_the_broker_acknowledges_before_a_commit_is_never_written() {
    let spool = Spool::in_memory(1 << 20);
    append(&spool, Stream::Normal, 1..1001);
    let mut outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
    while let Next::Record(ticket, ()) = outlet.next(Instant::now(), |_, _| Some(())) {
        if ticket.sequence <= 990 {
            outlet.acknowledge(&ticket);
        }
    }
    spool.commit().unwrap();
    assert!(spool.stats.written_bytes.load(Relaxed) < 1500, "{}", spool.stats.written_bytes.load(Relaxed));
    assert_eq!(spool.durable(Stream::Normal), 1001);
}
