//! Characters in registers: how they are packed, and which characters they are.

use std::fmt;
use std::str::FromStr;

/// How characters lie in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Two a register, the first in the high byte.
    #[default]
    HighLow,
    /// Two a register, the first in the low byte.
    LowHigh,
    /// One a register, in the high byte.
    High,
    /// One a register, in the low byte.
    Low,
}

impl Packing {
    const ALL: [(&'static str, Packing); 4] = [
        ("high-low", Packing::HighLow),
        ("low-high", Packing::LowHigh),
        ("high", Packing::High),
        ("low", Packing::Low),
    ];

    pub(super) const fn per_register(self) -> u16 {
        match self {
            Packing::HighLow | Packing::LowHigh => 2,
            Packing::High | Packing::Low => 1,
        }
    }
}

/// Which characters the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Charset {
    /// UTF-8, and so ASCII.
    #[default]
    Utf8,
    /// ISO 8859-1: each byte is the character of its number. What most devices of western makers mean by text.
    Latin1,
}

const LATIN_1: &str = "latin-1";

/// What a text in registers is like, beside its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lettering {
    /// How its bytes lie in registers.
    pub packing: Packing,
    /// What its bytes are.
    pub charset: Charset,
}

impl From<Packing> for Lettering {
    fn from(packing: Packing) -> Lettering {
        Lettering { packing, charset: Charset::Utf8 }
    }
}

impl FromStr for Lettering {
    type Err = String;

    /// A packing, a charset or both, with a comma between them: `low-high`, `latin-1`, `low-high, latin-1`.
    fn from_str(text: &str) -> Result<Lettering, String> {
        let mut lettering = Lettering::default();
        for word in text.split(',').map(str::trim) {
            match Packing::ALL.iter().find(|(name, _)| *name == word) {
                Some((_, packing)) => lettering.packing = *packing,
                None if word == LATIN_1 => lettering.charset = Charset::Latin1,
                None => {
                    return Err("the packings are high-low, low-high, high and low, and a text may be latin-1".into());
                }
            }
        }
        Ok(lettering)
    }
}

impl fmt::Display for Lettering {
    /// What is not the usual, each behind a comma.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.packing != Packing::HighLow {
            let name = Packing::ALL.iter().find(|(_, p)| *p == self.packing).map_or("?", |(n, _)| n);
            write!(f, ", {name}")?;
        }
        if self.charset == Charset::Latin1 { write!(f, ", {LATIN_1}") } else { Ok(()) }
    }
}

impl Lettering {
    /// The bytes up to the first zero as characters; `None` when they are none.
    pub(super) fn text_of(self, wire: &[u8], chars: u8) -> Option<String> {
        let bytes = wire.chunks_exact(2).flat_map(|pair| match self.packing {
            Packing::HighLow => [Some(pair[0]), Some(pair[1])],
            Packing::LowHigh => [Some(pair[1]), Some(pair[0])],
            Packing::High => [Some(pair[0]), None],
            Packing::Low => [Some(pair[1]), None],
        });
        let bytes = bytes.flatten().take(usize::from(chars)).take_while(|b| *b != 0);
        match self.charset {
            Charset::Utf8 => String::from_utf8(bytes.collect()).ok(),
            Charset::Latin1 => Some(bytes.map(char::from).collect()),
        }
    }

    /// The registers that hold a text; the text says why there are none.
    pub(super) fn words_of(self, text: &str, chars: u8, registers: u16) -> Result<Vec<u16>, String> {
        if text.contains('\0') {
            return Err("a text in registers ends at its first NUL: leave that out".into());
        }
        let bytes: Vec<u8> = match self.charset {
            Charset::Utf8 => text.bytes().collect(),
            Charset::Latin1 => {
                let byte = |c| u8::try_from(c).map_err(|_| format!("`{c}` is no character of {LATIN_1}"));
                text.chars().map(byte).collect::<Result<_, String>>()?
            }
        };
        if bytes.len() > usize::from(chars) {
            return Err(format!("the text has {} bytes, and the tag {chars}", bytes.len()));
        }
        let mut bytes = bytes.into_iter().chain(std::iter::repeat(0));
        let mut next = || u16::from(bytes.next().unwrap_or(0));
        let word = |_| match self.packing {
            Packing::HighLow => next() << 8 | next(),
            Packing::LowHigh => next() | next() << 8,
            Packing::High => next() << 8,
            Packing::Low => next(),
        };
        Ok((0..registers).map(word).collect())
    }
}
