//! Where segments live: a folder, or memory. The spool sees this face only, so that a test can crash between any two writes, and let
//! a disk be full or broken.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A folder of files. Calls block for as long as the disk takes.
pub trait Disk: Send + Sync + 'static {
    /// Names and lengths of its files.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Makes a new, empty file; one of this name that was there is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Moves a damaged file out of the way, for a person to look at.
    fn set_aside(&self, name: &str) -> io::Result<()> {
        let (damaged, mut bytes) = (self.open(name)?, Vec::new());
        let length = self.list()?.iter().find(|(n, _)| n == name).map_or(0, |(_, length)| *length);
        read_up_to(&*damaged, 0, usize::try_from(length).unwrap_or(usize::MAX), &mut bytes)?;
        let aside = self.create(&format!("{name}.damaged"))?;
        aside.write_at(0, &bytes).and_then(|()| aside.sync()).and_then(|()| self.remove(name))
    }
    /// Makes what was created and removed durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that it has left for us, if it knows.
    fn free(&self) -> Option<u64> {
        None
    }
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at an offset.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads at an offset; 0 at the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes room for so many bytes ahead, if the disk knows how to: appending is faster then. The length stays as it is.
    fn reserve(&self, _bytes: u64) {}
    /// What is durable in this range is not asked for again soon: it need not be kept in memory.
    fn let_go(&self, _range: std::ops::Range<u64>) {}
    /// Cuts the file, or fills it up with zeros that take room on the disk.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// Written at once. Linux keeps what one call writes in pieces of memory as large as the call, and megabytes in one piece are four times
/// slower to come by (ext4, Linux 6.x: 270 MiB/s in calls of 2 MiB, 1,100 MiB/s in calls of 256 KiB, each with the same fdatasync).
const PIECE: usize = 256 << 10;
/// Let go in multiples of this: no page of a machine that runs this is larger, bytes.
const PAGE: u64 = 64 << 10;

/// A folder on a real disk.
#[derive(Debug)]
pub struct Folder(PathBuf, bool);

impl Folder {
    /// A folder that is only looked at: nothing is made, and nothing can be written.
    pub fn to_read(path: &Path) -> Folder {
        Folder(path.to_path_buf(), false)
    }

    /// Makes the folder, and makes that durable.
    pub fn new(path: &Path) -> io::Result<Folder> {
        crate::state::make_folder(path)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Folder(path.to_path_buf(), true))
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let (entry, name) = entry.map(|e| (e.metadata(), e.file_name()))?;
            let meta = entry?;
            // What is no file and has the name of one is found when it is opened.
            if let Some(name) = name.to_str() {
                files.push((name.to_string(), meta.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(crate::state::open(&self.0.join(name), OpenOptions::new().read(true).write(true).truncate(true))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(self.1).open(self.0.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        crate::state::set_aside(&self.0.join(name)).map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn free(&self) -> Option<u64> {
        let fs = rustix::fs::statvfs(&self.0).ok()?;
        Some(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

impl DiskFile for File {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut at = at;
        for piece in bytes.chunks(PIECE) {
            self.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn reserve(&self, bytes: u64) {
        let _ = rustix::fs::fallocate(self, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes);
    }

    fn let_go(&self, range: std::ops::Range<u64>) {
        // The page that is not full yet is written on.
        let (from, to) = (range.start / PAGE * PAGE, range.end / PAGE * PAGE);
        if let Some(length) = std::num::NonZeroU64::new(to.saturating_sub(from)) {
            let _ = rustix::fs::fadvise(self, from, Some(length), rustix::fs::Advice::DontNeed);
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let now = self.metadata()?.len();
        File::set_len(self, length)?;
        if length > now {
            rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), now, length - now)?;
        }
        Ok(())
    }
}

/// A folder in memory: what a gateway has that was given none. It outlives a broker, not the process.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Page>>>);

#[derive(Clone, Debug, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(lock(&self.0).iter().map(|(name, page)| (name.clone(), lock(&page.0).len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let page = Page::default();
        lock(&self.0).insert(name.into(), page.clone());
        Ok(Box::new(page))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let page = lock(&self.0).get(name).cloned();
        page.map(|p| Box::new(p) as Box<dyn DiskFile>).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Page {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut page, at) = (lock(&self.0), usize::try_from(at).map_err(|_| io::ErrorKind::StorageFull)?);
        if page.len() < at + bytes.len() {
            page.resize(at + bytes.len(), 0);
        }
        if let Some(place) = page.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let page = lock(&self.0);
        let there = usize::try_from(at).ok().and_then(|at| page.get(at..)).unwrap_or_default();
        let count = there.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        lock(&self.0).resize(usize::try_from(length).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        Ok(())
    }
}

/// Reads up to `most` bytes at an offset; fewer at the end of the file. Room is made as it is filled: first [`ROOM`], then twice as much each time.
pub fn read_up_to(file: &dyn DiskFile, at: u64, most: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    while filled < most {
        into.resize(most.min(into.len().max(filled * 2).max(ROOM)), 0);
        let Some(rest) = into.get_mut(filled..) else { break };
        match file.read_at(at + filled as u64, rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                into.truncate(filled);
                return Err(e);
            }
        }
    }
    into.truncate(filled);
    Ok(())
}

/// Room for the first bytes of a file: most pieces that are asked for are no longer.
const ROOM: usize = 64 * 1024;
