//! The types that nodes declare: an Int16 is one also where its value would fit anything, and where it has no value at all.
//!
//! ```text
//!   DataType ──built in, or one of the plain types made of these──┐
//!   ValueRank ──one, or a row────────────────────────────────────┴─> NodeType
//!   else: Value ──its own type and shape──────────────────────────────^
//! ```

use super::decode::DIMENSIONS_MAX;
use super::session::{Link, value_of};
use crate::driver::LinkError;
use crate::value::PointId;
use opcua::types::{AttributeId, DataTypeId, DataValue, NodeId, ReadValueId, Variant, VariantScalarTypeId};

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Bool,
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float,
    Double,
    /// Text, and what is shown as text.
    Text,
    /// Milliseconds since 1970.
    DateTime,
}

/// What a node's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeType {
    /// Of what they are made.
    pub scalar: Scalar,
    /// Of how many dimensions: 0 for one value.
    pub dimensions: u8,
}

/// The types of these nodes, as far as their server says them.
pub(super) async fn learn(link: &Link, nodes: &[(PointId, NodeId)]) -> Result<Vec<(PointId, NodeType)>, LinkError> {
    let asks = |(_, node): &(PointId, NodeId)| {
        [AttributeId::DataType, AttributeId::ValueRank]
            .map(|wanted| ReadValueId { attribute_id: wanted as u32, ..value_of(node.clone()) })
    };
    let questions: Vec<ReadValueId> = nodes.iter().flat_map(asks).collect();
    let (answers, _) = link.read(&questions).await?;
    let (mut types, mut open) = (Vec::with_capacity(nodes.len()), Vec::new());
    for (one, answer) in nodes.iter().zip(answers.chunks(2)) {
        let [data_type, rank] = answer else { continue };
        match scalar_of(data_type).zip(dimensions_of(rank)) {
            Some((scalar, dimensions)) => types.push((one.0, NodeType { scalar, dimensions })),
            None => open.push((one, scalar_of(data_type))),
        }
    }
    let questions: Vec<ReadValueId> = open.iter().map(|((_, node), _)| value_of(node.clone())).collect();
    let (answers, _) = link.read(&questions).await?;
    for (((point, _), declared), answer) in open.into_iter().zip(answers) {
        types.extend(answer.value.as_ref().and_then(|value| seen(value, declared)).map(|of| (*point, of)));
    }
    Ok(types)
}

/// The type of a value, where its node does not say enough.
fn seen(value: &Variant, declared: Option<Scalar>) -> Option<NodeType> {
    let (id, dimensions) = match value {
        Variant::Array(array) => {
            (array.value_type, array.dimensions.as_ref().map_or(1, |d| d.len().clamp(1, DIMENSIONS_MAX)))
        }
        one => (one.scalar_type_id()?, 0),
    };
    Some(NodeType { scalar: declared.or(scalar(id))?, dimensions: u8::try_from(dimensions).ok()? })
}

/// Of how many dimensions (OPC 10000-3, 5.6.2); `None`: now so, now so.
fn dimensions_of(rank: &DataValue) -> Option<u8> {
    match rank.value {
        Some(Variant::Int32(-1)) => Some(0),
        Some(Variant::Int32(rank @ 1..)) => u8::try_from(rank).ok(),
        _ => None,
    }
}

fn scalar_of(data_type: &DataValue) -> Option<Scalar> {
    let Some(Variant::NodeId(id)) = &data_type.value else { return None };
    let id: DataTypeId = id.as_data_type_id().ok()?;
    match id {
        DataTypeId::Duration => Some(Scalar::Double),
        DataTypeId::UtcTime => Some(Scalar::DateTime),
        DataTypeId::LocaleId | DataTypeId::NumericRange => Some(Scalar::Text),
        DataTypeId::Counter | DataTypeId::IntegerId => Some(Scalar::Uint32),
        DataTypeId::Enumeration => Some(Scalar::Int32),
        id => scalar(VariantScalarTypeId::try_from(id as u32).ok()?),
    }
}

fn scalar(id: VariantScalarTypeId) -> Option<Scalar> {
    use VariantScalarTypeId as T;
    Some(match id {
        T::Boolean => Scalar::Bool,
        T::SByte => Scalar::Int8,
        T::Byte => Scalar::Uint8,
        T::Int16 => Scalar::Int16,
        T::UInt16 => Scalar::Uint16,
        T::Int32 => Scalar::Int32,
        T::UInt32 | T::StatusCode => Scalar::Uint32,
        T::Int64 => Scalar::Int64,
        T::UInt64 => Scalar::Uint64,
        T::Float => Scalar::Float,
        T::Double => Scalar::Double,
        T::DateTime => Scalar::DateTime,
        T::String | T::LocalizedText | T::QualifiedName | T::Guid | T::NodeId | T::ExpandedNodeId | T::ByteString => {
            Scalar::Text
        }
        _ => return None,
    })
}
