//! Users and API tokens in one small file, replaced whole.
//!
//! ```text
//!   users.json ──sound, 0600──> in force         missing ──> nobody yet
//!              ──others may read it, or we may not──> nobody signs in, until somebody mends that: looked at again whenever it changes
//!              ──damaged──> set aside; nobody signs in before `edge-agent user add` has made a new one
//! ```

use super::{Role, digest};
use crate::state;
use device_drivers::files;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
    /// The file is no book of users.
    #[error("{0}")]
    Damaged(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// When a file was changed, in content, mode or owner, and which file it is.
type Stamp = (i64, i64, u64, u32);

/// Users and tokens.
#[derive(Debug)]
pub struct Store {
    path: Option<PathBuf>,
    book: Book,
    seen: Option<Stamp>,
    /// Why nobody can sign in.
    trouble: Option<String>,
}

impl Store {
    /// Reads the file of a state folder. It has to be ours alone: what others can write, others could sign in with.
    pub fn open(dir: Option<&Path>) -> Result<Store, StoreError> {
        let mut store = Store::closed(dir);
        store.read()?;
        Ok(store)
    }

    /// The same for a gateway, which starts whatever has become of the file: users that cannot be read cannot sign in, and that is all.
    pub fn start(dir: Option<&Path>) -> Store {
        let mut store = Store::closed(dir);
        let why = match store.read() {
            Ok(()) => return store.unless_lost(),
            Err(StoreError::Damaged(why)) => match store.path.as_deref().map(state::set_aside) {
                Some(Ok(_)) => return store.unless_lost(),
                Some(Err(e)) => format!("{why} (and it cannot be set aside: {e})"),
                None => why,
            },
            Err(why) => why.to_string(),
        };
        tracing::error!("the users cannot be read, and nobody can sign in: {why}");
        store.seen = store.path.as_deref().and_then(Store::stamp);
        store.trouble = Some(why);
        store
    }

    fn closed(dir: Option<&Path>) -> Store {
        Store { path: dir.map(|d| d.join(FILE)), book: Book::default(), seen: None, trouble: None }
    }

    /// Where there is nobody because a file was set aside, whoever reads the log is not made the first admin.
    fn unless_lost(mut self) -> Store {
        let aside = self.path.as_deref().filter(|path| !path.exists()).and_then(state::aside_of);
        self.trouble = aside.map(|aside| {
            let aside = aside.display();
            format!("they were damaged and are set aside as {aside}; make them again with edge-agent user add")
        });
        self
    }

    /// Why nobody can sign in, if something is wrong with the file.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn stamp(path: &Path) -> Option<Stamp> {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ctime(), meta.ctime_nsec(), meta.ino(), meta.mode()))
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let Some(path) = &self.path else { return Ok(()) };
        let other = |text: String| StoreError::Other(format!("{}: {text}", path.display()));
        let text = match files::read_text(path, files::CONFIGURATION_MAX) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(StoreError::Damaged(format!("{}: {e}", path.display())));
            }
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                let text = format!(
                    "{e}; give it to the gateway's user: chown --reference={} {}",
                    dir_of(path),
                    path.display()
                );
                return Err(other(text));
            }
            Err(e) => return Err(other(e.to_string())),
        };
        let meta = std::fs::metadata(path).map_err(|e| other(e.to_string()))?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(other("others may read or write it; chmod 600 it, and change the passwords in it".into()));
        }
        self.book = serde_json::from_str(&text).map_err(|e| {
            let mend = "move it away, and make the users again with edge-agent user add";
            StoreError::Damaged(format!("{}: {e}; {mend}", path.display()))
        })?;
        (self.seen, self.trouble) = (Store::stamp(path), None);
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
            self.trouble = Some(why.to_string());
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
            // What is there and cannot be read is not written over.
            if let Some(why) = self.trouble.as_ref().filter(|_| path.exists()) {
                return Err(StoreError::Other(why.clone()));
            }
            let text = serde_json::to_string_pretty(&book).map_err(|e| StoreError::Other(e.to_string()))?;
            state::replace(path, text.as_bytes())
                .map_err(|e| StoreError::Other(format!("cannot write {}: {e}", path.display())))?;
            (self.seen, self.trouble) = (Store::stamp(path), None);
        }
        self.book = book;
        Ok(())
    }
}

fn dir_of(path: &Path) -> String {
    path.parent().unwrap_or(Path::new(".")).display().to_string()
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
        state::replace(&dir.path().join(FILE), b"{").unwrap();
        assert_eq!(ours.fresh().role("ada"), Some(Role::Admin));
        assert!(ours.trouble().is_some());
        assert!(ours.add("bob", Role::Admin, String::new()).is_err(), "what cannot be read is not written over");
        assert!(Store::open(Some(dir.path())).is_err());
    }

    #[test]
    fn a_gateway_starts_whatever_has_become_of_its_users_and_nobody_becomes_an_admin_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut theirs = Store::open(Some(dir.path())).unwrap();
        theirs.add("ada", Role::Admin, hash("correct horse").unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut ours = Store::start(Some(dir.path()));
        assert_eq!((ours.fresh().role("ada"), ours.trouble().is_some()), (None, true));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!((ours.fresh().role("ada"), ours.trouble()), (Some(Role::Admin), None), "mended while it runs");

        for text in ["", "{", "\u{1}", "{\"users\": [], \"newer\": 1}"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let ours = Store::start(Some(dir.path()));
            assert!(ours.trouble().is_some_and(|t| t.contains("edge-agent user add")), "{text}: {:?}", ours.trouble());
            assert_eq!(std::fs::read_to_string(state::aside_of(&path).unwrap()).unwrap(), text);
            assert!(Store::start(Some(dir.path())).trouble().is_some(), "the next start knows of it too");
        }
        let mut again = Store::start(Some(dir.path()));
        let mut theirs = Store::open(Some(dir.path())).unwrap();
        theirs.add("ada", Role::Admin, hash("correct horse").unwrap()).unwrap();
        assert_eq!((again.fresh().role("ada"), again.trouble()), (Some(Role::Admin), None));
        assert_eq!(Store::start(Some(dir.path())).trouble(), None);
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
