//! What the file says. Every key there is; unknown ones are refused.

use super::values::{Exact, Size, Spanned, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// `agent.toml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who and where this gateway is.
    pub gateway: Gateway,
    /// The control loop.
    #[serde(default)]
    pub control: Control,
    /// Who may do what over HTTP.
    #[serde(default)]
    pub http: Http,
    /// Telemetry; without it nothing is published.
    #[serde(default)]
    pub mqtt: Option<Mqtt>,
    /// Where messages wait for the broker; without it in memory.
    #[serde(default)]
    pub spool: Option<Spanned<Spool>>,
    /// The floor it controls; without it the gateway gathers and forwards only.
    #[serde(default)]
    pub floor: Option<Floor>,
    /// The field lines.
    #[serde(default, rename = "line")]
    pub lines: Vec<Line>,
}

/// A file in `conf.d/`: more lines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The field lines.
    #[serde(default, rename = "line")]
    pub lines: Vec<Line>,
}

/// `[gateway]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Its name: MQTT client id, and `{gateway}` in topics.
    pub name: Spanned<String>,
    /// ISA-95 enterprise, `{enterprise}` in topics.
    #[serde(default)]
    pub enterprise: Option<Spanned<String>>,
    /// ISA-95 site, `{site}` in topics.
    #[serde(default)]
    pub site: Option<Spanned<String>>,
    /// ISA-95 area, `{area}` in topics.
    pub area: Spanned<String>,
    /// ISA-95 production line, `{line}` in topics.
    pub line: Spanned<String>,
    /// Where metrics and orders are served.
    #[serde(default)]
    pub listen: Option<Spanned<String>>,
    /// Orders, alarms, users, keys and all else that outlives a run.
    #[serde(default)]
    pub state_dir: Option<Spanned<String>>,
    /// What to do while the audit record cannot be written: `"log"` (the usual: an alarm, and everything goes on) or `"require"` (nothing is
    /// changed by people or commands; control goes on).
    #[serde(default)]
    pub audit: Option<Spanned<String>>,
    /// How long a stop waits for machines to finish.
    #[serde(default)]
    pub drain: Option<Spanned<Time>>,
}

/// `[control]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Period of the control cycle.
    #[serde(default)]
    pub period: Option<Spanned<Time>>,
    /// `"try"`, `"require"` or `"off"`.
    #[serde(default)]
    pub realtime: Option<Spanned<String>>,
    /// SCHED_FIFO priority, 1 to 99.
    #[serde(default)]
    pub priority: Option<Spanned<u8>>,
    /// Core the control thread is pinned to.
    #[serde(default)]
    pub core: Option<u16>,
    /// A machine's status older than this is not believed.
    #[serde(default)]
    pub stale_after: Option<Spanned<Time>>,
    /// How long a command may wait before it is begun.
    #[serde(default)]
    pub command_valid: Option<Spanned<Time>>,
}

/// `[http]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Role of those on this machine who have not signed in: `"none"`, `"viewer"`, `"operator"`, `"engineer"` or `"admin"`.
    #[serde(default)]
    pub loopback: Option<Spanned<String>>,
    /// The same of those elsewhere.
    #[serde(default)]
    pub remote: Option<Spanned<String>>,
    /// A session that is not used for this long is forgotten.
    #[serde(default)]
    pub session: Option<Spanned<Time>>,
    /// Host names of this gateway, beside `localhost`: who asks from this machine under another name is not taken for somebody here.
    #[serde(default)]
    pub names: Vec<Spanned<String>>,
    /// Proxies, as `"127.0.0.1"` or `"10.0.0.0/8"`, that say in a header where a client is. Nobody else is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Spanned<String>>,
    /// Serves over TLS: `{ certificate = "gateway.pem", key = "gateway.key" }`, or `{ self_signed = true }`.
    #[serde(default)]
    pub tls: Option<Spanned<HttpTls>>,
    /// Serves without TLS beyond this machine. Passwords and tokens can be read on the way, and an alarm says so.
    #[serde(default)]
    pub unencrypted: Option<Spanned<bool>>,
}

/// `http.tls`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTls {
    /// Our certificate, with those between it and its authority, PEM.
    #[serde(default)]
    pub certificate: Option<Spanned<String>>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<Spanned<String>>,
    /// Makes a certificate and a key in `state_dir`, once.
    #[serde(default)]
    pub self_signed: Option<Spanned<bool>>,
}

/// `[mqtt]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `host:port`, `mqtts://host:port`.
    #[serde(default)]
    pub broker: Option<Spanned<String>>,
    /// Several, the preferred one first.
    #[serde(default)]
    pub brokers: Vec<Spanned<String>>,
    /// `"5"` or `"3.1.1"`; when nothing is said 5, and 3.1.1 with a broker that knows no other.
    #[serde(default)]
    pub version: Option<Spanned<String>>,
    /// Whether birth and last will are retained; `false` for a broker that keeps nothing and cannot say so (3.1.1).
    #[serde(default)]
    pub retain: Option<bool>,
    /// Certificates for `mqtts://`.
    #[serde(default)]
    pub tls: Option<Spanned<Tls>>,
    /// `"json"` or `"cbor"`.
    #[serde(default)]
    pub encoding: Option<Spanned<String>>,
    /// Nobody wants a message any more that is older than this (MQTT 5).
    #[serde(default)]
    pub expiry: Option<Spanned<Time>>,
    /// User properties of every message (MQTT 5).
    #[serde(default)]
    pub properties: std::collections::BTreeMap<String, Spanned<String>>,
    /// A Sparkplug B edge node, in place of our own messages.
    #[serde(default)]
    pub sparkplug: Option<Spanned<Sparkplug>>,
    /// Commands that are taken; without it none is.
    #[serde(default)]
    pub commands: Option<Spanned<Commands>>,
    /// What goes first after an outage: `"live-first"` or `"in-order"`.
    #[serde(default)]
    pub replay: Option<Spanned<String>>,
    /// Messages a second that are sent of what waited, at most.
    #[serde(default)]
    pub replay_rate: Option<Spanned<f64>>,
    /// What one message holds: `"tag"`, one value, or `"device"`, what changed in one poll of a device.
    #[serde(default)]
    pub payload: Option<Spanned<String>>,
    /// Topic template.
    #[serde(default)]
    pub topic: Option<Spanned<String>>,
    /// Topic of birth and last will.
    #[serde(default)]
    pub status_topic: Option<Spanned<String>>,
    /// MQTT keep-alive.
    #[serde(default)]
    pub keep_alive: Option<Spanned<Time>>,
    /// An unchanged value is sent again after this long.
    #[serde(default)]
    pub heartbeat: Option<Spanned<Time>>,
    /// Messages on their way at once: 1000 when nothing is said, or as many as the broker allows.
    #[serde(default)]
    pub window: Option<Spanned<u16>>,
    /// Memory for samples that wait for the broker.
    #[serde(default)]
    pub spool: Option<Spanned<Size>>,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password or token.
    #[serde(default)]
    pub password_file: Option<Spanned<String>>,
    /// Credential of systemd with the password or token: `LoadCredential=` in the unit.
    #[serde(default)]
    pub password_credential: Option<Spanned<String>>,
}

/// `[mqtt.sparkplug]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sparkplug {
    /// Group id.
    pub group: Spanned<String>,
    /// Edge node id; the gateway's name when nothing is said.
    #[serde(default)]
    pub node: Option<Spanned<String>>,
    /// Primary host: without its word nothing is published.
    #[serde(default)]
    pub primary_host: Option<Spanned<String>>,
    /// The alarms that stand, as a DataSet of the node. Not every host can read a birth with one.
    #[serde(default)]
    pub alarms: bool,
    /// Each profile is a template, and each device an instance of its own.
    #[serde(default)]
    pub templates: bool,
}

/// `[mqtt.commands]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Topic before `/write` and `/order`.
    #[serde(default)]
    pub topic: Option<Spanned<String>>,
    /// Tags that may be written, `device/tag` with `*`.
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    /// Whether orders are taken.
    #[serde(default)]
    pub orders: Option<Spanned<bool>>,
    /// Commands a second, at most.
    #[serde(default)]
    pub rate: Option<Spanned<f64>>,
}

/// `[spool]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// Where it is, relative to this file.
    pub directory: Spanned<String>,
    /// Bytes on disk.
    #[serde(default)]
    pub size: Option<Spanned<Size>>,
    /// Older messages are dropped.
    #[serde(default)]
    pub age: Option<Spanned<Time>>,
    /// What goes first when it is full: `"oldest"`, `"thin"` or `"drop-low-priority"`.
    #[serde(default)]
    pub retention: Option<Spanned<String>>,
    /// With `"thin"`, one record in so many is kept.
    #[serde(default)]
    pub keep: Option<Spanned<u32>>,
    /// Bytes of the disk that telemetry cannot take from the store in `state_dir`.
    #[serde(default)]
    pub reserve: Option<Spanned<Size>>,
}

/// `[floor]`: a floor file, or the small floor of one aisle and one cell.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The floor file, relative to this one: aisles, belts, stations, roads, robots.
    #[serde(default)]
    pub file: Option<Spanned<String>>,
    /// Of the small floor: tiers of the aisle.
    #[serde(default)]
    pub tiers: Option<Spanned<u16>>,
    /// Of the small floor: bays on each side of a tier.
    #[serde(default)]
    pub bays_per_side: Option<Spanned<u16>>,
    /// Orders that are not ended, at most; 1000 when nothing is said.
    #[serde(default)]
    pub orders: Option<Spanned<u32>>,
    /// Take a floor of which not everything can be proven. It shows as an alarm.
    #[serde(default)]
    pub unproven: Option<Spanned<bool>>,
}

/// `[[line]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its name in logs and metrics.
    pub name: Spanned<String>,
    /// Modbus: `host:port`, `tls://host:port`, `rtu-over-tcp://host:port`, or a serial port, as in `/dev/ttyUSB0`.
    #[serde(default)]
    pub modbus: Option<Spanned<String>>,
    /// Settings of a serial port.
    #[serde(default)]
    pub serial: Option<Spanned<Serial>>,
    /// Certificates of a `tls://` line.
    #[serde(default)]
    pub tls: Option<Spanned<Tls>>,
    /// Requests on their way at once, where every device behind the line takes that.
    #[serde(default)]
    pub pipeline: Option<Spanned<u8>>,
    /// Pause between a reply and the next request.
    #[serde(default)]
    pub pause: Option<Spanned<Time>>,
    /// Whether the connection is given up behind each poll, and made for the next: where the device serves one client at a time.
    #[serde(default)]
    pub close_after_poll: Option<Spanned<bool>>,
    /// `opc.tcp://` endpoint of an OPC UA server.
    #[serde(default)]
    pub opcua: Option<Spanned<String>>,
    /// OPC UA security, such as `"Basic256Sha256/SignAndEncrypt"`; `"none"` has to be said.
    #[serde(default)]
    pub security: Option<Spanned<String>>,
    /// Whether the OPC UA server's certificate must name the host.
    #[serde(default)]
    pub check_host: Option<Spanned<bool>>,
    /// OPC UA user.
    #[serde(default)]
    pub username: Option<Spanned<String>>,
    /// File with the user's password.
    #[serde(default)]
    pub password_file: Option<Spanned<String>>,
    /// Certificate of an OPC UA user.
    #[serde(default)]
    pub user_certificate: Option<Spanned<String>>,
    /// Its private key.
    #[serde(default)]
    pub user_key: Option<Spanned<String>>,
    /// What kind of OPC UA server it is, such as `"s7-1200"`.
    #[serde(default)]
    pub vendor: Option<Spanned<String>>,
    /// Time to connect, and for one reply.
    #[serde(default)]
    pub timeout: Option<Spanned<Time>>,
    /// How often the command blocks are written although nothing changed.
    #[serde(default)]
    pub heartbeat: Option<Spanned<Time>>,
    /// OPC UA publishing interval.
    #[serde(default)]
    pub publishing: Option<Spanned<Time>>,
    /// The units on it.
    #[serde(default, rename = "device")]
    pub devices: Vec<Device>,
}

/// `line.serial`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// Bits a second.
    pub baud: Spanned<u32>,
    /// `"none"`, `"even"` or `"odd"`.
    #[serde(default)]
    pub parity: Option<Spanned<String>>,
    /// 1 or 2.
    #[serde(default)]
    pub stop_bits: Option<Spanned<u8>>,
}

/// `line.tls`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates that may sign the device's, PEM.
    pub ca: Spanned<String>,
    /// Our own certificate, PEM.
    #[serde(default)]
    pub certificate: Option<Spanned<String>>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<Spanned<String>>,
    /// The name in the device's certificate, if it is not the host of the address.
    #[serde(default)]
    pub name: Option<String>,
}

/// `[[line.device]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `{device}` in topics.
    pub name: Spanned<String>,
    /// ISA-95 cell, `{cell}` in topics.
    pub cell: Spanned<String>,
    /// Modbus unit id.
    #[serde(default)]
    pub unit: Option<Spanned<u8>>,
    /// Profile file, relative to this one.
    #[serde(default)]
    pub profile: Option<Spanned<String>>,
    /// The machine that the profile's `[[machine]]` without a name is, or the first of several: `"robot-1"`.
    #[serde(default)]
    pub machine: Option<Spanned<String>>,
    /// Tag table (CSV), relative to this one.
    #[serde(default)]
    pub tags: Option<Spanned<String>>,
    /// Order of words and bytes of this device.
    #[serde(default)]
    pub order: Option<Spanned<String>>,
    /// Whether it answers as another unit (0 and 255 are common) or with transaction 0: what comes while its request is open is its reply.
    #[serde(default)]
    pub foreign_replies: Option<Spanned<bool>>,
}

/// A profile file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// How often its tags are read, unless a tag says otherwise.
    #[serde(default)]
    pub interval: Option<Spanned<Time>>,
    /// Order of words and bytes, unless a tag says otherwise: `"ABCD"`, `"CDAB"`, `"BADC"` or `"DCBA"`.
    #[serde(default)]
    pub order: Option<Spanned<String>>,
    /// What the device says when it has no value, for all tags of the width; a tag may say otherwise: `"0x8000"`, `"sunspec"`.
    #[serde(default)]
    pub absent: Option<Spanned<Vec<String>>>,
    /// What the device takes in one request, and what it does not take.
    #[serde(default)]
    pub limits: Limits,
    /// Machines whose blocks it holds.
    #[serde(default, rename = "machine")]
    pub machines: Vec<Machine>,
    /// Load sensors.
    #[serde(default)]
    pub sensors: Option<Sensors>,
    /// Values.
    #[serde(default, rename = "tag")]
    pub tags: Vec<Tag>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Registers in one read.
    #[serde(default)]
    pub registers: Option<Spanned<u16>>,
    /// Bits in one read.
    #[serde(default)]
    pub bits: Option<Spanned<u16>>,
    /// Registers read and thrown away rather than asking twice.
    #[serde(default)]
    pub gap: Option<Spanned<u16>>,
    /// Each value is asked for on its own.
    #[serde(default)]
    pub one_by_one: Option<Spanned<bool>>,
    /// Never read, not even in passing: `"holding:100..120"`.
    #[serde(default)]
    pub never: Vec<Spanned<String>>,
    /// The device knows functions 15 and 16 only, not 5 and 6.
    #[serde(default)]
    pub multiple_writes_only: Option<Spanned<bool>>,
    /// The device knows function 22: parts of a register can be written, and their neighbours stay.
    #[serde(default)]
    pub mask_write: Option<Spanned<bool>>,
}

/// `[[machine]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `shuttle-1` .., `lift`, `cell`, `a1.shuttle-1`, `robot-1`; without it the device says which.
    #[serde(default)]
    pub name: Option<Spanned<String>>,
    /// So many machines, in the order of the floor; their blocks stand one behind another.
    #[serde(default)]
    pub count: Option<Spanned<u16>>,
    /// Where the status block is, or the first of several: address or node; in a node `{machine}` is the machine's name.
    pub status: Spanned<String>,
    /// Where the command block is, or the first of several.
    pub command: Spanned<String>,
}

/// `[sensors]`: the load at each position of the aisles and stations whose machines the device has, in the order of the floor.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sensors {
    /// Modbus: register of the first position; each position has two.
    #[serde(default)]
    pub first: Option<Spanned<String>>,
    /// OPC UA: the node of each position, with its name for `{position}`.
    #[serde(default)]
    pub node: Option<Spanned<String>>,
    /// The first position by its name, where the device has no machine there, as `"dock-entry"`.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// So many positions; all of its aisle, station or belt when nothing is said.
    #[serde(default)]
    pub count: Option<Spanned<u16>>,
    /// How often bays are read; all other positions are read with the machines.
    #[serde(default)]
    pub bays: Option<Spanned<Time>>,
}

/// `[[tag]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// `{tag}` in topics.
    pub name: Spanned<String>,
    /// Modbus address.
    #[serde(default)]
    pub address: Option<Spanned<String>>,
    /// Modbus type.
    #[serde(default, rename = "type")]
    pub kind: Option<Spanned<String>>,
    /// Order of words and bytes.
    #[serde(default)]
    pub order: Option<Spanned<String>>,
    /// value = raw x factor + offset
    #[serde(default)]
    pub factor: Option<Spanned<f64>>,
    /// value = raw x factor + offset
    #[serde(default)]
    pub offset: Option<Spanned<f64>>,
    /// The tag that says by which power of ten this one is multiplied (SunSpec scale factor): an `i16` of the same file.
    #[serde(default)]
    pub scale_from: Option<Spanned<String>>,
    /// Smaller values are shown as this, and are Uncertain.
    #[serde(default)]
    pub min: Option<Spanned<Exact>>,
    /// Greater values are shown as this, and are Uncertain.
    #[serde(default)]
    pub max: Option<Spanned<Exact>>,
    /// What the device says when it has no value: raw bits (`"0x80000000"`), a number (`"-32768"`), `"sunspec"` or `"sunspec-acc"`.
    #[serde(default)]
    pub absent: Option<Spanned<Vec<String>>>,
    /// Whoever may write it, may write this.
    #[serde(default)]
    pub write: Option<Spanned<Write>>,
    /// OPC UA node; `{device}` in it is the device's name.
    #[serde(default)]
    pub node: Option<Spanned<String>>,
    /// How often the OPC UA server looks for changes; with `poll`, how often the node is read.
    #[serde(default)]
    pub sampling: Option<Spanned<Time>>,
    /// Changes smaller than this are not sent, in the unit of the value.
    #[serde(default)]
    pub deadband: Option<Spanned<f64>>,
    /// The same, in percent of the range that the OPC UA server knows, or else of `low` to `high`.
    #[serde(default)]
    pub deadband_percent: Option<Spanned<f64>>,
    /// Changes the OPC UA server keeps between two publishings.
    #[serde(default)]
    pub queue: Option<Spanned<u32>>,
    /// Read the node in turn instead of subscribing to it.
    #[serde(default)]
    pub poll: Option<Spanned<bool>>,
    /// How often it is read.
    #[serde(default)]
    pub interval: Option<Spanned<Time>>,
    /// The stream of its messages: `"high"`, `"normal"` or `"low"`.
    #[serde(default)]
    pub priority: Option<Spanned<String>>,
    /// Unit of the value, for people: `"bar"`, `"°C"`.
    #[serde(default)]
    pub unit: Option<Spanned<String>>,
    /// The tag in words.
    #[serde(default)]
    pub description: Option<Spanned<String>>,
    /// Lower end of the range that displays show; says nothing of what is good.
    #[serde(default)]
    pub low: Option<Spanned<f64>>,
    /// Upper end of that range.
    #[serde(default)]
    pub high: Option<Spanned<f64>>,
}

/// `tag.write`: without it nobody outside may write the tag.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// Smallest value taken.
    #[serde(default)]
    pub min: Option<Exact>,
    /// Greatest value taken.
    #[serde(default)]
    pub max: Option<Exact>,
    /// At most one write in this time.
    #[serde(default)]
    pub every: Option<Time>,
    /// Higher goes first, 0 to 255.
    #[serde(default)]
    pub priority: u8,
    /// Whether it is read back; it is, unless this says false.
    #[serde(default)]
    pub verify: Option<bool>,
    /// A part of a register is written by reading the register and writing all of it, where the device has no function 22.
    #[serde(default)]
    pub read_modify_write: bool,
}
