//! A fault script: what goes wrong in a bank, when, for whom, and how likely.
//!
//! ```text
//!   seed = 7
//!   [[fault]]                 start        at                     at + for
//!   at = "2s"                   |----------|=======================|---------->
//!   for = "10s"                                kind, with probability,
//!   units = [3, "10..19"]                      for these units
//!   kind = "slow"
//!   delay = "200ms"
//! ```
//!
//! Unknown keys are refused, and so is a parameter that its kind does not know. Whether a fault strikes is drawn from the seed.

use crate::modbus::Table;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A timeline of faults. The default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultScript {
    /// Decides every chance.
    pub seed: u64,
    /// In the order of the file; of several that answer for the same request the first does.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Begins so long after the script is set.
    pub at: Duration,
    /// Lasts so long; `None` for ever.
    pub lasting: Option<Duration>,
    /// First and last of each range of units; empty for all.
    pub units: Vec<(u8, u8)>,
    /// From 0 to 1, for each request.
    pub probability: f64,
    /// What happens.
    pub kind: Kind,
}

impl Fault {
    /// A fault from now on, for ever, for all units, always.
    pub fn new(kind: Kind) -> Fault {
        Fault { at: Duration::ZERO, lasting: None, units: Vec::new(), probability: 1.0, kind }
    }

    /// The same for these units only.
    pub fn units(mut self, units: &[u8]) -> Fault {
        self.units = units.iter().map(|u| (*u, *u)).collect();
        self
    }

    /// The same in a window of time.
    pub fn window(mut self, at: Duration, lasting: Option<Duration>) -> Fault {
        (self.at, self.lasting) = (at, lasting);
        self
    }

    /// The same by chance.
    pub fn probability(mut self, probability: f64) -> Fault {
        self.probability = probability;
        self
    }

    /// Whether it is on, so long after the script was set.
    pub fn is_on(&self, since: Duration) -> bool {
        since >= self.at && self.lasting.is_none_or(|l| since < self.at.saturating_add(l))
    }

    /// Whether it concerns a unit.
    pub fn concerns(&self, unit: u8) -> bool {
        self.units.is_empty() || self.units.iter().any(|(first, last)| (*first..=*last).contains(&unit))
    }
}

impl From<Kind> for FaultScript {
    fn from(kind: Kind) -> FaultScript {
        FaultScript { seed: 0, faults: vec![Fault::new(kind)] }
    }
}

impl From<Fault> for FaultScript {
    fn from(fault: Fault) -> FaultScript {
        FaultScript { seed: 0, faults: vec![fault] }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The unit neither answers nor does what it is told.
    Silent,
    /// Answers after the delay; other answers go on.
    Slow {
        /// How long.
        delay: Duration,
    },
    /// Answers after the delay, which is meant to be longer than the client waits.
    Late {
        /// How long.
        delay: Duration,
    },
    /// Answers twice.
    Duplicate,
    /// Answers after the next request's answer, or after a moment if there is none.
    Reorder,
    /// The transaction id is one too high.
    WrongTransaction,
    /// The connection ends with a reset.
    Reset,
    /// The connection stays open, reads, and never answers again.
    HalfOpen,
    /// The answer comes byte by byte.
    Trickle,
    /// Answers with an exception.
    Exception {
        /// The exception code.
        code: u8,
    },
    /// A read that touches the span is answered by exception 2.
    Illegal {
        /// The table.
        table: Table,
        /// The first address.
        start: u16,
        /// How many.
        count: u16,
    },
    /// Answers with exception 6.
    Busy,
    /// Pairs of registers have the high word of this tick and the low word of the tick before.
    Torn,
    /// Addresses of a table read as one value, whatever is written; of a bit table 0 is off.
    Stuck {
        /// The table.
        table: Table,
        /// The first address.
        start: u16,
        /// How many.
        count: u16,
        /// What they read.
        value: u16,
    },
    /// At the start connections are closed and what was written is forgotten; while it lasts everything reads 0.
    Reboot,
    /// Random bytes come before the answer.
    Garbage,
    /// A new connection is closed at once.
    Refuse,
    /// The byte count (or, where there is none, the length of the answer) is not what it says.
    WrongLength,
    /// The unit in the answer is one too high.
    WrongUnit,
    /// The function in the answer is another one.
    WrongFunction,
    /// OPC UA: the server is gone while it lasts, and starts anew on the same port.
    Restart,
    /// OPC UA: operation limits. The server starts anew with them, and anew without them at the end.
    LowLimits {
        /// Nodes in a Read.
        max_nodes_per_read: usize,
        /// Items in a CreateMonitoredItems.
        max_monitored_items_per_call: usize,
    },
    /// OPC UA: a subscription takes so many items. The server starts anew with it, and anew without it at the end.
    TooManyItems {
        /// How many.
        count: usize,
    },
    /// OPC UA: variables whose values are bad: `BadSensorFailure`.
    BadNode {
        /// The first variable.
        start: u16,
        /// How many.
        count: u16,
    },
    /// OPC UA: all connections are closed and all sessions forgotten at the start; the port stays open.
    DropSession,
}

impl Kind {
    /// Whether it is one of the OPC UA bank.
    pub fn is_opcua(&self) -> bool {
        use Kind::*;
        matches!(self, Restart | LowLimits { .. } | TooManyItems { .. } | BadNode { .. } | DropSession)
    }

    /// Whether it changes what a unit says; others change how it is carried.
    pub(super) fn is_of_the_unit(&self) -> bool {
        use Kind::*;
        matches!(self, Exception { .. } | Busy | Illegal { .. } | Torn | Stuck { .. } | Reboot)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    fault: Vec<RawFault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    kind: Name,
    #[serde(default, deserialize_with = "duration")]
    at: Option<Duration>,
    #[serde(default, rename = "for", deserialize_with = "duration")]
    lasting: Option<Duration>,
    units: Option<Vec<RawUnits>>,
    probability: Option<f64>,
    #[serde(default, deserialize_with = "duration")]
    delay: Option<Duration>,
    code: Option<u8>,
    table: Option<Table>,
    start: Option<u16>,
    count: Option<u16>,
    value: Option<u16>,
    max_nodes_per_read: Option<usize>,
    max_monitored_items_per_call: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawUnits {
    One(u8),
    Range(String),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Silent,
    Slow,
    Late,
    Duplicate,
    Reorder,
    WrongTransaction,
    Reset,
    HalfOpen,
    Trickle,
    Exception,
    Illegal,
    Busy,
    Torn,
    Stuck,
    Reboot,
    Garbage,
    Refuse,
    WrongLength,
    WrongUnit,
    WrongFunction,
    Restart,
    LowLimits,
    TooManyItems,
    BadNode,
    DropSession,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("\"{text}\": {e}")))
}

impl FaultScript {
    /// Reads a script from TOML. The error says what, and where.
    pub fn from_toml(text: &str) -> Result<FaultScript, String> {
        let raw: RawScript = toml::from_str(text).map_err(|e| e.to_string())?;
        let faults = raw.fault.into_iter().enumerate().map(|(n, f)| {
            let name = f.kind;
            f.check().map_err(|e| format!("fault {} ({name:?}): {e}", n + 1))
        });
        Ok(FaultScript { seed: raw.seed, faults: faults.collect::<Result<_, _>>()? })
    }
}

impl RawFault {
    fn check(mut self) -> Result<Fault, String> {
        let units = self.units.take().unwrap_or_default().iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let probability = self.probability.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("probability = {probability} is not between 0 and 1"));
        }
        let (at, lasting) = (self.at.unwrap_or_default(), self.lasting);
        let kind = self.kind()?;
        match self.left_over() {
            Some(key) => Err(format!("`{key}` is no parameter of this kind")),
            None => Ok(Fault { at, lasting, units, probability, kind }),
        }
    }

    /// Takes the parameters that its kind knows.
    fn kind(&mut self) -> Result<Kind, String> {
        let need = |key: &str| format!("needs `{key}`");
        Ok(match self.kind {
            Name::Silent => Kind::Silent,
            Name::Slow => Kind::Slow { delay: self.delay.take().unwrap_or(Duration::from_millis(200)) },
            Name::Late => Kind::Late { delay: self.delay.take().unwrap_or(Duration::from_secs(5)) },
            Name::Duplicate => Kind::Duplicate,
            Name::Reorder => Kind::Reorder,
            Name::WrongTransaction => Kind::WrongTransaction,
            Name::Reset => Kind::Reset,
            Name::HalfOpen => Kind::HalfOpen,
            Name::Trickle => Kind::Trickle,
            Name::Exception => Kind::Exception { code: self.code.take().ok_or_else(|| need("code"))? },
            Name::Illegal => Kind::Illegal { table: self.table()?, start: self.start()?, count: self.count() },
            Name::Busy => Kind::Busy,
            Name::Torn => Kind::Torn,
            Name::Stuck => Kind::Stuck {
                table: self.table()?,
                start: self.start()?,
                count: self.count(),
                value: self.value.take().ok_or_else(|| need("value"))?,
            },
            Name::Reboot => Kind::Reboot,
            Name::Garbage => Kind::Garbage,
            Name::Refuse => Kind::Refuse,
            Name::WrongLength => Kind::WrongLength,
            Name::WrongUnit => Kind::WrongUnit,
            Name::WrongFunction => Kind::WrongFunction,
            Name::Restart => Kind::Restart,
            Name::LowLimits => Kind::LowLimits {
                max_nodes_per_read: self.max_nodes_per_read.take().unwrap_or(100),
                max_monitored_items_per_call: self.max_monitored_items_per_call.take().unwrap_or(100),
            },
            Name::TooManyItems => Kind::TooManyItems { count: self.count.take().ok_or_else(|| need("count"))?.into() },
            Name::BadNode => Kind::BadNode { start: self.start()?, count: self.count() },
            Name::DropSession => Kind::DropSession,
        })
    }

    fn table(&mut self) -> Result<Table, String> {
        self.table.take().ok_or_else(|| "needs `table`".to_string())
    }

    fn start(&mut self) -> Result<u16, String> {
        self.start.take().ok_or_else(|| "needs `start`".to_string())
    }

    fn count(&mut self) -> u16 {
        self.count.take().unwrap_or(1)
    }

    fn left_over(&self) -> Option<&'static str> {
        let given = [
            ("delay", self.delay.is_some()),
            ("code", self.code.is_some()),
            ("table", self.table.is_some()),
            ("start", self.start.is_some()),
            ("count", self.count.is_some()),
            ("value", self.value.is_some()),
            ("max_nodes_per_read", self.max_nodes_per_read.is_some()),
            ("max_monitored_items_per_call", self.max_monitored_items_per_call.is_some()),
        ];
        given.iter().find(|(_, there)| *there).map(|(key, _)| *key)
    }
}

fn range(raw: &RawUnits) -> Result<(u8, u8), String> {
    match raw {
        RawUnits::One(unit) => Ok((*unit, *unit)),
        RawUnits::Range(text) => text
            .split_once("..")
            .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)))
            .filter(|(a, b): &(u8, u8)| a <= b)
            .ok_or_else(|| format!("units \"{text}\": a range is \"first..last\", from 0 to 255")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_when_for_whom_and_what() {
        let text =
            "seed = 7\n[[fault]]\nat = '2s'\nfor = '10s'\nunits = [3, '10..19']\nkind = 'slow'\ndelay = '150ms'\n";
        let script = FaultScript::from_toml(text).unwrap();
        assert_eq!((script.seed, script.faults.len()), (7, 1));
        let fault = &script.faults[0];
        assert_eq!(fault.kind, Kind::Slow { delay: Duration::from_millis(150) });
        for (since_ms, on) in [(1_999, false), (2_000, true), (11_999, true), (12_000, false)] {
            assert_eq!(fault.is_on(Duration::from_millis(since_ms)), on, "{since_ms}");
        }
        for (unit, concerned) in [(3, true), (4, false), (10, true), (19, true), (20, false)] {
            assert_eq!(fault.concerns(unit), concerned, "{unit}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        let rows = [
            ("kind = 'silent'\nwhen = '1s'", "unknown field `when`"),
            ("kind = 'noisy'", "unknown variant `noisy`"),
            ("kind = 'silent'\nat = '2 lightyears'", "\"2 lightyears\""),
            ("kind = 'silent'\nat = 2", "expected a string"),
            ("kind = 'silent'\ncode = 4", "fault 1 (Silent): `code` is no parameter of this kind"),
            ("kind = 'exception'", "fault 1 (Exception): needs `code`"),
            ("kind = 'exception'\ncode = 300", "300"),
            ("kind = 'illegal'\nstart = 1", "needs `table`"),
            ("kind = 'silent'\nunits = ['9..3']", "units \"9..3\""),
            ("kind = 'silent'\nprobability = 1.5", "probability = 1.5"),
            ("", "missing field `kind`"),
        ];
        for (fault, want) in rows {
            let error = FaultScript::from_toml(&format!("[[fault]]\n{fault}\n")).unwrap_err();
            assert!(error.contains(want), "{fault:?} gives {error:?}, not {want:?}");
        }
    }
}
