//! A full spool and a broker that takes its time: what is on its way is not lost, however full the spool is and whatever becomes of the
//! connection. What was told as lost never came, and never comes.

mod support {
    pub mod accounts;
    pub mod fault_disk;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::{
    Disk, Kind, Next, Outlet, Reason, Records, Replay, Retention, STREAMS, SpoolOptions, Stream, Ticket,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use support::accounts::balanced;
use support::fault_disk::FaultDisk;

const MIB: u64 = 1 << 20;

/// A sender whose broker acknowledges late, and what it has come to know.
struct Slow {
    spool: Arc<Spool>,
    outlet: Outlet,
    /// So many are on their way at once.
    window: usize,
    /// Sent, and not acknowledged on this connection.
    flying: VecDeque<Ticket>,
    /// Ever sent.
    sent: BTreeSet<(Stream, u64)>,
    acknowledged: BTreeSet<(Stream, u64)>,
    /// Told as lost, by reason; of what was thinned only the count.
    told: BTreeMap<String, u64>,
    lost: BTreeSet<(Stream, u64)>,
    /// When it all was promised.
    at_ms: u64,
}

impl Slow {
    fn new(disks: &[FaultDisk; 3], options: SpoolOptions, replay: Replay, window: usize) -> Slow {
        let disk = |n: usize| Arc::new(disks[n].clone()) as Arc<dyn Disk>;
        let spool = Spool::open([disk(0), disk(1), disk(2)], options).unwrap();
        let outlet = Outlet::new(spool.clone(), replay, None);
        let (flying, sent, acknowledged, told, lost) = Default::default();
        let at_ms = edge_agent::clock::run_ms();
        Slow { spool, outlet, window, flying, sent, acknowledged, told, lost, at_ms }
    }

    fn append(&self, stream: Stream, count: u32, bytes: usize) {
        let mut records = Records::default();
        for n in 0..count {
            records.push((stream, Kind::Json), &["t/", &n.to_string()], (self.at_ms, 1), |out| {
                out.resize(out.len() + bytes, b' ');
                0
            });
        }
        self.spool.append(&mut records);
    }

    /// Sends until the window is full, or nothing is left.
    fn fill(&mut self) {
        while self.flying.len() < self.window {
            let next = self.outlet.next_blocking(Instant::now(), |_, r| {
                Some((r.kind, String::from_utf8_lossy(r.payload).replace(":}", ":0}")))
            });
            let Next::Record(ticket, (kind, payload)) = next else { return };
            let which = (ticket.stream, ticket.sequence);
            assert!(!self.lost.contains(&which), "{which:?} was told as lost, and is sent");
            assert!(!self.acknowledged.contains(&which), "{which:?} was delivered, and is sent");
            let is_new = self.sent.insert(which);
            if kind == Kind::Loss && is_new {
                self.hear(&serde_json::from_str(&payload).unwrap());
            }
            self.flying.push_back(ticket);
        }
    }

    /// A notice about a loss.
    fn hear(&mut self, notice: &serde_json::Value) {
        let reason = notice["reason"].as_str().unwrap().to_string();
        let number = |key: &str| notice[key].as_u64().unwrap();
        *self.told.entry(reason.clone()).or_default() += number("lost");
        if reason == "thinned" || number("lost") == 0 {
            return;
        }
        let stream = STREAMS.into_iter().find(|s| s.name() == notice["lost_stream"]).unwrap();
        for sequence in number("from_sequence")..=number("to_sequence") {
            let which = (stream, sequence);
            assert!(!self.sent.contains(&which), "{which:?} was sent, and is told as lost: {reason}");
            self.lost.insert(which);
        }
    }

    fn acknowledge(&mut self, count: usize) {
        for ticket in self.flying.drain(..count.min(self.flying.len())) {
            self.outlet.acknowledge(&ticket);
            self.acknowledged.insert((ticket.stream, ticket.sequence));
        }
    }

    /// The connection is lost, and there is a new one.
    fn reconnect(&mut self) {
        self.flying.clear();
        self.outlet.restart();
    }

    fn drain(&mut self) {
        while !self.spool.is_empty() {
            let before = self.acknowledged.len();
            self.fill();
            self.acknowledge(usize::MAX);
            assert!(self.acknowledged.len() > before, "{:?}", self.spool.waiting());
        }
        let stats = &self.spool.stats;
        for (reason, messages, _) in stats.lost.by_reason() {
            assert_eq!(self.told.get(reason).copied().unwrap_or(0), messages, "{reason}: {:?}", self.told);
        }
        let missed: Vec<_> = self.sent.difference(&self.acknowledged).collect();
        assert!(missed.is_empty(), "sent, and neither delivered nor waiting: {missed:?}");
        balanced(&self.spool);
    }
}

fn ways() -> impl Iterator<Item = (Retention, Replay)> {
    let all = [Retention::Oldest, Retention::DropLowPriority, Retention::Thin(4)];
    all.into_iter().flat_map(|retention| [Replay::LiveFirst, Replay::InOrder].map(|replay| (retention, replay)))
}

#[test]
fn what_is_on_its_way_is_not_lost_when_the_spool_is_full() {
    for (retention, replay) in ways() {
        let options = SpoolOptions { retention, ..SpoolOptions::new(MIB, "lost") };
        let mut slow = Slow::new(&Default::default(), options, replay, 300);
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..400 {
            slow.append(Stream::Low, 3, 400);
            slow.append(Stream::Normal, 20, 400);
            slow.append(Stream::High, 1, 100);
            slow.fill();
            slow.spool.commit().unwrap();
            slow.spool.tend();
            // Acknowledged much later than sent, and slower than it comes.
            slow.acknowledge(rng.usize(0..10));
            if round % 90 == 89 {
                slow.reconnect();
            }
            let status = slow.spool.status();
            assert!(status.used_bytes < MIB * 3 / 2, "{retention:?} {replay:?}: {status:?}");
            balanced(&slow.spool);
        }
        assert!(slow.spool.stats.lost.messages() > 2000, "{retention:?} {replay:?}: it was not full");
        slow.drain();
    }
}

#[test]
fn when_all_of_a_full_spool_is_on_its_way_the_newest_is_lost() {
    let mut slow = Slow::new(&Default::default(), SpoolOptions::new(MIB, "lost"), Replay::InOrder, 10_000);
    for _ in 0..100 {
        slow.append(Stream::Normal, 50, 400);
        slow.fill();
        slow.spool.commit().unwrap();
        slow.spool.tend();
    }
    let flying = slow.flying.iter().filter(|t| t.stream == Stream::Normal).count() as u64;
    assert!(flying > 500, "{flying} are on their way");
    let oldest = slow.sent.iter().filter(|(s, _)| *s == Stream::Normal).map(|(_, n)| *n);
    assert_eq!(oldest.collect::<Vec<_>>(), (1..=flying).collect::<Vec<_>>());
    assert!(slow.spool.stats.lost.of(Reason::Full).0 > 1000);
    slow.drain();
}

#[test]
fn what_is_on_its_way_is_not_too_old() {
    let options = SpoolOptions { age_max: Duration::from_secs(3600), ..SpoolOptions::new(MIB, "lost") };
    let mut slow = Slow::new(&Default::default(), options, Replay::InOrder, 30);
    slow.at_ms -= 7_200_000;
    slow.append(Stream::Normal, 100, 400);
    slow.fill();
    slow.spool.commit().unwrap();
    slow.spool.tend();
    slow.spool.tend();
    assert_eq!(slow.spool.stats.lost.of(Reason::Age).0, 70);
    slow.drain();
}

#[test]
fn what_is_on_its_way_is_not_lost_with_memory_when_the_disk_takes_nothing() {
    for replay in [Replay::LiveFirst, Replay::InOrder] {
        let disks: [FaultDisk; 3] = Default::default();
        let mut slow = Slow::new(&disks, SpoolOptions::new(MIB, "lost"), replay, 200);
        disks.iter().for_each(|disk| disk.limit(Some(64 << 10)));
        let mut rng = fastrand::Rng::with_seed(2);
        for round in 0..300 {
            slow.append(Stream::Normal, 20, 400);
            slow.append(Stream::High, 2, 400);
            slow.fill();
            let _ = slow.spool.commit();
            slow.spool.tend();
            slow.acknowledge(rng.usize(0..10));
            if round % 70 == 69 {
                slow.reconnect();
            }
            balanced(&slow.spool);
        }
        assert!(slow.spool.stats.lost.of(Reason::Disk).0 > 1000, "{:?}", slow.spool.stats.lost.by_reason());
        disks.iter().for_each(|disk| disk.limit(None));
        slow.spool.commit().unwrap();
        slow.drain();
    }
}

/// A gateway that is killed while a segment holds only what was on its way finds it again, and misses nothing else.
#[test]
fn what_was_on_its_way_is_found_after_a_kill_and_nothing_is_missed() {
    let disks: [FaultDisk; 3] = Default::default();
    let options = SpoolOptions::new(MIB, "lost");
    let mut slow = Slow::new(&disks, options.clone(), Replay::LiveFirst, 300);
    for _ in 0..300 {
        slow.append(Stream::Normal, 20, 400);
        slow.fill();
        slow.spool.commit().unwrap();
        slow.spool.tend();
        slow.acknowledge(3);
    }
    slow.spool.commit().unwrap();
    let mut open: BTreeSet<_> = slow.sent.difference(&slow.acknowledged).copied().collect();
    let lost = slow.spool.stats.lost.values();
    assert!(lost > 1000 && !open.is_empty());
    let disks: [FaultDisk; 3] = std::array::from_fn(|n| disks[n].after_kill());
    let (acknowledged, told_lost) = (slow.acknowledged, slow.lost);
    slow = Slow { lost: told_lost, ..Slow::new(&disks, options, Replay::InOrder, 300) };
    assert_eq!(slow.spool.stats.lost.messages(), 0, "{:?}", slow.spool.stats.lost.by_reason());
    while !slow.spool.is_empty() {
        slow.fill();
        slow.acknowledge(usize::MAX);
    }
    open.retain(|which| !slow.acknowledged.contains(which));
    assert!(open.is_empty(), "{open:?}");
    let again = acknowledged.intersection(&slow.acknowledged).count();
    assert!(again < 3000, "{again} come again");
    assert_eq!(slow.spool.stats.waiting.load(Relaxed), 0);
}
