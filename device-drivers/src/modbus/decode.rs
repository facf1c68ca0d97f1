//! Registers to values: types, word order, factor and offset.

use crate::value::{Value, WORDS_MAX};

/// How a value lies in its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One bit.
    Bool,
    /// 16 bits unsigned.
    U16,
    /// 16 bits signed.
    I16,
    /// 32 bits unsigned.
    U32,
    /// 32 bits signed.
    I32,
    /// IEEE 754 single.
    F32,
    /// 64 bits unsigned.
    U64,
    /// 64 bits signed.
    I64,
    /// IEEE 754 double.
    F64,
    /// A run of so many registers, at most [`WORDS_MAX`].
    Words(u8),
}

impl DataType {
    /// Registers (or bits of a bit table) it takes.
    pub const fn registers(self) -> u16 {
        match self {
            DataType::Bool | DataType::U16 | DataType::I16 => 1,
            DataType::U32 | DataType::I32 | DataType::F32 => 2,
            DataType::U64 | DataType::I64 | DataType::F64 => 4,
            DataType::Words(n) => n as u16,
        }
    }
}

/// Which word of a longer number comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WordOrder {
    /// High word first ("ABCD"): what the standard's own 16-bit rule suggests.
    #[default]
    HighFirst,
    /// Low word first ("CDAB").
    LowFirst,
}

/// value = raw x factor + offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Factor.
    pub factor: f64,
    /// Offset.
    pub offset: f64,
}

impl Scale {
    /// The scaled value. A factor such as 0.1 has no exact binary form and its inverse has: dividing by 10 gives the 2.4
    /// that people expect, where multiplying gives 2.4000000000000004.
    fn apply(self, raw: f64) -> f64 {
        let inverse = (1.0 / self.factor).round();
        let decimal = inverse.abs() >= 2.0 && (self.factor * inverse - 1.0).abs() < 1e-12;
        let scaled = if decimal { raw / inverse } else { raw * self.factor };
        scaled + self.offset
    }
}

/// Decodes registers; `None` when there are too few.
pub(super) fn decode(
    registers: &[u16],
    kind: DataType,
    bit: Option<u8>,
    order: WordOrder,
    scale: Option<Scale>,
) -> Option<Value> {
    let words = registers.get(..usize::from(kind.registers()))?;
    let raw = || {
        let join = |acc: u64, w: &u16| acc << 16 | u64::from(*w);
        match order {
            WordOrder::HighFirst => words.iter().fold(0, join),
            WordOrder::LowFirst => words.iter().rev().fold(0, join),
        }
    };
    let value = match kind {
        DataType::Bool => Value::Bool(raw() >> bit.unwrap_or(0) & 1 == 1),
        DataType::U16 | DataType::U32 | DataType::U64 => Value::Uint(raw()),
        DataType::I16 => Value::Int(i64::from(raw() as u16 as i16)),
        DataType::I32 => Value::Int(i64::from(raw() as u32 as i32)),
        DataType::I64 => Value::Int(raw() as i64),
        DataType::F32 => Value::Float(f64::from(f32::from_bits(raw() as u32))),
        DataType::F64 => Value::Float(f64::from_bits(raw())),
        DataType::Words(_) => Value::Words(words.into()),
    };
    Some(match scale.zip(value.as_f64()) {
        Some((s, v)) => Value::Float(s.apply(v)),
        None => value,
    })
}

const _: () = assert!(WORDS_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_the_bytes_say() {
        use DataType::*;
        let half = Some(Scale { factor: 0.1, offset: -40.0 });
        type Row<'a> = (&'a [u16], DataType, Option<u8>, WordOrder, Option<Scale>, Value);
        let rows: Vec<Row<'_>> = vec![
            (&[0xFFFF], U16, None, WordOrder::HighFirst, None, Value::Uint(65535)),
            (&[0xFFFF], I16, None, WordOrder::HighFirst, None, Value::Int(-1)),
            (&[0x0001, 0x0002], U32, None, WordOrder::HighFirst, None, Value::Uint(0x1_0002)),
            (&[0x0001, 0x0002], U32, None, WordOrder::LowFirst, None, Value::Uint(0x2_0001)),
            (&[0xFFFF, 0xFFFE], I32, None, WordOrder::HighFirst, None, Value::Int(-2)),
            (&[0x42F6, 0xE979], F32, None, WordOrder::HighFirst, None, Value::Float(f64::from(123.456f32))),
            (&[0xE979, 0x42F6], F32, None, WordOrder::LowFirst, None, Value::Float(f64::from(123.456f32))),
            (&[0x3FF0, 0, 0, 0], F64, None, WordOrder::HighFirst, None, Value::Float(1.0)),
            (&[0b1000], Bool, Some(3), WordOrder::HighFirst, None, Value::Bool(true)),
            (&[0b1000], Bool, Some(2), WordOrder::HighFirst, None, Value::Bool(false)),
            (&[24], U16, None, WordOrder::HighFirst, Some(Scale { factor: 0.1, offset: 0.0 }), Value::Float(2.4)),
            (&[3], U16, None, WordOrder::HighFirst, Some(Scale { factor: 2.5, offset: 1.0 }), Value::Float(8.5)),
            (&[650], U16, None, WordOrder::HighFirst, half, Value::Float(25.0)),
        ];
        for (registers, kind, bit, order, scale, want) in rows {
            assert_eq!(decode(registers, kind, bit, order, scale), Some(want), "{registers:x?} {kind:?}");
        }
        assert_eq!(decode(&[1], U32, None, WordOrder::HighFirst, None), None, "too few registers");
    }
}
