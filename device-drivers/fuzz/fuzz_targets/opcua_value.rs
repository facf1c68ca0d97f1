#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| device_drivers::fuzzing::opcua_value(bytes));
