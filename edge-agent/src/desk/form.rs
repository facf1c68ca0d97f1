//! What an order says when it is handed in, and whether that can be meant.

use crate::store::facts::PROGRAM;
use control_core::limits::STOPS_MAX;
use control_core::order::{Stop, Stops};
use control_core::units::LoadId;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Longest key, and longest name of a tenant or a group.
const KEY_MAX: usize = 64;
/// The longest a due time may lie ahead, milliseconds: as a number of 32 bits holds it.
const DUE_MAX_MS: u128 = u32::MAX as u128;

/// An order as it is handed in over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderForm {
    /// What is wanted with the load.
    pub kind: KindForm,
    /// Which load: the number on its label, 1 and above.
    pub load: u32,
    /// Program of the robot cell, for `process`; 1 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u16>,
    /// Which station, or which of a group of them, for `process`; the first group of the floor when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
    /// Where the load goes one after the other, for `route`: 1 to 4 stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<Vec<StopForm>>,
    /// 0 rush, 1, 2, 3 bulk; 1 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// How long an order waits for a load that is still to come, seconds; for a store order 600 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u32>,
    /// When it shall be done: a time as `2026-11-25T14:00:00Z`, or how long from now, as `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Whose it is: no tenant can fill the table of orders alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Loads of one group leave the rack in the order of their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The number within the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Not begun before this order has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The same key again is the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What is wanted with the load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindForm {
    /// Into the rack.
    Store,
    /// Out of the rack and the plant.
    Retrieve,
    /// Through the robot cell and back.
    Process,
    /// From stop to stop.
    Route,
}

/// A stop of an order.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopForm {
    /// `rack`, `outside`, or a group of stations.
    pub at: String,
    /// Program there; 1 when nothing is said, 0 passes the load through untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u16>,
}

/// What a form asks for.
pub(super) struct Checked {
    pub(super) load: LoadId,
    pub(super) stops: Stops,
    pub(super) wait_ms: u32,
    pub(super) due_ms: u32,
    pub(super) due: Option<SystemTime>,
}

impl Checked {
    /// The due time, RFC 3339.
    pub(super) fn due_text(&self) -> Option<String> {
        self.due.map(due_text)
    }

    /// The same, milliseconds since 1970 UTC.
    pub(super) fn due_at_ms(&self) -> Option<u64> {
        let since = self.due?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }
}

pub(super) fn check(form: &OrderForm, stations: &[String]) -> Result<Checked, String> {
    let load = LoadId::new(form.load).ok_or("load: found 0, expected the number on the load's label, 1 or above")?;
    if form.class.is_some_and(|c| c > 3) {
        return Err("class: expected 0 (rush), 1, 2 or 3 (bulk)".into());
    }
    for (name, text) in [("key", &form.key), ("tenant", &form.tenant), ("group", &form.group)] {
        if text.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_MAX || k.chars().any(char::is_control)) {
            return Err(format!("{name}: expected 1 to {KEY_MAX} characters, none of them a control character"));
        }
    }
    if form.number.is_some() && form.group.is_none() {
        return Err("number: only an order with a `group` has one".into());
    }
    let is_process = form.kind == KindForm::Process;
    for (name, is_there) in [("program", form.program.is_some()), ("station", form.station.is_some())] {
        if is_there && !is_process {
            return Err(format!("{name}: only an order of kind \"process\" has one"));
        }
    }
    if form.stops.is_some() != (form.kind == KindForm::Route) {
        return Err("stops: an order of kind \"route\" has them, and no other".into());
    }
    let stops = match form.kind {
        KindForm::Store => Stops::STORE,
        KindForm::Retrieve => Stops::RETRIEVE,
        KindForm::Process => {
            let group = form.station.as_ref().map_or(Ok(0), |name| station(name, stations, "station"))?;
            Stops::process(group, form.program.unwrap_or(PROGRAM))
        }
        KindForm::Route => route(form.stops.as_deref().unwrap_or_default(), stations)?,
    };
    let wait_s = form.wanted().wait_s();
    let (due_ms, due) = match &form.due {
        None => (0, None),
        Some(text) => due(text, SystemTime::now())?,
    };
    Ok(Checked { load, stops, wait_ms: wait_s.saturating_mul(1000), due_ms, due })
}

/// A due time, RFC 3339.
pub(super) fn due_text(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn station(name: &str, stations: &[String], key: &str) -> Result<u8, String> {
    let known = || if stations.is_empty() { "this floor has none".into() } else { stations.join(", ") };
    let found = stations.iter().position(|s| s == name).and_then(|n| u8::try_from(n).ok());
    found.ok_or_else(|| format!("{key}: there is no group of stations \"{name}\"; the groups are: {}", known()))
}

fn route(list: &[StopForm], stations: &[String]) -> Result<Stops, String> {
    let mut stops = Vec::new();
    for stop in list.iter().take(STOPS_MAX + 1) {
        let place = match stop.at.as_str() {
            "rack" => Stop::Home,
            "outside" => Stop::Outside,
            name => Stop::Station { group: station(name, stations, "stops")?, program: stop.program.unwrap_or(1) },
        };
        if stop.program.is_some() && !matches!(place, Stop::Station { .. }) {
            return Err(format!("stops: \"{}\" has no program, only stations have one", stop.at));
        }
        stops.push(place);
    }
    Stops::new(&stops).ok_or_else(|| format!("stops: expected 1 to {STOPS_MAX}, and \"outside\" only as the last"))
}

/// A time, or how long from now: milliseconds from now, and the time. What is over is due at once.
fn due(text: &str, now: SystemTime) -> Result<(u32, Option<SystemTime>), String> {
    let at = match crate::clock::time_of(text) {
        Some(at) => at,
        None => {
            let wrong = || {
                format!("due: found \"{text}\", expected a time as 2026-11-25T14:00:00Z, or how long from now, as 10m")
            };
            let ahead = humantime::parse_duration(text).map_err(|_| wrong())?;
            now.checked_add(ahead).ok_or_else(wrong)?
        }
    };
    let ahead = at.duration_since(now).unwrap_or_default().as_millis();
    if ahead > DUE_MAX_MS {
        return Err(format!("due: \"{text}\" is more than 49 days ahead"));
    }
    // Zero would be no due time at all.
    let ms = u32::try_from(ahead).unwrap_or(u32::MAX).max(1);
    Ok((ms, Some(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_is_a_time_or_how_long_from_now_and_never_no_due_time_at_all() {
        let now = humantime::parse_rfc3339("2026-11-25T12:00:00Z").unwrap();
        let rows = [
            ("10m", Ok((600_000, "2026-11-25T12:10:00Z"))),
            ("2026-11-25T12:00:05Z", Ok((5_000, "2026-11-25T12:00:05Z"))),
            ("2026-11-25 12:00:05", Ok((5_000, "2026-11-25T12:00:05Z"))),
            ("2026-11-24T00:00:00Z", Ok((1, "2026-11-24T00:00:00Z"))),
            ("0s", Ok((1, "2026-11-25T12:00:00Z"))),
            ("50days", Err("more than 49 days")),
            ("600", Err("expected a time")),
            ("99999999999999years", Err("expected a time")),
        ];
        for (text, want) in rows {
            match (due(text, now), want) {
                (Ok((ms, at)), Ok((want_ms, want_at))) => {
                    let at = at.map(|at| humantime::format_rfc3339_seconds(at).to_string());
                    assert_eq!((ms, at.as_deref()), (want_ms, Some(want_at)), "{text}");
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_route_is_made_of_groups_of_this_floor() {
        let floor = ["weld".to_string(), "test".to_string()];
        let stop = |at: &str, program| StopForm { at: at.into(), program };
        let made = route(&[stop("test", Some(3)), stop("weld", None), stop("outside", None)], &floor).unwrap();
        let want = [Stop::Station { group: 1, program: 3 }, Stop::Station { group: 0, program: 1 }, Stop::Outside];
        assert_eq!(made.iter().collect::<Vec<_>>(), want);
        assert!(route(&[stop("rack", Some(1))], &floor).unwrap_err().contains("has no program"));
        assert!(route(&vec![stop("rack", None); 5], &floor).unwrap_err().contains("1 to 4"));
        assert!(route(&[stop("paint", None)], &[]).unwrap_err().contains("this floor has none"));
    }
}
