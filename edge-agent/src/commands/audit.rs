//! The audit record: one line of JSON for every command from outside, on disk before anybody hears its outcome.
//!
//! ```text
//!   {"time":"2026-11-24T22:00:00.123Z","via":"mqtt","by":"mes-1","what":"write press-1/speed = 250","key":"shift-7",
//!    "outcome":"done"}                                          with "reason" when it is not done
//!
//!   commands.jsonl   what was sent or taken      keys are read back from it at the start: the same key is still the same command
//!   refused.jsonl    what nothing came of        shortened, and in a file of its own: it cannot push out what was done
//! ```
//!
//! One thread writes; lines that come together share one fsync. A file is closed at its length and kept as `commands.1.jsonl` .. for a while.

use crate::state;
use crate::state::rolling::{self, Limits, Rolling};
use crate::telemetry::payload::rfc3339;
use crate::trouble::{Often, Shared, and_more};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;
use tokio::sync::oneshot;

/// The files, in the state folder.
const FILES: (&str, &str) = ("commands.jsonl", "refused.jsonl");
/// What was done: some hundred thousand commands.
const TAKEN: Limits = Limits { length: 16 << 20, closed: 4 };
/// What was not.
const REFUSED: Limits = Limits { length: 4 << 20, closed: 1 };
/// Longest text of what was wanted, characters: where it was sent a key stands for it, where it was not nobody needs it.
const WHAT_MAX: (usize, usize) = (4096, 256);
/// Longest reason, sender and key.
const TEXT_MAX: usize = 256;
/// Lines that wait for the disk; beyond, who comes with a command waits.
const QUEUE: usize = 1024;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When its outcome was known, RFC 3339.
    #[serde(default)]
    pub time: String,
    /// `http`, `mqtt` or `sparkplug`.
    pub via: String,
    /// Who says to have sent it, or where it came in.
    pub by: String,
    /// What was wanted.
    pub what: String,
    /// The key it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What came of it.
    pub outcome: String,
    /// Why, when it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Counters.
#[derive(Debug, Default)]
pub struct AuditStats {
    /// Lines on disk.
    pub lines: AtomicU64,
    /// Lines that could not be written.
    pub failed: AtomicU64,
}

/// The audit record.
pub struct Audit {
    /// `None`: there is no folder that is kept; then commands are in the log only.
    queue: Option<SyncSender<(Line, oneshot::Sender<()>)>>,
    /// Refusals of which the log has heard lately, by outcome.
    refusals: Often<String>,
    /// Counters.
    pub stats: Arc<AuditStats>,
}

impl Audit {
    /// No file: the log has it.
    pub fn none() -> Audit {
        Audit { queue: None, refusals: Often::default(), stats: Arc::default() }
    }

    /// Opens the file in a folder, and gives the last lines of it that have a key, oldest first.
    pub fn open(folder: &Path) -> Result<(Audit, Vec<Line>), String> {
        let path = folder.join(FILES.0);
        let why = |e: io::Error| format!("the audit record {} cannot be opened: {e}", path.display());
        let known = read_keys(&path).map_err(why)?;
        let (mut taken, refused) = (Rolling::new(path.clone(), TAKEN), Rolling::new(folder.join(FILES.1), REFUSED));
        taken.open().map_err(why)?;
        let (queue, lines) = sync_channel(QUEUE);
        let stats = Arc::new(AuditStats::default());
        let mut writer = Writer { taken, refused, stats: stats.clone() };
        let work = move || writer.work(&lines);
        std::thread::Builder::new().name("audit".into()).spawn(work).map_err(|e| e.to_string())?;
        Ok((Audit { queue: Some(queue), refusals: Often::default(), stats }, known))
    }

    /// Writes a line; returns when it is on disk, or in the log that it could not be.
    pub async fn write(&self, mut line: Line) {
        line.time = rfc3339(device_drivers::value::wall_clock_ms()).to_string();
        line.shorten();
        self.tell_the_log(&line);
        let Some(queue) = self.queue.clone() else { return };
        let (done, written) = oneshot::channel();
        // The queue is full only when the disk is slow and commands are many: whoever sends them waits.
        let sent = match queue.try_send((line, done)) {
            Ok(()) => true,
            Err(std::sync::mpsc::TrySendError::Full(line)) => {
                tokio::task::spawn_blocking(move || queue.send(line).is_ok()).await.unwrap_or(false)
            }
            Err(_) => false,
        };
        if sent {
            let _ = written.await;
        }
    }
}

impl Audit {
    /// What was done is said each time; what was not, once a minute for each way of refusing it: anybody may ask for it as often as he likes.
    fn tell_the_log(&self, line: &Line) {
        let Line { via, by, what, outcome, reason, .. } = line;
        let Some(reason) = reason else { return tracing::info!(audit = true, via, by, "{what}: {outcome}") };
        let unsaid = if line.was_taken() { Some(0) } else { self.refusals.comes(outcome.clone(), Instant::now()) };
        if let Some(unsaid) = unsaid {
            let more = and_more(unsaid);
            tracing::warn!(audit = true, via, by, "{what}: {outcome}: {reason}{more}");
        }
    }
}

impl Line {
    /// Whether a device or the control thread has heard of it.
    fn was_taken(&self) -> bool {
        match self.outcome.as_str() {
            "done" | "differs" | "unknown" | "accepted" | "known" => true,
            "refused" => self.what.starts_with("write "), // by the device; an order that is refused is none
            _ => false,
        }
    }

    /// What somebody says at length is not written down at length.
    fn shorten(&mut self) {
        let what = if self.was_taken() { WHAT_MAX.0 } else { WHAT_MAX.1 };
        let reason = self.reason.as_mut().map(|text| (text, TEXT_MAX));
        let key = self.key.as_mut().map(|text| (text, TEXT_MAX));
        for (text, most) in [(&mut self.what, what), (&mut self.by, TEXT_MAX)].into_iter().chain(reason).chain(key) {
            if let Some((end, _)) = text.char_indices().nth(most) {
                text.truncate(end);
                text.push('…');
            }
        }
    }
}

/// Lines with a key in all files, oldest first.
fn read_keys(path: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in rolling::all(path, TAKEN) {
        lines.extend(read_lines(&file)?.into_iter().filter(|line| line.key.is_some()));
    }
    Ok(lines)
}

/// The lines of a file. A torn last one was told to nobody, and is cut; a file with other damage is set aside, and what is sound in it written
/// anew.
fn read_lines(path: &Path) -> io::Result<Vec<Line>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            tracing::error!("{}: {e}", path.display());
            return state::set_aside(path).map(|_| Vec::new());
        }
    };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let (mut lines, mut sound, mut damaged) = (Vec::new(), Vec::new(), 0);
    for text in bytes.get(..whole).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
        match serde_json::from_slice(text) {
            Ok(line) => {
                lines.push(line);
                sound.extend_from_slice(text);
            }
            Err(_) if text.trim_ascii().is_empty() => {}
            Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::error!("{}: {damaged} lines cannot be read; keys in them are not known any more", path.display());
        state::set_aside(path)?;
        state::replace(path, &sound)?;
    } else if whole < bytes.len() {
        File::options().write(true).open(path)?.set_len(whole as u64)?;
    }
    Ok(lines)
}

struct Writer {
    taken: Rolling,
    refused: Rolling,
    stats: Arc<AuditStats>,
}

impl Writer {
    fn work(&mut self, lines: &Receiver<(Line, oneshot::Sender<()>)>) {
        let (mut taken, mut refused, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        while let Ok(first) = lines.recv() {
            for (line, done) in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
                let text = if line.was_taken() { &mut taken } else { &mut refused };
                let _ = serde_json::to_writer(&mut *text, &line);
                text.push(b'\n');
                waiting.push(done);
            }
            let written = put(&mut self.taken, &taken).and(put(&mut self.refused, &refused));
            let counter = if written.is_ok() { &self.stats.lines } else { &self.stats.failed };
            counter.fetch_add(waiting.len() as u64, Relaxed);
            if let Err(e) = written {
                static UNWRITTEN: Shared<io::ErrorKind> = Shared::new();
                if let Some(lasting) = UNWRITTEN.is(e.kind()) {
                    tracing::error!(
                        "the audit record cannot be written: {e}; the log has what is missing in it{lasting}"
                    );
                }
            }
            taken.clear();
            refused.clear();
            for done in waiting.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

fn put(file: &mut Rolling, text: &[u8]) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    file.append(text)?;
    file.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Line {
        let (via, by, what) = ("mqtt".into(), "mes".into(), format!("write d/t = {n}"));
        Line { via, by, what, key: Some(format!("k{n}")), outcome: "done".into(), ..Line::default() }
    }

    #[tokio::test]
    async fn a_line_is_on_disk_before_its_outcome_is_heard_and_keys_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, known) = Audit::open(dir.path()).unwrap();
        assert!(known.is_empty());
        for n in 0..3 {
            audit.write(line(n)).await;
            let text = std::fs::read_to_string(dir.path().join("commands.jsonl")).unwrap();
            assert_eq!(text.lines().count(), n + 1);
        }
        let text = std::fs::read_to_string(dir.path().join("commands.jsonl")).unwrap();
        std::fs::write(dir.path().join("commands.jsonl"), format!("{text}{{\"via\":\"mq")).unwrap(); // torn
        let (_, known) = Audit::open(dir.path()).unwrap();
        assert_eq!(keys(&known), ["k0", "k1", "k2"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("commands.jsonl")).unwrap(), text, "nobody heard of it");
    }

    fn keys(lines: &[Line]) -> Vec<&str> {
        lines.iter().filter_map(|l| l.key.as_deref()).collect()
    }

    #[tokio::test]
    async fn a_damaged_line_costs_itself_alone_and_its_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("commands.jsonl");
        let (audit, _) = Audit::open(dir.path()).unwrap();
        for n in 0..3 {
            audit.write(line(n)).await;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 5;
        bytes[second] = 0xFF; // no UTF-8 either
        std::fs::write(&path, &bytes).unwrap();
        let (audit, known) = Audit::open(dir.path()).unwrap();
        assert_eq!(keys(&known), ["k0", "k2"]);
        assert_eq!(std::fs::read(state::aside_of(&path).unwrap()).unwrap(), bytes);
        audit.write(line(3)).await;
        assert_eq!(keys(&Audit::open(dir.path()).unwrap().1), ["k0", "k2", "k3"]);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap(); // what nobody can read
        assert!(Audit::open(dir.path()).unwrap().1.is_empty());
    }

    #[tokio::test]
    async fn four_hundred_refusals_are_one_line_of_the_log_and_all_of_them_in_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(dir.path()).unwrap();
        let (log, _guard) = crate::plain::kept::Kept::listen();
        for n in 0..400 {
            let (outcome, reason) = ("invalid".into(), Some(format!("no number: {n}")));
            audit.write(Line { outcome, reason, ..line(n) }).await;
            audit.write(Line { outcome: "done".into(), ..line(n) }).await;
        }
        let said = |what: &str| log.lines().iter().filter(|l| l.contains(what)).count();
        assert_eq!((said(": invalid: "), said(": done")), (1, 400));
        let text = std::fs::read_to_string(dir.path().join(FILES.1)).unwrap();
        assert_eq!(text.lines().count(), 400);
    }

    #[tokio::test]
    async fn what_is_refused_is_shortened_and_pushes_no_key_out() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(dir.path()).unwrap();
        audit.write(line(0)).await;
        for n in 0..400 {
            let what = format!("write d/t = \"{}\"", "x".repeat(240_000));
            let (outcome, reason) = ("not_allowed".into(), Some("y".repeat(100_000)));
            audit.write(Line { what, outcome, reason, key: Some("z".repeat(100_000)), ..line(n) }).await;
        }
        assert_eq!(keys(&Audit::open(dir.path()).unwrap().1), ["k0"]);
        let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 1 << 20, "{bytes} bytes");
    }
}
