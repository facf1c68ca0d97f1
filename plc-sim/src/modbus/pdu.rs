//! One request, one answer (V1.1b3, 6): first all of it is checked, then it is done.
//!
//! ```text
//!   function unknown ──> 01      quantity, length or byte count wrong ──> 03      address not there ──> 02      else do it
//! ```

use serde::Deserialize;

/// One of the four Modbus tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Coils, read and written bit by bit (functions 1, 5, 15).
    Coils,
    /// Discrete inputs (function 2).
    DiscreteInputs,
    /// Holding registers (functions 3, 6, 16, 22, 23).
    HoldingRegisters,
    /// Input registers (function 4).
    InputRegisters,
}

/// Why a request is refused: the code of the answer (V1.1b3, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The function is not one of this server's.
    pub const ILLEGAL_FUNCTION: Exception = Exception(1);
    /// An address is not there.
    pub const ILLEGAL_ADDRESS: Exception = Exception(2);
    /// A quantity, a length or a value cannot be.
    pub const ILLEGAL_VALUE: Exception = Exception(3);
    /// Ask again later.
    pub const BUSY: Exception = Exception(6);
    /// Behind this gateway is no such unit.
    pub const NO_SUCH_UNIT: Exception = Exception(11);
}

/// A row of addresses; at least one, and perhaps beyond the last there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first address.
    pub start: u16,
    /// How many.
    pub quantity: u16,
}

impl Span {
    /// The address after the last.
    pub fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.quantity)
    }

    /// Whether both have an address in common.
    pub fn touches(self, other: Span) -> bool {
        u32::from(self.start) < other.end() && u32::from(other.start) < self.end()
    }
}

/// What a span is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be written.
    Write,
}

/// The four tables of one unit. Spans are checked before they are read or written.
///
/// Values are as on the wire: registers as big-endian words, bits packed from the lowest of the first byte.
pub trait Space {
    /// Whether the unit knows a function that this server knows.
    fn supports(&self, _function: u8) -> bool {
        true
    }

    /// Whether all of a span is there.
    fn check(&self, table: Table, span: Span, access: Access) -> Result<(), Exception>;

    /// Appends the values of a span that has been checked.
    fn read(&mut self, table: Table, span: Span, out: &mut Vec<u8>);

    /// Sets the values of a span that has been checked.
    fn write(&mut self, table: Table, span: Span, values: &[u8]);
}

/// Appends the answer to one PDU, which must not be empty: 2 to 253 bytes. Does not allocate when `out` has room for them.
pub fn answer(space: &mut impl Space, pdu: &[u8], out: &mut Vec<u8>) {
    let Some((&function, data)) = pdu.split_first() else { return };
    let start = out.len();
    out.push(function);
    if let Err(exception) = execute(space, function, data, out) {
        out.truncate(start);
        refuse(function, exception, out);
    }
}

/// Appends a refusal.
pub(crate) fn refuse(function: u8, exception: Exception, out: &mut Vec<u8>) {
    out.extend_from_slice(&[function | 0x80, exception.0]);
}

fn execute(space: &mut impl Space, function: u8, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    if !matches!(function, 1..=6 | 15 | 16 | 22 | 23) || !space.supports(function) {
        return Err(Exception::ILLEGAL_FUNCTION);
    }
    match function {
        1 => read(space, Table::Coils, span(data, 2000)?, out),
        2 => read(space, Table::DiscreteInputs, span(data, 2000)?, out),
        3 => read(space, Table::HoldingRegisters, span(data, 125)?, out),
        4 => read(space, Table::InputRegisters, span(data, 125)?, out),
        5 => write_coil(space, data, out),
        6 => write_register(space, data, out),
        15 => write_many(space, Table::Coils, data, out),
        16 => write_many(space, Table::HoldingRegisters, data, out),
        22 => mask_write(space, data, out),
        _ => read_write(space, data, out),
    }
}

fn word(data: &[u8], at: usize) -> Option<u16> {
    let [high, low] = *data.get(at..at + 2)? else { return None };
    Some(u16::from_be_bytes([high, low]))
}

/// Start and quantity; a quantity outside 1 ..= max, or data that is too short or too long, is an illegal value.
fn span(data: &[u8], max: u16) -> Result<Span, Exception> {
    match (word(data, 0), word(data, 2), data.len()) {
        (Some(start), Some(quantity), 4) if (1..=max).contains(&quantity) => Ok(Span { start, quantity }),
        _ => Err(Exception::ILLEGAL_VALUE),
    }
}

/// Start, quantity, byte count and values of a multiple write.
fn values(table: Table, data: &[u8], max: u16) -> Result<(Span, &[u8]), Exception> {
    let (head, tail) = data.split_at_checked(4).ok_or(Exception::ILLEGAL_VALUE)?;
    let span = span(head, max)?;
    let (count, values) = tail.split_first().ok_or(Exception::ILLEGAL_VALUE)?;
    if usize::from(*count) == bytes(table, span.quantity) && values.len() == usize::from(*count) {
        Ok((span, values))
    } else {
        Err(Exception::ILLEGAL_VALUE)
    }
}

/// How many bytes so many values take on the wire.
fn bytes(table: Table, quantity: u16) -> usize {
    match table {
        Table::Coils | Table::DiscreteInputs => usize::from(quantity.div_ceil(8)),
        Table::HoldingRegisters | Table::InputRegisters => 2 * usize::from(quantity),
    }
}

fn read(space: &mut impl Space, table: Table, span: Span, out: &mut Vec<u8>) -> Result<(), Exception> {
    space.check(table, span, Access::Read)?;
    out.push(bytes(table, span.quantity) as u8); // at most 250
    space.read(table, span, out);
    Ok(())
}

fn write_coil(space: &mut impl Space, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (start, value) = match (word(data, 0), word(data, 2), data.len()) {
        (Some(start), Some(0x0000), 4) => (start, 0),
        (Some(start), Some(0xFF00), 4) => (start, 1),
        _ => return Err(Exception::ILLEGAL_VALUE),
    };
    let span = Span { start, quantity: 1 };
    space.check(Table::Coils, span, Access::Write)?;
    space.write(Table::Coils, span, &[value]);
    out.extend_from_slice(data);
    Ok(())
}

fn write_register(space: &mut impl Space, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (Some(start), Some(value), 4) = (word(data, 0), data.get(2..), data.len()) else {
        return Err(Exception::ILLEGAL_VALUE);
    };
    let span = Span { start, quantity: 1 };
    space.check(Table::HoldingRegisters, span, Access::Write)?;
    space.write(Table::HoldingRegisters, span, value);
    out.extend_from_slice(data);
    Ok(())
}

fn write_many(space: &mut impl Space, table: Table, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (span, values) = values(table, data, if table == Table::Coils { 1968 } else { 123 })?;
    space.check(table, span, Access::Write)?;
    space.write(table, span, values);
    out.extend_from_slice(&span.start.to_be_bytes());
    out.extend_from_slice(&span.quantity.to_be_bytes());
    Ok(())
}

/// The result is (present AND and-mask) OR (or-mask AND NOT and-mask) (V1.1b3, 6.16).
fn mask_write(space: &mut impl Space, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (Some(start), Some(and), Some(or), 6) = (word(data, 0), word(data, 2), word(data, 4), data.len()) else {
        return Err(Exception::ILLEGAL_VALUE);
    };
    let span = Span { start, quantity: 1 };
    space.check(Table::HoldingRegisters, span, Access::Read)?;
    space.check(Table::HoldingRegisters, span, Access::Write)?;
    let scratch = out.len();
    space.read(Table::HoldingRegisters, span, out);
    let present = word(out, scratch).unwrap_or_default();
    out.truncate(scratch);
    space.write(Table::HoldingRegisters, span, &((present & and) | (or & !and)).to_be_bytes());
    out.extend_from_slice(data);
    Ok(())
}

/// Function 23 writes before it reads (V1.1b3, 6.17); all is checked before anything is done.
fn read_write(space: &mut impl Space, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (wanted, write) = data.split_at_checked(4).ok_or(Exception::ILLEGAL_VALUE)?;
    let wanted = span(wanted, 125)?;
    let (target, values) = values(Table::HoldingRegisters, write, 121)?;
    space.check(Table::HoldingRegisters, wanted, Access::Read)?;
    space.check(Table::HoldingRegisters, target, Access::Write)?;
    space.write(Table::HoldingRegisters, target, values);
    read(space, Table::HoldingRegisters, wanted, out)
}
