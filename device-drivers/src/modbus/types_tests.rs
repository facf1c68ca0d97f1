use super::*;
use proptest::prelude::*;

fn wire(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

fn format(kind: DataType, order: Order, scale: Option<Scale>) -> Format {
    Format { kind, order, scale: scale.map(Box::new) }
}

#[test]
fn values_come_out_as_the_bytes_say() {
    use DataType::*;
    use Order::*;
    let scale = |factor, offset| Some(Scale { factor, offset, clamp: None });
    let clamped = Some(Scale { factor: 1.0, offset: 0.0, clamp: Some((0.0.into(), 100.0.into())) });
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
        (&[0x4142, 0x4300], Text(4, Packing::HighLow), ABCD, None, text("ABC")),
        (&[0x4241, 0x0043], Text(4, Packing::LowHigh), ABCD, None, text("ABC")),
        (&[0x4100, 0x4200], Text(2, Packing::High), ABCD, None, text("AB")),
        (&[0x0041, 0x0042], Text(2, Packing::Low), ABCD, None, text("AB")),
        (&[0x4142], Text(1, Packing::HighLow), ABCD, None, text("A")),
        (&[0x6553, 0xF100], UnixS, ABCD, None, Value::Int(1_700_000_000_000)),
        (&[0, 0x018B, 0xCFE5, 0x6800], UnixMs, ABCD, None, Value::Int(1_700_000_000_000)),
        // 2024-02-29 12:34:56.789, a Thursday (5)
        (&[0x2402, 0x2912, 0x3456, 0x7895], DateTimeBcd, ABCD, None, Value::Int(1_709_210_096_789)),
        (&[1, 2, 3], Words(3), ABCD, None, Value::Words([1, 2, 3].into())),
        (&[24], U16, ABCD, scale(0.1, 0.0), Value::Float(2.4)),
        (&[3], U16, ABCD, scale(2.5, 1.0), Value::Float(8.5)),
        (&[650], U16, ABCD, scale(0.1, -40.0), Value::Float(25.0)),
        (&[150], U16, ABCD, clamped, Value::Uint(100)),
        (&[0xFFFF], I16, ABCD, clamped, Value::Int(0)),
        (&[0x8000, 0], F32, ABCD, clamped, Value::Single(-0.0)),
    ];
    for (registers, kind, order, scale, want) in rows {
        assert_eq!(
            format(kind, order, scale).decode(&wire(registers)),
            Some(want),
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
        assert_eq!(Format::plain(kind).decode(&wire(registers)), None, "{kind:?}");
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
        (Format::plain(DataType::Text(2, Packing::HighLow)), Value::Text("abc".into()), "has 3 bytes"),
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
    for name in DataType::names().chain(["text[20, low-high]", "text[64, high]"]) {
        assert_eq!(name.parse::<DataType>().map(|t| t.to_string()), Ok(name.to_string()));
    }
    for bad in ["text[0]", "text[129]", "text[65, high]", "text[4, middle]", "u128", "text["] {
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
        Text(7, Packing::HighLow),
        Text(7, Packing::LowHigh),
        Text(7, Packing::High),
        Text(7, Packing::Low),
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
        if let Some(value) = format.decode(&wire(&words))
            && value.as_f64().is_none_or(f64::is_finite)
            && !matches!(&value, Value::Text(t) if t.contains('\u{FFFD}'))
        {
            let written = format.encode(&value).expect("a value that was read fits");
            prop_assert_eq!(written.len(), usize::from(kind.registers()));
            prop_assert_eq!(format.decode(&wire(&written)), Some(value));
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
        let value = format.decode(&wire(&[from])).unwrap();
        let (bits, mask) = format.encode_part(&value).unwrap();
        prop_assert_eq!(bits, from & mask);
        let now = (into & !mask) | bits;
        prop_assert_eq!(now & !mask, into & !mask);
        prop_assert_eq!(format.decode(&wire(&[now])), Some(value));
        let outside = format.decode(&wire(&[!mask])).and_then(|v| v.as_f64());
        prop_assert_eq!(outside, Some(0.0), "bits beside the part are no part of it");
        prop_assert!(format.encode(&Value::Uint(0)).is_err(), "never as a whole register");
    }

    #[test]
    fn no_registers_make_it_panic(
        kind in kinds(), words in proptest::collection::vec(any::<u16>(), 0..9), factor in any::<f64>(), offset in any::<f64>()
    ) {
        let format = format(kind, Order::DCBA, Some(Scale { factor, offset, clamp: None }));
        if let Some(value) = format.decode(&wire(&words)) {
            let _ = format.encode(&value);
        }
    }

    #[test]
    fn scaling_is_undone_to_the_same_register(raw in any::<u16>(), tenths in 1i32..10_000, offset in -1000i32..1000) {
        let scale = Scale { factor: f64::from(tenths) / 1000.0, offset: f64::from(offset), clamp: None };
        let format = format(DataType::U16, Order::ABCD, Some(scale));
        let value = format.decode(&wire(&[raw])).unwrap();
        prop_assert_eq!(format.encode(&value), Ok(vec![raw]));
    }
}
