//! Which point comes how: subscribed to, read in turn, or refused for now.
//!
//! ```text
//!            ┌── made ───────────> Waiting ── first value ──> Live
//!   Wanted ──┤                        └── silent, though it can be read ──> Polled
//!            ├── no room ─────────────────────────────────────> Polled
//!            └── refused, or the node has gone ──> Refused ── later, ever less often ──> Wanted
//! ```
//!
//! One bad node never fails the others: each has a state of its own.

use super::limits::Call;
use super::session::{Link, Namespaces, value_of};
use super::{Deadband, Mode, OpcUaSpec, UaPoint};
use crate::driver::LinkError;
use crate::value::{Cause, Reading, wall_clock_ms};
use opcua::client::{MonitoredItemMap, OnSubscriptionNotificationCore};
use opcua::types::{
    DataChangeFilter, DataChangeNotification, DataChangeTrigger, DataValue, ExtensionObject,
    MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NotificationMessage, ReadValueId,
    StatusChangeNotification, StatusCode, TimestampsToReturn,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Values in one notification. 0 ("no limit") makes large subscriptions go silent.
const PER_PUBLISH: u32 = 2000;
/// Notifications waiting to be taken over: with 2,000 values each far more than anyone falls behind; more than that ends the link.
const WAITING_MAX: usize = 512;
/// Keep-alives come at least this often, so that a dead subscription is soon noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A refused node is asked for again after this, and ever less often.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest queue that is asked for.
const QUEUE_MAX: f64 = 1000.0;

/// How a point comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Its item is being made.
    Wanted,
    /// Subscribed to; nothing has come yet.
    Waiting,
    /// Subscribed to.
    Live,
    /// Read in turn.
    Polled,
    /// Refused, to be asked for again at this time.
    Refused { again: Instant },
}

/// One point.
#[derive(Debug)]
pub(super) struct Item {
    /// Its node; `None` while the server does not have its namespace.
    pub(super) node: Option<ReadValueId>,
    pub(super) state: State,
    /// The server's number of its item.
    id: Option<u32>,
    /// How long it is left alone when it is refused the next time.
    wait: Duration,
    /// Changes smaller than this are dropped by us, because the server does not.
    pub(super) deadband: Option<f64>,
    /// What was last passed on, where we drop.
    pub(super) last: Option<f64>,
}

/// An item to be made.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) index: usize,
    node: ReadValueId,
    sampling: Duration,
    queue: u32,
    filter: Option<Deadband>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Made {
    /// It is there; its number, and whether the server filters.
    Item { id: u32, filters: bool },
    /// There is no room for it.
    NoRoom,
    /// It was refused.
    Refused(StatusCode),
}

/// The subscription of a line, and the state of all its points.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) items: Vec<Item>,
    pub(super) subscription: u32,
    /// As the server has revised it.
    pub(super) publishing: Duration,
    /// Without any PublishResponse for this long the subscription is dead.
    pub(super) limit: Duration,
}

/// Notifications as they come: the number of the point, from 1, and its value.
pub(super) type Batch = Vec<(u32, DataValue)>;

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

/// Makes the subscription and its items. Readings of what was refused come back with it.
pub(super) async fn begin(
    link: &Link,
    spec: &OpcUaSpec,
    names: &Namespaces,
) -> Result<(Watch, mpsc::Receiver<Batch>, Vec<Reading>), LinkError> {
    let (to, batches) = mpsc::channel(WAITING_MAX);
    let hand = Hand { to, link: link.clone() };
    let keep_alive = (KEEP_ALIVE.as_secs_f64() / spec.publishing.as_secs_f64().max(0.001)).clamp(1.0, 100.0) as u32;
    let make = link.session.create_subscription(spec.publishing, 600, keep_alive, PER_PUBLISH, 0, true, hand);
    let subscription = link.once("creating the subscription", make).await?;
    let revised = {
        let state = link.session.subscription_state().lock();
        state.get(subscription).map(|s| (s.publishing_interval(), s.max_keep_alive_count()))
    };
    let (publishing, keep_alive) = revised.unwrap_or((spec.publishing, keep_alive));
    let publishing = publishing.max(spec.publishing);
    let limit = (publishing.saturating_mul(keep_alive.max(1)).saturating_mul(3)).max(super::WATCHDOG);

    let mut watch = Watch { items: Vec::with_capacity(spec.points.len()), subscription, publishing, limit };
    for point in &spec.points {
        let node = names.resolve(&point.node).map(value_of);
        let state = match point.mode {
            Mode::Subscribe { .. } => State::Wanted,
            Mode::Poll { .. } => State::Polled,
        };
        watch.items.push(Item { node, state, id: None, wait: RETRY_FIRST, deadband: None, last: None });
    }
    let mut wants: Vec<Want> = (0..spec.points.len()).filter_map(|i| watch.want(spec, link, i)).collect();
    // If there is not room for all, the fastest have it.
    wants.sort_by_key(|w| w.sampling);
    let beyond = wants.split_off(wants.len().min(link.limits.items));
    let mut readings = Vec::new();
    let now = Instant::now();
    for want in beyond {
        watch.take(spec, want.index, Made::NoRoom, now, &mut readings);
    }
    for (index, made) in create(link.clone(), subscription, wants).await? {
        watch.take(spec, index, made, now, &mut readings);
    }
    for index in 0..spec.points.len() {
        if watch.items.get(index).is_some_and(|i| i.node.is_none()) {
            watch.take(spec, index, Made::Refused(StatusCode::BadNodeIdUnknown), now, &mut readings);
        }
    }
    Ok((watch, batches, readings))
}

impl Item {
    fn refuse(&mut self, now: Instant) {
        self.state = State::Refused { again: now + self.wait };
        self.wait = (self.wait * 2).min(RETRY_MAX);
    }
}

impl Watch {
    /// A subscribed point has said something. Whether that is its first word, and whether it is worth telling.
    ///
    /// A node that has gone says so once and never again, even if it comes back (OPC 10000-4, 5.13.1): it counts as refused.
    pub(super) fn heard(&mut self, index: usize, status: Option<StatusCode>, now: Instant) -> (bool, bool) {
        let Some(item) = self.items.get_mut(index) else { return (false, false) };
        let first = matches!(item.state, State::Wanted | State::Waiting);
        let refused_before = item.wait > RETRY_FIRST;
        match (item.state, status) {
            (State::Polled | State::Refused { .. }, _) => {}
            (_, Some(StatusCode::BadNodeIdUnknown)) => {
                item.refuse(now);
                return (first, !refused_before);
            }
            _ => (item.state, item.wait) = (State::Live, RETRY_FIRST),
        }
        (first, true)
    }

    /// Points that are to be asked for again are wanted now; the items they had are given back, to be deleted.
    pub(super) fn give_up(&mut self, due: &[usize]) -> Vec<u32> {
        let mut old = Vec::new();
        for index in due {
            if let Some(item) = self.items.get_mut(*index) {
                old.extend(item.id.take());
                item.state = State::Wanted;
            }
        }
        old
    }

    /// The item a point wants, if it wants one.
    pub(super) fn want(&mut self, spec: &OpcUaSpec, link: &Link, index: usize) -> Option<Want> {
        let (item, point) = (self.items.get_mut(index)?, spec.points.get(index)?);
        let Mode::Subscribe { sampling, queue, deadband } = point.mode else { return None };
        // Fewer than are sampled between two publishings, and changes are lost.
        let sampled = (2.0 * self.publishing.as_secs_f64() / sampling.as_secs_f64().max(0.001)).ceil();
        let queue = queue.max(sampled.clamp(2.0, QUEUE_MAX) as u32);
        let filter = deadband.filter(|_| link.limits.filters);
        item.deadband = absolute(point);
        Some(Want { index, node: item.node.clone()?, sampling, queue, filter })
    }

    /// Takes over what came of an item.
    pub(super) fn take(&mut self, spec: &OpcUaSpec, index: usize, made: Made, now: Instant, out: &mut Vec<Reading>) {
        let (Some(item), Some(point)) = (self.items.get_mut(index), spec.points.get(index)) else { return };
        match made {
            Made::Item { id, filters } => {
                item.id = Some(id);
                if filters {
                    item.deadband = None;
                }
                // Its first value may have been faster than the answer.
                if item.state == State::Wanted {
                    item.state = State::Waiting;
                }
            }
            Made::NoRoom => item.state = State::Polled,
            Made::Refused(status) => {
                item.refuse(now);
                out.push(Reading::bad(point.id, Cause::Status(status.bits()), wall_clock_ms()));
            }
        }
    }

    /// How often a point is read when it is read in turn.
    pub(super) fn interval(&self, point: &UaPoint) -> Duration {
        match point.mode {
            Mode::Poll { interval } => interval,
            // As fresh as the subscription would have had it.
            Mode::Subscribe { sampling, .. } => sampling.max(self.publishing),
        }
    }

    /// Points that are refused and to be asked for again.
    pub(super) fn refused_until(&self, now: Instant) -> Vec<usize> {
        let due = |i: &Item| matches!(i.state, State::Refused { again } if again <= now);
        self.items.iter().enumerate().filter(|(_, i)| due(i)).map(|(n, _)| n).collect()
    }

    /// Points that are subscribed to and have said nothing yet.
    pub(super) fn waiting(&self) -> Vec<usize> {
        self.items.iter().enumerate().filter(|(_, i)| i.state == State::Waiting).map(|(n, _)| n).collect()
    }
}

fn absolute(point: &UaPoint) -> Option<f64> {
    match point.mode {
        Mode::Subscribe { deadband: Some(Deadband::Absolute(width)), .. } => Some(width),
        _ => None,
    }
}

/// Makes items, in calls the server takes. What it refuses for its filter is asked for once more without; where a server refuses a
/// whole call for lack of room, the room that is left is found by halves.
pub(super) async fn create(link: Link, subscription: u32, wants: Vec<Want>) -> Result<Vec<(usize, Made)>, LinkError> {
    let mut made = Vec::with_capacity(wants.len());
    let (mut again, mut crowd) = (Vec::new(), Vec::new());
    for (want, result) in create_once(&link, subscription, wants).await? {
        match result {
            Made::Refused(status) if want.filter.is_some() && is_of_filter(status) => {
                again.push(Want { filter: None, ..want });
            }
            Made::NoRoom => crowd.push(want),
            result => made.push((want.index, result)),
        }
    }
    if !again.is_empty() {
        let second = create_once(&link, subscription, again).await?;
        made.extend(second.into_iter().map(|(want, result)| (want.index, result)));
    }
    let mut size = crowd.len();
    while size > 1 && !crowd.is_empty() {
        size = size.div_ceil(2).min(crowd.len());
        let rest = crowd.split_off(size);
        let (outside, inside): (Vec<_>, Vec<_>) =
            create_once(&link, subscription, crowd).await?.into_iter().partition(|(_, made)| *made == Made::NoRoom);
        made.extend(inside.into_iter().map(|(want, result)| (want.index, result)));
        crowd = outside.into_iter().map(|(want, _)| want).chain(rest).collect();
    }
    made.extend(crowd.into_iter().map(|want| (want.index, Made::NoRoom)));
    Ok(made)
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
    let ask = |session: Arc<opcua::client::Session>, wants: Vec<Want>| async move {
        let requests: Vec<MonitoredItemCreateRequest> = wants.iter().map(request).collect();
        let count = requests.len();
        match session.create_monitored_items(subscription, TimestampsToReturn::Both, requests).await {
            Ok(made) => Ok(made.into_iter().map(|m| (m.result.status_code, m.result.monitored_item_id)).collect()),
            // Some servers say it of the whole call.
            Err(e) if e.status() == StatusCode::BadTooManyMonitoredItems => Ok(vec![(e.status(), 0); count]),
            Err(e) => Err(e),
        }
    };
    let (results, _) = link.chunked(Call::Monitor, "creating monitored items", &wants, ask).await?;
    let made = wants.into_iter().zip(results).map(|(want, (status, id)): (Want, (StatusCode, u32))| {
        let made = match status {
            s if s.is_good() => Made::Item { id, filters: want.filter.is_some() },
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
