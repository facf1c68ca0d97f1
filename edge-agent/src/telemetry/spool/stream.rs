//! The three streams, and the records on their way into them.

use super::record::{self, Kind};

/// A stream: more important ones are sent first and dropped last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Alarms and events: committed at once.
    High,
    /// Process values.
    #[default]
    Normal,
    /// What can be missed first.
    Low,
}

/// All streams, the important first.
pub const STREAMS: [Stream; 3] = [Stream::High, Stream::Normal, Stream::Low];

impl Stream {
    /// Its name in configuration, messages and folders.
    pub fn name(self) -> &'static str {
        match self {
            Stream::High => "high",
            Stream::Normal => "normal",
            Stream::Low => "low",
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Stream::High => 0,
            Stream::Normal => 1,
            Stream::Low => 2,
        }
    }
}

/// Encoded records on their way into the spool, by stream. Kept and used again: appending allocates nothing once it has grown.
#[derive(Debug, Default)]
pub struct Records {
    pub(super) bytes: [Vec<u8>; 3],
    pub(super) values: u64,
}

impl Records {
    /// Adds one; `fill` writes the payload and gives the place in it where the sequence goes.
    pub fn push(
        &mut self,
        (stream, kind): (Stream, Kind),
        topic: &[&str],
        (at_ms, values): (u64, u32),
        fill: impl FnOnce(&mut Vec<u8>) -> usize,
    ) {
        if let Some(out) = self.bytes.get_mut(stream.index()) {
            record::push(out, kind, topic, (at_ms, values), fill);
            self.values += u64::from(values);
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(Vec::is_empty)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.iter_mut().for_each(|b| {
            b.clear();
            b.shrink_to(1 << 20);
        });
        self.values = 0;
    }
}
