//! What a device says when it has no value: an inverter at night, a sensor that is not fitted. There is no exception for it in Modbus, so
//! every maker has a pattern, and to whom does not know it the sun shines with 2147483648 W.
//!
//! | preset | type | pattern (SunSpec Device Information Model Specification, "not implemented") |
//! |---|---|---|
//! | `sunspec` | i16, i32, i64 | 0x8000, 0x80000000, 0x8000000000000000 |
//! | | u16, u32, u64; enumerations and bit fields, which are read as these | all ones |
//! | | f32, f64 | any NaN |
//! | | text | all zeros |
//! | `sunspec-acc` | u16, u32, u64 that count up | 0 |

use super::types::DataType;

/// Patterns one tag can have; makers have one or two.
pub const PATTERNS_MAX: usize = 8;

/// The patterns of one tag: raw bits, high word first whatever the order on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absent {
    patterns: Vec<u64>,
    /// Any NaN, and a text without characters.
    nothing: bool,
}

impl Absent {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Absent::default()
    }

    /// Adds what a text says: `sunspec`, `sunspec-acc`, raw bits as `0x8000`, or a number as `-32768`, for a float as `-9999.9`. `Ok(false)`: it
    /// is for types of another width. The error says what is wrong with it.
    pub fn add(&mut self, text: &str, kind: DataType) -> Result<bool, String> {
        let bits = u32::from(kind.registers()) * 16;
        let ones = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        match text {
            "sunspec" => self.sunspec(kind, bits, ones),
            "sunspec-acc" if matches!(kind, DataType::U16 | DataType::U32 | DataType::U64) => self.push(0),
            "sunspec-acc" => return Ok(false),
            _ if bits > 64 || matches!(kind, DataType::Text(..) | DataType::Words(_)) => return Ok(false),
            hex if hex.starts_with("0x") => {
                let digits = hex.get(2..).unwrap_or_default();
                let pattern = u64::from_str_radix(digits, 16).map_err(|_| wrong(text))?;
                match digits.len() {
                    4 | 8 | 16 if digits.len() as u32 * 4 == bits => self.push(pattern),
                    4 | 8 | 16 => return Ok(false),
                    other => return Err(format!("\"{text}\" has {other} digits: 4, 8 or 16 say how many registers")),
                }
            }
            // What the device means by it is the number, not the bits of a whole one.
            decimal if matches!(kind, DataType::F32 | DataType::F64) => {
                let number: f64 = decimal.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| wrong(text))?;
                let bits = if kind == DataType::F32 { u64::from((number as f32).to_bits()) } else { number.to_bits() };
                self.push(bits);
            }
            decimal => {
                let number: i128 = decimal.parse().map_err(|_| wrong(text))?;
                if number > i128::from(ones) || number < -(i128::from(ones >> 1) + 1) {
                    return Ok(false);
                }
                self.push(number as u64 & ones) // in its range, and a negative one as its two's complement
            }
        }
        if self.patterns.len() > PATTERNS_MAX {
            return Err(format!("a tag has {PATTERNS_MAX} patterns at most"));
        }
        Ok(true)
    }

    fn sunspec(&mut self, kind: DataType, bits: u32, ones: u64) {
        match kind {
            DataType::F16 | DataType::F32 | DataType::F64 | DataType::Text(..) => self.nothing = true,
            DataType::I16 | DataType::I32 | DataType::I64 => self.push(1 << (bits - 1)),
            _ => self.push(ones),
        }
    }

    fn push(&mut self, pattern: u64) {
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
    }

    /// Whether these raw bits mean that there is no value.
    pub(super) fn has(&self, raw: u64) -> bool {
        self.patterns.contains(&raw)
    }

    /// Whether NaN, or a text without characters, means that.
    pub(super) fn is_nothing(&self) -> bool {
        self.nothing
    }
}

fn wrong(text: &str) -> String {
    format!("found \"{text}\", expected raw bits as \"0x8000\", a number as \"-32768\", \"sunspec\" or \"sunspec-acc\"")
}
