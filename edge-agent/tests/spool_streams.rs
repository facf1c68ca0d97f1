//! More than one stream at once: each drains, the important first, in both replay modes, after any restart, and in overload; and somebody
//! hears of it when nothing goes.

mod support {
    pub mod accounts;
    pub mod cutting_broker;
    pub mod fault_disk;
    pub mod sending;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{
    Disk, Kind, Load, Next, Outlet, Reason, Replay, STREAMS, SpoolOptions, Stream, Ticket,
};
use edge_agent::telemetry::watchdog::{LIMIT, Watchdog};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use support::accounts::{all_delivered, balanced};
use support::cutting_broker::{Cuts, start};
use support::fault_disk::FaultDisk;
use support::sending::{WINDOW, append, plan};
use tokio::sync::watch;

/// Records of a stream that do not fit into the memory the spool keeps of what is on disk: 1 MiB.
const MANY: u64 = 12_000;
const REPLAYS: [Replay; 2] = [Replay::LiveFirst, Replay::InOrder];

fn open(disks: &[FaultDisk; 3]) -> Arc<Spool> {
    let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
    Spool::open([disk(0), disk(1), disk(2)], SpoolOptions::new(1 << 30, "lost")).unwrap()
}

/// Fills a spool: so many records in each stream, on disk.
fn filled(spool: &Spool, count: u64) {
    for from in (1..=count).step_by(1000) {
        for stream in STREAMS {
            append(spool, stream, from..(from + 1000).min(count + 1));
        }
        spool.commit().unwrap();
    }
}

/// Takes from an outlet as a session does: pieces are read beside, and come back late and in any order.
struct Sender {
    outlet: Outlet,
    loads: Vec<Load>,
    flying: VecDeque<Ticket>,
    came: Vec<(Stream, u64)>,
    rng: fastrand::Rng,
    now: Instant,
    /// The fault of old: one place for what six tracks ask for.
    one_slot: bool,
    turns: u32,
}

impl Sender {
    fn new(spool: &Arc<Spool>, replay: Replay, seed: u64) -> Sender {
        let outlet = Outlet::new(spool.clone(), replay, None);
        let (rng, now) = (fastrand::Rng::with_seed(seed), Instant::now());
        Sender {
            outlet,
            loads: Vec::new(),
            flying: VecDeque::new(),
            came: Vec::new(),
            rng,
            now,
            one_slot: false,
            turns: 0,
        }
    }

    /// One turn: what goes now goes, one piece comes back, some is acknowledged; false when nothing has happened.
    fn turn(&mut self) -> bool {
        let before = (self.came.len(), self.flying.len(), self.loads.len());
        let mut went = false;
        while self.flying.len() < usize::from(WINDOW) {
            match self.outlet.next(self.now, |ticket, r| Some((ticket.stream, r.sequence))) {
                Next::Record(ticket, which) => {
                    self.came.push(which);
                    self.flying.push_back(ticket);
                }
                Next::Load(load) => {
                    if self.one_slot {
                        self.loads.clear();
                    }
                    self.loads.push(load);
                }
                Next::Wait(_) | Next::Empty => break,
            }
        }
        // In one slot a piece is in the way of the next for longer than others wait for it.
        self.turns += 1;
        let comes = if self.one_slot { self.turns.is_multiple_of(20) } else { self.rng.bool() };
        if !self.loads.is_empty() && comes {
            let load = self.loads.swap_remove(self.rng.usize(0..self.loads.len()));
            self.outlet.loaded(load.run());
            went = true;
        }
        for _ in 0..self.rng.usize(0..=self.flying.len()) {
            let Some(ticket) = self.flying.pop_front() else { break };
            self.outlet.acknowledge(&ticket);
        }
        went || before != (self.came.len(), self.flying.len(), self.loads.len())
    }
}

#[test]
fn every_stream_drains_the_important_first_in_both_replay_modes_after_any_restart() {
    for (replay, seed) in REPLAYS.into_iter().zip(1..) {
        let disks: [FaultDisk; 3] = Default::default();
        filled(&open(&disks), MANY);
        // As after an outage and a kill: everything is on disk, and the numbers of what is new have a jump.
        let spool = open(&std::array::from_fn(|n| disks[n].after_kill()));
        let mut sender = Sender::new(&spool, replay, seed);
        let waited = Instant::now();
        while !spool.is_empty() {
            sender.turn();
            assert!(waited.elapsed() < Duration::from_secs(120), "{replay:?}: {:?} still wait", spool.waiting());
        }
        let streams: Vec<Stream> = sender.came.iter().map(|(stream, _)| *stream).collect();
        assert!(streams.is_sorted(), "{replay:?}: high before normal before low");
        for stream in STREAMS {
            let of = sender.came.iter().filter(|(s, _)| *s == stream).map(|(_, sequence)| *sequence);
            assert!(of.eq(1..=MANY), "{replay:?}: {stream:?} whole and in order");
        }
        all_delivered(&spool);
    }
}

/// What comes while a backlog is sent is in memory, in all streams; with a restart of the connection in between.
#[test]
fn live_and_waiting_records_of_three_streams_all_go_over_connections_that_break() {
    for (replay, seed) in REPLAYS.into_iter().zip(10..) {
        let disks: [FaultDisk; 3] = Default::default();
        filled(&open(&disks), MANY);
        let spool = open(&std::array::from_fn(|n| disks[n].after_kill()));
        let mut sender = Sender::new(&spool, replay, seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut more, waited) = (MANY, Instant::now());
        while !spool.is_empty() || more < MANY + 5_000 {
            if more < MANY + 5_000 {
                STREAMS.into_iter().for_each(|stream| append(&spool, stream, more + 1..more + 101));
                more += 100;
                if rng.bool() {
                    spool.commit().unwrap();
                }
                if rng.u8(0..10) == 0 {
                    (sender.loads, sender.flying) = Default::default();
                    sender.outlet.restart();
                }
            }
            sender.turn();
            assert!(waited.elapsed() < Duration::from_secs(120), "{replay:?}: {:?} still wait", spool.waiting());
        }
        let mut times: BTreeMap<(Stream, u64), u32> = BTreeMap::new();
        sender.came.iter().for_each(|which| *times.entry(*which).or_default() += 1);
        for stream in STREAMS {
            assert!((1..=MANY).all(|n| times.contains_key(&(stream, n))), "{replay:?}: {stream:?}");
        }
        all_delivered(&spool);
    }
}

/// The test of the test: with the fault that this was made for, nothing goes, and the watchdog says so.
#[test]
fn the_watchdog_sees_a_piece_that_was_forgotten_and_nothing_else() {
    let disks: [FaultDisk; 3] = Default::default();
    filled(&open(&disks), MANY);
    let spool = open(&std::array::from_fn(|n| disks[n].after_kill()));
    for one_slot in [false, true] {
        let mqtt = MqttStats::default();
        mqtt.connected.store(true, Relaxed);
        let (mut dog, mut barked, mut idle) = (Watchdog::default(), Duration::ZERO, 0);
        let mut sender = Sender { one_slot, ..Sender::new(&spool, Replay::LiveFirst, 7) };
        // Well: until half of a stream has gone. With the fault: until nothing has happened for long.
        while (one_slot || spool.waiting()[1].1 > MANY / 2) && idle < 100 {
            idle = if sender.turn() { 0 } else { idle + 1 };
            sender.now += Duration::from_millis(500);
            barked = barked.max(dog.look(&spool.stats, &mqtt, sender.now));
        }
        match one_slot {
            false => assert!(barked < LIMIT, "it was quiet for {barked:?} although all went well"),
            true => {
                assert!(barked >= LIMIT, "nothing goes, and nobody hears of it: {barked:?}");
                assert!(spool.stats.waiting.load(Relaxed) > 0);
                assert!(mqtt.stalled_ms.load(Relaxed) >= 10_000);
            }
        }
    }
    balanced(&spool);
}

/// More comes at once than memory keeps and the broker takes, from many lines, again and again: what goes goes on going, and when the load is
/// gone everything has arrived.
#[tokio::test(flavor = "multi_thread")]
async fn overload_is_delivered_and_caught_up_with_and_nothing_stalls() {
    const BURST: u64 = 10_000;
    for replay in REPLAYS {
        let (port, seen) = start(Cuts { every: usize::MAX, lag: 0, connections: 0 }).await;
        let dir = tempfile::tempdir().unwrap();
        let handle = Spool::start(Some(dir.path()), SpoolOptions::new(1 << 30, "lost")).unwrap();
        let spool = handle.spool.clone();
        let (stop, stopped) = watch::channel(false);
        let mut plan = plan(port);
        (plan.replay, plan.window) = (replay, 1000);
        let stats = Arc::new(MqttStats::default());
        let task = tokio::spawn(Mqtt::new(plan, spool.clone(), stats.clone(), 1).run(stopped));
        let (mut dog, mut stalled) = (Watchdog::default(), Duration::ZERO);
        for burst in 0..3 {
            for line in 0..10 {
                let from = burst * BURST + line * BURST / 10 + 1;
                append(&spool, Stream::Normal, from..from + BURST / 10);
            }
            append(&spool, Stream::High, burst + 1..burst + 2);
            tokio::time::sleep(Duration::from_millis(200)).await;
            stalled = stalled.max(dog.look(&spool.stats, &stats, Instant::now()));
        }
        let start = Instant::now();
        while !spool.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(90), "{replay:?}: {:?} still wait", spool.waiting());
            tokio::time::sleep(Duration::from_millis(20)).await;
            stalled = stalled.max(dog.look(&spool.stats, &stats, Instant::now()));
        }
        let _ = stop.send(true);
        task.await.unwrap();
        assert!(stalled < LIMIT, "{replay:?}: nothing went for {stalled:?}");
        assert_eq!(seen.lock().unwrap().order.len() as u64, 3 * BURST, "{replay:?}: every sequence came");
        all_delivered(&spool);
        drop(spool);
        tokio::task::spawn_blocking(move || handle.stop()).await.unwrap();
    }
}

/// Notices that a spool has for the loss topic, as a consumer reads them.
fn notices(spool: &Arc<Spool>) -> Vec<serde_json::Value> {
    let mut outlet = Outlet::new(spool.clone(), Replay::InOrder, None);
    let mut all = Vec::new();
    while let Next::Record(ticket, text) = outlet.next_blocking(Instant::now(), |_, r| {
        Some(
            (r.kind == Kind::Loss)
                .then(|| String::from_utf8_lossy(r.payload).replace(":}", &format!(":{}}}", r.sequence))),
        )
    }) {
        all.extend(text.map(|text| serde_json::from_str(&text).unwrap()));
        outlet.acknowledge(&ticket);
    }
    all
}

/// A consumer believes: every number up to `promised_to` comes or is told as lost; of those between that and `continues_at` it has what it
/// has; all from there on come.
#[test]
fn a_consumer_that_trusts_the_notices_counts_right_after_a_kill() {
    let disks: [FaultDisk; 3] = Default::default();
    let spool = open(&disks);
    append(&spool, Stream::Normal, 1..101);
    spool.commit().unwrap();
    append(&spool, Stream::Normal, 101..151); // never on disk
    let mut outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
    let mut received = Vec::new();
    while let Next::Record(ticket, sequence) = outlet.next(Instant::now(), |_, r| Some(r.sequence)) {
        if sequence > 140 {
            break; // on its way when the power went
        }
        received.push(sequence);
        outlet.acknowledge(&ticket);
    }
    spool.tend();
    let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_kill());

    // Killed again and again, with nothing new: a restart that lost nothing says nothing.
    let mut disks = disks;
    for _ in 0..3 {
        let spool = open(&disks);
        assert_eq!(notices(&spool), Vec::<serde_json::Value>::new());
        disks = std::array::from_fn(|n| disks[n].after_kill());
    }
    let spool = open(&disks);
    let first = spool.next_sequence(Stream::Normal);
    assert!(first > 150, "no number is used twice");
    append(&spool, Stream::Normal, 1..11);
    let told = notices(&spool);
    let of = |stream: &str| told.iter().filter(|n| n["lost_stream"] == stream).collect::<Vec<_>>();
    let [normal] = of("normal")[..] else { panic!("{told:?}") };
    assert_eq!((normal["lost"].as_u64(), normal["reason"].as_str()), (Some(0), Some("restart")));
    let (promised, continues) = (normal["promised_to"].as_u64().unwrap(), normal["continues_at"].as_u64().unwrap());
    assert_eq!(continues, first);
    assert!((1..=promised).all(|n| received.contains(&n)), "all that was promised came: up to {promised}");
    assert!(promised >= 100, "what was on disk was promised");
    // A notice speaks of itself with `stream` and `sequence`, as every message does.
    let [high] = of("high")[..] else { panic!("{told:?}") };
    for notice in &told {
        assert_eq!(notice["stream"], "high");
        assert!(notice["sequence"].as_u64().unwrap() >= high["continues_at"].as_u64().unwrap());
    }
    assert!(of("low").is_empty(), "nothing new of that stream, and nothing to say of it");
    balanced(&spool);
    spool.close();
    drop((spool, outlet));

    // A stop that was one is followed by nothing.
    let spool = open(&std::array::from_fn(|n| disks[n].after_kill()));
    assert_eq!(notices(&spool), Vec::<serde_json::Value>::new());
    assert_eq!(spool.next_sequence(Stream::Normal), first + 10);
}

#[test]
fn a_notice_that_is_lost_itself_is_counted_and_not_told_again() {
    let spool = Spool::in_memory(1 << 20);
    append(&spool, Stream::Normal, 1..4);
    let mut outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
    let mut given_up = 0;
    while let Next::Record(ticket, kind) = outlet.next(Instant::now(), |_, r| Some(r.kind)) {
        let reason = if kind == Kind::Loss { Reason::TooLarge } else { Reason::Refused(0x87) };
        outlet.give_up(&ticket, reason);
        given_up += 1;
        assert!(given_up < 20, "a loss of a notice is told by another one, without end");
    }
    assert_eq!(given_up, 6, "three messages, and the three notices about them");
    assert_eq!(spool.stats.lost.of(Reason::Refused(0)), (3, 3));
    assert_eq!(spool.stats.lost.of(Reason::TooLarge), (3, 0));
    let accounts = balanced(&spool);
    assert_eq!((accounts.waiting, accounts.lost), (0, 3));
    assert!(spool.is_empty());
}

/// What is in memory alone is gone with the process, and the process says so.
#[test]
fn a_spool_in_memory_says_what_is_given_up_when_it_ends_stream_by_stream() {
    let handle = Spool::start(None, SpoolOptions::new(1 << 20, "lost")).unwrap();
    append(&handle.spool, Stream::High, 1..4);
    append(&handle.spool, Stream::Normal, 1..2501);
    let said = handle.stop().expect("something is given up");
    assert_eq!(
        said,
        "given up with the memory they waited in: high 3 messages (3 values), normal 2500 messages (2500 values)"
    );
    let handle = Spool::start(None, SpoolOptions::new(1 << 20, "lost")).unwrap();
    assert_eq!(handle.stop(), None, "nothing waited");

    let dir = tempfile::tempdir().unwrap();
    let handle = Spool::start(Some(dir.path()), SpoolOptions::new(1 << 20, "lost")).unwrap();
    append(&handle.spool, Stream::Normal, 1..2501);
    assert_eq!(handle.stop(), None, "on disk nothing is given up");
}
