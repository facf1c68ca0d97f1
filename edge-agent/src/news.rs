//! News: what has become of orders and alarms, promised to the broker in the stream `high`, whatever else waits.
//!
//! ```text
//!   order desk ──OrderView──┐
//!                           ├──> JSON with stream and sequence ──> spool
//!   alarm desk ──AlarmNews──┘
//! ```

use crate::alarms::AlarmNews;
use crate::clock::run_ms;
use crate::desk::{Desk, OrderView};
use crate::telemetry::Spool;
use crate::telemetry::payload::rfc3339;
use crate::telemetry::spool::{Kind, Records, Stream};
use device_drivers::value::wall_clock_ms;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Promises every change of an order's state: `{topic}/{id}`.
pub async fn tell_orders(desk: Arc<Desk>, topic: String, spool: Arc<Spool>) {
    let (mut changes, mut records) = (desk.changes(), Records::default());
    loop {
        let view = match changes.recv().await {
            Ok(view) => view,
            // The newest state of an order says what the ones before would have.
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let id = view.id.to_string();
        let stamp = (run_ms(), 1);
        let news = OrderNews { view, time: rfc3339(wall_clock_ms()).to_string() };
        records.push((Stream::High, Kind::Json), &[&topic, "/", &id], stamp, |out| numbered(out, &news));
        spool.append(&mut records);
    }
}

/// Promises every change of an alarm: `{topic}/{alarm}`.
pub async fn tell_alarms(mut news: broadcast::Receiver<AlarmNews>, topic: String, spool: Arc<Spool>) {
    let mut records = Records::default();
    loop {
        let news = match news.recv().await {
            Ok(news) => news,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!("{missed} changes of alarms came too fast to be published; the API has them");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let place = [&*topic, "/", news.change.alarm];
        records.push((Stream::High, Kind::Json), &place, (run_ms(), 0), |out| numbered(out, &news));
        spool.append(&mut records);
    }
}

/// An order and when it came to this.
#[derive(Serialize)]
struct OrderNews {
    #[serde(flatten)]
    view: OrderView,
    time: String,
}

/// Something as a JSON object, with its stream and the place of the sequence.
fn numbered(out: &mut Vec<u8>, what: &impl Serialize) -> usize {
    let start = out.len();
    let _ = serde_json::to_writer(&mut *out, what);
    out.pop(); // the closing brace
    out.extend_from_slice(b",\"stream\":\"high\",\"sequence\":");
    let hole = out.len() - start;
    out.push(b'}');
    hole
}
