//! Numbers that come in as JSON lie in the registers bit for bit, and go out as they lie there.

use device_drivers::modbus::{DataType, Format, Scale};
use device_drivers::{Number, TagWrite, Value, WriteOutcome};
use edge_agent::commands::{Origin, WriteDesk, WriteForm, targets};
use edge_agent::config::{self, DriverPlan};
use edge_agent::telemetry::payload::json_of;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A door to one tag `d/t`, and how it lies in its registers.
fn door(kind: &str, more: &str) -> (Arc<WriteDesk>, mpsc::Receiver<TagWrite>, Format) {
    let dir = tempfile::tempdir().unwrap();
    let agent = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\n[[line]]\nname = \"l\"\nmodbus = \"h:502\"\n\
                 [[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 1\nprofile = \"p.toml\"\n";
    std::fs::write(dir.path().join("agent.toml"), agent).unwrap();
    let tag = format!("[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"{kind}\"\n{more}\n");
    std::fs::write(dir.path().join("p.toml"), tag).unwrap();
    let plan = config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
    let format = spec.devices[0].points[0].format.clone();
    let (queue, wishes) = mpsc::channel(64);
    let desk = WriteDesk::new(Arc::default(), &[]);
    desk.open(plan.lines.iter().flat_map(|line| targets(line, &queue)));
    (Arc::new(desk), wishes, format)
}

/// Writes a number as it stands in a request, and gives the outcome and what the driver got.
async fn written(door: &mut (Arc<WriteDesk>, mpsc::Receiver<TagWrite>, Format), json: &str) -> (String, Option<Value>) {
    let form: WriteForm = serde_json::from_str(&format!("{{\"tag\":\"d/t\",\"value\":{json}}}")).unwrap();
    let origin = Origin { via: "http", by: "test".into(), from: "here".into() };
    let write = door.0.write(form, origin);
    tokio::pin!(write);
    tokio::select! {
        view = &mut write => (view.outcome.to_string(), None),
        wish = door.1.recv() => {
            let wish = wish.unwrap();
            let _ = wish.reply.send(WriteOutcome::Done);
            (write.await.outcome.to_string(), Some(wish.value))
        }
    }
}

fn wire(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

#[tokio::test]
async fn ten_thousand_random_bit_patterns_come_back_as_they_went() {
    let mut random = fastrand::Rng::with_seed(25);
    for (kind, more) in [
        ("f64", "write = {}"),
        ("f32", "write = {}"),
        ("f32", "order = \"DCBA\"\nmin = -3.4028235e38\nmax = 3.4028235e38\nwrite = {}"),
        ("u64", "write = {}"),
        ("u64", "min = 0\nmax = 9223372036854775807\nwrite = { min = 0 }"),
        ("i64", "min = -9223372036854775808\nwrite = { max = 9223372036854775807 }"),
    ] {
        let mut door = door(kind, more);
        let registers = usize::from(door.2.kind.registers());
        for n in 0..10_000 / 6 + 1 {
            // Whatever a device may hold, small numbers and those beyond 53 bits alike.
            let mut words: Vec<u16> = (0..registers).map(|_| random.u16(..)).collect();
            if n % 4 == 0 {
                words[..registers - 1].iter_mut().for_each(|w| *w &= 0x8000);
            }
            if more.contains("max = 922") && kind == "u64" {
                words[0] &= 0x7FFF;
            }
            let Some(value) = door.2.decode(&wire(&words)).value() else { continue }; // not a number
            if !value.as_f64().is_some_and(f64::is_finite) {
                continue; // no number: JSON has none
            }
            let json = json_of(&value);
            let (outcome, got) = written(&mut door, &json).await;
            let got = got.unwrap_or_else(|| panic!("{json} as {kind}: {outcome}"));
            assert_eq!(door.2.encode(&got), Ok(words), "{json} as {kind} {more:?}");
        }
    }
}

#[tokio::test]
async fn limits_beyond_53_bits_are_kept_to_the_last_one() {
    let mut door = door("u64", "min = 3\nmax = 9007199254740993\nwrite = { min = 3, max = 9007199254740993 }");
    for (json, outcome) in [
        ("9007199254740993", "done"),
        ("9007199254740994", "not_allowed"),
        ("9007199254740992", "done"),
        ("2", "not_allowed"),
        ("18446744073709551615", "not_allowed"),
    ] {
        assert_eq!(written(&mut door, json).await.0, outcome, "{json}");
    }
    let read = |n: u64| door.2.decode(&n.to_be_bytes()).value();
    assert_eq!(read(9_007_199_254_740_993), Some(Value::Uint(9_007_199_254_740_993)));
    assert_eq!(read(u64::MAX), Some(Value::Uint(9_007_199_254_740_993)), "clamped, and not rounded");
    assert_eq!(read(1), Some(Value::Uint(3)));
}

#[test]
fn a_table_of_tags_keeps_the_digits_of_its_limits_too() {
    let dir = tempfile::tempdir().unwrap();
    let agent = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\n[[line]]\nname = \"l\"\nmodbus = \"h:502\"\n\
                 [[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 1\ntags = \"t.csv\"\n";
    std::fs::write(dir.path().join("agent.toml"), agent).unwrap();
    let table = "name;address;type;min;max;write;write_max\n\
                 a;holding:0;u64;0;9007199254740993;yes;18446744073709551615\n\
                 b;holding:4;f32;0,5;1e3;;\n";
    std::fs::write(dir.path().join("t.csv"), table).unwrap();
    let plan = config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
    let clamp = |n: usize| spec.devices[0].points[n].format.scale.as_ref().and_then(|s| s.clamp);
    let texts = |(min, max): (Number, Number)| (min.to_string(), max.to_string());
    assert_eq!(clamp(0).map(texts), Some(("0".into(), "9007199254740993".into())));
    assert_eq!(clamp(1).map(texts), Some(("0.5".into(), "1000".into())));
    let most = plan.lines[0].points[0].write.as_ref().and_then(|w| w.max);
    assert_eq!(most.map(|n| n.to_string()), Some(u64::MAX.to_string()));
}

#[test]
fn a_scale_of_nothing_takes_nothing_away() {
    let scale = Some(Box::new(Scale { factor: 1.0, offset: 0.0, clamp: None }));
    let format = Format { scale, ..Format::plain(DataType::U64) };
    let odd = (1u64 << 63) + 1;
    assert_eq!(format.decode(&odd.to_be_bytes()).value(), Some(Value::Uint(odd)));
    assert_eq!(format.encode(&Value::Uint(odd)), Ok(vec![0x8000, 0, 0, 1]));
}
