//! Restarts without end: what was never promised is no loss, what is done stays done, and what a disk took from the end is told.
//!
//! `SPOOL_SEED=<seed>` runs one round again.

mod support {
    pub mod accounts;
    pub mod fault_disk;
    pub mod sending;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{
    Disk, Kind, Next, Outlet, Reason, Records, Replay, STREAMS, SpoolOptions, Stream, Ticket,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use support::accounts::balanced;
use support::fault_disk::FaultDisk;
use support::sending::append;

type Disks = [FaultDisk; 3];

/// Segments of 32 KiB.
fn open(disks: &Disks) -> Arc<Spool> {
    let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
    Spool::open([disk(0), disk(1), disk(2)], SpoolOptions::new(2 << 20, "lost")).unwrap()
}

fn killed(disks: &Disks) -> Disks {
    std::array::from_fn(|n| disks[n].after_kill())
}

/// A message as it came: which, and what it tells as lost, if anything.
struct Came {
    ticket: Ticket,
    lost: Option<serde_json::Value>,
}

fn next(outlet: &mut Outlet) -> Option<Came> {
    let next = outlet.next_blocking(Instant::now(), |_, r| {
        let text = (r.kind == Kind::Loss).then(|| String::from_utf8_lossy(r.payload).replace(":}", ":0}"));
        Some(text.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()))
    });
    let Next::Record(ticket, notice) = next else { return None };
    Some(Came { ticket, lost: notice.filter(|n| n["lost"] != 0) })
}

fn segments(disks: &Disks) -> usize {
    disks.iter().flat_map(FaultDisk::files).filter(|(name, _)| name.ends_with(".seg")).count()
}

/// Records are delivered before or after their commit, acknowledged in any order, with the cursor saved behind them or not.
#[test]
fn after_a_hundred_kills_nothing_is_told_that_was_never_promised_and_what_is_done_stays_done() {
    let one = std::env::var("SPOOL_SEED").ok().and_then(|s| s.parse().ok());
    for seed in one.map_or(1..=4, |seed: u64| seed..=seed) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disks = Disks::default();
        let (mut promised, mut saved) = (BTreeSet::new(), BTreeSet::new());
        let (mut acknowledged, mut ever) = (BTreeSet::new(), BTreeSet::new());
        // Some rounds leave much behind in each life, some nothing but a number or two.
        let most = [3, 30][rng.usize(0..2)];
        for life in 0..140 {
            ever.extend(std::mem::replace(&mut acknowledged, saved.clone())); // of the rest nobody can know
            let spool = open(&disks);
            let replay = if rng.bool() { Replay::LiveFirst } else { Replay::InOrder };
            let mut outlet = Outlet::new(spool.clone(), replay, None);
            let (mut flying, firsts) = (Vec::new(), STREAMS.map(|stream| spool.next_sequence(stream)));
            for _ in 0..rng.usize(0..4) {
                for stream in STREAMS {
                    let first = spool.next_sequence(stream);
                    append(&spool, stream, first..first + rng.u64(0..most));
                }
                if rng.bool() {
                    spool.commit().unwrap();
                }
                flying.extend((0..rng.usize(0..most as usize * 4)).map_while(|_| next(&mut outlet)));
                rng.shuffle(&mut flying);
                for came in flying.drain(rng.usize(0..=flying.len())..) {
                    let which = (came.ticket.stream, came.ticket.sequence);
                    assert!(!saved.contains(&which), "seed {seed}, life {life}: {which:?} comes again");
                    assert!(came.lost.is_none(), "seed {seed}, life {life}: {:?}", came.lost);
                    outlet.acknowledge(&came.ticket);
                    acknowledged.insert(which);
                }
                if rng.u8(0..3) == 0 {
                    spool.tend();
                    saved.clone_from(&acknowledged);
                }
                for (stream, first) in STREAMS.into_iter().zip(firsts) {
                    promised.extend((first..spool.durable(stream)).map(|n| (stream, n)));
                }
            }
            balanced(&spool);
            disks = killed(&disks);
        }
        ever.extend(std::mem::replace(&mut acknowledged, saved.clone()));
        for stop in 0..4 {
            let spool = open(&disks);
            let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
            while let Some(came) = next(&mut outlet) {
                let which = (came.ticket.stream, came.ticket.sequence);
                assert!(!saved.contains(&which), "seed {seed}, stop {stop}: {which:?} comes again");
                assert!(came.lost.is_none(), "seed {seed}, stop {stop}: {:?}", came.lost);
                outlet.acknowledge(&came.ticket);
                acknowledged.insert(which);
            }
            assert_eq!(spool.stats.lost.messages(), 0, "seed {seed}, stop {stop}");
            let accounts = balanced(&spool);
            assert!(spool.is_empty() && accounts.lost == 0, "seed {seed}: {accounts:?}");
            append(&spool, Stream::Normal, 1..3);
            spool.close();
            // What is left are the two that have just come, and perhaps the notice beside them.
            assert!(segments(&disks) <= 2, "seed {seed}, stop {stop}: {} segments are left", segments(&disks));
            saved.clone_from(&acknowledged);
            disks = killed(&disks);
        }
        ever.append(&mut acknowledged);
        let missing: Vec<_> = promised.difference(&ever).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} were promised");
        assert!(promised.len() > 100, "seed {seed}: this proves little");
    }
}

/// What has become of the file with the newest records.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    Zeroed,
    Emptied,
    Removed,
}

#[test]
fn what_is_gone_from_the_end_is_told_with_its_values_after_a_kill_and_after_a_stop() {
    const COUNT: u64 = 900;
    for (harm, stopped) in [Harm::Cut, Harm::Zeroed, Harm::Emptied, Harm::Removed]
        .into_iter()
        .flat_map(|harm| [(harm, false), (harm, true)])
    {
        let disks = Disks::default();
        let spool = open(&disks);
        let mut records = Records::default();
        for n in 1..=COUNT {
            records.push((Stream::Normal, Kind::Json), &["t/v"], (n, 5), |out| {
                out.extend_from_slice(&[b'x'; 100]);
                0
            });
            if n % 30 == 0 {
                spool.append(&mut records);
                spool.commit().unwrap();
            }
        }
        let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
        for _ in 0..20 {
            let came = next(&mut outlet).unwrap();
            outlet.acknowledge(&came.ticket);
        }
        spool.tend();
        if stopped {
            spool.close();
        }
        let disks = killed(&disks);
        let newest = disks[1].files().into_iter().filter(|(name, _)| name.ends_with(".seg")).max();
        let (name, mut bytes) = newest.unwrap();
        let half = bytes.len() / 2;
        match harm {
            Harm::Cut => bytes.truncate(half),
            Harm::Zeroed => bytes[half..].fill(0),
            Harm::Emptied => bytes.clear(),
            Harm::Removed => disks[1].remove(&name).unwrap(),
        }
        disks[1].overwrite(&name, bytes);

        let spool = open(&disks);
        let accounts = balanced(&spool);
        assert_eq!(accounts.produced, (COUNT - 20) * 5, "{harm:?}, stopped {stopped}: {accounts:?}");
        let (messages, values) = spool.stats.lost.of(Reason::Damaged);
        assert!(messages > 10 && messages < COUNT - 20, "{harm:?}, stopped {stopped}: {messages}");
        assert_eq!(values, messages * 5, "{harm:?}, stopped {stopped}");
        let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
        let (mut came, mut told) = (BTreeSet::new(), BTreeSet::new());
        // A notice that goes on where the numbers do is told beside what is new.
        append(&spool, Stream::Normal, 1..2);
        let new = spool.next_sequence(Stream::Normal) - 1;
        while let Some(one) = next(&mut outlet) {
            match &one.lost {
                Some(n) => told.extend(n["from_sequence"].as_u64().unwrap()..=n["to_sequence"].as_u64().unwrap()),
                None if one.ticket.stream == Stream::Normal => drop(came.insert(one.ticket.sequence)),
                None => {}
            }
            outlet.acknowledge(&one.ticket);
        }
        assert!(came.remove(&new));
        assert!(came.is_disjoint(&told), "{harm:?}, stopped {stopped}");
        assert!(came.union(&told).copied().eq(21..=COUNT), "{harm:?}, stopped {stopped}: {told:?} are told");
        assert_eq!(spool.stats.lost.of(Reason::Damaged).0, messages);
        let accounts = balanced(&spool);
        assert_eq!((accounts.waiting, spool.stats.waiting.load(Relaxed)), (0, 0), "{harm:?}, stopped {stopped}");
    }
}
