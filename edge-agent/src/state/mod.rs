//! The state folder: how its files are made, and what becomes of those that are damaged.
//!
//! ```text
//!   users.json                          who may sign in
//!   store/                              orders, alarms, closings, commands and their keys, who did what
//!   spool/  traffic/  pki/              a room each
//!   tls/                                the certificate and the key of the page, if they are made here
//!
//!   NAME.damaged-20261130T175012Z       what could not be read as NAME: kept for a person, and an alarm for as long as it is there
//! ```
//!
//! Nothing that is kept here is worth a plant that stands: what is damaged is set aside, what cannot be opened is done without, both are told,
//! and control goes on (IEC 62443-3-3, 4.2: no measure of security harms an essential function). Only a folder that another gateway
//! uses is refused. What is made here is ours alone (0600, 0700), or that of the folder's owner, whom root may be typing for.

use device_drivers::files;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Folders are for their owner.
const FOLDER_MODE: u32 = 0o700;
/// And so are files.
const FILE_MODE: u32 = 0o600;
/// What the name of a file that was set aside has behind its own.
const ASIDE: &str = ".damaged-";
/// Files set aside in one second under one name.
const ASIDE_MAX: u32 = 100;
/// Files that are told of; a folder with more is one to be looked at anyway.
const TOLD_MAX: usize = 100;
/// Folders below the state folder that are looked into.
const DEPTH: u8 = 3;
/// How often somebody looks whether what was set aside is still there.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Holds a folder: one process uses it at a time, for as long as the file is open. An error of the kind `ResourceBusy` says that another
/// does.
pub fn hold(folder: &Path) -> io::Result<File> {
    make_folder(folder)?;
    let file = open(&folder.join("lock"), File::options().write(true))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(e) => Err(e.into()),
    }
}

/// Holds the state folder of a gateway, if it has one. What cannot be made or opened is told where it is needed: only another gateway in
/// it is an error.
pub fn hold_alone(folder: Option<&Path>) -> Result<Option<File>, String> {
    let Some(folder) = folder else { return Ok(None) };
    match hold(folder) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            Err(format!("another gateway uses {}: each needs a `state_dir` of its own", folder.display()))
        }
        held => Ok(held.ok()),
    }
}

/// Makes a folder of the state folder, and those above it that are missing.
pub fn make_folder(path: &Path) -> io::Result<()> {
    files::make_folder(path, FOLDER_MODE)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// A new file of the folder's owner; an error if there is one.
pub fn create_new(path: &Path, options: &mut std::fs::OpenOptions) -> io::Result<File> {
    let file = options.create_new(true).mode(FILE_MODE).open(path)?;
    files::hand_over(&file, folder_of(path)).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(file)
}

/// Opens a file, and makes it if it is not there; `options` say what for. A link in its place is not followed.
pub fn open(path: &Path, options: &mut std::fs::OpenOptions) -> io::Result<File> {
    match create_new(path, &mut options.clone()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => options.custom_flags(libc::O_NOFOLLOW).open(path),
        made => made,
    }
}

/// Replaces a file whole: whoever reads it sees the old one or the new one. On the disk when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary); // of a process of the same number that did not get to its end
    let mut file = create_new(&temporary, File::options().write(true))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

/// Moves what is damaged out of the way, under a name that says when. Nothing of it is lost.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
    for n in 0..ASIDE_MAX {
        let again = if n == 0 { String::new() } else { format!("-{n}") };
        let to = path.with_file_name(format!("{name}{ASIDE}{time}{again}"));
        if to.symlink_metadata().is_err() {
            std::fs::rename(path, &to)?;
            let _ = sync_folder(folder_of(path)); // what comes back after a crash is set aside again
            tracing::error!("{} is damaged: it is set aside as {}", path.display(), to.display());
            return Ok(to);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Whether a file of this name was set aside, and which: the newest.
pub fn aside_of(path: &Path) -> Option<PathBuf> {
    let begin = format!("{}{ASIDE}", path.file_name()?.to_str()?);
    let entries = std::fs::read_dir(path.parent()?).ok()?.flatten();
    entries.filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&begin))).map(|e| e.path()).max()
}

/// Files that were set aside, in a folder and those in it.
fn all_aside(folder: &Path, depth: u8, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if found.len() >= TOLD_MAX {
            return;
        }
        if entry.file_name().to_str().is_some_and(|n| n.contains(ASIDE)) {
            found.push(entry.path());
        } else if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            all_aside(&entry.path(), depth - 1, found);
        }
    }
}

/// Parts that are done without, and why.
pub type Unusable = Vec<(&'static str, String)>;

/// What is wrong with the state folder, for the alarms.
#[derive(Debug, Default)]
pub struct StateWatch {
    folders: Vec<PathBuf>,
    unusable: Unusable,
    damaged: Mutex<Vec<PathBuf>>,
    /// What is to be said of files whose names begin so, when they were set aside.
    said: Vec<(&'static str, String)>,
}

impl StateWatch {
    /// Of these folders; those in each other are looked into once.
    pub fn new(mut folders: Vec<PathBuf>, unusable: Unusable) -> StateWatch {
        folders.sort();
        folders.dedup_by(|inner, outer| inner.starts_with(&*outer));
        let watch = StateWatch { folders, unusable, ..StateWatch::default() };
        watch.look();
        watch
    }

    /// With something to be said of the files whose names begin so, when they were set aside.
    pub fn saying(mut self, of: &'static str, what: Option<String>) -> StateWatch {
        self.said.extend(what.map(|what| (of, what)));
        self
    }

    /// What there is to say of a name that [`StateWatch::aside`] gives.
    pub fn said_of(&self, name: &str) -> &str {
        self.said.iter().find(|(of, _)| name.starts_with(of)).map_or("set aside", |(_, what)| what)
    }

    fn damaged(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for what was set aside. Blocks for as long as the disk takes.
    pub fn look(&self) {
        let mut found = Vec::new();
        self.folders.iter().for_each(|folder| all_aside(folder, DEPTH, &mut found));
        found.sort();
        *self.damaged() = found;
    }

    /// Looks now and then, and does what `also` does beside. A disk that hangs keeps nobody else.
    pub async fn keep_looking(self: Arc<Self>, also: impl Fn() + Clone + Send + 'static) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let (state, also) = (self.clone(), also.clone());
            let looked = tokio::task::spawn_blocking(move || {
                state.look();
                also();
            });
            let _ = looked.await;
        }
    }

    /// Names of what was set aside, from their state folder on.
    pub fn aside(&self) -> Vec<String> {
        let short = |path: &PathBuf| {
            let inner = self.folders.iter().find_map(|folder| path.strip_prefix(folder).ok());
            inner.unwrap_or(path).display().to_string()
        };
        self.damaged().iter().map(short).collect()
    }

    /// Parts that are done without, and why.
    pub fn unusable(&self) -> &[(&'static str, String)] {
        &self.unusable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_set_aside_keeps_its_bytes_and_is_told_until_it_is_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let room = dir.path().join("orders");
        make_folder(&room).unwrap();
        let path = room.join("a.jnl");
        let mut names = Vec::new();
        for text in ["one", "two"] {
            std::fs::write(&path, text).unwrap();
            let to = set_aside(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
            names.push(to);
        }
        let watch = StateWatch::new(vec![room.clone(), dir.path().into()], Vec::new());
        assert_eq!(watch.aside().len(), 2, "each is told once, whatever the folders are: {:?}", watch.aside());
        assert!(watch.aside()[0].starts_with("orders/a.jnl.damaged-"), "{:?}", watch.aside());
        assert!(names.contains(&aside_of(&path).unwrap()));
        names.iter().for_each(|name| std::fs::remove_file(name).unwrap());
        watch.look();
        assert_eq!((watch.aside(), aside_of(&path)), (Vec::new(), None));
    }

    #[test]
    fn what_is_made_is_for_its_owner_and_a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (room, file) = (dir.path().join("a/b"), dir.path().join("a/b/c"));
        make_folder(&room).unwrap();
        drop(open(&file, File::options().append(true)).unwrap());
        assert_eq!((mode(&room), mode(&file)), (0o700, 0o600));
        drop(open(&file, File::options().append(true)).unwrap());
        let link = room.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open(&link, File::options().append(true)).is_err());
    }
}
