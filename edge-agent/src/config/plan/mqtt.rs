//! Where telemetry goes, how it is written, and where it waits.

use crate::commands::CommandPlan;
use crate::telemetry::mqtt::wire::Version;
use crate::telemetry::payload::Encoding;
use crate::telemetry::sparkplug::NodePlan;
use crate::telemetry::spool::{Replay, Retention};
use device_drivers::modbus::Tls;
use std::path::PathBuf;
use std::time::Duration;

/// Telemetry.
#[derive(Clone, Debug)]
pub struct MqttPlan {
    /// Brokers, the preferred one first.
    pub brokers: Vec<Broker>,
    /// Certificates for brokers with TLS.
    pub tls: Option<Tls>,
    /// Version of the protocol.
    pub version: Version,
    /// 3.1.1 is spoken with a broker that knows no other.
    pub falls_back: bool,
    /// Birth and last will are retained.
    pub retain: bool,
    /// Client id.
    pub client_id: String,
    /// Topic of birth and last will.
    pub status_topic: String,
    /// Topic of loss records.
    pub loss_topic: String,
    /// What one message holds.
    pub payload: Payload,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// An unchanged value is sent again after this long.
    pub heartbeat: Duration,
    /// Messages on their way at once.
    pub window: u16,
    /// How payloads are written.
    pub encoding: Encoding,
    /// Nobody wants a message any more that is older than this.
    pub expiry: Option<Duration>,
    /// User properties of every message.
    pub properties: Vec<(String, String)>,
    /// What goes first after an outage.
    pub replay: Replay,
    /// Messages a second that are sent of what waited, at most.
    pub replay_rate: Option<f64>,
    /// User and password.
    pub login: Option<Login>,
    /// Where messages wait.
    pub spool: SpoolPlan,
    /// Commands that are taken; `None`: none is.
    pub commands: Option<CommandPlan>,
    /// A Sparkplug edge node, in place of our own messages.
    pub sparkplug: Option<NodePlan>,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it is reached over TLS.
    pub tls: bool,
}

impl MqttPlan {
    /// Where it is told what tags are to people: this and the device's name.
    pub fn meta_topic(&self) -> String {
        format!("{}/meta", self.status_topic.trim_end_matches("/status"))
    }

    /// Where changes of alarms are told: this and the alarm's name.
    pub fn alarm_topic(&self) -> String {
        format!("{}/alarm", self.status_topic.trim_end_matches("/status"))
    }
}

impl Broker {
    /// A broker without TLS.
    pub fn plain(host: &str, port: u16) -> Broker {
        Broker { host: host.into(), port, tls: false }
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Broker { host, port, tls } = self;
        write!(f, "{}{host}:{port}", if *tls { "mqtts://" } else { "" })
    }
}

/// Who we are to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password or token.
    pub secret: Option<Secret>,
}

/// Where a secret is: read anew for every connection, so that a renewed token needs no restart. Never part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// A credential that systemd hands over (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

impl Secret {
    /// Where it is; nowhere if systemd hands no credentials over.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Secret::File(path) => Some(path.clone()),
            Secret::Credential(name) => Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name)),
        }
    }

    /// Reads it; the text says what to do.
    pub fn read(&self) -> Result<String, String> {
        let Some(path) = self.path() else {
            let Secret::Credential(name) = self else { return Err("there is no file".into()) };
            let what = "systemd hands no credentials over";
            return Err(format!("{what}: add `LoadCredential={name}:/path/of/the/file` to the unit"));
        };
        let secret = device_drivers::files::read_secret(&path);
        secret.map_err(|e| format!("cannot read the password from {}: {e}", path.display()))
    }
}

/// Where messages wait for the broker.
#[derive(Clone, Debug)]
pub struct SpoolPlan {
    /// Its folder; `None`: in memory.
    pub directory: Option<PathBuf>,
    /// Bytes.
    pub capacity: u64,
    /// Older messages are dropped.
    pub age: Duration,
    /// What goes first when it is full.
    pub retention: Retention,
    /// Bytes of the disk that telemetry cannot take from the store in `state_dir`.
    pub reserve: u64,
}

/// What one message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// One value.
    #[default]
    Tag,
    /// What changed in one poll of a device.
    Device,
}
