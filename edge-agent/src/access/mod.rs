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

mod misses;
mod neighbour;
mod password;
mod store;

pub(crate) use neighbour::Neighbour;
pub use store::{Store, StoreError, User};

use crate::audit::Audit;
use misses::Misses;
use password::{Turn, Work};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sessions at once; the oldest goes first.
const SESSIONS_MAX: usize = 1000;
/// How long somebody who signs in waits for the turn of their password.
const TURN_LIMIT: Duration = Duration::from_secs(5);

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
    /// Nothing is changed while the audit record cannot be written.
    pub audit_is_required: bool,
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
    /// Where they are.
    pub from: IpAddr,
    /// Whether that is this machine beyond doubt.
    pub is_here: bool,
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
    /// The file of the users cannot be read: nobody can sign in.
    NobodyKnown,
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
    misses: Mutex<Misses>,
    work: Work,
    first: Mutex<Option<[u8; 32]>>,
    /// Users and tokens as they were when somebody last looked.
    known: Mutex<BTreeSet<String>>,
    /// What was changed, by whom.
    pub audit: Arc<Audit>,
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
        Access::with(plan, store, Arc::default())
    }

    /// The same for a gateway that starts: users that cannot be read cannot sign in, and nobody becomes the first admin by that.
    pub fn start(plan: AccessPlan, audit: Arc<Audit>) -> Result<(Arc<Access>, Option<String>), String> {
        let store = Store::start(plan.dir.as_deref());
        Access::with(plan, store, audit)
    }

    fn with(plan: AccessPlan, store: Store, audit: Arc<Audit>) -> Result<(Arc<Access>, Option<String>), String> {
        let is_new = store.users().is_empty() && store.trouble().is_none();
        let first = if is_new { Some(secret()?) } else { None };
        let access = Access {
            plan,
            store: Mutex::new(store),
            sessions: Mutex::default(),
            misses: Mutex::default(),
            work: Work::default(),
            first: Mutex::new(first.as_deref().map(digest)),
            known: Mutex::default(),
            audit,
        };
        access.know();
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

    /// How many wrong passwords there were within five minutes.
    pub fn missed_lately(&self) -> u32 {
        lock(&self.misses).lately(Instant::now())
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
        let role = if shown.is_here { self.plan.loopback } else { self.plan.remote };
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

    /// Checks a password; the answer is a session token. Waits for its turn, and for some tens of milliseconds of work.
    pub async fn login(&self, from: IpAddr, name: &str, password: String) -> Result<(String, Role), Denied> {
        let place = Neighbour::from(from);
        if lock(&self.misses).must_wait(place, name, Instant::now()) {
            return Err(Denied::Wait);
        }
        let is_here = from.to_canonical().is_loopback();
        let wait = lock(&self.misses).delay(place, is_here, name, Instant::now()).ok_or(Denied::Wait)?;
        tokio::time::sleep(wait).await;
        let turn = self.turn_soon(place).await?;
        let known = {
            let mut store = lock(&self.store);
            let store = store.fresh();
            if store.users().is_empty() && store.trouble().is_some() {
                return Err(Denied::NobodyKnown);
            }
            store.user(name).map(|u| (u.hash.clone(), u.role))
        };
        let (hash, role) = known.map_or((None, None), |(hash, role)| (Some(hash), Some(role)));
        // Somebody who does not exist is checked as long as somebody who does.
        let right = turn.run(move |memory| memory.verify(hash.as_deref(), &password)).await;
        let (Ok(true), Some(role)) = (right, role) else {
            lock(&self.misses).missed(place, name, Instant::now());
            return Err(Denied::BadPassword);
        };
        lock(&self.misses).right(place, name);
        self.enter(name.into(), role).ok_or(Denied::Busy)
    }

    async fn turn_soon(&self, place: Neighbour) -> Result<Turn, Denied> {
        tokio::time::timeout(TURN_LIMIT, self.work.turn(Some(place))).await.unwrap_or(Err(Denied::Busy))
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

    /// Forgets a session.
    pub fn logout(&self, token: &str) {
        lock(&self.sessions).remove(&digest(token));
    }

    /// Makes the first admin, once, against the token from the log: of many who come with it at the same time, one.
    pub async fn setup(&self, from: IpAddr, token: &str, name: &str, password: String) -> Result<String, SetupError> {
        let bad = || SetupError::Denied(Denied::BadFirst);
        if *lock(&self.first) != Some(digest(token)) {
            return Err(bad());
        }
        let turn = self.turn_soon(from.into()).await.map_err(SetupError::Denied)?;
        let hash = hashed(turn, password).await.map_err(SetupError::Store)?;
        let mut first = lock(&self.first);
        if *first != Some(digest(token)) {
            return Err(bad()); // somebody was quicker
        }
        lock(&self.store).fresh().add(name, Role::Admin, hash).map_err(SetupError::Store)?;
        *first = None;
        drop(first);
        self.know();
        self.enter(name.into(), Role::Admin).map(|(token, _)| token).ok_or(SetupError::Denied(Denied::Busy))
    }

    /// Users and tokens in words: the name, the role, and which of both.
    fn named(&self) -> BTreeSet<String> {
        let kind = |token| if token { ", token" } else { "" };
        self.list()
            .into_iter()
            .map(|(name, role, token, _)| format!("{name}, {}{}", role.name(), kind(token)))
            .collect()
    }

    /// What there is now was changed by us.
    fn know(&self) {
        *lock(&self.known) = self.named();
    }

    /// Notes who was added and removed beside this process, by `edge-agent user`, and sums up who was refused. To be called now and then.
    pub fn look(&self) {
        self.audit.tend(Instant::now());
        let now = self.named();
        let before = std::mem::replace(&mut *lock(&self.known), now.clone());
        now.difference(&before).for_each(|user| self.audit.note_outside("user.add", user));
        before.difference(&now).for_each(|user| self.audit.note_outside("user.remove", user));
    }

    /// Whether the first admin has still to be made.
    pub fn needs_setup(&self) -> bool {
        lock(&self.first).is_some() && lock(&self.store).fresh().users().is_empty()
    }

    /// Makes a user.
    pub async fn add_user(&self, name: &str, role: Role, password: String) -> Result<(), StoreError> {
        let turn = self.work.turn(None).await.map_err(|_| StoreError::Other("no password can be hashed".into()))?;
        let hash = hashed(turn, password).await?;
        let done = lock(&self.store).fresh().add(name, role, hash);
        self.know();
        done
    }

    /// Takes a user away, and its sessions with it.
    pub fn remove_user(&self, name: &str) -> Result<(), StoreError> {
        lock(&self.store).fresh().remove(name)?;
        self.know();
        lock(&self.sessions).retain(|_, s| &*s.name != name);
        lock(&self.misses).removed(name);
        Ok(())
    }

    /// Makes an API token; it is shown this once.
    pub fn add_token(&self, name: &str, role: Role) -> Result<String, StoreError> {
        let token = secret().map_err(StoreError::Other)?;
        lock(&self.store).fresh().add_token(name, role, &token)?;
        self.know();
        Ok(token)
    }

    /// All users and tokens: name, role, whether it is a token, since when.
    pub fn list(&self) -> Vec<(String, Role, bool, String)> {
        lock(&self.store).fresh().list()
    }
}

async fn hashed(turn: Turn, password: String) -> Result<String, StoreError> {
    turn.run(move |memory| memory.hash(&password)).await.map_err(StoreError::Other)?
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

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 7));

    fn plan(dir: Option<PathBuf>) -> AccessPlan {
        AccessPlan {
            loopback: Some(Role::Viewer),
            remote: None,
            session: Duration::from_secs(3600),
            dir,
            audit_is_required: false,
        }
    }

    fn shown<'a>(bearer: Option<&'a str>, cookie: Option<&'a str>, from: &str) -> Shown<'a> {
        Shown { bearer, cookie, from: from.parse().unwrap(), is_here: false }
    }

    #[tokio::test]
    async fn the_first_admin_needs_the_token_and_the_token_works_once() {
        let (access, first) = Access::open(plan(None)).unwrap();
        let first = first.expect("nobody is in it yet");
        let wrong = access.setup(HERE, "0000", "ada", "correct horse".into()).await;
        assert!(matches!(wrong, Err(SetupError::Denied(Denied::BadFirst))));
        let session = access.setup(HERE, &first, "ada", "correct horse".into()).await.unwrap();
        let again = access.setup(HERE, &first, "eve", "correct horse".into()).await;
        assert!(matches!(again, Err(SetupError::Denied(Denied::BadFirst))));
        let who = access.who(shown(Some(&session), None, "10.0.0.9")).unwrap();
        assert_eq!((&*who.name, who.role), ("ada", Some(Role::Admin)));
        access.logout(&session);
        assert_eq!(access.who(shown(Some(&session), None, "10.0.0.9")), Err(Denied::BadToken));
    }

    #[tokio::test]
    async fn five_wrong_passwords_lock_the_stranger_out_and_not_the_owner_who_is_somewhere_else() {
        let (access, _) = Access::open(plan(None)).unwrap();
        access.add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
        for name in ["ada", "nobody"] {
            for _ in 0..misses::NAME_MISSES_MAX {
                assert_eq!(access.login(THERE, name, "wrong".into()).await, Err(Denied::BadPassword));
            }
            assert_eq!(access.login(THERE, name, "correct horse".into()).await, Err(Denied::Wait));
        }
        assert!(access.login(HERE, "ada", "correct horse".into()).await.is_ok());
        assert_eq!(access.login(THERE, "ada", "correct horse".into()).await, Err(Denied::Wait));
    }

    #[tokio::test]
    async fn the_right_password_gets_in_whatever_others_guess_for_the_name_and_late_only_from_a_place_it_never_came_from()
     {
        let (access, _) = Access::open(plan(None)).unwrap();
        access.add_user("ada", Role::Operator, "correct horse".into()).await.unwrap();
        assert!(access.login(THERE, "ada", "correct horse".into()).await.is_ok());
        for n in 0..=misses::FREE {
            let from = IpAddr::from([10, 0, 0, n as u8]);
            assert_eq!(access.login(from, "ada", "wrong".into()).await, Err(Denied::BadPassword));
        }
        assert_eq!(access.missed_lately(), misses::FREE + 1);
        let delay = |from| lock(&access.misses).delay(Neighbour::from(from), false, "ada", Instant::now());
        assert_eq!(delay(THERE), Some(Duration::ZERO));
        let begun = Instant::now();
        assert!(access.login([10, 0, 1, 1].into(), "ada", "correct horse".into()).await.is_ok());
        assert!(begun.elapsed() >= misses::GAP, "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_one_time_token_used_six_times_at_once_makes_one_admin_and_a_mistake_does_not_use_it_up() {
        let (access, first) = Access::open(plan(None)).unwrap();
        let first = first.expect("nobody is in it yet");
        let short = access.setup(HERE, &first, "ada", "short".into()).await;
        assert!(matches!(short, Err(SetupError::Store(StoreError::Invalid(_)))), "{short:?}");
        let at_once = (1..=6u8).map(|n| {
            let (access, first) = (access.clone(), first.clone());
            let from = IpAddr::from([10, 0, 0, n]);
            tokio::spawn(async move { access.setup(from, &first, &format!("admin-{n}"), "correct horse".into()).await })
        });
        let mut made = 0;
        for one in at_once.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(_) => made += 1,
                Err(why) => assert!(matches!(why, SetupError::Denied(Denied::BadFirst)), "{why:?}"),
            }
        }
        assert_eq!((made, access.list().len()), (1, 1));
    }

    #[test]
    fn who_has_not_signed_in_gets_what_the_configuration_gives_to_where_they_are() {
        let (access, _) = Access::open(plan(None)).unwrap();
        let role =
            |from: &str, is_here| access.who(Shown { is_here, ..shown(None, Some("stale"), from) }).unwrap().role;
        assert_eq!(role("127.0.0.1", true), Some(Role::Viewer));
        assert_eq!(role("192.168.1.7", false), None);
        assert_eq!(role("127.0.0.1", false), None, "what a proxy passes on is not from here");
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
        let (session, role) = access.login(HERE, "ada", "correct horse".into()).await.unwrap();
        assert_eq!(role, Role::Engineer);
        assert!(access.who(shown(None, Some(&session), "10.0.0.9")).unwrap().signed_in);
        access.remove_user("ada").unwrap();
        assert!(!access.who(shown(None, Some(&session), "10.0.0.9")).unwrap().signed_in);
        let kept = std::fs::read_to_string(dir.path().join("users.json")).unwrap();
        assert!(!kept.contains(&token) && !kept.contains("correct horse"));
    }
}
