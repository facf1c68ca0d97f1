//! Password work: Argon2id, one at a time, in memory that is asked for once.
//!
//! ```text
//!   sign in, set up, add a user ──turn()──> Turn ──run()──> a thread that may take its time
//!        │ more than TURNS_EACH of one place at once: busy          └── in the one buffer; the turn ends with the work, not with who asked
//! ```

use super::neighbour::Neighbour;
use super::store::StoreError;
use super::{Denied, lock};
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shortest and longest password (NIST SP 800-63B: at least 8, and nothing about special characters).
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=256;
/// Argon2id with 7 MiB and five passes: as hard as 19 MiB and two (OWASP Password Storage), and a gateway has less memory than time.
const COST: (u32, u32, u32) = (7 * 1024, 5, 1);
/// Blocks of 1 KiB that a hash from elsewhere may want.
const BLOCKS_MAX: usize = 64 * 1024;
/// Done at once: one is enough for people, and another would be another buffer.
const AT_ONCE: usize = 1;
/// Of one place, waiting or under way.
const TURNS_EACH: usize = 3;
/// Bytes of a salt (RFC 9106, 3.1).
const SALT: usize = 16;

/// The memory that passwords are worked in.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

/// Who may work, and where.
pub(super) struct Work {
    turns: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
    waiting: Arc<Mutex<HashMap<Neighbour, usize>>>,
}

impl Default for Work {
    fn default() -> Work {
        Work { turns: Arc::new(Semaphore::new(AT_ONCE)), memory: Arc::default(), waiting: Arc::default() }
    }
}

/// One of a place's turns; given back when it goes.
struct Share(Arc<Mutex<HashMap<Neighbour, usize>>>, Neighbour);

impl Drop for Share {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0);
        match waiting.get_mut(&self.1) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                waiting.remove(&self.1);
            }
        }
    }
}

/// The right to work.
pub(super) struct Turn {
    memory: Arc<Mutex<Memory>>,
    /// Given back in this order: who gets the turn next finds the share free.
    held: (Option<Share>, OwnedSemaphorePermit),
}

impl Work {
    /// Waits for a turn. A place that has its share of them already is told so at once; without a place there is no share.
    pub(super) async fn turn(&self, from: Option<Neighbour>) -> Result<Turn, Denied> {
        let share = match from {
            Some(from) => Some(self.share(from).ok_or(Denied::Busy)?),
            None => None,
        };
        let permit = self.turns.clone().acquire_owned().await.map_err(|_| Denied::Busy)?;
        Ok(Turn { memory: self.memory.clone(), held: (share, permit) })
    }

    fn share(&self, from: Neighbour) -> Option<Share> {
        let mut waiting = lock(&self.waiting);
        let n = waiting.entry(from).or_default();
        (*n < TURNS_EACH).then(|| {
            *n += 1;
            Share(self.waiting.clone(), from)
        })
    }
}

impl Turn {
    /// Does it on a thread of its own. It is done, and holds the turn, even if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, String> {
        let done = tokio::task::spawn_blocking(move || {
            let _held = self.held;
            work(&mut lock(&self.memory))
        });
        done.await.map_err(|e| e.to_string())
    }
}

impl Memory {
    fn fill(&mut self, argon: &Argon2<'_>, password: &str, salt: &[u8], out: &mut [u8]) -> Result<(), String> {
        let needed = argon.params().block_count();
        if needed > BLOCKS_MAX {
            return Err(format!("it wants {needed} KiB of memory, and there are {BLOCKS_MAX} at most"));
        }
        if self.0.len() < needed {
            self.0 = vec![Block::new(); needed]; // the old ones go first, or there would be both
        }
        let blocks = self.0.get_mut(..needed).unwrap_or_default();
        argon.hash_password_into_with_memory(password.as_bytes(), salt, out, blocks).map_err(|e| e.to_string())
    }

    /// Hashes a password, as a PHC string.
    pub(super) fn hash(&mut self, password: &str) -> Result<String, StoreError> {
        if !PASSWORD.contains(&password.chars().count()) {
            let text = format!("a password has {} to {} characters", PASSWORD.start(), PASSWORD.end());
            return Err(StoreError::Invalid(text));
        }
        let other = |e: &dyn std::fmt::Display| StoreError::Other(e.to_string());
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|e| other(&e))?;
        let (argon, mut out) = (hasher(), [0; Params::DEFAULT_OUTPUT_LEN]);
        self.fill(&argon, password, &salt, &mut out).map_err(|e| other(&e))?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(argon.params()).map_err(|e| other(&e))?,
            salt: Some(Salt::new(&salt).map_err(|e| other(&e))?),
            hash: Some(Output::new(&out).map_err(|e| other(&e))?),
        };
        Ok(hash.to_string())
    }

    /// Whether a password is the one of a hash. Without a hash the answer is no, and takes as long.
    pub(super) fn verify(&mut self, hash: Option<&str>, password: &str) -> bool {
        let password = if password.chars().count() > *PASSWORD.end() { "" } else { password };
        let Some(hash) = hash else {
            let _ = self.fill(&hasher(), password, &[0; SALT], &mut [0; Params::DEFAULT_OUTPUT_LEN]);
            return false;
        };
        self.matches(hash, password).unwrap_or(false)
    }

    fn matches(&mut self, hash: &str, password: &str) -> Option<bool> {
        let parsed = PasswordHash::new(hash).ok()?;
        let (salt, expected) = (parsed.salt?, parsed.hash?);
        let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
        let version = parsed.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?;
        let argon = Argon2::new(algorithm, version, Params::try_from(&parsed).ok()?);
        let mut out = [0; Output::MAX_LENGTH];
        let out = out.get_mut(..expected.len())?;
        self.fill(&argon, password, &salt, out).ok()?;
        Some(Output::new(out).ok()? == expected) // compares in constant time
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(COST.0, COST.1, COST.2, None).unwrap_or(Params::DEFAULT);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHasher, PasswordVerifier};

    #[test]
    fn hashes_are_those_of_the_library_both_ways() {
        let mut memory = Memory::default();
        let ours = memory.hash("correct horse").unwrap();
        assert!(hasher().verify_password(b"correct horse", &PasswordHash::new(&ours).unwrap()).is_ok(), "{ours}");
        let theirs = hasher().hash_password(b"correct horse").unwrap().to_string();
        for hash in [&ours, &theirs] {
            assert!(memory.verify(Some(hash), "correct horse") && !memory.verify(Some(hash), "wrong horse"), "{hash}");
        }
        // A file from elsewhere, with other costs.
        let params = Params::new(16 * 1024, 1, 1, None).unwrap();
        let other = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let other = other.hash_password(b"correct horse").unwrap().to_string();
        assert!(memory.verify(Some(&other), "correct horse") && memory.verify(Some(&ours), "correct horse"));
        let hungry = other.replace("m=16384", "m=4000000");
        assert!(!memory.verify(Some(&hungry), "correct horse") && memory.0.len() <= BLOCKS_MAX);
        assert!(!memory.verify(None, "correct horse") && !memory.verify(Some("x"), "correct horse"));
        assert!(matches!(memory.hash("1234567"), Err(StoreError::Invalid(_))));
    }

    fn is_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    /// What is answered without waiting for anybody.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_place_has_its_share_of_turns_and_the_work_of_who_has_left_still_counts() {
        let (work, a, b) = (Work::default(), [10, 0, 0, 1], [10, 0, 0, 2]);
        let of = |ip: [u8; 4]| Some(Neighbour::from(std::net::IpAddr::from(ip)));
        let first = work.turn(of(a)).await.unwrap();
        let mut others: Vec<_> = (1..TURNS_EACH).map(|_| Box::pin(work.turn(of(a)))).collect();
        assert!(others.iter_mut().all(|waiting| is_pending(waiting.as_mut())));
        assert!(at_once(work.turn(of(a))).is_some_and(|turn| turn.err() == Some(Denied::Busy)), "one too many");
        let mut somebody_else = Box::pin(work.turn(of(b)));
        assert!(is_pending(somebody_else.as_mut()), "waits, and is not sent away");

        let (go, wait) = std::sync::mpsc::channel::<()>();
        let left = first.run(move |_| wait.recv().is_ok());
        let mut left = Box::pin(left);
        assert!(is_pending(left.as_mut()));
        drop(left);
        assert_eq!(work.turns.available_permits(), 0, "the work goes on");
        drop(others);
        go.send(()).unwrap();
        drop(somebody_else.await.unwrap());
        assert!(lock(&work.waiting).is_empty());
    }
}
