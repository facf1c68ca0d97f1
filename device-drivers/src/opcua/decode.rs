//! OPC UA values to readings and back: status codes are forwarded, source times are the server's.
//!
//! | OPC UA | [`Value`] |
//! |---|---|
//! | Boolean | `Bool` |
//! | SByte, Int16, Int32, Int64, and so every enumeration | `Int` |
//! | Byte, UInt16, UInt32, UInt64, StatusCode | `Uint` |
//! | Float, Double | `Float` |
//! | String, LocalizedText (its text), QualifiedName (its name), Guid, NodeId | `Text`, up to 64 KiB |
//! | ByteString | `Text` in hexadecimal, up to 1 KiB |
//! | DateTime | `Int`, milliseconds since 1970 UTC |
//! | array of up to 64 UInt16 | `Words` |
//! | any other array of these, up to 1024 elements and 64 KiB of text | `List`; rows of rows for several dimensions |
//! | anything else, and no value at all | Bad, wrong type |

use crate::value::{Cause, PointId, Quality, Reading, Value, WORDS_MAX, wall_clock_ms};
use opcua::types::{
    Array, ByteString, DataValue, DateTime, Guid, LocalizedText, StatusCode, Variant, VariantScalarTypeId,
};
use std::fmt::Write;
use std::str::FromStr;

/// Most bytes of text in one value. Nothing a person looks at is longer, and a value has to fit into a message.
const TEXT_MAX: usize = 64 * 1024;
/// Most elements of an array.
const ARRAY_MAX: usize = 1024;
/// Most dimensions of an array.
const DIMENSIONS_MAX: usize = 8;
/// The longest ByteString that is shown.
const BYTES_MAX: usize = 1024;
/// Above this a 64-bit floating point number no longer tells every whole number from the next.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Ticks of 100 ns from 1601, where the protocol counts from, to 1970.
const FROM_1601: i64 = 116_444_736_000_000_000;
const TICKS_PER_MS: i64 = 10_000;

/// A value as a reading. `skew` is how far the server's clock is ahead of ours, in ticks: while decoding, the library has taken it off
/// every time but the source time. The times of a reading are the server's own.
pub(super) fn reading_of(point: PointId, data: DataValue, skew: i64) -> Reading {
    let status = data.status.unwrap_or(StatusCode::Good);
    let known = |t: DateTime, skew| u64::try_from(ms_of(&t, skew)).ok();
    let source_ms = data
        .source_timestamp
        .and_then(|t| known(t, 0))
        .or_else(|| data.server_timestamp.and_then(|t| known(t, skew)))
        .unwrap_or_else(wall_clock_ms);
    let quality = if status.is_good() {
        Quality::Good
    } else if status.is_uncertain() {
        Quality::Uncertain
    } else {
        return Reading::bad(point, Cause::Status(status.bits()), source_ms);
    };
    match data.value.as_ref().and_then(|v| value_of(v, skew)) {
        Some(value) => {
            let cause = if quality == Quality::Good { Cause::None } else { Cause::Status(status.bits()) };
            Reading { point, value: Some(value), quality, cause, source_ms }
        }
        None => Reading::bad(point, Cause::WrongType, source_ms),
    }
}

/// Milliseconds since 1970.
fn ms_of(time: &DateTime, skew: i64) -> i64 {
    // Taking off and adding again may lose a tick.
    let ticks = time.ticks().saturating_add(skew).saturating_add(5);
    ticks.saturating_sub(FROM_1601).div_euclid(TICKS_PER_MS)
}

pub(super) fn value_of(variant: &Variant, skew: i64) -> Option<Value> {
    let text = |text: &str| (text.len() <= TEXT_MAX).then(|| Value::Text(text.into()));
    Some(match variant {
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
        Variant::NodeId(n) => return text(&n.to_string()),
        Variant::DateTime(t) => Value::Int(ms_of(t, skew)),
        Variant::ByteString(b) => {
            let bytes = b.value.as_deref().unwrap_or_default();
            let short = bytes.get(..bytes.len().min(BYTES_MAX + 1)).filter(|b| b.len() <= BYTES_MAX)?;
            let mut hex = String::with_capacity(2 * short.len());
            for byte in short {
                let _ = write!(hex, "{byte:02x}"); // into a String: cannot fail
            }
            return text(&hex);
        }
        Variant::Array(array) => return words_of(array).or_else(|| list_of(array, skew)),
        _ => return None,
    })
}

/// A status block, or something like it.
fn words_of(array: &Array) -> Option<Value> {
    let word = |v: &Variant| if let Variant::UInt16(word) = v { Some(*word) } else { None };
    let one_row = array.dimensions.as_ref().is_none_or(|d| d.len() < 2);
    let short = Some(&array.values).filter(|values| values.len() <= WORDS_MAX && one_row)?;
    Some(Value::Words(short.iter().map(word).collect::<Option<Vec<u16>>>()?.into()))
}

fn list_of(array: &Array, skew: i64) -> Option<Value> {
    if array.values.len() > ARRAY_MAX {
        return None;
    }
    let element = |v: &Variant| if matches!(v, Variant::Array(_)) { None } else { value_of(v, skew) };
    let values: Vec<Value> = array.values.iter().map(element).collect::<Option<_>>()?;
    let bytes = |v: &Value| if let Value::Text(text) = v { text.len() } else { 0 };
    if values.iter().map(bytes).sum::<usize>() > TEXT_MAX {
        return None;
    }
    let dimensions = array.dimensions.as_deref().unwrap_or_default();
    let product = dimensions.iter().try_fold(1usize, |all, d| all.checked_mul(*d as usize));
    match dimensions.len() {
        // What the dimensions say has to be what is there; an empty array has no rows to speak of.
        2..=DIMENSIONS_MAX if product == Some(values.len()) && !values.is_empty() => Some(rows_of(&values, dimensions)),
        0 | 1 => Some(Value::List(values.into())),
        _ if values.is_empty() => Some(Value::List([].into())),
        _ => None,
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

/// What a node takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Scalar(VariantScalarTypeId),
    Words,
    /// Something that has no place in a [`Value`].
    Other,
}

impl Kind {
    /// The type of a value that a node has.
    pub(super) fn of(variant: &Variant) -> Option<Kind> {
        match variant {
            Variant::Empty => None,
            Variant::Array(array) => Some(words_of(array).map_or(Kind::Other, |_| Kind::Words)),
            scalar => Some(scalar.scalar_type_id().map_or(Kind::Other, Kind::Scalar)),
        }
    }

    /// A value in the type of the node, or why it does not fit.
    pub(super) fn variant(self, value: &Value) -> Result<Variant, String> {
        use VariantScalarTypeId as T;
        let kind = match self {
            Kind::Words => {
                return match value {
                    Value::Words(words) => Ok(Variant::from(words.to_vec())),
                    _ => Err("the node takes a row of words".into()),
                };
            }
            Kind::Other => return Err("the node has a type that cannot be written from here".into()),
            Kind::Scalar(kind) => kind,
        };
        let misfit = |what: &str| format!("{what} does not fit the node's type {kind}");
        let shown = match value {
            Value::Bool(v) => v.to_string(),
            Value::Int(v) => v.to_string(),
            Value::Uint(v) => v.to_string(),
            Value::Float(v) => v.to_string(),
            Value::Single(v) => v.to_string(),
            Value::Text(v) => format!("\"{v}\""),
            Value::Words(_) | Value::List(_) => "a row of values".into(),
        };
        let no = || misfit(&shown);
        let whole = || whole(value).ok_or_else(no);
        macro_rules! integer {
            ($variant:ident) => {
                Variant::$variant(whole()?.try_into().map_err(|_| no())?)
            };
        }
        Ok(match kind {
            T::Boolean => match (value, whole()) {
                (Value::Bool(b), _) => Variant::Boolean(*b),
                (_, Ok(n @ (0 | 1))) => Variant::Boolean(n == 1),
                _ => return Err(no()),
            },
            T::SByte => integer!(SByte),
            T::Byte => integer!(Byte),
            T::Int16 => integer!(Int16),
            T::UInt16 => integer!(UInt16),
            T::Int32 => integer!(Int32),
            T::UInt32 => integer!(UInt32),
            T::Int64 => integer!(Int64),
            T::UInt64 => integer!(UInt64),
            T::Float => {
                let wide = number(value).ok_or_else(no)?;
                let narrow = wide as f32;
                if narrow.is_finite() != wide.is_finite() {
                    return Err(no()); // it would become infinite on the way
                }
                Variant::Float(narrow)
            }
            T::Double => Variant::Double(number(value).ok_or_else(no)?),
            T::DateTime => {
                let ms = i64::try_from(whole()?).map_err(|_| no())?;
                let time = chrono_of(ms).ok_or_else(no)?;
                Variant::DateTime(Box::new(time))
            }
            T::String | T::LocalizedText | T::Guid | T::ByteString => {
                let Value::Text(text) = value else { return Err(no()) };
                match kind {
                    T::String => Variant::from(text.as_ref()),
                    T::LocalizedText => Variant::LocalizedText(Box::new(LocalizedText::from(text.as_ref()))),
                    T::Guid => Variant::Guid(Box::new(Guid::from_str(text).map_err(|_| no())?)),
                    _ => Variant::ByteString(ByteString::from(unhex(text).ok_or_else(no)?)),
                }
            }
            _ => return Err(no()),
        })
    }
}

fn chrono_of(ms: i64) -> Option<DateTime> {
    let ticks = ms.checked_mul(TICKS_PER_MS)?.checked_add(FROM_1601).filter(|t| *t >= 0)?;
    Some(DateTime::from(ticks))
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(v) => Some(i128::from(*v)),
        Value::Uint(v) => Some(i128::from(*v)),
        Value::Float(v) if v.fract() == 0.0 && v.abs() <= EXACT_MAX => Some(*v as i128),
        Value::Single(v) => whole(&Value::Float(f64::from(*v))),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(v) => Some(*v),
        Value::Single(v) => Some(f64::from(*v)),
        Value::Int(_) | Value::Uint(_) => whole(value).map(|n| n as f64).filter(|n| n.abs() <= EXACT_MAX),
        _ => None,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opcua::types::UAString;

    #[test]
    fn a_bad_status_is_forwarded_with_its_code_and_without_a_value() {
        let data = DataValue {
            value: Some(Variant::Double(1.0)),
            status: Some(StatusCode::BadSensorFailure),
            ..DataValue::default()
        };
        let got = reading_of(PointId(3), data, 0);
        assert_eq!((got.quality, got.value), (Quality::Bad, None));
        assert_eq!(got.cause, Cause::Status(StatusCode::BadSensorFailure.bits()));
    }

    #[test]
    fn the_source_time_counts_then_the_servers_then_our_own() {
        let at = |ms| chrono_of(ms);
        let of = |source, server| {
            let data = DataValue {
                value: Some(Variant::Boolean(true)),
                source_timestamp: source,
                server_timestamp: server,
                ..DataValue::default()
            };
            reading_of(PointId(0), data, 0).source_ms
        };
        assert_eq!(of(at(1000), at(2000)), 1000);
        assert_eq!(of(None, at(2000)), 2000);
        assert_eq!(of(Some(DateTime::null()), at(2000)), 2000, "a time before 1970 is none");
        assert!(of(None, None).abs_diff(wall_clock_ms()) < 10_000);
    }

    #[test]
    fn arrays_are_rows_of_what_they_hold() {
        let row = |values: &[Value]| Some(Value::List(values.into()));
        let ints = |from: i64, to: i64| Value::List((from..=to).map(Value::Int).collect());
        assert_eq!(value_of(&Variant::from(vec![1u16; 64]), 0), Some(Value::Words([1; 64].into())), "a block");
        assert_eq!(value_of(&Variant::from(vec![1u16; 65]), 0), row(&vec![Value::Uint(1); 65]));
        assert_eq!(value_of(&Variant::from(vec![-1i32, 2]), 0), row(&[Value::Int(-1), Value::Int(2)]));
        assert_eq!(value_of(&Variant::from(vec![0.5f32]), 0), row(&[Value::Single(0.5)]));
        assert_eq!(value_of(&Variant::from(vec![true, false]), 0), row(&[Value::Bool(true), Value::Bool(false)]));
        let texts = vec![UAString::from("a"), UAString::null()];
        assert_eq!(value_of(&Variant::from(texts), 0), row(&[Value::Text("a".into()), Value::Text("".into())]));
        let table = |dimensions: Vec<u32>| {
            let values: Vec<Variant> = (1..=6).map(Variant::Int32).collect();
            Array { value_type: VariantScalarTypeId::Int32, values, dimensions: Some(dimensions) }
        };
        let shown = |dimensions| value_of(&Variant::Array(Box::new(table(dimensions))), 0);
        assert_eq!(shown(vec![2, 3]), row(&[ints(1, 3), ints(4, 6)]));
        assert_eq!(shown(vec![3, 1, 2]).unwrap().to_string(), "[[[1, 2]], [[3, 4]], [[5, 6]]]");
        assert_eq!(shown(vec![6]), Some(ints(1, 6)));
        // Dimensions that are not those of the values, or more of them than anyone has.
        assert_eq!((shown(vec![2, 2]), shown(vec![0, 3])), (None, None));
        assert_eq!(shown([vec![6], vec![1; 8]].concat()), None);
        assert_eq!(shown(vec![u32::MAX, u32::MAX, u32::MAX]), None);
    }

    #[test]
    fn what_is_too_long_for_a_message_is_refused_and_not_cut() {
        assert!(value_of(&Variant::from(vec![1i32; ARRAY_MAX]), 0).is_some());
        assert_eq!(value_of(&Variant::from(vec![1i32; ARRAY_MAX + 1]), 0), None);
        let text = |bytes: usize| Variant::from("x".repeat(bytes).as_str());
        assert!(value_of(&text(TEXT_MAX), 0).is_some());
        assert_eq!(value_of(&text(TEXT_MAX + 1), 0), None);
        assert_eq!(value_of(&Variant::from(vec![UAString::from("x".repeat(100).as_str()); 1000]), 0), None);
    }

    #[test]
    fn every_kind_of_value_comes_back_as_it_went() {
        use VariantScalarTypeId as T;
        let text = |s: &str| Value::Text(s.into());
        let rows = [
            (T::Boolean, Value::Bool(true)),
            (T::SByte, Value::Int(-128)),
            (T::Byte, Value::Uint(255)),
            (T::Int16, Value::Int(-32_768)),
            (T::UInt16, Value::Uint(65_535)),
            (T::Int32, Value::Int(-1)),
            (T::UInt32, Value::Uint(4_294_967_295)),
            (T::Int64, Value::Int(i64::MIN)),
            (T::UInt64, Value::Uint(u64::MAX)),
            (T::Float, Value::Single(0.5)),
            (T::Double, Value::Float(0.1)),
            (T::DateTime, Value::Int(1_700_000_000_123)),
            (T::String, text("Grüße")),
            (T::LocalizedText, text("ok")),
            (T::Guid, text("72962b91-fa75-4ae6-8d28-b404dc7daf63")),
            (T::ByteString, text("00ff7f")),
        ];
        for (kind, value) in rows {
            let variant = Kind::Scalar(kind).variant(&value).unwrap();
            assert_eq!(Kind::of(&variant), Some(Kind::Scalar(kind)));
            assert_eq!(value_of(&variant, 0), Some(value), "{kind}");
        }
    }

    #[test]
    fn what_does_not_fit_the_type_is_refused_and_never_cut() {
        use VariantScalarTypeId as T;
        let rows = [
            (T::Byte, Value::Uint(256)),
            (T::SByte, Value::Int(128)),
            (T::UInt16, Value::Int(-1)),
            (T::Int16, Value::Float(1.5)),
            (T::Int64, Value::Uint(u64::MAX)),
            (T::UInt32, Value::Float(f64::NAN)),
            (T::Float, Value::Float(1e39)),
            (T::Double, Value::Int(i64::MAX)),
            (T::Boolean, Value::Int(2)),
            (T::Double, Value::Text("1".into())),
            (T::String, Value::Int(1)),
            (T::Guid, Value::Text("no".into())),
            (T::ByteString, Value::Text("0".into())),
            (T::ByteString, Value::Text("zz".into())),
        ];
        for (kind, value) in rows {
            assert!(Kind::Scalar(kind).variant(&value).is_err(), "{value:?} as {kind}");
        }
    }
}
