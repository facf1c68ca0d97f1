//! One session and one read, for `edge-agent check --connect`, before anything runs.

use super::session::{FAREWELL, open, value_of};
use super::{NodeName, OpcUaSpec};
use crate::driver::LinkError;
use opcua::types::StatusCode;
use tokio::time::timeout;

/// Opens a session as the line will, reads one of its nodes, and takes leave. The text says what came of it, or what to look at.
pub async fn probe(spec: &OpcUaSpec) -> Result<String, String> {
    let opened = open(spec).await.map_err(|e| advice(&e))?;
    let link = opened.link.clone();
    let said = async {
        let names = link.namespaces().await.map_err(|e| e.to_string())?;
        let Some(point) = spec.points.first() else { return Ok("a session was opened".to_string()) };
        let name = shown(&point.node);
        let Some(node) = names.resolve(&point.node) else {
            return Err(format!("a session was opened, and the server has no namespace for the node {name}"));
        };
        let (answer, _) = link.read(&[value_of(node)]).await.map_err(|e| e.to_string())?;
        let status = answer.first().and_then(|a| a.status).unwrap_or(StatusCode::Good);
        match status {
            status if status.is_bad() => {
                Err(format!("a session was opened, and the node {name} cannot be read: {status}"))
            }
            _ => Ok(format!("a session was opened, {name} was read")),
        }
    };
    let said = said.await;
    let _ = timeout(FAREWELL, link.session.disconnect()).await;
    said
}

fn shown(name: &NodeName) -> String {
    name.uri.as_ref().map_or_else(|| name.rest.clone(), |uri| format!("nsu={uri};{}", name.rest))
}

fn advice(why: &LinkError) -> String {
    match why {
        LinkError::Untrusted { thumbprint, .. } if !thumbprint.is_empty() => {
            format!("{why}, if that is the thumbprint which the server itself shows")
        }
        _ => why.to_string(),
    }
}
