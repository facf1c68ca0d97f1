//! A person's word that machines which left AUTO may go on: for these, or for all that wait for it. What became of each is in the answer,
//! and each is in the audit record by its name.

use super::Face;
use super::guard::{As, OPERATOR};
use super::problem::{MaybeBody, Problem};
use crate::access::Who;
use crate::desk::{NAMED_MAX, Which, hold_text};
use axum::Json;
use axum::extract::State;
use control_core::Word;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// Time for the control thread to answer; it needs some cycles.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Names in one entry of the audit record: it cuts what is longer.
const NAMED_CHARS: usize = 180;

/// Which machines may go on. Nothing at all: all that wait for it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcknowledgeForm {
    /// Their names, or `"all"`.
    #[serde(default)]
    machines: Option<Machines>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "machines: expected \"all\" or a list of names, as [\"shuttle-1\"]")]
enum Machines {
    All(AllOfThem),
    Named(Vec<String>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AllOfThem {
    All,
}

/// What became of each machine.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Acknowledged {
    /// They may go on.
    released: Vec<String>,
    /// They may not, or need no word.
    not_released: Vec<NotReleased>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotReleased {
    /// Its name.
    machine: String,
    /// Why not.
    why: String,
}

/// A person says that machines that left AUTO may go on: those that are named, or all that wait for it.
#[utoipa::path(post, path = "/api/v1/acknowledge", tag = "plant", request_body(content = Option<AcknowledgeForm>, content_type = "application/json"),
    responses((status = 200, body = Acknowledged, description = "What became of each machine")))]
pub(super) async fn acknowledge(
    As(who): As<OPERATOR>,
    State(face): State<Arc<Face>>,
    MaybeBody(form): MaybeBody<AcknowledgeForm>,
) -> Result<Json<Acknowledged>, Problem> {
    let refuse = |what: &str, problem: Problem| {
        face.access.audit.remark(&who, ACTION, what, problem.detail());
        Err(problem)
    };
    let (which, what) = match meant(&face, form.unwrap_or_default()) {
        Ok(meant) => meant,
        Err((what, problem)) => return refuse(&what, problem),
    };
    let heard = face.desk.acknowledge(which, ANSWER_LIMIT).await;
    let Some(heard) = heard else {
        return refuse(&what, Problem::busy("too many requests at once; try again in a second"));
    };
    // Of all it is not known who is missing; of those that are named, it is said of each.
    let is_silent = !heard.is_whole && heard.unheard.is_empty();
    let name = |id| face.board.names().machine(id);
    let mut done = Acknowledged { released: Vec::new(), not_released: Vec::new() };
    for (id, word) in heard.said {
        let why = match word {
            Word::Released => {
                done.released.push(name(id));
                continue;
            }
            Word::NotNeeded => "it waits for no acknowledgement".into(),
            Word::Held(hold) => hold_text(hold),
        };
        done.not_released.push(NotReleased { machine: name(id), why });
    }
    let unheard = heard.unheard.into_iter().map(|id| NotReleased { machine: name(id), why: UNHEARD.into() });
    done.not_released.extend(unheard);
    note(&face, &who, &done, is_silent);
    face.access.audit.settle().await;
    if is_silent {
        return Err(Problem::busy("the control thread has not answered for all; look at the beat, then ask again"));
    }
    Ok(Json(done))
}

const ACTION: &str = "plant.acknowledge";
const UNHEARD: &str = "nothing was heard of it in time; ask again";

/// Which machines are meant, and that in words; or who is named that there is not.
fn meant(face: &Face, form: AcknowledgeForm) -> Result<(Which, String), (String, Problem)> {
    if !face.stages.has_floor {
        let problem =
            Problem::not_found("there is no floor", "the configuration has no [floor]: there are no machines");
        return Err(("no floor".into(), problem));
    }
    let names = match form.machines {
        None | Some(Machines::All(AllOfThem::All)) => return Ok((Which::All, "all".into())),
        Some(Machines::Named(names)) => names,
    };
    let what = names.join(", ");
    let invalid = |title, detail: String| Err((what.clone(), Problem::invalid(title, detail)));
    if names.is_empty() || names.len() > NAMED_MAX {
        return invalid("so many cannot be named", format!("machines: name 1 to {NAMED_MAX}, or say \"all\""));
    }
    let mut machines = Vec::with_capacity(names.len());
    for name in &names {
        let Some(id) = face.board.names().find(name) else {
            let detail =
                format!("machines: there is no {name}; nothing was acknowledged. GET /api/v1/floor lists them");
            return invalid("no such machine", detail);
        };
        if !machines.contains(&id) {
            machines.push(id);
        }
    }
    Ok((Which::These(machines), what))
}

/// Writes down each machine by its name, those with one outcome together.
fn note(face: &Face, who: &Who, done: &Acknowledged, is_silent: bool) {
    let note = |machines: &[&str], outcome: &str| {
        for entry in entries(machines) {
            face.access.audit.remark(who, ACTION, &entry, outcome);
        }
    };
    let released: Vec<&str> = done.released.iter().map(String::as_str).collect();
    note(&released, "done");
    let mut whys: Vec<&str> = done.not_released.iter().map(|n| n.why.as_str()).collect();
    whys.sort_unstable();
    whys.dedup();
    for why in whys {
        let held = done.not_released.iter().filter(|n| n.why == why).map(|n| n.machine.as_str());
        note(&held.collect::<Vec<_>>(), why);
    }
    if done.released.is_empty() && done.not_released.is_empty() {
        face.access.audit.remark(who, ACTION, "all", if is_silent { "no answer" } else { "none waits for it" });
    }
}

/// Names in as many entries as they need.
fn entries(names: &[&str]) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for name in names {
        match entries.last_mut().filter(|entry| entry.len() + name.len() + 2 <= NAMED_CHARS) {
            Some(entry) => *entry += &format!(", {name}"),
            None => entries.push((*name).into()),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_an_entry_that_is_short_enough() {
        let names: Vec<String> = (0..100).map(|n| format!("hall.robot-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let entries = entries(&names);
        assert!(entries.len() > 1 && entries.iter().all(|e| e.len() <= NAMED_CHARS), "{entries:?}");
        assert_eq!(entries.join(", "), names.join(", "));
    }
}
