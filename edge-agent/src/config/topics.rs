//! Topics: templates with levels in braces, filled from the names of the configuration.
//!
//! ```text
//!   lightsout/{area}/{line}/{cell}/{device}/{tag}    a tag's; before and after `{tag}` it is the same for a whole device
//!   lightsout/{area}/{line}/{gateway}/status         birth and last will; what was lost, alarms and commands lie beside it
//! ```

use super::raw;
use super::report::{Problem, Source};
use super::values::Spanned;
use std::sync::Arc;

/// Bytes of a name or a template: eight of them are still a topic (MQTT 5, 1.5.4: 65,535 bytes), and one of this length is a mistake.
const PART_MAX: usize = 4096;
const TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}/{tag}";
const DEVICE_TOPIC: &str = "lightsout/{area}/{line}/{cell}/{device}";
pub(super) const STATUS_TOPIC: &str = "lightsout/{area}/{line}/{gateway}/status";

pub(super) fn topic_level(source: &Source, text: &Spanned<String>, problems: &mut Vec<Problem>) {
    let level = text.get_ref();
    if let Some(label) = unfit(level) {
        problems.push(source.problem(text.span(), "this name cannot be a level of a topic", label));
    } else if level.is_empty() || level.contains(['/', '+', '#']) || level.chars().any(char::is_whitespace) {
        let label = "a level has no blanks, no `/`, `+` or `#`, and is not empty";
        problems.push(source.problem(text.span(), "this name cannot be a level of a topic", label));
    }
}

/// What makes a text unfit for any part of a topic. Over a control character a broker may end the connection (MQTT 5, 1.5.4), and nobody
/// sees it: text that went through another code page has them.
pub(super) fn unfit(text: &str) -> Option<String> {
    if text.len() > PART_MAX {
        return Some(format!("it has {} bytes, a topic has room for {PART_MAX} of them", text.len()));
    }
    let control = u32::from(text.chars().find(|c| c.is_control())?);
    Some(match control {
        0x80..0xA0 => format!(
            "found U+{control:04X}, a control character: was the file Windows-1252, read as Latin-1? Write it anew"
        ),
        _ => format!("found U+{control:04X}, a control character: over such a broker may end the connection"),
    })
}

/// The topic of a device, before and after the tag's name.
pub(super) fn device_topic(raw: &raw::Config, cell: &str, device: &str) -> (Arc<str>, Arc<str>) {
    let mqtt = raw.mqtt.as_ref();
    let by_device = mqtt.and_then(|m| m.payload.as_ref()).is_some_and(|p| p.get_ref() == "device");
    let default = if by_device { DEVICE_TOPIC } else { TOPIC };
    let template = mqtt.and_then(|m| m.topic.as_ref()).map_or(default, |t| t.get_ref());
    let (before, after) = template.split_once("{tag}").unwrap_or((template, ""));
    let levels = levels(raw, cell, device, "");
    (expand(before, &levels).into(), expand(after, &levels).into())
}

/// The topic of the gateway's own that lies where a device's begins, if there is one. Else it would hear itself as somebody who commands it.
pub(super) fn own_topic(raw: &raw::Config, device: &str) -> Option<String> {
    let mqtt = raw.mqtt.as_ref()?;
    let status = mqtt.status_topic.as_ref().map_or(STATUS_TOPIC, |t| t.get_ref());
    let status = expand(status, &levels(raw, "", "", ""));
    let base = status.trim_end_matches("/status");
    let first = device.strip_prefix(base)?.strip_prefix('/')?.split('/').next()?;
    ["status", "lost", "meta", "alarm", "cmd", "order"].contains(&first).then(|| format!("{base}/{first}"))
}

pub(super) type Levels<'a> = [(&'static str, &'a str); 8];

pub(super) fn levels<'a>(raw: &'a raw::Config, cell: &'a str, device: &'a str, tag: &'a str) -> Levels<'a> {
    let g = &raw.gateway;
    let given = |level: &'a Option<Spanned<String>>| level.as_ref().map_or("", |l| l.get_ref().as_str());
    [
        ("{enterprise}", given(&g.enterprise)),
        ("{site}", given(&g.site)),
        ("{area}", g.area.get_ref()),
        ("{line}", g.line.get_ref()),
        ("{gateway}", g.name.get_ref()),
        ("{cell}", cell),
        ("{device}", device),
        ("{tag}", tag),
    ]
}

pub(super) fn expand(template: &str, levels: &Levels<'_>) -> String {
    levels.iter().fold(template.to_string(), |topic, (name, value)| topic.replace(name, value))
}

/// Whether a template is a topic made of levels there are: those of the gateway, and `known`.
pub(super) fn check_template(
    source: &Source,
    text: &Spanned<String>,
    gateway: &raw::Gateway,
    known: &[&str],
    needed: &[&str],
    problems: &mut Vec<Problem>,
) {
    let template = text.get_ref();
    let mut own = vec!["area", "line", "gateway"];
    own.extend(gateway.enterprise.as_ref().map(|_| "enterprise"));
    own.extend(gateway.site.as_ref().map(|_| "site"));
    let known: Vec<&str> = own.into_iter().chain(known.iter().copied()).collect();
    for part in template.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or(part);
        if !known.contains(&name) || !part.contains('}') {
            let label = format!("there is no level {{{name}}}; the levels are {{{}}}", known.join("}, {"));
            let problem = source.problem(text.span(), "unknown level in a topic template", label);
            problems.push(match name {
                "enterprise" | "site" => problem.help(format!("add `{name} = ..` to [gateway]")),
                _ => problem,
            });
        }
    }
    if let Some(label) = unfit(template) {
        problems.push(source.problem(text.span(), "this is not a topic", label));
    } else if template.is_empty() || template.contains(['+', '#']) {
        let label = "a topic to publish to has no wildcards and is not empty";
        problems.push(source.problem(text.span(), "this is not a topic", label));
    }
    if !needed.iter().all(|level| template.contains(level)) {
        let label = format!("without {} several tags would share one topic", needed.join(" and "));
        problems.push(source.problem(text.span(), "this template is too short", label));
    }
}
