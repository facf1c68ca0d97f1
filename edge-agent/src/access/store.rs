//! Users and API tokens in one small file, replaced whole.

use super::{Role, digest};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The file, in the state folder.
pub(super) const FILE: &str = "users.json";
/// Users and tokens together: a plant has some dozens.
const ENTRIES_MAX: usize = 500;
/// Longest name.
const NAME_MAX: usize = 64;

/// Somebody with a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Argon2id, as a PHC string.
    pub hash: String,
    /// Since when, RFC 3339.
    pub since: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    role: Role,
    sha256: String,
    since: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    users: Vec<User>,
    #[serde(default)]
    tokens: Vec<Token>,
}

/// Why the users cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was given cannot be taken.
    #[error("{0}")]
    Invalid(String),
    /// There is one already.
    #[error("`{0}` is there already")]
    Exists(String),
    /// There is none.
    #[error("there is no `{0}`")]
    Unknown(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// Users and tokens.
#[derive(Debug)]
pub struct Store {
    path: Option<PathBuf>,
    book: Book,
    seen: Option<(SystemTime, u64)>,
}

impl Store {
    /// Reads the file of a state folder. It has to be ours alone: what others can write, others could sign in with.
    pub fn open(dir: Option<&Path>) -> Result<Store, StoreError> {
        let mut store = Store { path: dir.map(|d| d.join(FILE)), book: Book::default(), seen: None };
        store.read()?;
        Ok(store)
    }

    fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.ino()))
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let Some(path) = &self.path else { return Ok(()) };
        let other = |text: String| StoreError::Other(format!("{}: {text}", path.display()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(other(e.to_string())),
        };
        let meta = std::fs::metadata(path).map_err(|e| other(e.to_string()))?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(other("others may read or write it; chmod 600 it, and change the passwords in it".into()));
        }
        self.book = serde_json::from_str(&text)
            .map_err(|e| other(format!("{e}; move it away, and make the users again with edge-agent user add")))?;
        self.seen = Store::stamp(path);
        Ok(())
    }

    /// Reads the file again if another program (`edge-agent user`) has replaced it. One that cannot be read changes nothing.
    pub fn fresh(&mut self) -> &mut Store {
        if let Some(path) = &self.path
            && let stamp @ Some(_) = Store::stamp(path)
            && stamp != self.seen
            && let Err(why) = self.read()
        {
            self.seen = stamp; // told once
            tracing::error!("the users were changed and cannot be read: {why}; those known before are still in force");
        }
        self
    }

    /// All users.
    pub fn users(&self) -> &[User] {
        &self.book.users
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.book.users.iter().find(|u| u.name == name)
    }

    /// What a user may do.
    pub(super) fn role(&self, name: &str) -> Option<Role> {
        self.user(name).map(|u| u.role)
    }

    /// The token with this digest.
    pub(super) fn token(&self, digest: &[u8; 32]) -> Option<(Arc<str>, Role)> {
        let text = hex(digest);
        self.book.tokens.iter().find(|t| t.sha256 == text).map(|t| (t.name.as_str().into(), t.role))
    }

    /// Adds a user whose password is hashed already.
    pub fn add(&mut self, name: &str, role: Role, hash: String) -> Result<(), StoreError> {
        self.check_name(name)?;
        let since = now();
        self.change(|book| book.users.push(User { name: name.into(), role, hash, since }))
    }

    /// Adds an API token.
    pub fn add_token(&mut self, name: &str, role: Role, token: &str) -> Result<(), StoreError> {
        self.check_name(name)?;
        let (sha256, since) = (hex(&digest(token)), now());
        self.change(|book| book.tokens.push(Token { name: name.into(), role, sha256, since }))
    }

    /// Removes a user or token. The last admin stays: nobody could make another.
    pub fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        if !self.list().iter().any(|(n, ..)| n == name) {
            return Err(StoreError::Unknown(name.into()));
        }
        let admins = |u: &&User| u.role == Role::Admin;
        if self.user(name).is_some_and(|u| u.role == Role::Admin) && self.book.users.iter().filter(admins).count() == 1
        {
            return Err(StoreError::Invalid("this is the last admin; make another one first".into()));
        }
        self.change(|book| {
            book.users.retain(|u| u.name != name);
            book.tokens.retain(|t| t.name != name);
        })
    }

    /// Name, role, whether it is a token, since when.
    pub fn list(&self) -> Vec<(String, Role, bool, String)> {
        let users = self.book.users.iter().map(|u| (u.name.clone(), u.role, false, u.since.clone()));
        users.chain(self.book.tokens.iter().map(|t| (t.name.clone(), t.role, true, t.since.clone()))).collect()
    }

    fn check_name(&self, name: &str) -> Result<(), StoreError> {
        let fine = |c: char| c.is_alphanumeric() || ".-_@".contains(c);
        if name.is_empty() || name.chars().count() > NAME_MAX || !name.chars().all(fine) || name == "anonymous" {
            let text =
                format!("a name has 1 to {NAME_MAX} letters, digits, `.`, `-`, `_` or `@`, and is not `anonymous`");
            return Err(StoreError::Invalid(text));
        }
        if self.list().iter().any(|(n, ..)| n == name) {
            return Err(StoreError::Exists(name.into()));
        }
        if self.list().len() >= ENTRIES_MAX {
            return Err(StoreError::Invalid(format!("there are {ENTRIES_MAX} users and tokens already")));
        }
        Ok(())
    }

    /// Changes the book and writes it; when it cannot be written nothing has changed.
    fn change(&mut self, change: impl FnOnce(&mut Book)) -> Result<(), StoreError> {
        let mut book = self.book.clone();
        change(&mut book);
        if let Some(path) = &self.path {
            let text = serde_json::to_string_pretty(&book).map_err(|e| StoreError::Other(e.to_string()))?;
            replace(path, text.as_bytes())
                .map_err(|e| StoreError::Other(format!("cannot write {}: {e}", path.display())))?;
            self.seen = Store::stamp(path);
        }
        self.book = book;
        Ok(())
    }
}

/// Replaces a file whole: whoever reads it sees the old one or the new one. 0600, and on the disk when this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary); // of a process of the same number that did not get to its end
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &str) -> Result<String, StoreError> {
        crate::access::password::Memory::default().hash(password)
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(Some(dir.path())).unwrap();
        store.add("ada", Role::Admin, hash("correct horse").unwrap()).unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let why = Store::open(Some(dir.path())).unwrap_err().to_string();
        assert!(why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn another_program_s_change_is_seen_and_a_broken_file_takes_nobody_s_rights() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = Store::open(Some(dir.path())).unwrap();
        let mut theirs = Store::open(Some(dir.path())).unwrap();
        theirs.add("ada", Role::Admin, hash("correct horse").unwrap()).unwrap();
        assert_eq!(ours.fresh().role("ada"), Some(Role::Admin));
        replace(&dir.path().join(FILE), b"{").unwrap();
        assert_eq!(ours.fresh().role("ada"), Some(Role::Admin));
        assert!(Store::open(Some(dir.path())).is_err());
    }

    #[test]
    fn names_and_passwords_are_checked_and_the_last_admin_stays() {
        let mut store = Store::open(None).unwrap();
        for name in ["", "anonymous", "a b", "x\n", &"x".repeat(65)] {
            assert!(matches!(store.add(name, Role::Viewer, String::new()), Err(StoreError::Invalid(_))), "{name}");
        }
        assert!(matches!(hash("1234567"), Err(StoreError::Invalid(_))));
        store.add("ada", Role::Admin, String::new()).unwrap();
        assert!(matches!(store.add("ada", Role::Viewer, String::new()), Err(StoreError::Exists(_))));
        assert!(matches!(store.remove("ada"), Err(StoreError::Invalid(_))));
        assert!(matches!(store.remove("bob"), Err(StoreError::Unknown(_))));
        store.add("bob", Role::Admin, String::new()).unwrap();
        store.remove("ada").unwrap();
    }
}
