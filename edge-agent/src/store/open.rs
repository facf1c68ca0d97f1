//! Opening: every event that still stands, in order, and what is missing between them.

use super::event::{Event, Hash, NONE, from_hex};
use super::files::{self, Promised, Reach, Scanned};
use super::write::{GoesOn, Store};
use super::{MISSING, OWN};
use crate::telemetry::spool::disk::{Disk, DiskFile, read_up_to};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// So many numbers are left out where nobody can tell how many were given.
const UNKNOWN: u64 = 1 << 20;

/// Events that are not there any more: these numbers, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them.
    pub from: u64,
    /// The last of them.
    pub to: u64,
    /// The file in which, or before which, they should stand.
    pub file: String,
}

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// What is missing. Of some of it something may have been found all the same.
    pub missing: Vec<Missing>,
    /// Files that were damaged, and are set aside.
    pub damaged: Vec<String>,
    /// Events that were read.
    pub events: u64,
}

impl Opened {
    /// How many events are missing; where nobody can tell how many were given, at most so many.
    pub fn missing_count(&self) -> u64 {
        self.missing.iter().map(|m| (m.to + 1).saturating_sub(m.from)).sum()
    }

    /// What there is to say to people, if something is missing.
    pub fn told(&self) -> Option<String> {
        let spans: Vec<String> = self.missing.iter().map(|m| format!("{} to {}", m.from, m.to)).collect();
        let more = "; orders, closings, alarms or keys of writes may be forgotten, and numbers of orders are left out";
        (!spans.is_empty()).then(|| format!("events {} of the store are missing{more}", spans.join(", ")))
    }
}

/// Files to read, and what was seen on the way.
#[derive(Default)]
pub(super) struct Walk {
    /// The newest event.
    pub(super) number: u64,
    pub(super) hash: Hash,
    pub(super) found: Opened,
    /// Snapshots that a crash has left half-way, and nobody needs.
    left: Vec<String>,
    /// The newest log, where its last event ends, and the bytes of all that were read.
    newest: Option<(u64, u64)>,
    /// There is a log without a first event.
    is_headless: bool,
    tail: u64,
}

/// The snapshot to begin with, and what is sound in those that are newer and cannot be trusted as they are.
#[derive(Default)]
struct Base {
    whole: Option<(u64, Reach)>,
    sound: BTreeMap<u64, Vec<u8>>,
    damaged: Vec<String>,
    left: Vec<String>,
}

impl Base {
    fn find(disk: &dyn Disk, before: u64) -> io::Result<Base> {
        let mut base = Base::default();
        for (id, _) in files::ids(disk, ".snap")?.into_iter().rev().filter(|(id, _)| *id < before) {
            let (name, mut sound) = (files::snapshot(id), Vec::new());
            let found = scan(disk, &name, |event| sound.push((event.number, event.bytes.to_vec())))?;
            match found {
                Some(Scanned { reach: Some(reach), whole: true, damaged: false, .. }) => {
                    base.whole = Some((id, reach));
                    break;
                }
                Some(Scanned { damaged: false, torn_wrongly: false, .. }) => base.left.push(name),
                _ => base.damaged.push(name),
            }
            base.sound.extend(sound);
        }
        Ok(base)
    }
}

/// Scans a file; `None` where the disk does not give it. One of a newer format is an error: it is left as it is.
fn scan(disk: &dyn Disk, name: &str, show: impl FnMut(&Event<'_>)) -> io::Result<Option<Scanned>> {
    match disk.open(name).and_then(|file| files::scan(&*file, show)) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Err(io::Error::new(e.kind(), format!("{name}: {e}"))),
        Err(e) => {
            tracing::error!("{name} of the store cannot be read: {e}");
            Ok(None)
        }
    }
}

impl Walk {
    /// Shows what stands in the snapshots and logs of a folder, those of them that are older than log `before`; there should be all up to
    /// `promised`.
    pub(super) fn through(
        disk: &dyn Disk,
        (before, promised): (u64, Promised),
        mut show: impl FnMut(&Event<'_>),
    ) -> io::Result<Walk> {
        let Base { whole, sound, damaged, left } = Base::find(disk, before)?;
        let mut walk = Walk { left, ..Walk::default() };
        walk.found.damaged = damaged;
        let mut from = 0;
        if let Some((id, reach)) = &whole {
            walk.see_snapshot(disk, *id, &mut show)?;
            (walk.number, walk.hash, from) = (reach.through, from_hex(&reach.hash).unwrap_or(NONE), *id);
        }
        let logs: Vec<u64> = files::ids(disk, ".log")?.into_iter().map(|(id, _)| id).collect();
        let logs: Vec<u64> = logs.into_iter().filter(|id| (from..before).contains(id)).collect();
        for (n, id) in logs.iter().enumerate() {
            // What a failed write has left at the end of a log is void: the next one says where it goes on.
            let next = logs.get(n + 1);
            let void = next.and_then(|next| files::first_number(disk, *next)).unwrap_or(u64::MAX);
            walk.see_log(disk, *id, (void, next.is_none()), &sound, &mut show)?;
        }
        let promised = match promised {
            Promised::Nothing => 0,
            Promised::Upto(number) => number,
            // The power may have failed while it was written. That its log has no beginning as well is more than that.
            Promised::Unreadable if walk.is_headless => walk.number.saturating_add(UNKNOWN),
            Promised::Unreadable => 0,
        };
        let last = logs.last().map_or_else(|| files::HEAD.to_string(), |id| files::log(*id));
        walk.gap(promised.saturating_add(1), &last, &sound, &mut show);
        if !walk.found.missing.is_empty() {
            walk.found.damaged.append(&mut walk.left);
        }
        Ok(walk)
    }

    fn see_snapshot(&mut self, disk: &dyn Disk, id: u64, show: &mut impl FnMut(&Event<'_>)) -> io::Result<()> {
        scan(disk, &files::snapshot(id), |event| self.pass_on(event, show))?;
        Ok(())
    }

    fn pass_on(&mut self, event: &Event<'_>, show: &mut impl FnMut(&Event<'_>)) {
        self.found.events += 1;
        if !event.kind.starts_with(OWN) {
            show(event);
        }
    }

    fn see_log(
        &mut self,
        disk: &dyn Disk,
        id: u64,
        (void, is_last): (u64, bool),
        sound: &BTreeMap<u64, Vec<u8>>,
        show: &mut impl FnMut(&Event<'_>),
    ) -> io::Result<()> {
        let name = files::log(id);
        let found = scan(disk, &name, |event| {
            if event.number <= self.number || event.number >= void {
                return;
            }
            self.gap(event.number, &name, sound, show);
            (self.number, self.hash) = (event.number, event.hash);
            self.pass_on(event, show);
        })?;
        self.is_headless |= files::first_number(disk, id).is_none();
        match found {
            Some(found) if !(found.damaged || is_last && found.torn_wrongly) => {
                self.newest = Some((id, found.end));
                self.tail += found.end;
            }
            _ => self.found.damaged.push(name),
        }
        Ok(())
    }

    /// Notes that all up to `next` is missing, and shows what is known of that from elsewhere.
    fn gap(&mut self, next: u64, file: &str, sound: &BTreeMap<u64, Vec<u8>>, show: &mut impl FnMut(&Event<'_>)) {
        let from = self.number + 1;
        if next <= from {
            return;
        }
        self.found.missing.push(Missing { from, to: next - 1, file: file.to_string() });
        for bytes in sound.range(from..next).map(|(_, bytes)| bytes) {
            files::with_event(bytes, |event| self.pass_on(event, show));
        }
        self.number = next - 1;
    }
}

/// Writes a log once more as it is. What an earlier run could not make durable may be read here and be nowhere else: Linux takes a page whose
/// write has failed for clean, and no later fsync writes it.
fn settle(file: &dyn DiskFile, end: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    read_up_to(file, 0, usize::try_from(end).unwrap_or(usize::MAX), &mut bytes)?;
    file.write_at(0, &bytes)?;
    file.sync()
}

impl Store {
    /// Opens the store on a disk.
    pub fn open(disk: Arc<dyn Disk>, reserve: u64, show: impl FnMut(&Event<'_>)) -> io::Result<(Store, Opened)> {
        let Walk { number, hash, found, left, newest, tail, .. } =
            Walk::through(&*disk, (u64::MAX, files::read_head(&*disk)), show)?;
        let is_sound = found.missing.is_empty() && found.damaged.is_empty();
        let highest =
            files::ids(&*disk, ".log")?.into_iter().chain(files::ids(&*disk, ".snap")?).map(|(id, _)| id).max();
        let mut from = GoesOn { file: None, log: highest.unwrap_or(0), length: 0, number, hash, tail };
        if let Some((id, end)) = newest.filter(|(id, _)| is_sound && Some(*id) == highest) {
            let file = disk.open(&files::log(id))?;
            file.set_len(end)?; // a torn end was never promised
            settle(&*file, end)?;
            (from.file, from.length) = (Some(file), end);
        }
        let store = Store::new(disk, reserve, from);
        if is_sound {
            left.iter().for_each(|name| drop(store.disk.remove(name)));
        } else {
            store.mend(&found)?;
        }
        Ok((store, found))
    }

    /// Writes anew all that is sound, before anything is moved; says what is missing; then moves aside what is damaged.
    fn mend(&self, found: &Opened) -> io::Result<()> {
        self.snapshot(|_| true)?;
        for missing in &found.missing {
            tracing::error!("events {} to {} of the store are missing (at {})", missing.from, missing.to, missing.file);
            self.append(MISSING, serde_json::to_vec(missing).unwrap_or_default())?;
        }
        let there: Vec<String> = self.disk.list()?.into_iter().map(|(name, _)| name).collect();
        found.damaged.iter().filter(|name| there.contains(name)).try_for_each(|name| self.disk.set_aside(name))
    }
}
