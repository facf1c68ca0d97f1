//! A file that lines are appended to, closed at a length and kept as `NAME.1.EXT` .. for a while. The oldest goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How long, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A file is closed before it is longer than this, bytes.
    pub(crate) length: u64,
    /// Closed files that are kept.
    pub(crate) closed: usize,
}

/// The file.
pub(crate) struct Rolling {
    path: PathBuf,
    limits: Limits,
    file: Option<(File, u64)>,
}

impl Rolling {
    /// At this place. Nothing is opened before the first line.
    pub(crate) fn new(path: PathBuf, limits: Limits) -> Rolling {
        Rolling { path, limits, file: None }
    }

    /// Appends whole lines. After an error the file is opened anew the next time.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let done = self.try_append(lines);
        if done.is_err() {
            self.file = None;
        }
        done
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        let (mut file, mut length) = self.opened()?;
        if length > 0 && length + lines.len() as u64 > self.limits.length {
            drop(file);
            self.turn_over()?;
            (file, length) = self.opened()?;
        }
        file.write_all(lines)?;
        self.file = Some((file, length + lines.len() as u64));
        Ok(())
    }

    /// Opens the file now, so that it is known whether that can be done.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        self.file = Some(self.opened()?);
        Ok(())
    }

    /// The file and its length. What a crash left of a last line is ended, or it would spoil the next one.
    fn opened(&mut self) -> io::Result<(File, u64)> {
        if let Some(open) = self.file.take() {
            return Ok(open);
        }
        if let Some(folder) = self.path.parent() {
            super::make_folder(folder)?;
        }
        let mut file = super::open(&self.path, File::options().read(true).append(true))?;
        let mut length = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(at) = length.checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok((file, length))
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |(file, _)| file.sync_data())
    }

    fn turn_over(&mut self) -> io::Result<()> {
        for n in (1..self.limits.closed).rev() {
            let _ = std::fs::rename(closed(&self.path, n), closed(&self.path, n + 1));
        }
        std::fs::rename(&self.path, closed(&self.path, 1))?;
        self.path.parent().map_or(Ok(()), super::sync_folder)
    }
}

fn closed(path: &Path, n: usize) -> PathBuf {
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_extension(format!("{n}.{extension}"))
}

/// All its files, the oldest first.
pub(crate) fn all(path: &Path, limits: Limits) -> impl Iterator<Item = PathBuf> {
    (1..=limits.closed).rev().map(|n| closed(path, n)).chain([path.to_path_buf()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_closed_before_it_is_too_long_and_a_torn_line_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let limits = Limits { length: 10, closed: 2 };
        std::fs::write(&path, "torn").unwrap();
        let mut rolling = Rolling::new(path.clone(), limits);
        for line in ["1234\n", "5\n", "6789\n", "a\n", "bcdefgh\n"] {
            rolling.append(line.as_bytes()).unwrap();
        }
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(all(&path, limits).map(read).collect::<Vec<_>>(), ["torn\n1234\n", "5\n6789\na\n", "bcdefgh\n"]);
        rolling.append(b"i\n").unwrap();
        rolling.append(b"j\n").unwrap();
        assert_eq!(all(&path, limits).map(read).collect::<Vec<_>>(), ["5\n6789\na\n", "bcdefgh\ni\n", "j\n"]);
    }
}
