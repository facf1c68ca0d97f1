//! The files of the log: a new one at each start and after [`FILE_MAX`] bytes; the oldest goes before all have [`TOTAL_MAX`].

use super::{Entry, Header};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A new file begins after so many bytes.
pub const FILE_MAX: u64 = 16 << 20;
/// All files together have no more.
pub const TOTAL_MAX: u64 = 256 << 20;

/// What is counted.
#[derive(Debug, Default)]
pub struct TrafficStats {
    /// Lines written.
    pub lines: AtomicU64,
    /// Lines the disk did not take.
    pub failed: AtomicU64,
    /// Files that went to make room.
    pub dropped: AtomicU64,
}

/// The files.
pub struct Files {
    dir: PathBuf,
    header: Header,
    file: Option<(File, u64)>,
    limits: (u64, u64),
    /// What is counted.
    pub stats: Arc<TrafficStats>,
}

impl Files {
    /// In this folder, which is made when the first line comes.
    pub fn new(dir: &Path, header: Header) -> Files {
        Files::with_limits(dir, header, (FILE_MAX, TOTAL_MAX))
    }

    /// The same with other limits: bytes of a file, bytes of all.
    pub fn with_limits(dir: &Path, header: Header, limits: (u64, u64)) -> Files {
        Files { dir: dir.into(), header, file: None, limits, stats: Arc::default() }
    }

    /// Whether the next write begins a file, and therefore wants everybody.
    pub fn begins(&self) -> bool {
        self.file.is_none()
    }

    /// Appends what has changed; `all` is written instead where a file begins. A disk that does not take it is told once.
    pub fn write(&mut self, changed: &[Entry], all: &[Entry]) {
        let count = if self.begins() { all.len() } else { changed.len() } as u64;
        match self.append(changed, all) {
            Ok(()) => {
                self.stats.lines.fetch_add(count, Relaxed);
            }
            Err(why) => {
                if self.stats.failed.fetch_add(count, Relaxed) == 0 {
                    tracing::error!("{}: the traffic log cannot be written: {why}", self.dir.display());
                }
                self.file = None;
            }
        }
    }

    fn append(&mut self, changed: &[Entry], all: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        let entries = if self.begins() { all } else { changed };
        if self.begins() {
            crate::state::make_folder(&self.dir)?;
            self.make_room()?;
            self.header.t = entries.first().map_or(self.header.t, |e| e.t);
            (self.header.dropped, self.header.failed) =
                (self.stats.dropped.load(Relaxed), self.stats.failed.load(Relaxed));
            line(&mut text, &self.header)?;
        }
        for entry in entries {
            line(&mut text, entry)?;
        }
        if let Some((file, length)) = &mut self.file {
            file.write_all(&text)?;
            *length += text.len() as u64;
        } else {
            let (mut file, path) = self.create()?;
            if let Err(why) = file.write_all(&text) {
                let _ = std::fs::remove_file(path);
                return Err(why);
            }
            self.file = Some((file, text.len() as u64));
        }
        if self.file.as_ref().is_some_and(|(_, length)| *length >= self.limits.0) {
            self.file = None;
        }
        Ok(())
    }

    /// The names sort as the files were begun.
    fn create(&self) -> io::Result<(File, PathBuf)> {
        let time = crate::telemetry::payload::rfc3339(self.header.t).to_string().replace(['-', ':'], "");
        for n in 0..1000 {
            let path = self.dir.join(format!("traffic-{}-{n:03}.jsonl", time.trim_end_matches('Z')));
            match crate::state::create_new(&path, File::options().append(true)) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|file| (file, path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Room for a whole file, with one write more.
    fn make_room(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("traffic-") && name.ends_with(".jsonl") {
                found.push((name, entry.metadata()?.len()));
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, length)| length).sum();
        for (name, length) in found {
            if total + self.limits.0 <= self.limits.1 {
                break;
            }
            std::fs::remove_file(self.dir.join(&name))?;
            total -= length;
            self.stats.dropped.fetch_add(1, Relaxed);
            tracing::info!("{name} of the traffic log made room for newer ones");
        }
        Ok(())
    }
}

fn line(out: &mut Vec<u8>, what: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, what)?;
    out.push(b'\n');
    Ok(())
}
