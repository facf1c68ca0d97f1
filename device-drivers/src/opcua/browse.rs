//! What there is on a server: its variables, with the path to each.
//!
//! ```text
//!   Objects ──> folder ──> object ──> variable ──> (its own variables)
//!      └─ breadth first, so many nodes a call; continuation points followed; each node once, so that no circle holds us
//! ```
//!
//! The walk ends when there is nothing new, at `limit` variables, or at [`NODES_MAX`] nodes. Only hierarchical references lead on; what
//! the standard puts there and no machine has filled (`STANDARD`) is left out. Each variable is read once, so that what can never be a tag
//! (a structure, a long array, what this user may not read) is known before anyone waits for it.

use super::decode::{ARRAY_MAX, Sight, value_of as decoded};
use super::limits::Call;
use super::session::{Link, Namespaces, open};
use super::{OpcUaSpec, property};
use crate::driver::LinkError;
use opcua::client::Session;
use opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResultMask, ByteString, DataTypeId, NodeClass,
    NodeClassMask, NodeId, NumericRange, ObjectId, ReadValueId, ReferenceDescription, ReferenceTypeId, StatusCode,
    Variant,
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
/// Values read at once: whole ones, of which each may be long.
const VALUES: usize = 50;

/// One variable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Browse names from below Objects down to the variable.
    pub path: Vec<String>,
    /// Its node, with the namespace by its URI: `nsu=urn:maker;s=Name`.
    pub node: String,
    /// Its data type: the name of a built-in type, or the node of another; `[]` after it for an array.
    pub data_type: String,
    /// Why it cannot be a tag, if it cannot.
    pub unreadable: Option<String>,
    /// What the server says of it.
    pub description: Option<String>,
    /// Its unit (`EngineeringUnits`).
    pub unit: Option<String>,
    /// The two ends of its range (`EURange`).
    pub range: Option<(f64, f64)>,
}

/// What a walk has found.
#[derive(Clone, Debug, Default, PartialEq)]
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
    let unsure;
    (walk.found, unsure) = describe(&link, &names, variables).await?;
    walk.cut = walk.cut.or(unsure);
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

/// Asks what variables are, and whether they can be read; the text says why that is not known of all.
async fn describe(
    link: &Link,
    names: &Namespaces,
    variables: Vec<Place>,
) -> Result<(Vec<Found>, Option<String>), LinkError> {
    let attribute = |node: &NodeId, attribute: AttributeId| ReadValueId {
        node_id: node.clone(),
        attribute_id: attribute as u32,
        ..ReadValueId::default()
    };
    let asked = [AttributeId::DataType, AttributeId::ValueRank, AttributeId::Description];
    let questions: Vec<ReadValueId> =
        variables.iter().flat_map(|v| asked.map(|wanted| attribute(&v.node, wanted))).collect();
    let (answers, _) = link.read(&questions).await?;
    let mut found = Vec::with_capacity(variables.len());
    for (place, answer) in variables.iter().zip(answers.chunks(asked.len())) {
        let said = |n: usize| answer.get(n).and_then(|a| a.value.as_ref());
        let kind = match said(0) {
            Some(Variant::NodeId(id)) => match id.as_data_type_id() {
                Ok(known) => type_name(known),
                Err(_) => names.name(id),
            },
            _ => "unknown".into(),
        };
        let is_array = matches!(said(1), Some(Variant::Int32(rank)) if *rank >= 0);
        let description = match said(2) {
            Some(Variant::LocalizedText(text)) => Some(text.text.as_ref().trim().to_string()).filter(|t| !t.is_empty()),
            _ => None,
        };
        let data_type = if is_array { format!("{kind}[]") } else { kind };
        let (path, node) = (place.path.to_vec(), names.name(&place.node));
        found.push(Found { path, node, data_type, description, ..Found::default() });
    }
    let wanted = |place: &Place| [(place.node.clone(), "EngineeringUnits"), (place.node.clone(), "EURange")];
    let properties = property::read(link, &variables.iter().flat_map(wanted).collect::<Vec<_>>()).await?;
    for (found, of_it) in found.iter_mut().zip(properties.chunks(2)) {
        let said = |n: usize| of_it.get(n).and_then(Option::as_ref);
        (found.unit, found.range) = (said(0).and_then(property::unit), said(1).and_then(property::range));
    }
    let nodes: Vec<(NodeId, bool)> =
        variables.into_iter().zip(&found).map(|(place, found)| (place.node, found.data_type.ends_with("[]"))).collect();
    for (n, some) in nodes.chunks(VALUES).enumerate() {
        let unreadable = match unreadable(link, names, some).await {
            Ok(unreadable) => unreadable,
            // One value may be longer than any message may be: what there is, is known all the same.
            Err(why) => return Ok((found, Some(format!("not every value could be looked at: {why}")))),
        };
        for (found, unreadable) in found.iter_mut().skip(n * VALUES).zip(unreadable) {
            found.unreadable = unreadable;
        }
    }
    Ok((found, None))
}

/// Why each of these cannot be a tag, if it cannot. Of an array one element more than we take is asked for, and not all of them.
async fn unreadable(
    link: &Link,
    names: &Namespaces,
    nodes: &[(NodeId, bool)],
) -> Result<Vec<Option<String>>, LinkError> {
    let value = |node: &NodeId, index_range: NumericRange| ReadValueId {
        node_id: node.clone(),
        attribute_id: AttributeId::Value as u32,
        index_range,
        ..ReadValueId::default()
    };
    let first_ones = || NumericRange::Range(0, ARRAY_MAX as u32);
    let question =
        |(node, is_array): &(NodeId, bool)| value(node, if *is_array { first_ones() } else { NumericRange::None });
    let (mut answers, _) = link.read(&nodes.iter().map(question).collect::<Vec<_>>()).await?;
    // A table has more than one range, and some servers know no ranges: these are asked for as a whole.
    let of_range = |s: StatusCode| matches!(s, StatusCode::BadIndexRangeInvalid | StatusCode::BadIndexRangeNoData);
    let again: Vec<usize> =
        answers.iter().enumerate().filter(|(_, a)| a.status.is_some_and(of_range)).map(|(n, _)| n).collect();
    for n in again {
        let (Some((node, _)), Some(answer)) = (nodes.get(n), answers.get_mut(n)) else { continue };
        let (whole, _) = link.read(&[value(node, NumericRange::None)]).await?;
        if let Some(whole) = whole.into_iter().next() {
            *answer = whole;
        }
    }
    let sight = Sight { skew: 0, names };
    let reason = |answer: &opcua::types::DataValue| match answer.status.unwrap_or(StatusCode::Good) {
        status if is_for_good(status) => Some(status.to_string()),
        // What is bad now may be good tomorrow.
        status if status.is_bad() => None,
        _ => decoded(answer.value.as_ref().unwrap_or(&Variant::Empty), sight).err().map(String::from),
    };
    Ok(answers.iter().map(reason).collect())
}

/// Whether a status says that there will never be a value for us.
fn is_for_good(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BadUserAccessDenied
            | StatusCode::BadNotReadable
            | StatusCode::BadNotSupported
            | StatusCode::BadAttributeIdInvalid
            | StatusCode::BadDataEncodingUnsupported
            | StatusCode::BadEncodingLimitsExceeded
            | StatusCode::BadResponseTooLarge
            | StatusCode::BadNodeIdUnknown
    )
}

fn type_name(id: DataTypeId) -> String {
    format!("{id:?}")
}
