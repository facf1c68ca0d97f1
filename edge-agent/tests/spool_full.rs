//! What goes when there is no room: every record but each n-th of a series as `thin` says, and on a disk that somebody else has filled nothing
//! that memory has room for.

mod support {
    pub mod accounts;
    pub mod fault_disk;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{
    Disk, Kind, Next, Outlet, Reason, Records, Replay, Retention, STREAMS, SpoolOptions, Stream,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use support::accounts::balanced;
use support::fault_disk::FaultDisk;

fn open(disks: &[FaultDisk; 3], options: SpoolOptions) -> Arc<Spool> {
    let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
    Spool::open([disk(0), disk(1), disk(2)], options).unwrap()
}

/// One poll: a record of so many bytes of each series, which says which poll it is.
fn poll(spool: &Spool, stream: Stream, nth: u64, series: u32, bytes: usize) {
    let mut records = Records::default();
    for n in 0..series {
        records.push((stream, Kind::Json), &["t/", &n.to_string()], (nth, 1), |out| {
            out.extend_from_slice(nth.to_string().as_bytes());
            out.resize(out.len() + bytes, b' ');
            0
        });
    }
    spool.append(&mut records);
}

/// What came of each stream and series: polls; and which numbers of each stream were told as lost, for which reasons.
#[derive(Default)]
struct Drained {
    polls: BTreeMap<(Stream, String), Vec<u64>>,
    came: BTreeSet<(Stream, u64)>,
    told: BTreeMap<String, u64>,
}

fn drain(spool: &Arc<Spool>) -> Drained {
    let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
    let mut drained = Drained::default();
    loop {
        let next = outlet.next_blocking(Instant::now(), |_, r| {
            Some((r.kind, r.topic.to_string(), String::from_utf8_lossy(r.payload).into_owned()))
        });
        let Next::Record(ticket, (kind, topic, payload)) = next else { break };
        outlet.acknowledge(&ticket);
        if kind == Kind::Loss {
            let json: serde_json::Value = serde_json::from_str(&payload.replace(":}", ":0}")).unwrap();
            let reason = json["reason"].as_str().unwrap().to_string();
            *drained.told.entry(reason).or_default() += json["lost"].as_u64().unwrap();
        } else {
            assert!(drained.came.insert((ticket.stream, ticket.sequence)), "none twice");
            drained.polls.entry((ticket.stream, topic)).or_default().push(payload.trim().parse().unwrap());
        }
    }
    drained
}

#[test]
fn thin_keeps_every_nth_record_of_a_series_however_few_of_them_a_segment_holds() {
    // Capacity, series, bytes of a record: tags of a small spool, and devices with long messages. A segment holds less than one poll, or three.
    for (capacity, series, bytes) in
        [(1u64 << 20, 200, 60), (4 << 20, 200, 60), (4 << 20, 2, 10_000), (1 << 20, 2, 10_000)]
    {
        let disks: [FaultDisk; 3] = Default::default();
        let options = SpoolOptions { retention: Retention::Thin(4), ..SpoolOptions::new(capacity, "lost") };
        let mut spool = open(&disks, options.clone());
        let polls = capacity * 9 / 4 / (u64::from(series) * (bytes as u64 + 50));
        for nth in 1..=polls {
            poll(&spool, Stream::Normal, nth, series, bytes);
            spool.commit().unwrap();
            spool.tend();
        }
        let what = format!("{capacity} bytes, {series} series of {bytes}, {polls} polls");
        let of = |reason| spool.stats.lost.of(reason).0;
        assert_eq!(of(Reason::Full), 0, "{what}: nothing had to go that could be thinned");
        let thinned = of(Reason::Thinned(4));
        assert!(thinned > 0, "{what}");
        balanced(&spool);
        // The gateway is killed: what was thinned out is no damage in the next life.
        spool.commit().unwrap();
        let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_kill());
        spool = open(&disks, options);
        assert_eq!(spool.stats.lost.messages(), 0, "{what}");
        let drained = drain(&spool);
        assert_eq!(drained.polls.len(), series as usize, "{what}: no series is gone");
        for (which, came) in &drained.polls {
            assert!(came.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 4), "{what}: {which:?} has {came:?}");
            assert!(came[0] <= 4 && came.last() == Some(&polls), "{what}: {which:?} has {came:?}");
        }
        assert_eq!(drained.told.get("thinned"), Some(&thinned), "{what}: {:?}", drained.told);
        assert_eq!(drained.came.len() as u64 + thinned, polls * u64::from(series), "{what}: each came or is told");
        assert!(spool.is_empty());
        spool.tend();
        assert!(spool.stats.disk_bytes.load(Relaxed) < capacity / 8, "{what}: what was delivered is freed");
    }
}

#[test]
fn thin_takes_low_first_then_normal_and_only_what_is_thin_goes_whole() {
    let disks: [FaultDisk; 3] = Default::default();
    let options = SpoolOptions { retention: Retention::Thin(4), ..SpoolOptions::new(1 << 20, "lost") };
    let spool = open(&disks, options);
    let (mut nth, mut order) = (0, Vec::new());
    let lost = || [Reason::Thinned(4), Reason::Full].map(|reason| spool.stats.lost.of(reason).0);
    while lost()[1] == 0 {
        nth += 1;
        poll(&spool, Stream::Low, nth, 20, 60);
        poll(&spool, Stream::Normal, nth, 20, 60);
        poll(&spool, Stream::High, nth, 1, 60);
        spool.commit().unwrap();
        spool.tend();
        order.push(lost());
        assert!(nth < 100_000, "it never is full");
    }
    assert!(order.iter().any(|[thinned, full]| *thinned > 1000 && *full == 0), "thinned before anything goes whole");
    balanced(&spool);
    let drained = drain(&spool);
    assert!((1..=nth).all(|n| drained.polls[&(Stream::High, "t/0".to_string())].contains(&n)), "high is not thinned");
}

const MIB: u64 = 1 << 20;

/// A spool on a disk that somebody else fills after a first commit; then so many polls of each stream of 10 kB.
fn on_a_full_disk(polls: [u64; 3]) -> (Arc<Spool>, [FaultDisk; 3]) {
    let disks: [FaultDisk; 3] = Default::default();
    let spool = open(&disks, SpoolOptions::new(4 * MIB, "lost"));
    for stream in STREAMS {
        poll(&spool, stream, 1, 10, 1000);
    }
    spool.commit().unwrap();
    disks.iter().for_each(|disk| {
        let used: usize = disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
        disk.limit(Some(used as u64 + 5000));
    });
    for nth in 2..=polls.into_iter().max().unwrap() {
        for (stream, polls) in STREAMS.into_iter().zip(polls) {
            if nth <= polls {
                poll(&spool, stream, nth, 10, 1000);
            }
        }
        assert!(spool.commit().is_err(), "poll {nth}");
        assert!(spool.stats.is_failing.load(Relaxed), "poll {nth}: it shows at once");
        spool.tend();
        let status = spool.status();
        assert!(status.used_bytes <= status.capacity_bytes + 64 * 1024, "poll {nth}: {status:?}");
        balanced(&spool);
    }
    (spool, disks)
}

#[test]
fn on_a_disk_that_others_have_filled_nothing_is_lost_while_memory_has_room() {
    let (spool, disks) = on_a_full_disk([50, 150, 150]);
    assert_eq!(spool.stats.lost.messages(), 0, "{:?}", spool.stats.lost.by_reason());
    assert_eq!(spool.waiting().map(|(_, messages, _)| messages), [500, 1500, 1500]);
    // Somebody tidies up: it goes on by itself.
    disks.iter().for_each(|disk| disk.limit(None));
    spool.commit().unwrap();
    assert!(!spool.stats.is_failing.load(Relaxed));
    assert_eq!(spool.stats.volatile_bytes.load(Relaxed), 0, "all of it is on disk");
    assert_eq!(drain(&spool).came.len(), 3500);
}

#[test]
fn what_a_full_disk_costs_is_lost_for_the_disk_low_first_and_high_last() {
    let (spool, _disks) = on_a_full_disk([50, 250, 250]);
    let lost = spool.stats.lost.of(Reason::Disk).0;
    assert!(lost > 1000, "{:?}", spool.stats.lost.by_reason());
    assert_eq!(spool.stats.lost.messages(), lost, "{:?}", spool.stats.lost.by_reason());
    let drained = drain(&spool);
    let count = |stream: Stream| drained.came.iter().filter(|(s, _)| *s == stream).count() as u64;
    assert_eq!((count(Stream::High), count(Stream::Normal)), (500, 2500), "low was enough");
    assert_eq!(count(Stream::Low) + lost, 2500);
    assert_eq!(drained.told.get("disk"), Some(&lost));
    drop(spool);

    // More than low has.
    let (spool, _disks) = on_a_full_disk([100, 450, 50]);
    let drained = drain(&spool);
    let count = |stream: Stream| drained.came.iter().filter(|(s, _)| *s == stream).count() as u64;
    assert_eq!(count(Stream::High), 1000, "high goes last");
    assert!(count(Stream::Normal) < 4500 && count(Stream::Low) <= 20, "{:?}", spool.stats.lost.by_reason());
}

#[test]
fn a_spool_that_is_larger_than_what_its_disk_has_left_is_full_when_the_disk_is() {
    let disks: [FaultDisk; 3] = Default::default();
    let spool = open(&disks, SpoolOptions::new(1024 * MIB, "lost"));
    disks.iter().for_each(|disk| disk.limit(Some(3 * MIB)));
    for nth in 1..=3 {
        poll(&spool, Stream::Normal, nth, 200, 1000);
        spool.commit().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(600));
        spool.tend();
    }
    let free = disks[1].free().unwrap();
    let status = spool.status();
    assert_eq!(status.room_bytes, free, "{status:?}");
    for after in [status.full_in_s, status.lasts_s] {
        let after = after.unwrap_or_else(|| panic!("{status:?}"));
        assert!((after * status.in_bytes_per_s - free as f64).abs() < 1.0, "{status:?}");
    }
    // A disk that has more than enough: the spool is what is full first.
    disks.iter().for_each(|disk| disk.limit(Some(4096 * MIB)));
    spool.tend();
    let status = spool.status();
    assert_eq!(status.room_bytes, status.capacity_bytes - status.used_bytes);
    // One that takes nothing: what is left is memory.
    disks.iter().for_each(|disk| disk.limit(Some(0)));
    poll(&spool, Stream::Normal, 4, 200, 1000);
    assert!(spool.commit().is_err());
    spool.tend();
    let status = spool.status();
    assert!((15 * MIB..16 * MIB).contains(&status.room_bytes), "{status:?}");
    balanced(&spool);
}

#[test]
fn a_folder_knows_what_its_disk_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spool::start(Some(dir.path()), SpoolOptions::new(1 << 60, "lost")).unwrap();
    handle.spool.tend();
    let status = handle.spool.status();
    assert!(status.room_bytes > 0 && status.room_bytes < 1 << 50, "{status:?}");
}
