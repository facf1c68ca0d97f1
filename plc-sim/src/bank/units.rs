//! The units of a bank: what each of them reads as, and what was written to it.
//!
//! ```text
//!   address     0 ........ registers-1 | +0 .. +3       | +4 .. +7
//!   holding     signal, or as written  |
//!   input       signal                 | began (ms, u64)| tick (u64)
//!   coils       light, or as written   |
//!   discrete    light                  |
//! ```
//!
//! Nothing is stored but what was written. Time is an argument: a request sees one tick, however long it takes.

use super::script::Kind;
use super::signal;
use crate::modbus::{Access, Exception, Space, Span, Table};
use std::collections::BTreeMap;

/// Input registers after the last: the wall-clock milliseconds at which the tick began, and its number, each a big-endian `u64`.
pub const STAMP_WORDS: u16 = 8;

/// What was written to one unit.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    registers: BTreeMap<u16, u16>,
    coils: BTreeMap<u16, bool>,
}

/// A moment of the bank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) tick: u64,
    pub(super) began_ms: u64,
}

/// One unit at one moment, with the faults that are on.
pub(super) struct Unit<'a> {
    pub(super) number: u8,
    pub(super) registers: u16,
    pub(super) moment: Moment,
    pub(super) overlay: &'a mut Overlay,
    pub(super) faults: &'a [Kind],
}

impl Space for Unit<'_> {
    fn check(&self, table: Table, span: Span, access: Access) -> Result<(), Exception> {
        let stamp = if table == Table::InputRegisters { u32::from(STAMP_WORDS) } else { 0 };
        if span.end() > u32::from(self.registers) + stamp || (access == Access::Read && self.is_illegal(table, span)) {
            return Err(Exception::ILLEGAL_ADDRESS);
        }
        Ok(())
    }

    fn read(&mut self, table: Table, span: Span, out: &mut Vec<u8>) {
        match table {
            Table::Coils | Table::DiscreteInputs => self.read_bits(table, span, out),
            Table::HoldingRegisters | Table::InputRegisters if self.faults.is_empty() => {
                self.read_registers(table, span, out);
            }
            Table::HoldingRegisters | Table::InputRegisters => {
                for address in addresses(span) {
                    out.extend_from_slice(&self.faulty_register(table, address).to_be_bytes());
                }
            }
        }
    }

    fn write(&mut self, table: Table, span: Span, values: &[u8]) {
        if table == Table::Coils {
            for (n, address) in addresses(span).enumerate() {
                let on = values.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1);
                self.overlay.coils.insert(address, on);
            }
        } else {
            let words = values.as_chunks().0.iter().map(|word| u16::from_be_bytes(*word));
            self.overlay.registers.extend(addresses(span).zip(words));
        }
    }
}

fn addresses(span: Span) -> impl Iterator<Item = u16> {
    (0..span.quantity).filter_map(move |n| span.start.checked_add(n))
}

impl Unit<'_> {
    /// The fast way: pair by pair, then what was written.
    fn read_registers(&self, table: Table, span: Span, out: &mut Vec<u8>) {
        let first = out.len();
        let mut address = span.start;
        let mut left = span.quantity;
        while left > 0 {
            if left > 1 && address.is_multiple_of(2) && address + 1 < self.registers {
                let pair = signal::value(self.number, address / 2, self.moment.tick);
                out.extend_from_slice(&pair.to_bits().to_be_bytes());
                (address, left) = (address.wrapping_add(2), left - 2);
            } else {
                out.extend_from_slice(&self.original(address, self.moment.tick).to_be_bytes());
                (address, left) = (address.wrapping_add(1), left - 1);
            }
        }
        if table == Table::HoldingRegisters && !self.overlay.registers.is_empty() {
            let last = span.start.saturating_add(span.quantity - 1);
            for (address, value) in self.overlay.registers.range(span.start..=last) {
                let at = first + 2 * usize::from(address - span.start);
                if let Some(word) = out.get_mut(at..at + 2) {
                    word.copy_from_slice(&value.to_be_bytes());
                }
            }
        }
    }

    /// A register nobody has written, at a tick.
    fn original(&self, address: u16, tick: u64) -> u16 {
        let Some(word) = address.checked_sub(self.registers) else {
            return signal::register(self.number, address, tick);
        };
        let number = if word < 4 { self.moment.began_ms } else { self.moment.tick };
        (number >> (16 * (3 - word % 4))) as u16
    }

    fn faulty_register(&self, table: Table, address: u16) -> u16 {
        if let Some(value) = self.stuck(table, address) {
            return value;
        }
        if self.faults.contains(&Kind::Reboot) {
            return 0;
        }
        let written = self.overlay.registers.get(&address).filter(|_| table == Table::HoldingRegisters);
        let torn = self.faults.contains(&Kind::Torn) && !address.is_multiple_of(2) && address < self.registers;
        let tick = if torn { self.moment.tick.wrapping_sub(1) } else { self.moment.tick };
        written.copied().unwrap_or_else(|| self.original(address, tick))
    }

    fn read_bits(&self, table: Table, span: Span, out: &mut Vec<u8>) {
        let first = out.len();
        out.resize(first + usize::from(span.quantity.div_ceil(8)), 0);
        for (n, address) in addresses(span).enumerate() {
            if self.bit(table, address)
                && let Some(byte) = out.get_mut(first + n / 8)
            {
                *byte |= 1 << (n % 8);
            }
        }
    }

    fn bit(&self, table: Table, address: u16) -> bool {
        if let Some(value) = self.stuck(table, address) {
            return value != 0;
        }
        if self.faults.contains(&Kind::Reboot) {
            return false;
        }
        let written = self.overlay.coils.get(&address).filter(|_| table == Table::Coils);
        written.copied().unwrap_or_else(|| signal::bit(self.number, address, self.moment.tick))
    }

    fn is_illegal(&self, table: Table, span: Span) -> bool {
        self.faults.iter().any(|kind| match *kind {
            Kind::Illegal { table: t, start, count } => {
                t == table && span.touches(Span { start, quantity: count.max(1) })
            }
            _ => false,
        })
    }

    fn stuck(&self, table: Table, address: u16) -> Option<u16> {
        self.faults.iter().find_map(|kind| match *kind {
            Kind::Stuck { table: t, start, count, value } => {
                let inside = address.checked_sub(start).is_some_and(|n| n < count);
                (t == table && inside).then_some(value)
            }
            _ => None,
        })
    }
}
