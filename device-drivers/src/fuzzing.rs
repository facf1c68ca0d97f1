//! Doors for fuzzers into the decoders: each takes any bytes at all, and may only return.
//!
//! `cargo fuzz run modbus_stream` in this crate's folder goes on until it finds something (nightly, on purpose not in CI);
//! `tests/decoders.rs` runs the same doors as bounded properties on stable.

use crate::modbus::{DataType, Format, Order, Written};
use crate::value::Value;

pub use crate::modbus::fuzz_doors::{modbus_serial, modbus_stream};
pub use crate::opcua::fuzz_doors::opcua_value;

/// Registers of any content as any type, and back: what was read can be written or is refused, and never panics.
pub fn modbus_value(bytes: &[u8]) {
    let (Some(&pick), Some(&order)) = (bytes.first(), bytes.get(1)) else { return };
    let wire = bytes.get(2..).unwrap_or_default();
    let orders = [Order::ABCD, Order::CDAB, Order::BADC, Order::DCBA];
    let names: Vec<&str> = DataType::names().collect();
    let kind = names.get(usize::from(pick) % names.len()).and_then(|n| n.parse::<DataType>().ok());
    let order = orders.get(usize::from(order) % orders.len()).copied().unwrap_or_default();
    let Some(kind) = kind else { return };
    let format = Format { order, ..Format::plain(kind) };
    if let Some(value) = format.decode(wire).value() {
        let _ = format.encode(&value);
        let _ = format.encode(&Value::Float(value.as_f64().unwrap_or(f64::NAN)));
    }
}

/// A text as an address, a type and an order, as a configuration has them.
pub fn notations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(written) = text.parse::<Written>() {
        assert_eq!(written.address.to_string().parse(), Ok(written.address), "what is printed is read again");
    }
    if let Ok(kind) = text.parse::<DataType>() {
        assert!(kind.registers() >= 1 && kind.registers() <= 125, "{kind} has a length");
    }
    let _ = text.parse::<Order>();
    let _ = text.parse::<crate::opcua::NodeName>();
}
