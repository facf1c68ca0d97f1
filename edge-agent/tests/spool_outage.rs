//! A broker that is killed at random instants under 5,000 messages a second: nothing is lost, the order is kept, what is new is not late, and
//! what waited follows faster than it came (FIELD faults 20 and 25).
//!
//! `OUTAGE_SECONDS=180` runs for minutes instead of seconds, `SPOOL_SEED=<seed>` with other instants.

mod support {
    pub mod accounts;
    pub mod sending;
}

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::mqtt::{Mqtt, MqttStats};
use edge_agent::telemetry::spool::{Kind, Records, SpoolOptions, Stream};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::accounts::balanced;
use support::sending::{WINDOW, plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const RATE: u64 = 5_000;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What came.
#[derive(Default)]
struct Seen {
    /// How often each sequence came.
    times: Vec<u8>,
    /// Sequence of the last message that had waited, and of the last that was new.
    last: [u64; 2],
    disorder: u64,
    /// Lateness of what was promised while the connection stood, milliseconds.
    late: Vec<u64>,
    connections: u64,
    duplicates: u64,
    /// Of this connection: messages that had waited, and new ones that came before the last of those.
    replay: (u64, u64),
    new: u64,
    /// Of all connections.
    replayed: (u64, u64),
}

impl Seen {
    /// A connection has ended, or all is done: what it has replayed is counted with the rest.
    fn end_replay(&mut self) {
        let (old, beside) = std::mem::take(&mut self.replay);
        self.replayed = (self.replayed.0 + old, self.replayed.1 + beside);
        self.new = 0;
    }
}

/// A broker that is there or not.
struct Broker {
    up: AtomicBool,
    changed: Notify,
    seen: Mutex<Seen>,
    connected_at: AtomicU64,
}

async fn serve(broker: Arc<Broker>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        if !broker.up.load(Relaxed) {
            continue; // dropped at once: nobody is there
        }
        let connection = session(&broker, stream);
        let killed = async {
            loop {
                broker.changed.notified().await;
                if !broker.up.load(Relaxed) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = connection => {}
            () = killed => {} // with whatever was not acknowledged
        }
    }
}

async fn session(broker: &Broker, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    {
        let mut seen = broker.seen.lock().unwrap();
        seen.connections += 1;
        seen.end_replay();
        // On a new connection both tracks may go back: to what was not acknowledged.
        seen.last = [0, 0];
    }
    let (mut bytes, mut out) = (Vec::with_capacity(64 << 10), Vec::new());
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let mut used = 0;
        while let Some((kind, body, length)) = packet(&bytes[used..]) {
            match kind >> 4 {
                1 => {
                    broker.connected_at.store(now_ms(), Relaxed);
                    out.extend([0x20, 3, 0, 0, 0]);
                }
                3 => {
                    let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let (id, payload) = (&body[topic..topic + 2], &body[topic + 3 + usize::from(body[topic + 2])..]);
                    out.extend([0x40, 2, id[0], id[1]]);
                    note(broker, payload);
                }
                12 => out.extend([0xD0, 0]),
                14 => return Ok(()),
                _ => {}
            }
            used += length;
        }
        bytes.drain(..used);
        stream.write_all(&out).await?;
        out.clear();
    }
}

fn packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut shift, mut at) = (0usize, 0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 127) << shift;
        (shift, at) = (shift + 7, at + 1);
        if byte & 128 == 0 {
            break;
        }
    }
    Some((*bytes.first()?, bytes.get(at..at + length)?, at + length))
}

/// The payload is `value sequence-hole`: when it was promised, and its number.
fn note(broker: &Broker, payload: &[u8]) {
    let text = std::str::from_utf8(payload).unwrap();
    let Some((at, sequence)) = text.strip_prefix('v').and_then(|t| t.split_once(' ')) else { return };
    let (at, sequence): (u64, u64) = (at.parse().unwrap(), sequence.parse().unwrap());
    let connected = broker.connected_at.load(Relaxed);
    let is_new = at >= connected + 100;
    let mut seen = broker.seen.lock().unwrap();
    if at < connected {
        seen.replay = (seen.replay.0 + 1, seen.new);
    } else {
        seen.new += 1;
    }
    if seen.times.len() <= sequence as usize {
        seen.times.resize(sequence as usize + 10_000, 0);
    }
    seen.duplicates += u64::from(seen.times[sequence as usize] > 0);
    seen.times[sequence as usize] += 1;
    // What waited and what is new are each in order: together they are two rising rows, and no third.
    match seen.last {
        [_, new] if sequence > new => seen.last[1] = sequence,
        [old, _] if sequence > old => seen.last[0] = sequence,
        _ => seen.disorder += 1,
    }
    if is_new {
        seen.late.push(now_ms().saturating_sub(at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_at_random_instants_costs_nothing_and_what_is_new_is_not_late() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (number("OUTAGE_SECONDS", 12), number("SPOOL_SEED", 1));
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = Arc::new(Broker {
        up: AtomicBool::new(true),
        changed: Notify::new(),
        seen: Mutex::default(),
        connected_at: AtomicU64::new(0),
    });
    tokio::spawn(serve(broker.clone(), listener));

    let dir = tempfile::tempdir().unwrap();
    let handle = Spool::start(Some(dir.path()), SpoolOptions::new(1 << 30, "lost")).unwrap();
    let spool = handle.spool.clone();
    let (stop, stopped) = watch::channel(false);
    let mut plan = plan(port);
    plan.window = WINDOW * 4;
    let window = u64::from(plan.window);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), Arc::new(MqttStats::default()), seed).run(stopped));

    let done = Arc::new(AtomicBool::new(false));
    let (feeding, feeder_done) = (spool.clone(), done.clone());
    let feeder = std::thread::spawn(move || {
        let (mut records, mut count, start) = (Records::default(), 0u64, std::time::Instant::now());
        while !feeder_done.load(Relaxed) {
            let due = (start.elapsed().as_secs_f64() * RATE as f64) as u64;
            for _ in count..due {
                let now = now_ms();
                records.push((Stream::Normal, Kind::Json), &["t"], (now, 1), |out| {
                    let start = out.len();
                    let _ = write!(out, "v{now} ");
                    out.len() - start
                });
            }
            count = count.max(due);
            feeding.append(&mut records);
            std::thread::sleep(Duration::from_millis(5));
        }
        count
    });

    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.u64(300..2500))).await;
        broker.up.store(false, Relaxed);
        broker.changed.notify_one();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(rng.u64(100..1200))).await;
        broker.up.store(true, Relaxed);
    }
    done.store(true, Relaxed);
    let count = feeder.join().unwrap();
    let start = tokio::time::Instant::now();
    while !spool.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} still wait", spool.stats.waiting.load(Relaxed));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = stop.send(true);
    task.await.unwrap();
    balanced(&spool);

    let mut seen = std::mem::take(&mut *broker.seen.lock().unwrap());
    let missing: Vec<u64> = (1..=count).filter(|n| seen.times.get(*n as usize).is_none_or(|t| *t == 0)).collect();
    assert!(missing.is_empty(), "{} of {count} are missing, the first is {:?}", missing.len(), missing.first());
    assert_eq!(seen.disorder, 0, "what waited and what is new are each in order");
    assert!(
        seen.duplicates <= window * seen.connections,
        "{} duplicates, {} connections",
        seen.duplicates,
        seen.connections
    );
    assert!(kills > 3 && seen.connections > 3, "{kills} kills, {} connections", seen.connections);
    seen.late.sort_unstable();
    let p99 = seen.late[seen.late.len() * 99 / 100];
    seen.end_replay();
    let (old, beside) = seen.replayed;
    println!(
        "replay: {old} that had waited came beside {beside} new ones at {RATE} a second: {:.1} times the live rate",
        old as f64 / beside.max(1) as f64
    );
    println!(
        "{count} messages, {kills} kills, {} connections, {} duplicates; what was new was {} ms late (p50), {p99} ms (p99), {} ms at most",
        seen.connections,
        seen.duplicates,
        seen.late[seen.late.len() / 2],
        seen.late.last().unwrap()
    );
    assert_eq!(spool.stats.lost.values(), 0);
    drop(spool);
    tokio::task::spawn_blocking(move || handle.stop()).await.unwrap();
}

/// While a backlog is sent, three that waited and more go out for each that is new, and none that is new waits for it. What is new comes at
/// most a third as fast as what waited goes, however fast that is: so it is counted, not timed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_goes_out_at_three_times_the_rate_of_what_is_new_which_does_not_wait_for_it() {
    const BACKLOG: u64 = 40_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = Arc::new(Broker {
        up: AtomicBool::new(true),
        changed: Notify::new(),
        seen: Mutex::default(),
        connected_at: AtomicU64::new(0),
    });
    let spool = Spool::in_memory(256 << 20);
    let mut records = Records::default();
    let mut feed = |count: u64| {
        for _ in 0..count {
            let now = now_ms();
            records.push((Stream::Normal, Kind::Json), &["t"], (now, 1), |out| {
                let start = out.len();
                let _ = write!(out, "v{now} ");
                out.len() - start
            });
        }
        spool.append(&mut records);
    };
    feed(BACKLOG);
    spool.commit().unwrap();
    let mut plan = plan(port);
    plan.window = 256;
    let window = u64::from(plan.window);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Mqtt::new(plan, spool.clone(), Arc::new(MqttStats::default()), 1).run(stopped));
    tokio::spawn(serve(broker.clone(), listener));
    // So many of these sequences have come.
    let came = |from: u64, to: u64| {
        let seen = broker.seen.lock().unwrap();
        seen.times.iter().take(to as usize + 1).skip(from as usize).filter(|n| **n > 0).count() as u64
    };
    let (mut fed, mut behind, mut mark) = (0, 0, 0);
    loop {
        let old = came(1, BACKLOG);
        if old == BACKLOG {
            break;
        }
        if old >= mark + 75 {
            // What is new, and not yet at the broker after so many that waited have gone, was held up by them.
            behind = behind.max(fed - came(BACKLOG + 1, BACKLOG + fed));
            feed(25);
            (fed, mark) = (fed + 25, old);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{BACKLOG} that waited went out beside {fed} new ones, of which at most {behind} were on their way");
    assert!(fed > 500, "{fed} new ones: this proves little");
    assert!(behind <= 4 * window, "{behind} new ones waited for the backlog");
    let _ = stop.send(true);
    task.await.unwrap();
    balanced(&spool);
}
