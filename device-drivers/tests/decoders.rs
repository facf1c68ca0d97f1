//! The fuzzers' doors as bounded properties: no bytes make a decoder panic, hang or believe what was not asked for. Proptest
//! prints the smallest failing input and keeps it in `proptest-regressions/`; `cargo fuzz run <door>` goes on for longer.

use device_drivers::fuzzing::{modbus_serial, modbus_stream, modbus_value, notations, opcua_value};
use proptest::prelude::*;

/// Bytes that are often nearly right: lengths, functions and units of real frames, mixed with anything.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = proptest::sample::select(vec![0u8, 1, 2, 3, 4, 5, 6, 8, 9, 15, 16, 17, 0x83, 0x90, 0xFF, 253, 254]);
    proptest::collection::vec(prop_oneof![3 => telling, 1 => any::<u8>()], 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_of_any_bytes(bytes in bytes()) {
        modbus_stream(&bytes);
    }

    #[test]
    fn a_serial_line_of_any_bytes(bytes in bytes()) {
        modbus_serial(&bytes);
    }

    #[test]
    fn registers_of_any_content(bytes in bytes()) {
        modbus_value(&bytes);
    }

    #[test]
    fn an_opc_ua_value_of_any_bytes(skew in any::<i64>(), mask in 0u8..64, kind in 0u8..=255, rest in bytes()) {
        // Encoding mask of a DataValue, encoding byte of a Variant (OPC 10000-6, 5.2.2.17 and 5.2.2.16), anything.
        opcua_value(&[&skew.to_le_bytes()[..], &[mask, kind], &rest].concat());
    }

    #[test]
    fn notations_of_any_text(bytes in prop_oneof![bytes(), "(holding|coil|text|nsu=|ns=|4|1!)[0-9:.;=!#\\[\\]a-zA-Z-]{0,20}".prop_map(String::into_bytes)]) {
        notations(&bytes);
    }
}
