//! Addresses as people write them: `holding:0`, `input:10`, `coil:3`, `discrete:7`, `holding:5.3` for a bit.
//! Numbers are those on the wire, from 0 (Modbus Application Protocol V1.1b3, 4.4).

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

    const NAMES: [(&'static str, Table); 4] =
        [("coil", Table::Coil), ("discrete", Table::Discrete), ("input", Table::Input), ("holding", Table::Holding)];
}

/// An address: table, number from 0, and a bit of the register if one is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Which table.
    pub table: Table,
    /// Number on the wire.
    pub number: u16,
    /// Bit 0 (lowest) to 15 of a register.
    pub bit: Option<u8>,
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let fail = |why: String| Err(AddressError(format!("\"{text}\" is no address: {why}")));
        let Some((table, rest)) = text.split_once(':') else {
            return fail("expected table:number, as in \"holding:0\" or \"coil:3\"".into());
        };
        let Some((_, table)) = Table::NAMES.iter().find(|(name, _)| *name == table) else {
            return fail(format!("there is no table \"{table}\"; the tables are coil, discrete, input and holding"));
        };
        let (number, bit) = match rest.split_once('.') {
            Some((number, bit)) => (number, Some(bit)),
            None => (rest, None),
        };
        let Ok(number) = number.parse::<u16>() else {
            return fail(format!("\"{number}\" is not a number from 0 to 65535"));
        };
        let bit = match bit.map(str::parse::<u8>) {
            None => None,
            Some(Ok(b)) if b < 16 && !table.is_bits() => Some(b),
            Some(_) if table.is_bits() => return fail("a coil or discrete input has no bits".into()),
            Some(_) => return fail("a bit is a number from 0 to 15".into()),
        };
        Ok(Address { table: *table, number, bit })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Table::NAMES.iter().find(|(_, t)| *t == self.table).map_or("?", |(n, _)| n);
        match self.bit {
            Some(bit) => write!(f, "{name}:{}.{bit}", self.number),
            None => write!(f, "{name}:{}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["holding:0", "input:65535", "coil:3", "discrete:7", "holding:5.3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        let rows = [
            ("40001", "expected table:number"),
            ("hold:1", "there is no table \"hold\""),
            ("holding:65536", "not a number from 0 to 65535"),
            ("holding:-1", "not a number from 0 to 65535"),
            ("coil:3.1", "has no bits"),
            ("holding:3.16", "from 0 to 15"),
            ("holding:", "not a number"),
        ];
        for (text, want) in rows {
            let got = text.parse::<Address>().unwrap_err().to_string();
            assert!(got.contains(want), "{got}");
        }
    }
}
