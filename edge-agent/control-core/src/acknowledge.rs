//! A person's word that machines which left AUTO may go on.
//!
//! ```text
//!   Acknowledge(machine) ──────────────────────────> needs it? ── no ──────────────> NotNeeded
//!   AcknowledgeAll ──so many a cycle, in order──────>   │ yes
//!                     (those that need no word        seen, and back in AUTO? ─ no ─> Held(why)
//!                      are passed over)                 │ yes
//!                                                       └──> Released: the machine's own count is given back to it
//! ```
//!
//! Each machine that is spoken of answers with one event; a word for all ends with [`EventKind::AcknowledgedAll`].

use crate::cycle::Controller;
use crate::event::{EventKind, Events};
use crate::image::InputImage;
use crate::interlock::{self, Hold, NOT_ACKNOWLEDGED};
use crate::limits::ACKNOWLEDGED_PER_CYCLE;
use crate::storage::put;
use crate::units::{MachineId, Millis};

/// What a person's word on one machine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// It may go on.
    Released,
    /// It waits for no word.
    NotNeeded,
    /// It may not go on yet, for this reason: the word is not kept for later.
    Held(Hold),
}

impl Controller<'_> {
    /// A word for one machine, whatever comes of it.
    pub(crate) fn acknowledge(&mut self, now: Millis, image: &InputImage<'_>, id: MachineId, events: &mut Events) {
        let word = self.word_on(now, image, id);
        events.push(now, EventKind::Acknowledged(id, word));
    }

    /// A word for all begins with the first machine.
    pub(crate) fn acknowledge_all(&mut self) {
        self.acknowledging = Some(0);
    }

    /// Goes on with a word for all. Looks at [`ACKNOWLEDGED_PER_CYCLE`] machines.
    pub(crate) fn acknowledge_some(&mut self, now: Millis, image: &InputImage<'_>, events: &mut Events) {
        let Some(first) = self.acknowledging else { return };
        let machines = u16::try_from(self.machines.len()).unwrap_or(u16::MAX);
        let end = first.saturating_add(ACKNOWLEDGED_PER_CYCLE).min(machines);
        for id in (first..end).map(MachineId) {
            let unseen = image.machine(id).fresh(now, self.settings.stale_ms).is_none();
            match self.word_on(now, image, id) {
                Word::NotNeeded => {}
                // Of one that cannot be seen it is not known whether it needs a word, unless it was seen to.
                Word::Held(_) if unseen && !self.machine(id).needs_acknowledge => {}
                word => events.push(now, EventKind::Acknowledged(id, word)),
            }
        }
        self.acknowledging = (end < machines).then_some(end);
        if self.acknowledging.is_none() {
            events.push(now, EventKind::AcknowledgedAll);
        }
    }

    fn word_on(&mut self, now: Millis, image: &InputImage<'_>, id: MachineId) -> Word {
        let seen = image.machine(id);
        let Some(status) = seen.fresh(now, self.settings.stale_ms) else { return Word::Held(Hold::NotSeen) };
        let needed = self.machine(id).needs_acknowledge || status.interlocks & NOT_ACKNOWLEDGED != 0;
        if !needed {
            return Word::NotNeeded;
        }
        if let Err(why) = interlock::in_auto(status) {
            return Word::Held(why);
        }
        self.with(id, |m| m.needs_acknowledge = false);
        put(self.acknowledged, usize::from(id.0), status.auto_exits);
        Word::Released
    }
}
