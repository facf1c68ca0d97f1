//! A connection that is made to see whether it can be made: for `edge-agent check --connect`, before anything runs or while it does.

use super::connect;
use super::wire::{Message, Version, Wire};
use crate::config::plan::{Broker, MqttPlan};

/// Shakes hands with a broker, signs in, and takes leave. The gateway that runs is not disturbed: this is another client, whose name ends
/// in `-check`, and nothing is published.
pub async fn probe(plan: &MqttPlan, broker: &Broker) -> Result<String, String> {
    let plan = MqttPlan { client_id: format!("{}-check", plan.client_id), ..plan.clone() };
    let topic = format!("{}/check", plan.status_topic);
    let mut will = || Message { topic: topic.clone(), ..Message::default() };
    match connect(&plan, broker, (&mut will, false), plan.version).await {
        Ok(wire) => leave(wire).await,
        Err(why) if plan.version == Version::V5 => {
            // One that knows the older version alone answers in it, or hangs up.
            let older = connect(&plan, broker, (&mut will, false), Version::V311).await;
            let Ok(wire) = older else { return Err(why.to_string()) };
            leave(wire).await;
            if !plan.falls_back {
                return Err(format!(
                    "the broker speaks MQTT 3.1.1 and not 5: say version = \"3.1.1\" in [mqtt] ({why})"
                ));
            }
        }
        Err(why) => return Err(why.to_string()),
    }
    let user = plan.login.as_ref().map_or(String::new(), |login| format!(" as {}", login.user));
    Ok(format!("the broker has let us in{user}"))
}

async fn leave(mut wire: Wire) {
    wire.disconnect(false);
    wire.close().await;
}
