//! MQTT 3.1.1 and 5 as one face: bytes in and out of one connection, and what was agreed at its beginning.
//!
//! rumqttc's packets are used; its client and event loop are not, because they accept what they may lose, hold a copy that counts for
//! nothing, flush after every message, end the connection over one message that is too large, and cannot say DISCONNECT with a reason.
//! What is left to do here is little: read, write, remember when something was last heard. What the library does not read as brokers send it
//! is read in `frame`.

use super::frame::{self, Own, Terms};
use super::reason::{Code, Failure};
use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use rumqttc::v5::mqttbytes::{Error as Error5, QoS as QoS5};
use rumqttc::{mqttbytes::Error as Error4, mqttbytes::QoS as QoS4};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Largest packet taken from a broker: commands and acknowledgements are small.
pub const INCOMING_MAX: u32 = 256 * 1024;
/// Bytes on their way out; more are not made before these have gone.
pub const OUT_MAX: usize = 1 << 20;
/// A Maximum Packet Size below this (0 is an error of the protocol) leaves no room for any message: topic, properties and a value.
const PACKET_LEAST: u32 = 64;
/// How long is waited for the last words of a broker that takes nothing any more.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Topic aliases used at most: each is a topic that the broker has to remember.
const ALIASES_MAX: u16 = 1000;

/// A connection: TCP, or TLS over it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    #[default]
    V5,
}

/// A message that goes out.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// The broker keeps it.
    pub retain: bool,
    /// The rest.
    pub properties: Properties,
}

/// What MQTT 5 says of a message beside the message. Nothing of it goes out over 3.1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// MIME type of the payload.
    pub content_type: Option<&'static str>,
    /// Nobody wants it any more after so many seconds.
    pub expiry_s: Option<u32>,
    /// Tells the asker which question is answered.
    pub correlation: Option<Bytes>,
    /// Names and values.
    pub user: Vec<(String, String)>,
}

/// A message that came in.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Where it went.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// The broker had kept it: it was not sent just now.
    pub retain: bool,
    /// Where an answer is wanted.
    pub response_topic: Option<String>,
    /// Belongs into the answer.
    pub correlation: Option<Bytes>,
    /// Seconds for which it is worth something.
    pub expiry_s: Option<u32>,
    /// Names and values.
    pub user: Vec<(String, String)>,
}

/// What comes from the broker.
#[derive(Debug)]
pub enum Incoming {
    /// It has taken a message; the reason when it has not.
    PubAck(u16, Option<Code>),
    /// A message, acknowledged already.
    Publish(Box<Received>),
    /// The answer to a subscription: whether it is refused.
    SubAck(bool),
    /// It is alive.
    PingResp,
    /// It ends the connection.
    Disconnect(Failure),
    /// Nothing that concerns us.
    Other,
}

/// Who connects, and what is to be said when the connection is lost.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// Version of the protocol.
    pub version: Version,
    /// Client id.
    pub client_id: &'a str,
    /// The broker may take us for dead after one and a half of this.
    pub keep_alive: Duration,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Last will: QoS 1.
    pub will: &'a Message,
    /// Whether the broker keeps messages: without it nothing is sent to be retained.
    pub keeps: bool,
}

/// A message that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size as a packet, bytes.
    pub size: usize,
    /// What the broker takes.
    pub max: u32,
}

/// One connection.
pub struct Wire {
    io: Box<dyn Io>,
    pub(super) version: Version,
    inbox: BytesMut,
    pub(super) outbox: BytesMut,
    /// TLS holds bytes back until it is told to flush.
    is_held: bool,
    /// The largest packet it takes.
    pub packet_max: Option<u32>,
    /// It keeps what is to be retained.
    pub keeps: bool,
    pub(super) aliases: std::collections::HashMap<String, u16>,
    aliases_max: u16,
    /// Messages the broker takes without an acknowledgement.
    pub receive_max: u16,
    /// How often something has to be said.
    pub keep_alive: Duration,
    /// When something was last sent.
    pub sent_at: Instant,
}

impl Wire {
    /// Says hello and waits for the answer.
    pub async fn open(io: Box<dyn Io>, hello: Hello<'_>) -> Result<Wire, Failure> {
        let mut wire = Wire {
            io,
            version: hello.version,
            inbox: BytesMut::with_capacity(8 * 1024),
            outbox: BytesMut::with_capacity(8 * 1024),
            is_held: false,
            packet_max: None,
            keeps: hello.keeps,
            aliases: std::collections::HashMap::new(),
            aliases_max: 0,
            receive_max: u16::MAX,
            keep_alive: hello.keep_alive,
            sent_at: Instant::now(),
        };
        let version = hello.version;
        wire.put_connect(hello)?;
        wire.flush().await?;
        loop {
            match wire.conn_ack()? {
                Some(()) => return Ok(wire),
                None => {
                    // A reset is how a broker looks that hangs up before it has read everything.
                    let n = wire.io.read_buf(&mut wire.inbox).await.map_err(Failure::from);
                    match n {
                        Ok(0) | Err(Failure::HungUp(_)) => return Err(Failure::Unanswered(version)),
                        n => n?,
                    };
                }
            }
        }
    }

    fn put_connect(&mut self, hello: Hello<'_>) -> Result<(), String> {
        let keep_alive = u16::try_from(hello.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let (topic, payload) = (Bytes::from(hello.will.topic.clone()), Bytes::from(hello.will.payload.clone()));
        let retain = hello.will.retain && hello.keeps;
        let packet = match self.version {
            Version::V5 => {
                let properties =
                    v5::ConnectProperties { max_packet_size: Some(INCOMING_MAX), ..v5::ConnectProperties::new() };
                let connect = v5::Connect {
                    keep_alive,
                    client_id: hello.client_id.into(),
                    clean_start: true,
                    properties: Some(properties),
                };
                let will = v5::LastWill { topic, message: payload, qos: QoS5::AtLeastOnce, retain, properties: None };
                let login = hello.login.map(|(username, password)| v5::Login { username, password });
                Packet::V5(v5::Packet::Connect(connect, Some(will), login))
            }
            Version::V311 => {
                let topic = hello.will.topic.clone();
                let connect = v4::Connect {
                    protocol: rumqttc::mqttbytes::Protocol::V4,
                    keep_alive,
                    client_id: hello.client_id.into(),
                    clean_session: true,
                    last_will: Some(v4::LastWill { topic, message: payload, qos: QoS4::AtLeastOnce, retain }),
                    login: hello.login.map(|(username, password)| v4::Login { username, password }),
                };
                Packet::V311(v4::Packet::Connect(connect))
            }
        };
        self.put(&packet)
    }

    /// The answer to CONNECT, once it is there.
    fn conn_ack(&mut self) -> Result<Option<()>, Failure> {
        match self.packet()? {
            None => Ok(None),
            Some(Packet::Own(Own::ConnAck(Code::SUCCESS, terms))) => self.agree(&terms).map(Some),
            Some(Packet::Own(Own::ConnAck(code, terms))) => Err(Failure::Refused(code, terms.said)),
            Some(Packet::Own(Own::Disconnect(code, said))) => Err(Failure::Ended(code, said)),
            Some(_) => Err(Failure::Other("the broker answered CONNECT with something else".into())),
        }
    }

    fn agree(&mut self, terms: &Terms) -> Result<(), Failure> {
        if let Some(most) = terms.packet_max.filter(|most| *most < PACKET_LEAST) {
            let why = format!(
                "the broker says that it takes packets of {most} bytes at most: no message fits, and all are kept"
            );
            return Err(Failure::Other(why));
        }
        self.packet_max = terms.packet_max;
        self.aliases_max = terms.aliases_max.unwrap_or(0).min(ALIASES_MAX);
        self.receive_max = terms.receive_max.unwrap_or(u16::MAX).max(1);
        self.keeps &= terms.keeps.unwrap_or(true);
        let told = terms.keep_alive_s.map(|s| Duration::from_secs(u64::from(s.max(1))));
        self.keep_alive = told.map_or(self.keep_alive, |told| self.keep_alive.min(told));
        match terms.qos_max {
            Some(0) => Err(Failure::Refused(Code::NO_QOS, None)),
            _ => Ok(()),
        }
    }

    fn packet(&mut self) -> Result<Option<Packet>, String> {
        // Asking for more after taking bytes away is a length inside a packet that does not fit the packet.
        let malformed = |e: String| format!("the broker sent what is no MQTT packet: {e}");
        let is_v5 = self.version == Version::V5;
        if frame::begins_own(&self.inbox, is_v5) {
            let found = frame::own(&self.inbox, is_v5, INCOMING_MAX as usize).map_err(malformed)?;
            return Ok(found.map(|(packet, length)| {
                self.inbox.advance(length);
                Packet::Own(packet)
            }));
        }
        let before = self.inbox.len();
        match self.version {
            Version::V5 => match v5::Packet::read(&mut self.inbox, Some(INCOMING_MAX)) {
                Ok(packet) => Ok(Some(Packet::V5(packet))),
                Err(Error5::InsufficientBytes(_)) if self.inbox.len() == before => Ok(None),
                Err(e) => Err(malformed(e.to_string())),
            },
            Version::V311 => match v4::Packet::read(&mut self.inbox, INCOMING_MAX as usize) {
                Ok(packet) => Ok(Some(Packet::V311(packet))),
                Err(Error4::InsufficientBytes(_)) if self.inbox.len() == before => Ok(None),
                Err(e) => Err(malformed(e.to_string())),
            },
        }
    }

    fn put(&mut self, packet: &Packet) -> Result<(), String> {
        self.sent_at = Instant::now();
        match packet {
            Packet::V5(packet) => packet.write(&mut self.outbox, None).map(drop).map_err(|e| e.to_string()),
            Packet::V311(packet) => packet.write(&mut self.outbox, usize::MAX).map(drop).map_err(|e| e.to_string()),
            Packet::Own(_) => Ok(()), // those only come
        }
    }

    /// Something that has come, if it is there whole. Messages are acknowledged on the way.
    pub fn take(&mut self) -> Result<Option<Incoming>, String> {
        let Some(packet) = self.packet()? else { return Ok(None) };
        Ok(Some(match packet {
            Packet::Own(Own::PubAck(id, code)) => Incoming::PubAck(id, (code.0 >= 0x80).then_some(code)),
            Packet::Own(Own::Disconnect(code, said)) => Incoming::Disconnect(Failure::Ended(code, said)),
            Packet::Own(Own::ConnAck(..)) => Incoming::Other,
            Packet::V5(packet) => self.incoming_v5(packet)?,
            Packet::V311(packet) => self.incoming_v311(packet)?,
        }))
    }

    fn incoming_v5(&mut self, packet: v5::Packet) -> Result<Incoming, String> {
        Ok(match packet {
            v5::Packet::Publish(publish) => {
                if publish.qos == QoS5::AtLeastOnce {
                    self.put(&Packet::V5(v5::Packet::PubAck(v5::PubAck::new(publish.pkid, None))))?;
                }
                let properties = publish.properties.unwrap_or_default();
                Incoming::Publish(Box::new(Received {
                    // We allow no aliases: an empty topic is an error of the broker, and nobody's command.
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload,
                    retain: publish.retain,
                    response_topic: properties.response_topic,
                    correlation: properties.correlation_data,
                    expiry_s: properties.message_expiry_interval,
                    user: properties.user_properties,
                }))
            }
            v5::Packet::SubAck(ack) => {
                let taken = |c: &v5::SubscribeReasonCode| matches!(c, v5::SubscribeReasonCode::Success(_));
                Incoming::SubAck(!ack.return_codes.iter().all(taken))
            }
            v5::Packet::PingResp(_) => Incoming::PingResp,
            _ => Incoming::Other,
        })
    }

    fn incoming_v311(&mut self, packet: v4::Packet) -> Result<Incoming, String> {
        Ok(match packet {
            v4::Packet::PubAck(ack) => Incoming::PubAck(ack.pkid, None),
            v4::Packet::Publish(publish) => {
                if publish.qos == QoS4::AtLeastOnce {
                    self.put(&Packet::V311(v4::Packet::PubAck(v4::PubAck::new(publish.pkid))))?;
                }
                let (topic, payload, retain) = (publish.topic, publish.payload, publish.retain);
                Incoming::Publish(Box::new(Received { topic, payload, retain, ..Received::default() }))
            }
            v4::Packet::SubAck(ack) => {
                let refused = |c: &v4::SubscribeReasonCode| *c == v4::SubscribeReasonCode::Failure;
                Incoming::SubAck(ack.return_codes.iter().any(refused))
            }
            v4::Packet::PingResp => Incoming::PingResp,
            _ => Incoming::Other,
        })
    }

    /// Puts a message on its way; `id` for QoS 1, none for QoS 0.
    pub fn publish(&mut self, message: Message, id: Option<u16>) -> Result<(), TooLarge> {
        let pkid = id.unwrap_or(0);
        let retain = message.retain && self.keeps;
        self.sent_at = Instant::now();
        match self.version {
            Version::V5 => {
                let properties = &message.properties;
                let mut wanted = v5::PublishProperties {
                    content_type: properties.content_type.map(String::from),
                    message_expiry_interval: properties.expiry_s,
                    correlation_data: properties.correlation.clone(),
                    user_properties: properties.user.clone(),
                    ..v5::PublishProperties::default()
                };
                let (alias, known) = if retain { (None, false) } else { self.alias(&message.topic) };
                wanted.topic_alias = alias;
                let plain = wanted == v5::PublishProperties::default();
                let mut publish = v5::Publish {
                    dup: false,
                    qos: if id.is_some() { QoS5::AtLeastOnce } else { QoS5::AtMostOnce },
                    retain,
                    topic: if known { Bytes::new() } else { Bytes::copy_from_slice(message.topic.as_bytes()) },
                    pkid,
                    payload: Bytes::from(message.payload),
                    properties: (!plain).then_some(wanted),
                };
                if let Some(max) = self.packet_max.filter(|max| publish.size() > *max as usize) {
                    if let (Some(_), false) = (alias, known) {
                        self.aliases.remove(&message.topic);
                    }
                    return Err(TooLarge { size: publish.size(), max });
                }
                publish.dup = false;
                let _ = publish.write(&mut self.outbox);
            }
            Version::V311 => {
                let publish = v4::Publish {
                    dup: false,
                    qos: if id.is_some() { QoS4::AtLeastOnce } else { QoS4::AtMostOnce },
                    retain,
                    topic: message.topic,
                    pkid,
                    payload: Bytes::from(message.payload),
                };
                let _ = publish.write(&mut self.outbox);
            }
        }
        Ok(())
    }

    /// The alias of a topic, and whether the broker knows it already. When there are no more, topics go out in full.
    pub(super) fn alias(&mut self, topic: &str) -> (Option<u16>, bool) {
        if let Some(alias) = self.aliases.get(topic) {
            return (Some(*alias), true);
        }
        let next = self.aliases.len() as u16 + 1;
        if next > self.aliases_max {
            return (None, false);
        }
        self.aliases.insert(topic.to_string(), next);
        (Some(next), false)
    }

    /// Asks for messages, QoS 1; what was retained is not wanted where the protocol can say so.
    pub fn subscribe(&mut self, filters: &[String], with_retained: bool, id: u16) -> Result<(), String> {
        let packet = match self.version {
            Version::V5 => {
                let rule =
                    if with_retained { v5::RetainForwardRule::OnEverySubscribe } else { v5::RetainForwardRule::Never };
                let filter = |path: &String| {
                    let mut filter = v5::Filter::new(path, QoS5::AtLeastOnce);
                    filter.retain_forward_rule = rule.clone();
                    // Else the broker hides that what it forwards just now is retained as well.
                    filter.preserve_retain = true;
                    filter
                };
                let filters = filters.iter().map(filter).collect();
                Packet::V5(v5::Packet::Subscribe(v5::Subscribe { pkid: id, filters, properties: None }))
            }
            Version::V311 => {
                let filter = |path: &String| v4::SubscribeFilter { path: path.clone(), qos: QoS4::AtLeastOnce };
                let filters = filters.iter().map(filter).collect();
                Packet::V311(v4::Packet::Subscribe(v4::Subscribe { pkid: id, filters }))
            }
        };
        self.put(&packet)
    }

    /// Asks whether the broker is alive.
    pub fn ping(&mut self) -> Result<(), String> {
        self.put(&match self.version {
            Version::V5 => Packet::V5(v5::Packet::PingReq(v5::PingReq)),
            Version::V311 => Packet::V311(v4::Packet::PingReq),
        })
    }

    /// Says goodbye; `with_will` asks the broker to publish the last will (5 only: 0x04). Written by hand: the library's own packet with a
    /// reason and no properties has a wrong length.
    pub fn disconnect(&mut self, with_will: bool) {
        let bytes: &[u8] = if with_will && self.version == Version::V5 { &[0xE0, 1, 0x04] } else { &[0xE0, 0] };
        self.outbox.extend_from_slice(bytes);
    }

    /// Bytes on their way out.
    pub fn pending(&self) -> usize {
        self.outbox.len()
    }

    /// Moves bytes in either direction; returns when some have moved. May be dropped at any time without losing any.
    pub async fn turn(&mut self) -> io::Result<()> {
        let Wire { io, inbox, outbox, is_held, .. } = self;
        let (mut read, mut write) = tokio::io::split(io);
        let (is_writing, may_read) = (!outbox.is_empty() || *is_held, outbox.len() < 2 * OUT_MAX);
        let put = async {
            if outbox.is_empty() {
                write.flush().await?;
                *is_held = false;
            } else if write.write_buf(outbox).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            } else {
                *is_held = true;
            }
            Ok(())
        };
        let done = tokio::select! {
            done = put, if is_writing => done,
            n = read.read_buf(inbox), if may_read => match n? {
                0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker hung up")),
                _ => Ok(()),
            },
        };
        match done {
            // Its last words may still lie there: why it takes nothing any more.
            Err(e) => match tokio::time::timeout(LAST_WORDS, read.read_buf(inbox)).await {
                Ok(Ok(n)) if n > 0 => Ok(()),
                _ => Err(e),
            },
            done => done,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            if self.io.write_buf(&mut self.outbox).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.io.flush().await
    }

    /// Flushes what is left, and closes.
    pub async fn close(mut self) {
        let _ = self.flush().await;
        let _ = self.io.shutdown().await;
    }
}

#[allow(clippy::large_enum_variant, reason = "lives on the stack for a moment")]
enum Packet {
    Own(Own),
    V5(v5::Packet),
    V311(v4::Packet),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_from_a_broker_are_read_without_panic(bytes: Vec<u8>, kind in 0u8..16) {
            // Like a packet of this kind with a fitting length, so that its inside is reached; and as it is.
            let framed = [&[kind << 4 | 2, bytes.len().min(127) as u8][..], &bytes[..bytes.len().min(127)]].concat();
            for bytes in [framed, bytes] {
                let mut inbox = BytesMut::from(&bytes[..]);
                while v5::Packet::read(&mut inbox, Some(INCOMING_MAX)).is_ok() {}
                let mut inbox = BytesMut::from(&bytes[..]);
                while v4::Packet::read(&mut inbox, INCOMING_MAX as usize).is_ok() {}
            }
        }
    }
}
