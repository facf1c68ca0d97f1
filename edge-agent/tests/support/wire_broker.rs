//! A broker that writes down everything that is said on the wire, and is as a test wants it: how much it takes, how long it takes, what it
//! refuses and how, whether it keeps what is retained, which version it speaks. What it is like stands in [`Ways`]; without any it is kind.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses a part, as a module of its own")]

#[path = "broker_ways.rs"]
mod broker_ways;

pub use broker_ways::{Does, Old, Rule, Ways, Which};
use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5::{self, PublishProperties};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A message as it stood on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// Of a message that was published with MQTT 5.
    pub properties: PublishProperties,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Connect {
        version: u8,
        client_id: String,
        clean: bool,
        expiry: Option<u32>,
        will: Option<Said>,
        /// User and password.
        login: Option<(String, String)>,
    },
    Subscribe(Vec<(String, u8)>),
    Publish(Said),
    /// Reason code; 0 for 3.1.1.
    Disconnect(u8),
    Ping,
    /// What the broker ended the connection with: a reason of CONNACK or DISCONNECT; 0 when it hung up without a word.
    Ended(u8),
    Closed,
    /// What the test said to the client.
    Told(String),
}

/// An event, on which connection, and when.
#[derive(Clone, Debug)]
pub struct Entry {
    pub broker: usize,
    pub connection: usize,
    pub at_ms: u64,
    pub event: Event,
}

/// What all brokers of a test have seen, in order.
pub type Trace = Arc<Mutex<Vec<Entry>>>;

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What a test can make it do.
pub enum Order {
    Publish {
        topic: String,
        payload: Vec<u8>,
        retain: bool,
    },
    Cut,
    /// Says these bytes, and hangs up.
    Say(Vec<u8>),
}

/// A running broker.
pub struct WireBroker {
    pub port: u16,
    most_open: Arc<AtomicUsize>,
    orders: Arc<Mutex<Option<mpsc::UnboundedSender<Order>>>>,
}

impl WireBroker {
    /// Starts broker number `number` of a test; `retained` is what it sends after each subscription.
    pub async fn start(number: usize, trace: Trace, retained: Vec<(String, Vec<u8>)>) -> WireBroker {
        WireBroker::with(number, trace, Ways { retained, ..Ways::default() }).await
    }

    /// Starts broker number `number` of a test.
    pub async fn with(number: usize, trace: Trace, ways: Ways) -> WireBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders: Arc<Mutex<Option<mpsc::UnboundedSender<Order>>>> = Arc::default();
        let (kept, most_open) = (orders.clone(), Arc::<AtomicUsize>::default());
        let most = most_open.clone();
        tokio::spawn(async move {
            let (mut connection, messages) = (0, Arc::new(AtomicUsize::new(0)));
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                let (put, take) = mpsc::unbounded_channel();
                let before = kept.lock().unwrap().replace(put);
                let note = Note { broker: number, connection, trace: trace.clone() };
                let (ways, messages, most_open) = (ways.clone(), messages.clone(), most.clone());
                let takes_over = ways.takes_over;
                let served = tokio::spawn(async move {
                    let mut client = Client { version: 0, note, ways, messages, most_open, ..Client::default() };
                    client.serve(stream, take, before).await;
                    client.note.note(Event::Closed);
                });
                if !takes_over {
                    let _ = served.await;
                }
            }
        });
        WireBroker { port, most_open, orders }
    }

    /// The place of one that is not there.
    pub async fn nobody() -> WireBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        WireBroker { port: listener.local_addr().unwrap().port(), most_open: Arc::default(), orders: Arc::default() }
    }

    /// The most messages that were ever open, without an acknowledgement, on one connection.
    pub fn most_open(&self) -> usize {
        self.most_open.load(Relaxed)
    }

    /// Says something to the client.
    pub fn tell(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let order = Order::Publish { topic: topic.into(), payload: payload.into(), retain };
        let _ = self.orders.lock().unwrap().as_ref().expect("somebody is connected").send(order);
    }

    /// Says these bytes, and hangs up.
    pub fn say(&self, bytes: &[u8]) {
        let _ = self.orders.lock().unwrap().as_ref().expect("somebody is connected").send(Order::Say(bytes.into()));
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        if let Some(orders) = &*self.orders.lock().unwrap() {
            let _ = orders.send(Order::Cut);
        }
    }
}

#[derive(Default)]
struct Note {
    broker: usize,
    connection: usize,
    trace: Trace,
}

impl Note {
    fn note(&self, event: Event) {
        let (broker, connection) = (self.broker, self.connection);
        self.trace.lock().unwrap().push(Entry { broker, connection, at_ms: now_ms(), event });
    }
}

/// One connection.
#[derive(Default)]
struct Client {
    version: u8,
    note: Note,
    ways: Ways,
    /// Messages that this broker was sent.
    messages: Arc<AtomicUsize>,
    /// What is said, when. The number keeps the order of what is said at once.
    answers: BTreeMap<(Instant, usize), Answer>,
    said: usize,
    /// Messages without an acknowledgement, now and at most.
    open: usize,
    most_open: Arc<AtomicUsize>,
}

struct Answer {
    bytes: Vec<u8>,
    acknowledges: bool,
    /// The reason, if the connection ends with it.
    ends: Option<u8>,
}

impl Client {
    async fn serve(
        &mut self,
        mut stream: TcpStream,
        mut orders: mpsc::UnboundedReceiver<Order>,
        before: Option<mpsc::UnboundedSender<Order>>,
    ) {
        let (mut inbox, mut before) = (BytesMut::new(), before.filter(|_| self.ways.takes_over));
        loop {
            let due = self.answers.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let Some((_, answer)) = self.answers.pop_first() else { return };
                    self.open -= usize::from(answer.acknowledges);
                    let gone = stream.write_all(&answer.bytes).await.is_err();
                    if let Some(reason) = answer.ends {
                        self.note.note(Event::Ended(reason));
                        // What is still on its way to us would turn our end into a reset, which may overtake the last words.
                        let _ = stream.shutdown().await;
                        let rest = async { while stream.read_buf(&mut inbox).await.is_ok_and(|n| n > 0) { inbox.clear() } };
                        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
                    }
                    if gone || answer.ends.is_some() {
                        return;
                    }
                }
                n = stream.read_buf(&mut inbox) => {
                    if n.unwrap_or(0) == 0 || self.packets(&mut inbox).is_none() {
                        return;
                    }
                    if self.version != 0 && let Some(before) = before.take() {
                        let _ = before.send(Order::Say(if self.version == 5 { vec![0xE0, 1, 0x8E] } else { Vec::new() }));
                    }
                }
                Some(order) = orders.recv() => match order {
                    Order::Cut => return,
                    Order::Say(bytes) => self.end(bytes.get(2).copied().unwrap_or(0), bytes),
                    Order::Publish { topic, payload, retain } => {
                        self.note.note(Event::Told(topic.clone()));
                        self.say(publish(self.version, &topic, &payload, retain));
                    }
                },
            }
        }
    }

    fn later(&mut self, after: Duration, answer: Answer) {
        self.said += 1;
        self.answers.insert((Instant::now() + after, self.said), answer);
    }

    /// Acknowledges nothing before it has been quiet for a while.
    fn hold(&mut self) {
        let due = Instant::now() + self.ways.puback_after;
        let all = std::mem::take(&mut self.answers).into_iter();
        self.answers = all.map(|((at, nth), a)| ((if a.acknowledges { due } else { at }, nth), a)).collect();
    }

    fn say(&mut self, bytes: Vec<u8>) {
        self.later(Duration::ZERO, Answer { bytes, acknowledges: false, ends: None });
    }

    /// Ends the connection with these bytes.
    fn end(&mut self, reason: u8, bytes: Vec<u8>) {
        self.later(Duration::ZERO, Answer { bytes, acknowledges: false, ends: Some(reason) });
    }

    /// Ends the connection as this version can.
    fn disconnect(&mut self, reason: u8) {
        match self.version {
            5 => self.end(reason, vec![0xE0, 1, reason]),
            _ => self.end(0, Vec::new()),
        }
    }

    /// Reads what is there and answers; `None`: the connection ends.
    fn packets(&mut self, inbox: &mut BytesMut) -> Option<()> {
        loop {
            if self.answers.values().any(|a| a.ends.is_some()) {
                return Some(()); // it listens no more
            }
            if self.version == 0 {
                // Byte 1 is the length, then "MQTT" with its own, then the version: one byte of length is enough for a test.
                let Some(at) = inbox.iter().skip(1).position(|b| b & 0x80 == 0).map(|at| at + 2) else {
                    return Some(());
                };
                let Some(version) = inbox.get(at + 6) else { return Some(()) };
                self.version = *version;
            }
            let before = inbox.len();
            if self.version == 5 {
                // The library does not read a DISCONNECT that has a reason and no properties.
                if let [0xE0, length, rest @ ..] = &inbox[..] {
                    self.note.note(Event::Disconnect(if *length > 0 { *rest.first()? } else { 0 }));
                    return None;
                }
                let Ok(packet) = v5::Packet::read(inbox, None) else { return Some(()) };
                self.take_v5(packet, before - inbox.len());
            } else {
                let Ok(packet) = v4::Packet::read(inbox, 1 << 20) else { return Some(()) };
                self.take_v311(packet, before - inbox.len())?;
            }
        }
    }

    fn take_v5(&mut self, packet: v5::Packet, size: usize) {
        match packet {
            v5::Packet::Connect(c, will, login) => {
                let will = will.map(|w| Said {
                    topic: w.topic.to_vec(),
                    payload: w.message.to_vec(),
                    qos: w.qos as u8,
                    retain: w.retain,
                    ..Said::default()
                });
                let will_retain = will.as_ref().is_some_and(|w| w.retain);
                let will_qos = will.as_ref().map_or(0, |w| w.qos);
                self.note.note(Event::Connect {
                    version: 5,
                    client_id: c.client_id,
                    clean: c.clean_start,
                    expiry: c.properties.and_then(|p| p.session_expiry_interval),
                    will,
                    login: login.map(|l| (l.username, l.password)),
                });
                match self.ways.old {
                    Some(Old::Says) => return self.end(1, vec![0x20, 2, 0, 1]),
                    Some(Old::HangsUp) => return self.end(0, Vec::new()),
                    None => {}
                }
                let mut code = self.ways.connack;
                if self.ways.no_retain && will_retain && !self.ways.takes_wills {
                    code = 0x9A;
                } else if self.ways.qos_max.is_some_and(|max| will_qos > max) {
                    code = 0x9B;
                }
                let properties = self.properties();
                let length = properties.len() as u8;
                let bytes = [&[0x20, 3 + length, 0, code, length][..], &properties].concat();
                let ends = (code != 0).then_some(code);
                self.later(self.ways.connack_after, Answer { bytes, acknowledges: false, ends });
            }
            v5::Packet::Publish(p) => {
                let said = Said {
                    topic: p.topic.to_vec(),
                    payload: p.payload.to_vec(),
                    qos: p.qos as u8,
                    retain: p.retain,
                    properties: p.properties.unwrap_or_default(),
                };
                self.take_message(said, p.pkid, size);
            }
            v5::Packet::Subscribe(s) => {
                let filters: Vec<_> = s.filters.iter().map(|f| (f.path.clone(), f.qos as u8)).collect();
                self.subscribed(s.pkid, filters);
            }
            v5::Packet::PingReq(_) => self.pinged(),
            _ => {}
        }
    }

    /// What CONNACK says of it (MQTT 5, 3.2.2.3).
    fn properties(&self) -> Vec<u8> {
        let ways = &self.ways;
        let two = |id: u8, n: u16| [&[id][..], &n.to_be_bytes()].concat();
        let mut all = Vec::new();
        all.extend(ways.receive_max.map(|n| two(0x21, n)));
        all.extend(ways.qos_max.map(|n| vec![0x24, n]));
        all.extend(ways.no_retain.then(|| vec![0x25, 0]));
        all.extend(ways.packet_max.filter(|_| !ways.is_reserved).map(|n| [&[0x27][..], &n.to_be_bytes()].concat()));
        all.extend(ways.aliases.map(|n| two(0x22, n)));
        all.extend(ways.keep_alive_s.map(|n| two(0x13, n)));
        all.concat()
    }

    /// `None`: the connection ends.
    fn take_v311(&mut self, packet: v4::Packet, size: usize) -> Option<()> {
        match packet {
            v4::Packet::Connect(c) => {
                let will = c.last_will.map(|w| Said {
                    topic: w.topic.into_bytes(),
                    payload: w.message.to_vec(),
                    qos: w.qos as u8,
                    retain: w.retain,
                    ..Said::default()
                });
                let will_retain = will.as_ref().is_some_and(|w| w.retain);
                self.note.note(Event::Connect {
                    version: 4,
                    client_id: c.client_id,
                    clean: c.clean_session,
                    expiry: None,
                    will,
                    login: c.login.map(|l| (l.username, l.password)),
                });
                if self.ways.no_retain && will_retain && !self.ways.takes_wills {
                    self.end(0, Vec::new());
                    return Some(());
                }
                let code = self.ways.connack;
                let answer =
                    Answer { bytes: vec![0x20, 2, 0, code], acknowledges: false, ends: (code != 0).then_some(code) };
                self.later(self.ways.connack_after, answer);
            }
            v4::Packet::Publish(p) => {
                let (topic, payload) = (p.topic.into_bytes(), p.payload.to_vec());
                let said = Said { topic, payload, qos: p.qos as u8, retain: p.retain, ..Said::default() };
                self.take_message(said, p.pkid, size);
            }
            v4::Packet::Subscribe(s) => {
                let filters: Vec<_> = s.filters.iter().map(|f| (f.path.clone(), f.qos as u8)).collect();
                self.subscribed(s.pkid, filters);
            }
            v4::Packet::PingReq => self.pinged(),
            v4::Packet::Disconnect => {
                self.note.note(Event::Disconnect(0));
                return None;
            }
            _ => {}
        }
        Some(())
    }

    fn take_message(&mut self, said: Said, id: u16, size: usize) {
        let nth = self.messages.fetch_add(1, Relaxed) + 1;
        let topic = String::from_utf8_lossy(&said.topic).into_owned();
        let (retain, qos) = (said.retain, said.qos);
        self.note.note(Event::Publish(said));
        self.open += usize::from(id != 0);
        self.most_open.fetch_max(self.open, Relaxed);
        let is_meant = |which: &Which| match which {
            Which::All => true,
            Which::Topic(part) => topic.contains(part),
            Which::Nth(which) => which.contains(&nth),
            Which::Larger(most) => size > *most,
        };
        let rule = self.ways.rules.iter().find(|rule| is_meant(&rule.0)).map(|rule| rule.1.clone());
        let is_over = |limit: Option<u64>, n: u64| limit.is_some_and(|most| n > most);
        match rule {
            _ if is_over(self.ways.packet_max.map(u64::from), size as u64) => self.disconnect(0x95),
            _ if is_over(self.ways.receive_max.map(u64::from), self.open as u64) => self.disconnect(0x93),
            _ if is_over(self.ways.qos_max.map(u64::from), u64::from(qos)) => self.disconnect(0x9B),
            _ if self.ways.no_retain && retain => self.disconnect(0x9A),
            Some(Does::Disconnect(reason)) => self.disconnect(reason),
            Some(Does::Say(bytes)) => self.end(bytes.get(2).copied().unwrap_or(0), bytes.to_vec()),
            Some(Does::HangUp) => self.end(0, Vec::new()),
            Some(Does::Silence) => {}
            _ if id == 0 => {}
            rule => {
                let [high, low] = id.to_be_bytes();
                let bytes = match rule {
                    Some(Does::PubAck(reason)) if self.version == 5 => vec![0x40, 3, high, low, reason],
                    _ => vec![0x40, 2, high, low],
                };
                self.later(self.ways.puback_after, Answer { bytes, acknowledges: true, ends: None });
                if self.ways.holds {
                    self.hold();
                }
            }
        }
    }

    fn subscribed(&mut self, id: u16, filters: Vec<(String, u8)>) {
        let [high, low] = id.to_be_bytes();
        // MQTT 5 has a length of properties there.
        let none: &[u8] = if self.version == 5 { &[0] } else { &[] };
        let mut bytes = [&[0x90, (2 + none.len() + filters.len()) as u8, high, low][..], none].concat();
        bytes.extend(filters.iter().map(|(_, qos)| self.ways.suback.unwrap_or(*qos)));
        self.note.note(Event::Subscribe(filters));
        self.say(bytes);
        for (topic, payload) in self.ways.retained.clone() {
            self.say(publish(self.version, &topic, &payload, true));
        }
    }

    fn pinged(&mut self) {
        self.note.note(Event::Ping);
        self.later(self.ways.pingresp_after, Answer { bytes: vec![0xD0, 0], acknowledges: false, ends: None });
    }
}

fn publish(version: u8, topic: &str, payload: &[u8], retain: bool) -> Vec<u8> {
    let mut out = BytesMut::new();
    if version == 5 {
        let mut p = v5::Publish::new(topic, rumqttc::v5::mqttbytes::QoS::AtMostOnce, payload.to_vec(), None);
        p.retain = retain;
        p.write(&mut out).unwrap();
    } else {
        let mut p = v4::Publish::new(topic, rumqttc::QoS::AtMostOnce, payload);
        p.retain = retain;
        p.write(&mut out).unwrap();
    }
    out.to_vec()
}
