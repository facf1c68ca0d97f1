//! A disk that forgets what was not made durable when the power fails, stops between any two calls, is full, or fails.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use edge_agent::telemetry::spool::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Debug, Default)]
struct Content {
    /// What is on the platter.
    durable: Vec<u8>,
    /// What reads give.
    live: Vec<u8>,
    /// Writes since the last fsync: offset and bytes; `None` for a change of length.
    pending: Vec<(u64, Option<Vec<u8>>)>,
}

type File = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<String, File>,
    durable: BTreeMap<String, File>,
    /// Calls left before the process is dead.
    calls_left: Option<u64>,
    /// Failures still to come: of writes and of fsyncs.
    bad_writes: u32,
    bad_syncs: u32,
    /// Bytes the disk takes.
    room: Option<u64>,
    calls: u64,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk(Arc<Mutex<State>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

impl FaultDisk {
    /// The process dies after so many more calls.
    pub fn die_after(&self, calls: Option<u64>) {
        lock(&self.0).calls_left = calls;
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        lock(&self.0).calls_left == Some(0)
    }

    /// The next fsyncs fail with EIO.
    pub fn fail_syncs(&self, count: u32) {
        lock(&self.0).bad_syncs = count;
    }

    /// The next writes fail with EIO, half done.
    pub fn fail_writes(&self, count: u32) {
        lock(&self.0).bad_writes = count;
    }

    /// It takes so many bytes in all; `None`: any number.
    pub fn limit(&self, room: Option<u64>) {
        lock(&self.0).room = room;
    }

    /// The disk after the process was killed: everything that was written is there.
    pub fn after_kill(&self) -> FaultDisk {
        let state = lock(&self.0);
        let copy = |files: &BTreeMap<String, File>| {
            files.iter().map(|(n, f)| (n.clone(), Arc::new(Mutex::new(lock(f).clone())))).collect()
        };
        let live: BTreeMap<String, File> = copy(&state.live);
        let durable = live.clone();
        FaultDisk(Arc::new(Mutex::new(State { live, durable, room: state.room, ..State::default() })))
    }

    /// The disk after the power failed: what was not made durable is there, or not, or in part.
    pub fn after_power_failure(&self, rng: &mut fastrand::Rng) -> FaultDisk {
        let state = lock(&self.0);
        let mut names: BTreeMap<String, File> = state.durable.clone();
        for (name, file) in &state.live {
            if !names.contains_key(name) && rng.bool() {
                names.insert(name.clone(), file.clone());
            }
        }
        for name in state.durable.keys() {
            if !state.live.contains_key(name) && rng.bool() {
                names.remove(name); // a removal that made it
            }
        }
        let survive = |file: &File, rng: &mut fastrand::Rng| {
            let content = lock(file);
            let mut bytes = content.durable.clone();
            for (at, write) in &content.pending {
                let at = *at as usize;
                match write {
                    None if rng.bool() => bytes.resize(at, 0),
                    Some(write) if rng.u8(0..4) > 0 => {
                        let upto = if rng.bool() { write.len() } else { rng.usize(0..=write.len()) };
                        bytes.resize(bytes.len().max(at + upto), 0);
                        bytes[at..at + upto].copy_from_slice(&write[..upto]);
                    }
                    _ => {}
                }
            }
            Content { durable: bytes.clone(), live: bytes, pending: Vec::new() }
        };
        let live: BTreeMap<String, File> =
            names.iter().map(|(name, file)| (name.clone(), Arc::new(Mutex::new(survive(file, rng))))).collect();
        let durable = live.clone();
        FaultDisk(Arc::new(Mutex::new(State { live, durable, room: state.room, ..State::default() })))
    }

    /// Names and contents, to be damaged.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        lock(&self.0).live.iter().map(|(name, file)| (name.clone(), lock(file).live.clone())).collect()
    }

    /// Puts other bytes into a file.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        if let Some(file) = lock(&self.0).live.get(name) {
            *lock(file) = Content { durable: bytes.clone(), live: bytes, pending: Vec::new() };
        }
    }

    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = lock(&self.0);
        state.calls += 1;
        match &mut state.calls_left {
            Some(0) => return Err(io::Error::other("the process is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.live.values().map(|f| lock(f).live.len() as u64).sum()
    }
}

impl Disk for FaultDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.call()?.live.iter().map(|(name, file)| (name.clone(), lock(file).live.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.call()?;
        let file = File::default();
        state.live.insert(name.into(), file.clone());
        Ok(Box::new(Open { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.call()?.live.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Open { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?.live.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.call()?;
        if state.bad_syncs > 0 {
            state.bad_syncs -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        state.durable = state.live.clone();
        Ok(())
    }

    fn free(&self) -> Option<u64> {
        let state = lock(&self.0);
        state.room.map(|room| room.saturating_sub(state.used()))
    }
}

struct Open {
    disk: FaultDisk,
    file: File,
}

impl DiskFile for Open {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.call()?;
        let used = state.used();
        let mut content = lock(&self.file);
        let end = at as usize + bytes.len();
        let grows = end.saturating_sub(content.live.len()) as u64;
        let mut count = bytes.len();
        let mut failure = None;
        if state.room.is_some_and(|room| used + grows > room) {
            (count, failure) = (bytes.len() / 2, Some(io::ErrorKind::StorageFull.into()));
        }
        if state.bad_writes > 0 {
            state.bad_writes -= 1;
            (count, failure) = (bytes.len() / 3, Some(io::Error::from_raw_os_error(5)));
        }
        if state.calls_left == Some(0) {
            count = bytes.len() / 2; // killed in the middle of it
        }
        let end = at as usize + count;
        let length = content.live.len().max(end);
        content.live.resize(length, 0);
        content.live[at as usize..end].copy_from_slice(&bytes[..count]);
        content.pending.push((at, Some(bytes[..count].to_vec())));
        failure.map_or(Ok(()), Err)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        drop(self.disk.call()?);
        let content = lock(&self.file);
        let there = content.live.get(at as usize..).unwrap_or_default();
        let count = there.len().min(into.len());
        into[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.call()?;
        let mut content = lock(&self.file);
        if state.bad_syncs > 0 {
            state.bad_syncs -= 1;
            // What the kernel does: the pages are clean now, and never written.
            content.pending.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        for (at, write) in std::mem::take(&mut content.pending) {
            let at = at as usize;
            match write {
                None => content.durable.resize(at, 0),
                Some(bytes) => {
                    let length = content.durable.len().max(at + bytes.len());
                    content.durable.resize(length, 0);
                    content.durable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let state = self.disk.call()?;
        let used = state.used();
        let mut content = lock(&self.file);
        let grows = length.saturating_sub(content.live.len() as u64);
        if grows > 0 && state.room.is_some_and(|room| used + grows > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.live.resize(length as usize, 0);
        content.pending.push((length, None));
        Ok(())
    }
}
