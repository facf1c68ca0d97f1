//! `edge-agent check FILE` and `edge-agent plan FILE`: what is wrong with a configuration, and what it will cost.

use super::look::{BAD, GOOD, WARN, styled};
use super::{Done, Failure};
use super::{proof, reach};
use crate::config::{self, DriverPlan, Plan};
use crate::forecast::forecast;
use device_drivers::modbus::Modbus;
use serde_json::json;
use std::fmt::Write;
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
        reached = reach::all(&plan)?;
        for tried in &reached {
            let word = if tried.is_reached { styled(GOOD, "reached") } else { styled(BAD, "NOT reached") };
            say!(out, "  {word}  {}: {}", tried.peer, tried.said);
        }
    }
    let all = reached.iter().all(|tried| tried.is_reached);
    let lines =
        plan.lines.iter().map(|l| json!({ "name": &*l.name, "peer": l.driver.peer(), "points": l.points.len() }));
    let json = json!({
        "valid": true,
        "gateway": plan.gateway,
        "lines": lines.collect::<Vec<_>>(),
        "floor": plan.floor.as_ref().map(proof::json),
        "notes": plan.notes,
        "advice": plan.advice,
        "reached": reached,
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
    out += &door(plan);
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

/// Where the page is, when it is not where it always is, and by which certificate.
fn door(plan: &Plan) -> String {
    let (mut out, at) = (String::new(), plan.listen);
    match &plan.http.tls {
        Some(files) => match crate::http::tls_files(files) {
            Ok(identity) => {
                let (file, until) = (files.certificate.display(), &identity.says.until);
                say!(out, "  page     https://{at}, certificate {file}, valid until {until}");
                say!(out, "           SHA-256 {}", identity.thumbprint);
            }
            Err(_) if files.is_self_signed && !files.certificate.exists() && !files.key.exists() => {
                say!(
                    out,
                    "  page     https://{at}, certificate {} is made at the first start",
                    files.certificate.display()
                );
            }
            Err(why) if files.is_self_signed => {
                let then = match why.is_damaged {
                    true => "the next start sets it aside and makes another one, which nobody trusts yet",
                    false => "the gateway has one for its next run only if it cannot read it either",
                };
                say!(out, "  page     https://{at}: {}", styled(BAD, &format!("{why}; {then}")));
            }
            Err(why) => say!(out, "  page     https://{at}: {}", styled(BAD, &why.to_string())),
        },
        None if plan.http.is_unencrypted => {
            let said = styled(WARN, "without encryption: passwords and tokens can be read on the way");
            say!(out, "  page     http://{at}, {said}");
        }
        None => {}
    }
    out
}

fn shortened(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown}, and {} more", names.len() - most) } else { shown }
}
