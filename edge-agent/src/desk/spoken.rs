//! A person's word that machines may go on, and what the control thread says to it, machine by machine.

use super::{Desk, lock};
use control_core::Word;
use control_core::cycle::Request;
use control_core::event::{Event, EventKind};
use control_core::units::MachineId;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

/// Answers that may wait for whoever has asked: of every machine of a large floor.
pub(super) const ANSWERS: usize = 4096;

/// Machines that may be named in one word: half of what waits for the control thread at most.
pub const NAMED_MAX: usize = crate::control::REQUESTS / 2;

/// What the control thread says; `None` is the end of a word for all.
pub(super) type Said = Option<(MachineId, Word)>;

/// What a word came to.
#[derive(Debug, Default)]
pub struct Heard {
    /// What became of each machine, in the order of the answers.
    pub said: Vec<(MachineId, Word)>,
    /// Not everything was heard in time: of these, or of some of all.
    pub unheard: Vec<MachineId>,
    /// Whether all that was to be heard was.
    pub is_whole: bool,
}

/// Which machines are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that wait for a word.
    All,
    /// These.
    These(Vec<MachineId>),
}

impl Desk {
    /// Hands a person's word in, and waits, at most `limit`, for what became of each machine. `None`: there is no room for it now, and nothing
    /// was handed in.
    pub async fn acknowledge(&self, which: Which, limit: Duration) -> Option<Heard> {
        let mut answers = self.words.subscribe();
        let requests: Vec<Request> = match &which {
            Which::All => vec![Request::AcknowledgeAll],
            Which::These(machines) => machines.iter().map(|id| Request::Acknowledge(*id)).collect(),
        };
        if !self.request_all(&requests) {
            return None;
        }
        let deadline = Instant::now() + limit;
        let mut heard = Heard::default();
        if let Which::These(machines) = which {
            heard.unheard = machines;
        }
        let for_all = heard.unheard.is_empty();
        while for_all || !heard.unheard.is_empty() {
            match timeout_at(deadline, answers.recv()).await {
                Ok(Ok(None)) if for_all => break,
                Ok(Ok(Some((id, word)))) if for_all => heard.said.push((id, word)),
                Ok(Ok(Some((id, word)))) => {
                    let before = heard.unheard.len();
                    heard.unheard.retain(|other| *other != id);
                    if heard.unheard.len() < before {
                        heard.said.push((id, word));
                    }
                }
                Ok(Ok(None) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => return Some(heard),
            }
        }
        heard.is_whole = true;
        Some(heard)
    }

    /// Hands in all of these, or none.
    fn request_all(&self, requests: &[Request]) -> bool {
        let mut ring = lock(&self.requests);
        let fits = ring.slots() >= requests.len();
        if fits {
            requests.iter().for_each(|request| {
                let _ = ring.push(*request); // there is room
            });
        }
        self.busy.fetch_add(u64::from(!fits), std::sync::atomic::Ordering::Relaxed);
        fits
    }

    /// Passes on what the control thread says to a word.
    pub(super) fn pass_on(&self, event: &Event) {
        let said = match event.kind {
            EventKind::Acknowledged(id, word) => Some((id, word)),
            EventKind::AcknowledgedAll => None,
            _ => return,
        };
        let _ = self.words.send(said); // nobody may be waiting
    }
}
