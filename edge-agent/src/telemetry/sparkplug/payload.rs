//! The Sparkplug B payload (Sparkplug 3.0.0, 6.4), wire-compatible: the fields of the specification by number and kind, written by hand so that
//! no protoc is needed.

use crate::config::Meaning;

pub use super::types::{DataType, metric_value, wanted};

/// A message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    /// When it was sent, milliseconds since 1970 UTC.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// What it says.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// 0 to 255, one more than in the message before.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
    /// Not used.
    #[prost(string, optional, tag = "4")]
    pub uuid: Option<String>,
    /// Not used.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub body: Option<Vec<u8>>,
}

/// One value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    /// Its name; in births, and where there is no alias.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A number that stands for the name.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When the value was true at its source.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// One of [`DataType`]; in births.
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// It is not the newest value.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// Not used.
    #[prost(bool, optional, tag = "6")]
    pub is_transient: Option<bool>,
    /// There is no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// Not used.
    #[prost(bytes = "vec", optional, tag = "8")]
    pub metadata: Option<Vec<u8>>,
    /// Its quality.
    #[prost(message, optional, tag = "9")]
    pub properties: Option<PropertySet>,
    /// The value.
    #[prost(oneof = "MetricValue", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub value: Option<MetricValue>,
}

/// The value of a metric.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MetricValue {
    /// Up to 32 bits; a signed one as its two's complement.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// 64 bits; a signed one as its two's complement.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// Single precision.
    #[prost(float, tag = "12")]
    Float(f32),
    /// Double precision.
    #[prost(double, tag = "13")]
    Double(f64),
    /// A truth.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// A text.
    #[prost(string, tag = "15")]
    Text(String),
    /// Bytes, arrays among them.
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
    /// A table.
    #[prost(message, tag = "17")]
    DataSet(DataSet),
    /// Members that belong together.
    #[prost(message, tag = "18")]
    Template(Template),
    /// Not used.
    #[prost(bytes = "vec", tag = "19")]
    Extension(Vec<u8>),
}

/// A table (6.4.11): every column has a name and a type, every row a value for each.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DataSet {
    /// How many columns.
    #[prost(uint64, optional, tag = "1")]
    pub num_of_columns: Option<u64>,
    /// Their names.
    #[prost(string, repeated, tag = "2")]
    pub columns: Vec<String>,
    /// As many of [`DataType`]: basic ones.
    #[prost(uint32, repeated, packed = "false", tag = "3")]
    pub types: Vec<u32>,
    /// The rows.
    #[prost(message, repeated, tag = "4")]
    pub rows: Vec<Row>,
}

/// A row of a [`DataSet`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    /// As many as there are columns.
    #[prost(message, repeated, tag = "1")]
    pub elements: Vec<Cell>,
}

/// A cell of a [`Row`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cell {
    /// What is in it.
    #[prost(oneof = "CellValue", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<CellValue>,
}

/// The value of a [`Cell`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum CellValue {
    /// Up to 32 bits; a signed one as its two's complement.
    #[prost(uint32, tag = "1")]
    Int(u32),
    /// 64 bits; a signed one as its two's complement.
    #[prost(uint64, tag = "2")]
    Long(u64),
    /// Single precision.
    #[prost(float, tag = "3")]
    Float(f32),
    /// Double precision.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A truth.
    #[prost(bool, tag = "5")]
    Boolean(bool),
    /// A text.
    #[prost(string, tag = "6")]
    Text(String),
    /// Not used.
    #[prost(bytes = "vec", tag = "7")]
    Extension(Vec<u8>),
}

/// A template (6.4.14): the definition of a type, or an instance of one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Template {
    /// Tells definitions of one name apart.
    #[prost(string, optional, tag = "1")]
    pub version: Option<String>,
    /// Members, by name.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// What differs from instance to instance, and is no value.
    #[prost(message, repeated, tag = "3")]
    pub parameters: Vec<Parameter>,
    /// The definition, of an instance.
    #[prost(string, optional, tag = "4")]
    pub template_ref: Option<String>,
    /// Which of the two it is.
    #[prost(bool, optional, tag = "5")]
    pub is_definition: Option<bool>,
}

/// A parameter of a [`Template`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Parameter {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// One of [`DataType`]: a basic one.
    #[prost(uint32, optional, tag = "2")]
    pub kind: Option<u32>,
    /// The instance's own value; in a definition, that of instances that say none.
    #[prost(oneof = "ParameterValue", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub value: Option<ParameterValue>,
}

/// The value of a [`Parameter`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ParameterValue {
    /// Up to 32 bits; a signed one as its two's complement.
    #[prost(uint32, tag = "3")]
    Int(u32),
    /// 64 bits; a signed one as its two's complement.
    #[prost(uint64, tag = "4")]
    Long(u64),
    /// Single precision.
    #[prost(float, tag = "5")]
    Float(f32),
    /// Double precision.
    #[prost(double, tag = "6")]
    Double(f64),
    /// A truth.
    #[prost(bool, tag = "7")]
    Boolean(bool),
    /// A text.
    #[prost(string, tag = "8")]
    Text(String),
    /// Not used.
    #[prost(bytes = "vec", tag = "9")]
    Extension(Vec<u8>),
}

/// Names and values beside a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PropertySet {
    /// Names.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// As many values.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<PropertyValue>,
}

/// The value of a property.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PropertyValue {
    /// One of [`DataType`].
    #[prost(uint32, optional, tag = "1")]
    pub kind: Option<u32>,
    /// There is no value.
    #[prost(bool, optional, tag = "2")]
    pub is_null: Option<bool>,
    /// The value, if it is an integer of up to 32 bits.
    #[prost(uint32, optional, tag = "3")]
    pub int_value: Option<u32>,
    /// The value, if it is a number of double precision.
    #[prost(double, optional, tag = "6")]
    pub double_value: Option<f64>,
    /// The value, if it is a text.
    #[prost(string, optional, tag = "8")]
    pub string_value: Option<String>,
}

/// Qualities (6.4.15): the value of the property `Quality`.
pub mod quality {
    /// Not to be believed.
    pub const BAD: u32 = 0;
    /// As it should be.
    pub const GOOD: u32 = 192;
    /// It was right some time ago.
    pub const STALE: u32 = 500;
}

/// A quality as a property.
pub fn quality_property(quality: u32) -> PropertySet {
    let kind = Some(DataType::Int32 as u32);
    let value = PropertyValue { kind, int_value: Some(quality), ..PropertyValue::default() };
    PropertySet { keys: vec!["Quality".into()], values: vec![value] }
}

/// What a tag is to people, beside its quality: the names that hosts know (`engUnit`, `engLow`, `engHigh`, `documentation`).
pub fn birth_properties(quality: u32, meaning: Option<&Meaning>) -> PropertySet {
    let mut set = quality_property(quality);
    let Some(meaning) = meaning else { return set };
    let (text, double) = (Some(DataType::Text as u32), Some(DataType::Double as u32));
    let of_text = |s: &String| PropertyValue { kind: text, string_value: Some(s.clone()), ..PropertyValue::default() };
    let of_end = |n: &f64| PropertyValue { kind: double, double_value: Some(*n), ..PropertyValue::default() };
    let all = [
        ("engUnit", meaning.unit.as_ref().map(of_text)),
        ("engLow", meaning.low.as_ref().map(of_end)),
        ("engHigh", meaning.high.as_ref().map(of_end)),
        ("documentation", meaning.description.as_ref().map(of_text)),
    ];
    for (key, value) in all {
        let Some(value) = value else { continue };
        set.keys.push(key.into());
        set.values.push(value);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// Bytes by hand from the field numbers and wire types of the specification.
    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let metric = Metric {
            name: Some("a".into()),
            alias: Some(7),
            datatype: Some(DataType::Boolean as u32),
            value: Some(MetricValue::Boolean(true)),
            ..Metric::default()
        };
        let payload = Payload { timestamp: Some(1), metrics: vec![metric], seq: Some(0), ..Payload::default() };
        let want = [
            0x08, 1, // timestamp
            0x12, 9, 0x0A, 1, b'a', 0x10, 7, 0x20, 11, 0x70, 1, // metric: name, alias, datatype, boolean_value
            0x18, 0, // seq, present although 0
        ];
        assert_eq!(payload.encode_to_vec(), want);
    }

    /// A table by hand, as above.
    #[test]
    fn a_table_has_its_types_one_by_one() {
        let row = Row { elements: vec![Cell { value: Some(CellValue::Boolean(true)) }] };
        let (columns, types) = (vec!["a".into()], vec![DataType::Boolean as u32, DataType::DateTime as u32]);
        let set = DataSet { num_of_columns: Some(1), columns, types, rows: vec![row] };
        let metric = Metric { value: Some(MetricValue::DataSet(set)), ..Metric::default() };
        let want = [
            0x8A, 0x01, 15, 0x08, 1, // dataset_value: num_of_columns
            0x12, 1, b'a', 0x18, 11, 0x18, 13, // columns, types: not packed, as proto2 has them
            0x22, 4, 0x0A, 2, 0x28, 1, // rows, elements, boolean_value
        ];
        assert_eq!(metric.encode_to_vec(), want);
    }

    /// An instance of one member and one parameter, by hand as above.
    #[test]
    fn an_instance_says_what_it_is_an_instance_of() {
        let member = Metric { name: Some("a".into()), ..Metric::default() };
        let unit = Parameter {
            name: Some("u".into()),
            kind: Some(DataType::UInt8 as u32),
            value: Some(ParameterValue::Int(7)),
        };
        let template = Template {
            version: Some("v".into()),
            metrics: vec![member],
            parameters: vec![unit],
            template_ref: Some("t".into()),
            is_definition: Some(false),
        };
        let metric = Metric { value: Some(MetricValue::Template(template)), ..Metric::default() };
        let want = [
            0x92, 0x01, 22, 0x0A, 1, b'v', // template_value: version
            0x12, 3, 0x0A, 1, b'a', // metrics
            0x1A, 7, 0x0A, 1, b'u', 0x10, 5, 0x18, 7, // parameters: name, type, int_value
            0x22, 1, b't', 0x28, 0, // template_ref; is_definition, present although false
        ];
        assert_eq!(metric.encode_to_vec(), want);
    }

    /// Property set by hand: keys, and values with type and value, the texts in field 8, the numbers in field 6.
    #[test]
    fn a_birth_says_unit_range_and_description_beside_the_quality() {
        let meaning =
            Meaning { unit: Some("V".into()), description: Some("d".into()), low: Some(0.0), high: Some(1.0) };
        let set = birth_properties(quality::GOOD, Some(&meaning));
        assert_eq!(set.keys, ["Quality", "engUnit", "engLow", "engHigh", "documentation"]);
        let values: Vec<Vec<u8>> = set.values.iter().map(Message::encode_to_vec).collect();
        let double = |last: [u8; 2]| [vec![0x08, 10, 0x31, 0, 0, 0, 0, 0, 0], last.to_vec()].concat();
        let want = [
            vec![0x08, 3, 0x18, 0xC0, 0x01],
            vec![0x08, 12, 0x42, 1, b'V'],
            double([0, 0]),
            double([0xF0, 0x3F]),
            vec![0x08, 12, 0x42, 1, b'd'],
        ];
        assert_eq!(values, want);
        assert_eq!(birth_properties(quality::BAD, None), quality_property(quality::BAD));
    }

    proptest! {
        #[test]
        fn any_bytes_from_a_host_are_decoded_without_panic(bytes: Vec<u8>) {
            let _ = Payload::decode(&bytes[..]);
        }
    }
}
