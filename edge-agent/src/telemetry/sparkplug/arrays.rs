//! Arrays (Sparkplug 3.0.0, 6.4.16, "Array types"): numbers little-endian one behind the other, texts each with a zero behind it, truths as their
//! count and then bit by bit, the first in the highest bit. An empty array has no bytes; one of truths has a count.
//!
//! A list of ours comes as one, or as the JSON text that stands for it in a record of the spool.

use super::types::DataType as T;
use device_drivers::Value;
use serde_json::Value as Json;

/// A list as bytes of an array of this type; `None`: it is no list, or does not fit.
pub(super) fn bytes_of(value: &Value, datatype: T) -> Option<Vec<u8>> {
    element(datatype)?;
    let all: Vec<Json> = match value {
        Value::List(_) => serde_json::from_str(&crate::telemetry::payload::json_of(value)).ok()?,
        Value::Text(text) => serde_json::from_str(text).ok()?,
        Value::Words(words) => words.iter().map(|w| Json::from(*w)).collect(),
        _ => return None,
    };
    if datatype == T::BooleanArray {
        return truths(&all);
    }
    let mut out = Vec::with_capacity(8 * all.len());
    for one in &all {
        put(&mut out, one, datatype)?;
    }
    Some(out)
}

/// How many bytes an element has; 0 where that differs.
fn element(datatype: T) -> Option<usize> {
    Some(match datatype {
        T::Int8Array | T::UInt8Array => 1,
        T::Int16Array | T::UInt16Array => 2,
        T::Int32Array | T::UInt32Array | T::FloatArray => 4,
        T::Int64Array | T::UInt64Array | T::DoubleArray | T::DateTimeArray => 8,
        T::BooleanArray | T::StringArray => 0,
        _ => return None,
    })
}

fn put(out: &mut Vec<u8>, one: &Json, datatype: T) -> Option<()> {
    match datatype {
        T::StringArray => {
            let text = one.as_str()?;
            if text.contains('\0') {
                return None; // it would be two
            }
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        // What is no number is null in JSON, and NaN here.
        T::FloatArray => out.extend_from_slice(&one.as_f64().map_or(f32::NAN, |f| f as f32).to_le_bytes()),
        T::DoubleArray => out.extend_from_slice(&one.as_f64().unwrap_or(f64::NAN).to_le_bytes()),
        _ => {
            let bits = one.as_u64().or_else(|| one.as_i64().map(i64::cast_unsigned))?;
            // Two's complement: the low bytes are the same in any width.
            out.extend_from_slice(bits.to_le_bytes().get(..element(datatype)?)?);
        }
    }
    Some(())
}

fn truths(all: &[Json]) -> Option<Vec<u8>> {
    let mut out = u32::try_from(all.len()).ok()?.to_le_bytes().to_vec();
    for eight in all.chunks(8) {
        let mut byte = 0;
        for (n, one) in eight.iter().enumerate() {
            byte |= u8::from(one.as_bool()?) << (7 - n);
        }
        out.push(byte);
    }
    Some(out)
}

/// What a host wants to write, as JSON.
pub(super) fn values_of(bytes: &[u8], datatype: T) -> Option<Json> {
    let width = element(datatype)?;
    let all: Option<Vec<Json>> = match datatype {
        T::StringArray => {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(text.split_terminator('\0').map(Json::from).collect())
        }
        T::BooleanArray => {
            let (count, bits) = bytes.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            if bits.len() != count.div_ceil(8) {
                return None;
            }
            let bit = |n: usize| bits.get(n / 8).map(|byte| Json::from(byte >> (7 - n % 8) & 1 == 1));
            (0..count).map(bit).collect()
        }
        _ if bytes.len().is_multiple_of(width.max(1)) => {
            bytes.chunks_exact(width.max(1)).map(|one| number(one, datatype)).collect()
        }
        _ => None,
    };
    all.map(Json::from)
}

fn number(bytes: &[u8], datatype: T) -> Option<Json> {
    Some(match (datatype, bytes) {
        (T::FloatArray, _) => Json::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        (T::DoubleArray, _) => Json::from(f64::from_le_bytes(bytes.try_into().ok()?)),
        (T::Int8Array, [one]) => Json::from(one.cast_signed()),
        (T::Int16Array, _) => Json::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        (T::Int32Array, _) => Json::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        (T::Int64Array, _) => Json::from(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => {
            let mut whole = [0; 8];
            whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Json::from(u64::from_le_bytes(whole))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::payload::json_of;

    #[test]
    fn lists_lie_as_the_specification_has_them_and_come_back() {
        let ints = |all: &[i64]| Value::List(all.iter().map(|n| Value::Int(*n)).collect());
        let truths = [true, false, true, false, true, true, false, false, true];
        // Bytes of the examples in 6.4.16 and what follows from its words.
        let rows: [(Value, T, &[u8]); 9] = [
            (ints(&[-23, 123]), T::Int8Array, &[0xE9, 0x7B]),
            (ints(&[-30_000, 30_000]), T::Int16Array, &[0xD0, 0x8A, 0x30, 0x75]),
            (ints(&[-1]), T::Int32Array, &[0xFF; 4]),
            (Value::List([Value::Uint(u64::MAX)].into()), T::UInt64Array, &[0xFF; 8]),
            (Value::List([Value::Float(1.0)].into()), T::FloatArray, &[0, 0, 0x80, 0x3F]),
            (Value::List(truths.map(Value::Bool).into()), T::BooleanArray, &[9, 0, 0, 0, 0xAC, 0x80]),
            (Value::List([Value::Text("ABC".into()), Value::Text("".into())].into()), T::StringArray, b"ABC\0\0"),
            (ints(&[]), T::Int32Array, &[]),
            (ints(&[]), T::BooleanArray, &[0; 4]),
        ];
        for (value, datatype, want) in rows {
            assert_eq!(bytes_of(&value, datatype).as_deref(), Some(want), "{value}");
            let recorded = Value::Text(json_of(&value).into());
            assert_eq!(bytes_of(&recorded, datatype).as_deref(), Some(want), "{value} from the spool");
            let back: Json = serde_json::from_str(&json_of(&value)).unwrap();
            assert_eq!(
                values_of(want, datatype).map(|v| v.to_string().replace(".0", "")),
                Some(back.to_string().replace(".0", ""))
            );
        }
        assert_eq!(bytes_of(&Value::Int(1), T::Int32Array), None);
        assert_eq!(bytes_of(&ints(&[1]), T::StringArray), None, "numbers are no texts");
        assert_eq!([values_of(&[1, 2, 3], T::Int16Array), values_of(&[9, 0, 0, 0, 1], T::BooleanArray)], [None, None]);
    }
}
