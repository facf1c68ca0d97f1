//! A connection with a broker at the other end of a pipe that is slow, narrow, or has nothing to say.

use super::face::{Face, Sending};
use super::poison::Care;
use super::publish::Head;
use super::session::{Answers, Ended, Out, Session};
use super::wire::{Hello, Message, Received, Version, Wire};
use super::{Mqtt, Shared};
use crate::alarms::AlarmDesk;
use crate::config::plan::{Broker, MqttPlan, SpoolPlan};
use crate::plain::kept::Kept;
use crate::telemetry::Spool;
use crate::telemetry::mqtt::plain::Plain;
use crate::telemetry::sparkplug::{Hub, Node, NodePlan};
use crate::telemetry::spool::record::Record;
use crate::telemetry::spool::{Kind, Outlet, Reason, Records, Replay, Retention, STREAMS, Stream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What the broker is like.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    ping_after: Duration,
    ack_after: Duration,
    receive_max: Option<u16>,
    packet_max: Option<u32>,
    /// Hangs up after so many messages.
    messages: Option<usize>,
}

/// What the broker has seen.
#[derive(Debug, Default)]
struct Seen {
    pings: usize,
    payloads: Vec<String>,
    unacknowledged: usize,
    most: usize,
}

fn connack(version: Version, ways: &Ways) -> Vec<u8> {
    if version == Version::V311 {
        return vec![0x20, 2, 0, 0];
    }
    let mut properties = Vec::new();
    if let Some(max) = ways.receive_max {
        properties.extend([&[0x21][..], &max.to_be_bytes()].concat());
    }
    if let Some(max) = ways.packet_max {
        properties.extend([&[0x27][..], &max.to_be_bytes()].concat());
    }
    let length = properties.len() as u8;
    [&[0x20, length + 3, 0, 0, length][..], &properties].concat()
}

/// A packet: its first byte and its body.
async fn packet(pipe: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = pipe.read_u8().await?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = pipe.read_u8().await?;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    pipe.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn broker(pipe: DuplexStream, version: Version, ways: Ways, seen: Arc<Mutex<Seen>>) -> std::io::Result<()> {
    let (mut from, mut to) = tokio::io::split(pipe);
    let (say, mut said) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Some((at, bytes)) = said.recv().await {
            sleep_until(at).await;
            if bytes[0] == 0x40 {
                let mut counted = counted.lock().unwrap();
                counted.unacknowledged = counted.unacknowledged.saturating_sub(1);
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut messages = 0;
    let answer = |after: Duration, bytes: Vec<u8>| drop(say.send((Instant::now() + after, bytes)));
    loop {
        let (kind, body) = packet(&mut from).await?;
        match kind >> 4 {
            1 => answer(Duration::ZERO, connack(version, &ways)),
            3 => {
                let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let mut seen = seen.lock().unwrap();
                seen.payloads.push(String::from_utf8_lossy(&body[topic..]).into_owned());
                if kind & 0x06 == 0x02 {
                    seen.unacknowledged += 1;
                    seen.most = seen.most.max(seen.unacknowledged);
                    answer(ways.ack_after, vec![0x40, 2, body[topic], body[topic + 1]]);
                }
                messages += 1;
                if ways.messages == Some(messages) {
                    return Ok(());
                }
            }
            8 => answer(
                Duration::ZERO,
                match version {
                    Version::V5 => vec![0x90, 4, body[0], body[1], 0, 1],
                    Version::V311 => vec![0x90, 3, body[0], body[1], 1],
                },
            ),
            12 => {
                seen.lock().unwrap().pings += 1;
                answer(ways.ping_after, vec![0xD0, 0]);
            }
            _ => {}
        }
    }
}

fn plan(version: Version) -> MqttPlan {
    let age = Duration::MAX;
    MqttPlan {
        brokers: vec![Broker::plain("127.0.0.1", 1)],
        tls: None,
        version,
        falls_back: false,
        retain: true,
        client_id: "gw".into(),
        status_topic: "t/status".into(),
        loss_topic: "t/lost".into(),
        payload: crate::config::Payload::Tag,
        keep_alive: KEEP_ALIVE,
        heartbeat: Duration::from_secs(30),
        window: 64,
        encoding: Default::default(),
        expiry: None,
        properties: Vec::new(),
        replay: Default::default(),
        replay_rate: None,
        login: None,
        spool: SpoolPlan { directory: None, capacity: 1 << 20, age, retention: Retention::Oldest, reserve: 0 },
        commands: None,
        sparkplug: None,
    }
}

/// A connection and what it is about.
struct Bench {
    spool: Arc<Spool>,
    shared: Shared,
    outlet: Outlet,
    face: Box<dyn Face>,
    answers: Answers,
    answering: mpsc::Sender<Message>,
    version: Version,
}

fn plain(version: Version, _spool: &Arc<Spool>) -> Box<dyn Face> {
    Box::new(Plain::new(&plan(version), None))
}

fn sparkplug(version: Version, spool: &Arc<Spool>) -> Box<dyn Face> {
    let (group, node) = ("g".into(), "n".into());
    let plan =
        NodePlan { group, node, primary_host: None, has_others: false, alarms: false, templates: false, memory: None };
    Box::new(Node::new(plan, version, Hub::new(&[], 16, false), spool.clone(), None, &Arc::new(AlarmDesk::default())))
}

impl Bench {
    fn new(version: Version, face: fn(Version, &Arc<Spool>) -> Box<dyn Face>) -> Bench {
        let spool = Spool::in_memory(64 << 20);
        let (answering, answers) = mpsc::channel(64);
        let face = face(version, &spool);
        let shared = Shared {
            spool: spool.clone(),
            stats: Arc::default(),
            nudge: face.nudge(),
            look_every: face.look_every(),
            with_will: AtomicBool::new(false),
            told: Default::default(),
        };
        let outlet = Outlet::new(spool.clone(), Replay::LiveFirst, None);
        Bench { spool, shared, outlet, face, answers: Answers::new(answers), answering, version }
    }

    /// One connection to a broker that is like this, until it ends or `stop` says so.
    async fn connect(&mut self, ways: Ways, seen: &Arc<Mutex<Seen>>, stop: &mut watch::Receiver<bool>) -> Ended {
        let wire = self.open(ways, seen).await;
        self.serve(wire, stop).await
    }

    /// A connection; what waits from now on is new to it.
    async fn open(&mut self, ways: Ways, seen: &Arc<Mutex<Seen>>) -> Wire {
        let (ours, theirs) = duplex(1 << 20);
        tokio::spawn(broker(theirs, self.version, ways, seen.clone()));
        let will = self.face.will();
        let (version, client_id) = (self.version, "gw");
        let hello = Hello { version, client_id, keep_alive: KEEP_ALIVE, login: None, will: &will, keeps: true };
        let wire = Wire::open(Box::new(ours), hello).await.unwrap();
        self.outlet.restart();
        wire
    }

    async fn serve(&mut self, wire: Wire, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut session =
            Session::new(wire, &mut *self.face, &mut self.outlet, &self.shared, &mut self.answers, 64, Care::default());
        session.run(stop).await
    }

    fn append(&self, stream: Stream, count: u64, length: usize) {
        append(&self.spool, stream, count, length);
    }
}

fn append(spool: &Spool, stream: Stream, count: u64, length: usize) {
    let mut records = Records::default();
    for n in 0..count {
        records.push((stream, Kind::Json), &["t"], (1, 1), |out| {
            out.extend_from_slice(format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(length)).as_bytes());
            1
        });
    }
    spool.append(&mut records);
}

/// Where `version` is set nothing else is tried: then the log has to say what to set. MQTT 3.1.1, 3.1.2.2: return code 1, or nothing at all.
#[tokio::test]
async fn a_broker_of_3_1_1_alone_under_mqtt_5_is_a_line_of_the_log_that_names_the_version() {
    for answer in [&[0x20, 2, 0, 1][..], &[]] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut plan = plan(Version::V5);
        plan.brokers = vec![Broker::plain("127.0.0.1", listener.local_addr().unwrap().port())];
        let old = async {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let _ = packet(&mut client).await;
                let _ = client.write_all(answer).await;
            }
        };
        let (log, _listening) = Kept::listen();
        let (_stop, stopped) = watch::channel(false);
        let said = async {
            while log.lines().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = Mqtt::new(plan, Spool::in_memory(1 << 20), Arc::default(), 1).run(stopped) => {}
            _ = old => {}
            () = said => {}
            () = sleep(Duration::from_secs(30)) => panic!("nothing is said"),
        }
        let said = log.lines();
        assert!(said[0].contains("`version") && said[0].contains("3.1.1"), "{answer:?}: {said:?}");
    }
}

/// MQTT 5, 3.1.2.10 and 3.12: who has nothing to say says PINGREQ. A broker is quiet because nobody asked it.
#[tokio::test]
async fn a_connection_on_which_nothing_happens_lives_on_however_long_the_broker_takes_to_answer_a_ping() {
    let mut all = tokio::task::JoinSet::new();
    for version in [Version::V5, Version::V311] {
        for face in [plain, sparkplug] {
            for ms in [0, 50, 500] {
                all.spawn(async move {
                    let (mut bench, seen) = (Bench::new(version, face), Arc::<Mutex<Seen>>::default());
                    let (_stop, mut stopped) = watch::channel(false);
                    let ways = Ways { ping_after: Duration::from_millis(ms), ..Ways::default() };
                    let quiet = KEEP_ALIVE * 7 / 2;
                    let quiet = tokio::time::timeout(quiet, bench.connect(ways, &seen, &mut stopped)).await;
                    assert!(quiet.is_err(), "{version:?}, a ping answered after {ms} ms: it ended");
                    let pings = seen.lock().unwrap().pings;
                    assert!((2..=3).contains(&pings), "{version:?}, {ms} ms: {pings} pings in three keep-alives");
                });
            }
        }
    }
    all.join_all().await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_a_ping_is_left_a_keep_alive_after_it() {
    let (mut bench, seen) = (Bench::new(Version::V5, plain), Arc::default());
    let (_stop, mut stopped) = watch::channel(false);
    let ways = Ways { ping_after: Duration::from_secs(3600), ..Ways::default() };
    let began = Instant::now();
    let Ended::Lost(why) = bench.connect(ways, &seen, &mut stopped).await else { panic!() };
    assert_eq!(why.to_string(), "the broker is silent");
    assert!(began.elapsed() >= KEEP_ALIVE * 2, "{:?}: it had a keep-alive for its answer", began.elapsed());
}

/// What waited and what is new are read from disk beside each other, a piece of each: whichever were forgotten would be waited for, and all
/// that is less important with it, for as long as the connection lives.
#[tokio::test]
async fn pieces_of_what_waited_and_of_what_is_new_are_read_beside_each_other_and_both_are_sent() {
    let (mut bench, seen) = (Bench::new(Version::V5, plain), Arc::<Mutex<Seen>>::default());
    // More than the spool keeps in memory of what is on disk.
    let on_disk = |bench: &Bench| {
        bench.append(Stream::Normal, 3000, 1000);
        bench.spool.commit().unwrap();
    };
    on_disk(&bench);
    let wire = bench.open(Ways::default(), &seen).await;
    on_disk(&bench);
    let (_stop, mut stopped) = watch::channel(false);
    let spool = bench.spool.clone();
    let drained = async {
        while !spool.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = bench.serve(wire, &mut stopped) => panic!("the connection ended"),
        () = drained => {}
        () = sleep(Duration::from_secs(30)) => panic!("these still wait: {:?}", spool.waiting()),
    }
    assert_eq!(
        seen.lock().unwrap().payloads.iter().filter(|p| p.contains("\"n\":")).count(),
        6000,
        "each of them once"
    );
    let accounts = spool.accounts();
    assert!(accounts.balance() && accounts.lost == 0, "{accounts:?}");
}

/// A face that makes another message of each that is not sent: there is no end of them.
struct Endless(Arc<Spool>);

impl Face for Endless {
    fn will(&mut self) -> Message {
        Message { topic: "t/will".into(), ..Message::default() }
    }

    fn subscriptions(&self) -> (Vec<String>, bool) {
        Default::default()
    }

    fn connected(&mut self, _out: &mut Out<'_>) {}

    fn sending(&mut self, _stream: Stream, _record: &Record<'_>) -> Option<Sending> {
        Some(Sending::Straight(Head { content_type: "application/json", expiry_s: None }))
    }

    fn received(&mut self, _message: Received, _out: &mut Out<'_>) {}

    fn look(&mut self, _out: &mut Out<'_>) {}

    fn dropped(&mut self) {
        append(&self.0, Stream::Normal, 1, 300);
    }

    fn farewell(&mut self) -> (Option<Message>, bool) {
        (None, false)
    }
}

/// Notices of losses that were lost themselves once made such a circle: whoever goes round in it without a pause hears nobody.
#[test]
fn a_stop_is_heard_and_ends_the_connection_however_much_goes_on_being_given_up() {
    let (ended, hears) = std::sync::mpsc::channel();
    // On a thread of its own: where nothing ever waits, no time limit within would be kept.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endless = |_: Version, spool: &Arc<Spool>| Box::new(Endless(spool.clone())) as Box<dyn Face>;
            let (mut bench, seen) = (Bench::new(Version::V5, endless), Arc::default());
            bench.append(Stream::Normal, 1, 300);
            let (stop, mut stopped) = watch::channel(false);
            tokio::spawn(async move {
                sleep(Duration::from_millis(50)).await;
                let _ = stop.send(true);
                stop.closed().await;
            });
            let ways = Ways { packet_max: Some(120), ..Ways::default() };
            let _ = ended.send(bench.connect(ways, &seen, &mut stopped).await);
        });
    });
    let end = hears.recv_timeout(Duration::from_secs(60));
    assert!(matches!(end, Ok(Ended::Stopped)), "the stop was not heard");
}

/// MQTT 5, 4.9: PUBLISH packets of QoS 1 without an acknowledgement are never more than the Receive Maximum, whoever said them.
#[tokio::test]
async fn answers_wait_for_room_like_everything_else_and_all_of_them_arrive() {
    for receive_max in [1, 5] {
        let (mut bench, seen) = (Bench::new(Version::V5, plain), Arc::<Mutex<Seen>>::default());
        bench.append(Stream::Normal, 200, 10);
        let answering = bench.answering.clone();
        tokio::spawn(async move {
            for n in 0..32 {
                let message =
                    Message { topic: "t/answer".into(), payload: format!("answer {n}.").into(), ..Message::default() };
                answering.send(message).await.unwrap();
                sleep(Duration::from_millis(7)).await;
            }
        });
        let (_stop, mut stopped) = watch::channel(false);
        let ways = Ways {
            ack_after: Duration::from_millis(5),
            receive_max: Some(receive_max),
            messages: Some(60),
            ..Ways::default()
        };
        // Again and again: what was not acknowledged is said again.
        for _ in 0..200 {
            let limit = Duration::from_secs(2);
            let _ = tokio::time::timeout(limit, bench.connect(ways, &seen, &mut stopped)).await;
            seen.lock().unwrap().unacknowledged = 0;
            sleep(Duration::from_millis(100)).await;
            seen.lock().unwrap().unacknowledged = 0;
            if bench.spool.is_empty() && bench.answers.is_empty() {
                break;
            }
        }
        let seen = seen.lock().unwrap();
        assert!(seen.most <= usize::from(receive_max), "{} at once, the broker takes {receive_max}", seen.most);
        for n in 0..32 {
            let answer = format!("answer {n}.");
            assert!(seen.payloads.iter().any(|p| p.ends_with(&answer)), "{answer} was lost (maximum {receive_max})");
        }
        let accounts = bench.spool.accounts();
        assert!(accounts.balance() && accounts.waiting == 0 && accounts.lost == 0, "{accounts:?}");
    }
}

/// A Maximum Packet Size (MQTT 5, 3.2.2.3.6) between our CONNECT and the notices about what is too large, as a stock mosquitto can be told: what
/// fits flows, what does not is counted once, and a stop is heard.
#[tokio::test]
async fn notices_that_are_too_large_themselves_end_in_a_count_and_not_in_more_notices() {
    let (mut bench, seen) = (Bench::new(Version::V5, plain), Arc::<Mutex<Seen>>::default());
    bench.append(Stream::Normal, 3000, 300);
    bench.append(Stream::Normal, 50, 10);
    let (stop, mut stopped) = watch::channel(false);
    let ways = Ways { packet_max: Some(120), ..Ways::default() };
    let spool = bench.spool.clone();
    let waiter = tokio::spawn(async move {
        while !spool.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        stop.send(true)
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), bench.connect(ways, &seen, &mut stopped)).await;
    assert!(matches!(ended, Ok(Ended::Stopped)), "the stop is heard");
    waiter.await.unwrap().unwrap();
    let (messages, values) = bench.spool.stats.lost.of(Reason::TooLarge);
    assert_eq!((messages, values), (6000, 3000), "each message, and the notice about it");
    let small = seen.lock().unwrap().payloads.iter().filter(|p| p.contains("\"n\":")).count();
    assert_eq!(small, 50, "what fits flows");
    let accounts = bench.spool.accounts();
    assert!(accounts.balance() && accounts.waiting == 0, "{accounts:?}");
    assert!(STREAMS.iter().all(|s| bench.spool.next_sequence(*s) <= 3051), "no notice about a notice");
}
