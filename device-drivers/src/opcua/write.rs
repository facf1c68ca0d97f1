//! Writes that people and programs ask for.
//!
//! ```text
//!   wishes ── by priority ──> in the node's own type? ──no──> Invalid        in time? ──no──> Expired
//!                                     │yes                       │yes
//!                                     └────────> one Write for many <──────┘
//!                                                  ├── refused ──> Refused(status)
//!                                                  ├── no answer ──> Unknown
//!                                                  └── done ── verify? ── read back ──> Done | Differs(value) | Unknown
//! ```
//!
//! The type of a node is learned from the node, at its first write, and with it the choices it names where it is an enumeration
//! (`EnumStrings`, `EnumValues`: of the node itself, OPC 10000-8, 5.3.3, or of its type, OPC 10000-3, 8.14).

use super::decode::{Sight, value_of as decoded};
use super::kind::{Kind, Shape};
use super::property;
use super::session::{Link, Namespaces, value_of};
use crate::driver::{LinkError, TagWrite, WriteOutcome};
use crate::value::{Cause, PointId};
use opcua::types::{
    AttributeId, DataTypeId, DataValue, NodeId, NumericRange, ReadValueId, StatusCode, Variant, VariantScalarTypeId,
    WriteValue,
};
use std::collections::HashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is known of the types of nodes.
pub(super) type Kinds = HashMap<PointId, Kind>;

/// A wish that is answered whatever happens: dropped before it was sent it is `LinkDown`, dropped after that `Unknown`.
struct Pending {
    wish: Option<(NodeId, TagWriteParts)>,
    sent: bool,
}

struct TagWriteParts {
    point: PointId,
    value: crate::value::Value,
    deadline: Instant,
    verify: bool,
    reply: oneshot::Sender<WriteOutcome>,
}

impl Pending {
    fn answer(mut self, outcome: WriteOutcome) {
        if let Some((_, parts)) = self.wish.take() {
            let _ = parts.reply.send(outcome); // nobody may want to know any more
        }
    }

    fn point(&self) -> Option<PointId> {
        self.wish.as_ref().map(|(_, p)| p.point)
    }

    fn node(&self) -> Option<&NodeId> {
        self.wish.as_ref().map(|(node, _)| node)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((_, parts)) = self.wish.take() {
            let _ = parts.reply.send(if self.sent { WriteOutcome::Unknown } else { WriteOutcome::LinkDown });
        }
    }
}

fn refused(status: StatusCode) -> WriteOutcome {
    WriteOutcome::Refused(Cause::Status(status.bits()))
}

/// Makes the writes and answers each of them. What has been learned of types comes back.
pub(super) async fn write_tags(link: Link, wishes: Vec<(Option<NodeId>, TagWrite)>, mut kinds: Kinds) -> Kinds {
    let mut pending = Vec::with_capacity(wishes.len());
    let mut wishes = wishes;
    wishes.sort_by_key(|(_, wish)| std::cmp::Reverse(wish.priority));
    for (node, wish) in wishes {
        let TagWrite { point, value, deadline, priority: _, verify, reply } = wish;
        let parts = TagWriteParts { point, value, deadline, verify, reply };
        match node {
            Some(node) => pending.push(Pending { wish: Some((node, parts)), sent: false }),
            None => {
                let _ = parts.reply.send(refused(StatusCode::BadNodeIdUnknown));
            }
        }
    }
    let Ok(mut pending) = learn(&link, pending, &mut kinds).await else { return kinds };
    while !pending.is_empty() {
        let size = link.limits.per_call(super::limits::Call::Write);
        let (now, later) = first_of_each_node(pending, size);
        pending = later;
        if let Err(point) = write_once(&link, now, &kinds).await {
            kinds.remove(&point); // it may have another type now
        }
    }
    kinds
}

/// So many at once, but no node twice: the order of two writes to one node in one call is the server's choice.
fn first_of_each_node(pending: Vec<Pending>, size: usize) -> (Vec<Pending>, Vec<Pending>) {
    let (mut now, mut later): (Vec<Pending>, Vec<Pending>) = (Vec::new(), Vec::new());
    for one in pending {
        if now.len() < size && !now.iter().any(|other| other.node() == one.node()) {
            now.push(one);
        } else {
            later.push(one);
        }
    }
    (now, later)
}

/// Finds out the types that are not known yet; nodes that are not there answer for themselves.
async fn learn(link: &Link, pending: Vec<Pending>, kinds: &mut Kinds) -> Result<Vec<Pending>, LinkError> {
    let attribute = |node: &NodeId, attribute: AttributeId| ReadValueId {
        attribute_id: attribute as u32,
        ..value_of(node.clone())
    };
    let is_new = |p: &Pending| p.point().is_some_and(|point| !kinds.contains_key(&point));
    let (unknown, mut known): (Vec<Pending>, Vec<Pending>) = pending.into_iter().partition(is_new);
    let questions: Vec<ReadValueId> = unknown
        .iter()
        .filter_map(Pending::node)
        .flat_map(|n| {
            [AttributeId::Value, AttributeId::DataType, AttributeId::ValueRank].map(|wanted| attribute(n, wanted))
        })
        .collect();
    let (answers, _) = link.read(&questions).await?;
    let mut learned = Vec::new();
    for (one, answer) in unknown.into_iter().zip(answers.chunks(3)) {
        let [value, data_type, rank] = answer else { continue };
        match kind_of(value, data_type, rank) {
            Ok(kind) => learned.push((one, kind, data_type_of(data_type))),
            Err(outcome) => one.answer(outcome),
        }
    }
    let choices = choices(link, &learned).await?;
    for ((one, mut kind, _), choices) in learned.into_iter().zip(choices) {
        if let Some(point) = one.point() {
            kind.choices = choices.map(Into::into);
            kinds.insert(point, kind);
            known.push(one);
        }
    }
    Ok(known)
}

/// The choices that nodes, or their types, name; whatever takes no whole numbers has none.
async fn choices(
    link: &Link,
    learned: &[(Pending, Kind, Option<NodeId>)],
) -> Result<Vec<Option<Vec<(i64, String)>>>, LinkError> {
    let wanted = |(one, kind, data_type): &(Pending, Kind, Option<NodeId>)| {
        let node = one.node().filter(|_| kind.is_whole()).cloned();
        // A plain number's type names no choices.
        let data_type = data_type.clone().filter(|id| kind.is_whole() && builtin(id).is_none());
        [
            (node.clone(), "EnumStrings"),
            (node, "EnumValues"),
            (data_type.clone(), "EnumStrings"),
            (data_type, "EnumValues"),
        ]
    };
    let all: Vec<(Option<NodeId>, &str)> = learned.iter().flat_map(wanted).collect();
    let asked: Vec<(NodeId, &str)> = all.iter().filter_map(|(node, name)| Some((node.clone()?, *name))).collect();
    let mut found = property::read(link, &asked).await?.into_iter();
    let each: Vec<Option<Variant>> =
        all.iter().map(|(node, _)| node.as_ref().and_then(|_| found.next()).flatten()).collect();
    Ok(each.chunks(4).map(|of_one| of_one.iter().flatten().find_map(property::choices)).collect())
}

fn data_type_of(data_type: &DataValue) -> Option<NodeId> {
    if let Some(Variant::NodeId(id)) = &data_type.value { Some((**id).clone()) } else { None }
}

/// The built-in type with this node.
fn builtin(id: &NodeId) -> Option<VariantScalarTypeId> {
    let id: DataTypeId = id.as_data_type_id().ok()?;
    VariantScalarTypeId::try_from(id as u32).ok()
}

fn kind_of(value: &DataValue, data_type: &DataValue, rank: &DataValue) -> Result<Kind, WriteOutcome> {
    if let Some(kind) = value.value.as_ref().and_then(Kind::of) {
        return Ok(kind);
    }
    let Some(id) = data_type_of(data_type) else {
        return Err(refused(data_type.status.unwrap_or(StatusCode::BadNodeIdUnknown)));
    };
    // A row is one dimension or some (OPC 10000-3, 5.6.2); how long the rows of a table are nobody says before there is one.
    let shape = match rank.value {
        Some(Variant::Int32(0 | 1)) => Shape::Row,
        Some(Variant::Int32(2..)) => {
            let why = "the node has no value yet, and how long its rows are is not known here";
            return Err(WriteOutcome::Invalid(why.into()));
        }
        _ => Shape::One,
    };
    let unknown = || WriteOutcome::Invalid("the node has no value yet, and a type that is not known here".into());
    builtin(&id).map(|scalar| Kind::new(scalar, shape)).ok_or_else(unknown)
}

/// One call. The point whose type was wrong, if that happened.
async fn write_once(link: &Link, pending: Vec<Pending>, kinds: &Kinds) -> Result<(), PointId> {
    let now = Instant::now();
    let mut sent = Vec::new();
    let mut values = Vec::new();
    for mut one in pending {
        let Some((node, parts)) = &one.wish else { continue };
        let Some(kind) = kinds.get(&parts.point) else {
            one.answer(WriteOutcome::Invalid("the node's type is not known here".into()));
            continue;
        };
        let variant = match kind.variant(&parts.value) {
            _ if now > parts.deadline => {
                one.answer(WriteOutcome::Expired);
                continue;
            }
            Ok(variant) => variant,
            Err(why) => {
                one.answer(WriteOutcome::Invalid(why));
                continue;
            }
        };
        values.push(WriteValue {
            node_id: node.clone(),
            attribute_id: AttributeId::Value as u32,
            index_range: NumericRange::None,
            value: DataValue { value: Some(variant.clone()), ..DataValue::default() },
        });
        one.sent = true;
        sent.push((one, variant));
    }
    // Without an answer all of them are dropped here, and so Unknown.
    let Ok(results) = link.write(&values).await else { return Ok(()) };
    let (mut check, mut wrong) = (Vec::new(), None);
    for ((one, variant), status) in sent.into_iter().zip(results) {
        let verify = one.wish.as_ref().is_some_and(|(_, p)| p.verify);
        match status {
            s if !s.is_good() => {
                if s == StatusCode::BadTypeMismatch {
                    wrong = one.point();
                }
                one.answer(refused(s));
            }
            _ if verify => check.push((one, variant)),
            _ => one.answer(WriteOutcome::Done),
        }
    }
    verify(link, check).await;
    wrong.map_or(Ok(()), Err)
}

async fn verify(link: &Link, check: Vec<(Pending, Variant)>) {
    let questions: Vec<ReadValueId> = check.iter().filter_map(|(p, _)| p.node().cloned().map(value_of)).collect();
    let Ok((answers, _)) = link.read(&questions).await else { return };
    let names = Namespaces::default();
    let (theirs, ours) = (Sight { skew: link.skew(), names: &names }, Sight { skew: 0, names: &names });
    for ((one, variant), answer) in check.into_iter().zip(answers) {
        let good = answer.status.is_none_or(|s| s.is_good());
        match answer.value.as_ref().filter(|_| good).and_then(|v| decoded(v, theirs).ok()) {
            Some(found) if decoded(&variant, ours).is_ok_and(|sent| sent == found) => one.answer(WriteOutcome::Done),
            Some(found) => one.answer(WriteOutcome::Differs(found)),
            None => one.answer(WriteOutcome::Unknown),
        }
    }
}
