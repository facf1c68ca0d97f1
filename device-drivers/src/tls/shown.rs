//! Certificates that peers have shown, the newest of each: they run out as ours do, and nobody here can renew them.

use super::Certificate;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Peers that are remembered; a gateway has some dozens.
const PEERS_MAX: usize = 1000;

static SHOWN: Mutex<BTreeMap<String, Certificate>> = Mutex::new(BTreeMap::new());

fn shown() -> MutexGuard<'static, BTreeMap<String, Certificate>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what a peer at `host:port` shows, its own certificate first: of the chain the one that runs out first.
pub fn note<'a>(peer: &str, chain: impl IntoIterator<Item = &'a [u8]>) {
    let all = chain.into_iter().filter_map(|der| Certificate::from_der(der).ok());
    let Some(first) = all.min_by_key(|c| c.until_s) else { return };
    let (mut shown, peer) = (shown(), bare(peer));
    if shown.len() < PEERS_MAX || shown.contains_key(&peer) {
        shown.insert(peer, first);
    }
}

/// What `host:port` has shown last.
pub fn of(peer: &str) -> Option<Certificate> {
    shown().get(&bare(peer)).cloned()
}

/// An address of IPv6 with and without its brackets is the same.
fn bare(peer: &str) -> String {
    peer.replace(['[', ']'], "")
}
