//! `edge-agent check FILE` and `edge-agent plan FILE`: what is wrong with a configuration, and what it will cost.

use super::look::{BAD, GOOD, WARN, styled};
use super::proof;
use super::{Done, Failure};
use crate::config::{self, DriverPlan, LinePlan, Plan};
use crate::forecast::forecast;
use device_drivers::dial;
use device_drivers::modbus::{Endpoint, LineSpec, Modbus, probe};
use serde_json::json;
use std::fmt::Write;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

/// Addresses that `check` shows.
const NOTES_MAX: usize = 50;

/// A line of text; into a String it cannot fail.
macro_rules! say {
    ($out:expr, $($text:tt)*) => {{
        let _ = writeln!($out, $($text)*);
    }};
}

fn load(file: &Path) -> Result<Plan, Failure> {
    config::load(file).map_err(|report| Failure::config(&report))
}

pub(super) fn check(file: &Path, connect: bool, json: bool) -> Result<Done, Failure> {
    let plan = load(file)?;
    let mut out = shown(file, &plan);
    let mut reached = Vec::new();
    if connect {
        if !json {
            let _ = std::io::Write::write_all(&mut anstream::stdout(), out.as_bytes()); // reaching takes a while
            out.clear();
        }
        for line in &plan.lines {
            reached.push((format!("line {}", line.name), reach_line(line, &mut out)));
        }
        for broker in plan.mqtt.iter().flat_map(|m| &m.brokers) {
            let at = format!("{}:{}", broker.host, broker.port);
            reached.push((format!("broker {at}"), reach("broker", &at, &mut out)));
        }
    }
    let all = reached.iter().all(|(_, ok)| *ok);
    let lines =
        plan.lines.iter().map(|l| json!({ "name": &*l.name, "peer": l.driver.peer(), "points": l.points.len() }));
    let json = json!({
        "valid": true,
        "gateway": plan.gateway,
        "lines": lines.collect::<Vec<_>>(),
        "floor": plan.floor.as_ref().map(proof::json),
        "notes": plan.notes,
        "advice": plan.advice,
        "reached": reached.iter().map(|(name, ok)| json!({ "peer": name, "reached": ok })).collect::<Vec<_>>(),
    });
    Ok(Done { text: out, json, code: u8::from(!all) })
}

pub(super) fn plan(file: &Path, reply: Duration) -> Result<Done, Failure> {
    let plan = load(file)?;
    let forecast = forecast(&plan, reply);
    let json = serde_json::to_value(&forecast).map_err(|e| e.to_string())?;
    // Verdicts are what the eye looks for.
    let text = format!("{forecast}\n")
        .replace("CANNOT KEEP ITS SCHEDULE", &styled(BAD, "CANNOT KEEP ITS SCHEDULE"))
        .replace("nearly full", &styled(WARN, "nearly full"))
        .replace(" busy, fine", &format!(" busy, {}", styled(GOOD, "fine")));
    Ok(Done { text, json, code: u8::from(!forecast.feasible) })
}

/// What a valid configuration says, in words.
fn shown(file: &Path, plan: &Plan) -> String {
    let mut out = String::new();
    say!(out, "{}", styled(GOOD, &format!("{} is valid", file.display())));
    match &plan.floor {
        Some(floor) => out += &proof::shown(floor),
        None => say!(out, "  floor    none: this gateway gathers and forwards, and moves nothing"),
    }
    for line in &plan.lines {
        let (kind, requests) = match &line.driver {
            DriverPlan::Modbus(spec) => {
                let driver = Modbus::new(spec.clone());
                let mut every = std::collections::BTreeMap::<Duration, usize>::new();
                driver.requests().for_each(|(_, _, period, ..)| *every.entry(period).or_default() += 1);
                let of =
                    |(period, n): (&Duration, &usize)| format!("{n} every {}", humantime::format_duration(*period));
                let text: Vec<String> = every.iter().map(of).collect();
                ("Modbus", format!("requests: {}", text.join(", ")))
            }
            DriverPlan::OpcUa(spec) => {
                let publishing = humantime::format_duration(spec.publishing);
                ("OPC UA", format!("subscription, published every {publishing}"))
            }
        };
        say!(out, "  line     {}: {kind} {}, {} points, {requests}", line.name, line.driver.peer(), line.points.len());
        if let DriverPlan::Modbus(_) = &line.driver {
            let units: Vec<String> = line.devices.iter().map(|d| format!("{} is unit {}", d.name, d.unit)).collect();
            say!(out, "           {}", shortened(&units, 8));
        }
        if let Some(advice) = line.advice() {
            say!(out, "           {advice}");
        }
    }
    for note in plan.notes.iter().take(NOTES_MAX) {
        say!(out, "  address  {note}");
    }
    if plan.notes.len() > NOTES_MAX {
        say!(out, "  address  and {} more that were typed in another form", plan.notes.len() - NOTES_MAX);
    }
    for note in plan.advice.iter().take(NOTES_MAX) {
        say!(out, "  note     {}", styled(WARN, note));
    }
    if plan.advice.len() > NOTES_MAX {
        say!(out, "  note     and {} more", plan.advice.len() - NOTES_MAX);
    }
    match &plan.mqtt {
        Some(mqtt) => {
            let brokers: Vec<String> = mqtt.brokers.iter().map(ToString::to_string).collect();
            say!(out, "  broker   {}, status at {}", brokers.join(", then "), mqtt.status_topic);
            match &mqtt.spool.directory {
                Some(folder) => say!(out, "  spool    {}, {} MiB", folder.display(), mqtt.spool.capacity >> 20),
                None => say!(
                    out,
                    "  spool    in memory, {} MiB: it does not outlive this process",
                    mqtt.spool.capacity >> 20
                ),
            }
        }
        None => say!(out, "  broker   none: nothing is published"),
    }
    out
}

fn shortened(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown}, and {} more", names.len() - most) } else { shown }
}

/// Tries the port, and on Modbus TCP one question to every unit.
fn reach_line(line: &LinePlan, out: &mut String) -> bool {
    let name = format!("line {}", line.name);
    match &line.driver {
        DriverPlan::Modbus(LineSpec { endpoint: Endpoint::Rtu(serial), .. }) => match std::fs::metadata(&serial.path) {
            Ok(_) => {
                say!(
                    out,
                    "  {}  {name} at {} (the port is there; the devices were not asked)",
                    styled(GOOD, "reached"),
                    serial.path
                );
                true
            }
            Err(e) => {
                say!(out, "  {}  {name}: {}: {e}; is the adapter plugged in?", styled(BAD, "NOT reached"), serial.path);
                false
            }
        },
        DriverPlan::Modbus(LineSpec { endpoint: Endpoint::Tcp(at), .. }) => {
            reach(&name, at, out) && {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                    return true;
                };
                let ask = |unit| runtime.block_on(probe(at, unit, Duration::from_secs(2)));
                let silent = line.devices.iter().filter(|device| match ask(device.unit) {
                    Ok(what) => {
                        say!(out, "  {}    {}: {what}", styled(GOOD, "asked"), device.name);
                        false
                    }
                    Err(why) => {
                        say!(out, "  {}  {}: {why}", styled(BAD, "NO ANSWER"), device.name);
                        true
                    }
                });
                silent.count() == 0
            }
        }
        other => reach(&name, &other.peer(), out),
    }
}

/// Tries to connect, and says what came of it.
fn reach(name: &str, peer: &str, out: &mut String) -> bool {
    let limit = Duration::from_secs(2);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return true;
    };
    let result = resolves(peer).and_then(|()| {
        runtime.block_on(dial(peer, limit)).map_err(|e| match e.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("{peer} answers, but nothing listens on this port; is the server switched on there?")
            }
            std::io::ErrorKind::TimedOut => {
                format!("{peer} does not answer within {limit:?}; is it powered, and on this network?")
            }
            _ => format!("{peer}: {e}; check the address, the cable and the switch"),
        })
    });
    match &result {
        Ok(_) => say!(out, "  {}  {name} at {peer} (the port is open)", styled(GOOD, "reached")),
        Err(why) => say!(out, "  {}  {name}: {why}", styled(BAD, "NOT reached")),
    }
    result.is_ok()
}

/// Whether a host name can be looked up right now; the text says why not.
fn resolves(peer: &str) -> Result<(), String> {
    match peer.to_socket_addrs() {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("the name in {peer} cannot be looked up: {e}")),
    }
}
