//! Types of values, and values of ours as they are said in them.

use super::arrays;
use super::payload::MetricValue;
use crate::telemetry::payload::json_of;
use device_drivers::Value;
use device_drivers::modbus::{Bits, DataType as Kind, Format};
use device_drivers::opcua::{NodeType, Scalar};

/// Types of values (6.4.16): those that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the specification's names")]
pub enum DataType {
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    UInt8 = 5,
    UInt16 = 6,
    UInt32 = 7,
    UInt64 = 8,
    Float = 9,
    Double = 10,
    Boolean = 11,
    Text = 12,
    DateTime = 13,
    DataSet = 16,
    Template = 19,
    Int8Array = 22,
    Int16Array = 23,
    Int32Array = 24,
    Int64Array = 25,
    UInt8Array = 26,
    UInt16Array = 27,
    UInt32Array = 28,
    UInt64Array = 29,
    FloatArray = 30,
    DoubleArray = 31,
    BooleanArray = 32,
    StringArray = 33,
    DateTimeArray = 34,
}

impl DataType {
    /// The type that a Modbus tag has, whatever is read: that of its registers, and of what is calculated a double.
    pub fn declared(format: &Format) -> DataType {
        let is_calculated = format.scale.as_ref().is_some_and(|s| s.factor != 1.0 || s.offset != 0.0)
            || format.special.as_ref().is_some_and(|s| s.power.is_some());
        match format.kind {
            Kind::Bool => DataType::Boolean,
            Kind::Field(Bits { count: 1, .. }) => DataType::Boolean,
            Kind::Text(..) => DataType::Text,
            Kind::Words(_) => DataType::UInt16Array,
            Kind::UnixS | Kind::UnixMs | Kind::DateTimeBcd if !is_calculated => DataType::DateTime,
            _ if is_calculated => DataType::Double,
            Kind::U8 { .. } => DataType::UInt8,
            Kind::I8 { .. } => DataType::Int8,
            Kind::U16 | Kind::Field(_) | Kind::Bcd(1) => DataType::UInt16,
            Kind::I16 => DataType::Int16,
            Kind::U32 | Kind::Bcd(2) => DataType::UInt32,
            Kind::I32 => DataType::Int32,
            Kind::U64 | Kind::Bcd(_) => DataType::UInt64,
            Kind::I64 => DataType::Int64,
            Kind::F32 => DataType::Float,
            Kind::F16 | Kind::F64 => DataType::Double,
            Kind::UnixS | Kind::UnixMs | Kind::DateTimeBcd => DataType::DateTime,
        }
    }

    /// The type that a node of OPC UA declares: a row is an array, and rows of rows are the JSON text of them.
    pub fn of_node(node: NodeType) -> DataType {
        use DataType as T;
        let (one, row) = match node.scalar {
            Scalar::Bool => (T::Boolean, T::BooleanArray),
            Scalar::Int8 => (T::Int8, T::Int8Array),
            Scalar::Uint8 => (T::UInt8, T::UInt8Array),
            Scalar::Int16 => (T::Int16, T::Int16Array),
            Scalar::Uint16 => (T::UInt16, T::UInt16Array),
            Scalar::Int32 => (T::Int32, T::Int32Array),
            Scalar::Uint32 => (T::UInt32, T::UInt32Array),
            Scalar::Int64 => (T::Int64, T::Int64Array),
            Scalar::Uint64 => (T::UInt64, T::UInt64Array),
            Scalar::Float => (T::Float, T::FloatArray),
            Scalar::Double => (T::Double, T::DoubleArray),
            Scalar::Text => (T::Text, T::StringArray),
            Scalar::DateTime => (T::DateTime, T::DateTimeArray),
        };
        match node.dimensions {
            0 => one,
            1 => row,
            _ => T::Text,
        }
    }

    /// The type of a value of ours, where nothing says what it is on the wire.
    pub fn of(value: &Value) -> DataType {
        match value {
            Value::Bool(_) => DataType::Boolean,
            Value::Int(_) => DataType::Int64,
            Value::Uint(_) => DataType::UInt64,
            Value::Float(_) => DataType::Double,
            Value::Single(_) => DataType::Float,
            Value::Text(_) | Value::List(_) => DataType::Text,
            Value::Words(_) => DataType::UInt16Array,
        }
    }
}

/// A value of ours as one of a metric of this type; `None` where there is none that could say it: a time before 1970.
///
/// What has up to 32 bits lies in `int_value`, but for UInt32: the reference implementations (Eclipse Tahu for Java and JavaScript, and so most
/// hosts) look for that in `long_value`, and find 0 elsewhere.
pub fn metric_value(value: &Value, datatype: DataType) -> Option<MetricValue> {
    use DataType as T;
    let whole = match value {
        Value::Int(i) => Some(i.cast_unsigned()),
        Value::Uint(u) => Some(*u),
        _ => None,
    };
    if let Some(bytes) = arrays::bytes_of(value, datatype) {
        return Some(MetricValue::Bytes(bytes));
    }
    if datatype == T::DateTime && matches!(value, Value::Int(..0)) {
        return None;
    }
    Some(match (datatype, whole, value.as_f64()) {
        // Two's complement: the low bits are the same in any width.
        (T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16, Some(n), _) => MetricValue::Int(n as u32),
        (T::UInt32 | T::Int64 | T::UInt64 | T::DateTime, Some(n), _) => MetricValue::Long(n),
        (T::Float, _, Some(f)) => MetricValue::Float(f as f32),
        (T::Double, _, Some(f)) => MetricValue::Double(f),
        _ => as_it_is(value),
    })
}

fn as_it_is(value: &Value) -> MetricValue {
    match value {
        Value::Bool(b) => MetricValue::Boolean(*b),
        Value::Int(i) => MetricValue::Long(i.cast_unsigned()),
        Value::Uint(u) => MetricValue::Long(*u),
        Value::Float(f) => MetricValue::Double(*f),
        Value::Single(f) => MetricValue::Float(*f),
        Value::Text(text) => MetricValue::Text(text.to_string()),
        list @ Value::List(_) => MetricValue::Text(json_of(list)),
        Value::Words(words) => MetricValue::Bytes(words.iter().flat_map(|w| w.to_le_bytes()).collect()),
    }
}

/// What a host wants to write, as JSON; the datatype of the birth decides how bits are meant.
pub fn wanted(value: &MetricValue, datatype: DataType) -> Option<serde_json::Value> {
    Some(match value {
        MetricValue::Boolean(b) => (*b).into(),
        MetricValue::Text(text) => text.as_str().into(),
        MetricValue::Float(f) => f64::from(*f).into(),
        MetricValue::Double(f) => (*f).into(),
        // Two's complement, of its own width or of 32 bits: hosts do it in both ways.
        MetricValue::Int(n) if datatype == DataType::Int8 => (*n as u8).cast_signed().into(),
        MetricValue::Int(n) if datatype == DataType::Int16 => (*n as u16).cast_signed().into(),
        MetricValue::Int(n) if matches!(datatype, DataType::Int32 | DataType::Int64) => n.cast_signed().into(),
        MetricValue::Int(n) => (*n).into(),
        MetricValue::Long(n) if datatype == DataType::Int64 => n.cast_signed().into(),
        MetricValue::Long(n) => (*n).into(),
        MetricValue::Bytes(bytes) => arrays::values_of(bytes, datatype)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_drivers::modbus::Scale;

    /// The example of 6.4.16: [30, 52360].
    #[test]
    fn words_are_the_array_type_that_the_specification_numbers_27() {
        let words = Value::Words([30, 52360].into());
        let bytes = MetricValue::Bytes(vec![0x1E, 0x00, 0x88, 0xCC]);
        assert_eq!(metric_value(&words, DataType::UInt16Array), Some(bytes));
        assert_eq!(DataType::of(&words) as u32, 27);
    }

    #[test]
    fn a_tag_is_born_with_the_type_of_its_registers() {
        let born = |text: &str| DataType::declared(&Format::plain(text.parse().unwrap()));
        let rows = [
            ("bool", DataType::Boolean),
            ("u8", DataType::UInt8),
            ("i8-high", DataType::Int8),
            ("u16", DataType::UInt16),
            ("i16", DataType::Int16),
            ("u32", DataType::UInt32),
            ("i32", DataType::Int32),
            ("u64", DataType::UInt64),
            ("i64", DataType::Int64),
            ("bcd16", DataType::UInt16),
            ("bcd32", DataType::UInt32),
            ("bcd64", DataType::UInt64),
            ("f16", DataType::Double),
            ("f32", DataType::Float),
            ("f64", DataType::Double),
            ("unix-s", DataType::DateTime),
            ("text[4]", DataType::Text),
        ];
        rows.iter().for_each(|(text, want)| assert_eq!(born(text), *want, "{text}"));
        let scale = |factor| Scale { factor, offset: 0.0, clamp: Some((0.0.into(), 9.0.into())) };
        let scaled = |factor| Format { scale: Some(Box::new(scale(factor))), ..Format::plain(Kind::U16) };
        assert_eq!([0.1, 1.0].map(|f| DataType::declared(&scaled(f))), [DataType::Double, DataType::UInt16]);
    }

    #[test]
    fn a_number_lies_where_hosts_look_for_its_type_and_comes_back_from_there() {
        let rows = [
            (Value::Int(-1), DataType::Int8, MetricValue::Int(u32::MAX)),
            (Value::Int(-300), DataType::Int16, MetricValue::Int(4_294_966_996)),
            (Value::Int(i32::MIN.into()), DataType::Int32, MetricValue::Int(0x8000_0000)),
            (Value::Uint(65_535), DataType::UInt16, MetricValue::Int(65_535)),
            (Value::Uint(u32::MAX.into()), DataType::UInt32, MetricValue::Long(u32::MAX.into())),
            (Value::Int(-1), DataType::Int64, MetricValue::Long(u64::MAX)),
            (Value::Uint(u64::MAX), DataType::UInt64, MetricValue::Long(u64::MAX)),
            (Value::Uint(3), DataType::Double, MetricValue::Double(3.0)),
            (Value::Single(0.1), DataType::Float, MetricValue::Float(0.1)),
        ];
        for (value, datatype, want) in rows {
            let got = metric_value(&value, datatype).unwrap();
            assert_eq!(got, want, "{value} {datatype:?}");
            let back = wanted(&got, datatype).unwrap();
            assert_eq!(back.as_f64().map(|f| f as f32), value.as_f64().map(|f| f as f32), "{value} {datatype:?}");
        }
        assert_eq!(
            wanted(&MetricValue::Int(0xFF), DataType::Int8),
            Some((-1).into()),
            "8 bits wide, as some hosts do it"
        );
    }

    #[test]
    fn a_node_is_born_with_the_type_it_declares() {
        let born = |scalar, dimensions| DataType::of_node(NodeType { scalar, dimensions }) as u32;
        let rows =
            [(Scalar::Int16, 2), (Scalar::Uint8, 5), (Scalar::Float, 9), (Scalar::Text, 12), (Scalar::DateTime, 13)];
        rows.into_iter().for_each(|(scalar, want)| assert_eq!(born(scalar, 0), want, "{scalar:?}"));
        assert_eq!([born(Scalar::Int16, 1), born(Scalar::DateTime, 1), born(Scalar::Int16, 2)], [23, 34, 12]);
        let ms = |ms| metric_value(&Value::Int(ms), DataType::DateTime);
        assert_eq!(ms(1_796_000_000_000), Some(MetricValue::Long(1_796_000_000_000)));
        assert_eq!(ms(-1), None, "Sparkplug has no time before 1970");
    }
}
