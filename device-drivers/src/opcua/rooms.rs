//! Room for items: one subscription, and where that is full another.
//!
//! ```text
//!   items ──> first subscription ──"too many"──> second ──"too many"──> .. up to [`ROOMS_MAX`] ──> no room: they are read in turn
//!                                                  └── takes none at all: the server has no more to give, and it is taken away again
//! ```
//!
//! A server says how much it takes only by refusing (OPC 10000-4, 5.13.2: `BadTooManyMonitoredItems`), of a subscription or of all
//! together; which it is shows when a fresh subscription takes some or none.

use super::limits::Call;
use super::session::Link;
use super::watch::{Batch, Made, Want};
use super::{Deadband, OpcUaSpec};
use crate::driver::LinkError;
use opcua::client::{MonitoredItemMap, OnSubscriptionNotificationCore, Session};
use opcua::types::{
    DataChangeFilter, DataChangeNotification, DataChangeTrigger, ExtensionObject, MonitoredItemCreateRequest,
    MonitoringMode, MonitoringParameters, NotificationMessage, StatusChangeNotification, StatusCode,
    TimestampsToReturn,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

/// Subscriptions of one line at most: more than any server that has a limit of items takes.
const ROOMS_MAX: usize = 16;
/// Values in one notification. 0 ("no limit") makes large subscriptions go silent.
const PER_PUBLISH: u32 = 2000;
/// Notifications waiting to be taken over: with 2,000 values each far more than anyone falls behind; more than that ends the link.
const WAITING_MAX: usize = 512;
/// Keep-alives come at least this often, so that a dead subscription is soon noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Publishings without a word of ours, after which the server may forget a subscription.
const LIFETIME: u32 = 600;
/// The longest time between two samples that is believed.
const SAMPLING_MAX: Duration = Duration::from_secs(3600);

/// The subscriptions of a line.
#[derive(Clone)]
pub(super) struct Rooms {
    list: Vec<Room>,
    publishing: Duration,
    to: mpsc::Sender<Batch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    subscription: u32,
    full: bool,
}

/// What came of items that were wanted.
pub(super) struct Placed {
    pub(super) made: Vec<(usize, Made)>,
    /// The subscriptions there are now.
    pub(super) rooms: Rooms,
}

impl Rooms {
    /// The first subscription; also what the server makes of our interval, and after how long without any PublishResponse it is dead.
    pub(super) async fn first(
        link: &Link,
        spec: &OpcUaSpec,
    ) -> Result<(Rooms, mpsc::Receiver<Batch>, (Duration, Duration)), LinkError> {
        let (to, batches) = mpsc::channel(WAITING_MAX);
        let mut rooms = Rooms { list: Vec::new(), publishing: spec.publishing, to };
        let made = rooms.add(link).await?;
        let subscription = made.map_err(|status| link.lost(format!("creating the subscription: {status}")))?;
        let revised = {
            let state = link.session.subscription_state().lock();
            state.get(subscription).map(|s| (s.publishing_interval(), s.max_keep_alive_count()))
        };
        let (publishing, keep_alive) = revised.unwrap_or((spec.publishing, rooms.keep_alive()));
        let publishing = publishing.max(spec.publishing);
        let limit = (publishing.saturating_mul(keep_alive.max(1)).saturating_mul(3)).max(super::WATCHDOG);
        Ok((rooms, batches, (publishing, limit)))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Items of these subscriptions go: there is room again.
    pub(super) fn air(&mut self, of: impl Iterator<Item = u32>) {
        for subscription in of {
            self.list.iter_mut().filter(|r| r.subscription == subscription).for_each(|r| r.full = false);
        }
    }

    fn keep_alive(&self) -> u32 {
        (KEEP_ALIVE.as_secs_f64() / self.publishing.as_secs_f64().max(0.001)).clamp(1.0, 100.0) as u32
    }

    /// One more subscription, or the server's word that it has none.
    async fn add(&mut self, link: &Link) -> Result<Result<u32, StatusCode>, LinkError> {
        let hand = Hand { to: self.to.clone(), link: link.clone() };
        let keep_alive = self.keep_alive();
        let make = link.session.create_subscription(self.publishing, LIFETIME, keep_alive, PER_PUBLISH, 0, true, hand);
        let made = link.call("creating the subscription", make).await?;
        self.list.extend(made.iter().map(|id| Room { subscription: *id, full: false }));
        Ok(made)
    }

    /// Makes items where there is room for them, and more room where there is not.
    pub(super) async fn place(mut self, link: Link, mut wants: Vec<Want>) -> Result<Placed, LinkError> {
        let mut made = Vec::with_capacity(wants.len());
        let mut n = 0;
        while !wants.is_empty() {
            let fresh = n == self.list.len();
            if fresh && (n >= ROOMS_MAX || self.add(&link).await?.is_err()) {
                break;
            }
            let Some(room) = self.list.get(n).copied() else { break };
            n += 1;
            if room.full {
                continue;
            }
            let before = wants.len();
            let (fit, crowd) = create(&link, room.subscription, wants).await?;
            made.extend(fit);
            wants = crowd;
            let none_fit = fresh && wants.len() == before;
            if none_fit {
                // A subscription without items would only cost both sides. That it may stay is no harm.
                let _ = link.session.delete_subscription(room.subscription).await;
                self.list.pop();
                break;
            }
            if let Some(room) = self.list.get_mut(n - 1).filter(|_| !wants.is_empty()) {
                room.full = true;
            }
        }
        made.extend(wants.into_iter().map(|want| (want.index, Made::NoRoom)));
        Ok(Placed { made, rooms: self })
    }
}

/// Takes over what the library hears.
struct Hand {
    to: mpsc::Sender<Batch>,
    link: Link,
}

impl OnSubscriptionNotificationCore for Hand {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        for object in message.notification_data.into_iter().flatten() {
            if object.inner_is::<DataChangeNotification>() {
                let changes = object.into_inner_as::<DataChangeNotification>().and_then(|c| c.monitored_items);
                let batch: Batch = changes.into_iter().flatten().map(|c| (c.client_handle, c.value)).collect();
                if self.to.try_send(batch).is_err() {
                    self.link.signs.overflow.store(true, Relaxed);
                    self.link.signs.news.notify_one();
                }
            } else if let Some(change) = object.inner_as::<StatusChangeNotification>() {
                let why = format!("the server has ended the subscription: {}", change.status);
                let _ = self.link.signs.ended.set((change.status, why));
                self.link.signs.news.notify_one();
            }
        }
    }
}

/// Makes items in one subscription, in calls the server takes; those there is no room for come back. What is refused for its filter is
/// asked for once more without; where a server refuses a whole call for lack of room, the room that is left is found by halves.
async fn create(
    link: &Link,
    subscription: u32,
    wants: Vec<Want>,
) -> Result<(Vec<(usize, Made)>, Vec<Want>), LinkError> {
    let mut made = Vec::with_capacity(wants.len());
    let (mut again, mut crowd) = (Vec::new(), Vec::new());
    for (want, result) in create_once(link, subscription, wants).await? {
        match result {
            Made::Refused(status) if want.filter.is_some() && is_of_filter(status) => {
                again.push(Want { filter: None, ..want });
            }
            Made::NoRoom => crowd.push(want),
            result => made.push((want.index, result)),
        }
    }
    if !again.is_empty() {
        for (want, result) in create_once(link, subscription, again).await? {
            match result {
                Made::NoRoom => crowd.push(want),
                result => made.push((want.index, result)),
            }
        }
    }
    let mut size = crowd.len();
    while size > 1 && !crowd.is_empty() {
        size = size.div_ceil(2).min(crowd.len());
        let rest = crowd.split_off(size);
        let (outside, inside): (Vec<_>, Vec<_>) =
            create_once(link, subscription, crowd).await?.into_iter().partition(|(_, made)| *made == Made::NoRoom);
        made.extend(inside.into_iter().map(|(want, result)| (want.index, result)));
        crowd = outside.into_iter().map(|(want, _)| want).chain(rest).collect();
    }
    Ok((made, crowd))
}

fn is_of_filter(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BadMonitoredItemFilterUnsupported
            | StatusCode::BadMonitoredItemFilterInvalid
            | StatusCode::BadFilterNotAllowed
            | StatusCode::BadDeadbandFilterInvalid
    )
}

async fn create_once(link: &Link, subscription: u32, wants: Vec<Want>) -> Result<Vec<(Want, Made)>, LinkError> {
    let ask = |session: Arc<Session>, wants: Vec<Want>| async move {
        let requests: Vec<MonitoredItemCreateRequest> = wants.iter().map(request).collect();
        let count = requests.len();
        match session.create_monitored_items(subscription, TimestampsToReturn::Both, requests).await {
            Ok(made) => Ok(made
                .into_iter()
                .map(|m| (m.result.status_code, m.result.monitored_item_id, m.result.revised_sampling_interval))
                .collect()),
            // Some servers say it of the whole call.
            Err(e) if e.status() == StatusCode::BadTooManyMonitoredItems => Ok(vec![(e.status(), 0, 0.0); count]),
            Err(e) => Err(e),
        }
    };
    let (results, _) = link.chunked(Call::Monitor, "creating monitored items", &wants, ask).await?;
    let made = wants.into_iter().zip(results).map(|(want, (status, id, sampling)): (Want, (StatusCode, u32, f64))| {
        let revised = Duration::try_from_secs_f64(sampling / 1000.0).unwrap_or_default();
        let made = match status {
            s if s.is_good() => Made::Item {
                id: (subscription, id),
                filters: want.filter.is_some(),
                sampling: revised.clamp(want.sampling, SAMPLING_MAX.max(want.sampling)),
            },
            StatusCode::BadTooManyMonitoredItems => Made::NoRoom,
            s => Made::Refused(s),
        };
        (want, made)
    });
    Ok(made.collect())
}

fn request(want: &Want) -> MonitoredItemCreateRequest {
    let filter = want.filter.map_or_else(ExtensionObject::null, |deadband| {
        let (deadband_type, deadband_value) = match deadband {
            Deadband::Absolute(width) => (1, width),
            Deadband::Percent(part) => (2, part),
        };
        let trigger = DataChangeTrigger::StatusValue;
        ExtensionObject::from_message(DataChangeFilter { trigger, deadband_type, deadband_value })
    });
    MonitoredItemCreateRequest {
        item_to_monitor: want.node.clone(),
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: u32::try_from(want.index).map_or(0, |n| n.saturating_add(1)),
            sampling_interval: want.sampling.as_secs_f64() * 1000.0,
            queue_size: want.queue,
            discard_oldest: true,
            filter,
        },
    }
}
