//! What the telemetry's tables mean: `[mqtt]` and `[spool]`.

use super::plan::{Broker, Login, MqttPlan, Payload, Secret, SpoolPlan};
use super::raw;
use super::report::{Problem, Source};
use super::topics::{STATUS_TOPIC, check_template, expand, levels, topic_level, unfit};
use super::values::{Size, Spanned, host_port, no_home, within};
use crate::commands::CommandPlan;
use crate::telemetry::mqtt::wire::Version;
use crate::telemetry::payload::Encoding;
use crate::telemetry::sparkplug::NodePlan;
use crate::telemetry::spool::{Replay, Retention};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// An unchanged value is sent again after this long; more often than it is read it cannot be.
const RESEND: Duration = Duration::from_secs(30);
const RESEND_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 86_400);
/// Where commands come in when nothing is said.
const COMMAND_TOPIC: &str = "lightsout/{area}/{line}/{gateway}/cmd";
/// What telemetry's topics begin with when nothing is said.
const DATA_TOPIC: &str = "lightsout/{area}/{line}/";
/// Commands a second when nothing is said.
const COMMAND_RATE: f64 = 20.0;
/// The shortest keep-alive: below it a network that only hesitates looks like one that is gone.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Messages on their way at once when nothing is said; the broker's Receive Maximum may be less. On a link of 100 ms this is 10,000 a second.
const WINDOW: u16 = 1000;
/// What a spool in memory holds, and one on disk, when nothing is said.
const SIZE: (u64, u64) = (64 << 20, 512 << 20);
/// Kept for the store when nothing is said: some ten thousand orders.
const RESERVE: u64 = 4 << 20;
/// Thinning keeps one record in so many when nothing is said.
const KEEP: u32 = 4;

/// A text that is one of several.
fn choice<T: Copy + Default>(
    source: &Source,
    given: Option<&Spanned<String>>,
    title: &str,
    choices: &[(&str, T)],
    problems: &mut Vec<Problem>,
) -> T {
    let Some(given) = given else { return T::default() };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name == given.get_ref()) {
        return *value;
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let label = format!("found \"{}\", expected {}", given.get_ref(), names.join(" or "));
    problems.push(source.problem(given.span(), title, label));
    T::default()
}

pub(super) fn mqtt(source: &Source, m: &raw::Mqtt, raw: &raw::Config, problems: &mut Vec<Problem>) -> MqttPlan {
    let payloads = [("tag", Payload::Tag), ("device", Payload::Device)];
    let payload = choice(source, m.payload.as_ref(), "unknown payload", &payloads, problems);
    let encodings = [("json", Encoding::Json), ("cbor", Encoding::Cbor)];
    let encoding = choice(source, m.encoding.as_ref(), "unknown encoding", &encodings, problems);
    let versions = [("5", Version::V5), ("3.1.1", Version::V311)];
    let version = choice(source, m.version.as_ref(), "unknown version of MQTT", &versions, problems);
    let replays = [("live-first", Replay::LiveFirst), ("in-order", Replay::InOrder)];
    let replay = choice(source, m.replay.as_ref(), "unknown order of replay", &replays, problems);

    let keep_alive = within(source, &m.keep_alive, Duration::from_secs(5), KEEP_ALIVE.0..=KEEP_ALIVE.1, problems);
    let window = m.window.as_ref().map_or(WINDOW, |w| *w.get_ref());
    if window == 0 || window > 1000 {
        let span = m.window.as_ref().map_or(0..0, Spanned::span);
        problems.push(source.problem(span, "this window is out of range", "must be 1 to 1000"));
    }
    if let Some(rate) = m.replay_rate.as_ref().filter(|r| !(1.0..=1e6).contains(r.get_ref())) {
        problems.push(source.problem(
            rate.span(),
            "this rate is out of range",
            "must be 1.0 to 1000000.0 messages a second",
        ));
    }
    if version == Version::V311 {
        let five = [m.expiry.as_ref().map(Spanned::span), m.properties.values().next().map(Spanned::span)];
        for span in five.into_iter().flatten() {
            problems.push(source.problem(span, "MQTT 3.1.1 has no such thing", "this needs version = \"5\""));
        }
    }
    topics(source, m, &raw.gateway, payload, problems);
    for (name, value) in &m.properties {
        if let Some(label) = unfit(name).or_else(|| unfit(value.get_ref())) {
            problems.push(source.problem(value.span(), "this property cannot be sent", label));
        }
    }
    let status_template = m.status_topic.as_ref().map_or(STATUS_TOPIC, |t| t.get_ref());
    let status_topic = expand(status_template, &levels(raw, "", "", ""));
    let loss_topic = format!("{}/lost", status_topic.trim_end_matches("/status"));
    let brokers = brokers(source, m, raw, problems);
    let files = m.tls.as_ref().map(|t| super::modbus::tls_files(source, t.get_ref(), problems));
    MqttPlan {
        tls: files,
        brokers,
        version,
        // What MQTT 5 alone has is wanted: then it is better to say that the broker does not have it.
        falls_back: m.version.is_none() && m.expiry.is_none() && m.properties.is_empty(),
        retain: m.retain.unwrap_or(true),
        client_id: raw.gateway.name.get_ref().clone(),
        status_topic,
        loss_topic,
        payload,
        keep_alive,
        heartbeat: within(source, &m.heartbeat, RESEND, RESEND_RANGE, problems),
        window,
        encoding,
        expiry: m.expiry.as_ref().map(|e| e.get_ref().0),
        properties: m.properties.iter().map(|(name, value)| (name.clone(), value.get_ref().clone())).collect(),
        replay,
        replay_rate: m.replay_rate.as_ref().map(|r| *r.get_ref()),
        login: login(source, m, problems),
        spool: spool(source, m, raw, problems),
        sparkplug: m.sparkplug.as_ref().map(|s| sparkplug(source, s.get_ref(), m, raw, problems)),
        commands: m.commands.as_ref().map(|c| commands(source, c.get_ref(), m, raw, problems)),
    }
}

fn sparkplug(
    source: &Source,
    table: &raw::Sparkplug,
    m: &raw::Mqtt,
    raw: &raw::Config,
    problems: &mut Vec<Problem>,
) -> NodePlan {
    for id in [Some(&table.group), table.node.as_ref(), table.primary_host.as_ref()].into_iter().flatten() {
        topic_level(source, id, problems);
    }
    let ours = [&m.payload, &m.encoding, &m.topic, &m.status_topic].into_iter().flatten().next();
    if let Some(given) = ours {
        let label = "Sparkplug has topics and payloads of its own";
        problems.push(source.problem(given.span(), "this key has no effect", label));
    }
    let beside = |dir: &str| source.path.parent().map_or_else(|| PathBuf::from(dir), |p| p.join(dir));
    NodePlan {
        group: table.group.get_ref().clone(),
        node: table.node.as_ref().unwrap_or(&raw.gateway.name).get_ref().clone(),
        primary_host: table.primary_host.as_ref().map(|h| h.get_ref().clone()),
        has_others: m.brokers.len() > 1,
        alarms: table.alarms,
        templates: table.templates,
        memory: raw.gateway.state_dir.as_ref().map(|dir| beside(dir.get_ref()).join("sparkplug-bdseq")),
    }
}

fn commands(
    source: &Source,
    table: &raw::Commands,
    m: &raw::Mqtt,
    raw: &raw::Config,
    problems: &mut Vec<Problem>,
) -> CommandPlan {
    if let Some(topic) = &table.topic {
        check_template(source, topic, &raw.gateway, &[], &["{gateway}"], problems);
    }
    let template = table.topic.as_ref().map_or(COMMAND_TOPIC, |t| t.get_ref());
    let levels = levels(raw, "", "", "");
    let topic = expand(template, &levels);
    for pattern in table.allow.iter().filter(|p| !p.get_ref().contains('/')) {
        let label = "expected device/tag, as in \"press-1/speed\" or \"press-1/*\"";
        problems.push(source.problem(pattern.span(), "this names no tag", label));
    }
    let orders = table.orders.as_ref().is_some_and(|o| *o.get_ref());
    if let (Some(given), true, None) = (&table.orders, orders, &raw.floor) {
        problems.push(source.problem(given.span(), "this gateway takes no orders", "the configuration has no [floor]"));
    }
    let rate = table.rate.as_ref().map_or(COMMAND_RATE, |r| *r.get_ref());
    if let Some(given) = table.rate.as_ref().filter(|_| !(0.01..=1000.0).contains(&rate)) {
        problems.push(source.problem(
            given.span(),
            "this rate is out of range",
            "must be 0.01 to 1000.0 commands a second",
        ));
    }
    // What stands before the first level that differs from message to message.
    let ours = |template: &str| {
        let fixed = ["{cell}", "{device}", "{tag}"].iter().filter_map(|l| template.find(l)).min();
        expand(template.get(..fixed.unwrap_or(template.len())).unwrap_or(template), &levels)
    };
    let status = m.status_topic.as_ref().map_or(STATUS_TOPIC, |t| t.get_ref());
    let data = m.topic.as_ref().map_or(DATA_TOPIC, |t| t.get_ref());
    let own = [topic.clone(), ours(status.trim_end_matches("/status")), ours(data), "spBv1.0/".into(), "STATE/".into()];
    let own = own.into_iter().filter(|prefix| !prefix.is_empty()).collect();
    let allow = table.allow.iter().map(|p| p.get_ref().clone()).collect();
    CommandPlan { topic, allow, orders, rate, own }
}

fn topics(source: &Source, m: &raw::Mqtt, gateway: &raw::Gateway, payload: Payload, problems: &mut Vec<Problem>) {
    if let Some(topic) = &m.topic {
        match payload {
            Payload::Tag => {
                let (levels, needed) = (["cell", "device", "tag"], ["{device}", "{tag}"]);
                check_template(source, topic, gateway, &levels, &needed, problems);
            }
            Payload::Device => check_template(source, topic, gateway, &["cell", "device"], &["{device}"], problems),
        }
    }
    if let Some(topic) = &m.status_topic {
        check_template(source, topic, gateway, &[], &[], problems);
    }
}

fn brokers(source: &Source, m: &raw::Mqtt, raw: &raw::Config, problems: &mut Vec<Problem>) -> Vec<Broker> {
    let all: Vec<&Spanned<String>> = m.broker.iter().chain(&m.brokers).collect();
    if let (Some(_), Some(many)) = (&m.broker, m.brokers.first()) {
        problems.push(source.problem(many.span(), "brokers stand twice", "give `broker` or `brokers`, not both"));
    }
    if all.is_empty() {
        let span = raw.gateway.name.span();
        let problem = source.problem(span, "[mqtt] has no broker", "this gateway would publish nowhere");
        problems.push(
            problem.help("add broker = \"127.0.0.1:1883\" to [mqtt], or brokers = [\"mqtts://a:8883\", \"b:1883\"]"),
        );
    }
    let mut brokers = Vec::new();
    for text in all {
        let (scheme, rest) = text.get_ref().split_once("://").unwrap_or(("mqtt", text.get_ref()));
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "tls" | "ssl" => true,
            other => {
                let label = format!("found \"{other}://\", expected mqtt:// or mqtts://");
                problems.push(source.problem(text.span(), "unknown way to a broker", label));
                continue;
            }
        };
        let (host, port) = host_port(source, &Spanned::new(text.span(), rest.to_string()), problems);
        if tls && m.tls.is_none() {
            let problem =
                source.problem(text.span(), "a broker with TLS needs certificates", "there is no `tls` table");
            problems
                .push(problem.help("add tls = { ca = \"ca.pem\" } to [mqtt]; with certificate and key for mutual TLS"));
        }
        brokers.push(Broker { host, port, tls });
    }
    if let Some(tls) = m.tls.as_ref().filter(|_| !brokers.is_empty() && brokers.iter().all(|b| !b.tls)) {
        let label = "no broker uses TLS: write \"mqtts://host:port\"";
        problems.push(source.problem(tls.span(), "this table has no effect", label));
    }
    brokers
}

fn login(source: &Source, m: &raw::Mqtt, problems: &mut Vec<Problem>) -> Option<Login> {
    let beside = |file: &str| source.path.parent().map_or_else(|| PathBuf::from(file), |dir| dir.join(file));
    let secret = match (&m.password_file, &m.password_credential) {
        (None, None) => None,
        (Some(file), None) => Some((Secret::File(beside(file.get_ref())), file.span())),
        (None, Some(name)) => {
            if name.get_ref().is_empty() || name.get_ref().contains('/') {
                problems.push(source.problem(
                    name.span(),
                    "this is no credential",
                    "a name without `/`, as in the unit",
                ));
            }
            Some((Secret::Credential(name.get_ref().clone()), name.span()))
        }
        (Some(_), Some(name)) => {
            let label = "give `password_file` or `password_credential`, not both";
            problems.push(source.problem(name.span(), "the password stands twice", label));
            None
        }
    };
    let Some(user) = m.username.clone() else {
        if let Some((_, span)) = secret {
            problems.push(source.problem(span, "a password without a user", "add `username = ..`"));
        }
        return None;
    };
    // A credential is there when systemd starts us; a file can be looked at now.
    if let Some((secret @ Secret::File(_), span)) = &secret
        && let Err(why) = secret.read()
    {
        problems.push(source.problem(span.clone(), "cannot read the password", why));
    }
    Some(Login { user, secret: secret.map(|(secret, _)| secret) })
}

fn spool(source: &Source, m: &raw::Mqtt, raw: &raw::Config, problems: &mut Vec<Problem>) -> SpoolPlan {
    let size = |given: Option<&Spanned<Size>>,
                default: u64,
                least: u64,
                most: u64,
                what: &str,
                problems: &mut Vec<Problem>| {
        let Some(given) = given else { return default };
        let bytes = given.get_ref().0;
        if !(least..=most).contains(&bytes) {
            let shown = |n: u64| match n {
                n if n >= 1 << 40 => format!("{}TiB", n >> 40),
                n if n >= 1 << 30 => format!("{}GiB", n >> 30),
                n => format!("{}MiB", n >> 20),
            };
            let label = format!("must be {} to {}", shown(least), shown(most));
            problems.push(source.problem(given.span(), what, label));
        }
        bytes
    };
    let out_of_range = "this spool is out of range";
    let Some(table) = &raw.spool else {
        let capacity = size(m.spool.as_ref(), SIZE.0, 1 << 20, 16 << 30, out_of_range, problems);
        let (retention, age) = (Retention::Oldest, Duration::MAX);
        return SpoolPlan { directory: None, capacity, age, retention, reserve: 0 };
    };
    let spool = table.get_ref();
    if let Some(given) = &m.spool {
        let label = "[spool] has a directory: say `size` there";
        problems.push(source.problem(given.span(), "the spool's size stands twice", label));
    }
    let capacity = size(spool.size.as_ref(), SIZE.1, 1 << 20, 1 << 42, out_of_range, problems);
    let reserve = size(spool.reserve.as_ref(), RESERVE, 0, 1 << 30, "this reserve is out of range", problems);
    let age = spool.age.as_ref().map_or(Duration::MAX, |a| a.get_ref().0);
    if let Some(given) = spool.age.as_ref().filter(|_| age < Duration::from_secs(60)) {
        problems.push(source.problem(
            given.span(),
            "this age is too short",
            "must be 1min or more: shorter is no spool",
        ));
    }
    let keep = spool.keep.as_ref().map_or(KEEP, |k| *k.get_ref());
    if let Some(given) = spool.keep.as_ref().filter(|_| !(2..=1000).contains(&keep)) {
        problems.push(source.problem(
            given.span(),
            "this thins nothing",
            "must be 2 to 1000: one record in so many is kept",
        ));
    }
    let retention = match spool.retention.as_ref().map(|r| (r.get_ref().as_str(), r.span())) {
        None | Some(("oldest", _)) => Retention::Oldest,
        Some(("thin", _)) => Retention::Thin(keep),
        Some(("drop-low-priority", _)) => Retention::DropLowPriority,
        Some((other, span)) => {
            let label = format!("found \"{other}\", expected \"oldest\", \"thin\" or \"drop-low-priority\"");
            problems.push(source.problem(span, "unknown retention", label));
            Retention::Oldest
        }
    };
    if let Some(given) = spool.keep.as_ref().filter(|_| !matches!(retention, Retention::Thin(_))) {
        problems.push(source.problem(given.span(), "this key has no effect", "it belongs to retention = \"thin\""));
    }
    no_home(source, &spool.directory, problems);
    let directory = source.path.parent().map_or_else(PathBuf::new, PathBuf::from).join(spool.directory.get_ref());
    SpoolPlan { directory: Some(directory), capacity, age, retention, reserve }
}
