//! The field side of a configuration: addresses as others write them, tag tables, conf.d, serial lines, write rules; what is
//! wrong with them, and what a plan says of them.

use device_drivers::value::{Cause, Decoded};
use edge_agent::config::{self, DriverPlan, Plan};
use edge_agent::forecast::forecast;
use expect_test::expect_file;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const GATEWAY: &str = "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\n";

/// A folder with these files; the first is the configuration.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let first = dir.path().join(files[0].0);
    (dir, first)
}

fn load(path: &Path) -> Plan {
    config::load(path).unwrap_or_else(|e| panic!("{e}"))
}

fn line(modbus: &str, more: &str) -> String {
    format!("{GATEWAY}[[line]]\nname = \"l\"\nmodbus = \"{modbus}\"\n{more}")
}

const DEVICE: &str = "[[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 3\nprofile = \"p.toml\"\n";

#[test]
fn what_hardly_anybody_means_is_told_with_its_place_and_once_for_all_devices() {
    let device = |name: &str, more: &str| {
        format!("[[line.device]]\nname = \"{name}\"\ncell = \"c\"\nprofile = \"p.toml\"\n{more}")
    };
    let devices = device("a", "unit = 3\n") + &device("b", "") + &device("c", "unit = 3\n");
    let tag = |name: &str, at: &str, kind: &str, more: &str| {
        format!("[[tag]]\nname = \"{name}\"\naddress = \"holding:{at}\"\ntype = \"{kind}\"\n{more}")
    };
    let tags = [
        tag("total", "0", "u32", ""),
        tag("half", "1", "u16", ""),
        tag("raw", "0", "f32", ""),
        tag("flag", "1.3", "bool", ""),
        tag("free", "10", "u16", "write = {}\n"),
        tag("wide", "11", "u16", "write = { min = -1, max = 70000 }\n"),
        tag("scaled", "12", "u16", "factor = 0.1\nwrite = { min = 0, max = 6553.5 }\n"),
        tag("long", "20", "u64", "write = { min = 0, max = 9007199254740993 }\n"),
        tag("name", "30", "text[8]", "write = {}\n"),
        tag("open", "40", "u16", "write = { min = 0, max = inf }\n"),
    ];
    let (dir, path) = folder(&[("agent.toml", &line("10.0.0.1:502", &devices)), ("p.toml", &tags.concat())]);
    let plan = load(&path);
    let here = format!("{}/", dir.path().display());
    let told: Vec<String> = plan.advice.iter().map(|note| note.replace(&here, "")).collect();
    assert_eq!(
        told,
        [
            "p.toml:18: free may be written without limits: `write` has neither min nor max",
            "p.toml:23: max of `write` is 70000, and wide (u16) holds 65535: what lies beyond is refused",
            "p.toml:23: min of `write` is -1, and wide (u16) holds 0: what lies beyond is refused",
            "p.toml:6: half and total share registers: is the address or the type of one of them wrong?",
            "agent.toml:14: b has no `unit`: it is asked as unit 1",
            "agent.toml:18: c is unit 3 of line l, as a is",
        ]
    );
    let long = plan.lines[0].points[7].write.as_ref().and_then(|w| w.max);
    assert_eq!(long.map(|n| n.to_string()), Some("9007199254740993".into()), "no digit is lost");
    let check = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!((check.status.code(), said.matches("  note     ").count()), (Some(0), 6), "{said}");
}

#[test]
fn tags_come_from_profiles_and_tables_lines_from_conf_d_and_addresses_in_any_notation() {
    let agent = line("10.0.0.1:502", &format!("{DEVICE}tags = \"more.csv\"\norder = \"CDAB\"\n"));
    let table = "name,address,type,order,factor,min,interval,write,write_max\n\
                 # a comment, and an empty line\n\
                 \n\
                 flow,40011,f32,,0.1,0,1s,,\n\
                 \"total\",3!400021#BB,u32,,,,,yes,99\n\
                 alarm,00017,bool,,,,,yes,\n\
                 door,30001.3,bool,,,,,,\n";
    let serial = "[[line]]\nname = \"s\"\nmodbus = \"/dev/ttyUSB0\"\nserial = { baud = 9600, parity = \"none\" }\n\
                  [[line.device]]\nname = \"m\"\ncell = \"c\"\ntags = \"../more.csv\"\nunit = 3\n";
    let profile = "[[tag]]\nname = \"a\"\naddress = \"holding:0.4-7\"\ntype = \"u16\"\n";
    let (_dir, path) = folder(&[
        ("agent.toml", &agent),
        ("p.toml", profile),
        ("more.csv", table),
        ("conf.d/20-serial.toml", serial),
        ("conf.d/README", "not ours"),
    ]);
    let plan = load(&path);
    assert_eq!(plan.lines.iter().map(|l| (&*l.name, l.points.len())).collect::<Vec<_>>(), [("l", 5), ("s", 4)]);
    let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
    let shown: Vec<String> = spec.devices[0]
        .points
        .iter()
        .map(|p| format!("{} {} {} {:?} {}", p.address, p.format.kind, p.format.order, p.interval, p.writable))
        .collect();
    assert_eq!(
        shown,
        [
            "holding:0.4-7 u16 CDAB 100ms false",
            "holding:10 f32 CDAB 1s false",
            "holding:20 u32 ABCD 100ms true",
            "coil:16 bool CDAB 100ms true",
            "input:0.3 bool CDAB 100ms false",
        ]
    );
    assert_eq!(plan.lines[0].points[2].write.as_ref().unwrap().max, Some(99.0.into()));
    assert_eq!(plan.notes.len(), 8, "every address that was typed in another form: {:?}", plan.notes);
    assert_eq!(plan.notes[0], "d/flow: 40011 is holding:10, CDAB");
    let DriverPlan::Modbus(spec) = &plan.lines[1].driver else { panic!() };
    assert_eq!(spec.endpoint.to_string(), "/dev/ttyUSB0");
}

#[test]
fn what_is_wrong_with_them_is_told() {
    let tag = |keys: &str| format!("[[tag]]\nname = \"t\"\naddress = \"holding:7\"\ntype = \"u16\"\n{keys}\n");
    let plain = line("10.0.0.1:502", DEVICE);
    let table = line("10.0.0.1:502", "[[line.device]]\nname = \"d\"\ncell = \"c\"\ntags = \"t.csv\"\n");
    let rows: Vec<(&str, String, &str, String)> = vec![
        ("another unit's address", plain.clone(), "p.toml", tag("").replace("holding:7", "5!40001")),
        ("an address of a manual with 0", plain.clone(), "p.toml", tag("").replace("holding:7", "40000")),
        (
            "an address that may never be read",
            plain.clone(),
            "p.toml",
            format!("{}\n[limits]\nnever = [\"holding:5..9\"]", tag("")),
        ),
        ("a range that is none", plain.clone(), "p.toml", format!("{}\n[limits]\nnever = [\"5..9\"]", tag(""))),
        (
            "a text longer than a request",
            plain.clone(),
            "p.toml",
            format!("{}\n[limits]\nregisters = 10", tag("").replace("\"u16\"", "\"text[40]\"")),
        ),
        ("an order that does not exist", plain.clone(), "p.toml", tag("order = \"BACD\"")),
        ("a factor of nothing", plain.clone(), "p.toml", tag("factor = 0.0")),
        ("limits the wrong way round", plain.clone(), "p.toml", tag("min = 5.0\nmax = 1.0")),
        ("a factor that is no number", plain.clone(), "p.toml", tag("factor = nan")),
        ("a write rule that allows nothing", plain.clone(), "p.toml", tag("write = { min = 5, max = 1 }")),
        (
            "everybody on a serial line",
            line("/dev/ttyS0", &format!("serial = {{ baud = 9600 }}\n{}", DEVICE.replace("unit = 3", "unit = 0"))),
            "p.toml",
            tag(""),
        ),
        ("a table with a column twice", table.clone(), "t.csv", "name,address,type,type\na,holding:0,u16,u32\n".into()),
        ("a factor of a text", plain.clone(), "p.toml", tag("factor = 2.0").replace("\"u16\"", "\"text[4]\"")),
        ("a write to an input register", plain.clone(), "p.toml", tag("write = {}").replace("holding:7", "input:7")),
        (
            "a write to one bit",
            plain.clone(),
            "p.toml",
            tag("write = {}").replace("holding:7", "holding:7.2").replace("\"u16\"", "\"bool\""),
        ),
        (
            "a write to half a register",
            plain.clone(),
            "p.toml",
            tag("write = { read_modify_write = false }").replace("\"u16\"", "\"u8-high\""),
        ),
        (
            "a register read before all of it is written",
            plain.clone(),
            "p.toml",
            tag("write = { read_modify_write = true }"),
        ),
        ("a time of day that is written", plain.clone(), "p.toml", tag("write = {}").replace("\"u16\"", "\"dt-bcd\"")),
        ("a rate that limits nothing", plain.clone(), "p.toml", tag("write = { every = \"0s\" }")),
        (
            "a heartbeat of nothing",
            plain.replace("[[line]]", "[mqtt]\nbroker = \"b:1883\"\nheartbeat = \"0s\"\n[[line]]"),
            "p.toml",
            tag(""),
        ),
        (
            "a stop that waits for ever",
            plain.replace("line = \"a\"", "line = \"a\"\ndrain = \"1year\""),
            "p.toml",
            tag(""),
        ),
        ("a write rule with a wrong key", plain.clone(), "p.toml", tag("write = { maximum = 5.0 }")),
        (
            "a field of bits that is no number",
            plain.clone(),
            "p.toml",
            tag("").replace("holding:7", "holding:7.2-5").replace("\"u16\"", "\"f32\""),
        ),
        ("an interval longer than clocks last", plain.clone(), "p.toml", tag("interval = \"90days\"")),
        ("a serial line without settings", line("/dev/ttyS0", DEVICE), "p.toml", tag("")),
        (
            "a serial line that gives its connection up",
            line("/dev/ttyS0", &format!("serial = {{ baud = 9600 }}\nclose_after_poll = true\n{DEVICE}")),
            "p.toml",
            tag(""),
        ),
        (
            "foreign replies with a pipeline",
            line("10.0.0.1:502", &format!("pipeline = 4\n{DEVICE}foreign_replies = true\n")),
            "p.toml",
            tag(""),
        ),
        (
            "foreign replies on a serial line",
            line("/dev/ttyS0", &format!("serial = {{ baud = 9600 }}\n{DEVICE}foreign_replies = true\n")),
            "p.toml",
            tag(""),
        ),
        (
            "a serial line with a pipeline",
            line("/dev/ttyS0", &format!("serial = {{ baud = 9600 }}\npipeline = 4\n{DEVICE}")),
            "p.toml",
            tag(""),
        ),
        (
            "a parity that does not exist",
            line("/dev/ttyS0", &format!("serial = {{ baud = 9600, parity = \"mark\" }}\n{DEVICE}")),
            "p.toml",
            tag(""),
        ),
        (
            "settings of a port on a TCP line",
            line("10.0.0.1:502", &format!("serial = {{ baud = 9600 }}\n{DEVICE}")),
            "p.toml",
            tag(""),
        ),
        ("TLS without certificates", line("tls://10.0.0.1:802", DEVICE), "p.toml", tag("")),
        (
            "half an identity",
            line("tls://10.0.0.1:802", &format!("tls = {{ ca = \"p.toml\", key = \"none.key\" }}\n{DEVICE}")),
            "p.toml",
            tag(""),
        ),
        ("a kind of line that does not exist", line("udp://10.0.0.1:502", DEVICE), "p.toml", tag("")),
        (
            "a device without tags",
            line("10.0.0.1:502", "[[line.device]]\nname = \"d\"\ncell = \"c\"\n"),
            "p.toml",
            tag(""),
        ),
        ("a table with a wrong column", table.clone(), "t.csv", "name,adress,type\na,holding:0,u16\n".into()),
        ("a table without names", table.clone(), "t.csv", "address,type\nholding:0,u16\n".into()),
        ("a table with a cell too many", table.clone(), "t.csv", "name,address,type\na,holding:0,u16,1\n".into()),
        (
            "a table with a number that is none",
            table.clone(),
            "t.csv",
            "name,address,type,factor\na,holding:0,u16,\"0,1\"\nb,holding:1,u16,x\n".into(),
        ),
        (
            "a table with a tag twice",
            table.clone(),
            "t.csv",
            "name,address,type\na,holding:0,u16\n\n# again\na,holding:1,u16\n".into(),
        ),
        ("a table with a wrong type", table.clone(), "t.csv", "name,address,type\na, holding:0 ,int16\n".into()),
        ("a range the wrong way round", plain.clone(), "p.toml", tag("low = 16\nhigh = 0")),
        ("a range of a text", plain.clone(), "p.toml", tag("low = 0.0").replace("\"u16\"", "\"text[4]\"")),
        ("an absent value that is no pattern", plain.clone(), "p.toml", tag("absent = [\"0x80\"]")),
        ("an absent value of another width", plain.clone(), "p.toml", tag("absent = [\"0x80000000\"]")),
        ("an absent value of nothing", plain.clone(), "p.toml", format!("absent = [\"night\"]\n{}", tag(""))),
        (
            "an absent bit",
            plain.clone(),
            "p.toml",
            tag("absent = [\"1\"]").replace("holding:7", "coil:7").replace("\"u16\"", "\"bool\""),
        ),
        ("a scale from a tag that is not there", plain.clone(), "p.toml", tag("scale_from = \"power\"")),
        (
            "a scale from a tag that is none",
            plain.clone(),
            "p.toml",
            format!(
                "{}\n[[tag]]\nname = \"sf\"\naddress = \"holding:8\"\ntype = \"u16\"\n",
                tag("scale_from = \"sf\"")
            ),
        ),
        (
            "a write that is scaled by a register",
            plain.clone(),
            "p.toml",
            format!(
                "{}\n[[tag]]\nname = \"sf\"\naddress = \"holding:8\"\ntype = \"i16\"\n",
                tag("scale_from = \"sf\"\nwrite = {}")
            ),
        ),
        ("a range that never ends", plain.clone(), "p.toml", tag("high = inf")),
        ("a unit that is an essay", plain.clone(), "p.toml", tag(&format!("unit = \"{}\"", "bar ".repeat(20)))),
        ("a unit of nothing", plain.clone(), "p.toml", tag("unit = \" \"")),
        ("a description of two lines", plain.clone(), "p.toml", tag("description = \"oil\\npressure\"")),
        ("a table with a range that is none", table, "t.csv", "name,address,type,low\na,holding:0,u16,none\n".into()),
    ];
    let mut all = String::new();
    for (name, agent, file, text) in rows {
        let (dir, path) = folder(&[("agent.toml", &agent), (file, &text)]);
        let Err(report) = config::load(&path) else { panic!("{name}: taken for valid") };
        let text = report.render(false).replace(&format!("{}/", dir.path().display()), "");
        let _ = write!(all, "=== {name}\n{text}\n\n");
    }
    let (dir, path) = folder(&[("agent.toml", GATEWAY), ("conf.d/a.toml", "[mqtt]\nbroker = \"localhost:1883\"\n")]);
    let text = config::load(&path).unwrap_err().render(false).replace(&format!("{}/", dir.path().display()), "");
    let _ = write!(all, "=== a part that is no line\n{text}\n\n");
    expect_file!["snapshots/config_fields.txt"].assert_eq(&all);
}

#[test]
fn a_plan_shows_each_request_and_refuses_what_cannot_work_with_the_smallest_change() {
    let tags = |count: u16| -> String {
        let tag = |n| format!("[[tag]]\nname = \"t{n}\"\naddress = \"holding:{}\"\ntype = \"u16\"\n", n * 3);
        (0..count).map(tag).collect()
    };
    let serial = line("/dev/ttyS0", &format!("serial = {{ baud = 9600 }}\ntimeout = \"500ms\"\n{DEVICE}"));
    let one_by_one = format!("interval = \"10ms\"\n[limits]\none_by_one = true\n{}", tags(4));
    let rows = [
        ("fine", serial.clone(), format!("interval = \"10s\"\n{}", tags(200))),
        ("too fast for the wire", serial, format!("interval = \"1s\"\n{}", tags(200))),
        ("too fast for the device", line("10.0.0.1:502", DEVICE), one_by_one),
    ];
    let mut all = String::new();
    for (name, agent, profile) in rows {
        let (_dir, path) = folder(&[("agent.toml", &agent), ("p.toml", &profile)]);
        let forecast = forecast(&load(&path), Duration::from_millis(5));
        let _ = write!(all, "=== {name}\n{forecast}\n\n");
        let run = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("plan").arg(&path).arg("--json").output().unwrap();
        assert_eq!(run.status.success(), forecast.feasible, "{name}");
        let json: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
        assert_eq!(json["lines"][0]["utilisation"].as_f64(), Some(forecast.lines[0].utilisation));
    }
    expect_file!["snapshots/plans.txt"].assert_eq(&all);
}

/// What the plan recommends is enough: with the change it names, the schedule is feasible.
#[test]
fn the_smallest_change_is_enough() {
    let tag = "[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"u16\"\n";
    let config = |interval: &str| {
        let agent = line("/dev/ttyS0", &format!("serial = {{ baud = 1200 }}\n{DEVICE}"));
        folder(&[("agent.toml", &agent), ("p.toml", &format!("interval = \"{interval}\"\n{tag}"))])
    };
    let reply = Duration::from_millis(5);
    let (_dir, path) = config("20ms");
    let told = forecast(&load(&path), reply).lines[0].infeasible.clone().expect("1200 baud is too slow");
    let better = told.rsplit("every ").next().expect("an interval").to_string();
    let (_dir, path) = config(&better);
    assert!(forecast(&load(&path), reply).feasible, "{told}");
}

#[test]
fn tables_of_other_countries_and_spreadsheets_are_read_too() {
    let agent = line("10.0.0.1:502", "[[line.device]]\nname = \"d\"\ncell = \"c\"\ntags = \"t.csv\"\n");
    for table in [
        "\u{feff}name;address;type;factor\r\nflow;holding:0;u16;0,5\r\n",
        "name\taddress\ttype\tfactor\nflow\tholding:0\tu16\t0.5\n",
        "\"name\",\"address\",\"type\",\"factor\"\r\n\"flow\",\"holding:0\",\"u16\",\"0.5\"",
    ] {
        let (_dir, path) = folder(&[("agent.toml", &agent), ("t.csv", table)]);
        let plan = load(&path);
        let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
        assert_eq!(spec.devices[0].points[0].format.scale.as_ref().map(|s| s.factor), Some(0.5), "{table:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    /// Whatever a tag table or a profile holds: it is read, or refused with a place in the file.
    #[test]
    fn no_table_and_no_profile_makes_it_panic(
        table in "(name[,;]address[,;]type)?\\n?([a-z0-9:.\",;#!\\[\\] \\n\u{e4}]{0,60})",
        keys in "[a-z_]{3,9} = (\"[a-zA-Z0-9:.#!]{0,12}\"|[0-9.]{1,12}|\\{[a-z =0-9.]{0,12}\\})",
    ) {
        let agent = line("10.0.0.1:502", &format!("{DEVICE}tags = \"t.csv\"\n"));
        let profile = format!("[[tag]]\nname = \"t\"\naddress = \"holding:7\"\ntype = \"u16\"\n{keys}\n");
        let (_dir, path) = folder(&[("agent.toml", &agent), ("t.csv", &table), ("p.toml", &profile)]);
        if let Err(report) = config::load(&path) {
            proptest::prop_assert!(report.render(false).contains("error: "));
        }
    }
}

/// The block of the README that begins with this after "Connecting a real PLC".
fn readme_block(kind: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = readme.split("## Connecting a real PLC").nth(1).expect("the section");
    let block = section.split(&format!("```{kind}\n")).nth(1).expect("the block");
    block.split("```").next().unwrap().to_string()
}

#[test]
fn the_readme_s_example_is_a_valid_configuration() {
    let node = "[[tag]]\nname = \"force\"\nnode = \"nsu=urn:maker:press;s=Force\"\n";
    let (_dir, path) = folder(&[
        ("agent.toml", &readme_block("toml")),
        ("meter.csv", &readme_block("csv")),
        ("press-1.toml", node),
        ("press.password", "secret"),
    ]);
    let plan = load(&path);
    assert_eq!(plan.lines.iter().map(|l| l.points.len()).collect::<Vec<_>>(), [5, 1]);
}

#[test]
fn a_tag_says_what_it_is_to_people_in_profile_and_table_and_all_devices_of_a_profile_share_it() {
    let second = DEVICE.replace("\"d\"", "\"e\"").replace("unit = 3", "unit = 4");
    let agent = line("10.0.0.1:502", &format!("{DEVICE}tags = \"t.csv\"\n{second}"));
    let profile = "[[tag]]\nname = \"oil\"\naddress = \"holding:0\"\ntype = \"f32\"\nunit = \"°C\"\nlow = -40\nhigh = 120.5\n\
                   description = \"Oil of the gear, at its return\"\ndeadband_percent = 10\n\
                   [[tag]]\nname = \"plain\"\naddress = \"holding:2\"\ntype = \"u16\"\n";
    let table = "name;address;type;unit;description;low;high\nflow;holding:4;f32;m³/h;;0;2,5\n";
    let (_dir, path) = folder(&[("agent.toml", &agent), ("p.toml", profile), ("t.csv", table)]);
    let plan = load(&path);
    let points = &plan.lines[0].points;
    let oil = points[0].meaning.as_ref().expect("it says a lot");
    let text = |s: &str| Some(s.to_string());
    assert_eq!((&oil.unit, oil.low, oil.high), (&text("°C"), Some(-40.0), Some(120.5)));
    assert_eq!(oil.description, text("Oil of the gear, at its return"));
    assert_eq!(points[0].deadband, 16.05, "percent are those of the range that is shown");
    assert_eq!(points[1].meaning, None);
    let flow = points[2].meaning.as_ref().expect("the table says something");
    assert_eq!((&flow.unit, &flow.description, flow.low, flow.high), (&text("m³/h"), &None, Some(0.0), Some(2.5)));
    assert!(std::sync::Arc::ptr_eq(oil, points[3].meaning.as_ref().unwrap()), "one for both devices");
}

#[test]
fn absent_values_and_scales_in_registers_are_said_by_tag_profile_or_table() {
    let agent = line("10.0.0.1:502", &format!("{DEVICE}tags = \"t.csv\"\n"));
    let profile = "absent = [\"sunspec\"]\n\
                   [[tag]]\nname = \"W\"\naddress = \"holding:0\"\ntype = \"i16\"\nscale_from = \"W_SF\"\n\
                   [[tag]]\nname = \"W_SF\"\naddress = \"holding:1\"\ntype = \"i16\"\n\
                   [[tag]]\nname = \"WH\"\naddress = \"holding:2\"\ntype = \"u32\"\nabsent = [\"sunspec-acc\", \"0xFFFFFFFF\"]\n\
                   [[tag]]\nname = \"plain\"\naddress = \"holding:4\"\ntype = \"u16\"\nabsent = []\n\
                   [[tag]]\nname = \"run\"\naddress = \"coil:4\"\ntype = \"bool\"\n";
    let table = "name,address,type,absent\nnight,holding:9,u16,0x7FFF 65535\n";
    let (_dir, path) = folder(&[("agent.toml", &agent), ("p.toml", profile), ("t.csv", table)]);
    let plan = load(&path);
    let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
    let format = |n: usize| &spec.devices[0].points[n].format;
    let none = |n: usize, wire: &[u8]| format(n).decode(wire) == Decoded::None(Cause::NotAvailable);
    assert_eq!(format(0).special.as_ref().unwrap().power, Some("holding:1".parse().unwrap()));
    assert!(none(0, &[0x80, 0]) && none(1, &[0x80, 0]) && !none(0, &[0xFF, 0xFF]));
    assert!(none(2, &[0; 4]) && none(2, &[0xFF; 4]) && !none(2, &[0, 0, 0, 1]));
    assert!(format(3).special.is_none() && format(4).special.is_none());
    assert!(none(5, &[0x7F, 0xFF]) && none(5, &[0xFF, 0xFF]) && !none(5, &[0x80, 0]));
}

#[test]
fn parts_that_cannot_be_read_are_an_error_and_no_empty_folder() {
    type Spoil = fn(&Path);
    let ways: [(&str, Spoil); 3] = [
        ("a file where the folder should be", |dir| std::fs::write(dir.join("conf.d"), "").unwrap()),
        ("a link to a folder that is gone", |dir| std::os::unix::fs::symlink("gone", dir.join("conf.d")).unwrap()),
        ("a link to a part that is gone", |dir| {
            std::fs::create_dir(dir.join("conf.d")).unwrap();
            std::os::unix::fs::symlink("gone.toml", dir.join("conf.d/10-line.toml")).unwrap();
        }),
    ];
    for (name, spoil) in ways {
        let (dir, path) = folder(&[("agent.toml", GATEWAY)]);
        assert!(load(&path).lines.is_empty(), "no conf.d at all is fine");
        spoil(dir.path());
        let Err(report) = config::load(&path) else { panic!("{name}: taken for none") };
        let text = report.render(false);
        assert!(text.contains("cannot read ") && text.contains("conf.d") && text.contains("permissions"), "{text}");
    }
}

#[test]
fn parts_of_registers_may_be_written_where_profile_or_tag_says_how() {
    let tags = "[[tag]]\nname = \"bit\"\naddress = \"holding:7.3\"\ntype = \"bool\"\nwrite = {}\n\
                [[tag]]\nname = \"half\"\naddress = \"holding:8\"\ntype = \"u8\"\nwrite = {}\n";
    let agent = line("10.0.0.1:502", DEVICE);
    let (_dir, path) = folder(&[("agent.toml", &agent), ("p.toml", &format!("[limits]\nmask_write = true\n{tags}"))]);
    let DriverPlan::Modbus(spec) = &load(&path).lines[0].driver else { panic!() };
    assert!(spec.devices[0].mask_write && spec.devices[0].points.iter().all(|p| p.writable && !p.read_modify_write));

    let agent = line("10.0.0.1:502", "[[line.device]]\nname = \"d\"\ncell = \"c\"\ntags = \"t.csv\"\n");
    let table = "name,address,type,write,write_verify,write_read_modify_write\nbit,holding:7.3,bool,yes,no,yes\n";
    let (_dir, path) = folder(&[("agent.toml", &agent), ("t.csv", table)]);
    let plan = load(&path);
    let DriverPlan::Modbus(spec) = &plan.lines[0].driver else { panic!() };
    assert!(spec.devices[0].points[0].read_modify_write && !spec.devices[0].mask_write);
    assert!(!plan.lines[0].points[0].write.as_ref().unwrap().verify);
}

#[test]
fn check_says_what_a_gateway_to_a_serial_line_has_to_be_set_to() {
    let tag = "[[tag]]\nname = \"a\"\naddress = \"holding:0\"\ntype = \"u16\"\n";
    let second = DEVICE.replace("\"d\"", "\"e\"").replace("unit = 3", "unit = 4");
    let told = |agent: &str| {
        let (_dir, path) = folder(&[("agent.toml", agent), ("p.toml", tag)]);
        let run = Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").arg(&path).output().unwrap();
        assert!(run.status.success());
        String::from_utf8(run.stdout).unwrap()
    };
    let two = told(&line("10.0.0.1:502", &format!("timeout = \"2s\"\n{DEVICE}{second}")));
    let want =
        "2 units behind 10.0.0.1:502: if it is a gateway to a serial line, let it give up on a unit well before 2s";
    assert!(two.contains(want), "{two}");
    assert!(!told(&line("10.0.0.1:502", DEVICE)).contains("gateway to a serial line"), "one unit needs no advice");
}

/// What has a name like a file and is none, and what never ends: in each place that a configuration can name.
#[test]
fn what_is_no_file_is_an_error_at_once_wherever_it_is_named() {
    let table = "[[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 3\ntags = \"t.csv\"\n";
    let whole = line("10.0.0.1:502", &format!("{DEVICE}{}", table.replace("\"d\"", "\"e\"")))
        + "[mqtt]\nbroker = \"mqtts://b:8883\"\nusername = \"u\"\npassword_file = \"secret\"\ntls = { ca = \"ca.pem\" }\n"
        + "[http]\ntls = { certificate = \"gw.pem\", key = \"gw.key\" }\n"
        + "[[line]]\nname = \"ua\"\nopcua = \"opc.tcp://10.0.0.2:4840/\"\nsecurity = \"Basic256Sha256/Sign\"\n"
        + "username = \"u\"\npassword_file = \"ua-secret\"\n[[line.device]]\nname = \"f\"\ncell = \"c\"\nprofile = \"ua.toml\"\n";
    let whole = whole.replace("line = \"a\"\n", "line = \"a\"\nstate_dir = \"state\"\n");
    let made = rcgen::generate_simple_self_signed(vec!["gw".to_string()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = [
        ("agent.toml", whole.as_str()),
        ("p.toml", "[[tag]]\nname = \"a\"\naddress = \"holding:0\"\ntype = \"u16\"\n"),
        ("t.csv", "name,address,type\na,holding:0,u16\n"),
        ("ua.toml", "[[tag]]\nname = \"a\"\nnode = \"ns=2;s=a\"\n"),
        ("secret", "x\n"),
        ("ua-secret", "x\n"),
        ("ca.pem", pem.as_str()),
        ("gw.pem", pem.as_str()),
        ("gw.key", key.as_str()),
        ("conf.d/more.toml", ""),
    ];
    let (dir, path) = folder(&files);
    if let Err(why) = config::load(&path) {
        assert!(why.to_string().contains("node"), "{why}");
        panic!("{why}");
    }
    let begun = std::time::Instant::now();
    for (name, _) in files {
        let (file, kept) = (dir.path().join(name), dir.path().join("kept"));
        std::fs::rename(&file, &kept).unwrap();
        for kind in ["fifo", "endless", "folder", "large"] {
            match kind {
                "fifo" => assert!(Command::new("mkfifo").arg(&file).status().unwrap().success()),
                "endless" => std::os::unix::fs::symlink("/dev/zero", &file).unwrap(),
                "folder" => std::fs::create_dir(&file).unwrap(),
                _ => std::fs::File::create(&file).unwrap().set_len(1 << 34).unwrap(),
            }
            let told = config::load(&path).map(drop).map_err(|e| e.to_string());
            // A folder in conf.d is one more folder.
            if (name, kind) != ("conf.d/more.toml", "folder") {
                let why = told.expect_err(&format!("{name} is a {kind}"));
                assert!(
                    ["no regular file", "a folder", "larger than"].iter().any(|w| why.contains(w)),
                    "{name}: {why}"
                );
            }
            let _ = std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file));
        }
        std::fs::rename(&kept, &file).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_table_takes_time_by_its_length_and_not_by_its_square() {
    let device = "[[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 3\ntags = \"t.csv\"\n";
    let told = |table: &str| {
        let (_dir, path) = folder(&[("agent.toml", &line("10.0.0.1:502", device)), ("t.csv", table)]);
        let begun = std::time::Instant::now();
        let told = config::load(&path).map(|plan| plan.lines[0].points.len()).map_err(|e| e.to_string());
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        told
    };
    let columns: String = (0..100_000).map(|n| format!("c{n},")).collect();
    assert!(told(&format!("name,{columns}\n")).unwrap_err().contains("100002 columns"));
    let row = |n: u32, kind: &str| format!("t{n},holding:{},{kind}\n", n % 60_000);
    let rows =
        |count: u32, kind: &str| (0..count).fold("name,address,type\n".to_string(), |all, n| all + &row(n, kind));
    assert_eq!(told(&rows(50_000, "u16")), Ok(50_000));
    let wrong = told(&rows(500_000, "u17")).unwrap_err();
    assert!(wrong.contains("and 9") && wrong.len() < 200_000, "{}", wrong.len());
    let same = told(&("name,address,type\n".to_string() + &"a,holding:1,u16\n".repeat(500_000))).unwrap_err();
    assert!(same.contains("two tags have the same name") && same.len() < 200_000, "{}", same.len());
    assert!(told(&rows(1_000_000, "u16")).unwrap_err().contains("larger than 16 MiB"));
}

#[test]
fn what_was_hoped_for_and_is_not_so_is_told() {
    let tags =
        "name,address,type,write,write_min,write_max\nspeed,holding:0,u16,yes,0,100\nlevel,holding:1,u16,no,0,9\n";
    let device = "[[line.device]]\nname = \"d\"\ncell = \"c\"\nunit = 3\ntags = \"t.csv\"\n";
    let whole = line("10.0.0.1:502", device);
    let refused = |main: &str, table: &str| {
        let (_dir, path) = folder(&[("agent.toml", main), ("t.csv", table), ("p.toml", "[tag]\nname = \"a\"\n")]);
        config::load(&path).map(|plan| plan.advice).map_err(|e| e.to_string())
    };
    assert_eq!(refused(&whole, tags), Ok(Vec::new()));
    let why = |main: &str, table: &str, words: &[&str]| {
        let why = refused(main, table).unwrap_err();
        assert!(words.iter().all(|w| why.contains(w)), "{words:?}: {why}");
    };
    why(&whole.replace("10.0.0.1", "${PLC}"), tags, &["${PLC}:502", "nothing is filled in"]);
    let ua = "security = \"none\"\n[[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"p.toml\"\n";
    let ua = line("", ua).replace("modbus = \"\"", "opcua = \"opc.tcp://${PLC}:4840/\"");
    why(&ua, tags, &["not an OPC UA endpoint", "nothing is filled in"]);
    why(
        &whole.replace("line = \"a\"\n", "line = \"a\"\nstate_dir = \"~/state\"\n"),
        tags,
        &["~/state", "a folder of that name"],
    );
    why(&whole.replace("t.csv", "~/t.csv"), tags, &["`~` means no folder here"]);
    why(&whole, &tags.replace(",no,", ",,"), &["`write_min` has no effect", "t.csv:3", "yes or no"]);
    why(&format!("{whole}[http]\nunencrypted = yes\n"), tags, &["write true"]);
    why(&format!("{whole}[http]\nremote = viewer\n"), tags, &["a text needs quotation marks"]);
    why(&format!("{whole}[http]\nremote = \u{201c}viewer\u{201d}\n"), tags, &["plain quotation marks"]);
    why(&whole.replace("tags = \"t.csv\"", "profile = \"p.toml\""), tags, &["single brackets", "[[tag]]"]);
    why("", tags, &["[gateway] is missing", "name = \"..\", area = \"..\" and line"]);

    let latin = [tags.as_bytes(), b"temp\xe9rature,holding:2,u16,,,\n"].concat();
    let (dir, path) = folder(&[("agent.toml", &whole)]);
    std::fs::write(dir.path().join("t.csv"), latin).unwrap();
    let said = config::load(&path).unwrap_err().to_string();
    assert!(["t.csv", "row 4", "save it as UTF-8"].iter().all(|w| said.contains(w)), "{said}");

    let commands = "[mqtt]\nbroker = \"127.0.0.1:1883\"\n[mqtt.commands]\nallow = [\"d/speed\", \"d/sped\", \"d/level\", \"e/*\"]\n";
    let told = refused(&format!("{whole}{commands}"), tags).unwrap();
    assert_eq!(told.len(), 3, "{told:?}");
    for (note, name) in told.iter().zip(["d/sped", "d/level", "e/*"]) {
        assert!(note.contains("agent.toml:16: ") && note.contains(name), "{note}");
    }
    let empty = format!("{whole}[[line]]\nname = \"m\"\nmodbus = \"10.0.0.2:502\"\n");
    assert!(refused(&empty, tags).unwrap()[0].contains("line m has no [[line.device]]"));
    assert!(refused(&whole, "name,address,type\n").unwrap()[0].contains("d has no tags"));
}
