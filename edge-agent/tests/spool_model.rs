//! The spool against a model of it: random appends, acknowledgements, commits and failures, crashes between any two calls to the disk.
//!
//! A round that fails prints its seed: `SPOOL_SEED=<seed> cargo test -p edge-agent --test spool_model <name>` runs it again, alone.

mod support {
    pub mod fault_disk;
}

use edge_agent::telemetry::spool::record::Record;
use edge_agent::telemetry::spool::{
    Disk, Kind, Next, Outlet, Records, Replay, Retention, STREAMS, Spool, SpoolOptions, Stream, Ticket,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use support::fault_disk::FaultDisk;

/// Runs `round` with as many seeds, or with the one that is asked for.
fn rounds(count: u64, round: impl Fn(u64)) {
    if let Some(seed) = std::env::var("SPOOL_SEED").ok().and_then(|s| s.parse().ok()) {
        return round(seed);
    }
    for seed in 1..=count {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(seed)));
        if let Err(why) = result {
            eprintln!("seed {seed}: run it again with SPOOL_SEED={seed}");
            std::panic::resume_unwind(why);
        }
    }
}

type Disks = [FaultDisk; 3];

fn open(disks: &Disks, options: &SpoolOptions) -> std::io::Result<Arc<Spool>> {
    let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
    Spool::open([disk(0), disk(1), disk(2)], options.clone())
}

/// What a test knows of one stream.
#[derive(Default)]
struct Told {
    /// What each sequence says.
    said: HashMap<u64, String>,
    /// Sequences whose acknowledgement was given.
    acknowledged: BTreeSet<u64>,
    /// Sequences that a loss record names, if it is about lost records.
    lost: BTreeSet<u64>,
    /// Sequences that were appended in this life and are not promised yet.
    fresh: BTreeSet<u64>,
    /// Sequences that were promised.
    promised: BTreeSet<u64>,
    /// The highest sequence anybody has seen.
    seen: u64,
}

struct Model {
    rng: fastrand::Rng,
    spool: Arc<Spool>,
    outlet: Outlet,
    records: Records,
    in_flight: VecDeque<Ticket>,
    streams: BTreeMap<Stream, Told>,
    written: u64,
}

fn is_loss_of_records(json: &serde_json::Value) -> bool {
    json["lost"].as_u64() != Some(0)
}

impl Model {
    fn new(seed: u64, spool: Arc<Spool>) -> Model {
        let mut rng = fastrand::Rng::with_seed(seed);
        let replay = if rng.bool() { Replay::LiveFirst } else { Replay::InOrder };
        let outlet = Outlet::new(spool.clone(), replay, None);
        let (records, in_flight, streams) = (Records::default(), VecDeque::new(), BTreeMap::new());
        Model { rng, spool, outlet, records, in_flight, streams, written: 0 }
    }

    fn append(&mut self) {
        let mut next: HashMap<Stream, u64> = STREAMS.into_iter().map(|s| (s, self.spool.next_sequence(s))).collect();
        for _ in 0..self.rng.usize(1..20) {
            let stream = *self.rng.choice(&STREAMS[..]).unwrap();
            self.written += 1;
            let text = format!("{}:{}", self.written, "x".repeat(self.rng.usize(0..300)));
            let topic = format!("t/{}", self.rng.u8(0..4));
            self.records.push((stream, Kind::Json), &[&topic], (1, 1), |out| {
                out.extend_from_slice(text.as_bytes());
                0
            });
            let sequence = next.get_mut(&stream).unwrap();
            let told = self.streams.entry(stream).or_default();
            told.said.insert(*sequence, text);
            told.fresh.insert(*sequence);
            *sequence += 1;
        }
        self.spool.append(&mut self.records);
    }

    /// Takes the next record from the outlet and checks what it says.
    fn send(&mut self) -> bool {
        let next = self.outlet.next_blocking(Instant::now(), |ticket, r: &Record<'_>| {
            Some((
                ticket.stream,
                r.kind,
                r.sequence,
                r.topic.to_string(),
                String::from_utf8_lossy(r.payload).into_owned(),
            ))
        });
        let Next::Record(ticket, (stream, kind, sequence, _topic, payload)) = next else { return false };
        let told = self.streams.entry(stream).or_default();
        told.seen = told.seen.max(sequence);
        match kind {
            Kind::Loss => {
                let json: serde_json::Value =
                    serde_json::from_str(&payload.replace("\"sequence\":}", "\"sequence\":1}")).unwrap();
                let of = STREAMS.into_iter().find(|s| json["lost_stream"] == s.name()).unwrap();
                if is_loss_of_records(&json) {
                    let (from, to) = (json["from_sequence"].as_u64().unwrap(), json["to_sequence"].as_u64().unwrap());
                    self.streams.entry(of).or_default().lost.extend(from..=to);
                }
                // What it says may be said again: the text is not ours.
                self.streams.entry(stream).or_default().said.entry(sequence).or_insert(payload);
            }
            _ => assert_eq!(told.said.get(&sequence), Some(&payload), "sequence {sequence} of {stream:?}"),
        }
        self.in_flight.push_back(ticket);
        true
    }

    fn acknowledge(&mut self) {
        for _ in 0..self.rng.usize(0..=self.in_flight.len()) {
            let Some(ticket) = self.in_flight.pop_front() else { return };
            self.outlet.acknowledge(&ticket);
            self.streams.entry(ticket.stream).or_default().acknowledged.insert(ticket.sequence);
        }
    }

    fn note_promises(&mut self) {
        for stream in STREAMS {
            let durable = self.spool.durable(stream);
            let told = self.streams.entry(stream).or_default();
            let fresh = told.fresh.split_off(&durable);
            told.promised.extend(std::mem::replace(&mut told.fresh, fresh));
        }
    }

    fn step(&mut self) {
        match self.rng.u8(0..10) {
            0..=3 => self.append(),
            4..=5 => {
                for _ in 0..self.rng.usize(1..30) {
                    self.send();
                }
            }
            6 => self.acknowledge(),
            7 => {
                self.outlet.restart();
                self.in_flight.clear();
            }
            8 => drop(self.spool.commit()),
            _ => self.spool.tend(),
        }
        self.note_promises();
        let accounts = self.spool.accounts();
        assert!(accounts.balance(), "{accounts:?}");
    }

    /// The process is another one now, on the same disk.
    fn reopened(&mut self, spool: Arc<Spool>) {
        for stream in STREAMS {
            let (next, told) = (spool.next_sequence(stream), self.streams.entry(stream).or_default());
            assert!(next > told.seen, "a sequence that was seen is used again: {next} after {}", told.seen);
            told.fresh.clear();
            told.lost.clear(); // what the other could not read when its disk was gone
        }
        assert_eq!(spool.stats.lost.messages(), 0, "whatever the crash has left, nothing promised is missing");
        self.outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
        self.spool = spool;
        self.in_flight.clear();
    }

    /// Delivers everything that is left; every promised record must have been acknowledged, arrive now, or be told as lost.
    fn everything_promised_arrives(&mut self, losses_allowed: bool) {
        self.outlet.restart();
        let mut arrived: HashMap<Stream, Vec<u64>> = HashMap::new();
        self.in_flight.clear();
        let (waited, mut bytes) = (self.spool.status().waiting_bytes, 0);
        loop {
            if !self.send() {
                if self.spool.is_empty() {
                    break;
                }
                assert!(!self.in_flight.is_empty(), "{} wait and none comes", self.spool.stats.waiting.load(Relaxed));
            }
            while let Some(ticket) = self.in_flight.pop_front() {
                arrived.entry(ticket.stream).or_default().push(ticket.sequence);
                bytes += u64::from(ticket.bytes);
                self.outlet.acknowledge(&ticket);
            }
        }
        assert_eq!(bytes, waited, "of the bytes that waited");
        assert_eq!(self.spool.status().waiting_bytes, 0, "nothing waits");
        let accounts = self.spool.accounts();
        assert!(accounts.balance() && accounts.waiting == 0, "{accounts:?}");
        for (stream, told) in &self.streams {
            let (first, last) = (told.lost.first(), told.lost.last());
            assert!(losses_allowed || first.is_none(), "of {stream:?} told as lost: {first:?} to {last:?}");
            let arrived = arrived.remove(stream).unwrap_or_default();
            if self.spool.next_sequence(*stream) > 1 {
                assert!(
                    arrived.windows(2).all(|w| w[0] < w[1]) || losses_allowed,
                    "{stream:?} is in order: {arrived:?}"
                );
            }
            let arrived: BTreeSet<u64> = arrived.into_iter().collect();
            for sequence in &told.promised {
                let there = told.acknowledged.contains(sequence) || arrived.contains(sequence);
                let told_so = losses_allowed && told.lost.contains(sequence);
                assert!(
                    there || told_so,
                    "promised and gone: sequence {sequence} of {stream:?}, of {:?}",
                    told.promised
                );
            }
        }
    }
}

fn disks() -> Disks {
    std::array::from_fn(|_| FaultDisk::default())
}

#[test]
fn whatever_was_promised_survives_a_crash_between_any_two_calls_to_the_disk() {
    rounds(200, |seed| {
        let mut disks = disks();
        let options = SpoolOptions::new(1 << 30, "lost");
        let mut model = Model::new(seed, open(&disks, &options).unwrap());
        for life in 0..4 {
            let which = model.rng.usize(0..3);
            disks[which].die_after(Some(model.rng.u64(0..80)));
            for _ in 0..200 {
                model.step();
                if disks[which].is_dead() {
                    break;
                }
            }
            let power = model.rng.bool();
            loop {
                let next: Disks = std::array::from_fn(|n| match power {
                    true => disks[n].after_power_failure(&mut model.rng),
                    false => disks[n].after_kill(),
                });
                disks = next;
                // It may die again while it recovers.
                if life % 2 == 1 && model.rng.u8(0..3) == 0 {
                    disks[1].die_after(Some(model.rng.u64(0..8)));
                }
                match open(&disks, &options) {
                    Ok(spool) => {
                        disks[1].die_after(None);
                        model.reopened(spool);
                        break;
                    }
                    Err(_) => assert!(disks[1].is_dead()),
                }
            }
        }
        model.everything_promised_arrives(false);
    });
}

#[test]
fn a_failing_disk_costs_no_promise_and_a_failed_file_is_never_trusted_again() {
    rounds(200, |seed| {
        let mut disks = disks();
        let options = SpoolOptions::new(1 << 30, "lost");
        let mut model = Model::new(seed, open(&disks, &options).unwrap());
        for _ in 0..150 {
            if model.rng.u8(0..10) == 0 {
                let disk = &disks[model.rng.usize(0..3)];
                disk.fail_syncs(model.rng.u32(0..3));
                disk.fail_writes(model.rng.u32(0..2));
            }
            model.step();
        }
        if model.rng.bool() {
            // What the failed fsync lost is gone with the power; what was promised is not.
            disks = std::array::from_fn(|n| disks[n].after_power_failure(&mut model.rng));
            let spool = open(&disks, &options).unwrap();
            model.reopened(spool);
        } else {
            disks.iter().for_each(|d| (d.fail_syncs(0), d.fail_writes(0)).0);
            model.spool.commit().unwrap();
            model.note_promises();
        }
        model.everything_promised_arrives(false);
    });
}

#[test]
fn a_full_spool_loses_by_its_rule_counts_and_tells_every_stretch() {
    for retention in [Retention::Oldest, Retention::DropLowPriority, Retention::Thin(3)] {
        rounds(25, |seed| {
            let disks = disks();
            let options = SpoolOptions { retention, ..SpoolOptions::new(96 << 10, "lost") };
            let mut model = Model::new(seed, open(&disks, &options).unwrap());
            for _ in 0..400 {
                model.step();
                if model.rng.bool() {
                    model.append();
                    let _ = model.spool.commit();
                    model.spool.tend();
                }
                model.note_promises();
            }
            let used = model.spool.stats.disk_bytes.load(Relaxed);
            model.spool.tend();
            assert!(model.spool.stats.disk_bytes.load(Relaxed) <= options.capacity, "{used}");
            model.everything_promised_arrives(true);
            let accounts = model.spool.accounts();
            assert_eq!(accounts.waiting, 0, "{accounts:?}");
            let told: usize = model.streams.values().map(|t| t.lost.len()).sum();
            assert!(accounts.lost == 0 || told > 0);
        });
    }
}

#[test]
fn a_disk_that_is_full_costs_nothing_before_memory_is_full_too_and_then_what_is_told() {
    rounds(100, |seed| {
        let disks = disks();
        let mut rng = fastrand::Rng::with_seed(seed);
        let (room, has_memory) = (rng.u64(40_000..120_000), rng.bool());
        let options = SpoolOptions::new(if has_memory { 1 << 30 } else { room * 2 }, "lost");
        let mut model = Model::new(seed, open(&disks, &options).unwrap());
        disks.iter().for_each(|d| d.limit(Some(room)));
        for _ in 0..300 {
            model.step();
        }
        let _ = model.spool.commit();
        model.everything_promised_arrives(!has_memory);
    });
}

#[test]
fn the_bytes_that_wait_are_those_of_records_nobody_has_acknowledged_after_a_restart_too() {
    rounds(50, |seed| {
        let disks = disks();
        let options = SpoolOptions::new(1 << 30, "lost");
        let mut model = Model::new(seed, open(&disks, &options).unwrap());
        for _ in 0..model.rng.usize(1..20) {
            model.append();
        }
        while model.send() {}
        let bytes = |tickets: &VecDeque<Ticket>| tickets.iter().map(|t| u64::from(t.bytes)).sum::<u64>();
        let waits = |model: &Model| model.spool.status().waiting_bytes;
        assert_eq!(waits(&model), bytes(&model.in_flight), "all were sent, none acknowledged");
        model.spool.commit().unwrap();
        model.acknowledge();
        assert_eq!(waits(&model), bytes(&model.in_flight));
        let status = model.spool.status();
        assert!(status.used_bytes > status.waiting_bytes, "the segment keeps what is acknowledged: {status:?}");
        model.spool.close();
        let left = bytes(&model.in_flight);
        model.reopened(open(&disks, &options).unwrap());
        assert_eq!(waits(&model), left);
        model.everything_promised_arrives(false);
    });
}
