//! `[mqtt]`, `[spool]` and the keys of tags that telemetry reads: what they come to, and what is wrong with them.

use edge_agent::config::{self, Plan};
use edge_agent::telemetry::mqtt::wire::Version;
use edge_agent::telemetry::payload::Encoding;
use edge_agent::telemetry::spool::{Replay, Retention, Stream};
use expect_test::{expect, expect_file};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

const HEAD: &str = "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\n";
const LINE: &str = "[[line]]\nname = \"l\"\nmodbus = \"10.0.0.1:502\"\n[[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"p.toml\"\n";
const TAG: &str = "[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"u16\"\n";

fn folder(agent: &str, profile: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent.toml"), agent).unwrap();
    std::fs::write(dir.path().join("p.toml"), profile).unwrap();
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    std::fs::write(dir.path().join("password"), "secret\n").unwrap();
    dir
}

fn load(dir: &Path) -> Plan {
    config::load(&dir.join("agent.toml")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn everything_that_can_be_said_of_telemetry_is_understood() {
    let agent = format!(
        "{}enterprise = \"acme\"\nsite = \"rhine\"\nstate_dir = \"state\"\n\
         [spool]\ndirectory = \"spool\"\nsize = \"2GiB\"\nage = \"7days\"\nretention = \"thin\"\nkeep = 10\nreserve = \"8MiB\"\n\
         [mqtt]\nbrokers = [\"mqtts://a:8883\", \"b:1883\"]\nversion = \"5\"\nencoding = \"cbor\"\nexpiry = \"1h\"\n\
         properties = {{ plant = \"north\" }}\nreplay = \"in-order\"\nreplay_rate = 500.0\ntls = {{ ca = \"ca.pem\" }}\n\
         username = \"gw\"\npassword_file = \"password\"\ntopic = \"{{enterprise}}/{{site}}/{{area}}/{{line}}/{{cell}}/{{device}}/{{tag}}\"\n\
         [mqtt.commands]\nallow = [\"d/*\"]\nrate = 2.0\n{LINE}",
        HEAD
    );
    let dir = folder(&agent, &format!("{TAG}priority = \"high\"\ndeadband_percent = 2.0\nmin = 0.0\nmax = 50.0\n"));
    let plan = load(dir.path());
    let m = plan.mqtt.as_ref().unwrap();
    let brokers: Vec<String> = m.brokers.iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["mqtts://a:8883", "b:1883"]);
    assert_eq!((m.version, m.encoding, m.replay), (Version::V5, Encoding::Cbor, Replay::InOrder));
    assert_eq!((m.expiry, m.replay_rate), (Some(Duration::from_secs(3600)), Some(500.0)));
    assert_eq!(m.login.as_ref().unwrap().secret.as_ref().unwrap().read().unwrap(), "secret");
    assert_eq!((m.spool.capacity, m.spool.retention, m.spool.reserve), (2 << 30, Retention::Thin(10), 8 << 20));
    assert_eq!(m.spool.directory.as_deref(), Some(&*dir.path().join("spool")));
    assert_eq!(&*plan.lines[0].devices[0].topic.0, "acme/rhine/hall/a/c/d/");
    let point = &plan.lines[0].points[0];
    assert_eq!((point.stream, point.deadband), (Stream::High, 1.0), "2 % of 0 to 50");
    let commands = m.commands.as_ref().unwrap();
    assert_eq!(commands.topic, "lightsout/hall/a/gw/cmd");
    assert!(commands.own.iter().any(|own| own == "acme/rhine/hall/a/"), "{:?}", commands.own);
}

#[test]
fn a_credential_of_systemd_is_read_when_it_is_needed() {
    let agent = format!("{HEAD}[mqtt]\nbroker = \"b:1883\"\nusername = \"gw\"\npassword_credential = \"mqtt\"\n{LINE}");
    let dir = folder(&agent, TAG);
    let login = load(dir.path()).mqtt.unwrap().login.unwrap();
    let why = login.secret.unwrap().read().unwrap_err();
    assert!(why.contains("LoadCredential=mqtt:"), "{why}");
}

#[test]
fn what_is_wrong_with_it_is_told() {
    let mqtt = |more: &str| format!("{HEAD}[mqtt]\nbroker = \"b:1883\"\n{more}\n{LINE}");
    let spool = |more: &str| format!("{HEAD}[spool]\ndirectory = \"s\"\n{more}\n[mqtt]\nbroker = \"b:1883\"\n{LINE}");
    let plain = mqtt("");
    let tag = |more: &str| format!("{TAG}{more}\n");
    let rows: Vec<(&str, String, String)> = vec![
        ("no broker at all", format!("{HEAD}[mqtt]\n{LINE}"), tag("")),
        ("brokers twice", mqtt("brokers = [\"a:1\"]"), tag("")),
        ("an unknown way", mqtt("").replace("b:1883", "ws://b:1883"), tag("")),
        ("TLS without certificates", mqtt("").replace("b:1883", "mqtts://b:8883"), tag("")),
        ("certificates without TLS", mqtt("tls = { ca = \"ca.pem\" }"), tag("")),
        ("an unknown version", mqtt("version = \"4\""), tag("")),
        ("expiry in 3.1.1", mqtt("version = \"3.1.1\"\nexpiry = \"1h\""), tag("")),
        ("an unknown encoding", mqtt("encoding = \"xml\""), tag("")),
        ("an unknown replay", mqtt("replay = \"newest\""), tag("")),
        ("a rate of nothing", mqtt("replay_rate = 0.0"), tag("")),
        ("two passwords", mqtt("username = \"u\"\npassword_file = \"password\"\npassword_credential = \"x\""), tag("")),
        ("a password without a user", mqtt("password_credential = \"x\""), tag("")),
        ("a site that has no name", mqtt("topic = \"{site}/{device}/{tag}\""), tag("")),
        ("a size twice", spool("").replace("broker =", "spool = \"1GiB\"\nbroker ="), tag("")),
        ("an unknown retention", spool("retention = \"newest\""), tag("")),
        ("keep without thin", spool("keep = 3"), tag("")),
        ("thinning nothing", spool("retention = \"thin\"\nkeep = 1"), tag("")),
        ("an age of seconds", spool("age = \"5s\""), tag("")),
        ("a spool too small", spool("size = \"10kB\""), tag("")),
        ("Sparkplug with a topic", mqtt("topic = \"{device}/{tag}\"\nsparkplug = { group = \"g\" }"), tag("")),
        ("a group that is no level", mqtt("sparkplug = { group = \"a/b\" }"), tag("")),
        ("an unknown key of Sparkplug", mqtt("sparkplug = { group = \"g\", template = true }"), tag("")),
        ("a command for no tag", mqtt("commands = { allow = [\"speed\"] }"), tag("")),
        ("orders without a floor", mqtt("commands = { orders = true }"), tag("")),
        ("a rate of no commands", mqtt("commands = { rate = 0.0 }"), tag("")),
        ("an unknown priority", plain.clone(), tag("priority = \"urgent\"")),
        ("percent of what", plain.clone(), tag("deadband_percent = 2.0")),
        ("a deadband of nothing", plain.clone(), tag("deadband = 0.0")),
        ("two deadbands", plain.clone(), tag("deadband = 1.0\ndeadband_percent = 2.0")),
    ];
    let mut all = String::new();
    for (name, agent, profile) in rows {
        let dir = folder(&agent, &profile);
        let report = config::load(&dir.path().join("agent.toml")).expect_err(name);
        let text = report.render(false).replace(&format!("{}/", dir.path().display()), "");
        let _ = write!(all, "=== {name}\n{text}\n\n");
    }
    expect_file!["snapshots/config_mqtt.txt"].assert_eq(&all);
}

/// A table that went through Windows-1252 and Latin-1 has U+0096 where a dash was. mosquitto ends the connection over such a topic.
#[test]
fn a_control_character_is_refused_wherever_it_would_become_part_of_a_topic() {
    let agent = format!(
        "{HEAD}site = \"s\"\n[mqtt]\nbroker = \"b:1883\"\ntopic = \"{{site}}/{{device}}/{{tag}}\"\nstatus_topic = \"own/status\"\n\
         properties = {{ plant = \"north\" }}\ncommands = {{ topic = \"{{gateway}}/cmd\" }}\n{LINE}"
    );
    let table = agent.replace("profile = \"p.toml\"", "tags = \"t.csv\"");
    let sparkplug = format!(
        "{HEAD}[mqtt]\nbroker = \"b:1883\"\nsparkplug = {{ group = \"grp\", node = \"nod\", primary_host = \"hos\" }}\n{LINE}"
    );
    for (agent, profile) in [(&agent, TAG), (&table, TAG), (&sparkplug, TAG)] {
        let dir = folder(agent, profile);
        std::fs::write(dir.path().join("t.csv"), "name,address,type\ntable,holding:0,u16\n").unwrap();
        load(dir.path());
    }
    let places = [
        (&agent, "\"gw\""),
        (&agent, "\"hall\""),
        (&agent, "line = \"a\""),
        (&agent, "\"s\""),
        (&agent, "name = \"d\""),
        (&agent, "\"c\""),
        (&agent, "\"{site}/"),
        (&agent, "\"own/"),
        (&agent, "\"north\""),
        (&agent, "\"{gateway}/"),
        (&sparkplug, "\"grp\""),
        (&sparkplug, "\"nod\""),
        (&sparkplug, "\"hos\""),
    ];
    let profile = "name = \"t\"";
    for control in ["\\u0096", "\\u0007", "\\u007F"] {
        let spoiled = |text: &str, place: &str| {
            let (before, after) = place.split_once('"').unwrap();
            let spoiled = text.replacen(place, &format!("{before}\"x{control}{after}"), 1);
            assert_ne!(spoiled, text, "{place}");
            spoiled
        };
        let mut rows: Vec<(String, String)> =
            places.iter().map(|(agent, place)| (spoiled(agent, place), TAG.to_string())).collect();
        rows.push((agent.clone(), spoiled(TAG, profile)));
        for (agent, profile) in rows {
            let dir = folder(&agent, &profile);
            let report = config::load(&dir.path().join("agent.toml")).expect_err(&agent).render(false);
            let name = control.replace("\\u", "U+");
            assert!(report.contains(&format!("found {name}, a control character")), "{agent}{profile}{report}");
        }
    }
    // In a table it stands as it is.
    let dir = folder(&table, TAG);
    std::fs::write(dir.path().join("t.csv"), "name,address,type\nDruck\u{96}ist,holding:0,u16\n").unwrap();
    let report = config::load(&dir.path().join("agent.toml")).expect_err("a table").render(false);
    assert!(report.contains("found U+0096, a control character: was the file Windows-1252"), "{report}");
    // And a name that no topic has room for is a mistake.
    let dir = folder(&agent, &TAG.replace("\"t\"", &format!("\"{}\"", "x".repeat(70_000))));
    let report = config::load(&dir.path().join("agent.toml")).expect_err("a long name").render(false);
    assert!(report.contains("it has 70000 bytes"), "{}", &report[..report.len().min(400)]);
}

#[test]
fn templates_are_named_after_files_and_two_of_one_name_are_told_apart() {
    let agent = |templates: bool| {
        let second = "[[line.device]]\nname = \"e\"\ncell = \"c\"\nunit = 2\nprofile = \"east/P.toml\"\n";
        format!(
            "{HEAD}[mqtt]\nbroker = \"b:1883\"\nsparkplug = {{ group = \"g\", templates = {templates} }}\n{LINE}{second}"
        )
    };
    let dir = folder(&agent(false), TAG);
    std::fs::create_dir_all(dir.path().join("east")).unwrap();
    std::fs::write(dir.path().join("east/P.toml"), TAG).unwrap();
    let names = load(dir.path()).lines[0].devices.iter().map(|d| d.profile.to_string()).collect::<Vec<_>>();
    assert_eq!(names, ["p", "P"], "without templates nobody minds");
    std::fs::write(dir.path().join("agent.toml"), agent(true)).unwrap();
    let report = config::load(&dir.path().join("agent.toml")).expect_err("two of one name");
    let text = report.render(false).replace(&format!("{}/", dir.path().display()), "");
    expect![[r#"
        error: two templates have the same name
          --> agent.toml:19:11
           |
        19 | profile = "east/P.toml"
           |           ^^^^^^^^^^^^^ `P` is already the template of p.toml
           |
        help: templates are named after files, and capitals do not tell them apart: rename one of the files

        1 problem; nothing was started"#]]
    .assert_eq(&text);
    // The same file by another way is the same template.
    std::fs::write(dir.path().join("agent.toml"), agent(true).replace("east/P.toml", "east/../p.toml")).unwrap();
    load(dir.path());
}

/// A gateway that hears its own values as commands, or whose status is some tag's.
#[test]
fn a_device_whose_topic_is_one_of_the_gateway_s_own_is_refused() {
    for name in ["status", "lost", "cmd", "meta", "alarm"] {
        let agent =
            format!("{HEAD}[mqtt]\nbroker = \"b:1883\"\n{LINE}").replace("name = \"d\"", &format!("name = \"{name}\""));
        load(folder(&agent, TAG).path());
        let same = agent.replace("cell = \"c\"", "cell = \"gw\"");
        assert_ne!(same, agent);
        let dir = folder(&same, TAG);
        let report = config::load(&dir.path().join("agent.toml")).expect_err(name).render(false);
        assert!(
            report.contains("this name is taken") && report.contains(&format!("lightsout/hall/a/gw/{name}")),
            "{report}"
        );
    }
}
