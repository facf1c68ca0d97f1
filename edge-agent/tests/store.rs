//! The store against a model of it: what was promised is there after any end of the process, and what a disk has spoiled is told.
//!
//! A round that fails prints its seed: `STORE_SEED=<seed> cargo test --workspace --test store <name>` runs it again, alone.

mod support {
    pub mod fault_disk;
}

use edge_agent::store::{Missing, Opened, Store, verify};
use edge_agent::telemetry::spool::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use support::fault_disk::FaultDisk;

fn rounds(count: u64, round: impl Fn(u64)) {
    if let Some(seed) = std::env::var("STORE_SEED").ok().and_then(|s| s.parse().ok()) {
        return round(seed);
    }
    for seed in 1..=count {
        if let Err(why) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(seed))) {
            eprintln!("seed {seed}: run it again with STORE_SEED={seed}");
            std::panic::resume_unwind(why);
        }
    }
}

/// What each event of the test says: a number of its own, and room so that logs come to their end.
fn body(n: u64) -> Vec<u8> {
    format!("{{\"n\":{n},\"more\":\"{}\"}}", "x".repeat((n % 40) as usize * 10)).into_bytes()
}

fn own_number(body: &[u8]) -> u64 {
    let said: serde_json::Value = serde_json::from_slice(body).expect("what is shown is what was written");
    said["n"].as_u64().expect("a number")
}

/// The store on this disk, and what it shows: the number of the event by what it says.
fn open(disk: &FaultDisk, reserve: u64) -> io::Result<(Store, Opened, BTreeMap<u64, u64>)> {
    let (mut shown, mut last) = (BTreeMap::new(), 0);
    let (store, opened) = Store::open(Arc::new(disk.clone()), reserve, |event| {
        assert!(event.number > last, "{} after {last}", event.number);
        last = event.number;
        assert_eq!(event.body, body(own_number(event.body)));
        assert_eq!(shown.insert(own_number(event.body), event.number), None, "nothing is shown twice");
    })?;
    Ok((store, opened, shown))
}

#[test]
fn what_was_promised_is_there_after_any_end_of_the_process_and_after_any_failure_of_the_disk() {
    rounds(400, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = FaultDisk::default();
        // What was promised and still stands; what was handed in and not promised; what nothing stands on any more.
        let (mut stands, mut perhaps, mut gone) = <(BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>)>::default();
        let (mut next, mut promised) = (0, 0);
        for life in 0..6 {
            let (store, opened, shown) = open(&disk, 0).unwrap_or_else(|e| panic!("life {life}: {e}"));
            // Where the power failed while the newest number was written beside, more may be feared than was lost.
            assert!(opened.missing.iter().all(|m| m.from > promised), "life {life}: {opened:?}");
            assert!(opened.damaged.is_empty() || !opened.missing.is_empty(), "life {life}: {opened:?}");
            let shown: BTreeSet<u64> = shown.into_keys().collect();
            assert!(shown.is_superset(&stands), "lost: {:?}", stands.difference(&shown).collect::<Vec<_>>());
            let strange: Vec<_> =
                shown.iter().filter(|n| !stands.contains(n) && !perhaps.contains(*n) && !gone.contains(*n)).collect();
            assert!(strange.is_empty(), "{strange:?}");
            // What was not promised and is there all the same stays there.
            stands.extend(shown.iter().copied().filter(|n| perhaps.remove(n)));
            perhaps.clear();
            if rng.bool() {
                disk.die_after(Some(rng.u64(1..60)));
            }
            for _ in 0..rng.u32(1..40) {
                match rng.u8(0..12) {
                    0 => {
                        let drop: BTreeSet<u64> = stands.iter().copied().filter(|_| rng.u8(0..3) == 0).collect();
                        gone.extend(&drop);
                        stands.retain(|n| !drop.contains(n));
                        let _ = store.snapshot(|event| stands.contains(&own_number(event.body)));
                    }
                    1 => disk.fail_writes(1),
                    2 => disk.fail_syncs(1),
                    _ => {
                        next += 1;
                        match store.append("test.event", body(next)) {
                            Ok(()) => {
                                promised = store.newest().0;
                                stands.insert(next)
                            }
                            Err(_) => perhaps.insert(next),
                        };
                    }
                }
            }
            drop(store);
            let verdict = || verify(&disk).expect("the logs can be read");
            assert!(disk.is_dead() || verdict().changed.is_empty(), "{:?}", verdict());
            disk = if rng.bool() { disk.after_kill() } else { disk.after_power_failure(&mut rng) };
        }
    });
}

/// A store with a snapshot and several logs; what it shows.
fn made(rng: &mut fastrand::Rng) -> (FaultDisk, BTreeMap<u64, u64>) {
    let disk = FaultDisk::default();
    let mut next = 0;
    for _ in 0..rng.u32(1..4) {
        let (store, ..) = open(&disk, 0).expect("a sound disk");
        for _ in 0..rng.u32(1..30) {
            next += 1;
            store.append("test.event", body(next)).expect("room");
        }
        if rng.bool() {
            store.snapshot(|event| !own_number(event.body).is_multiple_of(3)).expect("room");
        }
    }
    let shown = open(&disk, 0).expect("a sound disk").2;
    (disk, shown)
}

fn is_told(missing: &[Missing], number: u64) -> bool {
    missing.iter().any(|m| (m.from..=m.to).contains(&number))
}

#[test]
fn whatever_is_flipped_cut_emptied_swapped_or_removed_the_store_opens_and_says_what_is_missing() {
    rounds(1000, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (disk, before) = made(&mut rng);
        let files = disk.files();
        let (name, bytes) = rng.choice(&files).expect("there are files").clone();
        let mut harmed = bytes.clone();
        let what = rng.u8(0..5);
        match what {
            0 if !bytes.is_empty() => harmed[rng.usize(0..bytes.len())] ^= 1 << rng.u8(0..8),
            1 => harmed.truncate(rng.usize(0..=bytes.len())),
            2 => harmed.clear(),
            3 => {
                let (other, content) = rng.choice(&files).expect("there are files").clone();
                disk.overwrite(&other, bytes.clone());
                harmed = content;
            }
            _ => drop(disk.remove(&name)),
        }
        disk.overwrite(&name, harmed);
        let (store, opened, shown) = open(&disk, 0).unwrap_or_else(|e| panic!("{name}, harm {what}: {e}"));
        for (n, number) in &before {
            let is_there = shown.contains_key(n);
            assert!(
                is_there || is_told(&opened.missing, *number),
                "{name}, harm {what}: {n} ({number}) of {before:?}: {opened:?}"
            );
        }
        store.append("test.event", body(1_000_000)).expect("it goes on");
        drop(store);
        // The next start has nothing to tell, and shows the same.
        let (store, again, later) = open(&disk, 0).expect("a mended store");
        assert!(
            again.missing.is_empty() && again.damaged.is_empty(),
            "{name}, harm {what}: {again:?} after {opened:?}"
        );
        let expected: BTreeSet<u64> = shown.keys().copied().chain([1_000_000]).collect();
        assert_eq!(later.into_keys().collect::<BTreeSet<_>>(), expected, "{name}, harm {what}");
        let newest = store.newest().0;
        assert!(before.values().all(|number| *number < newest), "no number is given twice");
    });
}

#[test]
fn an_event_that_somebody_has_changed_is_found_though_its_checksum_is_right() {
    let disk = FaultDisk::default();
    let (store, ..) = open(&disk, 0).unwrap();
    (1..=5).for_each(|n| store.append("test.event", body(n)).unwrap());
    let sound = verify(&disk).unwrap();
    assert!(sound.is_good() && sound.events == 6, "{sound:?}");
    assert_eq!(sound.hash, edge_agent::store::event::hex(&store.newest().1));
    drop(store);
    let (name, mut bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".log")).unwrap();
    let at = bytes.windows(5).position(|w| w == b"\"n\":3").unwrap();
    // A forger who knows the format: the record's own checksums are made anew.
    let start = bytes[..at].windows(2).rposition(|w| w == b"LR").unwrap();
    bytes[at + 4] = b'4';
    let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap()) as usize;
    let sum = crc32c::crc32c(&bytes[start + 24..start + length]);
    bytes[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
    let head = crc32c::crc32c(&bytes[start..start + 20]);
    bytes[start + 20..start + 24].copy_from_slice(&head.to_le_bytes());
    disk.overwrite(&name, bytes);
    let forged = verify(&disk).unwrap();
    assert_eq!(forged.changed, [(4, name)], "{forged:?}");
    assert!(forged.damaged.is_empty() && forged.missing.is_empty(), "{forged:?}");
}

#[test]
fn a_full_disk_takes_from_the_reserve_and_says_when_that_is_gone() {
    let disk = FaultDisk::default();
    disk.limit(Some(400 << 10));
    let (store, ..) = open(&disk, 256 << 10).unwrap();
    let mut taken = 0u64;
    let refused = loop {
        match store.append("test.event", vec![b' '; 4 << 10]) {
            Ok(()) => taken += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(taken * (4 << 10) > 380 << 10, "the reserve was used: {taken} events");
    disk.limit(None);
    store.append("test.event", body(1)).expect("room again");
    assert!(verify(&disk).unwrap().is_good());
}

#[test]
fn logs_are_closed_at_their_length_and_the_oldest_go_when_a_snapshot_stands_for_them() {
    let disk = FaultDisk::default();
    let (store, ..) = open(&disk, 0).unwrap();
    let large = vec![b'7'; 1 << 20];
    (0..6).for_each(|_| store.append("test.large", large.clone()).unwrap());
    let logs = |disk: &FaultDisk| disk.files().iter().filter(|(name, _)| name.ends_with(".log")).count();
    assert_eq!(logs(&disk), 2);
    (0..14).for_each(|_| store.append("test.large", large.clone()).unwrap());
    assert!(store.wants_snapshot());
    store.snapshot(|_| false).unwrap();
    assert!(!store.wants_snapshot());
    drop(store);
    let mut events = 0;
    let (_, opened) = Store::open(Arc::new(disk.clone()), 0, |_| events += 1).unwrap();
    assert_eq!((events, opened.missing), (0, Vec::new()));
    assert!(verify(&disk).unwrap().is_good(), "the logs are still there for the audit");
}
