//! The uplink: the spool, what is promised to it, and the MQTT edge that brings it to a broker.

use super::doors::Doors;
use crate::alarms::AlarmDesk;
use crate::config::Plan;
use crate::field::Publish;
use crate::news::{tell_alarms, tell_orders};
use crate::telemetry::Spool;
use crate::telemetry::meaning::Meanings;
use crate::telemetry::mqtt::face::Face;
use crate::telemetry::mqtt::plain::Plain;
use crate::telemetry::mqtt::{Mqtt, MqttStats};
use crate::telemetry::sparkplug::{FIRST_DEVICE_ALIAS, Hub, Node};
use crate::telemetry::spool::{SpoolHandle, SpoolOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The spool, and what field lines need of it.
pub(super) struct Uplink {
    /// The spool; without a broker it stays empty.
    pub(super) spool: SpoolHandle,
    /// Where samples go; without a broker nowhere.
    pub(super) publish: Option<Publish>,
    /// Counters of the MQTT edge.
    pub(super) stats: Arc<MqttStats>,
}

impl Uplink {
    /// Opens the spool; one that no disk takes is in memory until it does.
    pub(super) fn open(plan: &Plan) -> Result<Uplink, String> {
        let stats = Arc::new(plan.mqtt.as_ref().map_or_else(MqttStats::default, MqttStats::new));
        let Some(mqtt) = plan.mqtt.as_ref() else {
            let spool = Spool::start(None, SpoolOptions::new(0, "")).map_err(|e| e.to_string())?;
            return Ok(Uplink { spool, publish: None, stats });
        };
        let options = SpoolOptions {
            age_max: mqtt.spool.age,
            retention: mqtt.spool.retention,
            ..SpoolOptions::new(mqtt.spool.capacity, &mqtt.loss_topic)
        };
        let spool = Spool::start(mqtt.spool.directory.as_deref(), options).map_err(|e| e.to_string())?;
        let publish = Publish {
            spool: spool.spool.clone(),
            payload: mqtt.payload,
            encoding: mqtt.encoding,
            hub: mqtt.sparkplug.as_ref().map(|s| Hub::new(&plan.lines, FIRST_DEVICE_ALIAS, s.templates)),
            message_max: stats.message_max.clone(),
        };
        Ok(Uplink { spool, publish: Some(publish), stats })
    }

    /// Starts to connect. Whether a broker can be reached does not matter.
    pub(super) fn connect(
        &self,
        plan: &Plan,
        doors: &mut Doors,
        meanings: Arc<Meanings>,
        alarms: &Arc<AlarmDesk>,
        seed: u64,
    ) -> Option<Edge> {
        let mqtt = plan.mqtt.clone()?;
        let (spool, commands) = (self.spool.spool.clone(), doors.commands.clone());
        let hub = self.publish.as_ref().and_then(|p| p.hub.clone());
        let face: Box<dyn Face> = match (mqtt.sparkplug.clone(), hub) {
            (Some(node), Some(hub)) => Box::new(Node::new(node, mqtt.version, hub, spool.clone(), commands, alarms)),
            _ => Box::new(Plain::new(&mqtt, commands).telling(meanings)),
        };
        let (stop, stopped) = watch::channel(false);
        let answers = doors.answers.take()?;
        let edge = Mqtt::with(mqtt, spool, self.stats.clone(), seed, (face, answers));
        Some(Edge { stop, task: tokio::spawn(edge.run(stopped)) })
    }

    /// Starts to tell what becomes of orders and alarms.
    pub(super) fn tell(&self, plan: &Plan, doors: &Doors, alarms: &AlarmDesk) -> Vec<JoinHandle<()>> {
        let topic = doors.commands.as_ref().and_then(|c| c.order_topic());
        let orders = topic.zip(doors.orders.clone());
        let spool = &self.spool.spool;
        let orders = orders.map(|(topic, desk)| tokio::spawn(tell_orders(desk, topic, spool.clone())));
        // A Sparkplug host is told those that stand, by its edge node, if it wants to be.
        let own_messages = plan.mqtt.as_ref().filter(|m| m.sparkplug.is_none());
        let alarms = own_messages.map(|m| tokio::spawn(tell_alarms(alarms.news(), m.alarm_topic(), spool.clone())));
        orders.into_iter().chain(alarms).collect()
    }
}

/// The MQTT edge that runs.
pub(super) struct Edge {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Edge {
    /// Lets it say farewell, for so long; else it is left behind. No peer may keep a gateway from stopping.
    pub(super) async fn end(mut self, within: Duration) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
