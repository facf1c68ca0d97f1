//! The last word on tags that another configuration takes out: without it their last value would stay good at the broker for ever.

use super::reporter::{Publish, Reporter};
use crate::clock;
use crate::config::{DevicePlan, LinePlan, PointPlan};
use crate::telemetry::payload::Said;
use control_core::image::Quality;
use device_drivers::value::{Cause, wall_clock_ms};
use std::collections::HashSet;
use std::sync::Arc;

/// What has to be known of a line to take leave of its tags when it is gone.
#[derive(Debug)]
pub struct Farewell {
    publish: Option<Publish>,
    devices: Arc<[DevicePlan]>,
    points: Arc<[PointPlan]>,
}

impl Farewell {
    /// Of a line that publishes there.
    pub fn of(plan: &LinePlan, publish: Option<Publish>) -> Farewell {
        Farewell { publish, devices: plan.devices.clone(), points: plan.points.clone() }
    }

    /// Where its tags are published.
    pub fn topics(&self) -> impl Iterator<Item = String> {
        self.points.iter().filter(|point| point.publish).map(|point| self.topic(point))
    }

    fn topic(&self, point: &PointPlan) -> String {
        let (before, after) = self.devices.get(point.device as usize).map_or(("", ""), |d| (&*d.topic.0, &*d.topic.1));
        format!("{before} {} {after}", point.tag)
    }

    /// Says of each tag that nobody publishes any more that it is Bad, and why: the line has ended, so this comes last.
    pub fn say(&self, published: &HashSet<String>) {
        let source_ms = wall_clock_ms();
        let (quality, cause, is_timed) = (Quality::Bad, Cause::Removed, clock::is_trusted(source_ms));
        let said = Said { value: None, quality, cause, source_ms, confirmed_ms: None, is_timed };
        let mut reporter = Reporter::new(self.publish.clone(), self.devices.clone());
        for point in self.points.iter().filter(|point| !published.contains(&self.topic(point))) {
            reporter.report(point, said);
        }
        reporter.deliver();
    }
}
