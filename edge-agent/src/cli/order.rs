//! `edge-agent order submit|list|decide|withdraw`.

use super::client::Agent;
use super::look::{self, FAINT, GOOD, Table, WARN};
use super::{Done, Failure};
use anstyle::Style;
use clap::Subcommand;
use serde_json::{Value, json};

/// What to do with orders.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Give an order
    Submit {
        /// store, retrieve, process or route
        kind: Kind,
        /// The number on the load's label
        load: u32,
        /// Program of the robot cell, for process
        #[arg(long)]
        program: Option<u16>,
        /// Station, or group of stations, for process
        #[arg(long)]
        station: Option<String>,
        /// Where the load goes, for route: rack, outside, or a group of stations with its program, as in weld:2
        #[arg(long = "stop", value_name = "STOP")]
        stops: Vec<String>,
        /// 0 rush, 1, 2, 3 bulk
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
        class: Option<u8>,
        /// How long an order waits for a load that is still to come, seconds
        #[arg(long)]
        wait_s: Option<u32>,
        /// When it shall be done: a time, or how long from now, as 10m
        #[arg(long)]
        due: Option<String>,
        /// Whose it is
        #[arg(long)]
        tenant: Option<String>,
        /// Loads of one group leave the rack in the order of their numbers
        #[arg(long)]
        group: Option<String>,
        /// The number within the group
        #[arg(long, requires = "group")]
        number: Option<u16>,
        /// Not begun before this order has ended
        #[arg(long)]
        after: Option<u32>,
        /// The same key again is the same order
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show the newest orders
    List {
        /// submitted, accepted, running, completed, rejected or failed
        #[arg(long)]
        state: Option<String>,
        /// So many at most
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show one order with its story
    Show {
        /// Its number
        id: u32,
        #[command(flatten)]
        agent: Agent,
    },
    /// Change the class of an order: 0 goes before everything
    Class {
        /// Its number
        id: u32,
        /// 0 rush, 1, 2, 3 bulk
        #[arg(value_parser = clap::value_parser!(u8).range(0..=3))]
        class: u8,
        #[command(flatten)]
        agent: Agent,
    },
    /// Decide on an order that is held: after a restart the plant and the record disagree about it
    Decide {
        /// Its number
        id: u32,
        /// What becomes of it
        decision: Decision,
        #[command(flatten)]
        agent: Agent,
    },
    /// Withdraw an order: what a machine is doing for it is brought to its end, no more
    #[command(visible_alias = "withdraw")]
    Cancel {
        /// Its number
        id: u32,
        /// At once, whatever moves; the load stays where that leaves it
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        agent: Agent,
    },
}

/// What becomes of an order that is held.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Decision {
    /// It goes on, from where its load is seen
    GoOn,
    /// It is done
    Done,
    /// It is given up
    GiveUp,
}

/// What is wanted with the load.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Kind {
    /// Into the rack
    Store,
    /// Out of the rack and the plant
    Retrieve,
    /// Through the robot cell and back
    Process,
    /// From stop to stop
    Route,
}

pub(super) fn run(command: &Command) -> Result<Done, Failure> {
    match command {
        Command::Submit {
            kind,
            load,
            program,
            station,
            stops,
            class,
            wait_s,
            due,
            tenant,
            group,
            number,
            after,
            key,
            agent,
        } => {
            let mut order = json!({ "kind": format!("{kind:?}").to_lowercase(), "load": load });
            let more = [
                ("program", json!(program)),
                ("station", json!(station)),
                ("stops", if stops.is_empty() { Value::Null } else { stops.iter().map(|s| stop(s)).collect() }),
                ("class", json!(class)),
                ("wait_s", json!(wait_s)),
                ("due", json!(due)),
                ("tenant", json!(tenant)),
                ("group", json!(group)),
                ("number", json!(number)),
                ("after", json!(after)),
                ("key", json!(key)),
            ];
            for (name, value) in more.into_iter().filter(|(_, v)| !v.is_null()) {
                order[name] = value;
            }
            let made = agent.ask("POST", "/api/v1/orders", Some(&order))?;
            let state = match word(&made["state"]) {
                "submitted" | "accepted" | "running" => "taken", // which of them is a matter of milliseconds
                other => other,
            };
            Ok(Done::new(format!("order {} is {state}\n", made["id"]), made))
        }
        Command::List { state, limit, agent } => {
            let state = state.as_ref().map_or(String::new(), |s| format!("&state={s}"));
            let all = agent.ask("GET", &format!("/api/v1/orders?limit={limit}{state}"), None)?;
            Ok(Done::new(list(&all), all))
        }
        Command::Show { id, agent } => {
            let order = agent.ask("GET", &format!("/api/v1/orders/{id}"), None)?;
            let mut text = list(&json!([order]));
            for step in order["story"].as_array().into_iter().flatten() {
                text +=
                    &format!("  {}  {}\n", look::styled(FAINT, time(&step["time"])), look::plain(word(&step["what"])));
            }
            Ok(Done::new(text, order))
        }
        Command::Class { id, class, agent } => {
            let order = agent.ask("PATCH", &format!("/api/v1/orders/{id}"), Some(&json!({ "class": class })))?;
            Ok(Done::new(format!("order {id} is class {class}\n"), order))
        }
        Command::Decide { id, decision, agent } => {
            let (word, said) = match decision {
                Decision::GoOn => ("go_on", "goes on"),
                Decision::Done => ("done", "is done"),
                Decision::GiveUp => ("give_up", "is given up"),
            };
            let body = json!({ "decision": word });
            let order = agent.ask("POST", &format!("/api/v1/orders/{id}/decision"), Some(&body))?;
            Ok(Done::new(format!("order {id} {said}\n"), order))
        }
        Command::Cancel { id, now, agent } => {
            let query = if *now { "?now=true" } else { "" };
            let order = agent.ask("DELETE", &format!("/api/v1/orders/{id}{query}"), None)?;
            Ok(Done::new(format!("order {id} will be withdrawn\n"), order))
        }
    }
}

/// `weld:2` is a stop with its program; what is no number after the colon belongs to the name.
fn stop(text: &str) -> Value {
    match text.rsplit_once(':').and_then(|(at, program)| Some((at, program.parse::<u16>().ok()?))) {
        Some((at, program)) => json!({ "at": at, "program": program }),
        None => json!({ "at": text }),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn time(value: &Value) -> &str {
    word(value).get(11..19).unwrap_or_default()
}

fn list(all: &Value) -> String {
    let mut table = Table::new(&["order", "what", "load", "class", "state", "taken utc", "ended utc", ""]);
    for o in all.as_array().into_iter().flatten() {
        let state = word(&o["state"]);
        let style = match state {
            "completed" | "running" => GOOD,
            "failed" | "rejected" => WARN,
            _ => Style::new(),
        };
        let late = if o["late"] == true { "late " } else { "" };
        let plain = |text: String| (text, Style::new());
        table.row(vec![
            plain(o["id"].to_string()),
            plain(word(&o["kind"]).into()),
            plain(o["load"].to_string()),
            plain(o["class"].to_string()),
            (state.into(), style),
            plain(time(&o["taken"]).into()),
            plain(time(&o["ended"]).into()),
            (format!("{late}{}", word(&o["reason"])), FAINT),
        ]);
    }
    table.render(0)
}
