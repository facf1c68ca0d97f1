//! Files that somebody names, and whose the files are that outlive the process.
//!
//! What a configuration names is a regular file of a size that makes sense, or an error at once: a FIFO in its place would keep a gateway
//! waiting for ever, a device would fill its memory. What root makes in somebody's folder is that somebody's:
//!
//! ```text
//!   /var/lib/lightsout        61234   the gateway runs as a user of its own (systemd.exec(5), DynamicUser=)
//!     users.json  0600        root    made by `sudo edge-agent user add`: the gateway could not read it
//!                             61234   so it gets the owner of the folder it is in, as all that is made here
//! ```

use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;

/// What is read of a configuration's file, bytes: a table of a hundred thousand tags has less.
pub const CONFIGURATION_MAX: u64 = 16 << 20;
/// What is read of a password, a key, or a certificate with those above it, bytes.
pub const SECRET_MAX: u64 = 64 << 10;
/// What is read of a file of certificates to believe peers by, bytes: that of a whole system has some hundred thousand.
pub const AUTHORITIES_MAX: u64 = 4 << 20;

/// Reads a regular file of at most so many bytes. Never waits for somebody at the other end.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO waits for who writes to it, and a terminal could become ours.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    fits(&meta, meta.len(), most)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    // Whoever lengthens it meanwhile gains nothing.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    fits(&meta, bytes.len() as u64, most)?;
    Ok(bytes)
}

/// Whether a file is one that [`read`] would read, for somebody who may see it and not read it.
pub fn look_at(path: &Path, most: u64) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    fits(&meta, meta.len(), most)
}

fn fits(meta: &Metadata, length: u64, most: u64) -> io::Result<()> {
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a file"));
    }
    if !meta.is_file() {
        let what = "it is no regular file, but a device, a pipe or a socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if length > most {
        let shown = if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{most} bytes") };
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {shown}")));
    }
    Ok(())
}

/// The same for a text.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// A password as a file has it: its last end of line is the editor's.
pub fn read_secret(path: &Path) -> io::Result<String> {
    Ok(read_text(path, SECRET_MAX)?.trim_end_matches(['\r', '\n']).to_string())
}

/// Gives a file that was just made the owner of its folder. Nothing is done where they are the same, or where that is not ours to do.
pub fn hand_over(file: &File, folder: &Path) -> io::Result<()> {
    let (made, owner) = (file.metadata()?, std::fs::metadata(here(folder))?);
    if made.uid() == owner.uid() {
        return Ok(());
    }
    only_root(fchown(file, Some(owner.uid()), Some(owner.gid())))
}

/// Makes a folder, and those above it that are missing, with this mode; each gets the owner of the one it is in.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_folder(parent, mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    let (made, owner) = (std::fs::symlink_metadata(path)?, std::fs::metadata(here(parent))?);
    if made.uid() == owner.uid() {
        return Ok(());
    }
    // Not through a link that somebody has put in its place meanwhile.
    only_root(lchown(path, Some(owner.uid()), Some(owner.gid())))
}

fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Only root may give a file away, and only root's need it: whoever else makes one here is who uses it.
fn only_root(given: io::Result<()>) -> io::Result<()> {
    match given {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_large_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let file = dir.path().join("file");
        std::fs::write(&file, "12345\r\n").unwrap();
        let why = |path: &Path, most| read(path, most).unwrap_err().to_string();
        assert!(why(&fifo, 9).contains("no regular file"));
        assert!(why(Path::new("/dev/zero"), 9).contains("no regular file"));
        assert!(why(dir.path(), 9).contains("folder"));
        assert!(why(&file, 6).contains("larger than"));
        assert!(look_at(&fifo, 9).is_err() && look_at(&file, 6).is_err() && look_at(&file, 7).is_ok());
        assert_eq!(read(&file, 7).unwrap(), b"12345\r\n");
        assert_eq!(read_secret(&file).unwrap(), "12345");
        std::fs::write(&file, b"\xe9").unwrap();
        assert_eq!(read_text(&file, 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
