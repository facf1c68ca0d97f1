//! The JSON Schema of everything that is published on topics of our own (`edge-agent schema --payloads`): for who builds on the messages, and
//! for the test that holds them to it. CBOR messages have the same names and say times in milliseconds, `.._time_ms`.

use serde_json::{Value, json};

/// Where a message of each definition goes: `{base}` is the topic of birth and will without `/status`.
pub const TOPICS: [(&str, &str); 9] = [
    ("{topic}", "sample"),
    ("{topic}, with payload = \"device\"", "device"),
    ("{base}/status", "status"),
    ("{base}/lost", "lost"),
    ("{base}/meta/{device}", "meta"),
    ("{base}/alarm/{alarm}", "alarm"),
    ("{base}/cmd/order/state/{id}", "order"),
    ("{base}/cmd/write/reply", "write_reply"),
    ("{base}/cmd/order/reply", "order_reply"),
];

/// The schema: one definition for each kind of message, and where it goes.
pub fn payloads() -> Value {
    let topics: serde_json::Map<String, Value> =
        TOPICS.iter().map(|(topic, name)| (topic.to_string(), json!({ "$ref": format!("#/$defs/{name}") }))).collect();
    let any: Vec<Value> = TOPICS.iter().map(|(_, name)| json!({ "$ref": format!("#/$defs/{name}") })).collect();
    let mut defs = values();
    for more in [gateway(), orders()] {
        defs.as_object_mut().into_iter().zip(more.as_object()).for_each(|(all, more)| all.extend(more.clone()));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What Lightsout publishes on topics of its own",
        "x-topics": topics,
        "anyOf": any,
        "$defs": defs,
    })
}

/// An object of just these keys; those that end in `?` may be missing.
fn object(description: &str, keys: Value) -> Value {
    let keys = keys.as_object().cloned().unwrap_or_default();
    let required: Vec<&String> = keys.keys().filter(|key| !key.ends_with('?')).collect();
    let required = json!(required);
    let properties: serde_json::Map<String, Value> =
        keys.into_iter().map(|(key, value)| (key.trim_end_matches('?').to_string(), value)).collect();
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn known(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

/// Values of tags, and what the tags are.
fn values() -> Value {
    let reading = object(
        "Tags that have the same times, quality and cause; they are good when nothing is said.",
        json!({
            "source_time": known("time"),
            "confirmed_time?": known("confirmed"),
            "clock?": known("clock"),
            "quality?": known("quality"),
            "cause?": text("Why it is not good, or what the server says beyond that."),
            "values": { "type": "object", "additionalProperties": known("value") },
        }),
    );
    let tag = object(
        "What a tag is to people.",
        json!({
            "unit?": text("Unit of the value."),
            "description?": text("The tag in words."),
            "low?": { "type": "number", "description": "Lower end of the range that displays show." },
            "high?": { "type": "number", "description": "Upper end of that range." },
            "writable": { "type": "boolean", "description": "Whether it may be written." },
        }),
    );
    json!({
        "time": { "type": "string", "description": "RFC 3339, UTC.", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$" },
        "confirmed": { "$ref": "#/$defs/time", "description": "When its source last said that the value is still so, where it is said again." },
        "clock": { "const": "untrusted", "description": "The source time is that of a clock nobody has set yet, or that has gone back." },
        "quality": { "enum": ["good", "uncertain", "bad"] },
        "stream": { "enum": ["high", "low"], "description": "The stream that the sequence counts; `normal` when nothing is said." },
        "sequence": count("Counts the messages of a stream; a gap is told in `lost`."),
        "value": {
            "description": "The value, or the last one known; null where there is none. A tag has one type.",
            "type": ["null", "boolean", "number", "string", "array"],
            "items": { "$ref": "#/$defs/value" },
        },
        "sample": object(
            "One value of one tag.",
            json!({
                "value": known("value"),
                "quality": known("quality"),
                "source_time": known("time"),
                "confirmed_time?": known("confirmed"),
                "clock?": known("clock"),
                "cause?": text("Why it is not good, or what the server says beyond that."),
                "stream?": known("stream"),
                "sequence": known("sequence"),
            }),
        ),
        "reading": reading,
        "device": object(
            "What changed in one poll of a device.",
            json!({
                "sequence": known("sequence"),
                "stream?": known("stream"),
                "readings": { "type": "array", "minItems": 1, "items": known("reading") },
            }),
        ),
        "tag": tag,
        "meta": object(
            "What the tags of a device are to people; retained.",
            json!({
                "device": text("Its name."),
                "cell": text("Where it stands."),
                "topic": text("Where its values go, with {tag} for the tag's name."),
                "part": count("Which part this is, from 1."),
                "parts": count("How many there are; the others are at ../2, ../3 .."),
                "tags": { "type": "object", "additionalProperties": known("tag") },
            }),
        ),
    })
}

/// What the gateway says of itself.
fn gateway() -> Value {
    json!({
        "status": object(
            "Birth and last will; retained where the broker keeps messages.",
            json!({
                "state": { "enum": ["online", "offline"] },
                "reason": text("Why."),
                "version": text("Of the gateway's program."),
                "time": known("time"),
            }),
        ),
        "lost": {
            "description": "Messages that were promised and are lost, or where the numbers of a stream go on after a run that was not stopped.",
            "type": "object",
            "required": ["lost", "reason", "time", "sequence"],
            "properties": {
                "lost": count("How many messages."),
                "values": count("How many values in them, as far as that is known."),
                "from_sequence": count("The first of them."),
                "to_sequence": count("The last of them."),
                "reason": text("Why."),
                "time": known("time"),
                "sequence": known("sequence"),
            },
        },
        "alarm": object(
            "An alarm has changed.",
            json!({
                "time": known("time"),
                "alarm": text("Its name."),
                "subject": text("What it is about."),
                "change": { "enum": ["raised", "cleared", "acknowledged", "shelved", "unshelved"] },
                "by?": text("Who, if it was a person."),
                "priority": { "enum": ["critical", "high", "medium", "low"] },
                "detail": text("What is said of it."),
                "means": text("What it means."),
                "action": text("What to do."),
                "stream": known("stream"),
                "sequence": known("sequence"),
            }),
        ),
    })
}

/// Orders, and answers to commands.
fn orders() -> Value {
    let shown = json!({
        "id": count("Its number."),
        "kind": text("What is wanted."),
        "load": count("Which load."),
        "stops?": { "type": "array", "description": "Where the load goes, of a route." },
        "class": { "type": "integer", "minimum": 0, "maximum": 3, "description": "0 rush .. 3 bulk." },
        "due?": text("When it shall be done, RFC 3339."),
        "tenant?": text("Whose it is."),
        "group?": text("Its sequence group."),
        "number?": count("Its number within the group."),
        "after?": count("Not begun before this one has ended."),
        "state": text("Where it stands."),
        "reason?": text("Why it was refused or given up."),
        "found?": { "type": "boolean", "description": "Made by the runtime for a load that stood in the way." },
        "key?": text("The key it came with."),
    });
    let mut told = shown.clone();
    for (key, value) in [("time", known("time")), ("stream", known("stream")), ("sequence", known("sequence"))] {
        told[key] = value;
    }
    json!({
        "order_view": object("An order.", shown),
        "order": object("An order has come to another state.", told),
        "write_reply": object(
            "What came of a write.",
            json!({
                "tag?": text("device/tag."),
                "outcome": text("done, differs, refused, expired, link_down, unknown, not_allowed, invalid, too_often .."),
                "reason?": text("Why."),
                "key?": text("The key it came with."),
            }),
        ),
        "order_reply": object(
            "What came of an order.",
            json!({
                "outcome": text("accepted, known, refused, invalid, busy, not_allowed, too_often .."),
                "reason?": text("Why."),
                "key?": text("The key it came with."),
                "order?": known("order_view"),
            }),
        ),
    })
}
