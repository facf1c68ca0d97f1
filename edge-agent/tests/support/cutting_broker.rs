//! A small MQTT 5 broker that records what it is sent, and cuts the connection on purpose before acknowledging.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does to its clients.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// Cut after so many messages of a connection; those of the last `lag` stay without acknowledgement.
    pub every: usize,
    /// Acknowledgements are held back by so many messages.
    pub lag: usize,
    /// So many connections are cut; the next one is served well.
    pub connections: usize,
}

/// What it has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often each sequence came.
    pub sequences: BTreeMap<u64, u32>,
    /// First arrivals, in order.
    pub order: Vec<u64>,
    /// Connections made.
    pub connections: usize,
    /// Last wills announced in CONNECT.
    pub wills: usize,
    /// Retained messages: topic and payload.
    pub retained: Vec<(String, String)>,
    /// Loss records.
    pub losses: Vec<serde_json::Value>,
}

impl Seen {
    fn note(&mut self, retained: bool, topic: String, payload: String) {
        let json: serde_json::Value = serde_json::from_str(&payload).unwrap_or_default();
        if retained {
            self.retained.push((topic, payload));
        } else if json.get("lost").is_some() {
            self.losses.push(json);
        } else if let Some(sequence) = json["sequence"].as_u64() {
            let times = self.sequences.entry(sequence).or_default();
            *times += 1;
            if *times == 1 {
                self.order.push(sequence);
            }
        }
    }
}

/// Starts it on a free port.
pub async fn start(cuts: Cuts) -> (u16, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let nth = {
                let mut seen = kept.lock().expect("no panic while held");
                seen.connections += 1;
                seen.connections
            };
            let cuts = if nth > cuts.connections { Cuts { every: usize::MAX, lag: 0, ..cuts } } else { cuts };
            let _ = serve(stream, cuts, &kept).await;
        }
    });
    (port, seen)
}

async fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn serve(mut stream: TcpStream, cuts: Cuts, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let (mut count, mut owed) = (0, std::collections::VecDeque::new());
    loop {
        let (kind, body) = packet(&mut stream).await?;
        match kind >> 4 {
            1 => {
                // Protocol name "MQTT", level 5, then the connect flags: bit 2 is the will.
                seen.lock().expect("no panic while held").wills += usize::from(body[7] & 4 != 0);
                stream.write_all(&[0x20, 3, 0, 0, 0]).await?;
            }
            3 => {
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8_lossy(&body[2..topic_end]).into_owned();
                let id = [body[topic_end], body[topic_end + 1]];
                let payload =
                    String::from_utf8_lossy(&body[topic_end + 3 + usize::from(body[topic_end + 2])..]).into_owned();
                seen.lock().expect("no panic while held").note(kind & 1 == 1, topic, payload);
                owed.push_back(id);
                count += 1;
                if count >= cuts.every {
                    return Ok(());
                }
                while owed.len() > cuts.lag {
                    let Some([a, b]) = owed.pop_front() else { break };
                    stream.write_all(&[0x40, 2, a, b]).await?;
                }
            }
            12 => stream.write_all(&[0xD0, 0]).await?,
            14 => return Ok(()),
            _ => {}
        }
    }
}
