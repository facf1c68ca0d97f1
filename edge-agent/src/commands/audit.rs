//! The audit record: one line of JSON for every command from outside, on disk before anybody hears its outcome.
//!
//! ```text
//!   {"time":"2026-11-24T22:00:00.123Z","via":"mqtt","by":"mes-1","what":"write press-1/speed = 250","key":"shift-7",
//!    "outcome":"done"}                                          with "reason" when it is not done
//! ```
//!
//! One thread writes; lines that come together share one fsync. The file is closed at [`FILE_MAX`] and kept as `commands.1.jsonl` ..,
//! [`FILES`] of them. Keys of commands that reached a device are read back at the start: the same key after a restart is still the same
//! command.

use crate::telemetry::payload::rfc3339;
use crate::trouble::Shared;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// A file is closed at this length, bytes.
const FILE_MAX: u64 = 16 << 20;
/// Closed files that are kept.
const FILES: usize = 4;
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
    /// Counters.
    pub stats: Arc<AuditStats>,
}

impl Audit {
    /// No file: the log has it.
    pub fn none() -> Audit {
        Audit { queue: None, stats: Arc::default() }
    }

    /// Opens the file in a folder, and gives the last lines of it that have a key, oldest first.
    pub fn open(folder: &Path) -> Result<(Audit, Vec<Line>), String> {
        let path = folder.join("commands.jsonl");
        let why = |e: io::Error| format!("the audit record {} cannot be opened: {e}", path.display());
        std::fs::create_dir_all(folder).map_err(why)?;
        let known = read_keys(folder);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(why)?;
        let length = file.metadata().map_err(why)?.len();
        let (queue, lines) = sync_channel(QUEUE);
        let stats = Arc::new(AuditStats::default());
        let mut writer = Writer { path: path.clone(), file, length, stats: stats.clone() };
        let work = move || writer.work(&lines);
        std::thread::Builder::new().name("audit".into()).spawn(work).map_err(|e| e.to_string())?;
        Ok((Audit { queue: Some(queue), stats }, known))
    }

    /// Writes a line; returns when it is on disk, or in the log that it could not be.
    pub async fn write(&self, mut line: Line) {
        line.time = rfc3339(device_drivers::value::wall_clock_ms()).to_string();
        let Line { via, by, what, outcome, .. } = &line;
        match &line.reason {
            None => tracing::info!(audit = true, via, by, "{what}: {outcome}"),
            Some(reason) => tracing::warn!(audit = true, via, by, "{what}: {outcome}: {reason}"),
        }
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

fn old(path: &Path, n: usize) -> PathBuf {
    path.with_file_name(format!("commands.{n}.jsonl"))
}

/// Lines with a key in all files, oldest first. A torn last line is none.
fn read_keys(folder: &Path) -> Vec<Line> {
    let path = folder.join("commands.jsonl");
    let files = (1..=FILES).rev().map(|n| old(&path, n)).chain([path.clone()]);
    let lines = files.filter_map(|f| File::open(f).ok()).flat_map(|f| BufReader::new(f).lines().map_while(Result::ok));
    lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok()).filter(|line| line.key.is_some()).collect()
}

struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    stats: Arc<AuditStats>,
}

impl Writer {
    fn work(&mut self, lines: &Receiver<(Line, oneshot::Sender<()>)>) {
        let (mut text, mut waiting) = (Vec::new(), Vec::new());
        while let Ok(first) = lines.recv() {
            for (line, done) in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
                let _ = serde_json::to_writer(&mut text, &line);
                text.push(b'\n');
                waiting.push(done);
            }
            let written = self.put(&text);
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
            text.clear();
            for done in waiting.drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        if self.length > FILE_MAX {
            self.turn_over()?;
        }
        self.file.write_all(text)?;
        self.length += text.len() as u64;
        self.file.sync_data()
    }

    fn turn_over(&mut self) -> io::Result<()> {
        for n in (1..FILES).rev() {
            let _ = std::fs::rename(old(&self.path, n), old(&self.path, n + 1));
        }
        std::fs::rename(&self.path, old(&self.path, 1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.length = 0;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
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
        assert_eq!(known.iter().filter_map(|l| l.key.as_deref()).collect::<Vec<_>>(), ["k0", "k1", "k2"]);
    }
}
