//! `edge-agent acknowledge`: a person's word that machines may go on.

use super::client::Agent;
use super::look::{WARN, plain, styled};
use super::{Done, Failure};
use clap::Args;
use serde_json::{Value, json};

/// Which machines may go on.
#[derive(Debug, Args)]
pub(super) struct Acknowledge {
    /// Their names, as the page shows them; none: those that wait are shown, and none is released
    #[arg(conflicts_with = "all")]
    machines: Vec<String>,
    /// All that wait for it
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    agent: Agent,
}

/// Ends with 1 when a machine may not go on, and when some wait and none was named.
pub(super) fn acknowledge(options: &Acknowledge) -> Result<Done, Failure> {
    if options.machines.is_empty() && !options.all {
        return waiting(&options.agent);
    }
    let meant = if options.all { json!("all") } else { json!(options.machines) };
    let answer = options.agent.ask("POST", "/api/v1/acknowledge", Some(&json!({ "machines": meant })))?;
    let list = |key: &str| answer[key].as_array().map_or(&[][..], Vec::as_slice);
    let released = list("released").iter().map(|name| format!("{} may go on\n", word(name)));
    let held = list("not_released").iter().map(|n| {
        let text = format!("{} may not: {}", word(&n["machine"]), word(&n["why"]));
        format!("{}\n", styled(WARN, &plain(&text)))
    });
    let mut text: String = released.chain(held).collect();
    if text.is_empty() {
        text = "no machine waits for it\n".into();
    }
    let code = u8::from(!list("not_released").is_empty());
    Ok(Done { text, json: answer, code })
}

/// Who waits, by the alarms.
fn waiting(agent: &Agent) -> Result<Done, Failure> {
    let alarms = agent.ask("GET", "/api/v1/alarms", None)?;
    let waits = |a: &&Value| a["alarm"] == "needs-acknowledge" && a["active"] == true;
    let names: Vec<&str> = alarms.as_array().into_iter().flatten().filter(waits).map(|a| word(&a["subject"])).collect();
    let text = match names.as_slice() {
        [] => "no machine waits to be acknowledged\n".into(),
        names => format!("these wait to be acknowledged; name some, or say --all:\n  {}\n", plain(&names.join("\n  "))),
    };
    Ok(Done { text, json: json!({ "waiting": names }), code: u8::from(!names.is_empty()) })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
