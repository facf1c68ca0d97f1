//! Who may do what. Reading is open to this machine, changing anything needs a role, and there is no default password.
//!
//! ```text
//!   no users yet ──start──> one-time token in the log ──setup──> the first admin
//!   name + password ──login──> session token (cookie or bearer; forgotten after a while)  ┐
//!   API token, made once and shown once ──────────────────────────────────────────────────┼──> Who { name, role }
//!   nobody ──from this machine: `loopback`, from elsewhere: `remote`──────────────────────┘
//!
//!   viewer < operator < engineer < admin       each may do what those before it may
//! ```
//!
//! Users live in `users.json` in the state folder (0600, replaced whole, never in part); passwords as Argon2id, API tokens as SHA-256 of
//! 256 random bits. Without a state folder everything is forgotten at the end of the process.

pub mod audit;
mod store;

pub use audit::{Audit, Entry};
pub use store::{Store, StoreError, User};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Sessions at once; the oldest goes first.
const SESSIONS_MAX: usize = 1000;
/// Wrong passwords for one name before it has to wait.
const MISSES_MAX: u32 = 5;
/// And for how long.
const MISSES_PAUSE: Duration = Duration::from_secs(30);
/// Names whose misses are remembered; a stranger who tries ever new names gains nothing by it.
const MISSES_NAMES: usize = 1000;
/// Password checks under way: each takes some megabytes and tens of milliseconds on purpose.
const CHECKS_AT_ONCE: usize = 1;

/// What somebody may do; each may do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Gives orders, acknowledges and shelves alarms, writes tags that may be written.
    Operator,
    /// Trusts certificates, reloads the configuration.
    Engineer,
    /// Makes users and tokens, reads the audit record.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Engineer, Role::Admin];

    /// Its name in configuration and API.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Engineer => "engineer",
            Role::Admin => "admin",
        }
    }

    /// The role of a name.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// What the configuration says about access.
#[derive(Clone, Debug)]
pub struct AccessPlan {
    /// Role of those on this machine who have not signed in.
    pub loopback: Option<Role>,
    /// Role of those elsewhere who have not signed in.
    pub remote: Option<Role>,
    /// A session that is not used for this long is forgotten.
    pub session: Duration,
    /// Where users and the audit record are kept; `None`: in memory.
    pub dir: Option<PathBuf>,
}

/// Somebody, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Name of the user or token; `anonymous` for who has not signed in.
    pub name: Arc<str>,
    /// What they may do; `None`: nothing.
    pub role: Option<Role>,
    /// Whether they have signed in.
    pub signed_in: bool,
    /// Where they are.
    pub from: IpAddr,
}

/// What a request brings along.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// `Authorization: Bearer ..`
    pub bearer: Option<&'a str>,
    /// The session cookie.
    pub cookie: Option<&'a str>,
    /// Where the connection comes from.
    pub from: IpAddr,
    /// A proxy has passed it on: it is not from this machine, whatever the connection says.
    pub proxied: bool,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The token is not, or no longer, known.
    BadToken,
    /// Name or password is wrong; which of them is not said.
    BadPassword,
    /// Too many wrong passwords.
    Wait,
    /// Too many are being checked.
    Busy,
    /// The one-time token is wrong, or has been used.
    BadFirst,
}

struct Session {
    name: Arc<str>,
    used: Instant,
}

/// The doorkeeper.
pub struct Access {
    plan: AccessPlan,
    store: Mutex<Store>,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
    misses: Mutex<HashMap<String, (u32, Instant)>>,
    checks: Semaphore,
    first: Mutex<Option<[u8; 32]>>,
    /// What was changed, by whom.
    pub audit: Audit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is kept of a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 256 bits nobody can guess, as text.
pub(crate) fn secret() -> Result<String, String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system gives no random numbers: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Access {
    /// Opens the users of a gateway. With nobody in it, returns the one-time token that makes the first admin.
    pub fn open(plan: AccessPlan) -> Result<(Arc<Access>, Option<String>), String> {
        let store = Store::open(plan.dir.as_deref()).map_err(|e| e.to_string())?;
        Access::with(plan, store)
    }

    /// The same for a gateway that starts: users that cannot be read cannot sign in, and nobody becomes the first admin by that.
    pub fn start(plan: AccessPlan) -> Result<(Arc<Access>, Option<String>), String> {
        let store = Store::start(plan.dir.as_deref());
        Access::with(plan, store)
    }

    fn with(plan: AccessPlan, store: Store) -> Result<(Arc<Access>, Option<String>), String> {
        let is_new = store.users().is_empty() && store.trouble().is_none();
        let first = if is_new { Some(secret()?) } else { None };
        let audit = Audit::open(plan.dir.as_deref());
        let access = Access {
            plan,
            store: Mutex::new(store),
            sessions: Mutex::default(),
            misses: Mutex::default(),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            first: Mutex::new(first.as_deref().map(digest)),
            audit,
        };
        Ok((Arc::new(access), first))
    }

    /// Why nobody can sign in, if something is wrong with the users.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.store).fresh().trouble().map(String::from)
    }

    /// What the configuration says.
    pub fn plan(&self) -> &AccessPlan {
        &self.plan
    }

    /// Who somebody is. A token that is wrong is an error; a cookie that has gone stale is not.
    pub fn who(&self, shown: Shown<'_>) -> Result<Who, Denied> {
        if let Some(token) = shown.bearer {
            let known = self.session(token).or_else(|| lock(&self.store).fresh().token(&digest(token)));
            let (name, role) = known.ok_or(Denied::BadToken)?;
            return Ok(Who { name, role: Some(role), signed_in: true, from: shown.from });
        }
        if let Some((name, role)) = shown.cookie.and_then(|token| self.session(token)) {
            return Ok(Who { name, role: Some(role), signed_in: true, from: shown.from });
        }
        let here = shown.from.to_canonical().is_loopback() && !shown.proxied;
        let role = if here { self.plan.loopback } else { self.plan.remote };
        Ok(Who { name: "anonymous".into(), role, signed_in: false, from: shown.from })
    }

    /// The session of a token, with the role its user has now.
    fn session(&self, token: &str) -> Option<(Arc<str>, Role)> {
        let key = digest(token);
        let mut sessions = lock(&self.sessions);
        let session = sessions.get_mut(&key)?;
        if session.used.elapsed() > self.plan.session {
            sessions.remove(&key);
            return None;
        }
        session.used = Instant::now();
        let name = session.name.clone();
        drop(sessions);
        let role = lock(&self.store).fresh().role(&name)?;
        Some((name, role))
    }

    /// Checks a password; the answer is a session token.
    pub async fn login(&self, name: &str, password: String) -> Result<(String, Role), Denied> {
        self.not_too_often(name)?;
        let Ok(Ok(_turn)) = tokio::time::timeout(Duration::from_secs(5), self.checks.acquire()).await else {
            return Err(Denied::Busy);
        };
        let known = lock(&self.store).fresh().user(name).map(|u| (u.hash.clone(), u.role));
        let (hash, role) = known.map_or((None, None), |(hash, role)| (Some(hash), Some(role)));
        // Somebody who does not exist is checked as long as somebody who does.
        let right = tokio::task::spawn_blocking(move || store::verify(hash.as_deref(), &password)).await;
        let (Ok(true), Some(role)) = (right, role) else {
            self.missed(name);
            return Err(Denied::BadPassword);
        };
        lock(&self.misses).remove(name);
        self.enter(name.into(), role).ok_or(Denied::Busy)
    }

    fn enter(&self, name: Arc<str>, role: Role) -> Option<(String, Role)> {
        let token = secret().ok()?;
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.used).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(digest(&token), Session { name, used: Instant::now() });
        Some((token, role))
    }

    fn not_too_often(&self, name: &str) -> Result<(), Denied> {
        match lock(&self.misses).get(name) {
            Some((count, last)) if *count >= MISSES_MAX && last.elapsed() < MISSES_PAUSE => Err(Denied::Wait),
            _ => Ok(()),
        }
    }

    fn missed(&self, name: &str) {
        let mut misses = lock(&self.misses);
        if misses.len() >= MISSES_NAMES {
            misses.retain(|_, (_, last)| last.elapsed() < MISSES_PAUSE);
            if misses.len() >= MISSES_NAMES {
                misses.clear();
            }
        }
        let entry = misses.entry(name.chars().take(64).collect()).or_insert((0, Instant::now()));
        *entry = (entry.0 + 1, Instant::now());
    }

    /// Forgets a session.
    pub fn logout(&self, token: &str) {
        lock(&self.sessions).remove(&digest(token));
    }

    /// Makes the first admin, once, against the token from the log.
    pub async fn setup(&self, token: &str, name: &str, password: String) -> Result<String, SetupError> {
        if *lock(&self.first) != Some(digest(token)) {
            return Err(SetupError::Denied(Denied::BadFirst));
        }
        self.add_user(name, Role::Admin, password).await.map_err(SetupError::Store)?;
        *lock(&self.first) = None;
        self.enter(name.into(), Role::Admin).map(|(token, _)| token).ok_or(SetupError::Denied(Denied::Busy))
    }

    /// Whether the first admin has still to be made.
    pub fn needs_setup(&self) -> bool {
        lock(&self.first).is_some() && lock(&self.store).fresh().users().is_empty()
    }

    /// Makes a user.
    pub async fn add_user(&self, name: &str, role: Role, password: String) -> Result<(), StoreError> {
        let hash = tokio::task::spawn_blocking(move || store::hash(&password));
        let hash = hash.await.map_err(|e| StoreError::Other(e.to_string()))??;
        lock(&self.store).fresh().add(name, role, hash)
    }

    /// Takes a user away, and its sessions with it.
    pub fn remove_user(&self, name: &str) -> Result<(), StoreError> {
        lock(&self.store).fresh().remove(name)?;
        lock(&self.sessions).retain(|_, s| &*s.name != name);
        Ok(())
    }

    /// Makes an API token; it is shown this once.
    pub fn add_token(&self, name: &str, role: Role) -> Result<String, StoreError> {
        let token = secret().map_err(StoreError::Other)?;
        lock(&self.store).fresh().add_token(name, role, &token)?;
        Ok(token)
    }

    /// All users and tokens: name, role, whether it is a token, since when.
    pub fn list(&self) -> Vec<(String, Role, bool, String)> {
        lock(&self.store).fresh().list()
    }
}

/// Why there is no first admin.
#[derive(Debug)]
pub enum SetupError {
    /// The token is wrong.
    Denied(Denied),
    /// Name or password cannot be taken.
    Store(StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dir: Option<PathBuf>) -> AccessPlan {
        AccessPlan { loopback: Some(Role::Viewer), remote: None, session: Duration::from_secs(3600), dir }
    }

    fn shown<'a>(bearer: Option<&'a str>, cookie: Option<&'a str>, from: &str) -> Shown<'a> {
        Shown { bearer, cookie, from: from.parse().unwrap(), proxied: false }
    }

    #[tokio::test]
    async fn the_first_admin_needs_the_token_and_the_token_works_once() {
        let (access, first) = Access::open(plan(None)).unwrap();
        let first = first.expect("nobody is in it yet");
        let wrong = access.setup("0000", "ada", "correct horse".into()).await;
        assert!(matches!(wrong, Err(SetupError::Denied(Denied::BadFirst))));
        let session = access.setup(&first, "ada", "correct horse".into()).await.unwrap();
        let again = access.setup(&first, "eve", "correct horse".into()).await;
        assert!(matches!(again, Err(SetupError::Denied(Denied::BadFirst))));
        let who = access.who(shown(Some(&session), None, "10.0.0.9")).unwrap();
        assert_eq!((&*who.name, who.role), ("ada", Some(Role::Admin)));
        access.logout(&session);
        assert_eq!(access.who(shown(Some(&session), None, "10.0.0.9")), Err(Denied::BadToken));
    }

    #[tokio::test]
    async fn a_name_is_locked_for_a_while_after_five_wrong_passwords_and_strangers_learn_nothing() {
        let (access, _) = Access::open(plan(None)).unwrap();
        access.add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
        for name in ["ada", "nobody"] {
            for _ in 0..MISSES_MAX {
                assert_eq!(access.login(name, "wrong".into()).await, Err(Denied::BadPassword));
            }
            assert_eq!(access.login(name, "correct horse".into()).await, Err(Denied::Wait));
        }
    }

    #[test]
    fn who_has_not_signed_in_gets_what_the_configuration_gives_to_where_they_are() {
        let (access, _) = Access::open(plan(None)).unwrap();
        let role =
            |from: &str, proxied| access.who(Shown { proxied, ..shown(None, Some("stale"), from) }).unwrap().role;
        assert_eq!(role("127.0.0.1", false), Some(Role::Viewer));
        assert_eq!(role("::ffff:127.0.0.1", false), Some(Role::Viewer));
        assert_eq!(role("192.168.1.7", false), None);
        assert_eq!(role("127.0.0.1", true), None, "what a proxy passes on is not from here");
    }

    #[tokio::test]
    async fn users_and_tokens_outlive_a_run_and_a_removed_user_is_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (access, _) = Access::open(plan(Some(dir.path().into()))).unwrap();
        access.add_user("ada", Role::Engineer, "correct horse".into()).await.unwrap();
        let token = access.add_token("prometheus", Role::Viewer).unwrap();
        drop(access);

        let (access, first) = Access::open(plan(Some(dir.path().into()))).unwrap();
        assert_eq!(first, None, "there is somebody: no one-time token");
        let who = access.who(shown(Some(&token), None, "10.0.0.9")).unwrap();
        assert_eq!((&*who.name, who.role), ("prometheus", Some(Role::Viewer)));
        let (session, role) = access.login("ada", "correct horse".into()).await.unwrap();
        assert_eq!(role, Role::Engineer);
        assert!(access.who(shown(None, Some(&session), "10.0.0.9")).unwrap().signed_in);
        access.remove_user("ada").unwrap();
        assert!(!access.who(shown(None, Some(&session), "10.0.0.9")).unwrap().signed_in);
        let kept = std::fs::read_to_string(dir.path().join("users.json")).unwrap();
        assert!(!kept.contains(&token) && !kept.contains("correct horse"));
    }
}
