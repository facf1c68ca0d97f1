//! `edge-agent status`: how a running agent is doing, in a screenful.

use super::client::Agent;
use super::look::{BAD, FAINT, GOOD, HEAD, Table, WARN, bytes, micros, plain, span, styled};
use super::{Done, Failure};
use anstyle::Style;
use clap::Args;
use serde_json::{Value, json};

/// Which agent.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    agent: Agent,
}

/// Ends with 1 while an alarm of priority critical or high is raised.
pub(super) fn run(options: &Options) -> Result<Done, Failure> {
    let ask = |path: &str| options.agent.ask("GET", path, None);
    let (me, beat, field, alarms) =
        (ask("/api/v1/me")?, ask("/api/v1/beat")?, ask("/api/v1/field")?, ask("/api/v1/alarms")?);
    let urgent = alarms.as_array().into_iter().flatten().any(|a| {
        a["active"] == true && a["state"] != "shelved" && (a["priority"] == "critical" || a["priority"] == "high")
    });
    let text = render(&me, &beat, &field, &alarms);
    let json = json!({ "agent": me, "beat": beat, "field": field, "alarms": alarms });
    Ok(Done { text, json, code: u8::from(urgent) })
}

fn n(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn render(me: &Value, beat: &Value, field: &Value, alarms: &Value) -> String {
    let state = word(&beat["run_state"]);
    let style = match state {
        "running" | "none" if beat["alive"] == true => GOOD,
        "fenced" => BAD,
        _ => WARN,
    };
    let shown = if state == "none" { "gathering" } else { state };
    let mut out = format!(
        "{}  {}  up {}, version {}\n\n",
        styled(HEAD, word(&me["gateway"])),
        styled(style, shown),
        span(n(&beat["up_ms"]) as f64 / 1000.0),
        word(&me["version"])
    );
    if state != "none" {
        let (cycles, missed) = (n(&beat["cycles"]), n(&beat["missed"]));
        let realtime = if beat["realtime"] == true { styled(GOOD, "granted") } else { styled(WARN, "not granted") };
        out += &format!(
            "beat    {cycles} cycles, {missed} missed; one takes {} (99 %), starts {} late (99 %); real time {realtime}\n",
            micros(n(&beat["exec"]["p99_us"])),
            micros(n(&beat["wake"]["p99_us"]))
        );
        let o = &beat["orders"];
        let (active, done) = (n(&o["active"]), n(&o["completed"]));
        out += &format!(
            "orders  {active} under way, {done} done, {} given up, {} refused\n",
            n(&o["failed"]),
            n(&o["rejected"])
        );
    }
    out += &spool(&beat["spool"]);
    out.push('\n');
    out += &lines(field);
    out += &raised(alarms);
    out
}

fn spool(s: &Value) -> String {
    if n(&s["capacity_bytes"]) == 0 {
        return "spool   none: nothing is published\n".into();
    }
    let broker = if s["connected"] == true { styled(GOOD, "connected") } else { styled(WARN, "not connected") };
    let mut text = format!(
        "spool   {} {}, {} of {}; broker {broker}",
        n(&s["waiting"]),
        if n(&s["waiting"]) == 1 { "message waits" } else { "messages wait" },
        bytes(n(&s["waiting_bytes"])),
        bytes(n(&s["capacity_bytes"]))
    );
    if let Some(full) = s["full_in_s"].as_f64() {
        text += &format!("; {}", styled(WARN, &format!("full in {}", span(full))));
    } else if let Some(lasts) = s["lasts_s"].as_f64() {
        text += &format!("; lasts {} without a broker", span(lasts));
    }
    if let Some(drained) = s["drained_in_s"].as_f64().filter(|d| *d > 1.0) {
        text += &format!("; drained in {}", span(drained));
    }
    if n(&s["lost"]) > 0 {
        text += &format!("; {}", styled(WARN, &format!("{} values lost", n(&s["lost"]))));
    }
    text + "\n"
}

fn lines(field: &Value) -> String {
    if field.as_array().is_none_or(Vec::is_empty) {
        return "no lines: nothing is read\n".into();
    }
    let mut table = Table::new(&["line", "state", "good", "uncertain", "bad", "poll 99 %", "devices"]);
    for l in field.as_array().into_iter().flatten() {
        let state = word(&l["state"]);
        let devices = l["devices"].as_array().map_or(&[][..], Vec::as_slice);
        let silent: Vec<&str> = devices.iter().filter(|d| d["state"] != "up").map(|d| word(&d["name"])).collect();
        let count = |key: &str, style: Style| {
            let value = n(&l[key]);
            (value.to_string(), if value > 0 { style } else { Style::new() })
        };
        let told = match silent.as_slice() {
            [] => (format!("{} up", devices.len()), Style::new()),
            some => {
                let first = some.iter().take(4).copied().collect::<Vec<_>>().join(", ");
                (format!("{} of {} not read: {first}", some.len(), devices.len()), WARN)
            }
        };
        table.row(vec![
            (word(&l["name"]).into(), Style::new()),
            (state.into(), if state == "up" { GOOD } else { BAD }),
            count("good", Style::new()),
            count("uncertain", WARN),
            count("bad", BAD),
            (
                match n(&l["poll_p99_us"]) {
                    0 => "-".into(),
                    us => micros(us),
                },
                Style::new(),
            ),
            told,
        ]);
    }
    table.render(0)
}

/// What an alarm means, and what is known of this one.
fn told(means: &str, detail: &str) -> String {
    if detail.is_empty() { means.into() } else { format!("{} ({})", means.trim_end_matches('.'), plain(detail)) }
}

fn raised(alarms: &Value) -> String {
    let mut table = Table::default();
    for a in alarms.as_array().into_iter().flatten() {
        let style = match word(&a["priority"]) {
            "critical" | "high" => BAD,
            "medium" => WARN,
            _ => FAINT,
        };
        table.row(vec![
            (word(&a["priority"]).into(), style),
            (word(&a["state"]).into(), FAINT),
            (word(&a["subject"]).into(), Style::new()),
            (told(word(&a["means"]), word(&a["detail"])), Style::new()),
        ]);
    }
    let text = table.render(0);
    if text.is_empty() { format!("\n{}\n", styled(GOOD, "no alarms")) } else { format!("\nalarms\n{text}") }
}
