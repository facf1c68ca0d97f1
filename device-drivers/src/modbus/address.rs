//! Addresses as people write them, and the one form we print.
//!
//! ```text
//!   holding:0   input:10   coil:3   discrete:7      our own: table, number on the wire from 0 (V1.1b3, 4.4)
//!   holding:5.3    holding:5.4-7                    one bit, or a field of bits, of a register; bit 0 is the lowest
//!   40001   400001   30001   10001   00001          the numbers of old manuals: table digit, then number from 1
//!   1!400001   1!400001.3   1!400001#BB             as Neuron writes them: unit, number, bit, word and byte order
//! ```
//!
//! A written `40001` is what a manual says and one more than what goes over the wire; `edge-agent check` prints both.

use super::types::Order;
use std::fmt;
use std::str::FromStr;

/// The four tables of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Read and write bits.
    Coil,
    /// Read-only bits.
    Discrete,
    /// Read-only registers.
    Input,
    /// Read and write registers.
    Holding,
}

impl Table {
    /// Whether it holds bits rather than registers.
    pub const fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    /// Whether it can be written.
    pub const fn is_writable(self) -> bool {
        matches!(self, Table::Coil | Table::Holding)
    }

    /// The function code that reads it.
    pub const fn read_function(self) -> u8 {
        match self {
            Table::Coil => 1,
            Table::Discrete => 2,
            Table::Holding => 3,
            Table::Input => 4,
        }
    }

    /// Name in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Input => "input",
            Table::Holding => "holding",
        }
    }

    const ALL: [Table; 4] = [Table::Coil, Table::Discrete, Table::Input, Table::Holding];
}

/// Bits of a register, from `first` (0 is the lowest) on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits {
    /// Lowest bit.
    pub first: u8,
    /// How many, 1 to 16.
    pub count: u8,
}

/// An address: table, number from 0, and bits of the register if some are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Which table.
    pub table: Table,
    /// Number on the wire.
    pub number: u16,
    /// Bits of the register.
    pub bits: Option<Bits>,
}

/// What a person wrote: the address, and what some notations say besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The address.
    pub address: Address,
    /// The unit, if the notation names one.
    pub unit: Option<u8>,
    /// Word and byte order, if the notation names one.
    pub order: Option<Order>,
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

type Parsed<T> = Result<T, String>;

impl FromStr for Written {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Written, AddressError> {
        written(text).map_err(|why| AddressError(format!("\"{text}\" is no address: {why}")))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        text.parse::<Written>().map(|w| w.address)
    }
}

fn written(text: &str) -> Parsed<Written> {
    let (unit, rest) = match text.split_once('!') {
        Some((unit, rest)) => {
            let unit = unit.parse::<u8>().map_err(|_| format!("\"{unit}\" is not a unit from 0 to 255"))?;
            (Some(unit), rest)
        }
        None => (None, text),
    };
    let (rest, order) = match rest.split_once('#') {
        Some((rest, letters)) => (rest, Some(neuron_order(letters)?)),
        None => (rest, None),
    };
    let (number, bits) = match rest.split_once('.') {
        Some((number, bits)) => (number, Some(self::bits(bits)?)),
        None => (rest, None),
    };
    let (table, number) = match number.split_once(':') {
        Some((table, number)) => (named_table(table)?, wire_number(number)?),
        None => manual_number(number)?,
    };
    if bits.is_some() && table.is_bits() {
        return Err("a coil or discrete input has no bits".into());
    }
    Ok(Written { address: Address { table, number, bits }, unit, order })
}

fn named_table(name: &str) -> Parsed<Table> {
    Table::ALL
        .into_iter()
        .find(|t| t.name() == name)
        .ok_or_else(|| format!("there is no table \"{name}\"; the tables are coil, discrete, input and holding"))
}

fn wire_number(text: &str) -> Parsed<u16> {
    text.parse().map_err(|_| format!("\"{text}\" is not a number from 0 to 65535"))
}

/// The five- and six-digit numbers of old manuals: the first digit is the table, the rest counts from 1.
fn manual_number(text: &str) -> Parsed<(Table, u16)> {
    let hint = "expected table:number, as in \"holding:0\" or \"coil:3\", or a manual's number, as in \"40001\"";
    if !matches!(text.len(), 5 | 6) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(hint.into());
    }
    let (digit, rest) = text.split_at_checked(1).ok_or(hint)?;
    let table = match digit {
        "0" => Table::Coil,
        "1" => Table::Discrete,
        "3" => Table::Input,
        "4" => Table::Holding,
        _ => {
            return Err(format!(
                "no table has the digit {digit}: 0 coil, 1 discrete input, 3 input, 4 holding register"
            ));
        }
    };
    let number: u32 = rest.parse().map_err(|_| hint.to_string())?;
    match number.checked_sub(1).map(u16::try_from) {
        Some(Ok(wire)) => Ok((table, wire)),
        Some(Err(_)) => Err(format!("{number} is beyond 65536, the last of a table")),
        None => Err(format!("numbers of this kind begin at 1: did you mean {digit}{:0>1$}?", 1, rest.len())),
    }
}

fn bits(text: &str) -> Parsed<Bits> {
    let fail = || {
        format!("\"{text}\" are no bits of a register: expected 0 to 15, as in \"holding:5.3\" or \"holding:5.4-7\"")
    };
    let bit = |t: &str| t.parse::<u8>().ok().filter(|b| *b < 16).ok_or_else(fail);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (bit(first)?, bit(last)?),
        None => (bit(text)?, bit(text)?),
    };
    match last.checked_sub(first) {
        Some(more) => Ok(Bits { first, count: more + 1 }),
        None => Err(fail()),
    }
}

/// Neuron's letters: B (high first) or L (low first), of the words and then of the bytes in a word.
fn neuron_order(letters: &str) -> Parsed<Order> {
    match letters {
        "B" | "BB" => Ok(Order::ABCD),
        "L" | "BL" => Ok(Order::BADC),
        "LB" => Ok(Order::CDAB),
        "LL" => Ok(Order::DCBA),
        _ => Err(format!("\"#{letters}\" is no order: expected #BB, #BL, #LB, #LL, or #B or #L for one register")),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table.name(), self.number)?;
        match self.bits {
            None => Ok(()),
            Some(Bits { first, count: 1 }) => write!(f, ".{first}"),
            Some(Bits { first, count }) => write!(f, ".{first}-{}", first + count.saturating_sub(1)),
        }
    }
}

/// A run of registers or bits, as in `holding:0..9`.
pub(super) fn span_text(table: Table, start: u16, count: u16) -> String {
    let last = u32::from(start) + u32::from(count).max(1) - 1;
    format!("{}:{start}..{last}", table.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_addresses_are_read_and_written_alike() {
        for text in ["holding:0", "input:65535", "coil:3", "discrete:7", "holding:5.3", "holding:5.4-7"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn numbers_of_manuals_and_of_neuron_mean_what_they_say() {
        let rows = [
            ("40001", "holding:0", None, None),
            ("400001", "holding:0", None, None),
            ("49999", "holding:9998", None, None),
            ("465536", "holding:65535", None, None),
            ("30010", "input:9", None, None),
            ("10001", "discrete:0", None, None),
            ("00001", "coil:0", None, None),
            ("000017", "coil:16", None, None),
            ("40001.3", "holding:0.3", None, None),
            ("1!400001", "holding:0", Some(1), None),
            ("17!400002.15", "holding:1.15", Some(17), None),
            ("1!400001#BB", "holding:0", Some(1), Some(Order::ABCD)),
            ("1!400001#BL", "holding:0", Some(1), Some(Order::BADC)),
            ("1!400001#LB", "holding:0", Some(1), Some(Order::CDAB)),
            ("1!400001#LL", "holding:0", Some(1), Some(Order::DCBA)),
        ];
        for (text, address, unit, order) in rows {
            let got: Written = text.parse().unwrap();
            assert_eq!((got.address.to_string().as_str(), got.unit, got.order), (address, unit, order), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        let rows = [
            ("4001", "a manual's number"),
            ("hold:1", "there is no table \"hold\""),
            ("holding:65536", "not a number from 0 to 65535"),
            ("holding:-1", "not a number from 0 to 65535"),
            ("coil:3.1", "has no bits"),
            ("holding:3.16", "0 to 15"),
            ("holding:3.7-4", "0 to 15"),
            ("holding:", "not a number"),
            ("40000", "begin at 1: did you mean 40001?"),
            ("400000", "begin at 1: did you mean 400001?"),
            ("20001", "no table has the digit 2"),
            ("465537", "beyond 65536"),
            ("300!40001", "not a unit"),
            ("1!40001#XY", "is no order"),
            ("４0001", "expected table:number"),
        ];
        for (text, want) in rows {
            let got = text.parse::<Written>().unwrap_err().to_string();
            assert!(got.contains(want), "{got}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_it_prints_it_reads(text in "\\PC{0,12}|[0-9!#:.BLh-]{0,12}|holding:[0-9.]{0,8}") {
            if let Ok(written) = text.parse::<Written>() {
                prop_assert_eq!(written.address.to_string().parse::<Address>(), Ok(written.address));
            }
        }
    }
}
