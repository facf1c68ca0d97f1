//! Looking after points that do not come as they should: refused ones, and silent ones, from the start or later.

use super::{Done, FIRST_VALUE, Work};
use crate::driver::{LinkError, PollReport};
use crate::line::{LineCounters, LineSink, Notice};
use crate::opcua::Mode;
use crate::opcua::decode::{Sight, reading_of};
use crate::opcua::session::value_of;
use crate::opcua::types::learn;
use crate::opcua::watch::{Compared, Made, State};
use opcua::types::{DataValue, StatusCode};
use tokio::time::Instant;

/// Silent points that are read and compared at once, at most: four times a second, so this is 400 values a second of a server that has
/// nothing new to say.
const COMPARED_AT_ONCE: usize = 100;

impl<S: LineSink> Work<'_, S> {
    /// Refused points are asked for again, and silent ones are read.
    pub(super) fn look_after(&mut self, now: Instant) {
        let refused = self.live.watch.items.iter().filter(|i| matches!(i.state, State::Refused { .. })).count();
        self.sink.counters(LineCounters { quarantined: refused as u64, ..LineCounters::default() });
        if !self.retrying && refused > 0 {
            self.retry(now);
        }
        if self.first_values_until.is_some_and(|until| until <= now) {
            self.first_values_until = None;
            let members = self.live.watch.waiting();
            let (nodes, link) = (self.nodes(&members), self.link());
            self.jobs.spawn(async move {
                let result = link.read(&nodes).await.map(|(values, _)| values);
                Done::Silent { members, result }
            });
        }
        if !self.comparing {
            self.compare(now);
        }
    }

    /// Reads some of those that have been silent for long.
    fn compare(&mut self, now: Instant) {
        let members = self.live.watch.to_compare(now, COMPARED_AT_ONCE);
        if members.is_empty() {
            return;
        }
        self.comparing = true;
        let (nodes, link) = (self.nodes(&members), self.link());
        self.jobs.spawn(async move {
            let result = link.read(&nodes).await.map(|(values, _)| values);
            Done::Compared { members, asked: now, result }
        });
    }

    /// What was read of silent points is compared with what their subscription has said. What differs twice is told, and its item made
    /// again.
    pub(super) fn compared(&mut self, members: Vec<usize>, values: Vec<DataValue>, at: (Instant, Instant)) {
        let (mut dead, mut made_again) = (Vec::new(), Vec::new());
        for (index, data) in members.into_iter().zip(values) {
            let Some(point) = self.spec.points.get(index) else { continue };
            let sight = Sight { skew: self.skew, names: &self.live.names };
            let reading = reading_of(point.id, data.clone(), sight);
            let found = self.live.watch.compare(index, point, &reading, at);
            match found {
                Compared::Well => continue,
                Compared::Dead => {
                    dead.push(index);
                    made_again.push(point.id);
                }
                Compared::Gone => {}
                Compared::Deaf => self.take_turns(index, at.1),
            }
            if let Some(item) = self.live.watch.items.get_mut(index) {
                item.last = None; // whatever the deadband
            }
            self.take(index, data);
        }
        self.flush(PollReport { alive: true, requests: 1, ..PollReport::default() });
        if !dead.is_empty() {
            self.sink.notice(&Notice::MadeAgain { points: made_again });
            // Where others are being asked for, these wait for their turn.
            match self.retrying {
                true => self.live.watch.postpone(&dead, at.1),
                false => self.ask_again(dead),
            }
        }
    }

    /// Asks for refused points again; first for the namespaces if one of them was not there.
    pub(super) fn retry(&mut self, now: Instant) {
        let due = self.live.watch.refused_until(now);
        if due.is_empty() {
            return;
        }
        self.retrying = true;
        let link = self.link();
        let nameless = |i: &usize| self.live.watch.items.get(*i).is_some_and(|item| item.node.is_none());
        if due.iter().any(nameless) {
            self.jobs.spawn(async move { Done::Names(link.namespaces().await) });
            return;
        }
        self.ask_again(due);
    }

    /// Asks what nodes declare their values to be, where somebody wants to know.
    pub(super) fn ask_types(&mut self, indexes: Vec<usize>) {
        if !self.sink.wants_types() {
            return;
        }
        let node = |index: usize| {
            let node = self.live.watch.items.get(index)?.node.as_ref()?.node_id.clone();
            Some((self.spec.points.get(index)?.id, node))
        };
        let (link, nodes): (_, Vec<_>) = (self.link(), indexes.into_iter().filter_map(node).collect());
        self.jobs.spawn(async move { Done::Types(learn(&link, &nodes).await) });
    }

    pub(super) fn ask_again(&mut self, due: Vec<usize>) {
        self.retrying = true;
        let link = self.link();
        let old = self.live.watch.give_up(&due);
        let wants = due.into_iter().filter_map(|i| self.live.watch.want(self.spec, &link, i)).collect();
        let rooms = self.live.watch.rooms.clone();
        self.jobs.spawn(async move {
            let mut old = old;
            old.sort_unstable();
            for of_one in old.chunk_by(|a, b| a.0 == b.0) {
                let items: Vec<u32> = of_one.iter().map(|(_, item)| *item).collect();
                let Some((subscription, _)) = of_one.first() else { continue };
                // An item of a node that has gone is of no use even when the node comes back; if the server has forgotten it, so be it.
                let _ = link.session.delete_monitored_items(*subscription, &items).await;
            }
            Done::Retried(rooms.place(link, wants).await)
        });
    }

    /// The server's namespaces have been read again: perhaps what was missing is there now.
    pub(super) fn named(&mut self, now: Instant) {
        let due = self.live.watch.refused_until(now);
        let mut there = Vec::new();
        for index in due {
            let (Some(item), Some(point)) = (self.live.watch.items.get_mut(index), self.spec.points.get(index)) else {
                continue;
            };
            if item.node.is_none() {
                item.node = self.live.names.resolve(&point.node).map(value_of);
            }
            let polled = matches!(point.mode, Mode::Poll { .. });
            match &item.node {
                None => self.live.watch.take(
                    self.spec,
                    index,
                    Made::Refused(StatusCode::BadNodeIdUnknown),
                    now,
                    &mut Vec::new(),
                ),
                Some(_) if polled => {
                    item.state = State::Polled;
                    self.take_turns(index, now);
                }
                Some(_) => there.push(index),
            }
        }
        for ((_, name), (_, node)) in self.spec.commands.iter().zip(&mut self.live.commands) {
            if node.is_none() {
                *node = self.live.names.resolve(name);
            }
        }
        self.ask_again(there);
    }

    /// Points that were subscribed to and have said nothing, and what a read says of them.
    pub(super) fn silent(
        &mut self,
        members: Vec<usize>,
        values: Vec<DataValue>,
        now: Instant,
    ) -> Result<(), LinkError> {
        let count = members.len();
        let mut readable = false;
        for (index, data) in members.into_iter().zip(values) {
            if self.live.watch.items.get(index).is_none_or(|i| i.state != State::Waiting) {
                continue; // its value has come meanwhile
            }
            readable |= data.value.is_some() && data.status.is_none_or(|s| s.is_good());
            self.take(index, data);
            if let Some(item) = self.live.watch.items.get_mut(index) {
                item.state = State::Polled;
            }
            self.take_turns(index, now);
        }
        self.flush(PollReport { alive: true, requests: 1, ..PollReport::default() });
        if readable && !self.heard {
            let what = format!("its subscription of {count} values, which can be read and do not come");
            return Err(LinkError::Timeout { peer: self.spec.endpoint.clone(), what, limit: FIRST_VALUE });
        }
        Ok(())
    }
}
