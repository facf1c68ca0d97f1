//! A state folder that somebody, or a disk, has been at: files with a flipped bit, cut at a length, emptied, unreadable, open to others, of
//! another owner, or of a newer version. Any feature that keeps something in the folder can be tried with it.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// One bit differs: of the byte at so many thousandths of the file.
    Flip { thousandth: usize, bit: u8 },
    /// What is behind so many thousandths of it is gone.
    Cut { thousandth: usize },
    /// Nothing is in it.
    Empty,
    /// It cannot be read, by root either: a folder has its place.
    Unreadable,
    /// Everybody may read and write it.
    Open,
    /// A later version has written it.
    Newer,
}

/// One of each kind.
pub const HARMS: [Harm; 8] = [
    Harm::Flip { thousandth: 2, bit: 0 },
    Harm::Flip { thousandth: 500, bit: 3 },
    Harm::Cut { thousandth: 300 },
    Harm::Cut { thousandth: 999 },
    Harm::Empty,
    Harm::Unreadable,
    Harm::Open,
    Harm::Newer,
];

impl Harm {
    /// Does it to a file.
    pub fn to(self, path: &Path) {
        let bytes = std::fs::read(path).expect("there is a file");
        let at = |thousandth: usize| (bytes.len() * thousandth / 1000).min(bytes.len().saturating_sub(1));
        let mut harmed = bytes.clone();
        match self {
            Harm::Flip { thousandth, bit } => {
                if let Some(byte) = harmed.get_mut(at(thousandth)) {
                    *byte ^= 1 << bit;
                }
            }
            Harm::Cut { thousandth } => harmed.truncate(at(thousandth)),
            Harm::Empty => harmed.clear(),
            Harm::Unreadable => {
                std::fs::remove_file(path).expect("it can be removed");
                return std::fs::create_dir(path).expect("a folder can be made");
            }
            Harm::Open => {
                return std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).expect("its mode can be set");
            }
            Harm::Newer => harmed = newer(harmed),
        }
        // In place, as a disk does it: owner, mode and inode stay.
        std::fs::write(path, harmed).expect("it can be written");
    }
}

/// As a later version might write it: segments and journals have a version of the format, JSON has a key that is not known.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(b"LSPOOL") && bytes.len() >= 8 {
        bytes[6..8].copy_from_slice(&9u16.to_le_bytes());
    } else if let Some(first) = bytes.iter().position(|b| *b == b'{') {
        bytes.splice(first + 1..first + 1, *b"\"newer\":1,");
    }
    bytes
}

/// All files below a folder, but those that were set aside.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.to_string_lossy().contains(".damaged-") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A folder as it is, once more.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("it can be read").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

/// Gives a folder and all in it to another user; false where that is not ours to do, with a word on the terminal.
pub fn give_to(folder: &Path, uid: u32, test: &str) -> bool {
    let all = files(folder).into_iter().chain([folder.to_path_buf()]);
    let given = all.map(|path| std::os::unix::fs::chown(path, Some(uid), Some(uid))).collect::<Result<Vec<()>, _>>();
    if given.is_err() {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: only root can give files to somebody else");
    }
    given.is_ok()
}
