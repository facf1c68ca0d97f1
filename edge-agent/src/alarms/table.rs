//! The one table of alarms: what each means, how much it matters, what to do about it, and when it is raised. It feeds the page, the
//! API, the metric, the README and `configs/prometheus/alerts.yml`.
//!
//! A row is here because a person has to do something (ISA-18.2, 3.1.7); what asks for nothing is a figure or a line in the log.

use super::Watch;
use super::row::{Priority, Raise, Row, row};
use control_core::event::RunState;
use control_core::interlock::Hold;
use device_drivers::{Health, LinkState};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::access::Role;
use crate::certificates::{SOON_DAYS, URGENT_DAYS};
use crate::desk::OrderState;
use crate::field::Refusal;
use crate::telemetry::mqtt::CUT_SHORT;
use crate::telemetry::watchdog;

fn held(w: &Watch<'_>, raise: Raise<'_>, which: fn(Hold) -> bool) {
    for (machine, hold) in &w.held {
        if which(*hold) {
            raise(machine, crate::desk::hold_text(*hold));
        }
    }
}

fn running(w: &Watch<'_>) -> bool {
    w.stages.has_floor && matches!(w.stages.control.run_state(), RunState::Running | RunState::Degraded)
}

fn certificates(w: &Watch<'_>, raise: Raise<'_>, days: std::ops::Range<f64>) {
    for certificate in w.stages.certificates.all().iter().filter(|c| days.contains(&c.days_left)) {
        raise(&certificate.name, format!("{}, {:.1} days from now", certificate.said, certificate.days_left));
    }
}

use Priority::{Critical, High, Low, Medium};

/// Every alarm there is.
pub const TABLE: &[Row] = &[
    row(
        "beat-lost",
        Critical,
        0,
        (
            "No control cycle was completed for a second: machines hold at their watchdogs.",
            "See the log for the reason; restart the service if it does not restart itself. Then read what machines report before acknowledging.",
        ),
        |w, raise| {
            if !w.alive {
                raise("control", "no control cycle was completed for a second".into());
            }
        },
    ),
    row(
        "fenced",
        Critical,
        0,
        (
            "Another gateway has claimed the plant; this one commands nothing any more.",
            "Find out which gateway owns the plant. Stop the one that should not run, then restart the one that should.",
        ),
        |w, raise| {
            if w.stages.control.run_state() == RunState::Fenced {
                raise("control", "a higher owner token was seen".into());
            }
        },
    ),
    row(
        "emergency-stop",
        Critical,
        0,
        (
            "A machine is in emergency stop.",
            "Go there. Release it at the machine when it is safe, switch to AUTO, then acknowledge here.",
        ),
        |w, raise| held(w, raise, |h| h == Hold::EmergencyStop),
    ),
    row(
        "load-twice",
        Critical,
        0,
        (
            "Two positions report the same load: a sensor or a label is wrong, or a load was put by hand.",
            "Look at both positions. Correct the label or the sensor; nothing is moved there before they differ.",
        ),
        |w, raise| {
            for (load, place) in &w.twice {
                raise(&format!("load-{load}"), format!("one of the positions is {place}"));
            }
        },
    ),
    row(
        "machine-fault",
        High,
        0,
        (
            "A machine reports a fault and is not commanded.",
            "Look the fault code up in the machine's manual, mend it, reset the fault at the machine.",
        ),
        |w, raise| held(w, raise, |h| matches!(h, Hold::Fault(_))),
    ),
    row(
        "machine-lost",
        High,
        2,
        (
            "A machine's status cannot be seen: it is treated as occupying all it could have reached.",
            "Check its controller's power and network; if its line is up, check the profile's status address.",
        ),
        |w, raise| {
            if w.up_for > SETTLE {
                held(w, raise, |h| h == Hold::NotSeen);
            }
        },
    ),
    row(
        "line-down",
        High,
        5,
        (
            "A field line has no link: all its tags are Bad, what is behind it waits.",
            "Check cable, switch and power of the peer; edge-agent check --connect says what it finds.",
        ),
        |w, raise| {
            for (name, line) in w.stages.lines.all().iter() {
                if line.state() != LinkState::Up && line.refusal().is_none() {
                    raise(name, "no link".into());
                }
            }
        },
    ),
    row(
        "line-untrusted",
        High,
        0,
        (
            "An OPC UA server's certificate is not trusted, or is not for this server.",
            "The log says which. Compare the thumbprint with the server's own display. If it is the right one: edge-agent pki trust, or Field in the page. A host that it does not name: another endpoint, or check_host = false.",
        ),
        |w, raise| {
            for (name, line) in w.stages.lines.all().iter() {
                if line.refusal() == Some(Refusal::Untrusted) {
                    raise(name, "its certificate is in quarantine, or does not fit".into());
                }
            }
        },
    ),
    row(
        "line-denied",
        High,
        5,
        (
            "An OPC UA server refuses our certificate, our user, or the security we want.",
            "Trust this gateway's certificate at the server, check user and password, compare the security modes.",
        ),
        |w, raise| {
            for (name, line) in w.stages.lines.all().iter() {
                if line.refusal() == Some(Refusal::Denied) {
                    raise(name, "the server refuses us".into());
                }
            }
        },
    ),
    row(
        "beat-late",
        High,
        2,
        (
            "Cycles are late again and again: nothing new is started (DEGRADED).",
            "Run edge-agent doctor. Grant real time, keep other work off the core, or lengthen control.period.",
        ),
        |w, raise| {
            if w.stages.control.run_state() == RunState::Degraded {
                raise("control", "three cycles in a row were late, or one by 100 ms".into());
            }
        },
    ),
    row(
        "needs-acknowledge",
        Medium,
        0,
        (
            "A machine has left AUTO and is back; nothing moves it before a person says so.",
            "Make sure that nobody is in there and nothing lies in the way, then acknowledge the machines.",
        ),
        |w, raise| {
            if running(w) {
                held(w, raise, |h| h == Hold::NeedsAcknowledge);
            }
        },
    ),
    row(
        "robot-jammed",
        High,
        5,
        (
            "A mobile robot does not come nearer to where it is sent, and no way out was found.",
            "Look what stands in its way: a robot that is held, or something on the road. Clear it; the robot goes on by itself.",
        ),
        |w, raise| {
            for robot in w.robots.iter().filter(|r| r.jammed) {
                raise(&robot.name, "no way to its goal was found".into());
            }
        },
    ),
    row(
        "robot-astray",
        High,
        1,
        (
            "A mobile robot says it is where it cannot be: it does not know where it is, or another robot is there. Where it was last known, and what it was given ahead, stays closed to all others.",
            "Go there and see where it stands. Put it right at the robot, then say that it is where it says (POST /api/v1/floor/vehicles/{name}/located), or take it off the floor and say that (../absent).",
        ),
        |w, raise| {
            for (name, why) in w.robots.iter().filter_map(|r| Some((&r.name, r.astray.clone()?))) {
                raise(name, why);
            }
        },
    ),
    row(
        "nobody-comes",
        High,
        10,
        (
            "A load waits to which no mobile robot can come: none that is in order has a way there and on to where the load goes.",
            "Look what is closed on the floor, and which robots are held or astray. Open the way, or bring a robot back; it goes on by itself.",
        ),
        |w, raise| {
            if running(w) {
                for place in &w.nobody_comes {
                    raise(place, "no robot has a way to it and on".into());
                }
            }
        },
    ),
    row(
        "battery-low",
        Medium,
        10,
        (
            "The battery of a mobile robot is too low for anything but the way to a charger.",
            "If it does not charge by itself: look whether the chargers are free and work, or bring the robot to one.",
        ),
        |w, raise| {
            for (name, charge) in w.robots.iter().filter_map(|r| Some((&r.name, r.charge?))) {
                if charge < CHARGE_CRITICAL {
                    raise(name, format!("{:.0} percent left", charge * 100.0));
                }
            }
        },
    ),
    row(
        "domain-degraded",
        High,
        5,
        (
            "A part of the floor is not acted upon: it has not been read whole since the start or since its controller's restart.",
            "Look at its line and at its sensors under Field: every machine and every position there has to be Good.",
        ),
        |w, raise| {
            if running(w) {
                for (name, time) in w.unread.iter().filter(|(_, time)| *time > SETTLE) {
                    raise(name, format!("not read for {} s", time.as_secs()));
                }
            }
        },
    ),
    row(
        "floor-unproven",
        Low,
        0,
        (
            "Robots drive on roads of which it is not proven that they never lock; the configuration says unproven = true.",
            "Run edge-agent check: it names the places. Add a loop beside them, or watch robots there.",
        ),
        |w, raise| {
            if let Some(first) = w.unproven.first() {
                let more = w.unproven.len() - 1;
                raise("floor", if more > 0 { format!("{first}; and {more} more") } else { first.clone() });
            }
        },
    ),
    row(
        "machine-blocked",
        Medium,
        10,
        (
            "An interlock keeps a machine from moving: a guard is open, or an axis is blocked.",
            "Close the guard, clear the way. The interlock's name is in the alarm.",
        ),
        |w, raise| held(w, raise, |h| matches!(h, Hold::Interlocked(_))),
    ),
    row(
        "order-held",
        High,
        0,
        (
            "After a restart the plant and the record disagree about an order: nothing is done with its load until a person has decided.",
            "Look where the load is. Then open the order and say whether it goes on from there, is done, or is given up (or: edge-agent order decide).",
        ),
        |w, raise| {
            for order in w.stages.desk.newest(usize::MAX, Some(OrderState::Held)) {
                raise(
                    &format!("order {}", order.id),
                    format!("load {}: {}", order.load, order.reason.unwrap_or_default()),
                );
            }
        },
    ),
    row(
        "orders-failing",
        Medium,
        0,
        (
            "An order was given up in the last five minutes.",
            "Open the order: its story says which machine failed and why. Mend that, then give the order again.",
        ),
        |w, raise| {
            if let Some(count) = w.lately.orders_failed {
                raise("orders", format!("{count} given up"));
            }
        },
    ),
    row(
        "device-silent",
        Medium,
        10,
        (
            "A device does not answer; it is asked less often, its neighbours go on.",
            "Check its power, address and cable; compare its unit id with the configuration.",
        ),
        |w, raise| {
            for device in w.stages.lines.all().iter().flat_map(|(_, l)| &l.devices) {
                if device.health() == Health::Demoted {
                    raise(&device.name, "no answer".into());
                }
            }
        },
    ),
    row(
        "samples-lost",
        Medium,
        0,
        (
            "Messages were lost in the last five minutes; the alarm says for which reasons, the topic `../lost` which messages.",
            "full, age, thinned: bring the broker back, or give the spool more room. damaged, disk: look at the disk. too large, refused: at the broker's limits and access list.",
        ),
        |w, raise| {
            if !w.lately.lost.is_empty() {
                let reasons: Vec<String> = w.lately.lost.iter().map(|(why, count)| format!("{count} {why}")).collect();
                raise("spool", format!("messages lost: {}", reasons.join(", ")));
            }
        },
    ),
    row(
        "delivery-stalled",
        High,
        0,
        (
            "The broker is connected and messages wait, but none has gone for ten seconds.",
            "Look at the broker: is it overloaded, at its quota, out of disk? If it is well, restart the gateway, and report this with its log.",
        ),
        |w, raise| {
            let stalled = Duration::from_millis(w.stages.mqtt.stalled_ms.load(Relaxed));
            if w.publishes && stalled >= watchdog::LIMIT {
                let waiting = w.stages.spool.stats.waiting.load(Relaxed);
                raise("broker", format!("{waiting} messages wait, none has gone for {} s", stalled.as_secs()));
            }
        },
    ),
    row(
        "broker-lost",
        Medium,
        15,
        (
            "The broker is not connected; samples wait in the spool.",
            "Check the broker, the network to it, user and password. Nothing is lost while the spool has room.",
        ),
        |w, raise| {
            if w.publishes && !w.stages.mqtt.connected.load(Relaxed) {
                raise("broker", format!("{} messages wait", w.stages.spool.stats.waiting.load(Relaxed)));
            }
        },
    ),
    row(
        "name-taken",
        High,
        0,
        (
            "Another client uses this gateway's name at the broker: each of the two ends the other's connection.",
            "Find the other one (a copied image, a test program) in the broker's log, and give one of them another `gateway.name`.",
        ),
        |w, raise| {
            let cut = w.stages.mqtt.cut_short.load(Relaxed);
            if let Some(count) = w.lately.taken_over.filter(|count| *count >= TAKEN_OVER) {
                raise("broker", format!("the broker says so: {count} connections were taken over"));
            } else if cut >= CUT_SHORT {
                raise("broker", format!("it may be so: {cut} connections in a row were hung up on after a moment"));
            }
        },
    ),
    row(
        "spool-failing",
        High,
        5,
        (
            "The spool's disk takes nothing: records wait in memory, and are lost if the gateway ends now.",
            "Look at the disk of state_dir: full, read-only, or broken? edge-agent doctor says what it finds.",
        ),
        |w, raise| {
            if w.publishes && w.stages.spool.status().is_failing {
                raise("spool", "writes fail".into());
            }
        },
    ),
    row(
        "users-unreadable",
        High,
        0,
        (
            "The users cannot be read: nobody can sign in. Control goes on.",
            "The alarm names the file and what is wrong with it. Give it back to the gateway (owner of its folder, mode 600), or make the users again with edge-agent user add.",
        ),
        |w, raise| {
            if let Some(why) = &w.no_users {
                raise("users", why.clone());
            }
        },
    ),
    row(
        "passwords-guessed",
        Medium,
        0,
        (
            "Many wrong passwords came within five minutes: somebody may be guessing.",
            "The audit record says for whom and from where (edge-agent audit export --people). Shut that place out at the network; whose password is short should take another one.",
        ),
        |w, raise| {
            if w.missed >= GUESSED {
                raise("sign-in", format!("{} wrong passwords within five minutes", w.missed));
            }
        },
    ),
    row(
        "state-unusable",
        High,
        0,
        (
            "A part of the state folder cannot be used, and is done without: control goes on.",
            "Look at the disk of state_dir and at whose the folder is: edge-agent doctor says what it finds. Then restart the gateway; the spool alone is tried again by itself.",
        ),
        |w, raise| {
            for (part, why) in w.state.unusable() {
                raise(part, why.clone());
            }
            if let Some(why) = w.stages.spool.why_unopened() {
                raise("spool", format!("{why} What waits for the broker is in memory"));
            }
            if w.audit_fails {
                raise(
                    "store",
                    "the store cannot be written: no order is taken, and what people do is in the log only".into(),
                );
            }
        },
    ),
    row(
        "state-damaged",
        Medium,
        0,
        (
            "A file of the state folder could not be read: it was set aside as it is, and the gateway went on without it.",
            "Look at the disk, and whether somebody has been at the folder. Keep the file for whoever finds out; the alarm ends when it is moved out of the folder.",
        ),
        |w, raise| {
            for name in w.state.aside() {
                raise(&name, w.state.said_of(&name).into());
            }
        },
    ),
    row(
        "spool-filling",
        Medium,
        10,
        (
            "The spool, or the disk it is on, is four fifths full: soon the oldest samples are dropped, as retention says.",
            "Bring the broker back, or give the spool more room, and its disk.",
        ),
        |w, raise| {
            let spool = w.stages.spool.status();
            if w.publishes && spool.used_bytes > spool.room_bytes.saturating_mul(4) {
                let full = spool.full_in_s.map_or(String::new(), |s| format!(", full in {:.0} min", s / 60.0));
                raise("spool", format!("{} of {} bytes{full}", spool.used_bytes, spool.used_bytes + spool.room_bytes));
            }
        },
    ),
    row(
        "configuration-refused",
        Medium,
        0,
        (
            "A reload was refused or taken back; the last good configuration is in force.",
            "Run edge-agent check on the file, correct what it says, reload again.",
        ),
        |w, raise| {
            if let Some(why) = &w.refused {
                raise("configuration", why.clone());
            }
        },
    ),
    row(
        "polls-missed",
        Low,
        0,
        (
            "A line does not keep its schedule: for half a minute, more than one poll in ten was not made because those before took too long.",
            "The alarm says how much is asked. Lengthen the interval of what need not be that fresh, raise `pipeline` where the device takes it, or give a slow device a line of its own.",
        ),
        |w, raise| {
            for (name, why) in &w.behind {
                raise(name, why.clone());
            }
        },
    ),
    row(
        "deadband-off",
        Low,
        0,
        (
            "A tag's deadband_percent is not in force, and every change of it is sent: its server knows no range of it (EURange).",
            "Give the tag `low` and `high`, or say `deadband` in the unit of the value.",
        ),
        |w, raise| {
            for (_, line) in w.stages.lines.all().iter() {
                for tag in line.without_deadband.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    raise(tag, "deadband_percent is configured, and not in force".into());
                }
            }
        },
    ),
    row(
        "tags-refused",
        Low,
        60,
        (
            "A device refuses some of its tags; they are Bad, asked for now and then, and the others go on.",
            "Field, quality Bad, shows which and why: correct the address or the type, or take them out.",
        ),
        |w, raise| {
            for (name, line) in w.stages.lines.all().iter() {
                let count = line.quarantined.load(Relaxed);
                if count > 0 {
                    raise(name, format!("{count} tags"));
                }
            }
        },
    ),
    row(
        "no-real-time",
        Low,
        0,
        (
            "The host has not granted real time: the beat is kept as well as the host allows.",
            "Run edge-agent doctor: it names the permission that is missing and the command that grants it.",
        ),
        |w, raise| {
            if w.stages.has_floor && w.wants_realtime && !w.stages.control.realtime.load(Relaxed) {
                raise("control", "running without full real time".into());
            }
        },
    ),
    row(
        "line-insecure",
        Low,
        0,
        (
            "An OPC UA line runs without security: anyone on the network can read and write it.",
            "Give the line `security`, and trust the server's certificate.",
        ),
        |w, raise| {
            for (name, line) in w.stages.lines.all().iter() {
                if line.is_insecure {
                    raise(name, "security = \"none\"".into());
                }
            }
        },
    ),
    row(
        "certificate-ends-soon",
        High,
        0,
        (
            "A certificate runs out within a week, or has: whoever trusts it stops on that day.",
            "Renew it now: a file of ours is read again by itself; a peer's is renewed there; edge-agent pki list shows those of OPC UA.",
        ),
        |w, raise| certificates(w, raise, f64::NEG_INFINITY..URGENT_DAYS),
    ),
    row(
        "certificate-ends",
        Low,
        0,
        (
            "A certificate runs out within a month.",
            "Plan its renewal: a file of ours is read again by itself; a peer's is renewed there; edge-agent pki list shows those of OPC UA.",
        ),
        |w, raise| certificates(w, raise, URGENT_DAYS..SOON_DAYS),
    ),
    row(
        "page-unencrypted",
        Low,
        0,
        (
            "The page and the API are served without TLS beyond this machine: passwords and tokens can be read on the way.",
            "Give [http] a `tls` table, or listen on 127.0.0.1 behind a proxy that has TLS.",
        ),
        |w, raise| {
            if w.stages.http.is_unencrypted {
                raise("http", "unencrypted = true".into());
            }
        },
    ),
    row(
        "page-closed",
        High,
        0,
        (
            "The certificate that [http] names cannot be used: page and API are served to this machine alone. Control and telemetry go on.",
            "The alarm says what is wrong with which file; edge-agent check says whether it is mended. Then restart the gateway.",
        ),
        |w, raise| {
            if let Some(why) = &w.stages.http.closed {
                raise("http", why.clone());
            }
        },
    ),
    row(
        "open-door",
        Low,
        0,
        (
            "Who has not signed in may change the plant.",
            "Make users (edge-agent user add), then set `loopback` and `remote` in [http] to \"viewer\" or \"none\".",
        ),
        |w, raise| {
            let open = |role: Option<Role>| role.is_some_and(|r| r > Role::Viewer);
            for (place, role) in [("loopback", w.access.loopback), ("remote", w.access.remote)] {
                if open(role) {
                    raise(place, format!("role {} without signing in", role.map_or("", Role::name)));
                }
            }
        },
    ),
];

/// Once may be somebody who tries something.
const TAKEN_OVER: u64 = 2;
/// Wrong passwords within five minutes that no shift mistypes.
const GUESSED: u32 = 30;
/// Below this a robot does nothing but drive to a charger, as the core's settings say.
const CHARGE_CRITICAL: f64 = 0.15;
/// What has just started has not failed yet.
const SETTLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_it_means_and_what_to_do() {
        let mut ids: Vec<_> = TABLE.iter().map(|r| r.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len(), "an id stands twice");
        for row in TABLE {
            assert!(row.means.ends_with('.') && row.action.ends_with('.'), "{}", row.id);
            assert!(row.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.id);
        }
    }
}
