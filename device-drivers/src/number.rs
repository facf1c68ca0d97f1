//! A number as a person wrote it: a whole one stays whole, however long it is, where a double would hold 53 bits of it.

use crate::value::Value;
use std::cmp::Ordering;
use std::fmt;

/// A limit, or a value that is compared with one.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Whole.
    Whole(i128),
    /// With a fraction, or beyond all limits.
    Real(f64),
}

impl Number {
    /// Below all others.
    pub const LEAST: Number = Number::Real(f64::NEG_INFINITY);
    /// Above all others.
    pub const MOST: Number = Number::Real(f64::INFINITY);

    /// The nearest double.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64, // rounds: for those who calculate
            Number::Real(n) => n,
        }
    }

    /// The nearest whole number, upwards or downwards.
    fn whole(self, upwards: bool) -> i128 {
        match self {
            Number::Whole(n) => n,
            Number::Real(n) => (if upwards { n.ceil() } else { n.floor() }) as i128, // saturates, and infinity with it
        }
    }
}

impl From<f64> for Number {
    fn from(n: f64) -> Number {
        Number::Real(n)
    }
}

impl PartialOrd for Number {
    /// Exact: no side is rounded.
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        /// Beyond it no double is an `i128`.
        const BEYOND: f64 = (1u128 << 127) as f64;
        match (*self, *other) {
            (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
            (Number::Real(a), Number::Real(b)) => a.partial_cmp(&b),
            (Number::Real(_), Number::Whole(_)) => other.partial_cmp(self).map(Ordering::reverse),
            (Number::Whole(_), Number::Real(b)) if b.is_nan() => None,
            (Number::Whole(_), Number::Real(b)) if b >= BEYOND => Some(Ordering::Less),
            (Number::Whole(_), Number::Real(b)) if b < -BEYOND => Some(Ordering::Greater),
            (Number::Whole(a), Number::Real(b)) => {
                let floor = b.floor();
                Some(a.cmp(&(floor as i128)).then(if b > floor { Ordering::Less } else { Ordering::Equal }))
            }
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(n) => write!(f, "{n}"),
            Number::Real(n) => write!(f, "{n}"),
        }
    }
}

impl Value {
    /// The value as a number that nothing was rounded of; `None` for what is none.
    pub fn number(&self) -> Option<Number> {
        match self {
            Value::Bool(b) => Some(Number::Whole(i128::from(*b))),
            Value::Int(i) => Some(Number::Whole(i128::from(*i))),
            Value::Uint(u) => Some(Number::Whole(i128::from(*u))),
            Value::Float(f) => Some(Number::Real(*f)),
            Value::Single(f) => Some(Number::Real(f64::from(*f))),
            Value::Words(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    /// The value, or the limit that it lies beyond. A number stays of its kind: a whole one whole, a single a single. What is no number
    /// lies beyond nothing.
    pub fn clamped(self, (min, max): (Number, Number)) -> Value {
        let Some(number) = self.number() else { return self };
        let (limit, upwards) = match () {
            () if number < min => (min, true),
            () if number > max => (max, false),
            () => return self,
        };
        let whole = |n: i128| match (i64::try_from(n), u64::try_from(n)) {
            (Ok(n), _) => Value::Int(n),
            (_, Ok(n)) => Value::Uint(n),
            _ => Value::Float(limit.as_f64()),
        };
        match self {
            Value::Uint(_) => {
                u64::try_from(limit.whole(upwards)).map_or_else(|_| whole(limit.whole(upwards)), Value::Uint)
            }
            Value::Single(_) => Value::Single(limit.as_f64() as f32),
            Value::Float(_) => Value::Float(limit.as_f64()),
            _ => whole(limit.whole(upwards)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_rounded_when_numbers_are_compared() {
        use Number::{Real, Whole};
        let exact = 1i128 << 53;
        for (a, b, want) in [
            (Whole(exact + 1), Real(exact as f64), Some(Ordering::Greater)),
            (Whole(exact), Real(exact as f64), Some(Ordering::Equal)),
            (Whole(-exact - 1), Real(-(exact as f64)), Some(Ordering::Less)),
            (Whole(2), Real(2.5), Some(Ordering::Less)),
            (Whole(-2), Real(-2.5), Some(Ordering::Greater)),
            (Whole(i128::MAX), Number::MOST, Some(Ordering::Less)),
            (Whole(i128::MIN), Number::LEAST, Some(Ordering::Greater)),
            (Whole(0), Real(f64::NAN), None),
            (Real(0.5), Whole(0), Some(Ordering::Greater)),
        ] {
            assert_eq!(a.partial_cmp(&b), want, "{a} and {b}");
            assert_eq!(b.partial_cmp(&a), want.map(Ordering::reverse), "{b} and {a}");
        }
    }

    #[test]
    fn a_clamped_value_keeps_its_kind_and_every_bit_within_its_limits() {
        let big = (1u64 << 53) + 1;
        let limits = (Number::Whole(-5), Number::Whole(i128::from(big)));
        for (value, want) in [
            (Value::Uint(big), Value::Uint(big)),
            (Value::Uint(big + 1), Value::Uint(big)),
            (Value::Int(i64::MIN), Value::Int(-5)),
            (Value::Int(big as i64 - 1), Value::Int(big as i64 - 1)),
            (Value::Single(-7.5), Value::Single(-5.0)),
            (Value::Float(-0.0), Value::Float(-0.0)),
            (Value::Text("a".into()), Value::Text("a".into())),
        ] {
            assert!(value.clone().clamped(limits).same(&want), "{value}");
        }
        assert_eq!(Value::Uint(7).clamped((Number::Real(7.5), Number::Real(9.5))), Value::Uint(8), "never beyond");
        assert_eq!(Value::Uint(11).clamped((Number::Real(7.5), Number::Real(9.5))), Value::Uint(9));
    }
}
