//! How large messages are made, so that each broker that they may go to takes them: the smallest of the limits that are known. While none
//! is, each value is a message of its own. That costs room in the spool, at the first start of a gateway whose broker is not there; and nothing
//! is too large then but a value that would be always. What was made is not cut again: its parts would need numbers of their own.
//!
//! What brokers have said is kept beside the spool, for the next start:
//!
//! ```text
//!   broker.hall:8883 1952          topic and payload, bytes
//!   other.hall:1883 0              as large as one likes
//! ```

use crate::config::plan::{Broker, MqttPlan};
use std::path::{Path, PathBuf};

/// Topic and payload while no broker has said anything: one value, however long it is.
const UNKNOWN: u64 = 1;
/// Its file, beside the spool.
const NAME: &str = "message-max";
/// What a packet takes beside topic, payload and user properties: fixed header, id, alias, content type, expiry, lengths, the sequence.
const PACKET_OVERHEAD: u32 = 96;

/// Topic and payload that fit a packet of this size, however large its properties are.
pub(super) fn room(plan: &MqttPlan, packet_max: u32) -> u64 {
    let user = plan.properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum::<usize>();
    let overhead = PACKET_OVERHEAD.saturating_add(u32::try_from(user).unwrap_or(u32::MAX));
    u64::from(packet_max.saturating_sub(overhead).max(1))
}

/// What is known of each broker, by preference: topic and payload that it takes; 0: as large as one likes.
#[derive(Debug)]
pub(super) struct Rooms {
    brokers: Vec<(String, Option<u64>)>,
    file: Option<PathBuf>,
}

impl Rooms {
    /// What was known at the end of the last run.
    pub(super) fn remembered(plan: &MqttPlan) -> Rooms {
        let file = plan.spool.directory.as_ref().map(|dir| dir.join(NAME));
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let known = |broker: &Broker| {
            let name = broker.to_string();
            let room = text.lines().find_map(|l| l.strip_prefix(&name)?.strip_prefix(' ')?.parse().ok());
            (name, room)
        };
        Rooms { brokers: plan.brokers.iter().map(known).collect(), file }
    }

    /// A broker has said, or shown, what it takes.
    pub(super) fn learn(&mut self, nth: usize, room: Option<u64>) {
        let Some((_, known)) = self.brokers.get_mut(nth) else { return };
        let said = Some(room.unwrap_or(0));
        if std::mem::replace(known, said) == said {
            return;
        }
        let Some(file) = self.file.clone() else { return };
        let row = |(name, room): &(String, Option<u64>)| Some(format!("{name} {}\n", (*room)?));
        let text: String = self.brokers.iter().filter_map(row).collect();
        // Nobody waits for the disk: it is worth no more than another start with small messages.
        tokio::task::spawn_blocking(move || keep(&file, &text));
    }

    /// Topic and payload of a message that is worth making, bytes; 0: as large as one likes.
    pub(super) fn message_max(&self) -> u64 {
        let known = || self.brokers.iter().filter_map(|(_, room)| *room);
        if known().next().is_none() { UNKNOWN } else { known().filter(|room| *room > 0).min().unwrap_or(0) }
    }
}

fn keep(file: &Path, text: &str) {
    if let Err(e) = crate::state::replace(file, text.as_bytes()) {
        tracing::debug!("what brokers take is not kept in {}: {e}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fit_the_smallest_of_the_brokers_that_are_known() {
        let mut rooms = Rooms { brokers: ["a", "b", "c"].map(|name| (name.into(), None)).to_vec(), file: None };
        let mut max = |nth, room| {
            rooms.learn(nth, room);
            rooms.message_max()
        };
        assert_eq!(max(9, Some(7)), UNKNOWN);
        assert_eq!(max(0, None), 0);
        assert_eq!(max(1, Some(500)), 500);
        assert_eq!(max(2, Some(900)), 500);
        assert_eq!(max(1, Some(1000)), 900, "it may have been told better");
    }
}
