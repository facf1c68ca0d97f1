//! `edge-agent browse` and `edge-agent pki`, as a person types them.

mod support;

use device_drivers::opcua::OpcUaSpec;
use edge_agent::config::{self, DriverPlan};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{demo_file, start_plant};

async fn edge_agent(arguments: Vec<String>) -> (bool, String, String) {
    let run = move || Command::new(env!("CARGO_BIN_EXE_edge-agent")).args(arguments).output();
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

/// The demo configuration with these tags instead of the cell's own.
fn loaded_with(tags: &str, dir: &Path) -> OpcUaSpec {
    std::fs::create_dir(dir.join("profiles")).unwrap();
    for name in ["agent.toml", "profiles/rack-plc.toml", "profiles/robot-cell.toml"] {
        let mut text = std::fs::read_to_string(demo_file(name)).unwrap();
        if name.ends_with("robot-cell.toml") {
            let machine = text.split("[[tag]]").next().unwrap().to_string();
            text = machine + tags;
        }
        std::fs::write(dir.join(name), text).unwrap();
    }
    let plan = config::load(&dir.join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    let spec = plan.lines.into_iter().find_map(|l| if let DriverPlan::OpcUa(s) = l.driver { Some(s) } else { None });
    spec.expect("a line of OPC UA")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_browsed_into_a_table_that_can_be_loaded() {
    let plant = start_plant(1).await;
    let dir = tempfile::tempdir().unwrap();
    let (table, pki) = (dir.path().join("cell.toml"), dir.path().join("pki"));
    let url = format!("opc.tcp://{}/", plant.addresses.opcua);
    let common = format!("browse {url} --security none --pki-dir {}", pki.display());

    let arguments = words(&format!("{common} --match Cell/Motor* --match *s=Cell.Busy -o {}", table.display()));
    let (ok, _, said) = edge_agent(arguments).await;
    assert!(ok && said.contains("3 variables"), "{said}");
    let text = std::fs::read_to_string(&table).unwrap();
    assert!(text.contains("# Double") && text.contains("# Boolean"), "{text}");
    assert!(
        text.contains("name = \"Cell.MotorCurrent\"\nnode = \"nsu=urn:lightsout:plc-sim:cell;s=Cell.MotorCurrent\""),
        "{text}"
    );
    let floor = tempfile::tempdir().unwrap();
    assert_eq!(loaded_with(&text, floor.path()).points.len(), 1 + 3, "the status block and three tags");

    let (ok, text, said) = edge_agent(words(&common)).await;
    assert!(ok && said.contains("11 variables"), "the cell's, and nothing of the standard's own: {said}\n{text}");
    let (ok, text, _) = edge_agent(words(&format!("{common} --limit 4"))).await;
    assert!(ok && text.contains("# Not all: 4 variables"), "{text}");
    // Never without security unless a person says so.
    let (ok, _, said) = edge_agent(words(&format!("browse {url} --pki-dir {}", pki.display()))).await;
    assert!(!ok && said.contains("it offers none"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_what_the_text_says() {
    let dir = tempfile::tempdir().unwrap();
    let pki_dir = Some(dir.path().join("server"));
    let config = OpcuaBankConfig { variables: 5, secure: true, trust_all: true, pki_dir, ..OpcuaBankConfig::default() };
    let bank = opcua_bank::serve(config).await.unwrap();
    let pki: PathBuf = dir.path().join("pki");
    let at = format!("--dir {}", pki.display());
    let browse = format!("browse {} --any-host --pki-dir {}", bank.url(), pki.display());

    let (ok, _, said) = edge_agent(words(&format!("pki list {at}"))).await;
    assert!(!ok && said.contains("there is no folder"), "{said}");
    let (ok, _, said) = edge_agent(words(&browse)).await;
    assert!(!ok && said.contains("run edge-agent pki trust "), "{said}");
    // The command as it stands there.
    let command = said.split("run edge-agent ").nth(1).unwrap().trim().to_string();
    assert!(command.ends_with(&at), "{command}");
    let thumbprint = command.split_whitespace().nth(2).unwrap().to_string();

    let (_, list, _) = edge_agent(words(&format!("pki list {at}"))).await;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("own ") && lines[0].contains(":lightsout:edge-agent"), "{list}");
    assert!(
        lines[1].starts_with(&format!("quarantine {thumbprint}")) && lines[1].contains("urn:lightsout:plc-sim"),
        "{list}"
    );
    let (ok, said, _) = edge_agent(words(&command)).await;
    assert!(ok && said.starts_with(&format!("trusted {thumbprint}")), "{said}");
    let (ok, table, said) = edge_agent(words(&browse)).await;
    assert!(ok && table.contains("s=V.4"), "{said}");

    let (ok, said, _) = edge_agent(words(&format!("pki reject {} {at}", &thumbprint[..10]))).await;
    assert!(ok && said.starts_with("no longer trusted"), "{said}");
    let (ok, _, said) = edge_agent(words(&browse)).await;
    assert!(!ok && said.contains("not trusted"), "{said}");
    let (ok, _, said) = edge_agent(words(&format!("pki trust 0011223344 {at}"))).await;
    assert!(!ok && said.contains("no certificate here"), "{said}");
}
