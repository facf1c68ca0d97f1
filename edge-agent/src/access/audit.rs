//! Who changed what, and what came of it: one line of JSON each, appended, and the newest in memory for the page.

use super::lock;
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Entries in memory.
const KEPT: usize = 1000;
/// The file begins anew after so many bytes; the one before it is kept.
const FILE_MAX: u64 = 16 << 20;
/// The file, in the state folder.
pub(super) const FILE: &str = "audit.jsonl";

/// One thing somebody did, or tried to.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// User or token; `anonymous` when nobody had signed in.
    pub who: String,
    /// Where from.
    pub from: String,
    /// What: `order.submit`, `alarm.acknowledge` ..
    pub action: String,
    /// To what.
    pub target: String,
    /// What came of it: `done`, `denied`, or why not.
    pub outcome: String,
}

struct Inner {
    newest: VecDeque<Entry>,
    file: Option<(File, u64)>,
    broken: bool,
}

/// The record.
pub struct Audit {
    path: Option<PathBuf>,
    inner: Mutex<Inner>,
}

impl Audit {
    /// Opens the record of a state folder, or one in memory.
    pub fn open(dir: Option<&Path>) -> Audit {
        let path = dir.map(|d| d.join(FILE));
        Audit { path, inner: Mutex::new(Inner { newest: VecDeque::new(), file: None, broken: false }) }
    }

    /// Notes something. A disk that does not take it is told once, and the log has it all the same.
    pub fn note(&self, who: &super::Who, action: &str, target: &str, outcome: &str) {
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        let entry = Entry {
            time,
            who: who.name.to_string(),
            from: who.from.to_string(),
            action: action.into(),
            target: target.chars().take(200).collect(),
            outcome: outcome.chars().take(200).collect(),
        };
        tracing::info!(target: "audit", who = entry.who, from = entry.from, action, target = entry.target, "{outcome}");
        let mut inner = lock(&self.inner);
        if let Err(why) = self.append(&mut inner, &entry) {
            if !inner.broken {
                tracing::error!("the audit record cannot be written: {why}; it goes on in the log");
            }
            (inner.broken, inner.file) = (true, None);
        }
        if inner.newest.len() >= KEPT {
            inner.newest.pop_front();
        }
        inner.newest.push_back(entry);
    }

    fn append(&self, inner: &mut Inner, entry: &Entry) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if inner.file.is_none() {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let file = File::options().append(true).create(true).mode(0o600).open(path)?;
            let length = file.metadata()?.len();
            inner.file = Some((file, length));
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if let Some((file, length)) = &mut inner.file {
            file.write_all(&line)?;
            *length += line.len() as u64;
            if *length > FILE_MAX {
                std::fs::rename(path, path.with_extension("jsonl.1"))?;
                inner.file = None;
            }
        }
        inner.broken = false;
        Ok(())
    }

    /// The newest entries, newest first.
    pub fn newest(&self, limit: usize) -> Vec<Entry> {
        lock(&self.inner).newest.iter().rev().take(limit).cloned().collect()
    }
}
