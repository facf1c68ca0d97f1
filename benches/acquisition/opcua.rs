//! The same over OPC UA: one server, one subscription, signed and encrypted.
//!
//! ```text
//!   plc-sim bank --opcua --secure  <── Basic256Sha256/SignAndEncrypt ──  edge-agent run  ── MQTT ──>  broker ..
//! ```
//!
//! The server sends what has changed: with nothing to tell, what is left is the price of being there.

use crate::load::{Load, gateway_toml};
use crate::plant::{Agent, Bank, agent_says};
use crate::report::Outcome;
use crate::{Options, Setup};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Devices of a thousand values each, all on one server.
const DEVICES: usize = 5;

/// Values that change so often.
pub(crate) fn run(scenario: &str, changes: Duration, options: &Options) -> Outcome {
    let load = Load { lines: 1, ..Load::floats(DEVICES, changes) };
    let mut setup = Setup::around(load, options.publish, options, |load, dir, broker| {
        let bank = Bank::opcua(load.devices * load.values(), changes);
        let endpoint = format!("opc.tcp://{}/", bank.at);
        write_files(load, &endpoint, broker, dir);
        trust(&endpoint, dir);
        (bank, Agent::run(dir))
    });
    let (outcome, ()) = setup.window(scenario, options.window, |_, _| ());
    let grain = outcome.grain * DEVICES as f64;
    Outcome {
        what: format!(
            "{} variables that change every {}, one encrypted subscription",
            DEVICES * 1000,
            humantime::format_duration(changes)
        ),
        // Nothing is polled: what came, of what there was. One change may lie on either side of the window's ends.
        on_time: ((outcome.achieved + grain) / outcome.configured).min(1.0),
        grain,
        ..outcome
    }
}

fn write_files(load: &Load, endpoint: &str, broker: Option<u16>, dir: &Path) {
    let mut agent = gateway_toml("state_dir = \"state\"\n", broker, load.payload);
    let _ = write!(
        agent,
        "\n[[line]]\nname = \"server\"\nopcua = \"{endpoint}\"\nsecurity = \"Basic256Sha256/SignAndEncrypt\"\n"
    );
    for device in 0..load.devices {
        let _ = write!(agent, "[[line.device]]\nname = \"d{device}\"\ncell = \"c\"\nprofile = \"d{device}.toml\"\n");
        let mut profile = String::new();
        for n in 0..load.values() {
            let variable = device * load.values() + n;
            let _ =
                write!(profile, "[[tag]]\nname = \"t{n}\"\nnode = \"nsu=urn:lightsout:plc-sim:bank;s=V.{variable}\"\n");
        }
        fs::write(dir.join(format!("d{device}.toml")), profile).expect("a profile");
    }
    fs::write(dir.join("agent.toml"), agent).expect("a configuration");
}

/// What a person does once: looks, is told whom to trust, and trusts.
fn trust(endpoint: &str, dir: &Path) {
    let pki = dir.join("state/pki").display().to_string();
    let said = agent_says(&["browse", endpoint, "--pki-dir", &pki, "--limit", "1"]);
    let is_thumbprint = |word: &&str| word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let thumbprint = said.split_whitespace().find(is_thumbprint).unwrap_or_else(|| panic!("no thumbprint: {said}"));
    agent_says(&["pki", "trust", thumbprint, "--dir", &pki]);
}
