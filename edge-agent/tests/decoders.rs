//! The fuzzers' doors on stable, for a bounded number of inputs: the corpus as it is, and what becomes of it when bits flip, pieces go, come
//! twice, or are put together. The same inputs each time; `LIGHTSOUT_FUZZ=100000` makes more of them, `cargo +nightly fuzz` goes on for longer.

use edge_agent::fuzzing;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Inputs made of a corpus.
const INPUTS: usize = 1500;
/// Longest input: beyond, nothing new is found.
const LENGTH_MAX: usize = 4096;
/// Bytes that mean something to one or the other: lengths, types, ends of strings and lines.
const TELLING: &[u8] = b"\0\x01\x02\x7f\x80\x81\xfe\xff\x20\x30\x32\x40\x90\xd0\xe0\"\\{}[],:=#\n\r\t;.0129-";

fn corpus(door: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).expect("a corpus").map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{} holds too little", dir.display());
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

/// One of the corpus, changed in a few places.
fn mutated(corpus: &[Vec<u8>], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(0..=bytes.len());
        let end = (at + rng.usize(0..16)).min(bytes.len());
        match rng.u8(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            1 if at < bytes.len() => bytes[at] = *rng.choice(TELLING).unwrap(),
            2 => bytes.insert(at, *rng.choice(TELLING).unwrap()),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
            5 => bytes.truncate(at),
            6 => {
                let other = rng.choice(corpus).unwrap();
                let from = rng.usize(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => bytes.push(rng.u8(..)),
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn try_door(door: &str, open: fn(&[u8])) {
    let corpus = corpus(door);
    let count = std::env::var("LIGHTSOUT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(INPUTS);
    let mut rng = fastrand::Rng::with_seed(11);
    let made = std::iter::repeat_with(|| mutated(&corpus, &mut rng)).take(count).collect::<Vec<_>>();
    for input in corpus.iter().chain(&made) {
        let done = catch_unwind(AssertUnwindSafe(|| open(input)));
        assert!(done.is_ok(), "{door} did not stand {} bytes: {}", input.len(), input.escape_ascii());
    }
}

#[test]
fn what_a_broker_sends() {
    try_door("mqtt", fuzzing::mqtt);
}

#[test]
fn what_a_sparkplug_host_commands() {
    try_door("sparkplug", fuzzing::sparkplug);
}

#[test]
fn a_segment_of_the_spool() {
    try_door("segment", fuzzing::segment);
}

#[test]
fn a_log_of_the_store() {
    try_door("store", fuzzing::store);
}

#[test]
fn a_body_of_an_order_or_a_write() {
    try_door("body", fuzzing::body);
}

#[test]
fn a_configuration() {
    try_door("configuration", fuzzing::configuration);
}

#[test]
fn a_table_of_tags() {
    try_door("csv", fuzzing::csv);
}
