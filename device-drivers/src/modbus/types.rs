//! What lies in registers: types, the order of words and bytes, factor, offset and clamp; both ways.
//!
//! ```text
//!   registers on the wire     A B | C D        each register high byte first (V1.1b3, 4.2)
//!   ABCD  high word first     CDAB  low word first     BADC / DCBA  the same with the bytes of each word swapped
//!   value = clamp(raw x factor + offset)       raw = (value - offset) / factor, refused if the type cannot hold it
//! ```
//!
//! What the registers say is a value, or it is none, and why: the pattern of a device that has no value, NaN, infinity, bytes that are no
//! text. That is asked of the raw bits, before any scale. What is outside `min` and `max` is shown as the nearer end, and is Uncertain.

use super::absent::Absent;
use super::address::{Address, Bits};
use super::text::{Charset, Lettering, Packing};
use crate::number::Number;
use crate::value::{Cause, Decoded, Value, WORDS_MAX};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One bit.
    Bool,
    /// 8 bits unsigned: the low byte of a register, or the high one.
    U8 {
        /// The high byte.
        high: bool,
    },
    /// 8 bits signed: the low byte of a register, or the high one.
    I8 {
        /// The high byte.
        high: bool,
    },
    /// 16 bits unsigned.
    U16,
    /// 16 bits signed.
    I16,
    /// 32 bits unsigned.
    U32,
    /// 32 bits signed.
    I32,
    /// 64 bits unsigned.
    U64,
    /// 64 bits signed.
    I64,
    /// IEEE 754 half.
    F16,
    /// IEEE 754 single.
    F32,
    /// IEEE 754 double.
    F64,
    /// Binary coded decimal: four digits a register, 1, 2 or 4 registers.
    Bcd(u8),
    /// A field of bits of one register.
    Field(Bits),
    /// So many characters, at most [`TEXT_MAX`]; ends at the first zero.
    Text(u8, Lettering),
    /// Seconds since 1970 in 32 bits; the value is milliseconds.
    UnixS,
    /// Milliseconds since 1970 in 64 bits.
    UnixMs,
    /// Eight BCD bytes: year, month, day, hour, minute, second, milliseconds and day of week
    /// (DATE_AND_TIME, IEC 61131-3 as S7 controllers keep it); the value is milliseconds since 1970.
    DateTimeBcd,
    /// A run of so many registers, at most [`WORDS_MAX`].
    Words(u8),
}

/// Most characters a text can have.
pub const TEXT_MAX: u8 = 128;

const NAMES: [(&str, DataType); 21] = [
    ("bool", DataType::Bool),
    ("u8", DataType::U8 { high: false }),
    ("i8", DataType::I8 { high: false }),
    ("u8-high", DataType::U8 { high: true }),
    ("i8-high", DataType::I8 { high: true }),
    ("u16", DataType::U16),
    ("i16", DataType::I16),
    ("u32", DataType::U32),
    ("i32", DataType::I32),
    ("u64", DataType::U64),
    ("i64", DataType::I64),
    ("f16", DataType::F16),
    ("f32", DataType::F32),
    ("f64", DataType::F64),
    ("bcd16", DataType::Bcd(1)),
    ("bcd32", DataType::Bcd(2)),
    ("bcd64", DataType::Bcd(4)),
    ("unix-s", DataType::UnixS),
    ("unix-ms", DataType::UnixMs),
    ("dt-bcd", DataType::DateTimeBcd),
    ("text[16]", DataType::Text(16, Lettering { packing: Packing::HighLow, charset: Charset::Utf8 })),
];

impl DataType {
    /// Registers (or bits of a bit table) it takes.
    pub const fn registers(self) -> u16 {
        match self {
            DataType::Bool | DataType::U8 { .. } | DataType::I8 { .. } | DataType::U16 | DataType::I16 => 1,
            DataType::F16 | DataType::Field(_) => 1,
            DataType::U32 | DataType::I32 | DataType::F32 | DataType::UnixS => 2,
            DataType::U64 | DataType::I64 | DataType::F64 | DataType::UnixMs | DataType::DateTimeBcd => 4,
            DataType::Bcd(n) | DataType::Words(n) => n as u16,
            DataType::Text(chars, lettering) => (chars as u16).div_ceil(lettering.packing.per_register()),
        }
    }

    /// Names people can choose from.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Whether it leaves other bits of its register to others.
    pub const fn is_part(self) -> bool {
        matches!(self, DataType::U8 { .. } | DataType::I8 { .. } | DataType::Field(_))
    }

    /// Whether factor, offset and clamp make sense for it.
    pub const fn is_number(self) -> bool {
        !matches!(self, DataType::Bool | DataType::Text(..) | DataType::Words(_) | DataType::DateTimeBcd)
    }
}

impl FromStr for DataType {
    type Err = String;

    /// `text[20]`, `text[20, low-high]`, `text[20, latin-1]`, or one of [`DataType::names`].
    fn from_str(text: &str) -> Result<DataType, String> {
        if let Some((_, kind)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        let Some(inside) = text.strip_prefix("text[").and_then(|t| t.strip_suffix(']')) else {
            return Err(format!("there is no type `{text}`"));
        };
        let (chars, lettering) = match inside.split_once(',') {
            Some((chars, lettering)) => (chars.trim(), lettering.parse()?),
            None => (inside.trim(), Lettering::default()),
        };
        let most = u16::from(TEXT_MAX).min(WORDS_MAX as u16 * lettering.packing.per_register());
        match chars.parse::<u8>() {
            Ok(n) if n > 0 && u16::from(n) <= most => Ok(DataType::Text(n, lettering)),
            _ => Err(format!("a text of this packing has 1 to {most} characters")),
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Text(chars, lettering) => write!(f, "text[{chars}{lettering}]"),
            DataType::Words(n) => write!(f, "{n} registers"),
            DataType::Field(Bits { count: 1, .. }) => f.write_str("1 bit"),
            DataType::Field(bits) => write!(f, "{} bits", bits.count),
            other => f.write_str(NAMES.iter().find(|(_, k)| k == other).map_or("?", |(n, _)| n)),
        }
    }
}

/// Order of words, and of the bytes in each. Named after where the four bytes of `ABCD` end up.
#[allow(clippy::upper_case_acronyms, reason = "these are the names on every data sheet")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// High word first, high byte first: what the standard's own 16-bit rule suggests.
    #[default]
    ABCD,
    /// Low word first.
    CDAB,
    /// High word first, bytes swapped.
    BADC,
    /// Low word first, bytes swapped.
    DCBA,
}

impl Order {
    const ALL: [(&'static str, Order); 4] =
        [("ABCD", Order::ABCD), ("CDAB", Order::CDAB), ("BADC", Order::BADC), ("DCBA", Order::DCBA)];

    const fn low_word_first(self) -> bool {
        matches!(self, Order::CDAB | Order::DCBA)
    }

    const fn swaps_bytes(self) -> bool {
        matches!(self, Order::BADC | Order::DCBA)
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Order, String> {
        let found = Order::ALL.iter().find(|(name, _)| *name == text).map(|(_, order)| *order);
        found.ok_or_else(|| format!("found \"{text}\", expected \"ABCD\", \"CDAB\", \"BADC\" or \"DCBA\""))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Order::ALL.iter().find(|(_, o)| o == self).map_or("?", |(n, _)| n))
    }
}

/// value = clamp(raw x factor + offset).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Factor, not 0.
    pub factor: f64,
    /// Offset.
    pub offset: f64,
    /// Smallest and greatest value shown; what lies outside is shown as the limit, and is Uncertain.
    pub clamp: Option<(Number, Number)>,
}

/// Greatest power of ten that a scale factor in a register can have, either way (SunSpec `sunssf`).
pub const POWER_MAX: i16 = 10;

impl Scale {
    /// A factor such as 0.1 has no exact binary form and its inverse has: dividing by 10 gives the 2.4
    /// that people expect, where multiplying gives 2.4000000000000004.
    fn inverse(self) -> Option<f64> {
        let inverse = (1.0 / self.factor).round();
        (inverse.abs() >= 2.0 && (self.factor * inverse - 1.0).abs() < 1e-12).then_some(inverse)
    }

    /// Limits and nothing else: what lies between them stays what it is, to the last bit.
    fn is_plain(self) -> bool {
        self.factor == 1.0 && self.offset == 0.0
    }

    fn apply(self, raw: f64) -> f64 {
        (match self.inverse() {
            Some(inverse) => raw / inverse,
            None => raw * self.factor,
        }) + self.offset
    }

    /// The nearer end of the range, for what is outside of it.
    fn outside(&self, value: &Value) -> Option<Value> {
        let end = value.clone().clamped(self.clamp?);
        (end != *value).then_some(end)
    }

    fn undo(self, value: f64) -> f64 {
        let shifted = value - self.offset;
        match self.inverse() {
            Some(inverse) => shifted * inverse,
            None => shifted / self.factor,
        }
    }
}

/// How a value lies in its registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    /// What it is.
    pub kind: DataType,
    /// Order of words and bytes.
    pub order: Order,
    /// Factor, offset and clamp; most values have none.
    pub scale: Option<Box<Scale>>,
    /// What is special about it; most values have nothing.
    pub special: Option<Arc<Special>>,
}

/// What few tags have, and those of a device often share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Special {
    /// Patterns that mean that there is no value.
    pub absent: Absent,
    /// The register whose whole number, signed, is the power of ten that the value is multiplied by.
    pub power: Option<Address>,
}

impl Format {
    /// A plain value, high word first.
    pub fn plain(kind: DataType) -> Format {
        Format { kind, order: Order::ABCD, scale: None, special: None }
    }

    /// The same at this address: a field, where the address names bits of a register.
    pub(super) fn within(&self, address: &Address) -> Format {
        let mut format = self.clone();
        if let (Some(bits), false) = (address.bits, address.table.is_bits()) {
            format.kind = DataType::Field(bits);
        }
        format
    }

    /// The register of its power of ten, if it has one.
    pub(super) fn power(&self) -> Option<Address> {
        self.special.as_ref()?.power
    }

    /// Decodes registers as they came over the wire, two bytes each. There is no value when there are too few, when they hold no such value
    /// (a BCD digit above 9, a month 13), or when they say that there is none.
    pub fn decode(&self, wire: &[u8]) -> Decoded {
        self.decode_with(wire, 0)
    }

    /// The same, where another register says by which power of ten it is multiplied.
    pub(super) fn decode_with(&self, wire: &[u8], power: i16) -> Decoded {
        let Some(wire) = wire.get(..usize::from(self.kind.registers()) * 2) else {
            return Decoded::None(Cause::WrongType);
        };
        if self.special.as_ref().is_some_and(|s| s.absent.has(bits_of(wire, self.order))) {
            return Decoded::None(Cause::NotAvailable);
        }
        let is_nothing = |value: &Value| match value {
            Value::Text(text) => text.is_empty(),
            other => other.as_f64().is_some_and(f64::is_nan),
        };
        let value = match self.raw_value(wire) {
            Some(value) => value,
            None if matches!(self.kind, DataType::Text(..)) => return Decoded::None(Cause::NoText),
            None => return Decoded::None(Cause::WrongType),
        };
        if self.special.as_ref().is_some_and(|s| s.absent.is_nothing()) && is_nothing(&value) {
            return Decoded::None(Cause::NotAvailable);
        }
        let value = self.scaled(value, power);
        if value.as_f64().is_some_and(|f| !f.is_finite()) {
            return Decoded::None(Cause::NotFinite);
        }
        match self.scale.as_ref().and_then(|scale| scale.outside(&value)) {
            Some(end) => Decoded::Doubtful(end, Cause::OutOfRange),
            None => Decoded::Good(value),
        }
    }

    fn scaled(&self, value: Value, power: i16) -> Value {
        let scale = self.scale.as_deref().filter(|s| !s.is_plain());
        let with_power = self.power().is_some();
        match value.as_f64().filter(|_| with_power || scale.is_some()) {
            Some(raw) => {
                let ten = 10f64.powi(i32::from(power.unsigned_abs()));
                // Dividing by ten gives the 2.4 that people expect: see [`Scale::inverse`].
                let raw = if power < 0 { raw / ten } else { raw * ten };
                Value::Float(scale.map_or(raw, |scale| scale.apply(raw)))
            }
            None => value,
        }
    }

    /// What the bits are, as they are.
    fn raw_value(&self, wire: &[u8]) -> Option<Value> {
        let raw = || bits_of(wire, self.order);
        Some(match self.kind {
            DataType::Bool => Value::Bool(raw() & 1 == 1),
            DataType::Field(bits) => {
                let field = raw() >> bits.first & ((1u64 << bits.count.min(16)) - 1);
                if bits.count == 1 { Value::Bool(field == 1) } else { Value::Uint(field) }
            }
            DataType::U8 { high } => Value::Uint(raw() >> (if high { 8 } else { 0 }) & 0xFF),
            DataType::I8 { high } => Value::Int(i64::from((raw() >> (if high { 8 } else { 0 })) as u8 as i8)),
            DataType::U16 | DataType::U32 | DataType::U64 => Value::Uint(raw()),
            DataType::I16 => Value::Int(i64::from(raw() as u16 as i16)),
            DataType::I32 => Value::Int(i64::from(raw() as u32 as i32)),
            DataType::I64 => Value::Int(raw() as i64),
            DataType::F16 => Value::Float(half_to_f64(raw() as u16)),
            DataType::F32 => Value::Single(f32::from_bits(raw() as u32)),
            DataType::F64 => Value::Float(f64::from_bits(raw())),
            DataType::Bcd(_) => Value::Uint(from_bcd(raw())?),
            DataType::UnixS => Value::Int(i64::try_from(raw()).ok()?.checked_mul(1000)?),
            DataType::UnixMs => Value::Int(i64::try_from(raw()).ok()?),
            DataType::DateTimeBcd => Value::Int(date_time_bcd(raw())?),
            DataType::Text(chars, lettering) => Value::Text(lettering.text_of(wire, chars)?.into()),
            DataType::Words(_) => Value::Words(words_of(wire).collect()),
        })
    }

    /// The least and the greatest number that its registers can hold, as it is shown; `None` where there is no end, or no number.
    pub fn range(&self) -> Option<(Number, Number)> {
        let whole = |bits: u32| (0, (1i128 << bits) - 1);
        let signed = |bits: u32| (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
        let (least, most) = match self.kind {
            DataType::Field(bits) => whole(u32::from(bits.count.min(16))),
            DataType::U8 { .. } => whole(8),
            DataType::I8 { .. } => signed(8),
            DataType::U16 => whole(16),
            DataType::I16 => signed(16),
            DataType::U32 => whole(32),
            DataType::I32 => signed(32),
            DataType::U64 => whole(64),
            DataType::I64 => signed(64),
            DataType::Bcd(n) => (0, 10i128.pow(4 * u32::from(n.min(4))) - 1),
            DataType::UnixS => (0, i128::from(u32::MAX) * 1000),
            DataType::UnixMs => (0, i128::from(i64::MAX)),
            _ => return None,
        };
        if self.power().is_some() {
            return None; // the device says how far it goes
        }
        let Some(scale) = self.scale.as_deref().filter(|s| !s.is_plain()) else {
            return Some((Number::Whole(least), Number::Whole(most)));
        };
        let open = Scale { clamp: None, ..*scale };
        let ends = [least, most].map(|n| open.apply(Number::Whole(n).as_f64()));
        Some((Number::Real(ends[0].min(ends[1])), Number::Real(ends[0].max(ends[1]))))
    }

    /// The registers that hold this value; the text says why there are none.
    pub fn encode(&self, value: &Value) -> Result<Vec<u16>, String> {
        let raw = match (self.kind, value) {
            (DataType::Text(chars, lettering), Value::Text(text)) => {
                return lettering.words_of(text, chars, self.kind.registers());
            }
            (DataType::Text(..), _) => return Err("this tag is a text".into()),
            (DataType::Words(_) | DataType::DateTimeBcd, _) => return Err(format!("{} cannot be written", self.kind)),
            _ if self.kind.is_part() => {
                return Err("a part of a register cannot be written: its neighbours would be overwritten".into());
            }
            (DataType::Bool, Value::Bool(b)) => u64::from(*b),
            (DataType::Bool, other) => match other.as_f64() {
                Some(0.0) => 0,
                Some(1.0) => 1,
                _ => return Err(format!("{other} is neither true nor false")),
            },
            _ => self.number(value)?,
        };
        let count = usize::from(self.kind.registers());
        let bytes = raw.to_be_bytes();
        let wire = bytes.get(8 - count * 2..).ok_or("too long")?;
        let mut words: Vec<u16> = words_of(wire).collect();
        if self.order.low_word_first() {
            words.reverse();
        }
        if self.order.swaps_bytes() {
            words.iter_mut().for_each(|w| *w = w.swap_bytes());
        }
        Ok(words)
    }

    /// A part of a register: its bits where they lie, and which bits these are. The text says why there are none.
    pub(super) fn encode_part(&self, value: &Value) -> Result<(u16, u16), String> {
        let (first, count) = match self.kind {
            DataType::Field(bits) => (u32::from(bits.first), u32::from(bits.count)),
            DataType::U8 { high } | DataType::I8 { high } => (if high { 8 } else { 0 }, 8),
            _ => return Err(format!("{} takes whole registers", self.kind)),
        };
        let raw = match value {
            Value::Bool(b) if count == 1 => u64::from(*b),
            Value::Bool(_) => return Err("this tag is a number".into()),
            other => self.number(other)?,
        };
        let all = ((1u32 << count.min(16)) - 1) as u16;
        let (bits, mask) = (((raw as u16) & all) << first, all << first);
        Ok(if self.order.swaps_bytes() { (bits.swap_bytes(), mask.swap_bytes()) } else { (bits, mask) })
    }

    /// The raw bits of a number, range-checked against the type.
    fn number(&self, value: &Value) -> Result<u64, String> {
        let number = Some(value).filter(|v| !matches!(v, Value::Bool(_))).and_then(Value::as_f64);
        let wanted = number.ok_or("this tag is a number")?;
        let scale = self.scale.as_deref().filter(|s| !s.is_plain());
        // Whole numbers without a scale go through unrounded: a double holds 53 bits only.
        let exact: Option<i128> = match (value.number(), scale) {
            (Some(Number::Whole(n)), None) => Some(n),
            _ => None,
        };
        let raw = scale.map_or(wanted, |s| s.undo(wanted));
        if !raw.is_finite() {
            return Err(format!("{wanted} is no number that can be written"));
        }
        let whole = |min: i128, max: i128| -> Result<i128, String> {
            let near = raw.round();
            match scale {
                // Never another value than the one that was allowed.
                Some(scale) if (near - raw).abs() > 1e-6 * raw.abs().max(1.0) => {
                    let (below, above) = (scale.apply(raw.floor()), scale.apply(raw.ceil()));
                    return Err(format!("{wanted} lies between two steps of the device, {below} and {above}"));
                }
                None if exact.is_none() && (near - raw).abs() > 1e-9 => {
                    return Err(format!("{wanted} is not a whole number, and the tag is {}", self.kind));
                }
                _ => {}
            }
            let n = exact.unwrap_or(near as i128); // saturates, and the range is checked next
            if (min..=max).contains(&n) { Ok(n) } else { Err(format!("{value} does not fit into {}", self.kind)) }
        };
        Ok(match self.kind {
            DataType::Field(bits) => whole(0, (1i128 << bits.count.min(16)) - 1)? as u64,
            DataType::U8 { .. } => whole(0, i128::from(u8::MAX))? as u64,
            DataType::I8 { .. } => u64::from(whole(i128::from(i8::MIN), i128::from(i8::MAX))? as i8 as u8),
            DataType::U16 => whole(0, i128::from(u16::MAX))? as u64,
            DataType::U32 => whole(0, i128::from(u32::MAX))? as u64,
            DataType::U64 => whole(0, i128::from(u64::MAX))? as u64,
            DataType::I16 => u64::from(whole(i128::from(i16::MIN), i128::from(i16::MAX))? as i16 as u16),
            DataType::I32 => u64::from(whole(i128::from(i32::MIN), i128::from(i32::MAX))? as i32 as u32),
            DataType::I64 => whole(i128::from(i64::MIN), i128::from(i64::MAX))? as i64 as u64,
            DataType::UnixS => (whole(0, i128::from(u32::MAX) * 1000)? / 1000) as u64,
            DataType::UnixMs => whole(0, i128::from(i64::MAX))? as u64,
            DataType::Bcd(n) => to_bcd(whole(0, 10i128.pow(4 * u32::from(n)) - 1)? as u64),
            DataType::F16 => u64::from(f64_to_half(raw).ok_or_else(|| format!("{wanted} does not fit into f16"))?),
            DataType::F32 if (raw as f32).is_finite() && (raw as f32 == 0.0) == (raw == 0.0) => {
                u64::from((raw as f32).to_bits())
            }
            DataType::F64 => raw.to_bits(),
            _ => return Err(format!("{wanted} does not fit into {}", self.kind)),
        })
    }
}

fn words_of(wire: &[u8]) -> impl Iterator<Item = u16> + '_ {
    wire.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Up to four registers as one number, high word first, whatever order they came in.
fn bits_of(wire: &[u8], order: Order) -> u64 {
    let join = |acc: u64, word: u16| acc << 16 | u64::from(if order.swaps_bytes() { word.swap_bytes() } else { word });
    if order.low_word_first() {
        wire.chunks_exact(2).rev().map(|p| u16::from_be_bytes([p[0], p[1]])).fold(0, join)
    } else {
        words_of(wire).fold(0, join)
    }
}

fn from_bcd(raw: u64) -> Option<u64> {
    (0..16).rev().try_fold(0u64, |acc, n| {
        let digit = raw >> (4 * n) & 0xF;
        (digit < 10).then(|| acc * 10 + digit)
    })
}

fn to_bcd(mut value: u64) -> u64 {
    let mut bcd = 0;
    for n in 0..16 {
        bcd |= (value % 10) << (4 * n);
        value /= 10;
    }
    bcd
}

/// IEEE 754 half: 1 sign, 5 exponent, 10 fraction.
fn half_to_f64(h: u16) -> f64 {
    let (sign, exponent, fraction) = (h >> 15, i32::from(h >> 10 & 0x1F), f64::from(h & 0x3FF));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// The nearest half; `None` when it is too great for one.
fn f64_to_half(value: f64) -> Option<u16> {
    let (sign, magnitude) = (if value.is_sign_negative() { 0x8000 } else { 0 }, value.abs());
    if magnitude >= 65_520.0 {
        return None;
    }
    // Halves of one sign are ordered like their bits: search for the nearest.
    let (mut low, mut high) = (0u16, 0x7BFFu16);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if half_to_f64(middle) <= magnitude { low = middle } else { high = middle - 1 }
    }
    let up = low + u16::from(low < 0x7BFF && half_to_f64(low + 1) - magnitude < magnitude - half_to_f64(low));
    Some(sign | up)
}

fn date_time_bcd(raw: u64) -> Option<i64> {
    let byte = |n: u32| from_bcd(raw >> (56 - 8 * n) & 0xFF);
    let (year, month, day) = (byte(0)?, byte(1)?, byte(2)?);
    let (hour, minute, second) = (byte(3)?, byte(4)?, byte(5)?);
    let ms = byte(6)? * 10 + from_bcd(raw >> 4 & 0xF)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let year = if year < 90 { 2000 + year } else { 1900 + year }; // the years 1990 to 2089
    let days = days_from_civil(year as i64, month as i64, day as i64);
    Some(((days * 24 + hour as i64) * 60 + minute as i64) * 60_000 + (second as i64) * 1000 + ms as i64)
}

/// Days since 1970-01-01 in the Gregorian calendar, March-based years of 400-year eras.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const _: () = assert!(WORDS_MAX <= u8::MAX as usize);

#[cfg(test)]
#[path = "types_tests.rs"]
mod tests;
