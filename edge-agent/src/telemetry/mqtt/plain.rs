//! The gateway's own messages: JSON or CBOR on topics of its own, a retained birth and last will.
//!
//! ```text
//!   birth     {"state":"online","reason":"connected","version":"..","time":"A"}                   A: when the connection was asked for
//!   farewell  {"state":"offline","reason":"stopped","version":"..","time":"B"}
//!   will      {"state":"offline","reason":"connection lost","version":"..","connect_time":"A"}    no time: the broker says it when nobody
//!                                                                                                 here knows
//! ```
//!
//! A will with the time of its making would be older than the birth, and who orders by time would keep "online" of a gateway that is dead.
//! It ends the connection whose birth has the time that it names; when, is when it comes.

use super::face::{Face, Sending};
use super::publish::{Head, user_properties};
use super::session::Out;
use super::wire::{Message, Properties, Received};
use crate::clock::{age_ms, run_ms};
use crate::commands::Commands;
use crate::config::plan::MqttPlan;
use crate::telemetry::meaning::{Meanings, Telling};
use crate::telemetry::payload::rfc3339;
use crate::telemetry::spool::record::Record;
use crate::telemetry::spool::{Kind, Reason, Stream};
use device_drivers::value::wall_clock_ms;
use std::sync::Arc;
use std::time::Duration;

/// The gateway's own messages.
pub struct Plain {
    status_topic: String,
    expiry: Option<Duration>,
    properties: Vec<(String, String)>,
    commands: Option<Arc<Commands>>,
    /// When the connection was asked for, milliseconds since 1970 UTC.
    connect_ms: u64,
    meta_topic: String,
    meanings: Arc<Meanings>,
    telling: Telling,
}

impl Plain {
    /// What a configuration wants; commands go to that door.
    pub fn new(plan: &MqttPlan, commands: Option<Arc<Commands>>) -> Plain {
        Plain {
            status_topic: plan.status_topic.clone(),
            expiry: plan.expiry,
            properties: plan.properties.clone(),
            commands,
            connect_ms: 0,
            meta_topic: plan.meta_topic(),
            meanings: Arc::default(),
            telling: Telling::default(),
        }
    }

    /// The same, saying what tags are to people.
    pub fn telling(self, meanings: Arc<Meanings>) -> Plain {
        Plain { meanings, ..self }
    }

    /// `at`: which time it is, and when.
    fn status(&self, state: &str, reason: &str, at: (&str, u64)) -> Message {
        let (version, name, time) = (env!("CARGO_PKG_VERSION"), at.0, rfc3339(at.1));
        let text = format!(
            "{{\"state\":\"{state}\",\"reason\":\"{reason}\",\"version\":\"{version}\",\"{name}\":\"{time}\"}}"
        );
        let properties = Properties { content_type: Some("application/json"), ..Properties::default() };
        Message { topic: self.status_topic.clone(), payload: text.into_bytes(), retain: true, properties }
    }
}

impl Face for Plain {
    fn will(&mut self) -> Message {
        self.connect_ms = wall_clock_ms();
        self.status("offline", "connection lost", ("connect_time", self.connect_ms))
    }

    fn subscriptions(&self) -> (Vec<String>, bool) {
        (self.commands.as_ref().map_or_else(Vec::new, |c| c.topics()), false)
    }

    fn connected(&mut self, out: &mut Out<'_>) {
        out.say(self.status("online", "connected", ("time", self.connect_ms)));
        self.telling.begin();
    }

    fn sending(&mut self, stream: Stream, record: &Record<'_>) -> Option<Sending> {
        let content_type = match record.kind {
            Kind::Json | Kind::Loss => "application/json",
            Kind::Cbor => "application/cbor",
            // Written by a run that was a Sparkplug edge node: nobody here would understand it.
            Kind::Sparkplug | Kind::Skip => return Some(Sending::Nothing),
        };
        // What is left of its time; `None`: none, or less. The clock is asked only where that matters.
        let left = self.expiry.map(|expiry| {
            let age = Duration::from_millis(age_ms(record.at_ms, run_ms()));
            expiry.checked_sub(age)
        });
        // Alarms and what is told of losses are wanted however late.
        if stream != Stream::High && record.kind != Kind::Loss && left == Some(None) {
            return Some(Sending::Lost(Reason::Age));
        }
        let seconds = |left: Option<Duration>| left.unwrap_or_default().as_secs().max(1);
        let expiry_s = left.map(|left| u32::try_from(seconds(left)).unwrap_or(u32::MAX));
        Some(Sending::Straight(Head { content_type, expiry_s }))
    }

    fn user_properties(&self) -> Vec<u8> {
        user_properties(&self.properties)
    }

    fn received(&mut self, message: Received, _out: &mut Out<'_>) {
        if let Some(commands) = &self.commands {
            commands.take(message);
        }
    }

    fn look(&mut self, out: &mut Out<'_>) {
        for (device, payload) in self.telling.next(&self.meanings) {
            let properties = Properties { content_type: Some("application/json"), ..Properties::default() };
            let topic = format!("{}/{device}", self.meta_topic);
            out.say(Message { topic, payload, retain: true, properties });
        }
    }

    fn farewell(&mut self) -> (Option<Message>, bool) {
        (Some(self.status("offline", "stopped", ("time", wall_clock_ms()))), false)
    }
}
