//! What pages see as it happens: each frame is encoded once and shared by all who look on.
//!
//! ```text
//!   stages, board, scene ──frames──> one slot a topic, newest wins ──> client: takes what has changed when its socket has room
//! ```
//!
//! A slot holds one frame. A client that is slow skips frames; it can neither slow the maker nor make anything grow: it holds on to the
//! one frame it is writing. While nobody looks nothing is made.

pub mod frames;

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// Clients at once. Each is a connection, and a connection some ten kilobytes.
pub const CLIENTS_MAX: usize = 512;
/// A client that hears nothing for this long hears a comment, so that a dead one is noticed.
const KEEP_ALIVE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// What a client can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What moves, five times a second.
    Floor,
    /// Which place holds which load, when that changes.
    Loads,
    /// The beat and its neighbours, once a second.
    Beat,
    /// Orders, when they change.
    Orders,
    /// Alarms, when they change.
    Alarms,
    /// Lines and devices, once a second.
    Field,
    /// What is closed, when that changes.
    Closed,
}

/// All topics, in the order of their slots.
pub const TOPICS: [(Topic, &str); 7] = [
    (Topic::Floor, "floor"),
    (Topic::Loads, "loads"),
    (Topic::Beat, "beat"),
    (Topic::Orders, "orders"),
    (Topic::Alarms, "alarms"),
    (Topic::Field, "field"),
    (Topic::Closed, "closed"),
];

/// What is counted.
#[derive(Debug, Default)]
pub struct LiveStats {
    /// Clients right now.
    pub clients: AtomicUsize,
    /// Frames made.
    pub frames: AtomicU64,
    /// Clients that ever came.
    joined: AtomicU64,
}

struct Slot {
    frame: watch::Sender<Bytes>,
    watched: AtomicUsize,
}

/// The slots.
pub struct Live {
    slots: [Slot; TOPICS.len()],
    bell: watch::Sender<u64>,
    stats: Arc<LiveStats>,
}

/// A client's place; given back when it is dropped.
struct Seat {
    live: Arc<Live>,
    topics: Vec<Topic>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.live.stats.clients.fetch_sub(1, Relaxed);
        for topic in &self.topics {
            self.live.slots[*topic as usize].watched.fetch_sub(1, Relaxed);
        }
    }
}

impl Live {
    /// Empty slots.
    pub fn new(stats: Arc<LiveStats>) -> Arc<Live> {
        let slot = |_| Slot { frame: watch::Sender::new(Bytes::new()), watched: AtomicUsize::new(0) };
        Arc::new(Live { slots: std::array::from_fn(slot), bell: watch::Sender::new(0), stats })
    }

    /// Whether anybody looks at a topic.
    pub fn is_watched(&self, topic: Topic) -> bool {
        self.slots[topic as usize].watched.load(Relaxed) > 0
    }

    /// How many have ever come: whoever comes new needs what does not change, too.
    pub fn joined(&self) -> u64 {
        self.stats.joined.load(Relaxed)
    }

    /// Puts a frame, as an event of the stream.
    pub fn put(&self, topic: Topic, frame: &impl Serialize) {
        let name = TOPICS[topic as usize].1;
        let mut text = format!("event: {name}\ndata: ").into_bytes();
        if serde_json::to_writer(&mut text, frame).is_err() {
            return; // plain data: cannot fail
        }
        text.extend_from_slice(b"\n\n");
        self.stats.frames.fetch_add(1, Relaxed);
        self.slots[topic as usize].frame.send_replace(text.into());
        self.bell.send_modify(|n| *n += 1);
    }

    /// The stream of a client; `None` when there are too many.
    pub fn subscribe(
        self: &Arc<Self>,
        topics: Vec<Topic>,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let room = self.stats.clients.fetch_update(Relaxed, Relaxed, |n| (n < CLIENTS_MAX).then_some(n + 1));
        room.ok()?;
        let frames: Vec<_> = topics.iter().map(|t| self.slots[*t as usize].frame.subscribe()).collect();
        for topic in &topics {
            self.slots[*topic as usize].watched.fetch_add(1, Relaxed);
        }
        self.stats.joined.fetch_add(1, Relaxed);
        let seat = Seat { live: self.clone(), topics };
        let client = Client { _seat: seat, bell: self.bell.subscribe(), frames, greeted: false };
        Some(unfold(client, |mut client| async move {
            let frame = client.next().await?;
            Some((Ok(frame), client))
        }))
    }
}

struct Client {
    _seat: Seat,
    bell: watch::Receiver<u64>,
    frames: Vec<watch::Receiver<Bytes>>,
    greeted: bool,
}

impl Client {
    /// The newest frame of a topic that has changed since this client took it.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(b"retry: 1000\n\n"));
        }
        loop {
            for frame in &mut self.frames {
                if frame.has_changed().ok()? {
                    return Some(frame.borrow_and_update().clone());
                }
            }
            match tokio::time::timeout(KEEP_ALIVE, self.bell.changed()).await {
                Err(_) => return Some(Bytes::from_static(b":\n\n")),
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn text(frame: Option<Result<Bytes, Infallible>>) -> String {
        String::from_utf8(frame.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_slow_client_skips_frames_and_gets_the_newest() {
        let live = Live::new(Arc::default());
        let mut client = Box::pin(live.subscribe(vec![Topic::Beat, Topic::Alarms]).unwrap());
        assert_eq!(text(client.next().await), "retry: 1000\n\n");
        for n in 0..1000 {
            live.put(Topic::Beat, &n);
            live.put(Topic::Floor, &n); // not asked for
        }
        live.put(Topic::Alarms, &"one");
        assert_eq!(text(client.next().await), "event: beat\ndata: 999\n\n");
        assert_eq!(text(client.next().await), "event: alarms\ndata: \"one\"\n\n");
        let nothing = tokio::time::timeout(Duration::from_millis(50), client.next()).await;
        assert!(nothing.is_err(), "nothing else has changed");
    }

    #[tokio::test]
    async fn seats_are_counted_and_given_back() {
        let live = Live::new(Arc::default());
        let clients: Vec<_> = (0..CLIENTS_MAX).filter_map(|_| live.subscribe(vec![Topic::Beat])).collect();
        assert_eq!(clients.len(), CLIENTS_MAX);
        assert!(live.subscribe(vec![Topic::Beat]).is_none());
        assert!(live.is_watched(Topic::Beat) && !live.is_watched(Topic::Floor));
        drop(clients);
        assert!(!live.is_watched(Topic::Beat));
        assert!(live.subscribe(vec![Topic::Beat]).is_some());
    }

    #[tokio::test]
    async fn a_quiet_stream_says_that_it_is_alive() {
        let live = Live::new(Arc::default());
        let mut client = Box::pin(live.subscribe(vec![Topic::Beat]).unwrap());
        client.next().await;
        assert_eq!(text(client.next().await), ":\n\n");
    }
}
