use super::super::address::Table;
use super::*;
use proptest::prelude::*;

fn wire(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

fn format(kind: DataType, order: Order, scale: Option<Scale>) -> Format {
    Format { kind, order, scale: scale.map(Box::new), special: None }
}

#[test]
fn values_come_out_as_the_bytes_say() {
    use DataType::*;
    use Order::*;
    let scale = |factor, offset| Some(Scale { factor, offset, clamp: None });
    let clamped = Some(range(0.0, 100.0));
    let text = |t: &str| Value::Text(t.into());
    type Row<'a> = (&'a [u16], DataType, Order, Option<Scale>, Value);
    let rows: Vec<Row<'_>> = vec![
        (&[0xFFFF], U16, ABCD, None, Value::Uint(65535)),
        (&[0xFFFF], I16, ABCD, None, Value::Int(-1)),
        (&[0x0102], U16, BADC, None, Value::Uint(0x0201)),
        (&[0x80FF], U8 { high: false }, ABCD, None, Value::Uint(255)),
        (&[0x80FF], I8 { high: true }, ABCD, None, Value::Int(-128)),
        (&[0x0001, 0x0002], U32, ABCD, None, Value::Uint(0x1_0002)),
        (&[0x0001, 0x0002], U32, CDAB, None, Value::Uint(0x2_0001)),
        (&[0x0102, 0x0304], U32, BADC, None, Value::Uint(0x0201_0403)),
        (&[0x0102, 0x0304], U32, DCBA, None, Value::Uint(0x0403_0201)),
        (&[0xFFFF, 0xFFFE], I32, ABCD, None, Value::Int(-2)),
        (&[0x42F6, 0xE979], F32, ABCD, None, Value::Single(123.456)),
        (&[0xE979, 0x42F6], F32, CDAB, None, Value::Single(123.456)),
        (&[0x3FF0, 0, 0, 0], F64, ABCD, None, Value::Float(1.0)),
        (&[0, 0, 0, 0x3FF0], F64, CDAB, None, Value::Float(1.0)),
        (&[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], U64, ABCD, None, Value::Uint(u64::MAX)),
        (&[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], I64, ABCD, None, Value::Int(-1)),
        (&[0x3C00], F16, ABCD, None, Value::Float(1.0)),
        (&[0xC000], F16, ABCD, None, Value::Float(-2.0)),
        (&[0x0001], F16, ABCD, None, Value::Float(2f64.powi(-24))),
        (&[0x1234], Bcd(1), ABCD, None, Value::Uint(1234)),
        (&[0x1234, 0x5678], Bcd(2), ABCD, None, Value::Uint(12_345_678)),
        (&[0b0110_0000], Field(Bits { first: 4, count: 4 }), ABCD, None, Value::Uint(6)),
        (&[0b1000], Field(Bits { first: 3, count: 1 }), ABCD, None, Value::Bool(true)),
        (&[0b1000], Field(Bits { first: 2, count: 1 }), ABCD, None, Value::Bool(false)),
        (&[0xFFFF], Field(Bits { first: 0, count: 16 }), ABCD, None, Value::Uint(65535)),
        (&[0x4142, 0x4300], Text(4, Packing::HighLow.into()), ABCD, None, text("ABC")),
        (&[0x4241, 0x0043], Text(4, Packing::LowHigh.into()), ABCD, None, text("ABC")),
        (&[0x4100, 0x4200], Text(2, Packing::High.into()), ABCD, None, text("AB")),
        (&[0x0041, 0x0042], Text(2, Packing::Low.into()), ABCD, None, text("AB")),
        (&[0x4142], Text(1, Packing::HighLow.into()), ABCD, None, text("A")),
        (&[0x6772, 0xFC6E], Text(4, LATIN), ABCD, None, text("grün")),
        (&[0x67C3, 0xBC6E], Text(4, Packing::HighLow.into()), ABCD, None, text("gün")),
        (&[0x6553, 0xF100], UnixS, ABCD, None, Value::Int(1_700_000_000_000)),
        (&[0, 0x018B, 0xCFE5, 0x6800], UnixMs, ABCD, None, Value::Int(1_700_000_000_000)),
        // 2024-02-29 12:34:56.789, a Thursday (5)
        (&[0x2402, 0x2912, 0x3456, 0x7895], DateTimeBcd, ABCD, None, Value::Int(1_709_210_096_789)),
        (&[1, 2, 3], Words(3), ABCD, None, Value::Words([1, 2, 3].into())),
        (&[24], U16, ABCD, scale(0.1, 0.0), Value::Float(2.4)),
        (&[3], U16, ABCD, scale(2.5, 1.0), Value::Float(8.5)),
        (&[650], U16, ABCD, scale(0.1, -40.0), Value::Float(25.0)),
        (&[50], U16, ABCD, clamped, Value::Uint(50)),
    ];
    for (registers, kind, order, scale, want) in rows {
        assert_eq!(
            format(kind, order, scale).decode(&wire(registers)),
            Decoded::Good(want),
            "{registers:x?} {kind:?} {order:?}"
        );
    }
}

#[test]
fn what_is_no_such_value_is_none_and_not_a_wrong_number() {
    let none: [(&[u16], DataType); 5] = [
        (&[1], DataType::U32),
        (&[0x12A4], DataType::Bcd(1)),
        (&[0x2413, 0x0100, 0, 0], DataType::DateTimeBcd),
        (&[0x24AA, 0x0100, 0, 0], DataType::DateTimeBcd),
        (&[0xFFFF, 0, 0, 0], DataType::UnixMs),
    ];
    for (registers, kind) in none {
        assert_eq!(Format::plain(kind).decode(&wire(registers)), Decoded::None(Cause::WrongType), "{kind:?}");
    }
}

const LATIN: Lettering = Lettering { packing: Packing::HighLow, charset: Charset::Latin1 };

fn range(min: f64, max: f64) -> Scale {
    Scale { factor: 1.0, offset: 0.0, clamp: Some((min.into(), max.into())) }
}

#[test]
fn what_is_no_number_is_no_value_and_never_an_end_of_the_range() {
    let scaled = Some(Scale { factor: 0.1, ..range(0.0, 100.0) });
    let nan_f16 = Format::plain(DataType::F16).decode(&wire(&[0x7E00]));
    assert_eq!(nan_f16, Decoded::None(Cause::NotFinite));
    for bits in [0x7FC0_0000u32, 0x7F80_0001, 0xFFFF_FFFF, 0x7F80_0000, 0xFF80_0000] {
        for scale in [None, scaled, Some(range(f64::NEG_INFINITY, 20_000.0))] {
            let got = format(DataType::F32, Order::ABCD, scale).decode(&bits.to_be_bytes());
            assert_eq!(got, Decoded::None(Cause::NotFinite), "{bits:x} {scale:?}");
        }
    }
    // A double that is one, until it is scaled.
    let huge = format(DataType::F64, Order::ABCD, Some(Scale { factor: 1e10, offset: 0.0, clamp: None }));
    assert_eq!(huge.decode(&1e300f64.to_bits().to_be_bytes()), Decoded::None(Cause::NotFinite));
}

#[test]
fn what_is_outside_its_range_is_shown_as_the_end_and_is_not_good() {
    let outside = |value| Decoded::Doubtful(value, Cause::OutOfRange);
    let rows: [(&[u16], DataType, Scale, Decoded); 8] = [
        (&[0x8000, 0], DataType::U32, range(0.0, 20_000.0), outside(Value::Uint(20_000))),
        (&[150], DataType::U16, range(0.0, 99.5), outside(Value::Uint(99))),
        (&[0xFFFF], DataType::I16, range(0.0, 100.0), outside(Value::Int(0))),
        (&[100], DataType::U16, range(0.0, 100.0), Decoded::Good(Value::Uint(100))),
        (&[0x4316, 0], DataType::F32, range(0.0, 100.0), outside(Value::Single(100.0))),
        (&[1500], DataType::U16, Scale { factor: 0.1, ..range(0.0, 100.0) }, outside(Value::Float(100.0))),
        // Above 2^53, where a double no longer tells one number from the next.
        (&[0x0020, 0, 0, 3], DataType::U64, range(0.0, 1e18), Decoded::Good(Value::Uint((1 << 53) + 3))),
        (&[0xFFFF; 4], DataType::U64, range(0.0, f64::INFINITY), Decoded::Good(Value::Uint(u64::MAX))),
    ];
    for (registers, kind, scale, want) in rows {
        assert_eq!(format(kind, Order::ABCD, Some(scale)).decode(&wire(registers)), want, "{registers:x?} {kind:?}");
    }
    let exact = format(DataType::U64, Order::ABCD, Some(range(0.0, 1e19))).encode(&Value::Uint((1 << 53) + 3));
    assert_eq!(exact, Ok(vec![0x0020, 0, 0, 3]), "a range is no detour through a double");
}

fn absent(texts: &[&str], kind: DataType, order: Order) -> Format {
    let mut absent = Absent::default();
    texts.iter().for_each(|text| assert_eq!(absent.add(text, kind), Ok(true), "{text} {kind:?}"));
    Format { order, special: Some(Special { absent, power: None }.into()), ..Format::plain(kind) }
}

#[test]
fn what_a_device_says_when_it_has_no_value_is_no_value() {
    use DataType::*;
    use Order::*;
    let rows: [(&[u16], DataType, Order, &[&str]); 14] = [
        (&[0x8000, 0], U32, ABCD, &["0x80000000"]),
        (&[0, 0x8000], U32, CDAB, &["0x80000000"]),
        (&[0xFFFF; 4], U64, ABCD, &["0x0000000000000000", "0xFFFFFFFFFFFFFFFF"]),
        (&[0x8000], I16, ABCD, &["-32768"]),
        (&[0x8000], I16, ABCD, &["sunspec"]),
        (&[0x0080], I16, BADC, &["sunspec"]),
        (&[0xFFFF], U16, ABCD, &["sunspec"]),
        (&[0x8000, 0], I32, ABCD, &["sunspec"]),
        (&[0xFFFF, 0xFFFF], U32, ABCD, &["sunspec"]),
        (&[0x7FC0, 0], F32, ABCD, &["sunspec"]),
        (&[0, 0], U32, ABCD, &["sunspec-acc"]),
        (&[0, 0], Text(4, Packing::HighLow.into()), ABCD, &["sunspec"]),
        (&[0xFFFF], Field(Bits { first: 3, count: 1 }), ABCD, &["sunspec"]),
        (&[0x7FFF], U16, ABCD, &["32767"]),
    ];
    for (registers, kind, order, texts) in rows {
        let got = absent(texts, kind, order).decode(&wire(registers));
        assert_eq!(got, Decoded::None(Cause::NotAvailable), "{registers:x?} {kind:?} {texts:?}");
    }
    // Before the scale and the range have made something of it.
    let mut ranged = absent(&["0x80000000"], U32, ABCD);
    ranged.scale = Some(Box::new(Scale { factor: 0.1, ..range(0.0, 20_000.0) }));
    assert_eq!(ranged.decode(&wire(&[0x8000, 0])), Decoded::None(Cause::NotAvailable));
    assert_eq!(ranged.decode(&wire(&[0, 3021])), Decoded::Good(Value::Float(302.1)));
    assert_eq!(absent(&["sunspec"], U16, ABCD).decode(&wire(&[0x8000])), Decoded::Good(Value::Uint(0x8000)));
}

/// What a maker writes of a float is its number: its bits are those of another.
#[test]
fn a_number_is_that_number_for_floats_too() {
    for (text, number) in [("-9999", -9999.0f32), ("-9999.9", -9999.9), ("1e10", 1e10)] {
        let bits = number.to_bits();
        let format = absent(&[text], DataType::F32, Order::ABCD);
        assert_eq!(
            format.decode(&wire(&[(bits >> 16) as u16, bits as u16])),
            Decoded::None(Cause::NotAvailable),
            "{text}"
        );
    }
    let bits = (-9999.0f64).to_bits();
    let words: Vec<u16> = (0..4).rev().map(|n| (bits >> (16 * n)) as u16).collect();
    assert_eq!(
        absent(&["-9999"], DataType::F64, Order::ABCD).decode(&wire(&words)),
        Decoded::None(Cause::NotAvailable)
    );
    assert!(
        Absent::default().add("1e999", DataType::F32).is_err() && Absent::default().add("9.5", DataType::U32).is_err()
    );
}

#[test]
fn a_pattern_is_for_types_of_its_width_and_a_wrong_one_is_told() {
    let of = |text: &str, kind| Absent::default().add(text, kind);
    assert_eq!(of("0x8000", DataType::U32), Ok(false));
    assert_eq!(of("0x80000000", DataType::U16), Ok(false));
    assert_eq!(of("70000", DataType::U16), Ok(false));
    assert_eq!(of("sunspec-acc", DataType::I16), Ok(false));
    for wrong in ["0x80", "0xZZZZ", "nan", "", "0x", "8000h"] {
        assert!(of(wrong, DataType::U16).is_err(), "{wrong}");
    }
}

#[test]
fn bytes_that_are_no_text_are_no_value() {
    let utf8 = Format::plain(DataType::Text(4, Packing::HighLow.into()));
    assert_eq!(utf8.decode(&wire(&[0x6772, 0xFC6E])), Decoded::None(Cause::NoText));
    let latin = Format::plain(DataType::Text(4, LATIN));
    assert_eq!(latin.encode(&Value::Text("grün".into())), Ok(vec![0x6772, 0xFC6E]));
    assert!(latin.encode(&Value::Text("€".into())).unwrap_err().contains("latin-1"));
}

#[test]
fn a_power_of_ten_multiplies_without_a_stray_digit() {
    let power = Some(Address { table: Table::Holding, number: 9, bits: None });
    let mut format = Format::plain(DataType::I16);
    format.special = Some(Special { absent: Absent::default(), power }.into());
    let rows = [(-1, 2301, 230.1), (-3, 5, 0.005), (2, 15, 1500.0), (0, 7, 7.0), (-10, 1, 1e-10)];
    for (power, raw, want) in rows {
        assert_eq!(format.decode_with(&wire(&[raw]), power), Decoded::Good(Value::Float(want)));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_says_why() {
    let scaled = Some(Scale { factor: 0.1, offset: 0.0, clamp: None });
    let rows = [
        (Format::plain(DataType::U16), Value::Int(-1), "does not fit into u16"),
        (Format::plain(DataType::U16), Value::Float(1.5), "not a whole number"),
        (Format::plain(DataType::I16), Value::Uint(40_000), "does not fit into i16"),
        (Format::plain(DataType::U64), Value::Float(1e30), "does not fit into u64"),
        (Format::plain(DataType::F32), Value::Float(1e300), "does not fit into f32"),
        (Format::plain(DataType::F32), Value::Float(f64::NAN), "no number"),
        (Format::plain(DataType::F16), Value::Float(70_000.0), "does not fit into f16"),
        (Format::plain(DataType::Bcd(1)), Value::Uint(10_000), "does not fit into bcd16"),
        (Format::plain(DataType::Bool), Value::Int(2), "neither true nor false"),
        (Format::plain(DataType::U8 { high: true }), Value::Int(2), "part of a register"),
        (Format::plain(DataType::U16), Value::Text("a".into()), "is a number"),
        (Format::plain(DataType::U16), Value::Bool(true), "is a number"),
        (Format::plain(DataType::F32), Value::Float(1e-50), "does not fit into f32"),
        (Format::plain(DataType::Text(8, Packing::HighLow.into())), Value::Text("ab\0cd".into()), "NUL"),
        (Format::plain(DataType::Text(2, Packing::HighLow.into())), Value::Text("abc".into()), "has 3 bytes"),
        (format(DataType::U16, Order::ABCD, scaled), Value::Float(7000.0), "does not fit into u16"),
    ];
    for (format, value, want) in rows {
        let why = format.encode(&value).unwrap_err();
        assert!(why.contains(want), "{why}");
    }
    let exact = Format::plain(DataType::U64).encode(&Value::Uint(u64::MAX - 1)).unwrap();
    assert_eq!(exact, [0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], "no detour through a double");
}

#[test]
fn types_are_read_and_written_alike() {
    for name in DataType::names().chain([
        "text[20, low-high]",
        "text[64, high]",
        "text[8, latin-1]",
        "text[8, low-high, latin-1]",
    ]) {
        assert_eq!(name.parse::<DataType>().map(|t| t.to_string()), Ok(name.to_string()));
    }
    for bad in ["text[0]", "text[129]", "text[65, high]", "text[4, middle]", "text[4, latin-9]", "u128", "text["] {
        assert!(bad.parse::<DataType>().is_err(), "{bad}");
    }
}

fn kinds() -> impl Strategy<Value = DataType> {
    use DataType::*;
    let all = vec![
        U16,
        I16,
        U32,
        I32,
        U64,
        I64,
        F16,
        F32,
        F64,
        Bcd(1),
        Bcd(2),
        Bcd(4),
        UnixS,
        UnixMs,
        Text(7, Packing::HighLow.into()),
        Text(7, Packing::LowHigh.into()),
        Text(7, Packing::High.into()),
        Text(7, Packing::Low.into()),
        Text(7, LATIN),
    ];
    proptest::sample::select(all)
}

proptest! {
    /// Whatever registers hold, writing the value that was read from them and reading again gives the same value.
    #[test]
    fn what_was_read_can_be_written_back(
        kind in kinds(), order in proptest::sample::select(vec![Order::ABCD, Order::CDAB, Order::BADC, Order::DCBA]),
        words in proptest::collection::vec(any::<u16>(), 7)
    ) {
        let format = format(kind, order, None);
        if let Some(value) = format.decode(&wire(&words)).value() {
            let written = format.encode(&value).expect("a value that was read fits");
            prop_assert_eq!(written.len(), usize::from(kind.registers()));
            prop_assert_eq!(format.decode(&wire(&written)), Decoded::Good(value));
        }
    }

    /// A part that was read is written to where it was read from, and touches nothing beside it.
    #[test]
    fn a_part_of_a_register_leaves_its_neighbours_alone(
        first in 0u8..16, more in 0u8..16, byte in 0u8..5, order in proptest::sample::select(vec![Order::ABCD, Order::DCBA]),
        from in any::<u16>(), into in any::<u16>()
    ) {
        let kind = match byte {
            0 => DataType::U8 { high: false },
            1 => DataType::U8 { high: true },
            2 => DataType::I8 { high: false },
            3 => DataType::I8 { high: true },
            _ => DataType::Field(Bits { first, count: (more + 1).min(16 - first) }),
        };
        let format = format(kind, order, None);
        let value = format.decode(&wire(&[from])).value().unwrap();
        let (bits, mask) = format.encode_part(&value).unwrap();
        prop_assert_eq!(bits, from & mask);
        let now = (into & !mask) | bits;
        prop_assert_eq!(now & !mask, into & !mask);
        prop_assert_eq!(format.decode(&wire(&[now])), Decoded::Good(value));
        let outside = format.decode(&wire(&[!mask])).value().and_then(|v| v.as_f64());
        prop_assert_eq!(outside, Some(0.0), "bits beside the part are no part of it");
        prop_assert!(format.encode(&Value::Uint(0)).is_err(), "never as a whole register");
    }

    #[test]
    fn no_registers_make_it_panic(
        kind in kinds(), words in proptest::collection::vec(any::<u16>(), 0..9), factor in any::<f64>(), offset in any::<f64>()
    ) {
        let format = format(kind, Order::DCBA, Some(Scale { factor, offset, clamp: None }));
        if let Some(value) = format.decode(&wire(&words)).value() {
            let _ = format.encode(&value);
        }
    }

    #[test]
    fn scaling_is_undone_to_the_same_register(raw in any::<u16>(), tenths in 1i32..10_000, offset in -1000i32..1000) {
        let scale = Scale { factor: f64::from(tenths) / 1000.0, offset: f64::from(offset), clamp: None };
        let format = format(DataType::U16, Order::ABCD, Some(scale));
        let value = format.decode(&wire(&[raw])).value().unwrap();
        prop_assert_eq!(format.encode(&value), Ok(vec![raw]));
    }
}
