//! Whose the files are that outlive the process: what root makes in somebody's folder is that somebody's.
//!
//! ```text
//!   /var/lib/lightsout        61234   the gateway runs as a user of its own (systemd.exec(5), DynamicUser=)
//!     users.json  0600        root    made by `sudo edge-agent user add`: the gateway could not read it
//!                             61234   so it gets the owner of the folder it is in, as all that is made here
//! ```

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown, lchown};
use std::path::Path;

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
