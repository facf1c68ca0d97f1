//! A broker that writes down everything that is said on the wire, and says to its client what a test wants it to say.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5::{self, PublishProperties};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

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
    Publish { topic: String, payload: Vec<u8>, retain: bool },
    Cut,
}

/// What a broker is like.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// What it sends after each subscription.
    pub retained: Vec<(String, Vec<u8>)>,
    /// So many topic aliases it takes, and says so (5 only).
    pub aliases: Option<u16>,
}

/// A running broker.
pub struct WireBroker {
    pub port: u16,
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
        let kept = orders.clone();
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                let (put, take) = mpsc::unbounded_channel();
                *kept.lock().unwrap() = Some(put);
                let note = Note { broker: number, connection, trace: trace.clone() };
                serve(stream, &note, take, &ways).await;
                note.note(Event::Closed);
            }
        });
        WireBroker { port, orders }
    }

    /// Says something to the client.
    pub fn tell(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let order = Order::Publish { topic: topic.into(), payload: payload.into(), retain };
        let _ = self.orders.lock().unwrap().as_ref().expect("somebody is connected").send(order);
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        if let Some(orders) = &*self.orders.lock().unwrap() {
            let _ = orders.send(Order::Cut);
        }
    }
}

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

async fn serve(mut stream: TcpStream, note: &Note, mut orders: mpsc::UnboundedReceiver<Order>, ways: &Ways) {
    let (mut inbox, mut version) = (BytesMut::new(), 0);
    loop {
        let out = tokio::select! {
            n = stream.read_buf(&mut inbox) => {
                if n.unwrap_or(0) == 0 {
                    return;
                }
                let Some(out) = packets(&mut inbox, &mut version, note, ways) else { return };
                out
            }
            Some(order) = orders.recv() => match order {
                Order::Cut => return,
                Order::Publish { topic, payload, retain } => {
                    note.note(Event::Told(topic.clone()));
                    publish(version, &topic, &payload, retain)
                }
            },
        };
        if stream.write_all(&out).await.is_err() {
            return;
        }
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

/// Reads what is there and gives the answers; `None`: the connection ends.
fn packets(inbox: &mut BytesMut, version: &mut u8, note: &Note, ways: &Ways) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        if *version == 0 {
            // Byte 1 is the length, then "MQTT" with its own, then the version: one byte of length is enough for a test.
            let at = inbox.iter().skip(1).position(|b| b & 0x80 == 0)? + 2;
            *version = *inbox.get(at + 6)?;
        }
        if *version == 5 {
            // The library does not read a DISCONNECT that has a reason and no properties.
            if let [0xE0, length, rest @ ..] = &inbox[..] {
                note.note(Event::Disconnect(if *length > 0 { *rest.first()? } else { 0 }));
                return None;
            }
            let Ok(packet) = v5::Packet::read(inbox, None) else { return Some(out) };
            match packet {
                v5::Packet::Connect(c, will, login) => {
                    let will = will.map(|w| Said {
                        topic: w.topic.to_vec(),
                        payload: w.message.to_vec(),
                        qos: w.qos as u8,
                        retain: w.retain,
                        ..Said::default()
                    });
                    let expiry = c.properties.and_then(|p| p.session_expiry_interval);
                    note.note(Event::Connect {
                        version: 5,
                        client_id: c.client_id,
                        clean: c.clean_start,
                        expiry,
                        will,
                        login: login.map(|l| (l.username, l.password)),
                    });
                    match ways.aliases.map(u16::to_be_bytes) {
                        // Topic Alias Maximum (MQTT 5, 3.2.2.3.8)
                        Some([high, low]) => out.extend([0x20, 6, 0, 0, 3, 0x22, high, low]),
                        None => out.extend([0x20, 3, 0, 0, 0]),
                    }
                }
                v5::Packet::Publish(p) => {
                    if p.pkid != 0 {
                        out.extend([0x40, 2, (p.pkid >> 8) as u8, p.pkid as u8]);
                    }
                    note.note(Event::Publish(Said {
                        topic: p.topic.to_vec(),
                        payload: p.payload.to_vec(),
                        qos: p.qos as u8,
                        retain: p.retain,
                        properties: p.properties.unwrap_or_default(),
                    }));
                }
                v5::Packet::Subscribe(s) => {
                    let filters: Vec<_> = s.filters.iter().map(|f| (f.path.clone(), f.qos as u8)).collect();
                    out.extend([0x90, 3 + filters.len() as u8, (s.pkid >> 8) as u8, s.pkid as u8, 0]);
                    out.extend(filters.iter().map(|(_, qos)| *qos));
                    note.note(Event::Subscribe(filters));
                    ways.retained.iter().for_each(|(topic, payload)| out.extend(publish(5, topic, payload, true)));
                }
                v5::Packet::PingReq(_) => out.extend([0xD0, 0]),
                _ => {}
            }
        } else {
            // rumqttc's reader does not show the order of a DISCONNECT in 3.1.1 otherwise than as a packet.
            let Ok(packet) = v4::Packet::read(inbox, 1 << 20) else { return Some(out) };
            match packet {
                v4::Packet::Connect(c) => {
                    let will = c.last_will.map(|w| Said {
                        topic: w.topic.into_bytes(),
                        payload: w.message.to_vec(),
                        qos: w.qos as u8,
                        retain: w.retain,
                        ..Said::default()
                    });
                    note.note(Event::Connect {
                        version: 4,
                        client_id: c.client_id,
                        clean: c.clean_session,
                        expiry: None,
                        will,
                        login: c.login.map(|l| (l.username, l.password)),
                    });
                    out.extend([0x20, 2, 0, 0]);
                }
                v4::Packet::Publish(p) => {
                    if p.pkid != 0 {
                        out.extend([0x40, 2, (p.pkid >> 8) as u8, p.pkid as u8]);
                    }
                    note.note(Event::Publish(Said {
                        topic: p.topic.into_bytes(),
                        payload: p.payload.to_vec(),
                        qos: p.qos as u8,
                        retain: p.retain,
                        ..Said::default()
                    }));
                }
                v4::Packet::Subscribe(s) => {
                    let filters: Vec<_> = s.filters.iter().map(|f| (f.path.clone(), f.qos as u8)).collect();
                    out.extend([0x90, 2 + filters.len() as u8, (s.pkid >> 8) as u8, s.pkid as u8]);
                    out.extend(filters.iter().map(|(_, qos)| *qos));
                    note.note(Event::Subscribe(filters));
                    ways.retained.iter().for_each(|(topic, payload)| out.extend(publish(4, topic, payload, true)));
                }
                v4::Packet::PingReq => out.extend([0xD0, 0]),
                v4::Packet::Disconnect => {
                    note.note(Event::Disconnect(0));
                    return None;
                }
                _ => {}
            }
        }
    }
}
