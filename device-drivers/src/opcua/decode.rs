//! OPC UA values to readings: status codes are forwarded, source times are the server's.

use crate::value::{Cause, PointId, Quality, Reading, Value, WORDS_MAX, wall_clock_ms};
use opcua::types::{DataValue, StatusCode, Variant};

pub(super) fn reading_of(point: PointId, data: DataValue) -> Reading {
    let status = data.status.unwrap_or(StatusCode::Good);
    let source_ms = data
        .source_timestamp
        .or(data.server_timestamp)
        .and_then(|t| u64::try_from(t.as_chrono().timestamp_millis()).ok())
        .unwrap_or_else(wall_clock_ms);
    let quality = if status.is_good() {
        Quality::Good
    } else if status.is_uncertain() {
        Quality::Uncertain
    } else {
        return Reading::bad(point, Cause::Status(status.bits()), source_ms);
    };
    match data.value.as_ref().and_then(value_of) {
        Some(value) => {
            let cause = if quality == Quality::Good { Cause::None } else { Cause::Status(status.bits()) };
            Reading { point, value: Some(value), quality, cause, source_ms }
        }
        None => Reading::bad(point, Cause::WrongType, source_ms),
    }
}

fn value_of(variant: &Variant) -> Option<Value> {
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
        Variant::Float(v) => Value::Float(f64::from(*v)),
        Variant::Double(v) => Value::Float(*v),
        Variant::Array(array) => {
            if array.values.len() > WORDS_MAX {
                return None;
            }
            let word = |v: &Variant| if let Variant::UInt16(word) = v { Some(*word) } else { None };
            Value::Words(array.values.iter().map(word).collect::<Option<Vec<u16>>>()?.into())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_status_is_forwarded_with_its_code_and_without_a_value() {
        let data = DataValue {
            value: Some(Variant::Double(1.0)),
            status: Some(StatusCode::BadSensorFailure),
            ..DataValue::default()
        };
        let got = reading_of(PointId(3), data);
        assert_eq!((got.quality, got.value), (Quality::Bad, None));
        assert_eq!(got.cause, Cause::Status(StatusCode::BadSensorFailure.bits()));
    }

    #[test]
    fn an_array_too_long_for_a_block_is_refused_and_not_cut() {
        assert_eq!(value_of(&Variant::from(vec![1u16; 64])).and_then(|v| v.as_f64()), None);
        assert!(value_of(&Variant::from(vec![1u16; 64])).is_some());
        assert_eq!(value_of(&Variant::from(vec![1u16; 65])), None);
        assert_eq!(value_of(&Variant::from(vec![1i32; 2])), None);
    }
}
