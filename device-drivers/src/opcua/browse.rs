//! What there is on a server: its variables, with the path to each.
//!
//! ```text
//!   Objects ──> folder ──> object ──> variable ──> (its own variables)
//!      └─ breadth first, so many nodes a call; continuation points followed; each node once, so that no circle holds us
//! ```
//!
//! The walk ends when there is nothing new, at `limit` variables, or at [`NODES_MAX`] nodes. Only hierarchical references lead on; what
//! the standard puts there and no machine has filled (`STANDARD`) is left out.

use super::OpcUaSpec;
use super::limits::Call;
use super::session::{Link, Namespaces, open};
use crate::driver::LinkError;
use opcua::client::Session;
use opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResultMask, ByteString, DataTypeId, NodeClass,
    NodeClassMask, NodeId, ObjectId, ReadValueId, ReferenceDescription, ReferenceTypeId, StatusCode, Variant,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Nodes that are looked at before the walk gives up.
pub const NODES_MAX: usize = 200_000;
/// How deep the walk goes.
pub const DEPTH_MAX: usize = 64;
/// Objects of the standard's own below Objects: the server's diagnostics, and lists of names, places and units. They say nothing of the
/// machine.
const STANDARD: [ObjectId; 4] = [ObjectId::Server, ObjectId::Aliases, ObjectId::Locations, ObjectId::Quantities];
/// References asked for at once.
const REFERENCES: u32 = 1000;

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Browse names from below Objects down to the variable.
    pub path: Vec<String>,
    /// Its node, with the namespace by its URI: `nsu=urn:maker;s=Name`.
    pub node: String,
    /// Its data type: the name of a built-in type, or the node of another; `[]` after it for an array.
    pub data_type: String,
}

/// What a walk has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Variables, in the order of their paths.
    pub found: Vec<Found>,
    /// Nodes looked at.
    pub nodes: usize,
    /// Why it ended before its end, if it did.
    pub cut: Option<String>,
}

struct Place {
    node: NodeId,
    path: Arc<[String]>,
}

/// Walks a server. `wanted` is asked for each variable, with its path (names joined by `/`) and its node.
pub async fn browse(
    spec: &OpcUaSpec,
    limit: usize,
    wanted: impl Fn(&str, &str) -> bool + Send,
) -> Result<Walk, LinkError> {
    let opened = open(spec).await?;
    let link = opened.link.clone();
    let names = link.namespaces().await?;
    let mut walk = Walk::default();
    let mut variables = Vec::new();
    let mut seen: HashSet<NodeId> = STANDARD.into_iter().map(NodeId::from).collect();
    let mut level = vec![Place { node: ObjectId::ObjectsFolder.into(), path: Arc::default() }];
    for _ in 0..DEPTH_MAX {
        if level.is_empty() || walk.cut.is_some() {
            break;
        }
        let mut next = Vec::new();
        for places in level.chunks(link.limits.per_call(Call::Browse).min(100)) {
            let children = children(&link, places).await?;
            for (parent, reference) in children {
                let node = reference.node_id.node_id.clone();
                if reference.node_id.server_index != 0 || !seen.insert(node.clone()) {
                    continue;
                }
                let mut path = parent.to_vec();
                path.push(reference.browse_name.name.as_ref().to_string());
                let path: Arc<[String]> = path.into();
                if reference.node_class == NodeClass::Variable && wanted(&path.join("/"), &names.name(&node)) {
                    variables.push(Place { node: node.clone(), path: path.clone() });
                }
                next.push(Place { node, path });
            }
            if variables.len() >= limit {
                walk.cut = Some(format!("{limit} variables were asked for, and there are more"));
                variables.truncate(limit);
            } else if seen.len() >= NODES_MAX {
                walk.cut = Some(format!("{NODES_MAX} nodes were looked at, and there are more"));
            }
            if walk.cut.is_some() {
                break;
            }
        }
        level = next;
    }
    walk.nodes = seen.len();
    walk.found = describe(&link, &names, variables).await?;
    walk.found.sort_by(|a, b| (&a.path, &a.node).cmp(&(&b.path, &b.node)));
    Ok(walk)
}

/// All references that lead on from these places, with the path of the place they lead from.
async fn children(link: &Link, places: &[Place]) -> Result<Vec<(Arc<[String]>, ReferenceDescription)>, LinkError> {
    let question = |place: &Place| BrowseDescription {
        node_id: place.node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: (NodeClassMask::OBJECT | NodeClassMask::VARIABLE).bits(),
        result_mask: (BrowseResultMask::BrowseName as u32) | (BrowseResultMask::NodeClass as u32),
    };
    let questions: Vec<BrowseDescription> = places.iter().map(question).collect();
    let ask = |session: Arc<Session>, nodes: Vec<BrowseDescription>| async move {
        session.browse(&nodes, REFERENCES, None).await
    };
    let (answers, _) = link.chunked(Call::Browse, "browsing", &questions, ask).await?;
    let (mut all, mut open) = (Vec::new(), Vec::new());
    for (place, answer) in places.iter().zip(answers) {
        // A node that may not be browsed has no children for us; the others have.
        all.extend(answer.references.into_iter().flatten().map(|r| (place.path.clone(), r)));
        if !answer.continuation_point.is_null_or_empty() {
            open.push((place.path.clone(), answer.continuation_point));
        }
    }
    while !open.is_empty() && all.len() < NODES_MAX {
        let points: Vec<ByteString> = open.iter().map(|(_, p)| p.clone()).collect();
        let more =
            |session: Arc<Session>, points: Vec<ByteString>| async move { session.browse_next(false, &points).await };
        let (answers, _) = link.chunked(Call::Browse, "browsing on", &points, more).await?;
        let mut still_open = Vec::new();
        for ((path, _), answer) in open.into_iter().zip(answers) {
            let none = answer.references.as_ref().is_none_or(Vec::is_empty);
            all.extend(answer.references.into_iter().flatten().map(|r| (path.clone(), r)));
            // A server that goes on without ever giving anything would keep us here for ever.
            let again = !answer.continuation_point.is_null_or_empty() && !none;
            if answer.status_code == StatusCode::BadContinuationPointInvalid {
                return Err(link.broken(format!("it has forgotten how to go on browsing at {}", path.join("/"))));
            }
            if again {
                still_open.push((path, answer.continuation_point));
            }
        }
        open = still_open;
    }
    Ok(all)
}

/// Asks for the types of variables.
async fn describe(link: &Link, names: &Namespaces, variables: Vec<Place>) -> Result<Vec<Found>, LinkError> {
    let attribute = |node: &NodeId, attribute: AttributeId| ReadValueId {
        node_id: node.clone(),
        attribute_id: attribute as u32,
        ..ReadValueId::default()
    };
    let questions: Vec<ReadValueId> = variables
        .iter()
        .flat_map(|v| [attribute(&v.node, AttributeId::DataType), attribute(&v.node, AttributeId::ValueRank)])
        .collect();
    let (answers, _) = link.read(&questions).await?;
    let found = variables.into_iter().zip(answers.chunks(2)).map(|(place, answer)| {
        let kind = match answer.first().and_then(|a| a.value.as_ref()) {
            Some(Variant::NodeId(id)) => match id.as_data_type_id() {
                Ok(known) => type_name(known),
                Err(_) => names.name(id),
            },
            _ => "unknown".into(),
        };
        let is_array = matches!(answer.get(1).and_then(|a| a.value.as_ref()), Some(Variant::Int32(rank)) if *rank >= 0);
        let data_type = if is_array { format!("{kind}[]") } else { kind };
        Found { path: place.path.to_vec(), node: names.name(&place.node), data_type }
    });
    Ok(found.collect())
}

fn type_name(id: DataTypeId) -> String {
    format!("{id:?}")
}
