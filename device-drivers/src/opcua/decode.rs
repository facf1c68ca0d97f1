//! OPC UA values to readings: status codes are forwarded, source times are the server's. The way back is in `kind`.
//!
//! | OPC UA | [`Value`] |
//! |---|---|
//! | Boolean | `Bool` |
//! | SByte, Int16, Int32, Int64, and so every enumeration | `Int` |
//! | Byte, UInt16, UInt32, UInt64, StatusCode | `Uint` |
//! | Float, Double | `Float` |
//! | String, LocalizedText (its text), QualifiedName (its name), Guid | `Text`, up to 64 KiB |
//! | NodeId, ExpandedNodeId | `Text` with the URI of the namespace: its index may be another after a restart |
//! | ByteString | `Text` in hexadecimal, up to 1 KiB |
//! | DateTime | `Int`, milliseconds since 1970 UTC |
//! | a String, or the like, that is null; DateTime 0 | none: not available |
//! | array of up to 64 UInt16 | `Words` |
//! | any other array of these, up to 1024 elements and 64 KiB of text | `List`; rows of rows for several dimensions |
//! | anything else, and no value at all | Bad, and the cause names what was found |
//!
//! A status says more than Good, Uncertain or Bad: `Good_LocalOverride` is somebody with a hand on the switch. Its code is the cause of the
//! reading, Good or not; only plain Good has none.

use super::session::Namespaces;
use crate::value::{Cause, PointId, Quality, Reading, Value, WORDS_MAX, wall_clock_ms};
use opcua::types::{Array, DataValue, DateTime, StatusCode, Variant};
use std::fmt::Write;

/// Most bytes of text in one value. Nothing a person looks at is longer, and a value has to fit into a message.
const TEXT_MAX: usize = 64 * 1024;
/// Most elements of an array.
pub(super) const ARRAY_MAX: usize = 1024;
/// Most dimensions of an array.
pub(super) const DIMENSIONS_MAX: usize = 8;
/// The longest ByteString that is shown.
const BYTES_MAX: usize = 1024;
/// The part of a status code that says what it is: severity and code, without the bits that tell of a full queue or of a value at its
/// limit (OPC 10000-4, 7.39), which come and go.
const CODE: u32 = 0xFFFF_0000;

/// Ticks of 100 ns from 1601, where the protocol counts from, to 1970.
pub(super) const FROM_1601: i64 = 116_444_736_000_000_000;
pub(super) const TICKS_PER_MS: i64 = 10_000;

/// The last day that a time of the protocol can have, 9999-12-31, in milliseconds since 1970. Whoever has no time says this one as often as
/// the first one (OPC 10000-6, 5.2.2.5).
const LAST_DAY: u64 = 253_402_214_400_000;

/// What it takes to read a server's values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    /// How far its clock is ahead of ours, in ticks: while decoding, the library has taken it off every time but the source time. The
    /// times of a reading are the server's own.
    pub(super) skew: i64,
    /// Its namespaces.
    pub(super) names: &'a Namespaces,
}

/// A status as the cause of a reading.
pub(super) fn cause_of(status: StatusCode) -> Cause {
    match status.bits() & CODE {
        0 => Cause::None,
        code => Cause::Status(code),
    }
}

/// A value as a reading.
pub(super) fn reading_of(point: PointId, data: DataValue, sight: Sight<'_>) -> Reading {
    let status = data.status.unwrap_or(StatusCode::Good);
    let known = |t: DateTime, skew| u64::try_from(ms_of(&t, skew)).ok().filter(|ms| *ms < LAST_DAY);
    let source_ms = data
        .source_timestamp
        .and_then(|t| known(t, 0))
        .or_else(|| data.server_timestamp.and_then(|t| known(t, sight.skew)))
        .unwrap_or_else(wall_clock_ms);
    let quality = if status.is_good() {
        Quality::Good
    } else if status.is_uncertain() {
        Quality::Uncertain
    } else {
        return Reading::bad(point, cause_of(status), source_ms);
    };
    let value = data.value.as_ref().unwrap_or(&Variant::Empty);
    if is_null(value, sight) {
        return Reading::bad(point, Cause::NotAvailable, source_ms);
    }
    match value_of(value, sight) {
        Ok(value) => Reading { point, value: Some(value), quality, cause: cause_of(status), source_ms },
        Err(found) => Reading::bad(point, Cause::Found(found), source_ms),
    }
}

/// Whether a value says that there is none: a text that is null and not empty, and no time at all (OPC 10000-6, 5.2.2.4 and 5.2.2.5).
fn is_null(value: &Variant, sight: Sight<'_>) -> bool {
    match value {
        Variant::String(s) => s.is_null(),
        Variant::LocalizedText(t) => t.text.is_null(),
        Variant::QualifiedName(n) => n.name.is_null(),
        Variant::ByteString(b) => b.value.is_none(),
        // A clock that is ahead has moved it by so much.
        Variant::DateTime(t) => t.ticks() == 0 || t.ticks().saturating_add(sight.skew) <= TICKS_PER_MS,
        _ => false,
    }
}

/// Milliseconds since 1970.
fn ms_of(time: &DateTime, skew: i64) -> i64 {
    // Taking off and adding again may lose a tick.
    let ticks = time.ticks().saturating_add(skew).saturating_add(5);
    ticks.saturating_sub(FROM_1601).div_euclid(TICKS_PER_MS)
}

/// A value as we know values, or what was found instead.
pub(super) fn value_of(variant: &Variant, sight: Sight<'_>) -> Result<Value, &'static str> {
    let text = |text: &str| {
        let short = text.len() <= TEXT_MAX;
        if short { Ok(Value::Text(text.into())) } else { Err("a text of more than 64 KiB") }
    };
    Ok(match variant {
        Variant::Boolean(b) => Value::Bool(*b),
        Variant::SByte(v) => Value::Int(i64::from(*v)),
        Variant::Int16(v) => Value::Int(i64::from(*v)),
        Variant::Int32(v) => Value::Int(i64::from(*v)),
        Variant::Int64(v) => Value::Int(*v),
        Variant::Byte(v) => Value::Uint(u64::from(*v)),
        Variant::UInt16(v) => Value::Uint(u64::from(*v)),
        Variant::UInt32(v) => Value::Uint(u64::from(*v)),
        Variant::UInt64(v) => Value::Uint(*v),
        Variant::StatusCode(v) => Value::Uint(u64::from(v.bits())),
        Variant::Float(v) => Value::Single(*v),
        Variant::Double(v) => Value::Float(*v),
        Variant::String(s) => return text(s.as_ref()),
        Variant::LocalizedText(t) => return text(t.text.as_ref()),
        Variant::QualifiedName(n) => return text(n.name.as_ref()),
        Variant::Guid(g) => return text(&g.to_string()),
        Variant::NodeId(n) => return text(&sight.names.name(n)),
        Variant::ExpandedNodeId(n) => return text(&sight.names.expanded(n)),
        Variant::DateTime(t) => Value::Int(ms_of(t, sight.skew)),
        Variant::ByteString(b) => {
            let bytes = b.value.as_deref().unwrap_or_default();
            if bytes.len() > BYTES_MAX {
                return Err("a ByteString of more than 1024 bytes");
            }
            let mut hex = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}"); // into a String: cannot fail
            }
            return text(&hex);
        }
        Variant::Array(array) => return words_of(array).map_or_else(|| list_of(array, sight), Ok),
        Variant::Empty => return Err("no value"),
        Variant::ExtensionObject(_) => return Err("a structure"),
        Variant::XmlElement(_) => return Err("an XmlElement"),
        Variant::DataValue(_) => return Err("a DataValue"),
        Variant::DiagnosticInfo(_) => return Err("a DiagnosticInfo"),
        Variant::Variant(_) => return Err("a variant in a variant"),
    })
}

/// A status block, or something like it.
fn words_of(array: &Array) -> Option<Value> {
    let word = |v: &Variant| if let Variant::UInt16(word) = v { Some(*word) } else { None };
    let one_row = array.dimensions.as_ref().is_none_or(|d| d.len() < 2);
    let short = Some(&array.values).filter(|values| values.len() <= WORDS_MAX && one_row)?;
    Some(Value::Words(short.iter().map(word).collect::<Option<Vec<u16>>>()?.into()))
}

fn list_of(array: &Array, sight: Sight<'_>) -> Result<Value, &'static str> {
    if array.values.len() > ARRAY_MAX {
        return Err("an array of more than 1024 elements");
    }
    let element = |v: &Variant| match v {
        Variant::Array(_) => Err("an array of arrays"),
        Variant::ExtensionObject(_) => Err("an array of structures"),
        v => value_of(v, sight),
    };
    let values: Vec<Value> = array.values.iter().map(element).collect::<Result<_, _>>()?;
    let bytes = |v: &Value| if let Value::Text(text) = v { text.len() } else { 0 };
    if values.iter().map(bytes).sum::<usize>() > TEXT_MAX {
        return Err("an array of more than 64 KiB of text");
    }
    let dimensions = array.dimensions.as_deref().unwrap_or_default();
    let product = dimensions.iter().try_fold(1usize, |all, d| all.checked_mul(*d as usize));
    match dimensions.len() {
        // What the dimensions say has to be what is there; an empty array has no rows to speak of.
        2..=DIMENSIONS_MAX if product == Some(values.len()) && !values.is_empty() => Ok(rows_of(&values, dimensions)),
        0 | 1 => Ok(Value::List(values.into())),
        _ if values.is_empty() => Ok(Value::List([].into())),
        _ => Err("an array that is not of the dimensions it names"),
    }
}

/// Rows of rows, the last dimension innermost (OPC 10000-6, 5.2.2.16). No dimension is 0.
fn rows_of(values: &[Value], dimensions: &[u32]) -> Value {
    match dimensions {
        [first, rest @ ..] if !rest.is_empty() => {
            let row = values.len() / (*first).max(1) as usize;
            Value::List(values.chunks(row.max(1)).map(|row| rows_of(row, rest)).collect())
        }
        _ => Value::List(values.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opcua::types::{ExpandedNodeId, NodeId, UAString, VariantScalarTypeId, XmlElement};

    fn seen(variant: &Variant) -> Result<Value, &'static str> {
        let names = Namespaces(vec![String::new(), "urn:server".into(), "urn:maker;plc".into()]);
        value_of(variant, Sight { skew: 0, names: &names })
    }

    fn read(data: DataValue) -> Reading {
        reading_of(PointId(3), data, Sight { skew: 0, names: &Namespaces::default() })
    }

    #[test]
    fn a_bad_status_is_forwarded_with_its_code_and_without_a_value() {
        let data = DataValue {
            value: Some(Variant::Double(1.0)),
            status: Some(StatusCode::BadSensorFailure),
            ..DataValue::default()
        };
        let got = read(data);
        assert_eq!((got.quality, got.value), (Quality::Bad, None));
        assert_eq!(got.cause, Cause::Status(StatusCode::BadSensorFailure.bits()));
    }

    #[test]
    fn the_source_time_counts_then_the_servers_then_our_own() {
        let at = |ms: i64| Some(DateTime::from(ms * TICKS_PER_MS + FROM_1601));
        let of = |source, server| {
            let data = DataValue {
                value: Some(Variant::Boolean(true)),
                source_timestamp: source,
                server_timestamp: server,
                ..DataValue::default()
            };
            read(data).source_ms
        };
        assert_eq!(of(at(1000), at(2000)), 1000);
        let failed = DataValue {
            status: Some(StatusCode::BadSensorFailure),
            source_timestamp: at(1000),
            server_timestamp: at(2000),
            ..DataValue::default()
        };
        assert_eq!(read(failed).source_ms, 1000, "also of what is bad: since then");
        assert_eq!(of(None, at(2000)), 2000);
        assert_eq!(of(Some(DateTime::null()), at(2000)), 2000, "a time before 1970 is none");
        for none in [i64::MAX, i64::MIN, -1, 0, 1, DateTime::endtimes_ticks()].map(|t| Some(DateTime::from(t))) {
            assert_eq!(of(none, at(2000)), 2000, "{none:?} is no time");
            assert_eq!(of(at(1000), none), 1000, "{none:?} of the server");
            assert!(of(none, none).abs_diff(wall_clock_ms()) < 10_000, "{none:?} of both");
        }
        assert!(of(None, None).abs_diff(wall_clock_ms()) < 10_000);
    }

    #[test]
    fn arrays_are_rows_of_what_they_hold() {
        let row = |values: &[Value]| Ok(Value::List(values.into()));
        let ints = |from: i64, to: i64| Value::List((from..=to).map(Value::Int).collect());
        assert_eq!(seen(&Variant::from(vec![1u16; 64])), Ok(Value::Words([1; 64].into())), "a block");
        assert_eq!(seen(&Variant::from(vec![1u16; 65])), row(&vec![Value::Uint(1); 65]));
        assert_eq!(seen(&Variant::from(vec![-1i32, 2])), row(&[Value::Int(-1), Value::Int(2)]));
        assert_eq!(seen(&Variant::from(vec![0.5f32])), row(&[Value::Single(0.5)]));
        assert_eq!(seen(&Variant::from(vec![true, false])), row(&[Value::Bool(true), Value::Bool(false)]));
        let texts = vec![UAString::from("a"), UAString::null()];
        assert_eq!(seen(&Variant::from(texts)), row(&[Value::Text("a".into()), Value::Text("".into())]));
        let table = |dimensions: Vec<u32>| {
            let values: Vec<Variant> = (1..=6).map(Variant::Int32).collect();
            Array { value_type: VariantScalarTypeId::Int32, values, dimensions: Some(dimensions) }
        };
        let shown = |dimensions| seen(&Variant::Array(Box::new(table(dimensions))));
        assert_eq!(shown(vec![2, 3]), row(&[ints(1, 3), ints(4, 6)]));
        assert_eq!(shown(vec![3, 1, 2]).unwrap().to_string(), "[[[1, 2]], [[3, 4]], [[5, 6]]]");
        assert_eq!(shown(vec![6]), Ok(ints(1, 6)));
        // Dimensions that are not those of the values, or more of them than anyone has.
        for wrong in [vec![2, 2], vec![0, 3], [vec![6], vec![1; 8]].concat(), vec![u32::MAX, u32::MAX, u32::MAX]] {
            assert_eq!(shown(wrong), Err("an array that is not of the dimensions it names"));
        }
    }

    #[test]
    fn a_text_or_a_time_that_is_null_is_no_value_and_an_empty_text_is_one() {
        let got = |value: Variant| {
            let got = read(DataValue { value: Some(value), ..DataValue::default() });
            (got.value, got.quality, got.cause)
        };
        let none = (None, Quality::Bad, Cause::NotAvailable);
        assert_eq!(got(Variant::String(UAString::null())), none);
        assert_eq!(got(Variant::from(opcua::types::ByteString::null())), none);
        assert_eq!(got(Variant::from(DateTime::null())), none);
        let empty = Some(Value::Text("".into()));
        assert_eq!(got(Variant::from("")), (empty, Quality::Good, Cause::None));
    }

    #[test]
    fn what_is_too_long_for_a_message_is_refused_and_not_cut() {
        assert!(seen(&Variant::from(vec![1i32; ARRAY_MAX])).is_ok());
        assert_eq!(seen(&Variant::from(vec![1i32; ARRAY_MAX + 1])), Err("an array of more than 1024 elements"));
        let text = |bytes: usize| Variant::from("x".repeat(bytes).as_str());
        assert!(seen(&text(TEXT_MAX)).is_ok());
        assert_eq!(seen(&text(TEXT_MAX + 1)), Err("a text of more than 64 KiB"));
        assert!(seen(&Variant::from(vec![UAString::from("x".repeat(100).as_str()); 1000])).is_err());
    }

    #[test]
    fn what_has_no_place_in_a_value_is_named() {
        let structure = Variant::ExtensionObject(opcua::types::ExtensionObject::null());
        let xml = Variant::XmlElement(XmlElement::from("<a/>"));
        for (variant, want) in [(structure, "a structure"), (xml, "an XmlElement"), (Variant::Empty, "no value")] {
            assert_eq!(seen(&variant), Err(want));
            let reading = read(DataValue { value: Some(variant), ..DataValue::default() });
            assert_eq!((reading.quality, reading.cause), (Quality::Bad, Cause::Found(want)));
        }
    }

    #[test]
    fn a_status_that_says_more_than_good_is_the_cause_of_a_good_reading() {
        let of = |bits: u32| {
            let got = read(DataValue {
                value: Some(Variant::Int32(1)),
                status: Some(StatusCode::from(bits)),
                ..DataValue::default()
            });
            (got.quality, got.cause)
        };
        let code = |status: StatusCode| Cause::Status(status.bits());
        assert_eq!(of(0), (Quality::Good, Cause::None));
        assert_eq!(of(StatusCode::GoodLocalOverride.bits()), (Quality::Good, code(StatusCode::GoodLocalOverride)));
        assert_eq!(of(StatusCode::GoodClamped.bits()), (Quality::Good, code(StatusCode::GoodClamped)));
        let last_usable = StatusCode::UncertainLastUsableValue;
        assert_eq!(of(last_usable.bits()), (Quality::Uncertain, code(last_usable)));
        // A queue that has run over, and a value at its lower limit.
        assert_eq!(of(0x0480), (Quality::Good, Cause::None));
        assert_eq!(of(StatusCode::GoodClamped.bits() | 0x0500), (Quality::Good, code(StatusCode::GoodClamped)));
    }

    #[test]
    fn nodes_are_named_with_the_uri_of_their_namespace() {
        let text = |t: &str| Ok(Value::Text(t.into()));
        let node = NodeId::new(2, "Motor");
        assert_eq!(seen(&Variant::from(node.clone())), text("nsu=urn:maker%3Bplc;s=Motor"));
        assert_eq!(seen(&Variant::from(NodeId::new(0, 2258u32))), text("i=2258"));
        let expanded = |uri: &str| ExpandedNodeId { namespace_uri: uri.into(), ..ExpandedNodeId::from(node.clone()) };
        assert_eq!(seen(&Variant::from(expanded(""))), text("nsu=urn:maker%3Bplc;s=Motor"));
        assert_eq!(seen(&Variant::from(expanded("urn:other"))), text("nsu=urn:other;s=Motor"));
    }
}
