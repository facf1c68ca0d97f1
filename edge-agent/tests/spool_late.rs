//! A spool whose folder cannot be opened at the start is opened later: what was in it waits, what was promised meanwhile goes there, no
//! number is used twice, and nobody has to restart anything.

mod support {
    pub mod accounts;
    pub mod fault_disk;
    pub mod sending;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{
    Disk, Kind, Next, Outlet, Reason, Replay, STREAMS, SpoolOptions, SpoolStatus, Stream, Ticket,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use support::accounts::balanced;
use support::fault_disk::FaultDisk;
use support::sending::append;

const MIB: u64 = 1 << 20;
type Which = (Stream, u64);

fn options() -> SpoolOptions {
    SpoolOptions { reopen_after: Duration::from_millis(50), ..SpoolOptions::new(4 * MIB, "lost") }
}

fn all(disks: &[FaultDisk; 3]) -> [Arc<dyn Disk>; 3] {
    std::array::from_fn(|n| Arc::new(disks[n].clone()) as Arc<dyn Disk>)
}

/// Sends so many; notices are given as JSON.
fn send(outlet: &mut Outlet, count: usize, told: &mut Vec<serde_json::Value>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    while tickets.len() < count {
        let next = outlet.next_blocking(Instant::now(), |_, r| Some((r.kind, r.payload.to_vec())));
        let Next::Record(ticket, (kind, payload)) = next else { break };
        if kind == Kind::Loss {
            let text = String::from_utf8(payload).unwrap().replace(":}", ":0}");
            told.push(serde_json::from_str(&text).unwrap());
        }
        tickets.push(ticket);
    }
    tickets
}

fn which(ticket: &Ticket) -> Which {
    (ticket.stream, ticket.sequence)
}

/// A life in which 100 were promised, of which 30 are delivered; numbers that were used.
fn earlier_life(disks: &[FaultDisk; 3], stops: bool) -> BTreeSet<Which> {
    let spool = Spool::open(all(disks), options()).unwrap();
    append(&spool, Stream::Normal, 0..100);
    spool.commit().unwrap();
    let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
    send(&mut outlet, 30, &mut Vec::new()).iter().for_each(|ticket| outlet.acknowledge(ticket));
    spool.tend();
    if stops {
        spool.close();
    }
    (1..=100).map(|n| (Stream::Normal, n)).collect()
}

#[test]
fn what_was_promised_before_the_folder_opened_and_what_was_in_it_are_each_delivered_once() {
    for (replay, stops) in [Replay::LiveFirst, Replay::InOrder].into_iter().flat_map(|r| [(r, true), (r, false)]) {
        let disks: [FaultDisk; 3] = Default::default();
        let used = earlier_life(&disks, stops);
        let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_kill());
        let spool = Spool::unopened(options(), "it is not there".into());
        assert!(spool.why_unopened().is_some() && spool.stats.is_failing.load(Relaxed));
        let (mut outlet, mut told) = (Outlet::new(spool.clone(), replay, None), Vec::new());
        append(&spool, Stream::Normal, 100..150);
        append(&spool, Stream::High, 0..3);
        assert!(spool.commit().is_err());
        spool.tend();
        let mut came: BTreeSet<Which> = BTreeSet::new();
        let flying = send(&mut outlet, 20, &mut told);
        for ticket in &flying[..10] {
            outlet.acknowledge(ticket);
            assert!(came.insert(which(ticket)));
        }
        assert!(!outlet.is_outdated());

        spool.attach(all(&disks)).unwrap();
        assert!(outlet.is_outdated());
        assert_eq!(spool.why_unopened(), None);
        spool.commit().unwrap();
        assert_eq!(spool.stats.volatile_bytes.load(Relaxed), 0, "all of it is on disk");
        balanced(&spool);
        append(&spool, Stream::Normal, 150..160);
        for ticket in &flying[10..] {
            outlet.acknowledge(ticket);
            assert!(came.insert(which(ticket)));
        }
        outlet.restart();
        // Half of it now, the rest after a kill.
        for ticket in send(&mut outlet, 40, &mut told) {
            outlet.acknowledge(&ticket);
            assert!(came.insert(which(&ticket)), "{ticket:?} comes again");
        }
        spool.commit().unwrap();
        spool.tend();
        let accounts = balanced(&spool);
        assert_eq!((accounts.produced, accounts.lost), (70 + 50 + 3 + 10, 0));
        let next = STREAMS.map(|s| spool.next_sequence(s));
        let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_kill());
        let spool = Spool::open(all(&disks), options()).unwrap();
        assert_eq!(spool.stats.lost.messages(), 0, "{:?}", spool.stats.lost.by_reason());
        let mut outlet = Outlet::new(spool.clone(), replay, None);
        for ticket in send(&mut outlet, usize::MAX, &mut told) {
            outlet.acknowledge(&ticket);
            came.insert(which(&ticket));
        }
        assert!(STREAMS.iter().zip(next).all(|(s, next)| spool.next_sequence(*s) >= next), "numbers go on");
        let of = |stream| came.iter().filter(|(s, _)| *s == stream).map(|(_, n)| *n).collect::<Vec<_>>();
        let normal = of(Stream::Normal);
        assert_eq!(normal.len(), 70 + 60, "{replay:?}, stopped {stops}");
        assert_eq!(&normal[..70], &(31..=100).collect::<Vec<_>>()[..]);
        let fresh: BTreeSet<Which> = normal[70..].iter().map(|n| (Stream::Normal, *n)).collect();
        assert!(fresh.is_disjoint(&used), "no number is used twice");
        assert!(normal[70..].windows(2).all(|w| w[0] + 1 == w[1]), "and none is left out");
        assert!(normal.last().unwrap() < &(1 << 53), "JSON keeps it");
        // Who counts is told where the numbers go on.
        let jump = told.iter().find(|t| t["lost_stream"] == "normal" && t["reason"] == "restart").expect("a jump");
        assert_eq!((&jump["promised_to"], &jump["continues_at"]), (&100.into(), &normal[70].into()), "{jump}");
        assert_eq!(told.iter().map(|t| t["lost"].as_u64().unwrap()).sum::<u64>(), 0, "{told:?}");
        balanced(&spool);
    }
}

#[test]
fn where_nothing_was_promised_meanwhile_the_numbers_go_on_as_if_the_folder_had_been_there() {
    let disks: [FaultDisk; 3] = Default::default();
    earlier_life(&disks, true);
    let spool = Spool::unopened(options(), "it is not there".into());
    let mut outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
    assert!(send(&mut outlet, 1, &mut Vec::new()).is_empty());
    spool.attach(all(&disks)).unwrap();
    append(&spool, Stream::Normal, 100..105);
    outlet.restart();
    let mut told = Vec::new();
    let sent: Vec<u64> = send(&mut outlet, 1000, &mut told).iter().map(|t| t.sequence).collect();
    assert_eq!((sent, told.len()), ((31..=105).collect(), 0));
    balanced(&spool);
}

#[test]
fn memory_that_is_full_before_the_folder_opens_loses_what_is_told_and_the_rest_goes_there() {
    let disks: [FaultDisk; 3] = Default::default();
    let spool = Spool::unopened(SpoolOptions::new(MIB, "lost"), "it is not there".into());
    for n in 0..40 {
        append(&spool, Stream::Normal, n * 1000..(n + 1) * 1000);
        let _ = spool.commit();
        spool.tend();
        let status: SpoolStatus = spool.status();
        assert!(status.used_bytes <= MIB && status.room_bytes <= MIB - status.used_bytes, "{status:?}");
        balanced(&spool);
    }
    let lost = spool.stats.lost.of(Reason::Disk);
    assert!(lost.0 > 1000, "{:?}", spool.stats.lost.by_reason());
    spool.attach(all(&disks)).unwrap();
    spool.commit().unwrap();
    let (mut outlet, mut told) = (Outlet::new(spool.clone(), Replay::InOrder, None), Vec::new());
    while !spool.is_empty() {
        let sent = send(&mut outlet, 100, &mut told);
        assert!(!sent.is_empty(), "{:?}", spool.waiting());
        sent.iter().for_each(|ticket| outlet.acknowledge(ticket));
    }
    let accounts = balanced(&spool);
    assert_eq!((accounts.delivered + lost.1, accounts.waiting), (40_000, 0));
    assert_eq!(told.iter().map(|t| t["lost"].as_u64().unwrap()).sum::<u64>(), lost.0);
}

#[test]
fn a_disk_that_is_full_when_it_comes_is_tried_again_and_nothing_is_counted_twice() {
    let disks: [FaultDisk; 3] = Default::default();
    earlier_life(&disks, true);
    let spool = Spool::unopened(options(), "it is not there".into());
    append(&spool, Stream::Normal, 100..110);
    for full in &disks {
        full.limit(Some(0));
        spool.attach(all(&disks)).unwrap_err();
        assert!(spool.why_unopened().is_some() && spool.accounts().produced == 10);
        full.limit(None);
    }
    spool.attach(all(&disks)).unwrap();
    spool.commit().unwrap();
    let (mut outlet, mut told) = (Outlet::new(spool.clone(), Replay::InOrder, None), Vec::new());
    let sent = send(&mut outlet, usize::MAX, &mut told);
    sent.iter().for_each(|ticket| outlet.acknowledge(ticket));
    let normal: BTreeSet<u64> = sent.iter().filter(|t| t.stream == Stream::Normal).map(|t| t.sequence).collect();
    assert!(normal.len() == 80 && (31..=100).all(|n| normal.contains(&n)), "{normal:?}");
    let accounts = balanced(&spool);
    assert_eq!((accounts.produced, accounts.delivered, accounts.lost), (80, 80, 0), "{told:?}");
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file in the place of the folder, or of a stream in it.
#[test]
fn a_folder_that_cannot_be_opened_is_tried_again_until_it_can() {
    for place in ["spool", "spool/normal"] {
        let home = tempfile::tempdir().unwrap();
        let (folder, thing) = (home.path().join("spool"), home.path().join(place));
        std::fs::create_dir_all(thing.parent().unwrap()).unwrap();
        std::fs::write(&thing, "a file where the folder should be").unwrap();
        let handle = Spool::start(Some(&folder), options()).unwrap();
        let spool = handle.spool.clone();
        let why = spool.why_unopened().unwrap_or_else(|| panic!("{place}: it is open"));
        assert!(why.contains("cannot be opened"), "{why}");
        append(&spool, Stream::Normal, 0..50);
        std::thread::sleep(Duration::from_millis(200));
        assert!(spool.why_unopened().is_some() && spool.stats.is_failing.load(Relaxed));
        std::fs::remove_file(&thing).unwrap();
        until(place, || spool.why_unopened().is_none() && !spool.stats.is_failing.load(Relaxed));
        until(place, || spool.stats.volatile_bytes.load(Relaxed) == 0);
        append(&spool, Stream::Normal, 50..60);
        let next = spool.next_sequence(Stream::Normal);
        balanced(&spool);
        drop(spool);
        assert_eq!(handle.stop(), None, "nothing is given up");
        let handle = Spool::start(Some(&folder), options()).unwrap();
        assert_eq!((handle.spool.why_unopened(), handle.spool.next_sequence(Stream::Normal)), (None, next));
        assert_eq!(handle.spool.accounts().waiting, 60);
    }
}
