//! Values as a node takes them: its type, its shape, its language, its choices.
//!
//! ```text
//!   what the node has and says of itself ──> Kind ──> a value in its own type, or why it does not fit
//!      value, DataType, ValueRank, EnumStrings, EnumValues
//! ```
//!
//! Nothing is cut to fit: a number that does not fit the type, a row of another shape, or a number that names none of the choices is
//! refused before it is sent.

use super::decode::{ARRAY_MAX, DIMENSIONS_MAX, FROM_1601, TICKS_PER_MS};
use crate::value::Value;
use opcua::types::{Array, ByteString, DateTime, Guid, LocalizedText, UAString, Variant, VariantScalarTypeId};
use std::str::FromStr;
use std::sync::Arc;

/// Above this a 64-bit floating point number no longer tells every whole number from the next.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Choices that a refusal lists.
const SHOWN_MAX: usize = 12;

/// What a node takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kind {
    scalar: VariantScalarTypeId,
    shape: Shape,
    /// The language of its text (OPC 10000-3, 8.5): what we write is in the same, as far as we know.
    locale: UAString,
    /// The numbers it takes, each with its name; `None` where it does not say.
    pub(super) choices: Option<Arc<[(i64, String)]>>,
}

/// One value, or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// A row of any length.
    Row,
    /// Rows of rows of just these lengths.
    Table(Vec<u32>),
}

impl Kind {
    /// One value, or a row, of a type.
    pub(super) fn new(scalar: VariantScalarTypeId, shape: Shape) -> Kind {
        Kind { scalar, shape, locale: UAString::null(), choices: None }
    }

    /// The type of a value that a node has.
    pub(super) fn of(variant: &Variant) -> Option<Kind> {
        match variant {
            Variant::Array(array) => {
                let dimensions = array.dimensions.as_deref().unwrap_or_default();
                let table = (2..=DIMENSIONS_MAX).contains(&dimensions.len()) && !array.values.is_empty();
                let shape = if table { Shape::Table(dimensions.to_vec()) } else { Shape::Row };
                let locale = array.values.first().map_or_else(UAString::null, locale_of);
                Some(Kind { locale, ..Kind::new(array.value_type, shape) })
            }
            one => {
                let kind = Kind::new(one.scalar_type_id()?, Shape::One);
                Some(Kind { locale: locale_of(one), ..kind })
            }
        }
    }

    /// Whether it takes whole numbers: such a node may have names for them.
    pub(super) fn is_whole(&self) -> bool {
        use VariantScalarTypeId as T;
        matches!(self.scalar, T::SByte | T::Byte | T::Int16 | T::UInt16 | T::Int32 | T::UInt32 | T::Int64 | T::UInt64)
    }

    /// A value in the type of the node, or why it does not fit.
    pub(super) fn variant(&self, value: &Value) -> Result<Variant, String> {
        let dimensions = match (&self.shape, value) {
            (Shape::One, Value::Words(_) | Value::List(_)) => return Err("the node takes one value, not a row".into()),
            (Shape::One, one) => return self.one(one),
            (_, Value::Words(_) | Value::List(_)) => match &self.shape {
                Shape::Table(dimensions) => dimensions.as_slice(),
                _ => &[],
            },
            _ => return Err(format!("the node takes a row of values, as in [1, 2], and {} is one", shown(value))),
        };
        let mut values = Vec::new();
        self.fill(value, dimensions, &mut values)?;
        let array = match dimensions {
            [] => Array::new(self.scalar, values),
            table => Array::new_multi(self.scalar, values, table.to_vec()),
        };
        let array = array.map_err(|_| "this row does not fit the node".to_string())?;
        Ok(Variant::Array(Box::new(array)))
    }

    /// Puts the values of a row, or of rows of rows with these lengths, one behind the other.
    fn fill(&self, value: &Value, dimensions: &[u32], out: &mut Vec<Variant>) -> Result<(), String> {
        let length = match value {
            Value::Words(words) => words.len(),
            Value::List(values) => values.len(),
            one => return Err(format!("{} stands where a row of values should", shown(one))),
        };
        if let Some(wanted) = dimensions.first().filter(|wanted| **wanted as usize != length) {
            return Err(format!("a row of {length} values, the node has {wanted} there"));
        }
        if out.len() + length > ARRAY_MAX {
            return Err(format!("more than {ARRAY_MAX} values in one row"));
        }
        let inner = dimensions.get(1..).unwrap_or_default();
        match value {
            Value::Words(words) => {
                for word in words.iter() {
                    out.push(self.one(&Value::Uint(u64::from(*word)))?);
                }
            }
            Value::List(values) => {
                for value in values.iter() {
                    match inner {
                        [] => out.push(self.one(value)?),
                        deeper => self.fill(value, deeper, out)?,
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One value in the type of the node.
    fn one(&self, value: &Value) -> Result<Variant, String> {
        use VariantScalarTypeId as T;
        let kind = self.scalar;
        let no = || format!("{} does not fit the node's type {kind}", shown(value));
        let whole = || whole(value).ok_or_else(no);
        self.is_a_choice(value)?;
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
                    T::LocalizedText => {
                        let (locale, text) = (self.locale.clone(), UAString::from(text.as_ref()));
                        Variant::LocalizedText(Box::new(LocalizedText { locale, text }))
                    }
                    T::Guid => Variant::Guid(Box::new(Guid::from_str(text).map_err(|_| no())?)),
                    _ => Variant::ByteString(ByteString::from(unhex(text).ok_or_else(no)?)),
                }
            }
            _ => return Err(format!("the node's type {kind} cannot be written from here")),
        })
    }

    /// Whether a number names one of the choices, where there are such.
    fn is_a_choice(&self, value: &Value) -> Result<(), String> {
        let Some(choices) = &self.choices else { return Ok(()) };
        let given = whole(value);
        if choices.iter().any(|(number, _)| Some(i128::from(*number)) == given) {
            return Ok(());
        }
        let names = choices.iter().take(SHOWN_MAX).map(|(number, name)| format!("{number} {name}"));
        let mut names = names.collect::<Vec<_>>().join(", ");
        if choices.len() > SHOWN_MAX {
            names += ", ..";
        }
        Err(format!("{} is none of what the node takes: {names}", shown(value)))
    }
}

fn locale_of(variant: &Variant) -> UAString {
    match variant {
        Variant::LocalizedText(text) => text.locale.clone(),
        _ => UAString::null(),
    }
}

/// A value as it is named in a refusal.
fn shown(value: &Value) -> String {
    match value {
        Value::Words(_) | Value::List(_) => "a row of values".into(),
        one => one.to_string(),
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
    use crate::opcua::decode::{Sight, value_of};
    use crate::opcua::session::Namespaces;

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
        let names = Namespaces::default();
        let sight = Sight { skew: 0, names: &names };
        for (kind, value) in rows {
            let variant = Kind::new(kind, Shape::One).variant(&value).unwrap();
            assert_eq!(Kind::of(&variant), Some(Kind::new(kind, Shape::One)));
            assert_eq!(value_of(&variant, sight), Ok(value), "{kind}");
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
            assert!(Kind::new(kind, Shape::One).variant(&value).is_err(), "{value:?} as {kind}");
        }
    }

    #[test]
    fn rows_go_as_rows_and_tables_in_their_own_shape() {
        use VariantScalarTypeId as T;
        let list = |values: &[Value]| Value::List(values.into());
        let ints = |from: i64, to: i64| Value::List((from..=to).map(Value::Int).collect());
        let row = Kind::of(&Variant::from(vec![1.0f64, 2.0])).unwrap();
        assert_eq!(row.variant(&ints(1, 3)), Ok(Variant::from(vec![1.0f64, 2.0, 3.0])), "of any length");
        assert_eq!(row.variant(&list(&[])), Ok(Variant::from(Vec::<f64>::new())));
        assert_eq!(Kind::new(T::UInt16, Shape::Row).variant(&ints(1, 2)), Ok(Variant::from(vec![1u16, 2])));
        let words = Value::Words([7, 8].into());
        assert_eq!(Kind::new(T::UInt16, Shape::Row).variant(&words), Ok(Variant::from(vec![7u16, 8])));

        let table = Array::new_multi(T::Int32, (1..=6).map(Variant::Int32).collect::<Vec<_>>(), vec![2u32, 3]).unwrap();
        let table = Variant::Array(Box::new(table));
        let kind = Kind::of(&table).unwrap();
        assert_eq!(kind.variant(&list(&[ints(1, 3), ints(4, 6)])), Ok(table));
        for wrong in [ints(1, 6), list(&[ints(1, 3)]), list(&[ints(1, 3), ints(4, 5)]), Value::Int(1)] {
            assert!(kind.variant(&wrong).is_err(), "{wrong}");
        }
        for wrong in [Value::Float(1.0), list(&[Value::Text("1".into())]), list(&[ints(1, 2)]), ints(0, 2000)] {
            assert!(row.variant(&wrong).is_err(), "{wrong}");
        }
        assert!(Kind::new(T::Double, Shape::One).variant(&ints(1, 1)).is_err());
    }

    #[test]
    fn a_number_that_names_no_choice_is_refused_with_those_there_are() {
        let names = [(0, "Off".to_string()), (4, "On".to_string())];
        let kind = Kind { choices: Some(names.into()), ..Kind::new(VariantScalarTypeId::Int32, Shape::One) };
        assert_eq!(kind.variant(&Value::Int(4)), Ok(Variant::Int32(4)));
        let why = kind.variant(&Value::Uint(1)).unwrap_err();
        assert_eq!(why, "1 is none of what the node takes: 0 Off, 4 On");
    }

    #[test]
    fn a_text_keeps_the_language_of_the_one_before() {
        let german = LocalizedText { locale: "de".into(), text: "bereit".into() };
        let kind = Kind::of(&Variant::LocalizedText(Box::new(german))).unwrap();
        let Ok(Variant::LocalizedText(text)) = kind.variant(&Value::Text("läuft".into())) else { panic!() };
        assert_eq!((text.locale.as_ref(), text.text.as_ref()), ("de", "läuft"));
    }
}
