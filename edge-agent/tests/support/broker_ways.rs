//! What a broker of a test is like.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Which messages a [`Rule`] is for.
#[derive(Clone, Debug)]
pub enum Which {
    All,
    /// Whose topic contains this; a topic stands in full, or not at all where an alias stands for it.
    Topic(&'static str),
    /// The so manieth that this broker was sent, from 1.
    Nth(RangeInclusive<usize>),
    /// Longer than so many bytes, as packets.
    Larger(usize),
}

/// What it does with a message.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers with this reason (5 only: 3.1.1 has no reasons, and takes the message).
    PubAck(u8),
    /// Says DISCONNECT with this reason and no properties, as mosquitto does; over 3.1.1 it hangs up.
    Disconnect(u8),
    /// Says these bytes, and hangs up.
    Say(&'static [u8]),
    HangUp,
    /// Does not answer.
    Silence,
}

/// How it treats some messages. The first rule that fits counts; a message without one is taken.
#[derive(Clone, Debug)]
pub struct Rule(pub Which, pub Does);

/// What a broker of 3.1.1 alone does with a CONNECT of MQTT 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Return code 1, unacceptable protocol version (MQTT 3.1.1, 3.1.2.2).
    Says,
    HangsUp,
}

/// What a broker is like.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// What it sends after each subscription.
    pub retained: Vec<(String, Vec<u8>)>,
    /// So many topic aliases it takes, and says so (5 only).
    pub aliases: Option<u16>,
    /// The largest packet it takes. It says so over 5, and ends the connection over a larger one.
    pub packet_max: Option<u32>,
    /// With `packet_max`: does not say so, over 5 either.
    pub is_reserved: bool,
    /// So many messages it takes without an acknowledgement; beyond, it says DISCONNECT 0x93.
    pub receive_max: Option<u16>,
    /// Its own keep-alive, seconds (5 only).
    pub keep_alive_s: Option<u16>,
    /// The highest QoS it takes; over 3.1.1 it hangs up over more.
    pub qos_max: Option<u8>,
    /// It keeps nothing: Retain Available 0, and it ends the connection over a retained message or will, with 0x9A over 5.
    pub no_retain: bool,
    /// It takes retained wills all the same.
    pub takes_wills: bool,
    /// It does not know MQTT 5.
    pub old: Option<Old>,
    /// What it answers CONNECT with; 0: it is taken.
    pub connack: u8,
    /// What it answers SUBSCRIBE with for each filter; none: the QoS that was asked for.
    pub suback: Option<u8>,
    pub connack_after: Duration,
    pub puback_after: Duration,
    /// Acknowledgements wait until nothing has come for `puback_after`: as much is open as the client may ever have open.
    pub holds: bool,
    pub pingresp_after: Duration,
    pub rules: Vec<Rule>,
    /// Of two clients with one id the newer is let in, and the older told so: DISCONNECT 0x8E, or hung up on over 3.1.1 (3.1.4-3). Without
    /// it the next client waits until the one before has gone.
    pub takes_over: bool,
}
