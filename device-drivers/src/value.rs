//! What a reading is: value + quality + source time, and the cause when the quality is not Good.
//! Numbers are held in place; only a text, a run of registers or a row is shared from the heap.

pub use control_core::image::Quality;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most words one point can have: a status block is 24, a command block 20, a text of 128 characters 64.
pub const WORDS_MAX: usize = 64;

/// A point's number on its line, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub u32);

/// The value of a point.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A coil, discrete input, bit or Boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A number with a fraction, or any number with a factor.
    Float(f64),
    /// A number with a fraction that came in 32 bits: it is shown with as many digits as it has.
    Single(f32),
    /// A run of registers, such as a status block.
    Words(Arc<[u16]>),
    /// A text.
    Text(Arc<str>),
    /// A row of values, and rows of rows where it has several dimensions.
    List(Arc<[Value]>),
}

impl Value {
    /// The value as a number; `None` for a run of registers, a text or a row.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Int(i) => Some(*i as f64),
            Value::Uint(u) => Some(*u as f64),
            Value::Float(f) => Some(*f),
            Value::Single(f) => Some(f64::from(*f)),
            Value::Words(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    /// Whether every number in it is one: NaN and infinity are none.
    pub fn is_finite(&self) -> bool {
        match self {
            Value::Float(f) => f.is_finite(),
            Value::Single(f) => f.is_finite(),
            Value::List(values) => values.iter().all(Value::is_finite),
            _ => true,
        }
    }

    /// Whether both are the same to the bit: two NaN are no change, 0 and -0 are.
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Single(a), Value::Single(b)) => a.to_bits() == b.to_bits(),
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same(b)),
            (a, b) => a == b,
        }
    }

    /// The value as an unsigned 32-bit number, if it is one.
    pub fn as_u32(&self) -> Option<u32> {
        match self {
            Value::Uint(u) => u32::try_from(*u).ok(),
            Value::Int(i) => u32::try_from(*i).ok(),
            _ => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Uint(u) => write!(f, "{u}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Single(v) => write!(f, "{v}"),
            Value::Words(words) => write!(f, "{words:?}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::List(values) => {
                f.write_str("[")?;
                for (n, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if n > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Why a reading is not Good; or, for a Good one, what its server says beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It is Good, and there is nothing to add.
    None,
    /// Nothing has been read yet.
    NotReadYet,
    /// The line is down.
    LinkDown,
    /// The device answered with this Modbus exception.
    Exception(u8),
    /// The server gave this OPC UA status code.
    Status(u32),
    /// The value did not have the configured type.
    WrongType,
    /// The server has this there, which has no place in a [`Value`].
    Found(&'static str),
    /// The device did not answer.
    NoAnswer,
    /// Nothing came back but our own words: the adapter echoes, and the device did not answer.
    OnlyEcho,
    /// The serial line was never silent, and no answer could be heard.
    NeverSilent,
    /// The device answered something that is not an answer to the request.
    BadReply,
    /// The device answers, as this unit and not as the one it was asked as.
    OtherUnit(u8),
    /// The device answers, with transaction 0 and not with the one it was asked with.
    NoTransaction,
    /// No new value for longer than allowed.
    Stale,
    /// The device says that it has no value: the pattern of its maker.
    NotAvailable,
    /// NaN or infinity: a float, and no number.
    NotFinite,
    /// It is outside `min` and `max`, and is shown as the nearer of them.
    OutOfRange,
    /// The bytes are no UTF-8.
    NoText,
    /// The register with its power of ten could not be read, or says none.
    NoScale,
    /// The configuration does not have it any more.
    Removed,
}

impl Cause {
    /// Whether the source itself says so of its value, as opposed to us who could not ask it: what it does not take back stands.
    pub const fn is_of_the_source(self) -> bool {
        matches!(
            self,
            Cause::None
                | Cause::Status(_)
                | Cause::Found(_)
                | Cause::WrongType
                | Cause::OutOfRange
                | Cause::NotAvailable
        ) || self.says_there_is_none()
    }

    /// Whether a reading with this cause says that there is no value, as opposed to that none could be had: the last one does not stand.
    pub const fn says_there_is_none(self) -> bool {
        matches!(self, Cause::NotAvailable | Cause::NotFinite | Cause::NoText | Cause::NoScale)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::None => f.write_str("none"),
            Cause::NotReadYet => f.write_str("not read yet"),
            Cause::LinkDown => f.write_str("link down"),
            Cause::Exception(code) => write!(f, "Modbus exception {code} ({})", crate::modbus::exception_name(*code)),
            Cause::Status(code) => write!(f, "OPC UA {}", opcua::types::StatusCode::from(*code)),
            Cause::WrongType => f.write_str("value does not have the configured type"),
            Cause::Found(what) => write!(f, "the server has {what} there, which is no value that can be shown"),
            Cause::NoAnswer => f.write_str("the device does not answer"),
            Cause::OnlyEcho => {
                f.write_str("only our own words came back: the adapter echoes, and the device does not answer")
            }
            Cause::NeverSilent => f.write_str(
                "the line is never silent: a device or the adapter sends all the time, and no answer is heard",
            ),
            Cause::BadReply => f.write_str("the device answered something else than what was asked for"),
            Cause::OtherUnit(unit) => write!(f, "it answers as unit {unit}, and not as the unit it is asked as"),
            Cause::NoTransaction => f.write_str("it answers with transaction 0, and not with the one it is asked with"),
            Cause::Stale => f.write_str("stale"),
            Cause::NotAvailable => f.write_str("not available: the device says that it has no value"),
            Cause::NotFinite => f.write_str("not a number: the device says NaN or infinity"),
            Cause::OutOfRange => f.write_str("outside min and max, and shown as the nearer of them"),
            Cause::NoText => f.write_str("the bytes are no UTF-8; is the text latin-1?"),
            Cause::NoScale => f.write_str("its scale factor is not available"),
            Cause::Removed => f.write_str("removed from the configuration"),
        }
    }
}

/// What bits say: a value, or none and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// A value.
    Good(Value),
    /// A value that is not to be relied on, and why.
    Doubtful(Value, Cause),
    /// There is none, and why.
    None(Cause),
}

impl Decoded {
    /// The value, whatever it is worth.
    pub fn value(self) -> Option<Value> {
        match self {
            Decoded::Good(value) | Decoded::Doubtful(value, _) => Some(value),
            Decoded::None(_) => None,
        }
    }
}

/// One reading of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Which point.
    pub point: PointId,
    /// Its value; `None` when there is none to show, and the last one stands.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// Why not further.
    pub cause: Cause,
    /// When the value was true at its source, milliseconds since 1970 UTC. For Modbus, which has no source time, when
    /// the reply arrived; for OPC UA the server's source timestamp.
    pub source_ms: u64,
}

impl Reading {
    /// What is no number is no value, whoever has read it: NaN and infinity have no place in JSON (RFC 8259, 6), and no host calculates
    /// with them. A row that holds one keeps its other places, and is Uncertain.
    pub fn without_infinities(&mut self) {
        let Some(value) = self.value.as_ref().filter(|v| !v.is_finite()) else { return };
        if matches!(value, Value::List(_)) {
            (self.quality, self.cause) = (self.quality.min(Quality::Uncertain), Cause::NotFinite);
        } else {
            (self.value, self.quality, self.cause) = (None, Quality::Bad, Cause::NotFinite);
        }
    }

    /// A Good reading.
    pub fn good(point: PointId, value: Value, source_ms: u64) -> Reading {
        Reading { point, value: Some(value), quality: Quality::Good, cause: Cause::None, source_ms }
    }

    /// What was decoded.
    pub fn decoded(point: PointId, decoded: Decoded, source_ms: u64) -> Reading {
        match decoded {
            Decoded::Good(value) => Reading::good(point, value, source_ms),
            Decoded::Doubtful(value, cause) => {
                Reading { point, value: Some(value), quality: Quality::Uncertain, cause, source_ms }
            }
            Decoded::None(cause) => Reading::bad(point, cause, source_ms),
        }
    }

    /// A reading that failed.
    pub fn bad(point: PointId, cause: Cause, source_ms: u64) -> Reading {
        Reading { point, value: None, quality: Quality::Bad, cause, source_ms }
    }
}

/// The wall clock, milliseconds since 1970 UTC; 0 before that.
pub fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
