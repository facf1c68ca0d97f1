//! What a person is told of a line that is up, in the log: tags that its devices refuse, and what its server cannot do.

use super::{FieldLine, REMIND};
use crate::trouble::Trouble;
use control_core::image::Quality;
use device_drivers::value::{Cause, Reading};
use device_drivers::{Health, Notice, PointId};
use std::sync::PoisonError;
use std::time::Instant;

/// Points whose deadband is a part of a range that nobody knows.
#[derive(Debug, Default)]
pub(super) struct Unfiltered {
    points: Vec<PointId>,
    trouble: Trouble<()>,
}

impl FieldLine {
    /// Says of each cause that a device refuses points: the line is up, and yet something is wrong.
    pub(super) fn tell_refusals(&mut self, readings: &[Reading]) {
        let now = Instant::now();
        let refused = |c: Cause| {
            matches!(
                c,
                Cause::Exception(_)
                    | Cause::Status(_)
                    | Cause::WrongType
                    | Cause::NoText
                    | Cause::Found(_)
                    | Cause::BadReply
            )
        };
        let mut before = Cause::None;
        for first in readings.iter().filter(|r| r.quality == Quality::Bad && refused(r.cause)) {
            if std::mem::replace(&mut before, first.cause) == first.cause {
                continue;
            }
            let Some(lasting) = self.refused.is(first.cause, now) else { continue };
            let count = readings.iter().filter(|r| r.cause == first.cause).count();
            let point = self.points.get(first.point.0 as usize);
            let (device, tag) = point.map_or(("?", "?"), |p| (self.device_name(p.device as usize), &*p.tag));
            let hint = match first.cause {
                Cause::Exception(10 | 11) => "is `unit` right?",
                Cause::Exception(2) => "is the address right? It is left alone and asked for now and then",
                Cause::Status(code) => device_drivers::opcua::advice(code),
                Cause::Found(_) => "edge-agent browse leaves out what cannot be shown",
                _ => "does the profile fit the device?",
            };
            let cause = first.cause;
            let line = &*self.name;
            tracing::warn!(line, "{count} tags are Bad, the first is {device}/{tag}: {cause}; {hint}{lasting}");
        }
    }

    /// What the link's server says beside values.
    pub(super) fn heed(&mut self, notice: &Notice) {
        match notice {
            Notice::NoRange { points } => self.have_no_range(points),
            other => self.tell(other),
        }
    }

    /// A new link: what has no range is told anew.
    pub(super) fn all_have_ranges(&mut self) {
        self.unfiltered.points.clear();
        self.wires.stats.without_deadband.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn have_no_range(&mut self, points: &[PointId]) {
        self.unfiltered.points = points.to_vec();
        let names = points.iter().map(|point| self.names(std::slice::from_ref(point))).collect();
        *self.wires.stats.without_deadband.lock().unwrap_or_else(PoisonError::into_inner) = names;
        if let Some(lasting) = self.unfiltered.trouble.is((), Instant::now()) {
            let (line, names) = (&*self.name, self.names(points));
            tracing::warn!(
                line,
                "deadband_percent is not in force, every change is sent: the server knows no EURange of {names}; give `low` and `high`, or `deadband`{lasting}"
            );
        }
    }

    /// Whether the deadband of a point is configured and not in force.
    pub(super) fn is_unfiltered(&self, point: u32) -> bool {
        self.unfiltered.points.contains(&PointId(point))
    }

    /// What a person should know of a link that works all the same.
    fn tell(&self, notice: &Notice) {
        let line = &*self.name;
        match notice {
            Notice::NoRange { .. } => {}
            Notice::Room { subscriptions, points } if points.is_empty() => {
                tracing::info!(
                    line,
                    "one subscription of this server does not hold all tags: there are {subscriptions}"
                );
            }
            Notice::Room { subscriptions, points } => {
                let names = self.names(points);
                tracing::warn!(
                    line,
                    "the server has no room for {names}: read in turn, beside {subscriptions} subscriptions; poll more tags, more slowly, or raise the server's limit"
                );
            }
            Notice::MadeAgain { points } => {
                let names = self.names(points);
                tracing::warn!(
                    line,
                    "{names} had changed and the subscription did not say so, as happens when nodes are deleted and made again: subscribed to anew"
                );
            }
        }
    }

    /// The first of some points and how many there are besides, as `press/force and 3 more`.
    fn names(&self, points: &[PointId]) -> String {
        let first = points.first().and_then(|p| self.points.get(p.0 as usize));
        let first = first.map_or("?".into(), |p| format!("{}/{}", self.device_name(p.device as usize), p.tag));
        match points.len().saturating_sub(1) {
            0 => first,
            more => format!("{first} and {more} more"),
        }
    }

    /// Devices that have been away for another hour.
    pub(super) fn remind(&mut self) {
        if self.last_look.elapsed() < REMIND {
            return;
        }
        let now = Instant::now();
        self.last_look = now;
        for (away, stats) in self.away.iter_mut().zip(&self.wires.stats.devices) {
            if let Some(lasting) = away.reminds(now).filter(|_| stats.health() == Health::Demoted) {
                let (line, name) = (&*self.name, &stats.name);
                tracing::warn!(line, "device {name} still does not answer{lasting}");
            }
        }
    }
}
